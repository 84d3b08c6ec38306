//! What the host's code does, the view goes on: a panic of it is caught wherever it comes, also where its payload panics
//! when it is dropped.

#[path = "support/running.rs"]
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, node};
use cluster_provisioning::*;
use support::*;

/// Streams are opened again soon.
fn quick(builder: ServiceBuilder) -> ServiceBuilder {
    let mut policy = FailoverPolicy::default();
    policy.backoff_initial = Duration::from_millis(50);
    builder.failover(policy)
}

/// The view goes on: a change comes to the last of the bridges, and a command is carried out.
fn goes_on(running: &Running, name: &str, id: &str) {
    running.role(name).show(&["n1", id]);
    running.delivered(BridgeKind::Remoting, |event| {
        matches!(event, ProvisioningEvent::RemoteTopology(remote)
            if remote.event == RemoteTopologyChange::Join && remote.node_id.as_str() == id)
    });
    assert_eq!(running.hub().unpin().wait(PATIENCE), Ok(()));
}

/// Panics the next time that call is made.
fn spite_once(role: &Role, call: Call) {
    let armed = AtomicBool::new(true);
    role.on(call, move || {
        if armed.swap(false, Ordering::SeqCst) {
            spite();
        }
    });
}

fn kind_of(event: &ProvisioningEvent) -> &'static str {
    match event {
        ProvisioningEvent::Snapshot(_) => "snapshot",
        ProvisioningEvent::ProviderChanged(_) => "changed",
        ProvisioningEvent::StreamEnded(_) => "ended",
        ProvisioningEvent::LeasesPublished(_) => "leases",
        ProvisioningEvent::GateChanged(_) => "gate",
        ProvisioningEvent::RemoteTopology(_) => "remote",
        ProvisioningEvent::RemotingWarning(_) => "warning",
        _ => "something else",
    }
}

#[test]
fn p5_5_each_callback_of_each_bridge_may_panic_and_the_view_goes_on() {
    let running = Running::with(&["a"], quick);
    let told = Arc::new(Mutex::new(BTreeSet::new()));
    let panics = Arc::clone(&told);
    running.recorder.on_call(move |call| {
        let first = panics.lock().unwrap().insert((call.bridge, kind_of(&call.event)));
        if first {
            spite();
        }
    });
    // The first snapshot was not recalculated with, and is told again.
    running.ready("a", &["n1"]);
    let leases = vec![OwnershipChange::release("k")];
    assert_eq!(running.hub().publish_ownership(leases).wait(PATIENCE), Ok(()));
    running.role("a").say(ProviderEvent::Terminated(ProviderTermination::Ended));
    until("it is opened again", || running.role("a").calls(Call::Open) == 2);
    goes_on(&running, "a", "n2");
    use BridgeKind::*;
    let expected = [
        (PlacementSupervisor, ["changed", "ended", "gate", "snapshot"].as_slice()),
        (PartitionManager, &["changed", "ended", "gate", "leases", "snapshot"]),
        (Remoting, &["ended", "gate", "remote", "warning"]),
    ];
    let expected: BTreeSet<_> = expected.iter().flat_map(|(b, kinds)| kinds.iter().map(|kind| (*b, *kind))).collect();
    assert_eq!(*told.lock().unwrap(), expected);
    let metrics = running.hub().metrics();
    let counted = [metrics.placement_supervisor.panics, metrics.partition_manager.panics, metrics.remoting.panics];
    assert_eq!(counted, [4, 5, 4]);
}

#[test]
fn p5_5_a_provider_whose_stream_panics_is_opened_again() {
    std::thread::scope(|scope| {
        for call in [Call::Next, Call::Open, Call::DropStream] {
            scope.spawn(move || {
                let running = Running::with(&["a", "b"], quick);
                let role = running.role("b");
                running.ready("a", &["n1"]);
                role.show(&["n1"]);
                until("it is healthy", || running.status("b").health == ProviderHealth::Healthy);
                spite_once(&role, call);
                role.say(match call {
                    Call::Next => alive(),
                    _ => ProviderEvent::Terminated(ProviderTermination::Ended),
                });
                until(format!("{call:?}: it is opened again"), || role.calls(Call::Open) >= 2);
                until(format!("{call:?}: it is healthy again"), || {
                    running.status("b").health == ProviderHealth::Healthy && role.calls(Call::Next) > 2
                });
                if call != Call::DropStream {
                    let end = running.status("b").last_end.expect("an end");
                    let ProviderTermination::Errored { reason } = &end.termination else { panic!("{call:?}: {end:?}") };
                    assert_eq!(reason.code(), ErrorCode::ProviderPanicked, "{call:?}");
                }
                goes_on(&running, "a", "n2");
                assert_eq!(running.role("a").calls(Call::Open), 1);
            });
        }
    });
}

