//! What one member does, input by input.

mod outside;

use super::*;
use crate::membership::event::{MemberState, Scarce};
use crate::membership::probe::PingNumber;
use crate::membership::quarantine::Refusal;
use crate::membership::records::Slot;
use crate::membership::rulings::{self, Ruling, Sentence};
use crate::membership::rumours::{Class, Subject};
use crate::membership::settling::TopologyUpdate;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + millis)
}

fn place(name: &str) -> Place {
    Place::new(name, 7946)
}

fn record(name: &str, incarnation: u64, version: u64, state: State) -> Record {
    let node = ClusterNode::builder(name, name, 7000).incarnation(incarnation).build().unwrap();
    Record::new(Arc::new(node), version, state, 0).unwrap().reached_at(7946)
}

fn life(name: &str, incarnation: u64) -> Life {
    Life { id: NodeId::new(name).unwrap(), incarnation }
}

/// A member with its own clock, and what it did last.
struct Member {
    machine: Machine,
    now: Timestamp,
}

impl Member {
    /// n0, in its life 5, alone or with seeds.
    fn new(seeds: &[&str]) -> Self {
        Self::in_life(5, seeds)
    }

    fn in_life(incarnation: u64, seeds: &[&str]) -> Self {
        let node = Arc::new(ClusterNode::builder("n0", "n0", 7000).incarnation(incarnation).build().unwrap());
        let seeds = seeds.iter().map(|name| place(name)).collect();
        let machine = Machine::new(Settings::lan("test"), (node, 7946), seeds, 1, at(0)).unwrap();
        Self { machine, now: at(0) }
    }

    /// One that knows these to be up.
    fn with(names: &[&str]) -> Self {
        let mut member = Self::new(&[]);
        for name in names {
            member.datagram(name, &[Part::Record(record(name, 1, 0, State::Up))]);
        }
        member.pass(1000);
        member
    }

    fn bytes(&self, from: &str, parts: &[Part]) -> Vec<u8> {
        let mut writer = MessageWriter::new(LabelHash::of("test"), &life(from, 1));
        parts.iter().for_each(|part| writer.part(part, self.now));
        writer.into_bytes()
    }

    fn datagram(&mut self, from: &str, parts: &[Part]) {
        let bytes = self.bytes(from, parts);
        self.machine.handle(self.now, Input::Datagram { from: place(from), bytes });
    }

    fn asked(&mut self, from: &str, parts: &[Part]) {
        let bytes = self.bytes(from, parts);
        self.machine.handle(self.now, Input::Asked { channel: 9, bytes });
    }

    fn answered(&mut self, question: Question, from: &str, parts: &[Part]) {
        let answer = Some(self.bytes(from, parts));
        self.machine.handle(self.now, Input::Answered { question, answer });
    }

    /// n1 has found it dead, and refuses to let it in for so many seconds.
    fn expel(&mut self, seconds: u64) {
        self.datagram("n1", &[found_dead(self, seconds)]);
        let accusers = std::iter::once(NodeId::new("n1").unwrap()).collect();
        let left = Duration::from_secs(seconds);
        self.datagram("n1", &[Part::Refused(Refusal::Quarantined { accusers, left })]);
    }

    /// So many milliseconds pass, in which nothing arrives.
    fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.machine.next_at() <= end {
            self.now = self.machine.next_at().max(self.now);
            self.machine.handle(self.now, Input::Time);
        }
        self.now = end;
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.machine.output()).collect()
    }

    /// The parts of all datagrams sent since, with whom they were sent to.
    fn sent(&mut self) -> Vec<(String, Part)> {
        let now = self.now;
        let parts = self.outputs().into_iter().filter_map(|output| match output {
            Output::Send { to, bytes } => Some((to, read_message(&bytes, LabelHash::of("test"), now).unwrap().parts)),
            _ => None,
        });
        parts.flat_map(|(to, parts)| parts.into_iter().map(move |part| (to.host().to_owned(), part))).collect()
    }

    /// The questions asked since.
    fn questions(&mut self) -> Vec<(Question, String, Vec<Part>)> {
        let now = self.now;
        let asked = self.outputs().into_iter().filter_map(|output| match output {
            Output::Ask { question, to, bytes } => {
                Some((question, to.host().to_owned(), read_message(&bytes, LabelHash::of("test"), now).unwrap().parts))
            }
            _ => None,
        });
        asked.collect()
    }

    /// The answer to the question put last.
    fn answer(&mut self) -> Vec<Part> {
        let now = self.now;
        let answers = self.outputs().into_iter().filter_map(|output| match output {
            Output::Answer { channel: 9, bytes } => {
                Some(read_message(&bytes, LabelHash::of("test"), now).unwrap().parts)
            }
            _ => None,
        });
        answers.last().expect("an answer")
    }

    fn events(&mut self) -> Vec<Event> {
        let events = self.outputs().into_iter().filter_map(|output| match output {
            Output::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    fn state(&self, name: &str) -> Option<State> {
        self.machine.table().get(&NodeId::new(name).unwrap()).map(|record| record.state().clone())
    }

    fn members(&self) -> Vec<String> {
        self.machine.members().iter().map(|node| node.id().to_string()).collect()
    }
}

fn suspected(state: Option<State>) -> bool {
    matches!(state, Some(State::Suspect(_)))
}

fn accused_by(name: &str) -> State {
    State::Suspect(std::iter::once(NodeId::new(name).unwrap()).collect())
}

fn dead(until: u64) -> State {
    let accusers = std::iter::once(NodeId::new("n9").unwrap()).collect();
    State::Dead { accusers, quarantined_until: at(until) }
}

fn transitions(events: &[Event]) -> Vec<(String, Option<MemberState>, MemberState)> {
    let transitions = events.iter().filter_map(|event| match event {
        Event::Transition { node, from, to, .. } => Some((node.id().to_string(), *from, *to)),
        _ => None,
    });
    transitions.collect()
}

fn updates(events: &[Event]) -> Vec<&TopologyUpdate> {
    let updates = events.iter().filter_map(|event| match event {
        Event::Topology(update) => Some(&**update),
        _ => None,
    });
    updates.collect()
}

#[test]
fn m1_1_without_seeds_a_node_is_the_first_member_at_once_and_knows_itself() {
    let mut member = Member::new(&[]);
    assert!(member.machine.is_member());
    assert_eq!(member.members(), ["n0"]);
    let events = member.events();
    assert!(matches!(events[0], Event::Joined { .. }));
    assert_eq!(updates(&events)[0].joined[0].incarnation(), 5);
    assert!(member.machine.converged().is_some(), "with itself");
}

#[test]
fn m2_1_a_node_with_seeds_asks_to_be_let_in_until_somebody_does() {
    let mut member = Member::new(&["n1", "n2"]);
    member.pass(0);
    let asked = member.questions();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|(_, _, parts)| matches!(parts[..], [Part::Join { .. }, Part::Record(_)])));
    member.machine.handle(member.now, Input::Answered { question: asked[0].0, answer: None });
    assert!(!member.machine.is_member() && member.members().is_empty());
    member.pass(5000);
    let again = member.questions();
    assert!((10..=14).contains(&again.len()), "{}", again.len());
    let known = [Part::Welcome { incarnation: 0, version: 0 }, Part::Record(record("n1", 1, 0, State::Up))];
    member.answered(again.last().unwrap().0, "n1", &known);
    assert!(member.machine.is_member());
    assert_eq!(member.members(), ["n0", "n1"]);
}

#[test]
fn m4_2_whoever_is_not_in_yet_announces_no_cluster_of_the_few_it_has_heard_of() {
    let mut member = Member::new(&["n1"]);
    member.pass(0);
    let (asked, ..) = member.questions().remove(0);
    member.datagram("n1", &[Part::Record(record("n1", 1, 0, State::Up))]);
    member.pass(500);
    assert_eq!((updates(&member.events()).len(), member.members()), (0, vec![]));
    let known = [record("n1", 1, 0, State::Up), record("n2", 1, 0, State::Up)].map(Part::Record);
    let welcome = [&[Part::Welcome { incarnation: 0, version: 0 }], &known[..]].concat();
    member.answered(asked, "n1", &welcome);
    let events = member.events();
    let updates = updates(&events);
    assert_eq!((updates.len(), updates[0].joined.len()), (1, 3), "all at once, and itself with them");
}

#[test]
fn m1_4_m2_1_whoever_was_let_in_asks_twice_more_what_it_missed_meanwhile() {
    let mut member = Member::new(&["n1"]);
    member.pass(0);
    let (asked, ..) = member.questions().remove(0);
    let known = [Part::Welcome { incarnation: 0, version: 0 }, Part::Record(record("n1", 1, 0, State::Up))];
    member.answered(asked, "n1", &known);
    let exchanges = |member: &mut Member| {
        let questions = member.questions();
        questions.iter().filter(|(_, to, parts)| to == "n1" && matches!(parts[..], [Part::Buckets(_)])).count()
    };
    for (millis, expected) in [(299, 0), (1, 1), (699, 0), (1, 1), (1500, 0)] {
        member.pass(millis);
        assert_eq!(exchanges(&mut member), expected, "{:?}", member.now);
    }
}

#[test]
fn m2_1_m2_2_whoever_asks_is_joining_is_pinged_and_is_up_once_it_answers() {
    let mut member = Member::new(&[]);
    member.outputs();
    let joiner = record("n1", 1, 0, State::Up);
    member.asked("n1", &[Part::Join { label: "test".into() }, Part::Record(joiner)]);
    let outputs = member.outputs();
    let joining = transitions(
        &outputs
            .iter()
            .filter_map(|output| match output {
                Output::Event(event) => Some(event.clone()),
                _ => None,
            })
            .collect::<Vec<_>>(),
    );
    assert_eq!(joining, [("n1".into(), None, MemberState::Joining)]);
    assert_eq!(member.members(), ["n0"], "it has not answered yet");
    member.pass(300);
    let pings: Vec<_> = member
        .sent()
        .into_iter()
        .filter_map(|(to, part)| match part {
            Part::Ping { number, subject, .. } if to == "n1" => Some((number, subject)),
            _ => None,
        })
        .collect();
    assert_eq!(pings.len(), 1, "again after 200 ms: one packet may be lost");
    assert_eq!(pings[0].1, life("n1", 1));
    let (number, confirmed) = (pings[0].0, crate::membership::convergence::Confirmed::All);
    member.datagram("n1", &[Part::Acknowledgement { number, life: life("n1", 1), digest: 0, hash: 0, confirmed }]);
    assert_eq!(member.state("n1"), Some(State::Up));
    member.pass(200);
    assert_eq!(member.members(), ["n0", "n1"]);
}

#[test]
fn m2_1_whoever_asked_and_never_answers_is_forgotten() {
    let mut member = Member::new(&[]);
    member.asked("n1", &[Part::Join { label: "test".into() }, Part::Record(record("n1", 1, 0, State::Up))]);
    assert!(matches!(member.answer()[..], [Part::Welcome { .. }, Part::Record(_)]));
    member.pass(10_000);
    let pings = member.sent().into_iter().filter(|(to, part)| to == "n1" && matches!(part, Part::Ping { .. })).count();
    assert_eq!((pings, member.state("n1")), (4, None), "beside the first one");
}

#[test]
fn m2_3_m2_4_m3_1_m3_2_whoever_answers_nobody_is_suspected_and_dies() {
    let mut member = Member::with(&["n1"]);
    member.events();
    member.pass(3000);
    assert!(suspected(member.state("n1")));
    assert_eq!(member.members(), ["n0", "n1"], "a suspect stays a member");
    member.pass(10_000);
    let events = member.events();
    let states: Vec<_> = transitions(&events).into_iter().map(|(_, from, to)| (from, to)).collect();
    assert_eq!(
        states,
        [(Some(MemberState::Up), MemberState::Suspect), (Some(MemberState::Suspect), MemberState::Dead)]
    );
    let quarantined = events.iter().find_map(|event| match event {
        Event::Quarantined { at, until, .. } => Some(until.since(*at)),
        _ => None,
    });
    assert_eq!(quarantined, Some(Duration::from_secs(10)));
    assert_eq!(updates(&events).last().unwrap().dead[0].id().as_str(), "n1");
    assert_eq!(member.members(), ["n0"]);
}

