//! A connection to the agent with a thread of its own, so that a request can block while its owner does not.
//!
//! Requests are answered one at a time, in order. Whoever waits waits on a channel; breaking off shuts the HTTP client
//! down, which ends a request blocked on its socket at once. A thread that is stuck in a connect or name look-up is not
//! waited for: it ends by itself within the connect timeout.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::config::Config;
use super::mark::{self, Mark};
use super::watch::WatchAnswer;
use super::wire::{self, Decoder};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{BodyReader, Client, CredentialReader, Method, Request};
use crate::provider::{CancelGuard, CancelToken};
use crate::topology::Members;

/// The header in which a token travels.
pub(super) const TOKEN_HEADER: &str = "x-consul-token";

/// What a connection asks, and what it makes of the answer.
#[derive(Debug)]
pub(super) enum Ask {
    /// The members. Nodes equal to those believed are shared with them.
    Watch { number: u64, path: String, answer_timeout: Duration, believed: Option<Members> },
    /// The index only.
    Probe { path: String },
}

/// The end of a request.
#[derive(Debug)]
pub(super) enum Reply {
    /// Of the watch of that number.
    Watch(u64, Result<WatchAnswer, ProvisioningError>),
    /// Of a probe.
    Probe(Result<Mark, ProvisioningError>),
}

/// The present HTTP client; `None` once cancelled.
type Slot = Arc<Mutex<Option<Client>>>;

/// A connection. Dropping it breaks off what is under way and ends the thread.
pub(super) struct Connection {
    config: Arc<Config>,
    jobs: Sender<(Client, Ask)>,
    replies: Receiver<Reply>,
    slot: Slot,
    _on_cancel: CancelGuard,
}

impl Connection {
    /// Starts the thread. Nothing is connected before the first request.
    ///
    /// # Errors
    /// [`ErrorCode::ThreadRefused`].
    pub(super) fn open(
        config: &Arc<Config>,
        credential: CredentialReader,
        cancel: &CancelToken,
        role: &'static str,
    ) -> Result<Self, ProvisioningError> {
        let (jobs, inbox) = unbounded();
        let (outbox, replies) = unbounded();
        let decoder = Decoder::new(config.query.service());
        let mut worker = Worker { config: Arc::clone(config), credential, decoder };
        thread::Builder::new()
            .name(format!("consul-{role}"))
            .spawn(move || {
                for (client, ask) in inbox {
                    if outbox.send(worker.answer(&client, ask)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| {
                ProvisioningError::new(ErrorCode::ThreadRefused, "opening a connection to Consul", error.to_string())
            })?;
        let slot: Slot = Arc::new(Mutex::new(Some(Client::new(&config.target, config.connect_timeout))));
        let fired = Arc::clone(&slot);
        let on_cancel = cancel.on_cancel(move || shut_down(&fired));
        Ok(Self { config: Arc::clone(config), jobs, replies, slot, _on_cancel: on_cancel })
    }

    /// Sends a request. After a cancellation nothing is sent.
    pub(super) fn send(&self, ask: Ask) {
        if let Some(client) = lock(&self.slot).clone() {
            // The thread ends only by a panic, which shows as a disconnected channel of replies.
            let _ = self.jobs.send((client, ask));
        }
    }

    /// Where replies arrive, in the order of the requests; disconnected if the thread has ended.
    pub(super) fn replies(&self) -> &Receiver<Reply> {
        &self.replies
    }

    /// Breaks off the request under way, which then fails.
    pub(super) fn abort(&self) {
        let mut slot = lock(&self.slot);
        if let Some(client) = slot.take() {
            client.shutdown();
            *slot = Some(Client::new(&self.config.target, self.config.connect_timeout));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        shut_down(&self.slot);
    }
}

fn lock(slot: &Slot) -> std::sync::MutexGuard<'_, Option<Client>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shut_down(slot: &Slot) {
    if let Some(client) = lock(slot).take() {
        client.shutdown();
    }
}

struct Worker {
    config: Arc<Config>,
    credential: CredentialReader,
    decoder: Decoder,
}

impl Worker {
    fn answer(&mut self, client: &Client, ask: Ask) -> Reply {
        match ask {
            Ask::Watch { number, path, answer_timeout, believed } => {
                let doing = format!("watching service {}", self.config.query.service());
                let answer = self.ask(client, &path, answer_timeout, &doing).and_then(|(mark, mut body)| {
                    let read = |room: &mut [u8]| body.read(room);
                    let (members, skipped) = self.decoder.decode(read, believed.as_ref(), &doing)?;
                    Ok(WatchAnswer { mark, members, lineage: self.decoder.lineage().clone(), skipped })
                });
                Reply::Watch(number, answer)
            }
            Ask::Probe { path } => {
                let doing = format!("probing service {}", self.config.query.service());
                let answer = self.ask(client, &path, self.config.probe_timeout, &doing);
                Reply::Probe(answer.and_then(|(mark, mut body)| {
                    wire::check_list(|room| body.read(room), &doing)?;
                    Ok(mark)
                }))
            }
        }
    }

    /// Sends the request and reads the answer's head.
    fn ask(
        &mut self,
        client: &Client,
        path: &str,
        answer_timeout: Duration,
        doing: &str,
    ) -> Result<(Mark, BodyReader), ProvisioningError> {
        let token = self.credential.read()?;
        let url = format!("{}{path}", self.config.target.base());
        let answer = client.open(&Request {
            method: Method::GET,
            url: &url,
            body: None,
            credential: token.as_ref().map(|token| (TOKEN_HEADER, token)),
            answer_timeout,
            max_body: self.config.max_body,
            doing,
        })?;
        mark::admit(answer, token.as_ref(), doing)
    }
}
