//! What changes when the local node is a member.

use super::*;

fn member(standing: Standing) -> Sim {
    Sim::local(settings(), Some("me"), standing, Memory::default(), 1)
}

/// A registered member that has believed these members at index 100.
fn registered(ids: &[&str]) -> Sim {
    let mut sim = member(Standing::Registered);
    sim.answer(100, ids);
    assert_eq!(sim.told(), [snapshot(ids)]);
    sim.settle();
    sim
}

/// Answers every watch with that, and every probe with its index, until the stream reports a set; how long that took.
fn until_believed(sim: &mut Sim, index: u64, ids: &[&str]) -> Duration {
    let start = sim.now;
    loop {
        let told = sim.told();
        if let Some(event) = told.iter().find(|event| !event.starts_with("doubt")) {
            assert_eq!(*event, snapshot(ids));
            return sim.now.since(start);
        }
        assert!(sim.now.since(start) < GRACE * 3, "never believed");
        let asked = sim.watch;
        match asked {
            Some((_, None, _)) => sim.answer(index, ids),
            _ if sim.probe.is_some() => sim.end_probe(Ok(mark(index))),
            _ => sim.tick(),
        }
    }
}

#[test]
fn consul_point_10_in_member_mode_an_empty_answer_is_never_believed_whatever_its_index() {
    for (standing, known) in [(Standing::Joining, false), (Standing::Registered, false), (Standing::Registered, true)] {
        for index in [Some(1), Some(100), Some(7), Some(105), None] {
            let mut sim = if known { registered(&["a", "me"]) } else { member(standing) };
            let (start, first) = (sim.now, sim.sent.len());
            while sim.now.since(start) < Duration::from_secs(600) {
                let Some((_, asked, _)) = sim.watch else {
                    sim.tick();
                    continue;
                };
                // As a server does: a watch without news is held until its wait is over.
                if asked.is_some_and(|asked| asked >= index.unwrap_or(1)) {
                    let until = sim.now + *sim.waits.last().unwrap();
                    while sim.machine.timeout() < until && sim.watch.is_some() {
                        sim.tick();
                        if sim.probe.is_some() {
                            sim.end_probe(Ok(Mark { index, ..mark(1) }));
                        }
                    }
                    sim.now = until.max(sim.now);
                }
                if sim.watch.is_some() {
                    sim.answer_with(Mark { index, ..mark(1) }, &[]);
                }
                if sim.probe.is_some() {
                    sim.end_probe(Ok(Mark { index, ..mark(1) }));
                }
            }
            let told = sim.told();
            let mut since = told.iter().skip_while(|event| event.starts_with("heartbeat")).peekable();
            assert!(since.peek().is_some());
            assert_eq!(since.find(|event| !event.starts_with("doubtful")), None, "{standing:?} {known} {index:?}");
            let rate = (sim.sent.len() - first) as f64 / 600.0;
            assert!(rate < 1.1, "{index:?}: {rate} watches/s");
            assert_eq!(sim.absences > 0, standing == Standing::Registered);
            // The right comes back, at whatever index, and nobody left.
            sim.settle();
            sim.answer(index.unwrap_or(1).max(100), &["a", "me"]);
            let expected = if known { "heartbeat true".to_owned() } else { snapshot(&["a", "me"]) };
            assert_eq!(sim.told(), [expected], "{index:?}");
        }
    }
}

