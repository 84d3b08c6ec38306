//! The rules of list and watch, as a state machine without threads, sockets or a clock: an [`Input`], the time and the
//! local node's [`Standing`] go in, [`Output`]s and the time of the next call come out. Feed one input, then drain the
//! outputs; after lines, call [`Machine::flush`] as soon as no more are at hand.
//!
//! One request of data is under way at a time: a page of a [*list*](list), or a *watch*, whose [lines](lines) go on from
//! the list's version. A [*probe*](probe) beside it tells silence from peace. [`pace`] says how long to wait after a
//! failure. Versions are opaque: none is compared with another, each is only given back.
//!
//! What it must handle stands beside it, case by case with the danger, the rule and the test: `watch/CASES.md`. In short:
//! a list is believed, whatever it lacks; a failure changes no member; what confirms the members is a list, a change, and
//! a probe that a server answers while the watch is open and not in [doubt](trust); and what the watch cannot tell, a list
//! does (see [`gap`]).

mod gap;
mod lines;
mod list;
mod pace;
mod probe;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod script;
mod trust;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::lines::Untold;
use self::list::{GATHERING, Listing, Paging};
use self::pace::Pace;
use self::probe::Probe;
use self::trust::Trust;
use super::directory::Directory;
use super::object::{Failure, FailureKind, Line, Page};
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::{ProviderEvent, RetryPolicy};
use crate::providers::presence::{Sighting, Standing};
use crate::topology::ClusterNode;

/// A stream that has reported nothing for that long reports a heartbeat: a second within the contract's 5 s.
const QUIET: Duration = Duration::from_secs(4);
/// A machine that was not called for that long, though it asks for it every 4 s, stood still with its whole process.
const STANDSTILL: Duration = Duration::from_secs(10);
/// The longest that a server is told to hold a watch; drawn from its upper half.
const WATCH_MAX: Duration = Duration::from_secs(600);
/// How much longer a watch may last than the server was told, and its head take than it should.
const MARGIN: Duration = Duration::from_secs(15);
/// A watch without a line for that long is opened anew; drawn from the upper fifth.
const MUTE: Duration = Duration::from_secs(150);
/// A watch that ends sooner, without a line, was refused. Also how often watches are opened at the most.
const BRIEF: Duration = Duration::from_secs(1);
/// A watch that breaks after that long has worked.
const ROUTINE: Duration = Duration::from_secs(30);

/// The settings of the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) probe_interval: Duration,
    /// How long the head of an answer may take.
    pub(super) answer_timeout: Duration,
    /// How long looking up the name, connecting and sending may take each.
    pub(super) connect_timeout: Duration,
    /// How often there is a list although nothing asks for one; drawn from the upper half.
    pub(super) list_interval: Option<Duration>,
    /// The pauses after failures.
    pub(super) retry: RetryPolicy,
}

impl Settings {
    /// How long a request may take until its answer begins.
    fn answering(&self) -> Duration {
        self.connect_timeout * 3 + self.answer_timeout
    }
}

