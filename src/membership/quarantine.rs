//! Who may come back, and when.
//!
//! A quarantine follows from a death by detection, and lasts as long as the record of that death says. It gates who is let
//! in, never which facts count. A node that dies again soon after its return waits twice as long each time. Whoever left
//! by its own word, or came back in another life before it was declared dead, was never quarantined. An operator may keep
//! a node out, or let one in that is quarantined: a *ruling* about an id, of which the last one counts everywhere.

use std::cmp::Ordering;
use std::time::Duration;

use super::accusers::Accusers;
use super::place::Place;
use super::record::{Record, State};
use crate::clock::Timestamp;
use crate::topology::NodeId;

/// The first quarantine.
pub(super) const FIRST: Duration = Duration::from_secs(10);
/// The longest one.
pub(super) const LONGEST: Duration = Duration::from_secs(600);
/// Whoever dies within this time after its return has been struck once more; whoever lives longer begins anew.
const RELAPSE: Duration = Duration::from_secs(600);

/// For how long a node is quarantined that was struck so often in a row before.
pub(super) fn lasting(strikes: u8) -> Duration {
    let doubled = 1u32.checked_shl(u32::from(strikes)).map_or(LONGEST, |times| FIRST.saturating_mul(times));
    doubled.min(LONGEST)
}

/// How often a node has been struck in a row when it dies that lived for so long after its return. `None`: it has died for
/// the first time.
pub(super) fn strikes(before: u8, lived: Option<Duration>) -> u8 {
    match lived {
        Some(lived) if lived < RELAPSE => before.saturating_add(1),
        _ => 0,
    }
}

/// What an operator has ruled about an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sentence {
    /// It is kept out, until then or until another ruling.
    KeptOut { until: Option<Timestamp> },
    /// It may come back after this very death; after another it may not.
    LetIn { incarnation: u64, version: u64 },
}

/// A ruling, as everybody holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    /// One more than that of the ruling which it overrules.
    counter: u64,
    /// Where it was made.
    writer: NodeId,
    sentence: Sentence,
}

impl Ruling {
    /// One that overrules the former one, made at that node.
    pub(super) fn over(former: Option<&Self>, writer: NodeId, sentence: Sentence) -> Self {
        Self { counter: former.map_or(0, |former| former.counter.saturating_add(1)), writer, sentence }
    }

    /// Merges what somebody else holds; whether it counts in the place of this one. Of two that were made at the same time
    /// in two places one counts everywhere.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let is_later = self.order(other) == Ordering::Less;
        if is_later {
            *self = other.clone();
        }
        is_later
    }

    fn order(&self, other: &Self) -> Ordering {
        // One writer makes one ruling of each count; the sentence decides where two processes had one name.
        let text = |sentence: &Sentence| match sentence {
            Sentence::KeptOut { until } => (1, until.map_or(u64::MAX, Timestamp::as_millis), 0),
            Sentence::LetIn { incarnation, version } => (0, *incarnation, *version),
        };
        let key = |ruling: &Self| (ruling.counter, ruling.writer.clone(), text(&ruling.sentence));
        key(self).cmp(&key(other))
    }
}

/// Why somebody is not let in, as it is told to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was declared dead; by these, and for so long still.
    Quarantined { accusers: Accusers, left: Duration },
    /// An operator keeps it out, for so long still or until that is lifted.
    KeptOut { left: Option<Duration> },
    /// Another process answers under its id, there.
    IdTaken { place: Place },
}

