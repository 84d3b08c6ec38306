//! A member: how the parts work together.
//!
//! What arrives is handed in before the time that has passed (`Input::Time`), so that nobody is blamed for an answer that is
//! there already. What is to be done comes out: datagrams, questions over the reliable channel, answers to such questions,
//! and what is told to the program. A question is answered once, if with a failure; a datagram may never arrive.
//!
//! `learning` decides what counts of what is said of others, and `gossiping` tells it on; `admission` lets others in,
//! `joining` is how this node comes in and leaves, `probing` asks who lives, and `exchange` makes alike what two members
//! know; `observing` tells the view to processes that are no members.

mod admission;
mod exchange;
mod gossiping;
mod joining;
mod learning;
mod observing;
mod probing;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use self::admission::Admissions;
use self::exchange::Exchanges;
use self::joining::{Attempts, Claim, Phase};
use self::learning::Way;
use self::observing::Observers;
use self::probing::Probes;
use self::timers::{Timer, Timers};
use super::convergence::Convergence;
use super::event::Event;
use super::heard::Heard;
use super::isolation::{Contact, Isolation};
use super::local_health::{LocalHealth, Sign};
use super::loss::Loss;
use super::message::{LabelHash, Message, MessageWriter, Unusable, read_datagram, read_message};
use super::outbox::Outbox;
use super::place::Place;
use super::probe_round::ProbeRound;
use super::quarantine::Quarantined;
use super::record::{Life, Record, State};
use super::rumours::{self, Rumours, Subject};
use super::settings::Settings;
use super::settling::{Settling, Waiting};
use super::suspicion::Bounds;
use super::table::Table;
use super::wire::part::Part;
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::topology::{ClusterNode, Members, NodeId};

/// How often those who have been gone for long are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

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
    /// That is where the seeds are, as far as it is known now.
    Seeds(Vec<Place>),
    /// The host of somebody who was asked says that nobody is there: the network is well.
    HostHeard,
    /// The program has found that member not to answer.
    Evidence(NodeId),
}

