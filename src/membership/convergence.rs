//! Whether all active members hold the same members, and since when.
//!
//! Each member tells, with its answers, the hash that it has and who is known to have the same: one bit for each active
//! member, in the order of their ids. Equal hashes mean equal ids, so that a bit means the same to both; and who has
//! confirmed a hash is merged as a set. Once the set is complete it is enough to say so, and whoever has the same hash
//! believes it. Any change of the members, and another hash of an active member, end it: it is true as of the last
//! answers. Large clusters tell a piece of the set at a time.

use crate::clock::Timestamp;
use crate::topology::NodeId;

/// The most bytes of the set in one packet: 4,096 members.
pub(super) const CHUNK: usize = 512;

/// What a member says of those who have the same hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// All of them.
    All,
    /// These: a bit for each, the lowest first, from the byte of that number on.
    Some { from: usize, bits: Vec<u8> },
}

/// What is known of who has the same members.
#[derive(Clone, Debug)]
pub(super) struct Convergence {
    hash: u64,
    /// All active members, sorted; this node is one of them.
    ids: Vec<NodeId>,
    /// A bit for each of them who has the same hash.
    bits: Vec<u8>,
    /// How many of the bits are set.
    confirmed: usize,
    since: Option<Timestamp>,
    /// The byte from which on the set is told next.
    next: usize,
}

impl Convergence {
    /// The members, which have that hash, have changed just now. `ids` are all of them, sorted, and `own` is this node's.
    pub(super) fn begin(ids: Vec<NodeId>, hash: u64, own: &NodeId, now: Timestamp) -> Self {
        debug_assert!(ids.is_sorted());
        let bits = vec![0; ids.len().div_ceil(8)];
        let mut convergence = Self { hash, ids, bits, confirmed: 0, since: None, next: 0 };
        convergence.confirm(own);
        convergence.settle(now);
        convergence
    }

    /// The hash of the members here.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Since when all active members have been known to hold the same; absent while they are not.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// An active member has that hash, and says that of others; whether something new was learned.
    pub(super) fn hear(&mut self, peer: &NodeId, hash: u64, said: &Confirmed, now: Timestamp) -> bool {
        if self.ids.binary_search(peer).is_err() {
            return false;
        }
        if hash != self.hash {
            return self.contradict(peer);
        }
        let before = self.confirmed;
        self.confirm(peer);
        match said {
            Confirmed::All => self.merge(0, std::iter::repeat(&u8::MAX)),
            Confirmed::Some { from, bits } => self.merge(*from, bits),
        }
        self.settle(now);
        self.confirmed != before
    }

    /// What to say next.
    pub(super) fn say(&mut self) -> Confirmed {
        if self.since.is_some() {
            return Confirmed::All;
        }
        let from = if self.next < self.bits.len() { self.next } else { 0 };
        let bits: Vec<u8> = self.bits.iter().skip(from).take(CHUNK).copied().collect();
        self.next = from + bits.len();
        Confirmed::Some { from, bits }
    }

    /// Somebody has another hash: what was known of those who have ours may be over for others, too.
    fn contradict(&mut self, peer: &NodeId) -> bool {
        let was = self.since.take().is_some();
        was | self.set(peer, false)
    }

    fn confirm(&mut self, id: &NodeId) {
        self.set(id, true);
    }

    /// Sets the bit of that member; whether it had been otherwise.
    fn set(&mut self, id: &NodeId, value: bool) -> bool {
        let Ok(place) = self.ids.binary_search(id) else { return false };
        let Some(byte) = self.bits.get_mut(place / 8) else { return false };
        let bit = 1 << (place % 8);
        let before = *byte & bit != 0;
        if value {
            *byte |= bit;
        } else {
            *byte &= !bit;
        }
        self.confirmed = self.confirmed + usize::from(value) - usize::from(before);
        before != value
    }

