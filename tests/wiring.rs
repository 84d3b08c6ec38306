//! Each setting, command and report arrives where it belongs: what the service, its builder, its handle and its threads
//! pass on.

#[path = "support/running.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, FakeClock, Recorder, members, node};
use cluster_provisioning::*;
use support::*;

const BRIDGES: [BridgeKind; 3] = [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting];
const SECOND: Duration = Duration::from_secs(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn id(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

fn name(name: &str) -> ProviderId {
    ProviderId::new(name).unwrap()
}

fn refused() -> ProvisioningError {
    ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused")
}

fn doubtful() -> ProviderEvent {
    ProviderEvent::Doubtful { reason: ProvisioningError::new(ErrorCode::IndexRollback, "testing", "went back") }
}

fn failing() -> ProviderEvent {
    ProviderEvent::Degraded { error: refused() }
}

fn errored() -> ProviderEvent {
    ProviderEvent::Terminated(ProviderTermination::Errored { reason: refused() })
}

type Events = EventStream<Arc<ProvisioningEvent>>;

/// What has been told since it was asked last.
fn told(events: &mut Events) -> Vec<Arc<ProvisioningEvent>> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

/// The warnings among it.
fn warnings(events: &mut Events) -> Vec<ProvisioningError> {
    let warning = |event: Arc<ProvisioningEvent>| match &*event {
        ProvisioningEvent::Warning(warning) => Some(warning.error.clone()),
        _ => None,
    };
    told(events).into_iter().filter_map(warning).collect()
}

fn codes(errors: &[ProvisioningError]) -> Vec<ErrorCode> {
    errors.iter().map(ProvisioningError::code).collect()
}

/// A service on a clock that stands still, with that failover policy, whose first provider shows `ids`.
fn with_policy(names: &[&str], ids: &[&str], adapt: impl FnOnce(&mut FailoverPolicy)) -> (Running, Arc<FakeClock>) {
    let (clock, mut policy) = (FakeClock::new(), FailoverPolicy::default());
    adapt(&mut policy);
    let running = Running::with(names, |builder| builder.clock(clock.clone()).failover(policy));
    running.ready(names[0], ids);
    running.settle();
    (running, clock)
}

/// Waits for the end signal at that bridge.
fn end_at(running: &Running, bridge: BridgeKind) -> StreamEnded {
    match running.delivered(bridge, |event| matches!(event, ProvisioningEvent::StreamEnded(_))) {
        ProvisioningEvent::StreamEnded(end) => end,
        event => panic!("{event:?}"),
    }
}

/// A store of the host's own.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<StoredSet>>);

impl Kept {
    fn set(&self) -> StoredSet {
        self.0.lock().unwrap().clone()
    }
}

impl ProviderStore for Kept {
    fn load(&mut self) -> Result<StoredSet, ProvisioningError> {
        Ok(self.set())
    }

    fn save(&mut self, set: &StoredSet) -> Result<(), ProvisioningError> {
        *self.0.lock().unwrap() = set.clone();
        Ok(())
    }
}

// The start.

#[test]
fn p1_3_p1_5_a_disabled_provider_is_stored_and_restored_as_such_and_warned_of_once_each_time() {
    let kept = Kept::default();
    for given in [&["a", "blind"][..], &[]] {
        let company = Company::new();
        company.role("blind").be_blind();
        let mut events = None;
        let running = Running::played_by(company, given, |builder| {
            events = Some(builder.subscribe(1000));
            builder.store(kept.clone())
        });
        running.ready("a", &["n1"]);
        running.settle();
        let mut events = events.unwrap();
        let told = warnings(&mut events);
        assert_eq!(codes(&told), [ErrorCode::CapabilityMissing], "{told:?}");
        assert_eq!(told[0].provider().map(ProviderId::as_str), Some("blind"));
        let registered = running.service.registered();
        assert_eq!(registered[1].status, Enablement::Disabled { reason: told[0].clone() });
        assert!(registered[0].is_enabled());
        let blind = running.role("blind");
        assert_eq!((blind.calls(Call::Connect), blind.calls(Call::Open)), (0, 0), "it is left alone");
        assert_eq!(running.hub().providers().len(), 1);
        let stored: Vec<_> = kept.set().descriptors.iter().map(|descriptor| descriptor.id.to_string()).collect();
        assert_eq!((stored, kept.set().epoch), (vec!["a".into(), "blind".into()], running.hub().position().epoch));
    }
}

#[test]
fn p1_3_a_provider_that_cannot_watch_is_warned_of_when_it_is_registered_and_not_again() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1"]);
    let mut events = running.hub().subscribe(1000);
    running.role("blind").be_blind();
    running.service.register(played("blind", 5)).unwrap();
    running.settle();
    assert_eq!(codes(&warnings(&mut events)), [ErrorCode::CapabilityMissing]);
    assert!(!running.service.registered()[1].is_enabled());
    running.service.register(played("blind", 5)).unwrap();
    running.service.reload(vec![played("blind", 5), played("a", 1)]).unwrap();
    running.service.register(played("b", 2)).unwrap();
    running.settle();
    assert_eq!(codes(&warnings(&mut events)), []);
}

#[test]
fn p1_4_p1_5_the_warnings_of_a_start_are_delivered() {
    let kept = Kept::default();
    drop(Running::with(&["a", "dead"], |builder| builder.store(kept.clone())));
    let company = Company::new();
    company.role("dead").refuse(Some(refused()));
    let mut events = None;
    let running = Running::played_by(company, &[], |builder| {
        events = Some(builder.subscribe(1000));
        builder.store(kept).provider(played("a", 77))
    });
    running.settle();
    let told = warnings(&mut events.unwrap());
    assert_eq!(codes(&told), [ErrorCode::InvalidConfig, ErrorCode::BackendUnavailable], "{told:?}");
    let named: Vec<_> = told.iter().map(|error| error.provider().unwrap().as_str()).collect();
    assert_eq!(named, ["a", "dead"]);
}

#[test]
fn p1_5_a_start_with_a_clock_that_was_set_back_is_warned_of() {
    drop(Running::new(&["a"]));
    let mut events = None;
    // Shows a time long before the start above.
    let running = Running::with(&["a"], |builder| {
        events = Some(builder.subscribe(1000));
        builder.clock(FakeClock::new())
    });
    running.settle();
    assert_eq!(codes(&warnings(&mut events.unwrap())), [ErrorCode::ClockSetBack]);
}

#[test]
fn p4_5_what_the_backend_answered_at_the_start_is_the_first_that_is_known_of_a_provider() {
    let kept = Kept::default();
    drop(Running::with(&["lives", "dead"], |builder| builder.store(kept.clone())));
    let company = Company::new();
    company.role("dead").refuse(Some(refused()));
    // No stream comes about, so that nothing else is known.
    let latches: Vec<_> = ["lives", "dead"].map(|name| hang_in(&company.role(name), Call::Open)).into();
    let running = Running::played_by(company, &[], |builder| builder.store(kept));
    running.settle();
    let health = |name: &str| running.status(name).health;
    assert_eq!((health("lives"), health("dead")), (ProviderHealth::Degraded, ProviderHealth::Unreachable));
    latches.iter().for_each(|latch| latch.open());
}

// The builder's settings.

#[test]
fn p2_1_each_bridge_gets_what_is_its_own() {
    let [placement, partitions, remoting] = [Recorder::new(), Recorder::new(), Recorder::new()];
    let running = Running::with(&["a"], |builder| {
        builder.placement_supervisor(placement.clone()).partition_manager(partitions.clone()).remoting(remoting.clone())
    });
    running.ready("a", &["n1"]);
    running.settle();
    for (recorder, bridge) in [placement, partitions, remoting].iter().zip(BRIDGES) {
        let calls = recorder.take();
        assert!(!calls.is_empty() && calls.iter().all(|call| call.bridge == bridge), "{bridge:?}: {calls:#?}");
    }
}

/// Notes in what environment providers are made.
#[derive(Default)]
struct Surveyor(Mutex<Vec<ProviderEnvironment>>);

impl ProviderFactory for Surveyor {
    fn kind(&self) -> ProviderKind {
        ProviderKind::new("surveyed").unwrap()
    }

    fn validate(&self, _: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Ok(())
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        self.0.lock().unwrap().push(environment.clone());
        let provider = testkit::ScriptedProvider::new(descriptor.clone());
        Ok(Arc::new(provider))
    }
}

#[test]
fn p1_1_factories_get_the_secrets_the_clock_the_local_node_and_the_pauses_of_the_policy() {
    let (surveyor, clock) = (Arc::new(Surveyor::default()), FakeClock::new());
    let mut policy = FailoverPolicy::default();
    (policy.backoff_initial, policy.backoff_max) = (millis(70), millis(700));
    let _running = Running::with(&["a"], |builder| {
        builder
            .factory(surveyor.clone())
            .provider(ProviderDescriptor::new("s", surveyor.kind()).unwrap())
            .secret("one", Secret::new("first"))
            .secret("two", Secret::new("second"))
            .clock(clock.clone())
            .failover(policy)
            .member(node("me"))
    });
    let environments = surveyor.0.lock().unwrap();
    let [environment] = &environments[..] else { panic!("{environments:?}") };
    let secret = |name: &str| environment.secrets.get(name).map(|secret| secret.expose().to_owned());
    assert_eq!(
        (secret("one").as_deref(), secret("two").as_deref(), secret("three")),
        (Some("first"), Some("second"), None)
    );
    assert_eq!(environment.clock.now(), clock.now());
    assert_eq!(environment.local_node.get().map(|node| node.id().to_string()), Some("me".to_owned()));
    assert_eq!((environment.retry.first, environment.retry.longest), (millis(70), millis(700)));
}

#[test]
fn p2_5_the_services_policy_decides_when_silence_is_a_failure() {
    let (running, clock) = with_policy(&["a", "b"], &["n1"], |policy| policy.silence_timeout = seconds(6));
    running.role("b").show(&["n1"]);
    running.pass(&clock, millis(5_999), &["b"]);
    assert_eq!(running.hub().active_provider(), Some(name("a")));
    running.pass(&clock, millis(1), &["b"]);
    assert_eq!(running.hub().active_provider(), Some(name("b")));
    let switch = running.delivered(BridgeKind::Remoting, |event| matches!(event, ProvisioningEvent::StreamEnded(_)));
    assert!(switch.position() <= running.hub().position());
}

#[test]
fn p2_5_the_services_policy_decides_how_many_errors_are_a_failure() {
    let (running, _) = with_policy(&["a", "b"], &["n1"], |policy| policy.max_errors = 1);
    running.role("b").show(&["n1"]);
    until("the standby is healthy", || running.status("b").health == ProviderHealth::Healthy);
    running.role("a").tell(failing());
    running.settle();
    assert_eq!(running.hub().active_provider(), Some(name("b")));
}

#[test]
fn p2_5_the_services_policy_decides_what_loss_is_held_back() {
    let (running, clock) = with_policy(&["a"], &["n1", "n2", "n3"], |policy| {
        (policy.mass_loss_share, policy.guard_hold) = (Some(0.5), seconds(3));
    });
    clock.advance(SECOND);
    running.role("a").tell(snapshot(members(&["n1"])));
    running.settle();
    assert_eq!(running.hub().metrics().guard_holds, 1);
    assert_eq!(running.hub().snapshot().unwrap().members.len(), 3);
    running.pass(&clock, seconds(3), &["a"]);
    assert_eq!(running.hub().snapshot().unwrap().members.len(), 1);
}

#[test]
fn p2_5_the_services_policy_decides_whether_standbys_watch() {
    let (running, _) = with_policy(&["a", "b"], &["n1"], |policy| policy.standby = StandbyMode::Cold);
    // Both watch until one serves.
    until("the standby's stream is closed", || running.role("b").calls(Call::DropStream) > 0);
    assert_eq!(running.role("a").calls(Call::DropStream), 0);
}

#[test]
fn p2_3_the_services_window_holds_the_next_change_for_as_long_as_it_is_set_to() {
    let clock = FakeClock::new();
    let running = Running::with(&["a"], |builder| builder.clock(clock.clone()).coalescing(seconds(3)));
    running.ready("a", &["n1"]);
    running.role("a").tell(snapshot(members(&["n1", "n2"])));
    running.pass(&clock, millis(2_999), &["a"]);
    assert_eq!(running.hub().snapshot().unwrap().members, members(&["n1"]));
    running.pass(&clock, millis(1), &["a"]);
    assert_eq!(running.hub().snapshot().unwrap().members, members(&["n1", "n2"]));
}

#[test]
fn p4_4_a_block_ends_after_the_absence_that_the_service_is_set_to() {
    let clock = FakeClock::new();
    let running = Running::with(&["a"], |builder| builder.clock(clock.clone()).block_absence(seconds(10)));
    running.ready("a", &["n1"]);
    running.hub().quarantine(id("gone"), "no answer").wait(PATIENCE).unwrap();
    running.pass(&clock, millis(9_999), &["a"]);
    assert!(running.hub().blocked().contains(id("gone")));
    running.pass(&clock, millis(1), &["a"]);
    assert!(running.hub().blocked().is_empty());
}

#[test]
fn p5_5_a_bridge_is_slow_beyond_the_limit_that_the_service_is_set_to() {
    let took = millis(150);
    for (limit, slow) in [(millis(10), 1), (millis(500), 0)] {
        let clock = FakeClock::new();
        let running = Running::with(&["a"], |builder| builder.clock(clock.clone()).slow_bridge_limit(limit));
        running.ready("a", &["n1"]);
        running.recorder.on_call(move |call| {
            if call.bridge == BridgeKind::PartitionManager {
                clock.advance(took);
            }
        });
        running.hub().publish_ownership(vec![OwnershipChange::release("k")]).wait(PATIENCE).unwrap();
        running.settle();
        let metrics = running.hub().metrics();
        assert_eq!((metrics.partition_manager.slow, metrics.partition_manager.duration.max()), (slow, took));
    }
}

#[test]
fn p1_4_backends_have_as_long_as_the_service_is_set_to_at_the_start_and_later() {
    let limit = millis(30);
    let company = Company::new();
    let latch = hang_in(&company.role("mute"), Call::Connect);
    let builder = ClusterProvisioningService::builder().factory(company.clone()).connectivity_timeout(limit);
    let error = builder.provider(played("mute", 1)).start().unwrap_err();
    let is_the_limits = |error: &ProvisioningError| {
        assert_eq!((error.code(), error.detail()), (ErrorCode::Timeout, "no answer within 30ms"), "{error}");
    };
    is_the_limits(&error);
    let running = Running::played_by(company, &["a"], |builder| builder.connectivity_timeout(limit));
    is_the_limits(&running.service.register(played("mute", 1)).unwrap_err());
    let report = running.service.validate(&played("mute", 1), true).unwrap();
    is_the_limits(&report.connectivity.unwrap().unwrap_err());
    assert!(running.service.validate(&played("mute", 1), false).unwrap().connectivity.is_none());
    latch.open();
}

#[test]
fn p1_5_the_epoch_of_a_start_exceeds_the_one_that_the_host_names() {
    let above = 1 << 60;
    for _ in 0..2 {
        // The clock of the store's start: no start without a store is to follow this one.
        let running = Running::with(&["a"], |builder| builder.store(Kept::default()).epoch_above(above));
        assert_eq!(running.hub().position().epoch, above + 1);
        running.ready("a", &["n1"]);
        assert_eq!(running.hub().snapshot().unwrap().position.epoch, above + 1);
    }
}

#[test]
fn p5_2_enabling_is_suppressed_by_more_failures_than_set_and_for_as_long_as_set() {
    let clock = FakeClock::new();
    let settings = SuppressionSettings::default().threshold(1).window(seconds(3));
    let running = Running::with(&["a"], |builder| builder.clock(clock.clone()).suppression(settings));
    let mut events = running.hub().subscribe(1000);
    let fail = || assert_eq!(running.service.register(played("bad", -1)).unwrap_err().code(), ErrorCode::InvalidValue);
    let allowed = |name: &str| running.service.register(played(name, 2)).map_err(|error| error.code());
    fail();
    assert_eq!(allowed("b"), Ok(()), "one is not more than one");
    fail();
    running.settle();
    let mut suppressed = warnings(&mut events);
    suppressed.retain(|error| error.code() == ErrorCode::EnablingSuppressed);
    let words = "enabling providers is suppressed for 3s at least, after 2 refused definitions";
    assert_eq!(suppressed.iter().map(ProvisioningError::detail).collect::<Vec<_>>(), [words]);
    clock.advance(millis(2_999));
    assert_eq!(allowed("c"), Err(ErrorCode::EnablingSuppressed));
    clock.advance(millis(1));
    assert_eq!(allowed("c"), Ok(()));
}

#[test]
fn p2_5_in_member_mode_a_provider_that_does_not_show_the_local_node_ranks_below_one_that_does() {
    let running = Running::with(&["better", "other"], |builder| builder.member(node("me")));
    running.role("other").tell(snapshot(members(&["me", "n1"])));
    running.role("better").tell(snapshot(members(&["n1"])));
    running.service.wait_ready(PATIENCE).unwrap();
    assert_eq!(running.hub().active_provider(), Some(name("other")));
}

#[test]
fn a_start_in_member_mode_waits_for_the_first_registration_as_long_as_it_is_set_to() {
    let company = Company::new();
    let joining = company.role("a");
    joining.on(Call::Connect, {
        let joining = Arc::downgrade(&joining);
        // Its backend answers, and refuses what comes after.
        move || joining.upgrade().unwrap().on(Call::Join, spite)
    });
    let builder = ClusterProvisioningService::builder().factory(company).provider(played("a", 1));
    let error = builder.member(node("me")).join_timeout(millis(40)).start().unwrap_err();
    assert_eq!(error.code(), ErrorCode::RegistrationFailed);
    assert!(error.detail().contains("within 40ms"), "{error}");
}

#[test]
fn a_deregistration_has_the_budget_that_the_service_is_set_to() {
    let running = Running::with(&["a"], |builder| builder.member(node("me")).leave_budget(seconds(77)));
    running.service.drain().unwrap();
    let within = running.role("a").leave_budget().unwrap();
    assert!(within <= seconds(77) && within > seconds(70), "what is left of it: {within:?}");

    let running = Running::with(&["a"], |builder| builder.member(node("me")).leave_budget(millis(40)));
    let latch = hang_in(&running.role("a"), Call::Leave);
    let error = running.service.drain().unwrap_err();
    assert!(error.detail().contains("within 40ms"), "{error}");
    latch.open();
}

#[test]
fn p4_3_data_is_overdue_by_the_refresh_interval_that_its_provider_promises() {
    let company = Company::new();
    company.role("a").promise(seconds(2));
    let clock = FakeClock::new();
    let running = Running::played_by(company, &["a"], |builder| builder.clock(clock.clone()));
    running.ready("a", &["n1"]);
    running.pass(&clock, seconds(4), &["a"]);
    assert_eq!(running.status("a").health, ProviderHealth::Healthy, "not before it is older than that");
    running.pass(&clock, millis(1), &["a"]);
    let status = running.status("a");
    assert_eq!(status.health, ProviderHealth::Degraded);
    assert_eq!(status.cause.unwrap().code(), ErrorCode::DataOverdue);
}

// The handle.

#[test]
fn p3_3_ownership_published_by_the_handle_arrives_as_leases() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1"]);
    let changes = vec![OwnershipChange::assign("k", id("n1")), OwnershipChange::release("l")];
    running.hub().publish_ownership(changes.clone()).wait(PATIENCE).unwrap();
    let leases =
        running.delivered(BridgeKind::PartitionManager, |event| matches!(event, ProvisioningEvent::LeasesPublished(_)));
    let ProvisioningEvent::LeasesPublished(update) = leases else { unreachable!() };
    let got: Vec<_> = update.leases.iter().map(|lease| (lease.key.clone(), lease.owner.clone())).collect();
    assert_eq!(got, changes.into_iter().map(|change| (change.key, change.owner)).collect::<Vec<_>>());
    assert!(update.leases.iter().all(|lease| lease.token == update.position));
    assert_eq!(update.snapshot_hash, running.hub().snapshot().unwrap().hash);
}

