//! The local node as a service definition, by the conventions of protoactor-go, and what Consul cannot carry.
//!
//! `ID` is the node's id, `Name` the service, `Tags` the kinds; `Meta` holds `id`, `incarnation` unless it is 0, and the
//! node's metadata. One TTL check, `service:<ID>`, passes from the start, so that registering again does not make the
//! node flap; its notes are the registration's [seal](super::succession), and differ with each write. The limits are
//! Consul's own (`agent/structs`: 64 pairs of metadata, keys of 128 letters, digits, `-` and `_`, values of 512 bytes,
//! the prefix `consul-` reserved; any-addresses refused).

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::super::query::NOBODYS_TAG;
use super::succession::{Seal, Subject};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::encode;
use crate::topology::ClusterNode;

/// Consul's limit of metadata pairs.
const MAX_META: usize = 64;
/// Consul's limit of a metadata key, in bytes.
const MAX_META_KEY: usize = 128;
/// Consul's limit of a metadata value, in bytes.
const MAX_META_VALUE: usize = 512;
/// What `Meta` holds of the node itself.
const ID: &str = "id";
const INCARNATION: &str = "incarnation";

/// A node that Consul can carry, ready to be registered.
#[derive(Clone, Debug)]
pub(in super::super) struct Definition {
    subject: Subject,
    service: String,
    document: Value,
}

impl Definition {
    /// The definition of `node` in `service`, with a TTL check that Consul reaps after it was critical for
    /// `deregister_after`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidNode`], with the field, for what Consul cannot carry.
    pub(in super::super) fn new(
        node: &ClusterNode,
        service: &str,
        ttl: Duration,
        deregister_after: Duration,
    ) -> Result<Self, ProvisioningError> {
        check_id(node.id().as_str())?;
        check_address(node.address())?;
        if node.kinds().any(|kind| kind == NOBODYS_TAG) {
            return Err(invalid("kinds", "the probe's own tag is no kind"));
        }
        let mut meta = Map::new();
        meta.insert(ID.into(), node.id().as_str().into());
        if node.incarnation() != 0 {
            meta.insert(INCARNATION.into(), node.incarnation().to_string().into());
        }
        for (key, value) in node.metadata() {
            check_metadata(key, value)?;
            meta.insert(key.into(), value.into());
        }
        if meta.len() > MAX_META {
            let detail = "Consul carries 64 pairs at most, the id and the incarnation among them";
            return Err(invalid("metadata", detail));
        }
        let subject = Subject::of(node);
        let id = &subject.id;
        let document = json!({
            "ID": id,
            "Name": service,
            "Tags": node.kinds().collect::<Vec<_>>(),
            "Address": node.address(),
            "Port": node.port(),
            "Meta": Value::Object(meta),
            "Check": {
                "CheckID": subject.check(),
                "Name": format!("TTL of {id}"),
                "TTL": format!("{}ms", ttl.as_millis()),
                "DeregisterCriticalServiceAfter": format!("{}ms", deregister_after.as_millis()),
            },
        });
        Ok(Self { subject, service: service.to_owned(), document })
    }

    /// The body of the registration with that seal, sent for the `write`th time. `passes`: whether the check passes from
    /// the start, where the agent does not know it.
    pub(super) fn document(&self, seal: &Seal, write: u64, passes: bool) -> Vec<u8> {
        let mut document = self.document.clone();
        if let Some(Value::Object(check)) = document.get_mut("Check") {
            check.insert("Notes".to_owned(), Value::String(seal.notes(write)));
            check.insert("Status".to_owned(), Value::from(if passes { "passing" } else { "critical" }));
        }
        document.to_string().into_bytes()
    }

    /// Whom it registers.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// In which service.
    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// Where the check is told to pass.
    pub(super) fn pass_path(&self) -> String {
        format!("/v1/agent/check/pass/{}", encode(&self.subject.check()))
    }

    /// Where a check is deregistered.
    pub(super) fn remove_path(check: &str) -> String {
        format!("/v1/agent/check/deregister/{}", encode(check))
    }

    /// Where the service is put into maintenance.
    pub(super) fn maintenance_path(&self, reason: &str) -> String {
        let (id, reason) = (encode(&self.subject.id), encode(reason));
        format!("/v1/agent/service/maintenance/{id}?enable=true&reason={reason}")
    }

    /// Where the service is deregistered.
    pub(super) fn deregister_path(&self) -> String {
        format!("/v1/agent/service/deregister/{}", encode(&self.subject.id))
    }
}

fn invalid(field: &'static str, detail: impl Into<std::borrow::Cow<'static, str>>) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::InvalidNode, "checking whether Consul can carry the local node", detail)
        .with_field(field)
}

