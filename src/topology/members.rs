//! A set of nodes sorted by id that is cheap to clone and to change.
//!
//! The nodes lie in a sorted sequence cut into leaves, and the leaves into branches. A clone shares everything. A
//! change copies one leaf, one branch and the list of branches, never the nodes and never what is beside them, so that
//! its cost hardly grows with the set. Two sets that come from one another share most leaves, and their
//! [difference](super::TopologyDiff) skips what they share.

use std::fmt;
use std::sync::Arc;

use super::{ClusterNode, NodeId};

/// The most nodes of a leaf and the most leaves of a branch. Chosen by measuring one change at 100,000 nodes.
const CAPACITY: usize = 64;
/// How full bulk loading leaves them, so that the first insertions split nothing.
const BULK: usize = 48;

pub(super) type Leaf = Vec<Arc<ClusterNode>>;
pub(super) type Branch = Vec<Arc<Leaf>>;

/// The members of the cluster, sorted by id, each id once. Cheap to clone; nodes are shared.
#[derive(Clone, Default)]
pub struct Members {
    pub(super) branches: Vec<Arc<Branch>>,
    len: usize,
    hash: u64,
}

/// Where a node is, or where it would have to be.
struct Place {
    branch: usize,
    leaf: usize,
    slot: Result<usize, usize>,
}

impl Members {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set from nodes in any order. Of several nodes with one id the first is kept; the number of those dropped is
    /// returned beside the set.
    pub fn from_nodes(mut nodes: Vec<Arc<ClusterNode>>) -> (Self, usize) {
        let before = nodes.len();
        if !nodes.is_sorted_by(|a, b| a.id() < b.id()) {
            nodes.sort_by(|a, b| a.id().cmp(b.id()));
            nodes.dedup_by(|later, first| later.id() == first.id());
        }
        let dropped = before - nodes.len();
        (Self::from_sorted(nodes), dropped)
    }

    /// A set from nodes whose ids strictly rise.
    fn from_sorted(nodes: Vec<Arc<ClusterNode>>) -> Self {
        let len = nodes.len();
        let hash = nodes.iter().fold(0u64, |sum, node| sum.wrapping_add(node.hash()));
        let leaves: Branch = cut(nodes).into_iter().map(Arc::new).collect();
        let branches = cut(leaves).into_iter().map(Arc::new).collect();
        Self { branches, len, hash }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The set's hash: the sum, modulo 2^64, of the [hashes](ClusterNode::hash) of its nodes. Two processes that see
    /// the same members, in whatever order and through whichever provider, have the same hash. The empty set has 0.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The member of that id.
    pub fn get(&self, id: &NodeId) -> Option<&Arc<ClusterNode>> {
        let place = self.find(id)?;
        let slot = place.slot.ok()?;
        self.branches.get(place.branch)?.get(place.leaf)?.get(slot)
    }

    /// Whether there is a member of that id.
    pub fn contains(&self, id: &NodeId) -> bool {
        self.get(id).is_some()
    }

    /// The members, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ClusterNode>> {
        self.branches.iter().flat_map(|branch| branch.iter()).flat_map(|leaf| leaf.iter())
    }

    /// Adds the node, or replaces the one of the same id, which is returned. A node equal to the present one changes
    /// nothing: the present one stays, shared as it is, and the given one is returned.
    pub fn insert(&mut self, node: Arc<ClusterNode>) -> Option<Arc<ClusterNode>> {
        let Some(place) = self.find(node.id()) else {
            *self = Self::from_sorted(vec![node]);
            return None;
        };
        match place.slot {
            Ok(slot) => {
                if *self.branches[place.branch][place.leaf][slot] == *node {
                    return Some(node);
                }
                self.hash = self.hash.wrapping_add(node.hash());
                let leaf = self.leaf_mut(&place);
                let previous = std::mem::replace(&mut leaf[slot], node);
                self.hash = self.hash.wrapping_sub(previous.hash());
                Some(previous)
            }
            Err(slot) => {
                self.len += 1;
                self.hash = self.hash.wrapping_add(node.hash());
                let leaf = self.leaf_mut(&place);
                leaf.insert(slot, node);
                if leaf.len() > CAPACITY {
                    self.split(&place);
                }
                None
            }
        }
    }

