//! The threads of the streams, played: they report into lanes that are the service's own, end late, get stuck, die, and
//! cannot always be started.

use std::sync::Arc;

use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::SlotKey;
use crate::hub::StreamCommand;
use crate::hub::lane::{FLOOD, Offer};
use crate::hub::mailbox::{Inbox, Outlet, Providers};
use crate::hub::rounds::StreamThreads;
use crate::provider::{ProviderEvent, ProviderTermination};

/// What happens between a stream's thread and the hub.
#[derive(Clone, Debug)]
pub(super) enum StreamAct {
    /// A thread was started, or refused.
    Opened { key: SlotKey, generation: u64, refused: bool },
    /// The hub listens to the stream no longer.
    Closed { key: SlotKey, generation: u64 },
    /// The lane took a report.
    Taken { key: SlotKey, generation: u64, event: ProviderEvent },
    /// The lane had no room for a report.
    Full,
    /// The lane takes nothing for a while, because the stream floods.
    Early,
    /// The thread has ended.
    Ended { key: SlotKey, generation: u64 },
}

/// The thread of a stream.
pub(super) struct Thread {
    key: SlotKey,
    generation: u64,
    outlet: Outlet,
    /// What it has to say before anything else: there was no room.
    unsent: Option<ProviderEvent>,
    /// It was told to end.
    cancelled: bool,
    /// When it ends; a thread that was told to and has none is stuck.
    ends_at: Option<Timestamp>,
}

/// The threads.
pub(super) struct Streams {
    clock: Arc<dyn Clock>,
    threads: Vec<Thread>,
    /// How many of the next threads cannot be started.
    refusals: usize,
    /// How long a thread takes to end; those that get stuck do not.
    lag: Option<std::time::Duration>,
    acts: Vec<StreamAct>,
}

impl Streams {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let lag = Some(std::time::Duration::ZERO);
        Self { clock, threads: Vec::new(), refusals: 0, lag, acts: Vec::new() }
    }

    /// The next so many threads cannot be started.
    pub(super) fn refuse(&mut self, threads: usize) {
        self.refusals = threads;
    }

    /// How long threads take to end from here on; `None`: they get stuck.
    pub(super) fn set_lag(&mut self, lag: Option<std::time::Duration>) {
        self.lag = lag;
    }

    /// Whether threads get stuck.
    pub(super) fn is_stuck(&self) -> bool {
        self.lag.is_none()
    }

    /// Those that are stuck end.
    pub(super) fn release(&mut self) {
        let now = self.clock.now();
        for thread in self.threads.iter_mut().filter(|thread| thread.cancelled) {
            thread.ends_at = Some(thread.ends_at.unwrap_or(now));
        }
        self.end_due();
    }

    /// The generation of the provider's running stream.
    pub(super) fn running(&self, key: SlotKey) -> Option<u64> {
        self.threads.iter().find(|thread| thread.key == key && !thread.cancelled).map(|thread| thread.generation)
    }

    /// Whether the provider's running stream waits for room.
    pub(super) fn is_waiting(&self, key: SlotKey) -> bool {
        self.threads.iter().any(|thread| thread.key == key && !thread.cancelled && thread.unsent.is_some())
    }

    /// The running stream of the provider reports something. Whether its lane took it at once.
    pub(super) fn report(&mut self, key: SlotKey, event: ProviderEvent) -> bool {
        let Some(thread) = self.threads.iter_mut().find(|thread| thread.key == key && !thread.cancelled) else {
            return false;
        };
        debug_assert!(thread.unsent.is_none(), "it waits for room");
        let taken = thread.say(event, &mut self.acts);
        self.end_due();
        taken
    }

    /// The running stream of the provider gives signs of life until it is made to wait.
    pub(super) fn flood(&mut self, key: SlotKey) {
        let Some(thread) = self.threads.iter().find(|thread| thread.key == key && !thread.cancelled) else { return };
        for _ in 0..=FLOOD {
            if !matches!(thread.outlet.offer(ProviderEvent::Heartbeat { current: false }), Some(Offer::Taken)) {
                break;
            }
        }
    }

    /// Those that waited for room try again, and those whose time has come end.
    pub(super) fn go_on(&mut self) {
        for thread in self.threads.iter_mut().filter(|thread| !thread.cancelled) {
            if let Some(event) = thread.unsent.take() {
                thread.say(event, &mut self.acts);
            }
        }
        self.end_due();
    }

    /// The thread of the provider's running stream ends without a word.
    pub(super) fn die(&mut self, key: SlotKey) {
        let now = self.clock.now();
        for thread in self.threads.iter_mut().filter(|thread| thread.key == key && !thread.cancelled) {
            thread.ends_at = Some(now);
        }
        self.end_due();
    }

    /// What has happened since the last call of this.
    pub(super) fn take_acts(&mut self) -> Vec<StreamAct> {
        std::mem::take(&mut self.acts)
    }

    fn end_due(&mut self) {
        let now = self.clock.now();
        let acts = &mut self.acts;
        self.threads.retain(|thread| {
            let over = thread.ends_at.is_some_and(|at| at <= now);
            if over {
                acts.push(StreamAct::Ended { key: thread.key, generation: thread.generation });
            }
            !over
        });
    }
}

