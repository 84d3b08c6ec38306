//! What happened in a run, counted: a simulation that never reaches a state proves nothing about it.

use std::collections::BTreeSet;
use std::fmt;

use super::model::{BlockEnd, Model};
use super::registrations::RegistrationAct;
use super::shell::{Outcomes, TracedTick};
use super::streams::StreamAct;
use crate::error::ErrorCode;
use crate::event::{PauseReason, PlacementGate, ProvisioningEvent, RemoteTopologyChange, SwitchReason};
use crate::failover::SlotKey;
use crate::health::ProviderHealth;
use crate::hub::{Input, StreamCommand};
use crate::provider::ProviderEvent;
use crate::service::registrar::{RegistrationId, Step};
use crate::topology::{BlockSource, NodeId};

macro_rules! transitions {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Something that the simulation counts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Transition {
            $($(#[$doc])* $name,)*
        }

        impl Transition {
            /// Every one.
            pub const ALL: &'static [Transition] = &[$(Transition::$name,)*];

            /// What happened, in words.
            pub const fn text(self) -> &'static str {
                match self { $(Transition::$name => $text,)* }
            }
        }
    };
}

transitions! {
    /// The first provider is followed.
    Initial = "initial selection";
    /// The provider followed fell silent.
    SwitchTimeout = "switch: timeout";
    /// The provider followed was Degraded for too long, or had too many errors.
    SwitchHealthDegraded = "switch: health-degraded";
    /// The stream of the provider followed ended.
    SwitchStreamEnded = "switch: stream-ended";
    /// A pin.
    SwitchManualOverride = "switch: manual-override";
    /// Back to a better provider.
    Failback = "switch: priority-restored (failback)";
    /// The provider followed was removed.
    SwitchReconfigured = "switch: reconfigured";
    /// A standby that lacks too many members was held back.
    GuardHold = "guard: standby lacks too many";
    /// An empty standby was held back.
    GuardHoldEmpty = "guard: standby is empty";
    /// A standby that shows others than the provider followed was held back.
    GuardHoldOthers = "guard: standby shows others";
    /// A standby was found to show others than the provider followed.
    StandbyDiffers = "standby differs";
    /// A fallback that shows others was followed.
    FellBack = "switch to or from others by a fallback";
    /// A sudden loss within the provider followed was held back.
    MassLossHold = "guard: mass loss";
    /// The leave of a member that flaps was held.
    LeaveHeld = "leave held";
    /// A member whose leave was held came back.
    HeldLeaveBack = "held leave: back";
    /// A member whose leave was held was away for too long.
    HeldLeaveGone = "held leave: gone";
    /// A member whose leave was held was let go of by a switch, an end, draining, or because nobody else was left.
    HeldLeaveSeenThrough = "held leave: seen through";
    /// No provider was better than Unreachable.
    Unavailable = "unavailable";
    /// That came to an end.
    Recovery = "recovery";
    /// The data became too old.
    Stale = "data stale";
    /// The topology became empty.
    Empty = "empty";
    /// The topology was empty and no longer is.
    Refilled = "no longer empty";
    /// A join was held back.
    JoinHeld = "join held";
    /// A join that was held back was told.
    HeldJoinReleased = "held join released";
    /// A join that was held back was forgotten.
    HeldJoinDropped = "held join dropped";
    /// A node came back in another life.
    Restart = "node restarted";
    /// Draining began.
    Drain = "drain";
    /// A leave was told while draining.
    DrainWithLeave = "leave while draining";
    /// A change was refused while draining.
    DrainRefused = "change refused while draining";
    /// A reload came while the provider followed was not healthy.
    ReloadDuringFailover = "reload during failover";
    /// A reload removed the provider followed.
    ReloadRemovesActive = "reload removes the active";
    /// A switch happened while nodes were blocked.
    BlockAcrossFailover = "block across failover";
    /// A quarantine ended by the connection's return and a refresh.
    UnblockByReturn = "unblock by return";
    /// A quarantine ended because the node came back in another life.
    UnblockByNewLife = "unblock by new incarnation";
    /// A quarantine ended by a day of absence.
    UnblockByAbsence = "unblock by absence";
    /// An operator's block was lifted.
    UnblockByLift = "unblock by lift";
    /// A failure detector's exclusion expired.
    ExclusionExpired = "exclusion expired";
    /// The pinned provider became unreachable, and another serves.
    PinFallback = "pin fallback";
    /// The pinned provider came back.
    PinReturn = "pin return";
    /// The whole process stood still.
    Standstill = "standstill";
    /// A stream was given up or closed and did not end.
    StuckStream = "stuck stream";
    /// A stream was given up because it was silent.
    SilentStream = "silent stream given up";
    /// In cold standby a further provider began to watch.
    ColdOpen = "cold standby opens";
    /// In cold standby a provider that was no longer needed stopped to watch.
    ColdClose = "cold standby closes";
    /// A change was folded into a later delivery.
    Coalesced = "coalesced";
    /// A refresh changed nothing.
    Deduplicated = "deduplicated";
    /// An answer was doubted.
    Doubtful = "doubtful";
    /// A provider was Degraded because its data was overdue.
    Overdue = "overdue";
    /// An event of a stream that no longer counts was ignored.
    StaleEvent = "event of an old stream";
    /// Changes came before the stream's snapshot.
    ChangesFirst = "changes before snapshot";
    /// A bridge panicked.
    BridgePanic = "bridge panic";
    /// Leases were published in the tick of the snapshot that led to them.
    LeaseInTick = "lease with a snapshot";
    /// Leases were published in a tick of their own.
    LeaseAlone = "lease ordered alone";
    /// A provider was defined anew.
    Edit = "provider defined anew";
    /// The provider followed was defined anew.
    EditActive = "the active defined anew";
    /// The provider followed was removed, and nobody could be followed for the silence timeout.
    Unwatched = "unwatched";
    /// The gate waited before it opened again.
    GateFlap = "gate opens later: flapping";
    /// PlacementSupervisor panicked with the topology, and the gate closed.
    NotRecalculated = "not recalculated";
    /// PlacementSupervisor was given the topology again.
    Recalculated = "recalculated after a panic";
    /// The hub was inside a callback while others went on.
    Busy = "hub busy";
    /// A report waited because its lane was full.
    LaneFull = "lane full";
    /// Reports were folded into one.
    LaneFolded = "reports folded";
    /// A stream flooded and was made to wait.
    Flood = "stream floods";
    /// A stream's thread could not be started.
    ThreadRefused = "thread refused";
    /// A stream's thread ended without a word.
    ThreadDied = "thread ended without a word";
    /// A command was refused because too many waited.
    CommandRefused = "command refused: inbox full";
    /// Draining was ordered while the hub was inside a callback.
    DrainWhileBusy = "drain ordered while busy";
    /// The hub was told to stop.
    Stop = "stop";
    /// The hub was told to stop while it was inside a callback.
    StopWhileBusy = "stop ordered while busy";
    /// A command was told that the hub has stopped.
    CommandStopped = "command not carried out: stopped";
    /// The local node was registered.
    Joined = "registration: joined";
    /// A registration failed.
    JoinFailed = "registration: join failed";
    /// A registration was lost, and made again.
    JoinedAgain = "registration: lost";
    /// The local node was described anew.
    DescribedAnew = "registration: described anew";
    /// A renewal failed.
    RenewalFailed = "registration: renewal failed";
    /// The node was deregistered because its provider was removed, or while draining.
    Left = "registration: left";
    /// A deregistration failed.
    LeaveFailed = "registration: leave failed";
    /// A former definition's registration was retired.
    Retired = "registration: retired";
    /// A request was broken off.
    BrokenOff = "registration: broken off";
    /// A registration ended without a request, because another one holds its place or nothing was sent.
    EndedQuietly = "registration: ended quietly";
    /// A registration's worker could not be started.
    WorkerRefused = "registration: worker refused";
}

