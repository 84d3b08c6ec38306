//! The block list: who is blocked, by whom, and how each entry ends.
//!
//! Remoting's entries and an operator's mark a node; a failure detector's take it out of the members. A node is
//! unblocked when its last entry goes. The list belongs to the hub, not to a provider: it survives failover. Each change
//! costs the same however many entries there are; what looks at all of them happens once for a delivery.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::turn::Report;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::topology::{BlockSource, BlockedNode, BlockedNodes, Members, NodeId};

/// The most entries: far more than a sane cluster blocks, few enough to be looked through when the members change.
const LIMIT: usize = 65_536;

type Key = (NodeId, BlockSource);

/// What ends an entry of Remoting's.
#[derive(Clone, Copy, Debug, Default)]
struct Quarantine {
    /// Remoting has regained the connection: the next refresh with the node ends the entry.
    returning: bool,
    /// Since when the node has been no member.
    absent_since: Option<Timestamp>,
}

/// The block list.
#[derive(Debug)]
pub(super) struct BlockList {
    entries: BlockedNodes,
    quarantines: BTreeMap<NodeId, Quarantine>,
    /// Those among them that the next refresh has to look at although the members are the same: new ones, and those that
    /// are about to return.
    unsettled: BTreeSet<NodeId>,
    excluded: BTreeSet<NodeId>,
    /// When each entry ends by time, the next first.
    ends: BTreeSet<(Timestamp, NodeId, BlockSource)>,
    absence_limit: Duration,
    /// The entries in which the list differs from the one delivered last: added or taken away since.
    undelivered: BTreeSet<Key>,
    /// The nodes whose entries have changed since consumers were told of them.
    touched: BTreeSet<NodeId>,
    /// The nodes that consumers know to be blocked.
    announced: BTreeSet<NodeId>,
}

impl BlockList {
    pub(super) fn new(absence_limit: Duration) -> Self {
        Self {
            entries: BlockedNodes::default(),
            quarantines: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            excluded: BTreeSet::new(),
            ends: BTreeSet::new(),
            absence_limit,
            undelivered: BTreeSet::new(),
            touched: BTreeSet::new(),
            announced: BTreeSet::new(),
        }
    }

    /// The entries, sorted by node and source.
    pub(super) fn entries(&self) -> &BlockedNodes {
        &self.entries
    }

    /// Adds or renews an entry. A renewed one of Remoting cancels a pending return.
    pub(super) fn block(&mut self, entry: BlockedNode) -> Result<(), ProvisioningError> {
        let (node, source) = (entry.node.clone(), entry.source);
        let known = self.entries.get(&node, source).is_some();
        if self.entries.len() >= LIMIT && !known {
            let detail = format!("it has {LIMIT} entries already");
            return Err(ProvisioningError::new(ErrorCode::BlockListFull, "blocking a node", detail));
        }
        if known {
            self.forget(&node, source);
        } else {
            self.note_change(&node, source);
        }
        match source {
            BlockSource::Remoting => {
                let absent_since = entry.incarnation.is_none().then_some(entry.since);
                self.quarantines.insert(node.clone(), Quarantine { returning: false, absent_since });
                self.unsettled.insert(node.clone());
            }
            BlockSource::FailureDetector => _ = self.excluded.insert(node.clone()),
            BlockSource::Operator => {}
        }
        self.entries.insert(entry);
        self.ends.extend(self.end(&node, source));
        Ok(())
    }

    /// Takes an entry away.
    pub(super) fn lift(&mut self, node: &NodeId, source: BlockSource) -> Result<(), ProvisioningError> {
        if self.entries.get(node, source).is_none() {
            return Err(not_blocked(node, source));
        }
        self.remove(node, source);
        Ok(())
    }

    /// Remoting has regained the connection: its entry ends at the next refresh that contains the node.
    pub(super) fn reconnected(&mut self, node: &NodeId) -> Result<(), ProvisioningError> {
        match self.quarantines.get_mut(node) {
            Some(quarantine) => {
                quarantine.returning = true;
                self.unsettled.insert(node.clone());
                Ok(())
            }
            None => Err(not_blocked(node, BlockSource::Remoting)),
        }
    }

    /// Ends the entries whose time is over.
    pub(super) fn expire(&mut self, now: Timestamp) {
        while let Some((end, node, source)) = self.ends.first().cloned()
            && end <= now
        {
            self.remove(&node, source);
        }
    }