#[test]
fn p3_4_the_handle_pins_and_unpins() {
    let (running, clock) = with_policy(&["a", "b"], &["n1"], |_| {});
    running.role("b").show(&["n1"]);
    until("the standby is healthy", || running.status("b").health == ProviderHealth::Healthy);
    running.hub().pin(name("b")).wait(PATIENCE).unwrap();
    let status = running.status("b");
    assert_eq!((status.active, status.pinned, running.status("a").pinned), (true, true, false));
    let error = running.hub().pin(name("x")).wait(PATIENCE).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownProvider);
    running.hub().unpin().wait(PATIENCE).unwrap();
    assert!(!running.status("b").pinned);
    running.pass(&clock, seconds(10), &["a", "b"]);
    assert_eq!(running.hub().active_provider(), Some(name("a")));
}

#[test]
fn p4_2_each_source_of_blocks_has_its_own_way_in_and_out() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1", "n2", "n3"]);
    let hub = running.hub();
    let sources = || {
        let blocked = hub.blocked();
        blocked.iter().map(|entry| (entry.node.to_string(), entry.source, entry.reason.to_string())).collect::<Vec<_>>()
    };
    let entry = |node: &str, source, reason: &str| (node.to_owned(), source, reason.to_owned());
    let by_remoting = entry("n1", BlockSource::Remoting, "no answer");
    let by_operator = entry("n2", BlockSource::Operator, "upgrade");
    let by_detector = entry("n3", BlockSource::FailureDetector, "suspected");
    hub.quarantine(id("n1"), "no answer").wait(PATIENCE).unwrap();
    hub.block(id("n2"), "upgrade").wait(PATIENCE).unwrap();
    hub.exclude(id("n3"), "suspected", seconds(3600)).wait(PATIENCE).unwrap();
    assert_eq!(sources(), [by_remoting.clone(), by_operator.clone(), by_detector.clone()]);
    let until_when = hub.blocked().get(id("n3"), BlockSource::FailureDetector).unwrap().until;
    assert!(until_when.is_some() && hub.blocked().get(id("n2"), BlockSource::Operator).unwrap().until.is_none());
    until("a detector takes its node out", || hub.snapshot().unwrap().members == members(&["n1", "n2"]));
    // Nobody ends what is another's.
    type Way = fn(&ProviderWatchHub, NodeId) -> Ticket;
    let ways: [(Way, &str); 3] =
        [(ProviderWatchHub::reconnected, "n1"), (ProviderWatchHub::unblock, "n2"), (ProviderWatchHub::readmit, "n3")];
    for (way, own) in ways {
        for other in ["n1", "n2", "n3"].into_iter().filter(|other| *other != own) {
            assert_eq!(way(hub, id(other)).wait(PATIENCE).unwrap_err().code(), ErrorCode::NotBlocked);
        }
    }
    hub.readmit(id("n3")).wait(PATIENCE).unwrap();
    assert_eq!(sources(), [by_remoting.clone(), by_operator]);
    hub.unblock(id("n2")).wait(PATIENCE).unwrap();
    hub.reconnected(id("n1")).wait(PATIENCE).unwrap();
    assert_eq!(sources(), [by_remoting], "until the next refresh");
    running.role("a").tell(alive());
    running.settle();
    assert_eq!(sources(), []);
    until("the node is back", || hub.snapshot().unwrap().members == members(&["n1", "n2", "n3"]));
}

