//! The entries of the last good answer, so that one that has not changed costs a hash and no decoding.
//!
//! What is kept of an entry is the hash of its bytes, under a secret of this process that nobody outside can know, so
//! that no collision can be made up, and what it decoded to. The entries of the next answer are *compared* with them, in
//! order: the one expected next costs one hash of as many bytes as it had, without looking for its end; others are found
//! by their hash. What has been found so becomes the table only once the whole answer is known to be good. The table
//! then has that answer's entries and no others.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::topology::ClusterNode;

/// In how many places from the one expected on an entry is looked for before its end is: what a few changed or removed
/// entries in a row leave behind.
const AHEAD: usize = 4;

/// Hashes entries.
pub(super) struct Hashing {
    secret: Box<[u8; 192]>,
}

impl Hashing {
    /// With a secret of its own, of the process's random keys.
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        let mut secret = Box::new([0; 192]);
        for (number, word) in secret.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *word = random.hash_one(number).to_le_bytes();
        }
        Self { secret }
    }

    /// The hash, in two halves.
    fn hash(&self, bytes: &[u8]) -> [u64; 2] {
        let hash = xxh3_128_with_secret(bytes, &*self.secret);
        [hash as u64, (hash >> 64) as u64]
    }
}

/// An entry of an answer.
pub(super) struct Known {
    hash: [u64; 2],
    length: u32,
    /// Whether its bytes tell where it ends, as those of a map do and those of a number do not.
    is_map: bool,
    usable: bool,
    node: Option<Arc<ClusterNode>>,
    /// The index at which it was created; 0 if that is not known.
    created: u64,
}

impl Known {
    /// The member that it is, if it is one.
    pub(super) fn node(&self) -> Option<&Arc<ClusterNode>> {
        self.node.as_ref()
    }

    /// The index at which it was created; 0 if that is not known.
    pub(super) fn created(&self) -> u64 {
        self.created
    }

    /// Whether it could be used.
    pub(super) fn is_usable(&self) -> bool {
        self.usable
    }
}

/// An entry that is none of those known.
pub(super) struct Unknown(Known);

impl Unknown {
    /// The same with what it decoded to: a member, which was created at that index.
    pub(super) fn member(self, node: Arc<ClusterNode>, created: u64) -> Known {
        Known { node: Some(node), created, usable: true, ..self.0 }
    }

    /// The same with what it decoded to: no member; or unusable.
    pub(super) fn no_member(self, usable: bool) -> Known {
        Known { usable, ..self.0 }
    }
}

/// An answer's entries, beside those of the answer before.
pub(super) struct Comparison<'a> {
    hashing: &'a Hashing,
    before: &'a [Known],
    /// Where in the answer before the next entry is expected. Until they differ, all before it have been there.
    next: usize,
    differing: Option<Differing>,
}

/// What is written down once the answers differ.
#[derive(Default)]
struct Differing {
    /// The entries, in order.
    order: Vec<Source>,
    /// Which of the entries of the answer before are among them.
    used: Vec<bool>,
    fresh: Vec<Known>,
    /// Where entries of the answer before are, by half their hash; made once it is needed.
    places: Option<HashMap<u64, u32, BuildHasherDefault<AsItIs>>>,
}

/// Where an entry is from.
#[derive(Clone, Copy)]
enum Source {
    /// That place in the answer before.
    Before(u32),
    /// The next one of those that are new.
    Fresh,
}

/// What a comparison has shown.
pub(super) enum Outcome {
    /// The same entries in the same order.
    Same,
    /// Others, or in another order.
    Differs(Difference),
}

/// The entries of an answer that differs from the one before.
pub(super) struct Difference {
    order: Vec<Source>,
    used: Vec<bool>,
    fresh: Vec<Known>,
}

impl<'a> Comparison<'a> {
    /// Begins an answer that comes after one of these entries.
    pub(super) fn new(hashing: &'a Hashing, before: &'a [Known]) -> Self {
        Self { hashing, before, next: 0, differing: None }
    }

    /// How many bytes it takes to see whether the next entry is one of those expected.
    pub(super) fn needed(&self) -> usize {
        self.expected().map(|(_, known)| known.length as usize).max().unwrap_or_default()
    }

