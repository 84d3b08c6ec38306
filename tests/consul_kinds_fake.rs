//! The watch of the Consul provider against servers of each kind, as they have been seen to answer.
#![cfg(feature = "consul")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/catalog.rs"]
mod catalog;
#[allow(dead_code)]
#[path = "support/fake.rs"]
mod fake;
#[path = "support/watching.rs"]
mod watching;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cases::side_by_side;
use catalog::{Catalog, KINDS, Kind};
use cluster_provisioning::{ConsulFactory, ProviderDescriptor, ProviderEvent};
use fake::{Fake, entry, hold, list, send};
use watching::{Watching, provider};

/// Far more than anything here takes, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn descriptor(url: &str) -> ProviderDescriptor {
    ConsulFactory::descriptor("consul-fake", url, "orders").unwrap().parameter("probe-interval", "200ms")
}

fn watch(descriptor: &ProviderDescriptor) -> Watching {
    Watching::start(&provider(descriptor))
}

fn is_current(event: &ProviderEvent) -> bool {
    matches!(event, ProviderEvent::Heartbeat { current: true })
}

#[test]
fn consul_point_11_each_change_is_sent_once_by_servers_of_each_kind() {
    side_by_side(KINDS, |kind| {
        let catalog = Catalog::new(kind, 14, &["a"]);
        let fake = catalog.serve();
        let watching = watch(&descriptor(&fake.url()));
        watching.expect_members(&["a"], SOON);
        let sets: [&[&'static str]; 5] = [&["a", "b"], &["a", "b", "c"], &["b", "c"], &["c"], &["c", "d"]];
        for set in sets {
            watching.in_peace_until("refresh", SOON, is_current);
            catalog.set(set);
            watching.expect_members(set, SOON);
        }
        assert_eq!(catalog.lists(), 1 + sets.len(), "{kind:?}");
        assert!(fake.watches().iter().all(|request| !request.target.contains("consistent")), "{kind:?}");
    });
}

#[test]
fn consul_point_11_a_wait_that_is_over_is_answered_once_by_servers_of_each_kind() {
    side_by_side(KINDS, |kind| {
        let catalog = Catalog::new(kind, 14, &["a"]);
        let fake = catalog.serve();
        let watching = watch(&descriptor(&fake.url()).parameter("wait", "1s"));
        watching.expect_members(&["a"], SOON);
        watching.in_peace_until("a third wait", SOON, |_| catalog.lists() >= 3);
        assert!(fake.watches()[1..].iter().all(|request| request.index() == Some("14")), "{kind:?}");
    });
}

#[test]
fn consul_point_2_and_6_an_empty_service_is_at_peace_whatever_others_do() {
    side_by_side(KINDS, |kind| {
        let catalog = Catalog::new(kind, 14, &[]);
        let fake = catalog.serve();
        let watching = watch(&descriptor(&fake.url()));
        watching.expect_members(&[], SOON);
        watching.in_peace_until("refresh", SOON, is_current);
        catalog.deregister_others();
        // A streaming agent is not told; the plain index shows, and the members are asked for once.
        watching.in_peace_until("the next query", SOON, |_| fake.watches().len() >= 3);
        watching.in_peace_until("refresh", SOON, is_current);
        catalog.set(&["a"]);
        watching.expect_members(&["a"], SOON);
    });
}

#[test]
fn consul_point_2_a_stream_that_lags_behind_the_plain_index_is_no_rollback() {
    let catalog = Catalog::new(Kind::Streaming, 27, &[]);
    catalog.stream_from(23);
    let fake = catalog.serve();
    let watching = watch(&descriptor(&fake.url()).parameter("wait", "1s"));
    watching.expect_members(&[], SOON);
    watching.in_peace_until("two waits", SOON, |_| fake.watches().len() >= 4);
    watching.in_peace_until("refresh", SOON, is_current);
    assert!(fake.watches()[2..].iter().all(|request| request.index() == Some("23")));
    catalog.set(&["a"]);
    watching.expect_members(&["a"], SOON);
}

#[test]
fn consul_point_11_followers_behind_each_other_raise_no_alarm_while_their_members_agree() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |request, stream| {
        let index = [100, 97, 95][turn.fetch_add(1, Ordering::SeqCst) % 3];
        let body = if request.is_probe() { String::from("[]") } else { format!("[{}]", entry("a")) };
        if request.index().is_some_and(|asked| asked.parse::<u64>().unwrap() >= index) {
            std::thread::sleep(request.wait().unwrap());
        }
        list(stream, index, &body)
    });
    let watching = watch(&descriptor(&fake.url()).parameter("consistency", "stale").parameter("wait", "1s"));
    watching.expect_members(&["a"], SOON);
    watching.in_peace_until("many answers", SOON, |_| fake.requests().len() >= 40);
    watching.in_peace_until("refresh", SOON, is_current);
}

#[test]
fn consul_point_11_an_answer_is_asked_of_the_leader_once_it_is_older_than_max_stale() {
    for (max_stale, is_asked_again) in [("2999ms", true), ("3s", false)] {
        let fake = Fake::start(move |request, stream| {
            if request.index().is_some() {
                return hold(stream);
            }
            let age = if request.target.contains("stale") { "X-Consul-LastContact: 3000\r\n" } else { "" };
            let body = if request.is_probe() { String::from("[]") } else { format!("[{}]", entry("a")) };
            send(stream, "200 OK", &format!("X-Consul-Index: 7\r\n{age}"), body.as_bytes())
        });
        let descriptor = descriptor(&fake.url()).parameter("consistency", "stale").parameter("max-stale", max_stale);
        let watching = watch(&descriptor);
        watching.expect_members(&["a"], SOON);
        let watches = fake.watches();
        let from_leader = watches.iter().filter(|request| !request.target.contains("stale")).count();
        assert_eq!(from_leader > 0, is_asked_again, "{max_stale}: {watches:?}");
    }
}
