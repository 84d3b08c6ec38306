//! Member mode: the threads that keep the local node registered, one for each registration, and the keeper that starts
//! them and breaks off what takes too long.
//!
//! What is to be done, and when, is the [`Registrar`]'s to decide. No lock is held while a backend is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use super::registrar::{Notice, Outcome, Registrar, RegistrationId, Step, Wanted};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::hub::{Input, ProviderWatchHub};
use crate::id::{ProviderId, ProviderKind};
use crate::panics::{Foreign, caught, discard};
use crate::provider::{CancelToken, ClusterProvider, LocalNode, Registration, RegistrationSite};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};
use crate::text::line::log_line;
use crate::thread::Thread;
use crate::topology::ClusterNode;

const REGISTERING: &str = "registering the local node";
const DEREGISTERING: &str = "deregistering the local node";
/// How often a registration is looked after that panics when it is asked how often it wants to be.
const UNASKED: Duration = Duration::from_secs(2);

/// A registration that is to be made, and who makes it.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) id: RegistrationId,
    pub(super) name: ProviderId,
    pub(super) kind: ProviderKind,
    pub(super) provider: Foreign<Arc<dyn ClusterProvider>>,
}

/// The registrations of the local node; none in client mode.
pub(super) struct Registrations {
    shared: Option<Arc<Shared>>,
}

/// What the keeper, the workers and those who wait share.
struct Shared {
    node: LocalNode,
    hub: ProviderWatchHub,
    clock: Arc<dyn Clock>,
    /// How long a deregistration may take.
    budget: Duration,
    board: Mutex<Board>,
    /// Something on the board has changed.
    changed: Condvar,
}

struct Board {
    registrar: Registrar,
    /// Those whose workers have not been started yet.
    candidates: BTreeMap<RegistrationId, Candidate>,
    workers: BTreeMap<RegistrationId, Worker>,
}

/// How the thread of a registration is reached.
#[derive(Clone)]
struct Worker {
    wake: Sender<()>,
    cancel: CancelToken,
}

impl Registrations {
    /// None yet. Without a node: client mode.
    pub(super) fn new(node: LocalNode, hub: ProviderWatchHub, clock: Arc<dyn Clock>, budget: Duration) -> Self {
        let shared = node.get().map(|_| {
            let registrar = Registrar::new(clock.now().as_nanos(), budget);
            let board = Mutex::new(Board { registrar, candidates: BTreeMap::new(), workers: BTreeMap::new() });
            Arc::new(Shared { node, hub, clock, budget, board, changed: Condvar::new() })
        });
        Self { shared }
    }

    /// The local node is described anew: whoever holds it registers it as it is now.
    pub(super) fn describe(&self) {
        if let Some(shared) = &self.shared {
            lock(&shared.board).registrar.described(shared.clock.now());
            shared.wake();
        }
    }

    /// Starts the keeper. It ends when everything has been left.
    ///
    /// # Errors
    /// [`ErrorCode::ThreadRefused`].
    pub(super) fn start(&self) -> Result<(), ProvisioningError> {
        let Some(keeper) = self.shared.clone() else { return Ok(()) };
        let spawned = Thread::Registrations.spawn(move || keeper.keep());
        spawned.map(drop).map_err(|error| refused(&error))
    }

    /// Registers with those that are new, and deregisters from those that are gone. Waits for the latter, within the
    /// budget; not for the definitions that were edited, which are retired when the new ones hold the node.
    ///
    /// # Errors
    /// Why the node could not be deregistered. It is tried again.
    pub(super) fn follow(&self, candidates: Vec<Candidate>) -> Result<(), ProvisioningError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let registers = |candidate: &Candidate| caught(|| candidate.provider.capabilities().register).unwrap_or(false);
        let candidates: Vec<_> = candidates.into_iter().filter(registers).collect();
        let wanted = |candidate: &Candidate| Wanted {
            id: candidate.id,
            kind: candidate.kind.clone(),
            site: site(&**candidate.provider),
        };
        let wanted: Vec<_> = candidates.iter().map(wanted).collect();
        let (gone, superseded) = {
            let mut board = lock(&shared.board);
            let before = board.registrar.ending();
            board.registrar.follow(&wanted, shared.clock.now());
            let gone: Vec<_> = board.registrar.leaving().into_iter().filter(|id| !before.contains(id)).collect();
            let waits = |candidate: &Candidate| board.registrar.is_to_start(candidate.id);
            let candidates = candidates.into_iter().filter(waits).map(|candidate| (candidate.id, candidate)).collect();
            (gone, std::mem::replace(&mut board.candidates, candidates))
        };
        // Outside of the lock: providers are among them.
        discard(superseded);
        shared.wake();
        shared.wait_for(&gone)
    }

    /// Waits until the first registration has succeeded; in client mode there is nothing to wait for. `may_come`: whether
    /// there are providers that are not in force yet.
    ///
    /// # Errors
    /// [`ErrorCode::RegistrationFailed`], with why the last attempt failed.
    pub(super) fn wait_first(&self, timeout: Duration, may_come: bool) -> Result<(), ProvisioningError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let refused = |detail: String| ProvisioningError::new(ErrorCode::RegistrationFailed, REGISTERING, detail);
        if lock(&shared.board).registrar.is_empty() && !may_come {
            let error = refused("none of the providers can register a node".into());
            return Err(
                error.with_advice("define one that can, or leave the member out: the process then only watches")
            );
        }
        if shared.wait(timeout, |board| board.registrar.has_joined()) {
            return Ok(());
        }
        let board = lock(&shared.board);
        let accepted = format!("no provider accepted it within {timeout:?}");
        let silent =
            if board.registrar.is_empty() { "those in force cannot register a node" } else { "none has answered" };
        Err(match board.registrar.last_error() {
            None => refused(format!("{accepted}: {silent}")),
            // What is to be done about that is to be done here.
            Some(why) => refused(format!("{accepted}: {}", why.without_advice())).with_advice(why.advice().to_owned()),
        })
    }

    /// Deregisters everywhere, within the budget, for good.
    ///
    /// # Errors
    /// Why the node could not be deregistered, or [`ErrorCode::Timeout`].
    pub(super) fn leave_all(&self) -> Result<(), ProvisioningError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let (all, superseded) = {
            let mut board = lock(&shared.board);
            board.registrar.drain(shared.clock.now());
            (board.registrar.ending(), std::mem::take(&mut board.candidates))
        };
        discard(superseded);
        shared.wake();
        shared.wait_for(&all)
    }
}

