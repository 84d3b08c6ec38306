//! Bugs planted between the hub and the checkers, to show that each checker reports what it is there for.

use std::sync::Arc;

use super::model::Model;
use super::registrations::{Place, RegistrationAct};
use super::shell::{Outcomes, TracedTick};
use super::streams::StreamAct;
use crate::clock::Timestamp;
use crate::event::*;
use crate::health::ProviderHealth;
use crate::hub::{Published, StreamCommand};
use crate::service::registrar::Step;
use crate::testkit::{BridgeKind, Recorded, node};
use crate::topology::{BlockedNodes, Members, Position, ProviderSnapshot, TopologyDiff};

macro_rules! planted_bugs {
    ($($(#[$doc:meta])* $name:ident: $checker:literal;)*) => {
        /// A bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum PlantedBug {
            $($(#[$doc])* $name,)*
        }

        impl PlantedBug {
            pub(super) const ALL: &'static [PlantedBug] = &[$(PlantedBug::$name,)*];

            /// The checker that is there for it.
            pub(super) fn checker(self) -> &'static str {
                match self { $(PlantedBug::$name => $checker,)* }
            }
        }
    };
}

planted_bugs! {
    DropDelivery: "sequence";
    RepeatNumber: "sequence";
    NewEpoch: "sequence";
    WrongStamp: "sequence";
    BridgesSwapped: "bridge order";
    CallLost: "bridge order";
    CallTwice: "bridge order";
    LeasesLost: "leases";
    TokenTooLow: "leases";
    CountWrong: "bookkeeping";
    WrongHash: "snapshot content";
    WrongInvalidates: "snapshot content";
    WrongDiff: "snapshot content";
    BlockListForgotten: "snapshot content";
    InventedMember: "snapshot content";
    SnapshotLost: "last known good";
    SnapshotEmptied: "last known good";
    SnapshotAgain: "needless snapshot";
    SnapshotTooSoon: "coalescing";
    SnapshotWithheld: "coalescing";
    LossNotHeld: "mass loss";
    LeaveHeldTooSoon: "held leaves";
    LeaveHeldTooLong: "held leaves";
    GateStaysOpen: "gate state";
    GateRepeated: "gate order";
    GateOpensFirst: "gate order";
    JoinWhileDegraded: "joins and leaves";
    LeaveHeld: "joins and leaves";
    JoinLost: "joins and leaves";
    WarningLost: "stale warning";
    BlockedLost: "blocks";
    UnblockedBySwitch: "blocks";
    EntryLost: "blocks";
    WrongFrom: "one active";
    SwitchWithoutSnapshot: "one active";
    TwoActive: "one active";
    FailbackTooSoon: "restraint";
    GuardIgnored: "switch guard";
    ReplacedByOthers: "switch guard";
    SwitchMissed: "promptness";
    SnapshotWhileDraining: "draining";
    JoinWhileDraining: "draining";
    SilenceOverlooked: "provider health";
    HealthUntold: "provider health";
    OpenedTwice: "streams";
    OpenedTooSoon: "streams";
    SilentStreamKept: "streams";
    EndUntold: "end signals";
    EndWithWrongHash: "end signals";
    NodeForgotten: "liveness";
    ReportLost: "lanes";
    ErrorLost: "lanes";
    TwoStreams: "lanes";
    CommandUnanswered: "orders";
    CommandsRefused: "orders";
    GateOpenWhileDraining: "orders";
    CallbackAfterStop: "orders";
    EndUnheard: "orders";
    LeaveLost: "registration";
    LeavesThoughWanted: "registration";
    RetiresTooSoon: "registration";
    JoinsWhileLeaving: "registration";
    AsksWithoutEnd: "registration";
    RenewedAsItWas: "registration";
    RegistrationMissing: "registration";
    RegistrationLeftBehind: "registration";
}

impl PlantedBug {
    /// Spoils the tick, if it gives the occasion.
    pub(super) fn spoil(self, model: &Model, tick: &mut TracedTick) {
        use PlantedBug::*;
        match self {
            DropDelivery => _ = (tick.events.len() > 2).then(|| tick.events.remove(1)),
            RepeatNumber => edit_snapshot(tick, |delivery, snapshot| {
                snapshot.position.seq_no -= 1;
                _ = delivery;
            }),
            NewEpoch => edit_snapshot(tick, |_, snapshot| snapshot.position.epoch += 1),
            WrongStamp => edit_snapshot(tick, |_, snapshot| snapshot.at = crate::Timestamp::from_millis(0)),
            BridgesSwapped => tick.calls.reverse(),
            CallLost => _ = tick.calls.pop(),
            CallTwice => {
                if let Some(call) = tick.calls.last().cloned() {
                    tick.calls.push(call);
                }
            }
            LeasesLost => tick.calls.retain(|call| !matches!(call.event, ProvisioningEvent::LeasesPublished(_))),
            TokenTooLow => {
                for call in &mut tick.calls {
                    if let ProvisioningEvent::LeasesPublished(update) = &mut call.event {
                        let low = |lease: &Lease| Lease { token: Position { epoch: 0, seq_no: 1 }, ..lease.clone() };
                        update.leases = update.leases.iter().map(low).collect();
                    }
                }
            }
            CountWrong => edit_state(tick, |state| Arc::make_mut(&mut state.metrics).snapshots += 1),
            WrongHash => edit_snapshot(tick, |_, snapshot| snapshot.hash ^= 1),
            WrongInvalidates => edit_snapshot(tick, |delivery, _| delivery.invalidates = Some(1)),
            WrongDiff => edit_snapshot(tick, |delivery, _| {
                if !delivery.diff.is_empty() {
                    delivery.diff = Arc::new(TopologyDiff::default());
                }
            }),
            BlockListForgotten => edit_snapshot(tick, |_, snapshot| snapshot.blocked = BlockedNodes::default()),
            InventedMember => edit_snapshot(tick, |_, snapshot| {
                snapshot.members.insert(Arc::new(node("ghost")));
                snapshot.hash = snapshot.members.hash();
            }),
            SnapshotLost if model.delivered.is_some() && model.gate != PlacementGate::Open => {
                edit_state(tick, |state| state.snapshot = None);
            }
            SnapshotEmptied if model.slots.iter().all(|slot| slot.health == ProviderHealth::Unreachable) => {
                edit_state(tick, |state| {
                    if let Some(snapshot) = &mut state.snapshot {
                        Arc::make_mut(snapshot).members = Members::new();
                    }
                });
            }
            SnapshotAgain | SnapshotWhileDraining => {
                let occasion = match self {
                    SnapshotWhileDraining => model.draining,
                    _ => model.gate.is_open() && !model.draining,
                };
                if let Some(snapshot) = tick.state.snapshot.clone().filter(|_| occasion) {
                    let delivery = SnapshotDelivery { snapshot, diff: Arc::default(), invalidates: None };
                    tick.events.push(ProvisioningEvent::Snapshot(delivery));
                }
            }
            SnapshotTooSoon => {
                if let (Some(before), Some(slot)) = (&model.delivered, model.slot(model.followed))
                    && model.visible(&slot.shown).hash() != before.hash
                    && !slot.shown.is_empty()
                    && !before.members.is_empty()
                    && tick.at < before.at + model.settings.coalesce
                    && !model.draining
                {
                    let mut snapshot = (**before).clone();
                    snapshot.members = model.visible(&slot.shown);
                    snapshot.hash = snapshot.members.hash();
                    let snapshot = Arc::new(snapshot);
                    let delivery = SnapshotDelivery { snapshot, diff: Arc::default(), invalidates: None };
                    tick.events = vec![ProvisioningEvent::Snapshot(delivery)];
                }
            }
            SnapshotWithheld => {
                let differs = model
                    .delivered
                    .as_ref()
                    .is_some_and(|before| tick.state.snapshot.as_ref().is_some_and(|after| after.hash != before.hash));
                if differs && model.gate.is_open() && !is_switch(tick) {
                    tick.events.retain(|event| !matches!(event, ProvisioningEvent::Snapshot(_)));
                    let before = model.delivered.clone();
                    edit_state(tick, |state| state.snapshot = before);
                }
            }
            LossNotHeld => {
                if let (Some(before), Some(slot)) = (&model.delivered, model.slot(model.followed))
                    && model.policy().mass_loss_share.is_some()
                    && tick.events.iter().any(|event| {
                        matches!(event, ProvisioningEvent::Warning(warning)
                            if warning.error.doing() == "following the provider")
                    })
                {
                    let mut snapshot = (**before).clone();
                    snapshot.members = model.visible(&slot.shown);
                    let delivery =
                        SnapshotDelivery { snapshot: Arc::new(snapshot), diff: Arc::default(), invalidates: None };
                    tick.events.push(ProvisioningEvent::Snapshot(delivery));
                }
            }
            LeaveHeldTooSoon | LeaveHeldTooLong => {
                let too_long = self == LeaveHeldTooLong;
                let occasion = if too_long { model.flaps.gone > 0 } else { model.flaps.away.is_empty() };
                if occasion && model.policy().mass_loss_share.is_none() && !is_switch(tick) {
                    edit_snapshot(tick, |delivery, snapshot| {
                        let left = delivery.diff.left().first().filter(|node| !snapshot.members.contains(node.id()));
                        let left = left.cloned();
                        left.into_iter().for_each(|node| _ = snapshot.members.insert(node));
                    });
                }
            }
            GateStaysOpen => edit_state(tick, |state| {
                if model.delivered.is_some() {
                    state.gate = PlacementGate::Open;
                }
            }),
            GateRepeated => {
                let gates = tick.events.iter().filter(|event| matches!(event, ProvisioningEvent::GateChanged(_)));
                let again: Vec<_> = gates.cloned().collect();
                tick.events.extend(again);
            }
            GateOpensFirst => {
                let opens = |event: &ProvisioningEvent| matches!(event, ProvisioningEvent::GateChanged(change) if change.gate.is_open());
                tick.events.sort_by_key(|event| !opens(event));
            }
            JoinWhileDegraded | JoinWhileDraining => {
                let degraded = model.followed_after(tick).is_some_and(|slot| slot.health != ProviderHealth::Healthy);
                let occasion = if self == JoinWhileDraining { model.draining } else { degraded && !model.draining };
                if occasion {
                    push_remote(tick, RemoteTopologyChange::Join, "ghost");
                }
            }
            LeaveHeld => retain_remote(tick, RemoteTopologyChange::Leave),
            JoinLost => retain_remote(tick, RemoteTopologyChange::Join),
            WarningLost => tick.events.retain(|event| !matches!(event, ProvisioningEvent::RemotingWarning(_))),
            BlockedLost => retain_remote(tick, RemoteTopologyChange::Blocked),
            UnblockedBySwitch => {
                let switched = is_switch(tick);
                let blocked = model.blocked().next().map(|(node, _)| node.to_string());
                if let Some(blocked) = blocked.filter(|_| switched) {
                    push_remote(tick, RemoteTopologyChange::Unblocked, &blocked);
                    push_remote(tick, RemoteTopologyChange::Blocked, &blocked);
                }
            }
            EntryLost => edit_state(tick, |state| state.blocked = BlockedNodes::default()),
            WrongFrom => {
                for event in &mut tick.events {
                    if let ProvisioningEvent::ProviderChanged(change) = event {
                        change.from = Some(change.to.clone());
                    }
                }
            }
            SwitchWithoutSnapshot => {
                let switched = is_switch(tick);
                tick.events.retain(|event| !switched || !matches!(event, ProvisioningEvent::Snapshot(_)));
            }
            TwoActive => edit_state(tick, |state| state.providers.iter_mut().for_each(|status| status.active = true)),
            FailbackTooSoon => relabel(tick, SwitchReason::StreamEnded, SwitchReason::PriorityRestored),
            GuardIgnored => {
                let empties = tick.state.snapshot.as_ref().is_some_and(|after| after.is_empty());
                if empties && model.delivered.as_ref().is_some_and(|before| !before.is_empty()) {
                    relabel(tick, SwitchReason::ManualOverride, SwitchReason::StreamEnded);
                }
            }
            ReplacedByOthers => {
                let others = |before: &Members, after: &Members| before.iter().all(|node| !after.contains(node.id()));
                let after = tick.state.snapshot.as_ref().filter(|after| !after.is_empty());
                let after = after.filter(|_| model.slot(model.followed).is_some_and(|slot| slot.ended));
                if let (Some(before), Some(after)) = (&model.delivered, after)
                    && others(&before.members, &after.members)
                {
                    relabel(tick, SwitchReason::ManualOverride, SwitchReason::StreamEnded);
                }
            }
            SwitchMissed if model.followed.is_some() => {
                tick.events.retain(|event| !matches!(event, ProvisioningEvent::ProviderChanged(_)));
            }
            SilenceOverlooked => edit_state(tick, |state| {
                for status in &mut state.providers {
                    if status.health == ProviderHealth::Unreachable {
                        status.health = ProviderHealth::Degraded;
                    }
                }
            }),
            HealthUntold => {
                let healthy = |event: &ProvisioningEvent| matches!(event, ProvisioningEvent::HealthChanged(change) if change.to != ProviderHealth::Healthy);
                tick.events.retain(|event| !healthy(event));
            }
            OpenedTwice => tick.streams.extend(tick.streams.clone()),
            OpenedTooSoon => {
                let ended = model.terminated.filter(|_| tick.streams.is_empty());
                tick.streams.extend(ended.map(|key| StreamCommand::Open { key, generation: 1_000 }));
            }
            SilentStreamKept => {
                let removed = |key: u64| model.removed.iter().any(|slot| slot.key == key);
                tick.streams.retain(|c| !matches!(c, StreamCommand::Close { key, .. } if !removed(*key)));
            }
            EndUntold => tick.events.retain(|event| !matches!(event, ProvisioningEvent::StreamEnded(_))),
            EndWithWrongHash => {
                for event in &mut tick.events {
                    if let ProvisioningEvent::StreamEnded(end) = event {
                        end.snapshot_hash = Some(1);
                    }
                }
            }
            _ => {}
        }
    }

    /// Spoils what the streams' threads did, if it gives the occasion.
    pub(super) fn spoil_streams(self, acts: &mut Vec<StreamAct>) {
        use crate::provider::{ProviderEvent, ProviderTermination};
        for act in acts.iter_mut() {
            match (self, act) {
                (PlantedBug::ReportLost, StreamAct::Taken { event: ProviderEvent::Snapshot { members, .. }, .. }) => {
                    members.insert(Arc::new(node("ghost")));
                }
                (PlantedBug::ErrorLost, StreamAct::Taken { event: event @ ProviderEvent::Heartbeat { .. }, .. }) => {
                    let reason = crate::ProvisioningError::new(crate::ErrorCode::Timeout, "testing", "planted");
                    *event = ProviderEvent::Terminated(ProviderTermination::Errored { reason });
                }
                _ => {}
            }
        }
        if self == PlantedBug::TwoStreams {
            let opened = acts.iter().find_map(|act| match act {
                StreamAct::Opened { key, generation, refused } => {
                    Some(StreamAct::Opened { key: *key, generation: generation + 1, refused: *refused })
                }
                _ => None,
            });
            acts.extend(opened);
        }
    }

    /// Spoils what became of commands, and the gate as the host reads it.
    pub(super) fn spoil_orders(self, outcomes: &mut Outcomes, gate: &mut PlacementGate) {
        match self {
            PlantedBug::CommandUnanswered => outcomes.answered = 0,
            PlantedBug::CommandsRefused => outcomes.refused += outcomes.given / 2,
            PlantedBug::GateOpenWhileDraining => *gate = PlacementGate::Open,
            _ => {}
        }
    }

    /// Spoils what happened to registrations.
    pub(super) fn spoil_registrations(self, acts: &mut Vec<(Timestamp, RegistrationAct)>) {
        use RegistrationAct::{Answered, Asked, Described, Executed};
        let leaves = |step: Step| matches!(step, Step::Leave | Step::Retire);
        match self {
            PlantedBug::LeaveLost => acts.retain(|(_, act)| match act {
                Asked { step, .. } | Executed { step, .. } | Answered { step, .. } => !leaves(*step),
                _ => true,
            }),
            PlantedBug::LeavesThoughWanted | PlantedBug::RetiresTooSoon => {
                for (_, act) in acts {
                    if let Asked { step: step @ Step::Renew, .. } = act {
                        let leaves = self == PlantedBug::LeavesThoughWanted;
                        *step = if leaves { Step::Leave } else { Step::Retire };
                    }
                }
            }
            PlantedBug::JoinsWhileLeaving => {
                // As if the one that leaves were told to come back meanwhile.
                let asked = acts.iter().find_map(|(at, act)| match act {
                    Asked { id, step: Step::Leave } => Some((*at, Asked { id: *id, step: Step::Join })),
                    _ => None,
                });
                acts.extend(asked);
            }
            PlantedBug::RenewedAsItWas => {
                // As if nobody were told of it.
                if let Some(next) = acts.iter().position(|(_, act)| matches!(act, Asked { step: Step::Renew, .. })) {
                    acts.insert(next, (acts[next].0, Described));
                }
            }
            PlantedBug::AsksWithoutEnd => {
                let asked = acts.iter().find(|(_, act)| matches!(act, Asked { step: Step::Join, .. })).cloned();
                acts.extend(asked.iter().flat_map(|act| std::iter::repeat_n(act.clone(), 100)));
            }
            _ => {}
        }
    }

    /// Spoils what the backends hold at the end of a run.
    pub(super) fn spoil_held(self, held: &mut Vec<Place>) {
        match self {
            PlantedBug::RegistrationMissing => held.clear(),
            PlantedBug::RegistrationLeftBehind => held.push(Place { backend: 9, agent: 9 }),
            _ => {}
        }
    }

    /// Spoils whether everyone was told that the hub has stopped, and how many callbacks came after that.
    pub(super) fn spoil_stop(self, told: &mut bool, calls: &mut usize) {
        *told &= self != PlantedBug::EndUnheard;
        *calls += usize::from(self == PlantedBug::CallbackAfterStop);
    }

    /// Spoils the state at the end of a run.
    pub(super) fn spoil_end(self, state: &Arc<Published>) -> Arc<Published> {
        let mut state = (**state).clone();
        if self == PlantedBug::NodeForgotten {
            state.announced = Members::new();
        }
        Arc::new(state)
    }
}

fn edit_snapshot(tick: &mut TracedTick, edit: impl Fn(&mut SnapshotDelivery, &mut ProviderSnapshot)) {
    for event in &mut tick.events {
        if let ProvisioningEvent::Snapshot(delivery) = event {
            let mut snapshot = (*delivery.snapshot).clone();
            edit(delivery, &mut snapshot);
            delivery.snapshot = Arc::new(snapshot);
        }
    }
}

fn is_switch(tick: &TracedTick) -> bool {
    tick.events.iter().any(|event| matches!(event, ProvisioningEvent::ProviderChanged(_)))
}

fn edit_state(tick: &mut TracedTick, edit: impl FnOnce(&mut Published)) {
    let mut state = (*tick.state).clone();
    edit(&mut state);
    tick.state = Arc::new(state);
}

fn retain_remote(tick: &mut TracedTick, without: RemoteTopologyChange) {
    tick.events.retain(|event| !matches!(event, ProvisioningEvent::RemoteTopology(change) if change.event == without));
}

fn push_remote(tick: &mut TracedTick, event: RemoteTopologyChange, id: &str) {
    let node = Arc::new(node(id));
    let event = RemoteTopologyEvent {
        position: tick.state.position,
        at: tick.at,
        event,
        node_id: node.id().clone(),
        node: Some(node),
        provider_id: None,
        snapshot_hash: 0,
    };
    let event = ProvisioningEvent::RemoteTopology(event);
    tick.calls.push(Recorded { bridge: BridgeKind::Remoting, event: event.clone(), panicked: false });
    tick.events.push(event);
}

fn relabel(tick: &mut TracedTick, from: SwitchReason, to: SwitchReason) {
    for event in &mut tick.events {
        if let ProvisioningEvent::ProviderChanged(change) = event
            && change.reason == from
        {
            change.reason = to;
        }
    }
}
