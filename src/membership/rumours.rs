//! What is told to whom, how often, and what waits: rumours ride on the packets that are sent anyway (SWIM, section 4.1).
//!
//! Each rumour is about one node, or a ruling about one, and is told a number of times that grows with the logarithm of the cluster's size, which
//! suffices for everybody to hear of it with high probability. A newer rumour about it takes the place of the older
//! one. What concerns the node itself goes first, then what decides about life and death, then the rest; in each class
//! what was told least often. A rumour that does not fit into the room left is passed over for smaller ones and keeps its
//! place.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::topology::NodeId;

/// How often a rumour is told, for each decimal digit of the cluster's size (memberlist's `RetransmitMult`).
const TOLD_PER_DIGIT: u32 = 4;

/// What a rumour is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The record of that node.
    Record(NodeId),
    /// What an operator has ruled about that id.
    Ruling(NodeId),
}

/// How urgent a rumour is: the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Of this node itself.
    Own,
    /// A suspicion, its contradiction, a death, a goodbye.
    Fate,
    /// All else: who joined, what has changed of somebody.
    Other,
}

/// How many rumours that do not fit into a packet are passed over for smaller ones.
const PASSED_OVER: usize = 8;

/// The place of a rumour in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    class: Class,
    told: u32,
    /// Of those that were told equally often the newest goes first. No two have the same number.
    number: Reverse<u64>,
}

/// What waits to be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Rumours {
    waiting: BTreeMap<Place, (Subject, Arc<[u8]>)>,
    places: BTreeMap<Subject, Place>,
    /// Counts the rumours.
    number: u64,
}

/// How often a rumour is told in a cluster of so many members.
pub(super) fn times(members: usize) -> u32 {
    // The digits of n are one more than its logarithm rounded down: n + 1 and its logarithm rounded up come to the same,
    // but for powers of ten.
    let mut digits = 0;
    let mut reach = 1usize;
    while reach < members.saturating_add(1) {
        reach = reach.saturating_mul(10);
        digits += 1;
    }
    TOLD_PER_DIGIT * digits.max(1)
}

impl Rumours {
    /// Something new, encoded, in the place of what was to be told about it before.
    pub(super) fn spread(&mut self, subject: Subject, class: Class, encoded: Arc<[u8]>) {
        self.forget(&subject);
        self.number += 1;
        let place = Place { class, told: 0, number: Reverse(self.number) };
        self.places.insert(subject.clone(), place);
        self.waiting.insert(place, (subject, encoded));
    }

