//! The simulated cluster as it truly is, and the providers that watch it: each with its own delay, and its own faults.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::dice::Dice;
use super::registrations::Place;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::{MemberChange, ProviderEvent, ProviderRole, ProviderTermination};
use crate::testkit::HarnessProvider;
use crate::topology::{ClusterNode, Members, NodeId, Revision, TopologyDiff};

/// How many ids there are; a node that left comes back under its own.
const IDS: u64 = 12;

/// The cluster as it truly is, and as it was lately.
pub(super) struct Truth {
    pub(super) members: Members,
    history: VecDeque<(Timestamp, Members)>,
    lives: u64,
}

impl Truth {
    pub(super) fn new(dice: &mut Dice, now: Timestamp) -> Self {
        let mut truth = Self { members: Members::new(), history: VecDeque::new(), lives: 0 };
        for _ in 0..3 + dice.below(8) {
            truth.join(dice);
        }
        truth.note(now);
        truth
    }

    /// The cluster as it was that long ago.
    pub(super) fn seen(&self, now: Timestamp, delay: Duration) -> Members {
        let known = self.history.iter().rev().find(|(since, _)| *since + delay <= now);
        known.or(self.history.front()).map(|(_, members)| members.clone()).unwrap_or_default()
    }

    /// Something happens in the cluster.
    pub(super) fn happen(&mut self, dice: &mut Dice, now: Timestamp) {
        match dice.below(100) {
            0..40 => self.join(dice),
            40..65 => {
                if let Some(id) = self.any(dice) {
                    self.members.remove(&id);
                }
            }
            65..80 => {
                if let Some(id) = self.any(dice) {
                    self.lives += 1;
                    self.members.insert(node(id.as_str(), self.lives, 0));
                }
            }
            80..94 => {
                if let Some(node) = self.any(dice).and_then(|id| self.members.get(&id)).cloned() {
                    self.members.insert(self::node(node.id().as_str(), node.incarnation(), dice.below(100)));
                }
            }
            94..98 => {
                for _ in 0..self.members.len() * 2 / 3 {
                    if let Some(id) = self.any(dice) {
                        self.members.remove(&id);
                    }
                }
            }
            _ => self.members = Members::new(),
        }
        self.note(now);
    }

    pub(super) fn any(&self, dice: &mut Dice) -> Option<NodeId> {
        self.members.iter().nth(dice.index(self.members.len())).map(|node| node.id().clone())
    }

    fn join(&mut self, dice: &mut Dice) {
        let id = format!("n{}", dice.below(IDS));
        if !self.members.contains(NodeId::new(&id).expect("a valid id")) {
            // Half of them come back in the life that they had: they were only lost from sight.
            self.lives += dice.below(2);
            self.members.insert(node(&id, self.lives, 0));
        }
    }

    fn note(&mut self, now: Timestamp) {
        self.history.push_back((now, self.members.clone()));
        if self.history.len() > 32 {
            self.history.pop_front();
        }
    }
}

fn node(id: &str, incarnation: u64, mark: u64) -> Arc<ClusterNode> {
    let builder = ClusterNode::builder(id, "10.0.0.1", 8080).incarnation(incarnation);
    Arc::new(builder.metadata("mark", mark.to_string()).build().expect("a valid node"))
}

/// The local node.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    /// In member mode.
    pub(super) id: Option<NodeId>,
    /// The backends that hold it, where it is registered by the service.
    pub(super) shown: BTreeSet<usize>,
}

impl Local {
    /// The node that the service registers.
    pub(super) fn node() -> Arc<ClusterNode> {
        node("me", 1, 0)
    }
}

/// What is wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// It says nothing at all.
    Silent,
    /// It reports errors.
    Erring,
    /// Every stream ends as soon as it is opened.
    Down,
    /// It does not believe its backend's answers.
    Doubting,
    /// It lives, but nothing confirms its data.
    Unconfirmed,
    /// It shows less than half of the members.
    Partial,
    /// It shows nobody, and believes it.
    Empty,
    /// It shows others than are in the cluster.
    Foreign,
    /// Half of the members come and go.
    Flapping,
    /// It does not show the local node.
    WithoutLocal,
}

impl Mood {
    pub(super) const FAULTS: &'static [Mood] = &[
        Mood::Silent,
        Mood::Erring,
        Mood::Down,
        Mood::Doubting,
        Mood::Unconfirmed,
        Mood::Partial,
        Mood::Empty,
        Mood::Foreign,
        Mood::Flapping,
        Mood::WithoutLocal,
    ];
}

/// A provider of the simulation.
pub(super) struct Actor {
    pub(super) spec: HarnessProvider,
    pub(super) mood: Mood,
    pub(super) until: Timestamp,
    pub(super) next_report: Timestamp,
    /// Where it registers the local node.
    pub(super) place: Place,
    /// How far it lags behind the truth.
    delay: Duration,
    /// It tells of changes one by one.
    incremental: bool,
    /// The stream that it has begun, and what it has told in it.
    told: Option<(u64, Members)>,
}

