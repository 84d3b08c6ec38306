//! The rules of the watch, as a state machine without threads, sockets or a clock: an [`Input`], the time and the local
//! node's [`Standing`] go in, [`Output`]s and the time of the next call come out. Feed one input, then drain the
//! outputs.
//!
//! Two requests may be under way at once. The *watch* is a blocking query: it answers once the index is above ours. The
//! [*probe*](probe) asks every few seconds for the index alone, which tells silence from peace, and shows what a
//! blocked watch cannot: an index lower than ours (the server would answer only once it exceeds ours) or one that is
//! higher while the watch stays mute. Then the members are asked for: if they are others the connection is dead, and
//! else all is well.
//!
//! What it must handle stands beside it, case by case with the danger, the rule and the test: `watch/CASES.md`. In
//! short: no answer ends members that may only have been lost from sight; an index confirms what is believed only
//! within one life of the server; what is routine is no alarm; and there is never more than one watch and one probe at
//! a time, each at a moment of its own.

mod bucket;
mod cut;
mod doubt;
mod life;
mod local;
mod lower;
mod outage;
mod probe;
mod unrest;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::bucket::{Bucket, TOKEN};
use self::doubt::{Continuity, Doubt};
use self::life::Life;
use self::lower::Lower;
use self::outage::Outage;
use self::probe::Probe;
use self::unrest::{PAUSE, Unrest, Witness};
use super::failure::Failure;
use super::lineage::Lineage;
use super::mark::Mark;
use super::query::Consistency;
use crate::backoff::{Backoff, Jitter};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::{ProviderEvent, RetryPolicy};
use crate::providers::presence::{Sighting, Standing};
use crate::topology::{ClusterNode, Members, Revision};

/// A stream that has reported nothing for that long reports a heartbeat: a second within the contract's 5 s.
const QUIET: Duration = Duration::from_secs(4);
/// A machine that was not called for that long, though it asks for it every 4 s, stood still with its whole process.
const STANDSTILL: Duration = Duration::from_secs(10);
/// How often an answer that cannot be waited for, or is never believed, is asked for again at the most.
const RECHECK: Duration = Duration::from_secs(1);
/// The shortest wait: none at all would mean the server's longest.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// The longest wait that a server accepts.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// The settings of the rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) consistency: Consistency,
    pub(super) wait: Duration,
    pub(super) max_stale: Duration,
    pub(super) repair_grace: Duration,
    pub(super) probe_interval: Duration,
    /// That of the members' checks.
    pub(super) ttl: Duration,
    /// The pauses after errors.
    pub(super) retry: RetryPolicy,
}

/// What outlives a stream, so that a new one does not take the loss of the backend's state for news.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The highest index of the present timeline; 0 if none is known.
    pub(super) index: u64,
    /// Whether the timeline broke, and what is missing since then is still held.
    pub(super) unsettled: bool,
    /// The members last believed.
    pub(super) members: Option<Members>,
    /// Where they came from.
    pub(super) lineage: Lineage,
}

impl Memory {
    /// The same to a watch through another agent. If it is one of another cluster its index counts something else, so
    /// that it is the lineage that shows whether the history goes on.
    pub(super) fn of_another_agent(self) -> Self {
        Self { index: 0, ..self }
    }
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// The watch of that number ended.
    Watch(u64, Result<WatchAnswer, Failure>),
    /// The probe ended.
    Probe(Result<Mark, Failure>),
    /// The time of [`Machine::timeout`] has come.
    Timer,
}

