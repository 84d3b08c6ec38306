//! The stream: drives the [machine](super::watch) on the provider's thread, with one connection for the watch and one
//! for the probe. It has no rules of its own.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{after, select};

use super::config::Config;
use super::connection::{self, Ask, Connection, Reply};
use super::watch::{Input, Machine, Memory, Output, Settings};
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::CredentialReader;
use crate::id::ProviderId;
use crate::provider::{CancelToken, ProviderEvent, ProviderStream, ProviderTermination, RetryPolicy};
use crate::providers::presence::Presence;
use crate::thread::Purpose;

/// The longest single wait, so that a clock that jumps (a suspended machine) is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What a stream shares with its provider: it outlives the stream.
pub(super) type SharedMemory = Arc<Mutex<Memory>>;

/// What a stream needs.
pub(super) struct Parts {
    pub(super) id: ProviderId,
    pub(super) config: Arc<Config>,
    pub(super) credential: CredentialReader,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) memory: SharedMemory,
    pub(super) presence: Arc<Presence>,
    pub(super) retry: RetryPolicy,
}

/// A watch of one service.
pub(super) struct ConsulStream {
    id: ProviderId,
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    cancel: CancelToken,
    memory: SharedMemory,
    presence: Arc<Presence>,
    machine: Machine,
    watch: Connection,
    probe: Connection,
    events: VecDeque<ProviderEvent>,
}

impl ConsulStream {
    /// Opens the stream; connects to nothing yet.
    ///
    /// # Errors
    /// [`ErrorCode::ThreadRefused`].
    pub(super) fn open(parts: Parts, cancel: &CancelToken) -> Result<Self, ProvisioningError> {
        let Parts { id, config, credential, clock, memory, presence, retry } = parts;
        let settings = Settings {
            consistency: config.consistency,
            wait: config.wait,
            max_stale: config.max_stale,
            repair_grace: config.repair_grace,
            probe_interval: config.probe_interval(presence.local().is_some()),
            ttl: config.ttl,
            retry,
        };
        let known = memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seed = RandomState::new().hash_one(id.as_str());
        let named = |error: ProvisioningError| error.with_provider(&id);
        let mut stream = Self {
            watch: connection::open(&config, credential.clone(), cancel, Purpose::Watch).map_err(named)?,
            probe: connection::open(&config, credential, cancel, Purpose::Probe).map_err(named)?,
            machine: Machine::new(settings, presence.local().cloned(), known, seed, clock.now()),
            id,
            config,
            clock,
            cancel: cancel.clone(),
            memory,
            presence,
            events: VecDeque::new(),
        };
        stream.act();
        Ok(stream)
    }

    /// Carries out what the machine has decided.
    fn act(&mut self) {
        while let Some(output) = self.machine.output() {
            match output {
                Output::Watch { number, index, wait, consistency } => {
                    // The server adds up to a sixteenth of the wait.
                    let held = if index.is_some() { wait + wait / 16 } else { Duration::ZERO };
                    let path = self.config.query.watch(index, wait, consistency);
                    let answer_timeout = held + self.config.answer_timeout;
                    let believed = self.machine.memory().members;
                    self.watch.send(Ask::Watch { number, path, answer_timeout, believed });
                }
                Output::Probe { consistency } => {
                    self.probe.send(Ask::Probe { path: self.config.query.probe(consistency) });
                }
                Output::AbortWatch => self.watch.abort(),
                Output::Sighted(sighting) => self.presence.report(sighting),
                Output::Event(event) => self.events.push_back(self.named(event)),
            }
        }
    }

    fn named(&self, event: ProviderEvent) -> ProviderEvent {
        match event {
            ProviderEvent::Degraded { error } => ProviderEvent::Degraded { error: error.with_provider(&self.id) },
            ProviderEvent::Doubtful { reason } => ProviderEvent::Doubtful { reason: reason.with_provider(&self.id) },
            other => other,
        }
    }

    fn ended(&self, detail: &'static str) -> ProviderEvent {
        let reason = ProvisioningError::new(ErrorCode::StreamFailed, "watching the service", detail);
        ProviderEvent::Terminated(ProviderTermination::Errored { reason: reason.with_provider(&self.id) })
    }
}

impl ProviderStream for ConsulStream {
    fn next(&mut self) -> ProviderEvent {
        loop {
            if self.cancel.is_cancelled() {
                return ProviderEvent::Terminated(ProviderTermination::Ended);
            }
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let wait = self.machine.timeout().since(self.clock.now()).min(LONGEST_WAIT);
            let timer = if wait.is_zero() { None } else { Some(after(wait)) };
            let reply = match timer {
                None => None,
                Some(timer) => select! {
                    recv(self.watch.replies()) -> reply => Some(reply),
                    recv(self.probe.replies()) -> reply => Some(reply),
                    recv(self.cancel.receiver()) -> _ => continue,
                    recv(timer) -> _ => None,
                },
            };
            let input = match reply {
                None => Input::Timer,
                Some(Ok(Reply::Watch(number, result))) => Input::Watch(number, result),
                Some(Ok(Reply::Probe(result))) => Input::Probe(result),
                Some(Err(_)) if self.cancel.is_cancelled() => continue,
                Some(Err(_)) => return self.ended("a connection's thread has ended"),
            };
            let is_watch = matches!(input, Input::Watch(..));
            self.machine.handle(self.clock.now(), self.presence.standing(), input);
            self.act();
            if is_watch {
                *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = self.machine.memory();
            }
        }
    }
}
