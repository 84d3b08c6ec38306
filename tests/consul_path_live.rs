//! Members in processes of their own whose way to a real Consul agent is cut, slow, refused or full.
#![cfg(feature = "consul")]

#[path = "support/cast.rs"]
mod cast;
#[path = "support/consul.rs"]
mod consul;
#[path = "support/member.rs"]
mod member;
#[path = "support/members.rs"]
mod members;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/scene.rs"]
mod scene;

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cast::Cast;
use consul::{Consul, Setup};
use member::now;
use members::after;
use proxy::Proxy;
use scene::{IDS, SERVICE, SOON, TTL, a_fourth_joins, lasting, provider};

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "a member of the other tests, in a process of its own"]
fn member_process() {
    member::run();
}

#[test]
fn consul_point_7_answers_that_come_a_byte_a_second_lose_nobody_and_keep_everyone_registered() {
    let Some(consul) = Consul::start() else { return };
    let proxy = Proxy::start(&consul.address());
    let mut cast = Cast::start(&IDS, &[provider(&proxy.url())]);
    proxy.trickle(true);
    cast.wait_not_healthy(SOON);
    // What is told of slow answers, for longer than a check passes without a heartbeat.
    let end = Instant::now() + 2 * TTL;
    while Instant::now() < end {
        assert_eq!(consul.passing(SERVICE), IDS, "heartbeats arrive, though their answers do not");
        lasting(Duration::from_millis(200));
    }
    assert!(proxy.trickled() > 0);
    let codes = codes(&cast, "n1");
    assert!(codes.iter().all(|code| code == "timeout"), "{codes:?}");
    proxy.trickle(false);
    let up = Instant::now();
    cast.wait_healthy(SOON);
    println!("all healthy {:?} after answers came at once again", up.elapsed());
    a_fourth_joins(&mut cast, &[provider(&proxy.url())]);
    cast.assert_nobody_left();
    cast.finish();
}

/// Every code of an error that the process was told since the mark.
fn codes(cast: &Cast, name: &str) -> Vec<String> {
    let lines = cast.get(name).since(cast.mark_of(name)).into_iter();
    lines.map(|line| line.code).filter(|code| !code.is_empty()).collect()
}

#[test]
fn p4_3_connections_cut_in_the_middle_of_every_answer_lose_nobody() {
    let Some(consul) = Consul::start() else { return };
    let proxy = Proxy::start(&consul.address());
    let mut cast = Cast::start(&IDS, &[provider(&proxy.url())]);
    // The answers to heartbeats are cut too.
    proxy.cut_after(60);
    cast.wait_not_healthy(SOON);
    let end = Instant::now() + 2 * TTL;
    while Instant::now() < end {
        assert_eq!(consul.passing(SERVICE), IDS, "heartbeats arrive, though their answers do not");
        lasting(Duration::from_millis(200));
    }
    assert!(proxy.cuts() > 4);
    proxy.cut_after(0);
    let up = Instant::now();
    cast.wait_healthy(SOON);
    println!("all healthy {:?} after answers were whole again", up.elapsed());
    a_fourth_joins(&mut cast, &[provider(&proxy.url())]);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn p4_3_a_member_that_is_cut_off_keeps_its_view_and_is_back_as_soon_as_its_way_is_open() {
    let Some(consul) = Consul::start() else { return };
    let proxy = Proxy::start(&consul.address());
    let (open, cut) = (provider(&consul.url()), provider(&proxy.url()));
    let mut cast = Cast::start_each(&IDS, |id| vec![if id == "n3" { cut.clone() } else { open.clone() }]);
    let at = now();
    proxy.refuse(true);
    for name in ["n1", "n2", "w"] {
        let left = cast.get(name).wait_members(&["n1", "n2"], SOON);
        println!("left at {name} after {:?}", after(at, left.at));
        assert!(after(at, left.at) < TTL + Duration::from_secs(1));
    }
    cast.get("n3").wait_health("consul", "unreachable", SOON);
    assert_eq!(cast.get("n3").members(), IDS, "the last known good set");
    let at = now();
    proxy.refuse(false);
    for name in ["n1", "n2", "w"] {
        let back = cast.get(name).wait_members(&IDS, SOON);
        println!("back at {name} after {:?}", after(at, back.at));
        assert!(after(at, back.at) < TTL);
    }
    cast.wait_healthy(Duration::from_secs(40));
    a_fourth_joins(&mut cast, &[open]);
    for name in ["n1", "n2", "w"] {
        assert_eq!(cast.get(name).who_left(cast.mark_of(name)), ["n3"], "as {name} saw it");
    }
    assert_eq!(cast.get("n3").who_left(cast.mark_of("n3")), Vec::<String>::new());
    cast.finish();
}

#[test]
fn consul_point_7_an_agent_at_its_limit_of_connections_is_a_clear_error_and_loses_nobody() {
    const LIMIT: usize = 20;
    let configuration = format!("limits {{ http_max_conns_per_client = {LIMIT} }}");
    let Some(consul) = Consul::start_with(&Setup { configuration, ..Setup::default() }) else { return };
    let proxy = Proxy::start(&consul.address());
    let mut cast = Cast::start(&IDS, &[provider(&proxy.url())]);
    // Everyone hangs up, and others take all the room.
    proxy.refuse(true);
    let held = take_all_room(&consul.address(), LIMIT);
    proxy.refuse(false);
    cast.wait_not_healthy(SOON);
    for process in &cast.all {
        process.wait_health("consul", "unreachable", SOON);
        assert_eq!(process.members(), IDS, "{}", process.name());
    }
    for name in ["n1", "w"] {
        let codes = codes(&cast, name);
        assert!(codes.iter().all(|code| code == "backend-unavailable"), "{name}: {codes:?}");
    }
    drop(held);
    let up = Instant::now();
    cast.wait_healthy(Duration::from_secs(40));
    println!("all healthy {:?} after there was room again", up.elapsed());
    cast.wait_members(&IDS, SOON);
    a_fourth_joins(&mut cast, &[provider(&proxy.url())]);
    cast.assert_nobody_left();
    cast.finish();
}

/// Opens connections until the agent holds so many and closes the next at once.
fn take_all_room(address: &str, limit: usize) -> Vec<TcpStream> {
    let deadline = Instant::now() + SOON;
    let mut held = Vec::new();
    loop {
        let mut stream = TcpStream::connect(address).unwrap();
        // One that is taken says nothing; one that is not is closed.
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => held.push(stream),
            _ if held.len() == limit => return held,
            // Connections that were hung up are still counted.
            _ => assert!(Instant::now() < deadline, "room for {} only", held.len()),
        }
        assert!(held.len() <= limit);
    }
}
