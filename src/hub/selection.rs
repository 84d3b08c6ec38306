//! Who is followed, and how fresh what it showed is.
//!
//! The choice itself is [`FailoverController`](crate::failover)'s; here a standby whose set would lose too many members
//! is held back, or would replace them by others, and what an operator should know of the choice is told once.

use std::collections::BTreeMap;

use super::loss::{held, lacks};
use super::slot::Slot;
use super::slots::Slots;
use super::turn::Turn;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{ProviderChanged, ProvisioningEvent, SwitchReason};
use crate::failover::{Candidate, Choice, FailoverController, FailoverPolicy, Guard, SlotKey};
use crate::health::ProviderHealth;
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::topology::{Members, NodeId};

/// Who is followed.
#[derive(Debug)]
pub(super) struct Selection {
    controller: FailoverController,
    /// The provider followed last, also after it was removed.
    last_followed: Option<ProviderId>,
    /// When the provider followed last confirmed its data; also after it was removed.
    confirmed_at: Option<Timestamp>,
    /// Nobody is followed since the provider was removed that gave its last sign of life then.
    unwatched_from: Option<Timestamp>,
    /// The switch that is held back by the guard, so that it is reported once.
    hold: Option<(SlotKey, Guard)>,
    /// Since when the standbys had been healthy whose members were compared with those of the provider followed.
    compared: BTreeMap<SlotKey, Timestamp>,
    /// It was reported that another provider serves than the pinned one.
    pin_reported: bool,
    failovers: u64,
    guard_holds: u64,
}

impl Selection {
    pub(super) fn new(policy: FailoverPolicy, now: Timestamp) -> Self {
        Self {
            controller: FailoverController::new(policy, now),
            last_followed: None,
            confirmed_at: None,
            unwatched_from: None,
            hold: None,
            compared: BTreeMap::new(),
            pin_reported: false,
            failovers: 0,
            guard_holds: 0,
        }
    }

    /// The provider followed.
    pub(super) fn followed(&self) -> Option<SlotKey> {
        self.controller.active()
    }

    pub(super) fn is_followed(&self, key: SlotKey) -> bool {
        self.controller.active() == Some(key)
    }

    pub(super) fn pinned(&self) -> Option<SlotKey> {
        self.controller.pinned()
    }

    /// The provider followed, or followed last.
    pub(super) fn last_followed(&self) -> Option<&ProviderId> {
        self.last_followed.as_ref()
    }

    /// When the provider followed last confirmed its data; also after it was removed.
    pub(super) fn confirmed_at(&self) -> Option<Timestamp> {
        self.confirmed_at
    }

    /// Holds on to a provider, or no longer.
    pub(super) fn pin(&mut self, key: Option<SlotKey>) {
        self.controller.pin(key);
        self.pin_reported = false;
    }

    /// The provider is about to be removed: what it showed is unwatched from its last sign of life on.
    pub(super) fn forget(&mut self, key: SlotKey) {
        self.controller.forget(key);
        self.compared.remove(&key);
    }

    /// The provider followed, as it was when it was removed.
    pub(super) fn note_removed(&mut self, slot: &Slot, now: Timestamp) {
        self.unwatched_from = Some(slot.tracker().last_sign().unwrap_or(now));
    }

    /// What to do about the provider that is followed. `present`: the members delivered last.
    pub(super) fn choose(
        &self,
        slots: &Slots,
        present: Option<&Members>,
        local_node: Option<&NodeId>,
        now: Timestamp,
    ) -> Choice {
        let policy = slots.policy();
        let followed = self.followed().and_then(|key| slots.get(key));
        let mut guard = |key: SlotKey| match (present, slots.get(key)) {
            (Some(present), Some(slot)) => judge(slot, present, followed, policy, now),
            _ => Guard::Clear,
        };
        self.controller.choose(now, &slots.candidates(local_node), &mut guard)
    }

