//! What a registration finds out about its successor, the one of an edited definition of the same provider.
//!
//! All that it knows of it is that it holds the node by now. An agent knows services by their ids alone: a successor on
//! the same agent, whatever its URL is, has overwritten what was registered, and to deregister that would take the node
//! away. A successor on another agent of the cluster has left it standing, and it would be shown until its TTL is over.
//!
//! So each registration leaves a *seal* in the notes of its check, which no other one has. If the agent shows another
//! seal, it has been overwritten, and there is nothing to remove. If it shows ours, the successor is elsewhere, or has
//! been overwritten in turn; then ours is removed only once the catalog shows the node in the same life, passing, under
//! another seal, on another host. Where that does not show in time, as in another cluster or under another service,
//! it is left to expire. So the only instance of the node is never removed.

use serde::Deserialize;

use super::holding::{Check, Holding, Meta};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::encode;
use crate::topology::ClusterNode;

/// What tells a registration from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal(String);

impl Seal {
    /// That of a number that no other registration has.
    pub(super) fn new(number: u64) -> Self {
        Self(format!("cluster-provisioning registration {number:016x}"))
    }

    /// The notes of the check as it is written for the `write`th time. They differ each time: an agent newer than 1.9
    /// takes an equal registration for one that needs no writing, and so would never bring back what only the catalog
    /// lost.
    pub(super) fn notes(&self, write: u64) -> String {
        format!("{}, write {write}", self.0)
    }

    /// Whether these are the notes of a check under this seal.
    pub(super) fn is_on(&self, notes: &str) -> bool {
        notes.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
    }
}

/// The node whose registration it is.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) id: String,
    /// As the metadata has it; empty for none.
    incarnation: String,
}

impl Subject {
    pub(super) fn of(node: &ClusterNode) -> Self {
        let incarnation = Some(node.incarnation()).filter(|incarnation| *incarnation != 0);
        let incarnation = incarnation.map(|incarnation| incarnation.to_string()).unwrap_or_default();
        Self { id: node.id().as_str().to_owned(), incarnation }
    }

    /// The check that the node's heartbeats pass.
    pub(super) fn check(&self) -> String {
        format!("service:{}", self.id)
    }

    /// Where the agent tells what it holds of the node: with 200, 429 or 503 by how its checks are, or 404 if nothing.
    pub(super) fn agent_path(&self) -> String {
        format!("/v1/agent/health/service/id/{}", encode(&self.id))
    }

    /// Where the catalog tells who else is registered under the node's id in that service. The filter makes the answer
    /// small, and is left out where no expression can quote the id; who is meant is checked anyway.
    pub(super) fn catalog_path(&self, service: &str) -> String {
        let filter = self.filter("Service.ID").map(|filter| format!("&filter={filter}")).unwrap_or_default();
        format!("/v1/health/service/{}?consistent{filter}", encode(service))
    }

    /// The expression, encoded, that the field is the node's id; `None` where no expression can quote that.
    pub(super) fn filter(&self, field: &str) -> Option<String> {
        let quote = ['"', '`'].into_iter().find(|quote| !self.id.contains([*quote, '\\']))?;
        Some(encode(&format!("{field} == {quote}{}{quote}", self.id)))
    }

    /// The node's incarnation, as the metadata has it; empty for none.
    pub(super) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Whether its lives are told apart.
    pub(super) fn has_incarnation(&self) -> bool {
        !self.incarnation.is_empty()
    }

    /// The host on which the agent holds what that seal is on; `None` if it holds something else, or nothing.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedAnswer`].
    pub(super) fn host(
        &self,
        answer: &[u8],
        seal: &Seal,
        doing: &'static str,
    ) -> Result<Option<String>, ProvisioningError> {
        Ok(Holding::read(answer, doing)?.sealed(self, seal).map(|check| check.node.clone()))
    }

    /// Whether the catalog shows the node's successor: the same life of it, passing, under another seal than that, on
    /// another host.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedAnswer`].
    pub(super) fn is_elsewhere(
        &self,
        answer: &[u8],
        seal: &Seal,
        host: &str,
        doing: &'static str,
    ) -> Result<bool, ProvisioningError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            node: Host,
            service: Service,
            checks: Option<Vec<Check>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Host {
            node: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Service {
            #[serde(rename = "ID")]
            id: String,
            meta: Option<Meta>,
        }
        let entries: Vec<Entry> = read(answer, doing)?;
        Ok(entries.into_iter().any(|Entry { node, service, checks }| {
            let checks = checks.unwrap_or_default();
            let incarnation = service.meta.map(|meta| meta.incarnation).unwrap_or_default();
            let is_it = service.id == self.id && incarnation == self.incarnation && node.node != host;
            let passes = !checks.is_empty() && checks.iter().all(|check| check.status == "passing");
            is_it && passes && checks.iter().all(|check| !seal.is_on(&check.notes))
        }))
    }
}

