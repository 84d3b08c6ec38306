//! What is asked: the health query of one service, as the watch and as the probe.

use std::time::Duration;

use crate::http::encode;

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

/// Where a service is: the parts of Consul that can each have one of the name. `None`: where the agent and the token are.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) datacenter: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) partition: Option<String>,
}

/// The health query of one service. Equal ones are of the same instances, whichever agent of a cluster is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    service: String,
    tenancy: String,
    path: String,
    filter: String,
}

/// No instance has this tag: the probe asks for it, so that an answer has the index and no entries. The server compares
/// tags before it gathers an instance's checks, which makes this the cheapest of its questions; a filter expression
/// would be evaluated on every whole entry.
pub(super) const NOBODYS_TAG: &str = "cluster-provisioning-probe";

impl Query {
    /// The query of that service. `filter` is an expression that members have to meet: it narrows the watch, and the
    /// probe does without it, because the index is the service's either way.
    pub(super) fn new(service: &str, place: &Place, filter: Option<&str>) -> Self {
        let parameter = |name: &str, value: Option<&str>| match value {
            Some(value) => format!("{name}={}&", encode(value)),
            None => String::new(),
        };
        let tenancy = parameter("ns", place.namespace.as_deref()) + &parameter("partition", place.partition.as_deref());
        let datacenter = parameter("dc", place.datacenter.as_deref());
        let path = format!("/v1/health/service/{}?{datacenter}{tenancy}", encode(service));
        Self { service: service.to_owned(), tenancy, path, filter: parameter("filter", filter) }
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// Namespace and partition as parameters of a query: those that calls to the agent itself carry, which know no
    /// datacenter. Without a joint before or after; empty if there are none.
    pub(super) fn agent_scope(&self) -> &str {
        self.tenancy.strip_suffix('&').unwrap_or_default()
    }

    /// Asks for the members now, or, given an index, once the index is above it or `wait` is over.
    pub(super) fn watch(&self, index: Option<u64>, wait: Duration, consistency: Consistency) -> String {
        let mut path = format!("{}{}{}", self.path, self.filter, flag(consistency));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_query_is_encoded() {
        let place = Place { datacenter: Some("dc&1".to_owned()), ..Place::default() };
        let query = Query::new("or/d ers", &place, None);
        assert_eq!(
            query.watch(Some(7), Duration::from_secs(60), Consistency::Stale),
            "/v1/health/service/or%2Fd%20ers?dc=dc%261&stale&index=7&wait=60000ms"
        );
        let probe = "/v1/health/service/or%2Fd%20ers?dc=dc%261&tag=cluster-provisioning-probe";
        assert_eq!(query.probe(Consistency::Default), probe);
        assert_eq!(query.agent_scope(), "");
    }

    #[test]
    fn consul_point_17_a_filter_narrows_the_watch_and_not_the_probe_and_both_say_where() {
        let [datacenter, namespace, partition] = ["dc1", "team a", "p1"].map(|name| Some(name.to_owned()));
        let query = Query::new("orders", &Place { datacenter, namespace, partition }, Some("Service.Port > 1"));
        let place = "/v1/health/service/orders?dc=dc1&ns=team%20a&partition=p1&";
        let watch = format!("{place}filter=Service.Port%20%3E%201&consistent&");
        assert_eq!(query.watch(None, Duration::ZERO, Consistency::Consistent), watch);
        let probe = format!("{place}tag=cluster-provisioning-probe");
        assert_eq!(query.probe(Consistency::Default), probe);
        assert_eq!(query.agent_scope(), "ns=team%20a&partition=p1");
    }
}
