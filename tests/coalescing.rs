//! How bursts of changes become few deliveries without losing anything.

#[path = "support/hub.rs"]
mod support;

use cluster_provisioning::testkit::{members, node};
use cluster_provisioning::*;
use support::*;

#[test]
fn p2_3_a_lone_change_is_delivered_at_once_and_the_next_within_100_ms_waits_for_their_end() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2", "join n2"]);
    hub.advance(millis(40));
    hub.show("a", members(&["n1"]));
    hub.advance(millis(59));
    assert_eq!(story(&mut hub), Vec::<String>::new());
    hub.advance(millis(1));
    assert_eq!(story(&mut hub), ["snapshot a: n1", "leave n2"]);
    hub.advance(millis(100));
    hub.show("a", members(&["n1", "n3"]));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n3", "join n3"], "the window is over");
}

#[test]
fn p2_3_pending_changes_are_folded_and_none_is_dropped() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.take();
    for change in ["n3", "n4", "n5"] {
        hub.event("a", changes([MemberChange::Upsert(node(change).into())]));
    }
    hub.event("a", changes([MemberChange::Remove(id("n4")), MemberChange::Remove(id("n1"))]));
    hub.advance(millis(100));
    assert_eq!(story(&mut hub), ["snapshot a: n2 n3 n5", "leave n1", "join n3", "join n5"]);
    assert_eq!(hub.metrics().coalesced, 4);
}

#[test]
fn p4_1_what_came_and_went_between_two_deliveries_is_not_announced() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.take();
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.show("a", members(&["n1", "n2"]));
    hub.advance(SECOND);
    assert_eq!(story(&mut hub), Vec::<String>::new());
}

#[test]
fn p2_2_what_waits_is_delivered_before_the_end_signal() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.take();
    hub.end("a");
    let events = hub.take();
    let texts: Vec<String> = events.iter().map(text).collect();
    assert_eq!(texts[..2], ["snapshot a: n1 n2 n3", "ended a"]);
    let ProvisioningEvent::StreamEnded(end) = &events[1] else { unreachable!() };
    assert_eq!(end.snapshot_hash, Some(members(&["n1", "n2", "n3"]).hash()));
}

#[test]
fn p2_2_what_waits_is_delivered_before_its_provider_is_removed() {
    let mut hub = two(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.take();
    hub.reconfigure([provider("c", 1)]);
    assert_eq!(only(&mut hub, &["snapshot"]), ["snapshot a: n1 n2 n3"]);
}

#[test]
fn p4_2_a_block_does_not_wait_and_takes_what_waits_along() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.take();
    hub.quarantine(&id("n1"), "no answer").unwrap();
    assert_eq!(story(&mut hub), ["snapshot a: n1! n2 n3", "join n3", "blocked n1"]);
}

#[test]
fn p2_4_a_topology_that_exclusion_empties_does_not_wait_either() {
    let mut hub = one(&["n1"]);
    hub.block(&id("n2"), BlockSource::FailureDetector, "dead", Some(seconds(60))).unwrap();
    settle(&mut hub);
    hub.show("a", members(&["n1"]));
    hub.show("a", members(&["n2"]));
    assert_eq!(story(&mut hub), ["gate paused (empty)", "snapshot a:", "leave n1"]);
}

#[test]
fn p2_4_a_topology_that_flaps_between_empty_and_full_goes_out_ten_times_a_second_and_the_gate_opens_once_in_it() {
    let mut hub = one(&["n1"]);
    for round in 0..1000 {
        hub.show("a", if round % 2 == 0 { Members::new() } else { members(&["n1"]) });
        hub.advance(millis(1));
    }
    hub.advance(millis(100));
    let story = story(&mut hub);
    let count = |kind| story.iter().filter(|text| text.starts_with(kind)).count();
    assert!((5..=12).contains(&count("snapshot")), "{story:?}");
    assert!(count("gate open") <= 2 && count("gate") <= 4, "{story:?}");
    hub.advance(SECOND);
    assert!(hub.gate().is_open());
}

#[test]
fn p5_3_a_provider_that_flaps_between_failure_and_recovery_opens_the_gate_once_a_second() {
    let mut hub = one(&["n1"]);
    for _ in 0..100 {
        (0..3).for_each(|_| hub.degrade("a", refused()));
        hub.show("a", members(&["n1"]));
        hub.advance(millis(10));
    }
    let story = story(&mut hub);
    let count = |kind| story.iter().filter(|text| text.starts_with(kind)).count();
    assert_eq!((count("gate open"), count("gate paused"), count("snapshot")), (2, 2, 2), "{story:?}");
}

#[test]
fn p3_4_a_switch_does_not_wait() {
    let mut hub = two(&["n1"]);
    hub.show("b", members(&["n1", "n2"]));
    hub.show("a", members(&["n1", "n3"]));
    hub.take();
    hub.end("a");
    assert_eq!(only(&mut hub, &["changed", "snapshot"]), ["changed a -> b stream-ended", "snapshot b: n1 n2"]);
}

#[test]
fn p5_1_the_latency_counts_the_wait_of_a_coalesced_change_from_its_first() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.advance(millis(20));
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.advance(millis(30));
    hub.show("a", members(&["n1", "n2", "n4"]));
    hub.advance(millis(50));
    let latency = hub.metrics().snapshot_latency;
    assert_eq!((latency.count(), latency.max()), (3, millis(80)));
}

#[test]
fn p2_3_the_window_can_be_set() {
    let mut settings = testkit::HarnessSettings::default();
    settings.coalesce = seconds(2);
    let mut hub = one_with(settings, &["n1"]);
    hub.advance(seconds(2));
    hub.show("a", members(&["n1", "n2"]));
    hub.show("a", members(&["n1"]));
    hub.take();
    hub.advance(millis(1999));
    assert_eq!(story(&mut hub), Vec::<String>::new());
    hub.advance(millis(1));
    assert_eq!(story(&mut hub), ["snapshot a: n1", "leave n2"]);
}