#[test]
fn m3_1_a_probe_asks_others_and_over_the_reliable_channel_before_it_accuses() {
    let mut member = Member::with(&["n1", "n2", "n3", "n4", "n5"]);
    member.outputs();
    member.pass(2000);
    let outputs = member.outputs();
    let requests = outputs.iter().filter(|output| match output {
        Output::Send { bytes, .. } => read_message(bytes, LabelHash::of("test"), at(0))
            .unwrap()
            .parts
            .iter()
            .any(|part| matches!(part, Part::PingRequest { .. })),
        _ => false,
    });
    assert!(requests.count() >= 3);
    assert!(outputs.iter().any(|output| matches!(output, Output::Ask { .. })));
}

#[test]
fn m2_2_a_suspect_that_contradicts_is_up_again_and_is_told_what_is_said_of_it() {
    let mut member = Member::with(&["n1", "n2"]);
    member.outputs();
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, accused_by("n2")))]);
    assert!(suspected(member.state("n1")));
    let told = member.sent();
    assert!(
        told.iter().any(|(to, part)| to == "n1" && matches!(part, Part::Record(said) if said.id().as_str() == "n1"))
    );
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Up))]);
    assert_eq!(member.state("n1"), Some(State::Up));
}

#[test]
fn m2_2_a_member_that_hears_of_itself_as_suspected_contradicts_with_a_higher_version() {
    let mut member = Member::with(&["n1"]);
    member.datagram("n1", &[Part::Record(record("n0", 5, 3, accused_by("n1")))]);
    assert_eq!((member.machine.own().version(), member.state("n0")), (4, Some(State::Up)));
    member.datagram("n1", &[Part::Record(record("n0", 4, 9, accused_by("n1")))]);
    assert_eq!(member.machine.own().version(), 4, "what is said of a former life says nothing");
}

#[test]
fn m3_3_m3_4_a_quarantined_node_is_refused_with_the_reason_and_let_in_afterwards() {
    let mut member = Member::with(&["n1", "n2"]);
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, accused_by("n2")))]);
    member.pass(2000);
    let until = member.now.since(at(0)).as_millis() as u64 + 10_000;
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, dead(until)))]);
    assert!(matches!(member.state("n1"), Some(State::Dead { .. })));
    let join = |life| [Part::Join { label: "test".into() }, Part::Record(record("n1", life, 0, State::Up))];
    member.asked("n1", &join(2));
    let turned_away = |event: &Event| matches!(event, Event::TurnedAway { node, .. } if node.as_str() == "n1");
    assert!(member.events().iter().any(turned_away));
    member.asked("n1", &join(2));
    let Part::Refused(Refusal::Quarantined { left, .. }) = &member.answer()[0] else { panic!("let in") };
    assert_eq!(*left, Duration::from_secs(10));
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Up))]);
    assert!(
        member.sent().iter().any(|(to, part)| to == "n1" && matches!(part, Part::Refused(_))),
        "in a datagram, too"
    );
    assert!(matches!(member.state("n1"), Some(State::Dead { .. })));
    member.pass(10_000);
    member.asked("n1", &join(2));
    assert!(matches!(member.answer()[0], Part::Welcome { incarnation: 1, version: 0 }));
}

#[test]
fn m3_4_a_member_that_hears_of_its_own_death_contradicts_and_where_it_is_refused_waits_for_its_quarantine() {
    let mut member = Member::with(&["n1"]);
    member.events();
    let quarantined = [Part::Refused(Refusal::Quarantined {
        accusers: std::iter::once(NodeId::new("n1").unwrap()).collect(),
        left: Duration::from_secs(4),
    })];
    member.datagram("n1", &quarantined);
    assert!(member.machine.is_member(), "nobody has said that it is dead");
    member.datagram("n1", &[found_dead(&member, 4)]);
    // It may be the word of one alone.
    assert!(member.machine.is_member() && member.machine.own().version() == 1);
    member.events();
    member.datagram("n1", &quarantined);
    assert!(!member.machine.is_member());
    let until = member.now + Duration::from_secs(4);
    assert!(member.events().contains(&Event::Expelled { at: member.now, until }));
    member.pass(3999);
    assert!(!member.machine.is_member());
    member.pass(1);
    assert!(member.machine.is_member());
    assert_eq!(member.machine.own().version(), 2);
}

#[test]
fn m3_4_a_member_whose_contradiction_of_its_death_nobody_shares_waits_when_it_is_found_dead_again() {
    for is_agreed in [false, true] {
        let mut member = Member::with(&["n1"]);
        member.datagram("n1", &[found_dead(&member, 4)]);
        if is_agreed {
            let digest = member.machine.table().digest().all();
            member.datagram("n1", &[Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest }]);
        }
        member.datagram("n1", &[found_dead_in(&member, 1, 4)]);
        assert_eq!(member.machine.is_member(), is_agreed);
    }
}

#[test]
fn m3_3_another_process_under_an_id_is_refused_while_the_first_one_answers() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    let other = ClusterNode::builder("n1", "elsewhere", 7000).incarnation(2).build().unwrap();
    let other = Record::new(Arc::new(other), 0, State::Up, 0).unwrap();
    let join = [Part::Join { label: "test".into() }, Part::Record(other)];
    member.asked("n1", &join);
    let number = member.sent().into_iter().find_map(|(to, part)| match part {
        Part::Ping { number, .. } if to == "n1" => Some(number),
        _ => None,
    });
    let confirmed = crate::membership::convergence::Confirmed::All;
    let number = number.expect("the first one is asked");
    member.datagram("n1", &[Part::Acknowledgement { number, life: life("n1", 1), digest: 0, hash: 0, confirmed }]);
    assert_eq!(member.answer()[0], Part::Refused(Refusal::IdTaken { place: place("n1") }));
    member.asked("n1", &join);
    member.outputs();
    member.pass(600);
    assert!(matches!(member.answer()[0], Part::Welcome { .. }), "it did not answer: its place is taken");
}

#[test]
fn m4_2_m4_3_changes_that_come_together_are_one_update_and_without_one_there_is_none() {
    let mut member = Member::with(&["n1"]);
    member.events();
    for name in ["n2", "n3", "n4"] {
        member.datagram("n1", &[Part::Record(record(name, 1, 0, State::Up))]);
    }
    member.datagram("n1", &[Part::Record(record("n4", 1, 0, State::Left))]);
    member.pass(200);
    let events = member.events();
    let joined: Vec<Vec<_>> = updates(&events)
        .iter()
        .map(|update| update.joined.iter().map(|node| node.id().to_string()).collect())
        .collect();
    assert_eq!(joined, [vec!["n2".to_owned()], vec!["n3".to_owned()]]);
    member.datagram("n1", &[Part::Record(record("n3", 1, 0, State::Up))]);
    member.pass(100);
    assert_eq!(updates(&member.events()).len(), 0);
}

#[test]
fn m2_5_what_is_no_message_or_one_of_another_cluster_changes_nothing_and_is_told() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    let (digest, own) = (member.machine.table().digest().clone(), member.machine.own().clone());
    let mut other = MessageWriter::new(LabelHash::of("another"), &life("n1", 1));
    other.part(&Part::Record(record("n7", 1, 0, State::Up)), at(0));
    for bytes in [vec![], vec![1, 2, 3], other.into_bytes()] {
        let inputs = [
            Input::Datagram { from: place("n1"), bytes: bytes.clone() },
            Input::Asked { channel: 9, bytes: bytes.clone() },
            Input::Answered { question: Question(1), answer: Some(bytes) },
        ];
        for input in inputs {
            member.machine.handle(member.now, input);
            let told = member.outputs();
            assert!(
                matches!(told[..], [Output::Event(Event::Unusable { .. }) | Output::Refuse { channel: 9, .. }]),
                "{told:?}"
            );
        }
    }
    assert_eq!((member.machine.table().digest(), member.machine.own()), (&digest, &own));
}

#[test]
fn m1_2_a_member_that_leaves_tells_others_and_waits_a_second_at_the_most() {
    let mut member = Member::with(&["n1", "n2"]);
    member.outputs();
    member.machine.handle(member.now, Input::Leave);
    let told = member.questions();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|(_, _, parts)| matches!(&parts[..], [Part::Record(own)] if own.state() == &State::Left)));
    assert!(told.iter().all(|(_, _, parts)| matches!(&parts[..], [Part::Record(own)] if own.version() == 1)));
    assert_ne!(told[0].0, told[1].0, "each question has a number of its own");
    assert_eq!(member.state("n0"), Some(State::Left));
    member.machine.handle(member.now, Input::Answered { question: told[0].0, answer: None });
    assert!(!member.machine.has_left());
    member.answered(told[1].0, "n2", &[Part::Noted]);
    assert!(member.machine.has_left());
    let mut silent = Member::with(&["n1"]);
    silent.machine.handle(silent.now, Input::Leave);
    silent.pass(999);
    assert!(!silent.machine.has_left());
    silent.pass(1);
    assert!(silent.machine.has_left());
}

#[test]
fn m3_1_a_process_that_stood_still_blames_nobody_for_it() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, accused_by("n2")))]);
    member.events();
    member.now = member.now + Duration::from_secs(60);
    member.machine.handle(member.now, Input::Time);
    let events = member.events();
    assert!(matches!(events[0], Event::StoodStill { .. }), "{events:?}");
    assert!(transitions(&events).is_empty());
    assert_eq!(member.members().len(), 4);
}

#[test]
fn m2_4_a_node_that_hears_from_nobody_is_isolated_says_so_and_announces_no_death_for_a_minute() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.events();
    member.pass(60_000);
    let events = member.events();
    assert!(events.iter().any(|event| matches!(event, Event::Isolated { .. })));
    assert_eq!((member.members().len(), updates(&events).len()), (4, 0));
    member.pass(30_000);
    assert_eq!(member.members(), ["n0"], "what lasts for too long is settled");
    member.datagram("n1", &[Part::Record(record("n1", 2, 0, State::Up))]);
    assert!(member.events().iter().any(|event| matches!(event, Event::Reached { .. })));
}

/// An acknowledgement of that life, with what the sender knows.
fn acknowledgement(number: PingNumber, life: Life, digest: u64) -> Part {
    let confirmed = crate::membership::convergence::Confirmed::All;
    Part::Acknowledgement { number, life, digest, hash: 0, confirmed }
}

/// The last ping that was sent to that node.
fn ping_to(sent: &[(String, Part)], name: &str) -> Option<PingNumber> {
    sent.iter().rev().find_map(|(to, part)| match part {
        Part::Ping { number, .. } if to == name => Some(*number),
        _ => None,
    })
}

#[test]
fn m2_3_a_suspect_that_asks_is_told_what_is_said_of_it() {
    let mut member = Member::with(&["n1", "n2"]);
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, accused_by("n2")))]);
    // Until it is no rumour any more.
    member.pass(4000);
    member.outputs();
    member.datagram("n1", &[Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest: 0 }]);
    let told = member.sent();
    assert!(told.iter().any(|(to, part)| to == "n1" && matches!(part, Part::Record(said) if suspected(Some(said.state().clone())))));
}

#[test]
fn m1_4_a_difference_is_excused_while_something_changes_and_not_because_others_agree() {
    let mut member = Member::with(&["n1", "n2"]);
    let ping = |digest| Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest };
    member.outputs();
    let agreed = member.machine.table().digest().all();
    member.datagram("n1", &[ping(agreed)]);
    member.datagram("n2", &[ping(agreed ^ 1)]);
    assert_eq!(member.questions().len(), 0, "it may be news under way");
    // Nobody is suspected meanwhile: what is known here stays as it is.
    member.now = member.now + Duration::from_secs(3);
    member.datagram("n1", &[ping(agreed)]);
    member.datagram("n2", &[ping(agreed ^ 1)]);
    let asked = member.questions();
    assert!(matches!(&asked[..], [(_, to, parts)] if to == "n2" && matches!(parts[..], [Part::Buckets(_)])));
    member.datagram("n2", &[ping(agreed ^ 1)]);
    assert_eq!(member.questions().len(), 0, "at most one a second");
}

