//! Gossip on a real network: members in processes of their own on this host, each a whole service. From the start of the
//! last one until all see all; from a kill until the first and the last have found it dead; what a member sends, and what it
//! takes of a processor, while nothing happens; its threads; and from the moment at which a member learns of a change until
//! the hub's callback.
//!
//!     cargo bench --bench gossip [-- <members> <kills> <idle seconds> [--sealed]]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[cfg(all(feature = "gossip", unix))]
use cluster_provisioning::*;

#[cfg(not(all(feature = "gossip", unix)))]
fn main() {
    println!("skipped: gossip needs its feature, and Unix");
}

#[cfg(all(feature = "gossip", unix))]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("member") => member(&arguments[1], &arguments[2], &arguments[3..]),
        _ => measure(&arguments),
    }
}

/// A key for all; that of a cluster that nobody has to trust.
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// A child: tells on a line each what it sees, and its counts when it is asked.
#[cfg(all(feature = "gossip", unix))]
fn member(name: &str, sealed: &str, seeds: &[String]) {
    let factory = GossipFactory::new();
    let mut definition = GossipFactory::descriptor("gossip", "bench").unwrap().parameter("bind", "127.0.0.1:0");
    for seed in seeds {
        definition = definition.endpoint(seed.clone());
    }
    let mut builder = ClusterProvisioningService::builder().factory(Arc::new(factory.clone()));
    if sealed == "sealed" {
        definition = definition.credential(Credential::Secret("keys".into()));
        builder = builder.secret("keys", Secret::new(KEY));
    }
    let started = SystemClock::new().now().as_nanos() / 1_000_000;
    let node = ClusterNode::builder(name, "127.0.0.1", 7000).incarnation(started).build().unwrap();
    let clock = SystemClock::shared();
    let builder = builder.clock(Arc::clone(&clock)).provider(definition).member(node);
    let builder = builder.join_timeout(Duration::from_secs(120));
    let mut delivered = builder.subscribe(10_000);
    let service = builder.start().unwrap();
    let gossip = factory.membership("gossip").unwrap();
    let mut events = gossip.subscribe(10_000);
    say(&format!("port {}", gossip.port().unwrap()));
    let asking = gossip.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if line == "counts" {
                let counts = asking.metrics().unwrap();
                say(&format!("counts {} {}", counts.datagram_bytes, counts.datagrams));
            }
        }
        // The parent has gone.
        std::process::exit(0);
    });
    let learned = Arc::new(Mutex::new(BTreeMap::new()));
    let known = Arc::clone(&learned);
    std::thread::spawn(move || {
        while let Ok(event) = events.recv() {
            match event {
                GossipEvent::Update(update) => _ = known.lock().unwrap().insert(update.members.hash(), update.at),
                GossipEvent::State { node, to: GossipState::Dead, .. } => say(&format!("dead {}", node.id())),
                _ => {}
            }
        }
    });
    while let Ok(event) = delivered.recv() {
        let now = clock.now();
        // What is told again, since the block list has changed, is no news.
        if let ProvisioningEvent::Snapshot(delivery) = &*event
            && !delivery.diff.is_empty()
        {
            say(&format!("members {}", delivery.snapshot.members.len()));
            if let Some(at) = learned.lock().unwrap().remove(&delivery.snapshot.members.hash()) {
                say(&format!("latency {}", now.since(at).as_micros()));
            }
        }
    }
    drop(service);
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// What a child said.
struct Said {
    member: usize,
    at: Instant,
    words: Vec<String>,
}

struct Member {
    child: Child,
    input: ChildStdin,
}

struct Cluster {
    members: Vec<Option<Member>>,
    said: Receiver<Said>,
    sender: Sender<Said>,
    sealed: bool,
    latencies: Vec<u64>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members.iter_mut().flatten() {
            _ = member.child.kill();
            _ = member.child.wait();
        }
    }
}

