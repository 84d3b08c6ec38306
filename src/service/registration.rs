//! Member mode: the threads that keep the local node registered, one for each registration.
//!
//! What is to be done, and when, is the [`Registrar`]'s to decide. No lock is held while a backend is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use super::registrar::{Notice, Outcome, Registrar, RegistrationId, Step, Wanted};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::hub::{Input, ProviderWatchHub};
use crate::panics::{caught, discard};
use crate::provider::{CancelToken, ClusterProvider, ProviderId, Registration, RegistrationSite};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};
use crate::topology::ClusterNode;

const REGISTERING: &str = "registering the local node";
const DEREGISTERING: &str = "deregistering the local node";
/// How often a registration is looked after that panics when it is asked how often it wants to be.
const UNASKED: Duration = Duration::from_secs(2);

/// A registration that is to be made, and who makes it.
pub(super) struct Candidate {
    pub(super) id: RegistrationId,
    pub(super) name: ProviderId,
    pub(super) provider: Arc<dyn ClusterProvider>,
}

/// The registrations of the local node; none in client mode.
pub(super) struct Registrations {
    node: Option<Arc<ClusterNode>>,
    hub: ProviderWatchHub,
    clock: Arc<dyn Clock>,
    /// How long a deregistration may take.
    budget: Duration,
    shared: Arc<Shared>,
}

struct Shared {
    board: Mutex<Board>,
    /// Something on the board has changed.
    changed: Condvar,
}

struct Board {
    registrar: Registrar,
    workers: BTreeMap<RegistrationId, Worker>,
}

/// How the thread of a registration is reached.
#[derive(Clone)]
struct Worker {
    wake: Sender<()>,
    cancel: CancelToken,
}

impl Registrations {
    pub(super) fn new(
        node: Option<Arc<ClusterNode>>,
        hub: ProviderWatchHub,
        clock: Arc<dyn Clock>,
        budget: Duration,
    ) -> Self {
        let registrar = Registrar::new(clock.now().as_nanos());
        let board = Mutex::new(Board { registrar, workers: BTreeMap::new() });
        Self { node, hub, clock, budget, shared: Arc::new(Shared { board, changed: Condvar::new() }) }
    }

    /// Registers with those that are new, and deregisters from those that are gone. Waits for the latter, within the
    /// budget; not for the definitions that were edited, which are retired when the new ones hold the node.
    ///
    /// # Errors
    /// [`ErrorCode::ThreadRefused`]; why the node could not be deregistered.
    pub(super) fn follow(&self, candidates: Vec<Candidate>) -> Result<(), ProvisioningError> {
        let Some(node) = &self.node else { return Ok(()) };
        let registers = |candidate: &Candidate| caught(|| candidate.provider.capabilities().register).unwrap_or(false);
        let candidates: Vec<_> = candidates.into_iter().filter(registers).collect();
        let wanted: Vec<_> =
            candidates.iter().map(|candidate| Wanted { id: candidate.id, site: site(&*candidate.provider) }).collect();
        let (new, gone) = {
            let mut board = lock(&self.shared.board);
            let before = board.registrar.ending();
            let new = board.registrar.follow(&wanted, self.clock.now());
            let gone: Vec<_> = board.registrar.leaving().into_iter().filter(|id| !before.contains(id)).collect();
            (new, gone)
        };
        let mut result = Ok(());
        for candidate in candidates.into_iter().filter(|candidate| new.contains(&candidate.id)) {
            result = self.start(candidate, Arc::clone(node)).and(result);
        }
        self.shared.break_off();
        result.and(self.wait_for(&gone))
    }

