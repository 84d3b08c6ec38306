//! The parameters of a kind of provider: all that is to be said of each stands in one row, and definitions are read, refused
//! and explained by it.
#![cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "each kind uses its share of the forms"))]

use std::time::Duration;

use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::ProviderDescriptor;
use crate::text::parse_duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

pub(in crate::providers) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(in crate::providers) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A parameter.
#[derive(Debug)]
pub(in crate::providers) struct Parameter {
    pub(in crate::providers) name: &'static str,
    pub(in crate::providers) default: Preset,
    pub(in crate::providers) form: Form,
    pub(in crate::providers) meaning: &'static str,
}

/// What holds where a definition is silent.
#[derive(Debug)]
pub(in crate::providers) enum Preset {
    /// This value, as a definition would have it.
    Value(&'static str),
    /// What this says.
    Told(&'static str),
}

/// What a value looks like.
#[derive(Debug)]
pub(in crate::providers) enum Form {
    /// A duration between these two, which are allowed.
    Duration(Duration, Duration),
    /// The same, or `off`.
    DurationOrOff(Duration, Duration),
    /// A size in `KiB` or `MiB`, between 1 KiB and 1 GiB.
    Size,
    /// A whole number between these two, which are allowed.
    Number(u32, u32),
    /// One of these.
    Choice(&'static [&'static str]),
    /// A text of so many bytes at most, without control characters.
    Text(usize),
    /// What this says; the provider alone knows whether a value is good.
    Own(&'static str),
}

/// Whether something is on.
pub(in crate::providers) const SWITCH: Form = Form::Choice(&["on", "off"]);

/// All parameters of a kind, in the order in which they are shown.
#[derive(Clone, Copy, Debug)]
pub(in crate::providers) struct Parameters(pub(in crate::providers) &'static [&'static Parameter]);

impl Parameters {
    /// Refuses parameters that there are not, and values that are not of their parameter's form.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownField`], [`ErrorCode::MissingField`] for an empty value, [`ErrorCode::InvalidValue`].
    pub(in crate::providers) fn check(self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        let names: Vec<&str> = self.0.iter().map(|parameter| parameter.name).collect();
        descriptor.only_parameters(&names)?;
        self.0.iter().try_for_each(|parameter| {
            parameter.check(descriptor).map_err(|error| error.with_advice(parameter.explained()))
        })
    }

    /// The table as the pages show it.
    #[cfg(test)]
    fn shown(self) -> String {
        let rows = self.0.iter().map(|parameter| parameter.shown());
        let head = ["| parameter | default | range | meaning |\n".to_owned(), "|---|---|---|---|\n".to_owned()];
        head.into_iter().chain(rows).collect()
    }
}

impl Parameter {
    fn check(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        match self.form {
            Form::Duration(..) => self.duration_or(descriptor, Duration::ZERO).map(drop),
            Form::DurationOrOff(..) => self.duration_or_off(descriptor, None).map(drop),
            Form::Size => self.size(descriptor).map(drop),
            Form::Number(..) => self.number(descriptor).map(drop),
            Form::Choice(_) => self.choice(descriptor).map(drop),
            Form::Text(_) => self.text(descriptor).map(drop),
            // An empty value is nobody's.
            Form::Own(_) => self.given(descriptor).map(drop),
        }
    }

