//! Where hosts are that are known by name, and when a name is looked up again.
//!
//! A name may have many addresses, as that of a headless service, and others from time to time. What was found stays in
//! force until something else is found: a name server that is out of reach takes nobody away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::membership::place::Place;

/// What was found is not looked up again for so long.
const FRESH: Duration = Duration::from_secs(4);
/// How many names are looked up at a time.
const AT_A_TIME: usize = 4;
/// How many names are remembered.
const MOST: usize = 10_000;
/// How many addresses of a name count.
const ADDRESSES: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<Arc<str>, Known>,
    /// Those that wait to be looked up, and those that are.
    wanted: BTreeSet<Arc<str>>,
    asked: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<IpAddr>,
    at: Timestamp,
}

impl Names {
    /// Where the place is, as far as that is known: its first address. What is not known, or was found long ago, is looked
    /// up.
    pub(super) fn address(&mut self, place: &Place, now: Timestamp) -> Option<SocketAddr> {
        if let Ok(address) = place.host().parse::<IpAddr>() {
            return Some(SocketAddr::new(address, place.port()));
        }
        self.want(place.host(), now);
        let found = self.known.get(place.host())?.addresses.first()?;
        Some(SocketAddr::new(*found, place.port()))
    }

    /// All places that the place may mean: each address of a name, and the name itself as long as nothing was found.
    pub(super) fn places(&self, place: &Place) -> Vec<Place> {
        let found = self.known.get(place.host()).map_or(&[][..], |known| &known.addresses);
        match found {
            [] => vec![place.clone()],
            found => found.iter().map(|address| Place::new(&address.to_string(), place.port())).collect(),
        }
    }

    /// The name is needed.
    pub(super) fn want(&mut self, host: &str, now: Timestamp) {
        let is_fresh = self.known.get(host).is_some_and(|known| now.since(known.at) < FRESH);
        if is_fresh || host.parse::<IpAddr>().is_ok() || self.asked.contains(host) || self.wanted.len() >= MOST {
            return;
        }
        self.wanted.insert(Arc::from(host));
    }

    /// The next name that is to be looked up now.
    pub(super) fn next(&mut self) -> Option<Arc<str>> {
        if self.asked.len() >= AT_A_TIME {
            return None;
        }
        let host = self.wanted.pop_first()?;
        self.asked.insert(Arc::clone(&host));
        Some(host)
    }

    /// What the name was found to be; whether that is anything new.
    pub(super) fn found(&mut self, host: &str, result: Result<Vec<IpAddr>, String>, now: Timestamp) -> bool {
        self.asked.remove(host);
        if !self.known.contains_key(host) && self.known.len() >= MOST {
            self.known.pop_first();
        }
        let empty = || Known { addresses: Vec::new(), at: now };
        let known = self.known.entry(Arc::from(host)).or_insert_with(empty);
        known.at = now;
        match result {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.iter_mut().for_each(|address| *address = address.to_canonical());
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(ADDRESSES);
                std::mem::replace(&mut known.addresses, addresses) != known.addresses
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn places(names: &Names) -> Vec<String> {
        names.places(&Place::new("seeds", 7)).iter().map(Place::to_string).collect()
    }

    #[test]
    fn m1_4_an_address_needs_no_name_server() {
        let mut names = Names::default();
        assert_eq!(names.address(&Place::new("10.0.0.1", 7), at(0)), Some("10.0.0.1:7".parse().unwrap()));
        assert_eq!(names.address(&Place::new("fd00::1", 7), at(0)), Some("[fd00::1]:7".parse().unwrap()));
        names.want("10.0.0.1", at(0));
        assert_eq!(names.next(), None);
    }

    #[test]
    fn m1_4_a_name_is_looked_up_again_and_what_was_found_stays_until_something_else_is() {
        let mut names = Names::default();
        assert_eq!((names.address(&Place::new("seeds", 7), at(0)), places(&names)), (None, vec!["seeds:7".to_owned()]));
        assert_eq!(names.next().as_deref(), Some("seeds"));
        names.want("seeds", at(1));
        assert_eq!(names.next(), None, "it is being looked up");
        assert!(names.found("seeds", Ok(vec![ip("10.0.0.2"), ip("::ffff:10.0.0.1"), ip("10.0.0.2")]), at(10)));
        assert_eq!(places(&names), ["10.0.0.1:7", "10.0.0.2:7"]);
        assert_eq!(names.address(&Place::new("seeds", 7), at(4009)), Some("10.0.0.1:7".parse().unwrap()));
        assert_eq!(names.next(), None, "it is fresh still");
        names.want("seeds", at(4010));
        assert_eq!(names.next().as_deref(), Some("seeds"));
        assert!(!names.found("seeds", Err("no such host".into()), at(4020)));
        assert!(!names.found("seeds", Ok(vec![]), at(4020)));
        assert_eq!(places(&names).len(), 2);
        assert!(!names.found("seeds", Ok(vec![ip("10.0.0.1"), ip("10.0.0.2")]), at(4030)), "nothing new");
        assert!(names.found("seeds", Ok(vec![ip("10.0.0.3")]), at(4040)));
        assert_eq!(places(&names), ["10.0.0.3:7"]);
    }

    #[test]
    fn m1_4_few_names_are_looked_up_at_a_time_and_no_more_are_remembered_than_there_is_room_for() {
        let mut names = Names::default();
        (0..9).for_each(|number| names.want(&format!("n{number}"), at(0)));
        let asked: Vec<_> = std::iter::from_fn(|| names.next()).collect();
        assert_eq!(asked.len(), AT_A_TIME);
        names.found("n0", Ok(vec![]), at(0));
        assert_eq!(names.next().as_deref(), Some("n4"));
        for number in 0..MOST + 5 {
            names.found(&format!("m{number}"), Ok(vec![ip("10.0.0.1")]), at(0));
            names.want(&format!("w{number}"), at(0));
        }
        assert_eq!((names.known.len(), names.wanted.len()), (MOST, MOST));
    }

    #[test]
    fn m1_4_a_name_with_very_many_addresses_counts_with_some_of_them() {
        let mut names = Names::default();
        let many = (0..=255u8).flat_map(|last| [[10, 0, 0, last], [10, 0, 1, last]]).map(IpAddr::from).collect();
        assert!(names.found("seeds", Ok(many), at(0)));
        assert_eq!(places(&names).len(), ADDRESSES);
    }
}
