//! The rows of the table: what is measured of whom, in how many runs.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_provisioning::testkit::gossip::{GossipMember, Protocol, Start};

use crate::foca::FocaMember;
use crate::report::{Column, Report};
use crate::samples::Samples;
use crate::scenarios::{self, Death, Healed, Idle, Illness, Ordeal, Starts};
use crate::{chitchat, cost, memberlist, real};

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Extent {
    /// A few seeds of each.
    pub is_quick: bool,
    /// In which columns, in their order.
    pub columns: [bool; 4],
}

impl Extent {
    /// Whether that column is measured.
    pub fn measures(self, column: Column) -> bool {
        self.columns[column as usize]
    }

    /// So many runs, or a fifth of them.
    pub fn runs(self, runs: u64) -> u64 {
        if self.is_quick { runs.div_ceil(5) } else { runs }
    }
}

/// Measures a group of rows.
type Measure = fn(&mut Report, Extent);

/// All groups, in the order of the table.
pub const ROWS: [(&str, Measure); 11] = [
    ("join", join),
    ("kill", kill),
    ("false-deaths", false_deaths),
    ("stands-still", stands_still),
    ("partition", partition),
    ("two", two),
    ("dissemination", dissemination),
    ("thousand", thousand),
    ("idle", idle),
    ("cost", cost),
    ("real", real::rows),
];

fn ours(start: &Start, _: usize) -> GossipMember {
    GossipMember::lan(start)
}

/// Whatever each seed gives, in their order. Two seeds at a time: worlds stay on the thread that has made them.
fn runs<T: Send>(count: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        break;
                    }
                    let result = run(seed);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((seed, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(seed, _)| *seed);
    done.into_iter().map(|(_, result)| result).collect()
}

fn join(report: &mut Report, extent: Extent) {
    let mut put = |nodes, loss, column, took: Vec<Option<Duration>>| {
        let row = format!("one view after the start of all, {nodes} nodes, {} % lost: p50 / p95", loss * 100.0);
        let took = Samples::of(took);
        report.cell(&row, column, took.shown("runs"));
    };
    for (nodes, loss) in [(10, 0.0), (50, 0.0), (100, 0.0), (500, 0.0), (100, 0.1)] {
        let count = extent.runs(20);
        if extent.measures(Column::Ours) {
            put(nodes, loss, Column::Ours, runs(count, |seed| scenarios::full_view(ours, seed, nodes, loss)));
        }
        if extent.measures(Column::Foca) {
            let took = runs(count, |seed| scenarios::full_view(FocaMember::lan, seed, nodes, loss));
            put(nodes, loss, Column::Foca, took);
        }
        if nodes <= 100 && extent.measures(Column::Chitchat) {
            put(nodes, loss, Column::Chitchat, runs(count, |seed| chitchat::full_view(seed, nodes, loss)));
        }
        if nodes <= 50 && extent.measures(Column::Memberlist) {
            // One after the other, as they run in real time.
            let took = (0..extent.runs(5)).map(|_| memberlist::run(nodes, 0).full_view).collect();
            put(nodes, loss, Column::Memberlist, took);
        }
    }
}

fn kill(report: &mut Report, extent: Extent) {
    let mut put = |nodes, column, deaths: Vec<Death>| {
        let first = Samples::of(deaths.iter().map(|death| death.first));
        let all = Samples::of(deaths.iter().map(|death| death.all));
        let row = |at| format!("killed until dead at {at}, {nodes} nodes: p50 / p95");
        report.cell(&row("the first"), column, first.shown("kills"));
        report.cell(&row("all"), column, all.shown("kills"));
    };
    for nodes in [10, 50, 100, 500] {
        let count = extent.runs(if nodes < 500 { 20 } else { 4 });
        let of = |deaths: Vec<Vec<Death>>| deaths.into_iter().flatten().collect();
        if extent.measures(Column::Ours) {
            put(nodes, Column::Ours, of(runs(count, |seed| scenarios::kills(ours, seed, nodes))));
        }
        if extent.measures(Column::Foca) {
            put(nodes, Column::Foca, of(runs(count, |seed| scenarios::kills(FocaMember::lan, seed, nodes))));
        }
        if nodes <= 100 && extent.measures(Column::Chitchat) {
            put(nodes, Column::Chitchat, of(runs(count, |seed| chitchat::kills(seed, nodes))));
        }
        if nodes <= 50 && extent.measures(Column::Memberlist) {
            let deaths = (0..extent.runs(3)).flat_map(|_| memberlist::run(nodes, 5).deaths).collect();
            put(nodes, Column::Memberlist, deaths);
        }
    }
}

/// How many in how many runs; those that have not even come to one view are left out, and said to be.
fn total(counts: &[Option<usize>]) -> String {
    let (sum, of) = (counts.iter().flatten().sum::<usize>(), counts.iter().flatten().count());
    let missing = counts.len() - of;
    if missing == 0 { format!("{sum} (runs: {of})") } else { format!("{sum} (runs: {of}; {missing} had no one view)") }
}

