//! What operators have ruled about ids: who is kept out, and who is let in again before its time.
//!
//! A ruling is a register for each id, of which the last one counts everywhere: it carries a counter, one more than that of
//! the ruling that it overrules, and where it was made. Everybody holds the same ones, whether or not the id is known: they
//! are spread as rumours, are part of the digests, and are exchanged. When one ends is said as the time that is left, for
//! clocks are not compared; the earlier end counts, as with a quarantine.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::record::GREATEST;
use crate::clock::Timestamp;
use crate::topology::NodeId;

/// The most ids about which there are rulings. Of more those count that were overruled most often, and of equals those of
/// the greatest ids, so that everybody keeps the same.
pub(super) const MOST: usize = 1024;

/// What an operator has ruled about an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sentence {
    /// It is kept out, until then or until another ruling.
    KeptOut { until: Option<Timestamp> },
    /// It may come back after this very death; after another it may not.
    LetIn { incarnation: u64, version: u64 },
}

/// A ruling, as everybody holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    counter: u64,
    writer: NodeId,
    sentence: Sentence,
}

impl Ruling {
    /// One as it was told by another.
    pub(super) fn told(counter: u64, writer: NodeId, sentence: Sentence) -> Self {
        Self { counter, writer, sentence }
    }

    /// One that overrules the former one, made at that node.
    pub(super) fn over(former: Option<&Self>, writer: NodeId, sentence: Sentence) -> Self {
        Self { counter: former.map_or(0, |former| (former.counter + 1).min(GREATEST)), writer, sentence }
    }

    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    pub(super) fn writer(&self) -> &NodeId {
        &self.writer
    }

    pub(super) fn sentence(&self) -> &Sentence {
        &self.sentence
    }

    /// Whether the node is kept out at that time.
    pub(super) fn keeps_out(&self, now: Timestamp) -> bool {
        matches!(self.sentence, Sentence::KeptOut { until } if until.is_none_or(|until| now < until))
    }

    /// Merges what somebody else holds; whether it says something else now. Of two that were made at the same time in two
    /// places one counts everywhere.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        match self.order(other) {
            Ordering::Less => {
                *self = other.clone();
                true
            }
            Ordering::Equal => {
                if let (Sentence::KeptOut { until: Some(until) }, Sentence::KeptOut { until: Some(other) }) =
                    (&mut self.sentence, &other.sentence)
                {
                    *until = (*until).min(*other);
                }
                false
            }
            Ordering::Greater => false,
        }
    }

    /// Which of two counts. One writer makes one ruling of each count; what it says decides where two processes had one
    /// name.
    fn order(&self, other: &Self) -> Ordering {
        let said = |sentence: &Sentence| match sentence {
            Sentence::LetIn { incarnation, version } => (0, *incarnation, *version),
            Sentence::KeptOut { until: Some(_) } => (1, 0, 0),
            Sentence::KeptOut { until: None } => (2, 0, 0),
        };
        let key = |ruling: &Self| (ruling.counter, said(&ruling.sentence));
        (key(self).0, &self.writer, key(self).1).cmp(&(key(other).0, &other.writer, key(other).1))
    }

    /// What it adds to a digest: all that its order depends on.
    fn hash(&self, id: &NodeId) -> u64 {
        let (kind, incarnation, version) = match self.sentence {
            Sentence::LetIn { incarnation, version } => (0u8, incarnation, version),
            Sentence::KeptOut { until: Some(_) } => (1, 0, 0),
            Sentence::KeptOut { until: None } => (2, 0, 0),
        };
        let mut bytes = Vec::with_capacity(64);
        for text in [id.as_str(), self.writer.as_str()] {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.push(kind);
        [self.counter, incarnation, version].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        xxh3_64(&bytes)
    }
}

/// How the digest of an id's bucket changes: one number is taken away from it, and one added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HashChange {
    pub(super) less: u64,
    pub(super) more: u64,
}

/// All rulings.
#[derive(Clone, Debug, Default)]
pub(super) struct Rulings {
    of: BTreeMap<NodeId, Ruling>,
}

