//! What it takes to be registered, and to be so again, as a state machine without threads or a clock: what was learned
//! and the time go in, the next step and its time come out.
//!
//! A registration is lost in two places. The *agent* lost it (it restarted with an empty state, an operator deregistered
//! the node, Consul reaped it): the heartbeat is answered that the check is unknown. The *catalog* lost it (a snapshot
//! was restored, a server's state is gone), though the agent still has it: only the watch sees that, and the agent would
//! notice at its next full synchronisation, in a minute or more. Both are repaired alike: the node is registered again,
//! which makes the agent write the catalog. Where that does not help several times in a row, the node is first
//! deregistered: an agent may take an equal registration for one that needs no writing.
//!
//! The first repair is made at once; those that follow it without effect come slower and slower, since a node that its
//! own watch must not see (rights, a filter, maintenance) would else write to the catalog for ever. The pauses are those of
//! the [`RetryPolicy`]: from a quarter of its first to its longest, and never above 2 s after a loss at the agent.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::provider::RetryPolicy;

/// The longest pause between repairs that follow a loss at the agent, and after a registration that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After how many repairs in a row without effect the node is deregistered before it is registered.
const REPLACE_AFTER: u32 = 3;
/// How long no loss must be found for the next one to be repaired at once.
const CALM: Duration = Duration::from_secs(60);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Register the node.
    Register,
    /// Deregister it, then register it.
    Replace,
}

/// Where the registration is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The agent does not know it.
    Agent,
    /// The watch does not show it.
    Unseen,
    /// It is registered under a credential that is no longer the present one, with which the agent would write.
    Credential,
}

/// The state of the registration.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    retry: RetryPolicy,
    /// When to register, and what for; `None`: nothing is known to be lost.
    due: Option<(Timestamp, Option<Loss>)>,
    /// Repairs in a row, each within [`CALM`] of the one before, since the watch last showed the node anew.
    in_a_row: u32,
    /// When the last registration succeeded.
    registered: Option<Timestamp>,
}

impl Repair {
    /// Nothing is registered yet: that is due at once.
    pub(super) fn new(retry: RetryPolicy, now: Timestamp) -> Self {
        Self { retry: retry.sound(), due: Some((now, None)), in_a_row: 0, registered: None }
    }

    /// Registering is due at once, whatever is known.
    pub(super) fn demanded(&mut self, now: Timestamp) {
        self.due = Some((now, None));
    }

