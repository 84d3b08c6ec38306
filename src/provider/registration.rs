//! The registration of the local node with one provider: what keeps it, and where it stands.

use std::time::Duration;

use crossbeam_channel::{Receiver, never};

use super::CancelToken;
use crate::error::{ErrorCode, ProvisioningError};
use crate::topology::ClusterNode;

/// The registration of the local node with one provider: made by
/// [`ClusterProvider::registration`](super::ClusterProvider::registration) without anything being registered yet, and
/// used from one thread at a time.
///
/// It is [joined](Self::join) until that succeeds, then [renewed](Self::renew), joined again when it is lost, and in the
/// end [left](Self::leave) or [retired](Self::retire), whatever became of it before.
pub trait Registration: Send {
    /// Registers the node; re-asserts what is registered already. Called again after it failed, and when the registration
    /// is lost. Must return soon after `cancel` fires.
    ///
    /// # Errors
    /// Why the node could not be registered, or is not known to be. Tried again after at most 2 s.
    fn join(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError>;

    /// How long to wait before the next [`renew`](Self::renew). Asked after each step, also after one that failed.
    fn renew_interval(&self) -> Duration;

    /// Where the provider asks for a [`renew`](Self::renew) before the interval is over, with a message: for example when
    /// its stream no longer shows the node. Default: nowhere.
    fn early_renewal(&self) -> Receiver<()> {
        never()
    }

    /// The node is described as that from now on: with other kinds or metadata, or in a later life. Its id, address and port
    /// are the same. Registers nothing by itself: it is called before [`join`](Self::join), which registers the node as it is
    /// described now, also where it was registered already.
    ///
    /// # Errors
    /// The backend cannot carry what the node is described as. It stays registered as it was, with a warning.
    ///
    /// Default: [`ErrorCode::Unsupported`](crate::ErrorCode::Unsupported).
    fn describe(&mut self, node: &ClusterNode) -> Result<(), ProvisioningError> {
        let detail = "this provider registers a node as it was at the start";
        let error = ProvisioningError::new(ErrorCode::Unsupported, "describing the local node anew", detail);
        Err(error.with_advice(format!("start the process again to have {} registered as it is now", node.id())))
    }

    /// Keeps the registration alive. Must return soon after `cancel` fires.
    ///
    /// # Errors
    /// The registration is lost or in doubt: it is renewed again after [`renew_interval`](Self::renew_interval), or after
    /// 2 s at most; and if `renew` fails with [`ErrorCode::RegistrationFailed`](crate::ErrorCode::RegistrationFailed) the
    /// node is registered anew.
    fn renew(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError>;

    /// Deregisters whatever may be registered: also after a [`join`](Self::join) whose answer was lost or that failed half
    /// way, and after a [`renew`](Self::renew) that failed. Deregistering what is not registered succeeds. Must return
    /// within `budget`. It need not try anything twice: it is called again while there is time.
    ///
    /// # Errors
    /// The node may still be registered, until the backend expires it. Called again: while the service drains, soon, and
    /// with what is left of the budget, if the code is [`ErrorCode::BackendUnavailable`](crate::ErrorCode::BackendUnavailable)
    /// or [`ErrorCode::Timeout`](crate::ErrorCode::Timeout); after a removal for five minutes, whatever it is.
    fn leave(&mut self, budget: Duration) -> Result<(), ProvisioningError>;

    /// Makes way for the registration of an edited definition of the same provider, which holds the node by now: removes
    /// what this one registered only where that is apart from what the other one did, so that nobody sees the node leave.
    /// Called in place of [`leave`](Self::leave) where the other one's provider is of the same kind, and was made by
    /// [`ProviderFactory::replace`](super::ProviderFactory::replace) from this one's. Must return within `budget`. Default:
    /// [`leave`](Self::leave), which is right where a registration removes nothing but its own.
    ///
    /// # Errors
    /// What this one registered may still be there, until the backend expires it.
    fn retire(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        self.leave(budget)
    }
}

/// Where a provider registers the local node, and as what.
///
/// Providers with the same place and the same entry share that entry: whoever leaves last deregisters. Those with the
/// same place and different entries would overwrite each other's.
///
/// ```
/// use cluster_provisioning::RegistrationSite;
/// let site = RegistrationSite::new("consul http://127.0.0.1:8500", "orders");
/// assert_eq!((site.place(), site.entry()), ("consul http://127.0.0.1:8500", "orders"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistrationSite {
    place: String,
    entry: String,
}

impl RegistrationSite {
    /// A site. The place begins with what kind of place it is, so that those of different kinds are never equal.
    pub fn new(place: impl Into<String>, entry: impl Into<String>) -> Self {
        Self { place: place.into(), entry: entry.into() }
    }

    /// Where: what holds one registration of the node and no more, such as an agent.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// As what: the service, or the cluster, under which the node is found there.
    pub fn entry(&self) -> &str {
        &self.entry
    }
}
