//! What follows from the inputs by the rules alone: the reference that the checkers compare the deliveries with.
//!
//! Written from the rules, not from the hub's code, and fed with each tick's input before the tick's output is judged;
//! what only the output can tell (who is followed, which streams were ordered) is folded in afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::ErrorCode;
use crate::event::{PauseReason, PlacementGate, ProvisioningEvent, RemoteTopologyChange};
use crate::failover::{FailoverPolicy, FlapDamping, SlotKey, StandbyMode};
use crate::health::ProviderHealth;
use crate::hub::{Input, SlotSpec, StreamCommand};
use crate::id::ProviderId;
use crate::provider::{MemberChange, ProviderEvent, ProviderRole};
use crate::testkit::simulation::shell::TracedTick;
use crate::testkit::{BridgeKind, HarnessSettings};
use crate::topology::{BlockSource, ClusterNode, Members, NodeId, ProviderSnapshot};

/// A gap between ticks beyond which the process counts as having stood still.
const STANDSTILL: Duration = Duration::from_secs(5);
/// After this long without the node, an entry of Remoting ends.
const ABSENCE: Duration = Duration::from_secs(24 * 60 * 60);
/// A gate opens so long after it last did at the earliest.
const FLAP: Duration = Duration::from_secs(1);

/// Where a provider's stream is, as its commands and inputs tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// None; the next one waits for at least half of `pause`, at most all of it.
    Idle {
        since: Timestamp,
        pause: Duration,
    },
    Open {
        generation: u64,
        since: Timestamp,
    },
    Closing {
        failed: bool,
    },
}

/// A provider in force.
#[derive(Clone, Debug)]
pub(super) struct ModelSlot {
    pub(super) key: SlotKey,
    edition: u64,
    pub(super) id: ProviderId,
    pub(super) priority: i64,
    pub(super) role: ProviderRole,
    pub(super) registers: bool,
    pub(super) stream: Stream,
    pub(super) shown: Members,
    pub(super) has_snapshot: bool,
    pub(super) health: ProviderHealth,
    pub(super) since: Timestamp,
    /// Since when it has not been healthy, whatever else it was.
    pub(super) ailing_since: Option<Timestamp>,
    pub(super) last_sign: Option<Timestamp>,
    /// When it last gave a sign of life, whatever the process did since.
    heard_at: Option<Timestamp>,
    /// Nothing was heard of it for the silence timeout, when the timers were looked at.
    silent: bool,
    overdue: bool,
    pub(super) last_refresh: Option<Timestamp>,
    /// Its last stream ended and none has refreshed since.
    pub(super) ended: bool,
    /// When its set last lost an id.
    pub(super) lost_at: Timestamp,
    /// When its set last changed at all.
    pub(super) changed_at: Timestamp,
    refresh_interval: Option<Duration>,
    fresh_from: Timestamp,
    errors: u32,
    faulty: bool,
    begun: bool,
    failures: u32,
    /// Of the stream opened last.
    pub(super) generation: u64,
}

/// How an entry of the block list ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockEnd {
    Returned,
    NewLife,
    Absent,
    Time,
    Lifted,
}

#[derive(Clone, Debug)]
struct Block {
    incarnation: Option<u64>,
    until: Option<Timestamp>,
    returning: bool,
    /// The next refresh looks at it also if the members are the same.
    unsettled: bool,
    absent_since: Option<Timestamp>,
}

/// What has become of members that flap within the provider followed.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps {
    /// Every leave of late.
    leaves: Vec<(NodeId, Timestamp)>,
    /// Those whose leave is held, as they were shown last, and since when they have been away.
    pub(super) away: BTreeMap<NodeId, (Arc<ClusterNode>, Timestamp)>,
    /// In this tick: how many were held, came back, were believed gone, and were let go of because more was decided.
    pub(super) held: u64,
    pub(super) back: u64,
    pub(super) gone: u64,
    pub(super) seen_through: u64,
}

