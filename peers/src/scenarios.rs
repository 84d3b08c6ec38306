//! What is measured in simulated worlds. Each function takes what starts a member, and does the same with whichever
//! protocol it is: the same seeds of the world, the same nodes joining in the same order, the same faults.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use cluster_provisioning::Timestamp;
use cluster_provisioning::testkit::gossip::{Protocol, Seen, Start, World};

/// Starts a member. It is told how many nodes the cluster is going to have, as some protocols are configured by that.
pub trait Starts<M>: Fn(&Start, usize) -> M + Copy + Send + Sync + 'static {}

impl<M, F: Fn(&Start, usize) -> M + Copy + Send + Sync + 'static> Starts<M> for F {}

/// So long a cluster may take for one view.
pub const LONGEST: Duration = secs(600);

/// A cluster in which something else is measured may take longer.
const LONGEST_TO_SETTLE: Duration = secs(3600);

/// So many seconds.
pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// So many nodes that all start at once, with the first three for seeds.
fn cluster<M: Protocol>(starts: impl Starts<M>, seed: u64, nodes: usize, loss: f64) -> World<M> {
    let mut world = World::new(seed, move |start| starts(start, nodes));
    world.network.loss = loss;
    let seeds: Vec<usize> = (0..nodes.min(3)).collect();
    (0..nodes).for_each(|node| world.start(node, &seeds));
    world
}

/// A cluster that has one view, and has been at peace for so long; `None` if it does not come to one view.
pub fn settled<M: Protocol>(starts: impl Starts<M>, seed: u64, nodes: usize, peace: Duration) -> Option<World<M>> {
    let mut world = cluster(starts, seed, nodes, 0.0);
    world.until(LONGEST_TO_SETTLE, World::is_one_view)?;
    world.pass(peace);
    Some(world)
}

/// How long a cluster takes from the start of all until everybody holds everybody for a member.
pub fn full_view<M: Protocol>(starts: impl Starts<M>, seed: u64, nodes: usize, loss: f64) -> Option<Duration> {
    cluster(starts, seed, nodes, loss).until(LONGEST, World::is_one_view)
}

/// When one was killed: until the first one has found it dead, and until nobody holds it for a member any more.
pub struct Death {
    /// Until the first one has.
    pub first: Option<Duration>,
    /// Until all have.
    pub all: Option<Duration>,
}

/// Five are killed, one after the other.
pub fn kills<M: Protocol>(starts: impl Starts<M>, seed: u64, nodes: usize) -> Vec<Death> {
    let Some(mut world) = settled(starts, seed, nodes, secs(3)) else { return Vec::new() };
    let death = |killed| {
        world.pass(Duration::from_millis(37 * seed + 311));
        let (at, seen) = (world.now(), world.sightings().len());
        world.kill(killed);
        let all = world.until(secs(120), |world| is_gone(world, killed));
        let mut dead = world.sightings()[seen..].iter();
        let first = dead.find(|seen| seen.node == killed && seen.state == Seen::Dead).map(|seen| seen.at.since(at));
        Death { first, all }
    };
    (3..8).map(death).collect()
}

fn is_gone<M: Protocol>(world: &World<M>, node: usize) -> bool {
    world.running().all(|other| world.member(other).is_none_or(|member| member.holds(node).is_none()))
}

/// The nodes with their lives that anybody has declared dead since so many sightings.
fn declared_dead<M: Protocol>(world: &World<M>, since: usize) -> BTreeSet<(usize, u64)> {
    let dead = world.sightings()[since..].iter().filter(|seen| seen.state == Seen::Dead);
    dead.map(|seen| (seen.node, seen.life)).collect()
}

/// How many that run are declared dead within five minutes in which that share of all datagrams is lost: distinct ones,
/// by their lives.
pub fn false_deaths<M: Protocol>(starts: impl Starts<M>, seed: u64, loss: f64) -> Option<usize> {
    let mut world = settled(starts, seed, 100, secs(3))?;
    world.network.loss = loss;
    let seen = world.sightings().len();
    world.pass(secs(300));
    Some(declared_dead(&world, seen).len())
}

