//! Which providers are registered, which of them are enabled, and why the others are not.
//!
//! Every operation first prepares the new set, then saves it, then puts it in force: whatever fails, the old set stays
//! wholly in force. What it takes to get from the old set to the new one is handed out as a [`RegistryChange`]; running
//! the providers, and how healthy they are, is the hub's business. What makes a definition acceptable by itself is the
//! validator's.
//!
//! Lives on the callers' threads. Operations may block while backends are asked whether they are there; the time is an
//! argument, and nothing runs in the background.

mod change;
mod epoch;
mod seeding;
mod sites;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use change::RegistryChange;

use crate::clock::Timestamp;
use crate::error::{ErrorCategory, ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::panics::{Foreign, caught};
use crate::provider::{CancelToken, ClusterProvider, ProviderDescriptor};
use crate::store::{MAX_PROVIDERS, ProviderStore, StoredSet};
use crate::validator::{
    CONNECTIVITY_TIMEOUT, ProviderValidator, SharedSuppression, SuppressionChange, SuppressionSettings, ValidProvider,
    ValidationReport, check_connectivity,
};
use change::{differences, make_the_same};

const STARTING: &str = "restoring the providers";
const REGISTERING: &str = "registering a provider";
const REMOVING: &str = "removing a provider";
const VALIDATING: &str = "validating a provider";
const RELOADING: &str = "reloading the providers";

/// A registered provider.
#[derive(Clone)]
pub struct ProviderEntry {
    /// Its definition, with priority and role in force. ([`ClusterProvider::descriptor`] keeps those with which the provider
    /// was made.)
    pub descriptor: ProviderDescriptor,
    /// Whether it is enabled, or why not.
    pub status: Enablement,
    /// Whether its backend answered when it was last asked, at the start or at registration. False also if it was not
    /// asked because the provider is disabled, and as long as it is pending. How it is now is the provider's health.
    pub reachable: bool,
    provider: Foreign<Arc<dyn ClusterProvider>>,
}

/// Whether a registered provider may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enablement {
    /// It may.
    Enabled,
    /// It may not.
    Disabled {
        /// Why.
        reason: ProvisioningError,
    },
    /// Not yet: it was given at the start, and its backend has not answered since. It is neither accepted nor stored, and
    /// asked again until it answers.
    Pending {
        /// What came of asking it last.
        reason: ProvisioningError,
    },
}

impl ProviderEntry {
    /// The provider itself.
    pub fn provider(&self) -> &Arc<dyn ClusterProvider> {
        &self.provider
    }

    /// Whether it is enabled.
    pub fn is_enabled(&self) -> bool {
        self.status == Enablement::Enabled
    }

    /// Whether its backend has to answer before it is accepted.
    pub fn is_pending(&self) -> bool {
        matches!(self.status, Enablement::Pending { .. })
    }
}

impl fmt::Display for ProviderEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, priority {}): ", self.descriptor.id, self.descriptor.kind, self.descriptor.priority)?;
        match &self.status {
            Enablement::Enabled if self.reachable => f.write_str("enabled"),
            Enablement::Enabled => f.write_str("enabled, but not reachable when last asked"),
            Enablement::Disabled { reason } => write!(f, "disabled: {reason}"),
            Enablement::Pending { reason } => write!(f, "pending: {reason}"),
        }
    }
}

impl fmt::Debug for ProviderEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderEntry")
            .field("descriptor", &self.descriptor)
            .field("status", &self.status)
            .field("reachable", &self.reachable)
            .finish_non_exhaustive()
    }
}

/// How a registry goes about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrySettings {
    /// How long all backends together have for answering, at a start and at each submission. Default 5 s.
    pub connectivity_timeout: Duration,
    /// Whether a start fails unless every given provider is accepted, rather than any one. Default false.
    pub require_all: bool,
    /// When enabling is suppressed.
    pub suppression: SuppressionSettings,
    /// The epoch of the start exceeds this one, which the host has kept of an earlier start. Default 0.
    pub epoch_above: u64,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        let suppression = SuppressionSettings::default();
        Self { connectivity_timeout: CONNECTIVITY_TIMEOUT, require_all: false, suppression, epoch_above: 0 }
    }
}

