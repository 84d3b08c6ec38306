//! Telling the view to processes that are no members: an observer asks over the reliable channel, names what it holds, and
//! is answered when that changes, or after a while as a sign of life.
//!
//! An observer is in no table. Of more than there is room for each is sent to other members.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Machine;
use crate::clock::Timestamp;
use crate::membership::record::{Record, State};
use crate::membership::settling::TopologyUpdate;
use crate::membership::wire::part::{ELSEWHERE, Gone, Part};
use crate::topology::{Members, NodeId, TopologyDiff};

/// After so long an observer is told that nothing has changed.
pub(in crate::membership) const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// What was announced before is remembered for so many updates: whoever holds it is told the difference alone.
const REMEMBERED: usize = 64;

/// Nothing is remembered when nobody has asked for so long.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// An observer that waits for an answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The hash of what it holds.
    hash: u64,
    answer_by: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Observers {
    waiting: BTreeMap<u64, Waiting>,
    /// What was announced before, the oldest first, and who died in the update that followed.
    before: VecDeque<(Members, Vec<NodeId>)>,
    /// When an observer asked last.
    asked: Option<Timestamp>,
}

impl Observers {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.waiting.values().map(|waiting| waiting.answer_by).min()
    }

    /// The members were those until that update.
    pub(super) fn announced(&mut self, before: Members, update: &TopologyUpdate) {
        // Whom nobody looks at has nothing to remember.
        if self.asked.is_none_or(|asked| update.at.since(asked) > FORGOTTEN) {
            return self.before.clear();
        }
        if self.before.len() == REMEMBERED {
            self.before.pop_front();
        }
        self.before.push_back((before, update.dead.iter().map(|node| node.id().clone()).collect()));
    }

    /// The members as they were when they had that hash, and who has died since.
    fn since(&self, hash: u64) -> Option<(&Members, BTreeSet<&NodeId>)> {
        let place = self.before.iter().rposition(|(members, _)| members.hash() == hash)?;
        let (members, _) = self.before.get(place)?;
        Some((members, self.before.iter().skip(place).flat_map(|(_, dead)| dead).collect()))
    }
}

impl Machine {
    /// An observer asks, which holds the members of that hash; 0: none.
    pub(super) fn observed(&mut self, channel: u64, hash: u64, now: Timestamp) {
        if !self.is_member() {
            return self.answer(channel, &[Part::Noted], now);
        }
        self.observers.asked = Some(now);
        if hash != self.members().hash() {
            let told = self.difference(hash);
            return self.answer(channel, &told, now);
        }
        if self.observers.len() >= self.settings.observers {
            let places = self.some_places(ELSEWHERE, None);
            return self.answer(channel, &[Part::Elsewhere(places)], now);
        }
        self.observers.waiting.insert(channel, Waiting { hash, answer_by: now + SIGN_OF_LIFE });
    }

    /// Answers those who have waited for long enough, and those who hold what is over.
    pub(super) fn answer_observers(&mut self, now: Timestamp) {
        let hash = self.members().hash();
        let is_due = |waiting: &Waiting| waiting.answer_by <= now || waiting.hash != hash;
        let due = self.observers.waiting.iter().filter(|(_, waiting)| is_due(waiting));
        let due: Vec<_> = due.map(|(channel, waiting)| (*channel, *waiting)).collect();
        for (channel, waiting) in due {
            self.observers.waiting.remove(&channel);
            let told = self.difference(waiting.hash);
            self.answer(channel, &told, now);
        }
    }

    /// This node ends: whoever waits looks for another one.
    pub(super) fn dismiss_observers(&mut self, now: Timestamp) {
        for channel in std::mem::take(&mut self.observers.waiting).into_keys() {
            self.answer(channel, &[Part::Noted], now);
        }
    }

    /// What whoever holds the members of that hash has to hear.
    fn difference(&self, hash: u64) -> Vec<Part> {
        let members = self.members();
        if members.hash() == hash {
            return vec![Part::Observed { hash, is_whole: false, gone: Vec::new() }];
        }
        let hash_now = members.hash();
        // Who holds nothing, or doubts what it holds, is told everything.
        let Some((before, dead)) = self.observers.since(hash).filter(|_| hash != 0) else {
            let whole = Part::Observed { hash: hash_now, is_whole: true, gone: Vec::new() };
            return std::iter::once(whole).chain(members.iter().map(|node| self.as_announced(node))).collect();
        };
        let diff = TopologyDiff::between(before, members);
        let is_gone = |id: &NodeId| !members.contains(id);
        let gone = diff.left().iter().map(|node| node.id()).filter(|id| is_gone(id));
        let gone = gone.map(|id| Gone { id: id.clone(), is_dead: dead.contains(id) }).collect();
        let changed = Part::Observed { hash: hash_now, is_whole: false, gone };
        let nodes = diff.joined().iter().chain(diff.updated());
        std::iter::once(changed).chain(nodes.map(|node| self.as_announced(node))).collect()
    }

    /// The record of a node as it was announced, whatever is known of it since.
    fn as_announced(&self, node: &Arc<crate::topology::ClusterNode>) -> Part {
        let known = self.table.get(node.id());
        let port = known.map_or(node.port(), Record::gossip_port);
        let version = known.map_or(0, Record::version);
        // A node that is announced has come with a record.
        let record = Record::new(Arc::clone(node), version, State::Up, 0).unwrap_or_else(|| self.own.clone());
        Part::Record(record.reached_at(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::members;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    /// One member takes the place of another.
    fn announce(observers: &mut Observers, number: u64, now: Timestamp) {
        let [before, after] = [number, number + 1].map(|number| members(&[&format!("n{number}")]));
        let update = TopologyUpdate::between((number, now), &before, after, |_| true).unwrap();
        observers.announced(before, &update);
    }

    #[test]
    fn m1_5_the_last_64_views_are_remembered_while_somebody_asks_and_for_a_minute() {
        let mut observers = Observers::default();
        announce(&mut observers, 1, at(0));
        assert_eq!(observers.before.len(), 0, "nobody has asked");
        observers.asked = Some(at(0));
        (1..=64).for_each(|number| announce(&mut observers, number, at(60_000)));
        let first = members(&["n1"]).hash();
        let dead = observers.since(first).map(|(_, dead)| dead.len());
        assert_eq!((observers.before.len(), dead), (64, Some(64)));
        announce(&mut observers, 65, at(60_000));
        assert_eq!((observers.before.len(), observers.since(first).is_some()), (64, false));
        assert!(observers.since(members(&["n2"]).hash()).is_some());
        announce(&mut observers, 66, at(60_001));
        assert_eq!(observers.before.len(), 0);
    }

    #[test]
    fn m1_5_whoever_has_waited_longest_is_answered_first() {
        let mut observers = Observers::default();
        assert_eq!(observers.next_at(), None);
        for (channel, millis) in [(1, 7), (2, 5), (3, 9)] {
            observers.waiting.insert(channel, Waiting { hash: 1, answer_by: at(millis) });
        }
        assert_eq!(observers.next_at(), Some(at(5)));
    }
}
