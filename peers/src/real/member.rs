//! One process: a node that tells on a line each where it listens, how many members it sees, and whom it finds dead.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::{
    ClusterNode, ClusterProvisioningService, GossipEvent, GossipFactory, GossipState, ProvisioningEvent, SystemClock,
};
use memberlist::delegate::{CompositeDelegate, EventKind, SubscribleEventDelegate};
use memberlist::net::NetTransportOptions;
use memberlist::proto::MaybeResolvedAddress;
use memberlist::tokio::{TokioNetTransport, TokioSocketAddrResolver, TokioTcp};
use smol_str::SmolStr;

use crate::memberlist::settings;
use crate::report::Column;

/// Runs until its input ends.
pub fn run(kind: &str, name: &str, seeds: &[String]) {
    std::thread::spawn(|| {
        _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    match kind == Column::Ours.key() {
        true => ours(name, seeds),
        false => memberlist(name, seeds),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A whole service, whose only provider is gossip.
fn ours(name: &str, seeds: &[String]) {
    let factory = GossipFactory::new();
    let definition = GossipFactory::descriptor("gossip", "peers").expect("a definition");
    let definition = definition.parameter("bind", "127.0.0.1:0");
    let definition = seeds.iter().fold(definition, |definition, seed| definition.endpoint(seed.clone()));
    let clock = SystemClock::shared();
    let incarnation = clock.now().as_nanos() / 1_000_000;
    let node = ClusterNode::builder(name, "127.0.0.1", 7000).incarnation(incarnation).build().expect("a node");
    let builder = ClusterProvisioningService::builder().factory(Arc::new(factory.clone())).clock(clock);
    let builder = builder.provider(definition).member(node).join_timeout(Duration::from_secs(120));
    let mut delivered = builder.subscribe(10_000);
    let service = builder.start().expect("a service");
    let gossip = factory.membership("gossip").expect("its membership");
    let mut events = gossip.subscribe(10_000);
    say(&format!("place 127.0.0.1:{}", gossip.port().expect("its port")));
    std::thread::spawn(move || {
        while let Ok(event) = events.recv() {
            if let GossipEvent::State { node, to: GossipState::Dead, .. } = event {
                say(&format!("dead {}", node.id()));
            }
        }
    });
    while let Ok(event) = delivered.recv() {
        if let ProvisioningEvent::Snapshot(delivery) = &*event {
            say(&format!("members {}", delivery.snapshot.members.len()));
        }
    }
    drop(service);
}

type Transport = TokioNetTransport<SmolStr, TokioSocketAddrResolver, TokioTcp>;

fn memberlist(name: &str, seeds: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut options = NetTransportOptions::<SmolStr, TokioSocketAddrResolver, TokioTcp>::new(SmolStr::new(name));
        options.add_bind_address((Ipv4Addr::LOCALHOST, 0).into());
        let (events, subscriber) = SubscribleEventDelegate::unbounded();
        let delegate = CompositeDelegate::new().with_event_delegate(events);
        let node = memberlist::Memberlist::<Transport, _>::with_delegate(delegate, options, settings()).await;
        let node = node.expect("a socket on this machine");
        say(&format!("place {}", node.advertise_address()));
        let joining = node.clone();
        let seeds: Vec<SocketAddr> = seeds.iter().filter_map(|seed| seed.parse().ok()).collect();
        tokio::spawn(async move {
            // Whoever is not reached now is learned of by gossip.
            for seed in seeds {
                _ = joining.join(MaybeResolvedAddress::resolved(seed)).await;
            }
        });
        while let Ok(event) = subscriber.recv().await {
            if event.kind() == EventKind::Leave {
                say(&format!("dead {}", event.node_state().id()));
            }
            say(&format!("members {}", node.num_online_members().await));
        }
    });
}
