//! Which definitions become providers.
//!
//! Decides what is wrong with a definition by itself: unknown kinds, limits common to all kinds, what the kind's factory
//! refuses, missing capabilities, and whether the backend answers ([`check_connectivity`]). Also keeps the count of
//! failures that suppresses enabling ([`Suppression`]). How a definition relates to the others, when it is checked and
//! what a failure means for the set in force is the registry's to decide.

mod connectivity;
mod suppression;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use connectivity::check_connectivity;
pub use suppression::{Suppression, SuppressionChange, SuppressionSettings};

use crate::error::{ErrorCode, ProvisioningError};
use crate::panics::caught;
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, Credential, MAX_PRIORITY, ProviderDescriptor, ProviderEnvironment,
    ProviderFactory, ProviderId, ProviderKind,
};
use connectivity::with_id;

/// How long the backends of all the providers of one submission together have for answering, unless set otherwise.
pub const CONNECTIVITY_TIMEOUT: Duration = Duration::from_secs(5);

/// The most endpoints of one definition.
const MAX_ENDPOINTS: usize = 64;
/// The most parameters of one definition.
const MAX_PARAMETERS: usize = 64;
/// The longest endpoint and the longest name of a parameter, in bytes.
const MAX_NAME_LENGTH: usize = 1024;
/// The longest value of a parameter and the longest source of a credential, in bytes.
const MAX_VALUE_LENGTH: usize = 4096;

const VALIDATING: &str = "validating a provider";

/// Judges definitions and makes providers of them, by means of the factory of their kind.
#[derive(Clone)]
pub struct ProviderValidator {
    factories: BTreeMap<ProviderKind, Arc<dyn ProviderFactory>>,
    environment: ProviderEnvironment,
}

/// A provider made from an acceptable definition.
#[derive(Clone)]
pub struct ValidProvider {
    /// The provider.
    pub provider: Arc<dyn ClusterProvider>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Why it must not be enabled, if it lacks a required capability; with [`ErrorCode::CapabilityMissing`].
    pub shortfall: Option<ProvisioningError>,
}

impl fmt::Debug for ValidProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidProvider")
            .field("capabilities", &self.capabilities)
            .field("shortfall", &self.shortfall)
            .finish_non_exhaustive()
    }
}

impl ProviderValidator {
    /// A validator that knows the kinds of these factories. `environment` is what they make providers with.
    pub fn new(
        factories: BTreeMap<ProviderKind, Arc<dyn ProviderFactory>>,
        environment: ProviderEnvironment,
    ) -> ProviderValidator {
        Self { factories, environment }
    }

    /// Checks the definition's fields: the rules of all kinds, then those of its own. Makes no provider, does no I/O.
    ///
    /// # Errors
    /// The first rule that it breaks, with the field and the provider. [`ErrorCode::UnknownKind`] if there is no factory
    /// for it, [`ErrorCode::TokenUnreadable`] if it names a secret that was not handed to the builder,
    /// [`ErrorCode::ProviderPanicked`] if the factory panics.
    pub fn check_fields(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        check_limits(descriptor)?;
        self.check_credential(descriptor)?;
        let factory = self.factory(descriptor)?;
        ask(&descriptor.id, || factory.validate(descriptor))
    }

    /// Checks the definition's fields and makes the provider. Does no I/O.
    ///
    /// # Errors
    /// Those of [`check_fields`](Self::check_fields) and of the factory; [`ErrorCode::InvalidConfig`] if the factory
    /// makes a provider of another name.
    pub fn validate(&self, descriptor: &ProviderDescriptor) -> Result<ValidProvider, ProvisioningError> {
        self.check_fields(descriptor)?;
        let factory = self.factory(descriptor)?;
        let id = &descriptor.id;
        let provider = ask(id, || factory.create(descriptor, &self.environment))?;
        let (made, capabilities) = ask(id, || Ok((provider.descriptor().id.clone(), provider.capabilities())))?;
        if made != *id {
            let reason = format!("the factory made a provider named {made}");
            return Err(descriptor.refuse(ErrorCode::InvalidConfig, "id", reason));
        }
        Ok(ValidProvider { provider, capabilities, shortfall: shortfall(id, capabilities) })
    }

    /// Judges a definition without changing anything: fields, capabilities, and, if a timeout is given, connectivity.
    /// Counts as no failure. May block for the timeout.
    pub fn dry_run(
        &self,
        descriptor: &ProviderDescriptor,
        connectivity: Option<Duration>,
        cancel: &CancelToken,
    ) -> ValidationReport {
        let id = descriptor.id.clone();
        let valid = match self.validate(descriptor) {
            Ok(valid) => valid,
            Err(error) => {
                let fields = Err(error);
                return ValidationReport { id, name: Ok(()), fields, capabilities: None, connectivity: None };
            }
        };
        let capabilities = valid.shortfall.map_or(Ok(valid.capabilities), Err);
        // What will be disabled is never connected to.
        let connectivity = connectivity
            .filter(|_| capabilities.is_ok())
            .and_then(|timeout| check_connectivity(&[valid.provider], timeout, cancel).pop());
        ValidationReport { id, name: Ok(()), fields: Ok(()), capabilities: Some(capabilities), connectivity }
    }

