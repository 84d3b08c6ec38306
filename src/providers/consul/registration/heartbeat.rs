//! When the TTL check is told to pass, as a state machine without a clock.
//!
//! The first pass is due at once, since a check of another's making may begin critical. Then three come in each TTL,
//! counted from the start of the one before, so that a slow answer does not stretch the period; a failed one is
//! repeated sooner. After a pause of the whole process one pass is due, not all that were missed.
//!
//! A pass is waited for no longer than an interval, since a connection may be dead, and since passes may arrive of which
//! only the answers do not: the next has to be sent before the TTL is over.

use std::time::Duration;

use crate::backoff::Jitter;
use crate::clock::Timestamp;

/// How many heartbeats a TTL holds: two may be lost or late before the check turns critical.
const PER_TTL: u32 = 3;

/// The pace of the heartbeats.
#[derive(Clone, Debug)]
pub(super) struct Heartbeat {
    ttl: Duration,
    due: Timestamp,
    /// Since when the check is known to pass.
    passed: Option<Timestamp>,
    jitter: Jitter,
}

impl Heartbeat {
    pub(super) fn new(ttl: Duration, seed: u64, now: Timestamp) -> Self {
        Self { ttl, due: now, passed: None, jitter: Jitter::new(seed) }
    }

    /// The interval of the heartbeats; one takes no longer, lest it keep the next from being sent.
    pub(super) fn interval(&self) -> Duration {
        self.ttl / PER_TTL
    }

    /// When the next pass is due.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// A pass is due at once.
    pub(super) fn hurry(&mut self, now: Timestamp) {
        self.due = now;
    }

    /// The pass that was sent at `sent` succeeded.
    pub(super) fn passed(&mut self, sent: Timestamp, now: Timestamp) {
        self.passed = Some(sent);
        self.due = (sent + self.jitter.scale(self.interval(), 0.9)).max(now);
    }

    /// The pass that was sent at `sent` failed: the next comes after half the interval, or as soon as this one is over.
    pub(super) fn failed(&mut self, sent: Timestamp, now: Timestamp) {
        self.due = (sent + self.jitter.scale(self.interval() / 2, 0.9)).max(now);
    }

    /// Whether the check passes by now, unless somebody else has written it.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.passed.is_some_and(|passed| now.since(passed) < self.ttl)
    }

    /// For how long the check has been critical by now, if it is: the TTL is over and nothing has passed.
    pub(super) fn lapsed(&self, now: Timestamp) -> Option<Duration> {
        let since = now.since(self.passed?);
        since.checked_sub(self.ttl).filter(|lapsed| !lapsed.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn consul_point_18_the_first_pass_is_due_at_once_and_three_fit_into_a_ttl() {
        for seed in 0..100 {
            let mut heartbeat = Heartbeat::new(TTL, seed, at(0));
            assert_eq!(heartbeat.due(), at(0), "seed {seed}");
            let mut sent = at(0);
            for _ in 0..3 {
                heartbeat.passed(sent, sent + Duration::from_millis(400));
                let pause = heartbeat.due().since(sent);
                assert!(
                    (Duration::from_millis(900)..=Duration::from_secs(1)).contains(&pause),
                    "seed {seed}: {pause:?}"
                );
                sent = heartbeat.due();
            }
            assert!(sent.since(at(0)) <= TTL, "seed {seed}");
        }
    }

    #[test]
    fn consul_point_18_a_failed_pass_is_repeated_sooner_and_never_in_a_hot_loop() {
        let mut heartbeat = Heartbeat::new(TTL, 1, at(0));
        heartbeat.failed(at(0), at(1));
        let pause = heartbeat.due().since(at(0));
        assert!((Duration::from_millis(450)..=Duration::from_millis(500)).contains(&pause), "{pause:?}");
        // A request that took longer than that has been pause enough.
        heartbeat.failed(at(1000), at(2000));
        assert_eq!(heartbeat.due(), at(2000));
    }

    #[test]
    fn consul_point_18_however_the_passes_fail_two_are_tried_again_before_the_check_turns_critical() {
        for seed in 0..5000 {
            let mut jitter = Jitter::new(seed);
            let ttl = Duration::from_millis(1000 + jitter.next() % 59_001);
            let mut heartbeat = Heartbeat::new(ttl, seed, at(0));
            heartbeat.passed(at(0), at(1));
            let mut tries = Vec::new();
            while heartbeat.due().since(at(0)) < ttl {
                let sent = heartbeat.due();
                tries.push(sent.since(at(0)));
                // Refused, or not answered, or anything between.
                heartbeat.failed(sent, sent + jitter.scale(heartbeat.interval(), 0.0));
                assert!(heartbeat.due() > sent, "seed {seed}");
            }
            let (earliest, latest) = (ttl / 4, ttl * 2 / 3 + Duration::from_millis(1));
            assert!(tries.len() >= 2 && tries[0] >= earliest && tries[1] <= latest, "seed {seed}: {ttl:?} {tries:?}");
        }
    }

    #[test]
    fn consul_point_18_a_check_is_fresh_for_a_ttl_from_when_its_pass_was_sent() {
        let mut heartbeat = Heartbeat::new(TTL, 1, at(0));
        assert!(!heartbeat.is_fresh(at(0)));
        heartbeat.passed(at(100), at(900));
        assert!(heartbeat.is_fresh(at(3099)) && !heartbeat.is_fresh(at(3100)));
    }

    #[test]
    fn consul_point_18_a_check_that_was_just_registered_anew_waits_for_no_pause() {
        let mut heartbeat = Heartbeat::new(TTL, 1, at(0));
        heartbeat.failed(at(0), at(1));
        heartbeat.hurry(at(2));
        assert_eq!(heartbeat.due(), at(2));
    }

    #[test]
    fn consul_point_18_after_a_standstill_one_pass_is_due_and_the_lapse_is_known() {
        let mut heartbeat = Heartbeat::new(TTL, 1, at(0));
        assert_eq!(heartbeat.lapsed(at(60_000)), None, "it has never passed");
        heartbeat.passed(at(0), at(1));
        assert_eq!(heartbeat.lapsed(at(3000)), None);
        assert_eq!(heartbeat.lapsed(at(13_000)), Some(Duration::from_secs(10)));
        heartbeat.passed(at(13_000), at(13_001));
        assert_eq!(heartbeat.lapsed(at(13_002)), None);
        assert!(heartbeat.due() > at(13_800), "what was missed is not caught up");
    }
}
