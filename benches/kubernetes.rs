//! The Kubernetes provider on a real API server: from a change of a pod to the bridge's callback, beside a bare watch that
//! reads the same line; the list of 5,000 pods, beside fetching the same pages and throwing them away; a member drained and
//! gone at another, beside a bare watch that sees a bare change of labels; and how long a shutdown takes with a watch open.
//!
//! Needs an API server with its etcd, `TEST_ASSET_KUBE_APISERVER` and `TEST_ASSET_ETCD`; skipped without. Parts can be
//! chosen: `cargo bench --bench kubernetes -- change list drain shutdown`.

#[path = "../tests/support/kubernetes.rs"]
mod kubernetes;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cluster_provisioning::*;
use crossbeam_channel::{Receiver, Sender, unbounded};
use kubernetes::{Kubernetes, NAMESPACE};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use support::pods::{CLUSTER, Pod};
use support::{Samples, Table, Target, show};
use ureq::config::AutoHeaderValue;
use ureq::tls::TlsConfig;

const PATIENCE: Duration = Duration::from_secs(60);
/// Before each change, so that it is a lone one.
const PAUSE: Duration = Duration::from_millis(20);
/// How the tests' servers know the admin.
const TOKEN: &str = "admin-t0ken";
/// What selects all pods here.
const SELECTOR: &str = "labelSelector=cluster.proto.actor%2Fcluster%3Dorders";

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    type Part = fn(&Kubernetes, &Path);
    for (part, run) in [("change", change as Part), ("drain", drain), ("shutdown", shutdown), ("list", list)] {
        if wanted(part) {
            let Some(server) = Kubernetes::start() else { return };
            let account = server.service_account("admin");
            run(&server, &account.join("ca.crt"));
        }
    }
}

fn pods() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods")
}

/// Creates those pods, as ready ones.
fn create(server: &Kubernetes, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let pod = Pod::new(number);
        let mut text = String::new();
        pod.write(&mut text);
        let mut object: Value = serde_json::from_str(&text).expect("a pod");
        // What the server says of a pod by itself.
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.remove(field);
        }
        let status = object.as_object_mut().and_then(|object| object.remove("status")).expect("a status");
        server.call("POST", &pods(), &object);
        server.set_status(&pod.name(), &status);
    }
}

fn builder(server: &Kubernetes) -> ServiceBuilder {
    let descriptor = server.descriptor(CLUSTER, "admin");
    // Whoever comes and goes in turn is to be told each time.
    let policy = FailoverPolicy::default().flap_damping(None);
    ClusterProvisioningService::builder().provider(descriptor).secret("admin", Secret::new(TOKEN)).failover(policy)
}

/// What the bridges say: a delivery with its revision and how many members it has, or who came or went.
enum Call {
    Delivered(Instant, Revision, usize),
    Remote(Instant, RemoteTopologyChange, String),
}

struct Bridges(Sender<Call>);

impl PartitionManagerBridge for Bridges {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) {
        let snapshot = &delivery.snapshot;
        _ = self.0.send(Call::Delivered(Instant::now(), snapshot.revision.clone(), snapshot.members.len()));
    }

    fn provider_changed(&self, _: &ProviderChanged) {}

    fn stream_ended(&self, _: &StreamEnded) {}

    fn publish_leases(&self, _: &LeaseUpdate) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

impl RemotingBridge for Bridges {
    fn remote_topology(&self, event: &RemoteTopologyEvent) {
        _ = self.0.send(Call::Remote(Instant::now(), event.event, event.node_id.to_string()));
    }