#[test]
fn m1_4_whoever_stood_still_excuses_no_difference() {
    let mut member = Member::with(&["n1", "n2"]);
    member.now = member.now + Duration::from_secs(60);
    member.machine.handle(member.now, Input::Time);
    member.datagram("n1", &[Part::Record(record("n3", 1, 0, State::Up))]);
    member.outputs();
    let digest = member.machine.table().digest().all() ^ 1;
    member.datagram("n2", &[Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest }]);
    assert_eq!(member.questions().len(), 1);
}

#[test]
fn m3_1_probes_that_are_not_answered_directly_are_counted_as_lost_and_make_suspicions_longer() {
    let mut member = Member::with(&["n1"]);
    let shortest = member.machine.bounds().shortest;
    let mut late = None;
    for step in 0..400u32 {
        member.pass(100);
        late = late.or(ping_to(&member.sent(), "n1").map(|number| (number, step)));
        // After the time for a direct answer, and before it is blamed.
        if let Some((number, _)) = late.filter(|(_, sent)| step >= sent + 6) {
            member.datagram("n1", &[acknowledgement(number, life("n1", 1), 0)]);
            late = None;
        }
    }
    assert_eq!(member.state("n1"), Some(State::Up));
    assert!(member.machine.bounds().shortest > shortest * 2);
}

#[test]
fn m2_3_another_node_at_the_place_of_a_member_is_evidence_against_it() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.outputs();
    member.pass(1100);
    let sent = member.sent();
    let (name, number) =
        ["n1", "n2", "n3"].into_iter().find_map(|name| Some((name, ping_to(&sent, name)?))).expect("a ping");
    member.datagram(name, &[acknowledgement(number, life("n9", 1), 0)]);
    assert!(suspected(member.state(name)));
}

#[test]
fn m3_1_a_member_remembers_how_often_it_was_struck() {
    let mut member = Member::with(&["n1"]);
    let node = Arc::clone(member.machine.own().node());
    let said = Record::new(node, 0, accused_by("n1"), 2).unwrap().reached_at(7946);
    member.datagram("n1", &[Part::Record(said)]);
    assert_eq!((member.machine.own().version(), member.machine.own().strikes()), (1, 2));
}

#[test]
fn m3_1_whom_an_isolated_node_suspected_has_its_time_anew_when_somebody_is_heard() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.pass(55_000);
    assert!(suspected(member.state("n2")));
    let digest = member.machine.table().digest().all();
    member.datagram("n1", &[Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest }]);
    member.pass(1000);
    assert!(suspected(member.state("n2")), "its time would have been over for long");
}

/// What is said of n0 at another place.
fn elsewhere(incarnation: u64, version: u64) -> Record {
    let node = ClusterNode::builder("n0", "other", 7000).incarnation(incarnation).build().unwrap();
    Record::new(Arc::new(node), version, State::Up, 0).unwrap().reached_at(7946)
}

#[test]
fn m2_5_whose_id_answers_elsewhere_in_a_later_life_ends_and_says_where() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.datagram("n1", &[Part::Record(elsewhere(9, 0))]);
    let number = ping_to(&member.sent(), "other").expect("it is asked");
    member.datagram("other", &[acknowledgement(number, life("n0", 9), 0)]);
    assert!(member.machine.has_left());
    assert!(member.events().contains(&Event::IdTaken { at: member.now, place: place("other") }));
}

#[test]
fn m2_5_whose_id_is_said_to_live_elsewhere_and_does_not_answer_there_takes_a_later_life() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.datagram("n1", &[Part::Record(elsewhere(9, 0))]);
    member.pass(1000);
    assert_eq!((member.machine.own().node().incarnation(), member.machine.is_member()), (5, true));
    member.pass(600);
    assert_eq!(member.machine.own().node().incarnation(), 10);
    assert!(member.events().iter().any(|event| matches!(event, Event::Succeeded { incarnation: 10, .. })));
}

#[test]
fn m2_5_two_processes_of_one_life_do_not_outbid_each_other_and_the_lesser_one_ends() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    // "other" is greater than "n0", so that its record counts.
    member.datagram("n1", &[Part::Record(elsewhere(5, 0))]);
    assert_eq!(member.machine.own().version(), 0, "nothing to contradict");
    let number = ping_to(&member.sent(), "other").expect("it is asked");
    member.datagram("other", &[acknowledgement(number, life("n0", 5), 0)]);
    assert!(member.machine.has_left());
}

#[test]
fn m1_4_a_lone_seed_that_was_another_life_goes_on_as_a_later_one() {
    let mut member = Member::new(&["n0"]);
    let node = ClusterNode::builder("n0", "n0", 7000).incarnation(8).build().unwrap();
    let said = Record::new(Arc::new(node), 0, State::Left, 0).unwrap().reached_at(7946);
    member.datagram("n1", &[Part::Record(said)]);
    member.pass(100);
    assert_eq!((member.machine.own().node().incarnation(), member.machine.is_member()), (9, true));
}

fn rule(member: &mut Member, name: &str, order: Order) {
    let input = Input::Rule { id: NodeId::new(name).unwrap(), order };
    member.machine.handle(member.now, input);
}

fn join(name: &str) -> [Part; 2] {
    [Part::Join { label: "test".into() }, Part::Record(record(name, 9, 0, State::Up))]
}

#[test]
fn m3_3_m3_4_whom_an_operator_keeps_out_is_refused_until_it_is_lifted_and_everybody_hears_of_it() {
    let mut member = Member::with(&["n1"]);
    rule(&mut member, "n9", Order::Pin(None));
    member.pass(250);
    let told = member.sent();
    assert!(told.iter().any(|(to, part)| to == "n1" && matches!(part, Part::Ruling { id, .. } if id.as_str() == "n9")));
    member.asked("n9", &join("n9"));
    assert_eq!(member.answer(), [Part::Refused(Refusal::KeptOut { left: None })]);
    member.datagram("n9", &[Part::Record(record("n9", 9, 0, State::Up))]);
    let events = member.events();
    assert!(matches!(&events[..], [Event::TurnedAway { refusal: Refusal::KeptOut { .. }, .. }]), "{events:?}");
    assert_eq!(member.machine.quarantined(member.now).len(), 1);
    rule(&mut member, "n9", Order::Lift);
    assert!(member.machine.quarantined(member.now).is_empty());
    member.asked("n9", &join("n9"));
    assert!(matches!(member.answer()[0], Part::Welcome { .. }));
}

#[test]
fn m3_3_a_member_that_is_kept_out_stays_one_until_it_is_gone() {
    let mut member = Member::with(&["n1", "n2"]);
    rule(&mut member, "n1", Order::Pin(None));
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, accused_by("n2")))]);
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Up))]);
    assert_eq!(member.state("n1"), Some(State::Up));
    member.datagram("n1", &[Part::Record(record("n1", 1, 2, State::Left))]);
    member.datagram("n1", &[Part::Record(record("n1", 1, 3, State::Up))]);
    assert_eq!(member.state("n1"), Some(State::Left));
}

/// What is said of n0 by whoever found it dead.
fn found_dead(member: &Member, seconds: u64) -> Part {
    found_dead_in(member, 0, seconds)
}

fn found_dead_in(member: &Member, version: u64, seconds: u64) -> Part {
    let accusers = crate::membership::accusers::Accusers::of(NodeId::new("n1").unwrap());
    let quarantined_until = member.now + Duration::from_secs(seconds);
    let node = Arc::clone(member.machine.own().node());
    let dead = Record::new(node, version, State::Dead { accusers, quarantined_until }, 0).unwrap();
    Part::Record(dead.reached_at(7946))
}

#[test]
fn m3_4_whoever_was_declared_dead_comes_back_when_its_quarantine_is_over_or_lifted() {
    for is_lifted in [false, true] {
        let mut member = Member::with(&["n1"]);
        member.expel(10);
        assert!(!member.machine.is_member());
        member.pass(5000);
        if is_lifted {
            let sentence = crate::membership::rulings::Sentence::LetIn { incarnation: 5, version: 0 };
            let ruling = Ruling::over(None, NodeId::new("n1").unwrap(), sentence);
            member.datagram("n1", &[Part::Ruling { id: NodeId::new("n0").unwrap(), ruling }]);
        } else {
            assert!(!member.machine.is_member());
            member.pass(5100);
        }
        assert!(member.machine.is_member());
        assert_eq!(member.machine.own().version(), 2);
        assert_eq!(member.machine.timers.get(Timer::Return), None);
        let held = member.machine.table().get(member.machine.own().id());
        assert_eq!(held, Some(member.machine.own()));
        let asked = member.questions();
        assert!(asked.iter().any(|(_, to, parts)| to == "n1" && matches!(parts[..], [Part::Buckets(_)])));
    }
}

#[test]
fn m3_3_whoever_comes_back_and_is_refused_goes_on_waiting_and_a_member_that_agreed_with_somebody_does_not() {
    let mut member = Member::with(&["n1"]);
    member.expel(10);
    member.pass(10_100);
    assert!(member.machine.is_member());
    let refused = Part::Refused(Refusal::KeptOut { left: Some(Duration::from_secs(30)) });
    member.datagram("n1", std::slice::from_ref(&refused));
    assert!(!member.machine.is_member());
    member.pass(29_000);
    assert!(!member.machine.is_member());
    member.pass(2000);
    assert!(member.machine.is_member());
    let digest = member.machine.table().digest().all();
    member.datagram("n1", &[Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest }]);
    member.datagram("n1", &[refused]);
    assert!(member.machine.is_member(), "anybody could say so");
}

#[test]
fn m4_1_changed_metadata_are_a_new_version_and_an_update_that_nobody_joins_or_leaves_in() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    let described = ClusterNode::builder("x", "y", 1).kinds(["worker"]).metadata("zone", "a").build().unwrap();
    member.machine.handle(member.now, Input::Describe(Arc::new(described.clone())));
    let events = member.events();
    let updates: Vec<_> = updates(&events);
    assert_eq!(updates.len(), 1);
    let (update, own) = (&updates[0], member.machine.own());
    assert_eq!((update.updated.len(), update.joined.len(), update.left.len()), (1, 0, 0));
    assert_eq!((own.version(), own.node().id().as_str(), own.node().address()), (1, "n0", "n0"));
    assert_eq!(own.node().metadata().collect::<Vec<_>>(), [("zone", "a")]);
    member.machine.handle(member.now, Input::Describe(Arc::new(described)));
    assert_eq!(member.machine.own().version(), 1, "nothing has changed");
}

#[test]
fn m2_5_metadata_that_no_record_has_room_for_change_nothing() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    let described = ClusterNode::builder("x", "y", 1).metadata("large", "x".repeat(513)).build().unwrap();
    member.machine.handle(member.now, Input::Describe(Arc::new(described)));
    assert_eq!((member.machine.own().version(), member.machine.own().node().metadata().len()), (0, 0));
    assert!(matches!(member.events()[..], [Event::NoRoom { .. }]));
}

#[test]
fn m2_5_what_has_to_hold_between_two_steps_is_noticed_when_it_does_not() {
    let broken = |breaks: fn(&mut Machine)| {
        let mut member = Member::with(&["n1"]);
        assert_eq!(member.machine.check(), Ok(()));
        breaks(&mut member.machine);
        member.machine.check().unwrap_err()
    };
    assert!(broken(|machine| (0..9).for_each(|n| machine.round.add(Slot::of(100 + n)))).contains("to be probed"));
    assert!(broken(|machine| machine.own = record("x", 1, 0, State::Up)).contains("none at itself"));
    assert!(
        broken(|machine| {
            for n in 0..9 {
                machine.rumours.spread(Subject::Record(life(&format!("x{n}"), 1).id), Class::Own, Arc::from([]));
            }
        })
        .contains("rumours")
    );
    let mut member = Member::with(&["n1"]);
    member.asked("n9", &join("n9"));
    assert_eq!(member.machine.check(), Ok(()));
    member.machine.settings.joins_per_second = 0;
    assert_eq!(member.machine.check(), Err("1 joiners, and 0 at the most".to_owned()));
    member.machine.settings.joins_per_second = 200;
    ["n5", "n6", "n7", "n8"].iter().for_each(|name| member.asked(name, &join(name)));
    member.machine.settings.joins_per_second = 1;
    assert_eq!(member.machine.check(), Err("5 joiners, and 4 at the most".to_owned()));
}

