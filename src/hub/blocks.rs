//! The block list: who is blocked, by whom, and how each entry ends.
//!
//! Remoting's entries and an operator's mark a node; a failure detector's take it out of the members. A node is
//! unblocked when its last entry goes. The list belongs to the hub, not to a provider: it survives failover.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::topology::{BlockSource, BlockedNode, Members, NodeId};

/// The most entries: far more than a sane cluster blocks, few enough to be looked through at every refresh.
const LIMIT: usize = 65_536;

#[derive(Debug)]
struct Entry {
    node: BlockedNode,
    /// Remoting has regained the connection: the next refresh with the node ends the entry.
    returning: bool,
    /// Since when the node has been no member.
    absent_since: Option<Timestamp>,
}

/// The block list.
#[derive(Debug)]
pub(super) struct BlockList {
    entries: BTreeMap<(NodeId, BlockSource), Entry>,
    absence_limit: Duration,
    /// The entries as they are published; made anew when they change.
    published: Arc<[BlockedNode]>,
    /// The nodes that consumers know to be blocked.
    announced: BTreeSet<NodeId>,
}

impl BlockList {
    pub(super) fn new(absence_limit: Duration) -> Self {
        Self { entries: BTreeMap::new(), absence_limit, published: Arc::new([]), announced: BTreeSet::new() }
    }

    /// The entries, sorted by node and source.
    pub(super) fn entries(&self) -> &Arc<[BlockedNode]> {
        &self.published
    }

    /// Adds or renews an entry. A renewed one of Remoting cancels a pending return.
    pub(super) fn block(&mut self, node: BlockedNode) -> Result<(), ProvisioningError> {
        let key = (node.node.clone(), node.source);
        if self.entries.len() >= LIMIT && !self.entries.contains_key(&key) {
            let detail = format!("it has {LIMIT} entries already");
            return Err(ProvisioningError::new(ErrorCode::BlockListFull, "blocking a node", detail));
        }
        let absent_since = node.incarnation.is_none().then_some(node.since);
        self.entries.insert(key, Entry { node, returning: false, absent_since });
        self.publish();
        Ok(())
    }

    /// Takes an entry away.
    pub(super) fn lift(&mut self, node: &NodeId, source: BlockSource) -> Result<(), ProvisioningError> {
        if self.entries.remove(&(node.clone(), source)).is_none() {
            return Err(not_blocked(node, source));
        }
        self.publish();
        Ok(())
    }

    /// Remoting has regained the connection: its entry ends at the next refresh that contains the node.
    pub(super) fn reconnected(&mut self, node: &NodeId) -> Result<(), ProvisioningError> {
        match self.entries.get_mut(&(node.clone(), BlockSource::Remoting)) {
            Some(entry) => {
                entry.returning = true;
                Ok(())
            }
            None => Err(not_blocked(node, BlockSource::Remoting)),
        }
    }

    /// Ends what has ended. `refreshed`: the members were confirmed just now.
    pub(super) fn review(&mut self, members: Option<&Members>, refreshed: bool, now: Timestamp) {
        if self.entries.is_empty() {
            return;
        }
        let before = self.entries.len();
        let limit = self.absence_limit;
        self.entries.retain(|_, entry| entry.stays(members, refreshed, now, limit));
        if self.entries.len() != before {
            self.publish();
        }
    }

    /// The members without those that a failure detector has taken out.
    pub(super) fn without_excluded(&self, members: &Members) -> Members {
        let mut members = members.clone();
        for node in self.excluded() {
            members.remove(node);
        }
        members
    }

    /// The hash of [`without_excluded`](Self::without_excluded), without making that set.
    pub(super) fn hash_without_excluded(&self, members: &Members) -> u64 {
        let excluded = self.excluded().filter_map(|id| members.get(id));
        excluded.fold(members.hash(), |hash, node| hash.wrapping_sub(node.hash()))
    }

