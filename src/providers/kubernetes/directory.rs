//! Which members the watched objects amount to.
//!
//! Decided here: which endpoints of a slice are members, and which node stands for an id that several objects hold.
//! What an object says is for `wire`, when to ask for `watch`.
//!
//! An endpoint is a member if it is ready and not terminating. A service that publishes what is not ready either calls
//! everything ready until it is gone; what terminates is on its way out there, too, as a pod that is being deleted is.
//!
//! Of several nodes with one id the latest life counts: the old and the new pod of a replacement, or what is left over.
//! In one life IPv4 comes before IPv6, so that of a pod with both all see the same; the rest of the order is arbitrary,
//! but the same for everybody, whatever came first. Each holder is remembered, so that a member goes with the last one.
//!
//! A change costs as much as the objects that it is about have members, and hardly more in a larger cluster.

use std::cmp::{Ordering, Reverse};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::object::{Conditions, Content, Object};
use crate::provider::MemberChange;
use crate::topology::{ClusterNode, Members, NodeId};

/// The watched objects, joined to members.
#[derive(Default)]
pub(super) struct Directory {
    /// What each object holds, by its name; those that hold nothing are not among them.
    objects: HashMap<Arc<str>, Holding>,
    /// Who holds each id.
    holders: HashMap<NodeId, Holders>,
    members: Members,
    /// What has been collected of a list that is not complete yet.
    collected: Option<HashMap<Arc<str>, Holding>>,
}

/// What an object holds.
struct Holding {
    uid: Arc<str>,
    nodes: Vec<Arc<ClusterNode>>,
}

/// An object's claim to be the one that says what the member of an id is like; what counts most is first in order.
#[derive(Clone)]
struct Claim {
    node: Arc<ClusterNode>,
    object: Arc<str>,
}

/// The claims to one id. There is always one at least, and hardly ever another.
enum Holders {
    One(Claim),
    Several(BTreeSet<Claim>),
}

impl Directory {
    /// A directory without objects.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Begins to collect a list. What was collected of another is forgotten; the members stay as they are.
    pub(super) fn begin(&mut self) {
        self.collected = Some(HashMap::new());
    }

    /// Collects an object. Of several of one name the last counts, which a later page shows.
    pub(super) fn add(&mut self, object: Object) {
        let (name, held) = self.held(object);
        self.collected.get_or_insert_default().insert(name, held);
    }

    /// Ends the list: its objects, and no others, are there from now on. Without a list nothing changes.
    pub(super) fn finish(&mut self) -> Members {
        let Some(mut collected) = self.collected.take() else { return self.members() };
        collected.retain(|_, held| !held.nodes.is_empty());
        self.holders = HashMap::with_capacity(collected.len());
        for (name, held) in &collected {
            claim(&mut self.holders, name, &held.nodes);
        }
        self.objects = collected;
        let nodes = self.holders.values().filter_map(Holders::node).map(Arc::clone).collect();
        self.members = Members::from_nodes(nodes).0.shared_with(&self.members);
        self.members()
    }

    /// Forgets what was collected.
    pub(super) fn abandon(&mut self) {
        self.collected = None;
    }

    /// The object is there, new or changed; what that changes of the members.
    pub(super) fn upsert(&mut self, object: Object) -> Vec<MemberChange> {
        let (name, held) = self.held(object);
        self.replace(&name, Some(held))
    }

    /// The object is gone, if this is the life of it that is held, or none is named; what that changes of the members.
    pub(super) fn delete(&mut self, name: &str, uid: Option<&str>) -> Vec<MemberChange> {
        let held = self.objects.get_key_value(name).filter(|(_, held)| uid.is_none_or(|uid| *held.uid == *uid));
        let Some(name) = held.map(|(name, _)| Arc::clone(name)) else { return Vec::new() };
        self.replace(&name, None)
    }

    /// The members.
    pub(super) fn members(&self) -> Members {
        self.members.clone()
    }

