//! What is known of one node, and which of two pieces of knowledge counts.
//!
//! A record is about one *life* of a node: its id with the incarnation that it was started with. Within a life the node
//! raises its *version* when it contradicts a suspicion, or changes its kinds or metadata; nobody else ever does. (What
//! SWIM calls the incarnation is the version here: another incarnation of the topology is a restart.) Records of one id
//! are ordered by incarnation, version, rank and content, and the greater one counts. Of two that are equal in all of it,
//! what they say beside is joined. So records merge to the same in whatever order they are heard of.

use std::cmp::Ordering;
use std::sync::Arc;

use super::accusers::Accusers;
use super::place::Place;
use crate::clock::Timestamp;
use crate::topology::{ClusterNode, NodeId};

/// The greatest incarnation and version. A greater one is malformed: with it nobody could contradict any more.
pub(super) const GREATEST: u64 = 1 << 62;

/// One life of a node: what runs under its id from a start to its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Life {
    pub(crate) id: NodeId,
    pub(crate) incarnation: u64,
}

/// What a node is said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It answers.
    Up,
    /// It does not answer these. It stays an active member.
    Suspect(Accusers),
    /// It has not contradicted these in time, and is quarantined until then, by the clock of whoever keeps the record.
    Dead { accusers: Accusers, quarantined_until: Timestamp },
    /// It has said that it leaves.
    Left,
}

impl State {
    /// A suspicion counts above an answer of the same version, and a death above a suspicion. Whoever said that it leaves is
    /// not dead, whatever was suspected at the time.
    fn rank(&self) -> u8 {
        match self {
            State::Up => 0,
            State::Suspect(_) => 1,
            State::Dead { .. } => 2,
            State::Left => 3,
        }
    }

    /// Whether it belongs to the members.
    pub(super) fn is_active(&self) -> bool {
        matches!(self, State::Up | State::Suspect(_))
    }
}

/// What merging a record into another did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// Nothing: it was known, or is older.
    Nothing,
    /// It added to what is said beside: an accuser, an earlier end of the quarantine, a strike.
    Added,
    /// It counts in the place of the former one.
    Replaced,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Who it is, with the incarnation.
    node: Arc<ClusterNode>,
    /// On which port of the node's address its membership is reached.
    gossip_port: u16,
    version: u64,
    /// `None`: it is up, as nearly everybody is.
    state: Option<Box<State>>,
    /// How often in a row it died soon after its return.
    strikes: u8,
}

impl Record {
    /// Of a node that answers. `None` if its incarnation or version is beyond [`GREATEST`].
    pub(super) fn new(node: Arc<ClusterNode>, version: u64, state: State, strikes: u8) -> Option<Self> {
        let is_sane = node.incarnation() <= GREATEST && version <= GREATEST;
        let gossip_port = node.port();
        is_sane.then(|| Self { node, gossip_port, version, state: kept(state), strikes })
    }

    /// The same, where its membership is reached on another port than the node.
    pub(super) fn reached_at(self, gossip_port: u16) -> Self {
        Self { gossip_port, ..self }
    }

    /// Where its membership is reached.
    pub(super) fn place(&self) -> Place {
        Place::new(self.node.address(), self.gossip_port)
    }

    /// Which life it is about.
    pub(super) fn life(&self) -> Life {
        Life { id: self.id().clone(), incarnation: self.node.incarnation() }
    }

    pub(super) fn id(&self) -> &NodeId {
        self.node.id()
    }

    pub(super) fn node(&self) -> &Arc<ClusterNode> {
        &self.node
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn state(&self) -> &State {
        static UP: State = State::Up;
        self.state.as_deref().unwrap_or(&UP)
    }

    pub(super) fn strikes(&self) -> u8 {
        self.strikes
    }

    pub(super) fn gossip_port(&self) -> u16 {
        self.gossip_port
    }

    /// The same life and version in another state.
    pub(super) fn with(&self, state: State, strikes: u8) -> Self {
        let node = Arc::clone(&self.node);
        Self { node, gossip_port: self.gossip_port, version: self.version, state: kept(state), strikes }
    }

    /// Merges what somebody else says of the same node.
    pub(super) fn merge(&mut self, other: &Self) -> Merged {
        debug_assert_eq!(self.id(), other.id());
        match self.order(other) {
            Ordering::Greater => Merged::Nothing,
            Ordering::Less => {
                let node = (self.node == other.node).then(|| Arc::clone(&self.node));
                *self = other.clone();
                // An equal one is held once.
                self.node = node.unwrap_or_else(|| Arc::clone(&other.node));
                Merged::Replaced
            }
            Ordering::Equal if self.join(other) => Merged::Added,
            Ordering::Equal => Merged::Nothing,
        }
    }

    /// Which of two records of one node counts. The content decides last: it differs within one life and version only where
    /// two processes were started as one, from a disk that was copied, for example.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let key = |record: &Self| (record.node.incarnation(), record.version, record.state().rank());
        let content = || content(&self.node, &other.node).then_with(|| self.gossip_port.cmp(&other.gossip_port));
        key(self).cmp(&key(other)).then_with(content)
    }

