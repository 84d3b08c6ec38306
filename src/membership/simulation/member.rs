//! The library's own member in a simulated world: the real machine, judged after each step.

use std::cell::RefCell;
use std::sync::Arc;

use super::checks::Checks;
use super::later::as_later_version;
use super::protocol::{Act, Arrival, Protocol, Seen, Start, View};
use crate::clock::Timestamp;
use crate::membership::event::{Event, MemberState};
use crate::membership::lifecycle::{Effect, Membership};
#[cfg(test)]
use crate::membership::machine::Machine;
use crate::membership::machine::{Input, Output, Question};
use crate::membership::outbox::Outbox;
use crate::membership::place::Place;
use crate::membership::settings::Settings;
use crate::membership::settling::TopologyUpdate;
use crate::topology::{ClusterNode, Members, NodeId};

/// The places of so many nodes are written only once.
const REMEMBERED: usize = 10_000;
/// The port of every member.
const PORT: u16 = 7946;

/// A member of a gossip cluster that the library builds, as a simulated world runs it.
#[derive(Debug)]
pub struct GossipMember {
    membership: Membership,
    acts: Outbox<Act>,
    seeds: Vec<Place>,
    updates: Vec<Arc<TopologyUpdate>>,
    /// What its host has applied, and how often applying fails from now on.
    applied: Members,
    failures: u32,
    /// Absent where it is not judged.
    checks: Option<Checks>,
    /// It speaks a later version of the protocol.
    is_later: bool,
}

pub(in crate::membership) fn place(node: usize) -> Place {
    thread_local! {
        // Every datagram says where it comes from.
        static PLACES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
    }
    let written =
        |node: usize| Place::new(&format!("10.{}.{}.{}", node >> 16 & 255, node >> 8 & 255, node & 255), PORT);
    if node >= REMEMBERED {
        return written(node);
    }
    PLACES.with_borrow_mut(|places| {
        places.extend((places.len()..=node).map(written));
        places[node].clone()
    })
}

pub(super) fn number_of(place: &Place) -> usize {
    place.host().split('.').skip(1).fold(0, |sum, part| sum << 8 | part.parse::<usize>().unwrap_or(usize::MAX >> 16))
}

/// Eight bytes.
pub(in crate::membership) fn id(node: usize) -> NodeId {
    NodeId::new(format!("n{node:07}")).unwrap_or_else(|_| unreachable!("a letter and digits"))
}

fn node_of(id: &NodeId) -> usize {
    id.as_str().trim_start_matches('n').parse().unwrap_or(usize::MAX)
}

impl GossipMember {
    /// With the settings of a data centre. Its id has 8 bytes, and it has neither kinds nor metadata.
    pub fn lan(start: &Start) -> Self {
        Self::with(start, Settings::lan("simulated"))
    }

    /// With the settings of one machine; else as [`lan`](Self::lan).
    pub fn local(start: &Start) -> Self {
        Self::with(start, Settings::local("simulated"))
    }

    /// With the settings of distant data centres; else as [`lan`](Self::lan).
    pub fn wan(start: &Start) -> Self {
        Self::with(start, Settings::wan("simulated"))
    }

    /// As [`lan`](Self::lan), but neither judged nor with a memory of its updates: for measurements of what a member itself costs.
    pub fn unjudged(start: &Start) -> Self {
        let mut member = Self::lan(start);
        member.checks = None;
        member.updates = Vec::new();
        member
    }

    pub(super) fn with(start: &Start, settings: Settings) -> Self {
        let builder = ClusterNode::builder(id(start.node).as_str(), place(start.node).host(), 7000);
        let node = builder.incarnation(start.life).build().ok().map(Arc::new);
        let seeds: Vec<Place> = start.seeds.iter().map(|seed| place(*seed)).collect();
        let mut membership = Membership::new(settings, true);
        let started = node.map(|node| membership.start((node, PORT), seeds.clone(), start.seed, start.now));
        let (mut acts, updates, checks) = (Outbox::default(), Vec::new(), Some(Checks::default()));
        if started != Some(Ok(())) {
            acts.put(Act::Fails(format!("no start: {started:?}")));
        }
        let applied = Members::new();
        let mut member = Self { membership, acts, seeds, updates, applied, failures: 0, checks, is_later: false };
        member.collect(start.now);
        member
    }

    /// It speaks a later version of the protocol from now on, which knows more parts and fields.
    #[cfg(test)]
    pub(super) fn speak_later_version(&mut self) {
        self.is_later = true;
    }

    /// Its host fails to apply the next so many updates.
    #[cfg(test)]
    pub(super) fn fail_to_apply(&mut self, times: u32) {
        self.failures = times;
    }

    #[cfg(test)]
    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    #[cfg(test)]
    pub(super) fn machine(&self) -> &Machine {
        self.membership.machine().unwrap_or_else(|| unreachable!("a world ends a process that has left"))
    }

    /// The updates of the topology, in order.
    #[cfg(test)]
    pub(super) fn updates(&self) -> &[Arc<TopologyUpdate>] {
        &self.updates
    }

