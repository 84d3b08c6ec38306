//! The running service: threads, bridges, store and providers together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, Recorder, ScriptedFactory, ScriptedProvider, members, node};
use cluster_provisioning::*;

/// Far longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

fn kind() -> ProviderKind {
    ProviderKind::new("scripted").unwrap()
}

fn descriptor(id: &str, priority: i64) -> ProviderDescriptor {
    ProviderDescriptor::new(id, kind()).unwrap().priority(priority)
}

fn id(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

struct Fixture {
    service: ClusterProvisioningService,
    recorder: Arc<Recorder>,
    factory: Arc<ScriptedFactory>,
}

impl Fixture {
    fn with(providers: &[(&str, i64)], adapt: impl FnOnce(ServiceBuilder) -> ServiceBuilder) -> Self {
        let recorder = Recorder::new();
        let factory = ScriptedFactory::new(kind());
        let mut builder = ClusterProvisioningService::builder()
            .factory(factory.clone())
            .placement_supervisor(recorder.clone())
            .partition_manager(recorder.clone())
            .remoting(recorder.clone());
        for (id, priority) in providers {
            builder = builder.provider(descriptor(id, *priority));
        }
        let service = adapt(builder).start().unwrap();
        Self { service, recorder, factory }
    }

    fn new(providers: &[(&str, i64)]) -> Self {
        Self::with(providers, |builder| builder)
    }

    fn provider(&self, id: &str) -> ScriptedProvider {
        self.factory.provider(id).unwrap()
    }

    fn hub(&self) -> &ProviderWatchHub {
        self.service.hub()
    }

    /// Waits for a delivery to a bridge that `wanted` accepts.
    fn wait_for(&self, bridge: BridgeKind, mut wanted: impl FnMut(&ProvisioningEvent) -> bool) -> ProvisioningEvent {
        let found = self.recorder.wait_for(PATIENCE, |call| call.bridge == bridge && wanted(&call.event));
        found.unwrap_or_else(|| panic!("not delivered; {:#?}", self.hub().explain())).event
    }

    /// Waits until Remoting, the last of the bridges, sees the gate open.
    fn ready(&self) {
        self.service.wait_ready(PATIENCE).unwrap();
    }
}

fn is_snapshot_of(event: &ProvisioningEvent, expected: &Members) -> bool {
    matches!(event, ProvisioningEvent::Snapshot(delivery) if delivery.snapshot.members == *expected)
}

#[test]
fn p2_1_updates_stream_to_the_bridges_and_the_gate_opens() {
    let fixture = Fixture::new(&[("a", 1)]);
    assert_eq!(fixture.hub().gate(), PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::NoSnapshot)));
    assert_eq!(fixture.hub().latest_snapshot().unwrap_err().code(), ErrorCode::NoSnapshot);
    fixture.provider("a").show(members(&["n1", "n2"]));
    fixture.ready();
    for bridge in [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager] {
        fixture.provider("a").show(members(&["n1", "n2", bridge_name(bridge)]));
        fixture.wait_for(bridge, |event| is_snapshot_of(event, &members(&["n1", "n2", bridge_name(bridge)])));
    }
}

fn bridge_name(bridge: BridgeKind) -> &'static str {
    match bridge {
        BridgeKind::PlacementSupervisor => "n3",
        BridgeKind::PartitionManager => "n4",
        BridgeKind::Remoting => "n5",
    }
}

