//! What an outage does to the members' checks, although they live.
//!
//! An agent that stood still, or could not be reached, for longer than a TTL has missed the heartbeats of everyone. When it
//! is back it lets all checks turn critical at once, and the members pass them again within a heartbeat or two. One that
//! was started again may do so after a shorter outage: the TTLs of the checks that it kept begin anew, and until there is a
//! leader no heartbeat gets through (3 s were seen with Consul 1.22). So for a TTL after any outage whoever is missing is not
//! believed to be gone. The same where the local node had been hidden: whatever hid it may have hidden others, which do not
//! come back in the same moment.

use std::time::Duration;

use crate::clock::Timestamp;

/// Until when the members' checks are unsteady.
#[derive(Debug)]
pub(super) struct Outage {
    ttl: Duration,
    /// Whether there was an error, or a standstill, since the server was heard last.
    troubled: bool,
    unsteady_until: Timestamp,
}

impl Outage {
    /// No outage.
    pub(super) fn none(ttl: Duration, now: Timestamp) -> Self {
        Self { ttl, troubled: false, unsteady_until: now }
    }

    /// Something went wrong.
    pub(super) fn trouble(&mut self) {
        self.troubled = true;
    }

    /// The server answered in good order.
    pub(super) fn heard(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.troubled) {
            self.shaken(now);
        }
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
    fn consul_point_7_an_outage_makes_the_checks_unsteady_for_a_ttl_from_when_the_server_is_heard_again() {
        let mut outage = Outage::none(TTL, at(0));
        outage.heard(at(100));
        assert_eq!(outage.unsteady(at(100)), None, "peace is no outage, however rarely the server is asked");
        outage.trouble();
        outage.trouble();
        assert_eq!(outage.unsteady(at(105)), None);
        outage.heard(at(105));
        outage.heard(at(106));
        assert_eq!((outage.unsteady(at(105)), outage.unsteady(at(108))), (Some(at(108)), None));
        outage.heard(at(111));
        assert_eq!(outage.unsteady(at(111)), None, "the trouble was over");
    }
}
