//! The proof, before a definition is accepted, that the rights suffice.
//!
//! The objects are listed once, with a limit of one: that shows whether the server is there, knows the token and lets it
//! list. The rights to watch and to patch the local node's pod are asked for with a SelfSubjectAccessReview, which every
//! user may make; a server that does not let it be made proves nothing here, and a missing right shows in the watch.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::api_server::{ApiServer, Call, Outcome};
use super::query::{PODS, Query, Resource, SliceVersion};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{JSON, Method};
use crate::provider::CancelToken;

const LISTING: &str = "checking the connection to Kubernetes";
const ASKING: &str = "checking the rights";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// What is to be proved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights<'a> {
    pub(super) query: &'a Query,
    pub(super) watched: Resource,
    /// In member mode, the local node's pod.
    pub(super) pod: Option<&'a str>,
    pub(super) answer_timeout: Duration,
}

#[derive(Deserialize)]
struct Review {
    status: Verdict,
}

#[derive(Deserialize)]
struct Verdict {
    allowed: bool,
}

/// A list, of which only the kind is looked at.
#[derive(Deserialize)]
struct List {
    kind: String,
}

/// Proves the rights.
///
/// # Errors
/// [`ErrorCode::AccessDenied`], with the rule that is missing; [`ErrorCode::MalformedAnswer`] for what is no list;
/// [`ErrorCode::BackendUnavailable`]; those of the exchange.
pub(super) fn prove(
    server: &mut ApiServer,
    rights: &Rights<'_>,
    cancel: &CancelToken,
) -> Result<(), ProvisioningError> {
    let mut version = SliceVersion::V1;
    let mut answer = glance(server, rights, version, cancel)?;
    if answer.status == 404 {
        version = SliceVersion::V1Beta1;
        answer = glance(server, rights, version, cancel)?;
    }
    match answer.status {
        200 => {}
        403 => return Err(denied(&answer.excerpt, rights, rights.watched, "list")),
        _ => return Err(answer.refusal(ErrorCode::BackendUnavailable, LISTING)),
    }
    let is_list = serde_json::from_slice::<List>(&answer.body).is_ok_and(|list| list.kind.ends_with("List"));
    if !is_list {
        let detail = format!("what came is no list of objects: {}", answer.excerpt);
        return Err(ProvisioningError::new(ErrorCode::MalformedAnswer, LISTING, detail));
    }
    let patch = rights.pod.map(|pod| (PODS, "patch", Some(pod)));
    for (resource, verb, name) in [(rights.watched, "watch", None)].into_iter().chain(patch) {
        if !may(server, rights, resource, verb, name, cancel)? {
            return Err(denied("not allowed", rights, resource, verb));
        }
    }
    Ok(())
}

fn glance(
    server: &mut ApiServer,
    rights: &Rights<'_>,
    version: SliceVersion,
    cancel: &CancelToken,
) -> Result<Outcome, ProvisioningError> {
    let path = rights.query.glance(version);
    let call =
        Call { method: Method::GET, path: &path, body: None, answer_timeout: rights.answer_timeout, doing: LISTING };
    server.call(&call, cancel)
}

/// Whether we may do that; true if the server does not say.
fn may(
    server: &mut ApiServer,
    rights: &Rights<'_>,
    resource: Resource,
    verb: &str,
    name: Option<&str>,
    cancel: &CancelToken,
) -> Result<bool, ProvisioningError> {
    let attributes = json!({
        "namespace": rights.query.namespace(), "group": resource.group, "resource": resource.name, "verb": verb,
        "name": name.unwrap_or_default(),
    });
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    })
    .to_string();
    let call = Call {
        method: Method::POST,
        path: REVIEWS,
        body: Some((JSON, review.as_bytes())),
        answer_timeout: rights.answer_timeout,
        doing: ASKING,
    };
    let answer = server.call(&call, cancel)?;
    Ok(match answer.status {
        200 | 201 => serde_json::from_slice::<Review>(&answer.body).map_or(true, |review| review.status.allowed),
        _ => true,
    })
}

/// The refusal that names the rule which is missing.
fn denied(what: &str, rights: &Rights<'_>, resource: Resource, verb: &str) -> ProvisioningError {
    let detail = format!("{what}; {}", rule(rights.query.namespace(), resource, verb));
    ProvisioningError::new(ErrorCode::AccessDenied, ASKING, detail)
}

/// The rule that gives the right, as it is written into a Role.
pub(super) fn rule(namespace: &str, resource: Resource, verb: &str) -> String {
    let Resource { group, name } = resource;
    format!(
        "the Role in namespace {namespace:?} needs the rule {{apiGroups: [{group:?}], resources: [{name:?}], verbs: [{verb:?}]}}"
    )
}