#[test]
fn m2_4_a_node_that_hears_one_word_now_and_then_judges_the_others_all_the_same() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    for _ in 0..12 {
        member.pass(5000);
        let ping = Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest: 0 };
        member.datagram("looker-on", &[ping]);
    }
    assert_eq!(member.members(), ["n0"]);
}

#[test]
fn m1_4_news_of_life_and_death_go_out_at_once_and_of_who_joins_with_the_beat_of_gossip() {
    let waits = |version: u64, after: State| {
        let mut member = Member::with(&["n1", "n9"]);
        (member.machine.rumours, member.machine.gossiped) = (Rumours::default(), None);
        member.machine.timers.cancel(Timer::Gossip);
        let mut millis = Vec::new();
        for n in 0..2 {
            member.datagram("n1", &[Part::Record(record("n9", 1, version + n, after.clone()))]);
            millis.push(member.machine.timers.get(Timer::Gossip).unwrap().since(member.now).as_millis());
            member.pass(15);
        }
        millis
    };
    // What follows closely waits for the beat of gossip.
    assert_eq!(waits(1, State::Left), [10, 195]);
    assert_eq!(waits(1, State::Up), [200, 185], "changed metadata can wait");
}

#[test]
fn m1_4_an_exchange_that_nobody_answered_is_made_again_without_an_excuse() {
    let mut member = Member::with(&["n1", "n2"]);
    let ping = |digest| Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest };
    member.now = member.now + Duration::from_secs(3);
    let agreed = member.machine.table().digest().all();
    member.datagram("n1", &[ping(agreed)]);
    member.datagram("n2", &[ping(agreed ^ 1)]);
    let (question, ..) = member.questions().pop().expect("an exchange");
    member.machine.handle(member.now, Input::Answered { question, answer: None });
    // Something has just changed, which would be an excuse.
    member.now = member.now + Duration::from_millis(1000);
    member.datagram("n1", &[Part::Record(record("n3", 1, 0, State::Up))]);
    member.outputs();
    let digest = member.machine.table().digest().all() ^ 1;
    member.datagram("n2", &[ping(digest)]);
    assert_eq!(member.questions().len(), 1);
}

#[test]
fn m1_4_a_life_that_an_exchange_tells_of_is_asked_five_times_within_three_periods() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.asked("n1", &[Part::Record(record("n9", 1, 0, State::Up))]);
    assert!(ping_to(&member.sent(), "n9").is_some());
    let mut asked = vec![0];
    let begun = member.now;
    while member.now < begun + Duration::from_secs(5) {
        member.pass(10);
        if ping_to(&member.sent(), "n9").is_some() {
            asked.push(member.now.since(begun).as_millis());
        }
    }
    assert_eq!(asked, [0, 200, 500, 1000, 2000]);
    assert_eq!((member.state("n9"), member.machine.exchanges.unverified()), (None, 0));
}

#[test]
fn m1_5_observers_that_wait_hear_of_a_change_after_five_seconds_that_there_is_none_and_of_the_end() {
    let mut member = Member::new(&[]);
    member.pass(1000);
    member.outputs();
    let observe = |hash| [Part::Observe { hash }];
    member.asked("o", &observe(0));
    let told = member.answer();
    let hash = member.machine.members().hash();
    assert_eq!(told[0], Part::Observed { hash, is_whole: true, gone: vec![] });
    assert_eq!(told.len(), 2, "itself");
    member.asked("o", &observe(hash));
    assert!(member.outputs().iter().all(|output| !matches!(output, Output::Answer { .. })));
    member.pass(4900);
    assert_eq!(member.machine.observers(), 1);
    member.pass(100);
    assert_eq!(member.answer(), [Part::Observed { hash, is_whole: false, gone: vec![] }]);
    member.asked("o", &observe(hash));
    member.datagram("n1", &[Part::Record(record("n1", 1, 0, State::Up))]);
    let both = member.machine.members().hash();
    let told = member.answer();
    assert_eq!(told[0], Part::Observed { hash: both, is_whole: false, gone: vec![] });
    assert!(matches!(&told[1..], [Part::Record(said)] if said.id().as_str() == "n1" && said.gossip_port() == 7946));
    assert!(matches!(&told[1..], [Part::Record(said)] if (said.version(), said.strikes()) == (0, 0)));
    member.asked("o", &observe(both));
    member.pass(200);
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Left))]);
    let gone = vec![crate::membership::wire::part::Gone { id: life("n1", 1).id, is_dead: false }];
    assert_eq!(member.machine.members().hash(), hash);
    assert_eq!(member.answer(), [Part::Observed { hash, is_whole: false, gone }]);
    member.asked("o", &observe(hash));
    member.machine.handle(member.now, Input::Leave);
    assert_eq!(member.answer(), [Part::Noted]);
}

#[test]
fn m2_5_of_more_members_than_there_may_be_the_rest_is_not_taken_and_that_is_told_once_a_minute() {
    let mut member = Member::new(&[]);
    member.machine.table = Table::of_at_most(3);
    member.machine.hear(&member.machine.own().clone(), member.now);
    member.outputs();
    let mut told = 0;
    for n in 1..9 {
        member.datagram(&format!("n{n}"), &[Part::Record(record(&format!("n{n}"), 1, 0, State::Up))]);
        let events = member.events();
        told += events.iter().filter(|event| matches!(event, Event::NoRoom { of: Scarce::Members, .. })).count();
    }
    assert_eq!((member.machine.table().active(), told), (3, 1));
    member.now = member.now + Duration::from_secs(60);
    member.datagram("x", &[Part::Record(record("x", 1, 0, State::Up))]);
    assert!(member.events().iter().any(|event| matches!(event, Event::NoRoom { .. })));
}

#[test]
fn m2_5_whoever_sends_a_joiner_on_and_on_or_always_knows_a_later_life_does_not_keep_it_busy() {
    let elsewhere = Part::Elsewhere(vec![place("n1")]);
    for (answer, is_later) in [(Some(elsewhere), false), (None, true)] {
        let mut member = Member::new(&["n1"]);
        member.pass(0);
        let (mut asked, begun) = (0u64, member.now);
        while member.now < begun + Duration::from_secs(10) {
            for (question, ..) in member.questions() {
                asked += 1;
                let incarnation = if is_later { 100 * asked } else { 0 };
                let welcome = Part::Welcome { incarnation, version: 0 };
                member.answered(question, "n1", &[answer.clone().unwrap_or(welcome)]);
            }
            member.pass(1);
        }
        assert!((10..=100).contains(&asked), "{asked} questions in 10 s");
        assert!(!member.machine.is_member());
    }
}

#[test]
fn m2_5_a_life_after_which_there_is_none_is_waited_out_and_a_version_after_which_there_is_none_ends_the_life() {
    let mut member = Member::with(&["n1"]);
    let greatest = crate::membership::record::GREATEST;
    let said = |incarnation, version| Part::Record(record("n0", incarnation, version, accused_by("n1")));
    member.outputs();
    member.datagram("n1", &[said(5, greatest)]);
    assert_eq!((member.machine.own().node().incarnation(), member.machine.is_member()), (6, false));
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.datagram("n1", &[said(greatest, 0)]);
    let events = member.events();
    assert!(events.contains(&Event::NoRoom { at: member.now, of: Scarce::Incarnations }), "{events:?}");
    member.pass(9900);
    assert_eq!((member.questions().len(), member.machine.own().node().incarnation()), (0, 5));
    member.pass(200);
    assert_eq!(member.questions().len(), 1);
}

#[test]
fn m1_4_a_lone_seed_that_has_to_be_a_later_life_goes_on_alone_when_nobody_answers_whom_it_knew() {
    let mut member = Member::with(&["n1", "n2"]);
    for incarnation in [8, 11] {
        let node = ClusterNode::builder("n0", "n0", 7000).incarnation(incarnation).build().unwrap();
        let left = Record::new(Arc::new(node), 0, State::Left, 0).unwrap().reached_at(7946);
        member.datagram("n1", &[Part::Record(left)]);
        member.pass(3000);
        assert!(!member.machine.is_member(), "it asks as often as before");
        member.pass(3000);
        let own = member.machine.own().node().incarnation();
        assert_eq!((own, member.machine.is_member()), (incarnation + 1, true));
    }
    member.pass(90_000);
    assert_eq!(member.members(), ["n0"], "the others are found dead");
}

#[test]
fn m2_5_whoever_is_forgotten_and_a_ruling_that_had_to_make_room_are_told_no_more() {
    let mut member = Member::new(&[]);
    member.datagram("n1", &[Part::Record(record("n1", 1, 0, State::Up))]);
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Left))]);
    assert_eq!(member.machine.rumours.len(), 2, "there is nobody to tell it to");
    member.pass(3_700_000);
    assert_eq!((member.state("n1"), member.machine.rumours.len()), (None, 1), "of itself");
    let ruling = |counter| Ruling::told(counter, NodeId::new("n9").unwrap(), Sentence::KeptOut { until: None });
    for n in 0..=rulings::MOST {
        let id = NodeId::new(format!("x{n:04}")).unwrap();
        member.datagram("x", &[Part::Ruling { id, ruling: ruling(n as u64) }]);
    }
    assert_eq!(member.machine.table.rulings().len(), rulings::MOST);
    assert_eq!(member.machine.rumours.len(), 1 + rulings::MOST);
    assert_eq!(member.machine.check(), Ok(()));
}

#[test]
fn m2_3_whom_others_accuse_is_asked_at_once_by_about_four_of_all() {
    let names: Vec<String> = (0..40).map(|n| format!("n{n:02}x")).collect();
    let mut member = Member::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut asked = 0;
    for name in names.iter().take(30) {
        member.outputs();
        member.datagram("n39x", &[Part::Record(record(name, 1, 0, accused_by("n39x")))]);
        member.pass(0);
        asked += usize::from(ping_to(&member.sent(), name).is_some());
    }
    assert!((1..=9).contains(&asked), "{asked} of 30, with odds of 4 in 41");
}

#[test]
fn m3_1_whoever_is_asked_to_ping_for_another_passes_the_answer_on_or_says_that_there_is_none() {
    for answers in [false, true] {
        let mut member = Member::with(&["n1", "n2"]);
        member.outputs();
        let (number, time_left) = (PingNumber(70), Duration::from_millis(500));
        member.datagram("n1", &[Part::PingRequest { number, subject: life("n2", 1), place: place("n2"), time_left }]);
        let asked = ping_to(&member.sent(), "n2").expect("it is asked");
        member.pass(399);
        assert!(!member.sent().iter().any(|(_, part)| matches!(part, Part::Nack(_))));
        if answers {
            member.datagram("n2", &[acknowledgement(asked, life("n2", 1), 0)]);
        }
        member.pass(1);
        let told: Vec<_> = member.sent().into_iter().filter(|(to, _)| to == "n1").map(|(_, part)| part).collect();
        let passed_on = told.iter().any(|part| {
            matches!(part, Part::Acknowledgement { number: PingNumber(70), life: of, .. } if *of == life("n2", 1))
        });
        assert_eq!((passed_on, told.contains(&Part::Nack(number))), (answers, !answers));
    }
}

