//! What a cluster of 100,000 nodes takes in memory, by an allocator that counts: the nodes, each set of them beyond that,
//! and what a standby adds that shows the same cluster.

mod support;

use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::testkit::{Harness, HarnessProvider, HarnessSettings};
use cluster_provisioning::{MemberChange, Members};
use support::counting::Counting;
use support::puppet::change;
use support::{Sequence, Table, node, node_of, nodes};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

const NODES: usize = 100_000;

/// How many bytes more are allocated after the work than before, for each node.
fn grown<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let before = ALLOCATOR.bytes() as f64;
    let made = work();
    ((ALLOCATOR.bytes() as f64 - before) / NODES as f64, made)
}

fn decoded() -> Members {
    (0..NODES).map(node).collect()
}

fn main() {
    let mut table = Table::of_limits("Memory at 100,000 nodes, in bytes for each node");
    let unit = "B/node";
    let (alone, held) = grown(|| nodes(NODES));
    table.limit("a node itself, with its pointer in an array", alone, unit, None);
    let copy: Vec<_> = held.iter().map(Arc::clone).collect();
    let (set, members) = grown(|| {
        let (members, dropped) = Members::from_nodes(copy);
        assert_eq!(dropped, 0);
        members
    });
    // The array that it was made of is gone: what is left is the set alone.
    let set = set + size_of::<usize>() as f64;
    table.limit("a set beyond its nodes, made at once", set, unit, Some(64.0));
    drop((held, members));

    let mut settings = HarnessSettings::default();
    settings.coalesce = Duration::ZERO;
    let mut hub = Harness::with(settings, [HarnessProvider::new("a", 2), HarnessProvider::new("b", 1)]);
    let forget = |hub: &mut Harness| drop((hub.take(), hub.recorder().take()));
    let (first, ()) = grown(|| {
        hub.show("a", decoded());
        forget(&mut hub);
    });
    let beyond = first - (alone - size_of::<usize>() as f64);
    table.limit("the hub with one provider, beyond the nodes", beyond, unit, Some(64.0));
    let (second, ()) = grown(|| {
        hub.show("b", decoded());
        forget(&mut hub);
    });
    table.limit("a standby that decoded the same nodes for itself", second, unit, Some(64.0));
    let (apart, ()) = grown(|| {
        let differing = (0..NODES).map(|number| node_of(number, if number % 1_000 == 0 { 2 } else { 1 })).collect();
        hub.show("b", differing);
        forget(&mut hub);
    });
    let theirs = alone / 1_000.0;
    table.limit("the same, where every thousandth node differs", second + apart - theirs, unit, Some(64.0));

    let (delivered, kept) = grown(|| {
        hub.event("a", change(MemberChange::Upsert(node_of(7, 3).into())));
        let kept = hub.snapshot();
        forget(&mut hub);
        kept
    });
    table.limit("one delivery more, one node changed", delivered, unit, Some(64.0));
    drop(kept);
    let mut places = Sequence(3);
    let (worn, ()) = grown(|| {
        for round in 0..20_000 {
            let number = places.below(NODES);
            let gone = MemberChange::Remove(node(number).id().clone());
            hub.event("a", change(gone));
            hub.event("a", change(MemberChange::Upsert(node_of(number, 10 + round).into())));
            forget(&mut hub);
        }
    });
    table.limit("after 40,000 single changes, two sets apart", beyond + second + apart + worn, unit, None);
    let before = ALLOCATOR.bytes() as f64;
    drop(hub);
    table.limit(
        "all that the hub held, nodes included",
        (before - ALLOCATOR.bytes() as f64) / NODES as f64,
        unit,
        None,
    );
}
