//! Services whose members find each other by gossip, on this host.
#![cfg(all(feature = "gossip", unix))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_provisioning::*;

/// Far longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn id(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

fn described(name: &str) -> ClusterNode {
    let now = SystemClock::new().now().as_nanos() / 1_000_000;
    ClusterNode::builder(name, "127.0.0.1", 7000).incarnation(now).build().unwrap()
}

fn definition(seeds: &[u16]) -> ProviderDescriptor {
    let descriptor = GossipFactory::descriptor("gossip", "test").unwrap();
    let descriptor = descriptor.parameter("bind", "127.0.0.1:0");
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
fn m5_1_m5_2_m5_4_m5_5_whoever_subscribes_is_told_each_transition_and_update_with_its_time() {
    let a = Member::new("a", &[]);
    wait_shown(&a.service, &["a"]);
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
fn m1_1_m1_2_a_member_listens_from_its_start_and_gives_its_port_back_at_its_end() {
    let a = Member::new("a", &[]);
    let at = ("127.0.0.1", a.port());
    assert!(a.gossip.is_member());
    assert!(std::net::UdpSocket::bind(at).is_err() && std::net::TcpListener::bind(at).is_err());
    a.service.drain().unwrap();
    assert!(!a.gossip.is_member());
    // Connections that were made there may be remembered by the system for a while: only a listener is asked for.
    assert!(std::net::UdpSocket::bind(at).is_ok(), "the port is free as soon as it has left");
}

#[test]
fn m1_5_the_members_can_be_read_before_the_join_and_after_the_end() {
    let factory = GossipFactory::new();
    let builder = ClusterProvisioningService::builder().factory(Arc::new(factory.clone())).join_timeout(PATIENCE * 2);
    // Nobody is there yet.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let builder = builder.provider(definition(&[port])).member(described("b"));
    let starting = std::thread::spawn(move || builder.start());
    wait("it asks to be let in", || factory.membership("gossip").is_some_and(|gossip| gossip.port().is_some()));
    let gossip = factory.membership("gossip").unwrap();
    assert!(gossip.members().is_empty() && !gossip.is_member());
    let a = Member::with("a", definition(&[]).parameter("bind", format!("127.0.0.1:{port}")));
    let b = starting.join().unwrap().unwrap();
    wait("both are members", || gossip.members().len() == 2);
    b.drain().unwrap();
    assert!(gossip.members().is_empty());
    drop(a);
}

#[test]
fn m2_1_m2_2_whoever_asks_to_be_let_in_is_joining_and_a_member_when_it_has_answered() {
    let a = Member::new("a", &[]);
    let mut events = a.gossip.subscribe(1_000);
    let _b = Member::new("b", &[a.port()]);
    let mut states = Vec::new();
    while states.last().map(|(_, to)| *to) != Some(GossipState::Up) {
        match events.recv_timeout(PATIENCE).unwrap() {
            GossipEvent::State { node, from, to, .. } if *node.id() == id("b") => states.push((from, to)),
            _ => {}
        }
    }
    assert_eq!(states, [(None, GossipState::Joining), (Some(GossipState::Joining), GossipState::Up)]);
    wait("it is announced", || a.gossip.members().contains("b"));
}

#[test]
fn m2_5_a_change_that_makes_no_sense_is_refused_and_its_reason_kept() {
    let a = Member::new("a", &[]);
    assert_eq!(a.gossip.refused_transitions(), []);
    a.gossip.suspect(id("stranger")).unwrap();
    let refused = a.gossip.refused_transitions();
    assert_eq!((refused.len(), &refused[0].node, &*refused[0].reason), (1, &id("stranger"), "nobody has heard of it"));
    assert_eq!(a.gossip.metrics().unwrap().refused_transitions, 1);
    a.service.drain().unwrap();
    assert_eq!(a.gossip.refused_transitions(), []);
}

#[test]
fn m4_1_m4_2_a_change_that_is_settled_is_an_update_and_nothing_else_is() {
    let a = Member::new("a", &[]);
    let b = Member::new("b", &[a.port()]);
    wait_shown(&a.service, &["a", "b"]);
    wait("all hold the same", || a.gossip.converged().is_some() && b.gossip.converged().is_some());
    let mut events = a.gossip.subscribe(1_000);
    let counted = || a.gossip.metrics().unwrap();
    let before = counted();
    wait("it has probed many times", || counted().datagrams > before.datagrams + 10);
    assert_eq!(counted().updates, before.updates);
    b.service.drain().unwrap();
    let update = loop {
        if let GossipEvent::Update(update) = events.recv_timeout(PATIENCE).unwrap() {
            break update;
        }
    };
    let ids = |nodes: &[Arc<ClusterNode>]| nodes.iter().map(|node| node.id().to_string()).collect::<Vec<_>>();
    assert_eq!((ids(&update.left), ids(&update.dead), update.members.len()), (vec!["b".to_owned()], vec![], 1));
    assert!(update.joined.is_empty() && update.updated.is_empty());
    assert_eq!((counted().updates, counted().members), (before.updates + 1, 1));
}

#[test]
fn m4_3_changes_that_follow_each_other_at_once_are_few_updates_of_which_the_last_says_all() {
    let a = Member::new("a", &[]);
    let b = Member::new("b", &[a.port()]);
    wait_shown(&a.service, &["a", "b"]);
    let mut events = a.gossip.subscribe(1_000);
    let changes = 100;
    for number in 1..=changes {
        let node = ClusterNode::builder("b", "127.0.0.1", 7000).metadata("number", number.to_string());
        b.service.describe(&node.build().unwrap()).unwrap();
        let has_it = || b.gossip.local_node().unwrap().metadata().any(|(_, value)| value == number.to_string());
        wait("the member has this change, as one of its own", has_it);
    }
    let number =
        |update: &GossipUpdate| update.members.get("b").and_then(|node| Some(node.metadata().next()?.1.to_owned()));
    let mut updates: Vec<Arc<GossipUpdate>> = Vec::new();
    while updates.last().and_then(|update| number(update)) != Some(changes.to_string()) {
        if let GossipEvent::Update(update) = events.recv_timeout(PATIENCE).unwrap() {
            updates.push(update);
        }
    }
    assert!(updates.len() < changes / 2, "{} updates", updates.len());
    let apart = updates.windows(2).map(|pair| pair[1].at.since(pair[0].at));
    apart.for_each(|apart| assert!(apart >= Duration::from_millis(200), "{apart:?}"));
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
            a.gossip.metrics().unwrap_err().code(),
        ];
        assert_eq!(codes, [ErrorCode::NotStarted; 4]);
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
    wait("it is let in", || a.gossip.members().contains(id("b")));
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
    b.service.describe(&changed).unwrap();
    let zone = || {
        let snapshot = a.service.hub().snapshot().unwrap();
        snapshot.members.get("b").and_then(|node| node.metadata().next().map(|(_, zone)| zone.to_owned()))
    };
    wait("the zone is known", || zone().as_deref() == Some("b"));
    assert_eq!(b.gossip.local_node().unwrap().kinds().collect::<Vec<_>>(), ["worker"]);
}

/// A member of two clusters: by gossip, and in memory.
fn in_both(
    name: &str,
    incarnation: u64,
    seeds: &[u16],
    cluster: &InMemoryCluster,
) -> (Member, EventStream<Arc<ProvisioningEvent>>) {
    let factory = GossipFactory::new();
    let node = ClusterNode::builder(name, "127.0.0.1", 7000).incarnation(incarnation).build().unwrap();
    let builder = ClusterProvisioningService::builder()
        .factory(Arc::new(factory.clone()))
        .factory(Arc::new(InMemoryFactory::new().cluster("c", cluster)))
        .provider(definition(seeds))
        .provider(ProviderDescriptor::new("memory", ProviderKind::in_memory()).unwrap())
        .member(node);
    let events = builder.subscribe(1_000);
    let service = builder.start().unwrap();
    let gossip = factory.membership("gossip").unwrap();
    (Member { service, gossip }, events)
}

fn in_memory(cluster: &InMemoryCluster, name: &str) -> Option<Arc<ClusterNode>> {
    cluster.members().get(name).cloned()
}

#[test]
fn m4_5_p1_4_a_life_that_gossip_has_to_raise_is_the_same_with_all_providers() {
    let (a, cluster) = (Member::new("a", &[]), InMemoryCluster::new(SystemClock::shared()));
    let (former, _) = in_both("b", 5, &[a.port()], &cluster);
    wait_shown(&a.service, &["a", "b"]);
    former.service.drain().unwrap();
    wait_shown(&a.service, &["a"]);
    // Its former life is remembered, and it says that it is the same.
    let (b, mut events) = in_both("b", 5, &[a.port()], &cluster);
    wait("it is registered in its new life", || in_memory(&cluster, "b").is_some_and(|node| node.incarnation() == 6));
    let seen = || a.gossip.members().get("b").map(|node| node.incarnation());
    wait("others see it in that life", || seen() == Some(6));
    assert_eq!(b.service.hub().local_node().unwrap().incarnation(), 6);
    b.service.wait_ready(PATIENCE).unwrap();
    while let Ok(event) = events.try_recv() {
        if let ProvisioningEvent::Warning(warning) = &*event {
            assert_ne!(warning.error.code(), ErrorCode::NodeIdTaken, "it takes itself for another");
        }
    }
}

#[test]
fn p1_4_a_node_that_is_described_anew_is_so_with_every_provider() {
    let (a, cluster) = (Member::new("a", &[]), InMemoryCluster::new(SystemClock::shared()));
    let (b, _) = in_both("b", 5, &[a.port()], &cluster);
    wait_shown(&a.service, &["a", "b"]);
    let described = ClusterNode::builder("b", "10.9.9.9", 1).kind("worker").metadata("zone", "b").build().unwrap();
    b.service.describe(&described).unwrap();
    let expected = ClusterNode::builder("b", "127.0.0.1", 7000).incarnation(5).kind("worker").metadata("zone", "b");
    let expected = expected.build().unwrap();
    wait("in memory", || in_memory(&cluster, "b").as_deref() == Some(&expected));
    wait("by gossip", || a.gossip.members().get("b").map(|node| &**node) == Some(&expected));
    assert_eq!(b.service.hub().local_node().as_deref(), Some(&expected));
    let refused =
        |service: &ClusterProvisioningService, name: &str| service.describe(&self::described(name)).unwrap_err().code();
    assert_eq!(refused(&b.service, "c"), ErrorCode::InvalidNode);
    let client = ClusterProvisioningService::builder().provider(definition(&[a.port()])).start().unwrap();
    assert_eq!(refused(&client, "b"), ErrorCode::InvalidNode);
    b.service.drain().unwrap();
    assert_eq!(refused(&b.service, "b"), ErrorCode::Draining);
}

#[test]
fn p1_4_a_description_that_gossip_cannot_carry_leaves_the_member_as_it_was_with_a_warning() {
    let (a, cluster) = (Member::new("a", &[]), InMemoryCluster::new(SystemClock::shared()));
    let (b, mut events) = in_both("b", 5, &[a.port()], &cluster);
    wait_shown(&a.service, &["a", "b"]);
    let large = ClusterNode::builder("b", "127.0.0.1", 7000).metadata("text", "x".repeat(600)).build().unwrap();
    b.service.describe(&large).unwrap();
    loop {
        if let ProvisioningEvent::Warning(warning) = &*events.recv_timeout(PATIENCE).unwrap()
            && warning.error.code() == ErrorCode::InvalidNode
        {
            assert_eq!(warning.error.provider().map(ToString::to_string).as_deref(), Some("gossip"));
            break;
        }
    }
    wait("whoever can carry it shows it", || in_memory(&cluster, "b").is_some_and(|node| node.metadata().count() == 1));
    assert!(b.gossip.is_member() && a.gossip.members().get("b").unwrap().metadata().count() == 0);
}

#[test]
fn p1_4_a_definition_that_is_looked_at_touches_neither_the_running_member_nor_its_handle_nor_its_port() {
    let factory = GossipFactory::new();
    let fixed = |port: u16| definition(&[]).parameter("bind", format!("127.0.0.1:{port}"));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let builder = ClusterProvisioningService::builder().factory(Arc::new(factory.clone()));
    let service = builder.provider(fixed(free)).member(described("a")).start().unwrap();
    let gossip = factory.membership("gossip").unwrap();
    // Its own port is taken by itself.
    assert_eq!(service.validate(&fixed(free), true).unwrap().problems().next(), None);
    let other = service.validate(&fixed(free).endpoint("127.0.0.1:1").priority(7), true).unwrap();
    assert_eq!(other.problems().map(|error| error.code()).collect::<Vec<_>>(), [ErrorCode::DuplicateName]);
    assert!(gossip.is_member() && factory.membership("gossip").unwrap().port() == Some(free));
}

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OTHER: &str = "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Files of keys, one for each name.
struct KeyFiles(tempfile::TempDir);

impl KeyFiles {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, keys: &[&str]) {
        let new = self.0.path().join("new");
        std::fs::write(&new, keys.join("\n")).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn definition(&self, name: &str, seeds: &[u16]) -> ProviderDescriptor {
        definition(seeds).credential(Credential::TokenFile(self.path(name).to_str().unwrap().to_owned()))
    }
}

#[test]
fn m1_4_members_with_one_key_find_each_other_and_the_key_is_changed_while_they_run() {
    let files = KeyFiles::new();
    ["a", "b"].iter().for_each(|name| files.write(name, &[KEY]));
    let a = Member::with("a", files.definition("a", &[]));
    let b = Member::with("b", files.definition("b", &[a.port()]));
    let both = |what: &str| {
        [&a, &b].iter().for_each(|member| wait_shown(&member.service, &["a", "b"]));
        println!("{what}");
    };
    both("one key");
    // Each step reaches everybody before the next, as a client finds that seals with the first of its own keys: a member
    // knows the new key, then seals with it, and at last no longer knows the old one.
    let steps = [
        (&[KEY, OTHER][..], &[OTHER, KEY][..], true),
        (&[OTHER, KEY], &[OTHER], true),
        (&[OTHER], &[KEY, OTHER], false),
    ];
    for (step, client, is_let_in) in steps {
        files.write("client", client);
        for member in [&a, &b] {
            let name = member.gossip.local_node().unwrap().id().to_string();
            let definition = files.definition("client", &[member.port()]);
            let builder = || ClusterProvisioningService::builder().connectivity_timeout(Duration::from_secs(2));
            let answers = || builder().provider(definition.clone()).start().is_ok();
            assert_ne!(answers(), is_let_in, "before the step, {name} has not taken it");
            files.write(&name, step);
            wait(&format!("{name} has taken {step:?}"), || answers() == is_let_in);
        }
        both(&format!("{step:?}"));
    }
    // A client has the new key alone, and so has whoever joins now.
    files.write("c", &[OTHER]);
    let c = Member::with("c", files.definition("c", &[b.port()]));
    let client = ClusterProvisioningService::builder().provider(files.definition("c", &[a.port()])).start().unwrap();
    [&a.service, &b.service, &c.service, &client].iter().for_each(|service| wait_shown(service, &["a", "b", "c"]));
    assert_eq!(a.gossip.metrics().unwrap().died, 0);
}

#[test]
fn m2_5_whoever_has_no_key_or_another_one_is_refused_and_both_sides_say_why() {
    let files = KeyFiles::new();
    files.write("a", &[KEY]);
    files.write("other", &[OTHER]);
    let a = Member::with("a", files.definition("a", &[]));
    let plain = Member::new("plain", &[]);
    let refused = |definition: ProviderDescriptor| {
        let builder = ClusterProvisioningService::builder().connectivity_timeout(Duration::from_secs(5));
        builder.provider(definition).start().map(drop).unwrap_err()
    };
    let mut events = a.gossip.subscribe(100);
    for (definition, words) in [
        (definition(&[a.port()]), "its cluster encrypts, and this node does not"),
        (files.definition("other", &[a.port()]), "does not have the key that this node encrypts with"),
        (files.definition("a", &[plain.port()]), "its cluster does not encrypt, and this node does"),
    ] {
        let error = refused(definition);
        assert_eq!(error.code(), ErrorCode::AccessDenied, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let mut reasons = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let GossipEvent::Unusable { reason, .. } = event {
            reasons.push(reason);
        }
    }
    for words in ["it is not encrypted", "a key that this node does not have"] {
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{reasons:?}");
    }
    assert!(plain.gossip.metrics().unwrap().unusable > 0);
}

#[test]
fn p1_3_keys_that_are_none_keep_a_member_from_starting_and_are_never_shown() {
    let files = KeyFiles::new();
    files.write("a", &["secretsecretsecret"]);
    let refused = |definition: ProviderDescriptor| {
        let builder = ClusterProvisioningService::builder().provider(definition).member(described("a"));
        builder.start().map(drop).unwrap_err()
    };
    let error = refused(files.definition("a", &[]));
    assert_eq!(error.code(), ErrorCode::TokenUnreadable, "{error}");
    assert!(error.to_string().contains("line 1") && !format!("{error:?}").contains("secretsecret"), "{error}");
    assert_eq!(refused(files.definition("missing", &[])).code(), ErrorCode::TokenUnreadable);
}