#[test]
fn m3_1_relays_that_say_nothing_make_this_node_doubt_itself_and_those_that_say_that_there_is_no_answer_do_not() {
    for say_so in [false, true] {
        let mut member = Member::with(&["n1", "n2", "n3", "n4"]);
        member.outputs();
        let accuses = |event: &Event| matches!(event, Event::Transition { to: MemberState::Suspect, .. });
        let first = member.machine.count;
        let nacks: Vec<_> = (first..first + 40).map(|number| Part::Nack(PingNumber(number))).collect();
        let first = (0..300).find(|_| {
            member.pass(10);
            if say_so {
                ["n1", "n2", "n3", "n4"].iter().for_each(|name| member.datagram(name, &nacks));
            }
            member.events().iter().any(accuses)
        });
        assert!(first.is_some(), "nobody was accused in three seconds");
        assert_eq!(member.machine.health.score(), if say_so { 0 } else { 3 });
    }
}

#[test]
fn m1_4_an_exchange_tells_only_what_differs_and_nothing_where_nothing_does() {
    let mut member = Member::with(&["n1", "n2"]);
    for (differ, told) in [(false, 0), (true, 1)] {
        member.now = member.now + Duration::from_secs(20);
        member.outputs();
        let digest = member.machine.table().digest().all() ^ 1;
        member.datagram("n1", &[Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest }]);
        let (question, ..) = member.questions().pop().expect("an exchange");
        let buckets = if differ { (0..=u8::MAX).collect() } else { vec![] };
        member.answered(question, "n1", &[Part::Differing(buckets)]);
        assert_eq!(member.questions().len(), told);
    }
}

#[test]
fn m2_5_so_many_lives_that_an_exchange_tells_of_are_asked_at_a_time() {
    let mut member = Member::with(&["n1"]);
    let told: Vec<_> = (0..300).map(|n| Part::Record(record(&format!("x{n:03}"), 1, 0, State::Up))).collect();
    member.asked("n1", &told);
    assert_eq!(member.machine.exchanges.unverified(), exchange::VERIFIED);
    assert_eq!(member.machine.check(), Ok(()));
}

#[test]
fn m2_4_the_dead_are_asked_now_and_then_whether_they_are_there_and_whoever_left_is_not() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.datagram("n2", &[Part::Record(record("n2", 1, 1, State::Left))]);
    member.datagram("n3", &[Part::Record(record("n1", 1, 0, accused_by("n3")))]);
    member.pass(2000);
    member.datagram("n3", &[Part::Record(record("n1", 1, 0, dead(9000)))]);
    member.outputs();
    member.pass(20_000);
    let asked = member.questions();
    let asked = |name: &str| {
        asked.iter().filter(|(_, to, parts)| to == name && matches!(parts[..], [Part::Buckets(_)])).count()
    };
    assert!((3..=6).contains(&asked("n1")), "{}", asked("n1"));
    assert_eq!(asked("n2"), 0);
}

#[test]
fn m2_5_a_claim_that_is_told_again_is_not_begun_again_and_one_that_is_over_is_none() {
    let mut member = Member::with(&["n1"]);
    for _ in 0..3 {
        member.datagram("n1", &[Part::Record(elsewhere(9, 0))]);
        assert_eq!(member.machine.own().node().incarnation(), 5);
        member.pass(400);
    }
    member.datagram("n1", &[Part::Record(elsewhere(9, 0))]);
    member.pass(400);
    assert_eq!(member.machine.own().node().incarnation(), 10, "after three pings in a second and a half");
    assert_eq!(member.state("n0"), Some(State::Left), "that life is over here, too");
    let mut member = Member::with(&["n1"]);
    let left = elsewhere(9, 0).with(State::Left, 0);
    member.datagram("n1", &[Part::Record(left)]);
    assert_eq!(member.machine.own().node().incarnation(), 10, "nobody has to be asked");
    assert_eq!(member.state("n0"), Some(State::Left));
}

#[test]
fn m2_4_the_very_bytes_of_a_death_that_was_not_believed_are_read_again() {
    let mut member = Member::with(&["n1", "n2"]);
    let dead = member.bytes("n2", &[Part::Record(record("n1", 1, 0, dead(60_000)))]);
    let tell = |member: &mut Member| {
        member.machine.handle(member.now, Input::Datagram { from: place("n2"), bytes: dead.clone() });
        matches!(member.state("n1"), Some(State::Dead { .. }))
    };
    assert!(!tell(&mut member) && suspected(member.state("n1")));
    member.pass(1600);
    assert!(tell(&mut member), "it could have been contradicted meanwhile");
}

fn pinged_with(digest: u64) -> Part {
    Part::Ping { number: PingNumber(1), subject: life("n0", 5), digest }
}

fn up(name: &str) -> Part {
    Part::Record(record(name, 1, 0, State::Up))
}

/// n0 at its own place has left in that life, which is a later one.
fn left_in(incarnation: u64) -> Part {
    Part::Record(record("n0", incarnation, 0, State::Left))
}

/// One that n1, its seed, has just let in.
fn let_in_by_n1() -> Member {
    let_in(&["n1"])
}

/// One that n1 has just let in, one of its seeds.
fn let_in(seeds: &[&str]) -> Member {
    let mut member = Member::new(seeds);
    member.pass(0);
    let (question, ..) = member.questions().remove(0);
    member.answered(question, "n1", &[Part::Welcome { incarnation: 0, version: 0 }, up("n1")]);
    assert!(member.machine.is_member());
    member.outputs();
    member
}

/// How many exchanges were begun with that node since.
fn exchanges(member: &mut Member, name: &str) -> usize {
    let asked = member.questions();
    asked.iter().filter(|(_, to, parts)| to == name && matches!(parts[..], [Part::Buckets(_)])).count()
}

fn own_standing(member: &Member) -> (u64, u64, u8) {
    let own = member.machine.own();
    (own.node().incarnation(), own.version(), own.strikes())
}

#[test]
fn m1_1_each_life_begins_with_the_first_version_and_without_strikes() {
    let mut member = Member::with(&["n1"]);
    assert_eq!(own_standing(&member), (5, 0, 0));
    member.datagram("n1", &[left_in(8)]);
    assert_eq!(own_standing(&member), (9, 0, 0));
    assert_eq!(member.state("n0"), Some(State::Left), "the former one is over here, too");
}

#[test]
fn m1_2_whoever_has_ended_does_nothing_more() {
    let mut member = Member::new(&[]);
    member.machine.handle(member.now, Input::Leave);
    assert!(member.machine.has_left());
    member.outputs();
    member.datagram("n1", &[pinged_with(0), up("n1")]);
    member.asked("n1", &join("n1"));
    member.machine.handle(member.now + Duration::from_secs(3600), Input::Time);
    assert_eq!((member.outputs(), member.machine.timers.next_at()), (vec![], None));
}

#[test]
fn m1_2_whoever_is_no_member_ends_at_once_and_tells_nobody() {
    let mut member = let_in_by_n1();
    member.datagram("n1", &[left_in(8)]);
    member.outputs();
    member.machine.handle(member.now, Input::Leave);
    assert!(member.machine.has_left());
    assert_eq!(member.questions().len(), 0);
}

#[test]
fn m1_2_a_goodbye_is_told_in_datagrams_at_once() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.machine.handle(member.now, Input::Leave);
    let goodbye =
        |part: &Part| matches!(part, Part::Record(own) if own.id().as_str() == "n0" && own.state() == &State::Left);
    assert!(member.sent().iter().any(|(to, part)| to == "n1" && goodbye(part)));
}

#[test]
fn m3_1_two_periods_late_is_a_standstill_and_less_is_none() {
    for (millis, stood_still) in [(1999, false), (2000, true)] {
        let mut member = Member::with(&["n1"]);
        member.events();
        member.now = member.machine.next_at() + Duration::from_millis(millis);
        member.machine.handle(member.now, Input::Time);
        assert_eq!(member.events().iter().any(|event| matches!(event, Event::StoodStill { .. })), stood_still);
    }
}

#[test]
fn m3_1_after_a_standstill_probes_begin_anew_nobody_is_isolated_and_the_node_doubts_itself() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.machine.begin_probe(member.now);
    let (number, time_left) = (PingNumber(70), Duration::from_millis(500));
    member.datagram("n1", &[Part::PingRequest { number, subject: life("n2", 1), place: place("n2"), time_left }]);
    member.outputs();
    member.now = member.now + Duration::from_secs(60);
    member.machine.handle(member.now, Input::Time);
    assert_eq!((member.machine.probes.relayed(), member.machine.health.score()), (0, 1));
    let outputs = member.outputs();
    for output in &outputs {
        match output {
            Output::Ask { .. } => panic!("nobody has been silent since"),
            Output::Event(event) => assert!(!matches!(event, Event::Isolated { .. }), "{outputs:?}"),
            Output::Send { bytes, .. } => {
                let parts = read_message(bytes, LabelHash::of("test"), member.now).unwrap().parts;
                assert!(!parts.contains(&Part::Nack(number)));
            }
            Output::Answer { .. } | Output::Refuse { .. } | Output::LookUp => {}
        }
    }
}

#[test]
fn m1_4_whoever_stood_still_or_was_isolated_excuses_no_difference_though_all_agreed_just_before() {
    for is_isolated in [false, true] {
        let mut member = Member::with(&["n1", "n2", "n3"]);
        let agreed = member.machine.table().digest().all();
        member.datagram("n1", &[pinged_with(agreed)]);
        if is_isolated {
            member.pass(2600);
            assert!(member.machine.isolation.holds_deaths());
        } else {
            member.now = member.machine.next_at() + Duration::from_millis(2000);
            member.machine.handle(member.now, Input::Time);
        }
        member.outputs();
        // Something has just changed, which would be an excuse.
        member.datagram("n2", &[up("n5"), pinged_with(77)]);
        assert_eq!(exchanges(&mut member, "n2"), 1, "isolated: {is_isolated}");
    }
}

/// Whether a rumour of that record need not be read again.
fn has_heard(member: &Member, record: &Record) -> bool {
    let mut writer = crate::membership::wire::Writer::default();
    crate::membership::wire::part::write_part(&mut writer, &Part::Record(record.clone()), None, member.now);
    let bytes = writer.into_bytes();
    let mut reader = crate::membership::wire::Reader::new(&bytes);
    reader.byte().unwrap();
    let heard = &member.machine.heard;
    heard.knows(heard.fingerprint(reader.bytes().unwrap()))
}

#[test]
fn m1_4_what_was_heard_is_remembered_until_the_next_sweep_and_what_is_said_of_itself_is_not() {
    let mut member = Member::new(&[]);
    let (said, own) = (record("n1", 1, 0, State::Up), record("n0", 5, 3, accused_by("n1")));
    assert!(!has_heard(&member, &said));
    member.datagram("n2", &[Part::Record(said.clone()), Part::Record(own.clone())]);
    assert!(has_heard(&member, &said) && !has_heard(&member, &own));
    member.pass(61_000);
    assert!(!has_heard(&member, &said));
}

#[test]
fn m2_4_whoever_is_no_member_is_not_isolated_and_judges_nobody() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.datagram("n1", &[Part::Record(record("n2", 1, 0, accused_by("n1"))), left_in(8)]);
    member.events();
    member.pass(3500);
    assert!(!member.machine.is_member());
    let events = member.events();
    assert!(!events.iter().any(|event| matches!(event, Event::Isolated { .. })), "{events:?}");
    assert!(transitions(&events).is_empty(), "{events:?}");
}

#[test]
fn m1_4_an_answer_whose_digest_differs_leads_to_an_exchange_and_what_comes_under_its_own_name_does_not() {
    let mut member = Member::with(&["n1", "n2"]);
    member.machine.exchanges.hurry();
    member.outputs();
    member.datagram("n0", &[pinged_with(77)]);
    assert_eq!(member.questions().len(), 0);
    member.datagram("n1", &[acknowledgement(PingNumber(999), life("n1", 1), 77)]);
    assert_eq!(exchanges(&mut member, "n1"), 1);
    let mut joining = Member::new(&["n1"]);
    joining.pass(0);
    joining.machine.exchanges.hurry();
    joining.outputs();
    joining.datagram("n1", &[acknowledgement(PingNumber(999), life("n1", 1), 77), pinged_with(77)]);
    assert_eq!(joining.questions().len(), 0, "it is no member yet");
}