/// What happened. What has the number of a request that is over is ignored.
#[derive(Debug)]
pub(super) enum Input {
    /// A page arrived, or failed to.
    Page(u64, Result<Page, Failure>),
    /// The head of the watch's answer arrived, or the watch was refused.
    Opened(u64, Result<(), Failure>),
    /// A line of the watch.
    Line(u64, Line),
    /// The watch's answer ended in order, or broke.
    Closed(u64, Result<(), Failure>),
    /// The probe ended, with the version if that was asked for and given. Any answer but a server's error is a good one:
    /// also one that denies the right to probe.
    Probe(Result<Option<String>, ProvisioningError>),
    /// The time of [`Machine::timeout`] has come.
    Timer,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Output {
    /// Ask for a page, with a limit if it is paged: the first, or the one of that token.
    List { number: u64, next: Option<String>, paged: bool },
    /// Open a watch with bookmarks; the server shall end it after the timeout.
    Watch { number: u64, resource_version: Arc<str>, timeout: Duration },
    /// Ask on the second connection whether the server lives, or which version it is at.
    Probe { version: bool },
    /// Break off the list or watch under way; its end is not reported, or ignored.
    Abort,
    /// Read the token anew before the next request.
    RereadToken,
    /// Tell the registration what the members say of the local node: each absence, and whatever else is news.
    Sighted(Sighting),
    /// Report.
    Event(ProviderEvent),
}

/// Where list and watch are.
#[derive(Debug)]
enum Phase {
    /// The next is to be sent then: a watch if there is a version to go on from, else a list.
    Due(Timestamp),
    Listing(Listing),
    /// A watch was sent then, and its head is awaited.
    Opening {
        number: u64,
        since: Timestamp,
        /// How long it shall last.
        timeout: Duration,
        begun_at: Arc<str>,
        /// Whether it goes on from a list.
        listed: bool,
    },
    Watching(Watching),
}

/// An open watch.
#[derive(Debug)]
struct Watching {
    number: u64,
    sent: Timestamp,
    opened: Timestamp,
    /// How long it shall last.
    timeout: Duration,
    /// When it last showed that it lives, and for how long that is good.
    heard: Timestamp,
    mute: Duration,
    /// The version that it began from.
    begun_at: Arc<str>,
    /// When the first usable line came.
    spoke: Option<Timestamp>,
    /// Whether its connection may be dead.
    suspect: bool,
    /// Whether the version that it goes on from is known to be of the server's history.
    followed: bool,
}

/// The state machine.
pub(super) struct Machine {
    settings: Settings,
    /// The local node in member mode, and how far its registration has come.
    local: Option<Arc<ClusterNode>>,
    standing: Standing,
    /// What the members last said of it.
    sighted: Sighting,
    jitter: Jitter,
    outputs: VecDeque<Output>,
    directory: Directory,
    /// Where a watch goes on from; none: a list is needed.
    version: Option<Arc<str>>,
    /// When a list has to tell what was lost, or may have been.
    gap: Option<Timestamp>,
    /// When a list may take the place of a watch that cannot be relied upon.
    stand_in: Timestamp,
    /// Whether the version is that of a list, from which no watch was sent yet.
    listed: bool,
    /// Whether this stream has reported its members.
    reported: bool,
    untold: Untold,
    phase: Phase,
    number: u64,
    probe: Probe,
    pace: Pace,
    paging: Paging,
    trust: Trust,
    /// How many 410s and empty watches there were since a watch worked.
    strikes: u32,
    /// Whether there was an error since the last refresh.
    failing: bool,
    last_event: Timestamp,
    last_call: Timestamp,
}

impl Machine {
    /// The local node is described as that now.
    pub(super) fn describe_local(&mut self, local: Option<Arc<ClusterNode>>) {
        self.local = local;
    }

    /// A machine that begins at `now`, with a list.
    pub(super) fn new(settings: Settings, local: Option<Arc<ClusterNode>>, seed: u64, now: Timestamp) -> Self {
        let mut jitter = Jitter::new(seed);
        let first_probe = now + jitter.scale(settings.probe_interval, 0.25);
        let mut machine = Self {
            settings,
            local,
            standing: Standing::Client,
            sighted: Sighting::Present,
            jitter,
            outputs: VecDeque::new(),
            directory: Directory::new(),
            version: None,
            gap: None,
            stand_in: now,
            listed: false,
            reported: false,
            untold: Untold::default(),
            phase: Phase::Due(now),
            number: 0,
            probe: Probe::Due(first_probe),
            pace: Pace::new(settings.retry, now),
            paging: Paging::default(),
            trust: Trust::default(),
            strikes: 0,
            failing: false,
            last_event: now,
            last_call: now,
        };
        machine.send_due(now);
        machine
    }

    /// The next output; drained after every input.
    pub(super) fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call with [`Input::Timer`] if nothing happens before.
    pub(super) fn timeout(&self) -> Timestamp {
        let next = self.deadline().min(self.last_event + QUIET);
        let next = self.untold.until().map_or(next, |until| next.min(until));
        match self.probe {
            Probe::Due(at) if self.may_probe() => next.min(at),
            Probe::Due(_) | Probe::Pending(..) => next,
        }
    }

    /// When what is under way has taken too long, or the next is due.
    fn deadline(&self) -> Timestamp {
        match &self.phase {
            Phase::Due(at) => *at,
            Phase::Listing(listing) => listing.since + self.settings.answering() + GATHERING,
            Phase::Opening { since, .. } => *since + self.settings.answering() + MARGIN,
            Phase::Watching(watching) => {
                let end = (watching.sent + watching.timeout + MARGIN).min(watching.heard + watching.mute);
                self.gap.map_or(end, |gap| gap.min(end))
            }
        }
    }

