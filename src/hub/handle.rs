//! The hub's public handle: lock-free reads of the last completed tick, and commands.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::lifecycle::Phase;
use super::mailbox::{Mailbox, Message, refused};
use super::{Decision, Input, ProviderStatus, Publication, RemoteNode};
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{EventStream, OwnershipChange, PlacementGate, ProvisioningEvent, StreamEnded, Subscriptions};
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::provider::LocalNode;
use crate::topology::{BlockSource, BlockedNodes, ClusterNode, NodeId, Position, ProviderSnapshot};

/// The handle by which the host reads the topology and orders things, from any thread and from inside callbacks. Cheap
/// to clone.
///
/// Reads take no lock and show the last completed tick. Commands are carried out by the hub's thread, in order; each
/// returns a [`Ticket`] for its outcome, which may be dropped.
#[derive(Clone)]
pub struct ProviderWatchHub {
    pub(crate) publication: Publication,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hub_thread: Arc<OnceLock<ThreadId>>,
    pub(crate) subscriptions: Subscriptions<Arc<ProvisioningEvent>>,
    /// Counted by whoever validates, not by the hub.
    pub(crate) validation_failures: Arc<AtomicU64>,
    pub(crate) local_node: LocalNode,
}

impl ProviderWatchHub {
    /// The last snapshot delivered, also while placement is paused; `None` before the first.
    pub fn snapshot(&self) -> Option<Arc<ProviderSnapshot>> {
        self.publication.load().snapshot.clone()
    }

    /// The local node, in member mode, as it is described now: its incarnation may be greater than at the start, where that one
    /// was known to others already.
    pub fn local_node(&self) -> Option<Arc<ClusterNode>> {
        self.local_node.get()
    }

    /// The snapshot to build a partition map from.
    ///
    /// # Errors
    /// Why there is none to work with: [`ErrorCode::NoSnapshot`], [`ErrorCode::ProvisioningUnavailable`] or
    /// [`ErrorCode::DataStale`], with the state of each provider; [`ErrorCode::Stopped`] if the service came to its end by
    /// a fault. While draining, and after a shutdown, it is the last one.
    pub fn latest_snapshot(&self) -> Result<Arc<ProviderSnapshot>, ProvisioningError> {
        let state = self.publication.load();
        state.latest_snapshot(self.mailbox.life().gate(state.gate))
    }

    /// Whether new placements may be made. Paused from the moment on at which draining or a shutdown was ordered, also
    /// while a callback keeps the hub from getting to it.
    pub fn gate(&self) -> PlacementGate {
        self.mailbox.life().gate(self.publication.load().gate)
    }

    /// The position of the last delivery of the last completed tick.
    pub fn position(&self) -> Position {
        self.publication.load().position
    }

    /// The providers in force, in the order of registration.
    pub fn providers(&self) -> Vec<ProviderStatus> {
        self.publication.load().providers.clone()
    }

    /// The provider that is followed.
    pub fn active_provider(&self) -> Option<ProviderId> {
        self.publication.load().providers.iter().find(|status| status.active).map(|status| status.id.clone())
    }

    /// The end signal of the stream that came to its end last, whichever provider's it was; `None` if none has. Those of
    /// each provider are in [`ProviderStatus::last_end`].
    pub fn last_stream_end(&self) -> Option<Arc<StreamEnded>> {
        self.publication.load().last_end.clone()
    }

    /// The block list, sorted by node and source.
    pub fn blocked(&self) -> BlockedNodes {
        self.publication.load().blocked.clone()
    }

    /// The health of every remote node that is known of, sorted by id: the members that Remoting has been told of, those
    /// taken out by a failure detector, and up to 1,024 that left. Costs as much as there are nodes.
    pub fn remote_nodes(&self) -> Vec<RemoteNode> {
        self.publication.load().remote_nodes()
    }

    /// What has been counted and measured since the start, as of the delivery that it names.
    pub fn metrics(&self) -> ProvisioningMetrics {
        let validation_failures = self.validation_failures.load(Ordering::Relaxed);
        ProvisioningMetrics { validation_failures, ..ProvisioningMetrics::clone(&self.publication.load().metrics) }
    }

    /// The last decisions (up to 64) with their reasons, in words, oldest first.
    pub fn explain(&self) -> Arc<[Decision]> {
        Arc::clone(&self.publication.load().decisions)
    }

    /// Subscribes to all deliveries from here on. At most `capacity` wait; a subscriber that does not read loses the
    /// oldest and sees how many.
    pub fn subscribe(&self, capacity: usize) -> EventStream<Arc<ProvisioningEvent>> {
        self.subscriptions.subscribe(capacity)
    }

    /// Remoting quarantined the node: it is marked as blocked until [`reconnected`](Self::reconnected) was called and
    /// the next refresh contains it, or it comes back with another incarnation, or it was no member for 24 h. Calling it
    /// again cancels a pending return.
    pub fn quarantine(&self, node: NodeId, reason: impl Into<String>) -> Ticket {
        self.send(Input::Block { node, source: BlockSource::Remoting, reason: reason.into(), lasting: None })
    }

