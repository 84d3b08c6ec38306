//! A tour that needs nothing installed: `cargo run --example quickstart`.
//!
//! Four nodes form a cluster in this process. Two providers watch it: a registry in memory, and the gossip of the nodes
//! themselves ([`neighbours`]). The service makes one steady view of what they say: a PlacementSupervisor ([`placement`]) spreads 300 keys over the nodes, a
//! PartitionManager ([`partitions`]) keeps the leases, and Remoting ([`remoting`]) the channels. Then things happen to
//! the cluster. Throughout it is checked that every key has exactly one owner who can write to it, that positions and
//! tokens only rise, and that every channel opens and closes once ([`checks`]); the exit code tells.

mod checks;
mod neighbours;
mod partitions;
mod placement;
mod remoting;
mod screen;
mod table;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_provisioning::*;

use checks::Checks;
use neighbours::Neighbours;
use partitions::Partitions;
use placement::{Placement, owner_of, usable};
use remoting::{Channel, Remoting};
use screen::{Ink, Screen};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The node that this process is.
const LOCAL: &str = "node-1";
const KEYS: usize = 300;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a reader gets for each scene.
const READING: Duration = Duration::from_millis(600);

/// The host's own parts.
struct Parts {
    placement: Arc<Placement>,
    partitions: Arc<Partitions>,
    remoting: Arc<Remoting>,
    checks: Arc<Checks>,
}

