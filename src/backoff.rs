//! Pauses between attempts, and the randomness that spreads them, so that clients that lost their backend at one moment
//! do not come back at one moment.

use std::time::Duration;

/// The first pause unless set otherwise.
pub(crate) const FIRST: Duration = Duration::from_secs(2);
/// The longest pause unless set otherwise.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

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

    /// The duration times a factor drawn uniformly from `low` to 1.
    pub(crate) fn scale(&mut self, duration: Duration, low: f64) -> Duration {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        duration.mul_f64(low + (1.0 - low) * unit)
    }
}

/// Counts the attempts in a row that failed, and gives the pause before the next: twice as long each time, up to the
/// longest, and drawn from its upper half.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Another attempt failed: the pause before the next.
    pub(crate) fn pause(&mut self, jitter: &mut Jitter) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        jitter.scale(doubled.min(self.longest), 0.5)
    }

    /// An attempt succeeded: begins again with the first pause.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2_5_consul_point_7_pauses_double_from_two_seconds_to_thirty_and_are_drawn_from_their_upper_half() {
        for seed in 0..200 {
            let (mut backoff, mut jitter) = (Backoff::new(FIRST, LONGEST), Jitter::new(seed));
            for expected in [2, 4, 8, 16, 30, 30, 30] {
                let pause = backoff.pause(&mut jitter);
                let full = Duration::from_secs(expected);
                assert!(pause >= full / 2 && pause <= full, "seed {seed}: {pause:?} of {full:?}");
            }
            backoff.reset();
            assert!(backoff.pause(&mut jitter) <= FIRST);
        }
    }

    #[test]
    fn p2_5_a_thousand_failures_do_not_overflow() {
        let (mut backoff, mut jitter) = (Backoff::new(FIRST, LONGEST), Jitter::new(1));
        assert!((0..1000).all(|_| backoff.pause(&mut jitter) <= LONGEST));
    }

    #[test]
    fn the_jitter_uses_its_whole_range_and_replays() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..1000).map(|_| jitter.scale(Duration::from_secs(1), 0.5).as_secs_f64()).collect::<Vec<_>>()
        };
        let drawn = draw(7);
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        assert!(drawn.iter().any(|s| *s < 0.51) && drawn.iter().any(|s| *s > 0.99) && (0.72..0.78).contains(&mean));
        assert_eq!(drawn, draw(7));
        assert_ne!(drawn, draw(8));
    }
}
