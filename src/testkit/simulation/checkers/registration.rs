//! What must hold of the local node's registrations.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::ensure;
use crate::clock::Timestamp;
use crate::error::ErrorCode;
use crate::service::registrar::{RegistrationId, Step};
use crate::testkit::simulation::registrations::{BUDGET, Place, RegistrationAct};

/// The name by which a failure is reported.
pub(in super::super) const REGISTRATION: &str = "registration";

/// Within this time a registration asks its backend at most [`MOST`] times: of one that wants no pause at all the pauses
/// double from 10 ms to a second, and begin again with each that is lost.
const WINDOW: Duration = Duration::from_secs(10);
const MOST: usize = 40;
/// For so long a removed provider's backend is asked again to deregister the node.
const FAREWELL: Duration = Duration::from_secs(300);
/// When draining, no attempt is made any more once the budget would be over before it.
const LAST_PAUSE: Duration = Duration::from_millis(400);

#[derive(Clone, Debug)]
struct Known {
    place: Place,
    /// Something was sent from which the node may be registered there.
    sent: bool,
    /// The same, before the request that is under way.
    sent_before: bool,
    /// It was told that the node is registered, and the backend has not lost it since.
    joined: bool,
    /// A deregistration has been carried out, or nothing is known of anything that was sent.
    left: bool,
    /// Why the last deregistration failed.
    failed: Option<ErrorCode>,
    letting_go: bool,
    /// The node was described anew since it was asked to register it.
    outdated: bool,
    unwanted_since: Option<Timestamp>,
    asked: VecDeque<Timestamp>,
}

/// Whatever may be registered is deregistered, nothing else is, an edit lets nobody see the node leave, no backend is
/// asked without end, and what is renewed describes the node as it is.
#[derive(Default)]
pub(in super::super) struct Registration {
    known: BTreeMap<RegistrationId, Known>,
    wanted: BTreeSet<RegistrationId>,
    /// Those that are no longer wanted and were never asked for anything: whether they had workers is not known.
    never_asked: BTreeSet<RegistrationId>,
    draining_since: Option<Timestamp>,
}

impl Registration {
    /// Judges what happened.
    pub(in super::super) fn check(&mut self, at: Timestamp, act: &RegistrationAct) -> Result<(), String> {
        match act {
            RegistrationAct::Wanted(wanted) => self.take_wanted(wanted, at),
            RegistrationAct::Drained => {
                self.draining_since = self.draining_since.or(Some(at));
                self.wanted.clear();
            }
            RegistrationAct::Rested { id, until } => ensure!(*until > at, "{id:?} rests until the past"),
            RegistrationAct::Asked { id, step } => return self.check_asked(*id, *step, at),
            RegistrationAct::Executed { id, step: Step::Leave | Step::Retire } => return self.check_left(*id),
            RegistrationAct::Answered { id, step, error } => self.take_answer(*id, *step, *error),
            RegistrationAct::Lost { place } => {
                for known in self.known.values_mut().filter(|known| known.place == *place) {
                    known.joined = false;
                }
            }
            RegistrationAct::Described => {
                self.known.values_mut().for_each(|known| known.outdated = known.sent);
            }
            RegistrationAct::Ended { id } => return self.check_end(*id, at),
            RegistrationAct::Executed { .. } | RegistrationAct::WorkerRefused | RegistrationAct::BrokenOff => {}
        }
        Ok(())
    }

    /// What must have come about some time after the last fault, given what the backends hold.
    pub(in super::super) fn check_end_of_run(&self, held: &[Place], is_over: bool) -> Result<(), String> {
        if self.draining_since.is_some() {
            ensure!(is_over, "not everything was let go of: {:?}", self.known);
            ensure!(held.is_empty(), "still registered: {held:?}");
        }
        for id in &self.wanted {
            let place = self.known.get(id).map(|known| known.place);
            ensure!(place.is_some_and(|place| held.contains(&place)), "{id:?} is not registered: {:?}", self.known);
        }
        let surplus = self.known.keys().find(|id| !self.wanted.contains(id));
        ensure!(surplus.is_none() || self.draining_since.is_some(), "{surplus:?} has not come to its end");
        Ok(())
    }

    fn take_wanted(&mut self, wanted: &[(RegistrationId, Place)], at: Timestamp) {
        self.wanted = wanted.iter().map(|(id, _)| *id).collect();
        for (id, place) in wanted {
            self.known.entry(*id).or_insert_with(|| Known {
                place: *place,
                sent: false,
                sent_before: false,
                joined: false,
                left: false,
                failed: None,
                letting_go: false,
                outdated: false,
                unwanted_since: None,
                asked: VecDeque::new(),
            });
        }
        // Those whose workers never were end without a word.
        let wanted = &self.wanted;
        for (_, known) in self.known.iter_mut().filter(|(id, _)| !wanted.contains(id)) {
            known.unwanted_since = known.unwanted_since.or(Some(at));
        }
        let never_asked = |(id, known): &(&RegistrationId, &Known)| !wanted.contains(id) && known.asked.is_empty();
        self.never_asked.extend(self.known.iter().filter(never_asked).map(|(id, _)| *id));
        self.known.retain(|id, _| !self.never_asked.contains(id));
    }

