//! Any bytes as what arrives at a node: datagrams and connections, whole and in pieces, sealed and not, the answers to what
//! the node asks, refusals, and time. What arrives takes the way on which the [`carrier`](super::carrier) takes it, but for
//! the sockets: frames, flood limit, envelope, names, and the member or observer behind them.
//!
//! Whatever it is, nothing panics, and this holds after each step:
//!
//! - A frame is the bytes that arrived, no sooner and no later than they are complete; and no more is held than there is
//!   room for.
//! - Where a node seals, it takes nothing that was not sealed with its keys, for that channel, and nothing twice; whatever
//!   it does not take makes it send nothing. What it sends can be opened, and fits into a datagram.
//! - Of one host no more datagrams are looked at than the limit says.
//! - A question is answered once, while whoever asked still waits. One that is not taken is refused with the reason.
//! - An update that the host could not apply is offered again.
//! - What has to hold of a member holds.

mod carrying;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::carrying::Connection;
use super::envelope::Envelope;
use super::flood::Flood;
use super::frame::{Frame, PIECE};
use super::names::Names;
use super::resident::{Onlooker, Resident};
use crate::clock::Timestamp;
use crate::membership::lifecycle::Membership;
use crate::membership::machine::{Input, Order, Question};
use crate::membership::message::{LabelHash, MessageWriter, read_message};
use crate::membership::observer::Observer;
use crate::membership::place::Place;
use crate::membership::record::Life;
use crate::membership::sealing::keyring::Keyring;
use crate::membership::sealing::{Channel, OVERHEAD, Sealing};
use crate::membership::settings::Settings;
use crate::membership::simulation::{Checks, LABEL, NODES, Script, id, place};
use crate::topology::{ClusterNode, Members};

/// How many packets are kept, to arrive once more.
const KEPT: usize = 16;
/// Where the content of a message begins, and the session and the counter of a sealed one.
const CONTENT: usize = 4;
const SESSION: std::ops::Range<usize> = 6..23;
/// Who seals: two with keys of the cluster, one with another key, and one of another cluster.
const SEALERS: usize = 4;
/// The keys of the cluster, step by step, by the numbers of those who seal with them.
const RINGS: [&[usize]; 4] = [&[0], &[0, 1], &[1, 0], &[1]];

/// Lets arrive at a node what the bytes say.
///
/// # Panics
/// If something does not hold that has to.
pub fn run_any_traffic(bytes: &[u8]) {
    let mut script = Script(bytes);
    let Some(mut traffic) = script.byte().and_then(Traffic::new) else { return };
    traffic.follow_up();
    while let Some(step) = script.byte() {
        if traffic.step(step % 21, &mut script).is_none() {
            break;
        }
        traffic.follow_up();
        if traffic.resident.has_ended() {
            return;
        }
    }
    traffic.come_to_rest();
}

/// A packet that somebody has sealed.
struct Sealed {
    /// Absent where it was the node itself.
    by: Option<usize>,
    channel: Channel,
    plain: Vec<u8>,
    is_taken: bool,
}

struct Traffic {
    now: Timestamp,
    began: Timestamp,
    instant: Instant,
    resident: Resident,
    envelope: Envelope,
    flood: Flood,
    names: Names,
    connections: BTreeMap<u64, Connection>,
    count: u64,
    /// What has been answered, or refused.
    answered: BTreeSet<u64>,
    asked: BTreeMap<Question, (SocketAddr, Vec<u8>)>,
    /// Those who seal, which of them have the node's keys, and whoever opens what the node says.
    sealers: Vec<Sealing>,
    ring: usize,
    listener: Sealing,
    sealed: BTreeMap<Vec<u8>, Sealed>,
    kept: VecDeque<Vec<u8>>,
    /// What the node said last, before it was sealed.
    said: Vec<u8>,
    /// How many datagrams of each host were looked at.
    passed: BTreeMap<IpAddr, f64>,
    checks: Checks,
    /// The members and the number of the update, as the host has them.
    members: Members,
    updates: u64,
    applies: bool,
    /// The last update was not applied.
    missed: bool,
    /// How many datagrams the node has sent, and how it has replied to questions.
    sent: usize,
    replies: Vec<Frame>,
}