    /// The value that the definition names.
    ///
    /// # Errors
    /// [`ErrorCode::MissingField`] if it is empty.
    pub(in crate::providers) fn given<'a>(
        &self,
        descriptor: &'a ProviderDescriptor,
    ) -> Result<Option<&'a str>, ProvisioningError> {
        match descriptor.parameters.get(self.name).map(String::as_str) {
            Some("") => Err(descriptor.refuse(ErrorCode::MissingField, self.name, "it is empty")),
            given => Ok(given),
        }
    }

    /// The duration; `default` stands in where the table can only tell of it.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`] if it is malformed or out of range.
    pub(in crate::providers) fn duration_or(
        &self,
        descriptor: &ProviderDescriptor,
        default: Duration,
    ) -> Result<Duration, ProvisioningError> {
        let (lowest, highest) = match self.form {
            Form::Duration(lowest, highest) | Form::DurationOrOff(lowest, highest) => (lowest, highest),
            _ => (Duration::ZERO, Duration::MAX),
        };
        descriptor.duration(self.name, default, lowest..=highest)
    }

    /// The duration, or the default of the table.
    ///
    /// # Errors
    /// Those of [`duration_or`](Self::duration_or).
    pub(in crate::providers) fn duration(
        &self,
        descriptor: &ProviderDescriptor,
    ) -> Result<Duration, ProvisioningError> {
        let default = match self.default {
            Preset::Value(text) => parse_duration(text),
            Preset::Told(_) => None,
        };
        debug_assert!(default.is_some(), "{} has no default", self.name);
        self.duration_or(descriptor, default.unwrap_or_default())
    }

    /// The duration, or the default of the table; `None` if it is `off`.
    ///
    /// # Errors
    /// Those of [`duration_or`](Self::duration_or).
    pub(in crate::providers) fn duration_unless_off(
        &self,
        descriptor: &ProviderDescriptor,
    ) -> Result<Option<Duration>, ProvisioningError> {
        let default = match self.default {
            Preset::Value(text) => parse_duration(text),
            Preset::Told(_) => None,
        };
        self.duration_or_off(descriptor, default)
    }

    /// The duration; `None` if it is `off`. `default` holds where the definition is silent.
    ///
    /// # Errors
    /// Those of [`duration_or`](Self::duration_or).
    pub(in crate::providers) fn duration_or_off(
        &self,
        descriptor: &ProviderDescriptor,
        default: Option<Duration>,
    ) -> Result<Option<Duration>, ProvisioningError> {
        match descriptor.parameters.get(self.name).map(String::as_str) {
            Some("off") => Ok(None),
            Some(_) => self.duration_or(descriptor, Duration::ZERO).map(Some),
            None => Ok(default),
        }
    }
}

impl Parameter {
    /// The size in bytes, or the default of the table.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`].
    pub(in crate::providers) fn size(&self, descriptor: &ProviderDescriptor) -> Result<usize, ProvisioningError> {
        let unit = |text: &str, unit: &str, bytes: usize| {
            let number: Option<usize> = text.strip_suffix(unit)?.parse().ok();
            number.and_then(|number| number.checked_mul(bytes))
        };
        let text = self.value(descriptor);
        match unit(text, "MiB", MIB).or_else(|| unit(text, "KiB", KIB)) {
            Some(size) if (KIB..=1024 * MIB).contains(&size) => Ok(size),
            _ => Err(self.refused(descriptor, "it is no size between 1KiB and 1024MiB such as 64MiB")),
        }
    }

    /// The number, or the default of the table.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`].
    pub(in crate::providers) fn number(&self, descriptor: &ProviderDescriptor) -> Result<u32, ProvisioningError> {
        let (lowest, highest) = match self.form {
            Form::Number(lowest, highest) => (lowest, highest),
            _ => (0, u32::MAX),
        };
        match self.value(descriptor).parse() {
            Ok(number) if (lowest..=highest).contains(&number) => Ok(number),
            _ => Err(self.refused(descriptor, format!("it is no number between {lowest} and {highest}"))),
        }
    }