#[test]
fn p2_5_a_stream_that_ends_fails_over_and_is_opened_again() {
    let fixture = Fixture::new(&[("a", 2), ("b", 1)]);
    fixture.provider("a").show(members(&["n1"]));
    fixture.ready();
    fixture.provider("b").show(members(&["n1"]));
    // A command's ticket is fulfilled after what the standby said before has been taken in, or soon after: wait for it.
    let mut events = fixture.hub().subscribe(1000);
    wait_until(&mut events, fixture.hub(), |hub| {
        hub.providers().iter().all(|status| status.health == ProviderHealth::Healthy)
    });
    fixture.provider("a").end();
    let event = fixture.wait_for(BridgeKind::PlacementSupervisor, |event| {
        matches!(event, ProvisioningEvent::ProviderChanged(change) if change.reason == SwitchReason::StreamEnded)
    });
    let ProvisioningEvent::ProviderChanged(change) = event else { unreachable!() };
    assert_eq!((change.from.unwrap().as_str(), change.to.as_str()), ("a", "b"));
    fixture.provider("a").show(members(&["n1"]));
    // The state of the tick before may still be the published one: both were healthy in it.
    wait_until(&mut events, fixture.hub(), |hub| {
        let healthy = |status: &ProviderStatus| status.health == ProviderHealth::Healthy;
        fixture.provider("a").opened() == 2 && hub.providers().iter().all(healthy)
    });
}

/// Looks at the hub after every event until it is as wanted.
fn wait_until(
    events: &mut EventStream<Arc<ProvisioningEvent>>,
    hub: &ProviderWatchHub,
    mut wanted: impl FnMut(&ProviderWatchHub) -> bool,
) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !wanted(hub) {
        assert!(std::time::Instant::now() < deadline, "never: {:#?}\n{:#?}", hub.providers(), hub.explain());
        _ = events.recv_timeout(Duration::from_millis(20));
    }
}

#[test]
fn p1_4_a_backend_that_does_not_answer_is_refused_at_the_first_start() {
    let factory = ScriptedFactory::new(kind());
    let provider = ScriptedProvider::new(descriptor("a", 1));
    provider.refuse(Some(ProvisioningError::new(ErrorCode::BackendUnavailable, "connecting", "refused")));
    factory.add(provider);
    let error =
        ClusterProvisioningService::builder().factory(factory).provider(descriptor("a", 1)).start().unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable);
    assert_eq!(error.provider().unwrap().as_str(), "a");
}

#[test]
fn p1_5_the_accepted_set_is_restored_and_a_dead_backend_does_not_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers.jsonl");
    let first = Fixture::with(&[("a", 1), ("b", 2)], |builder| builder.store_file(&path));
    first.service.register(descriptor("c", 3)).unwrap();
    let epoch = first.hub().position().epoch;
    drop(first);

    let factory = ScriptedFactory::new(kind());
    let dead = ScriptedProvider::new(descriptor("c", 3));
    dead.refuse(Some(ProvisioningError::new(ErrorCode::BackendUnavailable, "connecting", "refused")));
    factory.add(dead);
    let service = ClusterProvisioningService::builder().factory(factory.clone()).store_file(&path).start().unwrap();
    let registered: Vec<_> = service.registered().iter().map(|entry| entry.descriptor.id.to_string()).collect();
    assert_eq!(registered, ["a", "b", "c"]);
    factory.provider("a").unwrap().show(members(&["n1"]));
    service.wait_ready(PATIENCE).unwrap();
    assert!(service.hub().position().epoch > epoch, "the epoch rises from start to start");
}

#[test]
fn p1_5_a_definition_that_differs_from_the_stored_one_is_a_warning_among_the_first_deliveries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers.jsonl");
    drop(Fixture::with(&[("a", 1)], |builder| builder.store_file(&path)));
    let factory = ScriptedFactory::new(kind());
    let builder = ClusterProvisioningService::builder().factory(factory).store_file(&path).provider(descriptor("a", 7));
    let mut events = builder.subscribe(1000);
    let service = builder.start().unwrap();
    let warning = loop {
        match &*events.recv_timeout(PATIENCE).unwrap() {
            ProvisioningEvent::Warning(warning) => break warning.error.clone(),
            event => assert!(event.position() <= service.hub().position()),
        }
    };
    assert_eq!(warning.code(), ErrorCode::InvalidConfig);
    assert!(warning.detail().contains("priority: 1 in force, 7 given"), "{warning}");
}

#[test]
fn p1_5_a_stored_kind_without_a_factory_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers.jsonl");
    drop(Fixture::with(&[("a", 1)], |builder| builder.store_file(&path)));
    let error = ClusterProvisioningService::builder().store_file(&path).start().unwrap_err();
    assert_eq!((error.code(), error.field()), (ErrorCode::UnknownKind, Some("kind")), "{error}");
}

