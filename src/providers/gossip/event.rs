//! What a member of a gossip cluster tells: each transition and each update, with its time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::membership::{self, Event, Refusal, Sentence};
use crate::text::line::OneLine;
use crate::topology::{ClusterNode, Members, NodeId};

/// How a member of a gossip cluster stands, as another one sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GossipState {
    /// It asked to be let in, and has not answered yet.
    Joining,
    /// It is a member.
    Up,
    /// It is a member, and somebody says that it does not answer.
    Suspect,
    /// It was declared dead: it is no member, and quarantined.
    Dead,
    /// It left by its own word.
    Left,
}

impl GossipState {
    fn of(state: membership::MemberState) -> Self {
        match state {
            membership::MemberState::Joining => Self::Joining,
            membership::MemberState::Up => Self::Up,
            membership::MemberState::Suspect => Self::Suspect,
            membership::MemberState::Dead => Self::Dead,
            membership::MemberState::Left => Self::Left,
        }
    }
}

impl fmt::Display for GossipState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Joining => "joining",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        })
    }
}

/// A change of a gossip cluster's topology, as one member announces it. At most one in 200 ms, and none without a change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GossipUpdate {
    /// Counts the updates of this member since its start, from 1.
    pub number: u64,
    /// When it was announced.
    pub at: Timestamp,
    /// Who came, also in another life.
    pub joined: Vec<Arc<ClusterNode>>,
    /// Whose kinds or metadata have changed.
    pub updated: Vec<Arc<ClusterNode>>,
    /// Who left by its own word, or came back in another life.
    pub left: Vec<Arc<ClusterNode>>,
    /// Who was declared dead.
    pub dead: Vec<Arc<ClusterNode>>,
    /// The members now; their [hash](Members::hash) is what members compare.
    pub members: Members,
}

/// What has happened in a gossip cluster, as the local member sees it. Its `Display` is one line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GossipEvent {
    /// A member's state has changed.
    State {
        /// When.
        at: Timestamp,
        /// Whose.
        node: Arc<ClusterNode>,
        /// What it was; absent for a node that was not known.
        from: Option<GossipState>,
        /// What it is.
        to: GossipState,
    },
    /// The topology has changed.
    Update(Arc<GossipUpdate>),
    /// A member that was declared dead is kept out until then.
    Quarantined {
        /// When.
        at: Timestamp,
        /// Who.
        node: NodeId,
        /// Until when.
        until: Timestamp,
    },
    /// The local node is a member: it has been let in, is the first, or its quarantine is over.
    Joined {
        /// When.
        at: Timestamp,
    },
    /// The local node was not let in. It asks again when its time has come.
    Refused {
        /// When.
        at: Timestamp,
        /// Why, in words: by whom it was declared dead, who keeps it out, where its id is taken.
        reason: String,
        /// When it may be let in; absent where nothing says.
        until: Option<Timestamp>,
    },
    /// Another node was not let in here.
    TurnedAway {
        /// When.
        at: Timestamp,
        /// Who.
        node: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// An operator has ruled about a node, here or elsewhere.
    Ruled {
        /// When.
        at: Timestamp,
        /// About whom.
        node: NodeId,
        /// Whether it is kept out now; else it may come in.
        is_kept_out: bool,
        /// Until when it is; absent where that has no end.
        until: Option<Timestamp>,
    },
    /// The local node hears from nobody: it keeps the others as they were.
    Isolated {
        /// When.
        at: Timestamp,
    },
    /// It hears from somebody again.
    Reached {
        /// When.
        at: Timestamp,
    },
    /// It has heard from nobody for so long that it believes the others dead after all.
    GivenUp {
        /// When.
        at: Timestamp,
    },
    /// The local node was declared dead by others, and comes back then.
    Expelled {
        /// When.
        at: Timestamp,
        /// When it comes back.
        until: Timestamp,
    },
    /// The local node has another incarnation from now on: its former one was known already.
    Incarnation {
        /// When.
        at: Timestamp,
        /// Which.
        incarnation: u64,
    },
    /// Another process answers under the local node's id, and counts more: this one has ended.
    IdTaken {
        /// When.
        at: Timestamp,
        /// Where the other is reached.
        place: String,
    },
    /// The topology could not be applied; it is offered again.
    NotApplied {
        /// When.
        at: Timestamp,
        /// The number of the update.
        number: u64,
        /// How often in a row.
        failures: u32,
        /// Why.
        reason: String,
    },
    /// Something had no room: members, rulings, metadata or incarnations.
    NoRoom {
        /// When.
        at: Timestamp,
        /// For what.
        what: String,
    },
    /// The process stood still. Nobody is blamed for what could not be heard.
    StoodStill {
        /// When.
        at: Timestamp,
    },
    /// A node speaks to this one over connections, and answers no datagram: a firewall lets TCP pass and not UDP, or the node
    /// has told a wrong address or port.
    OneChannel {
        /// When.
        at: Timestamp,
        /// Which node.
        node: NodeId,
        /// Where datagrams were sent to.
        place: String,
    },
    /// A message was not taken.
    Unusable {
        /// From where; absent for the answer to a question of this node.
        from: Option<String>,
        /// Why, in words.
        reason: String,
    },
    /// The local node has left.
    Left {
        /// When.
        at: Timestamp,
    },
}

