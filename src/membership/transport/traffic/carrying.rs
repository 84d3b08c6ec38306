//! What arrives is carried to the node, and what it wants is carried out: as the carrier does, but for the sockets. And what
//! has to hold is looked at.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use super::super::envelope::{NoMessage, reason};
use super::super::flood::RATE;
use super::super::frame::{Frame, FrameReader, FrameWriter, LONGEST, PIECE, Reason};
use super::super::resident::{Resident, Wish};
use super::{CONTENT, RINGS, Sealed, Traffic, address};
use crate::membership::event::Event;
use crate::membership::machine::{Input, Question};
use crate::membership::message::{DATAGRAM, LabelHash, Unusable, read_message};
use crate::membership::place::Place;
use crate::membership::sealing::{Channel, Opened, is_sealed};
use crate::membership::simulation::LABEL;

/// How many bytes all connections hold together: far fewer than in earnest, so that it comes to that.
pub(super) const HELD: usize = 6 * PIECE;
/// How many connections there are at a time, and how many of them were opened by the node.
const OPEN: usize = 24;
const ASKED: usize = 8;
/// How long whoever asks waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// After so long at the most what was not applied is offered again.
const OFFERED: Duration = Duration::from_secs(30);
/// As the carrier has it.
const OVERTAKEN: Question = Question(u64::MAX);
/// A sealed message is no shorter.
const LEAST_SEALED: usize = 39;

/// The bytes of a connection, as they arrive: after each piece there is nothing for a moment.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) pieces: VecDeque<Vec<u8>>,
    pauses: bool,
    /// It ends, or fails with that.
    pub(super) end: Option<Option<ErrorKind>>,
}

impl Wire {
    fn is_readable(&self) -> bool {
        !self.pieces.is_empty() || self.end.is_some()
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.pauses) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let Some(first) = self.pieces.front_mut() else {
            return match self.end {
                None => Err(ErrorKind::WouldBlock.into()),
                Some(None) => Ok(0),
                Some(Some(kind)) => Err(kind.into()),
            };
        };
        let count = into.len().min(first.len());
        into[..count].copy_from_slice(&first[..count]);
        first.drain(..count);
        if first.is_empty() {
            self.pieces.pop_front();
            self.pauses = true;
        }
        Ok(count)
    }
}

#[derive(Default)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    reader: FrameReader,
    /// All that has arrived.
    arrived: Vec<u8>,
    /// Of one that the node has opened.
    pub(super) question: Option<Question>,
    /// Of one over which the node was asked: why that has to be refused, if it has to.
    pub(super) asked: Option<Option<Reason>>,
}

impl Connection {
    /// Whether a frame has arrived as a whole.
    fn is_complete(&self) -> bool {
        let Some((length, rest)) = self.arrived.split_first_chunk() else { return false };
        let length = u32::from_be_bytes(*length) as usize;
        length <= LONGEST && rest.len() >= length.max(1)
    }

    fn claims_too_much(&self) -> bool {
        self.arrived.first_chunk().is_some_and(|length| u32::from_be_bytes(*length) as usize > LONGEST)
    }
}

impl Traffic {
    /// A datagram arrives.
    pub(super) fn datagram(&mut self, from: &Place, mut bytes: Vec<u8>) {
        if self.passes(from) && self.is_member() {
            // What is longer is cut off there.
            bytes.truncate(DATAGRAM + 1);
            let channel = Channel::Datagram;
            match self.open(channel, &bytes) {
                Ok(bytes) => self.hand_in(Input::Datagram { from: from.clone(), bytes }),
                Err(none) => none.unusable().into_iter().for_each(|why| self.not_taken(Some(from.clone()), why)),
            }
        }
    }

    pub(super) fn flooded(&mut self, from: &Place, times: u32, bytes: &[u8]) {
        let passed = (0..times).filter(|_| self.passes(from)).count();
        for _ in 0..passed.min(3) {
            self.datagram(from, bytes.to_vec());
        }
    }