/// A decoded answer to a watch.
#[derive(Clone, Debug)]
pub(super) struct WatchAnswer {
    pub(super) mark: Mark,
    pub(super) members: Members,
    pub(super) lineage: Lineage,
    pub(super) skipped: usize,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Output {
    /// Send a watch of that number; without an index it is answered at once, else within the wait.
    Watch { number: u64, index: Option<u64>, wait: Duration, consistency: Consistency },
    /// Send a probe.
    Probe { consistency: Consistency },
    /// Break off the watch under way; its end is not reported, or ignored.
    AbortWatch,
    /// Tell the registration what an answer says of the local node: each absence, and whatever else is news.
    Sighted(Sighting),
    /// Report.
    Event(ProviderEvent),
}

/// Where the watch is.
#[derive(Debug)]
enum Watch {
    /// To be sent then.
    Due(Timestamp),
    /// Failed; the next attempt is then.
    BackingOff(Timestamp),
    /// Failed; the attempt under way is the probe.
    Recovering,
    /// Under way.
    Pending { number: u64, asked: Asked },
}

/// What a watch asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    index: Option<u64>,
    since: Timestamp,
    /// When its wait is over.
    until: Timestamp,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    /// The local node in member mode, and how far its registration has come.
    local: Option<Arc<ClusterNode>>,
    standing: Standing,
    jitter: Jitter,
    outputs: VecDeque<Output>,
    /// Judging against the highest index of the present timeline; 0 after a rollback until the next answer.
    index: u64,
    lower: Lower,
    /// Which index the next watch is sent with; `None`: unindexed.
    ask: Option<u64>,
    /// The members last believed, by this stream or the one before it, and the lineage of their answer.
    believed: Option<Members>,
    lineage: Lineage,
    /// Whether this stream has reported its members.
    reported: bool,
    continuity: Continuity,
    life: Life,
    outage: Outage,
    /// What the last answer said of the local node.
    sighted: Sighting,
    /// Whether what is believed lacks the local node although that is registered.
    absence_believed: bool,
    watch: Watch,
    number: u64,
    bucket: Bucket,
    backoff: Backoff,
    doubt: Doubt,
    /// Whether the timeline broke, and what is missing since then is still held.
    unsettled: bool,
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
    /// Whether the last watch was given up since it stayed mute.
    mute: bool,
    unrest: Unrest,
    /// How long the last poll was held that was cut, until one is held longer.
    patience: Option<Duration>,
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

    /// A machine that begins at `now`.
    pub(super) fn new(
        settings: Settings,
        local: Option<Arc<ClusterNode>>,
        memory: Memory,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let mut jitter = Jitter::new(seed);
        let first_probe = now + jitter.scale(settings.probe_interval, 0.25);
        let mut machine = Self {
            settings,
            local,
            outage: Outage::none(settings.ttl, now),
            sighted: Sighting::Present,
            standing: Standing::Client,
            jitter,
            outputs: VecDeque::new(),
            index: memory.index,
            lower: Lower::default(),
            ask: None,
            continuity: if memory.members.is_some() { Continuity::Outage } else { Continuity::Seen },
            believed: memory.members,
            lineage: memory.lineage,
            life: Life::default(),
            reported: false,
            absence_believed: false,
            watch: Watch::Due(now),
            number: 0,
            bucket: Bucket::new(now),
            backoff: settings.retry.backoff(),
            // What the stream before held is to be seen by this one.
            doubt: if memory.unsettled { Doubt::Holding { until: None, absent: false } } else { Doubt::None },
            unsettled: memory.unsettled,
            reason: None,
            ask_leader: false,
            probe: Probe::Due(first_probe),
            probe_leader: false,
            behind: None,
            behind_grace: probe::BEHIND_GRACE,
            mute: false,
            unrest: Unrest::default(),
            patience: None,
            failing: false,
            last_event: now,
            last_call: now,
        };
        machine.send_due(now);
        machine
    }