    /// Nothing is to be told about it any more.
    pub(super) fn forget(&mut self, subject: &Subject) {
        if let Some(place) = self.places.remove(subject) {
            self.waiting.remove(&place);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The rumours for one packet, which has room for so many bytes. Each counts as told once more, and is forgotten when it
    /// has been told `times`.
    pub(super) fn take(&mut self, mut room: usize, times: u32) -> Vec<Arc<[u8]>> {
        let (mut chosen, mut passed_over) = (Vec::new(), 0);
        for (place, (_, encoded)) in &self.waiting {
            let size = encoded.len();
            if size <= room {
                room -= size;
                chosen.push(*place);
            } else {
                passed_over += 1;
            }
            if passed_over > PASSED_OVER {
                break;
            }
        }
        let mut taken = Vec::with_capacity(chosen.len());
        for place in chosen {
            let Some((subject, encoded)) = self.waiting.remove(&place) else { continue };
            taken.push(Arc::clone(&encoded));
            if place.told + 1 < times {
                let told = Place { told: place.told + 1, ..place };
                self.places.insert(subject.clone(), told);
                self.waiting.insert(told, (subject, encoded));
            } else {
                self.places.remove(&subject);
            }
        }
        debug_assert_eq!(self.places.len(), self.waiting.len());
        if self.is_empty() {
            // A map that has run empty keeps a kilobyte for the next entries.
            (self.waiting, self.places) = (BTreeMap::new(), BTreeMap::new());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> NodeId {
        NodeId::new(format!("n{n:03}")).unwrap()
    }

    fn text(rumours: &[Arc<[u8]>]) -> Vec<String> {
        rumours.iter().map(|rumour| String::from_utf8_lossy(rumour).into_owned()).collect()
    }

    fn spread(rumours: &mut Rumours, n: u8, class: Class, text: &str) {
        rumours.spread(Subject::Record(id(n)), class, text.as_bytes().into());
    }

    #[test]
    fn m1_4_a_rumour_is_told_four_times_for_each_digit_of_the_clusters_size() {
        let sizes = [0, 1, 2, 9, 10, 99, 100, 999, 1000, 10_000, usize::MAX];
        assert_eq!(sizes.map(times), [4, 4, 4, 4, 8, 8, 12, 12, 16, 20, 80]);
    }

    #[test]
    fn m1_4_what_is_told_goes_when_it_was_told_often_enough() {
        let mut rumours = Rumours::default();
        spread(&mut rumours, 1, Class::Other, "a");
        for _ in 0..3 {
            assert_eq!(text(&rumours.take(100, 4)), ["a"]);
        }
        assert!(!rumours.is_empty());
        assert_eq!(text(&rumours.take(100, 4)), ["a"]);
        assert!(rumours.is_empty() && rumours.take(100, 4).is_empty());
    }

    #[test]
    fn m1_4_own_facts_go_first_then_life_and_death_then_the_rest_and_the_least_told_of_each() {
        let mut rumours = Rumours::default();
        spread(&mut rumours, 1, Class::Other, "other");
        spread(&mut rumours, 2, Class::Fate, "fate");
        assert_eq!(text(&rumours.take(4, 9)), ["fate"]);
        spread(&mut rumours, 3, Class::Own, "own");
        spread(&mut rumours, 4, Class::Fate, "late");
        assert_eq!(text(&rumours.take(100, 9)), ["own", "late", "fate", "other"]);
        assert_eq!(text(&rumours.take(100, 9)), ["own", "late", "fate", "other"], "all once more");
    }

    #[test]
    fn m1_4_news_of_a_node_take_the_place_of_older_news() {
        let mut rumours = Rumours::default();
        spread(&mut rumours, 1, Class::Fate, "suspect");
        rumours.take(100, 4);
        spread(&mut rumours, 1, Class::Fate, "up");
        assert_eq!((text(&rumours.take(100, 4)), rumours.len()), (vec!["up".to_owned()], 1));
        rumours.spread(Subject::Ruling(id(1)), Class::Fate, b"kept out".as_slice().into());
        assert_eq!(text(&rumours.take(100, 4)), ["kept out", "up"], "they are about different things");
    }

    #[test]
    fn m1_4_one_that_does_not_fit_keeps_nobody_waiting_and_its_own_place() {
        let mut rumours = Rumours::default();
        spread(&mut rumours, 1, Class::Own, "far too long");
        spread(&mut rumours, 2, Class::Other, "b");
        spread(&mut rumours, 3, Class::Other, "a");
        assert_eq!(text(&rumours.take(2, 9)), ["a", "b"]);
        assert_eq!(text(&rumours.take(12, 9)), ["far too long"]);
    }

    #[test]
    fn m1_4_so_many_that_do_not_fit_are_passed_over_for_one_that_does_and_no_more() {
        for (large, expected) in [(PASSED_OVER, vec!["a"]), (PASSED_OVER + 1, vec![])] {
            let mut rumours = Rumours::default();
            (0..large).for_each(|n| spread(&mut rumours, n as u8, Class::Own, "far too long"));
            spread(&mut rumours, 99, Class::Other, "a");
            assert_eq!(text(&rumours.take(2, 9)), expected, "{large} that do not fit");
        }
    }

    proptest! {
        #[test]
        fn m1_4_no_packet_is_overfull_and_nothing_is_told_too_often_or_lost(
            steps in prop::collection::vec((0u8..8, 0u8..3, 1usize..30, 0usize..80, 1u32..6), 1..200),
        ) {
            let mut rumours = Rumours::default();
            let mut told: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            let mut present: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
            for (number, (n, what, size, room, times)) in steps.into_iter().enumerate() {
                if what == 0 {
                    let mut encoded = number.to_be_bytes().to_vec();
                    encoded.resize(8 + size, n);
                    let class = [Class::Own, Class::Fate, Class::Other][size % 3];
                    rumours.spread(Subject::Record(id(n)), class, encoded.as_slice().into());
                    present.insert(id(n), encoded);
                    continue;
                }
                let taken = rumours.take(room, times);
                prop_assert!(taken.iter().map(|rumour| rumour.len()).sum::<usize>() <= room);
                for rumour in taken {
                    let times_told = told.entry(rumour.to_vec()).or_default();
                    *times_told += 1;
                    let node = present.iter().find(|(_, encoded)| encoded[..] == rumour[..]).map(|(node, _)| node.clone());
                    prop_assert!(node.is_some(), "an older one was told");
                    if *times_told >= times {
                        present.remove(&node.unwrap());
                    }
                }
                prop_assert_eq!(rumours.len(), present.len());
                prop_assert_eq!(rumours.places.len(), present.len());
            }
        }
    }
}
