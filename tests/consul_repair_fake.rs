//! What keeps the local node registered and shown, against a Consul that is played: an agent with its checks, the catalog
//! that it writes, and what others do to both. It writes as an agent up to 1.9.0 does, at each registration, or as a
//! newer one does, only what differs.
#![cfg(feature = "consul")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/watching.rs"]
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cases::side_by_side;
use cluster_provisioning::{
    ClusterNode, ClusterProvisioningService, ConsulFactory, ErrorCode, EventStream, ProvisioningEvent,
};
use fake::{Fake, Request, list, send};
use serde_json::{Value, json};

/// What takes no longer unless the test fails.
const SOON: Duration = Duration::from_secs(20);
/// So many that repairs that come ever more seldom would not come in time.
const LOSSES: usize = 9;
const OWN: &str = "service:n1";
const MAINTENANCE: &str = "_service_maintenance:n1";

fn node() -> ClusterNode {
    ClusterNode::builder("n1", "10.0.0.1", 8090).incarnation(7).kind("user").build().unwrap()
}

/// How the agent writes the catalog.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    Old,
    New,
}

/// An instance and its checks, by their ids.
#[derive(Clone, Debug, Default, PartialEq)]
struct Instance {
    service: Value,
    checks: BTreeMap<String, Value>,
}

impl Instance {
    /// Its host's check always does.
    fn passes(&self) -> bool {
        self.checks.values().all(|check| check["Status"] == "passing")
    }
}

#[derive(Debug)]
struct State {
    version: Version,
    index: u64,
    agent: Option<Instance>,
    catalog: Option<Instance>,
    /// Whether the servers refuse what the agent writes.
    refuses: bool,
    /// How long the agent takes for a heartbeat.
    slow: Duration,
    /// How often the catalog came to show the node, or no longer to.
    turns: Vec<bool>,
    /// The ports under which the catalog has shown it.
    ports: BTreeSet<u64>,
}

impl State {
    /// The agent writes what differs from what it takes the catalog to hold.
    fn write(&mut self, before: Option<&Instance>, forced: bool) {
        let Some(now) = self.agent.clone() else {
            self.index += u64::from(self.catalog.take().is_some());
            return;
        };
        if self.refuses {
            return;
        }
        let differs = before.is_none_or(|before| before.service != now.service) || forced;
        let catalog = self.catalog.clone();
        for (id, check) in &now.checks {
            let known = before.and_then(|before| before.checks.get(id));
            if differs && (id == OWN || known.is_none()) || known != Some(check) {
                let written = self.catalog.get_or_insert_default();
                written.service = now.service.clone();
                written.checks.insert(id.clone(), check.clone());
            }
        }
        if let (Some(before), Some(written)) = (before, &mut self.catalog) {
            written.checks.retain(|id, _| now.checks.contains_key(id) || !before.checks.contains_key(id));
        }
        if catalog != self.catalog {
            self.index += 1;
        }
    }

    fn shows(&self) -> bool {
        self.catalog.as_ref().is_some_and(Instance::passes)
    }
}

/// A Consul that is played.
#[derive(Clone)]
struct Consul {
    state: Arc<Mutex<State>>,
    changed: Arc<Condvar>,
}

