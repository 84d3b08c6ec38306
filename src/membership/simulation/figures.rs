//! The figures that the protocol is judged by: `cargo test --release --lib membership::simulation::figures -- --ignored
//! --nocapture`, one test for each row of the table, or all.

use std::collections::BTreeSet;
use std::time::Duration;

use super::scenes::{cluster, world};
use super::{GossipMember, Seen, World};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Sorted samples.
struct Samples(Vec<Duration>);

impl Samples {
    fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    fn quantile(&self, share: f64) -> f64 {
        let place = ((self.0.len() as f64 * share).ceil() as usize).clamp(1, self.0.len()) - 1;
        self.0[place].as_secs_f64()
    }

    fn shown(&self) -> String {
        format!(
            "p50 {:.2} s, p95 {:.2} s, worst {:.2} s of {}",
            self.quantile(0.5),
            self.quantile(0.95),
            self.quantile(1.0),
            self.0.len()
        )
    }
}

/// A cluster that has one view, and has been at peace for so long.
fn settled(seed: u64, nodes: usize, peace: Duration) -> World<GossipMember> {
    let mut world = cluster(seed, nodes);
    world.until(secs(60), World::is_one_view).unwrap_or_else(|| panic!("seed {seed}: {:?}", world.counts().events));
    world.pass(peace);
    world
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn full_view_after_the_join() {
    for (nodes, seeds, loss) in [(10, 40, 0.0), (100, 20, 0.0), (500, 20, 0.0), (100, 20, 0.1)] {
        let took = (0..seeds).map(|seed| {
            let mut world = world(seed);
            world.network.loss = loss;
            (0..nodes).for_each(|node| world.start(node, &[0, 1, 2]));
            world.until(secs(60), World::is_one_view).unwrap_or(secs(60))
        });
        let took = Samples::of(took.collect());
        println!("full view after the join, {nodes} nodes, {loss} lost: {}", took.shown());
        assert!(nodes != 100 || loss > 0.0 || (took.quantile(0.5) <= 0.7 && took.quantile(1.0) <= 3.0));
        assert!(nodes != 100 || took.quantile(1.0) <= 5.0);
    }
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn from_a_kill_to_dead() {
    for nodes in [10usize, 50, 100, 500] {
        let (mut first, mut all) = (Vec::new(), Vec::new());
        for seed in 0..20 {
            let mut world = settled(seed, nodes, secs(3));
            for killed in 3..8 {
                world.pass(Duration::from_millis(37 * seed + 311));
                let (at, seen) = (world.now(), world.sightings().len());
                world.kill(killed);
                world.until(secs(60), World::is_one_view).expect("dead everywhere");
                let dead =
                    world.sightings()[seen..].iter().filter(|seen| seen.node == killed && seen.state == Seen::Dead);
                first.push(dead.map(|seen| seen.at.since(at)).min().expect("dead somewhere"));
                all.push(world.now().since(at));
            }
        }
        let (first, all) = (Samples::of(first), Samples::of(all));
        println!("kill to dead at the first, {nodes} nodes: {}", first.shown());
        println!("kill to dead at all, {nodes} nodes:       {}", all.shown());
        let is_reached = first.quantile(0.5) <= 5.5 && all.quantile(0.5) <= 6.0 && all.quantile(0.95) <= 9.0;
        assert!(nodes != 100 || is_reached);
    }
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn false_deaths() {
    // At a loss of 30 % fewer than one an hour and node: these are 83 hours.
    for (loss, runs, most) in [(0.0, 5, 0), (0.05, 20, 0), (0.1, 40, 1), (0.3, 10, 82)] {
        let (mut dead, mut suspected, mut isolated) = (0, 0, 0);
        for seed in 0..runs {
            let mut world = settled(seed, 100, secs(3));
            world.network.loss = loss;
            let seen = world.sightings().len();
            world.pass(secs(300));
            let of = |state| world.sightings()[seen..].iter().filter(move |seen| seen.state == state);
            let lives: BTreeSet<_> = of(Seen::Dead).map(|seen| (seen.node, seen.life)).collect();
            dead += lives.len();
            suspected += of(Seen::Suspect).filter(|seen| seen.by == 0).count();
            isolated += world.counts().events.get("isolated").copied().unwrap_or_default();
        }
        println!(
            "false deaths in 5 min, 100 nodes, {loss} lost: {dead} in {runs} runs; suspicions heard of by one node: {} a run; isolated {isolated}",
            suspected / runs as usize
        );
        assert!(dead <= most);
    }
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn idle_bytes() {
    for nodes in [100, 1000] {
        let mut world = settled(1, nodes, secs(30));
        let before = world.counts().clone();
        world.pass(secs(60));
        let each = |bytes: u64| bytes as f64 / nodes as f64 / 60.0;
        println!(
            "idle, {nodes} nodes: {:.0} bytes a second and node in {:.2} datagrams; {:.0} bytes over the reliable channel",
            each(world.counts().bytes - before.bytes),
            each(world.counts().datagrams - before.datagrams),
            each(world.counts().question_bytes - before.question_bytes)
        );
    }
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn one_that_stands_still_three_tenths_of_the_time() {
    let mut dead = BTreeSet::new();
    for seed in 0..20 {
        let mut world = settled(seed, 100, secs(3));
        let seen = world.sightings().len();
        for _ in 0..30 {
            world.pause(50, secs(3));
            world.pass(secs(10));
        }
        let others = world.sightings()[seen..].iter().filter(|seen| seen.state == Seen::Dead && seen.node != 50);
        dead.extend(others.map(|seen| (seed, seen.node)));
    }
    println!("one of 100 paused 30 % of the time: {} others declared dead in 20 runs: {dead:?}", dead.len());
    assert!(dead.is_empty());
}

/// Ten nodes of a thousand, of whom something is wrong.
const ILL: std::ops::Range<usize> = 100..110;

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn ten_of_a_thousand_killed_at_once() {
    let (mut last, mut updates) = (Vec::new(), Vec::new());
    for seed in 0..10 {
        let mut world = settled(seed, 1000, secs(5));
        let at = world.now();
        let count = |world: &World<GossipMember>, node| world.member(node).map_or(0, |member| member.updates().len());
        let before: Vec<usize> = (0..1000).map(|node| count(&world, node)).collect();
        ILL.for_each(|node| world.kill(node));
        world.until(secs(60), World::is_one_view).expect("dead everywhere");
        for node in world.running() {
            let since = &world.member(node).expect("it runs").updates()[before[node]..];
            updates.push(since.len());
            last.extend(since.last().map(|update| update.at.since(at)));
        }
    }
    updates.sort_unstable();
    let share = |share: f64| updates[(updates.len() as f64 * share) as usize];
    let last = Samples::of(last);
    println!("10 of 1,000 killed: the last update {}", last.shown());
    println!("10 of 1,000 killed: updates p50 {}, p95 {}, most {}", share(0.5), share(0.95), updates.last().unwrap());
    assert!(share(0.95) <= 3 && last.quantile(0.5) <= 9.0 && last.quantile(0.95) <= 12.0);
}

/// What became of the healthy and of the ill while something was wrong.
fn judged(world: &World<GossipMember>, since: usize) -> (usize, usize) {
    let dead = || world.sightings()[since..].iter().filter(|seen| seen.state == Seen::Dead);
    let healthy = dead().filter(|seen| !ILL.contains(&seen.node) && !ILL.contains(&seen.by)).count();
    // One death is seen by many, within a few seconds.
    let ill: BTreeSet<_> = dead()
        .filter(|seen| ILL.contains(&seen.node) && !ILL.contains(&seen.by))
        .map(|seen| (seen.node, seen.at.as_millis() / 10_000))
        .collect();
    (healthy, ill.len())
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn ten_of_a_thousand_lose_four_fifths() {
    for (what, deaf) in [("receive", true), ("send", false)] {
        for seed in 0..2 {
            let mut world = settled(seed, 1000, secs(5));
            let seen = world.sightings().len();
            for node in ILL {
                if deaf { world.network.deafen(node, 0.8) } else { world.network.silence(node, 0.8) }
            }
            world.pass(secs(300));
            let (healthy, ill) = judged(&world, seen);
            println!(
                "10 of 1,000 lose 80 % of what they {what}: {healthy} healthy ones dead at healthy ones; ill ones went {ill} times"
            );
            assert_eq!(healthy, 0);
        }
    }
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn ten_of_a_thousand_cut_one_way() {
    for seed in 0..2 {
        let mut world = settled(seed, 1000, secs(5));
        let seen = world.sightings().len();
        for _ in 0..7 {
            ILL.for_each(|node| world.network.deafen(node, 1.0));
            world.pass(secs(20));
            ILL.for_each(|node| world.network.deafen(node, 0.0));
            world.pass(secs(20));
        }
        let (healthy, ill) = judged(&world, seen);
        println!(
            "10 of 1,000 hear nothing for 20 s of 40: {healthy} healthy ones dead at healthy ones; ill ones went {ill} times"
        );
        assert_eq!(healthy, 0);
    }
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn partitions() {
    let mut dead = 0;
    let healed: Vec<_> = (0..20)
        .map(|seed| {
            let mut world = settled(seed, 100, secs(3));
            (50..100).for_each(|node| world.network.part(node, 1));
            world.pass(secs(120));
            world.network.heal();
            let took = world.until(secs(60), World::is_one_view).unwrap_or(secs(60));
            // Nobody dies of it later.
            let seen = world.sightings().len();
            world.pass(secs(60));
            dead += world.sightings()[seen..].iter().filter(|seen| seen.state == Seen::Dead).count();
            took
        })
        .collect();
    let healed = Samples::of(healed);
    println!("50:50 partition of 2 min, 100 nodes, heals: {}; dead after it: {dead}", healed.shown());
    let two = (0..20).map(|seed| {
        let mut world = settled(seed, 2, secs(3));
        world.network.part(1, 1);
        world.pass(secs(30));
        world.network.heal();
        world.until(secs(60), World::is_one_view).unwrap_or(secs(60))
    });
    let two = Samples::of(two.collect());
    println!("two cut for 30 s and healed: {}", two.shown());
    let killed = (0..40).map(|seed| {
        let mut world = settled(seed, 2, secs(3));
        world.pass(Duration::from_millis(37 * seed));
        world.kill(1);
        world.until(secs(60), World::is_one_view).unwrap_or(secs(60))
    });
    let killed = Samples::of(killed.collect());
    println!("one of two killed: {}", killed.shown());
    assert!(healed.quantile(1.0) <= 10.0 && dead == 0 && two.quantile(1.0) <= 10.0 && killed.quantile(0.5) <= 6.0);
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn a_thousand_restarted() {
    for seed in 0..3 {
        let mut world = settled(seed, 1000, secs(3));
        for node in 0..1000 {
            world.kill(node);
            world.start(node, &[0, 1, 2]);
            world.pass(Duration::from_millis(10));
        }
        let took = world.until(secs(60), World::is_one_view);
        println!("1,000 restarted over 10 s: one view {took:?} after the last start");
        assert!(took.is_some_and(|took| took <= secs(20)));
    }
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn two_thousand_through_one_seed() {
    let mut world = world(1);
    world.start(0, &[0]);
    world.pass(secs(1));
    let (begun, mut peak, mut before) = (world.now(), 0, 0);
    for node in 1..2001 {
        world.start(node, &[0]);
        world.pass(Duration::from_micros(500));
    }
    let started = world.now();
    while !world.is_one_view() && world.now() < started + secs(60) {
        world.pass(Duration::from_millis(100));
        let traffic = world.counts().traffic[0];
        peak = peak.max(traffic - before);
        before = traffic;
    }
    println!(
        "2,000 through one seed over {:?}: one view {:?} after the last start; the seed at most {:.1} MB in 100 ms, {:.0} MB in all",
        started.since(begun),
        world.now().since(started),
        peak as f64 / 1e6,
        before as f64 / 1e6,
    );
    assert!(world.now().since(started) <= secs(15));
}

#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn dissemination() {
    for nodes in [10usize, 100, 1000] {
        let took = (0..20).map(|seed| {
            let mut world = settled(seed % 3, nodes, secs(15));
            world.pass(Duration::from_millis(37 * seed));
            let (at, seen) = (world.now(), world.sightings().len());
            world.leave(nodes / 2);
            let mut heard = BTreeSet::new();
            let mut last = at;
            while heard.len() + 1 < nodes && world.now() < at + secs(20) {
                world.pass(Duration::from_millis(5));
                for seen in &world.sightings()[seen..] {
                    if seen.node == nodes / 2 && seen.state == Seen::Left && heard.insert(seen.by) {
                        last = seen.at;
                    }
                }
            }
            last.since(at)
        });
        let took = Samples::of(took.collect());
        let rounds = took.quantile(0.5) / 0.2;
        let formula = (nodes as f64).ln() / 4f64.ln();
        println!(
            "a goodbye is heard by all of {nodes}: {}; {rounds:.1} rounds of gossip, and log4(n) is {formula:.1}",
            took.shown()
        );
    }
}

/// A goodbye among 10,000 by the rumours alone: whole members of so many do not fit into memory together.
#[test]
#[ignore = "takes minutes: run by hand, for the report"]
fn dissemination_by_the_rumours_alone() {
    use crate::backoff::Jitter;
    use crate::membership::rumours::{Class, Rumours, Subject, times};
    for nodes in [100usize, 1000, 10_000] {
        let rounds = (0..20).map(|seed| {
            let mut dice = Jitter::new(seed);
            let mut all = vec![Rumours::default(); nodes];
            let mut heard = vec![false; nodes];
            let hear = |rumours: &mut Rumours| {
                rumours.spread(Subject::Record(super::member::id(0)), Class::Fate, std::sync::Arc::from([0u8; 60]));
            };
            (heard[0], _) = (true, hear(&mut all[0]));
            let mut rounds = 0;
            while heard.contains(&false) && rounds < 100 {
                rounds += 1;
                let mut told = Vec::new();
                for rumours in all.iter_mut().filter(|rumours| !rumours.is_empty()) {
                    for _ in 0..3 {
                        let to = (dice.next() % nodes as u64) as usize;
                        told.extend(rumours.take(1400, times(nodes)).first().map(|_| to));
                    }
                }
                for to in told {
                    if !std::mem::replace(&mut heard[to], true) {
                        hear(&mut all[to]);
                    }
                }
            }
            Duration::from_secs(rounds)
        });
        let rounds = Samples::of(rounds.collect());
        let formula = (nodes as f64).ln() / 4f64.ln();
        println!(
            "rumours alone, {nodes} nodes: p50 {:.0} and worst {:.0} rounds until all have heard; log4(n) is {formula:.1}",
            rounds.quantile(0.5),
            rounds.quantile(1.0)
        );
        assert!(rounds.quantile(1.0) <= 3.0 * formula + 5.0);
    }
}
