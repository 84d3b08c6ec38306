//! How long things took, in little memory.
//!
//! A [`Histogram`] counts durations in buckets of fixed bounds: below about 1 µs one bucket, up to about 137 s four per
//! doubling, above it one. It is plain data owned by one thread: recording is a few instructions and no lock; who wants
//! to show it to others clones it. What is measured is decided by whoever records.

use std::fmt;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// The first bucket ends at 2^10 ns = 1.024 µs.
const FIRST_OCTAVE: u32 = 10;
/// The last bucket with an upper bound ends at 2^37 ns = 137.4 s.
const LAST_OCTAVE: u32 = 37;
/// 2^2 buckets of equal width per octave.
const STEP_BITS: u32 = 2;
const STEPS: usize = 1 << STEP_BITS;
/// Those in the octaves, the one below them and the one above.
const BUCKETS: usize = (LAST_OCTAVE - FIRST_OCTAVE) as usize * STEPS + 2;

/// Counts of durations, from which quantiles can be estimated. Cheap enough to clone (under 1 KiB).
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    count: u64,
    sum: Duration,
    max: Duration,
}

impl Histogram {
    /// An empty one.
    pub const fn new() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, sum: Duration::ZERO, max: Duration::ZERO }
    }

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        let bucket = bucket_of(duration);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(duration);
        self.max = self.max.max(duration);
    }

    /// Adds everything that the other has counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*others);
        }
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// How many durations were recorded.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their sum; saturates.
    pub const fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest, exactly. Zero if there is none.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// Their mean; zero if there is none.
    pub fn mean(&self) -> Duration {
        if self.count == 0 {
            return Duration::ZERO;
        }
        let nanos = self.sum.as_nanos() / u128::from(self.count);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// An estimate of the duration that the share `q` of those recorded does not exceed: 0.5 is the median, 0.99 the
    /// 99th percentile. `q` is clamped to 0 to 1, and what is not a number counts as 1. Zero if nothing is recorded.
    ///
    /// The estimate is never below the true quantile. Where that lies between 1.024 µs and 137 s it is at most a quarter
    /// above it; below, it is at most 1.024 µs; above, it is the maximum.
    pub fn quantile(&self, q: f64) -> Duration {
        // The rank is at least 1, so that q = 0 is the least duration. Counts beyond 2^53 lose precision here only.
        let rank = if q < 1.0 { ((q.max(0.0) * self.count as f64).ceil() as u64).max(1) } else { self.count };
        let mut seen = 0u64;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return upper_bound(bucket).map_or(self.max, |bound| bound.min(self.max));
            }
        }
        self.max
    }

    /// The buckets in rising order: up to which duration (inclusive; `None` for the last, which has no bound), and how
    /// many durations above the bound before it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, count)| (upper_bound(bucket), *count))
    }
}

/// The bucket that a duration belongs to: the first whose upper bound is not below it.
fn bucket_of(duration: Duration) -> usize {
    // One less, since upper bounds are inclusive.
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).saturating_sub(1);
    let Some(octave) = nanos.checked_ilog2().filter(|octave| *octave >= FIRST_OCTAVE) else { return 0 };
    if octave >= LAST_OCTAVE {
        return BUCKETS - 1;
    }
    let step = (nanos >> (octave - STEP_BITS)) as usize & (STEPS - 1);
    (octave - FIRST_OCTAVE) as usize * STEPS + step + 1
}

