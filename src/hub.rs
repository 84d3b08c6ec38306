//! The hub: one state machine that turns what the providers report into one ordered sequence of deliveries.
//!
//! [`HubCore`] decides, [`Dispatcher`] calls the bridges in order, and the hub's thread (in [`thread`]) feeds the one and
//! runs the other, in [`rounds`], with what waits in its [`mailbox`]. One input is one tick: decide, deliver to
//! PlacementSupervisor, PartitionManager, Remoting and the subscribers, in that order, publish the state. Nothing of the
//! next tick is seen by anyone before.

mod bell;
mod blocks;
mod core;
mod damping;
mod dispatch;
mod gate;
mod handle;
pub(crate) mod lane;
pub(crate) mod lifecycle;
mod loglines;
mod loss;
pub(crate) mod mailbox;
mod outbox;
mod published;
mod record;
mod remote;
pub(crate) mod rounds;
mod running;
mod selection;
mod slot;
mod slots;
mod streams;
pub(crate) mod thread;
mod timer;
mod turn;

use std::time::Duration;

pub(crate) use self::core::HubCore;
pub(crate) use dispatch::{Bridges, Dispatcher};
pub use handle::{ProviderWatchHub, Ticket};
pub(crate) use published::Publication;
pub(crate) use published::Published;
pub use published::{ProviderStatus, RemoteHealth, RemoteNode};
pub use record::Decision;
pub(crate) use slot::SlotSpec;

use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::event::{OwnershipChange, ProvisioningEvent};
use crate::failover::{FailoverPolicy, SlotKey};
use crate::id::ProviderId;
use crate::provider::ProviderEvent;
use crate::topology::{BlockSource, Members, NodeId};

/// What the hub's rules can be set to.
#[derive(Clone, Debug)]
pub(crate) struct HubSettings {
    pub(crate) failover: FailoverPolicy,
    /// After a delivery the next snapshot waits this long, so that a burst is few deliveries.
    pub(crate) coalesce: Duration,
    /// After this long without the node, Remoting's entry in the block list ends.
    pub(crate) block_absence: Duration,
    /// In member mode, the local node.
    pub(crate) local_node: Option<NodeId>,
    /// Seed of the jitter.
    pub(crate) seed: u64,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            failover: FailoverPolicy::default(),
            coalesce: Duration::from_millis(100),
            block_absence: Duration::from_secs(24 * 60 * 60),
            local_node: None,
            seed: 0,
        }
    }
}

/// Something that the hub has to take note of. One input is one tick.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A provider's stream reports.
    Event { key: SlotKey, generation: u64, event: ProviderEvent },
    /// A stream's thread has ended.
    StreamClosed { key: SlotKey, generation: u64 },
    /// The set of providers in force, in the order of registration. Those with a known key and edition stay as they are.
    Reconfigure(Vec<SlotSpec>),
    /// A node is put on the block list. `lasting`: the entry ends by itself after that time.
    Block { node: NodeId, source: BlockSource, reason: String, lasting: Option<Duration> },
    /// An entry of the block list is taken away.
    Lift { node: NodeId, source: BlockSource },
    /// Remoting has regained the connection to a node that it had quarantined.
    Reconnected { node: NodeId },
    /// Hold on to a provider.
    Pin(ProviderId),
    /// Choose freely again.
    Unpin,
    /// PlacementSupervisor orders ownership changes outside a snapshot.
    PublishOwnership(Vec<OwnershipChange>),
    /// Something that an operator should know happened outside the hub.
    Warn(ProvisioningError),
    /// Accept nothing new from here on.
    Drain,
}

/// What the hub asks of the threads that run the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamCommand {
    /// Open a stream of the provider; its inputs carry the generation.
    Open { key: SlotKey, generation: u64 },
    /// Cancel the stream; `StreamClosed` is expected when its thread has ended.
    Close { key: SlotKey, generation: u64 },
}

/// What one input led to.
#[derive(Debug)]
pub(crate) struct Tick {
    pub(crate) events: Vec<ProvisioningEvent>,
    pub(crate) streams: Vec<StreamCommand>,
    /// What is to be written to the log.
    pub(crate) lines: Vec<LogLine>,
    /// When the provider reported what is delivered, where it had to wait for this tick.
    pub(crate) waited_since: Option<Timestamp>,
    /// The set that a provider listed, whose nodes may all be duplicates of known ones: to be let go of after the
    /// callbacks, since that takes as long for many nodes as all the rest.
    pub(crate) discarded: Option<Members>,
    pub(crate) reply: Result<(), ProvisioningError>,
}

/// A line for the log. Rules do not write it themselves: the logger is the host's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub(crate) level: log::Level,
    pub(crate) text: String,
}