/// What came of a start.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// What is to be run.
    pub change: RegistryChange,
    /// Whether the set came from the store, rather than from the given definitions.
    pub restored: bool,
    /// In what the given definitions differ from the stored ones, which won.
    pub differences: Vec<DefinitionDifference>,
    /// Why stored providers could not be reached. They are accepted nevertheless.
    pub unreachable: Vec<ProvisioningError>,
    /// What is to be known of the epoch: that the clock was set back, and no store remembers earlier starts.
    pub epoch_warning: Option<ProvisioningError>,
    /// Why nothing is kept: the store holds a set that is whole, which is in force, and cannot be written. Each later
    /// change tries again.
    pub unsaved: Option<ProvisioningError>,
}

/// How a given definition differs from the stored one of the same name, which is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DefinitionDifference {
    /// The provider.
    pub id: ProviderId,
    /// One line per field that differs.
    pub fields: Vec<String>,
}

impl fmt::Display for DefinitionDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the given definition of provider {} is not in force: {}", self.id, self.fields.join("; "))
    }
}

/// The registered providers, in the order of their registration. See the module's description for how they change.
pub struct ProviderRegistry {
    validator: ProviderValidator,
    store: Option<Foreign<Box<dyn ProviderStore>>>,
    connectivity_timeout: Duration,
    suppression: SharedSuppression,
    epoch: u64,
    /// Whether the store does not know this epoch, since it could not be written.
    unsaved: bool,
    entries: Vec<ProviderEntry>,
}

impl ProviderRegistry {
    /// Starts from the store, or, if it holds no definitions, from the given ones.
    ///
    /// The epoch comes first: the start time in milliseconds, or the stored epoch + 1 if that is greater, is saved
    /// before anything else is done. Where the store holds a set and cannot be written ([`ErrorCode::StoreIo`]: a full
    /// disk, say), the start goes on with it all the same and [says so](RestoreReport::unsaved), unless only the store
    /// could make sure that epochs rise: with the clock behind the stored epoch, and the host's no greater. A stored
    /// set wins over the given one; its backends are asked, all at once, but need not answer. Given definitions that
    /// seed an empty store must all be right; of those that are, each is accepted whose backend answers. The others are
    /// *pending*: registered under their names, but neither accepted nor stored, to be asked again with
    /// [`ask_pending`](Self::ask_pending), also after a restart. The start needs one that is accepted, and asks again
    /// for as long as the connectivity timeout allows until there is one. Without a store nothing outlives the process,
    /// and the epoch is the start time, or one more than the last one of this process.
    ///
    /// # Errors
    /// Those of the store; [`ErrorCode::DuplicateName`] if two given definitions share a name;
    /// [`ErrorCode::NoProviders`] if there is no definition at all; what is wrong with the first definition that is not
    /// right, or that its backend refuses; else, if none is accepted (with [`RegistrySettings::require_all`]: if any is
    /// not), what came of asking. The stored definitions stay as they are.
    pub fn start(
        validator: ProviderValidator,
        store: Option<Box<dyn ProviderStore>>,
        given: Vec<ProviderDescriptor>,
        settings: RegistrySettings,
        now: Timestamp,
        cancel: &CancelToken,
    ) -> Result<(ProviderRegistry, RestoreReport), ProvisioningError> {
        Self::start_with(&epoch::PROCESS, validator, store, given, settings, now, cancel)
    }

