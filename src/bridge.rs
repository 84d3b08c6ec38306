//! Where the hub meets the host: the callbacks of PlacementSupervisor, PartitionManager and Remoting.
//!
//! All of them are called on the hub's thread, one after the other, in the order of the deliveries. A callback may call
//! the service: reads show the last completed tick, commands return a ticket, and waiting for one fails at once. A
//! callback that panics is caught, counted and reported, and the hub goes on; one that is slow delays everyone and is
//! reported past a limit.

mod deduplicator;

pub use deduplicator::Deduplicator;

use crate::event::{
    GateChanged, LeaseUpdate, OwnershipChange, ProviderChanged, RemoteTopologyEvent, RemotingWarning, SnapshotDelivery,
    StreamEnded,
};

/// Decides who owns what. First to see each delivery. A host implements what it needs: everything else does nothing.
pub trait PlacementSupervisorBridge: Send + Sync {
    /// The topology or the block list changed: recalculate ownership before serving further placement requests. The gate
    /// opens only when this has returned; if it panics placement pauses, and it is called again with the same topology in
    /// a new delivery, after 1 s, 2 s and so on up to 30 s. What is returned becomes leases, published to PartitionManager
    /// within the same tick. More can be ordered at any time with
    /// [`ProviderWatchHub::publish_ownership`](crate::ProviderWatchHub::publish_ownership). Default: changes nothing.
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) -> Vec<OwnershipChange> {
        let _ = delivery;
        Vec::new()
    }

    /// Another provider is followed; its snapshot follows in the same tick.
    fn provider_changed(&self, change: &ProviderChanged) {
        let _ = change;
    }

    /// A provider's stream came to its end; its last snapshot stays available.
    fn stream_ended(&self, end: &StreamEnded) {
        let _ = end;
    }

    /// Placement may go on, or has to pause.
    fn gate_changed(&self, change: &GateChanged) {
        let _ = change;
    }
}

/// Keeps the partition map. Second to see each delivery. A host implements what it needs: everything else does nothing.
pub trait PartitionManagerBridge: Send + Sync {
    /// The topology or the block list changed.
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) {
        let _ = delivery;
    }

    /// Another provider is followed; its snapshot follows in the same tick.
    fn provider_changed(&self, change: &ProviderChanged) {
        let _ = change;
    }

    /// A provider's stream came to its end; its last snapshot stays available.
    fn stream_ended(&self, end: &StreamEnded) {
        let _ = end;
    }

    /// Ownership changed. Each lease carries its fencing token.
    fn publish_leases(&self, update: &LeaseUpdate) {
        let _ = update;
    }

    /// Placement may go on, or has to pause.
    fn gate_changed(&self, change: &GateChanged) {
        let _ = change;
    }
}

/// Keeps the channels to remote nodes. Third to see each delivery. It reports a quarantined node with
/// [`ProviderWatchHub::quarantine`](crate::ProviderWatchHub::quarantine) and a regained connection with
/// [`ProviderWatchHub::reconnected`](crate::ProviderWatchHub::reconnected). A host implements what it needs: everything else
/// does nothing.
pub trait RemotingBridge: Send + Sync {
    /// A remote node came, went, was blocked or unblocked. In member mode the local node is told of like any other:
    /// pass over its id.
    fn remote_topology(&self, event: &RemoteTopologyEvent) {
        let _ = event;
    }

    /// The topology may be stale, or is fresh again. While it may be, no `Join` is delivered.
    fn warning(&self, warning: &RemotingWarning) {
        let _ = warning;
    }

    /// A provider's stream came to its end; the last snapshot stays available, and so do the channels.
    fn stream_ended(&self, end: &StreamEnded) {
        let _ = end;
    }

    /// Placement may go on, or has to pause.
    fn gate_changed(&self, change: &GateChanged) {
        let _ = change;
    }
}
