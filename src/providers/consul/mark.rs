//! What status and headers of an answer mean.

use std::time::Duration;

use crate::error::{ErrorCode, ProvisioningError};
use crate::http::Answer;
use crate::secret::Secret;

/// What the headers of an answer say about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The index; `None` if the header is missing, garbage or 0, which no server sends.
    pub(super) index: Option<u64>,
    /// How long ago the answering server heard of its leader; absent on old servers.
    pub(super) last_contact: Option<Duration>,
    /// Whether it knows a leader; absent on old servers.
    pub(super) known_leader: Option<bool>,
    /// Whether the server says that it did not ask its leader, which it may do unasked.
    pub(super) stale: bool,
}

/// Checks the status and reads the mark.
///
/// # Errors
/// [`ErrorCode::AccessDenied`] for 401, 403 and results that ACLs filtered, [`ErrorCode::BackendUnavailable`] for any
/// other status but 200.
pub(super) fn mark(answer: &Answer, token: Option<&Secret>, doing: &str) -> Result<Mark, ProvisioningError> {
    let error = |code, detail: String| Err(ProvisioningError::new(code, doing.to_owned(), detail));
    match answer.status {
        200 => {}
        401 | 403 => {
            return error(ErrorCode::AccessDenied, format!("{}: {}", answer.status, answer.excerpt(token)));
        }
        status => return error(ErrorCode::BackendUnavailable, format!("{status}: {}", answer.excerpt(token))),
    }
    if answer.header("x-consul-results-filtered-by-acls").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return error(ErrorCode::AccessDenied, "the token's rights do not cover all of the service".to_owned());
    }
    let number = |name| answer.header(name).and_then(|value| value.trim().parse::<u64>().ok());
    Ok(Mark {
        index: number("x-consul-index").filter(|index| *index > 0),
        last_contact: number("x-consul-lastcontact").map(Duration::from_millis),
        known_leader: answer.header("x-consul-knownleader").and_then(|value| value.trim().parse().ok()),
        stale: answer.header("x-consul-effective-consistency").is_some_and(|value| value.trim() == "stale"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_3_an_index_of_0_or_garbage_is_none() {
        let read = |value: &str| {
            let mut headers = ureq::http::HeaderMap::new();
            headers.insert("x-consul-index", value.parse().unwrap());
            mark(&Answer { status: 200, headers, body: Vec::new() }, None, "testing").unwrap().index
        };
        assert_eq!(read("7"), Some(7));
        for bad in ["0", "", "-1", "x", "99999999999999999999", "1.5"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let none = Answer { status: 200, headers: ureq::http::HeaderMap::new(), body: Vec::new() };
        let expected = Mark { index: None, last_contact: None, known_leader: None, stale: false };
        assert_eq!(mark(&none, None, "testing").unwrap(), expected);
    }
}
