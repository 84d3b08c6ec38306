//! A member: how the parts work together.
//!
//! What arrives is handed in before the time that has passed (`Input::Time`), so that nobody is blamed for an answer that is
//! there already. What is to be done comes out: datagrams, questions over the reliable channel, answers to such questions,
//! and what is told to the program. A question is answered once, if with a failure; a datagram may never arrive.
//!
//! `admission` lets others in, `joining` is how this node comes in and leaves, `probing` asks who lives, and `exchange` makes
//! alike what two members know; `observing` tells the view to processes that are no members.

mod admission;
mod exchange;
mod joining;
mod observing;
mod probing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use self::admission::Admissions;
use self::exchange::Exchanges;
use self::joining::{Claim, Phase};
use self::observing::Observers;
use self::probing::Probes;
use super::convergence::Convergence;
use super::event::{Event, MemberState};
use super::heard::Heard;
use super::isolation::{Contact, Isolation};
use super::local_health::{LocalHealth, Sign};
use super::loss::Loss;
use super::message::{LabelHash, Message, MessageWriter, read_datagram, read_message};
use super::place::Place;
use super::probe_round::ProbeRound;
use super::quarantine::{self, Quarantined, Refusal};
use super::record::{Life, Record, State};
use super::rulings::Ruling;
use super::rumours::{self, Class, Rumours, Subject};
use super::settings::Settings;
use super::settling::{Departure, Settling, Waiting};
use super::suspicion::Bounds;
use super::table::{Change, Table, Way};
use super::wire::Writer;
use super::wire::part::{Part, write_part};
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::topology::{ClusterNode, Members, NodeId};

/// How often those who have been gone for long are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// How soon a rumour is sent where none was of late: what is learned in the same moment goes with it.
const SOON: Duration = Duration::from_millis(10);

/// A question over the reliable channel, which is answered once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Question(pub(super) u64);

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// A datagram arrived.
    Datagram { from: Place, bytes: Vec<u8> },
    /// Somebody asks over the reliable channel; the answer goes back with that number.
    Asked { channel: u64, bytes: Vec<u8> },
    /// A question was answered, or could not be asked; `None` where nobody answered at all.
    Answered { question: Question, answer: Option<Vec<u8>> },
    /// Nothing more is at hand, and it is now.
    Time,
    /// This node is to leave.
    Leave,
    /// An operator has ruled about that id.
    Rule { id: NodeId, order: Order },
    /// This node's kinds and metadata are those from now on.
    Describe(Arc<ClusterNode>),
}

/// What an operator wants with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It is not let in, for so long or until that is lifted. A member stays one until it is gone.
    Pin(Option<Duration>),
    /// It is let in, whatever it waits for now.
    Lift,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// A datagram, which may be lost.
    Send { to: Place, bytes: Vec<u8> },
    /// A question over the reliable channel.
    Ask { question: Question, to: Place, bytes: Vec<u8> },
    /// The answer to a question.
    Answer { channel: u64, bytes: Vec<u8> },
    /// The program is told.
    Event(Event),
}

/// A deadline of the member as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The next probe begins.
    Probe,
    /// Rumours are sent.
    Gossip,
    /// A seed, or somebody who is dead, is asked whether it is there.
    Seeds,
    /// This node asks to be let in.
    Join,
    /// What is known is exchanged once more after the join.
    Confirm,
    /// Another holder of this node's id is asked once more whether it is there.
    Claim,
    /// This node, which was declared dead, may return.
    Return,
    /// This node has waited long enough for somebody to note that it leaves.
    Leave,
    /// Those who have been gone for long are forgotten.
    Sweep,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    label: LabelHash,
    /// Itself, as it is told to others.
    own: Record,
    phase: Phase,
    claim: Option<Claim>,
    /// It came back after it was declared dead, and nobody has agreed with it since.
    returns: bool,
    seeds: Vec<Place>,
    table: Table,
    round: ProbeRound,
    probes: Probes,
    admissions: Admissions,
    exchanges: Exchanges,
    observers: Observers,
    rumours: Rumours,
    heard: Heard,
    settling: Settling,
    convergence: Convergence,
    isolation: Isolation,
    health: LocalHealth,
    loss: Loss,
    timers: BTreeMap<Timer, Timestamp>,
    /// When rumours were last sent for their own sake.
    gossiped: Option<Timestamp>,
    jitter: Jitter,
    /// How often what is known was exchanged once more after the join.
    confirmed: usize,
    /// Counts pings and questions.
    count: u64,
    outputs: VecDeque<Output>,
    /// When the machine had to be called at the latest.
    expected: Timestamp,
}