    /// When the next entry ends by time.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        self.ends.first().map(|(end, _, _)| *end)
    }

    /// The members were confirmed just now: ends the quarantines of those that have come back, and counts the absence of
    /// those that are gone.
    pub(super) fn refreshed(&mut self, members: &Members, report: Report, now: Timestamp) {
        if report == Report::None {
            return;
        }
        let unsettled = std::mem::take(&mut self.unsettled);
        let looked_at = match report {
            Report::Changed => self.quarantines.keys().cloned().collect(),
            _ => unsettled,
        };
        for node in looked_at {
            self.look_at(&node, members, now);
        }
    }

    /// The provider followed is another one: its next refresh is looked at as if all had changed.
    pub(super) fn note_switch(&mut self) {
        self.unsettled.extend(self.quarantines.keys().cloned());
    }

    fn look_at(&mut self, node: &NodeId, members: &Members, now: Timestamp) {
        let Some(quarantine) = self.quarantines.get(node).copied() else { return };
        let blocked = self.entries.get(node, BlockSource::Remoting).and_then(|entry| entry.incarnation);
        match members.get(node) {
            // Back, or in another life: the one that was quarantined has left.
            Some(member) if quarantine.returning || is_another_life(blocked, member.incarnation()) => {
                self.remove(node, BlockSource::Remoting);
            }
            Some(_) if quarantine.absent_since.is_some() => self.set_absence(node, None),
            None if quarantine.absent_since.is_none() => self.set_absence(node, Some(now)),
            _ => {}
        }
        if quarantine.returning && self.quarantines.contains_key(node) {
            self.unsettled.insert(node.clone());
        }
    }

    fn set_absence(&mut self, node: &NodeId, since: Option<Timestamp>) {
        let source = BlockSource::Remoting;
        let before = self.end(node, source);
        if let Some(quarantine) = self.quarantines.get_mut(node) {
            quarantine.absent_since = since;
        }
        if let Some(end) = before {
            self.ends.remove(&end);
        }
        self.ends.extend(self.end(node, source));
    }

    /// When the entry ends by time, if it does.
    fn end(&self, node: &NodeId, source: BlockSource) -> Option<(Timestamp, NodeId, BlockSource)> {
        let until = self.entries.get(node, source)?.until;
        let absent_since = || self.quarantines.get(node).filter(|_| source == BlockSource::Remoting)?.absent_since;
        let absence = || absent_since().map(|since| since + self.absence_limit);
        let end = [until, absence()].into_iter().flatten().min()?;
        Some((end, node.clone(), source))
    }

    fn remove(&mut self, node: &NodeId, source: BlockSource) {
        self.forget(node, source);
        self.entries.remove(node, source);
        self.note_change(node, source);
    }

    /// Forgets all that is kept beside an entry.
    fn forget(&mut self, node: &NodeId, source: BlockSource) {
        if let Some(end) = self.end(node, source) {
            self.ends.remove(&end);
        }
        match source {
            BlockSource::Remoting => {
                self.quarantines.remove(node);
                self.unsettled.remove(node);
            }
            BlockSource::FailureDetector => _ = self.excluded.remove(node),
            BlockSource::Operator => {}
        }
    }

    fn note_change(&mut self, node: &NodeId, source: BlockSource) {
        let key = (node.clone(), source);
        // What comes and goes between two deliveries is no difference.
        if !self.undelivered.remove(&key) {
            self.undelivered.insert(key);
        }
        self.touched.insert(node.clone());
    }

    /// Whether the list has other entries than the one delivered last. A renewed entry is no other one.
    pub(super) fn is_undelivered(&self) -> bool {
        !self.undelivered.is_empty()
    }

    /// The list goes out as it is.
    pub(super) fn note_delivered(&mut self) {
        self.undelivered.clear();
    }

    /// How many nodes a failure detector has taken out, members or not.
    pub(super) fn excluded(&self) -> usize {
        self.excluded.len()
    }

    /// Whether a failure detector has taken that node out.
    pub(super) fn excludes(&self, node: &NodeId) -> bool {
        self.excluded.contains(node)
    }

    /// The members without those that a failure detector has taken out.
    pub(super) fn without_excluded(&self, members: &Members) -> Members {
        let mut members = members.clone();
        for node in &self.excluded {
            members.remove(node);
        }
        members
    }

    /// The hash of [`without_excluded`](Self::without_excluded), without making that set.
    pub(super) fn hash_without_excluded(&self, members: &Members) -> u64 {
        let excluded = self.excluded.iter().filter_map(|id| members.get(id));
        excluded.fold(members.hash(), |hash, node| hash.wrapping_sub(node.hash()))
    }

    /// The nodes that are blocked and were not announced so, which they are from here on; then those that no longer are,
    /// unless `unblocks` is false: those wait.
    pub(super) fn announce(&mut self, unblocks: bool) -> (Vec<NodeId>, Vec<NodeId>) {
        let (mut blocked, mut unblocked) = (Vec::new(), Vec::new());
        for node in std::mem::take(&mut self.touched) {
            match (self.entries.contains(&node), self.announced.contains(&node)) {
                (true, false) => {
                    self.announced.insert(node.clone());
                    blocked.push(node);
                }
                (false, true) if unblocks => {
                    self.announced.remove(&node);
                    unblocked.push(node);
                }
                (false, true) => _ = self.touched.insert(node),
                _ => {}
            }
        }
        (blocked, unblocked)
    }
}

