//! The proof, before a definition is accepted, that the token's rights suffice.
//!
//! Under a default policy of deny a request without sufficient rights is answered 200 with an empty list, which cannot
//! be told from an empty service. So the rights themselves are asked for, where the agent can tell them: to read the
//! service, to register it in member mode, and to read the nodes, without which Consul leaves all instances out. An
//! agent without ACLs, and one that does not know the question, refuse nothing here; a missing right then shows in
//! member mode, as an answer without the local node is doubtful.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::agent::{Agent, Call, refusal};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::Method;
use crate::provider::CancelToken;

const DOING: &str = "checking the token's rights";

/// What is to be proved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights<'a> {
    pub(super) service: &'a str,
    /// Whether the local node is going to be registered.
    pub(super) registers: bool,
    /// Whether the service was just seen to have instances: then its nodes can be read.
    pub(super) sees_instances: bool,
}

/// One answered question; fields that are not needed are not read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Verdict {
    allow: bool,
}

/// Proves the rights.
///
/// # Errors
/// [`ErrorCode::AccessDenied`], with the rule that is missing; those of the exchange.
pub(super) fn prove(
    agent: &mut Agent,
    rights: &Rights<'_>,
    answer_timeout: Duration,
    cancel: &CancelToken,
) -> Result<(), ProvisioningError> {
    let question = |resource, access, segment| json!({"Resource": resource, "Access": access, "Segment": segment});
    let questions = json!([
        question("service", "read", rights.service),
        question("service", "write", rights.service),
        question("node", "read", ""),
    ]);
    let token = agent.credential()?;
    let body = questions.to_string();
    let call = Call {
        method: Method::POST,
        path: "/v1/internal/acl/authorize",
        body: Some(body.as_bytes()),
        answer_timeout,
        doing: DOING,
    };
    let answer = agent.call(&call, token.as_ref(), cancel)?;
    match answer.status {
        200 => {}
        403 => return Err(refusal(&answer, token.as_ref(), ErrorCode::AccessDenied, DOING)),
        // 401: ACLs are off. Others: the agent does not know the question.
        _ => return Ok(()),
    }
    let Ok([read, write, nodes]) = serde_json::from_slice::<[Verdict; 3]>(&answer.body) else { return Ok(()) };
    let who = if token.is_some() { "the token" } else { "without a token one" };
    let denied = |what: &str, rule: String| {
        let detail = format!("{who} may not {what}; its policy needs {rule}");
        Err(ProvisioningError::new(ErrorCode::AccessDenied, DOING, detail))
    };
    let name = rights.service;
    if !read.allow {
        return denied("read the service", format!("service {name:?} {{ policy = \"read\" }}"));
    }
    if rights.registers && !write.allow {
        return denied("register the service", format!("service {name:?} {{ policy = \"write\" }}"));
    }
    if !nodes.allow && !rights.sees_instances && !some_node_is_readable(agent, answer_timeout, cancel)? {
        return denied("read any node", "node_prefix \"\" { policy = \"read\" }".into());
    }
    Ok(())
}

/// Whether the token may read at least one node: a cluster always has one.
fn some_node_is_readable(
    agent: &mut Agent,
    answer_timeout: Duration,
    cancel: &CancelToken,
) -> Result<bool, ProvisioningError> {
    let token = agent.credential()?;
    let call = Call { method: Method::GET, path: "/v1/catalog/nodes", body: None, answer_timeout, doing: DOING };
    let answer = agent.call(&call, token.as_ref(), cancel)?;
    let text = String::from_utf8_lossy(answer.body.get(..64).unwrap_or(&answer.body));
    let is_empty = text.split_whitespace().collect::<String>() == "[]";
    Ok(answer.status != 200 || !is_empty)
}