    /// Takes over what an equal record says beside; whether that changed anything.
    fn join(&mut self, other: &Self) -> bool {
        let strikes = self.strikes.max(other.strikes);
        let struck = std::mem::replace(&mut self.strikes, strikes) != strikes;
        struck
            | match (self.state.as_deref_mut().unwrap_or(&mut State::Up), other.state()) {
                (State::Suspect(accusers), State::Suspect(others)) => accusers.merge(others),
                (
                    State::Dead { accusers, quarantined_until },
                    State::Dead { accusers: others, quarantined_until: until },
                ) => {
                    // Each way of the news makes it later than it was meant: the earliest is the least wrong.
                    let earlier = *until < *quarantined_until;
                    *quarantined_until = (*until).min(*quarantined_until);
                    accusers.merge(others) | earlier
                }
                _ => false,
            }
    }
}

fn kept(state: State) -> Option<Box<State>> {
    (state != State::Up).then(|| Box::new(state))
}

fn content(a: &ClusterNode, b: &ClusterNode) -> Ordering {
    a.address()
        .cmp(b.address())
        .then_with(|| a.port().cmp(&b.port()))
        .then_with(|| a.kinds().cmp(b.kinds()))
        .then_with(|| a.metadata().cmp(b.metadata()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn record(incarnation: u64, version: u64, state: State) -> Record {
        let node = ClusterNode::builder("n1", "10.0.0.1", 7).incarnation(incarnation).build().unwrap();
        Record::new(Arc::new(node), version, state, 0).unwrap()
    }

    fn suspect(accusers: &[&str]) -> State {
        State::Suspect(accusers.iter().map(|accuser| id(accuser)).collect())
    }

    fn dead(accusers: &[&str], until: u64) -> State {
        let accusers = accusers.iter().map(|accuser| id(accuser)).collect();
        State::Dead { accusers, quarantined_until: Timestamp::from_millis(until) }
    }

    #[test]
    fn m2_5_of_one_version_a_suspicion_counts_above_an_answer_a_death_above_both_and_a_goodbye_above_all() {
        let rising = [State::Up, suspect(&["n2"]), dead(&["n2"], 9), State::Left];
        for (low, state) in rising.iter().enumerate() {
            for (high, above) in rising.iter().enumerate().skip(low + 1) {
                let (mut below, mut greater) = (record(1, 1, state.clone()), record(1, 1, above.clone()));
                assert_eq!(greater.merge(&below), Merged::Nothing, "{low} into {high}");
                assert_eq!(below.merge(&greater), Merged::Replaced, "{high} into {low}");
                assert_eq!(below, greater);
            }
        }
    }

    #[test]
    fn m2_2_a_higher_version_contradicts_whatever_was_said_of_a_lower_one() {
        for state in [suspect(&["n2"]), dead(&["n2"], 9), State::Left] {
            let mut known = record(1, 4, state);
            assert_eq!(known.merge(&record(1, 3, State::Left)), Merged::Nothing);
            assert_eq!(known.merge(&record(1, 5, State::Up)), Merged::Replaced);
            assert_eq!((known.state(), known.version(), known.strikes()), (&State::Up, 5, 0));
        }
    }

    #[test]
    fn m2_1_another_life_counts_whatever_the_version_of_the_former_one_was() {
        let mut known = record(1, 900, State::Left);
        assert_eq!(known.merge(&record(2, 0, State::Up)), Merged::Replaced);
        assert_eq!(known.merge(&record(1, 901, State::Up)), Merged::Nothing, "nobody is raised from the dead");
        assert_eq!(known.node().incarnation(), 2);
    }

    #[test]
    fn m2_3_equal_suspicions_join_their_accusers() {
        let mut known = record(1, 1, suspect(&["n2"]));
        assert_eq!(known.merge(&record(1, 1, suspect(&["n3"]))), Merged::Added);
        assert_eq!(known.merge(&record(1, 1, suspect(&["n2", "n3"]))), Merged::Nothing);
        assert_eq!(known.state(), &suspect(&["n2", "n3"]));
    }

    #[test]
    fn m3_4_of_two_ends_of_a_quarantine_the_earlier_counts() {
        let mut known = record(1, 1, dead(&["n2"], 9));
        assert_eq!(known.merge(&record(1, 1, dead(&["n2"], 10))), Merged::Nothing);
        assert_eq!(known.merge(&record(1, 1, dead(&["n3"], 8))), Merged::Added);
        assert_eq!(known.state(), &dead(&["n2", "n3"], 8));
    }

    #[test]
    fn m3_1_of_equal_records_the_greater_number_of_strikes_counts() {
        let struck = |strikes| Record::new(Arc::clone(record(1, 1, State::Up).node()), 1, State::Up, strikes).unwrap();
        let mut known = struck(1);
        assert_eq!((known.merge(&struck(2)), known.strikes()), (Merged::Added, 2));
        assert_eq!((known.merge(&struck(0)), known.strikes()), (Merged::Nothing, 2));
    }

    #[test]
    fn m1_1_a_node_that_stays_as_it_was_is_held_once() {
        let mut known = record(1, 1, State::Up);
        let node = Arc::clone(known.node());
        assert_eq!(known.merge(&record(1, 2, State::Up)), Merged::Replaced);
        assert!(Arc::ptr_eq(known.node(), &node));
        let later = record(2, 0, State::Up);
        assert_eq!(known.merge(&later), Merged::Replaced);
        assert!(Arc::ptr_eq(known.node(), later.node()));
    }

    #[test]
    fn m2_5_incarnations_and_versions_beyond_the_greatest_are_malformed() {
        let node = |incarnation| Arc::new(ClusterNode::builder("n1", "h", 7).incarnation(incarnation).build().unwrap());
        for (incarnation, version, is_sane) in
            [(GREATEST, GREATEST, true), (GREATEST + 1, 0, false), (0, GREATEST + 1, false)]
        {
            assert_eq!(Record::new(node(incarnation), version, State::Up, 0).is_some(), is_sane);
        }
    }

    #[test]
    fn m2_2_suspects_are_active_and_the_dead_and_the_departed_are_not() {
        assert!(State::Up.is_active() && suspect(&["n2"]).is_active());
        assert!(!dead(&["n2"], 9).is_active() && !State::Left.is_active());
    }

    fn any_state() -> impl Strategy<Value = State> {
        let accusers = || {
            let ids = prop::collection::vec(0u8..6, 1..5);
            ids.prop_map(|ids| ids.into_iter().map(|n| id(&format!("n{n}"))).collect::<Accusers>())
        };
        prop_oneof![
            Just(State::Up),
            accusers().prop_map(State::Suspect),
            (accusers(), 0u64..4).prop_map(|(accusers, until)| State::Dead {
                accusers,
                quarantined_until: Timestamp::from_millis(until)
            }),
            Just(State::Left),
        ]
    }

    fn any_record() -> impl Strategy<Value = Record> {
        (0u64..2, 0u64..3, any_state(), 0u8..3, 0u8..2, 0u8..2).prop_map(
            |(life, version, state, strikes, port, mark)| {
                let node = ClusterNode::builder("n1", "10.0.0.1", 7 + u16::from(port)).incarnation(life);
                let node = Arc::new(node.metadata("mark", mark.to_string()).build().unwrap());
                Record::new(node, version, state, strikes).unwrap()
            },
        )
    }

    fn merged(records: &[&Record]) -> Record {
        let mut all = records[0].clone();
        records[1..].iter().for_each(|record| _ = all.merge(record));
        all
    }

    proptest! {
        #[test]
        fn m1_4_records_merge_to_the_same_in_any_order_any_grouping_and_however_often(
            a in any_record(), b in any_record(), c in any_record(),
        ) {
            let all = merged(&[&a, &b, &c]);
            for order in [[&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
                prop_assert_eq!(&all, &merged(&order));
            }
            prop_assert_eq!(&all, &merged(&[&a, &merged(&[&b, &c])]));
            let mut again = all.clone();
            for record in [&a, &b, &c, &all] {
                prop_assert_eq!(again.merge(record), Merged::Nothing);
                prop_assert!(all.order(record) != Ordering::Less);
            }
        }
    }
}
