//! Membership by gossip: who is in the cluster, agreed upon by its members themselves.
//!
//! SWIM (Das, Gupta, Motivala 2002) with Lifeguard (Dadgar, Phillips, Currey 2018). Like the hub it is made of parts, each
//! with private fields and its own tests: no clock, no sockets, no threads, and no randomness but a seeded generator.
//!
//! | part | what it decides |
//! |---|---|
//! | [`record`] | which of two pieces of knowledge about a node counts |
//! | [`accusers`] | who says that a node does not answer |
//! | [`convergence`] | whether all members hold the same, and since when |
//! | [`digest`] | whether two members know the same, and where they differ |
//! | [`heard`] | which rumours were heard before |
//! | [`suspicion`] | for how long a node may answer an accusation |
//! | [`isolation`] | whether this node hears from nobody, and so blames nobody |
//! | [`local_health`] | whether it is rather this node that is slow |
//! | [`place`] | where a member is reached |
//! | [`probe`] | whether a node answers, directly or by others |
//! | [`probe_round`] | who is asked next whether it lives |
//! | [`quarantine`] | who may come back, and when |
//! | [`reach`] | who answers over the reliable channel alone |
//! | [`records`] | what is known of each id, found at once |
//! | [`rulings`] | whom operators keep out, and let in before their time |
//! | [`rumours`] | what is told to whom, how often, and what waits |
//! | `sealing` | who can read what members tell each other, and what was told before |
//! | [`settling`] | when what is known becomes an update of the topology |
//! | [`table`] | what is known of everybody, and which transitions there are |
//! | [`loss`] | how much is lost on the way |
//! | [`settings`] | what can be set |
//! | [`event`] | what is told |
//! | [`machine`] | how a member works: the parts together |
//! | [`outbox`] | what waits to be taken |
//! | [`applying`] | whether the host has taken the topology over |
//! | [`metrics`] | what is counted |
//! | [`lifecycle`] | a node's membership from its start to its end |
//! | [`observer`] | the view of a process that is no member |
//! | [`wire`] | how all of it looks as bytes |
//! | [`transport`] | how it is carried: the sockets and the thread |

mod accusers;
mod applying;
#[cfg(test)]
mod conformance;
mod convergence;
mod digest;
mod event;
mod heard;
mod isolation;
mod lifecycle;
mod local_health;
mod loss;
mod machine;
mod metrics;
mod observer;
mod outbox;
mod place;
mod probe;
mod probe_round;
mod quarantine;
mod reach;
mod record;
mod records;
mod rulings;
mod rumours;
#[cfg(feature = "gossip")]
mod sealing;
mod settings;
mod settling;
#[cfg(any(test, feature = "testkit"))]
pub mod simulation;
mod suspicion;
mod table;
#[cfg(all(feature = "gossip", unix))]
pub(crate) mod transport;
mod wire;

use wire::message;

#[cfg(all(feature = "gossip", unix))]
pub use metrics::GossipMetrics;
#[cfg(all(feature = "gossip", unix))]
pub(crate) use {
    event::{Event, MemberState, Scarce},
    lifecycle::NotDone,
    machine::Order,
    place::Place,
    quarantine::{Quarantined, Refusal},
    record::Life,
    rulings::Sentence,
    sealing::keyring::Keyring,
    settings::Settings,
    settling::TopologyUpdate,
    table::Refused,
};