/// The reference. See the module.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) settings: HarnessSettings,
    pub(super) started: Timestamp,
    pub(super) now: Timestamp,
    /// In the order of registration.
    pub(super) slots: Vec<ModelSlot>,
    /// Those that this tick's reload has removed.
    pub(super) removed: Vec<ModelSlot>,
    /// The generations of the streams that this tick's reload has to close because their providers are defined anew.
    pub(super) redefined: Vec<(SlotKey, u64)>,
    pub(super) draining: bool,
    pub(super) pinned: Option<SlotKey>,
    /// The provider followed before this tick's switches.
    pub(super) followed: Option<SlotKey>,
    pub(super) last_followed: Option<ProviderId>,
    pub(super) last_switch: Option<Timestamp>,
    /// The last snapshot delivered before this tick.
    pub(super) delivered: Option<Arc<ProviderSnapshot>>,
    /// What the provider followed showed when it was last delivered from; with another block list it may go out again.
    pub(super) accepted: Members,
    /// When the provider followed last was refreshed; also after it was removed.
    pub(super) confirmed_at: Option<Timestamp>,
    /// The gate before this tick.
    pub(super) gate: PlacementGate,
    /// When it last opened.
    opened_at: Option<Timestamp>,
    /// Since when nobody is followed because the provider was removed: its last sign of life.
    unwatched_from: Option<Timestamp>,
    /// PlacementSupervisor panicked with the last snapshot; it is given it again then.
    pub(super) retry_at: Option<Timestamp>,
    panics_in_a_row: u32,
    /// Until then nothing goes out because it is urgent.
    pub(super) urgent_until: Timestamp,
    /// The members that Remoting had been told of before this tick.
    pub(super) announced: BTreeMap<NodeId, Arc<ClusterNode>>,
    pub(super) ended_blocks: Vec<(NodeId, BlockSource, BlockEnd)>,
    pub(super) stood_still: bool,
    /// The provider whose stream ended by this tick's input.
    pub(super) terminated: Option<SlotKey>,
    /// The providers whose streams were given up in this tick because they fell silent.
    pub(super) given_up: Vec<SlotKey>,
    /// What an end signal of this tick has to carry.
    pub(super) end_hashes: BTreeMap<SlotKey, u64>,
    /// The event of this tick came from a stream that no longer counts.
    pub(super) stale_event: bool,
    /// What has become of members that flap.
    pub(super) flaps: Flaps,
    blocks: BTreeMap<(NodeId, BlockSource), Block>,
}

