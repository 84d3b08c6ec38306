//! Whether this node hears from nobody, so that it is rather cut off than everybody else dead.
//!
//! A node that is cut off would suspect the others one after the other, and announce that all of them died. So it is
//! *isolated* before the first of its suspicions can run out, says so, and announces no death. Whether an answer is one of
//! a member does not matter: a host that refuses the connection is reached, too. Two alone cannot tell who is cut off: the
//! survivor declares the other dead. What lasts for too long is settled after all, for the host has to go on.

use std::time::Duration;

use crate::clock::Timestamp;

/// When this share of the time is over in which nobody is heard, somebody is asked: the answer has time to come.
const ASKS_AFTER: f64 = 0.6;
/// The fewest members among whom anybody can be isolated.
const LEAST: usize = 3;

/// When isolation begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Without a word from anybody for so long a node is isolated. Shorter than the shortest suspicion.
    pub(crate) begins: Duration,
    /// After so long what it believes of the others is settled; never if absent.
    pub(crate) longest: Option<Duration>,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contact {
    /// Somebody was heard of late.
    Heard,
    /// Nobody was, since then.
    Isolated(Timestamp),
    /// Nobody was for so long that it is no longer waited for.
    GivenUp(Timestamp),
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Isolation {
    limits: Limits,
    heard_at: Timestamp,
    contact: Contact,
    /// Somebody was asked whether it is there, since somebody was heard.
    has_asked: bool,
}

impl Isolation {
    /// Of a node that begins, and is waited with as if somebody had just been heard.
    pub(super) fn new(limits: Limits, now: Timestamp) -> Self {
        Self { limits, heard_at: now, contact: Contact::Heard, has_asked: false }
    }

    #[cfg(test)]
    pub(super) fn contact(&self) -> Contact {
        self.contact
    }

    /// Whether no death is to be announced.
    pub(super) fn holds_deaths(&self) -> bool {
        matches!(self.contact, Contact::Isolated(_))
    }

    /// Somebody, or somebody's host, has answered; when the silence began, if the node had been isolated.
    pub(super) fn heard(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.has_asked = false;
        let silent_since = std::mem::replace(&mut self.heard_at, now);
        match std::mem::replace(&mut self.contact, Contact::Heard) {
            Contact::Heard => None,
            Contact::Isolated(_) | Contact::GivenUp(_) => Some(silent_since),
        }
    }

    /// The process stood still: nobody could have been heard meanwhile.
    pub(super) fn stood_still(&mut self, now: Timestamp) {
        if self.contact == Contact::Heard {
            self.heard_at = now;
        }
    }

    /// When somebody is to be asked whether it is there, before nobody is thought to be.
    pub(super) fn asks_at(&self, members: usize) -> Option<Timestamp> {
        let asks = self.contact == Contact::Heard && !self.has_asked && members >= LEAST;
        asks.then(|| self.heard_at + self.limits.begins.mul_f64(ASKS_AFTER))
    }

    /// Whether it is to be now: once in each silence.
    pub(super) fn asks(&mut self, members: usize, now: Timestamp) -> bool {
        let asks = self.asks_at(members).is_some_and(|at| at <= now);
        self.has_asked |= asks;
        asks
    }

    /// Time has passed, and so many are active members, this node among them; how it stands, where that has changed.
    pub(super) fn advance(&mut self, members: usize, now: Timestamp) -> Option<Contact> {
        let silence = now.since(self.heard_at);
        let contact = match self.contact {
            Contact::Heard if members >= LEAST && silence >= self.limits.begins => Contact::Isolated(now),
            Contact::Isolated(since) if self.limits.longest.is_some_and(|longest| now.since(since) >= longest) => {
                Contact::GivenUp(since)
            }
            _ => return None,
        };
        self.contact = contact;
        Some(contact)
    }

    /// When to ask again, if nobody is heard, and so many are active members.
    pub(super) fn next_at(&self, members: usize) -> Option<Timestamp> {
        match self.contact {
            Contact::Heard if members < LEAST => None,
            Contact::Heard => Some(self.heard_at + self.limits.begins),
            Contact::Isolated(since) => self.limits.longest.map(|longest| since + longest),
            Contact::GivenUp(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    fn of(longest: Option<u64>) -> Isolation {
        let limits = Limits { begins: Duration::from_secs(3), longest: longest.map(Duration::from_secs) };
        Isolation::new(limits, at(0))
    }

    #[test]
    fn m3_1_whoever_hears_from_nobody_is_isolated_and_announces_no_death_until_it_is_over() {
        let mut isolation = of(Some(60));
        assert_eq!((isolation.advance(3, at(2)), isolation.next_at(3)), (None, Some(at(3))));
        assert_eq!(isolation.advance(3, at(3)), Some(Contact::Isolated(at(3))));
        assert!(isolation.holds_deaths());
        assert_eq!((isolation.advance(3, at(4)), isolation.next_at(3)), (None, Some(at(63))));
        assert_eq!(isolation.heard(at(9)), Some(at(0)), "when the silence began");
        assert_eq!((isolation.contact(), isolation.holds_deaths()), (Contact::Heard, false));
        assert_eq!((isolation.heard(at(10)), isolation.next_at(3)), (None, Some(at(13))));
    }

    #[test]
    fn m3_1_before_anybody_is_isolated_it_asks_once_and_again_in_the_next_silence() {
        let mut isolation = of(Some(60));
        let asks_at = at(0) + Duration::from_millis(1800);
        assert_eq!((isolation.asks_at(3), isolation.asks_at(2)), (Some(asks_at), None));
        assert!(!isolation.asks(3, at(1)) && isolation.asks(3, asks_at) && !isolation.asks(3, at(2)));
        assert_eq!(isolation.asks_at(3), None);
        isolation.heard(at(9));
        assert_eq!(isolation.asks_at(3), Some(at(9) + Duration::from_millis(1800)));
        isolation.advance(3, at(12));
        assert!(!isolation.asks(3, at(13)), "it is isolated already");
    }

    #[test]
    fn m3_1_two_alone_are_never_isolated() {
        let mut isolation = of(Some(60));
        assert_eq!(isolation.advance(2, at(1000)), None);
        assert!(!isolation.holds_deaths());
        assert_eq!(isolation.advance(3, at(1001)), Some(Contact::Isolated(at(1001))));
    }

    #[test]
    fn m2_4_what_lasts_for_too_long_is_settled_unless_it_is_set_otherwise() {
        let mut isolation = of(Some(60));
        isolation.advance(3, at(3));
        assert_eq!(isolation.advance(3, at(62)), None);
        assert_eq!(isolation.advance(3, at(63)), Some(Contact::GivenUp(at(3))));
        assert_eq!((isolation.holds_deaths(), isolation.next_at(3), isolation.advance(3, at(99))), (false, None, None));
        assert_eq!(isolation.heard(at(100)), Some(at(0)));
        let mut endless = of(None);
        endless.advance(3, at(3));
        assert_eq!((endless.advance(3, at(99_999)), endless.next_at(3)), (None, None));
        assert!(endless.holds_deaths());
    }

    #[test]
    fn m3_1_after_a_standstill_the_silence_counts_anew_and_an_isolation_goes_on() {
        let mut isolation = of(Some(60));
        isolation.stood_still(at(100));
        assert_eq!((isolation.advance(3, at(102)), isolation.next_at(3)), (None, Some(at(103))));
        isolation.advance(3, at(103));
        isolation.stood_still(at(200));
        assert_eq!(isolation.advance(3, at(200)), Some(Contact::GivenUp(at(103))));
        assert_eq!(isolation.heard(at(201)), Some(at(100)), "when the silence began");
    }
}
