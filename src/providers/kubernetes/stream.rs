//! The [machine](super::watch) with its connections, as a stream drives it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::config::Config;
use super::connection::{self, Ask, Connection, Reply};
use super::login::Login;
use super::watch::{Input, Machine, Output, Settings};
use crate::clock::{Clock, Timestamp};
use crate::error::ProvisioningError;
use crate::id::ProviderId;
use crate::provider::{CancelToken, ProviderEvent, RetryPolicy};
use crate::providers::presence::Presence;
use crate::providers::watching::{Watch, WatchStream};
use crate::thread::Purpose;

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
pub(super) struct SelectionWatch {
    presence: Arc<Presence>,
    machine: Machine,
    watch: Connection,
    probe: Connection,
}

/// Opens the stream; connects to nothing yet.
///
/// # Errors
/// [`ErrorCode::ThreadRefused`](crate::ErrorCode::ThreadRefused);
/// [`ErrorCode::InvalidConfig`](crate::ErrorCode::InvalidConfig) if the namespace is not known.
pub(super) fn open(parts: Parts, cancel: &CancelToken) -> Result<WatchStream<SelectionWatch>, ProvisioningError> {
    let Parts { id, config, login, clock, presence, retry } = parts;
    let named = |error: ProvisioningError| error.with_provider(&id);
    let query = config.query().map_err(named)?;
    let settings = Settings {
        probe_interval: config.probe_interval,
        answer_timeout: config.answer_timeout,
        connect_timeout: config.connect_timeout,
        list_interval: config.list_interval,
        retry,
    };
    let seed = RandomState::new().hash_one(id.as_str());
    let watch = SelectionWatch {
        watch: connection::open(&config, &query, login.clone(), cancel, Purpose::Watch).map_err(named)?,
        probe: connection::open(&config, &query, login, cancel, Purpose::Probe).map_err(named)?,
        machine: Machine::new(settings, presence.local(), seed, clock.now()),
        presence,
    };
    Ok(WatchStream::begin(id, "watching the members", clock, cancel, watch))
}

impl Watch for SelectionWatch {
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
            Some(Reply::Page(number, page)) => Input::Page(number, page),
            Some(Reply::Opened(number, result)) => Input::Opened(number, result),
            Some(Reply::Line(number, line)) => Input::Line(number, line),
            Some(Reply::Closed(number, end)) => Input::Closed(number, end),
            Some(Reply::Probe(result)) => Input::Probe(result),
        };
        self.machine.describe_local(self.presence.local());
        self.machine.handle(now, self.presence.standing(), input);
    }

    fn flush(&mut self, now: Timestamp) {
        self.machine.flush(now);
    }

    fn act(&mut self, events: &mut VecDeque<ProviderEvent>) {
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
                Output::Event(event) => events.push_back(event),
            }
        }
    }
}