    /// Whether a definition of that provider is wanted.
    fn is_key_wanted(&self, id: RegistrationId) -> bool {
        self.wanted.iter().any(|wanted| wanted.key == id.key)
    }

    /// Whether each of those is of the same kind that were defined later and may hold the node. They may be former ones, too,
    /// which are kept alive until the one that is wanted holds it.
    fn successors(&self, id: RegistrationId) -> impl Iterator<Item = bool> {
        let place = self.known.get(&id).map(|known| known.place);
        let later = self.known.iter().filter(move |(other, known)| {
            other.key == id.key && other.edition > id.edition && known.sent && !known.left
        });
        later.map(move |(_, known)| place.is_some_and(|place| place.is_same_kind(known.place)))
    }

    fn others_of_place(&self, id: RegistrationId) -> impl Iterator<Item = (&RegistrationId, &Known)> {
        let place = self.known.get(&id).map(|known| known.place);
        self.known.iter().filter(move |(other, known)| **other != id && Some(known.place) == place)
    }

    fn check_asked(&mut self, id: RegistrationId, step: Step, at: Timestamp) -> Result<(), String> {
        let (wanted, key_wanted) = (self.wanted.contains(&id), self.is_key_wanted(id));
        match step {
            Step::Join | Step::Renew => {
                ensure!(key_wanted, "{id:?} is asked to {step:?} although it is to end");
                let leaves = self.others_of_place(id).any(|(_, known)| known.letting_go);
                ensure!(!leaves, "{id:?} is asked to {step:?} while its place is being left");
            }
            Step::Leave => {
                // One of another kind may have taken its place.
                let succeeded = self.successors(id).any(|same_kind| !same_kind);
                ensure!(!wanted && (!key_wanted || succeeded), "{id:?} is asked to leave although it is wanted");
                let holder = self.others_of_place(id).find(|(other, known)| self.wanted.contains(other) && known.sent);
                ensure!(holder.is_none(), "{id:?} is asked to leave a place that another holds: {holder:?}");
            }
            Step::Retire => {
                ensure!(!wanted, "{id:?} is asked to retire although it is wanted");
                let succeeded = self.successors(id).any(|same_kind| same_kind);
                ensure!(succeeded || !key_wanted, "{id:?} is asked to retire in favour of nobody");
            }
            Step::Rest(_) | Step::End => {}
        }
        let Some(known) = self.known.get_mut(&id) else { return Err(format!("{id:?} is asked, and not known")) };
        ensure!(step != Step::Renew || !known.outdated, "{id:?} is renewed as the node was described before");
        known.outdated &= step != Step::Join;
        match step {
            Step::Join | Step::Renew => {
                known.sent_before = known.sent && !known.left;
                (known.sent, known.left) = (true, false);
            }
            _ => known.letting_go = true,
        }
        known.asked.push_back(at);
        while known.asked.front().is_some_and(|first| at.since(*first) > WINDOW) {
            known.asked.pop_front();
        }
        let times = known.asked.len();
        ensure!(times <= MOST, "{id:?} asked its backend {times} times within {WINDOW:?}");
        Ok(())
    }

    fn take_answer(&mut self, id: RegistrationId, step: Step, error: Option<ErrorCode>) {
        let Some(known) = self.known.get_mut(&id) else { return };
        match (step, error) {
            (Step::Join | Step::Renew, None) => known.joined = true,
            // Nothing was sent.
            (Step::Join | Step::Renew, Some(ErrorCode::TokenUnreadable)) => known.sent = known.sent_before,
            (Step::Leave | Step::Retire, error) => {
                known.letting_go = false;
                known.failed = error;
                known.left |= error.is_none();
            }
            _ => {}
        }
    }

    /// A deregistration has been carried out.
    fn check_left(&mut self, id: RegistrationId) -> Result<(), String> {
        let seen = self.successors(id).next().is_some();
        ensure!(!self.is_key_wanted(id) || seen, "{id:?} left before another definition has registered the node");
        if let Some(known) = self.known.get_mut(&id) {
            (known.joined, known.left) = (false, true);
        }
        Ok(())
    }

    fn check_end(&mut self, id: RegistrationId, at: Timestamp) -> Result<(), String> {
        ensure!(!self.wanted.contains(&id), "{id:?} has ended although it is wanted");
        let holds = self.others_of_place(id).any(|(_, known)| known.sent && !known.left);
        let Some(known) = self.known.remove(&id) else {
            ensure!(self.never_asked.remove(&id), "{id:?} has ended twice");
            return Ok(());
        };
        let long_enough = known.unwanted_since.is_some_and(|since| at.since(since) >= FAREWELL);
        // What the backend refused would be refused again; where it was away it is asked until the budget is spent.
        let spent = self.draining_since.is_some_and(|since| at.since(since) + LAST_PAUSE >= BUDGET);
        let vain = known.failed.is_some_and(|code| !code.is_outage());
        let excused =
            holds || known.failed.is_some() && (long_enough || spent || vain && self.draining_since.is_some());
        ensure!(!known.sent || known.left || excused, "{id:?} has ended, and may be registered still");
        Ok(())
    }
}
