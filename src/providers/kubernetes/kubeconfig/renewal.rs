//! When an exec plugin is run, and which credential counts meanwhile: a machine without process, clock or thread.
//!
//! A credential is used until it expires. Shortly before that it is renewed while it is still used. One that the server
//! refused is replaced, and used on where that fails. A plugin is not run again before [`SPACING`] is over since its last
//! end, whatever it answered and whatever the server thinks of it; until then a new credential is taken for good.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};

/// The shortest time from the end of a run to the next.
pub(super) const SPACING: Duration = Duration::from_secs(5);
/// How long before its expiry a credential is renewed at the most; at the least a fifth of its life.
const AHEAD: Duration = Duration::from_secs(60);

/// The machine.
#[derive(Debug)]
pub(super) struct Renewal<C> {
    held: Option<Issued<C>>,
    running: bool,
    /// When the last run ended.
    ended: Option<Timestamp>,
    /// What the last run failed with.
    failure: Option<ProvisioningError>,
    count: u64,
}

#[derive(Debug)]
struct Issued<C> {
    number: u64,
    credential: C,
    received: Timestamp,
    expires: Option<Timestamp>,
    refused: bool,
}

impl<C> Issued<C> {
    /// Until when it is used: for a while also if it seems to have expired when it came, since clocks differ.
    fn end(&self) -> Option<Timestamp> {
        self.expires.map(|expires| expires.max(self.received + SPACING))
    }

    fn is_live(&self, now: Timestamp) -> bool {
        self.end().is_none_or(|end| now < end)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.end().is_some_and(|end| end.since(now) <= AHEAD.min(end.since(self.received) / 5))
    }
}

/// What is to be done for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<C> {
    /// Use this one, of that number.
    Use(u64, C),
    /// Use this one, and run the plugin meanwhile.
    Renew(u64, C),
    /// Run the plugin, wait for its end and ask again.
    Run,
    /// Wait for the end of the run and ask again.
    Wait,
    Fail(ProvisioningError),
}

impl<C: Clone> Renewal<C> {
    pub(super) fn new() -> Self {
        Self { held: None, running: false, ended: None, failure: None, count: 0 }
    }

    /// What a request does now. After [`Next::Run`] and [`Next::Renew`] the plugin counts as running.
    pub(super) fn next(&mut self, now: Timestamp) -> Next<C> {
        let may_run = !self.running && self.ended.is_none_or(|ended| now.since(ended) >= SPACING);
        let next = match self.held.as_ref().filter(|held| held.is_live(now)) {
            Some(Issued { refused: true, .. }) if self.running => Next::Wait,
            Some(Issued { refused: true, .. }) if may_run => Next::Run,
            Some(held) if !held.refused && held.is_due(now) && may_run => {
                Next::Renew(held.number, held.credential.clone())
            }
            Some(held) => Next::Use(held.number, held.credential.clone()),
            None if self.running => Next::Wait,
            None if may_run => Next::Run,
            None => Next::Fail(self.failure()),
        };
        self.running |= matches!(next, Next::Run | Next::Renew(..));
        next
    }

    /// The plugin has answered with a credential that expires then.
    pub(super) fn answered(&mut self, now: Timestamp, credential: C, expires: Option<Timestamp>) {
        self.count += 1;
        self.held = Some(Issued { number: self.count, credential, received: now, expires, refused: false });
        (self.running, self.ended, self.failure) = (false, Some(now), None);
    }

    /// The plugin has failed. Says whether it failed otherwise before, or not at all.
    pub(super) fn failed(&mut self, now: Timestamp, error: ProvisioningError) -> bool {
        let is_new = self.failure.as_ref() != Some(&error);
        (self.running, self.ended, self.failure) = (false, Some(now), Some(error));
        is_new
    }

    /// The run was broken off, which says nothing about the plugin.
    pub(super) fn broken_off(&mut self) {
        self.running = false;
    }

    /// The server has refused the credential of that number.
    pub(super) fn refused(&mut self, number: u64) {
        if let Some(held) = self.held.as_mut().filter(|held| held.number == number) {
            held.refused = true;
        }
    }

    /// The plugin is another one from now on: the credential stays only until that one has answered.
    pub(super) fn replaced(&mut self) {
        if let Some(held) = &mut self.held {
            held.refused = true;
        }
        (self.running, self.ended, self.failure) = (false, None, None);
    }

