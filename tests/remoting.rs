//! What Remoting is told: joins, leaves and warnings, and what is held back from it while the data may be stale.

#[path = "support/hub.rs"]
mod support;

use cluster_provisioning::testkit::{Harness, members};
use cluster_provisioning::*;
use support::*;

const NOTHING: Vec<String> = Vec::new();

/// `a` shows n1; `n2` came just before an error, so that it is delivered while `a` is Degraded.
fn with_a_held_join() -> Harness {
    let mut hub = one(&["n1", "n9"]);
    hub.show("a", members(&["n1"]));
    hub.show("a", members(&["n1", "n2"]));
    hub.degrade("a", refused());
    hub.advance(millis(100));
    assert_eq!(
        story(&mut hub),
        ["snapshot a: n1", "leave n9", "health a degraded", "stale backend-unavailable", "snapshot a: n1 n2"]
    );
    hub
}

#[test]
fn p4_1_joins_and_leaves_name_node_provider_hash_and_position() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n2"]));
    let events: Vec<RemoteTopologyEvent> = hub
        .take()
        .into_iter()
        .filter_map(|event| if let ProvisioningEvent::RemoteTopology(event) = event { Some(event) } else { None })
        .collect();
    let snapshot = hub.snapshot().unwrap();
    let [left, joined] = &events[..] else { panic!("{events:?}") };
    assert_eq!((left.event, left.node_id.as_str()), (RemoteTopologyChange::Leave, "n1"));
    assert_eq!((joined.event, joined.node_id.as_str()), (RemoteTopologyChange::Join, "n2"));
    for event in &events {
        assert_eq!(event.provider_id.as_ref().map(ProviderId::as_str), Some("a"));
        assert_eq!((event.snapshot_hash, event.at), (snapshot.hash, snapshot.at));
        assert!(event.node.is_some() && event.position > snapshot.position);
    }
}

#[test]
fn p4_3_remoting_is_warned_once_with_the_cause_and_told_when_the_data_is_fresh_again() {
    let mut hub = one(&["n1"]);
    hub.degrade("a", refused());
    hub.degrade("a", refused());
    assert_eq!(calls(&hub), ["remoting: stale backend-unavailable"]);
    hub.event("a", alive());
    assert_eq!(calls(&hub), NOTHING);
    hub.refresh("a");
    assert_eq!(calls(&hub), ["remoting: fresh"]);
}

#[test]
fn p4_3_a_join_is_held_while_degraded_and_told_once_a_refresh_confirms_it() {
    let mut hub = with_a_held_join();
    assert_eq!(hub.metrics().held_joins, 1);
    hub.event("a", alive());
    hub.event("a", doubtful());
    assert_eq!(remote(&mut hub), NOTHING);
    hub.refresh("a");
    assert_eq!(story(&mut hub), ["health a healthy", "fresh", "join n2"]);
}

#[test]
fn p4_3_a_held_join_whose_node_goes_is_never_told() {
    let mut hub = with_a_held_join();
    hub.advance(millis(100));
    hub.show("a", members(&["n1"]));
    hub.advance(SECOND);
    assert_eq!(remote(&mut hub), NOTHING);
}

#[test]
fn p4_3_a_held_join_is_not_confirmed_by_the_refresh_that_drops_it_within_the_window() {
    let mut hub = with_a_held_join();
    hub.show("a", members(&["n1", "n3"]));
    assert_eq!(remote(&mut hub), NOTHING);
    hub.advance(millis(100));
    assert_eq!(remote(&mut hub), ["join n3"]);
}

