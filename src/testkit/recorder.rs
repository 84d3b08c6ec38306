//! Bridges that write down every call, in order, and misbehave on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::bridge::{PartitionManagerBridge, PlacementSupervisorBridge, RemotingBridge};
use crate::event::*;

/// Which bridge was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BridgeKind {
    /// PlacementSupervisor.
    PlacementSupervisor,
    /// PartitionManager.
    PartitionManager,
    /// Remoting.
    Remoting,
}

/// One call of a bridge.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The bridge.
    pub bridge: BridgeKind,
    /// What it was called with.
    pub event: ProvisioningEvent,
    /// Whether the call panicked, as it was told to.
    pub panicked: bool,
}

type Placement = Arc<dyn Fn(&SnapshotDelivery) -> Vec<OwnershipChange> + Send + Sync>;
type Hook = Arc<dyn Fn(&Recorded) + Send + Sync>;

/// All three bridges in one, writing down every call in the order in which they came. Unbounded: for tests.
pub struct Recorder {
    state: Mutex<State>,
    sender: Sender<Recorded>,
    receiver: Receiver<Recorded>,
}

#[derive(Default)]
struct State {
    placement: Option<Placement>,
    hook: Option<Hook>,
    panics: BTreeMap<BridgeKind, usize>,
}

impl Recorder {
    /// A recorder that orders no ownership changes and does not misbehave.
    pub fn new() -> Arc<Self> {
        let (sender, receiver) = unbounded();
        Arc::new(Self { state: Mutex::default(), sender, receiver })
    }

    /// What PlacementSupervisor returns for a snapshot.
    pub fn place(&self, placement: impl Fn(&SnapshotDelivery) -> Vec<OwnershipChange> + Send + Sync + 'static) {
        self.state().placement = Some(Arc::new(placement));
    }

    /// Runs inside each callback from here on, after it was written down.
    pub fn on_call(&self, hook: impl Fn(&Recorded) + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    /// Lets the next so many calls of a bridge panic, after they were written down.
    pub fn panic_next(&self, bridge: BridgeKind, calls: usize) {
        self.state().panics.insert(bridge, calls);
    }

    /// What was written down since the last call of this, without waiting.
    pub fn take(&self) -> Vec<Recorded> {
        self.receiver.try_iter().collect()
    }

    /// Waits for the next call that `wanted` accepts, passing over the others. `None` when the time is over.
    pub fn wait_for(&self, timeout: Duration, mut wanted: impl FnMut(&Recorded) -> bool) -> Option<Recorded> {
        let deadline = Instant::now() + timeout;
        loop {
            let recorded = self.receiver.recv_deadline(deadline).ok()?;
            if wanted(&recorded) {
                return Some(recorded);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic on demand poisons the lock; the state behind it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, bridge: BridgeKind, event: ProvisioningEvent) {
        let panicked = {
            let mut state = self.state();
            let left = state.panics.get_mut(&bridge).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        };
        let recorded = Recorded { bridge, event, panicked };
        // The receiver lives as long as the recorder.
        _ = self.sender.send(recorded.clone());
        // Called without the lock, so that it may use the recorder.
        let hook = self.state().hook.clone();
        if let Some(hook) = hook {
            hook(&recorded);
        }
        if panicked {
            // Unwinds like any panic, but without a report on standard error: it was ordered.
            std::panic::resume_unwind(Box::new("ordered by the test"));
        }
    }
}

impl PlacementSupervisorBridge for Recorder {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) -> Vec<OwnershipChange> {
        self.record(BridgeKind::PlacementSupervisor, ProvisioningEvent::Snapshot(delivery.clone()));
        let placement = self.state().placement.clone();
        placement.map(|placement| placement(delivery)).unwrap_or_default()
    }

    fn provider_changed(&self, change: &ProviderChanged) {
        self.record(BridgeKind::PlacementSupervisor, ProvisioningEvent::ProviderChanged(change.clone()));
    }

    fn stream_ended(&self, end: &StreamEnded) {
        self.record(BridgeKind::PlacementSupervisor, ProvisioningEvent::StreamEnded(end.clone()));
    }

    fn gate_changed(&self, change: &GateChanged) {
        self.record(BridgeKind::PlacementSupervisor, ProvisioningEvent::GateChanged(change.clone()));
    }
}

impl PartitionManagerBridge for Recorder {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) {
        self.record(BridgeKind::PartitionManager, ProvisioningEvent::Snapshot(delivery.clone()));
    }

    fn provider_changed(&self, change: &ProviderChanged) {
        self.record(BridgeKind::PartitionManager, ProvisioningEvent::ProviderChanged(change.clone()));
    }

    fn stream_ended(&self, end: &StreamEnded) {
        self.record(BridgeKind::PartitionManager, ProvisioningEvent::StreamEnded(end.clone()));
    }

    fn publish_leases(&self, update: &LeaseUpdate) {
        self.record(BridgeKind::PartitionManager, ProvisioningEvent::LeasesPublished(update.clone()));
    }

    fn gate_changed(&self, change: &GateChanged) {
        self.record(BridgeKind::PartitionManager, ProvisioningEvent::GateChanged(change.clone()));
    }
}

impl RemotingBridge for Recorder {
    fn remote_topology(&self, event: &RemoteTopologyEvent) {
        self.record(BridgeKind::Remoting, ProvisioningEvent::RemoteTopology(event.clone()));
    }

    fn warning(&self, warning: &RemotingWarning) {
        self.record(BridgeKind::Remoting, ProvisioningEvent::RemotingWarning(warning.clone()));
    }

    fn stream_ended(&self, end: &StreamEnded) {
        self.record(BridgeKind::Remoting, ProvisioningEvent::StreamEnded(end.clone()));
    }

    fn gate_changed(&self, change: &GateChanged) {
        self.record(BridgeKind::Remoting, ProvisioningEvent::GateChanged(change.clone()));
    }
}