    /// Removes the node of that id and returns it.
    pub fn remove(&mut self, id: &NodeId) -> Option<Arc<ClusterNode>> {
        let place = self.find(id)?;
        let slot = place.slot.ok()?;
        let leaf = self.leaf_mut(&place);
        let node = leaf.remove(slot);
        if leaf.is_empty() {
            let branch = Arc::make_mut(&mut self.branches[place.branch]);
            branch.remove(place.leaf);
            if branch.is_empty() {
                self.branches.remove(place.branch);
            }
        }
        self.len -= 1;
        self.hash = self.hash.wrapping_sub(node.hash());
        if self.is_sparse() {
            *self = Self::from_sorted(self.iter().cloned().collect());
        }
        Some(node)
    }

    /// The same set, sharing with `other` every node that is equal in both, so that two providers that see the same
    /// cluster hold it in memory once.
    #[must_use]
    pub fn shared_with(self, other: &Members) -> Self {
        if self.hash == other.hash && self.len == other.len {
            return if self == *other { other.clone() } else { self };
        }
        let diff = super::TopologyDiff::between(other, &self);
        if diff.len() > self.len / 4 {
            let nodes = self.iter().map(|node| match other.get(node.id()) {
                Some(same) if same == node => Arc::clone(same),
                _ => Arc::clone(node),
            });
            return Self::from_sorted(nodes.collect());
        }
        let mut shared = other.clone();
        for node in diff.left() {
            shared.remove(node.id());
        }
        for node in diff.joined().iter().chain(diff.updated()) {
            shared.insert(Arc::clone(node));
        }
        shared
    }

    /// The place of the id; `None` only in the empty set.
    fn find(&self, id: &NodeId) -> Option<Place> {
        let first_id = |branch: &Arc<Branch>| branch.first().and_then(|leaf| leaf.first()).map(|node| node.id() <= id);
        let branch = self.branches.partition_point(|branch| first_id(branch) == Some(true)).saturating_sub(1);
        let leaves = self.branches.get(branch)?;
        let leaf = leaves.partition_point(|leaf| leaf.first().is_some_and(|node| node.id() <= id)).saturating_sub(1);
        let slot = leaves.get(leaf)?.binary_search_by(|node| node.id().cmp(id));
        Some(Place { branch, leaf, slot })
    }

    fn leaf_mut(&mut self, place: &Place) -> &mut Leaf {
        Arc::make_mut(&mut Arc::make_mut(&mut self.branches[place.branch])[place.leaf])
    }

    fn split(&mut self, place: &Place) {
        let branch = Arc::make_mut(&mut self.branches[place.branch]);
        let upper = Arc::make_mut(&mut branch[place.leaf]).split_off(CAPACITY / 2);
        branch.insert(place.leaf + 1, Arc::new(upper));
        if branch.len() > CAPACITY {
            let upper = branch.split_off(CAPACITY / 2);
            self.branches.insert(place.branch + 1, Arc::new(upper));
        }
    }

    /// Whether removals have left so little in each branch that walking the set costs more than rebuilding it.
    fn is_sparse(&self) -> bool {
        self.branches.len() > 2 && self.len < self.branches.len() * CAPACITY * CAPACITY / 16
    }
}

/// Cuts a sequence into pieces of at most [`BULK`].
fn cut<T>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut pieces = Vec::with_capacity(items.len().div_ceil(BULK));
    let mut items = items.into_iter();
    loop {
        let piece: Vec<T> = items.by_ref().take(BULK).collect();
        if piece.is_empty() {
            return pieces;
        }
        pieces.push(piece);
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.len == other.len
            && self.iter().zip(other.iter()).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
    }
}

impl Eq for Members {}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Nodes with an id that is there already are dropped: the first is kept.
impl FromIterator<ClusterNode> for Members {
    fn from_iter<I: IntoIterator<Item = ClusterNode>>(nodes: I) -> Self {
        Self::from_nodes(nodes.into_iter().map(Arc::new).collect()).0
    }
}

/// Gathers what a backend listed, counting what is unusable instead of failing on it.
#[derive(Debug, Default)]
pub struct MembersBuilder {
    nodes: Vec<Arc<ClusterNode>>,
    skipped: usize,
}

impl MembersBuilder {
    /// Starts with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or counts it as skipped if it could not be built.
    pub fn push<E>(&mut self, node: Result<ClusterNode, E>) {
        match node {
            Ok(node) => self.nodes.push(Arc::new(node)),
            Err(_) => self.skipped += 1,
        }
    }

    /// The set, and how many entries were skipped: unusable ones, and those whose id an earlier one has.
    pub fn build(self) -> (Members, usize) {
        let (members, dropped) = Members::from_nodes(self.nodes);
        (members, self.skipped + dropped)
    }
}
