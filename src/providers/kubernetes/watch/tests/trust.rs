//! Watches that say nothing, or nothing but errors: lists stand in for them, and nothing else confirms the members.

use super::*;

/// The longest time without a confirmation while time passes, in which lists show these members, and watches do as told.
fn longest_unconfirmed(sim: &mut Sim, ids: &[&str], duration: Duration, mut watch: impl FnMut(&mut Sim)) -> Duration {
    let end = sim.now + duration;
    let (mut last, mut longest) = (sim.now, Duration::ZERO);
    while sim.now < end {
        match sim.asked {
            Some(Asked::List { .. }) => sim.page(page("7", ids, None)),
            Some(Asked::Watch { .. }) => watch(sim),
            None => {}
        }
        if sim.told().iter().any(|event| event == "current" || event.starts_with('[')) {
            last = sim.now;
        }
        longest = longest.max(sim.now.since(last));
        sim.pass(SECOND, Some(true));
    }
    longest
}

/// Opens the watch, and says nothing.
fn open_only(sim: &mut Sim) {
    if matches!(sim.machine.phase, Phase::Opening { .. }) {
        sim.open();
    }
}

/// Whether the watch under way is one of seconds.
fn is_short(sim: &Sim) -> bool {
    matches!(sim.asked, Some(Asked::Watch { timeout, .. }) if timeout < Duration::from_secs(16))
}

#[test]
fn kubernetes_a_proxy_that_holds_all_watches_back_is_found_out_within_seconds_and_lists_stand_in() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a", "b"], None));
    sim.open();
    assert!(is_short(&sim), "the first watch is a trial");
    sim.told();
    let begin = sim.now;
    while sim.watches().is_some() {
        sim.pass(SECOND, Some(true));
    }
    let found = sim.now.since(begin);
    assert!(found <= Duration::from_secs(18), "{found:?}");
    assert_eq!(sim.aborts, 1);
    assert_eq!(sim.news().last().map(String::as_str), Some("timeout"), "it is said why");
    sim.page(page("7", &["a"], None));
    assert_eq!(sim.told(), ["[a]@7"], "whoever was deleted is gone");
    sim.open();
    sim.pass(Duration::from_secs(12), Some(true));
    assert!(sim.news().is_empty(), "a watch of that kind confirms nothing, whatever the probe says");
    let hour = Duration::from_secs(3600);
    let unconfirmed = longest_unconfirmed(&mut sim, &["a"], hour, open_only);
    assert!(unconfirmed < Duration::from_secs(20), "never overdue by the defaults: {unconfirmed:?}");
}

#[test]
fn kubernetes_a_path_that_turns_mute_is_found_out_when_bookmarks_fail_to_come() {
    let mut sim = Sim::settled(&["a"], "7");
    assert!(!is_short(&sim));
    let begin = sim.now;
    while sim.watches().is_some() {
        open_only(&mut sim);
        sim.pass(SECOND, Some(true));
    }
    // A long one may be quiet; the short one after it would have ended.
    assert!(sim.now.since(begin) <= Duration::from_secs(170), "{:?}", sim.now.since(begin));
    assert_eq!((sim.aborts, sim.news().last().map(String::as_str)), (2, Some("timeout")));
}

/// Opens the watch, says nothing, and ends it when its time is over.
fn end_in_time(sim: &mut Sim) {
    open_only(sim);
    let Some(Asked::Watch { timeout, .. }) = sim.asked else { return };
    if sim.now.since(*sim.sent.last().unwrap()) >= timeout {
        sim.close(Ok(()));
    }
}

#[test]
fn kubernetes_point_8_a_quiet_server_without_bookmarks_is_no_alarm_and_is_seldom_listed() {
    for proved in [false, true] {
        let mut sim = if proved { Sim::settled(&["a"], "7") } else { Sim::new() };
        let (mut lists, mut longest) = (0, Duration::ZERO);
        let (begin, mut last) = (sim.now, sim.now);
        while sim.now.since(begin) < Duration::from_secs(3600) {
            match sim.asked {
                Some(Asked::List { .. }) => {
                    lists += 1;
                    sim.page(page("7", &["a"], None));
                }
                _ => end_in_time(&mut sim),
            }
            for event in sim.told() {
                assert!(["alive", "current", "[a]@7"].contains(&&*event), "{event}");
                if event != "alive" {
                    longest = longest.max(sim.now.since(last));
                    last = sim.now;
                }
            }
            sim.pass(SECOND, Some(true));
        }
        assert!((13..=18).contains(&lists), "{lists} lists in an hour");
        assert!(longest < Duration::from_secs(15), "never overdue: {longest:?}");
    }
}

