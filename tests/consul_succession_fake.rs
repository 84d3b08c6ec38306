//! What is deregistered in the end: whatever may be registered when the node leaves, and when a definition is edited
//! nothing that its successor holds. Against agents that share a catalog, lose answers, and carry out late what they
//! were told.
#![cfg(feature = "consul")]

#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/watching.rs"]
mod watching;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvider, ConsulFactory, ErrorCode, ProviderDescriptor, ProviderFactory,
    Registration,
};
use fake::{Fake, Request, entry, hold, list, send, wait_or_hold};
use serde_json::{Value, json};
use watching::{Watching, environment, provider_of};

const BUDGET: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(5);
/// What a prompt end may take on a busy machine.
const PROMPT: Duration = Duration::from_secs(1);
const REGISTER: &str = "/v1/agent/service/register";
const DEREGISTER: &str = "/v1/agent/service/deregister/n1";

/// What is registered, by the host of its agent: a catalog, and what each agent holds.
type Catalog = Arc<Mutex<BTreeMap<&'static str, Value>>>;

/// What an agent does with a request instead of answering it as usual; `None`: it answers as usual.
type Oddity = Box<dyn Fn(&Request, &mut TcpStream, &Catalog) -> Option<bool> + Send + Sync>;

/// An agent that keeps what is registered with it in the catalog.
struct Agent {
    host: &'static str,
    catalog: Catalog,
    fake: Fake,
}

impl Agent {
    fn of(catalog: &Catalog, host: &'static str) -> Self {
        Self::odd(catalog, host, Box::new(|_, _, _| None))
    }

    fn odd(catalog: &Catalog, host: &'static str, oddity: Oddity) -> Self {
        let shared = Arc::clone(catalog);
        let fake = Fake::start(move |request, stream| {
            oddity(request, stream, &shared).unwrap_or_else(|| answer(host, &shared, request, stream))
        });
        Self { host, catalog: Arc::clone(catalog), fake }
    }

    fn provider(&self, service: &str) -> Arc<dyn ClusterProvider> {
        provider_of(&definition(&self.fake.url(), service), Some(node()))
    }

    fn registration(&self, service: &str) -> Box<dyn Registration> {
        self.provider(service).registration(&node()).unwrap()
    }

    fn joined(&self, service: &str) -> Box<dyn Registration> {
        watching::join(&*self.provider(service), &node()).unwrap()
    }

    /// The service in which the node is registered.
    fn holds(&self) -> Option<String> {
        let catalog = self.catalog.lock().unwrap();
        catalog.get(self.host).map(|body| body["Name"].as_str().unwrap().to_owned())
    }

    fn asked(&self, target: &str) -> usize {
        self.fake.requests().iter().filter(|request| request.target.split('?').next() == Some(target)).count()
    }
}

fn definition(url: &str, service: &str) -> ProviderDescriptor {
    ConsulFactory::descriptor("consul-fake", url, service).unwrap()
}

fn node() -> ClusterNode {
    ClusterNode::builder("n1", "10.0.0.1", 8090).incarnation(7).kind("user").build().unwrap()
}

fn register(catalog: &Catalog, host: &'static str, request: &Request) {
    catalog.lock().unwrap().insert(host, serde_json::from_str(&request.body).unwrap());
}