/// Whether that incarnation is known to be another than the one blocked. 0 says nothing: a provider without
/// incarnations shows the same life with it.
fn is_another_life(blocked: Option<u64>, incarnation: u64) -> bool {
    incarnation != 0 && blocked.is_some_and(|blocked| blocked != 0 && blocked != incarnation)
}

fn not_blocked(node: &NodeId, source: BlockSource) -> ProvisioningError {
    let detail = format!("node {node} has no entry of {source}");
    ProvisioningError::new(ErrorCode::NotBlocked, "ending a block", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::members;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn id(node: &str) -> NodeId {
        NodeId::new(node).unwrap()
    }

    fn entry(node: &str, source: BlockSource) -> BlockedNode {
        BlockedNode { node: id(node), incarnation: None, source, reason: "testing".into(), since: at(0), until: None }
    }

    fn list() -> BlockList {
        BlockList::new(Duration::from_secs(100))
    }

    #[test]
    fn p4_2_a_full_list_refuses_new_entries_and_renews_old_ones() {
        let mut list = list();
        for n in 0..LIMIT {
            list.block(entry(&n.to_string(), BlockSource::Operator)).unwrap();
        }
        let new = || entry("new", BlockSource::Operator);
        assert_eq!(list.block(new()).unwrap_err().code(), ErrorCode::BlockListFull);
        list.block(entry("7", BlockSource::Operator)).unwrap();
        list.lift(&id("7"), BlockSource::Operator).unwrap();
        list.block(new()).unwrap();
        assert_eq!(list.entries().len(), LIMIT);
    }

    #[test]
    fn p4_2_what_comes_and_goes_between_two_deliveries_is_neither_delivered_nor_announced() {
        let mut list = list();
        list.block(entry("a", BlockSource::Operator)).unwrap();
        list.lift(&id("a"), BlockSource::Operator).unwrap();
        assert!(!list.is_undelivered());
        assert_eq!(list.announce(true), (vec![], vec![]));
        list.block(entry("a", BlockSource::Operator)).unwrap();
        list.block(entry("a", BlockSource::Remoting)).unwrap();
        list.note_delivered();
        assert_eq!(list.announce(true), (vec![id("a")], vec![]), "once for a node, whoever blocked it");
        list.block(entry("a", BlockSource::Operator)).unwrap();
        assert!(!list.is_undelivered(), "a renewed entry is no other one");
        list.lift(&id("a"), BlockSource::Operator).unwrap();
        list.block(entry("a", BlockSource::Operator)).unwrap();
        assert!(!list.is_undelivered());
        list.lift(&id("a"), BlockSource::Operator).unwrap();
        assert!(list.is_undelivered());
        assert_eq!(list.announce(true), (vec![], vec![]), "Remoting's is left");
        list.lift(&id("a"), BlockSource::Remoting).unwrap();
        assert_eq!(list.announce(false), (vec![], vec![]));
        assert_eq!(list.announce(true), (vec![], vec![id("a")]), "those that had to wait");
    }

    #[test]
    fn p4_4_entries_end_by_time_whichever_of_their_times_comes_first() {
        let mut list = list();
        let until =
            |node, seconds| BlockedNode { until: Some(at(seconds)), ..entry(node, BlockSource::FailureDetector) };
        list.block(until("a", 10)).unwrap();
        list.block(until("b", 20)).unwrap();
        list.block(until("a", 30)).unwrap();
        // No member when it was blocked: absent from then on.
        list.block(entry("c", BlockSource::Remoting)).unwrap();
        assert_eq!(list.ends_at(), Some(at(20)), "the renewed one has its new time");
        list.expire(at(19));
        assert_eq!(list.entries().len(), 3);
        list.expire(at(30));
        assert_eq!((list.entries().len(), list.excluded(), list.ends_at()), (1, 0, Some(at(100))));
        list.refreshed(&members(&["c"]), Report::Changed, at(50));
        assert_eq!(list.ends_at(), None, "a member is not absent");
        list.refreshed(&members(&[]), Report::Changed, at(60));
        list.refreshed(&members(&[]), Report::Changed, at(90));
        assert_eq!(list.ends_at(), Some(at(160)));
        list.expire(at(160));
        assert!(list.entries().is_empty());
    }

    #[test]
    fn p4_4_a_return_ends_the_entry_at_the_next_refresh_with_the_node_changed_or_not() {
        for report in [Report::Confirmed, Report::Changed] {
            let mut list = list();
            list.block(BlockedNode { incarnation: Some(0), ..entry("a", BlockSource::Remoting) }).unwrap();
            list.refreshed(&members(&["a"]), report, at(1));
            list.reconnected(&id("a")).unwrap();
            list.refreshed(&members(&["b"]), report, at(2));
            list.refreshed(&members(&["a"]), Report::None, at(3));
            assert_eq!(list.entries().len(), 1, "not without the node, and not without a refresh");
            list.refreshed(&members(&["a"]), report, at(4));
            assert!(list.entries().is_empty());
            assert_eq!(list.reconnected(&id("a")).unwrap_err().code(), ErrorCode::NotBlocked);
        }
    }
}