    fn passes(&mut self, from: &Place) -> bool {
        let Some(from) = address(from) else { return false };
        let since = self.now.since(self.began);
        let passes = self.flood.passes(from, self.instant + since);
        let passed = self.passed.entry(from).or_default();
        *passed += if passes { 1.0 } else { 0.0 };
        assert!(*passed <= RATE * (1.0 + since.as_secs_f64()) + 1.0, "{passed} datagrams of one host");
        assert!(passes || *passed >= RATE, "a datagram was thrown away, and there were {passed} only");
        passes
    }

    /// Something arrived that is no message.
    fn not_taken(&mut self, from: Option<Place>, why: Unusable) {
        self.resident.handle(self.now, Input::Unusable { from, why });
        let mut wishes = Vec::new();
        self.resident.wishes(&mut wishes);
        let sends = |wish: &Wish| matches!(wish, Wish::Send { .. } | Wish::Ask { .. } | Wish::Refuse { .. });
        assert!(!wishes.iter().any(sends), "{why:?} led to {wishes:?}");
        wishes.into_iter().for_each(|wish| self.fulfil(wish));
    }

    /// What the envelope says of what arrived, and whether it may say that.
    fn open(&mut self, channel: Channel, bytes: &[u8]) -> Result<Vec<u8>, NoMessage> {
        let result = self.envelope.open(channel, bytes.to_vec(), self.now);
        if !self.seals() {
            assert_eq!(result.is_err(), is_sealed(bytes));
            assert!(result.as_ref().map_or(true, |message| message == bytes));
            return result;
        }
        let keys = RINGS[self.ring];
        let known = self.sealed.get_mut(bytes).filter(|sealed| {
            let has_key = sealed.by.is_some_and(|by| keys.contains(&by));
            has_key && sealed.channel == channel && !sealed.is_taken
        });
        match (&result, known) {
            (Ok(_) | Err(NoMessage::Restarted), None) => {
                panic!(
                    "{bytes:x?} was taken, and nobody sealed it with the keys for the {channel:?}, or it was taken before"
                )
            }
            (Ok(message), Some(known)) => {
                assert_eq!(*message, known.plain);
                known.is_taken = true;
            }
            (Err(NoMessage::Restarted), Some(known)) => {
                assert_eq!((known.plain.get(CONTENT), channel), (Some(&0), Channel::Reliable));
                known.is_taken = true;
            }
            (Err(NoMessage::Unusable(why)), Some(_)) => {
                assert!(matches!(why, Unusable::Replayed | Unusable::Malformed(_)), "{why:?} is said of a good packet");
            }
            (Err(NoMessage::Stale(answer)), _) => {
                assert_eq!(answer.is_some(), channel == Channel::Reliable);
            }
            (Err(NoMessage::Unusable(_)), None) => {}
        }
        result
    }

    /// A connection is opened, over which that arrives.
    pub(super) fn connect(&mut self, bytes: Vec<u8>, cut: usize) {
        if self.is_member() && self.connections.len() < OPEN {
            let channel = self.add(None);
            self.arrive(channel, bytes, cut);
        }
    }

    fn add(&mut self, question: Option<Question>) -> u64 {
        self.count += 1;
        self.connections.insert(self.count, Connection { question, ..Connection::default() });
        self.count
    }

    /// That arrives over the connection, in pieces of so many bytes.
    pub(super) fn arrive(&mut self, channel: u64, bytes: Vec<u8>, cut: usize) {
        if let Some(connection) = self.connections.get_mut(&channel)
            && connection.wire.end.is_none()
            && connection.asked.is_none()
        {
            connection.arrived.extend(&bytes);
            connection.wire.pieces.extend(bytes.chunks(cut.max(1)).map(<[u8]>::to_vec));
            self.advance(channel);
        }
    }

