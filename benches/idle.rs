//! What a service costs while nothing changes: three providers of 1,000 nodes that give their signs of life.

mod support;

use std::time::{Duration, Instant};

use cluster_provisioning::{
    ClusterProvisioningService, InMemoryCluster, InMemoryFactory, ProviderDescriptor, ProviderKind, SystemClock,
};
use support::{Table, node};

const WATCHED: Duration = Duration::from_secs(20);

/// The processor time of all threads of this process, by the scheduler's own account; `None` where there is no /proc.
fn processor_time() -> Option<Duration> {
    let mut nanos = 0u64;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let account = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanos += account.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}

fn main() {
    let cluster = InMemoryCluster::new(SystemClock::shared());
    cluster.register_all((0..1_000).map(node));
    let factory = InMemoryFactory::new().cluster("bench", &cluster);
    let mut builder = ClusterProvisioningService::builder().factory(std::sync::Arc::new(factory));
    for (name, priority) in [("first", 3), ("second", 2), ("third", 1)] {
        let kind = ProviderKind::in_memory();
        let descriptor = ProviderDescriptor::new(name, kind).expect("a valid name");
        builder = builder.provider(descriptor.priority(priority));
    }
    let service = builder.start().expect("a service");
    service.wait_ready(Duration::from_secs(10)).expect("a service that is ready");
    std::thread::sleep(Duration::from_secs(1));
    let position = service.hub().position();

    let started = Instant::now();
    let before = processor_time();
    std::thread::sleep(WATCHED);
    let (after, elapsed) = (processor_time(), started.elapsed());
    assert_eq!(service.hub().position(), position, "nothing was delivered");
    let mut table = Table::of_limits("An idle service, three providers");
    match before.zip(after) {
        Some((before, after)) => {
            let share = (after - before).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
            table.limit(&format!("share of one core over {elapsed:.0?}"), share, "%", Some(0.1));
        }
        None => table.note("skipped: no /proc/self/task/*/schedstat here"),
    }
}
