//! A PartitionManager: keeps who holds which lease, tells the nodes, and guards the keys by fencing tokens.
//!
//! A node that cannot be reached does not hear that it lost a key, and goes on believing in its lease. That is what the
//! token is for: whoever guards a key refuses a token below the highest that it has seen for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cluster_provisioning::*;

use crate::checks::Checks;

pub struct Partitions {
    checks: Arc<Checks>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The lease in force for each key: the one with the highest token.
    leases: BTreeMap<Arc<str>, Lease>,
    /// What each simulated node believes to hold.
    machines: BTreeMap<NodeId, Machine>,
    snapshot: Option<Arc<ProviderSnapshot>>,
    seen: Deduplicator,
    last_update: Option<LeaseUpdate>,
}

#[derive(Default)]
struct Machine {
    cut_off: bool,
    holds: BTreeMap<Arc<str>, Position>,
}

impl Partitions {
    pub fn new(checks: Arc<Checks>) -> Self {
        Self { checks, state: Mutex::default() }
    }

    /// The node can no longer be reached, or can again.
    pub fn cut_off(&self, node: &NodeId, cut_off: bool) {
        self.state.lock().unwrap().machines.entry(node.clone()).or_default().cut_off = cut_off;
    }

    /// The node's process ended, and with it all that it knew.
    pub fn forget(&self, node: &NodeId) {
        self.state.lock().unwrap().machines.remove(node);
    }

    /// The node writes once to each key that it believes to hold. How many writes were accepted, and how many refused.
    pub fn write_all(&self, node: &NodeId) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        let Some(machine) = state.machines.get(node) else { return (0, 0) };
        let accepted = machine.holds.iter().filter(|(key, token)| state.accepts(key, **token)).count();
        (accepted, machine.holds.len() - accepted)
    }

    /// The last leases once more, as a queue between hub and PartitionManager might deliver them. Whether any was taken.
    pub fn replay_last(&self) -> bool {
        let state = &mut *self.state.lock().unwrap();
        let Some(update) = state.last_update.clone() else { return false };
        update.leases.iter().any(|lease| state.take(lease))
    }

    /// How many keys each node owns.
    pub fn owned(&self) -> BTreeMap<NodeId, usize> {
        let mut owned = BTreeMap::new();
        for owner in self.state.lock().unwrap().leases.values().filter_map(|lease| lease.owner.clone()) {
            *owned.entry(owner).or_insert(0) += 1;
        }
        owned
    }

    /// Who owns each key; and, checked here, that exactly one node can write to it.
    pub fn owners(&self) -> BTreeMap<Arc<str>, NodeId> {
        let state = self.state.lock().unwrap();
        let mut owners = BTreeMap::new();
        for (key, lease) in &state.leases {
            let able = |machine: &Machine| machine.holds.get(key).is_some_and(|token| state.accepts(key, *token));
            let writers: Vec<_> =
                state.machines.iter().filter(|(_, machine)| able(machine)).map(|(id, _)| id).collect();
            self.checks.that(writers.len() == 1 && lease.owner.as_ref() == Some(writers[0]), || {
                format!("{key} belongs to {:?}, and {writers:?} can write to it", lease.owner)
            });
            owners.extend(lease.owner.clone().map(|owner| (Arc::clone(key), owner)));
        }
        owners
    }

    fn in_order(&self, state: &mut State, position: Position) -> bool {
        let fresh = state.seen.fresh(position);
        self.checks.that(fresh, || format!("PartitionManager: {position} came after {}", state.seen.watermark()));
        fresh
    }
}

impl State {
    fn accepts(&self, key: &str, token: Position) -> bool {
        self.leases.get(key).is_none_or(|lease| token >= lease.token)
    }

    /// Takes a lease whose token is above the highest seen for its key, and tells those concerned as far as they hear.
    fn take(&mut self, lease: &Lease) -> bool {
        let former = self.leases.get(&lease.key);
        if former.is_some_and(|former| lease.token <= former.token) {
            return false;
        }
        if let Some(loser) = former.and_then(|former| former.owner.clone())
            && let Some(machine) = self.machines.get_mut(&loser).filter(|machine| !machine.cut_off)
        {
            machine.holds.remove(&lease.key);
        }
        if let Some(winner) = &lease.owner {
            let machine = self.machines.entry(winner.clone()).or_default();
            machine.holds.insert(Arc::clone(&lease.key), lease.token);
        }
        self.leases.insert(Arc::clone(&lease.key), lease.clone());
        true
    }
}

impl PartitionManagerBridge for Partitions {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) {
        let state = &mut *self.state.lock().unwrap();
        if !self.in_order(state, delivery.snapshot.position) {
            return;
        }
        let present = state.snapshot.as_ref().map(|snapshot| snapshot.hash);
        self.checks.that(delivery.invalidates.is_none() || delivery.invalidates == present, || {
            format!("{} invalidates another snapshot than the last one", delivery.snapshot.position)
        });
        state.snapshot = Some(Arc::clone(&delivery.snapshot));
    }

    fn provider_changed(&self, change: &ProviderChanged) {
        self.in_order(&mut self.state.lock().unwrap(), change.position);
    }

    fn stream_ended(&self, end: &StreamEnded) {
        // The last snapshot stays: there is nothing to do but to know.
        self.in_order(&mut self.state.lock().unwrap(), end.position);
    }

    fn publish_leases(&self, update: &LeaseUpdate) {
        let state = &mut *self.state.lock().unwrap();
        if !self.in_order(state, update.position) {
            return;
        }
        for lease in update.leases.iter() {
            // The snapshot of the same tick came first, so that the owner can be looked up in it.
            let owner = lease.owner.as_ref().zip(state.snapshot.as_ref());
            let serves = owner.is_some_and(|(id, now)| now.members.contains(id) && !now.is_blocked(id));
            self.checks.that(serves, || format!("{} was leased to {:?}, which cannot serve", lease.key, lease.owner));
            let taken = state.take(lease);
            self.checks.that(taken, || format!("the token of {} did not rise: {}", lease.key, lease.token));
        }
        state.last_update = Some(update.clone());
    }

    fn gate_changed(&self, change: &GateChanged) {
        self.in_order(&mut self.state.lock().unwrap(), change.position);
    }
}
