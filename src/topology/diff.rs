//! What changed from one set of members to another.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Serialize;

use super::tree::Walk;
use super::{ClusterNode, Members};

/// The difference between two sets of members, each part sorted by id.
///
/// A node whose incarnation, address or port changed under the same id is in `left` (as it was) *and* in `joined` (as it
/// is): a restart must not leave stale channels or placements behind. One whose kinds or metadata changed, or of which an
/// [incarnation](ClusterNode::incarnation) is known in one of the two sets only, is in `updated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TopologyDiff {
    joined: Vec<Arc<ClusterNode>>,
    left: Vec<Arc<ClusterNode>>,
    updated: Vec<Arc<ClusterNode>>,
}

impl TopologyDiff {
    /// What changed from `before` to `after`. Costs as much as what the two do not share in memory.
    pub fn between(before: &Members, after: &Members) -> Self {
        let mut diff = Self::default();
        if Arc::ptr_eq(&before.root, &after.root) {
            return diff;
        }
        let mut old = Walk::new(&before.root);
        let mut new = Walk::new(&after.root);
        loop {
            old.skip_shared(&mut new);
            match (old.node(), new.node()) {
                (None, None) => return diff,
                (Some(gone), None) => {
                    diff.left.push(Arc::clone(gone));
                    old.advance();
                }
                (None, Some(come)) => {
                    diff.joined.push(Arc::clone(come));
                    new.advance();
                }
                (Some(was), Some(is)) => {
                    if Arc::ptr_eq(was, is) {
                        old.advance();
                        new.advance();
                        continue;
                    }
                    match was.id().cmp(is.id()) {
                        Ordering::Less => {
                            diff.left.push(Arc::clone(was));
                            old.advance();
                        }
                        Ordering::Greater => {
                            diff.joined.push(Arc::clone(is));
                            new.advance();
                        }
                        Ordering::Equal => {
                            diff.compare(was, is);
                            old.advance();
                            new.advance();
                        }
                    }
                }
            }
        }
    }

    fn compare(&mut self, was: &Arc<ClusterNode>, is: &Arc<ClusterNode>) {
        if was == is {
        } else if was.is_same_life(is) {
            self.updated.push(Arc::clone(is));
        } else {
            self.left.push(Arc::clone(was));
            self.joined.push(Arc::clone(is));
        }
    }

    /// The nodes that are new, or came back in another life.
    pub fn joined(&self) -> &[Arc<ClusterNode>] {
        &self.joined
    }

    /// The nodes that are gone, as they were, also when they came back in another life.
    pub fn left(&self) -> &[Arc<ClusterNode>] {
        &self.left
    }

    /// The nodes whose kinds or metadata changed, or whose incarnation became known or unknown, as they are now.
    pub fn updated(&self) -> &[Arc<ClusterNode>] {
        &self.updated
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries the three parts have together.
    pub fn len(&self) -> usize {
        self.joined.len() + self.left.len() + self.updated.len()
    }
}
