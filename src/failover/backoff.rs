//! Pauses between attempts, and the randomness that spreads them.

use std::time::Duration;

use super::FailoverPolicy;

/// A seeded generator (SplitMix64, Steele, Lea and Flood 2014) for jitter: reproducible, and not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The duration times a factor drawn uniformly from 0.5 to 1.
    pub(crate) fn spread(&mut self, duration: Duration) -> Duration {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        duration.mul_f64(0.5 + unit / 2.0)
    }
}

/// How many attempts in a row have failed; gives the pause before the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and gives the pause before the next attempt: 2, 4, 8, 16, 30, 30 … s by default, spread.
    pub(crate) fn pause(&mut self, policy: &FailoverPolicy, jitter: &mut Jitter) -> Duration {
        let doubled = policy.backoff_initial.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        jitter.spread(doubled.min(policy.backoff_max))
    }

    /// Begins again with the first pause.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2_5_pauses_double_from_two_seconds_to_thirty_and_are_spread_over_their_upper_half() {
        let policy = FailoverPolicy::default();
        for seed in 0..200 {
            let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(seed));
            for expected in [2u64, 4, 8, 16, 30, 30, 30] {
                let pause = backoff.pause(&policy, &mut jitter);
                let full = Duration::from_secs(expected);
                assert!(pause >= full / 2 && pause <= full, "seed {seed}: {pause:?} of {full:?}");
            }
            backoff.reset();
            assert!(backoff.pause(&policy, &mut jitter) <= Duration::from_secs(2));
        }
    }

    #[test]
    fn p2_5_a_thousand_failures_do_not_overflow() {
        let (mut backoff, mut jitter) = (Backoff::default(), Jitter::new(1));
        let policy = FailoverPolicy::default();
        assert!((0..1000).all(|_| backoff.pause(&policy, &mut jitter) <= policy.backoff_max));
    }

    #[test]
    fn the_spread_uses_its_whole_range() {
        let mut jitter = Jitter::new(7);
        let spread: Vec<f64> = (0..1000).map(|_| jitter.spread(Duration::from_secs(1)).as_secs_f64()).collect();
        let mean = spread.iter().sum::<f64>() / 1000.0;
        assert!(spread.iter().any(|s| *s < 0.51) && spread.iter().any(|s| *s > 0.99) && (0.72..0.78).contains(&mean));
    }
}
