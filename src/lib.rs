//! One steady, trustworthy view of who is in the cluster, for programs without an async runtime.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bridge;
mod clock;
mod error;
mod event;
mod metrics;
mod provider;
mod providers;
mod secret;
mod topology;

pub use bridge::Deduplicator;
pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{ErrorCategory, ErrorCode, ProvisioningError};
pub use event::{EventStream, NoEvent, Publisher, Subscriptions};
pub use metrics::Histogram;
pub use provider::{
    CancelGuard, CancelToken, Capabilities, ClusterProvider, Credential, MemberChange, ProviderDescriptor,
    ProviderEnvironment, ProviderEvent, ProviderFactory, ProviderHealth, ProviderId, ProviderKind, ProviderStream,
    ProviderTermination, Registration, SIGN_OF_LIFE,
};
pub use providers::{InMemoryCluster, InMemoryFactory, InMemoryFaults, InMemoryProvider};
pub use secret::{Secret, Secrets};
pub use topology::{
    BlockSource, BlockedNode, ClusterNode, ClusterNodeBuilder, Members, MembersBuilder, NodeId, Position,
    ProviderSnapshot, Revision, TopologyDiff,
};
