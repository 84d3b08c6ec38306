//! What the lines of a watch do: each is folded into the members at once, and what they changed together is told when no
//! more are at hand.

use std::time::Duration;

use super::{FailureKind, Line, Machine, Output, Phase, Sighting, Standing};
use crate::clock::Timestamp;
use crate::provider::{MemberChange, ProviderEvent};
use crate::providers::rival::is_rival;
use crate::topology::{Members, Revision};

/// Lines that never cease are told that often nevertheless.
const HELD_FOR: Duration = Duration::from_millis(100);
/// The most changes that are told at once.
const HELD_MAX: usize = 1000;

/// What has been folded and not been told yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    changes: Vec<MemberChange>,
    /// How many lines were unusable.
    skipped: usize,
    since: Option<Timestamp>,
}

impl Untold {
    /// When it is told at the latest.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.since.map(|since| since + HELD_FOR)
    }
}

impl Machine {
    /// No more lines are at hand: what they changed is told.
    pub(in crate::providers::kubernetes) fn flush(&mut self, now: Timestamp) {
        let Untold { changes, skipped, since } = std::mem::take(&mut self.untold);
        if since.is_none() {
            return;
        }
        let members = self.directory.members();
        self.sight(&members);
        let revision = self.version.as_ref().map_or(Revision::NONE, Revision::new);
        // Changes have no place for the count, the whole set has.
        self.report(
            now,
            match skipped {
                0 => ProviderEvent::Changes { changes, revision },
                _ => ProviderEvent::Snapshot { members, revision, skipped },
            },
        );
    }

    pub(super) fn line_arrived(&mut self, now: Timestamp, line: Line) {
        if let Line::Error(failure) = line {
            self.flush(now);
            self.outputs.push_back(Output::Abort);
            // The others say themselves what they lead to.
            if matches!(failure.kind, FailureKind::Forbidden | FailureKind::Internal | FailureKind::Other) {
                self.refused(now);
            }
            return self.failed(now, failure);
        }
        let Phase::Watching(watching) = &mut self.phase else { return };
        watching.heard = now;
        watching.suspect = false;
        // What answers with anything but events, and closes, is no better than what closes at once.
        if watching.spoke.is_none() && !matches!(line, Line::Unusable(_) | Line::Lost(_)) {
            watching.spoke = Some(now);
            self.spoke_up(now);
        }
        let (changes, version) = match line {
            Line::Upsert(object, version) => (self.directory.upsert(object), Some(version)),
            Line::Delete { name, uid, resource_version } => {
                (self.directory.delete(&name, uid.as_deref()), Some(resource_version))
            }
            Line::Bookmark(version) => (Vec::new(), Some(version)),
            Line::Unusable(version) => {
                self.untold.skipped += 1;
                (Vec::new(), version)
            }
            Line::Lost(version) => {
                self.untold.skipped += 1;
                self.lost(now);
                (Vec::new(), version)
            }
            Line::Error(_) => return,
        };
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            self.version = Some(version.into());
        }
        self.untold.changes.extend(changes);
        if !self.untold.changes.is_empty() || self.untold.skipped > 0 {
            let since = *self.untold.since.get_or_insert(now);
            if self.untold.changes.len() >= HELD_MAX || now.since(since) >= HELD_FOR {
                self.flush(now);
            }
        }
    }

    /// Looks for the registered local node. Another process has taken its id if that is registered in a later life, or in
    /// the same one elsewhere; an earlier life is what was there before.
    pub(super) fn sight(&mut self, members: &Members) {
        let (Some(local), Standing::Registered) = (&self.local, self.standing) else { return };
        let sighting = match members.get(local.id()) {
            None => Sighting::Absent,
            Some(shown) if is_rival(shown, local) => Sighting::Taken,
            Some(_) => Sighting::Present,
        };
        let before = std::mem::replace(&mut self.sighted, sighting);
        if sighting == Sighting::Absent || sighting != before {
            self.outputs.push_back(Output::Sighted(sighting));
        }
    }
}
