//! Reads settings from a tree, by their own types. What serde says of a mistake becomes a refusal that names field and place
//! and never repeats a text, since somebody may have written a secret there.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::path::Step;
use super::tree::{Entry, Node, Refusal, Value};
use crate::error::ErrorCode;
use crate::text::nearest;

/// What to do where somebody writes a secret.
pub(crate) const NO_SECRETS: &str = "write where the secret is, never the secret itself: credential = { token-file = \"…\" }, \
     { token-env = \"…\" } or { secret = \"…\" }, which names one that the host hands to the builder";

/// Whether a field of that name would hold a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let words = ["token", "password", "passwd", "passphrase", "secret", "api-key", "api_key", "apikey"];
    words.iter().any(|word| name.contains(word))
}

/// The longest name that is repeated, in characters.
const SHOWN: usize = 40;

impl Error for Refusal {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Refusal::new(ErrorCode::InvalidValue, reason.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = words(expected);
        let mut refusal =
            Refusal::new(ErrorCode::InvalidValue, format!("it is {}, not {expected}", kind_of(unexpected)));
        let is_bare = matches!(unexpected, Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_));
        if is_bare && expected == "a text" {
            refusal.advice = Some("write it in quotes".to_owned());
        }
        refusal
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            other => kind_of(other).to_owned(),
        };
        Refusal::new(ErrorCode::InvalidValue, format!("it is {found}, not {}", words(expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut refusal =
            Refusal::new(ErrorCode::InvalidValue, format!("it is none of these: {}", expected.join(", ")));
        refusal.advice = match nearest(variant, expected) {
            _ if expected.contains(&"token-file") => Some(NO_SECRETS.to_owned()),
            Some(meant) => Some(format!("write {meant}, if that is meant")),
            None => None,
        };
        refusal
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let shown: String = field.chars().take(SHOWN).collect();
        let reason = format!("there is no field {shown:?}; there are: {}", expected.join(", "));
        let mut refusal = Refusal::new(ErrorCode::UnknownField, reason);
        refusal.advice = match nearest(field, expected) {
            Some(meant) => Some(format!("write {meant}, if that is meant, or remove the field")),
            None if is_secret(field) => Some(NO_SECRETS.to_owned()),
            None if expected.contains(&"parameters") => {
                Some(format!("write parameters = {{ {shown} = \"…\" }}, if it is one of the kind, or remove the field"))
            }
            None => None,
        };
        refusal
    }

    fn missing_field(field: &'static str) -> Self {
        let refusal = Refusal::new(ErrorCode::MissingField, "it is required");
        refusal.within(Step::Name(field.to_owned()))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

/// What was found, without what it says.
fn kind_of(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) | Unexpected::Bytes(_) => "a text",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Other(other) if other == DATE => DATE,
        _ => "something else",
    }
}

const DATE: &str = "a date";

/// What was expected, in words that are not Rust's.
fn words(expected: &dyn Expected) -> String {
    let said = expected.to_string();
    match said.as_str() {
        "a string" | "path string" => "a text".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table".to_owned(),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => format!("a whole number from 0 to {}", u64::MAX),
        "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        said if said.starts_with("struct ") => "a table".to_owned(),
        said if said.starts_with("enum Credential") => "one of none, token-file, token-env, secret".to_owned(),
        said if said.starts_with("enum ") => "a text".to_owned(),
        said => said.to_owned(),
    }
}

impl Node {
    fn visit<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Negative(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Date => Err(Refusal::invalid_type(Unexpected::Other(DATE), &visitor)),
            Value::List(nodes) => visitor.visit_seq(Items { nodes, index: 0 }),
            Value::Table(entries) => visitor.visit_map(Fields { entries, value: None }),
        }
    }

    fn variant<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(Choice { name: text, at: self.at, node: None }),
            Value::Table(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Choice { name: &entry.name, at: entry.at, node: Some(&entry.node) }),
                entries => {
                    let reason = format!("it is a table of {} fields, not of one", entries.len());
                    Err(Refusal::new(ErrorCode::InvalidValue, reason))
                }
            },
            _ => self.visit(visitor),
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.visit(visitor).map_err(|refusal| refusal.at(self.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.value {
            // By its types a list of the fields' values would do, but nobody means that.
            Value::List(_) => Err(Refusal::invalid_type(Unexpected::Seq, &visitor).at(self.at)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.variant(visitor).map_err(|refusal| refusal.at(self.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    nodes: &'de [Node],
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let (index, node) = (self.index, self.nodes.get(self.index));
        self.index += 1;
        let located = |refusal: Refusal, node: &Node| refusal.at(node.at).within(Step::Index(index));
        node.map(|node| seed.deserialize(node).map_err(|refusal| located(refusal, node))).transpose()
    }
}

struct Fields<'de> {
    entries: &'de [Entry],
    value: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some((entry, rest)) = self.entries.split_first() else { return Ok(None) };
        (self.entries, self.value) = (rest, Some(entry));
        let name: StrDeserializer<'_, Refusal> = entry.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some).map_err(|refusal| refusal.at(entry.at).within(entry.step()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some(entry) = self.value.take() else { return Err(Refusal::custom("a value without a name")) };
        seed.deserialize(&entry.node).map_err(|refusal| refusal.at(entry.node.at).within(entry.step()))
    }
}

impl Entry {
    fn step(&self) -> Step {
        Step::Name(self.name.clone())
    }
}

/// A choice by its name alone, or with what belongs to it.
struct Choice<'de> {
    name: &'de str,
    at: usize,
    node: Option<&'de Node>,
}

impl<'de> EnumAccess<'de> for Choice<'de> {
    type Error = Refusal;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Refusal> {
        let name: StrDeserializer<'_, Refusal> = self.name.into_deserializer();
        let choice = seed.deserialize(name).map_err(|refusal| refusal.at(self.at))?;
        Ok((choice, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'de> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        match self.node {
            None => Ok(()),
            Some(node) => Err(Refusal::new(ErrorCode::InvalidValue, "nothing belongs to it").at(node.at)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        let step = Step::Name(self.name.to_owned());
        match self.node {
            Some(node) => seed.deserialize(node).map_err(|refusal| refusal.at(node.at).within(step)),
            None => {
                let mut refusal = Refusal::new(ErrorCode::MissingField, "it names no source").at(self.at);
                refusal.advice = Some(NO_SECRETS.to_owned());
                Err(refusal)
            }
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        Err(Refusal::invalid_type(Unexpected::Map, &visitor))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Refusal> {
        Err(Refusal::invalid_type(Unexpected::Map, &visitor))
    }
}
