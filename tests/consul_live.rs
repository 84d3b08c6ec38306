//! The Consul provider against a real agent.
#![cfg(feature = "consul")]

#[path = "support/consul.rs"]
mod consul;
#[path = "support/watching.rs"]
mod watching;

use std::time::{Duration, Instant};

use cluster_provisioning::{CancelToken, ConsulFactory, ErrorCode, ProviderEvent, SIGN_OF_LIFE};
use consul::Consul;
use watching::{Watching, provider};

const SOON: Duration = Duration::from_secs(5);

fn watch(consul: &Consul) -> Watching {
    watch_by(consul, "6s")
}

/// With a probe that often.
fn watch_by(consul: &Consul, interval: &str) -> Watching {
    let descriptor = ConsulFactory::descriptor("consul-live", &consul.url(), "orders").unwrap();
    let provider = provider(&descriptor.parameter("probe-interval", interval));
    provider.check_connectivity(&CancelToken::new()).unwrap();
    Watching::start(&provider)
}

#[test]
fn p2_1_registrations_checks_and_maintenance_show() {
    let Some(consul) = Consul::start() else { return };
    let watching = watch(&consul);
    watching.expect_members(&[], SOON);
    consul.register("orders", "n1", 8001);
    let node = watching.expect("n1", SOON, |event| match event {
        ProviderEvent::Snapshot { members, revision, skipped } => {
            assert!(*skipped == 0 && revision.as_str().is_some());
            members.iter().next().cloned()
        }
        _ => None,
    });
    assert_eq!(format!("{node:?}"), r#"n1#0@127.0.0.1:8001["user"]"#);
    consul.register("orders", "n2", 8002);
    watching.expect_members(&["n1", "n2"], SOON);
    consul.put("/v1/agent/check/fail/service:n2", "");
    watching.expect_members(&["n1"], SOON);
    consul.put("/v1/agent/check/warn/service:n2", "");
    consul.put("/v1/agent/check/pass/service:n2", "");
    watching.expect_members(&["n1", "n2"], SOON);
    consul.put("/v1/agent/service/maintenance/n1?enable=true", "");
    watching.expect_members(&["n2"], SOON);
    consul.put("/v1/agent/service/maintenance/n1?enable=false", "");
    watching.expect_members(&["n1", "n2"], SOON);
    consul.put("/v1/agent/maintenance?enable=true", "");
    // A genuine, confirmed empty answer: the whole node is in maintenance.
    watching.expect_members(&[], SOON);
    consul.put("/v1/agent/maintenance?enable=false", "");
    watching.expect_members(&["n1", "n2"], SOON);
    consul.deregister("n1");
    watching.expect_members(&["n2"], SOON);
    consul.deregister("n2");
    watching.expect_members(&[], SOON);
    watching.expect_current(SOON * 2);
}

#[test]
fn consul_point_17_a_filter_or_datacenter_that_the_agent_does_not_know_is_an_invalid_definition() {
    let Some(consul) = Consul::start() else { return };
    for (parameter, value) in
        [("filter", "Service.Nope == \"x\""), ("filter", "Service.Port =="), ("datacenter", "nowhere")]
    {
        let descriptor = ConsulFactory::descriptor("consul-live", &consul.url(), "orders").unwrap();
        let provider = provider(&descriptor.parameter(parameter, value));
        let error = provider.check_connectivity(&CancelToken::new()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
    }
}

#[test]
fn consul_point_8_a_killed_agent_that_comes_back_empty_loses_nobody_who_registers_again() {
    let Some(mut consul) = Consul::start() else { return };
    consul.register("orders", "n1", 8001);
    consul.register("orders", "n2", 8002);
    let watching = watch(&consul);
    watching.expect_members(&["n1", "n2"], SOON);
    consul.kill();
    watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    consul.restart();
    watching.expect("doubt", SOON, |event| {
        assert!(!matches!(event, ProviderEvent::Snapshot { .. }), "believed: {event:?}");
        matches!(event, ProviderEvent::Doubtful { .. }).then_some(())
    });
    consul.register("orders", "n1", 8001);
    consul.register("orders", "n2", 8002);
    watching.expect("refresh", SOON, |event| {
        assert!(!matches!(event, ProviderEvent::Snapshot { .. }), "believed: {event:?}");
        matches!(event, ProviderEvent::Heartbeat { current: true }).then_some(())
    });
}

#[test]
fn consul_point_8_what_stays_lost_after_a_restart_is_published_after_the_grace() {
    let Some(mut consul) = Consul::start() else { return };
    consul.register("orders", "n1", 8001);
    consul.register("orders", "n2", 8002);
    let descriptor = ConsulFactory::descriptor("consul-live", &consul.url(), "orders").unwrap();
    let watching = Watching::start(&provider(&descriptor.parameter("repair-grace", "4s")));
    watching.expect_members(&["n1", "n2"], SOON);
    consul.restart();
    consul.register("orders", "n2", 8002);
    let (mut doubted, mut seen) = (None, Vec::new());
    let deadline = Instant::now() + Duration::from_secs(15);
    let believed = loop {
        let (at, event) = watching.events.recv_deadline(deadline).unwrap_or_else(|_| panic!("{seen:#?}"));
        match &event {
            ProviderEvent::Doubtful { reason } if reason.code() == ErrorCode::DoubtfulAnswer => {
                doubted = doubted.or(Some(at));
            }
            ProviderEvent::Snapshot { members, .. } => {
                assert_eq!(members.iter().map(|node| node.id().as_str()).collect::<Vec<_>>(), ["n2"]);
                break at;
            }
            _ => {}
        }
        seen.push(event);
    };
    let held = believed.duration_since(doubted.unwrap_or_else(|| panic!("believed at once: {seen:#?}")));
    assert!(held > Duration::from_millis(3900), "{held:?}: {seen:#?}");
    watching.expect_current(SOON * 2);
}

#[test]
fn consul_point_7_a_frozen_agent_shows_as_errors_within_15_s_and_recovers_by_itself() {
    let Some(consul) = Consul::start() else { return };
    consul.register("orders", "n1", 8001);
    let mut watching = watch(&consul);
    watching.expect_members(&["n1"], SOON);
    consul.signal("STOP");
    let start = Instant::now();
    for _ in 0..3 {
        watching.expect_error(ErrorCode::Timeout, Duration::from_secs(9));
        println!("an error after {:?}", start.elapsed());
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    consul.signal("CONT");
    let start = Instant::now();
    watching.expect_current(SOON);
    println!("refreshed after {:?}", start.elapsed());
    consul.register("orders", "n2", 8002);
    watching.expect_members(&["n1", "n2"], SOON);
    consul.signal("STOP");
    let stopped = watching.stop();
    consul.signal("CONT");
    println!("stopped after {stopped:?}");
    // 100 ms are promised; a busy machine may need more.
    assert!(stopped < Duration::from_secs(1), "{stopped:?}");
}

#[test]
fn consul_a_quiet_stream_gives_signs_of_life_that_are_refreshes() {
    let Some(consul) = Consul::start() else { return };
    consul.register("orders", "n1", 8001);
    let mut watching = watch_by(&consul, "4s");
    watching.expect_members(&["n1"], SOON);
    let mut last = Instant::now();
    for _ in 0..3 {
        watching.expect_current(SIGN_OF_LIFE);
        assert!(last.elapsed() <= SIGN_OF_LIFE);
        last = Instant::now();
    }
    let stopped = watching.stop();
    println!("stopped after {stopped:?}");
    // 100 ms are promised; a busy machine may need more.
    assert!(stopped < Duration::from_secs(1), "{stopped:?}");
}

/// Not a test of a rule: prints what the stream adds to a bare blocking query, one after the other so that neither
/// shares the server with the other. The bare query's body is read but not decoded.
#[test]
fn consul_latency_beside_a_bare_blocking_query() {
    let Some(consul) = Consul::start() else { return };
    for instances in [1, 100] {
        for n in 0..instances {
            consul.register("orders", &format!("n{n:03}"), 1000 + n);
        }
        let rounds = 15;
        let mut bare: Vec<_> = (0..rounds).map(|round| bare_round(&consul, 2000 + round)).collect();
        let descriptor = ConsulFactory::descriptor("consul-live", &consul.url(), "orders").unwrap();
        let watching = Watching::start(&provider(&descriptor.parameter("probe-interval", "200ms")));
        watching.expect("snapshot", SOON, |event| matches!(event, ProviderEvent::Snapshot { .. }).then_some(()));
        let mut ours: Vec<_> = (0..rounds).map(|round| our_round(&consul, &watching, 3000 + round)).collect();
        ours.sort();
        bare.sort();
        let middle = rounds as usize / 2;
        println!(
            "{instances} instances, median of {rounds}: change to event {:?}, bare {:?}",
            ours[middle], bare[middle]
        );
    }
}

fn bare_round(consul: &Consul, port: u16) -> Duration {
    let mut query = bare_query(consul);
    let start = Instant::now();
    let end = std::thread::scope(|scope| {
        let query = scope.spawn(move || {
            query.finish();
            Instant::now()
        });
        consul.register("orders", "n000", port);
        query.join().unwrap()
    });
    end.duration_since(start)
}

fn our_round(consul: &Consul, watching: &Watching, port: u16) -> Duration {
    // Peace first, so that no request is paced and no probe is under way.
    watching.expect_current(SOON);
    watching.expect_current(SOON);
    let start = Instant::now();
    consul.register("orders", "n000", port);
    loop {
        let (at, event) = watching.events.recv_timeout(SOON).unwrap();
        if let ProviderEvent::Snapshot { members, .. } = event
            && members.iter().next().unwrap().port() == port
        {
            return at.duration_since(start);
        }
    }
}

struct Bare(std::net::TcpStream);

/// A blocking query that is under way, with nothing done to its answer.
fn bare_query(consul: &Consul) -> Bare {
    use std::io::{Read, Write};
    let address = consul.url().replace("http://", "");
    let ask = |query: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(stream, "GET /v1/health/service/orders{query} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n\r\n")
            .unwrap();
        stream
    };
    let mut answer = String::new();
    ask("").read_to_string(&mut answer).unwrap();
    let index = answer.lines().find_map(|line| line.strip_prefix("X-Consul-Index: ")).unwrap().trim().to_owned();
    let stream = ask(&format!("?index={index}&wait=10s"));
    // Gives the server time to block on it.
    std::thread::sleep(Duration::from_millis(20));
    Bare(stream)
}

impl Bare {
    fn finish(&mut self) {
        use std::io::Read;
        let mut body = Vec::new();
        self.0.read_to_end(&mut body).unwrap();
        assert!(body.ends_with(b"0\r\n\r\n"));
    }
}
