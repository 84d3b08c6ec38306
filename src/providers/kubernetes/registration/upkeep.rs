//! When the pod's labels are looked at again, as a state machine without a clock.
//!
//! Nothing expires: labels stay until somebody removes them. So they are looked at slowly, and at once when the watch no
//! longer shows the node. That may have another reason, such as a pod that is not ready: a look is never sooner than a
//! second after the one before.

use std::time::Duration;

use crate::backoff::Jitter;
use crate::clock::Timestamp;

/// How often the labels are looked at anyway, at the least.
const SLOW: Duration = Duration::from_secs(60);
/// How soon after a look the next one may be.
const SOONEST: Duration = Duration::from_secs(1);

/// When to look.
#[derive(Debug)]
pub(super) struct Upkeep {
    jitter: Jitter,
    looked: Option<Timestamp>,
    due: Timestamp,
}

impl Upkeep {
    /// Due at once.
    pub(super) fn new(seed: u64, now: Timestamp) -> Self {
        Self { jitter: Jitter::new(seed), looked: None, due: now }
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// The watch does not show the node.
    pub(super) fn unseen(&mut self, now: Timestamp) {
        let soonest = self.looked.map_or(now, |looked| looked + SOONEST);
        self.due = self.due.min(soonest.max(now));
    }

    /// All is as it shall be.
    pub(super) fn looked(&mut self, now: Timestamp) {
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
        upkeep.looked(start);
        assert!(upkeep.due() >= at(45_000) && upkeep.due() <= at(60_000));
        upkeep.unseen(at(100));
        assert_eq!(upkeep.due(), at(1000));
        upkeep.unseen(at(5000));
        assert_eq!(upkeep.due(), at(1000), "what is due stays due");
        upkeep.looked(at(5000));
        upkeep.unseen(at(20_000));
        assert_eq!(upkeep.due(), at(20_000), "at once");
        upkeep.failed(at(20_000));
        assert_eq!(upkeep.due(), at(21_000));
    }
}