#[test]
fn p1_3_a_provider_that_cannot_watch_is_disabled_with_the_reason() {
    let factory = ScriptedFactory::new(kind());
    let blind = Capabilities::new(false, true);
    factory.add(ScriptedProvider::new(descriptor("blind", 9)).with_capabilities(blind));
    let builder = ClusterProvisioningService::builder().factory(factory.clone());
    let service = builder.provider(descriptor("a", 1)).provider(descriptor("blind", 9)).start().unwrap();
    let registered = service.registered();
    let Enablement::Disabled { reason } = &registered[1].status else { panic!("{registered:?}") };
    assert_eq!(reason.code(), ErrorCode::CapabilityMissing);
    assert_eq!(service.hub().providers().len(), 1, "a disabled provider is not in force");
    assert_eq!(factory.provider("blind").unwrap().opened(), 0);
}

#[test]
fn p1_2_a_name_collision_is_an_error_and_the_existing_provider_serves_on() {
    let fixture = Fixture::new(&[("a", 1)]);
    fixture.provider("a").show(members(&["n1"]));
    fixture.ready();
    let error = fixture.service.register(descriptor("a", 1).parameter("other", "x")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::DuplicateName);
    fixture.provider("a").show(members(&["n1", "n2"]));
    fixture.wait_for(BridgeKind::PartitionManager, |event| is_snapshot_of(event, &members(&["n1", "n2"])));
    assert_eq!(fixture.hub().metrics().validation_failures, 1);
}

#[test]
fn p5_2_more_failures_than_the_threshold_suppress_enabling_with_a_warning_until_lifted() {
    let fixture = Fixture::new(&[("a", 1)]);
    let mut events = fixture.hub().subscribe(1000);
    for _ in 0..5 {
        let refused = fixture.service.register(descriptor("b", -1)).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidValue);
    }
    fixture.service.register(descriptor("b", 1)).expect("five are not more than five");
    fixture.service.register(descriptor("c", -1)).unwrap_err();
    let error = fixture.service.register(descriptor("c", 1)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::EnablingSuppressed);
    assert!(fixture.service.lift_suppression());
    assert!(!fixture.service.lift_suppression());
    fixture.service.register(descriptor("c", 1)).unwrap();
    let mut told = Vec::new();
    wait_until(&mut events, fixture.hub(), |hub| hub.providers().len() == 3);
    while let Ok(event) = events.recv_timeout(Duration::from_millis(200)) {
        if let ProvisioningEvent::Warning(warning) = &*event
            && warning.error.code() == ErrorCode::EnablingSuppressed
        {
            told.push(warning.error.detail().to_owned());
        }
    }
    let begun = "enabling providers is suppressed for 60s at least, after 6 refused definitions";
    assert!(told.iter().any(|detail| detail == begun), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("enabling providers was allowed again"));
    assert_eq!(told.len(), 3, "the refusal, the beginning and the end: {told:?}");
    assert_eq!(fixture.hub().metrics().validation_failures, 6);
}

#[test]
fn p5_4_a_reload_takes_the_whole_new_set_or_none_of_it_and_unchanged_providers_keep_their_watch() {
    let fixture = Fixture::new(&[("a", 2), ("b", 1)]);
    fixture.provider("a").show(members(&["n1"]));
    fixture.provider("b").show(members(&["n1"]));
    fixture.ready();
    let refused = fixture.service.reload(vec![descriptor("b", 5), descriptor("c", 2000)]).unwrap_err();
    assert_eq!((refused.code(), refused.field()), (ErrorCode::InvalidValue, Some("priority")));
    let ids = |hub: &ProviderWatchHub| hub.providers().iter().map(|s| s.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(fixture.hub()), ["a", "b"]);
    let mut events = fixture.hub().subscribe(1000);
    wait_until(&mut events, fixture.hub(), |hub| hub.providers()[1].members.is_some());
    fixture.service.reload(vec![descriptor("c", 9), descriptor("b", 5)]).unwrap();
    assert_eq!(ids(fixture.hub()), ["c", "b"]);
    assert_eq!(fixture.hub().active_provider().unwrap().as_str(), "b");
    assert_eq!(fixture.provider("b").opened(), 1, "its watch goes on");
    let event = fixture.wait_for(BridgeKind::PartitionManager, |event| {
        matches!(event, ProvisioningEvent::ProviderChanged(change) if change.reason == SwitchReason::Reconfigured)
    });
    assert!(event.position() <= fixture.hub().position());
}

