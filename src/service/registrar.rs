//! Member mode: what is to be done for each registration of the local node, as a state machine without threads, I/O or a
//! clock.
//!
//! There is one registration for each provider that can register the node, and for each definition of it. Each has a
//! worker that carries its steps out: what happened goes in with the time, the next [`Step`] comes out, and the worker may
//! take as long as it takes.
//!
//! - A worker that cannot be started is tried again, as a registration that fails is.
//! - A registration is tried for ever, and repaired when it is lost; the pause between two tries is never above 2 s. A
//!   renewal that failed is repeated sooner where the registration wants that: what expires may not wait.
//! - From the moment at which a request is sent until the backend has said that the node is gone, the node *may* be
//!   registered, whatever became of the answer. What may be registered is deregistered when its provider is removed and
//!   when the service drains. A request that is under way then may still be answered for a moment before it is broken off:
//!   one that is broken off could reach the backend after the deregistration.
//! - A deregistration that fails is tried again here, so that no provider has to: after a removal for five minutes, while
//!   draining within the budget, and then only where the backend was away. What it has refused it would refuse again.
//! - When a provider is edited, the registration of its new definition is made first. The former one, if it holds the node,
//!   is kept alive until the new one does, and is retired then. One that never came to hold it is not tried again.
//! - Registrations of one site are one entry of the backend's: only the last of them to go deregisters it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::{Backoff, Jitter};
use crate::clock::Timestamp;
use crate::error::{ErrorCategory, ErrorCode, ProvisioningError};
use crate::failover::SlotKey;
use crate::id::ProviderKind;
use crate::provider::RegistrationSite;

/// The longest pause before a registration that failed or was lost is tried again; drawn from its upper half.
const PAUSE: Duration = Duration::from_secs(2);
/// The shortest pause between two renewals.
const SHORTEST: Duration = Duration::from_millis(10);
/// What the shortest pause doubles to while a registration keeps asking for none, or fails.
const LONGEST_FORCED: Duration = Duration::from_secs(1);
/// How long a request that is under way may still take when its registration is to end.
const GRACE: Duration = Duration::from_millis(250);
/// For how long a deregistration that fails is tried again while the service goes on, and the pauses between two tries. A
/// provider may have been removed because its backend is gone for good.
const FAREWELL: Duration = Duration::from_secs(300);
const FAREWELL_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// The same pauses while draining, when somebody waits for it. The first is short, since it may only be that the connection
/// has died since it was last used.
const DRAIN_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
/// How many failed deregistrations are kept for whoever asks.
const LEFT_BEHIND: usize = 64;
/// How many former definitions of one provider are kept alive: of more, the oldest is let go of that does not surely hold
/// the node.
const FORMER: usize = 4;

/// A registration: of one definition of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RegistrationId {
    /// The provider.
    pub(crate) key: SlotKey,
    /// Its definition; the later, the greater.
    pub(crate) edition: u64,
}

/// A registration that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) id: RegistrationId,
    /// Of which kind its provider is.
    pub(crate) kind: ProviderKind,
    /// Where the node is registered and as what, if the provider can tell.
    pub(crate) site: Option<RegistrationSite>,
}

/// What to do for a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Register the node.
    Join,
    /// Renew the registration.
    Renew,
    /// Deregister the node.
    Leave,
    /// Deregister the node only where this registration is apart from the one of the same kind that follows it.
    Retire,
    /// Nothing until then, or until something has happened to another registration.
    Rest(Timestamp),
    /// Nothing any more.
    End,
}

/// What became of a step.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The step succeeded. For a registration that stays: how long it wants to be left alone.
    Done(Duration),
    /// It failed; the same, where it was a renewal.
    Failed(ProvisioningError, Duration),
}

/// What is to be told of a registration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    /// It fails, for the first time in a row.
    Failing(ProvisioningError),
    /// It works again.
    Recovered,
    /// The node could be deregistered after all.
    Left,
}

/// What the backend knows of the node, by this registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: nothing was sent.
    Absent,
    /// The answer to a request is missing, or says nothing of it: the node may be registered. `renews`: it was registered
    /// before.
    Doubtful { renews: bool },
    /// The node is registered.
    Joined,
    /// The backend says that the registration is gone. It may still be there.
    Lost,
    /// It is deregistered, or the attempt was made.
    Gone,
}

/// Why a registration is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// The node goes.
    Leave,
    /// A newer definition's registration holds the node.
    Retire,
}

#[derive(Debug)]
struct Entry {
    kind: ProviderKind,
    site: Option<RegistrationSite>,
    state: State,
    /// There is a worker for it.
    started: bool,
    /// When the next step is due, or the next attempt to start the worker.
    due: Timestamp,
    /// The step under way, and what the state was before it.
    working: Option<(Step, State)>,
    /// A newer definition is wanted in its place.
    superseded: bool,
    farewell: Option<Farewell>,
    /// When the next attempt to deregister the node is due, and when none is made any more.
    leaves_at: Timestamp,
    farewell_ends: Timestamp,
    farewell_pauses: Backoff,
    /// When what is under way is broken off, because the registration is to end.
    broken_off_at: Option<Timestamp>,
    /// When the last step began.
    began: Timestamp,
    /// The shortest pause: longer while none, or an early renewal, is asked for again and again, and while renewals fail.
    forced: Duration,
    /// An early renewal was asked for.
    hurried: bool,
    /// What is registered describes the node as it was before.
    outdated: bool,
    failing: bool,
}

/// The registrations of the local node.
#[derive(Debug)]
pub(crate) struct Registrar {
    entries: BTreeMap<RegistrationId, Entry>,
    jitter: Jitter,
    /// How long a deregistration may take; while draining, all attempts together.
    budget: Duration,
    draining: bool,
    /// Whether any has ever succeeded.
    joined: bool,
    /// Why the last attempt failed.
    last_error: Option<ProvisioningError>,
    /// Why the node could not be deregistered, of those that have not been asked for yet.
    left_behind: Vec<(RegistrationId, ProvisioningError)>,
}

impl Registrar {
    /// None. `seed`: of the pauses' jitter; `budget`: how long a deregistration may take.
    pub(crate) fn new(seed: u64, budget: Duration) -> Self {
        Self {
            entries: BTreeMap::new(),
            jitter: Jitter::new(seed),
            budget,
            draining: false,
            joined: false,
            last_error: None,
            left_behind: Vec::new(),
        }
    }

