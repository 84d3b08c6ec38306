//! The network: what becomes of a datagram, and of a question over the reliable channel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::backoff::Jitter;

/// How the network is at present.
#[derive(Clone, Debug)]
pub struct Network {
    /// The share of datagrams that are lost, and of each way of a question over the reliable channel: 0 to 1.
    pub loss: f64,
    /// The share of datagrams that arrive twice: 0 to 1.
    pub doubled: f64,
    /// The shortest and the longest way: datagrams overtake each other.
    pub delay: (Duration, Duration),
    /// In which part of a partition each node is; in the first unless named.
    parts: BTreeMap<usize, u8>,
    /// What the first sends does not reach the second.
    cut: BTreeSet<(usize, usize)>,
    /// The share of what these nodes receive, or send, that is lost beside.
    deaf: BTreeMap<usize, f64>,
    mute: BTreeMap<usize, f64>,
}

impl Network {
    /// A good one, in one data centre: nothing is lost, and a way takes 0.2 to 0.8 ms.
    pub fn good() -> Self {
        Self {
            loss: 0.0,
            doubled: 0.0,
            delay: (Duration::from_micros(200), Duration::from_micros(800)),
            parts: BTreeMap::new(),
            cut: BTreeSet::new(),
            deaf: BTreeMap::new(),
            mute: BTreeMap::new(),
        }
    }

    /// The node is in that part of a partition; all are in part 0 at first.
    pub fn part(&mut self, node: usize, part: u8) {
        self.parts.insert(node, part);
    }

    /// What the one sends does not reach the other any more; what the other sends still does.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// So much of what the node receives is lost: 0 to 1.
    pub fn deafen(&mut self, node: usize, share: f64) {
        self.deaf.insert(node, share);
    }

    /// So much of what the node sends is lost: 0 to 1.
    pub fn silence(&mut self, node: usize, share: f64) {
        self.mute.insert(node, share);
    }

    /// Partitions and cuts are over, and everybody hears and is heard as well as all others.
    pub fn heal(&mut self) {
        self.parts.clear();
        self.cut.clear();
        self.deaf.clear();
        self.mute.clear();
    }

    /// Whether what is sent arrives.
    pub(super) fn passes(&self, from: usize, to: usize, dice: &mut Jitter) -> bool {
        let part = |node| self.parts.get(&node).copied().unwrap_or(0);
        if part(from) != part(to) || (!self.cut.is_empty() && self.cut.contains(&(from, to))) {
            return false;
        }
        let lost = [self.loss, *self.deaf.get(&to).unwrap_or(&0.0), *self.mute.get(&from).unwrap_or(&0.0)];
        lost.into_iter().all(|share| !chance(dice, share))
    }

    pub(super) fn delay(&self, dice: &mut Jitter) -> Duration {
        let (shortest, longest) = self.delay;
        dice.scale(longest, shortest.as_secs_f64() / longest.as_secs_f64())
    }
}

/// Whether something happens that happens so often.
pub(super) fn chance(dice: &mut Jitter, share: f64) -> bool {
    share > 0.0 && (dice.next() >> 11) as f64 / (1u64 << 53) as f64 > 1.0 - share
}
