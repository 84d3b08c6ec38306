//! foca as a member of a simulated world. It does no input and output of its own, so that it runs exactly as it is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use bytes::{Buf, BufMut};
use cluster_provisioning::Timestamp;
use cluster_provisioning::testkit::gossip::{Act, Arrival, Protocol, Seen, Start, View};
use foca::{Codec, Config, Foca, Header, Member, Message, NoCustomBroadcast, Notification, Runtime, State, Timer};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng;

/// While it knows nobody, it asks its seeds again after so long. foca leaves that to its host.
const ASKS_AGAIN: Duration = Duration::from_secs(1);

/// The eight bytes of an id, as the library's own members have it, and the life: a later one wins, and whoever was
/// declared down goes on in the next one, as foca recommends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    id: [u8; 8],
    life: u64,
}

impl Identity {
    fn new(node: usize, life: u64) -> Self {
        let mut id = *b"n0000000";
        let mut rest = node;
        for digit in id[1..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self { id, life }
    }

    fn node(&self) -> usize {
        self.id[1..].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit.wrapping_sub(b'0')))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{:07}/{}", self.node(), self.life)
    }
}

impl foca::Identity for Identity {
    type Addr = [u8; 8];

    fn renew(&self) -> Option<Self> {
        Some(Self { id: self.id, life: self.life + 1 })
    }

    fn addr(&self) -> Self::Addr {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// The wire format: what foca's own codec writes, which is one byte for a kind and numbers of variable length.
struct Wire;

/// A datagram that is too short, or too full for one more item.
#[derive(Debug)]
struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too short")
    }
}

impl std::error::Error for Malformed {}

/// No header and no member is longer: three identities of 18 bytes, and less than 10 bytes beside.
const LONGEST: usize = 64;

/// Holds one item until it is known whether it fits.
struct Item {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Item {
    fn new() -> Self {
        Self { bytes: [0; LONGEST], length: 0 }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    fn identity(&mut self, identity: &Identity) {
        identity.id.iter().for_each(|byte| self.byte(*byte));
        self.number(identity.life);
    }

    fn write(&self, mut to: impl BufMut) -> Result<(), Malformed> {
        if to.remaining_mut() < self.length {
            return Err(Malformed);
        }
        to.put_slice(&self.bytes[..self.length]);
        Ok(())
    }
}

fn byte(from: &mut impl Buf) -> Result<u8, Malformed> {
    if from.has_remaining() { Ok(from.get_u8()) } else { Err(Malformed) }
}

fn number(from: &mut impl Buf) -> Result<u64, Malformed> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(from)?;
        number |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

fn short_number(from: &mut impl Buf) -> Result<u16, Malformed> {
    u16::try_from(number(from)?).map_err(|_| Malformed)
}

fn identity(from: &mut impl Buf) -> Result<Identity, Malformed> {
    let mut id = [0; 8];
    if from.remaining() < id.len() {
        return Err(Malformed);
    }
    from.copy_to_slice(&mut id);
    Ok(Identity { id, life: number(from)? })
}

impl Codec<Identity> for Wire {
    type Error = Malformed;

    fn encode_header(&mut self, header: &Header<Identity>, to: impl BufMut) -> Result<(), Malformed> {
        let mut item = Item::new();
        item.identity(&header.src);
        item.number(header.src_incarnation.into());
        item.identity(&header.dst);
        let (kind, about, probe) = match &header.message {
            Message::Ping(probe) => (0, None, Some(probe)),
            Message::Ack(probe) => (1, None, Some(probe)),
            Message::PingReq { target, probe_number } => (2, Some(target), Some(probe_number)),
            Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(probe_number)),
            Message::IndirectAck { target, probe_number } => (4, Some(target), Some(probe_number)),
            Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(probe_number)),
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        item.byte(kind);
        about.into_iter().for_each(|about| item.identity(about));
        probe.into_iter().for_each(|probe| item.byte(*probe));
        item.write(to)
    }

