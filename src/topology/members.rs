//! A set of nodes sorted by id that is cheap to clone, to change and to compare.
//!
//! The nodes lie in a persistent [tree](super::tree). A clone shares it all; a change copies one path of it, never the
//! nodes and never what is beside the path, so that its cost hardly grows with the set. The hash is kept per change.
//! Two sets that come from one another share most of their trees, and comparing them or taking their
//! [difference](super::TopologyDiff) skips what they share.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::tree::{Item, Tree, Walk};
use super::{ClusterNode, NodeId};

impl Item for ClusterNode {
    fn id(&self) -> &NodeId {
        ClusterNode::id(self)
    }
}

/// The members of the cluster, sorted by id, each id once. Cheap to clone; nodes are shared.
#[derive(Clone, Default)]
pub struct Members {
    pub(super) root: Arc<Tree<ClusterNode>>,
    len: usize,
    hash: u64,
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
        // Reading the nodes is what it costs where they are many: once where they come sorted.
        let hash = match hash_of_sorted(&nodes) {
            Some(hash) => hash,
            None => {
                nodes.sort_by(|a, b| a.id().cmp(b.id()));
                nodes.dedup_by(|later, first| later.id() == first.id());
                sum(&nodes)
            }
        };
        let dropped = before - nodes.len();
        (Self { len: nodes.len(), hash, root: Tree::from_sorted(nodes) }, dropped)
    }

    /// A set from nodes whose ids strictly rise.
    fn from_sorted(nodes: Vec<Arc<ClusterNode>>) -> Self {
        Self { len: nodes.len(), hash: sum(&nodes), root: Tree::from_sorted(nodes) }
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

    /// The member of that id: a [`NodeId`], or its text.
    pub fn get(&self, id: impl AsRef<str>) -> Option<&Arc<ClusterNode>> {
        self.root.get(id.as_ref())
    }

    /// Whether there is a member of that id: a [`NodeId`], or its text.
    pub fn contains(&self, id: impl AsRef<str>) -> bool {
        self.get(id).is_some()
    }

    /// The members, sorted by id.
    pub fn iter(&self) -> MembersIter<'_> {
        MembersIter { walk: Walk::new(&self.root), left: self.len }
    }

    /// The members that host actors of that kind, sorted by id. Looks at every member.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Arc<ClusterNode>> {
        self.iter().filter(move |node| node.hosts(kind))
    }

    /// Adds the node, or replaces the one of the same id, which is returned. A node equal to the present one changes
    /// nothing: the present one stays, shared as it is, and the given one is returned.
    pub fn insert(&mut self, node: Arc<ClusterNode>) -> Option<Arc<ClusterNode>> {
        if self.get(node.id()).is_some_and(|present| *present == node) {
            return Some(node);
        }
        self.hash = self.hash.wrapping_add(node.hash());
        let previous = Tree::insert(&mut self.root, node);
        match &previous {
            Some(previous) => self.hash = self.hash.wrapping_sub(previous.hash()),
            None => self.len += 1,
        }
        previous
    }

    /// Removes the node of that id and returns it.
    pub fn remove(&mut self, id: &NodeId) -> Option<Arc<ClusterNode>> {
        let node = Tree::remove(&mut self.root, id)?;
        self.len -= 1;
        self.hash = self.hash.wrapping_sub(node.hash());
        Some(node)
    }

    /// Whether both are one and the same in memory.
    pub(crate) fn is_same(&self, other: &Members) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
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
}

/// The set's hash.
fn sum(nodes: &[Arc<ClusterNode>]) -> u64 {
    nodes.iter().fold(0, |sum, node| sum.wrapping_add(node.hash()))
}

/// The set's hash, if the ids strictly rise.
fn hash_of_sorted(nodes: &[Arc<ClusterNode>]) -> Option<u64> {
    let Some((first, others)) = nodes.split_first() else { return Some(0) };
    let (mut hash, mut last) = (first.hash(), first.id());
    for node in others {
        if node.id() <= last {
            return None;
        }
        (hash, last) = (hash.wrapping_add(node.hash()), node.id());
    }
    Some(hash)
}

/// The nodes of a set, sorted by id: see [`Members::iter`].
pub struct MembersIter<'a> {
    walk: Walk<'a, ClusterNode>,
    left: usize,
}

impl<'a> Iterator for MembersIter<'a> {
    type Item = &'a Arc<ClusterNode>;

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.walk.node()?;
        self.walk.advance();
        self.left = self.left.saturating_sub(1);
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for MembersIter<'_> {}

impl fmt::Debug for MembersIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MembersIter").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Arc<ClusterNode>;
    type IntoIter = MembersIter<'a>;

    fn into_iter(self) -> MembersIter<'a> {
        self.iter()
    }
}

/// As a list, sorted by id.
impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        if self.hash != other.hash || self.len != other.len {
            return false;
        }
        if Arc::ptr_eq(&self.root, &other.root) {
            return true;
        }
        let (mut mine, mut others) = (Walk::new(&self.root), Walk::new(&other.root));
        loop {
            mine.skip_shared(&mut others);
            match (mine.node(), others.node()) {
                (None, None) => return true,
                (Some(a), Some(b)) if Arc::ptr_eq(a, b) || a == b => {
                    mine.advance();
                    others.advance();
                }
                _ => return false,
            }
        }
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
///
/// Looks at each node when it is added, while it is at hand: making a large set of nodes that come sorted then reads none
/// of them again.
#[derive(Debug)]
pub struct MembersBuilder {
    nodes: Vec<Arc<ClusterNode>>,
    skipped: usize,
    /// The sum of the nodes' hashes, which is the set's if the ids rise.
    hash: u64,
    /// Whether the ids strictly rise so far.
    rising: bool,
}

impl MembersBuilder {
    /// Starts with nothing.
    pub fn new() -> Self {
        Self { nodes: Vec::new(), skipped: 0, hash: 0, rising: true }
    }

    /// Adds a node, or counts it as skipped if it could not be built.
    pub fn push<E>(&mut self, node: Result<impl Into<Arc<ClusterNode>>, E>) {
        let Ok(node) = node else {
            self.skipped += 1;
            return;
        };
        let node = node.into();
        self.rising = self.rising && self.nodes.last().is_none_or(|last| last.id() < node.id());
        self.hash = self.hash.wrapping_add(node.hash());
        self.nodes.push(node);
    }

    /// The set, and how many entries were skipped: unusable ones, and those whose id an earlier one has.
    pub fn build(self) -> (Members, usize) {
        if self.rising {
            let members = Members { len: self.nodes.len(), hash: self.hash, root: Tree::from_sorted(self.nodes) };
            return (members, self.skipped);
        }
        let (members, dropped) = Members::from_nodes(self.nodes);
        (members, self.skipped + dropped)
    }
}

impl Default for MembersBuilder {
    fn default() -> Self {
        Self::new()
    }
}
