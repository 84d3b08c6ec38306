//! Members that leave and return again and again within the provider followed.

use cluster_provisioning::testkit::{BridgeKind, Harness, HarnessSettings, members};
use cluster_provisioning::*;

#[path = "support/hub.rs"]
mod hub;
use hub::*;

const ALL: [&str; 3] = ["n1", "n2", "n3"];
const NOTHING: [&str; 0] = [];

fn damping(change: impl FnOnce(FlapDamping) -> FlapDamping) -> HarnessSettings {
    policy(|policy| policy.flap_damping = Some(change(FlapDamping::default())))
}

/// `a` shows all of them and without n1 in turn, `times` times, for so many seconds each; last it is away.
fn flap(hub: &mut Harness, times: usize, away: u64) {
    for time in 0..times {
        if time > 0 {
            hub.show("a", members(&ALL));
            hub.advance(seconds(away));
        }
        hub.show("a", members(&ALL[1..]));
        hub.advance(seconds(away));
    }
}

fn leaves(hub: &mut Harness) -> usize {
    only(hub, &["leave"]).len()
}

#[test]
fn p2_5_of_members_that_come_and_go_every_two_seconds_three_leaves_each_are_told() {
    let mut hub = two(&ALL);
    for _ in 0..23 {
        hub.show("a", members(&ALL[2..]));
        hub.show("b", members(&ALL));
        hub.advance(seconds(2));
        hub.show("a", members(&ALL));
        hub.advance(seconds(2));
    }
    let told = only(&mut hub, &["leave", "join", "warning"]);
    let count = |text: &str| told.iter().filter(|event| event.starts_with(text)).count();
    // Without damping 46 of each.
    assert_eq!((count("leave"), count("join"), count("warning members-flap")), (6, 6, 1), "{told:?}");
    assert_eq!((hub.metrics().held_leaves, hub.active().as_deref()), (40, Some("a")));
}

#[test]
fn p2_5_damping_that_is_off_holds_nobody() {
    let mut hub = one_with(policy(|policy| policy.flap_damping = None), &ALL);
    flap(&mut hub, 20, 1);
    assert_eq!((leaves(&mut hub), hub.metrics().held_leaves), (20, 0));
}

#[test]
fn p2_5_a_held_member_stays_with_all_consumers_until_it_has_been_away_for_ten_seconds() {
    let mut hub = one(&ALL);
    flap(&mut hub, 3, 1);
    hub.show("a", members(&ALL));
    settle(&mut hub);
    hub.show("a", members(&ALL[1..]));
    assert_eq!(only(&mut hub, &["snapshot", "leave", "warning"]), ["warning members-flap"]);
    assert!(hub.recorder().take().iter().all(|call| call.bridge != BridgeKind::PlacementSupervisor));
    advance_alive(&mut hub, millis(9_999), &["a"]);
    assert_eq!(only(&mut hub, &["snapshot", "leave"]), NOTHING);
    assert!(hub.snapshot().unwrap().members.contains("n1"));
    hub.advance(millis(1));
    assert_eq!(only(&mut hub, &["snapshot", "leave"]), ["snapshot a: n2 n3", "leave n1"]);
    let explained = hub.explain();
    assert!(explained.iter().any(|decision| decision.text == "not back in time, and gone: n1"), "{explained:?}");
}

#[test]
fn p2_5_other_changes_go_out_while_a_leave_is_held() {
    let mut hub = one(&ALL);
    flap(&mut hub, 4, 1);
    hub.take();
    hub.show("a", members(&["n2", "n4"]));
    assert_eq!(only(&mut hub, &["snapshot", "leave", "join"]), ["snapshot a: n1 n2 n4", "leave n3", "join n4"]);
}

#[test]
fn p2_5_a_held_member_that_is_back_in_another_life_has_left_and_joined() {
    let with = |life: u64| {
        let n1 = ClusterNode::builder("n1", "10.0.0.1", 8080).incarnation(life).build().unwrap();
        let others = members(&ALL[1..]);
        others.iter().map(|node| ClusterNode::clone(node)).chain([n1]).collect::<Members>()
    };
    let mut hub = one(&ALL[1..]);
    for _ in 0..4 {
        hub.show("a", with(6));
        hub.advance(SECOND);
        hub.show("a", members(&ALL[1..]));
        hub.advance(SECOND);
    }
    assert_eq!((leaves(&mut hub), hub.metrics().held_leaves), (3, 1));
    hub.show("a", with(7));
    assert_eq!(only(&mut hub, &["leave", "join"]), ["leave n1", "join n1"]);
    assert_eq!(hub.snapshot().unwrap().members.get("n1").unwrap().incarnation(), 7);
}

