//! How what members tell each other looks as bytes.
//!
//! Everything that arrives is untrusted. A reader knows where its bytes end, gives no length more room than is there, and
//! takes each number in its shortest form only, so that one message has one form. What is longer than this version knows
//! is skipped, piece by piece: each part says how long it is.
//!
//! | piece | as bytes |
//! |---|---|
//! | number | little-endian base 128 (LEB128), unsigned, shortest form, 1 to 10 bytes |
//! | port | 2 bytes, big-endian |
//! | text, bytes | their length as a number, then as many bytes |
//! | list | how many there are as a number, then each |

use std::fmt;

pub(super) mod message;
pub(super) mod part;
mod record;

pub(super) use record::{ROOM, fits};

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// They end too soon, or a length says more than there is.
    Truncated,
    /// A number is not in its shortest form, or greater than 64 bits.
    Number,
    /// A text is not UTF-8.
    Text,
    /// A list is longer than it may be.
    TooMany,
    /// An id, address, kind or metadata is none that a node could have, or has more than its room.
    Node,
    /// An incarnation or version is beyond what anybody could contradict.
    Incarnation,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "it ends too soon",
            Self::Number => "a number is malformed",
            Self::Text => "a text is not UTF-8",
            Self::TooMany => "a list is too long",
            Self::Node => "it names a node that cannot be",
            Self::Incarnation => "an incarnation is too great",
        })
    }
}

/// Writes a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// One with room for so many bytes.
    pub(super) fn with_room_for(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn port(&mut self, port: u16) {
        self.0.extend_from_slice(&port.to_be_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// How long a list is that follows.
    pub(super) fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    /// A number that has no short form, such as a hash.
    pub(super) fn fixed(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// What `write` writes, after how many bytes it is.
    pub(super) fn measured(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        // Most are short: their length takes one byte.
        self.0.push(0);
        write(self);
        let length = self.0.len() - at - 1;
        match self.0.get_mut(at).filter(|_| length < 0x80) {
            Some(place) => *place = length as u8,
            None => {
                let mut number = Self::default();
                number.number(length as u64);
                self.0.splice(at..=at, number.0);
            }
        }
    }

    /// What has been written already.
    pub(super) fn append(&mut self, written: &[u8]) {
        self.0.extend_from_slice(written);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a message.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte, which is not taken.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(Malformed::Number);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                let is_shortest = byte != 0 || shift == 0;
                return if is_shortest { Ok(number) } else { Err(Malformed::Number) };
            }
        }
        Err(Malformed::Number)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn port(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// A number of eight bytes.
    pub(super) fn fixed(&mut self) -> Result<u64, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed::Truncated)?;
        if length > self.0.len() {
            return Err(Malformed::Truncated);
        }
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Text)
    }

    /// How long a list is that follows. Each of its elements takes a byte at least.
    pub(super) fn length(&mut self, most: usize) -> Result<usize, Malformed> {
        match self.number()? {
            length if length > most as u64 => Err(Malformed::TooMany),
            length if length > self.0.len() as u64 => Err(Malformed::Truncated),
            length => Ok(length as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.into_bytes()
    }

    #[test]
    fn m1_4_numbers_have_one_form_and_that_is_the_shortest() {
        let vectors: [(u64, &[u8]); 6] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::from(u32::MAX), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (number, bytes) in vectors {
            assert_eq!(written(|writer| writer.number(number)), bytes);
            assert_eq!(Reader::new(bytes).number(), Ok(number));
        }
        let too_long = [0xff; 10];
        for wrong in [&[0x80, 0][..], &[0xac, 0x82, 0], &too_long, &[&too_long[..9], &[2]].concat()] {
            assert_eq!(Reader::new(wrong).number(), Err(Malformed::Number), "{wrong:x?}");
        }
        assert_eq!(Reader::new(&[0x80]).number(), Err(Malformed::Truncated));
    }

    #[test]
    fn m1_4_a_length_never_says_more_than_is_there() {
        let long = written(|writer| writer.number(u64::MAX));
        assert_eq!(Reader::new(&long).bytes(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[3, 1, 2]).bytes(), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[2, 1, 2]).bytes(), Ok(&[1, 2][..]));
        assert_eq!(Reader::new(&[2, 1, 2]).length(2), Ok(2));
        assert_eq!(Reader::new(&[2, 1]).length(2), Err(Malformed::Truncated));
        assert_eq!(Reader::new(&[3, 1, 2, 3]).length(2), Err(Malformed::TooMany));
        assert_eq!(Reader::new(&[2, 0xff, 0xfe]).text(), Err(Malformed::Text));
    }

    #[test]
    fn m1_4_what_is_measured_has_its_length_before_it_in_the_shortest_form() {
        for (length, form) in [(0, &[0][..]), (127, &[0x7f]), (128, &[0x80, 1]), (129, &[0x81, 1])] {
            let content = vec![7; length];
            let mut writer = Writer::default();
            writer.byte(9);
            writer.measured(|writer| writer.append(&content));
            assert_eq!(writer.len(), 1 + form.len() + length);
            assert_eq!(writer.into_bytes(), [&[9], form, &content].concat());
        }
    }

    proptest! {
        #[test]
        fn m1_4_what_is_written_is_read_again_and_nothing_is_left(
            number in any::<u64>(), byte in any::<u8>(), port in any::<u16>(), text in ".{0,200}", length in 0usize..4,
        ) {
            let bytes = written(|writer| {
                writer.number(number);
                writer.byte(byte);
                writer.port(port);
                writer.text(&text);
                writer.length(length);
                (0..length).for_each(|n| writer.byte(n as u8));
            });
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!((reader.number(), reader.byte(), reader.port()), (Ok(number), Ok(byte), Ok(port)));
            prop_assert_eq!((reader.text(), reader.length(4)), (Ok(text.as_str()), Ok(length)));
            (0..length).for_each(|_| _ = reader.byte());
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn m1_4_a_number_that_is_read_is_written_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.number() {
                let form = written(|writer| writer.number(number));
                prop_assert_eq!(&bytes[..form.len()], &form[..]);
            }
        }
    }
}
