//! A member as a process of its own: the whole service, which tells each event on a line and takes commands.
//!
//! A live test binary runs itself again with the test [`PROCESS`] alone. What the process shall be comes as JSON in the
//! environment; each line that it prints is a [`Line`]. It ends when it is told to, and when its parent is gone.
#![allow(dead_code)]

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster_provisioning::*;
use serde::{Deserialize, Serialize};

/// The test that is the member; ignored unless it is asked for by its name.
pub const PROCESS: &str = "member_process";
/// Where the process finds what it shall be.
pub const SETUP: &str = "LIVE_MEMBER";
/// Begins each line that is meant for the parent, and tells it from the test harness's own.
pub const PREFIX: &str = "@member ";

/// What the process shall be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    /// The local node; none: the process only watches.
    pub node: Option<Node>,
    pub providers: Vec<ProviderDescriptor>,
}

/// The local node, by what makes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Node {
    pub id: String,
    pub address: String,
    pub port: u16,
    pub incarnation: u64,
    pub kinds: Vec<String>,
    pub metadata: Vec<(String, String)>,
}

impl Node {
    pub fn build(&self) -> ClusterNode {
        let node = ClusterNode::builder(&self.id, &self.address, self.port).incarnation(self.incarnation);
        let node = self.kinds.iter().fold(node, |node, kind| node.kind(kind));
        let node = self.metadata.iter().fold(node, |node, (key, value)| node.metadata(key, value));
        node.build().unwrap()
    }
}

/// What happened in a member, and when, by a clock that all processes share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// The place in the order of deliveries; 0 for what is none.
    pub seq: u64,
    /// `snapshot`, `remote`, `health`, `warning`, `stale`, `gate`, `followed`, `ended`; or of the process itself
    /// `started`, `refused`, `drained`, `stopped`, `error`, `noise`.
    pub what: String,
    /// The provider that it concerns.
    pub provider: String,
    /// Of a snapshot its members; else the node that it concerns.
    pub ids: Vec<String>,
    /// Of a snapshot, who joined.
    pub joined: Vec<String>,
    /// Of a snapshot, who left.
    pub left: Vec<String>,
    /// `join`, `leave`; `healthy`, `degraded`, `unreachable`; `open`, or why the gate is paused.
    pub value: String,
    /// The code of the error.
    pub code: String,
    /// All of it in words.
    pub text: String,
}

/// Now, by the clock that all processes share.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

pub fn tell(line: Line) {
    let line = Line { at: if line.at == 0 { now() } else { line.at }, ..line };
    let mut out = std::io::stdout().lock();
    // A parent that is gone is noticed where commands are read.
    let _ = writeln!(out, "{PREFIX}{}", serde_json::to_string(&line).unwrap());
    let _ = out.flush();
}

/// Is the member, until told to end. Does nothing where nobody asked for one.
pub fn run() {
    let Ok(setup) = std::env::var(SETUP) else { return };
    let setup: Setup = serde_json::from_str(&setup).unwrap();
    // The test harness has begun a line of its own.
    println!();
    let mut builder = ClusterProvisioningService::builder();
    for provider in setup.providers {
        builder = builder.provider(provider);
    }
    if let Some(node) = &setup.node {
        builder = builder.member(node.build());
    }
    let mut events = builder.subscribe(100_000);
    let telling = std::thread::spawn(move || {
        loop {
            match events.recv_timeout(Duration::from_secs(3600)) {
                Ok(event) => tell(line(&event)),
                Err(NoEvent::Nothing) => {}
                Err(NoEvent::Lagged(count)) => tell(word("error", format!("lost {count} events"))),
                Err(NoEvent::Closed) => return,
            }
        }
    });
    let service = match builder.start() {
        Ok(service) => service,
        Err(error) => {
            telling.join().unwrap();
            return tell(Line { code: error.code().to_string(), ..word("refused", error.to_string()) });
        }
    };
    tell(word("started", String::new()));
    for command in std::io::stdin().lock().lines().map_while(Result::ok) {
        match command.as_str() {
            "drain" => tell(word("drained", outcome(service.drain()))),
            "explain" => {
                for decision in service.hub().explain().iter() {
                    tell(word("noise", decision.to_string()));
                }
            }
            "exit" => break,
            other => panic!("unknown command {other:?}"),
        }
    }
    service.shutdown();
    telling.join().unwrap();
    tell(word("stopped", String::new()));
}

pub fn outcome(result: Result<(), ProvisioningError>) -> String {
    result.map_or_else(|error| error.to_string(), |()| String::new())
}

pub fn word(what: &str, text: String) -> Line {
    Line { what: what.to_owned(), text, ..Line::default() }
}

pub fn ids(nodes: &[Arc<ClusterNode>]) -> Vec<String> {
    nodes.iter().map(|node| node.id().to_string()).collect()
}

pub fn line(event: &ProvisioningEvent) -> Line {
    let code = |error: &Option<ProvisioningError>| error.as_ref().map_or_else(String::new, |e| e.code().to_string());
    let provider = |id: &ProviderId| id.to_string();
    let base = Line { seq: event.position().seq_no, text: event.to_string(), ..Line::default() };
    let what = |what: &str| Line { what: what.to_owned(), ..base.clone() };
    match event {
        ProvisioningEvent::Snapshot(delivery) => Line {
            provider: provider(&delivery.snapshot.provider_id),
            ids: delivery.snapshot.members.iter().map(|node| node.id().to_string()).collect(),
            joined: ids(delivery.diff.joined()),
            left: ids(delivery.diff.left()),
            ..what("snapshot")
        },
        ProvisioningEvent::RemoteTopology(event) => {
            Line { ids: vec![event.node_id.to_string()], value: event.event.code().to_owned(), ..what("remote") }
        }
        ProvisioningEvent::HealthChanged(event) => Line {
            provider: provider(&event.provider_id),
            value: event.to.to_string(),
            code: code(&event.cause),
            ..what("health")
        },
        ProvisioningEvent::Warning(event) => Line {
            provider: event.error.provider().map_or_else(String::new, provider),
            code: event.error.code().to_string(),
            ..what("warning")
        },
        ProvisioningEvent::RemotingWarning(event) => {
            Line { provider: provider(&event.provider_id), code: code(&event.degraded), ..what("stale") }
        }
        ProvisioningEvent::GateChanged(event) => {
            let value = match event.gate {
                PlacementGate::Open => "open",
                PlacementGate::Paused(reason) => reason.code(),
            };
            Line { value: value.to_owned(), ..what("gate") }
        }
        ProvisioningEvent::ProviderChanged(event) => {
            Line { provider: provider(&event.to), value: event.reason.code().to_owned(), ..what("followed") }
        }
        ProvisioningEvent::StreamEnded(event) => Line { provider: provider(&event.provider_id), ..what("ended") },
        _ => what("other"),
    }
}
