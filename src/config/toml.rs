//! The tree of a text in TOML.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tree::{Entry, MAX_DEPTH, Node, Refusal, Value};
use crate::error::ErrorCode;

/// # Errors
/// [`ErrorCode::InvalidConfig`] for a text that is no TOML or nested too deep, [`ErrorCode::InvalidValue`] for a number that
/// is too large.
pub(super) fn tree(text: &str) -> Result<Node, Refusal> {
    let table = DeTable::parse(text).map_err(|error| {
        // The parser's words are its own, and repeat nothing of the text.
        Refusal::of_text(format!("it is no TOML: {}", error.message()), error.span().map(|span| span.start))
    })?;
    let at = table.span().start;
    Ok(Node { at, value: self::table(table.into_inner(), 0)? })
}

fn node(value: Spanned<DeValue<'_>>, depth: usize) -> Result<Node, Refusal> {
    let at = value.span().start;
    if depth > MAX_DEPTH {
        return Err(Refusal::too_deep(at));
    }
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => integer(number.as_str(), number.radix()).ok_or_else(|| too_large().at(at))?,
        DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| too_large().at(at))?),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(values) => {
            Value::List(values.into_iter().map(|value| node(value, depth + 1)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(entries) => table(entries, depth)?,
    };
    Ok(Node { at, value })
}

fn table(table: DeTable<'_>, depth: usize) -> Result<Value, Refusal> {
    let entries = table.into_iter().map(|(name, value)| {
        let at = name.span().start;
        Ok(Entry { name: name.into_inner().into_owned(), at, node: node(value, depth + 1)? })
    });
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.at);
    Ok(Value::Table(entries))
}

fn integer(digits: &str, radix: u32) -> Option<Value> {
    match u64::from_str_radix(digits, radix) {
        Ok(number) => Some(Value::Unsigned(number)),
        Err(_) => i64::from_str_radix(digits, radix).ok().map(Value::Negative),
    }
}

fn too_large() -> Refusal {
    Refusal::new(ErrorCode::InvalidValue, "the number is too large")
}
