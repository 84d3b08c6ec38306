//! What a connection to the API server asks, and what it makes of the answers, on its own thread.

use std::sync::Arc;
use std::time::Duration;

use super::agent::{bearer, credential};
use super::config::Config;
use super::login::Login;
use super::object::{Failure, FailureKind, Line, Page};
use super::query::{PROBE, Query, Select, SliceVersion};
use super::watch::Version;
use super::wire::{self, Lines, Rules};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Client, Incoming, Method, Request};
use crate::provider::CancelToken;
use crate::providers::connection::{self, Replies};
use crate::secret::Secret;

const LISTING: &str = "listing the members";
const WATCHING: &str = "watching the members";
const PROBING: &str = "probing the API server";
/// How many lines wait for the stream at the most; then the socket is left unread.
const WAITING: usize = 256;
/// How long the head of a list's answer may take beyond the answer timeout: the server gathers the page first.
const GATHERING: Duration = Duration::from_secs(60);

/// What a connection asks.
#[derive(Debug)]
pub(super) enum Ask {
    /// A page of a list.
    List { number: u64, version: Version, next: Option<String>, paged: bool },
    /// What changes from that version on.
    Watch { number: u64, resource_version: Arc<str>, timeout: Duration },
    /// Whether the server lives.
    Probe,
}

/// What it is told.
#[derive(Debug)]
pub(super) enum Reply {
    /// A page.
    Page(u64, Result<Page, Failure>),
    /// The head of a watch's answer.
    Opened(u64, Result<(), Failure>),
    /// A line of the watch.
    Line(u64, Line),
    /// The end of the watch.
    Closed(u64, Result<(), Failure>),
    /// The end of the probe.
    Probe(Result<(), ProvisioningError>),
}

/// A connection to the API server.
pub(super) type Connection = connection::Connection<Ask, Reply>;

/// Opens a connection to the API server.
///
/// # Errors
/// Those of [`connection::Connection::open`].
pub(super) fn open(
    config: &Arc<Config>,
    query: &Query,
    login: Login,
    cancel: &CancelToken,
    role: &'static str,
) -> Result<Connection, ProvisioningError> {
    let (config, query) = (Arc::clone(config), query.clone());
    let place = connection::Place {
        target: &config.target.clone(),
        connect_timeout: config.connect_timeout,
        thread: &format!("kubernetes-{role}"),
    };
    let rules = Arc::new(config.rules.clone());
    let mut worker = Worker { config, query, rules, login, cancel: cancel.clone(), slices: SliceVersion::default() };
    Connection::open(place, Some(WAITING), cancel, move |client, ask, reply| worker.answer(client, ask, reply))
}

struct Worker {
    config: Arc<Config>,
    query: Query,
    rules: Arc<Rules>,
    login: Login,
    cancel: CancelToken,
    /// Which version of EndpointSlice the server has.
    slices: SliceVersion,
}

impl Worker {
    fn answer(&mut self, client: &Client, ask: Ask, reply: Replies<'_, Reply>) {
        match ask {
            Ask::List { number, version, next, paged } => {
                let page = self.list(client, version, next.as_deref(), paged);
                reply(Reply::Page(number, page));
            }
            Ask::Watch { number, resource_version, timeout } => {
                let path = self.query.watch(self.slices, &resource_version, timeout);
                match self.watch(client, &path) {
                    Err(failure) => _ = reply(Reply::Opened(number, Err(failure))),
                    Ok(body) => {
                        if reply(Reply::Opened(number, Ok(()))) {
                            self.follow(number, body, reply);
                        }
                    }
                }
            }
            Ask::Probe => {
                let probed = self.probe(client);
                reply(Reply::Probe(probed));
            }
        }
    }

