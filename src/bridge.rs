//! The host's side: what the service calls, and what helps the host with those calls.

mod deduplicator;

pub use deduplicator::Deduplicator;
