//! An unchanged refresh: the backend answers the whole set again, nothing has changed, and nobody is told.
//!
//! What the provider and the hub do about it is one pass of the node hash (each decoded node gets its hash, and is added
//! to the set), the set made of them, and the hub's comparison. Floor: that one pass alone, over the same nodes. Decoding and sorting
//! are the provider's, and letting go of the discarded nodes is whoever's who allocated them: reported apart.

mod support;

use std::sync::Arc;

use cluster_provisioning::testkit::Harness;
use support::{Samples, Table, Target, gather, hash_pass, node, nodes, time};

fn main() {
    let mut table = Table::new("Unchanged refresh of a full, sorted snapshot", "refresh, p50", "hash pass");
    let mut apart = Table::new("Apart from it", "p50", "hash pass");
    for (size, rounds) in [(1_000, 401), (10_000, 101), (100_000, 31)] {
        let mut hub = Harness::new(&[("a", 1)]);
        hub.show("a", (0..size).map(node).collect());
        drop((hub.take(), hub.recorder().take()));
        let none = Samples::default;
        let (mut refresh, mut pass, mut sort, mut build, mut discard) = (none(), none(), none(), none(), none());
        let (mut make, mut handle) = (none(), none());
        for round in 0..rounds {
            let (building, decoded) = time(|| nodes(size));
            build.push(building);
            // Both sides find the nodes as the decoder left them, the one first or the other.
            let passing = |pass: &mut Samples| pass.push(time(|| hash_pass(&decoded)).0);
            if round % 2 == 0 {
                passing(&mut pass);
            }
            let listed = decoded.clone();
            let (gathering, builder) = time(|| gather(listed));
            let (making, (members, _)) = time(|| builder.build());
            let kept = members.clone();
            let (handling, ()) = time(|| hub.show("a", members));
            refresh.push(gathering + making + handling);
            make.push(making);
            handle.push(handling);
            if round % 2 == 1 {
                passing(&mut pass);
            }
            let mut shuffled: Vec<_> = decoded.iter().map(Arc::clone).collect();
            shuffled.reverse();
            let third = shuffled.len() / 3;
            shuffled.rotate_left(third);
            sort.push(time(|| shuffled.sort_by(|a, b| a.id().cmp(b.id()))).0);
            drop(shuffled);
            drop(kept);
            discard.push(time(|| drop(decoded)).0);
            assert!(hub.take().is_empty(), "an unchanged refresh is not delivered");
        }
        assert_eq!(hub.metrics().deduplicated, rounds as u64);
        table.pairs(&format!("{size} nodes"), &refresh, &pass, Target::Times(1.5));
        apart.pairs(&format!("{size} nodes: making the set"), &make, &pass, Target::None);
        apart.pairs(&format!("{size} nodes: the hub"), &handle, &pass, Target::None);
        apart.pairs(&format!("{size} nodes: building them"), &build, &pass, Target::None);
        apart.pairs(&format!("{size} nodes: sorting two sorted runs"), &sort, &pass, Target::None);
        apart.pairs(&format!("{size} nodes: letting go of them"), &discard, &pass, Target::None);
    }
    drop(table);
}