    fn start_with(
        memory: &epoch::Memory,
        validator: ProviderValidator,
        store: Option<Box<dyn ProviderStore>>,
        given: Vec<ProviderDescriptor>,
        settings: RegistrySettings,
        now: Timestamp,
        cancel: &CancelToken,
    ) -> Result<(ProviderRegistry, RestoreReport), ProvisioningError> {
        let mut registry = Self {
            validator,
            store: store.map(Foreign::new),
            connectivity_timeout: settings.connectivity_timeout,
            suppression: SharedSuppression::new(settings.suppression),
            epoch: 0,
            unsaved: false,
            entries: Vec::new(),
        };
        let Taken { set, epoch_warning, mut unsaved } = registry.take_epoch(memory, settings.epoch_above, now)?;
        let StoredSet { descriptors: stored, pending, .. } = set;
        check_names(&given, STARTING)?;
        check_names(&stored, STARTING)?;
        let restored = !stored.is_empty();
        let is_seed = |given: &ProviderDescriptor| !restored || pending.contains(&given.id);
        let (seeds, others): (Vec<_>, Vec<_>) = given.into_iter().partition(is_seed);
        let differences = compare(&stored, &others);
        let made = |definitions: &[ProviderDescriptor]| {
            definitions.iter().map(|definition| registry.make(definition, None)).collect::<Result<Vec<_>, _>>()
        };
        let mut entries = made(&stored).map_err(of_stored)?;
        let unknown = |seed: &ProviderDescriptor| stored.iter().all(|stored| stored.id != seed.id);
        let seeds: Vec<_> = seeds.into_iter().filter(unknown).collect();
        let mut seeds = made(&seeds)?;
        if entries.is_empty() && seeds.is_empty() {
            return Err(ProvisioningError::new(ErrorCode::NoProviders, STARTING, "neither stored nor given ones"));
        }
        sites::check(&registry.validator, enabled(entries.iter().chain(&seeds)), STARTING)?;
        if !restored {
            seeding::admit(&mut seeds, settings.connectivity_timeout, settings.require_all, cancel)?;
        }
        let stored = entries.len();
        entries.append(&mut seeds);
        let mut unreachable = Vec::new();
        if restored {
            for (index, reason) in connect(&mut entries, |_| true, settings.connectivity_timeout, cancel) {
                match index < stored {
                    true => unreachable.push(reason),
                    false => entries[index].status = Enablement::Pending { reason },
                }
            }
        }
        match registry.save(&entries) {
            Ok(()) => unsaved = None,
            Err(error) if registry.unsaved && error.code() == ErrorCode::StoreIo => {}
            Err(error) => return Err(error),
        }
        let change = registry.put_in_force(entries);
        Ok((registry, RestoreReport { change, restored, differences, unreachable, epoch_warning, unsaved }))
    }

    /// Adds a provider at the end of the order. A definition identical to that of a registered one changes nothing; that
    /// of a pending one is asked at once. One that lacks a required capability is accepted as disabled.
    ///
    /// # Errors
    /// [`ErrorCode::DuplicateName`] if a different definition has the name: the existing one stays. What the validator
    /// or the backend says; each of these counts as a validation failure, but for a backend that does not answer.
    /// [`ErrorCode::EnablingSuppressed`] if there were too many. Those of the store. The set in force is unchanged.
    pub fn register(
        &mut self,
        descriptor: ProviderDescriptor,
        now: Timestamp,
        cancel: &CancelToken,
    ) -> Result<RegistryChange, ProvisioningError> {
        let prepared = check_name(&self.entries, &descriptor).and_then(|()| {
            let known = self.get(&descriptor.id);
            if let Some(pending) = known.filter(|entry| entry.is_pending()).cloned() {
                return self.prepare_pending(pending, now, cancel);
            }
            let added = known.is_none().then_some(descriptor);
            let definitions = self.entries.iter().map(|entry| entry.descriptor.clone()).chain(added).collect();
            self.prepare(definitions, REGISTERING, now, cancel)
        });
        self.settle(prepared, now)
    }

