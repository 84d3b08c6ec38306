//! What others say, in the log and in the decisions: one event is one line, and nobody forges another. The logger belongs
//! to the process: nothing else is tested here.

#[path = "support/running.rs"]
mod support;

use std::sync::Mutex;

use cluster_provisioning::*;
use support::*;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collecting;

impl log::Log for Collecting {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn logged(text: &str) -> bool {
    LINES.lock().unwrap().iter().any(|line| line.contains(text))
}

/// A line of its own, and one that reads backwards.
const FORGED: &str = "x\r\n2026-11-28T00:00:00Z forged\u{2028}\u{202e}y\u{1b}[2K";
const ESCAPED: &str = "x\\r\\n2026-11-28T00:00:00Z forged\\u{2028}\\u{202e}y\\u{1b}[2K";

#[test]
fn p5_1_p5_5_what_a_backend_or_a_panic_says_stays_within_its_line_of_the_log_and_of_the_decisions() {
    log::set_logger(&Collecting).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let running = Running::new(&["a", "b"]);
    running.role("a").show(&["n1"]);
    running.role("b").show(&["n1"]);
    running.ready("a", &["n1"]);
    for _ in 0..3 {
        let error = ProvisioningError::new(ErrorCode::BackendUnavailable, "watching", FORGED);
        running.role("a").say(ProviderEvent::Degraded { error });
    }
    until("the failure is logged", || logged(&format!("a: degraded -> unreachable ([backend-unavailable] {ESCAPED}")));
    running.role("b").on(Call::Cancel, || panic!("{FORGED}"));
    until("it is open", || running.role("b").calls(Call::Next) > 0);
    assert_eq!(running.service.remove(&ProviderId::new("b").unwrap()), Ok(()));
    until("the panic is logged", || logged(&format!("an action of a cancel token panicked: {ESCAPED}")));
    let decisions = running.hub().explain();
    assert!(decisions.iter().any(|decision| decision.text.contains(ESCAPED)));
    let lines = LINES.lock().unwrap();
    for shown in decisions.iter().map(ToString::to_string).chain(lines.iter().cloned()) {
        assert!(!shown.contains(['\r', '\n', '\u{2028}', '\u{202e}', '\u{1b}']), "{shown:?}");
    }
}
