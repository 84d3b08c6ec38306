//! What has to hold of a member after each step.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::membership::event::{Event, MemberState};
use crate::membership::machine::Machine;
use crate::membership::settling::TopologyUpdate;
use crate::topology::{Members, NodeId};

/// The least time between two updates.
const PACE: Duration = Duration::from_millis(200);

/// What is remembered from the steps before.
#[derive(Debug, Default)]
pub(super) struct Checks {
    updates: u64,
    last_at: Option<Timestamp>,
    members: Members,
    states: BTreeMap<NodeId, MemberState>,
    own: (u64, u64),
    is_isolated: bool,
}

impl Checks {
    /// Something was told.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Topology(update) => self.update(update),
            Event::Transition { node, from, to, .. } => self.transition(node.id(), *from, *to),
            Event::Isolated { .. } => {
                self.is_isolated = true;
                Ok(())
            }
            Event::Reached { .. } | Event::GivenUp { .. } => {
                self.is_isolated = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn update(&mut self, update: &TopologyUpdate) -> Result<(), String> {
        self.updates += 1;
        if update.number != self.updates {
            return Err(format!("update {} is the {}th", update.number, self.updates));
        }
        if self.last_at.replace(update.at).is_some_and(|last| update.at.since(last) < PACE) {
            return Err(format!("update {} came too soon", update.number));
        }
        for node in update.left.iter().chain(&update.dead) {
            if self.members.remove(node.id()).is_none() {
                return Err(format!("{} is gone and was never there", node.id()));
            }
        }
        for node in &update.joined {
            if self.members.insert(std::sync::Arc::clone(node)).is_some() {
                return Err(format!("{} came and was there", node.id()));
            }
        }
        for node in &update.updated {
            if self.members.insert(std::sync::Arc::clone(node)).is_none() {
                return Err(format!("{} has changed and was not there", node.id()));
            }
        }
        if self.members != update.members {
            return Err(format!("the changes of update {} do not lead to its members", update.number));
        }
        if [&update.joined, &update.updated, &update.left, &update.dead].into_iter().all(Vec::is_empty) {
            return Err(format!("update {} says nothing", update.number));
        }
        if self.is_isolated && !update.dead.is_empty() {
            return Err(format!("update {} announces deaths, and this node hears from nobody", update.number));
        }
        self.members = update.members.clone();
        Ok(())
    }

    fn transition(&mut self, node: &NodeId, from: Option<MemberState>, to: MemberState) -> Result<(), String> {
        use MemberState::{Dead, Joining, Left, Suspect, Up};
        let wrong = |why: &str| Err(format!("{node} went from {from:?} to {to:?}, {why}"));
        if to == Joining {
            // At the one member alone that was asked, of a life that is not the one that is known.
            return if from.is_none() { Ok(()) } else { wrong("and was known") };
        }
        let known = self.states.insert(node.clone(), to);
        // Whoever has been gone for long is forgotten; and nothing is told of whoever is known from others as gone.
        let is_unknown = |state| matches!(state, None | Some(Dead | Left));
        if from != known && !(is_unknown(from) && is_unknown(known)) {
            return wrong(&format!("and was {known:?}"));
        }
        match (from, to) {
            (None, Up | Suspect)
            | (Some(Up), Suspect | Dead | Left)
            | (Some(Suspect), Up | Dead | Left)
            | (Some(Dead), Up | Suspect | Left)
            | (Some(Left), Up | Suspect | Dead) => Ok(()),
            _ => wrong("which is no transition"),
        }
    }

    /// The member has done what it was called for.
    pub(super) fn step(&mut self, machine: &Machine) -> Result<(), String> {
        if !machine.members().is_same(&self.members) && *machine.members() != self.members {
            return Err("the members are not what was announced".to_owned());
        }
        let own = (machine.own().node().incarnation(), machine.own().version());
        let before = std::mem::replace(&mut self.own, own);
        if own < before {
            return Err(format!("the member went back from {before:?} to {own:?}"));
        }
        machine.check()
    }
}