    /// Removes a provider.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownProvider`] if there is none of that name, [`ErrorCode::NoProviders`] if it is the last one;
    /// those of the store. The set in force is unchanged.
    pub fn remove(&mut self, id: &ProviderId) -> Result<RegistryChange, ProvisioningError> {
        let entries: Vec<_> = self.entries.iter().filter(|entry| entry.descriptor.id != *id).cloned().collect();
        let accepted = |entries: &[ProviderEntry]| entries.iter().filter(|entry| !entry.is_pending()).count();
        let refuse = |code, reason: &'static str| Err(ProvisioningError::new(code, REMOVING, reason).with_provider(id));
        if entries.len() == self.entries.len() {
            return refuse(ErrorCode::UnknownProvider, "it is not registered");
        }
        if accepted(&entries) == 0 {
            return refuse(ErrorCode::NoProviders, "it is the last one that was accepted");
        }
        self.commit(entries)
    }

    /// Replaces the whole set. Providers whose definitions are unchanged go on, and so do those of which only priority or
    /// role changed; their backends are not asked, and pending ones stay pending. The order becomes that of the new
    /// set.
    ///
    /// # Errors
    /// [`ErrorCode::NoProviders`] if the new set is empty, [`ErrorCode::DuplicateName`] if it names a provider twice,
    /// else as for [`register`](Self::register). The old set stays wholly in force.
    pub fn replace_all(
        &mut self,
        definitions: Vec<ProviderDescriptor>,
        now: Timestamp,
        cancel: &CancelToken,
    ) -> Result<RegistryChange, ProvisioningError> {
        let prepared = self.prepare(definitions, RELOADING, now, cancel);
        self.settle(prepared, now)
    }

    /// Asks the backends of the pending providers again, all at once, and accepts those that answer. What came of asking
    /// the others is in their status. Blocks for the connectivity timeout at most.
    ///
    /// # Errors
    /// Those of the store; all stay pending.
    pub fn ask_pending(&mut self, now: Timestamp, cancel: &CancelToken) -> Result<RegistryChange, ProvisioningError> {
        let pending = self.pending();
        let answers = check_connectivity(&pending, self.connectivity_timeout, cancel);
        self.accept(pending.into_iter().zip(answers), now)
    }

    /// The pending providers.
    pub(crate) fn pending(&self) -> Vec<Arc<dyn ClusterProvider>> {
        self.entries.iter().filter(|entry| entry.is_pending()).map(|entry| Arc::clone(entry.provider())).collect()
    }

    /// Accepts those of the pending providers whose backends have answered, unless enabling is suppressed.
    ///
    /// # Errors
    /// Those of the store; all stay pending.
    pub(crate) fn accept(
        &mut self,
        answers: impl IntoIterator<Item = (Arc<dyn ClusterProvider>, Result<(), ProvisioningError>)>,
        now: Timestamp,
    ) -> Result<RegistryChange, ProvisioningError> {
        self.suppression.advance(now);
        let suppressed = self.suppression.is_active();
        let mut entries = self.entries.clone();
        for (provider, answer) in answers {
            let asked = |entry: &&mut ProviderEntry| entry.is_pending() && Arc::ptr_eq(entry.provider(), &provider);
            let Some(entry) = entries.iter_mut().find(asked) else { continue };
            match answer {
                Ok(()) if suppressed => {}
                Ok(()) => (entry.status, entry.reachable) = (Enablement::Enabled, true),
                Err(reason) => entry.status = Enablement::Pending { reason },
            }
        }
        if entries.iter().zip(&self.entries).any(|(new, old)| new.is_pending() != old.is_pending()) {
            return self.commit(entries);
        }
        self.entries = entries;
        Ok(RegistryChange::between(&self.entries, &self.entries))
    }

    /// Judges a definition as [`register`](Self::register) would, without changing anything and without counting as a
    /// failure. Its backend is asked if `connectivity` is set.
    pub fn dry_run(
        &self,
        descriptor: &ProviderDescriptor,
        connectivity: bool,
        cancel: &CancelToken,
    ) -> ValidationReport {
        let timeout = connectivity.then_some(self.connectivity_timeout);
        judge(&self.validator, &self.entries, descriptor, timeout, cancel)
    }

