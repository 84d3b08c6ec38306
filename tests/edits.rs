//! An edited definition: who sees that a provider is defined anew under its name, and who does not.

#[path = "support/running.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, FakeClock, members, node};
use cluster_provisioning::*;
use support::*;

const ALL: [&str; 4] = ["n1", "n2", "n3", "n4"];
const SECOND: Duration = Duration::from_secs(1);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn name(name: &str) -> ProviderId {
    ProviderId::new(name).unwrap()
}

fn errored() -> ProviderEvent {
    let reason = ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused");
    ProviderEvent::Terminated(ProviderTermination::Errored { reason })
}

type Events = EventStream<Arc<ProvisioningEvent>>;

/// What has been told since it was asked last, in words.
fn told(events: &mut Events) -> Vec<String> {
    std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.to_string()).collect()
}

/// The provider `a`, which is followed and shows [`ALL`], and its standby `b`, on a clock that stands still.
fn followed(standby: &[&str]) -> (Running, Arc<FakeClock>, Events) {
    let clock = FakeClock::new();
    let running = Running::with(&["a", "b"], |builder| builder.clock(clock.clone()));
    running.ready("a", &ALL);
    running.role("b").tell(snapshot(members(standby)));
    running.settle();
    // Whatever a window or a hold would still bring about has come about.
    running.pass(&clock, seconds(20), &["a", "b"]);
    running.recorder.take();
    let events = running.hub().subscribe(1000);
    (running, clock, events)
}

/// Edits `a`, which another role plays from here on, and leaves `b` as it is.
fn edit(running: &Running, part: &str) {
    running.service.reload(vec![played_as("a", 2, part), played("b", 1)]).unwrap();
    let registered = running.service.registered();
    assert_eq!(registered[0].descriptor, played_as("a", 2, part), "the program sees it");
}

/// Nobody was told anything, and everything is as it was.
fn nobody_saw_it(running: &Running, events: &mut Events) {
    assert_eq!(told(events), [""; 0]);
    let calls = running.recorder.take();
    assert!(calls.is_empty(), "{calls:#?}");
    let (hub, status) = (running.hub(), running.status("a"));
    assert!(hub.gate().is_open());
    assert_eq!(hub.latest_snapshot().unwrap().members, members(&ALL));
    assert_eq!((status.active, status.health, status.members), (true, ProviderHealth::Healthy, Some(ALL.len())));
    assert!(hub.remote_nodes().iter().all(|node| node.health == RemoteHealth::Up), "{:?}", hub.remote_nodes());
}

#[test]
fn p5_4_nobody_sees_that_the_provider_followed_is_edited_whatever_its_standby_shows() {
    for standby in [&ALL[..], &ALL[..3], &ALL[..1], &[]] {
        for pinned in [false, true] {
            let (running, clock, mut events) = followed(standby);
            if pinned {
                running.hub().pin(name("a")).wait(PATIENCE).unwrap();
            }
            let before = running.status("a");
            edit(&running, "a2");
            running.settle();
            nobody_saw_it(&running, &mut events);
            let after = running.status("a");
            assert_eq!((after.since, after.last_refresh), (before.since, before.last_refresh), "health and data stay");
            // Its stream lives and has shown nothing yet.
            running.pass(&clock, seconds(60), &["a2", "b"]);
            nobody_saw_it(&running, &mut events);
            assert_eq!(running.status("a").pinned, pinned);
            running.role("a2").tell(snapshot(members(&ALL)));
            running.settle();
            nobody_saw_it(&running, &mut events);
            assert_eq!((running.role("a2").calls(Call::Open), running.role("b").calls(Call::Open)), (1, 1));
            until("the former stream ends", || running.role("a").calls(Call::DropStream) == 1);
        }
    }
}

#[test]
fn p5_4_what_the_edited_provider_shows_is_news_of_the_provider_followed_and_no_more() {
    let (running, clock, mut events) = followed(&ALL);
    edit(&running, "a2");
    clock.advance(SECOND);
    running.role("a2").tell(snapshot(members(&["n1", "n2", "n3", "n5"])));
    running.settle();
    let told: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    let mut remote = Vec::new();
    let mut snapshots = 0;
    for event in &told {
        match &**event {
            ProvisioningEvent::Snapshot(delivery) => {
                snapshots += 1;
                assert_eq!(delivery.snapshot.provider_id, name("a"));
                assert_eq!((delivery.diff.joined().len(), delivery.diff.left().len()), (1, 1));
            }
            ProvisioningEvent::RemoteTopology(change) => remote.push((change.event, change.node_id.to_string())),
            other => panic!("{other:?}"),
        }
    }
    let expected = [(RemoteTopologyChange::Leave, "n4".to_owned()), (RemoteTopologyChange::Join, "n5".to_owned())];
    assert_eq!((snapshots, remote), (1, expected.to_vec()));
    running.pass(&clock, seconds(60), &["a2", "b"]);
    assert_eq!(running.hub().active_provider(), Some(name("a")));
}