fn false_deaths(report: &mut Report, extent: Extent) {
    for loss in [0.0, 0.05, 0.1, 0.3] {
        let row = format!("declared dead in 5 min though they run, 100 nodes, {} % lost", loss * 100.0);
        let count = extent.runs(20);
        if extent.measures(Column::Ours) {
            let dead = runs(count, |seed| scenarios::false_deaths(ours, seed, loss));
            report.cell(&row, Column::Ours, total(&dead));
        }
        if extent.measures(Column::Foca) {
            let dead = runs(count, |seed| scenarios::false_deaths(FocaMember::lan, seed, loss));
            report.cell(&row, Column::Foca, total(&dead));
        }
        if extent.measures(Column::Chitchat) {
            let dead = runs(extent.runs(2), |seed| chitchat::false_deaths(seed, loss));
            report.cell(&row, Column::Chitchat, total(&dead));
        }
    }
}

fn stands_still(report: &mut Report, extent: Extent) {
    let mut put = |column, counts: Vec<Option<(usize, usize)>>| {
        let row = |of| format!("one of 100 stands still for 3 s of each 10 s, 5 min: {of} declared dead");
        let others: Vec<_> = counts.iter().map(|count| count.map(|(others, _)| others)).collect();
        let itself: Vec<_> = counts.iter().map(|count| count.map(|(_, itself)| itself)).collect();
        report.cell(&row("others"), column, total(&others));
        report.cell(&row("it is"), column, total(&itself));
    };
    if extent.measures(Column::Ours) {
        put(Column::Ours, runs(extent.runs(20), |seed| scenarios::stands_still(ours, seed)));
    }
    if extent.measures(Column::Foca) {
        put(Column::Foca, runs(extent.runs(20), |seed| scenarios::stands_still(FocaMember::lan, seed)));
    }
    if extent.measures(Column::Chitchat) {
        put(Column::Chitchat, runs(extent.runs(4), chitchat::stands_still));
    }
}

fn partition(report: &mut Report, extent: Extent) {
    let mut put = |column, healed: Vec<Option<Healed>>| {
        let row = "halves of 100 nodes cut for 2 min: one view after the healing: p50 / p95";
        report.cell(row, column, Samples::of(healed.iter().flatten().map(|healed| healed.took)).shown("runs"));
        let row = "of 9,900 pairs, so many miss each other 1 min after the healing, most of all runs";
        let most = healed.iter().flatten().map(|healed| healed.missing).max();
        report.cell(row, column, most.map_or_else(|| "none".to_owned(), |most| most.to_string()));
    };
    if extent.measures(Column::Ours) {
        put(Column::Ours, runs(extent.runs(20), |seed| scenarios::partition(ours, seed)));
    }
    if extent.measures(Column::Foca) {
        put(Column::Foca, runs(extent.runs(20), |seed| scenarios::partition(FocaMember::lan, seed)));
    }
    if extent.measures(Column::Chitchat) {
        put(Column::Chitchat, runs(extent.runs(6), chitchat::partition));
    }
}

fn two(report: &mut Report, extent: Extent) {
    if !extent.measures(Column::Ours) {
        return;
    }
    let count = extent.runs(20);
    let took = Samples::of(runs(count, |seed| scenarios::one_of_two(ours, seed)));
    report.cell("one of 2 nodes killed until dead at the other: p50 / p95", Column::Ours, took.shown("runs"));
    let took = Samples::of(runs(count, |seed| scenarios::two_cut(ours, seed)));
    report.cell("2 nodes cut for 30 s: one view after the healing: p50 / p95", Column::Ours, took.shown("runs"));
}

fn dissemination(report: &mut Report, extent: Extent) {
    const ROUND: Duration = Duration::from_millis(200);
    let mut put = |nodes: usize, column, round: Duration, took: Vec<Option<Duration>>| {
        let rounds = (nodes as f64).log2();
        let row = format!("one joins {nodes} nodes: all have heard, p50 / p95, in rounds (log2 N = {rounds:.1})");
        let took = Samples::of(took);
        let share = took.quantile(0.5).map_or(0.0, |took| took / round.as_secs_f64());
        report.cell(&row, column, format!("{}; {share:.1} rounds", took.shown("runs")));
    };
    for nodes in [10, 100, 1000] {
        let count = if nodes < 1000 { extent.runs(20) } else { extent.runs(2) };
        if extent.measures(Column::Ours) {
            put(nodes, Column::Ours, ROUND, runs(count, |seed| scenarios::dissemination(ours, seed, nodes)));
        }
        if extent.measures(Column::Foca) {
            let took = runs(count, |seed| scenarios::dissemination(FocaMember::lan, seed, nodes));
            put(nodes, Column::Foca, ROUND, took);
        }
        if nodes <= 100 && extent.measures(Column::Chitchat) {
            let took = runs(count, |seed| chitchat::dissemination(seed, nodes));
            put(nodes, Column::Chitchat, chitchat::GOSSIP_INTERVAL, took);
        }
    }
}

