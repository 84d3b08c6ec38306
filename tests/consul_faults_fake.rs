//! The watch of the Consul provider while servers, proxies and tokens go wrong in ways that have been seen.
#![cfg(feature = "consul")]

#[path = "support/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "support/fake.rs"]
mod fake;
#[path = "support/watching.rs"]
mod watching;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cases::side_by_side;
use cluster_provisioning::{
    CancelToken, ClusterProvisioningService, ConsulFactory, Credential, ErrorCode, FailoverPolicy, ProviderDescriptor,
    ProviderEvent, ProvisioningError,
};
use fake::{Fake, Request, entry, hold, list, send, wait_or_hold};
use watching::{Watching, provider};

/// Far more than anything here takes, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn descriptor(url: &str) -> ProviderDescriptor {
    named("consul-fake", url)
}

fn named(id: &str, url: &str) -> ProviderDescriptor {
    ConsulFactory::descriptor(id, url, "orders").unwrap().parameter("probe-interval", "200ms")
}

fn watch(descriptor: &ProviderDescriptor) -> Watching {
    Watching::start(&provider(descriptor))
}

fn check(descriptor: &ProviderDescriptor) -> ProvisioningError {
    provider(descriptor).check_connectivity(&CancelToken::new()).unwrap_err()
}

fn of(ids: &[&str]) -> String {
    format!("[{}]", ids.iter().map(|id| entry(id)).collect::<Vec<_>>().join(","))
}

fn is_current(event: &ProviderEvent) -> bool {
    matches!(event, ProviderEvent::Heartbeat { current: true })
}

fn is_long(request: &Request) -> bool {
    request.wait().is_some_and(|wait| wait >= Duration::from_secs(1))
}

#[test]
fn consul_point_7_polls_that_a_proxy_cuts_after_they_have_lasted_are_asked_again_and_nothing_is_told() {
    side_by_side([false, true], |closes| {
        let changed = Arc::new(AtomicBool::new(false));
        let news = Arc::clone(&changed);
        let fake = Fake::start(move |request, stream| match (request.is_probe(), news.load(Ordering::SeqCst)) {
            (true, changed) => list(stream, 10 + u64::from(changed), "[]"),
            (false, true) if request.index() != Some("11") => list(stream, 11, &of(&["b"])),
            (false, true) => hold(stream),
            (false, false) if request.index().is_none() => list(stream, 10, &of(&["a"])),
            (false, false) if is_long(request) => {
                std::thread::sleep(Duration::from_millis(1500));
                !closes && send(stream, "504 Gateway Timeout", "", b"upstream request timeout")
            }
            (false, false) => wait_or_hold(request, stream, 10, &of(&["a"])),
        });
        let watching = watch(&descriptor(&fake.url()));
        watching.expect_members(&["a"], SOON);
        let cuts = || fake.watches().iter().filter(|request| is_long(request)).count();
        watching.in_peace_until("a third poll", SOON, |_| cuts() >= 3);
        watching.in_peace_until("refresh", SOON, is_current);
        changed.store(true, Ordering::SeqCst);
        watching.expect_members(&["b"], SOON);
    });
}

#[test]
fn consul_point_7_and_8_another_life_at_the_very_index_is_compared_before_anything_is_fresh() {
    // The first life ends with the poll, for four seconds; the second one is at the same index by then.
    let ended: Mutex<Option<Instant>> = Mutex::new(None);
    let fake = Fake::start(move |request, stream| {
        let before = *ended.lock().unwrap();
        match before {
            None if request.is_probe() => list(stream, 13, "[]"),
            None if request.index().is_none() => list(stream, 13, &of(&["a", "b", "c"])),
            None => {
                *ended.lock().unwrap() = Some(Instant::now());
                false
            }
            Some(ended) if ended.elapsed() < Duration::from_secs(4) => false,
            Some(_) if request.is_probe() => list(stream, 13, "[]"),
            Some(_) if request.index().is_none() => list(stream, 13, &of(&["a", "b", "d"])),
            Some(_) => wait_or_hold(request, stream, 13, &of(&["a", "b", "d"])),
        }
    });
    let watching = watch(&descriptor(&fake.url()).parameter("repair-grace", "500ms"));
    watching.expect_members(&["a", "b", "c"], SOON);
    watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    let mut doubted = false;
    watching.expect("the members of the second life", SOON, |event| match event {
        ProviderEvent::Snapshot { members, .. } => {
            assert!(doubted && members.iter().map(|node| node.id().as_str()).eq(["a", "b", "d"]), "{event:?}");
            Some(())
        }
        ProviderEvent::Heartbeat { current } => {
            assert!(!current, "fresh before it was compared");
            None
        }
        ProviderEvent::Doubtful { .. } => {
            doubted = true;
            None
        }
        _ => None,
    });
    watching.expect_current(SOON);
}

/// Answers the query for all with three members, and the one with an index with nobody at once.
fn contradicting() -> Fake {
    Fake::start(|request, stream| match (request.is_probe(), request.index()) {
        (false, None) => list(stream, 10, &of(&["a", "b", "c"])),
        _ => list(stream, 10, "[]"),
    })
}