impl Machine {
    /// A node that begins at `now`. Where it is a seed itself, or there is none, it is the first member; else it asks the
    /// seeds to be let in. `None` if its incarnation is beyond what anybody could contradict.
    pub(super) fn new(
        settings: Settings,
        (node, gossip_port): (Arc<ClusterNode>, u16),
        seeds: Vec<Place>,
        seed: u64,
        now: Timestamp,
    ) -> Option<Self> {
        let own = Record::new(node, 0, State::Up, 0)?.reached_at(gossip_port);
        let mut jitter = Jitter::new(seed);
        let mut machine = Self {
            label: LabelHash::of(&settings.label),
            phase: Phase::Joining,
            claim: None,
            returns: false,
            table: Table::default(),
            round: ProbeRound::new(jitter.next()),
            probes: Probes::default(),
            admissions: Admissions::new(now),
            exchanges: Exchanges::new(now),
            observers: Observers::default(),
            rumours: Rumours::default(),
            heard: Heard::new(jitter.next()),
            settling: Settling::default(),
            convergence: Convergence::begin(vec![own.id().clone()], 0, own.id(), now),
            isolation: Isolation::new(settings.isolation, now),
            health: LocalHealth::default(),
            loss: Loss::default(),
            timers: BTreeMap::from([(Timer::Sweep, now + SWEEP)]),
            gossiped: None,
            jitter,
            confirmed: 0,
            count: 0,
            outputs: VecDeque::new(),
            expected: now,
            settings,
            own,
            seeds,
        };
        machine.begin(now);
        machine.settle(now);
        machine.expected = machine.next_at();
        Some(machine)
    }

    /// The next thing to be done.
    pub(super) fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The members as they were announced last.
    pub(super) fn members(&self) -> &Members {
        self.settling.announced()
    }

    /// What is known of everybody.
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Itself, as it is told to others.
    pub(super) fn own(&self) -> &Record {
        &self.own
    }

    /// What has to hold between two steps, whatever arrives.
    ///
    /// # Errors
    /// What does not.
    pub(super) fn check(&self) -> Result<(), String> {
        let active = self.table.active();
        if self.round.len() > active {
            return Err(format!("{} to be probed of {active}", self.round.len()));
        }
        if self.phase == Phase::Member && !self.table.get(self.own.id()).is_some_and(|own| own.state().is_active()) {
            return Err("a member that is none at itself".to_owned());
        }
        let known = self.table.len() + self.table.rulings().len();
        let bounds = [
            ("rumours", self.rumours.len(), known),
            ("observers", self.observers.len(), self.settings.observers),
            ("relayed pings", self.probes.relayed(), probing::RELAYED),
            ("exchanges", self.exchanges.under_way(), exchange::UNDER_WAY),
            ("unverified lives", self.exchanges.unverified(), exchange::VERIFIED),
            ("joiners", self.admissions.len(), self.settings.joins_per_second * 4),
        ];
        let beyond = bounds.into_iter().find(|(_, count, most)| count > most);
        beyond.map_or(Ok(()), |(what, count, most)| Err(format!("{count} {what}, and {most} at the most")))
    }

    /// Where it is on its way, and what it waits for.
    pub(super) fn standing(&self) -> String {
        let records = self.table.all().map(|record| format!("{} {:?}", record.id(), record.state()));
        let records = records.collect::<Vec<_>>().join(", ");
        format!("{:?} {:?} {:?}; {records}", self.phase, self.timers, self.isolation.contact())
    }

    /// Whether it is a member, and not on its way in or out.
    pub(super) fn is_member(&self) -> bool {
        self.phase == Phase::Member
    }

    /// Everybody who would not be let in now, in the order of the ids.
    pub(super) fn quarantined(&self, now: Timestamp) -> Vec<Quarantined> {
        self.table.quarantined(now)
    }

