//! The parts of a message: what members say to each other.
//!
//! Each part is its kind as a byte, its length as a number, and its content. A kind that this version does not know is
//! skipped, and so is what a later version adds at the end of one that it knows.
//!
//! | kind | part | content |
//! |---|---|---|
//! | 1 | ping | number, id (text) and incarnation of whom it is for, digest (8 bytes) |
//! | 2 | acknowledgement | number, id and incarnation of who answers, or an empty id alone where that is the sender of the message, digest (8 bytes), hash of the topology (8 bytes), who has confirmed it |
//! | 3 | ping request | number, id and incarnation of whom to ping, host (text), port, milliseconds left |
//! | 4 | nack | number |
//! | 5 | record | see [`record`](super::record) |
//! | 6 | refusal | reason (byte), accusers (list of texts), milliseconds left and one, or 0 for no end; host and port of who has the id |
//! | 7 | ruling | id (text), counter, where it was made (text), what (byte): 0 let in, with incarnation and version of the death, or 1 kept out, with the milliseconds left and one, or 0 for no end |
//! | 16 | join | the label (text); the joiner's record is a part of its own |
//! | 17 | welcome | incarnation and version known of the joiner |
//! | 18 | elsewhere | list of hosts and ports |
//! | 19 | goodbye is taken note of | nothing |
//! | 32 | buckets | the digests of all buckets: 2,048 bytes |
//! | 34 | observe | the hash of the members that an observer holds (8 bytes); 0: none |
//! | 35 | observed | the hash of the members now (8 bytes), whether the records are all of them (byte), who is gone: a list of ids (text), each with whether it died (byte) |
//! | 33 | differing | which of them differ: bytes |
//!
//! Who has confirmed a hash is 1 for all of them, or 0, the number of the first byte, and the bytes. Eight bytes that are
//! a number are big-endian.

use std::time::Duration;

use super::record::{read_record, write_record};
use super::{Malformed, Reader, Writer};
use crate::clock::Timestamp;
use crate::membership::accusers::{Accusers, MOST};
use crate::membership::convergence::{CHUNK, Confirmed};
use crate::membership::digest::BUCKETS;
use crate::membership::place::Place;
use crate::membership::probe::PingNumber;
use crate::membership::quarantine::Refusal;
use crate::membership::record::{GREATEST, Life, Record};
use crate::membership::rulings::{Ruling, Sentence};
use crate::topology::NodeId;

/// The most places that a member names which has no time for a joiner itself.
pub(in crate::membership) const ELSEWHERE: usize = 40;
/// The longest time that may be left of a pin; a longer one is taken for this.
const LONGEST_PIN: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The most who are named as gone at a time: as many as there may be members.
const MOST_GONE: usize = 100_000;
/// The longest host, in bytes.
const MAX_HOST: usize = 255;
/// The longest label, in bytes.
const MAX_LABEL: usize = 255;

/// What a member says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::membership) enum Part {
    /// Does that life answer?
    Ping { number: PingNumber, subject: Life, digest: u64 },
    /// This life answers; and what it knows.
    Acknowledgement { number: PingNumber, life: Life, digest: u64, hash: u64, confirmed: Confirmed },
    /// Ping that life for me, and tell in time if it does not answer.
    PingRequest { number: PingNumber, subject: Life, place: Place, time_left: Duration },
    /// The one that I was asked to ping has not answered.
    Nack(PingNumber),
    /// What I know of a node.
    Record(Record),
    /// You are not let in.
    Refused(Refusal),
    /// What an operator has ruled about that id.
    Ruling { id: NodeId, ruling: Ruling },
    /// Let me in: my record comes with it.
    Join { label: String },
    /// You are let in; and that is the highest that was known of your id.
    Welcome { incarnation: u64, version: u64 },
    /// Ask these, I have no time.
    Elsewhere(Vec<Place>),
    /// I know that you leave.
    Noted,
    /// The digests of what I know.
    Buckets(Box<[u64; BUCKETS]>),
    /// In these I know something else: my records of them come with it.
    Differing(Vec<u8>),
    /// I am no member, and hold the members of that hash: what has changed?
    Observe { hash: u64 },
    /// The members have that hash now: the records that come with it are all of them, or those that have changed.
    Observed { hash: u64, is_whole: bool, gone: Vec<Gone> },
}

