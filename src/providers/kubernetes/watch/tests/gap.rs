//! What the watch missed, a list tells.

use super::*;

#[test]
fn kubernetes_point_14_a_lost_event_is_counted_and_a_list_tells_within_a_minute_what_it_was() {
    let mut sim = Sim::settled(&["a", "b"], "7");
    sim.part(Line::Lost(None));
    sim.part(added("c", "9"));
    sim.flush();
    assert_eq!(sim.told(), ["[a b c]@9 skipped 1"]);
    let lost = sim.now;
    sim.pass(29 * SECOND, Some(true));
    assert_eq!((sim.watches(), sim.aborts), (Some("7"), 0), "not at once: there may be more of them");
    sim.line(Line::Lost(Some("10".into())));
    while sim.watches().is_some() {
        sim.pass(SECOND, Some(true));
        assert!(sim.now.since(lost) <= Duration::from_secs(60), "others do not put it off");
    }
    assert_eq!(sim.aborts, 1);
    sim.told();
    sim.page(page("12", &["a", "c"], None));
    assert_eq!(sim.told(), ["[a c]@12"], "it was the end of b");
    sim.open();
    sim.pass(90 * SECOND, Some(true));
    assert_eq!(sim.watches(), Some("12"), "once is enough");
}

#[test]
fn kubernetes_point_14_an_event_that_is_lost_before_the_watch_ends_is_not_forgotten() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.line(Line::Lost(None));
    sim.pass(SECOND, Some(true));
    sim.close(Ok(()));
    assert_eq!(sim.watches(), Some("7"));
    sim.open();
    sim.pass(60 * SECOND, Some(true));
    assert_eq!(sim.watches(), None);
}

/// A watch from version 100 that has been opened anew; the server is at that version.
fn reopened(present: Option<&'static str>) -> Sim {
    let mut sim = Sim::settled(&["a", "b"], "99");
    sim.line(bookmark("100"));
    sim.pass(SECOND, None);
    sim.close(Ok(()));
    sim.open();
    sim.present = present;
    sim.told();
    sim
}

#[test]
fn kubernetes_point_12_a_server_whose_state_went_back_is_asked_for_a_list() {
    let mut sim = reopened(Some("41"));
    while sim.aborts == 0 {
        sim.pass(Duration::from_millis(10), Some(true));
    }
    assert!(sim.news().is_empty(), "nothing is confirmed by it");
    let pause = sim.paused();
    assert!(pause >= Duration::from_millis(600) && sim.watches().is_none(), "not all at the same moment: {pause:?}");
    sim.page(page("42", &["b"], None));
    assert_eq!(sim.told(), ["[b]@42"]);
}

#[test]
fn kubernetes_point_12_only_a_watch_that_goes_on_asks_for_the_version_and_only_once() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.pass(60 * SECOND, Some(true));
    assert!(sim.probes > 5 && !sim.asks_version, "its list has just told it");
    for present in [Some("100"), Some("1000"), Some("x"), None] {
        let mut sim = reopened(present);
        let before = sim.probes;
        while sim.probes == before {
            sim.pass(Duration::from_millis(100), None);
        }
        assert!(sim.asks_version);
        sim.probed(Ok(()));
        assert_eq!(sim.told().last().map(String::as_str), Some("current"));
        sim.pass(60 * SECOND, Some(true));
        assert_eq!((sim.asks_version, sim.watches()), (false, Some("100")));
    }
}

#[test]
fn kubernetes_point_12_what_arrives_while_the_version_is_asked_for_is_no_sign_that_it_went_back() {
    let mut sim = reopened(Some("100"));
    while !sim.probing {
        sim.pass(Duration::from_millis(100), None);
    }
    sim.line(added("c", "105"));
    sim.probed(Ok(()));
    assert_eq!((sim.watches(), sim.aborts), (Some("100"), 0));
}

#[test]
fn kubernetes_point_12_a_version_that_could_not_be_asked_for_is_asked_for_again() {
    let mut sim = reopened(Some("41"));
    while !sim.probing {
        sim.pass(Duration::from_millis(100), None);
    }
    sim.probed(Err(broken(ErrorCode::Timeout)));
    sim.line(bookmark("101"));
    while !sim.probing {
        sim.pass(Duration::from_millis(100), None);
    }
    assert!(sim.asks_version);
    sim.probed(Ok(()));
    assert_eq!(sim.aborts, 1);
}
