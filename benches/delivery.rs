//! From the moment at which a provider's stream returns an event to the end of the last bridge's callback: 10 nodes, one
//! joins or leaves. Beside it a plain hop: one thread sends, another is blocked in `recv`.

mod support;

use std::time::Duration;

use cluster_provisioning::{MemberChange, Members};
use support::puppet::{self, Theatre, hops};
use support::{Samples, Table, Target, node};

const NODES: usize = 10;
const IDLE: Duration = Duration::from_millis(5);

fn main() {
    let members: Members = (0..NODES).map(node).collect();
    let theatre = Theatre::new(&[members]);
    let puppet = &theatre.puppets[0];
    let mut present = true;
    // The last of the ten leaves and comes back in turn, also from one batch to the next.
    let mut one_change = move || {
        present = !present;
        let joining = node(NODES - 1);
        puppet::change(match present {
            true => MemberChange::Upsert(joining.into()),
            false => MemberChange::Remove(joining.id().clone()),
        })
    };
    let (mut hot, mut hot_hop) = (Samples::default(), Samples::default());
    for _ in 0..20 {
        hot_hop.extend(hops(2_001, Duration::ZERO));
        hot.extend(puppet.run(2_001, Duration::ZERO, one_change));
    }
    let (mut idle, mut idle_hop) = (Samples::default(), Samples::default());
    for _ in 0..10 {
        idle_hop.extend(hops(51, IDLE));
        idle.extend(puppet.run(51, IDLE, one_change));
    }
    // Even batches leave the node as it was.
    _ = one_change();

    let mut table = Table::new("Event to last callback, 10 nodes, one change", "event", "hop");
    table.row("back to back, p50", hot.median(), hot_hop.median(), Target::Times(5.0));
    table.row("back to back, p99", hot.quantile(0.99), hot_hop.quantile(0.99), Target::None);
    let above = Target::Above(Duration::from_micros(10));
    table.row("after 5 ms of peace on both sides, p50", idle.median(), idle_hop.median(), above);
    table.row("after 5 ms of peace on both sides, p99", idle.quantile(0.99), idle_hop.quantile(0.99), Target::None);
}
