//! Leaves of members that flap.
//!
//! A member that has left several times within a short while is likely to be back in a moment: somebody registers and
//! deregisters it in turn, or its check passes and fails. Each leave closes channels and moves placements, and each return
//! does so again. Its next leave is therefore held: it stays among the members until it is back, or has been away for long
//! enough to be believed gone. The idea is that of route flap damping (RFC 2439), with two differences: leaves are counted
//! within a window where routers let a penalty decay, and what flaps is kept where they withdraw it.
//!
//! Only what was delivered is held, in the life in which it was, and only while the provider followed is the one that showed it. Whatever decides about
//! more than one member sees through the hold and lets go of everyone: a switch, the end of the stream, draining, and a
//! set in which nobody else is left. Whoever a failure detector takes out is let go of, too: the end of the exclusion would
//! else bring back somebody who has left.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::turn::Turn;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::FlapDamping;
use crate::id::ProviderId;
use crate::metrics::ProvisioningMetrics;
use crate::topology::{ClusterNode, Members, NodeId};

/// The most leaves that are remembered. Beyond that the oldest are forgotten, so that an endless stream of ever new ids
/// takes no more than a few megabytes.
const REMEMBERED: usize = 65_536;
/// How many members are named at most, where many are meant.
const NAMED: usize = 3;

/// The leaves of late.
#[derive(Debug, Default)]
struct Leaves {
    /// Oldest first.
    all: VecDeque<(Timestamp, NodeId)>,
    /// How many of them are each member's.
    of: HashMap<NodeId, u32>,
}

impl Leaves {
    /// Forgets those from before `within`.
    fn forget(&mut self, within: Duration, now: Timestamp) {
        while self.all.front().is_some_and(|(at, _)| *at + within <= now) {
            self.forget_oldest();
        }
    }

    /// Remembers a leave, and gives how many of this member's are remembered from before.
    fn add(&mut self, id: &NodeId, now: Timestamp) -> u32 {
        if self.all.len() >= REMEMBERED {
            self.forget_oldest();
        }
        self.all.push_back((now, id.clone()));
        let count = self.of.entry(id.clone()).or_default();
        *count += 1;
        *count - 1
    }

    fn forget_oldest(&mut self) {
        let Some((_, id)) = self.all.pop_front() else { return };
        if let Some(count) = self.of.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&id);
            }
        }
        debug_assert!(self.of.len() <= self.all.len());
    }
}

/// A member that is away, and whose leave is held.
#[derive(Debug)]
struct Away {
    /// As it was shown last.
    node: Arc<ClusterNode>,
    /// Until when it may be back.
    until: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Damping {
    leaves: Leaves,
    away: BTreeMap<NodeId, Away>,
    /// What the provider followed shows, and those who are away; absent while nobody is.
    members: Option<Members>,
    /// When the next of them is believed gone.
    until: Option<Timestamp>,
    /// When a leave was held last.
    held_at: Option<Timestamp>,
    /// How many leaves were held.
    holds: u64,
}

impl Damping {
    /// What the provider followed shows has changed, and it has lost these. `delivered`: the members that went out last.
    pub(super) fn note(
        &mut self,
        (provider, shown): (&ProviderId, &Members),
        lost: Vec<Arc<ClusterNode>>,
        delivered: &Members,
        policy: Option<FlapDamping>,
        turn: &mut Turn<'_>,
    ) {
        let Some(policy) = policy else { return };
        self.away.retain(|id, _| !shown.contains(id));
        if !lost.is_empty() {
            self.leaves.forget(policy.within, turn.now());
        }
        let (mut held, mut new) = (Vec::new(), Vec::new());
        for node in lost {
            let before = self.leaves.add(node.id(), turn.now());
            // Whoever went out in another life, or not at all, would join by being held.
            if before < policy.leaves || !delivered.get(node.id()).is_some_and(|out| out.is_same_life(&node)) {
                continue;
            }
            let id = node.id().clone();
            if before == policy.leaves {
                new.push(id.clone());
            }
            held.push(id.clone());
            self.away.insert(id, Away { node, until: turn.now() + policy.hold });
        }
        self.tell(&held, &new, provider, policy, turn);
        self.join(shown);
    }

    /// Believes those gone that have been away for too long.
    pub(super) fn expire(&mut self, shown: &Members, turn: &mut Turn<'_>) {
        let now = turn.now();
        if self.until.is_none_or(|until| now < until) {
            return;
        }
        let mut gone = Vec::new();
        self.away.retain(|id, away| {
            let stays = now < away.until;
            gone.extend((!stays).then(|| id.clone()));
            stays
        });
        turn.decide(format!("not back in time, and gone: {}", names(&gone)));
        self.join(shown);
    }

    /// Lets go of those: who is out already comes back for no moment.
    pub(super) fn let_go(&mut self, is_out: impl Fn(&NodeId) -> bool, shown: &Members) {
        let before = self.away.len();
        self.away.retain(|id, _| !is_out(id));
        if self.away.len() < before {
            self.join(shown);
        }
    }