#[test]
fn consul_point_10_rights_that_come_back_show_although_the_index_is_the_same() {
    let mut sim = registered(&["a", "me"]);
    sim.answer(105, &[]);
    sim.settle();
    assert_eq!(sim.asked(), Some(105));
    let wait = *sim.waits.last().unwrap();
    assert!(wait >= GRACE && wait <= GRACE.mul_f64(1.25), "{wait:?}: the server judges the rights at its end");
    sim.answer(105, &["a", "me"]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer", "heartbeat true"]);
    sim.settle();
    assert!(*sim.waits.last().unwrap() >= Duration::from_secs(60));
}

#[test]
fn consul_point_10_an_answer_without_the_registered_node_is_held_told_at_once_and_believed_in_the_end() {
    let mut sim = registered(&["a", "b", "me"]);
    sim.answer(101, &["a"]);
    assert_eq!((sim.told(), sim.absences), (vec!["doubtful doubtful-answer".to_owned()], 1));
    sim.settle();
    assert_eq!(sim.asked(), Some(101), "its repair wakes the watch");
    let start = sim.now;
    sim.pass(Duration::from_secs(4), 101);
    sim.answer(102, &["a", "c"]);
    assert_eq!(sim.absences, 2);
    sim.settle();
    assert!(sim.told().iter().all(|event| event == "doubtful doubtful-answer"));
    let believed = until_believed(&mut sim, 102, &["a", "c"]);
    assert_eq!(sim.now.since(start), GRACE);
    assert!(believed > Duration::from_secs(4));
    assert_eq!(sim.absences, 3, "once for each answer");
    // From here on others show at once, and the registration is still told.
    sim.settle();
    sim.answer(103, &["c"]);
    assert_eq!((sim.told(), sim.absences), (vec![snapshot(&["c"])], 4));
}

#[test]
fn consul_point_19_a_node_that_was_repaired_ends_the_doubt_and_its_next_absence_is_doubted_anew() {
    let mut sim = registered(&["a", "me"]);
    for (rounds, index) in [(1, 101), (2, 111)] {
        sim.answer(index, &["a"]);
        sim.settle();
        sim.pass(Duration::from_secs(2), index);
        assert!(sim.told().iter().all(|event| event == "doubtful doubtful-answer"));
        sim.answer(index + 1, &["a", "me"]);
        assert_eq!(sim.told(), ["heartbeat true"], "nobody left");
        assert_eq!((sim.absences, sim.presences), (rounds, rounds), "the registration learns of both");
        sim.settle();
    }
    sim.answer(121, &["a"]);
    sim.settle();
    until_believed(&mut sim, 121, &["a"]);
    sim.settle();
    sim.answer(122, &["a", "me"]);
    assert_eq!(sim.told(), [snapshot(&["a", "me"])]);
    sim.settle();
    sim.answer(123, &["a"]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
}

#[test]
fn consul_point_10_while_joining_an_answer_without_the_node_is_ordinary_and_nobody_is_told() {
    let mut sim = member(Standing::Joining);
    sim.answer(100, &["a"]);
    sim.settle();
    sim.answer(101, &["a", "b"]);
    assert_eq!((sim.told(), sim.absences), (vec![snapshot(&["a"]), snapshot(&["a", "b"])], 0));
    sim.settle();
    // Now it is registered, and the next answer without it is doubtful.
    sim.standing = Standing::Registered;
    sim.answer(102, &["a"]);
    assert_eq!((sim.told(), sim.absences), (vec!["doubtful doubtful-answer".to_owned()], 1));
    sim.settle();
    sim.answer(103, &["a", "b", "me"]);
    assert_eq!(sim.told(), [snapshot(&["a", "b", "me"])]);
}

#[test]
fn consul_point_7_whatever_hid_the_local_node_may_have_hidden_others_which_have_a_ttl_to_come_back() {
    for back in [true, false] {
        let mut sim = registered(&["a", "b", "me"]);
        sim.answer(101, &["b"]);
        sim.settle();
        sim.answer(102, &["b", "me"]);
        assert_eq!(sim.told(), vec!["doubtful doubtful-answer"; 2]);
        assert_eq!((sim.absences, sim.presences), (1, 1));
        let start = sim.now;
        if back {
            sim.settle();
            sim.pass(Duration::from_secs(1), 102);
            sim.told();
            sim.answer(103, &["a", "b", "me"]);
            assert_eq!(sim.told(), ["heartbeat true"], "it never left");
        } else {
            until_believed(&mut sim, 102, &["b", "me"]);
            assert_eq!(sim.now.since(start), Duration::from_secs(3));
        }
    }
}

#[test]
fn consul_point_9_a_client_and_a_member_that_left_believe_a_genuine_empty_answer() {
    for standing in [Standing::Client, Standing::Left] {
        let mut sim = registered(&["a", "me"]);
        sim.standing = standing;
        sim.answer(101, &[]);
        sim.settle();
        assert_eq!(sim.asked(), None, "it is confirmed first");
        sim.answer(101, &[]);
        assert_eq!((sim.told(), sim.absences), (vec![snapshot(&[])], 0));
    }
    // Also one that was doubted until the node left.
    let mut sim = registered(&["me"]);
    sim.answer(101, &[]);
    sim.settle();
    sim.standing = Standing::Left;
    sim.answer(101, &[]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer", &snapshot(&[])]);
}

#[test]
fn consul_point_8_a_rollback_that_hides_the_node_is_told_at_once_and_held_until_all_are_back() {
    let mut sim = registered(&["a", "me"]);
    sim.probe(Ok(mark(10)));
    sim.settle();
    sim.answer(10, &[]);
    assert_eq!(sim.absences, 1);
    sim.settle();
    sim.told();
    sim.answer(12, &["me"]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"], "a has not registered again yet");
    sim.settle();
    sim.answer(13, &["a", "me"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_point_8_a_loss_that_only_the_own_absence_shows_is_held_for_the_others_too() {
    let mut sim = member(Standing::Registered);
    sim.answer_of(100, &[("a", 20), ("b", 21), ("me", 22)]);
    sim.settle();
    sim.told();
    // No error, no rollback: the server has lost its state behind a proxy.
    sim.answer_of(300, &[]);
    sim.settle();
    sim.answer_of(301, &[("me", 301)]);
    sim.settle();
    sim.answer_of(301, &[("me", 301)]);
    sim.settle();
    sim.answer_of(302, &[("b", 302), ("me", 301)]);
    sim.settle();
    let told = sim.told();
    assert!(told.iter().all(|event| event.starts_with("doubtful")), "{told:?}");
    sim.answer_of(303, &[("a", 303), ("b", 302), ("me", 301)]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_point_10_a_node_that_vanishes_while_others_are_held_is_given_a_grace_of_its_own() {
    let mut sim = registered(&["a", "me"]);
    sim.probe(Ok(mark(10)));
    sim.settle();
    sim.answer(10, &["me"]);
    sim.settle();
    sim.pass(Duration::from_secs(8), 10);
    sim.told();
    let start = sim.now;
    sim.answer(11, &["b"]);
    sim.settle();
    until_believed(&mut sim, 11, &["b"]);
    assert_eq!(sim.now.since(start), GRACE);
}

#[test]
fn consul_another_process_under_the_local_nodes_id_is_told_once_and_until_it_is_gone() {
    let shown = |incarnation, address: &str| {
        let node = ClusterNode::builder("me", address, 1).incarnation(incarnation).build().unwrap();
        [node].into_iter().collect::<Members>()
    };
    let mut sim = Sim::new();
    let node = ClusterNode::builder("me", "0:0::1", 1).incarnation(7).build().unwrap();
    sim.machine.local = Some(Arc::new(node));
    let mut index = 100;
    let mut taken_after = |sim: &mut Sim, standing, members| {
        sim.standing = standing;
        sim.settle();
        index += 1;
        let answer = WatchAnswer { mark: mark(index), members, lineage: Lineage::default(), skipped: 0 };
        sim.end_watch(Ok(answer));
        (sim.taken, sim.presences)
    };
    assert_eq!(taken_after(&mut sim, Standing::Joining, shown(8, "::1")), (0, 0), "not yet ours");
    assert_eq!(taken_after(&mut sim, Standing::Registered, shown(6, "h")), (0, 0), "a life before");
    assert_eq!(taken_after(&mut sim, Standing::Registered, shown(7, "::1")), (0, 0), "ourselves");
    assert_eq!(taken_after(&mut sim, Standing::Registered, shown(8, "::1")), (1, 0), "a later life");
    assert_eq!(taken_after(&mut sim, Standing::Registered, shown(8, "h")), (1, 0), "known already");
    assert_eq!(taken_after(&mut sim, Standing::Registered, shown(7, "::1")), (1, 1), "it is gone");
    assert_eq!(taken_after(&mut sim, Standing::Registered, shown(7, "h")), (2, 1), "the same life elsewhere");
}