    /// Reads what can be read.
    pub(super) fn advance(&mut self, channel: u64) {
        loop {
            let held: usize = self.connections.values().map(|connection| connection.reader.held()).sum();
            let Some(connection) = self.connections.get_mut(&channel) else { return };
            let Connection { wire, reader, .. } = connection;
            if connection.asked.is_some() {
                if wire.end.is_some() {
                    self.connections.remove(&channel);
                }
                return;
            }
            if !wire.is_readable() {
                assert!(
                    !connection.is_complete() && !connection.claims_too_much(),
                    "nothing is told of what has arrived"
                );
                return;
            }
            let room = HELD.saturating_sub(held) + reader.held();
            let result = reader.read(wire, room);
            assert!(reader.held() <= room.max(PIECE), "{} bytes are held, and there is room for {room}", reader.held());
            match result {
                Ok(None) => {}
                Ok(Some(frame)) => {
                    let bytes = frame.clone().into_bytes();
                    assert!(connection.arrived.starts_with(&bytes), "{frame:?} has not arrived");
                    return self.told(channel, frame);
                }
                Err(error) => {
                    match error.kind() {
                        ErrorKind::InvalidData => assert!(connection.claims_too_much()),
                        ErrorKind::OutOfMemory => assert!(connection.arrived.len() > PIECE || room < 2 * PIECE),
                        ErrorKind::UnexpectedEof => assert!(wire.end == Some(None) && !connection.is_complete()),
                        kind => assert_eq!(wire.end, Some(Some(kind))),
                    }
                    return self.close(channel, error.kind());
                }
            }
        }
    }

    fn close(&mut self, channel: u64, why: ErrorKind) {
        if let Some(question) = self.connections.remove(&channel).and_then(|connection| connection.question) {
            if why == ErrorKind::ConnectionReset {
                self.hand_in(Input::HostHeard);
            }
            self.unanswered(question);
        }
    }

    /// The frame is complete.
    fn told(&mut self, channel: u64, frame: Frame) {
        let to_be_refused = match &frame {
            Frame::Message(bytes) => self.to_be_refused(bytes),
            Frame::Refusal(_) => None,
        };
        let Some(connection) = self.connections.get_mut(&channel) else { return };
        match (connection.question, frame) {
            (None, Frame::Message(bytes)) => {
                connection.asked = Some(to_be_refused);
                self.is_asked(channel, &bytes);
            }
            (None, Frame::Refusal(_)) => _ = self.connections.remove(&channel),
            (Some(question), frame) => {
                let arrived =
                    self.connections.remove(&channel).map(|connection| connection.arrived).unwrap_or_default();
                match frame {
                    Frame::Message(bytes) => self.is_answered(question, &bytes),
                    Frame::Refusal(reason) => {
                        let told = Frame::Refusal(reason).into_bytes();
                        assert_eq!(told.last(), arrived.get(CONTENT), "another reason is told");
                        assert!(!reason.to_string().is_empty());
                        self.unanswered(question);
                    }
                }
            }
        }
    }

    fn is_asked(&mut self, channel: u64, bytes: &[u8]) {
        let none = match self.open(Channel::Reliable, bytes) {
            Ok(bytes) => return self.hand_in(Input::Asked { channel, bytes }),
            Err(none) => none,
        };
        if let Some(why) = none.unusable() {
            self.not_taken(None, why);
        }
        self.reply(
            channel,
            match none {
                NoMessage::Stale(Some(answer)) => Frame::Message(answer),
                NoMessage::Unusable(why) => Frame::Refusal(reason(why)),
                NoMessage::Stale(None) | NoMessage::Restarted => Frame::Refusal(Reason::Other(0)),
            },
        );
    }

