//! How the hub takes what was sent: in rounds.
//!
//! A round begins with a look at the clock, goes through all that was sent until then, and ends with the timers as of that
//! moment, so that no report that waits is taken for silence, however slow a callback was. Before each message it looks
//! whether the hub is to drain or to stop.
//!
//! Nothing here waits or knows of threads: what runs the streams is handed in. The service hands in threads, the simulation
//! what plays them.

use std::sync::Arc;
use std::time::Duration;

use super::lifecycle::Phase;
use super::mailbox::{Inbox, Mailbox, Message, ProviderOrder, Providers};
use super::{Dispatcher, HubCore, Input, StreamCommand, Tick};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::panics::discard;

/// What runs the streams.
pub(crate) trait StreamThreads {
    /// The streams opened from here on are these providers'. The former ones are returned.
    fn replace(&mut self, providers: Providers) -> Providers;

    /// Opens or ends a stream.
    fn obey(&mut self, command: StreamCommand, inbox: &mut Inbox);

    /// Tells every stream to end, and lets go of the providers.
    fn end_all(&mut self);
}

/// Who watches the ticks.
pub(crate) trait TickObserver {
    /// A tick begins, with that input; absent where only time passes.
    fn begins(&mut self, _input: Option<&Input>, _at: Timestamp) {}

    /// The tick is through and published. What it orders of the streams is carried out next.
    fn is_through(&mut self, tick: &Tick);

    /// There is none any more, and the state says so.
    fn has_ended(&mut self) {}
}

/// The hub with all that it works with, but for its thread.
pub(crate) struct Rounds<S, O> {
    pub(crate) core: HubCore,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) inbox: Inbox,
    pub(crate) streams: S,
    pub(crate) observer: O,
    clock: Arc<dyn Clock>,
    drained: bool,
}

impl<S: StreamThreads, O: TickObserver> Rounds<S, O> {
    pub(crate) fn new(
        core: HubCore,
        dispatcher: Dispatcher,
        mailbox: Arc<Mailbox>,
        clock: Arc<dyn Clock>,
        streams: S,
        observer: O,
    ) -> Self {
        Self { core, dispatcher, inbox: Inbox::new(mailbox), streams, observer, clock, drained: false }
    }

    /// Takes what was sent, and what the time has brought about. How long nothing more is due; absent when the hub has
    /// been told to stop.
    pub(crate) fn round(&mut self) -> Option<Duration> {
        let round = self.clock.now();
        let (messages, floods) = self.inbox.take(round);
        for message in messages {
            if !self.goes_on() {
                return None;
            }
            self.handle(message);
        }
        if !self.goes_on() {
            return None;
        }
        for (key, reports) in floods {
            let detail = format!("it reported {reports} times within a second, and is made to wait");
            let error = ProvisioningError::new(ErrorCode::StreamFloods, "watching the topology", detail);
            let error = match self.core.provider(key) {
                Some(id) => error.with_provider(id),
                None => error,
            };
            _ = self.input(Input::Warn(error), round);
        }
        if self.core.next_timeout() <= round {
            self.observer.begins(None, round);
            let tick = self.core.handle_timers(round);
            // Time alone asks for nothing that could fail.
            _ = self.carry_out(tick, None);
        }
        // Not from the time of the round: callbacks took their time.
        Some(self.core.next_timeout().since(self.clock.now()))
    }

    /// Tells everyone that it has come to its end: the gate is closed, the state says stopped, the streams are told to
    /// end, subscriptions end, and whoever waits for a command hears of it.
    pub(crate) fn end(self) {
        let Self { core, mut dispatcher, inbox, mut streams, mut observer, .. } = self;
        inbox.life().end();
        streams.end_all();
        drop(inbox);
        dispatcher.publish_end();
        observer.has_ended();
        discard(dispatcher);
        discard(core);
    }

    /// Carries out an order to drain; whether there is none to stop.
    fn goes_on(&mut self) -> bool {
        let phase = self.inbox.life().phase();
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
        self.observer.begins(Some(&input), at);
        let tick = self.core.handle(input, at);
        self.carry_out(tick, Some(at))
    }

    fn carry_out(&mut self, mut tick: Tick, at: Option<Timestamp>) -> Result<(), ProvisioningError> {
        self.dispatcher.carry_out(&mut self.core, &mut tick, at);
        self.observer.is_through(&tick);
        for command in tick.streams {
            self.streams.obey(command, &mut self.inbox);
        }
        drop(tick.discarded);
        tick.reply
    }
}

/// Lets whoever ordered other providers let go of the former ones: their `Drop` is foreign code, and may take long.
fn hand_back(former: Providers, to: &crossbeam_channel::Sender<Providers>) {
    if let Err(unsent) = to.try_send(former) {
        discard(unsent.into_inner());
    }
}