#[test]
fn p5_5_providers_that_panic_when_they_are_let_go_are_removed_and_edited_like_any_other() {
    for call in [Call::Cancel, Call::DropStream, Call::DropProvider, Call::Descriptor] {
        let running = Running::with(&["a", "b", "c"], quick);
        running.ready("a", &["n1"]);
        let others = [running.role("b"), running.role("c")];
        for role in &others {
            until("it is open", || role.calls(Call::Next) >= 1);
            role.on(call, spite);
        }
        // Both are edited, then both removed.
        let edited = |name, priority| played(name, priority).parameter("edited", "x");
        let all = vec![played("a", 3), edited("b", 2), edited("c", 1)];
        let outcome = running.service.reload(all);
        if call != Call::Descriptor {
            assert_eq!(outcome, Ok(()), "{call:?}");
            until("they are opened anew", || others.iter().all(|role| role.calls(Call::Open) == 2));
        }
        goes_on(&running, "a", "n2");
        assert_eq!(running.service.reload(vec![played("a", 3)]), Ok(()), "{call:?}");
        until("they are let go", || others.iter().all(|role| role.calls(Call::DropProvider) >= 1));
        assert_eq!(running.hub().providers().len(), 1);
        goes_on(&running, "a", "n3");
    }
}

#[test]
fn p5_5_providers_that_panic_when_they_are_let_go_do_not_hinder_a_shutdown() {
    for call in [Call::Cancel, Call::DropStream, Call::DropProvider] {
        let running = Running::new(&["a", "b", "c"]);
        running.ready("a", &["n1"]);
        let roles = ["a", "b", "c"].map(|name| running.role(name));
        for role in &roles {
            until("it is open", || role.calls(Call::Next) >= 1);
            role.on(call, spite);
        }
        let (hub, recorder) = (running.hub().clone(), Arc::clone(&running.recorder));
        running.into_service().shutdown();
        until("the hub's thread has ended", || Arc::strong_count(&recorder) == 1);
        until("they are let go", || roles.iter().all(|role| role.calls(Call::DropProvider) == 1));
        assert_eq!(hub.gate(), PlacementGate::Paused(PauseReason::Draining), "it is no failure");
    }
}

#[test]
fn p1_3_what_a_definition_brings_may_panic_and_is_refused_then() {
    for call in [Call::Validate, Call::Create, Call::Capabilities, Call::Connect] {
        let running = Running::new(&["a"]);
        running.ready("a", &["n1"]);
        running.role("new").on(call, spite);
        let error = running.service.register(played("new", 9)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ProviderPanicked, "{call:?}: {error}");
        assert!(!running.service.validate(&played("new", 9), true).unwrap().is_acceptable(), "{call:?}");
        assert_eq!(running.service.registered().len(), 1);
        goes_on(&running, "a", "n2");
        running.role("new").forget(call);
        assert_eq!(running.service.register(played("new", 9)), Ok(()), "{call:?}");
    }
}

#[test]
fn p5_5_a_provider_that_panics_when_it_is_asked_for_what_it_promises_promises_nothing() {
    let running = Running::new(&["a"]);
    running.ready("a", &["n1"]);
    running.role("b").on(Call::RefreshInterval, spite);
    assert_eq!(running.service.register(played("b", 9)), Ok(()));
    running.role("b").show(&["n1", "n2"]);
    until("it is healthy", || running.status("b").health == ProviderHealth::Healthy);
    goes_on(&running, "a", "n3");
}

#[test]
fn p5_5_a_registration_may_panic_in_each_call_and_is_tried_again() {
    let company = Company::new();
    let role = company.role("a");
    spite_once(&role, Call::Join);
    spite_once(&role, Call::Renew);
    role.on(Call::Leave, spite);
    role.on(Call::DropRegistration, spite);
    let running = Running::played_by(company, &["a"], |builder| builder.member(node("n1")));
    assert_eq!(role.calls(Call::Join), 2, "it is registered at the second attempt");
    until("it is renewed again", || role.calls(Call::Renew) > 1);
    goes_on_for_a_member(&running);
    assert_eq!(running.service.drain().unwrap_err().code(), ErrorCode::ProviderPanicked);
    until("it is let go", || role.calls(Call::DropRegistration) == 1);
    running.into_service().shutdown();
}

fn goes_on_for_a_member(running: &Running) {
    running.ready("a", &["n1"]);
    goes_on(running, "a", "n2");
}

/// A clock that panics for as long as it is told to.
#[derive(Debug)]
struct BrokenClock {
    clock: Arc<dyn Clock>,
    broken: AtomicBool,
}

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        if self.broken.load(Ordering::SeqCst) {
            spite();
        }
        self.clock.now()
    }
}

