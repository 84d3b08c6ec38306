//! The tree in which a set keeps its nodes, or what is about nodes: a B+ tree that is copied along the path of a change.
//!
//! Leaves hold items, each of another node id and sorted by it; all leaves are equally deep. A change copies the leaf and the inner nodes above it,
//! unless nobody shares them, and nothing beside them: with a hundred thousand nodes about eighty pointers. Two trees
//! that come from one another share all the rest, and [`Walk`] lets a walk through both skip it. What belongs
//! into the tree is the business of [`Members`](super::Members) and [`BlockedNodes`](super::BlockedNodes).

use std::sync::Arc;

use super::NodeId;

/// What a tree holds: it belongs to one node id.
pub(super) trait Item {
    fn id(&self) -> &NodeId;
}

/// The most nodes of a leaf, and how many bulk loading puts there at the most, so that the first insertions split none.
const LEAF: usize = 32;
const BULK_LEAF: usize = 24;
/// The same for the children of an inner node. Chosen by measuring one change at 1,000 to 100,000 nodes: wider copies
/// more, narrower is deeper and takes more memory.
const FANOUT: usize = 32;
const BULK_FANOUT: usize = 24;
/// For how many more nodes a leaf that has no room gets some.
const GROWN: usize = 4;

type Leaf<N> = Vec<Arc<N>>;

pub(super) enum Tree<N> {
    Leaf(Leaf<N>),
    Inner(Inner<N>),
}

pub(super) struct Inner<N> {
    /// The `i`th is above every id in `children[i]` and not above any in `children[i + 1]`. Shared as a whole, so that a
    /// change that neither splits nor merges copies one pointer.
    splits: Arc<Splits>,
    /// At least two, all of one height.
    children: Vec<Arc<Tree<N>>>,
}

/// Ids in rising order, with the first bytes in which they differ side by side: a search reads those, and an id itself
/// only where they are equal. Reading ids costs a cache miss each, which is most of a lookup in a large set.
struct Splits {
    ids: Vec<NodeId>,
    /// How many bytes all ids begin with alike.
    alike: usize,
    /// The eight bytes of each id after those, as a number in the order of the ids.
    keys: Vec<u64>,
}

impl Splits {
    fn of(ids: Vec<NodeId>) -> Arc<Self> {
        let ends = || Some((ids.first()?.as_str().as_bytes(), ids.last()?.as_str().as_bytes()));
        // The ids rise: what the first and the last begin with, all between them do.
        let alike = ends().map_or(0, |(first, last)| first.iter().zip(last).take_while(|(a, b)| a == b).count());
        let keys = ids.iter().map(|id| key(id.as_str().as_bytes().get(alike..))).collect();
        Arc::new(Self { ids, alike, keys })
    }

    /// How many of the ids are not above this one.
    fn not_above(&self, id: &str) -> usize {
        let bytes = id.as_bytes();
        let Some(first) = self.ids.first() else { return 0 };
        let common = first.as_str().as_bytes().get(..self.alike).unwrap_or_default();
        if bytes.get(..self.alike) != Some(common) {
            return if bytes < common { 0 } else { self.ids.len() };
        }
        let key = key(bytes.get(self.alike..));
        let low = self.keys.partition_point(|other| *other < key);
        let same = self.keys.iter().skip(low).take_while(|other| **other == key).count();
        low + self.ids.iter().skip(low).take(same).take_while(|split| split.as_str() <= id).count()
    }
}

/// The first eight bytes as a number: of two texts the lesser never has the greater one.
fn key(bytes: Option<&[u8]>) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(bytes.unwrap_or_default()) {
        *to = *from;
    }
    u64::from_be_bytes(first)
}

/// What was split off from a tree, and the id that divides it from the rest.
type Split<N> = (NodeId, Arc<Tree<N>>);

/// Items are shared, not cloned.
impl<N> Clone for Tree<N> {
    fn clone(&self) -> Self {
        match self {
            Tree::Leaf(items) => Tree::Leaf(items.clone()),
            Tree::Inner(inner) => Tree::Inner(inner.clone()),
        }
    }
}

impl<N> Clone for Inner<N> {
    fn clone(&self) -> Self {
        Self { splits: Arc::clone(&self.splits), children: self.children.clone() }
    }
}

impl<N> Default for Tree<N> {
    fn default() -> Self {
        Tree::Leaf(Vec::new())
    }
}

