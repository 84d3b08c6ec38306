//! The providers that come with this library.

mod in_memory;

pub use in_memory::{InMemoryCluster, InMemoryFactory, InMemoryFaults, InMemoryProvider};
