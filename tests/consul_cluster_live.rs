//! Members in processes of their own on three real Consul servers that are one cluster: each member on its own server,
//! one on two of them; servers are killed and come back.
#![cfg(feature = "consul")]

#[path = "support/cast.rs"]
mod cast;
#[path = "support/consul.rs"]
mod consul;
#[path = "support/consul_servers.rs"]
mod consul_servers;
#[path = "support/member.rs"]
mod member;
#[path = "support/members.rs"]
mod members;
#[path = "support/scene.rs"]
mod scene;

use std::time::{Duration, Instant};

use cast::Cast;
use cluster_provisioning::{ConsulFactory, ProviderDescriptor};
use consul_servers::Servers;
use member::now;
use members::{MemberProcess, after};
use scene::{IDS, SERVICE, SOON, TTL, lasting, provider, wait_passing};

/// How long servers may take to find a leader, or to find another dead.
const ELECTION: Duration = Duration::from_secs(40);

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "a member of the other tests, in a process of its own"]
fn member_process() {
    member::run();
}

/// The servers, renumbered: the leader is the first.
fn servers() -> Option<Servers> {
    let mut servers = Servers::start_three()?;
    let leader = servers.leader(0);
    servers.all.swap(0, leader);
    Some(servers)
}

/// A member that is started again while its server holds requests because the leader changes.
fn join_when_possible(id: &str, provider: &ProviderDescriptor) -> MemberProcess {
    let deadline = Instant::now() + ELECTION;
    loop {
        let process = MemberProcess::member(id, std::slice::from_ref(provider));
        let line = process.wait_line("started", SOON, |line| matches!(line.what.as_str(), "started" | "refused"));
        if line.what == "started" {
            return process;
        }
        println!("{id}: {}", line.text);
        assert!(line.code == "timeout" && Instant::now() < deadline, "{}", line.text);
    }
}

/// Both servers, the first preferred.
fn two(servers: &Servers, first: usize, second: usize) -> Vec<ProviderDescriptor> {
    let at = |id: &str, number: usize| ConsulFactory::descriptor(id, &servers.all[number].url(), SERVICE).unwrap();
    vec![at("consul", first).priority(100), at("second", second).priority(50)]
}

#[test]
fn p3_2_members_on_one_agent_and_on_others_of_a_cluster_see_each_other() {
    let Some(servers) = servers() else { return };
    let url = |number: usize| servers.all[number].url();
    // Two share an agent, the third and the watcher have their own.
    let mut cast = Cast::start_each(&IDS, |id| {
        vec![provider(&match id {
            "n1" | "n2" => url(0),
            "n3" => url(1),
            _ => url(2),
        })]
    });
    for name in ["n2", "n3"] {
        let mut killed = cast.remove(name);
        let at = now();
        killed.kill();
        let rest: &[&str] = if name == "n2" { &["n1", "n3"] } else { &["n1"] };
        for process in &cast.all {
            let left = process.wait_members(rest, SOON);
            println!("{name} killed: left at {} after {:?}", process.name(), after(at, left.at));
            assert!(after(at, left.at) < TTL + Duration::from_secs(1));
        }
    }
    let started = now();
    cast.add(MemberProcess::member("n5", &[provider(&url(2))]));
    for process in &cast.all {
        let joined = process.wait_members(&["n1", "n5"], SOON);
        println!("n5 joined at {} after {:?}", process.name(), after(started, joined.at));
    }
    cast.finish();
}