    /// Exactly these registrations are wanted from here on.
    pub(crate) fn follow(&mut self, wanted: &[Wanted], now: Timestamp) {
        if self.draining {
            return;
        }
        for Wanted { id, kind, site } in wanted {
            self.entries.entry(*id).or_insert_with(|| Entry {
                kind: kind.clone(),
                site: site.clone(),
                state: State::Absent,
                started: false,
                due: now,
                working: None,
                superseded: false,
                farewell: None,
                leaves_at: now,
                farewell_ends: now,
                farewell_pauses: Backoff::new(FAREWELL_PAUSES.0, FAREWELL_PAUSES.1),
                broken_off_at: None,
                began: Timestamp::default(),
                forced: SHORTEST,
                hurried: false,
                outdated: false,
                failing: false,
            });
        }
        let stays = |id: &RegistrationId| wanted.iter().any(|wanted| wanted.id == *id);
        let edited = |id: &RegistrationId| wanted.iter().any(|wanted| wanted.id.key == id.key);
        let mut gone = Vec::new();
        for (id, entry) in self.entries.iter_mut().filter(|(id, _)| !stays(id)) {
            entry.superseded = edited(id);
            if !entry.superseded || !entry.may_be_registered() {
                gone.push(*id);
            }
        }
        for id in gone {
            self.say_farewell(id, Farewell::Leave, now);
        }
        for id in wanted.iter().map(|wanted| wanted.id) {
            self.retire_former(id, now);
        }
    }

    /// Everything that may be registered is deregistered, within the budget and for good.
    pub(crate) fn drain(&mut self, now: Timestamp) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let ids: Vec<_> = self.entries.keys().copied().collect();
        for id in ids {
            self.say_farewell(id, Farewell::Leave, now);
        }
        for entry in self.entries.values_mut() {
            entry.farewell_ends = now + self.budget;
            entry.farewell_pauses = Backoff::new(DRAIN_PAUSES.0, DRAIN_PAUSES.1);
        }
    }

    /// How long a deregistration may take that begins now: while draining what is left of the budget, and a moment in any
    /// case.
    pub(crate) fn time_to_leave(&self, id: RegistrationId, now: Timestamp) -> Duration {
        let entry = self.entries.get(&id).filter(|_| self.draining);
        entry.map_or(self.budget, |entry| entry.farewell_ends.since(now).max(GRACE).min(self.budget))
    }

    /// The registrations whose workers are to be started now. Each is to be [started](Self::started).
    pub(crate) fn to_start(&self, now: Timestamp) -> Vec<RegistrationId> {
        let due = self.entries.iter().filter(|(_, entry)| !entry.started && entry.due <= now);
        due.map(|(id, _)| *id).collect()
    }

    /// Whether the registration waits for its worker.
    pub(crate) fn is_to_start(&self, id: RegistrationId) -> bool {
        self.entries.get(&id).is_some_and(|entry| !entry.started)
    }

    /// The registration's worker has been started, or could not be. What is to be told of it.
    pub(crate) fn started(
        &mut self,
        id: RegistrationId,
        outcome: Result<(), ProvisioningError>,
        now: Timestamp,
    ) -> Option<Notice> {
        let entry = self.entries.get_mut(&id)?;
        let Err(error) = outcome else {
            entry.started = true;
            return None;
        };
        entry.due = now + self.jitter.scale(PAUSE, 0.5);
        self.last_error = Some(error.clone());
        (!std::mem::replace(&mut entry.failing, true)).then_some(Notice::Failing(error))
    }

    /// What to do for that registration now. A step that is handed out is under way until it is
    /// [answered](Self::answered).
    pub(crate) fn step(&mut self, id: RegistrationId, now: Timestamp) -> Step {
        let Some(entry) = self.entries.get(&id) else { return Step::End };
        debug_assert!(entry.started && entry.working.is_none(), "one step at a time, by the worker");
        let others = || self.of_the_same_place(id);
        // The place is another's by now, or another is left to deregister it: of those that go, whoever surely holds the
        // node, and the newest of them.
        let is_anothers = |(other, held): (&RegistrationId, &Entry)| {
            held.may_hold_already() && (held.farewell.is_none() || held.rank(*other) > entry.rank(id))
        };
        let step = match entry.next(now) {
            Step::Leave | Step::Retire if others().any(is_anothers) => Step::End,
            // What is under way there could undo it.
            Step::Leave | Step::Retire if others().any(|(_, other)| other.is_asking()) => Step::Rest(now + GRACE),
            Step::Join | Step::Renew if others().any(|(_, other)| other.is_letting_go()) => Step::Rest(now + GRACE),
            step => step,
        };
        let Some(entry) = self.entries.get_mut(&id) else { return Step::End };
        match step {
            Step::Rest(_) => return step,
            Step::End => {
                self.entries.remove(&id);
                return step;
            }
            _ => entry.working = Some((step, entry.state)),
        }
        if entry.state == State::Absent {
            entry.state = State::Doubtful { renews: false };
        }
        if step == Step::Join {
            entry.outdated = false;
        }
        entry.began = now;
        step
    }

    /// What became of the step that was handed out last. What is to be told of it.
    pub(crate) fn answered(&mut self, id: RegistrationId, outcome: Outcome, now: Timestamp) -> Option<Notice> {
        let entry = self.entries.get_mut(&id)?;
        let (step, before) = entry.working.take()?;
        entry.broken_off_at = None;
        let notice = match (step, outcome) {
            (Step::Leave | Step::Retire, Outcome::Done(_)) => {
                entry.state = State::Gone;
                self.left_behind.retain(|(left, _)| *left != id);
                std::mem::take(&mut entry.failing).then_some(Notice::Left)
            }
            (_, Outcome::Done(interval)) => {
                entry.joined(interval, now);
                std::mem::take(&mut entry.failing).then_some(Notice::Recovered)
            }
            (Step::Leave | Step::Retire, Outcome::Failed(error, _)) => {
                let first = entry.could_not_leave((step, error.code()), self.draining, &mut self.jitter, now);
                if step == Step::Leave {
                    self.left_behind.retain(|(left, _)| *left != id);
                    if self.left_behind.len() == LEFT_BEHIND {
                        self.left_behind.remove(0);
                    }
                    self.left_behind.push((id, error));
                    None
                } else {
                    first.then_some(Notice::Failing(error))
                }
            }
            (_, Outcome::Failed(error, interval)) => {
                entry.failed((step, before), &error, interval, &mut self.jitter, now);
                if entry.farewell.is_some() {
                    // It was broken off.
                    None
                } else {
                    self.last_error = Some(error.clone());
                    (!std::mem::replace(&mut entry.failing, true)).then_some(Notice::Failing(error))
                }
            }
        };
        if entry.state == State::Joined {
            self.joined = true;
            self.retire_former(id, now);
        }
        notice
    }

    /// The provider asks for a renewal before the interval is over.
    pub(crate) fn asked(&mut self, id: RegistrationId, now: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.state == State::Joined) {
            entry.due = entry.due.min(now.max(entry.began + entry.forced));
            entry.hurried = true;
        }
    }

    /// The node is described anew: whoever holds it, or is asking for it, registers it once more, at once.
    pub(crate) fn described(&mut self, now: Timestamp) {
        for entry in self.entries.values_mut().filter(|entry| entry.farewell.is_none() && entry.may_be_registered()) {
            entry.outdated = true;
            if entry.working.is_none() && entry.state == State::Joined {
                entry.due = entry.due.min(now.max(entry.began + entry.forced));
            }
        }
    }

    /// Those whose requests have taken too long and are to be broken off. Each is given once.
    pub(crate) fn take_overdue(&mut self, now: Timestamp) -> Vec<RegistrationId> {
        let mut due = Vec::new();
        for (id, entry) in &mut self.entries {
            if entry.broken_off_at.is_some_and(|at| at <= now) {
                entry.broken_off_at = None;
                due.push(*id);
            }
        }
        due
    }

    /// When the next worker is to be started or the next request to be broken off.
    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        let start = |entry: &Entry| (!entry.started).then_some(entry.due);
        self.entries.values().flat_map(|entry| [start(entry), entry.broken_off_at]).flatten().min()
    }

    /// Whether it drains, and nothing is left to be done.
    pub(crate) fn is_over(&self) -> bool {
        self.draining && self.entries.is_empty()
    }

    /// Those that are to end.
    pub(crate) fn ending(&self) -> Vec<RegistrationId> {
        let ending = self.entries.iter().filter(|(_, entry)| entry.farewell.is_some());
        ending.map(|(id, _)| *id).collect()
    }

    /// Those among them with which the node goes.
    pub(crate) fn leaving(&self) -> Vec<RegistrationId> {
        let leaving = self.entries.iter().filter(|(_, entry)| entry.farewell == Some(Farewell::Leave));
        leaving.map(|(id, _)| *id).collect()
    }

    /// Its worker is gone.
    pub(crate) fn forget(&mut self, id: RegistrationId) {
        self.entries.remove(&id);
    }

    /// Whether any registration has ever succeeded.
    pub(crate) fn has_joined(&self) -> bool {
        self.joined
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Why the last attempt failed.
    pub(crate) fn last_error(&self) -> Option<&ProvisioningError> {
        self.last_error.as_ref()
    }

    /// Whether it is known of all of these what became of them: the node has been deregistered, or could not be.
    pub(crate) fn are_through(&self, ids: &[RegistrationId]) -> bool {
        let has_failed = |id: &RegistrationId| self.left_behind.iter().any(|(left, _)| left == id);
        ids.iter().all(|id| !self.entries.contains_key(id) || (!self.draining && has_failed(id)))
    }

    /// Why these could not be deregistered, if they could not. Told once.
    pub(crate) fn take_left_behind(&mut self, ids: &[RegistrationId]) -> Option<ProvisioningError> {
        let position = self.left_behind.iter().position(|(id, _)| ids.contains(id))?;
        let (_, error) = self.left_behind.remove(position);
        self.left_behind.retain(|(id, _)| !ids.contains(id));
        Some(error)
    }

    /// Where the definition's registration holds the node, the former ones are not needed; else those beyond count are not.
    fn retire_former(&mut self, id: RegistrationId, now: Timestamp) {
        let Some(current) = self.entries.get(&id) else { return };
        let holds = current.state == State::Joined && current.farewell.is_none();
        let former: Vec<_> = self.entries.range(..id).filter(|(other, _)| other.key == id.key).collect();
        let mut kept: Vec<_> = former.iter().filter(|(_, entry)| entry.farewell.is_none()).copied().collect();
        // Whoever surely holds the node is kept longest.
        kept.sort_by_key(|(_, entry)| entry.state == State::Joined);
        let surplus = kept.len().saturating_sub(FORMER);
        let stay: Vec<_> = match holds {
            true => vec![(&id, current)],
            false => kept.split_off(surplus),
        };
        let gone = if holds { former } else { kept };
        // Those of another kind know nothing of each other.
        let farewell = |(id, entry): (&RegistrationId, &Entry)| {
            let succeeded = stay.iter().any(|(later, other)| *later > id && other.kind == entry.kind);
            if succeeded { Farewell::Retire } else { Farewell::Leave }
        };
        let farewells: Vec<_> = gone.into_iter().map(|(id, entry)| (*id, farewell((id, entry)))).collect();
        for (id, farewell) in farewells {
            self.say_farewell(id, farewell, now);
        }
    }

    /// The other registrations of the same place.
    fn of_the_same_place(&self, id: RegistrationId) -> impl Iterator<Item = (&RegistrationId, &Entry)> {
        let site = self.entries.get(&id).and_then(|entry| entry.site.as_ref());
        let same = move |entry: &Entry| site.is_some() && entry.site.as_ref() == site;
        self.entries.iter().filter(move |(other, entry)| **other != id && same(entry))
    }

    fn say_farewell(&mut self, id: RegistrationId, farewell: Farewell, now: Timestamp) {
        let Some(entry) = self.entries.get(&id) else { return };
        if !entry.started {
            self.entries.remove(&id);
            return;
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            match entry.farewell {
                // Nothing is left that the node could be retired in favour of.
                Some(Farewell::Retire) if farewell == Farewell::Leave => entry.farewell = Some(farewell),
                Some(_) => {}
                None => {
                    entry.farewell = Some(farewell);
                    entry.farewell_ends = now + FAREWELL;
                    entry.broken_off_at = entry.working.map(|_| now + GRACE);
                }
            }
            // Also where an earlier attempt has failed.
            entry.leaves_at = now;
        }
    }
}

