//! A stream in a hot loop keeps neither a command nor another provider waiting, and is reported.

#[path = "support/running.rs"]
mod support;

use std::sync::Arc;

use cluster_provisioning::testkit::{FakeClock, members, node};
use cluster_provisioning::*;
use support::*;

/// What a stream says in a hot loop.
type Flood = fn(u64) -> ProviderEvent;

/// One of ten nodes comes, or goes.
fn churn(number: u64) -> ProviderEvent {
    let id = format!("f{}", number / 2 % 10);
    change(match number % 2 {
        0 => MemberChange::Upsert(Arc::new(node(&id))),
        _ => MemberChange::Remove(NodeId::new(id).unwrap()),
    })
}

const FLOODS: [(&str, Flood); 4] = [
    ("heartbeats", |_| alive()),
    ("changes", churn),
    ("both", |number| if number % 2 == 0 { alive() } else { churn(number / 2) }),
    ("whole sets", |number| snapshot(members(if number % 2 == 0 { &["n1"] } else { &["n1", "n2"] }))),
];

/// A provider that is followed beside a standby that floods.
fn beside(flood: Flood) -> Running {
    let running = Running::new(&["calm", "hot"]);
    running.ready("calm", &["n1"]);
    running.role("hot").show(&["n1"]);
    until("the standby is healthy", || running.status("hot").health == ProviderHealth::Healthy);
    running.role("hot").flood(flood);
    let said = running.role("hot");
    until("it floods", || said.calls(Call::Next) > 10_000);
    running
}

#[test]
fn p2_1_beside_a_stream_in_a_hot_loop_every_command_and_every_change_of_another_provider_is_carried_out() {
    std::thread::scope(|scope| {
        for (what, flood) in FLOODS {
            scope.spawn(move || {
                let running = beside(flood);
                for number in 0..200 {
                    let id = NodeId::new(format!("q{number}")).unwrap();
                    let outcome = running.hub().quarantine(id, "no answer").wait(PATIENCE);
                    assert_eq!(outcome, Ok(()), "beside {what}");
                }
                for number in 0..5 {
                    let ids = ["n1".to_owned(), format!("m{number}")];
                    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
                    running.role("calm").show(&ids);
                    running.shows(&ids);
                }
            });
        }
    });
}

#[test]
fn p5_1_a_warning_names_the_provider_that_floods_and_no_other() {
    // Time stands still, so that a slow machine floods too.
    let running = Running::with(&["calm", "hot"], |builder| builder.clock(FakeClock::new()));
    let mut events = running.hub().subscribe(100_000);
    running.ready("calm", &["n1"]);
    running.role("hot").flood(|_| alive());
    let warning = loop {
        let event = events.recv_timeout(PATIENCE).expect("a warning");
        if let ProvisioningEvent::Warning(warning) = &*event
            && warning.error.code() == ErrorCode::StreamFloods
        {
            break warning.error.clone();
        }
    };
    assert_eq!(warning.provider().map(ProviderId::as_str), Some("hot"));
}

#[test]
fn p2_2_the_latest_state_of_a_stream_that_floods_arrives_and_its_order_is_kept() {
    let running = Running::new(&["hot"]);
    running.ready("hot", &["n1"]);
    let mut events = running.hub().subscribe(100_000);
    // Node n of m comes with incarnation n: whatever is folded, no delivery may show an earlier one again.
    const LAST: u64 = 150_000;
    let incarnation = |number: u64| ClusterNode::builder("f", "10.0.0.9", 8080).incarnation(number).build().unwrap();
    running.role("hot").flood(move |number| match number {
        0..LAST => change(MemberChange::Upsert(Arc::new(incarnation(number + 1)))),
        LAST => snapshot([node("n1"), incarnation(LAST + 1)].into_iter().collect()),
        _ => alive(),
    });
    let mut seen = 0;
    while seen <= LAST {
        let event = events.recv_timeout(PATIENCE).unwrap_or_else(|end| panic!("{end:?} after {seen}"));
        let ProvisioningEvent::Snapshot(delivery) = &*event else { continue };
        let Some(node) = delivery.snapshot.members.iter().find(|node| node.id().as_str() == "f") else { continue };
        assert!(node.incarnation() >= seen, "{} after {seen}", node.incarnation());
        seen = node.incarnation();
    }
}
