//! Many members of a gossip cluster in one process: each the whole service, on one host, at a port of its own.
//!
//! A member costs less than a megabyte, and a process of its own ten. Also two hundred processes would wait for each other to
//! be started, on a machine with few processors. Members in one process share nothing but that: each has its sockets, its
//! threads and its hub.
//!
//! What a member tells are lines with its id for the provider: `starts`; `update`, with how many members there are, their
//! hash, and who left; `topology`, with who left the hub's; and `suspect` and `dead`, with who became so.
#![allow(dead_code)]

use std::io::BufRead;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use cluster_provisioning::*;
use serde::{Deserialize, Serialize};

use crate::gossip_member::Watched;
use crate::member::{Line, Node, ids, now, tell, word};

/// The test that is the crowd; ignored unless it is asked for by its name.
pub const PROCESS: &str = "crowd_process";
/// Where the process finds who it shall be.
pub const CROWD: &str = "LIVE_CROWD";
const LABEL: &str = "crowd";
/// Member 7 listens at this port and 7.
const PORTS: u16 = 20_000;
/// How long a member asks to be let in.
const JOINED: Duration = Duration::from_secs(300);

/// Who a process shall be: members with successive numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Crowd {
    pub numbers: std::ops::Range<u16>,
    /// Of the host.
    pub address: String,
    /// Of the host of the seeds, which are the members 0, 1 and 2.
    pub seeds: String,
}

/// The id of a member.
pub fn name(number: u16) -> String {
    format!("n{number:03}")
}

/// What the member of that number is, which takes those of a host with that address for seeds.
pub fn member(number: u16, address: &str, seeds: &str) -> (Node, ProviderDescriptor) {
    let (address, port) = (address.to_owned(), PORTS + number);
    let definition = GossipFactory::descriptor("gossip", LABEL).unwrap().parameter("bind", format!("{address}:{port}"));
    let definition =
        (0..3).fold(definition, |definition, seed| definition.endpoint(format!("{seeds}:{}", PORTS + seed)));
    let node = Node { id: name(number), address, port: 7001, incarnation: now() / 1_000_000, ..Node::default() };
    (node, definition)
}

/// Is the crowd, until told to end. Does nothing where nobody asked for one.
pub fn run() {
    let Ok(crowd) = std::env::var(CROWD) else { return };
    let Crowd { numbers, address, seeds } = serde_json::from_str(&crowd).unwrap();
    // The test harness has begun a line of its own.
    println!();
    // All at once: each start waits until the member was let in.
    let starting: Vec<_> = numbers
        .map(|number| {
            let (address, seeds) = (address.clone(), seeds.clone());
            std::thread::spawn(move || start(number, &address, &seeds))
        })
        .collect();
    let members: Vec<_> = starting.into_iter().map(|starting| starting.join().unwrap()).collect();
    tell(word("started", String::new()));
    for command in std::io::stdin().lock().lines().map_while(Result::ok) {
        match command.as_str() {
            "counts" => {
                let counts: Vec<_> = members.iter().map(|(_, gossip)| gossip.metrics().unwrap()).collect();
                let sum = |count: fn(&GossipMetrics) -> u64| counts.iter().map(count).sum::<u64>();
                let (bytes, datagrams) = (sum(|counts| counts.datagram_bytes), sum(|counts| counts.datagrams));
                tell(word("counts", format!("{bytes} {datagrams}")));
            }
            other => panic!("unknown command {other:?}"),
        }
    }
}

fn start(number: u16, address: &str, seeds: &str) -> (ClusterProvisioningService, GossipMembership) {
    let (node, definition) = member(number, address, seeds);
    let factory = GossipFactory::new();
    let (made, memberships) = channel();
    std::thread::spawn(move || {
        let (_, events) = memberships.recv().unwrap();
        follow(number, events);
    });
    let builder = ClusterProvisioningService::builder()
        .factory(Arc::new(Watched(factory.clone(), made)))
        .provider(definition)
        .member(node.build())
        .join_timeout(JOINED);
    let mut events = builder.subscribe(100_000);
    std::thread::spawn(move || {
        loop {
            let line = match events.recv() {
                Ok(event) => match &*event {
                    ProvisioningEvent::Snapshot(delivery) if !delivery.diff.left().is_empty() => {
                        Line { left: ids(delivery.diff.left()), ..word("topology", String::new()) }
                    }
                    _ => continue,
                },
                Err(NoEvent::Lagged(count)) => word("error", format!("lost {count} events")),
                Err(_) => return,
            };
            tell(Line { provider: name(number), ..line });
        }
    });
    tell(Line { provider: name(number), ..word("starts", String::new()) });
    let service = builder.start().unwrap();
    let gossip = factory.membership("gossip").unwrap();
    (service, gossip)
}

/// Tells what the membership of that member tells.
fn follow(number: u16, mut events: EventStream<GossipEvent>) {
    loop {
        let line = match events.recv() {
            Ok(GossipEvent::Update(update)) => Line {
                at: update.at.as_nanos(),
                left: [ids(&update.left), ids(&update.dead)].concat(),
                code: format!("{:016x}", update.members.hash()),
                ..word("update", update.members.len().to_string())
            },
            Ok(GossipEvent::State { at, node, to: to @ (GossipState::Suspect | GossipState::Dead), .. }) => {
                Line { at: at.as_nanos(), ids: vec![node.id().to_string()], ..word(&to.to_string(), String::new()) }
            }
            Ok(_) => continue,
            Err(NoEvent::Lagged(count)) => word("error", format!("lost {count} events")),
            Err(_) => return,
        };
        tell(Line { provider: name(number), ..line });
    }
}
