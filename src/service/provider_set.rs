//! The set of providers while the service runs: who is registered, how that changes, and how a change comes into force.
//!
//! What a definition must satisfy, and what a change is, is the registry's to decide. A change asks backends, is stored,
//! goes to the hub, and then to the registrations of the local node.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{bounded, select};

use super::registrar::RegistrationId;
use super::registration::{Candidate, Registrations};
use super::roster::{Roster, Seat};
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::hub::mailbox::ProviderOrder;
use crate::hub::{Input, ProviderWatchHub, SlotSpec};
use crate::panics::{Foreign, caught, discard};
use crate::provider::{CancelToken, ClusterProvider, ProviderDescriptor};
use crate::registry::{self, Enablement, ProviderEntry, ProviderRegistry, RegistryChange};
use crate::sync::{Mutex, lock};
use crate::text::line::log_line;
use crate::validator::{ProviderValidator, SharedSuppression, SuppressionChange, ValidationReport};

/// How long a change waits for the hub: far longer than any callback should take.
const HUB_PATIENCE: Duration = Duration::from_secs(30);

/// What came of asking a backend.
type Answer = Result<(), ProvisioningError>;

/// The providers of a service. Reads wait for nothing.
pub(super) struct ProviderSet {
    hub: ProviderWatchHub,
    clock: Arc<dyn Clock>,
    registrations: Registrations,
    /// Held by whoever changes the set, also while backends are asked; by nobody else.
    changes: Mutex<Changes>,
    /// The registered providers as the last change left them.
    entries: ArcSwap<Vec<ProviderEntry>>,
    validator: ProviderValidator,
    connectivity_timeout: Duration,
    suppression: SharedSuppression,
    /// Fires when draining begins: breaks off what is under way.
    cancel: CancelToken,
}

/// What changes work with.
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

impl ProviderSet {
    /// What the registry holds; not in force yet.
    pub(super) fn new(
        registry: ProviderRegistry,
        validator: ProviderValidator,
        connectivity_timeout: Duration,
        hub: ProviderWatchHub,
        registrations: Registrations,
        cancel: CancelToken,
    ) -> Self {
        Self {
            clock: Arc::clone(&hub.clock),
            hub,
            registrations,
            entries: ArcSwap::from_pointee(registry.list().to_vec()),
            suppression: registry.suppression().clone(),
            changes: Mutex::new(Changes { registry, roster: Roster::new() }),
            validator,
            connectivity_timeout,
            cancel,
        }
    }

    /// The registrations of the local node.
    pub(super) fn registrations(&self) -> &Registrations {
        &self.registrations
    }

    /// The registered providers, as the last change left them.
    pub(super) fn entries(&self) -> Arc<Vec<ProviderEntry>> {
        self.entries.load_full()
    }

    /// Judges a definition beside those that are registered.
    pub(super) fn judge(&self, descriptor: &ProviderDescriptor, connectivity: bool) -> ValidationReport {
        let (entries, timeout) = (self.entries.load(), connectivity.then_some(self.connectivity_timeout));
        registry::judge(&self.validator, &entries, descriptor, timeout, &self.cancel)
    }

    /// Lifts the suppression of enabling; whether there was one.
    pub(super) fn lift_suppression(&self) -> bool {
        let lifted = self.suppression.lift(self.clock.now());
        self.report_suppression();
        lifted
    }

    /// Breaks off whatever is under way, for good.
    pub(super) fn break_off(&self) {
        self.cancel.cancel();
    }

    /// Puts what the registry holds in force.
    ///
    /// # Errors
    /// If the hub has stopped, or a callback holds it up.
    pub(super) fn begin(&self) -> Result<(), ProvisioningError> {
        self.put_in_force(&mut lock(&self.changes))
    }

