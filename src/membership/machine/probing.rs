//! Who lives: this node's probes, those it makes for others, and what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Machine, Phase, Timer};
use crate::clock::Timestamp;
use crate::membership::event::Event;
use crate::membership::local_health::Sign;
use crate::membership::place::Place;
use crate::membership::probe::{Demand, PingNumber, Probe};
use crate::membership::record::{Life, State};
use crate::membership::wire::part::Part;
use crate::topology::NodeId;

/// The most pings that are made for others at a time.
pub(super) const RELAYED: usize = 256;
/// A relay that has got no answer says so when this share of the time that it was given is over (memberlist).
const NACK_AFTER: f64 = 0.8;

/// A ping that is made for another.
#[derive(Clone, Debug)]
struct Relayed {
    for_whom: Place,
    their_number: PingNumber,
    nack_at: Timestamp,
}

/// The probes under way.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// Rarely more than one.
    own: Vec<Probe>,
    relayed: BTreeMap<PingNumber, Relayed>,
}

impl Probes {
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        let own = self.own.iter().map(Probe::next_at).min();
        own.into_iter().chain(self.relayed.values().map(|relayed| relayed.nack_at).min()).min()
    }

    /// How many pings are made for others.
    pub(super) fn relayed(&self) -> usize {
        self.relayed.len()
    }

    /// The process stood still.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.own.iter_mut().for_each(|probe| probe.restart(now));
        self.relayed.clear();
    }

    /// Nobody asks any more whether that node lives.
    pub(super) fn forget(&mut self, id: &NodeId) {
        self.own.retain(|probe| probe.target() != id);
    }

    pub(super) fn unanswered_at(&mut self, relay: &NodeId, number: PingNumber) {
        if let Some(probe) = self.get_mut(number) {
            probe.unanswered_at(relay, number);
        }
    }

    fn get(&self, number: PingNumber) -> Option<&Probe> {
        self.own.iter().find(|probe| probe.number() == number)
    }

    fn get_mut(&mut self, number: PingNumber) -> Option<&mut Probe> {
        self.own.iter_mut().find(|probe| probe.number() == number)
    }

    fn end(&mut self, number: PingNumber) {
        self.own.retain(|probe| probe.number() != number);
    }
}

impl Machine {
    /// The next one in the round is asked.
    pub(super) fn begin_probe(&mut self, now: Timestamp) {
        self.timers.set(Timer::Probe, now + self.health.scale(self.settings.probe.period));
        if self.phase != Phase::Member {
            return;
        }
        let target = self.round.next().and_then(|slot| self.table.at(slot));
        let Some((subject, place)) = target.map(|record| (record.life(), record.place())) else { return };
        if self.probes.own.iter().any(|probe| *probe.target() == subject.id) {
            return;
        }
        let number = self.next_ping();
        self.probes.own.push(Probe::new(subject.clone(), number, self.settings.probe, self.health, now));
        self.ping(place, number, subject, now);
    }

    pub(super) fn next_ping(&mut self) -> PingNumber {
        self.count += 1;
        PingNumber(self.count)
    }

    /// Sends a ping; whoever is not well spoken of learns it with it.
    pub(super) fn ping(&mut self, place: Place, number: PingNumber, subject: Life, now: Timestamp) {
        let mut parts = vec![];
        parts.extend(self.reproach(&subject.id));
        parts.push(Part::Ping { number, subject, digest: self.table.digest().all() });
        self.send(place, &parts, now);
    }

    /// What is said against that node, which it has to know so that it can contradict.
    fn reproach(&self, id: &NodeId) -> Option<Part> {
        if !self.table.doubts_anybody() {
            return None;
        }
        let record = self.table.get(id)?;
        (record.state() != &State::Up).then(|| Part::Record(record.clone()))
    }

    pub(super) fn acknowledgement(&mut self, number: PingNumber) -> Part {
        Part::Acknowledgement {
            number,
            life: self.own.life(),
            digest: self.table.digest().all(),
            hash: self.members().hash(),
            confirmed: self.convergence.say(),
        }
    }

    /// Somebody asks whether this node lives, or who was here before: the answer names the life that is here now.
    pub(super) fn pinged(&mut self, from: &Place, sender: &Life, number: PingNumber, digest: u64, now: Timestamp) {
        // Who is on its way in answers as well: that is what it is let in for.
        let mut parts = Vec::new();
        parts.extend(self.reproach(&sender.id));
        parts.push(self.acknowledgement(number));
        self.send(from.clone(), &parts, now);
        self.compare(sender, Some(from), digest, now);
    }

    /// Pings somebody for another.
    pub(super) fn relay(
        &mut self,
        for_whom: Place,
        their_number: PingNumber,
        subject: Life,
        place: Place,
        time_left: Duration,
        now: Timestamp,
    ) {
        if self.probes.relayed.len() >= RELAYED {
            return;
        }
        let number = self.next_ping();
        let time_left = time_left.min(self.settings.probe.period * 10);
        let nack_at = now + time_left.mul_f64(NACK_AFTER);
        self.probes.relayed.insert(number, Relayed { for_whom, their_number, nack_at });
        self.ping(place, number, subject, now);
    }