impl GossipEvent {
    pub(super) fn of(event: Event) -> Self {
        match event {
            Event::Transition { at, node, from, to } => {
                Self::State { at, node, from: from.map(GossipState::of), to: GossipState::of(to) }
            }
            Event::Topology(update) => {
                let membership::TopologyUpdate { number, at, joined, updated, left, dead, members } =
                    Arc::unwrap_or_clone(update);
                Self::Update(Arc::new(GossipUpdate { number, at, joined, updated, left, dead, members }))
            }
            Event::Quarantined { at, node, until } => Self::Quarantined { at, node, until },
            Event::Joined { at } => Self::Joined { at },
            Event::Refused { at, refusal } => {
                let until = time_left(&refusal).map(|left| at + left);
                Self::Refused { at, reason: in_words(&refusal), until }
            }
            Event::TurnedAway { at, node, refusal } => Self::TurnedAway { at, node, reason: in_words(&refusal) },
            Event::Ruled { at, node, sentence } => match sentence {
                Sentence::KeptOut { until } => Self::Ruled { at, node, is_kept_out: true, until },
                Sentence::LetIn { .. } => Self::Ruled { at, node, is_kept_out: false, until: None },
            },
            Event::NoRoom { at, of } => Self::NoRoom {
                at,
                what: match of {
                    membership::Scarce::Members => "members: the greatest number that is held is reached",
                    membership::Scarce::Rulings => "operators' rulings",
                    membership::Scarce::Metadata => "kinds and metadata of a node",
                    membership::Scarce::Incarnations => "incarnations: the greatest there is was used",
                }
                .to_owned(),
            },
            Event::Succeeded { at, incarnation } => Self::Incarnation { at, incarnation },
            Event::IdTaken { at, place } => Self::IdTaken { at, place: place.to_string() },
            Event::Isolated { at } => Self::Isolated { at },
            Event::GivenUp { at } => Self::GivenUp { at },
            Event::Reached { at } => Self::Reached { at },
            Event::Expelled { at, until } => Self::Expelled { at, until },
            Event::NotApplied { at, number, failures, why } => Self::NotApplied { at, number, failures, reason: why },
            Event::Unusable { from, why } => {
                Self::Unusable { from: from.map(|from| from.to_string()), reason: why.to_string() }
            }
            Event::OneChannel { at, node, place } => Self::OneChannel { at, node, place: place.to_string() },
            Event::StoodStill { at } => Self::StoodStill { at },
            Event::Left { at } => Self::Left { at },
        }
    }
}

fn time_left(refusal: &Refusal) -> Option<Duration> {
    match refusal {
        Refusal::Quarantined { left, .. } => Some(*left),
        Refusal::KeptOut { left } => *left,
        Refusal::IdTaken { .. } => None,
    }
}

