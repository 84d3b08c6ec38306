//! A cluster in this process's memory: for tests, and for programs whose cluster is one process.
//!
//! An [`InMemoryCluster`] holds who is registered, with or without a time to live, and hands every change at once to any
//! number of streams. Each provider has its own view of it, which can be made to fail alone ([`InMemoryFaults`]), so that
//! two providers over one cluster can disagree. What follows from a failure (health, failover) is decided elsewhere.
//!
//! The lock covers state only. Under it events go into the streams' own queues, which never block; the clock is read
//! and callers' code runs outside it.

mod faults;
pub(in crate::providers) mod parameters;
mod provider;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use faults::InMemoryFaults;
pub use provider::{InMemoryFactory, InMemoryProvider};

use crate::clock::Clock;
use crate::id::ProviderId;
use crate::topology::{ClusterNode, Members, NodeId};
use state::State;

/// A cluster that processes' threads share. Clones are the same cluster.
///
/// What is registered by calls of the cluster is the caller's own: it replaces what was there, and no provider's
/// registration removes it. A service may join under the same id at the same place, and holds the node beside the caller;
/// where the caller registers a later life, or the same one elsewhere, the service is told `node-id-taken`.
///
/// Registrations expire by the clock given. Streams that are being read notice an expiry when it is due, and any call
/// of the cluster does; where the clock is a fake one that moves unseen, [`expire`](Self::expire) makes it noticed.
///
/// ```
/// use cluster_provisioning::{ClusterNode, InMemoryCluster, SystemClock};
/// let cluster = InMemoryCluster::new(SystemClock::shared());
/// cluster.register(ClusterNode::builder("a", "10.0.0.1", 8080).build()?);
/// assert_eq!(cluster.members().len(), 1);
/// # Ok::<(), cluster_provisioning::ProvisioningError>(())
/// ```
#[derive(Clone)]
pub struct InMemoryCluster {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl InMemoryCluster {
    /// An empty cluster whose registrations expire by that clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { clock, state: Mutex::new(State::default()) }) }
    }

    /// Registers the node for good, or replaces the one of the same id, whoever registered that. Whether that changed the
    /// members.
    pub fn register(&self, node: impl Into<Arc<ClusterNode>>) -> bool {
        let node = node.into();
        self.lock_expired().register([(node, None)]) > 0
    }

    /// Registers the node for that long, or replaces the one of the same id: it leaves by itself unless it is
    /// [renewed](Self::renew) or registered again. Whether that changed the members.
    pub fn register_with_ttl(&self, node: impl Into<Arc<ClusterNode>>, ttl: Duration) -> bool {
        let node = node.into();
        self.lock_expired().register([(node, Some(ttl))]) > 0
    }

    /// Registers all the nodes for good, as one change. How many of them changed the members.
    pub fn register_all<N: Into<Arc<ClusterNode>>>(&self, nodes: impl IntoIterator<Item = N>) -> usize {
        // The caller's iterator runs before the lock is taken.
        let nodes: Vec<_> = nodes.into_iter().map(|node| (node.into(), None)).collect();
        self.lock_expired().register(nodes)
    }

    /// Starts the node's time to live anew. Whether the node is a member; one registered for good stays so.
    pub fn renew(&self, id: &NodeId) -> bool {
        self.lock_expired().renew(id)
    }

    /// Removes the node, whoever registered it. Whether it was a member.
    pub fn leave(&self, id: &NodeId) -> bool {
        self.lock_expired().leave([id.clone()]) > 0
    }

    /// Removes every node, as one change. How many there were.
    pub fn leave_all(&self) -> usize {
        self.lock_expired().leave_all()
    }

    /// Who is registered now.
    pub fn members(&self) -> Members {
        self.lock_expired().members().clone()
    }

    /// Removes the nodes whose time to live is over, as one change. How many they were. Every other call does the same
    /// before its own work.
    pub fn expire(&self) -> usize {
        let now = self.shared.clock.now();
        self.shared.lock().expire(now)
    }

    /// What can be made to go wrong for the provider of that id, which need not exist yet.
    pub fn faults(&self, provider: &ProviderId) -> InMemoryFaults {
        InMemoryFaults::new(Arc::clone(&self.shared), provider.clone())
    }

    fn lock_expired(&self) -> MutexGuard<'_, State> {
        self.shared.lock_expired()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as of now: without those whose time is over.
    fn lock_expired(&self) -> MutexGuard<'_, State> {
        let now = self.clock.now();
        let mut state = self.lock();
        state.expire(now);
        state
    }
}

impl fmt::Debug for InMemoryCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryCluster").field("members", &self.shared.lock().members().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
