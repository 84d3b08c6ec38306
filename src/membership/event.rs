//! What a member tells the program that it runs in.

use std::sync::Arc;

use super::message::Unusable;
use super::place::Place;
use super::quarantine::Refusal;
use super::record::State;
use super::rulings::Sentence;
use super::settling::TopologyUpdate;
use crate::clock::Timestamp;
use crate::topology::{ClusterNode, NodeId};

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum MemberState {
    /// It asked to be let in, and has not answered yet.
    Joining,
    Up,
    Suspect,
    Dead,
    Left,
}

impl MemberState {
    /// That of a record.
    pub(super) fn of(state: &State) -> Self {
        match state {
            State::Up => Self::Up,
            State::Suspect(_) => Self::Suspect,
            State::Dead { .. } => Self::Dead,
            State::Left => Self::Left,
        }
    }
}

/// Of what there may be so many only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scarce {
    /// Members, or those who are remembered.
    Members,
    /// Operators' rulings.
    Rulings,
    /// Bytes of a node's kinds and metadata.
    Metadata,
    /// Lives of a node.
    Incarnations,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// A member's state has changed.
    Transition { at: Timestamp, node: Arc<ClusterNode>, from: Option<MemberState>, to: MemberState },
    /// A member is quarantined until then.
    Quarantined { at: Timestamp, node: NodeId, until: Timestamp },
    /// The topology has changed.
    Topology(Arc<TopologyUpdate>),
    /// This node is a member: it has been let in, is the first, or its quarantine is over.
    Joined { at: Timestamp },
    /// This node was not let in.
    Refused { at: Timestamp, refusal: Refusal },
    /// Another node was not let in here.
    TurnedAway { at: Timestamp, node: NodeId, refusal: Refusal },
    /// An operator has ruled about a node, here or elsewhere.
    Ruled { at: Timestamp, node: NodeId, sentence: Sentence },
    /// There is no room for more of that; something was not taken.
    NoRoom { at: Timestamp, of: Scarce },
    /// This node has to have another incarnation: that one was known already.
    Succeeded { at: Timestamp, incarnation: u64 },
    /// Another process answers under this node's id, there, and counts more: this one ends.
    IdTaken { at: Timestamp, place: Place },
    /// This node hears from nobody.
    Isolated { at: Timestamp },
    /// It has for so long that what it believes of the others is announced after all.
    GivenUp { at: Timestamp },
    /// It hears from somebody again.
    Reached { at: Timestamp },
    /// This node was declared dead, and comes back then.
    Expelled { at: Timestamp, until: Timestamp },
    /// The host could not apply the update of that number, so often in a row; it is offered again.
    NotApplied { at: Timestamp, number: u64, failures: u32, why: String },
    /// That node speaks over the reliable channel, and answers no datagram there.
    OneChannel { at: Timestamp, node: NodeId, place: Place },
    /// A message was not taken.
    Unusable { from: Option<Place>, why: Unusable },
    /// The process stood still.
    StoodStill { at: Timestamp },
    /// This node has left.
    Left { at: Timestamp },
}
