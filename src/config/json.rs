//! The tree of a text in JSON. Each value is taken as the piece of the text that it is, which tells its place; so a text is
//! gone through once for each level, of which there are few.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::tree::{Entry, MAX_DEPTH, Node, Refusal, Value};
use crate::error::ErrorCode;

/// # Errors
/// [`ErrorCode::InvalidConfig`] for a text that is no JSON, has a name twice or is nested too deep.
pub(super) fn tree(text: &str) -> Result<Node, Refusal> {
    let raw = serde_json::from_str(text).map_err(|error| malformed(text, 0, &error))?;
    node(text, raw, 0)
}

fn node(text: &str, raw: &RawValue, depth: usize) -> Result<Node, Refusal> {
    let piece = raw.get();
    let at = place(text, piece);
    if depth > MAX_DEPTH {
        return Err(Refusal::too_deep(at));
    }
    let refuse = |error: serde_json::Error| malformed(text, at, &error);
    let value = match piece.as_bytes().first() {
        Some(b'{') => Value::Table(entries(text, serde_json::from_str(piece).map_err(refuse)?, depth)?),
        Some(b'[') => {
            let raws: Vec<&RawValue> = serde_json::from_str(piece).map_err(refuse)?;
            Value::List(raws.into_iter().map(|raw| node(text, raw, depth + 1)).collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::Text(serde_json::from_str(piece).map_err(refuse)?),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => number(piece).ok_or_else(|| Refusal::new(ErrorCode::InvalidValue, "the number is too large").at(at))?,
    };
    Ok(Node { at, value })
}

fn number(piece: &str) -> Option<Value> {
    if let Ok(number) = piece.parse() {
        return Some(Value::Unsigned(number));
    }
    match piece.parse() {
        Ok(number) => Some(Value::Negative(number)),
        Err(_) => piece.parse().ok().map(Value::Float),
    }
}

fn entries(text: &str, fields: Fields<'_>, depth: usize) -> Result<Vec<Entry>, Refusal> {
    let mut names = BTreeSet::new();
    let mut entries = Vec::with_capacity(fields.0.len());
    for (key, value) in fields.0 {
        let at = place(text, key.get());
        let name: String = serde_json::from_str(key.get()).map_err(|error| malformed(text, at, &error))?;
        if !names.insert(name.clone()) {
            return Err(Refusal::of_text("the field stands there twice", Some(at)));
        }
        entries.push(Entry { name, at, node: node(text, value, depth + 1)? });
    }
    Ok(entries)
}

/// Where a piece of the text begins.
fn place(text: &str, piece: &str) -> usize {
    piece.as_ptr().addr().saturating_sub(text.as_ptr().addr())
}

/// The parser's words repeat nothing of the text; they end in the place within what was parsed.
fn malformed(text: &str, from: usize, error: &serde_json::Error) -> Refusal {
    let parsed = text.get(from..).unwrap_or_default();
    let line = parsed.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    let words = error.to_string();
    let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    // Its columns are counted in bytes, from 1, but for where a line has not begun.
    Refusal::of_text(format!("it is no JSON: {words}"), Some(from + line + error.column().saturating_sub(1)))
}

/// The fields of an object, those that stand there twice included.
struct Fields<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
}