fn key(number: usize) -> String {
    format!("{:02x}", number + 1).repeat(32)
}

fn ring(numbers: &[usize]) -> Option<Keyring> {
    let keys: Vec<String> = numbers.iter().map(|number| key(*number)).collect();
    Keyring::parse(&keys.join("\n")).ok()
}

fn sealing(label: &str, node: usize, keys: &[usize]) -> Option<Sealing> {
    Some(Sealing::new(label, id(node), ring(keys)?, 1_000_000, [node as u8; 6]))
}

fn address(place: &Place) -> Option<IpAddr> {
    place.host().parse().ok()
}

impl Traffic {
    /// Of a node as the byte says: a member, alone or with seeds, or an observer; sealed or not.
    fn new(kind: u8) -> Option<Self> {
        let (now, instant) = (Timestamp::from_millis(1_000_000), Instant::now());
        let (seals, standing) = (kind % 2 == 1, kind / 2 % 3);
        let own = if standing == 2 { usize::from(NODES) } else { 0 };
        let envelope = match seals {
            false => Envelope::Plain,
            true => Envelope::Sealed { sealing: Box::new(sealing(LABEL, own, RINGS[0])?), round: now },
        };
        let mut settings = Settings::lan(LABEL);
        settings.datagram -= if seals { OVERHEAD } else { 0 };
        let seeds = vec![place(1), place(2)];
        let resident = match standing {
            0 | 1 => {
                let mut membership = Box::new(Membership::new(settings, true));
                let node = ClusterNode::builder(id(0).as_str(), place(0).host(), 7000).incarnation(1).build().ok()?;
                let seeds = if standing == 0 { vec![] } else { seeds };
                membership.start((Arc::new(node), place(0).port()), seeds, 1, now).ok()?;
                Resident::Member(membership)
            }
            _ => {
                let own = Life { id: id(own), incarnation: 1 };
                Resident::Observer(Box::new(Onlooker::new(Observer::new(LABEL, own, seeds, 1, now))))
            }
        };
        let sealers = (0..SEALERS).map(|number| match number {
            3 => sealing("another", 13, &[0]),
            number => sealing(LABEL, 10 + number, &[number]),
        });
        let sealers: Option<Vec<Sealing>> = sealers.collect();
        Some(Self {
            now,
            began: now,
            instant,
            resident,
            envelope,
            flood: Flood::default(),
            names: Names::default(),
            connections: BTreeMap::new(),
            count: 0,
            answered: BTreeSet::new(),
            asked: BTreeMap::new(),
            sealers: sealers?,
            ring: 0,
            listener: sealing(LABEL, 20, &[0, 1])?,
            sealed: BTreeMap::new(),
            kept: VecDeque::new(),
            said: Vec::new(),
            passed: BTreeMap::new(),
            checks: Checks::default(),
            members: Members::new(),
            updates: 0,
            applies: true,
            missed: false,
            sent: 0,
            replies: Vec::new(),
        })
    }

    fn seals(&self) -> bool {
        matches!(self.envelope, Envelope::Sealed { .. })
    }

    fn is_member(&self) -> bool {
        matches!(self.resident, Resident::Member(_))
    }

