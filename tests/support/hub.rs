//! What the tests of the hub's rules share: short names for deliveries, and the usual scenes.
//!
//! Each test file uses its share of it.
#![allow(dead_code)]

use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, Harness, HarnessProvider, HarnessSettings, members};
use cluster_provisioning::*;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn id(node: &str) -> NodeId {
    NodeId::new(node).unwrap()
}

pub fn refused() -> ProvisioningError {
    ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused")
}

pub fn doubtful() -> ProviderEvent {
    ProviderEvent::Doubtful { reason: ProvisioningError::new(ErrorCode::IndexRollback, "testing", "went back") }
}

/// A sign of life that confirms nothing.
pub fn alive() -> ProviderEvent {
    ProviderEvent::Heartbeat { current: false }
}

pub fn errored() -> ProviderEvent {
    ProviderEvent::Terminated(ProviderTermination::Errored { reason: refused() })
}

pub fn changes(changes: impl IntoIterator<Item = MemberChange>) -> ProviderEvent {
    ProviderEvent::Changes { changes: changes.into_iter().collect(), revision: Revision::NONE }
}

pub fn policy(change: impl FnOnce(&mut FailoverPolicy)) -> HarnessSettings {
    let mut settings = HarnessSettings::default();
    change(&mut settings.failover);
    settings
}

pub fn provider(id: &str, priority: i64) -> HarnessProvider {
    HarnessProvider::new(id, priority)
}

/// `a`, the better one, and `b` both show `ids`; `a` is followed. What was delivered meanwhile is forgotten.
pub fn two(ids: &[&str]) -> Harness {
    two_with(HarnessSettings::default(), ids)
}

pub fn two_with(settings: HarnessSettings, ids: &[&str]) -> Harness {
    let mut hub = Harness::with(settings, [provider("a", 10), provider("b", 5)]);
    hub.show("a", members(ids));
    hub.show("b", members(ids));
    settle(&mut hub);
    hub
}

/// One provider `a` that shows `ids`. What was delivered meanwhile is forgotten.
pub fn one(ids: &[&str]) -> Harness {
    one_with(HarnessSettings::default(), ids)
}

pub fn one_with(settings: HarnessSettings, ids: &[&str]) -> Harness {
    let mut hub = Harness::with(settings, [provider("a", 10)]);
    hub.show("a", members(ids));
    settle(&mut hub);
    hub
}

/// Lets the window of coalescing pass and forgets what was delivered.
pub fn settle(hub: &mut Harness) {
    hub.advance(SECOND);
    hub.take();
    hub.recorder().take();
}

/// Lets time pass while these providers give their signs of life, without confirming their data.
pub fn advance_alive(hub: &mut Harness, duration: Duration, providers: &[&str]) {
    let end = hub.now() + duration;
    while hub.now() < end {
        for provider in providers {
            hub.event(provider, alive());
        }
        hub.advance(end.since(hub.now()).min(seconds(4)));
    }
}

/// A delivery in a few words.
pub fn text(event: &ProvisioningEvent) -> String {
    match event {
        ProvisioningEvent::ProviderChanged(change) => match &change.from {
            Some(from) => format!("changed {from} -> {} {}", change.to, change.reason),
            None => format!("changed -> {} {}", change.to, change.reason),
        },
        ProvisioningEvent::Snapshot(delivery) => {
            let snapshot = &delivery.snapshot;
            let mark = |node: &NodeId| if snapshot.is_blocked(node) { "!" } else { "" };
            let nodes = snapshot.members.iter().map(|node| format!(" {}{}", node.id(), mark(node.id())));
            format!("snapshot {}:{}", snapshot.provider_id, nodes.collect::<String>())
        }
        ProvisioningEvent::StreamEnded(end) => format!("ended {}", end.provider_id),
        ProvisioningEvent::GateChanged(change) => format!("gate {}", change.gate),
        ProvisioningEvent::RemoteTopology(event) => {
            let what = match event.event {
                RemoteTopologyChange::Join => "join",
                RemoteTopologyChange::Leave => "leave",
                RemoteTopologyChange::Blocked => "blocked",
                RemoteTopologyChange::Unblocked => "unblocked",
            };
            format!("{what} {}", event.node_id)
        }
        ProvisioningEvent::RemotingWarning(warning) => match &warning.degraded {
            Some(cause) => format!("stale {}", cause.code()),
            None => "fresh".into(),
        },
        ProvisioningEvent::LeasesPublished(update) => format!("leases {}", update.leases.len()),
        ProvisioningEvent::HealthChanged(change) => format!("health {} {}", change.provider_id, change.to),
        ProvisioningEvent::Warning(warning) => format!("warning {}", warning.error.code()),
        other => panic!("{other:?}"),
    }
}

/// What was delivered since it was asked last.
pub fn story(hub: &mut Harness) -> Vec<String> {
    hub.take().iter().map(text).collect()
}

/// The same, of the kinds whose text begins with one of these.
pub fn only(hub: &mut Harness, kinds: &[&str]) -> Vec<String> {
    story(hub).into_iter().filter(|text| kinds.iter().any(|kind| text.starts_with(kind))).collect()
}

/// What Remoting was told.
pub fn remote(hub: &mut Harness) -> Vec<String> {
    only(hub, &["join", "leave", "blocked", "unblocked"])
}

/// The calls of the bridges since they were asked for last.
pub fn calls(hub: &Harness) -> Vec<String> {
    let name = |bridge| match bridge {
        BridgeKind::PlacementSupervisor => "supervisor",
        BridgeKind::PartitionManager => "partitions",
        BridgeKind::Remoting => "remoting",
    };
    hub.recorder().take().iter().map(|call| format!("{}: {}", name(call.bridge), text(&call.event))).collect()
}

/// The ids of the last snapshot delivered.
pub fn shown(hub: &Harness) -> Vec<String> {
    hub.snapshot().map(|s| s.members.iter().map(|node| node.id().to_string()).collect()).unwrap_or_default()
}
