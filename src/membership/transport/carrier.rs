//! The thread: it waits, hands in what has arrived, and carries out what is wanted.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::connections::{Connections, Happened};
use super::envelope::{Envelope, NoMessage, reason};
use super::flood::Flood;
use super::frame::{Frame, Reason};
use super::names::Names;
use super::node::{Host, Shared};
use super::resident::Wish;
use super::sockets::Sockets;
use crate::clock::Timestamp;
use crate::membership::machine::{Input, Question};
use crate::membership::message::{DATAGRAM, Unusable};
use crate::membership::place::Place;
use crate::membership::sealing::Channel;
use crate::panics::caught;
use crate::sync::atomic::Ordering;
use crate::sync::lock;
use crate::text::line::log_line;
use crate::thread::Thread;

/// The longest single wait, so that a clock that jumps is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How many datagrams are handed in at a time: a flood keeps neither questions nor deadlines waiting.
const AT_A_TIME: usize = 512;
/// How long the last answers are waited for at the end.
const FAREWELL: Duration = Duration::from_millis(50);
/// How long no connection is taken when the system has no room for another.
const FULL: Duration = Duration::from_millis(100);
/// The question that is none of the resident's: somebody is told that its session was overtaken.
const OVERTAKEN: Question = Question(u64::MAX);

/// What a look-up has found.
type Found = (Arc<str>, Result<Vec<IpAddr>, String>);

/// See the module.
pub(super) struct Carrier {
    shared: Arc<Shared>,
    /// Absent where it only asks.
    sockets: Option<Sockets>,
    woken: UnixStream,
    connections: Connections,
    names: Names,
    seeds: Vec<Place>,
    /// As they were handed in last.
    told: Vec<Place>,
    flood: Flood,
    envelope: Envelope,
    /// What is asked, where it may have to be asked once more: of sealed questions.
    asked: BTreeMap<Question, (SocketAddr, Vec<u8>)>,
    host: Box<dyn Host>,
    found: (Sender<Found>, Receiver<Found>),
    /// The listener is left alone until then.
    full_until: Option<Instant>,
    wishes: Vec<Wish>,
}

/// What can be read or written.
#[derive(Default)]
struct Ready {
    datagrams: bool,
    listener: bool,
    channels: Vec<u64>,
}

impl Carrier {
    pub(super) fn new(
        shared: Arc<Shared>,
        sockets: Option<Sockets>,
        woken: UnixStream,
        seeds: Vec<Place>,
        envelope: Envelope,
        host: Box<dyn Host>,
    ) -> Self {
        Self {
            envelope,
            asked: BTreeMap::new(),
            shared,
            sockets,
            woken,
            connections: Connections::default(),
            names: Names::default(),
            told: seeds.clone(),
            seeds,
            flood: Flood::default(),
            host,
            found: bounded(64),
            full_until: None,
            wishes: Vec::new(),
        }
    }

    /// Runs until the resident has ended, or is stopped.
    pub(super) fn run(mut self) {
        self.look_up_seeds();
        loop {
            self.carry_out();
            if self.shared.is_stopped() || lock(&self.shared.resident).has_ended() {
                break;
            }
            let ready = self.wait(self.timeout());
            self.hand_in(&ready);
        }
        self.say_farewell();
    }