pub(super) fn in_words(refusal: &Refusal) -> String {
    let seconds = |left: &Duration| left.as_secs_f64().ceil() as u64;
    match refusal {
        Refusal::Quarantined { accusers, left } => {
            let accusers = accusers.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
            let left = seconds(left);
            format!("it was declared dead, because it did not answer {accusers}; it may come back in {left} s")
        }
        Refusal::KeptOut { left: Some(left) } => format!("an operator keeps it out for {} s more", seconds(left)),
        Refusal::KeptOut { left: None } => "an operator keeps it out until that is lifted".to_owned(),
        Refusal::IdTaken { place } => format!("another process answers under its id at {place}"),
    }
}

impl fmt::Display for GossipEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = |nodes: &[Arc<ClusterNode>]| {
            let ids: Vec<&str> = nodes.iter().take(8).map(|node| node.id().as_str()).collect();
            let more = if nodes.len() > 8 { format!(" and {} more", nodes.len() - 8) } else { String::new() };
            format!("{}{more}", ids.join(", "))
        };
        match self {
            Self::State { node, from: Some(from), to, .. } => write!(f, "{} was {from} and is {to}", node.id()),
            Self::State { node, from: None, to, .. } => write!(f, "{} is {to}", node.id()),
            Self::Update(update) => {
                write!(f, "the topology has {} members", update.members.len())?;
                let changes = [
                    ("joined", &update.joined),
                    ("changed", &update.updated),
                    ("left", &update.left),
                    ("dead", &update.dead),
                ];
                let changes = changes.into_iter().filter(|(_, changed)| !changed.is_empty());
                changes.into_iter().try_for_each(|(what, changed)| write!(f, "; {what}: {}", nodes(changed)))
            }
            Self::Quarantined { node, until, .. } => write!(f, "{node} is quarantined until {until}"),
            Self::Joined { .. } => f.write_str("this node is a member"),
            Self::Refused { reason, .. } => write!(f, "this node is not let in: {}", OneLine(reason)),
            Self::TurnedAway { node, reason, .. } => write!(f, "{node} is not let in: {}", OneLine(reason)),
            Self::Ruled { node, is_kept_out: true, until: Some(until), .. } => {
                write!(f, "an operator keeps {node} out until {until}")
            }
            Self::Ruled { node, is_kept_out: true, until: None, .. } => write!(f, "an operator keeps {node} out"),
            Self::Ruled { node, .. } => write!(f, "an operator lets {node} in"),
            Self::Isolated { .. } => f.write_str("this node hears from nobody; it keeps the others as they were"),
            Self::Reached { .. } => f.write_str("this node hears from somebody again"),
            Self::GivenUp { .. } => {
                f.write_str("this node has heard from nobody for too long: it believes the others dead")
            }
            Self::Expelled { until, .. } => write!(f, "this node was declared dead, and comes back at {until}"),
            Self::Incarnation { incarnation, .. } => {
                write!(f, "this node's incarnation is {incarnation} from now on: its former one was known already")
            }
            Self::IdTaken { place, .. } => {
                write!(f, "another process has this node's id, at {}: this node has ended", OneLine(place))
            }
            Self::NotApplied { number, failures, reason, .. } => {
                write!(f, "update {number} could not be applied, {failures} times in a row: {}", OneLine(reason))
            }
            Self::NoRoom { what, .. } => write!(f, "there is no room for more {}", OneLine(what)),
            Self::OneChannel { node, place, .. } => {
                write!(f, "{node} speaks over connections, and answers no datagram at {}", OneLine(place))
            }
            Self::StoodStill { .. } => f.write_str("this process stood still"),
            Self::Unusable { from: Some(from), reason } => {
                write!(f, "a message from {} was not taken: {}", OneLine(from), OneLine(reason))
            }
            Self::Unusable { from: None, reason } => write!(f, "an answer was not taken: {}", OneLine(reason)),
            Self::Left { .. } => f.write_str("this node has left"),
        }
    }
}