    fn factory(&self, descriptor: &ProviderDescriptor) -> Result<&dyn ProviderFactory, ProvisioningError> {
        self.factories.get(&descriptor.kind).map(AsRef::as_ref).ok_or_else(|| {
            let known: Vec<_> = self.factories.keys().map(ProviderKind::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let reason = format!("there is no kind {}; known kinds: {known}", descriptor.kind);
            descriptor.refuse(ErrorCode::UnknownKind, "kind", reason)
        })
    }

    fn check_credential(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        let source = match &descriptor.credential {
            Credential::None => return Ok(()),
            Credential::TokenFile(source) | Credential::TokenEnv(source) | Credential::Secret(source) => source,
        };
        if source.is_empty() {
            return Err(descriptor.refuse(ErrorCode::MissingField, "credential", "it names no source"));
        }
        check_length(descriptor, "credential", source, MAX_VALUE_LENGTH)?;
        if matches!(descriptor.credential, Credential::Secret(_)) && self.environment.secrets.get(source).is_none() {
            let reason = format!("no secret named {source:?} was handed to the builder");
            return Err(descriptor.refuse(ErrorCode::TokenUnreadable, "credential", reason));
        }
        Ok(())
    }
}

impl fmt::Debug for ProviderValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderValidator")
            .field("kinds", &self.factories.keys())
            .field("environment", &self.environment)
            .finish()
    }
}

/// Calls a factory or a provider: its panic is an error, and its errors name the provider.
fn ask<T>(id: &ProviderId, question: impl FnOnce() -> Result<T, ProvisioningError>) -> Result<T, ProvisioningError> {
    let answer = caught(question).unwrap_or_else(|panic| {
        Err(ProvisioningError::new(ErrorCode::ProviderPanicked, VALIDATING, format!("it panicked: {panic}")))
    });
    answer.map_err(|error| with_id(error, id))
}

fn shortfall(id: &ProviderId, capabilities: Capabilities) -> Option<ProvisioningError> {
    (!capabilities.watch).then(|| {
        ProvisioningError::new(ErrorCode::CapabilityMissing, VALIDATING, "it cannot watch the topology")
            .with_provider(id)
    })
}

/// What holds for every kind.
fn check_limits(descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
    let refuse = |code, field: String, reason: String| Err(descriptor.refuse(code, field, reason));
    if !(0..=MAX_PRIORITY).contains(&descriptor.priority) {
        let reason = format!("{} is outside 0 to {MAX_PRIORITY}", descriptor.priority);
        return refuse(ErrorCode::InvalidValue, "priority".to_owned(), reason);
    }
    let check_count = |field: &str, count: usize, most: usize| {
        if count <= most {
            return Ok(());
        }
        refuse(ErrorCode::InvalidValue, field.to_owned(), format!("{count} are more than the {most} allowed"))
    };
    check_count("endpoints", descriptor.endpoints.len(), MAX_ENDPOINTS)?;
    check_count("parameters", descriptor.parameters.len(), MAX_PARAMETERS)?;
    for (index, endpoint) in descriptor.endpoints.iter().enumerate() {
        let field = format!("endpoints[{index}]");
        if endpoint.is_empty() {
            return refuse(ErrorCode::MissingField, field, "it is empty".to_owned());
        }
        check_length(descriptor, &field, endpoint, MAX_NAME_LENGTH)?;
        if endpoint.chars().any(char::is_control) {
            return refuse(ErrorCode::InvalidValue, field, "it contains control characters".to_owned());
        }
        if has_credentials(endpoint) {
            // The reason must not repeat it.
            let reason = "it contains a user or password; name their source in `credential` instead".to_owned();
            return refuse(ErrorCode::InvalidValue, field, reason);
        }
    }
    for (name, value) in &descriptor.parameters {
        if name.is_empty() {
            return refuse(ErrorCode::MissingField, "parameters".to_owned(), "a parameter has no name".to_owned());
        }
        check_length(descriptor, "parameters", name, MAX_NAME_LENGTH)?;
        check_length(descriptor, name, value, MAX_VALUE_LENGTH)?;
    }
    Ok(())
}

fn check_length(
    descriptor: &ProviderDescriptor,
    field: &str,
    value: &str,
    most: usize,
) -> Result<(), ProvisioningError> {
    if value.len() <= most {
        return Ok(());
    }
    let reason = format!("{} bytes are more than the {most} allowed", value.len());
    Err(descriptor.refuse(ErrorCode::InvalidValue, field.to_owned(), reason))
}

/// Whether a URL carries a user or password, which would be stored and printed.
fn has_credentials(endpoint: &str) -> bool {
    let Some((_, rest)) = endpoint.split_once("://") else { return false };
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// What a dry run found.
#[derive(Clone, Debug)]
pub struct ValidationReport {
    /// The provider that was judged.
    pub id: ProviderId,
    /// Whether the name is free, or belongs to an identical definition.
    pub name: Result<(), ProvisioningError>,
    /// Whether the fields are acceptable and a provider could be made.
    pub fields: Result<(), ProvisioningError>,
    /// What it can do, or why it would be disabled; absent if no provider could be made.
    pub capabilities: Option<Result<Capabilities, ProvisioningError>>,
    /// Whether its backend answered; absent if it was not asked.
    pub connectivity: Option<Result<(), ProvisioningError>>,
}

impl ValidationReport {
    /// Whether it would be accepted and enabled, as far as was looked.
    pub fn is_acceptable(&self) -> bool {
        self.problems().next().is_none()
    }

    /// Everything that stands against it.
    pub fn problems(&self) -> impl Iterator<Item = &ProvisioningError> {
        let capabilities = self.capabilities.as_ref().and_then(|answer| answer.as_ref().err());
        let connectivity = self.connectivity.as_ref().and_then(|answer| answer.as_ref().err());
        [self.name.as_ref().err(), self.fields.as_ref().err(), capabilities, connectivity].into_iter().flatten()
    }
}

impl fmt::Display for ValidationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_acceptable() {
            let looked = if self.connectivity.is_some() { "its backend answers" } else { "its backend was not asked" };
            return write!(f, "provider {} is acceptable; {looked}", self.id);
        }
        write!(f, "provider {} is not acceptable:", self.id)?;
        self.problems().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
