//! The lives of the providers' streams: when one is opened, given up and opened again.
//!
//! A stream that ends is opened again after a pause that grows with every failure. One that falls silent is given up,
//! and the next is opened only when its thread has ended, so that a stuck provider costs one thread, not many.

use std::cmp::Reverse;

use super::StreamCommand;
use super::core::{Ending, HubCore};
use super::slot::StreamState;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::{SlotKey, StandbyMode};
use crate::provider::{ProviderHealth, ProviderTermination};

impl HubCore {
    /// Opens the streams that are due, and in cold standby closes those that are not needed.
    pub(super) fn tend_streams(&mut self) {
        // All of them, in hot standby.
        let wanted = (self.failover.policy().standby == StandbyMode::Cold).then(|| self.wanted());
        let now = self.now;
        let reset = self.failover.policy().backoff_reset;
        for slot in &mut self.slots {
            if slot.tracker.health() == ProviderHealth::Healthy && now.since(slot.tracker.since()) >= reset {
                slot.backoff.reset();
            }
            let wanted = wanted.as_ref().is_none_or(|wanted| wanted.contains(&slot.key));
            match slot.stream {
                StreamState::Idle { reopen_at } if wanted && reopen_at <= now => {
                    slot.generation += 1;
                    slot.begun = false;
                    slot.stream = StreamState::Open { since: now };
                    self.streams.push(StreamCommand::Open { key: slot.key, generation: slot.generation });
                }
                StreamState::Open { .. } if !wanted => {
                    slot.stream = StreamState::Closing { pause: false };
                    // What it showed ages unwatched from here on: it counts for nothing until it watches again.
                    slot.tracker.forget();
                    self.streams.push(StreamCommand::Close { key: slot.key, generation: slot.generation });
                }
                _ => {}
            }
        }
        // Those that were closed just now.
        self.assess();
    }

    /// The thread of a stream has ended.
    pub(super) fn stream_closed(&mut self, key: SlotKey, generation: u64) {
        let now = self.now;
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key && slot.generation == generation) else {
            return;
        };
        match slot.stream {
            StreamState::Closing { pause: true } => {
                let pause = slot.backoff.pause(&mut self.jitter);
                slot.stream = StreamState::Idle { reopen_at: now + pause };
            }
            StreamState::Closing { pause: false } => slot.stream = StreamState::Idle { reopen_at: now },
            // It ended without a word: the same as an error.
            StreamState::Open { .. } => {
                let detail = "the stream's thread ended without a termination";
                let reason = ProvisioningError::new(ErrorCode::StreamFailed, "watching the topology", detail);
                self.terminated(key, ProviderTermination::Errored { reason }, Ending::ByItself);
            }
            StreamState::Idle { .. } => {}
        }
    }

    /// When a stream is due to be opened or given up.
    pub(super) fn stream_deadlines(&self) -> impl Iterator<Item = Timestamp> {
        self.slots.iter().filter_map(|slot| match slot.stream {
            StreamState::Idle { reopen_at } => Some(reopen_at),
            _ => slot.quiet_since().map(|since| since + self.failover.policy().silence_timeout),
        })
    }

    /// Gives up the streams that have said nothing for too long.
    pub(super) fn give_up_silent_streams(&mut self) {
        let silence = self.failover.policy().silence_timeout;
        let is_silent = |since: Timestamp| self.now.since(since) >= silence;
        let silent: Vec<SlotKey> =
            self.slots.iter().filter(|slot| slot.quiet_since().is_some_and(is_silent)).map(|slot| slot.key).collect();
        for key in silent {
            let detail = format!("no sign of life for {silence:?}");
            let reason = ProvisioningError::new(ErrorCode::StreamSilent, "watching the topology", detail);
            self.terminated(key, ProviderTermination::Errored { reason }, Ending::GivenUp);
            if let Some(generation) = self.slots.iter().find(|slot| slot.key == key).map(|slot| slot.generation) {
                self.streams.push(StreamCommand::Close { key, generation });
            }
        }
    }

    /// The providers that are to watch in cold standby: those of higher rank than the first healthy one, that one itself,
    /// and the one followed.
    fn wanted(&self) -> Vec<SlotKey> {
        let mut candidates = self.candidates();
        candidates.sort_by_key(|candidate| Reverse((candidate.shows_local_node, candidate.priority)));
        let mut wanted: Vec<SlotKey> = self.failover.active().into_iter().chain(self.failover.pinned()).collect();
        for candidate in candidates {
            wanted.push(candidate.key);
            if candidate.tracker.has_snapshot() && candidate.tracker.health() == ProviderHealth::Healthy {
                break;
            }
        }
        wanted
    }
}
