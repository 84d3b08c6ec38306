//! Time that moves only when told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// A clock that shows 2020-01-01 00:00 UTC.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(Timestamp::from_millis(1_577_836_800_000).as_nanos())))
    }

    /// Moves the clock forward.
    pub fn advance(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Moves the clock forward to that time; does nothing if it shows that or a later one.
    pub fn advance_to(&self, time: Timestamp) {
        self.0.fetch_max(time.as_nanos(), Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::SeqCst))
    }
}