    /// Waits until the first registration has succeeded; in client mode there is nothing to wait for.
    ///
    /// # Errors
    /// [`ErrorCode::RegistrationFailed`], with why the last attempt failed.
    pub(super) fn wait_first(&self, timeout: Duration) -> Result<(), ProvisioningError> {
        if self.node.is_none() {
            return Ok(());
        }
        let refuse = |detail: String| Err(ProvisioningError::new(ErrorCode::RegistrationFailed, REGISTERING, detail));
        if lock(&self.shared.board).registrar.is_empty() {
            return refuse("none of the providers can register a node".into());
        }
        if self.shared.wait(timeout, |board| board.registrar.has_joined()) {
            return Ok(());
        }
        let board = lock(&self.shared.board);
        let why = board.registrar.last_error().map_or_else(|| "none has answered".to_owned(), without_advice);
        refuse(format!("no provider accepted it within {timeout:?}: {why}"))
    }

    /// Deregisters everywhere, within the budget, for good.
    ///
    /// # Errors
    /// Why the node could not be deregistered, or [`ErrorCode::Timeout`].
    pub(super) fn leave_all(&self) -> Result<(), ProvisioningError> {
        let all = {
            let mut board = lock(&self.shared.board);
            board.registrar.drain();
            board.registrar.ending()
        };
        self.shared.break_off();
        self.wait_for(&all)
    }

    /// Waits until these have ended, within the budget.
    fn wait_for(&self, ids: &[RegistrationId]) -> Result<(), ProvisioningError> {
        let in_time = self.shared.wait(self.budget, |board| board.registrar.have_ended(ids));
        if let Some(error) = lock(&self.shared.board).registrar.take_left_behind(ids) {
            return Err(error);
        }
        if in_time {
            return Ok(());
        }
        let detail = format!("a provider did not answer within {:?}", self.budget);
        Err(ProvisioningError::new(ErrorCode::Timeout, DEREGISTERING, detail))
    }

    /// Starts the thread of a registration.
    fn start(&self, candidate: Candidate, node: Arc<ClusterNode>) -> Result<(), ProvisioningError> {
        let Candidate { id, name, provider } = candidate;
        let (wake, woken) = bounded(1);
        let cancel = CancelToken::new();
        lock(&self.shared.board).workers.insert(id, Worker { wake, cancel: cancel.clone() });
        let work = Work {
            id,
            name: name.clone(),
            provider,
            node,
            budget: self.budget,
            woken,
            cancel,
            shared: Arc::clone(&self.shared),
            hub: self.hub.clone(),
            clock: Arc::clone(&self.clock),
            registration: None,
            early: never(),
        };
        let thread = thread::Builder::new().name(format!("register-{name}"));
        let spawned = thread.spawn(move || work.run());
        spawned.map(drop).map_err(|error| {
            self.shared.forget(id);
            ProvisioningError::new(ErrorCode::ThreadRefused, REGISTERING, error.to_string()).with_provider(&name)
        })
    }
}

impl Shared {
    /// Breaks off what is under way for those that are to end, and wakes them.
    fn break_off(&self) {
        let ending: Vec<Worker> = {
            let board = lock(&self.board);
            let ids = board.registrar.ending().into_iter().filter(|id| board.registrar.is_to_end(*id));
            ids.filter_map(|id| board.workers.get(&id).cloned()).collect()
        };
        // Outside of the lock: a token's actions are foreign code.
        for worker in ending {
            worker.cancel.cancel();
            // One message is enough.
            _ = worker.wake.try_send(());
        }
    }

    /// The thread of the registration has ended, or could not be started.
    fn forget(&self, id: RegistrationId) {
        {
            let mut board = lock(&self.board);
            board.workers.remove(&id);
            board.registrar.forget(id);
        }
        self.changed.notify_all();
    }

    /// Waits until the board is as wanted; whether it was in time.
    fn wait(&self, timeout: Duration, is_wanted: impl Fn(&Board) -> bool) -> bool {
        let deadline = deadline(timeout);
        let mut board = lock(&self.board);
        while !is_wanted(&board) {
            let in_time;
            (board, in_time) = wait_until(&self.changed, board, deadline);
            if !in_time {
                return false;
            }
        }
        true
    }
}