    /// The choice, if the definition makes one.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`] if it is none of those that there are.
    pub(in crate::providers) fn choice<'a>(
        &self,
        descriptor: &'a ProviderDescriptor,
    ) -> Result<Option<&'a str>, ProvisioningError> {
        let Form::Choice(choices) = self.form else { return Ok(None) };
        match descriptor.parameters.get(self.name).map(String::as_str) {
            Some(chosen) if !choices.contains(&chosen) => Err(self.refused(
                descriptor,
                match choices {
                    [one, other] => format!("it is neither {one} nor {other}"),
                    choices => format!("it is none of {}", choices.join(", ")),
                },
            )),
            chosen => Ok(chosen),
        }
    }

    /// Whether it is on, if the definition says so.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`] if it is neither on nor off.
    pub(in crate::providers) fn is_on(
        &self,
        descriptor: &ProviderDescriptor,
    ) -> Result<Option<bool>, ProvisioningError> {
        Ok(self.choice(descriptor)?.map(|chosen| chosen == "on"))
    }

    /// The text, if there is one.
    ///
    /// # Errors
    /// [`ErrorCode::MissingField`] if it is empty, [`ErrorCode::InvalidValue`] if it is too long or has control characters.
    pub(in crate::providers) fn text<'a>(
        &self,
        descriptor: &'a ProviderDescriptor,
    ) -> Result<Option<&'a str>, ProvisioningError> {
        let longest = match self.form {
            Form::Text(longest) => longest,
            _ => usize::MAX,
        };
        match self.given(descriptor)? {
            Some(text) if text.len() > longest => {
                Err(self.refused(descriptor, format!("it is longer than {longest} bytes")))
            }
            Some(text) if text.chars().any(char::is_control) => {
                Err(self.refused(descriptor, "it has control characters"))
            }
            text => Ok(text),
        }
    }

    /// The value that the definition names, or the default of the table.
    fn value<'a>(&self, descriptor: &'a ProviderDescriptor) -> &'a str {
        match (descriptor.parameters.get(self.name), &self.default) {
            (Some(text), _) => text,
            (None, Preset::Value(text)) => text,
            (None, Preset::Told(_)) => "",
        }
    }

    fn refused(
        &self,
        descriptor: &ProviderDescriptor,
        reason: impl Into<std::borrow::Cow<'static, str>>,
    ) -> ProvisioningError {
        descriptor.refuse(ErrorCode::InvalidValue, self.name, reason)
    }
}

impl Parameter {
    /// What an operator who got it wrong has to know.
    fn explained(&self) -> String {
        let Self { name, meaning, .. } = self;
        format!("correct {name}: {meaning} (range: {}; default: {})", self.form.shown(), self.default.shown())
    }

    /// Its row in the table.
    #[cfg(test)]
    fn shown(&self) -> String {
        format!("| `{}` | {} | {} | {} |\n", self.name, self.default.shown(), self.form.shown(), self.meaning)
    }
}

impl Preset {
    fn shown(&self) -> String {
        match self {
            Preset::Value(text) => format!("`{text}`"),
            Preset::Told(text) => (*text).to_owned(),
        }
    }
}

impl Form {
    fn shown(&self) -> String {
        let range = |lowest: Duration, highest: Duration| format!("{} to {}", shown(lowest), shown(highest));
        match *self {
            Form::Duration(lowest, highest) => range(lowest, highest),
            Form::DurationOrOff(lowest, highest) => format!("{}, `off`", range(lowest, highest)),
            Form::Size => "`1KiB` to `1024MiB`".to_owned(),
            Form::Number(lowest, highest) => format!("{lowest} to {highest}"),
            Form::Choice(choices) => choices.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", "),
            Form::Text(longest) => format!("1 to {longest} bytes"),
            Form::Own(text) => text.to_owned(),
        }
    }
}

/// As a JSON Schema.
#[cfg(all(test, feature = "config"))]
impl Parameters {
    pub(in crate::providers) fn schema(self) -> serde_json::Value {
        let properties: serde_json::Map<_, _> =
            self.0.iter().map(|parameter| (parameter.name.to_owned(), parameter.schema())).collect();
        let required = self.0.iter().filter(|parameter| matches!(parameter.default, Preset::Told("required")));
        serde_json::json!({
            "properties": properties,
            "required": required.map(|parameter| parameter.name).collect::<Vec<_>>(),
            "additionalProperties": false,
        })
    }
}

#[cfg(all(test, feature = "config"))]
impl Parameter {
    fn schema(&self) -> serde_json::Value {
        let (range, default) = (self.form.shown(), self.default.shown());
        let mut schema = self.form.schema();
        schema["description"] = format!("{} (range: {range}; default: {default})", self.meaning).into();
        if let Preset::Value(text) = self.default {
            schema["default"] = text.into();
        }
        schema
    }
}

