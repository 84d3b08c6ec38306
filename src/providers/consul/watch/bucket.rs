//! How fast the watch may ask: a bucket of two tokens. A lone change after peace is asked for at once; answers that keep
//! coming at once are paced, the slower the longer they bring nothing new.

use std::time::Duration;

use crate::clock::Timestamp;

/// How long a token takes to come: no faster than consumers are served anyway (a snapshot per 100 ms).
pub(super) const TOKEN: Duration = Duration::from_millis(100);
/// The same once answers keep coming at once and bring nothing new.
const TOKEN_MAX: Duration = Duration::from_secs(1);

/// Bounds the rate of requests: two at once, then one per interval, which doubles while answers bring nothing new.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    /// When the bucket would be full.
    full_at: Timestamp,
}

impl Bucket {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { interval: TOKEN, full_at: now }
    }

    /// When the next request may be sent: as soon as there is one of the two tokens.
    pub(super) fn next(&self, now: Timestamp) -> Timestamp {
        let wait = self.full_at.since(now).saturating_sub(self.interval);
        now + wait
    }

    pub(super) fn take(&mut self, now: Timestamp) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    pub(super) fn adapt(&mut self, useful: bool) {
        self.interval = if useful { TOKEN } else { (self.interval * 2).min(TOKEN_MAX) };
    }
}
