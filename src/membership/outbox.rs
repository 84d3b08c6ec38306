//! What waits to be taken, first in first out.
//!
//! One input may lead to thousands of outputs: whoever joins learns of everybody at once. The room for so many is given back
//! when all have been taken.

use std::collections::VecDeque;

/// So many have room at any time.
const KEPT: usize = 4;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Outbox<T>(VecDeque<T>);

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Outbox<T> {
    pub(super) fn put(&mut self, item: T) {
        self.0.push_back(item);
    }

    pub(super) fn take(&mut self) -> Option<T> {
        let item = self.0.pop_front();
        if self.0.is_empty() {
            // The next ones begin where these did, and not each at a place of memory that was not used for long.
            self.0.clear();
            self.0.shrink_to(KEPT);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m5_1_what_was_put_first_is_taken_first_and_the_room_for_many_is_given_back() {
        let mut outbox = Outbox::default();
        (0..1000).for_each(|n| outbox.put(n));
        assert!((0..1000).all(|n| outbox.take() == Some(n)));
        assert!(outbox.take().is_none() && outbox.0.capacity() <= KEPT);
        (0..3).for_each(|n| outbox.put(n));
        assert_eq!([outbox.take(), outbox.take(), outbox.take(), outbox.take()], [Some(0), Some(1), Some(2), None]);
    }
}
