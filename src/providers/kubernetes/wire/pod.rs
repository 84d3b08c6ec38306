//! What a pod means.
//!
//! Conventions, shared with protoactor-go: under the prefix `cluster.proto.actor/` the label `port` is the node's port,
//! `member-id` its id, and `kind-<Kind>` with the value `true` one of its kinds; `cluster` is what a selector asks for.
//! A pod without a `member-id` is the node of its own name. All other labels and annotations under the prefix are the
//! node's metadata, since its owner set them; a label comes before an annotation of the same key.
//!
//! A pod is a member while it is running, has an address and is not being deleted; where it has to be ready, while it
//! is. A pod runs while any of its containers does, or is to be restarted; so the node's container must not be one that
//! waits, in CrashLoopBackOff for example, or has ended. A pod that has ended keeps the address that another may have
//! by now, but not its phase. A member without a port is unusable.
//!
//! The incarnation has to rise with each life of an id. It is the annotation `incarnation`, where the program writes
//! one. Else it is the time at which the pod was created, in milliseconds, which the API knows in seconds; in place of
//! the milliseconds is how often the container was restarted, up to 999. The node's container is the one that the rules
//! name; else the only one that declares the node's port; without any, the restarts of all count together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::{IgnoredAny, MapAccess};

use super::Reading;
use super::meta::{Meta, seconds};
use super::rules::{PodRules, Port};
use crate::json::{Loose, Shape, Text, Unusable, fields};
use crate::providers::kubernetes::object::Content;
use crate::topology::ClusterNode;

/// A pod.
#[derive(Default)]
pub(super) struct Parts<'de> {
    pub(super) meta: Loose<Meta<'de>>,
    spec: Loose<Spec<'de>>,
    status: Loose<Status<'de>>,
}

#[derive(Default)]
struct Spec<'de> {
    containers: Loose<Vec<Loose<Container<'de>>>>,
}

#[derive(Default)]
struct Container<'de> {
    name: Loose<Text<'de>>,
    ports: Loose<Vec<Loose<ContainerPort<'de>>>>,
}

#[derive(Default)]
struct ContainerPort<'de> {
    name: Loose<Text<'de>>,
    number: Loose<u64>,
}

#[derive(Default)]
struct Status<'de> {
    phase: Loose<Text<'de>>,
    address: Loose<Text<'de>>,
    addresses: Loose<Vec<Loose<Address<'de>>>>,
    conditions: Loose<Vec<Loose<Condition<'de>>>>,
    containers: Loose<Vec<Loose<ContainerStatus<'de>>>>,
}

#[derive(Default)]
struct Address<'de> {
    ip: Loose<Text<'de>>,
}

#[derive(Default)]
struct Condition<'de> {
    kind: Loose<Text<'de>>,
    status: Loose<Text<'de>>,
}

#[derive(Default)]
struct ContainerStatus<'de> {
    name: Loose<Text<'de>>,
    restarts: Loose<u64>,
    state: Loose<State>,
}

/// A container's state: one of three, of which a running one is not asked for.
#[derive(Default)]
struct State {
    waiting: Loose<There>,
    terminated: Loose<There>,
}

/// A map, whatever it holds.
struct There;

impl<'de> Shape<'de> for There {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(Self))
    }
}

