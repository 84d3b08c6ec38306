//! What snapshots say, and when one is due.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::model::blocked_set_differs;
use super::{Checker, Model, ensure};
use crate::clock::Timestamp;
use crate::event::{PauseReason, PlacementGate, ProvisioningEvent, SnapshotDelivery};
use crate::failover::SlotKey;
use crate::testkit::simulation::shell::TracedTick;
use crate::topology::{BlockedNodes, Members, NodeId, ProviderSnapshot, TopologyDiff};

/// The snapshots of a tick, each with the one before it and whether it comes with a switch.
fn snapshots<'a>(
    model: &'a Model,
    tick: &'a TracedTick,
) -> impl Iterator<Item = (Option<&'a Arc<ProviderSnapshot>>, &'a SnapshotDelivery, bool)> {
    let mut previous = model.delivered.as_ref();
    let mut switched = false;
    tick.events.iter().filter_map(move |event| {
        let ProvisioningEvent::Snapshot(delivery) = event else {
            switched = matches!(event, ProvisioningEvent::ProviderChanged(_))
                || (switched && matches!(event, ProvisioningEvent::GateChanged(_)));
            return None;
        };
        let with_switch = std::mem::take(&mut switched);
        Some((previous.replace(&delivery.snapshot), delivery, with_switch))
    })
}

/// Whether `set` lacks more than this share of `present`, as ids.
pub(in super::super) fn lacks(set: &Members, present: &Members, share: f64) -> bool {
    let lacking = present.iter().filter(|node| !set.contains(node.id())).count();
    lacking as f64 > share * present.len() as f64
}

/// Whether what the tick delivers ends the unavailability that was before it.
fn recovers(model: &Model) -> bool {
    matches!(model.gate, PlacementGate::Paused(PauseReason::Unavailable(_)))
}

/// The hash fits the members, the diff leads from the last snapshot to this one, what is invalidated is the last one's
/// hash, the block list is in it, and the members are what the provider followed showed last.
pub(super) struct SnapshotContent;

impl Checker for SnapshotContent {
    fn name(&self) -> &'static str {
        "snapshot content"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        for (previous, delivery, _) in snapshots(model, tick) {
            let snapshot = &delivery.snapshot;
            let at = snapshot.position;
            let hash = snapshot.members.iter().fold(0u64, |hash, node| hash.wrapping_add(node.compute_hash()));
            ensure!(snapshot.hash == hash, "hash {:x} instead of {hash:x} at {at}", snapshot.hash);
            let none = Members::new();
            let before = previous.map_or(&none, |previous| &previous.members);
            let invalidates = previous.map(|previous| previous.hash).filter(|previous| *previous != hash);
            let claimed = delivery.invalidates;
            ensure!(claimed == invalidates, "invalidates {claimed:x?} instead of {invalidates:x?} at {at}");
            let after = apply(before, &delivery.diff);
            ensure!(after == snapshot.members, "the diff at {at} does not lead to its snapshot");
            let blocked = snapshot.blocked.iter().map(|entry| (entry.node.clone(), entry.source));
            ensure!(blocked.eq(model.blocked().cloned()), "the block list at {at} is not the one in force");
            // What a provider that is removed showed last goes out before it.
            let removed = model.removed.iter().find(|slot| slot.id == snapshot.provider_id);
            let Some(slot) = model.slot_of(&snapshot.provider_id).or(removed) else {
                return Err(format!("{} at {at} is not in force", snapshot.provider_id));
            };
            // While a loss is held back, what was delivered last may go out again with another block list.
            let again = model.policy().mass_loss_share.is_some() && model.visible(&model.accepted) == snapshot.members;
            let shown = again || model.visible(&model.counted(slot)) == snapshot.members;
            ensure!(shown, "{} does not show what went out at {at}", slot.id);
        }
        Ok(())
    }
}

fn apply(before: &Members, diff: &TopologyDiff) -> Members {
    let mut members = before.clone();
    for node in diff.left() {
        members.remove(node.id());
    }
    for node in diff.joined().iter().chain(diff.updated()) {
        members.insert(Arc::clone(node));
    }
    members
}

/// Once there is a snapshot there always is one, it is the last that was delivered, and it is empty only by a confirmed
/// answer of the provider followed or because a failure detector took everyone out.
#[derive(Default)]
pub(super) struct LastKnownGood(Option<Arc<ProviderSnapshot>>);

impl Checker for LastKnownGood {
    fn name(&self) -> &'static str {
        "last known good"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let published = tick.state.snapshot.as_ref();
        ensure!(self.0.is_none() || published.is_some(), "the snapshot is gone");
        let delivered = snapshots(model, tick).last().map(|(_, delivery, _)| &delivery.snapshot);
        let expected = delivered.or(self.0.as_ref());
        let same = expected.map(|snapshot| snapshot.position) == published.map(|snapshot| snapshot.position);
        ensure!(same, "what is published is not what was delivered last");
        if let (Some(before), Some(after)) = (&self.0, published)
            && !before.members.is_empty()
            && after.members.is_empty()
        {
            // What one that is removed showed last goes out before it is gone.
            let removed = model.removed.iter().find(|slot| slot.id == after.provider_id);
            let followed = removed.or(model.followed_after(tick));
            let confirmed = followed.is_some_and(|slot| slot.has_snapshot && model.visible(&slot.shown).is_empty());
            let confirmed = confirmed || model.visible(&before.members).is_empty();
            ensure!(confirmed, "the topology became empty without a confirmed answer");
        }
        self.0 = published.cloned();
        Ok(())
    }
}