/// Up to which duration a bucket counts.
fn upper_bound(bucket: usize) -> Option<Duration> {
    if bucket + 1 >= BUCKETS {
        return None;
    }
    // The bounds of an octave that begins at b are b × 5/4, 6/4, 7/4 and 8/4; the first bucket's is that of its octave.
    let (octave, step) = (bucket / STEPS, bucket % STEPS);
    let begin = 1u64 << (octave as u32 + FIRST_OCTAVE);
    Some(Duration::from_nanos(begin + step as u64 * (begin >> STEP_BITS)))
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// As `count`, `sum`, `mean`, `p50`, `p99` and `max`, durations in seconds.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut histogram = serializer.serialize_struct("Histogram", 6)?;
        histogram.serialize_field("count", &self.count)?;
        histogram.serialize_field("sum", &self.sum.as_secs_f64())?;
        histogram.serialize_field("mean", &self.mean().as_secs_f64())?;
        histogram.serialize_field("p50", &self.quantile(0.5).as_secs_f64())?;
        histogram.serialize_field("p99", &self.quantile(0.99).as_secs_f64())?;
        histogram.serialize_field("max", &self.max.as_secs_f64())?;
        histogram.end()
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn p5_1_an_empty_histogram_is_all_zero() {
        let empty = Histogram::new();
        assert_eq!((empty.count(), empty.mean(), empty.quantile(0.5)), (0, Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn p5_1_bounds_rise_include_their_value_and_reach_from_a_microsecond_to_two_minutes() {
        let bounds: Vec<Duration> = Histogram::new().buckets().map_while(|(bound, _)| bound).collect();
        assert!(bounds.is_sorted_by(|a, b| a < b));
        assert_eq!((bounds[0], bounds.len()), (Duration::from_nanos(1024), BUCKETS - 1));
        assert_eq!(bounds[BUCKETS - 2], Duration::from_nanos(1 << LAST_OCTAVE));
        for (bucket, bound) in bounds.iter().enumerate() {
            assert_eq!(bucket_of(*bound), bucket);
            assert_eq!(bucket_of(*bound + Duration::from_nanos(1)), bucket + 1);
        }
    }

    #[test]
    fn p5_1_extreme_durations_and_shares_are_harmless() {
        let mut all = Histogram::new();
        all.record(Duration::ZERO);
        all.record(Duration::MAX);
        all.record(Duration::MAX);
        all.merge(&all.clone());
        assert_eq!((all.count(), all.sum(), all.max()), (6, Duration::MAX, Duration::MAX));
        for q in [f64::NAN, f64::INFINITY, 1.0, 7.0, 0.5] {
            assert_eq!(all.quantile(q), Duration::MAX, "{q}");
        }
        for q in [f64::NEG_INFINITY, -1.0, 0.0] {
            assert_eq!(all.quantile(q), Duration::from_nanos(1024), "{q}");
        }
    }

    proptest! {
        #[test]
        fn p5_1_a_quantile_is_never_too_low_and_at_most_a_quarter_too_high(
            nanos in prop::collection::vec((0u32..40).prop_flat_map(|bits| 0u64..=1 << bits), 1..200),
            q in 0.0f64..=1.0,
        ) {
            let mut histogram = Histogram::new();
            for n in &nanos {
                histogram.record(Duration::from_nanos(*n));
            }
            let mut sorted = nanos.clone();
            sorted.sort_unstable();
            let rank = ((q * nanos.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1];
            let estimate = histogram.quantile(q).as_nanos() as u64;
            prop_assert!(estimate >= exact);
            if exact < 1 << LAST_OCTAVE {
                prop_assert!(estimate <= (exact + exact / 4).max(1024), "{} for {}", estimate, exact);
            }
            prop_assert_eq!(histogram.quantile(1.0), histogram.max());
            prop_assert_eq!(histogram.sum(), nanos.iter().map(|n| Duration::from_nanos(*n)).sum());
        }

        #[test]
        fn p5_1_merging_is_recording_everything_in_one(
            one in prop::collection::vec(any::<u32>(), 0..50),
            other in prop::collection::vec(any::<u32>(), 0..50),
        ) {
            let of = |all: &[u32]| {
                let mut histogram = Histogram::new();
                all.iter().for_each(|n| histogram.record(Duration::from_nanos(u64::from(*n) * 100)));
                histogram
            };
            let mut merged = of(&one);
            merged.merge(&of(&other));
            prop_assert_eq!(merged, of(&[one, other].concat()));
        }
    }
}