impl Consul {
    fn new(version: Version) -> Self {
        let state = State {
            version,
            index: 10,
            agent: None,
            catalog: None,
            refuses: false,
            slow: Duration::ZERO,
            turns: vec![false],
            ports: BTreeSet::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    /// A URL of its agent, which may have many.
    fn serve(&self) -> Fake {
        let consul = self.clone();
        Fake::start(move |request, stream| consul.answer(request, stream))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let done = change(&mut state);
        let shows = state.shows();
        if state.turns.last() != Some(&shows) {
            state.turns.push(shows);
        }
        let port = state.catalog.as_ref().and_then(|shown| shown.service["Port"].as_u64());
        state.ports.extend(port.filter(|_| shows));
        self.changed.notify_all();
        done
    }

    /// Changes what the agent holds, which then writes the catalog.
    fn at_agent<T>(&self, forced: bool, change: impl FnOnce(&mut Option<Instance>) -> T) -> T {
        self.change(|state| {
            let before = state.agent.clone();
            let done = change(&mut state.agent);
            state.write(before.as_ref(), forced && state.version == Version::Old);
            done
        })
    }

    /// The catalog loses the node, behind the agent's back.
    fn lose_in_catalog(&self) {
        self.change(|state| {
            state.catalog = None;
            state.index += 1;
        });
    }

    /// Somebody adds a check to the node.
    fn add_check(&self, id: &str, status: &str, kind: &str) {
        let check = json!({"Node": "vm", "CheckID": id, "ServiceID": "n1", "Status": status, "Type": kind, "Notes": "",
            "Output": "connection refused"});
        self.at_agent(false, |agent| {
            let instance = agent.get_or_insert_with(|| Instance {
                service: json!({"ID": "n1", "Service": "orders", "Port": 1, "Address": "", "Meta": {"incarnation": "6"}}),
                checks: BTreeMap::new(),
            });
            instance.checks.insert(id.to_owned(), check)
        });
    }

    fn remove_check(&self, id: &str) {
        self.at_agent(false, |agent| agent.as_mut().unwrap().checks.remove(id));
    }

    /// Waits until the state is as wanted.
    fn wait(&self, what: &str, wanted: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let (state, _) =
            self.changed.wait_timeout_while(self.state.lock().unwrap(), SOON, |state| !wanted(state)).unwrap();
        assert!(wanted(&state), "never: {what}: {state:#?}");
        state
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream) -> bool {
        let path = request.target.split('?').next().unwrap();
        let ok = |stream: &mut TcpStream| send(stream, "200 OK", "", b"");
        let unknown = |stream: &mut TcpStream| send(stream, "404 Not Found", "", b"Unknown");
        match (request.method.as_str(), path) {
            ("PUT", "/v1/agent/service/register") => {
                let body: Value = serde_json::from_str(&request.body).unwrap();
                self.at_agent(true, |agent| register(agent, &body));
                ok(stream)
            }
            ("PUT", "/v1/agent/check/pass/service%3An1") => {
                let slow = self.state.lock().unwrap().slow;
                std::thread::sleep(slow);
                let passed = self.at_agent(false, |agent| {
                    agent
                        .as_mut()
                        .and_then(|held| held.checks.get_mut(OWN))
                        .map(|check| check["Status"] = "passing".into())
                });
                if passed.is_some() { ok(stream) } else { unknown(stream) }
            }
            ("PUT", "/v1/agent/service/deregister/n1") => {
                let held = self.at_agent(false, Option::take);
                if held.is_some() { ok(stream) } else { unknown(stream) }
            }
            ("PUT", "/v1/agent/service/maintenance/n1") => {
                self.add_check(MAINTENANCE, "critical", "maintenance");
                ok(stream)
            }
            ("PUT", path) if path.starts_with("/v1/agent/check/deregister/") => {
                let id = path.rsplit('/').next().unwrap().replace("%3A", ":");
                self.remove_check(&id);
                ok(stream)
            }
            (_, "/v1/agent/checks") => {
                let held = self.state.lock().unwrap().agent.clone().unwrap_or_default();
                send(stream, "200 OK", "", json!(held.checks).to_string().as_bytes())
            }
            (_, "/v1/agent/health/service/id/n1") => match self.state.lock().unwrap().agent.clone() {
                None => unknown(stream),
                Some(Instance { service, checks }) => {
                    let mut checks: Vec<_> = checks.into_values().collect();
                    // Versions up to 1.8 do not say here how it is checked.
                    checks.iter_mut().for_each(|check| check["Type"] = "".into());
                    send(stream, "200 OK", "", json!({"Checks": checks, "Service": service}).to_string().as_bytes())
                }
            },
            (_, "/v1/health/node/vm") => {
                let (index, catalog) = self.catalog();
                list(stream, index, &json!(catalog.checks.into_values().collect::<Vec<_>>()).to_string())
            }
            (_, path) if path.starts_with("/v1/health/service/") => self.watched(request, stream),
            _ => unknown(stream),
        }
    }

    fn catalog(&self) -> (u64, Instance) {
        let state = self.state.lock().unwrap();
        (state.index, state.catalog.clone().unwrap_or_default())
    }

    /// Answers once the index is above the one that is asked from. Somebody else is always there.
    fn watched(&self, request: &Request, stream: &mut TcpStream) -> bool {
        if !request.is_probe()
            && let Some(asked) = request.index().and_then(|index| index.parse::<u64>().ok())
        {
            let _ = self
                .changed
                .wait_timeout_while(self.state.lock().unwrap(), request.wait().unwrap(), |state| state.index <= asked);
        }
        let (index, Instance { service, checks }) = self.catalog();
        if request.is_probe() {
            return list(stream, index, "[]");
        }
        let mut entries = vec![serde_json::from_str::<Value>(&fake::entry("other")).unwrap()];
        if service["Service"] == request.target.split(['?', '/']).nth(4).unwrap_or_default() {
            let mut checks: Vec<_> = checks.into_values().collect();
            checks.push(json!({"Node": "vm", "CheckID": "serfHealth", "ServiceID": "", "Status": "passing"}));
            entries.push(json!({"Node": {"Node": "vm", "Address": "10.0.0.1"}, "Service": service, "Checks": checks}));
        }
        list(stream, index, &Value::from(entries).to_string())
    }
}

/// What the agent makes of a registration: what it knows of a check, the check keeps.
fn register(agent: &mut Option<Instance>, body: &Value) {
    let check = &body["Check"];
    let held = agent.get_or_insert_default();
    held.service = json!({"ID": "n1", "Service": body["Name"], "Port": body["Port"], "Address": body["Address"],
        "Meta": body["Meta"], "Tags": body["Tags"]});
    let before = held.checks.get(OWN);
    let status = before.map_or(&check["Status"], |before| &before["Status"]).clone();
    let check = json!({"Node": "vm", "CheckID": OWN, "ServiceID": "n1", "Status": status, "Type": "ttl",
        "Notes": check["Notes"], "Output": ""});
    held.checks.insert(OWN.to_owned(), check);
}

/// A member that runs, and what it tells.
struct Member {
    service: ClusterProvisioningService,
    events: EventStream<Arc<ProvisioningEvent>>,
}

impl Member {
    fn start(fakes: &[(&str, &str, &Fake)]) -> Self {
        let builder = ClusterProvisioningService::builder().member(node());
        let builder = fakes.iter().fold(builder, |builder, (name, service, fake)| {
            builder.provider(ConsulFactory::descriptor(name, &fake.url(), service).unwrap())
        });
        let events = builder.subscribe(10_000);
        Self { service: builder.start().unwrap(), events }
    }

    fn of(consul: &Consul) -> (Self, Fake) {
        let fake = consul.serve();
        let member = Self::start(&[("consul", "orders", &fake)]);
        drop(consul.wait("shown", State::shows));
        (member, fake)
    }

    /// Waits for a warning of that code, and returns what it says.
    fn warned(&mut self, code: ErrorCode) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "never told: {code}");
            if let Ok(event) = self.events.recv_timeout(Duration::from_secs(1))
                && let ProvisioningEvent::Warning(warning) = &*event
                && warning.error.code() == code
            {
                return warning.error.to_string();
            }
        }
    }
}

