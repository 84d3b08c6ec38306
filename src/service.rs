//! The service: wires registry, hub, streams and registrations together, owns the threads, and shuts them down.
//!
//! Holds no rules of its own: what a definition must satisfy is the registry's, what is delivered the hub's.

mod builder;
mod progress;
mod registration;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

pub use builder::ServiceBuilder;
use progress::Progress;
use registration::Registrations;

use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{PauseReason, PlacementGate};
use crate::failover::SlotKey;
use crate::hub::mailbox::ProviderOrder;
use crate::hub::{Input, ProviderWatchHub, SlotSpec};
use crate::panics::caught;
use crate::provider::{CancelToken, ClusterProvider, ProviderDescriptor, ProviderId};
use crate::registry::{ProviderEntry, ProviderRegistry, RegistryChange};
use crate::validator::ValidationReport;

/// How long a shutdown waits for the hub's thread, and then for the streams' threads, before it leaves them to end by
/// themselves.
const STOP_PATIENCE: Duration = Duration::from_millis(100);

/// How long a change of the set waits for the hub: far longer than any callback should take.
const HUB_PATIENCE: Duration = Duration::from_secs(30);

/// A running service. Made by [`ClusterProvisioningService::builder`]; dropping it shuts it down.
///
/// Everything that reads or orders goes through [`hub`](Self::hub), which can be cloned and handed out.
pub struct ClusterProvisioningService {
    hub: ProviderWatchHub,
    clock: Arc<dyn Clock>,
    set: Mutex<ProviderSet>,
    /// Disconnects when the hub's thread and all streams' threads have ended.
    threads_ended: Receiver<()>,
    hub_thread: Mutex<Option<JoinHandle<()>>>,
    progress: Arc<Progress>,
    leave_budget: Duration,
    /// Fires at shutdown: ends connectivity checks that are under way.
    cancel: CancelToken,
}

