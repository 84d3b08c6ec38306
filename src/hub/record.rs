//! What the hub has said so far: the positions of its deliveries, and its last decisions in words.
//!
//! Written through a [`Turn`](super::turn::Turn) only, which lasts for one tick.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::text::line::OneLine;
use crate::topology::Position;

/// How many decisions are kept.
const KEPT: usize = 64;

/// Something that the hub decided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// The last delivery before it.
    pub after: Position,
    /// What and why, in words; one line, whatever a backend had to say to it.
    pub text: String,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {}) {}", self.at, self.after, self.text)
    }
}

/// The positions given, and the decisions taken.
#[derive(Debug)]
pub(super) struct Record {
    last: Position,
    decisions: VecDeque<Decision>,
    published: Arc<[Decision]>,
    /// Whether decisions came that are not published yet.
    changed: bool,
}

impl Record {
    /// Of a hub that has said nothing yet.
    pub(super) fn new(epoch: u64) -> Self {
        let last = Position { epoch, seq_no: 0 };
        Self { last, decisions: VecDeque::new(), published: Arc::new([]), changed: false }
    }

    /// The position of the last delivery.
    pub(super) fn position(&self) -> Position {
        self.last
    }

    /// The position of the next delivery, which is the last one from here on.
    pub(super) fn next_position(&mut self) -> Position {
        self.last.seq_no += 1;
        self.last
    }

    /// Keeps a decision, and forgets the oldest if there are too many.
    pub(super) fn decide(&mut self, at: Timestamp, text: &str) {
        let text = OneLine(text).to_string();
        if self.decisions.len() == KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision { at, after: self.last, text });
        self.changed = true;
    }

    /// The decisions, oldest first; copied only where they have changed.
    pub(super) fn decisions(&mut self) -> Arc<[Decision]> {
        if std::mem::take(&mut self.changed) {
            self.published = self.decisions.iter().cloned().collect();
        }
        Arc::clone(&self.published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_1_positions_rise_by_one_and_the_last_64_decisions_are_kept_with_theirs() {
        let mut record = Record::new(7);
        assert!(record.decisions().is_empty());
        for number in 1..=70 {
            assert_eq!(record.next_position(), Position { epoch: 7, seq_no: number });
            record.decide(Timestamp::from_millis(number), &number.to_string());
        }
        record.decide(Timestamp::from_millis(71), "a\n2026 forged");
        assert_eq!(record.decisions()[63].text, "a\\n2026 forged");
        let decisions = record.decisions();
        assert_eq!((decisions.len(), &*decisions[0].text, decisions[63].after), (64, "8", record.position()));
        assert!(Arc::ptr_eq(&decisions, &record.decisions()), "copied only where they have changed");
    }
}
