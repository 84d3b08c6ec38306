//! The cluster's state behind its lock: who is registered until when, and what each provider shows of it to whom.
//!
//! Nothing here waits, reads a clock or calls anyone: time comes in with [`State::expire`], and events go out by
//! `try_send` into the streams' queues.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::provider::{MemberChange, ProviderEvent, ProviderId, ProviderTermination};
use crate::topology::{ClusterNode, Members, NodeId, Revision};

/// How many events may wait in a stream before its reader gets a fresh snapshot in their place.
pub(super) const QUEUE: usize = 256;
/// How many errors survive in a queue whose changes are replaced by a snapshot: the latest.
const KEPT_ERRORS: usize = 16;

#[derive(Default)]
pub(super) struct State {
    members: Members,
    leases: HashMap<NodeId, Lease>,
    /// When each lease ends, the next first.
    ends: BTreeSet<(Timestamp, NodeId)>,
    /// The latest time heard of.
    now: Timestamp,
    /// Counts the changes.
    revision: u64,
    views: BTreeMap<ProviderId, View>,
    streams_opened: u64,
}

struct Lease {
    ttl: Duration,
    end: Timestamp,
}

/// What one provider shows.
#[derive(Default)]
pub(super) struct View {
    pub(super) refused: Option<ProvisioningError>,
    pub(super) silent: bool,
    /// What it goes on showing while it is paused.
    paused: Option<Members>,
    hidden: BTreeSet<NodeId>,
    streams: Vec<StreamEnd>,
}

/// The cluster's end of a stream. The queue's other end is kept beside it so that it can be emptied.
struct StreamEnd {
    number: u64,
    sender: Sender<ProviderEvent>,
    queue: Receiver<ProviderEvent>,
}

impl State {
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Registers the nodes, each with its time to live, as one change. How many of them changed the members.
    pub(super) fn register(&mut self, nodes: impl IntoIterator<Item = (Arc<ClusterNode>, Option<Duration>)>) -> usize {
        let mut changes = Vec::new();
        for (node, ttl) in nodes {
            self.release(node.id());
            if let Some(ttl) = ttl {
                self.lease(node.id(), ttl);
            }
            if self.members.get(node.id()) != Some(&node) {
                self.members.insert(Arc::clone(&node));
                changes.push(MemberChange::Upsert(node));
            }
        }
        self.publish(changes)
    }

    pub(super) fn renew(&mut self, id: &NodeId) -> bool {
        if let Some(lease) = self.release(id) {
            self.lease(id, lease.ttl);
        }
        self.members.contains(id)
    }

    pub(super) fn leave(&mut self, ids: impl IntoIterator<Item = NodeId>) -> usize {
        let mut changes = Vec::new();
        for id in ids {
            self.release(&id);
            if self.members.remove(&id).is_some() {
                changes.push(MemberChange::Remove(id));
            }
        }
        self.publish(changes)
    }

    /// Removes the node if it is still the one given, not another that registered under its id later.
    pub(super) fn leave_as(&mut self, node: &ClusterNode) {
        if self.members.get(node.id()).is_some_and(|present| **present == *node) {
            self.leave([node.id().clone()]);
        }
    }

    pub(super) fn leave_all(&mut self) -> usize {
        let ids: Vec<NodeId> = self.members.iter().map(|node| node.id().clone()).collect();
        self.leave(ids)
    }

    /// Removes those whose lease has ended.
    pub(super) fn expire(&mut self, now: Timestamp) -> usize {
        // Threads read the clock before they take the lock, and so may come in another order.
        self.now = self.now.max(now);
        let mut gone = Vec::new();
        while self.ends.first().is_some_and(|(end, _)| *end <= self.now) {
            let Some((_, id)) = self.ends.pop_first() else { break };
            self.leases.remove(&id);
            gone.push(id);
        }
        if gone.is_empty() { 0 } else { self.leave(gone) }
    }