#[cfg(all(test, feature = "config"))]
impl Form {
    fn schema(&self) -> serde_json::Value {
        use serde_json::json;
        match *self {
            Form::Duration(..) => json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}),
            Form::DurationOrOff(..) => json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h)|off)$"}),
            Form::Size => json!({"type": "string", "pattern": "^[0-9]+(KiB|MiB)$"}),
            Form::Number(..) => json!({"type": "string", "pattern": "^[0-9]+$"}),
            Form::Choice(choices) => json!({"type": "string", "enum": choices}),
            Form::Text(longest) => json!({"type": "string", "minLength": 1, "maxLength": longest}),
            Form::Own(_) => json!({"type": "string", "minLength": 1}),
        }
    }
}

fn shown(duration: Duration) -> String {
    match duration.as_millis() as u64 {
        millis if millis % 3_600_000 == 0 => format!("{} h", millis / 3_600_000),
        millis if millis % 60_000 == 0 => format!("{} min", millis / 60_000),
        millis if millis % 1000 == 0 => format!("{} s", millis / 1000),
        millis => format!("{millis} ms"),
    }
}

/// Compares the page with the table, or writes it: `PARAMETERS=write cargo test --lib parameters`.
#[cfg(test)]
pub(in crate::providers) fn assert_shown(parameters: Parameters, page: &str) {
    let path = format!("{}/src/providers/{page}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var("PARAMETERS").is_ok_and(|value| value == "write") {
        std::fs::write(&path, parameters.shown()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), parameters.shown(), "{page}: PARAMETERS=write writes it");
    for parameter in parameters.0 {
        // What is shown as the default is what a definition may say.
        if let Preset::Value(text) = parameter.default {
            let descriptor = ProviderDescriptor::new("a", crate::id::ProviderKind::in_memory()).unwrap();
            let descriptor = descriptor.parameter(parameter.name, text);
            parameter.check(&descriptor).unwrap_or_else(|error| panic!("{}: {error}", parameter.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKind;

    static WAIT: Parameter = Parameter {
        name: "wait",
        default: Preset::Value("1s"),
        form: Form::Duration(millis(100), secs(60)),
        meaning: "how long it waits",
    };
    static LISTS: Parameter = Parameter {
        name: "lists",
        default: Preset::Value("30m"),
        form: Form::DurationOrOff(secs(1), secs(86_400)),
        meaning: "how often it lists",
    };
    static LARGEST: Parameter =
        Parameter { name: "largest", default: Preset::Value("64MiB"), form: Form::Size, meaning: "the largest answer" };
    static PAGE: Parameter = Parameter {
        name: "page",
        default: Preset::Value("500"),
        form: Form::Number(1, 1000),
        meaning: "how many there are on a page",
    };
    static ROLE: Parameter = Parameter {
        name: "role",
        default: Preset::Told("none"),
        form: Form::Choice(&["one", "two", "three"]),
        meaning: "which role it has",
    };
    static VERIFY: Parameter =
        Parameter { name: "verify", default: Preset::Value("on"), form: SWITCH, meaning: "whether it looks" };
    static FILTER: Parameter =
        Parameter { name: "filter", default: Preset::Told("none"), form: Form::Text(5), meaning: "who passes" };
    static FILE: Parameter =
        Parameter { name: "file", default: Preset::Told("none"), form: Form::Own("a path"), meaning: "where it is" };
    static ALL: Parameters = Parameters(&[&WAIT, &LISTS, &LARGEST, &PAGE, &ROLE, &VERIFY, &FILTER, &FILE]);

    fn with(name: &str, value: &str) -> ProviderDescriptor {
        ProviderDescriptor::new("a", ProviderKind::in_memory()).unwrap().parameter(name, value)
    }

    #[test]
    fn p1_1_a_definition_that_is_silent_has_the_defaults_of_the_table() {
        let silent = ProviderDescriptor::new("a", ProviderKind::in_memory()).unwrap();
        assert_eq!(ALL.check(&silent), Ok(()));
        assert_eq!(WAIT.duration(&silent), Ok(secs(1)));
        assert_eq!(WAIT.duration_or(&silent, secs(7)), Ok(secs(7)));
        assert_eq!(LISTS.duration_unless_off(&silent), Ok(Some(secs(1800))));
        assert_eq!(LARGEST.size(&silent), Ok(64 << 20));
        assert_eq!(PAGE.number(&silent), Ok(500));
        assert_eq!((ROLE.choice(&silent), VERIFY.is_on(&silent)), (Ok(None), Ok(None)));
        assert_eq!((FILTER.text(&silent), FILE.given(&silent)), (Ok(None), Ok(None)));
    }

    #[test]
    fn p1_1_values_are_read_up_to_both_ends_of_their_range() {
        for wait in ["100ms", "60s", "1m"] {
            assert_eq!(WAIT.duration(&with("wait", wait)), WAIT.duration_or(&with("wait", wait), secs(7)), "{wait}");
        }
        assert_eq!(WAIT.duration(&with("wait", "60s")), Ok(secs(60)));
        assert_eq!(LISTS.duration_unless_off(&with("lists", "off")), Ok(None));
        assert_eq!(LISTS.duration_unless_off(&with("lists", "24h")), Ok(Some(secs(86_400))));
        for (size, bytes) in [("1KiB", 1024), ("3KiB", 3072), ("1MiB", 1 << 20), ("1024MiB", 1 << 30)] {
            assert_eq!(LARGEST.size(&with("largest", size)), Ok(bytes));
        }
        assert_eq!((PAGE.number(&with("page", "1")), PAGE.number(&with("page", "1000"))), (Ok(1), Ok(1000)));
        assert_eq!(ROLE.choice(&with("role", "three")), Ok(Some("three")));
        assert_eq!(
            (VERIFY.is_on(&with("verify", "on")), VERIFY.is_on(&with("verify", "off"))),
            (Ok(Some(true)), Ok(Some(false)))
        );
        assert_eq!(FILTER.text(&with("filter", "a b c")), Ok(Some("a b c")));
        assert_eq!(FILE.given(&with("file", "/x")), Ok(Some("/x")));
    }

    #[test]
    fn p1_1_what_is_not_of_a_parameters_form_is_refused_whoever_reads_it_with_what_it_would_have_to_be() {
        for (name, values) in [
            ("wait", &["", "off", "99ms", "60001ms", "1"][..]),
            ("lists", &["", "on", "999ms", "25h"]),
            ("largest", &["", "64", "0KiB", "1025MiB", "64MB", "-1MiB", "99999999999999999999MiB"]),
            ("page", &["", "0", "1001", "x", "-1"]),
            ("role", &["", "four", "ONE"]),
            ("verify", &["", "yes", "true"]),
            ("filter", &["abcdef", "a\nb"]),
        ] {
            for value in values {
                let error = ALL.check(&with(name, value)).unwrap_err();
                assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some(name)), "{name} {value:?}");
            }
        }
        for name in ["filter", "file"] {
            let error = ALL.check(&with(name, "")).unwrap_err();
            assert_eq!((error.code(), error.field()), (ErrorCode::MissingField, Some(name)));
        }
        let refused = |name: &str| ALL.check(&with(name, "x")).unwrap_err();
        assert_eq!(refused("wait").advice(), "correct wait: how long it waits (range: 100 ms to 1 min; default: `1s`)");
        assert_eq!(refused("role").detail(), "it is none of one, two, three");
        assert_eq!(refused("verify").detail(), "it is neither on nor off");
        assert_eq!(refused("wiat").code(), ErrorCode::UnknownField);
    }

    #[test]
    fn p1_1_the_table_is_shown_row_by_row() {
        let shown = ALL.shown();
        let rows: Vec<_> = shown.lines().collect();
        assert_eq!(rows[2], "| `wait` | `1s` | 100 ms to 1 min | how long it waits |");
        assert_eq!(rows[3], "| `lists` | `30m` | 1 s to 24 h, `off` | how often it lists |");
        assert_eq!(rows[4], "| `largest` | `64MiB` | `1KiB` to `1024MiB` | the largest answer |");
        assert_eq!(rows[5], "| `page` | `500` | 1 to 1000 | how many there are on a page |");
        assert_eq!(rows[6], "| `role` | none | `one`, `two`, `three` | which role it has |");
        assert_eq!(rows[8], "| `filter` | none | 1 to 5 bytes | who passes |");
        assert_eq!(rows[9], "| `file` | none | a path | where it is |");
    }
}
