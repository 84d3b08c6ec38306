//! The providers in force, in the order of registration: which there are, what they report, and which of them watch.

use std::cmp::Reverse;
use std::sync::Arc;

use super::slot::{Heard, Slot, SlotSpec};
use super::streams::Ending;
use super::turn::Turn;
use super::{ProviderStatus, StreamCommand};
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::event::{HealthChanged, ProvisioningEvent, StreamEnded};
use crate::failover::{Candidate, FailoverPolicy, SlotKey};
use crate::health::ProviderHealth;
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::provider::{ProviderEvent, ProviderTermination};
use crate::topology::{Members, NodeId};

/// The providers in force.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    policy: FailoverPolicy,
    jitter: Jitter,
    /// Streams that came to their end.
    interruptions: u64,
    /// The end signal told last, also of a provider that was removed.
    last_end: Option<Arc<StreamEnded>>,
    /// What providers that are no longer in force had counted.
    doubtful: u64,
    skipped: u64,
}

impl Slots {
    /// None. `seed`: of the pauses' jitter.
    pub(super) fn new(policy: FailoverPolicy, seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            policy,
            jitter: Jitter::new(seed),
            interruptions: 0,
            last_end: None,
            doubtful: 0,
            skipped: 0,
        }
    }

    pub(super) fn policy(&self) -> &FailoverPolicy {
        &self.policy
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    pub(super) fn get(&self, key: SlotKey) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.key() == key)
    }

    pub(super) fn find(&self, id: &ProviderId) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id() == id)
    }

    pub(super) fn candidates(&self, local_node: Option<&NodeId>) -> Vec<Candidate<'_>> {
        self.slots.iter().map(|slot| slot.candidate(local_node)).collect()
    }

    /// Whether there is one that is better than Unreachable.
    pub(super) fn any_reachable(&self) -> bool {
        self.slots.iter().any(|slot| slot.health() > ProviderHealth::Unreachable)
    }

    /// Brings exactly these into force. Those with a known key go on as they are; the keys of those that are gone are
    /// returned.
    pub(super) fn reconfigure(&mut self, specs: &[SlotSpec], turn: &mut Turn<'_>) -> Vec<SlotKey> {
        let now = turn.now();
        let mut old = std::mem::take(&mut self.slots);
        for spec in specs {
            let slot = match old.iter().position(|slot| slot.key() == spec.key) {
                Some(index) => {
                    let mut slot = old.swap_remove(index);
                    if let Some(generation) = slot.redefine(spec, now) {
                        turn.decide(format!("{} is defined anew, and goes on from what it has shown", spec.id));
                        turn.order(StreamCommand::Close { key: spec.key, generation });
                    }
                    slot
                }
                None => {
                    turn.decide(format!("{} is in force, priority {}", spec.id, spec.priority));
                    Slot::new(spec, &self.policy, now)
                }
            };
            self.slots.push(slot);
        }
        for slot in &old {
            turn.decide(format!("{} is no longer in force", slot.id()));
            let (doubtful, skipped) = slot.doubts();
            self.doubtful += doubtful;
            self.skipped += skipped;
            if let Some(generation) = slot.open_stream() {
                turn.order(StreamCommand::Close { key: slot.key(), generation });
            }
        }
        old.iter().map(Slot::key).collect()
    }

    /// Takes what a stream reports; `None` if the stream no longer counts.
    pub(super) fn hear(
        &mut self,
        key: SlotKey,
        generation: u64,
        event: ProviderEvent,
        reference: Option<&Members>,
        now: Timestamp,
    ) -> Option<Heard> {
        self.get_mut(key)?.hear(generation, event, reference, now)
    }

    /// The thread of a stream has ended; how, where that is news.
    pub(super) fn thread_ended(
        &mut self,
        key: SlotKey,
        generation: u64,
        now: Timestamp,
    ) -> Option<ProviderTermination> {
        let slot = self.slots.iter_mut().find(|slot| slot.key() == key)?;
        slot.thread_ended(generation, &mut self.jitter, now)
    }

    /// The stream of the provider came to its end, which is told. `hash`: of its last set.
    pub(super) fn end_stream(
        &mut self,
        key: SlotKey,
        termination: ProviderTermination,
        ending: Ending,
        (snapshot_hash, was_active): (Option<u64>, bool),
        turn: &mut Turn<'_>,
    ) {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key() == key) else { return };
        self.interruptions += 1;
        slot.end_stream(&termination, ending, &self.policy, &mut self.jitter, turn.now());
        let how = match &termination {
            ProviderTermination::Ended => "in good order".to_owned(),
            ProviderTermination::Errored { reason } => reason.brief(),
        };
        let provider_id = slot.id().clone();
        turn.decide(format!("{provider_id}: its stream came to its end ({how})"));
        turn.deliver(|position, at| {
            let end = StreamEnded { position, at, provider_id, termination, snapshot_hash, was_active };
            let kept = Arc::new(end.clone());
            slot.note_end(Arc::clone(&kept));
            self.last_end = Some(kept);
            ProvisioningEvent::StreamEnded(end)
        });
    }

    /// The end signal told last.
    pub(super) fn last_end(&self) -> Option<&Arc<StreamEnded>> {
        self.last_end.as_ref()
    }

    /// Judges everyone's health, and tells what has changed.
    pub(super) fn assess(&mut self, turn: &mut Turn<'_>) {
        for slot in &mut self.slots {
            let Some(from) = slot.assess(&self.policy, turn.now()) else { continue };
            let (provider_id, to, cause) = (slot.id().clone(), slot.health(), slot.tracker().cause().cloned());
            let why = cause.as_ref().map_or_else(|| "refreshed".to_owned(), ProvisioningError::brief);
            turn.decide(format!("{provider_id}: {from} -> {to} ({why})"));
            turn.deliver(|position, at| {
                ProvisioningEvent::HealthChanged(HealthChanged { position, at, provider_id, from, to, cause })
            });
        }
    }

    /// The silence window of the provider ran out.
    pub(super) fn fall_silent(&mut self, key: SlotKey) {
        if let Some(slot) = self.get_mut(key) {
            slot.fall_silent();
        }
    }

    /// The provider's data is overdue.
    pub(super) fn become_overdue(&mut self, key: SlotKey) {
        if let Some(slot) = self.get_mut(key) {
            slot.become_overdue();
        }
    }

    /// The whole process stood still: everyone's silence counts from here on.
    pub(super) fn restart_windows(&mut self, now: Timestamp) {
        for slot in &mut self.slots {
            slot.restart_windows(now);
        }
    }

    /// Shares the provider's set with an equal one.
    pub(super) fn share(&mut self, key: SlotKey, reference: &Members) {
        if let Some(slot) = self.get_mut(key) {
            slot.share(reference);
        }
    }

    /// The same for every provider.
    pub(super) fn share_all(&mut self, reference: &Members) {
        for slot in &mut self.slots {
            slot.share(reference);
        }
    }

    /// Opens the streams that are due, among those that are to watch, and closes the others. `wanted`: those that are to
    /// watch; all of them if absent.
    pub(super) fn tend_streams(&mut self, wanted: Option<&[SlotKey]>, turn: &mut Turn<'_>) {
        for slot in &mut self.slots {
            let key = slot.key();
            if wanted.is_none_or(|wanted| wanted.contains(&key)) {
                if let Some(generation) = slot.open_if_due(turn.now()) {
                    turn.order(StreamCommand::Open { key, generation });
                }
            } else if let Some(generation) = slot.open_stream() {
                slot.stop_watching();
                turn.order(StreamCommand::Close { key, generation });
            }
        }
        // Those that were closed just now.
        self.assess(turn);
    }

    /// The providers that are to watch in cold standby, beside these: those of higher rank than the first healthy one, and
    /// that one itself.
    pub(super) fn wanted_cold(
        &self,
        always: impl IntoIterator<Item = SlotKey>,
        local_node: Option<&NodeId>,
    ) -> Vec<SlotKey> {
        let mut candidates = self.candidates(local_node);
        candidates.sort_by_key(|candidate| Reverse((candidate.shows_local_node, candidate.priority)));
        let mut wanted: Vec<SlotKey> = always.into_iter().collect();
        for candidate in candidates {
            wanted.push(candidate.key);
            if candidate.tracker.has_snapshot() && candidate.tracker.health() == ProviderHealth::Healthy {
                break;
            }
        }
        wanted
    }

    /// How each of them does.
    pub(super) fn statuses(&self, active: Option<SlotKey>, pinned: Option<SlotKey>) -> Vec<ProviderStatus> {
        self.slots.iter().map(|slot| slot.status(active, pinned)).collect()
    }

    /// What was counted.
    pub(super) fn report(&self, metrics: &mut ProvisioningMetrics) {
        metrics.stream_interruptions = self.interruptions;
        let add = |sum: (u64, u64), slot: &Slot| (sum.0 + slot.doubts().0, sum.1 + slot.doubts().1);
        (metrics.doubtful, metrics.skipped_members) = self.slots.iter().fold((self.doubtful, self.skipped), add);
    }

    fn get_mut(&mut self, key: SlotKey) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.key() == key)
    }
}