impl Cluster {
    fn start(&mut self, seeds: &[String]) {
        let number = self.members.len();
        let sealed = if self.sealed { "sealed" } else { "plain" };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["member", &format!("n{number:07}"), sealed]).args(seeds);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (out, sender) = (BufReader::new(child.stdout.take().unwrap()), self.sender.clone());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let words = line.split(' ').map(str::to_owned).collect();
                if sender.send(Said { member: number, at: Instant::now(), words }).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take().unwrap();
        self.members.push(Some(Member { child, input }));
    }

    fn alive(&self) -> usize {
        self.members.iter().flatten().count()
    }

    /// What is said next that is not about latency.
    fn next(&mut self, ends: Instant) -> Option<Said> {
        loop {
            match self.said.recv_timeout(ends.saturating_duration_since(Instant::now())) {
                Ok(said) if said.words[0] == "latency" => self.latencies.extend(said.words[1].parse::<u64>()),
                Ok(said) => return Some(said),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn port(&mut self) -> String {
        let ends = Instant::now() + Duration::from_secs(30);
        loop {
            let said = self.next(ends).expect("a member that has started");
            if said.words[0] == "port" {
                return format!("127.0.0.1:{}", said.words[1]);
            }
        }
    }

    fn counts(&mut self) -> BTreeMap<usize, (u64, u64)> {
        for member in self.members.iter_mut().flatten() {
            writeln!(member.input, "counts").unwrap();
        }
        let (mut counts, ends) = (BTreeMap::new(), Instant::now() + Duration::from_secs(10));
        while counts.len() < self.alive() {
            let said = self.next(ends).expect("counts");
            if said.words[0] == "counts" {
                counts.insert(said.member, (said.words[1].parse().unwrap(), said.words[2].parse().unwrap()));
            }
        }
        counts
    }

    /// Ticks of the processor that the members have taken, and their threads.
    fn taken(&self) -> (u64, u64) {
        let mut taken = (0, 0);
        for member in self.members.iter().flatten() {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", member.child.id())).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
            let field = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            taken = (taken.0 + field(11) + field(12), taken.1 + field(17));
        }
        taken
    }
}

fn measure(arguments: &[String]) {
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let of = |place: usize, default: usize| numbers.get(place).copied().unwrap_or(default);
    let (members, kills, idle) = (of(0, 50), of(1, 10), of(2, 60));
    let sealed = arguments.iter().any(|argument| argument == "--sealed");
    let (sender, said) = channel();
    let mut cluster = Cluster { members: Vec::new(), said, sender, sealed, latencies: Vec::new() };
    println!("{members} members, profile lan, {}", if sealed { "sealed" } else { "plain" });

    let mut seeds: Vec<String> = Vec::new();
    for _ in 0..3.min(members) {
        cluster.start(&seeds.clone());
        seeds.push(cluster.port());
    }
    for _ in seeds.len()..members {
        cluster.start(&seeds);
    }
    let last_start = Instant::now();
    let (mut seen, ends) = (BTreeMap::new(), Instant::now() + Duration::from_secs(120));
    while seen.values().filter(|members| **members == cluster.members.len()).count() < members {
        let said = cluster.next(ends).expect("one view of all");
        if said.words[0] == "members" {
            seen.insert(said.member, said.words[1].parse::<usize>().unwrap());
        }
    }
    println!("one view {:.2} s after the start of the last process", last_start.elapsed().as_secs_f64());

    // The storm of joins is over when all have compared what they know.
    std::thread::sleep(Duration::from_secs(5));
    let (before, (ticks, threads)) = (cluster.counts(), cluster.taken());
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(idle as u64));
    let (after, (ticks_after, _)) = (cluster.counts(), cluster.taken());
    let seconds = begun.elapsed().as_secs_f64() * members as f64;
    let sum = |counts: &BTreeMap<usize, (u64, u64)>| counts.values().fold((0, 0), |sum, (a, b)| (sum.0 + a, sum.1 + b));
    let (bytes, datagrams) = (sum(&after).0 - sum(&before).0, sum(&after).1 - sum(&before).1);
    // Counted before they are sealed, which takes 35 bytes each.
    let bytes = bytes + if sealed { 35 * datagrams } else { 0 };
    println!(
        "idle: {:.0} bytes in {:.2} datagrams a member and second",
        bytes as f64 / seconds,
        datagrams as f64 / seconds
    );
    // A tick is a hundredth of a second on Linux.
    println!(
        "idle: {:.3} % of a core a process, hub included; {} threads a process",
        (ticks_after - ticks) as f64 / seconds,
        threads / members as u64
    );

    let (mut first, mut all) = (Vec::new(), Vec::new());
    for kill in 0..kills {
        // At another moment of everybody's period each time.
        std::thread::sleep(Duration::from_millis(311));
        while cluster.next(Instant::now()).is_some() {}
        let victim = cluster.members.iter().rposition(Option::is_some).unwrap();
        let name = format!("n{victim:07}");
        let mut killed = cluster.members[victim].take().unwrap();
        killed.child.kill().unwrap();
        let begun = Instant::now();
        _ = killed.child.wait();
        let (mut found, ends) = (BTreeSet::new(), begun + Duration::from_secs(120));
        while found.len() < cluster.alive() {
            let said = cluster.next(ends).expect("all that find it dead");
            if said.words[0] == "dead" && said.words[1] == name {
                if found.is_empty() {
                    first.push((said.at - begun).as_secs_f64());
                }
                found.insert(said.member);
            }
        }
        all.push(begun.elapsed().as_secs_f64());
        eprintln!("kill {}: {:.2} / {:.2} s", kill + 1, first[kill], all[kill]);
    }
    let shown = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        format!("p50 {:.2} s, p95 {:.2} s", at(0.5), at(0.95))
    };
    if kills > 0 {
        println!("kill to dead at the first: {}; at all: {}; of {kills}", shown(&mut first), shown(&mut all));
    }
    cluster.latencies.sort_unstable();
    if let (Some(median), Some(last)) = (cluster.latencies.get(cluster.latencies.len() / 2), cluster.latencies.last()) {
        println!(
            "from the update to the delivery: median {median} us, longest {last} us, of {}",
            cluster.latencies.len()
        );
    }
}
