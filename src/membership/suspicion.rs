//! For how long a node may contradict an accusation: the dynamic suspicion of Lifeguard (section IV-B).
//!
//! A lone accuser may be wrong, so its suspicion lasts long. Each independent accuser makes it shorter, down to the shortest
//! timeout when as many as are expected agree.

use std::time::Duration;

use super::accusers::{Accusers, MOST};
use crate::clock::Timestamp;

/// The bounds of a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// When all agree who are expected to.
    pub(super) shortest: Duration,
    /// When one alone accuses.
    pub(super) longest: Duration,
}

/// How many confirmations beside the first accusation are expected in a cluster of so many members: three, where so many
/// others are left beside the accuser and the suspect.
pub(super) fn expected(members: usize) -> usize {
    members.saturating_sub(2).min(MOST - 1)
}

/// A suspicion under way.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    began: Timestamp,
    accusers: Accusers,
    expected: usize,
    bounds: Bounds,
    /// By how much it was stretched because the local health was bad when it ran out.
    stretched: Option<Duration>,
}

impl Suspicion {
    /// One that begins now. `expected`: see [`expected`].
    pub(super) fn new(accusers: Accusers, expected: usize, bounds: Bounds, now: Timestamp) -> Self {
        debug_assert!(bounds.shortest <= bounds.longest);
        Self { began: now, accusers, expected, bounds, stretched: None }
    }

    /// Others accuse too; whether they are new, so that it is worth to be told again.
    pub(super) fn confirm(&mut self, accusers: &Accusers) -> bool {
        self.accusers.merge(accusers)
    }

    pub(super) fn accusers(&self) -> &Accusers {
        &self.accusers
    }

    /// Whether the suspect has had time to hear of it, and its contradiction time to reach everybody: half of the shortest
    /// timeout.
    pub(super) fn could_be_contradicted(&self, now: Timestamp) -> bool {
        now.since(self.began) >= self.bounds.shortest / 2
    }

    pub(super) fn began(&self) -> Timestamp {
        self.began
    }

    /// When the suspect counts as dead, unless it contradicts.
    pub(super) fn ends_at(&self) -> Timestamp {
        self.began + self.timeout() + self.stretched.unwrap_or_default()
    }

    /// It has run out while the local health was bad: gives the suspect more time, once, for it may be the answer that is
    /// late. Whether it did.
    pub(super) fn stretch(&mut self, score: u32) -> bool {
        if score == 0 || self.stretched.is_some() {
            return false;
        }
        self.stretched = Some(self.bounds.shortest.saturating_mul(score));
        true
    }

    /// The process stood still: the time begins anew, for nobody could have been heard meanwhile.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.began = now;
    }

    /// `longest - (longest - shortest) * log(c + 1) / log(k + 1)` for c of k confirmations.
    fn timeout(&self) -> Duration {
        let Bounds { shortest, longest } = self.bounds;
        let confirmations = self.accusers.len().saturating_sub(1);
        if confirmations >= self.expected {
            return shortest;
        }
        let share = ((confirmations + 1) as f64).ln() / ((self.expected + 1) as f64).ln();
        longest - (longest - shortest).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::NodeId;

    const BOUNDS: Bounds = Bounds { shortest: Duration::from_secs(4), longest: Duration::from_secs(24) };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    fn accusers(count: usize) -> Accusers {
        (0..count).map(|n| NodeId::new(format!("a{n}")).unwrap()).collect()
    }

    fn lasts(count: usize, expected: usize) -> u64 {
        let suspicion = Suspicion::new(accusers(count), expected, BOUNDS, at(0));
        suspicion.ends_at().since(at(0)).as_millis() as u64
    }

    #[test]
    fn m2_4_each_accuser_shortens_the_suspicion_as_the_paper_has_it() {
        // log(2) / log(4) is a half; log(3) / log(4) is 0.7925.
        assert_eq!([1, 2, 3, 4].map(|count| lasts(count, 3)), [24_000, 14_000, 8_150, 4_000]);
        assert_eq!([1, 2].map(|count| lasts(count, 1)), [24_000, 4_000]);
        assert_eq!(lasts(1, 0), 4_000, "nobody else could confirm it");
    }

    #[test]
    fn m2_4_so_many_confirmations_are_expected_as_there_are_others() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 1000].map(expected), [0, 0, 0, 1, 2, 3, 3, 3]);
    }

    #[test]
    fn m2_4_only_a_new_accuser_moves_the_end() {
        let mut suspicion = Suspicion::new(accusers(1), 3, BOUNDS, at(0));
        assert!(!suspicion.confirm(&accusers(1)));
        assert_eq!(suspicion.ends_at(), at(24_000));
        assert!(suspicion.confirm(&accusers(2)));
        assert_eq!(suspicion.ends_at(), at(14_000));
        assert_eq!(suspicion.accusers(), &accusers(2));
        let is_accused_by = |id: &str| suspicion.accusers().iter().any(|accuser| accuser.as_str() == id);
        assert!(is_accused_by("a1") && !is_accused_by("a2"));
    }

    #[test]
    fn m3_1_a_node_that_is_ill_itself_waits_once_more_and_no_longer_than_its_score_allows() {
        let mut suspicion = Suspicion::new(accusers(4), 3, BOUNDS, at(0));
        assert!(!suspicion.stretch(0), "who is well blames in time");
        assert!(suspicion.stretch(2));
        assert_eq!(suspicion.ends_at(), at(12_000));
        assert!(!suspicion.stretch(8));
        assert_eq!(suspicion.ends_at(), at(12_000));
    }

    #[test]
    fn m3_1_after_a_standstill_the_time_begins_anew() {
        let mut suspicion = Suspicion::new(accusers(4), 3, BOUNDS, at(0));
        suspicion.restart(at(60_000));
        assert_eq!(suspicion.ends_at(), at(64_000));
    }
}
