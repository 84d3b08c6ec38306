//! What the hub delivers, proved on the hub without threads.

use cluster_provisioning::testkit::{Harness, members};
use cluster_provisioning::*;

#[test]
fn p2_1_the_first_snapshot_is_delivered_and_opens_the_gate() {
    let mut hub = Harness::new(&[("a", 1)]);
    hub.show("a", members(&["n1", "n2"]));
    let kinds: Vec<_> = hub
        .take()
        .into_iter()
        .map(|event| match event {
            ProvisioningEvent::ProviderChanged(_) => "changed",
            ProvisioningEvent::Snapshot(_) => "snapshot",
            ProvisioningEvent::RemoteTopology(_) => "remote",
            ProvisioningEvent::GateChanged(_) => "gate",
            ProvisioningEvent::HealthChanged(_) => "health",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["health", "changed", "snapshot", "remote", "remote", "gate"]);
    assert_eq!(hub.gate(), PlacementGate::Open);
}
