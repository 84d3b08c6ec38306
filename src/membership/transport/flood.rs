//! How many datagrams of one host are looked at: of a flood no more than of a very busy member.
//!
//! A token bucket for each address. What is beyond is thrown away unread; the protocol bears loss.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many in a second, and as many at once. A seed that a thousand members join at once sends no single one of them more
/// than a few.
pub(super) const RATE: f64 = 5_000.0;
/// How many hosts are told apart. Whoever is quiet for a second is forgotten when there are more.
const HOSTS: usize = 4_096;
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flood {
    buckets: BTreeMap<IpAddr, Bucket>,
    dropped: u64,
}

impl Flood {
    /// Whether a datagram from there is looked at.
    pub(super) fn passes(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.buckets.len() >= HOSTS && !self.buckets.contains_key(&from) {
            self.buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at) < QUIET);
        }
        let has_room = self.buckets.len() < HOSTS || self.buckets.contains_key(&from);
        let bucket = has_room.then(|| self.buckets.entry(from).or_insert(Bucket { tokens: RATE, at: now }));
        let passes = bucket.is_some_and(|bucket| {
            let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * RATE;
            bucket.tokens = (bucket.tokens + earned).min(RATE);
            bucket.at = now;
            let has_one = bucket.tokens >= 1.0;
            bucket.tokens -= if has_one { 1.0 } else { 0.0 };
            has_one
        });
        self.dropped += u64::from(!passes);
        passes
    }

    /// How many were thrown away.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn m2_5_of_a_flood_a_share_is_looked_at_and_of_others_all() {
        let (mut flood, began) = (Flood::default(), Instant::now());
        let rate = RATE as usize;
        let passed =
            |flood: &mut Flood, from, count: usize, now| (0..count).filter(|_| flood.passes(from, now)).count();
        assert_eq!(passed(&mut flood, host(1), 3 * rate, began), rate);
        assert_eq!((passed(&mut flood, host(2), rate, began), flood.dropped()), (rate, 2 * RATE as u64));
        let later = began + Duration::from_millis(100);
        assert_eq!(passed(&mut flood, host(1), rate, later), rate / 10);
        let much_later = began + Duration::from_secs(60);
        assert_eq!(passed(&mut flood, host(1), 3 * rate, much_later), rate, "nobody saves up");
    }

    #[test]
    fn m2_5_no_more_hosts_are_told_apart_than_there_is_room_for_and_the_quiet_ones_make_room() {
        let (mut flood, began) = (Flood::default(), Instant::now());
        assert!((0..HOSTS as u32).all(|number| flood.passes(host(number), began)));
        assert!(!flood.passes(host(9_999_999), began), "all others are busy");
        assert!(flood.passes(host(7), began));
        assert!(flood.passes(host(9_999_999), began + QUIET));
        assert!(flood.buckets.len() <= HOSTS);
    }
}
