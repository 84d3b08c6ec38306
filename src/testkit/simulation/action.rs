//! The actions of a run carried out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::plan::{Action, PROVIDERS};
use super::run::Run;
use super::transitions::Transition;
use super::world::{Actor, Mood};
use crate::event::OwnershipChange;
use crate::hub::Input;
use crate::hub::lifecycle::Phase;
use crate::id::ProviderId;
use crate::provider::{ProviderEvent, ProviderTermination};
use crate::testkit::BridgeKind;
use crate::topology::{BlockSource, NodeId, Revision};

impl Run {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Quarantine => {
                let node = self.some_node();
                self.block(node, BlockSource::Remoting, None);
            }
            Action::Reconnect => {
                let blocked = self.blocked();
                if let Some(node) = self.dice.pick(&blocked).cloned() {
                    self.shell.send(Input::Reconnected { node });
                }
            }
            Action::Exclude => {
                let node = self.some_node();
                let lasting = self.dice.millis(1_000, 40_000);
                self.block(node, BlockSource::FailureDetector, Some(lasting));
            }
            Action::Operator => {
                let node = self.some_node();
                let source = BlockSource::Operator;
                let is_blocked = self.shell.state().blocked.iter().any(|entry| entry.node == node);
                if self.dice.chance(600) || !is_blocked {
                    let lasting = self.dice.chance(200).then_some(Duration::from_secs(20));
                    self.block(node, source, lasting);
                } else {
                    self.shell.send(Input::Lift { node, source });
                }
            }
            Action::Pin => {
                let index = self.dice.index(self.actors.len());
                let pinned = ProviderId::new(&self.actors[index].spec.id).expect("a valid provider id");
                let pin = self.dice.chance(600);
                self.shell.send(if pin { Input::Pin(pinned) } else { Input::Unpin });
            }
            Action::Ownership => {
                let node = self.some_node();
                self.shell.send(Input::PublishOwnership(vec![OwnershipChange::assign("k", node)]));
            }
            Action::Reload => self.change_providers(),
            Action::Edit => self.edit_providers(),
            Action::Panic => {
                let bridges = [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting];
                let calls = 1 + self.dice.index(3);
                if let Some(bridge) = self.dice.pick(&bridges) {
                    self.shell.recorder().panic_next(*bridge, calls);
                }
            }
            Action::Standstill => {
                let lasting = self.dice.millis(4_000, 60_000);
                self.stand_still(lasting);
            }
            Action::Stuck => {
                let Some(streams) = self.shell.streams() else { return };
                let lag = match self.dice.below(3) {
                    0 => None,
                    1 => Some(self.dice.millis(0, 3_000)),
                    _ => Some(Duration::ZERO),
                };
                streams.set_lag(lag);
                if lag.is_some() {
                    streams.release();
                }
            }
            Action::StaleEvent => self.send_stale_event(),
            Action::Duplicate => {
                let again = self.judge.latest().find_map(|tick| match &tick.input {
                    Some(input @ Input::StreamClosed { .. }) => Some(input.clone()),
                    _ => None,
                });
                if let Some(again) = again {
                    self.shell.send(again);
                }
            }
            Action::End => {
                let index = self.victim();
                // Half of the time it has just shown something that has to wait.
                for _ in 0..if self.dice.chance(500) { 2 } else { 0 } {
                    self.truth.happen(&mut self.dice, self.shell.now());
                    self.say(index, |actor, truth| {
                        let members = truth.members.clone();
                        actor.note(members.clone());
                        ProviderEvent::Snapshot { members, revision: Revision::NONE, skipped: 0 }
                    });
                }
                self.say(index, |_, _| ProviderEvent::Terminated(ProviderTermination::Ended));
            }
            Action::Blackout => {
                let (now, mood) = (self.shell.now(), if self.dice.chance(500) { Mood::Down } else { Mood::Silent });
                let until = now + self.dice.millis(20_000, 120_000);
                for actor in &mut self.actors {
                    actor.mood = mood;
                    actor.until = until;
                }
            }
            Action::LongAbsence => {
                if self.dice.chance(100) {
                    self.stand_still(Duration::from_secs(25 * 60 * 60));
                }
            }
            Action::Busy => {
                let lasting = if self.dice.chance(800) { 4_000 } else { 20_000 };
                self.busy_until = self.shell.now() + self.dice.millis(50, lasting);
                self.judge.count(Transition::Busy);
            }
            Action::SlowCallback => {
                let millis = 10 + self.dice.below(3_000);
                self.slow_callback.store(millis, Ordering::Relaxed);
            }
            Action::Hurry => self.hurry(),
            Action::Flood => {
                let index = self.victim();
                let key = self.shell.key(&self.actors[index].spec.id);
                if self.dice.chance(50)
                    && let (Some(key), Some(streams)) = (key, self.shell.streams())
                {
                    streams.flood(key);
                }
            }
            Action::Commands => {
                let commands = if self.dice.chance(3) { 5_000 } else { self.dice.below(20) };
                for _ in 0..commands {
                    let node = self.some_node();
                    self.shell.send(Input::Lift { node, source: BlockSource::Operator });
                }
            }
            Action::RefuseThreads => {
                let threads = 1 + self.dice.index(4);
                if let Some(streams) = self.shell.streams() {
                    streams.refuse(threads);
                }
            }
            Action::ThreadDies => {
                let index = self.victim();
                let key = self.shell.key(&self.actors[index].spec.id);
                if let (Some(key), Some(streams)) = (key, self.shell.streams()) {
                    streams.die(key);
                }
            }
            Action::StreamPanics => {
                let index = self.victim();
                self.say(index, |_, _| {
                    let code = crate::ErrorCode::ProviderPanicked;
                    let reason = crate::ProvisioningError::new(code, "watching the topology", "a simulated panic");
                    ProviderEvent::Terminated(ProviderTermination::Errored { reason })
                });
            }
            Action::RefuseWorkers => {
                let workers = 1 + self.dice.index(3);
                if let Some(registrations) = &mut self.registrations {
                    registrations.refuse(workers);
                }
            }
            Action::EarlyRenewal => {
                if let Some(registrations) = &mut self.registrations {
                    registrations.hurry();
                }
            }
        }
    }

    /// The whole process stands still.
    fn stand_still(&mut self, lasting: Duration) {
        self.shell.clock().advance(lasting);
        if let Some(registrations) = &mut self.registrations {
            registrations.stand_still_to(self.shell.now());
        }
    }

    fn block(&mut self, node: NodeId, source: BlockSource, lasting: Option<Duration>) {
        self.shell.send(Input::Block { node, source, reason: "simulated".into(), lasting });
    }

    /// A member, a node that is blocked, or now and then one that nobody knows.
    fn some_node(&mut self) -> NodeId {
        let blocked = self.blocked();
        let known = match self.dice.below(10) {
            0 => None,
            1..3 => self.dice.pick(&blocked).cloned(),
            _ => self.truth.any(&mut self.dice),
        };
        known.unwrap_or_else(|| NodeId::new(format!("n{}", self.dice.below(14))).expect("a valid id"))
    }

    fn blocked(&self) -> Vec<NodeId> {
        self.shell.state().blocked.iter().map(|entry| entry.node.clone()).collect()
    }

    /// The provider's running stream says that, unless it waits for room.
    fn say(&mut self, index: usize, event: impl FnOnce(&mut Actor, &super::world::Truth) -> ProviderEvent) {
        let Some(key) = self.shell.key(&self.actors[index].spec.id) else { return };
        let Some(streams) = self.shell.streams() else { return };
        if streams.running(key).is_some() && !streams.is_waiting(key) {
            streams.report(key, event(&mut self.actors[index], &self.truth));
        }
    }

    /// A provider reports far more than usual, at once.
    fn hurry(&mut self) {
        let index = self.victim();
        let reports = 5 + self.dice.below(150);
        let (errs, churns) = (self.dice.chance(500), self.dice.chance(500));
        for _ in 0..reports {
            let now = self.shell.now();
            let actor = &mut self.actors[index];
            actor.next_report = now;
            if errs {
                (actor.mood, actor.until) = (Mood::Erring, now + Duration::from_secs(1));
            }
            if churns {
                self.truth.happen(&mut self.dice, now);
            }
            if !self.report(index) {
                break;
            }
        }
    }

    /// The hub is told something of an earlier stream, or of one of a provider that is gone.
    fn send_stale_event(&mut self) {
        let index = self.victim();
        let Some(key) = self.shell.key(&self.actors[index].spec.id) else { return };
        let Some(generation) = self.shell.streams().and_then(|streams| streams.running(key)) else { return };
        let event = match self.dice.below(3) {
            0 => ProviderEvent::Terminated(ProviderTermination::Ended),
            1 => ProviderEvent::Heartbeat { current: true },
            _ => ProviderEvent::Changes { changes: Vec::new(), revision: Revision::NONE },
        };
        let key = if self.dice.chance(300) { key + 1000 } else { key };
        self.shell.send(Input::Event { key, generation: generation - 1, event });
    }

    fn change_providers(&mut self) {
        if self.shell.phase() > Phase::Running {
            return;
        }
        let now = self.shell.now();
        match self.dice.below(4) {
            0 => {
                let index = self.dice.index(self.actors.len());
                self.actors[index].spec.priority = self.dice.below(4) as i64 * 10;
            }
            1 if self.actors.len() > 1 => {
                let index = self.victim();
                self.actors.remove(index);
            }
            2 if self.actors.len() > 1 => {
                let active = self.active();
                self.actors.retain(|actor| Some(&actor.spec.id) != active.as_ref());
            }
            _ if self.actors.len() < PROVIDERS => {
                let free = |number: &usize| self.actors.iter().all(|actor| actor.spec.id != format!("p{number}"));
                let number = (0..PROVIDERS).find(free).unwrap_or_default();
                let actor = Actor::new(number, &mut self.dice, now);
                let index = self.dice.index(self.actors.len() + 1);
                self.actors.insert(index, actor);
            }
            _ => {}
        }
        self.reload();
    }

    /// A provider, and now and then another with it, is defined anew.
    fn edit_providers(&mut self) {
        if self.shell.phase() > Phase::Running {
            return;
        }
        let index = self.victim();
        let actor = &mut self.actors[index];
        actor.spec.edition += 1;
        actor.spec.reachable = self.dice.chance(500);
        actor.spec.refresh_interval = self.dice.chance(400).then(|| self.dice.millis(5_000, 10_000));
        actor.place.agent += u64::from(self.dice.chance(300));
        if self.dice.chance(300) {
            let index = self.dice.index(self.actors.len());
            self.actors[index].spec.edition += 1;
        }
        self.reload();
    }
}