    /// `None`: the script is over.
    fn step(&mut self, kind: u8, script: &mut Script<'_>) -> Option<()> {
        match kind {
            0 => {
                let (from, bytes) = (script.node()?, script.bytes()?.to_vec());
                self.datagram(&place(from), bytes);
            }
            1 | 2 => {
                let (from, plain) = script.message()?;
                let bytes = self.wrapped(Channel::Datagram, plain);
                self.datagram(&place(from), bytes);
            }
            3 => {
                let (from, bytes) = (script.node()?, self.sealed_by_any(script)?);
                self.datagram(&place(from), bytes);
            }
            4 => {
                let (from, bytes) = (script.node()?, self.kept(script)?);
                self.datagram(&place(from), bytes);
            }
            5 => {
                let bytes = script.bytes()?.to_vec();
                self.connect(bytes, 1 << 10);
            }
            6 => {
                let plain = script.message()?.1;
                let bytes = self.wrapped(Channel::Reliable, plain);
                let cut = script.byte()?;
                self.connect(Frame::Message(bytes).into_bytes(), cut.into());
            }
            7 => {
                let bytes = self.sealed_by_any(script)?;
                self.connect(Frame::Message(bytes).into_bytes(), 1 << 10);
            }
            8 => {
                let channel = self.any_channel(script, |_| true)?;
                let bytes = script.bytes()?.to_vec();
                self.arrive(channel, bytes, 1 << 10);
            }
            9 => {
                let channel = self.any_channel(script, |_| true)?;
                let end = match script.byte()? % 4 {
                    0 | 1 => None,
                    2 => Some(ErrorKind::ConnectionReset),
                    _ => Some(ErrorKind::TimedOut),
                };
                if let Some(connection) = self.connections.get_mut(&channel) {
                    connection.wire.end = Some(end);
                }
                self.advance(channel);
            }
            10 | 11 => {
                let channel = self.any_channel(script, |connection| connection.question.is_some())?;
                let plain = script.message()?.1;
                let bytes = self.wrapped(Channel::Reliable, plain);
                let cut = script.byte()?;
                self.arrive(channel, Frame::Message(bytes).into_bytes(), cut.into());
            }
            12 => {
                let channel = self.any_channel(script, |connection| connection.question.is_some())?;
                self.arrive(channel, vec![0, 0, 0, 0, script.byte()?], 3);
            }
            13 => {
                let channel = self.any_channel(script, |_| true)?;
                let bytes = self.kept(script)?;
                self.arrive(channel, Frame::Message(bytes).into_bytes(), 1 << 10);
            }
            14 => self.tell_stale(script)?,
            15 => {
                self.now = self.now + Duration::from_millis(u64::from(script.byte()?) * 97);
                self.pass();
            }
            16 => {
                self.now = self.resident.next_at().map_or(self.now, |next| next.max(self.now));
                self.pass();
            }
            17 => {
                let (from, times) = (script.node()?, u32::from(script.byte()?) * 32);
                let bytes = self.wrapped(Channel::Datagram, script.message()?.1);
                self.flooded(&place(from), times, &bytes);
            }
            18 => {
                // The parts of a message over and over.
                let (times, (sender, _), parts) = (script.byte()?, script.message()?, script.bytes()?);
                let writer = MessageWriter::new(LabelHash::of(LABEL), &Life { id: id(sender), incarnation: 1 });
                let plain = [writer.into_bytes(), parts.repeat(usize::from(times) * 2)].concat();
                let bytes = Frame::Message(self.wrapped(Channel::Reliable, plain)).into_bytes();
                match self.any_channel(script, |connection| connection.question.is_some()) {
                    Some(channel) => self.arrive(channel, bytes, PIECE + 1),
                    None => self.connect(bytes, PIECE + 1),
                }
            }
            19 => {
                // What the node said, as if another had.
                let (sender, way) = (script.node()?, script.byte()?);
                let message = read_message(&self.said, LabelHash::of(LABEL), self.now).ok()?;
                let life = Life { id: id(sender), incarnation: u64::from(way % 4) };
                let mut writer = MessageWriter::new(LabelHash::of(LABEL), &life);
                message.parts.iter().for_each(|part| writer.part(part, self.now));
                let plain = writer.into_bytes();
                match way / 4 % 3 {
                    0 => {
                        let bytes = self.wrapped(Channel::Datagram, plain);
                        self.datagram(&place(sender), bytes);
                    }
                    1 => {
                        let bytes = self.wrapped(Channel::Reliable, plain);
                        self.connect(Frame::Message(bytes).into_bytes(), 1 << 10);
                    }
                    _ => {
                        let channel = self.any_channel(script, |connection| connection.question.is_some())?;
                        let bytes = self.wrapped(Channel::Reliable, plain);
                        self.arrive(channel, Frame::Message(bytes).into_bytes(), 1 << 10);
                    }
                }
            }
            _ => self.change(script)?,
        }
        Some(())
    }