impl Shared {
    /// Starts the workers, and breaks off what is to be, until the service drains and all have ended.
    fn keep(self: &Arc<Self>) {
        let mut board = lock(&self.board);
        while !board.registrar.is_over() {
            let now = self.clock.now();
            let due: Vec<_> = board.registrar.to_start(now);
            let due: Vec<Candidate> = due.iter().filter_map(|id| board.candidates.get(id).cloned()).collect();
            let late = board.registrar.take_overdue(now);
            let late: Vec<_> = late.iter().filter_map(|id| board.workers.get(id).cloned()).collect();
            if due.is_empty() && late.is_empty() {
                let pause = board.registrar.next_timeout().map(|at| at.since(now));
                (board, _) = wait_until(&self.changed, board, pause.and_then(deadline));
                continue;
            }
            drop(board);
            // Outside of the lock: a token's actions are foreign code.
            late.iter().for_each(|worker| worker.cancel.cancel());
            due.into_iter().for_each(|candidate| self.start(candidate));
            board = lock(&self.board);
        }
    }

    /// Starts the thread of a registration.
    fn start(self: &Arc<Self>, candidate: Candidate) {
        let (id, name) = (candidate.id, candidate.name.clone());
        let (wake, woken) = bounded(1);
        let cancel = CancelToken::new();
        lock(&self.board).workers.insert(id, Worker { wake, cancel: cancel.clone() });
        let (start, started) = bounded::<()>(1);
        let work = Work {
            candidate,
            woken,
            cancel,
            shared: Arc::clone(self),
            registration: None,
            described: None,
            early: never(),
        };
        let spawned = Thread::Join(name.as_str()).spawn(move || {
            // Not before the registrar knows.
            _ = started.recv();
            work.run();
        });
        let outcome = spawned.map(drop).map_err(|error| refused(&error).with_provider(&name));
        let (notice, candidate) = {
            let mut board = lock(&self.board);
            let candidate = match outcome.is_ok() {
                true => board.candidates.remove(&id),
                false => {
                    board.workers.remove(&id);
                    None
                }
            };
            (board.registrar.started(id, outcome, self.clock.now()), candidate)
        };
        drop(start);
        discard(candidate);
        self.tell(&name, notice);
    }

    fn tell(&self, name: &ProviderId, notice: Option<Notice>) {
        match notice {
            Some(Notice::Failing(error)) => drop(self.hub.send(Input::Warn(error))),
            Some(Notice::Recovered) => log_line!(Info, "{name}: the local node is registered again"),
            Some(Notice::Left) => log_line!(Info, "{name}: the local node is deregistered after all"),
            None => {}
        }
    }

    /// Something has happened to one of them, which may concern any other.
    fn wake(&self) {
        for worker in lock(&self.board).workers.values() {
            // One message is enough.
            _ = worker.wake.try_send(());
        }
        self.changed.notify_all();
    }

    /// Waits until it is known what became of these, within the budget.
    fn wait_for(&self, ids: &[RegistrationId]) -> Result<(), ProvisioningError> {
        let in_time = self.wait(self.budget, |board| board.registrar.are_through(ids));
        if let Some(error) = lock(&self.board).registrar.take_left_behind(ids) {
            return Err(error);
        }
        if in_time {
            return Ok(());
        }
        let detail = format!("a provider did not answer within {:?}", self.budget);
        Err(ProvisioningError::new(ErrorCode::Timeout, DEREGISTERING, detail))
    }

