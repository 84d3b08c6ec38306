//! One run: what happens, in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::dice::Dice;
use super::judge::{Judge, Objections};
use super::plan::{self, Action, PROVIDERS, Plan};
use super::registrations::Registrations;
use super::shell::Shell;
use super::transitions::Transition;
use super::world::{Actor, Local, Truth};
use super::{Failure, Report, Simulation, placement};
use crate::clock::Timestamp;
use crate::hub::Input;
use crate::hub::lifecycle::Phase;
use crate::testkit::BridgeKind;
use crate::topology::Members;

/// How long everything has to come right after the last fault.
const QUIET: Duration = Duration::from_secs(180);

/// A run under way.
pub(super) struct Run {
    simulation: Simulation,
    pub(super) dice: Dice,
    plan: Plan,
    pub(super) truth: Truth,
    pub(super) actors: Vec<Actor>,
    pub(super) local: Local,
    pub(super) shell: Shell,
    /// In member mode, where the service registers the local node.
    pub(super) registrations: Option<Registrations>,
    /// Until when the hub is inside a callback.
    pub(super) busy_until: Timestamp,
    /// The actors are not in force as they are.
    is_changed: bool,
    /// How long the next callback takes, in milliseconds.
    pub(super) slow_callback: Arc<AtomicU64>,
    pub(super) judge: Judge,
    step: u64,
}

impl Run {
    pub(super) fn new(simulation: Simulation) -> Self {
        let mut dice = Dice::new(simulation.seed);
        let (settings, member) = plan::settings(&mut dice);
        let local = Local { id: settings.local_node.clone(), ..Local::default() };
        let shell = Shell::new(settings.clone());
        shell.recorder().place(placement);
        let now = shell.now();
        let truth = Truth::new(&mut dice, now);
        let actors = (0..2 + dice.index(PROVIDERS - 1)).map(|n| Actor::new(n, &mut dice, now)).collect();
        let slow_callback = Arc::new(AtomicU64::new(0));
        let (slow, clock) = (Arc::clone(&slow_callback), Arc::clone(shell.clock()));
        shell.recorder().on_call(move |_| clock.advance(Duration::from_millis(slow.swap(0, Ordering::Relaxed))));
        Self {
            plan: plan::plan(&mut dice),
            registrations: member.then(|| Registrations::new(dice.below(u64::MAX), now)),
            judge: Judge::new(
                settings,
                now,
                #[cfg(test)]
                simulation.planted,
            ),
            simulation,
            dice,
            truth,
            actors,
            local,
            shell,
            busy_until: now,
            is_changed: false,
            slow_callback,
            step: 0,
        }
    }

    pub(super) fn run(mut self) -> Report {
        let failure = self.live().err().map(|objections| self.failure(objections));
        Report {
            seed: self.simulation.seed,
            steps: self.step,
            ticks: self.judge.ticks(),
            deliveries: self.judge.deliveries(),
            transitions: self.judge.into_counts(),
            failure,
        }
    }

