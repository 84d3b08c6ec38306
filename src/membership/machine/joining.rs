//! How this node comes in, what it does when it hears of itself, and how it leaves.

use std::sync::Arc;
use std::time::Duration;

use super::probing::Probes;
use super::{Machine, Order, Output, Timer};
use crate::clock::Timestamp;
use crate::membership::event::{Event, Scarce};
use crate::membership::local_health::Sign;
use crate::membership::message::Message;
use crate::membership::place::Place;
use crate::membership::probe::PingNumber;
use crate::membership::quarantine::Refusal;
use crate::membership::record::{GREATEST, Life, Record, State};
use crate::membership::rulings::{Ruling, Sentence};
use crate::membership::rumours::Subject;
use crate::membership::wire::fits;
use crate::membership::wire::part::Part;
use crate::topology::{ClusterNode, NodeId};

/// How many seeds are asked at a time.
const ASKED: usize = 3;
/// How soon the seeds are asked again that have not answered.
const AGAIN: Duration = Duration::from_secs(1);
/// How often within that time it asks at once, where it is sent on or has to be a later life.
const HURRIED: u32 = 6;
/// After so many rounds without an answer whoever is a seed itself goes on alone.
const LONELY: u32 = 5;
/// How soon somebody who is refused asks again, if it is not told an earlier time.
const REFUSED: Duration = Duration::from_secs(10);
/// When what is known is exchanged once more after the join, each counted from the time before.
const CONFIRMED: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(700)];
/// How long a node that leaves waits for somebody to note it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often another holder of this node's id is asked whether it is there.
const CLAIMED: usize = 3;
/// How many members are told over the reliable channel that this node leaves.
const TOLD: usize = 3;

/// Where this node is on its way through the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It asks to be let in.
    Joining,
    /// It is a member.
    Member,
    /// It was declared dead, and waits for the end of its quarantine, to return with a greater version than that.
    Expelled(u64),
    /// It tells that it leaves.
    Leaving,
    /// It has left.
    Gone,
}

/// How often this node has asked to be let in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    rounds: u32,
    /// How often it has asked at once since then.
    hurried: Option<(u32, Timestamp)>,
}

impl Attempts {
    fn begin_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
    }

    /// How many rounds of questions there were.
    fn rounds(self) -> u32 {
        self.rounds
    }

    /// Whether it may ask at once: whoever sends it on and on, or always knows of a later life, does not keep it busy.
    fn may_hurry(&mut self, now: Timestamp) -> bool {
        let (count, since) = self.hurried.filter(|(_, since)| now.since(*since) < AGAIN).unwrap_or((0, now));
        self.hurried = Some((count + 1, since));
        count < HURRIED
    }
}

/// Another process that has this node's id, and counts more.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    holder: Record,
    /// The pings that asked whether it is there.
    numbers: Vec<PingNumber>,
}

impl Machine {
    pub(super) fn begin(&mut self, now: Timestamp) {
        if self.is_seed {
            self.become_member(now);
        } else {
            self.timers.set(Timer::Join, now);
        }
    }

    /// The seeds are there.
    pub(super) fn find_seeds(&mut self, mut places: Vec<Place>) {
        let own = self.own.place();
        self.is_seed |= places.contains(&own);
        places.retain(|place| *place != own);
        self.seeds = places;
    }

    fn become_member(&mut self, now: Timestamp) {
        self.phase = Phase::Member;
        self.tell(Event::Joined { at: now });
        self.put_own(now);
        // Those who begin together do not probe together.
        let first = self.jitter.scale(self.settings.probe.period, 0.0);
        self.timers.set(Timer::Probe, now + first);
        self.timers.set(Timer::Seeds, now);
        self.timers.cancel(Timer::Join);
    }

    /// What this node says of itself counts here, and everybody is told.
    fn put_own(&mut self, now: Timestamp) {
        let (own, bounds) = (self.own.clone(), self.bounds());
        if let Some(change) = self.table.hear(&own, bounds, now) {
            self.apply(&change, true, now);
        }
    }

    pub(super) fn ask_to_join(&mut self, now: Timestamp) {
        if self.phase != Phase::Joining {
            return;
        }
        self.outputs.put(Output::LookUp);
        let mut places = self.places_to_ask();
        // Those whom a seed may ask are the seeds that wait for it in turn, or whom it knew in a former life, and they may
        // all be gone.
        if self.is_seed && (places.is_empty() || self.attempts.rounds() >= LONELY) {
            return self.become_member(now);
        }
        self.attempts.begin_round();
        for _ in 0..ASKED.min(places.len()) {
            let chosen = (self.jitter.next() % places.len() as u64) as usize;
            let place = places.swap_remove(chosen);
            self.ask_for_admission(place, now);
        }
        self.timers.set(Timer::Join, now + self.jitter.scale(AGAIN, 0.8));
    }

