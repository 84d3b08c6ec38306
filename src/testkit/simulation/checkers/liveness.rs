//! What must have come about some time after the last fault.

use super::super::model::{Model, Stream};
use super::ensure;
use crate::event::{PauseReason, PlacementGate};
use crate::health::ProviderHealth;
use crate::hub::Published;
use crate::topology::Members;

/// The name by which a failure is reported.
pub(in super::super) const LIVENESS: &str = "liveness";

/// The best provider is followed, what is delivered is the truth, the gate fits, nothing is held back any more.
pub(in super::super) fn check_liveness(model: &Model, state: &Published, truth: &Members) -> Result<(), String> {
    if model.draining {
        return Ok(());
    }
    let best =
        model.slots.iter().filter(|slot| slot.health == ProviderHealth::Healthy).max_by_key(|slot| model.rank(slot));
    let Some(best) = best else { return Err("no provider is healthy".into()) };
    let Some(active) = model.slot(model.followed) else { return Err("nobody is followed".into()) };
    match model.slot(model.pinned) {
        Some(pin) => ensure!(pin.key == active.key, "{} is pinned, and {} followed", pin.id, active.id),
        None => ensure!(model.rank(active) == model.rank(best), "{} is followed, and {} better", active.id, best.id),
    }
    let all_best = model.slots.iter().map(|slot| model.rank(slot)).max();
    ensure!(all_best == Some(model.rank(best)), "the best provider is not healthy");
    if model.is_hot() {
        let ill = model.slots.iter().find(|slot| slot.health != ProviderHealth::Healthy);
        ensure!(ill.is_none(), "{:?} is not healthy", ill.map(|slot| (&slot.id, slot.health, slot.stream)));
    }
    ensure!(matches!(active.stream, Stream::Open { .. }), "{} has no stream", active.id);
    let expected = model.visible(truth);
    let Some(snapshot) = &state.snapshot else { return Err("there is no snapshot".into()) };
    ensure!(snapshot.members == expected, "delivered {:?} instead of {expected:?}", snapshot.members);
    ensure!(state.announced == expected, "Remoting knows {:?} instead of {expected:?}", state.announced);
    let gate = if expected.is_empty() { PlacementGate::Paused(PauseReason::Empty) } else { PlacementGate::Open };
    ensure!(state.gate == gate, "the gate is {} instead of {gate}", state.gate);
    Ok(())
}
