//! What the agent holds of the node, and what the catalog shows of that: read from their answers and judged, without
//! asking anything.
//!
//! A member counts where all checks of its instance pass, whoever made them. So whoever is registered and not shown may
//! be *in maintenance*, which is meant and stays; *held back* by a check that is not its own; *displaced* by a
//! registration of another service, since an agent has one instance of each id; or *missing* from the catalog, where a
//! write helps. Our own check may be written by others too: an earlier life's HTTP check of the same id goes on beside
//! a TTL that replaces it, until it is removed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::succession::{Seal, Subject, read};
use crate::error::ProvisioningError;
use crate::http::encode;

const SERVICE_MAINTENANCE: &str = "_service_maintenance:";
const NODE_MAINTENANCE: &str = "_node_maintenance";
const PASSING: &str = "passing";
/// How much of a check's output is quoted, in characters.
const QUOTED: usize = 200;

/// A check, at the agent and in the catalog.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Check {
    #[serde(default)]
    pub(super) node: String,
    #[serde(rename = "CheckID")]
    pub(super) id: String,
    /// Empty where it is the host's.
    #[serde(rename = "ServiceID", default)]
    service: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) notes: String,
    #[serde(default)]
    output: String,
    /// How it is checked: `ttl`, `http` and so on; empty on agents that do not say.
    #[serde(rename = "Type", default)]
    kind: String,
}

impl Check {
    fn is_maintenance(&self) -> bool {
        self.id == NODE_MAINTENANCE || self.id.starts_with(SERVICE_MAINTENANCE)
    }

    fn passes(&self) -> bool {
        self.status == PASSING
    }
}

/// What an agent holds under the node's id.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Holding {
    #[serde(default)]
    checks: Option<Vec<Check>>,
    #[serde(default)]
    service: Option<Instance>,
}

/// An instance of a service.
#[derive(Deserialize)]
struct Instance {
    #[serde(rename = "Service", default)]
    name: String,
    #[serde(rename = "Meta", default)]
    meta: Option<Meta>,
}

/// What an instance's metadata tells of its life.
#[derive(Deserialize)]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) incarnation: String,
}

/// Why a registered node is not shown, as far as its agent can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The node is in maintenance, or its host; the reason that was given for its own.
    Maintenance(Option<String>),
    /// Somebody else's check does not pass: which, and what it says.
    HeldBack(String),
    /// The node's own check does not pass, as it stands at the agent.
    OwnCheck,
    /// The same, though its last pass is fresh: somebody else writes it, and would go on doing so beside the
    /// registration.
    Overwritten,
    /// Another registration has taken the id, in that service.
    Displaced(String),
    /// Nothing speaks against it at the agent on that host.
    Held(String),
}

impl Holding {
    /// # Errors
    /// [`ErrorCode::MalformedAnswer`](crate::ErrorCode::MalformedAnswer).
    pub(super) fn read(answer: &[u8], doing: &'static str) -> Result<Self, ProvisioningError> {
        read(answer, doing)
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().flatten()
    }

    /// The check under that seal.
    pub(super) fn sealed(&self, subject: &Subject, seal: &Seal) -> Option<&Check> {
        self.checks().find(|check| check.id == subject.check() && seal.is_on(&check.notes))
    }

    /// The other service in which the agent holds the node's id, if it does.
    fn other_service(&self, service: &str) -> Option<&Instance> {
        self.service.as_ref().filter(|instance| !instance.name.is_empty() && instance.name != service)
    }

    /// The other service in which this very life of the node is registered: by another provider of the same process.
    /// What is left of an earlier life is nobody's.
    pub(super) fn rival(&self, subject: &Subject, service: &str) -> Option<&str> {
        let instance = self.other_service(service)?;
        let incarnation = instance.meta.as_ref().map(|meta| meta.incarnation.as_str()).unwrap_or_default();
        (subject.has_incarnation() && incarnation == subject.incarnation()).then_some(instance.name.as_str())
    }

    /// Why the node is not shown. `is_fresh`: whether its check should pass by what was last sent.
    pub(super) fn finding(&self, subject: &Subject, service: &str, seal: &Seal, is_fresh: bool) -> Finding {
        let own = subject.check();
        let own_check = if is_fresh { Finding::Overwritten } else { Finding::OwnCheck };
        if let Some(other) = self.other_service(service)
            && self.sealed(subject, seal).is_none()
        {
            // Of a registration that is dead, nothing passes in the end: then the id is free.
            if self.checks().any(|check| check.id == own && check.passes()) {
                return Finding::Displaced(other.name.clone());
            }
            return own_check;
        }
        let failing = || self.checks().filter(|check| !check.passes());
        if failing().any(Check::is_maintenance) {
            let own = failing().find(|check| check.id.starts_with(SERVICE_MAINTENANCE));
            return Finding::Maintenance(own.map(|check| check.notes.clone()));
        }
        if let Some(check) = failing().find(|check| check.id != own) {
            let output: String = check.output.chars().take(QUOTED).collect();
            let whose = if check.service.is_empty() { "its host's check" } else { "the check" };
            return Finding::HeldBack(format!("{whose} {:?} is {}: {}", check.id, check.status, output.trim_end()));
        }
        match self.checks().find(|check| check.id == own) {
            Some(check) if check.passes() => Finding::Held(check.node.clone()),
            _ => own_check,
        }
    }
}

