//! When the pod's labels are looked at again, as a state machine without a clock.
//!
//! Nothing expires: labels stay until somebody removes them. So they are looked at slowly, and at once when the watch no
//! longer shows the node. That may have another reason, such as a pod that is not ready: a look is never sooner than a
//! second after the one before, and later each time that nothing was amiss. A whole cluster that starts would otherwise
//! look once a second. These pauses follow the [`RetryPolicy`]: from half of its first to a third of its longest.

use std::time::Duration;

use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::provider::RetryPolicy;

/// How often the labels are looked at anyway, at the least.
const SLOW: Duration = Duration::from_secs(60);
/// The longest pause before a look that failed is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// When to look.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// How soon after a look the next one may be, and how soon after many in vain.
    pauses: (Duration, Duration),
    jitter: Jitter,
    looked: Option<Timestamp>,
    due: Timestamp,
    /// How soon after a look the next one may be.
    soonest: Duration,
    /// Whether the watch has missed the node since the last look.
    missed: bool,
}

impl Upkeep {
    /// Due at once.
    pub(super) fn new(retry: RetryPolicy, seed: u64, now: Timestamp) -> Self {
        let RetryPolicy { first, longest } = retry.sound();
        let soonest = first / 2;
        let pauses = (soonest, soonest.max(longest / 3));
        Self { pauses, jitter: Jitter::new(seed), looked: None, due: now, soonest, missed: false }
    }

    /// A look is due at once.
    pub(super) fn demanded(&mut self, now: Timestamp) {
        self.due = now;
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// The watch does not show the node.
    pub(super) fn unseen(&mut self, now: Timestamp) {
        self.missed = true;
        let soonest = self.looked.map_or(now, |looked| looked + self.soonest);
        self.due = self.due.min(soonest.max(now));
    }

    /// The watch shows the node again.
    pub(super) fn seen(&mut self) {
        self.soonest = self.pauses.0;
    }

    /// All is as it shall be; whether that took a repair.
    pub(super) fn looked(&mut self, now: Timestamp, repaired: bool) {
        let in_vain = std::mem::take(&mut self.missed) && !repaired;
        let (soonest, latest) = self.pauses;
        self.soonest = if in_vain { (self.soonest * 2).min(latest) } else { soonest };
        self.looked = Some(now);
        self.due = now + self.jitter.scale(SLOW, 0.75);
    }

    /// The look failed.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.looked = Some(now);
        self.due = now + self.pauses.0.min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_looked_at_slowly_and_at_once_when_the_watch_misses_the_node_but_never_in_a_loop() {
        let start = Timestamp::from_nanos(1_000_000_000_000);
        let at = |millis| start + Duration::from_millis(millis);
        let mut upkeep = Upkeep::new(RetryPolicy::default(), 7, start);
        assert_eq!(upkeep.due(), start);
        upkeep.looked(start, true);
        assert!(upkeep.due() >= at(45_000) && upkeep.due() <= at(60_000));
        upkeep.unseen(at(100));
        assert_eq!(upkeep.due(), at(1000));
        upkeep.unseen(at(5000));
        assert_eq!(upkeep.due(), at(1000), "what is due stays due");
        upkeep.looked(at(5000), true);
        upkeep.unseen(at(20_000));
        assert_eq!(upkeep.due(), at(20_000), "at once");
        upkeep.failed(at(20_000));
        assert_eq!(upkeep.due(), at(21_000));
    }

    #[test]
    fn labels_that_are_as_they_shall_be_are_looked_at_less_often_while_the_watch_misses_the_node() {
        let mut now = Timestamp::from_nanos(1_000_000_000_000);
        let mut upkeep = Upkeep::new(RetryPolicy::default(), 7, now);
        upkeep.looked(now, true);
        let mut after = |upkeep: &mut Upkeep, repaired: bool| {
            upkeep.unseen(now);
            let pause = upkeep.due().since(now);
            now = upkeep.due();
            upkeep.looked(now, repaired);
            pause.as_secs()
        };
        let pauses = [(); 6].map(|()| after(&mut upkeep, false));
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert_eq!((after(&mut upkeep, true), after(&mut upkeep, false)), (10, 1), "a repair begins anew");
        assert_eq!(after(&mut upkeep, false), 2);
        upkeep.seen();
        assert_eq!(after(&mut upkeep, false), 1, "and so does a node that was seen");
        let policy = RetryPolicy::new(Duration::from_secs(10), Duration::from_secs(60));
        let mut upkeep = Upkeep::new(policy, 7, Timestamp::default());
        after(&mut upkeep, true);
        assert_eq!([(); 4].map(|()| after(&mut upkeep, false)), [5, 10, 20, 20], "another policy is followed");
        upkeep.failed(Timestamp::default());
        assert_eq!(upkeep.due(), Timestamp::default() + LONGEST_PAUSE, "but for the limit after a failure");
    }
}