/// How often each transition happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transitions(Vec<u64>);

impl Default for Transitions {
    fn default() -> Self {
        Self(vec![0; Transition::ALL.len()])
    }
}

impl Transitions {
    /// How often that one happened.
    pub fn get(&self, transition: Transition) -> u64 {
        self.0.get(transition as usize).copied().unwrap_or(0)
    }

    /// Those that happened less often than that.
    pub fn rarer_than(&self, times: u64) -> Vec<Transition> {
        Transition::ALL.iter().copied().filter(|transition| self.get(*transition) < times).collect()
    }

    pub(super) fn add(&mut self, transition: Transition, times: u64) {
        self.0[transition as usize] += times;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }
}

impl fmt::Display for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for transition in Transition::ALL {
            writeln!(f, "{:<38}{:>12}", transition.text(), self.get(*transition))?;
        }
        Ok(())
    }
}

/// Recognises transitions in the ticks of a run.
#[derive(Default)]
pub(super) struct Counter {
    pub(super) counts: Transitions,
    held: BTreeSet<NodeId>,
    fell_back: Option<SlotKey>,
    coalesced: u64,
    deduplicated: u64,
    refused: u64,
    /// What the streams have said, and how much of it the hub has heard.
    said: u64,
    heard: u64,
    /// The registrations that have been left.
    left: BTreeSet<RegistrationId>,
}

