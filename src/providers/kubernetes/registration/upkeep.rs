//! When the pod's labels are looked at again, as a state machine without a clock.
//!
//! Nothing expires: labels stay until somebody removes them. So they are looked at slowly, and at once when the watch no
//! longer shows the node. That may have another reason, such as a pod that is not ready: a look is never sooner than a
//! second after the one before, and later each time that nothing was amiss. A whole cluster that starts would otherwise
//! look once a second.

use std::time::Duration;

use crate::backoff::Jitter;
use crate::clock::Timestamp;

/// How often the labels are looked at anyway, at the least.
const SLOW: Duration = Duration::from_secs(60);
/// How soon after a look the next one may be.
const SOONEST: Duration = Duration::from_secs(1);
/// The same after looks in vain.
const SOONEST_IN_VAIN: Duration = Duration::from_secs(10);

/// When to look.
#[derive(Debug)]
pub(super) struct Upkeep {
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
    pub(super) fn new(seed: u64, now: Timestamp) -> Self {
        Self { jitter: Jitter::new(seed), looked: None, due: now, soonest: SOONEST, missed: false }
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
        self.soonest = SOONEST;
    }

    /// All is as it shall be; whether that took a repair.
    pub(super) fn looked(&mut self, now: Timestamp, repaired: bool) {
        let in_vain = std::mem::take(&mut self.missed) && !repaired;
        self.soonest = if in_vain { (self.soonest * 2).min(SOONEST_IN_VAIN) } else { SOONEST };
        self.looked = Some(now);
        self.due = now + self.jitter.scale(SLOW, 0.75);
    }

    /// The look failed.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.looked = Some(now);
        self.due = now + SOONEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_looked_at_slowly_and_at_once_when_the_watch_misses_the_node_but_never_in_a_loop() {
        let start = Timestamp::from_nanos(1_000_000_000_000);
        let at = |millis| start + Duration::from_millis(millis);
        let mut upkeep = Upkeep::new(7, start);
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
        let mut upkeep = Upkeep::new(7, now);
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
    }
}
