use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// A node of which `n` is the id and `life` decides the rest: 0 to 3 are two lives with two sets of metadata each.
fn node(n: u32, life: u8) -> Arc<ClusterNode> {
    let builder = ClusterNode::builder(format!("node-{n:05}"), "10.0.0.1", 8080);
    let node = builder.incarnation(1 + u64::from(life / 2)).metadata("m", (life % 2).to_string());
    Arc::new(node.build().unwrap())
}

fn id(n: u32) -> NodeId {
    NodeId::new(format!("node-{n:05}")).unwrap()
}

type Model = BTreeMap<NodeId, Arc<ClusterNode>>;

/// Checks everything that a set says of itself against the model.
fn check(members: &Members, model: &Model) {
    members.root.check();
    assert_eq!((members.len(), members.is_empty()), (model.len(), model.is_empty()));
    assert!(members.iter().eq(model.values()));
    assert_eq!(members.iter().len(), model.len());
    let sum = model.values().fold(0u64, |sum, node| sum.wrapping_add(node.compute_hash()));
    assert_eq!(members.hash(), sum);
    assert_eq!(*members, Members::from_nodes(model.values().cloned().collect()).0);
}

fn numbered(count: u32) -> Members {
    Members::from_nodes((0..count).map(|n| node(n, 0)).collect()).0
}

/// Carries a difference out, as a consumer would.
fn apply(before: &Members, diff: &TopologyDiff) -> Members {
    let mut after = before.clone();
    for gone in diff.left() {
        assert_eq!(after.remove(gone.id()).as_ref(), Some(gone));
    }
    for come in diff.joined() {
        assert_eq!(after.insert(Arc::clone(come)), None);
    }
    for changed in diff.updated() {
        assert!(after.insert(Arc::clone(changed)).unwrap().is_same_life(changed));
    }
    after
}

/// Changes to a set: a stretch of ids, in rising or falling order or scattered, is put in with one life or taken out.
#[derive(Clone, Debug)]
struct Stretch {
    from: u32,
    count: u32,
    step: u32,
    falling: bool,
    life: Option<u8>,
}

impl Stretch {
    fn ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..self.count).map(|n| (self.from + n * self.step) % 4001).collect();
        if self.falling {
            ids.reverse();
        }
        ids
    }

    fn apply(&self, members: &mut Members, model: &mut Model) {
        for n in self.ids() {
            match self.life {
                Some(life) => {
                    let given = node(n, life);
                    assert_eq!(members.get(id(n)), model.get(&id(n)));
                    let previous = members.insert(Arc::clone(&given));
                    assert_eq!(previous, model.insert(id(n), given));
                }
                None => assert_eq!(members.remove(&id(n)), model.remove(&id(n))),
            }
            assert_eq!(members.contains(id(n)), self.life.is_some());
        }
    }
}

fn stretch(most: u32) -> impl Strategy<Value = Stretch> {
    let life = prop_oneof![3 => (0u8..4).prop_map(Some), 2 => Just(None)];
    (0u32..4001, 1..most, prop_oneof![Just(1u32), 1u32..4001], any::<bool>(), life)
        .prop_map(|(from, count, step, falling, life)| Stretch { from, count, step, falling, life })
}

