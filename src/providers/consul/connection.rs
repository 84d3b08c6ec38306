//! What a connection to the agent asks, and what it makes of the answers, on its own thread.

use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use super::failure::{Failure, FailureKind};
use super::mark::{self, Mark};
use super::watch::WatchAnswer;
use super::wire::{self, Decoder};
use crate::credential::CredentialReader;
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{BodyReader, Client, Length, Method, Request};
use crate::provider::CancelToken;
use crate::providers::connection;
use crate::secret::Secret;
use crate::thread::{Purpose, Thread};
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
    Watch(u64, Result<WatchAnswer, Failure>),
    /// Of a probe.
    Probe(Result<Mark, Failure>),
}

/// A connection to the agent.
pub(super) type Connection = connection::Connection<Ask, Reply>;

/// Opens a connection to the agent.
///
/// # Errors
/// Those of [`connection::Connection::open`].
pub(super) fn open(
    config: &Arc<Config>,
    credential: CredentialReader,
    cancel: &CancelToken,
    purpose: Purpose,
) -> Result<Connection, ProvisioningError> {
    let decoder = Decoder::new(config.query.service());
    let mut worker = Worker { config: Arc::clone(config), credential, decoder };
    let place = connection::Place {
        target: &config.target,
        connect_timeout: config.connect_timeout,
        thread: Thread::Consul(purpose),
    };
    Connection::open(place, None, cancel, move |client, ask, reply| _ = reply(worker.answer(client, ask)))
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
                let answer =
                    self.ask(client, &path, answer_timeout, Length::Document, &doing).and_then(|(mark, mut body)| {
                        let read = |room: &mut [u8]| body.read(room);
                        let (members, skipped) = self.decoder.decode(read, believed.as_ref(), &doing)?;
                        Ok(WatchAnswer { mark, members, lineage: self.decoder.lineage().clone(), skipped })
                    });
                Reply::Watch(number, answer)
            }
            Ask::Probe { path } => {
                let doing = format!("probing service {}", self.config.query.service());
                let answer = self.ask(client, &path, self.config.probe_timeout, Length::Brief, &doing);
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
        length: Length,
        doing: &str,
    ) -> Result<(Mark, BodyReader), Failure> {
        let token = self.credential.read()?;
        let url = format!("{}{path}", self.config.target.base());
        let answer = client.open(&Request {
            method: Method::GET,
            url: &url,
            body: None,
            credential: token.as_ref().map(|token| (TOKEN_HEADER, token)),
            answer_timeout,
            max_body: self.config.max_body,
            length,
            doing,
        });
        let answer = answer.map_err(|error| {
            let is_cut = error.code() == ErrorCode::BackendUnavailable && client.was_sent();
            Failure { error, kind: if is_cut { FailureKind::Cut } else { FailureKind::Other } }
        })?;
        let status = answer.status;
        mark::admit(answer, token.as_ref(), doing).map_err(|error| {
            let kind = match status {
                408 | 504 => FailureKind::Cut,
                401 | 403 if self.is_replaced(token.as_ref()) => FailureKind::Outdated,
                _ => FailureKind::Other,
            };
            Failure { error, kind }
        })
    }

    /// Whether the token is another by now.
    fn is_replaced(&mut self, token: Option<&Secret>) -> bool {
        let Ok(present) = self.credential.read() else { return false };
        present.as_ref().map(Secret::expose) != token.map(Secret::expose)
    }
}