    fn excluded(&self) -> impl Iterator<Item = &NodeId> {
        let detected = self.entries.keys().filter(|(_, source)| *source == BlockSource::FailureDetector);
        detected.map(|(node, _)| node)
    }

    /// The nodes that are blocked and were not announced so, which they are from here on.
    pub(super) fn newly_blocked(&mut self) -> Vec<NodeId> {
        let blocked = self.entries.keys().map(|(node, _)| node);
        let mut new: Vec<NodeId> = blocked.filter(|node| !self.announced.contains(*node)).cloned().collect();
        new.dedup();
        self.announced.extend(new.iter().cloned());
        new
    }

    /// The nodes that were announced as blocked and no longer are.
    pub(super) fn newly_unblocked(&mut self) -> Vec<NodeId> {
        let entries = &self.entries;
        let blocked = |node: &NodeId| {
            let first = (node.clone(), BlockSource::Remoting);
            entries.range(first..).next().is_some_and(|((next, _), _)| next == node)
        };
        let gone: Vec<NodeId> = self.announced.iter().filter(|node| !blocked(node)).cloned().collect();
        for node in &gone {
            self.announced.remove(node);
        }
        gone
    }

    /// When the next entry ends by time.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let absence = |entry: &Entry| match entry.node.source {
            BlockSource::Remoting => entry.absent_since.map(|since| since + self.absence_limit),
            _ => None,
        };
        self.entries.values().filter_map(|entry| entry.node.until.or_else(|| absence(entry))).min()
    }

    fn publish(&mut self) {
        self.published = self.entries.values().map(|entry| entry.node.clone()).collect();
    }
}

impl Entry {
    fn stays(&mut self, members: Option<&Members>, refreshed: bool, now: Timestamp, limit: Duration) -> bool {
        if self.node.until.is_some_and(|until| until <= now) {
            return false;
        }
        if self.node.source != BlockSource::Remoting {
            return true;
        }
        if refreshed {
            match members.and_then(|members| members.get(&self.node.node)) {
                Some(_) if self.returning => return false,
                // Another life of the node: the one that was quarantined has left.
                Some(node) if self.is_another_life(node.incarnation()) => return false,
                Some(_) => self.absent_since = None,
                None => _ = self.absent_since.get_or_insert(now),
            }
        }
        self.absent_since.is_none_or(|since| now.since(since) < limit)
    }

    /// Whether that incarnation is known to be another than the one blocked. 0 says nothing: a provider without
    /// incarnations shows the same life with it.
    fn is_another_life(&self, incarnation: u64) -> bool {
        incarnation != 0 && self.node.incarnation.is_some_and(|blocked| blocked != 0 && blocked != incarnation)
    }
}

fn not_blocked(node: &NodeId, source: BlockSource) -> ProvisioningError {
    let detail = format!("node {node} has no entry of {source}");
    ProvisioningError::new(ErrorCode::NotBlocked, "ending a block", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &str) -> BlockedNode {
        BlockedNode {
            node: NodeId::new(node).unwrap(),
            incarnation: None,
            source: BlockSource::Operator,
            reason: "testing".into(),
            since: Timestamp::default(),
            until: None,
        }
    }

    #[test]
    fn p4_2_a_full_list_refuses_new_entries_and_renews_old_ones() {
        let mut list = BlockList::new(Duration::ZERO);
        for n in 0..LIMIT {
            let node = entry(&n.to_string());
            let key = (node.node.clone(), node.source);
            list.entries.insert(key, Entry { node, returning: false, absent_since: None });
        }
        assert_eq!(list.block(entry("new")).unwrap_err().code(), ErrorCode::BlockListFull);
        list.block(entry("7")).unwrap();
        list.lift(&entry("7").node, BlockSource::Operator).unwrap();
        list.block(entry("new")).unwrap();
        assert_eq!(list.entries().len(), LIMIT);
    }
}
