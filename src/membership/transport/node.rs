//! How the rest of the process speaks to the thread that carries a member's messages.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::carrier::Carrier;
use super::envelope::Envelope;
use super::frame::Reason;
use super::resident::{Onlooker, Resident};
use super::sockets::Sockets;
use crate::backoff::Jitter;
use crate::clock::{Clock, Timestamp};
use crate::membership::event::Event;
use crate::membership::lifecycle::{Membership, NotDone};
use crate::membership::machine::{Input, Order};
use crate::membership::metrics::GossipMetrics;
use crate::membership::observer::Observer;
use crate::membership::place::Place;
use crate::membership::quarantine::Quarantined;
use crate::membership::record::Life;
use crate::membership::sealing::OVERHEAD;
use crate::membership::sealing::keyring::Keyring;
use crate::membership::settings::Settings;
use crate::membership::settling::TopologyUpdate;
use crate::membership::table::Refused;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, lock};
use crate::thread::Thread;
#[cfg(test)]
use crate::topology::Members;
use crate::topology::{ClusterNode, NodeId};

/// Who is told what happens, on the node's thread. It must not block.
pub(crate) trait Host: Send {
    /// The topology has changed.
    ///
    /// # Errors
    /// Why it could not be applied: it is offered again later.
    fn apply(&mut self, update: &TopologyUpdate) -> Result<(), String>;

    /// Something has happened.
    fn tell(&mut self, event: Event);

    /// Whoever was asked there does not take what this node asks.
    fn refused_by(&mut self, by: SocketAddr, reason: Reason);

    /// An observer is told by that member; absent: by nobody.
    fn follows(&mut self, member: Option<Place>);

    /// The name of a seed was looked up, and not found.
    fn not_found(&mut self, host: &str, why: &str);
}

/// How a node stands.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It asks to be let in, or is told by nobody.
    Outside,
    /// It is a member, or is told by one.
    Inside,
    /// It has ended.
    Ended,
}

/// What the thread has kept away from the member. Each is as of the last round.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) dropped: AtomicU64,
    pub(super) turned_away: AtomicU64,
}

/// What the thread and those who speak to it share.
pub(super) struct Shared {
    pub(super) resident: Mutex<Resident>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counted: Counted,
    /// Other keys that were set and not taken over yet.
    pub(super) keys: Mutex<Option<Keyring>>,
    /// Those that were set and not taken over yet.
    pub(super) seeds: Mutex<Option<Vec<Place>>>,
    /// A byte wakes the thread.
    wake: UnixStream,
    /// The thread ends at once, whatever the resident wants.
    stop: AtomicBool,
}

impl Shared {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn wake(&self) {
        // Where there is no room for another byte the thread is woken already.
        _ = (&self.wake).write(&[1]);
    }
}

/// A running member or observer. Dropping it ends it without a farewell.
pub(crate) struct Node {
    shared: Arc<Shared>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    port: Option<u16>,
}

impl Node {
    /// A member on that address and port; with port 0 on any. Where there are keys, what it says is sealed. Its membership is
    /// reached at the node's own address and that port, or the one that is advertised. `counts`: whether there are metrics. `seeds`: whom it asks to be let in, by
    /// address or name.
    ///
    /// # Errors
    /// The system's, where there is no socket or no thread; [`NotDone`] where the member cannot be started.
    pub(crate) fn member(
        (mut settings, counts, keys): (Settings, bool, Option<Keyring>),
        (node, advertised): (Arc<ClusterNode>, Option<u16>),
        bind: SocketAddr,
        seeds: Vec<Place>,
        clock: &Arc<dyn Clock>,
        host: Box<dyn Host>,
    ) -> io::Result<Result<Self, NotDone>> {
        let sockets = Sockets::bind(bind)?;
        let port = sockets.port()?;
        let envelope = Envelope::new(&settings.label, node.id().clone(), keys, clock.now())?;
        if matches!(envelope, Envelope::Sealed { .. }) {
            settings.datagram -= OVERHEAD;
        }
        let mut membership = Box::new(Membership::new(settings, counts));
        let reached = advertised.unwrap_or(port);
        if let Err(why) = membership.start((node, reached), seeds.clone(), seed(), clock.now()) {
            return Ok(Err(why));
        }
        Self::run(Resident::Member(membership), Some((sockets, port)), seeds, envelope, clock, host).map(Ok)
    }

