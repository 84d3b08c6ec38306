//! The whole service on real Consul agents that are killed, frozen, cut off and replaced.
//!
//! Whatever is done to them: no panic, no position lost or repeated, no empty topology that Consul did not mean, and
//! recovery without a restart of the service.
#![cfg(feature = "consul")]

#[path = "support/consul.rs"]
mod consul;
#[path = "support/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_provisioning::testkit::Recorder;
use cluster_provisioning::*;
use consul::Consul;
use proxy::Proxy;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE: &str = "orders";

/// A service on some agents, with everything that it delivers.
struct Cluster {
    service: ClusterProvisioningService,
    events: EventStream<Arc<ProvisioningEvent>>,
    last: Position,
    seen: Vec<Arc<ProvisioningEvent>>,
}

impl Cluster {
    /// Follows the agents at these URLs, the first with the highest priority.
    fn follow(urls: &[String]) -> Self {
        let mut policy = FailoverPolicy::default();
        policy.silence_timeout = Duration::from_secs(5);
        policy.cooldown = Duration::from_secs(2);
        policy.failback_hold = Duration::from_secs(2);
        let recorder = Recorder::new();
        let mut builder = ClusterProvisioningService::builder()
            .failover(policy)
            .placement_supervisor(recorder.clone())
            .partition_manager(recorder.clone())
            .remoting(recorder);
        for (index, url) in urls.iter().enumerate() {
            let descriptor = ConsulFactory::descriptor(&format!("consul-{index}"), url, SERVICE).unwrap();
            let descriptor = descriptor.parameter("probe-interval", "500ms").parameter("probe-timeout", "1s");
            builder = builder.provider(descriptor.priority(100 - index as i64));
        }
        let service = builder.start().unwrap();
        let events = service.hub().subscribe(100_000);
        // Subscribed after the start: what came before is not seen, what comes from here on has no gaps.
        let mut cluster = Self { service, events, last: Position::default(), seen: Vec::new() };
        cluster.service.wait_ready(PATIENCE).unwrap();
        cluster.drain_events();
        cluster
    }

    fn hub(&self) -> &ProviderWatchHub {
        self.service.hub()
    }

    fn ids(&self) -> Vec<String> {
        self.hub().snapshot().map_or_else(Vec::new, |s| s.members.iter().map(|n| n.id().to_string()).collect())
    }

    fn drain_events(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.check(event),
                Err(NoEvent::Nothing | NoEvent::Closed) => return,
                Err(NoEvent::Lagged(count)) => panic!("lost {count} events"),
            }
        }
    }

    /// Holds for every delivery, whatever happens to Consul.
    fn check(&mut self, event: Arc<ProvisioningEvent>) {
        let position = event.position();
        if self.last.epoch != 0 {
            let expected = Position { epoch: self.last.epoch, seq_no: self.last.seq_no + 1 };
            assert_eq!(position, expected, "lost or repeated: {event:?}");
        }
        self.last = position;
        if let ProvisioningEvent::Snapshot(delivery) = &*event {
            assert!(!delivery.snapshot.is_empty(), "Consul did not mean an empty cluster");
        }
        self.seen.push(event);
    }

    /// Waits until the hub is as wanted, checking every delivery.
    fn wait_until(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self) {
            if Instant::now() > deadline {
                panic!("never {what}: {:#?}\n{:#?}\n{:?}", self.hub().providers(), self.hub().explain(), self.ids());
            }
            match self.events.recv_timeout(Duration::from_millis(50)) {
                Ok(event) => self.check(event),
                Err(NoEvent::Lagged(count)) => panic!("lost {count} events"),
                Err(_) => {}
            }
        }
        self.drain_events();
    }

    fn health(&self, index: usize) -> ProviderHealth {
        self.hub().providers()[index].health
    }

    /// Remoting was told of no departure.
    fn nobody_left(&self) -> bool {
        let left = |event: &ProvisioningEvent| matches!(event, ProvisioningEvent::RemoteTopology(remote) if remote.event == RemoteTopologyChange::Leave);
        !self.seen.iter().any(|event| left(event))
    }

    fn finish(mut self) {
        self.drain_events();
        let metrics = self.hub().metrics();
        let panics = metrics.placement_supervisor.panics + metrics.partition_manager.panics + metrics.remoting.panics;
        assert_eq!(panics, 0);
        assert_eq!(self.hub().position(), self.last, "the published position is that of the last delivery");
        let hub = self.hub().clone();
        let started = Instant::now();
        self.service.shutdown();
        println!(
            "stopped after {:?}; {} deliveries, {} failovers",
            started.elapsed(),
            metrics.deliveries,
            metrics.failovers
        );
        assert!(hub.snapshot().is_some());
    }
}

