//! One cluster on two Consuls: a member that registers with both, follows the first, and fails over to the second.
//!
//! ```sh
//! docker run --rm --name first  -p 8500:8500 hashicorp/consul:1.20 agent -dev -client 0.0.0.0
//! docker run --rm --name second -p 8600:8500 hashicorp/consul:1.20 agent -dev -client 0.0.0.0
//!
//! cargo run --example two_consuls -- node-1@127.0.0.1:7001     # in three terminals: node-1, node-2, node-3
//!
//! docker kill first                                            # every member follows the second; nobody leaves
//! docker run --rm --name first ...                             # back to the first, once it has proved itself
//! ```
//!
//! With other addresses: `two_consuls node-1@127.0.0.1:7001 http://10.0.0.1:8500 http://10.0.1.1:8500`. It ends, and
//! leaves both, when its input closes or a line is entered; `--for 60` ends it after a minute. `CONSUL_HTTP_TOKEN`, if
//! set, is sent to both.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_provisioning::*;

const USAGE: &str = "usage: two_consuls ID@HOST:PORT [FIRST_URL SECOND_URL] [--for SECONDS]";
const SERVICE: &str = "cluster-provisioning-demo";

struct Options {
    node: ClusterNode,
    consuls: [String; 2],
    duration: Option<Duration>,
}

fn main() -> ExitCode {
    match options().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let (mut words, mut duration) = (Vec::new(), None);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--for" => {
                let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).ok_or(USAGE)?;
                duration = Some(Duration::from_secs(seconds));
            }
            option if option.starts_with('-') => return Err(USAGE.into()),
            word => words.push(word.to_owned()),
        }
    }
    let (node, consuls) = match words.as_slice() {
        [node] => (node, ["http://127.0.0.1:8500".to_owned(), "http://127.0.0.1:8600".to_owned()]),
        [node, first, second] => (node, [first.clone(), second.clone()]),
        _ => return Err(USAGE.into()),
    };
    Ok(Options { node: parse_node(node)?, consuls, duration })
}

/// Reads `ID@HOST:PORT`. The incarnation is the time of the start, so that a restart is told from the life before.
fn parse_node(text: &str) -> Result<ClusterNode, String> {
    let (id, place) = text.split_once('@').ok_or(USAGE)?;
    let (host, port) = place.rsplit_once(':').ok_or(USAGE)?;
    let port = port.parse().map_err(|_| USAGE)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
    let node = ClusterNode::builder(id, host, port).incarnation(started).kind("demo");
    node.build().map_err(|error| error.to_string())
}

fn run(options: Options) -> Result<(), String> {
    let text = |error: ProvisioningError| error.to_string();
    let has_token = env::var_os("CONSUL_HTTP_TOKEN").is_some();
    let mut builder = ClusterProvisioningService::builder().member(options.node);
    for (name, url, priority) in [("first", &options.consuls[0], 100), ("second", &options.consuls[1], 50)] {
        let mut provider = ConsulFactory::descriptor(name, url, SERVICE).map_err(text)?.priority(priority);
        if has_token {
            provider = provider.credential(Credential::TokenEnv("CONSUL_HTTP_TOKEN".into()));
        }
        builder = builder.provider(provider);
    }
    let mut events = builder.subscribe(10_000);
    let service = builder.start().map_err(text)?;
    let hub = service.hub().clone();

    let deadline = options.duration.map(|duration| Instant::now() + duration);
    let input = deadline.is_none().then(|| std::thread::spawn(|| _ = std::io::stdin().read_line(&mut String::new())));
    loop {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => {
                println!("{}  {event}", &event.at().to_string()[11..23]);
                match &*event {
                    ProvisioningEvent::ProviderChanged(_) => {
                        if let Some(decision) = hub.explain().last() {
                            println!("              why: {decision}");
                        }
                    }
                    ProvisioningEvent::Snapshot(delivery) => {
                        let ids: Vec<_> = delivery.snapshot.members.iter().map(|node| node.id().as_str()).collect();
                        println!("              members: {}", ids.join(", "));
                    }
                    _ => {}
                }
            }
            Err(NoEvent::Lagged(lost)) => println!("({lost} events were not read in time)"),
            Err(NoEvent::Nothing) => {}
            Err(NoEvent::Closed) => return Err("the service has stopped".into()),
        }
        let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over || input.as_ref().is_some_and(|input| input.is_finished()) {
            break;
        }
    }
    println!("leaving both");
    service.shutdown();
    Ok(())
}
