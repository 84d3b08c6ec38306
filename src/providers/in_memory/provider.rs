//! The in-memory cluster as a provider: its streams, its registrations, and the factory that makes it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};

use super::parameters;
use super::state::Holder;
use super::{InMemoryCluster, Shared};
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::{ProviderId, ProviderKind};
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, Credential, ProviderDescriptor, ProviderEnvironment, ProviderEvent,
    ProviderFactory, ProviderStream, ProviderTermination, Registration, SIGN_OF_LIFE,
};
use crate::topology::ClusterNode;

/// How close to its time an expiry is noticed at the best.
const EXPIRY_GRAIN: Duration = Duration::from_millis(1);

/// A provider over an [`InMemoryCluster`].
///
/// Its descriptor has no endpoints and no credential; `cluster` is for the [factory](InMemoryFactory).
///
#[doc = include_str!("parameters.md")]
pub struct InMemoryProvider {
    descriptor: ProviderDescriptor,
    shared: Arc<Shared>,
    ttl: Duration,
    heartbeat: Duration,
}

impl InMemoryProvider {
    /// A provider over that cluster.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownField`] or [`ErrorCode::InvalidValue`], naming the field, if the descriptor holds anything
    /// that this kind does not know, or a duration that is malformed or out of range.
    pub fn new(descriptor: ProviderDescriptor, cluster: &InMemoryCluster) -> Result<Self, ProvisioningError> {
        let (ttl, heartbeat) = read_parameters(&descriptor)?;
        Ok(Self { descriptor, shared: Arc::clone(&cluster.shared), ttl, heartbeat })
    }

    /// Whether connections are refused to this provider.
    fn connect(&self) -> Result<(), ProvisioningError> {
        refusal(&self.shared, &self.descriptor.id).map_or(Ok(()), Err)
    }
}

fn refusal(shared: &Shared, provider: &ProviderId) -> Option<ProvisioningError> {
    shared.lock().view(provider).and_then(|view| view.refused.clone())
}

/// The time to live and the heartbeat.
fn read_parameters(descriptor: &ProviderDescriptor) -> Result<(Duration, Duration), ProvisioningError> {
    parameters::ALL.check(descriptor)?;
    if !descriptor.endpoints.is_empty() {
        return Err(descriptor.refuse(ErrorCode::UnknownField, "endpoints", "the kind in-memory has none"));
    }
    if descriptor.credential != Credential::None {
        return Err(descriptor.refuse(ErrorCode::UnknownField, "credential", "the kind in-memory needs none"));
    }
    Ok((parameters::TTL.duration(descriptor)?, parameters::HEARTBEAT.duration(descriptor)?))
}

impl ClusterProvider for InMemoryProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::WATCH_AND_REGISTER
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(SIGN_OF_LIFE)
    }

    fn check_connectivity(&self, _cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.connect()
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        let provider = self.descriptor.id.clone();
        let mut state = self.shared.lock_expired();
        if let Some(error) = state.view(&provider).and_then(|view| view.refused.clone()) {
            return Err(error);
        }
        let (number, queue) = state.open(&provider);
        drop(state);
        Ok(Box::new(InMemoryStream {
            shared: Arc::clone(&self.shared),
            provider,
            number,
            queue,
            cancel: cancel.clone(),
            heartbeat: self.heartbeat,
        }))
    }

    fn registration(&self, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        let holder = self.shared.lock().admit();
        Ok(Box::new(InMemoryRegistration {
            shared: Arc::clone(&self.shared),
            provider: self.descriptor.id.clone(),
            holder,
            node: Arc::new(node.clone()),
            ttl: self.ttl,
            held: false,
        }))
    }
}

/// A watch of one provider's view.
struct InMemoryStream {
    shared: Arc<Shared>,
    provider: ProviderId,
    number: u64,
    queue: Receiver<ProviderEvent>,
    cancel: CancelToken,
    heartbeat: Duration,
}

impl InMemoryStream {
    /// How long until the next expiry is due by the cluster's clock.
    fn until_expiry(&self) -> Option<Duration> {
        let now = self.shared.clock.now();
        self.shared.lock().next_end().map(|end| end.since(now).max(EXPIRY_GRAIN))
    }

    /// The sign of life that is due, unless the provider is silent.
    fn sign_of_life(&self) -> Option<ProviderEvent> {
        let state = self.shared.lock();
        match state.view(&self.provider) {
            Some(view) if view.silent => None,
            view => Some(ProviderEvent::Heartbeat { current: view.is_none_or(|view| view.is_current()) }),
        }
    }
}

