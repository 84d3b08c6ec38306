#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod backoff;
mod bridge;
mod clock;
mod error;
mod event;
mod failover;
mod health;
#[cfg(feature = "_http")]
mod http;
mod hub;
mod id;
#[cfg(feature = "_http")]
mod json;
mod metrics;
mod panics;
mod provider;
mod providers;
mod registry;
mod secret;
mod service;
mod store;
mod sync;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod topology;
mod validator;

pub use bridge::{Deduplicator, PartitionManagerBridge, PlacementSupervisorBridge, RemotingBridge};
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{ErrorCategory, ErrorCode, ProvisioningError};
pub use event::{
    EventStream, GateChanged, HealthChanged, Lease, LeaseUpdate, NoEvent, OwnershipChange, PauseReason, PlacementGate,
    ProviderChanged, ProvisioningEvent, Publisher, RemoteTopologyChange, RemoteTopologyEvent, RemotingWarning,
    SnapshotDelivery, StreamEnded, Subscriptions, SwitchReason, Warning,
};
pub use failover::{FailoverPolicy, StandbyMode};
pub use health::ProviderHealth;
pub use hub::{Decision, ProviderStatus, ProviderWatchHub, RemoteHealth, RemoteNode, Ticket};
pub use id::{ProviderId, ProviderKind};
pub use metrics::{BridgeMetrics, Histogram, ProvisioningMetrics};
pub use provider::{
    CancelGuard, CancelToken, Capabilities, ClusterProvider, Credential, MemberChange, ProviderDescriptor,
    ProviderEnvironment, ProviderEvent, ProviderFactory, ProviderRole, ProviderStream, ProviderTermination,
    Registration, RegistrationSite, RetryPolicy, SIGN_OF_LIFE,
};
#[cfg(feature = "consul")]
pub use providers::ConsulFactory;
#[cfg(feature = "kubernetes")]
pub use providers::KubernetesFactory;
pub use providers::{InMemoryCluster, InMemoryFactory, InMemoryFaults, InMemoryProvider};
pub use registry::{
    DefinitionDifference, Enablement, ProviderEntry, ProviderRegistry, RegistryChange, RegistrySettings, RestoreReport,
};
pub use secret::{Secret, Secrets};
pub use service::{ClusterProvisioningService, ServiceBuilder};
pub use store::{FileProviderStore, MAX_PROVIDERS, ProviderStore, StoredSet};
pub use topology::{
    BlockSource, BlockedNode, BlockedNodes, ClusterNode, ClusterNodeBuilder, Members, MembersBuilder, NodeId, Position,
    ProviderSnapshot, Revision, TopologyDiff,
};
pub use validator::{
    CONNECTIVITY_TIMEOUT, ProviderValidator, Suppression, SuppressionChange, SuppressionSettings, ValidProvider,
    ValidationReport, check_connectivity,
};
