//! The [machine](super::watch) with its connections, as a stream drives it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::config::Config;
use super::connection::{self, Ask, Connection, Reply};
use super::watch::{Input, Machine, Memory, Output, Settings};
use crate::clock::{Clock, Timestamp};
use crate::credential::CredentialReader;
use crate::error::ProvisioningError;
use crate::id::ProviderId;
use crate::provider::{CancelToken, ProviderEvent, RetryPolicy};
use crate::providers::presence::Presence;
use crate::providers::watching::{Watch, WatchStream};
use crate::thread::Purpose;

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
pub(super) struct ServiceWatch {
    config: Arc<Config>,
    memory: SharedMemory,
    presence: Arc<Presence>,
    machine: Machine,
    watch: Connection,
    probe: Connection,
}

/// Opens the stream; connects to nothing yet.
///
/// # Errors
/// [`ErrorCode::ThreadRefused`](crate::ErrorCode::ThreadRefused).
pub(super) fn open(parts: Parts, cancel: &CancelToken) -> Result<WatchStream<ServiceWatch>, ProvisioningError> {
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
    let watch = ServiceWatch {
        watch: connection::open(&config, credential.clone(), cancel, Purpose::Watch).map_err(named)?,
        probe: connection::open(&config, credential, cancel, Purpose::Probe).map_err(named)?,
        machine: Machine::new(settings, presence.local(), known, seed, clock.now()),
        config,
        memory,
        presence,
    };
    Ok(WatchStream::begin(id, "watching the service", clock, cancel, watch))
}

impl Watch for ServiceWatch {
    type Reply = Reply;

    fn replies(&self) -> [&Receiver<Reply>; 2] {
        [self.watch.replies(), self.probe.replies()]
    }

    fn timeout(&self) -> Timestamp {
        self.machine.timeout()
    }

    fn handle(&mut self, now: Timestamp, reply: Option<Reply>) {
        let input = match reply {
            None => Input::Timer,
            Some(Reply::Watch(number, result)) => Input::Watch(number, result),
            Some(Reply::Probe(result)) => Input::Probe(result),
        };
        let is_watch = matches!(input, Input::Watch(..));
        self.machine.describe_local(self.presence.local());
        self.machine.handle(now, self.presence.standing(), input);
        if is_watch {
            *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = self.machine.memory();
        }
    }

    fn act(&mut self, events: &mut VecDeque<ProviderEvent>) {
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
                Output::Event(event) => events.push_back(event),
            }
        }
    }
}