    /// What its host has applied last.
    #[cfg(test)]
    pub(super) fn applied(&self) -> &Members {
        &self.applied
    }

    /// Something that does not come from the network.
    pub(super) fn input(&mut self, now: Timestamp, input: Input) {
        if let Err(why) = self.membership.handle(now, input) {
            self.acts.put(Act::Fails(why.to_string()));
        }
        self.collect(now);
    }

    fn collect(&mut self, now: Timestamp) {
        while let Some(effect) = self.membership.effect() {
            let said = |bytes: Vec<u8>| if self.is_later { as_later_version(&bytes) } else { bytes };
            let act = match effect {
                Effect::Do(Output::Send { to, bytes }) => Act::Send { to: number_of(&to), bytes: said(bytes) },
                Effect::Do(Output::Ask { question, to, bytes }) => {
                    Act::Ask { question: question.0, to: number_of(&to), bytes: said(bytes) }
                }
                Effect::Do(Output::Answer { channel, bytes }) => Act::Answer { channel, bytes: said(bytes) },
                Effect::Do(Output::Refuse { why, .. }) => Act::Fails(format!("an unusable question: {why:?}")),
                Effect::Do(Output::LookUp) => {
                    let seeds = self.seeds.clone();
                    if let Err(why) = self.membership.handle(now, Input::Seeds(seeds)) {
                        self.acts.put(Act::Fails(why.to_string()));
                    }
                    continue;
                }
                Effect::Do(Output::Event(event)) => {
                    if let Some(Err(why)) = self.checks.as_mut().map(|checks| checks.event(&event)) {
                        self.acts.put(Act::Fails(why));
                    }
                    self.told(event)
                }
                Effect::Apply(update) => {
                    let result = match self.failures.checked_sub(1) {
                        Some(left) => {
                            self.failures = left;
                            Err("it was told to fail".to_owned())
                        }
                        None => Ok(()),
                    };
                    let is_applied = result.is_ok();
                    self.membership.applied(update.number, result, now);
                    if is_applied {
                        self.applied = update.members.clone();
                    }
                    Act::Counts(if is_applied { "applied" } else { "could not apply" })
                }
            };
            self.acts.put(act);
        }
        let judged = self.membership.machine().zip(self.checks.as_mut());
        if let Some(Err(why)) = judged.map(|(machine, checks)| checks.step(machine)) {
            self.acts.put(Act::Fails(why));
        }
    }

    fn told(&mut self, event: Event) -> Act {
        Act::Counts(match event {
            Event::Transition { at: _, node, from, to } => {
                let (node, life) = (node_of(node.id()), node.incarnation());
                return Act::Sees { node, life, before: from.map(seen), state: seen(to) };
            }
            Event::Topology(update) => {
                if self.checks.is_some() {
                    self.updates.push(update);
                }
                "topology"
            }
            Event::Quarantined { .. } => "quarantined",
            Event::Joined { .. } => "joined",
            Event::Refused { .. } => "refused",
            Event::TurnedAway { .. } => "turned away",
            Event::Ruled { .. } => "ruled",
            Event::NoRoom { of, .. } => return Act::Fails(format!("no room for {of:?}")),
            Event::Succeeded { .. } => "succeeded",
            Event::IdTaken { .. } => "id taken",
            Event::Isolated { .. } => "isolated",
            Event::Reached { .. } => "reached",
            Event::GivenUp { .. } => "given up",
            Event::Expelled { .. } => "expelled",
            Event::NotApplied { .. } => "not applied",
            Event::Unusable { why, .. } => return Act::Fails(format!("an unusable message: {why:?}")),
            Event::OneChannel { .. } => "one channel",
            Event::StoodStill { .. } => "stood still",
            Event::Left { .. } => "left",
        })
    }
}

fn seen(state: MemberState) -> Seen {
    match state {
        MemberState::Joining => Seen::Joining,
        MemberState::Up => Seen::Up,
        MemberState::Suspect => Seen::Suspect,
        MemberState::Dead => Seen::Dead,
        MemberState::Left => Seen::Left,
    }
}

impl Protocol for GossipMember {
    fn handle(&mut self, now: Timestamp, arrival: Arrival) {
        let input = match arrival {
            Arrival::Datagram { from, bytes } => Input::Datagram { from: place(from), bytes },
            Arrival::Asked { channel, bytes } => Input::Asked { channel, bytes },
            Arrival::Answered { question, answer } => Input::Answered { question: Question(question), answer },
            Arrival::Time => Input::Time,
            Arrival::Leave => Input::Leave,
        };
        self.input(now, input);
    }

    fn act(&mut self) -> Option<Act> {
        self.acts.take()
    }

    fn next_at(&self) -> Option<Timestamp> {
        self.membership.next_at()
    }

    fn has_ended(&self) -> bool {
        !self.membership.is_running()
    }

    fn view(&self) -> View {
        let members = self.membership.members();
        View { members: members.len(), hash: members.hash() }
    }

    fn holds(&self, node: usize) -> Option<u64> {
        self.membership.members().get(id(node)).map(|member| member.incarnation())
    }
}
