//! What is known of everybody, and how it changes: the states of the members and the transitions between them.
//!
//! | from | what happens | to |
//! |---|---|---|
//! | unknown | it is said to be up, or suspected | Up, Suspect |
//! | unknown | it is said to be dead, or to have left | remembered, and nothing is told: it was never here |
//! | Up | somebody accuses it | Suspect |
//! | Suspect | somebody else accuses it, too | Suspect, for a shorter time |
//! | Suspect | it contradicts: a higher version | Up |
//! | Suspect | it has not contradicted in time | Dead |
//! | Up, Suspect | it is said to be dead, and nobody here has suspected it for long enough | Suspect: it may contradict |
//! | Suspect | it is said to be dead, and has had the time to contradict | Dead |
//! | any but Left | it says that it leaves | Left |
//! | Dead, Left | it is there again: a higher version, or another life | Up |
//!
//! Anything else is refused, and the reason is kept. Whoever decides whom to let in does so before a record comes here:
//! records merge by their order alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::accusers::Accusers;
use super::digest::{self, Digest};
use super::quarantine::{self, Quarantined};
use super::record::{Merged, Record, State};
use super::records::{Records, Slot};
use super::rulings::{Ruling, Rulings};
use super::suspicion::{self, Bounds, Suspicion};
use crate::clock::Timestamp;
use crate::topology::NodeId;

/// For how long whoever is gone is remembered: longer than any news of it travels.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// So many of them are remembered in any case.
const LEAST_REMEMBERED: usize = 1000;
/// The most members, and the most who are remembered beside them: more than any cluster of this kind has.
pub(super) const MOST: usize = 100_000;
/// How many refusals are kept.
const KEPT: usize = 64;

/// How a node changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// What was known before; absent for whoever is new.
    pub(super) before: Option<Record>,
    /// What is known now.
    pub(super) now: Record,
}

/// Why a transition is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Illegal {
    /// Nobody has heard of the node.
    Unknown,
    /// It is in another life, or has contradicted already.
    Outdated,
    /// It is dead, or has left.
    Gone,
    /// It accuses itself.
    OwnAccuser,
    /// It is not suspected.
    NotSuspected,
    /// It is unknown, and there are as many as there may be.
    NoRoom,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Illegal::Unknown => "nobody has heard of it",
            Illegal::Outdated => "it is in another life, or has contradicted already",
            Illegal::Gone => "it is dead, or has left",
            Illegal::OwnAccuser => "nobody accuses itself",
            Illegal::NotSuspected => "it is not suspected",
            Illegal::NoRoom => "there are as many members as there may be",
        })
    }
}

/// A transition that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) at: Timestamp,
    pub(crate) node: NodeId,
    pub(crate) reason: Illegal,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Table {
    records: Records,
    suspicions: BTreeMap<NodeId, Suspicion>,
    digest: Digest,
    active: usize,
    /// Since when those who are gone have been so.
    gone: BTreeMap<NodeId, Timestamp>,
    /// The most members that there ever were.
    peak: usize,
    /// When each node that is known was last let in again after a death.
    returned: BTreeMap<NodeId, Timestamp>,
    refused: VecDeque<Refused>,
    refusals: u64,
    rulings: Rulings,
    /// The most members, and the most who are remembered beside them.
    most: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            records: Records::default(),
            suspicions: BTreeMap::new(),
            digest: Digest::default(),
            active: 0,
            gone: BTreeMap::new(),
            peak: 0,
            returned: BTreeMap::new(),
            refused: VecDeque::new(),
            refusals: 0,
            rulings: Rulings::default(),
            most: MOST,
        }
    }
}