impl ProviderStream for InMemoryStream {
    fn next(&mut self) -> ProviderEvent {
        // What is there already needs no timers.
        if let Ok(event) = self.queue.try_recv() {
            return event;
        }
        let mut due = Instant::now() + self.heartbeat;
        let mut heed_expiry = true;
        loop {
            let until_due = due.saturating_duration_since(Instant::now());
            let until_expiry = if heed_expiry { self.until_expiry() } else { None };
            let wait = until_expiry.map_or(until_due, |until| until.min(until_due));
            select! {
                recv(self.queue) -> event => {
                    // Disconnected: the stream has ended, and its end has been told before.
                    return event.unwrap_or(ProviderEvent::Terminated(ProviderTermination::Ended));
                }
                recv(self.cancel.receiver()) -> _ => {
                    return ProviderEvent::Terminated(ProviderTermination::Ended);
                }
                default(wait) => {}
            }
            let now = self.shared.clock.now();
            // What has expired comes back through the queue. Where the time for it has passed and nothing has expired,
            // the cluster's clock does not move with real time: it is not waited for again before the next event.
            heed_expiry = self.shared.lock().expire(now) > 0;
            if Instant::now() >= due {
                if let Some(event) = self.queue.try_recv().ok().or_else(|| self.sign_of_life()) {
                    return event;
                }
                due = Instant::now() + self.heartbeat;
                heed_expiry = true;
            }
        }
    }
}

impl Drop for InMemoryStream {
    fn drop(&mut self) {
        self.shared.lock().close(&self.provider, self.number);
    }
}

/// The local node's registration through one provider. It removes no other's when it leaves, so that it may do so to make
/// way for one.
struct InMemoryRegistration {
    shared: Arc<Shared>,
    provider: ProviderId,
    holder: Holder,
    node: Arc<ClusterNode>,
    ttl: Duration,
    /// Whether it has held the node, and has not let go of it since.
    held: bool,
}

impl InMemoryRegistration {
    /// Registers the node, or renews its registration.
    fn assert(&mut self) -> Result<(), ProvisioningError> {
        let mut state = self.shared.lock_expired();
        if let Some(error) = state.view(&self.provider).and_then(|view| view.refused.clone()) {
            return Err(error);
        }
        state.hold(self.holder, &self.node, self.ttl).map_err(|shown| {
            let detail = format!("the cluster has another process under the local node's id: {shown:?}");
            ProvisioningError::new(ErrorCode::NodeIdTaken, "registering the local node", detail)
                .with_provider(&self.provider)
        })?;
        self.held = true;
        Ok(())
    }
}

impl Registration for InMemoryRegistration {
    fn join(&mut self, _cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.assert()
    }

    fn describe(&mut self, node: &ClusterNode) -> Result<(), ProvisioningError> {
        self.node = Arc::new(node.clone());
        Ok(())
    }

    fn renew_interval(&self) -> Duration {
        self.ttl / 3
    }

    fn renew(&mut self, _cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.assert()
    }

    fn leave(&mut self, _budget: Duration) -> Result<(), ProvisioningError> {
        if !self.held {
            return Ok(());
        }
        if let Some(error) = refusal(&self.shared, &self.provider) {
            return Err(error);
        }
        self.shared.lock_expired().let_go(self.holder, self.node.id());
        self.held = false;
        Ok(())
    }
}

/// Makes providers of the kind `in-memory` over the clusters that it was given.
///
/// The descriptor's parameter `cluster` names the cluster; where the factory has only one it may be left out. The other
/// parameters are those of [`InMemoryProvider`].
#[derive(Clone, Debug, Default)]
pub struct InMemoryFactory {
    clusters: BTreeMap<String, InMemoryCluster>,
}

impl InMemoryFactory {
    /// A factory without clusters, which refuses every descriptor.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a cluster under a name, or replaces the one of that name.
    #[must_use]
    pub fn cluster(mut self, name: impl Into<String>, cluster: &InMemoryCluster) -> Self {
        self.clusters.insert(name.into(), cluster.clone());
        self
    }

    fn find(&self, descriptor: &ProviderDescriptor) -> Result<&InMemoryCluster, ProvisioningError> {
        if !descriptor.parameters.contains_key("cluster")
            && self.clusters.len() == 1
            && let Some(only) = self.clusters.values().next()
        {
            return Ok(only);
        }
        let name = descriptor.required("cluster")?;
        self.clusters.get(name).ok_or_else(|| {
            let known = self.clusters.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let reason = format!("there is no in-memory cluster {name:?}; there are: {known}");
            descriptor.refuse(ErrorCode::InvalidValue, "cluster", reason)
        })
    }
}

impl ProviderFactory for InMemoryFactory {
    fn kind(&self) -> ProviderKind {
        ProviderKind::in_memory()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        read_parameters(descriptor)?;
        self.find(descriptor).map(drop)
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        _environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        Ok(Arc::new(InMemoryProvider::new(descriptor.clone(), self.find(descriptor)?)?))
    }
}

impl fmt::Debug for InMemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryProvider").field("id", &self.descriptor.id).finish_non_exhaustive()
    }
}
