//! What the service counts and measures, as plain data.

mod histogram;

use serde::Serialize;

pub use histogram::Histogram;

use crate::topology::Position;

/// What the service has counted and measured since its start. Health and data age of each provider are in
/// [`ProviderStatus`](crate::ProviderStatus), those of remote nodes in [`RemoteNode`](crate::RemoteNode).
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ProvisioningMetrics {
    /// The last delivery that is counted in: all figures are as of its tick.
    pub position: Position,
    /// From the moment at which a provider's stream reported something to the end of the last bridge's callback, for
    /// every tick that delivered a snapshot. What time alone brings about, such as a switch once a grace is over, has no
    /// report to count from, and is left out.
    pub snapshot_latency: Histogram,
    /// Switches from one provider to another, the first selection not counted.
    pub failovers: u64,
    /// Streams that came to their end, in good order, by an error or by silence.
    pub stream_interruptions: u64,
    /// Definitions that were refused.
    pub validation_failures: u64,
    /// Deliveries of any kind.
    pub deliveries: u64,
    /// Snapshots delivered.
    pub snapshots: u64,
    /// Refreshes of the provider followed that changed nothing, and were not delivered.
    pub deduplicated: u64,
    /// Changes of the provider followed that were folded into a later delivery.
    pub coalesced: u64,
    /// Changes of the provider followed that were refused while draining.
    pub refused_while_draining: u64,
    /// Answers that a provider did not believe at once.
    pub doubtful: u64,
    /// Entries of the providers' answers that were unusable and left out.
    pub skipped_members: u64,
    /// Switches and updates held back because they would have lost too many members at once.
    pub guard_holds: u64,
    /// Joins held back from Remoting because the provider was not healthy.
    pub held_joins: u64,
    /// Leaves that were held because the member flaps.
    pub held_leaves: u64,
    /// PlacementSupervisor's callbacks.
    pub placement_supervisor: BridgeMetrics,
    /// PartitionManager's callbacks.
    pub partition_manager: BridgeMetrics,
    /// Remoting's callbacks.
    pub remoting: BridgeMetrics,
}

/// How a bridge's callbacks did.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct BridgeMetrics {
    /// How long the callbacks of one tick took together, for every tick that had any.
    pub duration: Histogram,
    /// Callbacks that panicked.
    pub panics: u64,
    /// Ticks in which the callbacks together took longer than the limit.
    pub slow: u64,
}
