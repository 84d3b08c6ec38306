//! Which members answer over the reliable channel and no datagram: a firewall that lets the one pass and not the other, or
//! a port that is mapped for the one alone. Loss looks like that now and then, and not three times in a row.

use std::collections::BTreeMap;

use crate::topology::NodeId;

/// After so many probes in a row it is told, and after as many times so many again.
const TOLD_AFTER: u32 = 3;
const TOLD_AGAIN: u32 = 60;
/// The most members that are counted so.
const MOST: usize = 1024;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    /// How many probes in a row only the reliable channel has answered.
    in_a_row: BTreeMap<NodeId, u32>,
}

impl Reach {
    /// The member has answered a datagram.
    pub(super) fn by_datagram(&mut self, id: &NodeId) {
        if !self.in_a_row.is_empty() {
            self.in_a_row.remove(id);
        }
    }

    /// Only the reliable channel has brought an answer to a probe; whether that is to be told.
    pub(super) fn reliably_alone(&mut self, id: &NodeId) -> bool {
        if self.in_a_row.len() >= MOST && !self.in_a_row.contains_key(id) {
            return false;
        }
        let count = self.in_a_row.entry(id.clone()).or_default();
        *count = count.saturating_add(1);
        *count == TOLD_AFTER || count.is_multiple_of(TOLD_AGAIN)
    }

    /// The member is gone.
    pub(super) fn forget(&mut self, id: &NodeId) {
        self.in_a_row.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn m3_1_a_member_that_answers_no_datagram_three_times_in_a_row_is_told_of_and_later_now_and_then() {
        let mut reach = Reach::default();
        let told: Vec<u32> = (1..=130).filter(|_| reach.reliably_alone(&id("a"))).collect();
        assert_eq!(told, [3, 60, 120]);
        assert!(!reach.reliably_alone(&id("b")) && !reach.reliably_alone(&id("b")));
        reach.by_datagram(&id("b"));
        assert!(!reach.reliably_alone(&id("b")), "not in a row");
        reach.forget(&id("a"));
        assert_eq!(reach.in_a_row.len(), 1);
    }

    #[test]
    fn m2_5_no_more_members_are_counted_than_there_is_room_for() {
        let mut reach = Reach::default();
        for number in 0..MOST + 9 {
            reach.reliably_alone(&id(&format!("n{number}")));
        }
        assert_eq!(reach.in_a_row.len(), MOST);
        assert!(!(0..9).any(|_| reach.reliably_alone(&id("beyond"))));
        assert!(!reach.reliably_alone(&id("n0")) && reach.reliably_alone(&id("n0")), "those who are there are counted");
    }
}
