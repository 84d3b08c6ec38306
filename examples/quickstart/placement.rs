//! A PlacementSupervisor: decides which node owns which key, by rendezvous hashing.
//!
//! Each key goes to the node that scores highest for it. When a node comes or goes only the keys that it gains or loses
//! move; all others stay where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use cluster_provisioning::*;

use crate::checks::Checks;

/// The node that scores highest for the key.
pub fn owner_of<'a>(key: &str, nodes: impl IntoIterator<Item = &'a NodeId>) -> Option<&'a NodeId> {
    nodes.into_iter().max_by_key(|node| score(key, node.as_str()))
}

/// FNV-1a over both, and a finalizer that spreads it over all bits. The same in every process and every version, which
/// is why it is not the standard library's hasher.
fn score(key: &str, node: &str) -> u64 {
    let bytes = key.bytes().chain([0]).chain(node.bytes());
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// The members that may own keys: those that are not blocked.
pub fn usable(snapshot: &ProviderSnapshot) -> Vec<&NodeId> {
    snapshot.members.iter().map(|node| node.id()).filter(|id| !snapshot.is_blocked(id)).collect()
}

pub struct Placement {
    keys: Vec<Arc<str>>,
    checks: Arc<Checks>,
    state: Mutex<State>,
}

struct State {
    owners: BTreeMap<Arc<str>, NodeId>,
    gate: PlacementGate,
    seen: Deduplicator,
}

impl Placement {
    pub fn new(keys: usize, checks: Arc<Checks>) -> Self {
        let gate = PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::NoSnapshot));
        Self {
            keys: (0..keys).map(|number| format!("user-{number}").into()).collect(),
            checks,
            state: Mutex::new(State { owners: BTreeMap::new(), gate, seen: Deduplicator::new() }),
        }
    }

    pub fn keys(&self) -> &[Arc<str>] {
        &self.keys
    }

    /// An application asks where a new key is to live. While the gate is closed the answer is no.
    pub fn place(&self, key: &str, snapshot: &ProviderSnapshot) -> Result<NodeId, PauseReason> {
        match self.state.lock().unwrap().gate {
            PlacementGate::Open => owner_of(key, usable(snapshot)).cloned().ok_or(PauseReason::Empty),
            PlacementGate::Paused(reason) => Err(reason),
        }
    }

    fn in_order(&self, state: &mut State, position: Position) -> bool {
        let fresh = state.seen.fresh(position);
        self.checks.that(fresh, || format!("PlacementSupervisor: {position} came after {}", state.seen.watermark()));
        fresh
    }
}

impl PlacementSupervisorBridge for Placement {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) -> Vec<OwnershipChange> {
        let state = &mut *self.state.lock().unwrap();
        if !self.in_order(state, delivery.snapshot.position) {
            return Vec::new();
        }
        let nodes = usable(&delivery.snapshot);
        // A node that came back in another life joins again: what it owns is leased to it anew, with a higher token.
        let joined: BTreeSet<&NodeId> = delivery.diff.joined().iter().map(|node| node.id()).collect();
        let mut changes = Vec::new();
        for key in &self.keys {
            // Nobody is left: everything stays as it is, and the gate keeps new placements waiting.
            let Some(owner) = owner_of(key, nodes.iter().copied()) else { break };
            if state.owners.get(key) != Some(owner) || joined.contains(owner) {
                state.owners.insert(Arc::clone(key), owner.clone());
                changes.push(OwnershipChange::assign(key, owner.clone()));
            }
        }
        changes
    }

    fn provider_changed(&self, change: &ProviderChanged) {
        self.in_order(&mut self.state.lock().unwrap(), change.position);
    }

    fn gate_changed(&self, change: &GateChanged) {
        let state = &mut *self.state.lock().unwrap();
        if self.in_order(state, change.position) {
            state.gate = change.gate;
        }
    }
}