impl Counter {
    /// Looks at a tick. `model`: before its output was folded in.
    pub(super) fn count(&mut self, model: &Model, tick: &TracedTick, stuck: bool) {
        self.count_input(model, tick);
        self.count_deliveries(model, tick);
        self.count_streams(model, tick, stuck);
        self.count_joins(model, tick);
        self.count_waits(model, tick);
        for (_, source, end) in &model.ended_blocks {
            let transition = match end {
                BlockEnd::Returned => Transition::UnblockByReturn,
                BlockEnd::NewLife => Transition::UnblockByNewLife,
                BlockEnd::Absent => Transition::UnblockByAbsence,
                BlockEnd::Lifted => Transition::UnblockByLift,
                BlockEnd::Time if *source == BlockSource::FailureDetector => Transition::ExclusionExpired,
                BlockEnd::Time => continue,
            };
            self.counts.add(transition, 1);
        }
        let flaps = &model.flaps;
        let switched = tick.events.iter().any(|event| matches!(event, ProvisioningEvent::ProviderChanged(_)));
        for (transition, times) in [
            (Transition::LeaveHeld, flaps.held),
            (Transition::HeldLeaveBack, flaps.back),
            (Transition::HeldLeaveGone, flaps.gone),
            (Transition::HeldLeaveSeenThrough, flaps.seen_through + if switched { flaps.away.len() as u64 } else { 0 }),
        ] {
            self.counts.add(transition, times);
        }
        let metrics = &tick.state.metrics;
        for (transition, last, now) in [
            (Transition::Coalesced, &mut self.coalesced, metrics.coalesced),
            (Transition::Deduplicated, &mut self.deduplicated, metrics.deduplicated),
            (Transition::DrainRefused, &mut self.refused, metrics.refused_while_draining),
        ] {
            self.counts.add(transition, now - std::mem::replace(last, now));
        }
    }

    /// Looks at what a stream's thread did.
    pub(super) fn count_stream(&mut self, act: &StreamAct) {
        match act {
            StreamAct::Full => self.counts.add(Transition::LaneFull, 1),
            StreamAct::Early => self.counts.add(Transition::Flood, 1),
            StreamAct::Opened { refused: true, .. } => self.counts.add(Transition::ThreadRefused, 1),
            StreamAct::Taken { .. } => self.said += 1,
            // What waits in the lane goes with it.
            StreamAct::Closed { .. } => self.said = self.heard,
            StreamAct::Opened { .. } | StreamAct::Ended { .. } => {}
        }
    }

    /// The hub has taken all that waited.
    pub(super) fn count_folded(&mut self) {
        self.counts.add(Transition::LaneFolded, self.said.saturating_sub(self.heard));
        (self.said, self.heard) = (0, 0);
    }

    /// Looks at what became of commands.
    pub(super) fn count_commands(&mut self, outcomes: Outcomes) {
        self.counts.add(Transition::CommandRefused, outcomes.refused as u64);
        self.counts.add(Transition::CommandStopped, outcomes.stopped as u64);
    }

    /// Looks at what happened to a registration.
    pub(super) fn count_registration(&mut self, act: &RegistrationAct) {
        use RegistrationAct::*;
        let transition = match act {
            WorkerRefused => Transition::WorkerRefused,
            Described => Transition::DescribedAnew,
            BrokenOff => Transition::BrokenOff,
            Answered { step: Step::Join, error: None, .. } => Transition::Joined,
            Answered { step: Step::Join, error: Some(_), .. } => Transition::JoinFailed,
            Answered { step: Step::Renew, error: Some(ErrorCode::RegistrationFailed), .. } => Transition::JoinedAgain,
            Answered { step: Step::Renew, error: Some(_), .. } => Transition::RenewalFailed,
            Answered { id, step: Step::Leave | Step::Retire, error } => {
                self.left.insert(*id);
                match (error, act) {
                    (Some(_), _) => Transition::LeaveFailed,
                    (None, Answered { step: Step::Retire, .. }) => Transition::Retired,
                    (None, _) => Transition::Left,
                }
            }
            Ended { id } if !self.left.remove(id) => Transition::EndedQuietly,
            _ => return,
        };
        self.counts.add(transition, 1);
    }

