//! The content of a record.
//!
//! | field | as | |
//! |---|---|---|
//! | id | text | |
//! | address, port | text, port | |
//! | gossip port | port | where on that address its membership is reached |
//! | incarnation, version | numbers | at most 2⁶² |
//! | strikes | byte | |
//! | kinds | list of texts | sorted |
//! | metadata | list of pairs of texts | sorted by the first |
//! | state | byte | 0 Up, 1 Suspect, 2 Dead, 3 Left; a record in another state is skipped |
//! | accusers | list of texts | of Suspect and Dead; 1 to 4, sorted |
//! | time left | number | of Dead: the milliseconds of its quarantine that are left |

use std::sync::Arc;
use std::time::Duration;

use super::{Malformed, Reader, Writer};
use crate::clock::Timestamp;
use crate::membership::accusers::{Accusers, MOST};
use crate::membership::record::{GREATEST, Record, State};
use crate::topology::{ClusterNode, NodeId};

/// The most bytes of a node's kinds and metadata together, without their lengths: what leaves room in a packet for others.
pub(in crate::membership) const ROOM: usize = 512;
/// The most kinds, and the most metadata entries: each takes a byte of [`ROOM`] at least.
const ENTRIES: usize = ROOM;
/// The longest time that may be left of a quarantine; a longer one is taken for this.
const LONGEST_LEFT: Duration = Duration::from_secs(24 * 60 * 60);

const UP: u8 = 0;
const SUSPECT: u8 = 1;
const DEAD: u8 = 2;
const LEFT: u8 = 3;

/// Whether the kinds and metadata of the node fit into a record.
pub(in crate::membership) fn fits(node: &ClusterNode) -> bool {
    let kinds: usize = node.kinds().map(str::len).sum();
    let metadata: usize = node.metadata().map(|(key, value)| key.len() + value.len()).sum();
    kinds + metadata <= ROOM
}

/// Writes the record, as of `now`.
pub(in crate::membership) fn write_record(inner: &mut Writer, record: &Record, now: Timestamp) {
    let node = record.node();
    inner.text(node.id().as_str());
    inner.text(node.address());
    inner.port(node.port());
    inner.port(record.gossip_port());
    inner.number(node.incarnation());
    inner.number(record.version());
    inner.byte(record.strikes());
    inner.length(node.kinds().len());
    node.kinds().for_each(|kind| inner.text(kind));
    inner.length(node.metadata().len());
    for (key, value) in node.metadata() {
        inner.text(key);
        inner.text(value);
    }
    match record.state() {
        State::Up => inner.byte(UP),
        State::Left => inner.byte(LEFT),
        State::Suspect(accusers) => {
            inner.byte(SUSPECT);
            write_accusers(inner, accusers);
        }
        State::Dead { accusers, quarantined_until } => {
            inner.byte(DEAD);
            write_accusers(inner, accusers);
            inner.number(quarantined_until.since(now).as_millis() as u64);
        }
    }
}

fn write_accusers(writer: &mut Writer, accusers: &Accusers) {
    writer.length(accusers.len());
    accusers.iter().for_each(|accuser| writer.text(accuser.as_str()));
}

/// Reads a record that arrived at `now`; `None` if its state is one that this version does not know. What comes after it is
/// left.
pub(in crate::membership) fn read_record(inner: &mut Reader<'_>, now: Timestamp) -> Result<Option<Record>, Malformed> {
    let mut node = ClusterNode::builder(inner.text()?, inner.text()?, inner.port()?);
    let gossip_port = inner.port()?;
    let (incarnation, version) = (inner.number()?, inner.number()?);
    if incarnation > GREATEST || version > GREATEST {
        return Err(Malformed::Incarnation);
    }
    node = node.incarnation(incarnation);
    let strikes = inner.byte()?;
    for _ in 0..inner.length(ENTRIES)? {
        node = node.kind(inner.text()?);
    }
    for _ in 0..inner.length(ENTRIES)? {
        node = node.metadata(inner.text()?, inner.text()?);
    }
    let node = node.build().ok().filter(fits).ok_or(Malformed::Node)?;
    let state = match inner.byte()? {
        UP => State::Up,
        LEFT => State::Left,
        SUSPECT => State::Suspect(read_accusers(inner)?),
        DEAD => {
            let accusers = read_accusers(inner)?;
            let left = Duration::from_millis(inner.number()?).min(LONGEST_LEFT);
            State::Dead { accusers, quarantined_until: now + left }
        }
        _ => return Ok(None),
    };
    Ok(Record::new(Arc::new(node), version, state, strikes).map(|record| record.reached_at(gossip_port)))
}

