//! A start while backends are down: with and without a store, and again during the outage. The rows are those of the
//! README.

#[path = "support/running.rs"]
mod running;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_provisioning::*;
use running::{Call, Company, PATIENCE, Role, Running, played, until};

const NAMES: [&str; 3] = ["first", "second", "third"];

/// Every set of backends that are down, by place.
fn outages() -> impl Iterator<Item = Vec<&'static str>> {
    (0..8_u8).map(|set| (0..3).filter(|place| set & (1 << place) != 0).map(|place| NAMES[place]).collect())
}

fn up(down: &[&str]) -> Vec<&'static str> {
    NAMES.into_iter().filter(|name| !down.contains(name)).collect()
}

fn is_down(role: &Role, is_down: bool) {
    let down = || ProvisioningError::new(ErrorCode::BackendUnavailable, "connecting", "connection refused");
    role.refuse(is_down.then(down));
}

/// Three providers, the first the best, each showing a member of its own name; these backends are down.
fn company(down: &[&str]) -> Arc<Company> {
    let company = Company::new();
    for name in NAMES {
        let role = company.role(name);
        role.show(&[name]);
        is_down(&role, down.contains(&name));
    }
    company
}

fn builder(company: &Arc<Company>, store: Option<&Path>) -> ServiceBuilder {
    let mut policy = FailoverPolicy::default();
    policy.backoff_initial = Duration::from_millis(20);
    policy.backoff_max = Duration::from_millis(50);
    let builder = ClusterProvisioningService::builder().factory(company.clone()).failover(policy);
    let builder = builder.connectivity_timeout(Duration::from_secs(10));
    let builder = (1..)
        .zip(NAMES.iter().rev())
        .fold(builder, |builder, (priority, name)| builder.provider(played(name, priority)));
    match store {
        Some(path) => builder.store_file(path),
        None => builder,
    }
}

/// The providers by what they are: accepted, pending.
fn states(service: &ClusterProvisioningService) -> (Vec<String>, Vec<String>) {
    let registered = service.registered();
    let (pending, accepted): (Vec<_>, Vec<_>) = registered.iter().partition(|entry| entry.is_pending());
    let ids = |entries: Vec<&ProviderEntry>| {
        let mut ids: Vec<_> = entries.iter().map(|entry| entry.descriptor.id.to_string()).collect();
        ids.sort();
        ids
    };
    (ids(accepted), ids(pending))
}

fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// Waits for the member of the best of these, and for nobody else.
fn follows_best_of(service: &ClusterProvisioningService, up: &[&str]) {
    until(format!("the best of {up:?} is followed"), || {
        service.hub().snapshot().is_some_and(|snapshot| snapshot.members.iter().all(|node| node.id().as_str() == up[0]))
    });
}

#[test]
fn p1_4_without_a_store_those_that_answer_are_followed_and_the_others_come_in_when_they_do() {
    for down in outages().filter(|down| down.len() < 3) {
        let company = company(&down);
        let mut events = None;
        let builder = builder(&company, None);
        let events = events.insert(builder.subscribe(1000));
        let service = builder.start().unwrap();
        assert_eq!(states(&service), (owned(&up(&down)), owned(&down)), "{down:?}");
        if let Err(error) = service.wait_ready(Duration::ZERO) {
            assert!(
                down.iter().all(|name| error.detail().contains(&format!("pending: {name} (backend-un"))),
                "{error}"
            );
        }
        follows_best_of(&service, &up(&down));
        // Each is named in one warning.
        let mut warned: Vec<String> = Vec::new();
        while warned.len() < down.len() {
            if let ProvisioningEvent::Warning(warning) = &*events.recv_timeout(PATIENCE).unwrap()
                && warning.error.code() == ErrorCode::ProviderPending
            {
                warned.extend(warning.error.provider().map(ToString::to_string));
            }
        }
        warned.sort();
        assert_eq!(warned, owned(&down));
        down.iter().for_each(|name| is_down(&company.role(name), false));
        until(format!("{down:?} are accepted"), || states(&service).1.is_empty());
        until(format!("{down:?} are in force"), || service.hub().providers().len() == 3);
        until(format!("{down:?} show their members"), || {
            service.hub().providers().iter().all(|status| status.members == Some(1))
        });
    }
}