fn stretches() -> impl Strategy<Value = Vec<Stretch>> {
    prop_oneof![
        3 => prop::collection::vec(stretch(40), 1..20),
        1 => prop::collection::vec(stretch(3000), 1..8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn p2_3_members_behave_as_a_sorted_map_and_keep_their_hash(bulk in 0u32..4001, changes in stretches()) {
        let mut members = numbered(bulk);
        let mut model: Model = (0..bulk).map(|n| (id(n), node(n, 0))).collect();
        check(&members, &model);
        for change in &changes {
            let (before, was) = (members.clone(), model.clone());
            change.apply(&mut members, &mut model);
            check(&members, &model);
            check(&before, &was);
        }
    }

    #[test]
    fn p2_3_the_hash_does_not_depend_on_the_order(ids in prop::collection::btree_set(0u32..4001, 0..300), seed in any::<u64>()) {
        let sorted: Vec<_> = ids.iter().map(|n| node(*n, (n % 4) as u8)).collect();
        let mut shuffled = sorted.clone();
        shuffled.sort_by_key(|node| node.hash() ^ seed);
        let mut one_by_one = Members::new();
        for node in &shuffled {
            one_by_one.insert(Arc::clone(node));
        }
        let (bulk, dropped) = Members::from_nodes(shuffled);
        prop_assert_eq!((bulk.hash(), dropped), (one_by_one.hash(), 0));
        prop_assert_eq!(&bulk, &one_by_one);
        prop_assert!(bulk.iter().eq(sorted.iter()));
    }

    #[test]
    fn p4_1_a_difference_leads_from_before_to_after_whether_they_share_or_not(
        bulk in 0u32..4001,
        changes in stretches(),
    ) {
        let before = numbered(bulk);
        let mut after = before.clone();
        let mut model: Model = (0..bulk).map(|n| (id(n), node(n, 0))).collect();
        for change in &changes {
            change.apply(&mut after, &mut model);
        }
        let diff = TopologyDiff::between(&before, &after);
        prop_assert_eq!(&apply(&before, &diff), &after);
        prop_assert_eq!(diff.is_empty(), before == after);
        let by_id = |a: &Arc<ClusterNode>, b: &Arc<ClusterNode>| a.id() < b.id();
        prop_assert!([diff.joined(), diff.left(), diff.updated()].iter().all(|part| part.is_sorted_by(by_id)));

        // The same sets, with nothing in common in memory.
        let copied = |members: &Members| Members::from_iter(members.iter().map(|node| (**node).clone()));
        let unrelated = TopologyDiff::between(&copied(&before), &copied(&after));
        prop_assert_eq!(&unrelated, &diff);
        let back = TopologyDiff::between(&after, &before);
        prop_assert_eq!(apply(&after, &back), before);
    }

    #[test]
    fn a_node_is_found_whatever_the_ids_look_like(
        ids in prop::collection::btree_set("[ab]{0,3}(abababab){0,2}[a-c\u{e9}]{1,3}", 1..400),
        absent in prop::collection::vec("[abc]{1,12}", 20),
        batch in any::<bool>(),
    ) {
        let build = |id: &String| Arc::new(ClusterNode::builder(id, "h", 1).build().unwrap());
        let members = if batch {
            Members::from_nodes(ids.iter().map(build).collect()).0
        } else {
            let mut members = Members::new();
            ids.iter().rev().for_each(|id| drop(members.insert(build(id))));
            members
        };
        members.root.check();
        prop_assert!(members.iter().map(|node| node.id().as_str()).eq(ids.iter().map(String::as_str)));
        for id in ids.iter().chain(&absent) {
            prop_assert_eq!(members.contains(NodeId::new(id).unwrap()), ids.contains(id), "{}", id);
        }
    }

    #[test]
    fn sharing_keeps_the_set_and_shares_every_equal_node(bulk in 0u32..4001, changes in stretches()) {
        let other = numbered(bulk);
        let mut mine = numbered(bulk);
        let mut model: Model = mine.iter().map(|node| (node.id().clone(), Arc::clone(node))).collect();
        for change in &changes {
            change.apply(&mut mine, &mut model);
        }
        let shared = mine.clone().shared_with(&other);
        check(&shared, &model);
        prop_assert_eq!(&shared, &mine);
        for node in shared.iter() {
            if let Some(same) = other.get(node.id()).filter(|same| *same == node) {
                prop_assert!(Arc::ptr_eq(same, node));
            }
        }
    }
}

#[test]
fn of_several_nodes_with_one_id_the_first_is_kept_and_the_rest_counted() {
    let (first, second) = (node(1, 0), node(1, 3));
    let nodes = vec![node(2, 0), Arc::clone(&first), Arc::clone(&second), node(2, 1), second];
    let (members, dropped) = Members::from_nodes(nodes);
    assert_eq!((members.len(), dropped), (2, 3));
    assert!(Arc::ptr_eq(members.get(id(1)).unwrap(), &first));
    assert_eq!(members.get(id(2)), Some(&node(2, 0)));

    let mut builder = MembersBuilder::new();
    builder.push(ClusterNode::builder("a", "h", 1).build());
    builder.push(ClusterNode::builder("a", "h", 2).build());
    builder.push(ClusterNode::builder("b", "h", 0).build());
    let (members, skipped) = builder.build();
    assert_eq!((members.len(), skipped), (1, 2));
    assert_eq!(members.iter().next().unwrap().port(), 1);
}

#[test]
fn p4_1_another_life_is_a_leave_and_a_join_and_other_metadata_an_update() {
    let before = Members::from_nodes(vec![node(1, 0), node(2, 0), node(3, 0)]).0;
    let after = Members::from_nodes(vec![node(1, 1), node(2, 2), node(4, 0)]).0;
    let diff = TopologyDiff::between(&before, &after);
    assert_eq!(diff.updated(), [node(1, 1)]);
    assert_eq!(diff.left(), [node(2, 0), node(3, 0)]);
    assert_eq!(diff.joined(), [node(2, 2), node(4, 0)]);
    assert_eq!(diff.len(), 5);
}

#[test]
fn inserting_an_equal_node_changes_and_copies_nothing() {
    let mut members = numbered(1000);
    let before = members.clone();
    let given = node(500, 0);
    let back = members.insert(Arc::clone(&given)).unwrap();
    assert!(Arc::ptr_eq(&back, &given));
    assert_eq!(members.remove(&id(5000)), None);
    assert!(Arc::ptr_eq(&members.root, &before.root));
}

#[test]
fn p2_3_one_change_among_a_hundred_thousand_copies_one_path_only() {
    let before = numbered(100_000);
    let parts: BTreeSet<_> = before.root.parts().into_iter().collect();
    let copied = |after: &Members| after.root.parts().iter().filter(|part| !parts.contains(*part)).count();
    let path = before.root.check() + 1;
    assert_eq!(path, 4);

    let mut replaced = before.clone();
    replaced.insert(node(54_321, 2));
    assert_eq!(copied(&replaced), path);
    let mut smaller = before.clone();
    smaller.remove(&id(0));
    assert_eq!(copied(&smaller), path);
    let mut larger = before.clone();
    larger.insert(node(100_000, 0));
    assert_eq!(copied(&larger), path);
    assert_eq!(TopologyDiff::between(&before, &replaced).len(), 2);
    for node in replaced.iter().filter(|node| *node.id() != id(54_321)) {
        assert!(Arc::ptr_eq(node, before.get(node.id()).unwrap()));
    }
}

#[test]
fn sharing_copies_only_what_differs() {
    let other = numbered(10_000);
    let mut mine = numbered(10_000);
    mine.insert(node(77, 1));
    let shared = mine.shared_with(&other);
    let parts: BTreeSet<_> = other.root.parts().into_iter().collect();
    let own = shared.root.parts().iter().filter(|part| !parts.contains(*part)).count();
    assert_eq!(own, other.root.check() + 1);
    assert!(Arc::ptr_eq(&numbered(10_000).shared_with(&other).root, &other.root));
}

#[test]
fn a_set_takes_less_than_64_bytes_per_node_beside_the_nodes_also_when_it_has_grown_and_shrunk() {
    let per_node = |members: &Members| members.root.bytes() / members.len();
    for count in [1_000, 100_000] {
        let mut members = numbered(count);
        assert!(per_node(&members) < 16, "{}", per_node(&members));
        for n in (0..count).filter(|n| n % 8 != 0) {
            members.remove(&id(n));
        }
        assert!(per_node(&members) < 64, "{}", per_node(&members));
        let mut grown = Members::new();
        for n in (0..count).rev() {
            grown.insert(node(n, 0));
        }
        assert!(per_node(&grown) < 32, "{}", per_node(&grown));
    }
}

#[test]
fn removing_all_but_one_of_many_leaves_a_small_tree() {
    let mut members = numbered(20_000);
    for n in (0..20_000).filter(|n| *n != 12_345) {
        members.remove(&id(n));
        if n % 1_000 == 0 {
            members.root.check();
        }
    }
    assert_eq!((members.root.check(), members.len()), (0, 1));
    members.remove(&id(12_345));
    assert_eq!((members.hash(), members.len(), members == Members::new()), (0, 0, true));
}