#[test]
fn consul_point_7_a_leader_that_is_killed_takes_no_member_along_whose_own_agent_lives() {
    let Some(mut servers) = servers() else { return };
    let mut cast = start_on_three(&servers);
    let at = now();
    servers.all[0].kill();
    let leader = servers.wait_for_leader_other_than(1, 0);
    println!("server {leader} leads after {:?}", after(at, now()));
    // The member of the leader's own agent goes with it; the one that has a second agent stays.
    for name in ["n2", "n3", "n4", "w"] {
        let left = cast.get(name).wait_members(&["n2", "n3", "n4"], ELECTION);
        println!("n1 left at {name} after {:?}", after(at, left.at));
    }
    for name in ["n2", "n3", "w"] {
        cast.get(name).wait_health("consul", "healthy", SOON);
    }
    // It may have followed the second from the start, if that answered first.
    cast.get("n4").wait_for("following the second", ELECTION, |lines| {
        lines.iter().rfind(|line| line.what == "followed").filter(|line| line.provider == "second").map(drop)
    });
    assert_eq!(cast.get("n1").members(), ["n1", "n2", "n3", "n4"], "the last known good set");
    cast.add(MemberProcess::member("n5", &[provider(&servers.all[2].url())]));
    for name in ["n2", "n3", "n4", "n5", "w"] {
        cast.get(name).wait_members(&["n2", "n3", "n4", "n5"], SOON);
    }
    for name in ["n2", "n3", "n4", "w"] {
        assert_eq!(cast.get(name).who_left(cast.mark_of(name)), ["n1"], "as {name} saw it");
    }
    // The next one goes, too: one server is left, and cannot lead.
    cast.mark();
    servers.all[1].kill();
    for name in ["n3", "n5", "w"] {
        cast.get(name).wait_health("consul", "unreachable", ELECTION);
        assert_eq!(cast.get(name).members(), ["n2", "n3", "n4", "n5"], "the last known good set of {name}");
    }
    cast.assert_nobody_left();
    let back = now();
    servers.all[0].begin_again();
    servers.all[1].begin_again();
    let all = ["n1", "n2", "n3", "n4", "n5"];
    cast.wait_members(&all, ELECTION);
    println!("everyone saw everyone {:?} after the servers were started again", after(back, now()));
    cast.wait_healthy(ELECTION);
    only_those_without_an_agent_left(&cast, &["n1", "n2", "n4"]);
    cast.finish();
}

/// An agent that comes back has the checks of its members critical, and may take a quarter of a minute to tell the servers
/// that they pass: Consul itself shows these as gone. Whoever's agent lived stays.
fn only_those_without_an_agent_left(cast: &Cast, without: &[&str]) {
    for process in &cast.all {
        let left = process.who_left(cast.mark_of(process.name()));
        println!("{} saw leave {left:?}", process.name());
        assert!(left.iter().all(|id| without.contains(&id.as_str())), "as {} saw it: {left:?}", process.name());
    }
}

/// Three members, each on its own server, n1 on the leader; n4 on the leader and on the next; the watcher on the last.
fn start_on_three(servers: &Servers) -> Cast {
    let url = |number: usize| servers.all[number].url();
    Cast::start_each(&["n1", "n2", "n3", "n4"], |id| match id {
        "n1" => vec![provider(&url(0))],
        "n2" => vec![provider(&url(1))],
        "n4" => two(servers, 0, 1),
        _ => vec![provider(&url(2))],
    })
}

#[test]
fn consul_point_7_without_any_leader_the_members_stay_as_they_were_until_there_is_one_again() {
    let Some(mut servers) = servers() else { return };
    let url = |number: usize| servers.all[number].url();
    let mut cast = Cast::start_each(&IDS, |id| {
        vec![provider(&match id {
            "n1" => url(0),
            "n2" => url(1),
            _ => url(2),
        })]
    });
    // Both at once: nobody is left to say who is gone.
    servers.all[0].kill();
    servers.all[1].kill();
    cast.wait_not_healthy(ELECTION);
    let told = cast.get("n3").since(cast.mark_of("n3"));
    println!("n3 was told {:?}", told.iter().map(|line| &line.text).collect::<Vec<_>>());
    cast.get("n3").wait_health("consul", "unreachable", ELECTION);
    cast.get("w").wait_health("consul", "unreachable", ELECTION);
    lasting(2 * TTL);
    for process in &cast.all {
        assert_eq!(process.members(), IDS, "{}", process.name());
    }
    cast.assert_nobody_left();
    let back = Instant::now();
    servers.all[0].begin_again();
    servers.all[1].begin_again();
    servers.all[2].wait_for_leader();
    println!("a leader {:?} after the servers were started again", back.elapsed());
    wait_passing(&servers.all[2], &IDS, ELECTION);
    println!("all registered after {:?}", back.elapsed());
    cast.wait_healthy(ELECTION);
    println!("all healthy after {:?}", back.elapsed());
    cast.add(join_when_possible("n4", &provider(&servers.all[1].url())));
    cast.wait_members(&["n1", "n2", "n3", "n4"], ELECTION);
    only_those_without_an_agent_left(&cast, &["n1", "n2"]);
    cast.finish();
}
