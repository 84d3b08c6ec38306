//! What the hub delivers: every kind of delivery, as bridges and subscribers see it.
//!
//! Each delivery carries its [`Position`]. Delivery is at least once; a consumer drops what is not above the highest
//! position it has seen.
//!
//! Everything delivered serialises: times as RFC 3339, hashes in hexadecimal, reasons and codes by their stable names.

mod display;
mod stream;

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

pub use stream::{EventStream, NoEvent, Publisher, Subscriptions};

use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::health::ProviderHealth;
use crate::id::ProviderId;
use crate::provider::ProviderTermination;
use crate::text;
use crate::topology::{ClusterNode, NodeId, Position, ProviderSnapshot, TopologyDiff};

/// One delivery of the hub.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProvisioningEvent {
    /// Another provider is followed from here on. To PlacementSupervisor, PartitionManager and subscribers; the new
    /// provider's snapshot follows in the same tick.
    ProviderChanged(ProviderChanged),
    /// The topology or the block list changed. To PlacementSupervisor, PartitionManager and subscribers.
    Snapshot(SnapshotDelivery),
    /// A provider's stream came to its end; its last snapshot stays available. To everyone.
    StreamEnded(StreamEnded),
    /// Placement may go on, or has to pause. To everyone.
    GateChanged(GateChanged),
    /// A remote node came, went, was blocked or unblocked. To Remoting and subscribers.
    RemoteTopology(RemoteTopologyEvent),
    /// The topology may be stale, or is fresh again. To Remoting and subscribers.
    RemotingWarning(RemotingWarning),
    /// PlacementSupervisor ordered ownership changes. To PartitionManager and subscribers.
    LeasesPublished(LeaseUpdate),
    /// A provider's health changed. To subscribers.
    HealthChanged(HealthChanged),
    /// Something that an operator should know. To subscribers.
    Warning(Warning),
}

impl ProvisioningEvent {
    /// Its place in the order of all deliveries.
    pub fn position(&self) -> Position {
        match self {
            ProvisioningEvent::ProviderChanged(event) => event.position,
            ProvisioningEvent::Snapshot(event) => event.snapshot.position,
            ProvisioningEvent::StreamEnded(event) => event.position,
            ProvisioningEvent::GateChanged(event) => event.position,
            ProvisioningEvent::RemoteTopology(event) => event.position,
            ProvisioningEvent::RemotingWarning(event) => event.position,
            ProvisioningEvent::LeasesPublished(event) => event.position,
            ProvisioningEvent::HealthChanged(event) => event.position,
            ProvisioningEvent::Warning(event) => event.position,
        }
    }

    /// When the hub produced it.
    pub fn at(&self) -> Timestamp {
        match self {
            ProvisioningEvent::ProviderChanged(event) => event.at,
            ProvisioningEvent::Snapshot(event) => event.snapshot.at,
            ProvisioningEvent::StreamEnded(event) => event.at,
            ProvisioningEvent::GateChanged(event) => event.at,
            ProvisioningEvent::RemoteTopology(event) => event.at,
            ProvisioningEvent::RemotingWarning(event) => event.at,
            ProvisioningEvent::LeasesPublished(event) => event.at,
            ProvisioningEvent::HealthChanged(event) => event.at,
            ProvisioningEvent::Warning(event) => event.at,
        }
    }
}

/// Why another provider is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SwitchReason {
    /// The first selection since the start.
    Initial,
    /// The former one gave no sign of life for the silence timeout.
    Timeout,
    /// The former one had too many errors in a row, or was Degraded for too long.
    HealthDegraded,
    /// The former one's stream came to its end.
    StreamEnded,
    /// Someone pinned this one.
    ManualOverride,
    /// A better provider has been healthy again for long enough.
    PriorityRestored,
    /// The former one was removed from the configuration.
    Reconfigured,
}

