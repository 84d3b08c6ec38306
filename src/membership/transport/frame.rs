//! How messages lie in a connection: each after its length, and in the place of one a refusal.
//!
//! | field | as | |
//! |---|---|---|
//! | length | 4 bytes, big-endian | of the message; 0: it is a refusal |
//! | message | as many bytes | |
//! | reason | byte, of a refusal alone | see [`Reason`] |
//!
//! Nobody signs a refusal, so that it decides nothing: it is told to people.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

/// The longest message that is taken: more than a hundred thousand records with all that they may hold would need, at
/// their usual size.
pub(super) const LONGEST: usize = 64 * 1024 * 1024;
/// How much is read at a time: one connection does not keep the others waiting.
const AT_A_TIME: usize = 256 * 1024;
/// Room is made as the bytes arrive, and not because a length says so.
pub(super) const PIECE: usize = 16 * 1024;

/// Why a question is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// It is for another cluster.
    OtherCluster,
    /// It is sealed, and this cluster seals nothing.
    Sealed,
    /// It is not sealed, and this cluster seals everything.
    NotSealed,
    /// It is sealed with a key that is not known here.
    NoSuchKey,
    /// Its sender speaks only earlier versions of the protocol, or only later ones.
    OtherVersion,
    /// There are too many connections.
    Busy,
    /// Something else.
    Other(u8),
}

impl Reason {
    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Reason::OtherCluster,
            2 => Reason::Sealed,
            3 => Reason::NotSealed,
            4 => Reason::NoSuchKey,
            5 => Reason::OtherVersion,
            6 => Reason::Busy,
            other => Reason::Other(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Reason::OtherCluster => 1,
            Reason::Sealed => 2,
            Reason::NotSealed => 3,
            Reason::NoSuchKey => 4,
            Reason::OtherVersion => 5,
            Reason::Busy => 6,
            Reason::Other(other) => other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::OtherCluster => "it belongs to a cluster with another label",
            Reason::Sealed => "its cluster does not encrypt, and this node does: give both the same keys, or none",
            Reason::NotSealed => "its cluster encrypts, and this node does not: give this node the cluster's keys",
            Reason::NoSuchKey => "it does not have the key that this node encrypts with",
            Reason::OtherVersion => "it speaks other versions of the protocol",
            Reason::Busy => "it has too many connections",
            Reason::Other(_) => "it does not take what this node asks",
        })
    }
}

/// What a connection carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Message(Vec<u8>),
    Refusal(Reason),
}

impl Frame {
    /// Its bytes. A message that is too long is a refusal.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Frame::Message(bytes) if (1..=LONGEST).contains(&bytes.len()) => {
                let length = u32::try_from(bytes.len()).unwrap_or(0);
                [&length.to_be_bytes()[..], &bytes].concat()
            }
            Frame::Message(_) => Frame::Refusal(Reason::Other(u8::MAX)).into_bytes(),
            Frame::Refusal(reason) => vec![0, 0, 0, 0, reason.byte()],
        }
    }
}

