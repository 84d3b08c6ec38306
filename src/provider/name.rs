//! What makes a text the name of a provider or of a kind.

use serde::{Deserialize, Deserializer, de};

use crate::error::{ErrorCode, ProvisioningError};
use crate::id::{ProviderId, ProviderKind};

/// The longest name, in characters.
const LONGEST: usize = 64;

impl ProviderId {
    /// A name of 1 to 64 letters, digits, `-`, `_` and `.` (ASCII), beginning with a letter or digit.
    ///
    /// # Errors
    /// [`ErrorCode::MissingField`] if it is empty, [`ErrorCode::InvalidValue`] if it is otherwise malformed.
    pub fn new(name: impl AsRef<str>) -> Result<Self, ProvisioningError> {
        check("id", name.as_ref()).map(Self::of)
    }
}

impl ProviderKind {
    /// A name of 1 to 64 letters, digits, `-`, `_` and `.` (ASCII), beginning with a letter or digit.
    ///
    /// # Errors
    /// [`ErrorCode::MissingField`] if it is empty, [`ErrorCode::InvalidValue`] if it is otherwise malformed.
    pub fn new(name: impl AsRef<str>) -> Result<Self, ProvisioningError> {
        check("kind", name.as_ref()).map(Self::of)
    }
}

impl<'de> Deserialize<'de> for ProviderId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(refused)
    }
}

impl<'de> Deserialize<'de> for ProviderKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(refused)
    }
}

/// In a text that says itself what is being read.
fn refused<E: de::Error>(error: ProvisioningError) -> E {
    E::custom(format_args!("no name: {}", error.detail()))
}

fn check<'a>(field: &'static str, name: &'a str) -> Result<&'a str, ProvisioningError> {
    let refuse = |code, reason| Err(ProvisioningError::new(code, "reading a provider name", reason).with_field(field));
    let mut chars = name.chars();
    match chars.next() {
        None => return refuse(ErrorCode::MissingField, "it is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => {
            return refuse(ErrorCode::InvalidValue, "it does not begin with a letter or digit");
        }
        Some(_) => {}
    }
    if !chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return refuse(ErrorCode::InvalidValue, "only letters, digits, `-`, `_` and `.` are allowed");
    }
    if name.len() > LONGEST {
        return refuse(ErrorCode::InvalidValue, "it is longer than 64 characters");
    }
    Ok(name)
}
