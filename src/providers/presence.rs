//! What the watch and the registration of one provider tell each other about the local node: the registration how far it
//! has come, the watch that an answer lacks the node. Shared by the providers that register it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::topology::ClusterNode;

/// How far the registration of the local node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::providers) enum Standing {
    /// Client mode: there is nothing to register.
    Client,
    /// It has never been registered yet.
    Joining,
    /// It was registered, and has been kept or repaired since.
    Registered,
    /// It has been deregistered, or the attempt was made.
    Left,
}

/// What an answer says of the local node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::providers) enum Sighting {
    /// It lacks the node, although that is registered.
    Absent,
    /// It shows the node, which the one before did not.
    Present,
    /// It shows another process under the node's id.
    Taken,
}

/// The local node as its watch and its registration see it.
#[derive(Debug)]
pub(in crate::providers) struct Presence {
    local: Option<Arc<ClusterNode>>,
    standing: Mutex<Standing>,
    /// The last sighting, until the registration has taken it.
    sighting: Mutex<Option<Sighting>>,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Presence {
    pub(in crate::providers) fn new(local: Option<Arc<ClusterNode>>) -> Self {
        // One message is enough: it asks for a look, and says nothing else.
        let (wake, woken) = bounded(1);
        let standing = if local.is_some() { Standing::Joining } else { Standing::Client };
        Self { local, standing: Mutex::new(standing), sighting: Mutex::new(None), wake, woken }
    }

    /// The local node in member mode.
    pub(in crate::providers) fn local(&self) -> Option<&Arc<ClusterNode>> {
        self.local.as_ref()
    }

    pub(in crate::providers) fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    pub(in crate::providers) fn set_standing(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }

    /// The watch saw the local node, or did not. An absence wakes the registration.
    pub(in crate::providers) fn report(&self, sighting: Sighting) {
        *lock(&self.sighting) = Some(sighting);
        if sighting == Sighting::Absent {
            let _ = self.wake.try_send(());
        }
    }

    /// The last sighting since the last call. Whoever is woken has taken the message that woke it, and learns here why.
    pub(in crate::providers) fn take_sighting(&self) -> Option<Sighting> {
        lock(&self.sighting).take()
    }

    /// Where a message arrives with each absence.
    pub(in crate::providers) fn absences(&self) -> &Receiver<()> {
        &self.woken
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_19_whoever_is_woken_by_an_absence_still_learns_of_it() {
        let presence = Presence::new(Some(Arc::new(ClusterNode::builder("n1", "h", 1).build().unwrap())));
        assert_eq!(presence.take_sighting(), None);
        presence.report(Sighting::Absent);
        presence.report(Sighting::Absent);
        assert!(presence.absences().try_recv().is_ok());
        assert_eq!(presence.take_sighting(), Some(Sighting::Absent));
        assert!(presence.take_sighting().is_none() && presence.absences().try_recv().is_err());
        presence.report(Sighting::Absent);
        presence.report(Sighting::Present);
        assert_eq!(presence.take_sighting(), Some(Sighting::Present), "the last one counts");
    }

    #[test]
    fn consul_point_10_a_member_is_joining_until_its_registration_says_otherwise_and_a_client_stays_one() {
        let local = Arc::new(ClusterNode::builder("n1", "h", 1).build().unwrap());
        let presence = Presence::new(Some(local.clone()));
        assert_eq!((presence.local(), presence.standing()), (Some(&local), Standing::Joining));
        for standing in [Standing::Registered, Standing::Left] {
            presence.set_standing(standing);
            assert_eq!(presence.standing(), standing);
        }
        let client = Presence::new(None);
        assert_eq!((client.local(), client.standing()), (None, Standing::Client));
    }
}
