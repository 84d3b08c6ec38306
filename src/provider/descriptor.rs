//! What a provider is made from, in the form in which it is configured and stored.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, ProvisioningError};
use crate::id::{ProviderId, ProviderKind};
use crate::text::{nearest, parse_duration};

/// The greatest priority.
pub(crate) const MAX_PRIORITY: i64 = 1000;

/// Where a provider's credential comes from. It names a source and never holds the credential itself.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(all(test, feature = "config"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Credential {
    /// No credential.
    #[default]
    None,
    /// A file whose trimmed content is the token; read again for every request, so that it can be rotated.
    TokenFile(String),
    /// An environment variable whose value is the token.
    TokenEnv(String),
    /// A secret handed to the service's builder under this name.
    Secret(String),
}

/// What the members that a provider shows are to those of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(all(test, feature = "config"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProviderRole {
    /// The same members, seen in another way. Where it shows mostly others, it is not followed in the place of another
    /// mirror that is configured, and a warning says so.
    #[default]
    Mirror,
    /// Members to fall back on, which may be others: a static list of seed nodes, for example. A switch to it or from it
    /// may replace most members, though not before they have been missing for
    /// [`guard_hold`](crate::FailoverPolicy::guard_hold).
    Fallback,
}

impl fmt::Display for ProviderRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ProviderRole::Mirror => "mirror",
            ProviderRole::Fallback => "fallback",
        })
    }
}

/// The definition of a provider: what an operator configures, what is stored, and what a
/// [`ProviderFactory`](super::ProviderFactory) makes a provider from. Holds no secrets.
///
/// ```
/// use cluster_provisioning::{Credential, ProviderDescriptor, ProviderKind};
/// let descriptor = ProviderDescriptor::new("consul-a", ProviderKind::consul())?
///     .priority(100)
///     .endpoint("http://127.0.0.1:8500")
///     .credential(Credential::TokenFile("/run/secrets/consul".into()))
///     .parameter("service", "orders");
/// # Ok::<(), cluster_provisioning::ProvisioningError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(all(test, feature = "config"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProviderDescriptor {
    /// Its name, unique in the service.
    pub id: ProviderId,
    /// Its kind, which decides the factory.
    pub kind: ProviderKind,
    /// The higher, the rather it is selected: 0 to 1,000. Default 0. Ties go to the one registered first.
    #[serde(default)]
    #[cfg_attr(all(test, feature = "config"), schemars(range(min = 0, max = MAX_PRIORITY)))]
    pub priority: i64,
    /// What its members are to those of the others. Default: a mirror.
    #[serde(default, skip_serializing_if = "is_mirror")]
    pub role: ProviderRole,
    /// Where its backend is reached, in the kind's own form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Where its credential comes from. Default: none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub credential: Credential,
    /// The kind's own parameters, by name; durations as `"1500ms"`, `"30s"`, `"10m"`, `"1h"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

fn is_none(credential: &Credential) -> bool {
    *credential == Credential::None
}

fn is_mirror(role: &ProviderRole) -> bool {
    *role == ProviderRole::Mirror
}

impl ProviderDescriptor {
    /// A definition of a mirror with priority 0, no endpoints, no credential and no parameters.
    ///
    /// # Errors
    /// [`ErrorCode::MissingField`] or [`ErrorCode::InvalidValue`] if the id is no valid [`ProviderId`].
    pub fn new(id: impl AsRef<str>, kind: ProviderKind) -> Result<Self, ProvisioningError> {
        Ok(Self {
            id: ProviderId::new(id)?,
            kind,
            priority: 0,
            role: ProviderRole::Mirror,
            endpoints: Vec::new(),
            credential: Credential::None,
            parameters: BTreeMap::new(),
        })
    }

    /// Sets the priority: 0 to 1,000, checked at validation.
    #[must_use]
    pub fn priority(mut self, priority: i64) -> Self {
        self.priority = priority;
        self
    }

    /// Sets what its members are to those of the others.
    #[must_use]
    pub fn role(mut self, role: ProviderRole) -> Self {
        self.role = role;
        self
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Sets where the credential comes from.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credential = credential;
        self
    }

    /// Sets a parameter of the kind.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }

