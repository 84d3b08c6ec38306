//! One node changes: told as a whole snapshot of 100,000, and told as a change, at 1,000 and 100,000 nodes.
//!
//! Driven through the hub's own rules and deliveries without threads; the recording bridges copy every delivery, which
//! is counted in. Allocations are counted by the process's allocator.

mod support;

use std::time::Duration;

use cluster_provisioning::MemberChange;
use cluster_provisioning::testkit::{Harness, HarnessProvider, HarnessSettings};
use support::counting::Counting;
use support::puppet::{change, snapshot};
use support::{Samples, Sequence, Table, Target, gather, hash_pass, node, node_of, nodes, time};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

const LARGE: usize = 100_000;

fn main() {
    as_snapshot();
    as_changes();
}

/// A hub that shows so many nodes, and coalesces nothing.
fn hub(size: usize) -> Harness {
    let mut settings = HarnessSettings::default();
    settings.coalesce = Duration::ZERO;
    let mut hub = Harness::with(settings, [HarnessProvider::new("a", 1)]);
    hub.show("a", (0..size).map(node).collect());
    forget(&mut hub);
    hub
}

fn forget(hub: &mut Harness) {
    drop((hub.take(), hub.recorder().take()));
}

fn as_snapshot() {
    let mut hub = hub(LARGE);
    let mut places = Sequence(1);
    let none = Samples::default;
    let (mut whole, mut floor, mut make, mut handle) = (none(), none(), none(), none());
    let mut allocations = Vec::new();
    for round in 0..31u64 {
        let mut decoded = nodes(LARGE);
        let place = places.below(LARGE);
        decoded[place] = node_of(place, 2 + round).into();
        let before = (round % 2 == 0).then(|| time(|| hash_pass(&decoded)).0);
        let (copying, sorted) = time(|| std::hint::black_box(&decoded).clone());
        let allocated = ALLOCATOR.allocations();
        let (gathering, builder) = time(|| gather(sorted));
        let (making, (members, _)) = time(|| builder.build());
        let event = snapshot(members);
        let (handling, ()) = time(|| hub.event("a", event));
        allocations.push(ALLOCATOR.allocations() - allocated);
        whole.push(gathering + making + handling);
        make.push(making);
        handle.push(handling);
        let passing = before.unwrap_or_else(|| time(|| hash_pass(&decoded)).0);
        floor.push(passing + copying);
        forget(&mut hub);
    }
    allocations.sort_unstable();
    let mut table = Table::new("One node changes, as a whole snapshot of 100,000", "p50", "pass + copy");
    table.pairs("hash pass, set and delivery", &whole, &floor, Target::Times(3.0));
    table.pairs("of that making the set", &make, &floor, Target::None);
    table.pairs("of that the hub", &handle, &floor, Target::None);
    let each = allocations[allocations.len() / 2] as f64;
    table.limit("allocations for each node", each / LARGE as f64, "", Some(0.5));
}

fn as_changes() {
    const ROUNDS: usize = 40;
    const BATCH: usize = 250;
    let sizes = [1_000, 10_000, LARGE];
    let mut hubs: Vec<Harness> = sizes.into_iter().map(hub).collect();
    let mut samples = vec![Samples::default(); sizes.len()];
    let mut allocations = vec![0; sizes.len()];
    let mut places = Sequence(2);
    for round in 0..ROUNDS {
        for ((hub, size), (samples, allocations)) in
            hubs.iter_mut().zip(sizes).zip(samples.iter_mut().zip(&mut allocations))
        {
            for _ in 0..BATCH {
                let place = places.below(size);
                let event = change(MemberChange::Upsert(node_of(place, 2 + round as u64).into()));
                let before = ALLOCATOR.allocations();
                samples.push(time(|| hub.event("a", event)).0);
                *allocations += ALLOCATOR.allocations() - before;
            }
            forget(hub);
        }
    }
    let floor = samples[0].median();
    let mut table = Table::new("One node changes, as Changes, anywhere in the set", "p50", "at 1,000");
    for ((size, samples), allocations) in sizes.iter().zip(&samples).zip(&allocations) {
        let target = if *size == LARGE { Target::Times(2.0) } else { Target::None };
        table.row(&format!("{size} nodes"), samples.median(), floor, target);
        table.limit("  allocations for each change", *allocations as f64 / (ROUNDS * BATCH) as f64, "", None);
    }
}
