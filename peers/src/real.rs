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
/// memberlist exchanges all that is known once a minute among so many, for the first time after a minute to a minute and a half.
const IDLE: [Duration; 2] = [Duration::from_secs(90), Duration::from_secs(120)];
/// How long the others are left alone before the first is killed.
const SETTLED: Duration = Duration::from_secs(6);

/// Whose processes they are, in turn, and as the command line names them. memberlist in Go is shown beside the other one.
pub const KINDS: [(Column, &str); 3] =
    [(Column::Ours, "ours"), (Column::Memberlist, "memberlist"), (Column::Memberlist, IN_GO)];
/// The program of memberlist in Go, which lies beside this one.
pub const IN_GO: &str = "memberlist-go";

/// What the headers take of a datagram, and of a segment of a connection: of IP, and of UDP or of TCP with its timestamps.
const DATAGRAM: f64 = 28.0;
const SEGMENT: f64 = 52.0;

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
    let mut kinds = KINDS.to_vec();
    kinds.retain(|(column, kind)| extent.measures(*column) && (*kind != IN_GO || has_been_built()));
    let mut measured: Vec<Vec<Round>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 0..extent.runs(ROUNDS) {
        for ((_, kind), measured) in kinds.iter().zip(&mut measured) {
            measured.extend(in_a_network(kind, round == 0));
        }
    }
    for column in [Column::Ours, Column::Memberlist] {
        let of_column = kinds.iter().zip(&measured).filter(|((of, _), rounds)| *of == column && !rounds.is_empty());
        let cells: Vec<[String; 4]> = of_column.map(|((_, kind), rounds)| cells(kind, rounds)).collect();
        for (place, what) in WHAT.into_iter().enumerate().filter(|_| !cells.is_empty()) {
            let cell: Vec<&str> = cells.iter().map(|cells| cells[place].as_str()).collect();
            report.cell(&format!("{NODES} processes: {what}"), column, cell.join("; "));
        }
    }
}

/// The rows, without what all of them have.
const WHAT: [&str; 4] = [
    "one view after the last start: p50 / p95",
    "killed until dead at the first: p50 / p95",
    "killed until dead at all: p50 / p95",
    "bytes a second and node when nothing happens, and with the headers of all packets",
];

fn cells(kind: &str, rounds: &[Round]) -> [String; 4] {
    let dead_at = |place: usize| {
        let deaths = rounds.iter().flat_map(|round| round.deaths.iter().map(move |death| death[place]));
        Samples::of(deaths).shown("kills")
    };
    let idle = rounds.iter().find_map(|round| round.idle).map(|[bytes, datagrams, segments]| {
        let whole = bytes + datagrams * DATAGRAM + segments * SEGMENT;
        format!("{bytes:.0}, {whole:.0} in {datagrams:.1} datagrams and {segments:.2} segments")
    });
    let views = Samples::of(rounds.iter().map(|round| round.view)).shown("runs");
    let cells = [views, dead_at(0), dead_at(1), idle.unwrap_or_default()];
    cells.map(|cell| if kind == IN_GO { format!("in Go: {cell}") } else { cell })
}

/// Whether there is a program of memberlist in Go.
fn has_been_built() -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(program.with_file_name(IN_GO)).arg(".");
    let is_built =
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/go")).status().is_ok_and(|it| it.success());
    if !is_built {
        eprintln!("no memberlist in Go: it needs `go`");
    }
    is_built
}

fn in_a_network(kind: &str, is_idle: bool) -> Option<Round> {
    let program = std::env::current_exe().ok()?;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]).arg(program).args(["cluster", kind]);
    command.args(is_idle.then_some("idle"));
    let output = command.stderr(Stdio::inherit()).output();
    let said =
        output.ok().filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    let round = said.as_deref().and_then(|said| said.lines().last()).and_then(read);
    if round.is_none() {
        eprintln!("no cluster of processes of {kind}: it needs Linux, `unshare` and `ip`");
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
