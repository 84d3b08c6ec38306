//! The rules of the watch, as a state machine without threads, sockets or a clock: an [`Input`] and the time go in,
//! [`Output`]s and the time of the next call come out. Feed one input, then drain the outputs.
//!
//! Two requests may be under way at once. The *watch* is a blocking query: it answers once the index is above ours. The
//! *probe* asks every few seconds for the index alone, which tells silence from peace, and shows what a blocked watch
//! cannot: an index lower than ours (the server would answer only once it exceeds ours) or one that is higher while the
//! watch stays mute (its connection is dead).
//!
//! What is believed:
//! - An answer of an ordinary index is believed, also an empty one.
//! - An answer of a lower index, one that lacks members at the same index, or an empty one of index 1, is not. The server is asked again, without an index and
//!   with proof that the leader leads. If the answer then lacks members that were there before the rollback, or is still
//!   empty with index 1, it is held until the repair grace is over, asked for once more, and only then believed. An
//!   agent that lost its state answers like that until the members find the loss and register again: those that do
//!   within the grace never left. An empty answer of index 1 never ends a set that has members: a server that knows
//!   nothing yet gives it, and one to whom a revoked token is shown. An error on either connection starts the grace anew, since nothing has been seen to
//!   hold meanwhile.
//! - After an error the next request is unindexed, so that recovery shows at once.
//!
//! How often it asks: never more than one watch and one probe at a time; failed watches are paced by the backoff, and
//! answers that come at once by a bucket of two tokens, which fills the slower the longer they bring nothing new. While
//! the watch is backing off nothing is probed: its next attempt is the probe.

use std::collections::VecDeque;
use std::time::Duration;

use super::mark::Mark;
use super::query::Consistency;
use crate::backoff::{Backoff, FIRST, Jitter, LONGEST};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::ProviderEvent;
use crate::topology::{Members, Revision};

/// A stream that has reported nothing for that long reports a heartbeat: a second within the contract's 5 s.
const QUIET: Duration = Duration::from_secs(4);
/// How long the index may be above ours before the mute watch is given up. Doubles each time, so that a slow body that
/// is still arriving gets through in the end.
const BEHIND_GRACE: Duration = Duration::from_secs(5);
/// The longest that it doubles to.
const BEHIND_GRACE_MAX: Duration = Duration::from_secs(80);
/// How long a token of the request bucket takes to come: no faster than consumers are served anyway (a snapshot per
/// 100 ms).
const TOKEN: Duration = Duration::from_millis(100);
/// The same once answers keep coming at once and bring nothing new.
const TOKEN_MAX: Duration = Duration::from_secs(1);
/// How often an empty answer of index 1 is asked for again: it cannot be waited for.
const RECHECK: Duration = Duration::from_secs(1);

/// The settings of the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) consistency: Consistency,
    pub(super) max_stale: Duration,
    pub(super) repair_grace: Duration,
    pub(super) probe_interval: Duration,
}

/// What outlives a stream, so that a new one does not take the loss of the backend's state for news.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The highest index of the present timeline; 0 if none is known.
    pub(super) index: u64,
    /// The members last believed.
    pub(super) members: Option<Members>,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// The watch of that number ended.
    Watch(u64, Result<WatchAnswer, ProvisioningError>),
    /// The probe ended.
    Probe(Result<Mark, ProvisioningError>),
    /// The time of [`Machine::timeout`] has come.
    Timer,
}

