//! What the thread runs: a member, or an observer. Both are asked the same.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::membership::event::Event;
use crate::membership::lifecycle::{Effect, Membership};
use crate::membership::machine::{Input, Output, Question};
use crate::membership::message::Unusable;
use crate::membership::observer::{self, Observer};
use crate::membership::place::Place;
use crate::membership::settling::TopologyUpdate;
#[cfg(test)]
use crate::topology::Members;

/// See the module.
#[derive(Debug)]
pub(super) enum Resident {
    Member(Box<Membership>),
    Observer(Box<Observer>),
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
            (Self::Observer(observer), Input::Answered { question, answer }) => {
                observer.answered(question, answer.as_deref(), now);
            }
            (Self::Observer(observer), Input::Seeds(places)) => observer.find_seeds(places),
            (Self::Observer(observer), Input::Time) => observer.pass(now),
            (Self::Observer(_), _) => {}
        }
    }

    /// All that is to be done now.
    pub(super) fn wishes(&mut self, into: &mut Vec<Wish>) {
        match self {
            Self::Member(membership) => into.extend(std::iter::from_fn(|| membership.effect()).map(of_member)),
            Self::Observer(observer) => {
                let follows = observer.follows().is_some();
                while let Some(deed) = observer.deed() {
                    // Who the members are is asked again, of seeds if need be: their names may mean others by now.
                    if matches!(deed, observer::Deed::Ask { .. }) && !follows {
                        into.push(Wish::LookUp);
                    }
                    into.push(of_observer(deed));
                }
            }
        }
    }

    /// When it has to be called at the latest.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        match self {
            Self::Member(membership) => membership.next_at(),
            Self::Observer(observer) => observer.next_at(),
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
            Self::Observer(observer) => observer.members(),
        }
    }

    /// Whether the update of that number could be applied.
    pub(super) fn applied(&mut self, number: u64, result: Result<(), String>, now: Timestamp) {
        if let Self::Member(membership) = self {
            membership.applied(number, result, now);
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

fn of_observer(deed: observer::Deed) -> Wish {
    match deed {
        observer::Deed::Ask { question, to, bytes } => Wish::Ask { question, to, bytes },
        observer::Deed::Topology(update) => Wish::Apply(Arc::new(update)),
        observer::Deed::Follows { member, .. } => Wish::Follows(Some(member)),
        observer::Deed::Leaves { .. } => Wish::Follows(None),
    }
}
