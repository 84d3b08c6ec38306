//! The whole way: a member whose cluster is in Consul and in Kubernetes, from its registration to its deregistration, over
//! everything that goes wrong in between. Both servers are fakes that keep what is registered, as the real ones do.
#![cfg(all(feature = "consul", feature = "kubernetes"))]

#[path = "support/api.rs"]
mod api;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::{TOKEN, begin, chunk, event, is_list, is_watch, json, list_with, merge, pod, version_of};
use cluster_provisioning::testkit::{BridgeKind, Recorder};
use cluster_provisioning::*;
use fake::{Fake, Request, list, send};
use serde_json::{Value, json};

/// Far longer than anything takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a fake looks whether it is time to answer.
const TURN: Duration = Duration::from_millis(5);
const ALL: [&str; 3] = ["n1", "n2", "n3"];
const PREFIX: &str = "cluster.proto.actor/";

/// The address, port and incarnation of a node, the same whoever shows it.
fn address(id: &str) -> String {
    format!("10.0.0.{}", &id[1..])
}

/// What a server does with whoever asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    /// Takes every request, and never answers.
    Hangs,
    /// Hangs up.
    Gone,
}

/// Whether the server still answers. Otherwise the request is over: it hung for as long as that lasted, or there is none.
fn answers<T>(state: &Mutex<T>, mood: impl Fn(&T) -> Mood) -> bool {
    loop {
        match mood(&state.lock().unwrap()) {
            Mood::Answers => return true,
            Mood::Gone => return false,
            Mood::Hangs => {}
        }
        std::thread::sleep(TURN);
        // What hung is not answered any more when the server is back.
        if mood(&state.lock().unwrap()) != Mood::Hangs {
            return false;
        }
    }
}

/// An agent of Consul with the catalog of its service.
struct Consul {
    mood: Mood,
    index: u64,
    /// What is registered, and the index at which it was.
    entries: BTreeMap<String, (Value, u64)>,
    /// Registrations are refused.
    refuses: bool,
}

impl Consul {
    fn start() -> (Fake, Arc<Mutex<Self>>) {
        let mut consul = Self { mood: Mood::Answers, index: 100, entries: BTreeMap::new(), refuses: false };
        consul.register(&other("n2"));
        let consul = Arc::new(Mutex::new(consul));
        let shared = Arc::clone(&consul);
        (Fake::start(move |request, stream| Self::answer(&shared, request, stream)), consul)
    }

    fn register(&mut self, body: &Value) {
        let id = body["ID"].as_str().unwrap().to_owned();
        if self.entries.get(&id).is_none_or(|(known, _)| known != body) {
            self.index += 1;
            let created = self.entries.get(&id).map_or(self.index, |(_, created)| *created);
            self.entries.insert(id, (body.clone(), created));
        }
    }

    /// It restarts with these alone, and counts anew.
    fn lose_its_state(&mut self, others: &[&str]) {
        self.entries.clear();
        self.index = 5;
        others.iter().for_each(|id| self.register(&other(id)));
    }

    fn holds(&self, id: &str) -> bool {
        self.entries.contains_key(id)
    }

    fn list(&self) -> String {
        let entries = self.entries.values().map(|(body, created)| {
            let check = &body["Check"];
            json!({
                "Node": {"Node": "vm", "Address": "10.9.9.9"},
                "Service": {"ID": body["ID"], "Service": body["Name"], "Address": body["Address"], "Port": body["Port"],
                    "Tags": body["Tags"], "Meta": body["Meta"], "CreateIndex": created},
                "Checks": [{"Node": "vm", "CheckID": check["CheckID"], "Status": "passing", "Notes": check["Notes"]}],
            })
        });
        Value::Array(entries.collect()).to_string()
    }

