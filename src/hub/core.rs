//! The hub's rules: what one input leads to.
//!
//! Holds the state, takes the inputs, and brings everything in line with them in a fixed order, giving each delivery its
//! position. Who is followed is in `selection`, what goes out in `delivery`, the streams' lives are in `streams`; health
//! is [`crate::failover`]'s. No clock, no threads, no I/O.

use std::sync::Arc;
use std::time::Duration;

use super::blocks::BlockList;
use super::explain::DecisionLog;
use super::remote::RemoteView;
use super::slot::{Slot, SlotSpec, StreamState};
use super::{Counters, Decision, HubSettings, Input, StreamCommand, Tick};
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::*;
use crate::failover::{Candidate, FailoverController, Guard, SlotKey};
use crate::provider::{ProviderEvent, ProviderId, ProviderTermination};
use crate::topology::{BlockSource, BlockedNode, Members, NodeId, Position, ProviderSnapshot, TopologyDiff};

/// The hub looks at the time at least this often, so that a standstill of the process shows as a gap.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// A longer gap between two ticks means that the process stood still: nobody could have been heard meanwhile.
const STANDSTILL: Duration = Duration::from_secs(5);

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its thread has ended, or is about to.
    ByItself,
    /// It was given up; its thread may still be stuck.
    GivenUp,
}

/// The hub's state machine.
#[derive(Debug)]
pub(crate) struct HubCore {
    pub(super) settings: HubSettings,
    pub(super) epoch: u64,
    pub(super) seq_no: u64,
    pub(super) now: Timestamp,
    pub(super) slots: Vec<Slot>,
    pub(super) failover: FailoverController,
    pub(super) jitter: Jitter,
    pub(super) blocks: BlockList,
    pub(super) remote: RemoteView,
    pub(super) delivered: Option<Arc<ProviderSnapshot>>,
    /// The members that the provider followed showed then, those included that a failure detector has taken out.
    pub(super) accepted: Members,
    /// When the provider followed last confirmed its data; also after it was removed.
    pub(super) confirmed_at: Option<Timestamp>,
    /// The provider followed last, also after it was removed.
    pub(super) last_active: Option<ProviderId>,
    /// Until then a changed snapshot waits, unless it is urgent.
    pub(super) window_until: Timestamp,
    pub(super) gate: PlacementGate,
    /// Remoting has been warned that the topology may be stale.
    pub(super) warned: bool,
    /// The switch that is held back by the guard, so that it is reported once.
    pub(super) reported_hold: Option<(SlotKey, Guard)>,
    pub(super) mass_loss_reported: bool,
    /// It was reported that another provider serves than the pinned one.
    pub(super) pin_reported: bool,
    pub(super) draining: bool,
    pub(super) counters: Counters,
    pub(super) decisions: DecisionLog,
    pub(super) events: Vec<ProvisioningEvent>,
    pub(super) streams: Vec<StreamCommand>,
    pub(super) discarded: Option<Members>,
    /// A snapshot went out in this tick.
    pub(super) snapshot_delivered: bool,
    /// What it changed, and from which set.
    pub(super) delivered_diff: Option<(Members, Arc<TopologyDiff>)>,
    /// When the provider followed reported the oldest change that is not delivered yet.
    pub(super) changed_at: Option<Timestamp>,
    /// The same, of what this tick delivers.
    pub(super) waited_since: Option<Timestamp>,
    /// The set of the provider followed changed in this tick.
    pub(super) active_changed: bool,
    /// The provider followed was refreshed in this tick.
    pub(super) active_refreshed: bool,
}