    fn failure(&self) -> ProvisioningError {
        self.failure.clone().unwrap_or_else(|| {
            let detail = "the credential has expired, and the plugin was run only just now";
            ProvisioningError::new(ErrorCode::TokenUnreadable, "running the exec plugin", detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::testkit::FakeClock;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn failure(why: &'static str) -> ProvisioningError {
        ProvisioningError::new(ErrorCode::TokenUnreadable, "testing", why)
    }

    #[test]
    fn kubernetes_point_21_a_credential_is_used_until_shortly_before_it_expires_and_renewed_while_it_is_used() {
        let clock = FakeClock::new();
        let mut renewal = Renewal::new();
        assert_eq!(renewal.next(clock.now()), Next::Run);
        assert_eq!(renewal.next(clock.now()), Next::Wait, "one run for all");
        renewal.answered(clock.now(), "a", Some(clock.now() + secs(3600)));
        assert_eq!(renewal.next(clock.now()), Next::Use(1, "a"));
        clock.advance(secs(3539));
        assert_eq!(renewal.next(clock.now()), Next::Use(1, "a"));
        clock.advance(secs(1));
        assert_eq!(renewal.next(clock.now()), Next::Renew(1, "a"));
        assert_eq!(renewal.next(clock.now()), Next::Use(1, "a"), "one run for all");
        renewal.answered(clock.now(), "b", None);
        clock.advance(secs(1_000_000));
        assert_eq!(renewal.next(clock.now()), Next::Use(2, "b"), "what has no end does not end");
    }

    #[test]
    fn kubernetes_point_21_a_short_lived_credential_is_used_for_most_of_its_life() {
        let clock = FakeClock::new();
        let mut renewal = Renewal::new();
        renewal.next(clock.now());
        renewal.answered(clock.now(), "a", Some(clock.now() + secs(100)));
        clock.advance(secs(79));
        assert_eq!(renewal.next(clock.now()), Next::Use(1, "a"));
        clock.advance(secs(1));
        assert_eq!(renewal.next(clock.now()), Next::Renew(1, "a"));
    }

    #[test]
    fn kubernetes_point_21_the_last_good_one_stays_until_it_expires_while_the_plugin_fails_every_few_seconds() {
        let clock = FakeClock::new();
        let mut renewal = Renewal::new();
        renewal.next(clock.now());
        renewal.answered(clock.now(), "a", Some(clock.now() + secs(600)));
        clock.advance(secs(540));
        let mut runs = 0;
        for _ in 0..60 {
            match renewal.next(clock.now()) {
                Next::Renew(1, "a") => {
                    runs += 1;
                    renewal.failed(clock.now(), failure("gone"));
                }
                next => assert_eq!(next, Next::Use(1, "a")),
            }
            clock.advance(secs(1));
        }
        assert_eq!(runs, 12);
        assert_eq!(renewal.next(clock.now()), Next::Run);
        assert!(renewal.failed(clock.now(), failure("still gone")), "it is worth a word");
        assert!(!renewal.failed(clock.now(), failure("still gone")), "but not twice");
        assert_eq!(renewal.next(clock.now()), Next::Fail(failure("still gone")));
        clock.advance(secs(4));
        assert_eq!(renewal.next(clock.now()), Next::Fail(failure("still gone")));
        clock.advance(secs(1));
        assert_eq!(renewal.next(clock.now()), Next::Run);
    }

    #[test]
    fn kubernetes_point_21_a_refused_credential_is_replaced_and_the_refusal_of_an_older_one_does_not_matter() {
        let clock = FakeClock::new();
        let mut renewal = Renewal::new();
        renewal.next(clock.now());
        renewal.answered(clock.now(), "a", None);
        clock.advance(secs(60));
        renewal.refused(1);
        assert_eq!(renewal.next(clock.now()), Next::Run);
        assert_eq!(renewal.next(clock.now()), Next::Wait);
        renewal.answered(clock.now(), "b", None);
        renewal.refused(1);
        assert_eq!(renewal.next(clock.now()), Next::Use(2, "b"));
        clock.advance(secs(60));
        renewal.refused(2);
        assert_eq!(renewal.next(clock.now()), Next::Run);
        renewal.failed(clock.now(), failure("gone"));
        assert_eq!(renewal.next(clock.now()), Next::Use(2, "b"), "the last good one");
    }

    #[test]
    fn kubernetes_point_21_a_server_that_refuses_everything_makes_no_storm_of_runs() {
        let clock = FakeClock::new();
        let mut renewal = Renewal::new();
        let mut runs = 0;
        for _ in 0..1000 {
            match renewal.next(clock.now()) {
                Next::Run => {
                    runs += 1;
                    renewal.answered(clock.now(), runs, Some(Timestamp::default()));
                }
                Next::Use(number, _) => renewal.refused(number),
                next => panic!("{next:?}"),
            }
            clock.advance(Duration::from_millis(100));
        }
        assert_eq!(runs, 20, "100 s, a run every 5 s");
    }

    #[test]
    fn kubernetes_point_21_what_was_broken_off_is_run_again_at_once() {
        let clock = FakeClock::new();
        let mut renewal = Renewal::<()>::new();
        assert_eq!(renewal.next(clock.now()), Next::Run);
        renewal.broken_off();
        assert_eq!(renewal.next(clock.now()), Next::Run);
    }

    #[test]
    fn kubernetes_point_21_another_plugin_is_run_at_once_and_the_old_credential_stays_where_that_fails() {
        let clock = FakeClock::new();
        let mut renewal = Renewal::new();
        renewal.next(clock.now());
        renewal.answered(clock.now(), "a", None);
        renewal.replaced();
        assert_eq!(renewal.next(clock.now()), Next::Run);
        renewal.failed(clock.now(), failure("no such command"));
        assert_eq!(renewal.next(clock.now()), Next::Use(1, "a"));
    }

    /// What happens to the machine.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        Answer(Option<u64>),
        Fail,
        BreakOff,
        Refuse,
        Pass(u64),
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        prop_oneof![
            4 => Just(Step::Ask),
            2 => proptest::option::of(0..300_u64).prop_map(Step::Answer),
            1 => Just(Step::Fail),
            1 => Just(Step::BreakOff),
            1 => Just(Step::Refuse),
            4 => (0..30_000_u64).prop_map(Step::Pass),
        ]
    }

    proptest::proptest! {
        /// Whatever happens: one run at a time, runs with a pause between them, nothing expired is shown, nobody waits for
        /// a run that is not there, and nothing fails while there is a credential that has not expired.
        #[test]
        fn kubernetes_point_21_whatever_happens_runs_are_rare_and_nothing_expired_is_shown(
            steps in proptest::collection::vec(step(), 0..80)
        ) {
            let clock = FakeClock::new();
            let mut renewal = Renewal::new();
            let (mut running, mut ended, mut held, mut count) = (false, None::<Timestamp>, None::<(u64, Option<Timestamp>)>, 0);
            for step in steps {
                let now = clock.now();
                match step {
                    Step::Ask => {
                        let live = held.filter(|(_, end)| end.is_none_or(|end| now < end));
                        let next = renewal.next(now);
                        match next {
                            Next::Use(number, credential) => proptest::prop_assert_eq!(live, Some((number, credential))),
                            Next::Renew(number, credential) => {
                                proptest::prop_assert_eq!(live, Some((number, credential)));
                                proptest::prop_assert!(!running);
                            }
                            Next::Run => proptest::prop_assert!(!running),
                            Next::Wait => proptest::prop_assert!(running),
                            Next::Fail(_) => proptest::prop_assert!(live.is_none() && !running && ended.is_some()),
                        }
                        if matches!(next, Next::Run | Next::Renew(..)) {
                            proptest::prop_assert!(ended.is_none_or(|ended| now.since(ended) >= SPACING));
                            running = true;
                        }
                    }
                    Step::Answer(life) if running => {
                        let expires = life.map(|life| now + secs(life));
                        let end = expires.map(|expires| expires.max(now + SPACING));
                        renewal.answered(now, end, expires);
                        count += 1;
                        (running, ended, held) = (false, Some(now), Some((count, end)));
                    }
                    Step::Fail if running => {
                        renewal.failed(now, failure("gone"));
                        (running, ended) = (false, Some(now));
                    }
                    Step::BreakOff if running => {
                        renewal.broken_off();
                        running = false;
                    }
                    Step::Refuse => renewal.refused(count),
                    Step::Pass(millis) => clock.advance(Duration::from_millis(millis)),
                    _ => {}
                }
            }
        }
    }
}
