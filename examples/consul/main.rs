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
//! cargo run --example consul                       # until Ctrl-C, or until its input closes
//! cargo run --example consul -- orders --for 60    # another service, for a minute
//! cargo run --example consul -- --member node-2@127.0.0.1:7002    # as a member: registers, and leaves at its end
//! ```
//!
//! Ctrl-C ends a member without a farewell: the others see it leave when its check has expired, 3 s later. Ctrl-D lets
//! it leave at once.
//!
//! Register and deregister (`curl -X PUT .../v1/agent/service/deregister/demo-1`) while it runs, stop Consul and start it
//! again. Where it is, the token, certificates and so on come from the variables that Consul's own tools read:
//! `CONSUL_HTTP_ADDR` (default `127.0.0.1:8500`), `CONSUL_HTTP_TOKEN`, `CONSUL_CACERT` and the others. Several addresses,
//! separated by commas, are several providers, the first one preferred.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster_provisioning::*;

struct Options {
    service: String,
    member: Option<ClusterNode>,
    duration: Option<Duration>,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
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
            "--member" => options.member = Some(parse_node(&arguments.next().ok_or(usage)?).ok_or(usage)??),
            option if option.starts_with('-') => return Err(usage.to_owned()),
            service => options.service = service.to_owned(),
        }
    }
    Ok(options)
}

/// Reads `ID@HOST:PORT`. The incarnation is the time of the start, so that a restart is told from the life before.
fn parse_node(text: &str) -> Option<Result<ClusterNode, String>> {
    let (id, place) = text.split_once('@')?;
    let (host, port) = place.rsplit_once(':')?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_millis() as u64);
    let node = ClusterNode::builder(id, host, port.parse().ok()?).incarnation(started).kind("demo");
    Some(node.build().map_err(|error| error.to_string()))
}

fn run(options: &Options) -> Result<(), String> {
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
    println!("Watching the service {} through {addresses}", options.service);

    let deadline = options.duration.map(|duration| Instant::now() + duration);
    let input = deadline.is_none().then(watch_input);
    loop {
        match events.recv_timeout(Duration::from_millis(200)) {
            Ok(event) => print(&event),
            Err(NoEvent::Lagged(lost)) => println!("({lost} events were not read in time)"),
            Err(NoEvent::Nothing) => {}
            Err(NoEvent::Closed) => return Err("the service has stopped".to_owned()),
        }
        let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over || input.as_ref().is_some_and(|input| input.is_finished()) {
            break;
        }
    }

    let metrics = service.hub().metrics();
    println!(
        "\n{} snapshots, {} failovers, {} interruptions",
        metrics.snapshots, metrics.failovers, metrics.stream_interruptions
    );
    for status in service.hub().providers() {
        let cause = status.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        println!("{}: {}{cause}", status.id, status.health);
    }
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

/// Ends when standard input does.
fn watch_input() -> std::thread::JoinHandle<()> {
    std::thread::spawn(|| _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
}

fn print(event: &Arc<ProvisioningEvent>) {
    let time = event.at().to_string();
    println!("{}  #{:<4} {event}", &time[11..23], event.position().seq_no);
    let ProvisioningEvent::Snapshot(delivery) = &**event else { return };
    let (diff, indent) = (&delivery.diff, " ".repeat(19));
    for (mark, nodes) in [("-", diff.left()), ("+", diff.joined()), ("~", diff.updated())] {
        for node in nodes {
            let kinds: Vec<_> = node.kinds().collect();
            let place = format!("{}:{}", node.address(), node.port());
            println!("{indent}{mark} {} at {place}, incarnation {}, kinds {kinds:?}", node.id(), node.incarnation());
        }
    }
}
