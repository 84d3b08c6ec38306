//! Whole clusters on one clock and one seed: a network that loses, delays, doubles and cuts, and processes that stand still,
//! die and come back.
//!
//! | part | what it is |
//! |---|---|
//! | [`protocol`] | what a world asks of a member, of whichever protocol |
//! | [`network`] | what becomes of what is sent |
//! | [`world`] | the cluster and its clock |
//! | [`member`] | the library's own member |
//! | [`checks`] | what has to hold of it after each step |
//! | [`later`] | a later version of the protocol |
//! | [`script`] | any bytes as what happens to a member |

mod checks;
mod later;
mod member;
mod network;
mod protocol;
mod script;
mod world;

#[cfg(all(feature = "gossip", unix))]
pub(in crate::membership) use checks::Checks;
pub use member::GossipMember;
#[cfg(all(feature = "gossip", unix))]
pub(in crate::membership) use member::{id, place};
pub use network::Network;
pub use protocol::{Act, Arrival, Protocol, Seen, Start, View};
#[cfg(feature = "gossip")]
pub use script::open_any_sealed;
#[cfg(all(feature = "gossip", unix))]
pub(in crate::membership) use script::{LABEL, NODES, Script};
pub use script::{read_any_message, run_any_script};
pub use world::{Counts, Sighting, World};

#[cfg(test)]
mod faults;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod mixed;
#[cfg(test)]
mod scenes;
