//! One run: what happens, in which order, and who looks at it.

use std::collections::VecDeque;
use std::time::Duration;

use super::checkers::{self, Checker, LIVENESS};
use super::dice::Dice;
use super::model::Model;
use super::transitions::Counter;
use super::world::{Actor, Mood, Truth};
use super::{Failure, Report, Simulation, placement};
use crate::event::OwnershipChange;
use crate::failover::{FailoverPolicy, StandbyMode};
use crate::hub::Input;
use crate::provider::{ProviderEvent, ProviderTermination};
use crate::testkit::harness::TracedTick;
use crate::testkit::{BridgeKind, Harness, HarnessProvider, HarnessSettings};
use crate::topology::{BlockSource, NodeId};

/// How many ticks a failure tells of.
const KEPT_TICKS: usize = 25;
/// How many providers there are at the most.
const PROVIDERS: usize = 4;
/// How long everything has to come right after the last fault.
const QUIET: Duration = Duration::from_secs(180);

/// How often what happens in a run: each run leaves some of it out, so that rare combinations come about.
struct Plan {
    steps: u64,
    drain_at: Option<u64>,
    /// Out of a thousand steps.
    truth: u64,
    fault: u64,
    action: u64,
    moods: Vec<Mood>,
    actions: Vec<Action>,
    /// Out of a thousand steps that are a few milliseconds long.
    hurry: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Quarantine,
    Reconnect,
    Exclude,
    Operator,
    Pin,
    Ownership,
    Reload,
    Panic,
    Standstill,
    Stuck,
    StaleEvent,
    Duplicate,
    End,
    Blackout,
    LongAbsence,
    Edit,
}

impl Action {
    const ALL: [Action; 16] = [
        Action::Quarantine,
        Action::Reconnect,
        Action::Exclude,
        Action::Operator,
        Action::Pin,
        Action::Ownership,
        Action::Reload,
        Action::Panic,
        Action::Standstill,
        Action::Stuck,
        Action::StaleEvent,
        Action::Duplicate,
        Action::End,
        Action::Blackout,
        Action::LongAbsence,
        Action::Edit,
    ];
}

/// A run under way.
pub(super) struct Run {
    simulation: Simulation,
    dice: Dice,
    plan: Plan,
    truth: Truth,
    actors: Vec<Actor>,
    local: Option<NodeId>,
    harness: Harness,
    stuck: bool,
    model: Model,
    checkers: Vec<Box<dyn Checker>>,
    counter: Counter,
    last: VecDeque<TracedTick>,
    step: u64,
    ticks: u64,
    deliveries: u64,
}

impl Run {
    pub(super) fn new(simulation: Simulation) -> Self {
        let mut dice = Dice::new(simulation.seed);
        let settings = settings(&mut dice);
        let local = settings.local_node.clone();
        let mut harness = Harness::with(settings.clone(), []);
        harness.start_trace();
        harness.recorder().place(placement);
        let now = harness.now();
        let truth = Truth::new(&mut dice, now);
        let actors = (0..2 + dice.index(PROVIDERS - 1)).map(|n| Actor::new(&format!("p{n}"), &mut dice, now)).collect();
        Self {
            plan: plan(&mut dice),
            simulation,
            dice,
            truth,
            actors,
            local,
            stuck: false,
            model: Model::new(settings, now),
            harness,
            checkers: checkers::all(),
            counter: Counter::default(),
            last: VecDeque::new(),
            step: 0,
            ticks: 0,
            deliveries: 0,
        }
    }

    pub(super) fn run(mut self) -> Report {
        let failure = self.live().err();
        Report {
            seed: self.simulation.seed,
            steps: self.step,
            ticks: self.ticks,
            deliveries: self.deliveries,
            transitions: self.counter.counts,
            failure,
        }
    }

    fn live(&mut self) -> Result<(), Failure> {
        self.reload();
        self.observe()?;
        while self.step < self.plan.steps {
            self.step += 1;
            let pause = match self.dice.below(1000) {
                dice if dice < self.plan.hurry => self.dice.millis(0, 60),
                dice if dice < 970 => self.dice.millis(50, 1_000),
                _ => self.dice.millis(1_000, 4_000),
            };
            self.pass(pause)?;
            if self.dice.chance(self.plan.truth) {
                self.truth.happen(&mut self.dice, self.harness.now());
            }
            if self.dice.chance(self.plan.fault) {
                self.fall_ill();
            }
            if self.dice.chance(self.plan.action)
                && let Some(action) = self.dice.pick(&self.plan.actions).copied()
            {
                self.act(action);
                self.observe()?;
            }
            if self.plan.drain_at == Some(self.step) {
                self.harness.drain();
                self.observe()?;
            }
        }
        self.come_right()
    }

    /// Lets time pass, and lets the providers that have something to say say it.
    fn pass(&mut self, pause: Duration) -> Result<(), Failure> {
        self.harness.advance(pause);
        self.observe()?;
        for index in 0..self.actors.len() {
            let actor = &mut self.actors[index];
            let Some((_, generation)) = self.harness.stream(&actor.spec.id) else { continue };
            let now = self.harness.now();
            let event = actor.report(generation, &self.truth, self.local.as_ref(), &mut self.dice, now);
            if let Some(event) = event {
                self.harness.event(&self.actors[index].spec.id, event);
                self.observe()?;
            }
        }
        Ok(())
    }