/// Somebody who is no member any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::membership) struct Gone {
    pub(in crate::membership) id: NodeId,
    /// It was found dead; else it left.
    pub(in crate::membership) is_dead: bool,
}

const PING: u8 = 1;
const ACKNOWLEDGEMENT: u8 = 2;
const PING_REQUEST: u8 = 3;
const NACK: u8 = 4;
pub(super) const RECORD: u8 = 5;
const REFUSED: u8 = 6;
const RULING: u8 = 7;
const JOIN: u8 = 16;
const WELCOME: u8 = 17;
const ELSEWHERE_KIND: u8 = 18;
const NOTED: u8 = 19;
const BUCKETS_KIND: u8 = 32;
const DIFFERING: u8 = 33;
const OBSERVE: u8 = 34;
const OBSERVED: u8 = 35;

const LET_IN: u8 = 0;
const KEEP_OUT: u8 = 1;

const QUARANTINED: u8 = 0;
const KEPT_OUT: u8 = 1;
const ID_TAKEN: u8 = 2;

/// Writes the part, as of `now`, for a message of that sender; absent where the part is to be in messages of any.
pub(in crate::membership) fn write_part(writer: &mut Writer, part: &Part, sender: Option<&Life>, now: Timestamp) {
    writer.byte(kind(part));
    writer.measured(|inner| write_content(inner, part, sender, now));
}

fn kind(part: &Part) -> u8 {
    match part {
        Part::Ping { .. } => PING,
        Part::Acknowledgement { .. } => ACKNOWLEDGEMENT,
        Part::PingRequest { .. } => PING_REQUEST,
        Part::Nack(_) => NACK,
        Part::Record(_) => RECORD,
        Part::Refused(_) => REFUSED,
        Part::Ruling { .. } => RULING,
        Part::Join { .. } => JOIN,
        Part::Welcome { .. } => WELCOME,
        Part::Elsewhere(_) => ELSEWHERE_KIND,
        Part::Noted => NOTED,
        Part::Buckets(_) => BUCKETS_KIND,
        Part::Differing(_) => DIFFERING,
        Part::Observe { .. } => OBSERVE,
        Part::Observed { .. } => OBSERVED,
    }
}

fn write_content(inner: &mut Writer, part: &Part, sender: Option<&Life>, now: Timestamp) {
    match part {
        Part::Record(record) => write_record(inner, record, now),
        Part::Ping { number, subject, digest } => {
            inner.number(number.0);
            write_life(inner, subject);
            inner.fixed(*digest);
        }
        Part::Acknowledgement { number, life, digest, hash, confirmed } => {
            inner.number(number.0);
            match sender == Some(life) {
                // The head of the message has named it.
                true => inner.text(""),
                false => write_life(inner, life),
            }
            inner.fixed(*digest);
            inner.fixed(*hash);
            match confirmed {
                Confirmed::All => inner.byte(1),
                Confirmed::Some { from, bits } => {
                    inner.byte(0);
                    inner.length(*from);
                    inner.bytes(bits);
                }
            }
        }
        Part::PingRequest { number, subject, place, time_left } => {
            inner.number(number.0);
            write_life(inner, subject);
            write_place(inner, place);
            inner.number(time_left.as_millis() as u64);
        }
        Part::Nack(number) => inner.number(number.0),
        Part::Refused(refusal) => write_refusal(inner, refusal),
        Part::Ruling { id, ruling } => write_ruling(inner, id, ruling, now),
        Part::Join { label } => inner.text(label),
        Part::Welcome { incarnation, version } => {
            inner.number(*incarnation);
            inner.number(*version);
        }
        Part::Elsewhere(places) => {
            inner.length(places.len());
            places.iter().for_each(|place| write_place(inner, place));
        }
        Part::Noted => {}
        Part::Buckets(buckets) => buckets.iter().for_each(|bucket| inner.fixed(*bucket)),
        Part::Differing(buckets) => inner.bytes(buckets),
        Part::Observe { hash } => inner.fixed(*hash),
        Part::Observed { hash, is_whole, gone } => {
            inner.fixed(*hash);
            inner.byte(u8::from(*is_whole));
            inner.length(gone.len());
            for gone in gone {
                inner.text(gone.id.as_str());
                inner.byte(u8::from(gone.is_dead));
            }
        }
    }
}

