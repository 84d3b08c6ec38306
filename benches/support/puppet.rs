//! A running service whose providers do as they are told, and whose bridges say when they were called.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cluster_provisioning::*;
use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::{Samples, nanos};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a stream is told to do.
enum Order {
    /// One event.
    Once(ProviderEvent),
    /// Events one after the other, each as soon as the last callback of the one before was made.
    Batch(Batch),
}

struct Batch {
    left: usize,
    /// Makes the next event, before its time is taken.
    make: Box<dyn FnMut() -> ProviderEvent + Send>,
    /// How long to sleep before each.
    pause: Duration,
    /// The callback of the last event is not made yet.
    under_way: bool,
}

/// What the providers, the bridges and the bench share.
struct Stage {
    /// When the event under way was about to be returned.
    stamp: AtomicU64,
    latencies: Mutex<Samples>,
    /// From the last callback to whoever reports the next event.
    called: (Sender<()>, Receiver<()>),
    over: (Sender<()>, Receiver<()>),
}

impl Stage {
    fn wait(&self) {
        self.called.1.recv_timeout(PATIENCE).expect("the callback of the event under way");
    }

    fn latencies(&self) -> MutexGuard<'_, Samples> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One provider, and how it is told.
pub struct Puppet {
    descriptor: ProviderDescriptor,
    stage: Arc<Stage>,
    orders: (Sender<Order>, Receiver<Order>),
    /// What its next stream shows first.
    shows: Mutex<Members>,
}

impl Puppet {
    /// Reports that many events and returns how long each took to the last callback. Each has to lead to exactly one call
    /// of Remoting.
    pub fn run(&self, events: usize, pause: Duration, make: impl FnMut() -> ProviderEvent + Send + 'static) -> Samples {
        // One more, to be left out: it finds threads and caches asleep.
        let batch = Batch { left: events + 1, make: Box::new(make), pause, under_way: false };
        _ = self.orders.0.send(Order::Batch(batch));
        self.stage.over.1.recv_timeout(PATIENCE).expect("the end of the batch");
        let mut samples = std::mem::take(&mut *self.stage.latencies());
        samples.0.remove(0);
        samples
    }

    /// Reports one event, which may end the stream, and returns how long it took to the last callback.
    pub fn once(&self, event: ProviderEvent) -> Duration {
        _ = self.orders.0.send(Order::Once(event));
        self.stage.wait();
        self.stage.latencies().0.pop().expect("the callback's time")
    }

    /// What its next stream begins with.
    pub fn show_next(&self, members: Members) {
        *self.shows.lock().unwrap_or_else(PoisonError::into_inner) = members;
    }
}

/// A whole set, as an event.
pub fn snapshot(members: Members) -> ProviderEvent {
    ProviderEvent::Snapshot { members, revision: Revision::NONE, skipped: 0 }
}

/// One change, as an event.
pub fn change(change: MemberChange) -> ProviderEvent {
    ProviderEvent::Changes { changes: vec![change], revision: Revision::NONE }
}

struct PuppetProvider(Arc<Puppet>);

impl ClusterProvider for PuppetProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.0.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::WATCH
    }

    fn refresh_interval(&self) -> Option<Duration> {
        None
    }

    fn check_connectivity(&self, _: &CancelToken) -> Result<(), ProvisioningError> {
        Ok(())
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        let puppet = Arc::clone(&self.0);
        let members = puppet.shows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Box::new(PuppetStream { puppet, cancel: cancel.clone(), first: Some(snapshot(members)), batch: None }))
    }
}

struct PuppetStream {
    puppet: Arc<Puppet>,
    cancel: CancelToken,
    first: Option<ProviderEvent>,
    batch: Option<Batch>,
}

impl PuppetStream {
    fn next_of_batch(&mut self) -> Option<ProviderEvent> {
        let batch = self.batch.as_mut()?;
        let stage = &self.puppet.stage;
        if std::mem::take(&mut batch.under_way) {
            stage.wait();
        }
        if batch.left == 0 {
            self.batch = None;
            _ = stage.over.0.send(());
            return None;
        }
        batch.left -= 1;
        batch.under_way = true;
        let event = (batch.make)();
        if !batch.pause.is_zero() {
            thread::sleep(batch.pause);
        }
        stage.stamp.store(nanos(), Ordering::Release);
        Some(event)
    }
}

impl ProviderStream for PuppetStream {
    fn next(&mut self) -> ProviderEvent {
        if let Some(first) = self.first.take() {
            return first;
        }
        loop {
            if let Some(event) = self.next_of_batch() {
                return event;
            }
            select! {
                recv(self.puppet.orders.1) -> order => match order {
                    Ok(Order::Once(event)) => {
                        self.puppet.stage.stamp.store(nanos(), Ordering::Release);
                        return event;
                    }
                    Ok(Order::Batch(batch)) => self.batch = Some(batch),
                    Err(_) => return ProviderEvent::Terminated(ProviderTermination::Ended),
                },
                recv(self.cancel.receiver()) -> _ => return ProviderEvent::Terminated(ProviderTermination::Ended),
                default(Duration::from_secs(2)) => return ProviderEvent::Heartbeat { current: true },
            }
        }
    }
}

struct PuppetFactory(Vec<Arc<Puppet>>);