/// A decoded answer to a watch.
#[derive(Clone, Debug)]
pub(super) struct WatchAnswer {
    pub(super) mark: Mark,
    pub(super) members: Members,
    pub(super) skipped: usize,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Output {
    /// Send a watch of that number; without an index it is answered at once.
    Watch { number: u64, index: Option<u64>, consistency: Consistency },
    /// Send a probe.
    Probe { consistency: Consistency },
    /// Break off the watch under way; its end is not reported, or ignored.
    AbortWatch,
    /// Report.
    Event(ProviderEvent),
}

/// Where the watch is.
#[derive(Debug)]
enum Watch {
    /// To be sent then.
    Due(Timestamp),
    /// Failed; to be sent again then.
    BackingOff(Timestamp),
    /// Under way.
    Pending { number: u64, index: Option<u64>, since: Timestamp },
}

/// Whether there is a doubt.
#[derive(Debug)]
enum Doubt {
    None,
    /// The unindexed answer of the leader is awaited; nothing is judged before it.
    Confirming,
    /// The answer is held until then; `None`: it has to be seen again first.
    Holding(Option<Timestamp>),
}

/// A probe under way, or the time of the next.
#[derive(Debug)]
enum Probe {
    Due(Timestamp),
    /// `index` is ours as the probe was sent: a later answer of a consistent server cannot be below it.
    Pending {
        index: u64,
        consistency: Consistency,
    },
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    jitter: Jitter,
    outputs: VecDeque<Output>,
    /// Judging against the highest index of the present timeline; 0 after a rollback until the next answer.
    index: u64,
    /// Which index the next watch is sent with; `None`: unindexed.
    ask: Option<u64>,
    /// The members last believed, by this stream or the one before it.
    believed: Option<Members>,
    /// Whether this stream has reported its members.
    reported: bool,
    watch: Watch,
    number: u64,
    bucket: Bucket,
    backoff: Backoff,
    doubt: Doubt,
    /// The index before a rollback that is not settled yet.
    before: Option<u64>,
    /// What is doubtful, to be repeated.
    reason: Option<ProvisioningError>,
    /// Whether the next watch has to be answered by the leader.
    ask_leader: bool,
    probe: Probe,
    /// Whether the next probe has to be answered by the leader.
    probe_leader: bool,
    /// Since when, and for which watch, the index is known to be above ours.
    behind: Option<(u64, Timestamp)>,
    behind_grace: Duration,
    last_event: Timestamp,
}

impl Machine {
    /// A machine that begins at `now`.
    pub(super) fn new(settings: Settings, memory: Memory, seed: u64, now: Timestamp) -> Self {
        let mut jitter = Jitter::new(seed);
        let first_probe = now + jitter.scale(settings.probe_interval, 0.25);
        let mut machine = Self {
            settings,
            jitter,
            outputs: VecDeque::new(),
            index: memory.index,
            ask: None,
            believed: memory.members,
            reported: false,
            watch: Watch::Due(now),
            number: 0,
            bucket: Bucket::new(now),
            backoff: Backoff::new(FIRST, LONGEST),
            doubt: Doubt::None,
            before: None,
            reason: None,
            ask_leader: false,
            probe: Probe::Due(first_probe),
            probe_leader: false,
            behind: None,
            behind_grace: BEHIND_GRACE,
            last_event: now,
        };
        machine.send_due(now);
        machine
    }

    /// What the next stream shall know.
    pub(super) fn memory(&self) -> Memory {
        Memory { index: self.before.unwrap_or(self.index), members: self.believed.clone() }
    }

    /// The next output; drained after every input.
    pub(super) fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call with [`Input::Timer`] if nothing happens before.
    pub(super) fn timeout(&self) -> Timestamp {
        let mut next = self.last_event + QUIET;
        match self.watch {
            Watch::Due(at) | Watch::BackingOff(at) => next = next.min(at),
            Watch::Pending { index, .. } => {
                if let (Doubt::Holding(Some(until)), Some(_)) = (&self.doubt, index) {
                    next = next.min(*until);
                }
            }
        }
        match self.probe {
            Probe::Due(at) if self.may_probe() => next.min(at),
            Probe::Due(_) | Probe::Pending { .. } => next,
        }
    }

    /// Takes an input and decides.
    pub(super) fn handle(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Watch(number, result) => {
                let Watch::Pending { number: pending, index, since } = self.watch else { return };
                if number != pending {
                    return;
                }
                self.behind = None;
                match result {
                    Ok(answer) => self.answered(now, answer, index, since),
                    Err(error) => self.failed(now, error),
                }
            }
            Input::Probe(result) => self.probed(now, result),
            Input::Timer => {}
        }
        self.hold_is_over(now);
        self.send_due(now);
        if now.since(self.last_event) >= QUIET {
            self.alive(now, false);
        }
    }

