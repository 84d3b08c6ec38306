//! What the watch and the registration of one provider tell each other about the local node: the registration how far it
//! has come, the watch that an answer lacks the node.

use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Whether an absence was reported that nobody has looked at yet. Whoever is woken takes the message that woke it.
    absent: AtomicBool,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Presence {
    pub(super) fn new(local: Option<NodeId>) -> Self {
        // One message is enough: it asks for a look, and says nothing else.
        let (wake, woken) = bounded(1);
        let standing = if local.is_some() { Standing::Joining } else { Standing::Client };
        Self { local, standing: Mutex::new(standing), absent: AtomicBool::new(false), wake, woken }
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
        self.absent.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
    }

    /// Whether an absence was reported since the last call.
    pub(super) fn take_absence(&self) -> bool {
        self.absent.swap(false, Ordering::AcqRel)
    }

    /// Where a message arrives with such a report.
    pub(super) fn absences(&self) -> &Receiver<()> {
        &self.woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_19_whoever_is_woken_by_an_absence_still_learns_of_it() {
        let presence = Presence::new(Some(NodeId::new("n1").unwrap()));
        assert!(!presence.take_absence());
        presence.report_absent();
        presence.report_absent();
        assert!(presence.absences().try_recv().is_ok());
        assert!(presence.take_absence());
        assert!(!presence.take_absence() && presence.absences().try_recv().is_err());
    }
}
