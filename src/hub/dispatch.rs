//! The order of a tick: PlacementSupervisor, PartitionManager, Remoting, subscribers, published state.
//!
//! Calls the bridges on the hub's thread and keeps one that panics from taking the hub along. Holds no rules of its own
//! but that order.

use std::sync::Arc;
use std::time::Duration;

use super::core::HubCore;
use super::lifecycle::Lifecycle;
use super::loglines::LogLines;
use super::mailbox::Mailbox;
use super::published::PublishedMetrics;
use super::{Publication, Published, Tick};
use crate::bridge::{PartitionManagerBridge, PlacementSupervisorBridge, RemotingBridge};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{OwnershipChange, ProvisioningEvent, Publisher};
use crate::metrics::{BridgeMetrics, ProvisioningMetrics};
use crate::panics::{Foreign, caught};

/// The host's bridges. Any of them may be missing.
#[derive(Clone, Default)]
pub(crate) struct Bridges {
    pub(crate) placement_supervisor: Option<Foreign<Arc<dyn PlacementSupervisorBridge>>>,
    pub(crate) partition_manager: Option<Foreign<Arc<dyn PartitionManagerBridge>>>,
    pub(crate) remoting: Option<Foreign<Arc<dyn RemotingBridge>>>,
}

/// Carries ticks out.
pub(crate) struct Dispatcher {
    bridges: Bridges,
    publisher: Publisher<Arc<ProvisioningEvent>>,
    publication: Publication,
    clock: Arc<dyn Clock>,
    mailbox: Arc<Mailbox>,
    /// A bridge that takes longer than this in one tick is reported.
    slow_limit: Duration,
    lines: LogLines,
    metrics: ProvisioningMetrics,
    published: PublishedMetrics,
    faults: Vec<ProvisioningError>,
}

impl Dispatcher {
    pub(crate) fn new(
        bridges: Bridges,
        publisher: Publisher<Arc<ProvisioningEvent>>,
        publication: Publication,
        clock: Arc<dyn Clock>,
        mailbox: Arc<Mailbox>,
        slow_limit: Duration,
    ) -> Self {
        Self {
            bridges,
            publisher,
            publication,
            clock,
            mailbox,
            slow_limit,
            lines: LogLines::new(),
            metrics: ProvisioningMetrics::default(),
            published: PublishedMetrics::default(),
            faults: Vec::new(),
        }
    }

    /// Delivers what a tick has decided, in order, and publishes the state. `stamp`: when the tick's input was sent, if
    /// it had one.
    pub(crate) fn carry_out(&mut self, core: &mut HubCore, tick: &mut Tick, stamp: Option<Timestamp>) {
        let (ordered, told) = self.tell_placement_supervisor(core, tick);
        if !tick.events.is_empty() {
            tick.events.extend(ordered.into_iter().map(|changes| core.lease(changes)));
            let told = self.tell_partition_manager(&tick.events, told);
            let told = self.tell_remoting(&tick.events, told);
            let delivers = tick.events.iter().any(|event| matches!(event, ProvisioningEvent::Snapshot(_)));
            if let Some(stamp) = tick.waited_since.or(stamp).filter(|_| delivers) {
                let told = told.unwrap_or_else(|| self.clock.now());
                self.metrics.snapshot_latency.record(told.since(stamp));
            }
            for fault in std::mem::take(&mut self.faults) {
                let (events, lines) = core.warn(fault);
                tick.events.extend(events);
                tick.lines.extend(lines);
            }
            if self.publisher.has_subscribers() {
                for event in &tick.events {
                    self.publisher.publish(Arc::new(event.clone()));
                }
            }
        }
        let metrics = self.published.next(|metrics| {
            metrics.clone_from(&self.metrics);
            core.report(metrics);
        });
        self.publication.store(Arc::new(core.publish(metrics)));
        if !tick.lines.is_empty() {
            self.lines.write(std::mem::take(&mut tick.lines), self.clock.now());
        }
    }

    /// Publishes that nothing follows, beside the last state.
    pub(crate) fn publish_end(&mut self) {
        let last = Published { stopped: true, ..Published::clone(&self.publication.load()) };
        self.publication.store(Arc::new(last));
        self.publisher.close();
    }

    /// Tells PlacementSupervisor what the tick delivers, and then what follows for the gate, now that it has recalculated
    /// or has not. The ownership changes that it ordered, and when the last callback returned, if there was one.
    fn tell_placement_supervisor(
        &mut self,
        core: &mut HubCore,
        tick: &mut Tick,
    ) -> (Vec<Vec<OwnershipChange>>, Option<Timestamp>) {
        let Self { bridges, clock, mailbox, metrics, faults, .. } = self;
        let Some(bridge) = &bridges.placement_supervisor else {
            // Nobody has anything to recalculate.
            let delivers = tick.events.iter().any(|event| matches!(event, ProvisioningEvent::Snapshot(_)));
            let (concluded, lines) = core.conclude(delivers.then_some(true));
            tick.events.extend(concluded);
            tick.lines.extend(lines);
            return (Vec::new(), None);
        };
        let metrics = &mut metrics.placement_supervisor;
        let mut watch = Watch::new("PlacementSupervisor", &**clock, mailbox.life(), None, metrics, faults);
        let mut ordered = Vec::new();
        let mut tell = |event: &ProvisioningEvent| match event {
            ProvisioningEvent::Snapshot(delivery) => {
                let changes = watch.call(|| bridge.apply_snapshot(delivery));
                let recalculated = changes.is_some();
                ordered.extend(changes.filter(|changes| !changes.is_empty()));
                Some(recalculated)
            }
            ProvisioningEvent::ProviderChanged(change) => {
                watch.call(|| bridge.provider_changed(change));
                None
            }
            ProvisioningEvent::StreamEnded(end) => {
                watch.call(|| bridge.stream_ended(end));
                None
            }
            ProvisioningEvent::GateChanged(change) => {
                watch.call(|| bridge.gate_changed(change));
                None
            }
            _ => None,
        };
        let recalculated = tick.events.iter().filter_map(&mut tell).last();
        let (concluded, lines) = core.conclude(recalculated);
        for event in &concluded {
            tell(event);
        }
        tick.events.extend(concluded);
        tick.lines.extend(lines);
        (ordered, watch.finish(self.slow_limit))
    }

