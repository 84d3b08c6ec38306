//! What a service takes of its process and of the wire while nothing changes, for each provider in client and in member
//! mode: its threads by their names, its connections, bytes a second in both directions, and processor time.
//!
//! In memory it needs nothing; the others need a Consul (`CONSUL_BIN`) and an API server (`TEST_ASSET_KUBE_APISERVER`,
//! `TEST_ASSET_ETCD`), and are skipped without. Parts can be chosen: `cargo bench --bench footprint -- memory consul
//! kubernetes`.

#[path = "../tests/support/consul.rs"]
mod consul;
#[path = "../tests/support/kubernetes.rs"]
mod kubernetes;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use cluster_provisioning::*;
use consul::Consul;
use kubernetes::Kubernetes;
use serde_json::json;
use support::Table;

/// Longer than a blocking query is held.
const WATCHED: Duration = Duration::from_secs(90);
const SETTLING: Duration = Duration::from_secs(5);
/// The threads of the meter, which are not counted.
const METER: &str = "meter";

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (part, run) in [("memory", in_memory as fn()), ("consul", on_consul), ("kubernetes", on_kubernetes)] {
        if parts.is_empty() || parts.iter().any(|named| named == part) {
            run();
        }
    }
}

fn node(address: &str) -> ClusterNode {
    ClusterNode::builder("node-1", address, 7001).incarnation(1).build().expect("a valid node")
}

fn in_memory() {
    for member in [false, true] {
        let cluster = InMemoryCluster::new(SystemClock::shared());
        cluster.register(ClusterNode::builder("other", "10.0.0.1", 7001).build().expect("a valid node"));
        let provider = ProviderDescriptor::new("memory", ProviderKind::in_memory()).expect("a valid definition");
        let builder = ClusterProvisioningService::builder();
        let builder = builder.factory(Arc::new(InMemoryFactory::new().cluster("demo", &cluster))).provider(provider);
        watch("In memory", builder, member.then(|| node("127.0.0.1")), None);
    }
}

fn on_consul() {
    let Some(agent) = Consul::start() else { return };
    agent.register("orders", "other", 7001);
    for member in [false, true] {
        let meter = Meter::start(&agent.address());
        let provider = ConsulFactory::descriptor("consul", &format!("http://{}", meter.address), "orders");
        let builder = ClusterProvisioningService::builder().provider(provider.expect("a valid definition"));
        watch("Consul, one other member", builder, member.then(|| node("127.0.0.1")), Some(&meter));
    }
}

fn on_kubernetes() {
    let Some(server) = Kubernetes::start() else { return };
    let labels = json!({"labels": {"cluster.proto.actor/cluster": "orders", "cluster.proto.actor/port": "7001"}});
    server.run_pod("other", "10.1.0.2", &labels);
    server.run_pod("node-1", "10.1.0.1", &json!({}));
    for member in [false, true] {
        let meter = Meter::start(server.url().trim_start_matches("https://"));
        let mut provider = server.descriptor("orders", "admin").parameter("pod", "node-1");
        provider.endpoints = vec![format!("https://{}", meter.address)];
        // As by default, and not as often as tests ask.
        provider.parameters.remove("probe-interval");
        let builder = ClusterProvisioningService::builder().provider(provider);
        let builder = builder.secret("admin", Secret::new("admin-t0ken"));
        watch("Kubernetes, one other member", builder, member.then(|| node("10.1.0.1")), Some(&meter));
    }
}

fn watch(what: &str, builder: ServiceBuilder, member: Option<ClusterNode>, meter: Option<&Meter>) {
    let mode = if member.is_some() { "member" } else { "client" };
    let mut table = Table::of_limits(&format!("{what}; {mode} mode; idle for {} s", WATCHED.as_secs()));
    let before = threads();
    let builder = match member {
        Some(member) => builder.member(member),
        None => builder,
    };
    let service = builder.start().expect("a service");
    service.wait_ready(Duration::from_secs(30)).expect("a service that is ready");
    thread::sleep(SETTLING);
    let (threads_then, bytes_then) = (threads(), meter.map_or(0, Meter::bytes));
    thread::sleep(WATCHED);
    let (threads_now, bytes_now) = (threads(), meter.map_or(0, Meter::bytes));
    let ours = |task: &&String| !before.contains_key(*task);
    let mut names: Vec<_> = threads_now.keys().filter(ours).map(|task| threads_now[task].0.clone()).collect();
    names.sort();
    table.note(&format!("{} threads: {}", names.len(), names.join(", ")));
    let spent = threads_now
        .iter()
        .filter(|(task, _)| ours(task))
        .map(|(task, (_, nanos))| nanos - threads_then.get(task).map_or(0, |(_, then)| *then));
    let share = spent.sum::<u64>() as f64 / WATCHED.as_nanos() as f64 * 100.0;
    table.limit("share of one core", share, "%", Some(0.5));
    if let Some(meter) = meter {
        table.note(&format!("{} connections are open", meter.open.load(Ordering::SeqCst)));
        table.limit("on the wire, both ways", (bytes_now - bytes_then) as f64 / WATCHED.as_secs_f64(), "B/s", None);
    }
    service.shutdown();
}

/// The threads of this process but for the meter's, by their numbers: names, and nanoseconds on a processor. None where the
/// system does not tell.
fn threads() -> BTreeMap<String, (String, u64)> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let read = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?.trim_end().to_owned();
        let account = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = account.split_whitespace().next()?.parse().ok()?;
        Some((task.file_name().into_string().ok()?, (name, nanos)))
    });
    read.filter(|(_, (name, _))| name != METER).collect()
}

/// A TCP proxy that counts.
struct Meter {
    address: String,
    bytes: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
}

impl Meter {
    fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (bytes, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (target, counted, opened) = (target.to_owned(), Arc::clone(&bytes), Arc::clone(&open));
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else { return };
                let back = (server.try_clone().expect("a clone"), client.try_clone().expect("a clone"));
                let (counted_back, opened) = (Arc::clone(&counted), Arc::clone(&opened));
                opened.fetch_add(1, Ordering::SeqCst);
                let counted = Arc::clone(&counted);
                spawn(move || {
                    forward(client, server, &counted);
                    opened.fetch_sub(1, Ordering::SeqCst);
                });
                spawn(move || forward(back.0, back.1, &counted_back));
            }
        });
        Self { address, bytes, open }
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(METER.to_owned()).spawn(work).expect("a thread");
}

fn forward(mut from: TcpStream, mut to: TcpStream, counted: &AtomicU64) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(std::net::Shutdown::Both);
}
