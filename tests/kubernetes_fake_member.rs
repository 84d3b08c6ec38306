//! The whole service as a member, against a server that has its pod, and which decides when that is ready.
#![cfg(feature = "kubernetes")]

#[path = "support/api.rs"]
mod api;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::{SOON, TOKEN, begin, chunk, descriptor, event, is_list, is_watch, json, list_with, merge, pod};
use cluster_provisioning::{ClusterNode, ClusterProvisioningService, Secret, Secrets};
use fake::{Fake, Request, send};
use serde_json::{Value, json};

/// The namespace: the pod that the process runs in, and another that changes all the time.
struct Shop {
    own: Value,
    other: Value,
    version: u64,
}

impl Shop {
    fn start() -> (Fake, Arc<Mutex<Self>>) {
        let parsed = |name: &str| serde_json::from_str::<Value>(&pod(name, 1)).unwrap();
        let (mut own, other) = (parsed("orders-0"), parsed("other"));
        own["metadata"]["labels"] = json!({"app": "orders"});
        own["status"]["conditions"][0]["status"] = json!("False");
        let shop = Arc::new(Mutex::new(Self { own, other, version: 10 }));
        let shared = Arc::clone(&shop);
        (Fake::start(move |request, stream| answer(&shared, request, stream)), shop)
    }

