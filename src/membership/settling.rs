//! When what the records say becomes a topology update.
//!
//! Records and rumours change at once. The topology changes at most every 200 ms, so that what happens together arrives
//! together, and a lone change goes out at once. A death waits a moment longer while other suspicions are about to be
//! settled: ten nodes that fail together are one update, not ten. Who came and went in between was never announced, and is
//! not announced as gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::topology::{ClusterNode, Members, NodeId, TopologyDiff};

/// The least time between two updates.
const PERIOD: Duration = Duration::from_millis(200);
/// For how long deaths are gathered at most, from when the first of them became known here: the time in which the suspicions of one
/// outage end, since those who accuse hear of each other within a few rounds of gossip.
const GATHERING: Duration = Duration::from_secs(2);

/// What deaths have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing.
    Nothing,
    /// Other suspicions that several accusers share.
    ForOthers,
    /// This node hears from nobody, and blames nobody for it.
    Isolated,
}

/// Why somebody is no member any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// By its own word.
    Left,
    /// It did not contradict in time.
    Dead,
}

/// A change of the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopologyUpdate {
    /// Counts the updates of this node, from 1.
    pub(crate) number: u64,
    pub(crate) at: Timestamp,
    /// Who came, also in another life.
    pub(crate) joined: Vec<Arc<ClusterNode>>,
    /// Whose kinds or metadata have changed.
    pub(crate) updated: Vec<Arc<ClusterNode>>,
    /// Who left by its own word, or came back in another life.
    pub(crate) left: Vec<Arc<ClusterNode>>,
    /// Who died.
    pub(crate) dead: Vec<Arc<ClusterNode>>,
    /// The members now.
    pub(crate) members: Members,
}

