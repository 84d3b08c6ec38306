//! A connection to a backend with a thread of its own, so that a request can block while its owner does not.
//!
//! Requests are answered one at a time, in order; what a request is and what becomes of its answer is the provider's
//! business. Whoever waits waits on a channel; breaking off shuts the HTTP client down, which ends a request blocked on
//! its socket at once. A thread that is stuck in a connect or name look-up is not waited for: it ends by itself within
//! the connect timeout.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Client, Target};
use crate::provider::{CancelGuard, CancelToken};
use crate::providers::parameter::{Form, Parameter, Preset, millis, secs};
use crate::thread::Thread;

/// How long a connection may take to be there.
pub(in crate::providers) static CONNECT_TIMEOUT: Parameter = Parameter {
    name: "connect-timeout",
    default: Preset::Value("2s"),
    form: Form::Duration(millis(100), secs(30)),
    meaning: "how long a name look-up, and a connect with its TLS handshake, may take",
};

/// How long the answer to a probe may take.
pub(in crate::providers) static PROBE_TIMEOUT: Parameter = Parameter {
    name: "probe-timeout",
    default: Preset::Value("2s"),
    form: Form::Duration(millis(100), secs(5)),
    meaning: "how long that may take",
};

/// The present HTTP client; `None` once cancelled.
type Slot = Arc<Mutex<Option<Client>>>;

/// Where a connection leads, and how its thread is called.
#[derive(Clone, Copy, Debug)]
pub(in crate::providers) struct Place<'a> {
    pub(in crate::providers) target: &'a Target,
    pub(in crate::providers) connect_timeout: Duration,
    pub(in crate::providers) thread: Thread<'static>,
}

/// A connection that answers an `Ask` with one or more `Reply`. Dropping it breaks off what is under way and ends the
/// thread.
pub(in crate::providers) struct Connection<Ask, Reply> {
    target: Target,
    connect_timeout: Duration,
    jobs: Sender<(Client, Ask)>,
    replies: Receiver<Reply>,
    slot: Slot,
    _on_cancel: CancelGuard,
}

/// Where a request's replies go; false says that nobody waits for them any more.
pub(in crate::providers) type Replies<'a, Reply> = &'a dyn Fn(Reply) -> bool;

impl<Ask: Send + 'static, Reply: Send + 'static> Connection<Ask, Reply> {
    /// Starts the thread, on which `answer` is called with each request. At most `waiting` replies wait to be taken, or
    /// any number; whoever has more to say waits. Nothing is connected before the first request.
    ///
    /// # Errors
    /// [`ErrorCode::ThreadRefused`].
    pub(in crate::providers) fn open(
        place: Place<'_>,
        waiting: Option<usize>,
        cancel: &CancelToken,
        mut answer: impl FnMut(&Client, Ask, Replies<'_, Reply>) + Send + 'static,
    ) -> Result<Self, ProvisioningError> {
        let (jobs, inbox) = unbounded::<(Client, Ask)>();
        let (outbox, replies) = waiting.map_or_else(unbounded, bounded);
        place
            .thread
            .spawn(move || {
                let alive = std::cell::Cell::new(true);
                let reply = |reply| {
                    alive.set(outbox.send(reply).is_ok());
                    alive.get()
                };
                for (client, ask) in inbox {
                    answer(&client, ask, &reply);
                    if !alive.get() {
                        return;
                    }
                }
            })
            .map_err(|error| {
                ProvisioningError::new(ErrorCode::ThreadRefused, "opening a connection", error.to_string())
            })?;
        let client = Client::new(place.target, place.connect_timeout);
        let slot: Slot = Arc::new(Mutex::new(Some(client)));
        let fired = Arc::clone(&slot);
        let on_cancel = cancel.on_cancel(move || shut_down(&fired));
        Ok(Self {
            target: place.target.clone(),
            connect_timeout: place.connect_timeout,
            jobs,
            replies,
            slot,
            _on_cancel: on_cancel,
        })
    }
}

impl<Ask, Reply> Connection<Ask, Reply> {
    /// Sends a request. After a cancellation nothing is sent.
    pub(in crate::providers) fn send(&self, ask: Ask) {
        if let Some(client) = lock(&self.slot).clone() {
            // The thread ends only by a panic, which shows as a disconnected channel of replies.
            let _ = self.jobs.send((client, ask));
        }
    }

    /// Where replies arrive, in the order of the requests; disconnected if the thread has ended.
    pub(in crate::providers) fn replies(&self) -> &Receiver<Reply> {
        &self.replies
    }

    /// Breaks off the request under way, which then fails.
    pub(in crate::providers) fn abort(&self) {
        let mut slot = lock(&self.slot);
        if let Some(client) = slot.take() {
            client.shutdown();
            *slot = Some(Client::new(&self.target, self.connect_timeout));
        }
    }
}

impl<Ask, Reply> Drop for Connection<Ask, Reply> {
    fn drop(&mut self) {
        shut_down(&self.slot);
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Client>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shut_down(slot: &Slot) {
    if let Some(client) = lock(slot).take() {
        client.shutdown();
    }
}
