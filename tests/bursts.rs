//! Bursts of commands, and a provider that alternates without a pause, lead to few deliveries, few lines in the log, and
//! to the right state in the end.

#[path = "support/running.rs"]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, members};
use cluster_provisioning::*;
use support::*;

static LINES: AtomicUsize = AtomicUsize::new(0);

/// Counts the lines of all tests of this file.
struct CountingLogger;

impl log::Log for CountingLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        LINES.fetch_add(1, Ordering::SeqCst);
    }

    fn flush(&self) {}
}

fn id(number: usize) -> NodeId {
    NodeId::new(format!("n{number}")).unwrap()
}

/// How many deliveries of that sort PlacementSupervisor was given meanwhile.
fn given(calls: &[testkit::Recorded], wanted: impl Fn(&ProvisioningEvent) -> bool) -> usize {
    let calls = calls.iter().filter(|call| call.bridge == BridgeKind::PlacementSupervisor);
    calls.filter(|call| wanted(&call.event)).count()
}

fn is_snapshot(event: &ProvisioningEvent) -> bool {
    matches!(event, ProvisioningEvent::Snapshot(_))
}

fn is_gate(event: &ProvisioningEvent) -> bool {
    matches!(event, ProvisioningEvent::GateChanged(_))
}

/// So many windows have passed, rounded up, and one delivery more at each end.
fn windows(took: Duration) -> usize {
    took.as_millis() as usize / 100 + 3
}

/// Orders all of it; each in a command of its own, no more of them at a time than the hub lets wait.
fn order(count: usize, command: impl Fn(usize) -> Ticket) {
    for first in (0..count).step_by(1000) {
        let tickets: Vec<_> = (first..count.min(first + 1000)).map(&command).collect();
        assert!(tickets.iter().all(|ticket| ticket.wait(PATIENCE) == Ok(())));
    }
}

/// Five thousand members, and a service that shows them.
fn large() -> Running {
    let running = Running::new(&["a"]);
    let ids: Vec<_> = (0..5000).map(|number| format!("n{number}")).collect();
    running.ready("a", &ids.iter().map(String::as_str).collect::<Vec<_>>());
    running.delivered(BridgeKind::Remoting, |event| matches!(event, ProvisioningEvent::GateChanged(_)));
    running.recorder.take();
    running
}

#[test]
fn p4_2_of_many_quarantines_the_first_is_delivered_at_once_and_the_others_together() {
    let running = large();
    let (took, ()) = time(|| {
        assert_eq!(running.hub().quarantine(id(0), "no answer").wait(PATIENCE), Ok(()));
        let calls = running.recorder.take();
        assert_eq!(given(&calls, is_snapshot), 1, "the first does not wait for a window");
        order(4999, |number| running.hub().quarantine(id(number + 1), "no answer"));
        assert_eq!(running.hub().blocked().len(), 5000, "each can be read at once");
        until("all are delivered", || running.hub().snapshot().unwrap().blocked.len() == 5000);
    });
    let calls = running.recorder.take();
    assert!(given(&calls, is_snapshot) <= windows(took), "{} in {took:?}", given(&calls, is_snapshot));
    assert_eq!(given(&calls, is_gate), 0);
}

#[test]
fn p4_2_of_many_blocks_of_nodes_that_nobody_shows_and_their_ends_nothing_is_delivered_one_by_one() {
    let running = large();
    let (took, ()) = time(|| {
        order(8000, |number| running.hub().block(id(number + 3000), "an operator says so"));
        order(8000, |number| running.hub().unblock(id(number + 3000)));
        until("none is left", || running.hub().snapshot().unwrap().blocked.is_empty());
    });
    let calls = running.recorder.take();
    assert!(given(&calls, is_snapshot) <= windows(took), "{} in {took:?}", given(&calls, is_snapshot));
    assert_eq!(running.hub().blocked().len(), 0);
}

#[test]
fn p5_1_a_provider_that_alternates_between_empty_and_full_without_a_pause_leads_to_few_deliveries_and_lines() {
    log::set_logger(&CountingLogger).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let running = Running::new(&["a"]);
    running.ready("a", &["n1", "n2"]);
    running.recorder.take();
    LINES.store(0, Ordering::SeqCst);
    let (took, ()) = time(|| {
        let empty = |number: u64| number.is_multiple_of(2);
        running.role("a").flood(move |number| snapshot(members(if empty(number) { &[] } else { &["n1", "n2"] })));
        std::thread::sleep(Duration::from_secs(2));
        running.role("a").end_flood();
        running.role("a").show(&["n1"]);
        until("the last state is shown", || running.hub().snapshot().unwrap().members == members(&["n1"]));
        until("placement goes on", || running.hub().gate() == PlacementGate::Open);
    });
    let calls = running.recorder.take();
    let (snapshots, gates) = (given(&calls, is_snapshot), given(&calls, is_gate));
    assert!(snapshots <= windows(took), "{snapshots} snapshots in {took:?}");
    let seconds = took.as_secs() as usize + 1;
    assert!(gates <= 2 * seconds + 2, "{gates} changes of the gate in {took:?}");
    let lines = LINES.load(Ordering::SeqCst);
    // The other tests of this file log next to nothing meanwhile.
    let limit = 100 * (seconds + 1);
    assert!(lines <= limit, "{lines} lines in {took:?}");
    assert_eq!(running.hub().latest_snapshot().unwrap().members, members(&["n1"]));
}
