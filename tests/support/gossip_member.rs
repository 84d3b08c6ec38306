//! A member of a gossip cluster as a process of its own: the whole service, and all that its membership tells.
//!
//! What the service tells are the lines of [`member`](crate::member). What the membership tells are lines `gossip`, what is
//! amiss of it lines `trouble`, with no text once it is over, and what the library logs lines `log`.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use cluster_provisioning::*;

use crate::member::{Line, SETUP, Setup, ids, line, outcome, tell, word};

/// How long a member asks to be let in: longer than any quarantine here.
const JOINED: Duration = Duration::from_secs(300);
/// How often it is looked for what is amiss.
const LOOKED: Duration = Duration::from_millis(50);
/// How many messages that were not taken are told: of a flood it is enough to see that it was noticed.
const UNUSABLE: usize = 20;

/// A factory that gives each membership away as soon as there is one: before it begins.
pub struct Watched(pub GossipFactory, pub Sender<(GossipMembership, EventStream<GossipEvent>)>);

impl ProviderFactory for Watched {
    fn kind(&self) -> ProviderKind {
        self.0.kind()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        self.0.validate(descriptor)
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let provider = self.0.create(descriptor, environment)?;
        let membership = self.0.membership(descriptor.id.as_str()).unwrap();
        let events = membership.subscribe(100_000);
        _ = self.1.send((membership, events));
        Ok(provider)
    }
}

/// Tells what is logged.
struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        tell(word("log", record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Is the member, until told to end. Does nothing where nobody asked for one.
pub fn run() {
    let Ok(setup) = std::env::var(SETUP) else { return };
    let setup: Setup = serde_json::from_str(&setup).unwrap();
    // The test harness has begun a line of its own.
    println!();
    log::set_logger(&Logger).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let (made, memberships) = channel();
    let factory = GossipFactory::new();
    let mut builder =
        ClusterProvisioningService::builder().factory(Arc::new(Watched(factory.clone(), made))).join_timeout(JOINED);
    for provider in setup.providers {
        builder = builder.provider(provider);
    }
    if let Some(node) = &setup.node {
        builder = builder.member(node.build());
    }
    let mut events = builder.subscribe(100_000);
    std::thread::spawn(move || {
        loop {
            match events.recv_timeout(Duration::from_secs(3600)) {
                Ok(event) => tell(line(&event)),
                Err(NoEvent::Nothing) => {}
                Err(NoEvent::Lagged(count)) => tell(word("error", format!("lost {count} events"))),
                Err(NoEvent::Closed) => return,
            }
        }
    });
    std::thread::spawn(move || {
        let (membership, events) = memberships.recv().unwrap();
        follow(&membership, events);
    });
    // A parent that is gone is noticed also while nobody lets this node in.
    let (commanded, commands) = channel();
    std::thread::spawn(move || {
        for command in std::io::stdin().lock().lines().map_while(Result::ok) {
            _ = commanded.send(command);
        }
        std::process::exit(0);
    });
    let service = match builder.start() {
        Ok(service) => service,
        Err(error) => return tell(Line { code: error.code().to_string(), ..word("refused", error.to_string()) }),
    };
    tell(word("started", String::new()));
    let gossip = factory.membership("gossip").unwrap();
    for command in commands {
        let (command, argument) = command.split_once(' ').unwrap_or((&command, ""));
        match command {
            "drain" => tell(word("drained", outcome(service.drain()))),
            "describe" => tell(word("described", outcome(describe(&service, argument)))),
            "metrics" => tell(word("metrics", format!("{:?}", gossip.metrics()))),
            "quarantined" => {
                let ids = gossip.quarantined().iter().map(|entry| entry.id.to_string()).collect();
                tell(Line { ids, ..word("quarantined", format!("{:?}", gossip.quarantined())) });
            }
            "exit" => break,
            other => panic!("unknown command {other:?}"),
        }
    }
    service.shutdown();
    tell(word("stopped", String::new()));
}

/// The local node has that text among its metadata.
fn describe(service: &ClusterProvisioningService, text: &str) -> Result<(), ProvisioningError> {
    let own = service.hub().local_node().unwrap();
    let node = ClusterNode::builder(own.id().as_str(), own.address(), own.port()).metadata("text", text).build()?;
    service.describe(&node)
}

/// Tells whatever the membership tells.
fn follow(membership: &GossipMembership, mut events: EventStream<GossipEvent>) {
    let (mut trouble, mut unusable) = (None, BTreeSet::new());
    loop {
        match events.recv_timeout(LOOKED) {
            Ok(GossipEvent::Unusable { reason, .. })
                if unusable.len() >= UNUSABLE || !unusable.insert(reason.clone()) => {}
            Ok(event) => tell(gossip_line(&event)),
            Err(NoEvent::Nothing) => {}
            Err(NoEvent::Lagged(count)) => tell(word("noise", format!("lost {count} events of the membership"))),
            Err(NoEvent::Closed) => return,
        }
        let now = membership.trouble().map(|error| (error.code(), error.to_string()));
        if now != trouble {
            let (code, text) = now.clone().map_or_else(Default::default, |(code, text)| (code.to_string(), text));
            tell(Line { code, ..word("trouble", text) });
            trouble = now;
        }
    }
}

/// What each member is described as, by [`describe`].
fn texts(members: &Members) -> String {
    let text = |node: &Arc<ClusterNode>| {
        node.metadata()
            .find(|(key, _)| *key == "text")
            .map_or(String::new(), |(_, value)| value.chars().take(9).collect())
    };
    members.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn gossip_line(event: &GossipEvent) -> Line {
    let of = |value: &str| Line { value: value.to_owned(), ..word("gossip", event.to_string()) };
    let about = |value: &str, at: &Timestamp, node: &NodeId| Line {
        at: at.as_nanos(),
        ids: vec![node.to_string()],
        ..of(value)
    };
    let own = |value: &str, at: &Timestamp| Line { at: at.as_nanos(), ..of(value) };
    match event {
        GossipEvent::State { at, node, to, .. } => Line { code: to.to_string(), ..about("state", at, node.id()) },
        GossipEvent::Update(update) => Line {
            ids: update.members.iter().map(|node| format!("{}@{}", node.id(), node.incarnation())).collect(),
            joined: ids(&update.joined),
            left: [ids(&update.left), ids(&update.dead)].concat(),
            code: format!("{:016x}", update.members.hash()),
            text: format!("{event}; texts: {}", texts(&update.members)),
            ..own("update", &update.at)
        },
        GossipEvent::Quarantined { at, node, .. } => about("quarantined", at, node),
        GossipEvent::TurnedAway { at, node, .. } => about("turned-away", at, node),
        GossipEvent::Joined { at } => own("joined", at),
        GossipEvent::Refused { at, .. } => own("refused", at),
        GossipEvent::Isolated { at } => own("isolated", at),
        GossipEvent::Reached { at } => own("reached", at),
        GossipEvent::GivenUp { at } => own("given-up", at),
        GossipEvent::Expelled { at, .. } => own("expelled", at),
        GossipEvent::StoodStill { at } => own("stood-still", at),
        GossipEvent::Unusable { .. } => of("unusable"),
        _ => of("other"),
    }
}