/// A snapshot goes out only if its hash or block list differs from the last one's, on a switch, or on recovery.
pub(super) struct NeedlessSnapshot;

impl Checker for NeedlessSnapshot {
    fn name(&self) -> &'static str {
        "needless snapshot"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        for (previous, delivery, switched) in snapshots(model, tick) {
            let Some(previous) = previous else { continue };
            let snapshot = &delivery.snapshot;
            let differs = snapshot.hash != previous.hash || blocked_set_differs(snapshot, previous);
            let again = model.is_retry_due();
            ensure!(differs || switched || recovers(model) || again, "{} says nothing new", snapshot.position);
        }
        Ok(())
    }
}

/// Within a window after a snapshot only an urgent one goes out; what waited goes out when the window is over.
pub(super) struct Coalescing;

impl Checker for Coalescing {
    fn name(&self) -> &'static str {
        "coalescing"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let window = model.settings.coalesce;
        for (previous, delivery, switched) in snapshots(model, tick) {
            let Some(previous) = previous else { continue };
            let snapshot = &delivery.snapshot;
            let flips = snapshot.members.is_empty() != previous.members.is_empty();
            let urgent = (flips || blocked_set_differs(snapshot, previous)) && tick.at >= model.urgent_until;
            let urgent = urgent || switched || recovers(model) || model.is_retry_due();
            let removed = model.removed.iter().any(|slot| slot.id == snapshot.provider_id);
            let ends = model.terminated.is_some() || !model.given_up.is_empty() || removed;
            let waited = tick.at >= previous.at + window;
            ensure!(urgent || ends || waited, "{} came within the window", snapshot.position);
        }
        let (Some(slot), Some(published)) = (model.followed_after(tick), &tick.state.snapshot) else { return Ok(()) };
        if model.draining || tick.at < published.at + window {
            return Ok(());
        }
        let listed = |list: &BlockedNodes| -> Vec<_> { list.iter().map(|e| (e.node.clone(), e.source)).collect() };
        let blocked = listed(&published.blocked) == listed(&tick.state.blocked);
        ensure!(blocked, "a change of the block list has waited beyond the window");
        let shown = model.visible(&model.counted(slot));
        if shown.hash() == published.hash {
            return Ok(());
        }
        let held = model.policy().mass_loss_share.is_some() && tick.at < slot.changed_at + model.policy().guard_hold;
        ensure!(held, "what {} shows has waited beyond the window", slot.id);
        Ok(())
    }
}

/// Whoever is delivered, and no longer shown by the provider followed, has flapped and has not been away for longer than may
/// be, was delivered all the while, and neither a switch nor an end of the stream has come meanwhile. Found from what was shown alone, without the model's
/// notion of what is held.
#[derive(Default)]
pub(super) struct HeldLeaves {
    followed: Option<SlotKey>,
    shown: Members,
    /// When each member was lost, the latest last.
    lost: BTreeMap<NodeId, Vec<Timestamp>>,
}

impl Checker for HeldLeaves {
    fn name(&self) -> &'static str {
        "held leaves"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        if let Some(before) = model.slot(model.followed).filter(|slot| self.followed == Some(slot.key)) {
            for node in self.shown.iter().filter(|node| !before.shown.contains(node.id())) {
                self.lost.entry(node.id().clone()).or_default().push(tick.at);
            }
        }
        let Some(slot) = model.followed_after(tick) else { return Ok(()) };
        (self.followed, self.shown) = (Some(slot.key), slot.shown.clone());
        for (_, delivery, switched) in snapshots(model, tick) {
            let snapshot = &delivery.snapshot;
            let again = model.policy().mass_loss_share.is_some();
            if snapshot.provider_id != slot.id || again {
                continue;
            }
            for node in snapshot.members.iter().filter(|node| !slot.shown.contains(node.id())) {
                let id = node.id();
                let Some(policy) = model.policy().flap_damping else { return Err(format!("{id} is gone")) };
                ensure!(!switched && !slot.ended, "{id} is held although more is decided about");
                let joins = delivery.diff.joined().iter().any(|joined| joined.id() == id);
                ensure!(!joins, "{id} comes back, and is not shown");
                let lost = self.lost.get(id).map_or(&[][..], Vec::as_slice);
                let last = lost.last().copied().unwrap_or_default();
                ensure!(tick.at < last + policy.hold, "{id} has been away since {last}");
                let of_late = lost.iter().filter(|at| last < **at + policy.within).count();
                ensure!(of_late > policy.leaves as usize, "{id} has left {of_late} times only");
            }
        }
        Ok(())
    }
}

/// With the guard on, a set that lost too much is held back until it has held for the time set.
pub(super) struct MassLoss;

impl Checker for MassLoss {
    fn name(&self) -> &'static str {
        "mass loss"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let Some(share) = model.policy().mass_loss_share else { return Ok(()) };
        for (previous, delivery, switched) in snapshots(model, tick) {
            let snapshot = &delivery.snapshot;
            let (Some(previous), Some(slot)) = (previous, model.slot_of(&snapshot.provider_id)) else { continue };
            if switched || previous.provider_id != snapshot.provider_id {
                continue;
            }
            let held = tick.at >= slot.lost_at + model.policy().guard_hold;
            // What a failure detector takes out is no loss of the provider's.
            let again = snapshot.members == model.visible(&model.accepted);
            let lost = !again && lacks(&model.visible(&model.counted(slot)), &model.visible(&model.accepted), share);
            ensure!(held || !lost, "{} lost too much and was not held back", snapshot.position);
        }
        Ok(())
    }
}