    fn count_input(&mut self, model: &Model, tick: &TracedTick) {
        self.heard += u64::from(matches!(tick.input, Some(Input::Event { .. })));
        if model.stood_still {
            self.counts.add(Transition::Standstill, 1);
        }
        if model.stale_event {
            self.counts.add(Transition::StaleEvent, 1);
        }
        match &tick.input {
            Some(Input::Event { event: ProviderEvent::Doubtful { .. }, .. }) if !model.stale_event => {
                self.counts.add(Transition::Doubtful, 1);
            }
            Some(Input::StreamClosed { .. }) if model.terminated.is_some() => {
                self.counts.add(Transition::ThreadDied, 1);
            }
            Some(Input::Drain) => self.counts.add(Transition::Drain, 1),
            Some(Input::PublishOwnership(_)) => self.counts.add(Transition::LeaseAlone, 1),
            Some(Input::Reconfigure(_)) => {
                self.counts.add(Transition::Edit, model.redefined.len() as u64);
                if model.redefined.iter().any(|(key, _)| Some(*key) == model.followed) {
                    self.counts.add(Transition::EditActive, 1);
                }
                if model.removed.iter().any(|slot| Some(&slot.id) == model.last_followed.as_ref()) {
                    self.counts.add(Transition::ReloadRemovesActive, 1);
                }
                let ill = |key| model.slot(key).is_some_and(|slot| slot.health != ProviderHealth::Healthy);
                if ill(model.followed) {
                    self.counts.add(Transition::ReloadDuringFailover, 1);
                }
            }
            _ => {}
        }
    }

    fn count_deliveries(&mut self, model: &Model, tick: &TracedTick) {
        let mut gate = model.gate;
        let snapshot = tick.events.iter().any(|event| matches!(event, ProvisioningEvent::Snapshot(_)));
        for event in &tick.events {
            match event {
                ProvisioningEvent::ProviderChanged(change) => {
                    self.counts.add(
                        match change.reason {
                            SwitchReason::Initial => Transition::Initial,
                            SwitchReason::Timeout => Transition::SwitchTimeout,
                            SwitchReason::HealthDegraded => Transition::SwitchHealthDegraded,
                            SwitchReason::StreamEnded => Transition::SwitchStreamEnded,
                            SwitchReason::ManualOverride => Transition::SwitchManualOverride,
                            SwitchReason::PriorityRestored => Transition::Failback,
                            SwitchReason::Reconfigured => Transition::SwitchReconfigured,
                        },
                        1,
                    );
                    if change.from.is_some() && model.blocked().next().is_some() {
                        self.counts.add(Transition::BlockAcrossFailover, 1);
                    }
                    let slot = model.slot_of(&change.to);
                    if let (Some(to), Some(before)) = (slot, &model.delivered)
                        && change.reason != SwitchReason::ManualOverride
                        && model.may_replace(to)
                        && !to.shown.is_empty()
                        && before.members.iter().all(|node| !to.shown.contains(node.id()))
                    {
                        self.counts.add(Transition::FellBack, 1);
                    }
                    let to = slot.map(|slot| slot.key);
                    if model.pinned.is_some() && model.pinned == model.followed {
                        self.fell_back = model.pinned;
                        self.counts.add(Transition::PinFallback, 1);
                    } else if to.is_some() && to == self.fell_back && to == model.pinned {
                        self.counts.add(Transition::PinReturn, 1);
                    }
                }
                ProvisioningEvent::GateChanged(change) => {
                    self.count_gate(gate, change.gate);
                    gate = change.gate;
                }
                ProvisioningEvent::Warning(warning) => match warning.error.code() {
                    ErrorCode::MassLossHeld if warning.error.doing() == "following the provider" => {
                        self.counts.add(Transition::MassLossHold, 1);
                    }
                    ErrorCode::MassLossHeld if warning.error.detail().contains("no members") => {
                        self.counts.add(Transition::GuardHoldEmpty, 1);
                    }
                    ErrorCode::MassLossHeld => self.counts.add(Transition::GuardHold, 1),
                    ErrorCode::StandbyDiffers if warning.error.doing() == "watching a standby" => {
                        self.counts.add(Transition::StandbyDiffers, 1);
                    }
                    ErrorCode::StandbyDiffers => self.counts.add(Transition::GuardHoldOthers, 1),
                    ErrorCode::BridgePanicked => self.counts.add(Transition::BridgePanic, 1),
                    _ => {}
                },
                ProvisioningEvent::HealthChanged(change) => {
                    let cause = change.cause.as_ref().map(|cause| cause.code());
                    if cause == Some(ErrorCode::DataOverdue) {
                        self.counts.add(Transition::Overdue, 1);
                    }
                }
                ProvisioningEvent::LeasesPublished(_) if snapshot => self.counts.add(Transition::LeaseInTick, 1),
                _ => {}
            }
        }
        let malformed = |status: &crate::hub::ProviderStatus| {
            status.cause.as_ref().is_some_and(|cause| cause.code() == ErrorCode::MalformedAnswer)
        };
        let changes = matches!(&tick.input, Some(Input::Event { event: ProviderEvent::Changes { .. }, .. }));
        if changes && !model.stale_event && tick.state.providers.iter().any(malformed) {
            self.counts.add(Transition::ChangesFirst, 1);
        }
    }

