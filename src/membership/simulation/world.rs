//! A cluster, its network and its clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::time::Duration;

use super::network::{Network, chance};
use super::protocol::{Act, Arrival, HELD, PATIENCE, Protocol, Seen, Start};
use crate::backoff::Jitter;
use crate::clock::Timestamp;

/// What happens at some time.
#[derive(Debug)]
enum Happening {
    Datagram {
        from: usize,
        to: usize,
        life: u64,
        bytes: Vec<u8>,
    },
    Asked {
        from: usize,
        asker: u64,
        to: usize,
        question: u64,
        life: u64,
        bytes: Vec<u8>,
    },
    Answered {
        to: usize,
        life: u64,
        question: u64,
        answer: Option<Vec<u8>>,
    },
    Wake {
        node: usize,
        life: u64,
    },
    /// Nobody has answered that question.
    Expired {
        channel: u64,
    },
}

/// A question that was asked and not answered yet.
#[derive(Debug)]
struct Open {
    asked: usize,
    asker: usize,
    /// How often the asker had been started.
    life: u64,
    question: u64,
}

/// When it happens, and which of all happenings it is: of two at one time the first one goes first.
type Key = (Timestamp, u64);

struct Queued(Key, Happening);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// A process.
struct Process<M> {
    member: M,
    /// By how much its clock is ahead.
    ahead: Duration,
    wake_at: Option<Timestamp>,
    /// It stands still until then, and what arrives waits.
    stands_until: Option<Timestamp>,
    waiting: Vec<Happening>,
}

/// One member saw another in another state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sighting {
    /// When.
    pub at: Timestamp,
    /// Who saw it.
    pub by: usize,
    /// Whom.
    pub node: usize,
    /// In which life.
    pub life: u64,
    /// In which state.
    pub state: Seen,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// The datagrams sent.
    pub datagrams: u64,
    /// The bytes in them, without any headers.
    pub bytes: u64,
    /// The questions over the reliable channel.
    pub questions: u64,
    /// The bytes of them and of their answers.
    pub question_bytes: u64,
    /// What members did otherwise: transitions and what they count themselves.
    pub events: BTreeMap<&'static str, u64>,
    /// The bytes that each node sent or received, by whichever way.
    pub traffic: Vec<u64>,
}

/// A cluster of members of one protocol, on one clock and one seed: the same seed and the same calls give the same run.
///
/// Nodes are numbered. Each member is a pure machine ([`Protocol`]); the world carries what they send, loses, doubles and
/// delays it, and lets processes stand still, die and come back.
pub struct World<M> {
    /// The network, which may be changed at any time.
    pub network: Network,
    now: Timestamp,
    counts: Counts,
    sightings: Vec<Sighting>,
    failure: Option<String>,
    start: Box<dyn FnMut(&Start) -> M>,
    processes: Vec<Option<Process<M>>>,
    /// How often each was started.
    starts: Vec<u64>,
    /// The present or last life of each.
    lives: Vec<u64>,
    queue: BinaryHeap<Reverse<Queued>>,
    number: u64,
    channels: BTreeMap<u64, Open>,
    dice: Jitter,
}

impl<M> fmt::Debug for World<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { now, processes, counts, failure, .. } = self;
        f.debug_struct("World")
            .field("now", now)
            .field("running", &processes.iter().flatten().count())
            .field("counts", counts)
            .field("failure", failure)
            .finish_non_exhaustive()
    }
}

impl<M: Protocol> World<M> {
    /// An empty one of that seed. `start` makes the members.
    pub fn new(seed: u64, start: impl FnMut(&Start) -> M + 'static) -> Self {
        Self {
            network: Network::good(),
            now: Timestamp::from_millis(1_000_000),
            counts: Counts::default(),
            sightings: Vec::new(),
            failure: None,
            start: Box::new(start),
            processes: Vec::new(),
            starts: Vec::new(),
            lives: Vec::new(),
            queue: BinaryHeap::new(),
            number: 0,
            channels: BTreeMap::new(),
            dice: Jitter::new(seed),
        }
    }

