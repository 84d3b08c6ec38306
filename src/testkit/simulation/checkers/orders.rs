//! What must hold of commands, of draining and of stopping, whatever waits for the hub.

use super::ensure;
use crate::event::{PauseReason, PlacementGate};
use crate::testkit::simulation::shell::{Outcomes, TracedTick};

/// The name by which a failure is reported.
pub(in super::super) const ORDERS: &str = "orders";

/// The shortest queue that may be called full.
const FULL: usize = 4096;

/// Each command is answered once, in the round after it was given; the gate is closed with the order to drain, and nothing
/// is delivered after the order to stop.
#[derive(Default)]
pub(in super::super) struct Orders {
    waiting: usize,
    drained: bool,
    stopped: bool,
}

impl Orders {
    /// Draining was ordered.
    pub(in super::super) fn drained(&mut self) {
        self.drained = true;
    }

    /// Stopping was ordered.
    pub(in super::super) fn stopped(&mut self) {
        (self.drained, self.stopped) = (true, true);
    }

    /// Judges a tick.
    pub(in super::super) fn check_tick(&self, tick: &TracedTick) -> Result<(), String> {
        ensure!(!self.stopped || tick.calls.is_empty(), "{:?} was delivered after the order to stop", tick.calls);
        Ok(())
    }

    /// Judges what became of the commands, and the gate as the host reads it. `through`: the hub has taken all that
    /// waited.
    pub(in super::super) fn check(
        &mut self,
        outcomes: Outcomes,
        gate: PlacementGate,
        through: bool,
    ) -> Result<(), String> {
        let Outcomes { given, answered, stopped, refused } = outcomes;
        self.waiting += given;
        ensure!(refused == 0 || self.waiting >= FULL, "{refused} commands refused, although {} wait", self.waiting);
        ensure!(stopped == 0 || self.stopped, "{stopped} commands hear that the hub has stopped, and it has not");
        let done = answered + stopped;
        ensure!(done <= self.waiting, "{done} commands answered, and {} waited", self.waiting);
        self.waiting -= done;
        ensure!(!through || self.waiting == 0, "{} commands were not answered", self.waiting);
        let draining = PlacementGate::Paused(PauseReason::Draining);
        ensure!(!self.drained || gate == draining, "the gate is {gate} after the order to drain");
        Ok(())
    }

    /// Judges the end of the hub. `calls`: how many callbacks came without a tick.
    pub(in super::super) fn check_end(&self, told: bool, calls: usize) -> Result<(), String> {
        ensure!(calls == 0, "{calls} callbacks after the order to stop");
        ensure!(self.waiting == 0, "{} commands never hear of anything", self.waiting);
        ensure!(told, "somebody was not told that the hub has stopped");
        Ok(())
    }
}
