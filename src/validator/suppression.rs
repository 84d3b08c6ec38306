//! When enabling providers is suppressed: too many refused submissions in a short time mean that whoever submits does
//! not know what it does, and each accepted definition would cost a failover.
//!
//! Pure: failures and the current time in, changes out. What counts as a failure and what is refused meanwhile is the
//! registry's to decide.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::sync::{Mutex, lock};
use crate::text;

/// When enabling is suppressed, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(all(test, feature = "config"), derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SuppressionSettings {
    /// More failures than this within the window suppress enabling. Default 5.
    pub threshold: usize,
    /// The window, and also how long it must stay free of failures for the suppression to end. Default 60 s.
    #[serde(with = "text::DurationText")]
    pub window: Duration,
}

impl SuppressionSettings {
    /// Sets how many failures within the window are not too many.
    #[must_use]
    pub fn threshold(mut self, threshold: usize) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets the window.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }
}

impl Default for SuppressionSettings {
    fn default() -> Self {
        Self { threshold: 5, window: Duration::from_secs(60) }
    }
}

/// A beginning or end of the suppression; the service raises a warning event for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SuppressionChange {
    /// Enabling is suppressed from now on.
    Started {
        /// When.
        at: Timestamp,
        /// How many failures within the window caused it.
        failures: usize,
        /// When it ends if nothing more fails.
        until: Timestamp,
    },
    /// Enabling is allowed again.
    Ended {
        /// When.
        at: Timestamp,
        /// Whether an operator lifted it, rather than time.
        lifted: bool,
    },
}

impl fmt::Display for SuppressionChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SuppressionChange::Started { at, failures, until } => write!(
                f,
                "enabling providers is suppressed for {:?} at least, after {failures} refused definitions",
                until.since(*at)
            ),
            SuppressionChange::Ended { lifted: true, .. } => f.write_str("enabling providers was allowed again"),
            SuppressionChange::Ended { lifted: false, .. } => {
                f.write_str("enabling providers is allowed again: no definition was refused for a while")
            }
        }
    }
}

/// Counts validation failures and says when enabling is suppressed. See [`SuppressionSettings`].
#[derive(Clone, Debug)]
pub struct Suppression {
    threshold: usize,
    window: Duration,
    /// The latest failures, oldest first; never more than it takes to suppress.
    failures: VecDeque<Timestamp>,
    active: bool,
    /// All failures ever counted.
    total: u64,
}

impl Suppression {
    /// Not suppressed, and no failures counted.
    pub fn new(settings: SuppressionSettings) -> Self {
        let SuppressionSettings { threshold, window } = settings;
        Self { threshold, window, failures: VecDeque::new(), active: false, total: 0 }
    }

    /// Counts a failure. While suppressed it prolongs the suppression. Call [`advance`](Self::advance) with the same
    /// time first, so that an end that fell before it is not lost.
    pub fn failure(&mut self, now: Timestamp) -> Option<SuppressionChange> {
        self.total += 1;
        if self.failures.len() > self.threshold {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let oldest = self.failures.front().copied().unwrap_or(now);
        let too_many = self.failures.len() > self.threshold && now.since(oldest) <= self.window;
        if self.active || !too_many {
            return None;
        }
        self.active = true;
        Some(SuppressionChange::Started { at: now, failures: self.failures.len(), until: now + self.window })
    }

    /// Lets time pass: ends the suppression once the window has gone by without a failure.
    pub fn advance(&mut self, now: Timestamp) -> Option<SuppressionChange> {
        if now < self.until()? {
            return None;
        }
        self.end(now, false)
    }

    /// Ends the suppression and forgets the failures, by an operator's order. `None` if it was not suppressed.
    pub fn lift(&mut self, now: Timestamp) -> Option<SuppressionChange> {
        self.failures.clear();
        self.end(now, true)
    }

    /// How many failures were counted since the beginning.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether enabling is suppressed, as of the last [`advance`](Self::advance).
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// When the suppression ends if nothing more fails; `None` if it is not suppressed.
    pub fn until(&self) -> Option<Timestamp> {
        self.failures.back().filter(|_| self.active).map(|last| *last + self.window)
    }

    fn end(&mut self, at: Timestamp, lifted: bool) -> Option<SuppressionChange> {
        if !std::mem::take(&mut self.active) {
            return None;
        }
        self.failures.clear();
        Some(SuppressionChange::Ended { at, lifted })
    }
}

/// The most changes that wait to be taken; the oldest go first.
const MAX_CHANGES: usize = 64;

/// The suppression as several threads share it: whoever looks at it or lifts it waits for nothing that is under way.
#[derive(Clone, Debug)]
pub(crate) struct SharedSuppression(Arc<Mutex<Noted>>);

/// The suppression, and its beginnings and ends that wait to be told.
#[derive(Debug)]
struct Noted {
    suppression: Suppression,
    changes: VecDeque<SuppressionChange>,
}

impl SharedSuppression {
    pub(crate) fn new(settings: SuppressionSettings) -> Self {
        let suppression = Suppression::new(settings);
        Self(Arc::new(Mutex::new(Noted { suppression, changes: VecDeque::new() })))
    }

