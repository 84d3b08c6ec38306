//! The deadlines of a member as a whole: at most one of each kind.

use crate::clock::Timestamp;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The next probe begins.
    Probe,
    /// Rumours are sent.
    Gossip,
    /// A seed, or somebody who is dead, is asked whether it is there.
    Seeds,
    /// This node asks to be let in.
    Join,
    /// What is known is exchanged once more after the join.
    Confirm,
    /// Another holder of this node's id is asked once more whether it is there.
    Claim,
    /// This node, which was declared dead, may return.
    Return,
    /// This node has waited long enough for somebody to note that it leaves.
    Leave,
    /// Those who have been gone for long are forgotten.
    Sweep,
}

impl Timer {
    /// In the order in which those that are due together go off, which is that of their declaration.
    const ALL: [Timer; 9] = [
        Timer::Probe,
        Timer::Gossip,
        Timer::Seeds,
        Timer::Join,
        Timer::Confirm,
        Timer::Claim,
        Timer::Return,
        Timer::Leave,
        Timer::Sweep,
    ];
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers([Option<Timestamp>; Timer::ALL.len()]);

impl Timers {
    /// When it goes off, if it is set.
    pub(super) fn get(&self, timer: Timer) -> Option<Timestamp> {
        self.0[timer as usize]
    }

    /// It goes off then, whatever was set before.
    pub(super) fn set(&mut self, timer: Timer, at: Timestamp) {
        self.0[timer as usize] = Some(at);
    }

    /// It goes off then, or when it was set to if that is earlier.
    pub(super) fn set_by(&mut self, timer: Timer, at: Timestamp) {
        self.set(timer, self.get(timer).map_or(at, |known| known.min(at)));
    }

    /// If it is set, it goes off then.
    pub(super) fn move_to(&mut self, timer: Timer, at: Timestamp) {
        if self.get(timer).is_some() {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(super) fn cancel_all(&mut self) {
        *self = Self::default();
    }

    /// The next one that is due by now, which is not set any more.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Timer> {
        let timer = Timer::ALL.into_iter().find(|timer| self.get(*timer).is_some_and(|at| at <= now))?;
        self.cancel(timer);
        Some(timer)
    }

    /// When the next one goes off.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.0.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn m1_2_each_timer_has_a_place_of_its_own() {
        assert!(Timer::ALL.iter().enumerate().all(|(number, timer)| *timer as usize == number));
    }

    #[test]
    fn m1_2_timers_go_off_once_when_they_are_due_in_the_order_of_their_kinds() {
        let mut timers = Timers::default();
        assert_eq!((timers.next_at(), timers.due(at(9))), (None, None));
        for (timer, millis) in [(Timer::Sweep, 3), (Timer::Probe, 5), (Timer::Leave, 8)] {
            timers.set(timer, at(millis));
        }
        assert_eq!((timers.next_at(), timers.due(at(2))), (Some(at(3)), None));
        assert_eq!(
            [timers.due(at(5)), timers.due(at(5)), timers.due(at(5))],
            [Some(Timer::Probe), Some(Timer::Sweep), None]
        );
        assert_eq!(timers.next_at(), Some(at(8)));
    }

    #[test]
    fn m1_2_a_timer_is_moved_only_where_that_is_asked_for() {
        let mut timers = Timers::default();
        let gossip = |timers: &Timers| timers.get(Timer::Gossip).map(Timestamp::as_millis);
        timers.move_to(Timer::Gossip, at(1));
        assert_eq!(gossip(&timers), None);
        timers.set_by(Timer::Gossip, at(7));
        assert_eq!(gossip(&timers), Some(7));
        timers.set_by(Timer::Gossip, at(9));
        assert_eq!(gossip(&timers), Some(7));
        timers.set_by(Timer::Gossip, at(5));
        assert_eq!(gossip(&timers), Some(5));
        timers.move_to(Timer::Gossip, at(6));
        assert_eq!(gossip(&timers), Some(6));
        timers.set_by(Timer::Join, at(4));
        assert_eq!((timers.get(Timer::Join), gossip(&timers)), (Some(at(4)), Some(6)));
        timers.cancel(Timer::Join);
        assert_eq!(timers.get(Timer::Join), None);
        timers.cancel_all();
        assert_eq!(timers.next_at(), None);
    }
}
