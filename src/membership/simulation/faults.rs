//! Runs of small clusters in which everything goes wrong at random: what has to hold at every step, and in the end.
//!
//! `MEMBERSHIP_FIRST` and `MEMBERSHIP_SEEDS` say which seeds; each failure names its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::member::id;
use super::mixed::{GossipObserver, Mixed};
use super::{GossipMember, Seen, Start, World};
use crate::backoff::Jitter;
use crate::membership::machine::{Input, Order};
use crate::membership::record::{Record, State};
use crate::topology::ClusterNode;

/// How many seeds are run unless said otherwise.
const SEEDS: u64 = 60;
/// How long faults happen.
const FAULTS: Duration = Duration::from_secs(90);
/// The first so many nodes look on only.
const OBSERVERS: usize = 2;
/// By when all is well again after them: the longest quarantine, of somebody who came and went again and again, is over.
const HEALED: Duration = Duration::from_secs(720);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A cluster to which everything happens.
struct Run {
    dice: Jitter,
    world: World<Mixed>,
    nodes: usize,
    seeds: Vec<usize>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut dice = Jitter::new(seed ^ 0x5eed);
        let mut world = World::new(seed, |start| {
            // Some forget which life they had: whom they ask tells them.
            let life = if start.seed.is_multiple_of(4) { 1 } else { start.life };
            let start = Start { life, ..start.clone() };
            match start.node < OBSERVERS {
                true => Mixed::Observer(Box::new(GossipObserver::new(&start))),
                false => Mixed::Member(Box::new(GossipMember::lan(&start))),
            }
        });
        let members = 2 + (dice.next() % 12) as usize;
        let nodes = OBSERVERS + members;
        let seeds: Vec<usize> = (0..members.min(1 + (dice.next() % 3) as usize)).map(|seed| OBSERVERS + seed).collect();
        (0..nodes).for_each(|node| world.start(node, &seeds));
        Self { dice, world, nodes, seeds }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.dice.next() % bound as u64) as usize
    }

    fn node(&mut self) -> usize {
        self.below(self.nodes)
    }

    fn start(&mut self, node: usize) {
        self.world.start(node, &self.seeds);
        // Some have been upgraded already.
        if self.dice.next().is_multiple_of(3) {
            self.world.with(node, |node, _| node.member_mut().map(GossipMember::speak_later_version));
        }
    }

    /// Something goes wrong, or right again.
    fn fault(&mut self) {
        let node = self.node();
        match self.below(17) {
            0 => self.world.network.loss = [0.0, 0.05, 0.2, 0.4][self.below(4)],
            1 => self.world.network.doubled = [0.0, 0.3][self.below(2)],
            2 => self.world.network.delay.1 = Duration::from_millis([1, 30, 300][self.below(3)]),
            3 => {
                for node in 0..self.nodes {
                    if self.dice.next().is_multiple_of(2) {
                        self.world.network.part(node, 1);
                    }
                }
            }
            4 => self.world.network.heal(),
            5 => {
                let length = self.dice.scale(Duration::from_secs(20), 0.05);
                self.world.pause(node, length);
            }
            6 => self.world.kill(node),
            7 => self.world.leave(node),
            8 => {
                let other = self.node();
                self.world.network.cut(node, other);
            }
            9 => {
                let share = [0.5, 0.8, 1.0][self.below(3)];
                match self.below(2) {
                    0 => self.world.network.deafen(node, share),
                    _ => self.world.network.silence(node, share),
                }
            }
            10 => {
                let (about, length) = (self.node(), self.dice.scale(Duration::from_secs(60), 0.05));
                let order = [Order::Pin(Some(length)), Order::Lift, Order::Lift][self.below(3)];
                self.tell(node, Input::Rule { id: id(about), order });
            }
            11 => {
                let builder = ClusterNode::builder("of no account", "nowhere", 1);
                let described = builder.metadata("changed", self.below(1000).to_string()).build();
                self.tell(node, Input::Describe(Arc::new(described.expect("a node"))));
            }
            12 => {
                let times = self.below(5) as u32;
                self.world.with(node, |node, _| node.member_mut().map(|member| member.fail_to_apply(times)));
            }
            13 => {
                let by = self.dice.scale(Duration::from_secs(100), 0.01);
                self.world.jump(node, by);
            }
            _ => {
                if self.dice.next().is_multiple_of(2) {
                    self.world.kill(node);
                }
                if self.world.member(node).is_none() {
                    self.start(node);
                }
            }
        }
    }

    fn tell(&mut self, node: usize, input: Input) {
        self.world.with(node, |node, now| node.member_mut().map(|member| member.input(now, input)));
    }

    fn heal(&mut self) {
        self.world.network.heal();
        (self.world.network.loss, self.world.network.doubled) = (0.0, 0.0);
        self.world.network.delay.1 = Duration::from_millis(1);
        // A cluster of which no seed is left cannot be found again.
        for seed in self.seeds.clone() {
            if self.world.member(seed).is_none() {
                self.start(seed);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        self.world.failure().map_or(Ok(()), |why| Err(why.to_owned()))
    }

    /// What each of them holds.
    fn views(&self) -> String {
        let members =
            self.world.running().filter_map(|node| Some((node, self.world.member(node)?.member()?.machine())));
        let views = members.map(|(node, machine)| {
            let ids: Vec<_> = machine.members().iter().map(|node| node.id().to_string()).collect();
            format!("n{node} in version {} holds {ids:?}; {}", machine.own().version(), machine.standing())
        });
        views.collect::<Vec<_>>().join("\n")
    }
}

fn is_settled(world: &World<Mixed>) -> bool {
    let is_unsuspected = |record: &Record| !matches!(record.state(), State::Suspect(_));
    world.running().filter_map(|node| world.member(node)?.member()).all(|member| {
        let machine = member.machine();
        let is_applied = member.applied() == machine.members();
        is_applied && member.membership().converged().is_some() && machine.table().all().all(is_unsuspected)
    })
}

/// One run; what each event came to.
fn run(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut run = Run::new(seed);
    let end = run.world.now() + FAULTS;
    while run.world.now() < end {
        let length = run.dice.scale(Duration::from_secs(8), 0.05);
        run.world.pass(length);
        run.fault();
        run.check()?;
    }
    run.heal();
    // Whoever stands still comes round, and probes that were lost come to their end.
    run.world.pass(Duration::from_secs(40));
    // A seed may have been about to leave.
    run.heal();
    if run.world.until(HEALED, World::is_one_view).is_none() {
        return Err(format!("no one view:\n{}", run.views()));
    }
    run.world.until(Duration::from_secs(60), is_settled).ok_or("not everybody knows that all hold the same")?;
    // In peace nobody is suspected, and nothing is announced.
    let (seen, updates) = (run.world.sightings().len(), run.world.counts().events.get("topology").copied());
    run.world.pass(Duration::from_secs(60));
    run.check()?;
    if let Some(seen) = run.world.sightings()[seen..].iter().find(|seen| seen.state != Seen::Up) {
        return Err(format!("in peace {seen:?}"));
    }
    if run.world.counts().events.get("topology").copied() != updates {
        let members = run.world.running().filter_map(|node| Some((node, run.world.member(node)?.member()?)));
        let last = members.filter_map(|(node, member)| Some((node, member.updates().last()?)));
        return Err(format!("an update in peace: {:?}", last.max_by_key(|(_, update)| update.at)));
    }
    Ok(run.world.counts().events.clone())
}

/// What has to be reached, so that the runs prove something.
const REACHED: [&str; 23] = [
    "-> joining",
    "new -> up",
    "joining -> up",
    "up -> suspect",
    "suspect -> up",
    "suspect -> dead",
    "dead -> up",
    "-> left",
    "isolated",
    "given up",
    "reached",
    "expelled",
    "refused",
    "stood still",
    "quarantined",
    "succeeded",
    "turned away",
    "ruled",
    "could not apply",
    "not applied",
    "observer follows",
    "observer leaves",
    "observer updates",
];

#[test]
fn m1_4_m2_4_m4_1_m4_2_whatever_goes_wrong_updates_are_whole_and_in_the_end_there_is_one_view() {
    let (first, seeds) = (number("MEMBERSHIP_FIRST", 0), number("MEMBERSHIP_SEEDS", SEEDS));
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        match run(seed) {
            Ok(events) => events.into_iter().for_each(|(name, count)| *counts.entry(name).or_default() += count),
            Err(why) => failed.push(format!("seed {seed}: {why}")),
        }
    }
    println!("{seeds} runs from {first}: {counts:?}");
    let shown = failed.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{} of {seeds} runs failed, and the first of them:\n{shown}", failed.len());
    for reached in REACHED {
        assert!(counts.contains_key(reached) || seeds < SEEDS, "{reached} was never reached");
    }
}