impl<N: Item> Tree<N> {
    /// A tree of nodes whose ids strictly rise.
    pub(super) fn from_sorted(nodes: Vec<Arc<N>>) -> Arc<Tree<N>> {
        let mut level: Vec<Split<N>> = cut(nodes, BULK_LEAF)
            .filter_map(|leaf| Some((leaf.first()?.id().clone(), Arc::new(Tree::Leaf(leaf)))))
            .collect();
        while level.len() > 1 {
            // The root may be full: it is the one that need not split for a level more.
            let most = if level.len() <= FANOUT { FANOUT } else { BULK_FANOUT };
            level = cut(level, most)
                .filter_map(|group| {
                    let first = group.first()?.0.clone();
                    let splits = Splits::of(group.iter().skip(1).map(|(id, _)| id.clone()).collect());
                    let children = group.into_iter().map(|(_, child)| child).collect();
                    Some((first, Arc::new(Tree::Inner(Inner { splits, children }))))
                })
                .collect();
        }
        level.pop().map(|(_, root)| root).unwrap_or_default()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<N>> {
        let mut tree = self;
        loop {
            match tree {
                Tree::Leaf(nodes) => return nodes.get(place(nodes, id).ok()?),
                Tree::Inner(inner) => tree = inner.children.get(inner.child(id))?,
            }
        }
    }

    /// Adds the node, or replaces the one of the same id, which is returned.
    pub(super) fn insert(root: &mut Arc<Tree<N>>, node: Arc<N>) -> Option<Arc<N>> {
        let (previous, split) = Self::insert_below(root, node);
        if let Some((id, upper)) = split {
            let lower = std::mem::take(root);
            *root = Arc::new(Tree::Inner(Inner { splits: Splits::of(vec![id]), children: vec![lower, upper] }));
        }
        previous
    }

    fn insert_below(tree: &mut Arc<Tree<N>>, node: Arc<N>) -> (Option<Arc<N>>, Option<Split<N>>) {
        let tree = Arc::make_mut(tree);
        match tree {
            Tree::Leaf(nodes) => match place(nodes, node.id().as_str()) {
                Ok(slot) => return (Some(std::mem::replace(&mut nodes[slot], node)), None),
                Err(slot) => {
                    if nodes.len() == nodes.capacity() {
                        // Doubled, half of most leaves would be empty.
                        nodes.reserve_exact(GROWN);
                    }
                    nodes.insert(slot, node);
                }
            },
            Tree::Inner(inner) => {
                let at = inner.child(node.id().as_str());
                let (previous, split) = Self::insert_below(&mut inner.children[at], node);
                let Some(split) = split else { return (previous, None) };
                inner.add(at, split);
            }
        }
        (None, tree.split())
    }

    /// Removes the node of that id.
    pub(super) fn remove(root: &mut Arc<Tree<N>>, id: &NodeId) -> Option<Arc<N>> {
        // Looked up first, so that nothing is copied for an id that is not there.
        root.get(id.as_str())?;
        let node = Self::remove_below(root, id);
        if let Tree::Inner(inner) = &**root
            && let [only] = inner.children.as_slice()
        {
            *root = Arc::clone(only);
        }
        node
    }

    fn remove_below(tree: &mut Arc<Tree<N>>, id: &NodeId) -> Option<Arc<N>> {
        match Arc::make_mut(tree) {
            Tree::Leaf(nodes) => Some(nodes.remove(place(nodes, id.as_str()).ok()?)),
            Tree::Inner(inner) => {
                let at = inner.child(id.as_str());
                let node = Self::remove_below(&mut inner.children[at], id);
                if inner.children[at].is_sparse() {
                    inner.merge(at);
                }
                node
            }
        }
    }

    /// Cuts the upper half off if there is more than fits.
    fn split(&mut self) -> Option<Split<N>> {
        match self {
            Tree::Leaf(nodes) if nodes.len() > LEAF => {
                let upper = nodes.split_off(nodes.len() / 2);
                nodes.shrink_to_fit();
                Some((upper.first()?.id().clone(), Arc::new(Tree::Leaf(upper))))
            }
            Tree::Inner(inner) if inner.children.len() > FANOUT => {
                let middle = inner.children.len() / 2;
                let children = inner.children.split_off(middle);
                let ids = &inner.splits.ids;
                let split = ids[middle - 1].clone();
                let upper = Inner { splits: Splits::of(ids[middle..].to_vec()), children };
                inner.splits = Splits::of(ids[..middle - 1].to_vec());
                Some((split, Arc::new(Tree::Inner(upper))))
            }
            _ => None,
        }
    }

    /// Whether so little is left that it should be joined with what is beside it.
    fn is_sparse(&self) -> bool {
        match self {
            Tree::Leaf(nodes) => nodes.len() < LEAF / 4,
            Tree::Inner(inner) => inner.children.len() < FANOUT / 4,
        }
    }
}

impl<N: Item> Inner<N> {
    /// Which child the id belongs to.
    fn child(&self, id: &str) -> usize {
        self.splits.not_above(id)
    }