    fn list(&mut self, client: &Client, version: Version, next: Option<&str>, paged: bool) -> Result<Page, Failure> {
        let mut answer = {
            let path = self.query.list(self.slices, version, next, paged);
            self.ask(client, &path, LISTING, false)?
        };
        if answer.0.status == 404 && matches!(self.config.select, Select::Slices { .. }) {
            // Its body is read, so that the connection can be used again.
            drop(answer.0.collect().map_err(other)?);
            let before = self.slices;
            self.slices = before.other();
            let path = self.query.list(self.slices, version, next, paged);
            answer = self.ask(client, &path, LISTING, false)?;
            if answer.0.status == 404 {
                self.slices = before;
            }
        }
        let (answer, token) = answer;
        let mut answer = admit(answer, token.as_ref(), LISTING)?;
        wire::page(&self.rules, |room| answer.body.read(room), LISTING).map_err(other)
    }

    /// Reads the lines of a watch until it ends.
    fn follow(&self, number: u64, mut answer: Incoming, reply: Replies<'_, Reply>) {
        let mut lines = Lines::new(Arc::clone(&self.rules));
        let end = loop {
            match lines.next(|room| answer.body.read(room), WATCHING) {
                Ok(Some(line)) => {
                    if !reply(Reply::Line(number, line)) {
                        return;
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(other(error)),
            }
        };
        reply(Reply::Closed(number, end));
    }

    /// Asks whether the server lives. Any answer but a server's error says so: also one that denies the right to ask.
    fn probe(&mut self, client: &Client) -> Result<(), ProvisioningError> {
        let (answer, token) = self.exchange(client, PROBE, self.config.probe_timeout, PROBING, false)?;
        let answer = answer.collect()?;
        match answer.status {
            500.. => {
                let detail = format!("{}: {}", answer.status, answer.excerpt(token.as_ref()));
                Err(ProvisioningError::new(ErrorCode::BackendUnavailable, PROBING, detail))
            }
            _ => Ok(()),
        }
    }

    fn watch(&mut self, client: &Client, path: &str) -> Result<Incoming, Failure> {
        let (answer, token) = self.ask(client, path, WATCHING, true)?;
        admit(answer, token.as_ref(), WATCHING)
    }

    fn ask(
        &mut self,
        client: &Client,
        path: &str,
        doing: &'static str,
        streams: bool,
    ) -> Result<(Incoming, Option<Secret>), Failure> {
        let answer_timeout = self.config.answer_timeout + if streams { Duration::ZERO } else { GATHERING };
        self.exchange(client, path, answer_timeout, doing, streams).map_err(other)
    }

    /// Sends the request and reads the answer's head.
    fn exchange(
        &mut self,
        client: &Client,
        path: &str,
        answer_timeout: Duration,
        doing: &'static str,
        streams: bool,
    ) -> Result<(Incoming, Option<Secret>), ProvisioningError> {
        // Read anew for each request: what was refused is not shown again once it has been replaced.
        let token = self.login.read(&self.cancel)?;
        let bearer = token.as_ref().map(bearer);
        let answer = client.open(&Request {
            method: Method::GET,
            url: &format!("{}{path}", self.config.target.base()),
            body: None,
            credential: bearer.as_ref().map(credential),
            answer_timeout,
            max_body: self.config.max_body,
            streams,
            doing,
        })?;
        self.login.answered(answer.status);
        Ok((answer, token))
    }
}

/// The answer if it is a good one; else what its status and body mean.
fn admit(answer: Incoming, token: Option<&Secret>, doing: &str) -> Result<Incoming, Failure> {
    if answer.status == 200 {
        return Ok(answer);
    }
    let header = answer.headers.get("retry-after").and_then(|value| value.to_str().ok());
    // A date, which is allowed too, is not worth a calendar.
    let retry_after = header.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    let refusal = answer.collect().map_err(other)?.without(token);
    Err(wire::failure(refusal.status, &refusal.body, retry_after, doing))
}

/// A failure that says nothing of versions or rights.
fn other(error: ProvisioningError) -> Failure {
    Failure { kind: FailureKind::Other, error, retry_after: None }
}
