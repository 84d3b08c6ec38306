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
pub(crate) use suppression::SharedSuppression;
pub use suppression::{Suppression, SuppressionChange, SuppressionSettings};

use crate::error::{ErrorCode, ProvisioningError};
use crate::id::{ProviderId, ProviderKind};
use crate::panics::{Foreign, caught};
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, Credential, MAX_PRIORITY, ProviderDescriptor, ProviderEnvironment,
    ProviderFactory,
};
use crate::secret::Secrets;
use crate::topology::ClusterNode;
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
    factories: BTreeMap<ProviderKind, Foreign<Arc<dyn ProviderFactory>>>,
    environment: ProviderEnvironment,
}

/// A provider made from an acceptable definition.
#[derive(Clone)]
#[non_exhaustive]
pub struct ValidProvider {
    /// The provider itself.
    pub(crate) provider: Foreign<Arc<dyn ClusterProvider>>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Why it must not be enabled, if it lacks a required capability; with [`ErrorCode::CapabilityMissing`].
    pub shortfall: Option<ProvisioningError>,
}

impl ValidProvider {
    /// The provider itself.
    pub fn provider(&self) -> &Arc<dyn ClusterProvider> {
        &self.provider
    }
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
        let factories = factories.into_iter().map(|(kind, factory)| (kind, Foreign::new(factory))).collect();
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

    /// Checks the definition's fields and makes the provider. Connects to nothing.
    ///
    /// # Errors
    /// Those of [`check_fields`](Self::check_fields) and of the factory; [`ErrorCode::InvalidConfig`] if the factory
    /// makes a provider of another name.
    pub fn validate(&self, descriptor: &ProviderDescriptor) -> Result<ValidProvider, ProvisioningError> {
        self.make(descriptor, |factory| factory.create(descriptor, &self.environment))
    }

    /// The same for a definition that takes the place of another one of its name and kind, whose provider is
    /// `predecessor`: the new one may take over what that has learned.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate).
    pub fn validate_edit(
        &self,
        descriptor: &ProviderDescriptor,
        predecessor: &dyn ClusterProvider,
    ) -> Result<ValidProvider, ProvisioningError> {
        self.make(descriptor, |factory| factory.replace(descriptor, &self.environment, predecessor))
    }

    /// The local node, in member mode.
    pub(crate) fn local_node(&self) -> Option<Arc<ClusterNode>> {
        self.environment.local_node.get()
    }