    /// Follows that provider from here on, which is told. `hash`: of what it shows.
    pub(super) fn switch(&mut self, to: &Slot, reason: SwitchReason, snapshot_hash: u64, turn: &mut Turn<'_>) {
        self.controller.switched(to.key(), turn.now());
        self.unwatched_from = None;
        let to = to.id().clone();
        let from = self.last_followed.replace(to.clone());
        // The same name, but another provider: it was removed and has been registered again.
        let reason = if from.as_ref() == Some(&to) { SwitchReason::Reconfigured } else { reason };
        if reason != SwitchReason::Initial {
            self.failovers += 1;
        }
        let origin = from.as_ref().map_or("nothing", |id| id.as_str());
        turn.decide(format!("switched from {origin} to {to}: {reason}"));
        turn.deliver(|position, at| {
            let change = ProviderChanged { position, at, from, to, reason, snapshot_hash };
            ProvisioningEvent::ProviderChanged(change)
        });
    }

    /// No switch is held back.
    pub(super) fn note_stay(&mut self) {
        self.hold = None;
    }

    /// A switch is held back; reported once. That a fallback is waited with is no news.
    pub(super) fn note_hold(&mut self, to: &Slot, guard: Guard, slots: &Slots, turn: &mut Turn<'_>) {
        let known = self.hold.replace((to.key(), guard)).is_some_and(|(reported, _)| reported == to.key());
        if known {
            return;
        }
        self.guard_holds += 1;
        let doing = "switching to a standby";
        let error = match guard {
            Guard::Empty => held(
                to.id(),
                doing,
                "it shows no members at all, and the present provider may come back".to_owned(),
            )
            .with_advice(
                "register members with it, or bring the present provider back; an empty set takes over only by a pin",
            ),
            Guard::Replaces => differs(to, doing, "and the present provider may come back"),
            _ => {
                let detail = format!("it shows {} members and lacks too many of the present ones", to.members().len());
                held(to.id(), doing, detail)
            }
        };
        turn.decide(format!("the switch to {} is held back: {}", to.id(), error.brief()));
        let followed = self.followed().and_then(|key| slots.get(key));
        let is_meant = to.is_fallback() || followed.is_some_and(Slot::is_fallback);
        if guard == Guard::Empty || !is_meant {
            turn.warn(error);
        }
    }

    /// Warns once of each standby that has been healthy for a while beside a healthy provider, shows mostly others than that,
    /// and whose definition does not say that this is meant. `present`: the members delivered last.
    pub(super) fn report_differing(&mut self, slots: &Slots, present: Option<&Members>, turn: &mut Turn<'_>) {
        let settled = |slot: &&Slot| {
            let tracker = slot.tracker();
            let is_healthy = tracker.has_snapshot() && tracker.health() == ProviderHealth::Healthy;
            is_healthy && turn.now() >= tracker.since() + slots.policy().failback_hold
        };
        let followed = self.followed().and_then(|key| slots.get(key)).filter(settled);
        let (Some(followed), Some(present)) = (followed.filter(|slot| !slot.is_fallback()), present) else { return };
        let standbys = slots.iter().filter(|slot| slot.key() != followed.key() && !slot.is_fallback());
        let new = |slot: &&Slot| self.compared.get(&slot.key()) != Some(&slot.tracker().since());
        let standbys: Vec<&Slot> = standbys.filter(settled).filter(new).collect();
        for slot in standbys {
            self.compared.insert(slot.key(), slot.tracker().since());
            if replaces(slot.members(), present, slots.policy().guard_share) {
                turn.warn(differs(slot, "watching a standby", "and would not be followed in its place"));
            }
        }
    }

