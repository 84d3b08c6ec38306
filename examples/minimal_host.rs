//! Watches a Consul, and makes do with two seed nodes for as long as that does not answer.
use std::io::{Write, stdout};
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering::Relaxed};
use std::time::Duration;

use cluster_provisioning::*;
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8500".into());
    let leaving = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, leaving.clone())?;
    }
    let seeds = InMemoryCluster::new(SystemClock::shared());
    seeds.register(ClusterNode::builder("seed-1", "10.0.0.1", 7001).build()?);
    seeds.register(ClusterNode::builder("seed-2", "10.0.0.2", 7001).build()?);
    let fallback = ProviderDescriptor::new("seeds", ProviderKind::in_memory())?.role(ProviderRole::Fallback);

    let builder = ClusterProvisioningService::builder()
        .factory(Arc::new(InMemoryFactory::new().cluster("seeds", &seeds)))
        .provider(ConsulFactory::descriptor("consul", &url, "orders")?.priority(100))
        .provider(fallback);
    let mut events = builder.subscribe(1_000);
    let service = builder.start()?; // succeeds with the seeds alone; a Consul that does not answer is pending

    while !leaving.load(Relaxed) {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) if writeln!(stdout(), "{event}").is_err() => break, // nobody reads any more
            Err(NoEvent::Closed) => return Err("the service has stopped".into()),
            _ => {}
        }
    }
    service.drain()?; // leaves: placement pauses, and a member deregisters
    Ok(())
}
