//! Whether watches can be relied upon. Their silence looks like peace also where a proxy holds back what they say, where a
//! server answers with a head and an error for ever, or sends the head with the first event only.
//!
//! A watch *proves* itself by a line that it does not end with. Most servers send bookmarks now and then; those that
//! do not are quiet where nothing changes. So the first watch of a stream is short, and should at least end when it was
//! told to; each silent one may be twice as long as the one before, and every second one is followed by a list. Long ones
//! come once one has proved itself, and a long one that is mute is followed by a short one again.
//!
//! What does not even end makes all watches *doubted*, and so does a head that does not come, an error among the lines
//! before it got any further, and what is told only with the end of a watch; what was just cut off, the second time in a
//! row. While they are doubted, no probe confirms the members, watches are short, and each one that ends without a
//! proof is followed by a list: then the lists are what keeps the members right, and confirms them. The next proof ends
//! that.
//!
//! That costs one page about every ten seconds, of a larger set as much less often. It is told at first, and then ever
//! more seldom: the members are right meanwhile.

use std::time::Duration;

use super::{BRIEF, Machine, Phase, WATCH_MAX, Watching, error};
use crate::clock::Timestamp;
use crate::error::ErrorCode;
use crate::provider::ProviderEvent;

/// How much longer than a head may take a short watch lasts; drawn from the upper 2/5. A server sends the last bookmark
/// two seconds before the end.
const SHORT: Duration = Duration::from_secs(5);
/// The longest that silent watches grow to: no longer than bookmarks may fail to come.
const SILENT_MAX: Duration = Duration::from_secs(120);
/// How much later than it was told to a server may end a watch that is not long.
const GRACE: Duration = Duration::from_secs(2);
/// How often there is a list of one page in place of a watch at the most, if the answer timeout is not shorter.
const POLL: Duration = Duration::from_secs(10);
/// Lines that come with the end of a watch that lasted for so long were held back until then.
const HOARDED: Duration = Duration::from_secs(5);

/// How a watch ended that has not proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was closed, or broke.
    Cut,
    /// It was silent, and was closed when its time was over.
    Silent,
    /// What it said came with its end.
    Hoarded,
    /// The server sent an error before it got any further.
    Refused,
    /// A long one was mute for as long as bookmarks may fail to come.
    Quiet,
    /// It did not end, or its head did not come.
    Mute,
}

/// What the watches of a stream were worth.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Whether the last one that was worth anything has proved itself.
    tried: bool,
    doubted: bool,
    /// How many in a row were cut off without a proof.
    cut: u32,
    /// How many were silent since the last proof.
    silent: u32,
    /// How many lists took the place of one since the last proof.
    lists: u32,
}

impl Trust {
    pub(super) fn proved(&mut self) {
        *self = Self { tried: true, ..Self::default() };
    }

    /// A watch ended without a proof: whether there has to be a list.
    fn ended(&mut self, end: End) -> bool {
        let was_doubted = self.doubted;
        match end {
            End::Cut => {
                self.cut = self.cut.saturating_add(1);
                self.doubted |= self.cut > 1;
            }
            End::Silent => self.silent = self.silent.saturating_add(1),
            End::Quiet => (self.tried, self.silent) = (false, 0),
            End::Hoarded | End::Refused | End::Mute => self.doubted = true,
        }
        was_doubted || end == End::Mute || (end == End::Silent && self.silent.is_multiple_of(2))
    }
}

impl Watching {
    /// Whether it said something, and went on.
    fn is_proved(&self, now: Timestamp) -> bool {
        self.spoke.is_some_and(|spoke| now.since(spoke) >= BRIEF)
    }

    /// How it ended, if the other side has closed it.
    fn closing(&self, now: Timestamp, in_order: bool) -> Option<End> {
        match self.spoke {
            // It was about something, and nothing was held back.
            Some(_) if now.since(self.sent) < HOARDED => None,
            Some(_) => Some(End::Hoarded),
            None if in_order && now.since(self.sent) + BRIEF >= self.timeout => Some(End::Silent),
            None => Some(End::Cut),
        }
    }
}