    fn warning(&self, _: &RemotingWarning) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

/// A service in client mode, whose watch is open.
fn watcher(server: &Kubernetes) -> (ClusterProvisioningService, Receiver<Call>) {
    let (called, calls) = unbounded();
    let bridges = Arc::new(Bridges(called));
    let built = builder(server).partition_manager(bridges.clone()).remoting(bridges).coalescing(Duration::ZERO);
    let service = built.start().expect("a service");
    service.wait_ready(PATIENCE).expect("a service that is ready");
    thread::sleep(Duration::from_millis(500));
    (service, calls)
}

fn wait_for<T, U>(channel: &Receiver<T>, mut wanted: impl FnMut(&T) -> Option<U>) -> U {
    loop {
        let next = channel.recv_timeout(PATIENCE).expect("what was waited for");
        if let Some(found) = wanted(&next) {
            return found;
        }
    }
}

/// The callback that delivered that version.
fn delivered(calls: &Receiver<Call>, version: &Revision) -> Instant {
    wait_for(calls, |call| match call {
        Call::Delivered(at, revision, _) if revision == version => Some(*at),
        _ => None,
    })
}

fn remote(calls: &Receiver<Call>, change: RemoteTopologyChange, id: &str) -> Instant {
    wait_for(calls, |call| match call {
        Call::Remote(at, event, node) if *event == change && node == id => Some(*at),
        _ => None,
    })
}

/// A bare watch: TLS on a socket of its own, and nothing but looking for the ends of lines.
struct Bare(Receiver<(Instant, String)>);

impl Bare {
    fn open(server: &Kubernetes, ca: &Path) -> Self {
        let page = server.call("GET", &format!("{}?limit=1", pods()), &Value::Null);
        let version = page["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(CertificateDer::pem_file_iter(ca).expect("a file").map_while(Result::ok));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
        let socket = TcpStream::connect(server.address()).expect("a socket");
        socket.set_nodelay(true).expect("an option");
        let mut stream = StreamOwned::new(connection, socket);
        let path = format!("{}?{SELECTOR}&watch=1&allowWatchBookmarks=true&resourceVersion={version}", pods());
        let head = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("a request");
        let (found, lines) = unbounded();
        thread::spawn(move || {
            let (mut buffer, mut line, mut begun) = (vec![0; 1 << 16], Vec::new(), false);
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                    line.extend_from_slice(part);
                    if line.ends_with(b"}\n") {
                        let at = Instant::now();
                        _ = found.send((at, String::from_utf8_lossy(&line).into_owned()));
                    } else if !begun && line.starts_with(b"HTTP/1.1 ") {
                        begun = true;
                        assert!(line.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&line));
                    }
                    if part.ends_with(b"\n") {
                        line.clear();
                    }
                }
            }
        });
        Self(lines)
    }

    /// When the line of that version was there, and how long it is.
    fn line(&self, version: &Revision) -> (Instant, usize) {
        let text = format!(r#""resourceVersion":"{}""#, version.as_str().unwrap_or_default());
        wait_for(&self.0, |(at, line)| line.contains(&text).then_some((*at, line.len())))
    }
}

/// Patches the pod; when that was about to be sent, and the version that it led to.
fn patch(server: &Kubernetes, pod: &str, patch: &Value) -> (Instant, Revision) {
    let path = format!("{}/{pod}", pods());
    let started = Instant::now();
    let answer = server.call("PATCH", &path, patch);
    (started, Revision::new(answer["metadata"]["resourceVersion"].as_str().expect("a version")))
}

/// A label of a pod changes, which both see in the same line.
fn change(server: &Kubernetes, ca: &Path) {
    const PODS: usize = 100;
    const ROUNDS: usize = 400;
    let mut table = Table::new("A pod's change to the callback", "callback", "bare watch");
    create(server, 0..PODS);
    let (service, calls) = watcher(server);
    let bare = Bare::open(server, ca);
    let (mut figures, mut floors, mut bytes) = (Samples::default(), Samples::default(), 0);
    for round in 0..ROUNDS + 10 {
        thread::sleep(PAUSE);
        let labels = json!({"cluster.proto.actor/round": (round + 1).to_string()});
        let (started, version) =
            patch(server, &Pod::new(round % PODS).name(), &json!({"metadata": {"labels": labels}}));
        let called = delivered(&calls, &version);
        let (read, length) = bare.line(&version);
        bytes = length;
        // The first ones find everything asleep.
        if round >= 10 {
            figures.push(called - started);
            floors.push(read - started);
        }
    }
    table.note(&format!("a line has {bytes} bytes"));
    table.pairs("p50", &figures, &floors, Target::Times(1.3));
    table.row("p99", figures.quantile(0.99), floors.quantile(0.99), Target::None);
    service.shutdown();
}

/// The list of 5,000 pods.
fn list(server: &Kubernetes, _: &Path) {
    const PODS: usize = 5_000;
    const ROUNDS: usize = 10;
    let begun = Instant::now();
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || create(server, part * PODS / 4..(part + 1) * PODS / 4));
        }
    });
    let mut table = Table::new("The list of 5,000 pods", "delivered", "thrown away");
    table.note(&format!("created in {}", show(begun.elapsed())));
    let (mut figures, mut floors, mut bytes) = (Samples::default(), Samples::default(), 0);
    for _ in 0..ROUNDS {
        // The server takes about twice as long for every other list, whoever asks: so each asks twice.
        let (mut floor, mut figure) = (Duration::ZERO, Duration::ZERO);
        for side in 0..4 {
            thread::sleep(PAUSE * 10);
            let started = Instant::now();
            if side < 2 {
                bytes = throw_away(server);
                floor += started.elapsed() / 2;
            } else {
                figure += (deliver(server, PODS) - started) / 2;
            }
        }
        floors.push(floor);
        figures.push(figure);
    }
    table.note(&format!("{:.1} MB", bytes as f64 / 1e6));
    table.pairs("from the service's start, rights proved first", &figures, &floors, Target::Times(1.1));
}