impl Model {
    pub(super) fn new(settings: HarnessSettings, now: Timestamp) -> Self {
        Self {
            settings,
            started: now,
            now,
            slots: Vec::new(),
            removed: Vec::new(),
            redefined: Vec::new(),
            draining: false,
            pinned: None,
            followed: None,
            last_followed: None,
            last_switch: None,
            delivered: None,
            accepted: Members::new(),
            confirmed_at: None,
            gate: PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::NoSnapshot)),
            opened_at: None,
            unwatched_from: None,
            retry_at: None,
            panics_in_a_row: 0,
            urgent_until: now,
            announced: BTreeMap::new(),
            ended_blocks: Vec::new(),
            stood_still: false,
            terminated: None,
            given_up: Vec::new(),
            end_hashes: BTreeMap::new(),
            stale_event: false,
            flaps: Flaps::default(),
            blocks: BTreeMap::new(),
        }
    }

    pub(super) fn policy(&self) -> &FailoverPolicy {
        &self.settings.failover
    }

    pub(super) fn is_hot(&self) -> bool {
        self.policy().standby == StandbyMode::Hot
    }

    pub(super) fn slot(&self, key: Option<SlotKey>) -> Option<&ModelSlot> {
        self.slots.iter().find(|slot| Some(slot.key) == key)
    }

    pub(super) fn slot_of(&self, id: &ProviderId) -> Option<&ModelSlot> {
        self.slots.iter().find(|slot| slot.id == *id)
    }

    /// The provider followed once this tick is through.
    pub(super) fn followed_after(&self, tick: &TracedTick) -> Option<&ModelSlot> {
        let switched = tick.events.iter().rev().find_map(|event| match event {
            ProvisioningEvent::ProviderChanged(change) => Some(&change.to),
            _ => None,
        });
        match switched {
            Some(to) => self.slot_of(to),
            None => self.slot(self.followed),
        }
    }

    /// When the provider followed once this tick is through was last refreshed; also after it was removed.
    pub(super) fn confirmed_after(&self, tick: &TracedTick) -> Option<Timestamp> {
        self.followed_after(tick).map_or(self.confirmed_at, |slot| slot.last_refresh)
    }

    /// Whether a provider shows the local node, and its priority: the greater, the better.
    pub(super) fn rank(&self, slot: &ModelSlot) -> (bool, i64) {
        let local = self.settings.local_node.as_ref();
        (local.is_none_or(|node| !slot.registers || slot.shown.contains(node)), slot.priority)
    }

    /// The nodes and sources on the block list.
    pub(super) fn blocked(&self) -> impl Iterator<Item = &(NodeId, BlockSource)> {
        self.blocks.keys()
    }

    pub(super) fn is_blocked(&self, node: &NodeId) -> bool {
        self.blocks.keys().any(|(blocked, _)| blocked == node)
    }

    /// The members without those that a failure detector has taken out.
    pub(super) fn visible(&self, members: &Members) -> Members {
        let mut members = members.clone();
        for (node, source) in self.blocks.keys() {
            if *source == BlockSource::FailureDetector {
                members.remove(node);
            }
        }
        members
    }

    /// What the provider counts as showing: what it shows and, where it is the one followed, those whose leave is held.
    pub(super) fn counted(&self, slot: &ModelSlot) -> Members {
        let mut members = slot.shown.clone();
        if self.followed == Some(slot.key) {
            for (node, _) in self.flaps.away.values() {
                members.insert(Arc::clone(node));
            }
        }
        members
    }

    /// Takes the tick's input and time.
    pub(super) fn begin(&mut self, tick: &TracedTick) {
        self.removed.clear();
        self.redefined.clear();
        self.ended_blocks.clear();
        self.terminated = None;
        self.stale_event = false;
        self.stood_still = tick.at.since(self.now) > STANDSTILL;
        self.now = tick.at;
        let now = self.now;
        if self.stood_still {
            for slot in &mut self.slots {
                if let Stream::Open { since, .. } = &mut slot.stream {
                    *since = now;
                }
                if slot.last_sign.is_some() && slot.health != ProviderHealth::Unreachable {
                    slot.last_sign = Some(now);
                }
                // What was overdue before stays so.
                if slot.health == ProviderHealth::Healthy {
                    slot.fresh_from = now;
                }
            }
        }
        let mut refreshed = None;
        self.flaps.begin();
        if tick.input.is_none() {
            self.let_timers_run_out();
        }
        match &tick.input {
            Some(Input::Event { key, generation, event }) => refreshed = self.take_event(*key, *generation, event),
            Some(Input::StreamClosed { key, generation }) => self.take_closed(*key, *generation),
            Some(Input::Reconfigure(specs)) => self.take_reload(specs),
            Some(Input::Block { node, source, lasting, .. }) if tick.accepted => {
                let known = self.slot(self.followed).and_then(|slot| slot.shown.get(node));
                let incarnation = known.or_else(|| self.announced.get(node)).map(|node| node.incarnation());
                let block = Block {
                    incarnation,
                    until: lasting.map(|lasting| now + lasting),
                    returning: false,
                    unsettled: *source == BlockSource::Remoting,
                    absent_since: (*source == BlockSource::Remoting && incarnation.is_none()).then_some(now),
                };
                self.blocks.insert((node.clone(), *source), block);
            }
            Some(Input::Lift { node, source }) if tick.accepted => {
                self.blocks.remove(&(node.clone(), *source));
                self.ended_blocks.push((node.clone(), *source, BlockEnd::Lifted));
            }
            Some(Input::Reconnected { node }) if tick.accepted => {
                if let Some(block) = self.blocks.get_mut(&(node.clone(), BlockSource::Remoting)) {
                    block.returning = true;
                    block.unsettled = true;
                }
            }
            Some(Input::Pin(id)) if tick.accepted => self.pinned = self.slot_of(id).map(|slot| slot.key),
            Some(Input::Unpin) => self.pinned = None,
            Some(Input::Drain) => self.draining = true,
            _ => {}
        }
        let policy = self.settings.failover.clone();
        self.given_up = if tick.input.is_none() { self.silent() } else { Vec::new() };
        for key in self.given_up.clone() {
            self.give_up(key, true);
        }
        // As streams that end in this tick find the block list.
        self.end_hashes = self.slots.iter().map(|slot| (slot.key, self.visible(&slot.shown).hash())).collect();
        for slot in &mut self.slots {
            slot.settle_health(slot.judge(&policy), now, &policy);
        }
        if let Some(changed) = refreshed {
            self.review_blocks(changed);
        }
        self.review_leaves();
    }

    /// Ends what is held of leaves.
    fn review_leaves(&mut self) {
        let Some(policy) = self.settings.failover.flap_damping else { return };
        let followed = self.slot(self.followed).filter(|slot| !self.draining && Some(slot.key) != self.terminated);
        let followed = followed.filter(|slot| !self.given_up.contains(&slot.key));
        let shows_someone = followed.is_some_and(|slot| !self.visible(&slot.shown).is_empty());
        if !shows_someone {
            return self.flaps.see_through();
        }
        let excluded = |id: &NodeId| self.blocks.contains_key(&(id.clone(), BlockSource::FailureDetector));
        let out: Vec<NodeId> = self.flaps.away.keys().filter(|id| excluded(id)).cloned().collect();
        self.flaps.let_go(&out);
        self.flaps.expire(policy, self.now);
    }

    /// What time alone brings about before anything else: blocks end, windows run out.
    fn let_timers_run_out(&mut self) {
        let (now, policy) = (self.now, self.settings.failover.clone());
        let mut ended = Vec::new();
        self.blocks.retain(|(node, source), block| {
            let end = block.end_by_time(now);
            ended.extend(end.map(|end| (node.clone(), *source, end)));
            end.is_none()
        });
        self.ended_blocks.append(&mut ended);
        for slot in &mut self.slots {
            slot.silent |= slot.last_sign.is_some_and(|sign| now.since(sign) >= policy.silence_timeout);
            let overdue = slot.refresh_interval.is_some_and(|interval| now.since(slot.fresh_from) > interval * 2);
            slot.overdue |= slot.has_snapshot && overdue;
        }
    }

    /// Folds in what the tick's output tells.
    pub(super) fn end(&mut self, tick: &TracedTick) {
        let now = self.now;
        for event in &tick.events {
            match event {
                ProvisioningEvent::ProviderChanged(change) => {
                    self.flaps.see_through();
                    self.note_switch();
                    self.unwatched_from = None;
                    self.followed = self.slot_of(&change.to).map(|slot| slot.key);
                    self.last_followed = Some(change.to.clone());
                    self.last_switch = Some(now);
                }
                ProvisioningEvent::Snapshot(delivery) => {
                    let shown = self.slot_of(&delivery.snapshot.provider_id).map(|slot| self.counted(slot));
                    if let Some(shown) = shown.filter(|shown| self.visible(shown) == delivery.snapshot.members) {
                        self.accepted = shown;
                    }
                    let urgent = self.delivered.as_ref().is_some_and(|before| {
                        before.is_empty() != delivery.snapshot.is_empty()
                            || blocked_set_differs(before, &delivery.snapshot)
                    });
                    let first = self.delivered.is_none() && !delivery.snapshot.blocked.is_empty();
                    if urgent || first {
                        self.urgent_until = now + self.settings.coalesce;
                    }
                    self.delivered = Some(Arc::clone(&delivery.snapshot));
                }
                ProvisioningEvent::GateChanged(change) => {
                    self.gate = change.gate;
                    if change.gate.is_open() {
                        self.opened_at = Some(now);
                    }
                }
                ProvisioningEvent::RemoteTopology(change) => match (change.event, &change.node) {
                    (RemoteTopologyChange::Join, Some(node)) => {
                        self.announced.insert(change.node_id.clone(), Arc::clone(node));
                    }
                    (RemoteTopologyChange::Leave, _) => _ = self.announced.remove(&change.node_id),
                    _ => {}
                },
                _ => {}
            }
        }
        follow_updates(&mut self.announced, &tick.state.announced);
        // Who came or went was taken out by a failure detector anyway, and that is known to everyone.
        let is_told = |delivered: &ProviderSnapshot| {
            let told = delivered.blocked.iter().map(|entry| (&entry.node, entry.source));
            told.eq(self.blocks.keys().map(|(node, source)| (node, *source)))
        };
        if let (Some(slot), Some(delivered)) = (self.slot(self.followed), &self.delivered)
            && self.visible(&self.counted(slot)) == delivered.members
            && is_told(delivered)
            && !self.draining
        {
            self.accepted = self.counted(slot);
        }
        self.confirmed_at = self.confirmed_after(tick);
        self.note_recalculation(tick);
        for command in &tick.streams {
            match *command {
                StreamCommand::Open { key, generation } => {
                    if let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key) {
                        slot.stream = Stream::Open { generation, since: now };
                        slot.begun = false;
                        slot.generation = generation;
                    }
                }
                StreamCommand::Close { key, generation } if self.redefined.contains(&(key, generation)) => {}
                // Those that fell silent were given up before anything was judged.
                StreamCommand::Close { key, .. } if self.given_up.contains(&key) => {}
                StreamCommand::Close { key, .. } => self.give_up(key, false),
            }
        }
    }

    /// What became of PlacementSupervisor's recalculation.
    fn note_recalculation(&mut self, tick: &TracedTick) {
        let Some(panicked) = recalculation(tick) else { return };
        if panicked {
            let pause = Duration::from_secs(1 << self.panics_in_a_row.min(5)).min(Duration::from_secs(30));
            self.retry_at = Some(self.now + pause);
            self.panics_in_a_row += 1;
        } else {
            self.retry_at = None;
            self.panics_in_a_row = 0;
        }
    }

    /// Whether PlacementSupervisor knows who owns what once this tick is through.
    pub(super) fn knows_owners_after(&self, tick: &TracedTick) -> bool {
        recalculation(tick).map_or(self.retry_at.is_none(), |panicked| !panicked)
    }

    /// Whether PlacementSupervisor, which panicked, is due to be given the snapshot again.
    pub(super) fn is_retry_due(&self) -> bool {
        self.retry_at.is_some_and(|at| self.now >= at)
    }

    /// Whether nobody is followed, and what the removed provider showed has been unwatched for too long.
    pub(super) fn is_unwatched(&self) -> bool {
        let limit = |from: Timestamp| from + self.policy().silence_timeout;
        self.unwatched_from.is_some_and(|from| self.now >= limit(from))
    }

    /// Whether the gate, which opened a moment ago, has to stay closed.
    pub(super) fn flaps(&self) -> bool {
        self.opened_at.is_some_and(|at| self.now < at + FLAP)
    }

    fn note_switch(&mut self) {
        for ((_, source), block) in &mut self.blocks {
            block.unsettled |= *source == BlockSource::Remoting;
        }
    }

    /// The providers whose open streams have said nothing for too long.
    fn silent(&self) -> Vec<SlotKey> {
        let silence = self.policy().silence_timeout;
        let is_silent = |since: Timestamp| self.now.since(since) >= silence;
        let silent = self.slots.iter().filter(|slot| slot.quiet_since().is_some_and(is_silent));
        silent.map(|slot| slot.key).collect()
    }

    fn give_up(&mut self, key: SlotKey, failed: bool) {
        let now = self.now;
        let policy = self.settings.failover.clone();
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key) else { return };
        slot.stream = Stream::Closing { failed };
        if failed {
            slot.forgive(now, &policy);
            slot.errors += 1;
            slot.faulty = true;
            slot.ended = true;
        } else {
            // In cold standby: what it showed counts for nothing until it watches again.
            let (health, since) = (slot.health, slot.since);
            slot.forgive(now, &policy);
            slot.forget(now);
            if health == ProviderHealth::Unreachable {
                slot.since = since;
            }
        }
    }

    /// Whether the provider followed was refreshed, and if so whether its members changed.
    fn take_event(&mut self, key: SlotKey, generation: u64, event: &ProviderEvent) -> Option<bool> {
        let (now, policy) = (self.now, self.settings.failover.clone());
        let followed = self.followed == Some(key);
        let current =
            |slot: &ModelSlot| matches!(slot.stream, Stream::Open { generation: open, .. } if open == generation);
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key && current(slot)) else {
            self.stale_event = true;
            return None;
        };
        slot.hear(now);
        let before = slot.has_snapshot.then(|| slot.shown.clone());
        let refreshes = match event {
            ProviderEvent::Snapshot { members, .. } => {
                slot.begun = true;
                slot.show(members.clone(), now);
                true
            }
            ProviderEvent::Changes { changes, .. } if slot.begun => {
                let mut members = slot.shown.clone();
                for change in changes {
                    match change {
                        MemberChange::Upsert(node) => _ = members.insert(Arc::clone(node)),
                        MemberChange::Remove(id) => _ = members.remove(id),
                    }
                }
                slot.show(members, now);
                true
            }
            ProviderEvent::Heartbeat { current } => *current && slot.begun,
            ProviderEvent::Doubtful { .. } => {
                slot.faulty = true;
                false
            }
            ProviderEvent::Changes { .. } | ProviderEvent::Degraded { .. } => {
                slot.errors += 1;
                slot.faulty = true;
                false
            }
            ProviderEvent::Terminated(_) => {
                slot.terminate(now, &policy);
                self.terminated = Some(key);
                false
            }
        };
        if refreshes {
            slot.refresh(now);
        }
        let changed = before.as_ref() != Some(&slot.shown);
        let shown = slot.shown.clone();
        if let (Some(before), Some(damping), true) =
            (before, policy.flap_damping, refreshes && followed && !self.draining)
        {
            let delivered = self.delivered.as_ref().map(|delivered| delivered.members.clone()).unwrap_or_default();
            self.flaps.follow((&before, &shown), &delivered, damping, now);
        }
        (refreshes && followed).then_some(changed)
    }

    fn take_closed(&mut self, key: SlotKey, generation: u64) {
        let (now, policy) = (self.now, self.settings.failover.clone());
        let current = |slot: &&mut ModelSlot| slot.key == key && slot.generation == generation;
        let Some(slot) = self.slots.iter_mut().find(current) else { return };
        match slot.stream {
            Stream::Closing { failed } => {
                let pause = if failed { slot.next_pause(&policy) } else { Duration::ZERO };
                slot.stream = Stream::Idle { since: now, pause };
            }
            Stream::Open { .. } => {
                slot.terminate(now, &policy);
                self.terminated = Some(key);
            }
            Stream::Idle { .. } => {}
        }
    }

    fn take_reload(&mut self, specs: &[SlotSpec]) {
        let now = self.now;
        let mut old = std::mem::take(&mut self.slots);
        for spec in specs {
            let slot = match old.iter().position(|slot| slot.key == spec.key) {
                Some(index) => {
                    let mut slot = ModelSlot { priority: spec.priority, role: spec.role, ..old.remove(index) };
                    if slot.edition != spec.edition {
                        if let Stream::Open { generation, .. } = slot.stream {
                            self.redefined.push((slot.key, generation));
                        }
                        slot.redefine(spec, now);
                    }
                    slot
                }
                None => ModelSlot::new(spec, now),
            };
            self.slots.push(slot);
        }
        if let Some(slot) = old.iter().find(|slot| Some(slot.key) == self.followed) {
            self.unwatched_from = Some(slot.heard_at.unwrap_or(now));
        }
        self.followed = self.followed.filter(|key| !old.iter().any(|slot| slot.key == *key));
        self.pinned = self.pinned.filter(|key| !old.iter().any(|slot| slot.key == *key));
        self.removed = old;
    }

    /// The provider followed was refreshed.
    fn review_blocks(&mut self, changed: bool) {
        let now = self.now;
        let Some(members) = self.slot(self.followed).map(|slot| slot.shown.clone()) else { return };
        let mut ended = Vec::new();
        self.blocks.retain(|(node, source), block| {
            let looked_at = *source == BlockSource::Remoting && (changed || block.unsettled);
            let end = if looked_at { block.end_by_refresh(members.get(node), now) } else { None };
            ended.extend(end.map(|end| (node.clone(), *source, end)));
            end.is_none()
        });
        self.ended_blocks.append(&mut ended);
    }
}

