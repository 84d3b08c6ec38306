//! What an EndpointSlice (`discovery.k8s.io/v1`) means.
//!
//! An endpoint is the node of the pod that it refers to, so that it is one member in whichever slices it is; without a
//! pod it is `<address>:<port>`. Only its first address counts, as the API has it. Nothing else of it is the node's:
//! neither zone nor host. It has no kinds and no metadata, and its incarnation is 0: a slice does not tell one life
//! from another.
//!
//! Conditions that are absent have their documented meaning: `ready` and `serving` hold, `terminating` does not. An
//! endpoint that cannot be used is skipped, and costs no other. A slice of host names (`FQDN`) or of a family that is
//! not wanted has no members.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Reading;
use super::meta::Meta;
use super::rules::{Port, SliceRules};
use crate::json::{Loose, Text, Unusable, fields};
use crate::providers::kubernetes::object::{Conditions, Content, Endpoint};
use crate::topology::ClusterNode;

/// A slice.
#[derive(Default)]
pub(super) struct Parts<'de> {
    pub(super) meta: Loose<Meta<'de>>,
    family: Loose<Text<'de>>,
    ports: Loose<Vec<Loose<PortPart<'de>>>>,
    endpoints: Loose<Vec<Loose<EndpointPart<'de>>>>,
}

#[derive(Default)]
struct PortPart<'de> {
    name: Loose<Text<'de>>,
    number: Loose<u64>,
}

#[derive(Default)]
struct EndpointPart<'de> {
    addresses: Loose<Vec<Loose<Text<'de>>>>,
    conditions: Loose<ConditionsPart>,
    target: Loose<Target<'de>>,
}

#[derive(Default)]
struct ConditionsPart {
    ready: Loose<bool>,
    serving: Loose<bool>,
    terminating: Loose<bool>,
}

#[derive(Default)]
struct Target<'de> {
    kind: Loose<Text<'de>>,
    name: Loose<Text<'de>>,
}

fields!(Parts<'de>, "metadata" => meta, "addressType" => family, "ports" => ports, "endpoints" => endpoints);
fields!(PortPart<'de>, "name" => name, "port" => number);
fields!(EndpointPart<'de>, "addresses" => addresses, "conditions" => conditions, "targetRef" => target);
fields!(ConditionsPart, "ready" => ready, "serving" => serving, "terminating" => terminating);
fields!(Target<'de>, "kind" => kind, "name" => name);

impl Parts<'_> {
    /// What the slice comes to.
    pub(super) fn reading(self, rules: &SliceRules) -> Reading {
        let Some(meta) = self.meta.good() else { return Reading::unusable() };
        let endpoints = endpoints(self.family, self.ports, self.endpoints, rules);
        let content = endpoints.map(|(endpoints, skipped)| (Content::Slice(endpoints), skipped));
        Reading::of(meta, content, Content::Slice(Vec::new()))
    }
}

/// The endpoints, and how many were unusable.
fn endpoints(
    family: Loose<Text<'_>>,
    ports: Loose<Vec<Loose<PortPart<'_>>>>,
    parts: Loose<Vec<Loose<EndpointPart<'_>>>>,
    rules: &SliceRules,
) -> Result<(Vec<Endpoint>, usize), Unusable> {
    let family = family.optional()?.ok_or(Unusable)?;
    if !matches!(&*family.0, "IPv4" | "IPv6") {
        return Ok((Vec::new(), 0));
    }
    let parts = parts.optional()?.unwrap_or_default();
    if parts.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let port = port(ports, rules)?;
    let (mut endpoints, mut skipped) = (Vec::with_capacity(parts.len()), 0);
    for part in parts {
        match part.optional().and_then(|part| endpoint(part.ok_or(Unusable)?, port, rules)) {
            Ok(endpoint) => endpoints.extend(endpoint),
            Err(Unusable) => skipped += 1,
        }
    }
    Ok((endpoints, skipped))
}

/// The port that the rules choose. A port without a number means all of them.
fn port(ports: Loose<Vec<Loose<PortPart<'_>>>>, rules: &SliceRules) -> Result<u16, Unusable> {
    if let Some(Port::Number(number)) = rules.port {
        return Ok(number);
    }
    let mut chosen = Vec::new();
    for port in ports.optional()?.unwrap_or_default() {
        let port = port.optional()?.ok_or(Unusable)?;
        let name = port.name.optional()?.unwrap_or_default();
        match &rules.port {
            Some(Port::Named(wanted)) if *wanted != name.0 => {}
            _ => chosen.push(port.number.optional()?.ok_or(Unusable)?),
        }
    }
    match chosen[..] {
        [port] => u16::try_from(port).map_err(|_| Unusable),
        _ => Err(Unusable),
    }
}

/// The endpoint, if its address is of the family.
fn endpoint(part: EndpointPart<'_>, port: u16, rules: &SliceRules) -> Result<Option<Endpoint>, Unusable> {
    let first = part.addresses.optional()?.unwrap_or_default().into_iter().next().ok_or(Unusable)?;
    let address: IpAddr = first.optional()?.ok_or(Unusable)?.0.parse().map_err(|_| Unusable)?;
    if !rules.family.has(address) {
        return Ok(None);
    }
    let conditions = part.conditions.optional()?.unwrap_or_default();
    let conditions = Conditions {
        ready: conditions.ready.optional()?.unwrap_or(true) || rules.not_ready,
        serving: conditions.serving.optional()?.unwrap_or(true),
        terminating: conditions.terminating.optional()?.unwrap_or(false),
    };
    let target = part.target.optional()?.unwrap_or_default();
    let is_pod = target.kind.optional()?.is_some_and(|kind| kind.0 == "Pod");
    let pod = target.name.optional()?.filter(|name| is_pod && !name.0.is_empty());
    let id = pod.map_or_else(|| SocketAddr::new(address, port).to_string(), |pod| pod.0.into_owned());
    let node = ClusterNode::builder(id, address.to_string(), port).build().map_err(|_| Unusable)?;
    Ok(Some(Endpoint { node: Arc::new(node), conditions }))
}
