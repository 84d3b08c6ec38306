//! Letting others in: whoever asks is told what is known, and is pinged; once it answers it is Up, and everybody hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Machine;
use super::exchange::rulings;
use crate::clock::Timestamp;
use crate::membership::event::{Event, MemberState};
use crate::membership::place::Place;
use crate::membership::probe::PingNumber;
use crate::membership::quarantine::Refusal;
use crate::membership::record::{Life, Record, State};
use crate::membership::wire::part::{ELSEWHERE, Part};
use crate::topology::NodeId;

/// When whoever asked to be let in is pinged, counted from then on: one packet may be lost.
const PINGS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Without an answer for so long it is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3);
/// For how long the present holder of an id may answer when another process asks to be let in under it.
const CONTESTED: Duration = Duration::from_millis(500);

/// Somebody who asked to be let in.
#[derive(Clone, Debug)]
struct Joiner {
    record: Record,
    since: Timestamp,
    pinged: usize,
    numbers: Vec<PingNumber>,
    /// It was told to be up, which may come from others before it answers here.
    is_up: bool,
}

/// Somebody who asks under an id that another process has.
#[derive(Clone, Debug)]
struct Contest {
    record: Record,
    channel: u64,
    holder: (Life, Place),
    ends: Timestamp,
}

/// Who is on its way in.
#[derive(Debug)]
pub(super) struct Admissions {
    joiners: BTreeMap<NodeId, Joiner>,
    contests: BTreeMap<PingNumber, Contest>,
    /// How many asked since when: a second at the most.
    counted: (usize, Timestamp),
}

impl Admissions {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { joiners: BTreeMap::new(), contests: BTreeMap::new(), counted: (0, now) }
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        let joiners = self.joiners.values().map(Joiner::next_at).min();
        joiners.into_iter().chain(self.contests.values().map(|contest| contest.ends).min()).min()
    }

    /// Those who are on their way in, and those who ask under an id that is taken.
    pub(super) fn len(&self) -> usize {
        self.joiners.len() + self.contests.len()
    }

    /// Whether one more may ask now.
    fn has_time(&mut self, most: usize, now: Timestamp) -> bool {
        if now.since(self.counted.1) >= Duration::from_secs(1) {
            self.counted = (0, now);
        }
        self.counted.0 += 1;
        self.counted.0 <= most
    }
}

impl Joiner {
    fn next_at(&self) -> Timestamp {
        self.since + PINGS.get(self.pinged).copied().unwrap_or(FORGOTTEN)
    }
}

impl Machine {
    /// Somebody asks to be let in.
    pub(super) fn asked_to_join(&mut self, channel: u64, record: Option<Record>, now: Timestamp) {
        // Who has not said who it is, or is of no use itself yet, gets an answer that says nothing.
        let Some(record) = record.filter(|record| self.is_member() && record.state() == &State::Up) else {
            return self.answer(channel, &[Part::Noted], now);
        };
        if !self.admissions.has_time(self.settings.joins_per_second, now) {
            let places = self.some_places(ELSEWHERE, Some(record.id()));
            return self.answer(channel, &[Part::Elsewhere(places)], now);
        }
        let id = record.id().clone();
        let known = self.table.get(&id);
        let returns = known.is_some_and(|known| known.state().is_active() && known.life() == record.life());
        if let Err(refusal) = self.admit(&record, now)
            && !returns
        {
            return self.turn_away(channel, id, refusal, now);
        }
        let holder = known.filter(|known| known.state().is_active());
        match holder.map(|holder| (holder.life(), holder.place())) {
            // This node holds the id itself, and answers.
            Some((_, place)) if id == *self.own.id() => {
                self.turn_away(channel, id, Refusal::IdTaken { place }, now);
            }
            Some((life, place)) if place != record.place() => {
                let number = self.next_ping();
                self.ping(place.clone(), number, life.clone(), now);
                let contest = Contest { record, channel, holder: (life, place), ends: now + CONTESTED };
                self.admissions.contests.insert(number, contest);
            }
            _ => self.welcome(channel, record, now),
        }
    }

