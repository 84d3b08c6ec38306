//! The stream: drives the [machine](super::watch) on the provider's thread, with one connection for lists and watches and
//! one for the probe. It has no rules of its own.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvError, after, select};

use super::config::Config;
use super::connection::{self, Ask, Connection, Reply};
use super::login::Login;
use super::watch::{Input, Machine, Output, Settings};
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::provider::{CancelToken, ProviderEvent, ProviderStream, ProviderTermination, RetryPolicy};
use crate::providers::presence::Presence;
use crate::thread::Purpose;

/// The longest single wait, so that a clock that jumps (a suspended machine) is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What a stream needs.
pub(super) struct Parts {
    pub(super) id: ProviderId,
    pub(super) config: Arc<Config>,
    pub(super) login: Login,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) presence: Arc<Presence>,
    pub(super) retry: RetryPolicy,
}

/// A watch of one selection of objects.
pub(super) struct KubernetesStream {
    id: ProviderId,
    clock: Arc<dyn Clock>,
    cancel: CancelToken,
    presence: Arc<Presence>,
    machine: Machine,
    watch: Connection,
    probe: Connection,
    events: VecDeque<ProviderEvent>,
}

impl KubernetesStream {
    /// Opens the stream; connects to nothing yet.
    ///
    /// # Errors
    /// [`ErrorCode::ThreadRefused`]; [`ErrorCode::InvalidConfig`] if the namespace is not known.
    pub(super) fn open(parts: Parts, cancel: &CancelToken) -> Result<Self, ProvisioningError> {
        let Parts { id, config, login, clock, presence, retry } = parts;
        let named = |error: ProvisioningError| error.with_provider(&id);
        let query = config.query().map_err(named)?;
        let settings = Settings {
            probe_interval: config.probe_interval,
            answer_timeout: config.answer_timeout,
            list_interval: config.list_interval,
            retry,
        };
        let seed = RandomState::new().hash_one(id.as_str());
        let mut stream = Self {
            watch: connection::open(&config, &query, login.clone(), cancel, Purpose::Watch).map_err(named)?,
            probe: connection::open(&config, &query, login, cancel, Purpose::Probe).map_err(named)?,
            machine: Machine::new(settings, presence.local().cloned(), seed, clock.now()),
            id,
            clock,
            cancel: cancel.clone(),
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
                Output::List { number, next, paged } => {
                    self.watch.send(Ask::List { number, next, paged });
                }
                Output::Watch { number, resource_version, timeout } => {
                    self.watch.send(Ask::Watch { number, resource_version, timeout });
                }
                Output::Probe { version } => self.probe.send(Ask::Probe { version }),
                Output::Abort => self.watch.abort(),
                // The connection reads it before every request.
                Output::RereadToken => {}
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

    fn ended(&self) -> ProviderEvent {
        let detail = "a connection's thread has ended";
        let reason = ProvisioningError::new(ErrorCode::StreamFailed, "watching the members", detail);
        ProviderEvent::Terminated(ProviderTermination::Errored { reason: reason.with_provider(&self.id) })
    }

    /// What has arrived by now, if anything.
    fn at_hand(&self) -> Option<Result<Reply, RecvError>> {
        select! {
            recv(self.watch.replies()) -> reply => Some(reply),
            recv(self.probe.replies()) -> reply => Some(reply),
            default => None,
        }
    }

    /// The next reply; `None` when it is time to look around.
    fn wait(&self) -> Option<Result<Reply, RecvError>> {
        let wait = self.machine.timeout().since(self.clock.now()).min(LONGEST_WAIT);
        if wait.is_zero() {
            return None;
        }
        select! {
            recv(self.watch.replies()) -> reply => Some(reply),
            recv(self.probe.replies()) -> reply => Some(reply),
            recv(self.cancel.receiver()) -> _ => None,
            recv(after(wait)) -> _ => None,
        }
    }
}

impl ProviderStream for KubernetesStream {
    fn next(&mut self) -> ProviderEvent {
        loop {
            if self.cancel.is_cancelled() {
                return ProviderEvent::Terminated(ProviderTermination::Ended);
            }
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let reply = self.at_hand().or_else(|| {
                self.machine.flush(self.clock.now());
                self.act();
                if self.events.is_empty() { self.wait() } else { None }
            });
            if !self.events.is_empty() {
                continue;
            }
            let input = match reply {
                _ if self.cancel.is_cancelled() => continue,
                None => Input::Timer,
                Some(Ok(Reply::Page(number, page))) => Input::Page(number, page),
                Some(Ok(Reply::Opened(number, result))) => Input::Opened(number, result),
                Some(Ok(Reply::Line(number, line))) => Input::Line(number, line),
                Some(Ok(Reply::Closed(number, end))) => Input::Closed(number, end),
                Some(Ok(Reply::Probe(result))) => Input::Probe(result),
                Some(Err(_)) => return self.ended(),
            };
            self.machine.handle(self.clock.now(), self.presence.standing(), input);
            self.act();
        }
    }
}