impl Flaps {
    fn begin(&mut self) {
        (self.held, self.back, self.gone, self.seen_through) = (0, 0, 0, 0);
    }

    /// The provider followed shows others than before.
    fn follow(
        &mut self,
        (before, shown): (&Members, &Members),
        delivered: &Members,
        policy: FlapDamping,
        now: Timestamp,
    ) {
        let away = self.away.len();
        self.away.retain(|id, _| !shown.contains(id));
        self.back += (away - self.away.len()) as u64;
        for node in before.iter().filter(|node| !shown.contains(node.id())) {
            let of_late = |(id, at): &&(NodeId, Timestamp)| id == node.id() && now < *at + policy.within;
            let leaves = self.leaves.iter().filter(of_late).count();
            self.leaves.push((node.id().clone(), now));
            if leaves >= policy.leaves as usize && delivered.get(node.id()).is_some_and(|out| out.is_same_life(node)) {
                self.away.insert(node.id().clone(), (Arc::clone(node), now));
                self.held += 1;
            }
        }
    }

    fn expire(&mut self, policy: FlapDamping, now: Timestamp) {
        let away = self.away.len();
        self.away.retain(|_, (_, since)| now < *since + policy.hold);
        self.gone += (away - self.away.len()) as u64;
    }

    /// A failure detector has taken these out.
    fn let_go(&mut self, out: &[NodeId]) {
        self.away.retain(|id, _| !out.contains(id));
        self.seen_through += out.len() as u64;
    }

