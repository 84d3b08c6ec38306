//! The life of one provider's streams: when one is opened, given up and opened again.
//!
//! A stream that ends is opened again after a pause that grows with every failure. One that falls silent is given up,
//! and the next is opened only when its thread has ended, so that a stuck provider costs one thread, not many.

use crate::backoff::{Backoff, Jitter};
use crate::clock::Timestamp;
use crate::failover::FailoverPolicy;

/// Where a provider's stream is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none; one may be opened from then on.
    Idle { reopen_at: Timestamp },
    /// It was asked for then, and reports.
    Open { since: Timestamp },
    /// It was cancelled; its thread has not ended yet, and what it says no longer counts. `pause`: whether the next one
    /// waits for the backoff.
    Closing { pause: bool },
}

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its thread has ended, or is about to.
    ByItself,
    /// It was given up; its thread may still be stuck.
    GivenUp,
}

/// The present stream of a provider, or the time of the next.
#[derive(Debug)]
pub(super) struct StreamLife {
    state: State,
    /// Counts the streams; that of the one opened last.
    generation: u64,
    /// Whether the present stream's first snapshot has come.
    begun: bool,
    backoff: Backoff,
}

impl StreamLife {
    /// The first stream is due at once.
    pub(super) fn new(policy: &FailoverPolicy, now: Timestamp) -> Self {
        let backoff = Backoff::new(policy.backoff_initial, policy.backoff_max);
        Self { state: State::Idle { reopen_at: now }, generation: 0, begun: false, backoff }
    }

    /// The generation of the stream opened last.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether what the stream of that generation says counts.
    pub(super) fn is_heard(&self, generation: u64) -> bool {
        self.is_open() && self.generation == generation
    }

    /// Whether the first snapshot of the present stream has come.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The first snapshot of the present stream has come.
    pub(super) fn begin(&mut self) {
        debug_assert!(self.is_open(), "only a stream that is heard can begin");
        self.begun = true;
    }

    /// Opens the next stream, if it is due; its generation.
    pub(super) fn open_if_due(&mut self, now: Timestamp) -> Option<u64> {
        match self.state {
            State::Idle { reopen_at } if reopen_at <= now => {
                self.generation += 1;
                self.begun = false;
                self.state = State::Open { since: now };
                Some(self.generation)
            }
            _ => None,
        }
    }

    /// The stream came to its end: the next one comes after a pause.
    pub(super) fn end(&mut self, ending: Ending, jitter: &mut Jitter, now: Timestamp) {
        self.state = match ending {
            Ending::ByItself => State::Idle { reopen_at: now + self.backoff.pause(jitter) },
            Ending::GivenUp => State::Closing { pause: true },
        };
    }

    /// The stream is no longer needed, though nothing is wrong with it.
    pub(super) fn close(&mut self) {
        self.state = State::Closing { pause: false };
    }

    /// The provider is defined anew: its next stream is due at once, whatever becomes of the present one.
    pub(super) fn start_anew(&mut self, now: Timestamp) {
        self.state = State::Idle { reopen_at: now };
        self.backoff.reset();
    }

    /// The thread of the stream of that generation has ended. Whether it did so without a word, which is an error.
    #[must_use = "an end without a word is an error"]
    pub(super) fn closed(&mut self, generation: u64, jitter: &mut Jitter, now: Timestamp) -> bool {
        if self.generation != generation {
            return false;
        }
        match self.state {
            State::Closing { pause } => {
                let pause = if pause { self.backoff.pause(jitter) } else { std::time::Duration::ZERO };
                self.state = State::Idle { reopen_at: now + pause };
                false
            }
            State::Open { .. } => true,
            State::Idle { .. } => false,
        }
    }

    /// The provider has been healthy for long enough: the next pause is the first one again.
    pub(super) fn forget_failures(&mut self) {
        self.backoff.reset();
    }

    /// The whole process stood still: the silence of the stream counts from here on.
    pub(super) fn restart_window(&mut self, now: Timestamp) {
        if let State::Open { since } = &mut self.state {
            *since = now;
        }
    }

