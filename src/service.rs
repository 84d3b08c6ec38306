//! The service: wires registry, hub, streams and registrations together, owns the threads, and shuts them down.
//!
//! Holds no rules of its own: what a definition must satisfy is the registry's, what is delivered the hub's.

mod builder;
mod pending;
mod progress;
mod provider_set;
#[cfg(not(any(test, feature = "testkit")))]
mod registrar;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod registrar;
mod registration;
#[cfg(not(any(test, feature = "testkit")))]
mod roster;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod roster;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

pub use builder::ServiceBuilder;
use progress::Progress;
use provider_set::ProviderSet;

use crate::error::{ErrorCode, ProvisioningError};
use crate::event::{PauseReason, PlacementGate};
use crate::hub::ProviderWatchHub;
use crate::hub::lifecycle::Phase;
use crate::id::ProviderId;
use crate::provider::ProviderDescriptor;
use crate::registry::{Enablement, ProviderEntry};
use crate::sync::{Mutex, lock};
use crate::text::line::log_line;
use crate::topology::{ClusterNode, ProviderSnapshot};
use crate::validator::ValidationReport;

/// How long a shutdown waits for the hub's thread and for the streams' threads, all in all, before it leaves them to end
/// by themselves. Less than the 100 ms that are promised: waking up takes time, too.
const STOP_PATIENCE: Duration = Duration::from_millis(90);

/// A running service. Made by [`ClusterProvisioningService::builder`]; dropping it shuts it down.
///
/// Everything that reads or orders goes through [`hub`](Self::hub), which can be cloned and handed out. Reads wait for
/// nothing, whatever else is under way; what waits for a backend or for the hub fails at once inside a callback
/// ([`ErrorCode::WouldBlock`]).
pub struct ClusterProvisioningService {
    hub: ProviderWatchHub,
    providers: Arc<ProviderSet>,
    /// Disconnects when the hub's thread and all streams' threads have ended.
    threads_ended: Receiver<()>,
    hub_thread: Mutex<Option<JoinHandle<()>>>,
    progress: Arc<Progress>,
    leave_budget: Duration,
}

