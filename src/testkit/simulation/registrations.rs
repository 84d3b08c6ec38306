//! Member mode, played: the registrar is the service's own; the workers that carry its steps out, and the backends that
//! they ask, are the simulation's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::dice::Dice;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderKind;
use crate::provider::RegistrationSite;
use crate::service::registrar::{Outcome, Registrar, RegistrationId, Step, Wanted};

/// For how long a backend holds a registration that is not renewed.
const TIME_TO_LIVE: Duration = Duration::from_secs(10);
/// How often a registration wants to be renewed.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long a request may take, and a deregistration.
const REQUEST: Duration = Duration::from_secs(5);
pub(super) const BUDGET: Duration = Duration::from_secs(2);

/// A place at a backend where the node is registered: by an agent of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// The cluster: whoever watches it sees what any of its agents has registered.
    pub(super) backend: usize,
    pub(super) agent: u64,
}

impl Place {
    /// Whether providers of the two places are of one kind: agents come in pairs.
    pub(super) fn is_same_kind(self, other: Place) -> bool {
        self.kind() == other.kind()
    }

    fn kind(self) -> ProviderKind {
        if (self.agent / 2).is_multiple_of(2) { ProviderKind::consul() } else { ProviderKind::kubernetes() }
    }

    fn site(self) -> RegistrationSite {
        RegistrationSite::new(format!("backend {} agent {}", self.backend, self.agent), "me")
    }
}

/// What is wrong with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendMood {
    Well,
    /// Requests are refused.
    Refusing,
    /// Requests are carried out, and their answers are lost.
    Losing,
    /// Requests are never answered, and seldom carried out.
    Hanging,
    /// Nothing can be sent: a token is missing.
    Unready,
}

impl BackendMood {
    const FAULTS: [BackendMood; 4] =
        [BackendMood::Refusing, BackendMood::Losing, BackendMood::Hanging, BackendMood::Unready];
}

/// Something that happens to a registration.
#[derive(Clone, Debug)]
pub(super) enum RegistrationAct {
    /// These are wanted from here on.
    Wanted(Vec<(RegistrationId, Place)>),
    /// All are to end, for good.
    Drained,
    /// A worker could not be started.
    WorkerRefused,
    /// A step was handed out.
    Asked { id: RegistrationId, step: Step },
    /// Nothing is to be done until then.
    Rested { id: RegistrationId, until: Timestamp },
    /// The backend has carried out the request.
    Executed { id: RegistrationId, step: Step },
    /// The request was broken off.
    BrokenOff,
    /// The request has been answered.
    Answered { id: RegistrationId, step: Step, error: Option<ErrorCode> },
    /// The registration has come to its end.
    Ended { id: RegistrationId },
    /// The backend no longer holds what was registered there.
    Lost { place: Place },
    /// The node is described anew.
    Described,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Request {
    step: Step,
    /// When the backend carries it out, if it does and has not yet.
    executes_at: Option<Timestamp>,
    answers_at: Timestamp,
    error: Option<ErrorCode>,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Asking(Request),
    Resting(Timestamp),
}

struct Worker {
    place: Place,
    work: Work,
}

struct Backend {
    mood: BackendMood,
    until: Timestamp,
}

/// The registrations of the local node, and the backends that hold them.
pub(super) struct Registrations {
    registrar: Registrar,
    now: Timestamp,
    dice: Dice,
    /// Where each registration is made, of those that have not come to their end.
    places: BTreeMap<RegistrationId, Place>,
    workers: BTreeMap<RegistrationId, Worker>,
    backends: BTreeMap<usize, Backend>,
    /// What the backends hold, and until when.
    held: BTreeMap<Place, Timestamp>,
    refusals: usize,
    interval: Duration,
    acts: Vec<(Timestamp, RegistrationAct)>,
}

impl Registrations {
    pub(super) fn new(seed: u64, now: Timestamp) -> Self {
        let mut dice = Dice::new(seed);
        let interval = if dice.chance(100) { Duration::ZERO } else { INTERVAL };
        Self {
            registrar: Registrar::new(seed, BUDGET),
            now,
            dice,
            places: BTreeMap::new(),
            workers: BTreeMap::new(),
            backends: BTreeMap::new(),
            held: BTreeMap::new(),
            refusals: 0,
            interval,
            acts: Vec::new(),
        }
    }

