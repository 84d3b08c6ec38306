//! One steady, trustworthy view of who is in the cluster, for programs without an async runtime.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod clock;
mod error;
#[cfg(feature = "consul")]
mod http;
mod provider;
mod providers;
mod secret;
mod topology;

pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{ErrorCategory, ErrorCode, ProvisioningError};
pub use provider::{
    CancelGuard, CancelToken, Capabilities, ClusterProvider, Credential, MemberChange, ProviderDescriptor,
    ProviderEnvironment, ProviderEvent, ProviderFactory, ProviderHealth, ProviderId, ProviderKind, ProviderStream,
    ProviderTermination, Registration, SIGN_OF_LIFE,
};
#[cfg(feature = "consul")]
pub use providers::consul::ConsulFactory;
pub use secret::{Secret, Secrets};
pub use topology::{
    BlockSource, BlockedNode, ClusterNode, ClusterNodeBuilder, Members, MembersBuilder, NodeId, Position,
    ProviderSnapshot, Revision, TopologyDiff,
};
