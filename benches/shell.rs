//! What the service's callers wait for, while a stream floods, a callback sleeps or a backend hangs; and what bursts of
//! commands cost. Beside each figure the same in peace.

#[path = "../tests/support/running.rs"]
mod running;
mod support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cluster_provisioning::testkit::{BridgeKind, node};
use cluster_provisioning::*;
use running::{Call, Latch, Running, alive, change, hang_in, played, until};
use support::{Samples, Table, Target, time};

const PATIENCE: Duration = Duration::from_secs(60);
/// The name of the hub's thread.
const HUB: &str = "cluster-hub";
const BUDGET: Duration = Duration::from_millis(200);

fn main() {
    stopping();
    beside_a_flood();
    reads();
    bursts();
}

/// A stream that changes without a pause.
fn churn(number: u64) -> ProviderEvent {
    let id = format!("f{}", number / 2 % 10);
    change(match number % 2 {
        0 => MemberChange::Upsert(Arc::new(node(&id))),
        _ => MemberChange::Remove(NodeId::new(id).expect("a valid id")),
    })
}

fn number(number: usize) -> NodeId {
    NodeId::new(format!("n{number}")).expect("a valid id")
}

/// Stops a service whose inbox is full, while a stream floods and a callback sleeps.
fn stop_in_trouble(member: bool, stop: fn(ClusterProvisioningService)) -> Duration {
    let running = Running::with(&["a", "hot"], |builder| {
        let builder = builder.leave_budget(BUDGET);
        if member { builder.member(node("n1")) } else { builder }
    });
    running.ready("a", &["n1"]);
    running.role("hot").flood(churn);
    let leaves = hang_in(&running.role("a"), Call::Leave);
    let sleeps = Latch::new();
    let hangs = Arc::clone(&sleeps);
    running.recorder.on_call(move |_| hangs.hang());
    running.role("a").show(&["n1", "n2"]);
    sleeps.reached(1);
    let full = |ticket: Ticket| ticket.wait(Duration::ZERO).is_err_and(|error| error.code() == ErrorCode::InboxFull);
    while !full(running.hub().unpin()) {}
    let service = running.into_service();
    let (took, ()) = time(|| stop(service));
    [sleeps, leaves].iter().for_each(|latch| latch.open());
    took
}

fn stopping() {
    let mut table = Table::of_limits("Stopping: the inbox is full, a stream floods, a callback sleeps; of 20");
    let mut stops = |what: &str, member, stop: fn(ClusterProvisioningService), limit: Duration| {
        let mut samples = Samples::default();
        (0..20).for_each(|_| samples.push(stop_in_trouble(member, stop)));
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        table.limit(&format!("{what}, p50"), millis(samples.median()), "ms", Some(millis(limit)));
        table.limit(&format!("{what}, longest"), millis(samples.quantile(1.0)), "ms", None);
    };
    let limit = Duration::from_millis(100);
    stops("shutdown()", false, ClusterProvisioningService::shutdown, limit);
    stops("drop", false, drop, limit);
    stops("drop, and leave hangs for its budget of 200 ms", true, drop, limit + BUDGET);
}

/// How long commands take to their outcome, and changes of a provider to the last bridge's callback.
fn latencies(running: &Running, rounds: usize) -> (Samples, Samples) {
    let (mut commands, mut changes) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        // Spread over more than a second: a stream that floods is made to wait for the rest of each.
        thread::sleep(Duration::from_millis(1));
        let (took, outcome) = time(|| running.hub().unpin().wait(PATIENCE));
        outcome.expect("it is carried out");
        commands.push(took);
        let id = number(2 + round % 2);
        let next = change(match round / 2 % 2 {
            0 => MemberChange::Upsert(Arc::new(node(id.as_str()))),
            _ => MemberChange::Remove(id.clone()),
        });
        let started = Instant::now();
        running.role("calm").say(next);
        running.delivered(
            BridgeKind::Remoting,
            |event| matches!(event, ProvisioningEvent::RemoteTopology(remote) if remote.node_id == id),
        );
        changes.push(started.elapsed());
    }
    (commands, changes)
}

