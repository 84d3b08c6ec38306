//! What has to hold in whole clusters.

use std::time::Duration;

use super::member::id;
use super::{GossipMember, Seen, Start, World};
use crate::membership::record::State;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A world of the library's own members.
pub(super) fn world(seed: u64) -> World<GossipMember> {
    World::new(seed, GossipMember::lan)
}

/// Whether the node counts as dead at that other.
pub(super) fn is_dead_at(world: &World<GossipMember>, node: usize, other: usize) -> bool {
    let record = world.member(other).and_then(|member| member.machine().table().get(&id(node)));
    record.is_some_and(|record| matches!(record.state(), State::Dead { .. }))
}

/// So many nodes that start within a second, with the first three as seeds.
pub(super) fn cluster(seed: u64, nodes: usize) -> World<GossipMember> {
    let mut world = world(seed);
    let seeds: Vec<usize> = (0..nodes.min(3)).collect();
    for node in 0..nodes {
        world.start(node, &seeds);
    }
    world
}

#[test]
fn m1_4_m2_2_nodes_that_join_by_seeds_reach_one_view() {
    for seed in 0..5 {
        let mut world = cluster(seed, 30);
        let took = world.until(secs(10), World::is_one_view);
        assert!(took.is_some(), "seed {seed}: {:?}", world.counts().events);
    }
}

#[test]
fn m3_1_m2_4_whoever_is_killed_dies_everywhere_and_nobody_else_does() {
    for seed in 0..5 {
        let mut world = cluster(seed, 20);
        world.until(secs(10), World::is_one_view).unwrap();
        world.kill(7);
        let took = world.until(secs(20), World::is_one_view);
        assert!(took.is_some(), "seed {seed}: {:?}", world.counts().events);
        assert!(world.running().all(|other| is_dead_at(&world, 7, other)));
    }
}

#[test]
fn m2_4_a_node_that_nobody_hears_for_a_while_removes_nobody_from_the_others() {
    const ILL: usize = 5;
    let mut found_dead = 0;
    for seed in 0..10 {
        let mut world = cluster(seed, 20);
        world.until(secs(10), World::is_one_view).unwrap();
        let since = world.sightings().len();
        // It hears everybody, so that it is not isolated, and none of its accusations is contradicted.
        world.network.silence(ILL, 1.0);
        world.pass(secs(60));
        world.network.heal();
        world.until(secs(60), World::is_one_view).unwrap_or_else(|| panic!("seed {seed}: no view"));
        let dead = || world.sightings()[since..].iter().filter(|seen| seen.state == Seen::Dead && seen.node != ILL);
        found_dead += dead().filter(|seen| seen.by == ILL).count();
        assert!(dead().all(|seen| seen.by == ILL), "seed {seed}: {:?}", dead().find(|seen| seen.by != ILL));
    }
    assert!(found_dead > 15, "it found {found_dead} dead for itself");
}

#[test]
fn m2_4_whoever_leaves_is_gone_within_two_seconds_and_is_not_quarantined() {
    let mut world = cluster(1, 20);
    world.until(secs(10), World::is_one_view).unwrap();
    world.leave(7);
    world.until(secs(2), World::is_one_view).expect("gone everywhere");
    assert!(!world.running().any(|other| is_dead_at(&world, 7, other)));
    world.start(7, &[0, 1, 2]);
    world.until(secs(3), World::is_one_view).expect("back in another life");
}

#[test]
fn m3_4_a_partition_heals_and_nobody_who_lived_through_it_stays_dead() {
    let mut world = cluster(2, 20);
    world.until(secs(10), World::is_one_view).unwrap();
    (10..20).for_each(|node| world.network.part(node, 1));
    world.pass(secs(120));
    assert_eq!(world.member(0).unwrap().machine().members().len(), 10);
    world.network.heal();
    let took = world.until(secs(30), World::is_one_view);
    assert!(took.is_some_and(|took| took <= secs(10)), "{took:?} {:?}", world.counts().events);
}

#[test]
fn m1_1_m2_4_each_profile_finds_its_members_and_its_dead() {
    let far = Duration::from_millis(150);
    type Profile = fn(&Start) -> GossipMember;
    let profiles: [(Profile, Duration, u64); 3] = [
        (GossipMember::local, Duration::from_millis(1), 5),
        (GossipMember::lan, Duration::from_millis(2), 9),
        (GossipMember::wan, far, 50),
    ];
    for (profile, delay, dead_after) in profiles {
        let mut world = World::new(3, profile);
        world.network.delay.1 = delay;
        (0..20).for_each(|node| world.start(node, &[0, 1, 2]));
        assert!(world.until(secs(10), World::is_one_view).is_some());
        world.pass(secs(30));
        assert_eq!(world.counts().events.get("up -> suspect"), None, "in peace");
        world.kill(7);
        let took = world.until(secs(dead_after), World::is_one_view);
        assert!(took.is_some(), "{dead_after} s: {:?}", world.counts().events);
        assert_eq!(world.failure(), None);
    }
}

#[test]
fn m1_3_a_node_that_was_never_started_can_be_killed_paused_and_told_to_leave() {
    let mut world = cluster(1, 2);
    for node in [2, usize::MAX] {
        world.kill(node);
        world.leave(node);
        world.pause(node, secs(1));
        world.jump(node, secs(1));
        assert!(world.with(node, |_, _| ()).is_none() && world.member(node).is_none() && world.life(node).is_none());
    }
    assert!(world.until(secs(5), World::is_one_view).is_some());
}
