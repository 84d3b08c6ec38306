//! Signs of life, and what a mute watch leads to.

use super::*;

/// The longest pause between two events while time passes.
fn longest_silence(sim: &mut Sim, duration: Duration, probe: Option<bool>) -> Duration {
    let end = sim.now + duration;
    let (mut last, mut longest) = (sim.now, Duration::ZERO);
    while sim.now < end {
        sim.pass(Duration::from_millis(100), probe);
        if !sim.told().is_empty() {
            longest = longest.max(sim.now.since(last));
            last = sim.now;
        }
    }
    longest.max(sim.now.since(last))
}

#[test]
fn kubernetes_point_10_there_is_a_sign_of_life_within_five_seconds_whatever_happens() {
    let limit = Duration::from_millis(4200);
    for probe in [None, Some(true), Some(false)] {
        let mut sim = Sim::new();
        assert!(longest_silence(&mut sim, Duration::from_secs(60), probe) <= limit, "a list that hangs");
        let mut sim = Sim::settled(&["a"], "7");
        assert!(longest_silence(&mut sim, Duration::from_secs(60), probe) <= limit, "a quiet watch");
        let mut sim = Sim::new();
        sim.fail(Failure { retry_after: Some(Duration::from_secs(200)), ..failure(FailureKind::Other) });
        assert!(longest_silence(&mut sim, Duration::from_secs(60), probe) <= limit, "a long pause");
    }
}

#[test]
fn kubernetes_point_10_an_open_watch_and_a_server_that_lives_confirm_the_members() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.pass(Duration::from_secs(60), Some(true));
    let current = sim.told().iter().filter(|event| *event == "current").count();
    assert!((11..=14).contains(&current), "{current}");
}

#[test]
fn kubernetes_point_10_a_probe_alone_confirms_nothing() {
    let mut sim = Sim::new();
    sim.pass(Duration::from_secs(20), Some(true));
    assert!(sim.news().is_empty(), "nothing is known yet");
    sim.page(page("7", &["a"], None));
    sim.told();
    sim.pass(Duration::from_secs(20), Some(true));
    assert!(sim.news().is_empty(), "the watch is not open");
}

#[test]
fn kubernetes_point_10_a_probe_sent_before_the_watch_was_open_proves_nothing_of_it() {
    let mut sim = Sim::new();
    sim.page(page("7", &["a"], None));
    sim.pass(INTERVAL, None);
    sim.told();
    sim.open();
    sim.probed(Ok(()));
    assert_eq!(sim.told(), ["alive"]);
    sim.probed(Ok(()));
    assert_eq!(sim.told(), ["current"], "another follows at once");
}

#[test]
fn kubernetes_point_10_a_server_that_stands_still_shows_its_third_error_before_silence_would_tell() {
    let mut sim = Sim::settled(&["a"], "7");
    let mut errors = Vec::new();
    let begin = sim.now;
    while errors.len() < 3 {
        // Each probe times out after two seconds.
        if sim.probing {
            sim.pass(2 * SECOND, None);
            sim.probed(Err(broken(ErrorCode::Timeout)));
            errors.push(sim.now.since(begin));
        }
        sim.pass(Duration::from_millis(100), None);
    }
    assert!(errors[2] < Duration::from_secs(15), "{errors:?}");
    assert_eq!(sim.news(), ["timeout"; 3]);
}

#[test]
fn kubernetes_point_10_after_a_failed_probe_the_watch_is_opened_anew_when_the_server_is_back() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.pass(Duration::from_secs(20), Some(false));
    assert_eq!((sim.aborts, sim.watches()), (0, Some("7")));
    sim.told();
    while sim.aborts == 0 {
        sim.pass(Duration::from_millis(100), Some(true));
    }
    assert!(sim.news().is_empty(), "nothing is confirmed by a watch that may be dead");
    sim.paused();
    assert_eq!(sim.watches(), Some("7"), "no list is needed");
    sim.open();
    sim.pass(SECOND, Some(true));
    assert_eq!(sim.news(), ["current"]);
}

#[test]
fn kubernetes_point_10_after_a_failed_probe_a_line_shows_that_the_watch_lives() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.pass(Duration::from_secs(20), Some(false));
    sim.line(bookmark("9"));
    sim.told();
    sim.pass(SECOND, Some(true));
    assert_eq!((sim.aborts, sim.news()), (0, vec!["current".into()]));
}

#[test]
fn kubernetes_point_10_a_mute_watch_is_opened_anew_after_two_minutes_although_the_server_lives() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.line(bookmark("9"));
    let begin = sim.now;
    while sim.aborts == 0 {
        sim.pass(SECOND, Some(true));
    }
    let mute = sim.now.since(begin);
    assert!(mute >= Duration::from_secs(120) && mute <= Duration::from_secs(152), "{mute:?}");
    assert_eq!(sim.watches(), Some("9"), "at once, and without a list");
    let told = sim.told();
    assert!(told.iter().all(|event| event == "current" || event == "alive"), "{told:?}");
}

#[test]
fn kubernetes_point_10_a_watch_that_is_past_its_end_is_broken_off_although_it_talks() {
    let mut sim = Sim::settled(&["a"], "7");
    let begin = sim.now;
    let Some(Asked::Watch { timeout, .. }) = sim.asked else { panic!() };
    while sim.aborts == 0 {
        sim.line(bookmark("9"));
        sim.pass(SECOND, Some(true));
    }
    let lasted = sim.now.since(begin);
    assert!(lasted > timeout && lasted <= timeout + MARGIN + SECOND, "{lasted:?} of {timeout:?}");
    assert_eq!(sim.watches(), Some("9"));
}

#[test]
fn kubernetes_point_10_the_servers_timeout_is_drawn_from_five_to_ten_minutes() {
    let mut drawn = Vec::new();
    for seed in 0..200 {
        let mut sim = Sim::with(settings(), None, Standing::Client, seed);
        sim.machine.trust.proved();
        sim.page(page("7", &["a"], None));
        let Some(Asked::Watch { timeout, .. }) = sim.asked else { panic!() };
        drawn.push(timeout);
    }
    let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
    assert!(*least >= Duration::from_secs(300) && *most <= Duration::from_secs(600));
    assert!(*least < Duration::from_secs(310) && *most > Duration::from_secs(590));
}

#[test]
fn kubernetes_point_10_after_a_standstill_of_the_process_the_watch_is_opened_anew() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.now = sim.now + Duration::from_secs(60);
    sim.input(Input::Timer);
    sim.told();
    sim.probed(Ok(()));
    assert_eq!((sim.aborts, sim.told()), (1, vec!["alive".into()]));
    sim.paused();
    assert_eq!(sim.watches(), Some("7"));
}

#[test]
fn kubernetes_point_6_one_trouble_is_told_once_and_not_by_the_probe_too() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.pass(INTERVAL, None);
    assert!(sim.probing);
    sim.told();
    sim.close(Err(failure(FailureKind::Other)));
    sim.probed(Err(broken(ErrorCode::BackendUnavailable)));
    assert_eq!(sim.news(), ["backend-unavailable"]);
    let probes = sim.probes;
    sim.paused();
    assert_eq!(sim.probes, probes, "the watch tells first");
}
