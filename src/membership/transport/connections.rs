//! The reliable channel: a connection for each question, over which its answer comes back.
//!
//! Each connection is in one stage, has until a deadline to go on, and is gone after [`LIFE`] whatever it does; there are
//! so many at a time, and they hold so many bytes together, of what arrives and of answers. So whoever is slow, sends without end or opens connections
//! without end costs little and keeps nobody else waiting.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketType};

use super::frame::{Frame, FrameReader, FrameWriter, LONGEST, Reason};
use crate::membership::machine::Question;

/// How many ask here at a time, and from one address.
const INBOUND: usize = 512;
const PER_ADDRESS: usize = 256;
/// How many questions are asked at a time.
const OUTBOUND: usize = 256;
/// How many bytes are held of what arrives, by all connections together, and as many of answers that leave.
const HELD: usize = 2 * LONGEST;
/// How long a connection may take to be made, and may stand still: an observer's answer takes five seconds.
const CONNECTED: Duration = Duration::from_secs(3);
const STILL: Duration = Duration::from_secs(8);
/// How long a connection lives at the most.
const LIFE: Duration = Duration::from_secs(30);
/// How many connections are taken at a time.
const ACCEPTED: usize = 64;

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// Somebody asks.
    Asked { channel: u64, bytes: Vec<u8> },
    /// A question was answered, or will not be.
    Answered { question: Question, answer: Option<Vec<u8>> },
    /// Whoever was asked does not take such questions: it is not answered.
    Refused { question: Question, by: SocketAddr, reason: Reason },
    /// The host of whoever was asked says that nobody is there: the network is well. The question is not answered.
    NobodyThere { question: Question },
}

#[derive(Debug)]
enum Stage {
    /// It is being made; then the question is written.
    Connecting(FrameWriter),
    Asking(FrameWriter),
    Hearing(FrameReader),
    /// A question is read.
    Listening(FrameReader),
    /// The answer is not known yet.
    Deciding,
    Answering(FrameWriter),
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Of one that was opened here.
    question: Option<Question>,
    stage: Stage,
    until: Instant,
    ends: Instant,
}

impl Connection {
    fn flags(&self) -> PollFlags {
        match self.stage {
            Stage::Connecting(_) | Stage::Asking(_) | Stage::Answering(_) => PollFlags::OUT,
            Stage::Hearing(_) | Stage::Listening(_) => PollFlags::IN,
            Stage::Deciding => PollFlags::empty(),
        }
    }

    fn held(&self) -> usize {
        match &self.stage {
            Stage::Hearing(reader) | Stage::Listening(reader) => reader.held(),
            _ => 0,
        }
    }

    /// How many bytes of an answer it holds.
    fn answering(&self) -> usize {
        match &self.stage {
            Stage::Answering(writer) => writer.held(),
            _ => 0,
        }
    }
}

/// What becomes of a connection that was looked after.
enum Next {
    Stays,
    Ends,
    Tells(Frame),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By the number of their channel.
    open: BTreeMap<u64, Connection>,
    count: u64,
    happened: VecDeque<Happened>,
    /// Connections that were turned away since they were too many.
    turned_away: u64,
}

impl Connections {
    /// What has happened next.
    pub(super) fn happened(&mut self) -> Option<Happened> {
        self.happened.pop_front()
    }