    fn answer(state: &Mutex<Self>, request: &Request, stream: &mut TcpStream) -> bool {
        if !answers(state, |consul| consul.mood) {
            return false;
        }
        let path = request.target.split('?').next().unwrap();
        match (request.method.as_str(), path) {
            ("PUT", "/v1/agent/service/register") => {
                let mut consul = state.lock().unwrap();
                if consul.refuses {
                    return send(stream, "500 Internal Server Error", "", b"no leader");
                }
                consul.register(&serde_json::from_str(&request.body).unwrap());
                send(stream, "200 OK", "", b"")
            }
            ("PUT", path) => {
                let mut consul = state.lock().unwrap();
                let deregisters = path.contains("/deregister/");
                let known = path.ends_with("n1") && consul.holds("n1");
                if known && deregisters {
                    consul.entries.remove("n1");
                    consul.index += 1;
                }
                send(stream, if known { "200 OK" } else { "404 Not Found" }, "", b"")
            }
            ("POST", _) => send(stream, "401 Unauthorized", "", b"ACL support disabled"),
            (_, path) if path.starts_with("/v1/health/service/orders") => Self::health(state, request, stream),
            _ => send(stream, "404 Not Found", "", b""),
        }
    }

    fn health(state: &Mutex<Self>, request: &Request, stream: &mut TcpStream) -> bool {
        let deadline = Instant::now() + request.wait().unwrap_or_default();
        let asked = request.index().map_or(0, |index| index.parse().unwrap());
        loop {
            let consul = state.lock().unwrap();
            let (index, body) = (consul.index, if request.is_probe() { "[]".to_owned() } else { consul.list() });
            drop(consul);
            if request.index().is_none() || index > asked || Instant::now() >= deadline {
                return list(stream, index, &body);
            }
            std::thread::sleep(TURN);
            if state.lock().unwrap().mood != Mood::Answers {
                // One that waits here shares the server's fate.
                answers(state, |consul| consul.mood);
                return false;
            }
        }
    }
}

/// What another member registers with Consul.
fn other(id: &str) -> Value {
    json!({"ID": id, "Name": "orders", "Address": address(id), "Port": 7001, "Tags": [],
        "Meta": {"id": id, "incarnation": "7"}, "Check": {"CheckID": format!("service:{id}"), "Status": "passing"}})
}

/// The API server with the namespace of the pods.
struct Kubernetes {
    mood: Mood,
    version: u64,
    pods: BTreeMap<&'static str, Value>,
}

impl Kubernetes {
    fn start() -> (Fake, Arc<Mutex<Self>>) {
        let mut kubernetes = Self { mood: Mood::Answers, version: 10, pods: BTreeMap::new() };
        kubernetes.add("n2");
        let mut own: Value = serde_json::from_str(&pod("orders-0", 10)).unwrap();
        own["metadata"]["labels"] = json!({"app": "orders"});
        kubernetes.pods.insert("own", own);
        let kubernetes = Arc::new(Mutex::new(kubernetes));
        let shared = Arc::clone(&kubernetes);
        (Fake::start(move |request, stream| Self::answer(&shared, request, stream)), kubernetes)
    }

    /// Another member.
    fn add(&mut self, id: &'static str) {
        self.version += 1;
        let mut pod: Value = serde_json::from_str(&pod(id, self.version)).unwrap();
        pod["metadata"]["annotations"] = json!({format!("{PREFIX}incarnation"): "7"});
        pod["metadata"]["labels"][format!("{PREFIX}cluster")] = json!("orders");
        pod["status"]["podIP"] = json!(address(id));
        self.pods.insert(id, pod);
    }

    fn own(&self) -> &Value {
        &self.pods["own"]
    }

    fn is_registered(&self) -> bool {
        self.own()["metadata"]["labels"].get(format!("{PREFIX}cluster")).is_some()
    }

