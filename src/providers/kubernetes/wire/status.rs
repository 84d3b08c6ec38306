//! What a failure means: the `Status` of an ERROR event or of a refused request, which the official client looks at in
//! the same way.

use std::time::Duration;

use crate::error::{ErrorCode, ProvisioningError};
use crate::json::{self, Loose, Text, fields};
use crate::providers::kubernetes::object::{Failure, FailureKind};
use crate::secret::Secret;

/// How much of the server's message is repeated, in characters.
const MAX_MESSAGE: usize = 300;
/// The longest time that a server is left alone because it asks for it.
const MAX_RETRY_AFTER: u64 = 3600;
/// How servers before 1.19 say that they have not seen a version yet.
const TOO_LARGE: &str = "Too large resource version";

/// A `Status`.
#[derive(Default)]
pub(super) struct Status<'de> {
    code: Loose<u64>,
    reason: Loose<Text<'de>>,
    message: Loose<Text<'de>>,
    details: Loose<Details<'de>>,
}

#[derive(Default)]
struct Details<'de> {
    causes: Loose<Vec<Loose<Cause<'de>>>>,
    retry_after: Loose<u64>,
}

#[derive(Default)]
struct Cause<'de> {
    reason: Loose<Text<'de>>,
    message: Loose<Text<'de>>,
}

fields!(Status<'de>, "code" => code, "reason" => reason, "message" => message, "details" => details);
fields!(Details<'de>, "causes" => causes, "retryAfterSeconds" => retry_after);
fields!(Cause<'de>, "reason" => reason, "message" => message);

/// Why a request was refused with that HTTP status and body, of which the beginning is enough, and with that
/// `Retry-After`. The body is without the token.
pub(in crate::providers::kubernetes) fn failure(
    code: u16,
    body: &[u8],
    retry_after: Option<Duration>,
    doing: &str,
) -> Failure {
    let status = json::read::<Loose<Status<'_>>>(body).ok().and_then(Loose::good).unwrap_or_default();
    let Failure { kind, error, retry_after: of_status } = judge(Some(u64::from(code)), status, None, doing);
    let retry_after = retry_after.map(|time| time.min(Duration::from_secs(MAX_RETRY_AFTER)));
    Failure { kind, error, retry_after: retry_after.or(of_status) }
}

/// Why a watch cannot go on. The token is not repeated, should the server do so.
pub(super) fn of_event(status: Status<'_>, token: Option<&Secret>, doing: &str) -> Failure {
    judge(None, status, token, doing)
}

fn judge(http: Option<u64>, status: Status<'_>, token: Option<&Secret>, doing: &str) -> Failure {
    let token = token.map(Secret::expose).filter(|token| !token.is_empty());
    let without = |text: String| match token {
        Some(token) => text.replace(token, "***"),
        None => text,
    };
    let code = http.or_else(|| status.code.good()).unwrap_or_default();
    let reason = without(status.reason.text().unwrap_or_default());
    let message = without(status.message.text().unwrap_or_default());
    let details = status.details.good().unwrap_or_default();
    let causes = details.causes.good().unwrap_or_default();
    let is_too_large = message.contains(TOO_LARGE)
        || causes.into_iter().filter_map(Loose::good).any(|cause| {
            cause.reason.text().as_deref() == Some("ResourceVersionTooLarge")
                || cause.message.text().as_deref() == Some(TOO_LARGE)
        });
    let kind = match (code, &*reason) {
        (410, _) | (_, "Expired" | "Gone") => FailureKind::Gone,
        _ if is_too_large => FailureKind::AheadOfServer,
        (504, _) | (_, "Timeout") => FailureKind::AheadOfServer,
        (400, _) => FailureKind::BadRequest,
        (401, _) | (_, "Unauthorized") => FailureKind::Unauthorized,
        (403, _) | (_, "Forbidden") => FailureKind::Forbidden,
        (500, _) => FailureKind::Internal,
        _ => FailureKind::Other,
    };
    let error_code = match kind {
        FailureKind::Unauthorized | FailureKind::Forbidden => ErrorCode::AccessDenied,
        FailureKind::AheadOfServer if !is_too_large => ErrorCode::Timeout,
        // A selector that the server does not take, or plain HTTP to its port of HTTPS.
        FailureKind::BadRequest => ErrorCode::InvalidConfig,
        FailureKind::Gone
        | FailureKind::AheadOfServer
        | FailureKind::Internal
        | FailureKind::Unanswered
        | FailureKind::Other => ErrorCode::BackendUnavailable,
    };
    let retry_after = details.retry_after.good().filter(|seconds| *seconds > 0);
    Failure {
        kind,
        error: ProvisioningError::new(error_code, doing.to_owned(), told(code, &reason, &message)),
        retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.min(MAX_RETRY_AFTER))),
    }
}

/// What the server said, in one line.
fn told(code: u64, reason: &str, message: &str) -> String {
    let code = if code == 0 { String::new() } else { format!(" {code}") };
    let said = if message.is_empty() { reason } else { message };
    let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect();
    match said.trim() {
        "" => format!("the server answered with status{code}"),
        said => format!("the server answered with status{code}: {said}"),
    }
}
