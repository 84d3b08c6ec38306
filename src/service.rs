//! The service: wires registry, hub, streams and registrations together, owns the threads, and shuts them down.
//!
//! Holds no rules of its own: what a definition must satisfy is the registry's, what is delivered the hub's.

mod builder;
mod progress;
#[cfg(not(any(test, feature = "testkit")))]
mod registrar;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod registrar;
mod registration;
#[cfg(not(any(test, feature = "testkit")))]
mod roster;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod roster;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, bounded, select};

pub use builder::ServiceBuilder;
use progress::Progress;
use registrar::RegistrationId;
use registration::{Candidate, Registrations};
use roster::{Roster, Seat};

use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{PauseReason, PlacementGate};
use crate::hub::lifecycle::Phase;
use crate::hub::mailbox::ProviderOrder;
use crate::hub::{Input, ProviderWatchHub, SlotSpec};
use crate::id::ProviderId;
use crate::panics::{Foreign, caught, discard};
use crate::provider::{CancelToken, ClusterProvider, ProviderDescriptor};
use crate::registry::{self, Enablement, ProviderEntry, ProviderRegistry, RegistryChange};
use crate::sync::{Mutex, lock};
use crate::validator::{ProviderValidator, SharedSuppression, ValidationReport};

/// How long a shutdown waits for the hub's thread and for the streams' threads, all in all, before it leaves them to end
/// by themselves. Less than the 100 ms that are promised: waking up takes time, too.
const STOP_PATIENCE: Duration = Duration::from_millis(90);

/// How long a change of the set waits for the hub: far longer than any callback should take.
const HUB_PATIENCE: Duration = Duration::from_secs(30);

/// A running service. Made by [`ClusterProvisioningService::builder`]; dropping it shuts it down.
///
/// Everything that reads or orders goes through [`hub`](Self::hub), which can be cloned and handed out. Reads wait for
/// nothing, whatever else is under way; what waits for a backend or for the hub fails at once inside a callback
/// ([`ErrorCode::WouldBlock`]).
pub struct ClusterProvisioningService {
    hub: ProviderWatchHub,
    clock: Arc<dyn Clock>,
    /// Held by whoever changes the set, also while backends are asked; by nobody else.
    changes: Mutex<Changes>,
    /// The registered providers as the last change left them.
    entries: ArcSwap<Vec<ProviderEntry>>,
    validator: ProviderValidator,
    connectivity_timeout: Duration,
    suppression: SharedSuppression,
    registrations: Registrations,
    /// Disconnects when the hub's thread and all streams' threads have ended.
    threads_ended: Receiver<()>,
    hub_thread: Mutex<Option<JoinHandle<()>>>,
    progress: Arc<Progress>,
    leave_budget: Duration,
    /// Fires when draining begins: breaks off changes and checks that are under way.
    cancel: CancelToken,
}

/// What changes of the set work with.
struct Changes {
    registry: ProviderRegistry,
    roster: Roster<Provider>,
}

/// A provider: the same one if it is one and the same in memory.
#[derive(Clone)]
struct Provider(Foreign<Arc<dyn ClusterProvider>>);

impl PartialEq for Provider {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl ClusterProvisioningService {
    /// Starts to set up a service.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::new()
    }

    /// The handle to read from and to order with.
    pub fn hub(&self) -> &ProviderWatchHub {
        &self.hub
    }

