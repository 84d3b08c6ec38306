//! Remoting: one channel to each remote node. The channels are make-believe; their opening and closing is not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cluster_provisioning::*;

use crate::checks::Checks;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Channel {
    pub incarnation: u64,
    pub blocked: bool,
}

pub struct Remoting {
    local: NodeId,
    checks: Arc<Checks>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channels: BTreeMap<NodeId, Channel>,
    opened: usize,
    closed: usize,
    seen: Deduplicator,
}

impl Remoting {
    pub fn new(local: NodeId, checks: Arc<Checks>) -> Self {
        Self { local, checks, state: Mutex::default() }
    }

    pub fn channels(&self) -> BTreeMap<NodeId, Channel> {
        self.state.lock().unwrap().channels.clone()
    }

    /// How many channels were opened and closed so far.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.opened, state.closed)
    }
}

impl RemotingBridge for Remoting {
    fn remote_topology(&self, event: &RemoteTopologyEvent) {
        let state = &mut *self.state.lock().unwrap();
        let fresh = state.seen.fresh(event.position);
        self.checks.that(fresh, || format!("Remoting: {} came after {}", event.position, state.seen.watermark()));
        // The local node is a member like any other; nobody needs a channel to himself.
        if !fresh || event.node_id == self.local {
            return;
        }
        let id = &event.node_id;
        let expected = match event.event {
            RemoteTopologyChange::Join => {
                let incarnation = event.node.as_ref().map_or(0, |node| node.incarnation());
                state.opened += 1;
                state.channels.insert(id.clone(), Channel { incarnation, blocked: false }).is_none()
            }
            RemoteTopologyChange::Leave => {
                state.closed += 1;
                state.channels.remove(id).is_some()
            }
            RemoteTopologyChange::Blocked | RemoteTopologyChange::Unblocked => {
                let blocked = event.event == RemoteTopologyChange::Blocked;
                state.channels.get_mut(id).map(|channel| channel.blocked = blocked).is_some()
            }
        };
        self.checks.that(expected, || format!("Remoting: {} of {id} does not fit its channel", event.event));
    }

    fn warning(&self, warning: &RemotingWarning) {
        let fresh = self.state.lock().unwrap().seen.fresh(warning.position);
        self.checks.that(fresh, || format!("Remoting: {} came late", warning.position));
    }

    fn gate_changed(&self, change: &GateChanged) {
        let fresh = self.state.lock().unwrap().seen.fresh(change.position);
        self.checks.that(fresh, || format!("Remoting: {} came late", change.position));
    }
}