    /// Exactly these are wanted from here on.
    pub(super) fn follow(&mut self, wanted: Vec<(RegistrationId, Place)>) {
        let named =
            |(id, place): &(RegistrationId, Place)| Wanted { id: *id, kind: place.kind(), site: Some(place.site()) };
        let named: Vec<_> = wanted.iter().map(named).collect();
        self.places.extend(wanted.iter().copied());
        self.act(RegistrationAct::Wanted(wanted));
        self.registrar.follow(&named, self.now);
        self.wake();
    }

    /// Everything is deregistered, for good.
    pub(super) fn drain(&mut self) {
        self.act(RegistrationAct::Drained);
        self.registrar.drain(self.now);
        self.wake();
    }

    /// Something is wrong with a backend for that long.
    pub(super) fn fall_ill(&mut self, backend: usize, lasting: Duration) {
        let mood = self.dice.pick(&BackendMood::FAULTS).copied().unwrap_or(BackendMood::Refusing);
        self.backends.insert(backend, Backend { mood, until: self.now + lasting });
    }

    /// A backend loses what was registered there.
    pub(super) fn forget(&mut self, backend: usize) {
        let lost: Vec<_> = self.held.keys().filter(|place| place.backend == backend).copied().collect();
        for place in lost {
            self.held.remove(&place);
            self.act(RegistrationAct::Lost { place });
        }
    }

    /// The next so many workers cannot be started.
    pub(super) fn refuse(&mut self, workers: usize) {
        self.refusals = workers;
    }

    /// A provider asks for an early renewal, or the node is described anew.
    pub(super) fn hurry(&mut self) {
        if self.dice.chance(400) {
            return self.describe();
        }
        let ids: Vec<_> = self.workers.keys().copied().collect();
        if let Some(id) = self.dice.pick(&ids).copied() {
            self.registrar.asked(id, self.now);
            self.wake();
        }
    }

    /// The node is described anew, which all that hold it are to tell.
    pub(super) fn describe(&mut self) {
        self.act(RegistrationAct::Described);
        self.registrar.described(self.now);
        self.wake();
    }

    /// All faults are over.
    pub(super) fn recover(&mut self) {
        self.refusals = 0;
        self.backends.clear();
    }

    /// Whether whoever watches that cluster sees the node.
    pub(super) fn is_shown(&self, backend: usize) -> bool {
        self.held.keys().any(|place| place.backend == backend)
    }

    /// What the backends hold.
    pub(super) fn held(&self) -> Vec<Place> {
        self.held.keys().copied().collect()
    }

    /// Whether nothing is left to be done, for good.
    pub(super) fn is_over(&self) -> bool {
        self.registrar.is_over()
    }

    /// What has happened since the last call of this.
    pub(super) fn take_acts(&mut self) -> Vec<(Timestamp, RegistrationAct)> {
        std::mem::take(&mut self.acts)
    }

    /// Lets time pass while the whole process stands still.
    pub(super) fn stand_still_to(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.expire();
        self.wake();
    }

    /// Lets time pass.
    pub(super) fn advance_to(&mut self, now: Timestamp) {
        loop {
            self.start_workers();
            for id in self.registrar.take_overdue(self.now) {
                self.break_off(id);
            }
            self.take_steps();
            match self.next() {
                Some(next) if next <= now => self.now = self.now.max(next),
                _ => break,
            }
            self.expire();
            self.carry_out();
        }
        self.now = self.now.max(now);
        self.expire();
    }

    /// When something happens next.
    fn next(&self) -> Option<Timestamp> {
        let working = self.workers.values().map(|worker| match worker.work {
            Work::Asking(request) => request.executes_at.unwrap_or(request.answers_at).min(request.answers_at),
            Work::Resting(until) => until,
        });
        working.chain(self.registrar.next_timeout()).chain(self.held.values().copied()).min()
    }

    fn start_workers(&mut self) {
        for id in self.registrar.to_start(self.now) {
            if self.refusals > 0 {
                self.refusals -= 1;
                self.act(RegistrationAct::WorkerRefused);
                let error = ProvisioningError::new(ErrorCode::ThreadRefused, "simulating a thread", "refused");
                _ = self.registrar.started(id, Err(error), self.now);
            } else if let Some(place) = self.places.get(&id) {
                self.workers.insert(id, Worker { place: *place, work: Work::Resting(self.now) });
                _ = self.registrar.started(id, Ok(()), self.now);
            }
        }
    }

    /// Everyone who rests looks whether there is something to do.
    fn wake(&mut self) {
        for worker in self.workers.values_mut() {
            if let Work::Resting(until) = &mut worker.work {
                *until = (*until).min(self.now);
            }
        }
    }

