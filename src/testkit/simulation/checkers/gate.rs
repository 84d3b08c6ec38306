//! The gate: whether it says what the rest implies, and whether it moves at the right moment.

use super::{Checker, Model, ensure};
use crate::error::ErrorCode;
use crate::event::{PauseReason, PlacementGate, ProvisioningEvent};
use crate::health::ProviderHealth;
use crate::testkit::simulation::shell::TracedTick;

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
    let unavailable_before = matches!(model.gate, PlacementGate::Paused(PauseReason::Unavailable(_)));
    if followed.is_none() && (unavailable_before || model.is_unwatched()) {
        return unavailable(ErrorCode::ProvisioningUnavailable);
    }
    if snapshot.members.is_empty() {
        return PlacementGate::Paused(PauseReason::Empty);
    }
    if !model.knows_owners_after(tick) {
        return PlacementGate::Paused(PauseReason::NotRecalculated);
    }
    let opened = tick.events.iter().any(|event| matches!(event, ProvisioningEvent::GateChanged(g) if g.gate.is_open()));
    let closed = tick.events.iter().rev().find_map(|event| match event {
        ProvisioningEvent::GateChanged(change) if !change.gate.is_open() => Some(change.gate),
        _ => None,
    });
    // A gate that flaps is never closed for that: it only stays so.
    let before = closed.unwrap_or(model.gate);
    if !before.is_open() && model.flaps() && !opened { before } else { PlacementGate::Open }
}

/// Whether a confirmed empty answer of the provider followed is held back, which pauses placement although members stay
/// delivered. `None`: it may be, as long as the window is not over.
fn holds_nobody(model: &Model, tick: &TracedTick) -> Option<bool> {
    let followed = model.followed_after(tick).filter(|_| model.policy().mass_loss_share.is_some());
    let Some(slot) = followed.filter(|slot| model.visible(&slot.shown).is_empty()) else { return Some(false) };
    let waits = model.delivered.as_ref().is_some_and(|before| tick.at < before.at + model.settings.coalesce);
    (!waits).then_some(tick.at < slot.lost_at + model.policy().guard_hold)
}

impl Checker for GateState {
    fn name(&self) -> &'static str {
        "gate state"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let mut expected = implied(model, tick);
        let empty = PlacementGate::Paused(PauseReason::Empty);
        let has_members = matches!(expected, PlacementGate::Open | PlacementGate::Paused(PauseReason::NotRecalculated));
        if has_members && holds_nobody(model, tick).unwrap_or(tick.state.gate == empty) {
            expected = empty;
        }
        ensure!(tick.state.gate == expected, "the gate is {} and should be {expected}", tick.state.gate);
        let readable = tick.state.latest_snapshot(tick.state.gate);
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

/// Every change of the gate is delivered once; it closes before an empty snapshot, and opens after the snapshots of its
/// tick, when PlacementSupervisor has recalculated from them.
pub(super) struct GateOrder;

impl Checker for GateOrder {
    fn name(&self) -> &'static str {
        "gate order"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let mut gate = model.gate;
        let snapshots =
            |events: &[ProvisioningEvent]| events.iter().any(|event| matches!(event, ProvisioningEvent::Snapshot(_)));
        for (number, event) in tick.events.iter().enumerate() {
            match event {
                ProvisioningEvent::GateChanged(change) => {
                    ensure!(change.gate != gate, "{} repeats the gate", change.position);
                    ensure!(
                        gate != PlacementGate::Paused(PauseReason::Draining),
                        "{} ends the draining",
                        change.position
                    );
                    let early = snapshots(&tick.events[number..]) || !model.knows_owners_after(tick);
                    ensure!(!change.gate.is_open() || !early, "{} opens before ownership is known", change.position);
                    gate = change.gate;
                }
                ProvisioningEvent::Snapshot(delivery) => {
                    let empty = delivery.snapshot.members.is_empty();
                    ensure!(!(empty && gate.is_open()), "{} is empty and open", delivery.snapshot.position);
                }
                _ => {}
            }
        }
        ensure!(tick.state.gate == gate, "the gate published is {}, the one delivered {gate}", tick.state.gate);
        Ok(())
    }
}
