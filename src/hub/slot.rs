//! One provider in force: its stream, what it last showed, and how well it serves.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Timestamp;
use crate::failover::{Candidate, FailoverPolicy, HealthTracker, SlotKey};
use crate::provider::{MemberChange, ProviderId};
use crate::topology::{Members, NodeId, Revision, TopologyDiff};

/// A provider to be in force.
#[derive(Clone, Debug)]
pub(crate) struct SlotSpec {
    /// Names it for as long as it is in force.
    pub(crate) key: SlotKey,
    pub(crate) id: ProviderId,
    pub(crate) priority: i64,
    pub(crate) refresh_interval: Option<Duration>,
    /// It can register the local node.
    pub(crate) registers: bool,
    /// Its backend just answered a connectivity check.
    pub(crate) reachable: bool,
}

/// Where a provider's stream is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamState {
    /// There is none; one may be opened from then on.
    Idle { reopen_at: Timestamp },
    /// It was asked for then, and reports.
    Open { since: Timestamp },
    /// It was cancelled; its thread has not ended yet, and what it says no longer counts. `pause`: whether the next one
    /// waits for the backoff.
    Closing { pause: bool },
}

/// One provider in force.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: SlotKey,
    pub(super) id: ProviderId,
    pub(super) priority: i64,
    pub(super) registers: bool,
    pub(super) tracker: HealthTracker,
    pub(super) backoff: Backoff,
    pub(super) stream: StreamState,
    pub(super) generation: u64,
    /// The present stream has begun: its first snapshot has come.
    pub(super) begun: bool,
    pub(super) members: Members,
    pub(super) revision: Revision,
    /// When the set last lost a member, or came into being.
    pub(super) shrunk_at: Timestamp,
}

impl Slot {
    pub(super) fn new(spec: &SlotSpec, policy: &FailoverPolicy, now: Timestamp) -> Self {
        Self {
            key: spec.key,
            id: spec.id.clone(),
            priority: spec.priority,
            registers: spec.registers,
            tracker: HealthTracker::new(spec.id.clone(), spec.refresh_interval, spec.reachable, now),
            backoff: Backoff::new(policy.backoff_initial, policy.backoff_max),
            stream: StreamState::Idle { reopen_at: now },
            generation: 0,
            begun: false,
            members: Members::new(),
            revision: Revision::NONE,
            shrunk_at: now,
        }
    }

    /// Replaces the whole set; whether it changed. Nodes that `reference` has too are shared with it.
    pub(super) fn replace(&mut self, members: Members, reference: Option<&Members>, now: Timestamp) -> bool {
        let first = !self.tracker.has_snapshot();
        if members.hash() == self.members.hash() && members.len() == self.members.len() {
            if first {
                self.shrunk_at = now;
            }
            return first;
        }
        let members = members.shared_with(reference.unwrap_or(&self.members));
        if first || !TopologyDiff::between(&self.members, &members).left().is_empty() {
            self.shrunk_at = now;
        }
        self.members = members;
        true
    }

    /// Applies changes one by one; whether anything changed.
    pub(super) fn apply(&mut self, changes: Vec<MemberChange>, reference: Option<&Members>, now: Timestamp) -> bool {
        let before = self.members.hash();
        for change in changes {
            match change {
                MemberChange::Upsert(node) => {
                    let shared = reference.and_then(|members| members.get(node.id())).filter(|same| **same == node);
                    let node = shared.cloned().unwrap_or(node);
                    self.members.insert(node);
                }
                MemberChange::Remove(id) => {
                    if self.members.remove(&id).is_some() {
                        self.shrunk_at = now;
                    }
                }
            }
        }
        self.members.hash() != before
    }

    /// Shares the whole set with an equal one.
    pub(super) fn share(&mut self, reference: &Members) {
        if self.members.hash() == reference.hash() && self.members.len() == reference.len() {
            self.members = reference.clone();
        }
    }

    /// Since when nothing has come from the stream, where one is open.
    pub(super) fn quiet_since(&self) -> Option<Timestamp> {
        match self.stream {
            StreamState::Open { since } => Some(self.tracker.last_sign().map_or(since, |sign| sign.max(since))),
            _ => None,
        }
    }

    /// The whole process stood still: the silence of the stream counts from here on.
    pub(super) fn restart_window(&mut self, now: Timestamp) {
        if let StreamState::Open { since } = &mut self.stream {
            *since = now;
        }
    }

    pub(super) fn candidate(&self, local_node: Option<&NodeId>) -> Candidate<'_> {
        Candidate {
            key: self.key,
            priority: self.priority,
            shows_local_node: local_node.is_none_or(|node| !self.registers || self.members.contains(node)),
            tracker: &self.tracker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::members;

    fn slot() -> Slot {
        let id = ProviderId::new("a").expect("a valid id");
        let spec = SlotSpec { key: 1, id, priority: 0, refresh_interval: None, registers: false, reachable: false };
        Slot::new(&spec, &FailoverPolicy::default(), Timestamp::default())
    }

    #[test]
    fn equal_sets_are_held_once_and_different_ones_stay_apart() {
        let now = Timestamp::default();
        let mut slot = slot();
        slot.replace(members(&["n1", "n2"]), None, now);
        let equal = members(&["n1", "n2"]);
        assert!(!slot.members.is_same(&equal));
        slot.share(&equal);
        assert!(slot.members.is_same(&equal));
        slot.share(&members(&["n1", "n3"]));
        assert_eq!(slot.members, equal);
    }
}
