//! What can happen later by time alone, and when.
//!
//! Every deadline of the hub is a [`Timer`]. They are set in one place (`HubCore::arm`), looked at in one table, and each
//! that has run out is acted upon in one match (`HubCore::fire`).

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::failover::SlotKey;

/// A deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// One of the hub as a whole.
    Hub(HubTimer),
    /// One of a provider.
    Of(SlotKey, SlotTimer),
}

/// A deadline of the hub as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HubTimer {
    /// The clock is looked at, so that a standstill of the whole process shows as a gap.
    Standstill,
    /// An entry of the block list ends.
    Block,
    /// What was held back by coalescing may go out.
    Window,
    /// The same of what is urgent.
    Urgency,
    /// A sudden loss of members has been held back for long enough.
    MassLoss,
    /// A member that flaps has been away for too long.
    HeldLeave,
    /// The standby whose switch is held back has lost nothing for long enough.
    Guard,
    /// At the start a lower provider has waited long enough for a better one.
    InitialGrace,
    /// A voluntary switch may follow the last one.
    Cooldown,
    /// The data of the provider followed becomes too old.
    Stale,
    /// Nobody is followed, and what the removed provider showed counts as unwatched.
    Unwatched,
    /// The gate, which flapped, may open again.
    Gate,
    /// PlacementSupervisor, which panicked, is asked to recalculate again.
    Recalculation,
}

/// A deadline of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotTimer {
    /// The provider has been silent for too long, and is Unreachable.
    Silence,
    /// Its open stream has been silent for too long, and is given up.
    Mute,
    /// Its data is overdue, and it is Degraded.
    Overdue,
    /// It has been what it is, healthy or degraded, for long enough that a switch may follow.
    Hold,
    /// The next stream is opened.
    Reopen,
}

/// In the order of their declaration, as the tables keep them.
const OF_THE_HUB: [HubTimer; 13] = [
    HubTimer::Standstill,
    HubTimer::Block,
    HubTimer::Window,
    HubTimer::Urgency,
    HubTimer::MassLoss,
    HubTimer::HeldLeave,
    HubTimer::Guard,
    HubTimer::InitialGrace,
    HubTimer::Cooldown,
    HubTimer::Stale,
    HubTimer::Unwatched,
    HubTimer::Gate,
    HubTimer::Recalculation,
];
const OF_A_SLOT: [SlotTimer; 5] =
    [SlotTimer::Silence, SlotTimer::Mute, SlotTimer::Overdue, SlotTimer::Hold, SlotTimer::Reopen];

/// When each timer of the hub as a whole runs out.
#[derive(Clone, Debug, Default)]
pub(super) struct HubTimers([Option<Timestamp>; OF_THE_HUB.len()]);

impl HubTimers {
    /// Sets the timer, or stops it.
    pub(super) fn set(&mut self, timer: HubTimer, at: Option<Timestamp>) {
        self.0[timer as usize] = at;
    }
}

/// When each timer of one provider runs out.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotTimers([Option<Timestamp>; OF_A_SLOT.len()]);

impl SlotTimers {
    /// Sets the timer, or stops it.
    pub(super) fn set(&mut self, timer: SlotTimer, at: Option<Timestamp>) {
        self.0[timer as usize] = at;
    }
}

/// When each timer runs out.
#[derive(Clone, Debug, Default)]
pub(super) struct TimerTable {
    own: HubTimers,
    slots: BTreeMap<SlotKey, SlotTimers>,
}

impl TimerTable {
    /// The timers of the hub as a whole.
    pub(super) fn own(&mut self) -> &mut HubTimers {
        &mut self.own
    }

    /// Those of a provider.
    pub(super) fn of(&mut self, key: SlotKey) -> &mut SlotTimers {
        self.slots.entry(key).or_default()
    }

    /// Forgets the timers of every provider that is not among these.
    pub(super) fn retain(&mut self, is_in_force: impl Fn(SlotKey) -> bool) {
        self.slots.retain(|key, _| is_in_force(*key));
    }

    /// When the next timer runs out.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let slots = self.slots.values().flat_map(|slot| &slot.0);
        self.own.0.iter().chain(slots).flatten().min().copied()
    }

    /// Stops the timers that have run out by now and gives them: those of the hub first, in the order of their
    /// declaration, then those of each provider.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Timer> {
        let has_run_out = |at: &mut Option<Timestamp>| at.take_if(|at| *at <= now).is_some();
        let mut expired = Vec::new();
        for (timer, at) in OF_THE_HUB.iter().zip(&mut self.own.0) {
            if has_run_out(at) {
                expired.push(Timer::Hub(*timer));
            }
        }
        for (key, slot) in &mut self.slots {
            for (timer, at) in OF_A_SLOT.iter().zip(&mut slot.0) {
                if has_run_out(at) {
                    expired.push(Timer::Of(*key, *timer));
                }
            }
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn set(table: &mut TimerTable, timer: Timer, at: Option<Timestamp>) {
        match timer {
            Timer::Hub(timer) => table.own().set(timer, at),
            Timer::Of(key, timer) => table.of(key).set(timer, at),
        }
    }

    #[test]
    fn every_timer_has_a_place_of_its_own() {
        let all = || OF_THE_HUB.map(Timer::Hub).into_iter().chain(OF_A_SLOT.map(|timer| Timer::Of(7, timer)));
        let mut table = TimerTable::default();
        for (millis, timer) in (1..).zip(all()) {
            set(&mut table, timer, Some(at(millis)));
        }
        for (millis, timer) in (1..).zip(all()) {
            assert_eq!(table.next(), Some(at(millis)));
            assert_eq!(table.expire(at(millis)), [timer]);
        }
        assert_eq!(table.next(), None);
    }

    #[test]
    fn a_timer_runs_out_once_can_be_stopped_and_goes_with_its_provider() {
        let mut table = TimerTable::default();
        table.own().set(HubTimer::Window, Some(at(5)));
        table.of(1).set(SlotTimer::Mute, Some(at(3)));
        table.of(2).set(SlotTimer::Reopen, Some(at(4)));
        assert_eq!(table.expire(at(2)), []);
        table.retain(|key| key == 1);
        assert_eq!(table.expire(at(9)), [Timer::Hub(HubTimer::Window), Timer::Of(1, SlotTimer::Mute)]);
        assert_eq!(table.expire(at(9)), []);
        table.own().set(HubTimer::Gate, Some(at(10)));
        table.own().set(HubTimer::Gate, None);
        assert_eq!((table.next(), table.expire(at(99))), (None, vec![]));
    }
}
