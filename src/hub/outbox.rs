//! Which snapshot goes out, and when.
//!
//! Decides: dedup by hash and block list, coalescing, what is urgent, the guard against a sudden loss. A lone change goes
//! out at once; after it what is pending waits for the window to be over. What changes the block list, or makes the
//! topology empty or no longer so, is urgent: it does not wait for a window, unless that one began with something urgent
//! too.

use std::sync::Arc;
use std::time::Duration;

use super::blocks::BlockList;
use super::damping::Damping;
use super::loss::MassLoss;
use super::slot::Slot;
use super::turn::{Delivered, Report, Turn};
use crate::clock::Timestamp;
use crate::event::{ProvisioningEvent, SnapshotDelivery};
use crate::failover::FailoverPolicy;
use crate::metrics::ProvisioningMetrics;
use crate::topology::{ClusterNode, Members, ProviderSnapshot, Revision, TopologyDiff};

/// What is to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing, or nothing yet.
    Nothing,
    /// What the provider followed shows.
    Shown,
    /// What went out last once more, with the block list as it is now.
    Again,
}

/// What was delivered, and what waits.
#[derive(Debug)]
pub(super) struct Outbox {
    coalesce: Duration,
    delivered: Option<Arc<ProviderSnapshot>>,
    /// The members that the provider followed counted as showing then, those included that a failure detector has taken out.
    accepted: Members,
    /// Until then a change waits.
    window_until: Timestamp,
    /// Until then an urgent change waits, too.
    urgent_until: Timestamp,
    /// When the provider followed reported the oldest change that is not delivered yet.
    changed_at: Option<Timestamp>,
    loss: MassLoss,
    damping: Damping,
    snapshots: u64,
    deduplicated: u64,
    coalesced: u64,
    refused: u64,
}

impl Outbox {
    /// Nothing was delivered yet. After a delivery the next snapshot waits for `coalesce`.
    pub(super) fn new(coalesce: Duration, now: Timestamp) -> Self {
        Self {
            coalesce,
            delivered: None,
            accepted: Members::new(),
            window_until: now,
            urgent_until: now,
            changed_at: None,
            loss: MassLoss::default(),
            damping: Damping::default(),
            snapshots: 0,
            deduplicated: 0,
            coalesced: 0,
            refused: 0,
        }
    }

    /// What was delivered last.
    pub(super) fn delivered(&self) -> Option<&Arc<ProviderSnapshot>> {
        self.delivered.as_ref()
    }

    /// The hash of what was delivered last; 0 if nothing was.
    pub(super) fn hash(&self) -> u64 {
        self.delivered.as_ref().map_or(0, |snapshot| snapshot.hash)
    }

    /// Whether nobody is to be placed on, although members were delivered: a confirmed empty answer is held back.
    pub(super) fn holds_nobody(&self, slot: Option<&Slot>, blocks: &BlockList) -> bool {
        let shows_nobody = |slot: &Slot| blocks.without_excluded(slot.members()).is_empty();
        self.loss.is_holding() && slot.is_some_and(shows_nobody)
    }

    /// The provider followed spoke of its members in this tick.
    pub(super) fn note_report(&mut self, report: Report, now: Timestamp) {
        match report {
            Report::None => {}
            Report::Confirmed => self.deduplicated += 1,
            Report::Changed => _ = self.changed_at.get_or_insert(now),
        }
    }

    /// What the provider followed shows has changed, and it has lost these.
    pub(super) fn note_losses(
        &mut self,
        slot: &Slot,
        lost: Vec<Arc<ClusterNode>>,
        policy: &FailoverPolicy,
        turn: &mut Turn<'_>,
    ) {
        let none = Members::new();
        let delivered = self.delivered.as_ref().map_or(&none, |delivered| &delivered.members);
        self.damping.note((slot.id(), slot.members()), lost, delivered, policy.flap_damping, turn);
    }

    /// Ends what is held of leaves, where the time is over, of whomever a failure detector has taken out, or where nobody
    /// would be left but those who are away.
    pub(super) fn review_leaves(&mut self, slot: &Slot, blocks: &BlockList, turn: &mut Turn<'_>) {
        if self.damping.members().is_none() {
            return;
        }
        if blocks.without_excluded(slot.members()).is_empty() {
            self.damping.release();
        } else {
            self.damping.let_go(|id| blocks.excludes(id), slot.members());
            self.damping.expire(slot.members(), turn);
        }
    }

    /// Ends all that is held of leaves.
    pub(super) fn release_leaves(&mut self) {
        self.damping.release();
    }

    /// When a leave was held for long enough.
    pub(super) fn leaves_held_until(&self) -> Option<Timestamp> {
        self.damping.until()
    }

    /// What the provider followed counts as showing: its members, and those whose leave is held.
    fn shown<'a>(&'a self, slot: &'a Slot) -> &'a Members {
        self.damping.members().unwrap_or(slot.members())
    }

    /// The tick's snapshots are out; counts what became of the change that it began with, if it was one.
    pub(super) fn count_change(&mut self, draining: bool, turn: &Turn<'_>) {
        match (turn.report(), draining, turn.delivered()) {
            (Report::Changed, true, _) => self.refused += 1,
            (Report::Changed, false, None) => self.coalesced += 1,
            _ => {}
        }
    }

    /// Whether the provider followed shows something else than was accepted, or the block list was not delivered.
    fn is_pending(&self, slot: &Slot, blocks: &BlockList) -> bool {
        self.delivered.is_some() && (self.shown(slot).hash() != self.accepted.hash() || blocks.is_undelivered())
    }

