//! A message: who says it, to which cluster, in which version, and its parts. The same on both channels; a datagram has at
//! most 1,400 bytes.
//!
//! | field | as | |
//! |---|---|---|
//! | label | 4 bytes | the beginning of the XXH3 hash of the cluster's label, big-endian |
//! | version, lowest | bytes | the version it is written in, and the lowest that the sender speaks |
//! | sender | text, number | id and incarnation |
//! | parts | to the end | see [`part`](super::part) |

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use super::part::{Part, RECORD, read_life, read_part, write_life, write_part};
use super::{Malformed, Reader, Writer};
use crate::clock::Timestamp;
use crate::membership::heard::Heard;
use crate::membership::record::Life;

/// The most bytes of a datagram: what passes through any path of the internet's usual 1,500 without being cut in pieces,
/// with room for headers of tunnels.
pub(in crate::membership) const DATAGRAM: usize = 1400;
/// Most have no more bytes than this: a ping, or an answer.
const USUAL: usize = 128;
/// The version of the protocol.
pub(in crate::membership) const VERSION: u8 = 1;

/// To which cluster a message belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::membership) struct LabelHash([u8; 4]);

impl LabelHash {
    pub(in crate::membership) fn of(label: &str) -> Self {
        let [a, b, c, d, ..] = xxh3_64(label.as_bytes()).to_be_bytes();
        Self([a, b, c, d])
    }

    /// As a message begins with it.
    pub(in crate::membership) fn to_bytes(self) -> [u8; 4] {
        self.0
    }
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It is none.
    Malformed(Malformed),
    /// It is for another cluster.
    OtherCluster,
    /// Its sender speaks only later versions than this one.
    TooNew,
    /// Its sender speaks only earlier ones.
    TooOld,
    /// It is encrypted, and this cluster is not.
    Sealed,
    /// It is not encrypted, and this cluster is.
    NotSealed,
    /// It is encrypted with a key that is not known here.
    NoSuchKey,
    /// It was changed on its way.
    Forged,
    /// It was taken before.
    Replayed,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => write!(f, "no message of this protocol: {malformed}"),
            Self::OtherCluster => f.write_str("it is for a cluster with another label"),
            Self::TooNew => f.write_str("its sender speaks only later versions of the protocol: upgrade this node"),
            Self::Sealed => f.write_str("it is encrypted, and this node has no keys"),
            Self::NotSealed => f.write_str("it is not encrypted, and this node takes nothing else"),
            Self::NoSuchKey => f.write_str("it is encrypted with a key that this node does not have"),
            Self::Forged => f.write_str("it was changed on its way, or encrypted with another key"),
            Self::Replayed => f.write_str("it was taken before, or its sender has begun anew since"),
            Self::TooOld => f.write_str("its sender speaks only earlier versions of the protocol: upgrade that node"),
        }
    }
}

impl From<Malformed> for Unusable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::membership) struct Message {
    pub(in crate::membership) sender: Life,
    pub(in crate::membership) parts: Vec<Part>,
    /// Of a datagram: the fingerprints of the records among the parts, in order.
    pub(in crate::membership) fingerprints: Vec<u64>,
}

/// Writes a message.
#[derive(Clone, Debug)]
pub(in crate::membership) struct MessageWriter {
    writer: Writer,
    sender: Life,
}

impl MessageWriter {
    /// Of that sender, without a part yet.
    pub(in crate::membership) fn new(label: LabelHash, sender: &Life) -> Self {
        let mut writer = Writer::with_room_for(USUAL);
        label.to_bytes().into_iter().for_each(|byte| writer.byte(byte));
        writer.byte(VERSION);
        writer.byte(VERSION);
        write_life(&mut writer, sender);
        Self { writer, sender: sender.clone() }
    }

    pub(in crate::membership) fn part(&mut self, part: &Part, now: Timestamp) {
        write_part(&mut self.writer, part, Some(&self.sender), now);
    }

    /// A part that has been written already.
    pub(in crate::membership) fn rumour(&mut self, part: &[u8]) {
        self.writer.append(part);
    }

    /// How many bytes a datagram of so many has room for still.
    pub(in crate::membership) fn room(&self, datagram: usize) -> usize {
        datagram.saturating_sub(self.writer.len())
    }

    pub(in crate::membership) fn into_bytes(self) -> Vec<u8> {
        self.writer.into_bytes()
    }
}

/// Reads a message for the cluster of that label, which arrived at `now`.
///
/// # Errors
/// [`Unusable`]; then nothing of it counts.
pub(in crate::membership) fn read_message(bytes: &[u8], label: LabelHash, now: Timestamp) -> Result<Message, Unusable> {
    read(bytes, label, None, now)
}

/// The same of a datagram, without the rumours that were heard before. What its sender says of itself is always read: it
/// may have to be told why that does not count.
///
/// # Errors
/// [`Unusable`]; then nothing of it counts.
pub(in crate::membership) fn read_datagram(
    bytes: &[u8],
    label: LabelHash,
    heard: &Heard,
    now: Timestamp,
) -> Result<Message, Unusable> {
    read(bytes, label, Some(heard), now)
}

