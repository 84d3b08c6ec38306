//! Time that is set: epochs rise from start to start whatever the clock shows, and timers go on.

#[path = "support/child.rs"]
mod child;
#[path = "support/running.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use child::{in_child, is_child};
use cluster_provisioning::testkit::BridgeKind;
use cluster_provisioning::*;
use support::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A clock that goes, and can be set.
#[derive(Debug)]
struct SetClock {
    clock: SystemClock,
    /// By how much it is ahead, in milliseconds, beginning with two hours.
    ahead: AtomicU64,
}

impl SetClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { clock: SystemClock::new(), ahead: AtomicU64::new(2 * 3_600_000) })
    }

    fn back(&self, by: Duration) {
        self.ahead.fetch_sub(by.as_millis() as u64, Ordering::SeqCst);
    }

    fn forward(&self, by: Duration) {
        self.ahead.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        self.clock.now() + Duration::from_millis(self.ahead.load(Ordering::SeqCst))
    }
}

/// A clock that stands.
#[derive(Debug)]
struct Standing(u64);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

const NOON: u64 = 1_900_000_000_000;

/// The epoch of a start at that time, and the warnings that it gives.
fn start(millis: u64, adapt: impl FnOnce(ServiceBuilder) -> ServiceBuilder) -> (u64, Vec<ProvisioningError>) {
    let mut events = None;
    let running = Running::with(&["a"], |builder| {
        events = Some(builder.subscribe(1000));
        adapt(builder.clock(Arc::new(Standing(millis))))
    });
    // Whatever was sent before is through then.
    assert_eq!(running.hub().unpin().wait(PATIENCE), Ok(()));
    let epoch = running.hub().position().epoch;
    running.into_service().shutdown();
    let mut warnings = Vec::new();
    let mut events = events.expect("it was set up");
    while let Ok(event) = events.recv_timeout(PATIENCE) {
        if let ProvisioningEvent::Warning(warning) = &*event {
            warnings.push(warning.error.clone());
        }
    }
    (epoch, warnings)
}

#[test]
fn p1_5_without_a_store_epochs_rise_with_every_start_of_the_process_also_of_many_threads_at_once() {
    let starts = |millis: u64| -> Vec<u64> { (0..20).map(|_| start(millis, |builder| builder).0).collect() };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| starts(NOON))).collect();
        let mut all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        for epochs in &all {
            assert!(epochs.is_sorted_by(|a, b| a < b), "within one millisecond: {epochs:?}");
        }
        let highest = all.iter().flatten().max().copied().unwrap();
        let set_back = starts(NOON - 3_600_000);
        assert!(set_back.is_sorted_by(|a, b| a < b) && set_back[0] > highest, "{set_back:?} after {highest}");
        all.push(set_back);
        let mut each: Vec<_> = all.concat();
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), 80, "none is used twice");
    });
}

#[test]
fn p1_5_with_a_store_epochs_rise_with_every_start_whatever_the_clock_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers.jsonl");
    let mut last = 0;
    for millis in [NOON, NOON, NOON, NOON - 3_600_000, 0, NOON, NOON + 1] {
        let (epoch, warnings) = start(millis, |builder| builder.store_file(&path));
        assert!(epoch > last, "{epoch} after {last}");
        assert_eq!(warnings, [], "the store remembers");
        last = epoch;
    }
}

#[test]
fn p1_5_a_clock_that_was_set_back_without_a_store_is_warned_of_with_what_to_do_unless_the_host_does_it() {
    let (before, _) = start(NOON, |builder| builder);
    let (after, warnings) = start(NOON - 3_600_000, |builder| builder);
    assert!(after > before);
    let codes: Vec<_> = warnings.iter().map(ProvisioningError::code).collect();
    assert_eq!(codes, [ErrorCode::ClockSetBack]);
    let text = warnings[0].to_string();
    assert!(text.contains("epoch_above") && text.contains("store"), "{text}");
    let last = u64::MAX / 2;
    let (epoch, warnings) = start(NOON - 3_600_000, |builder| builder.epoch_above(last));
    assert!(epoch > last);
    assert_eq!(warnings, [], "the host remembers");
}

