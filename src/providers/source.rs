//! What a definition says, and where it is silent and may be completed by the environment, what that says. A value keeps
//! the name of the field that it is from, so that a refusal names it. Which variables there are is each provider's to say.

use std::borrow::Cow;
use std::ffi::OsString;

use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::ProviderDescriptor;

/// How variables are looked up.
pub(in crate::providers) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A value and the field, of the definition or the environment, that it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::providers) struct Given<'a> {
    pub(in crate::providers) field: &'static str,
    pub(in crate::providers) text: Cow<'a, str>,
}

/// What a definition says, and where it is silent and says `environment = on`, the environment.
#[derive(Clone, Copy)]
pub(in crate::providers) struct Source<'a> {
    pub(in crate::providers) descriptor: &'a ProviderDescriptor,
    variables: Option<Lookup<'a>>,
}

impl<'a> Source<'a> {
    /// With the variables, if they are to be read.
    #[cfg(feature = "consul")]
    pub(in crate::providers) fn new(descriptor: &'a ProviderDescriptor, variables: Option<Lookup<'a>>) -> Self {
        Self { descriptor, variables }
    }

    /// The definition alone.
    #[cfg(feature = "kubernetes")]
    pub(in crate::providers) fn of_definition(descriptor: &'a ProviderDescriptor) -> Self {
        Self { descriptor, variables: None }
    }

    /// The variables, if they are to be read.
    #[cfg(feature = "consul")]
    pub(in crate::providers) fn variables(&self) -> Option<Lookup<'a>> {
        self.variables
    }

    /// The definition's parameter.
    ///
    /// # Errors
    /// [`ErrorCode::MissingField`] if it is there and empty.
    pub(in crate::providers) fn parameter(&self, name: &'static str) -> Result<Option<Given<'a>>, ProvisioningError> {
        match self.descriptor.parameters.get(name) {
            None => Ok(None),
            Some(text) if text.is_empty() => Err(self.descriptor.refuse(ErrorCode::MissingField, name, "it is empty")),
            Some(text) => Ok(Some(Given { field: name, text: Cow::Borrowed(text) })),
        }
    }

    /// The environment's variable; an empty one is none.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`] if it is not UTF-8.
    pub(in crate::providers) fn variable(&self, name: &'static str) -> Result<Option<Given<'a>>, ProvisioningError> {
        let Some(value) = self.variables.and_then(|lookup| lookup(name)).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.into_string() {
            Ok(text) => Ok(Some(Given { field: name, text: Cow::Owned(text) })),
            Err(_) => Err(self.invalid(name, "the environment variable is not UTF-8")),
        }
    }

    /// The definition's parameter or else the environment's variable.
    ///
    /// # Errors
    /// Those of the two.
    #[cfg(feature = "consul")]
    pub(in crate::providers) fn either(
        &self,
        parameter: &'static str,
        variable: &'static str,
    ) -> Result<Option<Given<'a>>, ProvisioningError> {
        match self.parameter(parameter)? {
            Some(given) => Ok(Some(given)),
            None => self.variable(variable),
        }
    }

    /// A refusal of a field's value.
    pub(in crate::providers) fn invalid(
        &self,
        field: &'static str,
        reason: impl Into<Cow<'static, str>>,
    ) -> ProvisioningError {
        self.descriptor.refuse(ErrorCode::InvalidValue, field, reason)
    }

    /// The variable as a truth value.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidValue`] if it is neither.
    pub(in crate::providers) fn truth(&self, name: &'static str) -> Result<Option<bool>, ProvisioningError> {
        match self.variable(name)?.as_ref().map(|given| &*given.text) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(_) => Err(self.invalid(name, "the environment variable is neither true nor false")),
        }
    }
}