#[test]
fn m2_4_a_datagram_a_question_and_an_answer_end_an_isolation_and_its_own_words_do_not() {
    for way in 0..4 {
        let mut member = Member::with(&["n1", "n2", "n3"]);
        member.pass(2600);
        assert!(member.machine.isolation.holds_deaths());
        member.events();
        match way {
            0 => member.datagram("n0", &[pinged_with(0)]),
            1 => member.datagram("n1", &[pinged_with(0)]),
            2 => member.asked("n1", &[Part::Noted]),
            _ => member.answered(Question(9999), "n1", &[Part::Noted]),
        }
        assert_eq!(member.events().iter().any(|event| matches!(event, Event::Reached { .. })), way > 0, "{way}");
    }
}

#[test]
fn m3_1_a_member_that_doubts_itself_finds_others_dead_later() {
    let lasts = |signs: u32| {
        let mut member = Member::with(&["n1"]);
        member.datagram("n2", &[Part::Record(record("n1", 1, 0, accused_by("n2")))]);
        (0..signs).for_each(|_| member.machine.health.note(Sign::StoodStill));
        let began = member.now;
        while suspected(member.state("n1")) && member.now < began + Duration::from_secs(120) {
            member.pass(100);
        }
        member.now.since(began).as_secs()
    };
    assert_eq!([lasts(0), lasts(2)], [3, 9]);
}

#[test]
fn m1_4_a_death_is_told_to_the_others() {
    let mut member = Member::with(&["n1", "n2"]);
    member.machine.timers.cancel(Timer::Probe);
    let accusers = ["n2", "n9"].iter().map(|name| NodeId::new(*name).unwrap()).collect();
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, State::Suspect(accusers)))]);
    let is_told = (0..100).any(|_| {
        member.pass(100);
        member.datagram("n2", &[pinged_with(0)]);
        let dead = |part: &Part| matches!(part, Part::Record(said) if matches!(said.state(), State::Dead { .. }));
        member.sent().iter().any(|(to, part)| to == "n2" && dead(part))
    });
    assert!(is_told);
}

#[test]
fn m4_3_a_death_waits_for_those_whom_several_accuse_and_for_nobody_else() {
    for accusers in [vec!["n3"], vec!["n3", "n4"]] {
        let mut member = Member::with(&["n1", "n2", "n3", "n4"]);
        // It accuses nobody itself.
        member.machine.timers.cancel(Timer::Probe);
        member.machine.probes = Probes::default();
        let by = |names: &[&str]| State::Suspect(names.iter().map(|name| NodeId::new(*name).unwrap()).collect());
        member.datagram("n3", &[Part::Record(record("n1", 1, 0, by(&["n3", "n4"])))]);
        member.pass(1000);
        member.datagram("n3", &[Part::Record(record("n2", 1, 0, by(&accusers)))]);
        member.events();
        let (mut died, mut told) = (None, None);
        for _ in 0..300 {
            member.pass(100);
            member.datagram("n3", &[pinged_with(0)]);
            let events = member.events();
            for event in &events {
                if let Event::Transition { at, to: MemberState::Dead, .. } = event {
                    died = Some(*at);
                }
            }
            told = updates(&events).first().map(|update| (update.at, update.dead.len()));
            if told.is_some() {
                break;
            }
        }
        assert_eq!(told, died.map(|died| (died, accusers.len())), "as soon as the last one is dead");
    }
}

#[test]
fn m1_4_members_have_converged_when_each_has_the_same_hash_and_no_more_when_one_comes() {
    let mut member = Member::new(&[]);
    assert!(member.machine.converged().is_some());
    member.datagram("n1", &[up("n1")]);
    member.pass(300);
    assert_eq!((member.members().len(), member.machine.converged()), (2, None));
    let (hash, confirmed) = (member.machine.members().hash(), crate::membership::convergence::Confirmed::All);
    let number = PingNumber(999);
    let told = Part::Acknowledgement { number, life: life("n1", 1), digest: 0, hash, confirmed };
    member.answered(Question(999), "n1", &[told]);
    assert_eq!(member.machine.converged(), Some(member.now));
}

#[test]
fn m3_1_an_answer_over_the_reliable_channel_ends_the_probe_and_tells_what_the_other_knows() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    let (question, number) = (0..300)
        .find_map(|_| {
            member.pass(10);
            member.questions().into_iter().find_map(|(question, _, parts)| {
                let number = parts.iter().find_map(|part| match part {
                    Part::Ping { number, .. } => Some(*number),
                    _ => None,
                });
                Some((question, number?))
            })
        })
        .expect("it is asked over the reliable channel");
    member.machine.exchanges.hurry();
    assert!(member.machine.probes.next_at().is_some());
    member.answered(question, "n1", &[acknowledgement(number, life("n1", 1), 77)]);
    assert_eq!((member.machine.probes.next_at(), exchanges(&mut member, "n1")), (None, 1));
}

#[test]
fn m3_1_a_ping_over_the_reliable_channel_is_answered_and_its_digest_compared() {
    for (name, asks) in [("n1", true), ("n7", false)] {
        let mut member = Member::with(&["n1"]);
        member.machine.exchanges.hurry();
        member.outputs();
        member.asked(name, &[pinged_with(77)]);
        let outputs = member.outputs();
        assert_eq!(outputs.iter().any(|output| matches!(output, Output::Ask { .. })), asks, "nobody knows n7");
        let answer = outputs.iter().find_map(|output| match output {
            Output::Answer { bytes, .. } => Some(read_message(bytes, LabelHash::of("test"), at(0)).unwrap().parts),
            _ => None,
        });
        let answer = answer.expect("an answer");
        assert!(
            matches!(&answer[..], [Part::Acknowledgement { number: PingNumber(1), life: own, .. }] if *own == life("n0", 5))
        );
    }
    let mut member = Member::with(&["n1"]);
    member.asked("n1", &[Part::Record(record("n1", 1, 1, State::Up))]);
    assert_eq!(member.answer(), [Part::Noted], "what asks for nothing is noted");
}

#[test]
fn m2_5_so_many_may_ask_to_be_let_in_within_a_second_and_the_others_are_sent_on() {
    let mut member = Member::new(&[]);
    member.machine.settings.joins_per_second = 2;
    let mut count = 0;
    for (millis, expected) in [(0, [true, true, false]), (999, [false; 3]), (1, [true, true, false])] {
        member.now = member.now + Duration::from_millis(millis);
        for is_let_in in expected {
            count += 1;
            let name = format!("x{count}");
            member.asked(&name, &join(&name));
            let answer = member.answer();
            assert_eq!(matches!(answer[0], Part::Welcome { .. }), is_let_in, "the {count}th");
            assert_eq!(matches!(answer[..], [Part::Elsewhere(_)]), !is_let_in, "the {count}th");
        }
    }
}

/// Another process under that name asks to be let in, in life 9.
fn join_from_elsewhere(name: &str) -> [Part; 2] {
    let node = ClusterNode::builder(name, "elsewhere", 7000).incarnation(9).build().unwrap();
    let other = Record::new(Arc::new(node), 0, State::Up, 0).unwrap().reached_at(7946);
    [Part::Join { label: "test".into() }, Part::Record(other)]
}

#[test]
fn m2_1_of_all_who_are_on_their_way_in_the_one_who_is_due_first_says_when() {
    let mut member = Member::with(&["n1", "n2"]);
    let begun = member.now;
    let steps = [(0, Some("n1"), 500), (50, Some("n2"), 500), (350, Some("x"), 500), (50, Some("y"), 500)];
    for (count, (millis, name, due)) in steps.into_iter().chain([(99, None, 550), (1, None, 600)]).enumerate() {
        member.pass(millis);
        match name {
            Some(name) if name.starts_with('n') => member.asked(name, &join_from_elsewhere(name)),
            Some(name) => member.asked(name, &join(name)),
            None => {}
        }
        let next = member.machine.admissions.next_at().map(|next| next.since(begun).as_millis());
        assert_eq!((next, member.machine.admissions.len()), (Some(due), (count + 1).min(4)), "step {count}");
    }
}

#[test]
fn m3_3_the_present_holder_of_an_id_has_half_a_second_to_answer() {
    let mut member = Member::with(&["n1"]);
    member.asked("n1", &join_from_elsewhere("n1"));
    member.outputs();
    member.pass(499);
    assert!(!member.outputs().iter().any(|output| matches!(output, Output::Answer { .. })));
    member.pass(1);
    assert!(matches!(member.answer()[0], Part::Welcome { incarnation: 1, version: 0 }));
}

#[test]
fn m3_3_whoever_asks_under_this_nodes_own_id_is_turned_away_at_once() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.asked("n0", &join_from_elsewhere("n0"));
    assert_eq!(
        (member.answer(), member.machine.admissions.len()),
        (vec![Part::Refused(Refusal::IdTaken { place: place("n0") })], 0)
    );
}

#[test]
fn m2_1_only_a_member_lets_in_and_only_who_says_who_it_is_and_is_up() {
    let mut joining = Member::new(&["n1"]);
    joining.asked("x", &join("x"));
    assert_eq!(joining.answer(), [Part::Noted]);
    let mut member = Member::with(&["n1"]);
    let label = || Part::Join { label: "test".into() };
    member.asked("x", &[label(), up("y")]);
    assert_eq!(member.answer(), [Part::Noted], "that is another's record");
    member.asked("x", &[label(), Part::Record(record("x", 1, 0, State::Left))]);
    assert_eq!(member.answer(), [Part::Noted]);
    assert_eq!(member.machine.admissions.len(), 0);
}

#[test]
fn m3_3_a_member_that_is_kept_out_may_ask_again_in_the_same_life_and_in_no_other() {
    let mut member = Member::with(&["n1"]);
    rule(&mut member, "n1", Order::Pin(None));
    let ask = |member: &mut Member, incarnation| {
        member
            .asked("n1", &[Part::Join { label: "test".into() }, Part::Record(record("n1", incarnation, 0, State::Up))]);
        matches!(member.answer()[0], Part::Welcome { .. })
    };
    assert!(ask(&mut member, 1) && !ask(&mut member, 2));
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Left))]);
    assert!(!ask(&mut member, 1), "it is gone");
}

#[test]
fn m2_1_whoever_is_let_in_is_told_all_is_pinged_at_once_and_has_to_answer_itself() {
    let mut member = Member::new(&[]);
    rule(&mut member, "kept", Order::Pin(None));
    member.outputs();
    member.asked("n1", &[Part::Join { label: "test".into() }, up("n1")]);
    let number = ping_to(&member.sent(), "n1").expect("at once");
    member.asked("n2", &[Part::Join { label: "test".into() }, up("n2")]);
    let told = member.answer();
    assert!(matches!(told[..], [Part::Welcome { incarnation: 0, version: 0 }, Part::Record(_), Part::Ruling { .. }]));
    member.datagram("n1", &[acknowledgement(number, life("n1", 2), 0)]);
    assert_eq!((member.state("n1"), member.machine.admissions.len()), (None, 2), "that is another life");
    member.datagram("n1", &[acknowledgement(number, life("n1", 1), 0)]);
    assert_eq!((member.state("n1"), member.machine.admissions.len()), (Some(State::Up), 1));
}

#[test]
fn m2_1_a_life_that_is_over_is_told_so_and_not_pinged_and_a_later_one_or_one_that_goes_on_is() {
    let mut member = Member::with(&["n1", "n2"]);
    member.datagram("n1", &[Part::Record(record("n1", 3, 1, State::Left))]);
    let joiners = |member: &mut Member, name: &str, incarnation| {
        member
            .asked(name, &[Part::Join { label: "test".into() }, Part::Record(record(name, incarnation, 0, State::Up))]);
        assert!(matches!(member.answer()[0], Part::Welcome { .. }));
        member.machine.admissions.len()
    };
    assert_eq!([joiners(&mut member, "n1", 2), joiners(&mut member, "n1", 3)], [0, 0]);
    assert_eq!([joiners(&mut member, "n2", 1), joiners(&mut member, "n1", 4)], [1, 2]);
}

