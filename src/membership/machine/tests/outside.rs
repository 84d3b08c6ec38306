//! What comes to a member from its own process: where the seeds are, what hosts say, and what the program has found.

use super::*;
use crate::membership::table::Illegal;

fn looked_up(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::LookUp)).count()
}

fn asked(outputs: &[Output]) -> Vec<String> {
    let asked = outputs.iter().filter_map(|output| match output {
        Output::Ask { to, .. } => Some(to.host().to_owned()),
        _ => None,
    });
    asked.collect()
}

impl Member {
    fn seeds(&mut self, names: &[&str]) {
        let places = names.iter().map(|name| place(name)).collect();
        self.machine.handle(self.now, Input::Seeds(places));
    }
}

#[test]
fn m1_4_seeds_are_looked_up_each_time_they_are_asked_and_those_found_last_are_asked() {
    let mut joiner = Member::new(&["seeds"]);
    joiner.pass(1);
    let outputs = joiner.outputs();
    assert_eq!((looked_up(&outputs), asked(&outputs)), (1, vec!["seeds".to_owned()]));
    joiner.seeds(&["n7"]);
    joiner.pass(1000);
    let outputs = joiner.outputs();
    assert_eq!((looked_up(&outputs), asked(&outputs)), (1, vec!["n7".to_owned()]));
    let mut member = Member::new(&[]);
    member.seeds(&["n8"]);
    member.outputs();
    member.pass(1);
    let outputs = member.outputs();
    assert_eq!(asked(&outputs), ["n8"], "a member looks for seeds that are there after all");
    assert_eq!(looked_up(&outputs), 1);
}

#[test]
fn m1_1_whoever_is_found_to_be_a_seed_itself_asks_the_others_first_and_then_goes_on_alone() {
    let mut joiner = Member::new(&["seeds"]);
    joiner.seeds(&["n0", "n7"]);
    // Five rounds, each of 0.8 to 1 s.
    joiner.pass(3900);
    assert!(!joiner.machine.is_member());
    assert!(asked(&joiner.outputs()).iter().all(|host| host == "n7"), "nobody asks itself");
    joiner.pass(1200);
    assert!(joiner.machine.is_member());
    let mut other = Member::new(&["seeds"]);
    other.seeds(&["n7", "n8"]);
    other.pass(60_000);
    assert!(!other.machine.is_member(), "no seed itself: it asks on and on");
}

#[test]
fn m2_4_a_host_that_refuses_a_connection_shows_that_the_network_is_well() {
    for refuses in [false, true] {
        let mut member = Member::with(&["n1", "n2"]);
        let mut isolated = false;
        for _ in 0..40 {
            member.pass(100);
            if refuses {
                member.machine.handle(member.now, Input::HostHeard);
            }
            isolated |= member.events().iter().any(|event| matches!(event, Event::Isolated { .. }));
        }
        assert_eq!(isolated, !refuses);
    }
}

#[test]
fn m3_1_what_the_program_has_found_counts_as_an_accusation_and_of_strangers_nothing() {
    let mut member = Member::with(&["n1", "n2"]);
    member.events();
    let id = |name: &str| NodeId::new(name).unwrap();
    member.machine.handle(member.now, Input::Evidence(id("n9")));
    assert_eq!(member.events(), []);
    let (refused, count) = member.machine.table().refused();
    let refused: Vec<_> = refused.map(|refused| (refused.node.clone(), refused.reason)).collect();
    assert_eq!((refused, count), (vec![(id("n9"), Illegal::Unknown)], 1));
    member.machine.handle(member.now, Input::Evidence(id("n1")));
    let State::Suspect(accusers) = member.state("n1").unwrap() else { panic!() };
    assert_eq!(accusers.iter().collect::<Vec<_>>(), [&id("n0")]);
}

#[test]
fn m2_5_a_question_that_is_none_is_refused_with_the_reason_and_told() {
    let mut member = Member::with(&["n1"]);
    member.outputs();
    let mut bytes = member.bytes("n1", &[Part::Noted]);
    bytes[0] ^= 1;
    member.machine.handle(member.now, Input::Asked { channel: 9, bytes });
    let why = Unusable::OtherCluster;
    assert_eq!(member.outputs(), [Output::Refuse { channel: 9, why }]);
    let from = Some(place("n1"));
    member.machine.handle(member.now, Input::Unusable { from: from.clone(), why: Unusable::Forged });
    assert_eq!(member.outputs(), [Output::Event(Event::Unusable { from, why: Unusable::Forged })]);
}

