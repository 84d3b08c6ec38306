//! The health of one provider, from what its stream reported and which of its timers ran out.
//!
//! Decides: what counts as an error, what clears it, when a provider is Degraded or Unreachable. Leaves to others what
//! follows from it, and when its timers are looked at: silence and overdue data count once they were found, not before,
//! so that a report that waits to be heard is never taken for silence.

use std::time::Duration;

use super::FailoverPolicy;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::health::ProviderHealth;
use crate::id::ProviderId;

/// What is known of one provider's stream, and the health that follows from it.
#[derive(Clone, Debug)]
pub(crate) struct HealthTracker {
    id: ProviderId,
    refresh_interval: Option<Duration>,
    /// When the provider last gave a sign of life.
    last_sign: Option<Timestamp>,
    /// Where the silence window begins: the last sign of life, or later after a pause of the whole process.
    quiet_from: Option<Timestamp>,
    /// The silence window ran out.
    silent: bool,
    /// When the data was last confirmed.
    last_refresh: Option<Timestamp>,
    /// Where the window of overdue data begins: the last refresh, or later after a pause of the whole process.
    fresh_from: Timestamp,
    /// The window of overdue data ran out.
    overdue: bool,
    errors: u32,
    /// The last error since the last refresh.
    error: Option<ProvisioningError>,
    /// What made the last stream end; until the next stream refreshes.
    ended: Option<ProvisioningError>,
    has_snapshot: bool,
    /// Whether anything has changed since the health was judged.
    unjudged: bool,
    health: ProviderHealth,
    since: Timestamp,
    /// Since when it has not been healthy; `None` while it is.
    ailing_since: Option<Timestamp>,
    cause: Option<ProvisioningError>,
}

impl HealthTracker {
    /// A provider that has not been heard of; or, if `reachable`, one whose backend just answered a check.
    pub(crate) fn new(id: ProviderId, refresh_interval: Option<Duration>, reachable: bool, now: Timestamp) -> Self {
        let heard = reachable.then_some(now);
        let mut tracker = Self {
            id,
            refresh_interval,
            last_sign: heard,
            quiet_from: heard,
            silent: false,
            last_refresh: None,
            fresh_from: now,
            overdue: false,
            errors: 0,
            error: None,
            ended: None,
            has_snapshot: false,
            unjudged: true,
            health: if reachable { ProviderHealth::Degraded } else { ProviderHealth::Unreachable },
            since: now,
            ailing_since: Some(now),
            cause: None,
        };
        tracker.cause = tracker.judge(&FailoverPolicy::default()).1;
        tracker
    }

    /// The provider is defined anew, and goes on as what it is: its health, its data and its errors stay until its next
    /// stream says otherwise. `reachable`: its backend just answered a check, which is a sign of life.
    pub(crate) fn redefine(&mut self, refresh_interval: Option<Duration>, reachable: bool, now: Timestamp) {
        self.refresh_interval = refresh_interval;
        self.unjudged = true;
        if reachable {
            self.sign_of_life(now);
        }
    }

    /// Any event: a sign of life.
    pub(crate) fn sign_of_life(&mut self, now: Timestamp) {
        self.last_sign = Some(now);
        self.quiet_from = Some(now);
        self.unjudged |= std::mem::take(&mut self.silent) || self.health == ProviderHealth::Unreachable;
    }

    /// The data was confirmed: errors and doubts are over.
    pub(crate) fn refreshed(&mut self, now: Timestamp) {
        self.has_snapshot = true;
        self.last_refresh = Some(now);
        self.fresh_from = now;
        self.overdue = false;
        self.errors = 0;
        self.error = None;
        self.ended = None;
        self.unjudged |= self.health != ProviderHealth::Healthy;
    }

    /// One more error in a row.
    pub(crate) fn failed(&mut self, error: ProvisioningError) {
        self.errors = self.errors.saturating_add(1);
        self.doubted(error);
    }

    /// The backend's answer is not believed; not an error, but not healthy either.
    pub(crate) fn doubted(&mut self, reason: ProvisioningError) {
        self.error = Some(reason);
        self.unjudged = true;
    }

    /// The stream came to its end; one more error in a row.
    pub(crate) fn terminated(&mut self, cause: ProvisioningError) {
        self.failed(cause.clone());
        self.ended = Some(cause);
    }

