//! Who is asked next whether it lives: round after round, everybody once in each, in an order that nobody can foresee
//! (SWIM, section 4.3).
//!
//! A new member is put at a random place of the round under way, so that those who join together are not asked together.
//! Everybody is asked again within `2 n - 1` probes: first in one round and last in the next.

use super::records::Slot;
use crate::backoff::Jitter;

/// The place of whoever is in no round.
const NOWHERE: u32 = u32::MAX;

/// The round under way.
#[derive(Clone, Debug)]
pub(super) struct ProbeRound {
    order: Vec<Slot>,
    /// By the number of the slot: the place of each in the order.
    places: Vec<u32>,
    /// How many of them have been asked in this round.
    asked: usize,
    jitter: Jitter,
}

impl ProbeRound {
    /// Nobody. `seed`: of the order.
    pub(super) fn new(seed: u64) -> Self {
        Self { order: Vec::new(), places: Vec::new(), asked: 0, jitter: Jitter::new(seed) }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Somebody is to be asked from here on.
    pub(super) fn add(&mut self, node: Slot) {
        if self.place(node).is_some() {
            return;
        }
        let last = self.order.len();
        if self.places.len() <= node.number() {
            self.places.resize(node.number() + 1, NOWHERE);
        }
        self.order.push(node);
        self.note(last);
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
    pub(super) fn remove(&mut self, node: Slot) {
        let Some(mut place) = self.place(node) else { return };
        if place < self.asked {
            // Those who were asked stay before those who were not.
            self.asked -= 1;
            self.swap(place, self.asked);
            place = self.asked;
        }
        self.swap(place, self.order.len() - 1);
        self.order.pop();
        if let Some(place) = self.places.get_mut(node.number()) {
            *place = NOWHERE;
        }
        self.check();
    }

    /// Who is asked now; absent if there is nobody.
    pub(super) fn next(&mut self) -> Option<Slot> {
        if self.asked >= self.order.len() {
            self.shuffle();
        }
        let node = *self.order.get(self.asked)?;
        self.asked += 1;
        Some(node)
    }

    /// That node is asked next, out of turn: it has just been accused, and others' word is better than one alone.
    pub(super) fn hurry(&mut self, node: Slot) {
        if let Some(place) = self.place(node).filter(|place| *place >= self.asked) {
            self.swap(place, self.asked);
        }
    }

    /// So many of them at random, each once, without that one; fewer where there are fewer.
    pub(super) fn some(&mut self, count: usize, except: Option<Slot>) -> Vec<Slot> {
        let others = self.order.len() - usize::from(except.is_some_and(|node| self.place(node).is_some()));
        let count = count.min(others);
        let mut chosen: Vec<Slot> = Vec::with_capacity(count);
        while chosen.len() < count {
            let place = self.below(self.order.len());
            chosen.extend(self.order.get(place).filter(|node| Some(**node) != except && !chosen.contains(node)));
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

    fn place(&self, node: Slot) -> Option<usize> {
        self.places.get(node.number()).filter(|place| **place != NOWHERE).map(|place| *place as usize)
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a != b {
            self.order.swap(a, b);
            self.note(a);
            self.note(b);
        }
    }

    /// Whoever is at that place of the order is found there.
    fn note(&mut self, at: usize) {
        let place = self.order.get(at).and_then(|node| self.places.get_mut(node.number()));
        if let Some(place) = place {
            // There are far fewer than four billion members.
            *place = u32::try_from(at).unwrap_or(NOWHERE);
        }
    }

    fn check(&self) {
        debug_assert!(self.asked <= self.order.len() && self.places.len() >= self.order.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn slot(number: u32) -> Slot {
        Slot::of(number)
    }

    fn of(count: u32, seed: u64) -> ProbeRound {
        let mut round = ProbeRound::new(seed);
        (0..count).for_each(|n| round.add(slot(n)));
        round
    }

    #[test]
    fn m3_1_everybody_is_asked_once_in_each_round_and_again_within_two_less_one() {
        for seed in 0..50 {
            let (mut round, n) = (of(10, seed), 10);
            while round.asked != round.len() {
                round.next();
            }
            let mut last: BTreeMap<Slot, usize> = BTreeMap::new();
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
            round.add(slot(100));
            let rest: Vec<_> = (round.asked..round.len()).map(|_| round.next().unwrap()).collect();
            let place = rest.iter().position(|node| *node == slot(100)).unwrap_or(7);
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
        let (asked, waiting) = (round.order[0], round.order[7]);
        round.hurry(waiting);
        assert_eq!(round.next(), Some(waiting));
        round.hurry(asked);
        assert_ne!(round.next(), Some(asked), "not twice in one round");
    }

    #[test]
    fn m3_1_nobody_is_asked_of_nobody() {
        let mut round = ProbeRound::new(1);
        assert_eq!(round.next(), None);
        round.add(slot(1));
        assert_eq!([round.next(), round.next()], [Some(slot(1)), Some(slot(1))]);
        round.remove(slot(1));
        assert_eq!((round.next(), round.len()), (None, 0));
    }

    #[test]
    fn m3_1_of_two_the_one_who_was_asked_last_may_be_asked_first_in_the_next_round_or_last() {
        let mut round = of(2, 5);
        let firsts: Vec<_> = (0..40).map(|_| [round.next(), round.next()][0]).collect();
        let repeats = firsts.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!((8..=31).contains(&repeats), "{repeats} of 39 rounds begin as the one before");
    }

    proptest! {
        #[test]
        fn m3_1_whoever_comes_and_goes_nobody_is_asked_twice_in_a_round_or_left_out_of_it(
            seed in any::<u64>(), steps in prop::collection::vec((0u8..10, 0u32..12), 0..300),
        ) {
            let mut round = ProbeRound::new(seed);
            let (mut members, mut asked) = (BTreeSet::new(), BTreeSet::new());
            for (what, n) in steps {
                let node = slot(n);
                match what {
                    0 | 1 => {
                        round.add(node);
                        members.insert(node);
                    }
                    2 => {
                        round.remove(node);
                        members.remove(&node);
                        asked.remove(&node);
                    }
                    3 => round.hurry(node),
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
                prop_assert_eq!(round.order.iter().copied().collect::<BTreeSet<_>>(), members.clone());
                for (place, node) in round.order.iter().enumerate() {
                    prop_assert_eq!(round.place(*node), Some(place));
                }
                for node in &asked {
                    prop_assert!(round.place(*node).unwrap() < round.asked);
                }
            }
        }
    }
}
