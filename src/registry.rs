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
use crate::panics::caught;
use crate::provider::{CancelToken, ClusterProvider, ProviderDescriptor};
use crate::store::{MAX_PROVIDERS, ProviderStore, StoredSet};
use crate::validator::{
    CONNECTIVITY_TIMEOUT, ProviderValidator, SharedSuppression, SuppressionChange, SuppressionSettings, ValidProvider,
    ValidationReport, check_connectivity,
};
use change::{differences, equal_but_for_priority};

const STARTING: &str = "restoring the providers";
const REGISTERING: &str = "registering a provider";
const REMOVING: &str = "removing a provider";
const VALIDATING: &str = "validating a provider";
const RELOADING: &str = "reloading the providers";

/// A registered provider.
#[derive(Clone)]
pub struct ProviderEntry {
    /// Its definition, with the priority in force. ([`ClusterProvider::descriptor`] keeps the priority with which the
    /// provider was made.)
    pub descriptor: ProviderDescriptor,
    /// Whether it is enabled, or why not.
    pub status: Enablement,
    /// Whether its backend answered when it was last asked, at the start or at registration. False also if it was not
    /// asked because the provider is disabled, and as long as it is pending. How it is now is the provider's health.
    pub reachable: bool,
    provider: Arc<dyn ClusterProvider>,
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
}

/// How a given definition differs from the stored one of the same name, which is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    store: Option<Box<dyn ProviderStore>>,
    connectivity_timeout: Duration,
    suppression: SharedSuppression,
    epoch: u64,
    entries: Vec<ProviderEntry>,
}

impl ProviderRegistry {
    /// Starts from the store, or, if it holds no definitions, from the given ones.
    ///
    /// The epoch comes first: the start time in milliseconds, or the stored epoch + 1 if that is greater, is saved before
    /// anything else is done. A stored set wins over the given one; its backends are asked, all at once, but need not
    /// answer. Given definitions that seed an empty store must all be right; of those that are, each is accepted whose
    /// backend answers. The others are *pending*: registered under their names, but neither accepted nor stored, to be
    /// asked again with [`ask_pending`](Self::ask_pending), also after a restart. The start needs one that is accepted, and
    /// asks again for as long as the connectivity timeout allows until there is one. Without a store nothing outlives the
    /// process, and the epoch is the start time, or one more than the last one of this process.
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
        let mut registry = Self {
            validator,
            store,
            connectivity_timeout: settings.connectivity_timeout,
            suppression: SharedSuppression::new(settings.suppression),
            epoch: 0,
            entries: Vec::new(),
        };
        let (StoredSet { descriptors: stored, pending, .. }, epoch_warning) =
            registry.take_epoch(settings.epoch_above, now)?;
        check_names(&given, STARTING)?;
        check_names(&stored, STARTING)?;
        let restored = !stored.is_empty();
        let is_seed = |given: &ProviderDescriptor| !restored || pending.contains(&given.id);
        let (seeds, others): (Vec<_>, Vec<_>) = given.into_iter().partition(is_seed);
        let differences = compare(&stored, &others);
        let made = |definitions: &[ProviderDescriptor]| {
            definitions.iter().map(|definition| registry.make(definition, None)).collect::<Result<Vec<_>, _>>()
        };
        let mut entries = made(&stored).map_err(|error| of_stored(&error))?;
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
        let change = registry.commit(entries)?;
        Ok((registry, RestoreReport { change, restored, differences, unreachable, epoch_warning }))
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

    /// Replaces the whole set. Providers whose definitions are unchanged go on, and so do those of which only the
    /// priority changed; their backends are not asked, and pending ones stay pending. The order becomes that of the new
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
        self.entries.iter().filter(|entry| entry.is_pending()).map(|entry| Arc::clone(&entry.provider)).collect()
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
            let asked = |entry: &&mut ProviderEntry| entry.is_pending() && Arc::ptr_eq(&entry.provider, &provider);
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

    /// Reads the stored definitions, and saves the new epoch with them before anything else is done.
    fn take_epoch(
        &mut self,
        above: u64,
        now: Timestamp,
    ) -> Result<(StoredSet, Option<ProvisioningError>), ProvisioningError> {
        let stored = with_store(&mut self.store, STARTING, |store| store.load())?;
        let epoch = epoch::next(now.as_millis(), stored.as_ref().map(|stored| stored.epoch), above, STARTING)?;
        self.epoch = epoch.epoch;
        let set = StoredSet { epoch: self.epoch, ..stored.unwrap_or_default() };
        with_store(&mut self.store, STARTING, |store| store.save(&set))?;
        Ok((set, epoch.warning))
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
                Some(entry) if equal_but_for_priority(&entry.descriptor, &definition) => {
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
        let (pending, accepted): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.is_pending());
        let set = StoredSet {
            epoch: self.epoch,
            descriptors: accepted.into_iter().map(|entry| entry.descriptor.clone()).collect(),
            pending: pending.into_iter().map(|entry| entry.descriptor.id.clone()).collect(),
        };
        with_store(&mut self.store, "saving the provider set", |store| store.save(&set))?;
        let change = RegistryChange::between(&self.entries, &entries);
        self.entries = entries;
        Ok(change)
    }