impl TopologyUpdate {
    /// The update that leads from the members before to those now, of whom these have died; `None` if nothing has changed.
    pub(super) fn between(
        (number, at): (u64, Timestamp),
        before: &Members,
        members: Members,
        has_died: impl Fn(&NodeId) -> bool,
    ) -> Option<Self> {
        let diff = TopologyDiff::between(before, &members);
        if diff.is_empty() {
            return None;
        }
        // Whoever came back in another life has not died.
        let is_dead = |node: &Arc<ClusterNode>| has_died(node.id()) && !members.contains(node.id());
        let (dead, left) = diff.left().iter().cloned().partition(is_dead);
        let (joined, updated) = (diff.joined().to_vec(), diff.updated().to_vec());
        Some(Self { number, at, joined, updated, left, dead, members })
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Settling {
    announced: Members,
    active: Members,
    /// Why and since when those of the announced who are gone have been so.
    departed: BTreeMap<NodeId, (Departure, Timestamp)>,
    number: u64,
    last_at: Option<Timestamp>,
}

impl Settling {
    /// The members as they were announced last.
    pub(super) fn announced(&self) -> &Members {
        &self.announced
    }

    /// Whether what is announced is what is so.
    pub(super) fn is_settled(&self) -> bool {
        self.departed.is_empty() && self.active.is_same(&self.announced)
    }

    /// The node is an active member, as it is.
    pub(super) fn is_active(&mut self, node: Arc<ClusterNode>) {
        self.departed.remove(node.id());
        // An equal one stays as it is, so that what is announced and what is active go on sharing it.
        self.active.insert(node);
    }

    /// The node is none any more.
    pub(super) fn departs(&mut self, node: &NodeId, departure: Departure, now: Timestamp) {
        if self.active.remove(node).is_none() {
            // Dead first, and then it said that it had left: nothing has to be waited for.
            if let Some((known, _)) = self.departed.get_mut(node).filter(|_| departure == Departure::Left) {
                *known = departure;
            }
            return;
        }
        if self.announced.contains(node) {
            self.departed.insert(node.clone(), (departure, now));
        }
    }

    /// The update that is due, if there is one.
    pub(super) fn settle(&mut self, waiting: Waiting, now: Timestamp) -> Option<TopologyUpdate> {
        if self.last_at.is_some_and(|last| now < last + PERIOD) {
            return None;
        }
        let members = self.due(waiting, now);
        let has_died = |id: &NodeId| matches!(self.departed.get(id), Some((Departure::Dead, _)));
        let update = TopologyUpdate::between((self.number + 1, now), &self.announced, members, has_died)?;
        for node in update.left.iter().chain(&update.dead) {
            self.departed.remove(node.id());
        }
        self.number = update.number;
        self.last_at = Some(now);
        self.announced = update.members.clone();
        debug_assert!(self.departed.keys().all(|node| self.announced.contains(node)));
        Some(update)
    }

    /// When to ask again, if what is known by now does not change.
    pub(super) fn next_at(&self, waiting: Waiting, now: Timestamp) -> Option<Timestamp> {
        if self.is_settled() {
            return None;
        }
        let period_ends = self.last_at.map_or(now, |last| last + PERIOD);
        let gathered = self.departed.values().filter(|(departure, _)| *departure == Departure::Dead);
        let gathered = gathered.map(|(_, since)| *since + GATHERING).filter(|at| *at > now).min();
        if self.due(waiting, now) != self.announced {
            return Some(period_ends.max(now));
        }
        gathered.filter(|_| waiting == Waiting::ForOthers).map(|at| at.max(period_ends))
    }

    /// The members as they may be announced: those who are active, and the dead who have to wait.
    fn due(&self, waiting: Waiting, now: Timestamp) -> Members {
        let mut members = self.active.clone();
        let mut dead = self.departed.values().filter(|(departure, _)| *departure == Departure::Dead);
        // When the first of them has waited for long enough all go: those who came later belong to it.
        let gathers = match waiting {
            Waiting::Nothing => false,
            Waiting::ForOthers => dead.all(|(_, since)| now < *since + GATHERING),
            Waiting::Isolated => true,
        };
        for (id, (departure, _)) in &self.departed {
            let waits = gathers && *departure == Departure::Dead;
            if let Some(node) = self.announced.get(id).filter(|_| waits) {
                members.insert(Arc::clone(node));
            }
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use super::Departure::{Dead, Left};
    use super::Waiting::{ForOthers, Isolated, Nothing};
    use super::*;
    use crate::testkit::{members, node};
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    /// n1 to n4, announced at 0.
    fn four() -> Settling {
        let mut settling = Settling::default();
        for name in ["n1", "n2", "n3", "n4"] {
            settling.is_active(Arc::new(node(name)));
        }
        let update = settling.settle(Nothing, at(0)).unwrap();
        assert_eq!((update.number, update.joined.len(), update.members.len()), (1, 4, 4));
        settling
    }

    fn ids(nodes: &[Arc<ClusterNode>]) -> Vec<&str> {
        nodes.iter().map(|node| node.id().as_str()).collect()
    }

    #[test]
    fn m4_1_an_update_says_who_came_left_and_died_and_who_is_there_now() {
        let mut settling = four();
        settling.is_active(Arc::new(node("n5")));
        settling.departs(&id("n1"), Left, at(900));
        settling.departs(&id("n2"), Dead, at(950));
        let update = settling.settle(Nothing, at(1000)).unwrap();
        assert_eq!((ids(&update.joined), ids(&update.left), ids(&update.dead)), (vec!["n5"], vec!["n1"], vec!["n2"]));
        assert_eq!((update.number, update.at), (2, at(1000)));
        assert_eq!((&update.members, &update.members), (&members(&["n3", "n4", "n5"]), settling.announced()));
    }

    #[test]
    fn m4_2_without_a_change_there_is_no_update() {
        let mut settling = four();
        settling.is_active(Arc::new(node("n1")));
        assert!(settling.is_settled(), "an equal node is no other one");
        assert_eq!((settling.settle(Nothing, at(1000)), settling.next_at(Nothing, at(1000))), (None, None));
    }

    #[test]
    fn m4_3_a_lone_change_goes_out_at_once_and_those_after_it_together() {
        let mut settling = four();
        settling.departs(&id("n1"), Left, at(1000));
        assert!(settling.settle(Nothing, at(1000)).is_some());
        settling.departs(&id("n2"), Left, at(1010));
        assert_eq!(settling.settle(Nothing, at(1010)), None);
        settling.departs(&id("n3"), Left, at(1150));
        assert_eq!((settling.settle(Nothing, at(1199)), settling.next_at(Nothing, at(1199))), (None, Some(at(1200))));
        assert_eq!(ids(&settling.settle(Nothing, at(1200)).unwrap().left), ["n2", "n3"]);
    }

    #[test]
    fn m4_3_who_came_and_went_within_a_period_was_never_there() {
        let mut settling = four();
        settling.is_active(Arc::new(node("n5")));
        settling.departs(&id("n5"), Dead, at(100));
        settling.departs(&id("n1"), Dead, at(100));
        settling.is_active(Arc::new(node("n1")));
        assert_eq!((settling.settle(Nothing, at(200)), settling.next_at(Nothing, at(200))), (None, None));
    }

    #[test]
    fn m4_3_deaths_wait_for_others_and_no_longer_than_two_seconds() {
        let mut settling = four();
        settling.departs(&id("n1"), Dead, at(1000));
        assert_eq!(settling.settle(ForOthers, at(1000)), None);
        assert_eq!(settling.next_at(ForOthers, at(1000)), Some(at(3000)));
        settling.departs(&id("n2"), Dead, at(1500));
        assert_eq!(ids(&settling.settle(Nothing, at(1600)).unwrap().dead), ["n1", "n2"], "nobody else is suspected");
        let mut settling = four();
        settling.departs(&id("n1"), Dead, at(1000));
        settling.departs(&id("n2"), Dead, at(1500));
        assert_eq!(settling.settle(ForOthers, at(2999)), None);
        assert_eq!(ids(&settling.settle(ForOthers, at(3000)).unwrap().dead), ["n1", "n2"], "all that were gathered");
        settling.departs(&id("n3"), Dead, at(3100));
        assert_eq!(
            (settling.settle(ForOthers, at(5099)), settling.next_at(ForOthers, at(5099))),
            (None, Some(at(5100)))
        );
        assert_eq!(ids(&settling.settle(ForOthers, at(5100)).unwrap().dead), ["n3"]);
    }

    #[test]
    fn m4_3_who_leaves_or_joins_waits_for_nobody() {
        let mut settling = four();
        settling.departs(&id("n1"), Dead, at(1000));
        settling.departs(&id("n2"), Left, at(1000));
        settling.is_active(Arc::new(node("n5")));
        let update = settling.settle(ForOthers, at(1000)).unwrap();
        assert_eq!((ids(&update.joined), ids(&update.left), ids(&update.dead)), (vec!["n5"], vec!["n2"], vec![]));
        assert!(update.members.contains("n1"));
        settling.departs(&id("n1"), Left, at(1300));
        assert_eq!(ids(&settling.settle(ForOthers, at(1300)).unwrap().left), ["n1"], "it has left after all");
    }

    #[test]
    fn m4_3_a_death_that_is_contradicted_in_time_announces_nothing() {
        let mut settling = four();
        settling.departs(&id("n1"), Dead, at(1000));
        settling.is_active(Arc::new(node("n1")));
        assert_eq!(settling.settle(Nothing, at(9000)), None);
    }

    #[test]
    fn m3_1_an_isolated_node_announces_no_death_however_long_it_lasts() {
        let mut settling = four();
        settling.departs(&id("n1"), Dead, at(1000));
        settling.departs(&id("n2"), Left, at(1000));
        assert_eq!(ids(&settling.settle(Isolated, at(1000)).unwrap().left), ["n2"]);
        assert_eq!((settling.settle(Isolated, at(90_000)), settling.next_at(Isolated, at(90_000))), (None, None));
        assert_eq!(ids(&settling.settle(Nothing, at(90_001)).unwrap().dead), ["n1"]);
    }

    #[test]
    fn m4_1_another_life_has_left_and_joined_and_new_metadata_is_an_update() {
        let mut settling = Settling::default();
        let of = |life: u64, mark: &str| {
            let node = ClusterNode::builder("n1", "10.0.0.1", 7).incarnation(life);
            Arc::new(node.metadata("mark", mark).build().unwrap())
        };
        settling.is_active(of(1, "a"));
        settling.settle(Nothing, at(0));
        settling.departs(&id("n1"), Dead, at(300));
        settling.is_active(of(2, "a"));
        let update = settling.settle(Nothing, at(300)).unwrap();
        assert_eq!((ids(&update.joined), ids(&update.left), ids(&update.dead)), (vec!["n1"], vec!["n1"], vec![]));
        settling.is_active(of(2, "b"));
        let update = settling.settle(Nothing, at(600)).unwrap();
        assert_eq!((ids(&update.updated), update.joined.len(), update.left.len()), (vec!["n1"], 0, 0));
    }

    proptest! {
        #[test]
        fn m4_1_updates_lead_from_one_set_to_the_next_and_in_the_end_to_the_active_members(
            steps in prop::collection::vec((0u8..6, 0u8..6, 0u8..3, 0u64..700), 0..120),
        ) {
            let (mut settling, mut seen) = (Settling::default(), Members::new());
            let (mut now, mut last) = (0, None::<u64>);
            let mut follow = |settling: &mut Settling, waiting, now: u64| -> Result<(), TestCaseError> {
                let Some(update) = settling.settle(waiting, at(now)) else { return Ok(()) };
                prop_assert!(last.is_none_or(|last| now >= last + 200));
                last = Some(now);
                for node in update.left.iter().chain(&update.dead) {
                    prop_assert!(seen.remove(node.id()).is_some(), "it was announced");
                }
                for node in update.joined.iter().chain(&update.updated) {
                    seen.insert(Arc::clone(node));
                }
                prop_assert!(seen == update.members && update.members.hash() == seen.hash());
                Ok(())
            };
            for (n, what, waiting, pause) in steps {
                let (name, waiting) = (format!("n{n}"), [Nothing, ForOthers, Isolated][waiting as usize]);
                match what {
                    0..3 => settling.is_active(Arc::new(node(&name))),
                    3 => settling.departs(&id(&name), Left, at(now)),
                    _ => settling.departs(&id(&name), Dead, at(now)),
                }
                follow(&mut settling, waiting, now)?;
                // What is due later is due when it says, and not before.
                let later = settling.next_at(waiting, at(now));
                now += pause;
                if let Some(due) = later.filter(|due| *due > at(now)) {
                    prop_assert!(settling.clone().settle(waiting, at(now)).is_none());
                    prop_assert!(settling.clone().settle(waiting, due).is_some());
                }
            }
            now += 10_000;
            follow(&mut settling, Nothing, now)?;
            let active = settling.active.clone();
            prop_assert!(*settling.announced() == active && settling.departed.is_empty());
        }
    }
}
