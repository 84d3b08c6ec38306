//! What a host can make, set, read and serialise, from outside of the crate.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_provisioning::*;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn node(id: &str) -> ClusterNode {
    let builder = ClusterNode::builder(id, "10.0.0.1", 7001).incarnation(3).kinds(["order", "user"]).kind("admin");
    builder.metadata("zone", "a").build().unwrap()
}

fn value(thing: &impl serde::Serialize) -> Value {
    serde_json::to_value(thing).unwrap()
}

/// What a hash looks like in JSON: text, since 64 bits are more than a number there holds.
fn is_hash(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() == 16 && text.chars().all(|c| c.is_ascii_hexdigit()))
}

/// What a time looks like in JSON: RFC 3339, in UTC.
fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' && text.as_bytes()[4] == b'-'
    })
}

#[test]
fn a_failover_policy_is_set_step_by_step_and_read_from_a_file_to_the_same_effect() {
    let set = FailoverPolicy::default()
        .silence_timeout(seconds(20))
        .max_errors(4)
        .backoff_initial(Duration::from_millis(1_500))
        .backoff_max(seconds(60))
        .backoff_reset(seconds(61))
        .cooldown(seconds(12))
        .failback_hold(seconds(13))
        .degraded_grace(seconds(14))
        .initial_grace(seconds(2))
        .guard_share(0.25)
        .guard_hold(seconds(11))
        .mass_loss_share(0.75)
        .flap_damping(FlapDamping::default().leaves(5).within(seconds(90)).hold(seconds(7)))
        .max_stale(seconds(600))
        .standby(StandbyMode::Cold);
    set.validate().unwrap();
    let file = json!({
        "silence_timeout": "20s", "max_errors": 4, "backoff_initial": "1500ms", "backoff_max": "1m",
        "backoff_reset": "61s", "cooldown": "12s", "failback_hold": "13s", "degraded_grace": "14s",
        "initial_grace": "2s", "guard_share": 0.25, "guard_hold": "11s", "mass_loss_share": 0.75,
        "flap_damping": {"leaves": 5, "within": "90s", "hold": "7s"}, "max_stale": "10m", "standby": "cold",
    });
    let read: FailoverPolicy = serde_json::from_value(file.clone()).unwrap();
    assert_eq!((read.clone(), value(&set).as_object().unwrap().len()), (set.clone(), 15));
    assert_eq!(serde_json::from_value::<FailoverPolicy>(value(&set)).unwrap(), set, "what is written is read again");
    let defaults: FailoverPolicy = serde_json::from_value(json!({})).unwrap();
    assert_eq!(defaults, FailoverPolicy::default());
    let off: FailoverPolicy = serde_json::from_value(json!({"flap_damping": null})).unwrap();
    assert_eq!(off, FailoverPolicy::default().flap_damping(None));
    let part: FailoverPolicy = serde_json::from_value(json!({"flap_damping": {"leaves": 4}})).unwrap();
    assert_eq!(part.flap_damping, Some(FlapDamping::default().leaves(4)));
    for wrong in [json!({"cooldwon": "1s"}), json!({"cooldown": 1}), json!({"cooldown": "1 parsec"})] {
        assert!(serde_json::from_value::<FailoverPolicy>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn the_other_settings_are_made_from_outside_too() {
    let suppression = SuppressionSettings::default().threshold(2).window(seconds(30));
    let read: SuppressionSettings = serde_json::from_value(json!({"threshold": 2, "window": "30s"})).unwrap();
    assert_eq!(read, suppression);
    let retry = RetryPolicy::new(seconds(1), seconds(9));
    let local = Arc::new(node("n1"));
    let secrets = Secrets::new([("consul".to_owned(), Secret::new("hush"))]);
    let environment = ProviderEnvironment::new(SystemClock::shared());
    let environment = environment.secrets(secrets).local_node(Arc::clone(&local)).retry(retry);
    assert_eq!(environment.secrets.get("consul").map(Secret::expose), Some("hush"));
    assert_eq!((environment.local_node.get(), environment.retry.longest), (Some(local), seconds(9)));
    assert!(!format!("{environment:?}").contains("hush"));
    assert_eq!(Capabilities::new(true, false), Capabilities::WATCH);
    assert_eq!(Capabilities::new(true, true), Capabilities::WATCH_AND_REGISTER);
    let site = RegistrationSite::new("a place", "n1");
    assert_eq!((site.place(), site.entry()), ("a place", "n1"));
}

#[test]
fn definitions_serialise_with_no_more_than_was_said() {
    let definition = ProviderDescriptor::new("consul-a", ProviderKind::new("consul").unwrap()).unwrap();
    let definition = definition.priority(100).role(ProviderRole::Fallback).endpoint("http://10.0.0.1:8500");
    let definition =
        definition.credential(Credential::TokenFile("/run/secrets/consul".into())).parameter("service", "orders");
    let mut set = StoredSet::new(7, vec![definition.clone()]);
    set.pending = vec![ProviderId::new("consul-b").unwrap()];
    let written = value(&set);
    assert_eq!((&written["epoch"], &written["pending"]), (&json!(7), &json!(["consul-b"])));
    let written = &written["descriptors"][0];
    assert_eq!(
        (&written["id"], &written["kind"], &written["role"]),
        (&json!("consul-a"), &json!("consul"), &json!("fallback"))
    );
    assert_eq!((&written["priority"], &written["parameters"]), (&json!(100), &json!({"service": "orders"})));
    assert_eq!(serde_json::from_value::<StoredSet>(value(&set)).unwrap(), set);
}

#[test]
fn what_a_provider_says_is_made_in_a_line() {
    let (members, dropped) = Members::from_nodes(vec![Arc::new(node("n1")), Arc::new(node("n2"))]);
    assert_eq!((members.len(), dropped), (2, 0));
    assert!(matches!(
        ProviderEvent::snapshot(members, Revision::NONE),
        ProviderEvent::Snapshot { skipped: 0, members, .. } if members.contains("n1")
    ));
    let changes = vec![MemberChange::Upsert(Arc::new(node("n3"))), MemberChange::Remove(NodeId::new("n1").unwrap())];
    let event = ProviderEvent::changes(changes, Revision::new("17"));
    assert!(matches!(event, ProviderEvent::Changes { changes, .. } if changes.len() == 2));
    let error = ProvisioningError::new(ErrorCode::BackendUnavailable, "watching", "refused");
    assert!(matches!(ProviderEvent::failed(error), ProviderEvent::Terminated(ProviderTermination::Errored { .. })));
}

#[test]
fn a_node_prints_as_who_and_where_it_is_and_serialises_in_full() {
    let node = node("n1");
    let text = node.to_string();
    assert!(text.contains("n1") && text.contains("10.0.0.1:7001"), "{text}");
    let expected = json!({
        "id": "n1", "address": "10.0.0.1", "port": 7001, "incarnation": 3, "kinds": ["admin", "order", "user"],
        "metadata": {"zone": "a"},
    });
    assert_eq!(value(&node), expected);
}

/// Bridges without a method of their own.
struct Nothing;

impl PlacementSupervisorBridge for Nothing {}
impl PartitionManagerBridge for Nothing {}
impl RemotingBridge for Nothing {}

/// Places one key, so that there are leases.
struct OneKey;

impl PlacementSupervisorBridge for OneKey {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) -> Vec<OwnershipChange> {
        let usable = delivery.snapshot.usable().next();
        usable.map(|node| OwnershipChange::assign("the-key", node.id().clone())).into_iter().collect()
    }
}

fn builder(cluster: &InMemoryCluster) -> ServiceBuilder {
    let provider = |id, priority| {
        let definition = ProviderDescriptor::new(id, ProviderKind::in_memory()).unwrap().priority(priority);
        definition.parameter("heartbeat", "20ms")
    };
    ClusterProvisioningService::builder()
        .factory(Arc::new(InMemoryFactory::new().cluster("demo", cluster)))
        .provider(provider("first", 2))
        .provider(provider("second", 1))
}

#[test]
fn everything_that_is_delivered_or_published_serialises_with_hashes_times_and_codes_as_text() {
    let cluster = InMemoryCluster::new(SystemClock::shared());
    cluster.register_all([node("n2"), node("n3")]);
    let stream = Mutex::new(None);
    let service = builder(&cluster)
        .member(node("n1"))
        .placement_supervisor(Arc::new(OneKey))
        .partition_manager(Arc::new(Nothing))
        .remoting(Arc::new(Nothing))
        .subscriber(10_000, |events| *stream.lock().unwrap() = Some(events))
        .start()
        .unwrap();
    let mut stream = stream.into_inner().unwrap().unwrap();
    let hub = service.hub().clone();

    let snapshot = service.wait_for_members(3, PATIENCE).unwrap();
    assert_eq!(hub.local_node().map(|node| node.id().to_string()), Some("n1".to_owned()));
    let ids: Vec<_> = (&snapshot.members).into_iter().map(|node| node.id().as_str()).collect();
    assert_eq!(ids, ["n1", "n2", "n3"]);
    assert!(snapshot.members.get("n2").is_some() && !snapshot.members.contains("n9"));
    hub.quarantine(NodeId::new("n2").unwrap(), "no answer").wait(PATIENCE).unwrap();
    let blocked = |snapshot: &ProviderSnapshot| snapshot.is_blocked("n2");
    let snapshot = service.wait_for("the block", PATIENCE, blocked).unwrap();
    let usable: Vec<_> = snapshot.usable_of_kind("user").map(|node| node.id().as_str()).collect();
    assert_eq!(usable, ["n1", "n3"]);

    let written = value(&snapshot);
    assert!(is_hash(&written["hash"]) || is_hash(&written["members"]["hash"]), "{written}");
    assert!(written.to_string().contains("\"first\""), "{written}");
    let blocked = value(&hub.blocked());
    assert!(blocked.to_string().contains("no answer"), "{blocked}");

    // A provider fails, another is followed, and placement pauses with the order to drain.
    let reason = ProvisioningError::new(ErrorCode::BackendUnavailable, "watching", "connection reset");
    let faults = cluster.faults(&ProviderId::new("first").unwrap());
    faults.refuse_connections(reason.clone());
    faults.end_streams(ProviderTermination::Errored { reason });
    let second = |_: &ProviderSnapshot| hub.active_provider().is_some_and(|active| active.as_str() == "second");
    service.wait_for("the failover", PATIENCE, second).unwrap();
    let status = value(&hub.providers());
    let first = &status[0];
    assert_eq!((&first["id"], &first["active"], &first["priority"]), (&json!("first"), &json!(false), &json!(2)));
    assert_eq!(first["cause"]["code"], json!("backend-unavailable"), "{first}");
    assert!(is_time(&first["since"]) && is_time(&first["last_heartbeat"]) && is_hash(&first["hash"]), "{first}");
    let end = value(&hub.last_stream_end());
    assert_eq!(end["termination"]["errored"]["reason"]["code"], json!("backend-unavailable"), "{end}");
    let decisions = value(&hub.explain().to_vec());
    let decision = decisions.as_array().and_then(|all| all.last()).unwrap();
    assert!(is_time(&decision["at"]) && decision["text"].is_string(), "{decision}");
    let remote = value(&hub.remote_nodes());
    assert!(
        remote.as_array().is_some_and(|all| all.iter().any(|node| node["health"] == json!("degraded"))),
        "{remote}"
    );
    let metrics = value(&hub.metrics());
    assert_eq!(metrics["failovers"], json!(1), "{metrics}");
    assert_eq!(value(&hub.gate()), json!({"open": true}));
    // It is deregistered there as well.
    faults.accept_connections();
    service.drain().unwrap();
    assert_eq!(value(&hub.gate()), json!({"open": false, "reason": "draining"}));
    assert_eq!(hub.gate().to_string(), "paused (draining)");
    service.shutdown();

    let mut kinds = std::collections::BTreeSet::new();
    loop {
        match stream.recv_timeout(PATIENCE) {
            Ok(event) => {
                let written = value(&*event);
                // A snapshot carries its own place and time.
                let placed = if written["snapshot"].is_object() { &written["snapshot"] } else { &written };
                assert!(is_time(&placed["at"]), "{written}");
                assert_eq!(placed["position"]["seq_no"], json!(event.position().seq_no), "{written}");
                let kind = written["event"].as_str().unwrap().to_owned();
                assert!(kind != "remote-topology" || written["change"].is_string(), "{written}");
                kinds.insert(kind);
            }
            Err(NoEvent::Closed) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let expected =
        ["gate-changed", "health-changed", "leases-published", "provider-changed", "remote-topology", "snapshot"];
    assert!(expected.iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
}

#[test]
fn a_host_without_a_bridge_method_runs_and_a_wait_says_what_is_missing() {
    let cluster = InMemoryCluster::new(SystemClock::shared());
    cluster.register(node("n1"));
    let nothing = Arc::new(Nothing);
    let service = builder(&cluster)
        .placement_supervisor(nothing.clone())
        .partition_manager(nothing.clone())
        .remoting(nothing)
        .start()
        .unwrap();
    service.wait_ready(PATIENCE).unwrap();
    assert_eq!(service.hub().local_node(), None);
    let error = service.wait_for_members(2, Duration::from_millis(20)).unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("1 members")), (ErrorCode::WaitTimedOut, true), "{error}");
    let written = value(&error);
    assert_eq!(written["code"], json!("wait-timed-out"), "{written}");
}