fn read(bytes: &[u8], label: LabelHash, heard: Option<&Heard>, now: Timestamp) -> Result<Message, Unusable> {
    let mut reader = Reader::new(bytes);
    let theirs = LabelHash([reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?]);
    if theirs != label {
        return Err(Unusable::OtherCluster);
    }
    let (version, lowest) = (reader.byte()?, reader.byte()?);
    if lowest > VERSION {
        return Err(Unusable::TooNew);
    }
    if version < VERSION {
        return Err(Unusable::TooOld);
    }
    let sender = read_life(&mut reader)?;
    let mut message = Message { sender, parts: Vec::new(), fingerprints: Vec::new() };
    while !reader.is_empty() {
        let fingerprint = match (heard, reader.peek()) {
            (Some(heard), Some(RECORD)) => {
                let mut ahead = reader.clone();
                ahead.byte()?;
                let record = ahead.bytes()?;
                let fingerprint = heard.fingerprint(record);
                if heard.knows(fingerprint) && Reader::new(record).text()? != message.sender.id.as_str() {
                    reader = ahead;
                    continue;
                }
                Some(fingerprint)
            }
            _ => None,
        };
        if let Some(part) = read_part(&mut reader, &message.sender, now)? {
            message.parts.push(part);
            message.fingerprints.extend(fingerprint);
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::probe::PingNumber;
    use crate::membership::record::{Record, State};
    use crate::topology::{ClusterNode, NodeId};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn sender() -> Life {
        Life { id: NodeId::new("n1").unwrap(), incarnation: 300 }
    }

    fn label() -> LabelHash {
        LabelHash::of("prod")
    }

    fn message() -> Vec<u8> {
        let mut writer = MessageWriter::new(label(), &sender());
        writer.part(&Part::Nack(PingNumber(1)), now());
        writer.part(&Part::Noted, now());
        writer.into_bytes()
    }

    fn read(bytes: &[u8]) -> Result<Message, Unusable> {
        read_message(bytes, label(), now())
    }

    #[test]
    fn m1_4_a_message_has_the_bytes_that_the_table_says() {
        let bytes = message();
        assert_eq!(bytes[..4], xxh3_64(b"prod").to_be_bytes()[..4]);
        assert_eq!(bytes[4..], *b"\x01\x01\x02n1\xac\x02\x04\x01\x01\x13\0");
        let parts = vec![Part::Nack(PingNumber(1)), Part::Noted];
        assert_eq!(read(&bytes), Ok(Message { sender: sender(), parts, fingerprints: vec![] }));
    }

    #[test]
    fn m1_4_an_answer_names_its_sender_once_and_whoever_else_has_answered_in_full() {
        let answer = |life: Life| Part::Acknowledgement {
            number: PingNumber(1),
            life,
            digest: 2,
            hash: 3,
            confirmed: crate::membership::convergence::Confirmed::All,
        };
        let written = |life: Life| {
            let mut writer = MessageWriter::new(label(), &sender());
            writer.part(&answer(life.clone()), now());
            let bytes = writer.into_bytes();
            assert_eq!(read(&bytes).unwrap().parts, [answer(life)]);
            bytes.len()
        };
        let another =
            [("n2", 300), ("n1", 301)].map(|(id, incarnation)| Life { id: NodeId::new(id).unwrap(), incarnation });
        let own = written(sender());
        assert_eq!(another.map(written), [own + 4, own + 4], "two letters, and two bytes of the incarnation");
    }

    #[test]
    fn m1_4_a_datagram_has_room_for_1400_bytes_less_what_is_written() {
        let mut writer = MessageWriter::new(label(), &sender());
        assert_eq!(writer.room(DATAGRAM), 1389);
        writer.part(&Part::Noted, now());
        assert_eq!(writer.room(DATAGRAM), 1387);
        writer.rumour(&[0; 1400]);
        assert_eq!(writer.room(DATAGRAM), 0);
    }

    #[test]
    fn m2_5_a_message_of_another_cluster_or_of_versions_that_are_not_spoken_here_is_refused() {
        let with = |place: usize, byte: u8| {
            let mut bytes = message();
            bytes[place] = byte;
            read(&bytes)
        };
        assert_eq!(with(0, message()[0] ^ 1), Err(Unusable::OtherCluster));
        assert_eq!(with(4, 0), Err(Unusable::TooOld));
        assert_eq!(with(5, 2), Err(Unusable::TooNew));
        assert!(with(4, 9).is_ok(), "a later version that speaks this one, too");
    }

    #[test]
    fn m1_4_unknown_parts_are_skipped_and_one_that_is_malformed_spoils_all() {
        let unknown = [&message()[..], b"\x63\x03abc", b"\x04\x01\x02"].concat();
        assert_eq!(read(&unknown).unwrap().parts.last(), Some(&Part::Nack(PingNumber(2))));
        let malformed = [&message()[..], b"\x04\x00"].concat();
        assert_eq!(read(&malformed), Err(Unusable::Malformed(Malformed::Truncated)));
    }

    #[test]
    fn m1_4_a_rumour_that_was_heard_before_is_not_read_again_unless_its_sender_says_it_of_itself() {
        let mut heard = Heard::new(7);
        let with = |name: &str| {
            let node = ClusterNode::builder(name, "10.0.0.1", 7).build().unwrap();
            let record = Record::new(Arc::new(node), 0, State::Up, 0).unwrap();
            let mut writer = MessageWriter::new(label(), &sender());
            writer.part(&Part::Record(record), now());
            writer.part(&Part::Noted, now());
            writer.into_bytes()
        };
        for (name, again) in [("n2", 1), ("n1", 2)] {
            let first = read_datagram(&with(name), label(), &heard, now()).unwrap();
            assert_eq!((first.parts.len(), first.fingerprints.len()), (2, 1));
            heard.note(first.fingerprints[0], 3);
            let second = read_datagram(&with(name), label(), &heard, now()).unwrap();
            assert_eq!(second.parts.len(), again, "{name}");
        }
        assert_eq!(read_message(&with("n2"), label(), now()).unwrap().parts.len(), 2);
    }

    proptest! {
        #[test]
        fn m1_4_any_bytes_are_a_message_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            _ = read(&bytes);
            _ = read(&[&message()[..], &bytes].concat());
            let mut changed = message();
            let at = at.index(changed.len());
            changed[at] = byte;
            _ = read(&changed);
        }
    }
}
