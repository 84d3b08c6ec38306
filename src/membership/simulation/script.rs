//! Any bytes as what happens to a member: packets, answers, orders and time, in any order. Whatever they are, nothing panics
//! and what has to hold of a member holds after each step.

use std::sync::Arc;
use std::time::Duration;

use super::checks::Checks;
use super::member::{id, place};
use crate::clock::Timestamp;
use crate::membership::event::Event;
use crate::membership::heard::Heard;
use crate::membership::lifecycle::{Effect, Membership};
use crate::membership::machine::{Input, Order, Output, Question};
use crate::membership::message::{LabelHash, Message, MessageWriter, read_datagram, read_message};
use crate::membership::observer::{Deed, Observer};
use crate::membership::record::Life;
use crate::membership::settings::Settings;
use crate::topology::{ClusterNode, NodeId};

pub(in crate::membership) const LABEL: &str = "scripted";
/// So many nodes are spoken of.
pub(in crate::membership) const NODES: u8 = 8;

/// Takes bytes from the front.
pub(in crate::membership) struct Script<'a>(pub(in crate::membership) &'a [u8]);

impl<'a> Script<'a> {
    pub(in crate::membership) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// As many bytes as the next one says.
    pub(in crate::membership) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(bytes)
    }

    pub(in crate::membership) fn node(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()? % NODES))
    }

    /// A message whose head is right, of somebody.
    pub(in crate::membership) fn message(&mut self) -> Option<(usize, Vec<u8>)> {
        let (sender, incarnation) = (self.node()?, u64::from(self.byte()? % 4));
        let writer = MessageWriter::new(LabelHash::of(LABEL), &Life { id: id(sender), incarnation });
        Some((sender, [&writer.into_bytes(), self.bytes()?].concat()))
    }
}

fn start() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

/// Reads the bytes as a message, in each of the ways in which one arrives. What is read is written and read again as it was.
///
/// # Panics
/// If not.
pub fn read_any_message(bytes: &[u8]) {
    let (label, now) = (LabelHash::of(LABEL), start());
    let headed = MessageWriter::new(label, &Life { id: id(1), incarnation: 1 });
    for bytes in [bytes, &[&headed.into_bytes(), bytes].concat()] {
        let Ok(message) = read_message(bytes, label, now) else { continue };
        let datagram = read_datagram(bytes, label, &Heard::new(1), now);
        assert_eq!(datagram.map(|datagram| datagram.parts).as_ref(), Ok(&message.parts));
        let again = read_message(&written(&message, now), label, now);
        assert_eq!(again.as_ref(), Ok(&message));
    }
}

/// Opens the bytes as a sealed message, as they are and as the content of one. None is taken twice.
///
/// # Panics
/// If one is.
#[cfg(feature = "gossip")]
pub fn open_any_sealed(bytes: &[u8]) {
    use crate::membership::sealing::keyring::Keyring;
    use crate::membership::sealing::{Channel, Sealing, is_sealed};

    let sealing = |n, start| {
        let keyring = Keyring::parse(&"01".repeat(32)).ok()?;
        Some(Sealing::new(LABEL, id(n), keyring, start, [n as u8; 6]))
    };
    let (Some(mut member), Some(mut other)) = (sealing(1, 1_000_000), sealing(2, 1_000_001)) else { return };
    // There is a question that may be answered.
    let hello = MessageWriter::new(LabelHash::of(LABEL), &Life { id: id(1), incarnation: 1 });
    _ = member.seal(Channel::Reliable, &hello.into_bytes());
    for channel in [Channel::Datagram, Channel::Reliable] {
        let sealed = other.seal_content(channel, bytes);
        for bytes in sealed.iter().map(Vec::as_slice).chain([bytes]) {
            _ = is_sealed(bytes);
            if member.open(channel, bytes, start()).is_ok() {
                assert!(member.open(channel, bytes, start()).is_err(), "it was taken twice");
            }
        }
    }
}

fn written(message: &Message, now: Timestamp) -> Vec<u8> {
    let mut writer = MessageWriter::new(LabelHash::of(LABEL), &message.sender);
    message.parts.iter().for_each(|part| writer.part(part, now));
    writer.into_bytes()
}

/// Lets happen to a member, and to an observer beside it, what the bytes say.
///
/// # Panics
/// If something does not hold that has to.
pub fn run_any_script(bytes: &[u8]) {
    let mut script = Script(bytes);
    let mut run = Run::new();
    while let Some(step) = script.byte() {
        if run.step(step % 12, &mut script).is_none() {
            break;
        }
        run.follow_up();
    }
}

