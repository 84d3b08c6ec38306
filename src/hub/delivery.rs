//! What goes out: snapshots, the gate, and what Remoting is told.
//!
//! Decides: dedup by hash and block list, coalescing, what is urgent, the guard against a sudden loss, recovery, when
//! placement pauses, which joins are held back.

use std::sync::Arc;

use super::core::HubCore;
use super::selection::lacks;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::*;
use crate::provider::ProviderHealth;
use crate::topology::{BlockedNode, ClusterNode, Members, NodeId, ProviderSnapshot, Revision, TopologyDiff};

impl HubCore {
    /// Whether the provider followed shows something else than what was delivered.
    pub(super) fn pending(&self) -> bool {
        let (Some(slot), Some(delivered)) = (self.active(), &self.delivered) else { return false };
        !self.draining
            && (self.blocks.hash_without_excluded(&slot.members) != delivered.hash || self.blocks_differ(delivered))
    }

    pub(super) fn blocks_differ(&self, delivered: &ProviderSnapshot) -> bool {
        let key = |entry: &BlockedNode| (entry.node.clone(), entry.source);
        let entries = self.blocks.entries();
        !Arc::ptr_eq(entries, &delivered.blocked) && !entries.iter().map(key).eq(delivered.blocked.iter().map(key))
    }

    /// Delivers what is pending, if it is due: a lone change at once, others at the end of the window; what changes the
    /// block list, or pauses or opens the gate, never waits.
    pub(super) fn flush(&mut self, at_once: bool) {
        if !self.pending() {
            self.mass_loss_reported = false;
            self.changed_at = None;
            return;
        }
        let (Some(slot), Some(delivered)) = (self.active(), &self.delivered) else { return };
        let empty = self.blocks.without_excluded(&slot.members).is_empty();
        let blocks_differ = self.blocks_differ(delivered);
        let urgent = blocks_differ || empty != delivered.members.is_empty();
        let due = at_once || urgent || self.now >= self.window_until;
        if due && !self.holds_mass_loss() {
            self.deliver();
        } else if blocks_differ {
            self.deliver_again();
        }
    }

    /// Whether the set of the provider followed lost so much at once that it is held back.
    pub(super) fn holds_mass_loss(&mut self) -> bool {
        let policy = self.failover.policy();
        let (Some(slot), Some(delivered), Some(share)) = (self.active(), &self.delivered, policy.mass_loss_share)
        else {
            return false;
        };
        let held = self.now < slot.shrunk_at + policy.guard_hold && lacks(&slot.members, &delivered.members, share);
        if held && !self.mass_loss_reported {
            let detail = format!("it shows {} members instead of {}", slot.members.len(), delivered.members.len());
            let error = ProvisioningError::new(ErrorCode::MassLossHeld, "following the provider", detail);
            let id = slot.id.clone();
            let error = error.with_provider(&id);
            self.counters.guard_holds += 1;
            self.decide(format!("what {id} shows is held back: {}", error.brief()));
            let warning = self.warning(error);
            self.events.push(warning);
        }
        self.mass_loss_reported = held;
        held
    }

    /// Delivers the topology that the provider followed shows.
    pub(super) fn deliver(&mut self) {
        let Some(slot) = self.active() else { return };
        let (members, revision) = (slot.members.clone(), slot.revision.clone());
        self.accepted = members;
        self.deliver_accepted(revision);
        self.waited_since = self.changed_at.take();
    }

    /// Delivers what was delivered last once more, with the block list as it is now.
    pub(super) fn deliver_again(&mut self) {
        let revision = self.delivered.as_ref().map(|snapshot| snapshot.revision.clone());
        self.deliver_accepted(revision.unwrap_or_default());
    }

    pub(super) fn deliver_accepted(&mut self, revision: Revision) {
        let Some(slot) = self.active() else { return };
        let members = self.blocks.without_excluded(&self.accepted);
        let (provider_id, health) = (slot.id.clone(), slot.tracker.health());
        if members.is_empty() && self.gate.is_open() {
            // Placement pauses before it learns that nobody is left.
            self.set_gate(PlacementGate::Paused(PauseReason::Empty));
        }
        let (previous, invalidates) = match &self.delivered {
            Some(previous) => {
                let changed = previous.hash != members.hash();
                (previous.members.clone(), changed.then_some(previous.hash))
            }
            None => (Members::new(), None),
        };
        let diff = Arc::new(TopologyDiff::between(&previous, &members));
        let snapshot = Arc::new(ProviderSnapshot {
            provider_id,
            position: self.next_position(),
            hash: members.hash(),
            members,
            revision,
            blocked: Arc::clone(self.blocks.entries()),
            health,
            at: self.now,
        });
        for slot in &mut self.slots {
            slot.share(&snapshot.members);
        }
        self.counters.snapshots += 1;
        self.window_until = self.now + self.settings.coalesce;
        self.snapshot_delivered = true;
        self.delivered = Some(Arc::clone(&snapshot));
        self.delivered_diff = Some((previous, Arc::clone(&diff)));
        let delivery = SnapshotDelivery { snapshot, diff, invalidates };
        self.events.push(ProvisioningEvent::Snapshot(delivery));
    }