    /// Remoting has regained the connection to a node that it had quarantined. The ticket fails with
    /// [`ErrorCode::NotBlocked`] if it had not.
    pub fn reconnected(&self, node: NodeId) -> Ticket {
        self.send(Input::Reconnected { node })
    }

    /// An operator blocks the node: it is marked until [`unblock`](Self::unblock).
    pub fn block(&self, node: NodeId, reason: impl Into<String>) -> Ticket {
        self.send(Input::Block { node, source: BlockSource::Operator, reason: reason.into(), lasting: None })
    }

    /// Ends an operator's block. The ticket fails with [`ErrorCode::NotBlocked`] if there is none.
    pub fn unblock(&self, node: NodeId) -> Ticket {
        self.send(Input::Lift { node, source: BlockSource::Operator })
    }

    /// A failure detector takes the node out of the members for that time.
    pub fn exclude(&self, node: NodeId, reason: impl Into<String>, lasting: Duration) -> Ticket {
        let source = BlockSource::FailureDetector;
        self.send(Input::Block { node, source, reason: reason.into(), lasting: Some(lasting) })
    }

    /// A failure detector's exclusion ends early. The ticket fails with [`ErrorCode::NotBlocked`] if there is none.
    pub fn readmit(&self, node: NodeId) -> Ticket {
        self.send(Input::Lift { node, source: BlockSource::FailureDetector })
    }

    /// Follows this provider whatever the priorities, until [`unpin`](Self::unpin). While it is unreachable another
    /// serves, with a warning. The ticket fails with [`ErrorCode::UnknownProvider`] if it is not in force.
    pub fn pin(&self, provider: ProviderId) -> Ticket {
        self.send(Input::Pin(provider))
    }

    /// Chooses the provider freely again.
    pub fn unpin(&self) -> Ticket {
        self.send(Input::Unpin)
    }

    /// Publishes ownership changes to PartitionManager as leases, in a tick of their own.
    pub fn publish_ownership(&self, changes: Vec<OwnershipChange>) -> Ticket {
        self.send(Input::PublishOwnership(changes))
    }

    pub(crate) fn send(&self, input: Input) -> Ticket {
        let (reply, outcome) = bounded(1);
        let message = Message::Input { input, at: self.clock.now(), reply: Some(reply.clone()) };
        // Never blocks: a callback that waited for room in the inbox would wait for itself.
        if let Err(refusal) = self.mailbox.send(message) {
            _ = reply.try_send(Err(refused(refusal)));
        }
        Ticket { outcome, hub_thread: Arc::clone(&self.hub_thread) }
    }

    pub(crate) fn is_hub_thread(&self) -> bool {
        self.hub_thread.get() == Some(&std::thread::current().id())
    }

    /// Refuses what would wait for the hub inside one of its callbacks.
    pub(crate) fn forbid_in_callback(&self, doing: impl Into<Cow<'static, str>>) -> Result<(), ProvisioningError> {
        if !self.is_hub_thread() {
            return Ok(());
        }
        let detail = "inside a callback the hub would wait for itself";
        Err(ProvisioningError::new(ErrorCode::WouldBlock, doing, detail))
    }

    /// Refuses what makes no sense any more.
    pub(crate) fn forbid_while_draining(&self, doing: impl Into<Cow<'static, str>>) -> Result<(), ProvisioningError> {
        match self.mailbox.life().phase() {
            Phase::Running => Ok(()),
            Phase::Failed => Err(ProvisioningError::new(ErrorCode::Stopped, doing, "the hub's thread has ended")),
            _ => Err(ProvisioningError::new(ErrorCode::Draining, doing, "the service is shutting down")),
        }
    }
}

impl std::fmt::Debug for ProviderWatchHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.publication.load();
        f.debug_struct("ProviderWatchHub").field("position", &state.position).field("gate", &self.gate()).finish()
    }
}

/// The outcome of a command, once the hub has carried it out: its tick is then through, and reads show it.
#[derive(Debug)]
#[must_use = "the command may fail: wait for its outcome, or let go of the ticket with `drop`"]
pub struct Ticket {
    outcome: Receiver<Result<(), ProvisioningError>>,
    hub_thread: Arc<OnceLock<ThreadId>>,
}

impl Ticket {
    /// Waits for the outcome.
    ///
    /// # Errors
    /// The command's own error; [`ErrorCode::WouldBlock`] at once inside a callback of the hub;
    /// [`ErrorCode::WaitTimedOut`] if the time is over first; [`ErrorCode::Stopped`] if the hub stopped before.
    pub fn wait(&self, timeout: Duration) -> Result<(), ProvisioningError> {
        let doing = "waiting for the outcome of a command";
        if self.hub_thread.get() == Some(&std::thread::current().id()) {
            let detail = "the hub cannot carry out the command before this callback has returned";
            return Err(ProvisioningError::new(ErrorCode::WouldBlock, doing, detail));
        }
        match self.outcome.recv_timeout(timeout) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                let detail = format!("the hub did not get to it within {timeout:?}");
                let error = ProvisioningError::new(ErrorCode::WaitTimedOut, doing, detail);
                Err(error.with_advice("wait longer, or look for a bridge's callback that does not return"))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(ProvisioningError::new(ErrorCode::Stopped, doing, "the hub has stopped"))
            }
        }
    }
}