    fn see_through(&mut self) {
        self.seen_through += std::mem::take(&mut self.away).len() as u64;
    }
}

/// Whether PlacementSupervisor panicked with the tick's last snapshot; absent if there was none.
fn recalculation(tick: &TracedTick) -> Option<bool> {
    let mut given = tick.calls.iter().filter(|call| {
        call.bridge == BridgeKind::PlacementSupervisor && matches!(call.event, ProvisioningEvent::Snapshot(_))
    });
    given.next_back().map(|call| call.panicked)
}

/// What Remoting was told of is as `published` says, where that is the same life: who it is may be known better than when
/// it joined, or less well.
pub(super) fn follow_updates(told: &mut BTreeMap<NodeId, Arc<ClusterNode>>, published: &Members) {
    for node in published.iter() {
        if let Some(known) = told.get_mut(node.id()).filter(|known| known.is_same_life(node)) {
            *known = Arc::clone(node);
        }
    }
}

/// Whether the block lists of two snapshots hold other entries, renewed ones aside.
pub(super) fn blocked_set_differs(a: &ProviderSnapshot, b: &ProviderSnapshot) -> bool {
    let key = |snapshot: &ProviderSnapshot| -> Vec<_> {
        snapshot.blocked.iter().map(|entry| (entry.node.clone(), entry.source)).collect()
    };
    key(a) != key(b)
}