impl Machine {
    /// Whether an open watch and a server that lives confirm the members.
    pub(super) fn is_relied_upon(&self, now: Timestamp) -> bool {
        let proved = matches!(&self.phase, Phase::Watching(watching) if watching.is_proved(now));
        proved || !self.trust.doubted
    }

    /// How long the next watch shall be.
    pub(super) fn watch_timeout(&mut self) -> Duration {
        let Trust { tried, doubted, silent, .. } = self.trust;
        if tried && !doubted && silent == 0 {
            return self.jitter.scale(WATCH_MAX, 0.5);
        }
        let short = self.settings.answer_timeout + self.jitter.scale(SHORT, 0.6);
        if doubted { short } else { short.saturating_mul(1 << silent.min(8)).min(SILENT_MAX.max(short)) }
    }

    /// How long a watch of that length may be mute, if it is not a long one.
    pub(super) fn grace(timeout: Duration) -> Option<Duration> {
        (timeout < WATCH_MAX / 2).then(|| timeout + GRACE)
    }

    /// The open watch has said something for the first time: the proof that may become of it is looked at soon.
    pub(super) fn spoke_up(&mut self, now: Timestamp) {
        if self.trust.doubted {
            self.set_probe(now + BRIEF);
        }
    }

    /// When a list may take the place of a watch that cannot be relied upon, after one of so many pages.
    pub(super) fn stand_in_after(&self, now: Timestamp, pages: usize) -> Timestamp {
        let poll = POLL.min(self.settings.answer_timeout.max(BRIEF));
        now + poll.saturating_mul(u32::try_from(pages).unwrap_or(u32::MAX))
    }

    /// The other side closes the watch: whether a list has to take its place.
    pub(super) fn closes(&mut self, now: Timestamp, in_order: bool) -> bool {
        let Phase::Watching(watching) = &self.phase else { return false };
        let end = watching.closing(now, in_order);
        self.judge(now, end)
    }

    /// The server answers with an error; a list takes the place of the watch if there was one before.
    pub(super) fn refused(&mut self, now: Timestamp) {
        let end = match &self.phase {
            Phase::Watching(watching) if self.version.as_ref() != Some(&watching.begun_at) => None,
            _ => Some(End::Refused),
        };
        // The pause that follows is time enough for a list.
        if self.judge(now, end) {
            self.relist();
        }
    }

    /// The watch is broken off, since it has said nothing for too long, or its head did not come.
    pub(super) fn is_mute(&mut self, now: Timestamp) {
        let end = match &self.phase {
            Phase::Watching(watching) if Self::grace(watching.timeout).is_none() => End::Quiet,
            _ => End::Mute,
        };
        if self.judge(now, Some(end)) {
            self.stands_in(now);
        }
    }

    /// What a watch was worth that ends so: whether a list has to take its place.
    pub(super) fn judge(&mut self, now: Timestamp, end: Option<End>) -> bool {
        if let Phase::Watching(watching) = &self.phase
            && watching.is_proved(now)
        {
            self.trust.proved();
            return false;
        }
        end.is_some_and(|end| self.trust.ended(end))
    }

    /// A list takes the place of a watch that ended without any other sign, unless there was one just before.
    pub(super) fn stands_in(&mut self, now: Timestamp) {
        if now < self.stand_in {
            return;
        }
        self.relist();
        if !self.trust.doubted {
            return;
        }
        self.trust.lists = self.trust.lists.saturating_add(1);
        if self.trust.lists.is_power_of_two() {
            let detail = "the watch says nothing, as where a proxy holds it back or the server keeps its head until the \
                          first event: the members are listed again and again instead";
            self.report(now, ProviderEvent::Degraded { error: error(ErrorCode::Timeout, detail) });
        }
    }
}
