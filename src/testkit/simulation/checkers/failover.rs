//! Which provider is followed: never two, not too early, not too late, and none anew while draining.

use super::content::lacks;
use super::{Checker, Model, ensure};
use crate::clock::Timestamp;
use crate::event::{ProviderChanged, ProvisioningEvent, RemoteTopologyChange, SwitchReason};
use crate::health::ProviderHealth;
use crate::provider::ProviderRole;
use crate::testkit::simulation::shell::TracedTick;
use crate::topology::Members;

use super::super::model::ModelSlot;

fn switches(tick: &TracedTick) -> impl Iterator<Item = &ProviderChanged> {
    tick.events.iter().filter_map(|event| match event {
        ProvisioningEvent::ProviderChanged(change) => Some(change),
        _ => None,
    })
}

/// A switch leads from the provider followed to another, and its snapshot comes next; every snapshot is of the provider
/// followed, and at most one is published as active.
pub(super) struct OneActive;

impl Checker for OneActive {
    fn name(&self) -> &'static str {
        "one active"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let mut followed = model.last_followed.clone();
        let mut due: Option<&ProviderChanged> = None;
        for event in &tick.events {
            match event {
                ProvisioningEvent::ProviderChanged(change) => {
                    let at = change.position;
                    ensure!(due.is_none(), "{at} comes before the snapshot of the last switch");
                    ensure!(change.from == followed, "{at} leads from {:?} instead of {followed:?}", change.from);
                    let first = change.reason == SwitchReason::Initial;
                    ensure!(first == change.from.is_none(), "{at} has the reason {}", change.reason);
                    let again = change.from.as_ref() == Some(&change.to);
                    ensure!(!again || change.reason == SwitchReason::Reconfigured, "{at} leads nowhere");
                    followed = Some(change.to.clone());
                    due = Some(change);
                }
                ProvisioningEvent::Snapshot(delivery) => {
                    let snapshot = &delivery.snapshot;
                    ensure!(
                        followed.as_ref() == Some(&snapshot.provider_id),
                        "{} is of {}, and {followed:?} is followed",
                        snapshot.position,
                        snapshot.provider_id
                    );
                    if let Some(change) = due.take() {
                        let announced = change.snapshot_hash;
                        ensure!(snapshot.hash == announced, "{} is not the snapshot announced", snapshot.position);
                    }
                }
                _ => {}
            }
        }
        ensure!(due.is_none(), "the switch to {followed:?} came without its snapshot");
        let active: Vec<_> = tick.state.providers.iter().filter(|status| status.active).collect();
        ensure!(active.len() <= 1, "{} providers are active", active.len());
        let expected = model.followed_after(tick).map(|slot| &slot.id);
        let published = active.first().map(|status| &status.id);
        ensure!(published == expected, "{published:?} is active instead of {expected:?}");
        Ok(())
    }
}

/// Voluntary switches wait for the cooldown, a better provider for its hold, a worse one for the grace.
pub(super) struct Restraint;