    fn send_due(&mut self, now: Timestamp) {
        if let Watch::Due(at) | Watch::BackingOff(at) = self.watch
            && now >= at
        {
            self.number += 1;
            self.bucket.take(now);
            let settles = matches!(self.doubt, Doubt::Confirming | Doubt::Holding(_)) && self.ask.is_none();
            let leader = self.ask_leader || settles;
            let consistency = if leader { Consistency::Consistent } else { self.settings.consistency };
            self.watch = Watch::Pending { number: self.number, index: self.ask, since: now };
            self.outputs.push_back(Output::Watch { number: self.number, index: self.ask, consistency });
        }
        if let Probe::Due(at) = self.probe
            && self.may_probe()
            && now >= at
        {
            let consistency = if self.probe_leader { Consistency::Consistent } else { self.settings.consistency };
            self.probe = Probe::Pending { index: self.index, consistency };
            self.outputs.push_back(Output::Probe { consistency });
        }
    }

    fn may_probe(&self) -> bool {
        !matches!(self.watch, Watch::BackingOff(_))
    }

    fn failed(&mut self, now: Timestamp, error: ProvisioningError) {
        self.nothing_holds();
        self.ask = None;
        self.watch = Watch::BackingOff(now + self.backoff.pause(&mut self.jitter));
        self.report(now, ProviderEvent::Degraded { error });
    }

    fn answered(&mut self, now: Timestamp, answer: WatchAnswer, asked: Option<u64>, since: Timestamp) {
        let Mark { index, last_contact, known_leader, stale } = answer.mark;
        let asked_leader = std::mem::take(&mut self.ask_leader);
        let regressed = index.is_some_and(|index| index < self.index);
        let uncertain = known_leader == Some(false) || last_contact.is_some_and(|age| age > self.settings.max_stale);
        // A server that lags behind the one asked before is no rollback: its leader knows better.
        let lags = regressed && !asked_leader && (stale || self.settings.consistency == Consistency::Stale);
        if uncertain || lags {
            if asked_leader {
                let detail = "the server answers without contact to its leader, also when asked for the leader";
                return self.failed(now, doubtful(ErrorCode::BackendUnavailable, detail));
            }
            self.ask_leader = true;
            self.ask = None;
            self.watch = Watch::Due(self.bucket.next(now));
            return;
        }
        self.backoff.reset();
        let fruitless = now.since(since) < TOKEN && (asked.is_some() || asked_leader);
        let confirmed = asked.is_none() && matches!(self.doubt, Doubt::Confirming);
        let faint = answer.members.is_empty() && index.unwrap_or(1) <= 1;
        if regressed {
            let detail = format!("the index went back from {} to {}", self.index, index.unwrap_or_default());
            self.roll_back(now, self.index, detail);
        } else if matches!(self.doubt, Doubt::None) && index == Some(self.index) && self.missing(&answer.members) > 0 {
            // One timeline has one content for each index: another has grown to the same one.
            let detail = format!("members are gone although the index is still {}", self.index);
            self.roll_back(now, self.index.saturating_add(1), detail);
        } else if faint && !confirmed && !matches!(self.doubt, Doubt::Holding(_)) {
            let reason = doubtful(ErrorCode::DoubtfulAnswer, "no members, with index 1: asked again");
            self.doubt = Doubt::Confirming;
            self.ask = None;
            self.watch = Watch::Due(self.bucket.next(now));
            self.doubt_it(now, reason);
        } else {
            self.adopt(index);
            let news = match self.lost(&answer.members) {
                lost if lost > 0 || faint => self.hold(now, answer, lost, faint),
                _ => self.believe(now, answer),
            };
            self.bucket.adapt(news || !fruitless);
            if !matches!(self.watch, Watch::Due(_)) {
                self.watch = Watch::Due(self.bucket.next(now));
            }
        }
    }

