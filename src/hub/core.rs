//! The hub's rules: what one input, or time alone, leads to.
//!
//! [`HubCore`] takes an input and brings everything in line with it, in the fixed order of [`Parts::settle`]. Each part
//! decides about its own state, which nobody else can touch: [`Slots`] what the providers are and show, [`BlockList`] who
//! is blocked, [`Selection`] who is followed, [`Outbox`] what goes out, [`RemoteView`] what Remoting is told, [`Gate`]
//! whether placements may be made. What a tick brings about is gathered in a [`Turn`]. No clock, no threads, no I/O.

use std::sync::Arc;
use std::time::Duration;

use super::blocks::BlockList;
use super::gate::{Gate, Outlook};
use super::outbox::{Due, Outbox};
use super::record::Record;
use super::remote::{self, Origin, RemoteView};
use super::selection::Selection;
use super::slot::{Heard, Slot, SlotSpec};
use super::slots::Slots;
use super::streams::Ending;
use super::timer::{HubTimer, SlotTimer, Timer, TimerTable};
use super::turn::{Report, Turn};
use super::{HubSettings, Input, LogLine, Published, Tick};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::*;
use crate::failover::{Choice, SlotKey, StandbyMode};
use crate::health::ProviderHealth;
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::provider::{ProviderEvent, ProviderTermination};
use crate::topology::{BlockSource, BlockedNode, NodeId, Position};

/// The hub looks at the time at least this often, so that a standstill of the process shows as a gap.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// A longer gap between two ticks means that the process stood still: nobody could have been heard meanwhile.
const STANDSTILL: Duration = Duration::from_secs(5);

/// The hub's state machine. Each tick is [`handle`](Self::handle) or [`handle_timers`](Self::handle_timers), then
/// [`conclude`](Self::conclude) once PlacementSupervisor has been told, and [`publish`](Self::publish) once everyone has.
#[derive(Debug)]
pub(crate) struct HubCore {
    now: Timestamp,
    parts: Parts,
    record: Record,
    timers: TimerTable,
}

/// The parts that decide.
#[derive(Debug)]
struct Parts {
    /// In member mode, the local node.
    local_node: Option<NodeId>,
    draining: bool,
    slots: Slots,
    blocks: BlockList,
    selection: Selection,
    outbox: Outbox,
    remote: RemoteView,
    gate: Gate,
}

impl HubCore {
    /// A hub without providers; the first [`Input::Reconfigure`] brings them. `epoch` must exceed that of every earlier
    /// start.
    pub(crate) fn new(settings: HubSettings, epoch: u64, now: Timestamp) -> Self {
        let HubSettings { failover, coalesce, block_absence, local_node, seed } = settings;
        let parts = Parts {
            local_node,
            draining: false,
            slots: Slots::new(failover.clone(), seed),
            blocks: BlockList::new(block_absence),
            selection: Selection::new(failover, now),
            outbox: Outbox::new(coalesce, now),
            remote: RemoteView::default(),
            gate: Gate::new(),
        };
        Self { now, parts, record: Record::new(epoch), timers: TimerTable::default() }
    }

    /// One tick: takes the input, stamped by its sender, and says what follows.
    pub(crate) fn handle(&mut self, input: Input, at: Timestamp) -> Tick {
        let gap = self.advance(at);
        let (parts, mut turn) = self.begin(gap);
        let reply = parts.take(input, &mut turn);
        parts.settle(&mut turn);
        turn.finish(reply)
    }

    /// One tick without input: what time alone brings about. Only when every input sent before `now` has been handled, so
    /// that a slow callback does not make the providers look silent.
    pub(crate) fn handle_timers(&mut self, now: Timestamp) -> Tick {
        let gap = self.advance(now);
        let expired = self.timers.expire(self.now);
        let (parts, mut turn) = self.begin(gap);
        for timer in expired {
            parts.fire(timer, &mut turn);
        }
        parts.settle(&mut turn);
        turn.finish(Ok(()))
    }

    /// Goes on with a tick when PlacementSupervisor has been told its deliveries: what follows for the gate. `recalculated`:
    /// whether it came to its end with the tick's snapshots; absent if there were none.
    pub(crate) fn conclude(&mut self, recalculated: Option<bool>) -> (Vec<ProvisioningEvent>, Vec<LogLine>) {
        let mut turn = Turn::begin(&mut self.record, self.now);
        self.parts.conclude(recalculated, &mut turn);
        turn.into_events()
    }