    /// What the next stream shall know.
    pub(super) fn memory(&self) -> Memory {
        Memory {
            index: self.index,
            unsettled: self.unsettled || self.continuity == Continuity::Replaced,
            members: self.believed.clone(),
            lineage: self.lineage.clone(),
        }
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
            Watch::Pending { asked: Asked { index: Some(_), .. }, .. } => {
                if let Doubt::Holding { until: Some(until), .. } = self.doubt {
                    next = next.min(until);
                }
            }
            Watch::Pending { .. } | Watch::Recovering => {}
        }
        match self.probe {
            Probe::Due(at) if self.may_probe() => next.min(at),
            Probe::Due(_) | Probe::Pending { .. } => next,
        }
    }

    /// Takes an input and decides.
    pub(super) fn handle(&mut self, now: Timestamp, standing: Standing, input: Input) {
        self.standing = standing;
        if now.since(std::mem::replace(&mut self.last_call, now)) >= STANDSTILL {
            self.interrupted(now);
            self.life.stood_still(now, self.number);
        }
        match input {
            Input::Watch(number, result) => {
                let Watch::Pending { number: pending, asked } = self.watch else { return };
                if number != pending {
                    return;
                }
                self.behind = None;
                self.endured(now);
                match result {
                    Ok(answer) => self.answered(now, answer, asked),
                    Err(failure) => self.broke(now, failure, asked),
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
        match self.watch {
            Watch::BackingOff(at) if now >= at && self.probe_goes_first() => self.recover(now),
            Watch::Due(at) | Watch::BackingOff(at) if now >= at => self.send_watch(now),
            _ => {}
        }
        if let Probe::Due(at) = self.probe
            && self.may_probe()
            && now >= at
        {
            self.send_probe();
        }
    }

    fn send_watch(&mut self, now: Timestamp) {
        self.number += 1;
        self.bucket.take(now);
        let settles = matches!(self.doubt, Doubt::Confirming | Doubt::Holding { .. }) && self.ask.is_none();
        let leader = self.ask_leader || settles;
        let consistency = if leader { Consistency::Consistent } else { self.settings.consistency };
        let wait = match self.doubt {
            // The server judges the token's rights anew at the end of the wait.
            Doubt::Waiting => self.calm(self.settings.repair_grace.max(RECHECK).min(self.settings.wait)),
            // Without news the whole set comes at the end of it, to be compared.
            Doubt::None if !self.life.is_known() => {
                let members = self.believed.as_ref().map_or(0, Members::len);
                let longest = self.patience.map_or(self.settings.wait, |patience| patience / 2);
                self.jitter.scale(self.life.span(members).min(longest), 0.0).max(SHORTEST_WAIT)
            }
            // An answer without news is what would end the contradiction.
            Doubt::None if self.unrest.contradicts_watch() => self.calm(self.settings.wait.min(PAUSE / 2)),
            _ => self.calm(self.settings.wait),
        };
        // In the unit in which it is sent, so that no server is taken for one that breaks it off.
        let wait = Duration::from_millis(wait.as_millis() as u64);
        let asked = Asked { index: self.ask, since: now, until: now + wait };
        self.watch = Watch::Pending { number: self.number, asked };
        self.outputs.push_back(Output::Watch { number: self.number, index: self.ask, wait, consistency });
    }

    /// A wait spread over a quarter more, and near the longest one over a fifth less than that.
    fn calm(&mut self, wait: Duration) -> Duration {
        self.jitter.scale(wait.mul_f64(1.25).min(WAIT_MAX), 0.8)
    }

    /// What went wrong again and again may be over.
    fn calm_down(&mut self) {
        if matches!(self.doubt, Doubt::None) {
            self.reason = self.unrest.reason();
        }
    }

    fn failed(&mut self, now: Timestamp, error: ProvisioningError) {
        self.interrupted(now);
        self.mute = false;
        self.ask = None;
        self.watch = Watch::BackingOff(now + self.backoff.pause(&mut self.jitter));
        self.report(now, ProviderEvent::Degraded { error });
    }

    fn answered(&mut self, now: Timestamp, answer: WatchAnswer, asked: Asked) {
        let is_known = self.reported && self.believed.as_ref() == Some(&answer.members);
        let again = self.life.answered(self.number, !is_known);
        if !again || !self.life.was_overtaken(self.number) {
            self.sight(now, &answer.members);
        }
        if again {
            return self.ask_anew(now);
        }
        let index = answer.mark.index;
        let asked_leader = std::mem::take(&mut self.ask_leader);
        // A server that lags behind the one asked before is no rollback: its members agree, or its leader knows better.
        let may_lag = self.may_lag(&answer.mark);
        let regressed = index.is_some_and(|index| index < self.index) && !(may_lag && self.agrees(&answer));
        let lags = regressed && !asked_leader && may_lag;
        if lags || !self.is_fresh(&answer.mark) {
            if asked_leader {
                return self.failed(now, leaderless());
            }
            self.ask_leader = true;
            return self.ask_anew(now);
        }
        if self.life.proves(self.number) && self.unrest.reason().is_none() {
            self.backoff.reset();
        }
        self.outage.heard(now);
        if asked.index.is_none() {
            let is_whole = self.missing(&answer.members) == 0;
            let went_on = |before| index.is_none_or(|index| index >= before);
            self.unrest.judged(|witness, before| is_whole && (witness == Witness::Watch || went_on(before)));
        }
        let witness = asked.index.map(|_| Witness::Watch);
        let early = now < asked.until && now.since(asked.since) < TOKEN;
        let fruitless = early && (asked.index.is_some() || asked_leader);
        if regressed {
            let detail = format!("the index went back from {} to {}", self.index, index.unwrap_or_default());
            self.roll_back(now, witness, detail);
        } else if matches!(self.doubt, Doubt::None) && index == Some(self.index) && self.missing(&answer.members) > 0 {
            // One timeline has one content for each index: another has grown to the same one.
            let detail = format!("members are gone although the index is still {}", self.index);
            self.roll_back(now, witness, detail);
        } else if !self.unsettled && self.may_have_lost(&answer) {
            let detail = match self.continuity {
                Continuity::Replaced => "members are gone after a wait that was broken off without news",
                Continuity::Outage => "members are gone after an outage, and the others have new entries",
                Continuity::Seen => "members are gone, and others that were there all the time have new entries",
            };
            self.roll_back(now, witness, detail.to_owned());
        } else if matches!(self.doubt, Doubt::None) && is_faint(&answer) {
            self.look_into(witness);
            self.doubt = Doubt::Confirming;
            self.ask_anew(now);
            self.doubt_it(now, doubtful(ErrorCode::DoubtfulAnswer, "no members, with index 1: asked again"));
        } else if witness.is_some() && self.is_last_seen(&answer.members) {
            self.look_into(witness);
            self.doubt = Doubt::Confirming;
            self.ask_anew(now);
        } else {
            self.adopt(&answer);
            let news = match self.why(now, &answer) {
                Some(why) => self.hold(now, asked, answer, why),
                None => {
                    if let Some(witness) = witness {
                        self.unrest.agrees(witness);
                    }
                    self.believe(now, answer)
                }
            };
            if news {
                self.unrest.lasted();
            }
            let broken_off = asked.index.is_some() && asked.index == index && now < asked.until;
            if broken_off {
                self.continuity = Continuity::Replaced;
            }
            self.schedule_probe(now, asked, broken_off);
            self.bucket.adapt(news || !fruitless);
            if !matches!(self.watch, Watch::Due(_)) {
                self.watch = Watch::Due(self.bucket.next(now));
            }
            if witness.is_none() && self.unrest.contradicts_watch() {
                self.watch = Watch::Due(now + self.jitter.scale(PAUSE, 0.5));
            }
        }
    }

    /// Whether nobody is left of those who are believed, and the local node would not know better.
    fn is_last_seen(&self, members: &Members) -> bool {
        let is_news = members.is_empty() && self.believed.as_ref().is_some_and(|believed| !believed.is_empty());
        is_news
            && !matches!(self.standing, Standing::Joining | Standing::Registered)
            && matches!(self.doubt, Doubt::None)
    }

    /// What a witness has shown is looked into: a whole answer is asked for.
    fn look_into(&mut self, witness: Option<Witness>) {
        if let Some(witness) = witness {
            self.unrest.heard(witness, self.index);
        }
    }

    /// Whether the answer comes from a server that knows its leader, and has heard of it lately.
    fn is_fresh(&self, mark: &Mark) -> bool {
        mark.known_leader != Some(false) && mark.last_contact.is_none_or(|age| age <= self.settings.max_stale)
    }

    /// Whether the answer shows exactly what is believed, in entries of the same history.
    fn agrees(&self, answer: &WatchAnswer) -> bool {
        let same = self.believed.as_ref() == Some(&answer.members);
        same && matches!(self.doubt, Doubt::None) && !answer.lineage.renews(&self.lineage)
    }

    /// Takes the index over and asks from it on; of one that lags nothing but the asking. Without a usable one 1 is
    /// asked for: the server answers at once if it has anything newer, and is not asked in a hot loop, which an
    /// unindexed query would be.
    fn adopt(&mut self, answer: &WatchAnswer) {
        let index = answer.mark.index;
        match index {
            Some(index) if index < self.index => self.lower.agrees(index),
            Some(index) => self.index = index,
            None => {}
        }
        self.ask = Some(index.unwrap_or(1).max(1));
    }

    /// Whether the answer lacks members that the server may have lost. A server that names no entries' indexes shows
    /// nothing; where nobody is left, nobody proves anything.
    fn may_have_lost(&self, answer: &WatchAnswer) -> bool {
        let told = answer.members.is_empty() || !answer.lineage.is_empty();
        let proven = match self.continuity {
            // Nobody was seen to leave, and yet there are new entries.
            Continuity::Seen => !answer.lineage.renews(&self.lineage),
            Continuity::Outage => !told || self.lineage.is_empty() || answer.lineage.continues(&self.lineage),
            Continuity::Replaced => false,
        };
        !proven && self.missing(&answer.members) > 0
    }

    /// The answer, or the probe, is of another timeline than ours: everything is asked anew. An index that reaches ours
    /// again does not settle it: it rises while the members register again.
    fn roll_back(&mut self, now: Timestamp, witness: Option<Witness>, detail: String) {
        self.look_into(witness);
        self.unsettled = true;
        self.index = 0;
        self.lower.forget();
        self.doubt = Doubt::Confirming;
        self.ask_anew(now);
        self.doubt_it(now, doubtful(ErrorCode::IndexRollback, detail));
    }

    /// How many of the believed members the answer lacks, if it comes from after a break of the timeline.
    fn lost(&self, members: &Members) -> usize {
        if self.unsettled { self.missing(members) } else { 0 }
    }

    fn missing(&self, members: &Members) -> usize {
        match &self.believed {
            Some(believed) if believed != members => {
                believed.iter().filter(|node| !members.contains(node.id())).count()
            }
            _ => 0,
        }
    }

    /// Reports the set; whether it was news.
    fn believe(&mut self, now: Timestamp, answer: WatchAnswer) -> bool {
        self.doubt = Doubt::None;
        self.unsettled = false;
        self.reason = self.unrest.reason();
        self.behind_grace = probe::BEHIND_GRACE;
        let mute = std::mem::take(&mut self.mute);
        self.life.compared(now, self.number);
        if self.life.is_known() {
            self.continuity = Continuity::Seen;
        }
        self.lineage = answer.lineage;
        self.absence_believed = self.lacks_local(&answer.members);
        if self.reported && self.believed.as_ref() == Some(&answer.members) {
            self.lower.excuse();
            self.alive(now, self.life.is_known());
            return false;
        }
        self.lower.forget();
        if mute && self.reported {
            let error = doubtful(ErrorCode::Timeout, "the watch stayed mute although there was news");
            self.report(now, ProviderEvent::Degraded { error });
        }
        let members = match &self.believed {
            Some(before) => answer.members.shared_with(before),
            None => answer.members,
        };
        let revision = answer.mark.index.map_or(Revision::NONE, |index| Revision::new(index.to_string()));
        self.believed = Some(members.clone());
        self.reported = true;
        self.report(now, ProviderEvent::Snapshot { members, revision, skipped: answer.skipped });
        if self.reason.is_some() {
            self.alive(now, false);
        }
        true
    }

    /// The next watch is unindexed, and as soon as the bucket allows.
    fn ask_anew(&mut self, now: Timestamp) {
        self.ask = None;
        self.watch = Watch::Due(self.bucket.next(now));
    }

    /// A sign of life: that there still is a doubt, or a heartbeat.
    fn alive(&mut self, now: Timestamp, current: bool) {
        match &self.reason {
            Some(reason) => self.doubt_it(now, reason.clone()),
            None => self.report(now, ProviderEvent::Heartbeat { current: current && self.reported }),
        }
    }

    /// Nothing has been seen for a while: what is held may have changed, and the server may have lost its state.
    fn interrupted(&mut self, now: Timestamp) {
        self.outage.trouble();
        self.unrest.interrupted();
        self.life.interrupted(now, self.number);
        self.lower.forget();
        self.doubt_continuity();
        if let Doubt::Holding { until, .. } = &mut self.doubt {
            *until = None;
        }
    }

    fn doubt_continuity(&mut self) {
        if self.continuity == Continuity::Seen {
            self.continuity = Continuity::Outage;
        }
    }

    fn doubt_it(&mut self, now: Timestamp, reason: ProvisioningError) {
        // Of what lasts one reason is told, and not another with each answer.
        let reason = self.unrest.reason().unwrap_or(reason);
        self.reason = Some(reason.clone());
        self.hasten_probe(now);
        self.report(now, ProviderEvent::Doubtful { reason });
    }

    fn report(&mut self, now: Timestamp, event: ProviderEvent) {
        match event {
            ProviderEvent::Degraded { .. } => self.failing = true,
            ProviderEvent::Snapshot { .. } | ProviderEvent::Heartbeat { current: true } => self.failing = false,
            _ => {}
        }
        self.last_event = now;
        self.outputs.push_back(Output::Event(event));
    }
}

/// Whether nobody is there and the index is the one of a server that knows nothing.
fn is_faint(answer: &WatchAnswer) -> bool {
    answer.members.is_empty() && answer.mark.index.unwrap_or(1) <= 1
}

fn leaderless() -> ProvisioningError {
    let detail = "the server answers without contact to its leader, also when asked for the leader";
    doubtful(ErrorCode::BackendUnavailable, detail)
}

fn doubtful(code: ErrorCode, detail: impl Into<std::borrow::Cow<'static, str>>) -> ProvisioningError {
    ProvisioningError::new(code, "watching the service", detail)
}

#[cfg(test)]
mod tests;
