//! The hub's thread: waits for what is sent and for the next timer, and takes a round.
//!
//! Whatever foreign code does, the thread's end is told.

use std::sync::Arc;
use std::time::Duration;

use super::mailbox::Mailbox;
use super::rounds::{Rounds, TickObserver};
use super::running::RunningStreams;
use super::{Dispatcher, HubCore, Tick};
use crate::clock::Clock;
use crate::panics::caught;
use crate::text::line::log_line;

/// What the hub's thread works with.
pub(crate) struct HubThread {
    pub(crate) core: HubCore,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Called after every tick, and at the end.
    pub(crate) after_tick: Box<dyn Fn() + Send>,
    /// Disconnects its receiver when this thread and all streams' threads have ended.
    pub(crate) alive: crossbeam_channel::Sender<()>,
}

impl HubThread {
    /// Runs until it is told to stop.
    pub(crate) fn run(self) {
        let Self { core, dispatcher, mailbox, clock, after_tick, alive } = self;
        let streams = RunningStreams::new(Arc::clone(&clock), alive);
        let mut rounds = Rounds::new(core, dispatcher, mailbox, clock, streams, AfterTick(after_tick));
        // No panic is expected here: foreign code is caught where it is called.
        let outcome = caught(|| {
            let mut wait = Duration::ZERO;
            loop {
                rounds.inbox.wait(wait);
                let Some(next) = rounds.round() else { break };
                wait = next;
            }
        });
        rounds.end();
        if let Err(panic) = outcome {
            log_line!(Error, "the hub's thread has panicked, and the service has stopped: {panic}");
        }
    }
}

struct AfterTick(Box<dyn Fn() + Send>);

impl TickObserver for AfterTick {
    fn is_through(&mut self, _: &Tick) {
        (self.0)();
    }

    fn has_ended(&mut self) {
        (self.0)();
    }
}