#[test]
fn p2_5_a_confirmed_empty_answer_sees_through_what_is_held() {
    let mut hub = one(&ALL);
    flap(&mut hub, 4, 1);
    hub.take();
    hub.show("a", members(&[]));
    assert_eq!(
        only(&mut hub, &["gate", "snapshot", "leave"]),
        ["gate paused (empty)", "snapshot a:", "leave n1", "leave n2", "leave n3"]
    );
}

#[test]
fn p4_3_where_a_failure_detector_has_taken_out_everyone_else_nobody_is_held() {
    let mut hub = one(&ALL);
    flap(&mut hub, 4, 1);
    for node in ["n2", "n3"] {
        hub.block(&id(node), BlockSource::FailureDetector, "dead", Some(seconds(60))).unwrap();
    }
    hub.advance(SECOND);
    assert!(hub.snapshot().unwrap().members.is_empty());
}

#[test]
fn p2_5_a_failover_sees_through_what_is_held() {
    let mut hub = two(&ALL);
    hub.show("b", members(&ALL[1..]));
    flap(&mut hub, 4, 1);
    hub.take();
    hub.end("a");
    assert_eq!(
        only(&mut hub, &["ended", "changed", "snapshot", "leave"]),
        ["snapshot a: n2 n3", "ended a", "changed a -> b stream-ended", "snapshot b: n2 n3", "leave n1"]
    );
}

#[test]
fn p3_4_a_switch_to_a_provider_of_other_members_takes_nobody_along() {
    let mut hub = two(&ALL);
    flap(&mut hub, 4, 1);
    hub.show("b", members(&["n2", "n3", "n4"]));
    hub.take();
    hub.pin(Some("b")).unwrap();
    assert_eq!(only(&mut hub, &["snapshot", "leave"]), ["snapshot b: n2 n3 n4", "leave n1"]);
}

#[test]
fn p1_4_a_provider_that_is_removed_leaves_behind_what_it_showed() {
    let mut hub = one(&ALL);
    flap(&mut hub, 4, 1);
    hub.take();
    hub.reconfigure([]);
    assert_eq!(only(&mut hub, &["snapshot", "leave"]), ["snapshot a: n2 n3", "leave n1"]);
}

#[test]
fn p3_5_draining_sees_through_what_is_held() {
    let mut hub = one(&ALL);
    flap(&mut hub, 4, 1);
    hub.take();
    hub.drain();
    assert_eq!(only(&mut hub, &["snapshot", "leave"]), ["leave n1"]);
}

#[test]
fn p4_2_a_quarantine_ends_when_the_node_is_back_and_not_while_its_leave_is_held() {
    let mut hub = one(&ALL);
    flap(&mut hub, 3, 1);
    hub.block(&id("n1"), BlockSource::Remoting, "gone", None).unwrap();
    hub.show("a", members(&ALL));
    settle(&mut hub);
    hub.show("a", members(&ALL[1..]));
    hub.reconnected(&id("n1")).unwrap();
    hub.advance(SECOND);
    hub.show("a", members(&ALL[1..]));
    assert_eq!(only(&mut hub, &["unblocked", "leave"]), NOTHING);
    hub.show("a", members(&ALL));
    hub.advance(SECOND);
    assert_eq!(only(&mut hub, &["unblocked", "leave"]), ["unblocked n1"]);
}

#[test]
fn p2_5_how_many_leaves_and_how_long_can_be_set() {
    let mut hub = one_with(damping(|damping| damping.leaves(1).within(seconds(20)).hold(seconds(2))), &ALL);
    flap(&mut hub, 2, 1);
    assert_eq!(leaves(&mut hub), 1);
    hub.advance(SECOND);
    assert_eq!(leaves(&mut hub), 1);
    hub.advance(seconds(20));
    hub.show("a", members(&ALL));
    hub.advance(SECOND);
    hub.show("a", members(&ALL[1..]));
    assert_eq!(leaves(&mut hub), 1, "the window is over");
}
