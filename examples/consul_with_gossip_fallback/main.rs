//! One cluster by two ways: Consul as the first choice, and the members' own gossip for as long as Consul is away. Without
//! arguments it is a demonstration that needs a Consul binary (`CONSUL_BIN`, or `consul` on the PATH) and takes a minute:
//!
//! ```sh
//! cargo run --example consul_with_gossip_fallback
//! ```
//!
//! It starts a Consul and three members, kills the Consul (kill -9), shows that nobody leaves or joins by that, and starts
//! the Consul again. The exit code is 0 if all of that was as it must be.
//!
//! By hand, in several terminals:
//!
//! ```sh
//! consul agent -dev
//! cargo run --example consul_with_gossip_fallback -- node-1@127.0.0.1:7001
//! cargo run --example consul_with_gossip_fallback -- node-2@127.0.0.1:7002 --gossip 127.0.0.1:7947 --seed 127.0.0.1:7946
//! cargo run --example consul_with_gossip_fallback -- node-3@127.0.0.1:7003 --gossip 127.0.0.1:7948 --seed 127.0.0.1:7946
//! ```
//!
//! A member leaves both with Ctrl-C or SIGTERM, or when its input closes; `--for 60` ends it after a minute.

#[path = "../support/children.rs"]
mod children;
mod demonstration;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::*;

use support::Console;

const USAGE: &str = "\
usage: consul_with_gossip_fallback                       a demonstration, with a Consul of its own
       consul_with_gossip_fallback ID@HOST:PORT [--consul URL] [--gossip ADDRESS:PORT] [--seed HOST:PORT]... [--for SECONDS]

  --consul   the agent: http://127.0.0.1:8500
  --gossip   where this member listens for the others: port 7946 of every address
  --seed     a member that is asked to let this one in; may be given several times";

/// The service's name in Consul, and the label of the members' gossip: one cluster.
const CLUSTER: &str = "cluster-provisioning-demo";

struct Options {
    node: ClusterNode,
    consul: String,
    gossip: Option<String>,
    seeds: Vec<String>,
    duration: Option<Duration>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    support::end(match arguments.split_first() {
        None => demonstration::run(),
        Some((first, server)) if first == "--keep" => demonstration::keep(server),
        Some(_) => options(arguments.into_iter()).and_then(member),
    })
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut node, mut consul, mut gossip) = (None, "http://127.0.0.1:8500".to_owned(), None);
    let (mut seeds, mut duration) = (Vec::new(), None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
        match argument.as_str() {
            "--consul" => consul = value()?,
            "--gossip" => gossip = Some(value()?),
            "--seed" => seeds.push(value()?),
            "--for" => duration = Some(Duration::from_secs(value()?.parse().map_err(|_| USAGE)?)),
            option if option.starts_with('-') || node.is_some() => return Err(USAGE.into()),
            word => node = Some(support::parse_node(word)?),
        }
    }
    Ok(Options { node: node.ok_or(USAGE)?, consul, gossip, seeds, duration })
}

fn member(options: Options) -> Result<(), String> {
    let console = Console::open(options.duration)?;
    let text = |error: ProvisioningError| error.to_string();
    let given = &options.node;
    let node = ClusterNode::builder(given.id().as_str(), given.address(), given.port())
        .incarnation(given.incarnation())
        .kinds(given.kinds())
        .metadata("version", env!("CARGO_PKG_VERSION"))
        .build()
        .map_err(text)?;

    let consul = ConsulFactory::descriptor("consul", &options.consul, CLUSTER).map_err(text)?.priority(100);
    // A mirror, which is the default: these are the same members, each with the same id, address and incarnation.
    let mut gossip = GossipFactory::descriptor("gossip", CLUSTER).map_err(text)?.priority(50);
    if let Some(bind) = options.gossip {
        gossip = gossip.parameter("bind", bind);
    }
    for seed in options.seeds {
        gossip = gossip.endpoint(seed);
    }

    let factory = GossipFactory::new();
    let builder = ClusterProvisioningService::builder()
        .factory(Arc::new(factory.clone()))
        .provider(consul)
        .provider(gossip)
        .member(node);
    let mut events = builder.subscribe(10_000);
    let service = builder.start().map_err(text)?;
    let hub = service.hub().clone();
    if let Some(port) = factory.membership("gossip").and_then(|gossip| gossip.port()) {
        console.say(format_args!("gossip at port {port}"));
    }

    let mut standing = None;
    while !console.is_over() {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => {
                console.show(&event);
                if let (ProvisioningEvent::ProviderChanged(_), Some(decision)) = (&*event, hub.explain().last()) {
                    console.say(format_args!("{:19}why: {decision}", ""));
                }
            }
            Err(why) => console.no_event(why)?,
        }
        // What each of the two shows, beside the one that is followed: a switch is possible when both show all.
        let shows: Vec<String> = hub.providers().iter().map(shows).collect();
        if standing.as_ref() != Some(&shows) {
            shows.iter().for_each(|shows| console.say(format_args!("{:19}{shows}", "")));
            standing = Some(shows);
        }
    }
    console.say("leaving both");
    service.drain().map_err(text)
}

fn shows(provider: &ProviderStatus) -> String {
    let followed = if provider.active { ", followed" } else { "" };
    match (provider.members, provider.hash) {
        (Some(members), Some(hash)) => {
            format!("{} is {}{followed}: {members} members, hash {hash:016x}", provider.id, provider.health)
        }
        _ => format!("{} is {}{followed}: no members yet", provider.id, provider.health),
    }
}