    /// The seeds; and the members that are known from a former life, since no seed may be there.
    fn places_to_ask(&self) -> Vec<Place> {
        let known = self.table.all().filter(|record| record.state().is_active() && record.id() != self.own.id());
        let known = known.map(Record::place).filter(|place| !self.seeds.contains(place) && *place != self.own.place());
        self.seeds.iter().cloned().chain(known).collect()
    }

    fn ask_for_admission(&mut self, place: Place, now: Timestamp) {
        let parts = [Part::Join { label: self.settings.label.clone() }, Part::Record(self.own.clone())];
        self.ask(place, &parts, now);
    }

    /// A member has answered the wish to be let in.
    pub(super) fn join_answered(&mut self, message: Message, now: Timestamp) {
        let mut welcome = None;
        let (mut records, mut rulings) = (Vec::new(), Vec::new());
        for part in message.parts {
            match part {
                Part::Refused(refusal) => return self.refused(refusal, now),
                Part::Elsewhere(places) => {
                    let chosen = (self.jitter.next() % places.len().max(1) as u64) as usize;
                    if let Some(place) = places.into_iter().nth(chosen).filter(|_| self.attempts.may_hurry(now)) {
                        self.ask_for_admission(place, now);
                    }
                    return;
                }
                Part::Welcome { incarnation, version } => welcome = Some((incarnation, version)),
                Part::Record(record) => records.push(record),
                Part::Ruling { id, ruling } => rulings.push((id, ruling)),
                _ => {}
            }
        }
        let Some((incarnation, version)) = welcome else { return };
        let own = records.iter().find(|record| record.id() == self.own.id());
        let is_another = own.is_some_and(|own| own.place() != self.own.place() || !own.state().is_active());
        if incarnation > self.own.node().incarnation() || (incarnation == self.own.node().incarnation() && is_another) {
            // A life that is known already is not lived once more.
            return self.succeed(incarnation, now);
        }
        if incarnation == self.own.node().incarnation() && incarnation > 0 {
            self.raise_version(version);
        }
        let bounds = self.bounds();
        for record in &records {
            if record.id() == self.own.id() {
                continue;
            }
            if let Some(change) = self.table.hear(record, bounds, now) {
                self.apply(&change, false, now);
            }
        }
        for (id, ruling) in rulings {
            // Everybody else knows.
            self.table.rule(&id, &ruling).into_iter().for_each(|id| self.rumours.forget(&Subject::Ruling(id)));
        }
        self.become_member(now);
        self.confirmed = 0;
        self.confirm_later(now);
    }

    /// This node has to be another life than the one of that incarnation.
    fn succeed(&mut self, incarnation: u64, now: Timestamp) {
        if self.phase != Phase::Joining {
            self.attempts = Attempts::default();
        }
        self.phase = Phase::Joining;
        self.claim = None;
        self.timers.cancel(Timer::Claim);
        // Whoever is no member judges nobody.
        self.probes = Probes::default();
        if incarnation >= GREATEST {
            // There is no later life. Those who know of that one forget it some day.
            self.tell(Event::NoRoom { at: now, of: Scarce::Incarnations });
            self.timers.set(Timer::Join, now + REFUSED);
            return;
        }
        let incarnation = incarnation + 1;
        let node = self.own.node().described_as(incarnation, self.own.node()).map(Arc::new);
        let Some(own) = node.and_then(|node| Record::new(node, 0, State::Up, 0)) else { return };
        self.own = own.reached_at(self.own.gossip_port());
        self.tell(Event::Succeeded { at: now, incarnation });
        let again = if self.attempts.may_hurry(now) { now } else { now + AGAIN };
        self.timers.set(Timer::Join, again);
    }

    /// After the join what is known is exchanged again, since much may have changed meanwhile.
    pub(super) fn confirm_join(&mut self, now: Timestamp) {
        self.exchange_with_anybody(now);
        self.confirmed += 1;
        self.confirm_later(now);
        // Of those who begin together each may have missed some of the others.
        self.exchanges.hurry();
    }

    fn confirm_later(&mut self, now: Timestamp) {
        if let Some(pause) = CONFIRMED.get(self.confirmed) {
            self.timers.set(Timer::Confirm, now + *pause);
        }
    }