#[test]
fn p4_3_leaves_are_never_held() {
    let mut hub = one(&["n1", "n2", "n9"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.show("a", members(&["n2", "n3"]));
    hub.degrade("a", refused());
    hub.take();
    hub.advance(millis(100));
    assert_eq!(remote(&mut hub), ["leave n1"]);
}

#[test]
fn p4_3_a_node_that_moved_while_degraded_leaves_at_once_and_joins_after_a_refresh() {
    let mut hub = one(&["n1", "n9"]);
    hub.show("a", members(&["n1"]));
    let moved = ClusterNode::builder("n1", "10.0.0.2", 8080).build().unwrap();
    hub.show("a", [moved].into_iter().collect());
    hub.degrade("a", refused());
    hub.take();
    hub.advance(millis(100));
    assert_eq!(remote(&mut hub), ["leave n1"]);
    hub.refresh("a");
    assert_eq!(remote(&mut hub), ["join n1"]);
}

#[test]
fn p4_3_what_waits_when_the_stream_ends_is_delivered_but_its_joins_are_held() {
    let mut hub = one(&["n1", "n9"]);
    hub.show("a", members(&["n1"]));
    hub.show("a", members(&["n1", "n2"]));
    hub.take();
    hub.end("a");
    let expected = ["snapshot a: n1 n2", "ended a", "health a degraded", "stale stream-ended"];
    assert_eq!(story(&mut hub), expected);
    hub.advance(seconds(2));
    hub.event("a", alive());
    assert_eq!(remote(&mut hub), NOTHING);
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(remote(&mut hub), ["join n2"]);
}

#[test]
fn p4_3_a_failover_to_a_healthy_provider_tells_the_joins_that_it_confirms() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
    hub.show("a", members(&["n1"]));
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.show("b", members(&["n1", "n2", "n4"]));
    hub.degrade("a", refused());
    hub.advance(SECOND);
    hub.take();
    hub.end("a");
    assert_eq!(remote(&mut hub), ["join n2", "join n4"]);
}

#[test]
fn p4_3_a_failover_to_a_degraded_provider_tells_leaves_and_holds_joins() {
    let mut hub = two(&["n1", "n2"]);
    hub.show("b", members(&["n1", "n3"]));
    hub.degrade("b", refused());
    hub.take();
    hub.end("a");
    assert_eq!(only(&mut hub, &["join", "leave", "stale"]), ["stale backend-unavailable", "leave n2"]);
    hub.refresh("b");
    assert_eq!(only(&mut hub, &["join", "leave", "fresh"]), ["fresh", "join n3"]);
}

#[test]
fn p4_1_a_failover_to_a_provider_without_incarnations_or_back_is_no_leave_and_no_join() {
    let shown = |incarnation: u64| -> Members {
        let node = |id: &str| ClusterNode::builder(id, "10.0.0.1", 8080).incarnation(incarnation).build().unwrap();
        ["n1", "n2"].map(node).into_iter().collect()
    };
    let delivered = |hub: &mut Harness| {
        let deliveries = hub.take().into_iter();
        let mut snapshots = deliveries.filter_map(|event| match event {
            ProvisioningEvent::Snapshot(delivery) => Some(delivery),
            ProvisioningEvent::RemoteTopology(event) => panic!("{event:?}"),
            _ => None,
        });
        snapshots.next_back().unwrap()
    };
    for (before, after) in [(7, 0), (0, 7)] {
        let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
        hub.show("a", shown(before));
        hub.show("b", shown(after));
        hub.take();
        hub.end("a");
        let SnapshotDelivery { snapshot, diff, .. } = delivered(&mut hub);
        assert_eq!((snapshot.provider_id.as_str(), &snapshot.members), ("b", &shown(after)), "as it is shown");
        assert_eq!((diff.left().len(), diff.joined().len(), diff.updated().len()), (0, 0, 2));
    }
}

#[test]
fn p4_3_overdue_data_is_stale_and_only_a_refresh_ends_that() {
    let mut declared = provider("a", 10);
    declared.refresh_interval = Some(seconds(10));
    let mut hub = Harness::with(testkit::HarnessSettings::default(), [declared]);
    hub.show("a", members(&["n1"]));
    settle(&mut hub);
    advance_alive(&mut hub, seconds(19), &["a"]);
    assert_eq!(story(&mut hub), NOTHING, "twice the interval is not exceeded yet");
    hub.advance(millis(1));
    assert_eq!(story(&mut hub), ["health a degraded", "stale data-overdue"]);
    hub.event("a", alive());
    assert_eq!(story(&mut hub), NOTHING);
    hub.refresh("a");
    assert_eq!(story(&mut hub), ["health a healthy", "fresh"]);
}

#[test]
fn p5_3_remoting_sees_the_gate_too() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&[]));
    assert!(calls(&hub).contains(&"remoting: gate paused (empty)".to_owned()));
}