/// The id is part of a path, which Consul's server cleans before it looks at it.
fn check_id(id: &str) -> Result<(), ProvisioningError> {
    if id.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(invalid(ID, "Consul takes an id with an empty, `.` or `..` part between slashes for another path"));
    }
    if id.len() > MAX_META_VALUE {
        return Err(invalid(ID, "it is longer than the 512 bytes that Consul's metadata carries"));
    }
    Ok(())
}

fn check_address(address: &str) -> Result<(), ProvisioningError> {
    match address.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => {
            Err(invalid("address", "it means any address; others need the one at which the node is reached"))
        }
        _ => Ok(()),
    }
}

fn check_metadata(key: &str, value: &str) -> Result<(), ProvisioningError> {
    let refuse = |why: &str| Err(invalid("metadata", format!("the key {key:?} {why}")));
    if matches!(key, ID | INCARNATION) {
        return refuse("is reserved for the node's own");
    }
    if key.starts_with("consul-") {
        return refuse("begins with `consul-`, which Consul reserves");
    }
    if key.len() > MAX_META_KEY {
        return refuse("is longer than Consul's 128 bytes");
    }
    if !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return refuse("has characters other than Consul's letters, digits, `-` and `_`");
    }
    if value.len() > MAX_META_VALUE {
        return refuse("has a value longer than Consul's 512 bytes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::ClusterNodeBuilder;

    const TTL: Duration = Duration::from_secs(3);
    const REAP: Duration = Duration::from_secs(60);

    fn node() -> ClusterNodeBuilder {
        ClusterNode::builder("node-1", "10.0.0.1", 8090)
    }

    fn define(builder: ClusterNodeBuilder) -> Result<Definition, ProvisioningError> {
        Definition::new(&builder.build().unwrap(), "orders", TTL, REAP)
    }

    #[test]
    fn consul_point_18_the_document_follows_the_conventions_of_protoactor_go() {
        let document = |node| {
            let document = define(node).unwrap().document(&Seal::new(255), 4, true);
            serde_json::from_slice::<Value>(&document).unwrap()
        };
        let plain = document(node().kind("user"));
        let expected = json!({
            "ID": "node-1", "Name": "orders", "Tags": ["user"], "Address": "10.0.0.1", "Port": 8090,
            "Meta": {"id": "node-1"},
            "Check": {"CheckID": "service:node-1", "Name": "TTL of node-1", "TTL": "3000ms", "Status": "passing",
                "Notes": "cluster-provisioning registration 00000000000000ff, write 4", "DeregisterCriticalServiceAfter": "60000ms"},
        });
        assert_eq!(plain, expected);
        let rich = document(node().incarnation(7).metadata("zone", "eu-1"));
        assert_eq!(rich["Meta"], json!({"id": "node-1", "incarnation": "7", "zone": "eu-1"}));
    }

    #[test]
    fn consul_what_consul_cannot_carry_is_refused_with_its_field() {
        let filled = |count: usize| (0..count).fold(node(), |node, n| node.metadata(format!("k{n}"), "v"));
        for (field, bad) in [
            ("id", ClusterNode::builder("a//b", "h", 1)),
            ("id", ClusterNode::builder("/a", "h", 1)),
            ("id", ClusterNode::builder("a/", "h", 1)),
            ("id", ClusterNode::builder("..", "h", 1)),
            ("id", ClusterNode::builder("a/./b", "h", 1)),
            ("id", ClusterNode::builder("x".repeat(513), "h", 1)),
            ("address", ClusterNode::builder("a", "0.0.0.0", 1)),
            ("address", ClusterNode::builder("a", "::", 1)),
            ("kinds", node().kind(NOBODYS_TAG)),
            ("metadata", node().metadata("id", "x")),
            ("metadata", node().metadata("incarnation", "x")),
            ("metadata", node().metadata("consul-x", "x")),
            ("metadata", node().metadata("a.b", "x")),
            ("metadata", node().metadata("k".repeat(129), "x")),
            ("metadata", node().metadata("k", "x".repeat(513))),
            ("metadata", filled(64)),
            ("metadata", filled(63).incarnation(1)),
        ] {
            let error = define(bad).unwrap_err();
            assert_eq!((error.code(), error.field()), (ErrorCode::InvalidNode, Some(field)), "{error}");
        }
        for good in [
            ClusterNode::builder("a/b c\u{e4}", "fe80::1", 1),
            ClusterNode::builder("x".repeat(512), "h", 1),
            node().metadata("k".repeat(128), "x".repeat(512)),
            filled(63),
            filled(62).incarnation(1),
        ] {
            define(good).unwrap();
        }
    }

    #[test]
    fn consul_an_id_is_encoded_in_paths() {
        let definition = define(ClusterNode::builder("a/b c", "h", 1)).unwrap();
        assert_eq!(definition.pass_path(), "/v1/agent/check/pass/service%3Aa%2Fb%20c");
        assert_eq!(definition.deregister_path(), "/v1/agent/service/deregister/a%2Fb%20c");
    }
}