    /// Takes the entry that these bytes begin with if it is one of those expected; how many of the bytes it has.
    pub(super) fn meet(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut hashed = (0, [0; 2]);
        let met = self.expected().find(|(_, known)| {
            let length = known.length as usize;
            // Nearly every wrong length is seen through without a hash.
            let Some(bytes) = bytes.get(..length).filter(|bytes| bytes.last() == Some(&b'}')) else { return false };
            if hashed.0 != length {
                hashed = (length, self.hashing.hash(bytes));
            }
            known.hash == hashed.1
        });
        let (place, length) = met.map(|(place, known)| (place, known.length as usize))?;
        self.found(place);
        Some(length)
    }

    /// The entries of the answer before that are likely to come next, with their places.
    fn expected(&self) -> impl Iterator<Item = (usize, &'a Known)> {
        let likely = (self.next..).zip(self.before.get(self.next..).unwrap_or_default()).take(AHEAD);
        likely.filter(|(place, known)| {
            known.is_map && !self.differing.as_ref().is_some_and(|differing| is_set(&differing.used, *place))
        })
    }

    /// Looks for an entry by its bytes; if it is none of those before, it is to be decoded and [added](Self::add).
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<Unknown> {
        let hash = self.hashing.hash(bytes);
        if let Some(place) = self.place(hash, bytes.len()) {
            self.found(place);
            return None;
        }
        // No entry is longer than the scanner's limit.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Some(Unknown(Known {
            hash,
            length,
            is_map: bytes.first() == Some(&b'{'),
            usable: false,
            node: None,
            created: 0,
        }))
    }

    /// Adds an entry that was none of those before.
    pub(super) fn add(&mut self, known: Known) {
        let differing = self.differ();
        differing.order.push(Source::Fresh);
        differing.fresh.push(known);
    }

    /// Ends the answer.
    pub(super) fn finish(mut self) -> Outcome {
        if self.differing.is_none() && self.next == self.before.len() {
            return Outcome::Same;
        }
        let Differing { order, used, fresh, .. } = std::mem::take(self.differ());
        Outcome::Differs(Difference { order, used, fresh })
    }

    fn place(&mut self, hash: [u64; 2], length: usize) -> Option<usize> {
        if self.before.is_empty() {
            return None;
        }
        let before = self.before;
        let differing = self.differ();
        let places = differing.places.get_or_insert_with(|| {
            let places = before.iter().zip(0..).filter(|(_, place)| !is_set(&differing.used, *place as usize));
            places.map(|(known, place): (&Known, u32)| (known.hash[0], place)).collect()
        });
        let place = *places.get(&hash[0])? as usize;
        let same = before.get(place).is_some_and(|known| known.hash == hash && known.length as usize == length);
        (same && !is_set(&differing.used, place)).then_some(place)
    }

    fn found(&mut self, place: usize) {
        if self.differing.is_some() || place != self.next {
            let differing = self.differ();
            // The table's places fit: there is one for each entry of an answer.
            differing.order.push(Source::Before(u32::try_from(place).unwrap_or(u32::MAX)));
            if let Some(used) = differing.used.get_mut(place) {
                *used = true;
            }
        }
        self.next = place + 1;
    }

    /// What is written down, from now on if it has not been.
    fn differ(&mut self) -> &mut Differing {
        let (same, all) = (self.next, self.before.len());
        self.differing.get_or_insert_with(|| Differing {
            order: (0..same).map(|place| Source::Before(u32::try_from(place).unwrap_or(u32::MAX))).collect(),
            used: (0..all).map(|place| place < same).collect(),
            ..Differing::default()
        })
    }
}

fn is_set(used: &[bool], place: usize) -> bool {
    used.get(place) == Some(&true)
}

impl Difference {
    /// The members of the answer before, of those entries that are not in this one.
    pub(super) fn gone<'a>(&'a self, before: &'a [Known]) -> impl Iterator<Item = &'a Arc<ClusterNode>> {
        let unused = before.iter().zip(&self.used).filter(|(_, used)| !**used);
        unused.filter_map(|(known, _)| known.node())
    }

    /// The members of the entries that were not in the answer before.
    pub(super) fn come(&self) -> impl Iterator<Item = &Arc<ClusterNode>> {
        self.fresh.iter().filter_map(Known::node)
    }

    /// Whether a member of the answer before is in this one in the same life, with an entry that was created anew.
    pub(super) fn renews(&self, before: &[Known]) -> bool {
        let unused = before.iter().zip(&self.used).filter(|(known, used)| !**used && known.created != 0);
        let gone: HashMap<_, _> = unused.filter_map(|(known, _)| Some((known.node()?.id(), known))).collect();
        self.fresh.iter().filter(|known| known.created != 0).any(|known| {
            let former = known.node().and_then(|node| Some((node, gone.get(node.id())?)));
            former.is_some_and(|(node, former)| {
                former.created != known.created && former.node().is_some_and(|former| former.is_same_life(node))
            })
        })
    }

