//! Whether one node answers: directly, by others, or over the reliable channel (SWIM, section 4.1; the last as memberlist
//! does it).
//!
//! A probe begins with a ping. Without an answer in time others are asked to ping the same node, and it is asked over the
//! reliable channel as well, which a lossy network lets through. A relay that gets no answer says so (Lifeguard, section
//! IV-A): a relay that says nothing tells that it is rather this node's packets that are lost. Only when the whole period
//! is over without an answer is the node accused.

use std::time::Duration;

use super::local_health::{LocalHealth, Sign};
use super::record::Life;
use crate::clock::Timestamp;
use crate::topology::NodeId;

/// How long a probe takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// The time for the direct answer.
    pub(crate) direct: Duration,
    /// The whole time: longer than the direct one.
    pub(crate) period: Duration,
}

/// Which ping an answer belongs to. Each node counts its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PingNumber(pub(super) u64);

/// What the probe asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Some others are asked to ping the node, and to say so in time if they get no answer; and the node is asked over the
    /// reliable channel. [`Probe::is_helped_by`] says who they are.
    Help { time_left: Duration },
    /// It did not answer: it is accused.
    Accuse,
}

/// How far a probe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Direct,
    Helped,
}

/// A probe under way.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    subject: Life,
    number: PingNumber,
    began: Timestamp,
    direct_ends: Timestamp,
    ends: Timestamp,
    stage: Stage,
    /// Of those who were asked for help, who has not said yet that it got no answer.
    relays: Vec<NodeId>,
}

impl Probe {
    /// That life has just been sent the ping of that number. The health is that of this node, which gives others more time
    /// the worse it is.
    pub(super) fn new(subject: Life, number: PingNumber, pace: Pace, health: LocalHealth, now: Timestamp) -> Self {
        debug_assert!(pace.direct < pace.period);
        let (direct_ends, ends) = (now + health.scale(pace.direct), now + health.scale(pace.period));
        Self { subject, number, began: now, direct_ends, ends, stage: Stage::Direct, relays: Vec::new() }
    }

    /// These have been asked for help.
    pub(super) fn is_helped_by(&mut self, relays: Vec<NodeId>) {
        debug_assert!(!relays.contains(&self.subject.id));
        self.relays = relays;
    }

    pub(super) fn target(&self) -> &NodeId {
        &self.subject.id
    }

    /// Which life of the target was known when the probe began.
    pub(super) fn subject(&self) -> &Life {
        &self.subject
    }

    pub(super) fn number(&self) -> PingNumber {
        self.number
    }

    /// When [`advance`](Self::advance) has to be called at the latest.
    pub(super) fn next_at(&self) -> Timestamp {
        match self.stage {
            Stage::Direct => self.direct_ends,
            Stage::Helped => self.ends,
        }
    }

    /// The target answers now. How long the direct answer took, where it is one that comes in time: a measure of the
    /// network.
    pub(super) fn answered_in_time(&self, now: Timestamp) -> Option<Duration> {
        let is_direct = self.stage == Stage::Direct && now < self.direct_ends;
        is_direct.then(|| now.since(self.began))
    }

    /// A relay has got no answer.
    pub(super) fn unanswered_at(&mut self, relay: &NodeId, number: PingNumber) {
        if number == self.number {
            self.relays.retain(|known| known != relay);
        }
    }

    /// What is to be done now that the time has come, and what an accusation tells of the local health.
    pub(super) fn advance(&mut self, now: Timestamp) -> Option<(Demand, Vec<Sign>)> {
        match self.stage {
            Stage::Direct if now >= self.direct_ends => {
                let time_left = self.ends.since(self.direct_ends);
                // Who is late itself takes no time from those who help.
                self.ends = now + time_left;
                self.stage = Stage::Helped;
                Some((Demand::Help { time_left }, Vec::new()))
            }
            // Where others were asked, it is their silence that tells: who helps and gets no answer says so. Where there is
            // nobody else, nobody's silence tells anything of this node.
            Stage::Helped if now >= self.ends => Some((Demand::Accuse, vec![Sign::RelaySilent; self.relays.len()])),
            _ => None,
        }
    }