/// Starts a service; when its first delivery was made, of so many members.
fn deliver(server: &Kubernetes, pods: usize) -> Instant {
    let (called, calls) = unbounded();
    let built = builder(server).partition_manager(Arc::new(Bridges(called))).coalescing(Duration::ZERO);
    let service = built.start().expect("a service");
    let (at, members) = wait_for(&calls, |call| match call {
        Call::Delivered(at, _, members) => Some((*at, *members)),
        Call::Remote(..) => None,
    });
    assert_eq!(members, pods);
    service.shutdown();
    at
}

/// Fetches all pages over a connection of its own; how many bytes they have.
fn throw_away(server: &Kubernetes) -> usize {
    let tls = TlsConfig::builder().disable_verification(true).build();
    let agent = ureq::Agent::config_builder().tls_config(tls).accept_encoding(AutoHeaderValue::None).proxy(None);
    let agent = agent.build().new_agent();
    let (mut next, mut bytes) = (String::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let url = format!("{}{}?{SELECTOR}&limit=500{next}", server.url(), pods());
        let answer = agent.get(&url).header("authorization", format!("Bearer {TOKEN}")).call().expect("a page");
        let mut body = answer.into_body().into_reader();
        let mut head = Vec::new();
        while let Ok(read @ 1..) = body.read(&mut buffer) {
            bytes += read;
            if head.len() < 2000 {
                head.extend_from_slice(&buffer[..read.min(2000)]);
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let token = head.split_once(r#""continue":""#).and_then(|(_, rest)| rest.split_once('"'));
        let Some((token, _)) = token else { return bytes };
        next = format!("&continue={token}");
    }
}

/// A member drained, and gone at another.
fn drain(server: &Kubernetes, ca: &Path) {
    const ROUNDS: usize = 60;
    const ADDRESS: &str = "10.1.0.1";
    let mut table = Table::new("A drained member is gone at another", "gone", "bare watch");
    create(server, 0..10);
    server.run_pod("drained", ADDRESS, &json!({}));
    server.run_pod("bare", ADDRESS, &json!({}));
    let (service, calls) = watcher(server);
    let bare = Bare::open(server, ca);
    let (mut figures, mut floors) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let node = ClusterNode::builder("drained", ADDRESS, 7001).incarnation(round as u64 + 1).kind("bench").build();
        let descriptor = server.descriptor(CLUSTER, "admin").parameter("pod", "drained");
        let member = ClusterProvisioningService::builder().provider(descriptor).secret("admin", Secret::new(TOKEN));
        let member = member.member(node.expect("a valid node")).start().expect("a member");
        remote(&calls, RemoteTopologyChange::Join, "drained");
        thread::sleep(PAUSE * 10);
        let started = Instant::now();
        member.drain().expect("a drain");
        figures.push(remote(&calls, RemoteTopologyChange::Leave, "drained") - started);
        member.shutdown();
        // A change of as many labels as a drain is.
        for cluster in [json!(CLUSTER), Value::Null] {
            let label = |value: &str| if cluster.is_null() { Value::Null } else { json!(value) };
            let labels: BTreeMap<_, _> = [
                ("cluster.proto.actor/cluster", label(CLUSTER)),
                ("cluster.proto.actor/kind-bench", label("true")),
                ("cluster.proto.actor/port", label("7001")),
            ]
            .into();
            thread::sleep(PAUSE * 10);
            let (started, version) = patch(server, "bare", &json!({"metadata": {"labels": labels}}));
            let (read, _) = bare.line(&version);
            if cluster.is_null() {
                floors.push(read - started);
            }
        }
    }
    table.row("p50", figures.median(), floors.median(), Target::Times(2.0));
    table.row("p99", figures.quantile(0.99), floors.quantile(0.99), Target::None);
    service.shutdown();
}

/// A shutdown with a watch open.
fn shutdown(server: &Kubernetes, _: &Path) {
    const ROUNDS: usize = 30;
    let mut table = Table::of_limits("A shutdown with a watch open");
    create(server, 0..100);
    let mut took = Samples::default();
    for _ in 0..ROUNDS {
        let (service, _calls) = watcher(server);
        let started = Instant::now();
        service.shutdown();
        took.push(started.elapsed());
    }
    table.note(&format!("p50 {}", show(took.median())));
    table.limit("  worst of 30", took.quantile(1.0).as_secs_f64() * 1e3, "ms", Some(100.0));
}
