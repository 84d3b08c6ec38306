//! What is published, measured and reported: health, metrics, decisions, and bridges that misbehave.

#[path = "support/hub.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, Harness, members};
use cluster_provisioning::*;
use support::*;

const BRIDGES: [BridgeKind; 3] = [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting];

fn remote_health(hub: &Harness) -> Vec<(String, RemoteHealth, Timestamp)> {
    hub.remote_nodes().into_iter().map(|node| (node.id.to_string(), node.health, node.last_update)).collect()
}

#[test]
fn p4_5_health_changes_are_told_with_from_to_and_cause() {
    let mut hub = one(&["n1"]);
    hub.degrade("a", refused());
    let events = hub.take();
    let ProvisioningEvent::HealthChanged(change) = &events[0] else { panic!("{events:?}") };
    assert_eq!((change.from, change.to), (ProviderHealth::Healthy, ProviderHealth::Degraded));
    let cause = change.cause.as_ref().unwrap();
    assert_eq!((cause.code(), cause.provider().map(ProviderId::as_str)), (ErrorCode::BackendUnavailable, Some("a")));
}

#[test]
fn p4_5_the_published_health_of_a_provider_has_times_cause_and_data() {
    let mut hub = two(&["n1", "n2"]);
    let refreshed = hub.now();
    hub.refresh("a");
    hub.advance(seconds(3));
    let failed = hub.now();
    hub.degrade("a", refused());
    let status = hub.provider("a");
    assert_eq!((status.health, status.since, status.errors), (ProviderHealth::Degraded, failed, 1));
    assert_eq!((status.last_heartbeat, status.last_refresh), (Some(failed), Some(refreshed)));
    assert_eq!((status.members, status.hash), (Some(2), Some(members(&["n1", "n2"]).hash())));
    assert_eq!(status.cause.unwrap().code(), ErrorCode::BackendUnavailable);
    assert_eq!((status.active, hub.provider("b").active, hub.provider("b").cause), (true, false, None));
}

#[test]
fn p4_5_a_provider_that_was_never_heard_of_is_unreachable_and_shows_nothing() {
    let hub = Harness::new(&[("a", 1)]);
    let status = hub.provider("a");
    assert_eq!((status.health, status.members, status.last_heartbeat), (ProviderHealth::Unreachable, None, None));
    assert_eq!(status.cause.unwrap().code(), ErrorCode::NoSnapshot);
}

#[test]
fn p4_5_remote_nodes_are_up_degraded_or_down_with_the_time() {
    let mut hub = one(&["n1", "n2", "n3", "n4"]);
    let now = hub.now();
    hub.refresh("a");
    assert!(remote_health(&hub).iter().all(|(_, health, at)| (*health, *at) == (RemoteHealth::Up, now)));
    hub.advance(SECOND);
    let blocked = hub.now();
    hub.quarantine(&id("n2"), "no answer").unwrap();
    hub.block(&id("n3"), BlockSource::FailureDetector, "dead", Some(seconds(60))).unwrap();
    hub.advance(SECOND);
    let left = hub.now();
    hub.show("a", members(&["n1", "n2", "n3"]));
    let expected = [
        ("n1".to_owned(), RemoteHealth::Up, left),
        ("n2".to_owned(), RemoteHealth::Degraded, blocked),
        ("n3".to_owned(), RemoteHealth::Down, blocked),
        ("n4".to_owned(), RemoteHealth::Down, left),
    ];
    assert_eq!(remote_health(&hub), expected);
    hub.degrade("a", refused());
    assert_eq!(remote_health(&hub)[0].1, RemoteHealth::Degraded, "its provider is not healthy");
    hub.show("a", members(&["n1", "n2", "n3", "n4"]));
    hub.advance(SECOND);
    assert_eq!(remote_health(&hub)[3].1, RemoteHealth::Up, "it came back");
}

#[test]
fn p4_5_departed_nodes_are_remembered_within_bounds() {
    let ids: Vec<String> = (0..2_000).map(|n| format!("n{n:04}")).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut hub = one(&all);
    hub.show("a", members(&[]));
    let known = remote_health(&hub);
    assert_eq!((known.len(), known[0].0.as_str()), (1024, "n0976"), "the oldest are forgotten");
}

#[test]
fn p5_1_failovers_and_interruptions_are_counted() {
    let mut hub = two(&["n1"]);
    assert_eq!((hub.metrics().failovers, hub.metrics().stream_interruptions), (0, 0), "the first is no failover");
    hub.end("a");
    hub.event("b", errored());
    advance_alive(&mut hub, seconds(40), &[]);
    let metrics = hub.metrics();
    assert_eq!(metrics.failovers, 1);
    assert!(metrics.stream_interruptions >= 4, "silence counts too: {}", metrics.stream_interruptions);
}

