//! The order of a tick: PlacementSupervisor, PartitionManager, Remoting, subscribers, published state.
//!
//! Calls the bridges on the hub's thread and keeps one that panics from taking the hub along. Holds no rules of its own
//! but that order.

use std::sync::Arc;
use std::time::Duration;

use super::core::HubCore;
use super::{Publication, Tick};
use crate::bridge::{PartitionManagerBridge, PlacementSupervisorBridge, RemotingBridge};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{OwnershipChange, ProvisioningEvent, Publisher};
use crate::metrics::{BridgeMetrics, ProvisioningMetrics};
use crate::panics::caught;

/// The host's bridges. Any of them may be missing.
#[derive(Clone, Default)]
pub(crate) struct Bridges {
    pub(crate) placement_supervisor: Option<Arc<dyn PlacementSupervisorBridge>>,
    pub(crate) partition_manager: Option<Arc<dyn PartitionManagerBridge>>,
    pub(crate) remoting: Option<Arc<dyn RemotingBridge>>,
}

/// Carries ticks out.
pub(crate) struct Dispatcher {
    bridges: Bridges,
    publisher: Publisher<Arc<ProvisioningEvent>>,
    publication: Publication,
    clock: Arc<dyn Clock>,
    /// A bridge that takes longer than this in one tick is reported.
    slow_limit: Duration,
    metrics: ProvisioningMetrics,
    faults: Vec<ProvisioningError>,
}

impl Dispatcher {
    pub(crate) fn new(
        bridges: Bridges,
        publisher: Publisher<Arc<ProvisioningEvent>>,
        publication: Publication,
        clock: Arc<dyn Clock>,
        slow_limit: Duration,
    ) -> Self {
        Self {
            bridges,
            publisher,
            publication,
            clock,
            slow_limit,
            metrics: ProvisioningMetrics::default(),
            faults: Vec::new(),
        }
    }

    /// Delivers what a tick has decided, in order, and publishes the state. `stamp`: when the tick's input was sent, if
    /// it had one.
    pub(crate) fn carry_out(&mut self, core: &mut HubCore, tick: &mut Tick, stamp: Option<Timestamp>) {
        if !tick.events.is_empty() {
            let (changes, told) = self.tell_placement_supervisor(&tick.events);
            tick.events.extend(changes.into_iter().map(|changes| core.lease(changes)));
            let told = self.tell_partition_manager(&tick.events, told);
            let told = self.tell_remoting(&tick.events, told);
            let delivers = tick.events.iter().any(|event| matches!(event, ProvisioningEvent::Snapshot(_)));
            if let Some(stamp) = tick.waited_since.or(stamp).filter(|_| delivers) {
                let told = told.unwrap_or_else(|| self.clock.now());
                self.metrics.snapshot_latency.record(told.since(stamp));
            }
            let faults = std::mem::take(&mut self.faults);
            tick.events.extend(faults.into_iter().map(|fault| core.warning(fault)));
            if self.publisher.has_subscribers() {
                for event in &tick.events {
                    self.publisher.publish(Arc::new(event.clone()));
                }
            }
        }
        self.publish(core, false);
    }

    /// Publishes the state as it is now. `stopped`: nothing follows.
    pub(crate) fn publish(&mut self, core: &mut HubCore, stopped: bool) {
        core.counters.report(&mut self.metrics);
        self.publication.store(Arc::new(core.publish(self.metrics.clone(), stopped)));
        if stopped {
            self.publisher.close();
        }
    }

    /// The ownership changes ordered, and when the last callback returned, if there was one.
    fn tell_placement_supervisor(
        &mut self,
        events: &[ProvisioningEvent],
    ) -> (Vec<Vec<OwnershipChange>>, Option<Timestamp>) {
        let Some(bridge) = &self.bridges.placement_supervisor else { return (Vec::new(), None) };
        let mut ordered = Vec::new();
        let mut watch = Watch::new(
            "PlacementSupervisor",
            &*self.clock,
            None,
            &mut self.metrics.placement_supervisor,
            &mut self.faults,
        );
        for event in events {
            match event {
                ProvisioningEvent::Snapshot(delivery) => {
                    let changes = watch.call(|| bridge.apply_snapshot(delivery)).unwrap_or_default();
                    if !changes.is_empty() {
                        ordered.push(changes);
                    }
                }
                ProvisioningEvent::ProviderChanged(change) => _ = watch.call(|| bridge.provider_changed(change)),
                ProvisioningEvent::GateChanged(change) => _ = watch.call(|| bridge.gate_changed(change)),
                _ => {}
            }
        }
        (ordered, watch.finish(self.slow_limit))
    }

    fn tell_partition_manager(&mut self, events: &[ProvisioningEvent], told: Option<Timestamp>) -> Option<Timestamp> {
        let Some(bridge) = &self.bridges.partition_manager else { return told };
        let mut watch =
            Watch::new("PartitionManager", &*self.clock, told, &mut self.metrics.partition_manager, &mut self.faults);
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
        let mut watch = Watch::new("Remoting", &*self.clock, told, &mut self.metrics.remoting, &mut self.faults);
        for event in events {
            match event {
                ProvisioningEvent::RemoteTopology(event) => _ = watch.call(|| bridge.remote_topology(event)),
                ProvisioningEvent::RemotingWarning(warning) => _ = watch.call(|| bridge.warning(warning)),
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
        before: Option<Timestamp>,
        metrics: &'a mut BridgeMetrics,
        faults: &'a mut Vec<ProvisioningError>,
    ) -> Self {
        Self { name, clock, before, started: None, metrics, faults }
    }

    /// Runs a callback; `None` if it panicked. The bridge's own state may then be half changed, which is the bridge's
    /// business: ours is untouched.
    fn call<T>(&mut self, callback: impl FnOnce() -> T) -> Option<T> {
        self.started.get_or_insert_with(|| self.before.unwrap_or_else(|| self.clock.now()));
        match caught(callback) {
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
