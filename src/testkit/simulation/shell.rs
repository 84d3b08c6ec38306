//! The service without threads.
//!
//! The hub's rounds, its mailbox and the streams' lanes, the roster of the providers and the registrar of the local node
//! are the service's own. What would be threads is played: those of the streams in [`streams`](super::streams), those of
//! the registrations in [`registrations`](super::registrations). The hub takes a round when the run lets it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::registrations::Place;
use super::streams::Streams;
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{EventStream, NoEvent, PlacementGate, ProvisioningEvent};
use crate::failover::SlotKey;
use crate::hub::lifecycle::Phase;
use crate::hub::mailbox::{Mailbox, ProviderOrder, Providers};
use crate::hub::rounds::{Rounds, TickObserver};
use crate::hub::{Input, ProviderWatchHub, Publication, Published, SlotSpec, StreamCommand, Tick, Ticket};
use crate::id::ProviderId;
use crate::service::registrar::RegistrationId;
use crate::service::roster::{Roster, Seat};
use crate::testkit::harness::SetUp;
use crate::testkit::{FakeClock, HarnessProvider, HarnessSettings, Recorded, Recorder};

/// One tick: what went in, and everything that came out of it.
#[derive(Clone, Debug)]
pub(super) struct TracedTick {
    pub(super) at: Timestamp,
    /// Absent where it was only time that passed.
    pub(super) input: Option<Input>,
    /// Whether the input was accepted.
    pub(super) accepted: bool,
    pub(super) events: Vec<ProvisioningEvent>,
    pub(super) calls: Vec<Recorded>,
    pub(super) streams: Vec<StreamCommand>,
    pub(super) state: Arc<Published>,
}

/// Keeps every tick.
struct Trace {
    recorder: Arc<Recorder>,
    publication: Publication,
    now: Timestamp,
    input: Option<Input>,
    ticks: Vec<TracedTick>,
}

impl TickObserver for Trace {
    fn begins(&mut self, input: Option<&Input>, at: Timestamp) {
        self.input = input.cloned();
        self.now = self.now.max(at);
    }

    fn is_through(&mut self, tick: &Tick) {
        self.ticks.push(TracedTick {
            at: self.now,
            input: self.input.take(),
            accepted: tick.reply.is_ok(),
            events: tick.events.clone(),
            calls: self.recorder.take(),
            streams: tick.streams.clone(),
            state: self.publication.load_full(),
        });
    }
}

/// A set of providers that the hub has been ordered to bring into force.
struct Ordered {
    outcome: Receiver<Result<(), ProvisioningError>>,
    registrations: Vec<(RegistrationId, Place)>,
}

/// What became of the commands since they were looked at last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcomes {
    /// How many were given, without those that were refused.
    pub(super) given: usize,
    /// How many of those the hub has answered.
    pub(super) answered: usize,
    /// How many of those were told that the hub has stopped.
    pub(super) stopped: usize,
    /// How many were refused because too many waited.
    pub(super) refused: usize,
}

/// The service. See the module.
pub(super) struct Shell {
    /// Absent when the hub has stopped.
    rounds: Option<Rounds<Streams, Trace>>,
    hub: ProviderWatchHub,
    mailbox: Arc<Mailbox>,
    clock: Arc<FakeClock>,
    recorder: Arc<Recorder>,
    publication: Publication,
    subscription: EventStream<Arc<ProvisioningEvent>>,
    roster: Roster<u64>,
    seats: Vec<Seat<u64>>,
    ordered: Option<Ordered>,
    /// The commands that wait for their outcome.
    commands: Vec<Ticket>,
    outcomes: Outcomes,
    /// The hub's last ticks, when it has stopped.
    last_ticks: Vec<TracedTick>,
}

