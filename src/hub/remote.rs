//! What Remoting has been told of: which nodes it may hold channels to.
//!
//! Joins are told only while the provider followed is healthy; leaves always. What was held back is told once a refresh
//! confirms it, and forgotten if the node goes before. A warning says when the topology may be stale.

use std::collections::VecDeque;
use std::sync::Arc;

use super::turn::{Delivered, Turn};
use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::event::{ProvisioningEvent, RemoteTopologyChange, RemoteTopologyEvent, RemotingWarning};
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::topology::{ClusterNode, Members, NodeId, TopologyDiff};

/// How many departed nodes are remembered, for those who ask after their health.
const DEPARTED: usize = 1024;

/// What Remoting has been told of.
#[derive(Debug, Default)]
pub(super) struct RemoteView {
    announced: Members,
    departed: Arc<VecDeque<(NodeId, Timestamp)>>,
    /// It has been warned that the topology may be stale.
    warned: bool,
    /// How many joins were held back.
    held: u64,
}

/// What Remoting is to be told.
#[derive(Debug, Default)]
struct RemoteChanges {
    left: Vec<Arc<ClusterNode>>,
    joined: Vec<Arc<ClusterNode>>,
    /// How many joins are held back.
    held: usize,
}

/// What the deliveries to Remoting say of where they come from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The provider followed, or followed last.
    pub(super) provider_id: Option<ProviderId>,
    /// The hash of the snapshot delivered last.
    pub(super) snapshot_hash: u64,
}

impl RemoteView {
    /// Whether Remoting knows exactly these members.
    fn matches(&self, members: &Members) -> bool {
        self.announced.hash() == members.hash() && self.announced.len() == members.len()
    }

    /// The members that Remoting has been told of.
    pub(super) fn announced(&self) -> &Members {
        &self.announced
    }

    /// The nodes that left most recently, each with the time.
    pub(super) fn departed(&self) -> &Arc<VecDeque<(NodeId, Timestamp)>> {
        &self.departed
    }

    /// Warns Remoting once when the topology may be stale, and tells it once when it is fresh again. `degraded`: what is
    /// wrong with the provider.
    pub(super) fn warn(&mut self, provider_id: &ProviderId, degraded: Option<ProvisioningError>, turn: &mut Turn<'_>) {
        if self.warned == degraded.is_some() {
            return;
        }
        self.warned = degraded.is_some();
        let provider_id = provider_id.clone();
        turn.deliver(|position, at| {
            ProvisioningEvent::RemotingWarning(RemotingWarning { position, at, provider_id, degraded })
        });
    }

    /// Tells Remoting who came and went with `members`, which were delivered; joins only of those among the `confirmed`.
    pub(super) fn tell(&mut self, members: &Members, confirmed: &Members, origin: &Origin, turn: &mut Turn<'_>) {
        if self.matches(members) {
            return;
        }
        let changes = self.follow(members, confirmed, turn.delivered(), turn.now());
        if turn.delivered().is_some() {
            self.held += changes.held as u64;
        }
        announce(changes, origin, turn);
    }

    /// Tells Remoting who is gone from `members`, and nothing else.
    pub(super) fn tell_losses(&mut self, members: &Members, origin: &Origin, turn: &mut Turn<'_>) {
        if !self.matches(members) {
            let changes = self.shrink(members, turn.now());
            announce(changes, origin, turn);
        }
    }

    /// What was counted.
    pub(super) fn report(&self, metrics: &mut ProvisioningMetrics) {
        metrics.held_joins = self.held;
    }

    /// Brings the view to `members` as far as may be, and gives what Remoting is to be told. Joins are told of those that
    /// are among the `confirmed`. `known`: the difference to `members` from a set that the view may be at.
    fn follow(
        &mut self,
        members: &Members,
        confirmed: &Members,
        known: Option<&Delivered>,
        now: Timestamp,
    ) -> RemoteChanges {
        let diff = match known {
            Some(Delivered { from, diff }) if from.is_same(&self.announced) => Arc::clone(diff),
            _ => Arc::new(TopologyDiff::between(&self.announced, members)),
        };
        let is_confirmed = |node: &ClusterNode| confirmed.get(node.id()).is_some_and(|known| known.is_same_life(node));
        let mut changes = RemoteChanges { left: diff.left().to_vec(), ..RemoteChanges::default() };
        let told = diff.joined().iter().filter(|node| is_confirmed(node));
        changes.joined = told.cloned().collect();
        changes.held = diff.joined().len() - changes.joined.len();
        if changes.held == 0 {
            self.announced = members.clone();
        } else {
            for node in diff.left() {
                self.announced.remove(node.id());
            }
            for node in changes.joined.iter().chain(diff.updated()) {
                self.announced.insert(Arc::clone(node));
            }
        }
        self.remember(&changes, now);
        changes
    }

    /// Takes away the nodes that are no longer among `members`, and nothing else.
    fn shrink(&mut self, members: &Members, now: Timestamp) -> RemoteChanges {
        let diff = TopologyDiff::between(&self.announced, members);
        for node in diff.left() {
            self.announced.remove(node.id());
        }
        let changes = RemoteChanges { left: diff.left().to_vec(), ..RemoteChanges::default() };
        self.remember(&changes, now);
        changes
    }