    /// What is on its way is let go.
    fn say_farewell(&mut self) {
        self.carry_out();
        let ends = Instant::now() + FAREWELL;
        while self.connections.is_answering() && Instant::now() < ends {
            let ready = self.wait(ends.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            ready.channels.into_iter().for_each(|channel| self.connections.advance(channel, now));
        }
    }

    /// How long nothing is due.
    fn timeout(&self) -> Duration {
        let resident = lock(&self.shared.resident).next_at();
        let resident = resident.map(|at| at.since(self.shared.clock.now()));
        let now = Instant::now();
        let connection = self.connections.next_at().map(|at| at.saturating_duration_since(now));
        let listener = self.full_until.map(|at| at.saturating_duration_since(now));
        [resident, connection, listener].into_iter().flatten().min().unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
    }

    fn wait(&mut self, timeout: Duration) -> Ready {
        // What is over would be due at once, each time.
        _ = self.full_until.take_if(|until| *until <= Instant::now());
        let mut polled = vec![PollFd::new(&self.woken, PollFlags::IN)];
        if let Some(sockets) = &self.sockets {
            let flags = if self.full_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
            polled.push(PollFd::new(&sockets.datagrams, PollFlags::IN));
            polled.push(PollFd::new(&sockets.listener, flags));
        }
        let first = polled.len();
        let mut channels = Vec::new();
        for (channel, stream, flags) in self.connections.waiting() {
            channels.push(channel);
            polled.push(PollFd::new(stream, flags));
        }
        // Rounded up: what is due in half a nanosecond is not due yet.
        let timeout =
            Timespec { tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(1), tv_nsec: timeout.subsec_nanos().into() };
        if poll(&mut polled, Some(&timeout)).is_err() {
            // Interrupted: all is looked at again soon.
            return Ready::default();
        }
        let is_ready = |place: usize| polled.get(place).is_some_and(|fd| !fd.revents().is_empty());
        let ready = Ready {
            datagrams: first > 1 && is_ready(1),
            listener: first > 2 && is_ready(2),
            channels: channels.into_iter().enumerate().filter(|(n, _)| is_ready(first + n)).map(|(_, c)| c).collect(),
        };
        if is_ready(0) {
            let mut bytes = [0; 256];
            while matches!((&self.woken).read(&mut bytes), Ok(count) if count == bytes.len()) {}
        }
        ready
    }

    /// What has arrived, and then the time that has passed.
    fn hand_in(&mut self, ready: &Ready) {
        let instant = Instant::now();
        let now = self.shared.clock.now();
        self.envelope.pass(now);
        let keys = lock(&self.shared.keys).take();
        if let Some(keys) = keys {
            self.envelope.set_keys(keys);
        }
        if ready.datagrams {
            self.receive(instant);
        }
        if ready.listener
            && let Some(sockets) = &self.sockets
        {
            self.full_until = self.connections.accept(&sockets.listener, instant).err().map(|_| instant + FULL);
        }
        ready.channels.iter().for_each(|channel| self.connections.advance(*channel, instant));
        self.connections.pass(instant);
        while let Some(happened) = self.connections.happened() {
            self.happened(happened);
        }
        let seeds = lock(&self.shared.seeds).take();
        if let Some(seeds) = seeds {
            self.seeds = seeds;
            self.look_up_seeds();
            self.tell_seeds();
        }
        while let Ok((host, result)) = self.found.1.try_recv() {
            if let Err(why) = &result {
                self.tell_host(|named| named.not_found(&host, why));
            }
            if self.names.found(&host, result, self.shared.clock.now()) {
                self.tell_seeds();
            }
        }
        let counted = &self.shared.counted;
        counted.dropped.store(self.flood.dropped(), Ordering::Relaxed);
        counted.turned_away.store(self.connections.turned_away(), Ordering::Relaxed);
        let now = self.shared.clock.now();
        let mut resident = lock(&self.shared.resident);
        if resident.next_at().is_some_and(|at| at <= now) {
            resident.handle(now, Input::Time);
        }
    }

    fn receive(&mut self, instant: Instant) {
        let Some(sockets) = &self.sockets else { return };
        // One byte more than may be, so that what is longer is seen to be.
        let mut room = [0; DATAGRAM + 1];
        let mut resident = lock(&self.shared.resident);
        for _ in 0..AT_A_TIME {
            let Some((length, from)) = sockets.receive(&mut room) else { break };
            if !self.flood.passes(from.ip(), instant) {
                continue;
            }
            let from = Place::new(&from.ip().to_string(), from.port());
            let bytes = room.get(..length).unwrap_or_default().to_vec();
            let now = self.shared.clock.now();
            match self.envelope.open(Channel::Datagram, bytes, now) {
                Ok(bytes) => resident.handle(now, Input::Datagram { from, bytes }),
                Err(none) => {
                    let unusable = none.unusable().map(|why| Input::Unusable { from: Some(from), why });
                    unusable.into_iter().for_each(|unusable| resident.handle(now, unusable));
                }
            }
        }
    }

    fn happened(&mut self, happened: Happened) {
        let now = self.shared.clock.now();
        match happened {
            Happened::Asked { channel, bytes } => self.is_asked(channel, bytes, now),
            Happened::Answered { question, answer: Some(bytes) } => self.is_answered(question, bytes, now),
            Happened::Answered { question, answer: None } => self.unanswered(question, now),
            Happened::Refused { question, by, reason } => {
                if question != OVERTAKEN {
                    self.tell_host(|host| host.refused_by(by, reason));
                }
                self.unanswered(question, now);
            }
            Happened::NobodyThere { question } => {
                lock(&self.shared.resident).handle(now, Input::HostHeard);
                self.unanswered(question, now);
            }
        }
    }

    fn is_asked(&mut self, channel: u64, bytes: Vec<u8>, now: Timestamp) {
        let none = match self.envelope.open(Channel::Reliable, bytes, now) {
            Ok(bytes) => return lock(&self.shared.resident).handle(now, Input::Asked { channel, bytes }),
            Err(none) => none,
        };
        if let Some(why) = none.unusable() {
            self.tell_unusable(channel, why, now);
        }
        let answer = match none {
            NoMessage::Stale(Some(answer)) => Frame::Message(answer),
            NoMessage::Unusable(why) => Frame::Refusal(reason(why)),
            NoMessage::Stale(None) | NoMessage::Restarted => Frame::Refusal(Reason::Other(0)),
        };
        self.connections.answer(channel, answer, Instant::now());
    }

    /// Whoever asks on that channel asks nothing that is understood here.
    fn tell_unusable(&mut self, channel: u64, why: Unusable, now: Timestamp) {
        let from = self.connections.peer(channel);
        let from = from.map(|from| Place::new(&from.ip().to_canonical().to_string(), from.port()));
        lock(&self.shared.resident).handle(now, Input::Unusable { from, why });
    }

    fn is_answered(&mut self, question: Question, bytes: Vec<u8>, now: Timestamp) {
        let asked = self.asked.remove(&question);
        match self.envelope.open(Channel::Reliable, bytes, now) {
            Ok(bytes) => {
                let answer = Some(bytes);
                lock(&self.shared.resident).handle(now, Input::Answered { question, answer });
            }
            Err(none) => {
                if let Some(why) = none.unusable() {
                    lock(&self.shared.resident).handle(now, Input::Unusable { from: None, why });
                }
                match (none, asked) {
                    // Once: the second time nothing is remembered.
                    (NoMessage::Restarted, Some((to, plain))) => self.ask_sealed(question, to, plain),
                    (NoMessage::Stale(Some(answer)), Some((to, _))) => {
                        self.connections.ask(OVERTAKEN, to, answer, Instant::now());
                        self.unanswered(question, now);
                    }
                    _ => self.unanswered(question, now),
                }
            }
        }
    }

    fn unanswered(&mut self, question: Question, now: Timestamp) {
        self.asked.remove(&question);
        if question != OVERTAKEN {
            lock(&self.shared.resident).handle(now, Input::Answered { question, answer: None });
        }
    }

    fn ask(&mut self, question: Question, to: SocketAddr, plain: Vec<u8>) {
        if matches!(self.envelope, Envelope::Sealed { .. }) {
            self.asked.insert(question, (to, plain.clone()));
        }
        self.ask_sealed(question, to, plain);
    }

    fn ask_sealed(&mut self, question: Question, to: SocketAddr, plain: Vec<u8>) {
        match self.envelope.seal(Channel::Reliable, plain) {
            Some(bytes) => self.connections.ask(question, to, bytes, Instant::now()),
            None => self.unanswered(question, self.shared.clock.now()),
        }
    }

    /// Whatever is wanted; what is wanted because of it, too.
    fn carry_out(&mut self) {
        loop {
            let mut wishes = std::mem::take(&mut self.wishes);
            lock(&self.shared.resident).wishes(&mut wishes);
            if wishes.is_empty() {
                self.wishes = wishes;
                return;
            }
            for wish in wishes.drain(..) {
                self.fulfil(wish);
            }
            self.wishes = wishes;
            // Questions that could not be asked at all are answered at once.
            while let Some(happened) = self.connections.happened() {
                self.happened(happened);
            }
        }
    }

    fn fulfil(&mut self, wish: Wish) {
        let now = self.shared.clock.now();
        match wish {
            Wish::Send { to, bytes } => {
                // Where a name leads is not known at first: a datagram may be lost.
                let to = self.address(&to, now);
                if let (Some(to), Some(sockets)) = (to, &self.sockets)
                    && let Some(bytes) = self.envelope.seal(Channel::Datagram, bytes)
                {
                    sockets.send(to, &bytes);
                }
            }
            Wish::Ask { question, to, bytes } => match self.address(&to, now) {
                Some(to) => self.ask(question, to, bytes),
                None => self.unanswered(question, now),
            },
            Wish::Answer { channel, bytes } => {
                if let Some(bytes) = self.envelope.seal(Channel::Reliable, bytes) {
                    self.connections.answer(channel, Frame::Message(bytes), Instant::now());
                }
            }
            Wish::Refuse { channel, why } => {
                self.tell_unusable(channel, why, now);
                self.connections.answer(channel, Frame::Refusal(reason(why)), Instant::now());
            }
            Wish::LookUp => self.look_up_seeds(),
            Wish::Apply(update) => {
                let mut result = Err("the host panicked".to_owned());
                self.tell_host(|host| result = host.apply(&update));
                lock(&self.shared.resident).applied(update.number, result, now);
            }
            Wish::Tell(event) => self.tell_host(|host| host.tell(event)),
            Wish::Follows(member) => self.tell_host(|host| host.follows(member)),
        }
    }

    fn address(&mut self, place: &Place, now: Timestamp) -> Option<SocketAddr> {
        let address = self.names.address(place, now);
        self.look_up();
        address
    }

    /// The seeds' names are looked up, if that was not done just now.
    fn look_up_seeds(&mut self) {
        let now = self.shared.clock.now();
        for seed in &self.seeds {
            self.names.want(seed.host(), now);
        }
        self.look_up();
    }

    /// Each look-up blocks for as long as the system likes, on a thread of its own.
    fn look_up(&mut self) {
        while let Some(host) = self.names.next() {
            let (found, shared, name) = (self.found.0.clone(), Arc::clone(&self.shared), Arc::clone(&host));
            let work = move || {
                let result = (&*name, 0).to_socket_addrs();
                let result = result.map(|found| found.map(|at| at.ip()).collect()).map_err(|error| error.to_string());
                // Whoever has ended does not care.
                _ = found.try_send((name, result));
                shared.wake();
            };
            if let Err(error) = Thread::GossipLookup.spawn(work) {
                self.names.found(&host, Err(error.to_string()), self.shared.clock.now());
            }
        }
    }

    /// The seeds are others than they were.
    fn tell_seeds(&mut self) {
        let places: Vec<Place> = self.seeds.iter().flat_map(|seed| self.names.places(seed)).collect();
        if places != self.told {
            self.told = places.clone();
            let now = self.shared.clock.now();
            lock(&self.shared.resident).handle(now, Input::Seeds(places));
        }
    }

    /// The host is foreign code.
    fn tell_host(&mut self, tell: impl FnOnce(&mut dyn Host)) {
        let host = &mut self.host;
        if let Err(panic) = caught(|| tell(host.as_mut())) {
            log_line!(Warn, "whoever is told of a gossip member panicked: {panic}");
        }
    }
}