#[test]
fn p5_1_position_metrics_and_snapshot_are_of_one_tick() {
    let mut policy = FailoverPolicy::default();
    (policy.backoff_initial, policy.backoff_max) = (millis(1), millis(1));
    let running = Running::with(&["a", "b"], |builder| builder.coalescing(Duration::ZERO).failover(policy));
    running.ready("a", &["n1"]);
    running.settle();
    let mut events = running.hub().subscribe(100_000);
    let begun = running.hub().metrics();
    assert_eq!(begun.position, running.hub().position());
    // Read while ticks go by, as fast as it goes.
    let (done, hub) = (Arc::new(AtomicBool::new(false)), running.hub().clone());
    let reader = {
        let done = Arc::clone(&done);
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !done.load(Ordering::SeqCst) {
                seen.push(hub.metrics());
            }
            seen
        })
    };
    for number in 0..200 {
        running.role("a").tell(snapshot(members(&["n1", if number % 2 == 0 { "n2" } else { "n3" }])));
        if number % 20 == 0 {
            running.role("b").tell(ProviderEvent::Terminated(ProviderTermination::Ended));
        }
        running.settle();
    }
    done.store(true, Ordering::SeqCst);
    let mut seen = reader.join().unwrap();
    seen.push(running.hub().metrics());
    assert_eq!(seen.last().unwrap().position, running.hub().position());
    seen.dedup_by_key(|metrics| metrics.position);
    let told = told(&mut events);
    for metrics in seen.iter().filter(|metrics| metrics.position > begun.position) {
        let until_then = || told.iter().filter(|event| event.position() <= metrics.position);
        let snapshots = until_then().filter(|event| matches!(***event, ProvisioningEvent::Snapshot(_))).count() as u64;
        let ends = until_then().filter(|event| matches!(***event, ProvisioningEvent::StreamEnded(_))).count() as u64;
        assert_eq!(metrics.deliveries, metrics.position.seq_no);
        assert_eq!(metrics.snapshots - begun.snapshots, snapshots, "{metrics:?}");
        assert_eq!(metrics.stream_interruptions - begun.stream_interruptions, ends, "{metrics:?}");
        assert_eq!(metrics.snapshot_latency.count(), metrics.snapshots, "{metrics:?}");
    }
}

