//! How a configuration becomes the builder's settings, and is checked on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::ServiceBuilder;
use crate::config::{FieldPath, NO_SECRETS, ServiceConfig, is_secret};
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::{Exclusions, LocalNode, ProviderDescriptor, ProviderEnvironment, RetryPolicy};
use crate::secret::Secrets;
use crate::store::MAX_PROVIDERS;
use crate::validator::ProviderValidator;

const APPLYING: &str = "applying the configuration";

impl ServiceBuilder {
    /// A builder with the settings of that configuration, whose providers are of kinds that come along and need no secrets of
    /// the host; else see [`configure`](Self::configure).
    ///
    /// # Errors
    /// Those of [`configure`](Self::configure).
    #[cfg_attr(docsrs, doc(cfg(feature = "config")))]
    pub fn from_config(config: &ServiceConfig) -> Result<ServiceBuilder, ProvisioningError> {
        Self::new().configure(config)
    }

    /// Takes over the settings of that configuration, defaults included, in the place of those set before. Its providers are
    /// added to those given before; a member and a store that it does not name stay as they are. Whatever is called after
    /// this goes before the configuration.
    ///
    /// All of it is checked: the parameters of each provider by the factory of its kind, and the secret that it names by those
    /// handed over. So [`factory`](Self::factory) and [`secret`](Self::secret) come first. Reads no file but what a factory
    /// reads to check a definition, and connects to nothing.
    ///
    /// # Errors
    /// The first mistake in it, with its path as the field (`providers[1].priority`), the provider, and line and column if it
    /// was read from a text and not changed since. The codes are those of [`ServiceBuilder::start`] for settings out of range
    /// and of [`ProviderValidator::check_fields`] for a definition; [`ErrorCode::DuplicateName`] for a second provider of a
    /// name, [`ErrorCode::InvalidNode`] for the member, [`ErrorCode::InvalidConfig`] for more than 256 providers.
    #[cfg_attr(docsrs, doc(cfg(feature = "config")))]
    pub fn configure(mut self, config: &ServiceConfig) -> Result<ServiceBuilder, ProvisioningError> {
        let locate = |error: ProvisioningError, path: &FieldPath| config.locate(error.while_doing(APPLYING), path);
        self.hub.failover = config.failover.clone();
        self.hub.coalesce = config.coalescing;
        self.hub.block_absence = config.block_absence;
        self.slow_bridge = config.slow_bridge_limit;
        self.leave_budget = config.leave_budget;
        self.join_timeout = config.join_timeout;
        self.registry.connectivity_timeout = config.connectivity_timeout;
        self.registry.require_all = config.require_all_providers;
        self.registry.suppression = config.suppression;
        self.registry.epoch_above = config.epoch_above;

        let within =
            |table: &str, error: &ProvisioningError| FieldPath::of(table).within(error.field().unwrap_or_default());
        config.failover.validate().map_err(|error| {
            let path = within("failover", &error);
            locate(error, &path)
        })?;
        self.check_durations().map_err(|error| {
            let path = match error.field() {
                Some("suppression") => FieldPath::of("suppression.window"),
                field => FieldPath::of(field.unwrap_or_default()),
            };
            locate(error, &path)
        })?;
        if let Some(store) = &config.store {
            check_store(store).map_err(|error| locate(error, &FieldPath::of("store")))?;
            self = self.store_file(store);
        }
        if let Some(member) = &config.member {
            let start = self.clock.now().as_nanos() / 1_000_000;
            let node = member.node(start).build().map_err(|error| {
                let path = within("member", &error);
                locate(error, &path)
            })?;
            self = self.member(node);
        }
        self.check_providers(&config.providers).map_err(|(error, path)| locate(error, &path))?;
        self.providers.extend(config.providers.iter().cloned());
        Ok(self)
    }

