//! Who is in the cluster: nodes, sets of members, and the hash and difference of such sets.
//!
//! A [`ClusterNode`] is what its owner registered, nothing else. [`Members`] is a set of nodes sorted by id that is
//! cheap to clone, to change and to compare, [`BlockedNodes`] the list of those that are blocked. [`ProviderSnapshot`] is
//! both as they are delivered.

mod address;
mod blocked;
mod diff;
mod members;
mod node;
mod snapshot;
mod tree;

pub use blocked::{BlockSource, BlockedNode, BlockedNodes};
pub use diff::TopologyDiff;
pub use members::{Members, MembersBuilder, MembersIter};
pub use node::{ClusterNode, ClusterNodeBuilder, NodeId};
pub use snapshot::{Position, ProviderSnapshot, Revision};

#[cfg(test)]
mod tests;