#[test]
fn p4_5_the_handle_tells_what_was_decided_and_how_the_nodes_are() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1"]);
    running.settle();
    let hub = running.hub();
    let health = || hub.remote_nodes().into_iter().map(|node| (node.id.to_string(), node.health)).collect::<Vec<_>>();
    assert_eq!(health(), [("n1".to_owned(), RemoteHealth::Up)]);
    assert_eq!(hub.last_stream_end(), None);
    running.role("a").tell(failing());
    running.settle();
    assert_eq!(health(), [("n1".to_owned(), RemoteHealth::Degraded)]);
    assert!(
        hub.explain().iter().any(|decision| decision.text.contains("a: healthy -> degraded")),
        "{:?}",
        hub.explain()
    );
}

// The streams' threads.

/// Keeps the hub in a callback.
fn busy(running: &Running) -> Arc<Latch> {
    let latch = Latch::new();
    let hangs = Arc::clone(&latch);
    running.recorder.on_call(move |call| {
        if matches!(call.event, ProvisioningEvent::LeasesPublished(_)) {
            hangs.hang();
        }
    });
    drop(running.hub().publish_ownership(vec![OwnershipChange::release("k")]));
    latch.reached(1);
    latch
}

#[test]
fn p2_1_every_kind_of_report_is_passed_on_with_the_time_at_which_it_was_sent() {
    type Check = fn(&Running, &ProviderStatus);
    let came = || change(MemberChange::Upsert(Arc::new(node("n2"))));
    let confirmed = || ProviderEvent::Changes { changes: Vec::new(), revision: Revision::NONE };
    let healthy: Check = |_, status| assert_eq!((status.health, status.errors), (ProviderHealth::Healthy, 0));
    let kinds: [(&str, ProviderEvent, bool, Check); 9] = [
        ("a snapshot", snapshot(members(&["n1", "n2"])), true, |_, status| assert_eq!(status.members, Some(2))),
        ("changes", came(), true, |_, status| assert_eq!(status.members, Some(2))),
        ("no changes", confirmed(), true, healthy),
        ("a refresh", ProviderEvent::Heartbeat { current: true }, true, healthy),
        ("a sign of life", ProviderEvent::Heartbeat { current: false }, false, healthy),
        ("a doubt", doubtful(), false, |running, status| {
            assert_eq!(status.cause.as_ref().unwrap().code(), ErrorCode::IndexRollback);
            assert_eq!((running.hub().metrics().doubtful, status.errors), (1, 0));
        }),
        ("an error", failing(), false, |_, status| {
            assert_eq!(status.cause.as_ref().unwrap().code(), ErrorCode::BackendUnavailable);
            assert_eq!((status.health, status.errors), (ProviderHealth::Degraded, 1));
        }),
        ("the end", ProviderEvent::Terminated(ProviderTermination::Ended), false, |_, status| {
            assert_eq!(status.last_end.as_ref().unwrap().termination, ProviderTermination::Ended);
        }),
        ("the end by an error", errored(), false, |_, status| {
            let ProviderTermination::Errored { reason } = &status.last_end.as_ref().unwrap().termination else {
                panic!("{status:?}")
            };
            assert_eq!(reason.code(), ErrorCode::BackendUnavailable);
        }),
    ];
    for (what, event, refreshes, check) in kinds {
        let (running, clock) = with_policy(&["a"], &["n1"], |_| {});
        let confirmed = clock.now();
        clock.advance(SECOND);
        let latch = busy(&running);
        clock.advance(millis(200));
        running.role("a").tell(event);
        let sent = clock.now();
        clock.advance(millis(200));
        latch.open();
        running.settle();
        let status = running.status("a");
        assert_eq!(status.last_heartbeat, Some(sent), "{what}");
        assert_eq!(status.last_refresh, Some(if refreshes { sent } else { confirmed }), "{what}");
        if let Some(end) = &status.last_end {
            assert_eq!(end.at, sent, "{what}");
        }
        check(&running, &status);
    }
}