    /// The process stood still: the probe begins anew, as if it had been sent now.
    pub(super) fn restart(&mut self, now: Timestamp) {
        let (direct, whole) = (self.direct_ends.since(self.began), self.ends.since(self.began));
        (self.began, self.direct_ends, self.ends) = (now, now + direct, now + whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { direct: Duration::from_millis(500), period: Duration::from_secs(1) };
    const NUMBER: PingNumber = PingNumber(7);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn ids(names: &[&str]) -> Vec<NodeId> {
        names.iter().map(|name| id(name)).collect()
    }

    fn n1() -> Life {
        Life { id: id("n1"), incarnation: 5 }
    }

    fn probe() -> Probe {
        Probe::new(n1(), NUMBER, PACE, LocalHealth::default(), at(0))
    }

    fn help() -> Option<(Demand, Vec<Sign>)> {
        Some((Demand::Help { time_left: Duration::from_millis(500) }, vec![]))
    }

    #[test]
    fn m3_1_without_a_direct_answer_others_help_and_then_the_node_is_accused() {
        let mut probe = probe();
        assert_eq!((probe.target(), probe.subject(), probe.number()), (&id("n1"), &n1(), NUMBER));
        assert_eq!((probe.next_at(), probe.advance(at(499))), (at(500), None));
        assert_eq!(probe.advance(at(500)), help());
        probe.is_helped_by(ids(&["r1", "r2"]));
        assert_eq!((probe.next_at(), probe.advance(at(999))), (at(1000), None));
        assert_eq!(probe.advance(at(1000)), Some((Demand::Accuse, vec![Sign::RelaySilent; 2])));
    }

    #[test]
    fn m3_1_relays_that_say_that_they_got_no_answer_tell_that_this_node_is_well() {
        let mut probe = probe();
        probe.advance(at(500));
        probe.is_helped_by(ids(&["r1", "r2", "r3"]));
        probe.unanswered_at(&id("r1"), NUMBER);
        probe.unanswered_at(&id("r1"), NUMBER);
        probe.unanswered_at(&id("r2"), PingNumber(6));
        assert_eq!(probe.advance(at(1000)), Some((Demand::Accuse, vec![Sign::RelaySilent; 2])));
        probe.unanswered_at(&id("r2"), NUMBER);
        probe.unanswered_at(&id("r3"), NUMBER);
        assert_eq!(probe.advance(at(1000)), Some((Demand::Accuse, vec![])));
    }

    #[test]
    fn m3_1_where_nobody_can_help_nothing_tells_that_this_node_is_ill() {
        let mut probe = probe();
        assert_eq!(probe.advance(at(500)), help(), "the reliable channel is left");
        assert_eq!(probe.advance(at(1000)), Some((Demand::Accuse, vec![])));
    }

    #[test]
    fn m3_1_a_direct_answer_in_time_measures_the_network_and_a_late_one_is_an_answer_all_the_same() {
        let mut probe = probe();
        assert_eq!(probe.answered_in_time(at(120)), Some(Duration::from_millis(120)));
        assert_eq!(probe.answered_in_time(at(500)), None);
        probe.advance(at(500));
        assert_eq!(probe.answered_in_time(at(600)), None);
    }

    #[test]
    fn m3_1_a_node_that_is_ill_itself_gives_more_time() {
        let mut health = LocalHealth::default();
        (0..3).for_each(|_| health.note(Sign::Refuted));
        let mut probe = Probe::new(n1(), NUMBER, PACE, health, at(0));
        assert_eq!((probe.next_at(), probe.advance(at(1999))), (at(2000), None));
        assert!(probe.advance(at(2000)).is_some());
        assert_eq!(probe.next_at(), at(4000));
    }

    #[test]
    fn m3_1_who_is_late_itself_takes_no_time_from_those_who_help() {
        let mut probe = probe();
        assert_eq!(probe.advance(at(1700)), help());
        assert_eq!((probe.next_at(), probe.advance(at(2199))), (at(2200), None));
    }

    #[test]
    fn m3_1_after_a_standstill_the_time_begins_anew() {
        let mut probe = probe();
        probe.restart(at(60_000));
        assert_eq!((probe.next_at(), probe.advance(at(60_499))), (at(60_500), None));
        probe.advance(at(60_500));
        assert_eq!(probe.next_at(), at(61_000));
    }
}