    fn decode_header(&mut self, mut from: impl Buf) -> Result<Header<Identity>, Malformed> {
        let from = &mut from;
        let (src, src_incarnation, dst) = (identity(from)?, short_number(from)?, identity(from)?);
        let message = match byte(from)? {
            0 => Message::Ping(byte(from)?),
            1 => Message::Ack(byte(from)?),
            2 => Message::PingReq { target: identity(from)?, probe_number: byte(from)? },
            3 => Message::IndirectPing { origin: identity(from)?, probe_number: byte(from)? },
            4 => Message::IndirectAck { target: identity(from)?, probe_number: byte(from)? },
            5 => Message::ForwardedAck { origin: identity(from)?, probe_number: byte(from)? },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            10 => Message::TurnUndead,
            _ => return Err(Malformed),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Identity>, to: impl BufMut) -> Result<(), Malformed> {
        let mut item = Item::new();
        item.identity(member.id());
        item.number(member.incarnation().into());
        item.byte(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        item.write(to)
    }

    fn decode_member(&mut self, mut from: impl Buf) -> Result<Member<Identity>, Malformed> {
        let from = &mut from;
        let (id, incarnation) = (identity(from)?, short_number(from)?);
        let state = match byte(from)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(Malformed),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

/// What foca has asked for to be called with, ordered by when, and then by when it has asked.
struct Waiting {
    at: Timestamp,
    number: u64,
    timer: Timer<Identity>,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What foca needs around it: a network, and timers.
struct Host {
    now: Timestamp,
    acts: VecDeque<Act>,
    timers: BinaryHeap<Reverse<Waiting>>,
    number: u64,
    /// When it asks its seeds; never if absent.
    asks_at: Option<Timestamp>,
}

impl Runtime<Identity> for Host {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        let (up, dead) = (Seen::Up, Seen::Dead);
        self.acts.push_back(match notification {
            Notification::MemberUp(of) => Act::Sees { node: of.node(), life: of.life, before: None, state: up },
            Notification::MemberDown(of) => Act::Sees { node: of.node(), life: of.life, before: Some(up), state: dead },
            Notification::Rename(..) => Act::Counts("renamed"),
            Notification::Active => Act::Counts("joined"),
            Notification::Idle => {
                self.asks_at = Some(self.now);
                Act::Counts("alone")
            }
            Notification::Defunct => Act::Counts("defunct"),
            Notification::Rejoin(_) => Act::Counts("rejoined"),
        });
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.acts.push_back(Act::Send { to: to.node(), bytes: data.to_vec() });
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.number += 1;
        self.timers.push(Reverse(Waiting { at: self.now + after, number: self.number, timer }));
    }
}

/// A member that foca runs, with its settings of a data centre.
pub struct FocaMember {
    foca: Foca<Identity, Wire, Pcg64Mcg, NoCustomBroadcast>,
    host: Host,
    seeds: Vec<usize>,
    has_left: bool,
}

impl FocaMember {
    /// A member of a cluster that is going to have so many, as foca's settings ask.
    pub fn lan(start: &Start, nodes: usize) -> Self {
        let size = u32::try_from(nodes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let identity = Identity::new(start.node, start.life);
        let foca = Foca::new(identity, Config::new_lan(size), Pcg64Mcg::seed_from_u64(start.seed), Wire);
        let seeds = start.seeds.iter().copied().filter(|seed| *seed != start.node).collect();
        let (acts, timers) = (VecDeque::new(), BinaryHeap::new());
        let host = Host { now: start.now, acts, timers, number: 0, asks_at: Some(start.now) };
        let mut member = Self { foca, host, seeds, has_left: false };
        member.time_has_come();
        member
    }

    fn time_has_come(&mut self) {
        if self.host.asks_at.is_some_and(|at| at <= self.host.now) {
            self.host.asks_at = None;
            if self.foca.num_members() == 0 && !self.seeds.is_empty() {
                self.host.asks_at = Some(self.host.now + ASKS_AGAIN);
                // The life of a seed is not known, and foca does not ask for it in this message.
                for seed in &self.seeds {
                    let result = self.foca.announce(Identity::new(*seed, 0), &mut self.host);
                    count_error(&mut self.host, result);
                }
            }
        }
        while self.host.timers.peek().is_some_and(|Reverse(waiting)| waiting.at <= self.host.now) {
            let Some(Reverse(Waiting { timer, .. })) = self.host.timers.pop() else { break };
            let result = self.foca.handle_timer(timer, &mut self.host);
            count_error(&mut self.host, result);
        }
    }
}

/// foca goes on after each of its errors, and its host is to write them to a log.
fn count_error(host: &mut Host, result: Result<(), foca::Error>) {
    if result.is_err() {
        host.acts.push_back(Act::Counts("error"));
    }
}

/// Mixes a member into a number; the sum over all is the same in whichever order.
fn mixed(identity: &Identity) -> u64 {
    let mut mixed = u64::from_le_bytes(identity.id).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ identity.life;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl Protocol for FocaMember {
    fn handle(&mut self, now: Timestamp, arrival: Arrival) {
        self.host.now = now;
        match arrival {
            Arrival::Datagram { bytes, .. } => {
                let result = self.foca.handle_data(&bytes, &mut self.host);
                count_error(&mut self.host, result);
            }
            Arrival::Time => self.time_has_come(),
            Arrival::Leave => {
                let result = self.foca.leave_cluster(&mut self.host);
                count_error(&mut self.host, result);
                self.has_left = true;
            }
            // It has no reliable channel.
            Arrival::Asked { .. } | Arrival::Answered { .. } => {}
        }
    }

    fn act(&mut self) -> Option<Act> {
        self.host.acts.pop_front()
    }

    fn next_at(&self) -> Option<Timestamp> {
        let timer = self.host.timers.peek().map(|Reverse(waiting)| waiting.at);
        timer.into_iter().chain(self.host.asks_at).min()
    }

    fn has_ended(&self) -> bool {
        self.has_left
    }

    fn view(&self) -> View {
        let others = self.foca.iter_members().map(|member| mixed(member.id()));
        let hash = others.fold(mixed(self.foca.identity()), u64::wrapping_add);
        View { members: self.foca.num_members() + 1, hash }
    }

    fn holds(&self, node: usize) -> Option<u64> {
        let own = self.foca.identity();
        let others = self.foca.iter_members().map(Member::id);
        std::iter::once(own).chain(others).find(|identity| identity.node() == node).map(|identity| identity.life)
    }
}

#[cfg(test)]
mod tests {
    use cluster_provisioning::testkit::gossip::World;

    use super::*;
    use crate::scenarios::{secs, settled};

    #[test]
    fn what_is_written_is_read() {
        let (src, dst) = (Identity::new(1_234_567, 300), Identity::new(0, u64::MAX));
        assert_eq!(src.node(), 1_234_567);
        let kinds = [
            Message::Ping(7),
            Message::Ack(255),
            Message::PingReq { target: dst, probe_number: 1 },
            Message::IndirectPing { origin: dst, probe_number: 2 },
            Message::IndirectAck { target: dst, probe_number: 3 },
            Message::ForwardedAck { origin: dst, probe_number: 4 },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ];
        for message in kinds {
            let header = Header { src, src_incarnation: u16::MAX, dst, message };
            let mut bytes = Vec::new();
            Wire.encode_header(&header, &mut bytes).expect("there is space");
            assert_eq!(Wire.decode_header(&bytes[..]).expect("it is whole"), header);
            assert!((0..bytes.len()).all(|length| Wire.decode_header(&bytes[..length]).is_err()));
        }
        for state in [State::Alive, State::Suspect, State::Down] {
            let member = Member::new(src, 300, state);
            let mut bytes = Vec::new();
            Wire.encode_member(&member, &mut bytes).expect("there is space");
            assert_eq!(Wire.decode_member(&bytes[..]).expect("it is whole"), member);
        }
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let mut bytes = Vec::new();
        let member = Member::alive(Identity::new(1, 1));
        assert!(Wire.encode_member(&member, (&mut bytes).limit(10)).is_err());
        assert!(bytes.is_empty());
    }

    #[test]
    fn whoever_is_started_again_is_a_member_in_its_new_life() {
        let mut world = settled(FocaMember::lan, 1, 10, secs(3)).expect("one view");
        world.kill(5);
        world.pass(secs(1));
        world.start(5, &[0, 1, 2]);
        assert!(world.until(secs(30), World::is_one_view).is_some());
        assert_eq!(world.member(0).and_then(|member| member.holds(5)), Some(world.life(5)));
    }

    #[test]
    fn whoever_was_cut_off_comes_back_in_a_later_life() {
        let mut world = settled(FocaMember::lan, 1, 10, secs(3)).expect("one view");
        world.network.part(9, 1);
        world.pass(secs(60));
        assert_eq!(world.member(0).and_then(|member| member.holds(9)), None);
        world.network.heal();
        assert!(world.until(secs(300), World::is_one_view).is_some());
        assert!(world.member(0).and_then(|member| member.holds(9)).is_some_and(|life| life > world.life(9)));
    }

    #[test]
    fn whoever_leaves_is_gone_at_once() {
        let mut world = settled(FocaMember::lan, 1, 10, secs(3)).expect("one view");
        world.leave(4);
        assert!(world.until(secs(3), World::is_one_view).is_some());
    }
}