#[test]
fn kubernetes_that_lists_stand_in_is_told_at_first_and_then_ever_more_seldom() {
    let mut sim = Sim::new();
    let mut errors = 0;
    for _ in 0..3600 {
        match sim.asked {
            Some(Asked::List { .. }) => sim.page(page("7", &["a"], None)),
            _ => open_only(&mut sim),
        }
        sim.pass(SECOND, Some(true));
        errors += sim.told().iter().filter(|event| *event == "timeout").count();
    }
    assert!((7..=9).contains(&errors), "{errors} in an hour of lists");
}

#[test]
fn kubernetes_a_watch_that_proves_itself_ends_the_doubt() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a"], None));
    sim.open();
    while sim.watches().is_some() {
        sim.pass(SECOND, Some(true));
    }
    sim.page(page("8", &["a"], None));
    sim.open();
    assert!(is_short(&sim));
    sim.pass(8 * SECOND, Some(true));
    sim.told();
    sim.line(bookmark("9"));
    sim.pass(Duration::from_millis(990), Some(true));
    assert!(sim.news().is_empty(), "what a proxy lets through at the end is no proof");
    sim.pass(Duration::from_millis(20), Some(true));
    assert_eq!(sim.news(), ["current"], "and once it is one, that is looked at");
    sim.pass(SECOND, Some(true));
    sim.close(Ok(()));
    assert_eq!(sim.watches(), Some("9"), "no list");
    assert!(!is_short(&sim));
}

#[test]
fn kubernetes_what_comes_only_with_the_end_of_a_watch_was_held_back() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a"], None));
    sim.told();
    sim.open();
    sim.pass(14 * SECOND, Some(true));
    sim.line(added("b", "8"));
    sim.close(Ok(()));
    assert_eq!(sim.watches(), Some("8"), "its lines are good ones");
    sim.open();
    assert!(is_short(&sim));
    sim.told();
    sim.pass(14 * SECOND, Some(true));
    assert!(sim.news().is_empty(), "but who knows what is on its way");
    sim.line(bookmark("9"));
    sim.close(Ok(()));
    assert_eq!(sim.watches(), None);
}

#[test]
fn kubernetes_a_head_that_comes_with_the_first_event_only_is_no_error_of_the_server() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a"], None));
    sim.told();
    sim.pass(Duration::from_secs(10), Some(true));
    sim.fail(failure(FailureKind::Unanswered));
    assert_eq!((sim.news(), sim.watches()), (vec!["timeout".into()], None), "a list at once");
    let hour = Duration::from_secs(3600);
    let mut sent = None;
    let unconfirmed = longest_unconfirmed(&mut sim, &["a"], hour, |sim| {
        let (number, since) = *sent.get_or_insert((sim.number(), sim.now));
        if number != sim.number() {
            sent = None;
        } else if sim.now.since(since) >= Duration::from_secs(10) {
            sim.fail(failure(FailureKind::Unanswered));
        }
    });
    assert!(unconfirmed < Duration::from_secs(20), "{unconfirmed:?}");
    while !matches!(sim.asked, Some(Asked::Watch { .. })) {
        sim.pass(SECOND, Some(true));
        if let Some(Asked::List { .. }) = sim.asked {
            sim.page(page("7", &["a"], None));
        }
    }
    sim.told();
    sim.line(added("b", "9"));
    assert_eq!(sim.told(), ["+b@9"], "an event brings its head along");
}

#[test]
fn kubernetes_a_head_may_take_as_long_as_the_answer_timeout_says() {
    let minute = Settings { answer_timeout: Duration::from_secs(60), ..settings() };
    let mut sim = Sim::with(minute, None, Standing::Client, 1);
    sim.page(page("7", &["a"], None));
    sim.pass(Duration::from_secs(59), Some(true));
    assert_eq!((sim.aborts, sim.watches()), (0, Some("7")));
    // The connection tells when the time is over; should it not, the machine sees to it.
    sim.pass(Duration::from_secs(23), Some(true));
    assert_eq!((sim.aborts, sim.watches()), (1, None));
    sim.pass(Duration::from_secs(119), Some(true));
    assert_eq!(sim.aborts, 1, "a page may take a minute longer");
}