    /// Whether it has ended.
    pub(super) fn has_left(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Since when all active members have been known to hold the same.
    pub(super) fn converged(&self) -> Option<Timestamp> {
        self.convergence.since().filter(|_| self.phase == Phase::Member)
    }

    /// When the machine has to be called at the latest.
    pub(super) fn next_at(&self) -> Timestamp {
        let waiting = self.waiting();
        let suspicion = self.table.next_at().filter(|_| waiting != Waiting::Isolated && self.phase == Phase::Member);
        let settling = self.settling.next_at(waiting, self.expected);
        [
            self.timers.values().copied().min(),
            self.probes.next_at(),
            self.admissions.next_at(),
            self.exchanges.next_at(self.settings.probe.period),
            self.observers.next_at(),
            suspicion,
            settling,
            self.isolation.next_at(self.table.active()).filter(|_| self.phase == Phase::Member),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(self.expected + SWEEP)
    }

    /// Takes an input and decides.
    pub(super) fn handle(&mut self, now: Timestamp, input: Input) {
        if self.phase == Phase::Gone {
            return;
        }
        self.notice_standstill(now);
        let is_time = matches!(input, Input::Time);
        match input {
            Input::Datagram { from, bytes } => match read_datagram(&bytes, self.label, &self.heard, now) {
                Ok(message) => self.heard(&from, message, now),
                Err(why) => self.tell(Event::Unusable { from: Some(from), why }),
            },
            Input::Asked { channel, bytes } => match read_message(&bytes, self.label, now) {
                Ok(message) => self.asked(channel, message, now),
                Err(why) => self.tell(Event::Unusable { from: None, why }),
            },
            Input::Answered { question, answer } => self.answered(question, answer, now),
            Input::Time => self.pass(now),
            Input::Leave => self.leave(now),
            Input::Rule { id, order } => self.rule(&id, order, now),
            Input::Describe(node) => self.describe(&node, now),
        }
        self.settle(now);
        debug_assert!(!is_time || self.next_at() > now, "something that is due was not done");
        self.expected = self.next_at().max(now);
    }

    /// A machine that was called far too late stood still with its whole process. Nobody is to blame for what it could not
    /// hear meanwhile.
    fn notice_standstill(&mut self, now: Timestamp) {
        if now.since(self.expected) < self.settings.probe.period * 2 {
            return;
        }
        self.probes.restart(now);
        self.table.restart(now);
        self.isolation.stood_still(now);
        self.health.note(Sign::StoodStill);
        // What was missed is asked for before anybody is contradicted.
        self.exchanges.hurry();
        self.timers.values_mut().filter(|at| **at < now).for_each(|at| *at = now);
        self.expected = now;
        self.tell(Event::StoodStill { at: now });
    }

    /// All that is due by now.
    fn pass(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.iter().find(|(_, at)| **at <= now).map(|(timer, _)| *timer) {
            self.timers.remove(&timer);
            match timer {
                Timer::Probe => self.begin_probe(now),
                Timer::Gossip => self.gossip(now),
                Timer::Seeds => self.look_for_others(now),
                Timer::Join => self.ask_to_join(now),
                Timer::Confirm => self.confirm_join(now),
                Timer::Claim => self.advance_claim(now),
                Timer::Return => self.come_back(now),
                Timer::Leave => self.end(now),
                Timer::Sweep => {
                    if self.table.sweep(now) > 0 {
                        self.heard.forget();
                    }
                    self.timers.insert(Timer::Sweep, now + SWEEP);
                }
            }
        }
        self.advance_probes(now);
        self.advance_admissions(now);
        self.advance_exchanges(now);
        self.answer_observers(now);
        if self.phase == Phase::Member {
            self.advance_isolation(now);
            self.advance_suspicions(now);
        }
    }

    /// Somebody's datagram.
    fn heard(&mut self, from: &Place, message: Message, now: Timestamp) {
        self.is_heard(&message.sender, now);
        let Message { sender, parts, fingerprints } = message;
        let mut fingerprints = fingerprints.into_iter();
        for part in parts {
            match part {
                Part::Ping { number, subject: _, digest } => self.pinged(from, &sender, number, digest, now),
                Part::Acknowledgement { number, life, digest, hash, confirmed } => {
                    self.compare(&sender, Some(from), digest, now);
                    self.convergence.hear(&sender.id, hash, &confirmed, now);
                    self.acknowledged(number, &life, now);
                }
                Part::PingRequest { number, subject, place, time_left } => {
                    self.relay(from.clone(), number, subject, place, time_left, now);
                }
                Part::Nack(number) => self.probes.unanswered_at(&sender.id, number),
                Part::Record(record) => {
                    let fingerprint = fingerprints.next();
                    let is_of_itself = record.id() == self.own.id();
                    self.learn(record, Way::Rumour, Some((&sender, from)), now);
                    // What is said of this node itself counts another time, where it did not this time.
                    if let Some(fingerprint) = fingerprint.filter(|_| !is_of_itself) {
                        self.heard.note(fingerprint, self.table.active());
                    }
                }
                Part::Refused(refusal) => self.refused(refusal, now),
                Part::Ruling { id, ruling } => self.hear_ruling(&id, &ruling, now),
                // These are said over the reliable channel only.
                Part::Join { .. }
                | Part::Welcome { .. }
                | Part::Elsewhere(_)
                | Part::Noted
                | Part::Buckets(_)
                | Part::Differing(_)
                | Part::Observe { .. }
                | Part::Observed { .. } => {}
            }
        }
    }

    /// Somebody, or somebody's host, was heard.
    fn is_heard(&mut self, sender: &Life, now: Timestamp) {
        if sender.id == *self.own.id() {
            return;
        }
        if let Some(silent_since) = self.isolation.heard(now) {
            self.tell(Event::Reached { at: now });
            // What was suspected meanwhile says nothing; and what was missed is asked for before anybody is judged.
            self.table.restart_since(silent_since, now);
            self.exchanges.hurry();
        }
    }

    /// Somebody says that of a node. `by`: who, where it was said in a datagram.
    fn learn(&mut self, record: Record, way: Way, by: Option<(&Life, &Place)>, now: Timestamp) {
        if record.id() == self.own.id() {
            return self.hear_of_itself(&record, now);
        }
        let known = self.table.get(record.id());
        let is_member = known.is_some_and(|known| known.state().is_active());
        if let Some((_, from)) = by.filter(|(sender, _)| sender.id == *record.id())
            && record.state().is_active()
            && !is_member
            && let Err(refusal) = self.admit(&record, now)
        {
            self.tell(Event::TurnedAway { at: now, node: record.id().clone(), refusal: refusal.clone() });
            return self.send(from.clone(), &[Part::Refused(refusal)], now);
        }
        let is_new_life = known.is_none_or(|known| known.node().incarnation() < record.node().incarnation());
        if way == Way::Exchange && is_new_life && record.state().is_active() {
            // It may have been dead for long where the other comes from: first it has to answer.
            return self.verify(record, now);
        }
        self.hear(&record, way, now);
    }

    /// Whether a node may be let in that is none of the members.
    fn admit(&self, record: &Record, now: Timestamp) -> Result<(), Refusal> {
        let (known, ruling) = (self.table.get(record.id()), self.table.rulings().get(record.id()));
        quarantine::admit(known, ruling, record.node().incarnation(), self.settings.quarantine_new_lives, now)
    }

    /// Somebody holds that ruling about the id.
    fn hear_ruling(&mut self, id: &NodeId, ruling: &Ruling, now: Timestamp) {
        if !self.table.rule(id, ruling) {
            return;
        }
        self.exchanges.changed(now);
        self.tell(Event::Ruled { at: now, node: id.clone(), sentence: ruling.sentence().clone() });
        let part = Part::Ruling { id: id.clone(), ruling: ruling.clone() };
        self.tell_everybody(Subject::Ruling(id.clone()), Class::Fate, &part, now);
        if id == self.own.id() {
            self.is_ruled(ruling.sentence(), now);
        }
    }

    /// Somebody says that of another node, and it counts.
    fn hear(&mut self, record: &Record, way: Way, now: Timestamp) {
        let bounds = self.bounds();
        if let Some(change) = self.table.hear(record, way, bounds, now) {
            self.apply(&change, true, now);
        }
    }

    /// What follows from a change of what is known. `spread`: whether others are to be told.
    fn apply(&mut self, change: &Change, spread: bool, now: Timestamp) {
        let Change { before, now: record } = change;
        let is_own = record.id() == self.own.id();
        if record.state().is_active() {
            self.settling.is_active(Arc::clone(record.node()));
            if !is_own {
                self.round.add(record.id().clone());
            }
        } else {
            let departure = if record.state() == &State::Left { Departure::Left } else { Departure::Dead };
            self.settling.departs(record.id(), departure, now);
            self.round.remove(record.id());
            self.probes.forget(record.id());
        }
        self.exchanges.changed(now);
        self.tell_transition(before.as_ref(), record, now);
        if spread {
            self.spread(before.as_ref(), record, now);
        }
        let was_suspected = before.as_ref().is_some_and(|before| matches!(before.state(), State::Suspect(_)));
        if let State::Suspect(accusers) = record.state()
            && !is_own
        {
            let is_new = !was_suspected || before.as_ref().is_some_and(|before| before.version() != record.version());
            if is_new {
                // Whom others accuse is asked next by some: independent accusers are what shortens a suspicion.
                let odds = self.table.active().max(1) as u64;
                let by_itself = accusers.iter().any(|accuser| accuser == self.own.id());
                if !by_itself && self.jitter.next() % odds < 4 {
                    self.round.hurry(record.id());
                    self.timers.entry(Timer::Probe).and_modify(|at| *at = now);
                }
                self.send(record.place(), &[Part::Record(record.clone())], now);
            }
        }
    }

    fn tell_transition(&mut self, before: Option<&Record>, record: &Record, now: Timestamp) {
        let state = |record: &Record| match record.state() {
            State::Up => MemberState::Up,
            State::Suspect(_) => MemberState::Suspect,
            State::Dead { .. } => MemberState::Dead,
            State::Left => MemberState::Left,
        };
        let (from, to) = (before.map(state), state(record));
        if from != Some(to) {
            let node = Arc::clone(record.node());
            self.tell(Event::Transition { at: now, node, from, to });
            if let State::Dead { quarantined_until: until, .. } = record.state() {
                self.tell(Event::Quarantined { at: now, node: record.id().clone(), until: *until });
            }
        }
    }

    fn spread(&mut self, before: Option<&Record>, record: &Record, now: Timestamp) {
        let was_in_doubt = before.is_some_and(|before| before.state() != &State::Up);
        let class = match record.state() {
            _ if record.id() == self.own.id() => Class::Own,
            State::Up if !was_in_doubt => Class::Other,
            _ => Class::Fate,
        };
        self.tell_everybody(Subject::Record(record.id().clone()), class, &Part::Record(record.clone()), now);
    }

    fn tell_everybody(&mut self, subject: Subject, class: Class, part: &Part, now: Timestamp) {
        let mut writer = Writer::default();
        write_part(&mut writer, part, now);
        self.rumours.spread(subject, class, Arc::from(writer.into_bytes()));
        // News of life and death go out almost at once, and those after them at the pace of gossip. Whoever joins waits for
        // others who do, for whoever hears of it now may be few.
        let at = match (class, self.gossiped) {
            (Class::Own | Class::Other, _) => now + self.settings.gossip_interval,
            (Class::Fate, None) => now + SOON,
            (Class::Fate, Some(last)) => (last + self.settings.gossip_interval).max(now + SOON),
        };
        self.timers.entry(Timer::Gossip).and_modify(|known| *known = at.min(*known)).or_insert(at);
    }

    /// Sends rumours to a few members.
    fn gossip(&mut self, now: Timestamp) {
        self.gossiped = Some(now);
        for id in self.round.some(self.settings.gossip_fanout, None) {
            if self.rumours.is_empty() {
                return;
            }
            if let Some(place) = self.table.get(&id).map(Record::place) {
                self.send(place, &[], now);
            }
        }
        if !self.rumours.is_empty() {
            self.timers.insert(Timer::Gossip, now + self.settings.gossip_interval);
        }
    }

    fn advance_isolation(&mut self, now: Timestamp) {
        match self.isolation.advance(self.table.active(), now) {
            Some(Contact::Isolated(_)) => self.tell(Event::Isolated { at: now }),
            Some(Contact::GivenUp(_)) => self.tell(Event::GivenUp { at: now }),
            Some(Contact::Heard) | None => {}
        }
    }

    fn advance_suspicions(&mut self, now: Timestamp) {
        if self.isolation.holds_deaths() {
            return;
        }
        // Who is given more time may have had that long ago.
        self.table.expired(now).iter().for_each(|id| _ = self.table.stretch(id, self.health.score()));
        for id in self.table.expired(now) {
            let bounds = self.bounds();
            if let Ok(change) = self.table.settle(&id, bounds, self.settings.quarantine, now) {
                self.apply(&change, true, now);
            }
        }
    }

    /// What is known becomes an update of the topology, if one is due.
    fn settle(&mut self, now: Timestamp) {
        let waiting = self.waiting();
        let mut before = self.members().clone();
        while let Some(update) = self.settling.settle(waiting, now) {
            self.observers.announced(std::mem::replace(&mut before, update.members.clone()), &update);
            let ids = update.members.iter().map(|node| node.id().clone()).collect();
            self.convergence = Convergence::begin(ids, update.members.hash(), self.own.id(), now);
            self.tell(Event::Topology(update));
            self.answer_observers(now);
        }
    }

    /// How many observers wait for an answer.
    pub(super) fn observers(&self) -> usize {
        self.observers.len()
    }

    fn waiting(&self) -> Waiting {
        match self.isolation.holds_deaths() {
            true => Waiting::Isolated,
            false if self.table.awaits_others() => Waiting::ForOthers,
            false => Waiting::Nothing,
        }
    }

    fn bounds(&self) -> Bounds {
        self.settings.bounds(self.table.active(), self.loss.share())
    }

    /// Sends a datagram with these parts, and with as many rumours as have room.
    fn send(&mut self, to: Place, parts: &[Part], now: Timestamp) {
        let mut message = self.message(parts, now);
        let times = rumours::times(self.table.active());
        for rumour in self.rumours.take(message.room(), times) {
            message.rumour(&rumour);
        }
        self.outputs.push_back(Output::Send { to, bytes: message.into_bytes() });
    }

    /// Asks over the reliable channel.
    fn ask(&mut self, to: Place, parts: &[Part], now: Timestamp) -> Question {
        self.count += 1;
        let question = Question(self.count);
        let bytes = self.message(parts, now).into_bytes();
        self.outputs.push_back(Output::Ask { question, to, bytes });
        question
    }

    fn answer(&mut self, channel: u64, parts: &[Part], now: Timestamp) {
        let bytes = self.message(parts, now).into_bytes();
        self.outputs.push_back(Output::Answer { channel, bytes });
    }

    fn message(&self, parts: &[Part], now: Timestamp) -> MessageWriter {
        let mut message = MessageWriter::new(self.label, &self.own.life());
        parts.iter().for_each(|part| message.part(part, now));
        message
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Somebody asks over the reliable channel.
    fn asked(&mut self, channel: u64, message: Message, now: Timestamp) {
        self.is_heard(&message.sender, now);
        let Message { sender, parts, .. } = message;
        let wants_in = parts.iter().any(|part| matches!(part, Part::Join { .. }));
        if wants_in {
            let record = parts.into_iter().find_map(|part| match part {
                Part::Record(record) if *record.id() == sender.id => Some(record),
                _ => None,
            });
            return self.asked_to_join(channel, record, now);
        }
        let mut answer = Vec::new();
        for part in parts {
            match part {
                Part::Observe { hash } => return self.observed(channel, hash, now),
                Part::Ping { number, subject: _, digest } => {
                    self.compare(&sender, None, digest, now);
                    answer.push(self.acknowledgement(number));
                }
                Part::Buckets(theirs) => answer.extend(self.differing(&theirs)),
                Part::Record(record) => {
                    let leaves = *record.id() == sender.id && record.state() == &State::Left;
                    self.learn(record, if leaves { Way::Rumour } else { Way::Exchange }, None, now);
                }
                Part::Ruling { id, ruling } => self.hear_ruling(&id, &ruling, now),
                _ => {}
            }
        }
        if answer.is_empty() {
            answer.push(Part::Noted);
        }
        self.answer(channel, &answer, now);
    }

    /// A question was answered.
    fn answered(&mut self, question: Question, answer: Option<Vec<u8>>, now: Timestamp) {
        let message = answer.and_then(|bytes| match read_message(&bytes, self.label, now) {
            Ok(message) => Some(message),
            Err(why) => {
                self.tell(Event::Unusable { from: None, why });
                None
            }
        });
        if let Some(message) = &message {
            self.is_heard(&message.sender, now);
        }
        if self.phase == Phase::Leaving {
            return if message.is_some() {
                self.end(now)
            };
        }
        match message {
            None => self.unanswered(question, now),
            Some(message) if self.phase == Phase::Joining => self.join_answered(message, now),
            Some(message) => self.exchange_answered(question, message, now),
        }
    }
}

#[cfg(test)]
mod tests;