/// What an operator wants with an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
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
    /// The question was none that can be answered.
    Refuse { channel: u64, why: Unusable },
    /// The seeds are about to be asked: who they are may be looked up again.
    LookUp,
    /// The program is told.
    Event(Event),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    label: LabelHash,
    /// Itself, as it is told to others.
    own: Record,
    phase: Phase,
    attempts: Attempts,
    claim: Option<Claim>,
    /// It has contradicted its death, and nobody has agreed with it since.
    returns: bool,
    /// Those of others.
    seeds: Vec<Place>,
    /// It is a seed itself, or there is none.
    is_seed: bool,
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
    timers: Timers,
    /// When rumours were last sent for their own sake.
    gossiped: Option<Timestamp>,
    /// When it was last told that there is no room for another member.
    overflowed: Option<Timestamp>,
    jitter: Jitter,
    /// How often what is known was exchanged once more after the join.
    confirmed: usize,
    /// Counts pings and questions.
    count: u64,
    outputs: Outbox<Output>,
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
            attempts: Attempts::default(),
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
            convergence: Convergence::begin(Members::new(), own.id(), now),
            isolation: Isolation::new(settings.isolation, now),
            health: LocalHealth::default(),
            loss: Loss::default(),
            timers: Timers::default(),
            gossiped: None,
            overflowed: None,
            jitter,
            confirmed: 0,
            count: 0,
            outputs: Outbox::default(),
            expected: now,
            settings,
            own,
            seeds: Vec::new(),
            is_seed: false,
        };
        machine.is_seed = seeds.is_empty();
        machine.find_seeds(seeds);
        machine.timers.set(Timer::Sweep, now + SWEEP);
        machine.begin(now);
        machine.settle(now);
        machine.expected = machine.due_at();
        Some(machine)
    }

    /// The next thing to be done.
    pub(super) fn output(&mut self) -> Option<Output> {
        self.outputs.take()
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
        self.expected
    }

    /// The earliest of all that is to be done.
    fn due_at(&self) -> Timestamp {
        let waiting = self.waiting();
        let suspicion = self.table.next_at().filter(|_| waiting != Waiting::Isolated && self.phase == Phase::Member);
        let settling = self.settling.next_at(waiting, self.expected).filter(|_| self.may_announce());
        [
            self.timers.next_at(),
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
                Err(why) => {
                    self.outputs.put(Output::Refuse { channel, why });
                    self.tell(Event::Unusable { from: None, why });
                }
            },
            Input::Answered { question, answer } => self.answered(question, answer, now),
            Input::Time => self.pass(now),
            Input::Leave => self.leave(now),
            Input::Rule { id, order } => self.rule(&id, order, now),
            Input::Describe(node) => self.describe(&node, now),
            Input::Seeds(places) => self.find_seeds(places),
            Input::HostHeard => self.notice_network(now),
            Input::Evidence(id) => self.accuse(&id, now),
        }
        self.settle(now);
        let due_at = self.due_at();
        debug_assert!(!is_time || due_at > now, "something that is due was not done");
        self.expected = due_at.max(now);
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
        self.timers.stood_still(now);
        self.expected = now;
        self.tell(Event::StoodStill { at: now });
    }

    /// All that is due by now.
    fn pass(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.due(now) {
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
                    for id in self.table.sweep(now) {
                        self.rumours.forget(&Subject::Record(id));
                    }
                    // Of whoever is forgotten everything is news again; and where little happens it takes no room.
                    self.heard.forget();
                    self.timers.set(Timer::Sweep, now + SWEEP);
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
                    let dead = (!record.state().is_active()).then(|| record.id().clone());
                    self.learn(record, Way::Rumour, Some((&sender, from)), now);
                    // What is said of this node itself, and a death that is not believed, may count another time.
                    let is_doubted =
                        dead.as_ref().and_then(|id| self.table.get(id)).is_some_and(|known| known.state().is_active());
                    if let Some(fingerprint) = fingerprint.filter(|_| !is_of_itself && !is_doubted) {
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

    /// Somebody was heard.
    fn is_heard(&mut self, sender: &Life, now: Timestamp) {
        if sender.id != *self.own.id() {
            self.notice_network(now);
        }
    }

    /// The network lets something through.
    fn notice_network(&mut self, now: Timestamp) {
        if let Some(silent_since) = self.isolation.heard(now) {
            self.tell(Event::Reached { at: now });
            // What was suspected meanwhile says nothing; and what was missed is asked for before anybody is judged.
            self.table.restart_since(silent_since, now);
            self.exchanges.hurry();
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
        if self.settling.is_settled() || !self.may_announce() {
            return;
        }
        let waiting = self.waiting();
        let mut before = self.members().clone();
        while let Some(update) = self.settling.settle(waiting, now) {
            self.observers.announced(std::mem::replace(&mut before, update.members.clone()), &update);
            self.convergence = Convergence::begin(update.members.clone(), self.own.id(), now);
            self.tell(Event::Topology(Arc::new(update)));
            self.answer_observers(now);
        }
    }

    /// Whoever is not in yet has heard of a few members at best, and would announce a cluster of those.
    fn may_announce(&self) -> bool {
        self.phase == Phase::Member || !self.members().is_empty()
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
        self.outputs.put(Output::Send { to, bytes: message.into_bytes() });
    }

    /// Asks over the reliable channel.
    fn ask(&mut self, to: Place, parts: &[Part], now: Timestamp) -> Question {
        self.count += 1;
        let question = Question(self.count);
        let bytes = self.message(parts, now).into_bytes();
        self.outputs.put(Output::Ask { question, to, bytes });
        question
    }

    fn answer(&mut self, channel: u64, parts: &[Part], now: Timestamp) {
        let bytes = self.message(parts, now).into_bytes();
        self.outputs.put(Output::Answer { channel, bytes });
    }

    fn message(&self, parts: &[Part], now: Timestamp) -> MessageWriter {
        let mut message = MessageWriter::new(self.label, &self.own.life());
        parts.iter().for_each(|part| message.part(part, now));
        message
    }

    fn tell(&mut self, event: Event) {
        self.outputs.put(Output::Event(event));
    }

    /// Where so many members at random are reached, without that one; fewer where there are fewer.
    fn some_places(&mut self, count: usize, except: Option<&NodeId>) -> Vec<Place> {
        let chosen = self.round.some(count, except.and_then(|id| self.table.slot(id)));
        chosen.into_iter().filter_map(|slot| self.table.at(slot)).map(Record::place).collect()
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
            None => self.unanswered(question),
            Some(message) if self.phase == Phase::Joining => self.join_answered(message, now),
            Some(message) => self.exchange_answered(question, message, now),
        }
    }
}

#[cfg(test)]
mod tests;