/// Reads one frame, as it arrives.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl FrameReader {
    /// Takes what has arrived; the frame where it is complete. `room`: how many bytes there is room for in all.
    ///
    /// # Errors
    /// Whatever the connection fails with; `UnexpectedEof` where it ends too soon, `InvalidData` where more would come than
    /// is taken, `OutOfMemory` where there is no room.
    pub(super) fn read(&mut self, from: &mut impl Read, room: usize) -> io::Result<Option<Frame>> {
        let mut taken = 0;
        while self.head.len() < 4 {
            if !self.take(from, 4, true, &mut taken)? {
                return Ok(None);
            }
        }
        let length = self.head.iter().take(4).fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        if length > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let wanted = length.max(1);
        while self.body.len() < wanted {
            if taken >= AT_A_TIME {
                return Ok(None);
            }
            if self.body.len() + PIECE > room.max(PIECE) {
                return Err(ErrorKind::OutOfMemory.into());
            }
            if !self.take(from, wanted, false, &mut taken)? {
                return Ok(None);
            }
        }
        let body = std::mem::take(&mut self.body);
        Ok(Some(match (length, body.first()) {
            (0, Some(reason)) => Frame::Refusal(Reason::from_byte(*reason)),
            _ => Frame::Message(body),
        }))
    }

    /// How many bytes it holds.
    pub(super) fn held(&self) -> usize {
        self.body.len()
    }

    /// Whether something was there.
    fn take(&mut self, from: &mut impl Read, wanted: usize, is_head: bool, taken: &mut usize) -> io::Result<bool> {
        let into = if is_head { &mut self.head } else { &mut self.body };
        let mut piece = [0; PIECE];
        let most = wanted.saturating_sub(into.len()).min(PIECE);
        match piece.get_mut(..most).map_or(Ok(0), |piece| from.read(piece)) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                into.extend(piece.iter().take(count));
                *taken += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Writes one frame, as there is room for it.
#[derive(Debug)]
pub(super) struct FrameWriter {
    bytes: Vec<u8>,
    written: usize,
}

impl FrameWriter {
    pub(super) fn new(frame: Frame) -> Self {
        Self { bytes: frame.into_bytes(), written: 0 }
    }

    /// How many bytes it holds.
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Writes what there is room for; whether all is written.
    ///
    /// # Errors
    /// Whatever the connection fails with.
    pub(super) fn write(&mut self, to: &mut impl Write) -> io::Result<bool> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            match to.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives what it has in pieces, and between them nothing.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(first) = self.0.first_mut() else { return Ok(0) };
            if first.is_empty() {
                self.0.remove(0);
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = into.len().min(first.len());
            into[..count].copy_from_slice(&first[..count]);
            first.drain(..count);
            Ok(count)
        }
    }

    fn read(pieces: Vec<Vec<u8>>) -> io::Result<Frame> {
        let (mut reader, mut from) = (FrameReader::default(), Pieces(pieces));
        loop {
            if let Some(frame) = reader.read(&mut from, LONGEST)? {
                return Ok(frame);
            }
        }
    }

    fn kind(result: io::Result<Frame>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn m1_4_a_frame_is_a_message_after_its_length_or_a_refusal() {
        assert_eq!(Frame::Message(b"abc".to_vec()).into_bytes(), b"\0\0\0\x03abc");
        assert_eq!(Frame::Refusal(Reason::NotSealed).into_bytes(), b"\0\0\0\0\x03");
        for byte in 0..=255 {
            assert_eq!(Reason::from_byte(byte).byte(), byte);
            let refusal = Frame::Refusal(Reason::from_byte(byte));
            assert_eq!(read(vec![refusal.clone().into_bytes()]).unwrap(), refusal);
        }
        assert_eq!(Frame::Message(vec![]).into_bytes(), b"\0\0\0\0\xff", "a message has a byte at least");
    }

    #[test]
    fn m2_5_a_frame_that_is_too_long_or_ends_too_soon_is_refused() {
        assert_eq!(kind(read(vec![b"\xff\xff\xff\xff".to_vec()])), ErrorKind::InvalidData);
        let longest = u32::try_from(LONGEST).unwrap();
        assert_eq!(kind(read(vec![(longest + 1).to_be_bytes().to_vec()])), ErrorKind::InvalidData);
        assert_eq!(kind(read(vec![longest.to_be_bytes().to_vec()])), ErrorKind::UnexpectedEof);
        for cut in 0..6 {
            assert_eq!(kind(read(vec![b"\0\0\0\x03abc"[..cut].to_vec()])), ErrorKind::UnexpectedEof, "{cut}");
        }
    }

    #[test]
    fn m2_5_a_length_makes_no_room_and_a_connection_takes_no_more_than_its_share() {
        let mut reader = FrameReader::default();
        let claimed = [&(LONGEST as u32).to_be_bytes()[..], &[7; 100]].concat();
        assert_eq!(reader.read(&mut Pieces(vec![claimed]), LONGEST).unwrap(), None);
        assert!(reader.body.capacity() <= 2 * PIECE, "{}", reader.body.capacity());
        let mut reader = FrameReader::default();
        let whole = Frame::Message(vec![7; 3 * AT_A_TIME]).into_bytes();
        let mut from = Pieces(vec![whole]);
        assert_eq!(reader.read(&mut from, LONGEST).unwrap(), None, "others wait");
        assert!(reader.held() >= AT_A_TIME && reader.held() <= AT_A_TIME + PIECE, "{}", reader.held());
        let refused = reader.read(&mut from, AT_A_TIME).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::OutOfMemory);
    }

    /// Takes so many bytes at a time.
    struct Narrow(Vec<u8>, usize, bool);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(self.1);
            self.0.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn m1_4_what_is_written_in_pieces_is_read_in_pieces(
            message in prop::collection::vec(any::<u8>(), 1..500), at_a_time in 1usize..40, cuts in 1usize..50,
        ) {
            let mut writer = FrameWriter::new(Frame::Message(message.clone()));
            let mut to = Narrow(Vec::new(), at_a_time, false);
            while !writer.write(&mut to).unwrap() {}
            let pieces = to.0.chunks(cuts).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(read(pieces).unwrap(), Frame::Message(message));
        }
    }
}
