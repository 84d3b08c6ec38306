//! The providers that come with this library.

#[cfg(feature = "consul")]
pub(crate) mod consul;
mod in_memory;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;

#[cfg(feature = "consul")]
pub use consul::ConsulFactory;
pub use in_memory::{InMemoryCluster, InMemoryFactory, InMemoryFaults, InMemoryProvider};
