//! How watches end, and what follows.

use super::*;

fn retry_after(kind: FailureKind, seconds: u64) -> Failure {
    Failure { retry_after: Some(Duration::from_secs(seconds)), ..failure(kind) }
}

#[test]
fn kubernetes_point_3_a_refused_version_leads_to_a_list_and_is_not_watched_again() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a"], None));
    sim.fail(failure(FailureKind::Gone));
    assert!(sim.paused() >= Duration::from_millis(800));
    assert_eq!(sim.watches(), None);
    assert_eq!(sim.news(), ["[a]@7"], "the first is no error");
    sim.page(page("9", &["a"], None));
    assert_eq!((sim.news(), sim.watches()), (vec!["current".into()], Some("9")));
    sim.fail(failure(FailureKind::Gone));
    sim.paused();
    assert_eq!(sim.news(), ["backend-unavailable"], "the second in a row is");
}

#[test]
fn kubernetes_point_4_an_error_410_among_the_lines_leads_to_a_list() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.part(added("b", "8"));
    sim.part(Line::Error(failure(FailureKind::Gone)));
    sim.flush();
    assert_eq!((sim.aborts, sim.told()), (1, vec!["+b@8".into()]), "what came before it is told");
    sim.paused();
    assert_eq!(sim.watches(), None);
    assert!(sim.news().is_empty());
    sim.page(page("9", &["b", "c"], None));
    assert_eq!(sim.news(), ["[b c]@9"]);
}

#[test]
fn kubernetes_point_5_a_watch_closed_at_once_is_tried_again_after_pauses_and_then_there_is_a_list() {
    let mut sim = Sim::settled(&["a"], "7");
    let mut pauses = Vec::new();
    for round in 1..=3 {
        sim.close(Ok(()));
        pauses.push(sim.paused());
        if round < 3 {
            assert_eq!(sim.watches(), Some("7"));
            sim.open();
        }
    }
    assert_eq!(sim.watches(), None);
    for (pause, least) in pauses.iter().zip([800, 1600, 3200]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
    assert_eq!(sim.news(), ["stream-ended", "stream-ended"], "not an error the first time");
    sim.page(page("9", &["a"], None));
    assert_eq!((sim.news(), sim.watches()), (vec!["current".into()], Some("9")));
}

#[test]
fn kubernetes_point_5_closed_before_its_head_was_seen_is_closed_at_once_too() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a"], None));
    sim.close(Ok(()));
    assert!(sim.paused() >= Duration::from_millis(800));
}

#[test]
fn kubernetes_point_5_a_watch_that_says_nothing_usable_and_is_closed_at_once_is_none_that_worked() {
    let mut sim = Sim::settled(&["a"], "7");
    for _ in 0..3 {
        sim.line(Line::Unusable(None));
        sim.close(Ok(()));
        assert!(sim.paused() >= Duration::from_millis(800));
        if sim.watches().is_some() {
            sim.open();
        }
    }
    assert_eq!(sim.watches(), None, "three in a row lead to a list");
}

#[test]
fn kubernetes_point_5_a_watch_that_worked_in_between_ends_the_row() {
    let mut sim = Sim::settled(&["a"], "7");
    for _ in 0..6 {
        for _ in 0..2 {
            sim.close(Ok(()));
            sim.paused();
            sim.open();
        }
        sim.line(bookmark("7"));
        sim.pass(2 * SECOND, Some(true));
        sim.close(Ok(()));
        assert_eq!(sim.watches(), Some("7"));
        sim.open();
    }
}

