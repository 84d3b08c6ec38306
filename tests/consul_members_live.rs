//! Members in processes of their own on one real Consul agent, which is killed, paused, restored and tampered with; and
//! members that are killed, paused and drained.
//!
//! Whatever happens: nobody leaves who was not meant to, no topology is empty that was not so, and everything recovers
//! without a restart of any process.
#![cfg(feature = "consul")]

#[path = "support/cast.rs"]
mod cast;
#[path = "support/consul.rs"]
mod consul;
#[path = "support/member.rs"]
mod member;
#[path = "support/members.rs"]
mod members;
#[path = "support/scene.rs"]
mod scene;

use std::time::{Duration, Instant};

use cast::Cast;
use consul::Consul;
use member::now;
use members::{MemberProcess, after};
use scene::{IDS, SERVICE, SOON, TTL, a_fourth_joins, kept, lasting, provider, wait_passing};
use serde_json::json;

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "a member of the other tests, in a process of its own"]
fn member_process() {
    member::run();
}

#[test]
fn consul_point_19_an_agent_that_is_killed_and_comes_back_empty_loses_nobody() {
    let Some(mut consul) = Consul::start() else { return };
    let mut cast = Cast::start(&IDS, &[provider(&consul.url())]);
    consul.kill();
    cast.wait_not_healthy(SOON);
    consul.restart();
    let up = Instant::now();
    println!("all registered {:?} after the agent was up", wait_passing(&consul, &IDS, SOON) - up);
    cast.wait_healthy(SOON);
    println!("all healthy {:?} after the agent was up", up.elapsed());
    a_fourth_joins(&mut cast, &[provider(&consul.url())]);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn consul_point_19_an_agent_that_is_killed_and_comes_back_with_its_state_loses_nobody() {
    let Some(mut consul) = Consul::start_with(&kept()) else { return };
    let cast = Cast::start(&IDS, &[provider(&consul.url())]);
    consul.kill();
    cast.wait_not_healthy(SOON);
    back_with_its_state(consul, cast);
}

#[test]
fn consul_point_19_an_agent_that_was_gone_for_longer_than_the_ttl_and_kept_its_state_loses_nobody() {
    let Some(mut consul) = Consul::start_with(&kept()) else { return };
    let cast = Cast::start(&IDS, &[provider(&consul.url())]);
    consul.kill();
    cast.wait_not_healthy(SOON);
    lasting(2 * TTL);
    back_with_its_state(consul, cast);
}

fn back_with_its_state(mut consul: Consul, mut cast: Cast) {
    consul.restart();
    let up = Instant::now();
    cast.wait_healthy(SOON);
    println!("all healthy {:?} after the agent was up", up.elapsed());
    wait_passing(&consul, &IDS, SOON);
    a_fourth_joins(&mut cast, &[provider(&consul.url())]);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn consul_point_19_a_state_restored_from_before_anyone_joined_loses_nobody() {
    let Some(consul) = Consul::start_with(&kept()) else { return };
    let before = consul.save_snapshot();
    let cast = Cast::start(&IDS, &[provider(&consul.url())]);
    // A blocked query does not show it: the first probe of any member does, within its interval of 6 s.
    restored(&consul, cast, &before, Duration::from_secs(7));
}

#[test]
fn consul_point_19_a_state_restored_from_when_one_had_joined_loses_nobody() {
    let Some(consul) = Consul::start_with(&kept()) else { return };
    let probing = provider(&consul.url()).parameter("probe-interval", "2s");
    let first = MemberProcess::member("n1", std::slice::from_ref(&probing));
    first.wait_members(&["n1"], SOON);
    let before = consul.save_snapshot();
    let mut all = vec![first];
    all.extend(["n2", "n3"].map(|id| MemberProcess::member(id, std::slice::from_ref(&probing))));
    all.push(MemberProcess::watcher("w", &[probing]));
    restored(&consul, Cast::of(all, &IDS), &before, Duration::from_secs(3));
}

/// The first that is back is none of the oldest, by which an answer is compared with the one before.
#[test]
fn consul_point_19_a_state_restored_under_a_larger_cluster_loses_nobody() {
    let Some(consul) = Consul::start_with(&kept()) else { return };
    let before = consul.save_snapshot();
    let raw: Vec<String> = (0..30).map(|n| format!("a{n:02}")).collect();
    for id in &raw {
        consul.register(SERVICE, id, 8000);
    }
    let everyone: Vec<&str> = raw.iter().map(String::as_str).chain(IDS).collect();
    let members = IDS.iter().map(|id| MemberProcess::member(id, &[provider(&consul.url())]));
    let all = members.chain([MemberProcess::watcher("w", &[provider(&consul.url())])]).collect();
    let cast = Cast::of(all, &everyone);
    consul.restore_snapshot(&before);
    let at = now();
    for id in raw.iter().rev() {
        consul.register(SERVICE, id, 8000);
    }
    wait_passing(&consul, &everyone, SOON);
    println!("all registered {:?} after the state was restored", after(at, now()));
    cast.wait_members(&everyone, SOON);
    cast.wait_healthy(SOON);
    println!("all healthy {:?} after the state was restored", after(at, now()));
    cast.assert_nobody_left();
    cast.finish();
}

fn restored(consul: &Consul, mut cast: Cast, state: &[u8], limit: Duration) {
    let (at, index) = (now(), created(consul, "n3"));
    consul.restore_snapshot(state);
    let deadline = Instant::now() + SOON;
    // The restored state has no entry of n3: one that is there was made after it.
    while consul.passing(SERVICE) != IDS || created(consul, "n3") == index {
        assert!(Instant::now() < deadline, "not registered again: {:?}", consul.passing(SERVICE));
        std::thread::sleep(Duration::from_millis(5));
    }
    let registered = after(at, now());
    println!("all registered {registered:?} after the state was restored");
    assert!(registered < limit, "{registered:?}");
    a_fourth_joins(&mut cast, &[provider(&consul.url())]);
    cast.wait_healthy(SOON);
    println!("all healthy, and a fourth seen, {:?} after the state was restored", after(at, now()));
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn consul_point_7_an_agent_paused_for_less_than_the_ttl_loses_nobody() {
    let Some(consul) = Consul::start() else { return };
    let mut cast = Cast::start(&IDS, &[provider(&consul.url())]);
    consul.signal("STOP");
    lasting(Duration::from_millis(1500));
    consul.signal("CONT");
    a_fourth_joins(&mut cast, &[provider(&consul.url())]);
    cast.wait_healthy(SOON);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn consul_point_7_after_an_agent_paused_for_longer_than_the_ttl_everyone_is_back() {
    let Some(consul) = Consul::start() else { return };
    let mut cast = Cast::start(&IDS, &[provider(&consul.url())]);
    consul.signal("STOP");
    cast.wait_not_healthy(SOON);
    lasting(2 * TTL);
    consul.signal("CONT");
    let up = Instant::now();
    a_fourth_joins(&mut cast, &[provider(&consul.url())]);
    cast.wait_healthy(SOON);
    println!("all healthy {:?} after the agent went on", up.elapsed());
    for process in &cast.all {
        println!("{} saw leave: {:?}", process.name(), process.who_left(cast.mark_of(process.name())));
    }
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn p3_2_a_member_that_is_killed_leaves_at_the_others_within_its_ttl_and_one_that_drains_at_once() {
    let Some(consul) = Consul::start() else { return };
    let mut cast = Cast::start(&["n1", "n2", "n3", "n4"], &[provider(&consul.url())]);
    let mut killed = cast.remove("n4");
    let at = now();
    killed.kill();
    for process in &cast.all {
        let left = process.wait_members(&IDS, SOON);
        let latency = after(at, left.at);
        println!("killed: left at {} after {latency:?}", process.name());
        assert!(latency < TTL + Duration::from_secs(1), "{latency:?}");
    }
    cast.assert_left(&["n4"]);
    let mut drained = cast.remove("n3");
    let at = now();
    drained.command("drain");
    for process in &cast.all {
        let left = process.wait_members(&["n1", "n2"], SOON);
        let latency = after(at, left.at);
        println!("drained: left at {} after {latency:?}", process.name());
        assert!(latency < Duration::from_secs(1), "{latency:?}");
    }
    let done = drained.wait_line("drained", SOON, |line| line.what == "drained");
    assert_eq!(done.text, "", "deregistered without an error");
    cast.assert_left(&["n3", "n4"]);
    assert_eq!(drained.members(), ["n1", "n2", "n3"], "what it saw last stays");
    drained.check();
    cast.finish();
}

#[test]
fn p3_2_a_member_that_stood_still_longer_than_every_timeout_sees_nobody_leave_and_comes_back() {
    let Some(consul) = Consul::start() else { return };
    let short = |url: &str| {
        provider(url).parameter("wait", "5s").parameter("answer-timeout", "2s").parameter("probe-interval", "1s")
    };
    let mut cast = Cast::start(&IDS, &[short(&consul.url())]);
    let at = now();
    cast.get("n3").signal("STOP");
    for name in ["n1", "n2", "w"] {
        let left = cast.get(name).wait_members(&["n1", "n2"], SOON);
        println!("left at {name} after {:?}", after(at, left.at));
    }
    // Longer than a held query, its margins, and the silence timeout of the service.
    lasting(Duration::from_secs(20));
    cast.get("n3").signal("CONT");
    let at = now();
    for name in ["n1", "n2", "w"] {
        let back = cast.get(name).wait_members(&IDS, SOON);
        println!("back at {name} after {:?}", after(at, back.at));
    }
    a_fourth_joins(&mut cast, &[provider(&consul.url())]);
    cast.wait_healthy(SOON);
    for name in ["n1", "n2", "w"] {
        assert_eq!(cast.get(name).who_left(cast.mark_of(name)), ["n3"], "as {name} saw it");
    }
    assert_eq!(cast.get("n3").who_left(cast.mark_of("n3")), Vec::<String>::new());
    cast.finish();
}

#[test]
fn consul_point_19_a_member_that_consul_has_reaped_comes_back_when_it_goes_on() {
    let Some(consul) = Consul::start() else { return };
    let mut cast = Cast::start(&IDS, &[provider(&consul.url())]);
    cast.get("n3").signal("STOP");
    let at = Instant::now();
    for name in ["n1", "n2", "w"] {
        cast.get(name).wait_members(&["n1", "n2"], SOON);
    }
    println!("left everywhere after {:?}", at.elapsed());
    let deadline = Instant::now() + Duration::from_secs(150);
    while consul.get("/v1/agent/services").get("n3").is_some() {
        assert!(Instant::now() < deadline, "never reaped");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("reaped after {:?}", at.elapsed());
    cast.get("n3").signal("CONT");
    let at = now();
    for name in ["n1", "n2", "w"] {
        let back = cast.get(name).wait_members(&IDS, SOON);
        println!("back at {name} after {:?}", after(at, back.at));
    }
    a_fourth_joins(&mut cast, &[provider(&consul.url())]);
    cast.wait_healthy(SOON);
    for name in ["n1", "n2", "w"] {
        assert_eq!(cast.get(name).who_left(cast.mark_of(name)), ["n3"], "as {name} saw it");
    }
    assert_eq!(cast.get("n3").who_left(cast.mark_of("n3")), Vec::<String>::new());
    cast.finish();
}

/// Each of seven members is lost three times, one after the other, and then one of them again and again.
#[test]
fn consul_point_19_a_registration_lost_in_the_catalog_alone_is_repaired_and_seen() {
    lost_and_repaired("the catalog", Consul::deregister_in_catalog);
}

#[test]
fn consul_point_19_a_registration_lost_at_the_agent_is_repaired_and_seen() {
    lost_and_repaired("the agent", Consul::deregister);
}

fn lost_and_repaired(place: &str, lose: impl Fn(&Consul, &str)) {
    let Some(consul) = Consul::start() else { return };
    let ids = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
    let mut cast = Cast::start(&ids, &[provider(&consul.url())]);
    let (mut repaired, mut seen) = (Vec::new(), Vec::new());
    let order = ids.iter().cycle().take(3 * ids.len()).chain([&ids[0]; 9]);
    for id in order.copied() {
        cast.mark();
        let index = created(&consul, id);
        let at = now();
        lose(&consul, id);
        let deadline = Instant::now() + SOON;
        while created(&consul, id) <= index {
            assert!(Instant::now() < deadline, "{id} is not repaired");
            std::thread::sleep(Duration::from_millis(5));
        }
        repaired.push(after(at, now()));
        cast.wait_members(&ids, SOON);
        let told = cast.get("w").since(cast.mark_of("w"));
        // Absent where it was gone and back within one delivery: then nobody left.
        seen.extend(told.iter().find(|line| line.joined.iter().any(|joined| joined == id)).map(|l| after(at, l.at)));
    }
    println!("lost in {place} again and again, registered again after {:?}", &repaired[3 * ids.len()..]);
    for (what, mut times) in [("registered again", repaired), ("seen to join again by a watcher", seen)] {
        times.sort();
        let percentile = |share: usize| times.get((times.len() * share).div_ceil(100).saturating_sub(1));
        println!("lost in {place}, {what}: {} times of 30", times.len());
        println!("p50 {:?}, p95 {:?}, longest {:?}", percentile(50), percentile(95), times.last());
    }
    cast.wait_healthy(SOON);
    for process in &cast.all {
        let left = process.who_left(0);
        assert!(!left.iter().any(|id| id == process.name()), "{} left its own view", process.name());
    }
    cast.finish();
}

/// The index at which the present registration was made; 0 if there is none.
fn created(consul: &Consul, id: &str) -> u64 {
    let list = consul.get(&format!("/v1/health/service/{SERVICE}?passing=1"));
    let entry = list.as_array().unwrap().iter().find(|entry| entry["Service"]["ID"] == id).cloned();
    entry.and_then(|entry| entry["Service"]["CreateIndex"].as_u64()).unwrap_or_default()
}

/// Who is shown, and how its agent holds n2.
fn wait_maintained(consul: &Consul) {
    let deadline = Instant::now() + SOON;
    loop {
        assert_eq!(consul.passing(SERVICE), ["n1", "n3"], "maintenance has been undone");
        let checks = consul.get("/v1/agent/checks");
        if checks["service:n2"]["Status"] == "passing" && checks["_service_maintenance:n2"]["Status"] == "critical" {
            return;
        }
        assert!(Instant::now() < deadline, "n2 is not registered in maintenance: {checks}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn consul_point_13_maintenance_takes_a_member_out_until_it_is_lifted_whatever_is_lost_meanwhile() {
    let Some(consul) = Consul::start() else { return };
    let mut cast = Cast::start(&IDS, &[provider(&consul.url())]);
    consul.put("/v1/agent/service/maintenance/n2?enable=true&reason=a%20new%20disk", "");
    for name in ["n1", "n3", "w"] {
        cast.get(name).wait_members(&["n1", "n3"], SOON);
    }
    let maintained = |duration| {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            wait_maintained(&consul);
        }
    };
    // Longer than the member believes that its registration was lost.
    maintained(Duration::from_secs(12));
    consul.deregister_in_catalog("n2");
    maintained(Duration::from_secs(6));
    consul.deregister("n2");
    maintained(Duration::from_secs(6));
    assert_eq!(consul.get("/v1/agent/checks")["_service_maintenance:n2"]["Notes"], "a new disk");
    cast.assert_left(&["n2"]);
    consul.put("/v1/agent/service/maintenance/n2?enable=false", "");
    let lifted = Instant::now();
    cast.wait_members(&IDS, SOON);
    println!("back everywhere {:?} after it was lifted", lifted.elapsed());
    cast.mark();
    cast.wait_healthy(SOON);
    cast.finish();
}

#[test]
fn consul_point_13_checks_that_an_earlier_life_left_under_the_id_keep_no_member_out() {
    let Some(consul) = Consul::start() else { return };
    let http = |id: &str| {
        let url = format!("http://127.0.0.1:{}/", consul.other_port());
        json!({"CheckID": id, "Name": id, "HTTP": url, "Interval": "100ms", "Timeout": "50ms"})
    };
    let legacy = json!({"CheckID": "legacy", "Name": "legacy", "TTL": "1h", "Status": "critical"});
    let registration = json!({
        "ID": "n1", "Name": SERVICE, "Address": "127.0.0.1", "Port": 1, "Meta": {"id": "n1"},
        "Checks": [http("service:n1"), http("health"), legacy],
    });
    consul.put("/v1/agent/service/register", &registration.to_string());
    let cast = Cast::start(&IDS, &[provider(&consul.url())]);
    let checks = consul.get("/v1/agent/checks");
    let mut ids: Vec<_> = checks.as_object().unwrap().keys().map(String::as_str).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["service:n1", "service:n2", "service:n3"]);
    // Many intervals of the check that went on beside ours.
    lasting(TTL);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn consul_protoactor_a_registration_as_protoactor_go_makes_it_is_a_member_like_any_other() {
    let Some(consul) = Consul::start() else { return };
    let mut cast = Cast::start(&IDS, &[provider(&consul.url())]);
    let registration = json!({
        "ID": "go-1", "Name": SERVICE, "Tags": ["user", "order"], "Address": "10.1.2.3", "Port": 8090,
        "Meta": {"id": "go-1"}, "Check": {"TTL": "3s", "DeregisterCriticalServiceAfter": "1m0s"},
    });
    consul.put("/v1/agent/service/register", &registration.to_string());
    assert_eq!(consul.passing(SERVICE), IDS, "critical until its first heartbeat");
    consul.put("/v1/agent/check/update/service:go-1", r#"{"Status":"passing","Output":""}"#);
    cast.wait_members(&["go-1", "n1", "n2", "n3"], SOON);
    cast.assert_nobody_left();
    let at = now();
    for process in &cast.all {
        let left = process.wait_members(&IDS, SOON);
        println!("without heartbeats it left at {} after {:?}", process.name(), after(at, left.at));
    }
    cast.assert_left(&["go-1"]);
    cast.mark();
    cast.finish();
}

#[test]
fn consul_protoactor_what_a_member_registers_has_the_shape_that_protoactor_go_reads() {
    let Some(consul) = Consul::start() else { return };
    let mut node = members::node("n1");
    node.kinds = vec!["user".to_owned(), "order".to_owned()];
    node.metadata = vec![("zone".to_owned(), "a".to_owned())];
    let setup = member::Setup { node: Some(node.clone()), providers: vec![provider(&consul.url())] };
    let member = MemberProcess::spawn("n1", &setup);
    let others = ["n2", "n3"].map(|id| MemberProcess::member(id, &[provider(&consul.url())]));
    for process in others.iter().chain([&member]) {
        process.wait_members(&IDS, SOON);
    }
    let list = consul.get(&format!("/v1/health/service/{SERVICE}"));
    let entry = list.as_array().unwrap().iter().find(|entry| entry["Service"]["ID"] == "n1").unwrap();
    let service = &entry["Service"];
    assert_eq!((&service["Service"], &service["Address"]), (&json!(SERVICE), &json!("127.0.0.1")));
    assert_eq!((&service["Port"], &service["Tags"]), (&json!(node.port), &json!(["order", "user"])));
    assert_eq!(service["Meta"], json!({"id": "n1", "incarnation": node.incarnation.to_string(), "zone": "a"}));
    let checks: Vec<_> = entry["Checks"].as_array().unwrap().iter().map(|check| &check["CheckID"]).collect();
    assert_eq!(checks, ["serfHealth", "service:n1"]);
    let check = &entry["Checks"][1];
    assert_eq!((&check["Status"], &check["ServiceID"]), (&json!("passing"), &json!("n1")));
    assert_eq!((&check["Type"], &check["ServiceName"]), (&json!("ttl"), &json!(SERVICE)));
    assert_eq!(consul.get("/v1/agent/services").as_object().unwrap().len(), 3, "nothing else is registered");
}

#[test]
fn p1_1_members_whose_addresses_are_spelled_otherwise_are_themselves_and_shown_in_one_way() {
    let Some(consul) = Consul::start() else { return };
    let spelled = [("n1", "FD00:0:0::2"), ("n2", "[fd00:0::4]"), ("n3", "::ffff:10.1.0.9")];
    let providers = [provider(&consul.url())];
    let members = spelled.map(|(id, address)| {
        let node = Some(member::Node { address: address.to_owned(), ..members::node(id) });
        MemberProcess::spawn(id, &member::Setup { node, providers: providers.to_vec() })
    });
    let mut cast = Cast::of(members.into(), &IDS);
    // Each heartbeat and each list would tell again.
    a_fourth_joins(&mut cast, &providers);
    let taken = cast.all.iter().flat_map(MemberProcess::lines).find(|line| line.code == "node-id-taken");
    assert_eq!(taken, None);
    let list = consul.get(&format!("/v1/health/service/{SERVICE}"));
    let mut shown: Vec<_> = list.as_array().unwrap().iter().map(|entry| entry["Service"]["Address"].clone()).collect();
    shown.sort_by_key(ToString::to_string);
    assert_eq!(shown, ["10.1.0.9", "127.0.0.1", "fd00::2", "fd00::4"]);
    cast.assert_nobody_left();
    cast.finish();
}
