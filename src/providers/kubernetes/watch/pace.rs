//! How long to wait after something went wrong: the pauses that Kubernetes' own clients make, and what the server asks for.
//!
//! Every failure is followed by a pause, whatever is asked next. Only a token that was read anew is tried at once.
//!
//! A host tunes the pauses by its [`RetryPolicy`]. Its defaults stand for the pace of Kubernetes' own clients, which
//! begins sooner and grows longer; what a host sets otherwise, the first or the longest, is followed to the letter.

use std::time::Duration;

use crate::backoff::{Backoff, Jitter};
use crate::clock::Timestamp;
use crate::provider::RetryPolicy;

/// The first pause is drawn from its upper half, and so from 800 ms to twice that.
const FIRST: Duration = Duration::from_millis(1600);
/// The longest: from 30 s to twice that.
const LONGEST: Duration = Duration::from_secs(60);
/// The pauses begin anew when nothing has failed for that long.
const CALM: Duration = Duration::from_secs(120);
/// The longest that a server can ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// A token that is refused right after it was read anew is not tried at once again before that.
const REREAD: Duration = Duration::from_secs(30);

/// The pauses of one stream.
#[derive(Debug)]
pub(super) struct Pace {
    backoff: Backoff,
    /// When the last pause ended, or ends.
    resumed: Timestamp,
    reread: Option<Timestamp>,
}

impl Pace {
    pub(super) fn new(retry: RetryPolicy, now: Timestamp) -> Self {
        let (set, default) = (retry.sound(), RetryPolicy::default());
        let pace = RetryPolicy::new(
            if set.first == default.first { FIRST.min(set.longest) } else { set.first },
            if set.longest == default.longest { LONGEST } else { set.longest },
        );
        Self { backoff: pace.backoff(), resumed: now, reread: None }
    }

    /// Something failed: when to go on. Never before the server wants it, and not at the moment at which everyone does.
    pub(super) fn resume(&mut self, now: Timestamp, retry_after: Option<Duration>, jitter: &mut Jitter) -> Timestamp {
        if now.since(self.resumed) >= CALM {
            self.backoff.reset();
        }
        let told = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX).mul_f64(1.25);
        let pause = self.backoff.pause(jitter).max(jitter.scale(told, 0.8));
        self.resumed = now + pause;
        self.resumed
    }

    /// The token was refused, and is read anew: whether that is tried at once.
    pub(super) fn tries_at_once(&mut self, now: Timestamp) -> bool {
        let lately = self.reread.is_some_and(|at| now.since(at) < REREAD);
        if !lately {
            self.reread = Some(now);
        }
        !lately
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn kubernetes_point_6_pauses_double_from_800_ms_to_30_s_and_are_drawn_up_to_twice_that() {
        for seed in 0..200 {
            let (mut pace, mut jitter) = (Pace::new(RetryPolicy::default(), at(0)), Jitter::new(seed));
            let mut now = at(0);
            for millis in [800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
                let (resume, least) = (pace.resume(now, None, &mut jitter), Duration::from_millis(millis));
                assert!(resume >= now + least && resume <= now + least * 2, "seed {seed}: {:?}", resume.since(now));
                now = resume;
            }
        }
    }

    #[test]
    fn kubernetes_point_6_what_a_host_sets_is_followed_to_the_letter() {
        let pauses = |first: u64, longest: u64| {
            let policy = RetryPolicy::new(Duration::from_millis(first), Duration::from_millis(longest));
            let (mut pace, mut jitter) = (Pace::new(policy, at(0)), Jitter::new(3));
            [(); 4].map(|()| pace.resume(at(0), None, &mut jitter).since(at(0)))
        };
        let of = |expected: [u64; 4], pauses: [Duration; 4]| {
            for (full, pause) in expected.map(Duration::from_millis).into_iter().zip(pauses) {
                assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            }
        };
        of([100, 200, 300, 300], pauses(100, 300));
        of([1600, 3200, 5000, 5000], pauses(2000, 5000));
        of([20_000, 40_000, 60_000, 60_000], pauses(20_000, 30_000));
        of([100, 200, 400, 800], pauses(100, 30_000));
    }

    #[test]
    fn kubernetes_point_6_pauses_begin_anew_after_two_calm_minutes_and_not_before() {
        let (mut pace, mut jitter) = (Pace::new(RetryPolicy::default(), at(0)), Jitter::new(1));
        let mut now = at(0);
        for _ in 0..8 {
            now = pace.resume(now, None, &mut jitter);
        }
        now = now + Duration::from_secs(119);
        let resume = pace.resume(now, None, &mut jitter);
        assert!(resume >= now + Duration::from_secs(30));
        now = resume + Duration::from_secs(120);
        assert!(pace.resume(now, None, &mut jitter) <= now + Duration::from_millis(1600));
    }

    #[test]
    fn kubernetes_point_11_retry_after_is_honoured_within_five_minutes_and_spread() {
        let mut drawn = Vec::new();
        for seed in 0..100 {
            let (mut pace, mut jitter) = (Pace::new(RetryPolicy::default(), at(0)), Jitter::new(seed));
            let resume = pace.resume(at(0), Some(Duration::from_secs(20)), &mut jitter);
            assert!(resume >= at(20) && resume <= at(25));
            drawn.push(resume);
            let resume = pace.resume(resume, Some(Duration::from_secs(86_400)), &mut jitter).since(resume);
            assert!(resume >= Duration::from_secs(300) && resume <= Duration::from_secs(375));
            assert!(pace.resume(at(0), Some(Duration::MAX), &mut jitter) <= at(375));
        }
        drawn.sort();
        drawn.dedup();
        assert!(drawn.len() > 90);
    }

    #[test]
    fn kubernetes_point_17_a_token_read_anew_is_tried_at_once_but_not_again_and_again() {
        let mut pace = Pace::new(RetryPolicy::default(), at(0));
        assert!(pace.tries_at_once(at(0)));
        assert!(!pace.tries_at_once(at(0)) && !pace.tries_at_once(at(29)));
        assert!(pace.tries_at_once(at(30)));
    }
}