    fn make(
        &self,
        descriptor: &ProviderDescriptor,
        make: impl FnOnce(&dyn ProviderFactory) -> Result<Arc<dyn ClusterProvider>, ProvisioningError>,
    ) -> Result<ValidProvider, ProvisioningError> {
        self.check_fields(descriptor)?;
        let factory = self.factory(descriptor)?;
        let id = &descriptor.id;
        let provider = Foreign::new(ask(id, || make(factory))?);
        let (made, capabilities) = ask(id, || Ok((provider.descriptor().id.clone(), provider.capabilities())))?;
        if made != *id {
            let reason = format!("the factory made a provider named {made}");
            let error = descriptor.refuse(ErrorCode::InvalidConfig, "id", reason);
            return Err(error.with_advice("report it to the factory's author: the provider keeps the definition's id"));
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
        self.dry_run_among(descriptor, connectivity, cancel, |_| Ok(()))
    }

    /// The same, where the provider has to fit to others as well.
    pub(crate) fn dry_run_among(
        &self,
        descriptor: &ProviderDescriptor,
        connectivity: Option<Duration>,
        cancel: &CancelToken,
        fits: impl FnOnce(&ValidProvider) -> Result<(), ProvisioningError>,
    ) -> ValidationReport {
        let id = descriptor.id.clone();
        let valid = self.validate(descriptor).and_then(|valid| fits(&valid).map(|()| valid));
        let valid = match valid {
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
            .and_then(|timeout| check_connectivity(&[Arc::clone(&valid.provider)], timeout, cancel).pop());
        ValidationReport { id, name: Ok(()), fields: Ok(()), capabilities: Some(capabilities), connectivity }
    }

    fn factory(&self, descriptor: &ProviderDescriptor) -> Result<&dyn ProviderFactory, ProvisioningError> {
        self.factories.get(&descriptor.kind).map(|factory| &***factory).ok_or_else(|| {
            let known: Vec<_> = self.factories.keys().map(ProviderKind::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let reason = format!("there is no kind {}; known kinds: {known}", descriptor.kind);
            let error = descriptor.refuse(ErrorCode::UnknownKind, "kind", reason);
            match descriptor.kind.as_str() {
                "consul" | "kubernetes" => error.with_advice(format!(
                    "build the program with this library's cargo feature `{}`, or correct the kind",
                    descriptor.kind
                )),
                _ => error,
            }
        })
    }

    fn check_credential(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        let source = match &descriptor.credential {
            Credential::None => return Ok(()),
            Credential::TokenFile(source) | Credential::TokenEnv(source) | Credential::Secret(source) => source,
        };
        if source.is_empty() {
            let error = descriptor.refuse(ErrorCode::MissingField, "credential", "it names no source");
            return Err(
                error.with_advice("name a file, an environment variable or a secret, or leave the credential out")
            );
        }
        check_length(descriptor, "credential", source, MAX_VALUE_LENGTH)?;
        if matches!(descriptor.credential, Credential::Secret(_)) && self.environment.secrets.get(source).is_none() {
            let reason = format!("no secret named {source:?} was handed to the builder");
            let error = descriptor.refuse(ErrorCode::TokenUnreadable, "credential", reason);
            return Err(error.with_advice(Secrets::MISSING));
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
            let error = descriptor.refuse(ErrorCode::MissingField, "parameters", "a parameter has no name");
            return Err(error.with_advice("name the parameter, or remove it"));
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
pub(crate) fn has_credentials(endpoint: &str) -> bool {
    let Some((_, rest)) = endpoint.split_once("://") else { return false };
    rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

/// What a dry run found.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
mod tests {
    use super::testing::{definition, validator};
    use super::*;

    fn refused(descriptor: &ProviderDescriptor) -> (ErrorCode, Option<String>) {
        let error = validator().0.validate(descriptor).unwrap_err();
        assert_eq!(error.provider(), Some(&descriptor.id), "{error}");
        (error.code(), error.field().map(str::to_owned))
    }

    fn field(name: &str) -> Option<String> {
        Some(name.to_owned())
    }

    #[test]
    fn p1_1_a_good_definition_becomes_a_provider() {
        let (validator, _) = validator();
        let valid = validator.validate(&definition("a").priority(1000)).unwrap();
        assert_eq!(valid.provider.descriptor().id.as_str(), "a");
        assert_eq!((valid.capabilities, valid.shortfall), (Capabilities::WATCH, None));
    }

    #[test]
    fn p1_1_what_the_factory_misses_is_refused_with_the_field() {
        let mut missing = definition("a");
        missing.parameters.clear();
        assert_eq!(refused(&missing), (ErrorCode::MissingField, field("service")));
        assert_eq!(refused(&definition("a").parameter("sevrice", "x")), (ErrorCode::UnknownField, field("sevrice")));
    }

    #[test]
    fn p1_1_an_unknown_kind_is_refused_with_the_known_ones() {
        let mut descriptor = definition("a");
        descriptor.kind = ProviderKind::new("etcd").unwrap();
        let error = validator().0.validate(&descriptor).unwrap_err();
        assert_eq!((error.code(), error.field()), (ErrorCode::UnknownKind, Some("kind")));
        assert!(error.detail().contains("etcd") && error.detail().contains("known kinds: scripted"), "{error}");
    }

    #[test]
    fn p1_1_priorities_lie_between_0_and_1000() {
        for priority in [-1, 1001, i64::MIN, i64::MAX] {
            assert_eq!(refused(&definition("a").priority(priority)), (ErrorCode::InvalidValue, field("priority")));
        }
        assert!(validator().0.validate(&definition("a").priority(0)).is_ok());
    }

    #[test]
    fn p1_1_endpoints_and_parameters_have_limits() {
        let many = (0..65).fold(definition("a"), |descriptor, _| descriptor.endpoint("http://a"));
        assert_eq!(refused(&many), (ErrorCode::InvalidValue, field("endpoints")));
        let many = (0..65).fold(definition("a"), |descriptor, n| descriptor.parameter(format!("p{n}"), ""));
        assert_eq!(refused(&many), (ErrorCode::InvalidValue, field("parameters")));

        let endpoint = |text: &str| refused(&definition("a").endpoint("http://a").endpoint(text));
        assert_eq!(endpoint(""), (ErrorCode::MissingField, field("endpoints[1]")));
        for bad in [&"x".repeat(1025), "http://a\nb", "http://a\0", "a\u{85}b"] {
            assert_eq!(endpoint(bad), (ErrorCode::InvalidValue, field("endpoints[1]")), "{bad:?}");
        }
        let parameter = |name: &str, value: &str| refused(&definition("a").parameter(name, value));
        assert_eq!(parameter("", "x"), (ErrorCode::MissingField, field("parameters")));
        assert_eq!(parameter(&"x".repeat(1025), "x"), (ErrorCode::InvalidValue, field("parameters")));
        assert_eq!(parameter("service", &"x".repeat(4097)), (ErrorCode::InvalidValue, field("service")));
        assert!(validator().0.validate(&definition("a").parameter("service", "x".repeat(4096))).is_ok());
    }

    #[test]
    fn p1_1_an_endpoint_with_a_password_is_refused_without_repeating_it() {
        let error = validator().0.validate(&definition("a").endpoint("https://me:hunter2@consul:8501/v1")).unwrap_err();
        assert_eq!((error.code(), error.field()), (ErrorCode::InvalidValue, Some("endpoints[0]")));
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(validator().0.validate(&definition("a").endpoint("https://consul:8501/v1?who=me@host")).is_ok());
    }

    #[test]
    fn p1_1_a_credential_names_a_source_that_exists() {
        let with = |credential| definition("a").credential(credential);
        assert_eq!(
            refused(&with(Credential::TokenFile(String::new()))),
            (ErrorCode::MissingField, field("credential"))
        );
        assert_eq!(
            refused(&with(Credential::TokenEnv("x".repeat(4097)))),
            (ErrorCode::InvalidValue, field("credential"))
        );
        assert_eq!(
            refused(&with(Credential::Secret("vault".into()))),
            (ErrorCode::TokenUnreadable, field("credential"))
        );
        assert!(validator().0.validate(&with(Credential::Secret("consul".into()))).is_ok());
    }

    #[test]
    fn p5_5_a_factory_that_panics_or_makes_something_else_is_an_error() {
        for place in ["validate", "create"] {
            assert_eq!(
                refused(&definition("a").parameter("panic", place)),
                (ErrorCode::ProviderPanicked, None),
                "{place}"
            );
        }
        assert_eq!(refused(&definition("a").parameter("rename", "b")), (ErrorCode::InvalidConfig, field("id")));
    }

    #[test]
    fn p1_3_a_provider_that_cannot_watch_is_made_with_the_reason_why_not_to_enable_it() {
        let valid = validator().0.validate(&definition("a").parameter("watch", "no")).unwrap();
        let shortfall = valid.shortfall.unwrap();
        assert_eq!(shortfall.code(), ErrorCode::CapabilityMissing);
        assert_eq!(shortfall.provider().map(ProviderId::as_str), Some("a"));
    }

    #[test]
    fn p1_1_p1_3_p1_4_a_dry_run_reports_fields_capabilities_and_connectivity() {
        let (validator, backends) = validator();
        backends.down(&["down"]);
        let judge =
            |descriptor: &ProviderDescriptor, timeout| validator.dry_run(descriptor, timeout, &CancelToken::new());
        let timeout = Some(Duration::from_secs(60));

        let good = judge(&definition("a"), timeout);
        assert!(good.is_acceptable() && good.connectivity == Some(Ok(())));
        assert_eq!(good.to_string(), "provider a is acceptable; its backend answers");
        assert_eq!(
            judge(&definition("down"), None).to_string(),
            "provider down is acceptable; its backend was not asked"
        );
        assert_eq!(backends.take_checked(), ["a"], "asked only where a timeout is given");

        let down = judge(&definition("down"), timeout);
        assert_eq!(down.problems().map(ProvisioningError::code).collect::<Vec<_>>(), [ErrorCode::BackendUnavailable]);
        let blind = judge(&definition("b").parameter("watch", "no"), timeout);
        assert_eq!(blind.problems().map(ProvisioningError::code).collect::<Vec<_>>(), [ErrorCode::CapabilityMissing]);
        assert!(blind.connectivity.is_none());
        let bad = judge(&definition("c").priority(-1), timeout);
        assert_eq!(bad.problems().map(ProvisioningError::code).collect::<Vec<_>>(), [ErrorCode::InvalidValue]);
        assert!(bad.to_string().starts_with("provider c is not acceptable:\n  [invalid-value]"), "{bad}");
        assert_eq!(backends.take_checked(), ["down"]);
    }
}