    /// The parameter of that name, or [`ErrorCode::MissingField`].
    ///
    /// # Errors
    /// [`ErrorCode::MissingField`] if it is absent or empty.
    pub fn required(&self, name: &'static str) -> Result<&str, ProvisioningError> {
        match self.parameters.get(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(self.refuse(ErrorCode::MissingField, name, "it is required")),
        }
    }

    /// The parameter of that name read as a duration within `range`, or `default` if it is absent.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`] if it is malformed or out of range.
    pub fn duration(
        &self,
        name: &'static str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Result<Duration, ProvisioningError> {
        let Some(text) = self.parameters.get(name) else { return Ok(default) };
        let duration = parse_duration(text).ok_or_else(|| {
            self.refuse(
                ErrorCode::InvalidValue,
                name,
                format!("{text:?} is no duration such as 1500ms, 30s, 10m or 1h"),
            )
        })?;
        if !range.contains(&duration) {
            let reason = format!("{duration:?} is outside {:?} to {:?}", range.start(), range.end());
            return Err(self.refuse(ErrorCode::InvalidValue, name, reason));
        }
        Ok(duration)
    }

    /// Refuses every parameter whose name is not among `known`. The advice names the one that was probably meant.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownField`], naming the parameter.
    pub fn only_parameters(&self, known: &[&str]) -> Result<(), ProvisioningError> {
        match self.parameters.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let reason = format!("the kind {} knows only: {}", self.kind, known.join(", "));
                let error = self.refuse(ErrorCode::UnknownField, name.clone(), reason);
                Err(match nearest(name, known) {
                    Some(meant) => error.with_advice(format!("write {meant}, if that is meant, or remove the field")),
                    None => error,
                })
            }
        }
    }

    /// An error about a field of this definition.
    pub fn refuse(
        &self,
        code: ErrorCode,
        field: impl Into<std::borrow::Cow<'static, str>>,
        reason: impl Into<std::borrow::Cow<'static, str>>,
    ) -> ProvisioningError {
        ProvisioningError::new(code, "validating a provider", reason).with_provider(&self.id).with_field(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_1_names_are_checked() {
        assert_eq!(ProviderId::new("").unwrap_err().code(), ErrorCode::MissingField);
        for bad in ["-a", "a b", "ü", "a/b", &"x".repeat(65)] {
            assert_eq!(ProviderId::new(bad).unwrap_err().code(), ErrorCode::InvalidValue, "{bad}");
        }
        assert_eq!(ProviderId::new("consul-1.eu_west").unwrap().as_str(), "consul-1.eu_west");
        assert!(ProviderId::new("x".repeat(64)).is_ok());
    }

    #[test]
    fn p1_1_an_unknown_parameter_is_refused_with_the_name_that_was_probably_meant() {
        let refused = |name: &str| {
            let descriptor = ProviderDescriptor::new("a", ProviderKind::consul()).unwrap().parameter(name, "1s");
            descriptor.only_parameters(&["probe-interval", "wait"]).unwrap_err()
        };
        let slip = refused("probe_interval");
        assert_eq!((slip.code(), slip.field()), (ErrorCode::UnknownField, Some("probe_interval")));
        assert_eq!(slip.detail(), "the kind consul knows only: probe-interval, wait");
        assert_eq!(slip.advice(), "write probe-interval, if that is meant, or remove the field");
        assert_eq!(refused("timeout").advice(), ErrorCode::UnknownField.advice());
    }

    #[test]
    fn p1_1_absurd_durations_are_refused_with_field_and_reason() {
        let range = Duration::from_secs(1)..=Duration::from_secs(600);
        let read = |text: &str| {
            let descriptor = ProviderDescriptor::new("a", ProviderKind::consul()).unwrap().parameter("wait", text);
            descriptor.duration("wait", Duration::from_secs(60), range.clone())
        };
        assert_eq!(read("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(read("10m").unwrap(), Duration::from_secs(600));
        for bad in ["", "5", "s", "-1s", "1.5s", "0s", "11m", "25h", "99999999999999999999s", "5124095576030432h"] {
            let error = read(bad).unwrap_err();
            assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some("wait")), "{bad}");
        }
    }
}