    /// The thread of the registration has ended.
    fn forget(&self, id: RegistrationId) {
        {
            let mut board = lock(&self.board);
            board.workers.remove(&id);
            board.registrar.forget(id);
        }
        self.wake();
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
    candidate: Candidate,
    woken: Receiver<()>,
    cancel: CancelToken,
    shared: Arc<Shared>,
    registration: Option<Box<dyn Registration>>,
    /// As what it was told to register the node.
    described: Option<Arc<ClusterNode>>,
    /// Where the provider asks for early renewals.
    early: Receiver<()>,
}

impl Work {
    fn run(mut self) {
        let id = self.candidate.id;
        // Providers are foreign code, and so is the logger: each is caught where it is called, and here once more.
        if let Err(panic) = caught(|| self.live()) {
            let name = &self.candidate.name;
            log_line!(Error, "{name}: the thread of its registration has panicked: {panic}");
        }
        discard(self.registration.take());
        discard(self.candidate);
        self.shared.forget(id);
    }

    /// Does what the registrar says until there is nothing left to do.
    fn live(&mut self) {
        let (id, name) = (self.candidate.id, self.candidate.name.clone());
        let shared = Arc::clone(&self.shared);
        loop {
            let step = lock(&shared.board).registrar.step(id, shared.clock.now());
            let done = match step {
                Step::End => return,
                Step::Rest(until) => {
                    self.rest(until);
                    continue;
                }
                Step::Join => self.ask(|registration, work| registration.join(&work.cancel)),
                Step::Renew => self.ask(|registration, work| registration.renew(&work.cancel)),
                Step::Leave | Step::Retire => {
                    let within = lock(&shared.board).registrar.time_to_leave(id, shared.clock.now());
                    self.ask(|registration, _| match step {
                        Step::Leave => registration.leave(within),
                        _ => registration.retire(within),
                    })
                }
            };
            let outcome = match done {
                Ok(()) => Outcome::Done(self.interval()),
                Err(error) => Outcome::Failed(error.with_provider(&name), self.interval()),
            };
            let notice = lock(&shared.board).registrar.answered(id, outcome, shared.clock.now());
            shared.tell(&name, notice);
            shared.wake();
        }
    }

    /// Asks something of the registration, which is made first if there is none yet.
    fn ask(
        &mut self,
        question: impl FnOnce(&mut dyn Registration, &Work) -> Result<(), ProvisioningError>,
    ) -> Result<(), ProvisioningError> {
        let node = self.shared.node.get();
        let mut registration = match (self.registration.take(), &node) {
            (Some(mut registration), Some(node)) => {
                if self.described.as_ref().is_none_or(|described| !Arc::ptr_eq(described, node))
                    && let Err(error) = guarded(|| registration.describe(node))
                {
                    // Told once: it stays registered as it was.
                    drop(self.shared.hub.send(Input::Warn(error.with_provider(&self.candidate.name))));
                }
                registration
            }
            (Some(registration), None) => registration,
            (None, Some(node)) => {
                let made = guarded(|| self.candidate.provider.registration(node))?;
                self.early = caught(|| made.early_renewal()).unwrap_or_else(|_| never());
                made
            }
            // Client mode has no registrations.
            (None, None) => return Ok(()),
        };
        self.described = node;
        let answer = guarded(|| question(&mut *registration, self));
        self.registration = Some(registration);
        answer
    }

    /// How long the registration wants to be left alone.
    fn interval(&self) -> Duration {
        let Some(registration) = &self.registration else { return UNASKED };
        caught(|| registration.renew_interval()).unwrap_or(UNASKED)
    }

    /// Waits for the time, or until something has happened to another registration, or until the provider asks for an
    /// early renewal.
    fn rest(&mut self, until: Timestamp) {
        let pause = until.since(self.shared.clock.now());
        select! {
            recv(self.woken) -> _ => {}
            recv(self.early) -> asked => match asked {
                Ok(()) => lock(&self.shared.board).registrar.asked(self.candidate.id, self.shared.clock.now()),
                // Nobody can ask any more.
                Err(_) => self.early = never(),
            },
            default(pause) => {}
        }
    }
}

/// The operating system refused a thread.
fn refused(error: &std::io::Error) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::ThreadRefused, REGISTERING, error.to_string())
}

/// Where the provider registers the node, if it can tell.
fn site(provider: &dyn ClusterProvider) -> Option<RegistrationSite> {
    caught(|| provider.registration_site()).unwrap_or_default()
}

/// A provider is foreign code: its panic is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, ProvisioningError>) -> Result<T, ProvisioningError> {
    caught(work).unwrap_or_else(|panic| Err(ProvisioningError::new(ErrorCode::ProviderPanicked, REGISTERING, panic)))
}
