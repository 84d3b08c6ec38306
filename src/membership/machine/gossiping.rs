//! Telling others what is new: on the packets that are sent anyway, and on some that are sent for it.

use std::sync::Arc;
use std::time::Duration;

use super::{Machine, Timer};
use crate::clock::Timestamp;
use crate::membership::record::{Record, State};
use crate::membership::rumours::{Class, Subject};
use crate::membership::wire::Writer;
use crate::membership::wire::part::{Part, write_part};

/// How soon a rumour is sent where none was of late: what is learned in the same moment goes with it.
const SOON: Duration = Duration::from_millis(10);

impl Machine {
    pub(super) fn spread(&mut self, before: Option<&Record>, record: &Record, now: Timestamp) {
        let was_in_doubt = before.is_some_and(|before| before.state() != &State::Up);
        let class = match record.state() {
            _ if record.id() == self.own.id() => Class::Own,
            State::Up if !was_in_doubt => Class::Other,
            _ => Class::Fate,
        };
        self.tell_everybody(Subject::Record(record.id().clone()), class, &Part::Record(record.clone()), now);
    }

    pub(super) fn tell_everybody(&mut self, subject: Subject, class: Class, part: &Part, now: Timestamp) {
        let mut writer = Writer::default();
        write_part(&mut writer, part, None, now);
        self.rumours.spread(subject, class, Arc::from(writer.into_bytes()));
        // News of life and death go out almost at once, and those after them at the pace of gossip. Whoever joins waits for
        // others who do, for whoever hears of it now may be few.
        let at = match (class, self.gossiped) {
            (Class::Own | Class::Other, _) => now + self.settings.gossip_interval,
            (Class::Fate, None) => now + SOON,
            (Class::Fate, Some(last)) => (last + self.settings.gossip_interval).max(now + SOON),
        };
        self.timers.set_by(Timer::Gossip, at);
    }

    /// Sends rumours to a few members.
    pub(super) fn gossip(&mut self, now: Timestamp) {
        self.gossiped = Some(now);
        for place in self.some_places(self.settings.gossip_fanout, None) {
            if self.rumours.is_empty() {
                return;
            }
            self.send(place, &[], now);
        }
        if !self.rumours.is_empty() {
            self.timers.set(Timer::Gossip, now + self.settings.gossip_interval);
        }
    }
}
