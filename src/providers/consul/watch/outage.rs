//! What an outage does to the members' checks, although they live.
//!
//! An agent that stood still, or could not be reached, for longer than a TTL has missed the heartbeats of everyone. When it
//! is back it lets all checks turn critical at once, and the members pass them again within a heartbeat or two. So for a TTL
//! after such an outage whoever is missing is not believed to be gone. The same where the local node had been hidden:
//! whatever hid it may have hidden others, which do not come back in the same moment.

use std::time::Duration;

use crate::clock::Timestamp;

/// When the server was heard, and until when its members' checks are unsteady.
#[derive(Debug)]
pub(super) struct Outage {
    ttl: Duration,
    heard: Timestamp,
    /// Whether there was an error, or a standstill, since then.
    troubled: bool,
    unsteady_until: Timestamp,
}

impl Outage {
    /// No outage; the server counts as heard now.
    pub(super) fn none(ttl: Duration, now: Timestamp) -> Self {
        Self { ttl, heard: now, troubled: false, unsteady_until: now }
    }

    /// Something went wrong.
    pub(super) fn trouble(&mut self) {
        self.troubled = true;
    }

    /// The server answered in good order.
    pub(super) fn heard(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.troubled) && now.since(self.heard) >= self.ttl {
            self.shaken(now);
        }
        self.heard = now;
    }

    /// The members' checks have been hidden or critical for a reason that is over now.
    pub(super) fn shaken(&mut self, now: Timestamp) {
        self.unsteady_until = now + self.ttl;
    }

    /// Until when whoever is missing may come back, if that is still to come.
    pub(super) fn unsteady(&self, now: Timestamp) -> Option<Timestamp> {
        (now < self.unsteady_until).then_some(self.unsteady_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn consul_point_7_only_an_outage_of_a_ttl_makes_the_checks_unsteady_and_for_a_ttl() {
        let mut outage = Outage::none(TTL, at(0));
        outage.heard(at(100));
        assert_eq!(outage.unsteady(at(100)), None, "peace is no outage, however rarely the server is asked");
        outage.trouble();
        outage.heard(at(102));
        assert_eq!(outage.unsteady(at(102)), None, "too short for a check to turn critical");
        outage.trouble();
        assert_eq!(outage.unsteady(at(105)), None);
        outage.heard(at(105));
        assert_eq!((outage.unsteady(at(105)), outage.unsteady(at(108))), (Some(at(108)), None));
        outage.heard(at(111));
        assert_eq!(outage.unsteady(at(111)), None, "the trouble was over");
    }
}