impl Entry {
    fn next(&self, now: Timestamp) -> Step {
        match self.farewell {
            Some(_) if !self.may_be_registered() => return Step::End,
            Some(_) if now < self.leaves_at => return Step::Rest(self.leaves_at),
            Some(Farewell::Leave) => return Step::Leave,
            Some(Farewell::Retire) => return Step::Retire,
            None => {}
        }
        if now < self.due {
            return Step::Rest(self.due);
        }
        match self.state {
            State::Doubtful { renews: false } if self.superseded => Step::Rest(now + FAREWELL),
            State::Joined | State::Doubtful { renews: true } if self.outdated => Step::Join,
            State::Joined | State::Doubtful { renews: true } => Step::Renew,
            State::Absent | State::Doubtful { renews: false } | State::Lost => Step::Join,
            State::Gone => Step::End,
        }
    }

    /// A request is under way by which the node may come to be registered.
    fn is_asking(&self) -> bool {
        matches!(self.working, Some((Step::Join | Step::Renew, _)))
    }

    /// A deregistration is under way.
    fn is_letting_go(&self) -> bool {
        matches!(self.working, Some((Step::Leave | Step::Retire, _)))
    }

    fn may_be_registered(&self) -> bool {
        !matches!(self.state, State::Absent | State::Gone)
    }