impl HubCore {
    /// A hub without providers; the first [`Input::Reconfigure`] brings them. `epoch` must exceed that of every earlier
    /// start.
    pub(crate) fn new(settings: HubSettings, epoch: u64, now: Timestamp) -> Self {
        Self {
            epoch,
            seq_no: 0,
            now,
            slots: Vec::new(),
            failover: FailoverController::new(settings.failover.clone(), now),
            jitter: Jitter::new(settings.seed),
            blocks: BlockList::new(settings.block_absence),
            remote: RemoteView::default(),
            delivered: None,
            accepted: Members::new(),
            confirmed_at: None,
            last_active: None,
            window_until: now,
            gate: PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::NoSnapshot)),
            warned: false,
            reported_hold: None,
            mass_loss_reported: false,
            pin_reported: false,
            draining: false,
            counters: Counters::default(),
            decisions: DecisionLog::default(),
            events: Vec::new(),
            streams: Vec::new(),
            discarded: None,
            snapshot_delivered: false,
            delivered_diff: None,
            changed_at: None,
            waited_since: None,
            active_changed: false,
            active_refreshed: false,
            settings,
        }
    }

    /// One tick: takes the input, stamped by its sender, and says what follows.
    pub(crate) fn handle(&mut self, input: Input, at: Timestamp) -> Tick {
        self.advance(at);
        let reply = self.take(input);
        self.settle();
        self.finish(reply)
    }

    /// One tick without input: what time alone brings about. Only when every waiting input has been handled, so that a
    /// slow callback does not make the providers look silent.
    pub(crate) fn handle_timers(&mut self, now: Timestamp) -> Tick {
        self.advance(now);
        self.settle();
        self.finish(Ok(()))
    }

    /// When time alone brings something about, at the latest a second from the last tick.
    pub(crate) fn next_timeout(&self) -> Timestamp {
        let policy = self.failover.policy();
        let candidates = self.candidates();
        let pending = self.pending().then_some(self.window_until);
        let mass_loss =
            self.active().filter(|_| self.mass_loss_reported).map(|slot| slot.shrunk_at + policy.guard_hold);
        let guard = match self.reported_hold {
            Some((_, Guard::HeldUntil(until))) => Some(until),
            _ => None,
        };
        let stale = self.confirmed_at.and_then(|confirmed| Some(confirmed + policy.max_stale?));
        let health = self.slots.iter().flat_map(|slot| slot.tracker.deadlines(policy)).flatten();
        let own = [pending, mass_loss, guard, stale, self.blocks.deadline()].into_iter().flatten();
        let deadlines = own.chain(health).chain(self.stream_deadlines()).chain(self.failover.deadlines(&candidates));
        deadlines.filter(|deadline| *deadline > self.now).fold(self.now + HOUSEKEEPING, Timestamp::min)
    }

    /// The position of the last delivery.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, seq_no: self.seq_no }
    }

    /// Gives ownership changes their fencing token, as a delivery of the present tick.
    pub(crate) fn lease(&mut self, changes: Vec<OwnershipChange>) -> ProvisioningEvent {
        let position = self.next_position();
        let lease = |change: OwnershipChange| Lease { key: change.key, owner: change.owner, token: position };
        ProvisioningEvent::LeasesPublished(LeaseUpdate {
            position,
            at: self.now,
            leases: changes.into_iter().map(lease).collect(),
            snapshot_hash: self.delivered_hash(),
        })
    }

    /// A warning as a delivery of the present tick.
    pub(crate) fn warning(&mut self, error: ProvisioningError) -> ProvisioningEvent {
        log::warn!("{error} (after {})", self.position());
        ProvisioningEvent::Warning(Warning { position: self.next_position(), at: self.now, error })
    }

    /// The provider followed.
    pub(super) fn active(&self) -> Option<&Slot> {
        let key = self.failover.active()?;
        self.slots.iter().find(|slot| slot.key == key)
    }

    pub(super) fn candidates(&self) -> Vec<Candidate<'_>> {
        let local_node = self.settings.local_node.as_ref();
        self.slots.iter().map(|slot| slot.candidate(local_node)).collect()
    }

    pub(super) fn decide(&mut self, text: String) {
        let after = self.position();
        self.decisions.push(Decision { at: self.now, after, text });
    }

    pub(super) fn next_position(&mut self) -> Position {
        self.seq_no += 1;
        self.counters.deliveries += 1;
        self.position()
    }

    pub(super) fn delivered_hash(&self) -> u64 {
        self.delivered.as_ref().map_or(0, |snapshot| snapshot.hash)
    }

    pub(super) fn advance(&mut self, at: Timestamp) {
        if at.since(self.now) > STANDSTILL {
            for slot in &mut self.slots {
                slot.tracker.restart_windows(at);
                slot.restart_window(at);
            }
            self.decide(format!("the process stood still for {:?}: silence windows begin again", at.since(self.now)));
        }
        self.now = self.now.max(at);
    }

    pub(super) fn finish(&mut self, reply: Result<(), ProvisioningError>) -> Tick {
        self.snapshot_delivered = false;
        self.delivered_diff = None;
        self.active_changed = false;
        self.active_refreshed = false;
        Tick {
            events: std::mem::take(&mut self.events),
            streams: std::mem::take(&mut self.streams),
            waited_since: self.waited_since.take(),
            discarded: self.discarded.take(),
            reply,
        }
    }

    pub(super) fn take(&mut self, input: Input) -> Result<(), ProvisioningError> {
        match input {
            Input::Event { key, generation, event } => self.take_event(key, generation, event),
            Input::StreamClosed { key, generation } => self.stream_closed(key, generation),
            Input::Reconfigure(specs) => self.reconfigure(&specs),
            Input::Block { node, source, reason, lasting } => return self.block(node, source, reason, lasting),
            Input::Lift { node, source } => return self.blocks.lift(&node, source),
            Input::Reconnected { node } => return self.blocks.reconnected(&node),
            Input::Pin(id) => {
                let Some(key) = self.slots.iter().find(|slot| slot.id == id).map(|slot| slot.key) else {
                    let error =
                        ProvisioningError::new(ErrorCode::UnknownProvider, "pinning a provider", "no such provider");
                    return Err(error.with_provider(&id));
                };
                self.failover.pin(Some(key));
                self.pin_reported = false;
                self.decide(format!("{id} is pinned"));
            }
            Input::Unpin => {
                self.failover.pin(None);
                self.decide("the pin is lifted".into());
            }
            Input::PublishOwnership(changes) => {
                let leases = self.lease(changes);
                self.events.push(leases);
            }
            Input::Warn(error) => {
                let warning = self.warning(error);
                self.events.push(warning);
            }
            Input::Drain => {
                self.draining = true;
                self.decide("draining: no snapshot, join or switch from here on".into());
            }
        }
        Ok(())
    }

    pub(super) fn take_event(&mut self, key: SlotKey, generation: u64, event: ProviderEvent) {
        let now = self.now;
        let is_active = self.failover.active() == Some(key);
        let reference = self.delivered.as_ref().map(|snapshot| snapshot.members.clone());
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key) else { return };
        // A stream that was given up or replaced no longer counts.
        if slot.generation != generation || !matches!(slot.stream, StreamState::Open { .. }) {
            return;
        }
        slot.tracker.sign_of_life(now);
        let mut changed = None;
        match event {
            ProviderEvent::Snapshot { members, revision, skipped } => {
                self.counters.skipped_members += skipped as u64;
                slot.begun = true;
                slot.revision = revision;
                self.discarded = Some(members.clone());
                changed = Some(slot.replace(members, reference.as_ref(), now));
            }
            ProviderEvent::Changes { changes, revision } if slot.begun => {
                slot.revision = revision;
                changed = Some(slot.apply(changes, reference.as_ref(), now));
            }
            ProviderEvent::Changes { .. } => {
                let detail = "changes came before the stream's first snapshot";
                let error = ProvisioningError::new(ErrorCode::MalformedAnswer, "watching the topology", detail);
                slot.tracker.failed(error.with_provider(&slot.id));
            }
            ProviderEvent::Heartbeat { current } if current && slot.begun => changed = Some(false),
            ProviderEvent::Heartbeat { .. } => {}
            ProviderEvent::Doubtful { reason } => {
                self.counters.doubtful += 1;
                slot.tracker.doubted(reason.with_provider(&slot.id));
            }
            ProviderEvent::Degraded { error } => slot.tracker.failed(error.with_provider(&slot.id)),
            ProviderEvent::Terminated(termination) => return self.terminated(key, termination, Ending::ByItself),
        }
        let Some(changed) = changed else { return };
        slot.tracker.refreshed(now);
        if is_active {
            self.active_refreshed = true;
            self.active_changed = changed;
            if changed {
                self.changed_at.get_or_insert(now);
            } else {
                self.counters.deduplicated += 1;
            }
        } else if let Some(reference) = reference {
            slot.share(&reference);
        }
    }

    /// The stream came to its end: what waits is delivered, then the end signal; the switch follows in the same tick.
    pub(super) fn terminated(&mut self, key: SlotKey, termination: ProviderTermination, ending: Ending) {
        if self.failover.active() == Some(key) {
            self.flush(true);
        }
        self.counters.stream_interruptions += 1;
        let now = self.now;
        let was_active = self.failover.active() == Some(key);
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key) else { return };
        let cause = match &termination {
            ProviderTermination::Ended => {
                ProvisioningError::new(ErrorCode::StreamEnded, "watching the topology", "the stream came to its end")
            }
            ProviderTermination::Errored { reason } => reason.clone(),
        };
        slot.tracker.terminated(cause.with_provider(&slot.id));
        slot.stream = match ending {
            Ending::ByItself => {
                let pause = slot.backoff.pause(&mut self.jitter);
                StreamState::Idle { reopen_at: now + pause }
            }
            Ending::GivenUp => StreamState::Closing { pause: true },
        };
        let provider_id = slot.id.clone();
        let snapshot_hash = slot.tracker.has_snapshot().then(|| self.blocks.hash_without_excluded(&slot.members));
        let how = match &termination {
            ProviderTermination::Ended => "in good order".to_owned(),
            ProviderTermination::Errored { reason } => reason.brief(),
        };
        self.decide(format!("{provider_id}: its stream came to its end ({how})"));
        let position = self.next_position();
        self.events.push(ProvisioningEvent::StreamEnded(StreamEnded {
            position,
            at: now,
            provider_id,
            termination,
            snapshot_hash,
            was_active,
        }));
    }

    pub(super) fn reconfigure(&mut self, specs: &[SlotSpec]) {
        let now = self.now;
        if self.failover.active().is_some_and(|active| specs.iter().all(|spec| spec.key != active)) {
            // What waits would be lost with the provider that showed it.
            self.flush(true);
        }
        let mut old = std::mem::take(&mut self.slots);
        for spec in specs {
            let slot = match old.iter().position(|slot| slot.key == spec.key) {
                Some(index) => {
                    let mut slot = old.swap_remove(index);
                    slot.priority = spec.priority;
                    slot
                }
                None => {
                    self.decide(format!("{} is in force, priority {}", spec.id, spec.priority));
                    Slot::new(spec, self.failover.policy(), now)
                }
            };
            self.slots.push(slot);
        }
        for slot in old {
            self.decide(format!("{} is no longer in force", slot.id));
            self.failover.forget(slot.key);
            if matches!(slot.stream, StreamState::Open { .. }) {
                self.streams.push(StreamCommand::Close { key: slot.key, generation: slot.generation });
            }
        }
    }

    pub(super) fn block(
        &mut self,
        node: NodeId,
        source: BlockSource,
        reason: String,
        lasting: Option<Duration>,
    ) -> Result<(), ProvisioningError> {
        let known =
            self.active().and_then(|slot| slot.members.get(&node)).or_else(|| self.remote.announced().get(&node));
        let incarnation = known.map(|node| node.incarnation());
        let until = lasting.map(|lasting| self.now + lasting);
        let entry = BlockedNode { node, incarnation, source, reason: reason.into(), since: self.now, until };
        self.blocks.block(entry)
    }

    /// Brings everything in line with what the tick's input and the time have made true.
    pub(super) fn settle(&mut self) {
        self.give_up_silent_streams();
        self.assess();
        self.review_blocks();
        self.select();
        self.report_pin();
        if self.active_changed && self.draining {
            self.counters.refused_while_draining += 1;
        }
        self.flush(false);
        if self.active_changed && !self.draining && !self.snapshot_delivered {
            self.counters.coalesced += 1;
        }
        if let Some(slot) = self.active() {
            self.confirmed_at = slot.tracker.last_refresh();
        }
        self.recover();
        self.warn_remoting();
        self.tell_remoting();
        self.tell_blocks();
        self.set_gate(self.judge_gate());
        self.tend_streams();
    }

    pub(super) fn assess(&mut self) {
        let now = self.now;
        let mut changes = Vec::new();
        for slot in &mut self.slots {
            let policy = self.failover.policy();
            if let Some(from) = slot.tracker.assess(now, policy) {
                changes.push((slot.id.clone(), from, slot.tracker.health(), slot.tracker.cause(now, policy)));
            }
        }
        for (provider_id, from, to, cause) in changes {
            let why = cause.as_ref().map_or_else(|| "refreshed".to_owned(), ProvisioningError::brief);
            self.decide(format!("{provider_id}: {from} -> {to} ({why})"));
            let position = self.next_position();
            self.events.push(ProvisioningEvent::HealthChanged(HealthChanged {
                position,
                at: now,
                provider_id,
                from,
                to,
                cause,
            }));
        }
    }

    pub(super) fn review_blocks(&mut self) {
        let members = self.failover.active().and_then(|key| self.slots.iter().find(|slot| slot.key == key));
        let members = members.filter(|slot| slot.tracker.has_snapshot()).map(|slot| &slot.members);
        self.blocks.review(members, self.active_refreshed, self.now);
    }
}
