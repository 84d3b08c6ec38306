//! Where commands and the streams' reports wait for the hub's thread.
//!
//! Each stream has a [`Lane`] of its own, so that none can keep another, or a command, from being heard. The hub takes in
//! rounds: all that waits when a round begins, in the order in which it was sent. A command is refused where too many
//! wait; the set of providers always has a place, and the end of a stream's thread needs none.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::Input;
use super::bell::Bell;
use super::lane::{Lane, Offer};
use super::lifecycle::Lifecycle;
use super::slot::SlotSpec;
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::SlotKey;
use crate::id::ProviderId;
use crate::panics::{Foreign, discard};
use crate::provider::{ClusterProvider, ProviderEvent};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};

/// How many commands may wait.
const COMMANDS: usize = 4096;

/// Where the outcome of a command goes.
pub(crate) type Reply = Sender<Result<(), ProvisioningError>>;

/// The providers by key, with their names: what runs the streams.
pub(crate) type Providers = BTreeMap<SlotKey, (ProviderId, Foreign<Arc<dyn ClusterProvider>>)>;

/// Another set of providers to be in force.
pub(crate) struct ProviderOrder {
    pub(crate) providers: Providers,
    pub(crate) specs: Vec<SlotSpec>,
    pub(crate) at: Timestamp,
    pub(crate) reply: Reply,
    /// Takes the providers that were in force before: letting go of them is the business of whoever ordered.
    pub(crate) former: Sender<Providers>,
}

/// Something that waits for the hub.
pub(crate) enum Message {
    /// An input, stamped by its sender.
    Input { input: Input, at: Timestamp, reply: Option<Reply> },
    /// Another set of providers.
    Providers(ProviderOrder),
}

impl Message {
    /// When it was sent.
    pub(crate) fn at(&self) -> Timestamp {
        match self {
            Message::Input { at, .. } => *at,
            Message::Providers(order) => order.at,
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Input { input, at, .. } => f.debug_tuple("Input").field(input).field(at).finish(),
            Message::Providers(order) => f.debug_tuple("Providers").field(&order.specs).field(&order.at).finish(),
        }
    }
}

#[derive(Default)]
struct Commands {
    waiting: VecDeque<Message>,
    providers: Option<ProviderOrder>,
    closed: bool,
}

/// The senders' side of the hub's inbox.
pub(crate) struct Mailbox {
    commands: Mutex<Commands>,
    bell: Bell,
    life: Lifecycle,
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

impl Mailbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { commands: Mutex::new(Commands::default()), bell: Bell::new(), life: Lifecycle::new() })
    }

    /// How far the hub's life has come.
    pub(crate) fn life(&self) -> &Lifecycle {
        &self.life
    }

    /// Orders that nothing new is accepted from here on. Never waits for room.
    pub(crate) fn drain(&self) {
        self.life.drain();
        self.bell.ring();
    }

    /// Orders the hub to stop; waits for a callback that is running, at most so long.
    pub(crate) fn stop(&self, patience: Duration) {
        let returned = self.life.stop(Duration::ZERO);
        self.bell.ring();
        if !returned {
            self.life.stop(patience);
        }
    }

    /// Sends a command, without waiting.
    ///
    /// # Errors
    /// If too many wait, or the hub has stopped.
    pub(crate) fn send(&self, message: Message) -> Result<(), Refusal> {
        let mut commands = lock(&self.commands);
        if commands.closed {
            return Err(Refusal::Closed);
        }
        if commands.waiting.len() >= COMMANDS {
            return Err(Refusal::Full);
        }
        commands.waiting.push_back(message);
        drop(commands);
        self.bell.ring();
        Ok(())
    }

    /// Orders another set of providers; one that the hub has not got to yet is superseded.
    ///
    /// # Errors
    /// If the hub has stopped.
    pub(crate) fn order(&self, order: ProviderOrder) -> Result<(), Refusal> {
        let mut commands = lock(&self.commands);
        if commands.closed {
            return Err(Refusal::Closed);
        }
        let superseded = commands.providers.replace(order);
        drop(commands);
        discard(superseded);
        self.bell.ring();
        Ok(())
    }
}