    /// The name of a provider in force.
    pub(crate) fn provider(&self, key: SlotKey) -> Option<&ProviderId> {
        self.parts.slots.get(key).map(Slot::id)
    }

    /// When time alone brings something about.
    pub(crate) fn next_timeout(&self) -> Timestamp {
        self.timers.next().unwrap_or(self.now + HOUSEKEEPING)
    }

    /// Gives ownership changes their fencing token, as a delivery of the present tick.
    pub(crate) fn lease(&mut self, changes: Vec<OwnershipChange>) -> ProvisioningEvent {
        leases(changes, self.record.next_position(), self.now, self.parts.outbox.hash())
    }

    /// A warning as a delivery of the present tick, and as a line of the log.
    pub(crate) fn warn(&mut self, error: ProvisioningError) -> (Vec<ProvisioningEvent>, Vec<LogLine>) {
        let mut turn = Turn::begin(&mut self.record, self.now);
        turn.warn(error);
        turn.into_events()
    }

    /// Enters what the rules count.
    pub(crate) fn report(&self, metrics: &mut ProvisioningMetrics) {
        metrics.position = self.record.position();
        metrics.deliveries = metrics.position.seq_no;
        metrics.guard_holds = 0;
        self.parts.slots.report(metrics);
        self.parts.selection.report(metrics);
        self.parts.outbox.report(metrics);
        self.parts.remote.report(metrics);
    }

    /// The state before the first tick.
    pub(crate) fn publish_first(&mut self) -> Published {
        let mut metrics = ProvisioningMetrics::default();
        self.report(&mut metrics);
        self.state(Arc::new(metrics))
    }

    /// Ends a tick, when everyone has been told: sets what can happen later, and gives the state as it is now, with its
    /// metrics.
    pub(crate) fn publish(&mut self, metrics: Arc<ProvisioningMetrics>) -> Published {
        self.arm();
        self.state(metrics)
    }

    fn state(&mut self, metrics: Arc<ProvisioningMetrics>) -> Published {
        let (followed, pinned) = (self.parts.selection.followed(), self.parts.selection.pinned());
        Published {
            position: self.record.position(),
            snapshot: self.parts.outbox.delivered().cloned(),
            gate: self.parts.gate.gate(),
            providers: self.parts.slots.statuses(followed, pinned),
            blocked: self.parts.blocks.entries().clone(),
            decisions: self.record.decisions(),
            announced: self.parts.remote.announced().clone(),
            departed: Arc::clone(self.parts.remote.departed()),
            confirmed_at: self.parts.selection.confirmed_at(),
            last_end: self.parts.slots.last_end().cloned(),
            metrics,
            stopped: false,
        }
    }

    /// Time passes. If so much passed at once that the process stood still, silence counts from here on; for how long it
    /// stood still.
    fn advance(&mut self, at: Timestamp) -> Option<Duration> {
        let gap = at.since(self.now);
        self.now = self.now.max(at);
        if gap <= STANDSTILL {
            return None;
        }
        self.parts.slots.restart_windows(self.now);
        // Before any of them runs out.
        self.arm();
        Some(gap)
    }

    /// A tick begins, after the process stood still for that long.
    fn begin(&mut self, stood_still: Option<Duration>) -> (&mut Parts, Turn<'_>) {
        let mut turn = Turn::begin(&mut self.record, self.now);
        if let Some(gap) = stood_still {
            turn.decide(format!("the process stood still for {gap:?}: silence windows begin again"));
        }
        (&mut self.parts, turn)
    }