    fn take_steps(&mut self) {
        let ids: Vec<_> = self.workers.keys().copied().collect();
        for id in ids {
            let Some(worker) = self.workers.get(&id) else { continue };
            let place = worker.place;
            match worker.work {
                Work::Resting(until) if until <= self.now => {}
                _ => continue,
            }
            let step = self.registrar.step(id, self.now);
            let work = match step {
                Step::End => {
                    self.workers.remove(&id);
                    self.places.remove(&id);
                    self.act(RegistrationAct::Ended { id });
                    continue;
                }
                Step::Rest(until) => {
                    self.act(RegistrationAct::Rested { id, until });
                    Work::Resting(until)
                }
                _ => {
                    self.act(RegistrationAct::Asked { id, step });
                    Work::Asking(self.request(id, place, step))
                }
            };
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.work = work;
            }
        }
    }

    /// What becomes of a request that is sent now.
    fn request(&mut self, id: RegistrationId, place: Place, step: Step) -> Request {
        let mood = match self.backends.get(&place.backend) {
            Some(backend) if backend.until > self.now => backend.mood,
            _ => BackendMood::Well,
        };
        let limit = match step {
            Step::Leave | Step::Retire => self.registrar.time_to_leave(id, self.now),
            _ => REQUEST,
        };
        let soon = self.dice.millis(1, 40);
        let (executes, answers, error) = match mood {
            BackendMood::Well => (Some(soon / 2), soon, None),
            BackendMood::Refusing => (None, soon, Some(ErrorCode::BackendUnavailable)),
            BackendMood::Losing => (Some(self.dice.millis(1, 1_900)), limit, Some(ErrorCode::Timeout)),
            BackendMood::Hanging => (None, limit, Some(ErrorCode::Timeout)),
            BackendMood::Unready => (None, soon, Some(ErrorCode::TokenUnreadable)),
        };
        let at = |after: Duration| self.now + after;
        Request { step, executes_at: executes.map(at), answers_at: at(answers), error }
    }

    /// The backends carry out what they have been asked, and answer.
    fn carry_out(&mut self) {
        let ids: Vec<_> = self.workers.keys().copied().collect();
        for id in ids {
            let Some(Worker { place, work: Work::Asking(request) }) = self.workers.get(&id) else { continue };
            let (place, mut request) = (*place, *request);
            if request.executes_at.is_some_and(|at| at <= self.now) {
                request.executes_at = None;
                match request.step {
                    Step::Renew if !self.held.contains_key(&place) => {
                        request.error = request.error.or(Some(ErrorCode::RegistrationFailed));
                    }
                    Step::Join | Step::Renew => {
                        self.held.insert(place, self.now + TIME_TO_LIVE);
                        self.act(RegistrationAct::Executed { id, step: request.step });
                    }
                    _ => {
                        self.held.remove(&place);
                        self.act(RegistrationAct::Executed { id, step: request.step });
                    }
                }
            }
            if request.answers_at <= self.now {
                self.answer(id, request);
            } else if let Some(worker) = self.workers.get_mut(&id) {
                worker.work = Work::Asking(request);
            }
        }
    }

    fn answer(&mut self, id: RegistrationId, request: Request) {
        let Request { step, error, .. } = request;
        self.act(RegistrationAct::Answered { id, step, error });
        let outcome = match error {
            None => Outcome::Done(self.interval),
            Some(code) => {
                let error = ProvisioningError::new(code, "simulating a backend", "a simulated fault");
                Outcome::Failed(error, self.interval)
            }
        };
        _ = self.registrar.answered(id, outcome, self.now);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.work = Work::Resting(self.now);
        }
        self.wake();
    }

    fn break_off(&mut self, id: RegistrationId) {
        let Some(Worker { work: Work::Asking(request), .. }) = self.workers.get(&id) else { return };
        let request = Request { executes_at: None, error: Some(ErrorCode::Stopped), ..*request };
        self.act(RegistrationAct::BrokenOff);
        self.answer(id, request);
    }

    fn expire(&mut self) {
        let now = self.now;
        let expired: Vec<_> = self.held.iter().filter(|(_, until)| **until <= now).map(|(place, _)| *place).collect();
        for place in expired {
            self.held.remove(&place);
            self.act(RegistrationAct::Lost { place });
        }
    }

    fn act(&mut self, act: RegistrationAct) {
        self.acts.push((self.now, act));
    }
}