/// Whether a node may be let in, of which this is known. `incarnation`: that with which it comes. `waits`: whether another
/// life waits for the quarantine of the former one, too.
///
/// # Errors
/// Why not.
pub(super) fn admit(
    known: Option<&Record>,
    ruling: Option<&Ruling>,
    incarnation: u64,
    waits: bool,
    now: Timestamp,
) -> Result<(), Refusal> {
    let sentence = ruling.map(|ruling| &ruling.sentence);
    if let Some(Sentence::KeptOut { until }) = sentence
        && until.is_none_or(|until| now < until)
    {
        return Err(Refusal::KeptOut { left: until.map(|until| until.since(now)) });
    }
    let Some(record) = known else { return Ok(()) };
    let State::Dead { accusers, quarantined_until } = record.state() else { return Ok(()) };
    let death = Sentence::LetIn { incarnation: record.node().incarnation(), version: record.version() };
    let is_another_life = incarnation > record.node().incarnation();
    if now >= *quarantined_until || sentence == Some(&death) || (is_another_life && !waits) {
        return Ok(());
    }
    Err(Refusal::Quarantined { accusers: accusers.clone(), left: quarantined_until.since(now) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::ClusterNode;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(state: State) -> Record {
        let node = ClusterNode::builder("n1", "10.0.0.1", 7).incarnation(5).build().unwrap();
        Record::new(Arc::new(node), 2, state, 0).unwrap()
    }

    /// Dead at 0, quarantined for ten seconds.
    fn dead() -> Record {
        record(State::Dead { accusers: Accusers::of(id("n2")), quarantined_until: at(10) })
    }

    fn quarantined(left: u64) -> Result<(), Refusal> {
        Err(Refusal::Quarantined { accusers: Accusers::of(id("n2")), left: seconds(left) })
    }

    fn keep_out(until: Option<Timestamp>) -> Ruling {
        Ruling::over(None, id("op"), Sentence::KeptOut { until })
    }

    #[test]
    fn m3_1_a_quarantine_lasts_ten_seconds_and_twice_as_long_for_each_strike_up_to_ten_minutes() {
        let lasts = [0, 1, 2, 3, 4, 5, 6, 7, 31, 32, 255].map(|strikes| lasting(strikes).as_secs());
        assert_eq!(lasts, [10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]);
    }

    #[test]
    fn m3_1_whoever_dies_soon_after_its_return_is_struck_once_more_and_whoever_lives_on_begins_anew() {
        assert_eq!([strikes(0, None), strikes(4, None)], [0, 0]);
        assert_eq!([strikes(0, Some(seconds(0))), strikes(4, Some(seconds(599)))], [1, 5]);
        assert_eq!([strikes(4, Some(seconds(600))), strikes(255, Some(seconds(1)))], [0, 255]);
    }

    #[test]
    fn m3_3_m3_4_while_it_is_quarantined_a_node_is_refused_with_the_reason_and_then_let_in() {
        assert_eq!(admit(Some(&dead()), None, 5, true, at(0)), quarantined(10));
        assert_eq!(admit(Some(&dead()), None, 5, true, at(9)), quarantined(1));
        assert_eq!(admit(Some(&dead()), None, 5, true, at(10)), Ok(()));
    }

    #[test]
    fn m3_3_another_life_waits_too_unless_it_is_set_otherwise() {
        assert_eq!(admit(Some(&dead()), None, 6, true, at(0)), quarantined(10));
        assert_eq!(admit(Some(&dead()), None, 6, false, at(0)), Ok(()));
        assert_eq!(admit(Some(&dead()), None, 5, false, at(0)), quarantined(10), "the same life waits in any case");
    }

    #[test]
    fn m3_1_whoever_is_unknown_lives_or_has_left_is_not_quarantined() {
        for known in [None, Some(record(State::Up)), Some(record(State::Left))] {
            assert_eq!(admit(known.as_ref(), None, 5, true, at(0)), Ok(()));
        }
        let suspect = record(State::Suspect(Accusers::of(id("n2"))));
        assert_eq!(admit(Some(&suspect), None, 6, true, at(0)), Ok(()), "a quick restart costs nothing");
    }

    #[test]
    fn m3_3_an_operator_keeps_out_whoever_it_is_until_then_or_until_it_is_lifted() {
        assert_eq!(admit(None, Some(&keep_out(None)), 9, false, at(0)), Err(Refusal::KeptOut { left: None }));
        let until = keep_out(Some(at(30)));
        assert_eq!(admit(None, Some(&until), 9, false, at(20)), Err(Refusal::KeptOut { left: Some(seconds(10)) }));
        assert_eq!(admit(None, Some(&until), 9, false, at(30)), Ok(()));
    }

    #[test]
    fn m3_4_a_lift_is_for_the_death_that_it_names_and_for_no_later_one() {
        let lift = |incarnation, version| Ruling::over(None, id("op"), Sentence::LetIn { incarnation, version });
        assert_eq!(admit(Some(&dead()), Some(&lift(5, 2)), 5, true, at(0)), Ok(()));
        assert_eq!(admit(Some(&dead()), Some(&lift(5, 1)), 5, true, at(0)), quarantined(10));
        assert_eq!(admit(Some(&dead()), Some(&lift(4, 2)), 5, true, at(0)), quarantined(10));
    }

    #[test]
    fn m3_4_the_last_ruling_counts_and_of_two_at_once_one_counts_everywhere() {
        let first = keep_out(None);
        let second = Ruling::over(Some(&first), id("a"), Sentence::LetIn { incarnation: 5, version: 2 });
        let mut held = first.clone();
        assert!(held.merge(&second) && !held.merge(&first) && !held.merge(&second));
        assert_eq!(held, second);
        let (mut one, mut other) = (keep_out(None), Ruling::over(None, id("pq"), Sentence::KeptOut { until: None }));
        assert!(one.merge(&other.clone()) && !other.merge(&keep_out(None)));
        assert_eq!(one, other);
    }

    proptest! {
        #[test]
        fn m3_4_rulings_merge_to_the_same_in_any_order(
            rulings in prop::collection::vec((0u64..3, 0u8..3, any::<bool>(), 0u64..2), 3..4),
        ) {
            let of = |(counter, writer, lets_in, n): (u64, u8, bool, u64)| Ruling {
                counter,
                writer: id(&format!("w{writer}")),
                sentence: match lets_in {
                    true => Sentence::LetIn { incarnation: n, version: n },
                    false => Sentence::KeptOut { until: (n > 0).then(|| at(n)) },
                },
            };
            let all: Vec<_> = rulings.into_iter().map(of).collect();
            let merged = |order: [usize; 3]| {
                let mut held = all[order[0]].clone();
                order[1..].iter().for_each(|n| _ = held.merge(&all[*n]));
                held
            };
            let held = merged([0, 1, 2]);
            for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                prop_assert_eq!(&held, &merged(order));
            }
        }
    }
}