impl Table {
    /// One with room for fewer.
    #[cfg(test)]
    pub(super) fn of_at_most(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Record> {
        self.records.get(id.as_str())
    }

    /// The slot of whoever is known, for as long as it is.
    pub(super) fn slot(&self, id: &NodeId) -> Option<Slot> {
        self.records.slot(id.as_str())
    }

    pub(super) fn at(&self, slot: Slot) -> Option<&Record> {
        self.records.at(slot)
    }

    /// How many are known, in whichever state.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many members are active.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The transitions that were refused last, the oldest first, and how many there were in all.
    pub(super) fn refused(&self) -> (impl Iterator<Item = &Refused>, u64) {
        (self.refused.iter(), self.refusals)
    }

    /// Everybody who is remembered though it is gone.
    pub(super) fn gone(&self) -> impl ExactSizeIterator<Item = &NodeId> {
        self.gone.keys()
    }

    /// What operators have ruled.
    pub(super) fn rulings(&self) -> &Rulings {
        &self.rulings
    }

    /// Somebody holds that ruling about the id. If it counts here from now on: the id, and the one whose ruling had to make
    /// room, if any.
    pub(super) fn rule(&mut self, id: &NodeId, ruling: &Ruling) -> Vec<NodeId> {
        let changes = self.rulings.hear(id, ruling);
        changes.iter().for_each(|(id, change)| self.digest.change(id, *change));
        changes.into_iter().map(|(id, _)| id).collect()
    }

    /// The rulings about those whose ids are in these buckets.
    pub(super) fn rulings_in_buckets(&self, buckets: &[u8]) -> impl Iterator<Item = (&NodeId, &Ruling)> {
        let is_wanted = among(buckets);
        self.rulings.all().filter(move |(id, _)| is_wanted(id))
    }

    /// Everybody who would not be let in now, in the order of the ids.
    pub(super) fn quarantined(&self, now: Timestamp) -> Vec<Quarantined> {
        let ids = self.gone.keys().chain(self.rulings.all().map(|(id, _)| id)).collect::<BTreeSet<_>>();
        let entry = |id: &NodeId| quarantine::entry(id, self.records.get(id.as_str()), self.rulings.get(id), now);
        ids.into_iter().filter_map(entry).collect()
    }

    /// Everybody who is known.
    pub(super) fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// What is known of those whose ids are in these buckets.
    pub(super) fn in_buckets(&self, buckets: &[u8]) -> impl Iterator<Item = &Record> {
        let is_wanted = among(buckets);
        self.records.iter().filter(move |record| is_wanted(record.id()))
    }

    /// Forgets who has been gone for an hour, and of more than there ever were members those who went first. Whoever is
    /// quarantined is remembered. Who was forgotten.
    pub(super) fn sweep(&mut self, now: Timestamp) -> Vec<NodeId> {
        let is_quarantined = |record: &Record| match record.state() {
            State::Dead { quarantined_until, .. } => now < *quarantined_until,
            _ => false,
        };
        let mut spare = self.gone.len().saturating_sub(self.peak.max(LEAST_REMEMBERED));
        let mut gone: Vec<_> = self.gone.iter().map(|(id, since)| (*since, id.clone())).collect();
        gone.sort_unstable();
        let mut forgotten = Vec::new();
        for (since, id) in gone {
            let is_over = now.since(since) >= REMEMBERED || spare > 0;
            if !is_over || self.records.get(id.as_str()).is_some_and(is_quarantined) {
                continue;
            }
            spare = spare.saturating_sub(1);
            self.records.remove(id.as_str());
            self.gone.remove(&id);
            self.returned.remove(&id);
            forgotten.push(id);
        }
        // Whoever has lived for long enough since its return begins anew.
        self.returned.retain(|_, returned| now.since(*returned) < REMEMBERED);
        forgotten
    }

    /// The process stood still: those who are suspected have their time anew.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.suspicions.values_mut().for_each(|suspicion| suspicion.restart(now));
    }

    /// This node heard from nobody since then: those whom it has suspected meanwhile have their time anew. The others do
    /// not, and nor do those who had it anew when the silence began: a node that is often cut off would never judge anybody.
    pub(super) fn restart_since(&mut self, silent_since: Timestamp, now: Timestamp) {
        let late = self.suspicions.values_mut().filter(|suspicion| suspicion.began() > silent_since);
        late.for_each(|suspicion| suspicion.restart(now));
    }

    /// Gives the node more time, once, because it may be this one that is slow; whether it did.
    pub(super) fn stretch(&mut self, id: &NodeId, score: u32) -> bool {
        self.suspicions.get_mut(id).is_some_and(|suspicion| suspicion.stretch(score))
    }

    /// Whether anybody is suspected or gone.
    pub(super) fn doubts_anybody(&self) -> bool {
        !self.suspicions.is_empty() || !self.gone.is_empty()
    }

    /// Whether another suspicion is about to be settled: one of several accusers.
    pub(super) fn awaits_others(&self) -> bool {
        self.suspicions.values().any(|suspicion| suspicion.accusers().len() > 1)
    }