    fn tell_partition_manager(&mut self, events: &[ProvisioningEvent], told: Option<Timestamp>) -> Option<Timestamp> {
        let Some(bridge) = &self.bridges.partition_manager else { return told };
        let mut watch = Watch::new(
            "PartitionManager",
            &*self.clock,
            self.mailbox.life(),
            told,
            &mut self.metrics.partition_manager,
            &mut self.faults,
        );
        for event in events {
            match event {
                ProvisioningEvent::Snapshot(delivery) => _ = watch.call(|| bridge.apply_snapshot(delivery)),
                ProvisioningEvent::ProviderChanged(change) => _ = watch.call(|| bridge.provider_changed(change)),
                ProvisioningEvent::StreamEnded(end) => _ = watch.call(|| bridge.stream_ended(end)),
                ProvisioningEvent::LeasesPublished(update) => _ = watch.call(|| bridge.publish_leases(update)),
                ProvisioningEvent::GateChanged(change) => _ = watch.call(|| bridge.gate_changed(change)),
                _ => {}
            }
        }
        watch.finish(self.slow_limit)
    }

    fn tell_remoting(&mut self, events: &[ProvisioningEvent], told: Option<Timestamp>) -> Option<Timestamp> {
        let Some(bridge) = &self.bridges.remoting else { return told };
        let mut watch = Watch::new(
            "Remoting",
            &*self.clock,
            self.mailbox.life(),
            told,
            &mut self.metrics.remoting,
            &mut self.faults,
        );
        for event in events {
            match event {
                ProvisioningEvent::RemoteTopology(event) => _ = watch.call(|| bridge.remote_topology(event)),
                ProvisioningEvent::RemotingWarning(warning) => _ = watch.call(|| bridge.warning(warning)),
                ProvisioningEvent::StreamEnded(end) => _ = watch.call(|| bridge.stream_ended(end)),
                ProvisioningEvent::GateChanged(change) => _ = watch.call(|| bridge.gate_changed(change)),
                _ => {}
            }
        }
        watch.finish(self.slow_limit)
    }
}

/// Watches over the callbacks of one bridge in one tick.
struct Watch<'a> {
    name: &'static str,
    clock: &'a dyn Clock,
    life: &'a Lifecycle,
    /// When the last callback of the bridge before returned: this one's first begins with it.
    before: Option<Timestamp>,
    started: Option<Timestamp>,
    metrics: &'a mut BridgeMetrics,
    faults: &'a mut Vec<ProvisioningError>,
}

impl<'a> Watch<'a> {
    fn new(
        name: &'static str,
        clock: &'a dyn Clock,
        life: &'a Lifecycle,
        before: Option<Timestamp>,
        metrics: &'a mut BridgeMetrics,
        faults: &'a mut Vec<ProvisioningError>,
    ) -> Self {
        Self { name, clock, life, before, started: None, metrics, faults }
    }

    /// Runs a callback, unless the hub is to stop; `None` if it did not run, or panicked. The bridge's own state may then
    /// be half changed, which is the bridge's business: ours is untouched.
    fn call<T>(&mut self, callback: impl FnOnce() -> T) -> Option<T> {
        if !self.life.begin_callback() {
            return None;
        }
        self.started.get_or_insert_with(|| self.before.unwrap_or_else(|| self.clock.now()));
        let outcome = caught(callback);
        self.life.end_callback();
        match outcome {
            Ok(value) => Some(value),
            Err(panic) => {
                self.metrics.panics += 1;
                let detail = format!("{}: {panic}", self.name);
                self.faults.push(ProvisioningError::new(ErrorCode::BridgePanicked, "calling a bridge", detail));
                None
            }
        }
    }

    /// When the last callback returned; that of the bridge before if this one had none.
    fn finish(self, slow_limit: Duration) -> Option<Timestamp> {
        let Some(started) = self.started else { return self.before };
        let ended = self.clock.now();
        let duration = ended.since(started);
        self.metrics.duration.record(duration);
        if duration > slow_limit {
            self.metrics.slow += 1;
            let detail = format!("{} took {duration:?}, over the limit of {slow_limit:?}", self.name);
            self.faults.push(ProvisioningError::new(ErrorCode::BridgeSlow, "calling a bridge", detail));
        }
        Some(ended)
    }
}