#[test]
fn p5_1_the_latency_of_every_delivered_snapshot_reaches_to_the_end_of_the_last_bridge() {
    let mut hub = one(&["n1"]);
    let clock = Arc::clone(hub.clock());
    hub.recorder().on_call(move |_| clock.advance(millis(10)));
    hub.show("a", members(&["n2"]));
    let latency = hub.metrics().snapshot_latency;
    assert_eq!((latency.count(), latency.max()), (2, millis(40)), "two snapshots, a leave and a join");
    hub.degrade("a", refused());
    assert_eq!(hub.metrics().snapshot_latency.count(), 2, "no snapshot, no latency");
}

#[test]
fn p5_1_what_was_counted_of_a_removed_provider_stays_counted() {
    let mut hub = two(&["n1"]);
    hub.event("a", doubtful());
    hub.event("a", ProviderEvent::Snapshot { members: members(&["n1"]), revision: Revision::new("7"), skipped: 3 });
    hub.reconfigure([provider("b", 1)]);
    assert_eq!((hub.metrics().doubtful, hub.metrics().skipped_members), (1, 3));
}

#[test]
fn p5_1_a_change_that_was_taken_back_within_the_window_adds_nothing_to_the_latency_of_a_later_one() {
    let mut hub = one(&["n1"]);
    hub.advance(SECOND);
    hub.show("a", members(&["n1", "n2"]));
    let delivered = hub.metrics().snapshot_latency.count();
    hub.show("a", members(&["n1"]));
    hub.show("a", members(&["n1", "n2"]));
    hub.advance(seconds(5));
    assert_eq!(hub.metrics().snapshot_latency.count(), delivered, "there was nothing left to deliver");
    hub.show("a", members(&["n3"]));
    let latency = hub.metrics().snapshot_latency;
    assert_eq!((latency.count(), latency.max()), (delivered + 1, Duration::ZERO));
}

#[test]
fn p5_1_answers_that_were_doubted_or_partly_unusable_are_counted() {
    let mut hub = one(&["n1"]);
    hub.event("a", doubtful());
    hub.event("a", ProviderEvent::Snapshot { members: members(&["n1"]), revision: Revision::new("7"), skipped: 3 });
    let metrics = hub.metrics();
    assert_eq!((metrics.doubtful, metrics.skipped_members, metrics.snapshots), (1, 3, 1));
}

#[test]
fn p5_5_a_bridge_that_panics_is_caught_counted_and_reported_and_the_others_still_get_the_tick() {
    for bridge in BRIDGES {
        let mut hub = one(&["n1"]);
        hub.recorder().panic_next(bridge, 1);
        hub.show("a", members(&["n1", "n2"]));
        let told = calls(&hub);
        for expected in ["supervisor: snapshot a: n1 n2", "partitions: snapshot a: n1 n2", "remoting: join n2"] {
            assert!(told.iter().any(|call| call == expected), "{told:?}");
        }
        let told = only(&mut hub, &["snapshot", "join", "warning"]);
        assert_eq!(told, ["snapshot a: n1 n2", "join n2", "warning bridge-panicked"]);
        let metrics = hub.metrics();
        let panics =
            [&metrics.placement_supervisor, &metrics.partition_manager, &metrics.remoting].map(|bridge| bridge.panics);
        assert_eq!(panics, BRIDGES.map(|kind| (kind == bridge) as u64));
        hub.advance(seconds(3));
        hub.take();
        hub.show("a", members(&["n1"]));
        assert_eq!(story(&mut hub), ["snapshot a: n1", "leave n2"], "the hub goes on");
    }
}

#[test]
fn p3_1_placement_pauses_until_ownership_is_recalculated_and_the_topology_is_given_again() {
    let mut hub = one(&["n1"]);
    hub.recorder().panic_next(BridgeKind::PlacementSupervisor, 1);
    hub.show("a", members(&["n1", "n2"]));
    let expected = ["snapshot a: n1 n2", "join n2", "gate paused (not-recalculated)", "warning bridge-panicked"];
    assert_eq!(story(&mut hub), expected);
    assert!(hub.latest_snapshot().is_ok(), "the topology itself is known");
    hub.advance(millis(999));
    assert_eq!(story(&mut hub), Vec::<String>::new());
    // The second panic: as far as it is from the first, the next attempt is twice as far.
    hub.recorder().panic_next(BridgeKind::PlacementSupervisor, 1);
    hub.advance(millis(1));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2", "warning bridge-panicked"]);
    hub.advance(seconds(2));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2", "gate open"]);
}

