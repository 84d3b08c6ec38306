//! Seeded fault simulation: the hub's own rules against a cluster that changes and providers that fail in every way,
//! with checkers that judge each tick, and a count of what happened.
//!
//! One seed is one run, always the same: two to four providers with priorities, delays and faults of their own, watching
//! a true cluster whose nodes join, leave, restart and change; blocks, pins, reloads, standstills and panicking bridges
//! in between; then an end of all faults, after which everything must come right. No threads, sockets or sleeps: minutes
//! of simulated time take milliseconds.
//!
//! ```
//! use cluster_provisioning::testkit::Simulation;
//! let summary = Simulation::run_seeds(0..5);
//! assert!(summary.failures.is_empty(), "{summary}");
//! ```

mod action;
mod checkers;
mod dice;
mod judge;
mod model;
mod plan;
#[cfg(test)]
mod planted;
mod registrations;
mod run;
mod shell;
mod streams;
mod transitions;
mod world;

use std::fmt;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use transitions::{Transition, Transitions};

use crate::event::{OwnershipChange, SnapshotDelivery};
use crate::topology::ClusterNode;

/// How many failures a summary keeps.
const KEPT_FAILURES: usize = 5;

/// One run of the simulation.
#[derive(Clone, Debug)]
pub struct Simulation {
    seed: u64,
    #[cfg(test)]
    planted: Option<planted::PlantedBug>,
}

impl Simulation {
    /// The run of that seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            #[cfg(test)]
            planted: None,
        }
    }

    /// Runs it to its end, or to the first tick that a checker objects to.
    pub fn run(self) -> Report {
        run::Run::new(self).run()
    }

    /// Runs every seed of the range, on all processors, and adds up what they report.
    pub fn run_seeds(seeds: Range<u64>) -> Summary {
        let next = AtomicU64::new(seeds.start);
        let summary = Mutex::new(Summary::default());
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut own = Summary::default();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            break;
                        }
                        own.add(Self::new(seed).run());
                    }
                    summary.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
                });
            }
        });
        summary.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How many steps it took.
    pub steps: u64,
    /// How many ticks of the hub were judged.
    pub ticks: u64,
    /// How many deliveries were judged.
    pub deliveries: u64,
    /// What happened.
    pub transitions: Transitions,
    /// What a checker objected to; absent if none did.
    pub failure: Option<Failure>,
}

/// What checkers objected to in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// The checkers that objected to the tick, by name, each with what it had to say.
    pub objections: Vec<(&'static str, String)>,
    /// The last ticks, in words, the one objected to at the end.
    pub last: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        for (checker, objection) in &self.objections {
            writeln!(f, "seed {}, step {}: {checker}: {objection}", self.seed, self.step)?;
        }
        Ok(())
    }
}

/// What many runs came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many runs.
    pub runs: u64,
    /// How many of them a checker objected to.
    pub failed: u64,
    /// How many ticks were judged.
    pub ticks: u64,
    /// How many deliveries were judged.
    pub deliveries: u64,
    /// What happened.
    pub transitions: Transitions,
    /// The failures of the lowest seeds.
    pub failures: Vec<Failure>,
}

impl Summary {
    fn add(&mut self, report: Report) {
        self.merge(Summary {
            runs: 1,
            failed: u64::from(report.failure.is_some()),
            ticks: report.ticks,
            deliveries: report.deliveries,
            transitions: report.transitions,
            failures: report.failure.into_iter().collect(),
        });
    }

    fn merge(&mut self, other: Summary) {
        self.runs += other.runs;
        self.failed += other.failed;
        self.ticks += other.ticks;
        self.deliveries += other.deliveries;
        self.transitions.merge(&other.transitions);
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
        self.failures.truncate(KEPT_FAILURES);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        write!(f, "{}", self.transitions)?;
        let Self { runs, failed, ticks, deliveries, .. } = self;
        writeln!(f, "{runs} runs, {ticks} ticks, {deliveries} deliveries, {failed} runs failed")
    }
}

/// What the simulated PlacementSupervisor orders for a snapshot: a function of it alone, so that checkers can tell.
fn placement(delivery: &SnapshotDelivery) -> Vec<OwnershipChange> {
    if delivery.snapshot.hash.is_multiple_of(3) {
        return Vec::new();
    }
    let release = |node: &Arc<ClusterNode>| OwnershipChange::release(node.id().as_str());
    let assign = |node: &Arc<ClusterNode>| OwnershipChange::assign(node.id().as_str(), node.id().clone());
    let released = delivery.diff.left().iter().take(2).map(release);
    released.chain(delivery.diff.joined().iter().take(2).map(assign)).collect()
}

#[cfg(test)]
mod tests {
    use super::planted::PlantedBug;
    use super::*;

    #[test]
    fn a_seed_is_always_the_same_run() {
        let (a, b) = (Simulation::new(7).run(), Simulation::new(7).run());
        assert_eq!((a.ticks, a.deliveries, a.transitions), (b.ticks, b.deliveries, b.transitions));
    }

    #[test]
    fn each_checker_reports_the_bugs_planted_for_it() {
        let unnoticed: Vec<String> = PlantedBug::ALL
            .iter()
            .filter_map(|bug| {
                let fails = |seed| Simulation { seed, planted: Some(*bug) }.run().failure;
                let Some(failure) = (0..200).find_map(fails) else { return Some(format!("{bug:?}: nobody objects")) };
                let named = failure.objections.iter().any(|(checker, _)| *checker == bug.checker());
                (!named).then(|| format!("{bug:?}: {:?} does not object, but {:?}", bug.checker(), failure.objections))
            })
            .collect();
        assert!(unnoticed.is_empty(), "{unnoticed:#?}");
    }

    #[test]
    fn a_bug_is_planted_for_every_checker() {
        let planted: Vec<&str> = PlantedBug::ALL.iter().map(|bug| bug.checker()).collect();
        for checker in checkers::all() {
            assert!(planted.contains(&checker.name()), "{} is not shown to report anything", checker.name());
        }
        for checker in [checkers::LIVENESS, checkers::LANES, checkers::ORDERS, checkers::REGISTRATION] {
            assert!(planted.contains(&checker), "{checker} is not shown to report anything");
        }
    }

    #[test]
    fn the_table_of_a_summary_names_every_transition() {
        let table = Summary::default().to_string();
        assert!(Transition::ALL.iter().all(|transition| table.contains(transition.text())));
    }
}