    /// Whether the node is known, or there is room for it: for so many members, and as many who are gone.
    pub(super) fn has_room(&self, record: &Record) -> bool {
        let has_room = if record.state().is_active() { self.active < self.most } else { self.gone.len() < self.most };
        has_room || self.records.get(record.id().as_str()).is_some()
    }

    /// Somebody says that of a node.
    pub(super) fn hear(&mut self, record: &Record, bounds: Bounds, now: Timestamp) -> Option<Change> {
        let id = record.id();
        let before = self.records.get(id.as_str()).cloned();
        let merged = match &before {
            None if !self.has_room(record) => {
                self.refuse(id, Illegal::NoRoom, now);
                return None;
            }
            None => record.clone(),
            Some(known) => {
                let said = self.as_accusation(known, record, now).unwrap_or_else(|| record.clone());
                let mut merged = known.clone();
                if merged.merge(&said) == Merged::Nothing {
                    return None;
                }
                merged
            }
        };
        self.put(before.as_ref(), &merged, bounds, now);
        let is_news = before.is_some() || merged.state().is_active();
        is_news.then_some(Change { before, now: merged })
    }

    /// An accuser says that the node of that life and version does not answer.
    ///
    /// # Errors
    /// [`Illegal`], which is kept.
    pub(super) fn accuse(
        &mut self,
        (id, incarnation, version): (&NodeId, u64, u64),
        accuser: &NodeId,
        bounds: Bounds,
        now: Timestamp,
    ) -> Result<Option<Change>, Illegal> {
        let judged = match self.records.get(id.as_str()) {
            _ if accuser == id => Err(Illegal::OwnAccuser),
            None => Err(Illegal::Unknown),
            Some(known) if (known.node().incarnation(), known.version()) != (incarnation, version) => {
                Err(Illegal::Outdated)
            }
            Some(known) if !known.state().is_active() => Err(Illegal::Gone),
            Some(known) => Ok(known.with(State::Suspect(Accusers::of(accuser.clone())), known.strikes())),
        };
        match judged {
            Ok(suspect) => Ok(self.hear(&suspect, bounds, now)),
            Err(reason) => Err(self.refuse(id, reason, now)),
        }
    }

    /// The suspicion of the node has run out: it is dead, and quarantined for `first`, or longer where it was struck before.
    ///
    /// # Errors
    /// [`Illegal`], which is kept.
    pub(super) fn settle(
        &mut self,
        id: &NodeId,
        bounds: Bounds,
        first: Duration,
        now: Timestamp,
    ) -> Result<Change, Illegal> {
        let Some(known) = self.records.get(id.as_str()).cloned() else {
            return Err(self.refuse(id, Illegal::Unknown, now));
        };
        let State::Suspect(accusers) = known.state().clone() else {
            let reason = if known.state().is_active() { Illegal::NotSuspected } else { Illegal::Gone };
            return Err(self.refuse(id, reason, now));
        };
        let lived = self.returned.remove(id).map(|returned| now.since(returned));
        let strikes = quarantine::strikes(known.strikes(), lived);
        let quarantined_until = now + quarantine::lasting(strikes, first);
        let dead = known.with(State::Dead { accusers, quarantined_until }, strikes);
        self.put(Some(&known), &dead, bounds, now);
        Ok(Change { before: Some(known), now: dead })
    }

    /// The suspicions that have run out.
    pub(super) fn expired(&self, now: Timestamp) -> Vec<NodeId> {
        let is_over = |suspicion: &Suspicion| suspicion.ends_at() <= now;
        self.suspicions.iter().filter(|(_, suspicion)| is_over(suspicion)).map(|(id, _)| id.clone()).collect()
    }