    /// This node is not let in.
    pub(super) fn refused(&mut self, refusal: Refusal, now: Timestamp) {
        let wait = match &refusal {
            Refusal::Quarantined { left, .. } => *left,
            Refusal::KeptOut { left } => left.unwrap_or(REFUSED),
            Refusal::IdTaken { .. } => REFUSED,
        };
        let is_quarantined = matches!(refusal, Refusal::Quarantined { .. });
        self.tell(Event::Refused { at: now, refusal });
        if self.phase == Phase::Joining {
            // It may be lifted before its time.
            self.timers.set(Timer::Join, now + wait.clamp(AGAIN, REFUSED));
        } else if self.phase == Phase::Member && self.returns {
            // It contradicts its death, and is not let in: it waits.
            self.is_expelled(self.own.version(), now + wait.max(AGAIN), now);
        } else if self.phase == Phase::Member && is_quarantined {
            // Somebody has found it dead, and perhaps nobody else. If others have, too, they refuse what it says next.
            self.returns = true;
            self.raise_version(self.own.version());
            self.put_own(now);
        }
    }

    /// Others have declared this node dead, in that version, and let it in again then.
    fn is_expelled(&mut self, version: u64, until: Timestamp, now: Timestamp) {
        self.phase = Phase::Expelled(version);
        self.timers.set(Timer::Return, until);
        self.tell(Event::Expelled { at: now, until });
    }

    /// An operator has ruled about this node.
    pub(super) fn is_ruled(&mut self, sentence: &Sentence, now: Timestamp) {
        let is_let_in = matches!(sentence, Sentence::LetIn { .. });
        if is_let_in && matches!(self.phase, Phase::Expelled(_)) {
            self.timers.cancel(Timer::Return);
            self.come_back(now);
        }
    }

    /// An operator has ruled, here.
    pub(super) fn rule(&mut self, id: &NodeId, order: Order, now: Timestamp) {
        if !self.table.rulings().has_room(id) {
            return self.tell(Event::NoRoom { at: now, of: Scarce::Rulings });
        }
        let sentence = match order {
            Order::Pin(length) => Sentence::KeptOut { until: length.map(|length| now + length) },
            Order::Lift => {
                let (incarnation, version) =
                    self.table.get(id).map_or((0, 0), |known| (known.node().incarnation(), known.version()));
                Sentence::LetIn { incarnation, version }
            }
        };
        let ruling = Ruling::over(self.table.rulings().get(id), self.own.id().clone(), sentence);
        self.hear_ruling(id, &ruling, now);
    }

    /// This node has these kinds and metadata from now on; what else that node is does not count.
    pub(super) fn describe(&mut self, node: &ClusterNode, now: Timestamp) {
        let own = self.own.node();
        let Some(node) = own.described_as(own.incarnation(), node).filter(fits).map(Arc::new) else {
            return self.tell(Event::NoRoom { at: now, of: Scarce::Metadata });
        };
        if *node == **self.own.node() {
            return;
        }
        let version = self.own.version().saturating_add(1).min(GREATEST);
        let (state, strikes) = (self.own.state().clone(), self.own.strikes());
        let Some(own) = Record::new(node, version, state, strikes) else { return };
        self.own = own.reached_at(self.own.gossip_port());
        if self.phase == Phase::Member {
            self.put_own(now);
        }
    }

    /// Somebody says that of this node.
    pub(super) fn hear_of_itself(&mut self, said: &Record, now: Timestamp) {
        if said.order(&self.own).is_le() {
            return;
        }
        if matches!((self.phase, said.state()), (Phase::Expelled(_), State::Suspect(_))) {
            // To whomever suspects it still it is a member: that is contradicted, also while others keep it out.
            self.raise_version(said.version());
            return self.put_own(now);
        }
        if self.phase != Phase::Member {
            return;
        }
        let is_elsewhere = said.place() != self.own.place();
        let is_another = said.node().incarnation() > self.own.node().incarnation();
        if is_elsewhere {
            // Whether anybody answers there decides who has the id.
            return self.claim(said, now);
        }
        if is_another || said.version() >= GREATEST {
            // What cannot be contradicted within this life is over with it.
            self.leave_table(now);
            return self.succeed(said.node().incarnation(), now);
        }
        match said.state() {
            State::Dead { quarantined_until, .. } if now < *quarantined_until && self.returns => {
                self.take_strikes(said.strikes());
                self.is_expelled(said.version(), *quarantined_until, now);
            }
            state => {
                match state {
                    State::Suspect(_) => self.health.note(Sign::Refuted),
                    // One alone may believe it: a node that is hardly heard, for example. Where others do, too, they refuse
                    // what this node says of itself.
                    State::Dead { .. } => self.returns = true,
                    State::Up | State::Left => {}
                }
                self.take_strikes(said.strikes());
                self.raise_version(said.version());
                self.put_own(now);
            }
        }
    }

