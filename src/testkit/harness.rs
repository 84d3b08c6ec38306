//! The hub's own rules and deliveries without threads, driven step by step.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{FakeClock, Recorder};
use crate::clock::{Clock, Timestamp};
use crate::error::ProvisioningError;
use crate::event::{EventStream, OwnershipChange, PlacementGate, ProvisioningEvent, Publisher};
use crate::failover::{FailoverPolicy, SlotKey};
use crate::hub::mailbox::{Inbox, Mailbox, Message};
use crate::hub::{
    Bridges, Decision, Dispatcher, HubCore, HubSettings, Input, ProviderStatus, ProviderWatchHub, Publication,
    RemoteNode, SlotSpec, StreamCommand, Tick,
};
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::panics::Foreign;
use crate::provider::{LocalNode, ProviderEvent, ProviderRole, ProviderTermination};
use crate::topology::{BlockSource, BlockedNodes, ClusterNode, Members, NodeId, Position, ProviderSnapshot, Revision};

/// How a harness's hub is set up. The defaults are the service's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HarnessSettings {
    /// The failover policy.
    pub failover: FailoverPolicy,
    /// After a delivery the next snapshot waits this long.
    pub coalesce: Duration,
    /// In member mode, the local node's id.
    pub local_node: Option<NodeId>,
    /// Seed of the jitter.
    pub seed: u64,
    /// A bridge that takes longer than this in one tick, by the harness's clock, is reported.
    pub slow_bridge: Duration,
}

impl Default for HarnessSettings {
    fn default() -> Self {
        let HubSettings { failover, coalesce, local_node, seed, .. } = HubSettings::default();
        Self { failover, coalesce, local_node, seed, slow_bridge: Duration::from_secs(1) }
    }
}

/// A provider in force in a harness.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HarnessProvider {
    /// Its name.
    pub id: String,
    /// Its priority.
    pub priority: i64,
    /// What its members are to those of the others. Default: a mirror.
    pub role: ProviderRole,
    /// The refresh interval that it declares. Default: none.
    pub refresh_interval: Option<Duration>,
    /// Whether it registers the local node. Default: no.
    pub registers: bool,
    /// Whether its backend answered the connectivity check. Default: no.
    pub reachable: bool,
    /// Which definition of the provider it is: another number defines it anew. Default: 0.
    pub edition: u64,
}

impl HarnessProvider {
    /// A provider with that name and priority.
    pub fn new(id: &str, priority: i64) -> Self {
        Self {
            id: id.into(),
            priority,
            role: ProviderRole::Mirror,
            refresh_interval: None,
            registers: false,
            reachable: false,
            edition: 0,
        }
    }
}

/// The hub without threads: the test says what the providers report and what time it is, and reads what is delivered.
/// Bridges, order, published state and rules are the service's own.
pub struct Harness {
    core: HubCore,
    dispatcher: Dispatcher,
    publication: Publication,
    clock: Arc<FakeClock>,
    recorder: Arc<Recorder>,
    slots: BTreeMap<String, (SlotKey, HarnessProvider)>,
    streams: BTreeMap<SlotKey, u64>,
    /// The streams that were given up last, by provider.
    given_up: BTreeMap<SlotKey, u64>,
    hub: ProviderWatchHub,
    inbox: Inbox,
    opened: BTreeMap<SlotKey, usize>,
    stuck: bool,
    /// The streams that got stuck and have not ended since.
    abandoned: Vec<(SlotKey, u64)>,
    next_key: SlotKey,
    delivered: Vec<ProvisioningEvent>,
}

/// A hub that nobody drives yet, with a recorder for its bridges and a clock that stands still.
pub(super) struct SetUp {
    pub(super) core: HubCore,
    pub(super) dispatcher: Dispatcher,
    pub(super) publication: Publication,
    pub(super) clock: Arc<FakeClock>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) hub: ProviderWatchHub,
}

