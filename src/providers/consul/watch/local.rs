//! What an answer says of the local node in member mode, and what the registration is told of it.

use super::{Machine, Output, Sighting, Standing};
use crate::clock::Timestamp;
use crate::topology::{ClusterNode, Members};

impl Machine {
    /// Looks for the registered local node. Another process has taken its id if that is registered in a later life, or in
    /// the same one elsewhere; an earlier life is what was there before.
    pub(super) fn sight(&mut self, now: Timestamp, members: &Members) {
        let (Some(local), Standing::Registered) = (&self.local, self.standing) else { return };
        let place = |node: &ClusterNode| (node.port(), node.address().trim_matches(['[', ']']).to_owned());
        let sighting = match members.get(local.id()) {
            None => Sighting::Absent,
            Some(shown) if shown.incarnation() > local.incarnation() => Sighting::Taken,
            Some(shown) if shown.incarnation() == local.incarnation() && place(shown) != place(local) => {
                Sighting::Taken
            }
            Some(_) => Sighting::Present,
        };
        let before = std::mem::replace(&mut self.sighted, sighting);
        if before == Sighting::Absent && sighting != Sighting::Absent {
            self.outage.shaken(now);
        }
        if sighting == Sighting::Absent || sighting != before {
            self.outputs.push_back(Output::Sighted(sighting));
        }
    }

    /// Whether the local node is registered and not there.
    pub(super) fn lacks_local(&self, members: &Members) -> bool {
        self.standing == Standing::Registered && self.local.as_ref().is_some_and(|node| !members.contains(node.id()))
    }
}
