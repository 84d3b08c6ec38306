//! Waiting for what a host needs before it begins: members, or whatever it says.

#[path = "support/running.rs"]
mod running;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, node};
use cluster_provisioning::*;
use running::{Latch, PATIENCE, Running, until};

/// A wait that is to be in vain.
const BRIEF: Duration = Duration::from_millis(20);

fn ids(snapshot: &ProviderSnapshot) -> Vec<&str> {
    snapshot.members.iter().map(|node| node.id().as_str()).collect()
}

#[test]
fn p2_1_a_wait_ends_with_the_first_snapshot_that_has_enough_members() {
    let running = Running::new(&["a"]);
    let service = Arc::clone(&running.service);
    let waiter = thread::spawn(move || service.wait_for_members(3, PATIENCE));
    for shown in [&["n1"][..], &["n1", "n2"], &["n1", "n2", "n3"]] {
        running.role("a").show(shown);
        running.shows(shown);
    }
    let snapshot = waiter.join().unwrap().unwrap();
    assert_eq!(ids(&snapshot), ["n1", "n2", "n3"]);
    assert_eq!(ids(&running.service.wait_for_members(2, Duration::ZERO).unwrap()), ["n1", "n2", "n3"], "at once");
}

#[test]
fn p2_1_a_wait_in_vain_says_for_what_and_what_there_is() {
    let running = Running::new(&["a"]);
    let error = running.service.wait_for_members(1, BRIEF).unwrap_err();
    assert_eq!((error.code(), error.doing()), (ErrorCode::WaitTimedOut, "waiting for 1 members"));
    assert!(error.detail().contains("[no-snapshot]"), "{error}");
    running.ready("a", &["n1", "n2"]);
    let error = running.service.wait_for_members(3, BRIEF).unwrap_err();
    assert!(error.detail().ends_with("placement is open, with 2 members"), "{error}");
}

#[test]
fn p4_2_a_wait_is_for_whatever_a_host_says() {
    let running = Running::new(&["a"]);
    let worker = |id: &str| ClusterNode::builder(id, "10.0.0.1", 7001).kind("worker").build().unwrap();
    running.role("a").show_all([worker("n1"), worker("n2"), node("n3")].into_iter().collect());
    running.service.wait_ready(PATIENCE).unwrap();
    running.hub().quarantine(NodeId::new("n1").unwrap(), "testing").wait(PATIENCE).unwrap();
    let workers = |snapshot: &ProviderSnapshot| -> Vec<String> {
        snapshot.usable_of_kind("worker").map(|node| node.id().to_string()).collect()
    };
    let found = running.service.wait_for("one worker", PATIENCE, |snapshot| workers(snapshot).len() == 1).unwrap();
    assert_eq!((workers(&found), found.is_blocked("n1"), found.usable().count()), (vec!["n2".to_owned()], true, 2));
    assert_eq!(found.members.of_kind("worker").count(), 2, "blocked ones are members still");
    assert!(found.members.get("n3").is_some_and(|node| !node.hosts("worker")));
    let error = running.service.wait_for("two workers", BRIEF, |snapshot| workers(snapshot).len() > 1).unwrap_err();
    assert_eq!(error.doing(), "waiting for two workers");
}

#[test]
fn p2_5_what_a_host_asks_while_it_waits_keeps_the_hub_from_nothing() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1"]);
    let (latch, asked) = (Latch::new(), Arc::new(AtomicUsize::new(0)));
    let (service, hangs, asks) = (Arc::clone(&running.service), Arc::clone(&latch), Arc::clone(&asked));
    let waiter = thread::spawn(move || {
        service.wait_for("n2", PATIENCE, |snapshot| {
            asks.fetch_add(1, Ordering::Relaxed);
            hangs.hang();
            snapshot.members.contains("n2")
        })
    });
    latch.reached(1);
    running.role("a").show(&["n1", "n2"]);
    running.shows(&["n1", "n2"]);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it has not returned yet");
    latch.open();
    assert_eq!(ids(&waiter.join().unwrap().unwrap()), ["n1", "n2"], "what came meanwhile is looked at");
}

#[test]
fn p3_5_a_wait_ends_when_the_service_drains_and_none_is_possible_inside_a_callback() {
    let running = Running::new(&["a"]);
    let service = Arc::clone(&running.service);
    let (waits, begun) = (Latch::new(), Arc::new(Mutex::new(None)));
    waits.open();
    let entered = Arc::clone(&waits);
    let waiter = thread::spawn(move || {
        service.wait_for("nothing", PATIENCE, |_| {
            entered.hang();
            false
        })
    });
    let (inner, outcome) = (Arc::downgrade(&running.service), Arc::clone(&begun));
    running.recorder.on_call(move |call| {
        if call.bridge == BridgeKind::PlacementSupervisor {
            let asked = inner.upgrade().map(|service| service.wait_for_members(1, PATIENCE).map(drop));
            *outcome.lock().unwrap() = asked;
        }
    });
    running.ready("a", &["n1"]);
    waits.reached(1);
    until("the callback has asked", || begun.lock().unwrap().is_some());
    let inside = begun.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(inside.code(), ErrorCode::WouldBlock);
    running.service.drain().unwrap();
    assert_eq!(waiter.join().unwrap().unwrap_err().code(), ErrorCode::Draining);
}

#[test]
fn p1_4_a_host_knows_its_own_node_in_member_mode_alone() {
    assert_eq!(Running::new(&["a"]).hub().local_node(), None);
    let member = Running::with(&["a"], |builder| builder.member(node("me")));
    assert_eq!(member.hub().local_node().map(|node| node.id().to_string()), Some("me".to_owned()));
}
