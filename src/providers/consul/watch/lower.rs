//! Lower indexes of servers that show what is believed.
//!
//! Not every answer comes from the leader. Followers are behind one another, each at an index of its own, and what an
//! agent streams (the default since Consul 1.10) has an index that lags behind the plain one while nobody is registered.
//! So a lower index of one that may lag is no break of the timeline as long as its content agrees: the highest index stays
//! the measure, and the lower one is known from then on. A probe that meets it again confirms what is believed.
//!
//! A probe may also meet a lower index of which no members are known, and have the members looked into. If they agree,
//! whoever showed them, that index is no reason to look again, and confirms nothing.

/// How many of each kind are known. There are seldom more servers than that.
const KNOWN: usize = 8;

/// The lower indexes that are known.
#[derive(Debug, Default)]
pub(super) struct Lower {
    /// Under which what is believed was shown.
    shown: Vec<u64>,
    /// For which the members were looked into, and agreed.
    excused: Vec<u64>,
    /// For which they are being looked into.
    suspected: Option<u64>,
}

impl Lower {
    /// A server showed what is believed under that index.
    pub(super) fn agrees(&mut self, index: u64) {
        add(&mut self.shown, index);
    }

    /// Whether what is believed was shown under that index.
    pub(super) fn shows(&self, index: u64) -> bool {
        self.shown.contains(&index)
    }

    /// The members are looked into because a probe met that index.
    pub(super) fn suspect(&mut self, index: u64) {
        self.suspected = Some(index);
    }

    /// The members agree.
    pub(super) fn excuse(&mut self) {
        if let Some(index) = self.suspected.take() {
            add(&mut self.excused, index);
        }
    }

    /// Whether that index is no reason to look into the members.
    pub(super) fn excuses(&self, index: u64) -> bool {
        self.shows(index) || self.excused.contains(&index)
    }

    /// Something else is believed, or the servers may be others.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn add(known: &mut Vec<u64>, index: u64) {
    if !known.contains(&index) {
        if known.len() >= KNOWN {
            known.remove(0);
        }
        known.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_2_of_the_lower_indexes_the_latest_are_known_until_they_are_forgotten() {
        let mut lower = Lower::default();
        (0..20).for_each(|index| lower.agrees(index));
        lower.agrees(19);
        assert_eq!(lower.shown, (12..20).collect::<Vec<_>>());
        assert!(lower.shows(12) && lower.excuses(12) && !lower.shows(11));
        lower.forget();
        assert!(!lower.excuses(12));
    }

    #[test]
    fn consul_point_2_an_index_that_was_looked_into_is_excused_and_shows_nothing() {
        let mut lower = Lower::default();
        lower.suspect(7);
        assert!(!lower.excuses(7), "the members are not known yet");
        lower.excuse();
        assert!(lower.excuses(7) && !lower.shows(7));
        lower.suspect(8);
        lower.forget();
        lower.excuse();
        assert!(!lower.excuses(8));
    }
}
