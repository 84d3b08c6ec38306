//! How well a provider serves. What leads to each health is decided in [`failover`](crate::failover).

use std::fmt;

use serde::Serialize;

/// How well a provider serves; worse is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderHealth {
    /// Three errors in a row, no event for the silence timeout, or never heard from.
    Unreachable,
    /// One or two errors, doubtful or overdue data, or a stream that has just terminated.
    Degraded,
    /// The stream is open, has delivered its members, and its data is fresh.
    Healthy,
}

impl fmt::Display for ProviderHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ProviderHealth::Unreachable => "unreachable",
            ProviderHealth::Degraded => "degraded",
            ProviderHealth::Healthy => "healthy",
        })
    }
}
