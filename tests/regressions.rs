//! What the fault simulation once found, each in its smallest form.

use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::testkit::{Harness, HarnessProvider, HarnessSettings, members};
use cluster_provisioning::*;

const SECOND: Duration = Duration::from_secs(1);

fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

/// A harness that follows `a` alone, with four members, and holds back the loss of more than half of them.
fn guarded_against_mass_loss() -> Harness {
    let mut settings = HarnessSettings::default();
    settings.failover.mass_loss_share = Some(0.5);
    let mut hub = Harness::with(settings, [HarnessProvider::new("a", 1)]);
    hub.show("a", members(&["n1", "n2", "n3", "n4"]));
    hub.advance(SECOND);
    hub.take();
    hub
}

#[test]
fn p4_5_closing_a_cold_standby_tells_that_its_health_changed() {
    let mut settings = HarnessSettings::default();
    settings.failover.standby = StandbyMode::Cold;
    let mut hub = Harness::with(settings, [HarnessProvider::new("a", 10), HarnessProvider::new("b", 1)]);
    hub.show("b", members(&["n1"]));
    hub.take();
    hub.show("a", members(&["n1"]));
    assert_eq!((hub.active().as_deref(), hub.is_open("b")), (Some("a"), false));
    let told: Vec<_> = hub
        .take()
        .into_iter()
        .filter_map(|event| match event {
            ProvisioningEvent::HealthChanged(change) => Some((change.provider_id.to_string(), change.from, change.to)),
            _ => None,
        })
        .collect();
    let closed = ("b".to_owned(), ProviderHealth::Healthy, ProviderHealth::Unreachable);
    assert!(told.contains(&closed), "{told:?}");
    assert_eq!(hub.provider("b").health, ProviderHealth::Unreachable);
}

#[test]
fn p5_3_recovery_does_not_let_a_mass_loss_through() {
    let mut hub = guarded_against_mass_loss();
    hub.advance(20 * SECOND);
    assert!(!hub.gate().is_open());
    hub.show("a", members(&["n1"]));
    assert!(hub.gate().is_open(), "{}", hub.gate());
    assert_eq!(
        hub.snapshot().unwrap().members.len(),
        4,
        "the loss is held back, and what serves is the last known good"
    );
    for _ in 0..11 {
        hub.advance(SECOND);
        hub.refresh("a");
    }
    assert_eq!(hub.snapshot().unwrap().members.len(), 1);
}

#[test]
fn p4_2_a_block_is_told_while_a_mass_loss_is_held_back() {
    let mut hub = guarded_against_mass_loss();
    hub.show("a", members(&["n1"]));
    hub.quarantine(&node("n1"), "lost").unwrap();
    let snapshot = hub.snapshot().unwrap();
    assert!(snapshot.is_blocked(node("n1")) && snapshot.members.len() == 4, "{snapshot:?}");
    let position = hub.position();
    hub.refresh("a");
    assert_eq!(hub.position(), position, "once");
}

#[test]
fn p3_4_a_first_selection_by_a_pin_is_no_failover() {
    let mut hub = Harness::new(&[("a", 10), ("b", 1)]);
    hub.pin(Some("b")).unwrap();
    hub.show("b", members(&["n1"]));
    let changed = hub.take().into_iter().find_map(|event| match event {
        ProvisioningEvent::ProviderChanged(change) => Some((change.from, change.reason)),
        _ => None,
    });
    assert_eq!(changed, Some((None, SwitchReason::Initial)));
    assert_eq!(hub.metrics().failovers, 0);
}

#[test]
fn p5_3_the_end_of_an_exclusion_brings_nobody_back_whom_the_provider_has_lost_meanwhile() {
    let mut settings = HarnessSettings::default();
    settings.failover.mass_loss_share = Some(0.4);
    let mut hub = Harness::with(settings, [HarnessProvider::new("a", 1)]);
    hub.show("a", members(&["n1", "n2"]));
    hub.advance(SECOND);
    hub.show("a", members(&["n2"]));
    hub.advance(SECOND);
    assert_eq!(hub.snapshot().unwrap().members, members(&["n1", "n2"]), "held back");
    hub.block(&node("n1"), BlockSource::FailureDetector, "suspected", Some(5 * SECOND)).unwrap();
    hub.advance(SECOND);
    assert_eq!(hub.snapshot().unwrap().members, members(&["n2"]));
    hub.show("a", members(&[]));
    hub.advance(5 * SECOND);
    assert!(hub.blocked().is_empty());
    assert_eq!(hub.snapshot().unwrap().members, members(&["n2"]), "held back, and nobody invented");
}

/// n1 leaves and is back so often that its next leave is held.
fn flaps(hub: &mut Harness) {
    for _ in 0..3 {
        hub.show("a", members(&["n2"]));
        hub.advance(SECOND);
        hub.show("a", members(&["n1", "n2"]));
        hub.advance(SECOND);
    }
}