#[test]
fn p5_4_p2_5_an_edited_provider_that_fails_is_left_like_any_other() {
    let switch = |running: &Running| {
        let event = running
            .delivered(BridgeKind::PlacementSupervisor, |event| matches!(event, ProvisioningEvent::ProviderChanged(_)));
        let ProvisioningEvent::ProviderChanged(change) = event else { unreachable!() };
        (change.from.unwrap().to_string(), change.to.to_string(), change.reason)
    };
    let (running, _clock, _) = followed(&ALL);
    edit(&running, "a2");
    running.role("a2").tell(errored());
    assert_eq!(switch(&running), ("a".into(), "b".into(), SwitchReason::StreamEnded));

    let (running, clock, mut events) = followed(&ALL);
    edit(&running, "a2");
    // It was asked whether it is there: its silence counts from then.
    running.pass(&clock, Duration::from_millis(14_999), &["b"]);
    nobody_saw_it(&running, &mut events);
    running.pass(&clock, Duration::from_millis(1), &["b"]);
    assert_eq!(switch(&running), ("a".into(), "b".into(), SwitchReason::Timeout));
}

#[test]
fn p5_4_where_all_are_edited_at_once_the_one_followed_stays_whoever_answers_first() {
    let (running, clock, mut events) = followed(&ALL);
    running.service.reload(vec![played_as("a", 2, "a2"), played_as("b", 1, "b2")]).unwrap();
    running.role("b2").tell(snapshot(members(&ALL)));
    running.settle();
    running.pass(&clock, seconds(60), &["a2", "b2"]);
    running.role("b2").tell(snapshot(members(&ALL)));
    running.settle();
    nobody_saw_it(&running, &mut events);
    running.role("a2").tell(snapshot(members(&ALL)));
    running.settle();
    nobody_saw_it(&running, &mut events);
}

#[test]
fn p5_4_an_edit_whose_backend_does_not_answer_changes_nothing() {
    let (running, _clock, mut events) = followed(&ALL);
    let refused = ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused");
    running.role("a2").refuse(Some(refused));
    let error = running.service.reload(vec![played_as("a", 2, "a2"), played("b", 1)]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable);
    running.settle();
    let told = told(&mut events);
    assert!(told.len() == 1 && told[0].contains("backend-unavailable"), "a warning: {told:?}");
    nobody_saw_it(&running, &mut events);
    assert_eq!(running.service.registered()[0].descriptor, played("a", 2));
    assert_eq!((running.role("a").calls(Call::Open), running.role("a").calls(Call::Cancel)), (1, 0));
    assert_eq!(running.role("a2").calls(Call::Open), 0);
}

// Member mode.

#[test]
fn p5_4_the_edited_definition_has_the_node_before_the_former_one_lets_go() {
    let running = Running::with(&["a"], |builder| builder.member(node("me")));
    let (former, edited) = (running.role("a"), running.role("a2"));
    edited.on(Call::Join, spite);
    running.service.reload(vec![played_as("a", 2, "a2")]).unwrap();
    until("the new one has failed more than once", || edited.calls(Call::Join) > 2);
    let renewed = former.calls(Call::Renew);
    until("the former one is kept up meanwhile", || former.calls(Call::Renew) > renewed + 1);
    assert_eq!(former.calls(Call::Leave), 0);
    let seen = Arc::new(Mutex::new(None));
    former.on(Call::Leave, {
        let (seen, edited) = (Arc::clone(&seen), Arc::downgrade(&edited));
        move || *seen.lock().unwrap() = edited.upgrade().map(|edited| edited.calls(Call::Join))
    });
    let failed = edited.calls(Call::Join);
    edited.forget(Call::Join);
    // The call is counted before what it leads to has been done.
    until("the former one lets go", || seen.lock().unwrap().is_some());
    assert!(seen.lock().unwrap().unwrap() > failed, "after the new one has joined");
    assert_eq!(former.calls(Call::Leave), 1);
    assert_eq!(edited.calls(Call::Leave), 0);
    running.service.drain().unwrap();
    assert_eq!((former.calls(Call::Leave), edited.calls(Call::Leave)), (1, 1));
}