#[test]
fn p3_2_a_callback_reads_the_last_completed_tick_and_cannot_deadlock() {
    let fixture = Fixture::new(&[("a", 1)]);
    fixture.provider("a").show(members(&["n1"]));
    fixture.ready();
    let seen = Arc::new(Mutex::new(None));
    let (hub, notes) = (fixture.hub().clone(), Arc::clone(&seen));
    fixture.recorder.on_call(move |call| {
        if matches!(call.event, ProvisioningEvent::Snapshot(_)) && call.bridge == BridgeKind::PlacementSupervisor {
            let ticket = hub.quarantine(NodeId::new("n2").unwrap(), "seen in a callback");
            let outcome = ticket.wait(PATIENCE).unwrap_err().code();
            *notes.lock().unwrap() = Some((hub.snapshot().unwrap().members.len(), hub.gate(), outcome));
        }
    });
    fixture.provider("a").show(members(&["n1", "n2"]));
    fixture.wait_for(BridgeKind::Remoting, |event| {
        matches!(event, ProvisioningEvent::RemoteTopology(remote)
            if remote.event == RemoteTopologyChange::Blocked && remote.node_id.as_str() == "n2")
    });
    let seen = seen.lock().unwrap().take().unwrap();
    // The hook also ran for the snapshot that carries the block: by then the last completed tick had both.
    assert!(seen.0 == 1 || seen.0 == 2);
    assert_eq!((seen.1, seen.2), (PlacementGate::Open, ErrorCode::WouldBlock));
}

#[test]
fn p4_2_a_quarantine_is_marked_in_the_snapshot_once_its_ticket_is_through() {
    let fixture = Fixture::new(&[("a", 1)]);
    fixture.provider("a").show(members(&["n1", "n2"]));
    fixture.ready();
    fixture.hub().quarantine(id("n2"), "no answer").wait(PATIENCE).unwrap();
    assert!(fixture.hub().snapshot().unwrap().is_blocked(id("n2")));
    assert_eq!(fixture.hub().reconnected(id("n1")).wait(PATIENCE).unwrap_err().code(), ErrorCode::NotBlocked);
    fixture.hub().reconnected(id("n2")).wait(PATIENCE).unwrap();
    assert!(fixture.hub().snapshot().unwrap().is_blocked(id("n2")), "not before the next refresh");
    fixture.provider("a").say(ProviderEvent::Heartbeat { current: true });
    fixture.wait_for(BridgeKind::Remoting, |event| {
        matches!(event, ProvisioningEvent::RemoteTopology(remote) if remote.event == RemoteTopologyChange::Unblocked)
    });
}

#[test]
fn p3_5_draining_refuses_snapshots_and_keeps_the_last_one() {
    let fixture = Fixture::new(&[("a", 1)]);
    fixture.provider("a").show(members(&["n1", "n2"]));
    fixture.ready();
    fixture.service.drain().unwrap();
    assert_eq!(fixture.hub().gate(), PlacementGate::Paused(PauseReason::Draining));
    assert_eq!(fixture.service.register(descriptor("b", 1)).unwrap_err().code(), ErrorCode::Draining);
    assert_eq!(fixture.service.registered().len(), 1);
    fixture.provider("a").show(members(&["n1", "n3"]));
    let left = fixture.wait_for(BridgeKind::Remoting, |event| {
        matches!(event, ProvisioningEvent::RemoteTopology(remote) if remote.event == RemoteTopologyChange::Leave)
    });
    assert!(matches!(left, ProvisioningEvent::RemoteTopology(remote) if remote.node_id.as_str() == "n2"));
    assert_eq!(fixture.hub().latest_snapshot().unwrap().members, members(&["n1", "n2"]));
    let error = fixture.service.wait_ready(Duration::ZERO).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Draining);
}

