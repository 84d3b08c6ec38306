//! Under which key each enabled provider is in force, and as which edition.
//!
//! A key belongs to a name: whatever a provider is defined as, it keeps its key for as long as a provider of its name is
//! in force. Another definition is another edition.

use crate::failover::SlotKey;
use crate::id::ProviderId;

/// A provider in force.
#[derive(Clone, Debug)]
pub(crate) struct Seat<P> {
    pub(crate) id: ProviderId,
    pub(crate) key: SlotKey,
    /// The later its definition, the greater; never used twice.
    pub(crate) edition: u64,
    pub(crate) provider: P,
}

/// The providers in force. `P` is what tells two editions apart.
#[derive(Debug)]
pub(crate) struct Roster<P> {
    seats: Vec<Seat<P>>,
    keys: SlotKey,
    editions: u64,
}

impl<P: PartialEq> Roster<P> {
    /// Nobody is in force yet.
    pub(crate) fn new() -> Self {
        Self { seats: Vec::new(), keys: 0, editions: 0 }
    }

    /// Exactly these are in force from here on, in this order. Names are unique.
    pub(crate) fn assign(&mut self, providers: impl IntoIterator<Item = (ProviderId, P)>) -> &[Seat<P>] {
        let former = std::mem::take(&mut self.seats);
        for (id, provider) in providers {
            let known = former.iter().find(|seat| seat.id == id);
            let key = known.map_or_else(|| next(&mut self.keys), |seat| seat.key);
            let same = known.filter(|seat| seat.provider == provider);
            let edition = same.map_or_else(|| next(&mut self.editions), |seat| seat.edition);
            self.seats.push(Seat { id, key, edition, provider });
        }
        &self.seats
    }
}

fn next(counter: &mut u64) -> u64 {
    *counter += 1;
    *counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_4_a_key_belongs_to_a_name_and_an_edition_to_a_definition() {
        let mut roster = Roster::new();
        let mut assign = |providers: &[(&str, char)]| -> Vec<(SlotKey, u64)> {
            let named = providers.iter().map(|(id, definition)| (ProviderId::new(id).unwrap(), *definition));
            roster.assign(named).iter().map(|seat| (seat.key, seat.edition)).collect()
        };
        assert_eq!(assign(&[("a", 'x'), ("b", 'x')]), [(1, 1), (2, 2)]);
        assert_eq!(assign(&[("b", 'x'), ("a", 'x')]), [(2, 2), (1, 1)], "another order");
        assert_eq!(assign(&[("a", 'y'), ("b", 'x')]), [(1, 3), (2, 2)], "an edit");
        assert_eq!(assign(&[("b", 'x')]), [(2, 2)]);
        assert_eq!(assign(&[("a", 'y'), ("b", 'x')]), [(3, 4), (2, 2)], "removed and registered again");
    }
}
