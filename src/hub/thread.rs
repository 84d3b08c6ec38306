//! The hub's thread, and one thread for each open stream.
//!
//! Carries inputs to the core and ticks to the dispatcher. It drains the inbox before it lets the core judge the time, so
//! that a slow callback does not make every provider look silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select_biased};

use super::{Dispatcher, HubCore, Input, StreamCommand, Tick};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::SlotKey;
use crate::panics::caught;
use crate::provider::{CancelToken, ClusterProvider, ProviderEvent, ProviderTermination};

/// How many messages may wait for the hub. A stream that has more to say waits; a command is refused.
pub(crate) const INBOX: usize = 4096;

/// What is sent to the hub's thread.
pub(crate) enum Message {
    /// An input, stamped by its sender.
    Input { input: Input, at: Timestamp, reply: Option<Sender<Result<(), ProvisioningError>>> },
    /// Another set of providers: what runs them, and the input that brings them into force.
    Providers {
        providers: BTreeMap<SlotKey, Arc<dyn ClusterProvider>>,
        input: Input,
        at: Timestamp,
        reply: Sender<Result<(), ProvisioningError>>,
    },
    /// Stop: cancel every stream and end.
    Stop,
}

/// What the hub's thread works with.
pub(crate) struct HubThread {
    pub(crate) core: HubCore,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) inbox: Receiver<Message>,
    /// For the streams' threads.
    pub(crate) sender: Sender<Message>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Called after every tick.
    pub(crate) after_tick: Box<dyn Fn() + Send>,
    /// Disconnects its receiver when this thread and all streams' threads have ended.
    pub(crate) alive: Sender<()>,
}

impl HubThread {
    /// Runs until [`Message::Stop`] or until every sender is gone.
    pub(crate) fn run(mut self) {
        let mut streams = Streams {
            providers: BTreeMap::new(),
            running: BTreeMap::new(),
            sender: self.sender.clone(),
            clock: Arc::clone(&self.clock),
            alive: self.alive.clone(),
        };
        let mut wait = Duration::ZERO;
        'life: loop {
            let mut next = match self.inbox.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // What arrives while these are handled waits for the next round: the timers get their turn.
            let mut waiting = self.inbox.len();
            while let Some(message) = next {
                if !self.handle(message, &mut streams) {
                    break 'life;
                }
                next = if waiting > 0 { self.inbox.try_recv().ok() } else { None };
                waiting = waiting.saturating_sub(1);
            }
            let (now, mut due) = (self.clock.now(), self.core.next_timeout());
            if due <= now {
                let tick = self.core.handle_timers(now);
                // Time alone asks for nothing that could fail.
                _ = self.carry_out(tick, None, &mut streams);
                due = self.core.next_timeout();
            }
            wait = due.since(now);
        }
        streams.cancel_all();
        self.dispatcher.publish(&mut self.core, true);
        (self.after_tick)();
    }

    /// Whether to go on.
    fn handle(&mut self, message: Message, streams: &mut Streams) -> bool {
        let (input, at, reply) = match message {
            Message::Input { input, at, reply } => (input, at, reply),
            Message::Providers { providers, input, at, reply } => {
                streams.providers = providers;
                (input, at, Some(reply))
            }
            Message::Stop => return false,
        };
        let tick = self.core.handle(input, at);
        let outcome = self.carry_out(tick, Some(at), streams);
        if let Some(reply) = reply {
            // Whoever asked may have stopped waiting.
            _ = reply.try_send(outcome);
        }
        true
    }

    fn carry_out(
        &mut self,
        mut tick: Tick,
        at: Option<Timestamp>,
        streams: &mut Streams,
    ) -> Result<(), ProvisioningError> {
        self.dispatcher.carry_out(&mut self.core, &mut tick, at);
        (self.after_tick)();
        for command in tick.streams {
            streams.obey(command);
        }
        drop(tick.discarded);
        tick.reply
    }
}

/// The threads that run the streams.
struct Streams {
    providers: BTreeMap<SlotKey, Arc<dyn ClusterProvider>>,
    running: BTreeMap<SlotKey, (u64, CancelToken)>,
    sender: Sender<Message>,
    clock: Arc<dyn Clock>,
    alive: Sender<()>,
}

