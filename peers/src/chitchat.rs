//! chitchat, on the virtual time of tokio and its own in-process transport, behind which datagrams can be lost.
//!
//! It runs beside the simulated world and not in it, as it does its input and output itself: datagrams arrive at once,
//! and its own randomness has no seed.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chitchat::transport::{ChannelTransport, RecvOutcome, SendOutcome, Socket, Transport};
use chitchat::{
    ChitchatConfig, ChitchatEnvelope, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion,
    spawn_chitchat,
};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::scenarios::{Death, Healed, Idle, LONGEST, secs};

/// So often a node gossips.
pub const GOSSIP_INTERVAL: Duration = secs(1);
/// So often it is looked who sees whom.
const LOOKS: Duration = Duration::from_millis(20);

/// What is lost.
struct Network {
    /// The share of all datagrams.
    loss: f64,
    /// Nodes of this number and above do not reach those below.
    cut_at: Option<usize>,
    dice: Pcg64Mcg,
}

impl Network {
    fn passes(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        let is_above = |address| self.cut_at.is_some_and(|cut| node_of(address) >= cut);
        is_above(from) == is_above(to)
            && (self.loss == 0.0 || (self.dice.next_u64() >> 11) as f64 / (1u64 << 53) as f64 >= self.loss)
    }
}

/// chitchat's own transport, behind which something is lost.
#[derive(Clone)]
struct Lossy {
    inner: ChannelTransport,
    network: Arc<Mutex<Network>>,
}

#[async_trait]
impl Transport for Lossy {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inner = self.inner.open(address).await?;
        Ok(Box::new(LossySocket { inner, address, network: Arc::clone(&self.network) }))
    }
}

struct LossySocket {
    inner: Box<dyn Socket>,
    address: SocketAddr,
    network: Arc<Mutex<Network>>,
}

#[async_trait]
impl Socket for LossySocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.inner.local_addr()
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let passes = self.network.lock().unwrap_or_else(PoisonError::into_inner).passes(self.address, to);
        if passes { self.inner.send(to, envelope).await } else { Ok(SendOutcome { num_bytes_sent: 0 }) }
    }

    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        self.inner.recv().await
    }
}

fn address_of(node: usize) -> SocketAddr {
    (Ipv4Addr::new(10, (node >> 16) as u8, (node >> 8) as u8, node as u8), 7946).into()
}

fn node_of(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => address.ip().octets()[1..].iter().fold(0, |sum, part| sum << 8 | usize::from(*part)),
        SocketAddr::V6(_) => usize::MAX,
    }
}

/// A node that runs.
struct Node {
    handle: ChitchatHandle,
    watcher: watch::Receiver<std::collections::BTreeMap<ChitchatId, NodeState>>,
    live: BTreeSet<usize>,
}

/// One saw another one come or go.
struct Sighting {
    at: Instant,
    node: usize,
    is_up: bool,
}

struct Cluster {
    transport: Lossy,
    nodes: Vec<Option<Node>>,
    sightings: Vec<Sighting>,
}

impl Cluster {
    /// So many nodes, with the first three for seeds. They start within one round, as all rounds would begin at the same
    /// instant for ever otherwise.
    async fn start(seed: u64, nodes: usize, loss: f64) -> Self {
        let network = Network { loss, cut_at: None, dice: Pcg64Mcg::seed_from_u64(seed) };
        let transport = Lossy { inner: ChannelTransport::default(), network: Arc::new(Mutex::new(network)) };
        let mut cluster = Self { transport, nodes: Vec::new(), sightings: Vec::new() };
        for node in 0..nodes {
            cluster.join(node).await;
            tokio::time::sleep(GOSSIP_INTERVAL / nodes as u32).await;
        }
        cluster
    }

    async fn join(&mut self, node: usize) {
        let (listen_addr, name) = (address_of(node), format!("n{node:07}"));
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(name, 1_000_000, listen_addr),
            cluster_id: "simulated".to_owned(),
            gossip_interval: GOSSIP_INTERVAL,
            listen_addr,
            seed_nodes: (0..3).map(|seed| address_of(seed).to_string()).collect(),
            failure_detector_config: FailureDetectorConfig::default(),
            marked_for_deletion_grace_period: secs(900),
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V1,
        };
        let handle = spawn_chitchat(config, Vec::new(), &self.transport).await.expect("the address is free");
        let watcher = handle.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        self.nodes.push(Some(Node { handle, watcher, live: BTreeSet::from([node]) }));
    }

    fn network(&self) -> std::sync::MutexGuard<'_, Network> {
        self.transport.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&mut self, node: usize) {
        if let Some(node) = self.nodes[node].take() {
            node.handle.abort();
        }
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    fn is_one_view(&self) -> bool {
        let running: BTreeSet<usize> =
            self.nodes.iter().enumerate().filter(|(_, node)| node.is_some()).map(|(node, _)| node).collect();
        self.running().all(|node| node.live == running)
    }

    /// Who has seen whom come or go meanwhile.
    fn look(&mut self) {
        let at = Instant::now();
        for (by, node) in self.nodes.iter_mut().enumerate() {
            let Some(node) = node else { continue };
            if !node.watcher.has_changed().unwrap_or(false) {
                continue;
            }
            let mut live: BTreeSet<usize> =
                node.watcher.borrow_and_update().keys().map(|id| node_of(id.gossip_advertise_addr)).collect();
            live.insert(by);
            let seen = |node: &usize, is_up| Sighting { at, node: *node, is_up };
            self.sightings.extend(node.live.difference(&live).map(|node| seen(node, false)));
            self.sightings.extend(live.difference(&node.live).map(|node| seen(node, true)));
            node.live = live;
        }
    }

    async fn pass(&mut self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end {
            tokio::time::sleep(LOOKS).await;
            self.look();
        }
    }

    async fn until(&mut self, longest: Duration, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = Instant::now();
        while !holds(self) {
            if begun.elapsed() > longest {
                return None;
            }
            self.pass(LOOKS).await;
        }
        Some(begun.elapsed())
    }

    async fn settled(seed: u64, nodes: usize, peace: Duration) -> Option<Self> {
        let mut cluster = Self::start(seed, nodes, 0.0).await;
        cluster.until(LONGEST, Self::is_one_view).await?;
        cluster.pass(peace).await;
        Some(cluster)
    }

    fn declared_dead(&self, since: usize) -> BTreeSet<usize> {
        self.sightings[since..].iter().filter(|seen| !seen.is_up).map(|seen| seen.node).collect()
    }
}

