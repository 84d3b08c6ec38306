//! Faults to order, for tests and demonstrations: what an in-memory provider does instead of working.

use std::fmt;
use std::sync::Arc;

use super::Shared;
use crate::error::ProvisioningError;
use crate::id::ProviderId;
use crate::provider::{ProviderEvent, ProviderTermination};
use crate::topology::NodeId;

/// What can be made to go wrong for one provider of an [`InMemoryCluster`](super::InMemoryCluster). Faults concern that
/// provider alone; the cluster itself and its other providers go on. They last until they are withdrawn, also for
/// streams that are opened later, and several may be in force together.
#[derive(Clone)]
pub struct InMemoryFaults {
    shared: Arc<Shared>,
    provider: ProviderId,
}

impl InMemoryFaults {
    pub(super) fn new(shared: Arc<Shared>, provider: ProviderId) -> Self {
        Self { shared, provider }
    }

    /// The provider's open streams report the error once ([`ProviderEvent::Degraded`]) and go on. How many streams
    /// that were: none if the provider is silent.
    pub fn fail_streams(&self, error: ProvisioningError) -> usize {
        let error = error.with_provider(&self.provider);
        self.shared.lock().report(&self.provider, &ProviderEvent::Degraded { error })
    }

    /// The provider's open streams report once that they do not believe their backend ([`ProviderEvent::Doubtful`]) and
    /// go on. How many streams that were: none if the provider is silent.
    pub fn doubt_streams(&self, reason: ProvisioningError) -> usize {
        let reason = reason.with_provider(&self.provider);
        self.shared.lock().report(&self.provider, &ProviderEvent::Doubtful { reason })
    }

    /// The provider's open streams end, those of a silent provider too. New ones can be opened. How many they were.
    pub fn end_streams(&self, termination: ProviderTermination) -> usize {
        self.shared.lock().end(&self.provider, &termination)
    }

    /// From now on the provider opens no stream, is not reachable, and neither registers nor renews: all of that fails
    /// with the error. Open streams go on.
    pub fn refuse_connections(&self, error: ProvisioningError) {
        self.shared.lock().view_mut(&self.provider).refused = Some(error.with_provider(&self.provider));
    }

    /// Ends [`refuse_connections`](Self::refuse_connections).
    pub fn accept_connections(&self) {
        self.shared.lock().view_mut(&self.provider).refused = None;
    }

    /// From now on the provider's streams say nothing at all, not even that they live, and what is queued in them is
    /// lost. Streams that are opened meanwhile are silent from the start.
    pub fn fall_silent(&self) {
        self.shared.lock().fall_silent(&self.provider);
    }

    /// Ends [`fall_silent`](Self::fall_silent): every open stream says all that it sees.
    pub fn speak(&self) {
        self.shared.lock().speak(&self.provider);
    }

    /// From now on the provider hears nothing of the cluster, as if its backend were cut off from the others: it goes on
    /// showing what it knew, and gives signs of life that do not vouch for it (`Heartbeat { current: false }`).
    pub fn pause(&self) {
        self.shared.lock_expired().pause(&self.provider);
    }

    /// Ends [`pause`](Self::pause): every open stream says all that it sees.
    pub fn resume(&self) {
        self.shared.lock_expired().resume(&self.provider);
    }

    /// From now on the provider does not see these nodes, and sees all others: the part of the cluster on the other side
    /// of a partition. Replaces what was hidden before. Every open stream says all that it sees.
    pub fn hide(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let nodes = nodes.into_iter().collect();
        self.shared.lock_expired().hide(&self.provider, nodes);
    }

    /// Ends [`hide`](Self::hide).
    pub fn reveal(&self) {
        self.hide([]);
    }
}

impl fmt::Debug for InMemoryFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryFaults").field("provider", &self.provider).finish_non_exhaustive()
    }
}
