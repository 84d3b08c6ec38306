//! What a member costs and how fast it is, on a real Consul: how long after a drain the others see it leave, beside a bare
//! blocking query that waits for a bare deregistration; how long after the loss of its registration they see it again; how
//! long a shutdown takes with five long polls open; and what an idle watcher of 1,000 entries has on the wire.
//!
//! Needs a Consul: `CONSUL_BIN`, or `consul` on the PATH; skipped without. Parts can be chosen: `cargo bench --bench
//! consul_members -- drain repair shutdown idle`.

#[path = "../tests/support/consul.rs"]
mod consul;
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cluster_provisioning::*;
use consul::Consul;
use crossbeam_channel::{Receiver, Sender, unbounded};
use support::{Samples, Table, Target, show};

const PATIENCE: Duration = Duration::from_secs(30);
/// Lets the request bucket and the coalescing window fill again: what is measured is a lone change.
const PAUSE: Duration = Duration::from_millis(250);
const WATCHED: &str = "watched";
const ASKED: &str = "asked";

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    if consul::binary().is_none() {
        return;
    }
    if wanted("drain") {
        drain();
    }
    if wanted("repair") {
        repair();
    }
    if wanted("shutdown") {
        shutdown();
    }
    if wanted("idle") {
        idle();
    }
}

fn start() -> Consul {
    Consul::start().expect("a Consul that starts")
}

fn descriptor(name: &str, url: &str) -> ProviderDescriptor {
    ConsulFactory::descriptor(name, url, WATCHED).expect("a valid definition")
}

/// A service in client mode, and where it says who came or went, and when.
fn watcher(url: &str) -> (ClusterProvisioningService, Receiver<(RemoteTopologyChange, String, Instant)>) {
    let (called, calls) = unbounded();
    let service = ClusterProvisioningService::builder()
        .provider(descriptor("watcher", url))
        // Whoever comes and goes in turn is to be told each time.
        .failover(FailoverPolicy::default().flap_damping(None))
        .remoting(Arc::new(Remoting(called)))
        .start()
        .expect("a service");
    (service, calls)
}

fn member(url: &str, id: &str) -> ClusterProvisioningService {
    let node = ClusterNode::builder(id, "127.0.0.1", 7001).incarnation(1).kind("bench").build().expect("a valid node");
    ClusterProvisioningService::builder().provider(descriptor("member", url)).member(node).start().expect("a member")
}

struct Remoting(Sender<(RemoteTopologyChange, String, Instant)>);

impl RemotingBridge for Remoting {
    fn remote_topology(&self, event: &RemoteTopologyEvent) {
        _ = self.0.send((event.event, event.node_id.to_string(), Instant::now()));
    }