    /// Warns once when another provider serves than the pinned one.
    pub(super) fn report_pin(&mut self, slots: &Slots, draining: bool, turn: &mut Turn<'_>) {
        let (pinned, followed) = (self.controller.pinned(), self.controller.active());
        if draining || pinned.is_none() || followed.is_none() || pinned == followed {
            self.pin_reported = false;
            return;
        }
        if std::mem::replace(&mut self.pin_reported, true) {
            return;
        }
        let detail = "the pinned provider cannot serve; another does until it is back";
        let mut error = ProvisioningError::new(ErrorCode::ProviderUnhealthy, "holding on to a pinned provider", detail)
            .with_advice("restore the provider, or lift the pin");
        if let Some(slot) = pinned.and_then(|key| slots.get(key)) {
            error = error.with_provider(slot.id());
        }
        turn.warn(error);
    }

    /// Notes how fresh the data of the provider followed is.
    pub(super) fn observe(&mut self, slots: &Slots) {
        if let Some(slot) = self.followed().and_then(|key| slots.get(key)) {
            self.confirmed_at = slot.tracker().last_refresh();
        }
    }

    /// When the data becomes too old.
    pub(super) fn stale_at(&self) -> Option<Timestamp> {
        Some(self.confirmed_at? + self.controller.policy().max_stale?)
    }

    /// When what a removed provider showed counts as unwatched, where nobody is followed: by the rules of silence.
    pub(super) fn unwatched_at(&self) -> Option<Timestamp> {
        Some(self.unwatched_from? + self.controller.policy().silence_timeout)
    }

    /// When the switch that is held back may be made.
    pub(super) fn guard_ends(&self) -> Option<Timestamp> {
        match self.hold {
            Some((_, Guard::HeldUntil(until))) => Some(until),
            _ => None,
        }
    }

    /// When a lower provider need no longer wait for a better one.
    pub(super) fn initial_grace_ends(&self) -> Option<Timestamp> {
        self.controller.initial_grace_ends()
    }

    /// When a voluntary switch may follow the last one.
    pub(super) fn cooldown_ends(&self) -> Option<Timestamp> {
        self.controller.cooldown_ends()
    }

    /// When the provider has had its health for long enough that a switch may follow from it.
    pub(super) fn hold_ends(&self, candidate: &Candidate<'_>) -> Timestamp {
        self.controller.hold_ends(candidate)
    }

    /// What was counted.
    pub(super) fn report(&self, metrics: &mut ProvisioningMetrics) {
        metrics.failovers = self.failovers;
        metrics.guard_holds += self.guard_holds;
    }
}

/// Whether the provider's set may replace the present one, which is that of `followed`.
fn judge(slot: &Slot, present: &Members, followed: Option<&Slot>, policy: &FailoverPolicy, now: Timestamp) -> Guard {
    if present.is_empty() || slot.members().hash() == present.hash() {
        return Guard::Clear;
    }
    if slot.members().is_empty() {
        return Guard::Empty;
    }
    let mut steady_from = slot.shrunk_at();
    if let Some(ailing_since) = followed.and_then(|slot| slot.tracker().ailing_since()).filter(|_| slot.is_fallback()) {
        // Its set is steady by nature: what tells a short outage is how long the other has been gone.
        steady_from = steady_from.max(ailing_since);
    }
    let until = steady_from + policy.guard_hold;
    let is_meant = slot.is_fallback() || followed.is_some_and(Slot::is_fallback);
    if !is_meant && replaces(slot.members(), present, policy.guard_share) {
        return Guard::Replaces;
    }
    if now >= until || !lacks(slot.members(), present, policy.guard_share) {
        return Guard::Clear;
    }
    Guard::HeldUntil(until)
}

/// Whether `set` lacks most of `present`, and shows mostly others.
fn replaces(set: &Members, present: &Members, share: f64) -> bool {
    !set.is_empty() && lacks(set, present, share) && lacks(present, set, share)
}

/// The warning that a standby shows others.
fn differs(slot: &Slot, doing: &'static str, consequence: &str) -> ProvisioningError {
    let detail = format!(
        "its {} members are mostly others than those of the present provider, {consequence}",
        slot.members().len()
    );
    ProvisioningError::new(ErrorCode::StandbyDiffers, doing, detail).with_provider(slot.id())
}
