//! How long to wait after a failed attempt: 2, 4, 8, 16, 30 s, each drawn from its upper half, so that clients that
//! lost their backend at one moment do not come back at one moment.

use std::time::Duration;

/// The wait after the first failure, before jitter.
const FIRST: Duration = Duration::from_secs(2);
/// The longest wait, before jitter.
const LONGEST: Duration = Duration::from_secs(30);

/// A small seeded source of uniform numbers (SplitMix64), so that the rules that need chance can be replayed.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `duration` × uniform [`low`, 1].
    pub(crate) fn scale(&mut self, duration: Duration, low: f64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let unit = (bits >> 11) as f64 / (1u64 << 53) as f64;
        duration.mul_f64(low + (1.0 - low) * unit)
    }
}

/// Counts failures and paces the attempts after them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Another attempt failed: how long to wait before the next.
    pub(crate) fn failed(&mut self, jitter: &mut Jitter) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(4)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        jitter.scale(wait, 0.5)
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_7_waits_are_2_4_8_16_30_seconds_from_their_upper_half() {
        for seed in 0..200 {
            let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(seed));
            for full in [2, 4, 8, 16, 30, 30, 30] {
                let full = Duration::from_secs(full);
                let wait = backoff.failed(&mut jitter);
                assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
            }
            backoff.succeeded();
            assert!(backoff.failed(&mut jitter) <= FIRST);
        }
    }

    #[test]
    fn jitter_spreads_over_the_whole_range_and_replays() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..1000).map(|_| jitter.scale(Duration::from_secs(1), 0.5).as_millis()).collect::<Vec<_>>()
        };
        let waits = draw(7);
        assert!(waits.iter().any(|wait| *wait < 510) && waits.iter().any(|wait| *wait > 990));
        assert_eq!(waits, draw(7));
        assert_ne!(waits, draw(8));
    }
}
