//! The membership of the local node as the host sees it: what is asked of it, and what it is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::event::GossipEvent;
use super::feed::Standing;
use super::seat::Seat;
use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::event::EventStream;
use crate::membership::transport::Node;
use crate::membership::{GossipMetrics, NotDone, Order};
use crate::topology::{ClusterNode, Members, NodeId};

/// Somebody who would not be let in now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuarantinedNode {
    /// Who.
    pub id: NodeId,
    /// In which life it was declared dead; absent where an operator keeps out somebody who is not dead.
    pub incarnation: Option<u64>,
    /// Whom it did not answer.
    pub accusers: Vec<NodeId>,
    /// When it may come back; absent where an operator keeps it out until that is lifted.
    pub until: Option<Timestamp>,
    /// Whether an operator keeps it out.
    pub is_pinned: bool,
}

/// A change of somebody's state that was refused, since it makes no sense: what a rumour says that was overtaken, for example,
/// or evidence against a node that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedTransition {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub node: NodeId,
    /// Why, in words.
    pub reason: String,
}

/// The membership of the local node in a gossip cluster: of the provider of that name, from
/// [`GossipFactory::membership`](super::GossipFactory::membership). Clones are the same. In client mode it shows the members
/// and what is amiss, and all else is not started.
///
/// ```no_run
/// # use cluster_provisioning::*;
/// # fn of(gossip: &GossipMembership) -> Result<(), ProvisioningError> {
/// for node in gossip.quarantined() {
///     println!("{} may come back at {:?}", node.id, node.until);
/// }
/// gossip.lift(NodeId::new("node-7")?)?; // at once
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct GossipMembership {
    seat: Arc<Seat>,
}

impl GossipMembership {
    pub(super) fn new(seat: Arc<Seat>) -> Self {
        Self { seat }
    }

    /// Whether the local node is a member now; never in client mode.
    pub fn is_member(&self) -> bool {
        self.seat.is_running() && self.seat.feed.standing().0 == Standing::Inside
    }

    /// What is amiss: the node is not let in, hears from nobody, or was declared dead.
    pub fn trouble(&self) -> Option<ProvisioningError> {
        self.seat.feed.standing().1
    }

    /// The local node as it is told to others, while it runs: its incarnation rises where the one that it was started with
    /// was known already.
    pub fn local_node(&self) -> Option<Arc<ClusterNode>> {
        self.seat.ask(Node::own).flatten()
    }

    /// The port at which the member listens, while it runs.
    pub fn port(&self) -> Option<u16> {
        self.seat.ask(Node::port).flatten()
    }

    /// The members as they were announced last; none before the start.
    pub fn members(&self) -> Members {
        self.seat.feed.members()
    }

    /// Everybody who would not be let in now, in the order of the ids; nobody before the start.
    pub fn quarantined(&self) -> Vec<QuarantinedNode> {
        let entries = self.seat.ask(Node::quarantined).unwrap_or_default();
        let shown = |entry: crate::membership::Quarantined| QuarantinedNode {
            accusers: entry.accusers.iter().cloned().collect(),
            id: entry.id,
            incarnation: entry.incarnation,
            until: entry.until,
            is_pinned: entry.is_pinned,
        };
        entries.into_iter().map(shown).collect()
    }

    /// Since when all members have been known to hold the same; absent while they are not.
    pub fn converged(&self) -> Option<Timestamp> {
        self.seat.ask(Node::converged).flatten()
    }

    /// What was counted since the start.
    ///
    /// # Errors
    /// [`ErrorCode::NotStarted`](crate::ErrorCode::NotStarted), and
    /// [`ErrorCode::MetricsDisabled`](crate::ErrorCode::MetricsDisabled) every time where the definition has `metrics` off.
    pub fn metrics(&self) -> Result<GossipMetrics, ProvisioningError> {
        self.order("reading the metrics of a gossip member", Node::metrics)
    }

    /// The changes of somebody's state that were refused last, since they make no sense: 64 at the most, the oldest first;
    /// none while the member does not run.
    pub fn refused_transitions(&self) -> Vec<RefusedTransition> {
        let refused = self.seat.ask(Node::refused).unwrap_or_default();
        let shown = |refused: crate::membership::Refused| RefusedTransition {
            at: refused.at,
            reason: refused.reason.to_string(),
            node: refused.node,
        };
        refused.into_iter().map(shown).collect()
    }

    /// Nobody lets that node in, for so long or until it is [lifted](Self::lift). A member stays one until it is gone.
    ///
    /// # Errors
    /// [`ErrorCode::NotStarted`](crate::ErrorCode::NotStarted), or
    /// [`ErrorCode::BlockListFull`](crate::ErrorCode::BlockListFull) where there are 1,024 rulings already.
    pub fn keep_out(&self, node: NodeId, length: Option<Duration>) -> Result<(), ProvisioningError> {
        self.order("keeping a node out", |member| member.rule(node, Order::Pin(length)))
    }

    /// That node may come in again at once, whatever it waits for now.
    ///
    /// # Errors
    /// As [`keep_out`](Self::keep_out).
    pub fn lift(&self, node: NodeId) -> Result<(), ProvisioningError> {
        self.order("lifting a quarantine", |member| member.rule(node, Order::Lift))
    }

    /// The host has found that the node does not answer, when it spoke to it for example. It counts as one accusation: the
    /// node is suspected, asked by others, and may contradict.
    ///
    /// # Errors
    /// [`ErrorCode::NotStarted`](crate::ErrorCode::NotStarted).
    pub fn suspect(&self, node: NodeId) -> Result<(), ProvisioningError> {
        self.order("suspecting a node", |member| member.accuse(node))
    }

    /// What happens from now on. `capacity` is how many events may wait to be read before the oldest are lost.
    pub fn subscribe(&self, capacity: usize) -> EventStream<GossipEvent> {
        self.seat.feed.events().subscribe(capacity)
    }

    fn order<T>(
        &self,
        doing: &'static str,
        order: impl FnOnce(&Node) -> Result<T, NotDone>,
    ) -> Result<T, ProvisioningError> {
        let done = self.seat.ask(order).unwrap_or(Err(NotDone::NotStarted));
        done.map_err(|why| self.seat.refused(doing, why))
    }
}

impl fmt::Debug for GossipMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipMembership").field("provider", &self.seat.provider).finish_non_exhaustive()
    }
}