#[test]
fn p1_1_definitions_that_would_overwrite_each_others_registration_are_refused() {
    let company = Company::new();
    for (part, entry) in [("a", "orders"), ("same", "orders"), ("other", "carts")] {
        company.role(part).register_at(RegistrationSite::new("desk 1", entry));
    }
    company.role("elsewhere").register_at(RegistrationSite::new("desk 2", "carts"));
    let as_member = |builder: ServiceBuilder| builder.member(node("me"));
    let running = Running::played_by(company.clone(), &["a"], as_member);
    let service = &running.service;
    let refuses = |error: ProvisioningError| {
        assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
        assert!(error.detail().contains("provider a registers it as \"orders\""), "{error}");
        assert_eq!(error.provider().map(ProviderId::as_str), Some("other"));
    };
    refuses(service.register(played("other", 1)).unwrap_err());
    refuses(service.reload(vec![played("a", 1), played("other", 1)]).unwrap_err());
    let report = service.validate(&played("other", 1), false).unwrap();
    assert_eq!(report.problems().map(ProvisioningError::code).collect::<Vec<_>>(), [ErrorCode::InvalidConfig]);
    assert_eq!(company.role("other").calls(Call::Connect), 0, "before its backend is asked");
    service.register(played("same", 1)).unwrap();
    service.register(played("elsewhere", 1)).unwrap();
    // Instead of the one that is there, it is welcome.
    service.reload(vec![played("other", 1), played("elsewhere", 1)]).unwrap();
    // Who registers nobody overwrites nobody.
    Running::played_by(company, &["a"], |builder| builder).service.register(played("other", 1)).unwrap();
}

// The in-memory cluster.

/// Makes in-memory providers, and notes what is asked of their registrations: by which `ttl`, and what.
struct Noting {
    clusters: InMemoryFactory,
    asked: Asked,
}

