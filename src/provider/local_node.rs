//! The local node as its service describes it: one description for all providers, which may change while they run.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use crate::sync::{Mutex, lock};
use crate::topology::ClusterNode;

type Listener = Box<dyn Fn() + Send + Sync>;

/// The node of a service in member mode, as it is described to others now; none in client mode. Its id, address and port
/// stay. Its kinds and metadata change with
/// [`ClusterProvisioningService::describe`](crate::ClusterProvisioningService::describe), its incarnation where a provider
/// [raises](Self::raise) it. A registration is told of each change by
/// [`Registration::describe`](super::Registration::describe). Clones are the same.
#[derive(Clone, Default)]
pub struct LocalNode(Arc<Shared>);

#[derive(Default)]
struct Shared {
    node: ArcSwapOption<ClusterNode>,
    /// Held by whoever changes the node.
    changes: Mutex<()>,
    listener: OnceLock<Listener>,
}

impl LocalNode {
    /// The node as it is described now; `None` in client mode.
    pub fn get(&self) -> Option<Arc<ClusterNode>> {
        self.0.node.load_full()
    }

    /// The node has that incarnation from now on, unless it has this one or a greater one already. For a provider that has
    /// found that the node's own is taken: by its former life, which others remember, for example. The node is then
    /// registered anew with all providers.
    pub fn raise(&self, incarnation: u64) {
        self.change(|node| node.described_as(incarnation.max(node.incarnation()), node));
    }

    /// The node has the kinds and metadata of `described` from now on.
    pub(crate) fn describe(&self, described: &ClusterNode) {
        self.change(|node| node.described_as(node.incarnation(), described));
    }

    fn change(&self, change: impl FnOnce(&ClusterNode) -> Option<ClusterNode>) {
        let changed = {
            let _changes = lock(&self.0.changes);
            let changed = self.get().and_then(|node| change(&node).filter(|changed| *changed != *node));
            changed.map(|changed| self.0.node.store(Some(Arc::new(changed)))).is_some()
        };
        if let (true, Some(listener)) = (changed, self.0.listener.get()) {
            listener();
        }
    }

    /// From now on a change is told there, which must not block. The first listener stays.
    pub(crate) fn connect(&self, listener: impl Fn() + Send + Sync + 'static) {
        _ = self.0.listener.set(Box::new(listener));
    }
}

impl From<Option<Arc<ClusterNode>>> for LocalNode {
    fn from(node: Option<Arc<ClusterNode>>) -> Self {
        Self(Arc::new(Shared { node: ArcSwapOption::new(node), ..Shared::default() }))
    }
}

impl From<Arc<ClusterNode>> for LocalNode {
    fn from(node: Arc<ClusterNode>) -> Self {
        Some(node).into()
    }
}

impl fmt::Debug for LocalNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalNode").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn p1_4_the_local_nodes_incarnation_rises_its_description_changes_and_its_place_stays() {
        let node =
            ClusterNode::builder("a", "10.0.0.1", 7).incarnation(5).kind("x").metadata("zone", "1").build().unwrap();
        let local = LocalNode::from(Arc::new(node.clone()));
        let told = Arc::new(AtomicU32::new(0));
        let heard = Arc::clone(&told);
        local.clone().connect(move || _ = heard.fetch_add(1, Ordering::Relaxed));
        let changed = |expected: &ClusterNode, times: u32| {
            assert_eq!((local.get().as_deref(), told.load(Ordering::Relaxed)), (Some(expected), times));
        };
        local.raise(5);
        changed(&node, 0);
        local.raise(9);
        local.raise(7);
        let raised = node.described_as(9, &node).unwrap();
        changed(&raised, 1);
        let other = ClusterNode::builder("b", "10.0.0.2", 8).incarnation(1).kind("y").build().unwrap();
        local.describe(&other);
        local.describe(&other);
        let described = ClusterNode::builder("a", "10.0.0.1", 7).incarnation(9).kind("y").build().unwrap();
        changed(&described, 2);
    }

    #[test]
    fn p1_4_in_client_mode_there_is_no_local_node_to_be_changed() {
        let local = LocalNode::default();
        local.connect(|| panic!("nothing has changed"));
        local.raise(9);
        assert_eq!(local.get(), None);
    }
}
