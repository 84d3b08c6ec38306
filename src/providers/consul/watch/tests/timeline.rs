//! A history that was lost unseen, and time that jumps.

use super::*;

const BEFORE: &[(&str, u64)] = &[("a", 20), ("b", 21)];

/// A watcher of [`BEFORE`] at index 100 whose server was gone for a while.
fn after_an_outage() -> Sim {
    after_an_outage_of(BEFORE)
}

fn after_an_outage_of(entries: &[(&str, u64)]) -> Sim {
    let mut sim = Sim::new();
    sim.answer_of(100, entries);
    sim.settle();
    sim.fail();
    sim.recover(Ok(mark(150)));
    sim.told();
    assert_eq!(sim.asked(), Some(100));
    sim
}

/// The same a while later: whoever was only kept from passing its check is back.
fn long_after(mut sim: Sim) -> Sim {
    sim.pass(Duration::from_secs(4), 100);
    sim.told();
    sim
}

#[test]
fn consul_point_8_a_server_that_lost_its_state_and_grew_past_our_index_is_a_rollback() {
    let mut sim = after_an_outage();
    sim.answer_of(150, &[("b", 140)]);
    sim.settle();
    assert_eq!((sim.told(), sim.asked()), (vec!["doubtful index-rollback".to_owned()], None));
    assert_eq!(sim.watch.unwrap().2, Consistency::Consistent);
    sim.answer_of(150, &[("b", 140)]);
    sim.settle();
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.pass(Duration::from_secs(3), 150);
    sim.told();
    sim.answer_of(151, &[("a", 151), ("b", 140)]);
    assert_eq!(sim.told(), ["heartbeat true"], "those that register again never left");
}

#[test]
fn consul_point_8_what_stays_gone_after_a_server_lost_its_state_is_believed_after_the_grace() {
    for entries in [&[("b", 140)][..], &[]] {
        let mut sim = after_an_outage();
        let start = sim.now;
        sim.answer_of(150, entries);
        let believed = loop {
            sim.settle();
            if sim.asked().is_none() {
                sim.answer_of(150, entries);
            } else {
                sim.tick();
            }
            if sim.probe.is_some() {
                sim.end_probe(Ok(mark(150)));
            }
            if let Some(event) = sim.told().into_iter().find(|event| event.starts_with("snapshot")) {
                break event;
            }
        };
        let ids: Vec<_> = entries.iter().map(|(id, _)| *id).collect();
        assert_eq!(believed, snapshot(&ids));
        let taken = sim.now.since(start);
        assert!(taken >= GRACE && taken < GRACE + Duration::from_secs(1), "{taken:?}");
    }
}

#[test]
fn consul_point_8_entries_that_kept_their_indexes_show_that_a_loss_is_genuine() {
    let mut sim = long_after(after_an_outage_of(&[("a", 20), ("b", 21), ("c", 22)]));
    sim.answer_of(150, &[("b", 21), ("c", 22), ("d", 140)]);
    assert_eq!(sim.told(), [snapshot(&["b", "c", "d"])]);
    // One alone may have its former index by chance.
    let mut sim = after_an_outage();
    sim.answer_of(150, &[("b", 21), ("c", 140)]);
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
}

#[test]
fn consul_point_8_who_registers_again_shows_that_a_state_was_restored_while_the_server_ran() {
    const ALL: &[(&str, u64)] = &[("a", 20), ("b", 21), ("c", 22)];
    for entries in [&[("b", 101)][..], &[("a", 20), ("b", 101)]] {
        let mut sim = Sim::new();
        sim.answer_of(100, ALL);
        sim.settle();
        sim.told();
        // No outage and no lower index: whoever found the loss first raised it.
        sim.answer_renewing(101, entries, true);
        sim.settle();
        assert_eq!((sim.told(), sim.asked()), (vec!["doubtful index-rollback".to_owned()], None));
        sim.answer_of(101, entries);
        sim.settle();
        assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
        sim.answer_renewing(103, &[("a", 102), ("b", 101), ("c", 103)], true);
        assert_eq!(sim.told(), ["heartbeat true"], "those that register again never left");
    }
    let mut sim = Sim::new();
    sim.answer_of(100, ALL);
    sim.settle();
    sim.answer_renewing(101, &[("a", 20), ("b", 101), ("c", 22), ("d", 99)], true);
    assert_eq!(sim.told().pop().unwrap(), snapshot(&["a", "b", "c", "d"]), "nobody is missing");
}