fn register(consul: &Consul, ids: &[&str]) {
    for (index, id) in ids.iter().enumerate() {
        consul.register(SERVICE, id, 9000 + index as u16);
    }
}

#[test]
fn p2_2_a_killed_agent_that_restarts_empty_loses_nobody_and_the_watch_recovers() {
    let Some(mut consul) = Consul::start() else { return };
    register(&consul, &["n1", "n2", "n3"]);
    let mut cluster = Cluster::follow(&[consul.url()]);
    assert_eq!(cluster.ids(), ["n1", "n2", "n3"]);
    consul.kill();
    cluster.wait_until("degraded", |cluster| cluster.health(0) < ProviderHealth::Healthy);
    assert_eq!(cluster.ids(), ["n1", "n2", "n3"], "the last known good set stays");
    consul.restart();
    register(&consul, &["n1", "n2", "n3"]);
    cluster.wait_until("healthy again", |cluster| cluster.health(0) == ProviderHealth::Healthy);
    consul.register(SERVICE, "n4", 9004);
    cluster.wait_until("following again", |cluster| cluster.ids() == ["n1", "n2", "n3", "n4"]);
    assert!(cluster.nobody_left());
    cluster.finish();
}

#[test]
fn p5_3_a_frozen_agent_makes_provisioning_unavailable_until_it_is_back() {
    let Some(consul) = Consul::start() else { return };
    register(&consul, &["n1", "n2"]);
    let mut cluster = Cluster::follow(&[consul.url()]);
    consul.signal("STOP");
    let unavailable = PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::ProvisioningUnavailable));
    cluster.wait_until("unavailable", |cluster| cluster.hub().gate() == unavailable);
    assert_eq!(cluster.ids(), ["n1", "n2"], "the last known good set stays readable");
    assert_eq!(cluster.hub().latest_snapshot().unwrap_err().code(), ErrorCode::ProvisioningUnavailable);
    consul.signal("CONT");
    cluster.wait_until("open again", |cluster| cluster.hub().gate().is_open());
    consul.register(SERVICE, "n3", 9003);
    cluster.wait_until("following again", |cluster| cluster.ids() == ["n1", "n2", "n3"]);
    assert!(cluster.nobody_left());
    cluster.finish();
}

#[test]
fn p4_3_connections_cut_in_the_middle_of_an_answer_degrade_and_lose_nothing() {
    let Some(consul) = Consul::start() else { return };
    register(&consul, &["n1", "n2", "n3"]);
    let proxy = Proxy::start(consul.url().trim_start_matches("http://"));
    let mut cluster = Cluster::follow(&[proxy.url()]);
    proxy.cut_after(700);
    cluster.wait_until("degraded", |cluster| cluster.health(0) < ProviderHealth::Healthy && proxy.cuts() >= 2);
    consul.deregister("n3");
    assert_eq!(cluster.ids(), ["n1", "n2", "n3"]);
    proxy.cut_after(0);
    cluster.wait_until("following again", |cluster| cluster.ids() == ["n1", "n2"]);
    cluster.wait_until("healthy again", |cluster| cluster.health(0) == ProviderHealth::Healthy);
    let warned = |degraded: bool| move |event: &Arc<ProvisioningEvent>| matches!(&**event, ProvisioningEvent::RemotingWarning(warning) if warning.degraded.is_some() == degraded);
    assert!(cluster.seen.iter().any(warned(true)) && cluster.seen.iter().any(warned(false)));
    cluster.finish();
}