/// What happens among a thousand nodes: of ours and of the peer that runs in the same world.
fn thousand(report: &mut Report, extent: Extent) {
    let ours = |start: &Start, _: usize| GossipMember::unjudged(start);
    if extent.measures(Column::Ours) {
        a_thousand(report, extent.runs(2), Column::Ours, ours);
        let took = Samples::of(runs(extent.runs(2), |seed| scenarios::restarted(ours, seed)));
        let row = "1,000 started again within 10 s: one view after the last start: p50 / p95";
        report.cell(row, Column::Ours, took.shown("runs"));
    }
    if extent.measures(Column::Foca) {
        a_thousand(report, 1, Column::Foca, FocaMember::lan);
    }
}

fn a_thousand<M: Protocol>(report: &mut Report, count: u64, column: Column, starts: impl Starts<M>) {
    let illnesses = [
        ("lose 80 % of what they receive", Illness::HardOfHearing),
        ("lose 80 % of what they send", Illness::Faint),
        ("receive nothing for 20 s of 40", Illness::DeafAtTimes),
    ];
    for (what, illness) in illnesses {
        let ordeals: Vec<_> = runs(count, |seed| scenarios::ordeal(starts, seed, illness));
        let sum = |part: fn(&Ordeal) -> usize| ordeals.iter().flatten().map(part).sum::<usize>();
        let of = ordeals.iter().flatten().count();
        let row = |whom: &str| format!("10 of 1,000 {what}, 5 min: {whom}");
        let healthy = format!("{} (runs: {of})", sum(|ordeal| ordeal.healthy));
        report.cell(&row("healthy ones declared dead by healthy ones"), column, healthy);
        report.cell(
            &row("times that one of the ten went"),
            column,
            format!("{} (runs: {of})", sum(|ordeal| ordeal.ill)),
        );
    }
    let killed = runs(count, |seed| scenarios::ten_killed(starts, seed));
    let last = Samples::of(killed.into_iter().flatten().collect::<Vec<_>>());
    let row = "10 of 1,000 killed at once: the last of them dead at a survivor: p50 / p95";
    report.cell(row, column, last.shown("survivors"));
}

fn idle(report: &mut Report, extent: Extent) {
    for nodes in [10, 100, 500] {
        let count = if nodes < 500 { extent.runs(5) } else { 1 };
        let mut put = |column: Column, idle: Vec<Option<Idle>>| {
            let of = idle.iter().flatten().count();
            let mean = |part: fn(&Idle) -> f64| idle.iter().flatten().map(part).sum::<f64>() / of.max(1) as f64;
            let (bytes, datagrams) = (mean(|idle| idle.bytes), mean(|idle| idle.datagrams));
            report.cell(&idle_row(nodes), column, format!("{bytes:.0} in {datagrams:.1} datagrams (runs: {of})"));
        };
        if extent.measures(Column::Ours) {
            put(Column::Ours, runs(count, |seed| scenarios::idle(ours, seed, nodes)));
        }
        if extent.measures(Column::Foca) {
            put(Column::Foca, runs(count, |seed| scenarios::idle(FocaMember::lan, seed, nodes)));
        }
        if nodes <= 100 && extent.measures(Column::Chitchat) {
            put(Column::Chitchat, runs(count, |seed| chitchat::idle(seed, nodes)));
        }
    }
}

fn cost(report: &mut Report, extent: Extent) {
    if extent.measures(Column::Ours) {
        costs(report, Column::Ours, |start: &Start, _: usize| GossipMember::unjudged(start));
    }
    if extent.measures(Column::Foca) {
        costs(report, Column::Foca, FocaMember::lan);
    }
}

fn idle_row(nodes: usize) -> String {
    format!("bytes a second and node when nothing happens, {nodes} nodes")
}

fn costs<M: Protocol>(report: &mut Report, column: Column, starts: impl Starts<M>) {
    const NODES: usize = 1000;
    let Some(cost) = cost::of(starts, NODES) else { return };
    let kilobytes = cost.heap / 1024.0;
    report.cell("heap of a member, 1,000 nodes", column, format!("{kilobytes:.0} KiB"));
    let (bytes, (datagrams, _)) = (cost.bytes, cost.datagrams);
    report.cell(&idle_row(NODES), column, format!("{bytes:.0} in {datagrams:.1} datagrams (runs: 1)"));
    if let Some((processor, world)) = cost.processor.zip(cost::of_the_world(NODES, cost.datagrams)) {
        let row = "processor time of a member and second, 1,000 nodes, and the share of the world in it";
        report.cell(row, column, format!("{processor:.1} µs, {world:.1} µs"));
    }
}