fields!(Parts<'de>, "metadata" => meta, "spec" => spec, "status" => status);
fields!(Spec<'de>, "containers" => containers);
fields!(Container<'de>, "name" => name, "ports" => ports);
fields!(ContainerPort<'de>, "name" => name, "containerPort" => number);
fields!(Status<'de>, "phase" => phase, "podIP" => address, "podIPs" => addresses, "conditions" => conditions,
    "containerStatuses" => containers);
fields!(Address<'de>, "ip" => ip);
fields!(Condition<'de>, "type" => kind, "status" => status);
fields!(ContainerStatus<'de>, "name" => name, "restartCount" => restarts, "state" => state);
fields!(State, "waiting" => waiting, "terminated" => terminated);

/// What our labels and annotations say.
#[derive(Default)]
struct Said {
    id: Option<String>,
    port: Option<String>,
    incarnation: Option<u64>,
    kinds: Vec<String>,
    metadata: Vec<(String, String)>,
}

impl Parts<'_> {
    /// What the pod comes to.
    pub(super) fn reading(self, rules: &PodRules) -> Reading {
        let Some(mut meta) = self.meta.good() else { return Reading::unusable() };
        let node = node(&mut meta, self.spec, self.status, rules);
        Reading::of(meta, node.map(|node| (Content::Pod(node.map(Into::into)), 0)), Content::Pod(None))
    }
}

/// The node of the pod, if it is a member.
fn node(
    meta: &mut Meta<'_>,
    spec: Loose<Spec<'_>>,
    status: Loose<Status<'_>>,
    rules: &PodRules,
) -> Result<Option<ClusterNode>, Unusable> {
    let status = status.optional()?.unwrap_or_default();
    let is_running = status.phase.optional()?.is_some_and(|phase| phase.0 == "Running");
    if !is_running || std::mem::take(&mut meta.deleted).optional()?.is_some() {
        return Ok(None);
    }
    if rules.ready && !is_ready(status.conditions)? {
        return Ok(None);
    }
    let Some(address) = address(status.address, status.addresses, rules)? else { return Ok(None) };
    let said = said(meta)?;
    let containers = spec.optional()?.unwrap_or_default().containers.optional()?.unwrap_or_default();
    let declared = declared(containers)?;
    let port = match said.port {
        Some(port) => port.parse().map_err(|_| Unusable)?,
        None => port(rules.port.as_ref(), &declared)?,
    };
    let container = rules.container.as_deref().or_else(|| only_one_with(port, &declared));
    let statuses = status.containers.optional()?.unwrap_or_default();
    let Some(restarts) = restarts(statuses, container)? else { return Ok(None) };
    let incarnation = match said.incarnation {
        Some(incarnation) => incarnation,
        None => {
            let created = match std::mem::take(&mut meta.created).optional()? {
                Some(Text(time)) => seconds(&time).ok_or(Unusable)?,
                None => 0,
            };
            created * 1000 + restarts.min(999)
        }
    };
    let id = match said.id {
        Some(id) => id,
        None => meta.name.as_str().ok_or(Unusable)?.to_owned(),
    };
    let mut builder = ClusterNode::builder(id, address.to_string(), port).incarnation(incarnation).kinds(said.kinds);
    for (key, value) in said.metadata {
        builder = builder.metadata(key, value);
    }
    builder.build().map(Some).map_err(|_| Unusable)
}

fn said(meta: &mut Meta<'_>) -> Result<Said, Unusable> {
    let mut said = Said::default();
    let pairs =
        |ours: &mut Loose<_>| std::mem::take(ours).optional()?.map_or_else(|| Ok(Vec::new()), super::meta::Ours::pairs);
    // The labels come last, and so before the annotations.
    for (key, value) in pairs(&mut meta.annotations)? {
        match &*key {
            "incarnation" => said.incarnation = Some(value.trim().parse().map_err(|_| Unusable)?),
            _ => said.metadata.push((key, value)),
        }
    }
    let mut kinds = BTreeMap::new();
    for (key, value) in pairs(&mut meta.labels)? {
        match (&*key, key.strip_prefix("kind-")) {
            ("member-id", _) => said.id = Some(value).filter(|id| !id.is_empty()),
            ("port", _) => said.port = Some(value).filter(|port| !port.is_empty()),
            ("cluster", _) => {}
            (_, Some(kind)) => drop(kinds.insert(kind.to_owned(), value == "true")),
            _ => said.metadata.push((key, value)),
        }
    }
    said.kinds = kinds.into_iter().filter_map(|(kind, hosted)| hosted.then_some(kind)).collect();
    Ok(said)
}

fn is_ready(conditions: Loose<Vec<Loose<Condition<'_>>>>) -> Result<bool, Unusable> {
    let mut ready = false;
    for condition in conditions.optional()?.unwrap_or_default() {
        let condition = condition.optional()?.ok_or(Unusable)?;
        if condition.kind.optional()?.is_some_and(|kind| kind.0 == "Ready") {
            ready = condition.status.optional()?.is_some_and(|status| status.0 == "True");
        }
    }
    Ok(ready)
}

/// The first address of the family, the primary one being first.
fn address(
    primary: Loose<Text<'_>>,
    all: Loose<Vec<Loose<Address<'_>>>>,
    rules: &PodRules,
) -> Result<Option<IpAddr>, Unusable> {
    let mut addresses = vec![primary];
    for address in all.optional()?.unwrap_or_default() {
        addresses.push(address.optional()?.ok_or(Unusable)?.ip);
    }
    for address in addresses {
        let Some(Text(address)) = address.optional()?.filter(|address| !address.0.is_empty()) else { continue };
        let address: IpAddr = address.parse().map_err(|_| Unusable)?;
        if rules.family.has(address) {
            return Ok(Some(address));
        }
    }
    Ok(None)
}

/// A port that a container declares.
struct Declared {
    container: String,
    name: String,
    number: u64,
}

fn declared(containers: Vec<Loose<Container<'_>>>) -> Result<Vec<Declared>, Unusable> {
    let mut declared = Vec::new();
    for container in containers {
        let container = container.optional()?.ok_or(Unusable)?;
        let ports = container.ports.optional()?.unwrap_or_default();
        let name = container.name.optional()?.unwrap_or_default().0;
        for port in ports {
            let port = port.optional()?.ok_or(Unusable)?;
            declared.push(Declared {
                container: name.clone().into_owned(),
                name: port.name.optional()?.unwrap_or_default().0.into_owned(),
                number: port.number.optional()?.ok_or(Unusable)?,
            });
        }
    }
    Ok(declared)
}

/// The port that the rules choose.
fn port(chosen: Option<&Port>, declared: &[Declared]) -> Result<u16, Unusable> {
    match chosen.ok_or(Unusable)? {
        Port::Number(number) => Ok(*number),
        Port::Named(name) => {
            let port = declared.iter().find(|port| port.name == *name).ok_or(Unusable)?;
            u16::try_from(port.number).map_err(|_| Unusable)
        }
    }
}

/// The container that declares the port, if it is only one.
fn only_one_with(port: u16, declared: &[Declared]) -> Option<&str> {
    let mut with = declared.iter().filter(|declared| declared.number == u64::from(port));
    let first = with.next()?;
    with.all(|other| other.container == first.container).then_some(&*first.container)
}

/// How often the container was restarted; without one, all of them together. `None` if the container does not run.
fn restarts(statuses: Vec<Loose<ContainerStatus<'_>>>, container: Option<&str>) -> Result<Option<u64>, Unusable> {
    let mut restarts = 0u64;
    for status in statuses {
        let status = status.optional()?.ok_or(Unusable)?;
        let count = status.restarts.optional()?.unwrap_or_default();
        let name = status.name.optional()?.unwrap_or_default();
        if container.is_none_or(|container| *container == *name.0) {
            restarts = restarts.saturating_add(count);
            let state = status.state.good().unwrap_or_default();
            if container.is_some() && (state.waiting.good().is_some() || state.terminated.good().is_some()) {
                return Ok(None);
            }
        }
    }
    Ok(Some(restarts))
}
