//! Calls to the API server other than lists, watches and probes: one blocking exchange each, on the caller's thread.

use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use super::login::Login;
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Answer, Client, Length, Method, Request};
use crate::provider::CancelToken;
use crate::secret::Secret;

/// The header in which a token travels.
const HEADER: &str = "authorization";
/// The largest answer read at least: an object has 1.5 MiB at the most.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// A connection to the API server.
pub(super) struct ApiServer {
    config: Arc<Config>,
    login: Login,
    client: Client,
    was_sent: bool,
}

/// What is asked.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// The document's type and the document.
    pub(super) body: Option<(&'static str, &'a [u8])>,
    pub(super) answer_timeout: Duration,
    /// What is being done, for errors.
    pub(super) doing: &'static str,
}

/// What a call was answered, without the token.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// The beginning of the body, for errors.
    pub(super) excerpt: String,
}

impl ApiServer {
    /// Nothing is connected before the first call.
    pub(super) fn new(config: &Arc<Config>, login: Login) -> Self {
        let client = Client::new(&config.target, config.connect_timeout);
        Self { config: Arc::clone(config), login, client, was_sent: false }
    }

    /// Whether anything of the last call may have reached the server.
    pub(super) fn was_sent(&self) -> bool {
        self.was_sent
    }

    /// Sends the call and reads the whole answer, whatever its status. A cancellation breaks it off; the next call
    /// connects anew.
    ///
    /// # Errors
    /// Those of [`Client::exchange`], and of reading the credential.
    pub(super) fn call(&mut self, call: &Call<'_>, cancel: &CancelToken) -> Result<Outcome, ProvisioningError> {
        self.was_sent = false;
        let token = self.login.read(cancel)?;
        let bearer = token.as_ref().map(bearer);
        let breaking = self.client.clone();
        let guard = cancel.on_cancel(move || breaking.shutdown());
        let answer = self.client.exchange(&Request {
            method: call.method.clone(),
            url: &format!("{}{}", self.config.target.base(), call.path),
            body: call.body,
            credential: bearer.as_ref().map(|bearer| (HEADER, bearer)),
            answer_timeout: call.answer_timeout,
            max_body: MAX_ANSWER.max(self.config.max_body),
            length: Length::Brief,
            doing: call.doing,
        });
        drop(guard);
        self.was_sent = self.client.was_sent();
        if cancel.is_cancelled() {
            self.client = Client::new(&self.config.target, self.config.connect_timeout);
        }
        let answer = answer?;
        self.login.answered(answer.status);
        let excerpt = excerpt(&answer, token.as_ref());
        Ok(Outcome { status: answer.status, body: answer.body, excerpt })
    }
}

impl Outcome {
    /// What a status other than a good one means: [`ErrorCode::InvalidConfig`] for 400, [`ErrorCode::AccessDenied`] for 401
    /// and 403, else `otherwise`.
    pub(super) fn refusal(&self, otherwise: ErrorCode, doing: &'static str) -> ProvisioningError {
        let code = match self.status {
            400 => ErrorCode::InvalidConfig,
            401 | 403 => ErrorCode::AccessDenied,
            _ => otherwise,
        };
        ProvisioningError::new(code, doing, format!("{}: {}", self.status, self.excerpt))
    }
}

/// The token as its header carries it, and the header.
pub(super) fn credential(bearer: &Secret) -> (&'static str, &Secret) {
    (HEADER, bearer)
}

/// The token as its header carries it.
pub(super) fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.expose()))
}

/// What the server says in a refusal: its message, or the beginning of the body. Without the token.
fn excerpt(answer: &Answer, token: Option<&Secret>) -> String {
    #[derive(serde::Deserialize)]
    struct Status {
        message: String,
    }
    match serde_json::from_slice::<Status>(&answer.body) {
        Ok(status) => Answer { status: answer.status, body: status.message.into_bytes() }.excerpt(token),
        Err(_) => answer.excerpt(token),
    }
}