impl Streams {
    fn obey(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Open { key, generation } => self.open(key, generation),
            StreamCommand::Close { key, generation } => {
                if let Some((_, cancel)) = self.running.get(&key).filter(|(running, _)| *running == generation) {
                    cancel.cancel();
                    self.running.remove(&key);
                }
            }
        }
    }

    fn open(&mut self, key: SlotKey, generation: u64) {
        let Some(provider) = self.providers.get(&key).cloned() else { return };
        let cancel = CancelToken::new();
        let outlet = Outlet {
            key,
            generation,
            cancel: cancel.clone(),
            sender: self.sender.clone(),
            clock: Arc::clone(&self.clock),
        };
        // Foreign code, on the hub's own thread.
        let name = caught(|| format!("watch-{}", provider.descriptor().id)).unwrap_or_else(|_| "watch".to_owned());
        let (unstarted, alive) = (outlet.clone(), self.alive.clone());
        let work = move || {
            run_stream(&*provider, &outlet);
            drop(alive);
        };
        match thread::Builder::new().name(name).spawn(work) {
            Ok(_) => _ = self.running.insert(key, (generation, cancel)),
            Err(error) => {
                // The hub's thread must not wait for room in its own inbox; if there is none, the silence of the stream
                // brings the next attempt.
                let reason = ProvisioningError::new(ErrorCode::ThreadRefused, "opening a stream", error.to_string());
                let event = ProviderEvent::Terminated(ProviderTermination::Errored { reason });
                _ = self.sender.try_send(unstarted.message(Input::Event { key, generation, event }));
            }
        }
    }

    fn cancel_all(&mut self) {
        for (_, cancel) in std::mem::take(&mut self.running).into_values() {
            cancel.cancel();
        }
    }
}

/// Where a stream's thread leaves what the stream reports.
#[derive(Clone)]
struct Outlet {
    key: SlotKey,
    generation: u64,
    cancel: CancelToken,
    sender: Sender<Message>,
    clock: Arc<dyn Clock>,
}

impl Outlet {
    fn message(&self, input: Input) -> Message {
        Message::Input { input, at: self.clock.now(), reply: None }
    }

    /// Waits for room in the inbox. Whether the stream is still wanted.
    fn report(&self, event: ProviderEvent) -> bool {
        self.send(Input::Event { key: self.key, generation: self.generation, event }) && !self.cancel.is_cancelled()
    }

    fn send(&self, input: Input) -> bool {
        let message = self.message(input);
        let Err(full) = self.sender.try_send(message) else { return true };
        let message = full.into_inner();
        select_biased! {
            send(self.sender, message) -> sent => sent.is_ok(),
            recv(self.cancel.receiver()) -> _ => false,
        }
    }

    /// The thread is about to end. Must arrive also when the stream was cancelled: the next one waits for it.
    fn closed(&self) {
        let closed = Input::StreamClosed { key: self.key, generation: self.generation };
        _ = self.sender.send(self.message(closed));
    }
}

fn run_stream(provider: &dyn ClusterProvider, outlet: &Outlet) {
    if let Err(detail) = caught(|| pump(provider, outlet)) {
        let reason = ProvisioningError::new(ErrorCode::ProviderPanicked, "watching the topology", detail);
        outlet.report(ProviderEvent::Terminated(ProviderTermination::Errored { reason }));
    }
    outlet.closed();
}

fn pump(provider: &dyn ClusterProvider, outlet: &Outlet) {
    let mut stream = match provider.watch(&outlet.cancel) {
        Ok(stream) => stream,
        Err(reason) => {
            outlet.report(ProviderEvent::Terminated(ProviderTermination::Errored { reason }));
            return;
        }
    };
    loop {
        let event = stream.next();
        if outlet.cancel.is_cancelled() {
            return;
        }
        let last = matches!(event, ProviderEvent::Terminated(_));
        if !outlet.report(event) || last {
            return;
        }
    }
}