    /// When [`step`](Self::step) has something to do.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due.map(|(due, _)| due)
    }

    /// What to do now, if anything.
    pub(super) fn step(&self, now: Timestamp) -> Option<Step> {
        let (due, loss) = self.due?;
        let replaces = loss == Some(Loss::Unseen) && self.in_a_row > REPLACE_AFTER;
        (due <= now).then_some(if replaces { Step::Replace } else { Step::Register })
    }

    /// A loss was found.
    pub(super) fn lost(&mut self, loss: Loss, now: Timestamp) {
        if matches!(self.due, Some((_, known)) if known != Some(Loss::Unseen) || loss == Loss::Unseen) {
            // Known already; what follows takes care of this too. Only a slow repair for the watch's sake gives way.
            return;
        }
        let last = self.registered.unwrap_or_default();
        if loss == Loss::Credential || now.since(last) >= CALM {
            self.in_a_row = 0;
        }
        // What the watch sees may be older than the last registration: the pause counts from that.
        let due = now.max(last + self.pause(loss));
        self.due = Some((due, Some(loss)));
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// The watch shows the node again: the repairs had their effect, and one that is still due for its sake is not needed.
    pub(super) fn seen(&mut self) {
        self.in_a_row = 0;
        if matches!(self.due, Some((_, Some(Loss::Unseen)))) {
            self.due = None;
        }
    }

    /// The node was registered.
    pub(super) fn registered(&mut self, now: Timestamp) {
        self.due = None;
        self.registered = Some(now);
    }

    /// Registering failed: it is tried again after `pause`.
    pub(super) fn failed(&mut self, now: Timestamp, pause: Duration) {
        let loss = self.due.and_then(|(_, loss)| loss);
        self.due = Some((now + pause.min(LONGEST_PAUSE), loss));
    }

    /// The pause before the next of the repairs in a row; none before the first.
    fn pause(&self, loss: Loss) -> Duration {
        let longest = if loss == Loss::Unseen { self.retry.longest } else { self.retry.longest.min(LONGEST_PAUSE) };
        match self.in_a_row.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                (self.retry.first / 4).saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(longest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(10_000_000 + millis)
    }

    fn registered() -> Repair {
        let mut repair = Repair::new(RetryPolicy::default(), at(0));
        assert_eq!(repair.step(at(0)), Some(Step::Register));
        repair.registered(at(0));
        assert_eq!((repair.step(at(100_000)), repair.due()), (None, None));
        repair
    }

    #[test]
    fn consul_point_19_the_first_loss_is_repaired_at_once_wherever_it_is() {
        for loss in [Loss::Agent, Loss::Unseen, Loss::Credential] {
            let mut repair = registered();
            repair.lost(loss, at(100));
            assert_eq!(repair.step(at(100)), Some(Step::Register), "{loss:?}");
            repair.registered(at(101));
            assert_eq!(repair.step(at(50_000)), None);
        }
    }

    #[test]
    fn consul_point_19_a_loss_at_the_agent_never_waits_longer_than_two_seconds() {
        let mut repair = registered();
        let mut now = at(100_000);
        for _ in 0..50 {
            repair.lost(Loss::Agent, now);
            let due = repair.due().unwrap();
            assert!(due.since(now) <= Duration::from_secs(2));
            assert_eq!(repair.step(due), Some(Step::Register));
            repair.registered(due);
            now = due;
        }
    }

    #[test]
    fn consul_point_19_a_node_that_stays_unseen_is_replaced_in_the_end_and_ever_more_rarely() {
        let mut repair = registered();
        let (mut now, mut steps, mut pauses) = (at(100_000), Vec::new(), Vec::new());
        for _ in 0..10 {
            repair.lost(Loss::Unseen, now);
            let due = repair.due().unwrap();
            steps.push(repair.step(due).unwrap());
            pauses.push(due.since(now).as_millis());
            repair.registered(due);
            now = due;
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(steps[..3], [Step::Register; 3]);
        assert_eq!(steps[3..], [Step::Replace; 7]);
    }

    #[test]
    fn consul_point_19_another_policy_is_followed_but_for_the_limit_of_a_loss_at_the_agent() {
        let pauses = |loss, first, longest| {
            let policy = RetryPolicy::new(Duration::from_millis(first), Duration::from_millis(longest));
            let mut repair = Repair { retry: policy, ..registered() };
            let mut now = at(100_000);
            [(); 5].map(|()| {
                repair.lost(loss, now);
                let due = repair.due().unwrap();
                let pause = due.since(now).as_millis();
                repair.registered(due);
                now = due;
                pause
            })
        };
        assert_eq!(pauses(Loss::Unseen, 200, 300), [0, 50, 100, 200, 300]);
        assert_eq!(pauses(Loss::Unseen, 40_000, 60_000), [0, 10_000, 20_000, 40_000, 60_000]);
        assert_eq!(pauses(Loss::Agent, 40_000, 60_000), [0, 2000, 2000, 2000, 2000]);
        assert_eq!(pauses(Loss::Agent, 200, 300), [0, 50, 100, 200, 300]);
    }

    #[test]
    fn consul_point_19_after_a_calm_minute_a_loss_is_repaired_at_once_again() {
        let mut repair = registered();
        for n in 0..3 {
            repair.lost(Loss::Unseen, at(100_000 + n));
            repair.registered(repair.due().unwrap());
        }
        let last = repair.registered.unwrap();
        repair.lost(Loss::Unseen, last + Duration::from_secs(61));
        assert_eq!(repair.step(last + Duration::from_secs(61)), Some(Step::Register));
    }

    #[test]
    fn consul_point_19_a_repair_that_had_its_effect_does_not_slow_the_next_one_down() {
        let mut repair = registered();
        for round in 0..10 {
            let now = at(100_000 + 2_000 * round);
            repair.lost(Loss::Unseen, now);
            assert_eq!(repair.step(now), Some(Step::Register), "round {round}");
            repair.registered(now);
            // An answer from before the registration took effect; then the one with it.
            repair.lost(Loss::Unseen, now);
            repair.seen();
            assert_eq!(repair.due(), None);
        }
        // What the agent lost is not mended by what the watch still shows.
        repair.lost(Loss::Agent, at(200_000));
        repair.seen();
        assert_eq!(repair.step(at(200_000)), Some(Step::Register));
    }

    #[test]
    fn consul_point_19_what_the_watch_saw_before_the_registration_took_effect_does_not_undo_the_pause() {
        let mut repair = registered();
        repair.lost(Loss::Unseen, at(1));
        repair.registered(at(2));
        repair.lost(Loss::Unseen, at(3));
        assert_eq!(repair.step(at(3)), None);
        assert_eq!(repair.due(), Some(at(502)));
        // A second report changes nothing.
        repair.lost(Loss::Unseen, at(4));
        assert_eq!(repair.due(), Some(at(502)));
    }

    #[test]
    fn consul_point_18_a_loss_at_the_agent_does_not_wait_for_a_slow_repair_of_what_the_watch_does_not_show() {
        let mut repair = registered();
        let mut now = at(100_000);
        for _ in 0..8 {
            repair.lost(Loss::Unseen, now);
            now = repair.due().unwrap();
            repair.registered(now);
        }
        repair.lost(Loss::Unseen, now);
        assert_eq!(repair.due().unwrap().since(now), Duration::from_secs(30));
        repair.lost(Loss::Agent, now);
        assert!(repair.due().unwrap().since(now) <= Duration::from_secs(2));
    }

    #[test]
    fn consul_point_18_a_failed_registration_is_tried_again_within_two_seconds() {
        let mut repair = registered();
        repair.lost(Loss::Agent, at(100));
        repair.failed(at(100), Duration::from_secs(9));
        assert_eq!(repair.due(), Some(at(2100)));
        assert_eq!(repair.step(at(2099)), None);
    }
}