/// Where the agent tells of the checks that it has of the node, and how each is checked, which not every version tells
/// beside the service.
pub(super) fn checks_path(subject: &Subject) -> String {
    let filter = subject.filter("ServiceID").map(|filter| format!("?filter={filter}")).unwrap_or_default();
    format!("/v1/agent/checks{filter}")
}

/// The checks that would keep the node out, or write its own, and are not the registration's: what an earlier life
/// left. Maintenance is none of them.
///
/// # Errors
/// [`ErrorCode::MalformedAnswer`](crate::ErrorCode::MalformedAnswer).
pub(super) fn left_over(
    answer: &[u8],
    subject: &Subject,
    doing: &'static str,
) -> Result<Vec<String>, ProvisioningError> {
    let checks: BTreeMap<String, Check> = read(answer, doing)?;
    let own = subject.check();
    let is_left = |check: &Check| match check.id == own {
        true => !matches!(check.kind.as_str(), "" | "ttl"),
        false => check.service == subject.id && !check.is_maintenance(),
    };
    Ok(checks.into_values().filter(is_left).map(|check| check.id).collect())
}

/// Where the catalog tells of the checks that a host has of the node. The filter makes the answer small; who is meant
/// is checked anyway.
pub(super) fn catalog_path(subject: &Subject, host: &str) -> String {
    let filter = subject.filter("ServiceID").map(|filter| format!("?filter={filter}")).unwrap_or_default();
    format!("/v1/health/node/{}{filter}", encode(host))
}

