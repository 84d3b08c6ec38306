//! What the benches share: how they measure, and how they print it.
//!
//! Every figure is printed beside a floor that was measured in the same run, in turn with it, and judged by its ratio to
//! that floor: machines differ, and so does what else they are doing.
#![allow(dead_code, reason = "every bench uses a part of this")]

pub mod answer;
pub mod counting;
pub mod pods;
pub mod puppet;

use std::fmt::Write;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cluster_provisioning::{ClusterNode, MembersBuilder, NodeId, ProvisioningError};

/// Nanoseconds since the first call; stamps that threads can exchange in an atomic.
pub fn nanos() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// How long the work takes.
pub fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let made = work();
    (started.elapsed(), made)
}

/// A node as a Consul or Kubernetes deployment has it: an id with a number, two kinds, two entries of metadata.
pub fn node(number: usize) -> ClusterNode {
    node_of(number, 1)
}

/// The same node in another life.
pub fn node_of(number: usize, incarnation: u64) -> ClusterNode {
    let address = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
    ClusterNode::builder(format!("orders-{number:06}"), address, 8090)
        .incarnation(incarnation)
        .kinds(["order", "customer"])
        .metadata("zone", format!("eu-central-1{}", ["a", "b", "c"][number % 3]))
        .metadata("version", "2.14.3")
        .build()
        .expect("a valid node")
}

pub fn id(number: usize) -> NodeId {
    NodeId::new(format!("orders-{number:06}")).expect("a valid id")
}

/// So many nodes, sorted by id, none of them shared with anybody.
pub fn nodes(count: usize) -> Vec<Arc<ClusterNode>> {
    (0..count).map(|number| Arc::new(node(number))).collect()
}

/// One pass of the documented hash over the nodes.
pub fn hash_pass(nodes: &[Arc<ClusterNode>]) -> u64 {
    std::hint::black_box(nodes).iter().fold(0u64, |sum, node| sum.wrapping_add(node.compute_hash()))
}

/// Hashes the nodes and adds them to a set, one by one, as a provider that decodes an answer does.
pub fn gather(listed: Vec<Arc<ClusterNode>>) -> MembersBuilder {
    let mut builder = MembersBuilder::new();
    for node in listed {
        std::hint::black_box(node.compute_hash());
        builder.push(Ok::<_, ProvisioningError>(node));
    }
    builder
}

/// A reproducible sequence without a pattern (SplitMix64).
pub struct Sequence(pub u64);

impl Sequence {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// Measured durations.
#[derive(Clone, Default)]
pub struct Samples(pub Vec<Duration>);

impl Samples {
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub fn extend(&mut self, samples: Samples) {
        self.0.extend(samples.0);
    }

    pub fn quantile(&self, q: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (q * sorted.len() as f64) as usize;
        sorted.get(rank.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    pub fn best(&self) -> Duration {
        self.0.iter().min().copied().unwrap_or_default()
    }
}

/// What a figure has to reach.
#[derive(Clone, Copy)]
pub enum Target {
    /// At most so many times the floor.
    Times(f64),
    /// At most so much above the floor.
    Above(Duration),
    /// Only to be seen.
    None,
}

/// A table of figures beside their floors, printed when it is dropped.
pub struct Table {
    text: String,
}

impl Table {
    pub fn new(title: &str, figure: &str, floor: &str) -> Self {
        let mut text = format!("\n{title}\n");
        _ = writeln!(text, "  {:<44} {:>11} {:>11} {:>8}  target", "", figure, floor, "ratio");
        Self { text }
    }

    /// A table of figures that have no floor but a limit.
    pub fn of_limits(title: &str) -> Self {
        Self { text: format!("\n{title}\n") }
    }

    pub fn row(&mut self, what: &str, figure: Duration, floor: Duration, target: Target) {
        self.judge(what, figure, floor, figure.as_secs_f64() / floor.as_secs_f64(), target);
    }

    /// Figures and floors that were measured in pairs: the medians of each, and the median of the pairs' ratios, which
    /// what else the machine does hardly touches.
    pub fn pairs(&mut self, what: &str, figures: &Samples, floors: &Samples, target: Target) {
        let pairs = figures.0.iter().zip(&floors.0);
        let mut ratios: Vec<f64> = pairs.map(|(figure, floor)| figure.as_secs_f64() / floor.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
        self.judge(what, figures.median(), floors.median(), ratio, target);
    }

    fn judge(&mut self, what: &str, figure: Duration, floor: Duration, ratio: f64, target: Target) {
        let reached = |yes| if yes { "reached" } else { "missed" };
        let verdict = match target {
            Target::Times(times) => format!("<= {times:.1} x floor: {}", reached(ratio <= times)),
            Target::Above(above) => format!("<= floor + {}: {}", show(above), reached(figure <= floor + above)),
            Target::None => String::new(),
        };
        _ = writeln!(self.text, "  {what:<44} {:>11} {:>11} {ratio:>8.2}  {verdict}", show(figure), show(floor));
    }

    /// A figure without a floor.
    pub fn figure(&mut self, what: &str, figure: Duration) {
        _ = writeln!(self.text, "  {what:<44} {:>11}", show(figure));
    }

    pub fn note(&mut self, text: &str) {
        _ = writeln!(self.text, "  {text}");
    }

    /// A figure that is no time, judged against a limit.
    pub fn limit(&mut self, what: &str, figure: f64, unit: &str, limit: Option<f64>) {
        let verdict = match limit {
            Some(limit) if figure < limit => format!("< {limit} {unit}: reached"),
            Some(limit) => format!("< {limit} {unit}: missed"),
            None => String::new(),
        };
        _ = writeln!(self.text, "  {what:<56} {:>20}  {verdict}", format!("{figure:.2} {unit}"));
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        print!("{}", self.text);
    }
}

/// Three digits or so, whatever the size.
pub fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    match nanos {
        0.0..1e3 => format!("{nanos:.0} ns"),
        1e3..1e6 => format!("{:.2} µs", nanos / 1e3),
        1e6..1e9 => format!("{:.2} ms", nanos / 1e6),
        _ => format!("{:.2} s", nanos / 1e9),
    }
}