    /// Counts a failure.
    pub(crate) fn failure(&self, now: Timestamp) {
        self.with(now, |suppression| suppression.failure(now));
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, now: Timestamp) {
        self.with(now, |_| None);
    }

    /// Lifts the suppression; whether there was one.
    pub(crate) fn lift(&self, now: Timestamp) -> bool {
        self.with(now, |suppression| suppression.lift(now))
    }

    /// See [`Suppression::is_active`].
    pub(crate) fn is_active(&self) -> bool {
        lock(&self.0).suppression.is_active()
    }

    /// See [`Suppression::until`].
    pub(crate) fn until(&self) -> Option<Timestamp> {
        lock(&self.0).suppression.until()
    }

    /// See [`Suppression::total`].
    pub(crate) fn total(&self) -> u64 {
        lock(&self.0).suppression.total()
    }

    /// The beginnings and ends since the last call, up to this time, oldest first.
    pub(crate) fn take_changes(&self, now: Timestamp) -> Vec<SuppressionChange> {
        self.advance(now);
        lock(&self.0).changes.drain(..).collect()
    }

    /// Does something at that time; whether the suppression began or ended by it.
    fn with(&self, now: Timestamp, change: impl FnOnce(&mut Suppression) -> Option<SuppressionChange>) -> bool {
        let mut noted = lock(&self.0);
        let Noted { suppression, changes } = &mut *noted;
        changes.extend(suppression.advance(now));
        let change = change(suppression);
        changes.extend(change);
        let surplus = changes.len().saturating_sub(MAX_CHANGES);
        changes.drain(..surplus);
        change.is_some()
    }
}

impl Default for Suppression {
    fn default() -> Self {
        Self::new(SuppressionSettings::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn after_failures(seconds: impl IntoIterator<Item = u64>) -> (Suppression, Vec<SuppressionChange>) {
        let mut suppression = Suppression::default();
        let changes = seconds.into_iter().filter_map(|second| suppression.failure(at(second))).collect();
        (suppression, changes)
    }

    #[test]
    fn p5_2_more_than_five_failures_within_a_minute_suppress_and_five_do_not() {
        let (five, changes) = after_failures([0, 1, 2, 3, 4]);
        assert!(!five.is_active() && changes.is_empty() && five.until().is_none());
        let (six, changes) = after_failures([0, 15, 30, 40, 50, 60]);
        assert!(six.is_active());
        assert_eq!(changes, [SuppressionChange::Started { at: at(60), failures: 6, until: at(120) }]);
        assert_eq!((five.total(), six.total()), (5, 6));
    }

    #[test]
    fn p5_2_failures_further_apart_than_the_window_do_not_suppress() {
        let (slow, changes) = after_failures([0, 13, 26, 39, 52, 61, 74, 87]);
        assert!(!slow.is_active() && changes.is_empty());
    }

    #[test]
    fn p5_2_a_minute_without_a_failure_ends_it_and_a_failure_prolongs_it() {
        let (mut suppression, _) = after_failures([0; 6]);
        assert_eq!(suppression.advance(at(59)), None);
        assert_eq!(suppression.failure(at(59)), None);
        assert_eq!(suppression.until(), Some(at(119)));
        assert_eq!(suppression.advance(at(118)), None);
        assert!(suppression.is_active());
        assert_eq!(suppression.advance(at(119)), Some(SuppressionChange::Ended { at: at(119), lifted: false }));
        assert!(!suppression.is_active());
        assert_eq!(suppression.advance(at(120)), None);

        let (mut suppression, _) = after_failures([0; 6]);
        assert!(suppression.advance(at(60)).is_some());
        assert_eq!(suppression.failure(at(60)), None, "the count begins anew");
    }

    #[test]
    fn p5_2_lifting_ends_it_and_forgets_the_failures() {
        let (mut suppression, _) = after_failures([0; 6]);
        assert_eq!(suppression.lift(at(1)), Some(SuppressionChange::Ended { at: at(1), lifted: true }));
        assert!(!suppression.is_active());
        assert_eq!(suppression.lift(at(1)), None);
        for _ in 0..5 {
            assert_eq!(suppression.failure(at(2)), None);
        }
        assert_eq!(suppression.lift(at(3)), None);
        assert_eq!(suppression.failure(at(3)), None, "lifting forgets failures also before the threshold");
    }

    #[test]
    fn p5_2_threshold_and_window_are_settings() {
        let window = Duration::from_secs(5);
        let mut suppression = Suppression::new(SuppressionSettings { threshold: 0, window });
        assert!(suppression.failure(at(0)).is_some(), "with a threshold of 0 the first suppresses");
        assert!(suppression.advance(at(5)).is_some());
        let mut suppression = Suppression::new(SuppressionSettings { threshold: 1, window });
        assert!(suppression.failure(at(0)).is_none());
        assert!(suppression.failure(at(6)).is_none());
        assert!(suppression.failure(at(7)).is_some());
    }
}
