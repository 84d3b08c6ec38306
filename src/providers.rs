//! The providers that come with this library.

#[cfg(feature = "_http")]
mod budget;
#[cfg(feature = "_http")]
mod connection;
#[cfg(feature = "consul")]
pub(crate) mod consul;
#[cfg(all(feature = "gossip", unix))]
mod gossip;
mod in_memory;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
mod parameter;
#[cfg(feature = "_http")]
mod presence;
mod rival;
#[cfg(feature = "_http")]
mod source;
#[cfg(feature = "_http")]
mod tls;
#[cfg(feature = "_http")]
mod watching;

#[cfg(feature = "consul")]
pub use consul::ConsulFactory;
#[cfg(all(feature = "gossip", unix))]
pub use gossip::{
    GossipEvent, GossipFactory, GossipMembership, GossipMetrics, GossipState, GossipUpdate, QuarantinedNode,
    RefusedTransition,
};
pub use in_memory::{InMemoryCluster, InMemoryFactory, InMemoryFaults, InMemoryProvider};
#[cfg(feature = "kubernetes")]
pub use kubernetes::KubernetesFactory;

/// What a file may say of the parameters of each kind, as a JSON Schema.
#[cfg(all(test, feature = "config"))]
pub(crate) fn parameter_schemas() -> Vec<(crate::id::ProviderKind, serde_json::Value)> {
    use crate::id::ProviderKind;
    vec![
        #[cfg(feature = "consul")]
        (ProviderKind::consul(), consul::parameters::ALL.schema()),
        #[cfg(all(feature = "gossip", unix))]
        (ProviderKind::gossip(), gossip::parameters::ALL.schema()),
        (ProviderKind::in_memory(), in_memory::parameters::ALL.schema()),
        #[cfg(feature = "kubernetes")]
        (ProviderKind::kubernetes(), kubernetes::parameters::ALL.schema()),
    ]
}