    /// Waits until placement may begin: a snapshot with members was delivered.
    ///
    /// # Errors
    /// [`ErrorCode::WaitTimedOut`], saying what is missing, if the time is over first; [`ErrorCode::WouldBlock`] inside a
    /// callback of the hub; [`ErrorCode::Draining`] or [`ErrorCode::Stopped`] if it will not happen any more.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), ProvisioningError> {
        let doing = "waiting until placement may begin";
        self.forbid_in_callback(doing)?;
        let ready = self
            .progress
            .wait(timeout, || self.hub.gate().is_open() || self.hub.mailbox.life().phase() > Phase::Running);
        self.forbid_while_draining(doing)?;
        if ready {
            return Ok(());
        }
        let detail = match self.hub.latest_snapshot() {
            Err(error) => format!("after {timeout:?}: [{}] {}", error.code(), error.detail()),
            Ok(_) => format!("after {timeout:?}: placement is {}", self.hub.gate()),
        };
        Err(ProvisioningError::new(ErrorCode::WaitTimedOut, doing, detail))
    }

    /// Registers another provider: validated, its backend asked, stored, then in force. One that cannot watch is accepted
    /// as disabled, with a warning. Blocks for as long as the backend is asked (5 s by default), and while another change
    /// is under way.
    ///
    /// # Errors
    /// As for [`ProviderRegistry::register`], [`ErrorCode::WouldBlock`] inside a callback of the hub, and
    /// [`ErrorCode::Draining`], also where draining begins meanwhile; the set in force is then unchanged.
    pub fn register(&self, descriptor: ProviderDescriptor) -> Result<(), ProvisioningError> {
        self.change("registering a provider", |registry| registry.register(descriptor, self.clock.now(), &self.cancel))
    }

    /// Removes a provider. If it is the one followed, another is, in the same tick.
    ///
    /// # Errors
    /// As for [`ProviderRegistry::remove`], [`ErrorCode::WouldBlock`] inside a callback of the hub, and
    /// [`ErrorCode::Draining`].
    pub fn remove(&self, id: &ProviderId) -> Result<(), ProvisioningError> {
        self.change("removing a provider", |registry| registry.remove(id))
    }

    /// Replaces the whole set of providers: validated away from the hub, stored, then switched in one tick. Unchanged
    /// providers keep their watch and their data. One that is defined anew under its name keeps pin, place, belief and
    /// health until its own stream has shown something, and the local node is registered by its new definition before the
    /// former one lets go. Blocks for as long as the new backends are asked (5 s by default), and while another change is
    /// under way.
    ///
    /// # Errors
    /// As for [`ProviderRegistry::replace_all`], [`ErrorCode::WouldBlock`] inside a callback of the hub, and
    /// [`ErrorCode::Draining`]; the old set is then wholly in force.
    /// [`ErrorCode::WaitTimedOut`] if a callback holds the hub up for 30 s: the new set is stored then, and comes into
    /// force when the hub gets to it, or with the next change or start.
    pub fn reload(&self, definitions: Vec<ProviderDescriptor>) -> Result<(), ProvisioningError> {
        self.change("reloading the providers", |registry| {
            registry.replace_all(definitions, self.clock.now(), &self.cancel)
        })
    }

    /// Judges a definition as [`register`](Self::register) would, without changing anything and without counting as a
    /// failure. Its backend is asked if `connectivity` is set, which blocks; nothing else waits for it.
    ///
    /// # Errors
    /// [`ErrorCode::WouldBlock`] inside a callback of the hub. What is wrong with the definition is in the report.
    pub fn validate(
        &self,
        descriptor: &ProviderDescriptor,
        connectivity: bool,
    ) -> Result<ValidationReport, ProvisioningError> {
        self.forbid_in_callback("validating a provider")?;
        let (entries, timeout) = (self.entries.load(), connectivity.then_some(self.connectivity_timeout));
        Ok(registry::judge(&self.validator, &entries, descriptor, timeout, &self.cancel))
    }

    /// The registered providers, in the order of registration, with why some of them are disabled: as the last change
    /// left them. Waits for nothing.
    pub fn registered(&self) -> Arc<Vec<ProviderEntry>> {
        self.entries.load_full()
    }

    /// Lifts the suppression of enabling providers; whether there was one. Waits for nothing.
    pub fn lift_suppression(&self) -> bool {
        let lifted = self.suppression.lift(self.clock.now());
        self.report_suppression();
        lifted
    }

    /// Begins to drain, irreversibly: from here on no snapshot, join or switch is delivered, placement pauses, and the
    /// last snapshot stays readable; changes and checks under way are broken off; the local node is deregistered
    /// everywhere, within the budget (2 s by default).
    ///
    /// # Errors
    /// [`ErrorCode::WouldBlock`] inside a callback of the hub; why the local node could not be deregistered in time, when
    /// it leaves by expiry; [`ErrorCode::WaitTimedOut`] if a callback keeps the hub from getting to it within the budget.
    /// Draining has begun nevertheless, and [`gate`](ProviderWatchHub::gate) says so. [`ErrorCode::Stopped`] if the hub's
    /// thread has ended.
    pub fn drain(&self) -> Result<(), ProvisioningError> {
        let doing = "draining";
        self.forbid_in_callback(doing)?;
        let deadline = Instant::now() + self.leave_budget;
        self.leave()?;
        if self.await_drained(deadline.saturating_duration_since(Instant::now())) {
            return Ok(());
        }
        let (code, detail) = match self.hub.mailbox.life().phase() {
            Phase::Failed => (ErrorCode::Stopped, "the hub's thread has ended"),
            _ => (ErrorCode::WaitTimedOut, "draining has begun, but a callback keeps the hub from telling it"),
        };
        Err(ProvisioningError::new(code, doing, detail))
    }

    /// Drains, ends every stream and stops: no callback begins when this has returned. Returns after the budget of
    /// deregistration and 100 ms at the latest, whatever the hub or a stream does; what is stuck in a connect, or in a
    /// callback, ends by itself later. Dropping the service does the same.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Begins to drain, and deregisters the local node.
    fn leave(&self) -> Result<(), ProvisioningError> {
        // The hub hears of it before the departure of the local node can reach it as a change.
        self.hub.mailbox.drain();
        self.progress.tick();
        self.cancel.cancel();
        self.registrations.leave_all()
    }

    /// Waits until the hub has told that it drains, or until it has ended; whether it has told it.
    fn await_drained(&self, timeout: Duration) -> bool {
        let draining = PlacementGate::Paused(PauseReason::Draining);
        self.progress.wait(timeout, || {
            let state = self.hub.publication.load();
            state.gate == draining || state.stopped
        });
        self.hub.publication.load().gate == draining
    }

    fn stop(&self) {
        if let Err(error) = self.leave() {
            _ = caught(|| log::warn!("{error}"));
        }
        // Also when the service is dropped inside a callback, or while one hangs: whatever is not through in time is left
        // behind.
        let deadline = Instant::now() + STOP_PATIENCE;
        let inside = self.hub.is_hub_thread();
        if !inside {
            self.await_drained(STOP_PATIENCE / 2);
        }
        let left = || if inside { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        self.hub.mailbox.stop(left());
        self.progress.tick();
        _ = self.threads_ended.recv_timeout(left());
        let thread = lock(&self.hub_thread).take();
        if let Some(thread) = thread.filter(JoinHandle::is_finished) {
            // Its panic, if there was one, was reported by its own thread.
            _ = thread.join();
        }
    }

    fn change(
        &self,
        doing: &'static str,
        change: impl FnOnce(&mut ProviderRegistry) -> Result<RegistryChange, ProvisioningError>,
    ) -> Result<(), ProvisioningError> {
        self.forbid_in_callback(doing)?;
        self.forbid_while_draining(doing)?;
        let mut changes = lock(&self.changes);
        self.forbid_while_draining(doing)?;
        let changed = change(&mut changes.registry);
        self.entries.store(Arc::new(changes.registry.list().to_vec()));
        self.hub.validation_failures.store(changes.registry.validation_failures(), Ordering::Relaxed);
        self.report_suppression();
        match changed {
            Ok(change) => {
                self.warn_of_disabled(&change.disabled);
                self.put_in_force(&mut changes)
            }
            Err(error) => {
                if error.code() == ErrorCode::Stopped {
                    // Draining has broken it off.
                    self.forbid_while_draining(doing)?;
                }
                self.warn(error.clone());
                Err(error)
            }
        }
    }

    /// Hands the registry's set to the hub, and registers the local node accordingly. Called with what is stored and in
    /// force in the registry already: nothing can fail but a hub that has stopped, or that a callback holds up for
    /// [`HUB_PATIENCE`].
    fn put_in_force(&self, changes: &mut Changes) -> Result<(), ProvisioningError> {
        let doing = "putting providers in force";
        let enabled: Vec<_> = changes.registry.list().iter().filter(|entry| entry.is_enabled()).collect();
        let providers = enabled
            .iter()
            .map(|entry| (entry.descriptor.id.clone(), Provider(Foreign::new(Arc::clone(entry.provider())))));
        let seats = changes.roster.assign(providers);
        let specs = seats.iter().zip(&enabled).map(|(seat, entry)| spec(seat, entry)).collect();
        let providers = seats.iter().map(|seat| (seat.key, (seat.id.clone(), seat.provider.0.clone()))).collect();
        let candidates = seats.iter().zip(&enabled).map(|(seat, entry)| Candidate {
            id: RegistrationId { key: seat.key, edition: seat.edition },
            name: seat.id.clone(),
            kind: entry.descriptor.kind.clone(),
            provider: seat.provider.0.clone(),
        });
        let candidates = candidates.collect();
        let ((reply, outcome), (former, handed_back)) = (bounded(1), bounded(1));
        let order = ProviderOrder { providers, specs, at: self.clock.now(), reply, former };
        let stopped = || ProvisioningError::new(ErrorCode::Stopped, doing, "the hub has stopped");
        self.hub.mailbox.order(order).map_err(|_| stopped())?;
        let mut late = false;
        select! {
            recv(outcome) -> outcome => outcome.map_err(|_| stopped())??,
            recv(self.cancel.receiver()) -> _ => self.forbid_while_draining(doing)?,
            // It is stored, and comes into force when the hub gets to it.
            default(HUB_PATIENCE) => late = true,
        }
        // Letting go of providers is foreign code, and not the hub's business.
        handed_back.try_iter().for_each(discard);
        if let Err(error) = self.registrations.follow(candidates) {
            self.warn(error);
        }
        if late {
            let detail = "the set is stored, but a callback keeps the hub from putting it in force";
            return Err(ProvisioningError::new(ErrorCode::WaitTimedOut, doing, detail));
        }
        Ok(())
    }

    /// Warns of providers that are registered, but disabled.
    fn warn_of_disabled(&self, entries: &[ProviderEntry]) {
        for entry in entries {
            if let Enablement::Disabled { reason } = &entry.status {
                self.warn(reason.clone());
            }
        }
    }

    fn report_suppression(&self) {
        for change in self.suppression.take_changes(self.clock.now()) {
            let doing = "watching over validation failures";
            self.warn(ProvisioningError::new(ErrorCode::EnablingSuppressed, doing, change.to_string()));
        }
    }

    fn warn(&self, error: ProvisioningError) {
        drop(self.hub.send(Input::Warn(error)));
    }

    fn forbid_in_callback(&self, doing: &'static str) -> Result<(), ProvisioningError> {
        if !self.hub.is_hub_thread() {
            return Ok(());
        }
        let detail = "inside a callback the hub would wait for itself";
        Err(ProvisioningError::new(ErrorCode::WouldBlock, doing, detail))
    }

    fn forbid_while_draining(&self, doing: &'static str) -> Result<(), ProvisioningError> {
        match self.hub.mailbox.life().phase() {
            Phase::Running => Ok(()),
            Phase::Failed => Err(ProvisioningError::new(ErrorCode::Stopped, doing, "the hub's thread has ended")),
            _ => Err(ProvisioningError::new(ErrorCode::Draining, doing, "the service is shutting down")),
        }
    }
}

/// The provider as the hub is to run it.
fn spec(seat: &Seat<Provider>, entry: &ProviderEntry) -> SlotSpec {
    let provider = &seat.provider.0;
    // A provider is foreign code: one that panics here promises nothing and registers nobody.
    let asked = caught(|| (provider.refresh_interval(), provider.capabilities().register));
    let (refresh_interval, registers) = asked.unwrap_or_default();
    SlotSpec {
        key: seat.key,
        edition: seat.edition,
        id: seat.id.clone(),
        priority: entry.descriptor.priority,
        refresh_interval,
        registers,
        reachable: entry.reachable,
    }
}

impl Drop for ClusterProvisioningService {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for ClusterProvisioningService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterProvisioningService").field("hub", &self.hub).finish_non_exhaustive()
    }
}