impl Thread {
    fn say(&mut self, event: ProviderEvent, acts: &mut Vec<StreamAct>) -> bool {
        let (key, generation) = (self.key, self.generation);
        let last = matches!(event, ProviderEvent::Terminated(_));
        let said = event.clone();
        match self.outlet.offer(event) {
            Some(Offer::Taken) => {
                acts.push(StreamAct::Taken { key, generation, event: said });
                // Whoever has said that a stream is over, or finds that nobody listens, ends.
                self.ends_at = if last { Some(Timestamp::default()) } else { self.ends_at };
                true
            }
            Some(Offer::Full(event)) => {
                acts.push(StreamAct::Full);
                self.unsent = Some(event);
                false
            }
            Some(Offer::Early(event, _)) => {
                acts.push(StreamAct::Early);
                self.unsent = Some(event);
                false
            }
            None => {
                self.ends_at = Some(Timestamp::default());
                false
            }
        }
    }
}

impl StreamThreads for Streams {
    fn replace(&mut self, providers: Providers) -> Providers {
        providers
    }

    fn obey(&mut self, command: StreamCommand, inbox: &mut Inbox) {
        match command {
            StreamCommand::Open { key, generation } => {
                let outlet = inbox.open(key, generation, Arc::clone(&self.clock));
                let refused = self.refusals > 0;
                self.acts.push(StreamAct::Opened { key, generation, refused });
                let mut thread = Thread { key, generation, outlet, unsent: None, cancelled: false, ends_at: None };
                if refused {
                    self.refusals -= 1;
                    let reason = ProvisioningError::new(ErrorCode::ThreadRefused, "opening a stream", "simulated");
                    thread.say(ProviderEvent::Terminated(ProviderTermination::Errored { reason }), &mut self.acts);
                }
                self.threads.push(thread);
                self.end_due();
            }
            StreamCommand::Close { key, generation } => {
                inbox.close(key, generation);
                self.acts.push(StreamAct::Closed { key, generation });
                let now = self.clock.now();
                for thread in &mut self.threads {
                    if thread.key == key && thread.generation == generation {
                        thread.cancelled = true;
                        thread.ends_at = thread.ends_at.or(self.lag.map(|lag| now + lag));
                    }
                }
                self.end_due();
            }
        }
    }

    fn end_all(&mut self) {
        let now = self.clock.now();
        for thread in &mut self.threads {
            thread.cancelled = true;
            thread.ends_at = Some(now);
        }
        self.end_due();
    }
}