    /// The registered providers, in the order of their registration.
    pub fn list(&self) -> &[ProviderEntry] {
        &self.entries
    }

    /// The provider of that name.
    pub fn get(&self, id: &ProviderId) -> Option<&ProviderEntry> {
        self.entries.iter().find(|entry| entry.descriptor.id == *id)
    }

    /// The epoch of this start: greater than that of every earlier start with the same store.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether enabling is suppressed at this time, and if so, until when if nothing more fails.
    pub fn suppressed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.suppression.until().filter(|until| now < *until)
    }

    /// Lifts the suppression; whether there was one.
    pub fn lift_suppression(&mut self, now: Timestamp) -> bool {
        self.suppression.lift(now)
    }

    /// The beginnings and ends of suppression since the last call, up to this time, oldest first; at most 64. Each is
    /// worth a warning event. To be called after every operation, and at [`suppressed_until`](Self::suppressed_until).
    pub fn take_suppression_changes(&mut self, now: Timestamp) -> Vec<SuppressionChange> {
        self.suppression.take_changes(now)
    }

    /// How many submissions were refused because of what was wrong with them or their backends.
    pub fn validation_failures(&self) -> u64 {
        self.suppression.total()
    }

    /// The suppression, which can be looked at and lifted while an operation is under way.
    pub(crate) fn suppression(&self) -> &SharedSuppression {
        &self.suppression
    }

    /// Whether the store could not be written at the start, nor since.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// Saves what is in force again where that could not be done at the start.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn save_again(&mut self) -> Result<(), ProvisioningError> {
        let entries = self.entries.clone();
        if self.unsaved { self.save(&entries) } else { Ok(()) }
    }

    /// Reads the stored definitions, and saves the new epoch with them before anything else is done.
    fn take_epoch(&mut self, memory: &epoch::Memory, above: u64, now: Timestamp) -> Result<Taken, ProvisioningError> {
        let stored = with_store(&mut self.store, STARTING, |store| store.load())?;
        let (millis, last) = (now.as_millis(), stored.as_ref().map(|stored| stored.epoch));
        let epoch = epoch::next(memory, millis, last, above, STARTING)?;
        self.epoch = epoch.epoch;
        let mut set = StoredSet { epoch: self.epoch, ..stored.unwrap_or_default() };
        let unsaved = match with_store(&mut self.store, STARTING, |store| store.save(&set)) {
            Ok(_) => None,
            Err(error) if error.code() == ErrorCode::StoreIo && !set.descriptors.is_empty() => {
                let chosen = memory.unsaved(self.epoch, millis, last.unwrap_or_default(), above);
                self.epoch = chosen.ok_or_else(|| without_order(&error))?;
                set.epoch = self.epoch;
                self.unsaved = true;
                Some(kept_in_memory(&error))
            }
            Err(error) => return Err(error),
        };
        Ok(Taken { set, epoch_warning: epoch.warning, unsaved })
    }

    /// The entries of the new set: those in force where the definition still makes the same provider, new ones
    /// otherwise. Changes nothing but the passage of time.
    fn prepare(
        &mut self,
        definitions: Vec<ProviderDescriptor>,
        doing: &'static str,
        now: Timestamp,
        cancel: &CancelToken,
    ) -> Result<Vec<ProviderEntry>, ProvisioningError> {
        self.suppression.advance(now);
        if definitions.is_empty() {
            return Err(ProvisioningError::new(ErrorCode::NoProviders, doing, "the new set is empty"));
        }
        check_names(&definitions, doing)?;
        let (mut entries, mut fresh) = (Vec::with_capacity(definitions.len()), Vec::new());
        for definition in definitions {
            match self.get(&definition.id) {
                Some(entry) if entry.descriptor == definition => entries.push(entry.clone()),
                Some(entry) if make_the_same(&entry.descriptor, &definition) => {
                    self.validator.check_fields(&definition)?;
                    entries.push(ProviderEntry { descriptor: definition, ..entry.clone() });
                }
                former => {
                    let former = former.filter(|former| former.descriptor.kind == definition.kind);
                    let entry = self.make(&definition, former)?;
                    fresh.push(entries.len());
                    entries.push(entry);
                }
            }
        }
        sites::check(&self.validator, enabled(&entries), doing)?;
        self.ask_newcomers(&mut entries, &fresh, doing, cancel)?;
        if let Some(Enablement::Pending { reason }) = entries.first().map(|entry| &entry.status)
            && entries.iter().all(ProviderEntry::is_pending)
        {
            return Err(reason.clone());
        }
        Ok(entries)
    }

    /// The entries once the backend of this pending one has answered.
    fn prepare_pending(
        &self,
        pending: ProviderEntry,
        now: Timestamp,
        cancel: &CancelToken,
    ) -> Result<Vec<ProviderEntry>, ProvisioningError> {
        self.suppression.advance(now);
        let mut entries = self.entries.clone();
        let place = entries.iter().position(|entry| entry.descriptor.id == pending.descriptor.id);
        let places: Vec<_> = place.into_iter().collect();
        places.iter().for_each(|index| entries[*index].status = Enablement::Enabled);
        self.ask_newcomers(&mut entries, &places, REGISTERING, cancel)?;
        Ok(entries)
    }

    /// Asks the backends of the entries at these places, each of which has to answer.
    fn ask_newcomers(
        &self,
        entries: &mut [ProviderEntry],
        places: &[usize],
        doing: &'static str,
        cancel: &CancelToken,
    ) -> Result<(), ProvisioningError> {
        let mut newcomers: Vec<_> = places.iter().map(|index| entries[*index].clone()).collect();
        if let Some(newcomer) = newcomers.iter().find(|entry| entry.is_enabled() && self.suppression.is_active()) {
            let reason = "there were too many validation failures";
            let error = ProvisioningError::new(ErrorCode::EnablingSuppressed, doing, reason);
            return Err(error.with_provider(&newcomer.descriptor.id));
        }
        let silent = connect(&mut newcomers, |_| true, self.connectivity_timeout, cancel);
        if let Some((_, error)) = silent.into_iter().next() {
            return Err(error);
        }
        for (index, newcomer) in places.iter().zip(newcomers) {
            entries[*index] = newcomer;
        }
        Ok(())
    }

    /// Commits what was prepared, or counts the failure.
    fn settle(
        &mut self,
        prepared: Result<Vec<ProviderEntry>, ProvisioningError>,
        now: Timestamp,
    ) -> Result<RegistryChange, ProvisioningError> {
        match prepared {
            Ok(entries) => self.commit(entries),
            Err(error) => {
                if is_failure(&error) {
                    self.suppression.failure(now);
                }
                Err(error)
            }
        }
    }

    /// Saves the new set and puts it in force; after the save nothing can fail.
    fn commit(&mut self, entries: Vec<ProviderEntry>) -> Result<RegistryChange, ProvisioningError> {
        // Saved also if nothing changed: after a failed save the store may hold the other set.
        self.save(&entries)?;
        Ok(self.put_in_force(entries))
    }

    fn save(&mut self, entries: &[ProviderEntry]) -> Result<(), ProvisioningError> {
        let (pending, accepted): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.is_pending());
        let set = StoredSet {
            epoch: self.epoch,
            descriptors: accepted.into_iter().map(|entry| entry.descriptor.clone()).collect(),
            pending: pending.into_iter().map(|entry| entry.descriptor.id.clone()).collect(),
        };
        with_store(&mut self.store, "saving the provider set", |store| store.save(&set))?;
        self.unsaved = false;
        Ok(())
    }

    fn put_in_force(&mut self, entries: Vec<ProviderEntry>) -> RegistryChange {
        let change = RegistryChange::between(&self.entries, &entries);
        self.entries = entries;
        change
    }

    /// A new entry, not yet known to be reachable. `former`: the one of the same name and kind whose place it takes.
    fn make(
        &self,
        descriptor: &ProviderDescriptor,
        former: Option<&ProviderEntry>,
    ) -> Result<ProviderEntry, ProvisioningError> {
        let valid = match former {
            Some(former) => self.validator.validate_edit(descriptor, &**former.provider)?,
            None => self.validator.validate(descriptor)?,
        };
        let status = match valid.shortfall {
            None => Enablement::Enabled,
            Some(reason) => Enablement::Disabled { reason },
        };
        Ok(ProviderEntry { descriptor: descriptor.clone(), status, reachable: false, provider: valid.provider })
    }
}