impl Block {
    fn end_by_time(&self, now: Timestamp) -> Option<BlockEnd> {
        if self.until.is_some_and(|until| now >= until) {
            return Some(BlockEnd::Time);
        }
        self.absent_since.is_some_and(|since| now.since(since) >= ABSENCE).then_some(BlockEnd::Absent)
    }

    /// The members were confirmed, and the node is that one among them.
    fn end_by_refresh(&mut self, member: Option<&Arc<ClusterNode>>, now: Timestamp) -> Option<BlockEnd> {
        self.unsettled = self.returning;
        match member {
            Some(_) if self.returning => return Some(BlockEnd::Returned),
            // 0 says nothing: a provider without incarnations shows the same life with it.
            Some(node)
                if self.incarnation.is_some_and(|blocked| {
                    blocked != 0 && node.incarnation() != 0 && blocked != node.incarnation()
                }) =>
            {
                return Some(BlockEnd::NewLife);
            }
            Some(_) => self.absent_since = None,
            None => self.absent_since = self.absent_since.or(Some(now)),
        }
        None
    }
}

impl ModelSlot {
    fn new(spec: &SlotSpec, now: Timestamp) -> Self {
        let mut slot = Self {
            key: spec.key,
            edition: spec.edition,
            id: spec.id.clone(),
            priority: spec.priority,
            role: spec.role,
            registers: spec.registers,
            stream: Stream::Idle { since: now, pause: Duration::ZERO },
            shown: Members::new(),
            has_snapshot: false,
            health: ProviderHealth::Unreachable,
            since: now,
            ailing_since: Some(now),
            last_sign: None,
            heard_at: None,
            silent: false,
            overdue: false,
            last_refresh: None,
            ended: false,
            lost_at: now,
            changed_at: now,
            refresh_interval: spec.refresh_interval,
            fresh_from: now,
            errors: 0,
            faulty: false,
            begun: false,
            failures: 0,
            generation: 0,
        };
        if spec.reachable {
            slot.hear(now);
            slot.health = ProviderHealth::Degraded;
        }
        slot
    }