    fn turn_away(&mut self, channel: u64, node: NodeId, refusal: Refusal, now: Timestamp) {
        self.answer(channel, &[Part::Refused(refusal.clone())], now);
        self.tell(Event::TurnedAway { at: now, node, refusal });
    }

    fn welcome(&mut self, channel: u64, record: Record, now: Timestamp) {
        let known = self.table.get(record.id());
        let (incarnation, version) = known.map_or((0, 0), |known| (known.node().incarnation(), known.version()));
        let from = known.map(|known| MemberState::of(known.state()));
        let lives = known.is_some_and(|known| known.state().is_active() && known.life() == record.life());
        let is_over = known.is_some_and(|known| !known.state().is_active() || known.place() != record.place());
        let mut answer = vec![Part::Welcome { incarnation, version }];
        answer.extend(self.table.all().cloned().map(Part::Record));
        answer.extend(rulings(self.table.rulings().all()));
        self.answer(channel, &answer, now);
        // Whoever has to come back with another incarnation asks again.
        if is_over && incarnation >= record.node().incarnation() {
            return;
        }
        // It may ask once more, since it did not hear the answer.
        if !lives && !self.is_joining(&record) {
            let node = Arc::clone(record.node());
            self.tell(Event::Transition { at: now, node, from, to: MemberState::Joining });
        }
        let joiner = Joiner { record, since: now, pinged: 0, numbers: Vec::new(), is_up: false };
        self.admissions.joiners.insert(joiner.record.id().clone(), joiner);
        self.advance_admissions(now);
    }

    pub(super) fn advance_admissions(&mut self, now: Timestamp) {
        let over: Vec<_> = self
            .admissions
            .contests
            .iter()
            .filter(|(_, contest)| contest.ends <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            // The former holder does not answer: its place is taken.
            if let Some(contest) = self.admissions.contests.remove(&number) {
                self.welcome(contest.channel, contest.record, now);
            }
        }
        let due: Vec<_> = self
            .admissions
            .joiners
            .values()
            .filter(|joiner| joiner.next_at() <= now)
            .map(|joiner| joiner.record.id().clone())
            .collect();
        for id in due {
            let number = self.next_ping();
            let Some(joiner) = self.admissions.joiners.get_mut(&id) else { continue };
            if now >= joiner.since + FORGOTTEN {
                if let Some(joiner) = self.admissions.joiners.remove(&id) {
                    self.tell(Event::OneChannel { at: now, node: id, place: joiner.record.place() });
                }
                continue;
            }
            // Whoever is late itself makes up for none that it missed.
            joiner.pinged = PINGS.iter().filter(|after| joiner.since + **after <= now).count();
            joiner.numbers.push(number);
            let (place, life) = (joiner.record.place(), joiner.record.life());
            self.ping(place, number, life, now);
        }
    }

    /// Whether the node of that record is on its way in, in that life.
    fn is_joining(&self, record: &Record) -> bool {
        let joiner = self.admissions.joiners.get(record.id());
        joiner.is_some_and(|joiner| !joiner.is_up && joiner.record.life() == record.life())
    }

    /// The node of that record is up; whether it was on its way in until now.
    pub(super) fn comes_in(&mut self, record: &Record) -> bool {
        let was_joining = self.is_joining(record);
        if let Some(joiner) = self.admissions.joiners.get_mut(record.id()).filter(|_| was_joining) {
            joiner.is_up = true;
        }
        was_joining
    }

    /// Whether that answer is one of somebody who is on its way in, or of who has an id already.
    pub(super) fn answered_admission(&mut self, number: PingNumber, life: &Life, now: Timestamp) -> bool {
        if let Some(contest) = self.admissions.contests.remove(&number) {
            let (holder, place) = contest.holder;
            match holder == *life {
                true => self.turn_away(contest.channel, life.id.clone(), Refusal::IdTaken { place }, now),
                false => self.welcome(contest.channel, contest.record, now),
            }
            return true;
        }
        let Some(joiner) = self.admissions.joiners.get(&life.id).filter(|joiner| joiner.numbers.contains(&number))
        else {
            return false;
        };
        if joiner.record.life() == *life {
            let record = joiner.record.clone();
            self.hear(&record, now);
            self.admissions.joiners.remove(&life.id);
        }
        true
    }
}
