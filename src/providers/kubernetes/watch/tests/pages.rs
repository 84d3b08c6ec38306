//! Lists.

use super::*;

/// Whether that page is asked for.
fn asks(sim: &Sim, next: Option<&str>, paged: bool) -> bool {
    matches!(&sim.asked, Some(Asked::List { next: n, paged: p, .. }) if (n.as_deref(), *p) == (next, paged))
}

#[test]
fn kubernetes_point_1_three_pages_are_one_snapshot_and_the_watch_begins_from_their_version() {
    let mut sim = Sim::new();
    assert!(asks(&sim, None, true));
    sim.page(page("7", &["a"], Some("two")));
    assert!(asks(&sim, Some("two"), true));
    sim.page(page("7", &["b"], Some("three")));
    assert!(asks(&sim, Some("three"), true));
    assert!(sim.told().is_empty(), "nothing of a list is told before it is whole");
    sim.page(page("7", &["c"], None));
    assert_eq!(sim.told(), ["[a b c]@7"]);
    assert_eq!(sim.watches(), Some("7"));
}

#[test]
fn kubernetes_point_1_pages_of_several_versions_are_watched_from_the_first() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a"], Some("two")));
    sim.page(page("9", &["b"], None));
    assert_eq!((sim.told(), sim.watches()), (vec!["[a b]@7".into()], Some("7")));
}

#[test]
fn kubernetes_point_1_an_empty_list_is_believed() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.close(Err(failure(FailureKind::Gone)));
    sim.paused();
    sim.page(page("9", &[], None));
    assert_eq!(sim.news(), ["[]@9"]);
}

#[test]
fn kubernetes_point_2_a_page_that_expired_begins_the_list_anew_and_nothing_partial_is_told() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a", "b"], Some("two")));
    sim.fail(failure(FailureKind::Gone));
    assert!(sim.paused() >= Duration::from_millis(800));
    assert!(asks(&sim, None, true));
    assert!(sim.news().is_empty());
    sim.page(page("9", &["b"], Some("two")));
    sim.page(page("9", &["c"], None));
    assert_eq!(sim.news(), ["[b c]@9"]);
}

#[test]
fn kubernetes_point_2_a_relist_that_fails_half_way_leaves_the_members_as_they_are() {
    let mut sim = Sim::settled(&["a", "b"], "7");
    sim.close(Err(failure(FailureKind::Gone)));
    sim.paused();
    sim.page(page("9", &["a"], Some("two")));
    sim.fail(failure(FailureKind::Other));
    assert_eq!(sim.news(), ["backend-unavailable"]);
    sim.paused();
    sim.page(page("9", &["a", "b"], None));
    assert_eq!(sim.news(), ["current"]);
}

#[test]
fn kubernetes_point_2_lists_that_expire_again_and_again_end_in_one_piece() {
    let mut sim = Sim::new();
    for _ in 0..3 {
        assert!(asks(&sim, None, true));
        sim.page(page("7", &["a"], Some("two")));
        sim.fail(failure(FailureKind::Gone));
        sim.paused();
    }
    assert!(asks(&sim, None, false));
    sim.page(page("8", &["a", "b"], None));
    assert_eq!(sim.news(), ["backend-unavailable", "backend-unavailable", "[a b]@8"]);
    sim.open();
    sim.close(Err(failure(FailureKind::Gone)));
    sim.paused();
    assert!(asks(&sim, None, true), "the next list begins with pages again");
}

#[test]
fn kubernetes_point_2_a_list_without_an_end_is_given_up_and_asked_for_in_one_piece() {
    let mut sim = Sim::new();
    for _ in 0..1000 {
        sim.page(page("7", &[], Some("on and on")));
    }
    assert_eq!(sim.told(), ["malformed-answer"]);
    sim.paused();
    assert!(asks(&sim, None, false));
    sim.page(page("8", &["a"], None));
    sim.open();
    sim.close(Err(failure(FailureKind::Gone)));
    sim.paused();
    assert!(asks(&sim, None, false), "and so is every other one");
}

#[test]
fn kubernetes_point_1_a_list_without_a_version_cannot_be_watched_from_and_is_not_believed() {
    let mut sim = Sim::new();
    sim.page(page("", &["a"], None));
    assert_eq!(sim.told(), ["malformed-answer"]);
    sim.paused();
    assert_eq!(sim.watches(), None);
}

#[test]
fn kubernetes_point_14_unusable_objects_of_all_pages_are_counted() {
    let mut sim = Sim::new();
    sim.page(Page { skipped: 2, ..page("7", &["a"], Some("two")) });
    sim.page(Page { skipped: 3, ..page("7", &["b"], None) });
    assert_eq!(sim.told(), ["[a b]@7 skipped 5"]);
}

#[test]
fn kubernetes_point_10_a_page_that_never_comes_is_broken_off() {
    let mut sim = Sim::new();
    let late = sim.number();
    sim.pass(Duration::from_secs(86), Some(true));
    assert_eq!((sim.aborts, sim.news()), (1, vec!["timeout".into()]));
    assert_eq!(sim.watches(), None);
    assert_ne!(sim.number(), late);
    sim.input(Input::Page(late, Ok(page("7", &["a"], None))));
    assert!(sim.news().is_empty(), "what was broken off is ignored");
}

#[test]
fn kubernetes_point_10_a_look_up_a_connect_and_sending_may_each_take_the_connect_timeout() {
    let slow = Settings { connect_timeout: Duration::from_secs(30), ..settings() };
    let mut sim = Sim::with(slow, None, Standing::Client, 1);
    sim.pass(Duration::from_secs(90 + 10 + 60), Some(true));
    assert_eq!(sim.aborts, 0, "the connection tells when its time is over");
    sim.pass(Duration::from_secs(6), Some(true));
    assert_eq!(sim.aborts, 1, "and should it not, the machine sees to it");
}