    /// The pod is changed; its version rises.
    fn touch(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        self.version += 1;
        for pod in [&mut self.own, &mut self.other] {
            pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
    }

    fn is_registered(&self) -> bool {
        self.own["metadata"]["labels"].get("cluster.proto.actor/cluster").is_some()
    }

    fn become_ready(&mut self) {
        self.touch(|shop| shop.own["status"]["conditions"][0]["status"] = json!("True"));
    }
}

fn answer(shop: &Mutex<Shop>, request: &Request, stream: &mut TcpStream) -> bool {
    match request {
        request if request.method == "POST" => json(stream, "201 Created", r#"{"status":{"allowed":true}}"#),
        request if request.method == "PATCH" => {
            let mut shop = shop.lock().unwrap();
            let patch: Value = serde_json::from_str(&request.body).unwrap();
            if patch != json!({}) {
                shop.touch(|shop| merge(&mut shop.own, &patch));
            }
            json(stream, "200 OK", &shop.own.to_string())
        }
        request if is_watch(request) => changes(shop, stream),
        request if is_list(request) => {
            let shop = shop.lock().unwrap();
            let own = shop.is_registered().then(|| shop.own.to_string());
            let items: Vec<_> = own.into_iter().chain([shop.other.to_string()]).collect();
            json(stream, "200 OK", &list_with(&shop.version.to_string(), "", &items))
        }
        _ => send(stream, "200 OK", "", b"ok"),
    }
}

/// Says what changes, and that the other pod does 20 times a second.
fn changes(shop: &Mutex<Shop>, stream: &mut TcpStream) -> bool {
    let (mut told, mut round) = (0, 0u64);
    let mut open = begin(stream, "");
    while open {
        std::thread::sleep(Duration::from_millis(50));
        let mut shop = shop.lock().unwrap();
        round += 1;
        shop.touch(|shop| shop.other["metadata"]["labels"]["cluster.proto.actor/round"] = json!(round.to_string()));
        let own = shop.own.to_string();
        let is_news = shop.is_registered() && std::mem::replace(&mut told, shop.version) != shop.version;
        let other = event("MODIFIED", &shop.other.to_string());
        drop(shop);
        open = chunk(stream, &if is_news { event("MODIFIED", &own) + &other } else { other });
    }
    false
}

fn service(fake: &Fake, require_ready: &str) -> ClusterProvisioningService {
    let node = ClusterNode::builder("n1", "10.0.0.1", 7001).incarnation(7).build().unwrap();
    let descriptor = descriptor(&fake.url()).parameter("pod", "orders-0").parameter("require-ready", require_ready);
    let builder = ClusterProvisioningService::builder().secret("kubernetes", Secret::new(TOKEN));
    builder.member(node).provider(descriptor).start().unwrap()
}

fn shows(service: &ClusterProvisioningService, ids: &[&str]) -> bool {
    let snapshot = service.hub().snapshot();
    snapshot.is_some_and(|snapshot| snapshot.members.iter().map(|node| node.id().as_str()).eq(ids.iter().copied()))
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many patches there are within that time, and how many changes the watch told in it.
fn patches_within(fake: &Fake, shop: &Mutex<Shop>, time: Duration) -> (usize, u64) {
    let count = || fake.requests().iter().filter(|request| request.method == "PATCH").count();
    let (before, version) = (count(), shop.lock().unwrap().version);
    let end = Instant::now() + time;
    wait_for("time passes", || Instant::now() >= end);
    (count() - before, shop.lock().unwrap().version - version)
}

#[test]
fn kubernetes_point_16_a_member_that_is_not_ready_is_registered_and_no_member_and_its_pod_is_not_patched_in_a_loop() {
    let (fake, shop) = Shop::start();
    let service = service(&fake, "on");
    wait_for("registered", || shop.lock().unwrap().is_registered());
    wait_for("the other one", || shows(&service, &["other"]));
    let (patches, changes) = patches_within(&fake, &shop, Duration::from_millis(2500));
    assert!(changes >= 15, "{changes} changes that do not show the node");
    assert!((1..=2).contains(&patches), "looked at after a second, and two more: {patches}");
    let requests = fake.requests();
    let real = requests.iter().filter(|request| request.method == "PATCH" && request.body != "{}").count();
    assert_eq!(real, 1, "what is there is not written again");
    assert!(shows(&service, &["other"]));
    shop.lock().unwrap().become_ready();
    wait_for("a member once it is ready", || shows(&service, &["n1", "other"]));
    let (patches, changes) = patches_within(&fake, &shop, Duration::from_millis(1500));
    assert!(patches <= 1 && changes >= 10, "{patches} patches and {changes} changes");
    service.drain().unwrap();
    assert!(!shop.lock().unwrap().is_registered());
    assert_eq!(shop.lock().unwrap().own["metadata"]["labels"], json!({"app": "orders"}));
}

#[test]
fn kubernetes_point_16_where_readiness_does_not_count_a_member_is_one_before_it_is_ready() {
    let (fake, shop) = Shop::start();
    let service = service(&fake, "off");
    wait_for("a member", || shows(&service, &["n1", "other"]));
    service.wait_ready(SOON).unwrap();
    let (patches, changes) = patches_within(&fake, &shop, Duration::from_millis(1500));
    assert!(patches <= 1 && changes >= 10, "{patches} patches and {changes} changes");
    shop.lock().unwrap().become_ready();
    assert!(shows(&service, &["n1", "other"]));
    service.shutdown();
    assert!(!shop.lock().unwrap().is_registered(), "taken away on shutdown, too");
}

#[test]
fn p1_4_kubernetes_a_node_that_is_described_anew_has_its_pod_carry_that_and_nothing_of_before() {
    let (fake, shop) = Shop::start();
    shop.lock().unwrap().become_ready();
    let service = service(&fake, "on");
    wait_for("it is a member", || shows(&service, &["n1", "other"]));
    let described = |kind: &str, key: &str| {
        ClusterNode::builder("n1", "10.0.0.1", 7001).kind(kind).metadata(key, "b").build().unwrap()
    };
    let carried = |part: &str| {
        let shop = shop.lock().unwrap();
        let ours = shop.own["metadata"][part].as_object().cloned().unwrap_or_default();
        ours.keys().filter_map(|key| key.strip_prefix("cluster.proto.actor/")).map(str::to_owned).collect::<Vec<_>>()
    };
    let has = |part: &str, key: &str| carried(part).iter().any(|carried| carried == key);
    service.describe(&described("one", "zone")).unwrap();
    wait_for("the pod carries it", || has("annotations", "zone"));
    service.describe(&described("two", "rack")).unwrap();
    wait_for("the pod carries the other", || has("annotations", "rack") && !has("annotations", "zone"));
    assert_eq!(shop.lock().unwrap().own["metadata"]["annotations"]["cluster.proto.actor/incarnation"], json!("7"));
    let snapshot = || service.hub().snapshot().unwrap();
    wait_for("everybody sees it", || snapshot().members.get("n1").is_some_and(|node| node.kinds().eq(["two"])));
    service.drain().unwrap();
    assert_eq!((carried("labels"), carried("annotations")), (vec![], vec![]));
}

#[test]
fn p1_4_kubernetes_whoever_leaves_before_it_was_registered_as_described_leaves_nothing_of_before_either() {
    let (fake, shop) = Shop::start();
    let node = ClusterNode::builder("n1", "10.0.0.1", 7001).incarnation(7).kind("one").metadata("zone", "b").build();
    let node = node.unwrap();
    let descriptor = descriptor(&fake.url()).parameter("pod", "orders-0");
    let secrets = Secrets::new([("kubernetes".to_owned(), Secret::new(TOKEN))]);
    let provider = pods::provider_of(&descriptor, secrets, Some(node.clone()));
    let mut registration = pods::join(&*provider, &node).unwrap();
    let described = ClusterNode::builder("n1", "10.0.0.1", 7001).incarnation(8).build().unwrap();
    registration.describe(&described).unwrap();
    registration.leave(SOON).unwrap();
    let own = &shop.lock().unwrap().own["metadata"];
    assert_eq!((&own["labels"], &own["annotations"]), (&json!({"app": "orders"}), &json!({})));
}