impl SetUp {
    pub(super) fn new(settings: HarnessSettings) -> Self {
        let (clock, recorder) = (FakeClock::new(), Recorder::new());
        let HarnessSettings { failover, coalesce, local_node, seed, slow_bridge } = settings;
        let settings = HubSettings { failover, coalesce, local_node, seed, ..HubSettings::default() };
        let mut core = HubCore::new(settings, clock.now().as_millis(), clock.now());
        let state = core.publish_first();
        let publication: Publication = Arc::new(ArcSwap::from_pointee(state));
        let bridges = Bridges {
            placement_supervisor: Some(Foreign::new(recorder.clone())),
            partition_manager: Some(Foreign::new(recorder.clone())),
            remoting: Some(Foreign::new(recorder.clone())),
        };
        let (publisher, mailbox) = (Publisher::new(), Mailbox::new());
        let hub = ProviderWatchHub {
            publication: Arc::clone(&publication),
            mailbox: Arc::clone(&mailbox),
            clock: clock.clone(),
            hub_thread: Arc::new(OnceLock::new()),
            subscriptions: publisher.subscriptions(),
            validation_failures: Arc::default(),
            local_node: LocalNode::default(),
        };
        let (shown, inbox) = (Arc::clone(&publication), Arc::clone(&mailbox));
        let dispatcher = Dispatcher::new(bridges, publisher, shown, clock.clone(), inbox, slow_bridge);
        Self { core, dispatcher, publication, clock, recorder, mailbox, hub }
    }
}

impl Harness {
    /// A harness with the service's defaults and these providers: names and priorities.
    ///
    /// # Panics
    /// If a name is no valid [`ProviderId`].
    pub fn new(providers: &[(&str, i64)]) -> Self {
        let providers = providers.iter().map(|(id, priority)| HarnessProvider::new(id, *priority));
        Self::with(HarnessSettings::default(), providers)
    }

    /// A harness with these settings and providers.
    ///
    /// # Panics
    /// If a name is no valid [`ProviderId`].
    pub fn with(settings: HarnessSettings, providers: impl IntoIterator<Item = HarnessProvider>) -> Self {
        let SetUp { core, dispatcher, publication, clock, recorder, mailbox, hub } = SetUp::new(settings);
        _ = hub.hub_thread.set(std::thread::current().id());
        let inbox = Inbox::new(mailbox);
        let mut harness = Self {
            core,
            dispatcher,
            publication,
            clock,
            recorder,
            slots: BTreeMap::new(),
            streams: BTreeMap::new(),
            given_up: BTreeMap::new(),
            hub,
            inbox,
            opened: BTreeMap::new(),
            stuck: false,
            abandoned: Vec::new(),
            next_key: 0,
            delivered: Vec::new(),
        };
        harness.reconfigure(providers);
        harness
    }

    /// Brings another set of providers into force. Those of a known name stay as they are, but for priority and role.
    ///
    /// # Panics
    /// If a name is no valid [`ProviderId`].
    pub fn reconfigure(&mut self, providers: impl IntoIterator<Item = HarnessProvider>) {
        let mut old = std::mem::take(&mut self.slots);
        let mut specs = Vec::new();
        for provider in providers {
            let key = match old.remove(&provider.id) {
                Some((key, _)) => key,
                None => {
                    self.next_key += 1;
                    self.next_key
                }
            };
            specs.push(SlotSpec {
                key,
                edition: provider.edition,
                id: ProviderId::new(&provider.id).expect("a valid provider id"),
                priority: provider.priority,
                role: provider.role,
                refresh_interval: provider.refresh_interval,
                registers: provider.registers,
                reachable: provider.reachable,
            });
            self.slots.insert(provider.id.clone(), (key, provider));
        }
        _ = self.input(Input::Reconfigure(specs));
    }

    /// The provider's present stream reports something. Nothing happens if it has none.
    pub fn event(&mut self, provider: &str, event: ProviderEvent) {
        let Some((key, _)) = self.slots.get(provider) else { return };
        let (key, Some(generation)) = (*key, self.streams.get(key).copied()) else { return };
        if matches!(event, ProviderEvent::Terminated(_)) {
            self.streams.remove(&key);
        }
        _ = self.input(Input::Event { key, generation, event });
    }

    /// The provider's present stream reports a whole set of members.
    pub fn show(&mut self, provider: &str, members: Members) {
        self.event(provider, ProviderEvent::Snapshot { members, revision: Revision::NONE, skipped: 0 });
    }

    /// The provider's present stream confirms its data.
    pub fn refresh(&mut self, provider: &str) {
        self.event(provider, ProviderEvent::Heartbeat { current: true });
    }

    /// The provider's present stream reports an error.
    pub fn degrade(&mut self, provider: &str, error: ProvisioningError) {
        self.event(provider, ProviderEvent::Degraded { error });
    }

    /// The provider's present stream comes to its end.
    pub fn end(&mut self, provider: &str) {
        self.event(provider, ProviderEvent::Terminated(ProviderTermination::Ended));
    }

