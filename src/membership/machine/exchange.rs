//! Making alike what two members know: where their digests differ one asks the other for the buckets that do, and tells its
//! own of them in turn.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Machine, Output, Phase, Question, Timer, Way};
use crate::clock::Timestamp;
use crate::membership::digest::BUCKETS;
use crate::membership::message::Message;
use crate::membership::place::Place;
use crate::membership::probe::PingNumber;
use crate::membership::record::{Life, Record, State};
use crate::membership::rulings::Ruling;
use crate::membership::wire::part::Part;
use crate::topology::NodeId;

/// The most lives that are asked at a time whether they are there.
pub(super) const VERIFIED: usize = 256;
/// When they are asked, as shares of a period: a ping may be lost.
const ASKED: [f64; 5] = [0.0, 0.2, 0.5, 1.0, 2.0];
/// In so many periods they have to answer.
const PERIODS: u32 = 3;
/// However often something changes, a difference is no news under way for ever: only for so many times as long.
const LONGEST_EXCUSE: u32 = 5;
/// The most places that are looked at for one that no member has.
const TRIED: usize = 8;
/// The most exchanges under way.
pub(super) const UNDER_WAY: usize = 8;

/// A life that an exchange has told of, which has to answer first.
#[derive(Clone, Debug)]
struct Unverified {
    record: Record,
    since: Timestamp,
    asked: usize,
    numbers: Vec<PingNumber>,
}

impl Unverified {
    fn next_at(&self, period: Duration) -> Timestamp {
        self.since + ASKED.get(self.asked).map_or(period * PERIODS, |share| period.mul_f64(*share))
    }
}

/// Exchanges, and what they told that is not believed yet.
#[derive(Debug)]
pub(super) struct Exchanges {
    under_way: BTreeMap<Question, Place>,
    unverified: BTreeMap<NodeId, Unverified>,
    last: Option<Timestamp>,
    /// When this node last agreed with anybody.
    agreed: Timestamp,
    /// When what is known here last changed.
    changed: Timestamp,
    /// Since when somebody has known something else, and nothing was exchanged.
    differs: Option<Timestamp>,
    /// The next difference is no news under way.
    hurried: bool,
    /// Which member was last found at the place of each seed.
    seated: BTreeMap<Place, NodeId>,
}

impl Exchanges {
    pub(super) fn new(now: Timestamp) -> Self {
        let (under_way, unverified, seated) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { under_way, unverified, last: None, agreed: now, changed: now, differs: None, hurried: false, seated }
    }

    pub(super) fn next_at(&self, period: Duration) -> Option<Timestamp> {
        self.unverified.values().map(|unverified| unverified.next_at(period)).min()
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn unverified(&self) -> usize {
        self.unverified.len()
    }

    /// What is known here has changed.
    pub(super) fn changed(&mut self, now: Timestamp) {
        self.changed = now;
    }

    /// Whether a difference may be news under way. Under loss something has always just changed; but where nothing has here,
    /// though each agrees with somebody, two halves of the cluster know different things.
    fn is_excused(&mut self, excused: Duration, now: Timestamp) -> bool {
        let differs = *self.differs.get_or_insert(now);
        let is_recent = |since: Timestamp, length: Duration| now.since(since) < length;
        !self.hurried
            && is_recent(self.agreed, excused)
            && is_recent(self.changed, excused)
            && is_recent(differs, excused * LONGEST_EXCUSE)
    }

    /// Something was missed: the next difference leads to an exchange.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }
}

/// The rulings as parts of a message.
pub(super) fn rulings<'a>(all: impl Iterator<Item = (&'a NodeId, &'a Ruling)>) -> impl Iterator<Item = Part> {
    all.map(|(id, ruling)| Part::Ruling { id: id.clone(), ruling: ruling.clone() })
}

impl Machine {
    /// A member has that digest.
    pub(super) fn compare(&mut self, peer: &Life, from: Option<&Place>, digest: u64, now: Timestamp) {
        if self.phase != Phase::Member || peer.id == *self.own.id() {
            return;
        }
        if digest == self.table.digest().all() {
            (self.exchanges.agreed, self.exchanges.hurried) = (now, false);
            self.returns = false;
            return;
        }
        let is_excused = self.exchanges.is_excused(self.settings.exchange_excused, now);
        let known = self.table.get(&peer.id).filter(|record| record.life() == *peer).map(Record::place);
        if let Some(place) = known.or_else(|| from.cloned())
            && !is_excused
        {
            self.exchange(place, now);
        }
    }

    /// Exchanges what is known with whoever is there, at most once in its interval.
    fn exchange(&mut self, place: Place, now: Timestamp) {
        let is_soon = self.exchanges.last.is_some_and(|last| now.since(last) < self.settings.exchange_interval);
        if !is_soon {
            self.exchange_now(place, now);
        }
    }

    pub(super) fn exchange_now(&mut self, place: Place, now: Timestamp) {
        if self.exchanges.under_way.len() >= UNDER_WAY {
            return;
        }
        (self.exchanges.last, self.exchanges.differs, self.exchanges.hurried) = (Some(now), None, false);
        let buckets = Box::new(*self.table.digest().buckets());
        let question = self.ask(place.clone(), &[Part::Buckets(buckets)], now);
        self.exchanges.under_way.insert(question, place);
    }

    /// The same with a member that is known.
    pub(super) fn exchange_with_member(&mut self, id: &NodeId, now: Timestamp) {
        if let Some(place) = self.table.get(id).map(Record::place) {
            self.exchange_now(place, now);
        }
    }

    /// After the join: with somebody at random.
    pub(super) fn exchange_with_anybody(&mut self, now: Timestamp) {
        if let Some(place) = self.some_places(1, None).pop() {
            self.exchange_now(place, now);
        }
    }

