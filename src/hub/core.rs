//! The hub's rules: what one input leads to.
//!
//! Decides what is delivered, in which order and with which position: dedup by hash and block list, coalescing, the
//! switch and what surrounds it, last known good, the gate, what Remoting is told. Health and selection are
//! [`crate::failover`]'s, the streams' lives [`super::streams`]'. No clock, no threads, no I/O.

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
use crate::failover::{Candidate, Choice, FailoverController, Guard, SlotKey};
use crate::provider::{ProviderEvent, ProviderHealth, ProviderId, ProviderTermination};
use crate::topology::{
    BlockSource, BlockedNode, ClusterNode, Members, NodeId, Position, ProviderSnapshot, Revision, TopologyDiff,
};

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
    epoch: u64,
    seq_no: u64,
    pub(super) now: Timestamp,
    pub(super) slots: Vec<Slot>,
    pub(super) failover: FailoverController,
    pub(super) jitter: Jitter,
    pub(super) blocks: BlockList,
    pub(super) remote: RemoteView,
    pub(super) delivered: Option<Arc<ProviderSnapshot>>,
    /// The members that the provider followed showed then, those included that a failure detector has taken out.
    accepted: Members,
    /// When the provider followed last confirmed its data; also after it was removed.
    confirmed_at: Option<Timestamp>,
    /// The provider followed last, also after it was removed.
    last_active: Option<ProviderId>,
    /// Until then a changed snapshot waits, unless it is urgent.
    window_until: Timestamp,
    pub(super) gate: PlacementGate,
    /// Remoting has been warned that the topology may be stale.
    warned: bool,
    /// The switch that is held back by the guard, so that it is reported once.
    reported_hold: Option<(SlotKey, Guard)>,
    mass_loss_reported: bool,
    /// It was reported that another provider serves than the pinned one.
    pin_reported: bool,
    pub(super) draining: bool,
    pub(super) counters: Counters,
    pub(super) decisions: DecisionLog,
    pub(super) events: Vec<ProvisioningEvent>,
    pub(super) streams: Vec<StreamCommand>,
    discarded: Option<Members>,
    /// A snapshot went out in this tick.
    snapshot_delivered: bool,
    /// What it changed, and from which set.
    delivered_diff: Option<(Members, Arc<TopologyDiff>)>,
    /// When the provider followed reported the oldest change that is not delivered yet.
    changed_at: Option<Timestamp>,
    /// The same, of what this tick delivers.
    waited_since: Option<Timestamp>,
    /// The set of the provider followed changed in this tick.
    active_changed: bool,
    /// The provider followed was refreshed in this tick.
    active_refreshed: bool,
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

    fn next_position(&mut self) -> Position {
        self.seq_no += 1;
        self.counters.deliveries += 1;
        self.position()
    }

    fn delivered_hash(&self) -> u64 {
        self.delivered.as_ref().map_or(0, |snapshot| snapshot.hash)
    }

    fn advance(&mut self, at: Timestamp) {
        if at.since(self.now) > STANDSTILL {
            for slot in &mut self.slots {
                slot.tracker.restart_windows(at);
                slot.restart_window(at);
            }
            self.decide(format!("the process stood still for {:?}: silence windows begin again", at.since(self.now)));
        }
        self.now = self.now.max(at);
    }

    fn finish(&mut self, reply: Result<(), ProvisioningError>) -> Tick {
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

    fn take(&mut self, input: Input) -> Result<(), ProvisioningError> {
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

    fn take_event(&mut self, key: SlotKey, generation: u64, event: ProviderEvent) {
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

    fn reconfigure(&mut self, specs: &[SlotSpec]) {
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

    fn block(
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
    fn settle(&mut self) {
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

    fn review_blocks(&mut self) {
        let members = self.failover.active().and_then(|key| self.slots.iter().find(|slot| slot.key == key));
        let members = members.filter(|slot| slot.tracker.has_snapshot()).map(|slot| &slot.members);
        self.blocks.review(members, self.active_refreshed, self.now);
    }

    fn select(&mut self) {
        if self.draining {
            return;
        }
        // Every switch makes its target the active one, so the loop ends; the bound is for safety.
        for _ in 0..=self.slots.len() {
            let choice = self.failover.choose(self.now, &self.candidates(), &mut |key| self.guard(key));
            match choice {
                Choice::Stay => {
                    self.reported_hold = None;
                    return;
                }
                Choice::Held { to, guard } => return self.report_hold(to, guard),
                Choice::Switch { to, reason } => self.switch(to, reason),
            }
        }
    }

    fn switch(&mut self, to: SlotKey, reason: SwitchReason) {
        self.failover.switched(to, self.now);
        let Some(slot) = self.active() else { return };
        let (to, snapshot_hash) = (slot.id.clone(), self.blocks.hash_without_excluded(&slot.members));
        let from = self.last_active.replace(to.clone());
        if reason != SwitchReason::Initial {
            self.counters.failovers += 1;
        }
        let origin = from.as_ref().map_or("nothing", |id| id.as_str()).to_owned();
        self.decide(format!("switched from {origin} to {to}: {reason}"));
        let (position, at) = (self.next_position(), self.now);
        let change = ProviderChanged { position, at, from, to, reason, snapshot_hash };
        self.events.push(ProvisioningEvent::ProviderChanged(change));
        self.deliver();
    }

    /// Warns once when another provider serves than the pinned one.
    fn report_pin(&mut self) {
        let (pinned, active) = (self.failover.pinned(), self.failover.active());
        if self.draining || pinned.is_none() || active.is_none() || pinned == active {
            self.pin_reported = false;
            return;
        }
        if std::mem::replace(&mut self.pin_reported, true) {
            return;
        }
        let detail = "the pinned provider cannot serve; another does until it is back";
        let mut error = ProvisioningError::new(ErrorCode::ProviderUnhealthy, "holding on to a pinned provider", detail);
        if let Some(slot) = self.slots.iter().find(|slot| Some(slot.key) == pinned) {
            error = error.with_provider(&slot.id);
        }
        let warning = self.warning(error);
        self.events.push(warning);
    }

    /// Whether the provider's set may replace the present one.
    fn guard(&self, key: SlotKey) -> Guard {
        let Some(present) = &self.delivered else { return Guard::Clear };
        let Some(slot) = self.slots.iter().find(|slot| slot.key == key) else { return Guard::Clear };
        if present.members.is_empty() || slot.members.hash() == present.hash {
            return Guard::Clear;
        }
        if slot.members.is_empty() {
            return Guard::Held;
        }
        let policy = self.failover.policy();
        let until = slot.shrunk_at + policy.guard_hold;
        if self.now >= until || !lacks(&slot.members, &present.members, policy.guard_share) {
            return Guard::Clear;
        }
        Guard::HeldUntil(until)
    }

    fn report_hold(&mut self, to: SlotKey, guard: Guard) {
        if self.reported_hold.is_some_and(|(reported, _)| reported == to) {
            self.reported_hold = Some((to, guard));
            return;
        }
        self.reported_hold = Some((to, guard));
        self.counters.guard_holds += 1;
        let Some(slot) = self.slots.iter().find(|slot| slot.key == to) else { return };
        let detail = match guard {
            Guard::Held => "it shows no members at all, and the present provider may come back".to_owned(),
            _ => format!("it shows {} members and lacks too many of the present ones", slot.members.len()),
        };
        let id = slot.id.clone();
        let error = ProvisioningError::new(ErrorCode::MassLossHeld, "switching to a standby", detail);
        let error = error.with_provider(&id);
        self.decide(format!("the switch to {id} is held back: {}", error.brief()));
        let warning = self.warning(error);
        self.events.push(warning);
    }

    /// Whether the provider followed shows something else than what was delivered.
    fn pending(&self) -> bool {
        let (Some(slot), Some(delivered)) = (self.active(), &self.delivered) else { return false };
        !self.draining
            && (self.blocks.hash_without_excluded(&slot.members) != delivered.hash || self.blocks_differ(delivered))
    }

    fn blocks_differ(&self, delivered: &ProviderSnapshot) -> bool {
        let key = |entry: &BlockedNode| (entry.node.clone(), entry.source);
        let entries = self.blocks.entries();
        !Arc::ptr_eq(entries, &delivered.blocked) && !entries.iter().map(key).eq(delivered.blocked.iter().map(key))
    }

    /// Delivers what is pending, if it is due: a lone change at once, others at the end of the window; what changes the
    /// block list, or pauses or opens the gate, never waits.
    fn flush(&mut self, at_once: bool) {
        if !self.pending() {
            self.mass_loss_reported = false;
            self.changed_at = None;
            return;
        }
        let (Some(slot), Some(delivered)) = (self.active(), &self.delivered) else { return };
        let empty = self.blocks.without_excluded(&slot.members).is_empty();
        let blocks_differ = self.blocks_differ(delivered);
        let urgent = blocks_differ || empty != delivered.members.is_empty();
        let due = at_once || urgent || self.now >= self.window_until;
        if due && !self.holds_mass_loss() {
            self.deliver();
        } else if blocks_differ {
            self.deliver_again();
        }
    }

    /// Whether the set of the provider followed lost so much at once that it is held back.
    fn holds_mass_loss(&mut self) -> bool {
        let policy = self.failover.policy();
        let (Some(slot), Some(delivered), Some(share)) = (self.active(), &self.delivered, policy.mass_loss_share)
        else {
            return false;
        };
        let held = self.now < slot.shrunk_at + policy.guard_hold && lacks(&slot.members, &delivered.members, share);
        if held && !self.mass_loss_reported {
            let detail = format!("it shows {} members instead of {}", slot.members.len(), delivered.members.len());
            let error = ProvisioningError::new(ErrorCode::MassLossHeld, "following the provider", detail);
            let id = slot.id.clone();
            let error = error.with_provider(&id);
            self.counters.guard_holds += 1;
            self.decide(format!("what {id} shows is held back: {}", error.brief()));
            let warning = self.warning(error);
            self.events.push(warning);
        }
        self.mass_loss_reported = held;
        held
    }

    /// Delivers the topology that the provider followed shows.
    fn deliver(&mut self) {
        let Some(slot) = self.active() else { return };
        let (members, revision) = (slot.members.clone(), slot.revision.clone());
        self.accepted = members;
        self.deliver_accepted(revision);
        self.waited_since = self.changed_at.take();
    }

    /// Delivers what was delivered last once more, with the block list as it is now.
    fn deliver_again(&mut self) {
        let revision = self.delivered.as_ref().map(|snapshot| snapshot.revision.clone());
        self.deliver_accepted(revision.unwrap_or_default());
    }

    fn deliver_accepted(&mut self, revision: Revision) {
        let Some(slot) = self.active() else { return };
        let members = self.blocks.without_excluded(&self.accepted);
        let (provider_id, health) = (slot.id.clone(), slot.tracker.health());
        if members.is_empty() && self.gate.is_open() {
            // Placement pauses before it learns that nobody is left.
            self.set_gate(PlacementGate::Paused(PauseReason::Empty));
        }
        let (previous, invalidates) = match &self.delivered {
            Some(previous) => {
                let changed = previous.hash != members.hash();
                (previous.members.clone(), changed.then_some(previous.hash))
            }
            None => (Members::new(), None),
        };
        let diff = Arc::new(TopologyDiff::between(&previous, &members));
        let snapshot = Arc::new(ProviderSnapshot {
            provider_id,
            position: self.next_position(),
            hash: members.hash(),
            members,
            revision,
            blocked: Arc::clone(self.blocks.entries()),
            health,
            at: self.now,
        });
        for slot in &mut self.slots {
            slot.share(&snapshot.members);
        }
        self.counters.snapshots += 1;
        self.window_until = self.now + self.settings.coalesce;
        self.snapshot_delivered = true;
        self.delivered = Some(Arc::clone(&snapshot));
        self.delivered_diff = Some((previous, Arc::clone(&diff)));
        let delivery = SnapshotDelivery { snapshot, diff, invalidates };
        self.events.push(ProvisioningEvent::Snapshot(delivery));
    }

    /// Leaving the unavailable state is itself a delivery of the snapshot, whatever its hash.
    fn recover(&mut self) {
        let unavailable = matches!(self.gate, PlacementGate::Paused(PauseReason::Unavailable(_)));
        let stays =
            matches!(self.judge_gate(), PlacementGate::Paused(PauseReason::Unavailable(_) | PauseReason::Draining));
        if unavailable && !stays && !self.snapshot_delivered {
            if self.pending() && self.holds_mass_loss() {
                self.deliver_again();
            } else {
                self.deliver();
            }
        }
    }

    fn judge_gate(&self) -> PlacementGate {
        let unavailable = |code| PlacementGate::Paused(PauseReason::Unavailable(code));
        if self.draining {
            return PlacementGate::Paused(PauseReason::Draining);
        }
        let Some(delivered) = &self.delivered else { return unavailable(ErrorCode::NoSnapshot) };
        if self.slots.iter().all(|slot| slot.tracker.health() == ProviderHealth::Unreachable) {
            return unavailable(ErrorCode::ProvisioningUnavailable);
        }
        if let (Some(refreshed), Some(limit)) = (self.confirmed_at, self.failover.policy().max_stale)
            && self.now.since(refreshed) >= limit
        {
            return unavailable(ErrorCode::DataStale);
        }
        if self.active().is_none() && matches!(self.gate, PlacementGate::Paused(PauseReason::Unavailable(_))) {
            // What the removed provider showed does not come into force again.
            return unavailable(ErrorCode::ProvisioningUnavailable);
        }
        if delivered.members.is_empty() {
            return PlacementGate::Paused(PauseReason::Empty);
        }
        PlacementGate::Open
    }

    fn set_gate(&mut self, gate: PlacementGate) {
        if gate == self.gate {
            return;
        }
        self.decide(format!("placement: {} -> {gate}", self.gate));
        self.gate = gate;
        let (position, at) = (self.next_position(), self.now);
        self.events.push(ProvisioningEvent::GateChanged(GateChanged { position, at, gate }));
    }

    fn is_active_healthy(&self) -> bool {
        self.active().is_some_and(|slot| slot.tracker.health() == ProviderHealth::Healthy)
    }

    fn warn_remoting(&mut self) {
        let Some(slot) = self.active() else { return };
        let healthy = slot.tracker.health() == ProviderHealth::Healthy;
        if self.warned != healthy {
            return;
        }
        let provider_id = slot.id.clone();
        let degraded = if healthy { None } else { slot.tracker.cause(self.now, self.failover.policy()) };
        self.warned = !healthy;
        let (position, at) = (self.next_position(), self.now);
        let warning = RemotingWarning { position, at, provider_id, degraded };
        self.events.push(ProvisioningEvent::RemotingWarning(warning));
    }

    /// Tells Remoting who came and went. While draining it follows the provider itself, and only its losses.
    fn tell_remoting(&mut self) {
        let (changes, held_anew) = if self.draining {
            let Some(slot) = self.active() else { return };
            let members = self.blocks.without_excluded(&slot.members);
            if self.remote.matches(&members) {
                return;
            }
            (self.remote.shrink(&members, self.now), false)
        } else {
            let Some(delivered) = self.delivered.clone() else { return };
            let healthy = self.is_active_healthy();
            if self.remote.matches(&delivered.members) || (!healthy && !self.snapshot_delivered) {
                return;
            }
            // What a refresh has just dropped, but is still to be delivered as gone, was not confirmed by it.
            let shown = self.active().filter(|_| healthy).map(|slot| slot.members.clone()).unwrap_or_default();
            let known = self.delivered_diff.as_ref();
            (self.remote.follow(&delivered.members, &shown, known, self.now), self.snapshot_delivered)
        };
        if held_anew {
            self.counters.held_joins += changes.held as u64;
        }
        self.events.reserve(changes.left.len() + changes.joined.len());
        for node in changes.left {
            self.push_remote(RemoteTopologyChange::Leave, node.id().clone(), Some(node));
        }
        for node in changes.joined {
            self.push_remote(RemoteTopologyChange::Join, node.id().clone(), Some(node));
        }
    }

    /// Tells Remoting who is blocked and who no longer is; the latter not while draining.
    fn tell_blocks(&mut self) {
        let find = |hub: &Self, node: &NodeId| hub.delivered.as_ref().and_then(|s| s.members.get(node)).cloned();
        for id in self.blocks.newly_blocked() {
            let node = find(self, &id);
            self.push_remote(RemoteTopologyChange::Blocked, id, node);
        }
        if self.draining {
            return;
        }
        for id in self.blocks.newly_unblocked() {
            let node = find(self, &id);
            self.push_remote(RemoteTopologyChange::Unblocked, id, node);
        }
    }

    fn push_remote(&mut self, event: RemoteTopologyChange, node_id: NodeId, node: Option<Arc<ClusterNode>>) {
        let position = self.next_position();
        self.events.push(ProvisioningEvent::RemoteTopology(RemoteTopologyEvent {
            position,
            at: self.now,
            event,
            node_id,
            node,
            provider_id: self.last_active.clone(),
            snapshot_hash: self.delivered_hash(),
        }));
    }
}

/// Whether `set` lacks more than this share of `present`.
fn lacks(set: &Members, present: &Members, share: f64) -> bool {
    let diff = TopologyDiff::between(present, set);
    let lacking = diff.left().iter().filter(|node| !set.contains(node.id())).count();
    lacking as f64 > share * present.len() as f64
}
