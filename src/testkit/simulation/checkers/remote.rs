//! What Remoting is told: joins, leaves, blocks and warnings.

use std::collections::BTreeSet;

use super::{Checker, Model, ensure};
use crate::event::{ProvisioningEvent, RemoteTopologyChange};
use crate::health::ProviderHealth;
use crate::testkit::simulation::shell::TracedTick;
use crate::topology::{ClusterNode, Members, NodeId};

/// Joins and leaves add up to a part of the members delivered, and to all of them while the provider followed is healthy.
/// No join while it is not; no leave is kept back.
pub(super) struct JoinsAndLeaves;

impl Checker for JoinsAndLeaves {
    fn name(&self) -> &'static str {
        "joins and leaves"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let followed = model.followed_after(tick);
        let healthy = followed.is_some_and(|slot| slot.health == ProviderHealth::Healthy);
        let mut told = model.announced.clone();
        for event in &tick.events {
            let ProvisioningEvent::RemoteTopology(change) = event else { continue };
            let (position, id) = (change.position, &change.node_id);
            match change.event {
                RemoteTopologyChange::Join => {
                    ensure!(healthy, "{position}: {id} joins while the provider followed is not healthy");
                    let Some(node) = &change.node else { return Err(format!("{position}: {id} joins as nobody")) };
                    ensure!(told.insert(id.clone(), node.clone()).is_none(), "{position}: {id} joins again");
                }
                RemoteTopologyChange::Leave => {
                    ensure!(told.remove(id).is_some(), "{position}: {id} leaves without having joined");
                }
                _ => {}
            }
        }
        // While draining, losses are told straight from the provider.
        let shown = followed.filter(|_| model.draining).map(|slot| model.visible(&slot.shown));
        let none = Members::new();
        let delivered = tick.state.snapshot.as_ref().map_or(&none, |snapshot| &snapshot.members);
        let present = shown.as_ref().unwrap_or(delivered);
        for node in told.values() {
            let stays = present.get(node.id()).is_some_and(|present| present.is_same_life(node));
            ensure!(stays, "{} is gone, and Remoting was not told", node.id());
        }
        if healthy && !model.draining {
            // What the provider has dropped, but is still to be delivered as gone, is not told as coming.
            let confirmed = |node: &ClusterNode| {
                let shown = followed.and_then(|slot| slot.shown.get(node.id()));
                shown.is_some_and(|shown| shown.is_same_life(node))
            };
            let missing = delivered.iter().find(|node| !told.contains_key(node.id()) && confirmed(node));
            ensure!(missing.is_none(), "{missing:?} is held back although the provider followed is healthy");
        }
        let published = tick.state.announced.iter().map(|node| node.id());
        ensure!(published.eq(told.keys()), "the remote nodes published are not those that Remoting was told of");
        Ok(())
    }
}

/// Remoting is warned once when the provider followed is no longer healthy, and told once when it is again.
#[derive(Default)]
pub(super) struct StaleWarning(bool);

impl Checker for StaleWarning {
    fn name(&self) -> &'static str {
        "stale warning"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        for event in &tick.events {
            let ProvisioningEvent::RemotingWarning(warning) = event else { continue };
            let warned = warning.degraded.is_some();
            ensure!(warned != self.0, "{} repeats the warning", warning.position);
            self.0 = warned;
        }
        let Some(followed) = model.followed_after(tick) else {
            let unwatched = model.last_followed.is_some();
            ensure!(
                self.0 == unwatched,
                "nobody is followed, and Remoting was not told that what it knows may be stale"
            );
            return Ok(());
        };
        let healthy = followed.health == ProviderHealth::Healthy;
        ensure!(self.0 != healthy, "{} is {}, and Remoting believes otherwise", followed.id, followed.health);
        Ok(())
    }
}

/// Blocked and Unblocked alternate for each node and add up to the block list, which is what the rules leave of it; each
/// is told when an entry comes or goes, and never because of a switch.
#[derive(Default)]
pub(super) struct Blocks(BTreeSet<NodeId>);

impl Checker for Blocks {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn check(&mut self, model: &Model, tick: &TracedTick) -> Result<(), String> {
        let published: Vec<_> = tick.state.blocked.iter().map(|entry| (entry.node.clone(), entry.source)).collect();
        ensure!(
            published.iter().eq(model.blocked()),
            "the block list is {:?} instead of {:?}",
            published,
            model.blocked().collect::<Vec<_>>()
        );
        for event in &tick.events {
            let ProvisioningEvent::RemoteTopology(change) = event else { continue };
            let (position, id) = (change.position, &change.node_id);
            match change.event {
                RemoteTopologyChange::Blocked => {
                    ensure!(model.is_blocked(id), "{position}: {id} is not blocked");
                    ensure!(self.0.insert(id.clone()), "{position}: {id} is blocked again");
                }
                RemoteTopologyChange::Unblocked => {
                    ensure!(!model.is_blocked(id), "{position}: {id} is still blocked");
                    ensure!(self.0.remove(id), "{position}: {id} was not blocked");
                }
                _ => {}
            }
        }
        // Told together with the snapshot that says so, which may have to wait for the end of the window.
        let delivered = tick.state.snapshot.as_ref().is_none_or(|snapshot| snapshot.blocked == tick.state.blocked);
        let waits = !delivered && !model.draining && model.followed_after(tick).is_some();
        if waits {
            return Ok(());
        }
        for (node, _) in model.blocked() {
            ensure!(self.0.contains(node), "{node} is blocked, and Remoting was not told");
        }
        if !model.draining {
            let lifted = self.0.iter().find(|node| !model.is_blocked(node));
            ensure!(lifted.is_none(), "{lifted:?} is no longer blocked, and Remoting was not told");
        }
        Ok(())
    }
}
