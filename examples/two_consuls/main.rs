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
//! leaves both, with Ctrl-C or SIGTERM, or when its input closes; `--for 60` ends it after a minute. `CONSUL_HTTP_TOKEN`,
//! if set, is sent to both.

#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use cluster_provisioning::*;

use support::Console;

const USAGE: &str = "usage: two_consuls ID@HOST:PORT [FIRST_URL SECOND_URL] [--for SECONDS]";
const SERVICE: &str = "cluster-provisioning-demo";

struct Options {
    node: ClusterNode,
    consuls: [String; 2],
    duration: Option<Duration>,
}

fn main() -> ExitCode {
    support::end(options().and_then(run))
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
    Ok(Options { node: support::parse_node(node)?, consuls, duration })
}

fn run(options: Options) -> Result<(), String> {
    let console = Console::open(options.duration)?;
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
    }
    console.say("leaving both");
    service.shutdown();
    Ok(())
}
