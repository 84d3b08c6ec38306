//! Values of JSON that may be of another shape than expected, which is noted instead of failing, so that one wrong
//! field costs one entry and not the answer.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value, or what holds it, that cannot be used.
pub(crate) struct Unusable;

/// A value of the expected shape, none at all (`null` or absent), or one of another shape, which was skipped.
#[derive(Default)]
pub(crate) enum Loose<T> {
    #[default]
    Absent,
    Bad,
    Good(T),
}

impl<T> Loose<T> {
    pub(crate) fn good(self) -> Option<T> {
        match self {
            Loose::Good(value) => Some(value),
            Loose::Absent | Loose::Bad => None,
        }
    }

    pub(crate) fn optional(self) -> Result<Option<T>, Unusable> {
        match self {
            Loose::Good(value) => Ok(Some(value)),
            Loose::Absent => Ok(None),
            Loose::Bad => Err(Unusable),
        }
    }
}

/// What shapes a value may have. Each returns `None`, having read past the value, if it may not have that one.
pub(crate) trait Shape<'de>: Sized {
    fn from_text(_: Cow<'de, str>) -> Option<Self> {
        None
    }

    fn from_bool(_: bool) -> Option<Self> {
        None
    }

    fn from_number(_: u64) -> Option<Self> {
        None
    }

    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData))
    }
}

struct LooseVisitor<T>(PhantomData<T>);

fn loose<T>(value: Option<T>) -> Loose<T> {
    value.map_or(Loose::Bad, Loose::Good)
}

impl<'de, T: Shape<'de>> Visitor<'de> for LooseVisitor<T> {
    type Value = Loose<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Loose<T>, E> {
        Ok(Loose::Absent)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Loose<T>, E> {
        Ok(loose(T::from_bool(value)))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose<T>, E> {
        Ok(Loose::Bad)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose<T>, E> {
        Ok(Loose::Bad)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose<T>, E> {
        Ok(loose(T::from_number(number)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Loose<T>, E> {
        Ok(loose(T::from_text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose<T>, E> {
        Ok(loose(T::from_text(Cow::Owned(text.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loose<T>, A::Error> {
        T::from_map(map).map(loose)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Loose<T>, A::Error> {
        T::from_list(list).map(loose)
    }
}

impl Loose<Text<'_>> {
    /// The text, if it is one and not empty.
    pub(crate) fn text(self) -> Option<String> {
        self.good().map(|text| text.0.into_owned()).filter(|text| !text.is_empty())
    }

    /// The same, without taking it.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Loose::Good(text) => Some(&*text.0).filter(|text| !text.is_empty()),
            Loose::Absent | Loose::Bad => None,
        }
    }
}

/// A text.
#[derive(Default)]
pub(crate) struct Text<'de>(pub(crate) Cow<'de, str>);

impl<'de> Text<'de> {
    /// What comes after the prefix, if it begins with it.
    pub(crate) fn without_prefix(self, prefix: &str) -> Option<Self> {
        match self.0 {
            Cow::Borrowed(text) => text.strip_prefix(prefix).map(|rest| Text(Cow::Borrowed(rest))),
            Cow::Owned(text) => text.strip_prefix(prefix).map(|rest| Text(Cow::Owned(rest.to_owned()))),
        }
    }
}

impl<'de> Shape<'de> for Text<'de> {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        Some(Text(text))
    }
}

/// The key of a map, which is always a text.
pub(crate) struct Key<'de>(pub(crate) Text<'de>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = deserializer.deserialize_str(LooseVisitor::<Text<'de>>(PhantomData))?;
        Ok(Key(key.good().unwrap_or(Text(Cow::Borrowed("")))))
    }
}

impl Shape<'_> for bool {
    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Shape<'_> for u64 {
    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for Vec<Loose<T>> {
    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Some(values))
    }
}

impl<'de> Shape<'de> for Vec<(Text<'de>, Loose<Text<'de>>)> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut pairs = Vec::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            pairs.push((key, value));
        }
        Ok(Some(pairs))
    }
}

/// Reads the named fields of a map, of whose lifetime `'de` the type may be, and skips the others.
macro_rules! fields {
    ($type:ty, $($name:literal => $field:ident),+) => {
        impl<'de> $crate::json::Shape<'de> for $type {
            fn from_map<A: serde::de::MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
                let mut value = Self::default();
                while let Some($crate::json::Key(key)) = map.next_key()? {
                    match &*key.0 {
                        $($name => value.$field = map.next_value()?,)+
                        _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                Ok(Some(value))
            }
        }
    };
}

pub(crate) use fields;