    /// Somebody else has, or had, the id of this node, and counts more: it is asked whether it is there.
    fn claim(&mut self, said: &Record, now: Timestamp) {
        let is_known = self.claim.as_ref().is_some_and(|claim| claim.holder.life() == said.life());
        if !is_known && said.state().is_active() {
            self.claim = Some(Claim { holder: said.clone(), numbers: Vec::new() });
            self.advance_claim(now);
        } else if !is_known {
            self.leave_table(now);
            self.succeed(said.node().incarnation(), now);
        }
    }

    pub(super) fn advance_claim(&mut self, now: Timestamp) {
        let number = self.next_ping();
        let Some(claim) = &mut self.claim else { return };
        let (place, life) = (claim.holder.place(), claim.holder.life());
        if claim.numbers.len() >= CLAIMED {
            // Nobody is there any more: the id is this node's, in a life of its own.
            self.leave_table(now);
            return self.succeed(life.incarnation, now);
        }
        claim.numbers.push(number);
        self.timers.set(Timer::Claim, now + self.settings.probe.direct);
        self.ping(place, number, life, now);
    }

    /// Whether that answer is one of another holder of this node's id: then this one stops.
    pub(super) fn answered_claim(&mut self, number: PingNumber, life: &Life, now: Timestamp) -> bool {
        let Some(claim) = self.claim.take_if(|claim| claim.numbers.contains(&number)) else { return false };
        if claim.holder.life() == *life {
            self.tell(Event::IdTaken { at: now, place: claim.holder.place() });
            self.end(now);
        } else {
            self.leave_table(now);
            self.succeed(claim.holder.node().incarnation(), now);
        }
        true
    }

    /// The quarantine is over.
    pub(super) fn come_back(&mut self, now: Timestamp) {
        let Phase::Expelled(version) = self.phase else { return };
        self.phase = Phase::Member;
        self.tell(Event::Joined { at: now });
        self.raise_version(version);
        self.put_own(now);
        for place in self.some_places(TOLD, None) {
            self.exchange_now(place, now);
        }
    }

    /// How often in a row this node died soon after its return is others' to say.
    fn take_strikes(&mut self, strikes: u8) {
        self.own = self.own.with(self.own.state().clone(), self.own.strikes().max(strikes));
    }

    /// What was said of this node up to that version is contradicted.
    fn raise_version(&mut self, version: u64) {
        let version = self.own.version().max(version).saturating_add(1).min(GREATEST);
        let node = Arc::clone(self.own.node());
        if let Some(own) = Record::new(node, version, State::Up, self.own.strikes()) {
            self.own = own.reached_at(self.own.gossip_port());
        }
    }

    /// This life is over here, too.
    fn leave_table(&mut self, now: Timestamp) {
        let left = self.own.with(State::Left, self.own.strikes());
        self.hear(&left, now);
    }

    /// This node is to leave.
    pub(super) fn leave(&mut self, now: Timestamp) {
        if self.phase != Phase::Member {
            return self.end(now);
        }
        self.raise_version(self.own.version());
        self.own = self.own.with(State::Left, self.own.strikes());
        self.leave_table(now);
        let told = self.some_places(TOLD, None);
        if told.is_empty() {
            return self.end(now);
        }
        self.phase = Phase::Leaving;
        for place in told {
            let own = Part::Record(self.own.clone());
            self.ask(place, &[own], now);
        }
        self.gossip(now);
        self.timers.set(Timer::Leave, now + FAREWELL);
    }

    pub(super) fn end(&mut self, now: Timestamp) {
        self.phase = Phase::Gone;
        self.timers.cancel_all();
        self.dismiss_observers(now);
        self.tell(Event::Left { at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m2_5_six_questions_a_second_may_be_asked_at_once() {
        let mut attempts = Attempts::default();
        let mut hurried = |millis: u64| {
            let now = Timestamp::from_millis(1_000_000 + millis);
            (0..10).filter(|_| attempts.may_hurry(now)).count()
        };
        assert_eq!([hurried(0), hurried(999), hurried(1000), hurried(1999), hurried(2000)], [6, 0, 6, 0, 6]);
    }
}
