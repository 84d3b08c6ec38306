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
