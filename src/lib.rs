//! One steady view of who is in the cluster, for programs that run on threads and not on an async runtime.
//!
//! Providers (Consul, Kubernetes, one of your own) watch the cluster side by side. The service follows the best one that
//! is healthy, fails over to the next and back, and delivers every change once, numbered and in order. A backend that
//! fails never empties the view.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use cluster_provisioning::*;
//!
//! # fn main() -> Result<(), ProvisioningError> {
//! // A cluster in memory, so that this runs as it stands. In its place: ConsulFactory::descriptor("consul", url, "orders")?
//! let cluster = InMemoryCluster::new(SystemClock::shared());
//! let provider = ProviderDescriptor::new("memory", ProviderKind::in_memory())?;
//!
//! let service = ClusterProvisioningService::builder()
//!     .factory(Arc::new(InMemoryFactory::new().cluster("demo", &cluster)))
//!     .provider(provider)
//!     .member(ClusterNode::builder("node-1", "10.0.0.1", 7001).kind("worker").build()?)
//!     .start()?;
//! let snapshot = service.wait_for_members(1, Duration::from_secs(5))?;
//! for node in &snapshot.members {
//!     println!("{node}");
//! }
//! service.drain()?; // deregisters, and pauses placement
//! # Ok(())
//! # }
//! ```
//!
//! # Five types to know
//!
//! - [`ClusterProvisioningService`], made by its [builder](ServiceBuilder): starts, changes providers, waits, drains.
//! - [`ProviderDescriptor`]: which backend to watch, and how. Made by [`ConsulFactory`], [`KubernetesFactory`], or by hand.
//! - [`ProviderWatchHub`], cloned and handed out: the present [snapshot](ProviderSnapshot), the [gate](PlacementGate), the
//!   health of the providers, and [why](ProviderWatchHub::explain) it is as it is; read without a lock.
//! - The bridges, which a host implements as it needs them: [`PlacementSupervisorBridge`], [`PartitionManagerBridge`] and
//!   [`RemotingBridge`]. Who only wants to see what happens [subscribes](ServiceBuilder::subscribe) to
//!   [events](ProvisioningEvent).
//! - [`ProvisioningError`], with an [`ErrorCode`] that does not change, and advice.
//!
//! # Features
//!
//! `consul`, `gossip` and `kubernetes` (all by default), `kubeconfig`, `config`, and [`testkit`] for hosts' own tests. Each item says which
//! feature it needs.
//!
//! # The manual
//!
//! The package's [README](https://docs.rs/crate/cluster-provisioning/latest) begins with a whole program of 40 lines and
//! says everything else: what the view is and is not, how failover decides, every parameter, default, metric, thread and
//! error code. Beside it lie `docs/running-on-consul.md`, `-gossip.md` and `-kubernetes.md`, for operators, and the
//! examples.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod bridge;
mod civil;
mod clock;
#[cfg(feature = "config")]
mod config;
#[cfg(any(feature = "_http", all(feature = "gossip", unix)))]
mod credential;
mod error;
mod event;
mod failover;
#[cfg(any(feature = "_http", feature = "config", all(feature = "gossip", unix)))]
mod file;
mod health;
#[cfg(feature = "_http")]
mod http;
mod hub;
mod id;
#[cfg(feature = "_http")]
mod json;
#[cfg(any(test, feature = "testkit", all(feature = "gossip", unix)))]
#[cfg_attr(
    not(all(feature = "gossip", feature = "testkit", unix)),
    allow(dead_code, reason = "provider and test kit use their shares")
)]
mod membership;
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
#[cfg_attr(docsrs, doc(cfg(feature = "testkit")))]
pub mod testkit;
mod text;
mod thread;
mod topology;
mod validator;

pub use bridge::{Deduplicator, PartitionManagerBridge, PlacementSupervisorBridge, RemotingBridge};
pub use clock::{Clock, SystemClock, Timestamp};
#[cfg(feature = "config")]
#[cfg_attr(docsrs, doc(cfg(feature = "config")))]
pub use config::{MemberConfig, ServiceConfig};
pub use error::{ErrorCategory, ErrorCode, ProvisioningError};
pub use event::{
    EventStream, GateChanged, HealthChanged, Lease, LeaseUpdate, NoEvent, OwnershipChange, PauseReason, PlacementGate,
    ProviderChanged, ProvisioningEvent, Publisher, RemoteTopologyChange, RemoteTopologyEvent, RemotingWarning,
    SnapshotDelivery, StreamEnded, Subscriptions, SwitchReason, Warning,
};
pub use failover::{FailoverPolicy, FlapDamping, StandbyMode};
pub use health::ProviderHealth;
pub use hub::{Decision, ProviderStatus, ProviderWatchHub, RemoteHealth, RemoteNode, Ticket};
pub use id::{ProviderId, ProviderKind};
pub use metrics::{BridgeMetrics, Histogram, ProvisioningMetrics};
pub use provider::{
    CancelGuard, CancelToken, Capabilities, ClusterProvider, Credential, Exclusion, Exclusions, LocalNode,
    MemberChange, ProviderDescriptor, ProviderEnvironment, ProviderEvent, ProviderFactory, ProviderRole,
    ProviderStream, ProviderTermination, Registration, RegistrationSite, RetryPolicy, SIGN_OF_LIFE,
};
#[cfg(feature = "consul")]
#[cfg_attr(docsrs, doc(cfg(feature = "consul")))]
pub use providers::ConsulFactory;
#[cfg(feature = "kubernetes")]
#[cfg_attr(docsrs, doc(cfg(feature = "kubernetes")))]
pub use providers::KubernetesFactory;
#[cfg(all(feature = "gossip", unix))]
#[cfg_attr(docsrs, doc(cfg(feature = "gossip")))]
pub use providers::{
    GossipEvent, GossipFactory, GossipMembership, GossipMetrics, GossipState, GossipUpdate, QuarantinedNode,
    RefusedTransition,
};
pub use providers::{InMemoryCluster, InMemoryFactory, InMemoryFaults, InMemoryProvider};
pub use registry::{
    DefinitionDifference, Enablement, ProviderEntry, ProviderRegistry, RegistryChange, RegistrySettings, RestoreReport,
};
pub use secret::{Secret, Secrets};
pub use service::{ClusterProvisioningService, ServiceBuilder};
pub use store::{FileProviderStore, MAX_PROVIDERS, ProviderStore, StoredSet};
pub use topology::{
    BlockSource, BlockedNode, BlockedNodes, ClusterNode, ClusterNodeBuilder, Members, MembersBuilder, MembersIter,
    NodeId, Position, ProviderSnapshot, Revision, TopologyDiff,
};
pub use validator::{
    CONNECTIVITY_TIMEOUT, ProviderValidator, Suppression, SuppressionChange, SuppressionSettings, ValidProvider,
    ValidationReport, check_connectivity,
};

/// The README's programs, which are tested with the documentation's own.
#[cfg(all(doctest, feature = "consul", feature = "kubernetes"))]
#[doc = include_str!("../README.md")]
struct Readme;