/// What a start has found in the store, with its own epoch.
struct Taken {
    set: StoredSet,
    epoch_warning: Option<ProvisioningError>,
    /// Why the epoch is not kept.
    unsaved: Option<ProvisioningError>,
}

/// The warning of a start that goes on although the store cannot be written.
fn kept_in_memory(error: &ProvisioningError) -> ProvisioningError {
    let detail = format!(
        "{}; the stored providers are in force, but the epoch of this start is only in memory, and no change is accepted \
         before it can be written",
        error.detail()
    );
    error.clone().while_doing(STARTING).with_detail(detail).with_advice(
        "make room or make the path writable, while the service runs: it tries the store again from time to time",
    )
}

/// The error of a start that cannot go on without the store.
fn without_order(error: &ProvisioningError) -> ProvisioningError {
    let detail = format!("{}; and the clock is behind the epoch of an earlier start", error.detail());
    let advice = "make the store writable, set the clock, or hand the builder the last epoch with epoch_above";
    error.clone().while_doing(STARTING).with_detail(detail).with_advice(advice)
}

/// Asks the backends of those enabled entries, all at once, and marks those that answer; the places of the others, and
/// why.
fn connect(
    entries: &mut [ProviderEntry],
    which: impl Fn(&ProviderEntry) -> bool,
    timeout: Duration,
    cancel: &CancelToken,
) -> Vec<(usize, ProvisioningError)> {
    let asked = entries.iter_mut().enumerate().filter(|(_, entry)| entry.is_enabled() && which(entry));
    let mut asked: Vec<_> = asked.collect();
    let providers: Vec<_> = asked.iter().map(|(_, entry)| Arc::clone(entry.provider())).collect();
    let answers = check_connectivity(&providers, timeout, cancel);
    let mut silent = Vec::new();
    for ((index, entry), answer) in asked.iter_mut().zip(answers) {
        entry.reachable = answer.is_ok();
        silent.extend(answer.err().map(|error| (*index, error)));
    }
    silent
}