    /// The time, by the clock of the world.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Who saw whom in which state, in order.
    pub fn sightings(&self) -> &[Sighting] {
        &self.sightings
    }

    /// The first thing that happened and must not.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Starts the node, or starts it again, with these seeds.
    pub fn start(&mut self, node: usize, seeds: &[usize]) {
        while self.processes.len() <= node {
            self.processes.push(None);
            self.starts.push(0);
            self.lives.push(0);
            self.counts.traffic.push(0);
        }
        self.kill(node);
        self.starts[node] += 1;
        self.lives[node] = self.now.as_millis().max(self.lives[node] + 1);
        let (life, seed, now) = (self.lives[node], self.dice.next(), self.now);
        let member = (self.start)(&Start { node, life, seeds: seeds.to_vec(), seed, now });
        let ahead = Duration::ZERO;
        self.processes[node] = Some(Process { member, ahead, wake_at: None, stands_until: None, waiting: Vec::new() });
        self.follow_up(node);
    }

    /// Ends the process without a word, if it runs.
    pub fn kill(&mut self, node: usize) {
        if let Some(process) = self.processes.get_mut(node).and_then(Option::take) {
            // Its host closes the connections: what it has not read, and what it has not answered.
            for waiting in process.waiting {
                if let Happening::Asked { from: to, asker: life, question, .. } = waiting {
                    self.push(self.now, Happening::Answered { to, life, question, answer: None });
                }
            }
            let open: Vec<u64> =
                self.channels.iter().filter(|(_, open)| open.asked == node).map(|(channel, _)| *channel).collect();
            open.into_iter().for_each(|channel| self.expire(channel));
        }
    }

    /// The node is told to leave, unless it stands still or does not run.
    pub fn leave(&mut self, node: usize) {
        self.tell(node, Arrival::Leave);
    }

    /// Hands in something that does not come from the network, unless the node stands still or does not run.
    fn tell(&mut self, node: usize, arrival: Arrival) {
        if self.process(node).is_some_and(|process| process.stands_until.is_none()) {
            self.input(node, arrival);
        }
    }

    /// Does something with the member itself, and then what it asks for; `None` where it stands still or does not run.
    pub fn with<T>(&mut self, node: usize, act: impl FnOnce(&mut M, Timestamp) -> T) -> Option<T> {
        let now = self.now;
        let process = self.process(node).filter(|process| process.stands_until.is_none())?;
        let result = act(&mut process.member, now + process.ahead);
        self.follow_up(node);
        Some(result)
    }

    /// The process stands still for so long, if it runs. What arrives waits for it.
    pub fn pause(&mut self, node: usize, length: Duration) {
        let until = self.now + length;
        if let Some(process) = self.process(node) {
            process.stands_until = Some(until);
            process.wake_at = Some(until);
            let life = self.starts[node];
            self.push(until, Happening::Wake { node, life });
        }
    }

    /// The clock of the node jumps forward, if it runs.
    pub fn jump(&mut self, node: usize, by: Duration) {
        if let Some(process) = self.process(node) {
            process.ahead += by;
            process.wake_at = None;
        }
        self.tell(node, Arrival::Time);
    }

    /// The member, if it runs.
    pub fn member(&self, node: usize) -> Option<&M> {
        self.processes.get(node)?.as_ref().map(|process| &process.member)
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        self.processes.iter().enumerate().filter(|(_, process)| process.is_some()).map(|(node, _)| node)
    }

    /// In which life the node runs, or ran last; `None` if it was never started.
    pub fn life(&self, node: usize) -> Option<u64> {
        self.lives.get(node).copied()
    }

    fn process(&mut self, node: usize) -> Option<&mut Process<M>> {
        self.processes.get_mut(node)?.as_mut()
    }

    /// Whether everybody who runs holds every member that runs for one, and nobody else.
    pub fn is_one_view(&self) -> bool {
        let all = || self.processes.iter().flatten().map(|process| &process.member);
        let Some(first) = all().next() else { return true };
        let view = first.view();
        all().all(|member| member.view() == view)
            && view.members == all().filter(|member| member.takes_part()).count()
            && self.running().all(|node| {
                let own = self.member(node).filter(|member| member.takes_part());
                own.is_none_or(|own| own.holds(node).is_some() && first.holds(node) == own.holds(node))
            })
    }

