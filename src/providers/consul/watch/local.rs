//! What an answer says of the local node in member mode, and what the registration is told of it.

use super::{Machine, Output, Sighting, Standing};
use crate::clock::Timestamp;
use crate::providers::rival::is_rival;
use crate::topology::Members;

impl Machine {
    /// Looks for the registered local node.
    pub(super) fn sight(&mut self, now: Timestamp, members: &Members) {
        let (Some(local), Standing::Registered) = (&self.local, self.standing) else { return };
        let sighting = match members.get(local.id()) {
            None => Sighting::Absent,
            Some(shown) if is_rival(shown, local) => Sighting::Taken,
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