#[test]
fn kubernetes_an_error_from_one_version_for_ever_leads_to_lists_and_confirms_nothing() {
    for kind in [FailureKind::Internal, FailureKind::Other, FailureKind::Forbidden] {
        let mut sim = Sim::settled(&["a", "b"], "7");
        sim.part(Line::Error(failure(kind)));
        sim.paused();
        assert_eq!(sim.watches(), Some("7"));
        sim.told();
        sim.open();
        // The probe that follows the head is answered before the error comes.
        sim.pass(Duration::from_millis(50), Some(true));
        assert!(sim.news().is_empty(), "{kind:?}: nothing is confirmed by a head");
        sim.part(Line::Error(failure(kind)));
        assert_eq!(sim.news().len(), 1);
        sim.paused();
        assert_eq!(sim.watches(), None, "{kind:?}");
        sim.page(page("7", &["a"], None));
        assert_eq!(sim.news(), ["[a]@7"]);
        for _ in 0..5 {
            sim.open();
            sim.part(Line::Error(failure(kind)));
            assert_eq!(sim.news().len(), 1, "never three errors in a row");
            sim.paused();
            assert_eq!(sim.watches(), None, "{kind:?}: each is followed by a list");
            sim.page(page("7", &["a"], None));
            assert_eq!(sim.news(), ["current"]);
        }
    }
}

#[test]
fn kubernetes_a_watch_that_the_server_fails_to_open_is_answered_by_a_list_and_an_outage_is_not() {
    for (kind, lists) in [(FailureKind::Internal, true), (FailureKind::Other, false)] {
        let mut sim = Sim::settled(&["a"], "7");
        sim.close(Err(failure(FailureKind::Other)));
        for _ in 0..4 {
            sim.paused();
            if sim.watches().is_none() {
                break;
            }
            sim.fail(failure(kind));
        }
        sim.paused_if_idle();
        assert_eq!(sim.watches().is_none(), lists, "{kind:?}");
    }
}

#[test]
fn kubernetes_watches_that_are_cut_off_before_any_line_are_doubted_the_second_time() {
    let mut sim = Sim::settled(&["a"], "7");
    for _ in 0..2 {
        sim.pass(Duration::from_secs(40), Some(true));
        sim.close(Ok(()));
        assert_eq!(sim.watches(), Some("7"), "a proxy may do that to all that is idle");
        sim.open();
    }
    assert!(is_short(&sim));
    sim.told();
    sim.pass(Duration::from_secs(12), Some(true));
    assert!(sim.news().is_empty());
    sim.close(Ok(()));
    assert_eq!(sim.watches(), None);
}

#[test]
fn kubernetes_lists_that_stand_in_are_the_more_seldom_the_more_pages_they_have() {
    let mut sim = Sim::new();
    let (mut pages, mut lists) = (0, 0);
    let end = sim.now + Duration::from_secs(1200);
    while sim.now < end {
        match sim.asked.clone() {
            Some(Asked::List { next, .. }) => {
                lists += usize::from(next.is_none());
                pages = if next.is_none() { 1 } else { pages + 1 };
                sim.page(page("7", &["a"], (pages < 10).then_some("more")));
            }
            _ => open_only(&mut sim),
        }
        sim.pass(SECOND, Some(true));
    }
    assert!((8..=13).contains(&lists), "{lists} lists of ten pages in twenty minutes");
}

#[test]
fn kubernetes_a_list_once_in_a_while_tells_what_no_protocol_shows() {
    let interval = Duration::from_secs(1800);
    let mut drawn = Vec::new();
    for seed in 0..50 {
        let mut sim = Sim::with(Settings { list_interval: Some(interval), ..settings() }, None, Standing::Client, seed);
        sim.machine.trust.proved();
        sim.page(page("7", &["a", "b"], None));
        let begin = sim.now;
        while sim.watches().is_some() {
            open_only(&mut sim);
            sim.line(bookmark("7"));
            sim.pass(Duration::from_secs(10), Some(true));
        }
        drawn.push(sim.now.since(begin));
        sim.told();
        sim.page(page("9", &["a"], None));
        assert_eq!(sim.told(), ["[a]@9"], "b went without a line");
    }
    let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
    assert!(*least >= interval / 2 && *most <= interval + Duration::from_secs(10), "{drawn:?}");
    assert!(*most > *least + interval / 4, "not all at one time: {drawn:?}");
}

#[test]
fn kubernetes_an_event_that_is_known_to_be_lost_does_not_wait_for_the_list_of_once_in_a_while() {
    let mut sim =
        Sim::with(Settings { list_interval: Some(Duration::from_secs(1800)), ..settings() }, None, Standing::Client, 1);
    sim.machine.trust.proved();
    sim.page(page("7", &["a"], None));
    sim.open();
    sim.line(Line::Lost(None));
    sim.pass(61 * SECOND, Some(true));
    assert_eq!(sim.watches(), None);
}
