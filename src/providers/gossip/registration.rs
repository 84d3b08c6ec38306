//! The registration of the local node with a gossip cluster: it is a member, or it is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Config;
use super::feed::{JOINING, Standing};
use super::keys::Keys;
use super::seat::Seat;
use crate::error::{ErrorCode, ProvisioningError};
use crate::membership::NotDone;
use crate::provider::{CancelToken, Credential, Registration};
use crate::topology::ClusterNode;

/// How often it is looked whether the member is there still, and how often whether its keys are.
const LOOKED_AFTER: Duration = Duration::from_secs(5);
const KEYS_READ: Duration = Duration::from_secs(2);
/// How long it is waited for at a time until a member has let the node in. It goes on asking all the same.
const LET_IN: Duration = Duration::from_secs(5);
/// How long a cancellation goes unnoticed meanwhile.
const NOTICED: Duration = Duration::from_millis(20);

const DESCRIBING: &str = "describing the local node anew";

/// See the module.
pub(super) struct GossipRegistration {
    pub(super) seat: Arc<Seat>,
    pub(super) config: Arc<Config>,
    pub(super) keys: Arc<Keys>,
    pub(super) local: Arc<ClusterNode>,
    /// The provider of an edited definition runs the same member.
    pub(super) is_succeeded: Arc<std::sync::atomic::AtomicBool>,
}

impl GossipRegistration {
    /// Why the node is not inside.
    fn outside(&self, standing: Standing, why: Option<ProvisioningError>) -> ProvisioningError {
        let named = |error: ProvisioningError| error.with_provider(&self.seat.provider);
        match (standing, why) {
            (Standing::Ended, Some(why)) if why.code() == ErrorCode::NodeIdTaken => named(why),
            (Standing::Ended, _) => {
                named(ProvisioningError::new(ErrorCode::RegistrationFailed, JOINING, "the member has ended"))
            }
            (_, Some(why)) => named(why),
            (_, None) => named(ProvisioningError::new(
                ErrorCode::BackendUnavailable,
                JOINING,
                "no seed has answered yet; they are asked on and on",
            )),
        }
    }
}

impl Registration for GossipRegistration {
    fn join(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.seat.start(&self.config, &self.keys, &self.local)?;
        let ends = Instant::now() + LET_IN;
        loop {
            match self.seat.feed.wait_inside(NOTICED) {
                (Standing::Inside, _) => return Ok(()),
                (Standing::Outside, _) if !cancel.is_cancelled() && Instant::now() < ends => {
                    self.seat.take_keys(&self.keys);
                }
                (standing, why) => return Err(self.outside(standing, why)),
            }
        }
    }

    fn describe(&mut self, node: &ClusterNode) -> Result<(), ProvisioningError> {
        self.local = Arc::new(node.clone());
        let described = Arc::clone(&self.local);
        // Its incarnation is the member's own to raise.
        match self.seat.ask(|member| member.describe(described)) {
            Some(Err(why)) if why != NotDone::NotStarted => Err(self.seat.refused(DESCRIBING, why)),
            _ => Ok(()),
        }
    }

    fn renew_interval(&self) -> Duration {
        if self.config.keys == Credential::None { LOOKED_AFTER } else { KEYS_READ }
    }

    fn renew(&mut self, _cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.seat.take_keys(&self.keys);
        match self.seat.feed.standing() {
            (Standing::Inside, _) => Ok(()),
            (standing, why) => Err(self.outside(standing, why)),
        }
    }

    fn leave(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        if self.seat.leave(budget) {
            return Ok(());
        }
        let detail = "the member has not ended in time; the others will find that it does not answer";
        Err(ProvisioningError::new(ErrorCode::Timeout, "leaving a gossip cluster", detail)
            .with_provider(&self.seat.provider))
    }

    fn retire(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        match self.is_succeeded.load(std::sync::atomic::Ordering::Acquire) {
            true => Ok(()),
            false => self.leave(budget),
        }
    }
}
