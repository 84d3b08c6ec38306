//! What follows a watch that failed. One that was cut after it had lasted is routine behind a proxy that lets none last
//! longer, and may be the server's end as well.

use std::time::Duration;

use super::super::failure::{Failure, FailureKind};
use super::{Asked, Machine, Watch};
use crate::clock::Timestamp;

/// A poll that was cut after that long was worth asking for: some proxies cut every one.
const ROUTINE: Duration = Duration::from_secs(1);

impl Machine {
    /// A watch failed.
    pub(super) fn broke(&mut self, now: Timestamp, failure: Failure, asked: Asked) {
        let lasted = now.since(asked.since);
        match failure.kind {
            // The server refuses a token that was replaced meanwhile: it speaks, and the next request has the new one.
            FailureKind::Outdated => self.watch = Watch::Due(self.bucket.next(now)),
            FailureKind::Cut if asked.index.is_some() && lasted >= ROUTINE => self.cut(now, lasted),
            FailureKind::Cut if asked.index.is_some() => {
                self.unrest.cut();
                self.failed(now, failure.error);
            }
            FailureKind::Cut | FailureKind::Other => self.failed(now, failure.error),
        }
    }

    /// A poll was cut that had lasted. It is asked again at once, and if that fails there is an error. Else it may still
    /// have been the server's end, so that the members are compared; that has to fit into what is granted.
    fn cut(&mut self, now: Timestamp, lasted: Duration) {
        self.life.cut(self.number);
        self.doubt_continuity();
        self.unrest.interrupted();
        self.patience = Some(lasted);
        self.watch = Watch::Due(self.bucket.next(now));
    }

    /// Takes note of a poll that has lasted.
    pub(super) fn endured(&mut self, now: Timestamp) {
        let Watch::Pending { asked: Asked { index: Some(_), since, .. }, .. } = self.watch else { return };
        let lasted = now.since(since);
        if lasted >= ROUTINE {
            self.unrest.lasted();
            self.calm_down();
        }
        self.patience = self.patience.filter(|patience| lasted <= *patience);
    }
}
