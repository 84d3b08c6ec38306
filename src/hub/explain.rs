//! The last decisions, in words, for people who ask why the topology is what it is.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::topology::Position;

/// How many decisions are kept.
const KEPT: usize = 64;

/// Something that the hub decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// The last delivery before it.
    pub after: Position,
    /// What and why, in words.
    pub text: String,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {}) {}", self.at, self.after, self.text)
    }
}

/// The last decisions.
#[derive(Debug, Default)]
pub(super) struct DecisionLog {
    decisions: VecDeque<Decision>,
    published: Arc<[Decision]>,
    changed: bool,
}

impl DecisionLog {
    pub(super) fn push(&mut self, decision: Decision) {
        log::info!("{} (after {})", decision.text, decision.after);
        if self.decisions.len() == KEPT {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
        self.changed = true;
    }

    /// The decisions, oldest first; copied only where they have changed.
    pub(super) fn published(&mut self) -> Arc<[Decision]> {
        if std::mem::take(&mut self.changed) {
            self.published = self.decisions.iter().cloned().collect();
        }
        Arc::clone(&self.published)
    }
}
