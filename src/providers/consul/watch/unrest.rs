//! What goes wrong again and again although answers keep coming. It is told for as long as it lasts: else the health would
//! change with every answer.
//!
//! Answers *contradict* each other if one shows a loss, and the whole answer that the leader is asked for thereupon does
//! not. Once that is chance: a follower lags, a member has come back meanwhile. Twice in a row it is a server, or something
//! before it, that answers queries of one kind wrongly. The whole answer is the one that counts; the other kind is tried
//! again after a pause.
//!
//! Polls that are cut at once, and never one that lasts, would have news come late.

use std::time::Duration;

use super::doubtful;
use crate::error::{ErrorCode, ProvisioningError};

/// So many contradictions in a row are no chance.
const CONTRADICTIONS: u32 = 2;
/// So many polls in a row that are cut at once are no chance either.
const CUTS: u32 = 3;
/// How long a kind of answer that was refuted is left alone; drawn from the upper half.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

/// Whose answers may be refuted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// The watch, when it asks with an index.
    Watch,
    Probe,
}

/// What goes wrong again and again.
#[derive(Debug, Default)]
pub(super) struct Unrest {
    /// Who has shown a loss that is looked into, and our index before it.
    heard: Option<(Witness, u64)>,
    /// How often each was refuted in a row.
    watch: u32,
    probe: u32,
    /// How many polls in a row were cut at once.
    cuts: u32,
}

impl Unrest {
    /// A loss was shown, and the leader is asked for a whole answer. Ours was that index.
    pub(super) fn heard(&mut self, witness: Witness, index: u64) {
        self.heard = Some((witness, index));
    }

    /// The whole answer is there; `refutes`: whether it shows that nothing is lost.
    pub(super) fn judged(&mut self, refutes: impl FnOnce(Witness, u64) -> bool) {
        let Some((witness, index)) = self.heard.take() else { return };
        let refuted = refutes(witness, index);
        let count = self.count(witness);
        *count = if refuted { count.saturating_add(1) } else { 0 };
    }

    /// That witness says the same as the whole answer.
    pub(super) fn agrees(&mut self, witness: Witness) {
        *self.count(witness) = 0;
    }

    /// What was shown is looked into no more: there was trouble meanwhile.
    pub(super) fn interrupted(&mut self) {
        self.heard = None;
    }

    /// A poll was cut at once.
    pub(super) fn cut(&mut self) {
        self.cuts = self.cuts.saturating_add(1);
    }

    /// A poll has lasted, or has brought news.
    pub(super) fn lasted(&mut self) {
        self.cuts = 0;
    }

    /// Whether the watch's answers with an index are refuted again and again.
    pub(super) fn contradicts_watch(&self) -> bool {
        self.watch >= CONTRADICTIONS
    }

    /// What goes wrong again and again, if anything does.
    pub(super) fn reason(&self) -> Option<ProvisioningError> {
        if self.contradicts_watch() {
            let detail = "answers contradict each other: with an index members are missing, without one they are there";
            return Some(doubtful(ErrorCode::DoubtfulAnswer, detail));
        }
        if self.probe >= CONTRADICTIONS {
            let detail =
                "answers contradict each other: the index of a query for nobody is lower than that of the members";
            return Some(doubtful(ErrorCode::DoubtfulAnswer, detail));
        }
        (self.cuts >= CUTS).then(|| {
            let detail = "queries that wait for news are cut off at once: news may come late";
            doubtful(ErrorCode::BackendUnavailable, detail)
        })
    }

    fn count(&mut self, witness: Witness) -> &mut u32 {
        match witness {
            Witness::Watch => &mut self.watch,
            Witness::Probe => &mut self.probe,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_5_a_witness_that_is_refuted_twice_in_a_row_is_told_until_it_agrees() {
        for (witness, other) in [(Witness::Watch, Witness::Probe), (Witness::Probe, Witness::Watch)] {
            let mut unrest = Unrest::default();
            let refute = |unrest: &mut Unrest, refuted| {
                unrest.heard(witness, 7);
                unrest.judged(|who, index| (who, index) == (witness, 7) && refuted);
            };
            for refuted in [true, false, true] {
                refute(&mut unrest, refuted);
                assert!(unrest.reason().is_none());
            }
            refute(&mut unrest, true);
            unrest.judged(|_, _| false);
            unrest.agrees(other);
            assert!(unrest.reason().is_some(), "nothing was heard, and the other says nothing of it");
            unrest.agrees(witness);
            assert!(unrest.reason().is_none());
            unrest.heard(witness, 7);
            unrest.interrupted();
            unrest.judged(|_, _| true);
            assert_eq!(*unrest.count(witness), 0);
        }
    }

    #[test]
    fn consul_point_7_polls_that_are_cut_at_once_are_told_from_the_third_in_a_row_on() {
        let mut unrest = Unrest::default();
        for cuts in 1..=4 {
            unrest.cut();
            assert_eq!(unrest.reason().is_some(), cuts >= 3);
        }
        unrest.lasted();
        assert!(unrest.reason().is_none());
    }
}