fn answer(host: &'static str, catalog: &Catalog, request: &Request, stream: &mut TcpStream) -> bool {
    let check = |host: &str, body: &Value| {
        let check = &body["Check"];
        json!({"Node": host, "CheckID": check["CheckID"], "Status": check["Status"], "Notes": check["Notes"]})
    };
    let path = request.target.split('?').next().unwrap();
    match (request.method.as_str(), path) {
        ("PUT", REGISTER) => {
            register(catalog, host, request);
            send(stream, "200 OK", "", b"")
        }
        ("PUT", DEREGISTER) => {
            let known = catalog.lock().unwrap().remove(host).is_some();
            send(stream, if known { "200 OK" } else { "404 Not Found" }, "", b"")
        }
        ("PUT", _) => {
            let known = catalog.lock().unwrap().contains_key(host);
            send(stream, if known { "200 OK" } else { "404 Not Found" }, "", b"")
        }
        (_, "/v1/agent/health/service/id/n1") => match catalog.lock().unwrap().get(host) {
            None => send(stream, "404 Not Found", "", br#"{"AggregatedStatus":"critical","Checks":null}"#),
            Some(body) => send(stream, "200 OK", "", json!({"Checks": [check(host, body)]}).to_string().as_bytes()),
        },
        (_, path) if path.starts_with("/v1/health/service/") => {
            let service = path.rsplit('/').next().unwrap();
            let catalog = catalog.lock().unwrap();
            let entries = catalog.iter().filter(|(_, body)| body["Name"] == service).map(|(host, body)| {
                let service = json!({"ID": body["ID"], "Meta": body["Meta"]});
                json!({"Node": {"Node": host}, "Service": service, "Checks": [check(host, body)]})
            });
            let entries: Vec<_> = entries.collect();
            list(stream, 9, &Value::Array(entries).to_string())
        }
        _ => send(stream, "404 Not Found", "", b""),
    }
}

/// Loses the answer to the first registrations, so many, after the agent carried them out.
fn loses(count: usize) -> Oddity {
    let lost = AtomicUsize::new(0);
    Box::new(move |request, _, catalog| {
        let loses = request.target == REGISTER && lost.fetch_add(1, Ordering::SeqCst) < count;
        if loses {
            register(catalog, "vm", request);
        }
        loses.then_some(false)
    })
}

#[test]
fn consul_point_19_a_registration_whose_answer_was_lost_is_deregistered() {
    let agent = Agent::odd(&Catalog::default(), "vm", loses(1));
    let mut registration = agent.registration("orders");
    assert!(agent.fake.requests().is_empty(), "made without I/O");
    let error = registration.join(&CancelToken::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable, "{error}");
    assert_eq!(agent.holds().as_deref(), Some("orders"));
    registration.leave(BUDGET).unwrap();
    assert_eq!(agent.holds(), None);
    registration.leave(BUDGET).unwrap();
    assert_eq!(agent.asked(DEREGISTER), 1, "what is known to be gone is not deregistered again");
}

#[test]
fn consul_point_19_a_join_that_failed_is_made_again_by_the_same_registration() {
    let agent = Agent::odd(&Catalog::default(), "vm", loses(2));
    let mut registration = agent.registration("orders");
    for expected in [false, false, true, true] {
        assert_eq!(registration.join(&CancelToken::new()).is_ok(), expected);
    }
    assert_eq!(agent.asked(REGISTER), 4, "the last one re-asserts it");
    registration.leave(BUDGET).unwrap();
    assert_eq!(agent.holds(), None);
    registration.join(&CancelToken::new()).unwrap();
    assert_eq!(agent.holds().as_deref(), Some("orders"), "and it may join again after it left");
}

#[test]
fn consul_point_19_a_registration_whose_first_heartbeat_failed_is_deregistered() {
    let is_pass = |request: &Request| request.target.starts_with("/v1/agent/check/pass/");
    let oddity: Oddity = Box::new(move |request, _, _| is_pass(request).then_some(false));
    let agent = Agent::odd(&Catalog::default(), "vm", oddity);
    let mut registration = agent.registration("orders");
    let cancel = CancelToken::new();
    registration.join(&cancel).unwrap();
    cancel.wait(registration.renew_interval());
    registration.renew(&cancel).unwrap_err();
    assert_eq!(agent.holds().as_deref(), Some("orders"));
    registration.leave(BUDGET).unwrap();
    assert_eq!(agent.holds(), None);
}

#[test]
fn consul_point_19_a_registration_whose_renewal_was_refused_is_deregistered() {
    let refuses = Arc::new(AtomicBool::new(false));
    let refusing = Arc::clone(&refuses);
    let agent = Agent::odd(
        &Catalog::default(),
        "vm",
        Box::new(move |request, stream, _| {
            let refuses = refusing.load(Ordering::SeqCst) && request.target != DEREGISTER;
            refuses.then(|| send(stream, "403 Forbidden", "", b"ACL not found"))
        }),
    );
    let mut registration = agent.joined("orders");
    refuses.store(true, Ordering::SeqCst);
    let cancel = CancelToken::new();
    cancel.wait(registration.renew_interval());
    assert_eq!(registration.renew(&cancel).unwrap_err().code(), ErrorCode::AccessDenied);
    assert_eq!(registration.join(&cancel).unwrap_err().code(), ErrorCode::AccessDenied);
    registration.leave(BUDGET).unwrap();
    assert_eq!(agent.holds(), None);
}

#[test]
fn consul_point_19_what_was_refused_or_never_reached_the_agent_needs_no_deregistration() {
    for status in ["400 Bad Request", "403 Forbidden"] {
        let oddity: Oddity = Box::new(move |_, stream, _| Some(send(stream, status, "", b"no")));
        let agent = Agent::odd(&Catalog::default(), "vm", oddity);
        let mut registration = agent.registration("orders");
        registration.join(&CancelToken::new()).unwrap_err();
        registration.leave(BUDGET).unwrap();
        let orders = agent.fake.requests().into_iter().filter(|request| request.method == "PUT");
        assert_eq!(orders.count(), 1, "{status}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let provider = provider_of(&definition(&format!("http://{closed}"), "orders"), Some(node()));
    for joins in [0, 1] {
        let mut registration = provider.registration(&node()).unwrap();
        for _ in 0..joins {
            registration.join(&CancelToken::new()).unwrap_err();
        }
        let started = Instant::now();
        registration.leave(BUDGET).unwrap();
        registration.retire(BUDGET).unwrap();
        assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
    }
}

#[test]
fn consul_point_19_a_registration_that_is_carried_out_after_the_deregistration_is_found_and_removed() {
    // The agent gets to the registration late: after the deregistration, which comes on another connection.
    let late = Arc::new(Mutex::new(None::<Value>));
    let held = Arc::clone(&late);
    let agent = Agent::odd(
        &Catalog::default(),
        "vm",
        Box::new(move |request, stream, catalog| match request.target.as_str() {
            REGISTER => {
                *held.lock().unwrap() = serde_json::from_str(&request.body).ok();
                Some(hold(stream))
            }
            DEREGISTER => {
                let answered = answer("vm", catalog, request, stream);
                if let Some(body) = held.lock().unwrap().take() {
                    catalog.lock().unwrap().insert("vm", body);
                }
                Some(answered)
            }
            _ => None,
        }),
    );
    let mut registration = agent.registration("orders");
    let cancel = CancelToken::new();
    let stop = cancel.clone();
    let joining = std::thread::spawn(move || (registration.join(&cancel).is_err(), registration));
    let deadline = Instant::now() + SOON;
    while late.lock().unwrap().is_none() {
        assert!(Instant::now() < deadline, "never asked");
        std::thread::yield_now();
    }
    stop.cancel();
    let (failed, mut registration) = joining.join().unwrap();
    assert!(failed);
    registration.leave(BUDGET).unwrap();
    assert_eq!((agent.holds(), agent.asked(DEREGISTER)), (None, 2));
}

#[test]
fn consul_point_19_a_successor_on_the_same_agent_keeps_what_it_has_overwritten() {
    // The agent's URL may be another one: nothing that is said depends on it. Nor does the service, of which an agent
    // has one of each id.
    for service in ["orders", "orders-2"] {
        let agent = Agent::of(&Catalog::default(), "vm");
        let (mut old, mut new) = (agent.joined("orders"), agent.joined(service));
        let started = Instant::now();
        old.retire(BUDGET).unwrap();
        assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
        assert_eq!((agent.holds().as_deref(), agent.asked(DEREGISTER)), (Some(service), 0));
        new.leave(BUDGET).unwrap();
        assert_eq!(agent.holds(), None);
    }
}

#[test]
fn consul_point_19_a_successor_on_another_agent_of_the_cluster_lets_the_former_registration_be_removed() {
    let catalog = Catalog::default();
    let (first, second) = (Agent::of(&catalog, "vm1"), Agent::of(&catalog, "vm2"));
    let (mut old, _new) = (first.joined("orders"), second.joined("orders"));
    old.retire(BUDGET).unwrap();
    assert_eq!((first.holds(), second.holds().as_deref()), (None, Some("orders")));
    let looks = first.fake.requests();
    let look = looks.iter().find(|request| request.target.starts_with("/v1/health/")).unwrap();
    assert!(look.target.contains("consistent") && look.target.contains("filter="), "{}", look.target);
}

#[test]
fn consul_point_19_a_successor_that_the_catalog_shows_late_is_waited_for() {
    let catalog = Catalog::default();
    let looks = AtomicUsize::new(0);
    let oddity: Oddity = Box::new(move |request, stream, _| {
        let early = request.target.starts_with("/v1/health/") && looks.fetch_add(1, Ordering::SeqCst) < 2;
        early.then(|| send(stream, "500 Internal Server Error", "", b"No cluster leader"))
    });
    let (first, second) = (Agent::odd(&catalog, "vm1", oddity), Agent::of(&catalog, "vm2"));
    let (mut old, _new) = (first.joined("orders"), second.joined("orders"));
    old.retire(BUDGET).unwrap();
    assert_eq!((first.holds(), second.holds().as_deref()), (None, Some("orders")));
}

#[test]
fn consul_point_19_a_registration_whose_successor_is_not_seen_elsewhere_is_never_removed() {
    // In another cluster, under another service, and where the former one has overwritten its successor.
    let elsewhere = Catalog::default();
    let other = Agent::of(&elsewhere, "vm9");
    let catalog = Catalog::default();
    let (first, second) = (Agent::of(&catalog, "vm1"), Agent::of(&catalog, "vm2"));
    for new in [other.joined("orders"), second.joined("orders-2"), first.joined("orders")] {
        let mut old = first.joined("orders");
        let started = Instant::now();
        old.retire(Duration::from_millis(300)).unwrap();
        assert!(started.elapsed() < Duration::from_millis(300) + PROMPT, "{:?}", started.elapsed());
        assert_eq!((first.holds().as_deref(), first.asked(DEREGISTER)), (Some("orders"), 0));
        drop(new);
    }
}

#[test]
fn consul_point_19_whoever_is_succeeded_repairs_nothing_any_more() {
    let agent = Agent::of(&Catalog::default(), "vm");
    let definition = definition(&agent.fake.url(), "orders").parameter("ttl", "1s");
    let old = provider_of(&definition, Some(node()));
    let mut former = watching::join(&*old, &node()).unwrap();
    let edited = definition.clone().parameter("wait", "5m");
    let new = ConsulFactory.replace(&edited, &environment(Some(node())), &*old).unwrap();
    let cancel = CancelToken::new();
    // For longer than a repair that follows another one waits.
    let registered_within_a_second = |former: &mut Box<dyn Registration>| {
        agent.catalog.lock().unwrap().clear();
        let (before, end) = (agent.asked(REGISTER), Instant::now() + Duration::from_millis(1200));
        let mut renewals = 0;
        while Instant::now() < end {
            cancel.wait(former.renew_interval());
            former.renew(&cancel).unwrap();
            renewals += 1;
        }
        assert!(renewals < 20, "{renewals} renewals in 1.2 s");
        agent.asked(REGISTER) - before
    };
    assert_eq!(registered_within_a_second(&mut former), 1, "a successor that has not joined yet changes nothing");
    watching::join(&*new, &node()).unwrap();
    assert_eq!(registered_within_a_second(&mut former), 0);
}

#[test]
fn consul_point_19_the_site_of_a_registration_is_its_agent_and_tenancy_and_the_service_there() {
    let site = |definition: &ProviderDescriptor| provider_of(definition, Some(node())).registration_site().unwrap();
    let at = |url: &str| definition(url, "orders");
    let first = site(&at("http://10.0.0.1:8500"));
    assert_eq!((first.place(), first.entry()), ("consul http://10.0.0.1:8500", "orders"));
    let same = at("http://10.0.0.1").parameter("wait", "5m").parameter("datacenter", "dc2").priority(7);
    assert_eq!(site(&same), first, "what is asked there, and how, is no part of it");
    let renamed = site(&definition("http://10.0.0.1:8500", "sales"));
    assert!(renamed.place() == first.place() && renamed != first);
    let spaced = at("http://10.0.0.1:8500").parameter("namespace", "team").parameter("partition", "p");
    assert_eq!(site(&spaced).place(), "consul http://10.0.0.1:8500 ns=team&partition=p");
    #[cfg(unix)]
    assert_ne!(site(&at("unix:///run/a.sock")).place(), site(&at("unix:///run/b.sock")).place());
    assert_eq!(provider_of(&at("http://10.0.0.1:8500"), None).registration_site(), None, "a client registers nobody");
}

/// A watcher's agent: restarts empty when told, at a lower index.
fn restarting(lost: &Arc<AtomicBool>) -> Fake {
    let lost = Arc::clone(lost);
    let created = |id: &str, n: u64| entry(id).replacen("\"Port\":1", &format!("\"Port\":1,\"CreateIndex\":{n}"), 1);
    let whole = format!("[{},{}]", created("a", 50), created("b", 51));
    let left = format!("[{}]", created("b", 12));
    Fake::start(move |request, stream| {
        let (index, body) = if lost.load(Ordering::SeqCst) { (12, &left) } else { (60, &whole) };
        match (request.is_probe(), request.index()) {
            (true, _) => list(stream, index, "[]"),
            (false, None) => list(stream, index, body),
            (false, Some(_)) => wait_or_hold(request, stream, index, body),
        }
    })
}

#[test]
fn consul_point_8_an_edited_definition_does_not_believe_an_agent_that_restarted_empty_just_then() {
    let lost = Arc::new(AtomicBool::new(false));
    let (fake, other) = (restarting(&lost), restarting(&lost));
    let former = definition(&fake.url(), "orders");
    let elsewhere = definition(&other.url(), "orders");
    for edited in [former.clone().parameter("wait", "5m"), elsewhere.clone()] {
        lost.store(false, Ordering::SeqCst);
        let old = provider_of(&former, None);
        let mut watching = Watching::start(&old);
        watching.expect_members(&["a", "b"], SOON);
        // Made before the watch has ended, and used after it: what is learned until then is known, too.
        let new = ConsulFactory.replace(&edited, &environment(None), &*old).unwrap();
        watching.stop();
        lost.store(true, Ordering::SeqCst);
        let next = Watching::start(&new);
        let code = next.expect("doubt", SOON, |event| match event {
            cluster_provisioning::ProviderEvent::Doubtful { reason } => Some(reason.code()),
            cluster_provisioning::ProviderEvent::Snapshot { members, .. } => panic!("believed: {members:?}"),
            _ => None,
        });
        assert_eq!(code, ErrorCode::IndexRollback);
        // Another one of the same definition, made anew, knows nothing.
        Watching::start(&provider_of(&edited, None)).expect_members(&["b"], SOON);
    }
    // Nor does one that watches something else.
    for edited in [
        definition(&fake.url(), "orders-2"),
        former.clone().parameter("filter", "Service.Port > 0"),
        former.clone().parameter("datacenter", "dc2"),
    ] {
        lost.store(false, Ordering::SeqCst);
        let old = provider_of(&former, None);
        Watching::start(&old).expect_members(&["a", "b"], SOON);
        lost.store(true, Ordering::SeqCst);
        let new = ConsulFactory.replace(&edited, &environment(None), &*old).unwrap();
        Watching::start(&new).expect_members(&["b"], SOON);
    }
}
