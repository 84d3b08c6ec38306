//! Whether all active members hold the same members, and since when.
//!
//! Each member tells, with its answers, the hash that it has and who is known to have the same: one bit for each active
//! member, in the order of their ids. Equal hashes mean equal ids, so that a bit means the same to both; and who has
//! confirmed a hash is merged as a set. Once the set is complete it is enough to say so, and whoever has the same hash
//! believes it. Any change of the members, and another hash of an active member, end it: it is true as of the last
//! answers. Large clusters tell a piece of the set at a time.

use crate::clock::Timestamp;
use crate::topology::{Members, NodeId};

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
    /// All active members; this node is one of them.
    members: Members,
    standing: Standing,
}

#[derive(Clone, Debug)]
enum Standing {
    /// All of them are known to hold the same, since then.
    Agreed(Timestamp),
    /// Of some of them it is not known.
    Gathering(Gathering),
}

/// Who is known to hold the same. It is there only while that is not everybody, and takes no room in a cluster at peace.
#[derive(Clone, Debug)]
struct Gathering {
    /// All members, sorted.
    ids: Vec<NodeId>,
    /// A bit for each of them who has the same hash.
    bits: Vec<u8>,
    /// How many of the bits are set.
    confirmed: usize,
    /// The byte from which on the set is told next.
    next: usize,
}

impl Convergence {
    /// The members have changed to these just now; `own` is this node's id.
    pub(super) fn begin(members: Members, own: &NodeId, now: Timestamp) -> Self {
        let mut gathering = Gathering::nobody_of(&members);
        if let Some(place) = gathering.place(own) {
            gathering.set(place, true);
        }
        Self { members, standing: gathering.standing(now) }
    }

    /// The hash of the members here.
    #[cfg(test)]
    pub(super) fn hash(&self) -> u64 {
        self.members.hash()
    }

    /// Since when all active members have been known to hold the same; absent while they are not.
    pub(super) fn since(&self) -> Option<Timestamp> {
        match self.standing {
            Standing::Agreed(since) => Some(since),
            Standing::Gathering(_) => None,
        }
    }

    /// An active member has that hash, and says that of others; whether something new was learned.
    pub(super) fn hear(&mut self, peer: &NodeId, hash: u64, said: &Confirmed, now: Timestamp) -> bool {
        let is_same = hash == self.members.hash();
        let gathering = match &mut self.standing {
            Standing::Agreed(_) if is_same || !self.members.contains(peer) => return false,
            // What was known of those who have ours may be over for others, too.
            Standing::Agreed(_) => {
                let mut gathering = Gathering::nobody_of(&self.members);
                gathering.merge(0, std::iter::repeat(&u8::MAX));
                if let Some(place) = gathering.place(peer) {
                    gathering.set(place, false);
                }
                self.standing = Standing::Gathering(gathering);
                return true;
            }
            Standing::Gathering(gathering) => gathering,
        };
        let Some(place) = gathering.place(peer) else { return false };
        if !is_same {
            return gathering.set(place, false);
        }
        let before = gathering.confirmed;
        gathering.set(place, true);
        match said {
            Confirmed::All => gathering.merge(0, std::iter::repeat(&u8::MAX)),
            Confirmed::Some { from, bits } => gathering.merge(*from, bits),
        }
        let is_news = gathering.confirmed != before;
        if gathering.is_complete() {
            self.standing = Standing::Agreed(now);
        }
        is_news
    }

    /// What to say next.
    pub(super) fn say(&mut self) -> Confirmed {
        match &mut self.standing {
            Standing::Agreed(_) => Confirmed::All,
            Standing::Gathering(gathering) => gathering.say(),
        }
    }
}

impl Gathering {
    fn nobody_of(members: &Members) -> Self {
        let bits = vec![0; members.len().div_ceil(8)];
        Self { ids: members.iter().map(|node| node.id().clone()).collect(), bits, confirmed: 0, next: 0 }
    }

    fn is_complete(&self) -> bool {
        debug_assert_eq!(self.confirmed, self.bits.iter().map(|byte| byte.count_ones() as usize).sum::<usize>());
        self.confirmed == self.ids.len()
    }

    fn standing(self, now: Timestamp) -> Standing {
        if self.is_complete() { Standing::Agreed(now) } else { Standing::Gathering(self) }
    }

