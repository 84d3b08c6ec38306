//! What the API server's answers say.
//!
//! Nothing is held as a whole but one object at a time: `page` finds the objects of a list, `lines` those of a watch.
//! `pod` and `slice` say what an object means by the `rules` of the definition, `meta` what every object has, and
//! `status` why something failed.
//!
//! Decided here: what is not JSON of the promised form is an error as a whole, while an object that cannot be used, and
//! one of more than 1 MiB, is skipped and counted. Where at least name and life of such an object could be read, it is
//! an object that holds nothing: a change that makes a member unusable takes it out, as the next list would.

mod lines;
mod meta;
mod page;
mod pod;
mod rules;
mod slice;
mod status;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod told;

use std::sync::Arc;

use self::meta::Meta;
pub(super) use self::{
    lines::Lines,
    page::{page, page_and_next},
    rules::{Family, PodRules, Port, Rules, SliceRules},
    status::failure,
};
use super::object::{Content, Object};
use crate::json::{self, Loose, Text, Unusable, fields};

/// The prefix of the labels and annotations that say what the node of a pod is like.
pub(super) const PREFIX: &str = "cluster.proto.actor/";

/// Seconds since 1970 of a time as the API server writes it; `None` if it is none.
#[cfg(feature = "kubeconfig")]
pub(super) fn seconds(time: &str) -> Option<u64> {
    meta::seconds(time)
}

/// What was read of an object.
#[derive(Default)]
struct Reading {
    /// The object, if name and life could be read.
    object: Option<Object>,
    version: Option<String>,
    /// How many parts of it were unusable: the object itself, or endpoints of a slice.
    skipped: usize,
}

impl Rules {
    /// Reads an object of a list.
    ///
    /// # Errors
    /// The offset in the bytes at which they turn out to be no JSON value in UTF-8.
    fn item(&self, bytes: &[u8]) -> Result<Reading, usize> {
        Ok(match self {
            Rules::Pods(rules) => json::read::<Loose<pod::Parts<'_>>>(bytes)?.good().map(|parts| parts.reading(rules)),
            Rules::Slices(rules) => {
                json::read::<Loose<slice::Parts<'_>>>(bytes)?.good().map(|parts| parts.reading(rules))
            }
        }
        .unwrap_or_else(Reading::unusable))
    }

    /// Reads an event, in one go: what kind it is and what its object says.
    ///
    /// # Errors
    /// As [`item`](Self::item).
    fn event<'de>(&self, bytes: &'de [u8]) -> Result<Event<'de>, usize> {
        Ok(match self {
            Rules::Pods(rules) => {
                let PodEvent { kind, object } = json::read::<Loose<_>>(bytes)?.good().unwrap_or_default();
                Event::of(kind, object.good(), |parts| parts.reading(rules), |parts| parts.meta)
            }
            Rules::Slices(rules) => {
                let SliceEvent { kind, object } = json::read::<Loose<_>>(bytes)?.good().unwrap_or_default();
                Event::of(kind, object.good(), |parts| parts.reading(rules), |parts| parts.meta)
            }
        })
    }
}

/// What an event of a watch says.
enum Event<'de> {
    /// ADDED or MODIFIED.
    Upsert(Reading),
    /// Of that kind, with the metadata of its object.
    Other(Option<String>, Meta<'de>),
}

impl<'de> Event<'de> {
    fn of<Parts>(
        kind: Loose<Text<'de>>,
        parts: Option<Parts>,
        reading: impl FnOnce(Parts) -> Reading,
        meta: impl FnOnce(Parts) -> Loose<Meta<'de>>,
    ) -> Self {
        match kind.as_str() {
            Some("ADDED" | "MODIFIED") => Self::Upsert(parts.map_or_else(Reading::unusable, reading)),
            _ => Self::Other(kind.text(), parts.and_then(|parts| meta(parts).good()).unwrap_or_default()),
        }
    }
}

impl Reading {
    /// Nothing, of an object that is none.
    fn unusable() -> Self {
        Self { skipped: 1, ..Self::default() }
    }

    /// An object with that content and so many unusable parts of it; or, where it is unusable, one that holds
    /// `nothing`.
    fn of(meta: Meta<'_>, content: Result<(Content, usize), Unusable>, nothing: Content) -> Self {
        let (content, skipped) = content.unwrap_or((nothing, 1));
        let version = meta.version.text();
        let (Some(name), Some(uid)) = (meta.name.text(), meta.uid.text()) else {
            return Self { version, ..Self::unusable() };
        };
        let object = Object { name: Arc::from(name), uid: Arc::from(uid), content };
        Self { object: Some(object), version, skipped }
    }
}

/// An event of a watch of pods.
#[derive(Default)]
struct PodEvent<'de> {
    kind: Loose<Text<'de>>,
    object: Loose<pod::Parts<'de>>,
}

/// An event of a watch of slices.
#[derive(Default)]
struct SliceEvent<'de> {
    kind: Loose<Text<'de>>,
    object: Loose<slice::Parts<'de>>,
}

fields!(PodEvent<'de>, "type" => kind, "object" => object);
fields!(SliceEvent<'de>, "type" => kind, "object" => object);

#[cfg(test)]
mod tests;