impl Checker for Restraint {
    fn name(&self) -> &'static str {
        "restraint"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let policy = model.policy();
        for change in switches(tick) {
            let Some(to) = model.slot_of(&change.to) else { return Err(format!("{} is not in force", change.to)) };
            ensure!(to.has_snapshot, "{} has no snapshot", to.id);
            ensure!(to.health != ProviderHealth::Unreachable, "{} is unreachable", to.id);
            let pinned = model.pinned == Some(to.key);
            let overridden = change.reason == SwitchReason::ManualOverride;
            ensure!(pinned || !overridden, "{} was not pinned", to.id);
            let cooled = model.last_switch.is_none_or(|at| tick.at.since(at) >= policy.cooldown);
            let from = model.slot(model.followed);
            let grace = from.is_some_and(|from| tick.at.since(from.since) >= policy.degraded_grace);
            let emergency = from.is_none_or(|from| from.health == ProviderHealth::Unreachable || from.ended);
            let healthy = to.health == ProviderHealth::Healthy;
            match change.reason {
                SwitchReason::PriorityRestored => {
                    ensure!(cooled, "{} is followed again within the cooldown", to.id);
                    ensure!(healthy, "{} is not healthy", to.id);
                    let held = tick.at.since(to.since) >= policy.failback_hold;
                    ensure!(held, "{} is followed again before it held", to.id);
                    let better = from.is_some_and(|from| model.rank(to) > model.rank(from));
                    ensure!(better, "{} is no better", to.id);
                }
                SwitchReason::HealthDegraded if !emergency => {
                    ensure!(cooled && grace && healthy, "{} was degraded for too short a time", model.followed_name());
                }
                SwitchReason::Timeout | SwitchReason::StreamEnded => {
                    ensure!(emergency, "{} was left without need: {}", model.followed_name(), change.reason);
                }
                SwitchReason::Reconfigured => ensure!(from.is_none(), "{} is in force", model.followed_name()),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Model {
    fn followed_name(&self) -> String {
        self.slot(self.followed).map_or_else(|| "nobody".into(), |slot| slot.id.to_string())
    }

    /// Whether the guard surely lets the set of this provider replace `present`.
    fn is_clear(&self, slot: &ModelSlot, present: &Members) -> bool {
        let policy = self.policy();
        if present.is_empty() || slot.shown.hash() == present.hash() {
            return true;
        }
        let held = self.now >= self.steady_from(slot, slot.changed_at) + policy.guard_hold;
        let lost = lacks(&slot.shown, present, policy.guard_share);
        let replaces = !self.may_replace(slot) && lost && lacks(present, &slot.shown, policy.guard_share);
        !slot.shown.is_empty() && !replaces && (held || !lost)
    }

    /// From when the guard's hold counts for a provider whose set has been steady from then on: a fallback waits for as long
    /// as that after the one followed has ceased to be healthy.
    fn steady_from(&self, slot: &ModelSlot, set_from: Timestamp) -> Timestamp {
        let followed = self.slot(self.followed).filter(|_| slot.role == ProviderRole::Fallback);
        followed.and_then(|followed| followed.ailing_since).map_or(set_from, |ailing| set_from.max(ailing))
    }

    /// Whether the provider, or the one that is followed, may show others than everybody else.
    pub(in super::super) fn may_replace(&self, slot: &ModelSlot) -> bool {
        let is_fallback = |slot: &ModelSlot| slot.role == ProviderRole::Fallback;
        is_fallback(slot) || self.slot(self.followed).is_some_and(is_fallback)
    }
}

/// A standby that lacks too much is followed only once its set has held; an empty one never replaces members, and one that
/// shows mostly others only where one of both is a fallback. None of it counts for a pin, nor where there is nothing to
/// come back to.
pub(super) struct SwitchGuard;

impl Checker for SwitchGuard {
    fn name(&self) -> &'static str {
        "switch guard"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let policy = model.policy();
        let mut present = model.delivered.as_ref();
        for event in &tick.events {
            match event {
                ProvisioningEvent::Snapshot(delivery) => present = Some(&delivery.snapshot),
                ProvisioningEvent::ProviderChanged(change) => {
                    let exempt = matches!(
                        change.reason,
                        SwitchReason::Initial | SwitchReason::Reconfigured | SwitchReason::ManualOverride
                    );
                    let (Some(present), Some(to)) = (present, model.slot_of(&change.to)) else { continue };
                    if exempt || present.members.is_empty() {
                        continue;
                    }
                    ensure!(!to.shown.is_empty(), "{} is empty and replaces members", to.id);
                    let held = tick.at >= model.steady_from(to, to.lost_at) + policy.guard_hold;
                    let lost = lacks(&to.shown, &present.members, policy.guard_share);
                    ensure!(held || !lost, "{} lacks too many members and is followed at once", to.id);
                    let others = lost && lacks(&present.members, &to.shown, policy.guard_share);
                    ensure!(!others || model.may_replace(to), "{} replaces the members by others", to.id);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A switch that is due is made in the same tick: away from a provider that is unreachable or whose stream ended, to a
/// pinned one, away from one that was degraded for too long, back to a better one.
pub(super) struct Promptness;

impl Checker for Promptness {
    fn name(&self) -> &'static str {
        "promptness"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        if model.draining || switches(tick).next().is_some() {
            return Ok(());
        }
        let usable = |slot: &&ModelSlot| slot.has_snapshot && slot.health != ProviderHealth::Unreachable;
        let pin = model.slot(model.pinned).filter(usable);
        let Some(active) = model.slot(model.followed) else {
            let healthy = model.slots.iter().find(|slot| slot.is_eligible(ProviderHealth::Healthy));
            let waiting = model.last_switch.is_none() && tick.at.since(model.started) < model.policy().initial_grace;
            ensure!(
                healthy.is_none() || waiting,
                "nobody is followed although {:?} is healthy",
                healthy.map(|s| &s.id)
            );
            return Ok(());
        };
        // One whose stream ended has to show its set anew before it is returned to.
        if let Some(pin) = pin.filter(|pin| pin.key == active.key || !pin.ended) {
            ensure!(pin.key == active.key, "{} is pinned and not followed", pin.id);
            return Ok(());
        }
        let (Some(before), Some(after)) = (&model.delivered, &tick.state.snapshot) else { return Ok(()) };
        let others = || model.slots.iter().filter(|slot| slot.key != active.key);
        // The present members may have changed within the tick: the guard counts as clear only if it is for both.
        let clear = |slot: &&ModelSlot| model.is_clear(slot, &before.members) && model.is_clear(slot, &after.members);
        let healthy = others().filter(|slot| slot.is_eligible(ProviderHealth::Healthy)).find(clear);
        let pinned_here = model.pinned == Some(active.key);
        if active.health == ProviderHealth::Unreachable || (active.ended && !pinned_here) {
            let degraded =
                || others().filter(|slot| slot.is_eligible(ProviderHealth::Degraded) && !slot.ended).find(clear);
            let alternative = healthy.or_else(degraded);
            ensure!(
                alternative.is_none(),
                "{} is still followed, not {:?}",
                active.id,
                alternative.map(|slot| &slot.id)
            );
            return Ok(());
        }
        let cooled = model.last_switch.is_none_or(|at| tick.at.since(at) >= model.policy().cooldown);
        if !cooled || pinned_here {
            return Ok(());
        }
        let degraded =
            active.health == ProviderHealth::Degraded && tick.at.since(active.since) >= model.policy().degraded_grace;
        ensure!(!(degraded && healthy.is_some()), "{} was degraded for too long", active.id);
        let better = others()
            .filter(|slot| slot.is_eligible(ProviderHealth::Healthy) && model.rank(slot) > model.rank(active))
            .filter(|slot| tick.at.since(slot.since) >= model.policy().failback_hold)
            .find(clear);
        ensure!(better.is_none(), "{} is still followed, and {:?} is better", active.id, better.map(|slot| &slot.id));
        Ok(())
    }
}

/// While draining: no snapshot, no join, no switch, no end of a block.
pub(super) struct Draining;

impl Checker for Draining {
    fn name(&self) -> &'static str {
        "draining"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        if !model.draining {
            return Ok(());
        }
        let new = tick.events.iter().find(|event| match event {
            ProvisioningEvent::Snapshot(_) | ProvisioningEvent::ProviderChanged(_) => true,
            ProvisioningEvent::RemoteTopology(change) => {
                matches!(change.event, RemoteTopologyChange::Join | RemoteTopologyChange::Unblocked)
            }
            _ => false,
        });
        ensure!(new.is_none(), "{new:?} while draining");
        Ok(())
    }
}
