//! Definitions that are given at a start while their backends are down.

use std::thread;

use super::*;

/// Whose backends are down is said by name; a start waits so long for them.
fn start_within(
    disk: &Disk,
    given: &[&str],
    down: &[&str],
    timeout: u64,
    require_all: bool,
) -> (Started, Arc<Backends>) {
    let (validator, backends) = validator();
    backends.down(down);
    let settings = RegistrySettings {
        connectivity_timeout: Duration::from_millis(timeout),
        require_all,
        ..RegistrySettings::default()
    };
    let given = given.iter().map(|id| definition(id)).collect();
    let store = Some(Box::new(disk.clone()) as Box<dyn ProviderStore>);
    (ProviderRegistry::start(validator, store, given, settings, at(0), &never()), backends)
}

fn start(disk: &Disk, given: &[&str], down: &[&str]) -> (ProviderRegistry, RestoreReport, Arc<Backends>) {
    let (started, backends) = start_within(disk, given, down, 60_000, false);
    let (registry, report) = started.unwrap();
    _ = (backends.take_checked(), backends.take_made());
    (registry, report, backends)
}

fn states(registry: &ProviderRegistry) -> Vec<String> {
    let state = |entry: &ProviderEntry| match &entry.status {
        Enablement::Enabled => "enabled".to_owned(),
        Enablement::Disabled { .. } => "disabled".to_owned(),
        Enablement::Pending { reason } => format!("pending: {}", reason.code()),
    };
    registry.list().iter().map(|entry| format!("{} {}", entry.descriptor.id, state(entry))).collect()
}

fn stored(disk: &Disk) -> (Vec<String>, Vec<String>) {
    let set = disk.set();
    let ids = set.descriptors.iter().map(|descriptor| descriptor.id.to_string()).collect();
    (ids, set.pending.iter().map(ToString::to_string).collect())
}

fn lists(accepted: &[&str], pending: &[&str]) -> (Vec<String>, Vec<String>) {
    let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    (owned(accepted), owned(pending))
}

const DOWN: &str = "pending: backend-unavailable";

#[test]
fn p1_4_a_start_takes_who_answers_and_the_others_are_pending_neither_stored_nor_run() {
    let disk = Disk::default();
    let (registry, report, _) = start(&disk, &["a", "b", "c"], &["a"]);
    assert_eq!(states(&registry), [format!("a {DOWN}"), "b enabled".into(), "c enabled".into()]);
    assert_eq!(stored(&disk), lists(&["b", "c"], &["a"]));
    assert_eq!((names(&report.change.order), added(&report.change)), (vec!["b", "c"], vec!["b", "c"]));
    assert_eq!(names(report.change.pending.iter().map(|entry| &entry.descriptor.id)), ["a"]);
    assert!(report.change.disabled.is_empty() && report.unreachable.is_empty() && !report.restored);
    let entry = registry.get(&id("a")).unwrap();
    assert!(!entry.is_enabled() && !entry.reachable);
    assert!(entry.to_string().starts_with("a (scripted, priority 0): pending: [backend-unavailable]"), "{entry}");
}

#[test]
fn p1_4_a_pending_provider_is_accepted_at_its_place_once_its_backend_answers() {
    let disk = Disk::default();
    let (mut registry, _, backends) = start(&disk, &["a", "b", "c"], &["a", "c"]);
    backends.down(&["c"]);
    let change = registry.ask_pending(at(1), &never()).unwrap();
    assert_eq!(backends.take_checked(), ["a", "c"], "who is in force is not asked");
    assert_eq!((added(&change), names(&change.kept), names(&change.order)), (vec!["a"], vec!["b"], vec!["a", "b"]));
    assert!(change.pending.is_empty(), "told once");
    assert_eq!(states(&registry), ["a enabled".into(), "b enabled".into(), format!("c {DOWN}")]);
    assert_eq!(stored(&disk), lists(&["a", "b"], &["c"]));
    assert!(registry.get(&id("a")).unwrap().reachable);

    let saves = disk.0.lock().unwrap().saves.len();
    let change = registry.ask_pending(at(2), &never()).unwrap();
    assert!(change.added.is_empty() && disk.0.lock().unwrap().saves.len() == saves, "nothing new, nothing to store");
    backends.down(&[]);
    registry.ask_pending(at(3), &never()).unwrap();
    assert_eq!(stored(&disk), lists(&["a", "b", "c"], &[]));
    assert!(registry.ask_pending(at(4), &never()).unwrap().added.is_empty());
    assert!(backends.take_made().is_empty(), "the provider that was asked is the one that runs");
}

