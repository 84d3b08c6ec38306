//! What happens after an error.

use super::*;

#[test]
fn consul_point_7_errors_keep_the_set_back_off_and_reset_on_success() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.events.clear();
    let mut before = sim.now;
    sim.fail();
    for full in [2, 4, 8, 16, 30, 30] {
        let sent = (sim.sent.len(), sim.probes);
        while sim.probe.is_none() {
            sim.tick();
        }
        assert_eq!((sim.sent.len(), sim.probes), (sent.0, sent.1 + 1), "one attempt per step, and that is the probe");
        let waited = sim.now.since(before);
        assert!(waited >= Duration::from_secs(full) / 2 && waited <= Duration::from_secs(full), "{waited:?} of {full}");
        let mut told = sim.told();
        assert_eq!(told.remove(0), "degraded backend-unavailable");
        assert!(told.iter().all(|event| event == "heartbeat false"), "{told:?}");
        before = sim.now;
        sim.end_probe(Err(error(ErrorCode::BackendUnavailable)));
    }
    sim.told();
    sim.recover(Ok(mark(101)));
    assert_eq!((sim.told().pop(), sim.asked()), (Some("heartbeat false".to_owned()), Some(100)));
    sim.answer(101, &["a", "b"]);
    assert_eq!(sim.told(), [snapshot(&["a", "b"])]);
    sim.settle();
    let before = sim.now;
    sim.fail();
    sim.recover(Ok(mark(101)));
    assert!(sim.now.since(before) <= Duration::from_secs(2));
}

