//! Order and bookkeeping: positions, who is called with what and when, leases, counts.

use super::super::placement;
use super::{Checker, Model, ensure};
use crate::bridge::Deduplicator;
use crate::error::ErrorCode;
use crate::event::{OwnershipChange, ProvisioningEvent, SwitchReason};
use crate::hub::Input;
use crate::testkit::simulation::shell::TracedTick;
use crate::testkit::{BridgeKind, Recorded};
use crate::topology::Position;

/// The numbers rise by one without gaps, and the epoch is constant.
#[derive(Default)]
pub(super) struct Sequence(Option<Position>);

impl Checker for Sequence {
    fn name(&self) -> &'static str {
        "sequence"
    }

    fn check(&mut self, _: &Model, tick: &TracedTick) -> Result<(), String> {
        for event in &tick.events {
            let position = event.position();
            let last = self.0.unwrap_or(Position { epoch: position.epoch, seq_no: 0 });
            let expected = Position { seq_no: last.seq_no + 1, ..last };
            ensure!(position == expected, "{position} instead of {expected}");
            ensure!(event.at() == tick.at, "{position} is stamped {:?} instead of {:?}", event.at(), tick.at);
            self.0 = Some(position);
        }
        if let Some(last) = self.0 {
            ensure!(tick.state.position == last, "published {} after {last}", tick.state.position);
        }
        Ok(())
    }
}

/// PlacementSupervisor before PartitionManager before Remoting within a tick; each is called with every delivery that is
/// for it, once, in rising order.
#[derive(Default)]
pub(super) struct BridgeOrder([Deduplicator; 3]);

fn is_for(bridge: BridgeKind, event: &ProvisioningEvent) -> bool {
    use ProvisioningEvent::*;
    match bridge {
        BridgeKind::PlacementSupervisor => {
            matches!(event, ProviderChanged(_) | Snapshot(_) | GateChanged(_) | StreamEnded(_))
        }
        BridgeKind::PartitionManager => {
            matches!(event, ProviderChanged(_) | Snapshot(_) | GateChanged(_) | StreamEnded(_) | LeasesPublished(_))
        }
        BridgeKind::Remoting => {
            matches!(event, RemoteTopology(_) | RemotingWarning(_) | GateChanged(_) | StreamEnded(_))
        }
    }
}

impl Checker for BridgeOrder {
    fn name(&self) -> &'static str {
        "bridge order"
    }

    fn check(&mut self, _: &Model, tick: &TracedTick) -> Result<(), String> {
        let in_order = tick.calls.windows(2).all(|pair| pair[0].bridge <= pair[1].bridge);
        ensure!(in_order, "a bridge was called after one that comes later");
        let bridges = [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting];
        for (bridge, seen) in bridges.into_iter().zip(&mut self.0) {
            let calls = || tick.calls.iter().filter(move |call| call.bridge == bridge);
            for Recorded { event, .. } in calls() {
                ensure!(seen.fresh(event.position()), "{bridge:?} would drop {}", event.position());
            }
            let expected = tick.events.iter().filter(|event| is_for(bridge, event)).map(ProvisioningEvent::position);
            let called = calls().map(|call| call.event.position());
            ensure!(expected.eq(called), "{bridge:?} was not called with exactly what is for it");
        }
        Ok(())
    }
}

/// What PlacementSupervisor orders in a tick is published to PartitionManager in that tick; tokens rise.
#[derive(Default)]
pub(super) struct Leases {
    token: Position,
    panics: u64,
}

impl Checker for Leases {
    fn name(&self) -> &'static str {
        "leases"
    }

    fn check(&mut self, _: &Model, tick: &TracedTick) -> Result<(), String> {
        let panics = std::mem::replace(&mut self.panics, tick.state.metrics.placement_supervisor.panics);
        let panicked = self.panics != panics;
        let mut expected: Vec<Vec<OwnershipChange>> = Vec::new();
        if let Some(Input::PublishOwnership(changes)) = &tick.input {
            expected.push(changes.clone());
        }
        for call in tick.calls.iter().filter(|call| call.bridge == BridgeKind::PlacementSupervisor) {
            if let ProvisioningEvent::Snapshot(delivery) = &call.event {
                let changes = placement(delivery);
                expected.extend((!changes.is_empty()).then_some(changes));
            }
        }
        let mut expected = expected.into_iter();
        for call in tick.calls.iter().filter(|call| call.bridge == BridgeKind::PartitionManager) {
            let ProvisioningEvent::LeasesPublished(update) = &call.event else { continue };
            for lease in update.leases.iter() {
                ensure!(lease.token == update.position, "token {} in delivery {}", lease.token, update.position);
            }
            ensure!(update.position > self.token, "token {} after {}", update.position, self.token);
            self.token = update.position;
            let leased: Vec<OwnershipChange> = update
                .leases
                .iter()
                .map(|lease| OwnershipChange { key: lease.key.clone(), owner: lease.owner.clone() })
                .collect();
            // What a panicking callback would have ordered is not there.
            let found =
                if panicked { expected.any(|changes| changes == leased) } else { expected.next() == Some(leased) };
            ensure!(found, "leases that nobody ordered at {}", update.position);
        }
        ensure!(panicked || expected.next().is_none(), "ordered ownership changes were not published in their tick");
        Ok(())
    }
}

/// The counters tell what happened, and nothing that is kept grows without bound.
#[derive(Default)]
pub(super) struct Bookkeeping {
    snapshots: u64,
    failovers: u64,
    interruptions: u64,
    panics: u64,
}

impl Checker for Bookkeeping {
    fn name(&self) -> &'static str {
        "bookkeeping"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        for event in &tick.events {
            match event {
                ProvisioningEvent::Snapshot(_) => self.snapshots += 1,
                ProvisioningEvent::ProviderChanged(change) => {
                    self.failovers += u64::from(change.reason != SwitchReason::Initial);
                }
                ProvisioningEvent::StreamEnded(_) => self.interruptions += 1,
                ProvisioningEvent::Warning(warning) => {
                    self.panics += u64::from(warning.error.code() == ErrorCode::BridgePanicked);
                }
                _ => {}
            }
        }
        let metrics = &tick.state.metrics;
        let panics = [&metrics.placement_supervisor, &metrics.partition_manager, &metrics.remoting];
        let counted = [
            ("deliveries", metrics.deliveries, tick.state.position.seq_no),
            ("snapshots", metrics.snapshots, self.snapshots),
            ("failovers", metrics.failovers, self.failovers),
            ("stream interruptions", metrics.stream_interruptions, self.interruptions),
            ("bridge panics", panics.iter().map(|bridge| bridge.panics).sum(), self.panics),
        ];
        for (what, counted, seen) in counted {
            ensure!(counted == seen, "{counted} {what} counted, {seen} seen");
        }
        let state = &tick.state;
        ensure!(state.decisions.len() <= 64, "{} decisions are kept", state.decisions.len());
        ensure!(state.departed.len() <= 1024, "{} departed nodes are kept", state.departed.len());
        let departed = state.departed.iter().find(|(id, _)| state.announced.contains(id));
        ensure!(departed.is_none(), "{departed:?} is told of and counted as departed");
        let ids = state.providers.iter().map(|status| &status.id);
        ensure!(ids.eq(model.slots.iter().map(|slot| &slot.id)), "the providers published are not those in force");
        Ok(())
    }
}