    /// What this node answers to somebody's digests.
    pub(super) fn differing(&self, theirs: &[u64; BUCKETS]) -> Vec<Part> {
        let buckets = self.table.digest().differing(theirs);
        let told = self.held_in(&buckets);
        std::iter::once(Part::Differing(buckets)).chain(told).collect()
    }

    /// All that is known of those whose ids are in these buckets.
    fn held_in(&self, buckets: &[u8]) -> Vec<Part> {
        let records = self.table.in_buckets(buckets).cloned().map(Part::Record);
        records.chain(rulings(self.table.rulings_in_buckets(buckets))).collect()
    }

    /// A member has answered.
    pub(super) fn exchange_answered(&mut self, question: Question, message: Message, now: Timestamp) {
        let place = self.exchanges.under_way.remove(&question);
        let Message { sender, parts, .. } = message;
        let mut told = Vec::new();
        for part in parts {
            match part {
                Part::Acknowledgement { number, life, digest, hash, confirmed } => {
                    self.compare(&sender, None, digest, now);
                    self.convergence.hear(&sender.id, hash, &confirmed, now);
                    self.answers_reliably(number, &life.id, now);
                    self.acknowledged(number, &life, now);
                }
                Part::Differing(buckets) => told.extend(self.held_in(&buckets)),
                Part::Record(record) => {
                    let at = record.place();
                    self.learn(record, Way::Exchange, Some((&sender, &at)), now);
                }
                Part::Ruling { id, ruling } => self.hear_ruling(&id, &ruling, now),
                _ => {}
            }
        }
        if let Some(place) = place.filter(|_| !told.is_empty()) {
            self.ask(place, &told, now);
        }
    }

    /// Nobody has answered.
    pub(super) fn unanswered(&mut self, question: Question) {
        if self.exchanges.under_way.remove(&question).is_some() {
            // The difference is there still.
            self.exchanges.hurry();
        }
    }

    /// An exchange tells of a life that is not known here: it has to answer.
    pub(super) fn verify(&mut self, record: Record, now: Timestamp) {
        let is_newer = |known: &Unverified| known.record.order(&record).is_lt();
        let has_room = self.exchanges.unverified.len() < VERIFIED;
        match self.exchanges.unverified.get_mut(record.id()) {
            Some(known) if is_newer(known) => known.record = record,
            Some(_) => {}
            None if has_room => {
                let unverified = Unverified { record, since: now, asked: 0, numbers: Vec::new() };
                self.exchanges.unverified.insert(unverified.record.id().clone(), unverified);
                self.advance_exchanges(now);
            }
            None => {}
        }
    }

    pub(super) fn advance_exchanges(&mut self, now: Timestamp) {
        let period: Duration = self.settings.probe.period;
        let due = self.exchanges.unverified.iter().filter(|(_, unverified)| unverified.next_at(period) <= now);
        let due: Vec<NodeId> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            let number = self.next_ping();
            let Some(unverified) = self.exchanges.unverified.get_mut(&id) else { continue };
            if now >= unverified.since + period * PERIODS {
                self.exchanges.unverified.remove(&id);
                continue;
            }
            // Whoever is late itself makes up for none that it missed.
            let is_due = |share: &&f64| unverified.since + period.mul_f64(**share) <= now;
            unverified.asked = ASKED.iter().filter(is_due).count();
            unverified.numbers.push(number);
            let (place, life) = (unverified.record.place(), unverified.record.life());
            self.ping(place, number, life, now);
        }
    }

    /// Whether that answer is one of a life that was asked whether it is there.
    pub(super) fn answered_verification(&mut self, number: PingNumber, life: &Life, now: Timestamp) -> bool {
        let known = self.exchanges.unverified.get(&life.id).filter(|unverified| unverified.numbers.contains(&number));
        let Some(record) = known.map(|unverified| unverified.record.clone()) else { return false };
        if record.life() == *life {
            self.exchanges.unverified.remove(&life.id);
            self.hear(&record, now);
        }
        true
    }

    /// One of the seeds that are not members here, or of the dead, is asked whether it is there: without it no partition
    /// heals.
    pub(super) fn look_for_others(&mut self, now: Timestamp) {
        self.timers.set(Timer::Seeds, now + self.jitter.scale(self.settings.seeds_interval, 0.8));
        if self.phase != Phase::Member {
            return;
        }
        self.outputs.put(Output::LookUp);
        let gone = self.table.gone().filter_map(|id| self.table.get(id));
        let dead = gone.filter(|record| record.state() != &State::Left).map(Record::place);
        let mut candidates: Vec<Place> = self.seeds.iter().cloned().chain(dead).collect();
        for _ in 0..TRIED.min(candidates.len()) {
            let chosen = (self.jitter.next() % candidates.len() as u64) as usize;
            let place = candidates.swap_remove(chosen);
            // Whoever is a member there already is spoken to anyway.
            if !self.is_member_at(&place) {
                return self.exchange_now(place, now);
            }
        }
    }

    /// Whether an active member is reached there. Where seeds are found is remembered, for they are asked about again.
    fn is_member_at(&mut self, place: &Place) -> bool {
        let is_there = |record: &Record| {
            let node = record.node();
            record.state().is_active() && record.gossip_port() == place.port() && node.address() == place.host()
        };
        let remembered = self.exchanges.seated.get(place).and_then(|id| self.table.get(id));
        if remembered.is_some_and(is_there) {
            return true;
        }
        let found = self.table.all().find(|record| is_there(record)).map(|record| record.id().clone());
        match found {
            Some(id) if self.seeds.contains(place) => {
                self.exchanges.seated.insert(place.clone(), id);
                true
            }
            found => found.is_some(),
        }
    }
}
