//! One steady, trustworthy view of who is in the cluster, for programs without an async runtime.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod clock;
mod error;
mod panics;
mod provider;
mod registry;
mod secret;
mod store;
mod topology;
mod validator;

pub use clock::{Clock, SystemClock, Timestamp};
pub use error::{ErrorCategory, ErrorCode, ProvisioningError};
pub use provider::{
    CancelGuard, CancelToken, Capabilities, ClusterProvider, Credential, MemberChange, ProviderDescriptor,
    ProviderEnvironment, ProviderEvent, ProviderFactory, ProviderHealth, ProviderId, ProviderKind, ProviderStream,
    ProviderTermination, Registration, SIGN_OF_LIFE,
};
pub use registry::{
    DefinitionDifference, ProviderEntry, ProviderRegistry, ProviderStatus, RegistryChange, RegistrySettings,
    RestoreReport,
};
pub use secret::{Secret, Secrets};
pub use store::{FileProviderStore, MAX_PROVIDERS, ProviderStore, StoredSet};
pub use topology::{
    BlockSource, BlockedNode, ClusterNode, ClusterNodeBuilder, Members, MembersBuilder, NodeId, Position,
    ProviderSnapshot, Revision, TopologyDiff,
};
pub use validator::{
    CONNECTIVITY_TIMEOUT, ProviderValidator, Suppression, SuppressionChange, SuppressionSettings, ValidProvider,
    ValidationReport, check_connectivity,
};
