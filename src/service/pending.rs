//! The thread that tries again what a start could not do: it asks the backends of pending providers, until all have
//! answered, and saves to a store that could not be written, until that is done; or until the service drains.

use std::sync::Weak;
use std::time::Duration;

use crossbeam_channel::select;

use super::provider_set::ProviderSet;
use crate::backoff::{Backoff, Jitter};
use crate::error::{ErrorCode, ProvisioningError};
use crate::panics::caught;
use crate::provider::CancelToken;
use crate::text::line::log_line;
use crate::thread::Thread;
use crate::validator::check_connectivity;

/// What the thread works with. It keeps the set only while it changes it: whoever drops the service finds the store free.
pub(super) struct PendingProviders {
    pub(super) set: Weak<ProviderSet>,
    pub(super) pauses: Backoff,
    pub(super) jitter: Jitter,
    /// How long the backends have for answering.
    pub(super) timeout: Duration,
    /// Fires when draining begins.
    pub(super) cancel: CancelToken,
}

impl PendingProviders {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ErrorCode::ThreadRefused`].
    pub(super) fn start(mut self) -> Result<(), ProvisioningError> {
        let work = move || {
            // Providers are foreign code. Each is caught where it is called, and here once more.
            if let Err(panic) = caught(|| while self.ask() {}) {
                log_line!(Error, "the thread that asks pending providers has panicked: {panic}");
            }
        };
        let spawned = Thread::Pending.spawn(work);
        let refused = |error: std::io::Error| {
            ProvisioningError::new(ErrorCode::ThreadRefused, "asking pending providers", error.to_string())
        };
        spawned.map(drop).map_err(refused)
    }

    /// Tries again after a pause; whether there is anything left to be tried.
    fn ask(&mut self) -> bool {
        select! {
            recv(self.cancel.receiver()) -> _ => return false,
            default(self.pauses.pause(&mut self.jitter)) => {}
        }
        let Some((unsaved, asked)) = self.set.upgrade().map(|set| (set.save_again(), set.pending())) else {
            return false;
        };
        if asked.is_empty() {
            return unsaved;
        }
        let answers = check_connectivity(&asked, self.timeout, &self.cancel);
        let set = self.set.upgrade().filter(|_| !self.cancel.is_cancelled());
        let Some(set) = set else { return false };
        set.accept(asked.into_iter().zip(answers));
        true
    }
}
