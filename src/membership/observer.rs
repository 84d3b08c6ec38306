//! A process that is no member and has the view of one: it asks a member what has changed, and another one when that does
//! not answer, sends it on, or tells what does not fit together.
//!
//! It is neither probed nor in anybody's table. What it holds is checked against the hash that the member tells; where that
//! differs it asks for everything once more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::machine::Question;
use super::message::{LabelHash, Message, MessageWriter, read_message};
use super::place::Place;
use super::record::{Life, Record};
use super::settling::TopologyUpdate;
use super::wire::part::{Gone, Part};
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::topology::{Members, NodeId};

/// How soon another member is asked when one has failed, and how late at the most: twice as late each time.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The most members that are remembered as those who may be asked, beside the seeds.
const KNOWN: usize = 64;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A question over the reliable channel; it has to be answered, if with a failure.
    Ask { question: Question, to: Place, bytes: Vec<u8> },
    /// The view has changed.
    Topology(TopologyUpdate),
    /// That member is asked from now on.
    Follows { at: Timestamp, member: Place },
    /// That member is not asked any more.
    Leaves { at: Timestamp, member: Place },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Observer {
    label: LabelHash,
    own: Life,
    seeds: Vec<Place>,
    known: Vec<Place>,
    /// Who has answered last.
    follows: Option<Place>,
    asked: Option<(Question, Place)>,
    /// When somebody is asked next.
    ask_at: Timestamp,
    failures: u32,
    members: Members,
    /// What is held does not fit together with what was told.
    is_doubtful: bool,
    number: u64,
    questions: u64,
    jitter: Jitter,
    deeds: VecDeque<Deed>,
}

impl Observer {
    /// One that asks the seeds of that cluster at `now`. `own`: as what it names itself. `seed`: of its randomness.
    pub(super) fn new(label: &str, own: Life, seeds: Vec<Place>, seed: u64, now: Timestamp) -> Self {
        Self {
            label: LabelHash::of(label),
            own,
            seeds,
            known: Vec::new(),
            follows: None,
            asked: None,
            ask_at: now,
            failures: 0,
            members: Members::new(),
            is_doubtful: false,
            number: 0,
            questions: 0,
            jitter: Jitter::new(seed),
            deeds: VecDeque::new(),
        }
    }

    /// The seeds are there.
    pub(super) fn find_seeds(&mut self, places: Vec<Place>) {
        self.seeds = places;
    }

    /// The members as they were told last: also while nobody answers.
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Whom it follows; absent while nobody answers.
    pub(super) fn follows(&self) -> Option<&Place> {
        self.follows.as_ref()
    }

    /// The next thing to be done.
    pub(super) fn deed(&mut self) -> Option<Deed> {
        self.deeds.pop_front()
    }

