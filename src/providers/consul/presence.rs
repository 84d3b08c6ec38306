//! What the watch and the registration of one provider tell each other about the local node: the registration how far it
//! has come, the watch that an answer lacks the node.

use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::topology::NodeId;

/// How far the registration of the local node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Client mode: there is nothing to register.
    Client,
    /// It has never been registered yet.
    Joining,
    /// It was registered, and has been kept or repaired since.
    Registered,
    /// It has been deregistered, or the attempt was made.
    Left,
}

/// The local node as its watch and its registration see it.
#[derive(Debug)]
pub(super) struct Presence {
    local: Option<NodeId>,
    standing: Mutex<Standing>,
    absent: Sender<()>,
    early: Receiver<()>,
}

impl Presence {
    pub(super) fn new(local: Option<NodeId>) -> Self {
        // One message is enough: it asks for a look, and says nothing else.
        let (absent, early) = bounded(1);
        let standing = if local.is_some() { Standing::Joining } else { Standing::Client };
        Self { local, standing: Mutex::new(standing), absent, early }
    }

    /// The local node in member mode.
    pub(super) fn local(&self) -> Option<&NodeId> {
        self.local.as_ref()
    }

    pub(super) fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The watch saw an answer without the local node.
    pub(super) fn report_absent(&self) {
        let _ = self.absent.try_send(());
    }

    /// Where such reports arrive.
    pub(super) fn absent(&self) -> &Receiver<()> {
        &self.early
    }
}
