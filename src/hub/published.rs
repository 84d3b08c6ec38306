//! What can be read from any thread without a lock: the state as the last completed tick left it.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use super::Decision;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{PauseReason, PlacementGate, StreamEnded};
use crate::health::ProviderHealth;
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::provider::ProviderRole;
use crate::text;
use crate::topology::{BlockSource, BlockedNodes, Members, NodeId, Position, ProviderSnapshot};

/// How a provider in force does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProviderStatus {
    /// The provider.
    pub id: ProviderId,
    /// Its priority.
    pub priority: i64,
    /// What its members are to those of the others.
    pub role: ProviderRole,
    /// Whether it is the one followed.
    pub active: bool,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Its health.
    pub health: ProviderHealth,
    /// Since when.
    pub since: Timestamp,
    /// Why it is not healthy; absent if it is.
    pub cause: Option<ProvisioningError>,
    /// Errors in a row.
    pub errors: u32,
    /// When it last gave a sign of life.
    pub last_heartbeat: Option<Timestamp>,
    /// When its data was last confirmed; how old the data is follows from it.
    pub last_refresh: Option<Timestamp>,
    /// How many members it shows, if it has shown any set yet.
    pub members: Option<usize>,
    /// The hash of the members that it shows.
    #[serde(serialize_with = "text::optional_hash")]
    pub hash: Option<u64>,
    /// How its last stream came to its end, if one has; also while another is open.
    pub last_end: Option<Arc<StreamEnded>>,
}

/// How a remote node does, as far as the hub knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteHealth {
    /// It left, or a failure detector has taken it out.
    Down,
    /// It is a member, but blocked, or shown by a provider that is not healthy.
    Degraded,
    /// It is a member.
    Up,
}

/// A remote node's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemoteNode {
    /// The node.
    pub id: NodeId,
    /// Its health.
    pub health: RemoteHealth,
    /// When that was last confirmed: the last refresh for a member, the time of the block for a blocked one, the time of
    /// its departure for one that left.
    pub last_update: Timestamp,
}

/// The state that a tick leaves behind.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) position: Position,
    pub(crate) snapshot: Option<Arc<ProviderSnapshot>>,
    pub(crate) gate: PlacementGate,
    pub(crate) providers: Vec<ProviderStatus>,
    pub(crate) blocked: BlockedNodes,
    pub(crate) decisions: Arc<[Decision]>,
    pub(crate) announced: Members,
    pub(crate) departed: Arc<VecDeque<(NodeId, Timestamp)>>,
    /// When the provider followed, or followed last, confirmed its data.
    pub(crate) confirmed_at: Option<Timestamp>,
    /// The end signal told last.
    pub(crate) last_end: Option<Arc<StreamEnded>>,
    pub(crate) metrics: Arc<ProvisioningMetrics>,
    pub(crate) stopped: bool,
}

/// The metrics as they are published: two copies take turns, so that a tick allocates none unless a reader still holds
/// the state of the tick before the last.
#[derive(Default)]
pub(super) struct PublishedMetrics {
    last: Arc<ProvisioningMetrics>,
    before: Arc<ProvisioningMetrics>,
}

impl PublishedMetrics {
    /// The copy to publish next, filled in from nothing or from an older one.
    pub(super) fn next(&mut self, fill: impl FnOnce(&mut ProvisioningMetrics)) -> Arc<ProvisioningMetrics> {
        std::mem::swap(&mut self.last, &mut self.before);
        if Arc::get_mut(&mut self.last).is_none() {
            self.last = Arc::default();
        }
        if let Some(metrics) = Arc::get_mut(&mut self.last) {
            fill(metrics);
        }
        Arc::clone(&self.last)
    }
}

/// Where the hub leaves the state, and everyone finds it.
pub(crate) type Publication = Arc<ArcSwap<Published>>;

impl Published {
    /// The latest snapshot, or why there is none to work with. `gate`: the one in force, which may have closed since.
    pub(crate) fn latest_snapshot(&self, gate: PlacementGate) -> Result<Arc<ProviderSnapshot>, ProvisioningError> {
        let doing = "reading the latest snapshot";
        if let PlacementGate::Paused(PauseReason::Unavailable(code)) = gate {
            let causes: Vec<String> = self
                .providers
                .iter()
                .map(|status| match &status.cause {
                    Some(cause) => format!("{}: {} ({})", status.id, status.health, cause.code()),
                    None => format!("{}: {}", status.id, status.health),
                })
                .collect();
            return Err(ProvisioningError::new(code, doing, format!("providers: {}", causes.join(", "))));
        }
        let missing = || ProvisioningError::new(ErrorCode::NoSnapshot, doing, "no provider had delivered one");
        self.snapshot.clone().ok_or_else(missing)
    }

    /// The health of every remote node that is known of, sorted by id.
    pub(crate) fn remote_nodes(&self) -> Vec<RemoteNode> {
        let active = self.providers.iter().find(|status| status.active);
        let fresh = active.is_some_and(|status| status.health == ProviderHealth::Healthy);
        let refreshed = self.confirmed_at.unwrap_or_default();
        let block = |id: &NodeId| self.blocked.of(id).first();
        let members = self.announced.iter().map(|node| match block(node.id()) {
            Some(entry) => {
                RemoteNode { id: node.id().clone(), health: RemoteHealth::Degraded, last_update: entry.since }
            }
            None => {
                let health = if fresh { RemoteHealth::Up } else { RemoteHealth::Degraded };
                RemoteNode { id: node.id().clone(), health, last_update: refreshed }
            }
        });
        let down = |id: &NodeId, at| RemoteNode { id: id.clone(), health: RemoteHealth::Down, last_update: at };
        let excluded = self.blocked.iter().filter(|entry| entry.source == BlockSource::FailureDetector);
        let departed = self.departed.iter().filter(|(id, _)| !self.announced.contains(id));
        let mut nodes: Vec<RemoteNode> = members.collect();
        nodes.extend(
            excluded.filter(|entry| !self.announced.contains(&entry.node)).map(|entry| down(&entry.node, entry.since)),
        );
        nodes.extend(departed.map(|(id, at)| down(id, *at)));
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes.dedup_by(|a, b| a.id == b.id);
        nodes
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn p5_1_published_metrics_never_change_and_use_the_copies_that_nobody_holds() {
        let mut published = PublishedMetrics::default();
        let mut next = |snapshots| published.next(|metrics| metrics.snapshots = snapshots);
        let (first, second) = (next(1), next(2));
        let places = [Arc::as_ptr(&first), Arc::as_ptr(&second)];
        drop(first);
        let third = next(3);
        assert_eq!((second.snapshots, third.snapshots), (2, 3));
        assert_eq!(Arc::as_ptr(&third), places[0], "nobody held the first");
        let fourth = next(4);
        assert_eq!((second.snapshots, fourth.snapshots), (2, 4));
        assert_ne!(Arc::as_ptr(&fourth), places[1], "the second is held");
    }
}
