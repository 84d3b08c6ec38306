//! What decoders of JSON share that take it as it arrives, and do not trust it.
//!
//! `scanner` finds the elements of a list without holding the list, with `nesting` finding where each ends; `body`
//! feeds it from a reader; and `shape` is for values that may be of another shape than expected. What an element means
//! is for each provider.

#![cfg_attr(not(feature = "consul"), allow(dead_code, reason = "each provider uses a part"))]
#![cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "each provider uses a part"))]

mod body;
mod nesting;
mod scanner;
mod shape;

pub(crate) use body::Body;
pub(crate) use scanner::{Next, Scanner};
pub(crate) use shape::{Key, Loose, Shape, Text, Unusable, fields};

/// The largest element that is decoded. Genuine ones have a few kB.
pub(crate) const MAX_ELEMENT: usize = 1024 * 1024;

/// Reads the bytes of an element.
///
/// # Errors
/// The offset in them at which they turn out to be no JSON value in UTF-8.
pub(crate) fn read<'de, T: serde::de::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, usize> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.valid_up_to())?;
    serde_json::from_str(text).map_err(|error| offset(bytes, &error))
}

/// Where in the bytes a decoder failed, which knows it as line and column.
fn offset(bytes: &[u8], error: &serde_json::Error) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    lines.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1)
}