    /// Checks each definition by the factory of its kind.
    ///
    /// # Errors
    /// The first that is wrong, and where.
    fn check_providers(&self, providers: &[ProviderDescriptor]) -> Result<(), (ProvisioningError, FieldPath)> {
        let list = || FieldPath::of("providers");
        if providers.len() > MAX_PROVIDERS {
            let reason = format!("{} definitions are more than the {MAX_PROVIDERS} allowed", providers.len());
            return Err((ProvisioningError::new(ErrorCode::InvalidConfig, APPLYING, reason), list()));
        }
        let validator = ProviderValidator::new(
            self.factories.clone(),
            ProviderEnvironment {
                clock: Arc::clone(&self.clock),
                secrets: Secrets::new(self.secrets.iter().cloned()),
                local_node: LocalNode::from(self.member.clone().map(Arc::new)),
                retry: RetryPolicy::new(self.hub.failover.backoff_initial, self.hub.failover.backoff_max),
                exclusions: Exclusions::default(),
            },
        );
        let mut first = BTreeMap::new();
        for (index, descriptor) in providers.iter().enumerate() {
            if let Some(first) = first.insert(&descriptor.id, index) {
                let reason = format!("providers[{first}] has the id {} already", descriptor.id);
                let error = ProvisioningError::new(ErrorCode::DuplicateName, APPLYING, reason)
                    .with_provider(&descriptor.id)
                    .with_advice("give each provider an id of its own");
                return Err((error, list().index(index).name("id")));
            }
            validator.check_fields(descriptor).map_err(|error| {
                let path = list().index(index);
                match error.field().map(str::to_owned) {
                    Some(name) if is_variable(&name) && !descriptor.parameters.contains_key(&name) => {
                        let detail = format!("environment variable {name}: {}", error.detail());
                        (error.with_detail(detail), path)
                    }
                    Some(field) => (advised(error), field_of(descriptor, &field, path)),
                    None => (error, path),
                }
            })?;
        }
        Ok(())
    }

    /// What a configuration that says nothing says.
    pub(crate) fn settings(&self) -> ServiceConfig {
        ServiceConfig {
            providers: Vec::new(),
            member: None,
            store: None,
            failover: self.hub.failover.clone(),
            suppression: self.registry.suppression,
            coalescing: self.hub.coalesce,
            block_absence: self.hub.block_absence,
            slow_bridge_limit: self.slow_bridge,
            connectivity_timeout: self.registry.connectivity_timeout,
            join_timeout: self.join_timeout,
            leave_budget: self.leave_budget,
            require_all_providers: self.registry.require_all,
            epoch_above: self.registry.epoch_above,
            origin: Default::default(),
        }
    }
}

/// Where the field of a definition stands in a file: its parameters have a table of their own.
fn field_of(descriptor: &ProviderDescriptor, field: &str, path: FieldPath) -> FieldPath {
    let own = ["id", "kind", "priority", "role", "endpoints", "credential", "parameters"];
    let is_own = own.contains(&field.split('[').next().unwrap_or_default());
    match is_own && !descriptor.parameters.contains_key(field) {
        true => path.within(field),
        false => path.name("parameters").name(field),
    }
}

/// Whoever writes a secret among the parameters is told where it belongs.
fn advised(error: ProvisioningError) -> ProvisioningError {
    let is_unadvised = error.advice() == error.code().advice();
    match is_unadvised && error.code() == ErrorCode::UnknownField && error.field().is_some_and(is_secret) {
        true => error.with_advice(NO_SECRETS),
        false => error,
    }
}

/// Whether the field that a factory names is an environment variable, which stands in no file.
fn is_variable(field: &str) -> bool {
    field.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn check_store(path: &Path) -> Result<(), ProvisioningError> {
    let text = path.to_string_lossy();
    if text.is_empty() {
        return Err(ProvisioningError::new(ErrorCode::MissingField, APPLYING, "it is empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(ProvisioningError::new(ErrorCode::InvalidValue, APPLYING, "it has control characters"));
    }
    Ok(())
}