impl fmt::Debug for ProviderRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderRegistry")
            .field("epoch", &self.epoch)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// Judges a definition beside those that are registered, without changing anything. See [`ProviderRegistry::dry_run`].
pub(crate) fn judge(
    validator: &ProviderValidator,
    entries: &[ProviderEntry],
    descriptor: &ProviderDescriptor,
    connectivity: Option<Duration>,
    cancel: &CancelToken,
) -> ValidationReport {
    let fits = |valid: &ValidProvider| {
        let others = enabled(entries).filter(|(id, _)| **id != descriptor.id);
        let this = valid.shortfall.is_none().then_some((&descriptor.id, valid.provider()));
        sites::check(validator, others.chain(this), VALIDATING)
    };
    let report = validator.dry_run_among(descriptor, connectivity, cancel, fits);
    ValidationReport { name: check_name(entries, descriptor), ..report }
}

/// The providers that are enabled, or will be once their backends answer, with their names.
fn enabled<'a>(
    entries: impl IntoIterator<Item = &'a ProviderEntry>,
) -> impl Iterator<Item = (&'a ProviderId, &'a Arc<dyn ClusterProvider>)> {
    let enabled = entries.into_iter().filter(|entry| entry.is_enabled() || entry.is_pending());
    enabled.map(|entry| (&entry.descriptor.id, entry.provider()))
}