#[test]
fn m3_3_whoever_is_refused_for_long_asks_again_within_ten_seconds_since_that_may_be_lifted() {
    for (left, again) in [(3, 3), (600, 10)] {
        let mut joiner = Member::new(&["n1"]);
        joiner.pass(1);
        let question = joiner.questions()[0].0;
        let left = Some(Duration::from_secs(left));
        joiner.answered(question, "n1", &[Part::Refused(Refusal::KeptOut { left })]);
        joiner.outputs();
        joiner.pass(again * 1000 - 1);
        assert_eq!(joiner.questions(), []);
        joiner.pass(1);
        assert_eq!(joiner.questions().len(), 1);
    }
}

#[test]
fn m3_4_a_member_that_comes_back_from_its_quarantine_says_that_it_is_one_again() {
    let mut member = Member::with(&["n1"]);
    member.expel(7);
    member.events();
    member.pass(6_999);
    let joined = |member: &mut Member| member.events().iter().any(|event| matches!(event, Event::Joined { .. }));
    assert!(!joined(&mut member));
    member.pass(1);
    assert!(joined(&mut member));
}

/// What is told of n1 in so many tenths of a second, if it answers every probe over the reliable channel, and those of that
/// kind by a datagram in time.
fn told_of_one_channel(tenths: usize, by_datagram: impl Fn(usize) -> bool) -> Vec<Event> {
    let mut member = Member::with(&["n1"]);
    member.events();
    let (mut told, mut probes) = (Vec::new(), 0);
    for _ in 0..tenths {
        member.pass(100);
        let outputs = member.outputs();
        let ping = |bytes: &[u8], now| {
            let parts = read_message(bytes, LabelHash::of("test"), now).unwrap().parts;
            parts.iter().find_map(|part| match part {
                Part::Ping { number, .. } => Some(*number),
                _ => None,
            })
        };
        for output in outputs {
            match output {
                Output::Send { bytes, .. } => {
                    if let Some(number) = ping(&bytes, member.now) {
                        probes += 1;
                        if by_datagram(probes) {
                            member.datagram("n1", &[acknowledgement(number, life("n1", 1), 0)]);
                        }
                    }
                }
                Output::Ask { question, bytes, .. } => {
                    if let Some(number) = ping(&bytes, member.now) {
                        member.answered(question, "n1", &[acknowledgement(number, life("n1", 1), 0)]);
                    }
                }
                Output::Event(event @ Event::OneChannel { .. }) => told.push(event),
                _ => {}
            }
        }
    }
    assert!(probes > tenths / 30);
    assert_eq!(member.state("n1"), Some(State::Up));
    told
}

#[test]
fn m3_1_a_member_that_only_connections_reach_is_no_suspect_and_is_told_of() {
    let told = told_of_one_channel(60, |_| false);
    assert_eq!(told.len(), 1, "{told:?}");
    let Event::OneChannel { node, place: at, .. } = &told[0] else { panic!("{told:?}") };
    assert_eq!((node.as_str(), at), ("n1", &place("n1")));
    assert_eq!(told_of_one_channel(300, |probe| probe % 2 == 0), [], "datagrams are lost now and then");
}

#[test]
fn m2_1_a_joiner_that_answers_no_datagram_is_told_of_and_let_in_by_nobody() {
    let mut member = Member::new(&[]);
    member.asked("n1", &[Part::Join { label: "test".to_owned() }, Part::Record(record("n1", 1, 0, State::Up))]);
    member.pass(60_000);
    let told = |event: &Event| matches!(event, Event::OneChannel { node, .. } if node.as_str() == "n1");
    assert_eq!(member.events().iter().filter(|event| told(event)).count(), 1);
    assert_eq!(member.state("n1"), None);
}

/// n1 as it contradicts what is said of it, over the reliable channel.
fn contradicts(version: u64) -> [Part; 1] {
    [Part::Record(record("n1", 1, version, State::Up))]
}