impl SwitchReason {
    /// Every reason.
    pub const ALL: &'static [SwitchReason] = &[
        SwitchReason::Initial,
        SwitchReason::Timeout,
        SwitchReason::HealthDegraded,
        SwitchReason::StreamEnded,
        SwitchReason::ManualOverride,
        SwitchReason::PriorityRestored,
        SwitchReason::Reconfigured,
    ];

    /// The reason as a stable code.
    pub const fn code(self) -> &'static str {
        match self {
            SwitchReason::Initial => "initial",
            SwitchReason::Timeout => "timeout",
            SwitchReason::HealthDegraded => "health-degraded",
            SwitchReason::StreamEnded => "stream-ended",
            SwitchReason::ManualOverride => "manual-override",
            SwitchReason::PriorityRestored => "priority-restored",
            SwitchReason::Reconfigured => "reconfigured",
        }
    }
}

impl Serialize for SwitchReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl fmt::Display for SwitchReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Another provider is followed from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProviderChanged {
    /// Its place in the order; the idempotency key.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// The provider followed until now; absent for the first selection.
    pub from: Option<ProviderId>,
    /// The provider followed from here on.
    pub to: ProviderId,
    /// Why.
    pub reason: SwitchReason,
    /// The hash of the snapshot that follows in the same tick.
    #[serde(serialize_with = "text::hash")]
    pub snapshot_hash: u64,
}

/// A snapshot, and what changed since the one delivered before it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SnapshotDelivery {
    /// The topology as it is now.
    pub snapshot: Arc<ProviderSnapshot>,
    /// What changed since the snapshot delivered before; everything joined for the first one.
    pub diff: Arc<TopologyDiff>,
    /// The hash of the snapshot that this one replaces: whatever was derived from that one is invalid, unless the hash
    /// is the same.
    #[serde(serialize_with = "text::optional_hash")]
    pub invalidates: Option<u64>,
}

/// A provider's stream came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StreamEnded {
    /// Its place in the order.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// The provider.
    pub provider_id: ProviderId,
    /// How.
    pub termination: ProviderTermination,
    /// The hash of the last snapshot, which stays available: of the one delivered last if the provider was followed, else
    /// of what it showed last; absent if there never was one.
    #[serde(serialize_with = "text::optional_hash")]
    pub snapshot_hash: Option<u64>,
    /// Whether the provider was the one followed.
    pub was_active: bool,
}

/// Whether new placements may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlacementGate {
    /// They may.
    Open,
    /// They have to wait.
    Paused(PauseReason),
}

impl PlacementGate {
    /// Whether new placements may be made.
    pub fn is_open(self) -> bool {
        self == PlacementGate::Open
    }
}

/// As `{"open": true}`, or `{"open": false, "reason": "empty"}`.
impl Serialize for PlacementGate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reason = match self {
            PlacementGate::Open => None,
            PlacementGate::Paused(reason) => Some(reason),
        };
        let mut gate = serializer.serialize_struct("PlacementGate", 1 + usize::from(reason.is_some()))?;
        gate.serialize_field("open", &self.is_open())?;
        match reason {
            Some(reason) => gate.serialize_field("reason", reason)?,
            None => gate.skip_field("reason")?,
        }
        gate.end()
    }
}

impl fmt::Display for PlacementGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlacementGate::Open => f.write_str("open"),
            PlacementGate::Paused(reason) => write!(f, "paused ({reason})"),
        }
    }
}

/// Why placement pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PauseReason {
    /// The cluster has no members, by a confirmed answer.
    Empty,
    /// No provider can serve; the code says whether all are unreachable, the data is too old, or none has come yet:
    /// [`ErrorCode::ProvisioningUnavailable`], [`ErrorCode::DataStale`] or [`ErrorCode::NoSnapshot`].
    Unavailable(ErrorCode),
    /// PlacementSupervisor panicked when it was given the topology, so that nobody knows who owns what. It is given the
    /// topology again, in a new delivery, after 1 s, 2 s and so on up to 30 s.
    NotRecalculated,
    /// The service is shutting down.
    Draining,
}

