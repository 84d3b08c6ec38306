//! The probe's rules: a small request on a connection of its own, every few seconds, that tells silence from peace.
//!
//! A watch is quiet while nothing changes, and looks the same when its server stands still. The probe proves only that a
//! server lives, which may be another one than the watch's. So it confirms the members (`Heartbeat { current: true }`)
//! only if it was sent while the watch was open, and the watch gives no reason to doubt its connection: a probe that
//! failed, or a standstill of the whole process, is one until the watch shows a line, and so are [watches before
//! it](super::trust) that were worth nothing. When the server answers again,
//! and no line has come, the watch is opened anew from where it was, which costs next to nothing.
//!
//! While the next request waits for its time nothing is probed, and a failure is not told a second time.

use std::sync::Arc;
use std::time::Duration;

use super::{Machine, Output, Phase, Watching};
use crate::clock::Timestamp;
use crate::error::ProvisioningError;
use crate::provider::ProviderEvent;

/// The longest pause between probes while something is wrong: a server that stands still has to show its third error
/// before silence would tell.
const HASTE: Duration = Duration::from_secs(1);

/// A probe under way, or the time of the next.
#[derive(Debug)]
pub(super) enum Probe {
    Due(Timestamp),
    /// With the number of the watch that was open as it was sent, and what had been seen then if the server's version
    /// was asked for.
    Pending(Option<u64>, Option<Arc<str>>),
}

impl Machine {
    pub(super) fn may_probe(&self) -> bool {
        !matches!(self.phase, Phase::Due(_))
    }

    pub(super) fn send_probe(&mut self) {
        let followed = !matches!(self.phase, Phase::Watching(Watching { followed: false, .. }));
        let seen = self.version.clone().filter(|_| !followed);
        self.outputs.push_back(Output::Probe { version: seen.is_some() });
        self.probe = Probe::Pending(self.open_watch(), seen);
    }

    /// The next probe is at that time, unless one is under way.
    pub(super) fn set_probe(&mut self, at: Timestamp) {
        if let Probe::Due(due) = &mut self.probe {
            *due = at;
        }
    }

    /// A moment after a request that goes out then: it says itself whether the server lives.
    pub(super) fn probe_after(&mut self, at: Timestamp) {
        let next = at + self.jitter.scale(self.settings.probe_interval.min(HASTE), 0.5);
        self.set_probe(next);
    }

    fn next_probe(&mut self, now: Timestamp) -> Timestamp {
        let interval = self.settings.probe_interval;
        if self.failing {
            now + self.jitter.scale(interval.min(HASTE), 0.5)
        } else {
            now + self.jitter.scale(interval, 0.9)
        }
    }

    pub(super) fn probed(&mut self, now: Timestamp, result: Result<Option<String>, ProvisioningError>) {
        let open = self.open_watch();
        let Probe::Pending(watch, seen) = &mut self.probe else { return };
        let (watch, seen) = (*watch, seen.take());
        match result {
            Err(_) if !self.may_probe() => {}
            Err(error) => {
                self.suspect();
                self.report(now, ProviderEvent::Degraded { error });
            }
            Ok(_) if self.is_suspect() => {
                self.outputs.push_back(Output::Abort);
                self.pause(now, None);
                self.alive(now, false);
            }
            Ok(present) => {
                let same = open.is_some() && watch == open;
                let relied = self.is_relied_upon(now);
                let current = same && self.is_history_followed(now, seen, present) && relied;
                if current {
                    // Nothing may have been said of a node that was registered and is not there.
                    let members = self.directory.members();
                    self.sight(&members);
                }
                self.alive(now, current);
            }
        }
        self.probe = Probe::Due(now);
        match self.phase {
            Phase::Due(at) => self.probe_after(at),
            // It was opened meanwhile: what was asked before proves nothing of it.
            Phase::Watching(_) if watch != open => {}
            _ => {
                let next = self.next_probe(now);
                self.set_probe(next);
            }
        }
    }

    /// The server has answered while the watch was open: whether that can go on.
    fn is_history_followed(&mut self, now: Timestamp, seen: Option<Arc<str>>, present: Option<String>) -> bool {
        let (Some(seen), Phase::Watching(watching)) = (seen, &mut self.phase) else { return true };
        watching.followed = true;
        present.is_none_or(|present| self.is_followed(now, &seen, &present))
    }
}
