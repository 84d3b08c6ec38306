//! What the thread runs: a member, or an observer. Both are asked the same.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::membership::applying::Applying;
use crate::membership::event::Event;
use crate::membership::lifecycle::{Effect, Membership};
use crate::membership::machine::{Input, Output, Question};
use crate::membership::message::Unusable;
use crate::membership::observer::{Deed, Observer};
use crate::membership::place::Place;
use crate::membership::settling::TopologyUpdate;
#[cfg(test)]
use crate::topology::Members;

/// See the module.
#[derive(Debug)]
pub(super) enum Resident {
    Member(Box<Membership>),
    Observer(Box<Onlooker>),
}

/// An observer, and whether the host has taken over what it sees: of a member the membership knows that itself.
#[derive(Debug)]
pub(super) struct Onlooker {
    observer: Observer,
    applying: Applying,
    /// What is wanted beside what the observer wants.
    wishes: Vec<Wish>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Wish {
    Send {
        to: Place,
        bytes: Vec<u8>,
    },
    Ask {
        question: Question,
        to: Place,
        bytes: Vec<u8>,
    },
    Answer {
        channel: u64,
        bytes: Vec<u8>,
    },
    Refuse {
        channel: u64,
        why: Unusable,
    },
    LookUp,
    Apply(Arc<TopologyUpdate>),
    Tell(Event),
    /// An observer is told by that member from now on; absent: by nobody.
    Follows(Option<Place>),
}

impl Resident {
    /// Something has arrived, or time has passed. An observer takes answers alone.
    pub(super) fn handle(&mut self, now: Timestamp, input: Input) {
        match (self, input) {
            // Whoever has ended hears nothing.
            (Self::Member(membership), input) => _ = membership.handle(now, input),
            (Self::Observer(onlooker), input) => onlooker.handle(now, input),
        }
    }

    /// All that is to be done now.
    pub(super) fn wishes(&mut self, into: &mut Vec<Wish>) {
        match self {
            Self::Member(membership) => into.extend(std::iter::from_fn(|| membership.effect()).map(of_member)),
            Self::Observer(onlooker) => onlooker.wishes(into),
        }
    }

    /// When it has to be called at the latest.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        match self {
            Self::Member(membership) => membership.next_at(),
            Self::Observer(onlooker) => onlooker.next_at(),
        }
    }

    /// Whether it has come to its end by itself.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Member(membership) if !membership.is_running())
    }

    /// The members as they were announced last.
    #[cfg(test)]
    pub(super) fn members(&self) -> &Members {
        match self {
            Self::Member(membership) => membership.members(),
            Self::Observer(onlooker) => onlooker.observer.members(),
        }
    }

    /// Whether the update of that number could be applied.
    pub(super) fn applied(&mut self, number: u64, result: Result<(), String>, now: Timestamp) {
        match self {
            Self::Member(membership) => membership.applied(number, result, now),
            Self::Observer(onlooker) => onlooker.applied(number, result, now),
        }
    }
}

impl Onlooker {
    pub(super) fn new(observer: Observer) -> Self {
        Self { observer, applying: Applying::default(), wishes: Vec::new() }
    }

    pub(super) fn observer(&self) -> &Observer {
        &self.observer
    }

    fn handle(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Answered { question, answer } => self.observer.answered(question, answer.as_deref(), now),
            Input::Seeds(places) => self.observer.find_seeds(places),
            Input::Time => self.observer.pass(now),
            _ => {}
        }
        self.wishes.extend(self.applying.due(now).map(Wish::Apply));
    }

    fn wishes(&mut self, into: &mut Vec<Wish>) {
        into.append(&mut self.wishes);
        let follows = self.observer.follows().is_some();
        while let Some(deed) = self.observer.deed() {
            into.extend(match deed {
                // Who the members are is asked again, of seeds if need be: their names may mean others by now.
                Deed::Ask { .. } if !follows => Some(Wish::LookUp),
                _ => None,
            });
            into.push(match deed {
                Deed::Ask { question, to, bytes } => Wish::Ask { question, to, bytes },
                Deed::Topology(update) => {
                    let update = Arc::new(update);
                    self.applying.offered(Arc::clone(&update));
                    Wish::Apply(update)
                }
                Deed::Follows { member, .. } => Wish::Follows(Some(member)),
                Deed::Leaves { .. } => Wish::Follows(None),
            });
        }
    }

    fn next_at(&self) -> Option<Timestamp> {
        self.observer.next_at().into_iter().chain(self.applying.next_at()).min()
    }

    fn applied(&mut self, number: u64, result: Result<(), String>, now: Timestamp) {
        match result {
            Ok(()) => self.applying.applied(number),
            Err(why) => {
                let failures = self.applying.failed(number, now);
                let told = failures.map(|failures| Event::NotApplied { at: now, number, failures, why });
                self.wishes.extend(told.map(Wish::Tell));
            }
        }
    }
}

fn of_member(effect: Effect) -> Wish {
    match effect {
        Effect::Do(Output::Send { to, bytes }) => Wish::Send { to, bytes },
        Effect::Do(Output::Ask { question, to, bytes }) => Wish::Ask { question, to, bytes },
        Effect::Do(Output::Answer { channel, bytes }) => Wish::Answer { channel, bytes },
        Effect::Do(Output::Refuse { channel, why }) => Wish::Refuse { channel, why },
        Effect::Do(Output::LookUp) => Wish::LookUp,
        Effect::Do(Output::Event(event)) => Wish::Tell(event),
        Effect::Apply(update) => Wish::Apply(update),
    }
}