    /// The answer's entries, those that have stayed being taken out of the ones before.
    pub(super) fn into_entries(self, before: Vec<Known>) -> Vec<Known> {
        let Self { order, mut fresh, .. } = self;
        if before.is_empty() {
            fresh.shrink_to_fit();
            return fresh;
        }
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        let mut fresh = fresh.into_iter();
        let entries = order.into_iter().filter_map(|source| match source {
            Source::Before(place) => before.get_mut(place as usize).and_then(Option::take),
            Source::Fresh => fresh.next(),
        });
        entries.collect()
    }
}

/// Hashes of hashes.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn consul_both_halves_of_a_hash_tell_entries_apart_and_hang_on_the_secret() {
        let (hashing, other) = (Hashing::new(), Hashing::new());
        let entries = || (0..100u8).map(|number| [number; 300]);
        for half in [0, 1] {
            let hashes: BTreeSet<_> = entries().map(|entry| hashing.hash(&entry)[half]).collect();
            assert_eq!(hashes.len(), 100);
            assert!(entries().all(|entry| !hashes.contains(&other.hash(&entry)[half])));
        }
    }
    /// The entries of an answer that was the first.
    fn first(hashing: &Hashing, entries: &[&[u8]]) -> Vec<Known> {
        let mut comparison = Comparison::new(hashing, &[]);
        for entry in entries {
            let unknown = comparison.find(entry).unwrap();
            comparison.add(unknown.no_member(true));
        }
        match comparison.finish() {
            Outcome::Same => Vec::new(),
            Outcome::Differs(difference) => difference.into_entries(Vec::new()),
        }
    }

    const ENTRIES: [&[u8]; 6] = [b"{0}", b"{1111}", b"{2}", b"{3}", b"{4444444}", b"{5}"];

    #[test]
    fn consul_an_entry_where_it_was_is_known_by_its_length_and_hash_whatever_follows() {
        let hashing = Hashing::new();
        let before = first(&hashing, &ENTRIES);
        let mut comparison = Comparison::new(&hashing, &before);
        for (entry, needed) in ENTRIES.into_iter().zip([6, 9, 9, 9, 9, 3]) {
            assert_eq!(comparison.needed(), needed);
            assert_eq!(comparison.meet(&[entry, b",{}"].concat()), Some(entry.len()));
        }
        assert_eq!((comparison.needed(), comparison.meet(ENTRIES[0])), (0, None));
        assert!(matches!(comparison.finish(), Outcome::Same));
    }

    #[test]
    fn consul_an_answer_that_lost_its_last_entries_differs() {
        let hashing = Hashing::new();
        let before = first(&hashing, &ENTRIES);
        for kept in 0..ENTRIES.len() {
            let mut comparison = Comparison::new(&hashing, &before);
            assert!(ENTRIES[..kept].iter().all(|entry| comparison.meet(entry).is_some()));
            let Outcome::Differs(difference) = comparison.finish() else { panic!("the same without the rest") };
            assert_eq!(difference.into_entries(first(&hashing, &ENTRIES)).len(), kept);
        }
    }

    #[test]
    fn consul_an_entry_is_expected_behind_three_others_at_most_and_only_once() {
        let hashing = Hashing::new();
        let before = first(&hashing, &ENTRIES);
        let mut comparison = Comparison::new(&hashing, &before);
        assert_eq!((comparison.meet(b"{9}"), comparison.meet(ENTRIES[4])), (None, None));
        assert_eq!(comparison.meet(ENTRIES[3]), Some(3));
        // One that was passed over is found by its hash, and the next is expected behind it.
        assert!(comparison.meet(ENTRIES[0]).is_none() && comparison.find(ENTRIES[0]).is_none());
        assert_eq!(comparison.meet(ENTRIES[3]), None, "it is in this answer already");
        assert!(comparison.find(ENTRIES[3]).is_some());
        assert_eq!(comparison.meet(ENTRIES[4]), Some(9));
    }

    #[test]
    fn consul_what_is_no_map_is_never_taken_for_the_beginning_of_something_longer() {
        let hashing = Hashing::new();
        let before = first(&hashing, &[b"1", b"\"}"]);
        let mut comparison = Comparison::new(&hashing, &before);
        assert_eq!((comparison.needed(), comparison.meet(b"12"), comparison.meet(b"\"}\"")), (0, None, None));
        assert!(comparison.find(b"1").is_none());
    }
}