/// Reads a part of a message of that sender, which arrived at `now`; `None` if it is one that this version does not know.
pub(in crate::membership) fn read_part(
    reader: &mut Reader<'_>,
    sender: &Life,
    now: Timestamp,
) -> Result<Option<Part>, Malformed> {
    let kind = reader.byte()?;
    let mut inner = Reader::new(reader.bytes()?);
    Ok(Some(match kind {
        PING => {
            Part::Ping { number: PingNumber(inner.number()?), subject: read_life(&mut inner)?, digest: inner.fixed()? }
        }
        ACKNOWLEDGEMENT => Part::Acknowledgement {
            number: PingNumber(inner.number()?),
            life: read_answering(&mut inner, sender)?,
            digest: inner.fixed()?,
            hash: inner.fixed()?,
            confirmed: read_confirmed(&mut inner)?,
        },
        PING_REQUEST => Part::PingRequest {
            number: PingNumber(inner.number()?),
            subject: read_life(&mut inner)?,
            place: read_place(&mut inner)?,
            time_left: Duration::from_millis(inner.number()?),
        },
        NACK => Part::Nack(PingNumber(inner.number()?)),
        RECORD => match read_record(&mut inner, now)? {
            Some(record) => Part::Record(record),
            None => return Ok(None),
        },
        REFUSED => match read_refusal(&mut inner)? {
            Some(refusal) => Part::Refused(refusal),
            None => return Ok(None),
        },
        RULING => match read_ruling(&mut inner, now)? {
            Some((id, ruling)) => Part::Ruling { id, ruling },
            None => return Ok(None),
        },
        JOIN => match inner.text()? {
            label if label.len() <= MAX_LABEL => Part::Join { label: label.to_owned() },
            _ => return Err(Malformed::Text),
        },
        WELCOME => match (inner.number()?, inner.number()?) {
            (incarnation, version) if incarnation <= GREATEST && version <= GREATEST => {
                Part::Welcome { incarnation, version }
            }
            _ => return Err(Malformed::Incarnation),
        },
        ELSEWHERE_KIND => {
            let count = inner.length(ELSEWHERE)?;
            Part::Elsewhere((0..count).map(|_| read_place(&mut inner)).collect::<Result<_, _>>()?)
        }
        NOTED => Part::Noted,
        BUCKETS_KIND => {
            let mut buckets = Box::new([0; BUCKETS]);
            for bucket in buckets.iter_mut() {
                *bucket = inner.fixed()?;
            }
            Part::Buckets(buckets)
        }
        DIFFERING => match inner.bytes()? {
            buckets if buckets.len() <= BUCKETS => Part::Differing(buckets.to_vec()),
            _ => return Err(Malformed::TooMany),
        },
        OBSERVE => Part::Observe { hash: inner.fixed()? },
        OBSERVED => {
            let (hash, is_whole) = (inner.fixed()?, inner.byte()? != 0);
            let count = inner.length(MOST_GONE)?;
            let gone = (0..count).map(|_| {
                let id = NodeId::new(inner.text()?).map_err(|_| Malformed::Node)?;
                Ok(Gone { id, is_dead: inner.byte()? != 0 })
            });
            Part::Observed { hash, is_whole, gone: gone.collect::<Result<_, _>>()? }
        }
        _ => return Ok(None),
    }))
}

pub(super) fn write_life(writer: &mut Writer, life: &Life) {
    writer.text(life.id.as_str());
    writer.number(life.incarnation);
}

pub(super) fn read_life(reader: &mut Reader<'_>) -> Result<Life, Malformed> {
    let id = NodeId::new(reader.text()?).map_err(|_| Malformed::Node)?;
    match reader.number()? {
        incarnation if incarnation <= GREATEST => Ok(Life { id, incarnation }),
        _ => Err(Malformed::Incarnation),
    }
}

/// Who answers: where no id is said, the sender.
fn read_answering(reader: &mut Reader<'_>, sender: &Life) -> Result<Life, Malformed> {
    let mut ahead = reader.clone();
    match ahead.text()? {
        "" => {
            *reader = ahead;
            Ok(sender.clone())
        }
        _ => read_life(reader),
    }
}

fn write_place(writer: &mut Writer, place: &Place) {
    writer.text(place.host());
    writer.port(place.port());
}

