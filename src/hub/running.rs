//! The threads that run the streams: one for each open stream.
//!
//! All of a provider's code runs on threads of its own, but for the actions of its cancel token, which run on the hub's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StreamCommand;
use super::mailbox::{Inbox, Outlet, Providers};
use super::rounds::StreamThreads;
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::SlotKey;
use crate::panics::{Foreign, caught, discard};
use crate::provider::{CancelToken, ClusterProvider, ProviderEvent, ProviderStream, ProviderTermination};
use crate::thread::Thread;

/// The streams' threads.
pub(super) struct RunningStreams {
    providers: Providers,
    running: BTreeMap<SlotKey, (u64, CancelToken)>,
    clock: Arc<dyn Clock>,
    alive: crossbeam_channel::Sender<()>,
}

impl RunningStreams {
    /// None. `alive` is held by each thread for as long as it runs.
    pub(super) fn new(clock: Arc<dyn Clock>, alive: crossbeam_channel::Sender<()>) -> Self {
        Self { providers: Providers::new(), running: BTreeMap::new(), clock, alive }
    }

    fn open(&mut self, key: SlotKey, generation: u64, inbox: &mut Inbox) {
        let Some((id, provider)) = self.providers.get(&key).cloned() else {
            // That its thread has ended is heard: no slot waits for a stream that never was.
            drop(inbox.open(key, generation, Arc::clone(&self.clock)));
            return;
        };
        let (cancel, alive) = (CancelToken::new(), self.alive.clone());
        let outlet = Arc::new(inbox.open(key, generation, Arc::clone(&self.clock)));
        let (theirs, token) = (Arc::clone(&outlet), cancel.clone());
        let work = move || {
            run_stream(provider, &theirs, &token);
            // The last thing that is heard of it: the next stream waits for it.
            drop(theirs);
            drop(alive);
        };
        match Thread::Watch(id.as_str()).spawn(work) {
            Ok(_) => _ = self.running.insert(key, (generation, cancel)),
            Err(error) => {
                let reason = ProvisioningError::new(ErrorCode::ThreadRefused, "opening a stream", error.to_string());
                outlet.report(ProviderEvent::Terminated(ProviderTermination::Errored { reason }));
            }
        }
    }
}

impl StreamThreads for RunningStreams {
    fn replace(&mut self, providers: Providers) -> Providers {
        // Also those whose threads have ended by themselves are forgotten.
        self.running.retain(|key, (_, cancel)| {
            let stays = providers.contains_key(key);
            if !stays {
                cancel.cancel();
            }
            stays
        });
        std::mem::replace(&mut self.providers, providers)
    }

    fn obey(&mut self, command: StreamCommand, inbox: &mut Inbox) {
        match command {
            StreamCommand::Open { key, generation } => self.open(key, generation, inbox),
            StreamCommand::Close { key, generation } => {
                inbox.close(key, generation);
                if self.running.get(&key).is_some_and(|(running, _)| *running == generation)
                    && let Some((_, cancel)) = self.running.remove(&key)
                {
                    cancel.cancel();
                }
            }
        }
    }

    fn end_all(&mut self) {
        for (_, cancel) in std::mem::take(&mut self.running).into_values() {
            cancel.cancel();
        }
        discard(std::mem::take(&mut self.providers));
    }
}

/// Runs one stream to its end. The provider is let go of before its end is told.
fn run_stream(provider: Foreign<Arc<dyn ClusterProvider>>, outlet: &Outlet, cancel: &CancelToken) {
    let failed = match guarded(|| provider.watch(cancel)) {
        Ok(mut stream) => {
            let outcome = guarded(|| {
                pump(&mut *stream, outlet, cancel);
                Ok(())
            });
            // Not while a panic of its own unwinds: a second one would end the process.
            discard(stream);
            outcome.err()
        }
        Err(reason) => Some(reason),
    };
    if let Some(reason) = failed {
        outlet.report(ProviderEvent::Terminated(ProviderTermination::Errored { reason }));
    }
}

/// A provider is foreign code: its panic is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, ProvisioningError>) -> Result<T, ProvisioningError> {
    let panicked = |panic| Err(ProvisioningError::new(ErrorCode::ProviderPanicked, "watching the topology", panic));
    caught(work).unwrap_or_else(panicked)
}

fn pump(stream: &mut dyn ProviderStream, outlet: &Outlet, cancel: &CancelToken) {
    loop {
        let event = stream.next();
        if cancel.is_cancelled() {
            return;
        }
        let last = matches!(event, ProviderEvent::Terminated(_));
        if !outlet.report(event) || last {
            return;
        }
    }
}