#[test]
fn p1_4_what_came_of_asking_last_is_its_reason() {
    let (mut registry, ..) = start(&Disk::default(), &["a", "b"], &["a"]);
    let denied = ProvisioningError::new(ErrorCode::AccessDenied, "asking", "no rights");
    let pending = registry.pending();
    registry.accept([(Arc::clone(&pending[0]), Err(denied))], at(1)).unwrap();
    assert_eq!(states(&registry)[0], "a pending: access-denied");
    // An answer to a definition that is gone counts for nobody.
    registry.remove(&id("a")).unwrap();
    let change = registry.accept([(Arc::clone(&pending[0]), Ok(()))], at(2)).unwrap();
    assert!(change.added.is_empty());
    assert_eq!(states(&registry), ["b enabled"]);
}

#[test]
fn p1_4_a_store_that_fails_leaves_it_pending() {
    let disk = Disk::default();
    let (mut registry, _, backends) = start(&disk, &["a", "b"], &["a"]);
    backends.down(&[]);
    disk.fails(true);
    assert_eq!(registry.ask_pending(at(1), &never()).unwrap_err().code(), ErrorCode::StoreIo);
    assert_eq!(states(&registry)[0], format!("a {DOWN}"));
    disk.fails(false);
    assert_eq!(added(&registry.ask_pending(at(1), &never()).unwrap()), ["a"]);
}

#[test]
fn p1_4_a_start_fails_if_nobody_answers_in_time_and_says_what_came_of_asking() {
    for (given, down, code) in [
        (vec!["a"], vec!["a"], "no answer"),
        (vec!["a", "b"], vec!["a", "b"], "a: [backend-unavailable] connection refused; b: [backend-unavailable]"),
    ] {
        let disk = Disk::default();
        let error = start_within(&disk, &given, &down, 300, false).0.unwrap_err();
        assert_eq!(error.code(), ErrorCode::BackendUnavailable);
        if given.len() == 1 {
            assert_eq!((error.provider(), error.detail()), (Some(&id("a")), "connection refused"));
        } else {
            assert!(error.detail().contains(code), "{error}");
        }
        assert!(stored(&disk) == lists(&[], &[]), "nothing was accepted");
    }
}

#[test]
fn p1_4_a_start_waits_for_a_backend_that_refuses_at_first() {
    let (validator, backends) = validator();
    backends.down(&["a", "b"]);
    let revives = Arc::clone(&backends);
    let backend = thread::spawn(move || {
        while revives.checked.lock().unwrap().len() < 4 {
            thread::yield_now();
        }
        revives.down(&["a"]);
    });
    let settings = RegistrySettings { connectivity_timeout: Duration::from_secs(60), ..RegistrySettings::default() };
    let given = vec![definition("a"), definition("b")];
    let (registry, _) = ProviderRegistry::start(validator, None, given, settings, at(0), &never()).unwrap();
    backend.join().unwrap();
    assert_eq!(states(&registry), [format!("a {DOWN}"), "b enabled".into()]);
}

#[test]
fn p1_4_where_all_are_required_a_start_fails_for_one_that_does_not_answer() {
    let error = start_within(&Disk::default(), &["a", "b"], &["b"], 300, true).0.unwrap_err();
    assert_eq!((error.code(), error.provider()), (ErrorCode::BackendUnavailable, Some(&id("b"))));
    let (registry, _) = start_within(&Disk::default(), &["a", "b"], &[], 60_000, true).0.unwrap();
    assert_eq!(states(&registry), ["a enabled", "b enabled"]);
}

#[test]
fn p1_1_a_definition_that_is_wrong_or_refused_stops_the_start_whoever_answers() {
    let (validator, backends) = validator();
    backends.down(&["b"]);
    let given = vec![definition("a"), definition("b"), definition("c").priority(-1)];
    let settings = RegistrySettings::default();
    let error = ProviderRegistry::start(validator, None, given, settings, at(0), &never()).unwrap_err();
    assert_eq!((error.code(), error.provider()), (ErrorCode::InvalidValue, Some(&id("c"))));
}

#[test]
fn p1_4_a_provider_that_cannot_run_does_not_make_a_start() {
    let (validator, backends) = validator();
    backends.down(&["a"]);
    let given = vec![definition("a"), definition("blind").parameter("watch", "no")];
    let settings = RegistrySettings { connectivity_timeout: Duration::from_millis(300), ..RegistrySettings::default() };
    let error = ProviderRegistry::start(validator, None, given, settings, at(0), &never()).unwrap_err();
    assert_eq!((error.code(), error.provider()), (ErrorCode::BackendUnavailable, Some(&id("a"))));
}