    /// What the object holds. A node that is equal to the present member is that very node.
    fn held(&self, object: Object) -> (Arc<str>, Holding) {
        let shared = |node: Arc<ClusterNode>| match self.members.get(node.id()) {
            Some(same) if *same == node => Arc::clone(same),
            _ => node,
        };
        let nodes = match object.content {
            Content::Pod(node) => node.into_iter().map(shared).collect(),
            Content::Slice(endpoints) => {
                let members = endpoints.into_iter().filter(|endpoint| is_member(endpoint.conditions));
                members.map(|endpoint| shared(endpoint.node)).collect()
            }
        };
        (object.name, Holding { uid: object.uid, nodes })
    }

    /// Puts what the object holds in the place of what it held.
    fn replace(&mut self, name: &Arc<str>, held: Option<Holding>) -> Vec<MemberChange> {
        let before = self.objects.remove(&**name).map(|held| held.nodes).unwrap_or_default();
        let after = held.as_ref().map(|held| &held.nodes[..]).unwrap_or_default();
        for node in &before {
            release(&mut self.holders, name, node);
        }
        claim(&mut self.holders, name, after);
        let touched: BTreeSet<NodeId> = before.iter().chain(after).map(|node| node.id().clone()).collect();
        if let Some(held) = held.filter(|held| !held.nodes.is_empty()) {
            self.objects.insert(Arc::clone(name), held);
        }
        touched.into_iter().filter_map(|id| self.settle(id)).collect()
    }

    /// Makes the member of that id what its holders say; the change, if it is one.
    fn settle(&mut self, id: NodeId) -> Option<MemberChange> {
        match self.holders.get(&id).and_then(Holders::node) {
            Some(node) => {
                if self.members.get(&id).is_some_and(|present| present == node) {
                    return None;
                }
                let node = Arc::clone(node);
                self.members.insert(Arc::clone(&node));
                Some(MemberChange::Upsert(node))
            }
            None => self.members.remove(&id).map(|_| MemberChange::Remove(id)),
        }
    }
}

/// Whether an endpoint in those conditions is a member.
fn is_member(conditions: Conditions) -> bool {
    conditions.ready && !conditions.terminating
}

/// The object holds the nodes from now on.
fn claim(holders: &mut HashMap<NodeId, Holders>, object: &Arc<str>, nodes: &[Arc<ClusterNode>]) {
    for node in nodes {
        let claim = Claim { node: Arc::clone(node), object: Arc::clone(object) };
        match holders.entry(node.id().clone()) {
            Entry::Vacant(entry) => drop(entry.insert(Holders::One(claim))),
            Entry::Occupied(mut entry) => entry.get_mut().add(claim),
        }
    }
}

/// The object no longer holds the node.
fn release(holders: &mut HashMap<NodeId, Holders>, object: &Arc<str>, node: &Arc<ClusterNode>) {
    let claim = Claim { node: Arc::clone(node), object: Arc::clone(object) };
    if let Entry::Occupied(mut entry) = holders.entry(node.id().clone())
        && !entry.get_mut().remove(&claim)
    {
        entry.remove();
    }
}

impl Holders {
    /// The node that stands for the id.
    fn node(&self) -> Option<&Arc<ClusterNode>> {
        match self {
            Holders::One(claim) => Some(&claim.node),
            Holders::Several(claims) => claims.first().map(|claim| &claim.node),
        }
    }

    /// Adds a claim. The same once more, of an endpoint that a slice has twice, is none.
    fn add(&mut self, claim: Claim) {
        match self {
            Holders::One(only) if *only == claim => {}
            Holders::One(only) => *self = Holders::Several(BTreeSet::from([only.clone(), claim])),
            Holders::Several(claims) => drop(claims.insert(claim)),
        }
    }