    /// Takes an input and decides.
    pub(super) fn handle(&mut self, now: Timestamp, standing: Standing, input: Input) {
        self.standing = standing;
        if now.since(std::mem::replace(&mut self.last_call, now)) >= STANDSTILL {
            self.suspect();
            self.set_probe(now);
        }
        if !matches!(input, Input::Line(..)) {
            self.flush(now);
        }
        match input {
            Input::Page(number, result) if self.is_under_way(number) => self.page_arrived(now, result),
            Input::Opened(number, result) if self.is_under_way(number) => match result {
                Ok(()) => self.opened(now),
                Err(failure) => self.failed(now, failure),
            },
            Input::Line(number, line) if self.is_under_way(number) => {
                self.opened(now);
                self.line_arrived(now, line);
            }
            Input::Closed(number, result) if self.is_under_way(number) => {
                if result.is_ok() {
                    self.opened(now);
                }
                self.closed(now, result);
            }
            Input::Probe(result) => self.probed(now, result),
            _ => {}
        }
        self.overdue(now);
        self.send_due(now);
        if now.since(self.last_event) >= QUIET {
            self.alive(now, false);
        }
    }

    fn is_under_way(&self, number: u64) -> bool {
        match &self.phase {
            Phase::Due(_) => false,
            Phase::Listing(Listing { number: pending, .. })
            | Phase::Opening { number: pending, .. }
            | Phase::Watching(Watching { number: pending, .. }) => *pending == number,
        }
    }

    fn send_due(&mut self, now: Timestamp) {
        if let Phase::Due(at) = self.phase
            && now >= at
        {
            match self.version.clone() {
                Some(version) => self.send_watch(now, version),
                None => self.send_list(now),
            }
        }
        if let Probe::Due(at) = self.probe
            && self.may_probe()
            && now >= at
        {
            self.send_probe();
        }
    }

    fn send_watch(&mut self, now: Timestamp, resource_version: Arc<str>) {
        self.number += 1;
        let timeout = self.watch_timeout();
        let listed = std::mem::take(&mut self.listed);
        self.phase = Phase::Opening {
            number: self.number,
            since: now,
            timeout,
            begun_at: Arc::clone(&resource_version),
            listed,
        };
        self.outputs.push_back(Output::Watch { number: self.number, resource_version, timeout });
    }

    /// The watch is open, if it was not before: the probe shows whether that holds.
    fn opened(&mut self, now: Timestamp) {
        let Phase::Opening { number, since, timeout, ref begun_at, listed } = self.phase else { return };
        let begun_at = Arc::clone(begun_at);
        self.phase = Phase::Watching(Watching {
            number,
            sent: since,
            opened: now,
            timeout,
            heard: now,
            mute: Self::grace(timeout).unwrap_or_else(|| self.jitter.scale(MUTE, 0.8)),
            begun_at,
            spoke: None,
            suspect: false,
            followed: listed,
        });
        if self.failing {
            self.set_probe(now);
        }
    }

    fn closed(&mut self, now: Timestamp, result: Result<(), Failure>) {
        let Phase::Watching(Watching { sent, opened, .. }) = self.phase else {
            // Nothing but a failure ends what is not open.
            if let Err(failure) = result {
                self.failed(now, failure);
            }
            return;
        };
        let (list, worked) = (self.closes(now, result.is_ok()), self.has_worked(now));
        match result {
            Ok(()) if worked => {
                if list {
                    self.stands_in(now);
                }
                self.phase = Phase::Due(now.max(sent + BRIEF));
                return;
            }
            // The pause that follows is time enough for a list.
            _ if list => self.relist(),
            _ => {}
        }
        match result {
            Ok(()) => {
                self.strike(now, error(ErrorCode::StreamEnded, "the watch was closed at once"));
                self.pause(now, None);
            }
            Err(failure) if failure.kind == FailureKind::Other && now.since(opened) >= ROUTINE => {
                self.pause(now, failure.retry_after);
            }
            Err(failure) => self.failed(now, failure),
        }
    }

    /// Whether the watch that ends now was any good: then a row of bad ones is over.
    fn has_worked(&mut self, now: Timestamp) -> bool {
        let Phase::Watching(Watching { opened, spoke, .. }) = self.phase else { return false };
        let worked = spoke.is_some() || now.since(opened) >= BRIEF;
        if worked {
            self.strikes = 0;
        }
        worked
    }

