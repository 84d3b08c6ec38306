//! Who says that a node does not answer.

use crate::topology::NodeId;

/// The most accusers that are kept: the first, and the three independent confirmations that shorten a suspicion as far as
/// it goes (K of the Lifeguard paper, section IV-B).
pub(super) const MOST: usize = 4;

/// Distinct accusers of one node. Of more than [`MOST`] those with the least ids are kept, so that everybody keeps the
/// same ones, in whichever order they are heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accusers(Vec<NodeId>);

impl Accusers {
    /// One alone.
    pub(super) fn of(accuser: NodeId) -> Self {
        Self(vec![accuser])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &NodeId> {
        self.0.iter()
    }

    /// Adds those of the other; whether that changed anything.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let before = self.0.clone();
        for accuser in &other.0 {
            if let Err(place) = self.0.binary_search(accuser) {
                self.0.insert(place, accuser.clone());
            }
        }
        self.0.truncate(MOST);
        self.0 != before
    }
}

impl FromIterator<NodeId> for Accusers {
    fn from_iter<I: IntoIterator<Item = NodeId>>(accusers: I) -> Self {
        let mut all = Self::default();
        for accuser in accusers {
            all.merge(&Self::of(accuser));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accusers(ids: &[u8]) -> Accusers {
        ids.iter().map(|id| NodeId::new(format!("n{id:03}")).unwrap()).collect()
    }

    #[test]
    fn m2_3_the_same_accuser_counts_once_and_only_news_changes_anything() {
        let mut all = accusers(&[7]);
        assert!(!all.merge(&accusers(&[7])));
        assert!(all.merge(&accusers(&[3, 7])));
        assert_eq!(all, accusers(&[3, 7]));
        assert!(all.merge(&accusers(&[1, 2, 4])) && all == accusers(&[1, 2, 3, 4]));
        assert!(!all.merge(&accusers(&[9])), "four are enough, and everybody keeps the same ones");
    }

    proptest! {
        #[test]
        fn m2_3_accusers_merge_to_the_same_in_any_order(
            a in prop::collection::vec(0u8..12, 0..6),
            b in prop::collection::vec(0u8..12, 0..6),
            c in prop::collection::vec(0u8..12, 0..6),
        ) {
            let merged = |sets: [&[u8]; 3]| {
                let mut all = Accusers::default();
                sets.iter().for_each(|set| _ = all.merge(&accusers(set)));
                all
            };
            let all = merged([&a, &b, &c]);
            for order in [[&a, &c, &b], [&c, &b, &a], [&b, &a, &c]] {
                prop_assert_eq!(&all, &merged(order.map(Vec::as_slice)));
            }
            let mut right = accusers(&b);
            right.merge(&accusers(&c));
            let mut grouped = accusers(&a);
            grouped.merge(&right);
            prop_assert_eq!(&all, &grouped);
            prop_assert!(all.len() <= MOST && all.iter().is_sorted());
        }
    }
}