    /// Whether the provider has an open stream.
    pub fn is_open(&self, provider: &str) -> bool {
        self.slots.get(provider).is_some_and(|(key, _)| self.streams.contains_key(key))
    }

    /// How many streams of the provider have been opened.
    pub fn opened(&self, provider: &str) -> usize {
        self.slots.get(provider).and_then(|(key, _)| self.opened.get(key)).copied().unwrap_or(0)
    }

    /// The provider's stream that was given up last reports something nevertheless. Nothing happens if none was.
    pub fn late_event(&mut self, provider: &str, event: ProviderEvent) {
        let Some((key, _)) = self.slots.get(provider) else { return };
        let (key, Some(generation)) = (*key, self.given_up.get(key).copied()) else { return };
        _ = self.input(Input::Event { key, generation, event });
    }

    /// The thread of the provider's stream ends without a word: of the present one, else of the one given up last.
    pub fn end_thread(&mut self, provider: &str) {
        let Some((key, _)) = self.slots.get(provider) else { return };
        let key = *key;
        if let Some(generation) = self.streams.remove(&key).or_else(|| self.given_up.get(&key).copied()) {
            _ = self.input(Input::StreamClosed { key, generation });
        }
    }

    /// Whether streams that are given up get stuck instead of ending at once. Default: they end.
    pub fn set_stuck(&mut self, stuck: bool) {
        self.stuck = stuck;
    }

