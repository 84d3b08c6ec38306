//! Setting a service up.

#[cfg(feature = "config")]
mod configuration;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::bounded;

use super::ClusterProvisioningService;
use super::pending::PendingProviders;
use super::progress::Progress;
use super::provider_set::ProviderSet;
use super::registration::Registrations;
use crate::backoff::Jitter;
use crate::bridge::{PartitionManagerBridge, PlacementSupervisorBridge, RemotingBridge};
use crate::clock::{Clock, SteadyClock, SystemClock};
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{EventStream, ProvisioningEvent, Publisher};
use crate::failover::FailoverPolicy;
use crate::hub::mailbox::Mailbox;
use crate::hub::thread::HubThread;
use crate::hub::{Bridges, Dispatcher, HubCore, HubSettings, ProviderWatchHub};
use crate::id::ProviderKind;
use crate::panics::Foreign;
use crate::provider::{
    CancelToken, Exclusion, Exclusions, LocalNode, ProviderDescriptor, ProviderEnvironment, ProviderFactory,
    RetryPolicy,
};
use crate::registry::{ProviderRegistry, RegistrySettings};
use crate::secret::{Secret, Secrets};
use crate::store::{FileProviderStore, ProviderStore};
use crate::sync::Mutex;
use crate::thread::Thread;
use crate::topology::ClusterNode;
use crate::validator::{ProviderValidator, SuppressionSettings};

const SETTING_UP: &str = "setting up the service";

/// Sets a service up; [`start`](Self::start) runs it. The README's table lists all defaults.
pub struct ServiceBuilder {
    providers: Vec<ProviderDescriptor>,
    factories: BTreeMap<ProviderKind, Arc<dyn ProviderFactory>>,
    store: Store,
    secrets: Vec<(String, Secret)>,
    bridges: Bridges,
    publisher: Publisher<Arc<ProvisioningEvent>>,
    hub: HubSettings,
    registry: RegistrySettings,
    slow_bridge: Duration,
    leave_budget: Duration,
    join_timeout: Duration,
    member: Option<ClusterNode>,
    clock: Arc<dyn Clock>,
}

enum Store {
    None,
    File(PathBuf),
    Custom(Box<dyn ProviderStore>),
}

impl ServiceBuilder {
    /// Nothing but the defaults, and the kinds that come with this library and need no more than their descriptors.
    pub(crate) fn new() -> Self {
        let builder = Self {
            providers: Vec::new(),
            factories: BTreeMap::new(),
            store: Store::None,
            secrets: Vec::new(),
            bridges: Bridges::default(),
            publisher: Publisher::new(),
            hub: HubSettings::default(),
            registry: RegistrySettings::default(),
            slow_bridge: Duration::from_millis(100),
            leave_budget: Duration::from_secs(2),
            join_timeout: Duration::from_secs(30),
            member: None,
            clock: SystemClock::shared(),
        };
        #[cfg(feature = "consul")]
        let builder = builder.factory(Arc::new(crate::providers::ConsulFactory));
        #[cfg(all(feature = "gossip", unix))]
        let builder = builder.factory(Arc::new(crate::providers::GossipFactory::new()));
        #[cfg(feature = "kubernetes")]
        let builder = builder.factory(Arc::new(crate::providers::KubernetesFactory));
        builder
    }

    /// Adds a provider. Where a store holds definitions already, those win, and this only seeds an empty one.
    #[must_use]
    pub fn provider(mut self, descriptor: ProviderDescriptor) -> Self {
        self.providers.push(descriptor);
        self
    }

    /// Adds what makes providers of a kind: one of the host's own, or an
    /// [`InMemoryFactory`](crate::InMemoryFactory). Replaces an earlier one of the same kind.
    #[must_use]
    pub fn factory(mut self, factory: Arc<dyn ProviderFactory>) -> Self {
        self.factories.insert(factory.kind(), factory);
        self
    }

