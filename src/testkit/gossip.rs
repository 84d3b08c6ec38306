//! Simulated clusters: members as pure machines, a network that loses, delays, doubles and cuts, and processes that stand
//! still, die and come back; all on one clock and one seed.
//!
//! [`GossipMember`] is the library's own member, which is judged after each step ([`World::failure`]). Whatever implements
//! [`Protocol`] runs in the same [`World`].
//!
//! ```
//! use std::time::Duration;
//! use cluster_provisioning::testkit::gossip::{GossipMember, World};
//!
//! let mut world = World::new(1, GossipMember::lan);
//! (0..5).for_each(|node| world.start(node, &[0, 1]));
//! assert!(world.until(Duration::from_secs(5), World::is_one_view).is_some());
//! world.network.loss = 0.05;
//! world.kill(3);
//! assert!(world.until(Duration::from_secs(30), World::is_one_view).is_some());
//! assert_eq!(world.failure(), None);
//! ```

#[cfg(feature = "gossip")]
#[doc(hidden)]
pub use crate::membership::simulation::open_any_sealed;
pub use crate::membership::simulation::{
    Act, Arrival, Counts, GossipMember, Network, Protocol, Seen, Sighting, Start, View, World,
};
#[doc(hidden)]
pub use crate::membership::simulation::{read_any_message, run_any_script};
#[cfg(all(feature = "gossip", unix))]
#[doc(hidden)]
pub use crate::membership::transport::run_any_traffic;