    /// A ping was answered by that life.
    pub(super) fn acknowledged(&mut self, number: PingNumber, life: &Life, now: Timestamp) {
        if let Some(relayed) = self.probes.relayed.remove(&number) {
            let Part::Acknowledgement { digest, hash, confirmed, .. } = self.acknowledgement(relayed.their_number)
            else {
                return;
            };
            let number = relayed.their_number;
            let passed_on = Part::Acknowledgement { number, life: life.clone(), digest, hash, confirmed };
            return self.send(relayed.for_whom, &[passed_on], now);
        }
        if self.answered_claim(number, life, now)
            || self.answered_admission(number, life, now)
            || self.answered_verification(number, life, now)
        {
            return;
        }
        let Some(probe) = self.probes.get(number) else { return };
        let subject = probe.subject();
        if life.id != subject.id {
            // Another node lives at that place now, and the former one does not.
            let target = subject.id.clone();
            self.probes.end(number);
            return self.accuse(&target, now);
        }
        if life.incarnation < subject.incarnation {
            return;
        }
        if probe.answered_in_time(now).is_some() {
            self.loss.note(true);
        }
        self.health.note(Sign::Answered);
        self.probes.end(number);
        if self.table.get(&life.id).is_some_and(|known| known.node().incarnation() < life.incarnation) {
            // It was started again: what it is now is asked for.
            self.exchange_with_member(&life.id, now);
        }
    }

    /// The reliable channel has brought the answer to a ping. Where that was a probe, no datagram was answered before.
    pub(super) fn answers_reliably(&mut self, number: PingNumber, id: &NodeId, now: Timestamp) {
        let is_probe = self.probes.get(number).is_some_and(|probe| probe.target() == id);
        if is_probe
            && self.reach.reliably_alone(id)
            && let Some(place) = self.table.get(id).map(|record| record.place())
        {
            self.tell(Event::OneChannel { at: now, node: id.clone(), place });
        }
    }

    pub(super) fn advance_probes(&mut self, now: Timestamp) {
        let silent: Vec<PingNumber> = self
            .probes
            .relayed
            .iter()
            .filter(|(_, relayed)| relayed.nack_at <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in silent {
            if let Some(relayed) = self.probes.relayed.remove(&number) {
                self.send(relayed.for_whom, &[Part::Nack(relayed.their_number)], now);
            }
        }
        let due: Vec<PingNumber> =
            self.probes.own.iter().filter(|probe| probe.next_at() <= now).map(Probe::number).collect();
        for number in due {
            let Some(probe) = self.probes.get_mut(number) else { continue };
            let target = probe.target().clone();
            match probe.advance(now) {
                Some((Demand::Help { time_left }, _)) => {
                    self.loss.note(false);
                    self.ask_for_help(number, &target, time_left, now);
                }
                Some((Demand::Accuse, signs)) => {
                    self.probes.end(number);
                    signs.into_iter().for_each(|sign| self.health.note(sign));
                    self.accuse(&target, now);
                }
                None => {}
            }
        }
    }

    fn ask_for_help(&mut self, number: PingNumber, target: &NodeId, time_left: Duration, now: Timestamp) {
        let Some((subject, place)) = self.table.get(target).map(|record| (record.life(), record.place())) else {
            return;
        };
        let chosen = self.round.some(self.settings.relays, self.table.slot(target));
        let relays = chosen.iter().filter_map(|slot| self.table.at(*slot));
        let (relays, places): (Vec<_>, Vec<_>) = relays.map(|relay| (relay.id().clone(), relay.place())).unzip();
        if let Some(probe) = self.probes.get_mut(number) {
            probe.is_helped_by(relays);
        }
        for to in places {
            let (subject, place) = (subject.clone(), place.clone());
            self.send(to, &[Part::PingRequest { number, subject, place, time_left }], now);
        }
        let ping = Part::Ping { number, subject, digest: self.table.digest().all() };
        let parts: Vec<Part> = self.reproach(target).into_iter().chain([ping]).collect();
        self.ask(place, &parts, now);
    }

    /// This node says that the other does not answer.
    pub(super) fn accuse(&mut self, target: &NodeId, now: Timestamp) {
        // Whoever is unknown has none, and the table refuses and remembers that.
        let known = self.table.get(target).map(|record| (record.life().incarnation, record.version()));
        let (incarnation, version) = known.unwrap_or_default();
        let (own, bounds) = (self.own.id().clone(), self.bounds());
        if let Ok(Some(change)) = self.table.accuse((target, incarnation, version), &own, bounds, now) {
            self.apply(&change, true, now);
        }
    }
}