    /// When it has to be called at the latest; while a question is open there is nothing to be done.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.asked.is_none().then_some(self.ask_at)
    }

    /// Time has passed.
    pub(super) fn pass(&mut self, now: Timestamp) {
        if self.asked.is_some() || now < self.ask_at {
            return;
        }
        let Some(to) = self.follows.clone().or_else(|| self.somebody()) else { return };
        self.ask(to, now);
    }

    /// The question was answered, or not: `None`.
    pub(super) fn answered(&mut self, question: Question, answer: Option<&[u8]>, now: Timestamp) {
        let Some((_, member)) = self.asked.take_if(|(asked, _)| *asked == question) else { return };
        let message = answer.and_then(|bytes| read_message(bytes, self.label, now).ok());
        let is_told = message.is_some_and(|message| self.told(&member, message, now));
        if is_told {
            self.failures = 0;
            if self.follows.as_ref() != Some(&member) {
                self.follows = Some(member.clone());
                self.deeds.push_back(Deed::Follows { at: now, member });
            }
        } else {
            self.leave(now);
        }
        self.pass(now);
    }

    /// It looks for another member.
    fn leave(&mut self, now: Timestamp) {
        if let Some(member) = self.follows.take() {
            self.deeds.push_back(Deed::Leaves { at: now, member });
        }
        let (first, longest) = AGAIN;
        let pause = first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.ask_at = now + self.jitter.scale(pause, 0.5);
    }

    fn somebody(&mut self) -> Option<Place> {
        let all = self.seeds.len() + self.known.len();
        let chosen = (self.jitter.next() % all.max(1) as u64) as usize;
        self.seeds.iter().chain(&self.known).nth(chosen).cloned()
    }

    fn ask(&mut self, to: Place, now: Timestamp) {
        self.questions += 1;
        let question = Question(self.questions);
        let mut message = MessageWriter::new(self.label, &self.own);
        let hash = if self.is_doubtful { 0 } else { self.members.hash() };
        message.part(&Part::Observe { hash }, now);
        self.asked = Some((question, to.clone()));
        self.deeds.push_back(Deed::Ask { question, to, bytes: message.into_bytes() });
    }

    /// A member has said something; whether that is what it was asked for.
    fn told(&mut self, member: &Place, message: Message, now: Timestamp) -> bool {
        let (mut said, mut records) = (None, Vec::new());
        for part in message.parts {
            match part {
                Part::Observed { hash, is_whole, gone } => said = Some((hash, is_whole, gone)),
                Part::Record(record) => records.push(record),
                Part::Elsewhere(places) => self.known = places,
                _ => {}
            }
        }
        let Some((hash, is_whole, gone)) = said else { return false };
        let mut members = if is_whole { Members::new() } else { self.members.clone() };
        gone.iter().for_each(|gone| _ = members.remove(&gone.id));
        records.iter().for_each(|record| _ = members.insert(Arc::clone(record.node())));
        if members.hash() != hash {
            // What does not fit to the rest is asked for as a whole; if that does not help it is the member's fault.
            return !std::mem::replace(&mut self.is_doubtful, true) && !is_whole;
        }
        self.is_doubtful = false;
        self.remember(member, &records);
        self.announce(members, &gone, now);
        true
    }

    /// Who may be asked when this member is gone.
    fn remember(&mut self, member: &Place, records: &[Record]) {
        for place in records.iter().map(Record::place) {
            if place == *member || self.known.contains(&place) || self.seeds.contains(&place) {
                continue;
            }
            if self.known.len() < KNOWN {
                self.known.push(place);
            } else {
                let replaced = (self.jitter.next() % KNOWN as u64) as usize;
                self.known[replaced] = place;
            }
        }
    }

    fn announce(&mut self, members: Members, gone: &[Gone], now: Timestamp) {
        let has_died = |id: &NodeId| gone.iter().any(|gone| gone.is_dead && gone.id == *id);
        if let Some(update) = TopologyUpdate::between((self.number + 1, now), &self.members, members, has_died) {
            self.number = update.number;
            self.members = update.members.clone();
            self.deeds.push_back(Deed::Topology(update));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::record::State;
    use crate::topology::ClusterNode;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn place(name: &str) -> Place {
        Place::new(name, 7946)
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn record(name: &str) -> Record {
        let node = ClusterNode::builder(name, name, 7000).incarnation(1).build().unwrap();
        Record::new(Arc::new(node), 0, State::Up, 0).unwrap().reached_at(7946)
    }

    fn members(names: &[&str]) -> Members {
        let mut members = Members::new();
        names.iter().for_each(|name| _ = members.insert(Arc::clone(record(name).node())));
        members
    }

    fn observer() -> Observer {
        Observer::new("test", Life { id: id("o"), incarnation: 1 }, vec![place("n0")], 1, at(0))
    }

    fn deeds(observer: &mut Observer) -> Vec<Deed> {
        std::iter::from_fn(|| observer.deed()).collect()
    }

    /// The question asked last: of whom, and which hash was named.
    fn asked(deeds: &[Deed]) -> Option<(Question, String, u64)> {
        deeds.iter().rev().find_map(|deed| match deed {
            Deed::Ask { question, to, bytes } => {
                let message = read_message(bytes, LabelHash::of("test"), at(0)).unwrap();
                let [Part::Observe { hash }] = message.parts[..] else { panic!("{message:?}") };
                Some((*question, to.host().to_owned(), hash))
            }
            _ => None,
        })
    }

    fn answer(parts: &[Part]) -> Vec<u8> {
        let mut writer = MessageWriter::new(LabelHash::of("test"), &Life { id: id("n0"), incarnation: 1 });
        parts.iter().for_each(|part| writer.part(part, at(0)));
        writer.into_bytes()
    }

    fn observed(hash: u64, is_whole: bool, gone: &[(&str, bool)], come: &[&str]) -> Vec<u8> {
        let gone = gone.iter().map(|(name, is_dead)| Gone { id: id(name), is_dead: *is_dead }).collect();
        let mut parts = vec![Part::Observed { hash, is_whole, gone }];
        parts.extend(come.iter().map(|name| Part::Record(record(name))));
        answer(&parts)
    }

    /// One that holds n0 to n2.
    fn following() -> (Observer, Question) {
        let mut observer = observer();
        observer.pass(at(0));
        let (question, _, hash) = asked(&deeds(&mut observer)).unwrap();
        assert_eq!(hash, 0);
        let all = ["n0", "n1", "n2"];
        observer.answered(question, Some(&observed(members(&all).hash(), true, &[], &all)), at(1));
        let told = deeds(&mut observer);
        assert!(matches!(&told[0], Deed::Topology(update) if update.joined.len() == 3 && update.number == 1));
        assert!(told.contains(&Deed::Follows { at: at(1), member: place("n0") }));
        let (question, _, hash) = asked(&told).unwrap();
        assert_eq!(hash, members(&all).hash());
        (observer, question)
    }

    #[test]
    fn m1_4_an_observer_asks_the_seeds_that_were_found_last() {
        let mut observer = observer();
        observer.find_seeds(vec![place("n7")]);
        observer.pass(at(0));
        assert_eq!(asked(&deeds(&mut observer)).map(|(_, host, _)| host), Some("n7".to_owned()));
    }

    #[test]
    fn m1_5_m4_1_an_observer_learns_the_view_and_each_change_of_it_with_its_reason() {
        let (mut observer, question) = following();
        let hash = members(&["n0", "n3"]).hash();
        observer.answered(question, Some(&observed(hash, false, &[("n1", true), ("n2", false)], &["n3"])), at(2));
        let told = deeds(&mut observer);
        let Deed::Topology(update) = &told[0] else { panic!("{told:?}") };
        let names = |nodes: &[Arc<ClusterNode>]| nodes.iter().map(|node| node.id().to_string()).collect::<Vec<_>>();
        assert_eq!(
            (names(&update.joined), names(&update.left), names(&update.dead)),
            (vec!["n3".into()], vec!["n2".into()], vec!["n1".into()])
        );
        assert_eq!(observer.members(), &members(&["n0", "n3"]));
    }

    #[test]
    fn m4_2_a_sign_of_life_announces_nothing_and_is_followed_by_the_next_question() {
        let (mut observer, question) = following();
        observer.answered(question, Some(&observed(observer.members().hash(), false, &[], &[])), at(2));
        let told = deeds(&mut observer);
        assert!(matches!(told[..], [Deed::Ask { .. }]), "{told:?}");
        assert_eq!(observer.next_at(), None, "the question is open");
    }

    #[test]
    fn m1_5_when_its_member_is_gone_it_asks_another_and_keeps_what_it_holds() {
        let (mut observer, question) = following();
        observer.answered(question, None, at(10));
        assert!(deeds(&mut observer).contains(&Deed::Leaves { at: at(10), member: place("n0") }));
        assert_eq!((observer.members().len(), observer.follows()), (3, None));
        let mut now = at(10);
        let mut hosts = std::collections::BTreeSet::new();
        for _ in 0..30 {
            let next = observer.next_at().unwrap();
            assert!(next.since(now) <= Duration::from_secs(10));
            now = next;
            observer.pass(now);
            let (question, host, hash) = asked(&deeds(&mut observer)).unwrap();
            assert_eq!(hash, observer.members().hash(), "the difference suffices");
            hosts.insert(host);
            observer.answered(question, None, now);
        }
        assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["n0", "n1", "n2"]);
    }

    #[test]
    fn m2_5_what_does_not_fit_to_the_rest_is_asked_for_as_a_whole_and_a_whole_that_does_not_is_not_believed() {
        let (mut observer, question) = following();
        observer.answered(question, Some(&observed(77, false, &[], &["n9"])), at(2));
        let (question, host, hash) = asked(&deeds(&mut observer)).unwrap();
        assert_eq!((host.as_str(), hash, observer.members().len()), ("n0", 0, 3));
        for is_whole in [true, false] {
            let mut observer = following().0;
            observer.is_doubtful = true;
            let question = observer.asked.clone().unwrap().0;
            observer.answered(question, Some(&observed(77, is_whole, &[], &["n9"])), at(3));
            assert_eq!((observer.members().len(), observer.follows()), (3, None), "it does not go on for ever");
        }
        observer.answered(question, Some(&observed(77, true, &[], &["n9"])), at(3));
        assert!(deeds(&mut observer).contains(&Deed::Leaves { at: at(3), member: place("n0") }));
        assert_eq!(observer.members().len(), 3);
        for nonsense in [&b""[..], b"x", &answer(&[Part::Noted])] {
            let (mut observer, question) = following();
            observer.answered(question, Some(nonsense), at(3));
            assert_eq!((observer.members().len(), observer.follows()), (3, None));
        }
    }

    #[test]
    fn m1_5_a_member_without_room_sends_it_on_and_an_answer_to_another_question_counts_for_nothing() {
        let mut observer = observer();
        observer.pass(at(0));
        let (question, ..) = asked(&deeds(&mut observer)).unwrap();
        observer.answered(Question(99), Some(&answer(&[Part::Noted])), at(1));
        assert_eq!(observer.next_at(), None);
        observer.answered(question, Some(&answer(&[Part::Elsewhere(vec![place("n5")])])), at(1));
        let mut hosts = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let now = observer.next_at().unwrap();
            observer.pass(now);
            let (question, host, _) = asked(&deeds(&mut observer)).unwrap();
            hosts.insert(host);
            observer.answered(question, None, now);
        }
        assert!(hosts.contains("n5"));
    }

    #[test]
    fn m1_5_each_failure_in_a_row_makes_it_wait_twice_as_long_up_to_ten_seconds() {
        let (mut observer, mut question) = following();
        for _ in 0..2 {
            let mut now = at(10);
            for longest in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
                observer.answered(question, None, now);
                let next = observer.next_at().unwrap();
                let pause = next.since(now).as_millis();
                assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
                deeds(&mut observer);
                observer.pass(next);
                (question, ..) = asked(&deeds(&mut observer)).unwrap();
                now = next;
            }
            let sign = observed(observer.members().hash(), false, &[], &[]);
            observer.answered(question, Some(&sign), now);
            assert!(observer.follows().is_some());
            (question, ..) = asked(&deeds(&mut observer)).expect("it goes on at once");
        }
        let mut fresh = super::tests::observer();
        fresh.pass(at(0));
        fresh.answered(Question(1), None, at(0));
        assert!(fresh.next_at().unwrap().since(at(0)) <= Duration::from_millis(200));
    }

    #[test]
    fn m1_5_it_follows_who_answers_and_each_question_has_a_number_of_its_own() {
        let (mut observer, question) = following();
        assert_eq!((observer.follows(), question), (Some(&place("n0")), Question(2)));
        let hash = members(&["n9"]).hash();
        observer.answered(Question(1), Some(&observed(hash, true, &[], &["n9"])), at(2));
        assert_eq!(observer.members().len(), 3, "that one was answered before");
    }

    #[test]
    fn m2_5_a_difference_to_what_it_does_not_hold_is_asked_for_as_a_whole_which_ends_the_doubt() {
        let mut observer = observer();
        observer.pass(at(0));
        let (question, ..) = asked(&deeds(&mut observer)).unwrap();
        observer.answered(question, Some(&observed(77, false, &[], &["n9"])), at(1));
        let (question, host, hash) = asked(&deeds(&mut observer)).expect("the same member is asked at once");
        assert_eq!((host.as_str(), hash), ("n0", 0));
        let whole = members(&["n0", "n1"]).hash();
        observer.answered(question, Some(&observed(whole, true, &[], &["n0", "n1"])), at(2));
        let (_, _, hash) = asked(&deeds(&mut observer)).unwrap();
        assert_eq!(hash, whole, "from here on the difference suffices");
    }

    #[test]
    fn m2_5_of_the_members_each_place_is_remembered_once_and_no_more_than_there_is_room_for() {
        let mut observer = observer();
        let records = |names: &[&str]| names.iter().map(|name| record(name)).collect::<Vec<_>>();
        observer.remember(&place("m"), &records(&["m", "n0", "n1", "n1", "n2"]));
        assert_eq!(observer.known, [place("n1"), place("n2")], "neither whom it asks now nor a seed");
        let many: Vec<_> = (0..200).map(|n| record(&format!("x{n:03}"))).collect();
        observer.remember(&place("m"), &many[..KNOWN - 2]);
        assert_eq!((observer.known.len(), &observer.known[0]), (KNOWN, &place("n1")), "there was room");
        observer.remember(&place("m"), &many);
        assert_eq!(observer.known.len(), KNOWN);
        assert!(many[150..].iter().any(|record| observer.known.contains(&record.place())), "some make room");
    }
}
