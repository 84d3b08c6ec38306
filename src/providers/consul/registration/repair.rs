//! What it takes to be registered, and to be so again, as a state machine without threads or a clock: what was learned
//! and the time go in, the next step and its time come out.
//!
//! A registration is lost in two places. The *agent* lost it (it restarted with an empty state, an operator
//! deregistered the node, Consul reaped it): the heartbeat is answered that the check is unknown. The *catalog* lost it
//! (a snapshot was restored, a server's state is gone), though the agent still has it: only the watch sees that, and
//! the agent would notice at its next full synchronisation, in a minute or more. Both are repaired alike: the node is
//! registered again, and each time a little differently, which makes every agent write the catalog. Nothing is ever
//! deregistered for it.
//!
//! Whoever the watch does not show need not be lost. So the agent and the catalog are looked at first: a node in
//! maintenance, or held back by a check that is not its own, or displaced by another service's registration of its id,
//! is left as it is, and looked at until that is over. The same look, a second after each registration, tells whether
//! it came to be shown at all: an agent that accepts it may be unable to write it, for ever. After a repair it is made a
//! moment after it, too, since others may take the node away again before the watch could see it.
//!
//! A repair is made at once, however often the node is lost: one that had its effect, if only for a moment, is over, and
//! what is lost after it is lost anew. Only a moment after the last registration is waited for, so that whoever removes
//! the node again and again, or fights for its id, costs the servers two writes a second by default. Repairs that follow
//! one without effect come slower and slower, once there has been none for a while, since a node that its own watch must
//! not see (rights, a filter) would else ask, or write, for ever. The pauses are those of the [`RetryPolicy`]: from a
//! quarter of its first to its longest, and never above 2 s after a loss at the agent.

use std::time::Duration;

use super::holding::Finding;
use crate::clock::Timestamp;
use crate::error::ErrorCode;
use crate::provider::RetryPolicy;

/// The longest pause between repairs that follow a loss at the agent, and after a registration that failed: the write has
/// to be made within 2 s of the finding, and takes a moment itself.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);
/// How long no loss must be found for the next one to be repaired at once.
const CALM: Duration = Duration::from_secs(60);
/// How long after a repair it is looked for in the catalog for the first time: where it is taken away again at once
/// the watch may have no time to see it, and would leave it open whether it had its effect.
const EARLY: Duration = Duration::from_millis(100);
/// How long after a registration the catalog has to show it: the agent writes it within milliseconds.
const TAKES_EFFECT: Duration = Duration::from_secs(1);
/// For how long after a repair had its effect, or the watch showed the node, the next repairs are not slow, whatever shows
/// of theirs: somebody may be quicker than every look.
const PROVEN: Duration = Duration::from_secs(15);
/// How often it is looked whether what keeps the node out is over.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// For how long a registered node may be missing from the catalog before that is told.
const MISSING_LONG: Duration = Duration::from_secs(5);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Register the node. `joins`: for the first time, or as if it were.
    Register { joins: bool },
    /// Look at what the agent holds, and if nothing speaks against it, at what the catalog shows.
    Look,
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

/// What a look has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nobody could be asked: there may be an answer later.
    Failed,
    /// There was an answer, and it tells nothing.
    Mute,
    /// The agent holds nothing.
    Lost,
    /// The agent holds the node, and that is why it is not shown.
    Found(Finding),
    /// The agent holds the node, and the catalog does not show it.
    Missing,
    /// The catalog shows the node.
    Shown,
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Joining,
    Lost(Loss),
    /// A registration was accepted, and may be shown already; if it is not, it shall be by then.
    Early(Timestamp),
    /// A registration was accepted, and shall be shown by then.
    Confirmation,
    /// It is known that the catalog does not show it.
    Missing,
}

/// What keeps the node out, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    None,
    Maintenance(Option<String>),
    HeldBack(String),
    Displaced(String),
    /// The catalog has not shown it since then.
    Missing(Timestamp),
}