    /// The request under way failed.
    fn failed(&mut self, now: Timestamp, failure: Failure) {
        let Failure { kind, error, retry_after } = failure;
        self.has_worked(now);
        self.abandon_list(kind);
        match kind {
            FailureKind::Gone => {
                self.relist();
                self.strike(now, error);
            }
            FailureKind::AheadOfServer | FailureKind::BadRequest => {
                self.relist();
                self.report(now, ProviderEvent::Degraded { error });
            }
            FailureKind::Unauthorized => {
                self.outputs.push_back(Output::RereadToken);
                if self.pace.tries_at_once(now) {
                    self.phase = Phase::Due(now);
                    return;
                }
                self.report(now, ProviderEvent::Degraded { error });
            }
            FailureKind::Unanswered if matches!(self.phase, Phase::Opening { .. }) => return self.unanswered(now),
            FailureKind::Internal if matches!(self.phase, Phase::Opening { .. }) => {
                self.refused(now);
                self.report(now, ProviderEvent::Degraded { error });
            }
            FailureKind::Forbidden | FailureKind::Internal | FailureKind::Unanswered | FailureKind::Other => {
                self.report(now, ProviderEvent::Degraded { error });
            }
        }
        self.pause(now, retry_after);
    }

    /// The head of the watch's answer did not come: the server may keep it until there is something to say.
    fn unanswered(&mut self, now: Timestamp) {
        let Phase::Opening { since, .. } = self.phase else { return };
        self.is_mute(now);
        self.phase = Phase::Due(now.max(since + BRIEF));
    }

    /// The version is of no use: a list is needed.
    fn relist(&mut self) {
        self.version = None;
    }

    /// What happens now and then in good order is an error only if it happens again.
    fn strike(&mut self, now: Timestamp, error: ProvisioningError) {
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes > 1 {
            self.report(now, ProviderEvent::Degraded { error });
        }
    }

    /// Goes on after a pause.
    fn pause(&mut self, now: Timestamp, retry_after: Option<Duration>) {
        let resume = self.pace.resume(now, retry_after, &mut self.jitter);
        self.phase = Phase::Due(resume);
        self.probe_after(resume);
    }

    /// Breaks off what has taken too long.
    fn overdue(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Due(_)) || now < self.deadline() {
            return;
        }
        self.outputs.push_back(Output::Abort);
        match &self.phase {
            Phase::Listing(_) => {
                let error = error(ErrorCode::Timeout, "a page of the list did not arrive in time");
                self.failed(now, Failure { kind: FailureKind::Other, error, retry_after: None });
            }
            Phase::Opening { .. } => self.unanswered(now),
            // It may be as quiet as it looks: nothing to report.
            Phase::Due(_) | Phase::Watching(_) => {
                if self.gap.is_some_and(|gap| now >= gap) {
                    self.judge(now, None);
                    self.relist();
                } else {
                    self.is_mute(now);
                }
                self.phase = Phase::Due(now);
            }
        }
    }

    /// The number of the watch that is open.
    fn open_watch(&self) -> Option<u64> {
        match &self.phase {
            Phase::Watching(watching) => Some(watching.number),
            _ => None,
        }
    }

    fn is_suspect(&self) -> bool {
        matches!(self.phase, Phase::Watching(Watching { suspect: true, .. }))
    }

    /// The watch's connection may be dead.
    fn suspect(&mut self) {
        if let Phase::Watching(watching) = &mut self.phase {
            watching.suspect = true;
        }
    }

    /// A sign of life.
    fn alive(&mut self, now: Timestamp, current: bool) {
        self.report(now, ProviderEvent::Heartbeat { current: current && self.reported });
    }

    fn report(&mut self, now: Timestamp, event: ProviderEvent) {
        match event {
            ProviderEvent::Degraded { .. } => self.failing = true,
            ProviderEvent::Snapshot { .. }
            | ProviderEvent::Changes { .. }
            | ProviderEvent::Heartbeat { current: true } => self.failing = false,
            _ => {}
        }
        self.last_event = now;
        self.outputs.push_back(Output::Event(event));
    }
}

fn error(code: ErrorCode, detail: &'static str) -> ProvisioningError {
    ProvisioningError::new(code, "watching the members", detail)
}

#[cfg(test)]
mod tests;