    /// The pods that the selector means, of a version above that one.
    fn since(&self, version: u64) -> Vec<String> {
        let version_of = |pod: &Value| pod["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        let is_meant = |pod: &&Value| pod["metadata"]["labels"].get(format!("{PREFIX}cluster")).is_some();
        let pods = self.pods.values().filter(is_meant).filter(|pod| version_of(pod) > version);
        pods.map(Value::to_string).collect()
    }

    fn answer(state: &Mutex<Self>, request: &Request, stream: &mut TcpStream) -> bool {
        if !answers(state, |kubernetes| kubernetes.mood) {
            return false;
        }
        match request {
            request if request.method == "POST" => json(stream, "201 Created", r#"{"status":{"allowed":true}}"#),
            request if request.method == "PATCH" => {
                let mut kubernetes = state.lock().unwrap();
                let patch: Value = serde_json::from_str(&request.body).unwrap();
                if patch != json!({}) {
                    kubernetes.version += 1;
                    let version = kubernetes.version;
                    let own = kubernetes.pods.get_mut("own").unwrap();
                    merge(own, &patch);
                    own["metadata"]["resourceVersion"] = json!(version.to_string());
                }
                json(stream, "200 OK", &kubernetes.own().to_string())
            }
            request if is_watch(request) => {
                let mut told: u64 = version_of(request).unwrap().parse().unwrap();
                let mut open = begin(stream, "");
                while open {
                    let kubernetes = state.lock().unwrap();
                    let news: String = kubernetes.since(told).iter().map(|pod| event("MODIFIED", pod)).collect();
                    told = kubernetes.version;
                    let answers = kubernetes.mood == Mood::Answers;
                    drop(kubernetes);
                    open = answers && (news.is_empty() || chunk(stream, &news));
                    std::thread::sleep(TURN);
                }
                false
            }
            request if is_list(request) => {
                let kubernetes = state.lock().unwrap();
                json(stream, "200 OK", &list_with(&kubernetes.version.to_string(), "", &kubernetes.since(0)))
            }
            _ => send(stream, "200 OK", "", b"ok"),
        }
    }
}

/// The member and its servers.
struct Scene {
    service: ClusterProvisioningService,
    recorder: Arc<Recorder>,
    events: EventStream<Arc<ProvisioningEvent>>,
    consul: Arc<Mutex<Consul>>,
    consul_server: Fake,
    kubernetes: Arc<Mutex<Kubernetes>>,
}

impl Scene {
    /// All three are members, and everybody shows them.
    fn start(degraded_grace: Duration) -> Self {
        let ((consul_server, consul), (kubernetes_server, kubernetes)) = (Consul::start(), Kubernetes::start());
        let with_short_waits = |descriptor: ProviderDescriptor| {
            let waits = [("probe-interval", "100ms"), ("probe-timeout", "1s"), ("answer-timeout", "2s")];
            waits.into_iter().fold(descriptor, |descriptor, (name, wait)| descriptor.parameter(name, wait))
        };
        let by_consul = ConsulFactory::descriptor("consul", &consul_server.url(), "orders").unwrap();
        let by_consul = by_consul.parameter("wait", "1s").parameter("repair-grace", "30s").priority(2);
        let by_kubernetes = api::descriptor(&kubernetes_server.url()).parameter("pod", "orders-0").priority(1);
        let mut policy = FailoverPolicy::default();
        (policy.backoff_initial, policy.backoff_max) = (Duration::from_millis(20), Duration::from_millis(100));
        (policy.cooldown, policy.failback_hold) = (Duration::ZERO, Duration::from_millis(300));
        (policy.degraded_grace, policy.max_errors) = (degraded_grace, 2);
        let recorder = Recorder::new();
        let builder = ClusterProvisioningService::builder()
            .provider(with_short_waits(by_consul))
            .provider(with_short_waits(by_kubernetes))
            .secret("kubernetes", Secret::new(TOKEN))
            .member(ClusterNode::builder("n1", address("n1"), 7001).incarnation(7).build().unwrap())
            .failover(policy)
            .placement_supervisor(recorder.clone())
            .partition_manager(recorder.clone())
            .remoting(recorder.clone());
        let events = builder.subscribe(100_000);
        let service = builder.start().unwrap();
        let scene = Self { service, recorder, events, consul, consul_server, kubernetes };
        scene.until("the node is registered with both", || {
            scene.consul.lock().unwrap().holds("n1") && scene.kubernetes.lock().unwrap().is_registered()
        });
        scene.service.wait_ready(PATIENCE).unwrap();
        scene.shows("consul", &["n1", "n2"]);
        scene.consul.lock().unwrap().register(&other("n3"));
        scene.kubernetes.lock().unwrap().add("n3");
        scene.shows("consul", &ALL);
        scene.all_healthy();
        scene
    }

    fn hub(&self) -> &ProviderWatchHub {
        self.service.hub()
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(
                Instant::now() < deadline,
                "never: {what}; {:#?}\n{:#?}",
                self.hub().providers(),
                self.hub().explain()
            );
            std::thread::sleep(TURN);
        }
    }

    /// Waits until both providers are healthy and show all three.
    fn all_healthy(&self) {
        self.until("both are healthy", || {
            let providers = self.hub().providers();
            let is_well =
                |status: &ProviderStatus| status.health == ProviderHealth::Healthy && status.members == Some(ALL.len());
            providers.len() == 2 && providers.iter().all(is_well)
        });
    }

    fn delivered(&self, what: &str, bridge: BridgeKind, mut is_it: impl FnMut(&ProvisioningEvent) -> bool) {
        let found = self.recorder.wait_for(PATIENCE, |call| call.bridge == bridge && is_it(&call.event));
        assert!(found.is_some(), "{bridge:?} is not told: {what}; {:#?}", self.hub().explain());
    }

    /// Waits until the tick of what was told last is through.
    fn settle(&self) {
        let outcome = self.hub().unblock(NodeId::new("nobody").unwrap()).wait(PATIENCE);
        assert_eq!(outcome.unwrap_err().code(), ErrorCode::NotBlocked);
    }

    /// Waits until PlacementSupervisor, and then PartitionManager, is given these, as that provider shows them.
    fn shows(&self, provider: &str, ids: &[&str]) {
        for bridge in [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager] {
            self.delivered(&format!("{ids:?} by {provider}"), bridge, |event| match event {
                ProvisioningEvent::Snapshot(delivery) => {
                    let shown = delivery.snapshot.members.iter().map(|node| node.id().as_str());
                    delivery.snapshot.provider_id.as_str() == provider && shown.eq(ids.iter().copied())
                }
                _ => false,
            });
        }
    }

    /// Waits until each of the two is told of the switch, and then given the same members by the new provider.
    fn switches(&self, to: &str, why: SwitchReason) {
        let is_it = |event: &ProvisioningEvent| match event {
            ProvisioningEvent::ProviderChanged(change) => change.to.as_str() == to && change.reason == why,
            _ => false,
        };
        self.delivered(&format!("{to} is followed: {why}"), BridgeKind::PlacementSupervisor, is_it);
        self.shows(to, &ALL);
        self.settle();
        assert_eq!(self.hub().active_provider().unwrap().as_str(), to);
    }

    /// Waits until all three bridges are told of that gate.
    fn gate(&self, wanted: PlacementGate) {
        for bridge in [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting] {
            let is_it = |event: &ProvisioningEvent| match event {
                ProvisioningEvent::GateChanged(change) => change.gate == wanted,
                _ => false,
            };
            self.delivered(&format!("the gate is {wanted}"), bridge, is_it);
        }
        self.settle();
    }

    /// What subscribers were told since it was asked last: nobody left or came, and each snapshot had all three.
    fn nobody_left_or_came(&mut self) -> Vec<Arc<ProvisioningEvent>> {
        self.settle();
        let told: Vec<_> = std::iter::from_fn(|| self.events.try_recv().ok()).collect();
        for event in &told {
            match &**event {
                ProvisioningEvent::RemoteTopology(change) => panic!("{change:?}"),
                ProvisioningEvent::Snapshot(delivery) => assert_eq!(delivery.snapshot.members.len(), ALL.len()),
                _ => {}
            }
        }
        told
    }

    /// What was told until now is no more of interest.
    fn forget(&mut self) {
        self.settle();
        while self.events.try_recv().is_ok() {}
        self.recorder.take();
    }

    fn consul(&self, change: impl FnOnce(&mut Consul)) {
        change(&mut self.consul.lock().unwrap());
    }
}

fn unavailable() -> PlacementGate {
    PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::ProvisioningUnavailable))
}