    /// The same whatever becomes of the request under way: of a first one, nothing may have been sent.
    fn may_hold_already(&self) -> bool {
        !matches!(self.settled(), State::Absent | State::Gone)
    }

    /// What the backend knew before the request under way.
    fn settled(&self) -> State {
        match self.working {
            Some((Step::Join | Step::Renew, before)) => before,
            _ => self.state,
        }
    }

    /// Of several that go and hold one place, the greatest deregisters the node.
    fn rank(&self, id: RegistrationId) -> (bool, RegistrationId) {
        (self.settled() == State::Joined, id)
    }

    /// The node is registered, and wants to be left alone for that long.
    fn joined(&mut self, interval: Duration, now: Timestamp) {
        self.state = State::Joined;
        // One that keeps asking for no pause at all gets longer and longer ones.
        let presses = std::mem::take(&mut self.hurried) || interval < SHORTEST;
        self.forced = if presses { self.forced_longer() } else { SHORTEST };
        // Whoever asks early does not wait longer for what is due anyway.
        self.due = now + if self.outdated || interval < SHORTEST { self.forced } else { interval };
    }

    fn forced_longer(&self) -> Duration {
        (self.forced * 2).min(LONGEST_FORCED)
    }

    /// The node could not be deregistered. Whether that is news.
    fn could_not_leave(
        &mut self,
        (step, code): (Step, ErrorCode),
        draining: bool,
        jitter: &mut Jitter,
        now: Timestamp,
    ) -> bool {
        let pause = self.farewell_pauses.pause(jitter);
        // What could not be retired has not been asked to leave yet.
        let pause = if draining && step == Step::Retire { Duration::ZERO } else { pause };
        let is_vain = draining && step == Step::Leave && !code.is_outage();
        // Whoever waits is told as soon as nothing more can come of it.
        let is_late = if draining { now + pause >= self.farewell_ends } else { now >= self.farewell_ends };
        if is_vain || is_late {
            self.state = State::Gone;
        } else {
            self.state = State::Doubtful { renews: false };
            self.leaves_at = now + pause;
        }
        !std::mem::replace(&mut self.failing, true)
    }

    fn failed(
        &mut self,
        (step, before): (Step, State),
        error: &ProvisioningError,
        interval: Duration,
        jitter: &mut Jitter,
        now: Timestamp,
    ) {
        let pause = jitter.scale(PAUSE, 0.5);
        match step {
            // It was registered all the while, and its former description goes on to be kept alive.
            Step::Join if matches!(before, State::Joined | State::Doubtful { renews: true }) => {
                self.state = State::Doubtful { renews: true };
                self.outdated = true;
                self.forced = self.forced_longer();
                self.due = now + interval.max(self.forced).min(pause);
            }
            Step::Join => {
                // What an attempt before it may have registered may still be there.
                if proves_absence(error.code()) {
                    self.state = before;
                }
                self.due = now + pause;
            }
            Step::Renew if error.code() == ErrorCode::RegistrationFailed => {
                self.state = State::Lost;
                self.due = now;
            }
            Step::Renew => {
                self.state = State::Doubtful { renews: true };
                self.forced = self.forced_longer();
                self.due = now + interval.max(self.forced).min(pause);
            }
            Step::Leave | Step::Retire | Step::Rest(_) | Step::End => {}
        }
    }
}

