//! Who is followed, and how fresh what it showed is.
//!
//! The choice itself is [`FailoverController`](crate::failover)'s; here a standby whose set would lose too many members
//! is held back, and what an operator should know of the choice is told once.

use super::loss::{held, lacks};
use super::slot::Slot;
use super::slots::Slots;
use super::turn::Turn;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{ProviderChanged, ProvisioningEvent, SwitchReason};
use crate::failover::{Candidate, Choice, FailoverController, FailoverPolicy, Guard, SlotKey};
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
        let mut guard = |key: SlotKey| match (present, slots.get(key)) {
            (Some(present), Some(slot)) => judge(slot, present, policy, now),
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

    /// A switch is held back; reported once.
    pub(super) fn note_hold(&mut self, to: &Slot, guard: Guard, turn: &mut Turn<'_>) {
        let known = self.hold.replace((to.key(), guard)).is_some_and(|(reported, _)| reported == to.key());
        if known {
            return;
        }
        self.guard_holds += 1;
        let detail = match guard {
            Guard::Held => "it shows no members at all, and the present provider may come back".to_owned(),
            _ => format!("it shows {} members and lacks too many of the present ones", to.members().len()),
        };
        let error = held(to.id(), "switching to a standby", detail);
        turn.decide(format!("the switch to {} is held back: {}", to.id(), error.brief()));
        turn.warn(error);
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
        let mut error = ProvisioningError::new(ErrorCode::ProviderUnhealthy, "holding on to a pinned provider", detail);
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

/// Whether the provider's set may replace the present one.
fn judge(slot: &Slot, present: &Members, policy: &FailoverPolicy, now: Timestamp) -> Guard {
    if present.is_empty() || slot.members().hash() == present.hash() {
        return Guard::Clear;
    }
    if slot.members().is_empty() {
        return Guard::Held;
    }
    let until = slot.shrunk_at() + policy.guard_hold;
    if now >= until || !lacks(slot.members(), present, policy.guard_share) {
        return Guard::Clear;
    }
    Guard::HeldUntil(until)
}