    /// What of the provider followed has to go out now. `last_chance`: its stream ends, or it is removed, so that what
    /// waits would be lost.
    pub(super) fn due(
        &mut self,
        slot: &Slot,
        blocks: &BlockList,
        last_chance: bool,
        policy: &FailoverPolicy,
        turn: &mut Turn<'_>,
    ) -> Due {
        let Some(delivered) = self.delivered.clone().filter(|_| self.is_pending(slot, blocks)) else {
            self.settle();
            return Due::Nothing;
        };
        if policy.mass_loss_share.is_some() && self.adopts(slot, blocks, &delivered) {
            return Due::Nothing;
        }
        let urgent = turn.now() >= self.urgent_until && self.is_urgent(slot, blocks, &delivered);
        if !last_chance && !urgent && turn.now() < self.window_until {
            return Due::Nothing;
        }
        if self.adopts(slot, blocks, &delivered) {
            return Due::Nothing;
        }
        match (self.holds_loss(slot, blocks, policy, turn), blocks.is_undelivered()) {
            (false, _) => Due::Shown,
            (true, true) => Due::Again,
            (true, false) => Due::Nothing,
        }
    }

    /// Whether what is pending must not wait for the window.
    fn is_urgent(&self, slot: &Slot, blocks: &BlockList, delivered: &ProviderSnapshot) -> bool {
        if blocks.is_undelivered() {
            return true;
        }
        // To look at who is left is worth it only where all of them may have been taken out.
        let may_be_empty = self.shown(slot).len() <= blocks.excluded();
        let empty = may_be_empty && blocks.without_excluded(self.shown(slot)).is_empty();
        empty != delivered.members.is_empty()
    }

    /// Whether only those came or went whom a failure detector has taken out anyway: there is nothing to deliver then, and
    /// their loss is none that could be held back.
    fn adopts(&mut self, slot: &Slot, blocks: &BlockList, delivered: &ProviderSnapshot) -> bool {
        let same = !blocks.is_undelivered() && blocks.hash_without_excluded(self.shown(slot)) == delivered.hash;
        if same {
            self.accepted = self.shown(slot).clone();
            self.settle();
        }
        same
    }

    /// Nothing is pending.
    fn settle(&mut self) {
        self.loss.release();
        self.changed_at = None;
    }

    /// Whether what the provider followed shows lost so much at once that it is held back.
    pub(super) fn holds_loss(
        &mut self,
        slot: &Slot,
        blocks: &BlockList,
        policy: &FailoverPolicy,
        turn: &mut Turn<'_>,
    ) -> bool {
        if policy.mass_loss_share.is_none() || self.delivered.is_none() {
            return false;
        }
        let (shown, accepted) = (blocks.without_excluded(self.shown(slot)), blocks.without_excluded(&self.accepted));
        self.loss.holds_back((slot.id(), &shown, slot.shrunk_at()), &accepted, policy, turn)
    }

    /// Whether a loss is held back.
    pub(super) fn is_holding(&self) -> bool {
        self.loss.is_holding()
    }

    /// The members that would go out.
    pub(super) fn members_of(&self, due: Due, slot: &Slot, blocks: &BlockList) -> Members {
        match due {
            Due::Again => blocks.without_excluded(&self.accepted),
            _ => blocks.without_excluded(self.shown(slot)),
        }
    }

    /// Delivers what is due of the provider followed.
    pub(super) fn deliver(&mut self, due: Due, slot: &Slot, blocks: &mut BlockList, turn: &mut Turn<'_>) {
        let members = self.members_of(due, slot, blocks);
        let (revision, waited_since) = match due {
            Due::Nothing => return,
            Due::Shown => {
                self.accepted = self.shown(slot).clone();
                (slot.revision().clone(), self.changed_at.take())
            }
            Due::Again => (self.delivered.as_ref().map_or(Revision::NONE, |last| last.revision.clone()), None),
        };
        let previous = self.delivered.take();
        let from = previous.as_ref().map(|previous| previous.members.clone()).unwrap_or_default();
        let invalidates = previous.as_ref().map(|previous| previous.hash).filter(|hash| *hash != members.hash());
        let flips = previous.is_some() && from.is_empty() != members.is_empty();
        self.window_until = turn.now() + self.coalesce;
        if flips || blocks.is_undelivered() {
            self.urgent_until = self.window_until;
        }
        blocks.note_delivered();
        self.snapshots += 1;
        let diff = Arc::new(TopologyDiff::between(&from, &members));
        turn.note_delivered(Delivered { from, diff: Arc::clone(&diff) }, waited_since);
        turn.deliver(|position, at| {
            let snapshot = Arc::new(ProviderSnapshot {
                provider_id: slot.id().clone(),
                position,
                hash: members.hash(),
                members,
                revision,
                blocked: blocks.entries().clone(),
                health: slot.health(),
                at,
            });
            self.delivered = Some(Arc::clone(&snapshot));
            ProvisioningEvent::Snapshot(SnapshotDelivery { snapshot, diff, invalidates })
        });
    }

    /// When something that is pending may go out.
    pub(super) fn window_ends(&self, slot: Option<&Slot>, blocks: &BlockList) -> Option<Timestamp> {
        slot.filter(|slot| self.is_pending(slot, blocks)).map(|_| self.window_until)
    }

    /// The same of what is urgent.
    pub(super) fn urgency_ends(&self, slot: Option<&Slot>, blocks: &BlockList) -> Option<Timestamp> {
        slot.filter(|slot| self.is_pending(slot, blocks)).map(|_| self.urgent_until)
    }

    /// What was counted.
    pub(super) fn report(&self, metrics: &mut ProvisioningMetrics) {
        metrics.snapshots = self.snapshots;
        metrics.deduplicated = self.deduplicated;
        metrics.coalesced = self.coalesced;
        metrics.refused_while_draining = self.refused;
        metrics.guard_holds += self.loss.count();
        self.damping.report(metrics);
    }
}
