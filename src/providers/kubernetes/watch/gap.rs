//! What the watch cannot tell, and a list has to.
//!
//! An event is lost if it cannot be said what it was about: a line that is too large, or no event. It may have been a
//! deletion, and nothing would ever mention that object again. The list comes some time later, and at a time of this
//! process's own: whoever sends something unusable all the time is not asked for a list each time.
//!
//! The server's history is another than the one that was followed if its state went back, as it does when a backup is
//! restored. A watch that waits for a version of the future looks like one at peace. So each watch that goes on from an
//! earlier one is followed by a [probe](super::probe) that asks for the server's present version: if that is lower than
//! what we have seen, there is a list. Versions are opaque; that these are numbers, and rise, is only taken as a hint,
//! which costs a list where it is wrong. A history that has overtaken ours by then is not noticed.
//!
//! Nor is an event that a server's cache or a proxy lets go without a sign. So there is a list once in a while in any case,
//! at a time of this process's own, which a host can set or do without.

use std::time::Duration;

use super::{Machine, Output};
use crate::clock::Timestamp;

/// When a list tells what was lost at the latest; drawn from the upper half.
pub(super) const LATEST: Duration = Duration::from_secs(60);

impl Machine {
    /// An event was lost.
    pub(super) fn lost(&mut self, now: Timestamp) {
        if self.gap.is_none_or(|gap| gap > now + LATEST) {
            self.gap = Some(now + self.jitter.scale(LATEST, 0.5));
        }
    }

    /// The server's present version, as it was asked for after we had seen `seen`: whether the watch can go on.
    pub(super) fn is_followed(&mut self, now: Timestamp, seen: &str, present: &str) -> bool {
        let went_back = is_lower(present, seen);
        if went_back {
            self.outputs.push_back(Output::Abort);
            self.relist();
            // Everyone who watches finds that out now.
            self.pause(now, None);
        }
        !went_back
    }
}

/// Whether both are numbers, and the first is the lesser.
fn is_lower(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(version), Ok(than)) if version < than)
}