#[test]
fn consul_point_8_without_an_outage_without_a_loss_or_without_indexes_nothing_has_to_be_proven() {
    let mut sim = Sim::new();
    sim.answer_of(100, BEFORE);
    sim.settle();
    sim.answer_of(101, &[("c", 101)]);
    assert_eq!(sim.told(), [snapshot(&["a", "b"]), snapshot(&["c"])], "no outage");
    let mut sim = after_an_outage();
    sim.answer_of(150, &[("a", 140), ("b", 141), ("c", 142)]);
    assert_eq!(sim.told(), [snapshot(&["a", "b", "c"])], "nobody is missing");
    let mut sim = long_after(after_an_outage());
    sim.answer(150, &["c"]);
    assert_eq!(sim.told(), [snapshot(&["c"])], "a server that names no indexes");
    // An outage counts until the next answer only.
    let mut sim = long_after(after_an_outage());
    sim.answer_of(150, BEFORE);
    sim.settle();
    sim.answer_of(151, &[("c", 151)]);
    assert_eq!(sim.told(), ["heartbeat true", &snapshot(&["c"])]);
}

#[test]
fn consul_point_8_a_probe_that_fails_and_a_new_stream_are_an_outage_too() {
    let mut sim = Sim::new();
    sim.answer_of(100, BEFORE);
    sim.settle();
    sim.probe(Err(error(ErrorCode::Timeout)));
    let memory = sim.machine.memory();
    for _ in 0..2 {
        // What was asked for before the error is asked for again.
        sim.settle();
        sim.answer_of(150, &[("b", 140)]);
    }
    assert_eq!(sim.told().pop().unwrap(), "doubtful index-rollback");
    let mut next = Sim::with(settings(), memory);
    next.answer_of(150, &[("b", 140)]);
    assert_eq!(next.told(), ["doubtful index-rollback"]);
}

#[test]
fn consul_point_8_through_another_agent_the_lineage_decides_and_not_the_index() {
    let before = [("a", 20), ("b", 21), ("c", 22)];
    let mut sim = Sim::new();
    sim.answer_of(100, &before);
    let memory = sim.machine.memory();
    let next = |index, entries: &[(&str, u64)]| {
        let mut next = Sim::with(settings(), memory.clone().of_another_agent());
        next.answer_of(index, entries);
        next.told()
    };
    assert_eq!(next(50, &before[..2]), [snapshot(&["a", "b"])], "the same history: c has left");
    assert_eq!(next(50, &[("b", 41)]), ["doubtful index-rollback"], "another one: a may be about to register");
    let all = [("a", 40), ("b", 41), ("c", 42)];
    assert_eq!(next(50, &all), [snapshot(&["a", "b", "c"])], "nobody is missing");
    assert_eq!(next(1, &[]), ["doubtful index-rollback"]);
    let mut same = Sim::with(settings(), memory);
    same.answer_of(50, &before[..2]);
    assert_eq!(same.told(), ["doubtful index-rollback"], "of the same agent the index does");
}

#[test]
fn consul_point_8_a_backup_that_is_restored_loses_nobody_although_the_index_goes_on() {
    let mut sim = Sim::new();
    sim.answer_of(100, BEFORE);
    sim.settle();
    sim.pass(Duration::from_secs(10), 100);
    sim.told();
    // All that is seen of it: the wait is broken off, with what there was. Then one registers again, at a higher index.
    sim.answer_of(100, BEFORE);
    sim.settle();
    sim.answer_of(104, &BEFORE[..1]);
    sim.settle();
    assert_eq!(sim.told(), ["heartbeat true", "doubtful index-rollback"]);
    sim.answer_of(104, &BEFORE[..1]);
    sim.settle();
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.answer_of(105, &[("a", 20), ("b", 105)]);
    assert_eq!(sim.told(), ["heartbeat true"]);
    sim.settle();
    sim.answer_of(106, &[("b", 105)]);
    assert_eq!(sim.told(), [snapshot(&["b"])]);
}