#[test]
fn p3_1_a_gate_that_is_to_open_waits_for_the_recalculation_in_its_own_tick() {
    let mut hub = Harness::new(&[("a", 1)]);
    // The first call of the tick is that of the switch.
    hub.recorder().panic_next(BridgeKind::PlacementSupervisor, 2);
    hub.show("a", members(&["n1"]));
    assert_eq!(only(&mut hub, &["gate"]), ["gate paused (not-recalculated)"]);
    hub.advance(SECOND);
    assert_eq!(only(&mut hub, &["snapshot", "gate"]), ["snapshot a: n1", "gate open"]);
}

#[test]
fn p5_1_the_metrics_name_the_delivery_that_they_belong_to() {
    let mut hub = one(&["n1"]);
    let before = hub.metrics();
    hub.show("a", members(&["n1", "n2"]));
    let metrics = hub.metrics();
    assert_eq!((metrics.position, metrics.deliveries), (hub.position(), hub.position().seq_no));
    assert!(metrics.position > before.position && metrics.snapshots == before.snapshots + 1);
}

#[test]
fn p5_5_a_panic_does_not_cost_the_leases_of_the_calls_before_it() {
    let mut hub = two(&["n1"]);
    hub.show("b", members(&["n1", "n2"]));
    hub.recorder().place(|_| vec![OwnershipChange::release("k")]);
    hub.recorder().panic_next(BridgeKind::PlacementSupervisor, 1);
    hub.end("a");
    let expected = ["leases 1", "warning bridge-panicked"];
    assert_eq!(only(&mut hub, &["leases", "warning"]), expected, "the panic hit provider_changed only");
}

#[test]
fn p5_5_a_slow_bridge_is_measured_and_past_the_limit_reported() {
    for bridge in BRIDGES {
        let mut hub = one(&["n1"]);
        let (clock, slow) = (Arc::clone(hub.clock()), bridge);
        hub.recorder().on_call(move |call| {
            if call.bridge == slow {
                clock.advance(SECOND);
            }
        });
        hub.show("a", members(&["n1", "n2"]));
        assert_eq!(only(&mut hub, &["warning"]), Vec::<String>::new(), "the limit is not exceeded");
        let (clock, slow) = (Arc::clone(hub.clock()), bridge);
        hub.recorder().on_call(move |call| {
            if call.bridge == slow {
                clock.advance(millis(1001));
            }
        });
        hub.show("a", members(&["n1"]));
        assert_eq!(only(&mut hub, &["warning"]), ["warning bridge-slow"]);
        let metrics = hub.metrics();
        let all = [&metrics.placement_supervisor, &metrics.partition_manager, &metrics.remoting];
        assert_eq!(all.map(|bridge| bridge.slow), BRIDGES.map(|kind| (kind == bridge) as u64));
        let longest = all.map(|bridge| bridge.duration.max());
        assert_eq!(longest.iter().max(), Some(&millis(1001)));
    }
}

#[test]
fn p2_5_a_slow_bridge_does_not_make_the_providers_look_silent() {
    let mut hub = two(&["n1"]);
    let clock = Arc::clone(hub.clock());
    hub.recorder().on_call(move |_| clock.advance(seconds(20)));
    hub.show("a", members(&["n1", "n2"]));
    hub.advance(SECOND);
    assert_eq!(only(&mut hub, &["ended", "changed", "health"]), Vec::<String>::new());
}

#[test]
fn p5_5_a_subscriber_that_does_not_read_loses_the_oldest_and_is_told_how_many() {
    let mut hub = one(&["n1"]);
    let mut slow = hub.subscribe(2);
    hub.show("a", members(&["n1", "n2"]));
    hub.degrade("a", refused());
    let lost = hub.take().len() as u64 - 2;
    assert_eq!(slow.try_recv().unwrap_err(), NoEvent::Lagged(lost));
    assert_eq!(text(&slow.try_recv().unwrap()), "health a degraded");
    assert_eq!(text(&slow.try_recv().unwrap()), "stale backend-unavailable");
}

#[test]
fn p4_5_explain_gives_the_last_decisions_with_reasons_in_words() {
    let mut hub = two(&["n1"]);
    hub.event("a", errored());
    let decisions = hub.explain();
    let said = |wanted: &str| decisions.iter().any(|decision| decision.text.contains(wanted));
    assert!(said("switched from a to b: stream-ended"), "{decisions:?}");
    assert!(said("a: healthy -> degraded") && said("refused"), "{decisions:?}");
    assert!(said("a: its stream came to its end"), "{decisions:?}");
    assert!(decisions.is_sorted_by_key(|decision| decision.after));
    for _ in 0..100 {
        hub.degrade("b", refused());
        hub.refresh("b");
    }
    assert_eq!(hub.explain().len(), 64);
}