    /// Lets time pass, with every timer firing when it is due.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.clock.now() + duration;
        while self.core.next_timeout() <= end {
            self.clock.advance_to(self.core.next_timeout());
            let tick = self.core.handle_timers(self.clock.now());
            _ = self.carry_out(tick, None);
        }
        self.clock.advance_to(end);
    }

    /// Lets time pass while the whole process stands still: no timer fires until its end.
    pub fn stand_still(&mut self, duration: Duration) {
        self.clock.advance(duration);
        let tick = self.core.handle_timers(self.clock.now());
        _ = self.carry_out(tick, None);
    }

    /// Remoting quarantines a node.
    ///
    /// # Errors
    /// As the hub's own.
    pub fn quarantine(&mut self, node: &NodeId, reason: &str) -> Result<(), ProvisioningError> {
        self.block(node, BlockSource::Remoting, reason, None)
    }

    /// Someone blocks a node.
    ///
    /// # Errors
    /// As the hub's own.
    pub fn block(
        &mut self,
        node: &NodeId,
        source: BlockSource,
        reason: &str,
        lasting: Option<Duration>,
    ) -> Result<(), ProvisioningError> {
        self.input(Input::Block { node: node.clone(), source, reason: reason.into(), lasting })
    }

    /// Someone ends a block.
    ///
    /// # Errors
    /// As the hub's own.
    pub fn lift(&mut self, node: &NodeId, source: BlockSource) -> Result<(), ProvisioningError> {
        self.input(Input::Lift { node: node.clone(), source })
    }

    /// Remoting has regained the connection to a node.
    ///
    /// # Errors
    /// As the hub's own.
    pub fn reconnected(&mut self, node: &NodeId) -> Result<(), ProvisioningError> {
        self.input(Input::Reconnected { node: node.clone() })
    }

    /// Holds on to a provider, or no longer.
    ///
    /// # Errors
    /// As the hub's own.
    ///
    /// # Panics
    /// If the name is no valid [`ProviderId`].
    pub fn pin(&mut self, provider: Option<&str>) -> Result<(), ProvisioningError> {
        self.input(match provider {
            Some(provider) => Input::Pin(ProviderId::new(provider).expect("a valid provider id")),
            None => Input::Unpin,
        })
    }

    /// PlacementSupervisor orders ownership changes outside a snapshot.
    pub fn publish_ownership(&mut self, changes: Vec<OwnershipChange>) {
        _ = self.input(Input::PublishOwnership(changes));
    }

    /// Begins to drain.
    pub fn drain(&mut self) {
        _ = self.input(Input::Drain);
    }

    /// The hub's public handle, for what calls the service from inside callbacks. Its commands are carried out after the
    /// tick during which they were given; waiting for one fails, because the harness runs on the caller's thread.
    pub fn hub(&self) -> &ProviderWatchHub {
        &self.hub
    }

    /// Subscribes to all deliveries from here on.
    pub fn subscribe(&self, capacity: usize) -> EventStream<Arc<ProvisioningEvent>> {
        self.hub.subscribe(capacity)
    }

    /// Every delivery since the last call of this, in order.
    pub fn take(&mut self) -> Vec<ProvisioningEvent> {
        std::mem::take(&mut self.delivered)
    }

    /// The bridges, which write down every call.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// The clock, for what else is to share it.
    pub fn clock(&self) -> &Arc<FakeClock> {
        &self.clock
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The last snapshot delivered.
    pub fn snapshot(&self) -> Option<Arc<ProviderSnapshot>> {
        self.publication.load().snapshot.clone()
    }

    /// The snapshot to work with, or why there is none.
    ///
    /// # Errors
    /// As [`ProviderWatchHub::latest_snapshot`](crate::ProviderWatchHub::latest_snapshot).
    pub fn latest_snapshot(&self) -> Result<Arc<ProviderSnapshot>, ProvisioningError> {
        self.hub.latest_snapshot()
    }

    /// The gate.
    pub fn gate(&self) -> PlacementGate {
        self.publication.load().gate
    }

    /// The position of the last delivery.
    pub fn position(&self) -> Position {
        self.publication.load().position
    }

    /// The providers in force.
    pub fn providers(&self) -> Vec<ProviderStatus> {
        self.publication.load().providers.clone()
    }

    /// The provider of that name.
    ///
    /// # Panics
    /// If none of that name is in force.
    pub fn provider(&self, id: &str) -> ProviderStatus {
        self.providers().into_iter().find(|status| status.id.as_str() == id).expect("a provider in force")
    }

    /// The name of the provider followed.
    pub fn active(&self) -> Option<String> {
        self.providers().into_iter().find(|status| status.active).map(|status| status.id.to_string())
    }

    /// The block list.
    pub fn blocked(&self) -> BlockedNodes {
        self.publication.load().blocked.clone()
    }

    /// The health of every remote node that is known of.
    pub fn remote_nodes(&self) -> Vec<RemoteNode> {
        self.publication.load().remote_nodes()
    }

    /// What has been counted and measured.
    pub fn metrics(&self) -> ProvisioningMetrics {
        ProvisioningMetrics::clone(&self.publication.load().metrics)
    }

    /// The last decisions.
    pub fn explain(&self) -> Arc<[Decision]> {
        Arc::clone(&self.publication.load().decisions)
    }

    /// Streams that got stuck come to their end after all.
    pub fn release_stuck(&mut self) {
        for (key, generation) in std::mem::take(&mut self.abandoned) {
            _ = self.input(Input::StreamClosed { key, generation });
        }
    }

    /// One tick with that input.
    ///
    /// # Errors
    /// As the hub's own.
    fn input(&mut self, input: Input) -> Result<(), ProvisioningError> {
        let outcome = self.tick(input, self.clock.now());
        loop {
            let (messages, _) = self.inbox.take(self.clock.now());
            if messages.is_empty() {
                return outcome;
            }
            for message in messages {
                let Message::Input { input, at, reply } = message else { continue };
                let outcome = self.tick(input, at);
                if let Some(reply) = reply {
                    // Whoever asked may have stopped waiting.
                    _ = reply.try_send(outcome);
                }
            }
        }
    }

    fn tick(&mut self, input: Input, at: Timestamp) -> Result<(), ProvisioningError> {
        let tick = self.core.handle(input, at);
        self.carry_out(tick, Some(at))
    }

    fn carry_out(&mut self, mut tick: Tick, stamp: Option<Timestamp>) -> Result<(), ProvisioningError> {
        self.dispatcher.carry_out(&mut self.core, &mut tick, stamp);
        self.delivered.append(&mut tick.events);
        for command in tick.streams {
            match command {
                StreamCommand::Open { key, generation } => {
                    self.streams.insert(key, generation);
                    *self.opened.entry(key).or_default() += 1;
                }
                StreamCommand::Close { key, generation } => {
                    self.streams.remove(&key);
                    self.given_up.insert(key, generation);
                    if self.stuck {
                        self.abandoned.push((key, generation));
                    } else {
                        _ = self.input(Input::StreamClosed { key, generation });
                    }
                }
            }
        }
        tick.reply
    }
}

/// A node `id` at `10.0.0.1:8080`, for tests.
///
/// # Panics
/// If the id is no valid [`NodeId`].
pub fn node(id: &str) -> ClusterNode {
    ClusterNode::builder(id, "10.0.0.1", 8080).build().expect("a valid node")
}

/// Members with these ids at `10.0.0.1:8080`, for tests.
///
/// # Panics
/// If an id is no valid [`NodeId`].
pub fn members(ids: &[&str]) -> Members {
    ids.iter().map(|id| node(id)).collect()
}