/// Whether an error of that code says that nothing was sent.
fn proves_absence(code: ErrorCode) -> bool {
    let local = [ErrorCode::TokenUnreadable, ErrorCode::CertificateUnreadable, ErrorCode::Unsupported];
    code.category() == ErrorCategory::Validation || local.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn id(key: SlotKey, edition: u64) -> RegistrationId {
        RegistrationId { key, edition }
    }

    fn wanted(key: SlotKey, edition: u64, site: Option<&str>) -> Wanted {
        let site = site.map(|place| RegistrationSite::new(place, "orders"));
        Wanted { id: id(key, edition), kind: ProviderKind::consul(), site }
    }

    fn error(code: ErrorCode) -> Outcome {
        Outcome::Failed(ProvisioningError::new(code, "testing", "refused"), Duration::from_secs(10))
    }

    fn done() -> Outcome {
        Outcome::Done(Duration::from_secs(1))
    }

    /// Exactly these are wanted, and the workers of the new ones are started.
    fn follow(registrar: &mut Registrar, wanted: &[Wanted], now: Timestamp) -> Vec<RegistrationId> {
        registrar.follow(wanted, now);
        let new = registrar.to_start(now);
        for id in &new {
            assert_eq!(registrar.started(*id, Ok(()), now), None);
        }
        new
    }

    /// One registration that has been asked for, at the time 0.
    fn one() -> (Registrar, RegistrationId) {
        let mut registrar = Registrar::new(7, BUDGET);
        let only = id(1, 1);
        assert_eq!(follow(&mut registrar, &[wanted(1, 1, None)], at(0)), [only]);
        (registrar, only)
    }

    /// The same, and it holds the node.
    fn joined() -> (Registrar, RegistrationId) {
        let (mut registrar, only) = one();
        assert_eq!(registrar.step(only, at(0)), Step::Join);
        assert_eq!(registrar.answered(only, done(), at(0)), None);
        (registrar, only)
    }

    #[test]
    fn p1_4_a_registration_is_renewed_when_it_asks_for_it() {
        let (mut registrar, only) = joined();
        assert!(registrar.has_joined());
        assert_eq!(registrar.step(only, at(999)), Step::Rest(at(1000)));
        assert_eq!(registrar.step(only, at(1000)), Step::Renew);
        registrar.answered(only, Outcome::Done(Duration::from_secs(5)), at(1002));
        registrar.asked(only, at(1005));
        assert_eq!(registrar.step(only, at(1005)), Step::Rest(at(1010)), "not sooner than the shortest pause");
        assert_eq!(registrar.step(only, at(1010)), Step::Renew);
        registrar.answered(only, Outcome::Done(Duration::from_secs(5)), at(1010));
        registrar.asked(only, at(1010));
        assert_eq!(registrar.step(only, at(1010)), Step::Rest(at(1030)), "asking again and again does not help");
    }

    #[test]
    fn p1_4_a_node_that_is_described_anew_is_registered_once_more_and_what_fails_goes_on_as_it_was() {
        let (mut registrar, only) = joined();
        registrar.described(at(100));
        assert_eq!(registrar.step(only, at(100)), Step::Join);
        // Again, while that is under way.
        registrar.described(at(101));
        registrar.answered(only, done(), at(105));
        let Step::Rest(until) = registrar.step(only, at(105)) else { panic!("no pause") };
        assert!(until < at(200), "{until:?}");
        assert_eq!(registrar.step(only, until), Step::Join);
        registrar.answered(only, error(ErrorCode::BackendUnavailable), until);
        let Step::Rest(again) = registrar.step(only, until) else { panic!("no pause") };
        assert!(again <= until + PAUSE, "{again:?}");
        assert_eq!(registrar.step(only, again), Step::Join);
        registrar.answered(only, done(), again);
        assert_eq!(registrar.step(only, again + Duration::from_secs(1)), Step::Renew, "it is as it is described");
    }

    #[test]
    fn p1_4_a_description_reaches_whoever_is_being_registered_and_nobody_who_goes() {
        let (mut registrar, only) = one();
        registrar.described(at(0));
        assert_eq!(registrar.step(only, at(0)), Step::Join);
        registrar.described(at(1));
        registrar.answered(only, done(), at(2));
        assert_eq!(registrar.step(only, at(1000)), Step::Join);
        registrar.answered(only, done(), at(1000));
        registrar.drain(at(1001));
        registrar.described(at(1001));
        assert_eq!(registrar.step(only, at(1001)), Step::Leave);
    }

    #[test]
    fn p1_4_a_renewal_that_failed_is_repeated_after_its_pause_whatever_the_provider_asks_for() {
        let (mut registrar, only) = joined();
        assert_eq!(registrar.step(only, at(1000)), Step::Renew);
        registrar.answered(only, error(ErrorCode::BackendUnavailable), at(1000));
        registrar.asked(only, at(1001));
        let Step::Rest(until) = registrar.step(only, at(1500)) else { panic!("no pause") };
        assert!((2000..=3000).contains(&until.since(at(0)).as_millis()), "{until:?}");
        assert_eq!(registrar.step(only, until), Step::Renew);
    }

    #[test]
    fn consul_point_18_a_renewal_that_failed_is_repeated_when_the_registration_wants_it_and_never_in_a_hot_loop() {
        for millis in [100, 166, 250, 500, 900, 5_000] {
            let (mut registrar, only) = joined();
            let (mut now, mut pauses) = (at(1000), Vec::new());
            for _ in 0..12 {
                assert_eq!(registrar.step(only, now), Step::Renew);
                let refused = ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused");
                registrar.answered(only, Outcome::Failed(refused, Duration::from_millis(millis)), now);
                let Step::Rest(until) = registrar.step(only, now) else { panic!("no pause") };
                pauses.push(until.since(now).as_millis());
                now = until;
            }
            let wanted = u128::from(millis);
            if millis > 1000 {
                assert!(pauses.iter().all(|pause| (1000..=2000).contains(pause)), "{pauses:?}");
            } else {
                assert!(pauses[..3].iter().all(|pause| *pause == wanted), "{pauses:?}");
                assert_eq!(pauses[11], 1000, "{pauses:?}");
            }
        }
        let (mut registrar, only) = joined();
        let (mut now, mut pauses) = (at(1000), Vec::new());
        for _ in 0..8 {
            assert_eq!(registrar.step(only, now), Step::Renew);
            let unreadable = ProvisioningError::new(ErrorCode::TokenUnreadable, "testing", "gone");
            registrar.answered(only, Outcome::Failed(unreadable, Duration::ZERO), now);
            let Step::Rest(until) = registrar.step(only, now) else { panic!("no pause") };
            pauses.push(until.since(now).as_millis());
            now = until;
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
        // One that works again begins anew.
        assert_eq!(registrar.step(only, now), Step::Renew);
        registrar.answered(only, done(), now);
        registrar.asked(only, now);
        assert_eq!(registrar.step(only, now), Step::Rest(now + SHORTEST));
    }

    #[test]
    fn consul_point_18_whoever_asks_early_again_and_again_is_still_renewed_when_that_is_due() {
        let (mut registrar, only) = joined();
        let mut now = at(1000);
        for _ in 0..20 {
            assert_eq!(registrar.step(only, now), Step::Renew);
            registrar.answered(only, Outcome::Done(Duration::from_millis(300)), now);
            registrar.asked(only, now);
            let Step::Rest(until) = registrar.step(only, now) else { panic!("no pause") };
            assert!(until.since(now) <= Duration::from_millis(300), "{:?}", until.since(now));
            now = until;
        }
    }

    #[test]
    fn p1_4_what_fails_is_tried_again_within_two_seconds_and_told_once() {
        let (mut registrar, only) = one();
        let mut now = at(0);
        for attempt in 0..20 {
            assert_eq!(registrar.step(only, now), Step::Join);
            let told = registrar.answered(only, error(ErrorCode::BackendUnavailable), now);
            assert_eq!(told.is_some(), attempt == 0);
            let Step::Rest(until) = registrar.step(only, now) else { panic!("no pause") };
            assert!((1000..=2000).contains(&until.since(now).as_millis()));
            now = until;
        }
        assert_eq!(registrar.last_error().map(ProvisioningError::code), Some(ErrorCode::BackendUnavailable));
        assert_eq!(registrar.step(only, now), Step::Join);
        assert_eq!(registrar.answered(only, done(), now), Some(Notice::Recovered));
    }

    #[test]
    fn p1_4_a_renewal_that_fails_is_repeated_and_one_that_says_lost_leads_to_joining_at_once() {
        let (mut registrar, only) = joined();
        assert_eq!(registrar.step(only, at(1000)), Step::Renew);
        registrar.answered(only, error(ErrorCode::Timeout), at(1000));
        assert_eq!(registrar.step(only, at(3000)), Step::Renew);
        registrar.answered(only, error(ErrorCode::RegistrationFailed), at(3000));
        assert_eq!(registrar.step(only, at(3000)), Step::Join);
    }

    #[test]
    fn p3_5_whatever_may_be_registered_is_deregistered_and_what_surely_is_not_is_left_alone() {
        let leaves = |outcomes: &[(Step, ErrorCode)]| {
            let (mut registrar, only) = one();
            let mut now = 0;
            for (step, code) in outcomes {
                now += 2000;
                assert_eq!(registrar.step(only, at(now)), *step);
                registrar.answered(only, if *code == ErrorCode::Stopped { done() } else { error(*code) }, at(now));
            }
            registrar.drain(at(now));
            registrar.step(only, at(now)) == Step::Leave
        };
        const FINE: ErrorCode = ErrorCode::Stopped;
        assert!(!leaves(&[]), "nothing was ever sent");
        assert!(leaves(&[(Step::Join, FINE)]));
        assert!(leaves(&[(Step::Join, ErrorCode::Timeout)]), "the answer was lost");
        assert!(!leaves(&[(Step::Join, ErrorCode::TokenUnreadable)]), "nothing was sent");
        assert!(leaves(&[(Step::Join, ErrorCode::Timeout), (Step::Join, ErrorCode::TokenUnreadable)]));
        assert!(leaves(&[(Step::Join, FINE), (Step::Renew, ErrorCode::AccessDenied)]), "a renewal that was refused");
        assert!(leaves(&[(Step::Join, FINE), (Step::Renew, ErrorCode::RegistrationFailed)]));
        let lost = [(Step::Join, FINE), (Step::Renew, ErrorCode::RegistrationFailed), (Step::Join, ErrorCode::Timeout)];
        assert!(leaves(&lost));
    }

    #[test]
    fn p3_5_what_is_under_way_when_it_is_to_end_is_broken_off_after_a_moment_and_then_deregistered() {
        let (mut registrar, only) = one();
        assert_eq!(registrar.step(only, at(0)), Step::Join);
        assert_eq!((registrar.next_timeout(), registrar.take_overdue(at(5))), (None, vec![]));
        registrar.drain(at(5));
        assert_eq!(registrar.take_overdue(at(254)), []);
        assert_eq!(registrar.next_timeout(), Some(at(255)));
        assert_eq!(registrar.take_overdue(at(255)), [only]);
        assert_eq!((registrar.next_timeout(), registrar.take_overdue(at(300))), (None, vec![]), "once");
        let broken_off = registrar.answered(only, error(ErrorCode::Stopped), at(260));
        assert_eq!(broken_off, None, "that it was broken off is no news");
        assert_eq!(registrar.step(only, at(260)), Step::Leave);
        assert_eq!((registrar.take_overdue(at(9_999)), registrar.are_through(&[only])), (vec![], false));
        registrar.answered(only, error(ErrorCode::AccessDenied), at(270));
        assert_eq!(registrar.step(only, at(270)), Step::End, "what is refused would be refused again");
        assert!(registrar.are_through(&[only]) && registrar.is_over());
        assert_eq!(registrar.take_left_behind(&[only]).map(|error| error.code()), Some(ErrorCode::AccessDenied));
        assert_eq!(registrar.take_left_behind(&[only]), None);
        assert!(follow(&mut registrar, &[wanted(2, 1, None)], at(280)).is_empty(), "draining is for good");
    }

    #[test]
    fn p3_5_an_answer_that_comes_in_time_is_not_broken_off() {
        let (mut registrar, only) = one();
        registrar.step(only, at(0));
        registrar.drain(at(5));
        registrar.answered(only, done(), at(100));
        assert_eq!((registrar.take_overdue(at(9_999)), registrar.step(only, at(100))), (vec![], Step::Leave));
        assert_eq!(registrar.answered(only, done(), at(101)), None);
        assert_eq!((registrar.step(only, at(101)), registrar.is_over()), (Step::End, true));
    }

    #[test]
    fn p5_4_where_a_removed_provider_cannot_be_left_it_is_tried_again_for_five_minutes() {
        let (mut registrar, only) = joined();
        follow(&mut registrar, &[], at(500));
        let (mut now, mut pauses) = (at(500), Vec::new());
        loop {
            assert_eq!(registrar.step(only, now), Step::Leave);
            registrar.answered(only, error(ErrorCode::Timeout), now);
            assert!(registrar.are_through(&[only]), "whoever waits is told of the first failure");
            match registrar.step(only, now) {
                Step::Rest(until) => {
                    pauses.push(until.since(now).as_millis());
                    now = until;
                }
                step => break assert_eq!(step, Step::End),
            }
        }
        assert!(now >= at(300_500) && now < at(331_000), "{now:?}");
        for (pause, most) in pauses.iter().zip([2_000, 4_000, 8_000, 16_000, 30_000, 30_000]) {
            assert!((most / 2..=most).contains(pause), "{pauses:?}");
        }

        let (mut registrar, only) = joined();
        follow(&mut registrar, &[], at(500));
        registrar.step(only, at(500));
        registrar.answered(only, error(ErrorCode::Timeout), at(500));
        registrar.drain(at(600));
        assert_eq!(registrar.step(only, at(600)), Step::Leave, "at once");
        assert_eq!(registrar.answered(only, done(), at(601)), Some(Notice::Left));
        assert_eq!(registrar.take_left_behind(&[only]), None, "nothing is left behind after all");
    }

    #[test]
    fn p3_5_while_draining_a_backend_that_is_away_is_asked_again_until_the_budget_is_spent() {
        for seed in 0..500 {
            let mut registrar = Registrar::new(seed, BUDGET);
            let only = id(1, 1);
            follow(&mut registrar, &[wanted(1, 1, None)], at(0));
            registrar.step(only, at(0));
            registrar.answered(only, done(), at(0));
            let (begun, mut dice) = (at(500), Jitter::new(seed));
            registrar.drain(begun);
            let (mut now, mut tries, mut pauses) = (begun, 0, Vec::new());
            loop {
                assert_eq!(registrar.step(only, now), Step::Leave, "seed {seed}");
                let left = registrar.time_to_leave(only, now);
                assert_eq!(left, (begun + BUDGET).since(now).max(GRACE).min(BUDGET), "seed {seed}");
                tries += 1;
                now = now + dice.scale(Duration::from_millis(40), 0.0);
                let code = if dice.next() % 2 == 0 { ErrorCode::BackendUnavailable } else { ErrorCode::Timeout };
                registrar.answered(only, error(code), now);
                registrar.drain(now);
                match registrar.step(only, now) {
                    Step::Rest(until) => {
                        assert!(!registrar.are_through(&[only]) && until < begun + BUDGET, "seed {seed}");
                        pauses.push(until.since(now).as_millis());
                        now = until;
                    }
                    step => {
                        assert_eq!(step, Step::End);
                        break;
                    }
                }
            }
            assert!((begun + BUDGET).since(now) <= Duration::from_millis(400) && tries >= 5, "seed {seed}: {pauses:?}");
            assert!(
                pauses[0] <= 50 && pauses.iter().all(|pause| (25..=400).contains(pause)),
                "seed {seed}: {pauses:?}"
            );
            assert!(registrar.is_over() && registrar.take_left_behind(&[only]).is_some(), "seed {seed}");
        }
    }

    #[test]
    fn p3_5_while_draining_a_backend_that_comes_back_is_left_after_all_and_one_that_hangs_takes_the_whole_budget() {
        let (mut registrar, only) = joined();
        registrar.drain(at(500));
        assert_eq!(registrar.step(only, at(500)), Step::Leave);
        registrar.answered(only, error(ErrorCode::BackendUnavailable), at(501));
        let Step::Rest(until) = registrar.step(only, at(501)) else { panic!("no pause") };
        assert_eq!(registrar.step(only, until), Step::Leave);
        assert_eq!(registrar.answered(only, done(), until), Some(Notice::Left));
        assert_eq!((registrar.step(only, until), registrar.take_left_behind(&[only])), (Step::End, None));

        let (mut registrar, only) = joined();
        registrar.drain(at(500));
        assert_eq!((registrar.step(only, at(500)), registrar.time_to_leave(only, at(500))), (Step::Leave, BUDGET));
        registrar.answered(only, error(ErrorCode::Timeout), at(2500));
        assert_eq!(registrar.step(only, at(2500)), Step::End);

        // Whoever could be asked late only is asked for a moment at least; of a removed one it is the whole time.
        let (mut registrar, only) = joined();
        follow(&mut registrar, &[], at(500));
        assert_eq!(registrar.time_to_leave(only, at(500_000)), BUDGET);
        registrar.drain(at(500));
        assert_eq!(registrar.time_to_leave(only, at(9_000)), GRACE);
        assert_eq!(registrar.step(only, at(9_000)), Step::Leave);
    }

    #[test]
    fn p3_5_draining_tries_again_what_could_not_be_retired() {
        let (mut registrar, old) = joined();
        let new = id(1, 2);
        follow(&mut registrar, &[wanted(1, 2, None)], at(100));
        registrar.step(new, at(100));
        registrar.answered(new, done(), at(100));
        assert_eq!(registrar.step(old, at(100)), Step::Retire);
        registrar.drain(at(150));
        assert!(registrar.answered(old, error(ErrorCode::Timeout), at(200)).is_some());
        assert_eq!(registrar.step(old, at(200)), Step::Leave);
    }

    #[test]
    fn p1_4_a_worker_that_cannot_be_started_is_tried_again_and_owes_the_backend_nothing() {
        let mut registrar = Registrar::new(7, BUDGET);
        let only = id(1, 1);
        let refused = || ProvisioningError::new(ErrorCode::ThreadRefused, "testing", "too many");
        registrar.follow(&[wanted(1, 1, None)], at(0));
        assert_eq!((registrar.to_start(at(0)), registrar.next_timeout()), (vec![only], Some(at(0))));
        assert!(registrar.started(only, Err(refused()), at(0)).is_some());
        let next = registrar.next_timeout().unwrap();
        assert!(next >= at(1000) && next <= at(2000) && registrar.to_start(at(999)).is_empty());
        assert!(registrar.started(only, Err(refused()), next).is_none(), "told once");
        assert_eq!(registrar.last_error().map(ProvisioningError::code), Some(ErrorCode::ThreadRefused));
        let next = registrar.next_timeout().unwrap();
        assert_eq!((registrar.to_start(next), registrar.started(only, Ok(()), next)), (vec![only], None));
        assert_eq!((registrar.step(only, next), registrar.to_start(at(9_999))), (Step::Join, vec![]));
        assert_eq!(registrar.answered(only, done(), next), Some(Notice::Recovered));

        for drains in [false, true] {
            let mut registrar = Registrar::new(7, BUDGET);
            registrar.follow(&[wanted(1, 1, None)], at(0));
            if drains {
                registrar.drain(at(1))
            } else {
                registrar.follow(&[], at(1))
            }
            assert!(registrar.is_empty() && registrar.is_over() == drains);
        }
    }

    #[test]
    fn p5_4_what_comes_to_a_place_waits_for_what_leaves_it_and_the_other_way_round() {
        let place = |key, edition| wanted(key, edition, Some("agent"));
        // Removed, its deregistration hangs, and registered again.
        let mut registrar = Registrar::new(7, BUDGET);
        follow(&mut registrar, &[place(1, 1)], at(0));
        registrar.step(id(1, 1), at(0));
        registrar.answered(id(1, 1), done(), at(0));
        follow(&mut registrar, &[], at(1));
        assert_eq!(registrar.step(id(1, 1), at(1)), Step::Leave);
        follow(&mut registrar, &[place(2, 2)], at(2));
        assert_eq!(registrar.step(id(2, 2), at(2)), Step::Rest(at(252)), "it would be undone");
        registrar.answered(id(1, 1), error(ErrorCode::Timeout), at(2000));
        assert_eq!(registrar.step(id(2, 2), at(2000)), Step::Join);
        assert_eq!(registrar.step(id(1, 1), at(9000)), Step::Rest(at(9250)), "nobody knows yet whether it comes");
        registrar.answered(id(2, 2), done(), at(9100));
        assert_eq!(registrar.step(id(1, 1), at(9250)), Step::End, "the place is another's by now");

        // A request that is under way for the place when all is left.
        let mut registrar = Registrar::new(7, BUDGET);
        follow(&mut registrar, &[place(1, 1), place(2, 2)], at(0));
        registrar.step(id(1, 1), at(0));
        registrar.answered(id(1, 1), done(), at(0));
        registrar.step(id(2, 2), at(0));
        registrar.drain(at(1));
        assert_eq!(registrar.step(id(1, 1), at(1)), Step::Rest(at(251)));
        registrar.answered(id(2, 2), error(ErrorCode::Stopped), at(251));
        assert_eq!((registrar.step(id(2, 2), at(251)), registrar.step(id(1, 1), at(251))), (Step::End, Step::Leave));
    }

    #[test]
    fn p3_5_of_two_that_go_the_one_that_was_never_sent_leaves_the_place_to_the_other() {
        // An edited definition of the same place, whose token cannot be read, and the former one, whose renewals fail.
        let place = |edition| wanted(1, edition, Some("agent"));
        let (former, edited) = (id(1, 1), id(1, 2));
        let mut registrar = Registrar::new(7, BUDGET);
        follow(&mut registrar, &[place(1)], at(0));
        registrar.step(former, at(0));
        registrar.answered(former, done(), at(0));
        assert_eq!(registrar.step(former, at(1000)), Step::Renew);
        registrar.answered(former, error(ErrorCode::TokenUnreadable), at(1000));
        follow(&mut registrar, &[place(2)], at(3000));
        assert_eq!((registrar.step(former, at(3000)), registrar.step(edited, at(3000))), (Step::Renew, Step::Join));
        registrar.drain(at(3001));
        registrar.answered(edited, error(ErrorCode::TokenUnreadable), at(3010));
        assert_eq!(registrar.step(edited, at(3010)), Step::End);
        registrar.answered(former, error(ErrorCode::TokenUnreadable), at(3020));
        assert_eq!(registrar.step(former, at(3020)), Step::Leave);
    }

    #[test]
    fn p5_4_an_edited_definition_registers_before_the_former_one_is_retired() {
        let (mut registrar, old) = joined();
        let new = id(1, 2);
        assert_eq!(follow(&mut registrar, &[wanted(1, 2, None)], at(100)), [new]);
        assert_eq!(registrar.step(new, at(100)), Step::Join);
        assert_eq!(registrar.step(old, at(1000)), Step::Renew, "it is kept alive");
        registrar.answered(old, done(), at(1000));
        registrar.answered(new, error(ErrorCode::Timeout), at(1000));
        assert_eq!(registrar.step(old, at(1001)), Step::Rest(at(2000)), "also while the new one fails");
        assert_eq!(registrar.step(new, at(3000)), Step::Join);
        registrar.answered(new, done(), at(3000));
        assert_eq!(registrar.step(old, at(3000)), Step::Retire);
        registrar.answered(old, Outcome::Done(Duration::ZERO), at(3001));
        assert_eq!((registrar.step(old, at(3001)), registrar.step(new, at(3001))), (Step::End, Step::Rest(at(4000))));
    }

    #[test]
    fn p5_4_where_the_edited_definition_is_of_another_kind_the_former_one_leaves() {
        let (mut registrar, old) = joined();
        let new = Wanted { kind: ProviderKind::kubernetes(), ..wanted(1, 2, None) };
        follow(&mut registrar, &[new], at(100));
        registrar.step(id(1, 2), at(100));
        registrar.answered(id(1, 2), done(), at(100));
        assert_eq!(registrar.step(old, at(100)), Step::Leave);
    }

    #[test]
    fn p5_4_an_outdated_definition_that_never_registered_the_node_is_not_tried_again() {
        // Nothing was sent: no worker, or only a token that could not be read.
        for starts in [false, true] {
            let mut registrar = Registrar::new(7, BUDGET);
            registrar.follow(&[wanted(1, 1, None)], at(0));
            if starts {
                registrar.started(id(1, 1), Ok(()), at(0));
                registrar.step(id(1, 1), at(0));
                registrar.answered(id(1, 1), error(ErrorCode::TokenUnreadable), at(0));
            }
            follow(&mut registrar, &[wanted(1, 2, None)], at(1));
            assert_eq!(registrar.step(id(1, 1), at(5000)), Step::End);
            assert_eq!(registrar.step(id(1, 2), at(5000)), Step::Join);
        }
        // The answer is missing: it may be registered, and is retired in time.
        let (mut registrar, old) = one();
        registrar.step(old, at(0));
        registrar.answered(old, error(ErrorCode::Timeout), at(0));
        follow(&mut registrar, &[wanted(1, 2, None)], at(1));
        assert!(matches!(registrar.step(old, at(5000)), Step::Rest(_)));
        registrar.step(id(1, 2), at(5000));
        registrar.answered(id(1, 2), done(), at(5001));
        assert_eq!(registrar.step(old, at(5001)), Step::Retire);
    }

    #[test]
    fn p5_4_of_many_edits_that_never_took_effect_the_oldest_registrations_do_not_pile_up() {
        let (mut registrar, _) = joined();
        for edition in 2..20 {
            follow(&mut registrar, &[wanted(1, edition, None)], at(edition));
            assert_eq!(registrar.step(id(1, edition), at(edition)), Step::Join);
            registrar.answered(id(1, edition), error(ErrorCode::Timeout), at(edition));
        }
        let ending = registrar.ending();
        assert_eq!(ending.len(), 14, "19 definitions, the last one and four former ones are kept");
        assert!(!ending.contains(&id(1, 1)), "it holds the node, as far as anybody knows");
        for id in ending {
            assert_eq!(registrar.step(id, at(30)), Step::Retire);
        }
        // One that is on its way out already is none that is kept alive.
        follow(&mut registrar, &[wanted(1, 20, None)], at(31));
        assert_eq!(registrar.ending().len(), 15);
    }

    #[test]
    fn p5_4_whose_kind_none_of_those_has_that_are_kept_alive_leaves() {
        let mut registrar = Registrar::new(7, BUDGET);
        for edition in 1..=6 {
            let mut wanted = wanted(1, edition, None);
            if edition != 1 {
                wanted.kind = ProviderKind::kubernetes();
            }
            follow(&mut registrar, &[wanted], at(edition));
            assert_eq!(registrar.step(id(1, edition), at(edition)), Step::Join);
            registrar.answered(id(1, edition), error(ErrorCode::Timeout), at(edition));
        }
        assert_eq!(registrar.step(id(1, 1), at(9)), Step::Leave);
        // And the other way round: the newest definition alone is of another kind.
        let mut registrar = Registrar::new(7, BUDGET);
        for edition in 1..=6 {
            let mut wanted = wanted(1, edition, None);
            if edition == 6 {
                wanted.kind = ProviderKind::kubernetes();
            }
            follow(&mut registrar, &[wanted], at(edition));
            assert_eq!(registrar.step(id(1, edition), at(edition)), Step::Join);
            registrar.answered(id(1, edition), error(ErrorCode::Timeout), at(edition));
        }
        assert_eq!(registrar.step(id(1, 1), at(9)), Step::Retire);
    }

    #[test]
    fn p5_4_registrations_of_one_site_are_deregistered_by_the_last_of_them() {
        let mut registrar = Registrar::new(7, BUDGET);
        let (first, second) = (id(1, 1), id(2, 1));
        let both = [wanted(1, 1, Some("agent")), wanted(2, 1, Some("agent"))];
        follow(&mut registrar, &both, at(0));
        for id in [first, second] {
            assert_eq!(registrar.step(id, at(0)), Step::Join);
            registrar.answered(id, done(), at(0));
        }
        follow(&mut registrar, &both[1..], at(1));
        assert_eq!(registrar.step(first, at(1)), Step::End, "the other one stands");
        follow(&mut registrar, &both, at(2));
        assert_eq!(registrar.step(first, at(2)), Step::Join);
        registrar.drain(at(2));
        registrar.answered(first, error(ErrorCode::Stopped), at(3));
        assert_eq!((registrar.step(first, at(3)), registrar.step(second, at(3))), (Step::End, Step::Leave));

        // The edited definition of one site takes the entry over.
        let mut registrar = Registrar::new(7, BUDGET);
        follow(&mut registrar, &both[..1], at(0));
        registrar.step(first, at(0));
        registrar.answered(first, done(), at(0));
        follow(&mut registrar, &[wanted(1, 2, Some("agent"))], at(1));
        registrar.step(id(1, 2), at(1));
        registrar.answered(id(1, 2), done(), at(1));
        assert_eq!(registrar.step(first, at(1)), Step::End);
        follow(&mut registrar, &[wanted(3, 1, Some("other agent"))], at(2));
        assert_eq!(registrar.step(id(1, 2), at(2)), Step::Leave);
    }

    #[test]
    fn p1_4_a_registration_that_asks_for_no_pause_at_all_gets_longer_and_longer_ones() {
        let (mut registrar, only) = one();
        registrar.step(only, at(0));
        registrar.answered(only, Outcome::Done(Duration::ZERO), at(0));
        let (mut now, mut pauses) = (at(0), Vec::new());
        for _ in 0..10 {
            let Step::Rest(until) = registrar.step(only, now) else { panic!("no pause") };
            pauses.push(until.since(now).as_millis());
            now = until;
            assert_eq!(registrar.step(only, now), Step::Renew);
            registrar.answered(only, Outcome::Done(Duration::ZERO), now);
            registrar.asked(only, now);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000]);
    }
}