/// Whether the name is free, or belongs to the same definition.
fn check_name(entries: &[ProviderEntry], descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
    let Some(existing) = entries.iter().find(|entry| entry.descriptor.id == descriptor.id) else { return Ok(()) };
    let fields = differences(&existing.descriptor, descriptor);
    if fields.is_empty() {
        return Ok(());
    }
    let reason = format!("the name is taken by a different definition: {}", fields.join("; "));
    let error = ProvisioningError::new(ErrorCode::DuplicateName, REGISTERING, reason).with_provider(&descriptor.id);
    Err(error.with_advice("choose another name, or reload the set to define the provider anew"))
}

/// Whether a refused submission counts towards suppression: everything that is wrong with it, but not a backend that does
/// not answer, nor the suppression itself, which would never end for one who tries again and again, nor a stop, which is
/// not its fault.
fn is_failure(error: &ProvisioningError) -> bool {
    match error.code() {
        ErrorCode::EnablingSuppressed | ErrorCode::Stopped | ErrorCode::ThreadRefused => false,
        code => code.category() != ErrorCategory::Store && !code.is_outage(),
    }
}

/// The same error, saying that the definition is a stored one: the operator will not find it in the configuration.
fn of_stored(error: ProvisioningError) -> ProvisioningError {
    let detail = format!("its stored definition cannot be used: {}", error.detail());
    error.while_doing(STARTING).with_detail(detail)
}

/// Uses the store, if there is one. A store may be the host's own: its panic is an error.
fn with_store<T>(
    store: &mut Option<Foreign<Box<dyn ProviderStore>>>,
    doing: &'static str,
    work: impl FnOnce(&mut dyn ProviderStore) -> Result<T, ProvisioningError>,
) -> Result<Option<T>, ProvisioningError> {
    let Some(store) = store else { return Ok(None) };
    let outcome = caught(|| work(&mut ***store)).unwrap_or_else(|panic| {
        let error = ProvisioningError::new(ErrorCode::StoreIo, doing, format!("the store panicked: {panic}"));
        Err(error.with_advice("report the panic to the store's author"))
    });
    outcome.map(Some)
}

/// Refuses sets that name a provider twice, or too many providers.
fn check_names(definitions: &[ProviderDescriptor], doing: &'static str) -> Result<(), ProvisioningError> {
    if definitions.len() > MAX_PROVIDERS {
        let reason = format!("{} providers are more than the {MAX_PROVIDERS} allowed", definitions.len());
        let error = ProvisioningError::new(ErrorCode::InvalidConfig, doing, reason);
        return Err(error.with_advice("define fewer providers"));
    }
    let mut ids = BTreeSet::new();
    match definitions.iter().find(|definition| !ids.insert(&definition.id)) {
        None => Ok(()),
        Some(twice) => {
            let reason = "the set defines it more than once";
            let error = ProvisioningError::new(ErrorCode::DuplicateName, doing, reason).with_provider(&twice.id);
            Err(error.with_advice("give each definition of the set a name of its own"))
        }
    }
}

/// How the given definitions differ from the stored ones, including those that the store does not know at all.
fn compare(stored: &[ProviderDescriptor], given: &[ProviderDescriptor]) -> Vec<DefinitionDifference> {
    let difference = |given: &ProviderDescriptor| {
        let fields = match stored.iter().find(|stored| stored.id == given.id) {
            Some(stored) => differences(stored, given),
            None => vec!["the store holds other providers, but not this one".to_owned()],
        };
        (!fields.is_empty()).then(|| DefinitionDifference { id: given.id.clone(), fields })
    };
    given.iter().filter_map(difference).collect()
}

#[cfg(test)]
mod tests;
