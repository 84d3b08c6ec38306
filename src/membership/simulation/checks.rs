//! What has to hold of a member after each step.

use std::collections::{BTreeMap, BTreeSet};
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
pub(in crate::membership) struct Checks {
    updates: u64,
    last_at: Option<Timestamp>,
    members: Members,
    states: BTreeMap<NodeId, MemberState>,
    /// Who has asked this member to be let in, and was not seen up since.
    joining: BTreeSet<NodeId>,
    own: (u64, u64),
    is_isolated: bool,
}

impl Checks {
    /// Something was told.
    pub(in crate::membership) fn event(&mut self, event: &Event) -> Result<(), String> {
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
            self.joining.insert(node.clone());
            let known = self.states.get(node).copied();
            // Nothing is told of whoever is known from others as gone.
            let is_gone = |state| matches!(state, None | Some(Dead | Left));
            return match from == known || (is_gone(from) && is_gone(known)) {
                true => Ok(()),
                false => wrong(&format!("and was {known:?}")),
            };
        }
        let known = self.states.insert(node.clone(), to);
        if from == Some(Joining) {
            return match (self.joining.remove(node), to) {
                (true, Up | Suspect) => Ok(()),
                (true, _) => wrong("which is no transition"),
                (false, _) => wrong("and has not asked to be let in"),
            };
        }
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
    pub(in crate::membership) fn step(&mut self, machine: &Machine) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::settings::Settings;
    use crate::topology::ClusterNode;
    use std::sync::Arc;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn node(name: &str) -> Arc<ClusterNode> {
        Arc::new(ClusterNode::builder(name, "h", 7000).incarnation(5).build().unwrap())
    }

    fn nodes(names: &[&str]) -> Vec<Arc<ClusterNode>> {
        names.iter().map(|name| node(name)).collect()
    }

    fn update(number: u64, millis: u64, joined: &[&str], members: &[&str]) -> TopologyUpdate {
        let (members, _) = Members::from_nodes(nodes(members));
        let (updated, left, dead) = (vec![], vec![], vec![]);
        TopologyUpdate { number, at: at(millis), joined: nodes(joined), updated, left, dead, members }
    }

    /// After an update in which n1 and n2 came.
    fn checks() -> Checks {
        let mut checks = Checks::default();
        checks.event(&Event::Topology(Arc::new(update(1, 0, &["n1", "n2"], &["n1", "n2"])))).unwrap();
        checks
    }

    fn refused(change: impl FnOnce(&mut TopologyUpdate)) -> String {
        let mut wrong = update(2, 200, &["n3"], &["n1", "n2", "n3"]);
        assert_eq!(checks().event(&Event::Topology(Arc::new(wrong.clone()))), Ok(()));
        change(&mut wrong);
        checks().event(&Event::Topology(Arc::new(wrong))).unwrap_err()
    }

    #[test]
    fn m4_1_an_update_that_is_wrong_in_any_way_is_noticed() {
        assert!(refused(|update| update.number = 3).contains("is the 2th"));
        assert!(refused(|update| update.at = at(199)).contains("too soon"));
        assert!(refused(|update| update.left = nodes(&["n9"])).contains("was never there"));
        assert!(refused(|update| update.dead = nodes(&["n9"])).contains("was never there"));
        assert!(refused(|update| update.joined = nodes(&["n1"])).contains("was there"));
        assert!(refused(|update| update.updated = nodes(&["n9"])).contains("has changed and was not there"));
        assert!(refused(|update| update.left = nodes(&["n1"])).contains("do not lead"));
        assert!(refused(|update| *update = super::tests::update(2, 200, &[], &["n1", "n2"])).contains("says nothing"));
    }

    #[test]
    fn m2_4_deaths_that_a_node_announces_while_it_hears_from_nobody_are_noticed() {
        let mut death = update(2, 200, &[], &["n1"]);
        death.dead = nodes(&["n2"]);
        let death = Arc::new(death);
        for (is_over, is_right) in [(false, false), (true, true)] {
            let mut checks = checks();
            checks.event(&Event::Isolated { at: at(100) }).unwrap();
            if is_over {
                checks.event(&Event::Reached { at: at(150) }).unwrap();
            }
            assert_eq!(checks.event(&Event::Topology(death.clone())).is_ok(), is_right);
        }
        let mut checks = checks();
        checks.event(&Event::Isolated { at: at(100) }).unwrap();
        checks.event(&Event::GivenUp { at: at(150) }).unwrap();
        assert_eq!(checks.event(&Event::Topology(death)), Ok(()));
    }

    #[test]
    fn m2_5_a_transition_that_there_is_not_or_that_does_not_follow_is_noticed() {
        use MemberState::{Dead, Joining, Left, Suspect, Up};
        let goes = |steps: &[(Option<MemberState>, MemberState)]| {
            let mut checks = Checks::default();
            let mut results = steps.iter().map(|(from, to)| {
                checks.event(&Event::Transition { at: at(0), node: node("n1"), from: *from, to: *to })
            });
            results.try_for_each(|result| result)
        };
        assert_eq!(
            goes(&[(None, Joining), (Some(Joining), Up), (Some(Up), Suspect), (Some(Suspect), Dead), (Some(Dead), Up)]),
            Ok(())
        );
        assert_eq!(goes(&[(None, Up), (Some(Up), Left), (None, Up)]), Ok(()), "forgotten meanwhile");
        assert_eq!(goes(&[(None, Up), (Some(Up), Joining), (Some(Joining), Up)]), Ok(()), "another life");
        assert_eq!(goes(&[(None, Joining), (None, Up)]), Ok(()), "let in elsewhere, after it was given up here");
        for wrong in [
            &[(Some(Up), Joining)][..],
            &[(Some(Joining), Up)],
            &[(None, Joining), (Some(Joining), Up), (Some(Joining), Up)],
            &[(None, Joining), (Some(Joining), Dead)],
            &[(Some(Suspect), Dead)],
            &[(None, Up), (Some(Suspect), Dead)],
            &[(None, Up), (None, Suspect)],
            &[(None, Dead)],
            &[(None, Up), (Some(Up), Up)],
        ] {
            assert!(goes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn m1_5_a_snapshot_that_was_not_announced_and_a_member_that_goes_back_are_noticed() {
        let machine = |incarnation| {
            let node = ClusterNode::builder("n0", "h", 7000).incarnation(incarnation).build().unwrap();
            Machine::new(Settings::lan("test"), (Arc::new(node), 1), vec![], 1, at(0)).unwrap()
        };
        let mut first = machine(5);
        let mut checks = Checks::default();
        assert!(checks.step(&first).unwrap_err().contains("not what was announced"));
        while let Some(output) = first.output() {
            if let crate::membership::machine::Output::Event(event) = output {
                checks.event(&event).unwrap();
            }
        }
        assert_eq!(checks.step(&first), Ok(()));
        checks.own = (6, 0);
        assert!(checks.step(&first).unwrap_err().contains("went back"));
    }
}
