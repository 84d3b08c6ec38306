//! Who may come back, and when.
//!
//! A quarantine follows from a death by detection, and lasts as long as the record of that death says. It gates who is let
//! in, never which facts count. A node that dies again soon after its return waits twice as long each time. Whoever left
//! by its own word, or came back in another life before it was declared dead, was never quarantined. An operator may keep
//! a node out, or let one in that is quarantined ([`rulings`](super::rulings)).

use std::time::Duration;

use super::accusers::Accusers;
use super::place::Place;
use super::record::{Record, State};
use super::rulings::{Ruling, Sentence};
use crate::clock::Timestamp;
use crate::topology::NodeId;

/// The longest one.
pub(super) const LONGEST: Duration = Duration::from_secs(600);
/// Whoever dies within this time after its return has been struck once more; whoever lives longer begins anew.
const RELAPSE: Duration = Duration::from_secs(600);

/// For how long a node is quarantined that was struck so often in a row before, where the first quarantine takes so long.
pub(super) fn lasting(strikes: u8, first: Duration) -> Duration {
    let doubled = 1u32.checked_shl(u32::from(strikes)).map_or(LONGEST, |times| first.saturating_mul(times));
    doubled.min(LONGEST.max(first))
}

/// How often a node has been struck in a row when it dies that lived for so long after its return. `None`: it has died for
/// the first time.
pub(super) fn strikes(before: u8, lived: Option<Duration>) -> u8 {
    match lived {
        Some(lived) if lived < RELAPSE => before.saturating_add(1),
        _ => 0,
    }
}

/// Why somebody is not let in, as it is told to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
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
    let sentence = ruling.map(Ruling::sentence);
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

/// A node that would not be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub(crate) id: NodeId,
    /// In which life it died; absent where an operator keeps out somebody who is not dead.
    pub(crate) incarnation: Option<u64>,
    pub(crate) accusers: Accusers,
    /// When it may come back; absent where an operator keeps it out until that is lifted.
    pub(crate) until: Option<Timestamp>,
    /// An operator keeps it out.
    pub(crate) is_pinned: bool,
}

/// The entry of an id in the list of those who would not be let in, if it belongs there.
pub(super) fn entry(
    id: &NodeId,
    known: Option<&Record>,
    ruling: Option<&Ruling>,
    now: Timestamp,
) -> Option<Quarantined> {
    let dead = known.and_then(|record| match record.state() {
        State::Dead { accusers, quarantined_until } => {
            Some((record.node().incarnation(), accusers, *quarantined_until))
        }
        _ => None,
    });
    let pinned = ruling.filter(|ruling| ruling.keeps_out(now)).map(Ruling::sentence);
    let incarnation = dead.map(|(incarnation, ..)| incarnation);
    let accusers = dead.map(|(_, accusers, _)| accusers.clone()).unwrap_or_default();
    let id = id.clone();
    if let Some(Sentence::KeptOut { until }) = pinned {
        let until = until.map(|until| dead.map_or(until, |(_, _, dead)| dead.max(until)));
        return Some(Quarantined { id, incarnation, accusers, until, is_pinned: true });
    }
    let (_, _, until) = dead?;
    admit(known, ruling, 0, true, now).err()?;
    Some(Quarantined { id, incarnation, accusers, until: Some(until), is_pinned: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::ClusterNode;
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
        let lasts = [0, 1, 2, 3, 4, 5, 6, 7, 31, 32, 255].map(|strikes| lasting(strikes, seconds(10)).as_secs());
        assert_eq!(lasts, [10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]);
        assert_eq!([lasting(1, seconds(30)), lasting(9, seconds(900))], [seconds(60), seconds(900)]);
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
}
