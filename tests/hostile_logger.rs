//! The program's logger panics at every line, and the view goes on. The logger belongs to the process: nothing else is
//! tested here.

#[path = "support/running.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_provisioning::testkit::{BridgeKind, node};
use cluster_provisioning::*;
use support::*;

static LINES: AtomicUsize = AtomicUsize::new(0);

struct HostileLogger;

impl log::Log for HostileLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        LINES.fetch_add(1, Ordering::SeqCst);
        spite();
    }

    fn flush(&self) {}
}

/// What the work adds to the log.
fn logs(what: &str, work: impl FnOnce()) {
    let before = LINES.load(Ordering::SeqCst);
    work();
    until(format!("{what} is logged"), || LINES.load(Ordering::SeqCst) > before);
}

#[test]
fn p5_5_a_logger_that_panics_at_every_line_changes_nothing() {
    log::set_logger(&HostileLogger).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let company = Company::new();
    let registers = company.role("a");
    let fails = AtomicBool::new(true);
    registers.on(Call::Join, move || {
        if fails.swap(false, Ordering::SeqCst) {
            spite();
        }
    });
    let mut policy = FailoverPolicy::default();
    policy.backoff_initial = Duration::from_millis(50);
    let running = Running::played_by(company, &["a", "b"], |builder| {
        builder.member(node("n1")).leave_budget(Duration::from_millis(200)).failover(policy)
    });
    logs("the switch", || running.ready("a", &["n1"]));
    logs("a block", || {
        assert_eq!(running.hub().quarantine(NodeId::new("n1").unwrap(), "no answer").wait(PATIENCE), Ok(()));
    });
    logs("a refused definition", || {
        assert_eq!(running.service.register(played("c", -1)).unwrap_err().code(), ErrorCode::InvalidValue);
    });
    logs("a bridge's panic", || {
        running.recorder.panic_next(BridgeKind::Remoting, 1);
        running.role("a").show(&["n1", "n2"]);
    });
    logs("a cancel action's panic", || {
        running.role("b").on(Call::Cancel, spite);
        until("it is open", || running.role("b").calls(Call::Next) > 0);
        assert_eq!(running.service.remove(&ProviderId::new("b").unwrap()), Ok(()));
        until("it is told", || running.role("b").calls(Call::Cancel) == 1);
    });
    logs("the end of a stream", || running.role("a").say(ProviderEvent::Terminated(ProviderTermination::Ended)));
    until("it is registered in spite of the first failure", || registers.calls(Call::Join) >= 2);
    running.role("a").show(&["n1", "n3"]);
    running.shows(&["n1", "n3"]);
    let latch = hang_in(&registers, Call::Leave);
    let (hub, recorder) = (running.hub().clone(), Arc::clone(&running.recorder));
    logs("that it could not be deregistered", || running.into_service().shutdown());
    latch.open();
    until("the hub's thread has ended", || Arc::strong_count(&recorder) == 1);
    assert_eq!(hub.gate(), PlacementGate::Paused(PauseReason::Draining), "it is no failure");
}
