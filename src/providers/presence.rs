//! What the watch and the registration of one provider tell each other about the local node: the registration how far it
//! has come, the watch that an answer lacks the node. Shared by the providers that register it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::provider::LocalNode;
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
    local: LocalNode,
    standing: Mutex<Standing>,
    /// What the registration has not taken yet: that the node was shown, or absent, or shown and then absent.
    sightings: Mutex<Vec<Sighting>>,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Presence {
    pub(in crate::providers) fn new(local: LocalNode) -> Self {
        // One message is enough: it asks for a look, and says nothing else.
        let (wake, woken) = bounded(1);
        let standing = if local.get().is_some() { Standing::Joining } else { Standing::Client };
        Self { local, standing: Mutex::new(standing), sightings: Mutex::default(), wake, woken }
    }

    /// The local node in member mode, as it is described now.
    pub(in crate::providers) fn local(&self) -> Option<Arc<ClusterNode>> {
        self.local.get()
    }

    pub(in crate::providers) fn standing(&self) -> Standing {
        *lock(&self.standing)
    }

    pub(in crate::providers) fn set_standing(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }

    /// The watch saw the local node, or did not. An absence wakes the registration.
    pub(in crate::providers) fn report(&self, sighting: Sighting) {
        let mut waiting = lock(&self.sightings);
        if sighting != Sighting::Absent {
            waiting.clear();
        }
        if waiting.last() != Some(&sighting) {
            waiting.push(sighting);
        }
        drop(waiting);
        if sighting == Sighting::Absent {
            let _ = self.wake.try_send(());
        }
    }

    /// What was seen since the last call. Whoever is woken has taken the message that woke it, and learns here why. An
    /// absence does not hide that the node had been shown before it: it is another loss then, and not the same still.
    pub(in crate::providers) fn take_sightings(&self) -> Vec<Sighting> {
        std::mem::take(&mut *lock(&self.sightings))
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
    fn consul_point_19_whoever_is_woken_by_an_absence_learns_of_it_and_whether_the_node_was_shown_before() {
        let presence = Presence::new(Arc::new(ClusterNode::builder("n1", "h", 1).build().unwrap()).into());
        let seen = |sightings: &[Sighting]| {
            sightings.iter().for_each(|sighting| presence.report(*sighting));
            (presence.absences().try_recv().is_ok(), presence.take_sightings())
        };
        use Sighting::{Absent, Present, Taken};
        assert_eq!(seen(&[]), (false, vec![]));
        assert_eq!(seen(&[Absent, Absent]), (true, vec![Absent]));
        assert_eq!(seen(&[]), (false, vec![]), "taken");
        assert_eq!(seen(&[Absent, Present]).1, [Present], "what is over is over");
        for shown in [Present, Taken] {
            assert_eq!(seen(&[shown]), (false, vec![shown]));
            assert_eq!(
                seen(&[Absent, shown, Absent, shown, Absent, Absent]),
                (true, vec![shown, Absent]),
                "lost again"
            );
        }
    }

    #[test]
    fn consul_point_10_a_member_is_joining_until_its_registration_says_otherwise_and_a_client_stays_one() {
        let local = Arc::new(ClusterNode::builder("n1", "h", 1).build().unwrap());
        let presence = Presence::new(local.clone().into());
        assert_eq!((presence.local(), presence.standing()), (Some(local), Standing::Joining));
        for standing in [Standing::Registered, Standing::Left] {
            presence.set_standing(standing);
            assert_eq!(presence.standing(), standing);
        }
        let client = Presence::new(LocalNode::default());
        assert_eq!((client.local(), client.standing()), (None, Standing::Client));
    }
}
