//! Whether the host has taken the topology over, and when it is offered once more.
//!
//! An update is handed to the host, which says whether it could apply it. If not, the failure is told and the last update,
//! which has all members, is offered again after a while: twice as late each time, up to half a minute. A later update takes
//! the place of one that could not be applied.

use std::sync::Arc;
use std::time::Duration;

use super::settling::TopologyUpdate;
use crate::clock::Timestamp;

/// After so long it is offered again the first time.
const FIRST: Duration = Duration::from_millis(200);
/// And after so long at the most.
const LONGEST: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Applying {
    /// The last update, until it was applied.
    open: Option<Arc<TopologyUpdate>>,
    /// How often in a row applying has failed.
    failures: u32,
    again_at: Option<Timestamp>,
}

impl Applying {
    /// An update was handed to the host.
    pub(super) fn offered(&mut self, update: Arc<TopologyUpdate>) {
        (self.open, self.again_at) = (Some(update), None);
    }

    /// The host has applied the update of that number, and with it all before.
    pub(super) fn applied(&mut self, number: u64) {
        self.failures = 0;
        if self.open.as_ref().is_some_and(|open| open.number <= number) {
            (self.open, self.again_at) = (None, None);
        }
    }

    /// The host could not apply the update of that number. How often in a row that has happened; `None` where it does not
    /// matter any more, for a later one was handed over.
    pub(super) fn failed(&mut self, number: u64, now: Timestamp) -> Option<u32> {
        if self.open.as_ref().is_none_or(|open| open.number != number) {
            return None;
        }
        let pause = FIRST.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.again_at = Some(now + pause);
        Some(self.failures)
    }

    /// The update that is to be offered once more by now.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Arc<TopologyUpdate>> {
        self.again_at.take_if(|at| *at <= now)?;
        self.open.clone()
    }

    /// When to ask again.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.again_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Members;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn update(number: u64) -> Arc<TopologyUpdate> {
        let (joined, updated, left, dead) = (vec![], vec![], vec![], vec![]);
        Arc::new(TopologyUpdate { number, at: at(0), joined, updated, left, dead, members: Members::new() })
    }

    #[test]
    fn m4_4_what_could_not_be_applied_is_offered_again_later_each_time() {
        let mut applying = Applying::default();
        applying.offered(update(1));
        let mut now = at(0);
        let mut pauses = Vec::new();
        for attempt in 1..=10 {
            assert_eq!(applying.failed(1, now), Some(attempt));
            let next = applying.next_at().unwrap();
            assert_eq!(applying.due(now), None);
            pauses.push(next.since(now).as_millis());
            now = next;
            assert_eq!(applying.due(now).map(|update| update.number), Some(1));
            assert_eq!((applying.due(now), applying.next_at()), (None, None), "once");
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        applying.applied(1);
        assert_eq!(applying.failed(1, now), None);
        applying.offered(update(2));
        applying.failed(2, now);
        assert_eq!(applying.next_at(), Some(now + Duration::from_millis(200)), "it begins anew");
    }

    #[test]
    fn m4_4_a_later_update_takes_the_place_of_one_that_could_not_be_applied() {
        let mut applying = Applying::default();
        applying.offered(update(1));
        applying.failed(1, at(0));
        applying.offered(update(2));
        assert_eq!((applying.next_at(), applying.failed(1, at(1))), (None, None));
        applying.applied(1);
        assert_eq!(applying.failed(2, at(2)), Some(1), "the second one is open still");
        applying.applied(2);
        assert_eq!((applying.due(at(9999)), applying.next_at()), (None, None));
    }
}