/// The state of the registration.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    retry: RetryPolicy,
    /// When to do something, and what for; `None`: nothing is known to be lost.
    due: Option<(Timestamp, Need)>,
    /// Repairs in a row, each within [`CALM`] of the one before, since one had its effect.
    in_a_row: u32,
    /// When the node was last registered, or found to be in the catalog though the watch does not show it.
    acted: Option<Timestamp>,
    /// When the watch showed the node, or the catalog after a registration.
    shown: Option<Timestamp>,
    obstacle: Obstacle,
}

impl Repair {
    /// Nothing is registered yet: that is due at once.
    pub(super) fn new(retry: RetryPolicy, now: Timestamp) -> Self {
        let due = Some((now, Need::Joining));
        Self { retry: retry.sound(), due, in_a_row: 0, acted: None, shown: None, obstacle: Obstacle::None }
    }

    /// Registering is due at once, whatever is known.
    pub(super) fn demanded(&mut self, now: Timestamp) {
        self.due = Some((now, Need::Joining));
    }

    /// When [`step`](Self::step) has something to do.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due.map(|(due, _)| due)
    }

    /// What to do now, if anything.
    pub(super) fn step(&self, now: Timestamp) -> Option<Step> {
        let (due, need) = self.due?;
        let step = match need {
            Need::Lost(Loss::Unseen) | Need::Early(_) | Need::Confirmation => Step::Look,
            Need::Joining => Step::Register { joins: true },
            Need::Lost(Loss::Agent | Loss::Credential) | Need::Missing => Step::Register { joins: false },
        };
        (due <= now).then_some(step)
    }

    /// A loss was found.
    pub(super) fn lost(&mut self, loss: Loss, now: Timestamp) {
        let unseen = loss == Loss::Unseen;
        match self.due {
            // Known already; what follows takes care of this too. Only what is done for the watch's sake gives way.
            Some((_, Need::Joining | Need::Missing | Need::Lost(Loss::Agent | Loss::Credential))) => return,
            Some((_, Need::Lost(Loss::Unseen))) if unseen => return,
            _ => {}
        }
        let last = self.acted.unwrap_or_default();
        if loss == Loss::Credential || now.since(last) >= CALM {
            self.in_a_row = 0;
        }
        // What the watch sees may be older than the last registration: the pause counts from that.
        let due = if loss == Loss::Credential { now } else { now.max(last + self.pause(!unseen, now)) };
        match &mut self.due {
            Some((before, Need::Confirmation)) if unseen && *before <= due => return,
            Some((_, Need::Early(then))) if unseen => {
                *then = due.min(*then);
                return;
            }
            _ => self.due = Some((due, Need::Lost(loss))),
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// The watch shows the node again: the repairs had their effect, and what is still due for its sake is not needed.
    pub(super) fn seen(&mut self, now: Timestamp) {
        (self.in_a_row, self.shown) = (0, Some(now));
        self.obstacle = Obstacle::None;
        let for_its_sake =
            |need| matches!(need, Need::Lost(Loss::Unseen) | Need::Early(_) | Need::Confirmation | Need::Missing);
        self.due = self.due.filter(|(_, need)| !for_its_sake(*need));
    }

    /// The node was registered.
    pub(super) fn registered(&mut self, now: Timestamp) {
        let confirmed = now + TAKES_EFFECT;
        // Without a row there is none to end.
        let is_repair = self.in_a_row > 0;
        self.due =
            Some(if is_repair { (now + EARLY, Need::Early(confirmed)) } else { (confirmed, Need::Confirmation) });
        self.acted = Some(now);
    }

    /// Registering failed: it is tried again after `pause`.
    pub(super) fn failed(&mut self, now: Timestamp, pause: Duration) {
        let need = self.due.map_or(Need::Joining, |(_, need)| need);
        self.due = Some((now + pause.min(LONGEST_PAUSE), need));
    }

    /// The agent is away: it is looked at no sooner than then.
    pub(super) fn postponed(&mut self, until: Timestamp) {
        if let Some((due, Need::Lost(Loss::Unseen) | Need::Early(_) | Need::Confirmation)) = &mut self.due {
            *due = until.max(*due);
        }
    }

    /// What the look that was due has shown.
    pub(super) fn looked(&mut self, look: Look, now: Timestamp) {
        let Some((_, need)) = self.due else { return };
        let confirms = matches!(need, Need::Early(_) | Need::Confirmation);
        if let (Need::Early(then), Look::Missing | Look::Failed | Look::Found(Finding::OwnCheck)) = (need, &look) {
            self.due = Some((then.max(now), Need::Confirmation));
            return;
        }
        match look {
            Look::Shown => {
                (self.due, self.obstacle) = (None, Obstacle::None);
                if confirms {
                    (self.in_a_row, self.shown) = (0, Some(now));
                } else {
                    self.acted = Some(now);
                }
            }
            Look::Lost => {
                self.due = None;
                self.lost(Loss::Agent, now);
            }
            Look::Found(Finding::Maintenance(reason)) => self.waits(Obstacle::Maintenance(reason), now),
            Look::Found(Finding::HeldBack(why)) => self.waits(Obstacle::HeldBack(why), now),
            Look::Found(Finding::Displaced(by)) => self.waits(Obstacle::Displaced(by), now),
            Look::Found(Finding::OwnCheck | Finding::Overwritten | Finding::Held(_)) => self.write(confirms, now),
            Look::Missing => {
                if !matches!(self.obstacle, Obstacle::Missing(_)) {
                    self.obstacle = Obstacle::Missing(now);
                }
                self.write(confirms, now);
            }
            // What is known to keep the node out may still do so.
            Look::Failed | Look::Mute if self.is_left_alone() => self.due = Some((now + LOOK_AGAIN, need)),
            Look::Failed if confirms => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.due = Some((now + self.pause(false, now), need));
            }
            Look::Mute if confirms => self.due = None,
            Look::Failed | Look::Mute => self.write(confirms, now),
        }
    }

    /// What has to be told as long as it is so.
    pub(super) fn alarm(&self, now: Timestamp) -> Option<(ErrorCode, String)> {
        match &self.obstacle {
            Obstacle::None | Obstacle::Maintenance(_) => None,
            Obstacle::HeldBack(why) => Some((ErrorCode::CheckFailing, format!("the node is registered, but {why}"))),
            Obstacle::Displaced(by) => {
                let detail = format!(
                    "the agent has one instance of each id, and holds the node's as one of the service {by:?} by now, \
                     which another provider registers at the same agent, or another process"
                );
                Some((ErrorCode::InvalidConfig, detail))
            }
            Obstacle::Missing(since) => {
                let lasted = now.since(*since);
                let detail = format!(
                    "the agent has accepted the node, but the catalog has not shown it for {lasted:.0?}: the agent \
                     cannot write it, as when another one has its host's name, or the token must not read it"
                );
                (lasted >= MISSING_LONG).then_some((ErrorCode::RegistrationUnseen, detail))
            }
        }
    }

    /// Whether the node was in maintenance when that was looked at last, and the reason given.
    pub(super) fn maintenance(&self) -> Option<&str> {
        match &self.obstacle {
            Obstacle::Maintenance(Some(reason)) => Some(reason),
            _ => None,
        }
    }

    /// Whether the agent holds another registration under the node's id, whose check is not to be kept passing.
    pub(super) fn is_displaced(&self) -> bool {
        matches!(self.obstacle, Obstacle::Displaced(_))
    }

    fn is_left_alone(&self) -> bool {
        !matches!(self.obstacle, Obstacle::None | Obstacle::Missing(_))
    }

    /// The node is left as it is, and looked at again.
    fn waits(&mut self, obstacle: Obstacle, now: Timestamp) {
        self.obstacle = obstacle;
        self.due = Some((now + LOOK_AGAIN, Need::Lost(Loss::Unseen)));
    }

    /// The node has to be registered again. `confirms`: the last registration, of which that is found, is the one to
    /// pause after.
    fn write(&mut self, confirms: bool, now: Timestamp) {
        if self.is_left_alone() {
            self.obstacle = Obstacle::None;
        }
        let mut due = now;
        if confirms {
            due = now.max(self.acted.unwrap_or_default() + self.pause(false, now));
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        self.due = Some((due, Need::Missing));
    }

    /// How long after the last registration the next repair comes at the soonest.
    fn pause(&self, at_agent: bool, now: Timestamp) -> Duration {
        let first = self.retry.first / 4;
        let is_proven = self.shown.is_some_and(|shown| now.since(shown) < PROVEN);
        let longest = self.retry.longest.min(if at_agent || is_proven { LONGEST_PAUSE } else { Duration::MAX });
        match self.in_a_row.checked_sub(1) {
            // A new loss.
            None => first.min(TAKES_EFFECT),
            Some(doublings) => first.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOIN: Option<Step> = Some(Step::Register { joins: true });
    const REGISTER: Option<Step> = Some(Step::Register { joins: false });
    const LOOK: Option<Step> = Some(Step::Look);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(10_000_000 + millis)
    }

    fn registered() -> Repair {
        let mut repair = Repair::new(RetryPolicy::default(), at(0));
        assert_eq!(repair.step(at(0)), JOIN);
        repair.registered(at(0));
        assert_eq!((repair.step(at(999)), repair.due()), (None, Some(at(1000))));
        assert_eq!(repair.step(at(1000)), LOOK, "whether it took effect");
        repair.looked(Look::Shown, at(1000));
        assert_eq!((repair.step(at(100_000)), repair.due()), (None, None));
        repair
    }

    /// The early look after a repair does not show it yet; after the first registration there is none.
    fn early(repair: &mut Repair) {
        let due = repair.due().unwrap();
        let is_repair = repair.in_a_row > 0;
        assert_eq!((repair.step(due), due < repair.acted.unwrap() + TAKES_EFFECT), (LOOK, is_repair));
        if is_repair {
            repair.looked(Look::Missing, due);
        }
    }

    fn maintenance() -> Look {
        Look::Found(Finding::Maintenance(Some("broken".to_owned())))
    }

    /// The watch does not show the node, and the catalog does not either: the time at which it is registered again.
    fn missed(repair: &mut Repair, now: Timestamp) -> Timestamp {
        repair.lost(Loss::Unseen, now);
        let due = repair.due().unwrap();
        assert_eq!(repair.step(due), LOOK);
        repair.looked(Look::Missing, due);
        assert_eq!(repair.step(due), REGISTER);
        repair.registered(due);
        due
    }

    #[test]
    fn consul_point_19_the_first_loss_is_repaired_at_once_wherever_it_is() {
        for loss in [Loss::Agent, Loss::Credential] {
            let mut repair = registered();
            repair.lost(loss, at(2000));
            assert_eq!(repair.step(at(2000)), REGISTER, "{loss:?}");
            repair.registered(at(2001));
            assert_eq!(repair.step(at(2100)), None);
            repair.looked(Look::Shown, at(2101));
            assert_eq!(repair.due(), None);
        }
        assert_eq!(missed(&mut registered(), at(2000)), at(2000));
    }

    #[test]
    fn consul_point_19_a_loss_at_the_agent_never_waits_longer_than_two_seconds() {
        let mut repair = registered();
        let mut now = at(100_000);
        for _ in 0..50 {
            repair.lost(Loss::Agent, now);
            let due = repair.due().unwrap();
            assert!(due.since(now) < Duration::from_secs(2));
            assert_eq!(repair.step(due), REGISTER);
            repair.registered(due);
            now = due;
        }
    }

    #[test]
    fn consul_point_19_a_node_that_stays_missing_is_written_ever_more_rarely() {
        let mut repair = registered();
        let (mut now, mut pauses) = (at(100_000), Vec::new());
        for _ in 0..10 {
            repair.lost(Loss::Unseen, now);
            let mut due = repair.due().unwrap();
            // It is the look after the registration that finds it, where that comes first.
            repair.looked(Look::Missing, due);
            due = repair.due().unwrap();
            assert_eq!(repair.step(due), REGISTER);
            pauses.push(due.since(now).as_millis());
            repair.registered(due);
            early(&mut repair);
            now = due;
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn consul_point_19_a_registration_that_never_takes_effect_is_an_alarm_that_lasts() {
        let mut repair = Repair::new(RetryPolicy::default(), at(0));
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..9 {
            repair.registered(now);
            early(&mut repair);
            let look = repair.due().unwrap();
            assert_eq!((look, repair.step(look)), (now + TAKES_EFFECT, LOOK), "found without the watch");
            repair.looked(Look::Missing, look);
            let due = repair.due().unwrap();
            assert_eq!(repair.step(due), REGISTER);
            pauses.push(due.since(now).as_millis());
            let told = repair.alarm(due).map(|(code, _)| code);
            let expected = (due.since(at(1000)) >= Duration::from_secs(5)).then_some(ErrorCode::RegistrationUnseen);
            assert_eq!(told, expected, "{due:?}");
            now = due;
        }
        assert_eq!(pauses, [1000, 1000, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert!(repair.alarm(now).unwrap().1.contains("for "), "says since when");
        repair.registered(now);
        repair.looked(Look::Shown, now + EARLY);
        assert_eq!((repair.alarm(now + MISSING_LONG), repair.due()), (None, None));
    }

    #[test]
    fn consul_point_13_maintenance_is_left_alone_until_it_is_lifted() {
        let mut repair = registered();
        let mut now = at(100_000);
        repair.lost(Loss::Unseen, now);
        for _ in 0..100 {
            assert_eq!(repair.step(now), LOOK);
            repair.looked(maintenance(), now);
            repair.lost(Loss::Unseen, now);
            assert_eq!(repair.due(), Some(now + LOOK_AGAIN));
            assert_eq!((repair.alarm(now), repair.maintenance()), (None, Some("broken")));
            now = now + LOOK_AGAIN;
        }
        // Nor does an agent that cannot be asked end it.
        for mute in [Look::Failed, Look::Mute] {
            repair.looked(mute, now);
            assert_eq!((repair.due(), repair.maintenance()), (Some(now + LOOK_AGAIN), Some("broken")));
            now = now + LOOK_AGAIN;
        }
        // It was lost in the catalog meanwhile.
        repair.looked(Look::Missing, now);
        assert_eq!((repair.step(now), repair.maintenance()), (REGISTER, None));
    }

    #[test]
    fn consul_point_13_maintenance_outlives_a_loss_at_the_agent() {
        let mut repair = registered();
        repair.lost(Loss::Unseen, at(100_000));
        repair.looked(maintenance(), at(100_000));
        repair.lost(Loss::Agent, at(101_000));
        assert_eq!((repair.step(at(101_000)), repair.maintenance()), (REGISTER, Some("broken")));
        repair.registered(at(101_000));
        assert_eq!(repair.maintenance(), Some("broken"));
        // The same where it is the look that finds the loss.
        repair.looked(maintenance(), at(102_000));
        repair.looked(Look::Lost, at(104_000));
        assert_eq!((repair.step(at(106_000)), repair.maintenance()), (REGISTER, Some("broken")));
        // Lifted: the watch shows it.
        repair.registered(at(106_000));
        repair.seen(at(106_001));
        assert_eq!((repair.due(), repair.maintenance()), (None, None));
    }

    #[test]
    fn consul_point_13_what_another_check_or_another_registration_does_is_told_as_long_as_it_lasts() {
        for (finding, code) in [
            (Finding::HeldBack("the check \"http\" is critical: refused".to_owned()), ErrorCode::CheckFailing),
            (Finding::Displaced("sales".to_owned()), ErrorCode::InvalidConfig),
        ] {
            let mut repair = registered();
            repair.lost(Loss::Unseen, at(100_000));
            for n in 0..20 {
                let now = at(100_000 + 2000 * n);
                assert_eq!(repair.step(now), LOOK);
                repair.looked(Look::Found(finding.clone()), now);
                let (told, detail) = repair.alarm(now).unwrap();
                assert!(told == code && (detail.contains("refused") || detail.contains("sales")), "{detail}");
                assert_eq!(repair.is_displaced(), code == ErrorCode::InvalidConfig);
            }
            repair.looked(Look::Found(Finding::OwnCheck), at(140_000));
            assert_eq!((repair.alarm(at(140_000)), repair.step(at(140_000))), (None, REGISTER));
        }
    }

    #[test]
    fn consul_point_19_where_nobody_can_be_asked_what_is_unseen_is_written_and_what_was_written_is_believed() {
        for mute in [Look::Failed, Look::Mute] {
            let mut repair = registered();
            repair.lost(Loss::Unseen, at(100_000));
            repair.looked(mute, at(100_000));
            assert_eq!(repair.step(at(100_000)), REGISTER);
        }
        let mut repair = registered();
        repair.registered(at(100_000));
        repair.looked(Look::Mute, at(101_000));
        assert_eq!((repair.due(), repair.alarm(at(200_000))), (None, None));
        repair.registered(at(200_000));
        let mut now = at(201_000);
        for pause in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            repair.looked(Look::Failed, now);
            assert_eq!(repair.due().unwrap().since(now).as_millis(), pause);
            now = repair.due().unwrap();
            assert_eq!((repair.step(now), repair.alarm(now)), (LOOK, None));
        }
    }

    #[test]
    fn consul_point_19_a_node_that_the_catalog_shows_is_not_written_whatever_the_watch_says() {
        let mut repair = registered();
        let (mut now, mut pauses) = (at(100_000), Vec::new());
        for _ in 0..9 {
            repair.lost(Loss::Unseen, now);
            let due = repair.due().unwrap();
            assert_eq!(repair.step(due), LOOK);
            repair.looked(Look::Shown, due);
            assert_eq!((repair.due(), repair.alarm(due)), (None, None));
            pauses.push(due.since(now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn consul_point_19_another_policy_is_followed_but_for_the_limit_of_a_loss_at_the_agent() {
        let pauses = |loss, first, longest| {
            let policy = RetryPolicy::new(Duration::from_millis(first), Duration::from_millis(longest));
            let mut repair = Repair { retry: policy, ..registered() };
            let mut now = at(100_000);
            [(); 5].map(|()| {
                repair.due = None;
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
        assert_eq!(pauses(Loss::Agent, 40_000, 60_000), [0, 1500, 1500, 1500, 1500]);
        assert_eq!(pauses(Loss::Agent, 200, 300), [0, 50, 100, 200, 300]);
    }

    #[test]
    fn consul_point_19_after_a_calm_minute_a_loss_is_repaired_at_once_again() {
        let mut repair = registered();
        let mut last = at(100_000);
        for _ in 0..3 {
            last = missed(&mut repair, last);
            repair.looked(Look::Mute, last);
        }
        let calm = last + Duration::from_secs(61);
        assert_eq!(missed(&mut repair, calm), calm);
    }

    #[test]
    fn consul_point_19_a_repair_that_had_its_effect_does_not_slow_the_next_one_down() {
        let mut repair = registered();
        for round in 0..10 {
            let now = at(100_000 + 2_000 * round);
            assert_eq!(missed(&mut repair, now), now, "round {round}");
            // An answer from before the registration took effect; then the one with it.
            repair.lost(Loss::Unseen, now);
            repair.seen(now);
            assert_eq!(repair.due(), None);
        }
        // The catalog shows it, before the watch does.
        for round in 0..10 {
            let now = at(150_000 + 2_000 * round);
            assert_eq!(missed(&mut repair, now), now, "round {round}");
            repair.looked(Look::Shown, now + TAKES_EFFECT);
        }
        // What the agent lost is not mended by what the watch still shows.
        repair.lost(Loss::Agent, at(200_000));
        repair.seen(at(200_000));
        assert_eq!(repair.step(at(200_000)), REGISTER);
    }

    #[test]
    fn consul_point_19_a_loss_after_a_repair_that_had_its_effect_is_repaired_within_two_seconds_however_often() {
        for seed in 0..200 {
            let mut jitter = crate::backoff::Jitter::new(seed);
            let mut any = |longest: u64| Duration::from_millis(jitter.next() % longest);
            let policy = RetryPolicy::new(any(60_000), any(120_000));
            let mut repair = Repair { retry: policy.sound(), ..registered() };
            let (begun, mut now, mut written) = (at(100_000), at(100_000), 0);
            for _ in 0..50 {
                // Shown for a moment, and lost again, in the catalog or at the agent.
                now = now + any(1500);
                repair.seen(now);
                repair.lost(if any(2) > Duration::ZERO { Loss::Unseen } else { Loss::Agent }, now);
                // The watch repeats what it sees.
                repair.lost(Loss::Unseen, now + any(50));
                let due = repair.due().unwrap();
                assert!(due.since(now) <= TAKES_EFFECT, "seed {seed}: {:?}", due.since(now));
                if repair.step(due) == LOOK {
                    let holds = any(2) > Duration::ZERO;
                    repair.looked(if holds { Look::Missing } else { Look::Lost }, due);
                    assert!(repair.due().unwrap().since(now) <= Duration::from_secs(2), "seed {seed}");
                }
                now = repair.due().unwrap();
                assert_eq!(repair.step(now), REGISTER, "seed {seed}");
                repair.registered(now);
                written += 1;
            }
            let fastest = (policy.sound().first / 4).min(TAKES_EFFECT);
            assert!(now.since(begun) >= fastest * (written - 1), "seed {seed}: {written} in {:?}", now.since(begun));
        }
    }

    #[test]
    fn consul_point_19_repairs_without_effect_are_slow_until_one_has_its_effect() {
        let mut repair = registered();
        let mut now = at(100_000);
        for _ in 0..9 {
            repair.registered(now);
            early(&mut repair);
            repair.looked(Look::Missing, now + TAKES_EFFECT);
            now = repair.due().unwrap();
        }
        repair.registered(now);
        early(&mut repair);
        repair.looked(Look::Missing, now + TAKES_EFFECT);
        assert_eq!(repair.due(), Some(now + Duration::from_secs(30)));
        // The servers take it after all, and lose it again at once.
        let shown = now + Duration::from_secs(5);
        repair.seen(now);
        assert_eq!(missed(&mut repair, shown), shown);
    }

    #[test]
    fn consul_point_19_a_repair_whose_effect_the_watch_had_no_time_to_see_is_none_without_effect() {
        let mut repair = registered();
        let mut now = missed(&mut repair, at(100_000));
        for round in 0..20 {
            repair.looked(Look::Shown, now + EARLY);
            assert_eq!(repair.due(), None, "round {round}");
            let due = missed(&mut repair, now + Duration::from_millis(150));
            assert_eq!(due, now + Duration::from_millis(500), "round {round}");
            now = due;
        }
    }

    #[test]
    fn consul_point_19_what_an_early_look_does_not_find_is_looked_for_again_before_anything_is_written() {
        for look in [Look::Missing, Look::Failed, Look::Found(Finding::OwnCheck)] {
            let mut repair = registered();
            repair.lost(Loss::Agent, at(2000));
            repair.registered(at(2000));
            assert_eq!((repair.step(at(2099)), repair.step(at(2100))), (None, LOOK));
            repair.looked(look.clone(), at(2100));
            assert_eq!((repair.due(), repair.alarm(at(9000))), (Some(at(3000)), None), "{look:?}");
            assert_eq!(repair.step(at(3000)), LOOK, "{look:?}");
        }
        let mut repair = registered();
        repair.lost(Loss::Agent, at(2000));
        repair.registered(at(2000));
        repair.looked(Look::Lost, at(2100));
        assert_eq!((repair.step(at(2499)), repair.step(at(2500))), (None, REGISTER), "what the agent lost is");
    }

    #[test]
    fn consul_point_19_whoever_takes_the_node_away_more_quickly_than_anybody_looks_slows_nothing_down_for_a_while() {
        let mut repair = registered();
        // It was lost and seen again, and from then on it is never caught being shown.
        let mut now = missed(&mut repair, at(100_000));
        repair.seen(now);
        let (shown, mut pauses) = (now, Vec::new());
        for _ in 0..16 {
            repair.lost(Loss::Unseen, now);
            let mut due = repair.due().unwrap();
            repair.looked(Look::Missing, due);
            due = repair.due().unwrap();
            assert_eq!(repair.step(due), REGISTER);
            pauses.push((due.since(now).as_millis(), due.since(shown) < PROVEN));
            repair.registered(due);
            early(&mut repair);
            now = due;
        }
        assert!(pauses.iter().all(|(pause, is_proven)| *pause < 2000 || !is_proven), "{pauses:?}");
        assert_eq!(pauses.last().map(|(pause, _)| *pause), Some(30_000), "{pauses:?}");
    }

    #[test]
    fn consul_point_15_a_new_token_is_registered_at_once_also_right_after_a_repair() {
        let mut repair = registered();
        repair.lost(Loss::Agent, at(2000));
        repair.registered(at(2000));
        repair.lost(Loss::Credential, at(2001));
        assert_eq!(repair.step(at(2001)), REGISTER);
    }

    #[test]
    fn consul_point_19_what_the_watch_saw_before_the_registration_took_effect_does_not_undo_the_pause() {
        let mut repair = registered();
        assert_eq!(missed(&mut repair, at(2001)), at(2001));
        repair.lost(Loss::Unseen, at(2003));
        assert_eq!(repair.step(at(2003)), None);
        // A second report changes nothing.
        repair.lost(Loss::Unseen, at(2004));
        let mut shown = repair.clone();
        early(&mut repair);
        assert_eq!(repair.due(), Some(at(2501)), "sooner than without a report");
        shown.looked(Look::Shown, at(2101));
        assert_eq!(shown.due(), None, "the catalog knows better");
    }

    #[test]
    fn consul_point_18_a_loss_at_the_agent_does_not_wait_for_a_slow_repair_of_what_the_watch_does_not_show() {
        let mut repair = registered();
        let mut now = at(100_000);
        for _ in 0..8 {
            repair.lost(Loss::Unseen, now);
            now = repair.due().unwrap();
            repair.looked(Look::Shown, now);
        }
        repair.lost(Loss::Unseen, now);
        assert_eq!(repair.due().unwrap().since(now), Duration::from_secs(30));
        repair.lost(Loss::Agent, now);
        assert!(repair.due().unwrap().since(now) <= Duration::from_secs(2));
    }

    #[test]
    fn consul_point_18_an_agent_that_is_away_is_looked_at_with_the_next_heartbeat() {
        let mut repair = registered();
        repair.lost(Loss::Unseen, at(2000));
        repair.postponed(at(2500));
        assert_eq!(repair.due(), Some(at(2500)));
        repair.registered(at(3000));
        repair.postponed(at(3500));
        assert_eq!(repair.due(), Some(at(3500)), "the early look");
        repair.looked(Look::Missing, at(3500));
        repair.postponed(at(3600));
        assert_eq!(repair.due(), Some(at(4000)));
        repair.lost(Loss::Agent, at(4000));
        repair.postponed(at(9000));
        assert_eq!(repair.step(at(5000)), REGISTER, "what is known to be lost does not wait");
    }

    #[test]
    fn consul_point_18_a_failed_registration_is_tried_again_within_two_seconds() {
        let mut repair = registered();
        repair.lost(Loss::Agent, at(2000));
        repair.failed(at(2000), Duration::from_secs(9));
        assert_eq!(repair.due(), Some(at(3500)));
        assert_eq!((repair.step(at(3499)), repair.step(at(3500))), (None, REGISTER));
    }
}
