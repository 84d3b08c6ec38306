//! Member mode: the local node's registrations, one thread for each provider that can register it.
//!
//! Each is tried for ever, and repaired when it is lost; the pause between two tries is never above 2 s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use crate::backoff::Jitter;
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::SlotKey;
use crate::hub::{Input, ProviderWatchHub};
use crate::panics::caught;
use crate::provider::{CancelToken, ClusterProvider, ProviderId, Registration};
use crate::topology::ClusterNode;

const REGISTERING: &str = "registering the local node";
/// The longest pause before a registration that failed or was lost is tried again.
const PAUSE: Duration = Duration::from_secs(2);
/// How many outcomes are kept for whoever waits for the first success; nobody reads them later.
const OUTCOMES: usize = 64;

type Outcome = Result<(), ProvisioningError>;

/// The registrations of the local node; none in client mode.
pub(super) struct Registrations {
    node: Option<Arc<ClusterNode>>,
    hub: ProviderWatchHub,
    clock: Arc<dyn Clock>,
    running: BTreeMap<SlotKey, Running>,
    outcomes: (Sender<Outcome>, Receiver<Outcome>),
    draining: bool,
}

struct Running {
    id: ProviderId,
    stop: CancelToken,
    /// Whether another definition of the same provider registers the node from now on.
    replaced: Arc<AtomicBool>,
    /// Carries the outcome of the deregistration, and disconnects when the thread has ended.
    left: Receiver<Outcome>,
}

impl Registrations {
    pub(super) fn new(node: Option<Arc<ClusterNode>>, hub: ProviderWatchHub, clock: Arc<dyn Clock>) -> Self {
        Self { node, hub, clock, running: BTreeMap::new(), outcomes: bounded(OUTCOMES), draining: false }
    }

    /// Registers with those that are new, deregisters from those that are gone. Waits for the latter, within the budget.
    pub(super) fn follow(&mut self, providers: &[(SlotKey, Arc<dyn ClusterProvider>)], budget: Duration) -> Outcome {
        let Some(node) = self.node.clone().filter(|_| !self.draining) else { return Ok(()) };
        let gone: Vec<SlotKey> =
            self.running.keys().filter(|key| providers.iter().all(|(known, _)| known != *key)).copied().collect();
        let gone: Vec<Running> = gone.into_iter().filter_map(|key| self.running.remove(&key)).collect();
        let mut result = Ok(());
        let registers =
            |provider: &Arc<dyn ClusterProvider>| caught(|| provider.capabilities().register).unwrap_or(false);
        for (key, provider) in providers.iter().filter(|(_, provider)| registers(provider)) {
            if self.running.contains_key(key) {
                continue;
            }
            match self.start(Arc::clone(provider), Arc::clone(&node), budget) {
                Ok(running) => {
                    for former in gone.iter().filter(|former| former.id == running.id) {
                        former.replaced.store(true, Ordering::SeqCst);
                    }
                    self.running.insert(*key, running);
                }
                Err(error) => result = Err(error),
            }
        }
        result.and(leave(gone, budget))
    }

    /// Waits until the first registration has succeeded; in client mode there is nothing to wait for.
    pub(super) fn wait_first(&self, timeout: Duration) -> Outcome {
        if self.node.is_none() {
            return Ok(());
        }
        let refuse = |detail: String| Err(ProvisioningError::new(ErrorCode::RegistrationFailed, REGISTERING, detail));
        if self.running.is_empty() {
            return refuse("none of the providers can register a node".into());
        }
        let deadline = Instant::now() + timeout;
        let mut last = None;
        loop {
            match self.outcomes.1.recv_deadline(deadline) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let why = last.map_or_else(|| "none has answered".to_owned(), |error| without_advice(&error));
                    return refuse(format!("no provider accepted it within {timeout:?}: {why}"));
                }
            }
        }
    }

    /// Deregisters everywhere, within the budget, for good.
    pub(super) fn leave_all(&mut self, budget: Duration) -> Outcome {
        self.draining = true;
        leave(std::mem::take(&mut self.running).into_values().collect(), budget)
    }

    fn start(
        &self,
        provider: Arc<dyn ClusterProvider>,
        node: Arc<ClusterNode>,
        budget: Duration,
    ) -> Result<Running, ProvisioningError> {
        let stop = CancelToken::new();
        let (sender, left) = bounded(1);
        let replaced = Arc::new(AtomicBool::new(false));
        let id = guarded(|| Ok(provider.descriptor().id.clone()))?;
        let work = Work {
            id: id.clone(),
            provider,
            node,
            stop: stop.clone(),
            replaced: Arc::clone(&replaced),
            hub: self.hub.clone(),
            outcomes: self.outcomes.0.clone(),
            jitter: Jitter::new(self.clock.now().as_nanos()),
            failing: false,
        };
        let thread = thread::Builder::new().name(format!("register-{id}"));
        thread.spawn(move || _ = sender.send(work.run(budget))).map_err(|error| {
            ProvisioningError::new(ErrorCode::ThreadRefused, REGISTERING, error.to_string()).with_provider(&id)
        })?;
        Ok(Running { id, stop, replaced, left })
    }
}

