//! Calls to the agent other than the watch and the probe: one blocking exchange each, on the caller's thread.

use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use super::connection::TOKEN_HEADER;
use crate::credential::CredentialReader;
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Answer, Client, JSON, Length, Method, Request};
use crate::provider::CancelToken;
use crate::secret::Secret;

/// The largest answer read; what these calls answer has a few hundred bytes, a list of a cluster's nodes aside.
const MAX_ANSWER: usize = 64 * 1024;

/// A connection to the agent.
pub(super) struct Agent {
    config: Arc<Config>,
    credential: CredentialReader,
    client: Client,
    was_sent: bool,
}

/// What is asked of the agent.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Option<&'a [u8]>,
    pub(super) answer_timeout: Duration,
    /// What is being done, for errors.
    pub(super) doing: &'static str,
}

impl Agent {
    /// Nothing is connected before the first call.
    pub(super) fn new(config: &Arc<Config>, credential: CredentialReader) -> Self {
        let client = Client::new(&config.target, config.connect_timeout);
        Self { config: Arc::clone(config), credential, client, was_sent: false }
    }

    /// Whether anything of the last call may have reached the agent.
    pub(super) fn was_sent(&self) -> bool {
        self.was_sent
    }

    /// The credential as it is now, to be handed to [`call`](Self::call).
    ///
    /// # Errors
    /// [`ErrorCode::TokenUnreadable`] if it could never be read.
    pub(super) fn credential(&mut self) -> Result<Option<Secret>, ProvisioningError> {
        self.credential.read()
    }

    /// Sends the call and reads the whole answer, whatever its status. A cancellation breaks it off; the next call
    /// connects anew.
    ///
    /// # Errors
    /// Those of [`Client::exchange`].
    pub(super) fn call(
        &mut self,
        call: &Call<'_>,
        token: Option<&Secret>,
        cancel: &CancelToken,
    ) -> Result<Answer, ProvisioningError> {
        self.was_sent = false;
        let breaking = self.client.clone();
        let guard = cancel.on_cancel(move || breaking.shutdown());
        let joint = if call.path.contains('?') { '&' } else { '?' };
        let scope = self.config.query.agent_scope();
        let url = match scope {
            "" => format!("{}{}", self.config.target.base(), call.path),
            scope => format!("{}{}{joint}{scope}", self.config.target.base(), call.path),
        };
        let answer = self.client.exchange(&Request {
            method: call.method.clone(),
            url: &url,
            body: call.body.map(|body| (JSON, body)),
            credential: token.map(|token| (TOKEN_HEADER, token)),
            answer_timeout: call.answer_timeout,
            max_body: MAX_ANSWER.max(self.config.max_body),
            length: Length::Document,
            doing: call.doing,
        });
        drop(guard);
        self.was_sent = self.client.was_sent();
        if cancel.is_cancelled() {
            self.client = Client::new(&self.config.target, self.config.connect_timeout);
        }
        answer
    }
}

/// What a status other than 200 means: [`ErrorCode::AccessDenied`] for 401 and 403, else `otherwise`.
pub(super) fn refusal(
    answer: &Answer,
    token: Option<&Secret>,
    otherwise: ErrorCode,
    doing: &'static str,
) -> ProvisioningError {
    let code = if matches!(answer.status, 401 | 403) { ErrorCode::AccessDenied } else { otherwise };
    ProvisioningError::new(code, doing, format!("{}: {}", answer.status, answer.excerpt(token)))
}
