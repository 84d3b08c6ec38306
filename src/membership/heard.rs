//! Which rumours have been heard before: most of what arrives has been.
//!
//! A rumour is told many times so that everybody hears of it once. Records merge to the same however often they come, so
//! that one whose very bytes were merged before need not be read again; a death that is not believed yet was not merged. Only a fingerprint of each is kept, in a place that
//! the fingerprint itself says: a later one takes the place of the former, which is read once more then.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The least and the most places.
const PLACES: (usize, usize) = (64, 4096);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Fingerprints, as soon as there are any; 0 is none.
    places: Vec<u64>,
    /// Others do not know it, and cannot choose bytes that have the fingerprint of somebody else's.
    secret: u64,
}

impl Heard {
    /// Nothing yet. `secret`: a random number.
    pub(super) fn new(secret: u64) -> Self {
        Self { places: Vec::new(), secret }
    }

    /// The fingerprint of a rumour; never 0.
    pub(super) fn fingerprint(&self, rumour: &[u8]) -> u64 {
        xxh3_64_with_seed(rumour, self.secret) | 1 << 63
    }

    /// Whether that rumour has been merged before.
    pub(super) fn knows(&self, fingerprint: u64) -> bool {
        self.places.get(self.place(fingerprint)) == Some(&fingerprint)
    }

    /// That rumour has been merged, in a cluster of so many members: there may be news of each of them at one time.
    pub(super) fn note(&mut self, fingerprint: u64, members: usize) {
        let places = members.next_power_of_two().clamp(PLACES.0, PLACES.1);
        if places > self.places.len() {
            let former = std::mem::replace(&mut self.places, vec![0; places]);
            former.into_iter().filter(|fingerprint| *fingerprint != 0).for_each(|fingerprint| self.put(fingerprint));
        }
        self.put(fingerprint);
    }

    /// What was heard is news again, and takes no room.
    pub(super) fn forget(&mut self) {
        self.places = Vec::new();
    }

    fn put(&mut self, fingerprint: u64) {
        let place = self.place(fingerprint);
        if let Some(known) = self.places.get_mut(place) {
            *known = fingerprint;
        }
    }

    fn place(&self, fingerprint: u64) -> usize {
        // There is a power of two of them, or none yet.
        fingerprint as usize & self.places.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m1_4_what_was_merged_is_known_until_it_has_to_make_room_or_somebody_is_forgotten() {
        let mut heard = Heard::new(7);
        let fingerprints: Vec<u64> = (0..200u8).map(|n| heard.fingerprint(&[n])).collect();
        assert!(!heard.knows(fingerprints[0]));
        heard.note(fingerprints[0], 3);
        assert!(heard.knows(fingerprints[0]) && !heard.knows(fingerprints[1]));
        heard.note(fingerprints[1], 1000);
        assert!(heard.knows(fingerprints[0]), "also where there are more places now");
        fingerprints.iter().for_each(|fingerprint| heard.note(*fingerprint, 1000));
        let known = fingerprints.iter().filter(|fingerprint| heard.knows(**fingerprint)).count();
        assert!(known > 173, "{known} of 200 in a thousand places: each tenth meets another one");
        assert!(fingerprints.iter().all(|fingerprint| fingerprint >> 63 == 1), "none is what an empty place holds");
        assert_eq!(heard.places.len(), 1024);
        heard.forget();
        assert!(fingerprints.iter().all(|fingerprint| !heard.knows(*fingerprint)));
        assert!(heard.places.is_empty());
    }

    #[test]
    fn m1_4_another_member_gives_the_same_bytes_another_fingerprint_and_the_places_are_bounded() {
        let mut heard = Heard::new(7);
        assert_ne!(heard.fingerprint(b"n1"), Heard::new(8).fingerprint(b"n1"));
        heard.note(heard.fingerprint(b"n1"), usize::MAX / 4);
        assert_eq!(heard.places.len(), PLACES.1);
    }

    #[test]
    fn m1_4_with_more_places_nothing_is_lost_and_with_fewer_members_there_are_no_fewer_places() {
        let mut heard = Heard::new(7);
        // It has the first of all places, as what an empty place holds would.
        let first = 1 << 63;
        heard.note(first, 3);
        heard.note(first | 5, 1000);
        assert!(heard.knows(first) && heard.knows(first | 5));
        heard.note(first | 6, 3);
        assert_eq!((heard.places.len(), heard.knows(first | 5)), (1024, true));
    }
}