/// Whether a thread of that name runs in this process.
#[cfg(target_os = "linux")]
fn runs(thread: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread that has just ended has no name any more.
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.into_iter().any(|name| name.trim_end() == thread)
}

#[cfg(not(target_os = "linux"))]
fn runs(_: &str) -> bool {
    false
}

#[test]
fn p2_1_the_stream_of_a_provider_that_is_removed_defined_anew_or_disabled_is_cancelled_and_its_thread_ends() {
    // Each with a name of its own, by which its thread is found.
    let cases = [("removed", None), ("renewed", Some("successor")), ("disabled", Some("blind"))];
    for (case, part) in cases {
        let running = Running::new(&[case, "other"]);
        running.role("blind").be_blind();
        // Its thread would be the successor's, too.
        running.role("successor").on(Call::Open, spite);
        running.ready(case, &["n1"]);
        let role = running.role(case);
        assert!(runs(&format!("watch-{case}")) || cfg!(not(target_os = "linux")));
        assert_eq!((role.calls(Call::Cancel), role.calls(Call::DropStream)), (0, 0));
        let definitions = [played("other", 1)].into_iter().chain(part.map(|part| played_as(case, 2, part)));
        running.service.reload(definitions.collect()).unwrap();
        until(format!("the stream of what was {case} is cancelled"), || role.calls(Call::Cancel) == 1);
        until(format!("the stream of what was {case} is let go of"), || role.calls(Call::DropStream) == 1);
        until(format!("the provider that was {case} is let go of"), || role.calls(Call::DropProvider) == 1);
        until(format!("the thread of what was {case} ends"), || !runs(&format!("watch-{case}")));
        assert_eq!(role.calls(Call::Open), 1);
    }
}