    /// Takes the index over and asks from it on. Without a usable one 1 is asked for: the server answers at once if it
    /// has anything newer, and is not asked in a hot loop, which an unindexed query would be.
    fn adopt(&mut self, index: Option<u64>) {
        if let Some(index) = index {
            if self.before.is_some_and(|before| index >= before) {
                // What looked like a rollback was a server that lagged behind.
                self.before = None;
            }
            self.index = index;
        }
        self.ask = Some(index.unwrap_or(1).max(1));
    }

    /// The answer, or the probe, is of another timeline than ours, in which nothing below `before` counts: everything
    /// is asked anew.
    fn roll_back(&mut self, now: Timestamp, before: u64, detail: String) {
        self.before = Some(self.before.unwrap_or(0).max(before));
        self.index = 0;
        self.ask = None;
        self.doubt = Doubt::Confirming;
        self.watch = Watch::Due(self.bucket.next(now));
        self.doubt_it(now, doubtful(ErrorCode::IndexRollback, detail));
    }

    /// How many of the believed members the answer lacks, if it comes from after a rollback.
    fn lost(&self, members: &Members) -> usize {
        if self.before.is_some() { self.missing(members) } else { 0 }
    }

    fn missing(&self, members: &Members) -> usize {
        match &self.believed {
            Some(believed) if believed != members => {
                believed.iter().filter(|node| !members.contains(node.id())).count()
            }
            _ => 0,
        }
    }

    /// Holds a doubtful answer, or believes it if it has held for long enough; whether it was believed.
    fn hold(&mut self, now: Timestamp, answer: WatchAnswer, lost: usize, faint: bool) -> bool {
        // Index 1 says that the server knows nothing, not that nobody is there: a server that works leaves it at once.
        let never = faint && self.believed.as_ref().is_some_and(|members| !members.is_empty());
        let until = match self.doubt {
            Doubt::Holding(Some(until)) if now < until => until,
            Doubt::Holding(Some(_)) if !never => return self.believe(now, answer),
            _ => now + self.settings.repair_grace,
        };
        self.doubt = Doubt::Holding(Some(until));
        if faint {
            self.ask = None;
            self.watch = Watch::Due(self.bucket.next(now).max((now + RECHECK).min(until)));
        }
        let detail = match lost {
            _ if never => "no members, with index 1: what a server says that knows nothing yet".to_owned(),
            0 => "no members, with index 1: held until it has lasted".to_owned(),
            _ => format!("{lost} members are gone since the index went back: held until it has lasted"),
        };
        self.doubt_it(now, doubtful(ErrorCode::DoubtfulAnswer, detail));
        false
    }

    /// Reports the set; whether it was news.
    fn believe(&mut self, now: Timestamp, answer: WatchAnswer) -> bool {
        self.doubt = Doubt::None;
        self.before = None;
        self.reason = None;
        self.behind_grace = BEHIND_GRACE;
        if self.reported && self.believed.as_ref() == Some(&answer.members) {
            self.report(now, ProviderEvent::Heartbeat { current: true });
            return false;
        }
        let members = match &self.believed {
            Some(before) => answer.members.shared_with(before),
            None => answer.members,
        };
        let revision = answer.mark.index.map_or(Revision::NONE, |index| Revision::new(index.to_string()));
        self.believed = Some(members.clone());
        self.reported = true;
        self.report(now, ProviderEvent::Snapshot { members, revision, skipped: answer.skipped });
        true
    }