    /// A new entry, not yet known to be reachable. `former`: the one of the same name and kind whose place it takes.
    fn make(
        &self,
        descriptor: &ProviderDescriptor,
        former: Option<&ProviderEntry>,
    ) -> Result<ProviderEntry, ProvisioningError> {
        let valid = match former {
            Some(former) => self.validator.validate_edit(descriptor, &*former.provider)?,
            None => self.validator.validate(descriptor)?,
        };
        let status = match valid.shortfall {
            None => Enablement::Enabled,
            Some(reason) => Enablement::Disabled { reason },
        };
        Ok(ProviderEntry { descriptor: descriptor.clone(), status, reachable: false, provider: valid.provider })
    }
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
    let providers: Vec<_> = asked.iter().map(|(_, entry)| Arc::clone(&entry.provider)).collect();
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
        let this = valid.shortfall.is_none().then_some((&descriptor.id, &valid.provider));
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
    enabled.map(|entry| (&entry.descriptor.id, &entry.provider))
}

/// Whether the name is free, or belongs to the same definition.
fn check_name(entries: &[ProviderEntry], descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
    let Some(existing) = entries.iter().find(|entry| entry.descriptor.id == descriptor.id) else { return Ok(()) };
    let fields = differences(&existing.descriptor, descriptor);
    if fields.is_empty() {
        return Ok(());
    }
    let reason = format!("the name is taken by a different definition: {}", fields.join("; "));
    Err(ProvisioningError::new(ErrorCode::DuplicateName, REGISTERING, reason).with_provider(&descriptor.id))
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
fn of_stored(error: &ProvisioningError) -> ProvisioningError {
    let detail = format!("its stored definition cannot be used: {}", error.detail());
    let mut told = ProvisioningError::new(error.code(), STARTING, detail);
    if let Some(provider) = error.provider() {
        told = told.with_provider(provider);
    }
    if let Some(field) = error.field() {
        told = told.with_field(field.to_owned());
    }
    told
}

/// Uses the store, if there is one. A store may be the host's own: its panic is an error.
fn with_store<T>(
    store: &mut Option<Box<dyn ProviderStore>>,
    doing: &'static str,
    work: impl FnOnce(&mut dyn ProviderStore) -> Result<T, ProvisioningError>,
) -> Result<Option<T>, ProvisioningError> {
    let Some(store) = store else { return Ok(None) };
    let outcome = caught(|| work(store.as_mut())).unwrap_or_else(|panic| {
        Err(ProvisioningError::new(ErrorCode::StoreIo, doing, format!("the store panicked: {panic}")))
    });
    outcome.map(Some)
}

/// Refuses sets that name a provider twice, or too many providers.
fn check_names(definitions: &[ProviderDescriptor], doing: &'static str) -> Result<(), ProvisioningError> {
    if definitions.len() > MAX_PROVIDERS {
        let reason = format!("{} providers are more than the {MAX_PROVIDERS} allowed", definitions.len());
        return Err(ProvisioningError::new(ErrorCode::InvalidConfig, doing, reason));
    }
    let mut ids = BTreeSet::new();
    match definitions.iter().find(|definition| !ids.insert(&definition.id)) {
        None => Ok(()),
        Some(twice) => {
            let reason = "the set defines it more than once";
            Err(ProvisioningError::new(ErrorCode::DuplicateName, doing, reason).with_provider(&twice.id))
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
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::id::ProviderKind;
    use crate::validator::testing::{Backends, definition, validator};

    /// A store in memory that can be made to fail.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<DiskState>>);

    #[derive(Default)]
    struct DiskState {
        set: StoredSet,
        saves: Vec<StoredSet>,
        fails: bool,
        panics: bool,
    }

    impl ProviderStore for Disk {
        fn load(&mut self) -> Result<StoredSet, ProvisioningError> {
            Ok(self.0.lock().unwrap().set.clone())
        }

        fn save(&mut self, set: &StoredSet) -> Result<(), ProvisioningError> {
            let (fails, panics) = {
                let mut state = self.0.lock().unwrap();
                if !state.fails && !state.panics {
                    state.set = set.clone();
                    state.saves.push(set.clone());
                }
                (state.fails, state.panics)
            };
            assert!(!panics, "a scripted panic");
            if fails { Err(ProvisioningError::new(ErrorCode::StoreIo, "saving", "disk full")) } else { Ok(()) }
        }
    }

    impl Disk {
        fn holding(epoch: u64, descriptors: Vec<ProviderDescriptor>) -> Disk {
            let disk = Disk::default();
            disk.0.lock().unwrap().set = StoredSet { epoch, descriptors, ..StoredSet::default() };
            disk
        }

        fn set(&self) -> StoredSet {
            self.0.lock().unwrap().set.clone()
        }

        fn fails(&self, fails: bool) {
            self.0.lock().unwrap().fails = fails;
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    type Attempt = fn(&mut ProviderRegistry) -> Result<RegistryChange, ProvisioningError>;
    type Started = Result<(ProviderRegistry, RestoreReport), ProvisioningError>;

    fn start(disk: &Disk, given: Vec<ProviderDescriptor>, down: &[&str]) -> (Started, Arc<Backends>) {
        let (validator, backends) = validator();
        backends.down(down);
        let settings =
            RegistrySettings { connectivity_timeout: Duration::from_secs(60), ..RegistrySettings::default() };
        let store = Some(Box::new(disk.clone()) as Box<dyn ProviderStore>);
        (ProviderRegistry::start(validator, store, given, settings, at(0), &CancelToken::new()), backends)
    }

    /// A registry seeded with definitions of these names; nothing noted yet.
    fn seeded(ids: &[&str]) -> (ProviderRegistry, Disk, Arc<Backends>) {
        let disk = Disk::default();
        let (started, backends) = start(&disk, ids.iter().map(|id| definition(id)).collect(), &[]);
        let _ = (backends.take_checked(), backends.take_made());
        (started.unwrap().0, disk, backends)
    }

    fn id(text: &str) -> ProviderId {
        ProviderId::new(text).unwrap()
    }

    fn never() -> CancelToken {
        CancelToken::new()
    }

    fn names<'a>(ids: impl IntoIterator<Item = &'a ProviderId>) -> Vec<&'a str> {
        ids.into_iter().map(ProviderId::as_str).collect()
    }

    fn added(change: &RegistryChange) -> Vec<&str> {
        names(change.added.iter().map(|entry| &entry.descriptor.id))
    }

    fn registered(registry: &ProviderRegistry) -> Vec<ProviderDescriptor> {
        registry.list().iter().map(|entry| entry.descriptor.clone()).collect()
    }

    /// The set in force, by the providers themselves: equal only if nothing was made anew.
    fn in_force(registry: &ProviderRegistry) -> Vec<(ProviderDescriptor, Enablement, bool, usize)> {
        let identity = |entry: &ProviderEntry| Arc::as_ptr(&entry.provider).cast::<()>() as usize;
        let entry =
            |entry: &ProviderEntry| (entry.descriptor.clone(), entry.status.clone(), entry.reachable, identity(entry));
        registry.list().iter().map(entry).collect()
    }

    // Start

    #[test]
    fn p1_5_accepted_definitions_are_restored_after_a_restart_in_their_order() {
        let disk = Disk::default();
        let (started, _) = start(&disk, vec![definition("b")], &[]);
        let (mut registry, report) = started.unwrap();
        assert!(!report.restored);
        assert_eq!(added(&report.change), ["b"]);
        registry.register(definition("a").priority(7), at(1), &never()).unwrap();
        let before = registered(&registry);

        let (registry, report) = start(&disk, vec![], &[]).0.unwrap();
        assert!(report.restored && report.differences.is_empty() && report.unreachable.is_empty());
        assert_eq!(registered(&registry), before);
        assert_eq!(names(&report.change.order), ["b", "a"]);
        assert!(registry.list().iter().all(|entry| entry.reachable));
    }

    #[test]
    fn p1_5_a_stored_set_wins_over_the_given_one_and_the_difference_is_named() {
        let disk = Disk::holding(1, vec![definition("same"), definition("a").priority(1), definition("stored-only")]);
        let given = vec![
            definition("same"),
            definition("a").priority(2).endpoint("x").parameter("service", "bills").parameter("watch", "no"),
            definition("given-only"),
        ];
        let (registry, report) = start(&disk, given, &[]).0.unwrap();
        assert_eq!(names(registry.list().iter().map(|entry| &entry.descriptor.id)), ["same", "a", "stored-only"]);
        assert_eq!(registry.get(&id("a")).unwrap().descriptor.priority, 1);
        let found: Vec<_> = report.differences.iter().map(|found| (found.id.as_str(), found.fields.clone())).collect();
        assert_eq!(
            found,
            [
                (
                    "a",
                    vec![
                        "priority: 1 in force, 2 given".to_owned(),
                        "endpoints: [] in force, [\"x\"] given".to_owned(),
                        "service: \"orders\" in force, \"bills\" given".to_owned(),
                        "watch: none in force, \"no\" given".to_owned(),
                    ]
                ),
                ("given-only", vec!["the store holds other providers, but not this one".to_owned()]),
            ]
        );
    }

    #[test]
    fn p1_5_every_field_shows_in_the_difference() {
        use crate::provider::Credential;
        let stored = definition("a");
        let mut other_kind = stored.clone();
        other_kind.kind = ProviderKind::consul();
        let variants = [
            (other_kind, "kind: scripted in force, consul given"),
            (stored.clone().priority(3), "priority: 0 in force, 3 given"),
            (stored.clone().endpoint("x"), "endpoints: [] in force, [\"x\"] given"),
            (
                stored.clone().credential(Credential::TokenEnv("T".into())),
                "credential: none in force, environment variable \"T\" given",
            ),
            (stored.clone().parameter("p", "1"), "p: none in force, \"1\" given"),
        ];
        for (given, line) in variants {
            assert_eq!(differences(&stored, &given), [line]);
            let priority_only = line.starts_with("priority");
            assert_eq!(equal_but_for_priority(&stored, &given), priority_only, "{line}");
        }
        assert!(differences(&stored, &stored.clone()).is_empty());
    }

    #[test]
    fn p1_5_the_epoch_rises_from_start_to_start_and_is_saved_before_anything_else() {
        let disk = Disk::default();
        assert_eq!(start(&disk, vec![definition("a")], &[]).0.unwrap().0.epoch(), at(0).as_millis());
        // The clock stands still, or was set back.
        assert_eq!(start(&disk, vec![], &[]).0.unwrap().0.epoch(), at(0).as_millis() + 1);
        assert_eq!(disk.set().epoch, at(0).as_millis() + 1);

        // Also a start that fails has used its epoch up, and the stored definitions stay.
        let disk = Disk::holding(5, vec![definition("a").parameter("panic", "create")]);
        assert!(start(&disk, vec![], &[]).0.is_err());
        assert_eq!(
            disk.set(),
            StoredSet { epoch: at(0).as_millis(), ..Disk::holding(5, disk.set().descriptors).set() }
        );
        assert_eq!(disk.0.lock().unwrap().saves.len(), 1);

        let disk = Disk::holding(5, vec![definition("a")]);
        disk.fails(true);
        let (started, backends) = start(&disk, vec![], &[]);
        assert_eq!(started.unwrap_err().code(), ErrorCode::StoreIo);
        assert!(backends.take_made().is_empty(), "no epoch, no start");

        let disk = Disk::holding(u64::MAX, vec![definition("a")]);
        assert_eq!(start(&disk, vec![], &[]).0.unwrap_err().code(), ErrorCode::StoreCorrupt);
    }

    #[test]
    fn p1_5_every_save_carries_the_epoch_of_this_start() {
        let (mut registry, disk, _) = seeded(&["a"]);
        registry.register(definition("b"), at(1), &never()).unwrap();
        let set = StoredSet { epoch: registry.epoch(), descriptors: registered(&registry), ..StoredSet::default() };
        assert_eq!(disk.set(), set);
    }

    #[test]
    fn p1_1_no_provider_at_all_stops_the_start() {
        assert_eq!(start(&Disk::default(), vec![], &[]).0.unwrap_err().code(), ErrorCode::NoProviders);
    }

    #[test]
    fn p1_2_a_name_given_twice_stops_the_start() {
        let twice = || vec![definition("a"), definition("a")];
        let error = start(&Disk::default(), twice(), &[]).0.unwrap_err();
        assert_eq!((error.code(), error.provider()), (ErrorCode::DuplicateName, Some(&id("a"))));
        let error = start(&Disk::holding(1, vec![definition("b")]), twice(), &[]).0.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DuplicateName);
        // A store of the host's own may be less strict than ours.
        let error = start(&Disk::holding(1, twice()), vec![], &[]).0.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DuplicateName);
    }

    #[test]
    fn p1_1_a_stored_definition_of_unknown_kind_stops_the_start_and_says_that_it_is_stored() {
        let mut unknown = definition("a");
        unknown.kind = ProviderKind::new("etcd").unwrap();
        let disk = Disk::holding(1, vec![definition("b"), unknown]);
        let error = start(&disk, vec![], &[]).0.unwrap_err();
        assert_eq!(
            (error.code(), error.provider(), error.field()),
            (ErrorCode::UnknownKind, Some(&id("a")), Some("kind"))
        );
        assert!(error.detail().contains("stored"), "{error}");
        assert_eq!(disk.set().descriptors.len(), 2);
    }

    #[test]
    fn p1_4_restored_providers_need_not_answer_but_given_ones_must() {
        let disk = Disk::default();
        let both = || vec![definition("a"), definition("b")];
        let error = start(&disk, both(), &["b"]).0.unwrap_err();
        assert_eq!((error.code(), error.provider()), (ErrorCode::BackendUnavailable, Some(&id("b"))));
        assert!(disk.set().descriptors.is_empty(), "nothing was accepted");

        let disk = Disk::holding(1, both());
        let (registry, report) = start(&disk, vec![], &["b"]).0.unwrap();
        assert_eq!(registry.list().iter().map(|entry| entry.reachable).collect::<Vec<_>>(), [true, false]);
        assert_eq!(names(report.unreachable.iter().filter_map(ProvisioningError::provider)), ["b"]);
        assert_eq!(added(&report.change), ["a", "b"]);
        assert!(registry.get(&id("b")).unwrap().to_string().contains("not reachable when last asked"));
    }

    #[test]
    fn p1_5_without_a_store_every_start_exceeds_the_one_before_and_what_the_host_knows_of() {
        let start = |above| {
            let settings = RegistrySettings { epoch_above: above, ..RegistrySettings::default() };
            let started =
                ProviderRegistry::start(validator().0, None, vec![definition("a")], settings, at(9), &never());
            started.unwrap().0.epoch()
        };
        let first = start(0);
        assert!(first >= at(9).as_millis());
        assert!(start(0) > first);
        assert_eq!(start(first + 1_000_000), first + 1_000_001);
    }

    // Registering and removing

    #[test]
    fn p1_2_a_duplicate_name_is_refused_and_the_existing_one_stays() {
        let (mut registry, disk, backends) = seeded(&["a"]);
        let (before, stored) = (in_force(&registry), disk.set());
        let error = registry.register(definition("a").priority(5), at(1), &never()).unwrap_err();
        assert_eq!((error.code(), error.provider()), (ErrorCode::DuplicateName, Some(&id("a"))));
        assert!(error.detail().contains("priority: 0 in force, 5 given"), "{error}");
        assert_eq!((in_force(&registry), disk.set()), (before, stored));
        assert!(backends.take_made().is_empty());
    }

    #[test]
    fn p1_2_a_collision_tells_neither_passwords_nor_novels() {
        let (mut registry, _, _) = seeded(&["a"]);
        let given = definition("a").endpoint("http://me:hunter2@consul").parameter("service", "x".repeat(100_000));
        let error = registry.register(given, at(1), &never()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::DuplicateName);
        assert!(error.detail().contains("endpoints: [] in force, [***] given"), "{error}");
        assert!(!error.to_string().contains("hunter2") && error.to_string().len() < 1000, "{error}");
    }

    #[test]
    fn p1_2_an_identical_definition_is_no_collision() {
        let (mut registry, _, backends) = seeded(&["a", "b"]);
        let before = in_force(&registry);
        let change = registry.register(definition("a"), at(1), &never()).unwrap();
        assert_eq!((in_force(&registry), names(&change.kept)), (before, vec!["a", "b"]));
        assert!(change.added.is_empty() && change.removed.is_empty() && backends.take_made().is_empty());
    }

    #[test]
    fn p1_1_a_bad_definition_is_refused_and_nothing_changes() {
        let (mut registry, disk, _) = seeded(&["a"]);
        let (before, stored) = (in_force(&registry), disk.set());
        let error = registry.register(definition("b").priority(-1), at(1), &never()).unwrap_err();
        assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some("priority")));
        assert_eq!((in_force(&registry), disk.set()), (before, stored));
    }

    #[test]
    fn p1_3_a_provider_that_cannot_watch_is_registered_as_disabled_with_the_reason() {
        let (mut registry, disk, backends) = seeded(&["a"]);
        let blind = definition("b").parameter("watch", "no");
        let change = registry.register(blind.clone(), at(1), &never()).unwrap();
        let entry = registry.get(&id("b")).unwrap();
        assert!(
            matches!(&entry.status, Enablement::Disabled { reason } if reason.code() == ErrorCode::CapabilityMissing)
        );
        assert!(entry.to_string().starts_with("b (scripted, priority 0): disabled: [capability-missing]"), "{entry}");
        assert!(change.added.is_empty(), "it is not run");
        assert_eq!(names(change.disabled.iter().map(|entry| &entry.descriptor.id)), ["b"]);
        assert_eq!(names(&change.order), ["a"]);
        assert!(backends.take_checked().is_empty(), "nobody needs its backend");
        assert_eq!(disk.set().descriptors, [definition("a"), blind]);

        let change = registry.remove(&id("b")).unwrap();
        assert!(change.removed.is_empty(), "what did not run is not stopped");
    }

    #[test]
    fn p1_4_a_provider_whose_backend_does_not_answer_is_not_accepted() {
        let (mut registry, disk, backends) = seeded(&["a"]);
        let (before, stored) = (in_force(&registry), disk.set());
        backends.down(&["b"]);
        let error = registry.register(definition("b"), at(1), &never()).unwrap_err();
        assert_eq!((error.code(), error.provider()), (ErrorCode::BackendUnavailable, Some(&id("b"))));
        assert_eq!((in_force(&registry), disk.set()), (before, stored));
        backends.down(&[]);
        registry.register(definition("b"), at(2), &never()).unwrap();
        assert!(registry.get(&id("b")).unwrap().reachable);
        assert_eq!(backends.take_checked(), ["b", "b"], "those in force are not asked");
    }

    #[test]
    fn p1_5_nothing_is_in_force_that_is_not_stored() {
        let (mut registry, disk, _) = seeded(&["a", "b"]);
        let (before, stored) = (in_force(&registry), disk.set());
        let attempts: [Attempt; 3] = [
            |registry| registry.register(definition("c"), at(1), &never()),
            |registry| registry.remove(&id("a")),
            |registry| registry.replace_all(vec![definition("c")], at(1), &never()),
        ];
        for attempt in attempts {
            disk.fails(true);
            assert_eq!(attempt(&mut registry).unwrap_err().code(), ErrorCode::StoreIo);
            disk.fails(false);
            disk.0.lock().unwrap().panics = true;
            assert_eq!(attempt(&mut registry).unwrap_err().code(), ErrorCode::StoreIo);
            disk.0.lock().unwrap().panics = false;
            assert_eq!((in_force(&registry), disk.set()), (before.clone(), stored.clone()));
        }
    }

    #[test]
    fn p5_4_a_set_is_saved_again_even_if_nothing_changed() {
        // After a save that failed late the store may hold the other set.
        let (mut registry, disk, _) = seeded(&["a"]);
        disk.0.lock().unwrap().set.descriptors = vec![definition("x")];
        registry.replace_all(vec![definition("a")], at(1), &never()).unwrap();
        assert_eq!(disk.set().descriptors, [definition("a")]);
    }

    #[test]
    fn p1_2_removing_frees_the_name_and_the_last_provider_stays() {
        let (mut registry, disk, _) = seeded(&["a", "b"]);
        let change = registry.remove(&id("a")).unwrap();
        assert_eq!((names(&change.removed), names(&change.kept)), (vec!["a"], vec!["b"]));
        assert_eq!(disk.set().descriptors, [definition("b")]);
        assert_eq!(registry.remove(&id("a")).unwrap_err().code(), ErrorCode::UnknownProvider);
        assert_eq!(registry.remove(&id("b")).unwrap_err().code(), ErrorCode::NoProviders);
        let change = registry.register(definition("a").priority(9), at(1), &never()).unwrap();
        assert_eq!((added(&change), names(&change.order)), (vec!["a"], vec!["b", "a"]));
    }

    #[test]
    fn p1_1_there_is_a_limit_to_the_number_of_providers() {
        let (mut registry, _, backends) = seeded(&["a"]);
        let many = (0..=MAX_PROVIDERS).map(|number| definition(&number.to_string())).collect();
        assert_eq!(registry.replace_all(many, at(1), &never()).unwrap_err().code(), ErrorCode::InvalidConfig);
        assert!(backends.take_made().is_empty());
    }

    // Reloading

    #[test]
    fn p5_4_a_reload_replaces_the_whole_set_and_says_what_to_do() {
        let (mut registry, disk, backends) = seeded(&["same", "gone", "changed", "moved"]);
        let before = registry.list().to_vec();
        let new = vec![
            definition("moved").priority(9),
            definition("new"),
            definition("changed").parameter("service", "bills"),
            definition("same"),
            definition("blind").parameter("watch", "no"),
        ];
        // Whoever is unchanged is not asked: its backend may be down at this very moment.
        backends.down(&["same", "moved"]);
        let change = registry.replace_all(new.clone(), at(1), &never()).unwrap();
        assert_eq!(names(&change.removed), ["gone"]);
        assert_eq!(added(&change), ["new"]);
        assert_eq!(names(change.edited.iter().map(|entry| &entry.descriptor.id)), ["changed"]);
        assert_eq!(names(&change.kept), ["moved", "same"]);
        assert_eq!(change.reprioritised, [(id("moved"), 9)]);
        assert_eq!(names(&change.order), ["moved", "new", "changed", "same"]);
        assert_eq!(names(change.disabled.iter().map(|entry| &entry.descriptor.id)), ["blind"]);
        assert_eq!(backends.take_made(), ["new", "changed", "blind"]);
        assert_eq!(backends.take_checked(), ["changed", "new"]);
        assert_eq!((registered(&registry), disk.set().descriptors), (new.clone(), new));

        let provider = |entries: &[ProviderEntry], name: &str| {
            let entry = entries.iter().find(|entry| entry.descriptor.id.as_str() == name);
            Arc::as_ptr(entry.unwrap().provider()).cast::<()>()
        };
        for (name, kept) in [("same", true), ("moved", true), ("changed", false)] {
            assert_eq!(provider(&before, name) == provider(registry.list(), name), kept, "{name}");
        }
        assert!(registry.list().iter().all(|entry| entry.reachable == entry.is_enabled()));
    }

    #[test]
    fn p5_4_a_reload_that_fails_anywhere_leaves_the_old_set_wholly_in_force() {
        let (mut registry, disk, backends) = seeded(&["a", "b"]);
        let (before, stored) = (in_force(&registry), disk.set());
        backends.down(&["down"]);
        let cases = [
            (vec![], ErrorCode::NoProviders),
            (vec![definition("a"), definition("c"), definition("c")], ErrorCode::DuplicateName),
            (vec![definition("a"), definition("a")], ErrorCode::DuplicateName),
            (vec![definition("c"), definition("d").priority(1001)], ErrorCode::InvalidValue),
            (vec![definition("c"), definition("a").priority(1001)], ErrorCode::InvalidValue),
            (vec![definition("c"), definition("d").parameter("panic", "create")], ErrorCode::ProviderPanicked),
        ];
        for (number, (new, code)) in cases.into_iter().enumerate() {
            // Far apart, so that none is refused for the failures before it.
            let now = at(100 * number as u64);
            assert_eq!(registry.replace_all(new, now, &never()).unwrap_err().code(), code);
            assert_eq!((in_force(&registry), disk.set()), (before.clone(), stored.clone()), "{code}");
        }
        let error = registry.replace_all(vec![definition("c"), definition("down")], at(9999), &never()).unwrap_err();
        assert_eq!((error.code(), error.provider()), (ErrorCode::BackendUnavailable, Some(&id("down"))));
        assert_eq!((in_force(&registry), disk.set()), (before, stored));
    }

    #[test]
    fn p5_4_unchanged_providers_are_not_judged_again() {
        let (mut registry, _, backends) = seeded(&["a"]);
        backends.refused.lock().unwrap().insert("a".to_owned());
        registry.register(definition("b"), at(1), &never()).unwrap();
        registry.replace_all(vec![definition("b"), definition("a")], at(2), &never()).unwrap();
        let error = registry.replace_all(vec![definition("a").priority(1)], at(3), &never()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "a new priority is a new definition");
    }

    #[test]
    fn p5_4_what_becomes_able_to_watch_starts_and_what_no_longer_is_stops() {
        let (mut registry, _, _) = seeded(&["a", "b"]);
        let blind = || definition("b").parameter("watch", "no");
        let change = registry.replace_all(vec![definition("a"), blind()], at(1), &never()).unwrap();
        assert_eq!((names(&change.removed), added(&change)), (vec!["b"], vec![]));
        let change = registry.replace_all(vec![definition("a"), blind()], at(2), &never()).unwrap();
        assert!(change.disabled.is_empty() && change.removed.is_empty(), "told once");
        let change = registry.replace_all(vec![definition("a"), definition("b")], at(3), &never()).unwrap();
        assert_eq!((names(&change.removed), added(&change)), (vec![], vec!["b"]));
    }

    // Suppression

    /// Submits a bad definition.
    fn fail(registry: &mut ProviderRegistry, now: Timestamp) {
        let error = registry.register(definition("bad").priority(-1), now, &never()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidValue);
    }

    #[test]
    fn p5_2_after_more_than_five_failures_nothing_new_is_enabled_until_a_minute_has_passed_without_one() {
        let (mut registry, disk, backends) = seeded(&["a"]);
        for second in 0..6 {
            assert_eq!(registry.suppressed_until(at(second)), None);
            assert!(registry.take_suppression_changes(at(second)).is_empty());
            fail(&mut registry, at(second));
        }
        assert_eq!(registry.suppressed_until(at(5)), Some(at(65)));
        let started = SuppressionChange::Started { at: at(5), failures: 6, until: at(65) };
        assert_eq!(registry.take_suppression_changes(at(5)), [started]);
        let (before, stored) = (in_force(&registry), disk.set());

        let _ = backends.take_checked();
        let error = registry.register(definition("b"), at(50), &never()).unwrap_err();
        assert_eq!((error.code(), error.provider()), (ErrorCode::EnablingSuppressed, Some(&id("b"))));
        let error = registry.replace_all(vec![definition("a"), definition("b")], at(50), &never()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::EnablingSuppressed);
        let changed = vec![definition("a").parameter("service", "bills")];
        let error = registry.replace_all(changed, at(50), &never()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::EnablingSuppressed);
        assert_eq!((in_force(&registry), disk.set()), (before, stored));
        assert!(backends.take_checked().is_empty(), "refused before any backend is asked");

        assert_eq!(registry.suppressed_until(at(64)), Some(at(65)), "being refused does not prolong it");
        assert_eq!(registry.suppressed_until(at(65)), None);
        registry.register(definition("b"), at(65), &never()).unwrap();
        let ended = SuppressionChange::Ended { at: at(65), lifted: false };
        assert_eq!(registry.take_suppression_changes(at(65)), [ended]);
        assert_eq!(registry.validation_failures(), 6, "what is refused because of the suppression is no failure");
    }

    #[test]
    fn p5_2_while_suppressed_what_enables_nothing_new_is_still_done() {
        let (mut registry, _, _) = seeded(&["a", "b", "c"]);
        (0..6).for_each(|second| fail(&mut registry, at(second)));
        registry.remove(&id("c")).unwrap();
        registry.register(definition("a"), at(5), &never()).unwrap();
        registry.register(definition("blind").parameter("watch", "no"), at(5), &never()).unwrap();
        registry.replace_all(vec![definition("b").priority(3), definition("a")], at(5), &never()).unwrap();
        assert!(registry.suppressed_until(at(5)).is_some());
    }

    #[test]
    fn p5_2_a_failure_after_the_end_does_not_prolong_what_is_over() {
        let (mut registry, _, _) = seeded(&["a"]);
        (0..6).for_each(|second| fail(&mut registry, at(second)));
        let taken = registry.register(definition("a").priority(1), at(100), &never()).unwrap_err();
        assert_eq!(taken.code(), ErrorCode::DuplicateName);
        assert_eq!(registry.suppressed_until(at(100)), None);
    }

    #[test]
    fn p5_2_lifting_allows_enabling_at_once() {
        let (mut registry, _, _) = seeded(&["a"]);
        assert!(!registry.lift_suppression(at(0)));
        (0..6).for_each(|second| fail(&mut registry, at(second)));
        let _ = registry.take_suppression_changes(at(5));
        assert!(registry.lift_suppression(at(6)));
        assert_eq!(registry.take_suppression_changes(at(6)), [SuppressionChange::Ended { at: at(6), lifted: true }]);
        registry.register(definition("b"), at(6), &never()).unwrap();
    }

    #[test]
    fn p5_2_duplicates_bad_reloads_and_unreachable_backends_count_and_store_failures_do_not() {
        let (mut registry, disk, backends) = seeded(&["a"]);
        backends.down(&["down"]);
        disk.fails(true);
        for _ in 0..9 {
            registry.register(definition("b"), at(0), &never()).unwrap_err();
        }
        disk.fails(false);
        registry.remove(&id("nobody")).unwrap_err();
        registry.register(definition("a").priority(1), at(1), &never()).unwrap_err();
        registry.register(definition("down"), at(1), &never()).unwrap_err();
        registry.replace_all(vec![], at(1), &never()).unwrap_err();
        registry.replace_all(vec![definition("x"), definition("x")], at(1), &never()).unwrap_err();
        registry.register(definition("down"), at(1), &never()).unwrap_err();
        assert_eq!((registry.suppressed_until(at(1)), registry.validation_failures()), (None, 5), "five so far");
        registry.register(definition("down"), at(1), &never()).unwrap_err();
        assert!(registry.suppressed_until(at(1)).is_some());
    }

    #[test]
    fn p5_2_what_is_not_the_definitions_fault_does_not_count() {
        let error = |code| ProvisioningError::new(code, "testing", "");
        for code in
            [ErrorCode::Stopped, ErrorCode::ThreadRefused, ErrorCode::EnablingSuppressed, ErrorCode::StoreLocked]
        {
            assert!(!is_failure(&error(code)), "{code}");
        }
        for code in [ErrorCode::Timeout, ErrorCode::ProviderPanicked, ErrorCode::AccessDenied, ErrorCode::UnknownKind] {
            assert!(is_failure(&error(code)), "{code}");
        }
    }

    #[test]
    fn p5_2_a_dry_run_changes_nothing_and_is_no_failure() {
        let (registry, disk, backends) = seeded(&["a"]);
        let (before, stored) = (in_force(&registry), disk.set());
        backends.down(&["down"]);
        let codes = |descriptor: &ProviderDescriptor| {
            let report = registry.dry_run(descriptor, true, &never());
            report.problems().map(ProvisioningError::code).collect::<Vec<_>>()
        };
        assert!(codes(&definition("b")).is_empty());
        assert!(codes(&definition("a")).is_empty(), "an identical definition is no collision");
        assert_eq!(codes(&definition("a").priority(-1)), [ErrorCode::DuplicateName, ErrorCode::InvalidValue]);
        for _ in 0..9 {
            assert_eq!(codes(&definition("down")), [ErrorCode::BackendUnavailable]);
        }
        assert_eq!(registry.suppressed_until(at(1)), None);
        assert_eq!((in_force(&registry), disk.set()), (before, stored));
    }

    #[test]
    fn p5_2_changes_that_nobody_takes_do_not_pile_up() {
        let (mut registry, _, _) = seeded(&["a"]);
        for round in 0..100 {
            (0..6).for_each(|_| fail(&mut registry, at(round * 100)));
        }
        let changes = registry.take_suppression_changes(at(10_000));
        assert_eq!(changes.len(), 64);
        assert!(matches!(changes.last(), Some(SuppressionChange::Ended { .. })));
    }

    #[test]
    fn p1_3_an_entry_prints_what_became_of_it() {
        let (registry, _, _) = seeded(&["a"]);
        let entry = registry.list()[0].clone();
        let print = |entry: &ProviderEntry| entry.to_string();
        assert_eq!(print(&entry), "a (scripted, priority 0): enabled");
        let unreachable = ProviderEntry { reachable: false, ..entry.clone() };
        assert_eq!(print(&unreachable), "a (scripted, priority 0): enabled, but not reachable when last asked");
        let reason = ProvisioningError::new(ErrorCode::CapabilityMissing, "validating", "it cannot watch");
        let disabled = ProviderEntry { status: Enablement::Disabled { reason }, ..entry.clone() };
        assert!(print(&disabled).starts_with("a (scripted, priority 0): disabled: [capability-missing]"));
        assert!(format!("{entry:?}").contains("reachable: true"));
        let difference = DefinitionDifference { id: id("a"), fields: vec!["one".into(), "other".into()] };
        assert_eq!(difference.to_string(), "the given definition of provider a is not in force: one; other");
    }

    #[test]
    fn p1_1_there_may_be_as_many_providers_as_the_store_holds_and_no_more() {
        let definitions = |count: usize| (0..count).map(|n| definition(&format!("p{n}"))).collect::<Vec<_>>();
        let (started, _) = start(&Disk::default(), definitions(MAX_PROVIDERS), &[]);
        assert_eq!(started.unwrap().0.list().len(), MAX_PROVIDERS);
        let (refused, _) = start(&Disk::default(), definitions(MAX_PROVIDERS + 1), &[]);
        assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidConfig);
    }
}