    /// Puts what was split off from a child beside it.
    fn add(&mut self, at: usize, (id, upper): Split<N>) {
        let mut ids = self.splits.ids.clone();
        ids.insert(at, id);
        self.splits = Splits::of(ids);
        self.children.insert(at + 1, upper);
    }

    /// Joins a child with the one before it (the first with the one after it), and divides them evenly if that is more
    /// than fits.
    fn merge(&mut self, at: usize) {
        let at = at.saturating_sub(1);
        if at >= self.splits.ids.len() {
            return;
        }
        let mut ids = self.splits.ids.clone();
        let id = ids.remove(at);
        self.splits = Splits::of(ids);
        let upper = self.children.remove(at + 1);
        let lower = Arc::make_mut(&mut self.children[at]);
        match (&mut *lower, Arc::unwrap_or_clone(upper)) {
            (Tree::Leaf(nodes), Tree::Leaf(more)) => nodes.extend(more),
            (Tree::Inner(inner), Tree::Inner(more)) => {
                let ids = inner.splits.ids.iter().chain([&id]).chain(&more.splits.ids).cloned().collect();
                inner.splits = Splits::of(ids);
                inner.children.extend(more.children);
            }
            // All children of an inner node have one height.
            _ => {}
        }
        if let Some(split) = lower.split() {
            self.add(at, split);
        }
    }
}

/// Where the id is in a leaf, or where it would have to be.
fn place<N: Item>(nodes: &Leaf<N>, id: &str) -> Result<usize, usize> {
    nodes.binary_search_by(|node| node.id().as_str().cmp(id))
}

/// Cuts a sequence into even pieces of at most `most`.
fn cut<T>(items: Vec<T>, most: usize) -> impl Iterator<Item = Vec<T>> {
    let mut pieces = items.len().div_ceil(most);
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let size = items.len().checked_div(pieces)?;
        pieces -= 1;
        Some(items.by_ref().take(size).collect())
    })
}

/// A place in a tree: at a node, or past the end.
pub(super) struct Walk<'a, N> {
    /// The children of each inner node from the root down, and in which of them the place is.
    path: Vec<(&'a [Arc<Tree<N>>], usize)>,
    leaf: &'a [Arc<N>],
    slot: usize,
}

impl<'a, N> Walk<'a, N> {
    /// At the first node.
    pub(super) fn new(root: &'a Tree<N>) -> Self {
        let mut walk = Self { path: Vec::new(), leaf: &[], slot: 0 };
        walk.descend(root);
        walk
    }

