//! A cluster, its network and its clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use super::network::{Network, chance};
use crate::backoff::Jitter;
use crate::clock::Timestamp;
use crate::membership::event::{Event, MemberState};
use crate::membership::machine::{Input, Machine, Output, Question};
use crate::membership::place::Place;
use crate::membership::record::State;
use crate::membership::settings::Settings;
use crate::membership::settling::TopologyUpdate;
use crate::topology::{ClusterNode, NodeId};

/// After so long a question counts as not answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// What happens at some time.
#[derive(Debug)]
enum Happening {
    Datagram { from: usize, to: usize, life: u64, bytes: Vec<u8> },
    Asked { from: usize, asker: u64, to: usize, question: Question, life: u64, bytes: Vec<u8> },
    Answered { to: usize, life: u64, question: Question, answer: Option<Vec<u8>> },
    Wake { node: usize, life: u64 },
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
struct Process {
    machine: Machine,
    wake_at: Option<Timestamp>,
    /// It stands still until then, and what arrives waits.
    stands_until: Option<Timestamp>,
    waiting: Vec<Happening>,
    updates: Vec<TopologyUpdate>,
}

/// Who said that somebody is in that state.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    pub(super) by: usize,
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    pub(super) to: MemberState,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    pub(super) questions: u64,
    pub(super) question_bytes: u64,
    pub(super) events: BTreeMap<&'static str, u64>,
}

/// See the module.
pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) network: Network,
    pub(super) counts: Counts,
    pub(super) seen: Vec<Seen>,
    settings: Settings,
    processes: Vec<Option<Process>>,
    /// How often each was started.
    lives: Vec<u64>,
    queue: BinaryHeap<Reverse<Queued>>,
    number: u64,
    channels: BTreeMap<u64, (usize, u64, Question)>,
    dice: Jitter,
}

pub(super) fn place(node: usize) -> Place {
    Place::new(&format!("10.{}.{}.{}", node >> 16 & 255, node >> 8 & 255, node & 255), 7946)
}

fn number_of(place: &Place) -> usize {
    place.host().split('.').skip(1).fold(0, |sum, part| sum << 8 | part.parse::<usize>().unwrap())
}

