//! What a registry does with definitions, backends and stores that fail.

mod pending;

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
    let settings = RegistrySettings { connectivity_timeout: Duration::from_secs(60), ..RegistrySettings::default() };
    let store = Some(Box::new(disk.clone()) as Box<dyn ProviderStore>);
    let memory = epoch::Memory::new();
    (ProviderRegistry::start_with(&memory, validator, store, given, settings, at(0), &CancelToken::new()), backends)
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
        assert_eq!(make_the_same(&stored, &given), priority_only, "{line}");
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
    assert_eq!(disk.set(), StoredSet { epoch: at(0).as_millis(), ..Disk::holding(5, disk.set().descriptors).set() });
    assert_eq!(disk.0.lock().unwrap().saves.len(), 1);

    let disk = Disk::default();
    disk.fails(true);
    let (started, backends) = start(&disk, vec![definition("a")], &[]);
    assert_eq!(started.unwrap_err().code(), ErrorCode::StoreIo);
    assert!(backends.take_made().is_empty(), "nothing was ever kept, and nothing would be");

    let disk = Disk::holding(u64::MAX, vec![definition("a")]);
    assert_eq!(start(&disk, vec![], &[]).0.unwrap_err().code(), ErrorCode::StoreCorrupt);
}

#[test]
fn p1_5_p5_5_a_set_that_is_whole_is_in_force_although_the_store_cannot_be_written() {
    let disk = Disk::holding(5, vec![definition("a")]);
    disk.fails(true);
    let (started, _) = start(&disk, vec![], &[]);
    let (mut registry, report) = started.unwrap();
    let warning = report.unsaved.unwrap();
    assert_eq!(warning.code(), ErrorCode::StoreIo);
    assert!(warning.to_string().contains("disk full; the stored providers are in force, but the epoch"), "{warning}");
    assert_eq!((registry.epoch(), registered(&registry)), (at(0).as_millis(), vec![definition("a")]));
    // A change is kept or it is not made.
    let error = registry.register(definition("b"), at(1), &never()).unwrap_err();
    assert_eq!((error.code(), registered(&registry).len()), (ErrorCode::StoreIo, 1));
    assert!(registry.save_again().is_err() && registry.is_unsaved());
    assert_eq!(disk.set().epoch, 5, "it has not been touched");
    disk.fails(false);
    registry.save_again().unwrap();
    assert!(!registry.is_unsaved());
    assert_eq!(disk.set(), Disk::holding(at(0).as_millis(), vec![definition("a")]).set());
    registry.save_again().unwrap();
    assert_eq!(disk.0.lock().unwrap().saves.len(), 1, "once");
}

#[test]
fn p1_5_an_epoch_that_only_the_store_could_order_is_not_given_without_it() {
    let disk = Disk::holding(at(0).as_millis(), vec![definition("a")]);
    disk.fails(true);
    let error = start(&disk, vec![], &[]).0.unwrap_err();
    assert_eq!(error.code(), ErrorCode::StoreIo);
    assert!(error.to_string().contains("the clock is behind") && error.advice().contains("epoch_above"), "{error}");
    // A store that somebody else has replaced or taken is no full disk.
    let (validator, _) = validator();
    let taken = Box::new(Taken(disk)) as Box<dyn ProviderStore>;
    let started = ProviderRegistry::start(validator, Some(taken), vec![], RegistrySettings::default(), at(9), &never());
    assert_eq!(started.unwrap_err().code(), ErrorCode::StoreReplaced);
}

/// A store whose file is always another.
struct Taken(Disk);

impl ProviderStore for Taken {
    fn load(&mut self) -> Result<StoredSet, ProvisioningError> {
        self.0.load()
    }

    fn save(&mut self, _: &StoredSet) -> Result<(), ProvisioningError> {
        Err(ProvisioningError::new(ErrorCode::StoreReplaced, "saving", "another file"))
    }
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
    assert_eq!((error.code(), error.provider(), error.field()), (ErrorCode::UnknownKind, Some(&id("a")), Some("kind")));
    assert!(error.detail().contains("stored"), "{error}");
    assert_eq!(disk.set().descriptors.len(), 2);
}

#[test]
fn p1_4_restored_providers_need_not_answer() {
    let disk = Disk::holding(1, vec![definition("a"), definition("b")]);
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
        let started = ProviderRegistry::start(validator().0, None, vec![definition("a")], settings, at(9), &never());
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
    assert!(matches!(&entry.status, Enablement::Disabled { reason } if reason.code() == ErrorCode::CapabilityMissing));
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
fn p5_2_duplicates_and_bad_reloads_count_and_failures_of_store_and_backend_do_not() {
    let (mut registry, disk, backends) = seeded(&["a"]);
    backends.down(&["down"]);
    disk.fails(true);
    for _ in 0..9 {
        registry.register(definition("b"), at(0), &never()).unwrap_err();
    }
    disk.fails(false);
    registry.remove(&id("nobody")).unwrap_err();
    for _ in 0..9 {
        registry.register(definition("down"), at(1), &never()).unwrap_err();
    }
    let duplicate = |registry: &mut ProviderRegistry| {
        registry.register(definition("a").priority(1), at(1), &never()).unwrap_err();
    };
    (0..3).for_each(|_| duplicate(&mut registry));
    registry.replace_all(vec![], at(1), &never()).unwrap_err();
    registry.replace_all(vec![definition("x"), definition("x")], at(1), &never()).unwrap_err();
    assert_eq!((registry.suppressed_until(at(1)), registry.validation_failures()), (None, 5), "five so far");
    duplicate(&mut registry);
    assert!(registry.suppressed_until(at(1)).is_some());
}

#[test]
fn p5_2_what_is_not_the_definitions_fault_does_not_count() {
    let error = |code| ProvisioningError::new(code, "testing", "");
    let faultless = [
        ErrorCode::Stopped,
        ErrorCode::ThreadRefused,
        ErrorCode::EnablingSuppressed,
        ErrorCode::StoreLocked,
        ErrorCode::BackendUnavailable,
        ErrorCode::Timeout,
    ];
    for code in faultless {
        assert!(!is_failure(&error(code)), "{code}");
    }
    for code in [ErrorCode::ProviderPanicked, ErrorCode::AccessDenied, ErrorCode::UnknownKind] {
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