    /// Something that comes from the node's own side.
    fn change(&mut self, script: &mut Script<'_>) -> Option<()> {
        let kind = script.byte()?;
        match kind % 8 {
            0 => {
                let seeds = script.bytes()?.iter().map(|node| place(usize::from(*node % NODES))).collect();
                self.hand_in(Input::Seeds(seeds));
            }
            1 => {
                let host = self.names.next()?;
                let found = script.bytes()?.chunks_exact(4).map(|at| IpAddr::from([at[0], at[1], at[2], at[3]]));
                let found: Vec<IpAddr> = found.collect();
                let result = if found.is_empty() { Err("there is none".to_owned()) } else { Ok(found) };
                self.names.found(&host, result, self.now);
            }
            2 => {
                self.ring = usize::from(script.byte()?) % RINGS.len();
                self.envelope.set_keys(ring(RINGS[self.ring])?);
            }
            3 => {
                // As the carrier does, but with what is the same in each run.
                let start = (self.now.as_nanos() / 1_000_000, [script.byte()?, 99, 0, 0, 0, 0]);
                if let Envelope::Sealed { sealing, .. } = &mut self.envelope {
                    _ = sealing.begin_anew(start.0, start.1);
                }
            }
            4 => self.applies = !self.applies,
            5 => {
                let id = id(script.node()?);
                let order = match script.byte()? {
                    0 => Order::Lift,
                    1 => Order::Pin(None),
                    length => Order::Pin(Some(Duration::from_secs(length.into()))),
                };
                self.hand_in(Input::Rule { id, order });
            }
            6 => {
                let id = id(script.node()?);
                self.hand_in(Input::Evidence(id));
            }
            _ => self.hand_in(Input::Leave),
        }
        Some(())
    }

    /// As a packet of somebody who has the node's keys, or plain where it has none.
    fn wrapped(&mut self, channel: Channel, plain: Vec<u8>) -> Vec<u8> {
        match (self.seals(), RINGS[self.ring]) {
            (true, [first, ..]) => self.sealed_by(*first, channel, plain.get(CONTENT..).unwrap_or_default()),
            _ => {
                self.keep(plain.clone());
                plain
            }
        }
    }

    fn sealed_by(&mut self, by: usize, channel: Channel, content: &[u8]) -> Vec<u8> {
        let Ok(bytes) = self.sealers[by].seal_content(channel, content) else { return Vec::new() };
        let plain = [&LabelHash::of(LABEL).to_bytes(), content].concat();
        self.sealed.insert(bytes.clone(), Sealed { by: Some(by), channel, plain, is_taken: false });
        self.keep(bytes.clone());
        bytes
    }

    /// By any of those who seal, for any channel, and perhaps changed on the way.
    fn sealed_by_any(&mut self, script: &mut Script<'_>) -> Option<Vec<u8>> {
        let (by, flip) = (script.byte()?, script.byte()?);
        let channel = if by & 4 == 0 { Channel::Datagram } else { Channel::Reliable };
        let content = match by & 8 {
            0 => script.message()?.1.split_off(CONTENT),
            _ => script.bytes()?.to_vec(),
        };
        let mut bytes = self.sealed_by(usize::from(by) % SEALERS, channel, &content);
        if let Some(byte) = flip.checked_sub(1).and_then(|at| bytes.get_mut(usize::from(at))) {
            *byte ^= 1 << (by >> 5);
        }
        Some(bytes)
    }

