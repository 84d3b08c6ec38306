//! Runs of small clusters in which everything goes wrong at random: what has to hold at every step, and in the end.
//!
//! `MEMBERSHIP_FIRST` and `MEMBERSHIP_SEEDS` say which seeds; each failure names its own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::World;
use crate::backoff::Jitter;
use crate::membership::event::MemberState;
use crate::membership::settling::TopologyUpdate;

/// How many seeds are run unless said otherwise.
const SEEDS: u64 = 60;
/// How long faults happen.
const FAULTS: Duration = Duration::from_secs(90);
/// By when all is well again after them: the longest quarantine, of somebody who came and went again and again, is over.
const HEALED: Duration = Duration::from_secs(720);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What is wrong with the updates of one member, if anything.
fn checked(updates: &[TopologyUpdate]) -> Result<(), String> {
    let mut members = crate::topology::Members::new();
    for (place, update) in updates.iter().enumerate() {
        if update.number != place as u64 + 1 {
            return Err(format!("update {} is the {}th", update.number, place + 1));
        }
        if let Some(before) = place.checked_sub(1).and_then(|before| updates.get(before))
            && update.at.since(before.at) < Duration::from_millis(200)
        {
            return Err(format!("update {} came too soon", update.number));
        }
        for node in update.left.iter().chain(&update.dead) {
            if members.remove(node.id()).is_none() {
                return Err(format!("{} is gone and was never there", node.id()));
            }
        }
        for node in &update.joined {
            if members.insert(std::sync::Arc::clone(node)).is_some() {
                return Err(format!("{} came and was there", node.id()));
            }
        }
        for node in &update.updated {
            members.insert(std::sync::Arc::clone(node));
        }
        if members != update.members {
            return Err(format!("the changes of update {} do not lead to its members", update.number));
        }
        if update.joined.is_empty() && update.updated.is_empty() && update.left.is_empty() && update.dead.is_empty() {
            return Err(format!("update {} says nothing", update.number));
        }
    }
    Ok(())
}

/// One run; what each event came to.
fn run(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut dice = Jitter::new(seed ^ 0x5eed);
    let mut world = World::new(seed);
    let nodes = 2 + (dice.next() % 12) as usize;
    let seeds: Vec<usize> = (0..nodes.min(1 + (dice.next() % 3) as usize)).collect();
    (0..nodes).for_each(|node| world.start(node, &seeds));
    let end = world.now + FAULTS;
    while world.now < end {
        world.pass(dice.scale(Duration::from_secs(8), 0.05));
        let node = (dice.next() % nodes as u64) as usize;
        match dice.next() % 10 {
            0 => world.network.loss = [0.0, 0.05, 0.2, 0.4][(dice.next() % 4) as usize],
            1 => world.network.doubled = [0.0, 0.3][(dice.next() % 2) as usize],
            2 => world.network.delay.1 = Duration::from_millis([1, 30, 300][(dice.next() % 3) as usize]),
            3 => (0..nodes)
                .filter(|_| dice.next().is_multiple_of(2))
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|node| world.network.part(node, 1)),
            4 => world.network.heal(),
            5 => world.pause(node, dice.scale(Duration::from_secs(20), 0.05)),
            6 => world.kill(node),
            7 => world.leave(node),
            _ => {
                if dice.next().is_multiple_of(2) {
                    world.kill(node);
                }
                if world.machine(node).is_none() {
                    world.start(node, &seeds);
                }
            }
        }
        for node in 0..nodes {
            checked(world.updates(node)).map_err(|why| format!("n{node}: {why}"))?;
        }
    }
    world.network.heal();
    (world.network.loss, world.network.doubled) = (0.0, 0.0);
    world.network.delay.1 = Duration::from_millis(1);
    // A cluster of which no seed is left cannot be found again.
    seeds.iter().for_each(|node| {
        if world.machine(*node).is_none() {
            world.start(*node, &seeds);
        }
    });
    // Whoever stands still comes round, and probes that were lost come to their end.
    world.pass(Duration::from_secs(40));
    if world.until(HEALED, World::is_one_view).is_none() {
        let views: Vec<_> = world
            .running()
            .map(|node| {
                (
                    node,
                    world.machine(node).map(|machine| {
                        (
                            machine.standing(),
                            machine.own().version(),
                            machine.members().iter().map(|node| node.id().to_string()).collect::<Vec<_>>(),
                        )
                    }),
                )
            })
            .collect();
        return Err(format!("no one view: {views:?}"));
    }
    world
        .until(Duration::from_secs(60), |world| {
            world.running().all(|node| {
                let is_up = |record: &crate::membership::record::Record| {
                    !matches!(record.state(), crate::membership::record::State::Suspect(_))
                };
                world
                    .machine(node)
                    .is_some_and(|machine| machine.converged().is_some() && machine.table().all().all(is_up))
            })
        })
        .ok_or("not everybody knows that all hold the same")?;
    // In peace nobody is suspected, and nothing is announced.
    let (seen, updates) = (world.seen.len(), world.counts.events.get("topology").copied());
    world.pass(Duration::from_secs(60));
    if let Some(seen) = world.seen[seen..].iter().find(|seen| seen.to != MemberState::Up) {
        return Err(format!("in peace {seen:?}"));
    }
    if world.counts.events.get("topology").copied() != updates {
        return Err("an update in peace".to_owned());
    }
    Ok(world.counts.events)
}

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
    assert!(failed.is_empty(), "{} of {seeds} runs failed:\n{}", failed.len(), failed.join("\n"));
    for reached in [
        "-> joining",
        "new -> up",
        "up -> suspect",
        "suspect -> up",
        "suspect -> dead",
        "dead -> up",
        "-> left",
        "isolated",
        "reached",
        "expelled",
        "refused",
        "stood still",
        "quarantined",
    ] {
        assert!(counts.contains_key(reached) || seeds < SEEDS, "{reached} was never reached");
    }
}
