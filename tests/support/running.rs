//! A running service whose providers do what a test makes of each of their calls.
//!
//! Each test file uses its share of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_provisioning::testkit::{BridgeKind, FakeClock, Recorder, members};
use cluster_provisioning::*;
use crossbeam_channel::{Receiver, Sender, select, unbounded};

/// Far longer than anything takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A call of a provider's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Validate,
    Create,
    Descriptor,
    Capabilities,
    RefreshInterval,
    Connect,
    Open,
    Next,
    Cancel,
    Join,
    Renew,
    Leave,
    DropStream,
    DropProvider,
    DropRegistration,
}

type Hook = Arc<dyn Fn() + Send + Sync>;
type Flood = Arc<dyn Fn(u64) -> ProviderEvent + Send + Sync>;

/// A provider as a test plays it: the same whatever definition it has.
pub struct Role {
    events: (Sender<ProviderEvent>, Receiver<ProviderEvent>),
    state: Mutex<Part>,
}

#[derive(Default)]
struct Part {
    hooks: BTreeMap<Call, Hook>,
    calls: BTreeMap<Call, usize>,
    shows: Option<Members>,
    flood: Option<Flood>,
    /// How many events it was told to say, and how many of them the hub has by now.
    said: usize,
    handed_over: usize,
    refuses: Option<ProvisioningError>,
    refresh_interval: Option<Duration>,
    blind: bool,
    registers_nobody: bool,
    site: Option<RegistrationSite>,
    /// The time that the last `leave` was given.
    leave_budget: Option<Duration>,
}

