//! One cluster of processes, from the start of the first to the end of all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::{DATAGRAM, IN_GO, Round, SEGMENT};

/// How long anything is waited for.
const LONGEST: Duration = Duration::from_secs(120);
/// How many have no seeds but those before them: all others have these for seeds.
const SEEDS: usize = 3;
/// What a process said.
struct Said {
    node: usize,
    at: Instant,
    words: Vec<String>,
}

/// The processes, which end with it.
struct Cluster {
    kind: String,
    nodes: Vec<Option<Child>>,
    said: Receiver<Said>,
    sender: Sender<Said>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

fn name(node: usize) -> String {
    format!("n{node:07}")
}

impl Cluster {
    fn start(&mut self, seeds: &[String]) {
        let node = self.nodes.len();
        let program = std::env::current_exe().expect("this program");
        let mut command = match self.kind == IN_GO {
            true => Command::new(program.with_file_name(IN_GO)),
            false => Command::new(program),
        };
        if self.kind != IN_GO {
            command.args(["member", &self.kind]);
        }
        command.arg(name(node)).args(seeds);
        // The input ends with this process, and the child with its input.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let words = line.split(' ').map(str::to_owned).collect();
                if sender.send(Said { node, at: Instant::now(), words }).is_err() {
                    return;
                }
            }
        });
        self.nodes.push(Some(child));
    }

    fn alive(&self) -> usize {
        self.nodes.iter().flatten().count()
    }

    fn next(&self, ends: Instant) -> Option<Said> {
        self.said.recv_timeout(ends.saturating_duration_since(Instant::now())).ok()
    }

    /// Where the one that was started last listens.
    fn place(&self) -> String {
        let ends = Instant::now() + LONGEST;
        while let Some(said) = self.next(ends) {
            if said.words[0] == "place" && said.node + 1 == self.nodes.len() {
                return said.words[1].clone();
            }
        }
        panic!("a node that does not start");
    }

    /// When the last of all has come to see all.
    fn one_view(&self) -> Option<Instant> {
        let (mut seen, ends) = (BTreeMap::new(), Instant::now() + LONGEST);
        loop {
            let said = self.next(ends)?;
            if said.words[0] == "members" {
                seen.insert(said.node, said.words[1].parse::<usize>().unwrap_or(0));
                if seen.values().filter(|members| **members == self.nodes.len()).count() == self.nodes.len() {
                    return Some(said.at);
                }
            }
        }
    }

    /// Kills the one that was started last of those that run; when the first and the last of the others have found it dead.
    fn kill(&mut self) -> [Option<Duration>; 2] {
        while self.said.try_recv().is_ok() {}
        let victim = self.nodes.iter().rposition(Option::is_some).expect("one that runs");
        let mut killed = self.nodes[victim].take().expect("one that runs");
        let begun = Instant::now();
        _ = killed.kill();
        _ = killed.wait();
        let (name, ends) = (name(victim), begun + LONGEST);
        let (mut first, mut found) = (None, BTreeSet::new());
        while let Some(said) = self.next(ends) {
            if said.words[0] == "dead" && said.words[1] == name {
                let took = said.at.saturating_duration_since(begun);
                first = first.or(Some(took));
                found.insert(said.node);
                if found.len() == self.alive() {
                    return [first, Some(took)];
                }
            }
        }
        [first, None]
    }
}

/// What has been sent in this network: bytes of IP, datagrams, segments.
fn sent() -> [f64; 3] {
    let (snmp, netstat) = (read("/proc/net/snmp"), read("/proc/net/netstat"));
    [value(&netstat, "IpExt:", "OutOctets"), value(&snmp, "Udp:", "OutDatagrams"), value(&snmp, "Tcp:", "OutSegs")]
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Of two lines that begin so the first has the names, and the second the values.
fn value(text: &str, begin: &str, name: &str) -> f64 {
    let mut lines = text.lines().filter(|line| line.starts_with(begin)).map(|line| line.split_whitespace());
    let place = lines.next().and_then(|mut names| names.position(|word| word == name));
    place.zip(lines.next()).and_then(|(place, mut values)| values.nth(place)?.parse().ok()).unwrap_or(0.0)
}

/// What each of so many sends in a second, in that time.
fn is_sent(nodes: usize, within: Duration) -> [f64; 3] {
    let (before, begun) = (sent(), Instant::now());
    std::thread::sleep(within);
    let (after, took) = (sent(), begun.elapsed().as_secs_f64());
    let [octets, datagrams, segments] = std::array::from_fn(|part| (after[part] - before[part]) / took / nodes as f64);
    [octets - datagrams * DATAGRAM - segments * SEGMENT, datagrams, segments]
}

/// A cluster of that kind and so many processes, of which so many are killed after it was idle.
pub fn run(kind: &str, nodes: usize, kills: usize, settled: Duration, idle: Option<[Duration; 2]>) -> Round {
    let (sender, said) = channel();
    let mut cluster = Cluster { kind: kind.to_owned(), nodes: Vec::new(), said, sender };
    let mut seeds = Vec::new();
    while cluster.nodes.len() < nodes.min(SEEDS) {
        cluster.start(&seeds);
        seeds.push(cluster.place());
    }
    while cluster.nodes.len() < nodes {
        cluster.start(&seeds);
    }
    let last_start = Instant::now();
    let view = cluster.one_view().map(|at| at.saturating_duration_since(last_start));

    std::thread::sleep(settled);
    let idle = idle.map(|[before, longest]| {
        std::thread::sleep(before);
        is_sent(nodes, longest)
    });

    // At another moment of everybody's period each time.
    let deaths = (0..kills).map(|kill| {
        std::thread::sleep(Duration::from_millis(311 + 97 * kill as u64));
        cluster.kill()
    });
    let deaths = deaths.collect();
    Round { view, idle, deaths }
}