    /// The node here.
    pub(super) fn node(&self) -> Option<&'a Arc<N>> {
        self.leaf.get(self.slot)
    }

    /// Moves to the next node.
    pub(super) fn advance(&mut self) {
        self.slot += 1;
        if self.slot >= self.leaf.len() {
            self.skip();
        }
    }

    /// Moves both past the subtrees that they share from here on. Returns at once inside a leaf.
    pub(super) fn skip_shared(&mut self, other: &mut Walk<'a, N>) {
        while self.slot == 0 && other.slot == 0 {
            let heights = 0..self.path.len().min(other.path.len());
            let shared = heights.rev().find(|height| match (self.subtree(*height), other.subtree(*height)) {
                (Some(mine), Some(others)) => Arc::ptr_eq(mine, others),
                _ => false,
            });
            let Some(height) = shared else { return };
            self.skip_run(other, height);
        }
    }

    /// Moves both past the run of shared subtrees of that height that begins here. Only pointers are compared: what is
    /// skipped is not even looked into.
    fn skip_run(&mut self, other: &mut Walk<'a, N>, height: usize) {
        self.path.truncate(self.path.len().saturating_sub(height));
        other.path.truncate(other.path.len().saturating_sub(height));
        if let (Some((mine, at)), Some((others, other_at))) = (self.path.last_mut(), other.path.last_mut()) {
            let pairs = mine.iter().skip(*at + 1).zip(others.iter().skip(*other_at + 1));
            let run = pairs.take_while(|(a, b)| Arc::ptr_eq(a, b)).count();
            *at += run;
            *other_at += run;
        }
        self.skip();
        other.skip();
    }

    /// The subtree of that height (a leaf has 0) that begins here.
    fn subtree(&self, height: usize) -> Option<&'a Arc<Tree<N>>> {
        let parent = self.path.len().checked_sub(height + 1)?;
        let (children, at) = self.path.get(parent)?;
        let begins = self.slot == 0 && self.path.iter().skip(parent + 1).all(|(_, at)| *at == 0);
        if begins { children.get(*at) } else { None }
    }

    /// Moves past the child that the lowest part of the path is in.
    fn skip(&mut self) {
        while let Some((children, at)) = self.path.last_mut() {
            *at += 1;
            if let Some(next) = children.get(*at) {
                return self.descend(next);
            }
            self.path.pop();
        }
        (self.leaf, self.slot) = (&[], 0);
    }

    fn descend(&mut self, mut tree: &'a Tree<N>) {
        loop {
            match tree {
                Tree::Leaf(nodes) => {
                    (self.leaf, self.slot) = (nodes, 0);
                    return;
                }
                Tree::Inner(inner) => {
                    let Some(first) = inner.children.first() else { return };
                    self.path.push((&inner.children, 0));
                    tree = first;
                }
            }
        }
    }
}

#[cfg(test)]
impl<N: Item> Tree<N> {
    /// Checks everything that must hold of a tree, and gives its height.
    pub(super) fn check(&self) -> usize {
        self.check_below(None, None, true)
    }

    fn check_below(&self, from: Option<&NodeId>, below: Option<&NodeId>, root: bool) -> usize {
        match self {
            Tree::Leaf(nodes) => {
                assert!(nodes.len() <= LEAF && (root || nodes.len() >= LEAF / 4));
                assert!(nodes.is_sorted_by(|a, b| a.id() < b.id()));
                assert!(nodes.iter().all(|n| from.is_none_or(|id| n.id() >= id) && below.is_none_or(|id| n.id() < id)));
                0
            }
            Tree::Inner(inner) => {
                let children = inner.children.len();
                assert!(children <= FANOUT && children >= if root { 2 } else { FANOUT / 4 });
                assert_eq!(inner.splits.ids.len() + 1, children);
                let bounds = |at: usize| if at == 0 { from } else { inner.splits.ids.get(at - 1) };
                let heights: Vec<usize> = (0..children)
                    .map(|at| inner.children[at].check_below(bounds(at), inner.splits.ids.get(at).or(below), false))
                    .collect();
                assert!(heights.iter().all(|height| *height == heights[0]));
                heights[0] + 1
            }
        }
    }

    /// The addresses of all leaves and inner nodes.
    pub(super) fn parts(self: &Arc<Tree<N>>) -> Vec<*const Tree<N>> {
        let below = match &**self {
            Tree::Leaf(_) => Vec::new(),
            Tree::Inner(inner) => inner.children.iter().flat_map(Tree::parts).collect(),
        };
        below.into_iter().chain([Arc::as_ptr(self)]).collect()
    }

    /// The bytes that the tree takes beside the nodes, with the counts of each `Arc` and 16 bytes for each allocation.
    pub(super) fn bytes(&self) -> usize {
        const SHARED: usize = 2 * size_of::<usize>() + 16;
        SHARED
            + size_of::<Tree<N>>()
            + 16
            + match self {
                Tree::Leaf(nodes) => nodes.capacity() * size_of::<usize>(),
                Tree::Inner(inner) => {
                    inner.children.capacity() * size_of::<usize>()
                        + SHARED
                        + size_of::<Splits>()
                        + 32
                        + inner.splits.ids.len() * (size_of::<NodeId>() + size_of::<u64>())
                        + inner.children.iter().map(|child| child.bytes()).sum::<usize>()
                }
            }
    }
}
