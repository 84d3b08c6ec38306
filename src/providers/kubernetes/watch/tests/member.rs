//! Member mode, and how lines become events.

use super::*;

#[test]
fn kubernetes_point_1_lines_at_hand_together_are_one_event_and_a_lone_one_goes_at_once() {
    let mut sim = Sim::settled(&["a"], "7");
    for n in 0..500 {
        sim.part(added(&format!("n{n}"), &format!("{}", 100 + n)));
    }
    assert!(sim.told().is_empty());
    sim.flush();
    let [ProviderEvent::Changes { changes, revision }] = &sim.events[..] else { panic!("{:?}", sim.events) };
    assert_eq!((changes.len(), revision.as_str()), (500, Some("599")));
    sim.events.clear();
    sim.flush();
    assert!(sim.told().is_empty(), "once");
    sim.line(deleted("a", "600"));
    assert_eq!(sim.told(), ["-a@600"]);
}

#[test]
fn kubernetes_point_1_lines_that_never_cease_are_told_within_100_ms_and_1000_changes() {
    let mut sim = Sim::settled(&[], "7");
    for n in 0..1000 {
        sim.part(added(&format!("n{n}"), "8"));
    }
    assert_eq!(sim.events.len(), 1);
    sim.events.clear();
    sim.part(added("a", "9"));
    sim.now = sim.now + Duration::from_millis(100);
    sim.part(added("b", "10"));
    assert_eq!(sim.told(), ["+a +b@10"]);
    sim.part(added("c", "11"));
    sim.pass(Duration::from_millis(150), None);
    assert_eq!(sim.told(), ["+c@11"], "also if nobody asks for it");
}

#[test]
fn kubernetes_point_8_a_line_that_changes_no_member_is_no_event_and_advances_the_version() {
    let mut sim = Sim::settled(&["a"], "7");
    sim.line(added("a", "8"));
    sim.line(deleted("unknown", "9"));
    assert!(sim.told().is_empty());
    sim.pass(2 * SECOND, None);
    sim.close(Ok(()));
    assert_eq!(sim.watches(), Some("9"));
}

#[test]
fn kubernetes_a_registered_node_that_is_missing_is_told_each_time_and_its_return_once() {
    let mut sim = Sim::with(settings(), Some("me"), Standing::Joining, 1);
    sim.page(page("7", &["a"], None));
    sim.open();
    assert!(sim.sightings.is_empty(), "it is not registered yet");
    sim.standing = Standing::Registered;
    sim.line(added("b", "8"));
    sim.line(added("c", "9"));
    assert_eq!(sim.sightings, [Sighting::Absent, Sighting::Absent]);
    sim.line(added("me", "10"));
    sim.line(added("d", "11"));
    assert_eq!(sim.sightings[2..], [Sighting::Present]);
    sim.line(deleted("me", "12"));
    sim.close(Err(failure(FailureKind::Gone)));
    sim.paused();
    sim.page(page("20", &[], None));
    assert_eq!(sim.sightings[3..], [Sighting::Absent, Sighting::Absent]);
    assert_eq!(sim.news().last().unwrap(), "[]@20", "nobody is believed all the same");
    sim.standing = Standing::Left;
    sim.open();
    sim.line(added("e", "21"));
    assert_eq!(sim.sightings.len(), 5);
}

#[test]
fn kubernetes_a_registered_node_that_never_shows_is_told_although_nothing_happens() {
    let mut sim = Sim::with(settings(), Some("me"), Standing::Joining, 1);
    sim.page(page("7", &["a"], None));
    sim.open();
    sim.standing = Standing::Registered;
    sim.pass(Duration::from_secs(20), Some(true));
    assert!((3..=5).contains(&sim.sightings.len()), "{:?}", sim.sightings);
    assert!(sim.sightings.iter().all(|sighting| *sighting == Sighting::Absent));
}

#[test]
fn kubernetes_another_process_under_the_local_id_is_told_and_an_earlier_life_is_not() {
    let shown = |incarnation, address| {
        let node = ClusterNode::builder("me", address, 1).incarnation(incarnation).build().unwrap();
        let content = Content::Pod(Some(Arc::new(node)));
        Line::Upsert(Object { name: "me".into(), uid: "1".into(), content }, "8".into())
    };
    let mut sim = Sim::with(settings(), Some("me"), Standing::Registered, 1);
    sim.page(page("7", &["me"], None));
    sim.open();
    assert!(sim.sightings.is_empty());
    sim.line(shown(0, "elsewhere"));
    sim.line(shown(0, "h"));
    sim.line(shown(5, "elsewhere"));
    assert_eq!(sim.sightings, [Sighting::Taken, Sighting::Present, Sighting::Taken]);
    sim.line(shown(5, "h"));
    assert_eq!(sim.sightings.last(), Some(&Sighting::Present), "the local node's own life is unknown");
}