    /// Whether a member could listen there.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn can_listen(bind: SocketAddr) -> io::Result<()> {
        Sockets::bind(bind).map(drop)
    }

    /// An observer of the cluster of that label, which has these keys.
    ///
    /// # Errors
    /// The system's, where there is no thread.
    pub(crate) fn observer(
        (label, keys): (&str, Option<Keyring>),
        own: Life,
        seeds: Vec<Place>,
        clock: &Arc<dyn Clock>,
        host: Box<dyn Host>,
    ) -> io::Result<Self> {
        let envelope = Envelope::new(label, own.id.clone(), keys, clock.now())?;
        let observer = Observer::new(label, own, seeds.clone(), seed(), clock.now());
        Self::run(Resident::Observer(Box::new(Onlooker::new(observer))), None, seeds, envelope, clock, host)
    }

    fn run(
        resident: Resident,
        bound: Option<(Sockets, u16)>,
        seeds: Vec<Place>,
        envelope: Envelope,
        clock: &Arc<dyn Clock>,
        host: Box<dyn Host>,
    ) -> io::Result<Self> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (alive, ended) = bounded(0);
        let shared = Arc::new(Shared {
            resident: Mutex::new(resident),
            clock: Arc::clone(clock),
            counted: Counted::default(),
            keys: Mutex::new(None),
            seeds: Mutex::new(None),
            wake,
            stop: AtomicBool::new(false),
        });
        let (sockets, port) = bound.unzip();
        let carrier = Carrier::new(Arc::clone(&shared), sockets, woken, seeds, envelope, host);
        Thread::Gossip.spawn(move || {
            carrier.run();
            drop(alive);
        })?;
        Ok(Self { shared, ended, port })
    }

    /// The port at which a member is reached.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Where it stands, and who the members are.
    #[cfg(test)]
    pub(super) fn standing(&self) -> (Standing, Members) {
        let resident = lock(&self.shared.resident);
        let standing = match &*resident {
            Resident::Member(membership) => match membership.machine() {
                None => Standing::Ended,
                Some(machine) if machine.is_member() => Standing::Inside,
                Some(_) => Standing::Outside,
            },
            Resident::Observer(_) if self.shared.is_stopped() => Standing::Ended,
            Resident::Observer(onlooker) if onlooker.observer().follows().is_some() => Standing::Inside,
            Resident::Observer(_) => Standing::Outside,
        };
        (standing, resident.members().clone())
    }

    /// The member's own node as it is told to others: its incarnation may have risen since the start.
    pub(crate) fn own(&self) -> Option<Arc<ClusterNode>> {
        self.ask(|membership, _| membership.machine().map(|machine| Arc::clone(machine.own().node()))).flatten()
    }

    /// Everybody who would not be let in now.
    pub(crate) fn quarantined(&self) -> Vec<Quarantined> {
        self.ask(|membership, now| membership.quarantined(now)).unwrap_or_default()
    }

    /// Since when all members are known to hold the same.
    pub(crate) fn converged(&self) -> Option<Timestamp> {
        self.ask(|membership, _| membership.converged()).flatten()
    }

    /// What was counted.
    ///
    /// # Errors
    /// [`NotDone::MetricsDisabled`]; [`NotDone::NotStarted`] of an observer.
    pub(crate) fn metrics(&self) -> Result<GossipMetrics, NotDone> {
        let counted = self.ask(|membership, _| membership.metrics()).unwrap_or(Err(NotDone::NotStarted))?;
        let kept_away = &self.shared.counted;
        Ok(GossipMetrics {
            datagrams_dropped: kept_away.dropped.load(Ordering::Relaxed),
            connections_turned_away: kept_away.turned_away.load(Ordering::Relaxed),
            ..counted
        })
    }

    /// The transitions that were refused last, the oldest first.
    pub(crate) fn refused(&self) -> Vec<Refused> {
        self.ask(|membership, _| membership.refused()).unwrap_or_default()
    }

    /// Other keys from now on; nothing where there were none at the start.
    pub(crate) fn set_keys(&self, keys: Keyring) {
        *lock(&self.shared.keys) = Some(keys);
        self.shared.wake();
    }

    /// The seeds are others from now on.
    pub(crate) fn set_seeds(&self, seeds: Vec<Place>) {
        *lock(&self.shared.seeds) = Some(seeds);
        self.shared.wake();
    }

    /// An order to the member.
    ///
    /// # Errors
    /// [`NotDone`]; an observer is never started as a member.
    pub(crate) fn rule(&self, id: NodeId, order: Order) -> Result<(), NotDone> {
        self.order(|membership, now| match order {
            Order::Pin(length) => membership.pin(id, length, now),
            Order::Lift => membership.lift(id, now),
        })
    }

    /// The member has these kinds and metadata from now on.
    ///
    /// # Errors
    /// [`NotDone`].
    pub(crate) fn describe(&self, node: Arc<ClusterNode>) -> Result<(), NotDone> {
        self.order(|membership, now| membership.describe(node, now))
    }

    /// The program has found that the other node does not answer.
    ///
    /// # Errors
    /// [`NotDone`].
    pub(crate) fn accuse(&self, id: NodeId) -> Result<(), NotDone> {
        self.order(|membership, now| membership.handle(now, Input::Evidence(id)))
    }

    fn order(&self, order: impl FnOnce(&mut Membership, Timestamp) -> Result<(), NotDone>) -> Result<(), NotDone> {
        let done = self.ask(order).unwrap_or(Err(NotDone::NotStarted));
        self.shared.wake();
        done
    }

    fn ask<T>(&self, ask: impl FnOnce(&mut Membership, Timestamp) -> T) -> Option<T> {
        let now = self.shared.clock.now();
        match &mut *lock(&self.shared.resident) {
            Resident::Member(membership) => Some(ask(membership, now)),
            Resident::Observer(_) => None,
        }
    }

    /// The member leaves, and an observer ends; whether the thread has ended within that time. Members are told, and one of
    /// them is waited for, for a second at the most.
    pub(crate) fn leave(&self, within: Duration) -> bool {
        if self.order(Membership::stop).is_err() {
            self.stop();
        }
        self.wait(within)
    }

    /// The thread ends soon, and nobody is told.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// Whether the thread has ended, within that time.
    pub(crate) fn wait(&self, within: Duration) -> bool {
        matches!(self.ended.recv_timeout(within), Err(RecvTimeoutError::Disconnected))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Of a node's randomness: another one each time.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    let now = Instant::now();
    Jitter::new(RandomState::new().hash_one(now)).next()
}
