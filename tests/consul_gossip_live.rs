//! Members of one cluster by two ways: a real Consul as the first choice, and their own gossip.
#![cfg(all(feature = "consul", feature = "gossip", unix))]

#[path = "support/consul.rs"]
mod consul;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_provisioning::*;
use consul::Consul;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
const CLUSTER: &str = "orders";

struct Member {
    service: ClusterProvisioningService,
    gossip: GossipMembership,
    events: EventStream<Arc<ProvisioningEvent>>,
    seen: Vec<Arc<ProvisioningEvent>>,
}

impl Member {
    /// A member of that Consul's service, and by gossip of the cluster of those ports.
    fn start(consul: &Consul, name: &str, incarnation: u64, seeds: &[u16]) -> Self {
        let factory = GossipFactory::new();
        let gossip = GossipFactory::descriptor("gossip", CLUSTER).unwrap().parameter("bind", "127.0.0.1:0");
        let gossip = seeds.iter().fold(gossip, |gossip, port| gossip.endpoint(format!("127.0.0.1:{port}")));
        let registry = ConsulFactory::descriptor("consul", &consul.url(), CLUSTER).unwrap();
        let registry = registry.parameter("probe-interval", "500ms").parameter("probe-timeout", "1s");
        let node = ClusterNode::builder(name, "127.0.0.1", 7000).incarnation(incarnation).build().unwrap();
        let builder = ClusterProvisioningService::builder()
            .factory(Arc::new(factory.clone()))
            .provider(registry.priority(100))
            .provider(gossip.priority(50))
            .member(node);
        let events = builder.subscribe(100_000);
        let service = builder.start().unwrap();
        service.wait_ready(PATIENCE).unwrap();
        Self { service, gossip: factory.membership("gossip").unwrap(), events, seen: Vec::new() }
    }

    fn port(&self) -> u16 {
        let mut port = None;
        wait("it listens", || {
            port = self.gossip.port();
            port.is_some()
        });
        port.unwrap()
    }

    /// What is shown, as `id@incarnation`.
    fn shown(&self) -> Vec<String> {
        let shown = |node: &Arc<ClusterNode>| format!("{}@{}", node.id(), node.incarnation());
        self.service.hub().snapshot().map_or_else(Vec::new, |snapshot| snapshot.members.iter().map(shown).collect())
    }

    fn active(&self) -> Option<String> {
        self.service.hub().active_provider().map(|id| id.to_string())
    }

    /// All that was delivered since the last call.
    fn take(&mut self) -> Vec<Arc<ProvisioningEvent>> {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push(event);
        }
        std::mem::take(&mut self.seen)
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < ends, "it never came to that: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Both providers are healthy and show the same.
fn agrees(member: &Member) -> bool {
    let providers = member.service.hub().providers();
    let first = providers[0].hash;
    providers.iter().all(|status| status.health == ProviderHealth::Healthy && status.hash == first)
}

#[test]
fn m4_5_p2_5_a_life_that_gossip_had_to_raise_is_consuls_too_and_when_consul_is_killed_nobody_leaves_or_joins() {
    let Some(mut agent) = Consul::start() else { return };
    let mut a = Member::start(&agent, "a", 5, &[]);
    let former = Member::start(&agent, "b", 5, &[a.port()]);
    wait("both are there", || a.shown() == ["a@5", "b@5"]);
    former.service.drain().unwrap();
    wait("b has left", || a.shown() == ["a@5"]);
    // It is started again, and says that it is the same life.
    let mut b = Member::start(&agent, "b", 5, &[a.port()]);
    for member in [&a, &b] {
        wait("b has one life with both", || member.shown() == ["a@5", "b@6"] && agrees(member));
    }
    let warned = |member: &mut Member| {
        let events = member.take();
        events.iter().any(|event| matches!(&**event, ProvisioningEvent::Warning(warning) if warning.error.code() == ErrorCode::NodeIdTaken))
    };
    assert!(!warned(&mut a) && !warned(&mut b), "a node takes itself for another");
    for member in [&a, &b] {
        assert_eq!(member.active().as_deref(), Some("consul"));
    }
    agent.kill();
    for member in [&mut a, &mut b] {
        wait("gossip is followed", || member.active().as_deref() == Some("gossip"));
        assert_eq!(member.shown(), ["a@5", "b@6"]);
        let (mut switches, mut moved) = (0, Vec::new());
        for event in member.take() {
            match &*event {
                ProvisioningEvent::ProviderChanged(_) => switches += 1,
                ProvisioningEvent::RemoteTopology(change) => moved.push(change.node_id.to_string()),
                _ => {}
            }
        }
        assert_eq!((switches, moved), (1, Vec::<String>::new()));
    }
}

#[test]
fn p2_5_the_first_member_at_an_empty_consul_follows_consul_from_the_start() {
    let Some(agent) = Consul::start() else { return };
    let mut a = Member::start(&agent, "a", 5, &[]);
    wait("it is followed", || a.active().is_some());
    let switches = a.take().into_iter().filter_map(|event| match &*event {
        ProvisioningEvent::ProviderChanged(change) => Some(change.to.to_string()),
        _ => None,
    });
    assert_eq!(switches.collect::<Vec<_>>(), ["consul"]);
}