#[test]
fn kubernetes_point_6_other_errors_close_the_watch_which_goes_on_after_growing_pauses() {
    let mut sim = Sim::settled(&["a"], "7");
    let kinds = [FailureKind::Forbidden, FailureKind::Internal, FailureKind::Other];
    for (round, (kind, least)) in kinds.into_iter().zip([800, 1600, 3200]).enumerate() {
        // Each gets a little further.
        let version = format!("1{round}");
        sim.part(bookmark(&version));
        sim.part(Line::Error(failure(kind)));
        let code = failure(kind).error.code().to_string();
        assert_eq!(sim.news(), [code]);
        assert!(sim.paused() >= Duration::from_millis(least));
        assert_eq!(sim.watches(), Some(&*version));
        sim.open();
    }
    assert_eq!(sim.aborts, 3);
}

#[test]
fn kubernetes_point_7_a_watch_that_ended_in_order_goes_on_from_the_last_version_without_a_list() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.line(added("b", "8"));
    sim.line(deleted("a", "9"));
    sim.pass(3 * SECOND, None);
    sim.close(Ok(()));
    assert_eq!(sim.watches(), Some("9"));
    assert_eq!(sim.news(), ["+b@8", "-a@9"]);
    assert_eq!(sim.sent.len(), 3, "a list and two watches");
}

#[test]
fn kubernetes_point_7_watches_that_end_at_once_after_a_line_are_opened_once_a_second() {
    let mut sim = Sim::settled(&[], "7");
    for round in 0..10 {
        sim.line(added("a", &format!("1{round}")));
        sim.close(Ok(()));
        assert!(sim.paused() >= Duration::from_millis(999));
        sim.open();
    }
}

#[test]
fn kubernetes_point_8_a_bookmark_advances_the_version_and_is_no_event() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.line(bookmark("50"));
    assert!(sim.told().is_empty());
    sim.pass(2 * SECOND, None);
    sim.close(Ok(()));
    assert_eq!(sim.watches(), Some("50"));
}

#[test]
fn kubernetes_point_8_without_any_bookmark_the_watch_goes_on_where_pods_come_and_go() {
    let mut sim = Sim::settled(&["a"], "7");
    for round in 0..1000 {
        sim.line(added("a", &format!("1{round}")));
        sim.pass(Duration::from_secs(10), Some(true));
        assert!(sim.watches().is_some(), "no list is needed");
        if matches!(sim.machine.phase, Phase::Opening { .. }) {
            sim.open();
        }
    }
    let told = sim.told();
    assert!(told.iter().all(|event| event == "current" || event == "alive"), "{told:?}");
}

#[test]
fn kubernetes_point_9_a_version_that_the_server_has_not_seen_leads_to_a_list_without_one() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.part(Line::Error(failure(FailureKind::AheadOfServer)));
    sim.paused();
    assert_eq!(sim.watches(), None);
    sim.told();
    sim.fail(failure(FailureKind::AheadOfServer));
    assert_eq!(sim.told(), ["backend-unavailable"]);
    sim.paused();
    assert_eq!(sim.watches(), None);
}

#[test]
fn kubernetes_point_11_retry_after_is_waited_for_and_nothing_is_probed_meanwhile() {
    let mut sim = Sim::settled(&["a"], "7");
    let probes = sim.probes;
    sim.part(Line::Error(retry_after(FailureKind::Other, 20)));
    let paused = sim.paused();
    assert!(paused >= Duration::from_secs(20) && paused <= Duration::from_secs(25), "{paused:?}");
    assert_eq!(sim.probes, probes);
    sim.fail(retry_after(FailureKind::Other, 100_000));
    let paused = sim.paused();
    assert!(paused >= Duration::from_secs(300) && paused <= Duration::from_secs(375), "{paused:?}");
}

#[test]
fn kubernetes_point_12_whoever_was_deleted_during_an_outage_is_gone_after_the_list() {
    let mut sim = Sim::settled(&["a", "b", "c"], "7");
    sim.close(Err(failure(FailureKind::Other)));
    for _ in 0..5 {
        sim.paused();
        sim.fail(failure(FailureKind::Other));
    }
    sim.paused();
    assert_eq!(sim.watches(), Some("7"), "the version may still do");
    sim.fail(failure(FailureKind::Gone));
    sim.paused();
    assert!(sim.news().iter().all(|event| event == "backend-unavailable"));
    sim.page(page("90", &["b", "d"], None));
    assert_eq!(sim.news(), ["[b d]@90"]);
}

