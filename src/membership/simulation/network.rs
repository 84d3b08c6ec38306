//! The network: what becomes of a datagram, and of a question over the reliable channel.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::Jitter;

/// How the network is at present.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// The share of datagrams that are lost, and of questions that are not answered.
    pub(super) loss: f64,
    /// The share of datagrams that arrive twice.
    pub(super) doubled: f64,
    /// The shortest and the longest way: datagrams overtake each other.
    pub(super) delay: (Duration, Duration),
    /// In which part of a partition each node is; in the first unless named.
    parts: BTreeMap<usize, u8>,
    /// The share of what these nodes receive, or send, that is lost beside.
    deaf: BTreeMap<usize, f64>,
    mute: BTreeMap<usize, f64>,
}

impl Network {
    /// A good one, in one data centre.
    pub(super) fn good() -> Self {
        Self {
            loss: 0.0,
            doubled: 0.0,
            delay: (Duration::from_micros(200), Duration::from_micros(800)),
            parts: BTreeMap::new(),
            deaf: BTreeMap::new(),
            mute: BTreeMap::new(),
        }
    }

    pub(super) fn part(&mut self, node: usize, part: u8) {
        self.parts.insert(node, part);
    }

    pub(super) fn heal(&mut self) {
        self.parts.clear();
    }

    /// So much of what the node receives is lost.
    pub(super) fn deafen(&mut self, node: usize, share: f64) {
        self.deaf.insert(node, share);
    }

    /// So much of what the node sends is lost.
    pub(super) fn silence(&mut self, node: usize, share: f64) {
        self.mute.insert(node, share);
    }

    /// Whether what is sent arrives.
    pub(super) fn passes(&self, from: usize, to: usize, dice: &mut Jitter) -> bool {
        let part = |node| self.parts.get(&node).copied().unwrap_or(0);
        if part(from) != part(to) {
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