type Asked = Arc<Mutex<Vec<(String, &'static str)>>>;

struct Noted<T: ?Sized> {
    inner: Box<T>,
    ttl: String,
    asked: Asked,
}

impl<T: ?Sized> Noted<T> {
    fn note(&self, what: &'static str) {
        self.asked.lock().unwrap().push((self.ttl.clone(), what));
    }
}

impl ProviderFactory for Noting {
    fn kind(&self) -> ProviderKind {
        self.clusters.kind()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        self.clusters.validate(descriptor)
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let inner = Box::new(self.clusters.create(descriptor, environment)?);
        let ttl = descriptor.parameters.get("ttl").cloned().unwrap_or_default();
        Ok(Arc::new(Noted { inner, ttl, asked: Arc::clone(&self.asked) }))
    }
}

impl ClusterProvider for Noted<Arc<dyn ClusterProvider>> {
    fn descriptor(&self) -> &ProviderDescriptor {
        self.inner.descriptor()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.inner.refresh_interval()
    }

    fn check_connectivity(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.inner.check_connectivity(cancel)
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        self.inner.watch(cancel)
    }

    fn registration(&self, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        let inner = self.inner.registration(node)?;
        Ok(Box::new(Noted { inner, ttl: self.ttl.clone(), asked: Arc::clone(&self.asked) }))
    }
}

impl Registration for Noted<dyn Registration> {
    fn join(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        let joined = self.inner.join(cancel);
        self.note("join");
        joined
    }

    fn renew_interval(&self) -> Duration {
        self.inner.renew_interval()
    }

    fn renew(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.inner.renew(cancel)
    }

    fn leave(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        let left = self.inner.leave(budget);
        self.note("leave");
        left
    }
}

fn in_memory(ttl: &str) -> ProviderDescriptor {
    ProviderDescriptor::new("memory", ProviderKind::in_memory()).unwrap().parameter("ttl", ttl)
}

#[test]
fn p5_4_another_member_of_an_in_memory_cluster_sees_neither_leave_nor_join_of_an_edited_one() {
    let cluster = InMemoryCluster::new(SystemClock::shared());
    let factory = InMemoryFactory::new().cluster("c", &cluster);
    let asked = Asked::default();
    let noting = Arc::new(Noting { clusters: factory.clone(), asked: Arc::clone(&asked) });
    let me = ClusterProvisioningService::builder()
        .factory(noting)
        .provider(in_memory("10s"))
        .member(node("me"))
        .start()
        .unwrap();
    let other = ClusterProvisioningService::builder()
        .factory(Arc::new(factory))
        .provider(in_memory("10s"))
        .member(ClusterNode::builder("other", "10.0.0.2", 8080).build().unwrap())
        .coalescing(Duration::ZERO)
        .start()
        .unwrap();
    until("both see both", || {
        [&me, &other].iter().all(|service| service.hub().snapshot().is_some_and(|snapshot| snapshot.members.len() == 2))
    });
    let mut theirs = other.hub().subscribe(1000);
    let mut ours = me.hub().subscribe(1000);
    let expected = |asked: &Asked| {
        let asked = asked.lock().unwrap();
        asked.iter().map(|(ttl, what)| format!("{what} {ttl}")).collect::<Vec<_>>()
    };
    me.reload(vec![in_memory("20s")]).unwrap();
    until("the former registration lets go", || expected(&asked).iter().any(|what| what == "leave 10s"));
    me.reload(vec![in_memory("30s")]).unwrap();
    until("that one lets go, too", || expected(&asked).iter().any(|what| what == "leave 20s"));
    assert_eq!(expected(&asked), ["join 10s", "join 20s", "leave 10s", "join 30s", "leave 20s"]);
    // What comes after it is seen after it.
    cluster.register(ClusterNode::builder("last", "10.0.0.3", 8080).build().unwrap());
    for events in [&mut theirs, &mut ours] {
        let mut seen = Vec::new();
        while !seen.iter().any(|what: &String| what == "join last") {
            if let ProvisioningEvent::RemoteTopology(change) = &*events.recv_timeout(PATIENCE).unwrap() {
                seen.push(format!("{} {}", change.event, change.node_id));
            }
        }
        assert_eq!(seen, ["join last"]);
    }
    me.drain().unwrap();
    until("it leaves in the end", || !cluster.members().contains(node("me").id()));
}

#[test]
fn a_second_service_with_the_same_node_id_is_told_so_and_the_first_stays() {
    let cluster = InMemoryCluster::new(SystemClock::shared());
    let builder = |address: &str| {
        let factory = Arc::new(InMemoryFactory::new().cluster("c", &cluster));
        let builder = ClusterProvisioningService::builder().factory(factory).provider(in_memory("10s"));
        builder.member(ClusterNode::builder("me", address, 8080).build().unwrap())
    };
    let _first = builder("10.0.0.1").start().unwrap();
    let second = builder("10.0.0.2").join_timeout(Duration::from_millis(500));
    let mut events = second.subscribe(1000);
    let error = second.start().unwrap_err();
    assert_eq!(error.code(), ErrorCode::RegistrationFailed);
    assert!(error.detail().contains("the cluster has another process under the local node's id"), "{error}");
    let warned = std::iter::from_fn(|| events.recv_timeout(PATIENCE).ok()).any(|event| match &*event {
        ProvisioningEvent::Warning(warning) => warning.error.code() == ErrorCode::NodeIdTaken,
        _ => false,
    });
    assert!(warned, "and by its code");
    let shown = cluster.members();
    let addresses: Vec<_> = shown.iter().map(|node| node.address().to_owned()).collect();
    assert_eq!(addresses, ["10.0.0.1"]);
}

#[test]
fn p5_4_another_role_is_in_force_at_once_and_no_stream_is_opened_anew_for_it() {
    let running = Running::new(&["a", "b"]);
    running.ready("a", &["n1", "n2"]);
    running.role("b").show(&["s1"]);
    until("the standby shows its member", || running.status("b").members == Some(1));
    assert_eq!(running.status("b").role, ProviderRole::Mirror);
    let fallback = played("b", 1).role(ProviderRole::Fallback);
    running.service.reload(vec![played("a", 2), fallback.clone()]).unwrap();
    assert_eq!(running.status("b").role, ProviderRole::Fallback);
    assert_eq!((running.role("b").calls(Call::Create), running.role("b").calls(Call::Open)), (1, 1));
    assert!(running.service.registered().iter().any(|entry| entry.descriptor == fallback));
}