impl Rulings {
    pub(super) fn get(&self, id: &NodeId) -> Option<&Ruling> {
        self.of.get(id)
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&NodeId, &Ruling)> {
        self.of.iter()
    }

    /// Whether there is room for a ruling about an id about which there is none yet.
    pub(super) fn has_room(&self, id: &NodeId) -> bool {
        self.of.len() < MOST || self.of.contains_key(id)
    }

    /// Somebody holds that ruling about the id: how the digests of which ids change, where it counts.
    pub(super) fn hear(&mut self, id: &NodeId, ruling: &Ruling) -> Vec<(NodeId, HashChange)> {
        let mut changes = Vec::new();
        match self.of.get_mut(id) {
            Some(known) => {
                let less = known.hash(id);
                if known.merge(ruling) {
                    changes.push((id.clone(), HashChange { less, more: known.hash(id) }));
                }
            }
            None => {
                self.of.insert(id.clone(), ruling.clone());
                changes.push((id.clone(), HashChange { less: 0, more: ruling.hash(id) }));
                changes.extend(self.make_room());
            }
        }
        // What had to make room at once has changed nothing.
        let is_there = |id: &NodeId| self.of.contains_key(id);
        if changes.len() == 2 && !is_there(id) { Vec::new() } else { changes }
    }

