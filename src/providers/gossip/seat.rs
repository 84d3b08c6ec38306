//! The running node of a gossip provider: shared by its streams, its registration and the handles, and by the provider of
//! an edited definition that differs in its seeds alone.

use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use super::feed::{Feed, JOINING, Standing, Teller};
use super::keys::Keys;
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::membership::NotDone;
use crate::membership::transport::Node;
use crate::sync::{Mutex, lock};
use crate::topology::ClusterNode;

/// See the module.
pub(super) struct Seat {
    pub(super) provider: ProviderId,
    pub(super) feed: Arc<Feed>,
    clock: Arc<dyn Clock>,
    node: Mutex<Option<Node>>,
}

impl Seat {
    pub(super) fn new(provider: ProviderId, clock: Arc<dyn Clock>, feed: Arc<Feed>) -> Arc<Self> {
        Arc::new(Self { feed, provider, clock, node: Mutex::new(None) })
    }

    /// Runs the member, unless it runs.
    pub(super) fn start(
        &self,
        config: &Config,
        keys: &Keys,
        local: &Arc<ClusterNode>,
    ) -> Result<(), ProvisioningError> {
        let mut node = lock(&self.node);
        if node.is_some() && self.feed.standing().0 != Standing::Ended {
            return Ok(());
        }
        let keys = keys.read()?;
        // A former one has ended, and gives its port back.
        *node = None;
        self.feed.begins();
        let bind = config.bind(local.address());
        let (settings, seeds) = (config.settings.clone(), config.seeds.clone());
        let described = (Arc::clone(local), config.advertise_port);
        let teller = Box::new(Teller(Arc::clone(&self.feed)));
        let started = Node::member((settings, config.counts, keys), described, bind, seeds, &self.clock, teller);
        match started {
            Ok(Ok(member)) => *node = Some(member),
            Ok(Err(why)) => return Err(self.refused(JOINING, why)),
            Err(error) => return Err(self.not_listening(bind, &error)),
        }
        Ok(())
    }

    pub(super) fn not_listening(&self, bind: std::net::SocketAddr, error: &std::io::Error) -> ProvisioningError {
        let detail = format!("this node cannot listen at {bind}: {error}");
        ProvisioningError::new(ErrorCode::ListenFailed, JOINING, detail).with_provider(&self.provider)
    }

    /// Takes over other keys.
    pub(super) fn take_keys(&self, keys: &Keys) {
        if let (Some(keys), Some(node)) = (keys.changed(), &*lock(&self.node)) {
            node.set_keys(keys);
        }
    }

    /// The seeds are others from now on.
    pub(super) fn set_seeds(&self, config: &Config) {
        if let Some(node) = &*lock(&self.node) {
            node.set_seeds(config.seeds.clone());
        }
    }

    /// Whether a member runs, or somebody watches.
    pub(super) fn is_used(&self) -> bool {
        self.is_running() || self.feed.is_watched()
    }

    pub(super) fn is_running(&self) -> bool {
        lock(&self.node).is_some() && self.feed.standing().0 != Standing::Ended
    }

    /// What the node says; absent while there is none.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Node) -> T) -> Option<T> {
        lock(&self.node).as_ref().map(ask)
    }

    /// The member leaves. Whether it had ended within that time: members are told, and one is waited for.
    pub(super) fn leave(&self, budget: Duration) -> bool {
        // Outside of the lock: whoever asks something of it does not wait.
        let node = lock(&self.node).take();
        let left = node.is_none_or(|node| node.leave(budget));
        self.feed.ends();
        left
    }

    /// What was asked for is not done.
    pub(super) fn refused(&self, doing: &'static str, why: NotDone) -> ProvisioningError {
        let code = match why {
            NotDone::NotStarted => ErrorCode::NotStarted,
            NotDone::AlreadyStarted => ErrorCode::DuplicateName,
            NotDone::MetricsDisabled => ErrorCode::MetricsDisabled,
            NotDone::TooLarge | NotDone::Incarnation => ErrorCode::InvalidNode,
            NotDone::TooManyRulings => ErrorCode::BlockListFull,
        };
        ProvisioningError::new(code, doing, why.to_string()).with_provider(&self.provider)
    }
}