    fn remember(&mut self, changes: &RemoteChanges, now: Timestamp) {
        let announced = &self.announced;
        let departed: Vec<_> = changes.left.iter().filter(|node| !announced.contains(node.id())).collect();
        // Those who joined are sorted by id.
        let is_back = |(id, _): &(NodeId, Timestamp)| changes.joined.binary_search_by(|node| node.id().cmp(id)).is_ok();
        let any_back = !changes.joined.is_empty() && self.departed.iter().any(is_back);
        if departed.is_empty() && !any_back {
            return;
        }
        let remembered = Arc::make_mut(&mut self.departed);
        if any_back {
            remembered.retain(|entry| !is_back(entry));
        }
        for node in departed {
            if remembered.len() == DEPARTED {
                remembered.pop_front();
            }
            remembered.push_back((node.id().clone(), now));
        }
    }
}

fn announce(changes: RemoteChanges, origin: &Origin, turn: &mut Turn<'_>) {
    turn.reserve(changes.left.len() + changes.joined.len());
    for node in changes.left {
        push(RemoteTopologyChange::Leave, node.id().clone(), Some(node), origin, turn);
    }
    for node in changes.joined {
        push(RemoteTopologyChange::Join, node.id().clone(), Some(node), origin, turn);
    }
}

/// Tells Remoting of one node.
pub(super) fn push(
    event: RemoteTopologyChange,
    node_id: NodeId,
    node: Option<Arc<ClusterNode>>,
    origin: &Origin,
    turn: &mut Turn<'_>,
) {
    let Origin { provider_id, snapshot_hash } = origin.clone();
    turn.deliver(|position, at| {
        let event = RemoteTopologyEvent { position, at, event, node_id, node, provider_id, snapshot_hash };
        ProvisioningEvent::RemoteTopology(event)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{members, node};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn departed(view: &RemoteView) -> Vec<(String, u64)> {
        view.departed().iter().map(|(id, at)| (id.to_string(), at.as_millis() / 1000)).collect()
    }

    /// Follows these members, all of them confirmed.
    fn follow(view: &mut RemoteView, ids: &[&str], seconds: u64) -> RemoteChanges {
        let members = members(ids);
        view.follow(&members, &members, None, at(seconds))
    }

    #[test]
    fn p4_5_who_left_is_remembered_with_the_time_until_it_comes_back() {
        let mut view = RemoteView::default();
        follow(&mut view, &["a", "b", "c"], 1);
        assert_eq!(departed(&view), []);
        follow(&mut view, &["c"], 2);
        assert_eq!(departed(&view), [("a".to_owned(), 2), ("b".to_owned(), 2)]);
        follow(&mut view, &["c", "d"], 3);
        assert_eq!(departed(&view).len(), 2, "someone else's arrival changes nothing");
        follow(&mut view, &["b", "c", "d"], 4);
        assert_eq!(departed(&view), [("a".to_owned(), 2)]);
        follow(&mut view, &["a", "b", "c"], 5);
        assert_eq!(departed(&view), [("d".to_owned(), 5)], "one back and one gone at once");
        view.shrink(&members(&["a"]), at(6));
        let remembered = [("d".to_owned(), 5), ("b".to_owned(), 6), ("c".to_owned(), 6)];
        assert_eq!(departed(&view), remembered);
    }

    #[test]
    fn p4_5_a_restart_is_no_departure() {
        let mut view = RemoteView::default();
        follow(&mut view, &["a"], 1);
        let other: Members = [ClusterNode::builder("a", "10.0.0.9", 1).build().unwrap()].into_iter().collect();
        let changes = view.follow(&other, &other, None, at(2));
        assert_eq!((changes.left.len(), changes.joined.len(), changes.held), (1, 1, 0));
        assert_eq!(departed(&view), []);
    }

    #[test]
    fn p4_5_the_last_1024_departures_are_remembered() {
        let mut view = RemoteView::default();
        for number in 0..1030u64 {
            let one: Members = [node(&format!("n{number}"))].into_iter().collect();
            view.follow(&one, &one, None, at(number));
        }
        let departed = departed(&view);
        assert_eq!((departed.len(), departed[0].0.as_str(), departed[1023].0.as_str()), (1024, "n5", "n1028"));
    }

    #[test]
    fn p4_3_only_the_confirmed_are_told_and_the_rest_later() {
        let mut view = RemoteView::default();
        let both = members(&["a", "b"]);
        let changes = view.follow(&both, &members(&["a"]), None, at(1));
        let told: Vec<_> = changes.joined.iter().map(|node| node.id().as_str()).collect();
        assert_eq!((told, changes.held), (vec!["a"], 1));
        assert!(!view.matches(&both) && view.matches(&members(&["a"])));
        let changes = view.follow(&both, &both, None, at(2));
        assert_eq!((changes.joined.len(), changes.held, view.matches(&both)), (1, 0, true));
        let diff = Arc::new(TopologyDiff::between(&both, &members(&["b"])));
        let known = Delivered { from: both.clone(), diff };
        assert_eq!(view.follow(&members(&["b"]), &both, Some(&known), at(3)).left.len(), 1);
    }
}
