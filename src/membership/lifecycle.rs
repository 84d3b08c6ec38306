//! The membership of one node from its start to its end: what may be asked of it when, what it counts, and what of it the
//! host has applied.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::applying::Applying;
use super::event::Event;
use super::machine::{Input, Machine, Order, Output};
use super::metrics::GossipMetrics;
use super::outbox::Outbox;
use super::place::Place;
use super::quarantine::Quarantined;
use super::rulings::MOST;
use super::settings::Settings;
use super::settling::TopologyUpdate;
use super::table::Refused;
use super::wire::{ROOM, fits};
use crate::clock::Timestamp;
use crate::topology::{ClusterNode, Members, NodeId};

/// Why something is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDone {
    /// The membership has not been started, or has been stopped.
    NotStarted,
    /// It runs already.
    AlreadyStarted,
    /// Nothing is counted.
    MetricsDisabled,
    /// The kinds and metadata of the node have no room in a record.
    TooLarge,
    /// There are as many rulings as there may be.
    TooManyRulings,
    /// The incarnation is beyond what anybody could contradict.
    Incarnation,
}

impl NotDone {
    /// Its stable name.
    #[cfg(test)]
    pub(crate) fn code(self) -> &'static str {
        match self {
            NotDone::NotStarted => "not-started",
            NotDone::AlreadyStarted => "already-started",
            NotDone::MetricsDisabled => "metrics-disabled",
            NotDone::TooLarge => "metadata-too-large",
            NotDone::TooManyRulings => "too-many-rulings",
            NotDone::Incarnation => "incarnation-too-great",
        }
    }
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotDone::NotStarted => f.write_str("the membership is not started: start it first"),
            NotDone::AlreadyStarted => f.write_str("the membership runs already: stop it first"),
            NotDone::MetricsDisabled => f.write_str("the membership counts nothing: enable its metrics"),
            NotDone::TooLarge => write!(f, "kinds and metadata of a node may have {ROOM} bytes together: shorten them"),
            NotDone::TooManyRulings => {
                write!(f, "there are rulings about {MOST} ids already: overrule one of those, or let them be")
            }
            NotDone::Incarnation => f.write_str("an incarnation may be 2^62 at the most: start with a lower one"),
        }
    }
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// What the member wants.
    Do(Output),
    /// Apply the topology, and say whether that succeeded. The same update may be offered again.
    Apply(Arc<TopologyUpdate>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Membership {
    settings: Settings,
    machine: Option<Machine>,
    applying: Applying,
    metrics: Option<GossipMetrics>,
    /// As they were announced last, also after the end.
    members: Members,
    quarantined: Vec<Quarantined>,
    effects: Outbox<Effect>,
}

impl Membership {
    /// One that is not started. `counts`: whether there are metrics.
    pub(super) fn new(settings: Settings, counts: bool) -> Self {
        Self {
            settings,
            machine: None,
            applying: Applying::default(),
            metrics: counts.then(GossipMetrics::default),
            members: Members::new(),
            quarantined: Vec::new(),
            effects: Outbox::default(),
        }
    }

    /// The node, whose membership is reached on that port, asks the seeds to be let in; it is the first member where it is a
    /// seed itself, or there is none. `seed`: of all randomness. It may be started again after its end.
    ///
    /// # Errors
    /// [`NotDone::AlreadyStarted`], [`NotDone::TooLarge`] or [`NotDone::Incarnation`]; then nothing has changed.
    pub(super) fn start(
        &mut self,
        (node, gossip_port): (Arc<ClusterNode>, u16),
        seeds: Vec<Place>,
        seed: u64,
        now: Timestamp,
    ) -> Result<(), NotDone> {
        if self.machine.is_some() {
            return Err(NotDone::AlreadyStarted);
        }
        if !fits(&node) {
            return Err(NotDone::TooLarge);
        }
        let machine = Machine::new(self.settings.clone(), (node, gossip_port), seeds, seed, now);
        self.machine = Some(machine.ok_or(NotDone::Incarnation)?);
        self.applying = Applying::default();
        self.metrics = self.metrics.take().map(|_| GossipMetrics::default());
        self.members = Members::new();
        self.collect(now);
        Ok(())
    }

    /// Something arrives, or time has passed.
    ///
    /// # Errors
    /// [`NotDone::NotStarted`].
    pub(super) fn handle(&mut self, now: Timestamp, input: Input) -> Result<(), NotDone> {
        let machine = self.machine.as_mut().ok_or(NotDone::NotStarted)?;
        machine.handle(now, input);
        if let Some(update) = self.applying.due(now) {
            self.effects.put(Effect::Apply(update));
        }
        self.collect(now);
        Ok(())
    }

    /// The node leaves: some are told, and [`is_running`](Self::is_running) is false when one has noted it, after a second at
    /// the latest.
    ///
    /// # Errors
    /// [`NotDone::NotStarted`].
    pub(super) fn stop(&mut self, now: Timestamp) -> Result<(), NotDone> {
        self.handle(now, Input::Leave)
    }

    /// The node's kinds and metadata are those of `node` from now on; what else `node` says does not count.
    ///
    /// # Errors
    /// [`NotDone::NotStarted`] or [`NotDone::TooLarge`].
    pub(super) fn describe(&mut self, node: Arc<ClusterNode>, now: Timestamp) -> Result<(), NotDone> {
        match fits(&node) || self.machine.is_none() {
            true => self.handle(now, Input::Describe(node)),
            false => Err(NotDone::TooLarge),
        }
    }

    /// Nobody lets that node in, for so long or until it is lifted. A member stays one until it is gone.
    ///
    /// # Errors
    /// [`NotDone::NotStarted`] or [`NotDone::TooManyRulings`].
    pub(super) fn pin(&mut self, id: NodeId, length: Option<Duration>, now: Timestamp) -> Result<(), NotDone> {
        self.rule(id, Order::Pin(length), now)
    }

    /// That node may come in again at once.
    ///
    /// # Errors
    /// [`NotDone::NotStarted`] or [`NotDone::TooManyRulings`].
    pub(super) fn lift(&mut self, id: NodeId, now: Timestamp) -> Result<(), NotDone> {
        self.rule(id, Order::Lift, now)
    }

    fn rule(&mut self, id: NodeId, order: Order, now: Timestamp) -> Result<(), NotDone> {
        let machine = self.machine.as_ref().ok_or(NotDone::NotStarted)?;
        match machine.table().rulings().has_room(&id) {
            true => self.handle(now, Input::Rule { id, order }),
            false => Err(NotDone::TooManyRulings),
        }
    }

    /// Whether the host could apply the update of that number, or why not.
    pub(super) fn applied(&mut self, number: u64, result: Result<(), String>, now: Timestamp) {
        match result {
            Ok(()) => self.applying.applied(number),
            Err(why) => {
                if let Some(failures) = self.applying.failed(number, now) {
                    self.tell(Event::NotApplied { at: now, number, failures, why });
                }
            }
        }
    }

    /// Whether it has been started and has not ended.
    pub(super) fn is_running(&self) -> bool {
        self.machine.is_some()
    }

    /// The members as they were announced last: at any time, also before the start and after the end.
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Everybody who would not be let in now, in the order of the ids: at any time. After the end as it was then.
    pub(super) fn quarantined(&self, now: Timestamp) -> Vec<Quarantined> {
        match &self.machine {
            Some(machine) => machine.quarantined(now),
            None => self.quarantined.clone(),
        }
    }

    /// Since when all members are known to hold the same; absent while they are not.
    pub(super) fn converged(&self) -> Option<Timestamp> {
        self.machine.as_ref()?.converged()
    }

    /// What was counted since the start.
    ///
    /// # Errors
    /// [`NotDone::MetricsDisabled`], every time.
    pub(super) fn metrics(&self) -> Result<GossipMetrics, NotDone> {
        let counted = self.metrics.clone().ok_or(NotDone::MetricsDisabled)?;
        let refused_transitions = self.machine.as_ref().map_or(0, |machine| machine.table().refused().1);
        Ok(GossipMetrics { refused_transitions, ..counted })
    }

    /// The transitions that were refused last, the oldest first; none while it does not run.
    pub(super) fn refused(&self) -> Vec<Refused> {
        self.machine.as_ref().map_or_else(Vec::new, |machine| machine.table().refused().0.cloned().collect())
    }

    /// The member itself, while it runs.
    pub(super) fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// The next thing to be done.
    pub(super) fn effect(&mut self) -> Option<Effect> {
        self.effects.take()
    }

    /// When it has to be called at the latest; never while it does not run.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        let machine = self.machine.as_ref()?.next_at();
        Some(self.applying.next_at().map_or(machine, |again| machine.min(again)))
    }

    /// Takes over what the machine wants.
    fn collect(&mut self, now: Timestamp) {
        while let Some(output) = self.machine.as_mut().and_then(Machine::output) {
            match output {
                Output::Event(Event::Topology(update)) => {
                    self.members = update.members.clone();
                    self.applying.offered(update.clone());
                    self.tell(Event::Topology(update.clone()));
                    self.effects.put(Effect::Apply(update));
                }
                Output::Event(event) => self.tell(event),
                output => {
                    if let Some(metrics) = &mut self.metrics {
                        metrics.sent(&output);
                    }
                    self.effects.put(Effect::Do(output));
                }
            }
        }
        if let Some(machine) = self.machine.take_if(|machine| machine.has_left()) {
            self.quarantined = machine.quarantined(now);
        }
    }

    fn tell(&mut self, event: Event) {
        if let Some(metrics) = &mut self.metrics {
            metrics.count(&event);
        }
        self.effects.put(Effect::Do(Output::Event(event)));
    }
}

#[cfg(test)]
mod tests;
