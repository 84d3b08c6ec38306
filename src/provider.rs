//! The contract between this library and whatever knows the members of a cluster.
//!
//! A [`ClusterProvider`] opens a [`ProviderStream`], and the service pulls [`ProviderEvent`]s from it on a thread of its
//! own. A stream begins with a whole [`ProviderEvent::Snapshot`]; after it a provider that learns of changes one by one
//! sends [`ProviderEvent::Changes`] against its own last state, one that learns whole sets sends snapshots. Whatever
//! happens, it gives a sign of life at least every five seconds ([`SIGN_OF_LIFE`]).
//!
//! In member mode it makes a [`Registration`], which registers the local node, keeps it registered and deregisters it.
//!
//! A [`ProviderFactory`] makes providers of one kind from their [`ProviderDescriptor`]s, so that what was stored becomes
//! a provider again.

mod cancel;
mod descriptor;
mod event;
mod exclusions;
mod local_node;
mod name;
mod registration;
mod retry;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use cancel::{CancelGuard, CancelToken};
pub(crate) use descriptor::MAX_PRIORITY;
pub use descriptor::{Credential, ProviderDescriptor, ProviderRole};
pub use event::{MemberChange, ProviderEvent, ProviderTermination};
pub use exclusions::{Exclusion, Exclusions};
pub use local_node::LocalNode;
pub use registration::{Registration, RegistrationSite};
pub use retry::RetryPolicy;

use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderKind;
use crate::secret::Secrets;
use crate::topology::ClusterNode;

/// How often a stream gives a sign of life at the least, also when nothing changes.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// What a provider can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// It can watch the topology. Without this it is registered as disabled.
    pub watch: bool,
    /// It can register and deregister the local node.
    pub register: bool,
}

impl Capabilities {
    /// Exactly these.
    pub const fn new(watch: bool, register: bool) -> Self {
        Self { watch, register }
    }

    /// Watches only.
    pub const WATCH: Capabilities = Capabilities { watch: true, register: false };
    /// Watches, and registers the local node in member mode.
    pub const WATCH_AND_REGISTER: Capabilities = Capabilities { watch: true, register: true };
}

/// Something that knows the members of a cluster. It is [`Any`], so that the factory of its kind knows it again in
/// [`ProviderFactory::replace`].
pub trait ClusterProvider: Any + Send + Sync {
    /// What this provider was made from.
    fn descriptor(&self) -> &ProviderDescriptor;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// How often its data is refreshed at the least while all is well, also when nothing changes: data twice as old is
    /// overdue and makes the provider Degraded. `None`: it makes no promise, and only silence counts.
    fn refresh_interval(&self) -> Option<Duration>;

    /// Verifies that the backend is there and lets itself be read. Called before the provider is accepted, on a thread
    /// that may block; must return soon after `cancel` fires.
    ///
    /// # Errors
    /// What is missing, with a code of the connection category.
    fn check_connectivity(&self, cancel: &CancelToken) -> Result<(), ProvisioningError>;

    /// Opens a stream. Called on the provider's own thread, and again after a stream has terminated. The stream ends
    /// soon after `cancel` fires.
    ///
    /// # Errors
    /// Why no stream could be opened; counts as a stream that terminated at once.
    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError>;

    /// Makes the registration of the local node, without any I/O: nothing is registered before [`Registration::join`].
    ///
    /// # Errors
    /// [`ErrorCode::Unsupported`] unless overridden, and if the provider was not made for this node.
    fn registration(&self, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        let _ = node;
        Err(ProvisioningError::new(ErrorCode::Unsupported, "registering the local node", "this provider only watches")
            .with_provider(&self.descriptor().id))
    }

    /// Where [`registration`](Self::registration) registers the local node, and as what. Default: nowhere that another
    /// provider may register it, too.
    fn registration_site(&self) -> Option<RegistrationSite> {
        None
    }
}

/// A watch under way.
pub trait ProviderStream: Send {
    /// Blocks until the next event. Gives a sign of life at least every [`SIGN_OF_LIFE`]. Once the token given to
    /// [`ClusterProvider::watch`] fires it returns soon, with whatever event, which is ignored. Not called again after
    /// [`ProviderEvent::Terminated`].
    fn next(&mut self) -> ProviderEvent;
}

/// What a factory may use to make a provider.
#[derive(Clone)]
#[non_exhaustive]
pub struct ProviderEnvironment {
    /// The service's clock.
    pub clock: Arc<dyn Clock>,
    /// The secrets handed to the builder, by name.
    pub secrets: Secrets,
    /// In member mode, the local node. A factory that makes providers which register refuses in
    /// [`create`](ProviderFactory::create) a node that its backend cannot carry.
    pub local_node: LocalNode,
    /// How the provider paces what it tries again by itself.
    pub retry: RetryPolicy,
    /// Where a provider that detects failures by itself tells whom it excludes.
    pub exclusions: Exclusions,
}

impl ProviderEnvironment {
    /// With that clock, no secrets, no local node, the default pauses, and nobody who listens to exclusions.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            secrets: Secrets::default(),
            local_node: LocalNode::default(),
            retry: RetryPolicy::default(),
            exclusions: Exclusions::default(),
        }
    }

    /// Sets the secrets.
    #[must_use]
    pub fn secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// Sets the local node: member mode; `None` for client mode.
    #[must_use]
    pub fn local_node(mut self, node: impl Into<LocalNode>) -> Self {
        self.local_node = node.into();
        self
    }

    /// Sets where exclusions are told.
    #[must_use]
    pub fn exclusions(mut self, exclusions: Exclusions) -> Self {
        self.exclusions = exclusions;
        self
    }

    /// Sets the pauses.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
}

impl fmt::Debug for ProviderEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderEnvironment")
            .field("local_node", &self.local_node.get().map(|node| node.id().clone()))
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// Makes providers of one kind.
pub trait ProviderFactory: Send + Sync {
    /// The kind.
    fn kind(&self) -> ProviderKind;

    /// Checks what the descriptor holds for this kind: required, unknown and malformed fields. Does no I/O.
    ///
    /// # Errors
    /// A code of the validation category, with the field.
    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError>;

    /// Makes the provider. Connects to nothing, and reads at most the local files that say where the backend is; called
    /// only with descriptors that [`validate`](Self::validate) accepts.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError>;

    /// Makes the provider of an edited definition, in place of [`create`](Self::create). It may take over what the
    /// predecessor has learned, which goes on meanwhile, and for good if the change is refused in the end. The predecessor
    /// may be of any type: it is one of this factory's only if the kind is the same, too.
    ///
    /// # Errors
    /// As for [`create`](Self::create), which it calls unless overridden.
    fn replace(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
        predecessor: &dyn ClusterProvider,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let _ = predecessor;
        self.create(descriptor, environment)
    }
}