/// The reports of one stream, between its thread and the hub's.
#[derive(Debug)]
struct SharedLane {
    state: Mutex<LaneState>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct LaneState {
    lane: Lane,
    /// The stream's thread waits for room. To wake it asks the kernel, which takes longer than all else here.
    is_awaited: bool,
    /// The hub no longer listens.
    closed: bool,
    /// The stream's thread has ended then.
    ended: Option<Timestamp>,
}

/// The hub's side of its inbox.
pub(crate) struct Inbox {
    mailbox: Arc<Mailbox>,
    lanes: Vec<(SlotKey, u64, Arc<SharedLane>)>,
}

impl Inbox {
    pub(crate) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox, lanes: Vec::new() }
    }

    /// How far the hub's life has come.
    pub(crate) fn life(&self) -> &Lifecycle {
        self.mailbox.life()
    }

    /// Waits until something may have been sent, or until the time is over.
    pub(crate) fn wait(&self, timeout: Duration) {
        self.mailbox.bell.wait(timeout);
    }

    /// Opens a lane for a stream.
    pub(crate) fn open(&mut self, key: SlotKey, generation: u64, clock: Arc<dyn Clock>) -> Outlet {
        let lane = Arc::new(SharedLane { state: Mutex::new(LaneState::default()), room: Condvar::new() });
        self.lanes.push((key, generation, Arc::clone(&lane)));
        Outlet { lane, mailbox: Arc::clone(&self.mailbox), clock }
    }

    /// Listens to that stream no longer: what it says is dropped, and its thread is not kept waiting. That the thread has
    /// ended is heard all the same.
    pub(crate) fn close(&self, key: SlotKey, generation: u64) {
        for (_, _, lane) in self.lanes.iter().filter(|lane| (lane.0, lane.1) == (key, generation)) {
            lane.close();
        }
    }

    /// All that waits, in the order in which it was sent; and the streams that flood.
    pub(crate) fn take(&mut self, now: Timestamp) -> (Vec<Message>, Vec<(SlotKey, u32)>) {
        let (mut messages, mut floods) = (Vec::new(), Vec::new());
        {
            let mut commands = lock(&self.mailbox.commands);
            messages.extend(commands.waiting.drain(..));
            messages.extend(commands.providers.take().map(Message::Providers));
        }
        self.lanes.retain(|(key, generation, lane)| {
            let (key, generation) = (*key, *generation);
            let mut state = lock(&lane.state);
            floods.extend(state.lane.take_flood(now).map(|reports| (key, reports)));
            messages.extend(state.lane.take().map(|waiting| {
                let input = Input::Event { key, generation, event: waiting.event };
                Message::Input { input, at: waiting.at, reply: None }
            }));
            let (ended, is_awaited) = (state.ended, std::mem::take(&mut state.is_awaited));
            drop(state);
            if is_awaited {
                lane.room.notify_one();
            }
            let closed = |at| Message::Input { input: Input::StreamClosed { key, generation }, at, reply: None };
            messages.extend(ended.map(closed));
            ended.is_none()
        });
        // Stable: what one sender sent stays in its order.
        messages.sort_by_key(Message::at);
        (messages, floods)
    }
}

/// Nothing is heard from here on: whoever waits for the outcome of a command is told, and no stream is kept waiting.
impl Drop for Inbox {
    fn drop(&mut self) {
        let unheard = {
            let mut commands = lock(&self.mailbox.commands);
            commands.closed = true;
            (std::mem::take(&mut commands.waiting), commands.providers.take())
        };
        // Outside of the lock: providers are among it.
        discard(unheard);
        for (_, _, lane) in &self.lanes {
            lane.close();
        }
    }
}

impl SharedLane {
    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        drop(state.lane.take());
        drop(state);
        self.room.notify_all();
    }
}

/// Where a stream's thread leaves what the stream reports. Dropping it says that the thread has ended.
pub(crate) struct Outlet {
    lane: Arc<SharedLane>,
    mailbox: Arc<Mailbox>,
    clock: Arc<dyn Clock>,
}

impl Outlet {
    /// Reports something; waits for room if there is none. Whether the hub still listens.
    pub(crate) fn report(&self, event: ProviderEvent) -> bool {
        let mut event = event;
        loop {
            let now = self.clock.now();
            let mut state = lock(&self.lane.state);
            if state.closed {
                return false;
            }
            let deadline = match state.lane.offer(event, now) {
                Offer::Taken => break,
                Offer::Full(unsent) => {
                    event = unsent;
                    None
                }
                Offer::Early(unsent, until) => {
                    event = unsent;
                    deadline(until.since(now))
                }
            };
            state.is_awaited = true;
            let (state, _) = wait_until(&self.lane.room, state, deadline);
            drop(state);
        }
        self.mailbox.bell.ring();
        true
    }