    /// Lets go of everyone who is away.
    pub(super) fn release(&mut self) {
        self.away.clear();
        (self.members, self.until) = (None, None);
    }

    /// What the provider followed counts as showing; absent where that is what it shows.
    pub(super) fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// When the next of those who are away is believed gone.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// What was counted.
    pub(super) fn report(&self, metrics: &mut ProvisioningMetrics) {
        metrics.held_leaves = self.holds;
    }

    fn join(&mut self, shown: &Members) {
        self.until = self.away.values().map(|away| away.until).min();
        self.members = (!self.away.is_empty()).then(|| {
            let mut members = shown.clone();
            for away in self.away.values() {
                members.insert(Arc::clone(&away.node));
            }
            members
        });
    }

    /// Warns of it where no leave was held for a whole window, and notes each further member that flaps.
    fn tell(
        &mut self,
        held: &[NodeId],
        new: &[NodeId],
        provider: &ProviderId,
        policy: FlapDamping,
        turn: &mut Turn<'_>,
    ) {
        if held.is_empty() {
            return;
        }
        self.holds += held.len() as u64;
        let last = self.held_at.replace(turn.now());
        let FlapDamping { leaves, within, hold } = policy;
        let limits = format!("left more than {leaves} times within {within:?}, so that the leave waits for {hold:?}");
        if last.is_none_or(|last| last + within <= turn.now()) {
            let detail = format!("{} {limits}", names(held));
            let error = ProvisioningError::new(ErrorCode::MembersFlap, "following the provider", detail);
            turn.warn(error.with_provider(provider));
        }
        if !new.is_empty() {
            turn.decide(format!("{provider}: {} {limits}", names(new)));
        }
    }
}

/// The first of them by name, and how many more there are.
fn names(ids: &[NodeId]) -> String {
    let named: Vec<&str> = ids.iter().take(NAMED).map(NodeId::as_str).collect();
    let named = named.join(", ");
    match ids.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;
    use crate::event::ProvisioningEvent;
    use crate::testkit::{members, node};

    /// Two leaves within ten seconds are told at once, and then it is five seconds.
    fn policy() -> FlapDamping {
        FlapDamping::default().leaves(2).within(seconds(10)).hold(seconds(5))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    /// A damping whose provider shows n1 to n4 and loses some of them, all delivered.
    struct Scene {
        damping: Damping,
        record: Record,
        delivered: Members,
        policy: Option<FlapDamping>,
        told: Vec<String>,
    }

    impl Scene {
        fn new() -> Self {
            let delivered = members(&["n1", "n2", "n3", "n4"]);
            let (damping, record) = (Damping::default(), Record::new(1));
            Self { damping, record, delivered, policy: Some(policy()), told: Vec::new() }
        }

        /// At that second the provider shows all but these, and `lost` were just lost; who is held then.
        fn lose(&mut self, second: u64, without: &[&str], lost: &[&str]) -> Vec<String> {
            let mut shown = self.delivered.clone();
            for id in without {
                shown.remove(&NodeId::new(*id).unwrap());
            }
            let lost = lost.iter().map(|id| Arc::new(node(id))).collect();
            let provider = ProviderId::new("a").unwrap();
            let mut turn = Turn::begin(&mut self.record, at(second));
            self.damping.note((&provider, &shown), lost, &self.delivered, self.policy, &mut turn);
            self.told.extend(turn.into_events().0.iter().map(|event| match event {
                ProvisioningEvent::Warning(warning) => warning.error.detail().to_owned(),
                other => panic!("{other}"),
            }));
            if let Some(counted) = self.damping.members() {
                assert!(shown.iter().all(|node| counted.contains(node.id())), "what is shown is counted");
            }
            self.held(&shown)
        }

        fn held(&self, shown: &Members) -> Vec<String> {
            let held = self.damping.members().into_iter().flat_map(Members::iter);
            held.filter(|node| !shown.contains(node.id())).map(|node| node.id().to_string()).collect()
        }

        /// n1 leaves in each of these seconds and is back in the next; who is held after the last of them.
        fn flap(&mut self, leaves: &[u64]) -> Vec<String> {
            for second in leaves {
                self.lose(second - 1, &[], &[]);
                self.lose(*second, &["n1"], &["n1"]);
            }
            self.held(&members(&["n2", "n3", "n4"]))
        }

        fn expire(&mut self, second: u64) -> Vec<String> {
            let shown = members(&["n2", "n3", "n4"]);
            let mut turn = Turn::begin(&mut self.record, at(second));
            self.damping.expire(&shown, &mut turn);
            self.held(&shown)
        }
    }

    const NOBODY: [&str; 0] = [];

    #[test]
    fn p2_5_so_many_leaves_are_told_at_once_and_the_next_is_held() {
        let mut scene = Scene::new();
        assert_eq!(scene.flap(&[2, 4]), NOBODY);
        assert_eq!(scene.flap(&[6]), ["n1"]);
        assert_eq!(scene.lose(7, &[], &[]), NOBODY, "back: nothing is held");
        assert_eq!((scene.damping.members(), scene.damping.until()), (None, None));
    }

    #[test]
    fn p2_5_a_leave_counts_for_the_window_and_no_longer() {
        let mut scene = Scene::new();
        assert_eq!(scene.flap(&[2, 4, 12]), NOBODY, "the first was ten seconds ago");
        let mut scene = Scene::new();
        assert_eq!(scene.flap(&[2, 4, 11]), ["n1"]);
    }

    #[test]
    fn p2_5_a_held_member_that_stays_away_is_gone_when_the_time_is_over() {
        let mut scene = Scene::new();
        scene.flap(&[2, 4, 6]);
        assert_eq!(scene.damping.until(), Some(at(11)));
        assert_eq!(scene.expire(10), ["n1"]);
        assert_eq!(scene.expire(11), NOBODY);
        assert_eq!((scene.damping.members(), scene.damping.until()), (None, None));
        assert!(scene.record.decisions().last().unwrap().text.contains("n1"));
    }

    #[test]
    fn p2_5_each_return_begins_the_time_anew_and_each_member_has_its_own() {
        let mut scene = Scene::new();
        scene.flap(&[2, 4, 6, 8]);
        assert_eq!(scene.damping.until(), Some(at(13)));
        // n2 flaps while n1 is away.
        for second in [9, 10] {
            assert_eq!(scene.lose(second, &["n1", "n2"], &["n2"]), ["n1"]);
        }
        assert_eq!(scene.lose(11, &["n1", "n2"], &["n2"]), ["n1", "n2"]);
        assert_eq!(scene.damping.until(), Some(at(13)), "the next one");
        let mut turn = Turn::begin(&mut scene.record, at(13));
        scene.damping.expire(&members(&["n3", "n4"]), &mut turn);
        assert_eq!((scene.held(&members(&["n3", "n4"])), scene.damping.until()), (vec!["n2".to_owned()], Some(at(16))));
    }

    #[test]
    fn p2_5_nobody_is_held_who_was_not_delivered_or_where_damping_is_off() {
        let mut scene = Scene::new();
        scene.delivered.remove(&NodeId::new("n1").unwrap());
        assert_eq!(scene.flap(&[2, 4, 6, 8]), NOBODY);
        let mut scene = Scene::new();
        scene.policy = None;
        assert_eq!(scene.flap(&[2, 4, 6, 8]), NOBODY);
        assert!(scene.told.is_empty());
    }

    #[test]
    fn p2_5_letting_go_ends_every_hold() {
        let mut scene = Scene::new();
        scene.flap(&[2, 4, 6]);
        scene.damping.release();
        assert_eq!((scene.damping.members(), scene.damping.until()), (None, None));
        assert_eq!(scene.flap(&[8]), ["n1"], "what was counted stays");
    }

    #[test]
    fn p5_1_a_warning_comes_once_for_as_long_as_leaves_are_held_and_each_member_is_noted() {
        let mut scene = Scene::new();
        scene.flap(&[2, 4, 6, 8, 10, 12, 14, 16]);
        let told = ["n1 left more than 2 times within 10s, so that the leave waits for 5s"];
        assert_eq!(scene.told, told);
        for second in [17, 18, 19] {
            scene.lose(second, &["n2"], &["n2"]);
        }
        assert_eq!(scene.told, told);
        let noted = scene.record.decisions().iter().filter(|decision| decision.text.contains("left more")).count();
        assert_eq!(noted, 2, "n1 and n2, once each");
        scene.flap(&[25, 27, 29]);
        assert_eq!(scene.told.len(), 2, "ten seconds after the last one, another warning");
        let mut metrics = ProvisioningMetrics::default();
        scene.damping.report(&mut metrics);
        assert_eq!(metrics.held_leaves, 6 + 1 + 1);
    }

    #[test]
    fn p5_1_where_many_flap_few_are_named() {
        let ids: Vec<NodeId> = (1..=5).map(|n| NodeId::new(format!("n{n}")).unwrap()).collect();
        assert_eq!([names(&ids[..1]), names(&ids[..3]), names(&ids)], ["n1", "n1, n2, n3", "n1, n2, n3 and 2 more"]);
    }

    #[test]
    fn p2_5_what_is_remembered_is_bounded() {
        let mut leaves = Leaves::default();
        let id = |n: usize| NodeId::new(format!("n{n}")).unwrap();
        assert_eq!((leaves.add(&id(0), at(0)), leaves.add(&id(0), at(0))), (0, 1));
        for n in 1..REMEMBERED - 1 {
            assert_eq!(leaves.add(&id(n), at(0)), 0);
        }
        assert_eq!((leaves.all.len(), leaves.of.len()), (REMEMBERED, REMEMBERED - 1));
        assert_eq!(leaves.add(&id(0), at(0)), 1, "the oldest was forgotten");
        leaves.forget(seconds(1), at(1));
        assert_eq!((leaves.all.len(), leaves.of.len()), (0, 0));
    }
}
