//! Services whose members find each other by gossip, on this host.
#![cfg(all(feature = "gossip", unix))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_provisioning::*;

/// Far longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

fn id(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

fn described(name: &str) -> ClusterNode {
    let now = SystemClock::new().now().as_nanos() / 1_000_000;
    ClusterNode::builder(name, "127.0.0.1", 7000).incarnation(now).build().unwrap()
}

fn definition(seeds: &[u16]) -> ProviderDescriptor {
    let descriptor = GossipFactory::descriptor("gossip", "test").unwrap();
    let descriptor = descriptor.parameter("bind", "127.0.0.1:0").parameter("profile", "local");
    seeds.iter().fold(descriptor, |descriptor, port| descriptor.endpoint(format!("127.0.0.1:{port}")))
}

struct Member {
    service: ClusterProvisioningService,
    gossip: GossipMembership,
}

impl Member {
    fn with(name: &str, definition: ProviderDescriptor) -> Self {
        let factory = GossipFactory::new();
        let service = ClusterProvisioningService::builder()
            .factory(Arc::new(factory.clone()))
            .provider(definition)
            .member(described(name))
            .start()
            .unwrap();
        let gossip = factory.membership("gossip").unwrap();
        Self { service, gossip }
    }

    fn new(name: &str, seeds: &[u16]) -> Self {
        Self::with(name, definition(seeds))
    }

    fn port(&self) -> u16 {
        self.gossip.port().unwrap()
    }
}

fn shown(service: &ClusterProvisioningService) -> Vec<String> {
    let snapshot = service.hub().snapshot();
    snapshot.map(|snapshot| snapshot.members.iter().map(|node| node.id().to_string()).collect()).unwrap_or_default()
}

fn wait_shown(service: &ClusterProvisioningService, names: &[&str]) {
    wait(&format!("{names:?}"), || shown(service) == names);
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < ends, "it never came to that: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn m4_5_m1_4_members_that_find_each_other_are_the_hubs_topology() {
    let a = Member::new("a", &[]);
    let b = Member::new("b", &[a.port()]);
    let c = Member::new("c", &[b.port()]);
    let all = [&a, &b, &c];
    all.iter().for_each(|member| wait_shown(&member.service, &["a", "b", "c"]));
    let hashes: Vec<u64> = all.iter().map(|member| member.service.hub().snapshot().unwrap().members.hash()).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    wait("all hold the same", || all.iter().all(|member| member.gossip.converged().is_some()));
    a.service.wait_ready(PATIENCE).unwrap();
    c.service.drain().unwrap();
    [&a, &b].iter().for_each(|member| wait_shown(&member.service, &["a", "b"]));
    assert_eq!((a.gossip.quarantined(), c.gossip.is_member()), (vec![], false), "who leaves is not quarantined");
}

#[test]
fn m5_5_a_process_in_client_mode_sees_what_members_see_and_is_seen_by_nobody() {
    let a = Member::new("a", &[]);
    let b = Member::new("b", &[a.port()]);
    wait_shown(&a.service, &["a", "b"]);
    let client = ClusterProvisioningService::builder().provider(definition(&[a.port(), b.port()])).start().unwrap();
    wait_shown(&client, &["a", "b"]);
    a.service.drain().unwrap();
    wait_shown(&client, &["b"]);
    assert_eq!(shown(&b.service), ["b"]);
    let c = Member::new("c", &[b.port()]);
    [&client, &b.service, &c.service].iter().for_each(|service| wait_shown(service, &["b", "c"]));
}

#[test]
fn p1_4_a_client_is_accepted_only_where_a_member_answers_and_is_told_why_not() {
    let a = Member::new("a", &[]);
    let refused = |definition: ProviderDescriptor| {
        let builder = ClusterProvisioningService::builder().connectivity_timeout(Duration::from_secs(2));
        builder.provider(definition).start().map(drop).unwrap_err()
    };
    assert_eq!(refused(definition(&[])).code(), ErrorCode::MissingField);
    let another = definition(&[a.port()]).parameter("label", "another");
    let error = refused(another);
    assert_eq!(error.code(), ErrorCode::AccessDenied, "{error}");
    assert!(error.detail().contains("another label"), "{error}");
}

#[test]
fn p1_4_a_member_that_cannot_listen_is_refused_with_the_address() {
    let a = Member::new("a", &[]);
    let taken = definition(&[]).parameter("bind", format!("127.0.0.1:{}", a.port()));
    let builder = ClusterProvisioningService::builder().provider(taken).member(described("b"));
    let error = builder.start().map(drop).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ListenFailed, "{error}");
    assert!(error.detail().contains(&a.port().to_string()), "{error}");
}

