//! What every object has: its name, its life, its version, and the labels and annotations of ours.
//!
//! Those of others are passed over without being built: an annotation may have 256 KiB.

use serde::de::{IgnoredAny, MapAccess};

use super::PREFIX;
use crate::civil;
use crate::json::{Key, Loose, Shape, Text, Unusable, fields};

/// An object's metadata.
#[derive(Default)]
pub(super) struct Meta<'de> {
    pub(super) name: Loose<Text<'de>>,
    pub(super) uid: Loose<Text<'de>>,
    pub(super) version: Loose<Text<'de>>,
    pub(super) created: Loose<Text<'de>>,
    pub(super) deleted: Loose<Text<'de>>,
    pub(super) labels: Loose<Ours<'de>>,
    pub(super) annotations: Loose<Ours<'de>>,
}

fields!(Meta<'de>, "name" => name, "uid" => uid, "resourceVersion" => version, "creationTimestamp" => created,
    "deletionTimestamp" => deleted, "labels" => labels, "annotations" => annotations);

/// Labels or annotations that begin with our prefix, which their keys here have no longer. Of a key that comes twice
/// the last counts.
#[derive(Default)]
pub(super) struct Ours<'de>(Vec<(Text<'de>, Loose<Text<'de>>)>);

impl<'de> Shape<'de> for Ours<'de> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            match key.without_prefix(PREFIX) {
                Some(key) => pairs.push((key, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Some(Self(pairs)))
    }
}

impl Ours<'_> {
    /// The keys and values.
    pub(super) fn pairs(self) -> Result<Vec<(String, String)>, Unusable> {
        let pairs = self.0.into_iter().map(|(Text(key), value)| {
            let Text(value) = value.optional()?.unwrap_or_default();
            Ok((key.into_owned(), value.into_owned()))
        });
        pairs.collect()
    }
}

/// Seconds since 1970 of a time as the API server writes it, `2024-05-06T07:08:09Z`, perhaps with a fraction. `None` if
/// it is none, or before 1970.
pub(super) fn seconds(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let clock = clock.split_once('.').map_or(clock, |(clock, _)| clock);
    civil::seconds(numbers(date, '-')?, numbers(clock, ':')?)
}

/// The three numbers of a text.
fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between).map(|part| {
        let is_number = (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    });
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_times_are_seconds_since_1970() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(seconds("2000-03-01T00:00:00Z"), Some(951_868_800));
        assert_eq!(seconds("2024-12-31T23:59:59.123456Z"), Some(1_735_689_599));
        for none in ["", "Z", "2024-01-01", "2024-01-01T00:00:00", "2024-13-01T00:00:00Z", "2024-01-01T24:00:00Z"] {
            assert_eq!(seconds(none), None, "{none}");
        }
        for none in ["-024-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2024-1-01T00:00:00:00Z", "20240-01-01T00:00:00Z"]
        {
            assert_eq!(seconds(none), None, "{none}");
        }
    }
}
