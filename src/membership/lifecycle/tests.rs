use super::*;
use crate::event::Publisher;
use crate::membership::event::MemberState;
use crate::membership::message::{LabelHash, MessageWriter};
use crate::membership::record::{Life, Record, State};
use crate::membership::wire::part::Part;
use crate::provider::ProviderEvent;
use crate::testkit::Harness;
use crate::topology::Revision;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn node(name: &str) -> Arc<ClusterNode> {
    Arc::new(ClusterNode::builder(name, "h", 7000).incarnation(5).build().unwrap())
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn new(counts: bool) -> Membership {
    Membership::new(Settings::lan("test"), counts)
}

fn started() -> Membership {
    let mut membership = new(true);
    membership.start((node("n0"), 7946), vec![], 1, at(0)).unwrap();
    membership
}

fn effects(membership: &mut Membership) -> Vec<Effect> {
    std::iter::from_fn(|| membership.effect()).collect()
}

/// What n1 says of another node.
fn said(name: &str, state: State, now: Timestamp) -> Input {
    let mut writer = MessageWriter::new(LabelHash::of("test"), &Life { id: id("n1"), incarnation: 5 });
    let record = Record::new(node(name), u64::from(state != State::Up), state, 0).unwrap();
    writer.part(&Part::Record(record.reached_at(7946)), now);
    Input::Datagram { from: Place::new("h", 7946), bytes: writer.into_bytes() }
}

#[test]
fn m1_1_m1_2_a_membership_runs_from_its_start_to_its_end_and_may_be_started_again() {
    let mut membership = new(true);
    assert!(!membership.is_running() && membership.next_at().is_none());
    for _ in 0..2 {
        membership.start((node("n0"), 7946), vec![], 1, at(0)).unwrap();
        assert!(membership.is_running() && membership.next_at().is_some() && membership.machine().is_some());
        assert_eq!(
            membership.start((node("n0"), 7946), vec![], 1, at(0)),
            Err(NotDone::AlreadyStarted),
            "there is one at a time"
        );
        // Nobody has to be told.
        membership.stop(at(10)).unwrap();
        assert!(!membership.is_running() && membership.next_at().is_none() && membership.machine().is_none());
        let told = effects(&mut membership);
        assert!(told.contains(&Effect::Do(Output::Event(Event::Left { at: at(10) }))), "{told:?}");
    }
}

#[test]
fn m1_3_before_the_start_and_after_the_end_each_input_fails_as_not_started() {
    let mut membership = new(true);
    for round in 0..2 {
        for _ in 0..2 {
            assert_eq!(membership.handle(at(0), Input::Time), Err(NotDone::NotStarted));
            assert_eq!(membership.handle(at(0), said("n2", State::Up, at(0))), Err(NotDone::NotStarted));
            assert_eq!(membership.stop(at(0)), Err(NotDone::NotStarted));
            assert_eq!(membership.describe(node("n0"), at(0)), Err(NotDone::NotStarted));
            assert_eq!(membership.pin(id("x"), None, at(0)), Err(NotDone::NotStarted));
            assert_eq!(membership.lift(id("x"), at(0)), Err(NotDone::NotStarted));
            assert_eq!(effects(&mut membership), []);
        }
        if round == 0 {
            membership.start((node("n0"), 7946), vec![], 1, at(0)).unwrap();
            membership.stop(at(0)).unwrap();
            effects(&mut membership);
        }
    }
    assert_eq!(NotDone::NotStarted.code(), "not-started");
}

#[test]
fn m1_3_a_node_that_nobody_could_hear_of_is_not_started() {
    let mut membership = new(true);
    let large = ClusterNode::builder("n0", "h", 1).metadata("x", "y".repeat(512)).build().unwrap();
    assert_eq!(membership.start((Arc::new(large), 1), vec![], 1, at(0)), Err(NotDone::TooLarge));
    let late = ClusterNode::builder("n0", "h", 1).incarnation(u64::MAX).build().unwrap();
    assert_eq!(membership.start((Arc::new(late), 1), vec![], 1, at(0)), Err(NotDone::Incarnation));
    assert!(!membership.is_running());
    let mut running = started();
    let large = ClusterNode::builder("n0", "h", 1).metadata("x", "y".repeat(512)).build().unwrap();
    assert_eq!(running.describe(Arc::new(large.clone()), at(1)), Err(NotDone::TooLarge));
    assert_eq!(new(true).describe(Arc::new(large), at(1)), Err(NotDone::NotStarted));
    assert_eq!(running.describe(node("n0"), at(1)), Ok(()));
    for why in [NotDone::NotStarted, NotDone::AlreadyStarted, NotDone::MetricsDisabled, NotDone::TooLarge] {
        assert!(why.to_string().contains(": "), "{why} says what to do");
    }
}

#[test]
fn m1_5_m3_5_members_and_quarantine_are_readable_before_the_start_while_it_runs_and_after_the_end() {
    let mut membership = new(true);
    assert_eq!((membership.members().len(), membership.quarantined(at(0)).len()), (0, 0));
    membership.start((node("n0"), 7946), vec![], 1, at(0)).unwrap();
    membership.handle(at(1), said("n1", State::Up, at(1))).unwrap();
    membership.handle(at(300), Input::Time).unwrap();
    membership.pin(id("x"), None, at(300)).unwrap();
    assert_eq!((membership.members().len(), membership.quarantined(at(300)).len()), (2, 1));
    membership.stop(at(400)).unwrap();
    membership.handle(at(1500), Input::Time).unwrap();
    assert!(!membership.is_running());
    assert_eq!(membership.quarantined(at(9999)).len(), 1);
    assert!(membership.members().contains("n1"), "as they were last");
    assert_eq!(membership.converged(), None);
}

#[test]
fn m5_1_an_update_updates_the_metrics() {
    let mut membership = started();
    membership.handle(at(1), said("n1", State::Up, at(1))).unwrap();
    membership.handle(at(250), said("n2", State::Up, at(250))).unwrap();
    membership.handle(at(500), said("n2", State::Left, at(500))).unwrap();
    membership.handle(at(800), Input::Time).unwrap();
    let metrics = membership.metrics().unwrap();
    assert_eq!((metrics.members, metrics.updated_at), (2, Some(at(500))));
    assert_eq!((metrics.updates, metrics.joined, metrics.left, metrics.died), (3, 3, 1, 0));
    assert!(metrics.datagrams > 0 && metrics.datagram_bytes > 20 * metrics.datagrams);
}

#[test]
fn m5_1_each_event_is_counted_once_and_in_one_place() {
    use crate::membership::event::Scarce;
    use crate::membership::message::Unusable;
    use crate::membership::quarantine::Refusal;
    use MemberState::{Dead, Left, Suspect, Up};
    let transition = |from, to| Event::Transition { at: at(1), node: node("n1"), from, to };
    let refusal = || Refusal::KeptOut { left: None };
    let events = [
        (transition(Some(Up), Suspect), 0),
        (transition(None, Suspect), 0),
        (transition(Some(Suspect), Up), 1),
        (transition(Some(Suspect), Dead), 8),
        (transition(Some(Up), Dead), 8),
        (Event::TurnedAway { at: at(1), node: id("n1"), refusal: refusal() }, 2),
        (Event::Refused { at: at(1), refusal: refusal() }, 3),
        (Event::Unusable { from: None, why: Unusable::OtherCluster }, 4),
        (Event::Isolated { at: at(1) }, 5),
        (Event::StoodStill { at: at(1) }, 6),
        (Event::NotApplied { at: at(1), number: 1, failures: 3, why: String::new() }, 7),
        (transition(None, Up), 8),
        (transition(Some(Suspect), Left), 8),
        (Event::Reached { at: at(1) }, 8),
        (Event::NoRoom { at: at(1), of: Scarce::Members }, 8),
    ];
    for (event, counter) in events {
        let mut metrics = GossipMetrics::default();
        metrics.count(&event);
        let m = &metrics;
        let kept_out = [m.turned_away, m.refused, m.unusable, m.isolations, m.standstills, m.not_applied];
        let counted: Vec<u64> = [m.suspicions, m.contradictions].into_iter().chain(kept_out).collect();
        let expected: Vec<u64> = (0..8).map(|n| u64::from(n == counter)).collect();
        assert_eq!(counted, expected, "{event:?}");
    }
}

#[test]
fn m1_2_m4_4_what_could_not_be_applied_in_a_former_life_is_not_offered_in_the_next_one() {
    let mut membership = started();
    effects(&mut membership);
    membership.applied(1, Err("the hub is full".into()), at(5));
    membership.stop(at(10)).unwrap();
    assert_eq!((membership.members().len(), membership.metrics().unwrap().updates), (1, 1));
    // It has to ask its seed, and has nothing to announce yet.
    membership.start((node("n0"), 7946), vec![Place::new("s", 7946)], 1, at(20)).unwrap();
    assert_eq!((membership.members().len(), membership.metrics().unwrap().updates), (0, 0));
    membership.handle(at(300), Input::Time).unwrap();
    assert!(!effects(&mut membership).iter().any(|effect| matches!(effect, Effect::Apply(_))));
}

#[test]
fn m5_3_while_nothing_is_counted_asking_for_metrics_fails_every_time() {
    let mut membership = new(false);
    membership.start((node("n0"), 7946), vec![], 1, at(0)).unwrap();
    for _ in 0..3 {
        assert_eq!(membership.metrics(), Err(NotDone::MetricsDisabled));
    }
    membership.stop(at(1)).unwrap();
    assert_eq!(membership.metrics(), Err(NotDone::MetricsDisabled));
}

#[test]
fn m4_4_m5_4_what_the_host_could_not_apply_is_told_with_its_time_and_offered_again() {
    let mut membership = started();
    let offered = |effects: &[Effect]| {
        let numbers = effects.iter().filter_map(|effect| match effect {
            Effect::Apply(update) => Some(update.number),
            _ => None,
        });
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(offered(&effects(&mut membership)), [1]);
    membership.applied(1, Err("the hub is full".into()), at(5));
    let (number, failures, why) = (1, 1, "the hub is full".to_owned());
    assert_eq!(
        effects(&mut membership),
        [Effect::Do(Output::Event(Event::NotApplied { at: at(5), number, failures, why }))]
    );
    assert!(membership.next_at().is_some_and(|next| next <= at(205)));
    let machine = membership.machine().unwrap().next_at();
    assert_eq!(membership.next_at(), membership.applying.next_at().map(|again| again.min(machine)));
    membership.handle(at(205), Input::Time).unwrap();
    assert_eq!(offered(&effects(&mut membership)), [1]);
    membership.applied(1, Ok(()), at(206));
    membership.handle(at(700), Input::Time).unwrap();
    assert_eq!((offered(&effects(&mut membership)).len(), membership.metrics().unwrap().not_applied), (0, 1));
}

#[test]
fn m5_2_m5_4_m5_5_whoever_has_subscribed_receives_transitions_and_updates_with_their_times() {
    let mut membership = started();
    let publisher = Publisher::new();
    let (first, second) = (publisher.subscribe(100), publisher.subscribe(100));
    membership.handle(at(250), said("n2", State::Up, at(250))).unwrap();
    for effect in effects(&mut membership) {
        if let Effect::Do(Output::Event(event)) = effect {
            publisher.publish(event);
        }
    }
    for mut stream in [first, second] {
        let received: Vec<Event> = std::iter::from_fn(|| stream.try_recv().ok()).collect();
        assert!(received.iter().any(|event| {
            matches!(event, Event::Transition { at: time, node, from: None, to: MemberState::Up }
                if *time == at(250) && node.id().as_str() == "n2")
        }));
        assert!(received.iter().any(|event| matches!(event, Event::Topology(update) if update.at == at(250))));
    }
}

#[test]
fn m4_5_an_update_becomes_a_snapshot_of_the_hub() {
    let mut membership = started();
    let mut hub = Harness::new(&[("gossip", 1)]);
    membership.handle(at(250), said("n2", State::Up, at(250))).unwrap();
    for effect in effects(&mut membership) {
        if let Effect::Apply(update) = effect {
            let revision = Revision::new(update.number.to_string());
            hub.event("gossip", ProviderEvent::snapshot(update.members.clone(), revision));
        }
    }
    hub.advance(Duration::from_secs(1));
    let snapshot = hub.snapshot().expect("a snapshot");
    assert_eq!(snapshot.members, *membership.members());
}

#[test]
fn m3_5_of_more_rulings_than_there_may_be_one_more_fails_and_one_that_overrules_does_not() {
    let mut membership = started();
    for n in 0..MOST {
        membership.pin(id(&format!("x{n}")), None, at(1)).unwrap();
    }
    effects(&mut membership);
    assert_eq!(membership.pin(id("y"), None, at(2)), Err(NotDone::TooManyRulings));
    assert_eq!(membership.lift(id("y"), at(2)), Err(NotDone::TooManyRulings));
    assert_eq!((effects(&mut membership), membership.lift(id("x7"), at(2))), (vec![], Ok(())));
    assert_eq!(membership.quarantined(at(3)).len(), MOST - 1);
}
