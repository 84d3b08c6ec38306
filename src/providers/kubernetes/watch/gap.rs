//! What the watch cannot tell: an event was lost, or the server's history is not the one that was followed. A list
//! closes such a gap, some time later.
//!
//! An event is lost if it cannot be said what it was about: a line that is too large, or no event. It may have been a
//! deletion, and nothing would ever mention that object again.
//!
//! Versions that fall show that the server's state went back, as it does when a backup is restored: what the watch would
//! have told in between is missing. Versions are opaque; that these are numbers, and rise, is only taken as a hint, which
//! costs a list where it is wrong. Without it the gap would stay, as a watch from a version that the server has not
//! reached yet is quiet until it has, and then goes on as if nothing had happened.
//!
//! The list comes some time later, and each process at a time of its own: whoever sends something unusable all the time is
//! not asked for a list each time, and not by everybody at once.

use std::time::Duration;

use super::Machine;
use crate::clock::Timestamp;

/// When a gap is closed at the latest; drawn from the upper half.
pub(super) const LATEST: Duration = Duration::from_secs(60);

impl Machine {
    /// There is a gap that a list has to close.
    pub(super) fn gap(&mut self, now: Timestamp) {
        if self.gap.is_none() {
            self.gap = Some(now + self.jitter.scale(LATEST, 0.5));
        }
    }

    /// Looks at the version that a line of the watch has.
    pub(super) fn follow(&mut self, now: Timestamp, version: String) {
        if self.version.as_deref().is_some_and(|before| is_earlier(&version, before)) {
            self.gap(now);
        }
        self.version = Some(version.into());
    }
}

/// Whether both are numbers, and the first is the lesser.
fn is_earlier(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(version), Ok(than)) if version < than)
}