    fn keep(&mut self, bytes: Vec<u8>) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(bytes);
    }

    fn kept(&self, script: &mut Script<'_>) -> Option<Vec<u8>> {
        let number = usize::from(script.byte()?);
        self.kept.get(number % self.kept.len().max(1)).cloned()
    }

    fn any_channel(&self, script: &mut Script<'_>, is_it: impl Fn(&Connection) -> bool) -> Option<u64> {
        let number = usize::from(script.byte()?);
        let fitting: Vec<u64> =
            self.connections.iter().filter(|(_, it)| is_it(it)).map(|(channel, _)| *channel).collect();
        fitting.get(number % fitting.len().max(1)).copied()
    }

    /// Somebody who holds a key says that the node's session was overtaken.
    fn tell_stale(&mut self, script: &mut Script<'_>) -> Option<()> {
        let channel = self.any_channel(script, |connection| connection.question.is_some())?;
        let least = 999_990 + u64::from(script.byte()?);
        let own = |sealed: &&Vec<u8>| self.sealed.get(*sealed).is_some_and(|it| it.by.is_none());
        let question = self.kept.iter().rev().find(own)?.get(SESSION)?.to_vec();
        let content = [&[0], &question[..], &least.to_be_bytes()].concat();
        let first = *RINGS[self.ring].first()?;
        let bytes = self.sealed_by(first, Channel::Reliable, &content);
        self.arrive(channel, Frame::Message(bytes).into_bytes(), 1 << 10);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{LONGEST, Reason};
    use super::carrying::HELD;
    use super::*;
    use crate::membership::record::{Record, State};
    use crate::membership::wire::part::Part;
    use proptest::prelude::*;

    const PLAIN: u8 = 0;
    const SEALED: u8 = 1;
    const WITH_SEEDS: u8 = 2;
    const OBSERVER: u8 = 4;
    /// What node 1 in its first life says: a ping of node 0.
    const PING: &[u8] = b"\x01\x01\x15\x01\x13\x07\x08n0000000\x01\0\0\0\0\0\0\0\0";

    fn step(kind: u8, rest: &[&[u8]]) -> Vec<u8> {
        [&[kind], &rest.concat()[..]].concat()
    }

    /// A node of that kind after these steps.
    fn after(kind: u8, steps: &[Vec<u8>]) -> Traffic {
        let mut traffic = Traffic::new(kind).unwrap();
        traffic.follow_up();
        for step in steps {
            let mut script = Script(&step[1..]);
            assert_eq!(traffic.step(step[0], &mut script), Some(()), "{step:?}");
            assert_eq!(script.0, b"", "{step:?}");
            traffic.follow_up();
        }
        traffic
    }

    #[test]
    fn m2_5_what_was_sealed_with_the_keys_is_taken_once_and_nothing_else_is() {
        let ping = step(1, &[PING]);
        let sent = |steps: &[Vec<u8>]| after(SEALED, steps).sent;
        assert_eq!((sent(&[]), sent(std::slice::from_ref(&ping))), (0, 1));
        let again = step(4, &[&[1, 0]]);
        assert_eq!(sent(&[ping.clone(), again.clone()]), 1);
        assert_eq!(after(PLAIN, &[ping.clone(), again]).sent, 2, "a plain packet counts as often as it comes");
        let sealed = |by: u8, flip: u8| step(3, &[&[1, by, flip], PING]);
        assert_eq!(sent(&[sealed(0, 0)]), 1);
        for (by, flip) in [(0, 40), (0, 1), (1, 0), (2, 0), (3, 0), (4, 0)] {
            assert_eq!(sent(&[sealed(by, flip)]), 0, "{by} {flip}");
        }
        let rotated = step(20, &[&[2, 1]]);
        assert_eq!(sent(&[rotated, sealed(1, 0)]), 1);
        let mut forgetful = after(SEALED, &[]);
        let bytes = forgetful.sealed_by(0, Channel::Datagram, b"\x01\x01\x01n\x01");
        forgetful.sealed.clear();
        let is_noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            forgetful.datagram(&place(1), bytes);
        }));
        assert!(is_noticed.is_err());
    }

    #[test]
    fn m2_5_whoever_asks_is_answered_or_refused_with_the_reason() {
        let asks = step(6, &[PING, &[3]]);
        for kind in [PLAIN, SEALED] {
            let replies = after(kind, std::slice::from_ref(&asks)).replies;
            assert!(matches!(replies[..], [Frame::Message(_)]), "{replies:?}");
        }
        let raw = |content: &[u8]| {
            let frame = Frame::Message(content.to_vec()).into_bytes();
            step(5, &[&[frame.len() as u8], &frame])
        };
        let label = LabelHash::of(LABEL).to_bytes();
        let plain = [&label[..], b"\x01\x01\x01n\x01"].concat();
        let too_new = [&label[..], b"\x09\x09\x01n\x01"].concat();
        let sealed = [&label[..], &[0xe2; 60]].concat();
        let refused = |kind, step| after(kind, &[step]).replies;
        for (kind, step, reason) in [
            (PLAIN, raw(b"another cluster"), Reason::OtherCluster),
            (PLAIN, raw(&sealed), Reason::Sealed),
            (PLAIN, raw(&too_new), Reason::OtherVersion),
            (PLAIN, raw(b"?"), Reason::Other(0)),
            (SEALED, raw(b"another cluster"), Reason::OtherCluster),
            (SEALED, raw(&plain), Reason::NotSealed),
            (SEALED, step(7, &[&[4 | 2, 0], PING]), Reason::NoSuchKey),
            (SEALED, step(7, &[&[4, 40], PING]), Reason::NoSuchKey),
        ] {
            assert_eq!(refused(kind, step), [Frame::Refusal(reason)]);
        }
    }

    #[test]
    fn m2_5_an_answer_counts_for_the_question_and_a_refusal_ends_it() {
        let open = |traffic: &Traffic| traffic.connections.values().filter(|it| it.question.is_some()).count();
        for kind in [WITH_SEEDS, OBSERVER, SEALED | WITH_SEEDS, SEALED | OBSERVER] {
            let begins = step(16, &[]);
            let asking = after(kind, std::slice::from_ref(&begins));
            assert!(open(&asking) > 0, "{kind}");
            let refused = after(kind, &[begins.clone(), step(12, &[&[0, 1]])]);
            assert_eq!(open(&refused), open(&asking) - 1, "{kind}");
            if kind & SEALED != 0 {
                let restarted = after(kind, &[begins, step(14, &[&[0, 100]])]);
                assert_eq!(open(&restarted), open(&asking), "it asks once more");
            }
        }
    }

    #[test]
    fn m2_5_more_than_there_is_room_for_is_not_held() {
        let claims = [&u32::try_from(LONGEST).unwrap().to_be_bytes()[..], &[7; 200]].concat();
        let mut traffic = after(PLAIN, &[step(5, &[&[204], &claims])]);
        let channel = *traffic.connections.keys().next().unwrap();
        traffic.arrive(channel, vec![7; HELD], 1000);
        assert!(traffic.connections.is_empty(), "it was let go of");
    }

    #[test]
    fn m4_4_m5_5_what_the_host_of_an_observer_could_not_apply_is_offered_again() {
        let fails = step(20, &[&[4]]);
        let mut traffic = after(OBSERVER, &[step(16, &[]), fails]);
        let node = ClusterNode::builder(id(1).as_str(), place(1).host(), 7000).incarnation(1).build().unwrap();
        let record = Record::new(Arc::new(node), 0, State::Up, 0).unwrap().reached_at(place(1).port());
        let (members, _) = Members::from_nodes(vec![Arc::clone(record.node())]);
        let mut writer = MessageWriter::new(LabelHash::of(LABEL), &Life { id: id(1), incarnation: 1 });
        writer.part(&Part::Observed { hash: members.hash(), is_whole: true, gone: vec![] }, traffic.now);
        writer.part(&Part::Record(record), traffic.now);
        let bytes = writer.into_bytes();
        let (channel, _) = traffic.connections.iter().find(|(_, it)| it.question.is_some()).unwrap();
        traffic.arrive(*channel, Frame::Message(bytes).into_bytes(), 7);
        traffic.follow_up();
        assert!(traffic.missed && traffic.members.is_empty());
        traffic.come_to_rest();
        assert_eq!(traffic.members, members);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]
        #[test]
        fn m2_5_whatever_arrives_at_a_node_what_has_to_hold_holds(
            kind in 0u8..6, bytes in prop::collection::vec(prop_oneof![0u8..24, any::<u8>()], 0..500),
        ) {
            run_any_traffic(&[&[kind], &bytes[..]].concat());
        }
    }
}