#[test]
fn p2_1_a_provider_whose_thread_panics_is_reported_and_opened_again() {
    struct Panicking(ProviderDescriptor);
    impl ClusterProvider for Panicking {
        fn descriptor(&self) -> &ProviderDescriptor {
            &self.0
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities::WATCH
        }
        fn refresh_interval(&self) -> Option<Duration> {
            None
        }
        fn check_connectivity(&self, _cancel: &CancelToken) -> Result<(), ProvisioningError> {
            Ok(())
        }
        fn watch(&self, _cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
            panic!("a bug in a provider")
        }
    }
    struct Factory;
    impl ProviderFactory for Factory {
        fn kind(&self) -> ProviderKind {
            kind()
        }
        fn validate(&self, _descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
            Ok(())
        }
        fn create(
            &self,
            descriptor: &ProviderDescriptor,
            _environment: &ProviderEnvironment,
        ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
            Ok(Arc::new(Panicking(descriptor.clone())))
        }
    }
    let recorder = Recorder::new();
    let builder = ClusterProvisioningService::builder().factory(Arc::new(Factory)).provider(descriptor("a", 1));
    let service = builder.partition_manager(recorder.clone()).start().unwrap();
    let end = recorder.wait_for(PATIENCE, |call| matches!(call.event, ProvisioningEvent::StreamEnded(_))).unwrap();
    let ProvisioningEvent::StreamEnded(StreamEnded { termination: ProviderTermination::Errored { reason }, .. }) =
        end.event
    else {
        panic!("{end:?}")
    };
    assert_eq!((reason.code(), reason.detail()), (ErrorCode::ProviderPanicked, "a bug in a provider"));
    drop(service);
}

#[test]
fn p2_1_a_provider_that_panics_when_asked_for_its_name_or_promises_serves_all_the_same() {
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Moody(ProviderDescriptor, AtomicBool);
    impl ClusterProvider for Moody {
        fn descriptor(&self) -> &ProviderDescriptor {
            assert!(!self.1.load(Ordering::SeqCst), "a bug in a provider");
            &self.0
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities::WATCH
        }
        fn refresh_interval(&self) -> Option<Duration> {
            self.1.store(true, Ordering::SeqCst);
            panic!("a bug in a provider")
        }
        fn check_connectivity(&self, _cancel: &CancelToken) -> Result<(), ProvisioningError> {
            Ok(())
        }
        fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
            let scripted = ScriptedProvider::new(self.0.clone());
            scripted.show(members(&["n1"]));
            scripted.watch(cancel)
        }
    }
    struct Factory;
    impl ProviderFactory for Factory {
        fn kind(&self) -> ProviderKind {
            kind()
        }
        fn validate(&self, _descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
            Ok(())
        }
        fn create(
            &self,
            descriptor: &ProviderDescriptor,
            _environment: &ProviderEnvironment,
        ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
            Ok(Arc::new(Moody(descriptor.clone(), AtomicBool::new(false))))
        }
    }
    let builder = ClusterProvisioningService::builder().factory(Arc::new(Factory)).provider(descriptor("a", 1));
    let service = builder.start().unwrap();
    service.wait_ready(PATIENCE).unwrap();
    assert_eq!(service.hub().snapshot().unwrap().members, members(&["n1"]));
}

#[test]
fn member_mode_registers_with_every_provider_and_deregisters_when_draining() {
    let clock = SystemClock::shared();
    let clusters = [InMemoryCluster::new(clock.clone()), InMemoryCluster::new(clock)];
    let factory = InMemoryFactory::new().cluster("one", &clusters[0]).cluster("two", &clusters[1]);
    let provider = |id: &str, cluster: &str| {
        ProviderDescriptor::new(id, ProviderKind::in_memory()).unwrap().parameter("cluster", cluster)
    };
    let service = ClusterProvisioningService::builder()
        .factory(Arc::new(factory))
        .provider(provider("a", "one").priority(2))
        .provider(provider("b", "two"))
        .member(node("me"))
        .start()
        .unwrap();
    service.wait_ready(PATIENCE).unwrap();
    let mut events = service.hub().subscribe(1000);
    wait_until(&mut events, service.hub(), |_| clusters.iter().all(|cluster| cluster.members().contains(id("me"))));
    service.drain().unwrap();
    assert!(clusters.iter().all(|cluster| cluster.members().is_empty()));
}