    /// When the next stream is due, where there is none.
    pub(super) fn reopens_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Idle { reopen_at } => Some(reopen_at),
            _ => None,
        }
    }

    /// When the stream is given up unless it says something. `last_sign`: when the provider last did.
    pub(super) fn mute_at(&self, last_sign: Option<Timestamp>, policy: &FailoverPolicy) -> Option<Timestamp> {
        match self.state {
            State::Open { since } => Some(last_sign.map_or(since, |sign| sign.max(since)) + policy.silence_timeout),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn life() -> (StreamLife, Jitter, FailoverPolicy) {
        let policy = FailoverPolicy::default();
        (StreamLife::new(&policy, at(0)), Jitter::new(1), policy)
    }

    #[test]
    fn p2_5_the_next_stream_waits_for_the_pause_and_for_the_end_of_a_stuck_one() {
        let (mut life, mut jitter, _) = life();
        assert_eq!((life.open_if_due(at(0)), life.open_if_due(at(0))), (Some(1), None));
        life.begin();
        life.end(Ending::ByItself, &mut jitter, at(1));
        let due = life.reopens_at().unwrap();
        assert!(due >= at(2) && due <= at(3), "{due:?}");
        assert_eq!((life.open_if_due(at(1)), life.open_if_due(due)), (None, Some(2)));
        assert!(!life.has_begun() && life.is_heard(2) && !life.is_heard(1));
        life.end(Ending::GivenUp, &mut jitter, at(20));
        assert_eq!((life.is_heard(2), life.reopens_at(), life.open_if_due(at(3_600))), (false, None, None));
        assert!(!life.closed(1, &mut jitter, at(21)), "an older one's end is nothing");
        assert_eq!(life.reopens_at(), None);
        assert!(!life.closed(2, &mut jitter, at(22)));
        assert!(life.reopens_at().unwrap() >= at(24), "the second pause");
    }

    #[test]
    fn p2_2_a_thread_that_ends_without_a_word_is_an_error_and_one_that_was_told_to_is_not() {
        let (mut life, mut jitter, _) = life();
        life.open_if_due(at(0));
        assert!(life.closed(1, &mut jitter, at(1)));
        life.end(Ending::ByItself, &mut jitter, at(1));
        assert!(!life.closed(1, &mut jitter, at(1)));
        life.forget_failures();
        life.open_if_due(at(9));
        life.close();
        assert!(!life.closed(2, &mut jitter, at(10)));
        assert_eq!(life.reopens_at(), Some(at(10)), "no pause: nothing was wrong");
    }

    #[test]
    fn p5_4_a_provider_that_is_defined_anew_waits_neither_for_a_pause_nor_for_a_stuck_thread() {
        for ending in [Ending::ByItself, Ending::GivenUp] {
            let (mut life, mut jitter, _) = life();
            life.open_if_due(at(0));
            life.end(ending, &mut jitter, at(1));
            life.start_anew(at(1));
            assert_eq!(life.open_if_due(at(1)), Some(2), "{ending:?}");
            assert!(!life.closed(1, &mut jitter, at(2)) && life.is_heard(2));
        }
    }

    #[test]
    fn p2_5_a_stream_is_mute_from_its_opening_or_the_last_sign_whichever_is_later() {
        let (mut life, mut jitter, policy) = life();
        let silence = Duration::from_secs(15);
        assert_eq!(life.mute_at(Some(at(0)), &policy), None);
        life.open_if_due(at(10));
        assert_eq!(life.mute_at(None, &policy), Some(at(10) + silence));
        assert_eq!(life.mute_at(Some(at(3)), &policy), Some(at(10) + silence));
        assert_eq!(life.mute_at(Some(at(12)), &policy), Some(at(12) + silence));
        life.restart_window(at(100));
        assert_eq!(life.mute_at(Some(at(12)), &policy), Some(at(100) + silence));
        life.end(Ending::GivenUp, &mut jitter, at(115));
        life.restart_window(at(200));
        assert_eq!(life.mute_at(None, &policy), None);
    }
}
