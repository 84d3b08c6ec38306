//! Who is asked next whether it lives: round after round, everybody once in each, in an order that nobody can foresee
//! (SWIM, section 4.3).
//!
//! A new member is put at a random place of the round under way, so that those who join together are not asked together.
//! Everybody is asked again within `2 n - 1` probes: first in one round and last in the next.

use std::collections::HashMap;

use crate::backoff::Jitter;
use crate::topology::NodeId;

/// The round under way.
#[derive(Clone, Debug)]
pub(super) struct ProbeRound {
    order: Vec<NodeId>,
    /// The place of each in the order.
    places: HashMap<NodeId, usize>,
    /// How many of them have been asked in this round.
    asked: usize,
    jitter: Jitter,
}

impl ProbeRound {
    /// Nobody. `seed`: of the order.
    pub(super) fn new(seed: u64) -> Self {
        Self { order: Vec::new(), places: HashMap::new(), asked: 0, jitter: Jitter::new(seed) }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Somebody is to be asked from here on.
    pub(super) fn add(&mut self, node: NodeId) {
        if self.places.contains_key(&node) {
            return;
        }
        let last = self.order.len();
        self.places.insert(node.clone(), last);
        self.order.push(node);
        // Anywhere in the round. A place that is over means that it waits for the next one.
        let place = self.below(last + 1);
        if place < self.asked {
            self.swap(self.asked, last);
            self.asked += 1;
        } else {
            self.swap(place, last);
        }
        self.check();
    }

    /// Nobody asks for that node any more.
    pub(super) fn remove(&mut self, node: &NodeId) {
        let Some(mut place) = self.places.remove(node) else { return };
        if place < self.asked {
            // Those who were asked stay before those who were not.
            self.asked -= 1;
            self.move_into(place, self.asked);
            place = self.asked;
        }
        let last = self.order.len() - 1;
        self.move_into(place, last);
        self.order.pop();
        self.check();
    }

    /// Who is asked now; absent if there is nobody.
    pub(super) fn next(&mut self) -> Option<NodeId> {
        if self.asked >= self.order.len() {
            self.shuffle();
        }
        let node = self.order.get(self.asked)?.clone();
        self.asked += 1;
        Some(node)
    }

    /// That node is asked next, out of turn: it has just been accused, and others' word is better than one alone.
    pub(super) fn hurry(&mut self, node: &NodeId) {
        if let Some(place) = self.places.get(node).copied().filter(|place| *place >= self.asked) {
            self.swap(place, self.asked);
        }
    }

    /// So many of them at random, each once, without that one; fewer where there are fewer.
    pub(super) fn some(&mut self, count: usize, except: Option<&NodeId>) -> Vec<NodeId> {
        let mut chosen: Vec<NodeId> = Vec::with_capacity(count);
        let others = self.order.len() - usize::from(except.is_some_and(|node| self.places.contains_key(node)));
        while chosen.len() < count.min(others) {
            let place = self.below(self.order.len());
            let Some(node) = self.order.get(place).filter(|node| Some(*node) != except && !chosen.contains(node))
            else {
                continue;
            };
            chosen.push(node.clone());
        }
        chosen
    }

    /// The next round (Fisher and Yates, as Knuth has it).
    fn shuffle(&mut self) {
        self.asked = 0;
        for last in (1..self.order.len()).rev() {
            let other = self.below(last + 1);
            self.swap(last, other);
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.jitter.next() % bound as u64) as usize
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        self.order.swap(a, b);
        for place in [a, b] {
            self.places.insert(self.order[place].clone(), place);
        }
    }

    /// Whoever is at `from` takes the place `to`, which is free.
    fn move_into(&mut self, to: usize, from: usize) {
        if to != from {
            self.order.swap(to, from);
            self.places.insert(self.order[to].clone(), to);
        }
    }

    fn check(&self) {
        debug_assert!(self.asked <= self.order.len() && self.places.len() == self.order.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn id(n: u64) -> NodeId {
        NodeId::new(format!("n{n:03}")).unwrap()
    }

    fn of(count: u64, seed: u64) -> ProbeRound {
        let mut round = ProbeRound::new(seed);
        (0..count).for_each(|n| round.add(id(n)));
        round
    }

    #[test]
    fn m3_1_everybody_is_asked_once_in_each_round_and_again_within_two_less_one() {
        for seed in 0..50 {
            let (mut round, n) = (of(10, seed), 10);
            while round.asked != round.len() {
                round.next();
            }
            let mut last: BTreeMap<NodeId, usize> = BTreeMap::new();
            for number in 0..n * 20 {
                let node = round.next().unwrap();
                if let Some(before) = last.insert(node, number) {
                    assert!(number - before < 2 * n, "seed {seed}");
                }
                if number % n == n - 1 {
                    assert_eq!(last.len(), n);
                    assert!(last.values().all(|at| *at + n > number), "seed {seed}: somebody was left out");
                }
            }
        }
    }

    #[test]
    fn m3_1_each_round_has_another_order_and_a_seed_always_the_same() {
        let rounds = |seed| {
            let mut round = of(20, seed);
            (0..60).map(|_| round.next().unwrap()).collect::<Vec<_>>()
        };
        let all = rounds(7);
        assert_eq!(all, rounds(7));
        assert!(all != rounds(8) && all[..20] != all[20..40] && all[20..40] != all[40..]);
    }

    #[test]
    fn m3_1_a_new_member_comes_anywhere_in_the_round() {
        let mut places = BTreeMap::<usize, u32>::new();
        for seed in 0..4000 {
            let mut round = of(9, seed);
            (0..9).for_each(|_| _ = round.next());
            // A round begins, and three are asked before it joins.
            (0..3).for_each(|_| _ = round.next());
            round.add(id(100));
            let rest: Vec<_> = (round.asked..round.len()).map(|_| round.next().unwrap()).collect();
            let place = rest.iter().position(|node| *node == id(100)).unwrap_or(7);
            *places.entry(place).or_default() += 1;
        }
        // Three of ten places are over; the others are as likely as each other.
        assert!((0..7).all(|place| (320..480).contains(&places[&place])), "{places:?}");
        assert!((1050..1350).contains(&places[&7]), "{places:?}");
    }

    #[test]
    fn m2_3_whoever_has_just_been_accused_is_asked_next() {
        let mut round = of(10, 3);
        while round.asked != 2 {
            round.next();
        }
        let (asked, waiting) = (round.order[0].clone(), round.order[7].clone());
        round.hurry(&waiting);
        assert_eq!(round.next(), Some(waiting));
        round.hurry(&asked);
        assert_ne!(round.next(), Some(asked), "not twice in one round");
    }

    #[test]
    fn m3_1_nobody_is_asked_of_nobody() {
        let mut round = ProbeRound::new(1);
        assert_eq!(round.next(), None);
        round.add(id(1));
        assert_eq!([round.next(), round.next()], [Some(id(1)), Some(id(1))]);
        round.remove(&id(1));
        assert_eq!((round.next(), round.len()), (None, 0));
    }

    proptest! {
        #[test]
        fn m3_1_whoever_comes_and_goes_nobody_is_asked_twice_in_a_round_or_left_out_of_it(
            seed in any::<u64>(), steps in prop::collection::vec((0u8..10, 0u64..12), 0..300),
        ) {
            let mut round = ProbeRound::new(seed);
            let (mut members, mut asked) = (BTreeSet::new(), BTreeSet::new());
            for (what, n) in steps {
                let node = id(n);
                match what {
                    0 | 1 => {
                        round.add(node.clone());
                        members.insert(node);
                    }
                    2 => {
                        round.remove(&node);
                        members.remove(&node);
                        asked.remove(&node);
                    }
                    3 => round.hurry(&node),
                    _ => {
                        if round.asked == round.len() {
                            asked.clear();
                        }
                        let next = round.next();
                        prop_assert_eq!(next.is_none(), members.is_empty());
                        if let Some(next) = next {
                            prop_assert!(members.contains(&next) && asked.insert(next));
                        }
                    }
                }
                prop_assert_eq!(round.order.iter().cloned().collect::<BTreeSet<_>>(), members.clone());
                for (place, node) in round.order.iter().enumerate() {
                    prop_assert_eq!(round.places[node], place);
                }
                for node in &asked {
                    prop_assert!(round.places[node] < round.asked);
                }
            }
        }
    }
}