fn read_accusers(reader: &mut Reader<'_>) -> Result<Accusers, Malformed> {
    let count = reader.length(MOST)?;
    let accusers: Vec<NodeId> = (0..count)
        .map(|_| NodeId::new(reader.text()?).map_err(|_| Malformed::Node))
        .collect::<Result<_, Malformed>>()?;
    let is_sorted = accusers.windows(2).all(|pair| pair[0] < pair[1]);
    if accusers.is_empty() || !is_sorted {
        return Err(Malformed::Node);
    }
    Ok(accusers.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Malformed, Reader, Writer};
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn record(state: State) -> Record {
        let node = ClusterNode::builder("n1", "10.0.0.1", 7000).incarnation(300).kinds(["a", "b"]).metadata("z", "1");
        Record::new(Arc::new(node.build().unwrap()), 2, state, 1).unwrap().reached_at(7946)
    }

    fn accusers(ids: &[&str]) -> Accusers {
        ids.iter().map(|id| NodeId::new(*id).unwrap()).collect()
    }

    fn dead() -> State {
        State::Dead { accusers: accusers(&["n2", "n3"]), quarantined_until: now() + Duration::from_secs(10) }
    }

    fn written(record: &Record) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.measured(|inner| write_record(inner, record, now()));
        writer.into_bytes()
    }

    fn next(reader: &mut Reader<'_>, now: Timestamp) -> Result<Option<Record>, Malformed> {
        read_record(&mut Reader::new(reader.bytes()?), now)
    }

    fn read(bytes: &[u8]) -> Result<Option<Record>, Malformed> {
        next(&mut Reader::new(bytes), now())
    }

    /// The bytes with another length before them.
    fn with_length(inner: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(inner);
        writer.into_bytes()
    }

    #[test]
    fn m1_4_a_record_has_the_bytes_that_the_table_says() {
        let expected = [
            &[47][..],
            b"\x02n1",
            b"\x0810.0.0.1",
            &[0x1b, 0x58],
            &[0x1f, 0x0a],
            &[0xac, 0x02],
            &[2],
            &[1],
            b"\x02\x01a\x01b",
            b"\x01\x01z\x011",
            &[2],
            b"\x02\x02n2\x02n3",
            &[0x90, 0x4e],
        ]
        .concat();
        let bytes = written(&record(dead()));
        assert_eq!(bytes[1..], expected[1..]);
        assert_eq!(usize::from(bytes[0]), bytes.len() - 1);
    }

    #[test]
    fn m1_4_what_a_later_version_adds_at_the_end_is_skipped_and_what_comes_after_it_is_read() {
        let whole = written(&record(State::Up));
        let mut bytes = with_length(&[&whole[1..], b"of another version"].concat());
        bytes.extend(written(&record(State::Left)));
        let mut reader = Reader::new(&bytes);
        assert_eq!(next(&mut reader, now()), Ok(Some(record(State::Up))));
        assert_eq!(next(&mut reader, now()), Ok(Some(record(State::Left))));
        assert!(reader.is_empty());
    }

    #[test]
    fn m1_4_a_record_in_a_state_of_a_later_version_is_skipped_alone() {
        let mut bytes = written(&record(State::Up));
        *bytes.last_mut().unwrap() = 4;
        bytes.extend(written(&record(State::Left)));
        let mut reader = Reader::new(&bytes);
        assert_eq!(next(&mut reader, now()), Ok(None));
        assert_eq!(next(&mut reader, now()), Ok(Some(record(State::Left))));
    }

    #[test]
    fn m2_5_what_no_node_could_say_is_refused() {
        let of = |id: &str, port: u16, incarnation: u64, version: u64, state: &[u8]| {
            let mut writer = Writer::default();
            writer.text(id);
            writer.text("10.0.0.1");
            writer.port(port);
            writer.port(7946);
            writer.number(incarnation);
            writer.number(version);
            [0, 0, 0].iter().for_each(|byte| writer.byte(*byte));
            with_length(&[&writer.into_bytes()[..], state].concat())
        };
        assert!(read(&of("n1", 7, GREATEST, GREATEST, &[UP])).unwrap().is_some());
        assert_eq!(read(&of("n1", 7, GREATEST + 1, 0, &[UP])), Err(Malformed::Incarnation));
        assert_eq!(read(&of("n1", 7, 0, GREATEST + 1, &[UP])), Err(Malformed::Incarnation));
        assert_eq!(read(&of("", 7, 0, 0, &[UP])), Err(Malformed::Node));
        assert_eq!(read(&of("n1", 0, 0, 0, &[UP])), Err(Malformed::Node));
        assert_eq!(read(&of("n\n1", 7, 0, 0, &[UP])), Err(Malformed::Node));
        assert_eq!(read(&of("n1", 7, 0, 0, &[SUSPECT, 0])), Err(Malformed::Node), "accused by nobody");
        assert_eq!(read(&of("n1", 7, 0, 0, b"\x01\x02\x01b\x01a")), Err(Malformed::Node), "not sorted");
        assert_eq!(read(&of("n1", 7, 0, 0, b"\x01\x02\x01a\x01a")), Err(Malformed::Node), "twice");
        assert_eq!(read(&of("n1", 7, 0, 0, b"\x01\x05\x01a\x01b\x01c\x01d\x01e")), Err(Malformed::TooMany));
        assert_eq!(read(&of("n1", 7, 0, 0, &[])), Err(Malformed::Truncated));
    }

    #[test]
    fn m1_4_a_node_with_more_than_its_room_is_neither_written_nor_read() {
        let of = |size: usize| {
            let node = ClusterNode::builder("n1", "h", 7).kind("k".repeat(12)).metadata("key", "v".repeat(size - 15));
            Record::new(Arc::new(node.build().unwrap()), 0, State::Up, 0).unwrap()
        };
        assert!(fits(of(ROOM).node()) && !fits(of(ROOM + 1).node()));
        assert_eq!(read(&written(&of(ROOM))), Ok(Some(of(ROOM))));
        assert_eq!(read(&written(&of(ROOM + 1))), Err(Malformed::Node));
    }

    #[test]
    fn m3_4_a_quarantine_travels_as_the_time_that_is_left_and_lasts_no_longer_than_a_day() {
        let bytes = written(&record(dead()));
        let later = now() + Duration::from_secs(3);
        let read = next(&mut Reader::new(&bytes), later).unwrap().unwrap();
        let until = |record: &Record| match record.state() {
            State::Dead { quarantined_until, .. } => quarantined_until.since(later),
            other => panic!("{other:?}"),
        };
        assert_eq!(until(&read), Duration::from_secs(10), "counted from the arrival");
        let endless = State::Dead { accusers: accusers(&["n2"]), quarantined_until: now() + LONGEST_LEFT * 9 };
        let read = next(&mut Reader::new(&written(&record(endless))), later).unwrap().unwrap();
        assert_eq!(until(&read), LONGEST_LEFT);
    }

    proptest! {
        #[test]
        fn m1_4_any_bytes_are_a_record_or_none_and_what_is_cut_short_is_none(
            bytes in prop::collection::vec(any::<u8>(), 0..80), cut in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            _ = read(&bytes);
            let whole = written(&record(dead()));
            prop_assert_eq!(read(&whole[..cut.index(whole.len())]), Err(Malformed::Truncated));
            let mut changed = whole.clone();
            changed[at.index(whole.len())] = byte;
            // Whatever was read can be written, and reads as the same again.
            if let Ok(Some(record)) = read(&changed) {
                prop_assert_eq!(read(&written(&record)), Ok(Some(record)));
            }
        }
    }
}