/// Lets all of them deregister at once and waits for them, within the budget.
/// The error's words without what is advised: whoever repeats them gives an advice of their own.
fn without_advice(error: &ProvisioningError) -> String {
    let text = error.to_string();
    text.strip_suffix(&format!("; {}", error.advice())).unwrap_or(&text).to_owned()
}

fn leave(running: Vec<Running>, budget: Duration) -> Outcome {
    let deadline = Instant::now() + budget;
    for registration in &running {
        registration.stop.cancel();
    }
    let mut result = Ok(());
    for registration in running {
        let outcome = registration.left.recv_deadline(deadline).unwrap_or_else(|_| {
            let detail = format!("the provider did not answer within {budget:?}");
            Err(ProvisioningError::new(ErrorCode::Timeout, "deregistering the local node", detail))
        });
        result = result.and(outcome);
    }
    result
}

/// What the thread of one registration works with.
struct Work {
    id: ProviderId,
    provider: Arc<dyn ClusterProvider>,
    node: Arc<ClusterNode>,
    stop: CancelToken,
    replaced: Arc<AtomicBool>,
    hub: ProviderWatchHub,
    outcomes: Sender<Outcome>,
    jitter: Jitter,
    failing: bool,
}

impl Work {
    /// Registers, keeps the registration alive, and deregisters when told to stop.
    fn run(mut self, budget: Duration) -> Outcome {
        let mut made: Option<Box<dyn Registration>> = None;
        while !self.stop.is_cancelled() {
            let joined = guarded(|| {
                let registration = match made.take() {
                    Some(registration) => registration,
                    None => self.provider.registration(&self.node)?,
                };
                made.insert(registration).join(&self.stop)
            });
            self.report(joined.as_ref().err());
            match (joined, &mut made) {
                (Ok(()), Some(registration)) => self.keep_alive(&mut **registration),
                _ => _ = self.stop.wait(self.jitter.scale(PAUSE, 0.5)),
            }
        }
        let replaced = self.replaced.load(Ordering::SeqCst);
        let Some(mut registration) = made else { return Ok(()) };
        guarded(|| if replaced { registration.retire(budget) } else { registration.leave(budget) })
    }

    /// Until told to stop, or until the registration is lost.
    fn keep_alive(&mut self, registration: &mut dyn Registration) {
        let mut pause = interval(registration);
        while !self.rest(registration, pause) {
            let renewed = guarded(|| registration.renew(&self.stop));
            if self.stop.is_cancelled() {
                return;
            }
            self.report(renewed.as_ref().err());
            pause = match renewed {
                Ok(()) => interval(registration),
                Err(error) if error.code() == ErrorCode::RegistrationFailed => return,
                Err(_) => interval(registration).min(PAUSE),
            };
        }
    }

    /// Waits for the pause, or until the provider asks for an early renewal; whether told to stop.
    fn rest(&self, registration: &dyn Registration, pause: Duration) -> bool {
        let early = caught(|| registration.early_renewal()).unwrap_or_else(|_| never());
        select! {
            recv(self.stop.receiver()) -> _ => {}
            // Nobody can ask any more: the pause remains.
            recv(early) -> asked => if asked.is_err() { return self.stop.wait(pause) },
            default(pause) => {}
        }
        self.stop.is_cancelled()
    }

    /// Tells the first failure and the recovery; and whoever waits for the first success.
    fn report(&mut self, error: Option<&ProvisioningError>) {
        if self.stop.is_cancelled() {
            return;
        }
        let id = &self.id;
        match error {
            None => {
                if std::mem::take(&mut self.failing) {
                    log::info!("{id}: the local node is registered again");
                }
                _ = self.outcomes.try_send(Ok(()));
            }
            Some(error) => {
                let error = error.clone().with_provider(id);
                if !std::mem::replace(&mut self.failing, true) {
                    drop(self.hub.send(Input::Warn(error.clone())));
                }
                _ = self.outcomes.try_send(Err(error));
            }
        }
    }
}

/// How long the registration wants to be left alone; one that panics when asked is looked after often.
fn interval(registration: &dyn Registration) -> Duration {
    caught(|| registration.renew_interval()).unwrap_or(PAUSE)
}

/// A provider is foreign code: its panic is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, ProvisioningError>) -> Result<T, ProvisioningError> {
    caught(work).unwrap_or_else(|panic| Err(ProvisioningError::new(ErrorCode::ProviderPanicked, REGISTERING, panic)))
}