#[test]
fn p1_5_after_a_restart_what_was_pending_is_asked_again_and_what_was_removed_stays_away() {
    let disk = Disk::default();
    let (mut registry, ..) = start(&disk, &["a", "b", "c"], &["a"]);
    registry.remove(&id("c")).unwrap();
    drop(registry);

    // Still down: who is stored runs whether its backend answers or not.
    let (registry, report, _) = start(&disk, &["a", "b", "c"], &["a", "b"]);
    assert_eq!(states(&registry), ["b enabled".to_owned(), format!("a {DOWN}")]);
    assert!(report.restored);
    assert_eq!(names(report.unreachable.iter().filter_map(ProvisioningError::provider)), ["b"]);
    assert_eq!(names(report.differences.iter().map(|found| &found.id)), ["c"], "it was removed, and stays away");
    assert_eq!(stored(&disk), lists(&["b"], &["a"]));
    drop(registry);

    let (registry, report, _) = start(&disk, &["a", "b"], &[]);
    assert_eq!(states(&registry), ["b enabled", "a enabled"]);
    assert!(report.differences.is_empty());
    assert_eq!(stored(&disk), lists(&["b", "a"], &[]));
    drop(registry);

    // Who is no longer given is forgotten.
    let disk = Disk::default();
    drop(start(&disk, &["a", "b"], &["a"]));
    let (registry, ..) = start(&disk, &["b"], &[]);
    assert_eq!((states(&registry), stored(&disk)), (vec!["b enabled".to_owned()], lists(&["b"], &[])));
}

#[test]
fn p1_2_a_pending_name_is_taken_and_its_own_definition_is_asked_at_once() {
    let disk = Disk::default();
    let (mut registry, _, backends) = start(&disk, &["a", "b"], &["a"]);
    let error = registry.register(definition("a").priority(7), at(1), &never()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::DuplicateName);
    let error = registry.register(definition("a"), at(1), &never()).unwrap_err();
    assert_eq!((error.code(), error.provider()), (ErrorCode::BackendUnavailable, Some(&id("a"))));
    assert_eq!(states(&registry)[0], format!("a {DOWN}"));
    backends.down(&[]);
    assert_eq!(added(&registry.register(definition("a"), at(2), &never()).unwrap()), ["a"]);
    assert_eq!(stored(&disk), lists(&["a", "b"], &[]));
}

#[test]
fn p5_4_a_reload_keeps_who_is_pending_and_asks_whoever_is_new() {
    let disk = Disk::default();
    let (mut registry, _, backends) = start(&disk, &["a", "b"], &["a"]);
    let set = vec![definition("b"), definition("new"), definition("a")];
    let change = registry.replace_all(set, at(1), &never()).unwrap();
    assert_eq!((added(&change), backends.take_checked()), (vec!["new"], vec!["new".to_owned()]));
    assert!(change.pending.is_empty());
    assert_eq!(states(&registry), ["b enabled".into(), "new enabled".into(), format!("a {DOWN}")]);
    // A new priority is no reason to ask, another definition is.
    let set = |service: &str| vec![definition("b"), definition("a").priority(9).parameter("service", service)];
    registry.replace_all(set("orders"), at(2), &never()).unwrap();
    assert_eq!(states(&registry)[1], format!("a {DOWN}"));
    let error = registry.replace_all(set("bills"), at(3), &never()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable);
    assert_eq!(registry.get(&id("a")).unwrap().descriptor.priority, 9, "the old set stays");
    // Without anybody who is accepted there is no set.
    let error = registry.replace_all(vec![definition("a").priority(9)], at(4), &never()).unwrap_err();
    assert_eq!((error.code(), error.provider()), (ErrorCode::BackendUnavailable, Some(&id("a"))));
    backends.down(&[]);
    let change = registry.replace_all(set("bills"), at(5), &never()).unwrap();
    assert_eq!((added(&change), change.edited.len()), (vec!["a"], 0));
}

#[test]
fn p1_2_a_pending_provider_can_be_removed_and_is_no_reason_to_remove_the_last_accepted_one() {
    let disk = Disk::default();
    let (mut registry, ..) = start(&disk, &["a", "b"], &["a"]);
    assert_eq!(registry.remove(&id("b")).unwrap_err().code(), ErrorCode::NoProviders);
    let change = registry.remove(&id("a")).unwrap();
    assert!(change.removed.is_empty(), "what did not run is not stopped");
    assert_eq!((states(&registry), stored(&disk)), (vec!["b enabled".to_owned()], lists(&["b"], &[])));
}

#[test]
fn p5_2_while_enabling_is_suppressed_nobody_pending_is_accepted() {
    let (mut registry, _, backends) = start(&Disk::default(), &["a", "b"], &["a"]);
    backends.down(&[]);
    (0..6).for_each(|_| fail(&mut registry, at(1)));
    assert!(registry.ask_pending(at(2), &never()).unwrap().added.is_empty());
    let error = registry.register(definition("a"), at(2), &never()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::EnablingSuppressed);
    assert_eq!(added(&registry.ask_pending(at(120), &never()).unwrap()), ["a"]);
}