impl ProviderFactory for PuppetFactory {
    fn kind(&self) -> ProviderKind {
        kind()
    }

    fn validate(&self, _: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Ok(())
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        _: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let puppet = self.0.iter().find(|puppet| puppet.descriptor == *descriptor).expect("one of ours");
        Ok(Arc::new(PuppetProvider(Arc::clone(puppet))))
    }
}

fn kind() -> ProviderKind {
    ProviderKind::new("puppet").expect("a valid kind")
}

/// Bridges that look at what they get, as hosts do, and order nothing.
struct Bridges(Arc<Stage>);

impl PlacementSupervisorBridge for Bridges {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) -> Vec<OwnershipChange> {
        std::hint::black_box((delivery.snapshot.members.len(), delivery.diff.len()));
        Vec::new()
    }

    fn provider_changed(&self, _: &ProviderChanged) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

impl PartitionManagerBridge for Bridges {
    fn apply_snapshot(&self, delivery: &SnapshotDelivery) {
        std::hint::black_box((delivery.snapshot.members.len(), delivery.diff.len()));
    }

    fn provider_changed(&self, _: &ProviderChanged) {}

    fn stream_ended(&self, _: &StreamEnded) {}

    fn publish_leases(&self, _: &LeaseUpdate) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

impl RemotingBridge for Bridges {
    /// The last callback of an event that brings or takes one node.
    fn remote_topology(&self, _: &RemoteTopologyEvent) {
        let stamp = self.0.stamp.swap(0, Ordering::AcqRel);
        // Zero: nobody waits for this one; it comes from a stream's first snapshot.
        if stamp > 0 {
            let latency = Duration::from_nanos(nanos() - stamp);
            self.0.latencies().push(latency);
            _ = self.0.called.0.send(());
        }
    }

    fn warning(&self, _: &RemotingWarning) {}

    fn gate_changed(&self, _: &GateChanged) {}
}

/// The service with its puppets.
pub struct Theatre {
    pub service: ClusterProvisioningService,
    pub puppets: Vec<Arc<Puppet>>,
}

impl Theatre {
    /// A service with one provider for each set, all of one priority, without coalescing and with next to no backoff;
    /// ready, and with every provider healthy.
    pub fn new(sets: &[Members]) -> Self {
        let stage = Arc::new(Stage {
            stamp: AtomicU64::new(0),
            latencies: Mutex::default(),
            called: bounded(16),
            over: bounded(1),
        });
        let puppet = |(number, members): (usize, &Members)| {
            let descriptor = ProviderDescriptor::new(format!("p{number}"), kind()).expect("a valid name");
            let (stage, shows) = (Arc::clone(&stage), Mutex::new(members.clone()));
            Arc::new(Puppet { descriptor, stage, orders: bounded(16), shows })
        };
        let puppets: Vec<_> = sets.iter().enumerate().map(puppet).collect();
        let bridges = Arc::new(Bridges(Arc::clone(&stage)));
        // Whoever comes and goes in turn is to be told each time.
        let mut policy = FailoverPolicy::default().flap_damping(None);
        policy.backoff_initial = Duration::from_millis(1);
        policy.backoff_max = Duration::from_millis(1);
        let mut builder = ClusterProvisioningService::builder()
            .factory(Arc::new(PuppetFactory(puppets.clone())))
            .placement_supervisor(bridges.clone())
            .partition_manager(bridges.clone())
            .remoting(bridges)
            .coalescing(Duration::ZERO)
            .failover(policy);
        for puppet in &puppets {
            builder = builder.provider(puppet.descriptor.clone());
        }
        let service = builder.start().expect("a service");
        service.wait_ready(PATIENCE).expect("a service that is ready");
        let theatre = Self { service, puppets };
        theatre.settle();
        theatre
    }

    /// Waits until every provider is healthy and the hub is done with whatever it was at.
    pub fn settle(&self) {
        let healthy = || self.service.hub().providers().iter().all(|status| status.health == ProviderHealth::Healthy);
        while !healthy() {
            thread::sleep(Duration::from_millis(1));
        }
        // Any command: its ticket comes when its tick is through.
        self.service.hub().unpin().wait(PATIENCE).expect("the hub's answer");
    }

    /// Which provider is followed.
    pub fn active(&self) -> usize {
        let active = self.service.hub().active_provider().expect("one is followed");
        self.puppets.iter().position(|puppet| puppet.descriptor.id == active).expect("one of ours")
    }
}

/// One thread sends, another is blocked in `recv`: how long that takes, in the way in which events are measured. The
/// receiver answers, and the sender sleeps for the pause before the next.
pub fn hops(count: usize, pause: Duration) -> Samples {
    let (sender, receiver) = bounded::<u64>(4096);
    let (answer, answers) = bounded::<()>(16);
    let reader = thread::spawn(move || {
        let mut samples = Samples::default();
        while let Ok(stamp) = receiver.recv() {
            samples.push(Duration::from_nanos(nanos() - stamp));
            _ = answer.send(());
        }
        samples
    });
    for _ in 0..=count {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        _ = sender.send(nanos());
        _ = answers.recv();
    }
    drop(sender);
    let mut samples = reader.join().expect("the reader's samples");
    samples.0.remove(0);
    samples
}