    fn probed(&mut self, now: Timestamp, result: Result<Mark, ProvisioningError>) {
        let Probe::Pending { index: sent, consistency } = self.probe else { return };
        self.probe = Probe::Due(now + self.jitter.scale(self.settings.probe_interval, 0.75));
        self.probe_leader = false;
        let mark = match result {
            Ok(mark) => mark,
            Err(error) => {
                self.nothing_holds();
                return self.report(now, ProviderEvent::Degraded { error });
            }
        };
        if let Doubt::Holding(until @ None) = &mut self.doubt {
            *until = Some(now + self.settings.repair_grace);
        }
        let (Some(index), Watch::Pending { number, index: asked, .. }) = (mark.index, &self.watch) else {
            return self.alive(now, false);
        };
        let (number, indexed) = (*number, asked.is_some());
        if index < sent && sent <= self.index && indexed {
            if consistency != Consistency::Consistent && (mark.stale || consistency == Consistency::Stale) {
                // Any server may have answered: one that lags proves nothing.
                self.probe_leader = true;
                self.probe = Probe::Due(now);
                return self.alive(now, false);
            }
            self.outputs.push_back(Output::AbortWatch);
            let detail = format!("the index went back from {sent} to {index}, as a probe shows");
            return self.roll_back(now, self.index, detail);
        }
        if index <= self.index || !indexed {
            self.behind = None;
            let fresh = mark.last_contact.is_none_or(|age| age <= self.settings.max_stale);
            let current = indexed && index == self.index && mark.known_leader != Some(false) && fresh;
            return self.alive(now, current);
        }
        match self.behind {
            Some((watch, since)) if watch == number => {
                if now.since(since) >= self.behind_grace {
                    self.behind_grace = (self.behind_grace * 2).min(BEHIND_GRACE_MAX);
                    self.outputs.push_back(Output::AbortWatch);
                    let error = doubtful(ErrorCode::Timeout, "the watch stays mute although there is news");
                    return self.failed_watch_at_once(now, error);
                }
            }
            _ => self.behind = Some((number, now)),
        }
        self.alive(now, false);
    }

    /// The watch is dead but the server lives: no reason to wait before asking again.
    fn failed_watch_at_once(&mut self, now: Timestamp, error: ProvisioningError) {
        self.behind = None;
        self.ask = None;
        self.watch = Watch::Due(self.bucket.next(now));
        self.report(now, ProviderEvent::Degraded { error });
    }

    /// A sign of life: that there still is a doubt, or a heartbeat.
    fn alive(&mut self, now: Timestamp, current: bool) {
        match &self.reason {
            Some(reason) => self.doubt_it(now, reason.clone()),
            None => self.report(now, ProviderEvent::Heartbeat { current: current && self.reported }),
        }
    }

    fn nothing_holds(&mut self) {
        if let Doubt::Holding(until) = &mut self.doubt {
            *until = None;
        }
    }

    /// What was held has held: it is asked for once more, and believed if it is still so.
    fn hold_is_over(&mut self, now: Timestamp) {
        if let (Doubt::Holding(Some(until)), Watch::Pending { index: Some(_), .. }) = (&self.doubt, &self.watch)
            && now >= *until
        {
            self.outputs.push_back(Output::AbortWatch);
            self.ask = None;
            self.watch = Watch::Due(self.bucket.next(now));
        }
    }

    fn doubt_it(&mut self, now: Timestamp, reason: ProvisioningError) {
        self.reason = Some(reason.clone());
        self.report(now, ProviderEvent::Doubtful { reason });
    }

    fn report(&mut self, now: Timestamp, event: ProviderEvent) {
        self.last_event = now;
        self.outputs.push_back(Output::Event(event));
    }
}

fn doubtful(code: ErrorCode, detail: impl Into<std::borrow::Cow<'static, str>>) -> ProvisioningError {
    ProvisioningError::new(code, "watching the service", detail)
}

/// Bounds the rate of requests: two at once, then one per interval, which doubles while answers bring nothing new.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    /// When the bucket would be full.
    full_at: Timestamp,
}

impl Bucket {
    fn new(now: Timestamp) -> Self {
        Self { interval: TOKEN, full_at: now }
    }

    /// When the next request may be sent: as soon as there is one of the two tokens.
    fn next(&self, now: Timestamp) -> Timestamp {
        let wait = self.full_at.since(now).saturating_sub(self.interval);
        now + wait
    }

    fn take(&mut self, now: Timestamp) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    fn adapt(&mut self, useful: bool) {
        self.interval = if useful { TOKEN } else { (self.interval * 2).min(TOKEN_MAX) };
    }
}

#[cfg(test)]
mod tests;
