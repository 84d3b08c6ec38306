//! What a connection to the API server asks, and what it makes of the answers, on its own thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access;
use super::ahead::{Ahead, Wanted};
use super::api_server::{bearer, credential};
use super::config::Config;
use super::login::Login;
use super::object::{Failure, FailureKind, Line, Page};
use super::query::{PROBE, Query, Select, SliceVersion};
use super::wire::{self, Lines, Rules};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Client, Incoming, Length, Method, Request};
use crate::provider::CancelToken;
use crate::providers::connection::{self, Replies};
use crate::secret::Secret;
use crate::thread::{Purpose, Thread};

const LISTING: &str = "listing the members";
const WATCHING: &str = "watching the members";
const PROBING: &str = "probing the API server";
/// How many lines wait for the stream at the most; then the socket is left unread.
const WAITING: usize = 256;
/// How long the head of a list's answer may take beyond the answer timeout: the server gathers the page first.
const GATHERING: Duration = Duration::from_secs(60);

/// How long the present line of a watch has been arriving. Bytes are no sign of life, only whole lines are: one that
/// does not end would keep a watch open that says nothing.
struct Arriving {
    since: Option<Instant>,
    longest: Duration,
}

impl Arriving {
    fn arrived(&mut self, bytes: &[u8]) -> Result<(), ProvisioningError> {
        if bytes.contains(&b'\n') {
            self.since = None;
        }
        if bytes.last().is_none_or(|last| *last == b'\n') {
            return Ok(());
        }
        if self.since.get_or_insert_with(Instant::now).elapsed() < self.longest {
            return Ok(());
        }
        Err(ProvisioningError::new(ErrorCode::Timeout, WATCHING, "a line of the watch did not end in time"))
    }
}

/// What a connection asks.
#[derive(Debug)]
pub(super) enum Ask {
    /// A page of a list.
    List { number: u64, next: Option<String>, paged: bool },
    /// What changes from that version on.
    Watch { number: u64, resource_version: Arc<str>, timeout: Duration },
    /// Whether the server lives, or which version it is at.
    Probe { version: bool },
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
    /// The end of the probe, with the version if that was asked for and given.
    Probe(Result<Option<String>, ProvisioningError>),
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
    purpose: Purpose,
) -> Result<Connection, ProvisioningError> {
    let (config, query) = (Arc::clone(config), query.clone());
    let place = connection::Place {
        target: &config.target.clone(),
        connect_timeout: config.connect_timeout,
        thread: Thread::Kubernetes(purpose),
    };
    let rules = Arc::new(config.rules.clone());
    let (cancel_all, slices, ahead) = (cancel.clone(), SliceVersion::default(), Ahead::default());
    let mut worker = Worker { config, query, rules, login, cancel: cancel_all, slices, ahead };
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
    /// The page of a list that is asked for while the one before it is read.
    ahead: Ahead,
}

impl Worker {
    fn answer(&mut self, client: &Client, ask: Ask, reply: Replies<'_, Reply>) {
        match ask {
            Ask::List { number, next, paged } => {
                let page = self.list(client, next.as_deref(), paged);
                match &page {
                    Ok(page) if page.next.is_none() => self.ahead.end(client),
                    Ok(_) => {}
                    Err(failure) => self.ahead.failed(client, &failure.error),
                }
                reply(Reply::Page(number, page));
            }
            Ask::Watch { number, resource_version, timeout } => match self.watch(client, &resource_version, timeout) {
                Err(failure) => _ = reply(Reply::Opened(number, Err(failure))),
                Ok((body, token)) => {
                    if reply(Reply::Opened(number, Ok(()))) {
                        self.follow(number, body, token, reply);
                    }
                }
            },
            Ask::Probe { version } => {
                let probed = self.probe(client, version);
                reply(Reply::Probe(probed));
            }
        }
    }

    fn list(&mut self, client: &Client, next: Option<&str>, paged: bool) -> Result<Page, Failure> {
        let (answer, token) = match self.ahead.take(client, next) {
            Some(taken) => taken.inspect(|(answer, _)| self.login.answered(answer.status)),
            None => {
                let path = |query: &Query, slices| query.list(slices, next, paged);
                self.ask(client, path, self.config.answer_timeout + GATHERING, Length::Document, LISTING)
            }
        }
        .map_err(other)?;
        let mut answer = admit(answer, token.as_ref(), LISTING).map_err(|failure| self.with_rule(failure, "list"))?;
        let rules = Arc::clone(&self.rules);
        let told = |next: &str| self.ask_ahead(client, next);
        wire::page_and_next(&rules, |room| answer.body.read(room), told, LISTING).map_err(other)
    }