    /// Reports something if it is taken at once; absent if the hub no longer listens. For what plays threads.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn offer(&self, event: ProviderEvent) -> Option<Offer> {
        let now = self.clock.now();
        let mut state = lock(&self.lane.state);
        (!state.closed).then(|| state.lane.offer(event, now))
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let now = self.clock.now();
        lock(&self.lane.state).ended = Some(now);
        self.mailbox.bell.ring();
    }
}

/// The error of a command that could not be sent.
pub(crate) fn refused(refusal: Refusal) -> ProvisioningError {
    let (code, detail) = match refusal {
        Refusal::Full => (ErrorCode::InboxFull, "too many commands are waiting"),
        Refusal::Closed => (ErrorCode::Stopped, "its thread has ended"),
    };
    ProvisioningError::new(code, "ordering something of the hub", detail)
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;
    use crate::error::{ErrorCode, ProvisioningError};
    use crate::sync::atomic::{AtomicU64, Ordering};
    use loom::thread;

    /// Each look at it is a millisecond later.
    #[derive(Debug)]
    struct Ticking(AtomicU64);

    impl Clock for Ticking {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn clock() -> Arc<dyn Clock> {
        Arc::new(Ticking(AtomicU64::new(0)))
    }

    fn failed() -> ProviderEvent {
        let error = ProvisioningError::new(ErrorCode::BackendUnavailable, "testing", "refused");
        ProviderEvent::Degraded { error }
    }

    /// What the hub has taken, in short.
    fn describe(message: &Message) -> &'static str {
        match message {
            Message::Input { input: Input::Event { .. }, .. } => "event",
            Message::Input { input: Input::StreamClosed { .. }, .. } => "closed",
            Message::Input { .. } => "command",
            Message::Providers(_) => "providers",
        }
    }

    #[test]
    fn p2_1_in_no_order_of_events_is_a_report_the_end_of_a_stream_or_a_command_lost() {
        loom::model(|| {
            let mailbox = Mailbox::new();
            let mut inbox = Inbox::new(Arc::clone(&mailbox));
            let outlet = inbox.open(1, 1, clock());
            let stream = thread::spawn(move || {
                assert!(outlet.report(failed()));
            });
            let caller = {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    let message = Message::Input { input: Input::Unpin, at: Timestamp::default(), reply: None };
                    assert_eq!(mailbox.send(message), Ok(()));
                })
            };
            let mut taken = Vec::new();
            // In the model a wait never times out: a ring that is lost would hang here.
            while taken.len() < 3 {
                let (messages, _) = inbox.take(Timestamp::default());
                if messages.is_empty() {
                    inbox.wait(Duration::from_secs(3600));
                }
                taken.extend(messages.iter().map(describe));
            }
            taken.sort_unstable();
            assert_eq!(taken, ["closed", "command", "event"]);
            stream.join().unwrap();
            caller.join().unwrap();
        });
    }

    #[test]
    fn p2_1_a_stream_that_waits_for_room_gets_it_or_is_told_that_nobody_listens() {
        for closes in [false, true] {
            loom::model(move || {
                let mailbox = Mailbox::new();
                let mut inbox = Inbox::new(mailbox);
                let outlet = inbox.open(1, 1, clock());
                // Errors are not folded: the lane is full.
                while matches!(lock(&outlet.lane.state).lane.offer(failed(), Timestamp::default()), Offer::Taken) {}
                let stream = thread::spawn(move || outlet.report(failed()));
                if closes {
                    inbox.close(1, 1);
                    assert!(!stream.join().unwrap());
                } else {
                    inbox.take(Timestamp::default());
                    assert!(stream.join().unwrap());
                }
            });
        }
    }

    #[test]
    fn p3_5_who_sends_while_the_hub_ends_is_refused_or_told_and_never_left_waiting() {
        loom::model(|| {
            let mailbox = Mailbox::new();
            let inbox = Inbox::new(Arc::clone(&mailbox));
            let (reply, outcome) = crossbeam_channel::bounded(1);
            let caller = thread::spawn(move || {
                let message = Message::Input { input: Input::Unpin, at: Timestamp::default(), reply: Some(reply) };
                mailbox.send(message)
            });
            drop(inbox);
            match caller.join().unwrap() {
                Ok(()) => assert!(outcome.try_recv().is_err(), "it was not carried out"),
                Err(refusal) => assert_eq!(refusal, Refusal::Closed),
            }
            assert!(matches!(outcome.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected)));
        });
    }
}
