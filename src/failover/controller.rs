//! The choice of the provider that is followed.
//!
//! Decides: who is eligible, when an emergency switches at once, when a better provider is followed again, what a pin
//! holds. Whether a switch would lose too many members is asked of the hub, which knows the sets.

use std::cmp::Reverse;

use super::{FailoverPolicy, HealthTracker};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::SwitchReason;
use crate::health::ProviderHealth;

/// Names one provider in force, for as long as it is; never given to another.
pub(crate) type SlotKey = u64;

/// A provider that may be followed; in the order of registration.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) key: SlotKey,
    pub(crate) priority: i64,
    /// In member mode, whether the local node shows in it. A provider that does not show us yet ranks below all that do.
    pub(crate) shows_local_node: bool,
    pub(crate) tracker: &'a HealthTracker,
}

impl Candidate<'_> {
    fn rank(&self) -> (bool, i64) {
        (self.shows_local_node, self.priority)
    }

    fn is(&self, health: ProviderHealth) -> bool {
        self.tracker.has_snapshot() && self.tracker.health() == health
    }
}

/// Whether the set of a standby may replace the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// It may.
    Clear,
    /// It lacks too many members; it may if it has not shrunk further by then.
    HeldUntil(Timestamp),
    /// It is empty: not while the present one may come back.
    Empty,
    /// It shows mostly others, and neither definition says that this is meant: not while the present one may come back.
    Replaces,
}

/// What to do about the provider that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nothing.
    Stay,
    /// Follow another.
    Switch { to: SlotKey, reason: SwitchReason },
    /// Another would be followed, but its set is guarded.
    Held { to: SlotKey, guard: Guard },
}

/// Remembers which provider is followed and decides about it.
#[derive(Clone, Debug)]
pub(crate) struct FailoverController {
    policy: FailoverPolicy,
    started: Timestamp,
    active: Option<SlotKey>,
    last_switch: Option<Timestamp>,
    pinned: Option<SlotKey>,
}

impl FailoverController {
    pub(crate) fn new(policy: FailoverPolicy, started: Timestamp) -> Self {
        Self { policy, started, active: None, last_switch: None, pinned: None }
    }

    pub(crate) fn policy(&self) -> &FailoverPolicy {
        &self.policy
    }

    pub(crate) fn active(&self) -> Option<SlotKey> {
        self.active
    }

    pub(crate) fn pinned(&self) -> Option<SlotKey> {
        self.pinned
    }

    /// Holds on to one provider until unpinned.
    pub(crate) fn pin(&mut self, key: Option<SlotKey>) {
        self.pinned = key;
    }

    /// The provider is no longer configured.
    pub(crate) fn forget(&mut self, key: SlotKey) {
        if self.active == Some(key) {
            self.active = None;
        }
        if self.pinned == Some(key) {
            self.pinned = None;
        }
    }

    /// The choice was carried out.
    pub(crate) fn switched(&mut self, to: SlotKey, now: Timestamp) {
        self.active = Some(to);
        self.last_switch = Some(now);
    }