fn read_place(reader: &mut Reader<'_>) -> Result<Place, Malformed> {
    let (host, port) = (reader.text()?, reader.port()?);
    let is_sane = (1..=MAX_HOST).contains(&host.len()) && port > 0 && !host.chars().any(char::is_control);
    if is_sane { Ok(Place::new(host, port)) } else { Err(Malformed::Node) }
}

fn read_confirmed(reader: &mut Reader<'_>) -> Result<Confirmed, Malformed> {
    if reader.byte()? == 1 {
        return Ok(Confirmed::All);
    }
    let from = usize::try_from(reader.number()?).map_err(|_| Malformed::Number)?;
    let bits = reader.bytes()?;
    if bits.len() > CHUNK {
        return Err(Malformed::TooMany);
    }
    Ok(Confirmed::Some { from, bits: bits.to_vec() })
}

fn write_ruling(writer: &mut Writer, id: &NodeId, ruling: &Ruling, now: Timestamp) {
    writer.text(id.as_str());
    writer.number(ruling.counter());
    writer.text(ruling.writer().as_str());
    match ruling.sentence() {
        Sentence::LetIn { incarnation, version } => {
            writer.byte(LET_IN);
            writer.number(*incarnation);
            writer.number(*version);
        }
        Sentence::KeptOut { until } => {
            writer.byte(KEEP_OUT);
            writer.number(until.map_or(0, |until| (until.since(now).as_millis() as u64).saturating_add(1)));
        }
    }
}

/// `None` where it is of a kind that this version does not know.
fn read_ruling(reader: &mut Reader<'_>, now: Timestamp) -> Result<Option<(NodeId, Ruling)>, Malformed> {
    let id = NodeId::new(reader.text()?).map_err(|_| Malformed::Node)?;
    let counter = reader.number()?;
    let writer = NodeId::new(reader.text()?).map_err(|_| Malformed::Node)?;
    let sentence = match reader.byte()? {
        LET_IN => Sentence::LetIn { incarnation: reader.number()?, version: reader.number()? },
        KEEP_OUT => {
            let left = reader.number()?.checked_sub(1).map(Duration::from_millis);
            Sentence::KeptOut { until: left.map(|left| now + left.min(LONGEST_PIN)) }
        }
        _ => return Ok(None),
    };
    match counter <= GREATEST {
        true => Ok(Some((id, Ruling::told(counter, writer, sentence)))),
        false => Err(Malformed::Incarnation),
    }
}

fn write_refusal(writer: &mut Writer, refusal: &Refusal) {
    let millis = |left: &Duration| (left.as_millis() as u64).saturating_add(1);
    match refusal {
        Refusal::Quarantined { accusers, left } => {
            writer.byte(QUARANTINED);
            writer.length(accusers.len());
            accusers.iter().for_each(|accuser| writer.text(accuser.as_str()));
            writer.number(millis(left));
        }
        Refusal::KeptOut { left } => {
            writer.byte(KEPT_OUT);
            writer.length(0);
            writer.number(left.as_ref().map_or(0, millis));
        }
        Refusal::IdTaken { place } => {
            writer.byte(ID_TAKEN);
            writer.length(0);
            writer.number(0);
            write_place(writer, place);
        }
    }
}