    /// The silence window ran out.
    pub(crate) fn fall_silent(&mut self) {
        self.silent = true;
        self.unjudged = true;
    }

    /// The window of overdue data ran out.
    pub(crate) fn become_overdue(&mut self) {
        self.overdue = true;
        self.unjudged = true;
    }

    /// It no longer watches: what it showed counts for nothing until it is heard of again.
    pub(crate) fn forget(&mut self) {
        self.last_sign = None;
        self.quiet_from = None;
        self.silent = false;
        self.last_refresh = None;
        self.overdue = false;
        self.errors = 0;
        self.error = None;
        self.ended = None;
        self.has_snapshot = false;
        self.unjudged = true;
    }

    /// The whole process stood still: nobody could have been heard, so the windows begin again.
    pub(crate) fn restart_windows(&mut self, now: Timestamp) {
        if self.quiet_from.is_some() && self.health != ProviderHealth::Unreachable {
            self.quiet_from = Some(now);
        }
        // Data that was overdue before stays so: only a refresh makes it fresh.
        if self.health == ProviderHealth::Healthy {
            self.fresh_from = now;
        }
    }

    /// Whether the last stream ended and none has refreshed since.
    pub(crate) fn is_terminated(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether it has ever delivered its members.
    pub(crate) fn has_snapshot(&self) -> bool {
        self.has_snapshot
    }

    /// Whether it has neither shown its members yet nor failed. A first answer that is not believed is neither.
    pub(crate) fn is_unheard(&self) -> bool {
        !self.has_snapshot && self.errors == 0
    }

    /// Errors in a row.
    pub(crate) fn errors(&self) -> u32 {
        self.errors
    }

    /// When the data was last confirmed.
    pub(crate) fn last_refresh(&self) -> Option<Timestamp> {
        self.last_refresh
    }

    /// When the provider last gave a sign of life.
    pub(crate) fn last_sign(&self) -> Option<Timestamp> {
        self.last_sign
    }

    /// The health as of the last [`assess`](Self::assess).
    pub(crate) fn health(&self) -> ProviderHealth {
        self.health
    }

    /// Since when the health is what it is.
    pub(crate) fn since(&self) -> Timestamp {
        self.since
    }

    /// Since when it has not been healthy, whatever else it was; `None` while it is.
    pub(crate) fn ailing_since(&self) -> Option<Timestamp> {
        self.ailing_since
    }

    /// What is wrong, if anything is, as of the last [`assess`](Self::assess).
    pub(crate) fn cause(&self) -> Option<&ProvisioningError> {
        self.cause.as_ref()
    }

    /// Judges the health; returns the former one, and since when it was so, if it changed.
    pub(crate) fn assess(&mut self, now: Timestamp, policy: &FailoverPolicy) -> Option<(ProviderHealth, Timestamp)> {
        if !std::mem::take(&mut self.unjudged) {
            return None;
        }
        let (health, cause) = self.judge(policy);
        self.cause = cause;
        if health == self.health {
            return None;
        }
        self.ailing_since = match health {
            ProviderHealth::Healthy => None,
            _ => self.ailing_since.or(Some(now)),
        };
        let since = std::mem::replace(&mut self.since, now);
        Some((std::mem::replace(&mut self.health, health), since))
    }

    fn judge(&self, policy: &FailoverPolicy) -> (ProviderHealth, Option<ProvisioningError>) {
        let problem = |code, detail: String| {
            Some(ProvisioningError::new(code, "watching the topology", detail).with_provider(&self.id))
        };
        if self.last_sign.is_none() {
            let never = || problem(ErrorCode::NoSnapshot, "it has not been heard of yet".into());
            return (ProviderHealth::Unreachable, self.error.clone().or_else(never));
        }
        if self.errors >= policy.max_errors {
            return (ProviderHealth::Unreachable, self.error.clone());
        }
        if self.silent {
            let detail = format!("no sign of life for {:?}", policy.silence_timeout);
            return (ProviderHealth::Unreachable, problem(ErrorCode::StreamSilent, detail));
        }
        if let Some(error) = self.ended.as_ref().or(self.error.as_ref()) {
            return (ProviderHealth::Degraded, Some(error.clone()));
        }
        if !self.has_snapshot {
            return (
                ProviderHealth::Degraded,
                problem(ErrorCode::NoSnapshot, "it has not delivered its members yet".into()),
            );
        }
        if self.overdue {
            let interval = self.refresh_interval.unwrap_or_default();
            let detail = format!("not refreshed for twice its refresh interval of {interval:?}");
            return (ProviderHealth::Degraded, problem(ErrorCode::DataOverdue, detail));
        }
        (ProviderHealth::Healthy, None)
    }

    /// When the silence window runs out, unless it has.
    pub(crate) fn silent_at(&self, policy: &FailoverPolicy) -> Option<Timestamp> {
        self.quiet_from.filter(|_| !self.silent).map(|from| from + policy.silence_timeout)
    }

    /// When the data becomes overdue, unless it is: the age *exceeds* twice the interval, hence the nanosecond.
    pub(crate) fn overdue_at(&self) -> Option<Timestamp> {
        let interval = self.refresh_interval.filter(|_| self.has_snapshot && !self.overdue)?;
        Some(self.fresh_from + interval.saturating_mul(2) + Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::ProviderHealth::*;
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn tracker(interval: Option<Duration>) -> HealthTracker {
        HealthTracker::new(ProviderId::new("a").unwrap(), interval, false, at(0))
    }

    fn error() -> ProvisioningError {
        ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused")
    }

    /// Lets the timers that have run out by then run out, and judges.
    fn health(tracker: &mut HealthTracker, millis: u64) -> ProviderHealth {
        let policy = FailoverPolicy::default();
        if tracker.silent_at(&policy).is_some_and(|silent| silent <= at(millis)) {
            tracker.fall_silent();
        }
        if tracker.overdue_at().is_some_and(|overdue| overdue <= at(millis)) {
            tracker.become_overdue();
        }
        tracker.assess(at(millis), &policy);
        tracker.health()
    }

    fn refresh(tracker: &mut HealthTracker, millis: u64) {
        tracker.sign_of_life(at(millis));
        tracker.refreshed(at(millis));
    }

    #[test]
    fn p4_5_a_provider_begins_unreachable_unless_its_backend_just_answered() {
        assert_eq!(health(&mut tracker(None), 0), Unreachable);
        let mut checked = HealthTracker::new(ProviderId::new("a").unwrap(), None, true, at(0));
        assert_eq!(health(&mut checked, 14_999), Degraded);
        assert_eq!(health(&mut checked, 15_000), Unreachable);
    }

    #[test]
    fn p2_5_fifteen_seconds_of_silence_are_unreachable_and_any_event_ends_it() {
        let mut tracker = tracker(None);
        refresh(&mut tracker, 0);
        assert_eq!(health(&mut tracker, 14_999), Healthy);
        assert_eq!(health(&mut tracker, 15_000), Unreachable);
        tracker.sign_of_life(at(15_001));
        assert_eq!(health(&mut tracker, 15_001), Healthy);
    }

    #[test]
    fn p2_5_one_or_two_errors_degrade_and_the_third_makes_unreachable_until_a_refresh() {
        let mut tracker = tracker(None);
        refresh(&mut tracker, 0);
        for expected in [Degraded, Degraded, Unreachable] {
            tracker.sign_of_life(at(1));
            tracker.failed(error());
            assert_eq!(health(&mut tracker, 1), expected);
        }
        tracker.sign_of_life(at(2));
        assert_eq!(health(&mut tracker, 2), Unreachable, "only a refresh clears errors");
        refresh(&mut tracker, 3);
        assert_eq!(health(&mut tracker, 3), Healthy);
        tracker.failed(error());
        assert_eq!(health(&mut tracker, 4), Degraded, "the count began again");
    }

    #[test]
    fn p4_3_doubtful_answers_degrade_but_never_make_unreachable() {
        let mut tracker = tracker(None);
        refresh(&mut tracker, 0);
        for _ in 0..10 {
            tracker.sign_of_life(at(1));
            tracker.doubted(error());
            assert_eq!(health(&mut tracker, 1), Degraded);
        }
        refresh(&mut tracker, 2);
        assert_eq!(health(&mut tracker, 2), Healthy);
    }

    #[test]
    fn p2_2_a_terminated_provider_is_degraded_until_its_next_stream_refreshes() {
        let mut tracker = tracker(None);
        refresh(&mut tracker, 0);
        tracker.terminated(error());
        assert_eq!((health(&mut tracker, 1), tracker.is_terminated()), (Degraded, true));
        tracker.sign_of_life(at(2));
        assert_eq!((health(&mut tracker, 2), tracker.is_terminated()), (Degraded, true));
        refresh(&mut tracker, 3);
        assert_eq!((health(&mut tracker, 3), tracker.is_terminated()), (Healthy, false));
    }

    #[test]
    fn p2_5_data_older_than_twice_the_refresh_interval_is_overdue() {
        let mut tracker = tracker(Some(Duration::from_secs(3)));
        refresh(&mut tracker, 0);
        tracker.sign_of_life(at(5_000));
        assert_eq!(health(&mut tracker, 6_000), Healthy);
        assert_eq!(health(&mut tracker, 6_001), Degraded);
        assert_eq!(tracker.cause().unwrap().code(), ErrorCode::DataOverdue);
        refresh(&mut tracker, 6_002);
        assert_eq!(health(&mut tracker, 6_002), Healthy);
    }

    #[test]
    fn p2_5_a_standstill_of_the_process_restarts_the_windows_of_those_that_were_reachable() {
        let mut tracker = self::tracker(Some(MINUTE));
        refresh(&mut tracker, 0);
        tracker.assess(at(0), &FailoverPolicy::default());
        tracker.restart_windows(at(200_000));
        assert_eq!(health(&mut tracker, 200_001), Healthy);
        assert_eq!(tracker.last_refresh(), Some(at(0)), "the data's age stays honest");
        let mut lost = self::tracker(None);
        lost.restart_windows(at(200_000));
        assert_eq!(health(&mut lost, 200_000), Unreachable);
    }

    #[test]
    fn p4_5_since_is_the_time_of_the_last_change() {
        let mut tracker = tracker(None);
        refresh(&mut tracker, 10);
        health(&mut tracker, 10);
        health(&mut tracker, 500);
        assert_eq!(tracker.since(), at(10));
        assert_eq!(tracker.errors(), 0);
    }

    #[test]
    fn p2_5_a_standstill_does_not_bring_a_silent_provider_back() {
        let mut tracker = self::tracker(None);
        refresh(&mut tracker, 0);
        assert_eq!(health(&mut tracker, 15_000), Unreachable);
        tracker.restart_windows(at(16_000));
        assert_eq!(health(&mut tracker, 16_000), Unreachable);
    }

    #[test]
    fn p2_5_silence_and_age_count_only_once_their_timers_have_run_out() {
        let policy = FailoverPolicy::default();
        let mut tracker = self::tracker(Some(Duration::from_secs(3)));
        assert_eq!((tracker.silent_at(&policy), tracker.overdue_at()), (None, None), "never heard of");
        tracker.sign_of_life(at(1_000));
        assert_eq!(
            (tracker.silent_at(&policy), tracker.overdue_at()),
            (Some(at(16_000)), None),
            "nothing to be overdue"
        );
        refresh(&mut tracker, 2_000);
        let overdue = at(8_000) + Duration::from_nanos(1);
        assert_eq!((tracker.silent_at(&policy), tracker.overdue_at()), (Some(at(17_000)), Some(overdue)));
        // A day later, but its timers were not looked at: what it said meanwhile may still wait to be heard.
        tracker.assess(at(86_400_000), &policy);
        assert_eq!(tracker.health(), Healthy);
        assert_eq!(health(&mut tracker, 86_400_000), Unreachable);
        assert_eq!((tracker.silent_at(&policy), tracker.overdue_at()), (None, None), "they run out once");
    }

    #[test]
    fn p5_4_a_provider_that_is_defined_anew_keeps_its_health_until_it_says_otherwise() {
        let mut tracker = self::tracker(None);
        refresh(&mut tracker, 0);
        health(&mut tracker, 0);
        tracker.redefine(Some(Duration::from_secs(3)), false, at(5_000));
        assert_eq!(health(&mut tracker, 5_000), Healthy);
        assert_eq!((tracker.since(), tracker.last_refresh()), (at(0), Some(at(0))));
        assert_eq!(health(&mut tracker, 6_001), Degraded, "by its new interval");
        tracker.redefine(None, true, at(14_000));
        assert_eq!(health(&mut tracker, 15_000), Degraded, "its backend answered: no silence");
        assert_eq!(health(&mut tracker, 29_000), Unreachable);
    }
}