#[test]
fn consul_point_8_members_gone_while_others_have_new_entries_are_held_without_any_outage() {
    let mut sim = Sim::new();
    sim.answer_of(100, &[("a", 20), ("b", 21), ("c", 22)]);
    sim.settle();
    sim.told();
    // A backup was restored while the watch was paced.
    sim.answer_of(104, &[("a", 20), ("c", 104)]);
    sim.settle();
    sim.answer_of(105, &[("a", 20), ("b", 105), ("c", 104)]);
    assert_eq!(sim.told(), ["doubtful index-rollback", "heartbeat true"]);
    // A member that restarted is no such sign while nobody is missing.
    sim.settle();
    sim.answer_of(106, &[("a", 106), ("b", 105), ("c", 104)]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_a_suspended_process_believes_nothing_that_it_has_not_seen_to_hold() {
    const HOUR: Duration = Duration::from_secs(3600);
    // The answer was sent before the suspension, and is read after it.
    let mut sim = restarted(&["a", "b"]);
    sim.now = sim.now + HOUR;
    sim.answer(12, &["b"]);
    assert!(sim.told().iter().all(|event| event == "doubtful doubtful-answer"), "a sign of life, and no more");
    sim.settle();
    assert_eq!(sim.asked(), None, "it is asked for again");
    sim.answer(12, &["b"]);
    sim.settle();
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.pass(Duration::from_secs(3), 12);
    sim.told();
    sim.answer(13, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
    // Nothing is read at first: the timer fires an hour late.
    let mut sim = restarted(&["a", "b"]);
    sim.now = sim.now + HOUR;
    sim.input(Input::Timer);
    sim.probe(Ok(mark(10)));
    let start = sim.now;
    assert_eq!(sim.aborts, 0, "the grace begins anew");
    while sim.aborts == 0 {
        sim.tick();
        if sim.probe.is_some() {
            sim.end_probe(Ok(mark(10)));
        }
    }
    assert_eq!(sim.now.since(start), GRACE);
    sim.settle();
    sim.told();
    assert_eq!((sim.asked(), sim.watch.unwrap().2), (None, Consistency::Consistent));
    sim.answer(10, &["b"]);
    assert_eq!(sim.told(), [snapshot(&["b"])]);
}

#[test]
fn consul_point_8_an_answer_that_was_asked_for_before_the_grace_was_over_does_not_end_it() {
    let mut sim = restarted(&["a", "b"]);
    sim.now = sim.now + Duration::from_millis(9_500);
    sim.answer(12, &["b"]);
    sim.settle();
    assert_eq!((sim.told(), sim.asked()), (vec!["doubtful doubtful-answer".to_owned()], None));
    sim.answer(13, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_after_a_suspension_backoffs_and_probes_just_fire() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.fail();
    sim.now = sim.now + Duration::from_secs(3600);
    sim.input(Input::Timer);
    assert!(matches!(sim.machine.watch, Watch::Recovering));
    sim.told();
    sim.end_probe(Ok(mark(100)));
    sim.wait_over(100, &["a"]);
    assert_eq!(sim.told(), ["heartbeat false", "heartbeat true"]);
    sim.settle();
    sim.now = sim.now + Duration::from_secs(3600);
    sim.input(Input::Timer);
    assert_eq!((sim.told(), sim.probe), (vec!["heartbeat false".to_owned()], Some(Consistency::Default)));
    // An hour in which the server may have become another: its index confirms nothing.
    sim.end_probe(Ok(mark(100)));
    assert_eq!((sim.told(), sim.aborts), (vec!["heartbeat false".to_owned()], 1));
    sim.settle();
    sim.wait_over(100, &["a"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_what_was_asked_before_a_suspension_is_neither_believed_nor_fresh_after_it() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.told();
    sim.now = sim.now + Duration::from_secs(3600);
    sim.answer(101, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat false"]);
    sim.settle();
    assert_eq!(sim.asked(), None);
    sim.answer(140, &["a", "c"]);
    assert_eq!(sim.told(), [snapshot(&["a", "c"])]);
}
