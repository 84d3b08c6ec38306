//! Watches a cluster of pods, as one of them if told to, and prints what changes, as it changes.
//!
//! In Kubernetes, with `members.yaml` beside this file:
//!
//! ```sh
//! docker build -f examples/kubernetes/Dockerfile -t cluster-provisioning-demo .    # and load or push it
//! kubectl apply -f examples/kubernetes/members.yaml
//! kubectl logs -f deployment/demo
//! kubectl scale deployment/demo --replicas 5         # watch two join
//! kubectl rollout restart deployment/demo            # watch all of them be replaced
//! ```
//!
//! In a pod nothing has to be said but `--member`, which takes the pod's name and address from `POD_NAME` and `POD_IP`; on
//! SIGTERM it leaves, and the others see it go at once. From outside, as a client:
//!
//! ```sh
//! cargo run --example kubernetes --features kubeconfig                      # as kubectl does
//! cargo run --example kubernetes -- demo --server https://10.1.0.10:6443 --ca ca.crt --token-file token --namespace demo
//! ```
//!
//! It ends with Ctrl-C, when its input closes, or after `--for SECONDS`.

#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::io::Write;
use std::net::TcpListener;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use cluster_provisioning::*;

use support::Console;

const USAGE: &str = "usage: kubernetes [CLUSTER] [--member [ID@HOST:PORT]] [--for SECONDS]
       [--server URL --namespace NAME [--token-file FILE] [--ca FILE]]";
/// Where a member of the manifest is reached.
const PORT: u16 = 7001;

#[derive(Default)]
struct Options {
    cluster: Option<String>,
    member: Option<ClusterNode>,
    duration: Option<Duration>,
    server: Option<String>,
    namespace: Option<String>,
    token_file: Option<String>,
    ca: Option<String>,
}

fn main() -> ExitCode {
    support::end(options().and_then(|options| run(&options)))
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = env::args().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().filter(|value| !value.starts_with('-')).ok_or(USAGE);
        match argument.as_str() {
            "--for" => options.duration = Some(Duration::from_secs(value()?.parse().map_err(|_| USAGE)?)),
            "--server" => options.server = Some(value()?),
            "--namespace" => options.namespace = Some(value()?),
            "--token-file" => options.token_file = Some(value()?),
            "--ca" => options.ca = Some(value()?),
            "--member" => {
                let named = arguments.next_if(|next| next.contains('@'));
                options.member = Some(node(named.as_deref())?);
            }
            option if option.starts_with('-') => return Err(USAGE.to_owned()),
            cluster if options.cluster.is_none() => options.cluster = Some(cluster.to_owned()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

/// The local node: as it is named, or as the pod is.
fn node(named: Option<&str>) -> Result<ClusterNode, String> {
    if let Some(text) = named {
        return support::parse_node(text);
    }
    let told = |name: &str| env::var(name).map_err(|_| format!("{name} is not set: see members.yaml\n{USAGE}"));
    support::node(&told("POD_NAME")?, &told("POD_IP")?, PORT)
}

fn run(options: &Options) -> Result<(), String> {
    let console = Console::open(options.duration)?;
    let cluster = options.cluster.as_deref().unwrap_or("demo");
    let provider = provider(options, cluster).map_err(|error| error.to_string())?;
    let mut builder = ClusterProvisioningService::builder().provider(provider);
    if let Some(node) = &options.member {
        builder = builder.member(node.clone());
        listen(node)?;
    }
    let mut events = builder.subscribe(10_000);
    let service = builder.start().map_err(|error| explain_start(&error))?;
    console.say(format_args!("Watching the cluster {cluster}"));

    while !console.is_over() {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => console.show(&event),
            Err(why) => console.no_event(why)?,
        }
    }

    let metrics = service.hub().metrics();
    console.say(format_args!("\n{} snapshots, {} interruptions", metrics.snapshots, metrics.stream_interruptions));
    for status in service.hub().providers() {
        let cause = status.cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
        console.say(format_args!("{}: {}{cause}", status.id, status.health));
    }
    // Takes the labels off the pod, so that the others know before it has gone.
    service.shutdown();
    console.say("Left");
    Ok(())
}

fn provider(options: &Options, cluster: &str) -> Result<ProviderDescriptor, ProvisioningError> {
    let mut provider = match &options.server {
        Some(server) => KubernetesFactory::descriptor("kubernetes", cluster)?.endpoint(server),
        None if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            KubernetesFactory::descriptor("kubernetes", cluster)?
        }
        None => outside(cluster)?,
    };
    if let Some(file) = &options.token_file {
        provider = provider.credential(Credential::TokenFile(file.clone()));
    }
    for (parameter, value) in [("namespace", &options.namespace), ("ca-file", &options.ca)] {
        if let Some(value) = value {
            provider = provider.parameter(parameter, value);
        }
    }
    Ok(provider)
}

/// Where nothing was said and this is no pod.
#[cfg(feature = "kubeconfig")]
fn outside(cluster: &str) -> Result<ProviderDescriptor, ProvisioningError> {
    KubernetesFactory::from_kubeconfig("kubernetes", cluster)
}

/// Where nothing was said and this is no pod.
#[cfg(not(feature = "kubeconfig"))]
fn outside(cluster: &str) -> Result<ProviderDescriptor, ProvisioningError> {
    // Its refusal says which variable of a pod is missing.
    KubernetesFactory::descriptor("kubernetes", cluster)
}

fn explain_start(error: &ProvisioningError) -> String {
    let hint = match error.code() {
        ErrorCode::MissingField => {
            "\n\nThis is no pod. Name the API server with --server, or build with --features kubeconfig."
        }
        ErrorCode::AccessDenied => "\n\nThe rights that members and clients need are in members.yaml.",
        _ => "",
    };
    format!("Cannot watch the cluster.\n{error}{hint}")
}

/// Answers at the member's port, where a host's remoting would be: with its id. The manifest's readiness probe connects to
/// it.
fn listen(node: &ClusterNode) -> Result<(), String> {
    let place = format!("{}:{}", node.address(), node.port());
    let listener = TcpListener::bind((node.address(), node.port())).map_err(|error| format!("{place}: {error}"))?;
    let greeting = format!("{}\n", node.id());
    thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            // A probe may have gone again.
            _ = caller.write_all(greeting.as_bytes());
        }
    });
    Ok(())
}