#[test]
fn m5_2_m5_4_m5_5_whoever_subscribes_is_told_each_transition_and_update_with_its_time() {
    let a = Member::new("a", &[]);
    let mut events = a.gossip.subscribe(1_000);
    let b = Member::new("b", &[a.port()]);
    wait_shown(&a.service, &["a", "b"]);
    b.service.drain().unwrap();
    wait_shown(&a.service, &["a"]);
    let (mut states, mut updates) = (Vec::new(), Vec::new());
    while updates.len() < 2 {
        match events.recv_timeout(PATIENCE).unwrap() {
            GossipEvent::State { at, node, to, .. } if *node.id() == id("b") => states.push((at, to)),
            GossipEvent::Update(update) => updates.push(update),
            _ => {}
        }
    }
    assert!(states.is_sorted_by_key(|(at, _)| *at));
    // On a machine that is busy it may be suspected meanwhile, and contradict.
    let mut states: Vec<_> = states.into_iter().map(|(_, state)| state).collect();
    states.retain(|state| *state != GossipState::Suspect);
    states.dedup();
    assert_eq!(states, [GossipState::Joining, GossipState::Up, GossipState::Left]);
    assert!(updates[0].at <= updates[1].at);
    assert_eq!((updates[0].joined[0].id(), updates[1].left[0].id()), (&id("b"), &id("b")));
    assert_eq!(updates[1].number, updates[0].number + 1);
    let metrics = a.gossip.metrics().unwrap();
    assert_eq!((metrics.members, metrics.joined, metrics.left), (1, 2, 1));
}

#[test]
fn m5_3_where_metrics_are_disabled_asking_for_them_fails_every_time() {
    let a = Member::with("a", definition(&[]).parameter("metrics", "off"));
    for _ in 0..3 {
        assert_eq!(a.gossip.metrics().unwrap_err().code(), ErrorCode::MetricsDisabled);
    }
}

#[test]
fn m1_3_what_is_asked_of_a_member_that_has_ended_fails_as_not_started_every_time() {
    let a = Member::new("a", &[]);
    a.service.drain().unwrap();
    for _ in 0..2 {
        let codes = [
            a.gossip.lift(id("x")).unwrap_err().code(),
            a.gossip.keep_out(id("x"), None).unwrap_err().code(),
            a.gossip.suspect(id("x")).unwrap_err().code(),
            a.gossip.describe(described("a")).unwrap_err().code(),
            a.gossip.metrics().unwrap_err().code(),
        ];
        assert_eq!(codes, [ErrorCode::NotStarted; 5]);
    }
    assert!(a.gossip.members().is_empty() && a.gossip.quarantined().is_empty() && a.gossip.port().is_none());
}

#[test]
fn m3_3_m3_5_whom_an_operator_keeps_out_is_told_so_and_comes_in_when_that_is_lifted() {
    let a = Member::new("a", &[]);
    a.gossip.keep_out(id("b"), Some(Duration::from_secs(600))).unwrap();
    assert!(a.gossip.quarantined()[0].is_pinned && a.gossip.quarantined()[0].until.is_some());
    let factory = GossipFactory::new();
    let builder = ClusterProvisioningService::builder()
        .factory(Arc::new(factory.clone()))
        .provider(definition(&[a.port()]))
        .join_timeout(PATIENCE * 2)
        .member(described("b"));
    let starting = std::thread::spawn(move || builder.start());
    let trouble = || factory.membership("gossip").and_then(|gossip| gossip.trouble());
    wait("it is refused", || trouble().is_some_and(|error| error.code() == ErrorCode::AdmissionRefused));
    assert!(trouble().unwrap().detail().contains("an operator keeps it out"));
    a.gossip.lift(id("b")).unwrap();
    wait("it is let in", || a.gossip.members().contains(&id("b")));
    let b = starting.join().unwrap().unwrap();
    wait_shown(&b, &["a", "b"]);
}

#[test]
fn p5_4_a_member_goes_on_with_other_seeds_and_refuses_to_become_another() {
    let a = Member::new("a", &[]);
    let b = Member::new("b", &[]);
    wait_shown(&a.service, &["a"]);
    wait_shown(&b.service, &["b"]);
    let port = b.port();
    b.service.reload(vec![definition(&[a.port()])]).unwrap();
    [&a, &b].iter().for_each(|member| wait_shown(&member.service, &["a", "b"]));
    assert_eq!(b.port(), port);
    let refused = b.service.reload(vec![definition(&[]).parameter("label", "another")]).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidValue, "{refused}");
    assert_eq!(shown(&b.service), ["a", "b"]);
}

#[test]
fn m1_4_changed_metadata_reaches_everybody() {
    let a = Member::new("a", &[]);
    let b = Member::new("b", &[a.port()]);
    wait_shown(&a.service, &["a", "b"]);
    let changed = ClusterNode::builder("b", "127.0.0.1", 7000).kind("worker").metadata("zone", "b").build().unwrap();
    b.gossip.describe(changed).unwrap();
    let zone = || {
        let snapshot = a.service.hub().snapshot().unwrap();
        snapshot.members.get("b").and_then(|node| node.metadata().next().map(|(_, zone)| zone.to_owned()))
    };
    wait("the zone is known", || zone().as_deref() == Some("b"));
    assert_eq!(b.gossip.local_node().unwrap().kinds().collect::<Vec<_>>(), ["worker"]);
}