    /// Makes a change, stores it and puts it in force.
    ///
    /// # Errors
    /// The change's own; if the service drains, or the call comes from a callback; if the hub has stopped, or a callback
    /// holds it up.
    pub(super) fn change(
        &self,
        doing: &'static str,
        change: impl FnOnce(&mut ProviderRegistry, &CancelToken) -> Result<RegistryChange, ProvisioningError>,
    ) -> Result<(), ProvisioningError> {
        self.hub.forbid_in_callback(doing)?;
        self.hub.forbid_while_draining(doing)?;
        let mut changes = lock(&self.changes);
        self.hub.forbid_while_draining(doing)?;
        let changed = change(&mut changes.registry, &self.cancel);
        self.publish(&changes);
        match changed {
            Ok(change) => {
                self.warn_of(&change);
                self.put_in_force(&mut changes)
            }
            Err(error) => {
                if error.code() == ErrorCode::Stopped {
                    // Draining has broken it off.
                    self.hub.forbid_while_draining(doing)?;
                }
                self.warn(error.clone());
                Err(error)
            }
        }
    }

    /// The pending providers.
    pub(super) fn pending(&self) -> Vec<Arc<dyn ClusterProvider>> {
        lock(&self.changes).registry.pending()
    }

    /// Puts those of the pending providers in force whose backends have answered.
    pub(super) fn accept(&self, answers: impl IntoIterator<Item = (Arc<dyn ClusterProvider>, Answer)>) {
        let mut changes = lock(&self.changes);
        let accepted = changes.registry.accept(answers, self.clock.now());
        self.publish(&changes);
        let outcome = match accepted {
            Ok(change) if change.added.is_empty() => Ok(()),
            Ok(change) => {
                for entry in &change.added {
                    let id = &entry.descriptor.id;
                    log_line!(Info, "{id}: its backend answers, and it is accepted");
                }
                self.put_in_force(&mut changes)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            self.warn(error);
        }
    }

    /// Saves what is in force again where the store could not be written at the start; whether that is still to be done.
    pub(super) fn save_again(&self) -> bool {
        let mut changes = lock(&self.changes);
        if !changes.registry.is_unsaved() {
            return false;
        }
        match changes.registry.save_again() {
            Ok(()) => {
                log_line!(Info, "the store can be written again: the epoch and the providers are kept");
                false
            }
            Err(error) if error.code() == ErrorCode::StoreIo => true,
            Err(error) => {
                self.warn(error);
                false
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
            recv(self.cancel.receiver()) -> _ => self.hub.forbid_while_draining(doing)?,
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
            let error = ProvisioningError::new(ErrorCode::WaitTimedOut, doing, detail);
            return Err(error.with_advice("look for a bridge's callback that does not return"));
        }
        Ok(())
    }

    /// Warns of providers that are registered, but do not run.
    pub(super) fn warn_of(&self, change: &RegistryChange) {
        for entry in change.disabled.iter().chain(&change.pending) {
            match &entry.status {
                Enablement::Enabled => {}
                Enablement::Disabled { reason } => self.warn(reason.clone()),
                Enablement::Pending { reason } => {
                    let detail = format!("its backend has not answered: [{}] {}", reason.code(), reason.detail());
                    let error = ProvisioningError::new(ErrorCode::ProviderPending, "accepting a provider", detail);
                    let advice = format!("{}; or correct or remove its definition", reason.advice());
                    self.warn(error.with_provider(&entry.descriptor.id).with_advice(advice));
                }
            }
        }
    }

    pub(super) fn warn(&self, error: ProvisioningError) {
        drop(self.hub.send(Input::Warn(error)));
    }

    /// Lets readers see what the registry holds now.
    fn publish(&self, changes: &Changes) {
        self.entries.store(Arc::new(changes.registry.list().to_vec()));
        self.hub.validation_failures.store(changes.registry.validation_failures(), Ordering::Relaxed);
        self.report_suppression();
    }

    fn report_suppression(&self) {
        for change in self.suppression.take_changes(self.clock.now()) {
            let doing = "watching over validation failures";
            let error = ProvisioningError::new(ErrorCode::EnablingSuppressed, doing, change.to_string());
            self.warn(match change {
                SuppressionChange::Started { .. } => error,
                SuppressionChange::Ended { .. } => error.with_advice("none needed: definitions are accepted again"),
            });
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
        role: entry.descriptor.role,
        refresh_interval,
        registers,
        reachable: entry.reachable,
    }
}
