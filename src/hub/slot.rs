//! One provider in force: its stream, what it last showed, and how well it serves.

use std::sync::Arc;
use std::time::Duration;

use super::ProviderStatus;
use super::streams::{Ending, StreamLife};
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::StreamEnded;
use crate::failover::{Candidate, FailoverPolicy, HealthTracker, SlotKey};
use crate::health::ProviderHealth;
use crate::id::ProviderId;
use crate::provider::{MemberChange, ProviderEvent, ProviderRole, ProviderTermination};
use crate::topology::{ClusterNode, Members, NodeId, Revision, TopologyDiff};

/// A provider to be in force.
#[derive(Clone, Debug)]
pub(crate) struct SlotSpec {
    /// Names it for as long as a provider of its id is in force, however it is defined.
    pub(crate) key: SlotKey,
    /// Rises with every definition: another one is served by another provider.
    pub(crate) edition: u64,
    pub(crate) id: ProviderId,
    pub(crate) priority: i64,
    pub(crate) role: ProviderRole,
    pub(crate) refresh_interval: Option<Duration>,
    /// It can register the local node.
    pub(crate) registers: bool,
    /// Its backend just answered a connectivity check.
    pub(crate) reachable: bool,
}

/// What an event of a provider's stream meant.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing for its members.
    NoNews,
    /// They were confirmed; `changed`: as others than before. `lost`: those who are no longer among them.
    Refresh { changed: bool, lost: Vec<Arc<ClusterNode>> },
    /// The stream came to its end.
    End(ProviderTermination),
}

/// One provider in force.
#[derive(Debug)]
pub(super) struct Slot {
    key: SlotKey,
    edition: u64,
    id: ProviderId,
    priority: i64,
    role: ProviderRole,
    registers: bool,
    tracker: HealthTracker,
    stream: StreamLife,
    members: Members,
    revision: Revision,
    /// When the set last lost a member, or came into being.
    shrunk_at: Timestamp,
    last_end: Option<Arc<StreamEnded>>,
    doubtful: u64,
    skipped: u64,
}

impl Slot {
    pub(super) fn new(spec: &SlotSpec, policy: &FailoverPolicy, now: Timestamp) -> Self {
        Self {
            key: spec.key,
            edition: spec.edition,
            id: spec.id.clone(),
            priority: spec.priority,
            role: spec.role,
            registers: spec.registers,
            tracker: HealthTracker::new(spec.id.clone(), spec.refresh_interval, spec.reachable, now),
            stream: StreamLife::new(policy, now),
            members: Members::new(),
            revision: Revision::NONE,
            shrunk_at: now,
            last_end: None,
            doubtful: 0,
            skipped: 0,
        }
    }

    /// The provider is in force as the spec says from here on. Where that is another edition, its next stream is due at
    /// once, and what it has shown stays until that stream shows its own. The generation of the stream that is to be
    /// closed for it, if there is one.
    pub(super) fn redefine(&mut self, spec: &SlotSpec, now: Timestamp) -> Option<u64> {
        debug_assert_eq!(self.key, spec.key);
        (self.priority, self.role) = (spec.priority, spec.role);
        if self.edition == spec.edition {
            return None;
        }
        self.edition = spec.edition;
        self.registers = spec.registers;
        self.tracker.redefine(spec.refresh_interval, spec.reachable, now);
        let open = self.open_stream();
        self.stream.start_anew(now);
        open
    }

    pub(super) fn key(&self) -> SlotKey {
        self.key
    }

    pub(super) fn id(&self) -> &ProviderId {
        &self.id
    }

    pub(super) fn is_fallback(&self) -> bool {
        self.role == ProviderRole::Fallback
    }

    pub(super) fn health(&self) -> ProviderHealth {
        self.tracker.health()
    }

    pub(super) fn tracker(&self) -> &HealthTracker {
        &self.tracker
    }

