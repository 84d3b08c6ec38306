//! The cluster's state behind its lock: who is registered by whom until when, and what each provider shows of it to whom.
//!
//! A member is one for as long as somebody holds it: a registration, which has a number, or whoever called the cluster
//! itself. Registrations of one node in one life hold it together, and the last one that leaves removes it; what is shown
//! is what the one that was made last says. A later life takes the id from the former one's holders; an earlier life, and
//! the same one elsewhere, is refused. A call of the cluster itself does what it says, whoever holds the node.
//!
//! Nothing here waits, reads a clock or calls anyone: time comes in with [`State::expire`], and events go out by
//! `try_send` into the streams' queues.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::id::ProviderId;
use crate::provider::{MemberChange, ProviderEvent, ProviderTermination};
use crate::providers::rival::is_rival;
use crate::topology::{ClusterNode, Members, NodeId, Revision};

/// How many events may wait in a stream before its reader gets a fresh snapshot in their place.
pub(super) const QUEUE: usize = 256;
/// How many errors survive in a queue whose changes are replaced by a snapshot: the latest.
const KEPT_ERRORS: usize = 16;

/// Who holds a member: the number of a registration.
pub(super) type Holder = u64;

/// Whoever calls the cluster itself. Registrations count from the next.
const CALLER: Holder = 0;

#[derive(Default)]
pub(super) struct State {
    members: Members,
    /// By whom each member is held: few, mostly one. Without a lease it is for good.
    holds: HashMap<NodeId, Vec<(Holder, Option<Lease>)>>,
    /// When each lease ends, the next first.
    ends: BTreeSet<(Timestamp, NodeId, Holder)>,
    /// How many registrations were made.
    holders: Holder,
    /// The latest time heard of.
    now: Timestamp,
    /// Counts the changes.
    revision: u64,
    views: BTreeMap<ProviderId, View>,
    streams_opened: u64,
}

#[derive(Clone, Copy)]
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

    /// The number of a registration that is made now.
    pub(super) fn admit(&mut self) -> Holder {
        self.holders += 1;
        self.holders
    }

    /// The registration holds the node, or goes on holding it, from now on for its time to live.
    ///
    /// # Errors
    /// Another process that is registered under the node's id.
    pub(super) fn hold(
        &mut self,
        holder: Holder,
        node: &Arc<ClusterNode>,
        ttl: Duration,
    ) -> Result<(), Arc<ClusterNode>> {
        let id = node.id();
        if let Some(shown) = self.members.get(id) {
            if is_rival(shown, node) {
                return Err(Arc::clone(shown));
            }
            if shown.incarnation() < node.incarnation() {
                self.release_all(id);
            }
        }
        self.take(id, holder, Some(ttl));
        if self.holds.get(id).into_iter().flatten().all(|(other, _)| *other <= holder) {
            let changes = self.show(Arc::clone(node)).into_iter().collect();
            self.publish(changes);
        }
        Ok(())
    }

    /// The registration no longer holds the node.
    pub(super) fn let_go(&mut self, holder: Holder, id: &NodeId) {
        if self.release(id, holder) {
            self.leave([id.clone()]);
        }
    }

    /// Registers the nodes, each with its time to live, as one change. How many of them changed the members.
    pub(super) fn register(&mut self, nodes: impl IntoIterator<Item = (Arc<ClusterNode>, Option<Duration>)>) -> usize {
        let mut changes = Vec::new();
        for (node, ttl) in nodes {
            self.release_all(node.id());
            self.take(node.id(), CALLER, ttl);
            changes.extend(self.show(node));
        }
        self.publish(changes)
    }

    /// Starts each time to live of the node anew. Whether it is a member.
    pub(super) fn renew(&mut self, id: &NodeId) -> bool {
        let holds = self.holds.get(id).into_iter().flatten();
        let leased: Vec<_> = holds.filter_map(|(holder, lease)| Some((*holder, lease.as_ref()?.ttl))).collect();
        for (holder, ttl) in leased {
            self.take(id, holder, Some(ttl));
        }
        self.members.contains(id)
    }

    pub(super) fn leave(&mut self, ids: impl IntoIterator<Item = NodeId>) -> usize {
        let mut changes = Vec::new();
        for id in ids {
            self.release_all(&id);
            if self.members.remove(&id).is_some() {
                changes.push(MemberChange::Remove(id));
            }
        }
        self.publish(changes)
    }

    pub(super) fn leave_all(&mut self) -> usize {
        let ids: Vec<NodeId> = self.members.iter().map(|node| node.id().clone()).collect();
        self.leave(ids)
    }

    /// Removes those of whom every lease has ended.
    pub(super) fn expire(&mut self, now: Timestamp) -> usize {
        // Threads read the clock before they take the lock, and so may come in another order.
        self.now = self.now.max(now);
        let mut gone = Vec::new();
        while self.ends.first().is_some_and(|(end, ..)| *end <= self.now) {
            let Some((_, id, holder)) = self.ends.pop_first() else { break };
            if self.release(&id, holder) {
                gone.push(id);
            }
        }
        if gone.is_empty() { 0 } else { self.leave(gone) }
    }

    /// When the next lease ends.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.ends.first().map(|(end, ..)| *end)
    }

    /// Somebody holds the node, for that long or for good.
    fn take(&mut self, id: &NodeId, holder: Holder, ttl: Option<Duration>) {
        let lease = ttl.map(|ttl| Lease { ttl, end: self.now + ttl });
        if let Some(lease) = &lease {
            self.ends.insert((lease.end, id.clone(), holder));
        }
        let holds = self.holds.entry(id.clone()).or_default();
        let former = match holds.iter_mut().find(|(other, _)| *other == holder) {
            Some((_, known)) => std::mem::replace(known, lease),
            None => {
                holds.push((holder, lease));
                None
            }
        };
        if let Some(former) = former.filter(|former| lease.is_none_or(|lease| lease.end != former.end)) {
            self.ends.remove(&(former.end, id.clone(), holder));
        }
    }

    /// Somebody no longer holds the node, if they did; whether nobody does by that.
    fn release(&mut self, id: &NodeId, holder: Holder) -> bool {
        let Some(holds) = self.holds.get_mut(id) else { return false };
        let Some(place) = holds.iter().position(|(other, _)| *other == holder) else { return false };
        let (_, lease) = holds.swap_remove(place);
        let is_free = holds.is_empty();
        if let Some(lease) = lease {
            self.ends.remove(&(lease.end, id.clone(), holder));
        }
        if is_free {
            self.holds.remove(id);
        }
        is_free
    }

    /// Nobody holds the node.
    fn release_all(&mut self, id: &NodeId) {
        for (holder, lease) in self.holds.remove(id).into_iter().flatten() {
            if let Some(lease) = lease {
                self.ends.remove(&(lease.end, id.clone(), holder));
            }
        }
    }

    /// Makes the node a member as it is; the change, if it is one.
    fn show(&mut self, node: Arc<ClusterNode>) -> Option<MemberChange> {
        if self.members.get(node.id()) == Some(&node) {
            return None;
        }
        self.members.insert(Arc::clone(&node));
        Some(MemberChange::Upsert(node))
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
