//! How values look as text: in what is serialised, and in what is read from a configuration. [`line`] is about texts of
//! others where they are shown.

pub(crate) mod line;

use std::time::Duration;

use serde::de::{self, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest duration that a configuration may name.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// A hash in hexadecimal: as a number it would lose its last digits in many readers of JSON.
pub(crate) fn hash<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}

/// The same where there may be none.
pub(crate) fn optional_hash<S: Serializer>(hash: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match hash {
        Some(hash) => serializer.collect_str(&format_args!("{hash:016x}")),
        None => serializer.serialize_none(),
    }
}

/// Reads `1500ms`, `30s`, `10m`, `1h`; at most 24 hours.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis)).filter(|duration| *duration <= MAX_DURATION)
}

/// How many letters may differ between what was written and what was meant.
const SLIPS: usize = 2;

/// The name that was probably meant by `written`: the nearest by Levenshtein's distance, of at most two letters. The first
/// of equals.
pub(crate) fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    // A long one is none of ours, and not worth the work.
    let candidates = names.iter().filter(|name| name.len().abs_diff(written.len()) <= SLIPS);
    let (distance, name) =
        candidates.map(|name| (distance(written, name), *name)).min_by_key(|(distance, _)| *distance)?;
    (distance <= SLIPS && distance < name.len()).then_some(name)
}

/// How many letters have to be put in, taken out or replaced to make `to` of `from` (Levenshtein 1966), in bytes.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, letter) in from.bytes().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(to.bytes()) {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        row.first_mut().into_iter().for_each(|first| *first = at + 1);
    }
    row.last().copied().unwrap_or_default()
}

/// Durations as [`parse_duration`] reads them, for `#[serde(with = …)]`.
pub(crate) struct DurationText;

impl DurationText {
    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let millis = duration.as_millis();
        match millis.is_multiple_of(1000) {
            true => serializer.collect_str(&format_args!("{}s", millis / 1000)),
            false => serializer.collect_str(&format_args!("{millis}ms")),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        let shown: String = text.chars().take(40).collect();
        let refuse =
            || de::Error::custom(format!("{shown:?} is no duration such as 1500ms, 30s, 10m or 1h, of 24 h at most"));
        parse_duration(&text).ok_or_else(refuse)
    }
}

/// A duration that reads itself as [`DurationText`] does.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Pause(#[serde(with = "DurationText")] Duration);

impl From<Duration> for Pause {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Pause> for Duration {
    fn from(pause: Pause) -> Self {
        pause.0
    }
}

/// A setting that may be `off`, for `#[serde(with = …)]`: written so, since a TOML file has no `null`, which is read as well. `T`
/// is how it looks where it is on.
pub(crate) struct OrOff<T>(std::marker::PhantomData<T>);

impl<T> OrOff<T> {
    pub(crate) fn serialize<V, S>(value: &Option<V>, serializer: S) -> Result<S::Ok, S::Error>
    where
        V: Copy + Into<T>,
        T: Serialize,
        S: Serializer,
    {
        match value {
            Some(value) => (*value).into().serialize(serializer),
            None => serializer.serialize_str(OFF),
        }
    }

    pub(crate) fn deserialize<'de, V, D>(deserializer: D) -> Result<Option<V>, D::Error>
    where
        T: Deserialize<'de> + Into<V>,
        D: Deserializer<'de>,
    {
        let on = deserializer.deserialize_any(OffOr(std::marker::PhantomData::<T>))?;
        Ok(on.map(Into::into))
    }
}

const OFF: &str = "off";

/// Reads what [`OrOff`] reads.
struct OffOr<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for OffOr<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`off` or the setting")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            OFF => Ok(None),
            text => T::deserialize(text.into_deserializer()).map(Some),
        }
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Some)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(Some)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::FailoverPolicy;

    #[test]
    fn p1_1_the_name_that_was_meant_is_the_nearest_of_at_most_two_slips() {
        for (from, to, expected) in [
            ("", "", 0),
            ("wait", "wait", 0),
            ("", "ttl", 3),
            ("ttl", "", 3),
            ("wiat", "wait", 2),
            ("wait", "waits", 1),
            ("await", "wait", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
        let names = ["wait", "max-stale", "max-body", "ttl"];
        for (written, meant) in [
            ("wiat", Some("wait")),
            ("max_stale", Some("max-stale")),
            ("maxbody", Some("max-body")),
            ("ttls", Some("ttl")),
            ("timeout", None),
            ("", None),
            ("x", None),
            ("max-bo\u{fc}y", Some("max-body")),
        ] {
            assert_eq!(nearest(written, &names), meant, "{written}");
        }
        assert_eq!(nearest(&"wait".repeat(1000), &names), None);
    }

    #[test]
    fn p1_1_a_policy_read_from_a_file_is_the_one_that_was_written() {
        let policy = FailoverPolicy::default()
            .silence_timeout(Duration::from_millis(7_500))
            .max_stale(Duration::from_secs(600))
            .mass_loss_share(0.25);
        let written = serde_json::to_string(&policy).unwrap();
        assert!(written.contains(r#""silence_timeout":"7500ms","max_errors":3"#), "{written}");
        assert!(written.contains(r#""max_stale":"600s","standby":"hot""#), "{written}");
        assert_eq!(serde_json::from_str::<FailoverPolicy>(&written).unwrap(), policy);
        assert_eq!(serde_json::from_str::<FailoverPolicy>("{}").unwrap(), FailoverPolicy::default());
    }

    #[test]
    fn p1_1_a_policy_that_names_no_setting_or_no_duration_is_refused_with_a_reason() {
        for (text, reason) in [
            (r#"{"silence": "7s"}"#, "unknown field `silence`"),
            (r#"{"cooldown": "7 s"}"#, "\"7 s\" is no duration such as 1500ms, 30s, 10m or 1h"),
            (r#"{"cooldown": "25h"}"#, "of 24 h at most"),
            (r#"{"max_stale": "soon"}"#, "no duration"),
            (r#"{"cooldown": 7}"#, "expected a string"),
        ] {
            let error = serde_json::from_str::<FailoverPolicy>(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let long = format!(r#"{{"cooldown": "{}"}}"#, "x".repeat(10_000));
        assert!(serde_json::from_str::<FailoverPolicy>(&long).unwrap_err().to_string().len() < 200);
    }
}