#[test]
fn consul_point_7_after_an_error_our_index_settles_nothing_and_the_next_whole_answer_does() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.fail();
    sim.told();
    sim.recover(Ok(mark(100)));
    assert_eq!((sim.asked(), sim.watch.unwrap().2), (Some(100), Consistency::Default));
    assert!(*sim.waits.last().unwrap() <= Duration::from_millis(10), "it waits a moment only");
    sim.probe(Ok(mark(100)));
    assert_eq!(sim.told(), ["heartbeat false"], "not even while the watch is held");
    sim.wait_over(100, &["a"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
    assert_eq!(sim.sent.len(), 4, "the first, the one that failed, the one that compares, and the one that goes on");
    assert!(*sim.waits.last().unwrap() >= settings().wait);
    sim.probe(Ok(mark(100)));
    assert_eq!((sim.told(), sim.aborts), (vec!["heartbeat true".to_owned()], 0), "from here on it does again");
}

#[test]
fn consul_point_7_and_8_a_server_that_grew_to_our_very_index_after_it_lost_its_state_is_not_taken_for_ours() {
    // Whoever is missing is held, whoever is new is shown, and nothing was fresh before.
    let mut sim = Sim::settled(&["a", "b"], 100);
    sim.fail();
    sim.told();
    sim.recover(Ok(mark(100)));
    sim.wait_over(100, &["b", "c"]);
    assert_eq!(sim.told(), ["heartbeat false", "doubtful index-rollback"]);
    let mut sim = Sim::settled(&["a"], 100);
    sim.fail();
    sim.told();
    sim.recover(Ok(mark(100)));
    sim.wait_over(100, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat false", &snapshot(&["a", "b"])]);
}

#[test]
fn consul_point_7_a_probe_that_fails_makes_the_watch_begin_anew_before_an_index_counts_again() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.probe(Err(error(ErrorCode::Timeout)));
    sim.probe(Ok(mark(100)));
    assert_eq!((sim.told(), sim.aborts), (vec!["heartbeat false".to_owned()], 1), "its connection may be dead");
    sim.settle();
    assert_eq!(sim.asked(), Some(100));
    sim.wait_over(100, &["a"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_point_7_what_was_under_way_as_the_probe_failed_is_taken_for_what_it_says_and_proves_nothing() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.probe(Err(error(ErrorCode::Timeout)));
    sim.told();
    sim.answer(101, &["a", "b"]);
    sim.settle();
    assert_eq!((sim.told().len(), sim.asked()), (0, None), "a snapshot would be a sign of freshness");
    sim.answer(101, &["a", "b"]);
    sim.settle();
    assert_eq!(sim.told(), [snapshot(&["a", "b"])]);
    // Without news it is taken for what it says.
    sim.probe(Err(error(ErrorCode::Timeout)));
    sim.told();
    sim.answer(101, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat false"]);
}

#[test]
fn consul_point_7_news_are_taken_that_come_again_from_before_a_trouble() {
    let mut sim = Sim::settled(&["a"], 100);
    for told in [Vec::new(), vec![snapshot(&["a", "b"])]] {
        sim.probe(Err(error(ErrorCode::Timeout)));
        sim.told();
        sim.answer(101, &["a", "b"]);
        sim.settle();
        assert_eq!(sim.told(), told);
    }
}

#[test]
fn consul_point_7_a_poll_that_is_cut_after_it_has_lasted_is_asked_again_at_once_and_nothing_is_told() {
    for lasts in [50, 3] {
        let mut sim = Sim::settled(&["a", "b"], 100);
        let (start, mut refreshed) = (sim.now, sim.now);
        while sim.now.since(start) < Duration::from_secs(600) {
            // Each poll lasts that long at the most.
            let cut = *sim.sent.last().unwrap() + Duration::from_secs(lasts);
            let over = *sim.sent.last().unwrap() + *sim.waits.last().unwrap();
            let next = sim.machine.timeout().min(cut).min(over);
            sim.now = next;
            match sim.probe {
                Some(_) => sim.end_probe(Ok(mark(100))),
                None if next == over => sim.answer(100, &["a", "b"]),
                None if next == cut => sim.break_watch(FailureKind::Cut),
                None => sim.input(Input::Timer),
            }
            assert_eq!((sim.asked(), *sim.sent.last().unwrap() == sim.now || next < over.min(cut)), (Some(100), true));
            for event in sim.told() {
                assert!(event.starts_with("heartbeat"), "{event}");
                if event == "heartbeat true" {
                    refreshed = sim.now;
                }
            }
            assert!(sim.now.since(refreshed) <= Duration::from_secs(8), "{lasts}");
        }
        let limit = 2 * 600 / lasts as usize + 2;
        assert!(sim.sent.len() <= limit, "{} requests of {limit}", sim.sent.len());
        sim.settle();
        sim.answer(101, &["b"]);
        assert_eq!(sim.told(), [snapshot(&["b"])], "an entry that is gone is gone at once");
    }
}

#[test]
fn consul_point_7_after_a_cut_the_members_are_compared_before_our_index_counts_again() {
    let mut sim = Sim::settled(&["a", "b"], 100);
    sim.pass(Duration::from_secs(20), 100);
    sim.break_watch(FailureKind::Cut);
    sim.told();
    sim.settle();
    assert!(*sim.waits.last().unwrap() <= Duration::from_millis(20));
    sim.answer(100, &["a", "c"]);
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
    // Where the server is gone, it is an error like any other.
    let mut sim = Sim::settled(&["a"], 100);
    sim.pass(Duration::from_secs(20), 100);
    sim.break_watch(FailureKind::Cut);
    sim.told();
    sim.settle();
    sim.fail();
    assert_eq!(sim.told(), ["degraded backend-unavailable"]);
}

#[test]
fn consul_point_7_polls_that_are_cut_at_once_are_an_error_that_stays() {
    let mut sim = Sim::settled(&["a"], 100);
    let start = sim.now;
    let mut since = None;
    while sim.now.since(start) < Duration::from_secs(300) {
        let long = sim.waits.last().is_some_and(|wait| *wait > Duration::from_secs(1));
        match (sim.watch, sim.probe) {
            (Some((_, Some(_), _)), _) if long => sim.break_watch(FailureKind::Cut),
            (Some(_), _) => sim.answer(100, &["a"]),
            (_, Some(_)) => sim.end_probe(Ok(mark(100))),
            _ => sim.tick(),
        }
        for event in sim.told() {
            assert!(since.is_none() || !event.starts_with("heartbeat true"), "it is not healthy in between");
            since = since.or((sim.machine.unrest.reason().is_some()).then_some(sim.now));
        }
    }
    assert!(since.unwrap().since(start) < Duration::from_secs(15));
    assert!(sim.sent.len() < 60, "{} requests", sim.sent.len());
    // Polls last again: it is over, and that is seen by a probe.
    while sim.watch.is_none() || sim.waits.last().is_some_and(|wait| *wait <= Duration::from_secs(1)) {
        match (sim.watch, sim.probe) {
            (Some(_), _) => sim.answer(100, &["a"]),
            (_, Some(_)) => sim.end_probe(Ok(mark(100))),
            _ => sim.tick(),
        }
    }
    sim.pass(Duration::from_secs(8), 100);
    assert!(sim.told().contains(&"heartbeat true".to_owned()));
}

#[test]
fn consul_point_15_a_watch_that_was_refused_for_the_token_before_is_asked_again_at_once() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.pass(Duration::from_secs(20), 100);
    sim.told();
    let sent = sim.sent.len();
    sim.break_watch(FailureKind::Outdated);
    assert_eq!((sim.sent.len(), sim.asked(), sim.told().len()), (sent + 1, Some(100), 0));
    assert!(*sim.waits.last().unwrap() >= settings().wait, "nothing was interrupted");
    while sim.probe.is_none() {
        sim.tick();
    }
    sim.told();
    sim.input(Input::Probe(Err(Failure { error: error(ErrorCode::AccessDenied), kind: FailureKind::Outdated })));
    sim.probe = None;
    sim.drain();
    sim.probe(Ok(mark(100)));
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_point_7_a_slow_body_gets_through_although_probes_keep_failing() {
    let mut sim = Sim::settled(&["a"], 100);
    let mut starts = Vec::new();
    while sim.aborts < 4 {
        sim.probe(Err(error(ErrorCode::Timeout)));
        sim.probe(Ok(mark(100)));
        if sim.aborts > starts.len() {
            starts.push(sim.now);
        }
    }
    let pauses: Vec<_> = starts.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(pauses.iter().zip([1, 2, 4]).all(|(pause, times)| *pause >= BEHIND_GRACE * times), "{pauses:?}");
}

#[test]
fn consul_point_7_a_probe_without_contact_to_the_leader_ends_no_error() {
    let old = Mark { last_contact: Some(Duration::from_secs(11)), ..mark(100) };
    let leaderless = Mark { known_leader: Some(false), ..mark(100) };
    for uncertain in [old, leaderless] {
        let mut sim = Sim::settled(&["a"], 100);
        sim.fail();
        sim.told();
        sim.recover(Ok(uncertain));
        assert_eq!((sim.told(), sim.watch), (vec!["heartbeat false".to_owned()], None));
        assert_eq!(sim.probe, Some(Consistency::Consistent), "the leader is asked");
        sim.end_probe(Ok(uncertain));
        assert_eq!((sim.told(), sim.watch), (vec!["degraded backend-unavailable".to_owned()], None));
        sim.recover(Ok(mark(100)));
        sim.wait_over(100, &["a"]);
        assert_eq!(sim.told().pop().unwrap(), "heartbeat true");
    }
}

#[test]
fn consul_point_7_and_11_a_server_that_lags_after_an_error_is_no_rollback() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.fail();
    sim.told();
    sim.recover(Ok(Mark { may_lag: true, ..mark(90) }));
    assert_eq!(sim.told(), ["heartbeat false"]);
    assert_eq!(sim.probe, Some(Consistency::Consistent));
    sim.end_probe(Ok(mark(100)));
    assert_eq!((sim.told(), sim.asked()), (vec!["heartbeat false".to_owned()], Some(100)));
}

#[test]
fn consul_point_7_and_11_our_index_ends_an_error_also_if_any_server_may_have_given_it() {
    let mut sim = Sim::with(Settings { consistency: Consistency::Stale, ..settings() }, Memory::default());
    sim.answer(100, &["a"]);
    sim.settle();
    sim.fail();
    sim.told();
    sim.recover(Ok(Mark { may_lag: true, ..mark(100) }));
    assert_eq!((sim.told(), sim.probe, sim.asked()), (vec!["heartbeat false".to_owned()], None, Some(100)));
    sim.wait_over(100, &["a"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_point_7_after_an_error_while_nothing_is_known_or_sure_the_watch_is_unindexed() {
    let mut unknown = Sim::new();
    unknown.fail();
    unknown.settle();
    assert_eq!((unknown.asked(), unknown.probes), (None, 0));
    let known = Memory { index: 100, members: Some(set(&["a"])), ..Memory::default() };
    let mut unreported = Sim::with(settings(), known);
    unreported.fail();
    unreported.settle();
    assert_eq!(unreported.asked(), None, "the first refresh of a stream is a snapshot");
    let mut doubtful = restarted(&["a"]);
    doubtful.fail();
    doubtful.settle();
    assert_eq!(doubtful.asked(), None);
    let mut indexless = Sim::new();
    indexless.answer_with(Mark { index: None, ..mark(1) }, &["a"]);
    indexless.settle();
    indexless.fail();
    indexless.settle();
    assert_eq!(indexless.asked(), None);
    let mut lost = Sim::settled(&["a"], 100);
    lost.fail();
    lost.recover(Ok(Mark { index: None, ..mark(1) }));
    assert_eq!(lost.asked(), None);
}

#[test]
fn consul_point_7_while_backing_off_nothing_is_probed_and_a_sign_of_life_comes_every_5_s() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.fail();
    for _ in 0..6 {
        sim.machine.probe = Probe::Due(sim.now);
        let (mut last, probes) = (sim.now, sim.probes);
        while !matches!(sim.machine.watch, Watch::Recovering) {
            assert_eq!(sim.probes, probes);
            sim.tick();
            if !sim.events.is_empty() {
                assert!(sim.now.since(last) <= crate::provider::SIGN_OF_LIFE);
                last = sim.now;
                sim.events.clear();
            }
        }
        sim.end_probe(Err(error(ErrorCode::BackendUnavailable)));
    }
}

#[test]
fn consul_point_7_a_probe_that_was_under_way_as_the_watch_failed_is_the_attempt() {
    let mut sim = Sim::settled(&["a"], 100);
    while sim.probe.is_none() {
        sim.tick();
    }
    sim.fail();
    sim.told();
    while !matches!(sim.machine.watch, Watch::Recovering) {
        sim.tick();
    }
    let probes = sim.probes;
    sim.end_probe(Err(error(ErrorCode::Timeout)));
    assert_eq!(sim.told(), ["degraded timeout"]);
    let before = sim.now;
    sim.recover(Ok(mark(100)));
    assert!(sim.now.since(before) >= Duration::from_secs(2), "the second step");
    assert_eq!(sim.probes, probes + 1);
}

#[test]
fn consul_point_7_watches_that_are_cut_again_and_again_do_not_slow_down_a_server_that_holds_them_in_between() {
    let mut sim = Sim::settled(&["a"], 100);
    for _ in 0..10 {
        sim.pass(Duration::from_secs(15), 100);
        let before = sim.now;
        sim.fail();
        sim.recover(Ok(mark(100)));
        assert!(sim.now.since(before) <= Duration::from_secs(2));
        sim.wait_over(100, &["a"]);
        sim.settle();
    }
    sim.pass(Duration::from_secs(15), 100);
    // One that refuses every watch is asked ever more rarely, although its probes are answered.
    let before = sim.now;
    for _ in 0..6 {
        sim.fail();
        sim.recover(Ok(mark(100)));
    }
    assert!(sim.now.since(before) >= Duration::from_secs(1 + 2 + 4 + 8 + 15 + 15));
}

#[test]
fn consul_point_7_a_frozen_server_shows_its_first_error_within_8_s_and_three_within_14_s() {
    let mut worst = [Duration::ZERO; 3];
    for seed in 0..300 {
        let mut sim = Sim::local(settings(), None, Standing::Client, Memory::default(), seed);
        sim.answer(100, &["a"]);
        sim.probe(Ok(mark(100)));
        sim.told();
        // The worst moment: right after a sign of health.
        let start = sim.now;
        for worst in &mut worst {
            while sim.probe.is_none() {
                sim.tick();
            }
            sim.now = sim.now + Duration::from_secs(2);
            sim.end_probe(Err(error(ErrorCode::Timeout)));
            assert_eq!(sim.told().iter().filter(|event| event.starts_with("degraded")).count(), 1);
            *worst = sim.now.since(start).max(*worst);
        }
        sim.probe(Ok(mark(100)));
        assert_eq!((sim.told(), sim.aborts), (vec!["heartbeat false".to_owned()], 1));
        sim.settle();
        sim.wait_over(100, &["a"]);
        assert_eq!(sim.told(), ["heartbeat true"]);
    }
    println!("a frozen server shows its errors within {worst:?}");
    assert!(worst[0] <= Duration::from_secs(8) && worst[2] <= Duration::from_secs(14), "{worst:?}");
}

#[test]
fn consul_point_7_a_thousand_watchers_come_back_one_after_the_other_after_a_change_of_leader() {
    let ids: Vec<_> = (0..1000).map(|n| format!("n{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let shown = set(&ids);
    let answer = || WatchAnswer { mark: mark(100), members: shown.clone(), lineage: Lineage::default(), skipped: 0 };
    let mut by_tenth = [0usize; 80];
    for seed in 0..1000 {
        let mut sim = Sim::local(settings(), None, Standing::Client, Memory::default(), seed);
        sim.end_watch(Ok(answer()));
        sim.settle();
        sim.fail();
        let start = sim.now;
        sim.recover(Ok(mark(100)));
        assert_eq!(sim.asked(), Some(100), "whoever asks is answered when it has waited, or when there is news");
        sim.told();
        sim.pass(*sim.waits.last().unwrap(), 100);
        by_tenth[(sim.now.since(start).as_millis() / 100) as usize] += 1;
        sim.end_watch(Ok(answer()));
        assert_eq!(sim.told().pop().unwrap(), "heartbeat true");
    }
    assert_eq!(by_tenth[..10].iter().sum::<usize>(), 0);
    assert!(by_tenth.iter().all(|count| *count < 40), "{by_tenth:?}");
}

#[test]
fn consul_point_7_whoever_fetches_at_once_after_an_error_waits_for_its_turn_and_never_longer_than_that() {
    let ids: Vec<_> = (0..100).map(|n| format!("n{n}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let mut turns = Vec::new();
    for seed in 0..200 {
        let mut sim = Sim::local(settings(), None, Standing::Client, Memory::default(), seed);
        sim.answer(100, &ids);
        sim.settle();
        // Troubles that follow one another let a comparison wait longer, and news do not.
        for index in [200, 300, 400, 40] {
            sim.fail();
            while !matches!(sim.machine.watch, Watch::Recovering) {
                sim.tick();
            }
            let asked = sim.now;
            sim.recover(Ok(mark(index)));
            assert_eq!(sim.asked().is_some(), index > 40);
            turns.push(sim.now.since(asked).as_millis());
            sim.answer(index, &ids);
            sim.settle();
        }
    }
    assert!(turns.iter().all(|turn| *turn <= 1000), "10 ms for each member");
    let within = |from: u128| turns.iter().filter(|turn| (from..from + 100).contains(turn)).count();
    assert!((0..1000).step_by(100).all(|from| (40..130).contains(&within(from))), "spread over all of it");
}

/// A member that settled on these, and whose server did not answer for so long; it has answered a probe since.
fn after_outage(ids: &[&str], seconds: u64) -> Sim {
    let mut sim = Sim::settled(ids, 100);
    let start = sim.now;
    sim.fail();
    while sim.now.since(start) < Duration::from_secs(seconds) {
        sim.recover(Err(error(ErrorCode::Timeout)));
    }
    sim.recover(Ok(mark(100)));
    sim.told();
    sim
}

#[test]
fn consul_point_7_after_an_outage_of_a_ttl_whoever_is_critical_has_a_ttl_to_come_back() {
    let mut sim = after_outage(&["a", "b", "c"], 10);
    // The agent is back, and lets the checks turn critical one after the other.
    sim.answer(101, &["b", "c"]);
    sim.settle();
    sim.answer(102, &["c"]);
    sim.settle();
    assert!(sim.told().iter().all(|event| event == "doubtful doubtful-answer"));
    sim.answer(103, &["a", "b", "c"]);
    assert_eq!(sim.told(), ["heartbeat true"], "nobody left");
    sim.settle();
    sim.pass(Duration::from_secs(4), 103);
    sim.told();
    sim.answer(104, &["a", "b"]);
    assert_eq!(sim.told(), [snapshot(&["a", "b"])], "later a departure is one");
}

#[test]
fn consul_point_7_who_left_during_an_outage_is_gone_a_ttl_later() {
    let mut sim = after_outage(&["a", "b"], 10);
    let start = sim.now;
    sim.answer(101, &["a"]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    loop {
        assert!(sim.now.since(start) < Duration::from_secs(5), "never believed");
        match (sim.watch, sim.probe) {
            (Some((_, None, _)), _) => sim.answer(101, &["a"]),
            (_, Some(_)) => sim.end_probe(Ok(mark(101))),
            _ => sim.tick(),
        }
        if sim.told().contains(&snapshot(&["a"])) {
            break;
        }
    }
    assert!(sim.now.since(start) >= Duration::from_secs(2));
}

#[test]
fn consul_point_7_who_is_critical_after_a_short_outage_may_come_back_since_the_agent_may_have_been_started_again() {
    let mut sim = Sim::settled(&["a", "b"], 100);
    sim.fail();
    sim.recover(Ok(mark(100)));
    sim.told();
    // The TTLs began anew when the agent did, and ran out before a heartbeat got through.
    sim.answer(101, &["a"]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.settle();
    sim.answer(102, &["a", "b"]);
    assert_eq!(sim.told().last().unwrap(), "heartbeat true", "nobody left");
}

#[test]
fn consul_point_11_a_leader_that_was_asked_for_and_failed_to_answer_is_asked_by_the_probe() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.answer_with(Mark { known_leader: Some(false), ..mark(100) }, &["a"]);
    sim.settle();
    assert_eq!(sim.watch.unwrap().2, Consistency::Consistent);
    sim.fail();
    while sim.probe.is_none() {
        sim.tick();
    }
    assert_eq!(sim.probe, Some(Consistency::Consistent));
}