    /// The members that it showed last.
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) fn revision(&self) -> &Revision {
        &self.revision
    }

    /// When its set last lost a member, or came into being.
    pub(super) fn shrunk_at(&self) -> Timestamp {
        self.shrunk_at
    }

    /// How many of its answers it did not believe at once, and how many entries were unusable.
    pub(super) fn doubts(&self) -> (u64, u64) {
        (self.doubtful, self.skipped)
    }

    /// The generation of its stream, if one is open.
    pub(super) fn open_stream(&self) -> Option<u64> {
        self.stream.is_open().then(|| self.stream.generation())
    }

    /// Takes what the stream of that generation reports; `None` if it no longer counts. Nodes that `reference` has too
    /// are shared with it.
    pub(super) fn hear(
        &mut self,
        generation: u64,
        event: ProviderEvent,
        reference: Option<&Members>,
        now: Timestamp,
    ) -> Option<Heard> {
        if !self.stream.is_heard(generation) {
            return None;
        }
        self.tracker.sign_of_life(now);
        let (changed, lost) = match event {
            ProviderEvent::Snapshot { members, revision, skipped } => {
                self.skipped += skipped as u64;
                self.stream.begin();
                self.revision = revision;
                self.replace(members, reference, now)
            }
            ProviderEvent::Changes { changes, revision } if self.stream.has_begun() => {
                self.revision = revision;
                self.apply(changes, reference, now)
            }
            ProviderEvent::Changes { .. } => {
                let detail = "changes came before the stream's first snapshot";
                let error = ProvisioningError::new(ErrorCode::MalformedAnswer, "watching the topology", detail);
                let error = error.with_advice("report it to the provider's author: a whole snapshot has to come first");
                self.tracker.failed(error.with_provider(&self.id));
                return Some(Heard::NoNews);
            }
            ProviderEvent::Heartbeat { current } if current && self.stream.has_begun() => (false, Vec::new()),
            ProviderEvent::Heartbeat { .. } => return Some(Heard::NoNews),
            ProviderEvent::Doubtful { reason } => {
                self.doubtful += 1;
                self.tracker.doubted(reason.with_provider(&self.id));
                return Some(Heard::NoNews);
            }
            ProviderEvent::Degraded { error } => {
                self.tracker.failed(error.with_provider(&self.id));
                return Some(Heard::NoNews);
            }
            ProviderEvent::Terminated(termination) => return Some(Heard::End(termination)),
        };
        self.tracker.refreshed(now);
        Some(Heard::Refresh { changed, lost })
    }

    /// The thread of the stream of that generation has ended; how, where that is news.
    pub(super) fn thread_ended(
        &mut self,
        generation: u64,
        jitter: &mut Jitter,
        now: Timestamp,
    ) -> Option<ProviderTermination> {
        self.stream.closed(generation, jitter, now).then(|| {
            let detail = "the stream's thread ended without a termination";
            let reason = ProvisioningError::new(ErrorCode::StreamFailed, "watching the topology", detail);
            ProviderTermination::Errored { reason }
        })
    }

    /// The stream came to its end.
    pub(super) fn end_stream(
        &mut self,
        termination: &ProviderTermination,
        ending: Ending,
        policy: &FailoverPolicy,
        jitter: &mut Jitter,
        now: Timestamp,
    ) {
        if self.tracker.health() == ProviderHealth::Healthy {
            self.note_health(now.since(self.tracker.since()), policy);
        }
        let cause = match termination {
            ProviderTermination::Ended => {
                ProvisioningError::new(ErrorCode::StreamEnded, "watching the topology", "the stream came to its end")
            }
            ProviderTermination::Errored { reason } => reason.clone(),
        };
        self.tracker.terminated(cause.with_provider(&self.id));
        self.stream.end(ending, jitter, now);
    }

    /// Keeps the end signal, so that it can be read.
    pub(super) fn note_end(&mut self, end: Arc<StreamEnded>) {
        self.last_end = Some(end);
    }

    /// It is no longer to watch. What it showed ages unwatched from here on: it counts for nothing until it watches again.
    pub(super) fn stop_watching(&mut self) {
        self.stream.close();
        self.tracker.forget();
    }

    /// Opens the next stream if it is due; its generation.
    pub(super) fn open_if_due(&mut self, now: Timestamp) -> Option<u64> {
        self.stream.open_if_due(now)
    }

    /// Judges the health; the former one if it changed.
    pub(super) fn assess(&mut self, policy: &FailoverPolicy, now: Timestamp) -> Option<ProviderHealth> {
        let (from, since) = self.tracker.assess(now, policy)?;
        if from == ProviderHealth::Healthy {
            self.note_health(now.since(since), policy);
        }
        Some(from)
    }

    /// It has been healthy for that long.
    fn note_health(&mut self, duration: Duration, policy: &FailoverPolicy) {
        if duration >= policy.backoff_reset {
            self.stream.forget_failures();
        }
    }

    pub(super) fn fall_silent(&mut self) {
        self.tracker.fall_silent();
    }

    pub(super) fn become_overdue(&mut self) {
        self.tracker.become_overdue();
    }

    /// The whole process stood still: silence counts from here on.
    pub(super) fn restart_windows(&mut self, now: Timestamp) {
        self.tracker.restart_windows(now);
        self.stream.restart_window(now);
    }

    /// When the next stream is due.
    pub(super) fn reopens_at(&self) -> Option<Timestamp> {
        self.stream.reopens_at()
    }

    /// When the open stream is given up unless it says something.
    pub(super) fn mute_at(&self, policy: &FailoverPolicy) -> Option<Timestamp> {
        self.stream.mute_at(self.tracker.last_sign(), policy)
    }

    /// Replaces the whole set; whether it changed, and who is lost.
    fn replace(
        &mut self,
        members: Members,
        reference: Option<&Members>,
        now: Timestamp,
    ) -> (bool, Vec<Arc<ClusterNode>>) {
        let first = !self.tracker.has_snapshot();
        if members.hash() == self.members.hash() && members.len() == self.members.len() {
            if first {
                self.shrunk_at = now;
            }
            return (first, Vec::new());
        }
        let members = members.shared_with(reference.unwrap_or(&self.members));
        // Whoever is back in another life is not lost.
        let diff = TopologyDiff::between(&self.members, &members);
        let lost: Vec<_> = diff.left().iter().filter(|node| !members.contains(node.id())).cloned().collect();
        if first || !lost.is_empty() {
            self.shrunk_at = now;
        }
        self.members = members;
        (true, lost)
    }

    /// Applies changes one by one; whether anything changed, and who is lost.
    fn apply(
        &mut self,
        changes: Vec<MemberChange>,
        reference: Option<&Members>,
        now: Timestamp,
    ) -> (bool, Vec<Arc<ClusterNode>>) {
        let before = self.members.clone();
        let (mut removed, mut upserts) = (Vec::new(), false);
        for change in changes {
            match change {
                MemberChange::Upsert(node) => {
                    let shared = reference.and_then(|members| members.get(node.id())).filter(|same| **same == node);
                    let node = shared.cloned().unwrap_or(node);
                    self.members.insert(node);
                    upserts = true;
                }
                MemberChange::Remove(id) => {
                    if self.members.remove(&id).is_some() {
                        removed.push(id);
                    }
                }
            }
        }
        if upserts {
            // Who went, came and went again is lost once.
            removed.sort_unstable();
            removed.dedup();
        }
        removed.retain(|id| !self.members.contains(id));
        let lost: Vec<_> = removed.iter().filter_map(|id| before.get(id).cloned()).collect();
        if !lost.is_empty() {
            self.shrunk_at = now;
        }
        (self.members.hash() != before.hash(), lost)
    }

    /// Shares the whole set with an equal one.
    pub(super) fn share(&mut self, reference: &Members) {
        if self.members.hash() == reference.hash() && self.members.len() == reference.len() {
            self.members = reference.clone();
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

    /// How it does, to be read from outside.
    pub(super) fn status(&self, active: Option<SlotKey>, pinned: Option<SlotKey>) -> ProviderStatus {
        let shown = self.tracker.has_snapshot();
        ProviderStatus {
            id: self.id.clone(),
            priority: self.priority,
            role: self.role,
            active: active == Some(self.key),
            pinned: pinned == Some(self.key),
            health: self.tracker.health(),
            since: self.tracker.since(),
            cause: self.tracker.cause().cloned(),
            errors: self.tracker.errors(),
            last_heartbeat: self.tracker.last_sign(),
            last_refresh: self.tracker.last_refresh(),
            members: shown.then(|| self.members.len()),
            hash: shown.then(|| self.members.hash()),
            last_end: self.last_end.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::members;

    fn spec(edition: u64) -> SlotSpec {
        let id = ProviderId::new("a").expect("a valid id");
        SlotSpec {
            key: 1,
            edition,
            id,
            priority: 0,
            role: ProviderRole::Mirror,
            refresh_interval: None,
            registers: false,
            reachable: false,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn slot() -> Slot {
        Slot::new(&spec(1), &FailoverPolicy::default(), at(0))
    }

    fn shows(ids: &[&str]) -> ProviderEvent {
        ProviderEvent::Snapshot { members: members(ids), revision: Revision::NONE, skipped: 0 }
    }

    #[test]
    fn equal_sets_are_held_once_and_different_ones_stay_apart() {
        let mut slot = slot();
        slot.replace(members(&["n1", "n2"]), None, at(0));
        let equal = members(&["n1", "n2"]);
        assert!(!slot.members.is_same(&equal));
        slot.share(&equal);
        assert!(slot.members.is_same(&equal));
        slot.share(&members(&["n1", "n3"]));
        assert_eq!(slot.members, equal);
    }

    #[test]
    fn p5_4_another_edition_keeps_members_and_health_until_its_own_stream_shows_something() {
        let policy = FailoverPolicy::default();
        let mut slot = slot();
        assert_eq!(slot.open_if_due(at(0)), Some(1));
        assert!(matches!(slot.hear(1, shows(&["n1", "n2"]), None, at(0)), Some(Heard::Refresh { changed: true, .. })));
        slot.assess(&policy, at(0));
        assert_eq!(slot.redefine(&SlotSpec { priority: 7, ..spec(1) }, at(1)), None, "another priority alone");
        assert_eq!((slot.status(None, None).priority, slot.open_stream()), (7, Some(1)));

        assert_eq!(slot.redefine(&spec(2), at(2)), Some(1), "the old stream is to be closed");
        assert!(slot.hear(1, shows(&[]), None, at(2)).is_none(), "what it says no longer counts");
        assert_eq!(slot.open_if_due(at(2)), Some(2));
        slot.assess(&policy, at(2));
        assert_eq!((slot.health(), slot.members().len()), (ProviderHealth::Healthy, 2));
        assert!(matches!(slot.hear(2, shows(&["n1"]), None, at(3)), Some(Heard::Refresh { changed: true, .. })));
        assert_eq!((slot.members().len(), slot.shrunk_at()), (1, at(3)));
        assert_eq!(slot.redefine(&spec(3), at(4)), Some(2));
        assert_eq!(slot.redefine(&spec(4), at(4)), None, "none is open");
    }
}