impl PauseReason {
    /// Every reason.
    pub const ALL: &'static [PauseReason] = &[
        PauseReason::Empty,
        PauseReason::Unavailable(ErrorCode::ProvisioningUnavailable),
        PauseReason::Unavailable(ErrorCode::DataStale),
        PauseReason::Unavailable(ErrorCode::NoSnapshot),
        PauseReason::Unavailable(ErrorCode::Stopped),
        PauseReason::NotRecalculated,
        PauseReason::Draining,
    ];

    /// The reason as a stable code.
    pub const fn code(self) -> &'static str {
        match self {
            PauseReason::Empty => "empty",
            PauseReason::Unavailable(code) => code.as_str(),
            PauseReason::NotRecalculated => "not-recalculated",
            PauseReason::Draining => "draining",
        }
    }
}

impl Serialize for PauseReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Placement may go on, or has to pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GateChanged {
    /// Its place in the order.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// The gate from here on.
    pub gate: PlacementGate,
}

/// What happened to a remote node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RemoteTopologyChange {
    /// It became a member: a channel may be opened.
    Join,
    /// It is no longer a member: its channel is to be closed.
    Leave,
    /// It is blocked: nothing is to be sent to it.
    Blocked,
    /// It is no longer blocked.
    Unblocked,
}

impl RemoteTopologyChange {
    /// The change as a stable code.
    pub const fn code(self) -> &'static str {
        match self {
            RemoteTopologyChange::Join => "join",
            RemoteTopologyChange::Leave => "leave",
            RemoteTopologyChange::Blocked => "blocked",
            RemoteTopologyChange::Unblocked => "unblocked",
        }
    }
}

impl Serialize for RemoteTopologyChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl fmt::Display for RemoteTopologyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// A remote node came, went, was blocked or unblocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemoteTopologyEvent {
    /// Its place in the order; with the provider the idempotency key.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// What happened; serialised as `change`, since `event` says which kind of delivery it is.
    #[serde(rename = "change")]
    pub event: RemoteTopologyChange,
    /// The node's id.
    pub node_id: NodeId,
    /// The node; absent where a node is blocked or unblocked that is no member.
    pub node: Option<Arc<ClusterNode>>,
    /// The provider followed at the time.
    pub provider_id: Option<ProviderId>,
    /// The hash of the snapshot current at the time; 0 while there is none.
    #[serde(serialize_with = "text::hash")]
    pub snapshot_hash: u64,
}

/// The topology may be stale, or is fresh again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemotingWarning {
    /// Its place in the order.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// The provider followed at the time.
    pub provider_id: ProviderId,
    /// What is wrong with it; absent once it is healthy again. Meanwhile no `Join` is delivered.
    pub degraded: Option<ProvisioningError>,
}

/// An order to give a key to an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OwnershipChange {
    /// What is owned: a partition, a shard, an actor's identity.
    pub key: Arc<str>,
    /// Who owns it from here on; `None` releases it.
    pub owner: Option<NodeId>,
}

impl OwnershipChange {
    /// Gives the key to the owner.
    pub fn assign(key: impl AsRef<str>, owner: NodeId) -> Self {
        Self { key: key.as_ref().into(), owner: Some(owner) }
    }

    /// Releases the key.
    pub fn release(key: impl AsRef<str>) -> Self {
        Self { key: key.as_ref().into(), owner: None }
    }
}

/// An ownership, with the token by which its holder proves that it is not outdated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lease {
    /// What is owned.
    pub key: Arc<str>,
    /// Who owns it; `None`: released.
    pub owner: Option<NodeId>,
    /// The fencing token: whoever guards the key refuses a token below the highest it has seen for it.
    pub token: Position,
}

/// Ownership changes, as published to PartitionManager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeaseUpdate {
    /// Its place in the order; the token of each of its leases.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// The leases, in the order in which they were ordered.
    pub leases: Arc<[Lease]>,
    /// The hash of the snapshot current at the time; 0 while there is none.
    #[serde(serialize_with = "text::hash")]
    pub snapshot_hash: u64,
}

/// A provider's health changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthChanged {
    /// Its place in the order.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// The provider.
    pub provider_id: ProviderId,
    /// Its health until now.
    pub from: ProviderHealth,
    /// Its health from here on.
    pub to: ProviderHealth,
    /// Why it is not healthy; absent if it is.
    pub cause: Option<ProvisioningError>,
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Warning {
    /// Its place in the order.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// What, with its code.
    pub error: ProvisioningError,
}