    fn make_room(&mut self) -> Option<(NodeId, HashChange)> {
        if self.of.len() <= MOST {
            return None;
        }
        let least = self.of.iter().min_by_key(|(id, ruling)| (ruling.counter, *id)).map(|(id, _)| id.clone())?;
        let ruling = self.of.remove(&least)?;
        let less = ruling.hash(&least);
        Some((least, HashChange { less, more: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    const LET_IN: Sentence = Sentence::LetIn { incarnation: 7, version: 3 };

    #[test]
    fn m3_4_the_last_ruling_counts_wherever_it_was_made() {
        let kept = Ruling::over(None, id("n1"), Sentence::KeptOut { until: None });
        let lifted = Ruling::over(Some(&kept), id("n2"), LET_IN);
        let mut held = kept.clone();
        assert!(held.merge(&lifted) && !held.merge(&kept));
        assert_eq!((held.sentence(), held.counter(), held.writer()), (&LET_IN, 1, &id("n2")));
        let elsewhere = Ruling::over(Some(&kept), id("n3"), Sentence::KeptOut { until: Some(at(9)) });
        let mut other = elsewhere.clone();
        assert!(held.merge(&elsewhere) && !other.merge(&lifted));
        assert_eq!(held, other);
    }

    #[test]
    fn m3_4_the_earlier_end_of_one_ruling_counts_and_is_no_news() {
        let until = |second| Ruling::over(None, id("n1"), Sentence::KeptOut { until: Some(at(second)) });
        let mut held = until(20);
        assert!(!held.merge(&until(10)) && !held.merge(&until(30)));
        assert_eq!(held, until(10));
        assert!(held.keeps_out(at(9)) && !held.keeps_out(at(10)));
        assert!(Ruling::over(None, id("n1"), Sentence::KeptOut { until: None }).keeps_out(at(99)));
        assert!(!Ruling::over(None, id("n1"), LET_IN).keeps_out(at(0)));
    }

    #[test]
    fn m3_4_there_is_room_for_so_many_and_everybody_keeps_the_same_of_more() {
        let ruling = |counter| Ruling::told(counter, id("n1"), LET_IN);
        let mut all: Vec<(NodeId, Ruling)> =
            (0..MOST as u64 + 50).map(|n| (id(&format!("x{n:05}")), ruling(n % 3))).collect();
        let of = |all: &[(NodeId, Ruling)]| {
            let mut rulings = Rulings::default();
            let mut sum = 0u64;
            for (id, ruling) in all {
                for (_, HashChange { less, more }) in rulings.hear(id, ruling) {
                    sum = sum.wrapping_sub(less).wrapping_add(more);
                }
            }
            let expected = rulings.all().fold(0u64, |sum, (id, ruling)| sum.wrapping_add(ruling.hash(id)));
            assert_eq!((rulings.len(), sum), (MOST, expected));
            rulings.all().map(|(id, ruling)| (id.clone(), ruling.clone())).collect::<Vec<_>>()
        };
        let kept = of(&all);
        all.reverse();
        assert_eq!(of(&all), kept);
        let full = kept.iter().fold(Rulings::default(), |mut rulings, (id, ruling)| {
            rulings.hear(id, ruling);
            rulings
        });
        assert!(full.has_room(&kept[0].0) && !full.has_room(&id("another")));
    }

    #[test]
    fn m1_4_the_hash_of_a_ruling_is_that_of_its_bytes_in_every_version_of_the_protocol() {
        let hashed = |sentence, tail: &[u8]| {
            let ids: &[u8] = b"\x02\0\0\0\0\0\0\0x1\x03\0\0\0\0\0\0\0n12";
            let ruling = Ruling::told(5, id("n12"), sentence);
            assert_eq!(ruling.hash(&id("x1")), xxh3_64(&[ids, tail].concat()), "{ruling:?}");
        };
        let numbers = |kind: u8, numbers: [u64; 3]| {
            std::iter::once(kind).chain(numbers.into_iter().flat_map(u64::to_le_bytes)).collect::<Vec<_>>()
        };
        hashed(LET_IN, &numbers(0, [5, 7, 3]));
        hashed(Sentence::KeptOut { until: Some(at(9)) }, &numbers(1, [5, 0, 0]));
        hashed(Sentence::KeptOut { until: None }, &numbers(2, [5, 0, 0]));
    }

    #[test]
    fn m1_4_a_ruling_that_overrules_changes_the_digest_and_one_that_finds_no_room_changes_nothing() {
        let mut rulings = Rulings::default();
        let kept = Ruling::over(None, id("n1"), Sentence::KeptOut { until: None });
        let lifted = Ruling::over(Some(&kept), id("n1"), LET_IN);
        let (x, less, more) = (id("x"), kept.hash(&id("x")), lifted.hash(&id("x")));
        assert_eq!(rulings.hear(&x, &kept), [(x.clone(), HashChange { less: 0, more: less })]);
        assert_eq!(rulings.hear(&x, &lifted), [(x.clone(), HashChange { less, more })]);
        assert_eq!(rulings.hear(&x, &kept), []);
        for n in 1..MOST {
            assert_eq!(rulings.hear(&id(&format!("x{n:05}")), &lifted).len(), 1);
        }
        assert_eq!(rulings.hear(&id("y"), &kept), [], "it counts less than all others");
        let changes = rulings.hear(&id("z"), &lifted);
        assert_eq!(changes.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["z", "x"]);
        assert_eq!((changes[1].1, rulings.len()), (HashChange { less: more, more: 0 }, MOST));
    }

    fn any_ruling() -> impl Strategy<Value = Ruling> {
        let sentence = prop_oneof![
            (0u64..3, 0u64..3).prop_map(|(incarnation, version)| Sentence::LetIn { incarnation, version }),
            prop::option::of(0u64..5).prop_map(|until| Sentence::KeptOut { until: until.map(at) }),
        ];
        (0u64..4, 0u8..3, sentence)
            .prop_map(|(counter, writer, sentence)| Ruling::told(counter, id(&format!("n{writer}")), sentence))
    }

    proptest! {
        #[test]
        fn m1_4_rulings_merge_to_the_same_in_any_order(a in any_ruling(), b in any_ruling(), c in any_ruling()) {
            let merged = |rulings: [&Ruling; 3]| {
                let mut held = rulings[0].clone();
                rulings.iter().for_each(|ruling| _ = held.merge(ruling));
                held
            };
            let expected = merged([&a, &b, &c]);
            for order in [[&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
                prop_assert_eq!(&merged(order), &expected);
            }
            let mut again = expected.clone();
            prop_assert!(!again.merge(&expected));
            prop_assert_eq!(again.hash(&id("x")), expected.hash(&id("x")));
        }
    }
}
