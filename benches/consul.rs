//! From a change in a real Consul to the last bridge's callback, beside the bare blocking query: an instance is registered
//! or deregistered in a service of 1, 100 and 1,000 entries, in turn in one that the provider watches and in one that a
//! plain blocking query on a raw connection waits for. Both times begin when the writer sends its request.
//!
//! Needs a Consul: `CONSUL_BIN`, or `consul` on the PATH; skipped without. Sizes can be chosen: `cargo bench --bench
//! consul -- 1000`.

#[path = "../tests/support/consul.rs"]
mod consul;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cluster_provisioning::*;
use consul::Consul;
use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::Deserialize;
use support::{Samples, Table, show};

const PAIRS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(20);
/// Before each change: the provider asks at most once per 100 ms on the average, so that a service that never rests costs
/// Consul no more; what is measured here is a lone change.
const PAUSE: Duration = Duration::from_millis(65);
const WATCHED: &str = "watched";
const ASKED: &str = "asked";

fn main() {
    let mut table = Table::of_limits("Consul change to callback, beside the bare blocking query");
    let only: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    for (entries, allowed) in [(1, 0.3), (100, 0.5), (1_000, 1.0)] {
        if !only.is_empty() && !only.contains(&entries) {
            continue;
        }
        let Some(consul) = Consul::start() else {
            table.note("skipped: no Consul");
            return;
        };
        let (provider, floor, decode) = measure(&consul, entries);
        let (figure, bare) = (provider.median(), floor.median());
        let decoding = decode.median();
        let above = figure.as_secs_f64() * 1e3 - bare.as_secs_f64() * 1e3 - decoding.as_secs_f64() * 1e3;
        table.note(&format!(
            "{entries} entries, {} pairs: callback p50 {} (p99 {}), bare query p50 {} (p99 {}), its decode {}",
            provider.0.len(),
            show(figure),
            show(provider.quantile(0.99)),
            show(bare),
            show(floor.quantile(0.99)),
            show(decoding),
        ));
        table.limit("  p50 beyond bare query and decode", above, "ms", Some(allowed));
    }
}

/// The times to the callback, to the end of the bare query's body, and those of decoding it.
fn measure(consul: &Consul, entries: usize) -> (Samples, Samples, Samples) {
    // What comes and goes is one of them.
    for number in 1..entries.max(2) {
        for service in [WATCHED, ASKED] {
            consul.register(service, &format!("{service}-{number:04}"), 8_000);
        }
    }
    let (called, calls) = unbounded();
    let descriptor = ConsulFactory::descriptor("consul", &consul.url(), WATCHED).expect("a valid definition");
    let service = ClusterProvisioningService::builder()
        .provider(descriptor)
        // Whoever comes and goes in turn is to be told each time.
        .failover(FailoverPolicy::default().flap_damping(None))
        .remoting(Arc::new(Remoting(called)))
        .coalescing(Duration::ZERO)
        .start()
        .expect("a service");
    service.wait_ready(PATIENCE).expect("a service that is ready");
    let (answered, answers) = unbounded();
    let address = consul.url().trim_start_matches("http://").to_owned();
    thread::spawn(move || ask(&address, &answered));

    let (mut provider, mut floor, mut decode) = (Samples::default(), Samples::default(), Samples::default());
    let others = entries.max(2) - 1;
    for pair in 0..PAIRS + 10 {
        let comes = pair % 2 == 0;
        thread::sleep(PAUSE);
        let started = change(consul, WATCHED, comes);
        let at = wait_for(&calls, |(event, _)| *event == comes).1;
        thread::sleep(PAUSE);
        let begun = change(consul, ASKED, comes);
        let wanted = others + usize::from(comes);
        let answer = wait_for(&answers, |answer| answer.members == wanted);
        // The first ones find everything asleep.
        if pair >= 10 {
            provider.push(at - started);
            floor.push(answer.read - begun);
            decode.push(answer.decoded - answer.read);
        }
    }
    service.shutdown();
    (provider, floor, decode)
}

/// Registers or deregisters an instance; when the request was about to be sent.
fn change(consul: &Consul, service: &str, comes: bool) -> Instant {
    let id = format!("{service}-0000");
    let started = Instant::now();
    match comes {
        true => consul.register(service, &id, 8_000),
        false => consul.deregister(&id),
    }
    started
}

fn wait_for<T>(channel: &Receiver<T>, wanted: impl Fn(&T) -> bool) -> T {
    loop {
        let next = channel.recv_timeout(PATIENCE).expect("what was waited for");
        if wanted(&next) {
            return next;
        }
    }
}

/// Says whether the instance came or went, and when. The first snapshot's joins are passed over: they come before.
struct Remoting(Sender<(bool, Instant)>);

impl RemotingBridge for Remoting {
    fn remote_topology(&self, event: &RemoteTopologyEvent) {
        if event.node_id.as_str().ends_with("-0000") {
            _ = self.0.send((event.event == RemoteTopologyChange::Join, Instant::now()));
        }
    }

    fn warning(&self, _: &RemotingWarning) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

/// What a bare query brought.
struct Answer {
    read: Instant,
    decoded: Instant,
    members: usize,
}

/// Asks again and again, each time from the index of the last answer on, until nobody listens or Consul is gone.
fn ask(address: &str, answered: &Sender<Answer>) {
    let mut index = String::from("0");
    while let Some((next, body)) = blocking_query(address, &index) {
        let read = Instant::now();
        let members = decode(&body);
        if answered.send(Answer { read, decoded: Instant::now(), members }).is_err() {
            return;
        }
        index = next;
    }
}

fn blocking_query(address: &str, index: &str) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET /v1/health/service/{ASKED}?index={index}&wait=60s HTTP/1.0\r\nHost: consul\r\n\r\n").ok()?;
    let mut answer = Vec::with_capacity(4 << 20);
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let index = head.lines().find_map(|line| line.strip_prefix("x-consul-index: "))?.to_owned();
    Some((index, answer.split_off(end + 4)))
}

/// How many members the answer has: what any watcher has to decode to know them.
fn decode(body: &[u8]) -> usize {
    let entries: Vec<Entry> = serde_json::from_slice(body).expect("a list of entries");
    let passing = |entry: &&Entry| entry.checks.iter().all(|check| check.status == "passing");
    let usable = |entry: &&Entry| !entry.service.id.is_empty() && entry.service.port > 0;
    std::hint::black_box(&entries).iter().filter(passing).filter(usable).count()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    service: Service,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(dead_code, reason = "decoded as a watcher would")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: u16,
    tags: Vec<String>,
    meta: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}
