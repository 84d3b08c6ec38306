//! What is taken off the pod in the end: whatever may be there of the node when it leaves, and when a definition is edited
//! nothing that its successor holds. Against a server that loses answers, and carries out late what it was told.
#![cfg(feature = "kubernetes")]

#[path = "support/api.rs"]
mod api;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::{PROMPT, descriptor, json, merge, pod, secrets};
use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvider, ErrorCode, KubernetesFactory, ProviderDescriptor, ProviderFactory,
    Registration,
};
use fake::{Fake, Request, send};
use pods::{environment, join, provider_of};
use serde_json::{Value, json as value};

const BUDGET: Duration = Duration::from_secs(2);
const PREFIX: &str = "cluster.proto.actor/";

/// The pods by name.
type Pods = Arc<Mutex<BTreeMap<String, Value>>>;

/// What the server does with a request instead of answering it as usual; `None`: it answers as usual.
type Oddity = Box<dyn Fn(&Request, &mut TcpStream, &Pods) -> Option<bool> + Send + Sync>;

/// A server with the pods `orders-0` and `orders-1`, which have no labels of ours.
struct Server {
    pods: Pods,
    fake: Fake,
}

impl Server {
    fn start() -> Self {
        Self::odd(Box::new(|_, _, _| None))
    }

    fn odd(oddity: Oddity) -> Self {
        let bare = |name: &str| {
            let mut pod: Value = serde_json::from_str(&pod(name, 1)).unwrap();
            pod["metadata"]["labels"] = value!({"app": "orders"});
            (name.to_owned(), pod)
        };
        let pods = Pods::new(Mutex::new([bare("orders-0"), bare("orders-1")].into()));
        let shared = Arc::clone(&pods);
        let fake = Fake::start(move |request, stream| {
            oddity(request, stream, &shared).unwrap_or_else(|| answer(&shared, request, stream))
        });
        Self { pods, fake }
    }

    fn definition(&self) -> ProviderDescriptor {
        descriptor(&self.fake.url()).parameter("pod", "orders-0")
    }

    fn registration(&self) -> Box<dyn Registration> {
        provider_of(&self.definition(), secrets(), Some(node())).registration(&node()).unwrap()
    }

    /// What an earlier life, or somebody else, left on a pod.
    fn leave_on(&self, name: &str, cluster: &str, id: &str, incarnation: u64) {
        let labels = value!({
            format!("{PREFIX}cluster"): cluster, format!("{PREFIX}member-id"): id, format!("{PREFIX}kind-old"): "true",
        });
        let annotations = value!({format!("{PREFIX}incarnation"): incarnation.to_string()});
        let mut pods = self.pods.lock().unwrap();
        merge(pods.get_mut(name).unwrap(), &value!({"metadata": {"labels": labels, "annotations": annotations}}));
    }

    /// The cluster that the pod's label names.
    fn cluster(&self, name: &str) -> Option<String> {
        let label = self.pods.lock().unwrap()[name]["metadata"]["labels"][format!("{PREFIX}cluster")].clone();
        label.as_str().map(str::to_owned)
    }

    /// Whether nothing of ours is on the pod any more.
    fn is_bare(&self, name: &str) -> bool {
        let pod = self.pods.lock().unwrap()[name].to_string();
        pod.contains("\"app\":\"orders\"") && !pod.contains(PREFIX)
    }

    fn patches(&self) -> usize {
        self.fake.requests().iter().filter(|request| request.method == "PATCH").count()
    }
}

fn node() -> ClusterNode {
    ClusterNode::builder("n1", "10.0.0.1", 7001).incarnation(7).kind("user").build().unwrap()
}