/// What the thread of one registration works with.
struct Work {
    id: RegistrationId,
    name: ProviderId,
    provider: Arc<dyn ClusterProvider>,
    node: Arc<ClusterNode>,
    budget: Duration,
    woken: Receiver<()>,
    cancel: CancelToken,
    shared: Arc<Shared>,
    hub: ProviderWatchHub,
    clock: Arc<dyn Clock>,
    registration: Option<Box<dyn Registration>>,
    /// Where the provider asks for early renewals.
    early: Receiver<()>,
}

impl Work {
    fn run(mut self) {
        // Providers are foreign code, and so is the logger: each is caught where it is called, and here once more.
        if let Err(panic) = caught(|| self.live()) {
            _ = caught(|| log::error!("{}: the thread of its registration has panicked: {panic}", self.name));
        }
        discard(self.registration.take());
        discard(self.provider);
        self.shared.forget(self.id);
    }

    /// Does what the registrar says until there is nothing left to do.
    fn live(&mut self) {
        loop {
            let step = lock(&self.shared.board).registrar.step(self.id, self.clock.now());
            let done = match step {
                Step::End => return,
                Step::Rest(until) => {
                    self.rest(until);
                    continue;
                }
                Step::Join => self.ask(|registration, work| registration.join(&work.cancel)),
                Step::Renew => self.ask(|registration, work| registration.renew(&work.cancel)),
                Step::Leave => self.ask(|registration, work| registration.leave(work.budget)),
                Step::Retire => self.ask(|registration, work| registration.retire(work.budget)),
            };
            let outcome = match done {
                Ok(()) => Outcome::Done(self.interval()),
                Err(error) => Outcome::Failed(error.with_provider(&self.name)),
            };
            let notice = lock(&self.shared.board).registrar.answered(self.id, outcome, self.clock.now());
            self.shared.changed.notify_all();
            // The former definitions' registrations, which this one may have made superfluous.
            self.shared.break_off();
            match notice {
                Some(Notice::Failing(error)) => drop(self.hub.send(Input::Warn(error))),
                Some(Notice::Recovered) => {
                    _ = caught(|| log::info!("{}: the local node is registered again", self.name));
                }
                None => {}
            }
        }
    }

    /// Asks something of the registration, which is made first if there is none yet.
    fn ask(
        &mut self,
        question: impl FnOnce(&mut dyn Registration, &Work) -> Result<(), ProvisioningError>,
    ) -> Result<(), ProvisioningError> {
        let mut registration = match self.registration.take() {
            Some(registration) => registration,
            None => {
                let made = guarded(|| self.provider.registration(&self.node))?;
                self.early = caught(|| made.early_renewal()).unwrap_or_else(|_| never());
                made
            }
        };
        let answer = guarded(|| question(&mut *registration, self));
        self.registration = Some(registration);
        answer
    }

    /// How long the registration wants to be left alone.
    fn interval(&self) -> Duration {
        let Some(registration) = &self.registration else { return UNASKED };
        caught(|| registration.renew_interval()).unwrap_or(UNASKED)
    }

    /// Waits for the time, or until it is woken, or until the provider asks for an early renewal.
    fn rest(&mut self, until: Timestamp) {
        let pause = until.since(self.clock.now());
        select! {
            recv(self.woken) -> _ => {}
            recv(self.early) -> asked => match asked {
                Ok(()) => lock(&self.shared.board).registrar.asked(self.id, self.clock.now()),
                // Nobody can ask any more.
                Err(_) => self.early = never(),
            },
            default(pause) => {}
        }
    }
}

/// Where the provider registers the node, if it can tell.
fn site(provider: &dyn ClusterProvider) -> Option<RegistrationSite> {
    caught(|| provider.registration_site()).unwrap_or_default()
}

/// A provider is foreign code: its panic is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, ProvisioningError>) -> Result<T, ProvisioningError> {
    caught(work).unwrap_or_else(|panic| Err(ProvisioningError::new(ErrorCode::ProviderPanicked, REGISTERING, panic)))
}

/// The error's words without what is advised: whoever repeats them gives an advice of their own.
fn without_advice(error: &ProvisioningError) -> String {
    let text = error.to_string();
    text.strip_suffix(&format!("; {}", error.advice())).unwrap_or(&text).to_owned()
}
