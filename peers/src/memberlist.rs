//! memberlist, in real time and over real sockets of this machine, with its settings of a data centre.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use memberlist::net::NetTransportOptions;
use memberlist::proto::MaybeResolvedAddress;
use memberlist::tokio::{TokioNetTransport, TokioSocketAddrResolver, TokioTcp};
use memberlist::{Memberlist, Options};

use smol_str::SmolStr;

use crate::scenarios::{Death, secs};

type Name = SmolStr;
type Node = Memberlist<TokioNetTransport<Name, TokioSocketAddrResolver, TokioTcp>>;

/// What was measured of one cluster.
pub struct Run {
    /// From the start of the last one until everybody sees as many as there are.
    pub full_view: Option<Duration>,
    /// Of those killed.
    pub deaths: Vec<Death>,
}

/// Those of a data centre. Its own `lan` has the time of a probe and the pause between two the other way round than
/// memberlist in Go.
pub fn settings() -> Options {
    Options::lan().with_probe_interval(secs(1)).with_probe_timeout(Duration::from_millis(500))
}

async fn start(node: usize) -> Node {
    let mut options =
        NetTransportOptions::<Name, TokioSocketAddrResolver, TokioTcp>::new(SmolStr::new(format!("n{node:07}")));
    options.add_bind_address((Ipv4Addr::LOCALHOST, 0).into());
    Node::new(options, settings()).await.expect("a socket on this machine")
}

/// Looks every 20 ms until every node sees that many others alive, itself among them; also, when the first one does.
async fn until(nodes: &[Node], members: usize, longest: Duration) -> (Option<Duration>, Option<Duration>) {
    let begun = Instant::now();
    let mut first = None;
    while begun.elapsed() < longest {
        let mut agreed = 0;
        for node in nodes {
            if node.num_online_members().await == members {
                agreed += 1;
            }
        }
        if agreed > 0 {
            first = first.or_else(|| Some(begun.elapsed()));
        }
        if agreed == nodes.len() {
            return (first, Some(begun.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (first, None)
}

/// A cluster of so many, which join through the first three, and of which so many are shut down without a word.
pub fn run(nodes: usize, kills: usize) -> Run {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let run = runtime.block_on(async {
        let mut cluster = Vec::new();
        for node in 0..nodes {
            cluster.push(start(node).await);
        }
        let seeds: Vec<SocketAddr> = cluster.iter().take(3).map(|node| *node.advertise_address()).collect();
        let begun = Instant::now();
        let joins: Vec<_> = cluster
            .iter()
            .map(|node| {
                let (node, own) = (node.clone(), *node.advertise_address());
                let seeds: Vec<_> = seeds.iter().copied().filter(|seed| *seed != own).collect();
                tokio::spawn(async move {
                    // Whoever is not reached now is learned of by gossip.
                    for seed in seeds {
                        _ = node.join(MaybeResolvedAddress::resolved(seed)).await;
                    }
                })
            })
            .collect();
        let full_view = until(&cluster, nodes, secs(120)).await.1.map(|_| begun.elapsed());
        for join in joins {
            _ = join.await;
        }
        tokio::time::sleep(secs(3)).await;
        let mut deaths = Vec::new();
        for killed in 0..kills {
            tokio::time::sleep(Duration::from_millis(311)).await;
            let node = cluster.remove(3);
            let begun = Instant::now();
            _ = node.shutdown().await;
            drop(node);
            let offset = begun.elapsed();
            let (first, all) = until(&cluster, nodes - 1 - killed, secs(120)).await;
            deaths.push(Death { first: first.map(|first| first + offset), all: all.map(|all| all + offset) });
        }
        for node in &cluster {
            _ = node.shutdown().await;
        }
        Run { full_view, deaths }
    });
    runtime.shutdown_timeout(secs(5));
    run
}