    /// Removes a claim; whether any is left.
    fn remove(&mut self, claim: &Claim) -> bool {
        match self {
            Holders::One(only) => only != claim,
            Holders::Several(claims) => {
                claims.remove(claim);
                if claims.len() == 1
                    && let Some(only) = claims.pop_first()
                {
                    *self = Holders::One(only);
                }
                true
            }
        }
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        fn key(node: &ClusterNode) -> impl Ord {
            (Reverse(node.incarnation()), node.address().contains(':'), node.port())
        }
        let life = key(&self.node).cmp(&key(&other.node));
        let place = life.then_with(|| self.node.address().cmp(other.node.address()));
        place.then_with(|| self.node.hash().cmp(&other.node.hash())).then_with(|| self.object.cmp(&other.object))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Claim {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::kubernetes::object::Endpoint;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const READY: Conditions = Conditions { ready: true, serving: true, terminating: false };
    const NOT_READY: Conditions = Conditions { ready: false, serving: false, terminating: false };
    const DRAINING: Conditions = Conditions { ready: false, serving: true, terminating: true };
    const READY_BUT_GOING: Conditions = Conditions { ready: true, serving: true, terminating: true };

    fn node(id: &str, address: &str, incarnation: u64) -> Arc<ClusterNode> {
        Arc::new(ClusterNode::builder(id, address, 80).incarnation(incarnation).build().unwrap())
    }

    fn object(name: &str, uid: &str, content: Content) -> Object {
        Object { name: name.into(), uid: uid.into(), content }
    }

    fn pod(name: &str, uid: &str, node: Option<Arc<ClusterNode>>) -> Object {
        object(name, uid, Content::Pod(node))
    }

    fn slice(name: &str, endpoints: &[(&str, &str, Conditions)]) -> Object {
        let endpoint = |(id, address, conditions): &(&str, &str, Conditions)| Endpoint {
            node: node(id, address, 0),
            conditions: *conditions,
        };
        object(name, name, Content::Slice(endpoints.iter().map(endpoint).collect()))
    }

    /// The members, each as `id@address`.
    fn told(directory: &Directory) -> Vec<String> {
        directory.members().iter().map(|node| format!("{}@{}", node.id(), node.address())).collect()
    }

    /// The changes, each as `+id@address` or `-id`.
    fn changed(changes: &[MemberChange]) -> Vec<String> {
        let change = |change: &MemberChange| match change {
            MemberChange::Upsert(node) => format!("+{}@{}", node.id(), node.address()),
            MemberChange::Remove(id) => format!("-{id}"),
        };
        changes.iter().map(change).collect()
    }

    #[test]
    fn kubernetes_point_1_a_list_replaces_all_at_once_or_not_at_all() {
        let mut directory = Directory::new();
        directory.upsert(pod("a", "1", Some(node("a", "h", 1))));
        directory.begin();
        directory.add(pod("b", "1", Some(node("b", "h", 1))));
        assert_eq!(told(&directory), ["a@h"]);
        directory.abandon();
        assert_eq!(directory.finish().len(), 1, "what is not begun replaces nothing");
        assert_eq!(told(&directory), ["a@h"]);
        directory.begin();
        directory.add(pod("c", "1", Some(node("c", "h", 1))));
        directory.begin();
        directory.add(pod("b", "1", Some(node("b", "h", 1))));
        directory.add(pod("d", "1", Some(node("d", "h", 1))));
        directory.add(pod("d", "1", None));
        directory.finish();
        assert_eq!(told(&directory), ["b@h"]);
        directory.begin();
        assert!(directory.finish().is_empty());
    }

    #[test]
    fn kubernetes_point_12_what_a_relist_lacks_is_gone_and_the_rest_is_the_very_same() {
        let list = |directory: &mut Directory, names: &[&str]| {
            directory.begin();
            for name in names {
                directory.add(pod(name, "1", Some(node(name, "h", 1))));
            }
            directory.finish()
        };
        let mut directory = Directory::new();
        let first = list(&mut directory, &["a", "b", "c"]);
        assert!(list(&mut directory, &["c", "b", "a"]).is_same(&first));
        let second = list(&mut directory, &["a", "c"]);
        assert_eq!(told(&directory), ["a@h", "c@h"]);
        assert!(second.iter().all(|node| Arc::ptr_eq(node, first.get(node.id()).unwrap())));
        assert!(directory.delete("b", Some("1")).is_empty());
    }

    #[test]
    fn kubernetes_point_16_of_two_pods_with_one_id_the_latest_life_counts_until_it_goes() {
        for swapped in [false, true] {
            let mut directory = Directory::new();
            let mut pods = [pod("p-old", "1", Some(node("a", "old", 1))), pod("p-new", "2", Some(node("a", "new", 2)))];
            if swapped {
                pods.reverse();
            }
            for pod in pods {
                directory.upsert(pod);
            }
            assert_eq!(told(&directory), ["a@new"]);
            assert_eq!(changed(&directory.upsert(pod("p-new", "2", None))), ["+a@old"]);
            directory.upsert(pod("p-new", "2", Some(node("a", "new", 2))));
            if swapped {
                assert!(directory.delete("p-old", Some("1")).is_empty());
                assert_eq!(changed(&directory.delete("p-new", Some("2"))), ["-a"]);
            } else {
                assert_eq!(changed(&directory.delete("p-new", Some("2"))), ["+a@old"]);
                assert_eq!(changed(&directory.delete("p-old", Some("1"))), ["-a"]);
            }
            assert!(directory.members().is_empty() && directory.holders.is_empty() && directory.objects.is_empty());
        }
    }

    #[test]
    fn kubernetes_point_16_a_pod_whose_id_changes_is_another_member() {
        let mut directory = Directory::new();
        directory.upsert(pod("p", "1", Some(node("a", "h", 1))));
        assert_eq!(changed(&directory.upsert(pod("p", "1", Some(node("b", "h", 1))))), ["-a", "+b@h"]);
        assert!(directory.upsert(pod("p", "1", Some(node("b", "h", 1)))).is_empty());
    }

    #[test]
    fn kubernetes_a_deletion_of_an_earlier_life_of_an_object_changes_nothing() {
        let mut directory = Directory::new();
        directory.upsert(pod("p", "1", Some(node("a", "old", 1))));
        assert_eq!(changed(&directory.upsert(pod("p", "2", Some(node("a", "new", 2))))), ["+a@new"]);
        assert!(directory.delete("p", Some("1")).is_empty());
        assert!(directory.delete("q", Some("2")).is_empty());
        assert_eq!(told(&directory), ["a@new"]);
        assert_eq!(changed(&directory.delete("p", Some("2"))), ["-a"]);
        directory.upsert(pod("p", "3", Some(node("a", "new", 3))));
        assert_eq!(changed(&directory.delete("p", None)), ["-a"], "of no life in particular: the one that is there");
    }

    #[test]
    fn kubernetes_point_15_an_endpoint_that_moves_between_slices_stays_while_one_holds_it() {
        let mut directory = Directory::new();
        directory.upsert(slice("s1", &[("a", "h", READY), ("b", "i", READY)]));
        assert!(directory.upsert(slice("s2", &[("a", "h", READY)])).is_empty());
        assert!(directory.upsert(slice("s1", &[("b", "i", READY)])).is_empty());
        assert_eq!(told(&directory), ["a@h", "b@i"]);
        // And back, the first slice being deleted as a whole afterwards.
        directory.upsert(slice("s3", &[("a", "h", READY)]));
        assert!(directory.delete("s2", Some("s2")).is_empty());
        assert_eq!(changed(&directory.delete("s3", Some("s3"))), ["-a"]);
    }

    #[test]
    fn kubernetes_point_15_deleting_a_slice_removes_only_what_no_other_holds() {
        let mut directory = Directory::new();
        directory.upsert(slice("s1", &[("a", "h", READY), ("b", "i", READY), ("b", "i", READY)]));
        directory.upsert(slice("s2", &[("b", "i", READY), ("c", "j", READY)]));
        assert_eq!(changed(&directory.delete("s1", Some("s1"))), ["-a"]);
        assert_eq!(changed(&directory.delete("s2", Some("s2"))), ["-b", "-c"]);
        assert!(directory.holders.is_empty());
    }

    #[test]
    fn kubernetes_point_15_the_endpoint_that_does_not_terminate_wins() {
        for (first, second) in [("s1", "s2"), ("s2", "s1")] {
            let mut directory = Directory::new();
            directory.upsert(slice(first, &[("a", "old", READY_BUT_GOING)]));
            directory.upsert(slice(second, &[("a", "new", READY)]));
            assert_eq!(told(&directory), ["a@new"]);
        }
    }

    #[test]
    fn kubernetes_point_15_only_what_is_ready_and_stays_is_a_member() {
        let mut directory = Directory::new();
        let conditions = [("a", "h", READY), ("b", "h", NOT_READY), ("c", "h", DRAINING), ("d", "h", READY_BUT_GOING)];
        directory.upsert(slice("s", &conditions));
        assert_eq!(told(&directory), ["a@h"]);
    }

    #[test]
    fn kubernetes_point_15_of_two_families_all_see_the_same() {
        for (first, second) in [("s1", "s2"), ("s2", "s1")] {
            let mut directory = Directory::new();
            directory.upsert(slice(first, &[("a", "2001:db8::1", READY)]));
            directory.upsert(slice(second, &[("a", "9.0.0.1", READY)]));
            assert_eq!(told(&directory), ["a@9.0.0.1"]);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Upsert(Object),
        Delete(usize, usize),
    }

    const NAMES: [&str; 4] = ["o1", "o2", "o3", "o4"];
    const UIDS: [&str; 2] = ["u1", "u2"];

    fn any_node() -> impl Strategy<Value = Arc<ClusterNode>> {
        (0..4usize, 0..3usize, 0..3u64)
            .prop_map(|(id, address, life)| node(["a", "b", "c", "d"][id], ["h", "i", "::1"][address], life))
    }

    fn any_object() -> impl Strategy<Value = Object> {
        let conditions = prop::sample::select(vec![READY, READY, READY, NOT_READY, DRAINING, READY_BUT_GOING]);
        let endpoint = (any_node(), conditions).prop_map(|(node, conditions)| Endpoint { node, conditions });
        let content = prop_oneof![
            prop::option::of(any_node()).prop_map(Content::Pod),
            prop::collection::vec(endpoint, 0..5).prop_map(Content::Slice),
        ];
        (0..NAMES.len(), 0..UIDS.len(), content)
            .prop_map(|(name, uid, content)| object(NAMES[name], UIDS[uid], content))
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => any_object().prop_map(Step::Upsert),
            1 => (0..NAMES.len(), 0..UIDS.len()).prop_map(|(name, uid)| Step::Delete(name, uid)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn kubernetes_point_15_any_changes_come_to_what_a_list_of_the_survivors_does(
            first in prop::collection::vec(any_object(), 0..4),
            steps in prop::collection::vec(any_step(), 0..40),
        ) {
            let (mut directory, mut survivors) = (Directory::new(), BTreeMap::new());
            directory.begin();
            for object in first {
                survivors.insert(object.name.clone(), object.clone());
                directory.add(object);
            }
            let mut followed: BTreeMap<_, _> =
                directory.finish().iter().map(|node| (node.id().clone(), Arc::clone(node))).collect();
            for step in steps {
                let changes = match step {
                    Step::Upsert(object) => {
                        survivors.insert(object.name.clone(), object.clone());
                        directory.upsert(object)
                    }
                    Step::Delete(name, uid) => {
                        let (name, uid) = (NAMES[name], UIDS[uid]);
                        if survivors.get(name).is_some_and(|object| *object.uid == *uid) {
                            survivors.remove(name);
                        }
                        directory.delete(name, Some(uid))
                    }
                };
                for change in changes {
                    match change {
                        MemberChange::Upsert(node) => {
                            let before = followed.insert(node.id().clone(), Arc::clone(&node));
                            prop_assert!(before.is_none_or(|before| before != node), "a change that is none");
                        }
                        MemberChange::Remove(id) => prop_assert!(followed.remove(&id).is_some(), "a change that is none"),
                    }
                }
                let mut rebuilt = Directory::new();
                rebuilt.begin();
                survivors.values().rev().for_each(|object| rebuilt.add(object.clone()));
                prop_assert_eq!(directory.members(), rebuilt.finish());
                prop_assert_eq!(directory.members(), Members::from_nodes(followed.values().cloned().collect()).0);
                prop_assert_eq!(directory.holders.len(), followed.len());
            }
        }
    }
}