struct Run {
    now: Timestamp,
    membership: Membership,
    observer: Observer,
    checks: Checks,
    lives: u64,
}

impl Run {
    fn new() -> Self {
        let (now, membership) = (start(), Membership::new(Settings::lan(LABEL), true));
        let own = Life { id: id(usize::from(NODES)), incarnation: 1 };
        let observer = Observer::new(LABEL, own, vec![place(0), place(1)], 1, now);
        let mut run = Self { now, membership, observer, checks: Checks::default(), lives: 0 };
        run.start(false);
        run.follow_up();
        run
    }

    fn start(&mut self, has_seeds: bool) {
        self.lives += 1;
        let node = ClusterNode::builder(id(0).as_str(), place(0).host(), 7000).incarnation(self.lives).build();
        let seeds = if has_seeds { vec![place(1), place(2)] } else { vec![] };
        if let Ok(node) = node
            && self.membership.start((Arc::new(node), place(0).port()), seeds, self.lives, self.now).is_ok()
        {
            self.checks = Checks::default();
        }
    }

    /// `None`: the script is over.
    fn step(&mut self, kind: u8, script: &mut Script<'_>) -> Option<()> {
        let input = match kind {
            0 => Input::Datagram { from: place(script.node()?), bytes: script.bytes()?.to_vec() },
            1 | 2 => {
                let (from, bytes) = script.message()?;
                Input::Datagram { from: place(from), bytes }
            }
            3 => Input::Asked { channel: u64::from(script.byte()? % 16), bytes: script.message()?.1 },
            4 => {
                let question = Question(u64::from(script.byte()?));
                let (_, bytes) = script.message()?;
                self.observer.answered(question, Some(&bytes), self.now);
                Input::Answered { question, answer: Some(bytes) }
            }
            5 => {
                let question = Question(u64::from(script.byte()?));
                self.observer.answered(question, None, self.now);
                Input::Answered { question, answer: None }
            }
            6 => {
                self.now = self.now + Duration::from_millis(u64::from(script.byte()?) * 97);
                Input::Time
            }
            7 => {
                self.now = self.membership.next_at().map_or(self.now, |next| next.max(self.now));
                Input::Time
            }
            8 => {
                let id = NodeId::new(format!("n{:07}", script.node()?)).ok()?;
                let length = script.byte()?;
                let order = match length {
                    0 => Order::Lift,
                    1 => Order::Pin(None),
                    length => Order::Pin(Some(Duration::from_secs(u64::from(length)))),
                };
                Input::Rule { id, order }
            }
            9 => {
                let described = ClusterNode::builder("x", "y", 1).metadata("changed", script.byte()?.to_string());
                Input::Describe(Arc::new(described.build().ok()?))
            }
            10 => {
                self.start(script.byte()? % 2 == 0);
                return Some(());
            }
            _ => Input::Leave,
        };
        let is_running = self.membership.is_running();
        assert_eq!(self.membership.handle(self.now, input).is_ok(), is_running);
        self.observer.pass(self.now);
        Some(())
    }

    fn follow_up(&mut self) {
        while let Some(effect) = self.membership.effect() {
            match effect {
                Effect::Do(Output::Send { bytes, .. }) => {
                    assert!(bytes.len() <= 1400, "a datagram of {} bytes", bytes.len())
                }
                Effect::Do(Output::Event(event)) => {
                    let result = self.checks.event(&event);
                    assert_eq!(result, Ok(()), "{event:?}");
                    if let Event::Topology(update) = event {
                        self.membership.applied(update.number, Ok(()), self.now);
                    }
                }
                Effect::Do(Output::Ask { .. } | Output::Answer { .. } | Output::Refuse { .. } | Output::LookUp)
                | Effect::Apply(_) => {}
            }
        }
        if let Some(machine) = self.membership.machine() {
            assert_eq!(self.checks.step(machine), Ok(()));
        }
        while let Some(deed) = self.observer.deed() {
            if let Deed::Topology(update) = deed {
                assert_eq!(update.members, *self.observer.members());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn m2_5_whatever_arrives_in_whichever_order_what_has_to_hold_holds(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            run_any_script(&bytes);
            read_any_message(&bytes);
            #[cfg(feature = "gossip")]
            open_any_sealed(&bytes);
        }
    }
}
