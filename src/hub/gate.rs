//! The gate of placement: whether new placements may be made, and why not.
//!
//! It closes at once. It opens only when PlacementSupervisor has recalculated ownership from what was delivered, and,
//! where it flaps, once a second at the most.

use std::time::Duration;

use super::turn::Turn;
use crate::clock::Timestamp;
use crate::error::ErrorCode;
use crate::event::{GateChanged, PauseReason, PlacementGate, ProvisioningEvent};

/// How long after the gate last opened it may open again.
const FLAP: Duration = Duration::from_secs(1);
/// The pause before a PlacementSupervisor that panicked is asked again; doubles with each panic in a row.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// What the gate depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// The service is shutting down.
    Draining,
    /// There is nothing to place on, or nothing that may be relied on: no snapshot yet, no provider, or stale data.
    Unavailable(ErrorCode),
    /// By a confirmed answer there are no members.
    Empty,
    /// There are members.
    Members,
}

/// Whether PlacementSupervisor knows who owns what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    Known,
    /// It panicked so many times in a row when it was to recalculate; it is asked again then.
    Unknown {
        panics: u32,
        retry_at: Timestamp,
    },
}

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    gate: PlacementGate,
    opened_at: Option<Timestamp>,
    ownership: Ownership,
}

impl Gate {
    /// Paused, because there is no snapshot yet.
    pub(super) fn new() -> Self {
        let gate = PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::NoSnapshot));
        Self { gate, opened_at: None, ownership: Ownership::Known }
    }

    pub(super) fn gate(&self) -> PlacementGate {
        self.gate
    }

    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self.gate, PlacementGate::Paused(PauseReason::Unavailable(_)))
    }

    /// Whether the gate leaves the unavailable state with that outlook: which is itself a reason to deliver the snapshot.
    pub(super) fn recovers(&self, outlook: Outlook, now: Timestamp) -> bool {
        let stays = match outlook {
            Outlook::Draining | Outlook::Unavailable(_) => true,
            Outlook::Empty => false,
            Outlook::Members => self.flaps(now),
        };
        self.is_unavailable() && !stays
    }

    /// Closes the gate if the outlook asks for it, or gives another reason for its being closed.
    pub(super) fn close(&mut self, outlook: Outlook, turn: &mut Turn<'_>) {
        let reason = match outlook {
            Outlook::Draining => PauseReason::Draining,
            Outlook::Unavailable(code) => PauseReason::Unavailable(code),
            Outlook::Empty => PauseReason::Empty,
            Outlook::Members => return,
        };
        self.set(PlacementGate::Paused(reason), turn);
    }

    /// The tick's snapshots were handed to PlacementSupervisor, if there were any. `recalculated`: whether it came to its
    /// end with the last of them; absent if there was none.
    pub(super) fn note_recalculation(&mut self, recalculated: Option<bool>, now: Timestamp) {
        let panics = match (recalculated, self.ownership) {
            (None, _) => return,
            (Some(true), _) => return self.ownership = Ownership::Known,
            (Some(false), Ownership::Known) => 0,
            (Some(false), Ownership::Unknown { panics, .. }) => panics,
        };
        let pause = FIRST_RETRY.saturating_mul(1u32.checked_shl(panics).unwrap_or(u32::MAX)).min(LONGEST_RETRY);
        self.ownership = Ownership::Unknown { panics: panics.saturating_add(1), retry_at: now + pause };
    }

    /// Opens the gate if the outlook allows it and ownership is known; closes it if ownership no longer is.
    pub(super) fn open(&mut self, outlook: Outlook, turn: &mut Turn<'_>) {
        if outlook != Outlook::Members {
            return;
        }
        if self.ownership != Ownership::Known {
            return self.set(PlacementGate::Paused(PauseReason::NotRecalculated), turn);
        }
        if !self.gate.is_open() && !self.flaps(turn.now()) {
            self.opened_at = Some(turn.now());
            self.set(PlacementGate::Open, turn);
        }
    }

    /// When the gate may open again, if it may not yet.
    pub(super) fn opens_at(&self) -> Option<Timestamp> {
        self.opened_at.filter(|_| !self.gate.is_open()).map(|opened| opened + FLAP)
    }

    /// When PlacementSupervisor is to be asked again.
    pub(super) fn retries_at(&self) -> Option<Timestamp> {
        match self.ownership {
            Ownership::Known => None,
            Ownership::Unknown { retry_at, .. } => Some(retry_at),
        }
    }

    fn flaps(&self, now: Timestamp) -> bool {
        self.opens_at().is_some_and(|opens| now < opens)
    }

    fn set(&mut self, gate: PlacementGate, turn: &mut Turn<'_>) {
        if gate == self.gate {
            return;
        }
        turn.decide(format!("placement: {} -> {gate}", self.gate));
        self.gate = gate;
        turn.deliver(|position, at| ProvisioningEvent::GateChanged(GateChanged { position, at, gate }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    /// One tick with that outlook, in which PlacementSupervisor fares like that; what it delivers.
    fn tick(gate: &mut Gate, millis: u64, outlook: Outlook, recalculated: Option<bool>) -> Vec<String> {
        let mut record = Record::new(1);
        let mut turn = Turn::begin(&mut record, at(millis));
        gate.close(outlook, &mut turn);
        gate.note_recalculation(recalculated, at(millis));
        gate.open(outlook, &mut turn);
        turn.into_events().0.iter().map(ToString::to_string).collect()
    }

    const NOTHING: [&str; 0] = [];
    const UNAVAILABLE: Outlook = Outlook::Unavailable(ErrorCode::ProvisioningUnavailable);

    #[test]
    fn p2_4_p5_3_it_closes_at_once_and_where_it_flaps_opens_once_a_second() {
        let mut gate = Gate::new();
        assert_eq!(tick(&mut gate, 0, Outlook::Members, Some(true)), ["placement is open"]);
        assert_eq!(tick(&mut gate, 10, Outlook::Empty, Some(true)), ["placement is paused (empty)"]);
        assert_eq!(tick(&mut gate, 20, Outlook::Members, Some(true)), NOTHING);
        assert_eq!(gate.opens_at(), Some(at(1000)));
        assert_eq!(tick(&mut gate, 30, UNAVAILABLE, None), ["placement is paused (provisioning-unavailable)"]);
        assert!(!gate.recovers(Outlook::Members, at(999)) && gate.recovers(Outlook::Empty, at(999)));
        assert!(gate.recovers(Outlook::Members, at(1000)) && !gate.recovers(UNAVAILABLE, at(1000)));
        assert_eq!(tick(&mut gate, 1000, Outlook::Members, None), ["placement is open"]);
        assert_eq!(gate.opens_at(), None);
        // A second or more later it is no flapping.
        assert_eq!(tick(&mut gate, 5000, Outlook::Empty, Some(true)), ["placement is paused (empty)"]);
        assert_eq!(tick(&mut gate, 5001, Outlook::Members, Some(true)), ["placement is open"]);
    }

    #[test]
    fn p3_1_it_stays_closed_until_ownership_is_recalculated_and_asks_for_that_again() {
        let mut gate = Gate::new();
        let paused = ["placement is paused (not-recalculated)"];
        assert_eq!(tick(&mut gate, 0, Outlook::Members, Some(false)), paused);
        assert_eq!(gate.retries_at(), Some(at(1000)));
        assert_eq!(tick(&mut gate, 500, Outlook::Members, None), NOTHING, "nobody has recalculated");
        for (millis, next) in [(1000, 3000), (3000, 7000), (7000, 15_000), (15_000, 31_000), (31_000, 61_000)] {
            assert_eq!(tick(&mut gate, millis, Outlook::Members, Some(false)), NOTHING);
            assert_eq!(gate.retries_at(), Some(at(next)));
        }
        assert_eq!(tick(&mut gate, 91_000, Outlook::Members, Some(true)), ["placement is open"]);
        assert_eq!(gate.retries_at(), None);
        assert_eq!(tick(&mut gate, 99_000, Outlook::Members, Some(false)), paused, "an open one closes");
        assert_eq!(gate.retries_at(), Some(at(100_000)), "the count began anew");
    }

    #[test]
    fn p3_5_draining_stays() {
        let mut gate = Gate::new();
        tick(&mut gate, 0, Outlook::Members, Some(true));
        assert_eq!(tick(&mut gate, 1, Outlook::Draining, None), ["placement is paused (draining)"]);
        assert!(!gate.is_unavailable() && !gate.gate().is_open());
    }
}