#[test]
fn p1_5_a_consumer_sees_that_the_epoch_fell_and_what_it_stored_raises_it() {
    if !is_child() {
        // A process remembers the epochs of its starts: those of the other tests would be in the way.
        return in_child("p1_5_a_consumer_sees_that_the_epoch_fell_and_what_it_stored_raises_it", &[]);
    }
    // Another process has been here before, with a clock that was ahead: nothing of it is remembered but by the consumer.
    let watermark = Position { epoch: u64::MAX / 4, seq_no: 70 };
    let stored = Deduplicator::from_watermark(watermark);
    let first = |epoch| Position { epoch, seq_no: 1 };
    let (fallen, _) = start(NOON, |builder| builder);
    assert!(stored.is_of_an_earlier_epoch(first(fallen)) && !stored.clone().fresh(first(fallen)));
    let (raised, warnings) = start(NOON, |builder| builder.epoch_above(watermark.epoch));
    assert!(!stored.is_of_an_earlier_epoch(first(raised)) && stored.clone().fresh(first(raised)));
    assert_eq!(warnings, []);
    assert!(!stored.is_of_an_earlier_epoch(watermark), "a repeat is none of an earlier start");
}

#[test]
fn p2_5_a_clock_that_is_set_back_an_hour_keeps_no_timer_waiting() {
    let clock = SetClock::new();
    let mut policy = FailoverPolicy::default();
    policy.silence_timeout = Duration::from_secs(5);
    policy.backoff_initial = Duration::from_millis(50);
    let running = Running::with(&["a"], |builder| builder.clock(clock.clone()).failover(policy));
    running.ready("a", &["n1", "n2"]);
    let node = NodeId::new("n1").unwrap();
    let excluded = running.hub().exclude(node.clone(), "no heartbeat", Duration::from_secs(1));
    assert_eq!(excluded.wait(PATIENCE), Ok(()));
    clock.back(HOUR);
    running.delivered(BridgeKind::Remoting, |event| {
        matches!(event, ProvisioningEvent::RemoteTopology(remote)
            if remote.event == RemoteTopologyChange::Unblocked && remote.node_id == node)
    });
    until("its silence is noticed", || running.status("a").health == ProviderHealth::Unreachable);
    running.role("a").show(&["n1"]);
    running.shows(&["n1"]);
}

#[test]
fn p2_5_a_clock_that_jumps_an_hour_ahead_makes_nobody_silent_and_ends_what_has_run_out() {
    let clock = SetClock::new();
    let running = Running::with(&["a", "b"], |builder| builder.clock(clock.clone()));
    running.role("b").show(&["n1", "n2"]);
    running.ready("a", &["n1", "n2"]);
    until("both are healthy", || running.status("b").health == ProviderHealth::Healthy);
    let node = NodeId::new("n1").unwrap();
    let excluded = running.hub().exclude(node.clone(), "no heartbeat", HOUR / 2);
    assert_eq!(excluded.wait(PATIENCE), Ok(()));
    let mut events = running.hub().subscribe(1000);
    clock.forward(HOUR);
    running.delivered(BridgeKind::Remoting, |event| {
        matches!(event, ProvisioningEvent::RemoteTopology(remote)
            if remote.event == RemoteTopologyChange::Unblocked && remote.node_id == node)
    });
    running.role("a").show(&["n1", "n3"]);
    running.shows(&["n1", "n3"]);
    running.into_service().shutdown();
    while let Ok(event) = events.recv_timeout(PATIENCE) {
        let unwanted = matches!(
            &*event,
            ProvisioningEvent::HealthChanged(_)
                | ProvisioningEvent::ProviderChanged(_)
                | ProvisioningEvent::StreamEnded(_)
        );
        assert!(!unwanted, "{event:?}");
    }
}