// What is counted and warned of.

#[test]
fn p5_1_refused_definitions_are_counted_and_other_refusals_are_not() {
    let running = Running::with(&["a"], |builder| {
        builder.suppression(SuppressionSettings::default().threshold(3).window(seconds(3600)))
    });
    let service = &running.service;
    let count = || running.hub().metrics().validation_failures;
    let code = |outcome: Result<(), ProvisioningError>| outcome.unwrap_err().code();
    assert_eq!(code(service.remove(&name("unknown"))), ErrorCode::UnknownProvider);
    assert_eq!(code(service.remove(&name("a"))), ErrorCode::NoProviders, "the last one stays");
    assert!(!service.validate(&played("b", 100_000), true).unwrap().is_acceptable());
    assert_eq!(count(), 0);
    assert_eq!(code(service.register(played("b", 100_000))), ErrorCode::InvalidValue);
    assert_eq!(count(), 1);
    assert_eq!(code(service.register(played("a", 9))), ErrorCode::DuplicateName);
    assert_eq!(count(), 2);
    running.role("b").refuse(Some(refused()));
    for _ in 0..9 {
        assert_eq!(code(service.register(played("b", 1))), ErrorCode::BackendUnavailable);
    }
    assert_eq!(count(), 2, "a backend that does not answer is no refused definition");
    assert_eq!(code(service.register(played("b", -1))), ErrorCode::InvalidValue);
    assert_eq!(count(), 3);
    running.role("b").refuse(None);
    service.register(played("b", 1)).unwrap();
    assert_eq!(code(service.reload(vec![])), ErrorCode::NoProviders);
    assert_eq!(count(), 4);
    assert_eq!(code(service.register(played("c", 1))), ErrorCode::EnablingSuppressed);
    assert_eq!(count(), 4, "what is suppressed is not refused for itself");
}

