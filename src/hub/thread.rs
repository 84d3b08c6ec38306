//! The hub's thread: carries inputs to the core and ticks to the dispatcher.
//!
//! It takes in rounds. A round begins with a look at the clock, goes through all that was sent until then, and ends with
//! the timers as of that moment, so that no report that waits is taken for silence, however slow a callback was. Before
//! each message it looks whether it is to drain or to stop. Whatever foreign code does, the thread's end is told: the gate
//! closes, the state says stopped, streams are ended, subscribers and waiters hear of it.

use std::sync::Arc;
use std::time::Duration;

use super::lifecycle::Phase;
use super::mailbox::{Inbox, Message, ProviderOrder, Providers};
use super::running::RunningStreams;
use super::{Dispatcher, HubCore, Input, Tick};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::hub::mailbox::Mailbox;
use crate::panics::{caught, discard};

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
        let inbox = Inbox::new(Arc::clone(&mailbox));
        let streams = RunningStreams::new(Arc::clone(&clock), alive);
        let mut work = Work { core, dispatcher, inbox, streams, clock, after_tick: &*after_tick, drained: false };
        // No panic is expected here: foreign code is caught where it is called.
        let outcome = caught(|| work.live(&mailbox));
        mailbox.life().end();
        let Work { core, mut dispatcher, inbox, streams, .. } = work;
        streams.end_all();
        drop(inbox);
        dispatcher.publish_end();
        after_tick();
        if let Err(panic) = outcome {
            _ = caught(|| log::error!("the hub's thread has panicked, and the service has stopped: {panic}"));
        }
        discard(dispatcher);
        discard(core);
    }
}

/// Lets whoever ordered other providers let go of the former ones: their `Drop` is foreign code, and may take long.
fn hand_back(former: Providers, to: &crossbeam_channel::Sender<Providers>) {
    if let Err(unsent) = to.try_send(former) {
        discard(unsent.into_inner());
    }
}

/// The thread's work under way.
struct Work<'a> {
    core: HubCore,
    dispatcher: Dispatcher,
    inbox: Inbox,
    streams: RunningStreams,
    clock: Arc<dyn Clock>,
    after_tick: &'a dyn Fn(),
    drained: bool,
}

impl Work<'_> {
    fn live(&mut self, mailbox: &Mailbox) {
        let mut wait = Duration::ZERO;
        loop {
            self.inbox.wait(wait);
            let round = self.clock.now();
            let (messages, floods) = self.inbox.take(round);
            for message in messages {
                if !self.goes_on(mailbox) {
                    return;
                }
                self.handle(message);
            }
            if !self.goes_on(mailbox) {
                return;
            }
            for (key, reports) in floods {
                let detail = format!("it reported {reports} times within a second, and is made to wait");
                let error = ProvisioningError::new(ErrorCode::StreamFloods, "watching the topology", detail);
                let error = self.streams.id(key).map_or(error.clone(), |id| error.with_provider(&id));
                _ = self.input(Input::Warn(error), round);
            }
            if self.core.next_timeout() <= round {
                let tick = self.core.handle_timers(round);
                // Time alone asks for nothing that could fail.
                _ = self.carry_out(tick, None);
            }
            // Not from the time of the round: callbacks took their time.
            wait = self.core.next_timeout().since(self.clock.now());
        }
    }

    /// Carries out an order to drain; whether there is none to stop.
    fn goes_on(&mut self, mailbox: &Mailbox) -> bool {
        let phase = mailbox.life().phase();
        if phase == Phase::Draining && !std::mem::replace(&mut self.drained, true) {
            _ = self.input(Input::Drain, self.clock.now());
        }
        phase < Phase::Stopped
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Input { input, at, reply } => {
                let outcome = self.input(input, at);
                if let Some(reply) = reply {
                    // Whoever asked may have stopped waiting.
                    _ = reply.try_send(outcome);
                }
            }
            Message::Providers(ProviderOrder { providers, specs, at, reply, former }) => {
                hand_back(self.streams.replace(providers), &former);
                let outcome = self.input(Input::Reconfigure(specs), at);
                _ = reply.try_send(outcome);
            }
        }
    }

    fn input(&mut self, input: Input, at: Timestamp) -> Result<(), ProvisioningError> {
        let tick = self.core.handle(input, at);
        self.carry_out(tick, Some(at))
    }

    fn carry_out(&mut self, mut tick: Tick, at: Option<Timestamp>) -> Result<(), ProvisioningError> {
        self.dispatcher.carry_out(&mut self.core, &mut tick, at);
        (self.after_tick)();
        for command in tick.streams {
            self.streams.obey(command, &mut self.inbox);
        }
        drop(tick.discarded);
        tick.reply
    }
}