#[test]
fn m3_2_m3_3_a_quarantined_member_is_not_let_in_by_an_exchange_either_and_is_told_so() {
    let mut member = Member::with(&["n1", "n2"]);
    let accusers: crate::membership::accusers::Accusers = std::iter::once(NodeId::new("n2").unwrap()).collect();
    let suspect = State::Suspect(accusers.clone());
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, suspect))]);
    // It is believed where it could have been contradicted.
    for _ in 0..20 {
        member.pass(100);
        member.datagram("n2", &[Part::Noted]);
    }
    let dead = State::Dead { accusers, quarantined_until: member.now + Duration::from_secs(10) };
    member.datagram("n2", &[Part::Record(record("n1", 1, 0, dead))]);
    assert!(matches!(member.state("n1"), Some(State::Dead { .. })));
    member.outputs();
    let refused =
        |member: &mut Member| member.sent().iter().any(|(to, part)| to == "n1" && matches!(part, Part::Refused(_)));
    member.asked("n1", &contradicts(1));
    assert!(refused(&mut member) && matches!(member.state("n1"), Some(State::Dead { .. })));
    member.answered(Question(1), "n1", &contradicts(1));
    assert!(refused(&mut member) && matches!(member.state("n1"), Some(State::Dead { .. })));
    // Whom another member has let in is in.
    member.answered(Question(1), "n2", &contradicts(1));
    assert_eq!(member.state("n1"), Some(State::Up));
}

#[test]
fn m3_4_a_member_that_is_kept_out_still_contradicts_to_whom_it_is_a_member() {
    let mut member = Member::with(&["n1", "n2"]);
    member.expel(60);
    let version = member.machine.own().version();
    let accusers = std::iter::once(NodeId::new("n2").unwrap()).collect();
    let suspect = Record::new(Arc::clone(member.machine.own().node()), version + 3, State::Suspect(accusers), 0);
    member.outputs();
    member.datagram("n2", &[Part::Record(suspect.unwrap().reached_at(7946))]);
    assert_eq!(member.machine.own().version(), version + 4);
    assert!(!member.machine.is_member(), "it waits all the same");
    // What others know of its death changes nothing before its time.
    let accusers = std::iter::once(NodeId::new("n2").unwrap()).collect();
    let dead = State::Dead { accusers, quarantined_until: member.now + Duration::from_secs(90) };
    let dead = Record::new(Arc::clone(member.machine.own().node()), version + 9, dead, 0).unwrap();
    member.datagram("n2", &[Part::Record(dead.reached_at(7946))]);
    assert_eq!(member.machine.own().version(), version + 4);
    member.pass(60_000);
    assert!(member.machine.is_member());
}

#[test]
fn m3_3_whoever_is_refused_as_dead_without_having_heard_of_it_contradicts_and_waits_when_refused_again() {
    let mut member = Member::with(&["n1", "n2"]);
    let accusers: crate::membership::accusers::Accusers = std::iter::once(NodeId::new("n2").unwrap()).collect();
    let left = Duration::from_secs(9);
    let refusal = || Part::Refused(Refusal::Quarantined { accusers: accusers.clone(), left });
    let version = member.machine.own().version();
    member.datagram("n1", &[Part::Refused(Refusal::KeptOut { left: None })]);
    assert_eq!(member.machine.own().version(), version, "an operator removes no member");
    member.datagram("n1", &[refusal()]);
    assert!(member.machine.is_member() && member.machine.own().version() == version + 1);
    member.datagram("n1", &[refusal()]);
    assert!(!member.machine.is_member());
    member.pass(9_000);
    assert!(member.machine.is_member());
}

#[test]
fn m4_1_m1_1_a_joiner_announces_nothing_before_it_is_let_in() {
    let mut joiner = Member::new(&["n1"]);
    joiner.datagram("n1", &[Part::Record(record("n2", 1, 0, State::Up))]);
    joiner.pass(1_000);
    assert!(joiner.members().is_empty());
    assert!(!joiner.events().iter().any(|event| matches!(event, Event::Topology(_))));
}

#[test]
fn m3_1_of_a_few_that_are_left_of_many_nobody_is_isolated_who_can_ask_whom_it_heard_last() {
    let mut member = Member::with(&["n1", "n2", "n3", "n4"]);
    member.events();
    let mut isolated = false;
    for _ in 0..300 {
        member.pass(20);
        let pinged = ping_to(&member.sent(), "n4");
        if let Some(number) = pinged {
            member.datagram("n4", &[acknowledgement(number, life("n4", 1), 0)]);
        }
        isolated |= member.machine.isolation.contact() != crate::membership::isolation::Contact::Heard;
    }
    assert!(!isolated, "n4 answers, whatever has become of the others");
}

#[test]
fn m3_1_of_a_member_that_left_it_is_not_remembered_that_datagrams_did_not_reach_it() {
    let mut member = Member::with(&["n1", "n2"]);
    let id = NodeId::new("n1").unwrap();
    assert!(!member.machine.reach.reliably_alone(&id) && !member.machine.reach.reliably_alone(&id));
    member.datagram("n1", &[Part::Record(record("n1", 1, 1, State::Left))]);
    assert!(!member.machine.reach.reliably_alone(&id), "it begins anew");
}