#[test]
fn p2_5_fails_over_from_one_consul_to_another_and_back_after_the_cooldown() {
    let (Some(mut first), Some(second)) = (Consul::start(), Consul::start()) else { return };
    for consul in [&first, &second] {
        register(consul, &["n1", "n2", "n3"]);
    }
    let mut cluster = Cluster::follow(&[first.url(), second.url()]);
    cluster.wait_until("watching both", |cluster| cluster.health(1) == ProviderHealth::Healthy);
    assert_eq!(cluster.hub().active_provider().unwrap().as_str(), "consul-0");
    first.kill();
    let active = |id: &'static str| move |cluster: &Cluster| cluster.hub().active_provider().unwrap().as_str() == id;
    cluster.wait_until("failed over", active("consul-1"));
    second.register(SERVICE, "n4", 9003);
    cluster.wait_until("following the second", |cluster| cluster.ids() == ["n1", "n2", "n3", "n4"]);
    first.restart();
    register(&first, &["n1", "n2", "n3", "n4"]);
    cluster.wait_until("failed back", active("consul-0"));
    assert_eq!(cluster.ids(), ["n1", "n2", "n3", "n4"]);
    assert!(cluster.nobody_left());
    let switches: Vec<_> = cluster
        .seen
        .iter()
        .filter_map(|event| match &**event {
            ProvisioningEvent::ProviderChanged(change) => Some((change.reason, change.to.to_string())),
            _ => None,
        })
        .filter(|(reason, _)| *reason != SwitchReason::Initial)
        .collect();
    assert_eq!(switches.len(), 2, "{switches:?}");
    assert_eq!(switches[1], (SwitchReason::PriorityRestored, "consul-0".to_owned()));
    cluster.finish();
}

#[test]
fn p2_5_of_instances_that_come_and_go_three_leaves_each_are_told_and_a_genuine_one_after_ten_seconds() {
    let Some(consul) = Consul::start() else { return };
    register(&consul, &["n1", "n2", "n3"]);
    let mut cluster = Cluster::follow(&[consul.url()]);
    cluster.wait_until("all there", |cluster| cluster.ids() == ["n1", "n2", "n3"]);
    // Each answer is waited for: by the members, or by the count of what was held.
    let held = |cluster: &Cluster| cluster.hub().metrics().held_leaves;
    for round in 1..=8 {
        for id in ["n1", "n2"] {
            let before = held(&cluster);
            consul.deregister(id);
            cluster
                .wait_until("gone, or held", |cluster| !cluster.ids().contains(&id.into()) || held(cluster) > before);
            consul.register(SERVICE, id, 8000);
            let holds = round > 3;
            cluster
                .wait_until("back", |cluster| cluster.ids().contains(&id.into()) && (!holds || held(cluster) > before));
            // The return of one that was held is no delivery: what is known is in the next one.
            consul.register(SERVICE, "n3", 8100 + round);
            cluster.wait_until("the change after it", |cluster| {
                let snapshot = cluster.hub().snapshot();
                snapshot.is_some_and(|snapshot| snapshot.members.get("n3").is_some_and(|n3| n3.port() == 8100 + round))
            });
        }
    }
    consul.deregister("n1");
    cluster.wait_until("n1 gone for good", |cluster| cluster.ids() == ["n2", "n3"]);
    let count = |wanted: &dyn Fn(&ProvisioningEvent) -> bool| cluster.seen.iter().filter(|event| wanted(event)).count();
    let leaves = |id: &'static str| {
        move |event: &ProvisioningEvent| {
            matches!(event, ProvisioningEvent::RemoteTopology(change)
                if change.event == RemoteTopologyChange::Leave && *change.node_id.as_str() == *id)
        }
    };
    assert_eq!((count(&leaves("n1")), count(&leaves("n2"))), (4, 3));
    let warns = |event: &ProvisioningEvent| matches!(event, ProvisioningEvent::Warning(warning) if warning.error.code() == ErrorCode::MembersFlap);
    assert_eq!(count(&warns), 1);
    assert_eq!(held(&cluster), 11, "five of each, and the last");
    cluster.finish();
}