    /// When the next suspicion runs out.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.suspicions.values().map(Suspicion::ends_at).min()
    }

    /// What is said of the dead may be old, or the word of one alone whose accusation nobody has heard. Of a member that nobody
    /// here has suspected for long enough it is an accusation: otherwise each half of a partition that heals would remove the
    /// other, and a node that is hardly heard would remove those that are well.
    fn as_accusation(&self, known: &Record, said: &Record, now: Timestamp) -> Option<Record> {
        let State::Dead { accusers, .. } = said.state() else { return None };
        let is_same = known.node().incarnation() == said.node().incarnation();
        let suspicion = self.suspicions.get(known.id()).filter(|_| known.version() == said.version());
        let is_believed = suspicion.is_some_and(|suspicion| suspicion.could_be_contradicted(now));
        (known.state().is_active() && is_same && !is_believed)
            .then(|| said.with(State::Suspect(accusers.clone()), known.strikes()))
    }

    /// One record takes the place of another, with all that follows from it.
    fn put(&mut self, before: Option<&Record>, record: &Record, bounds: Bounds, now: Timestamp) {
        let id = record.id().clone();
        let was_active = before.is_some_and(|before| before.state().is_active());
        let is_active = record.state().is_active();
        self.digest.replace(before, Some(record));
        self.active = self.active + usize::from(is_active) - usize::from(was_active);
        if is_active && before.is_some_and(|before| matches!(before.state(), State::Dead { .. })) {
            self.returned.insert(id.clone(), now);
        }
        let is_same = before.is_some_and(|before| {
            before.version() == record.version() && before.node().incarnation() == record.node().incarnation()
        });
        match record.state() {
            State::Suspect(accusers) => match self.suspicions.get_mut(&id).filter(|_| is_same) {
                Some(suspicion) => _ = suspicion.confirm(accusers),
                None => {
                    let expected = suspicion::expected(self.active);
                    self.suspicions.insert(id.clone(), Suspicion::new(accusers.clone(), expected, bounds, now));
                }
            },
            _ => _ = self.suspicions.remove(&id),
        }
        if is_active {
            self.gone.remove(&id);
            self.peak = self.peak.max(self.active);
        } else if was_active || !self.gone.contains_key(&id) {
            self.gone.insert(id.clone(), now);
        }
        self.records.insert(record.clone());
        debug_assert_eq!(self.active, self.records.iter().filter(|record| record.state().is_active()).count());
    }

    fn refuse(&mut self, node: &NodeId, reason: Illegal, at: Timestamp) -> Illegal {
        if self.refused.len() == KEPT {
            self.refused.pop_front();
        }
        self.refused.push_back(Refused { at, node: node.clone(), reason });
        self.refusals += 1;
        reason
    }
}

/// Whether an id is in one of these buckets.
fn among(buckets: &[u8]) -> impl Fn(&NodeId) -> bool + use<> {
    let mut wanted = [false; digest::BUCKETS];
    buckets.iter().for_each(|bucket| wanted[usize::from(*bucket)] = true);
    move |id| wanted[usize::from(digest::bucket(id))]
}

#[cfg(test)]
mod tests {
    use super::super::rulings::Sentence;
    use super::*;
    use crate::topology::ClusterNode;
    use proptest::prelude::*;
    use std::sync::Arc;