fn beside_a_flood() {
    let running = Running::with(&["calm", "hot"], |builder| builder.coalescing(Duration::ZERO));
    running.ready("calm", &["n1"]);
    let floor = latencies(&running, 2000);
    let mut table = Table::new("Beside a stream in a hot loop, limit of p99 10 ms", "flood", "peace");
    type Flood = fn(u64) -> ProviderEvent;
    for (what, flood) in [("heartbeats", (|_| alive()) as Flood), ("changes", churn)] {
        running.role("hot").flood(flood);
        let said = running.role("hot").calls(Call::Next);
        until("it floods", || running.role("hot").calls(Call::Next) > said + 1000);
        let figure = latencies(&running, 2000);
        running.role("hot").end_flood();
        for (name, figure, floor) in [("a command", &figure.0, &floor.0), ("another's change", &figure.1, &floor.1)] {
            table.row(&format!("{name} beside {what}, p50"), figure.median(), floor.median(), Target::None);
            let (figure, floor) = (figure.quantile(0.99), floor.quantile(0.99));
            let limit = Duration::from_millis(10).saturating_sub(floor);
            table.row(&format!("{name} beside {what}, p99"), figure, floor, Target::Above(limit));
        }
    }
}

type Read = fn(&ClusterProvisioningService);

fn reads() {
    let running = Running::with(&["a"], |builder| builder.connectivity_timeout(PATIENCE));
    running.ready("a", &["n1"]);
    let reads: [(&str, Read); 4] = [
        ("registered()", |service| drop(std::hint::black_box(service.registered()))),
        ("gate()", |service| _ = std::hint::black_box(service.hub().gate())),
        ("latest_snapshot()", |service| _ = std::hint::black_box(service.hub().latest_snapshot())),
        ("providers()", |service| drop(std::hint::black_box(service.hub().providers()))),
    ];
    let measure = |read: Read| {
        let mut samples = Samples::default();
        (0..100_000).for_each(|_| samples.push(time(|| read(&running.service)).0));
        samples
    };
    let floors = reads.map(|(_, read)| measure(read));
    let latch = hang_in(&running.role("new"), Call::Connect);
    let service = Arc::clone(&running.service);
    let change = thread::spawn(move || service.register(played("new", 9)));
    latch.reached(1);
    let mut table = Table::new("Reads while a change waits for a backend, limit of p99 10 µs", "change", "peace");
    for ((what, read), floor) in reads.into_iter().zip(floors) {
        let figure = measure(read);
        table.row(&format!("{what}, p50"), figure.median(), floor.median(), Target::None);
        let (figure, floor) = (figure.quantile(0.99), floor.quantile(0.99));
        let limit = Duration::from_micros(10).saturating_sub(floor);
        table.row(&format!("{what}, p99"), figure, floor, Target::Above(limit));
    }
    latch.open();
    change.join().expect("no panic").expect("it is registered");
}

/// How long the threads of that name were on a processor so far; nothing where the system does not tell.
fn on_processor(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let named = tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|found| found.trim_end() == name));
    let nanos = named.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// What the hub's thread works from the first command to the outcome of the last, whatever else the machine does; no more
/// than 1,000 of them wait at a time.
fn order(count: usize, command: impl Fn(usize) -> Ticket) -> Duration {
    let before = on_processor(HUB);
    for first in (0..count).step_by(1000) {
        let tickets: Vec<_> = (first..count.min(first + 1000)).map(&command).collect();
        // The last one first: the others have their outcomes by then, and wake nobody.
        tickets.iter().rev().for_each(|ticket| ticket.wait(PATIENCE).expect("it is carried out"));
    }
    on_processor(HUB).saturating_sub(before)
}

fn bursts() {
    let mut table = Table::new("Bursts, 5,000 members: time of the hub's thread, limit 100 ms", "burst", "unpin()");
    let [mut quarantines, mut blocks, mut floor, mut longer_floor] = [(); 4].map(|()| Samples::default());
    for _ in 0..10 {
        let running = Running::new(&["a"]);
        let ids: Vec<_> = (0..5000).map(|number| format!("n{number}")).collect();
        running.ready("a", &ids.iter().map(String::as_str).collect::<Vec<_>>());
        let hub = running.hub();
        floor.push(order(5000, |_| hub.unpin()));
        longer_floor.push(order(8000, |_| hub.unpin()));
        quarantines.push(order(5000, |id| hub.quarantine(number(id), "no answer")));
        blocks.push(order(8000, |id| hub.block(number(id), "an operator says so")));
    }
    let limit = |floor: &Samples| Target::Above(Duration::from_millis(100).saturating_sub(floor.median()));
    table.row("5,000 quarantines", quarantines.median(), floor.median(), limit(&floor));
    table.row("8,000 single blocks", blocks.median(), longer_floor.median(), limit(&longer_floor));
}