    /// The faults are over, and after some time everything must be as it should be.
    fn come_right(&mut self) -> Result<(), Failure> {
        let now = self.harness.now();
        self.set_stuck(false);
        self.harness.release_stuck();
        for actor in &mut self.actors {
            actor.until = now;
        }
        for bridge in [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting] {
            self.harness.recorder().panic_next(bridge, 0);
        }
        self.observe()?;
        while self.harness.now().since(now) < QUIET {
            self.step += 1;
            let pause = self.dice.millis(300, 1_200);
            self.pass(pause)?;
        }
        let Some(state) = self.last.back().map(|tick| tick.state.clone()) else { return Ok(()) };
        #[cfg(test)]
        let state = self.simulation.planted.map_or(state.clone(), |bug| bug.spoil_end(&state));
        let outcome = checkers::check_liveness(&self.model, &state, &self.truth.members);
        outcome.map_err(|objection| self.failure(vec![(LIVENESS, objection)]))
    }

    /// Judges the ticks since the last call.
    fn observe(&mut self) -> Result<(), Failure> {
        #[cfg_attr(not(test), allow(unused_mut))]
        for mut tick in self.harness.take_trace() {
            self.model.begin(&tick);
            #[cfg(test)]
            if let Some(bug) = &self.simulation.planted {
                bug.spoil(&self.model, &mut tick);
            }
            let model = &self.model;
            let objections: Vec<_> = self
                .checkers
                .iter_mut()
                .filter_map(|checker| Some((checker.name(), checker.check(model, &tick).err()?)))
                .collect();
            self.counter.count(&self.model, &tick, self.stuck);
            self.model.end(&tick);
            self.ticks += 1;
            self.deliveries += tick.events.len() as u64;
            if self.last.len() == KEPT_TICKS {
                self.last.pop_front();
            }
            self.last.push_back(tick);
            if !objections.is_empty() {
                return Err(self.failure(objections));
            }
        }
        Ok(())
    }

