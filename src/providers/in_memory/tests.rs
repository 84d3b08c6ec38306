use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::clock::{SystemClock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderKind;
use crate::provider::*;
use crate::secret::Secrets;
use crate::topology::Revision;

const TTL: Duration = Duration::from_secs(10);

/// A clock that moves only when it is told to.
#[derive(Debug, Default)]
struct Still(AtomicU64);

impl Still {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn cluster() -> (Arc<Still>, InMemoryCluster) {
    let clock = Arc::new(Still::default());
    (Arc::clone(&clock), InMemoryCluster::new(clock))
}

fn node(id: &str) -> ClusterNode {
    ClusterNode::builder(id, "10.0.0.1", 8080).build().unwrap()
}

fn id(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

fn provider_id(id: &str) -> ProviderId {
    ProviderId::new(id).unwrap()
}

fn descriptor(id: &str) -> ProviderDescriptor {
    ProviderDescriptor::new(id, ProviderKind::in_memory()).unwrap()
}

fn provider(cluster: &InMemoryCluster, id: &str) -> InMemoryProvider {
    InMemoryProvider::new(descriptor(id).parameter("heartbeat", "10ms"), cluster).unwrap()
}

fn join(provider: &InMemoryProvider, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
    let mut registration = provider.registration(node)?;
    registration.join(&CancelToken::new())?;
    Ok(registration)
}

fn error(text: &'static str) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", text)
}

/// An event in short: its kind and the ids that it is about.
fn short(event: &ProviderEvent) -> String {
    match event {
        ProviderEvent::Snapshot { members, .. } => {
            format!("all{:?}", members.iter().map(|node| node.id().as_str()).collect::<Vec<_>>())
        }
        ProviderEvent::Changes { changes, .. } => changes
            .iter()
            .map(|change| match change {
                MemberChange::Upsert(node) => format!("+{}", node.id()),
                MemberChange::Remove(id) => format!("-{id}"),
            })
            .collect(),
        ProviderEvent::Heartbeat { current } => format!("alive {current}"),
        ProviderEvent::Doubtful { .. } => "doubtful".into(),
        ProviderEvent::Degraded { .. } => "degraded".into(),
        ProviderEvent::Terminated(_) => "end".into(),
    }
}

struct Watch(Box<dyn ProviderStream>);

impl Watch {
    fn of(cluster: &InMemoryCluster, id: &str) -> Self {
        Self(provider(cluster, id).watch(&CancelToken::new()).unwrap())
    }

    fn next(&mut self) -> String {
        short(&self.0.next())
    }

    /// The next event that is no heartbeat.
    fn news(&mut self) -> String {
        loop {
            let event = self.next();
            if !event.starts_with("alive") {
                return event;
            }
        }
    }
}

#[test]
fn p2_1_a_stream_begins_with_the_whole_and_goes_on_change_by_change() {
    let (_, cluster) = cluster();
    cluster.register(node("a"));
    let mut watches = [Watch::of(&cluster, "one"), Watch::of(&cluster, "one"), Watch::of(&cluster, "two")];
    assert!(cluster.clone().register(node("b")));
    assert!(!cluster.register(node("b")), "an equal node changes nothing");
    assert!(cluster.leave(&id("a")) && !cluster.leave(&id("a")));
    assert_eq!(cluster.register_all([node("b"), node("c"), node("d")]), 2);
    assert_eq!(cluster.leave_all(), 3);
    for watch in &mut watches {
        let events: Vec<String> = (0..5).map(|_| watch.next()).collect();
        assert_eq!(events, ["all[\"a\"]", "+b", "-a", "+c+d", "-b-c-d"]);
        assert_eq!(watch.next(), "alive true");
    }
}

#[test]
fn p2_3_every_state_has_a_mark_of_its_own() {
    let (_, cluster) = cluster();
    let mut stream = provider(&cluster, "one").watch(&CancelToken::new()).unwrap();
    cluster.register(node("a"));
    let mut mark = || match stream.next() {
        ProviderEvent::Snapshot { revision, .. } | ProviderEvent::Changes { revision, .. } => revision,
        other => panic!("{other:?}"),
    };
    assert_eq!((mark(), mark()), (Revision::new("0"), Revision::new("1")));
}

#[test]
fn a_registration_expires_by_the_clock_unless_it_is_renewed() {
    let (clock, cluster) = cluster();
    let mut watch = Watch::of(&cluster, "one");
    assert_eq!(watch.next(), "all[]");
    cluster.register_with_ttl(node("a"), TTL);
    cluster.register_with_ttl(node("b"), TTL);
    cluster.register_with_ttl(node("c"), TTL);
    cluster.register(node("c"));
    assert_eq!((watch.next(), watch.next(), watch.next()), ("+a".into(), "+b".into(), "+c".into()));
    clock.advance(TTL - Duration::from_millis(1));
    assert!(cluster.renew(&id("b")) && cluster.renew(&id("c")) && !cluster.renew(&id("x")));
    assert_eq!(cluster.expire(), 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(cluster.expire(), 1);
    assert_eq!(watch.next(), "-a");
    clock.advance(TTL);
    assert!(!cluster.renew(&id("b")), "it is too late");
    assert_eq!(watch.next(), "-b");
    assert_eq!(cluster.members(), [node("c")].into_iter().collect());
}

#[test]
fn a_stream_notices_an_expiry_by_itself() {
    let (clock, cluster) = cluster();
    let mut watch = Watch::of(&cluster, "one");
    cluster.register_with_ttl(node("a"), TTL);
    assert_eq!((watch.next(), watch.next()), ("all[]".into(), "+a".into()));
    clock.advance(TTL);
    assert_eq!(watch.news(), "-a");

    let real = InMemoryCluster::new(SystemClock::shared());
    let mut watch = Watch(InMemoryProvider::new(descriptor("one"), &real).unwrap().watch(&CancelToken::new()).unwrap());
    real.register_with_ttl(node("a"), Duration::from_millis(20));
    // No heartbeat comes between: the stream wakes for the expiry.
    assert_eq!((watch.next(), watch.next(), watch.next()), ("all[]".into(), "+a".into(), "-a".into()));
}

#[test]
fn a_clock_that_stands_still_does_not_make_a_stream_spin() {
    #[derive(Debug, Default)]
    struct Counting(AtomicU64);
    impl Clock for Counting {
        fn now(&self) -> Timestamp {
            self.0.fetch_add(1, Ordering::SeqCst);
            Timestamp::default()
        }
    }
    let clock = Arc::new(Counting::default());
    let cluster = InMemoryCluster::new(clock.clone());
    let one = InMemoryProvider::new(descriptor("one").parameter("heartbeat", "100ms"), &cluster).unwrap();
    let mut watch = Watch(one.watch(&CancelToken::new()).unwrap());
    cluster.register_with_ttl(node("a"), Duration::from_nanos(1));
    assert_eq!((watch.next(), watch.next()), ("all[]".into(), "+a".into()));
    let before = clock.0.load(Ordering::SeqCst);
    assert_eq!(watch.next(), "alive true");
    assert!(clock.0.load(Ordering::SeqCst) - before < 10);
}

#[test]
fn a_change_ends_a_wait_at_once() {
    let (_, cluster) = cluster();
    let stream = InMemoryProvider::new(descriptor("one").parameter("heartbeat", "4s"), &cluster);
    let mut watch = Watch(stream.unwrap().watch(&CancelToken::new()).unwrap());
    assert_eq!(watch.next(), "all[]");
    let reader = thread::spawn(move || watch.next());
    cluster.register(node("a"));
    assert_eq!(reader.join().unwrap(), "+a");
}

#[test]
fn m1_2_cancelling_ends_a_wait_at_once() {
    let (_, cluster) = cluster();
    let cancel = CancelToken::new();
    let mut stream = provider(&cluster, "one").watch(&cancel).unwrap();
    cluster.faults(&provider_id("one")).fall_silent();
    let reader = thread::spawn(move || short(&stream.next()));
    cancel.cancel();
    assert_eq!(reader.join().unwrap(), "end");
}

#[test]
fn a_stream_that_falls_behind_gets_the_whole_instead_of_a_backlog() {
    let (_, cluster) = cluster();
    let faults = cluster.faults(&provider_id("one"));
    let mut watch = Watch::of(&cluster, "one");
    faults.fail_streams(error("early"));
    for n in 0..state::QUEUE * 3 {
        cluster.register(ClusterNode::builder("a", "h", 1).incarnation(n as u64).build().unwrap());
    }
    faults.fail_streams(error("late"));
    let mut events: Vec<String> = std::iter::from_fn(|| Some(watch.next()).filter(|e| e != "alive true")).collect();
    assert!(events.len() <= state::QUEUE);
    assert_eq!((events.remove(0), events.remove(0)), ("degraded".into(), "all[\"a\"]".into()));
    assert_eq!(events.pop().unwrap(), "degraded");
    assert!(events.iter().all(|event| event == "+a"));
}

#[test]
fn the_end_is_never_lost_however_far_a_stream_is_behind() {
    let (_, cluster) = cluster();
    let faults = cluster.faults(&provider_id("one"));
    let mut watch = Watch::of(&cluster, "one");
    for _ in 0..state::QUEUE - 1 {
        faults.fail_streams(error("again"));
    }
    assert_eq!(faults.end_streams(ProviderTermination::Ended), 1);
    let events: Vec<String> = std::iter::from_fn(|| Some(watch.next()).filter(|event| event != "end")).collect();
    assert!(events.contains(&"all[]".to_string()) && events.len() < 20, "{events:?}");
    assert_eq!(watch.next(), "end", "and stays ended");
}

#[test]
fn p2_2_faults_concern_one_provider_and_reach_its_streams() {
    let (_, cluster) = cluster();
    let faults = cluster.faults(&provider_id("one"));
    let (mut one, mut two) = (Watch::of(&cluster, "one"), Watch::of(&cluster, "two"));
    assert_eq!((one.next(), two.next()), ("all[]".into(), "all[]".into()));
    assert_eq!((faults.fail_streams(error("x")), faults.doubt_streams(error("y"))), (1, 1));
    assert_eq!((one.next(), one.next(), one.next()), ("degraded".into(), "doubtful".into(), "alive true".into()));
    assert_eq!(faults.end_streams(ProviderTermination::Errored { reason: error("z") }), 1);
    assert_eq!(one.next(), "end");
    assert_eq!(two.next(), "alive true");
    assert_eq!(Watch::of(&cluster, "one").next(), "all[]");
}

#[test]
fn p1_4_refused_connections_fail_everything_that_connects() {
    let (_, cluster) = cluster();
    let (one, two, cancel) = (provider(&cluster, "one"), provider(&cluster, "two"), CancelToken::new());
    let mut registration = join(&one, &node("a")).unwrap();
    let mut open = Watch::of(&cluster, "one");
    cluster.faults(&provider_id("one")).refuse_connections(error("down"));
    let down = Err(error("down").with_provider(&provider_id("one")));
    assert_eq!(one.check_connectivity(&cancel), down);
    assert_eq!(one.watch(&cancel).map(drop), down);
    assert_eq!(join(&one, &node("b")).map(drop), down);
    assert_eq!((registration.renew(&cancel), registration.leave(TTL)), (down.clone(), down));
    assert_eq!((two.check_connectivity(&cancel), open.next()), (Ok(()), "all[\"a\"]".into()));
    cluster.faults(&provider_id("one")).accept_connections();
    assert!(one.check_connectivity(&cancel).is_ok() && registration.renew(&cancel).is_ok());
    assert_eq!(one.registration_site(), None, "registrations do not get into each other's way");
}

#[test]
fn a_silent_provider_says_nothing_until_it_speaks_again() {
    let (_, cluster) = cluster();
    let faults = cluster.faults(&provider_id("one"));
    let mut open = Watch::of(&cluster, "one");
    faults.fall_silent();
    let mut late = Watch::of(&cluster, "one");
    let reader = thread::spawn(move || (open.next(), late.next(), open));
    cluster.register(node("a"));
    assert_eq!(faults.fail_streams(error("unheard")), 0);
    faults.speak();
    faults.speak();
    let (first, second, mut open) = reader.join().unwrap();
    assert_eq!((first, second), ("all[\"a\"]".into(), "all[\"a\"]".into()));
    assert_eq!(open.next(), "alive true");
}

#[test]
fn a_paused_provider_shows_what_it_knew_and_does_not_vouch_for_it() {
    let (_, cluster) = cluster();
    cluster.register(node("a"));
    let faults = cluster.faults(&provider_id("one"));
    let mut watch = Watch::of(&cluster, "one");
    assert_eq!(watch.next(), "all[\"a\"]");
    faults.pause();
    cluster.register(node("b"));
    assert_eq!(watch.next(), "alive false");
    assert_eq!(Watch::of(&cluster, "one").next(), "all[\"a\"]");
    faults.resume();
    assert_eq!(watch.next(), "all[\"a\", \"b\"]");
    assert_eq!(watch.next(), "alive true");
}

#[test]
fn a_partitioned_provider_sees_its_part_only() {
    let (_, cluster) = cluster();
    cluster.register_all([node("a"), node("b")]);
    let faults = cluster.faults(&provider_id("one"));
    faults.hide([id("b"), id("c")]);
    let mut watch = Watch::of(&cluster, "one");
    assert_eq!(watch.next(), "all[\"a\"]");
    cluster.register(node("c"));
    cluster.register_all([node("d"), ClusterNode::builder("b", "h", 2).build().unwrap()]);
    assert_eq!(watch.next(), "+d");
    faults.reveal();
    assert_eq!(watch.next(), "all[\"a\", \"b\", \"c\", \"d\"]");
    assert_eq!(watch.next(), "alive true");
}

#[test]
fn m1_1_joining_registers_renewing_repairs_and_leaving_removes() {
    let (clock, cluster) = cluster();
    let one = InMemoryProvider::new(descriptor("one").parameter("ttl", "9s"), &cluster).unwrap();
    let cancel = CancelToken::new();
    let mut registration = join(&one, &node("a")).unwrap();
    assert_eq!(registration.renew_interval(), Duration::from_secs(3));
    clock.advance(Duration::from_secs(8));
    registration.renew(&cancel).unwrap();
    clock.advance(Duration::from_secs(8));
    assert_eq!(cluster.members().len(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(cluster.members().len(), 0);
    registration.renew(&cancel).unwrap();
    assert_eq!(cluster.members().len(), 1);
    registration.leave(Duration::from_secs(2)).unwrap();
    assert_eq!(cluster.members().len(), 0);
}

#[test]
fn leaving_does_not_remove_a_later_life_of_the_node() {
    let (_, cluster) = cluster();
    let mut old = join(&provider(&cluster, "one"), &node("a")).unwrap();
    let restarted = ClusterNode::builder("a", "10.0.0.1", 8080).incarnation(2).build().unwrap();
    cluster.register(restarted.clone());
    old.leave(TTL).unwrap();
    assert_eq!(cluster.members(), [restarted].into_iter().collect());
}

/// A life of the node `a` at that port.
fn life(incarnation: u64, port: u16) -> ClusterNode {
    ClusterNode::builder("a", "10.0.0.1", port).incarnation(incarnation).build().unwrap()
}

/// A registration of that node which has been made.
fn joined(cluster: &InMemoryCluster, node: &ClusterNode) -> Box<dyn Registration> {
    join(&provider(cluster, "one"), node).unwrap()
}

#[test]
fn nobody_sees_a_node_leave_whose_registration_makes_way_for_another() {
    let (clock, cluster) = cluster();
    let mut watch = Watch::of(&cluster, "one");
    assert_eq!(watch.next(), "all[]");
    let (mut old, mut new) = (joined(&cluster, &node("a")), joined(&cluster, &node("a")));
    assert_eq!(watch.next(), "+a");
    // The former one may have been renewed once more meanwhile.
    old.renew(&CancelToken::new()).unwrap();
    old.retire(TTL).unwrap();
    old.leave(TTL).unwrap();
    clock.advance(TTL);
    new.renew(&CancelToken::new()).unwrap();
    assert_eq!((watch.next(), cluster.members().len()), ("alive true".into(), 1));
    new.leave(TTL).unwrap();
    assert_eq!(watch.news(), "-a");
    // In the other order, as a program does whose providers share a cluster: the last to leave removes it.
    let (mut first, mut second) = (joined(&cluster, &node("a")), joined(&cluster, &node("a")));
    second.leave(TTL).unwrap();
    assert_eq!((watch.next(), cluster.members().len()), ("+a".into(), 1));
    first.leave(TTL).unwrap();
    assert_eq!(watch.news(), "-a");
}

#[test]
fn of_registrations_in_one_life_the_latest_says_what_is_shown_and_each_expires_by_itself() {
    let (clock, cluster) = cluster();
    let mut watch = Watch::of(&cluster, "one");
    assert_eq!(watch.next(), "all[]");
    let with = |zone: &str| ClusterNode::builder("a", "10.0.0.1", 8080).metadata("zone", zone).build().unwrap();
    let short = InMemoryProvider::new(descriptor("one").parameter("ttl", "5s"), &cluster).unwrap();
    let mut first = joined(&cluster, &with("1"));
    let mut second = join(&short, &with("2")).unwrap();
    assert_eq!((watch.next(), watch.next()), ("+a".into(), "+a".into()));
    first.renew(&CancelToken::new()).unwrap();
    assert_eq!(cluster.members(), [with("2")].into_iter().collect(), "what is older does not win by being renewed");
    clock.advance(Duration::from_secs(5));
    assert_eq!((cluster.expire(), cluster.members().len()), (0, 1), "the first one still holds it");
    assert_eq!(watch.next(), "alive true");
    first.renew(&CancelToken::new()).unwrap();
    assert_eq!(cluster.members(), [with("1")].into_iter().collect());
    clock.advance(Duration::from_secs(15));
    assert_eq!((cluster.expire(), cluster.members().len()), (1, 0));
    second.leave(TTL).unwrap();
    first.leave(TTL).unwrap();
}

#[test]
fn node_id_taken_by_a_later_life_or_the_same_one_elsewhere_and_not_by_an_earlier_one() {
    let (_, cluster) = cluster();
    let cancel = CancelToken::new();
    let taken = |result: Result<(), ProvisioningError>| {
        let error = result.unwrap_err();
        assert_eq!(error.provider().map(ProviderId::as_str), Some("one"));
        error.code() == ErrorCode::NodeIdTaken
    };
    let attempt = |node: &ClusterNode| join(&provider(&cluster, "one"), node).map(drop);
    let mut seventh = joined(&cluster, &life(7, 8080));
    assert!(taken(attempt(&life(7, 8081))) && taken(attempt(&life(6, 8080))));
    assert!(seventh.renew(&cancel).is_ok(), "it is not disturbed");
    // A restart replaces what was there before, which then finds its id taken, and removes nothing.
    let mut eighth = joined(&cluster, &life(8, 8081));
    assert_eq!(cluster.members(), [life(8, 8081)].into_iter().collect());
    assert!(taken(seventh.renew(&cancel)) && taken(seventh.join(&cancel)));
    eighth.leave(TTL).unwrap();
    assert!(cluster.members().is_empty(), "nobody else held it any more");
    assert!(seventh.join(&cancel).is_ok(), "the id is free");
    eighth.join(&cancel).unwrap();
    seventh.leave(TTL).unwrap();
    assert_eq!(cluster.members(), [life(8, 8081)].into_iter().collect());
}

#[test]
fn what_a_program_registers_itself_is_its_own_whoever_joins_there() {
    let (clock, cluster) = cluster();
    let cancel = CancelToken::new();
    // For good: a registration beside it changes nothing, and neither does its departure.
    cluster.register(life(1, 8080));
    let mut registration = joined(&cluster, &life(1, 8080));
    registration.leave(TTL).unwrap();
    assert_eq!(cluster.members().len(), 1);
    // For a time: the registration holds it beyond that.
    cluster.register_with_ttl(life(1, 8080), TTL);
    registration.join(&cancel).unwrap();
    clock.advance(TTL);
    assert_eq!((cluster.expire(), cluster.members().len()), (0, 1));
    registration.leave(TTL).unwrap();
    assert!(cluster.members().is_empty());
    // Removed by the program: the registration finds that out, and repairs it.
    registration.join(&cancel).unwrap();
    assert!(cluster.leave(&id("a")));
    registration.renew(&cancel).unwrap();
    assert_eq!(cluster.members().len(), 1);
    // Another life, by the program: it stays.
    cluster.register(life(2, 8080));
    assert_eq!(registration.renew(&cancel).unwrap_err().code(), ErrorCode::NodeIdTaken);
    registration.leave(TTL).unwrap();
    assert_eq!(cluster.members(), [life(2, 8080)].into_iter().collect());
    assert!(cluster.renew(&id("a")) && cluster.leave(&id("a")));
}

#[test]
fn what_was_never_registered_is_left_also_where_connections_are_refused() {
    let (_, cluster) = cluster();
    let one = provider(&cluster, "one");
    cluster.faults(&provider_id("one")).refuse_connections(error("down"));
    let mut registration = one.registration(&node("a")).unwrap();
    assert!(registration.join(&CancelToken::new()).is_err());
    registration.leave(TTL).unwrap();
    cluster.faults(&provider_id("one")).accept_connections();
    registration.join(&CancelToken::new()).unwrap();
    registration.leave(TTL).unwrap();
    cluster.faults(&provider_id("one")).refuse_connections(error("down"));
    registration.leave(TTL).unwrap();
}

#[test]
fn a_registration_that_is_made_again_lives_for_a_whole_time_to_live() {
    let (clock, cluster) = cluster();
    let mut registration = joined(&cluster, &node("a"));
    clock.advance(Duration::from_secs(10));
    registration.leave(TTL).unwrap();
    registration.join(&CancelToken::new()).unwrap();
    clock.advance(Duration::from_secs(14));
    assert_eq!((cluster.expire(), cluster.members().len()), (0, 1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(cluster.expire(), 1);
}

#[test]
fn a_dropped_stream_is_forgotten() {
    let (_, cluster) = cluster();
    let watch = Watch::of(&cluster, "one");
    let _other = Watch::of(&cluster, "one");
    drop(watch);
    assert_eq!(cluster.faults(&provider_id("one")).end_streams(ProviderTermination::Ended), 1);
}

#[test]
fn p1_1_the_factory_serves_named_clusters_and_refuses_what_it_does_not_know() {
    let ((_, east), (_, west)) = (cluster(), cluster());
    west.register(node("w"));
    let environment = ProviderEnvironment {
        clock: SystemClock::shared(),
        secrets: Secrets::default(),
        local_node: LocalNode::default(),
        retry: RetryPolicy::default(),
        exclusions: crate::provider::Exclusions::default(),
    };
    let single = InMemoryFactory::new().cluster("west", &west);
    let both = single.clone().cluster("east", &east);
    assert_eq!(both.kind(), ProviderKind::in_memory());
    let seen = |factory: &InMemoryFactory, descriptor: ProviderDescriptor| {
        factory.validate(&descriptor).unwrap();
        let provider = factory.create(&descriptor, &environment).unwrap();
        assert_eq!((provider.descriptor(), provider.capabilities()), (&descriptor, Capabilities::WATCH_AND_REGISTER));
        Watch(provider.watch(&CancelToken::new()).unwrap()).next()
    };
    assert_eq!(seen(&single, descriptor("one")), "all[\"w\"]");
    assert_eq!(seen(&both, descriptor("one").parameter("cluster", "west")), "all[\"w\"]");
    assert_eq!(seen(&both, descriptor("one").parameter("cluster", "east")), "all[]");

    let refused = |factory: &InMemoryFactory, descriptor: ProviderDescriptor, code, field| {
        let error = factory.validate(&descriptor).unwrap_err();
        assert_eq!((error.code(), error.field()), (code, Some(field)), "{error}");
    };
    refused(&both, descriptor("one"), ErrorCode::MissingField, "cluster");
    refused(&InMemoryFactory::new(), descriptor("one"), ErrorCode::MissingField, "cluster");
    refused(&single, descriptor("one").parameter("cluster", "north"), ErrorCode::InvalidValue, "cluster");
    refused(&single, descriptor("one").parameter("clutser", "west"), ErrorCode::UnknownField, "clutser");
    refused(&single, descriptor("one").parameter("ttl", "1ms"), ErrorCode::InvalidValue, "ttl");
    refused(&single, descriptor("one").parameter("heartbeat", "5s"), ErrorCode::InvalidValue, "heartbeat");
    refused(&single, descriptor("one").endpoint("http://x"), ErrorCode::UnknownField, "endpoints");
    refused(
        &single,
        descriptor("one").credential(Credential::Secret("s".into())),
        ErrorCode::UnknownField,
        "credential",
    );
}
