//! Whether what is believed was compared with what the server says in its present life.
//!
//! A server that restarts with an empty state counts anew while its members register again. By the time it is asked it
//! may be at our very index, with another content: an equal index settles nothing. It may have restarted wherever it was
//! not seen to go on: when a request failed, on either connection, and while the whole process stood still. After such a
//! *trouble* an index confirms nothing, before a whole answer to a watch that was sent later was compared with what is
//! believed. What a watch from before it brings may have been on its way for a moment, and proves nothing: what it shows
//! to be the same is no sign of freshness, and news are asked for again. So is whatever comes from before a standstill,
//! which may be of any age. Neither is asked for again twice in a row, lest a process that stands still all the time, or
//! one whose probes keep failing, learn nothing.
//!
//! A trouble strikes all watchers at the same moment, where it is a change of leader. So the watch that brings the whole
//! answer goes on from our index and waits: news come at once, as always, and without any the answer comes after a short
//! while, which everyone draws for themselves. Nothing but the claim of freshness waits for it. Where one trouble follows
//! the other, that while becomes longer: a server that is overburdened is not asked for everything all the time.
//!
//! Where the first sign after an error shows that the whole set has to be sent in any case, since there is news or the
//! server has lost its index, it is asked for after a while of the same kind, which never becomes longer.

use std::time::Duration;

use crate::clock::Timestamp;

/// Within how long, for each member, all watchers ask for the whole set again. There are about as many watchers as
/// members; so this is what each of them is granted for its answer.
const PER_MEMBER: Duration = Duration::from_millis(10);
/// The longest of these spans: a third of how long a provider may be degraded before another is followed.
const LONGEST: Duration = Duration::from_secs(5);
/// A trouble that comes sooner after the last one was over doubles the span.
const CALM: Duration = Duration::from_secs(60);
/// How often it is doubled at the most.
const DOUBLINGS: u32 = 3;

/// What is known of the server's present life.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// The last watch that was sent before the last trouble, until the answer of a later one was compared.
    doubted: Option<u64>,
    /// When the last trouble was over, and how many there were in a row since.
    settled: Option<Timestamp>,
    in_a_row: u32,
    /// The watch that was under way while the process stood still.
    overtaken: Option<u64>,
    /// Whether the last answer was asked for again because it was overtaken.
    asked_again: bool,
    /// Whether a watch was broken off for a trouble's sake, and none has been answered since.
    broken_off: bool,
}

impl Life {
    /// There was trouble; the last watch that was sent is that one.
    pub(super) fn interrupted(&mut self, now: Timestamp, sent: u64) {
        if self.doubted.is_none() {
            let soon = self.settled.is_some_and(|settled| now.since(settled) < CALM);
            self.in_a_row = if soon { DOUBLINGS.min(self.in_a_row + 1) } else { 0 };
        }
        self.doubted = Some(sent);
    }

    /// The process stood still; the last watch that was sent is that one.
    pub(super) fn stood_still(&mut self, now: Timestamp, sent: u64) {
        self.interrupted(now, sent);
        self.overtaken = Some(sent);
    }

    /// A watch was cut that had lasted, as happens to every one behind some proxies; the last one that was sent is that
    /// one. No trouble that would let the next comparison wait longer.
    pub(super) fn cut(&mut self, sent: u64) {
        if self.doubted.is_none() {
            self.in_a_row = 0;
        }
        self.doubted = Some(sent);
    }

    /// That watch was answered, with `news` or without; whether it has to be asked again.
    pub(super) fn answered(&mut self, watch: u64, news: bool) -> bool {
        self.broken_off = false;
        let is_open = self.was_overtaken(watch) || (news && !self.proves(watch));
        self.asked_again = is_open && !self.asked_again;
        self.asked_again
    }

    /// Whether the answer to that watch may be of any age, since the process stood still meanwhile.
    pub(super) fn was_overtaken(&self, watch: u64) -> bool {
        self.overtaken == Some(watch)
    }

    /// A watch was broken off because it was sent before the trouble.
    pub(super) fn broken_off(&mut self) {
        self.broken_off = true;
    }

    /// Whether the one before was broken off without an answer since, so that the next is given time: a slow body may be
    /// on its way.
    pub(super) fn was_broken_off(&self) -> bool {
        self.broken_off
    }

