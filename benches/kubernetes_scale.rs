//! The Kubernetes provider at sizes that no test server has: what one change costs among 1,000 and 100,000 pods, how much
//! memory a list of 100,000 takes, how fast a page is decoded, what a rolling update of 1,000 pods comes to, and how long
//! a shutdown takes. The server is one of the bench's own, over plain HTTP; the pods have about 4 kB each.
//!
//! Parts can be chosen: `cargo bench --bench kubernetes_scale -- change memory decode rolling shutdown`.

#[path = "../tests/support/fake.rs"]
#[allow(dead_code)]
mod fake;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cluster_provisioning::testkit::{kubernetes_objects, kubernetes_upserts};
use cluster_provisioning::*;
use crossbeam_channel::{Receiver, Sender, bounded};
use fake::{Fake, Request, hold, send};
use serde::de::IgnoredAny;
use support::counting::Counting;
use support::pods::{CLUSTER, Pod, write_page};
use support::{Samples, Sequence, Table, Target, nanos, show, time};
use xxhash_rust::xxh3::xxh3_128;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

const PATIENCE: Duration = Duration::from_secs(120);
/// As many pods as the provider asks for.
const PAGE: usize = 500;
/// More than a page has.
const PAGE_BYTES: usize = PAGE * 5000;

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    if wanted("memory") {
        memory();
    }
    if wanted("change") {
        change();
    }
    if wanted("decode") {
        decode();
    }
    if wanted("rolling") {
        rolling();
    }
    if wanted("shutdown") {
        shutdown();
    }
}

/// What the watch says next.
enum Order {
    Lines(String),
    /// Its version is no longer known, and the next list shows pods of that life.
    Expire(usize),
}

/// An API server with so many pods, and its watch.
struct Server {
    fake: Fake,
    orders: Sender<Order>,
    /// When the last lines were about to be sent.
    stamp: Arc<AtomicU64>,
    /// How many watches were opened.
    watches: Arc<AtomicUsize>,
}

impl Server {
    fn start(pods: usize) -> Self {
        let (orders, inbox) = bounded::<Order>(1);
        let (stamp, watches) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (stamps, opened) = (Arc::clone(&stamp), Arc::clone(&watches));
        // One for all pages, so that none of it shows in what is measured.
        let page = Mutex::new(String::with_capacity(PAGE_BYTES));
        let life = AtomicUsize::new(1);
        let fake = Fake::start(move |request, stream| {
            if request.target.contains("watch=1") {
                opened.fetch_add(1, Ordering::SeqCst);
                return begin(stream) && watch(stream, &inbox, &stamps, &life);
            }
            if !request.target.contains("/pods?") {
                return answer_other(request, stream);
            }
            let mut page = page.lock().expect("no panic");
            page.clear();
            let from = parameter(request, "continue").unwrap_or(0);
            let to = pods.min(from + parameter(request, "limit").unwrap_or(pods));
            write_page(&mut page, from..to, pods - to, 7, life.load(Ordering::SeqCst));
            json(stream, &page)
        });
        Self { fake, orders, stamp, watches }
    }

    /// Sends the lines and returns how long it took until something is called back.
    fn say(&self, lines: String, calls: &Receiver<Call>) -> Duration {
        _ = self.orders.send(Order::Lines(lines));
        let call = calls.recv_timeout(PATIENCE).expect("the callback");
        Duration::from_nanos(call.at - self.stamp.load(Ordering::SeqCst))
    }

