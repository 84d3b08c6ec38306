//! What the hub delivers, to whom and in which order, proved on the hub without threads.

#[path = "support/hub.rs"]
mod support;

use std::sync::{Arc, Mutex};

use cluster_provisioning::testkit::{Harness, members, node};
use cluster_provisioning::*;
use support::*;

#[test]
fn p2_1_the_first_snapshot_is_delivered_and_opens_the_gate() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.show("a", members(&["n1", "n2"]));
    let expected = ["health a healthy", "changed -> a initial", "snapshot a: n1 n2", "join n1", "join n2", "gate open"];
    assert_eq!(story(&mut hub), expected);
    assert_eq!(hub.gate(), PlacementGate::Open);
}

#[test]
fn p2_1_each_tick_goes_to_placement_then_partitions_then_remoting() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.show("a", members(&["n1"]));
    let expected = [
        "supervisor: changed -> a initial",
        "supervisor: snapshot a: n1",
        "supervisor: gate open",
        "partitions: changed -> a initial",
        "partitions: snapshot a: n1",
        "partitions: gate open",
        "remoting: join n1",
        "remoting: gate open",
    ];
    assert_eq!(calls(&hub), expected);
    settle(&mut hub);
    hub.end("a");
    let expected = ["supervisor: ended a", "partitions: ended a", "remoting: ended a", "remoting: stale stream-ended"];
    assert_eq!(calls(&hub), expected);
}

#[test]
fn p2_1_subscribers_come_after_the_bridges_and_get_every_delivery() {
    let mut hub = Harness::new(&[("a", 1)]);
    let events = Arc::new(Mutex::new(hub.subscribe(64)));
    let (early, reader) = (Arc::new(Mutex::new(0)), Arc::clone(&events));
    let count = Arc::clone(&early);
    hub.recorder().on_call(move |_| *count.lock().unwrap() += reader.lock().unwrap().try_recv().is_ok() as usize);
    hub.show("a", members(&["n1"]));
    assert_eq!(*early.lock().unwrap(), 0, "a subscriber saw the tick before a bridge had");
    let mut events = events.lock().unwrap();
    let seen: Vec<String> = std::iter::from_fn(|| events.try_recv().ok()).map(|event| text(&event)).collect();
    assert_eq!(seen, story(&mut hub));
}

#[test]
fn p3_1_reads_inside_a_callback_show_the_last_completed_tick() {
    let mut hub = one(&["n1"]);
    let before = (hub.position(), hub.gate(), shown(&hub));
    let (reads, reader) = (Arc::new(Mutex::new(Vec::new())), hub.hub().clone());
    let kept = Arc::clone(&reads);
    hub.recorder().on_call(move |_| {
        let nodes = reader.latest_snapshot().unwrap().members.iter().map(|node| node.id().to_string()).collect();
        kept.lock().unwrap().push((reader.position(), reader.gate(), nodes));
    });
    hub.show("a", members(&[]));
    let reads = reads.lock().unwrap();
    assert!(reads.len() >= 6 && reads.iter().all(|read| *read == before), "{reads:?}");
    assert_eq!((hub.gate(), shown(&hub)), (PlacementGate::Paused(PauseReason::Empty), vec![]));
}

#[test]
fn p3_1_a_command_given_inside_a_callback_is_a_tick_of_its_own_and_cannot_be_waited_for_there() {
    let mut hub = one(&["n1"]);
    let (outcome, handle) = (Arc::new(Mutex::new(None)), hub.hub().clone());
    let kept = Arc::clone(&outcome);
    hub.recorder().on_call(move |call| {
        let mut outcome = kept.lock().unwrap();
        if outcome.is_none() && text(&call.event).starts_with("snapshot") {
            *outcome = Some(handle.quarantine(id("n1"), "no answer").wait(seconds(60)).unwrap_err().code());
        }
    });
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(*outcome.lock().unwrap(), Some(ErrorCode::WouldBlock));
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2", "join n2", "snapshot a: n1! n2", "blocked n1"]);
}

#[test]
fn p2_3_the_same_members_in_another_order_are_not_delivered_again() {
    let mut hub = one(&["n1", "n2"]);
    hub.show("a", members(&["n2", "n1"]));
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(story(&mut hub), Vec::<String>::new());
    assert_eq!(hub.metrics().deduplicated, 2);
}

