//! A message as a later version of the protocol might write it: with fields and parts that this one does not know.

use crate::membership::message::{DATAGRAM, VERSION};
use crate::membership::wire::{Reader, Writer};

/// What each known part has at its end.
const FIELD: &[u8] = b"\x05later";
/// A part of a kind that nobody knows.
const PART: &[u8] = b"\xc8\x03new";

/// The message with a higher version, a field more in each part and a part more, as far as they have room.
pub(super) fn as_later_version(bytes: &[u8]) -> Vec<u8> {
    rewritten(bytes).unwrap_or_else(|| bytes.to_vec())
}

fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let mut writer = Writer::default();
    for _ in 0..4 {
        writer.byte(reader.byte().ok()?);
    }
    reader.byte().ok()?;
    writer.byte(VERSION + 1);
    writer.byte(reader.byte().ok()?);
    writer.text(reader.text().ok()?);
    writer.number(reader.number().ok()?);
    let is_datagram = bytes.len() <= DATAGRAM;
    let mut spare = if is_datagram { DATAGRAM - bytes.len() } else { usize::MAX };
    while !reader.is_empty() {
        writer.byte(reader.byte().ok()?);
        let content = reader.bytes().ok()?;
        // The length may take a byte more, too.
        let grows = FIELD.len() + 1;
        if spare >= grows {
            spare -= grows;
            writer.bytes(&[content, FIELD].concat());
        } else {
            writer.bytes(content);
        }
    }
    if spare >= PART.len() {
        writer.append(PART);
    }
    Some(writer.into_bytes())
}