impl Role {
    fn new() -> Arc<Self> {
        Arc::new(Self { events: unbounded(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, Part> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens inside that call from here on. It ignores cancel tokens.
    pub fn on(&self, call: Call, hook: impl Fn() + Send + Sync + 'static) {
        self.state().hooks.insert(call, Arc::new(hook));
    }

    /// Nothing happens inside that call any more.
    pub fn forget(&self, call: Call) {
        self.state().hooks.remove(&call);
    }

    /// How often that call was made.
    pub fn calls(&self, call: Call) -> usize {
        self.state().calls.get(&call).copied().unwrap_or_default()
    }

    /// Its backend does not answer, for this reason; or does again. Streams that are open go on.
    pub fn refuse(&self, error: Option<ProvisioningError>) {
        self.state().refuses = error;
    }

    /// How often its data is refreshed, as it promises.
    pub fn promise(&self, refresh_interval: Duration) {
        self.state().refresh_interval = Some(refresh_interval);
    }

    /// Where it registers the local node, and as what.
    pub fn register_at(&self, site: RegistrationSite) {
        self.state().site = Some(site);
    }

    /// It cannot watch.
    pub fn be_blind(&self) {
        self.state().blind = true;
    }

    /// It can only watch.
    pub fn register_nobody(&self) {
        self.state().registers_nobody = true;
    }

    /// The time that the last `leave` was given.
    pub fn leave_budget(&self) -> Option<Duration> {
        self.state().leave_budget
    }

    /// Its stream says this, and has handed it over when this returns.
    pub fn tell(&self, event: ProviderEvent) {
        self.say(event);
        let said = self.state().said;
        until("the stream hands over what it said", || self.state().handed_over >= said);
    }

    /// Its stream says this.
    pub fn say(&self, event: ProviderEvent) {
        let mut state = self.state();
        state.said += 1;
        _ = self.events.0.send(event);
    }

    /// Its stream shows these members, and each later one begins with them.
    pub fn show(&self, ids: &[&str]) {
        self.show_all(members(ids));
    }

    pub fn show_all(&self, members: Members) {
        self.state().shows = Some(members.clone());
        self.say(snapshot(members));
    }

    /// What asking its backend comes to.
    fn answer(&self) -> Result<(), ProvisioningError> {
        self.state().refuses.clone().map_or(Ok(()), Err)
    }

    /// Its stream says what this makes of 0, 1, 2, … one after the other, without a pause.
    pub fn flood(&self, flood: impl Fn(u64) -> ProviderEvent + Send + Sync + 'static) {
        self.state().flood = Some(Arc::new(flood));
        self.say(alive());
    }

    pub fn end_flood(&self) {
        self.state().flood = None;
    }

    fn act(&self, call: Call) {
        let hook = {
            let mut state = self.state();
            *state.calls.entry(call).or_default() += 1;
            state.hooks.get(&call).cloned()
        };
        if let Some(hook) = hook {
            hook();
        }
    }
}

pub fn snapshot(members: Members) -> ProviderEvent {
    ProviderEvent::Snapshot { members, revision: Revision::NONE, skipped: 0 }
}

pub fn change(change: MemberChange) -> ProviderEvent {
    ProviderEvent::Changes { changes: vec![change], revision: Revision::NONE }
}

/// A refresh without news.
pub fn alive() -> ProviderEvent {
    ProviderEvent::Heartbeat { current: true }
}

struct RoleProvider {
    descriptor: ProviderDescriptor,
    role: Arc<Role>,
}

impl ClusterProvider for RoleProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        self.role.act(Call::Descriptor);
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        self.role.act(Call::Capabilities);
        let state = self.role.state();
        Capabilities::new(!state.blind, !state.registers_nobody)
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.role.act(Call::RefreshInterval);
        self.role.state().refresh_interval
    }

    fn check_connectivity(&self, _: &CancelToken) -> Result<(), ProvisioningError> {
        self.role.act(Call::Connect);
        self.role.answer()
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        self.role.act(Call::Open);
        self.role.answer()?;
        let role = Arc::clone(&self.role);
        let guard = cancel.on_cancel(move || role.act(Call::Cancel));
        let first = self.role.state().shows.clone().map(snapshot);
        let role = Arc::clone(&self.role);
        Ok(Box::new(RoleStream { role, cancel: cancel.clone(), first, said: 0, handing_over: false, _guard: guard }))
    }

    fn registration(&self, _: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        Ok(Box::new(RoleRegistration(Arc::clone(&self.role))))
    }

    fn registration_site(&self) -> Option<RegistrationSite> {
        self.role.state().site.clone()
    }
}

impl Drop for RoleProvider {
    fn drop(&mut self) {
        self.role.act(Call::DropProvider);
    }
}

struct RoleStream {
    role: Arc<Role>,
    cancel: CancelToken,
    first: Option<ProviderEvent>,
    said: u64,
    handing_over: bool,
    _guard: CancelGuard,
}

impl RoleStream {
    /// What it said last has been handed over.
    fn note_handed_over(&mut self) {
        if std::mem::take(&mut self.handing_over) {
            self.role.state().handed_over += 1;
        }
    }
}

impl ProviderStream for RoleStream {
    fn next(&mut self) -> ProviderEvent {
        self.note_handed_over();
        self.role.act(Call::Next);
        let flood = self.role.state().flood.clone();
        if let Some(first) = self.first.take() {
            return first;
        }
        if let Some(flood) = flood.filter(|_| !self.cancel.is_cancelled()) {
            self.said += 1;
            return flood(self.said - 1);
        }
        select! {
            recv(self.role.events.1) -> event => {
                self.handing_over = event.is_ok();
                event.unwrap_or(ProviderEvent::Terminated(ProviderTermination::Ended))
            }
            recv(self.cancel.receiver()) -> _ => ProviderEvent::Terminated(ProviderTermination::Ended),
        }
    }
}

impl Drop for RoleStream {
    fn drop(&mut self) {
        self.note_handed_over();
        self.role.act(Call::DropStream);
    }
}

struct RoleRegistration(Arc<Role>);

impl Registration for RoleRegistration {
    fn join(&mut self, _: &CancelToken) -> Result<(), ProvisioningError> {
        self.0.act(Call::Join);
        self.0.answer()
    }

    fn renew_interval(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn renew(&mut self, _: &CancelToken) -> Result<(), ProvisioningError> {
        self.0.act(Call::Renew);
        Ok(())
    }

    fn leave(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        self.0.state().leave_budget = Some(budget);
        self.0.act(Call::Leave);
        Ok(())
    }
}

impl Drop for RoleRegistration {
    fn drop(&mut self) {
        self.0.act(Call::DropRegistration);
    }
}

/// Makes the providers, and hands out their roles; a role that is new is made. A definition's role has the name of the
/// provider, or that of its parameter `part`.
pub struct Company(Mutex<BTreeMap<String, Arc<Role>>>);

/// The name of a definition's role.
fn part(descriptor: &ProviderDescriptor) -> &str {
    descriptor.parameters.get("part").map_or(descriptor.id.as_str(), String::as_str)
}

impl Company {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    pub fn role(&self, name: &str) -> Arc<Role> {
        let mut roles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(roles.entry(name.to_owned()).or_insert_with(Role::new))
    }
}

impl ProviderFactory for Company {
    fn kind(&self) -> ProviderKind {
        kind()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        self.role(part(descriptor)).act(Call::Validate);
        Ok(())
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        _: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let role = self.role(part(descriptor));
        role.act(Call::Create);
        Ok(Arc::new(RoleProvider { descriptor: descriptor.clone(), role }))
    }
}

fn kind() -> ProviderKind {
    ProviderKind::new("played").unwrap()
}

/// A definition of a played provider.
pub fn played(name: &str, priority: i64) -> ProviderDescriptor {
    ProviderDescriptor::new(name, kind()).unwrap().priority(priority)
}

/// The same provider, defined otherwise: another role plays it.
pub fn played_as(name: &str, priority: i64, part: &str) -> ProviderDescriptor {
    played(name, priority).parameter("part", part)
}

/// A service with played providers and bridges that write everything down.
pub struct Running {
    pub service: Arc<ClusterProvisioningService>,
    pub recorder: Arc<Recorder>,
    pub company: Arc<Company>,
}

impl Running {
    /// Providers of falling priority, which show nothing yet.
    pub fn new(names: &[&str]) -> Self {
        Self::with(names, |builder| builder)
    }

    pub fn with(names: &[&str], adapt: impl FnOnce(ServiceBuilder) -> ServiceBuilder) -> Self {
        Self::played_by(Company::new(), names, adapt)
    }

    /// The same with roles that are rehearsed already.
    pub fn played_by(
        company: Arc<Company>,
        names: &[&str],
        adapt: impl FnOnce(ServiceBuilder) -> ServiceBuilder,
    ) -> Self {
        let recorder = Recorder::new();
        let mut builder = ClusterProvisioningService::builder()
            .factory(company.clone())
            .placement_supervisor(recorder.clone())
            .partition_manager(recorder.clone())
            .remoting(recorder.clone());
        for (name, priority) in names.iter().zip((1..=names.len() as i64).rev()) {
            builder = builder.provider(played(name, priority));
        }
        let service = Arc::new(adapt(builder).start().unwrap());
        Self { service, recorder, company }
    }

    pub fn role(&self, name: &str) -> Arc<Role> {
        self.company.role(name)
    }

    pub fn hub(&self) -> &ProviderWatchHub {
        self.service.hub()
    }

    /// The first provider shows these members, and placement begins.
    pub fn ready(&self, name: &str, ids: &[&str]) {
        self.role(name).show(ids);
        self.service.wait_ready(PATIENCE).unwrap();
    }

    /// Waits for a delivery to a bridge that `wanted` accepts, passing over the others.
    pub fn delivered(
        &self,
        bridge: BridgeKind,
        mut wanted: impl FnMut(&ProvisioningEvent) -> bool,
    ) -> ProvisioningEvent {
        let found = self.recorder.wait_for(PATIENCE, |call| call.bridge == bridge && wanted(&call.event));
        found.unwrap_or_else(|| panic!("not delivered; {:#?}", self.hub().explain())).event
    }

    /// Waits until PlacementSupervisor is given exactly these members.
    pub fn shows(&self, ids: &[&str]) {
        let expected = members(ids);
        self.delivered(
            BridgeKind::PlacementSupervisor,
            |event| matches!(event, ProvisioningEvent::Snapshot(delivery) if delivery.snapshot.members == expected),
        );
    }

    /// Waits until everything that was said and ordered before has been taken in, and what it and the time bring about
    /// has been told.
    pub fn settle(&self) {
        // A round ends with the timers: the second command is of a later round.
        for _ in 0..2 {
            let nobody = NodeId::new("nobody").unwrap();
            assert_eq!(self.hub().unblock(nobody).wait(PATIENCE).unwrap_err().code(), ErrorCode::NotBlocked);
        }
    }

    /// Lets time pass by this clock, while these providers give signs of life that confirm nothing.
    pub fn pass(&self, clock: &FakeClock, time: Duration, alive: &[&str]) {
        // A longer step would be a standstill of the process.
        let step = Duration::from_secs(4);
        let mut left = time;
        while !left.is_zero() {
            for name in alive {
                self.role(name).tell(ProviderEvent::Heartbeat { current: false });
            }
            self.settle();
            clock.advance(left.min(step));
            left -= left.min(step);
            self.settle();
        }
    }

    /// The state of a provider.
    pub fn status(&self, name: &str) -> ProviderStatus {
        let all = self.hub().providers();
        all.into_iter().find(|status| status.id.as_str() == name).unwrap_or_else(|| panic!("{name} is not in force"))
    }

    /// The service alone, for what consumes it.
    pub fn into_service(self) -> ClusterProvisioningService {
        Arc::into_inner(self.service).expect("nobody else holds the service")
    }
}

/// Waits until it is so.
pub fn until(what: impl fmt::Display, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How long the work takes, and what it makes.
pub fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let made = work();
    (started.elapsed(), made)
}

/// Where calls hang until a test lets them go on.
pub struct Latch {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Latch {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new() })
    }

    /// Hangs, whatever is cancelled. A test that fails is not kept for ever.
    pub fn hang(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.changed.notify_all();
        _ = self.changed.wait_timeout_while(state, PATIENCE, |state| !state.1);
    }

    /// Waits until that many calls have come here.
    pub fn reached(&self, calls: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.0 < calls)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(state.0 >= calls, "only {} calls of {calls} came", state.0);
    }

    /// Lets all go on, also those that come later.
    pub fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}

/// Hangs in that call, whatever is cancelled, until the latch is opened.
pub fn hang_in(role: &Role, call: Call) -> Arc<Latch> {
    let latch = Latch::new();
    let hangs = Arc::clone(&latch);
    role.on(call, move || hangs.hang());
    latch
}

/// A panic's payload whose `Drop` panics with another of its kind, and so on.
pub struct Spite;

impl Drop for Spite {
    fn drop(&mut self) {
        spite();
    }
}

/// Panics with [`Spite`], without a report on standard error.
pub fn spite() {
    resume_unwind(Box::new(Spite));
}