    fn is_answered(&mut self, question: Question, bytes: &[u8]) {
        let asked = self.asked.remove(&question);
        match self.open(Channel::Reliable, bytes) {
            Ok(bytes) => self.hand_in(Input::Answered { question, answer: Some(bytes) }),
            Err(none) => {
                if let Some(why) = none.unusable() {
                    self.not_taken(None, why);
                }
                match (none, asked) {
                    (NoMessage::Restarted, Some((_, plain))) => self.ask_sealed(question, &plain),
                    (NoMessage::Stale(Some(_)), Some(_)) => {
                        self.add(Some(OVERTAKEN));
                        self.unanswered(question);
                    }
                    _ => self.unanswered(question),
                }
            }
        }
    }

    fn unanswered(&mut self, question: Question) {
        self.asked.remove(&question);
        if question != OVERTAKEN {
            self.hand_in(Input::Answered { question, answer: None });
        }
    }

    fn ask_sealed(&mut self, question: Question, plain: &[u8]) {
        let asked = self.connections.values().filter(|connection| connection.question.is_some()).count();
        match self.seal(Channel::Reliable, plain) {
            Some(_) if asked < ASKED => _ = self.add(Some(question)),
            _ => self.unanswered(question),
        }
    }

    /// What the node sends; whoever has the keys can open it.
    fn seal(&mut self, channel: Channel, plain: &[u8]) -> Option<Vec<u8>> {
        self.said = plain.to_vec();
        let bytes = self.envelope.seal(channel, plain.to_vec())?;
        if self.seals() {
            let opened = self.listener.open(channel, &bytes, self.now);
            assert_eq!(opened, Ok(Opened::Message(plain.to_vec())), "nobody can open what the node sends");
            self.sealed.insert(bytes.clone(), Sealed { by: None, channel, plain: plain.to_vec(), is_taken: false });
        }
        self.keep(bytes.clone());
        Some(bytes)
    }

    /// The question on that channel is answered, or refused.
    fn reply(&mut self, channel: u64, frame: Frame) {
        assert!((1..=self.count).contains(&channel), "nobody has asked on {channel}");
        assert!(self.answered.insert(channel), "the question on {channel} is answered twice");
        // Whoever asked may have gone.
        let Some(connection) = self.connections.remove(&channel) else { return };
        let Some(asked) = connection.asked else { panic!("nobody has asked on {channel} yet") };
        if let Some(reason) = asked {
            assert_eq!(frame, Frame::Refusal(reason));
        }
        let (mut writer, mut bytes) = (FrameWriter::new(frame.clone()), Vec::new());
        assert!(matches!(writer.write(&mut bytes), Ok(true)));
        let read = FrameReader::default().read(&mut &bytes[..], LONGEST);
        assert!(matches!(read, Ok(Some(read)) if read == frame));
        self.replies.push(frame);
    }

    /// Why the question has to be refused; absent where it may be taken.
    fn to_be_refused(&self, question: &[u8]) -> Option<Reason> {
        let label = LabelHash::of(LABEL);
        if !self.seals() {
            let why = match is_sealed(question) {
                true => Some(Unusable::Sealed),
                false => read_message(question, label, self.now).err(),
            };
            return why.map(reason);
        }
        if question.len() < CONTENT {
            return Some(Reason::Other(0));
        }
        if !question.starts_with(&label.to_bytes()) {
            return Some(Reason::OtherCluster);
        }
        match question.get(CONTENT) {
            None => Some(Reason::Other(0)),
            Some(0xe1 | 0xe2) if question.len() < LEAST_SEALED => Some(Reason::Other(0)),
            Some(0xe1 | 0xe2) => {
                let sealed = self.sealed.get(question).filter(|sealed| sealed.channel == Channel::Reliable);
                match sealed.map(|sealed| sealed.by) {
                    None => Some(Reason::NoSuchKey),
                    Some(Some(by)) if !RINGS[self.ring].contains(&by) => Some(Reason::NoSuchKey),
                    // It may be stale, or replayed, or of another version.
                    Some(_) => None,
                }
            }
            Some(_) => Some(Reason::NotSealed),
        }
    }

    pub(super) fn hand_in(&mut self, input: Input) {
        self.resident.handle(self.now, input);
        self.carry_out();
    }