impl Actor {
    /// `number`: that of its name.
    pub(super) fn new(number: usize, dice: &mut Dice, now: Timestamp) -> Self {
        let name = format!("p{number}");
        let mut spec = HarnessProvider::new(&name, dice.below(4) as i64 * 10);
        spec.refresh_interval = dice.chance(400).then(|| dice.millis(5_000, 10_000));
        spec.registers = dice.chance(500);
        spec.reachable = dice.chance(300);
        if dice.chance(150) {
            spec.role = ProviderRole::Fallback;
        }
        Self {
            spec,
            mood: Mood::Well,
            until: now,
            next_report: now,
            // Now and then two providers are one agent's.
            place: Place { backend: if dice.chance(150) { 0 } else { number }, agent: 0 },
            delay: if dice.chance(300) { Duration::ZERO } else { dice.millis(0, 3_000) },
            incremental: dice.chance(500),
            told: None,
        }
    }

    /// What its stream of that generation says now, if anything.
    pub(super) fn report(
        &mut self,
        generation: u64,
        truth: &Truth,
        local: &Local,
        dice: &mut Dice,
        now: Timestamp,
    ) -> Option<ProviderEvent> {
        if now >= self.until {
            self.mood = Mood::Well;
        }
        let begun = self.told.as_ref().is_some_and(|(told, _)| *told == generation);
        let failed = |code| ProvisioningError::new(code, "simulating a provider", "a simulated fault");
        let due = now >= self.next_report || !begun;
        match self.mood {
            Mood::Silent => return None,
            Mood::Down => {
                let reason = failed(ErrorCode::BackendUnavailable);
                return Some(ProviderEvent::Terminated(ProviderTermination::Errored { reason }));
            }
            Mood::Erring if due => {
                self.next_report = now + dice.millis(500, 4_000);
                return Some(ProviderEvent::Degraded { error: failed(ErrorCode::BackendUnavailable) });
            }
            Mood::Doubting if due => {
                self.next_report = now + dice.millis(500, 4_000);
                return Some(ProviderEvent::Doubtful { reason: failed(ErrorCode::IndexRollback) });
            }
            Mood::Unconfirmed if due => {
                self.next_report = now + dice.millis(500, 4_000);
                return Some(ProviderEvent::Heartbeat { current: false });
            }
            Mood::Erring | Mood::Doubting | Mood::Unconfirmed => return None,
            _ => {}
        }
        let view = self.view(truth, local, now);
        let whole = |members| ProviderEvent::Snapshot { members, revision: Revision::NONE, skipped: 0 };
        let Some((_, told)) = self.told.as_mut().filter(|_| begun) else {
            self.next_report = now + dice.millis(1_000, 4_000);
            if dice.chance(30) {
                return Some(ProviderEvent::Changes { changes: Vec::new(), revision: Revision::NONE });
            }
            self.told = Some((generation, view.clone()));
            return Some(whole(view));
        };
        if !due && (*told == view || dice.chance(400)) {
            return None;
        }
        self.next_report = now + dice.millis(1_000, 4_000);
        let changes = changes(told, &view);
        *told = view.clone();
        Some(match dice.below(3) {
            _ if self.incremental && !changes.is_empty() => {
                ProviderEvent::Changes { changes, revision: Revision::NONE }
            }
            0 if changes.is_empty() => ProviderEvent::Heartbeat { current: true },
            1 if changes.is_empty() => ProviderEvent::Changes { changes, revision: Revision::NONE },
            _ => whole(view),
        })
    }

    /// It has told that in its present stream.
    pub(super) fn note(&mut self, members: Members) {
        if let Some((_, told)) = &mut self.told {
            *told = members;
        }
    }

    fn view(&self, truth: &Truth, local: &Local, now: Timestamp) -> Members {
        let mut view = truth.seen(now, self.delay);
        // Who does not register the node sees it wherever it is registered.
        let shown = local.shown.contains(&self.place.backend);
        if shown || (!self.spec.registers && !local.shown.is_empty()) {
            view.insert(Local::node());
        }
        match self.mood {
            Mood::Empty => Members::new(),
            Mood::Foreign => crate::testkit::members(&["x0", "x1", "x2"]),
            Mood::Partial => {
                let lost: Vec<NodeId> = view.iter().skip(view.len() / 3).map(|node| node.id().clone()).collect();
                for id in &lost {
                    view.remove(id);
                }
                view
            }
            Mood::Flapping => {
                // Each for as long as the others, and none at the same time.
                let beat = now.as_millis() / 1_500;
                let lost = view.iter().zip(beat..).filter(|(_, beat)| beat % 3 == 0).map(|(node, _)| node.id().clone());
                for id in lost.collect::<Vec<_>>() {
                    view.remove(&id);
                }
                view
            }
            Mood::WithoutLocal => {
                if let Some(local) = &local.id {
                    view.remove(local);
                }
                view
            }
            _ => view,
        }
    }
}

fn changes(before: &Members, after: &Members) -> Vec<MemberChange> {
    let diff = TopologyDiff::between(before, after);
    let left = diff.left().iter().map(|node| MemberChange::Remove(node.id().clone()));
    let come = diff.joined().iter().chain(diff.updated()).cloned().map(MemberChange::Upsert);
    left.chain(come).collect()
}
