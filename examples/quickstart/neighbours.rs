//! The other nodes, and the second provider, which is the nodes themselves: each runs a gossip member of its own, on a port
//! of this host, and they find each other without any registry. Where there is no gossip (its feature is off, or the system
//! is not Unix) the second provider is another view of the registry.

#[cfg(all(feature = "gossip", unix))]
pub use gossip::Neighbours;
#[cfg(not(all(feature = "gossip", unix)))]
pub use registry::Neighbours;

#[cfg(all(feature = "gossip", unix))]
mod gossip {
    use std::collections::BTreeMap;

    use cluster_provisioning::*;

    use crate::Outcome;

    /// Each in the place of a process of its own.
    pub struct Neighbours {
        running: BTreeMap<NodeId, (ClusterProvisioningService, u16)>,
    }

    impl Neighbours {
        /// What the second provider is called.
        pub const PROVIDER: &str = "gossip";
        pub const WHAT: &str = "gossip, by which the nodes find each other without any registry";

        pub fn start(nodes: impl IntoIterator<Item = ClusterNode>) -> Outcome<Self> {
            let mut neighbours = Self { running: BTreeMap::new() };
            nodes.into_iter().try_for_each(|node| neighbours.join(node))?;
            Ok(neighbours)
        }

        /// The definition for a node that asks those that run to be let in.
        pub fn provider(&self) -> Result<ProviderDescriptor, ProvisioningError> {
            let descriptor = GossipFactory::descriptor(Self::PROVIDER, "quickstart")?;
            let descriptor = descriptor.parameter("profile", "local").parameter("bind", "127.0.0.1:0");
            let seeds = self.running.values().take(3).map(|(_, port)| format!("127.0.0.1:{port}"));
            Ok(seeds.fold(descriptor, ProviderDescriptor::endpoint))
        }

        /// The node's process starts; if it ran before, that has ended first.
        pub fn join(&mut self, node: ClusterNode) -> Outcome {
            drop(self.running.remove(node.id()));
            let (id, factory) = (node.id().clone(), GossipFactory::new());
            let builder = ClusterProvisioningService::builder().factory(std::sync::Arc::new(factory.clone()));
            let service = builder.provider(self.provider()?).member(node).start()?;
            let port = factory.membership(Self::PROVIDER).and_then(|gossip| gossip.port()).ok_or("no port")?;
            self.running.insert(id, (service, port));
            Ok(())
        }
    }
}

#[cfg(not(all(feature = "gossip", unix)))]
mod registry {
    use cluster_provisioning::*;

    use crate::Outcome;

    /// There is nothing to run: the registry shows them.
    pub struct Neighbours;

    impl Neighbours {
        /// What the second provider is called.
        pub const PROVIDER: &str = "standby";
        pub const WHAT: &str = "standby, another view of it";

        pub fn start(_nodes: impl IntoIterator<Item = ClusterNode>) -> Outcome<Self> {
            Ok(Self)
        }

        pub fn provider(&self) -> Result<ProviderDescriptor, ProvisioningError> {
            let descriptor = ProviderDescriptor::new(Self::PROVIDER, ProviderKind::in_memory())?;
            Ok(descriptor.parameter("heartbeat", "250ms"))
        }

        pub fn join(&mut self, _node: ClusterNode) -> Outcome {
            Ok(())
        }
    }
}