impl Drop for BrokenClock {
    fn drop(&mut self) {
        spite();
    }
}

#[test]
fn p5_5_a_clock_that_panics_stands_still_and_the_view_goes_on() {
    let clock = Arc::new(BrokenClock { clock: SystemClock::shared(), broken: AtomicBool::new(true) });
    let running = Running::with(&["a"], |builder| builder.clock(clock.clone()));
    running.ready("a", &["n1"]);
    clock.broken.store(false, Ordering::SeqCst);
    goes_on(&running, "a", "n2");
    clock.broken.store(true, Ordering::SeqCst);
    assert_eq!(running.hub().quarantine(NodeId::new("n1").unwrap(), "no answer").wait(PATIENCE), Ok(()));
    running.role("a").say(alive());
    assert_eq!(running.service.drain(), Ok(()));
    // The last to let go of the clock is the service.
    drop(clock);
    running.into_service().shutdown();
}

/// A store that holds nothing, and panics when it is let go.
struct BrokenStore;

impl ProviderStore for BrokenStore {
    fn load(&mut self) -> Result<StoredSet, ProvisioningError> {
        Ok(StoredSet::default())
    }

    fn save(&mut self, _: &StoredSet) -> Result<(), ProvisioningError> {
        Ok(())
    }
}

impl Drop for BrokenStore {
    fn drop(&mut self) {
        spite();
    }
}

/// A factory of a kind that nobody uses, which panics when it is let go.
struct BrokenFactory(&'static str);

impl ProviderFactory for BrokenFactory {
    fn kind(&self) -> ProviderKind {
        ProviderKind::new(self.0).unwrap()
    }

    fn validate(&self, _: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Ok(())
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        _: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        Err(descriptor.refuse(ErrorCode::Unsupported, "kind", "nobody uses it"))
    }
}

impl Drop for BrokenFactory {
    fn drop(&mut self) {
        spite();
    }
}

#[test]
fn p5_5_a_store_and_factories_that_panic_when_they_are_let_go_end_with_the_service() {
    let running = Running::with(&["a"], |builder| {
        let builder = builder.store(BrokenStore);
        builder.factory(Arc::new(BrokenFactory("one"))).factory(Arc::new(BrokenFactory("two")))
    });
    running.ready("a", &["n1"]);
    running.into_service().shutdown();
}

/// A bridge that is never called, and panics when it is let go.
struct BrokenBridge;

impl PlacementSupervisorBridge for BrokenBridge {
    fn apply_snapshot(&self, _: &SnapshotDelivery) -> Vec<OwnershipChange> {
        spite();
        Vec::new()
    }

    fn provider_changed(&self, _: &ProviderChanged) {
        spite();
    }

    fn gate_changed(&self, _: &GateChanged) {
        spite();
    }
}

impl PartitionManagerBridge for BrokenBridge {
    fn apply_snapshot(&self, _: &SnapshotDelivery) {
        spite();
    }

    fn provider_changed(&self, _: &ProviderChanged) {
        spite();
    }

    fn stream_ended(&self, _: &StreamEnded) {
        spite();
    }

    fn publish_leases(&self, _: &LeaseUpdate) {
        spite();
    }

    fn gate_changed(&self, _: &GateChanged) {
        spite();
    }
}

impl RemotingBridge for BrokenBridge {
    fn remote_topology(&self, _: &RemoteTopologyEvent) {
        spite();
    }

    fn warning(&self, _: &RemotingWarning) {
        spite();
    }

    fn gate_changed(&self, _: &GateChanged) {
        spite();
    }
}

impl Drop for BrokenBridge {
    fn drop(&mut self) {
        spite();
    }
}

#[test]
fn p5_5_bridges_that_always_panic_and_panic_when_they_are_let_go_end_with_the_service() {
    let running = Running::with(&["a"], |builder| {
        builder
            .placement_supervisor(Arc::new(BrokenBridge))
            .partition_manager(Arc::new(BrokenBridge))
            .remoting(Arc::new(BrokenBridge))
    });
    let hub = running.hub().clone();
    let mut events = hub.subscribe(1000);
    running.role("a").show(&["n1"]);
    until("it is shown", || hub.snapshot().is_some());
    let not_recalculated = PlacementGate::Paused(PauseReason::NotRecalculated);
    assert_eq!(hub.gate(), not_recalculated, "nobody knows who owns what");
    assert_eq!(hub.unpin().wait(PATIENCE), Ok(()));
    running.into_service().shutdown();
    while events.recv_timeout(PATIENCE).is_ok() {}
    assert_eq!(hub.gate(), PlacementGate::Paused(PauseReason::Draining), "it is no failure");
}
