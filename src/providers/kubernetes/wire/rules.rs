//! By which rules objects become nodes, as the definition has them.

use std::net::IpAddr;

/// What is watched, and its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    Pods(PodRules),
    Slices(SliceRules),
}

impl Rules {
    /// Of which kind a list of what is watched is.
    pub(super) fn kind_of_list(&self) -> &'static str {
        match self {
            Rules::Pods(_) => "PodList",
            Rules::Slices(_) => "EndpointSliceList",
        }
    }
}

/// How a pod becomes a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodRules {
    pub(crate) family: Family,
    /// The port of pods that have no label of it.
    pub(crate) port: Option<Port>,
    /// Whether a pod has to be ready. Readiness may itself depend on membership.
    pub(crate) ready: bool,
    /// The container that the node runs in: it has to run, and its restarts are new lives of the node.
    pub(crate) container: Option<String>,
}

/// How an endpoint of a slice becomes a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SliceRules {
    pub(crate) family: Family,
    /// The port; without it, a slice's only one.
    pub(crate) port: Option<Port>,
    /// Whether endpoints that are not ready count as if they were, as long as they do not terminate.
    pub(crate) not_ready: bool,
}

/// A port that is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// The one of that name.
    Named(String),
    /// That one, whether it is declared or not.
    Number(u16),
}

/// Which of several addresses is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Family {
    /// The primary one.
    #[default]
    Any,
    Ipv4,
    Ipv6,
}

impl Family {
    /// Whether an address is of the family.
    pub(super) fn has(self, address: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::Ipv4 => address.is_ipv4(),
            Family::Ipv6 => address.is_ipv6(),
        }
    }
}