// The end signal.

#[test]
fn p2_2_the_end_signal_reaches_every_bridge_and_subscriber_and_stays_readable() {
    let running = Running::new(&["a", "b"]);
    let mut events = running.hub().subscribe(1000);
    running.ready("a", &["n1", "n2"]);
    running.role("b").show(&["n1", "n2"]);
    running.role("b").tell(errored());
    let end = end_at(&running, BridgeKind::PlacementSupervisor);
    assert_eq!((end.provider_id.as_str(), end.was_active), ("b", false));
    running.role("a").tell(errored());
    let end = end_at(&running, BridgeKind::PlacementSupervisor);
    assert_eq!((end.provider_id.as_str(), end.was_active), ("a", true));
    assert_eq!(end.snapshot_hash, Some(members(&["n1", "n2"]).hash()));
    // Each tick goes to one bridge after the other: theirs are the same two.
    for bridge in [BridgeKind::PartitionManager, BridgeKind::Remoting] {
        assert_eq!(end_at(&running, bridge), end);
    }
    running.settle();
    let told: Vec<_> = told(&mut events)
        .iter()
        .filter_map(|event| match &**event {
            ProvisioningEvent::StreamEnded(end) => Some(end.clone()),
            _ => None,
        })
        .collect();
    assert_eq!((told.len(), &told[1]), (2, &end));
    assert_eq!(running.hub().last_stream_end().as_deref(), Some(&end));
    assert_eq!(running.status("a").last_end.as_deref(), Some(&end));
    assert_eq!(running.status("b").last_end.as_deref(), Some(&told[0]));
}