fn read_refusal(reader: &mut Reader<'_>) -> Result<Option<Refusal>, Malformed> {
    let reason = reader.byte()?;
    let count = reader.length(MOST)?;
    let accusers: Accusers = (0..count)
        .map(|_| NodeId::new(reader.text()?).map_err(|_| Malformed::Node))
        .collect::<Result<_, Malformed>>()?;
    let left = reader.number()?.checked_sub(1).map(Duration::from_millis);
    Ok(match reason {
        QUARANTINED => Some(Refusal::Quarantined { accusers, left: left.unwrap_or_default() }),
        KEPT_OUT => Some(Refusal::KeptOut { left }),
        ID_TAKEN => Some(Refusal::IdTaken { place: read_place(reader)? }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::record::State;
    use crate::topology::ClusterNode;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn life(id: &str) -> Life {
        Life { id: NodeId::new(id).unwrap(), incarnation: 300 }
    }

    fn ruling(sentence: Sentence) -> Part {
        let id = |name| NodeId::new(name).unwrap();
        Part::Ruling { id: id("x"), ruling: Ruling::told(4, id("n1"), sentence) }
    }

    /// One of each kind.
    fn all() -> Vec<Part> {
        let node = ClusterNode::builder("n1", "h", 7).build().unwrap();
        let number = PingNumber(5);
        let place = Place::new("h", 258);
        vec![
            Part::Ping { number, subject: life("n1"), digest: 2 },
            Part::Acknowledgement { number, life: life("n1"), digest: 2, hash: 3, confirmed: Confirmed::All },
            Part::Acknowledgement {
                number,
                life: life("n1"),
                digest: 2,
                hash: 3,
                confirmed: Confirmed::Some { from: 1, bits: vec![9, 8] },
            },
            Part::PingRequest {
                number,
                subject: life("n1"),
                place: place.clone(),
                time_left: Duration::from_millis(500),
            },
            Part::Nack(number),
            Part::Record(Record::new(Arc::new(node), 1, State::Up, 0).unwrap()),
            Part::Refused(Refusal::Quarantined {
                accusers: Accusers::of(NodeId::new("n2").unwrap()),
                left: Duration::from_secs(7),
            }),
            Part::Refused(Refusal::KeptOut { left: None }),
            Part::Refused(Refusal::KeptOut { left: Some(Duration::from_secs(1)) }),
            Part::Refused(Refusal::IdTaken { place: place.clone() }),
            Part::Join { label: "prod".into() },
            Part::Welcome { incarnation: 300, version: 2 },
            Part::Elsewhere(vec![place.clone(), place]),
            Part::Noted,
            Part::Buckets(Box::new([0x0102_0304_0506_0708; BUCKETS])),
            Part::Differing(vec![0, 255]),
            ruling(Sentence::LetIn { incarnation: 300, version: 2 }),
            ruling(Sentence::KeptOut { until: None }),
            ruling(Sentence::KeptOut { until: Some(now() + Duration::from_secs(7)) }),
            Part::Observe { hash: 3 },
            Part::Observed { hash: 3, is_whole: true, gone: vec![] },
            Part::Observed {
                hash: 3,
                is_whole: false,
                gone: vec![
                    Gone { id: NodeId::new("n1").unwrap(), is_dead: true },
                    Gone { id: NodeId::new("n2").unwrap(), is_dead: false },
                ],
            },
        ]
    }

    fn written(part: &Part) -> Vec<u8> {
        let mut writer = Writer::default();
        write_part(&mut writer, part, None, now());
        writer.into_bytes()
    }

    fn read(bytes: &[u8]) -> Result<Option<Part>, Malformed> {
        read_part(&mut Reader::new(bytes), &life("sender"), now())
    }

    #[test]
    fn m1_4_each_part_has_the_bytes_that_the_table_says() {
        let expected: [(usize, &[u8]); 16] = [
            (0, b"\x01\x0e\x05\x02n1\xac\x02\0\0\0\0\0\0\0\x02"),
            (1, b"\x02\x17\x05\x02n1\xac\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\x01"),
            (2, b"\x02\x1b\x05\x02n1\xac\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\x01\x02\x09\x08"),
            (3, b"\x03\x0c\x05\x02n1\xac\x02\x01h\x01\x02\xf4\x03"),
            (4, b"\x04\x01\x05"),
            (6, b"\x06\x07\0\x01\x02n2\xd9\x36"),
            (9, b"\x06\x07\x02\0\0\x01h\x01\x02"),
            (10, b"\x10\x05\x04prod"),
            (11, b"\x11\x03\xac\x02\x02"),
            (15, b"\x21\x03\x02\0\xff"),
            (16, b"\x07\x0a\x01x\x04\x02n1\0\xac\x02\x02"),
            (17, b"\x07\x08\x01x\x04\x02n1\x01\0"),
            (19, b"\x22\x08\0\0\0\0\0\0\0\x03"),
            (20, b"\x23\x0a\0\0\0\0\0\0\0\x03\x01\0"),
            (21, b"\x23\x12\0\0\0\0\0\0\0\x03\0\x02\x02n1\x01\x02n2\0"),
            (18, b"\x07\x09\x01x\x04\x02n1\x01\xd9\x36"),
        ];
        let parts = all();
        for (place, bytes) in expected {
            assert_eq!(written(&parts[place]), bytes, "{:?}", parts[place]);
        }
    }

    #[test]
    fn m3_5_a_pin_for_longer_than_there_is_time_ends_in_ten_years() {
        let endless = ruling(Sentence::KeptOut { until: Some(now() + Duration::from_millis(u64::MAX)) });
        let read = read(&written(&endless)).unwrap().unwrap();
        assert_eq!(read, ruling(Sentence::KeptOut { until: Some(now() + LONGEST_PIN) }));
    }

    #[test]
    fn m1_4_what_is_written_is_read_and_what_a_later_version_adds_is_skipped() {
        for part in all() {
            let bytes = written(&part);
            assert_eq!(read(&bytes), Ok(Some(part.clone())));
            for cut in 0..bytes.len() {
                assert!(read(&bytes[..cut]).is_err(), "{part:?} cut after {cut}");
            }
            if !matches!(part, Part::Record(_) | Part::Buckets(_)) {
                let mut longer = Writer::default();
                longer.byte(bytes[0]);
                longer.bytes(&[&bytes[2..], b"more"].concat());
                assert_eq!(read(&longer.into_bytes()), Ok(Some(part)));
            }
        }
        assert_eq!(read(b"\x63\x02xx"), Ok(None), "an unknown kind");
        assert_eq!(read(b"\x06\x03\x09\0\0"), Ok(None), "an unknown reason");
    }

    #[test]
    fn m2_5_what_no_member_could_say_is_refused() {
        let refused: [(&[u8], Malformed); 7] = [
            (b"\x01\x0b\x05\0\0\0\0\0\0\0\0\0\0", Malformed::Node),
            (b"\x03\x0a\x05\x02n1\x01\x01h\0\0\x01", Malformed::Node),
            (b"\x03\x0c\x05\x02n1\x01\x03h\nx\x01\x02\x01", Malformed::Node),
            (b"\x11\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f\0", Malformed::Incarnation),
            (b"\x12\x01\x29", Malformed::TooMany),
            (b"\x21\x03\x04\0\0", Malformed::Truncated),
            (b"\x10\x02\x01\xff", Malformed::Text),
        ];
        for (bytes, why) in refused {
            assert_eq!(read(bytes), Err(why), "{bytes:x?}");
        }
    }

    #[test]
    fn m2_5_what_is_as_great_as_it_may_be_is_read_and_one_more_is_not() {
        let is_read = |part: Part| match read(&written(&part)) {
            Ok(told) => {
                assert_eq!(told, Some(part));
                true
            }
            Err(_) => false,
        };
        let id = |name| NodeId::new(name).unwrap();
        let kept = Sentence::KeptOut { until: None };
        let confirmed = |length| Confirmed::Some { from: 0, bits: vec![1; length] };
        for (more, fits) in [(0, true), (1, false)] {
            assert_eq!(is_read(Part::Join { label: "x".repeat(MAX_LABEL + more) }), fits);
            assert_eq!(is_read(Part::Differing(vec![1; BUCKETS + more])), fits);
            assert_eq!(is_read(Part::Elsewhere(vec![Place::new("h", 1); ELSEWHERE + more])), fits);
            let (number, life, greatest) = (PingNumber(1), life("n1"), GREATEST + more as u64);
            assert_eq!(is_read(Part::Welcome { incarnation: greatest, version: 0 }), fits);
            assert_eq!(is_read(Part::Welcome { incarnation: 0, version: greatest }), fits);
            assert_eq!(is_read(Part::Welcome { incarnation: greatest, version: GREATEST }), fits);
            let subject = Life { id: id("n1"), incarnation: greatest };
            assert_eq!(is_read(Part::Ping { number, subject, digest: 0 }), fits);
            let ruling = Ruling::told(greatest, id("n1"), kept.clone());
            assert_eq!(is_read(Part::Ruling { id: id("x"), ruling }), fits);
            let confirmed = confirmed(CHUNK + more);
            assert_eq!(is_read(Part::Acknowledgement { number, life, digest: 0, hash: 0, confirmed }), fits);
        }
    }

    proptest! {
        #[test]
        fn m1_4_any_bytes_are_a_part_or_none_and_what_is_read_is_written_as_it_reads(
            bytes in prop::collection::vec(any::<u8>(), 0..60), which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            _ = read(&bytes);
            let mut changed = written(&all()[which.index(all().len())]);
            let at = at.index(changed.len());
            changed[at] = byte;
            if let Ok(Some(part)) = read(&changed) {
                prop_assert_eq!(read(&written(&part)), Ok(Some(part)));
            }
        }
    }
}