/// Whether the catalog shows what is under that seal, passing.
///
/// # Errors
/// [`ErrorCode::MalformedAnswer`](crate::ErrorCode::MalformedAnswer).
pub(super) fn is_shown(
    answer: &[u8],
    subject: &Subject,
    seal: &Seal,
    doing: &'static str,
) -> Result<bool, ProvisioningError> {
    let checks: Option<Vec<Check>> = read(answer, doing)?;
    let is_ours = |check: &Check| check.id == subject.check() && seal.is_on(&check.notes) && check.passes();
    Ok(checks.iter().flatten().any(is_ours))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::topology::ClusterNode;

    fn subject(incarnation: u64) -> Subject {
        Subject::of(&ClusterNode::builder("n1", "10.0.0.1", 1).incarnation(incarnation).build().unwrap())
    }

    fn check(id: &str, service: &str, status: &str, kind: &str) -> Value {
        json!({"Node": "vm", "CheckID": id, "ServiceID": service, "Status": status, "Type": kind, "Output": "said\n",
            "Notes": if id == "service:n1" { Seal::new(1).notes(2) } else { "broken".to_owned() }})
    }

    fn own(status: &str) -> Value {
        check("service:n1", "n1", status, "ttl")
    }

    fn held(service: &str, checks: Vec<Value>) -> Holding {
        let meta = json!({"id": "n1", "incarnation": "7"});
        let answer = json!({"AggregatedStatus": "critical", "Checks": checks,
            "Service": {"ID": "n1", "Service": service, "Meta": meta}});
        Holding::read(answer.to_string().as_bytes(), "testing").unwrap()
    }

    fn finding(checks: Vec<Value>) -> Finding {
        held("orders", checks).finding(&subject(7), "orders", &Seal::new(1), false)
    }

    #[test]
    fn consul_point_13_why_a_registered_node_is_not_shown_is_read_from_its_checks() {
        let service = || check("_service_maintenance:n1", "n1", "critical", "maintenance");
        let node = || check("_node_maintenance", "", "critical", "maintenance");
        let http = |status| check("http", "n1", status, "http");
        assert_eq!(finding(vec![own("passing")]), Finding::Held("vm".to_owned()));
        assert_eq!(finding(vec![own("passing"), http("passing")]), Finding::Held("vm".to_owned()));
        assert_eq!(finding(vec![own("passing"), service()]), Finding::Maintenance(Some("broken".to_owned())));
        assert_eq!(finding(vec![node(), own("passing")]), Finding::Maintenance(None));
        assert_eq!(finding(vec![http("critical"), service(), own("critical")]), finding(vec![service()]));
        for status in ["critical", "warning"] {
            let said = format!("the check \"http\" is {status}: said");
            assert_eq!(finding(vec![own("critical"), http(status)]), Finding::HeldBack(said));
        }
        let disk = check("disk", "", "critical", "script");
        assert_eq!(
            finding(vec![disk, own("passing")]),
            Finding::HeldBack("its host's check \"disk\" is critical: said".into())
        );
        assert_eq!((finding(vec![own("critical")]), finding(vec![])), (Finding::OwnCheck, Finding::OwnCheck));
        let passed = |checks| held("orders", checks).finding(&subject(7), "orders", &Seal::new(1), true);
        assert_eq!(passed(vec![own("critical")]), Finding::Overwritten, "its pass was accepted a moment ago");
        assert_eq!(passed(vec![own("passing")]), Finding::Held("vm".to_owned()));
        assert_eq!(passed(vec![own("critical"), service()]), finding(vec![service()]));
    }

    #[test]
    fn consul_point_19_another_services_registration_displaces_the_node_as_long_as_it_is_kept_passing() {
        let mut other = own("passing");
        other["Notes"] = json!(Seal::new(2).notes(1));
        let found = |checks| held("sales", checks).finding(&subject(7), "orders", &Seal::new(1), false);
        assert_eq!(found(vec![other.clone()]), Finding::Displaced("sales".to_owned()));
        other["Status"] = json!("critical");
        assert_eq!(found(vec![other.clone()]), Finding::OwnCheck, "nobody keeps it");
        assert_eq!(held("orders", vec![other]).rival(&subject(7), "orders"), None);
    }

    #[test]
    fn consul_point_19_the_same_life_in_another_service_is_a_rival_and_what_an_earlier_one_left_is_not() {
        let holding = held("sales", vec![own("passing")]);
        assert_eq!(holding.rival(&subject(7), "orders"), Some("sales"));
        assert_eq!(holding.rival(&subject(7), "sales"), None);
        assert_eq!(holding.rival(&subject(8), "orders"), None, "it was another life's");
        let nameless = json!({"Checks": [], "Service": {"Service": "sales", "Meta": {}}}).to_string();
        let nameless = Holding::read(nameless.as_bytes(), "testing").unwrap();
        assert_eq!(nameless.rival(&subject(0), "orders"), None, "lives that cannot be told apart");
    }

    #[test]
    fn consul_point_13_what_is_left_of_an_earlier_life_is_every_check_but_maintenance_and_our_own_ttl() {
        let checks = vec![
            own("passing"),
            check("http", "n1", "passing", "http"),
            check("legacy", "n1", "critical", ""),
            check("_service_maintenance:n1", "n1", "critical", "maintenance"),
            check("_node_maintenance", "", "critical", "maintenance"),
            check("disk", "", "critical", "script"),
        ];
        let left = |checks: Vec<Value>| {
            let checks: serde_json::Map<_, _> =
                checks.into_iter().map(|check| (check["CheckID"].as_str().unwrap().to_owned(), check)).collect();
            left_over(Value::from(checks).to_string().as_bytes(), &subject(7), "testing").unwrap()
        };
        assert_eq!(left(checks), ["http", "legacy"]);
        let own_of = |kind| left(vec![check("service:n1", "n1", "passing", kind)]);
        assert_eq!(own_of("http"), ["service:n1"], "it would go on beside the TTL");
        assert_eq!((own_of(""), own_of("ttl")), (vec![], vec![]));
        assert_eq!(checks_path(&subject(7)), "/v1/agent/checks?filter=ServiceID%20%3D%3D%20%22n1%22");
    }

    #[test]
    fn consul_point_19_the_catalog_shows_the_node_if_it_has_our_check_passing() {
        let shown = |checks: Value| is_shown(checks.to_string().as_bytes(), &subject(7), &Seal::new(1), "testing");
        assert!(shown(json!([check("serfHealth", "", "passing", ""), own("passing")])).unwrap());
        for other in [json!([]), Value::Null, json!([own("critical")]), json!([check("x", "n1", "passing", "ttl")])] {
            assert!(!shown(other.clone()).unwrap(), "{other}");
        }
        let mut anothers = own("passing");
        anothers["Notes"] = json!(Seal::new(2).notes(2));
        assert!(!shown(json!([anothers])).unwrap(), "another host of that name");
        assert!(shown(json!({"x": 1})).is_err());
        let path = catalog_path(&subject(7), "vm 1");
        assert_eq!(path, "/v1/health/node/vm%201?filter=ServiceID%20%3D%3D%20%22n1%22");
    }
}
