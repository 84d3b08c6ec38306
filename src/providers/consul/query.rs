//! What is asked: the health query of one service, as the watch and as the probe.

use std::time::Duration;

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consistency {
    /// The leader, without proof that it still leads.
    Default,
    /// Any server.
    Stale,
    /// The leader, after it made sure that it still leads.
    Consistent,
}

/// The health query of one service.
#[derive(Clone, Debug)]
pub(super) struct Query {
    service: String,
    path: String,
}

/// No instance has this tag: the probe asks for it, so that an answer has the index and no entries. The server compares
/// tags before it gathers an instance's checks, which makes this the cheapest of its questions; a filter expression
/// would be evaluated on every whole entry.
pub(super) const NOBODYS_TAG: &str = "cluster-provisioning-probe";

impl Query {
    pub(super) fn new(service: &str, datacenter: Option<&str>) -> Self {
        let mut path = format!("/v1/health/service/{}?", encode(service));
        if let Some(datacenter) = datacenter {
            path.push_str(&format!("dc={}&", encode(datacenter)));
        }
        Self { service: service.to_owned(), path }
    }

    /// The parameters that calls to the agent itself carry, without a joint before or after; empty if there are none.
    pub(super) fn agent_scope(&self) -> &str {
        ""
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// Asks for the members now, or, given an index, once the index is above it or `wait` is over.
    pub(super) fn watch(&self, index: Option<u64>, wait: Duration, consistency: Consistency) -> String {
        let mut path = format!("{}{}", self.path, flag(consistency));
        if let Some(index) = index {
            path.push_str(&format!("index={index}&wait={}ms", wait.as_millis()));
        }
        path
    }

    /// Asks for nothing but the index.
    pub(super) fn probe(&self, consistency: Consistency) -> String {
        format!("{}{}tag={NOBODYS_TAG}", self.path, flag(consistency))
    }
}

fn flag(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Default => "",
        Consistency::Stale => "stale&",
        Consistency::Consistent => "consistent&",
    }
}

/// Percent-encodes all but unreserved characters.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_query_is_encoded() {
        let query = Query::new("or/d ers", Some("dc&1"));
        assert_eq!(
            query.watch(Some(7), Duration::from_secs(60), Consistency::Stale),
            "/v1/health/service/or%2Fd%20ers?dc=dc%261&stale&index=7&wait=60000ms"
        );
        let probe = "/v1/health/service/or%2Fd%20ers?dc=dc%261&tag=cluster-provisioning-probe";
        assert_eq!(query.probe(Consistency::Default), probe);
    }
}
