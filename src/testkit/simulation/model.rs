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
use crate::failover::{FailoverPolicy, SlotKey, StandbyMode};
use crate::hub::{Input, SlotSpec, StreamCommand};
use crate::provider::{MemberChange, ProviderEvent, ProviderHealth, ProviderId};
use crate::testkit::HarnessSettings;
use crate::testkit::harness::TracedTick;
use crate::topology::{BlockSource, ClusterNode, Members, NodeId, ProviderSnapshot};

/// A gap between ticks beyond which the process counts as having stood still.
const STANDSTILL: Duration = Duration::from_secs(5);
/// After this long without the node, an entry of Remoting ends.
const ABSENCE: Duration = Duration::from_secs(24 * 60 * 60);

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
    pub(super) id: ProviderId,
    pub(super) priority: i64,
    pub(super) registers: bool,
    pub(super) stream: Stream,
    pub(super) shown: Members,
    pub(super) has_snapshot: bool,
    pub(super) health: ProviderHealth,
    pub(super) since: Timestamp,
    pub(super) last_sign: Option<Timestamp>,
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
    absent_since: Option<Timestamp>,
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
            draining: false,
            pinned: None,
            followed: None,
            last_followed: None,
            last_switch: None,
            delivered: None,
            accepted: Members::new(),
            confirmed_at: None,
            gate: PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::NoSnapshot)),
            announced: BTreeMap::new(),
            ended_blocks: Vec::new(),
            stood_still: false,
            terminated: None,
            given_up: Vec::new(),
            end_hashes: BTreeMap::new(),
            stale_event: false,
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

    /// Takes the tick's input and time.
    pub(super) fn begin(&mut self, tick: &TracedTick) {
        self.removed.clear();
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
        let mut refreshed = false;
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
                    absent_since: incarnation.is_none().then_some(now),
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
                }
            }
            Some(Input::Pin(id)) if tick.accepted => self.pinned = self.slot_of(id).map(|slot| slot.key),
            Some(Input::Unpin) => self.pinned = None,
            Some(Input::Drain) => self.draining = true,
            _ => {}
        }
        let policy = self.settings.failover.clone();
        self.given_up = self.silent();
        for key in self.given_up.clone() {
            self.give_up(key, true);
        }
        // As streams that end in this tick find the block list.
        self.end_hashes = self.slots.iter().map(|slot| (slot.key, self.visible(&slot.shown).hash())).collect();
        for slot in &mut self.slots {
            let health = slot.judge(now, &policy);
            if health != slot.health {
                slot.health = health;
                slot.since = now;
            }
        }
        self.review_blocks(refreshed);
    }

    /// Folds in what the tick's output tells.
    pub(super) fn end(&mut self, tick: &TracedTick) {
        let now = self.now;
        for event in &tick.events {
            match event {
                ProvisioningEvent::ProviderChanged(change) => {
                    self.followed = self.slot_of(&change.to).map(|slot| slot.key);
                    self.last_followed = Some(change.to.clone());
                    self.last_switch = Some(now);
                }
                ProvisioningEvent::Snapshot(delivery) => {
                    let shown = self.slot_of(&delivery.snapshot.provider_id).map(|slot| slot.shown.clone());
                    if let Some(shown) = shown.filter(|shown| self.visible(shown) == delivery.snapshot.members) {
                        self.accepted = shown;
                    }
                    self.delivered = Some(Arc::clone(&delivery.snapshot));
                }
                ProvisioningEvent::GateChanged(change) => self.gate = change.gate,
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
        self.confirmed_at = self.confirmed_after(tick);
        let reset = self.policy().backoff_reset;
        for slot in &mut self.slots {
            if slot.health == ProviderHealth::Healthy && now.since(slot.since) >= reset {
                slot.failures = 0;
            }
        }
        for command in &tick.streams {
            match *command {
                StreamCommand::Open { key, generation } => {
                    if let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key) {
                        slot.stream = Stream::Open { generation, since: now };
                        slot.begun = false;
                        slot.generation = generation;
                    }
                }
                // Those that fell silent were given up before anything was judged.
                StreamCommand::Close { key, .. } if self.given_up.contains(&key) => {}
                StreamCommand::Close { key, .. } => self.give_up(key, false),
            }
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
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key) else { return };
        slot.stream = Stream::Closing { failed };
        if failed {
            slot.errors += 1;
            slot.faulty = true;
            slot.ended = true;
        } else {
            // In cold standby: what it showed counts for nothing until it watches again.
            let (health, since) = (slot.health, slot.since);
            slot.forget(now);
            if health == ProviderHealth::Unreachable {
                slot.since = since;
            }
        }
    }

    fn take_event(&mut self, key: SlotKey, generation: u64, event: &ProviderEvent) -> bool {
        let (now, policy) = (self.now, self.settings.failover.clone());
        let followed = self.followed == Some(key);
        let current =
            |slot: &ModelSlot| matches!(slot.stream, Stream::Open { generation: open, .. } if open == generation);
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.key == key && current(slot)) else {
            self.stale_event = true;
            return false;
        };
        slot.last_sign = Some(now);
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
        refreshes && followed
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
        let mut old = std::mem::take(&mut self.slots);
        for spec in specs {
            let slot = match old.iter().position(|slot| slot.key == spec.key) {
                Some(index) => ModelSlot { priority: spec.priority, ..old.remove(index) },
                None => ModelSlot::new(spec, self.now),
            };
            self.slots.push(slot);
        }
        self.followed = self.followed.filter(|key| !old.iter().any(|slot| slot.key == *key));
        self.pinned = self.pinned.filter(|key| !old.iter().any(|slot| slot.key == *key));
        self.removed = old;
    }

    fn review_blocks(&mut self, refreshed: bool) {
        let now = self.now;
        let members = self.slot(self.followed).filter(|slot| slot.has_snapshot).map(|slot| slot.shown.clone());
        let mut ended = Vec::new();
        self.blocks.retain(|(node, source), block| {
            let end = block.end(members.as_ref().map(|members| members.get(node)), refreshed, *source, now);
            ended.extend(end.map(|end| (node.clone(), *source, end)));
            end.is_none()
        });
        self.ended_blocks.append(&mut ended);
    }
}