#[test]
fn p2_3_a_delivery_names_the_hash_that_it_invalidates_and_what_changed() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.show("a", members(&["n1"]));
    hub.advance(SECOND);
    hub.show("a", members(&["n2"]));
    hub.quarantine(&id("n2"), "no answer").unwrap();
    let deliveries: Vec<SnapshotDelivery> = hub
        .take()
        .into_iter()
        .filter_map(|event| if let ProvisioningEvent::Snapshot(delivery) = event { Some(delivery) } else { None })
        .collect();
    let [first, second, third] = &deliveries[..] else { panic!("{deliveries:?}") };
    let ids = |nodes: &[Arc<ClusterNode>]| nodes.iter().map(|node| node.id().to_string()).collect::<Vec<_>>();
    assert_eq!((first.invalidates, ids(first.diff.joined())), (None, vec!["n1".to_owned()]));
    assert_eq!(second.invalidates, Some(members(&["n1"]).hash()));
    assert_eq!((ids(second.diff.left()), ids(second.diff.joined())), (vec!["n1".into()], vec!["n2".to_owned()]));
    assert_eq!(second.snapshot.hash, members(&["n2"]).hash());
    assert_eq!((third.invalidates, third.diff.is_empty()), (None, true), "only the block list differs");
}

#[test]
fn p2_3_changes_one_by_one_are_applied_to_the_streams_own_last_state() {
    let mut hub = one(&["n1", "n2"]);
    hub.event("a", changes([MemberChange::Remove(id("n1")), MemberChange::Upsert(node("n3").into())]));
    assert_eq!(story(&mut hub), ["snapshot a: n2 n3", "leave n1", "join n3"]);
    hub.advance(SECOND);
    hub.event("a", changes([MemberChange::Remove(id("unknown")), MemberChange::Upsert(node("n3").into())]));
    assert_eq!(story(&mut hub), Vec::<String>::new());
}

#[test]
fn p2_1_changes_before_the_streams_first_snapshot_are_an_error_and_change_nothing() {
    let mut hub = one(&["n1"]);
    hub.end("a");
    hub.advance(seconds(2));
    assert!(hub.is_open("a"));
    hub.take();
    hub.event("a", changes([MemberChange::Remove(id("n1"))]));
    assert_eq!(hub.provider("a").errors, 2);
    hub.event("a", ProviderEvent::Heartbeat { current: true });
    assert_eq!((hub.provider("a").health, shown(&hub)), (ProviderHealth::Degraded, vec!["n1".to_owned()]));
    hub.show("a", members(&["n1"]));
    assert_eq!(hub.provider("a").health, ProviderHealth::Healthy);
}

#[test]
fn p2_3_a_changed_address_or_incarnation_is_a_leave_and_a_join_other_changes_are_neither() {
    let mut hub = one(&["n1"]);
    let moved = ClusterNode::builder("n1", "10.0.0.2", 8080).incarnation(1);
    hub.show("a", [moved.clone().build().unwrap()].into_iter().collect());
    assert_eq!(story(&mut hub), ["snapshot a: n1", "leave n1", "join n1"]);
    hub.advance(SECOND);
    let restarted = moved.incarnation(2);
    hub.show("a", [restarted.clone().build().unwrap()].into_iter().collect());
    assert_eq!(story(&mut hub), ["snapshot a: n1", "leave n1", "join n1"]);
    hub.advance(SECOND);
    hub.show("a", [restarted.metadata("zone", "1").build().unwrap()].into_iter().collect());
    assert_eq!(story(&mut hub), ["snapshot a: n1"]);
}