    fn say(&mut self) -> Confirmed {
        let from = if self.next < self.bits.len() { self.next } else { 0 };
        let bits: Vec<u8> = self.bits.iter().skip(from).take(CHUNK).copied().collect();
        self.next = from + bits.len();
        Confirmed::Some { from, bits }
    }

    /// The number of that member's bit.
    fn place(&self, id: &NodeId) -> Option<usize> {
        self.ids.binary_search(id).ok()
    }

    /// Sets that bit; whether it had been otherwise.
    fn set(&mut self, place: usize, value: bool) -> bool {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Jitter;
    use crate::topology::ClusterNode;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn id(n: usize) -> NodeId {
        NodeId::new(format!("n{n:05}")).unwrap()
    }

    fn members(count: usize) -> Members {
        (0..count).filter_map(|n| ClusterNode::builder(id(n).as_str(), "h", 7).build().ok()).collect()
    }

    fn of(count: usize, own: usize) -> Convergence {
        Convergence::begin(members(count), &id(own), at(0))
    }

    fn nobody() -> Confirmed {
        Confirmed::Some { from: 0, bits: vec![] }
    }

    #[test]
    fn m1_4_all_agree_when_each_has_been_heard_of_by_whichever_way() {
        let (mut n0, hash) = (of(3, 0), members(3).hash());
        assert_eq!((n0.since(), n0.say()), (None, Confirmed::Some { from: 0, bits: vec![0b001] }));
        assert!(n0.hear(&id(1), hash, &Confirmed::Some { from: 0, bits: vec![0b110] }, at(1)));
        assert_eq!((n0.since(), n0.say()), (Some(at(1)), Confirmed::All));
        assert!(!n0.hear(&id(2), hash, &nobody(), at(2)), "it was known");
        assert_eq!(n0.since(), Some(at(1)));
        let mut n2 = of(3, 2);
        assert!(n2.hear(&id(0), hash, &Confirmed::All, at(3)));
        assert_eq!(n2.since(), Some(at(3)));
    }

    #[test]
    fn m1_4_one_alone_agrees_with_itself() {
        assert_eq!(of(1, 0).since(), Some(at(0)));
    }

    #[test]
    fn m1_4_another_hash_ends_it_and_counts_against_whoever_has_it() {
        let (mut n0, hash) = (of(2, 0), members(2).hash());
        n0.hear(&id(1), hash, &nobody(), at(1));
        assert!(n0.since().is_some());
        assert!(!n0.hear(&id(9), hash + 1, &Confirmed::All, at(2)), "no member");
        assert!(n0.hear(&id(1), hash + 1, &Confirmed::All, at(2)));
        assert_eq!((n0.since(), n0.say()), (None, Confirmed::Some { from: 0, bits: vec![0b01] }));
        assert!(!n0.hear(&id(1), hash + 1, &Confirmed::All, at(3)));
        n0.hear(&id(1), hash, &nobody(), at(4));
        assert_eq!(n0.since(), Some(at(4)), "from then on, not from before");
    }

    #[test]
    fn m2_5_what_is_said_of_or_by_nobody_counts_for_nothing() {
        let (mut n0, hash) = (of(3, 0), members(3).hash());
        assert!(!n0.hear(&id(9), hash, &Confirmed::All, at(1)), "no member");
        for bits in [vec![0b1111_1001], vec![0b001, 0xff, 0xff]] {
            n0.hear(&id(0), hash, &Confirmed::Some { from: 0, bits }, at(1));
            assert_eq!(n0.say(), Confirmed::Some { from: 0, bits: vec![0b001] });
        }
        assert!(!n0.hear(&id(0), hash, &Confirmed::Some { from: usize::MAX, bits: vec![0xff; 9999] }, at(1)));
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
        let (members, hash) = (members(1000), members(1000).hash());
        let begin = |own| Convergence::begin(members.clone(), &id(own), at(0));
        let mut all: Vec<_> = (0..1000).map(begin).collect();
        let mut jitter = Jitter::new(7);
        let mut rounds = 0;
        while all.iter().any(|member| member.since().is_none()) {
            rounds += 1;
            for n in 0..all.len() {
                let peer = (jitter.next() % 1000) as usize;
                let said = all[peer].say();
                all[n].hear(&id(peer), hash, &said, at(rounds));
            }
        }
        // Everybody has to hear of everybody: about log2(1000) rounds, and as many again for the last.
        assert!((8..=20).contains(&rounds), "{rounds} rounds");
        assert!(all.iter().all(|member| member.hash() == hash));
    }
}
