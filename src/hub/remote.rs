//! What Remoting has been told of: which nodes it may hold channels to.
//!
//! Joins are told only while the provider followed is healthy; leaves always. What was held back is told once a refresh
//! confirms it, and forgotten if the node goes before.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::topology::{ClusterNode, Members, NodeId, TopologyDiff};

/// How many departed nodes are remembered, for those who ask after their health.
const DEPARTED: usize = 1024;

/// What Remoting has been told of.
#[derive(Debug, Default)]
pub(super) struct RemoteView {
    announced: Members,
    departed: Arc<VecDeque<(NodeId, Timestamp)>>,
}

/// What Remoting is to be told.
#[derive(Debug, Default)]
pub(super) struct RemoteChanges {
    pub(super) left: Vec<Arc<ClusterNode>>,
    pub(super) joined: Vec<Arc<ClusterNode>>,
    /// How many joins are held back.
    pub(super) held: usize,
}

impl RemoteView {
    /// Whether Remoting knows exactly these members.
    pub(super) fn matches(&self, members: &Members) -> bool {
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

    /// Brings the view to `members` as far as may be, and gives what Remoting is to be told. Joins are told of those that
    /// are among the `confirmed`. `known`: the difference to `members` from a set that the view may be at.
    pub(super) fn follow(
        &mut self,
        members: &Members,
        confirmed: &Members,
        known: Option<&(Members, Arc<TopologyDiff>)>,
        now: Timestamp,
    ) -> RemoteChanges {
        let diff = match known {
            Some((from, diff)) if from.is_same(&self.announced) => Arc::clone(diff),
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
    pub(super) fn shrink(&mut self, members: &Members, now: Timestamp) -> RemoteChanges {
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
