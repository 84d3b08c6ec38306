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

#[test]
fn kubernetes_point_12_versions_that_fall_are_a_restored_backup_and_lead_to_a_list() {
    for line in [bookmark("80"), added("c", "99"), deleted("a", "5")] {
        let mut sim = Sim::settled(&["a", "b"], "100");
        sim.line(line);
        sim.pass(60 * SECOND, Some(true));
        assert_eq!(sim.watches(), None);
    }
}

#[test]
fn kubernetes_point_8_versions_that_rise_stay_or_are_no_numbers_are_no_reason_for_a_list() {
    let mut sim = Sim::settled(&["a"], "99");
    for line in [bookmark("99"), bookmark("100"), added("b", "x9"), bookmark("b"), bookmark("a"), bookmark("7")] {
        sim.line(line);
    }
    sim.pass(90 * SECOND, Some(true));
    assert_eq!(sim.watches(), Some("99"));
}