#[test]
fn kubernetes_point_13_a_watch_that_worked_and_breaks_is_no_error_unless_it_cannot_be_opened_again() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.pass(Duration::from_secs(31), Some(true));
    sim.told();
    sim.close(Err(failure(FailureKind::Other)));
    sim.paused();
    assert!(sim.news().is_empty());
    sim.fail(failure(FailureKind::Other));
    assert_eq!(sim.news(), ["backend-unavailable"]);
    sim.paused();
    sim.open();
    sim.close(Err(failure(FailureKind::Other)));
    assert_eq!(sim.news(), ["backend-unavailable"], "it has not worked for long");
}

#[test]
fn kubernetes_point_14_a_malformed_line_is_counted_and_the_stream_survives() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.part(Line::Unusable(None));
    sim.part(added("b", "8"));
    sim.part(Line::Unusable(Some("9".into())));
    sim.flush();
    assert_eq!(sim.told(), ["[a b]@9 skipped 2"]);
    sim.line(deleted("a", "10"));
    assert_eq!(sim.told(), ["-a@10"], "counted once");
    sim.line(Line::Unusable(None));
    assert_eq!(sim.told(), ["[b]@10 skipped 1"], "also where nothing changes with it");
}

#[test]
fn kubernetes_point_17_a_refused_token_is_read_anew_and_tried_at_once_then_after_pauses() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.part(Line::Error(failure(FailureKind::Unauthorized)));
    assert_eq!((sim.rereads, sim.watches()), (1, Some("7")), "at once");
    assert!(sim.told().is_empty(), "a token that was rotated is no error");
    sim.fail(failure(FailureKind::Unauthorized));
    assert_eq!((sim.rereads, sim.told()), (2, vec!["access-denied".into()]));
    assert!(sim.paused() >= Duration::from_millis(800));
    // A server that lets it in and refuses it thereafter is not asked in a hot loop.
    sim.open();
    sim.part(Line::Error(failure(FailureKind::Unauthorized)));
    assert!(sim.paused() >= Duration::from_millis(1600));
}

#[test]
fn kubernetes_point_18_a_missing_right_is_told_and_keeps_the_members() {
    let mut sim = Sim::settled(&["a", "b"], "7");
    sim.close(Err(failure(FailureKind::Forbidden)));
    for _ in 0..5 {
        sim.paused();
        sim.fail(failure(FailureKind::Forbidden));
    }
    let news = sim.news();
    assert!(news.len() == 6 && news.iter().all(|event| event == "access-denied"), "{news:?}");
    assert_eq!(sim.machine.directory.members(), set(&["a", "b"]));
    sim.paused();
    sim.open();
    sim.pass(Duration::from_millis(1), Some(true));
    assert_eq!(sim.news(), ["current"]);
}

#[test]
fn kubernetes_point_18_a_missing_right_at_the_start_is_never_nobody() {
    let mut sim = Sim::new();
    sim.fail(failure(FailureKind::Forbidden));
    sim.pass(Duration::from_secs(60), Some(true));
    assert_eq!(sim.news(), ["access-denied"]);
}

#[test]
fn kubernetes_point_9_a_version_that_the_server_does_not_understand_leads_to_a_list() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.pass(SECOND, None);
    sim.close(Ok(()));
    sim.told();
    sim.fail(failure(FailureKind::BadRequest));
    assert_eq!(sim.news().len(), 1, "it is told");
    assert!(sim.paused() >= Duration::from_millis(800));
    assert_eq!(sim.watches(), None);
    sim.fail(failure(FailureKind::BadRequest));
    assert!(sim.paused() >= Duration::from_millis(1600), "and the list, if it is that");
    assert_eq!(sim.watches(), None);
}