#[test]
fn p1_4_without_a_store_a_start_fails_where_nobody_answers_and_says_what_came_of_asking() {
    let error = builder(&company(&NAMES), None).connectivity_timeout(Duration::from_millis(400)).start().unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable);
    for name in NAMES {
        assert!(error.detail().contains(&format!("{name}: [backend-unavailable] connection refused")), "{error}");
    }
}

#[test]
fn p1_4_where_all_are_required_one_that_does_not_answer_stops_the_start() {
    for down in outages().filter(|down| down.len() == 1) {
        let builder = builder(&company(&down), None).require_all_providers(true);
        let error = builder.connectivity_timeout(Duration::from_millis(300)).start().unwrap_err();
        assert_eq!(error.provider().map(ToString::to_string), Some(down[0].to_owned()));
    }
}

#[test]
fn p1_5_with_a_store_that_holds_them_all_are_in_force_whoever_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("providers.jsonl");
    drop(builder(&company(&[]), Some(&path)).start().unwrap());
    for down in outages() {
        let company = company(&down);
        let service = builder(&company, Some(&path)).start().unwrap();
        assert_eq!(states(&service), (owned(&NAMES), vec![]), "{down:?}");
        if down.len() == 3 {
            let error = service.wait_ready(Duration::from_millis(50)).unwrap_err();
            assert_eq!(error.code(), ErrorCode::WaitTimedOut);
            assert!(!service.hub().gate().is_open());
            is_down(&company.role("second"), false);
            service.wait_ready(PATIENCE).unwrap();
            follows_best_of(&service, &["second"]);
        } else {
            follows_best_of(&service, &up(&down));
        }
    }
}

#[test]
fn p1_5_with_a_store_what_is_pending_stays_so_over_a_restart_during_the_outage() {
    for down in outages().filter(|down| (1..3).contains(&down.len())) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("providers.jsonl");
        let company = company(&down);
        drop(builder(&company, Some(&path)).start().unwrap());

        let service = builder(&company, Some(&path)).start().unwrap();
        assert_eq!(states(&service), (owned(&up(&down)), owned(&down)), "{down:?}");
        follows_best_of(&service, &up(&down));
        drop(service);

        is_down(&company.role(down[0]), false);
        let service = builder(&company, Some(&path)).start().unwrap();
        assert_eq!(states(&service).1, owned(&down[1..]), "{down:?}");
        assert!(states(&service).0.contains(&down[0].to_owned()));
        drop(service);

        // Everybody is accepted and stored in the end, and a set that lacks a definition does not remove it.
        is_down(&company.role(down[down.len() - 1]), false);
        drop(builder(&company, Some(&path)).start().unwrap());
        let service = ClusterProvisioningService::builder().factory(company).store_file(&path).start().unwrap();
        assert_eq!(states(&service), (owned(&NAMES), vec![]));
    }
}

/// A disk that is full, for as long as is said, and how often it was written to meanwhile.
#[derive(Default)]
struct Disk {
    full: AtomicBool,
    refused: AtomicUsize,
}

struct FullDisk(FileProviderStore, Arc<Disk>);

impl ProviderStore for FullDisk {
    fn load(&mut self) -> Result<StoredSet, ProvisioningError> {
        self.0.load()
    }

    fn save(&mut self, set: &StoredSet) -> Result<(), ProvisioningError> {
        if !self.1.full.load(Ordering::SeqCst) {
            return self.0.save(set);
        }
        self.1.refused.fetch_add(1, Ordering::SeqCst);
        Err(ProvisioningError::new(ErrorCode::StoreIo, "saving", "no space left on device"))
    }
}

