//! The names of providers and of their kinds.
//!
//! They stand below everything that speaks of providers, errors among it, and know nothing of any of it; what makes a
//! text a name is decided where providers are defined.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, which has been found to be one.
            pub(crate) fn of(name: &str) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The name of a registered provider, unique in the service.
    ProviderId
}

name_type! {
    /// The kind of a provider, which decides the factory that makes it: `in-memory`, `consul`, `gossip`, `kubernetes`, or one of
    /// the host's own.
    ProviderKind
}

impl ProviderKind {
    /// A shared cluster in this process's memory.
    pub fn in_memory() -> Self {
        Self::of("in-memory")
    }

    /// A service of a Consul agent.
    pub fn consul() -> Self {
        Self::of("consul")
    }

    /// The members themselves, by gossip.
    pub fn gossip() -> Self {
        Self::of("gossip")
    }

    /// Pods or a service of a Kubernetes API server.
    pub fn kubernetes() -> Self {
        Self::of("kubernetes")
    }
}