    /// Sets every timer anew: the one place that says what can happen later. Those that are acted upon when they run out
    /// stay set until they have; the others are looked at by every tick, and only wake the hub.
    fn arm(&mut self) {
        let (now, timers, parts) = (self.now, &mut self.timers, &self.parts);
        let Parts { slots, selection, outbox, blocks, gate, .. } = parts;
        let ahead = |at: Option<Timestamp>| at.filter(|at| *at > now);
        let (policy, followed) = (slots.policy(), parts.followed());
        let own = timers.own();
        own.set(HubTimer::Standstill, Some(now + HOUSEKEEPING));
        own.set(HubTimer::Block, blocks.ends_at());
        own.set(HubTimer::Window, ahead(outbox.window_ends(followed, blocks)));
        own.set(HubTimer::Urgency, ahead(outbox.urgency_ends(followed, blocks)));
        let held = followed.filter(|_| outbox.is_holding());
        own.set(HubTimer::MassLoss, ahead(held.map(|slot| slot.shrunk_at() + policy.guard_hold)));
        own.set(HubTimer::HeldLeave, ahead(outbox.leaves_held_until()));
        own.set(HubTimer::Guard, ahead(selection.guard_ends()));
        own.set(HubTimer::InitialGrace, ahead(selection.initial_grace_ends()));
        own.set(HubTimer::Cooldown, ahead(selection.cooldown_ends()));
        own.set(HubTimer::Stale, ahead(selection.stale_at()));
        own.set(HubTimer::Unwatched, ahead(selection.unwatched_at()));
        own.set(HubTimer::Gate, ahead(gate.opens_at()));
        own.set(HubTimer::Recalculation, ahead(gate.retries_at()));
        timers.retain(|key| slots.get(key).is_some());
        for slot in slots.iter() {
            let timers = timers.of(slot.key());
            timers.set(SlotTimer::Silence, slot.tracker().silent_at(policy));
            timers.set(SlotTimer::Mute, slot.mute_at(policy));
            timers.set(SlotTimer::Overdue, slot.tracker().overdue_at());
            timers.set(SlotTimer::Hold, ahead(Some(selection.hold_ends(&slot.candidate(None)))));
            timers.set(SlotTimer::Reopen, ahead(slot.reopens_at()));
        }
    }
}

impl Parts {
    /// The provider followed.
    fn followed(&self) -> Option<&Slot> {
        self.selection.followed().and_then(|key| self.slots.get(key))
    }

    /// Takes the tick's input.
    fn take(&mut self, input: Input, turn: &mut Turn<'_>) -> Result<(), ProvisioningError> {
        match input {
            Input::Event { key, generation, event } => self.hear(key, generation, event, turn),
            Input::StreamClosed { key, generation } => {
                if let Some(termination) = self.slots.thread_ended(key, generation, turn.now()) {
                    self.end_stream(key, termination, Ending::ByItself, turn);
                }
            }
            Input::Reconfigure(specs) => self.reconfigure(&specs, turn),
            Input::Block { node, source, reason, lasting } => return self.block(node, source, reason, lasting, turn),
            Input::Lift { node, source } => return self.blocks.lift(&node, source),
            Input::Reconnected { node } => return self.blocks.reconnected(&node),
            Input::Pin(id) => return self.pin(&id, turn),
            Input::Unpin => {
                self.selection.pin(None);
                turn.decide("the pin is lifted".into());
            }
            Input::PublishOwnership(changes) => {
                let hash = self.outbox.hash();
                turn.deliver(|position, at| leases(changes, position, at, hash));
            }
            Input::Warn(error) => turn.warn(error),
            Input::Drain => {
                if !std::mem::replace(&mut self.draining, true) {
                    turn.decide("draining: no snapshot, join or switch from here on".into());
                }
            }
        }
        Ok(())
    }

    /// A timer has run out.
    fn fire(&mut self, timer: Timer, turn: &mut Turn<'_>) {
        match timer {
            Timer::Hub(HubTimer::Block) => self.blocks.expire(turn.now()),
            Timer::Of(key, SlotTimer::Silence) => self.slots.fall_silent(key),
            Timer::Of(key, SlotTimer::Overdue) => self.slots.become_overdue(key),
            Timer::Of(key, SlotTimer::Mute) => self.give_up(key, turn),
            // Whatever the time has made possible is found by settling.
            Timer::Hub(
                HubTimer::Standstill
                | HubTimer::Window
                | HubTimer::Urgency
                | HubTimer::MassLoss
                | HubTimer::HeldLeave
                | HubTimer::Guard
                | HubTimer::InitialGrace
                | HubTimer::Cooldown
                | HubTimer::Stale
                | HubTimer::Unwatched
                | HubTimer::Gate
                | HubTimer::Recalculation,
            )
            | Timer::Of(_, SlotTimer::Hold | SlotTimer::Reopen) => {}
        }
    }

