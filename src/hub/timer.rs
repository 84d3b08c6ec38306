//! What can happen later by time alone, and when.
//!
//! Every deadline of the hub is a [`Timer`]. They are set in one place (`HubCore::arm`), looked at in one table, and each
//! that has run out is acted upon in one match (`HubCore::fire`).

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::failover::SlotKey;

/// A deadline of the hub as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
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
    /// A deadline of one provider.
    Of(SlotKey, SlotTimer),
}

/// A deadline of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

const OWN: [Timer; 12] = [
    Timer::Standstill,
    Timer::Block,
    Timer::Window,
    Timer::Urgency,
    Timer::MassLoss,
    Timer::Guard,
    Timer::InitialGrace,
    Timer::Cooldown,
    Timer::Stale,
    Timer::Unwatched,
    Timer::Gate,
    Timer::Recalculation,
];
const OF_A_SLOT: [SlotTimer; 5] =
    [SlotTimer::Silence, SlotTimer::Mute, SlotTimer::Overdue, SlotTimer::Hold, SlotTimer::Reopen];

/// When each timer runs out.
#[derive(Clone, Debug, Default)]
pub(super) struct TimerTable {
    own: [Option<Timestamp>; OWN.len()],
    slots: BTreeMap<SlotKey, [Option<Timestamp>; OF_A_SLOT.len()]>,
}

impl TimerTable {
    /// Sets the timer, or stops it.
    pub(super) fn set(&mut self, timer: Timer, at: Option<Timestamp>) {
        match timer {
            Timer::Of(key, timer) => self.slots.entry(key).or_default()[timer as usize] = at,
            _ => {
                if let Some(place) = OWN.iter().position(|own| *own == timer) {
                    self.own[place] = at;
                }
            }
        }
    }

    /// Forgets the timers of every provider that is not among these.
    pub(super) fn retain(&mut self, is_in_force: impl Fn(SlotKey) -> bool) {
        self.slots.retain(|key, _| is_in_force(*key));
    }

    /// When the next timer runs out.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.own.iter().chain(self.slots.values().flatten()).flatten().min().copied()
    }

    /// Stops the timers that have run out by now and gives them: those of the hub first, in the order of their
    /// declaration, then those of each provider.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Timer> {
        let has_run_out = |at: &mut Option<Timestamp>| at.take_if(|at| *at <= now).is_some();
        let mut expired = Vec::new();
        for (timer, at) in OWN.iter().zip(&mut self.own) {
            if has_run_out(at) {
                expired.push(*timer);
            }
        }
        for (key, slot) in &mut self.slots {
            for (timer, at) in OF_A_SLOT.iter().zip(slot) {
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

    #[test]
    fn every_timer_has_a_place_of_its_own() {
        let all = || OWN.into_iter().chain(OF_A_SLOT.map(|timer| Timer::Of(7, timer)));
        let mut table = TimerTable::default();
        for (millis, timer) in (1..).zip(all()) {
            table.set(timer, Some(at(millis)));
        }
        for (millis, timer) in (1..).zip(all()) {
            assert_eq!(table.next(), Some(at(millis)));
            assert_eq!(table.expire(at(millis)), [timer]);
        }
        assert_eq!(table.next(), None);
        for (place, timer) in OF_A_SLOT.iter().enumerate() {
            assert_eq!(*timer as usize, place);
        }
    }

    #[test]
    fn a_timer_runs_out_once_can_be_stopped_and_goes_with_its_provider() {
        let mut table = TimerTable::default();
        table.set(Timer::Window, Some(at(5)));
        table.set(Timer::Of(1, SlotTimer::Mute), Some(at(3)));
        table.set(Timer::Of(2, SlotTimer::Reopen), Some(at(4)));
        assert_eq!(table.expire(at(2)), []);
        table.retain(|key| key == 1);
        assert_eq!(table.expire(at(9)), [Timer::Window, Timer::Of(1, SlotTimer::Mute)]);
        assert_eq!(table.expire(at(9)), []);
        table.set(Timer::Gate, Some(at(10)));
        table.set(Timer::Gate, None);
        assert_eq!((table.next(), table.expire(at(99))), (None, vec![]));
    }
}
