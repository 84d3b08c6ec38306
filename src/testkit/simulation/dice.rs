//! The randomness of a run: one seed, one course of events.

use std::time::Duration;

use crate::backoff::Jitter;

/// Seeded dice.
pub(super) struct Dice(Jitter);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Jitter::new(seed))
    }

    /// 0 to `bound` - 1, each as likely; 0 if the bound is.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True so many times out of a thousand.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(super) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to.saturating_sub(from)))
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.index(from.len()))
    }
}