    /// Keeps the accepted definitions in this file, so that they are restored after a restart. Default: they are not
    /// kept. See [`FileProviderStore`].
    #[must_use]
    pub fn store_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Store::File(path.into());
        self
    }

    /// Keeps the accepted definitions in a store of the host's own.
    #[must_use]
    pub fn store(mut self, store: impl ProviderStore + 'static) -> Self {
        self.store = Store::Custom(Box::new(store));
        self
    }

    /// Hands over a secret that descriptors may name.
    #[must_use]
    pub fn secret(mut self, name: impl Into<String>, secret: Secret) -> Self {
        self.secrets.push((name.into(), secret));
        self
    }

    /// The host's PlacementSupervisor.
    #[must_use]
    pub fn placement_supervisor(mut self, bridge: Arc<dyn PlacementSupervisorBridge>) -> Self {
        self.bridges.placement_supervisor = Some(Foreign::new(bridge));
        self
    }

    /// The host's PartitionManager.
    #[must_use]
    pub fn partition_manager(mut self, bridge: Arc<dyn PartitionManagerBridge>) -> Self {
        self.bridges.partition_manager = Some(Foreign::new(bridge));
        self
    }

    /// The host's Remoting.
    #[must_use]
    pub fn remoting(mut self, bridge: Arc<dyn RemotingBridge>) -> Self {
        self.bridges.remoting = Some(Foreign::new(bridge));
        self
    }

    /// Subscribes to all deliveries from the very first, the warnings of the start among them; see
    /// [`ProviderWatchHub::subscribe`] for those from later on. Ends at once if the service does not start.
    pub fn subscribe(&self, capacity: usize) -> EventStream<Arc<ProvisioningEvent>> {
        self.publisher.subscribe(capacity)
    }

    /// The same within a chain: hands the stream to `take` at once, for example to read it on a thread of its own.
    #[must_use]
    pub fn subscriber(self, capacity: usize, take: impl FnOnce(EventStream<Arc<ProvisioningEvent>>)) -> Self {
        take(self.subscribe(capacity));
        self
    }

    /// Member mode: registers this node with every enabled provider that can register one, and keeps it registered.
    /// Default: client mode, which only watches.
    #[must_use]
    pub fn member(mut self, node: ClusterNode) -> Self {
        self.hub.local_node = Some(node.id().clone());
        self.member = Some(node);
        self
    }

    /// How long [`start`](Self::start) waits in member mode for the first registration, with a provider that was pending at
    /// first perhaps. Default 30 s, which is longer than a first quarantine of gossip's; at most a day.
    #[must_use]
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.join_timeout = timeout;
        self
    }

    /// How long deregistration may take when draining. Default 2 s; at most a day.
    #[must_use]
    pub fn leave_budget(mut self, budget: Duration) -> Self {
        self.leave_budget = budget;
        self
    }

    /// When health changes and when another provider is followed.
    #[must_use]
    pub fn failover(mut self, policy: FailoverPolicy) -> Self {
        self.hub.failover = policy;
        self
    }

    /// After a delivery the next snapshot waits this long, so that a burst of changes is few deliveries; a lone change
    /// is delivered at once. Default 100 ms; zero delivers each by itself; at most 60 s.
    #[must_use]
    pub fn coalescing(mut self, window: Duration) -> Self {
        self.hub.coalesce = window;
        self
    }

    /// After how long without the node Remoting's entry in the block list ends. Default 24 h.
    #[must_use]
    pub fn block_absence(mut self, limit: Duration) -> Self {
        self.hub.block_absence = limit;
        self
    }

    /// A bridge whose callbacks take longer than this in one tick is reported. Default 100 ms.
    #[must_use]
    pub fn slow_bridge_limit(mut self, limit: Duration) -> Self {
        self.slow_bridge = limit;
        self
    }

    /// How long all backends together have for answering at a start and at each submission. Default 5 s; at most a day.
    #[must_use]
    pub fn connectivity_timeout(mut self, timeout: Duration) -> Self {
        self.registry.connectivity_timeout = timeout;
        self
    }

    /// Whether [`start`](Self::start) fails unless every given provider is accepted. By default it takes one: a provider
    /// whose backend does not answer is pending then, which [`registered`](ClusterProvisioningService::registered) and a
    /// warning say ([`ErrorCode::ProviderPending`]), and comes into force once its backend answers.
    #[must_use]
    pub fn require_all_providers(mut self, all: bool) -> Self {
        self.registry.require_all = all;
        self
    }

    /// The epoch of this start exceeds that one: the greatest that the host has kept of earlier starts, for example the
    /// epoch of a stored [`Deduplicator`](crate::Deduplicator)'s watermark. Needed where there is no store and the clock
    /// may be set back between two starts. Default 0.
    #[must_use]
    pub fn epoch_above(mut self, epoch: u64) -> Self {
        self.registry.epoch_above = epoch;
        self
    }

    /// When repeated validation failures suppress enabling. Default: more than 5 within 60 s.
    #[must_use]
    pub fn suppression(mut self, settings: SuppressionSettings) -> Self {
        self.registry.suppression = settings;
        self
    }

    /// Another clock, for tests. Default: the system's. Waits are in real time whatever the clock shows.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        // It is the host's own code, and may be set back.
        self.clock = SteadyClock::over(clock);
        self
    }

    /// Refuses waits so long that nobody can mean them.
    fn check_durations(&self) -> Result<(), ProvisioningError> {
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 60 * 60));
        let limits = [
            ("coalescing", self.hub.coalesce, minute, "60 s"),
            ("connectivity_timeout", self.registry.connectivity_timeout, day, "a day"),
            ("join_timeout", self.join_timeout, day, "a day"),
            ("leave_budget", self.leave_budget, day, "a day"),
            ("suppression", self.registry.suppression.window, day, "a day"),
        ];
        for (field, duration, most, words) in limits {
            if duration > most {
                let detail = format!("{duration:?} is over {words}");
                return Err(ProvisioningError::new(ErrorCode::InvalidValue, SETTING_UP, detail).with_field(field));
            }
        }
        Ok(())
    }

    /// Starts the service: restores or accepts the definitions, in member mode registers the local node, and begins to
    /// watch. Blocks while the backends are asked (5 s at most by default), and in member mode until one provider has the
    /// local node. Given providers whose backends do not answer are pending, as long as one is accepted; see
    /// [`require_all_providers`](Self::require_all_providers).
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`] for settings out of range; those of the store; [`ErrorCode::NoProviders`]; what is
    /// wrong with a definition; what came of asking, if no backend answers within
    /// [`connectivity_timeout`](Self::connectivity_timeout), or one refuses;
    /// [`ErrorCode::RegistrationFailed`] if no provider took the local node in time; [`ErrorCode::ThreadRefused`].
    pub fn start(self) -> Result<ClusterProvisioningService, ProvisioningError> {
        self.hub.failover.validate()?;
        self.check_durations()?;
        let clock = self.clock;
        let (now, cancel) = (clock.now(), CancelToken::new());
        let store: Option<Box<dyn ProviderStore>> = match self.store {
            Store::None => None,
            Store::File(path) => Some(Box::new(FileProviderStore::open(path)?)),
            Store::Custom(store) => Some(store),
        };
        let local_node = LocalNode::from(self.member.map(Arc::new));
        let retry = RetryPolicy::new(self.hub.failover.backoff_initial, self.hub.failover.backoff_max);
        let exclusions = Exclusions::default();
        let environment = ProviderEnvironment {
            clock: Arc::clone(&clock),
            secrets: Secrets::new(self.secrets),
            local_node: local_node.clone(),
            retry,
            exclusions: exclusions.clone(),
        };
        let validator = ProviderValidator::new(self.factories, environment);
        let (registry, report) =
            ProviderRegistry::start(validator.clone(), store, self.providers, self.registry, now, &cancel)?;

        let seed = now.as_nanos() ^ u64::from(std::process::id());
        let settings = HubSettings { seed, ..self.hub };
        let mut core = HubCore::new(settings, registry.epoch(), now);
        let publication = Arc::new(ArcSwap::from_pointee(core.publish_first()));
        let (publisher, mailbox, progress) = (self.publisher, Mailbox::new(), Arc::new(Progress::new()));
        let (alive, threads_ended) = bounded(0);
        let hub = ProviderWatchHub {
            publication: Arc::clone(&publication),
            mailbox: Arc::clone(&mailbox),
            clock: Arc::clone(&clock),
            hub_thread: Arc::new(OnceLock::new()),
            subscriptions: publisher.subscriptions(),
            validation_failures: Arc::new(AtomicU64::new(0)),
            local_node: local_node.clone(),
        };
        exclusions.connect({
            let hub = hub.clone();
            // Nobody waits for the list: what it refuses, since it is full or draining, it would refuse again.
            move |exclusion| match exclusion {
                Exclusion::Begins { node, reason, lasting } => drop(hub.exclude(node, reason, lasting)),
                Exclusion::Ends { node } => drop(hub.readmit(node)),
            }
        });
        let after_tick = {
            let progress = Arc::clone(&progress);
            Box::new(move || progress.tick())
        };
        let dispatcher = Dispatcher::new(
            self.bridges,
            publisher,
            publication,
            Arc::clone(&clock),
            Arc::clone(&mailbox),
            self.slow_bridge,
        );
        let thread = HubThread { core, dispatcher, mailbox, clock: Arc::clone(&clock), after_tick, alive };
        let identity = Arc::clone(&hub.hub_thread);
        let spawned = Thread::Hub.spawn(move || {
            // The first to set it.
            _ = identity.set(thread::current().id());
            thread.run();
        });
        let hub_thread =
            spawned.map_err(|error| ProvisioningError::new(ErrorCode::ThreadRefused, SETTING_UP, error.to_string()))?;
        let registrations = Registrations::new(local_node.clone(), hub.clone(), clock, self.leave_budget);
        let timeout = self.registry.connectivity_timeout;
        let providers = ProviderSet::new(registry, validator, timeout, hub.clone(), registrations, cancel.clone());
        let providers = Arc::new(providers);
        let service = ClusterProvisioningService {
            hub,
            providers: Arc::clone(&providers),
            threads_ended,
            hub_thread: Mutex::new(Some(hub_thread)),
            progress,
            leave_budget: self.leave_budget,
        };
        local_node.connect({
            let providers = Arc::downgrade(&providers);
            move || {
                if let Some(providers) = providers.upgrade() {
                    providers.registrations().describe();
                }
            }
        });
        providers.registrations().start()?;
        providers.begin()?;
        for difference in &report.differences {
            let error = ProvisioningError::new(ErrorCode::InvalidConfig, SETTING_UP, difference.to_string());
            let advice = "reload the given definitions if they are meant, or give those that are stored";
            providers.warn(error.with_provider(&difference.id).with_advice(advice));
        }
        providers.warn_of(&report.change);
        let (is_pending, is_unsaved) = (!report.change.pending.is_empty(), report.unsaved.is_some());
        for error in report.unreachable.into_iter().chain(report.epoch_warning).chain(report.unsaved) {
            providers.warn(error);
        }
        if is_unsaved || is_pending {
            let (set, pauses) = (Arc::downgrade(&providers), retry.backoff());
            PendingProviders { set, pauses, jitter: Jitter::new(seed), timeout, cancel }.start()?;
        }
        providers.registrations().wait_first(self.join_timeout, is_pending)?;
        Ok(service)
    }
}

/// All settings, without secrets.
impl fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder")
            .field("providers", &self.providers)
            .field("kinds", &self.factories.keys())
            .field("member", &self.member.as_ref().map(ClusterNode::id))
            .field("failover", &self.hub.failover)
            .field("coalescing", &self.hub.coalesce)
            .field("block_absence", &self.hub.block_absence)
            .field("slow_bridge_limit", &self.slow_bridge)
            .field("connectivity_timeout", &self.registry.connectivity_timeout)
            .field("suppression", &self.registry.suppression)
            .field("join_timeout", &self.join_timeout)
            .field("leave_budget", &self.leave_budget)
            .field("require_all_providers", &self.registry.require_all)
            .field("epoch_above", &self.registry.epoch_above)
            .finish_non_exhaustive()
    }
}