fn count(fake: &Fake, part: &str) -> usize {
    fake.requests().iter().filter(|request| request.target.contains(part)).count()
}

/// Waits until the member has seen what the catalog shows.
fn wait_watched(consul: &Consul, fake: &Fake) {
    let (index, deadline) = (consul.catalog().0.to_string(), Instant::now() + SOON);
    while !fake.watches().iter().any(|request| request.index() == Some(&*index)) {
        assert!(Instant::now() < deadline, "not seen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the agent has been looked at so many more times.
fn wait_looks(fake: &Fake, more: usize) {
    let (before, deadline) = (count(fake, "/health/service/id/"), Instant::now() + SOON);
    while count(fake, "/health/service/id/") < before + more {
        assert!(Instant::now() < deadline, "not looked at");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn consul_point_19_what_only_the_catalog_lost_is_written_again_by_agents_of_every_version() {
    lost_again_and_again(Consul::lose_in_catalog);
}

#[test]
fn consul_point_19_a_node_that_somebody_deregisters_again_and_again_is_registered_again_each_time() {
    lost_again_and_again(|consul| drop(consul.at_agent(false, Option::take)));
}

/// The node is lost as soon as the member has seen that it is there.
fn lost_again_and_again(lose: impl Fn(&Consul) + Sync) {
    side_by_side([Version::Old, Version::New], |version| {
        let consul = Consul::new(version);
        let (member, fake) = Member::of(&consul);
        let mut times = Vec::new();
        for _ in 0..LOSSES {
            wait_watched(&consul, &fake);
            lose(&consul);
            let lost = Instant::now();
            drop(consul.wait("shown again", State::shows));
            times.push(lost.elapsed());
        }
        println!("{version:?}: written again after {times:?}");
        assert_eq!(count(&fake, "/deregister/"), 0, "{version:?}");
        assert_eq!(count(&fake, "/service/register"), 1 + LOSSES, "{version:?}: one write for each");
        let turns = consul.state.lock().unwrap().turns.len();
        assert_eq!(turns, 2 + 2 * LOSSES, "{version:?}: it was gone only when it was lost");
        drop(member);
    });
}

#[test]
fn consul_point_13_maintenance_stays_until_it_is_lifted_whatever_is_lost() {
    side_by_side([Version::Old, Version::New], |version| {
        let consul = Consul::new(version);
        let (member, fake) = Member::of(&consul);
        consul.add_check(MAINTENANCE, "critical", "maintenance");
        wait_looks(&fake, 2);
        consul.lose_in_catalog();
        wait_looks(&fake, 2);
        // The agent loses it, too.
        consul.at_agent(false, Option::take);
        drop(consul.wait("back at the agent", |state| {
            state.agent.as_ref().is_some_and(|held| held.checks.len() == 2 && held.checks[OWN]["Status"] == "passing")
        }));
        wait_looks(&fake, 2);
        assert_eq!(consul.state.lock().unwrap().turns, [false, true, false], "{version:?}");
        assert_eq!(count(&fake, "/deregister/"), 0, "{version:?}");
        consul.remove_check(MAINTENANCE);
        drop(consul.wait("shown again", State::shows));
        drop(member);
    });
}

#[test]
fn consul_point_13_a_node_that_is_in_maintenance_and_lost_in_the_catalog_is_written_once_that_is_lifted() {
    let consul = Consul::new(Version::New);
    let (member, fake) = Member::of(&consul);
    consul.add_check(MAINTENANCE, "critical", "maintenance");
    wait_looks(&fake, 1);
    consul.lose_in_catalog();
    wait_looks(&fake, 2);
    assert_eq!(count(&fake, "/service/register"), 1, "nothing is written into maintenance");
    consul.remove_check(MAINTENANCE);
    drop(consul.wait("shown again", State::shows));
    drop(member);
}

#[test]
fn consul_point_18_a_heartbeat_that_takes_longer_than_its_interval_keeps_no_member_from_starting() {
    let consul = Consul::new(Version::New);
    consul.change(|state| state.slow = Duration::from_millis(1300));
    let (member, fake) = Member::of(&consul);
    // Passes are sent again and again, though none is answered in time.
    let deadline = Instant::now() + SOON;
    while count(&fake, "/check/pass/") < 5 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(count(&fake, "/service/register"), 1, "it joined with its registration");
    member.service.shutdown();
    assert!(!consul.state.lock().unwrap().shows(), "it deregisters in good order");
}

#[test]
fn consul_point_13_an_earlier_life_is_not_shown_while_its_checks_are_removed() {
    // One of another id, one that goes on beside ours, and both.
    side_by_side([vec!["legacy"], vec![OWN], vec!["legacy", OWN]], |left| {
        let consul = Consul::new(Version::New);
        left.iter().for_each(|id| consul.add_check(id, "critical", "http"));
        let (member, _fake) = Member::of(&consul);
        let state = consul.wait("ours alone", |state| {
            state.agent.as_ref().is_some_and(|held| held.checks.len() == 1 && held.checks[OWN]["Type"] == "ttl")
        });
        let shown = state.ports.clone();
        drop((state, member));
        assert_eq!(shown, BTreeSet::from([8090]), "{left:?}");
    });
}

#[test]
fn consul_point_13_checks_that_an_earlier_life_left_are_removed_when_the_node_registers_and_maintenance_is_not() {
    let consul = Consul::new(Version::New);
    consul.add_check("legacy", "critical", "");
    consul.add_check(OWN, "critical", "http");
    consul.add_check(MAINTENANCE, "critical", "maintenance");
    let fake = consul.serve();
    let member = Member::start(&[("consul", "orders", &fake)]);
    let state = consul.wait("registered", |state| {
        state.agent.as_ref().is_some_and(|held| {
            held.checks.contains_key(OWN) && held.checks[OWN]["Type"] == "ttl" && !held.checks.contains_key("legacy")
        })
    });
    let ids: Vec<_> = state.agent.as_ref().unwrap().checks.keys().cloned().collect();
    drop(state);
    assert_eq!(ids, [MAINTENANCE, OWN]);
    assert!(count(&fake, "/check/deregister/service%3An1") == 1, "what goes on beside a TTL is ended first");
    consul.remove_check(MAINTENANCE);
    drop(consul.wait("shown", State::shows));
    drop(member);
}

#[test]
fn consul_point_13_a_check_of_anothers_making_that_keeps_the_node_out_is_told_and_not_removed() {
    let consul = Consul::new(Version::New);
    let (mut member, fake) = Member::of(&consul);
    consul.add_check("http", "critical", "http");
    let said = member.warned(ErrorCode::CheckFailing);
    assert!(said.contains("http") && said.contains("connection refused"), "{said}");
    assert_eq!(count(&fake, "/check/deregister/"), 0);
    consul.remove_check("http");
    drop(consul.wait("shown again", State::shows));
}

#[test]
fn consul_point_18_a_check_that_somebody_else_writes_is_made_anew() {
    let consul = Consul::new(Version::New);
    let (member, fake) = Member::of(&consul);
    consul.add_check(OWN, "critical", "http");
    let state = consul.wait("ours again", |state| {
        let own = state.agent.as_ref().and_then(|held| held.checks.get(OWN));
        state.shows() && own.is_some_and(|check| check["Type"] == "ttl")
    });
    drop(state);
    assert_eq!(count(&fake, "/check/deregister/service%3An1"), 1, "what goes on beside a TTL is ended first");
    drop(member);
}

#[test]
fn consul_point_19_a_registration_that_the_servers_refuse_from_the_agent_is_told() {
    let consul = Consul::new(Version::New);
    consul.change(|state| state.refuses = true);
    let fake = consul.serve();
    let mut member = Member::start(&[("consul", "orders", &fake)]);
    let said = member.warned(ErrorCode::RegistrationUnseen);
    assert!(said.contains("catalog"), "{said}");
    consul.change(|state| state.refuses = false);
    drop(consul.wait("shown", State::shows));
    assert_eq!(count(&fake, "/deregister/"), 0);
}

#[test]
fn consul_point_19_two_services_at_two_urls_of_one_agent_do_not_overwrite_each_other() {
    let consul = Consul::new(Version::New);
    let (first, second) = (consul.serve(), consul.serve());
    let mut member = Member::start(&[("a", "orders", &first), ("b", "sales", &second)]);
    let said = member.warned(ErrorCode::InvalidConfig);
    assert!(said.contains("orders") || said.contains("sales"), "{said}");
    let held = consul.state.lock().unwrap().agent.as_ref().unwrap().service["Service"].clone();
    wait_looks(if held == "orders" { &second } else { &first }, 3);
    let state = consul.state.lock().unwrap();
    assert_eq!(state.agent.as_ref().unwrap().service["Service"], held, "whoever came first keeps it");
    assert!(state.shows());
}

#[test]
fn consul_point_19_a_registration_that_would_take_the_id_from_another_service_of_the_process_waits_until_it_is_free() {
    let consul = Consul::new(Version::New);
    let (first, second) = (consul.serve(), consul.serve());
    let provider = |fake: &Fake, service| {
        watching::provider_of(&ConsulFactory::descriptor("consul", &fake.url(), service).unwrap(), Some(node()))
    };
    let (orders, sales) = (provider(&first, "orders"), provider(&second, "sales"));
    let mut registered = watching::join(&*orders, &node()).unwrap();
    let refused = watching::join(&*sales, &node()).err().unwrap();
    assert_eq!((refused.code(), count(&second, "/service/register")), (ErrorCode::InvalidConfig, 0), "{refused}");
    registered.leave(SOON).unwrap();
    watching::join(&*sales, &node()).unwrap();
    assert_eq!(consul.state.lock().unwrap().agent.as_ref().unwrap().service["Service"], "sales");
}