    fn wait_for_watch(&self, number: usize) {
        while self.watches.load(Ordering::SeqCst) < number {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn parameter(request: &Request, name: &str) -> Option<usize> {
    let mut parts = request.target.split(['?', '&']).filter_map(|part| part.split_once('='));
    parts.find(|(key, _)| *key == name)?.1.parse().ok()
}

/// Probes, and the proof of the rights.
fn answer_other(request: &Request, stream: &mut TcpStream) -> bool {
    match request.method.as_str() {
        "POST" => json(stream, r#"{"status":{"allowed":true}}"#),
        _ => send(stream, "200 OK", "", b"ok"),
    }
}

fn json(stream: &mut TcpStream, body: &str) -> bool {
    send(stream, "200 OK", "Content-Type: application/json\r\n", body.as_bytes())
}

fn begin(stream: &mut TcpStream) -> bool {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).is_ok()
}

/// Each line as a chunk, as the API server writes it, but all in one piece.
fn chunks(lines: &str) -> String {
    lines.split_inclusive('\n').map(|line| format!("{:x}\r\n{line}\r\n", line.len())).collect()
}

/// Says on a watch what it is told to.
fn watch(stream: &mut TcpStream, orders: &Receiver<Order>, stamp: &AtomicU64, life: &AtomicUsize) -> bool {
    for order in orders {
        let (lines, ends) = match order {
            Order::Lines(lines) => (lines, false),
            Order::Expire(next) => {
                life.store(next, Ordering::SeqCst);
                let status = r#"{"kind":"Status","status":"Failure","reason":"Expired","code":410}"#;
                (format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n"), true)
            }
        };
        let bytes = chunks(&lines);
        stamp.store(nanos(), Ordering::SeqCst);
        if stream.write_all(bytes.as_bytes()).is_err() {
            return false;
        }
        if ends {
            return stream.write_all(b"0\r\n\r\n").is_ok();
        }
    }
    false
}

fn descriptor(url: &str) -> ProviderDescriptor {
    let descriptor = KubernetesFactory::descriptor("k8s", CLUSTER).expect("a valid id").endpoint(url);
    descriptor.credential(Credential::Secret("user".into())).parameter("namespace", "default")
}

fn service(url: &str) -> ServiceBuilder {
    // Whoever comes and goes in turn is to be told each time.
    let policy = FailoverPolicy::default().flap_damping(None);
    let builder = ClusterProvisioningService::builder().failover(policy);
    builder.provider(descriptor(url)).secret("user", Secret::new("t0ken"))
}

/// A delivery.
struct Call {
    at: u64,
    members: usize,
    changed: usize,
    revision: Revision,
}

/// Says when what was delivered, and keeps none of it.
struct Placement(Sender<Call>);

impl PlacementSupervisorBridge for Placement {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) -> Vec<OwnershipChange> {
        let snapshot = &delivery.snapshot;
        let revision = snapshot.revision.clone();
        _ = self.0.send(Call { at: nanos(), members: snapshot.members.len(), changed: delivery.diff.len(), revision });
        Vec::new()
    }

    fn provider_changed(&self, _: &ProviderChanged) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

/// A service of that server, whose watch is open.
fn watching(server: &Server, pods: usize) -> (ClusterProvisioningService, Receiver<Call>) {
    let (called, calls) = bounded(4096);
    let before = server.watches.load(Ordering::SeqCst);
    let built = service(&server.fake.url()).coalescing(Duration::ZERO);
    let service = built.placement_supervisor(Arc::new(Placement(called))).start().expect("a service");
    let first = calls.recv_timeout(PATIENCE).expect("the first delivery");
    assert_eq!(first.members, pods);
    server.wait_for_watch(before + 1);
    (service, calls)
}

/// The time on a processor that this process has had, as far as the system says.
fn on_processor() -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let spent = tasks.filter_map(Result::ok).filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// One change among few and among many.
fn change() {
    const ROUNDS: usize = 20;
    const CHANGES: usize = 100;
    const SIZES: [usize; 2] = [1_000, 100_000];
    let mut table = Table::new("One change: from its line being sent to the callback", "100,000 pods", "1,000 pods");
    let servers = SIZES.map(Server::start);
    let services = [watching(&servers[0], SIZES[0]), watching(&servers[1], SIZES[1])];
    let label = |pod: Pod, round: u64| Pod { round, ..pod }.line("MODIFIED");
    let ready = |pod: Pod, round: u64| Pod { ready: round.is_multiple_of(2), ..pod }.line("MODIFIED");
    type Line<'a> = &'a dyn Fn(Pod, u64) -> String;
    for (what, line) in [("a label", &label as Line<'_>), ("leaves, or returns", &ready)] {
        let mut places = [Sequence(5), Sequence(6)];
        let mut took = [Samples::default(), Samples::default()];
        let mut spent = [Samples::default(), Samples::default()];
        for round in 0..=ROUNDS {
            for side in 0..SIZES.len() {
                let (server, calls) = (&servers[side], &services[side].1);
                // Of each two changes the second undoes the first where it is a departure.
                let pods: Vec<_> = (0..CHANGES / 2).map(|_| Pod::new(places[side].below(SIZES[side]))).collect();
                let rounds = (0..CHANGES as u64).map(|change| (round * CHANGES) as u64 + change + 1);
                let lines: Vec<_> =
                    rounds.map(|round| line(pods[(round as usize - 1) / 2 % pods.len()], round)).collect();
                let before = on_processor();
                for lines in lines {
                    // As peaceful as clusters mostly are: each finds its threads asleep.
                    thread::sleep(Duration::from_micros(500));
                    let latency = server.say(lines, calls);
                    if round > 0 {
                        took[side].push(latency);
                    }
                }
                if round > 0 {
                    spent[side].push((on_processor() - before) / CHANGES as u32);
                }
            }
        }
        let [few, many] = took;
        table.row(&format!("{what}, p50"), many.median(), few.median(), Target::Times(2.0));
        table.row(&format!("{what}, p99"), many.quantile(0.99), few.quantile(0.99), Target::None);
        let [few, many] = spent;
        table.row("  processor time, server and all", many.median(), few.median(), Target::Times(2.0));
    }
    services.into_iter().for_each(|(service, _)| service.shutdown());
}

/// A list of 100,000 pods.
fn memory() {
    const PODS: usize = 100_000;
    let mut table = Table::of_limits("Memory during a list of 100,000 pods");
    let mut page = String::new();
    write_page(&mut page, 0..PAGE, PODS - PAGE, 7, 1);
    let bytes = page.len() as f64;
    table.limit("a page", bytes / 1e6, "MB", None);
    drop(page);
    let server = Server::start(PODS);
    let (thrown_away, ()) = time(|| throw_away(server.fake.address, PODS));
    let before = ALLOCATOR.bytes();
    ALLOCATOR.forget_peak();
    let (took, (service, calls)) = time(|| watching(&server, PODS));
    service.hub().unpin().wait(PATIENCE).expect("the hub's answer");
    let (peak, held) = ((ALLOCATOR.peak() - before) as f64, (ALLOCATOR.bytes() - before) as f64);
    table.note(&format!("listed and delivered in {}, thrown away in {}", show(took), show(thrown_away)));
    table.limit("the final state", held / 1e6, "MB", None);
    let most = |peak: f64| (peak - bytes) / held;
    table.limit("the first list: most at once, less a page", most(peak), "x final state", Some(2.0));
    for (what, life) in [("a list of the same", 1), ("a list in which every pod is another", 2)] {
        ALLOCATOR.forget_peak();
        _ = server.orders.send(Order::Expire(life));
        let watches = server.watches.load(Ordering::SeqCst);
        if life > 1 {
            let call = calls.recv_timeout(PATIENCE).expect("the delivery");
            assert!(call.changed >= PODS);
        }
        server.wait_for_watch(watches + 1);
        service.hub().unpin().wait(PATIENCE).expect("the hub's answer");
        let peak = (ALLOCATOR.peak() - before) as f64;
        table.limit(&format!("{what}: with what was held"), most(peak), "x final state", None);
    }
    table.limit("held after them", (ALLOCATOR.bytes() - before) as f64 / held, "x final state", None);
    service.shutdown();
}

/// Fetches all pages and looks at nothing but where they end.
fn throw_away(address: SocketAddr, pods: usize) {
    let mut stream = BufReader::with_capacity(1 << 16, TcpStream::connect(address).expect("a connection"));
    for from in (0..pods).step_by(PAGE) {
        let head = format!("GET /pods?limit={PAGE}&continue={from} HTTP/1.1\r\nHost: bench\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes()).expect("a request");
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).expect("a head") > 2 {
            if let Some((_, value)) = line.split_once("Content-Length: ") {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink()).expect("a page");
    }
}

/// Reads the bytes into a buffer and hashes them there.
fn read_and_hash(mut body: &[u8]) -> u128 {
    let mut buffer = vec![0; 32 * 1024];
    let mut sum = 0;
    loop {
        match body.read(&mut buffer) {
            Ok(count) if count > 0 => sum ^= xxh3_128(&buffer[..count]),
            _ => return sum,
        }
    }
}

/// A page, and the lines of a watch, from memory.
fn decode() {
    let (mut page, mut lines) = (String::new(), String::new());
    write_page(&mut page, 0..PAGE, 1, 7, 1);
    (0..PAGE).for_each(|number| lines.push_str(&Pod::new(number).line("MODIFIED")));
    let none = Samples::default;
    let (mut floor, mut json, mut whole, mut events) = (none(), none(), none(), none());
    for _ in 0..201 {
        floor.push(time(|| std::hint::black_box(read_and_hash(page.as_bytes()))).0);
        json.push(time(|| serde_json::from_str::<IgnoredAny>(&page).expect("JSON")).0);
        let (took, objects) = time(|| kubernetes_objects(page.as_bytes()).expect("a page"));
        assert_eq!(objects, PAGE);
        whole.push(took);
        let (took, objects) = time(|| kubernetes_upserts(lines.as_bytes()).expect("a watch"));
        assert_eq!(objects, PAGE);
        events.push(took);
    }
    let megabytes = page.len() as f64 / 1e6;
    let title = format!("{PAGE} pods, {megabytes:.2} MB");
    let mut table = Table::new(&title, "decode, p50", "read, hash");
    table.pairs("a page of them", &whole, &floor, Target::None);
    table.pairs("a line of a watch for each", &events, &floor, Target::None);
    table.pairs("serde_json over the page, building nothing", &json, &floor, Target::None);
    let rate = |samples: &Samples| format!("{:.0}", megabytes / samples.median().as_secs_f64());
    let (page, lines, json, floor) = (rate(&whole), rate(&events), rate(&json), rate(&floor));
    table.note(&format!("MB/s: page {page}, lines {lines}, serde_json {json}, floor {floor}"));
}

/// A rolling update as fast as it can be told: of each pod its successor comes, is ready, and then the pod goes.
fn rolling() {
    const PODS: usize = 1_000;
    const ROUNDS: usize = 11;
    let title = format!("A rolling update of {PODS} pods, {} lines", 4 * PODS);
    let mut table = Table::new(&title, "delivered", "bare reading");
    for (what, window) in [("not coalesced", Some(Duration::ZERO)), ("coalesced, by default 100 ms", None)] {
        let [server, asked] = [Server::start(PODS), Server::start(PODS)];
        let (called, calls) = bounded(4096);
        let bridge = Arc::new(Placement(called));
        let built = window.into_iter().fold(service(&server.fake.url()), ServiceBuilder::coalescing);
        let service = built.placement_supervisor(bridge).start().expect("a service");
        calls.recv_timeout(PATIENCE).expect("the first delivery");
        server.wait_for_watch(1);
        let (ended, ends) = bounded(1);
        let address = asked.fake.address;
        thread::spawn(move || read_lines(address, 4 * PODS, &ended));
        asked.wait_for_watch(1);
        let (mut took, mut floor, mut deliveries) = (Samples::default(), Samples::default(), 0);
        for round in 0..ROUNDS {
            let last = 100 + ((round + 1) * 4 * PODS) as u64;
            let lines = update(round * PODS, PODS, last - 4 * PODS as u64);
            _ = asked.orders.send(Order::Lines(lines.clone()));
            let at: u64 = ends.recv_timeout(PATIENCE).expect("the last line");
            floor.push(Duration::from_nanos(at - asked.stamp.load(Ordering::SeqCst)));
            // The window of the round before is over.
            thread::sleep(Duration::from_millis(250));
            _ = server.orders.send(Order::Lines(lines));
            // That the last pod is gone changes nothing any more: it was not ready.
            let all = [last, last - 1].map(|version| Revision::new(version.to_string()));
            loop {
                let call = calls.recv_timeout(PATIENCE).expect("a delivery");
                deliveries += 1;
                if all.contains(&call.revision) {
                    took.push(Duration::from_nanos(call.at - server.stamp.load(Ordering::SeqCst)));
                    break;
                }
            }
        }
        table.row(what, took.median(), floor.median(), Target::None);
        table.note(&format!("  {:.1} deliveries", deliveries as f64 / ROUNDS as f64));
        service.shutdown();
    }
}

/// The lines of an update of so many pods from that number on; the versions begin after `version`.
fn update(first: usize, pods: usize, mut version: u64) -> String {
    let mut lines = String::new();
    for number in first..first + pods {
        let next = Pod { ready: false, ..Pod::new(number + pods) };
        let old = Pod::new(number);
        let steps = [
            ("ADDED", next),
            ("MODIFIED", Pod { ready: true, ..next }),
            ("MODIFIED", Pod { ready: false, ..old }),
            ("DELETED", Pod { ready: false, ..old }),
        ];
        for (kind, pod) in steps {
            version += 1;
            lines.push_str(&Pod { version, ..pod }.line(kind));
        }
    }
    lines
}

/// Reads a watch, and says when each `count` lines were there.
fn read_lines(address: SocketAddr, count: usize, ended: &Sender<u64>) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(b"GET /pods?watch=1 HTTP/1.1\r\nHost: bench\r\n\r\n").expect("a request");
    let mut buffer = vec![0; 1 << 16];
    let (mut before, mut lines) = (0, 0);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        for byte in &buffer[..read] {
            lines += usize::from((before, *byte) == (b'}', b'\n'));
            before = *byte;
        }
        if lines >= count {
            lines -= count;
            _ = ended.send(nanos());
        }
    }
}

/// A shutdown with a watch open, and one in the middle of a list.
fn shutdown() {
    const ROUNDS: usize = 30;
    let mut table = Table::of_limits("A shutdown");
    let server = Server::start(1_000);
    let mut took = Samples::default();
    for _ in 0..ROUNDS {
        let (service, _calls) = watching(&server, 1_000);
        thread::sleep(Duration::from_millis(20));
        took.push(time(|| service.shutdown()).0);
    }
    table.note(&format!("in mid-watch: p50 {}", show(took.median())));
    table.limit("  worst of 30", took.quantile(1.0).as_secs_f64() * 1e3, "ms", Some(100.0));

    let (begun, begins) = bounded(ROUNDS);
    let half = Fake::start(move |request, stream| {
        if !request.target.contains("/pods?") {
            return answer_other(request, stream);
        }
        let mut page = String::new();
        let pods = parameter(request, "limit").unwrap_or(PAGE).min(PAGE);
        write_page(&mut page, 0..pods, PAGE, 7, 1);
        if pods < PAGE {
            return json(stream, &page);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
        _ = stream.write_all(head.as_bytes());
        _ = stream.write_all(&page.as_bytes()[..page.len() / 2]);
        _ = begun.send(());
        hold(stream)
    });
    let mut took = Samples::default();
    for _ in 0..ROUNDS {
        let service = service(&half.url()).start().expect("a service");
        begins.recv_timeout(PATIENCE).expect("half a page");
        thread::sleep(Duration::from_millis(20));
        took.push(time(|| service.shutdown()).0);
    }
    table.note(&format!("in the middle of a page: p50 {}", show(took.median())));
    table.limit("  worst of 30", took.quantile(1.0).as_secs_f64() * 1e3, "ms", Some(100.0));
}
