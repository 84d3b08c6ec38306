//! The gate: whether it says what the rest implies, and whether it moves at the right moment.

use super::{Checker, Model, ensure};
use crate::error::ErrorCode;
use crate::event::{PauseReason, PlacementGate, ProvisioningEvent};
use crate::provider::ProviderHealth;
use crate::testkit::harness::TracedTick;

/// The gate is what the published state implies.
pub(super) struct GateState;

fn implied(model: &Model, tick: &TracedTick) -> PlacementGate {
    let unavailable = |code| PlacementGate::Paused(PauseReason::Unavailable(code));
    if model.draining {
        return PlacementGate::Paused(PauseReason::Draining);
    }
    let Some(snapshot) = &tick.state.snapshot else { return unavailable(ErrorCode::NoSnapshot) };
    if model.slots.iter().all(|slot| slot.health == ProviderHealth::Unreachable) {
        return unavailable(ErrorCode::ProvisioningUnavailable);
    }
    if let (Some(refreshed), Some(limit)) = (model.confirmed_after(tick), model.policy().max_stale)
        && tick.at.since(refreshed) >= limit
    {
        return unavailable(ErrorCode::DataStale);
    }
    let followed = model.followed_after(tick);
    if followed.is_none() && matches!(model.gate, PlacementGate::Paused(PauseReason::Unavailable(_))) {
        return unavailable(ErrorCode::ProvisioningUnavailable);
    }
    if snapshot.members.is_empty() { PlacementGate::Paused(PauseReason::Empty) } else { PlacementGate::Open }
}

impl Checker for GateState {
    fn name(&self) -> &'static str {
        "gate state"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let expected = implied(model, tick);
        ensure!(tick.state.gate == expected, "the gate is {} and should be {expected}", tick.state.gate);
        let readable = tick.state.latest_snapshot();
        let unavailable = matches!(expected, PlacementGate::Paused(PauseReason::Unavailable(_)));
        // The last snapshot stays readable while draining, if there ever was one.
        let exists = tick.state.snapshot.is_some();
        ensure!(
            readable.is_ok() == (!unavailable && exists),
            "the latest snapshot reads as {readable:?} while {expected}"
        );
        Ok(())
    }
}

/// Every change of the gate is delivered once; it closes before an empty snapshot, and opens only after a snapshot of the
/// same tick.
pub(super) struct GateOrder;

impl Checker for GateOrder {
    fn name(&self) -> &'static str {
        "gate order"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let mut gate = model.gate;
        let mut snapshot = false;
        for event in &tick.events {
            match event {
                ProvisioningEvent::GateChanged(change) => {
                    ensure!(change.gate != gate, "{} repeats the gate", change.position);
                    ensure!(
                        gate != PlacementGate::Paused(PauseReason::Draining),
                        "{} ends the draining",
                        change.position
                    );
                    ensure!(!change.gate.is_open() || snapshot, "{} opens without a snapshot", change.position);
                    gate = change.gate;
                }
                ProvisioningEvent::Snapshot(delivery) => {
                    let empty = delivery.snapshot.members.is_empty();
                    ensure!(!(empty && gate.is_open()), "{} is empty and open", delivery.snapshot.position);
                    snapshot = true;
                }
                _ => {}
            }
        }
        ensure!(tick.state.gate == gate, "the gate published is {}, the one delivered {gate}", tick.state.gate);
        Ok(())
    }
}
