//! The block list: which nodes are blocked, by whom and why, as it is published and delivered.
//!
//! A set that is cheap to clone and to change, as [`Members`](super::Members) is: a change to one of many thousand entries
//! copies one path of a tree. Who may add what, and how an entry ends, is the hub's to decide.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::NodeId;
use super::tree::{Item, Tree, Walk};
use crate::clock::Timestamp;
use crate::text::line::OneLine;

/// Who put a node on the block list, which decides what the entry does and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BlockSource {
    /// Remoting quarantined the node. It stays a member, marked. Ends when Remoting has reported the connection back
    /// and the next refresh contains the node; when the node comes back with another incarnation after it had left; or
    /// after 24 h of absence.
    Remoting,
    /// A failure detector. The node is no member meanwhile. Ends by time.
    FailureDetector,
    /// A person or a program of theirs. The node stays a member, marked. Ends when it is lifted.
    Operator,
}

impl fmt::Display for BlockSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BlockSource::Remoting => "remoting",
            BlockSource::FailureDetector => "failure detector",
            BlockSource::Operator => "operator",
        })
    }
}

/// An entry of the block list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BlockedNode {
    /// The node.
    pub node: NodeId,
    /// The incarnation that was blocked; `None` where the node was no member when it was blocked.
    pub incarnation: Option<u64>,
    /// Who blocked it.
    pub source: BlockSource,
    /// Why, in the words of whoever blocked it, as they were given. Displaying the entry escapes them.
    pub reason: Arc<str>,
    /// Since when.
    pub since: Timestamp,
    /// When the entry ends by itself, if it does.
    pub until: Option<Timestamp>,
}

/// In one line, whatever the reason says.
impl fmt::Display for BlockedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is blocked by {}: {}", self.node, self.source, OneLine(&self.reason))
    }
}

/// The entries of one node, sorted by source; never empty.
#[derive(Clone)]
struct Entries {
    node: NodeId,
    entries: Vec<BlockedNode>,
}

impl Item for Entries {
    fn id(&self) -> &NodeId {
        &self.node
    }
}

/// The block list, sorted by node and source. Cheap to clone.
#[derive(Clone, Default)]
pub struct BlockedNodes {
    root: Arc<Tree<Entries>>,
    len: usize,
}

impl BlockedNodes {
    /// How many entries there are. A node that several sources have blocked has as many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the node is blocked by anyone: by its [`NodeId`], or its text.
    pub fn contains(&self, node: impl AsRef<str>) -> bool {
        self.root.get(node.as_ref()).is_some()
    }

    /// The entries of that node, sorted by source; empty if it is not blocked.
    pub fn of(&self, node: impl AsRef<str>) -> &[BlockedNode] {
        self.root.get(node.as_ref()).map_or(&[], |entries| &entries.entries)
    }

    /// The entry of that node and source.
    pub fn get(&self, node: impl AsRef<str>, source: BlockSource) -> Option<&BlockedNode> {
        self.of(node).iter().find(|entry| entry.source == source)
    }

    /// All entries, sorted by node and source.
    pub fn iter(&self) -> impl Iterator<Item = &BlockedNode> {
        let mut walk = Walk::new(&self.root);
        let nodes = std::iter::from_fn(move || {
            let entries = walk.node()?;
            walk.advance();
            Some(entries)
        });
        nodes.flat_map(|entries| &entries.entries)
    }

    /// Adds the entry, or replaces the one of the same node and source, which is returned.
    pub(crate) fn insert(&mut self, entry: BlockedNode) -> Option<BlockedNode> {
        let node = entry.node.clone();
        let mut entries = self.of(&node).to_vec();
        let replaced = match entries.binary_search_by_key(&entry.source, |entry| entry.source) {
            Ok(at) => Some(std::mem::replace(&mut entries[at], entry)),
            Err(at) => {
                entries.insert(at, entry);
                self.len += 1;
                None
            }
        };
        Tree::insert(&mut self.root, Arc::new(Entries { node, entries }));
        replaced
    }

    /// Removes the entry of that node and source and returns it.
    pub(crate) fn remove(&mut self, node: &NodeId, source: BlockSource) -> Option<BlockedNode> {
        let mut entries = self.of(node).to_vec();
        let at = entries.binary_search_by_key(&source, |entry| entry.source).ok()?;
        let removed = entries.remove(at);
        self.len -= 1;
        if entries.is_empty() {
            Tree::remove(&mut self.root, node);
        } else {
            Tree::insert(&mut self.root, Arc::new(Entries { node: node.clone(), entries }));
        }
        Some(removed)
    }
}

/// As a list, sorted by node and source.
impl Serialize for BlockedNodes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl PartialEq for BlockedNodes {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && (Arc::ptr_eq(&self.root, &other.root) || self.iter().eq(other.iter()))
    }
}

impl Eq for BlockedNodes {}

impl fmt::Debug for BlockedNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entry(node: u8, source: BlockSource, reason: &str) -> BlockedNode {
        let node = NodeId::new(format!("n{node:03}")).unwrap();
        let since = Timestamp::default();
        BlockedNode { node, incarnation: None, source, reason: reason.into(), since, until: None }
    }

    #[test]
    fn p5_5_an_entry_is_shown_in_one_line() {
        let entry = entry(7, BlockSource::Operator, "disk\nfull");
        assert_eq!(
            (entry.to_string().as_str(), &*entry.reason),
            ("n007 is blocked by operator: disk\\nfull", "disk\nfull")
        );
    }

    proptest! {
        #[test]
        fn p4_2_the_list_is_what_a_sorted_map_would_be_and_its_clones_stay_as_they_were(
            steps in prop::collection::vec((any::<u8>(), 0usize..3, any::<bool>()), 0..400),
        ) {
            let sources = [BlockSource::Remoting, BlockSource::FailureDetector, BlockSource::Operator];
            let (mut list, mut model) = (BlockedNodes::default(), BTreeMap::new());
            let mut before = (list.clone(), Vec::new());
            for (number, (node, source, adds)) in steps.into_iter().enumerate() {
                let entry = entry(node, sources[source], &number.to_string());
                let key = (entry.node.clone(), entry.source);
                if adds {
                    prop_assert_eq!(list.insert(entry.clone()), model.insert(key, entry));
                } else {
                    prop_assert_eq!(list.remove(&key.0, key.1), model.remove(&key));
                }
                if number % 50 == 0 {
                    prop_assert!(before.0.iter().eq(&before.1));
                    before = (list.clone(), model.values().cloned().collect());
                }
            }
            prop_assert!(list.iter().eq(model.values()));
            prop_assert_eq!((list.len(), list.is_empty()), (model.len(), model.is_empty()));
            for ((node, source), entry) in &model {
                prop_assert!(list.contains(node) && list.get(node, *source) == Some(entry));
            }
            prop_assert!(!list.contains(NodeId::new("m").unwrap()) && list.of(NodeId::new("m").unwrap()).is_empty());
        }
    }
}