    fn warning(&self, _: &RemotingWarning) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

fn wait_for(
    calls: &Receiver<(RemoteTopologyChange, String, Instant)>,
    change: RemoteTopologyChange,
    id: &str,
) -> Instant {
    loop {
        let (event, node, at) = calls.recv_timeout(PATIENCE).expect("what was waited for");
        if event == change && node == id {
            return at;
        }
    }
}

/// A member drained, and gone at another.
fn drain() {
    let mut table = Table::new("A drained member is gone at the others", "gone", "bare query");
    let consul = start();
    // Somebody stays: an empty service is confirmed first.
    consul.register(WATCHED, "stays", 8_000);
    consul.register(ASKED, "stays-too", 8_000);
    let (service, calls) = watcher(&consul.url());
    service.wait_ready(PATIENCE).expect("a service that is ready");
    let address = consul.url().trim_start_matches("http://").to_owned();
    let (answered, answers) = unbounded();
    thread::spawn(move || ask(&address, &answered));
    let (mut gone, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..100 {
        let member = member(&consul.url(), "drained");
        wait_for(&calls, RemoteTopologyChange::Join, "drained");
        thread::sleep(PAUSE);
        let started = Instant::now();
        member.shutdown();
        gone.push(wait_for(&calls, RemoteTopologyChange::Leave, "drained") - started);
        consul.register(ASKED, "asked", 8_000);
        thread::sleep(PAUSE);
        while answers.try_recv().is_ok() {}
        let started = Instant::now();
        consul.deregister("asked");
        floor.push(answers.recv_timeout(PATIENCE).expect("an answer") - started);
    }
    service.shutdown();
    table.row("p50", gone.median(), floor.median(), Target::Above(Duration::from_millis(1)));
    table.row("p99", gone.quantile(0.99), floor.quantile(0.99), Target::None);
}

/// Asks again and again, each time from the index of the last answer on, and says when each answer was whole.
fn ask(address: &str, answered: &Sender<Instant>) {
    let mut index = String::from("0");
    loop {
        let Ok(mut stream) = TcpStream::connect(address) else { return };
        let head = format!("GET /v1/health/service/{ASKED}?index={index}&wait=60s HTTP/1.0\r\nHost: consul\r\n\r\n");
        let mut answer = Vec::new();
        if stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_end(&mut answer)).is_err() {
            return;
        }
        if answered.send(Instant::now()).is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some(next) = text.lines().find_map(|line| line.strip_prefix("x-consul-index: ")) else { return };
        index = next.to_owned();
    }
}

/// A registration lost, and seen again by another.
fn repair() {
    let mut table = Table::of_limits("A lost registration is repaired, as another sees it");
    let consul = start();
    consul.register(WATCHED, "stays", 8_000);
    let (service, calls) = watcher(&consul.url());
    let member = member(&consul.url(), "lost");
    wait_for(&calls, RemoteTopologyChange::Join, "lost");
    let (_, entries) = consul.request("GET", &format!("/v1/health/service/{WATCHED}"), "").expect("an answer");
    let entries: serde_json::Value = serde_json::from_str(&entries).expect("a list of entries");
    let host = entries[0]["Node"]["Node"].as_str().expect("a host").to_owned();
    for (what, lose) in [
        ("the agent forgets it", (|consul: &Consul, _: &str| consul.deregister("lost")) as fn(&Consul, &str)),
        ("the catalog forgets it", |consul: &Consul, host: &str| {
            consul.put("/v1/catalog/deregister", &format!(r#"{{"Node":"{host}","ServiceID":"lost"}}"#));
        }),
    ] {
        let mut repaired = Samples::default();
        for round in 0..40u64 {
            // Losses come at any point of the heartbeat's period; and not so fast that they look like a quarrel.
            thread::sleep(Duration::from_millis(2_000 + 37 * round % 1_000));
            let started = Instant::now();
            lose(&consul, &host);
            repaired.push(wait_for(&calls, RemoteTopologyChange::Join, "lost") - started);
        }
        table.note(&format!("{what}: p50 {}, worst {}", show(repaired.median()), show(repaired.quantile(1.0))));
        table.limit("  p95", repaired.quantile(0.95).as_secs_f64(), "s", Some(3.0));
    }
    member.shutdown();
    service.shutdown();
}

/// A shutdown with five long polls open.
fn shutdown() {
    let mut table = Table::of_limits("A shutdown with five long polls open");
    let consul = start();
    consul.register(WATCHED, "stays", 8_000);
    let mut took = Samples::default();
    for _ in 0..30 {
        let mut builder = ClusterProvisioningService::builder();
        for number in 0..5 {
            builder = builder.provider(descriptor(&format!("consul-{number}"), &consul.url()));
        }
        let service = builder.start().expect("a service");
        let deadline = Instant::now() + PATIENCE;
        while service.hub().providers().iter().any(|provider| provider.health < ProviderHealth::Healthy) {
            assert!(Instant::now() < deadline, "never healthy");
            thread::sleep(Duration::from_millis(5));
        }
        // The polls are sent right after the first answers.
        thread::sleep(Duration::from_millis(50));
        let started = Instant::now();
        service.shutdown();
        took.push(started.elapsed());
    }
    table.note(&format!("p50 {}", show(took.median())));
    table.limit("  worst of 30", took.quantile(1.0).as_secs_f64() * 1e3, "ms", Some(100.0));
}

/// An idle watcher of 1,000 entries, on the wire.
fn idle() {
    const LASTS: Duration = Duration::from_secs(180);
    /// What IPv4 and TCP with timestamps add to a segment.
    const HEADERS: u64 = 52;
    let mut table = Table::of_limits("An idle watcher of 1,000 entries, on the wire");
    let consul = start();
    for number in 0..1_000 {
        consul.register(WATCHED, &format!("watched-{number:04}"), 8_000);
    }
    let wire = Wire::start(consul.url().trim_start_matches("http://"));
    let (service, _calls) = watcher(&wire.url);
    service.wait_ready(PATIENCE).expect("a service that is ready");
    thread::sleep(Duration::from_secs(2));
    let before = wire.connections();
    thread::sleep(LASTS);
    let after = wire.connections();
    let (_, body) = consul.request("GET", &format!("/v1/health/service/{WATCHED}"), "").expect("an answer");
    let (mut bodies, mut bytes, mut segments) = (0, 0, 0);
    for (number, now) in after.iter().enumerate() {
        let then = before.get(number).copied().unwrap_or_default();
        let whole = (now.bytes - then.bytes) / body.len() as u64;
        bodies += whole;
        bytes += now.bytes - then.bytes - whole * body.len() as u64;
        // A body's own segments are not the watcher's doing.
        segments += if whole == 0 { now.reads - then.reads } else { 2 * whole };
    }
    let per_second = |bytes: u64| bytes as f64 / LASTS.as_secs_f64();
    table.note(&format!(
        "{bodies} bodies of {} kB in {} s; {bytes} bytes beside them",
        body.len() / 1000,
        LASTS.as_secs()
    ));
    table.limit("  beside the bodies", per_second(bytes), "B/s", Some(100.0));
    // Each segment is acknowledged, a request by its answer.
    let with_headers = per_second(bytes + segments * HEADERS * 3 / 2);
    table.limit("  with the headers of IP and TCP, estimated", with_headers, "B/s", None);
    service.shutdown();
}

/// What has gone over a connection.
#[derive(Clone, Copy, Default)]
struct Traffic {
    bytes: u64,
    reads: u64,
}

/// Forwards connections to a server and counts.
struct Wire {
    url: String,
    counters: Arc<Mutex<Vec<Arc<[AtomicU64; 2]>>>>,
}

impl Wire {
    fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let counters = Arc::new(Mutex::new(Vec::new()));
        let (target, counting) = (target.to_owned(), Arc::clone(&counters));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else { return };
                let counter = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
                counting.lock().expect("no panic").push(Arc::clone(&counter));
                let clones = (client.try_clone().expect("a clone"), server.try_clone().expect("a clone"));
                for (from, to) in [(client, server), (clones.1, clones.0)] {
                    let counter = Arc::clone(&counter);
                    thread::spawn(move || forward(from, to, &counter));
                }
            }
        });
        Self { url, counters }
    }

    fn connections(&self) -> Vec<Traffic> {
        let read = |counter: &Arc<[AtomicU64; 2]>| Traffic {
            bytes: counter[0].load(Ordering::SeqCst),
            reads: counter[1].load(Ordering::SeqCst),
        };
        self.counters.lock().expect("no panic").iter().map(read).collect()
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, counter: &[AtomicU64; 2]) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counter[0].fetch_add(read as u64, Ordering::SeqCst);
        counter[1].fetch_add(1, Ordering::SeqCst);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(std::net::Shutdown::Both);
}
