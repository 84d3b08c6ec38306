//! Whether an answer tells of the same history as the one before it.
//!
//! An entry keeps the index at which it was created for as long as it is there. A server that has lost its state gives
//! each entry that registers again a new one, wherever its index has got to meanwhile. So entries that have kept their
//! own prove that nothing was lost. The oldest entries are compared: those that come are younger than all of them. And
//! where a member has a new entry in the same life it had to register again, so that others may have to, too: of the
//! answer before, the decoder knows all entries, and tells of it here.

use crate::topology::NodeId;

/// How many of the oldest entries are remembered.
const SAMPLE: usize = 16;

/// The oldest members of an answer and the indexes at which their entries were created. Empty if the server names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Sorted by index and id.
    oldest: Vec<(u64, NodeId)>,
    renewed: bool,
}

impl Lineage {
    /// Adds a member. An index of 0, which no server gives, is none.
    pub(super) fn add(&mut self, id: &NodeId, create_index: u64) {
        if create_index == 0 {
            return;
        }
        let place = self.oldest.partition_point(|(index, other)| (*index, other) < (create_index, id));
        if place < SAMPLE {
            self.oldest.truncate(SAMPLE - 1);
            self.oldest.insert(place, (create_index, id.clone()));
        }
    }

    /// Tells whether a member registered again since the answer before, in the same life.
    pub(super) fn set_renewed(&mut self, renewed: bool) {
        self.renewed = renewed;
    }

    /// What [`set_renewed`](Self::set_renewed) told.
    #[cfg(test)]
    pub(super) fn is_renewed(&self) -> bool {
        self.renewed
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.oldest.is_empty()
    }

    /// Whether most of the members that are in both have kept their entries, and more than one. One alone may have been
    /// given its former index by chance, since every history begins with low ones.
    pub(super) fn continues(&self, before: &Lineage) -> bool {
        let (kept, renewed) = self.compare(before);
        kept > 1.max(renewed)
    }

    /// Whether a member has another entry than before, or than in the answer before.
    pub(super) fn renews(&self, before: &Lineage) -> bool {
        self.renewed || self.compare(before).1 > 0
    }

    /// How many of those that are in both have kept their entries, and how many have new ones.
    fn compare(&self, before: &Lineage) -> (usize, usize) {
        let former = |id| before.oldest.iter().find(|(_, other)| other == id).map(|(index, _)| *index);
        let both = || self.oldest.iter().filter_map(|(index, id)| former(id).map(|former| former == *index));
        let kept = both().filter(|same| *same).count();
        (kept, both().count() - kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(entries: &[(&str, u64)]) -> Lineage {
        let mut lineage = Lineage::default();
        for (id, index) in entries {
            lineage.add(&NodeId::new(*id).unwrap(), *index);
        }
        lineage
    }

    #[test]
    fn consul_point_8_entries_that_kept_their_indexes_prove_the_history() {
        let before = lineage(&[("a", 10), ("b", 11), ("d", 12)]);
        assert!(lineage(&[("b", 11), ("c", 20), ("d", 12)]).continues(&before));
        assert!(!lineage(&[("b", 11), ("c", 20)]).continues(&before), "one may be given its former index by chance");
        assert!(!lineage(&[("a", 20), ("b", 10), ("c", 11)]).continues(&before), "the same indexes, but of others");
        assert!(lineage(&[("a", 10), ("b", 11), ("d", 13)]).continues(&before));
        assert!(!lineage(&[("a", 10), ("b", 12), ("d", 12)]).renews(&lineage(&[])));
        assert!(!lineage(&[("a", 20), ("b", 11), ("d", 13)]).continues(&before), "most are new");
        assert!(!lineage(&[("c", 20)]).continues(&before), "all others");
        assert!(lineage(&[("a", 10), ("b", 12)]).renews(&before));
        assert!(!lineage(&[("a", 10), ("c", 12)]).renews(&before));
        assert!(!lineage(&[]).continues(&before) && !before.continues(&lineage(&[])));
    }

    #[test]
    fn consul_point_8_of_many_the_oldest_are_compared_in_whatever_order_they_come() {
        let ids: Vec<_> = (0..100).map(|n| format!("n{n}")).collect();
        let mut entries: Vec<_> = ids.iter().zip(1000u64..).map(|(id, index)| (id.as_str(), index)).collect();
        let before = lineage(&entries);
        entries.reverse();
        assert_eq!(lineage(&entries), before);
        assert_eq!(before.oldest.len(), SAMPLE);
        // Whoever comes is younger, and displaces nobody.
        entries.truncate(86);
        entries.extend([("new", 2000), ("newer", 2001)]);
        assert!(lineage(&entries).continues(&before));
        assert!(!lineage(&entries[..84]).continues(&before), "all of the sample are gone");
    }

    #[test]
    fn consul_point_3_an_entry_without_an_index_is_no_part_of_it() {
        assert!(lineage(&[("a", 0)]).is_empty());
        assert!(!lineage(&[("a", 5)]).is_empty());
    }
}
