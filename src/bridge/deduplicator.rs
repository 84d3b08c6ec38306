//! Processing once what is delivered at least once.
//!
//! Deliveries rise by (epoch, seq_no). A consumer keeps the highest [`Position`] that it has processed, its watermark,
//! and drops what is not above it: repeats, and old deliveries that come late. What is dropped as late is superseded by
//! what came before it; keeping gaps is not its business.

use crate::topology::Position;

/// Tells the deliveries that a consumer has not processed yet from those that it has, by one watermark.
///
/// A consumer whose effects outlive the process stores the [watermark](Self::watermark) together with them, and goes on
/// [from it](Self::from_watermark) after a restart; the service's own restart raises the epoch, so that its first
/// deliveries are above any earlier watermark. Without a store that depends on the clock, unless the service is started
/// [above the watermark's epoch](crate::ServiceBuilder::epoch_above). Where nobody has seen to that and the clock was set
/// back, everything would be dropped, which [shows](Self::is_of_an_earlier_epoch).
///
/// ```
/// use cluster_provisioning::{Deduplicator, Position};
/// let mut seen = Deduplicator::new();
/// assert!(seen.fresh(Position { epoch: 1, seq_no: 1 }));
/// assert!(!seen.fresh(Position { epoch: 1, seq_no: 1 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Deduplicator {
    watermark: Position,
}

impl Deduplicator {
    /// One that has seen nothing.
    pub const fn new() -> Self {
        Self::from_watermark(Position { epoch: 0, seq_no: 0 })
    }

    /// One that has seen everything up to that position.
    pub const fn from_watermark(watermark: Position) -> Self {
        Self { watermark }
    }

    /// The highest position seen; epoch 0, number 0 if there is none.
    pub const fn watermark(&self) -> Position {
        self.watermark
    }

    /// Whether the delivery is of an earlier start than the latest seen. From a service that has just been started that means
    /// that its clock was set back, that nothing remembers the epochs of earlier starts, and that all it delivers would be
    /// dropped: start it again with [`epoch_above`](crate::ServiceBuilder::epoch_above) the watermark's epoch, or with a
    /// store.
    pub const fn is_of_an_earlier_epoch(&self, position: Position) -> bool {
        position.epoch < self.watermark.epoch
    }

    /// Whether the delivery is above everything seen so far; if it is, it counts as seen from now on. A consumer whose
    /// processing may fail, and that wants the delivery again then, keeps a copy from before and goes back to it.
    #[must_use = "a delivery that is not fresh must be dropped"]
    pub fn fresh(&mut self, position: Position) -> bool {
        let fresh = position > self.watermark;
        if fresh {
            self.watermark = position;
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(epoch: u64, seq_no: u64) -> Position {
        Position { epoch, seq_no }
    }

    #[test]
    fn p3_4_repeats_and_late_deliveries_are_dropped_also_across_epochs() {
        let mut seen = Deduplicator::new();
        assert!(seen.fresh(at(5, 1)) && seen.fresh(at(5, 2)));
        assert!(!seen.fresh(at(5, 1)) && !seen.fresh(at(5, 2)));
        // A restart begins again with 1, in a higher epoch.
        assert!(seen.fresh(at(6, 1)));
        assert!(!seen.fresh(at(5, 3)) && !seen.fresh(at(6, 1)));
        assert_eq!(seen.watermark(), at(6, 1));
    }

    #[test]
    fn p3_4_a_stored_watermark_goes_on_where_it_was() {
        let mut first = Deduplicator::new();
        assert!(first.fresh(at(5, 9)));
        let mut restored = Deduplicator::from_watermark(first.watermark());
        assert!(!restored.fresh(at(5, 9)));
        assert!(restored.fresh(at(5, 10)));
    }

    proptest! {
        /// Deliveries in order; after each, any stretch of the past may be redelivered in order, and the consumer may
        /// restart from its stored watermark.
        #[test]
        fn p3_4_any_redelivery_is_processed_exactly_once(
            epochs in prop::collection::vec(1u64..20, 1..6),
            redeliveries in prop::collection::vec((any::<prop::sample::Index>(), 0usize..10, any::<bool>()), 100),
        ) {
            let all: Vec<Position> =
                (1..).zip(&epochs).flat_map(|(epoch, last)| (1..=*last).map(move |n| at(epoch, n))).collect();
            let mut seen = Deduplicator::new();
            let mut processed = Vec::new();
            for (n, (from, many, restart)) in (1..=all.len()).zip(&redeliveries) {
                let past = &all[..n];
                let from = from.index(n);
                let again = &past[from..(from + many).min(n)];
                for position in [past[n - 1]].iter().chain(again).chain([&past[n - 1]]) {
                    if seen.fresh(*position) {
                        processed.push(*position);
                    }
                }
                if *restart {
                    seen = Deduplicator::from_watermark(seen.watermark());
                }
            }
            prop_assert_eq!(processed, all);
        }
    }
}
