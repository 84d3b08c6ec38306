//! What one member does, input by input.

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
        let node = Arc::new(ClusterNode::builder("n0", "n0", 7000).incarnation(5).build().unwrap());
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
        member.machine.handle(member.now, Input::Datagram { from: place("n1"), bytes });
        assert!(matches!(member.events()[..], [Event::Unusable { .. }]));
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
    assert!(!member.machine.has_left());
    member.answered(told[0].0, "n1", &[Part::Noted]);
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
    member.asked("n1", &[Part::Record(record("n9", 1, 0, State::Up))]);
    member.outputs();
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
        let nacks: Vec<_> = (0..40).map(|number| Part::Nack(PingNumber(number))).collect();
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
        member.pass(400);
    }
    member.datagram("n1", &[Part::Record(elsewhere(9, 0))]);
    member.pass(400);
    assert_eq!(member.machine.own().node().incarnation(), 10, "after three pings in a second and a half");
    let mut member = Member::with(&["n1"]);
    let left = elsewhere(9, 0).with(State::Left, 0);
    member.datagram("n1", &[Part::Record(left)]);
    assert_eq!(member.machine.own().node().incarnation(), 10, "nobody has to be asked");
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
