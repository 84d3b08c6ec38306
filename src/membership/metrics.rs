//! What a member counts.

use super::event::{Event, MemberState};
use super::machine::Output;
use super::settling::TopologyUpdate;
use crate::clock::Timestamp;

/// What a member of a gossip cluster has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GossipMetrics {
    /// The members as they were announced last.
    pub members: usize,
    /// When that was; absent while nothing has been.
    pub updated_at: Option<Timestamp>,
    /// The updates of the topology.
    pub updates: u64,
    /// Those who came in them.
    pub joined: u64,
    /// Those whose kinds or metadata changed.
    pub changed: u64,
    /// Those who left by their own word, or came back in another life.
    pub left: u64,
    /// Those who were declared dead in them.
    pub died: u64,
    /// Suspicions.
    pub suspicions: u64,
    /// Suspicions that were contradicted.
    pub contradictions: u64,
    /// How often other nodes were not let in here.
    pub turned_away: u64,
    /// How often this node was not let in itself.
    pub refused: u64,
    /// Changes of somebody's state that were refused, since they make no sense:
    /// [`refused_transitions`](crate::GossipMembership::refused_transitions).
    pub refused_transitions: u64,
    /// Messages that were not taken.
    pub unusable: u64,
    /// How often nobody was heard.
    pub isolations: u64,
    /// How often the process stood still.
    pub standstills: u64,
    /// How often an update could not be applied.
    pub not_applied: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// The bytes in them.
    pub datagram_bytes: u64,
    /// Questions asked and answered over connections.
    pub questions: u64,
    /// The bytes in them.
    pub question_bytes: u64,
    /// Datagrams of a flood that were thrown away unread.
    pub datagrams_dropped: u64,
    /// Connections that were turned away, since there were too many.
    pub connections_turned_away: u64,
}

impl GossipMetrics {
    /// Something was told.
    pub(super) fn count(&mut self, event: &Event) {
        match event {
            Event::Transition { from, to, .. } => match (from, to) {
                (_, MemberState::Suspect) => self.suspicions += 1,
                (Some(MemberState::Suspect), MemberState::Up) => self.contradictions += 1,
                _ => {}
            },
            Event::Topology(update) => self.update(update),
            Event::TurnedAway { .. } => self.turned_away += 1,
            Event::Refused { .. } => self.refused += 1,
            Event::Unusable { .. } => self.unusable += 1,
            Event::Isolated { .. } => self.isolations += 1,
            Event::StoodStill { .. } => self.standstills += 1,
            Event::NotApplied { .. } => self.not_applied += 1,
            _ => {}
        }
    }

    /// Something was sent.
    pub(super) fn sent(&mut self, output: &Output) {
        match output {
            Output::Send { bytes, .. } => {
                self.datagrams += 1;
                self.datagram_bytes += bytes.len() as u64;
            }
            Output::Ask { bytes, .. } | Output::Answer { bytes, .. } => {
                self.questions += 1;
                self.question_bytes += bytes.len() as u64;
            }
            Output::Refuse { .. } | Output::LookUp | Output::Event(_) => {}
        }
    }

    fn update(&mut self, update: &TopologyUpdate) {
        self.members = update.members.len();
        self.updated_at = Some(update.at);
        self.updates += 1;
        self.joined += update.joined.len() as u64;
        self.changed += update.updated.len() as u64;
        self.left += update.left.len() as u64;
        self.died += update.dead.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Question;
    use super::super::place::Place;
    use super::*;
    use crate::testkit::{members, node};
    use crate::topology::Members;
    use std::sync::Arc;

    #[test]
    fn m5_1_each_datagram_and_each_question_is_counted_once_with_its_bytes() {
        let (mut metrics, to) = (GossipMetrics::default(), Place::new("h", 1));
        for length in [3, 4] {
            metrics.sent(&Output::Send { to: to.clone(), bytes: vec![0; length] });
        }
        metrics.sent(&Output::Ask { question: Question(1), to, bytes: vec![0; 5] });
        metrics.sent(&Output::Answer { channel: 1, bytes: vec![0; 6] });
        assert_eq!((metrics.datagrams, metrics.datagram_bytes), (2, 7));
        assert_eq!((metrics.questions, metrics.question_bytes), (2, 11));
    }

    #[test]
    fn m5_1_who_came_changed_left_and_died_in_an_update_is_counted() {
        let nodes = |count: usize| (0..count).map(|n| Arc::new(node(&format!("n{n}")))).collect();
        let update = TopologyUpdate {
            number: 7,
            at: Timestamp::from_millis(9),
            joined: nodes(1),
            updated: nodes(2),
            left: nodes(3),
            dead: nodes(4),
            members: members(&["n8", "n9"]),
        };
        let mut metrics = GossipMetrics::default();
        metrics.count(&Event::Topology(Arc::new(update.clone())));
        metrics.count(&Event::Topology(Arc::new(TopologyUpdate { members: Members::new(), ..update })));
        assert_eq!((metrics.updates, metrics.members, metrics.updated_at), (2, 0, Some(Timestamp::from_millis(9))));
        assert_eq!((metrics.joined, metrics.changed, metrics.left, metrics.died), (2, 4, 6, 8));
    }
}