    /// Goes on for so long.
    pub fn pass(&mut self, length: Duration) {
        let until = self.now + length;
        while let Some(Reverse(Queued((at, _), _))) = self.queue.peek() {
            if *at > until {
                break;
            }
            let Some(Reverse(Queued((at, _), happening))) = self.queue.pop() else { break };
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    /// Goes on until something holds, for so long at the most; how long it took. Looks after each 20 ms.
    pub fn until(&mut self, longest: Duration, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (begun, end) = (self.now, self.now + longest);
        while self.now < end {
            if holds(self) {
                return Some(self.now.since(begun));
            }
            self.pass(Duration::from_millis(20));
        }
        holds(self).then(|| self.now.since(begun))
    }

    fn happen(&mut self, happening: Happening) {
        let (node, life) = match &happening {
            Happening::Datagram { to, life, .. } | Happening::Asked { to, life, .. } => (*to, *life),
            Happening::Answered { to: node, life, .. } | Happening::Wake { node, life } => (*node, *life),
            Happening::Expired { channel } => return self.expire(*channel),
        };
        if self.starts[node] != life || self.processes[node].is_none() {
            // Every question is answered, if with a failure.
            if let Happening::Asked { from, asker, question, .. } = happening {
                let at = self.now + PATIENCE;
                self.push(at, Happening::Answered { to: from, life: asker, question, answer: None });
            }
            return;
        }
        let now = self.now;
        let Some(process) = &mut self.processes[node] else { return };
        if let Some(until) = process.stands_until {
            if now < until {
                if !matches!(happening, Happening::Wake { .. }) {
                    process.waiting.push(happening);
                }
                return;
            }
            (process.stands_until, process.wake_at) = (None, None);
            // What has arrived meanwhile is handed in first.
            for waiting in std::mem::take(&mut process.waiting) {
                self.hand_in(node, waiting);
            }
            if !matches!(happening, Happening::Wake { .. }) {
                self.hand_in(node, happening);
            }
            return self.input(node, Arrival::Time);
        }
        self.hand_in(node, happening);
    }

    fn hand_in(&mut self, node: usize, happening: Happening) {
        match happening {
            Happening::Datagram { from, bytes, .. } => {
                self.counts.traffic[node] += bytes.len() as u64;
                self.input(node, Arrival::Datagram { from, bytes });
            }
            Happening::Asked { from, asker, question, bytes, .. } => {
                self.counts.traffic[node] += bytes.len() as u64;
                self.number += 1;
                let channel = self.number;
                self.channels.insert(channel, Open { asked: node, asker: from, life: asker, question });
                self.push(self.now + HELD, Happening::Expired { channel });
                self.input(node, Arrival::Asked { channel, bytes });
            }
            Happening::Answered { question, answer, .. } => {
                self.counts.traffic[node] += answer.as_ref().map_or(0, |bytes| bytes.len() as u64);
                self.input(node, Arrival::Answered { question, answer });
            }
            Happening::Expired { channel } => self.expire(channel),
            Happening::Wake { .. } => {
                let now = self.now;
                if let Some(process) = self.processes[node].as_mut().filter(|process| process.wake_at == Some(now)) {
                    process.wake_at = None;
                    self.input(node, Arrival::Time);
                }
            }
        }
    }

    fn input(&mut self, node: usize, arrival: Arrival) {
        let now = self.now;
        if let Some(process) = &mut self.processes[node] {
            process.member.handle(now + process.ahead, arrival);
        }
        self.follow_up(node);
    }

    /// Does what the member asks for.
    fn follow_up(&mut self, node: usize) {
        loop {
            let Some(process) = &mut self.processes[node] else { return };
            let Some(act) = process.member.act() else { break };
            match act {
                Act::Send { to, bytes } => self.send(node, to, bytes),
                Act::Ask { question, to, bytes } => self.ask(node, to, question, bytes),
                Act::Answer { channel, bytes } => self.answer(node, channel, bytes),
                Act::Sees { node: about, life, before, state } => self.saw(node, (about, life), before, state),
                Act::Counts(name) => *self.counts.events.entry(name).or_default() += 1,
                Act::Fails(why) => _ = self.failure.get_or_insert_with(|| format!("n{node}: {why}")),
            }
        }
        let life = self.starts[node];
        let Some(process) = &mut self.processes[node] else { return };
        if process.member.has_ended() {
            return self.kill(node);
        }
        let Some(next) = process.member.next_at() else { return };
        let at = self.now + next.since(self.now + process.ahead);
        if process.wake_at.is_none_or(|wake| at < wake) {
            process.wake_at = Some(at);
            self.push(at, Happening::Wake { node, life });
        }
    }

    fn saw(&mut self, by: usize, (node, life): (usize, u64), before: Option<Seen>, state: Seen) {
        self.sightings.push(Sighting { at: self.now, by, node, life, state });
        let name = match (before, state) {
            (_, Seen::Joining) => "-> joining",
            (None, Seen::Up) => "new -> up",
            (Some(Seen::Joining), Seen::Up) => "joining -> up",
            (Some(Seen::Up), Seen::Suspect) => "up -> suspect",
            (Some(Seen::Suspect), Seen::Up) => "suspect -> up",
            (Some(Seen::Suspect), Seen::Dead) => "suspect -> dead",
            (Some(Seen::Up), Seen::Dead) => "up -> dead",
            (Some(Seen::Dead), Seen::Up) => "dead -> up",
            (Some(Seen::Left), Seen::Up) => "left -> up",
            (Some(Seen::Dead), Seen::Left) => "dead -> left",
            (_, Seen::Left) => "-> left",
            _ => "other transition",
        };
        *self.counts.events.entry(name).or_default() += 1;
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        if bytes.len() > 1400 {
            self.failure.get_or_insert_with(|| format!("n{from}: a datagram of {} bytes", bytes.len()));
        }
        self.counts.datagrams += 1;
        self.counts.bytes += bytes.len() as u64;
        self.counts.traffic[from] += bytes.len() as u64;
        if to >= self.starts.len() || !self.network.passes(from, to, &mut self.dice) {
            return;
        }
        let life = self.starts[to];
        if chance(&mut self.dice, self.network.doubled) {
            let at = self.now + self.network.delay(&mut self.dice);
            self.push(at, Happening::Datagram { from, to, life, bytes: bytes.clone() });
        }
        let at = self.now + self.network.delay(&mut self.dice);
        self.push(at, Happening::Datagram { from, to, life, bytes });
    }

    fn ask(&mut self, from: usize, to: usize, question: u64, bytes: Vec<u8>) {
        self.counts.questions += 1;
        self.counts.question_bytes += bytes.len() as u64;
        self.counts.traffic[from] += bytes.len() as u64;
        let passes = self.processes.get(to).is_some_and(Option::is_some)
            && self.network.passes(from, to, &mut self.dice)
            && self.network.passes(to, from, &mut self.dice);
        if !passes {
            let (at, life) = (self.now + PATIENCE, self.starts[from]);
            return self.push(at, Happening::Answered { to: from, life, question, answer: None });
        }
        // A connection is made first.
        let (at, life, asker) = (self.now + self.network.delay(&mut self.dice) * 2, self.starts[to], self.starts[from]);
        self.push(at, Happening::Asked { from, asker, to, question, life, bytes });
    }

    fn answer(&mut self, from: usize, channel: u64, bytes: Vec<u8>) {
        let Some(Open { asker: to, life, question, .. }) = self.channels.remove(&channel) else { return };
        self.counts.question_bytes += bytes.len() as u64;
        self.counts.traffic[from] += bytes.len() as u64;
        let at = self.now + self.network.delay(&mut self.dice);
        self.push(at, Happening::Answered { to, life, question, answer: Some(bytes) });
    }

    fn expire(&mut self, channel: u64) {
        if let Some(Open { asker: to, life, question, .. }) = self.channels.remove(&channel) {
            self.push(self.now, Happening::Answered { to, life, question, answer: None });
        }
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.number += 1;
        self.queue.push(Reverse(Queued((at, self.number), happening)));
    }
}