    /// Decides. Call again until it says [`Choice::Stay`] or [`Choice::Held`].
    pub(crate) fn choose(
        &self,
        now: Timestamp,
        candidates: &[Candidate<'_>],
        guard: &mut dyn FnMut(SlotKey) -> Guard,
    ) -> Choice {
        let find = |key: Option<SlotKey>| candidates.iter().find(|candidate| Some(candidate.key) == key);
        if let Some(pin) = find(self.pinned) {
            let usable = pin.tracker.has_snapshot() && pin.tracker.health() > ProviderHealth::Unreachable;
            match (usable, self.active == Some(pin.key)) {
                (true, true) => return Choice::Stay,
                // A stream that ended has to show its set anew first.
                (true, false) if pin.tracker.is_terminated() => {}
                (true, false) => return Choice::Switch { to: pin.key, reason: self.reason_of_pin() },
                (false, _) => {}
            }
        }
        match find(self.active) {
            None => self.first(now, candidates),
            Some(active) => self.next(now, active, candidates, guard),
        }
    }

    /// The first selection is never a switch from something, whoever asked for it.
    fn reason_of_pin(&self) -> SwitchReason {
        match self.last_switch {
            None => SwitchReason::Initial,
            Some(_) => SwitchReason::ManualOverride,
        }
    }

    /// The choice while none is followed: at the start, or after the one followed was removed.
    fn first(&self, now: Timestamp, candidates: &[Candidate<'_>]) -> Choice {
        let best = by_rank(candidates, |candidate| candidate.is(ProviderHealth::Healthy)).next();
        let usable =
            |candidate: &Candidate<'_>| candidate.is(ProviderHealth::Degraded) && !candidate.tracker.is_terminated();
        let Some(best) = best.or_else(|| by_rank(candidates, usable).next()) else {
            return Choice::Stay;
        };
        let reason = match self.last_switch {
            None => SwitchReason::Initial,
            Some(_) => SwitchReason::Reconfigured,
        };
        // What shows the local node will be so a moment after that is registered there.
        let may_yet_come = |better: &Candidate<'_>| {
            let lacks_local_node =
                best.shows_local_node && !better.shows_local_node && better.is(ProviderHealth::Healthy);
            better.priority > best.priority && (better.tracker.is_unheard() || lacks_local_node)
        };
        let waiting = reason == SwitchReason::Initial && now.since(self.started) < self.policy.initial_grace;
        if waiting && candidates.iter().any(may_yet_come) {
            return Choice::Stay;
        }
        Choice::Switch { to: best.key, reason }
    }

    /// The choice while `active` is followed.
    fn next(
        &self,
        now: Timestamp,
        active: &Candidate<'_>,
        candidates: &[Candidate<'_>],
        guard: &mut dyn FnMut(SlotKey) -> Guard,
    ) -> Choice {
        let health = active.tracker.health();
        let pinned_here = self.pinned == Some(active.key);
        let healthy = |candidate: &Candidate<'_>| candidate.is(ProviderHealth::Healthy) && candidate.key != active.key;
        if health == ProviderHealth::Unreachable || (active.tracker.is_terminated() && !pinned_here) {
            let degraded = by_rank(candidates, |candidate| {
                let usable = candidate.is(ProviderHealth::Degraded) && !candidate.tracker.is_terminated();
                usable && candidate.key != active.key
            });
            return pass_guard(by_rank(candidates, healthy).chain(degraded), emergency(active), guard);
        }
        let cooled = self.last_switch.is_none_or(|at| now.since(at) >= self.policy.cooldown);
        if !cooled || pinned_here {
            return Choice::Stay;
        }
        if health == ProviderHealth::Degraded && now.since(active.tracker.since()) >= self.policy.degraded_grace {
            return pass_guard(by_rank(candidates, healthy), SwitchReason::HealthDegraded, guard);
        }
        let better = by_rank(candidates, |candidate| {
            let held = now.since(candidate.tracker.since()) >= self.policy.failback_hold;
            healthy(candidate) && candidate.rank() > active.rank() && held
        });
        pass_guard(better, SwitchReason::PriorityRestored, guard)
    }

    /// While nobody is followed yet: when a lower provider need no longer wait for a better one.
    pub(crate) fn initial_grace_ends(&self) -> Option<Timestamp> {
        self.last_switch.is_none().then(|| self.started + self.policy.initial_grace)
    }

    /// When a voluntary switch may follow the last one.
    pub(crate) fn cooldown_ends(&self) -> Option<Timestamp> {
        self.last_switch.map(|at| at + self.policy.cooldown)
    }

    /// When the provider has had its health for long enough that a switch may follow from it.
    pub(crate) fn hold_ends(&self, candidate: &Candidate<'_>) -> Timestamp {
        let is_active = self.active == Some(candidate.key);
        let hold = if is_active { self.policy.degraded_grace } else { self.policy.failback_hold };
        candidate.tracker.since() + hold
    }
}

/// Why a provider that cannot go on is left.
fn emergency(active: &Candidate<'_>) -> SwitchReason {
    let cause = active.tracker.cause().map(ProvisioningError::code);
    if cause == Some(ErrorCode::StreamSilent) {
        SwitchReason::Timeout
    } else if active.tracker.is_terminated() {
        SwitchReason::StreamEnded
    } else {
        SwitchReason::HealthDegraded
    }
}

/// Those that are eligible, best rank first, ties in the order of registration.
fn by_rank<'a>(
    candidates: &'a [Candidate<'a>],
    is_eligible: impl Fn(&Candidate<'a>) -> bool,
) -> impl Iterator<Item = &'a Candidate<'a>> {
    let mut eligible: Vec<_> = candidates.iter().filter(|candidate| is_eligible(candidate)).collect();
    eligible.sort_by_key(|candidate| Reverse(candidate.rank()));
    eligible.into_iter()
}

/// The first whose set is not guarded; else the first that is.
fn pass_guard<'a>(
    candidates: impl Iterator<Item = &'a Candidate<'a>>,
    reason: SwitchReason,
    guard: &mut dyn FnMut(SlotKey) -> Guard,
) -> Choice {
    let mut held = Choice::Stay;
    for candidate in candidates {
        match guard(candidate.key) {
            Guard::Clear => return Choice::Switch { to: candidate.key, reason },
            guard if held == Choice::Stay => held = Choice::Held { to: candidate.key, guard },
            _ => {}
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::ProviderId;

    struct Fixture {
        controller: FailoverController,
        trackers: Vec<(i64, bool, HealthTracker)>,
        guards: Vec<Guard>,
    }

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_millis(1_000_000) + Duration::from_secs_f64(seconds)
    }

    fn error() -> ProvisioningError {
        ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused")
    }

    /// Providers with these priorities, keys 0, 1, 2 …, none heard of yet.
    fn fixture(priorities: &[i64]) -> Fixture {
        let tracker = |_| HealthTracker::new(ProviderId::new("a").unwrap(), None, false, at(0.0));
        Fixture {
            controller: FailoverController::new(FailoverPolicy::default(), at(0.0)),
            trackers: priorities.iter().map(|priority| (*priority, true, tracker(()))).collect(),
            guards: vec![Guard::Clear; priorities.len()],
        }
    }

    impl Fixture {
        fn refresh(&mut self, key: usize, seconds: f64) {
            self.trackers[key].2.sign_of_life(at(seconds));
            self.trackers[key].2.refreshed(at(seconds));
            self.assess(seconds);
        }

        fn fail(&mut self, key: usize, seconds: f64, times: usize) {
            for _ in 0..times {
                self.trackers[key].2.sign_of_life(at(seconds));
                self.trackers[key].2.failed(error());
            }
            self.assess(seconds);
        }

        fn terminate(&mut self, key: usize, seconds: f64) {
            self.trackers[key].2.sign_of_life(at(seconds));
            self.trackers[key].2.terminated(error());
            self.assess(seconds);
        }

        fn assess(&mut self, seconds: f64) {
            for (_, _, tracker) in &mut self.trackers {
                if tracker.silent_at(&FailoverPolicy::default()).is_some_and(|silent| silent <= at(seconds)) {
                    tracker.fall_silent();
                }
                tracker.assess(at(seconds), &FailoverPolicy::default());
            }
        }

        fn candidates(&self) -> Vec<Candidate<'_>> {
            let keyed = self.trackers.iter().zip(0..);
            keyed
                .map(|((priority, shows_local_node, tracker), key)| Candidate {
                    key,
                    priority: *priority,
                    shows_local_node: *shows_local_node,
                    tracker,
                })
                .collect()
        }

        fn choice(&mut self, seconds: f64) -> Choice {
            let candidates = self.candidates();
            let guards = self.guards.clone();
            self.controller.choose(at(seconds), &candidates, &mut |key| guards[key as usize])
        }

        fn expect(&mut self, seconds: f64, to: SlotKey, reason: SwitchReason) {
            assert_eq!(self.choice(seconds), Choice::Switch { to, reason });
            self.controller.switched(to, at(seconds));
            assert_eq!(self.choice(seconds), Choice::Stay);
        }
    }

    /// The first of two providers is followed since 0.0 s, both are healthy.
    fn following_first_of_two() -> Fixture {
        let mut fixture = fixture(&[10, 5]);
        fixture.refresh(0, 0.0);
        fixture.refresh(1, 0.0);
        fixture.expect(0.0, 0, SwitchReason::Initial);
        fixture
    }

    #[test]
    fn p2_5_the_healthy_provider_with_the_highest_priority_is_selected_and_ties_go_to_the_first() {
        let mut fixture = fixture(&[1, 7, 7, 3]);
        for key in [3, 2, 1, 0] {
            fixture.refresh(key, 0.0);
        }
        fixture.expect(0.0, 1, SwitchReason::Initial);
    }

    #[test]
    fn p2_5_at_the_start_a_lower_provider_waits_a_moment_for_one_that_has_not_answered() {
        let mut fixture = fixture(&[10, 5]);
        fixture.refresh(1, 0.0);
        assert_eq!(fixture.choice(0.999), Choice::Stay);
        fixture.expect(1.0, 1, SwitchReason::Initial);
    }

    #[test]
    fn p2_5_at_the_start_nobody_waits_for_one_that_has_failed_or_ranks_below() {
        let mut fixture = fixture(&[10, 5, 1]);
        fixture.refresh(1, 0.0);
        fixture.fail(0, 0.0, 1);
        fixture.expect(0.0, 1, SwitchReason::Initial);
    }

    #[test]
    fn p2_5_fails_over_at_once_when_the_stream_ends_also_during_the_cooldown() {
        let mut fixture = following_first_of_two();
        fixture.terminate(0, 0.1);
        fixture.expect(0.1, 1, SwitchReason::StreamEnded);
    }

    #[test]
    fn p2_5_three_errors_or_silence_fail_over() {
        let mut fixture = following_first_of_two();
        fixture.fail(0, 1.0, 2);
        assert_eq!(fixture.choice(1.0), Choice::Stay);
        fixture.fail(0, 1.0, 1);
        fixture.expect(1.0, 1, SwitchReason::HealthDegraded);

        let mut fixture = following_first_of_two();
        fixture.refresh(1, 14.0);
        fixture.assess(15.0);
        fixture.expect(15.0, 1, SwitchReason::Timeout);
    }

    #[test]
    fn p2_5_a_degraded_standby_is_eligible_only_in_an_emergency_and_after_the_healthy_ones() {
        let mut fixture = fixture(&[10, 5, 1]);
        for key in 0..3 {
            fixture.refresh(key, 0.0);
        }
        fixture.expect(0.0, 0, SwitchReason::Initial);
        fixture.fail(1, 1.0, 1);
        fixture.terminate(0, 1.0);
        assert_eq!(fixture.choice(1.0), Choice::Switch { to: 2, reason: SwitchReason::StreamEnded });
        fixture.terminate(2, 1.0);
        fixture.expect(1.0, 1, SwitchReason::StreamEnded);
        let mut mere = following_first_of_two();
        mere.fail(0, 1.0, 1);
        mere.fail(1, 1.0, 1);
        mere.refresh(0, 16.0);
        mere.fail(0, 16.0, 1);
        assert_eq!(mere.choice(60.0), Choice::Stay);
    }

    #[test]
    fn p2_5_without_an_eligible_alternate_the_provider_stays() {
        let mut fixture = following_first_of_two();
        fixture.fail(1, 1.0, 3);
        fixture.terminate(0, 1.0);
        assert_eq!(fixture.choice(1.0), Choice::Stay);
        let mut never = self::fixture(&[1, 1]);
        assert_eq!(never.choice(100.0), Choice::Stay);
    }

    #[test]
    fn p2_5_a_provider_degraded_for_fifteen_seconds_gives_way_to_a_healthy_standby() {
        let mut fixture = following_first_of_two();
        fixture.fail(0, 1.0, 1);
        fixture.refresh(1, 15.0);
        fixture.trackers[0].2.sign_of_life(at(15.0));
        fixture.assess(15.999);
        assert_eq!(fixture.choice(15.999), Choice::Stay);
        fixture.expect(16.0, 1, SwitchReason::HealthDegraded);
    }

    #[test]
    fn p2_5_returns_to_the_better_provider_after_ten_healthy_seconds_and_the_cooldown() {
        let mut fixture = following_first_of_two();
        fixture.terminate(0, 1.0);
        fixture.expect(1.0, 1, SwitchReason::StreamEnded);
        fixture.refresh(0, 3.0);
        fixture.refresh(1, 3.0);
        assert_eq!(fixture.choice(12.999), Choice::Stay, "not healthy for ten seconds yet");
        fixture.expect(13.0, 0, SwitchReason::PriorityRestored);

        let mut fixture = following_first_of_two();
        fixture.trackers[0].0 = 1;
        assert_eq!(fixture.choice(9.999), Choice::Stay, "the last switch is too recent");
        fixture.expect(10.0, 1, SwitchReason::PriorityRestored);
    }

    #[test]
    fn p2_5_an_equal_priority_is_no_reason_to_switch_back() {
        let mut fixture = fixture(&[5, 5]);
        fixture.refresh(1, 0.0);
        fixture.fail(0, 0.0, 1);
        fixture.expect(0.0, 1, SwitchReason::Initial);
        fixture.refresh(0, 1.0);
        assert_eq!(fixture.choice(1000.0), Choice::Stay);
    }

    #[test]
    fn a_provider_that_does_not_show_the_local_node_ranks_below_those_that_do() {
        let mut fixture = fixture(&[10, 5]);
        fixture.refresh(0, 0.0);
        fixture.refresh(1, 0.0);
        fixture.trackers[0].1 = false;
        assert_eq!(fixture.choice(0.9), Choice::Stay, "it is about to be registered there");
        fixture.expect(1.0, 1, SwitchReason::Initial);
        fixture.trackers[0].1 = true;
        fixture.expect(11.0, 0, SwitchReason::PriorityRestored);
    }

    #[test]
    fn a_provider_that_shows_the_local_node_within_the_initial_grace_is_followed_first() {
        let mut fixture = fixture(&[10, 5]);
        fixture.refresh(0, 0.0);
        fixture.refresh(1, 0.0);
        fixture.trackers[0].1 = false;
        assert_eq!(fixture.choice(0.0), Choice::Stay);
        fixture.trackers[0].1 = true;
        assert_eq!(fixture.choice(0.1), Choice::Switch { to: 0, reason: SwitchReason::Initial });
        let mut doubted = self::fixture(&[10, 5]);
        doubted.trackers[0].2.doubted(error());
        doubted.refresh(1, 0.0);
        assert_eq!(doubted.choice(0.9), Choice::Stay, "an answer that is not believed is no failure");
        doubted.expect(1.0, 1, SwitchReason::Initial);
        // Nobody is waited for in vain where the other lacks the node too.
        (fixture.trackers[0].1, fixture.trackers[1].1) = (false, false);
        assert_eq!(fixture.choice(0.1), Choice::Switch { to: 0, reason: SwitchReason::Initial });
    }

    #[test]
    fn p2_5_a_guarded_standby_is_passed_over_and_reported_if_there_is_no_other() {
        let mut fixture = fixture(&[10, 5, 1]);
        for key in 0..3 {
            fixture.refresh(key, 0.0);
        }
        fixture.expect(0.0, 0, SwitchReason::Initial);
        fixture.terminate(0, 1.0);
        fixture.guards[1] = Guard::HeldUntil(at(11.0));
        assert_eq!(fixture.choice(1.0), Choice::Switch { to: 2, reason: SwitchReason::StreamEnded });
        fixture.guards[2] = Guard::Empty;
        assert_eq!(fixture.choice(1.0), Choice::Held { to: 1, guard: Guard::HeldUntil(at(11.0)) });
    }

    #[test]
    fn p3_4_a_pin_holds_against_priority_and_a_mere_end_of_the_stream() {
        let mut fixture = following_first_of_two();
        fixture.controller.pin(Some(1));
        fixture.expect(1.0, 1, SwitchReason::ManualOverride);
        fixture.terminate(1, 2.0);
        assert_eq!(fixture.choice(14.0), Choice::Stay);
        fixture.refresh(1, 14.0);
        fixture.refresh(0, 14.0);
        assert_eq!(fixture.choice(1000.0), Choice::Stay);
        fixture.controller.pin(None);
        fixture.expect(1000.0, 0, SwitchReason::PriorityRestored);
    }

    #[test]
    fn p3_4_the_first_selection_is_initial_also_by_a_pin() {
        let mut fixture = fixture(&[10, 5]);
        fixture.controller.pin(Some(1));
        fixture.refresh(1, 0.0);
        fixture.expect(0.0, 1, SwitchReason::Initial);
    }

    #[test]
    fn p3_4_an_unreachable_pin_falls_back_and_returns_without_cooldown() {
        let mut fixture = following_first_of_two();
        fixture.controller.pin(Some(1));
        fixture.expect(1.0, 1, SwitchReason::ManualOverride);
        fixture.fail(1, 2.0, 3);
        fixture.expect(2.0, 0, SwitchReason::HealthDegraded);
        fixture.refresh(1, 2.5);
        fixture.expect(2.5, 1, SwitchReason::ManualOverride);
    }

    #[test]
    fn p5_4_a_removed_provider_is_replaced_with_the_reason_reconfigured() {
        let mut fixture = following_first_of_two();
        fixture.trackers[0].2 = HealthTracker::new(ProviderId::new("a").unwrap(), None, false, at(0.0));
        fixture.controller.forget(0);
        fixture.expect(0.5, 1, SwitchReason::Reconfigured);
    }

    #[test]
    fn p3_4_a_pinned_provider_whose_stream_ended_shows_its_set_anew_before_it_is_returned_to() {
        let mut fixture = following_first_of_two();
        fixture.controller.pin(Some(1));
        fixture.terminate(1, 1.0);
        assert_eq!(fixture.choice(1.0), Choice::Stay, "degraded, and it showed a set once, but its stream has ended");
        fixture.refresh(1, 2.0);
        fixture.expect(2.0, 1, SwitchReason::ManualOverride);
    }

    #[test]
    fn p2_5_at_the_start_nobody_waits_for_an_equal_and_a_provider_whose_stream_ended_is_not_followed() {
        let mut equals = fixture(&[5, 5]);
        equals.refresh(1, 0.0);
        equals.expect(0.0, 1, SwitchReason::Initial);

        let mut ended = fixture(&[5]);
        ended.refresh(0, 0.0);
        ended.terminate(0, 0.0);
        assert_eq!(ended.choice(10.0), Choice::Stay);
        ended.refresh(0, 11.0);
        ended.fail(0, 11.0, 1);
        ended.expect(11.0, 0, SwitchReason::Initial);
    }

    #[test]
    fn p2_5_in_an_emergency_one_whose_stream_ended_too_is_no_help() {
        let mut fixture = following_first_of_two();
        fixture.terminate(1, 1.0);
        fixture.terminate(0, 1.0);
        assert_eq!(fixture.choice(1.0), Choice::Stay);
    }

    #[test]
    fn p2_5_within_the_cooldown_a_long_degradation_and_a_better_provider_wait() {
        let mut fixture = following_first_of_two();
        fixture.fail(0, 0.0, 1);
        fixture.controller.switched(0, at(14.0));
        fixture.refresh(1, 14.0);
        fixture.trackers[0].2.sign_of_life(at(14.0));
        fixture.assess(15.0);
        assert_eq!(fixture.choice(15.0), Choice::Stay);
        assert_eq!(fixture.choice(24.0), Choice::Switch { to: 1, reason: SwitchReason::HealthDegraded });
    }

    #[test]
    fn p2_5_time_brings_about_a_choice_when_a_hold_a_grace_or_the_cooldown_is_over() {
        let mut fixture = fixture(&[10, 5]);
        assert_eq!(fixture.controller.initial_grace_ends(), Some(at(1.0)));
        assert_eq!(fixture.controller.cooldown_ends(), None);
        fixture.refresh(0, 2.0);
        fixture.refresh(1, 3.0);
        fixture.expect(3.0, 0, SwitchReason::Initial);
        assert_eq!(fixture.controller.initial_grace_ends(), None);
        assert_eq!(fixture.controller.cooldown_ends(), Some(at(13.0)));
        let holds = fixture.candidates().iter().map(|of| fixture.controller.hold_ends(of)).collect::<Vec<_>>();
        assert_eq!(holds, [at(17.0), at(13.0)], "one followed may be degraded, another healthy, since then");
    }

    #[test]
    fn p5_4_removing_a_provider_forgets_what_was_held_of_it_and_nothing_else() {
        let mut controller = following_first_of_two().controller;
        controller.pin(Some(1));
        controller.forget(2);
        assert_eq!((controller.active(), controller.pinned()), (Some(0), Some(1)));
        controller.forget(1);
        assert_eq!((controller.active(), controller.pinned()), (Some(0), None));
        controller.forget(0);
        assert_eq!(controller.active(), None);
    }
}
