//! How often it asks, and for how long.

use super::*;

#[test]
fn consul_a_thousand_watches_do_not_return_at_one_moment_and_none_waits_too_long() {
    let waits = |wait: u64| {
        let settings = Settings { wait: Duration::from_secs(wait), ..settings() };
        (0..1000)
            .map(|seed| {
                let mut sim = Sim::local(settings, None, Standing::Client, Memory::default(), seed);
                sim.answer(100, &["a"]);
                sim.settle();
                sim.waits[1]
            })
            .collect::<Vec<_>>()
    };
    let drawn = waits(60);
    assert!(drawn.iter().all(|wait| *wait >= Duration::from_secs(60) && *wait <= Duration::from_secs(75)));
    let within = |from: u64| drawn.iter().filter(|wait| wait.as_secs() == from).count();
    assert!((60..75).all(|from| (30..110).contains(&within(from))), "spread over all of it");
    // The server accepts no more than 10 min: near that they are spread all the same.
    for wait in [480, 540, 600] {
        let drawn = waits(wait);
        let within = |from: u64| drawn.iter().filter(|wait| (from..from + 8).contains(&wait.as_secs())).count();
        assert!((480..600).step_by(8).all(|from| (30..110).contains(&within(from))), "{wait} s");
        assert!(drawn.iter().all(|wait| *wait <= WAIT_MAX));
    }
}

#[test]
fn consul_an_idle_watcher_probes_once_an_interval() {
    for seed in 0..20 {
        let mut sim = Sim::local(settings(), None, Standing::Client, Memory::default(), seed);
        sim.answer(100, &["a"]);
        sim.settle();
        sim.probe(Ok(mark(100)));
        let probes = sim.probes;
        sim.pass(Duration::from_secs(600), 100);
        let probes = sim.probes - probes;
        assert!((100..=111).contains(&probes), "{probes} probes in 10 min");
        assert!(sim.told().iter().any(|event| event == "heartbeat true"));
    }
}

#[test]
fn consul_a_watch_that_is_answered_makes_the_probe_unnecessary() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.probe(Ok(mark(100)));
    let probes = sim.probes;
    for index in 101..200 {
        sim.pass(Duration::from_secs(5), index - 1);
        sim.answer(index, if index % 2 == 0 { &["a"] } else { &["a", "b"] });
        sim.settle();
    }
    assert_eq!(sim.probes, probes);
    sim.pass(Duration::from_secs(6), 199);
    assert_eq!(sim.probes, probes + 1);
}

#[test]
fn consul_while_something_is_wrong_the_next_probe_comes_within_a_second() {
    let soon = |sim: &mut Sim| {
        let start = sim.now;
        while sim.probe.is_none() {
            sim.tick();
        }
        assert!(sim.now.since(start) <= Duration::from_secs(1), "{:?}", sim.now.since(start));
    };
    let mut failed = Sim::settled(&["a"], 100);
    failed.probe(Err(error(ErrorCode::Timeout)));
    soon(&mut failed);
    failed.end_probe(Ok(mark(100)));
    soon(&mut failed);
    failed.end_probe(Ok(mark(100)));
    failed.settle();
    failed.wait_over(100, &["a"]);
    let start = failed.now;
    while failed.probe.is_none() {
        failed.tick();
    }
    assert!(failed.now.since(start) >= Duration::from_millis(5400), "all is well again");
    let mut held = restarted(&["a"]);
    soon(&mut held);
    let mut behind = Sim::settled(&["a"], 100);
    behind.probe(Ok(mark(101)));
    soon(&mut behind);
    let mut rolled_back = Sim::settled(&["a"], 100);
    rolled_back.answer(50, &["a"]);
    soon(&mut rolled_back);
}

#[test]
fn consul_news_that_keep_coming_while_members_are_held_do_not_put_the_probe_off() {
    let mut sim = restarted(&["a"]);
    let (start, mut index) = (sim.now, 10);
    while sim.probe.is_none() {
        let until = sim.now + Duration::from_millis(300);
        while sim.machine.timeout() <= until && sim.probe.is_none() {
            sim.tick();
        }
        sim.now = sim.now.max(until);
        if sim.watch.is_some() {
            index += 1;
            sim.answer(index, &["b"]);
        }
        assert!(sim.now.since(start) <= Duration::from_millis(1300), "no probe for {:?}", sim.now.since(start));
    }
}

#[test]
fn consul_point_2_a_wait_that_is_broken_off_without_news_is_looked_into_at_once() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.pass(Duration::from_secs(10), 100);
    sim.told();
    // What a server answers whose state is replaced by a backup: what it had before.
    sim.answer(100, &["a"]);
    assert_eq!(sim.probe, Some(Consistency::Default));
    sim.end_probe(Ok(mark(95)));
    assert_eq!(sim.told(), ["heartbeat true", "doubtful index-rollback"]);
    // A wait that was over is no such sign.
    let mut sim = Sim::settled(&["a"], 100);
    sim.probe(Ok(mark(100)));
    sim.wait_over(100, &["a"]);
    assert_eq!(sim.probe, None);
}