    /// The answer to that watch was compared with what is believed, and is believed now.
    pub(super) fn compared(&mut self, now: Timestamp, watch: u64) {
        if self.proves(watch) && self.doubted.take().is_some() {
            self.settled = Some(now);
        }
    }

    /// Whether the answer to that watch is of the present life for certain.
    pub(super) fn proves(&self, watch: u64) -> bool {
        self.doubted.is_none_or(|sent| watch > sent)
    }

    /// Whether what is believed was compared with the present life.
    pub(super) fn is_known(&self) -> bool {
        self.doubted.is_none()
    }

    /// Within how long the watchers of so many members ask for all of them again.
    pub(super) fn span(&self, members: usize) -> Duration {
        turn(members) * (1 << self.in_a_row)
    }
}

/// How long it takes until each of the watchers of so many members had its turn: as many as there are members.
pub(super) fn turn(members: usize) -> Duration {
    PER_MEMBER.saturating_mul(u32::try_from(members).unwrap_or(u32::MAX)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn consul_point_7_only_an_answer_that_was_asked_for_after_the_trouble_proves_the_present_life() {
        let mut life = Life::default();
        assert!(life.is_known());
        life.interrupted(at(0), 7);
        assert!(!life.is_known() && !life.proves(7) && life.proves(8));
        life.compared(at(0), 7);
        assert!(!life.is_known());
        life.interrupted(at(0), 8);
        life.compared(at(0), 8);
        assert!(!life.is_known(), "there was trouble again");
        life.compared(at(0), 9);
        assert!(life.is_known() && life.proves(1));
    }

    #[test]
    fn consul_an_answer_from_before_a_standstill_is_asked_for_again_but_not_twice_in_a_row() {
        let mut life = Life::default();
        life.interrupted(at(0), 1);
        assert!(!life.answered(1, false), "an error is no standstill");
        life.stood_still(at(0), 2);
        assert!(life.answered(2, false) && life.was_overtaken(2) && !life.proves(2));
        life.stood_still(at(0), 3);
        assert!(!life.answered(3, false) && !life.proves(3), "it is taken, and proves nothing");
        life.stood_still(at(0), 4);
        assert!(life.answered(4, false) && !life.answered(5, true) && life.proves(5));
    }

    #[test]
    fn consul_point_7_news_from_before_a_trouble_are_asked_for_again_but_not_twice_in_a_row() {
        let mut life = Life::default();
        assert!(!life.answered(1, true));
        life.interrupted(at(0), 2);
        assert!(life.answered(2, true) && !life.was_overtaken(2));
        life.interrupted(at(0), 3);
        assert!(!life.answered(3, true), "probes keep failing while slow bodies arrive");
        life.interrupted(at(0), 4);
        assert!(life.answered(4, true) && !life.answered(5, true));
    }

    #[test]
    fn consul_point_7_a_cut_proves_nothing_and_lets_no_comparison_wait_longer() {
        let mut life = Life::default();
        for watch in 0..9 {
            life.cut(watch);
            assert!(!life.is_known() && !life.proves(watch));
            assert_eq!(life.span(100).as_secs(), 1);
            life.compared(at(watch), watch + 1);
            assert!(life.is_known());
        }
    }

    #[test]
    fn consul_point_7_the_more_there_are_the_longer_they_take_to_come_back_up_to_a_limit() {
        let life = Life::default();
        let spans = [0, 3, 100, 1000, usize::MAX].map(|members| life.span(members).as_millis());
        assert_eq!(spans, [0, 30, 1000, 5000, 5000]);
    }

    #[test]
    fn consul_point_7_troubles_that_follow_one_another_ask_for_everything_ever_more_rarely() {
        let (mut life, mut spans) = (Life::default(), Vec::new());
        for trouble in 0..6 {
            // Several errors are one trouble, until an answer was compared.
            life.interrupted(at(10 * trouble), trouble);
            life.interrupted(at(10 * trouble), trouble);
            spans.push(life.span(100).as_secs());
            life.compared(at(10 * trouble), trouble + 1);
        }
        assert_eq!(spans, [1, 2, 4, 8, 8, 8]);
        life.interrupted(at(50 + 60), 9);
        assert_eq!(life.span(100).as_secs(), 1, "after a calm minute it begins anew");
    }
}