#[test]
fn p2_5_the_end_of_an_exclusion_brings_nobody_back_whose_leave_would_have_been_held() {
    for is_excluded_first in [true, false] {
        let mut hub = Harness::new(&[("a", 1)]);
        hub.show("a", members(&["n1", "n2"]));
        flaps(&mut hub);
        let exclude = |hub: &mut Harness| {
            hub.block(&node("n1"), BlockSource::FailureDetector, "dead", Some(5 * SECOND)).unwrap();
            hub.advance(SECOND);
        };
        if is_excluded_first {
            exclude(&mut hub);
        }
        hub.show("a", members(&["n2"]));
        hub.advance(SECOND);
        if !is_excluded_first {
            assert_eq!(hub.snapshot().unwrap().members, members(&["n1", "n2"]), "its leave is held");
            exclude(&mut hub);
        }
        assert_eq!(hub.snapshot().unwrap().members, members(&["n2"]));
        hub.take();
        hub.advance(5 * SECOND);
        assert!(hub.blocked().is_empty());
        assert_eq!(hub.snapshot().unwrap().members, members(&["n2"]), "nobody invented");
    }
}

#[test]
fn p2_5_a_life_that_began_and_ended_within_a_window_is_not_held_since_nobody_has_seen_it() {
    let with = |lives: &[(&str, u64)]| {
        let node = |(id, incarnation): &(&str, u64)| {
            ClusterNode::builder(*id, "10.0.0.1", 8080).incarnation(*incarnation).build().unwrap()
        };
        let mut members = Members::new();
        lives.iter().for_each(|life| _ = members.insert(Arc::new(node(life))));
        members
    };
    let mut hub = Harness::new(&[("a", 1)]);
    for _ in 0..3 {
        hub.show("a", with(&[("n1", 1), ("n2", 1)]));
        hub.advance(SECOND);
        hub.show("a", with(&[("n2", 1)]));
        hub.advance(SECOND);
    }
    hub.show("a", with(&[("n1", 1), ("n2", 1)]));
    hub.advance(SECOND);
    // Something else goes out, so that what follows waits for the window.
    hub.show("a", with(&[("n1", 1), ("n2", 1), ("n3", 1)]));
    hub.take();
    hub.show("a", with(&[("n1", 2), ("n2", 1), ("n3", 1)]));
    hub.show("a", with(&[("n2", 1), ("n3", 1)]));
    hub.advance(SECOND);
    assert_eq!(hub.snapshot().unwrap().members, with(&[("n2", 1), ("n3", 1)]));
    let moved = hub.take().into_iter().filter_map(|event| match event {
        ProvisioningEvent::RemoteTopology(change) => Some(change.event),
        _ => None,
    });
    assert_eq!(moved.collect::<Vec<_>>(), [RemoteTopologyChange::Leave]);
}

#[test]
fn p2_5_a_switch_from_a_provider_to_its_next_definition_is_reconfigured_also_under_a_pin() {
    let provider = |id| HarnessProvider::new(id, 1);
    let mut hub = Harness::with(HarnessSettings::default(), [provider("a")]);
    hub.show("a", members(&["n1"]));
    // Gone, and back under its name, before anybody else could be followed.
    hub.reconfigure([provider("b")]);
    hub.reconfigure([provider("a"), provider("b")]);
    hub.pin(Some("a")).unwrap();
    hub.take();
    hub.show("a", members(&["n1"]));
    let changed = hub.take().into_iter().find_map(|event| match event {
        ProvisioningEvent::ProviderChanged(change) => Some((change.from.map(|id| id.to_string()), change.reason)),
        _ => None,
    });
    assert_eq!(changed, Some((Some("a".to_owned()), SwitchReason::Reconfigured)));
}

#[test]
fn p2_2_what_a_provider_showed_last_goes_out_before_the_end_of_its_silent_stream() {
    let mut settings = HarnessSettings::default();
    settings.coalesce = 60 * SECOND;
    settings.failover.silence_timeout = 15 * SECOND;
    let mut hub = Harness::with(settings, [HarnessProvider::new("a", 10), HarnessProvider::new("b", 1)]);
    hub.show("a", members(&["n1"]));
    hub.show("b", members(&["n1", "n3"]));
    hub.advance(SECOND);
    hub.take();
    hub.show("a", members(&["n1", "n2"]));
    assert_eq!(hub.snapshot().unwrap().members, members(&["n1"]), "the window is open");
    for _ in 0..16 {
        hub.refresh("b");
        hub.advance(SECOND);
    }
    let told: Vec<_> = hub
        .take()
        .into_iter()
        .filter_map(|event| match event {
            ProvisioningEvent::Snapshot(delivery) => {
                Some(format!("{} of {}", delivery.snapshot.members.len(), delivery.snapshot.provider_id))
            }
            ProvisioningEvent::StreamEnded(end) => Some(format!("end of {}", end.provider_id)),
            ProvisioningEvent::ProviderChanged(change) => Some(format!("to {}", change.to)),
            _ => None,
        })
        .collect();
    assert_eq!(told[..3], ["2 of a", "end of a", "to b"], "{told:?}");
}