    /// Brings everything in line with what the tick's input and the time have made true.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        self.slots.assess(turn);
        self.review_blocks(turn);
        self.review_leaves(turn);
        self.select(turn);
        self.selection.report_pin(&self.slots, self.draining, turn);
        self.flush(false, turn);
        self.compare_standbys(turn);
        self.outbox.count_change(self.draining, turn);
        self.selection.observe(&self.slots);
        self.recover(turn);
        self.warn_remoting(turn);
        self.tell_remoting(turn);
        self.tell_blocks(turn);
        self.gate.close(self.outlook(turn.now()), turn);
        self.tend_streams(turn);
    }

    /// PlacementSupervisor has been told what the tick delivers.
    fn conclude(&mut self, recalculated: Option<bool>, turn: &mut Turn<'_>) {
        self.gate.note_recalculation(recalculated, turn.now());
        self.gate.open(self.outlook(turn.now()), turn);
    }

    /// A stream reports.
    fn hear(&mut self, key: SlotKey, generation: u64, event: ProviderEvent, turn: &mut Turn<'_>) {
        let reference = self.outbox.delivered().map(|snapshot| snapshot.members.clone());
        if let ProviderEvent::Snapshot { members, .. } = &event {
            turn.discard(members.clone());
        }
        match self.slots.hear(key, generation, event, reference.as_ref(), turn.now()) {
            None | Some(Heard::NoNews) => {}
            Some(Heard::Refresh { changed, lost }) if self.selection.is_followed(key) => {
                let report = if changed { Report::Changed } else { Report::Confirmed };
                turn.note_report(report);
                self.outbox.note_report(report, turn.now());
                if let Some(slot) = self.slots.get(key).filter(|_| changed && !self.draining) {
                    self.outbox.note_losses(slot, lost, self.slots.policy(), turn);
                }
            }
            Some(Heard::Refresh { .. }) => {
                if let Some(reference) = reference {
                    self.slots.share(key, &reference);
                }
            }
            Some(Heard::End(termination)) => self.end_stream(key, termination, Ending::ByItself, turn),
        }
    }

    /// The stream came to its end: what waits is delivered, then the end signal; the switch follows in the same tick.
    fn end_stream(&mut self, key: SlotKey, termination: ProviderTermination, ending: Ending, turn: &mut Turn<'_>) {
        let was_followed = self.selection.is_followed(key);
        if was_followed {
            self.outbox.release_leaves();
            self.flush(true, turn);
        }
        let Some(slot) = self.slots.get(key) else { return };
        let hash = match self.outbox.delivered() {
            Some(delivered) if was_followed => Some(delivered.hash),
            _ => slot.tracker().has_snapshot().then(|| self.blocks.hash_without_excluded(slot.members())),
        };
        self.slots.end_stream(key, termination, ending, (hash, was_followed), turn);
    }

    /// The stream has said nothing for too long.
    fn give_up(&mut self, key: SlotKey, turn: &mut Turn<'_>) {
        let Some(generation) = self.slots.get(key).and_then(Slot::open_stream) else { return };
        let detail = format!("no sign of life for {:?}", self.slots.policy().silence_timeout);
        let reason = ProvisioningError::new(ErrorCode::StreamSilent, "watching the topology", detail);
        self.end_stream(key, ProviderTermination::Errored { reason }, Ending::GivenUp, turn);
        turn.order(super::StreamCommand::Close { key, generation });
    }

    fn reconfigure(&mut self, specs: &[SlotSpec], turn: &mut Turn<'_>) {
        let removed = self.selection.followed().filter(|followed| specs.iter().all(|spec| spec.key != *followed));
        if removed.is_some() {
            // What waits would be lost with the provider that showed it.
            self.outbox.release_leaves();
            self.flush(true, turn);
        }
        if let Some(slot) = removed.and_then(|key| self.slots.get(key)) {
            self.selection.note_removed(slot, turn.now());
        }
        for key in self.slots.reconfigure(specs, turn) {
            self.selection.forget(key);
        }
    }

    fn pin(&mut self, id: &ProviderId, turn: &mut Turn<'_>) -> Result<(), ProvisioningError> {
        let Some(slot) = self.slots.find(id) else {
            let known: Vec<_> = self.slots.iter().map(|slot| slot.id().as_str()).collect();
            let detail = format!("no provider of that name is in force, but only: {}", known.join(", "));
            let error = ProvisioningError::new(ErrorCode::UnknownProvider, "pinning a provider", detail);
            return Err(error.with_provider(id));
        };
        self.selection.pin(Some(slot.key()));
        turn.decide(format!("{id} is pinned"));
        Ok(())
    }

    fn block(
        &mut self,
        node: NodeId,
        source: BlockSource,
        reason: String,
        lasting: Option<Duration>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProvisioningError> {
        let shown = self.followed().and_then(|slot| slot.members().get(&node));
        let known = shown.or_else(|| self.remote.announced().get(&node));
        let (incarnation, since) = (known.map(|node| node.incarnation()), turn.now());
        let until = lasting.map(|lasting| since + lasting);
        self.blocks.block(BlockedNode { node, incarnation, source, reason: reason.into(), since, until })
    }

    fn review_blocks(&mut self, turn: &Turn<'_>) {
        if let Some(slot) = self.selection.followed().and_then(|key| self.slots.get(key)) {
            self.blocks.refreshed(slot.members(), turn.report(), turn.now());
        }
    }

    /// Ends what is held of leaves, where the time is over or nobody is to be held.
    fn review_leaves(&mut self, turn: &mut Turn<'_>) {
        match self.selection.followed().and_then(|key| self.slots.get(key)) {
            Some(slot) if !self.draining => self.outbox.review_leaves(slot, &self.blocks, turn),
            _ => self.outbox.release_leaves(),
        }
    }

    /// Follows another provider, if the choice is so.
    fn select(&mut self, turn: &mut Turn<'_>) {
        if self.draining {
            return;
        }
        // Every switch makes its target the one followed, so the loop ends; the bound is for safety.
        for _ in 0..=self.slots.len() {
            let present = self.outbox.delivered().map(|snapshot| &snapshot.members);
            match self.selection.choose(&self.slots, present, self.local_node.as_ref(), turn.now()) {
                Choice::Stay => return self.selection.note_stay(),
                Choice::Held { to, guard } => {
                    if let Some(slot) = self.slots.get(to) {
                        self.selection.note_hold(slot, guard, &self.slots, turn);
                    }
                    return;
                }
                Choice::Switch { to, reason } => {
                    let Some(slot) = self.slots.get(to) else { return };
                    let hash = self.blocks.hash_without_excluded(slot.members());
                    self.selection.switch(slot, reason, hash, turn);
                    self.outbox.release_leaves();
                    self.blocks.note_switch();
                    self.deliver(Due::Shown, turn);
                }
            }
        }
    }

    fn compare_standbys(&mut self, turn: &mut Turn<'_>) {
        let present = self.outbox.delivered().filter(|_| !self.draining).map(|snapshot| &snapshot.members);
        self.selection.report_differing(&self.slots, present, turn);
    }

    /// Delivers what is pending, if it is due. `last_chance`: it would be lost otherwise.
    fn flush(&mut self, last_chance: bool, turn: &mut Turn<'_>) {
        let Some(slot) = self.selection.followed().and_then(|key| self.slots.get(key)) else { return };
        if self.draining {
            return;
        }
        let due = self.outbox.due(slot, &self.blocks, last_chance, self.slots.policy(), turn);
        self.deliver(due, turn);
    }

    fn deliver(&mut self, due: Due, turn: &mut Turn<'_>) {
        let Some(slot) = self.selection.followed().and_then(|key| self.slots.get(key)) else { return };
        if due == Due::Nothing {
            return;
        }
        if self.gate.gate().is_open() && self.outbox.members_of(due, slot, &self.blocks).is_empty() {
            // Placement pauses before it learns that nobody is left.
            self.gate.close(Outlook::Empty, turn);
        }
        self.outbox.deliver(due, slot, &mut self.blocks, turn);
        if let Some(delivered) = self.outbox.delivered() {
            self.slots.share_all(&delivered.members);
        }
    }

    /// Delivers the snapshot whatever its hash, where that is due: leaving the unavailable state is itself a delivery, and a
    /// PlacementSupervisor that panicked when it was to recalculate is asked again.
    fn recover(&mut self, turn: &mut Turn<'_>) {
        if self.draining || turn.delivered().is_some() {
            return;
        }
        let Some(slot) = self.selection.followed().and_then(|key| self.slots.get(key)) else { return };
        if self.gate.recovers(self.outlook(turn.now()), turn.now()) {
            let held = self.outbox.holds_loss(slot, &self.blocks, self.slots.policy(), turn);
            self.deliver(if held { Due::Again } else { Due::Shown }, turn);
        } else if self.gate.retries_at().is_some_and(|at| turn.now() >= at) {
            self.deliver(Due::Again, turn);
        }
    }

    /// What the gate depends on.
    fn outlook(&self, now: Timestamp) -> Outlook {
        let is_over = |at: Option<Timestamp>| at.is_some_and(|at| now >= at);
        if self.draining {
            return Outlook::Draining;
        }
        let Some(delivered) = self.outbox.delivered() else { return Outlook::Unavailable(ErrorCode::NoSnapshot) };
        if !self.slots.any_reachable() {
            return Outlook::Unavailable(ErrorCode::ProvisioningUnavailable);
        }
        if is_over(self.selection.stale_at()) {
            return Outlook::Unavailable(ErrorCode::DataStale);
        }
        // What a removed provider showed is not watched any more, and once unavailable does not come into force again.
        let unwatched = self.gate.is_unavailable() || is_over(self.selection.unwatched_at());
        if self.selection.followed().is_none() && unwatched {
            return Outlook::Unavailable(ErrorCode::ProvisioningUnavailable);
        }
        let nobody = delivered.members.is_empty() || self.outbox.holds_nobody(self.followed(), &self.blocks);
        if nobody { Outlook::Empty } else { Outlook::Members }
    }

    fn warn_remoting(&mut self, turn: &mut Turn<'_>) {
        let Some(last) = self.selection.last_followed() else { return };
        let degraded = match self.followed() {
            Some(slot) if slot.health() == ProviderHealth::Healthy => None,
            Some(slot) => slot.tracker().cause().cloned(),
            None => {
                let detail = "it was removed, and no other provider has shown its members yet";
                let error = ProvisioningError::new(ErrorCode::ProviderUnhealthy, "watching the topology", detail);
                Some(
                    error
                        .with_provider(last)
                        .with_advice("none needed if others are defined: the first to answer is followed"),
                )
            }
        };
        self.remote.warn(last, degraded, turn);
    }

    fn origin(&self) -> Origin {
        Origin { provider_id: self.selection.last_followed().cloned(), snapshot_hash: self.outbox.hash() }
    }

    /// Tells Remoting who came and went. While draining it follows the provider itself, and only its losses.
    fn tell_remoting(&mut self, turn: &mut Turn<'_>) {
        let followed = self.selection.followed().and_then(|key| self.slots.get(key));
        let origin = self.origin();
        if self.draining {
            if let Some(slot) = followed {
                self.remote.tell_losses(&self.blocks.without_excluded(slot.members()), &origin, turn);
            }
            return;
        }
        let Some(delivered) = self.outbox.delivered() else { return };
        let healthy = followed.filter(|slot| slot.health() == ProviderHealth::Healthy);
        if healthy.is_some() || turn.delivered().is_some() {
            // What a refresh has just dropped, but is still to be delivered as gone, was not confirmed by it.
            let confirmed = healthy.map(|slot| slot.members().clone()).unwrap_or_default();
            self.remote.tell(&delivered.members, &confirmed, &origin, turn);
        }
    }

    /// Tells Remoting who is blocked and who no longer is, together with the snapshot that says so, where there is one; the
    /// latter not while draining.
    fn tell_blocks(&mut self, turn: &mut Turn<'_>) {
        let waits = !self.draining && self.selection.followed().is_some() && self.blocks.is_undelivered();
        if waits {
            return;
        }
        let origin = self.origin();
        let (blocked, unblocked) = self.blocks.announce(!self.draining);
        turn.reserve(blocked.len() + unblocked.len());
        let members = self.outbox.delivered().map(|snapshot| &snapshot.members);
        let changes = [(RemoteTopologyChange::Blocked, blocked), (RemoteTopologyChange::Unblocked, unblocked)];
        for (change, nodes) in changes {
            for id in nodes {
                let node = members.and_then(|members| members.get(&id)).cloned();
                remote::push(change, id, node, &origin, turn);
            }
        }
    }

    /// Opens the streams that are due, and in cold standby closes those that are not needed.
    fn tend_streams(&mut self, turn: &mut Turn<'_>) {
        let cold = self.slots.policy().standby == StandbyMode::Cold;
        let always = self.selection.followed().into_iter().chain(self.selection.pinned());
        let wanted = cold.then(|| self.slots.wanted_cold(always, self.local_node.as_ref()));
        self.slots.tend_streams(wanted.as_deref(), turn);
    }
}

fn leases(changes: Vec<OwnershipChange>, position: Position, at: Timestamp, snapshot_hash: u64) -> ProvisioningEvent {
    let lease = |change: OwnershipChange| Lease { key: change.key, owner: change.owner, token: position };
    let leases = changes.into_iter().map(lease).collect();
    ProvisioningEvent::LeasesPublished(LeaseUpdate { position, at, leases, snapshot_hash })
}
