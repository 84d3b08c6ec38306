//! What a provider's stream reports.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::error::ProvisioningError;
use crate::topology::{ClusterNode, Members, NodeId, Revision};

/// One report of a provider's stream. A *refresh* is a `Snapshot` that is not doubtful, `Changes` (also empty), or a
/// `Heartbeat` with `current: true`: only a refresh clears errors, and only it confirms what was held back.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProviderEvent {
    /// The whole set of members. The first event of a stream that knows the members is one of these.
    Snapshot {
        /// The members. An empty set is a confirmed empty answer and empties the topology.
        members: Members,
        /// The backend's mark of this state.
        revision: Revision,
        /// How many entries of the answer were unusable and left out.
        skipped: usize,
    },
    /// What changed against this stream's own last state. None at all is a refresh too.
    Changes {
        /// The changes, in the order in which they happened.
        changes: Vec<MemberChange>,
        /// The backend's mark of the state after them.
        revision: Revision,
    },
    /// The provider lives, and nothing changed as far as it knows.
    Heartbeat {
        /// Whether the backend confirmed the present state just now.
        current: bool,
    },
    /// The backend answered something that the provider does not believe yet: it checks again. A sign of life; the last
    /// known good set stays, and the provider is Degraded until the next refresh.
    Doubtful {
        /// What is doubtful about it.
        reason: ProvisioningError,
    },
    /// The provider works on recovering from an error. The stream goes on; each such event counts as one error.
    Degraded {
        /// The error.
        error: ProvisioningError,
    },
    /// This stream cannot go on. It is the last event; another stream is opened after a while.
    Terminated(ProviderTermination),
}

impl ProviderEvent {
    /// A whole set of members, all of whose entries were usable.
    pub fn snapshot(members: Members, revision: Revision) -> Self {
        ProviderEvent::Snapshot { members, revision, skipped: 0 }
    }

    /// What changed, in the order in which it happened.
    pub fn changes(changes: Vec<MemberChange>, revision: Revision) -> Self {
        ProviderEvent::Changes { changes, revision }
    }

    /// The end of the stream by that error.
    pub fn failed(reason: ProvisioningError) -> Self {
        ProviderEvent::Terminated(ProviderTermination::Errored { reason })
    }
}

/// One change to a stream's set of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// The node is a member, new or changed.
    Upsert(Arc<ClusterNode>),
    /// The node is no longer a member.
    Remove(NodeId),
}

/// How a stream came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderTermination {
    /// In good order.
    Ended,
    /// By an error.
    Errored {
        /// The error.
        reason: ProvisioningError,
    },
}

impl fmt::Display for ProviderTermination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProviderTermination::Ended => f.write_str("ended"),
            ProviderTermination::Errored { reason } => write!(f, "{reason}"),
        }
    }
}