    /// When the next lease ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(end, _)| *end)
    }

    fn lease(&mut self, id: &NodeId, ttl: Duration) {
        let end = self.now + ttl;
        self.ends.insert((end, id.clone()));
        self.leases.insert(id.clone(), Lease { ttl, end });
    }

    fn release(&mut self, id: &NodeId) -> Option<Lease> {
        let (id, lease) = self.leases.remove_entry(id)?;
        self.ends.remove(&(lease.end, id));
        Some(lease)
    }

    /// Tells every stream what changed. How many changes there were.
    fn publish(&mut self, changes: Vec<MemberChange>) -> usize {
        if changes.is_empty() {
            return 0;
        }
        let count = changes.len();
        self.revision += 1;
        let revision = self.mark();
        for view in self.views.values() {
            if view.silent || view.paused.is_some() || view.streams.is_empty() {
                continue;
            }
            let mut seen = changes.clone();
            seen.retain(|change| !view.hidden.contains(change.id()));
            if !seen.is_empty() {
                view.send(&ProviderEvent::Changes { changes: seen, revision: revision.clone() }, &self.members);
            }
        }
        count
    }

    fn mark(&self) -> Revision {
        Revision::new(self.revision.to_string())
    }

    /// The view of that provider, if anything was ever done with it.
    pub(super) fn view(&self, provider: &ProviderId) -> Option<&View> {
        self.views.get(provider)
    }

    pub(super) fn view_mut(&mut self, provider: &ProviderId) -> &mut View {
        self.views.entry(provider.clone()).or_default()
    }

    /// Opens a stream, which begins with a snapshot. Its number and its queue.
    pub(super) fn open(&mut self, provider: &ProviderId) -> (u64, Receiver<ProviderEvent>) {
        self.streams_opened += 1;
        let (number, revision) = (self.streams_opened, self.mark());
        let (sender, queue) = bounded(QUEUE);
        let end = StreamEnd { number, sender, queue: queue.clone() };
        let view = self.views.entry(provider.clone()).or_default();
        if !view.silent {
            end.send(&view.snapshot(&self.members, revision), Members::new);
        }
        view.streams.push(end);
        (number, queue)
    }

    pub(super) fn close(&mut self, provider: &ProviderId, number: u64) {
        if let Some(view) = self.views.get_mut(provider) {
            view.streams.retain(|end| end.number != number);
        }
    }

    /// Puts the event into the queue of each of the provider's streams; a silent provider says nothing.
    pub(super) fn report(&mut self, provider: &ProviderId, event: &ProviderEvent) -> usize {
        let Some(view) = self.views.get(provider).filter(|view| !view.silent) else { return 0 };
        view.send(event, &self.members);
        view.streams.len()
    }

    /// Ends the provider's streams.
    pub(super) fn end(&mut self, provider: &ProviderId, termination: &ProviderTermination) -> usize {
        let Some(view) = self.views.get_mut(provider) else { return 0 };
        view.send(&ProviderEvent::Terminated(termination.clone()), &self.members);
        std::mem::take(&mut view.streams).len()
    }

    pub(super) fn fall_silent(&mut self, provider: &ProviderId) {
        let view = self.view_mut(provider);
        view.silent = true;
        for end in &view.streams {
            while end.queue.try_recv().is_ok() {}
        }
    }

    pub(super) fn speak(&mut self, provider: &ProviderId) {
        let view = self.view_mut(provider);
        if std::mem::replace(&mut view.silent, false) {
            self.show_whole(provider);
        }
    }

    pub(super) fn pause(&mut self, provider: &ProviderId) {
        let members = self.members.clone();
        let view = self.view_mut(provider);
        if view.paused.is_none() {
            view.paused = Some(view.shown(&members));
        }
    }

    pub(super) fn resume(&mut self, provider: &ProviderId) {
        if self.view_mut(provider).paused.take().is_some() {
            self.show_whole(provider);
        }
    }

    pub(super) fn hide(&mut self, provider: &ProviderId, ids: BTreeSet<NodeId>) {
        let view = self.view_mut(provider);
        if view.hidden != ids {
            view.hidden = ids;
            self.show_whole(provider);
        }
    }

    /// Shows the provider's streams all that it sees now, where what it sees has changed otherwise than by changes.
    fn show_whole(&mut self, provider: &ProviderId) {
        let revision = self.mark();
        if let Some(view) = self.views.get(provider).filter(|view| !view.silent && view.paused.is_none()) {
            view.send(&view.snapshot(&self.members, revision), &self.members);
        }
    }
}

impl View {
    /// Whether it vouches for what it shows.
    pub(super) fn is_current(&self) -> bool {
        self.paused.is_none()
    }

    /// What it shows of the cluster's members.
    fn shown(&self, members: &Members) -> Members {
        if let Some(paused) = &self.paused {
            return paused.clone();
        }
        let mut shown = members.clone();
        for id in &self.hidden {
            shown.remove(id);
        }
        shown
    }

    fn snapshot(&self, members: &Members, revision: Revision) -> ProviderEvent {
        ProviderEvent::Snapshot { members: self.shown(members), revision, skipped: 0 }
    }

    fn send(&self, event: &ProviderEvent, members: &Members) {
        for end in &self.streams {
            end.send(event, || self.shown(members));
        }
    }
}

impl StreamEnd {
    /// Queues the event. If the queue is full, a snapshot of what is shown takes the place of everything in it that is
    /// about members; the latest errors, and the end, stay where they stood relative to it.
    fn send(&self, event: &ProviderEvent, shown: impl FnOnce() -> Members) {
        let Err(TrySendError::Full(event)) = self.sender.try_send(event.clone()) else { return };
        let mut kept = Vec::new();
        let mut place = 0;
        let mut latest = Revision::NONE;
        for event in self.queue.try_iter().chain([event]) {
            match event {
                ProviderEvent::Snapshot { revision, .. } | ProviderEvent::Changes { revision, .. } => {
                    place = kept.len();
                    latest = revision;
                }
                other => kept.push(other),
            }
        }
        let surplus = kept.len().saturating_sub(KEPT_ERRORS);
        kept.drain(..surplus);
        let snapshot = ProviderEvent::Snapshot { members: shown(), revision: latest, skipped: 0 };
        kept.insert(place.saturating_sub(surplus), snapshot);
        for event in kept {
            // There is room: the queue was emptied, and only the holder of the lock fills it.
            let _ = self.sender.try_send(event);
        }
    }
}

impl MemberChange {
    /// The node that it is about.
    fn id(&self) -> &NodeId {
        match self {
            MemberChange::Upsert(node) => node.id(),
            MemberChange::Remove(id) => id,
        }
    }
}
