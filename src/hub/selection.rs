//! Who is followed: the switch and what surrounds it.
//!
//! The choice itself is [`FailoverController`](crate::failover)'s; here it is carried out, and a standby whose set would lose
//! too many members is held back.

use super::core::HubCore;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::*;
use crate::failover::{Choice, Guard, SlotKey};
use crate::topology::{Members, TopologyDiff};

impl HubCore {
    pub(super) fn select(&mut self) {
        if self.draining {
            return;
        }
        // Every switch makes its target the active one, so the loop ends; the bound is for safety.
        for _ in 0..=self.slots.len() {
            let choice = self.failover.choose(self.now, &self.candidates(), &mut |key| self.guard(key));
            match choice {
                Choice::Stay => {
                    self.reported_hold = None;
                    return;
                }
                Choice::Held { to, guard } => return self.report_hold(to, guard),
                Choice::Switch { to, reason } => self.switch(to, reason),
            }
        }
    }

    pub(super) fn switch(&mut self, to: SlotKey, reason: SwitchReason) {
        self.failover.switched(to, self.now);
        let Some(slot) = self.active() else { return };
        let (to, snapshot_hash) = (slot.id.clone(), self.blocks.hash_without_excluded(&slot.members));
        let from = self.last_active.replace(to.clone());
        if reason != SwitchReason::Initial {
            self.counters.failovers += 1;
        }
        let origin = from.as_ref().map_or("nothing", |id| id.as_str()).to_owned();
        self.decide(format!("switched from {origin} to {to}: {reason}"));
        let (position, at) = (self.next_position(), self.now);
        let change = ProviderChanged { position, at, from, to, reason, snapshot_hash };
        self.events.push(ProvisioningEvent::ProviderChanged(change));
        self.deliver();
    }

    /// Warns once when another provider serves than the pinned one.
    pub(super) fn report_pin(&mut self) {
        let (pinned, active) = (self.failover.pinned(), self.failover.active());
        if self.draining || pinned.is_none() || active.is_none() || pinned == active {
            self.pin_reported = false;
            return;
        }
        if std::mem::replace(&mut self.pin_reported, true) {
            return;
        }
        let detail = "the pinned provider cannot serve; another does until it is back";
        let mut error = ProvisioningError::new(ErrorCode::ProviderUnhealthy, "holding on to a pinned provider", detail);
        if let Some(slot) = self.slots.iter().find(|slot| Some(slot.key) == pinned) {
            error = error.with_provider(&slot.id);
        }
        let warning = self.warning(error);
        self.events.push(warning);
    }

    /// Whether the provider's set may replace the present one.
    pub(super) fn guard(&self, key: SlotKey) -> Guard {
        let Some(present) = &self.delivered else { return Guard::Clear };
        let Some(slot) = self.slots.iter().find(|slot| slot.key == key) else { return Guard::Clear };
        if present.members.is_empty() || slot.members.hash() == present.hash {
            return Guard::Clear;
        }
        if slot.members.is_empty() {
            return Guard::Held;
        }
        let policy = self.failover.policy();
        let until = slot.shrunk_at + policy.guard_hold;
        if self.now >= until || !lacks(&slot.members, &present.members, policy.guard_share) {
            return Guard::Clear;
        }
        Guard::HeldUntil(until)
    }

    pub(super) fn report_hold(&mut self, to: SlotKey, guard: Guard) {
        if self.reported_hold.is_some_and(|(reported, _)| reported == to) {
            self.reported_hold = Some((to, guard));
            return;
        }
        self.reported_hold = Some((to, guard));
        self.counters.guard_holds += 1;
        let Some(slot) = self.slots.iter().find(|slot| slot.key == to) else { return };
        let detail = match guard {
            Guard::Held => "it shows no members at all, and the present provider may come back".to_owned(),
            _ => format!("it shows {} members and lacks too many of the present ones", slot.members.len()),
        };
        let id = slot.id.clone();
        let error = ProvisioningError::new(ErrorCode::MassLossHeld, "switching to a standby", detail);
        let error = error.with_provider(&id);
        self.decide(format!("the switch to {id} is held back: {}", error.brief()));
        let warning = self.warning(error);
        self.events.push(warning);
    }
}

/// Whether `set` lacks more than this share of `present`.
pub(super) fn lacks(set: &Members, present: &Members, share: f64) -> bool {
    let diff = TopologyDiff::between(present, set);
    let lacking = diff.left().iter().filter(|node| !set.contains(node.id())).count();
    lacking as f64 > share * present.len() as f64
}