/// One of 100 stands still for 3 s of each 10 s, five minutes long. How many others are declared dead, and how often itself.
pub fn stands_still<M: Protocol>(starts: impl Starts<M>, seed: u64) -> Option<(usize, usize)> {
    const ILL: usize = 50;
    let mut world = settled(starts, seed, 100, secs(3))?;
    let seen = world.sightings().len();
    for _ in 0..30 {
        world.pause(ILL, secs(3));
        world.pass(secs(10));
    }
    let (itself, others): (Vec<_>, Vec<_>) =
        declared_dead(&world, seen).into_iter().partition(|(node, _)| *node == ILL);
    Some((others.len(), itself.len()))
}

/// Ten nodes of a thousand, of whom something is wrong.
const ILL: Range<usize> = 100..110;

/// What is wrong with them, for five minutes.
#[derive(Clone, Copy)]
pub enum Illness {
    /// They lose four fifths of what they receive.
    HardOfHearing,
    /// Four fifths of what they send are lost.
    Faint,
    /// They receive nothing for 20 s of each 40 s.
    DeafAtTimes,
}

/// What became of a thousand nodes while ten of them were ill.
pub struct Ordeal {
    /// How often a healthy one declared a healthy one dead.
    pub healthy: usize,
    /// How often one that was ill was declared dead by healthy ones: what happens to one within 10 s counts once.
    pub ill: usize,
}

/// Ten of a thousand are ill.
pub fn ordeal<M: Protocol>(starts: impl Starts<M>, seed: u64, illness: Illness) -> Option<Ordeal> {
    let mut world = settled(starts, seed, 1000, secs(5))?;
    let since = world.sightings().len();
    match illness {
        Illness::HardOfHearing => ILL.for_each(|node| world.network.deafen(node, 0.8)),
        Illness::Faint => ILL.for_each(|node| world.network.silence(node, 0.8)),
        Illness::DeafAtTimes => {}
    }
    for _ in 0..8 {
        if matches!(illness, Illness::DeafAtTimes) {
            ILL.for_each(|node| world.network.deafen(node, 1.0));
            world.pass(secs(20));
            ILL.for_each(|node| world.network.deafen(node, 0.0));
            world.pass(secs(20));
        } else {
            world.pass(secs(40));
        }
    }
    let dead = || world.sightings()[since..].iter().filter(|seen| seen.state == Seen::Dead && !ILL.contains(&seen.by));
    let healthy = dead().filter(|seen| !ILL.contains(&seen.node)).count();
    let ill = dead().filter(|seen| ILL.contains(&seen.node));
    let ill: BTreeSet<_> = ill.map(|seen| (seen.node, seen.at.as_millis() / 10_000)).collect();
    Some(Ordeal { healthy, ill: ill.len() })
}

/// Ten of a thousand are killed at once: how long until the last of them is dead at each survivor; `None` where one is not
/// within two minutes.
pub fn ten_killed<M: Protocol>(starts: impl Starts<M>, seed: u64) -> Vec<Option<Duration>> {
    let Some(mut world) = settled(starts, seed, 1000, secs(5)) else { return Vec::new() };
    world.pass(Duration::from_millis(37 * seed));
    let (at, since) = (world.now(), world.sightings().len());
    ILL.for_each(|node| world.kill(node));
    world.until(secs(120), |world| ILL.into_iter().all(|node| is_gone(world, node)));
    let (mut found, mut last) = (vec![0; 1000], vec![at; 1000]);
    for seen in world.sightings()[since..].iter().filter(|seen| seen.state == Seen::Dead && ILL.contains(&seen.node)) {
        found[seen.by] += 1;
        last[seen.by] = seen.at;
    }
    world.running().map(|node| (found[node] >= ILL.len()).then(|| last[node].since(at))).collect()
}