    /// Asks for the page there while the one before it is read.
    fn ask_ahead(&mut self, client: &Client, next: &str) {
        // Whether there is a token is found again, and told, when the page is asked for.
        let Ok(token) = self.login.read(&self.cancel) else { return };
        let path = self.query.list(self.slices, Some(next), true);
        let wanted = Wanted {
            next: next.to_owned(),
            url: format!("{}{path}", self.config.target.base()),
            token,
            answer_timeout: self.config.answer_timeout + GATHERING,
            max_body: self.config.max_body,
            doing: LISTING,
        };
        self.ahead.ask(client, wanted);
    }

    /// Reads the lines of a watch until it ends.
    fn follow(&self, number: u64, mut answer: Incoming, token: Option<Secret>, reply: Replies<'_, Reply>) {
        let mut lines = Lines::new(Arc::clone(&self.rules)).opened_by(token);
        let mut arriving = Arriving { since: None, longest: self.config.answer_timeout };
        let mut read = |room: &mut [u8]| {
            let count = answer.body.read(room)?;
            arriving.arrived(room.get(..count).unwrap_or_default())?;
            Ok(count)
        };
        let end = loop {
            match lines.next(&mut read, WATCHING) {
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

    /// Asks whether the server lives, or which version it is at. Any answer but a server's error says that it lives: also
    /// one that denies the right to ask.
    fn probe(&mut self, client: &Client, version: bool) -> Result<Option<String>, ProvisioningError> {
        let timeout = self.config.probe_timeout;
        let (mut answer, token) = if version {
            self.ask(client, |query, slices| query.present(slices), timeout, Length::Brief, PROBING)?
        } else {
            self.exchange(client, PROBE, timeout, Length::Brief, PROBING)?
        };
        if version && answer.status == 200 {
            return match wire::page(&self.rules, |room| answer.body.read(room), PROBING) {
                Ok(page) => Ok(Some(page.resource_version)),
                Err(error) if error.code() == ErrorCode::MalformedAnswer => Ok(None),
                Err(error) => Err(error),
            };
        }
        let answer = answer.collect()?;
        match answer.status {
            500.. => {
                let detail = format!("{}: {}", answer.status, answer.excerpt(token.as_ref()));
                Err(ProvisioningError::new(ErrorCode::BackendUnavailable, PROBING, detail))
            }
            _ => Ok(None),
        }
    }

    fn watch(
        &mut self,
        client: &Client,
        resource_version: &str,
        timeout: Duration,
    ) -> Result<(Incoming, Option<Secret>), Failure> {
        let path = |query: &Query, slices| query.watch(slices, resource_version, timeout);
        let asked = self.ask(client, path, self.config.answer_timeout, Length::Stream, WATCHING);
        let (answer, token) = asked.map_err(|error| match error.code() {
            ErrorCode::Timeout if client.was_sent() => Failure { kind: FailureKind::Unanswered, ..other(error) },
            _ => other(error),
        })?;
        let answer = admit(answer, token.as_ref(), WATCHING).map_err(|failure| self.with_rule(failure, "watch"))?;
        Ok((answer, token))
    }

    /// A refusal for want of a right names the rule that gives it.
    fn with_rule(&self, failure: Failure, verb: &str) -> Failure {
        if failure.kind != FailureKind::Forbidden {
            return failure;
        }
        let rule = access::rule(self.query.namespace(), self.config.select.resource(), verb);
        let (code, doing) = (failure.error.code(), failure.error.doing().to_owned());
        let error = ProvisioningError::new(code, doing, format!("{}; {rule}", failure.error.detail()));
        Failure { error, ..failure }
    }

    /// Asks of what is watched; where the server does not have it, in the other version of EndpointSlice.
    fn ask(
        &mut self,
        client: &Client,
        path: impl Fn(&Query, SliceVersion) -> String,
        answer_timeout: Duration,
        length: Length,
        doing: &'static str,
    ) -> Result<(Incoming, Option<Secret>), ProvisioningError> {
        let (present, has_two) = (self.slices, matches!(self.config.select, Select::Slices { .. }));
        let mut asked = |slices| {
            let path = path(&self.query, slices);
            self.exchange(client, &path, answer_timeout, length, doing)
        };
        let (answer, token) = asked(present)?;
        if answer.status != 404 || !has_two {
            return Ok((answer, token));
        }
        // Its body is read, so that the connection can be used again.
        drop(answer.collect()?);
        let (answer, token) = asked(present.other())?;
        if answer.status != 404 {
            self.slices = present.other();
        }
        Ok((answer, token))
    }

    /// Sends the request and reads the answer's head.
    fn exchange(
        &mut self,
        client: &Client,
        path: &str,
        answer_timeout: Duration,
        length: Length,
        doing: &'static str,
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
            length,
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