fn answer(pods: &Pods, request: &Request, stream: &mut TcpStream) -> bool {
    if request.method != "PATCH" {
        return json(stream, "404 Not Found", r#"{"message":"nothing else is asked here"}"#);
    }
    match patched(pods, request) {
        Some(pod) => json(stream, "200 OK", &pod.to_string()),
        None => json(stream, "409 Conflict", r#"{"message":"the uid is another one"}"#),
    }
}

/// The pod after the patch, unless that is meant for another one of its name.
fn patched(pods: &Pods, request: &Request) -> Option<Value> {
    let patch: Value = serde_json::from_str(&request.body).unwrap();
    let mut pods = pods.lock().unwrap();
    let pod = pods.get_mut(request.target.rsplit('/').next()?)?;
    let uid = &patch["metadata"]["uid"];
    if !uid.is_null() && *uid != pod["metadata"]["uid"] {
        return None;
    }
    merge(pod, &patch);
    Some(pod.clone())
}

/// Loses the answer to the patch of that number, from 0, after it was carried out.
fn loses(number: usize) -> Oddity {
    let count = AtomicUsize::new(0);
    Box::new(move |request, _, pods| {
        let lost = count.fetch_add(1, Ordering::SeqCst) == number;
        lost.then(|| {
            patched(pods, request);
            false
        })
    })
}

#[test]
fn kubernetes_labels_whose_patch_was_never_answered_are_removed_on_leaving() {
    let server = Server::odd(loses(1));
    let mut registration = server.registration();
    assert!(server.fake.requests().is_empty(), "made without I/O");
    let error = registration.join(&CancelToken::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable, "{error}");
    assert_eq!(server.cluster("orders-0").as_deref(), Some("orders"));
    registration.leave(BUDGET).unwrap();
    assert!(server.is_bare("orders-0"));
    let patches = server.patches();
    registration.leave(BUDGET).unwrap();
    assert_eq!(server.patches(), patches, "what is known to be gone is not looked for again");
}

#[test]
fn kubernetes_after_a_look_that_was_never_answered_what_an_earlier_life_left_goes_and_nothing_else() {
    for (cluster, id, incarnation, goes) in
        [("orders", "n1", 6, true), ("orders", "n1", 8, false), ("orders", "n2", 6, false), ("sales", "n1", 6, false)]
    {
        let server = Server::odd(loses(0));
        server.leave_on("orders-0", cluster, id, incarnation);
        let mut registration = server.registration();
        registration.join(&CancelToken::new()).unwrap_err();
        registration.leave(BUDGET).unwrap();
        assert_eq!(server.is_bare("orders-0"), goes, "{cluster} {id} {incarnation}");
    }
}

#[test]
fn kubernetes_a_join_that_failed_is_made_again_by_the_same_registration() {
    let server = Server::odd(loses(1));
    let mut registration = server.registration();
    registration.join(&CancelToken::new()).unwrap_err();
    registration.join(&CancelToken::new()).unwrap();
    assert_eq!(server.patches(), 3, "what is there already is only looked at");
    registration.leave(BUDGET).unwrap();
    assert!(server.is_bare("orders-0"));
    registration.join(&CancelToken::new()).unwrap();
    assert_eq!(server.cluster("orders-0").as_deref(), Some("orders"), "and it may join again after it left");
}

#[test]
fn kubernetes_a_patch_that_is_carried_out_after_the_labels_were_removed_is_found() {
    let late = Arc::new(Mutex::new(None::<Request>));
    let held = Arc::clone(&late);
    let server = Server::odd(Box::new(move |request, stream, pods| {
        let mut late = held.lock().unwrap();
        if request.body.contains("\"cluster.proto.actor/cluster\":\"orders\"") && late.is_none() {
            *late = Some(request.clone());
            return Some(false);
        }
        let removes = request.body.contains("null");
        let answered = answer(pods, request, stream);
        if removes && let Some(request) = late.take() {
            patched(pods, &request);
        }
        Some(answered)
    }));
    let mut registration = server.registration();
    registration.join(&CancelToken::new()).unwrap_err();
    registration.leave(BUDGET).unwrap();
    assert!(late.lock().unwrap().is_none() && server.is_bare("orders-0"));
}

#[test]
fn kubernetes_what_was_refused_or_never_reached_the_server_is_not_looked_for() {
    for status in ["403 Forbidden", "404 Not Found", "401 Unauthorized"] {
        let server = Server::odd(Box::new(move |_, stream, _| Some(send(stream, status, "", b"{}"))));
        let mut registration = server.registration();
        registration.join(&CancelToken::new()).unwrap_err();
        registration.leave(BUDGET).unwrap();
        assert_eq!(server.patches(), 1, "{status}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let definition = descriptor(&format!("http://{closed}")).parameter("pod", "orders-0");
    let mut registration = provider_of(&definition, secrets(), Some(node())).registration(&node()).unwrap();
    registration.join(&CancelToken::new()).unwrap_err();
    let started = Instant::now();
    registration.leave(BUDGET).unwrap();
    registration.retire(BUDGET).unwrap();
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
}

#[test]
fn kubernetes_a_pod_that_is_not_the_local_nodes_keeps_its_labels() {
    let server = Server::start();
    server.leave_on("orders-0", "orders", "n1", 5);
    let elsewhere = ClusterNode::builder("n1", "10.9.9.9", 7001).incarnation(7).build().unwrap();
    let provider = provider_of(&server.definition(), secrets(), Some(elsewhere.clone()));
    let mut registration = provider.registration(&elsewhere).unwrap();
    let error = registration.join(&CancelToken::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidNode, "{error}");
    registration.leave(BUDGET).unwrap();
    assert_eq!(server.cluster("orders-0").as_deref(), Some("orders"));
}

/// A provider, its registration, and that of the definition after it was edited.
fn edit(
    server: &Server,
    edited: &ProviderDescriptor,
) -> (Arc<dyn ClusterProvider>, Box<dyn Registration>, Box<dyn Registration>) {
    let old = provider_of(&server.definition(), secrets(), Some(node()));
    let former = join(&*old, &node()).unwrap();
    let new = KubernetesFactory.replace(edited, &environment(secrets(), Some(node())), &*old).unwrap();
    let successor = join(&*new, &node()).unwrap();
    (old, former, successor)
}

#[test]
fn kubernetes_a_successor_on_the_same_pod_keeps_its_labels_whatever_the_servers_url_is() {
    let server = Server::start();
    let by_name = server.fake.url().replace("127.0.0.1", "localhost");
    for edited in [
        server.definition().parameter("page-size", "100"),
        descriptor(&by_name).parameter("pod", "orders-0"),
        server.definition().parameter("cluster", "sales"),
    ] {
        let (_old, mut former, mut successor) = edit(&server, &edited);
        let patches = server.patches();
        former.retire(BUDGET).unwrap();
        assert_eq!(server.patches(), patches, "there is nothing to look at");
        assert_eq!(server.cluster("orders-0").as_ref(), edited.parameters.get("cluster"));
        successor.leave(BUDGET).unwrap();
        assert!(server.is_bare("orders-0"));
    }
}

#[test]
fn kubernetes_a_successor_on_another_pod_lets_the_former_ones_labels_be_removed() {
    let server = Server::start();
    let (_old, mut former, _successor) = edit(&server, &server.definition().parameter("pod", "orders-1"));
    former.retire(BUDGET).unwrap();
    assert!(server.is_bare("orders-0"));
    assert_eq!(server.cluster("orders-1").as_deref(), Some("orders"));
}

#[test]
fn kubernetes_the_site_of_a_registration_is_the_pod_and_the_cluster_there() {
    let definition = descriptor("https://10.0.0.1:6443").parameter("pod", "orders-0");
    let site =
        |definition: &ProviderDescriptor| provider_of(definition, secrets(), Some(node())).registration_site().unwrap();
    let first = site(&definition);
    assert_eq!((first.place(), first.entry()), ("kubernetes https://10.0.0.1:6443 shop/orders-0", "orders"));
    assert_eq!(site(&definition.clone().parameter("page-size", "7")), first);
    let renamed = site(&definition.clone().parameter("cluster", "sales"));
    assert!(renamed.place() == first.place() && renamed.entry() == "sales");
    assert_ne!(site(&definition.clone().parameter("namespace", "other")).place(), first.place());
    assert_eq!(provider_of(&definition, secrets(), None).registration_site(), None, "a client registers nobody");
}

#[test]
fn kubernetes_without_word_of_a_successors_pod_nothing_is_removed() {
    let server = Server::start();
    let mut former = join(&*provider_of(&server.definition(), secrets(), Some(node())), &node()).unwrap();
    let patches = server.patches();
    former.retire(BUDGET).unwrap();
    assert_eq!((server.patches(), server.cluster("orders-0").as_deref()), (patches, Some("orders")));
}

#[test]
fn kubernetes_whoever_is_succeeded_does_not_undo_its_successors_work() {
    let server = Server::start();
    let (_old, mut former, _successor) = edit(&server, &server.definition().parameter("cluster", "sales"));
    let (cancel, patches) = (CancelToken::new(), server.patches());
    former.renew(&cancel).unwrap();
    assert!(former.renew_interval() > Duration::from_secs(10), "and it does not spin");
    former.join(&cancel).unwrap();
    assert_eq!((server.patches(), server.cluster("orders-0").as_deref()), (patches, Some("sales")));
}