    /// Leaving the unavailable state is itself a delivery of the snapshot, whatever its hash.
    pub(super) fn recover(&mut self) {
        let unavailable = matches!(self.gate, PlacementGate::Paused(PauseReason::Unavailable(_)));
        let stays =
            matches!(self.judge_gate(), PlacementGate::Paused(PauseReason::Unavailable(_) | PauseReason::Draining));
        if unavailable && !stays && !self.snapshot_delivered {
            if self.pending() && self.holds_mass_loss() {
                self.deliver_again();
            } else {
                self.deliver();
            }
        }
    }

    pub(super) fn judge_gate(&self) -> PlacementGate {
        let unavailable = |code| PlacementGate::Paused(PauseReason::Unavailable(code));
        if self.draining {
            return PlacementGate::Paused(PauseReason::Draining);
        }
        let Some(delivered) = &self.delivered else { return unavailable(ErrorCode::NoSnapshot) };
        if self.slots.iter().all(|slot| slot.tracker.health() == ProviderHealth::Unreachable) {
            return unavailable(ErrorCode::ProvisioningUnavailable);
        }
        if let (Some(refreshed), Some(limit)) = (self.confirmed_at, self.failover.policy().max_stale)
            && self.now.since(refreshed) >= limit
        {
            return unavailable(ErrorCode::DataStale);
        }
        if self.active().is_none() && matches!(self.gate, PlacementGate::Paused(PauseReason::Unavailable(_))) {
            // What the removed provider showed does not come into force again.
            return unavailable(ErrorCode::ProvisioningUnavailable);
        }
        if delivered.members.is_empty() {
            return PlacementGate::Paused(PauseReason::Empty);
        }
        PlacementGate::Open
    }

    pub(super) fn set_gate(&mut self, gate: PlacementGate) {
        if gate == self.gate {
            return;
        }
        self.decide(format!("placement: {} -> {gate}", self.gate));
        self.gate = gate;
        let (position, at) = (self.next_position(), self.now);
        self.events.push(ProvisioningEvent::GateChanged(GateChanged { position, at, gate }));
    }

    pub(super) fn is_active_healthy(&self) -> bool {
        self.active().is_some_and(|slot| slot.tracker.health() == ProviderHealth::Healthy)
    }

    pub(super) fn warn_remoting(&mut self) {
        let Some(slot) = self.active() else { return };
        let healthy = slot.tracker.health() == ProviderHealth::Healthy;
        if self.warned != healthy {
            return;
        }
        let provider_id = slot.id.clone();
        let degraded = if healthy { None } else { slot.tracker.cause(self.now, self.failover.policy()) };
        self.warned = !healthy;
        let (position, at) = (self.next_position(), self.now);
        let warning = RemotingWarning { position, at, provider_id, degraded };
        self.events.push(ProvisioningEvent::RemotingWarning(warning));
    }

    /// Tells Remoting who came and went. While draining it follows the provider itself, and only its losses.
    pub(super) fn tell_remoting(&mut self) {
        let (changes, held_anew) = if self.draining {
            let Some(slot) = self.active() else { return };
            let members = self.blocks.without_excluded(&slot.members);
            if self.remote.matches(&members) {
                return;
            }
            (self.remote.shrink(&members, self.now), false)
        } else {
            let Some(delivered) = self.delivered.clone() else { return };
            let healthy = self.is_active_healthy();
            if self.remote.matches(&delivered.members) || (!healthy && !self.snapshot_delivered) {
                return;
            }
            // What a refresh has just dropped, but is still to be delivered as gone, was not confirmed by it.
            let shown = self.active().filter(|_| healthy).map(|slot| slot.members.clone()).unwrap_or_default();
            let known = self.delivered_diff.as_ref();
            (self.remote.follow(&delivered.members, &shown, known, self.now), self.snapshot_delivered)
        };
        if held_anew {
            self.counters.held_joins += changes.held as u64;
        }
        self.events.reserve(changes.left.len() + changes.joined.len());
        for node in changes.left {
            self.push_remote(RemoteTopologyChange::Leave, node.id().clone(), Some(node));
        }
        for node in changes.joined {
            self.push_remote(RemoteTopologyChange::Join, node.id().clone(), Some(node));
        }
    }

    /// Tells Remoting who is blocked and who no longer is; the latter not while draining.
    pub(super) fn tell_blocks(&mut self) {
        let find = |hub: &Self, node: &NodeId| hub.delivered.as_ref().and_then(|s| s.members.get(node)).cloned();
        for id in self.blocks.newly_blocked() {
            let node = find(self, &id);
            self.push_remote(RemoteTopologyChange::Blocked, id, node);
        }
        if self.draining {
            return;
        }
        for id in self.blocks.newly_unblocked() {
            let node = find(self, &id);
            self.push_remote(RemoteTopologyChange::Unblocked, id, node);
        }
    }

    pub(super) fn push_remote(&mut self, event: RemoteTopologyChange, node_id: NodeId, node: Option<Arc<ClusterNode>>) {
        let position = self.next_position();
        self.events.push(ProvisioningEvent::RemoteTopology(RemoteTopologyEvent {
            position,
            at: self.now,
            event,
            node_id,
            node,
            provider_id: self.last_active.clone(),
            snapshot_hash: self.delivered_hash(),
        }));
    }
}