#[test]
fn p2_2_p3_5_the_end_signals_hash_is_that_of_the_last_delivered_set_also_while_draining() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1", "n2"]);
    running.service.drain().unwrap();
    running.role("a").tell(snapshot(members(&["n1"])));
    running.settle();
    running.role("a").tell(errored());
    for bridge in BRIDGES {
        assert_eq!(end_at(&running, bridge).snapshot_hash, Some(members(&["n1", "n2"]).hash()), "{bridge:?}");
    }
    running.settle();
    assert_eq!(running.hub().last_stream_end().unwrap().snapshot_hash, Some(members(&["n1", "n2"]).hash()));
}

#[test]
fn p2_2_the_end_signals_hash_is_that_of_the_last_delivered_set_also_while_a_mass_loss_is_held() {
    let all = ["n1", "n2", "n3", "n4"];
    let (running, clock) = with_policy(&["a"], &all, |policy| policy.mass_loss_share = Some(0.5));
    clock.advance(SECOND);
    running.role("a").tell(snapshot(members(&["n1"])));
    running.settle();
    assert_eq!(running.hub().metrics().guard_holds, 1);
    running.role("a").tell(errored());
    for bridge in BRIDGES {
        assert_eq!(end_at(&running, bridge).snapshot_hash, Some(members(&all).hash()), "{bridge:?}");
    }
    running.settle();
    assert_eq!(running.hub().snapshot().unwrap().members, members(&all));
}

// Nobody is followed any more.

#[test]
fn p5_3_p4_3_without_the_provider_followed_its_data_is_degraded_at_once_and_unavailable_by_the_rules_of_silence() {
    let (running, clock) = with_policy(&["a"], &["n1"], |_| {});
    running.service.reload(vec![played("c", 1)]).unwrap();
    running.settle();
    assert_eq!(running.hub().remote_nodes()[0].health, RemoteHealth::Degraded);
    let warning = running.delivered(
        BridgeKind::Remoting,
        |event| matches!(event, ProvisioningEvent::RemotingWarning(warning) if warning.degraded.is_some()),
    );
    let ProvisioningEvent::RemotingWarning(warning) = warning else { unreachable!() };
    assert_eq!(warning.degraded.unwrap().code(), ErrorCode::ProviderUnhealthy);
    running.pass(&clock, millis(14_999), &["c"]);
    assert!(running.hub().gate().is_open());
    assert_eq!(running.hub().latest_snapshot().unwrap().members, members(&["n1"]));
    running.pass(&clock, millis(1), &["c"]);
    assert_eq!(
        running.hub().gate(),
        PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::ProvisioningUnavailable)),
        "15 s after the former one's last sign of life"
    );
    assert_eq!(running.hub().latest_snapshot().unwrap_err().code(), ErrorCode::ProvisioningUnavailable);
    assert_eq!(running.hub().snapshot().unwrap().members, members(&["n1"]), "the last known good set stays");
    for bridge in BRIDGES {
        running.delivered(
            bridge,
            |event| matches!(event, ProvisioningEvent::GateChanged(change) if !change.gate.is_open()),
        );
    }
    running.role("c").show(&["n1"]);
    running.service.wait_ready(PATIENCE).unwrap();
    assert_eq!(running.hub().active_provider(), Some(name("c")));
}