/// Runs on virtual time, which goes on as soon as nobody has anything to do.
fn run<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without sockets").block_on(run)
}

/// As [`crate::scenarios::full_view`]; from the start of the last one.
pub fn full_view(seed: u64, nodes: usize, loss: f64) -> Option<Duration> {
    run(async { Cluster::start(seed, nodes, loss).await.until(LONGEST, Cluster::is_one_view).await })
}

/// As [`crate::scenarios::kills`].
pub fn kills(seed: u64, nodes: usize) -> Vec<Death> {
    run(async {
        let Some(mut cluster) = Cluster::settled(seed, nodes, secs(30)).await else { return Vec::new() };
        let mut deaths = Vec::new();
        for killed in 3..8 {
            cluster.pass(Duration::from_millis(37 * seed + 311)).await;
            let (at, seen) = (Instant::now(), cluster.sightings.len());
            cluster.kill(killed);
            let all =
                cluster.until(secs(120), |cluster| cluster.running().all(|node| !node.live.contains(&killed))).await;
            let first = cluster.sightings[seen..].iter().find(|seen| seen.node == killed && !seen.is_up);
            deaths.push(Death { first: first.map(|seen| seen.at - at), all });
        }
        deaths
    })
}

/// As [`crate::scenarios::false_deaths`]; its nodes have one life each, so that one that goes twice counts once.
pub fn false_deaths(seed: u64, loss: f64) -> Option<usize> {
    run(async {
        let mut cluster = Cluster::settled(seed, 100, secs(30)).await?;
        cluster.network().loss = loss;
        let seen = cluster.sightings.len();
        cluster.pass(secs(300)).await;
        Some(cluster.declared_dead(seen).len())
    })
}

/// As [`crate::scenarios::stands_still`]: what the node needs for each of its steps is held for so long.
pub fn stands_still(seed: u64) -> Option<(usize, usize)> {
    const ILL: usize = 50;
    run(async {
        let mut cluster = Cluster::settled(seed, 100, secs(30)).await?;
        let state = cluster.nodes[ILL].as_ref().map(|node| node.handle.chitchat())?;
        let seen = cluster.sightings.len();
        for _ in 0..30 {
            let held = state.lock().await;
            cluster.pass(secs(3)).await;
            drop(held);
            cluster.pass(secs(7)).await;
        }
        let mut others = cluster.declared_dead(seen);
        let itself = usize::from(others.remove(&ILL));
        Some((others.len(), itself))
    })
}

/// As [`crate::scenarios::idle`].
pub fn idle(seed: u64, nodes: usize) -> Option<Idle> {
    run(async {
        let mut cluster = Cluster::settled(seed, nodes, secs(30)).await?;
        let before = cluster.transport.inner.statistics();
        cluster.pass(secs(60)).await;
        let now = cluster.transport.inner.statistics();
        let each = |now: u64, before: u64| (now - before) as f64 / nodes as f64 / 60.0;
        Some(Idle {
            bytes: each(now.num_bytes_total, before.num_bytes_total),
            datagrams: each(now.num_messages_total, before.num_messages_total),
        })
    })
}

/// As [`crate::scenarios::partition`].
pub fn partition(seed: u64) -> Option<Healed> {
    run(async {
        let mut cluster = Cluster::settled(seed, 100, secs(30)).await?;
        cluster.network().cut_at = Some(50);
        cluster.pass(secs(120)).await;
        cluster.network().cut_at = None;
        let healed = Instant::now();
        let mut took = cluster.until(secs(60), Cluster::is_one_view).await;
        let missing = cluster.running().map(|node| 100 - node.live.len()).sum();
        if took.is_none() {
            took = cluster.until(LONGEST - secs(60), Cluster::is_one_view).await.map(|_| healed.elapsed());
        }
        Some(Healed { took, missing })
    })
}

/// As [`crate::scenarios::dissemination`].
pub fn dissemination(seed: u64, nodes: usize) -> Option<Duration> {
    run(async {
        let mut cluster = Cluster::settled(seed, nodes, secs(30)).await?;
        let seen = cluster.sightings.len();
        cluster.join(nodes).await;
        cluster.until(secs(120), |cluster| cluster.running().all(|node| node.live.contains(&nodes))).await?;
        let first = cluster.sightings[seen..].iter().find(|seen| seen.node == nodes && seen.is_up)?;
        Some(first.at.elapsed())
    })
}