    /// Another provider serves under the same name from here on; what this one showed stays.
    fn redefine(&mut self, spec: &SlotSpec, now: Timestamp) {
        self.edition = spec.edition;
        self.registers = spec.registers;
        self.refresh_interval = spec.refresh_interval;
        self.failures = 0;
        self.stream = Stream::Idle { since: now, pause: Duration::ZERO };
        if spec.reachable {
            self.hear(now);
        }
    }

    fn hear(&mut self, now: Timestamp) {
        self.last_sign = Some(now);
        self.heard_at = Some(now);
        self.silent = false;
    }

    /// Its failures are forgotten if it has been healthy for long enough.
    fn forgive(&mut self, now: Timestamp, policy: &FailoverPolicy) {
        if self.health == ProviderHealth::Healthy && now.since(self.since) >= policy.backoff_reset {
            self.failures = 0;
        }
    }

    fn settle_health(&mut self, health: ProviderHealth, now: Timestamp, policy: &FailoverPolicy) {
        if health != self.health {
            self.forgive(now, policy);
            self.ailing_since = self.ailing_since.or(Some(now)).filter(|_| health != ProviderHealth::Healthy);
            self.health = health;
            self.since = now;
        }
    }

    /// Since when nothing has come from the open stream.
    pub(super) fn quiet_since(&self) -> Option<Timestamp> {
        match self.stream {
            Stream::Open { since, .. } => Some(self.last_sign.map_or(since, |sign| sign.max(since))),
            _ => None,
        }
    }

