//! Time as the library sees it.
//!
//! Every rule takes the current time as an argument; only the shell asks a [`Clock`]. A [`Timestamp`] never runs
//! backwards, also when the wall clock is set, and still reads as a point in civil time, so that events, logs and
//! metrics can show it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::civil;
use crate::panics::{Foreign, caught};

/// A point in time: nanoseconds since the Unix epoch as the wall clock stood when the [`Clock`] was made, carried
/// forward by a clock that never runs backwards. It does not follow later corrections of the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point that many nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The point that many milliseconds after the Unix epoch; saturates.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this point is; zero if it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This point in civil time.
    pub fn as_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

/// Saturates at the end of time (the year 2554).
impl std::ops::Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Civil time in UTC, to the millisecond, as RFC 3339 has it: `2026-11-21T08:15:30.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.as_millis();
        let (year, month, day) = civil::date(millis / 86_400_000);
        let (hour, minute) = (millis / 3_600_000 % 24, millis / 60_000 % 60);
        let (second, milli) = (millis / 1000 % 60, millis % 1000);
        f.pad(&format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
    }
}

/// As RFC 3339 has it, to the millisecond.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Where the shell reads the time. Hosts use [`SystemClock`]; tests use the test kit's fake clock.
///
/// The service reads it through a guard: a clock that panics shows the time it showed last, and one that is set back goes
/// on from there instead of standing still until it has caught up.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current time. Should never be earlier than any value returned before.
    fn now(&self) -> Timestamp;
}

/// The operating system's clocks: wall time when it is made, from there on the time since the machine's start. On Linux
/// that goes on while the machine is suspended (`CLOCK_BOOTTIME`), so that data of before a suspension is as old as it
/// is; elsewhere the time of a suspension is not counted.
#[derive(Debug)]
pub struct SystemClock {
    origin: Timestamp,
    started: Uptime,
}

impl SystemClock {
    /// A clock that starts at the current wall time. A wall clock before 1970 counts as 1970.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let origin = Timestamp::default() + since_epoch;
        Self { origin, started: Uptime::now() }
    }

    /// The same, ready to be handed to a builder.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.origin + self.started.elapsed()
    }
}

/// A point on the clock that neither runs backwards nor, where the system has such a one, stands still during a
/// suspension.
#[derive(Clone, Copy, Debug)]
struct Uptime {
    #[cfg(target_os = "linux")]
    boot: rustix::time::Timespec,
    #[cfg(not(target_os = "linux"))]
    instant: std::time::Instant,
}

#[cfg(target_os = "linux")]
impl Uptime {
    fn now() -> Self {
        Self { boot: rustix::time::clock_gettime(rustix::time::ClockId::Boottime) }
    }

    fn elapsed(self) -> Duration {
        let nanos = |time: rustix::time::Timespec| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        let elapsed = nanos(Self::now().boot) - nanos(self.boot);
        Duration::from_nanos(u64::try_from(elapsed).unwrap_or_default())
    }
}

#[cfg(not(target_os = "linux"))]
impl Uptime {
    fn now() -> Self {
        Self { instant: std::time::Instant::now() }
    }

    fn elapsed(self) -> Duration {
        self.instant.elapsed()
    }
}

/// How far a clock may go back before it counts as set back. Threads that read it at one moment differ by less.
const SET_BACK: u64 = 1_000_000_000;

/// The host's clock as the service reads it: it neither panics nor runs backwards, and goes on after it was set back.
#[derive(Debug)]
pub(crate) struct SteadyClock {
    clock: Foreign<Arc<dyn Clock>>,
    /// The latest time shown, in nanoseconds.
    shown: AtomicU64,
    /// By how much the host's clock was set back, all in all, in nanoseconds.
    behind: AtomicU64,
}

impl SteadyClock {
    /// The host's clock, guarded.
    pub(crate) fn over(clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        Arc::new(Self { clock: Foreign::new(clock), shown: AtomicU64::new(0), behind: AtomicU64::new(0) })
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let behind = self.behind.load(Ordering::Acquire);
        let Ok(told) = caught(|| self.clock.now()) else {
            return Timestamp(self.shown.load(Ordering::Acquire));
        };
        let time = told.0.saturating_add(behind);
        let shown = self.shown.fetch_max(time, Ordering::AcqRel);
        if time >= shown {
            return Timestamp(time);
        }
        let back = shown - time;
        if back >= SET_BACK {
            // Whoever notices first says by how much; the others read the time anew.
            let further = behind.saturating_add(back);
            _ = self.behind.compare_exchange(behind, further, Ordering::AcqRel, Ordering::Acquire);
        }
        Timestamp(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_civil_time() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(Timestamp::from_millis(seconds * 1000 + 7).to_string(), date);
        }
        assert_eq!(Timestamp::from_nanos(u64::MAX).to_string(), "2554-07-21T23:34:33.709Z");
    }

    /// Shows what it is told to, or panics.
    #[derive(Debug, Default)]
    struct Told(AtomicU64);

    impl Clock for Told {
        fn now(&self) -> Timestamp {
            match self.0.load(Ordering::SeqCst) {
                u64::MAX => panic!("a broken clock"),
                seconds => Timestamp::from_millis(seconds * 1000),
            }
        }
    }

    #[test]
    fn p2_5_a_clock_that_is_set_back_goes_on_from_where_it_was_and_one_that_panics_stands_still() {
        let told = Arc::new(Told::default());
        let clock = SteadyClock::over(told.clone());
        let show = |seconds: u64| {
            told.0.store(seconds, Ordering::SeqCst);
            clock.now().as_millis() / 1000
        };
        assert_eq!((show(10_000), show(10_005)), (10_000, 10_005));
        assert_eq!((show(6_400), show(6_401)), (10_005, 10_006), "an hour back");
        assert_eq!((show(100), show(103)), (10_006, 10_009), "and once more");
        assert_eq!(show(u64::MAX), 10_009);
        assert_eq!((show(104), show(9_000)), (10_010, 18_906), "forward is believed");
    }

    #[test]
    fn a_read_that_is_overtaken_by_another_threads_is_no_setting_back() {
        let told = Arc::new(Told::default());
        let steady =
            SteadyClock { clock: Foreign::new(told.clone()), shown: AtomicU64::new(0), behind: AtomicU64::new(0) };
        told.0.store(10, Ordering::SeqCst);
        steady.shown.store(10_900_000_000, Ordering::SeqCst);
        assert_eq!(steady.now(), Timestamp::from_millis(10_900));
        told.0.store(11, Ordering::SeqCst);
        assert_eq!(steady.now(), Timestamp::from_millis(11_000));
    }

    #[test]
    fn the_systems_clock_starts_at_the_wall_time_and_goes_on() {
        let clock = SystemClock::new();
        let (wall, first, second) = (SystemTime::now(), clock.now(), clock.now());
        assert!(second >= first);
        let apart = wall.duration_since(first.as_system_time()).unwrap_or_else(|early| early.duration());
        assert!(apart < Duration::from_secs(60), "{apart:?}");
    }
}