#[test]
fn member_mode_without_a_provider_that_can_register_fails_at_start() {
    let factory = ScriptedFactory::new(kind());
    let builder = ClusterProvisioningService::builder().factory(factory).provider(descriptor("a", 1));
    let error = builder.member(node("me")).start().unwrap_err();
    assert_eq!(error.code(), ErrorCode::RegistrationFailed);
}

#[test]
fn no_provider_at_all_and_settings_out_of_range_are_refused() {
    let start = |builder: ServiceBuilder| builder.start().unwrap_err();
    assert_eq!(start(ClusterProvisioningService::builder()).code(), ErrorCode::NoProviders);
    let mut policy = FailoverPolicy::default();
    policy.max_errors = 0;
    let error = start(ClusterProvisioningService::builder().failover(policy));
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some("max_errors")));
    let builder = ClusterProvisioningService::builder;
    let endless = SuppressionSettings::default().threshold(1).window(Duration::MAX);
    for (field, builder) in [
        ("coalescing", builder().coalescing(Duration::from_secs(61))),
        ("connectivity_timeout", builder().connectivity_timeout(Duration::MAX)),
        ("join_timeout", builder().join_timeout(Duration::MAX)),
        ("leave_budget", builder().leave_budget(Duration::MAX)),
        ("suppression", builder().suppression(endless)),
    ] {
        let error = start(builder);
        assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some(field)));
    }
}

#[test]
fn p5_5_a_wait_longer_than_the_clock_can_express_is_a_wait_without_end() {
    let fixture = Fixture::new(&[("a", 1)]);
    let provider = fixture.provider("a");
    let shown = std::thread::spawn(move || {
        provider.show(members(&["n1"]));
    });
    fixture.service.wait_ready(Duration::MAX).unwrap();
    shown.join().unwrap();
    fixture.hub().exclude(id("n1"), "for ever", Duration::MAX).wait(Duration::MAX).unwrap();
    assert!(fixture.hub().snapshot().unwrap().is_empty());
}

#[test]
fn a_wait_that_ends_first_says_what_is_missing() {
    let fixture = Fixture::new(&[("a", 1)]);
    let error = fixture.service.wait_ready(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::WaitTimedOut);
    assert!(error.detail().contains("no-snapshot") && error.detail().contains("a: "), "{error}");
}

#[test]
fn a_service_dropped_inside_a_callback_ends_without_waiting_for_itself() {
    let fixture = Fixture::new(&[("a", 1)]);
    fixture.provider("a").show(members(&["n1"]));
    fixture.ready();
    let hub = fixture.hub().clone();
    let mut events = hub.subscribe(1000);
    let service = Mutex::new(Some(fixture.service));
    fixture.recorder.on_call(move |_| drop(service.lock().unwrap().take()));
    fixture.factory.provider("a").unwrap().show(members(&["n1", "n2"]));
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(_) => {}
            Err(end) => break assert_eq!(end, NoEvent::Closed),
        }
    }
}

#[test]
fn stopping_is_prompt_and_commands_after_it_say_so() {
    let fixture = Fixture::new(&[("a", 1), ("b", 2)]);
    fixture.provider("a").show(members(&["n1"]));
    fixture.ready();
    let hub = fixture.hub().clone();
    let mut events = hub.subscribe(1000);
    fixture.service.shutdown();
    let error = hub.unpin().wait(PATIENCE).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Stopped);
    assert_eq!(hub.latest_snapshot().unwrap().members, members(&["n1"]), "the last snapshot stays readable");
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(_) => {}
            Err(end) => break assert_eq!(end, NoEvent::Closed),
        }
    }
}
