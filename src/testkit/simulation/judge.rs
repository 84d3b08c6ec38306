//! Everyone who looks at a run: the model, the checkers, and the count of what happened.

use std::collections::VecDeque;

use super::checkers::{self, Checker, LANES, LIVENESS, Lanes, ORDERS, Orders, REGISTRATION, Registration};
use super::model::Model;
#[cfg(test)]
use super::planted::PlantedBug;
use super::registrations::{RegistrationAct, Registrations};
use super::shell::{Shell, TracedTick};
use super::transitions::{Counter, Transition, Transitions};
use crate::clock::Timestamp;
use crate::testkit::HarnessSettings;
use crate::topology::Members;

/// How many ticks, and how much else of what happened, a failure tells of.
const KEPT_TICKS: usize = 25;
const KEPT_ACTS: usize = 40;

/// Objections, by the names of their checkers.
pub(super) type Objections = Vec<(&'static str, String)>;

/// See the module.
pub(super) struct Judge {
    model: Model,
    checkers: Vec<Box<dyn Checker>>,
    lanes: Lanes,
    registration: Registration,
    orders: Orders,
    counter: Counter,
    last: VecDeque<TracedTick>,
    acts: VecDeque<(Timestamp, RegistrationAct)>,
    ticks: u64,
    deliveries: u64,
    #[cfg(test)]
    planted: Option<PlantedBug>,
}

impl Judge {
    pub(super) fn new(settings: HarnessSettings, now: Timestamp, #[cfg(test)] planted: Option<PlantedBug>) -> Self {
        Self {
            model: Model::new(settings, now),
            checkers: checkers::all(),
            lanes: Lanes::default(),
            registration: Registration::default(),
            orders: Orders::default(),
            counter: Counter::default(),
            last: VecDeque::new(),
            acts: VecDeque::new(),
            ticks: 0,
            deliveries: 0,
            #[cfg(test)]
            planted,
        }
    }

    /// How many ticks were judged.
    pub(super) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// How many deliveries were judged.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// What happened.
    pub(super) fn into_counts(self) -> Transitions {
        self.counter.counts
    }

    /// Something happened that no tick tells of.
    pub(super) fn count(&mut self, transition: Transition) {
        self.counter.counts.add(transition, 1);
    }

    /// Draining was ordered.
    pub(super) fn drained(&mut self) {
        self.orders.drained();
    }

    /// Stopping was ordered.
    pub(super) fn stopped(&mut self) {
        self.orders.stopped();
    }

    /// The last ticks, the latest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = &TracedTick> {
        self.last.iter().rev()
    }

    /// Judges what happened since the last call. `through`: the hub has taken all that waited.
    pub(super) fn look(&mut self, shell: &mut Shell, through: bool) -> Result<(), Objections> {
        let stuck = shell.streams().is_some_and(|streams| streams.is_stuck());
        #[cfg_attr(not(test), allow(unused_mut))]
        let mut acts = shell.streams().map(|streams| streams.take_acts()).unwrap_or_default();
        #[cfg(test)]
        self.planted.iter().for_each(|bug| bug.spoil_streams(&mut acts));
        for act in acts {
            self.counter.count_stream(&act);
            self.lanes.take_act(&act).map_err(|objection| vec![(LANES, objection)])?;
        }
        for tick in shell.take_ticks() {
            self.judge(tick, stuck)?;
        }
        if through {
            self.counter.count_folded();
        }
        if through && shell.streams().is_some() {
            self.lanes.check().map_err(|objection| vec![(LANES, objection)])?;
        }
        #[cfg_attr(not(test), allow(unused_mut))]
        let (mut outcomes, mut gate) = (shell.take_outcomes(), shell.gate());
        #[cfg(test)]
        self.planted.iter().for_each(|bug| bug.spoil_orders(&mut outcomes, &mut gate));
        self.counter.count_commands(outcomes);
        self.orders.check(outcomes, gate, through).map_err(|objection| vec![(ORDERS, objection)])
    }

    /// Judges what happened to the registrations since the last call.
    pub(super) fn look_at(&mut self, registrations: &mut Registrations) -> Result<(), Objections> {
        #[cfg_attr(not(test), allow(unused_mut))]
        let mut acts = registrations.take_acts();
        #[cfg(test)]
        self.planted.iter().for_each(|bug| bug.spoil_registrations(&mut acts));
        for (at, act) in acts {
            self.counter.count_registration(&act);
            let judged = self.registration.check(at, &act);
            if self.acts.len() == KEPT_ACTS {
                self.acts.pop_front();
            }
            self.acts.push_back((at, act));
            judged.map_err(|objection| vec![(REGISTRATION, objection)])?;
        }
        Ok(())
    }

    /// Judges what has come about when all faults have been over for a while.
    pub(super) fn look_at_the_end(&self, shell: &Shell, truth: &Members) -> Result<(), Objections> {
        let state = shell.state();
        #[cfg(test)]
        let state = self.planted.map_or(state.clone(), |bug| bug.spoil_end(&state));
        checkers::check_liveness(&self.model, &state, truth).map_err(|objection| vec![(LIVENESS, objection)])
    }

    /// Judges what has become of the registrations when all faults have been over for a while.
    pub(super) fn look_at_the_end_of(&self, registrations: &Registrations) -> Result<(), Objections> {
        #[cfg_attr(not(test), allow(unused_mut))]
        let mut held = registrations.held();
        #[cfg(test)]
        self.planted.iter().for_each(|bug| bug.spoil_held(&mut held));
        let outcome = self.registration.check_end_of_run(&held, registrations.is_over());
        outcome.map_err(|objection| vec![(REGISTRATION, objection)])
    }

    /// Judges the end of a hub that was told to stop.
    pub(super) fn look_at_the_stop(&self, shell: &mut Shell) -> Result<(), Objections> {
        #[cfg_attr(not(test), allow(unused_mut))]
        let (mut told, mut calls) = (shell.has_told_its_end(), shell.recorder().take().len());
        #[cfg(test)]
        self.planted.iter().for_each(|bug| bug.spoil_stop(&mut told, &mut calls));
        self.orders.check_end(told, calls).map_err(|objection| vec![(ORDERS, objection)])
    }

    /// The last ticks and what else happened, in words.
    pub(super) fn account(&self) -> Vec<String> {
        let mut account = vec![format!("settings: {:?}", self.model.settings)];
        account.extend(self.acts.iter().map(|(at, act)| format!("{at:?} {act:?}")));
        for tick in &self.last {
            account.push(format!("{:?} {:?} accepted: {}", tick.at, tick.input, tick.accepted));
            account.extend(tick.events.iter().map(|event| format!("    {event:?}")));
            account.extend(tick.streams.iter().map(|command| format!("    {command:?}")));
        }
        account
    }

    #[cfg_attr(not(test), allow(unused_mut))]
    fn judge(&mut self, mut tick: TracedTick, stuck: bool) -> Result<(), Objections> {
        let lanes = self.lanes.take_tick(&tick).map_err(|objection| vec![(LANES, objection)]);
        self.model.begin(&tick);
        #[cfg(test)]
        if let Some(bug) = &self.planted {
            bug.spoil(&self.model, &mut tick);
        }
        let model = &self.model;
        let judged =
            self.checkers.iter_mut().filter_map(|checker| Some((checker.name(), checker.check(model, &tick).err()?)));
        let objections: Objections = judged.collect();
        self.counter.count(&self.model, &tick, stuck);
        self.model.end(&tick);
        self.ticks += 1;
        self.deliveries += tick.events.len() as u64;
        let orders = self.orders.check_tick(&tick).map_err(|objection| vec![(ORDERS, objection)]);
        if self.last.len() == KEPT_TICKS {
            self.last.pop_front();
        }
        self.last.push_back(tick);
        lanes?;
        orders?;
        if objections.is_empty() { Ok(()) } else { Err(objections) }
    }
}
