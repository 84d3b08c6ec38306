//! What the local node's pod carries for the others to see, and the merge patches that put it there and take it away.
//!
//! A patch touches only keys under our prefix, one by one: other labels and annotations are never repeated, so that
//! concurrent edits of them are not lost. What an earlier life left under the prefix, such as a kind that is no longer
//! hosted, goes in the same patch that brings the new values. A patch names the pod's uid, so that it never lands on
//! another pod of the name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{ErrorCode, ProvisioningError};
use crate::providers::kubernetes::label;
use crate::providers::kubernetes::wire::PREFIX;
use crate::topology::ClusterNode;

/// The most that a pod's annotations may have, keys and values together, in bytes; less some room for others.
const MAX_ANNOTATIONS: usize = 200 * 1024;

/// Labels and annotations by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::providers::kubernetes) struct Marks {
    pub(in crate::providers::kubernetes) labels: BTreeMap<String, String>,
    pub(in crate::providers::kubernetes) annotations: BTreeMap<String, String>,
}

impl Marks {
    /// Those of the node in that cluster: labels for what selectors may ask for, annotations for the rest.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidNode`] with the field, for what labels and annotations cannot carry.
    pub(in crate::providers::kubernetes) fn of(node: &ClusterNode, cluster: &str) -> Result<Self, ProvisioningError> {
        let refuse = |field: &'static str, reason: &str| {
            let detail = format!("a pod's labels cannot carry it: it {reason}");
            ProvisioningError::new(ErrorCode::InvalidNode, "registering the local node", detail).with_field(field)
        };
        label::check_node(node).map_err(|(field, reason)| refuse(field, reason))?;
        let mut marks = Self::default();
        let own =
            [("cluster", cluster.to_owned()), ("member-id", node.id().to_string()), ("port", node.port().to_string())];
        marks.labels.extend(own.map(|(key, value)| (format!("{PREFIX}{key}"), value)));
        marks.labels.extend(node.kinds().map(|kind| (label::kind_key(kind), "true".to_owned())));
        marks.annotations.insert(format!("{PREFIX}incarnation"), node.incarnation().to_string());
        marks.annotations.extend(node.metadata().map(|(key, value)| (format!("{PREFIX}{key}"), value.to_owned())));
        let size: usize = marks.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_ANNOTATIONS {
            return Err(refuse("metadata", "has more than 200 KiB"));
        }
        Ok(marks)
    }
}

/// A pod, as far as the registration looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: String,
    /// Whether it is going: it has been told to end.
    pub(super) going: bool,
    /// Its addresses, once it has some.
    pub(super) addresses: Vec<String>,
    /// What it carries under our prefix.
    pub(super) marks: Marks,
}