#[test]
fn m1_4_a_difference_is_excused_for_less_than_three_seconds_after_a_change_and_an_agreement() {
    let is_excused = |change: &[Part], millis: u64| {
        let mut member = Member::with(&["n1", "n2"]);
        member.now = member.now + Duration::from_secs(3);
        let agreed = member.machine.table().digest().all();
        member.datagram("n1", &[pinged_with(agreed)]);
        member.datagram("n1", change);
        member.now = member.now + Duration::from_millis(millis);
        if millis > 0 {
            let agreed = member.machine.table().digest().all();
            member.datagram("n1", &[pinged_with(agreed)]);
        }
        member.outputs();
        let differing = member.machine.table().digest().all() ^ 1;
        member.datagram("n2", &[pinged_with(differing)]);
        exchanges(&mut member, "n2") == 0
    };
    let sentence = Sentence::KeptOut { until: None };
    let ruling = Ruling::over(None, NodeId::new("n1").unwrap(), sentence);
    assert!(!is_excused(&[], 0), "nothing has changed of late");
    assert!(is_excused(&[up("n3")], 0));
    assert!(is_excused(&[Part::Ruling { id: NodeId::new("x").unwrap(), ruling }], 0));
    assert!(is_excused(&[up("n3")], 2999) && !is_excused(&[up("n3")], 3000));
}

#[test]
fn m1_4_what_was_missed_is_asked_for_once_and_a_node_that_begins_has_missed_nothing() {
    let mut member = Member::new(&[]);
    member.datagram("n1", &[up("n1"), up("n2")]);
    member.datagram("n2", &[pinged_with(77)]);
    assert_eq!(member.questions().len(), 0);
    let agreed = member.machine.table().digest().all();
    member.datagram("n1", &[pinged_with(agreed)]);
    member.machine.exchanges.hurry();
    member.datagram("n2", &[pinged_with(77)]);
    assert_eq!(exchanges(&mut member, "n2"), 1);
    member.pass(1000);
    member.outputs();
    member.datagram("n2", &[up("n4"), pinged_with(77)]);
    assert_eq!(exchanges(&mut member, "n2"), 0, "it may be news under way");
}

#[test]
fn m2_5_no_more_than_eight_exchanges_are_under_way() {
    let mut member = Member::new(&[]);
    (0..9).for_each(|_| member.machine.exchange_now(place("x"), member.now));
    assert_eq!((member.machine.exchanges.under_way(), exchanges(&mut member, "x")), (8, 8));
}

#[test]
fn m1_4_of_two_lives_that_exchanges_tell_of_the_later_one_has_to_answer() {
    for lives in [[1, 2], [2, 1]] {
        let mut member = Member::with(&["n1"]);
        member.outputs();
        for incarnation in lives {
            member.asked("n1", &[Part::Record(record("n9", incarnation, 0, State::Up))]);
        }
        let number = ping_to(&member.sent(), "n9").expect("a ping");
        member.datagram("n9", &[acknowledgement(number, life("n9", 1), 0)]);
        assert_eq!((member.state("n9"), member.machine.exchanges.unverified()), (None, 1));
        member.datagram("n9", &[acknowledgement(number, life("n9", 2), 0)]);
        assert_eq!((member.state("n9"), member.machine.exchanges.unverified()), (Some(State::Up), 0));
    }
    let mut member = Member::with(&["n1"]);
    let (begun, period) = (member.now, member.machine.settings.probe.period);
    member.asked("n1", &[up("n8")]);
    member.pass(100);
    member.asked("n1", &[up("n9")]);
    assert_eq!(member.machine.exchanges.next_at(period), Some(begun + Duration::from_millis(200)));
}

#[test]
fn m1_4_what_an_exchange_tells_of_the_same_life_counts_at_once_and_a_later_life_has_to_answer() {
    let mut member = Member::with(&["n1", "n2"]);
    member.asked("n2", &[Part::Record(record("n1", 1, 0, accused_by("n2")))]);
    assert!(suspected(member.state("n1")));
    member.asked("n2", &[Part::Record(record("n1", 2, 0, State::Up))]);
    assert!(suspected(member.state("n1")));
    assert_eq!(member.machine.exchanges.unverified(), 1);
}

#[test]
fn m2_4_a_seed_is_asked_whether_it_is_there_only_while_no_member_is_reached_at_it() {
    let mut member = let_in_by_n1();
    (0..3).for_each(|_| member.machine.look_for_others(member.now));
    assert_eq!(member.questions().len(), 0);
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Left))]);
    member.outputs();
    member.machine.look_for_others(member.now);
    assert_eq!(exchanges(&mut member, "n1"), 1);
}

#[test]
fn m2_1_whoever_has_to_come_in_again_only_asks_for_that_and_each_place_once_in_a_round() {
    // Nobody is at the other seed, which a member would ask whether it is there.
    let mut member = let_in(&["n1", "s"]);
    member.pass(2000);
    member.outputs();
    member.datagram("n1", &[left_in(8)]);
    member.pass(6000);
    let asked = member.questions();
    assert!(asked.iter().all(|(_, _, parts)| matches!(parts[..], [Part::Join { .. }, Part::Record(_)])), "{asked:?}");
    for name in ["n1", "s"] {
        let rounds = asked.iter().filter(|(_, to, _)| to == name).count();
        assert!((6..=8).contains(&rounds), "{rounds}");
    }
}

#[test]
fn m2_1_a_lone_seed_asks_the_members_that_it_knew_five_times() {
    let mut member = Member::with(&["n1", "n2", "n3"]);
    member.datagram("n3", &[Part::Record(record("n3", 1, 1, State::Left))]);
    member.outputs();
    member.datagram("n1", &[left_in(8)]);
    member.pass(0);
    let mut hosts: Vec<_> = member.questions().into_iter().map(|(_, to, _)| to).collect();
    hosts.sort();
    assert_eq!(hosts, ["n1", "n2"], "n3 is gone");
    let mut member = Member::with(&["n1"]);
    member.datagram("n1", &[left_in(8)]);
    member.outputs();
    member.pass(10_000);
    assert!(member.machine.is_member());
    let asked = member.outputs();
    let joins = asked.iter().filter(|output| match output {
        Output::Ask { bytes, .. } => {
            let parts = read_message(bytes, LabelHash::of("test"), at(0)).unwrap().parts;
            matches!(parts[0], Part::Join { .. })
        }
        _ => false,
    });
    assert_eq!(joins.count(), 5);
}

#[test]
fn m2_1_whoever_is_sent_on_asks_one_of_those_places_at_once() {
    let hosts = |names: &[&str]| {
        let mut member = Member::new(&["n1"]);
        member.pass(0);
        let (mut question, ..) = member.questions().remove(0);
        let elsewhere = Part::Elsewhere(names.iter().map(|name| place(name)).collect());
        let mut hosts = Vec::new();
        for _ in 0..6 {
            member.answered(question, "n1", std::slice::from_ref(&elsewhere));
            let asked = member.questions();
            assert_eq!(asked.len(), usize::from(!names.is_empty()));
            if let Some((next, to, _)) = asked.into_iter().next() {
                hosts.push(to);
                question = next;
            }
        }
        hosts
    };
    assert_eq!(hosts(&["a"]), ["a"; 6]);
    let several = hosts(&["a", "b", "c"]);
    assert!(several.iter().any(|host| *host != several[0]), "{several:?}");
    assert!(hosts(&[]).is_empty());
}

#[test]
fn m2_1_a_life_that_is_known_already_goes_on_with_a_higher_version_where_it_is_up_here_and_else_a_later_one_follows() {
    let joins = |incarnation, welcome: (u64, u64), own: Option<Record>| {
        let mut member = Member::in_life(incarnation, &["n1"]);
        member.pass(0);
        let (question, ..) = member.questions().remove(0);
        let mut parts = vec![Part::Welcome { incarnation: welcome.0, version: welcome.1 }, up("n1")];
        parts.extend(own.map(Part::Record));
        member.answered(question, "n1", &parts);
        let (incarnation, version, _) = own_standing(&member);
        assert!(!transitions(&member.events()).iter().any(|(_, _, to)| *to == MemberState::Suspect));
        (incarnation, version, member.machine.is_member())
    };
    let known = |state| Some(record("n0", 5, 3, state));
    assert_eq!(joins(5, (0, 0), None), (5, 0, true));
    assert_eq!(joins(0, (0, 0), None), (0, 0, true), "0 is no life that is known");
    assert_eq!(joins(1, (1, 3), Some(record("n0", 1, 3, State::Up))), (1, 4, true));
    assert_eq!(joins(5, (5, 3), known(State::Up)), (5, 4, true));
    assert_eq!(joins(5, (5, 3), known(accused_by("n1"))), (5, 4, true));
    assert_eq!(joins(5, (5, 3), known(State::Left)), (6, 0, false));
    assert_eq!(joins(5, (5, 3), Some(elsewhere(5, 3))), (6, 0, false));
    assert_eq!(joins(5, (7, 0), None), (8, 0, false));
}

#[test]
fn m2_1_what_a_welcome_tells_is_taken_over_and_not_told_on() {
    let mut member = Member::new(&["n1"]);
    member.pass(0);
    let (question, ..) = member.questions().remove(0);
    let ruling = Ruling::over(None, NodeId::new("n1").unwrap(), Sentence::KeptOut { until: None });
    let id = NodeId::new("x").unwrap();
    let welcome = Part::Welcome { incarnation: 0, version: 0 };
    member.answered(question, "n1", &[welcome, up("n1"), up("n2"), Part::Ruling { id: id.clone(), ruling }]);
    assert_eq!(member.members(), ["n0", "n1", "n2"]);
    assert!(member.machine.table().rulings().get(&id).is_some());
    assert_eq!(member.machine.rumours.len(), 1, "of itself");
    assert_eq!(member.machine.timers.get(Timer::Join), None);
}

#[test]
fn m1_4_after_each_join_what_is_known_is_exchanged_twice_more_and_the_next_difference_is_not_excused() {
    let mut member = let_in_by_n1();
    member.pass(2000);
    member.datagram("n1", &[left_in(8)]);
    member.outputs();
    member.pass(0);
    let (question, ..) = member.questions().remove(0);
    member.answered(question, "n1", &[Part::Welcome { incarnation: 8, version: 0 }, up("n1")]);
    member.outputs();
    for (millis, expected) in [(299, 0), (1, 1), (699, 0), (1, 1)] {
        member.pass(millis);
        assert_eq!(exchanges(&mut member, "n1"), expected, "{:?}", member.now);
    }
    let mut member = let_in_by_n1();
    member.pass(2000);
    member.outputs();
    member.datagram("n1", &[up("n5"), pinged_with(77)]);
    assert_eq!(exchanges(&mut member, "n1"), 1, "something has just changed, and all agreed when it began");
}

#[test]
fn m2_5_a_claim_ends_with_the_life_that_it_is_about() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.datagram("n1", &[Part::Record(elsewhere(9, 0))]);
    let number = ping_to(&member.sent(), "other").expect("it is asked");
    member.datagram("n1", &[left_in(11)]);
    assert_eq!((own_standing(&member), member.machine.timers.get(Timer::Claim)), ((12, 0, 0), None));
    member.datagram("other", &[acknowledgement(number, life("n0", 9), 0)]);
    assert!(!member.machine.has_left());
    // Another node lives where its id was said to live.
    let mut member = Member::with(&["n1"]);
    member.outputs();
    member.datagram("n1", &[Part::Record(elsewhere(9, 0))]);
    let number = ping_to(&member.sent(), "other").expect("it is asked");
    member.datagram("other", &[acknowledgement(number, life("n9", 1), 0)]);
    assert_eq!((own_standing(&member), member.machine.has_left()), ((10, 0, 0), false));
    assert_eq!((member.state("n0"), member.machine.timers.get(Timer::Claim)), (Some(State::Left), None));
}