fn main() -> ExitCode {
    let started = Instant::now();
    match Demo::start().and_then(|demo| demo.tell(started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe quickstart failed: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    cluster: InMemoryCluster,
    neighbours: Neighbours,
    service: ClusterProvisioningService,
    parts: Parts,
    events: EventStream<Arc<ProvisioningEvent>>,
    /// The last event seen.
    position: Position,
    screen: Screen,
    scene: usize,
}

impl Demo {
    fn start() -> Outcome<Self> {
        let mut screen = Screen::new();
        let title = screen.wrap("cluster-provisioning: one steady view of who is in the cluster", "");
        screen.say(&screen.paint(Ink::Bold, &title));
        scene_title(&mut screen, 1, "The service starts", &START.replace("SECOND", Neighbours::WHAT));

        let others = [node(2, 1)?, node(3, 1)?, node(4, 1)?];
        let cluster = InMemoryCluster::new(SystemClock::shared());
        cluster.register_all(others.clone());
        let neighbours = Neighbours::start(others)?;

        let checks = Arc::new(Checks::default());
        let parts = Parts {
            placement: Arc::new(Placement::new(KEYS, Arc::clone(&checks))),
            partitions: Arc::new(Partitions::new(Arc::clone(&checks))),
            remoting: Arc::new(Remoting::new(NodeId::new(LOCAL)?, Arc::clone(&checks))),
            checks,
        };

        // The defaults are made for production; these let a failback be seen within seconds.
        let mut policy = FailoverPolicy::default();
        policy.backoff_initial = Duration::from_millis(400);
        policy.backoff_max = Duration::from_millis(800);
        policy.cooldown = Duration::from_secs(1);
        policy.failback_hold = Duration::from_secs(1);

        let primary = ProviderDescriptor::new("primary", ProviderKind::in_memory())?.parameter("heartbeat", "250ms");
        let builder = ClusterProvisioningService::builder()
            .factory(Arc::new(InMemoryFactory::new().cluster("demo", &cluster)))
            .provider(primary.priority(100))
            .provider(neighbours.provider()?.priority(50))
            .member(node(1, 1)?)
            .failover(policy)
            .placement_supervisor(parts.placement.clone())
            .partition_manager(parts.partitions.clone())
            .remoting(parts.remoting.clone());
        let events = builder.subscribe(10_000);
        let service = builder.start()?;
        let position = Position::default();
        let mut demo = Self { cluster, neighbours, service, parts, events, position, screen, scene: 1 };
        demo.service.wait_ready(PATIENCE)?;
        demo.until("four members and a healthy standby", |hub| {
            hub.snapshot().is_some_and(|snapshot| snapshot.members.len() == 4) && all_agree(hub)
        })?;
        demo.finish_scene("")?;
        Ok(demo)
    }

    fn tell(mut self, started: Instant) -> Outcome {
        self.a_node_joins()?;
        self.a_provider_fails()?;
        self.it_comes_back()?;
        self.a_node_is_quarantined()?;
        self.a_node_restarts()?;
        self.this_node_drains()?;
        let metrics = self.service.hub().metrics();
        let panics = metrics.placement_supervisor.panics + metrics.partition_manager.panics + metrics.remoting.panics;
        if panics > 0 {
            return Err(format!("{panics} callbacks panicked").into());
        }
        self.service.shutdown();
        let checks = self.parts.checks.result()?;
        let line = format!(
            "{checks} checks held: one owner for each key, every position and token above the last, every channel \
             opened and closed once. {} deliveries, {} snapshots and {} failovers in {:.1} s; from a provider's word \
             to the end of the last callback {:.0?} (median).",
            metrics.deliveries,
            metrics.snapshots,
            metrics.failovers,
            started.elapsed().as_secs_f64(),
            metrics.snapshot_latency.quantile(0.5),
        );
        let line = self.screen.wrap(&line, "");
        self.screen.say(&format!("\n{line}"));
        let next = "Where to go from here: README.md, examples/minimal_host.rs, examples/custom_provider.rs";
        let next = self.screen.wrap(next, "");
        self.screen.say(&format!("\n{next}"));
        Ok(())
    }

    fn a_node_joins(&mut self) -> Outcome {
        self.begin("A node joins", JOIN);
        let before = self.parts.partitions.owners();
        self.joins(node(5, 1)?)?;
        self.until("five members", |hub| {
            hub.snapshot().is_some_and(|snapshot| snapshot.members.len() == 5) && all_agree(hub)
        })?;
        let moved = self.moved(&before);
        let to_it = self.parts.partitions.owned().get(&id("node-5")?).copied().unwrap_or_default();
        self.check(moved == to_it, "only what the new node owns has moved");
        self.finish_scene(&format!("{moved} of {KEYS} keys moved, all of them to node-5."))
    }

    fn a_provider_fails(&mut self) -> Outcome {
        self.begin("A provider fails", FAIL);
        let (before, looked) = (self.parts.partitions.owners(), self.service.hub().explain().len());
        let cause = ProvisioningError::new(ErrorCode::BackendUnavailable, "watching the cluster", "connection reset");
        let faults = self.cluster.faults(&ProviderId::new("primary")?);
        faults.refuse_connections(cause.clone());
        faults.end_streams(ProviderTermination::Errored { reason: cause });
        self.until("the failover", |hub| is_active(hub, Neighbours::PROVIDER) && has_given_up(hub, "primary"))?;
        let unmoved = self.moved(&before) == 0;
        self.check(unmoved, "a failover moves no key");
        self.finish_scene("No key moved and no channel closed: both providers show the same members.")?;
        let why = self.screen.wrap("Why? The hub remembers its decisions and their reasons: hub.explain()", "  ");
        self.screen.say(&format!("\n{why}\n"));
        for decision in self.service.hub().explain().iter().skip(looked) {
            let time = &decision.at.to_string()[11..23];
            let line = self.screen.wrap(&decision.text, &format!("  {time}  "));
            self.screen.say(&line);
        }
        self.read();
        Ok(())
    }

    fn it_comes_back(&mut self) -> Outcome {
        self.begin("It comes back", BACK);
        self.cluster.faults(&ProviderId::new("primary")?).accept_connections();
        self.until("the failback", |hub| is_active(hub, "primary") && all_agree(hub))?;
        self.finish_scene("")
    }

    fn a_node_is_quarantined(&mut self) -> Outcome {
        self.begin("A node is quarantined", QUARANTINE);
        let node_3 = id("node-3")?;
        let hub = self.service.hub().clone();
        self.parts.partitions.cut_off(&node_3, true);
        hub.quarantine(node_3.clone(), "three pings without an answer").wait(PATIENCE)?;
        self.until("the block", |hub| hub.snapshot().is_some_and(|snapshot| snapshot.is_blocked(&node_3)))?;
        let (accepted, refused) = self.parts.partitions.write_all(&node_3);
        self.check(accepted == 0 && refused > 0, "a node that was cut off cannot write");
        self.finish_scene(&format!(
            "node-3 did not hear of it and still writes to its {refused} keys: all {refused} writes are refused, since \
             the tokens of its leases are below those of the new owners."
        ))?;

        self.begin("It is released", RELEASE);
        self.parts.partitions.cut_off(&node_3, false);
        hub.reconnected(node_3.clone()).wait(PATIENCE)?;
        self.until("the release", |hub| hub.snapshot().is_some_and(|snapshot| !snapshot.is_blocked(&node_3)))?;
        let replayed = self.parts.partitions.replay_last();
        self.check(!replayed, "leases that come twice are taken once");
        self.finish_scene("Its keys are leased to it anew, with higher tokens.")
    }

    fn a_node_restarts(&mut self) -> Outcome {
        self.begin("A node restarts", RESTART);
        let (opened, closed) = self.parts.remoting.counts();
        let node_2 = id("node-2")?;
        self.parts.partitions.forget(&node_2);
        self.joins(node(2, 2)?)?;
        self.until("the second life", |hub| {
            let lives = hub.snapshot().and_then(|snapshot| Some(snapshot.members.get(&node_2)?.incarnation()));
            lives == Some(2) && all_agree(hub)
        })?;
        let counts = self.parts.remoting.counts();
        self.check(counts == (opened + 1, closed + 1), "a restart is a leave and a join");
        self.finish_scene("Its old channel was closed, a new one opened, and its keys leased to its new life.")
    }

    fn this_node_drains(&mut self) -> Outcome {
        self.begin("This node drains", DRAIN);
        self.service.drain()?;
        self.cluster.register(node(6, 1)?);
        self.until("a refused change", |hub| hub.metrics().refused_while_draining > 0)?;
        let hub = self.service.hub().clone();
        let snapshot = hub.latest_snapshot()?;
        let refusal = self.parts.placement.place("user-new", &snapshot);
        let known = snapshot.members.contains(&id("node-6")?);
        let left = !self.cluster.members().contains(&id(LOCAL)?);
        self.check(refusal == Err(PauseReason::Draining), "no new placement while draining");
        self.check(!known && left, "no snapshot while draining, and the local node is deregistered");
        self.finish_scene(
            "A new placement was refused (draining); node-6, which joined meanwhile, is not shown any more; the \
             cluster no longer lists node-1.",
        )
    }

    /// The node is in the registry, and in the others' gossip.
    fn joins(&mut self, node: ClusterNode) -> Outcome {
        self.cluster.register(node.clone());
        self.neighbours.join(node)
    }

    fn begin(&mut self, title: &str, text: &str) {
        self.scene += 1;
        scene_title(&mut self.screen, self.scene, title, text);
    }

    /// Shows what came of the scene, after checking that all parts agree with the snapshot.
    fn finish_scene(&mut self, conclusion: &str) -> Outcome {
        let hub = self.service.hub();
        let snapshot = hub.latest_snapshot()?;
        let owners = self.parts.partitions.owners();
        let draining = hub.gate() == PlacementGate::Paused(PauseReason::Draining);
        for key in self.parts.placement.keys() {
            let best = owner_of(key, usable(&snapshot));
            self.parts.checks.that(owners.get(key) == best, || format!("{key} does not belong to {best:?}"));
        }
        let remote = snapshot.members.iter().filter(|node| node.id().as_str() != LOCAL);
        let expected = remote.map(|node| {
            let blocked = snapshot.is_blocked(node.id());
            (node.id().clone(), Channel { incarnation: node.incarnation(), blocked })
        });
        let expected: BTreeMap<_, _> = expected.collect();
        let channels = self.parts.remoting.channels();
        self.parts.checks.that(draining || channels == expected, || format!("channels {channels:?} for {expected:?}"));
        let table = table::table(&self.parts, self.service.hub(), &self.screen);
        self.screen.say_above(&format!("\n{table}"));
        if !conclusion.is_empty() {
            let conclusion = self.screen.wrap(conclusion, "  ");
            self.screen.say(&format!("\n{conclusion}"));
        }
        self.read();
        self.parts.checks.result()?;
        Ok(())
    }

    /// Shows each event as it comes, and the table as it changes, until the hub is as wanted.
    fn until(&mut self, what: &str, wanted: impl Fn(&ProviderWatchHub) -> bool) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Asked first: whatever led to a state is in the stream before the state can be read.
            let done = wanted(self.service.hub());
            self.take_events();
            if done {
                return Ok(());
            }
            if Instant::now() > deadline {
                let providers = self.service.hub().providers();
                return Err(format!("{what} never came; providers: {providers:#?}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn take_events(&mut self) {
        let mut lines = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            let (last, next) = (self.position, event.position());
            let follows = next.seq_no == last.seq_no + 1 && next.epoch >= last.epoch;
            self.parts.checks.that(follows, || format!("delivery {next} does not follow {last}"));
            self.position = next;
            lines.push(self.screen.wrap(&event.to_string(), &format!("{:>6}  ", format!("#{}", next.seq_no))));
        }
        if !lines.is_empty() {
            let lines = self.screen.paint(Ink::Dim, &lines.join("\n"));
            self.screen.say_above(&lines);
        }
        let table = table::table(&self.parts, self.service.hub(), &self.screen);
        self.screen.draw(&format!("\n{table}"));
    }

    /// How many keys have another owner than before.
    fn moved(&self, before: &BTreeMap<Arc<str>, NodeId>) -> usize {
        let now = self.parts.partitions.owners();
        now.iter().filter(|(key, owner)| before.get(*key) != Some(owner)).count()
    }

    fn check(&self, holds: bool, what: &str) {
        self.parts.checks.that(holds, || format!("not so: {what}"));
    }

    /// Gives whoever sits before the terminal time to read.
    fn read(&self) {
        if self.screen.is_terminal() {
            std::thread::sleep(READING);
        }
    }
}

fn scene_title(screen: &mut Screen, number: usize, title: &str, text: &str) {
    let title = format!("── {number}. {title} ");
    let rule = "─".repeat(screen.width().saturating_sub(title.chars().count()));
    let title = screen.paint(Ink::Bold, &format!("{title}{rule}"));
    screen.say(&format!("\n{title}\n{}\n", screen.wrap(text, "  ")));
}

fn is_active(hub: &ProviderWatchHub, provider: &str) -> bool {
    hub.active_provider().is_some_and(|active| active.as_str() == provider)
}

fn has_given_up(hub: &ProviderWatchHub, provider: &str) -> bool {
    let of = |status: &ProviderStatus| status.id.as_str() == provider;
    hub.providers().iter().any(|status| of(status) && status.health == ProviderHealth::Unreachable)
}

/// Every provider is healthy, and all show the same.
fn all_agree(hub: &ProviderWatchHub) -> bool {
    let providers = hub.providers();
    let first = providers.first().and_then(|status| status.hash);
    providers.iter().all(|status| status.health == ProviderHealth::Healthy && status.hash == first)
}

fn id(node: &str) -> Result<NodeId, ProvisioningError> {
    NodeId::new(node)
}

fn node(number: u16, incarnation: u64) -> Result<ClusterNode, ProvisioningError> {
    ClusterNode::builder(format!("node-{number}"), "127.0.0.1", 7000 + number)
        .incarnation(incarnation)
        .kind("user")
        .build()
}

const START: &str = "\
Two providers watch one cluster: primary, a registry in this process's memory, and \
SECOND. Both are asked all the time; the one with the higher priority is followed (▶). node-1 is this process: the service has \
registered it. What the hub delivers is numbered and comes in this order to everyone:";
const JOIN: &str = "\
node-5 registers. Rendezvous hashing gives it its share of the keys, and Remoting opens \
a channel to it.";
const FAIL: &str = "\
The primary's stream breaks, and its backend refuses connections. The other one has been \
watching all along: it takes over within the same tick.";
const BACK: &str = "\
The primary's backend answers again. It is followed again once it has been healthy for a \
while (10 s by default, 1 s here), so that a shaky provider does not flap.";
const QUARANTINE: &str = "\
Remoting cannot reach node-3 and reports it: hub.quarantine(). The node stays a member, \
marked as blocked, and its keys move to the others.";
const RELEASE: &str = "\
Remoting has the connection back: hub.reconnected(). The node is released with the next \
refresh that still shows it.";
const RESTART: &str = "\
node-2 comes back at the same address, with another incarnation. That is a leave and a \
join, even though its id never went away: nothing of its former life may be used again.";
const DRAIN: &str = "\
service.drain(): the local node is deregistered, placement pauses, and the last snapshot \
stays readable for those who are still at work. Then node-6 joins the cluster.";
