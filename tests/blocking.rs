//! The block list: who is marked, who is taken out, and how each entry ends.

#[path = "support/hub.rs"]
mod support;

use cluster_provisioning::testkit::{Harness, members, node};
use cluster_provisioning::*;
use support::*;

const NOTHING: Vec<String> = Vec::new();

fn day() -> std::time::Duration {
    seconds(24 * 60 * 60)
}

#[test]
fn p4_2_a_quarantined_node_is_marked_in_the_active_snapshot_and_everyone_is_told() {
    let mut hub = one(&["n1", "n2"]);
    hub.quarantine(&id("n2"), "no answer").unwrap();
    let expected = ["supervisor: snapshot a: n1 n2!", "partitions: snapshot a: n1 n2!", "remoting: blocked n2"];
    assert_eq!(calls(&hub), expected);
    let entry = hub.snapshot().unwrap().blocked.of(id("n2"))[0].clone();
    assert_eq!((&*entry.reason, entry.source, entry.since), ("no answer", BlockSource::Remoting, hub.now()));
    assert_eq!((entry.incarnation, entry.until), (Some(0), None));
    assert_eq!(hub.blocked().len(), 1);
}

#[test]
fn p4_2_blocking_again_tells_nobody_again() {
    let mut hub = one(&["n1"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.take();
    hub.quarantine(&id("n1"), "still none").unwrap();
    assert_eq!(story(&mut hub), NOTHING);
    assert_eq!(&*hub.blocked().iter().next().unwrap().reason, "still none");
}

#[test]
fn p4_4_a_node_is_reactivated_by_the_next_refresh_after_its_connection_is_back() {
    let mut hub = one(&["n1"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.take();
    hub.refresh("a");
    assert_eq!(story(&mut hub), NOTHING, "the connection is not back");
    hub.reconnected(&id("n1")).unwrap();
    assert_eq!(story(&mut hub), NOTHING, "no refresh yet");
    settle(&mut hub);
    hub.refresh("a");
    assert_eq!(story(&mut hub), ["snapshot a: n1", "unblocked n1"]);
}

#[test]
fn p4_4_neither_a_doubtful_answer_nor_an_error_nor_a_sign_of_life_reactivates() {
    let mut hub = one(&["n1"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.reconnected(&id("n1")).unwrap();
    settle(&mut hub);
    for event in [alive(), doubtful(), ProviderEvent::Degraded { error: refused() }] {
        hub.event("a", event);
        assert_eq!(only(&mut hub, &["unblocked", "snapshot"]), NOTHING);
    }
    hub.event("a", changes([]));
    assert_eq!(remote(&mut hub), ["unblocked n1"]);
}

#[test]
fn p4_4_a_standbys_refresh_does_not_reactivate() {
    let mut hub = two(&["n1"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.reconnected(&id("n1")).unwrap();
    settle(&mut hub);
    hub.refresh("b");
    hub.show("b", members(&["n1", "n2"]));
    assert_eq!(story(&mut hub), NOTHING);
    hub.refresh("a");
    assert_eq!(remote(&mut hub), ["unblocked n1"]);
}

#[test]
fn p4_4_a_refresh_without_the_node_does_not_reactivate_and_one_with_it_does() {
    let mut hub = one(&["n1", "n2"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.reconnected(&id("n1")).unwrap();
    hub.show("a", members(&["n2"]));
    hub.advance(SECOND);
    assert_eq!(remote(&mut hub), ["blocked n1", "leave n1"]);
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(remote(&mut hub), ["join n1", "unblocked n1"]);
}

#[test]
fn p4_4_a_new_quarantine_cancels_the_pending_return() {
    let mut hub = one(&["n1"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.reconnected(&id("n1")).unwrap();
    hub.quarantine(&id("n1"), "none again").unwrap();
    settle(&mut hub);
    hub.refresh("a");
    assert_eq!(story(&mut hub), NOTHING);
    hub.reconnected(&id("n1")).unwrap();
    hub.refresh("a");
    assert_eq!(remote(&mut hub), ["unblocked n1"]);
}

#[test]
fn p4_4_a_node_that_comes_back_in_another_life_is_no_longer_blocked() {
    let mut hub = one(&[]);
    let life = |incarnation| {
        [ClusterNode::builder("n1", "10.0.0.1", 8080).incarnation(incarnation).build().unwrap(), node("n2")]
    };
    hub.show("a", life(7).into_iter().collect());
    hub.quarantine(&id("n1"), "no answer").unwrap();
    settle(&mut hub);
    hub.show("a", members(&["n2"]));
    hub.advance(SECOND);
    hub.show("a", life(7).into_iter().collect());
    assert_eq!(remote(&mut hub), ["leave n1", "join n1"], "the same life stays blocked");
    hub.advance(SECOND);
    hub.show("a", members(&["n2"]));
    hub.advance(SECOND);
    hub.show("a", life(8).into_iter().collect());
    assert_eq!(remote(&mut hub), ["leave n1", "join n1", "unblocked n1"]);
}

#[test]
fn p4_4_a_provider_without_incarnations_is_no_proof_of_another_life() {
    let mut hub = two(&[]);
    let known = ClusterNode::builder("n1", "10.0.0.1", 8080).incarnation(7).build().unwrap();
    hub.show("a", [known].into_iter().collect());
    hub.show("b", members(&["n1"]));
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.end("a");
    hub.take();
    hub.refresh("b");
    assert_eq!((hub.active().as_deref(), remote(&mut hub)), (Some("b"), NOTHING));
    assert!(hub.snapshot().unwrap().is_blocked(id("n1")));
}

#[test]
fn p4_4_quarantine_ends_after_a_day_of_absence_counted_from_the_confirmed_leave() {
    let mut hub = one(&["n1", "n2"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.stand_still(day());
    assert_eq!(hub.blocked().len(), 1, "a member is not absent");
    hub.show("a", members(&["n2"]));
    hub.take();
    hub.stand_still(day() - millis(1));
    assert_eq!(remote(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(remote(&mut hub), ["unblocked n1"]);
}

#[test]
fn p4_4_absence_that_was_interrupted_counts_anew() {
    let mut hub = one(&["n1", "n2"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.show("a", members(&["n2"]));
    hub.stand_still(day() - seconds(1));
    hub.show("a", members(&["n1", "n2"]));
    hub.advance(seconds(1));
    hub.show("a", members(&["n2"]));
    hub.stand_still(day() - seconds(1));
    assert_eq!(hub.blocked().len(), 1);
    hub.advance(seconds(1));
    assert_eq!(hub.blocked().len(), 0);
}

#[test]
fn p4_2_a_node_that_is_no_member_can_be_blocked_and_ends_after_a_day_too() {
    let mut hub = one(&["n1"]);
    hub.quarantine(&id("gone"), "no answer").unwrap();
    assert_eq!(story(&mut hub), ["snapshot a: n1", "blocked gone"]);
    assert_eq!(hub.blocked().iter().next().unwrap().incarnation, None);
    hub.stand_still(day());
    assert_eq!(remote(&mut hub), ["unblocked gone"]);
}

#[test]
fn p4_2_a_failure_detectors_entry_removes_the_node_and_ends_by_time() {
    let mut hub = one(&["n1", "n2"]);
    hub.block(&id("n2"), BlockSource::FailureDetector, "dead", Some(seconds(3))).unwrap();
    assert_eq!(story(&mut hub), ["snapshot a: n1", "leave n2", "blocked n2"]);
    assert_eq!(hub.snapshot().unwrap().hash, members(&["n1"]).hash());
    hub.refresh("a");
    hub.advance(millis(2999));
    assert_eq!(story(&mut hub), NOTHING);
    hub.advance(millis(1));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2", "join n2", "unblocked n2"]);
}

#[test]
fn p4_2_a_node_readmitted_while_degraded_is_joined_only_after_a_refresh() {
    let mut hub = one(&["n1", "n2"]);
    hub.block(&id("n2"), BlockSource::FailureDetector, "dead", Some(seconds(3))).unwrap();
    hub.degrade("a", refused());
    hub.take();
    hub.advance(seconds(3));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2", "unblocked n2"]);
    hub.refresh("a");
    assert_eq!(remote(&mut hub), ["join n2"]);
}

#[test]
fn p4_2_an_operators_entry_marks_the_node_and_ends_only_by_lift() {
    let mut hub = one(&["n1"]);
    hub.block(&id("n1"), BlockSource::Operator, "maintenance", None).unwrap();
    assert_eq!(story(&mut hub), ["snapshot a: n1!", "blocked n1"]);
    assert_eq!(hub.reconnected(&id("n1")).unwrap_err().code(), ErrorCode::NotBlocked);
    hub.refresh("a");
    hub.show("a", members(&[]));
    hub.stand_still(day() + SECOND);
    assert_eq!(hub.blocked().len(), 1);
    settle(&mut hub);
    hub.lift(&id("n1"), BlockSource::Operator).unwrap();
    assert_eq!(story(&mut hub), ["snapshot a:", "unblocked n1"]);
    assert_eq!(hub.lift(&id("n1"), BlockSource::Operator).unwrap_err().code(), ErrorCode::NotBlocked);
}

#[test]
fn p4_2_unblocked_is_told_when_the_last_entry_of_a_node_goes() {
    let mut hub = one(&["n1"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.block(&id("n1"), BlockSource::Operator, "maintenance", None).unwrap();
    assert_eq!(remote(&mut hub), ["blocked n1"]);
    settle(&mut hub);
    hub.reconnected(&id("n1")).unwrap();
    hub.refresh("a");
    assert_eq!(story(&mut hub), ["snapshot a: n1!"], "the operator's entry is still there");
    settle(&mut hub);
    hub.lift(&id("n1"), BlockSource::Operator).unwrap();
    assert_eq!(remote(&mut hub), ["unblocked n1"]);
}

#[test]
fn p4_2_the_block_list_survives_failover_without_unblocked_and_blocked() {
    let mut hub = two(&["n1", "n2"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.block(&id("n2"), BlockSource::FailureDetector, "dead", Some(seconds(60))).unwrap();
    settle(&mut hub);
    hub.end("a");
    let told = only(&mut hub, &["snapshot", "blocked", "unblocked", "join", "leave"]);
    assert_eq!(told, ["snapshot b: n1!"]);
    assert_eq!(hub.blocked().len(), 2);
}

#[test]
fn p4_4_a_pending_return_survives_failover_and_waits_for_the_new_providers_refresh() {
    let mut hub = two(&["n1"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.reconnected(&id("n1")).unwrap();
    settle(&mut hub);
    hub.end("a");
    assert_eq!(remote(&mut hub), NOTHING);
    hub.refresh("b");
    assert_eq!(remote(&mut hub), ["unblocked n1"]);
}

#[test]
fn p4_2_a_quarantine_while_degraded_marks_at_once_and_returns_only_after_a_good_refresh() {
    let mut hub = one(&["n1"]);
    hub.degrade("a", refused());
    hub.take();
    hub.quarantine(&id("n1"), "no answer").unwrap();
    assert_eq!(story(&mut hub), ["snapshot a: n1!", "blocked n1"]);
    hub.reconnected(&id("n1")).unwrap();
    hub.event("a", alive());
    hub.degrade("a", refused());
    settle(&mut hub);
    assert_eq!(remote(&mut hub), NOTHING);
    hub.refresh("a");
    assert_eq!(remote(&mut hub), ["unblocked n1"]);
}

#[test]
fn p4_2_a_block_reaches_consumers_while_a_mass_loss_is_held() {
    let settings = policy(|policy| policy.mass_loss_share = Some(0.5));
    let mut hub = one_with(settings, &["n1", "n2", "n3", "n4"]);
    hub.show("a", members(&["n1"]));
    assert_eq!(story(&mut hub), ["warning mass-loss-held"]);
    hub.quarantine(&id("n2"), "no answer").unwrap();
    hub.block(&id("n3"), BlockSource::FailureDetector, "dead", Some(seconds(2))).unwrap();
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2! n3 n4", "blocked n2"]);
    hub.advance(millis(100));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2! n4", "leave n3", "blocked n3"]);
    hub.advance(millis(1900));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2! n3 n4", "unblocked n3"], "no refresh confirms its join");
    hub.advance(millis(100));
    hub.show("a", members(&["n1", "n3", "n4"]));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n3 n4", "leave n2", "join n3"]);
}

#[test]
fn p4_2_many_blocks_at_once_are_few_deliveries_and_each_can_be_read_at_once() {
    let ids: Vec<String> = (0..100).map(|n| format!("n{n:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut hub = one(&ids);
    for (number, node) in ids.iter().enumerate() {
        hub.quarantine(&id(node), "no answer").unwrap();
        assert_eq!(hub.blocked().len(), number + 1);
    }
    let told = |hub: &mut Harness| {
        let story = story(hub);
        let count = |kind| story.iter().filter(|text| text.starts_with(kind)).count();
        (count("snapshot"), count("blocked"), count("unblocked"))
    };
    assert_eq!(told(&mut hub), (1, 1, 0), "the first does not wait");
    hub.advance(millis(100));
    assert_eq!(told(&mut hub), (1, 99, 0));
    hub.advance(SECOND);
    for node in &ids {
        hub.reconnected(&id(node)).unwrap();
    }
    hub.refresh("a");
    assert_eq!(told(&mut hub), (1, 0, 100));
    assert!(hub.blocked().is_empty());
}

#[test]
fn p4_2_a_block_that_is_lifted_before_it_goes_out_is_told_to_nobody() {
    let mut hub = one(&["n1", "n2"]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.take();
    hub.block(&id("n2"), BlockSource::Operator, "maintenance", None).unwrap();
    hub.lift(&id("n2"), BlockSource::Operator).unwrap();
    hub.advance(SECOND);
    assert_eq!(story(&mut hub), NOTHING);
}

#[test]
fn p5_5_ending_what_is_not_blocked_has_its_code() {
    let mut hub = one(&["n1"]);
    assert_eq!(hub.reconnected(&id("n1")).unwrap_err().code(), ErrorCode::NotBlocked);
    let codes = [BlockSource::Remoting, BlockSource::FailureDetector, BlockSource::Operator]
        .map(|source| hub.lift(&id("n1"), source).unwrap_err().code());
    assert_eq!(codes, [ErrorCode::NotBlocked; 3]);
    assert_eq!(story(&mut hub), NOTHING);
}