    const FIRST: Duration = Duration::from_secs(10);
    const BOUNDS: Bounds = Bounds { shortest: Duration::from_secs(4), longest: Duration::from_secs(24) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn record(name: &str, incarnation: u64, version: u64, state: State) -> Record {
        let node = ClusterNode::builder(name, "10.0.0.1", 7).incarnation(incarnation).build().unwrap();
        Record::new(Arc::new(node), version, state, 0).unwrap()
    }

    fn suspect(accusers: &[&str]) -> State {
        State::Suspect(accusers.iter().map(|accuser| id(accuser)).collect())
    }

    fn dead(until: u64) -> State {
        State::Dead { accusers: Accusers::of(id("n9")), quarantined_until: at(until) }
    }

    /// The node has been suspected for long, and is found dead.
    fn find_dead(table: &mut Table, name: &str, until: u64) {
        table.hear(&record(name, 1, 0, suspect(&["n9"])), BOUNDS, at(0));
        table.hear(&record(name, 1, 0, dead(until)), BOUNDS, at(2)).unwrap();
    }

    /// n1 to n5, up.
    fn five() -> Table {
        let mut table = Table::default();
        for name in ["n1", "n2", "n3", "n4", "n5"] {
            let change = table.hear(&record(name, 1, 0, State::Up), BOUNDS, at(0)).unwrap();
            assert_eq!((change.before, change.now.state()), (None, &State::Up));
        }
        table
    }

    fn accuse(table: &mut Table, name: &str, accuser: &str, second: u64) -> Result<Option<Change>, Illegal> {
        table.accuse((&id(name), 1, 0), &id(accuser), BOUNDS, at(second))
    }

    fn state(table: &Table, name: &str) -> State {
        table.get(&id(name)).unwrap().state().clone()
    }

    #[test]
    fn m2_5_of_more_than_there_may_be_nobody_is_let_in_and_those_who_are_known_change_as_before() {
        let mut table = Table::of_at_most(3);
        for n in 0..5 {
            table.hear(&record(&format!("n{n}"), 1, 0, State::Up), BOUNDS, at(0));
        }
        assert_eq!((table.active(), table.all().count()), (3, 3));
        for n in 0..5 {
            table.hear(&record(&format!("gone{n}"), 1, 0, dead(10)), BOUNDS, at(0));
        }
        assert_eq!((table.active(), table.gone().len(), table.all().count()), (3, 3, 6));
        let (refused, count) = table.refused();
        assert!(refused.into_iter().all(|refused| refused.reason == Illegal::NoRoom) && count == 4);
        assert!(accuse(&mut table, "n1", "n2", 1).unwrap().is_some());
        assert!(table.hear(&record("n1", 1, 1, State::Left), BOUNDS, at(1)).is_some());
        assert!(table.hear(&record("n4", 1, 0, State::Up), BOUNDS, at(1)).is_some(), "there is room again");
    }

    #[test]
    fn m3_5_the_list_of_those_who_would_not_be_let_in_has_the_dead_and_those_whom_an_operator_keeps_out() {
        let mut table = five();
        find_dead(&mut table, "n1", 10);
        table.hear(&record("n2", 1, 0, State::Left), BOUNDS, at(0));
        let kept = |until: Option<u64>| Ruling::over(None, id("n5"), Sentence::KeptOut { until: until.map(at) });
        assert_eq!(table.rule(&id("x"), &kept(None)), [id("x")]);
        assert_eq!(table.rule(&id("n1"), &kept(Some(5))), [id("n1")]);
        let list = |table: &Table, second| {
            let entries = table.quarantined(at(second));
            entries.iter().map(|entry| (entry.id.to_string(), entry.until, entry.is_pinned)).collect::<Vec<_>>()
        };
        let x = ("x".to_owned(), None, true);
        assert_eq!(list(&table, 4), [("n1".to_owned(), Some(at(10)), true), x.clone()]);
        assert_eq!(list(&table, 6), [("n1".to_owned(), Some(at(10)), false), x.clone()]);
        assert_eq!(list(&table, 10), [x]);
        let entry = &table.quarantined(at(6))[0];
        assert_eq!((entry.incarnation, &entry.accusers), (Some(1), &Accusers::of(id("n9"))));
        let lifted =
            Ruling::over(table.rulings().get(&id("n1")), id("n5"), Sentence::LetIn { incarnation: 1, version: 0 });
        table.rule(&id("n1"), &lifted);
        assert_eq!(list(&table, 6).len(), 1);
    }

    #[test]
    fn m1_4_rulings_count_in_the_digest_and_are_found_in_their_buckets() {
        let (mut table, other) = (five(), five());
        let kept = Ruling::over(None, id("n5"), Sentence::KeptOut { until: None });
        assert_eq!(table.rule(&id("x"), &kept), [id("x")]);
        assert_eq!(table.rule(&id("x"), &kept), []);
        let differing = table.digest().differing(other.digest().buckets());
        assert_eq!(differing, [digest::bucket(&id("x"))]);
        assert_eq!(table.rulings_in_buckets(&differing).map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["x"]);
        assert_eq!(table.rulings_in_buckets(&[differing[0] ^ 1]).count(), 0);
        assert_ne!(table.digest().all(), other.digest().all());
    }

    #[test]
    fn m2_2_m2_3_m2_4_a_member_is_up_is_accused_and_dies_unless_it_contradicts() {
        let mut table = five();
        assert!(accuse(&mut table, "n1", "n2", 1).unwrap().is_some());
        assert_eq!((state(&table, "n1"), table.active(), table.next_at()), (suspect(&["n2"]), 5, Some(at(25))));
        assert_eq!((table.expired(at(24)), table.expired(at(25))), (vec![], vec![id("n1")]));
        let change = table.settle(&id("n1"), BOUNDS, FIRST, at(25)).unwrap();
        assert_eq!(change.before.unwrap().state(), &suspect(&["n2"]));
        let quarantined = State::Dead { accusers: Accusers::of(id("n2")), quarantined_until: at(35) };
        assert_eq!((change.now.state(), table.active(), table.next_at()), (&quarantined, 4, None));
        // n2 contradicts in time.
        accuse(&mut table, "n2", "n3", 30).unwrap();
        let change = table.hear(&record("n2", 1, 1, State::Up), BOUNDS, at(31)).unwrap();
        assert_eq!((change.now.state(), table.next_at(), table.active()), (&State::Up, None, 4));
    }

    #[test]
    fn m2_3_each_accuser_shortens_the_suspicion_and_the_same_one_does_not() {
        let mut table = five();
        accuse(&mut table, "n1", "n2", 0).unwrap();
        assert!(!table.awaits_others());
        assert_eq!(accuse(&mut table, "n1", "n2", 1), Ok(None));
        assert_eq!(table.next_at(), Some(at(24)));
        assert!(accuse(&mut table, "n1", "n3", 1).unwrap().is_some());
        assert_eq!((table.next_at(), table.awaits_others()), (Some(at(14)), true));
    }

    #[test]
    fn m2_5_a_transition_that_the_table_does_not_have_is_refused_and_its_reason_kept() {
        let mut table = five();
        assert_eq!(accuse(&mut table, "n7", "n2", 1), Err(Illegal::Unknown));
        assert_eq!(accuse(&mut table, "n1", "n1", 2), Err(Illegal::OwnAccuser));
        assert_eq!(table.accuse((&id("n1"), 0, 0), &id("n2"), BOUNDS, at(3)), Err(Illegal::Outdated));
        assert_eq!(table.accuse((&id("n1"), 1, 1), &id("n2"), BOUNDS, at(4)), Err(Illegal::Outdated));
        assert_eq!(table.settle(&id("n1"), BOUNDS, FIRST, at(5)), Err(Illegal::NotSuspected));
        table.hear(&record("n1", 1, 0, State::Left), BOUNDS, at(6)).unwrap();
        assert_eq!(accuse(&mut table, "n1", "n2", 7), Err(Illegal::Gone));
        assert_eq!(table.settle(&id("n1"), BOUNDS, FIRST, at(8)), Err(Illegal::Gone));
        assert_eq!(table.settle(&id("n7"), BOUNDS, FIRST, at(9)), Err(Illegal::Unknown));
        let (kept, count) = table.refused();
        let kept: Vec<_> = kept.map(|refused| (refused.at, refused.reason)).collect();
        assert_eq!((kept.len(), count, kept[1]), (8, 8, (at(2), Illegal::OwnAccuser)));
        for second in 0..100 {
            _ = accuse(&mut table, "n7", "n2", second);
        }
        let (kept, count) = table.refused();
        assert_eq!((kept.count(), count), (KEPT, 108));
        assert_eq!(Illegal::Gone.to_string(), "it is dead, or has left");
    }

    #[test]
    fn m2_4_whoever_was_never_here_is_remembered_as_gone_and_nothing_is_told() {
        let mut table = five();
        let gone = |state| record("n6", 1, 0, state);
        assert_eq!(table.hear(&gone(dead(9)), BOUNDS, at(1)), None);
        assert!(table.hear(&gone(State::Left), BOUNDS, at(1)).is_some(), "of somebody who is known");
        assert_eq!((state(&table, "n6"), table.active()), (State::Left, 5));
    }

    #[test]
    fn m2_4_a_death_is_believed_where_the_suspicion_could_have_been_contradicted_and_else_an_accusation() {
        let mut table = five();
        let dies = |table: &mut Table, version, millis| {
            table.hear(&record("n1", 1, version, dead(90)), BOUNDS, at(0) + Duration::from_millis(millis));
            state(table, "n1")
        };
        // Nobody has accused it here.
        assert_eq!((dies(&mut table, 0, 1000), table.active()), (suspect(&["n9"]), 5));
        assert_eq!(dies(&mut table, 0, 2999), suspect(&["n9"]), "told once more it is no truer");
        // It has contradicted, and is accused anew: that is another suspicion.
        assert_eq!(dies(&mut table, 1, 3000), suspect(&["n9"]));
        assert_eq!(dies(&mut table, 1, 4999), suspect(&["n9"]));
        assert_eq!(dies(&mut table, 0, 9000), suspect(&["n9"]), "of a version that it has contradicted");
        assert_eq!((dies(&mut table, 1, 5000), table.active()), (dead(90), 4));
    }

    #[test]
    fn m3_1_whoever_dies_soon_after_its_return_is_quarantined_for_longer() {
        let mut table = five();
        let mut version = 0;
        let mut lasted = Vec::new();
        for second in [0, 100, 200, 1200] {
            table.accuse((&id("n1"), 1, version), &id("n2"), BOUNDS, at(second)).unwrap();
            let change = table.settle(&id("n1"), BOUNDS, FIRST, at(second + 24)).unwrap();
            let State::Dead { quarantined_until, .. } = change.now.state() else { panic!("{change:?}") };
            lasted.push(quarantined_until.since(at(second + 24)).as_secs());
            version += 1;
            let back = Record::new(Arc::clone(change.now.node()), version, State::Up, change.now.strikes()).unwrap();
            table.hear(&back, BOUNDS, at(second + 50)).unwrap();
        }
        assert_eq!(lasted, [10, 20, 40, 10], "the last time it had lived for longer than ten minutes");
    }

    #[test]
    fn m2_5_the_gone_are_remembered_for_an_hour_and_the_quarantined_until_that_is_over() {
        let mut table = five();
        find_dead(&mut table, "n1", 3700);
        table.hear(&record("n2", 1, 0, State::Left), BOUNDS, at(10));
        assert_eq!((table.sweep(at(3609)), table.gone().len()), (vec![], 2));
        assert_eq!((table.sweep(at(3610)), table.gone().len()), (vec![id("n2")], 1));
        assert!(table.get(&id("n2")).is_none());
        assert_eq!(table.sweep(at(3699)), []);
        assert_eq!((table.sweep(at(3700)), table.gone().len()), (vec![id("n1")], 0));
    }

    #[test]
    fn m2_5_of_more_who_are_gone_than_there_may_be_the_longest_gone_are_forgotten_and_not_the_quarantined() {
        let mut table = five();
        for n in 0..LEAST_REMEMBERED as u64 + 3 {
            // The least ids are those of the last.
            let state = match n {
                0 => dead(9000),
                1 => dead(2000),
                _ => State::Left,
            };
            table.hear(&record(&format!("g{:04}", 9000 - n), 1, 0, state), BOUNDS, at(n));
        }
        let gone = |n: u64| id(&format!("g{:04}", 9000 - n));
        assert_eq!(table.sweep(at(2000)), [gone(1), gone(2), gone(3)]);
        assert_eq!((table.gone().len(), table.get(&gone(0)).is_some()), (LEAST_REMEMBERED, true));
        assert_eq!(table.sweep(at(2000)), []);
    }

    #[test]
    fn m2_5_as_many_who_are_gone_are_remembered_as_there_ever_were_members() {
        let mut table = Table::default();
        let most = LEAST_REMEMBERED as u64 + 5;
        for state in [State::Up, State::Left] {
            (0..most).for_each(|n| _ = table.hear(&record(&format!("n{n}"), 1, 0, state.clone()), BOUNDS, at(0)));
        }
        assert_eq!((table.sweep(at(1)), table.gone().len()), (vec![], LEAST_REMEMBERED + 5));
        table.hear(&record("x", 1, 0, State::Left), BOUNDS, at(2));
        assert_eq!(table.sweep(at(2)).len(), 1);
    }

    #[test]
    fn m2_5_when_somebody_returned_is_forgotten_with_it_and_after_an_hour() {
        let mut table = five();
        for name in ["n1", "n2"] {
            find_dead(&mut table, name, 5);
            table.hear(&record(name, 1, 1, State::Up), BOUNDS, at(10));
        }
        assert_eq!((table.gone().len(), table.returned.len()), (0, 2));
        table.hear(&record("n2", 1, 1, State::Left), BOUNDS, at(10));
        table.sweep(at(3609));
        assert_eq!(table.returned.len(), 2);
        assert_eq!(table.sweep(at(3610)), [id("n2")]);
        assert!(table.returned.is_empty());
        // Of whoever is forgotten early nothing stays.
        table.hear(&record("x0", 1, 0, suspect(&["n9"])), BOUNDS, at(4000));
        table.hear(&record("x0", 1, 0, dead(4003)), BOUNDS, at(4002)).unwrap();
        table.hear(&record("x0", 1, 1, State::Up), BOUNDS, at(4003)).unwrap();
        table.hear(&record("x0", 1, 1, State::Left), BOUNDS, at(4004)).unwrap();
        assert_eq!(table.returned.len(), 1);
        (0..LEAST_REMEMBERED)
            .for_each(|n| _ = table.hear(&record(&format!("y{n}"), 1, 0, State::Left), BOUNDS, at(4005)));
        assert_eq!((table.sweep(at(4006)), table.returned.len()), (vec![id("x0")], 0));
    }

    #[test]
    fn m2_5_whoever_leaves_after_its_death_has_been_gone_since_then() {
        let mut table = five();
        find_dead(&mut table, "n1", 5);
        table.hear(&record("n1", 1, 0, State::Left), BOUNDS, at(50)).unwrap();
        assert_eq!(table.sweep(at(3601)), []);
        assert_eq!(table.sweep(at(3602)), [id("n1")]);
    }

    #[test]
    fn m2_3_a_suspicion_is_stretched_once_and_only_where_there_is_one() {
        let mut table = five();
        accuse(&mut table, "n1", "n2", 0).unwrap();
        assert_eq!((table.stretch(&id("n1"), 0), table.next_at()), (false, Some(at(24))));
        assert_eq!((table.stretch(&id("n1"), 2), table.next_at()), (true, Some(at(32))));
        assert!(!table.stretch(&id("n1"), 2) && !table.stretch(&id("n2"), 2));
    }

    #[test]
    fn m2_3_somebody_is_doubted_while_anybody_is_suspected_or_gone_and_one_of_several_accusers_is_waited_for() {
        let mut table = five();
        assert!(!table.doubts_anybody());
        accuse(&mut table, "n1", "n2", 0).unwrap();
        accuse(&mut table, "n3", "n2", 0).unwrap();
        assert!(table.doubts_anybody() && !table.awaits_others());
        accuse(&mut table, "n3", "n4", 0).unwrap();
        assert!(table.awaits_others(), "one of two");
        table.hear(&record("n1", 1, 1, State::Up), BOUNDS, at(1)).unwrap();
        table.hear(&record("n3", 1, 1, State::Left), BOUNDS, at(1)).unwrap();
        assert!(table.doubts_anybody() && !table.awaits_others());
    }

    #[test]
    fn m2_4_a_death_is_an_accusation_of_an_active_member_in_that_life_alone() {
        let mut table = five();
        find_dead(&mut table, "n1", 10);
        table.hear(&record("n1", 1, 1, dead(20)), BOUNDS, at(3)).unwrap();
        assert_eq!((state(&table, "n1"), table.active()), (dead(20), 4), "it was gone already");
        table.hear(&record("n2", 2, 0, dead(20)), BOUNDS, at(3)).unwrap();
        assert_eq!((state(&table, "n2"), table.active()), (dead(20), 3), "another life, which nobody here has known");
    }

    proptest! {
        #[test]
        fn m1_4_whatever_is_heard_in_whatever_order_the_parts_of_the_table_fit_each_other(
            steps in prop::collection::vec((0u8..5, 0u64..2, 0u64..3, 0u8..6, 0u64..30), 0..150),
        ) {
            let mut table = Table::default();
            let mut now = 0;
            for (n, incarnation, version, what, pause) in steps {
                now += pause;
                let name = format!("n{n}");
                match what {
                    0 => _ = table.accuse((&id(&name), incarnation, version), &id("n9"), BOUNDS, at(now)),
                    1 => {
                        for id in table.expired(at(now)) {
                            prop_assert!(table.settle(&id, BOUNDS, FIRST, at(now)).is_ok());
                        }
                    }
                    _ => {
                        let state = [State::Up, suspect(&["n8"]), dead(now + 10), State::Left][usize::from(what) - 2].clone();
                        table.hear(&record(&name, incarnation, version, state), BOUNDS, at(now));
                    }
                }
                let suspected = table.records.iter().filter(|record| matches!(record.state(), State::Suspect(_)));
                let suspected: BTreeSet<_> = suspected.map(|record| record.id().clone()).collect();
                prop_assert_eq!(table.suspicions.keys().cloned().collect::<BTreeSet<_>>(), suspected);
                let mut digest = Digest::default();
                table.records.iter().for_each(|record| digest.replace(None, Some(record)));
                prop_assert_eq!(table.digest(), &digest);
                for (id, suspicion) in &table.suspicions {
                    let State::Suspect(accusers) = table.records.get(id.as_str()).unwrap().state() else { panic!("{id}") };
                    prop_assert_eq!(suspicion.accusers(), accusers);
                }
            }
        }
    }
}
