//! What status and headers of an answer mean.

use std::time::Duration;

use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{BodyReader, HeaderMap, Incoming};
use crate::secret::Secret;

/// What the headers of an answer say about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The index; `None` if the header is missing, garbage or 0, which no server sends.
    pub(super) index: Option<u64>,
    /// How long ago the answering server heard of its leader; absent on old servers.
    pub(super) last_contact: Option<Duration>,
    /// Whether it knows a leader; absent on old servers, and where the agent streams.
    pub(super) known_leader: Option<bool>,
    /// Whether it may lag behind its leader: it says that it did not ask it, which it may do unasked, or it streams.
    pub(super) may_lag: bool,
}

/// Checks the status and reads the mark. The body of an answer that is none of 200 is read for the error's text.
///
/// # Errors
/// [`ErrorCode::AccessDenied`] for 401, 403 and results that ACLs filtered, [`ErrorCode::InvalidConfig`] for 400 and a
/// question that Consul cannot answer, [`ErrorCode::BackendUnavailable`] for any other status but 200; those of reading the body.
pub(super) fn admit(
    answer: Incoming,
    token: Option<&Secret>,
    doing: &str,
) -> Result<(Mark, BodyReader), ProvisioningError> {
    if answer.status == 200 {
        return Ok((mark(&answer.headers, doing)?, answer.body));
    }
    let refusal = answer.collect()?;
    let detail = format!("{}: {}", refusal.status, refusal.excerpt(token));
    let code = match refusal.status {
        401 | 403 => ErrorCode::AccessDenied,
        // A namespace where there are none, a filter that is none, plain HTTP to an HTTPS port.
        400 => ErrorCode::InvalidConfig,
        500 if blames_the_question(&refusal.body) => ErrorCode::InvalidConfig,
        _ => ErrorCode::BackendUnavailable,
    };
    Err(ProvisioningError::new(code, doing.to_owned(), detail))
}

/// Whether the text of an internal error says that it is the question's: Consul has no status for a filter that it does not
/// understand, nor for a datacenter that it does not know.
fn blames_the_question(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    ["No path to datacenter", "boolean expression evaluator"].iter().any(|blame| text.contains(blame))
}

/// Reads the mark of an answer of status 200.
///
/// # Errors
/// [`ErrorCode::AccessDenied`] for results that ACLs filtered.
pub(crate) fn mark(headers: &HeaderMap, doing: &str) -> Result<Mark, ProvisioningError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("x-consul-results-filtered-by-acls").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        let detail = "Consul left out what the token may not read: its policy needs read for the service, and for all the \
            nodes that its instances run on (node_prefix)";
        return Err(ProvisioningError::new(ErrorCode::AccessDenied, doing.to_owned(), detail));
    }
    // The agent answers from what it was streamed, and then says of every leader that it is unknown.
    let streams = text("x-consul-query-backend").is_some_and(|value| value.trim() == "streaming");
    let number = |name| text(name).and_then(|value| value.trim().parse::<u64>().ok());
    Ok(Mark {
        index: number("x-consul-index").filter(|index| *index > 0),
        last_contact: number("x-consul-lastcontact").map(Duration::from_millis),
        known_leader: text("x-consul-knownleader").filter(|_| !streams).and_then(|value| value.trim().parse().ok()),
        may_lag: streams || text("x-consul-effective-consistency").is_some_and(|value| value.trim() == "stale"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_3_an_index_of_0_or_garbage_is_none() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-consul-index", value.parse().unwrap());
            mark(&headers, "testing").unwrap().index
        };
        assert_eq!(read("7"), Some(7));
        for bad in ["0", "", "-1", "x", "99999999999999999999", "1.5"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let expected = Mark { index: None, last_contact: None, known_leader: None, may_lag: false };
        assert_eq!(mark(&HeaderMap::new(), "testing").unwrap(), expected);
    }

    #[test]
    fn consul_point_11_what_is_streamed_knows_no_leader_and_may_lag() {
        let mut headers = HeaderMap::new();
        headers.insert("x-consul-knownleader", "false".parse().unwrap());
        for (backend, known_leader, may_lag) in
            [("streaming", None, true), ("blocking-query", Some(false), false), ("", Some(false), false)]
        {
            headers.insert("x-consul-query-backend", backend.parse().unwrap());
            let mark = mark(&headers, "testing").unwrap();
            assert_eq!((mark.known_leader, mark.may_lag), (known_leader, may_lag), "{backend}");
        }
    }

    #[test]
    fn consul_point_11_an_answer_is_stale_only_where_the_server_says_that_it_did_not_ask_its_leader() {
        for (value, stale) in [("stale", true), (" stale ", true), ("leader", false), ("consistent", false)] {
            let mut headers = HeaderMap::new();
            headers.insert("x-consul-effective-consistency", value.parse().unwrap());
            assert_eq!(mark(&headers, "testing").unwrap().may_lag, stale, "{value}");
        }
    }
}
