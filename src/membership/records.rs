//! What is known of each id, found at once.
//!
//! Each id that is known has a *slot*, by which others name it in four bytes and find it without reading any id. The slot of
//! an id that was forgotten is given to the next one that becomes known.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::record::Record;

/// The place of an id that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u32);

impl Slot {
    /// The number of the slot: less than there were ever ids known at a time.
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }

    #[cfg(test)]
    pub(super) fn of(number: u32) -> Self {
        Self(number)
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Records {
    slots: Vec<Option<Record>>,
    /// Those that are of nobody.
    free: Vec<Slot>,
    /// The slots by the hash of the id. Ids come from others: nobody may foresee which ones meet.
    by_id: HashTable<Slot>,
    hasher: RandomState,
}

impl Records {
    pub(super) fn get(&self, id: &str) -> Option<&Record> {
        self.at(self.slot(id)?)
    }

    pub(super) fn slot(&self, id: &str) -> Option<Slot> {
        let is_it = |slot: &Slot| self.at(*slot).is_some_and(|record| record.id().as_str() == id);
        self.by_id.find(self.hasher.hash_one(id), is_it).copied()
    }

    /// The record in that slot; `None` if nobody has the slot.
    pub(super) fn at(&self, slot: Slot) -> Option<&Record> {
        self.slots.get(slot.number())?.as_ref()
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All of them, in an order that depends only on who became known and was forgotten when.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.slots.iter().flatten()
    }

    /// The record takes the place of what was known of its id.
    pub(super) fn insert(&mut self, record: Record) {
        let Self { slots, free, by_id, hasher } = self;
        let id = |slot: &Slot| slots.get(slot.number()).and_then(Option::as_ref).map(|record| record.id().as_str());
        let (hash, own) = (hasher.hash_one(record.id().as_str()), record.id().as_str());
        let rehash = |slot: &Slot| id(slot).map_or(0, |id| hasher.hash_one(id));
        let slot = match by_id.entry(hash, |slot| id(slot) == Some(own), rehash) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                // There are far fewer than four billion: the table sees to that.
                let slot = free.pop().unwrap_or(Slot(u32::try_from(slots.len()).unwrap_or(u32::MAX)));
                place.insert(slot);
                slot
            }
        };
        match slots.get_mut(slot.number()) {
            Some(place) => *place = Some(record),
            None => slots.push(Some(record)),
        }
        self.check();
    }

    /// Nothing is known of that id any more.
    pub(super) fn remove(&mut self, id: &str) {
        let Self { slots, free, by_id, hasher } = self;
        let is_it = |slot: &Slot| {
            slots.get(slot.number()).and_then(Option::as_ref).is_some_and(|record| record.id().as_str() == id)
        };
        let Ok(entry) = by_id.find_entry(hasher.hash_one(id), is_it) else { return };
        let (slot, _) = entry.remove();
        if let Some(place) = slots.get_mut(slot.number()) {
            *place = None;
        }
        free.push(slot);
        self.check();
    }

    fn check(&self) {
        debug_assert_eq!(self.slots.len(), self.by_id.len() + self.free.len());
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::State;
    use super::*;
    use crate::topology::ClusterNode;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn record(name: &str, version: u64) -> Record {
        let node = ClusterNode::builder(name, "10.0.0.1", 7).build().unwrap();
        Record::new(Arc::new(node), version, State::Up, 0).unwrap()
    }

    #[test]
    fn m1_1_an_id_keeps_its_slot_until_it_is_forgotten_and_the_next_one_gets_it() {
        let mut records = Records::default();
        ["n1", "n2", "n3"].iter().for_each(|name| records.insert(record(name, 0)));
        let slot = records.slot("n2").unwrap();
        records.insert(record("n2", 5));
        assert_eq!((records.slot("n2"), records.len()), (Some(slot), 3));
        assert_eq!(records.at(slot).map(Record::version), Some(5));
        records.remove("n2");
        assert!(records.at(slot).is_none() && records.get("n2").is_none() && records.len() == 2);
        records.remove("n2");
        records.insert(record("n4", 0));
        assert_eq!((records.slot("n4"), records.len()), (Some(slot), 3));
        assert_eq!(records.iter().map(|record| record.id().as_str()).collect::<Vec<_>>(), ["n1", "n4", "n3"]);
    }

    proptest! {
        #[test]
        fn m1_1_records_are_found_by_id_and_by_slot_whatever_came_and_went(
            steps in prop::collection::vec((0u8..60, any::<bool>()), 0..400),
        ) {
            let (mut records, mut expected) = (Records::default(), BTreeMap::new());
            for (version, (n, comes)) in (0u64..).zip(steps) {
                let name = format!("n{n}");
                if comes {
                    records.insert(record(&name, version));
                    expected.insert(name, version);
                } else {
                    records.remove(&name);
                    expected.remove(&name);
                }
            }
            let mut found: Vec<_> = records.iter().map(|record| (record.id().to_string(), record.version())).collect();
            found.sort();
            prop_assert_eq!(&found, &expected.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(records.len(), expected.len());
            for n in 0..60 {
                let name = format!("n{n}");
                let by_slot = records.slot(&name).and_then(|slot| records.at(slot)).map(Record::version);
                prop_assert_eq!((records.get(&name).map(Record::version), by_slot), {
                    let version = expected.get(&name).copied();
                    (version, version)
                });
            }
        }
    }
}
