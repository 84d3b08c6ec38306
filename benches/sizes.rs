//! How deliveries grow with the cluster: from the moment at which a provider's stream returns an event to the end of the
//! last bridge's callback, for one node that joins or leaves, and for a failover to a provider that shows one node more
//! or less.

mod support;

use std::time::Duration;

use cluster_provisioning::{MemberChange, Members, ProviderEvent, ProviderTermination};
use support::puppet::{self, Theatre};
use support::{Samples, Sequence, Table, Target, hash_pass, id, node, nodes, time};

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const ROUNDS: usize = 7;

/// The figures of one size.
struct Figures {
    size: usize,
    theatre: Theatre,
    changes: Samples,
    snapshot: Samples,
    /// Of a whole snapshot, from rest.
    delivery: Samples,
    failover: Samples,
    pass: Samples,
    copy: Samples,
}

fn main() {
    let mut all: Vec<Figures> = SIZES.into_iter().map(Figures::new).collect();
    // All sizes in turn, so that what else the machine does falls on each of them.
    for _ in 0..ROUNDS {
        for figures in &mut all {
            figures.measure();
        }
    }
    let one_thousand = all.iter().find(|figures| figures.size == 1_000).map(|figures| figures.changes.median());
    let mut table = Table::new("One node joins or leaves, as Changes", "event, p50", "at 1,000");
    for figures in &all {
        let target = if figures.size > 1_000 { Target::Times(2.0) } else { Target::None };
        let floor = one_thousand.unwrap_or_default();
        table.row(&format!("{} nodes", figures.size), figures.changes.median(), floor, target);
    }
    drop(table);
    let mut table = Table::new("The same, as a whole Snapshot decoded anew", "event, p50", "pass + copy");
    for figures in &all {
        let floor = figures.pass.median() + figures.copy.median();
        table.row(&format!("{} nodes", figures.size), figures.snapshot.median(), floor, Target::None);
    }
    table.note("pass: one of the documented hash over the nodes; copy: one of the array of pointers to them");
    drop(table);
    let mut table = Table::new("Failover: the active one's stream ends", "switch, p50", "delivery");
    for figures in &all {
        let target = if figures.size == 100_000 { Target::Times(2.0) } else { Target::None };
        table.pairs(&format!("{} nodes", figures.size), &figures.failover, &figures.delivery, target);
    }
    table.note("delivery: of the same set less a node, as a whole Snapshot of the provider followed; both from rest");
}

impl Figures {
    fn new(size: usize) -> Self {
        let full: Members = (0..size).map(node).collect();
        // The standby lacks one node, and has decoded the others for itself.
        let standby: Members = (1..size).map(node).collect();
        let none = Samples::default;
        Self {
            size,
            theatre: Theatre::new(&[full, standby]),
            changes: none(),
            snapshot: none(),
            delivery: none(),
            failover: none(),
            pass: none(),
            copy: none(),
        }
    }

    fn measure(&mut self) {
        let size = self.size;
        let fresh = nodes(size);
        for _ in 0..3 {
            self.pass.push(time(|| hash_pass(&fresh)).0);
            let (copy, copied) = time(|| std::hint::black_box(&fresh).clone());
            self.copy.push(copy);
            drop(copied);
        }
        drop(fresh);

        let active = &self.theatre.puppets[self.theatre.active()];
        let mut places = Sequence(self.changes.0.len() as u64);
        let mut gone: Option<usize> = None;
        let one_change = move || {
            puppet::change(match gone.take() {
                Some(number) => MemberChange::Upsert(node(number).into()),
                None => {
                    let number = 1 + places.below(size - 1);
                    gone = Some(number);
                    MemberChange::Remove(id(number))
                }
            })
        };
        self.changes.extend(active.run(501, Duration::ZERO, one_change));

        // With the last node and without it.
        let mut whole = true;
        let first = usize::from(self.theatre.active() == 1);
        let whole_set = move || {
            whole = !whole;
            puppet::snapshot((first..if whole { size } else { size - 1 }).map(node).collect())
        };
        self.snapshot.extend(active.run(if size < 10_000 { 51 } else { 7 }, Duration::ZERO, whole_set));

        // Both from rest, in turn.
        for _ in 0..if size < 10_000 { 10 } else { 3 } {
            let active = self.rested();
            let (first, last) = if self.theatre.active() == 1 { (1, size) } else { (0, size) };
            let event = puppet::snapshot((first..last - 1).map(node).collect());
            self.delivery.push(active.once(event));
            // The missing node comes back, and is not measured.
            _ = self.rested().once(puppet::change(MemberChange::Upsert(node(last - 1).into())));
            let end = ProviderEvent::Terminated(ProviderTermination::Ended);
            self.failover.push(self.rested().once(end));
        }
        _ = self.rested();
    }

    /// The provider followed, once all is quiet: the one that ended has come back as standby.
    fn rested(&self) -> std::sync::Arc<puppet::Puppet> {
        std::thread::sleep(Duration::from_millis(5));
        self.theatre.settle();
        std::sync::Arc::clone(&self.theatre.puppets[self.theatre.active()])
    }
}