#[test]
fn p1_5_p5_5_a_full_disk_keeps_no_stored_set_from_starting_and_it_is_kept_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("providers.jsonl");
    drop(builder(&company(&[]), Some(&path)).start().unwrap());
    let stored = std::fs::read(&path).unwrap();
    let disk = Arc::new(Disk::default());
    disk.full.store(true, Ordering::SeqCst);
    let start = || {
        let store = FullDisk(FileProviderStore::open(&path).unwrap(), Arc::clone(&disk));
        let builder = builder(&company(&[]), None).store(store);
        let events = builder.subscribe(1000);
        let service = builder.start().unwrap();
        let epoch = service.hub().position().epoch;
        (service, events, epoch)
    };
    let (service, mut events, first) = start();
    follows_best_of(&service, &NAMES);
    let warned = loop {
        if let ProvisioningEvent::Warning(warning) = &*events.recv_timeout(PATIENCE).unwrap() {
            break warning.error.clone();
        }
    };
    assert_eq!(warned.code(), ErrorCode::StoreIo, "{warned}");
    assert!(warned.detail().contains("only in memory"), "{warned}");
    assert_eq!(service.remove(&ProviderId::new("third").unwrap()).unwrap_err().code(), ErrorCode::StoreIo);
    assert_eq!(states(&service).0, owned(&NAMES), "what cannot be kept does not change");
    drop(service);
    assert_eq!(std::fs::read(&path).unwrap(), stored);

    let (service, _, second) = start();
    assert!(second > first, "{second} after {first}");
    let refused = || disk.refused.load(Ordering::SeqCst);
    let before = refused();
    until("it is tried again, more than once", || refused() > before + 1);
    disk.full.store(false, Ordering::SeqCst);
    until("the epoch is kept", || std::fs::read(&path).unwrap() != stored);
    service.remove(&ProviderId::new("third").unwrap()).unwrap();
    drop(service);
    let kept = FileProviderStore::open(&path).unwrap().load().unwrap();
    assert_eq!((kept.epoch, kept.descriptors.len()), (second, 2));
}

#[test]
fn p1_5_p5_5_a_store_that_was_replaced_while_the_service_ran_is_left_alone_and_a_reload_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let [path, other] = ["providers.jsonl", "other.jsonl"].map(|name| directory.path().join(name));
    let service = builder(&company(&[]), Some(&path)).start().unwrap();
    FileProviderStore::open(&other).unwrap().save(&StoredSet::new(1, vec![played("second", 7)])).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let restored = std::fs::read(&path).unwrap();
    let definitions = || vec![played("first", 3), played("second", 2)];
    let error = service.reload(definitions()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::StoreReplaced, "{error}");
    assert_eq!(states(&service).0, owned(&NAMES), "the old set stays in force");
    assert_eq!(std::fs::read(&path).unwrap(), restored);
    std::fs::rename(&path, &other).unwrap();
    service.reload(definitions()).unwrap();
    assert_eq!(states(&service).0, owned(&NAMES[..2]));
}

#[test]
fn p1_4_a_pending_provider_can_be_registered_again_without_leading_to_suppression() {
    let running = Running::played_by(company(&["first"]), &["first", "second"], |builder| builder);
    let service = &running.service;
    for _ in 0..20 {
        let error = service.register(played("first", 2)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::BackendUnavailable);
    }
    assert_eq!(running.hub().metrics().validation_failures, 0);
    is_down(&running.role("first"), false);
    service.register(played("first", 2)).unwrap();
    assert!(states(service).1.is_empty());
    until("it shows its member", || running.status("first").members == Some(1));
}

#[test]
fn p1_4_in_member_mode_a_start_waits_for_a_pending_provider_that_can_register_and_else_says_why_it_fails() {
    let member = |company: &Arc<Company>, patience| {
        let me = ClusterNode::builder("me", "10.0.0.9", 7001).build().unwrap();
        builder(company, None).member(me).join_timeout(patience).start()
    };
    let cast = || {
        let company = company(&["first"]);
        ["second", "third"].into_iter().for_each(|name| company.role(name).register_nobody());
        company
    };
    let error = member(&cast(), Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RegistrationFailed);
    assert!(error.detail().ends_with("within 100ms: those in force cannot register a node"), "{error}");

    let company = cast();
    let asks = Arc::clone(&company);
    let backend = std::thread::spawn(move || {
        until("it is asked again", || asks.role("first").calls(Call::Connect) > 2);
        is_down(&asks.role("first"), false);
    });
    let service = member(&company, PATIENCE).unwrap();
    backend.join().unwrap();
    assert!(company.role("first").calls(Call::Join) > 0 && states(&service).1.is_empty());
    service.drain().unwrap();
    assert_eq!(company.role("first").calls(Call::Leave), 1);
}

#[test]
fn p3_5_a_service_that_asks_pending_backends_stops_at_once_and_frees_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("providers.jsonl");
    let company = company(&["first"]);
    let service = builder(&company, Some(&path)).start().unwrap();
    // From here on the backend hangs.
    let hangs = running::hang_in(&company.role("first"), running::Call::Connect);
    hangs.reached(1);
    let (took, ()) = running::time(|| service.shutdown());
    assert!(took < Duration::from_secs(1), "{took:?}");
    let reopened = FileProviderStore::open(&path);
    hangs.open();
    reopened.unwrap();
}
