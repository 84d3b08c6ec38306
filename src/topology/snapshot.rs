//! A topology as it is delivered.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BlockedNodes, ClusterNode, Members};
use crate::clock::Timestamp;
use crate::health::ProviderHealth;
use crate::id::ProviderId;
use crate::text;

/// The place of a delivery in the order of all deliveries: first the epoch, which rises from one start of the service
/// to the next, then the number within it, which rises by one with every delivery of any kind. A consumer that keeps the
/// highest position it has seen and drops what is not above it sees everything once. It is also the fencing token of
/// leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// Which start of the service: milliseconds since the Unix epoch at the start, or the stored epoch + 1 if greater.
    pub epoch: u64,
    /// The number of the delivery since that start; the first is 1.
    pub seq_no: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.seq_no)
    }
}

/// A backend's own mark of a state: Consul's index, Kubernetes' resource version. Opaque; for people and logs.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Revision(Option<Arc<str>>);

impl Revision {
    /// No mark: the provider has none.
    pub const NONE: Revision = Revision(None);

    /// The mark as text.
    pub fn new(mark: impl AsRef<str>) -> Self {
        Self(Some(mark.as_ref().into()))
    }

    /// The mark, if there is one.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str().unwrap_or("-"))
    }
}

/// The cluster as one provider showed it, in the form in which it is delivered. Cheap to clone.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ProviderSnapshot {
    /// The provider that it comes from.
    pub provider_id: ProviderId,
    /// The delivery by which it went out.
    pub position: Position,
    /// The members, sorted by id.
    pub members: Members,
    /// The members' hash; see [`Members::hash`].
    #[serde(serialize_with = "text::hash")]
    pub hash: u64,
    /// The provider's mark of this state.
    pub revision: Revision,
    /// The block list, sorted by node and source.
    pub blocked: BlockedNodes,
    /// The provider's health at the time.
    pub health: ProviderHealth,
    /// When it was delivered.
    pub at: Timestamp,
}

impl ProviderSnapshot {
    /// Whether the node is on the block list: by its [`NodeId`](super::NodeId), or its text.
    pub fn is_blocked(&self, node: impl AsRef<str>) -> bool {
        self.blocked.contains(node)
    }

    /// The members that are not blocked, sorted by id: those to place on and to talk to.
    pub fn usable(&self) -> impl Iterator<Item = &Arc<ClusterNode>> {
        self.members.iter().filter(|node| !self.is_blocked(node.id()))
    }

    /// The same, of those that host actors of that kind.
    pub fn usable_of_kind(&self, kind: &str) -> impl Iterator<Item = &Arc<ClusterNode>> {
        self.usable().filter(move |node| node.hosts(kind))
    }

    /// Whether the cluster is empty, by a confirmed answer of the provider.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