impl Block {
    fn end(
        &mut self,
        member: Option<Option<&Arc<ClusterNode>>>,
        refreshed: bool,
        source: BlockSource,
        now: Timestamp,
    ) -> Option<BlockEnd> {
        if self.until.is_some_and(|until| now >= until) {
            return Some(BlockEnd::Time);
        }
        if source != BlockSource::Remoting {
            return None;
        }
        if refreshed {
            match member.flatten() {
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
        }
        self.absent_since.is_some_and(|since| now.since(since) >= ABSENCE).then_some(BlockEnd::Absent)
    }
}

impl ModelSlot {
    fn new(spec: &SlotSpec, now: Timestamp) -> Self {
        let mut slot = Self {
            key: spec.key,
            id: spec.id.clone(),
            priority: spec.priority,
            registers: spec.registers,
            stream: Stream::Idle { since: now, pause: Duration::ZERO },
            shown: Members::new(),
            has_snapshot: false,
            health: ProviderHealth::Unreachable,
            since: now,
            last_sign: None,
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
            slot.last_sign = Some(now);
            slot.health = ProviderHealth::Degraded;
        }
        slot
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

    fn judge(&self, now: Timestamp, policy: &FailoverPolicy) -> ProviderHealth {
        let silent = self.last_sign.is_none_or(|sign| now.since(sign) >= policy.silence_timeout);
        let overdue = self.refresh_interval.is_some_and(|interval| now.since(self.fresh_from) > interval * 2);
        if silent || self.errors >= policy.max_errors {
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
        self.errors = 0;
        self.faulty = false;
        self.ended = false;
    }

    fn terminate(&mut self, now: Timestamp, policy: &FailoverPolicy) {
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
        self.last_sign = None;
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
