//! Clusters of processes in real time: the library's own and memberlist's, by the same procedure and in one run.
//!
//! Each node is a process of its own, all on the loopback interface of a network of their own. Cluster after cluster is
//! started, looked at while nothing happens, and loses some of its processes, in turn the library's and memberlist's: so
//! whatever else the machine does meets both.

mod cluster;
mod member;

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::report::{Column, Report};
use crate::rows::Extent;
use crate::samples::Samples;

pub use member::run as member;

/// The processes of a cluster.
const NODES: usize = 50;
/// How many clusters of each are started, and how many processes of each cluster are killed.
const ROUNDS: u64 = 5;
const KILLS: usize = 2;
/// How long the first cluster of each is looked at while nothing happens, and how long after its one view that begins:
/// memberlist exchanges all that is known once a minute among so many, for the first time after a minute or two.
const IDLE: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(120)];
/// How long the others are left alone before the first is killed.
const SETTLED: Duration = Duration::from_secs(6);

/// Whose process it is, as the command line names it.
pub const KINDS: [Column; 2] = [Column::Ours, Column::Memberlist];

/// What was measured of one cluster, as a line of words says it.
pub struct Round {
    /// From the start of the last process until all see all.
    pub view: Option<Duration>,
    /// What each sends in a second while nothing happens, where that was looked at: bytes, datagrams, and segments of
    /// connections.
    pub idle: Option<[f64; 3]>,
    /// From a kill until the first, and the last, has found it dead.
    pub deaths: Vec<[Option<Duration>; 2]>,
}

/// The rows. The clusters live in a process that is put into a network of its own.
pub fn rows(report: &mut Report, extent: Extent) {
    let kinds: Vec<Column> = KINDS.into_iter().filter(|kind| extent.measures(*kind)).collect();
    let mut measured: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
    for round in 0..extent.runs(ROUNDS) {
        for kind in &kinds {
            let place = usize::from(*kind != Column::Ours);
            measured[place].extend(in_a_network(*kind, round == 0));
        }
    }
    for (kind, rounds) in KINDS.into_iter().zip(measured).filter(|(_, rounds)| !rounds.is_empty()) {
        let row = |what: &str| format!("{NODES} processes: {what}");
        let views = Samples::of(rounds.iter().map(|round| round.view));
        report.cell(&row("one view after the last start: p50 / p95"), kind, views.shown("runs"));
        for (place, at) in ["the first", "all"].into_iter().enumerate() {
            let deaths =
                Samples::of(rounds.iter().flat_map(|round| round.deaths.iter().map(move |death| death[place])));
            report.cell(&row(&format!("killed until dead at {at}: p50 / p95")), kind, deaths.shown("kills"));
        }
        if let Some([bytes, datagrams, segments]) = rounds.iter().find_map(|round| round.idle) {
            let cell = format!("{bytes:.0} in {datagrams:.1} datagrams and {segments:.2} segments (runs: 1)");
            report.cell(&row("bytes a second and node when nothing happens"), kind, cell);
        }
    }
}

fn in_a_network(kind: Column, is_idle: bool) -> Option<Round> {
    let program = std::env::current_exe().ok()?;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]).arg(program).args(["cluster", kind.key()]);
    command.args(is_idle.then_some("idle"));
    let output = command.stderr(Stdio::inherit()).output();
    let said =
        output.ok().filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    let round = said.as_deref().and_then(|said| said.lines().last()).and_then(read);
    if round.is_none() {
        eprintln!("no cluster of processes of {}: it needs Linux, `unshare` and `ip`", kind.name());
    }
    round
}

/// Within that network: one cluster, told in a line.
pub fn cluster(kind: &str, is_idle: bool) {
    let is_up = Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|status| status.success());
    if !is_up {
        std::process::exit(1);
    }
    println!("{}", write(&cluster::run(kind, NODES, KILLS, SETTLED, is_idle.then_some(IDLE))));
}

fn write(round: &Round) -> String {
    let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| time.as_micros().to_string());
    let idle = (0..3).map(|part| round.idle.map_or_else(|| "-".to_owned(), |idle| idle[part].to_string()));
    let deaths = round.deaths.iter().flatten().map(|death| time(*death));
    std::iter::once(time(round.view)).chain(idle).chain(deaths).collect::<Vec<_>>().join(" ")
}

fn read(line: &str) -> Option<Round> {
    let time = |word: &str| word.parse().ok().map(Duration::from_micros);
    let words: Vec<&str> = line.split(' ').collect();
    let (head, deaths) = words.split_at_checked(4)?;
    let idle: Vec<f64> = head[1..].iter().filter_map(|word| word.parse().ok()).collect();
    let deaths = deaths.chunks_exact(2).map(|death| [time(death[0]), time(death[1])]).collect();
    Some(Round { view: time(head[0]), idle: idle.try_into().ok(), deaths })
}