#[test]
fn p4_1_leave_carries_the_node_as_it_was_and_join_the_node_as_it_is() {
    let mut hub = one(&["n1"]);
    let moved = ClusterNode::builder("n1", "10.0.0.2", 8080).build().unwrap();
    hub.show("a", [moved].into_iter().collect());
    let addresses: Vec<String> = hub
        .take()
        .iter()
        .filter_map(|event| match event {
            ProvisioningEvent::RemoteTopology(event) => Some(event.node.as_ref().unwrap().address().to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn p2_4_a_confirmed_empty_answer_pauses_placement_before_the_empty_snapshot_and_at_once() {
    let mut hub = one(&["n1"]);
    hub.show("a", members(&["n1", "n2"]));
    hub.take();
    hub.show("a", members(&[]));
    assert_eq!(story(&mut hub), ["gate paused (empty)", "snapshot a:", "leave n1", "leave n2"]);
    assert!(hub.latest_snapshot().unwrap().is_empty());
    settle(&mut hub);
    hub.show("a", members(&["n3"]));
    assert_eq!(story(&mut hub), ["snapshot a: n3", "join n3", "gate open"], "and goes on at once");
}

#[test]
fn p2_4_an_empty_first_answer_is_delivered_and_placement_stays_paused() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.show("a", members(&[]));
    assert_eq!(story(&mut hub), ["health a healthy", "changed -> a initial", "snapshot a:", "gate paused (empty)"]);
}

#[test]
fn p2_4_a_failure_or_a_doubtful_answer_never_empties_the_topology() {
    let mut hub = one(&["n1"]);
    for event in [doubtful(), ProviderEvent::Degraded { error: refused() }, errored()] {
        hub.event("a", event);
        assert_eq!(shown(&hub), ["n1"]);
    }
    hub.advance(seconds(3600));
    assert_eq!(shown(&hub), ["n1"]);
    assert_eq!(hub.metrics().doubtful, 1);
}

#[test]
fn p3_1_p3_3_ownership_ordered_by_placement_becomes_leases_within_the_tick() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.recorder().place(|delivery| {
        delivery.diff.joined().iter().map(|node| OwnershipChange::assign("key", node.id().clone())).collect()
    });
    hub.show("a", members(&["n1"]));
    let expected = [
        "supervisor: changed -> a initial",
        "supervisor: snapshot a: n1",
        "supervisor: gate open",
        "partitions: changed -> a initial",
        "partitions: snapshot a: n1",
        "partitions: gate open",
        "partitions: leases 1",
        "remoting: join n1",
        "remoting: gate open",
    ];
    assert_eq!(calls(&hub), expected);
}

#[test]
fn p3_3_a_lease_carries_its_own_position_as_token_and_partitions_see_positions_rise() {
    let mut hub = one(&["n1"]);
    hub.recorder().place(|_| vec![OwnershipChange::assign("k", id("n1")), OwnershipChange::release("l")]);
    hub.show("a", members(&[]));
    let calls = hub.recorder().take();
    let partitions: Vec<_> = calls.iter().filter(|call| call.bridge == testkit::BridgeKind::PartitionManager).collect();
    let texts: Vec<_> = partitions.iter().map(|call| text(&call.event)).collect();
    assert_eq!(texts, ["gate paused (empty)", "snapshot a:", "leases 2"]);
    assert!(partitions.is_sorted_by(|a, b| a.event.position() < b.event.position()));
    let ProvisioningEvent::LeasesPublished(update) = &partitions[2].event else { unreachable!() };
    assert!(update.leases.iter().all(|lease| lease.token == update.position));
    assert_eq!((&*update.leases[0].key, &update.leases[0].owner), ("k", &Some(id("n1"))));
    assert_eq!((&*update.leases[1].key, &update.leases[1].owner), ("l", &None));
    assert_eq!((update.snapshot_hash, update.position), (0, hub.position()));
}

#[test]
fn p3_3_ownership_may_be_ordered_at_any_time_as_a_tick_of_its_own() {
    let mut hub = one(&["n1"]);
    let before = hub.position();
    hub.publish_ownership(vec![OwnershipChange::assign("k", id("n1"))]);
    assert_eq!(calls(&hub), ["partitions: leases 1"]);
    assert_eq!(story(&mut hub), ["leases 1"]);
    assert_eq!(hub.position(), Position { seq_no: before.seq_no + 1, ..before });
}

#[test]
fn p3_2_the_latest_snapshot_or_why_there_is_none() {
    let mut hub = Harness::new(&[("a", 1)]);
    let error = hub.latest_snapshot().unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoSnapshot);
    hub.show("a", members(&["n1"]));
    assert_eq!(hub.latest_snapshot().unwrap().members, members(&["n1"]));
    for _ in 0..3 {
        hub.degrade("a", refused());
    }
    let error = hub.latest_snapshot().unwrap_err();
    assert_eq!(error.code(), ErrorCode::ProvisioningUnavailable);
    assert!(error.to_string().contains("a: unreachable (backend-unavailable)"), "{error}");
}

#[test]
fn p3_4_a_switch_delivers_the_change_and_then_the_new_snapshot_in_the_same_tick() {
    let mut hub = two(&["n1", "n2"]);
    hub.show("b", members(&["n1", "n3"]));
    hub.end("a");
    let expected = [
        "supervisor: ended a",
        "supervisor: changed a -> b stream-ended",
        "supervisor: snapshot b: n1 n3",
        "partitions: ended a",
        "partitions: changed a -> b stream-ended",
        "partitions: snapshot b: n1 n3",
        "remoting: ended a",
        "remoting: leave n2",
        "remoting: join n3",
    ];
    assert_eq!(calls(&hub), expected);
    let changed = hub.take().into_iter().find_map(|event| match event {
        ProvisioningEvent::ProviderChanged(change) => Some(change),
        _ => None,
    });
    assert_eq!(changed.unwrap().snapshot_hash, hub.snapshot().unwrap().hash);
}

#[test]
fn p3_4_the_announced_hash_is_that_of_the_snapshot_also_without_excluded_nodes() {
    let mut hub = two(&["n1", "n2"]);
    hub.block(&id("n2"), BlockSource::FailureDetector, "dead", Some(seconds(60))).unwrap();
    hub.take();
    hub.end("a");
    let delivered = hub.snapshot().unwrap();
    assert_eq!(delivered.hash, members(&["n1"]).hash());
    for event in hub.take() {
        match event {
            ProvisioningEvent::ProviderChanged(change) => assert_eq!(change.snapshot_hash, delivered.hash),
            ProvisioningEvent::StreamEnded(end) => assert_eq!(end.snapshot_hash, Some(delivered.hash)),
            _ => {}
        }
    }
}

#[test]
fn p2_3_positions_rise_by_one_over_deliveries_of_every_kind_and_name_the_epoch() {
    let mut hub = Harness::new(&[("a", 10), ("b", 5)]);
    let epoch = hub.now().as_millis();
    hub.recorder().place(|_| vec![OwnershipChange::release("k")]);
    hub.show("a", members(&["n1", "n2"]));
    hub.show("b", members(&["n1", "n2"]));
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.recorder().panic_next(testkit::BridgeKind::Remoting, 1);
    hub.show("a", members(&["n1", "n2", "n3"]));
    hub.advance(SECOND);
    hub.degrade("a", refused());
    hub.end("a");
    hub.show("b", members(&[]));
    let events = hub.take();
    let mut kinds: Vec<String> =
        events.iter().map(|event| text(event).split(' ').next().unwrap_or_default().to_owned()).collect();
    let positions: Vec<Position> = events.iter().map(ProvisioningEvent::position).collect();
    let expected: Vec<Position> = (1..=events.len() as u64).map(|seq_no| Position { epoch, seq_no }).collect();
    assert_eq!(positions, expected);
    assert_eq!(hub.metrics().deliveries, events.len() as u64);
    kinds.sort();
    kinds.dedup();
    let all =
        ["blocked", "changed", "ended", "fresh", "gate", "health", "join", "leases", "leave", "snapshot", "stale"];
    assert_eq!(kinds, [&all[..], &["warning"]].concat());
}

#[test]
fn p2_3_coalesced_inputs_have_no_position() {
    let mut hub = one(&["n1"]);
    let before = hub.position().seq_no;
    for ids in [["n1", "n2"], ["n1", "n3"], ["n1", "n4"], ["n1", "n5"]] {
        hub.show("a", members(&ids));
    }
    hub.advance(SECOND);
    assert_eq!(story(&mut hub), ["snapshot a: n1 n2", "join n2", "snapshot a: n1 n5", "leave n2", "join n5"]);
    assert_eq!(hub.position().seq_no, before + 5);
}

#[test]
fn p2_1_nodes_are_shared_between_the_provider_followed_and_its_standbys() {
    let mut hub = two(&["n1", "n2"]);
    let before = hub.snapshot().unwrap();
    hub.show("b", members(&["n1", "n2", "n3"]));
    hub.end("a");
    let after = hub.snapshot().unwrap();
    assert_eq!(after.provider_id.as_str(), "b");
    for node in ["n1", "n2"] {
        let [old, new] = [&before, &after].map(|snapshot| snapshot.members.get(id(node)).unwrap());
        assert!(Arc::ptr_eq(old, new), "{node}");
    }
}

#[test]
fn p2_1_a_standbys_changes_are_not_delivered() {
    let mut hub = two(&["n1"]);
    hub.show("b", members(&["n1", "n2"]));
    hub.advance(SECOND);
    assert_eq!(story(&mut hub), Vec::<String>::new());
    assert_eq!(hub.provider("b").members, Some(2));
}

#[test]
fn p3_4_one_watermark_turns_repeated_deliveries_of_every_kind_into_single_ones() {
    let mut hub = two(&["n1", "n2"]);
    hub.recorder().place(|_| vec![OwnershipChange::release("k")]);
    hub.quarantine(&id("n1"), "no answer").unwrap();
    hub.end("a");
    hub.show("b", members(&[]));
    let events = hub.take();
    let mut deduplicator = Deduplicator::new();
    let fresh = |event: &&ProvisioningEvent| deduplicator.fresh(event.position());
    let kept = events.iter().flat_map(|event| [event, event]).chain(&events).filter(fresh).count();
    assert_eq!(kept, events.len());
}
