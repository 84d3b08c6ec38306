//! What is said of others: whether it counts here, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use super::{Machine, Timer};
use crate::clock::Timestamp;
use crate::membership::event::{Event, MemberState, Scarce};
use crate::membership::place::Place;
use crate::membership::quarantine::{self, Refusal};
use crate::membership::record::{Life, Record, State};
use crate::membership::rulings::Ruling;
use crate::membership::rumours::{Class, Subject};
use crate::membership::settling::Departure;
use crate::membership::table::Change;
use crate::membership::wire::part::Part;
use crate::topology::NodeId;

/// How often it is told at most that there is no room for another member.
const OVERFLOW_TOLD: Duration = Duration::from_secs(60);

/// By which way a record came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// With a packet, as it spread.
    Rumour,
    /// By an exchange of what two members know: it may be old.
    Exchange,
}

impl Machine {
    /// Somebody says that of a node. `by`: who, and where a refusal goes.
    pub(super) fn learn(&mut self, record: Record, way: Way, by: Option<(&Life, &Place)>, now: Timestamp) {
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
        self.hear(&record, now);
    }

    /// Whether a node may be let in that is none of the members.
    pub(super) fn admit(&self, record: &Record, now: Timestamp) -> Result<(), Refusal> {
        let (known, ruling) = (self.table.get(record.id()), self.table.rulings().get(record.id()));
        quarantine::admit(known, ruling, record.node().incarnation(), self.settings.quarantine_new_lives, now)
    }

    /// Somebody holds that ruling about the id.
    pub(super) fn hear_ruling(&mut self, id: &NodeId, ruling: &Ruling, now: Timestamp) {
        let changed = self.table.rule(id, ruling);
        if changed.is_empty() {
            return;
        }
        changed.into_iter().for_each(|id| self.rumours.forget(&Subject::Ruling(id)));
        self.exchanges.changed(now);
        self.tell(Event::Ruled { at: now, node: id.clone(), sentence: ruling.sentence().clone() });
        let part = Part::Ruling { id: id.clone(), ruling: ruling.clone() };
        self.tell_everybody(Subject::Ruling(id.clone()), Class::Fate, &part, now);
        if id == self.own.id() {
            self.is_ruled(ruling.sentence(), now);
        }
    }

    /// Somebody says that of another node, and it counts.
    pub(super) fn hear(&mut self, record: &Record, now: Timestamp) {
        let bounds = self.bounds();
        if !self.table.has_room(record) && self.overflowed.is_none_or(|last| now.since(last) >= OVERFLOW_TOLD) {
            self.overflowed = Some(now);
            self.tell(Event::NoRoom { at: now, of: Scarce::Members });
        }
        if let Some(change) = self.table.hear(record, bounds, now) {
            self.apply(&change, true, now);
        }
    }

    /// What follows from a change of what is known. `spread`: whether others are to be told.
    pub(super) fn apply(&mut self, change: &Change, spread: bool, now: Timestamp) {
        let Change { before, now: record } = change;
        let is_own = record.id() == self.own.id();
        if record.state().is_active() {
            self.settling.is_active(Arc::clone(record.node()));
            if let Some(slot) = self.table.slot(record.id()).filter(|_| !is_own) {
                self.round.add(slot);
            }
        } else {
            let departure = if record.state() == &State::Left { Departure::Left } else { Departure::Dead };
            self.settling.departs(record.id(), departure, now);
            if let Some(slot) = self.table.slot(record.id()) {
                self.round.remove(slot);
            }
            self.probes.forget(record.id());
            self.reach.forget(record.id());
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
                    if let Some(slot) = self.table.slot(record.id()) {
                        self.round.hurry(slot);
                    }
                    self.timers.move_to(Timer::Probe, now);
                }
                self.send(record.place(), &[Part::Record(record.clone())], now);
            }
        }
    }

    fn tell_transition(&mut self, before: Option<&Record>, record: &Record, now: Timestamp) {
        let state = |record: &Record| MemberState::of(record.state());
        let lived = before.is_some_and(|before| before.state().is_active() && before.life() == record.life());
        // Whatever it was before, it has asked to be let in since.
        let comes_in = record.state().is_active() && !lived && self.comes_in(record);
        let from = if comes_in { Some(MemberState::Joining) } else { before.map(state) };
        let to = state(record);
        if from != Some(to) {
            let node = Arc::clone(record.node());
            self.tell(Event::Transition { at: now, node, from, to });
            if let State::Dead { quarantined_until: until, .. } = record.state() {
                self.tell(Event::Quarantined { at: now, node: record.id().clone(), until: *until });
            }
        }
    }
}