/// A thousand are started again within ten seconds: how long after the last start there is one view.
pub fn restarted<M: Protocol>(starts: impl Starts<M>, seed: u64) -> Option<Duration> {
    let mut world = settled(starts, seed, 1000, secs(3))?;
    for node in 0..1000 {
        world.start(node, &[0, 1, 2]);
        world.pass(Duration::from_millis(10));
    }
    world.until(LONGEST, World::is_one_view)
}

/// What a node of a cluster sends in a second when nothing happens.
pub struct Idle {
    /// Bytes, those over the reliable channel among them; without any headers.
    pub bytes: f64,
    /// Datagrams.
    pub datagrams: f64,
}

/// Measured for a minute, after half a minute of peace.
pub fn idle<M: Protocol>(starts: impl Starts<M>, seed: u64, nodes: usize) -> Option<Idle> {
    let mut world = settled(starts, seed, nodes, secs(30))?;
    let before = world.counts().clone();
    world.pass(secs(60));
    let counts = world.counts();
    let each = |now: u64, before: u64| (now - before) as f64 / nodes as f64 / 60.0;
    let bytes = each(counts.bytes + counts.question_bytes, before.bytes + before.question_bytes);
    Some(Idle { bytes, datagrams: each(counts.datagrams, before.datagrams) })
}

/// A cluster of 100 that was cut into halves for two minutes.
pub struct Healed {
    /// From the healing to one view.
    pub took: Option<Duration>,
    /// Who does not hold whom a minute after the healing: so many pairs, of 9,900.
    pub missing: usize,
}

/// Half of 100 nodes do not reach the other half for two minutes.
pub fn partition<M: Protocol>(starts: impl Starts<M>, seed: u64) -> Option<Healed> {
    let mut world = settled(starts, seed, 100, secs(3))?;
    (50..100).for_each(|node| world.network.part(node, 1));
    world.pass(secs(120));
    world.network.heal();
    let healed = world.now();
    let mut took = world.until(secs(60), World::is_one_view);
    let missing = if took.is_some() { 0 } else { missing(&world) };
    if took.is_none() {
        took = world.until(LONGEST - secs(60), World::is_one_view).map(|_| world.now().since(healed));
    }
    Some(Healed { took, missing })
}

fn missing<M: Protocol>(world: &World<M>) -> usize {
    let members = || world.running().filter_map(|node| world.member(node));
    members().map(|member| world.running().filter(|node| member.holds(*node).is_none()).count()).sum()
}

/// One node more joins. How long it takes from the first one that holds it for a member until all do.
pub fn dissemination<M: Protocol>(starts: impl Starts<M>, seed: u64, nodes: usize) -> Option<Duration> {
    let mut world = settled(starts, seed, nodes, secs(30))?;
    let seen = world.sightings().len();
    world.start(nodes, &[0, 1, 2]);
    world.until(secs(120), |world| {
        world.running().all(|other| world.member(other).is_some_and(|member| member.holds(nodes).is_some()))
    })?;
    let mut ups: Vec<(usize, Timestamp)> = Vec::new();
    for seen in &world.sightings()[seen..] {
        if seen.node == nodes && seen.state == Seen::Up && ups.iter().all(|(by, _)| *by != seen.by) {
            ups.push((seen.by, seen.at));
        }
    }
    let (first, last) = (ups.first()?.1, ups.last()?.1);
    Some(last.since(first))
}

/// One of two is killed: how long the other one holds it for a member.
pub fn one_of_two<M: Protocol>(starts: impl Starts<M>, seed: u64) -> Option<Duration> {
    let mut world = settled(starts, seed, 2, secs(3))?;
    world.kill(1);
    world.until(LONGEST, |world| is_gone(world, 1))
}

/// Two do not reach each other for 30 s: from the healing until both hold both.
pub fn two_cut<M: Protocol>(starts: impl Starts<M>, seed: u64) -> Option<Duration> {
    let mut world = settled(starts, seed, 2, secs(3))?;
    world.network.part(1, 1);
    world.pass(secs(30));
    world.network.heal();
    world.until(LONGEST, World::is_one_view)
}
