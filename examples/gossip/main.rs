//! One node of a cluster that needs nobody else. In one terminal:
//!
//!     cargo run --example gossip -- --name a
//!
//! and in another:
//!
//!     cargo run --example gossip -- --name b --seed 127.0.0.1:7946
//!
//! Each shows who is in the cluster, live. End one by Ctrl-C, and it leaves; kill it, and the others find it dead.

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster_provisioning::*;
use signal_hook::consts::{SIGINT, SIGTERM};

const USAGE: &str = "\
usage: gossip --name NAME [--seed HOST:PORT]... [--bind ADDRESS:PORT] [--address ADDRESS] [--label LABEL]
              [--profile local|lan|wan] [--observe]

  --name     the node's id
  --seed     a member that is asked to let this node in; may be given several times
  --bind     where this node listens: 127.0.0.1:7946, or with a seed at any free port of 127.0.0.1
  --address  where the others reach it: the address of --bind
  --label    the cluster's name: demo
  --profile  how patient the protocol is: lan
  --observe  only look on: this process is no member";

struct Options {
    name: String,
    seeds: Vec<String>,
    bind: Option<String>,
    address: Option<String>,
    label: String,
    profile: String,
    observe: bool,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        name: String::new(),
        seeds: Vec::new(),
        bind: None,
        address: None,
        label: "demo".to_owned(),
        profile: "lan".to_owned(),
        observe: false,
    };
    while let Some(argument) = arguments.next() {
        if argument == "--observe" {
            options.observe = true;
            continue;
        }
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
        match argument.as_str() {
            "--name" => options.name = value()?,
            "--seed" => options.seeds.push(value()?),
            "--bind" => options.bind = Some(value()?),
            "--address" => options.address = Some(value()?),
            "--label" => options.label = value()?,
            "--profile" => options.profile = value()?,
            _ => return Err(format!("{argument} is no option\n\n{USAGE}")),
        }
    }
    if options.name.is_empty() && !options.observe {
        return Err(format!("--name is needed\n\n{USAGE}"));
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).map_err(Into::into).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let leaving = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&leaving))?;
    }
    let bind = options.bind.unwrap_or_else(|| match options.seeds.is_empty() {
        true => "127.0.0.1:7946".to_owned(),
        false => "127.0.0.1:0".to_owned(),
    });
    let address = options.address.unwrap_or_else(|| bind.rsplit_once(':').map_or("", |(host, _)| host).to_owned());
    let mut definition = GossipFactory::descriptor("gossip", &options.label)?.parameter("profile", options.profile);
    if !options.observe {
        definition = definition.parameter("bind", bind);
    }
    for seed in options.seeds {
        definition = definition.endpoint(seed);
    }

    let factory = GossipFactory::new();
    let mut builder = ClusterProvisioningService::builder().factory(Arc::new(factory.clone())).provider(definition);
    if !options.observe {
        let incarnation = SystemClock::new().now().as_nanos() / 1_000_000;
        let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
        builder = builder.member(ClusterNode::builder(&options.name, &address, 7001).incarnation(incarnation).build()?);
    }
    let screen = Arc::new(Screen::new(options.name));
    // It comes back when the node is a member; what keeps it out is shown meanwhile.
    let starting = std::thread::spawn(move || builder.join_timeout(Duration::from_secs(3600)).start());
    let gossip = loop {
        match factory.membership("gossip") {
            Some(gossip) => break gossip,
            None if starting.is_finished() => return Err(started(starting).err().unwrap_or("no provider".into())),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut events = gossip.subscribe(1_000);

    let (mut starting, mut service, mut shown, mut amiss) = (Some(starting), None, None, None);
    while !leaving.load(Relaxed) {
        let mut told = match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => Some(event.to_string()),
            Err(NoEvent::Closed) => return Err("the service has stopped".into()),
            Err(_) => None,
        };
        let trouble = gossip.trouble();
        if told.is_none() && trouble != amiss {
            told = trouble.as_ref().map(ToString::to_string);
            amiss = trouble;
        }
        if let Some(starting) = starting.take_if(|starting| starting.is_finished()) {
            service = Some(started(starting)?);
        }
        let snapshot = service.as_ref().and_then(|service: &ClusterProvisioningService| service.hub().snapshot());
        let members = snapshot.map(|snapshot| snapshot.members.clone()).unwrap_or_default();
        let state = (members.hash(), gossip.converged().is_some());
        if (told.is_some() || shown != Some(state)) && !screen.show(&members, &gossip, told) {
            break; // nobody reads any more
        }
        shown = Some(state);
    }
    if let Some(service) = service {
        service.drain()?;
    }
    Ok(())
}

type Starting = std::thread::JoinHandle<Result<ClusterProvisioningService, ProvisioningError>>;

fn started(starting: Starting) -> Result<ClusterProvisioningService, Box<dyn std::error::Error>> {
    Ok(starting.join().map_err(|_| "the start has panicked")??)
}

/// A table on a terminal, and a line for each event elsewhere.
struct Screen {
    name: String,
    is_terminal: bool,
    lines: Mutex<Vec<String>>,
}

impl Screen {
    fn new(name: String) -> Self {
        Self { name, is_terminal: stdout().is_terminal(), lines: Mutex::default() }
    }

    /// Whether it could be shown.
    fn show(&self, members: &Members, gossip: &GossipMembership, told: Option<String>) -> bool {
        if !self.is_terminal {
            let members: Vec<String> = members.iter().map(|node| node.id().to_string()).collect();
            let line = told.unwrap_or_else(|| format!("members: {}", members.join(" ")));
            return writeln!(stdout(), "{line}").is_ok();
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend(told.map(|told| format!("{} {told}", &SystemClock::new().now().to_string()[11..19])));
        let excess = lines.len().saturating_sub(8);
        lines.drain(..excess);
        let mut page = String::from("\x1b[2J\x1b[H");
        let port = gossip.port().map_or_else(String::new, |port| format!(" at port {port}"));
        page += &format!("{}{port}   (Ctrl-C leaves)\n\n", if self.name.is_empty() { "observer" } else { &self.name });
        for node in members {
            let own = if node.id().as_str() == self.name { "  this node" } else { "" };
            page += &format!("  {:<16} {}:{}{own}\n", node.id(), node.address(), node.port());
        }
        for node in gossip.quarantined() {
            let until = node.until.map_or("until that is lifted".to_owned(), |until| format!("until {until}"));
            page += &format!("  {:<16} kept out {until}\n", node.id);
        }
        let converged = if gossip.converged().is_some() { "all members hold the same" } else { "" };
        page += &format!("\n{converged}\n\n{}\n", lines.join("\n"));
        stdout().write_all(page.as_bytes()).and_then(|()| stdout().flush()).is_ok()
    }
}