    fn count_gate(&mut self, from: PlacementGate, to: PlacementGate) {
        use PauseReason::{Empty, Unavailable};
        use PlacementGate::Paused;
        match to {
            Paused(Unavailable(ErrorCode::ProvisioningUnavailable)) => self.counts.add(Transition::Unavailable, 1),
            Paused(Unavailable(ErrorCode::DataStale)) => self.counts.add(Transition::Stale, 1),
            Paused(Empty) => self.counts.add(Transition::Empty, 1),
            Paused(PauseReason::NotRecalculated) => self.counts.add(Transition::NotRecalculated, 1),
            _ => {}
        }
        match (from, to) {
            (Paused(Unavailable(ErrorCode::ProvisioningUnavailable)), PlacementGate::Open | Paused(Empty)) => {
                self.counts.add(Transition::Recovery, 1);
            }
            (Paused(PauseReason::NotRecalculated), PlacementGate::Open) => {
                self.counts.add(Transition::Recalculated, 1);
            }
            (Paused(Empty), PlacementGate::Open) => self.counts.add(Transition::Refilled, 1),
            _ => {}
        }
    }

    fn count_streams(&mut self, model: &Model, tick: &TracedTick, stuck: bool) {
        for command in &tick.streams {
            match command {
                StreamCommand::Open { key, .. } => {
                    let active = model.followed_after(tick).map(|slot| slot.key);
                    if !model.is_hot() && active.is_some_and(|active| active != *key) {
                        self.counts.add(Transition::ColdOpen, 1);
                    }
                }
                StreamCommand::Close { key, .. } => {
                    if stuck {
                        self.counts.add(Transition::StuckStream, 1);
                    }
                    let Some(slot) = model.slot(Some(*key)) else { continue };
                    let ended = |event: &ProvisioningEvent| matches!(event, ProvisioningEvent::StreamEnded(end) if end.provider_id == slot.id);
                    let transition = match tick.events.iter().any(ended) {
                        true => Transition::SilentStream,
                        false => Transition::ColdClose,
                    };
                    self.counts.add(transition, 1);
                }
            }
        }
    }

    fn count_waits(&mut self, model: &Model, tick: &TracedTick) {
        if model.flaps() && !tick.state.gate.is_open() && !model.gate.is_open() {
            self.counts.add(Transition::GateFlap, 1);
        }
        let closed = PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::ProvisioningUnavailable));
        if model.is_unwatched() && model.gate != closed && tick.state.gate == closed {
            self.counts.add(Transition::Unwatched, 1);
        }
    }

    fn count_joins(&mut self, model: &Model, tick: &TracedTick) {
        let mut left = BTreeSet::new();
        for event in &tick.events {
            let ProvisioningEvent::RemoteTopology(change) = event else { continue };
            match change.event {
                RemoteTopologyChange::Leave => {
                    left.insert(&change.node_id);
                    if model.draining {
                        self.counts.add(Transition::DrainWithLeave, 1);
                    }
                }
                RemoteTopologyChange::Join => {
                    if left.contains(&change.node_id) {
                        self.counts.add(Transition::Restart, 1);
                    }
                    if self.held.remove(&change.node_id) {
                        self.counts.add(Transition::HeldJoinReleased, 1);
                    }
                }
                _ => {}
            }
        }
        let Some(snapshot) = tick.state.snapshot.as_ref().filter(|_| !tick.events.is_empty()) else { return };
        let before = self.held.len();
        self.held.retain(|id| snapshot.members.contains(id));
        self.counts.add(Transition::HeldJoinDropped, (before - self.held.len()) as u64);
        for node in snapshot.members.iter().filter(|node| !tick.state.announced.contains(node.id())) {
            if self.held.insert(node.id().clone()) {
                self.counts.add(Transition::JoinHeld, 1);
            }
        }
    }
}