impl ClusterProvisioningService {
    /// Starts to set up a service.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::new()
    }

    /// The handle to read from and to order with.
    pub fn hub(&self) -> &ProviderWatchHub {
        &self.hub
    }

    /// Waits until placement may begin: a snapshot with members was delivered.
    ///
    /// # Errors
    /// [`ErrorCode::WaitTimedOut`], saying what is missing, if the time is over first; [`ErrorCode::WouldBlock`] inside a
    /// callback of the hub; [`ErrorCode::Draining`] or [`ErrorCode::Stopped`] if it will not happen any more.
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), ProvisioningError> {
        self.wait("waiting until placement may begin".into(), timeout, |_| true).map(drop)
    }

    /// Waits until placement may begin with at least so many members, blocked ones included; the snapshot that has them.
    ///
    /// # Errors
    /// As for [`wait_ready`](Self::wait_ready).
    pub fn wait_for_members(
        &self,
        count: usize,
        timeout: Duration,
    ) -> Result<Arc<ProviderSnapshot>, ProvisioningError> {
        self.wait_for(format!("{count} members"), timeout, |snapshot| snapshot.members.len() >= count)
    }

    /// Waits until placement may begin with a snapshot that `wanted` accepts; that snapshot. `wanted` is asked on the calling
    /// thread, after each change. `what`: what is waited for, in the words of an error.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use cluster_provisioning::*;
    /// # fn wait(service: &ClusterProvisioningService) -> Result<(), ProvisioningError> {
    /// let enough = |snapshot: &ProviderSnapshot| snapshot.usable_of_kind("worker").count() >= 3;
    /// let snapshot = service.wait_for("three workers", Duration::from_secs(30), enough)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`wait_ready`](Self::wait_ready).
    pub fn wait_for(
        &self,
        what: impl fmt::Display,
        timeout: Duration,
        wanted: impl FnMut(&ProviderSnapshot) -> bool,
    ) -> Result<Arc<ProviderSnapshot>, ProvisioningError> {
        self.wait(format!("waiting for {what}").into(), timeout, wanted)
    }

    fn wait(
        &self,
        doing: Cow<'static, str>,
        timeout: Duration,
        mut wanted: impl FnMut(&ProviderSnapshot) -> bool,
    ) -> Result<Arc<ProviderSnapshot>, ProvisioningError> {
        self.hub.forbid_in_callback(doing.clone())?;
        let deadline = Instant::now().checked_add(timeout);
        loop {
            self.hub.forbid_while_draining(doing.clone())?;
            let position = self.hub.position();
            let found = self.hub.snapshot().filter(|_| self.hub.gate().is_open());
            // Asked while nothing is held: it is the caller's code, and may take long.
            if let Some(snapshot) = found.filter(|snapshot| wanted(snapshot)) {
                return Ok(snapshot);
            }
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            let moved = || self.hub.position() != position || self.hub.mailbox.life().phase() > Phase::Running;
            if !self.progress.wait(left, moved) {
                return Err(ProvisioningError::new(ErrorCode::WaitTimedOut, doing, self.what_is_missing(timeout)));
            }
        }
    }

    /// Why a wait of that length was in vain.
    fn what_is_missing(&self, timeout: Duration) -> String {
        let mut missing = match self.hub.latest_snapshot() {
            Err(error) => format!("after {timeout:?}: [{}] {}", error.code(), error.detail()),
            Ok(snapshot) => {
                format!("after {timeout:?}: placement is {}, with {} members", self.hub.gate(), snapshot.members.len())
            }
        };
        for entry in self.registered().iter() {
            if let Enablement::Pending { reason } = &entry.status {
                missing += &format!("; pending: {} ({})", entry.descriptor.id, reason.code());
            }
        }
        missing
    }

    /// Registers another provider: validated, its backend asked, stored, then in force. One that cannot watch is accepted
    /// as disabled, with a warning. Blocks for as long as the backend is asked (5 s by default), and while another change
    /// is under way.
    ///
    /// # Errors
    /// As for [`ProviderRegistry::register`](crate::ProviderRegistry::register), [`ErrorCode::WouldBlock`] inside a callback of
    /// the hub, and
    /// [`ErrorCode::Draining`], also where draining begins meanwhile; the set in force is then unchanged.
    pub fn register(&self, descriptor: ProviderDescriptor) -> Result<(), ProvisioningError> {
        let now = self.hub.clock.now();
        self.providers.change("registering a provider", |registry, cancel| registry.register(descriptor, now, cancel))
    }

    /// Removes a provider. If it is the one followed, another is, in the same tick.
    ///
    /// # Errors
    /// As for [`ProviderRegistry::remove`](crate::ProviderRegistry::remove), [`ErrorCode::WouldBlock`] inside a callback of
    /// the hub, and
    /// [`ErrorCode::Draining`].
    pub fn remove(&self, id: &ProviderId) -> Result<(), ProvisioningError> {
        self.providers.change("removing a provider", |registry, _| registry.remove(id))
    }

    /// Replaces the whole set of providers: validated away from the hub, stored, then switched in one tick. Unchanged
    /// providers keep their watch and their data. One that is defined anew under its name keeps pin, place, belief and
    /// health until its own stream has shown something, and the local node is registered by its new definition before the
    /// former one lets go. Blocks for as long as the new backends are asked (5 s by default), and while another change is
    /// under way.
    ///
    /// # Errors
    /// As for [`ProviderRegistry::replace_all`](crate::ProviderRegistry::replace_all), [`ErrorCode::WouldBlock`] inside a callback of
    /// the hub, and
    /// [`ErrorCode::Draining`]; the old set is then wholly in force.
    /// [`ErrorCode::WaitTimedOut`] if a callback holds the hub up for 30 s: the new set is stored then, and comes into
    /// force when the hub gets to it, or with the next change or start.
    pub fn reload(&self, definitions: Vec<ProviderDescriptor>) -> Result<(), ProvisioningError> {
        let now = self.hub.clock.now();
        self.providers
            .change("reloading the providers", |registry, cancel| registry.replace_all(definitions, now, cancel))
    }

    /// Describes the local node anew: it has the kinds and metadata of `node` from now on, with every provider that registers
    /// it. Its id, address, port and incarnation stay, whatever `node` says of them. Returns at once; a provider that cannot
    /// carry what the node is described as keeps it registered as it was, with a warning.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidNode`] in client mode, which has no node, and where `node` has another id; and [`ErrorCode::Draining`].
    pub fn describe(&self, node: &ClusterNode) -> Result<(), ProvisioningError> {
        let doing = "describing the local node anew";
        self.hub.forbid_while_draining(doing)?;
        let refused =
            |detail: String| Err(ProvisioningError::new(ErrorCode::InvalidNode, doing, detail).with_field("id"));
        match self.hub.local_node() {
            None => refused("in client mode there is no local node".to_owned()),
            Some(local) if local.id() != node.id() => {
                refused(format!("the local node is {}, and not {}", local.id(), node.id()))
            }
            Some(_) => {
                self.hub.local_node.describe(node);
                Ok(())
            }
        }
    }

    /// Judges a definition as [`register`](Self::register) would, without changing anything and without counting as a
    /// failure. Its backend is asked if `connectivity` is set, which blocks; nothing else waits for it.
    ///
    /// # Errors
    /// [`ErrorCode::WouldBlock`] inside a callback of the hub. What is wrong with the definition is in the report.
    pub fn validate(
        &self,
        descriptor: &ProviderDescriptor,
        connectivity: bool,
    ) -> Result<ValidationReport, ProvisioningError> {
        self.hub.forbid_in_callback("validating a provider")?;
        Ok(self.providers.judge(descriptor, connectivity))
    }

    /// The registered providers, in the order of registration, with why some of them are disabled: as the last change
    /// left them. Waits for nothing.
    pub fn registered(&self) -> Arc<Vec<ProviderEntry>> {
        self.providers.entries()
    }

    /// Lifts the suppression of enabling providers; whether there was one. Waits for nothing.
    pub fn lift_suppression(&self) -> bool {
        self.providers.lift_suppression()
    }

    /// Begins to drain, irreversibly: from here on no snapshot, join or switch is delivered, placement pauses, and the
    /// last snapshot stays readable; changes and checks under way are broken off; the local node is deregistered
    /// everywhere, within the budget (2 s by default).
    ///
    /// # Errors
    /// [`ErrorCode::WouldBlock`] inside a callback of the hub; why the local node could not be deregistered in time, when
    /// it leaves by expiry; [`ErrorCode::WaitTimedOut`] if a callback keeps the hub from getting to it within the budget.
    /// Draining has begun nevertheless, and [`gate`](ProviderWatchHub::gate) says so. [`ErrorCode::Stopped`] if the hub's
    /// thread has ended.
    pub fn drain(&self) -> Result<(), ProvisioningError> {
        let doing = "draining";
        self.hub.forbid_in_callback(doing)?;
        let deadline = Instant::now() + self.leave_budget;
        self.leave()?;
        if self.await_drained(deadline.saturating_duration_since(Instant::now())) {
            return Ok(());
        }
        Err(match self.hub.mailbox.life().phase() {
            Phase::Failed => ProvisioningError::new(ErrorCode::Stopped, doing, "the hub's thread has ended"),
            _ => {
                let detail = "draining has begun, but a callback keeps the hub from telling it";
                let error = ProvisioningError::new(ErrorCode::WaitTimedOut, doing, detail);
                error.with_advice("look for a bridge's callback that does not return")
            }
        })
    }

    /// Drains, ends every stream and stops: no callback begins when this has returned. Returns after the budget of
    /// deregistration and 100 ms at the latest, whatever the hub or a stream does; what is stuck in a connect, or in a
    /// callback, ends by itself later. Dropping the service does the same.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Begins to drain, and deregisters the local node.
    fn leave(&self) -> Result<(), ProvisioningError> {
        // The hub hears of it before the departure of the local node can reach it as a change.
        self.hub.mailbox.drain();
        self.progress.tick();
        self.providers.break_off();
        self.providers.registrations().leave_all()
    }

    /// Waits until the hub has told that it drains, or until it has ended; whether it has told it.
    fn await_drained(&self, timeout: Duration) -> bool {
        let draining = PlacementGate::Paused(PauseReason::Draining);
        self.progress.wait(timeout, || {
            let state = self.hub.publication.load();
            state.gate == draining || state.stopped
        });
        self.hub.publication.load().gate == draining
    }

    fn stop(&self) {
        if let Err(error) = self.leave() {
            log_line!(Warn, "{error}");
        }
        // Also when the service is dropped inside a callback, or while one hangs: whatever is not through in time is left
        // behind.
        let deadline = Instant::now() + STOP_PATIENCE;
        let inside = self.hub.is_hub_thread();
        if !inside {
            self.await_drained(STOP_PATIENCE / 2);
        }
        let left = || if inside { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        self.hub.mailbox.stop(left());
        self.progress.tick();
        _ = self.threads_ended.recv_timeout(left());
        let thread = lock(&self.hub_thread).take();
        if let Some(thread) = thread.filter(JoinHandle::is_finished) {
            // Its panic, if there was one, was reported by its own thread.
            _ = thread.join();
        }
    }
}

impl Drop for ClusterProvisioningService {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for ClusterProvisioningService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterProvisioningService").field("hub", &self.hub).finish_non_exhaustive()
    }
}