    pub(super) fn pass(&mut self) {
        if self.resident.next_at().is_some_and(|at| at <= self.now) {
            self.hand_in(Input::Time);
        }
    }

    /// All that is wanted, and what is wanted because of it.
    fn carry_out(&mut self) {
        for _ in 0..1000 {
            let mut wishes = Vec::new();
            self.resident.wishes(&mut wishes);
            if wishes.is_empty() {
                return;
            }
            wishes.into_iter().for_each(|wish| self.fulfil(wish));
        }
        panic!("one wish leads to another without end");
    }

    fn fulfil(&mut self, wish: Wish) {
        match wish {
            Wish::Send { to, bytes } => {
                if let (Some(_), Some(bytes)) =
                    (self.names.address(&to, self.now), self.seal(Channel::Datagram, &bytes))
                {
                    assert!(bytes.len() <= DATAGRAM, "a datagram of {} bytes", bytes.len());
                    self.sent += 1;
                }
            }
            Wish::Ask { question, to, bytes } => match self.names.address(&to, self.now) {
                Some(to) => {
                    if self.seals() {
                        self.asked.insert(question, (to, bytes.clone()));
                    }
                    self.ask_sealed(question, &bytes);
                }
                None => self.unanswered(question),
            },
            Wish::Answer { channel, bytes } => {
                if let Some(bytes) = self.seal(Channel::Reliable, &bytes) {
                    self.reply(channel, Frame::Message(bytes));
                }
            }
            Wish::Refuse { channel, why } => {
                self.not_taken(None, why);
                self.reply(channel, Frame::Refusal(reason(why)));
            }
            Wish::Apply(update) => {
                if self.applies {
                    self.members = update.members.clone();
                    self.updates += 1;
                    assert!(update.number >= self.updates, "update {} is the {}th", update.number, self.updates);
                }
                self.missed = !self.applies;
                let result = if self.applies { Ok(()) } else { Err("not now".to_owned()) };
                self.resident.applied(update.number, result, self.now);
            }
            Wish::Tell(event) => {
                assert_eq!(self.checks.event(&event), Ok(()), "{event:?}");
                if let Event::Unusable { why, .. } = event {
                    assert!(!why.to_string().is_empty());
                }
            }
            Wish::LookUp | Wish::Follows(_) => {}
        }
    }

    /// What has to hold after each step.
    pub(super) fn follow_up(&mut self) {
        self.carry_out();
        let open: BTreeSet<Question> = self.connections.values().filter_map(|connection| connection.question).collect();
        assert!(self.asked.keys().all(|question| open.contains(question)), "a question is remembered for ever");
        match &self.resident {
            Resident::Member(membership) => {
                if let Some(machine) = membership.machine() {
                    assert_eq!(self.checks.step(machine), Ok(()));
                }
            }
            Resident::Observer(onlooker) => {
                assert!(self.missed || self.members == *onlooker.observer().members());
            }
        }
    }

    /// Time passes, and nothing else arrives: whoever has asked is answered, and what was not applied is offered again.
    pub(super) fn come_to_rest(&mut self) {
        let is_asked = |traffic: &Self| traffic.connections.values().any(|connection| connection.asked.is_some());
        self.pass_while(PATIENCE, is_asked);
        assert!(!is_asked(self) || self.resident.has_ended(), "somebody has asked, and nobody answers");
        self.applies = true;
        self.pass_while(OFFERED, |traffic| traffic.missed);
        assert!(!self.missed || self.resident.has_ended(), "an update was not applied, and is not offered again");
    }

    fn pass_while(&mut self, longest: Duration, goes_on: impl Fn(&Self) -> bool) {
        let ends = self.now + longest;
        while goes_on(self) && !self.resident.has_ended() {
            let Some(next) = self.resident.next_at().filter(|next| *next <= ends) else { return };
            self.now = next.max(self.now);
            self.pass();
            self.follow_up();
        }
    }
}
