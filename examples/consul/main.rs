//! Watches a service of a Consul, joins it if told to, and prints what changes, as it changes.
//!
//! Start a Consul (or three: see `compose.yaml`), and watch:
//!
//! ```sh
//! docker run --rm -p 8500:8500 hashicorp/consul:1.20 agent -dev -client 0.0.0.0
//!
//! curl -X PUT http://127.0.0.1:8500/v1/agent/service/register -d '{"Name": "cluster-provisioning-demo", "ID": "demo-1",
//!   "Address": "10.0.0.1", "Port": 7001, "Meta": {"id": "node-1", "incarnation": "1"}, "Check": {"TTL": "1h", "Status": "passing"}}'
//!
//! cargo run --example consul                       # until Ctrl-C or SIGTERM, or until its input closes
//! cargo run --example consul -- orders --for 60    # another service, for a minute
//! cargo run --example consul -- --member node-2@127.0.0.1:7002    # as a member: registers, and leaves at its end
//! ```
//!
//! A member that is told to end deregisters, and the others see it leave at once. One that is killed (`kill -9`) leaves
//! when its check has expired, 3 s later.
//!
//! Register and deregister (`curl -X PUT .../v1/agent/service/deregister/demo-1`) while it runs, stop Consul and start it
//! again. Where it is, the token, certificates and so on come from the variables that Consul's own tools read:
//! `CONSUL_HTTP_ADDR` (default `127.0.0.1:8500`), `CONSUL_HTTP_TOKEN`, `CONSUL_CACERT` and the others. Several addresses,
//! separated by commas, are several providers, the first one preferred.

#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use cluster_provisioning::*;

use support::Console;

struct Options {
    service: String,
    member: Option<ClusterNode>,
    duration: Option<Duration>,
}

fn main() -> ExitCode {
    support::end(options().and_then(|options| run(&options)))
}

fn options() -> Result<Options, String> {
    let usage = "usage: consul [SERVICE] [--member ID@HOST:PORT] [--for SECONDS]";
    let mut options = Options { service: "cluster-provisioning-demo".to_owned(), member: None, duration: None };
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--for" => {
                let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).ok_or(usage)?;
                options.duration = Some(Duration::from_secs(seconds));
            }
            "--member" => options.member = Some(support::parse_node(&arguments.next().ok_or(usage)?)?),
            option if option.starts_with('-') => return Err(usage.to_owned()),
            service => options.service = service.to_owned(),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), String> {
    let console = Console::open(options.duration)?;
    let addresses = env::var("CONSUL_HTTP_ADDR").unwrap_or_else(|_| "http://127.0.0.1:8500".to_owned());
    let mut builder = ClusterProvisioningService::builder();
    for (number, address) in addresses.split(',').map(str::trim).enumerate() {
        let provider =
            provider(number, address, !addresses.contains(','), &options.service).map_err(|error| error.to_string())?;
        builder = builder.provider(provider);
    }
    if let Some(node) = &options.member {
        builder = builder.member(node.clone());
    }
    let mut events = builder.subscribe(10_000);
    let service = builder.start().map_err(|error| explain_start(&error, &addresses))?;
    console.say(format_args!("Watching the service {} through {addresses}", options.service));

    while !console.is_over() {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => console.show(&event),
            Err(why) => console.no_event(why)?,
        }
    }

    let metrics = service.hub().metrics();
    let (snapshots, failovers, ends) = (metrics.snapshots, metrics.failovers, metrics.stream_interruptions);
    console.say(format_args!("\n{snapshots} snapshots, {failovers} failovers, {ends} interruptions"));
    for status in service.hub().providers() {
        let cause = status.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        console.say(format_args!("{}: {}{cause}", status.id, status.health));
    }
    // A member is deregistered, so that the others see it leave at once.
    service.shutdown();
    Ok(())
}

/// One address: as the environment says in full. Several: each as it stands, with the token if there is one.
fn provider(number: usize, address: &str, alone: bool, service: &str) -> Result<ProviderDescriptor, ProvisioningError> {
    let id = format!("consul-{number}");
    if alone {
        return ConsulFactory::from_environment(&id, service);
    }
    // Consul's own tools take an address without a scheme.
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let provider = ConsulFactory::descriptor(&id, &url, service)?.priority(100 - number.min(100) as i64);
    let has_token = env::var_os("CONSUL_HTTP_TOKEN").is_some();
    Ok(if has_token { provider.credential(Credential::TokenEnv("CONSUL_HTTP_TOKEN".to_owned())) } else { provider })
}

fn explain_start(error: &ProvisioningError, addresses: &str) -> String {
    let hint = match error.code() {
        ErrorCode::BackendUnavailable | ErrorCode::Timeout => {
            "\n\nIs Consul running there? To start one:\n  \
             docker run --rm -p 8500:8500 hashicorp/consul:1.20 agent -dev -client 0.0.0.0\n\
             CONSUL_HTTP_ADDR names another address."
        }
        _ => "",
    };
    format!("Cannot watch Consul at {addresses}.\n{error}{hint}")
}