impl Shell {
    pub(super) fn new(settings: HarnessSettings) -> Self {
        let SetUp { core, dispatcher, publication, clock, recorder, mailbox, hub } = SetUp::new(settings);
        let trace = Trace {
            recorder: Arc::clone(&recorder),
            publication: Arc::clone(&publication),
            now: clock.now(),
            input: None,
            ticks: Vec::new(),
        };
        let subscription = hub.subscribe(16);
        let streams = Streams::new(clock.clone());
        let rounds = Rounds::new(core, dispatcher, Arc::clone(&mailbox), clock.clone(), streams, trace);
        Self {
            rounds: Some(rounds),
            hub,
            mailbox,
            clock,
            recorder,
            publication,
            subscription,
            roster: Roster::new(),
            seats: Vec::new(),
            ordered: None,
            commands: Vec::new(),
            outcomes: Outcomes::default(),
            last_ticks: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn clock(&self) -> &Arc<FakeClock> {
        &self.clock
    }

    pub(super) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    pub(super) fn state(&self) -> Arc<Published> {
        self.publication.load_full()
    }

    /// The gate as the host reads it.
    pub(super) fn gate(&self) -> PlacementGate {
        self.hub.gate()
    }

    pub(super) fn phase(&self) -> Phase {
        self.mailbox.life().phase()
    }

    /// The threads of the streams; none once the hub has stopped.
    pub(super) fn streams(&mut self) -> Option<&mut Streams> {
        self.rounds.as_mut().map(|rounds| &mut rounds.streams)
    }

    /// The key of the provider of that name.
    pub(super) fn key(&self, name: &str) -> Option<SlotKey> {
        self.seats.iter().find(|seat| seat.id.as_str() == name).map(|seat| seat.key)
    }

    /// Gives a command, as the public handle does.
    pub(super) fn send(&mut self, input: Input) {
        let ticket = self.hub.send(input);
        match ticket.wait(Duration::ZERO).map_err(|error| error.code()) {
            Err(ErrorCode::InboxFull) => self.outcomes.refused += 1,
            Err(ErrorCode::Stopped) => {
                self.outcomes.given += 1;
                self.outcomes.stopped += 1;
            }
            _ => {
                self.outcomes.given += 1;
                self.commands.push(ticket);
            }
        }
    }

    /// Orders another set of providers, as a change of the set does. Nothing happens while another is under way, and while
    /// draining. Whether it was ordered.
    pub(super) fn reconfigure(&mut self, providers: &[(HarnessProvider, Place)]) -> bool {
        if self.ordered.is_some() || self.phase() > Phase::Running {
            return false;
        }
        let named = providers.iter().map(|(provider, _)| {
            let id = ProviderId::new(&provider.id).expect("a valid provider id");
            (id, provider.edition)
        });
        self.seats = self.roster.assign(named).to_vec();
        let spec = |(seat, (provider, _)): (&Seat<u64>, &(HarnessProvider, Place))| SlotSpec {
            key: seat.key,
            edition: seat.edition,
            id: seat.id.clone(),
            priority: provider.priority,
            role: provider.role,
            refresh_interval: provider.refresh_interval,
            registers: provider.registers,
            reachable: provider.reachable,
        };
        let specs = self.seats.iter().zip(providers).map(spec).collect();
        let registers = self.seats.iter().zip(providers).filter(|(_, (provider, _))| provider.registers);
        let registrations = registers
            .map(|(seat, (_, place))| (RegistrationId { key: seat.key, edition: seat.edition }, *place))
            .collect();
        let ((reply, outcome), (former, _)) = (bounded(1), bounded(1));
        let order = ProviderOrder { providers: Providers::new(), specs, at: self.now(), reply, former };
        if self.mailbox.order(order).is_ok() {
            self.ordered = Some(Ordered { outcome, registrations });
        }
        true
    }

    /// The registrations that are wanted, once the set that was ordered is in force. While draining nothing is wanted any
    /// more.
    pub(super) fn take_registrations(&mut self) -> Option<Vec<(RegistrationId, Place)>> {
        let ordered = self.ordered.as_ref()?;
        let outcome = ordered.outcome.try_recv();
        let ordered = match outcome {
            Err(crossbeam_channel::TryRecvError::Empty) if self.phase() == Phase::Running => return None,
            _ => self.ordered.take()?,
        };
        (outcome.is_ok() && self.phase() == Phase::Running).then_some(ordered.registrations)
    }

    /// Orders that nothing new is accepted from here on.
    pub(super) fn drain(&mut self) {
        self.mailbox.drain();
    }

    /// Orders that no callback begins any more.
    pub(super) fn stop(&mut self) {
        self.mailbox.stop(Duration::ZERO);
    }

    /// When the hub's next timer is due.
    pub(super) fn next_timeout(&self) -> Timestamp {
        self.rounds.as_ref().map_or(Timestamp::from_nanos(u64::MAX), |rounds| rounds.core.next_timeout())
    }

    /// The hub takes what waits, and what that leads to. Whether it goes on.
    pub(super) fn round(&mut self) -> bool {
        let Some(rounds) = &mut self.rounds else { return false };
        // What a tick ordered of the streams may already have led to their ends.
        loop {
            let ticks = rounds.observer.ticks.len();
            if rounds.round().is_none() {
                if let Some(mut rounds) = self.rounds.take() {
                    self.last_ticks = std::mem::take(&mut rounds.observer.ticks);
                    rounds.end();
                }
                return false;
            }
            if rounds.observer.ticks.len() == ticks {
                return true;
            }
        }
    }

    /// The ticks since the last call of this.
    pub(super) fn take_ticks(&mut self) -> Vec<TracedTick> {
        let ticks = self.rounds.as_mut().map_or(&mut self.last_ticks, |rounds| &mut rounds.observer.ticks);
        std::mem::take(ticks)
    }

    /// What became of the commands since the last call of this.
    pub(super) fn take_outcomes(&mut self) -> Outcomes {
        let outcomes = &mut self.outcomes;
        self.commands.retain(|ticket| {
            match ticket.wait(Duration::ZERO).map_err(|error| error.code()) {
                Err(ErrorCode::WaitTimedOut) => return true,
                Err(ErrorCode::Stopped) => outcomes.stopped += 1,
                _ => outcomes.answered += 1,
            }
            false
        });
        std::mem::take(outcomes)
    }

    /// Whether everyone has been told that the hub has stopped: the state says so, the gate is closed, and subscriptions
    /// have ended.
    pub(super) fn has_told_its_end(&mut self) -> bool {
        let ended = loop {
            match self.subscription.recv_timeout(Duration::ZERO) {
                Ok(_) | Err(NoEvent::Lagged(_)) => {}
                Err(NoEvent::Closed) => break true,
                Err(NoEvent::Nothing) => break false,
            }
        };
        ended && self.state().stopped && !self.gate().is_open() && self.rounds.is_none()
    }
}