    pub(super) fn is_eligible(&self, health: ProviderHealth) -> bool {
        self.has_snapshot && self.health == health
    }

    fn judge(&self, policy: &FailoverPolicy) -> ProviderHealth {
        let overdue = self.overdue;
        if self.last_sign.is_none() || self.silent || self.errors >= policy.max_errors {
            ProviderHealth::Unreachable
        } else if self.faulty || self.ended || !self.has_snapshot || overdue {
            ProviderHealth::Degraded
        } else {
            ProviderHealth::Healthy
        }
    }

    fn show(&mut self, members: Members, now: Timestamp) {
        let lost = self.shown.iter().any(|node| !members.contains(node.id()));
        if lost || !self.has_snapshot {
            self.lost_at = now;
        }
        if self.shown != members || !self.has_snapshot {
            self.changed_at = now;
        }
        self.shown = members;
    }

    fn refresh(&mut self, now: Timestamp) {
        self.has_snapshot = true;
        self.last_refresh = Some(now);
        self.fresh_from = now;
        self.overdue = false;
        self.errors = 0;
        self.faulty = false;
        self.ended = false;
    }

    fn terminate(&mut self, now: Timestamp, policy: &FailoverPolicy) {
        self.forgive(now, policy);
        self.errors += 1;
        self.faulty = true;
        self.ended = true;
        let pause = self.next_pause(policy);
        self.stream = Stream::Idle { since: now, pause };
    }

    fn forget(&mut self, now: Timestamp) {
        self.has_snapshot = false;
        self.health = ProviderHealth::Unreachable;
        self.since = now;
        self.ailing_since = self.ailing_since.or(Some(now));
        self.last_sign = None;
        self.heard_at = None;
        self.silent = false;
        self.overdue = false;
        self.last_refresh = None;
        self.ended = false;
        self.faulty = false;
        self.errors = 0;
        self.fresh_from = now;
    }

    /// The whole of the next pause, before it is spread.
    fn next_pause(&mut self, policy: &FailoverPolicy) -> Duration {
        let doubled = policy.backoff_initial * 2u32.pow(self.failures.min(10));
        self.failures += 1;
        doubled.min(policy.backoff_max)
    }
}
