//! What changed from one set of members to another.

use std::cmp::Ordering;
use std::sync::Arc;

use super::members::{Branch, Leaf};
use super::{ClusterNode, Members};

/// The difference between two sets of members, each part sorted by id.
///
/// A node whose incarnation, address or port changed under the same id is in `left` (as it was) *and* in `joined` (as it
/// is): a restart must not leave stale channels or placements behind. One whose kinds or metadata changed is in
/// `updated`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyDiff {
    joined: Vec<Arc<ClusterNode>>,
    left: Vec<Arc<ClusterNode>>,
    updated: Vec<Arc<ClusterNode>>,
}

impl TopologyDiff {
    /// What changed from `before` to `after`. Costs as much as what the two do not share in memory.
    pub fn between(before: &Members, after: &Members) -> Self {
        let mut diff = Self::default();
        let mut old = Cursor::new(before);
        let mut new = Cursor::new(after);
        loop {
            skip_shared(&mut old, &mut new);
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

    /// The nodes whose kinds or metadata changed, as they are now.
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

/// A position in a set: at the node `slot` of the leaf `leaf` of the branch `branch`, or past the end.
struct Cursor<'a> {
    branches: &'a [Arc<Branch>],
    branch: usize,
    leaf: usize,
    slot: usize,
}

impl<'a> Cursor<'a> {
    fn new(members: &'a Members) -> Self {
        Self { branches: &members.branches, branch: 0, leaf: 0, slot: 0 }
    }

    fn node(&self) -> Option<&'a Arc<ClusterNode>> {
        self.branches.get(self.branch)?.get(self.leaf)?.get(self.slot)
    }

    /// The branch that starts here.
    fn branch_start(&self) -> Option<&'a Arc<Branch>> {
        if self.leaf == 0 && self.slot == 0 { self.branches.get(self.branch) } else { None }
    }

    /// The leaf that starts here.
    fn leaf_start(&self) -> Option<&'a Arc<Leaf>> {
        if self.slot == 0 { self.branches.get(self.branch)?.get(self.leaf) } else { None }
    }

    fn advance(&mut self) {
        self.slot += 1;
        let leaf_len = self.branches.get(self.branch).and_then(|b| b.get(self.leaf)).map_or(0, |l| l.len());
        if self.slot >= leaf_len {
            self.skip_leaf();
        }
    }

    fn skip_leaf(&mut self) {
        self.slot = 0;
        self.leaf += 1;
        if self.leaf >= self.branches.get(self.branch).map_or(0, |b| b.len()) {
            self.skip_branch();
        }
    }

    fn skip_branch(&mut self) {
        self.slot = 0;
        self.leaf = 0;
        self.branch += 1;
    }
}

/// Moves both past the branches and leaves that they share.
fn skip_shared(old: &mut Cursor<'_>, new: &mut Cursor<'_>) {
    loop {
        if let (Some(a), Some(b)) = (old.branch_start(), new.branch_start())
            && Arc::ptr_eq(a, b)
        {
            old.skip_branch();
            new.skip_branch();
        } else if let (Some(a), Some(b)) = (old.leaf_start(), new.leaf_start())
            && Arc::ptr_eq(a, b)
        {
            old.skip_leaf();
            new.skip_leaf();
        } else {
            return;
        }
    }
}