    fn failure(&self, objections: Vec<(&'static str, String)>) -> Failure {
        let mut last = vec![format!("settings: {:?}", self.model.settings)];
        for tick in &self.last {
            last.push(format!("{:?} {:?} accepted: {}", tick.at, tick.input, tick.accepted));
            last.extend(tick.events.iter().map(|event| format!("    {event:?}")));
            last.extend(tick.streams.iter().map(|command| format!("    {command:?}")));
        }
        Failure { seed: self.simulation.seed, step: self.step, objections, last }
    }

    fn fall_ill(&mut self) {
        let now = self.harness.now();
        let Some(mood) = self.dice.pick(&self.plan.moods).copied() else { return };
        let index = self.victim();
        let lasting = self.dice.millis(500, 45_000);
        let actor = &mut self.actors[index];
        actor.mood = mood;
        actor.until = now + lasting;
        actor.next_report = now;
    }

    /// Half of the time the provider followed, else any.
    fn victim(&mut self) -> usize {
        let active = self.harness.active();
        let followed = self.actors.iter().position(|actor| Some(&actor.spec.id) == active.as_ref());
        match followed {
            Some(index) if self.dice.chance(500) => index,
            _ => self.dice.index(self.actors.len()),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Quarantine => {
                let node = self.some_node();
                _ = self.harness.quarantine(&node, "lost");
            }
            Action::Reconnect => {
                let blocked = self.blocked();
                if let Some(node) = self.dice.pick(&blocked) {
                    _ = self.harness.reconnected(node);
                }
            }
            Action::Exclude => {
                let node = self.some_node();
                let lasting = self.dice.millis(1_000, 40_000);
                _ = self.harness.block(&node, BlockSource::FailureDetector, "suspected", Some(lasting));
            }
            Action::Operator => {
                let node = self.some_node();
                if self.dice.chance(600) || self.harness.lift(&node, BlockSource::Operator).is_err() {
                    let lasting = self.dice.chance(200).then_some(Duration::from_secs(20));
                    _ = self.harness.block(&node, BlockSource::Operator, "maintenance", lasting);
                }
            }
            Action::Pin => {
                let index = self.dice.index(self.actors.len());
                let pinned = self.actors[index].spec.id.clone();
                let pin = self.dice.chance(600).then_some(pinned.as_str());
                _ = self.harness.pin(pin);
            }
            Action::Ownership => {
                let node = self.some_node();
                self.harness.publish_ownership(vec![OwnershipChange::assign("k", node)]);
            }
            Action::Reload => self.change_providers(),
            Action::Panic => {
                let bridges = [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting];
                let calls = 1 + self.dice.index(3);
                if let Some(bridge) = self.dice.pick(&bridges) {
                    self.harness.recorder().panic_next(*bridge, calls);
                }
            }
            Action::Standstill => {
                let lasting = self.dice.millis(4_000, 60_000);
                self.harness.stand_still(lasting);
            }
            Action::Stuck => {
                let stuck = !self.stuck;
                self.set_stuck(stuck);
                if !stuck {
                    self.harness.release_stuck();
                }
            }
            Action::StaleEvent => {
                let index = self.victim();
                let Some((key, generation)) = self.harness.stream(&self.actors[index].spec.id) else { return };
                let event = match self.dice.below(3) {
                    0 => ProviderEvent::Terminated(ProviderTermination::Ended),
                    1 => ProviderEvent::Heartbeat { current: true },
                    _ => ProviderEvent::Changes { changes: Vec::new(), revision: crate::Revision::NONE },
                };
                // One of an earlier stream, or of a provider that is gone.
                let key = if self.dice.chance(300) { key + 1000 } else { key };
                _ = self.harness.input(Input::Event { key, generation: generation - 1, event });
            }
            Action::Duplicate => {
                let again = self.last.iter().rev().find_map(|tick| match &tick.input {
                    Some(input @ Input::Event { event: ProviderEvent::Snapshot { .. }, .. }) => Some(input.clone()),
                    Some(input @ Input::StreamClosed { .. }) => Some(input.clone()),
                    _ => None,
                });
                if let Some(again) = again {
                    _ = self.harness.input(again);
                }
            }
            Action::End => {
                let index = self.victim();
                let name = &self.actors[index].spec.id;
                // Half of the time it has just shown something that has to wait.
                for _ in 0..if self.dice.chance(500) { 2 } else { 0 } {
                    self.truth.happen(&mut self.dice, self.harness.now());
                    self.harness.show(name, self.truth.members.clone());
                }
                self.harness.end(name);
            }
            Action::Blackout => {
                let (now, mood) = (self.harness.now(), if self.dice.chance(500) { Mood::Down } else { Mood::Silent });
                let until = now + self.dice.millis(20_000, 120_000);
                for actor in &mut self.actors {
                    actor.mood = mood;
                    actor.until = until;
                }
            }
            Action::Edit => {
                let index = self.victim();
                let spec = &mut self.actors[index].spec;
                spec.edition += 1;
                spec.reachable = self.dice.chance(500);
                spec.refresh_interval = self.dice.chance(400).then(|| self.dice.millis(5_000, 10_000));
                // Now and then another provider changes with it.
                if self.dice.chance(300) {
                    let index = self.dice.index(self.actors.len());
                    self.actors[index].spec.edition += 1;
                }
                self.reload();
            }
            Action::LongAbsence => {
                if self.dice.chance(100) {
                    self.harness.stand_still(Duration::from_secs(25 * 60 * 60));
                }
            }
        }
    }

    fn set_stuck(&mut self, stuck: bool) {
        self.stuck = stuck;
        self.harness.set_stuck(stuck);
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
        self.harness.blocked().iter().map(|entry| entry.node.clone()).collect()
    }

    fn change_providers(&mut self) {
        let now = self.harness.now();
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
                let active = self.harness.active();
                self.actors.retain(|actor| Some(&actor.spec.id) != active.as_ref());
            }
            _ if self.actors.len() < PROVIDERS => {
                let name = (0..).map(|n| format!("p{n}")).find(|name| self.actors.iter().all(|a| a.spec.id != *name));
                let actor = Actor::new(&name.unwrap_or_default(), &mut self.dice, now);
                let index = self.dice.index(self.actors.len() + 1);
                self.actors.insert(index, actor);
            }
            _ => {}
        }
        self.reload();
    }

    fn reload(&mut self) {
        let specs: Vec<HarnessProvider> = self.actors.iter().map(|actor| actor.spec.clone()).collect();
        self.harness.reconfigure(specs);
    }
}

fn settings(dice: &mut Dice) -> HarnessSettings {
    let mut failover = FailoverPolicy::default();
    if dice.chance(300) {
        failover.standby = StandbyMode::Cold;
    }
    if dice.chance(300) {
        failover.mass_loss_share = Some(0.3 + 0.1 * dice.below(4) as f64);
    }
    if dice.chance(300) {
        failover.max_stale = Some(dice.millis(5_000, 40_000));
    }
    if dice.chance(200) {
        failover.max_errors = 1 + dice.below(4) as u32;
    }
    let coalesce = if dice.chance(250) { Duration::ZERO } else { Duration::from_millis(100) };
    let local_node = dice.chance(300).then(|| NodeId::new("n0").expect("a valid id"));
    HarnessSettings { failover, coalesce, local_node, seed: dice.below(u64::MAX), ..HarnessSettings::default() }
}

fn plan(dice: &mut Dice) -> Plan {
    let steps = 150 + dice.below(350);
    let drain_at = dice.chance(200).then(|| steps / 2 + dice.below(steps / 2));
    let moods = Mood::FAULTS.iter().copied().filter(|_| dice.chance(600)).collect();
    let actions = Action::ALL.into_iter().filter(|_| dice.chance(600)).collect();
    Plan {
        steps,
        drain_at,
        truth: 20 + dice.below(300),
        fault: 10 + dice.below(80),
        action: 20 + dice.below(200),
        moods,
        actions,
        hurry: dice.below(600),
    }
}