    /// Adds the bits of another, from that byte on. Those that are of nobody are passed over.
    fn merge<'a>(&mut self, from: usize, bits: impl IntoIterator<Item = &'a u8>) {
        let members = self.ids.len();
        for ((place, byte), more) in self.bits.iter_mut().enumerate().skip(from).zip(bits) {
            let here = members.saturating_sub(place * 8).min(8);
            // The lowest so many bits are of members.
            let mask = u8::try_from((1u16 << here) - 1).unwrap_or(u8::MAX);
            let new = more & mask & !*byte;
            *byte |= new;
            self.confirmed += new.count_ones() as usize;
        }
    }

    fn settle(&mut self, now: Timestamp) {
        debug_assert_eq!(self.confirmed, self.bits.iter().map(|byte| byte.count_ones() as usize).sum::<usize>());
        if self.confirmed == self.ids.len() && self.since.is_none() {
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Jitter;

    const HASH: u64 = 77;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn id(n: usize) -> NodeId {
        NodeId::new(format!("n{n:05}")).unwrap()
    }

    fn of(members: usize, own: usize) -> Convergence {
        Convergence::begin((0..members).map(id).collect(), HASH, &id(own), at(0))
    }

    fn nobody() -> Confirmed {
        Confirmed::Some { from: 0, bits: vec![] }
    }

    #[test]
    fn m1_4_all_agree_when_each_has_been_heard_of_by_whichever_way() {
        let mut n0 = of(3, 0);
        assert_eq!((n0.since(), n0.say()), (None, Confirmed::Some { from: 0, bits: vec![0b001] }));
        assert!(n0.hear(&id(1), HASH, &Confirmed::Some { from: 0, bits: vec![0b110] }, at(1)));
        assert_eq!((n0.since(), n0.say()), (Some(at(1)), Confirmed::All));
        assert!(!n0.hear(&id(2), HASH, &nobody(), at(2)), "it was known");
        assert_eq!(n0.since(), Some(at(1)));
        let mut n2 = of(3, 2);
        assert!(n2.hear(&id(0), HASH, &Confirmed::All, at(3)));
        assert_eq!(n2.since(), Some(at(3)));
    }

    #[test]
    fn m1_4_one_alone_agrees_with_itself() {
        assert_eq!(of(1, 0).since(), Some(at(0)));
    }

    #[test]
    fn m1_4_another_hash_ends_it_and_counts_against_whoever_has_it() {
        let mut n0 = of(2, 0);
        n0.hear(&id(1), HASH, &nobody(), at(1));
        assert!(n0.since().is_some());
        assert!(n0.hear(&id(1), 78, &Confirmed::All, at(2)));
        assert_eq!((n0.since(), n0.say()), (None, Confirmed::Some { from: 0, bits: vec![0b01] }));
        assert!(!n0.hear(&id(1), 78, &Confirmed::All, at(3)));
        n0.hear(&id(1), HASH, &nobody(), at(4));
        assert_eq!(n0.since(), Some(at(4)), "from then on, not from before");
    }

    #[test]
    fn m2_5_what_is_said_of_or_by_nobody_counts_for_nothing() {
        let mut n0 = of(3, 0);
        assert!(!n0.hear(&id(9), HASH, &Confirmed::All, at(1)), "no member");
        for bits in [vec![0b1111_1001], vec![0b001, 0xff, 0xff]] {
            n0.hear(&id(0), HASH, &Confirmed::Some { from: 0, bits }, at(1));
            assert_eq!(n0.say(), Confirmed::Some { from: 0, bits: vec![0b001] });
        }
        assert!(!n0.hear(&id(0), HASH, &Confirmed::Some { from: usize::MAX, bits: vec![0xff; 9999] }, at(1)));
        assert_eq!(n0.since(), None);
    }

    #[test]
    fn m1_4_a_large_cluster_tells_one_piece_after_the_other() {
        let mut n0 = of(CHUNK * 8 * 2 + 1, 0);
        let pieces: Vec<_> = (0..4)
            .map(|_| match n0.say() {
                Confirmed::Some { from, bits } => (from, bits.len()),
                Confirmed::All => panic!("nobody else was heard"),
            })
            .collect();
        assert_eq!(pieces, [(0, 512), (512, 512), (1024, 1), (0, 512)]);
    }

    #[test]
    fn m1_4_a_thousand_members_all_know_within_rounds_that_grow_with_the_logarithm() {
        let mut all: Vec<_> = (0..1000).map(|own| of(1000, own)).collect();
        let mut jitter = Jitter::new(7);
        let mut rounds = 0;
        while all.iter().any(|member| member.since().is_none()) {
            rounds += 1;
            for n in 0..all.len() {
                let peer = (jitter.next() % 1000) as usize;
                let said = all[peer].say();
                all[n].hear(&id(peer), HASH, &said, at(rounds));
            }
        }
        // Everybody has to hear of everybody: about log2(1000) rounds, and as many again for the last.
        assert!((8..=20).contains(&rounds), "{rounds} rounds");
        assert!(all.iter().all(|member| member.hash() == HASH));
    }
}