#[test]
fn the_whole_way_from_registration_over_rollback_failover_exhaustion_and_recovery_to_deregistration() {
    let mut scene = Scene::start(Duration::from_secs(20));
    scene.settle();
    let mut joined: Vec<_> = std::iter::from_fn(|| scene.events.try_recv().ok())
        .filter_map(|event| match &*event {
            ProvisioningEvent::RemoteTopology(change) => Some((change.event, change.node_id.to_string())),
            _ => None,
        })
        .collect();
    joined.sort();
    assert_eq!(joined, ALL.map(|id| (RemoteTopologyChange::Join, id.to_owned())), "each comes once");
    assert!(scene.hub().gate().is_open());

    // P2.3, P4.3: Consul loses its state, and those who were there register again, one after the other.
    scene.forget();
    scene.consul(|consul| consul.lose_its_state(&["n2"]));
    scene.delivered(
        "stale data",
        BridgeKind::Remoting,
        |event| matches!(event, ProvisioningEvent::RemotingWarning(warning) if warning.degraded.is_some()),
    );
    scene.until("the node registers again by itself", || scene.consul.lock().unwrap().holds("n1"));
    scene.consul(|consul| consul.register(&other("n3")));
    scene.delivered(
        "fresh data",
        BridgeKind::Remoting,
        |event| matches!(event, ProvisioningEvent::RemotingWarning(warning) if warning.degraded.is_none()),
    );
    scene.all_healthy();
    let told = scene.nobody_left_or_came();
    let doubted = told.iter().any(|event| match &**event {
        ProvisioningEvent::HealthChanged(change) => {
            change.cause.as_ref().is_some_and(|cause| cause.code() == ErrorCode::IndexRollback)
        }
        _ => false,
    });
    assert!(doubted && scene.hub().metrics().doubtful > 0, "the rollback is told as such: {told:#?}");
    assert_eq!(scene.hub().active_provider().unwrap().as_str(), "consul");
    assert!(!told.iter().any(|event| matches!(**event, ProvisioningEvent::ProviderChanged(_))), "{told:#?}");

    // P2.5, P3.4: Consul's answers stop.
    scene.forget();
    scene.consul(|consul| consul.mood = Mood::Hangs);
    scene.switches("k8s", SwitchReason::HealthDegraded);
    assert!(scene.hub().gate().is_open());
    scene.nobody_left_or_came();

    // P5.3: and Kubernetes is gone, too.
    scene.forget();
    scene.kubernetes.lock().unwrap().mood = Mood::Gone;
    scene.gate(unavailable());
    assert_eq!(scene.hub().latest_snapshot().unwrap_err().code(), ErrorCode::ProvisioningUnavailable);
    assert_eq!(scene.hub().snapshot().unwrap().members.len(), ALL.len(), "the last known good set stays");
    scene.nobody_left_or_came();

    // Recovery.
    scene.forget();
    scene.consul(|consul| consul.mood = Mood::Answers);
    scene.gate(PlacementGate::Open);
    scene.until("Consul is followed", || scene.hub().active_provider().is_some_and(|id| id.as_str() == "consul"));
    assert_eq!(scene.hub().latest_snapshot().unwrap().members.len(), ALL.len());
    scene.kubernetes.lock().unwrap().mood = Mood::Answers;
    scene.all_healthy();
    scene.nobody_left_or_came();

    // P3.5: the end, in good order.
    scene.forget();
    scene.service.drain().unwrap();
    scene.gate(PlacementGate::Paused(PauseReason::Draining));
    let deregistered = |request: &Request| request.method == "PUT" && request.target.contains("/deregister/n1");
    assert!(scene.consul_server.requests().iter().any(deregistered));
    assert!(!scene.consul.lock().unwrap().holds("n1"));
    let own = scene.kubernetes.lock().unwrap().own().clone();
    assert_eq!(own["metadata"]["labels"], json!({"app": "orders"}));
    assert!(!own.to_string().contains(PREFIX), "{own:#}");
    assert_eq!(scene.hub().latest_snapshot().unwrap().members.len(), ALL.len());
    scene.service.shutdown();
}

#[test]
fn p2_5_an_index_that_rolls_back_and_a_set_that_does_not_come_back_lead_to_the_other_provider() {
    let mut scene = Scene::start(Duration::from_secs(1));
    scene.forget();
    let failovers = scene.hub().metrics().failovers;
    scene.consul(|consul| {
        consul.refuses = true;
        consul.lose_its_state(&["n2"]);
    });
    scene.switches("k8s", SwitchReason::HealthDegraded);
    scene.nobody_left_or_came();
    // It comes to itself.
    scene.consul(|consul| {
        consul.refuses = false;
        consul.register(&other("n3"));
    });
    scene.switches("consul", SwitchReason::PriorityRestored);
    scene.nobody_left_or_came();
    assert_eq!(scene.hub().metrics().failovers, failovers + 2);
}