    fn live(&mut self) -> Result<(), Objections> {
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
                self.truth.happen(&mut self.dice, self.shell.now());
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
                if self.dice.chance(200) {
                    self.act(Action::Busy);
                }
                self.drain();
                self.observe()?;
            }
        }
        if self.plan.stops { self.stop() } else { self.come_right() }
    }

    /// Lets time pass, and lets whoever has something to say say it.
    pub(super) fn pass(&mut self, pause: Duration) -> Result<(), Objections> {
        let end = self.shell.now() + pause;
        if !self.is_busy() {
            while self.shell.next_timeout() <= end {
                let next = self.shell.next_timeout();
                self.shell.clock().advance_to(next);
                self.shell.round();
                self.observe_through()?;
            }
        }
        self.shell.clock().advance_to(end);
        if let Some(streams) = self.shell.streams() {
            streams.go_on();
        }
        if self.is_changed {
            self.reload();
        }
        for index in 0..self.actors.len() {
            self.report(index);
            self.observe()?;
        }
        self.observe()
    }

    /// Whether the hub is inside a callback.
    fn is_busy(&self) -> bool {
        self.busy_until > self.shell.now()
    }

    /// The provider says what it has to say, if its thread can. Whether it said anything.
    pub(super) fn report(&mut self, index: usize) -> bool {
        let now = self.shell.now();
        let actor = &mut self.actors[index];
        let Some(key) = self.shell.key(&actor.spec.id) else { return false };
        let Some(streams) = self.shell.streams() else { return false };
        let Some(generation) = streams.running(key).filter(|_| !streams.is_waiting(key)) else { return false };
        let event = actor.report(generation, &self.truth, &self.local, &mut self.dice, now);
        event.is_some_and(|event| streams.report(key, event))
    }

    /// The faults are over, and after some time everything must be as it should be.
    fn come_right(&mut self) -> Result<(), Objections> {
        let now = self.shell.now();
        self.busy_until = now;
        self.plan.lateness = 0;
        self.slow_callback.store(0, Ordering::Relaxed);
        if let Some(streams) = self.shell.streams() {
            streams.refuse(0);
            streams.set_lag(Some(Duration::ZERO));
            streams.release();
        }
        for actor in &mut self.actors {
            actor.until = now;
        }
        if let Some(registrations) = &mut self.registrations {
            registrations.recover();
        }
        for bridge in [BridgeKind::PlacementSupervisor, BridgeKind::PartitionManager, BridgeKind::Remoting] {
            self.shell.recorder().panic_next(bridge, 0);
        }
        self.observe()?;
        while self.shell.now().since(now) < QUIET {
            self.step += 1;
            let pause = self.dice.millis(300, 1_200);
            self.pass(pause)?;
        }
        self.judge.look_at_the_end(&self.shell, &self.visible_truth())?;
        match &self.registrations {
            Some(registrations) => self.judge.look_at_the_end_of(registrations),
            None => Ok(()),
        }
    }

    /// The members that every provider has to show.
    fn visible_truth(&self) -> Members {
        let mut truth = self.truth.members.clone();
        if self.registrations.is_some() && self.actors.iter().any(|actor| actor.spec.registers) {
            truth.insert(Local::node());
        }
        truth
    }

    /// The service is told to stop, whatever waits.
    fn stop(&mut self) -> Result<(), Objections> {
        self.drain();
        self.observe()?;
        for _ in 0..self.dice.below(4) {
            let pause = self.dice.millis(0, 500);
            self.pass(pause)?;
        }
        if self.dice.chance(500) {
            self.act(Action::Busy);
        }
        self.act(Action::Commands);
        self.shell.stop();
        self.judge.stopped();
        self.judge.count(if self.is_busy() { Transition::StopWhileBusy } else { Transition::Stop });
        self.observe()?;
        self.busy_until = self.shell.now();
        for index in 0..self.actors.len() {
            self.report(index);
        }
        self.shell.round();
        self.shell.send(Input::Unpin);
        self.observe_through()?;
        self.judge.look_at_the_stop(&mut self.shell)
    }

    pub(super) fn drain(&mut self) {
        if self.shell.phase() > Phase::Running {
            return;
        }
        if self.is_busy() {
            self.judge.count(Transition::DrainWhileBusy);
        }
        self.shell.drain();
        self.judge.drained();
        if let Some(registrations) = &mut self.registrations {
            registrations.advance_to(self.shell.now());
            registrations.drain();
        }
    }

    /// The hub takes what waits, unless it is inside a callback or does not get to it yet; then everyone judges.
    pub(super) fn observe(&mut self) -> Result<(), Objections> {
        if self.is_busy() || self.dice.chance(self.plan.lateness) {
            return self.judge(false);
        }
        self.shell.round();
        self.observe_through()
    }

    /// Everyone judges what happened; the hub has taken what waited.
    fn observe_through(&mut self) -> Result<(), Objections> {
        self.judge(true)
    }

    fn judge(&mut self, through: bool) -> Result<(), Objections> {
        self.judge.look(&mut self.shell, through)?;
        let wanted = self.shell.take_registrations();
        let Some(registrations) = &mut self.registrations else { return Ok(()) };
        registrations.advance_to(self.shell.now());
        if let Some(wanted) = wanted {
            registrations.follow(wanted);
            registrations.advance_to(self.shell.now());
        }
        self.local.shown = (0..PROVIDERS).filter(|backend| registrations.is_shown(*backend)).collect();
        self.judge.look_at(registrations)
    }

    fn failure(&self, objections: Objections) -> Failure {
        Failure { seed: self.simulation.seed, step: self.step, objections, last: self.judge.account() }
    }

    fn fall_ill(&mut self) {
        let now = self.shell.now();
        let lasting = self.dice.millis(500, 45_000);
        let index = self.victim();
        if self.dice.chance(300)
            && let Some(registrations) = &mut self.registrations
        {
            let backend = self.actors[index].place.backend;
            match self.dice.chance(200) {
                true => registrations.forget(backend),
                false => registrations.fall_ill(backend, lasting),
            }
            return;
        }
        let Some(mood) = self.dice.pick(&self.plan.moods).copied() else { return };
        let actor = &mut self.actors[index];
        actor.mood = mood;
        actor.until = now + lasting;
        actor.next_report = now;
    }

    /// Half of the time the provider followed, else any.
    pub(super) fn victim(&mut self) -> usize {
        let active = self.active();
        let followed = self.actors.iter().position(|actor| Some(&actor.spec.id) == active.as_ref());
        match followed {
            Some(index) if self.dice.chance(500) => index,
            _ => self.dice.index(self.actors.len()),
        }
    }

    /// The name of the provider followed.
    pub(super) fn active(&self) -> Option<String> {
        self.shell.state().providers.iter().find(|status| status.active).map(|status| status.id.to_string())
    }

    /// Brings the actors into force; later, if another change is under way.
    pub(super) fn reload(&mut self) {
        let specs: Vec<_> = self.actors.iter().map(|actor| (actor.spec.clone(), actor.place)).collect();
        self.is_changed = !self.shell.reconfigure(&specs);
    }
}