/// What is registered, and under which key each enabled provider is in force.
struct ProviderSet {
    registry: ProviderRegistry,
    keys: Vec<(SlotKey, Arc<dyn ClusterProvider>)>,
    next_key: SlotKey,
    registrations: Registrations,
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
        let ready = self.progress.wait(timeout, || {
            let state = self.hub.publication.load();
            state.gate.is_open() || state.stopped || state.gate == PlacementGate::Paused(PauseReason::Draining)
        });
        let state = self.hub.publication.load();
        if state.stopped {
            return Err(ProvisioningError::new(ErrorCode::Stopped, doing, "the service has stopped"));
        }
        if state.gate == PlacementGate::Paused(PauseReason::Draining) {
            return Err(ProvisioningError::new(ErrorCode::Draining, doing, "the service is shutting down"));
        }
        if ready {
            return Ok(());
        }
        let detail = match state.latest_snapshot(state.gate) {
            Err(error) => format!("after {timeout:?}: [{}] {}", error.code(), error.detail()),
            Ok(_) => format!("after {timeout:?}: placement is {}", state.gate),
        };
        Err(ProvisioningError::new(ErrorCode::WaitTimedOut, doing, detail))
    }

    /// Registers another provider: validated, its backend asked, stored, then in force. One that cannot watch is accepted
    /// as disabled. Blocks for as long as the backend is asked (5 s by default).
    ///
    /// # Errors
    /// As for [`ProviderRegistry::register`], [`ErrorCode::WouldBlock`] inside a callback of the hub, and
    /// [`ErrorCode::Draining`]; the set in force is then unchanged.
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
    /// providers keep their watch and their data. Blocks for as long as the new backends are asked (5 s by default).
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
    /// failure. Its backend is asked if `connectivity` is set, which blocks.
    ///
    /// # Errors
    /// [`ErrorCode::WouldBlock`] inside a callback of the hub. What is wrong with the definition is in the report.
    pub fn validate(
        &self,
        descriptor: &ProviderDescriptor,
        connectivity: bool,
    ) -> Result<ValidationReport, ProvisioningError> {
        self.forbid_in_callback("validating a provider")?;
        Ok(self.set().registry.dry_run(descriptor, connectivity, &self.cancel))
    }

    /// The registered providers, in the order of registration, with why some of them are disabled.
    pub fn registered(&self) -> Vec<ProviderEntry> {
        self.set().registry.list().to_vec()
    }

    /// Lifts the suppression of enabling providers; whether there was one.
    pub fn lift_suppression(&self) -> bool {
        let mut set = self.set();
        let lifted = set.registry.lift_suppression(self.clock.now());
        self.report_suppression(&mut set.registry);
        lifted
    }

    /// Begins to drain, irreversibly: from here on no snapshot, join or switch is delivered, placement pauses, and the
    /// last snapshot stays readable; the local node is deregistered everywhere, within the budget (2 s by default).
    ///
    /// # Errors
    /// [`ErrorCode::WouldBlock`] inside a callback of the hub; [`ErrorCode::Stopped`] if the service has stopped; why the
    /// local node could not be deregistered in time, when it leaves by expiry. Draining has begun nevertheless.
    pub fn drain(&self) -> Result<(), ProvisioningError> {
        self.forbid_in_callback("draining")?;
        self.leave()
    }

    /// Drains, ends every stream and stops. Returns within 100 ms where streams are connected, after the budget of
    /// deregistration; what is stuck in a connect ends by itself later. Dropping the service does the same.
    pub fn shutdown(self) {
        drop(self);
    }

    fn leave(&self) -> Result<(), ProvisioningError> {
        // The hub hears of it before the departure of the local node can reach it as a change.
        self.hub.mailbox.drain();
        self.set().registrations.leave_all(self.leave_budget)
    }

    fn stop(&self) {
        // Also when the service is dropped inside a callback, or while one hangs: whatever is not through in time is left
        // behind.
        self.cancel.cancel();
        if let Err(error) = self.leave() {
            log::warn!("{error}");
        }
        self.hub.mailbox.stop(STOP_PATIENCE);
        _ = self.threads_ended.recv_timeout(STOP_PATIENCE);
        let thread = self.hub_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        if self.hub.gate() == PlacementGate::Paused(PauseReason::Draining) {
            return Err(ProvisioningError::new(ErrorCode::Draining, doing, "the service is shutting down"));
        }
        let mut set = self.set();
        let changed = change(&mut set.registry);
        self.report_suppression(&mut set.registry);
        if let Err(error) = changed {
            self.hub.count_validation_failure();
            self.warn(error.clone());
            return Err(error);
        }
        self.put_in_force(&mut set)
    }

    /// Hands the registry's set to the hub. Called with what is stored and in force there already: nothing can fail but
    /// a hub that has stopped, or that a callback holds up for [`HUB_PATIENCE`].
    fn put_in_force(&self, set: &mut ProviderSet) -> Result<(), ProvisioningError> {
        let specs = set.assign_keys();
        let providers: BTreeMap<_, _> = set.keys.iter().cloned().collect();
        let (reply, outcome) = bounded(1);
        let (former, _handed_back) = bounded(1);
        let order = ProviderOrder { providers, specs, at: self.clock.now(), reply, former };
        let doing = "putting providers in force";
        let refuse = |stopped: bool| match stopped {
            true => ProvisioningError::new(ErrorCode::Stopped, doing, "the hub has stopped"),
            false => {
                let detail = "the set is stored, but a callback keeps the hub from putting it in force";
                ProvisioningError::new(ErrorCode::WaitTimedOut, doing, detail)
            }
        };
        self.hub.mailbox.order(order).map_err(|_| refuse(true))?;
        outcome.recv_timeout(HUB_PATIENCE).map_err(|error| refuse(error == RecvTimeoutError::Disconnected))??;
        if let Err(error) = set.registrations.follow(&set.keys, self.leave_budget) {
            self.warn(error);
        }
        Ok(())
    }

    fn report_suppression(&self, registry: &mut ProviderRegistry) {
        for change in registry.take_suppression_changes(self.clock.now()) {
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

    fn set(&self) -> MutexGuard<'_, ProviderSet> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProviderSet {
    /// Gives every enabled provider its key: the one that it has, or a new one. Those who are gone lose theirs.
    fn assign_keys(&mut self) -> Vec<SlotSpec> {
        let mut keys = Vec::new();
        let mut specs = Vec::new();
        for entry in self.registry.list().iter().filter(|entry| entry.is_enabled()) {
            let provider = entry.provider();
            let known = self.keys.iter().find(|(_, other)| Arc::ptr_eq(other, provider)).map(|(key, _)| *key);
            let key = known.unwrap_or_else(|| {
                self.next_key += 1;
                self.next_key
            });
            keys.push((key, Arc::clone(provider)));
            // A provider is foreign code: one that panics here promises nothing and registers nobody.
            let asked = caught(|| (provider.refresh_interval(), provider.capabilities().register));
            let (refresh_interval, registers) = asked.unwrap_or_default();
            specs.push(SlotSpec {
                key,
                edition: 0,
                id: entry.descriptor.id.clone(),
                priority: entry.descriptor.priority,
                refresh_interval,
                registers,
                reachable: entry.reachable,
            });
        }
        self.keys = keys;
        specs
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
