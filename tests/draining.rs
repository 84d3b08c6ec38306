//! Draining: nothing new is let in, what ends is still told, and there is no way back.

#[path = "support/hub.rs"]
mod support;

use cluster_provisioning::testkit::{Harness, members};
use cluster_provisioning::*;
use support::*;

const NOTHING: Vec<String> = Vec::new();

fn draining(ids: &[&str]) -> Harness {
    let mut hub = two(ids);
    hub.drain();
    let gates = ["supervisor", "partitions", "remoting"].map(|bridge| format!("{bridge}: gate paused (draining)"));
    assert_eq!(calls(&hub), gates);
    assert_eq!(story(&mut hub), ["gate paused (draining)"]);
    hub
}

#[test]
fn p3_5_new_snapshots_are_refused_and_counted_and_the_last_one_is_kept() {
    let mut hub = draining(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.advance(SECOND);
    assert_eq!(story(&mut hub), NOTHING, "no snapshot and no join");
    assert_eq!(hub.latest_snapshot().unwrap().members, members(&["n1"]));
    assert_eq!(hub.metrics().refused_while_draining, 1);
}

#[test]
fn p3_5_what_was_waiting_when_draining_began_is_refused_too() {
    let mut hub = two(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.take();
    hub.drain();
    hub.advance(SECOND);
    assert_eq!(story(&mut hub), ["gate paused (draining)"]);
}

#[test]
fn p3_5_leaves_are_told_while_draining() {
    let mut hub = draining(&["n1", "n2", "n3"]);
    hub.show("a", members(&["n2", "n4"]));
    assert_eq!(story(&mut hub), ["leave n1", "leave n3"]);
    hub.show("a", members(&["n1", "n2", "n3"]));
    assert_eq!(story(&mut hub), NOTHING, "nobody joins again");
    let moved = ClusterNode::builder("n2", "10.0.0.2", 8080).build().unwrap();
    hub.show("a", [moved].into_iter().collect());
    assert_eq!(story(&mut hub), ["leave n2"]);
    assert_eq!(shown(&hub), ["n1", "n2", "n3"]);
}

#[test]
fn p3_5_blocks_are_told_while_draining_and_their_end_is_not() {
    let mut hub = draining(&["n1", "n2"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.block(&id("n2"), BlockSource::FailureDetector, "dead", Some(seconds(1))).unwrap();
    assert_eq!(story(&mut hub), ["blocked n1", "leave n2", "blocked n2"]);
    hub.reconnected(&id("n1")).unwrap();
    hub.refresh("a");
    hub.advance(seconds(2));
    assert_eq!((story(&mut hub), hub.blocked().len()), (NOTHING, 0));
}

#[test]
fn p3_5_end_signals_health_and_warnings_flow_while_draining_and_nothing_is_switched() {
    let mut hub = draining(&["n1"]);
    hub.end("a");
    assert_eq!(story(&mut hub), ["ended a", "health a degraded", "stale stream-ended"]);
    hub.advance(seconds(20));
    assert_eq!(only(&mut hub, &["changed", "snapshot", "gate", "join"]), NOTHING);
    assert_eq!(hub.active().as_deref(), Some("a"));
    hub.pin(Some("b")).unwrap();
    assert_eq!(only(&mut hub, &["changed", "warning"]), NOTHING);
}

#[test]
fn p3_5_a_confirmed_empty_answer_closes_the_channels_and_keeps_the_snapshot() {
    let mut hub = draining(&["n1", "n2"]);
    hub.show("a", members(&[]));
    assert_eq!(story(&mut hub), ["leave n1", "leave n2"]);
    assert_eq!(shown(&hub), ["n1", "n2"]);
}

#[test]
fn p3_5_held_joins_are_not_told_once_draining() {
    let mut hub = one(&["n1", "n9"]);
    hub.show("a", members(&["n1"]));
    hub.show("a", members(&["n1", "n2"]));
    hub.degrade("a", refused());
    hub.advance(SECOND);
    hub.drain();
    hub.take();
    hub.refresh("a");
    assert_eq!(story(&mut hub), ["health a healthy", "fresh"]);
}

#[test]
fn p3_5_draining_is_irreversible_and_outlasts_unavailability() {
    let mut hub = draining(&["n1"]);
    hub.drain();
    for provider in ["a", "b"] {
        for _ in 0..3 {
            hub.degrade(provider, refused());
        }
    }
    hub.refresh("a");
    hub.reconfigure([provider("c", 1)]);
    hub.show("c", members(&["n5"]));
    assert_eq!(only(&mut hub, &["gate", "snapshot", "changed"]), NOTHING);
    assert_eq!(hub.gate(), PlacementGate::Paused(PauseReason::Draining));
    assert_eq!(hub.latest_snapshot().unwrap().members, members(&["n1"]));
}

#[test]
fn p3_5_ownership_can_still_be_handed_over() {
    let mut hub = draining(&["n1"]);
    hub.publish_ownership(vec![OwnershipChange::release("k")]);
    assert_eq!(calls(&hub), ["partitions: leases 1"]);
}