    /// When the next connection has been still for too long.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.open.values().map(|connection| connection.until.min(connection.ends)).min()
    }

    /// How many connections were turned away since there were too many.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// All that is waited for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u64, &TcpStream, PollFlags)> {
        self.open.iter().map(|(channel, connection)| (*channel, &connection.stream, connection.flags()))
    }

    /// Takes the connections that wait at the listener.
    ///
    /// # Errors
    /// What the listener fails with: there may be no room for another file.
    pub(super) fn accept(&mut self, listener: &TcpListener, now: Instant) -> io::Result<()> {
        for _ in 0..ACCEPTED {
            match listener.accept() {
                Ok((stream, peer)) => self.take(stream, peer, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Whoever has gone meanwhile is no failure of the listener.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, stream: TcpStream, peer: SocketAddr, now: Instant) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        _ = stream.set_nodelay(true);
        let inbound = || self.open.values().filter(|connection| connection.question.is_none());
        let from_there = inbound().filter(|connection| connection.peer.ip() == peer.ip()).count();
        if inbound().count() >= INBOUND || from_there >= PER_ADDRESS {
            self.turned_away += 1;
            // It has room for five bytes, or else learns it from the end of the connection.
            _ = FrameWriter::new(Frame::Refusal(Reason::Busy)).write(&mut &stream);
            return;
        }
        self.add(stream, peer, None, Stage::Listening(FrameReader::default()), now + STILL, now);
    }

    /// Asks that question there.
    pub(super) fn ask(&mut self, question: Question, to: SocketAddr, bytes: Vec<u8>, now: Instant) {
        let asked = self.open.values().filter(|connection| connection.question.is_some()).count();
        let connected = if asked < OUTBOUND { connect(to) } else { Err(ErrorKind::QuotaExceeded.into()) };
        match connected {
            Ok(stream) => {
                let stage = Stage::Connecting(FrameWriter::new(Frame::Message(bytes)));
                self.add(stream, to, Some(question), stage, now + CONNECTED, now);
            }
            Err(error) => self.failed(question, error.kind()),
        }
    }

    /// The answer on that channel; nothing where whoever asked has gone. Where those that others do not take leave no room
    /// for it, that is told.
    pub(super) fn answer(&mut self, channel: u64, frame: Frame, now: Instant) {
        let waiting: usize = self.open.values().map(Connection::answering).sum();
        if let Some(connection) = self.open.get_mut(&channel)
            && matches!(connection.stage, Stage::Deciding)
        {
            let is_refusal = matches!(frame, Frame::Refusal(_));
            let mut answer = FrameWriter::new(frame);
            if !is_refusal && waiting + answer.held() > HELD {
                answer = FrameWriter::new(Frame::Refusal(Reason::Busy));
            }
            connection.stage = Stage::Answering(answer);
            connection.until = now + STILL;
            self.advance(channel, now);
        }
    }

    /// Who asks on that channel.
    pub(super) fn peer(&self, channel: u64) -> Option<SocketAddr> {
        self.open.get(&channel).map(|connection| connection.peer)
    }

    /// Whether an answer is on its way still.
    pub(super) fn is_answering(&self) -> bool {
        self.open.values().any(|connection| matches!(connection.stage, Stage::Answering(_)))
    }

    fn add(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        question: Option<Question>,
        stage: Stage,
        until: Instant,
        now: Instant,
    ) {
        self.count += 1;
        self.open.insert(self.count, Connection { stream, peer, question, stage, until, ends: now + LIFE });
    }

    /// Something can be read or written there.
    pub(super) fn advance(&mut self, channel: u64, now: Instant) {
        let held: usize = self.open.values().map(Connection::held).sum();
        let Some(connection) = self.open.get_mut(&channel) else { return };
        let room = HELD.saturating_sub(held) + connection.held();
        match step(connection, room, now) {
            Ok(Next::Stays) => {}
            Ok(Next::Ends) => _ = self.open.remove(&channel),
            Ok(Next::Tells(frame)) => self.told(channel, frame, now),
            Err(error) => self.close(channel, error.kind()),
        }
    }

    /// Lets go of those who have been still for too long.
    pub(super) fn pass(&mut self, now: Instant) {
        let is_over = |connection: &Connection| connection.until.min(connection.ends) <= now;
        let over = self.open.iter().filter(|(_, connection)| is_over(connection)).map(|(channel, _)| *channel);
        for channel in over.collect::<Vec<_>>() {
            self.close(channel, ErrorKind::TimedOut);
        }
    }

    /// The frame is complete.
    fn told(&mut self, channel: u64, frame: Frame, now: Instant) {
        let Some(connection) = self.open.get_mut(&channel) else { return };
        match (connection.question, frame) {
            (None, Frame::Message(bytes)) => {
                connection.stage = Stage::Deciding;
                connection.until = now + STILL;
                self.happened.push_back(Happened::Asked { channel, bytes });
            }
            // Nobody asks by a refusal.
            (None, Frame::Refusal(_)) => _ = self.open.remove(&channel),
            (Some(question), frame) => {
                let by = connection.peer;
                self.open.remove(&channel);
                self.happened.push_back(match frame {
                    Frame::Message(bytes) => Happened::Answered { question, answer: Some(bytes) },
                    Frame::Refusal(reason) => Happened::Refused { question, by, reason },
                });
            }
        }
    }

    fn close(&mut self, channel: u64, why: ErrorKind) {
        if let Some(question) = self.open.remove(&channel).and_then(|connection| connection.question) {
            self.failed(question, why);
        }
    }

    fn failed(&mut self, question: Question, why: ErrorKind) {
        self.happened.push_back(match why {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Happened::NobodyThere { question },
            _ => Happened::Answered { question, answer: None },
        });
    }
}

/// Goes on as far as it can.
fn step(connection: &mut Connection, room: usize, now: Instant) -> io::Result<Next> {
    loop {
        let stream = &connection.stream;
        match &mut connection.stage {
            Stage::Connecting(writer) => {
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                // It is made as soon as it has a peer.
                match stream.peer_addr() {
                    Ok(_) => _ = stream.set_nodelay(true),
                    Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(Next::Stays),
                    Err(error) => return Err(error),
                }
                let writer = std::mem::replace(writer, FrameWriter::new(Frame::Message(Vec::new())));
                connection.stage = Stage::Asking(writer);
            }
            Stage::Asking(writer) => {
                let is_written = writer.write(&mut &*stream)?;
                connection.until = now + STILL;
                if !is_written {
                    return Ok(Next::Stays);
                }
                connection.stage = Stage::Hearing(FrameReader::default());
            }
            Stage::Hearing(reader) | Stage::Listening(reader) => {
                let frame = reader.read(&mut &*stream, room)?;
                connection.until = now + STILL;
                return Ok(frame.map_or(Next::Stays, Next::Tells));
            }
            // Only an end is told of it, or a failure.
            Stage::Deciding => return Ok(Next::Ends),
            Stage::Answering(writer) => {
                let is_written = writer.write(&mut &*stream)?;
                connection.until = now + STILL;
                return Ok(if is_written { Next::Ends } else { Next::Stays });
            }
        }
    }
}

/// A connection that is being made.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    _ = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC);
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    match rustix::net::connect(&stream, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(stream),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Ipv4Addr;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        (listener, at)
    }

    /// Looks after the connections until something has happened.
    fn next(connections: &mut Connections, listener: Option<&TcpListener>) -> Happened {
        let ends = Instant::now() + DEADLINE;
        loop {
            if let Some(happened) = connections.happened() {
                return happened;
            }
            assert!(Instant::now() < ends, "nothing has happened: {connections:?}");
            look_after(connections, listener);
        }
    }

    fn look_after(connections: &mut Connections, listener: Option<&TcpListener>) {
        let (channels, mut polled): (Vec<u64>, Vec<PollFd>) =
            connections.waiting().map(|(channel, stream, flags)| (channel, PollFd::new(stream, flags))).unzip();
        polled.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 })).unwrap();
        let ready: Vec<u64> = channels
            .into_iter()
            .zip(&polled)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(channel, _)| channel)
            .collect();
        let now = Instant::now();
        ready.into_iter().for_each(|channel| connections.advance(channel, now));
        listener.into_iter().for_each(|listener| connections.accept(listener, now).unwrap());
    }

    #[test]
    fn m1_4_a_question_is_answered_over_its_connection() {
        let (listener, at) = listener();
        let mut connections = Connections::default();
        let long = vec![7; 1_000_000];
        connections.ask(Question(3), at, long.clone(), Instant::now());
        let Happened::Asked { channel, bytes } = next(&mut connections, Some(&listener)) else { panic!() };
        assert!(bytes == long);
        connections.answer(channel, Frame::Message(long.clone()), Instant::now());
        let answered = next(&mut connections, Some(&listener));
        assert!(answered == Happened::Answered { question: Question(3), answer: Some(long) });
        while connections.next_at().is_some() {
            look_after(&mut connections, None);
        }
        connections.answer(channel, Frame::Message(vec![1]), Instant::now());
        assert_eq!(connections.happened(), None, "it is over");
    }

    #[test]
    fn m2_5_a_question_that_is_refused_or_meets_nobody_is_told_so() {
        let (listener, at) = listener();
        let mut connections = Connections::default();
        connections.ask(Question(1), at, vec![1], Instant::now());
        let Happened::Asked { channel, .. } = next(&mut connections, Some(&listener)) else { panic!() };
        connections.answer(channel, Frame::Refusal(Reason::NotSealed), Instant::now());
        let refused = Happened::Refused { question: Question(1), by: at, reason: Reason::NotSealed };
        assert_eq!(next(&mut connections, Some(&listener)), refused);
        drop(listener);
        connections.ask(Question(2), at, vec![1], Instant::now());
        assert_eq!(next(&mut connections, None), Happened::NobodyThere { question: Question(2) });
    }

    #[test]
    fn m2_5_whoever_is_still_for_too_long_is_let_go_of_and_a_question_is_then_unanswered() {
        let (listener, at) = listener();
        let mut connections = Connections::default();
        let now = Instant::now();
        connections.ask(Question(1), at, vec![1], now);
        // It asks, and is not heard; another connects, and does not ask.
        let _silent = TcpStream::connect(at).unwrap();
        let ends = now + DEADLINE;
        while connections.open.len() < 3 && Instant::now() < ends {
            look_after(&mut connections, Some(&listener));
        }
        let Happened::Asked { .. } = next(&mut connections, None) else { panic!() };
        let until = connections.next_at().unwrap();
        connections.pass(until - Duration::from_millis(1));
        assert_eq!(connections.open.len(), 3);
        connections.pass(Instant::now() + STILL);
        assert_eq!(connections.happened(), Some(Happened::Answered { question: Question(1), answer: None }));
        assert!(connections.open.is_empty());
    }

    #[test]
    fn m2_5_a_connection_that_goes_on_by_a_byte_now_and_then_ends_all_the_same() {
        let (listener, at) = listener();
        let mut connections = Connections::default();
        let mut slow = TcpStream::connect(at).unwrap();
        while connections.open.is_empty() {
            look_after(&mut connections, Some(&listener));
        }
        let began = Instant::now();
        for byte in [0, 0, 1, 0, 1, 1] {
            slow.write_all(&[byte]).unwrap();
            look_after(&mut connections, None);
            let channel = *connections.open.keys().next().unwrap();
            connections.advance(channel, began + LIFE);
            assert!(connections.open.values().all(|connection| connection.until > began + LIFE), "it has gone on");
        }
        connections.pass(began + LIFE);
        assert!(connections.open.is_empty());
        assert_eq!(slow.read(&mut [0; 9]).unwrap_or(0), 0);
    }

    #[test]
    fn m2_5_no_more_connections_are_held_than_there_may_be_and_the_rest_is_told_so() {
        let (listener, at) = listener();
        let mut connections = Connections::default();
        let mut clients = Vec::new();
        for _ in 0..PER_ADDRESS + 2 {
            clients.push(TcpStream::connect(at).unwrap());
            look_after(&mut connections, Some(&listener));
        }
        let ends = Instant::now() + DEADLINE;
        while connections.turned_away() < 2 && Instant::now() < ends {
            look_after(&mut connections, Some(&listener));
        }
        assert_eq!((connections.open.len(), connections.turned_away()), (PER_ADDRESS, 2));
        let mut told = Vec::new();
        clients.last_mut().unwrap().read_to_end(&mut told).unwrap();
        assert_eq!(told, Frame::Refusal(Reason::Busy).into_bytes());
    }

    #[test]
    fn m2_5_no_more_is_held_of_answers_that_nobody_takes_than_there_is_room_for_and_the_rest_is_told_so() {
        let (listener, at) = listener();
        let mut connections = Connections::default();
        let ask = |connections: &mut Connections| {
            let mut client = TcpStream::connect(at).unwrap();
            client.write_all(&Frame::Message(vec![1]).into_bytes()).unwrap();
            let Happened::Asked { channel, .. } = next(connections, Some(&listener)) else { panic!() };
            (client, channel)
        };
        let long = Frame::Message(vec![7; LONGEST - 100]);
        let (first, channel) = ask(&mut connections);
        connections.answer(channel, long.clone(), Instant::now());
        let (_second, channel) = ask(&mut connections);
        connections.answer(channel, long, Instant::now());
        let answered = |connections: &mut Connections, (mut client, channel): (TcpStream, u64)| {
            connections.answer(channel, Frame::Message(vec![7; 1000]), Instant::now());
            let mut told = Vec::new();
            client.read_to_end(&mut told).unwrap();
            told.len()
        };
        let third = ask(&mut connections);
        assert_eq!(answered(&mut connections, third), 5, "a refusal");
        drop(first);
        while connections.open.len() > 1 {
            look_after(&mut connections, None);
        }
        let fourth = ask(&mut connections);
        assert_eq!(answered(&mut connections, fourth), 1004);
    }

    #[test]
    fn m2_5_no_more_questions_are_asked_at_a_time_than_there_may_be() {
        let (_listener, at) = listener();
        let mut connections = Connections::default();
        for number in 0..=OUTBOUND as u64 {
            connections.ask(Question(number), at, vec![1], Instant::now());
        }
        let last = Happened::Answered { question: Question(OUTBOUND as u64), answer: None };
        assert_eq!(std::iter::from_fn(|| connections.happened()).collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn m2_5_whoever_asks_by_junk_is_let_go_of() {
        let (listener, at) = listener();
        for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\0\x01", b"\0\0"] {
            let mut connections = Connections::default();
            let mut client = TcpStream::connect(at).unwrap();
            client.write_all(junk).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let ends = Instant::now() + DEADLINE;
            let mut was_there = false;
            while (!was_there || !connections.open.is_empty()) && Instant::now() < ends {
                look_after(&mut connections, Some(&listener));
                was_there |= !connections.open.is_empty() || connections.count > 0;
            }
            assert_eq!((connections.open.len(), connections.happened()), (0, None), "{junk:?}");
        }
    }
}