impl Pod {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedAnswer`] for what is no pod.
    pub(super) fn read(body: &[u8], doing: &'static str) -> Result<Self, ProvisioningError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            uid: String,
            deletion_timestamp: Option<String>,
            labels: Option<BTreeMap<String, String>>,
            annotations: Option<BTreeMap<String, String>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Status {
            #[serde(rename = "podIP")]
            address: Option<String>,
            #[serde(default, rename = "podIPs")]
            addresses: Vec<Address>,
        }
        #[derive(Deserialize)]
        struct Address {
            ip: String,
        }
        #[derive(Deserialize)]
        struct Object {
            kind: String,
            metadata: Metadata,
            #[serde(default)]
            status: Status,
        }
        let ours = |map: Option<BTreeMap<String, String>>| {
            map.into_iter().flatten().filter(|(key, _)| key.starts_with(PREFIX)).collect()
        };
        match serde_json::from_slice::<Object>(body) {
            Ok(Object { kind, metadata, status }) if kind == "Pod" => Ok(Self {
                uid: metadata.uid,
                going: metadata.deletion_timestamp.is_some(),
                addresses: status
                    .address
                    .into_iter()
                    .chain(status.addresses.into_iter().map(|address| address.ip))
                    .filter(|address| !address.is_empty())
                    .collect(),
                marks: Marks { labels: ours(metadata.labels), annotations: ours(metadata.annotations) },
            }),
            _ => Err(ProvisioningError::new(ErrorCode::MalformedAnswer, doing, "what came is no pod")),
        }
    }

    /// Whether it carries the node of these marks in their cluster, in the same life of it or an earlier one.
    pub(super) fn carries(&self, marks: &Marks) -> bool {
        let is_same = |name: &str| {
            let key = format!("{PREFIX}{name}");
            marks.labels.contains_key(&key) && self.marks.labels.get(&key) == marks.labels.get(&key)
        };
        let life = |marks: &Marks| {
            let incarnation = marks.annotations.get(&format!("{PREFIX}incarnation"));
            incarnation.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        is_same("cluster") && is_same("member-id") && life(&self.marks) <= life(marks)
    }

    /// The patch after which the pod carries exactly `wanted` under our prefix; `None` if it does already.
    pub(super) fn patch(&self, wanted: &Marks) -> Option<String> {
        let labels = difference(&self.marks.labels, &wanted.labels);
        let annotations = difference(&self.marks.annotations, &wanted.annotations);
        if labels.is_empty() && annotations.is_empty() {
            return None;
        }
        let mut metadata = Map::new();
        metadata.insert("uid".to_owned(), json!(self.uid));
        for (name, changes) in [("labels", labels), ("annotations", annotations)] {
            if !changes.is_empty() {
                metadata.insert(name.to_owned(), Value::Object(changes));
            }
        }
        Some(json!({ "metadata": metadata }).to_string())
    }
}

/// What has to be set, and with null removed.
fn difference(present: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Map<String, Value> {
    let gone = present.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let new = wanted.iter().filter(|(key, value)| present.get(*key) != Some(value));
    gone.chain(new.map(|(key, value)| (key.clone(), json!(value)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Marks {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect()
        };
        Marks { labels: map(labels), annotations: map(annotations) }
    }

    fn pod(metadata: &Value) -> Pod {
        Pod::read(json!({"kind": "Pod", "metadata": metadata}).to_string().as_bytes(), "testing").unwrap()
    }

    #[test]
    fn new_values_win_over_stale_ones_and_kinds_of_an_earlier_life_go_in_the_same_patch() {
        let stale = pod(&json!({
            "uid": "u1",
            "labels": {"app": "orders", "cluster.proto.actor/port": "1", "cluster.proto.actor/kind-old": "true"},
            "annotations": {"note": "x", "cluster.proto.actor/incarnation": "6"},
        }));
        let wanted = marks(&[("port", "7001"), ("kind-new", "true")], &[("incarnation", "7")]);
        let patch: Value = serde_json::from_str(&stale.patch(&wanted).unwrap()).unwrap();
        let expected = json!({"metadata": {
            "uid": "u1",
            "labels": {
                "cluster.proto.actor/port": "7001",
                "cluster.proto.actor/kind-old": null,
                "cluster.proto.actor/kind-new": "true",
            },
            "annotations": {"cluster.proto.actor/incarnation": "7"},
        }});
        assert_eq!(patch, expected, "and nothing of anybody else's");
        let done = Pod { marks: wanted.clone(), ..stale };
        assert_eq!(done.patch(&wanted), None);
        assert!(done.patch(&Marks::default()).unwrap().contains("null"), "leaving takes all of it away");
    }

    #[test]
    fn a_node_becomes_labels_and_annotations_by_protoactors_conventions_or_is_refused() {
        let node = ClusterNode::builder("n1", "10.0.0.1", 7001).incarnation(7).kind("user").metadata("zone", "a b");
        let expected = marks(
            &[("cluster", "orders"), ("member-id", "n1"), ("port", "7001"), ("kind-user", "true")],
            &[("incarnation", "7"), ("zone", "a b")],
        );
        assert_eq!(Marks::of(&node.build().unwrap(), "orders").unwrap(), expected);
        let refused = |builder: crate::topology::ClusterNodeBuilder| {
            let error = Marks::of(&builder.build().unwrap(), "orders").unwrap_err();
            (error.code(), error.field().unwrap().to_owned())
        };
        let node = |id: &str| ClusterNode::builder(id, "10.0.0.1", 7001);
        assert_eq!(refused(node("a:1")), (ErrorCode::InvalidNode, "id".to_owned()));
        assert_eq!(refused(node("a").kind("x/y")), (ErrorCode::InvalidNode, "kinds".to_owned()));
        let large = "x".repeat(60_000);
        let node = (0..4).fold(node("a"), |node, n| node.metadata(format!("k{n}"), large.clone()));
        assert_eq!(refused(node), (ErrorCode::InvalidNode, "metadata".to_owned()));
    }

    #[test]
    fn a_pod_carries_the_node_also_in_an_earlier_life_but_not_in_a_later_one_or_another_cluster() {
        let ours = marks(&[("cluster", "orders"), ("member-id", "n1"), ("port", "7001")], &[("incarnation", "7")]);
        let with = |cluster: &str, id: &str, incarnation: Option<&str>| {
            let own: Vec<_> = incarnation.map(|incarnation| ("incarnation", incarnation)).into_iter().collect();
            let marks = marks(&[("cluster", cluster), ("member-id", id)], &own);
            Pod { uid: "u1".to_owned(), going: false, addresses: Vec::new(), marks }.carries(&ours)
        };
        assert!(with("orders", "n1", Some("7")) && with("orders", "n1", Some("6")) && with("orders", "n1", None));
        assert!(
            !with("orders", "n1", Some("8")) && !with("orders", "n2", Some("7")) && !with("sales", "n1", Some("7"))
        );
        assert!(!pod(&json!({"uid": "u1"})).carries(&ours));
    }

    #[test]
    fn a_pod_without_labels_is_patched_and_what_is_no_pod_is_refused() {
        let bare = pod(&json!({"uid": "u1", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        assert!(bare.going && bare.patch(&Marks::default()).is_none());
        assert!(bare.patch(&marks(&[("port", "1")], &[])).is_some_and(|patch| !patch.contains("annotations")));
        for bad in ["", "{}", r#"{"kind":"Status","metadata":{}}"#, "<html>", r#"{"kind":"Pod","metadata":{"uid":1}}"#]
        {
            assert_eq!(Pod::read(bad.as_bytes(), "testing").unwrap_err().code(), ErrorCode::MalformedAnswer, "{bad}");
        }
    }
}