pub(super) fn read<'a, T: Deserialize<'a>>(answer: &'a [u8], doing: &'static str) -> Result<T, ProvisioningError> {
    serde_json::from_slice(answer)
        .map_err(|_| ProvisioningError::new(ErrorCode::MalformedAnswer, doing, "what came is no answer of Consul's"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn subject(incarnation: u64) -> Subject {
        Subject::of(&ClusterNode::builder("n1", "10.0.0.1", 1).incarnation(incarnation).build().unwrap())
    }

    fn entry(host: &str, seal: &Seal) -> Value {
        json!({
            "Node": {"Node": host},
            "Service": {"ID": "n1", "Meta": {"id": "n1", "incarnation": "7"}},
            "Checks": [
                {"CheckID": "serfHealth", "Status": "passing", "Notes": ""},
                {"CheckID": "service:n1", "Status": "passing", "Notes": seal.notes(3)},
            ],
        })
    }

    #[test]
    fn consul_point_19_an_agent_that_shows_another_seal_holds_the_successors_registration() {
        let (ours, other) = (Seal::new(1), Seal::new(2));
        assert_ne!(ours, other);
        let held = |notes: &str| {
            let check = json!({"Node": "vm", "CheckID": "service:n1", "Status": "critical", "Notes": notes});
            let answer =
                json!({"AggregatedStatus": "critical", "Service": {"ID": "n1"}, "Checks": [check]}).to_string();
            subject(7).host(answer.as_bytes(), &ours, "testing").unwrap()
        };
        for ours in [ours.0.clone(), ours.notes(1), ours.notes(12)] {
            assert_eq!(held(&ours).as_deref(), Some("vm"), "{ours}");
        }
        assert_eq!((held(&other.notes(1)), held(""), held(&format!("{}0", ours.0))), (None, None, None));
        let nothing = br#"{"AggregatedStatus": "critical", "Service": null, "Checks": null}"#;
        assert_eq!(subject(7).host(nothing, &ours, "testing").unwrap(), None);
        let bad = subject(7).host(b"<html>", &ours, "testing").unwrap_err();
        assert_eq!(bad.code(), ErrorCode::MalformedAnswer);
    }

    #[test]
    fn consul_point_19_only_the_same_life_passing_under_another_seal_on_another_host_is_the_successor() {
        let (ours, other) = (Seal::new(1), Seal::new(2));
        let shown =
            |entries: Value| subject(7).is_elsewhere(entries.to_string().as_bytes(), &ours, "vm", "testing").unwrap();
        assert!(shown(json!([entry("vm", &ours), entry("vm2", &other)])));
        assert!(!shown(json!([entry("vm", &ours)])), "itself");
        assert!(!shown(json!([entry("vm", &other)])), "the same host");
        assert!(!shown(json!([entry("vm2", &ours)])), "ours, as another host has it");
        assert!(!shown(json!([])));
        let changed = |path: &str, value: Value| {
            let mut changed = entry("vm2", &other);
            *changed.pointer_mut(path).unwrap() = value;
            json!([entry("vm", &ours), changed])
        };
        assert!(!shown(changed("/Service/ID", json!("n10"))), "somebody else");
        assert!(!shown(changed("/Service/Meta/incarnation", json!("6"))), "left over from another life");
        assert!(!shown(changed("/Service/Meta", Value::Null)));
        assert!(!shown(changed("/Checks/1/Status", json!("critical"))), "left over, and expired");
        assert!(!shown(changed("/Checks/0/Status", json!("critical"))), "its host is dead");
        assert!(!shown(changed("/Checks", json!([]))));
        assert!(subject(7).is_elsewhere(b"{}", &ours, "vm", "testing").is_err());
        let mut nameless = entry("vm2", &other);
        nameless["Service"]["Meta"] = json!({"id": "n1"});
        let nameless = json!([nameless]).to_string();
        assert!(subject(0).is_elsewhere(nameless.as_bytes(), &ours, "vm", "testing").unwrap(), "without incarnations");
    }

    #[test]
    fn consul_point_19_an_id_is_quoted_in_the_filter_as_it_can_be() {
        let path = |id: &str| Subject { id: id.to_owned(), incarnation: String::new() }.catalog_path("or/ders");
        assert_eq!(path("a b"), "/v1/health/service/or%2Fders?consistent&filter=Service.ID%20%3D%3D%20%22a%20b%22");
        assert_eq!(path("a\"b"), "/v1/health/service/or%2Fders?consistent&filter=Service.ID%20%3D%3D%20%60a%22b%60");
        assert_eq!(path("a\\b"), "/v1/health/service/or%2Fders?consistent");
        assert_eq!(path("a\"`b"), "/v1/health/service/or%2Fders?consistent");
    }
}