#[test]
fn consul_point_5_answers_that_contradict_each_other_keep_the_members_and_are_told_for_as_long_as_they_do() {
    let fake = contradicting();
    let watching = watch(&descriptor(&fake.url()).parameter("probe-interval", "6s"));
    watching.expect_members(&["a", "b", "c"], SOON);
    let contradicts = |event: &ProviderEvent| match event {
        ProviderEvent::Doubtful { reason } => reason.detail().contains("contradict"),
        ProviderEvent::Snapshot { .. } => panic!("{event:?}"),
        _ => false,
    };
    watching.expect("the contradiction", SOON, |event| contradicts(event).then_some(()));
    for _ in 0..2 {
        watching.expect("nothing else", SOON, |event| {
            assert!(contradicts(event), "{event:?}");
            Some(())
        });
    }
    let (first, asked) = (fake.requests()[0].at, fake.requests().len());
    assert!(asked <= 6 + first.elapsed().as_secs() as usize, "{asked} requests in {:?}", first.elapsed());
}

#[test]
fn p2_5_fails_over_to_a_healthy_standby_from_a_consul_whose_answers_contradict_each_other() {
    let (odd, good) = (
        contradicting(),
        Fake::start(|request, stream| match request.is_probe() {
            true => list(stream, 10, "[]"),
            false if request.index().is_none() => list(stream, 10, &of(&["a", "b", "c"])),
            false => wait_or_hold(request, stream, 10, &of(&["a", "b", "c"])),
        }),
    );
    let mut policy = FailoverPolicy::default();
    (policy.degraded_grace, policy.cooldown) = (Duration::from_secs(1), Duration::from_secs(1));
    let service = ClusterProvisioningService::builder()
        .provider(named("odd", &odd.url()).priority(100))
        .provider(named("good", &good.url()).priority(50))
        .failover(policy)
        .start()
        .unwrap();
    let begun = Instant::now();
    while service.hub().active_provider().is_none_or(|active| active.as_str() != "good") {
        assert!(begun.elapsed() < SOON, "{:?}", service.hub().explain());
        std::thread::sleep(Duration::from_millis(20));
    }
    service.shutdown();
}

#[test]
fn consul_point_15_a_poll_that_ends_with_the_token_it_was_sent_with_is_asked_again_with_the_present_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let revoked = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&revoked);
    let fake = Fake::start(move |request, stream| {
        let is_first = request.header("x-consul-token") == Some("first");
        // The poll of the token ends when that is revoked.
        while is_first && request.index().is_some() && !state.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        match (request.is_probe(), request.index()) {
            _ if is_first && state.load(Ordering::SeqCst) => send(stream, "403 Forbidden", "", b"ACL not found"),
            (true, _) => list(stream, 10, "[]"),
            (false, None) => list(stream, 10, &of(&["a"])),
            (false, Some(_)) => wait_or_hold(request, stream, 10, &of(&["a"])),
        }
    });
    let watching = watch(&descriptor(&fake.url()).credential(Credential::TokenFile(path.display().to_string())));
    watching.expect_members(&["a"], SOON);
    watching.in_peace_until("the poll", SOON, |_| fake.watches().len() == 2);
    std::fs::write(&path, "second\n").unwrap();
    revoked.store(true, Ordering::SeqCst);
    watching.in_peace_until("the next poll", SOON, |_| fake.watches().len() == 3);
    watching.in_peace_until("refresh", SOON, is_current);
    let watches = fake.watches();
    assert_eq!((watches[2].index(), watches[2].header("x-consul-token")), (Some("10"), Some("second")));
}

#[test]
fn consul_point_10_results_that_acls_filtered_are_refused_with_the_rule_that_is_missing() {
    for (allowed, rule) in [
        ([false, false, true], "service \"orders\" { policy = \"read\" }"),
        ([true, true, false], "node_prefix \"\" { policy = \"read\" }"),
        ([true, true, true], "node_prefix"),
    ] {
        let fake = Fake::start(move |request, stream| match request.target.split('?').next() {
            Some("/v1/internal/acl/authorize") => {
                let verdicts = allowed.map(|allow| format!("{{\"Allow\":{allow}}}")).join(",");
                send(stream, "200 OK", "", format!("[{verdicts}]").as_bytes())
            }
            Some("/v1/catalog/nodes") => send(stream, "200 OK", "", b"[]"),
            _ => {
                let filtered = "X-Consul-Index: 9\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n";
                send(stream, "200 OK", filtered, b"[]")
            }
        });
        let error = check(&descriptor(&fake.url()).credential(Credential::Secret("consul".into())));
        assert_eq!(error.code(), ErrorCode::AccessDenied);
        assert!(error.detail().contains(rule), "{error}");
    }
}

#[test]
fn consul_point_17_a_filter_or_datacenter_that_consul_does_not_know_is_an_invalid_definition() {
    let filter = "Failed to create boolean expression evaluator: Selector \"Service.Nope\" is not valid";
    for text in ["No path to datacenter", filter, &format!("rpc error making call: {filter}")] {
        let text = text.to_owned();
        let said = text.clone();
        let fake = Fake::start(move |_, stream| send(stream, "500 Internal Server Error", "", said.as_bytes()));
        let error = check(&descriptor(&fake.url()));
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{text}");
        assert!(error.detail().contains(&text), "{error}");
    }
}