pub(super) fn id(node: usize) -> NodeId {
    NodeId::new(format!("n{node:07}")).unwrap()
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Timestamp::from_millis(1_000_000),
            network: Network::good(),
            counts: Counts::default(),
            seen: Vec::new(),
            settings: Settings::lan("simulated"),
            processes: Vec::new(),
            lives: Vec::new(),
            queue: BinaryHeap::new(),
            number: 0,
            channels: BTreeMap::new(),
            dice: Jitter::new(seed),
        }
    }

    /// Starts the node, with these seeds.
    pub(super) fn start(&mut self, node: usize, seeds: &[usize]) {
        while self.processes.len() <= node {
            self.processes.push(None);
            self.lives.push(0);
        }
        self.lives[node] += 1;
        let builder = ClusterNode::builder(id(node).as_str(), place(node).host(), 7000);
        let member = Arc::new(builder.incarnation(self.now.as_millis()).build().unwrap());
        let seeds = seeds.iter().map(|seed| place(*seed)).collect();
        let seed = self.dice.next();
        let machine = Machine::new(self.settings.clone(), (member, 7946), seeds, seed, self.now).unwrap();
        let (stands_until, waiting, updates) = (None, Vec::new(), Vec::new());
        self.processes[node] = Some(Process { machine, wake_at: None, stands_until, waiting, updates });
        self.follow_up(node);
    }

    /// Ends the process without a word.
    pub(super) fn kill(&mut self, node: usize) {
        self.processes[node] = None;
    }

    /// The node leaves, unless it stands still.
    pub(super) fn leave(&mut self, node: usize) {
        if self.processes[node].as_ref().is_some_and(|process| process.stands_until.is_none()) {
            self.input(node, Input::Leave);
        }
    }

    /// The process stands still for so long.
    pub(super) fn pause(&mut self, node: usize, length: Duration) {
        let until = self.now + length;
        let life = self.lives[node];
        if let Some(process) = &mut self.processes[node] {
            process.stands_until = Some(until);
            process.wake_at = Some(until);
        }
        self.push(until, Happening::Wake { node, life });
    }

    pub(super) fn machine(&self, node: usize) -> Option<&Machine> {
        self.processes[node].as_ref().map(|process| &process.machine)
    }

    pub(super) fn updates(&self, node: usize) -> &[TopologyUpdate] {
        self.processes[node].as_ref().map_or(&[], |process| &process.updates)
    }

    /// Those that run.
    pub(super) fn running(&self) -> impl Iterator<Item = usize> {
        self.processes.iter().enumerate().filter(|(_, process)| process.is_some()).map(|(node, _)| node)
    }

    /// Whether everybody who runs has everybody who runs as a member, and nobody else.
    pub(super) fn is_one_view(&self) -> bool {
        let mut machines = self.running().filter_map(|node| self.machine(node));
        let Some(first) = machines.next() else { return true };
        let running = self.running().count();
        first.members().len() == running
            && machines.all(|machine| machine.members().hash() == first.members().hash())
            && self.running().all(|node| {
                let incarnation = self.machine(node).map(|machine| machine.own().node().incarnation());
                first.members().get(id(node)).map(|member| member.incarnation()) == incarnation
            })
    }

    /// Goes on for so long.
    pub(super) fn pass(&mut self, length: Duration) {
        let until = self.now + length;
        self.run(until, |_| false);
        self.now = until;
    }

    /// Goes on until something holds, for so long at the most; how long it took. Looks after each 20 ms.
    pub(super) fn until(&mut self, longest: Duration, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (begun, end) = (self.now, self.now + longest);
        while self.now < end {
            if holds(self) {
                return Some(self.now.since(begun));
            }
            self.pass(Duration::from_millis(20));
        }
        holds(self).then(|| self.now.since(begun))
    }

    fn run(&mut self, until: Timestamp, stop: impl Fn(&Self) -> bool) {
        while let Some(Reverse(Queued((at, _), _))) = self.queue.peek() {
            if *at > until || stop(self) {
                return;
            }
            let Some(Reverse(Queued((at, _), happening))) = self.queue.pop() else { return };
            self.now = at;
            self.happen(happening);
        }
    }

    fn happen(&mut self, happening: Happening) {
        let (node, life) = match &happening {
            Happening::Datagram { to, life, .. } | Happening::Asked { to, life, .. } => (*to, *life),
            Happening::Answered { to: node, life, .. } | Happening::Wake { node, life } => (*node, *life),
        };
        if self.lives[node] != life || self.processes[node].is_none() {
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
            return self.input(node, Input::Time);
        }
        self.hand_in(node, happening);
    }

    fn hand_in(&mut self, node: usize, happening: Happening) {
        match happening {
            Happening::Datagram { from, bytes, .. } => self.input(node, Input::Datagram { from: place(from), bytes }),
            Happening::Asked { from, asker, question, bytes, .. } => {
                self.number += 1;
                let channel = self.number;
                self.channels.insert(channel, (from, asker, question));
                self.input(node, Input::Asked { channel, bytes });
            }
            Happening::Answered { question, answer, .. } => self.input(node, Input::Answered { question, answer }),
            Happening::Wake { .. } => {
                let now = self.now;
                if self.processes[node].as_ref().is_some_and(|process| process.wake_at == Some(now)) {
                    if let Some(process) = &mut self.processes[node] {
                        process.wake_at = None;
                    }
                    self.input(node, Input::Time);
                }
            }
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let now = self.now;
        if let Some(process) = &mut self.processes[node] {
            process.machine.handle(now, input);
        }
        self.follow_up(node);
    }

    /// Does what the machine asks for.
    fn follow_up(&mut self, node: usize) {
        loop {
            let Some(process) = &mut self.processes[node] else { return };
            let Some(output) = process.machine.output() else { break };
            match output {
                Output::Send { to, bytes } => self.send(node, number_of(&to), bytes),
                Output::Ask { question, to, bytes } => self.ask(node, number_of(&to), question, bytes),
                Output::Answer { channel, bytes } => self.answer(channel, bytes),
                Output::Event(event) => self.tell(node, event),
            }
        }
        let life = self.lives[node];
        let Some(process) = &mut self.processes[node] else { return };
        if process.machine.has_left() {
            self.processes[node] = None;
            return;
        }
        let at = process.machine.next_at().max(self.now);
        if process.wake_at.is_none_or(|wake| at < wake) {
            process.wake_at = Some(at);
            self.push(at, Happening::Wake { node, life });
        }
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        assert!(bytes.len() <= 1400, "{} bytes", bytes.len());
        self.counts.datagrams += 1;
        self.counts.bytes += bytes.len() as u64;
        if to >= self.lives.len() || !self.network.passes(from, to, &mut self.dice) {
            return;
        }
        let life = self.lives[to];
        if chance(&mut self.dice, self.network.doubled) {
            let at = self.now + self.network.delay(&mut self.dice);
            self.push(at, Happening::Datagram { from, to, life, bytes: bytes.clone() });
        }
        let at = self.now + self.network.delay(&mut self.dice);
        self.push(at, Happening::Datagram { from, to, life, bytes });
    }

    fn ask(&mut self, from: usize, to: usize, question: Question, bytes: Vec<u8>) {
        self.counts.questions += 1;
        self.counts.question_bytes += bytes.len() as u64;
        let passes = to < self.lives.len()
            && self.processes[to].is_some()
            && self.network.passes(from, to, &mut self.dice)
            && self.network.passes(to, from, &mut self.dice);
        if !passes {
            let (at, life) = (self.now + PATIENCE, self.lives[from]);
            return self.push(at, Happening::Answered { to: from, life, question, answer: None });
        }
        let (at, life, asker) = (self.now + self.network.delay(&mut self.dice) * 2, self.lives[to], self.lives[from]);
        self.push(at, Happening::Asked { from, asker, to, question, life, bytes });
    }

    fn answer(&mut self, channel: u64, bytes: Vec<u8>) {
        let Some((to, life, question)) = self.channels.remove(&channel) else { return };
        self.counts.question_bytes += bytes.len() as u64;
        let at = self.now + self.network.delay(&mut self.dice);
        self.push(at, Happening::Answered { to, life, question, answer: Some(bytes) });
    }

    fn tell(&mut self, node: usize, event: Event) {
        let name = match &event {
            Event::Transition { at, node: about, to, from } => {
                let (by, incarnation, id) = (node, about.incarnation(), about.id().clone());
                self.seen.push(Seen { at: *at, by, node: id, incarnation, to: *to });
                match (from, to) {
                    (_, MemberState::Joining) => "-> joining",
                    (None, MemberState::Up) => "new -> up",
                    (Some(MemberState::Up), MemberState::Suspect) => "up -> suspect",
                    (Some(MemberState::Suspect), MemberState::Up) => "suspect -> up",
                    (Some(MemberState::Suspect), MemberState::Dead) => "suspect -> dead",
                    (Some(MemberState::Up), MemberState::Dead) => "up -> dead",
                    (Some(MemberState::Dead), MemberState::Up) => "dead -> up",
                    (_, MemberState::Left) => "-> left",
                    _ => "other transition",
                }
            }
            Event::Topology(update) => {
                if let Some(process) = &mut self.processes[node] {
                    process.updates.push(update.clone());
                }
                "topology"
            }
            Event::Quarantined { .. } => "quarantined",
            Event::Joined { .. } => "joined",
            Event::Refused { .. } => "refused",
            Event::Succeeded { .. } => "succeeded",
            Event::Isolated { .. } => "isolated",
            Event::Reached { .. } => "reached",
            Event::Expelled { .. } => "expelled",
            Event::Unusable { why, .. } => panic!("an unusable message: {why:?}"),
            Event::StoodStill { .. } => "stood still",
            Event::Left { .. } => "left",
        };
        *self.counts.events.entry(name).or_default() += 1;
    }

    fn push(&mut self, at: Timestamp, happening: Happening) {
        self.number += 1;
        self.queue.push(Reverse(Queued((at, self.number), happening)));
    }

    /// Whether the node counts as dead at that other, in its present life.
    pub(super) fn is_dead_at(&self, node: usize, other: usize) -> bool {
        let record = self.machine(other).and_then(|machine| machine.table().get(&id(node)));
        record.is_some_and(|record| matches!(record.state(), State::Dead { .. }))
    }
}