#[test]
fn m3_4_whoever_is_refused_asks_again_when_it_may_and_not_within_a_second() {
    for (left, waits) in [(4000, 4000), (100, 1000)] {
        let mut member = Member::new(&["n1"]);
        member.pass(0);
        let (question, ..) = member.questions().remove(0);
        let accusers = std::iter::once(NodeId::new("n1").unwrap()).collect();
        let left = Duration::from_millis(left);
        member.answered(question, "n1", &[Part::Refused(Refusal::Quarantined { accusers, left })]);
        member.outputs();
        member.pass(waits - 1);
        assert_eq!(member.questions().len(), 0);
        member.pass(1);
        assert_eq!(member.questions().len(), 1);
    }
}

#[test]
fn m3_4_only_a_lift_of_its_own_id_lets_an_expelled_node_return() {
    let mut member = Member::with(&["n1"]);
    member.expel(10);
    let told = |member: &mut Member, name: &str, counter, sentence| {
        let ruling = Ruling::told(counter, NodeId::new("n1").unwrap(), sentence);
        member.datagram("n1", &[Part::Ruling { id: NodeId::new(name).unwrap(), ruling }]);
        member.machine.is_member()
    };
    let lifted = || Sentence::LetIn { incarnation: 5, version: 0 };
    assert!(!told(&mut member, "n0", 1, Sentence::KeptOut { until: None }));
    assert!(!told(&mut member, "x", 1, lifted()));
    assert!(told(&mut member, "n0", 2, lifted()));
}

#[test]
fn m3_5_a_ruling_that_is_told_again_is_no_news_one_about_somebody_unknown_is_of_no_death_and_of_too_many_one_is_refused()
 {
    let mut member = Member::with(&["n1"]);
    rule(&mut member, "x", Order::Lift);
    let id = NodeId::new("x").unwrap();
    let ruling = member.machine.table().rulings().get(&id).unwrap().clone();
    assert_eq!(ruling.sentence(), &Sentence::LetIn { incarnation: 0, version: 0 });
    let ruled = |event: &Event| matches!(event, Event::Ruled { .. });
    assert_eq!(member.events().iter().filter(|event| ruled(event)).count(), 1);
    member.datagram("n1", &[Part::Ruling { id, ruling }]);
    assert!(!member.events().iter().any(ruled));
    for n in 1..rulings::MOST {
        rule(&mut member, &format!("x{n:04}"), Order::Pin(None));
    }
    member.events();
    rule(&mut member, "y", Order::Pin(None));
    assert_eq!(member.events(), [Event::NoRoom { at: member.now, of: Scarce::Rulings }]);
    rule(&mut member, "x", Order::Pin(None));
    assert!(member.events().iter().any(ruled), "that one overrules another");
}

#[test]
fn m4_1_what_is_described_before_a_node_is_let_in_is_told_when_it_is() {
    let mut member = Member::new(&["n1"]);
    let described = ClusterNode::builder("n0", "n0", 7000).metadata("zone", "a").build().unwrap();
    member.machine.handle(member.now, Input::Describe(Arc::new(described)));
    assert_eq!((member.machine.table().len(), member.machine.own().node().metadata().len()), (0, 1));
}

#[test]
fn m3_4_a_quarantine_that_is_over_is_contradicted_and_strikes_are_taken_over_with_an_expulsion() {
    let mut member = Member::with(&["n1"]);
    member.datagram("n1", &[found_dead(&member, 4)]);
    member.datagram("n1", &[found_dead_in(&member, 1, 0)]);
    assert_eq!((member.machine.is_member(), member.machine.own().version()), (true, 2));
    let accusers = crate::membership::accusers::Accusers::of(NodeId::new("n1").unwrap());
    let state = State::Dead { accusers, quarantined_until: member.now + Duration::from_secs(4) };
    let dead = Record::new(Arc::clone(member.machine.own().node()), 2, state, 3).unwrap().reached_at(7946);
    member.datagram("n1", &[Part::Record(dead)]);
    assert_eq!((member.machine.is_member(), member.machine.own().strikes()), (false, 3));
}

#[test]
fn m3_1_nobody_asks_any_more_whether_somebody_lives_who_has_left_or_who_answered_as_another_node() {
    let probing = || {
        let mut member = Member::with(&["n1"]);
        member.machine.probes = Probes::default();
        member.outputs();
        member.machine.begin_probe(member.now);
        let number = ping_to(&member.sent(), "n1").expect("a ping");
        assert!(member.machine.probes.next_at().is_some());
        (member, number)
    };
    let (mut member, _) = probing();
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Left))]);
    assert_eq!(member.machine.probes.next_at(), None);
    let (mut member, number) = probing();
    member.datagram("n1", &[acknowledgement(number, life("n9", 1), 0)]);
    assert_eq!((member.machine.probes.next_at(), suspected(member.state("n1"))), (None, true));
    let (mut member, _) = probing();
    member.machine.begin_probe(member.now);
    assert_eq!(member.sent().len(), 0, "it is being asked already");
}

#[test]
fn m3_1_of_several_probes_and_pings_for_others_the_one_that_is_due_first_says_when() {
    let mut member = Member::with(&["n1", "n2"]);
    member.machine.probes = Probes::default();
    let (begun, millis) = (member.now, Duration::from_millis);
    member.machine.begin_probe(begun);
    member.machine.begin_probe(begun + millis(100));
    assert_eq!(member.machine.probes.next_at(), Some(begun + millis(500)));
    member.machine.probes = Probes::default();
    let request =
        |time_left| Part::PingRequest { number: PingNumber(7), subject: life("n2", 1), place: place("n2"), time_left };
    member.datagram("n1", &[request(Duration::from_secs(3600))]);
    assert_eq!(member.machine.probes.next_at(), Some(begun + millis(8000)), "no longer than ten periods");
    member.datagram("n1", &[request(millis(500))]);
    member.datagram("n1", &[request(millis(1000))]);
    assert_eq!((member.machine.probes.next_at(), member.machine.probes.relayed()), (Some(begun + millis(400)), 3));
    (0..probing::RELAYED).for_each(|_| member.datagram("n1", &[request(millis(500))]));
    assert_eq!(member.machine.probes.relayed(), probing::RELAYED);
    assert_eq!(member.machine.check(), Ok(()));
}

#[test]
fn m3_1_the_answer_of_a_former_life_says_nothing_and_that_of_a_later_one_is_asked_what_it_is() {
    let answered = |incarnation: u64, later: Option<u64>| {
        let mut member = Member::new(&[]);
        member.datagram("n1", &[Part::Record(record("n1", 3, 0, State::Up))]);
        member.machine.probes = Probes::default();
        member.outputs();
        member.machine.begin_probe(member.now);
        let number = ping_to(&member.sent(), "n1").expect("a ping");
        if let Some(later) = later {
            member.datagram("n1", &[Part::Record(record("n1", later, 0, State::Up))]);
        }
        member.datagram("n1", &[acknowledgement(number, life("n1", incarnation), 0)]);
        (member.machine.probes.next_at().is_none(), exchanges(&mut member, "n1"))
    };
    assert_eq!(answered(2, None), (false, 0));
    assert_eq!(answered(3, None), (true, 0));
    assert_eq!(answered(4, None), (true, 1));
    assert_eq!(answered(4, Some(4)), (true, 0), "that is known already");
}

#[test]
fn m3_1_an_answer_in_time_is_no_loss_and_one_after_that_is() {
    for is_late in [false, true] {
        let mut member = Member::with(&["n1"]);
        member.machine.timers.cancel(Timer::Probe);
        (member.machine.probes, member.machine.loss) = (Probes::default(), Loss::default());
        (0..16).for_each(|_| member.machine.loss.note(false));
        member.outputs();
        member.machine.begin_probe(member.now);
        let number = ping_to(&member.sent(), "n1").expect("a ping");
        member.pass(if is_late { 600 } else { 100 });
        member.datagram("n1", &[acknowledgement(number, life("n1", 1), 0)]);
        assert_eq!(member.machine.loss.share() < 1.0, !is_late);
    }
}

#[test]
fn m2_3_whoever_is_pinged_learns_what_is_said_of_it_and_is_told_once_of_each_suspicion() {
    let mut member = Member::with(&["n1", "n2"]);
    let mut is_told = |version, accuser: &str| {
        member.outputs();
        member.datagram("n2", &[Part::Record(record("n1", 1, version, accused_by(accuser)))]);
        member.sent().iter().any(|(to, part)| to == "n1" && matches!(part, Part::Record(_)))
    };
    assert!(is_told(0, "n2") && !is_told(0, "n3") && is_told(1, "n2"));
    member.machine.rumours = Rumours::default();
    member.machine.ping(place("n1"), PingNumber(1), life("n1", 1), member.now);
    let told = member.sent();
    assert!(told.iter().any(|(_, part)| matches!(part, Part::Record(said) if said.id().as_str() == "n1")));
}

#[test]
fn m2_3_of_four_members_all_ask_whom_another_accuses_and_of_five_not_always() {
    let asks = |others: &[&str], accusers: &[&str]| {
        let mut member = Member::with(others);
        let by: State = State::Suspect(accusers.iter().map(|name| NodeId::new(*name).unwrap()).collect());
        let asks = (0..100).filter(|version| {
            member.machine.timers.set(Timer::Probe, member.now + Duration::from_secs(1));
            member.datagram("n2", &[Part::Record(record("n1", 1, *version, by.clone()))]);
            member.machine.timers.get(Timer::Probe) == Some(member.now)
        });
        asks.count()
    };
    assert_eq!(asks(&["n1", "n2", "n3"], &["n2"]), 100);
    assert!((60..=95).contains(&asks(&["n1", "n2", "n3", "n4"], &["n2"])));
    assert_eq!(asks(&["n1", "n2", "n3"], &["n0", "n2"]), 0, "it has asked itself");
}

#[test]
fn m1_5_whoever_is_no_member_sends_observers_away_and_who_holds_nothing_is_told_everything() {
    let mut joining = Member::new(&["n1"]);
    joining.asked("o", &[Part::Observe { hash: 0 }]);
    assert_eq!(joining.answer(), [Part::Noted]);
    let mut member = Member::new(&[]);
    member.pass(300);
    member.asked("o", &[Part::Observe { hash: 0 }]);
    assert!(matches!(member.answer()[0], Part::Observed { is_whole: true, .. }));
}

#[test]
fn m1_4_its_own_news_go_first_and_a_contradiction_goes_out_at_once() {
    let mut member = Member::with(&["n1", "n9"]);
    member.datagram("n1", &[Part::Record(record("n9", 1, 0, accused_by("n1")))]);
    (member.machine.rumours, member.machine.gossiped) = (Rumours::default(), None);
    member.machine.timers.cancel(Timer::Gossip);
    member.datagram("n9", &[Part::Record(record("n9", 1, 1, State::Up))]);
    assert_eq!(member.machine.timers.get(Timer::Gossip), Some(member.now + Duration::from_millis(10)));
    let described = ClusterNode::builder("n0", "n0", 7000).metadata("zone", "a").build().unwrap();
    member.machine.handle(member.now, Input::Describe(Arc::new(described)));
    member.datagram("n1", &[Part::Record(record("n9", 1, 1, accused_by("n1")))]);
    member.outputs();
    member.machine.gossip(member.now);
    let told: Vec<_> = member.sent().into_iter().filter(|(to, _)| to == "n1").map(|(_, part)| part).collect();
    assert!(matches!(&told[0], Part::Record(said) if said.id().as_str() == "n0"), "{told:?}");
}

#[test]
fn m1_4_rumours_are_sent_every_200_ms_while_there_are_any() {
    let mut member = Member::with(&["n1"]);
    member.machine.rumours = Rumours::default();
    member.outputs();
    member.machine.timers.cancel(Timer::Gossip);
    member.machine.gossip(member.now);
    assert_eq!((member.outputs(), member.machine.timers.get(Timer::Gossip)), (vec![], None));
    member.machine.rumours.spread(Subject::Record(life("n5", 1).id), Class::Other, Arc::from([]));
    for told in 1..=4 {
        member.machine.timers.cancel(Timer::Gossip);
        member.machine.gossip(member.now);
        assert_eq!(member.outputs().len(), 1);
        let next = member.machine.timers.get(Timer::Gossip);
        assert_eq!(next, (told < 4).then(|| member.now + Duration::from_millis(200)), "told {told} times");
    }
}
