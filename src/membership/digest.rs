//! Whether two members know the same, and where they differ, at the cost of a few bytes.
//!
//! Each ping carries one number for all active records; where it differs the members compare a number for each bucket of
//! ids, and exchange the records of those buckets that differ. So an exchange costs what the difference costs, not what the
//! cluster does. The numbers are sums of hashes, as a topology's is: they do not depend on the order in which records came,
//! and a change costs two hashes.
//!
//! Who is suspected counts as who is up: a suspicion comes and goes before everybody has heard of it. Whoever is dead or has
//! left is in no digest, since everybody forgets them at another time. The rulings of operators count in the bucket of their
//! id.

use xxhash_rust::xxh3::xxh3_64;

use super::record::Record;
use super::rulings::HashChange;
use crate::topology::NodeId;

/// Into how many buckets the ids fall: in a cluster of 10,000 a bucket has 40 records, and all numbers together have 2 kB,
/// which the reliable channel carries.
pub(super) const BUCKETS: usize = 256;

/// In which bucket an id is: by the lowest bits of its hash, which all versions of the protocol agree on.
pub(super) fn bucket(id: &NodeId) -> u8 {
    // The truncation is meant.
    xxh3_64(id.as_str().as_bytes()) as u8
}

/// The digest of all active records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    all: u64,
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for Digest {
    fn default() -> Self {
        Self { all: 0, buckets: Box::new([0; BUCKETS]) }
    }
}

impl Digest {
    /// The number for all.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    /// The numbers of the buckets, in order.
    pub(super) fn buckets(&self) -> &[u64; BUCKETS] {
        &self.buckets
    }

    /// One record counts in the place of another; either may be absent.
    pub(super) fn replace(&mut self, old: Option<&Record>, new: Option<&Record>) {
        debug_assert!(old.zip(new).is_none_or(|(old, new)| old.id() == new.id()));
        if let Some(record) = old.filter(|record| record.state().is_active()) {
            self.add(record.id(), hash(record).wrapping_neg());
        }
        if let Some(record) = new.filter(|record| record.state().is_active()) {
            self.add(record.id(), hash(record));
        }
    }

    /// What is held about that id beside its record has another hash.
    pub(super) fn change(&mut self, id: &NodeId, change: HashChange) {
        self.add(id, change.more.wrapping_sub(change.less));
    }

    /// In which buckets the other, whose numbers are these, knows something else.
    pub(super) fn differing(&self, other: &[u64; BUCKETS]) -> Vec<u8> {
        let all = (0..=u8::MAX).zip(self.buckets.iter().zip(other));
        all.filter(|(_, (ours, theirs))| ours != theirs).map(|(bucket, _)| bucket).collect()
    }

    fn add(&mut self, id: &NodeId, hash: u64) {
        self.all = self.all.wrapping_add(hash);
        if let Some(sum) = self.buckets.get_mut(usize::from(bucket(id))) {
            *sum = sum.wrapping_add(hash);
        }
    }
}

/// The hash of a record: of its node with the incarnation, which has one already, its version and its gossip port.
fn hash(record: &Record) -> u64 {
    let mut bytes = [0; 18];
    let (node, rest) = bytes.split_at_mut(8);
    let (version, port) = rest.split_at_mut(8);
    node.copy_from_slice(&record.node().hash().to_le_bytes());
    version.copy_from_slice(&record.version().to_le_bytes());
    port.copy_from_slice(&record.gossip_port().to_le_bytes());
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::super::accusers::Accusers;
    use super::super::record::State;
    use super::*;
    use crate::clock::Timestamp;
    use crate::topology::ClusterNode;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn record(n: u64, incarnation: u64, version: u64, state: State) -> Record {
        let node = ClusterNode::builder(format!("n{n}"), "10.0.0.1", 7).incarnation(incarnation).build().unwrap();
        Record::new(Arc::new(node), version, state, 0).unwrap()
    }

    fn suspect() -> State {
        State::Suspect(Accusers::of(NodeId::new("a").unwrap()))
    }

    fn dead() -> State {
        State::Dead { accusers: Accusers::default(), quarantined_until: Timestamp::from_millis(9) }
    }

    fn of(records: &[Record]) -> Digest {
        let mut digest = Digest::default();
        records.iter().for_each(|record| digest.replace(None, Some(record)));
        digest
    }

    #[test]
    fn m1_4_the_hash_of_an_id_says_its_bucket_in_every_version_of_the_protocol() {
        // XXH3 of "a" is e6c632b61e964e1f by the reference implementation.
        assert_eq!(bucket(&NodeId::new("a").unwrap()), 0x1f);
    }

    #[test]
    fn m1_4_another_life_version_or_member_is_another_digest_and_a_suspicion_is_not() {
        let base = of(&[record(1, 1, 1, State::Up), record(2, 1, 1, State::Up)]);
        assert_eq!(base.all(), of(&[record(2, 1, 1, State::Up), record(1, 1, 1, suspect())]).all());
        for other in [record(2, 2, 1, State::Up), record(2, 1, 2, State::Up), record(3, 1, 1, State::Up)] {
            let other = of(&[record(1, 1, 1, State::Up), other]);
            assert!(base.all() != other.all() && !base.differing(other.buckets()).is_empty());
        }
    }

    #[test]
    fn m1_4_whoever_is_dead_or_has_left_is_in_no_digest() {
        for state in [dead(), State::Left] {
            let mut digest = of(&[record(1, 1, 1, State::Up)]);
            digest.replace(Some(&record(1, 1, 1, State::Up)), Some(&record(1, 1, 1, state.clone())));
            assert_eq!(digest, Digest::default());
            digest.replace(Some(&record(1, 1, 1, state)), None);
            assert_eq!(digest, Digest::default());
        }
    }

    proptest! {
        #[test]
        fn m1_4_however_the_records_came_about_the_digest_is_that_of_what_is_there_and_names_the_buckets_that_differ(
            steps in prop::collection::vec((0u64..40, 0u64..2, 0u64..3, 0u8..5), 0..200), other in 0u64..40,
        ) {
            let (mut digest, mut known) = (Digest::default(), BTreeMap::new());
            for (n, incarnation, version, what) in steps {
                let new = match what {
                    0 => None,
                    1 => Some(record(n, incarnation, version, dead())),
                    2 => Some(record(n, incarnation, version, suspect())),
                    _ => Some(record(n, incarnation, version, State::Up)),
                };
                let old = match new.clone() {
                    Some(new) => known.insert(n, new),
                    None => known.remove(&n),
                };
                digest.replace(old.as_ref(), new.as_ref());
            }
            let all: Vec<_> = known.values().cloned().collect();
            prop_assert_eq!(&digest, &of(&all));
            prop_assert_eq!(digest.differing(of(&all).buckets()), Vec::<u8>::new());
            let sum = digest.buckets().iter().fold(0u64, |sum, bucket| sum.wrapping_add(*bucket));
            prop_assert_eq!(sum, digest.all());
            let mut changed = digest.clone();
            changed.replace(known.get(&other), Some(&record(other, 9, 9, State::Up)));
            prop_assert_eq!(digest.differing(changed.buckets()), [bucket(&NodeId::new(format!("n{other}")).unwrap())]);
        }
    }
}
