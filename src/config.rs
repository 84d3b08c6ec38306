//! The configuration file: the settings of a service as data, in TOML or JSON.
//!
//! Decides what a file may say and where in it a mistake is. [`toml`] and [`json`] make one tree of either text, in which
//! everything knows its place; [`reading`] reads the settings from the tree by their own types, which are the only list of
//! them; [`origin`] finds a setting in the text again when it turns out later that it is wrong. What the settings mean, and
//! which values are good, is decided where they belong: by the builder and by the factories of the providers.

mod json;
mod origin;
mod path;
mod reading;
#[cfg(test)]
mod schema;
mod toml;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::FailoverPolicy;
use crate::provider::ProviderDescriptor;
use crate::service::ServiceBuilder;
use crate::text;
use crate::topology::{ClusterNode, ClusterNodeBuilder};
use crate::validator::SuppressionSettings;
pub(crate) use path::FieldPath;
pub(crate) use reading::{NO_SECRETS, is_secret};

use origin::{Format, Origin};

/// The largest configuration, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

pub(crate) const READING: &str = "reading the configuration";

/// All settings of a [`ServiceBuilder`] that are data, as a file says them. What it leaves out has its default. Applied with
/// [`ServiceBuilder::configure`] or [`ServiceBuilder::from_config`], which also check what is in it.
///
/// Fields that there are not are refused. Durations are texts (`"250ms"`, `"15s"`, `"10m"`, `"24h"`). It holds no secrets: the
/// `credential` of a provider names a file, an environment variable, or a secret that the host hands to the builder.
/// [`docs/config.example.toml`] shows every setting with its default, [`docs/config.schema.json`] is a JSON Schema of it.
///
/// It serialises, so that it may also be a part of the host's own configuration. Errors of [`from_toml`](Self::from_toml),
/// [`from_json`](Self::from_json) and [`read`](Self::read) name line and column, which serde alone cannot.
///
/// ```
/// use cluster_provisioning::{ClusterProvisioningService, InMemoryCluster, InMemoryFactory, ServiceConfig, SystemClock};
///
/// let config = ServiceConfig::from_toml(
///     r#"
///     coalescing = "250ms"
///
///     [failover]
///     silence_timeout = "20s"
///
///     [[providers]]
///     id = "memory"
///     kind = "in-memory"
///     parameters = { ttl = "30s" }
///
///     [member]
///     id = "node-1"
///     address = "10.0.0.1"
///     port = 7001
///     kinds = ["worker"]
///     "#,
/// )?;
/// let cluster = InMemoryCluster::new(SystemClock::shared());
/// let service = ClusterProvisioningService::builder()
///     .factory(std::sync::Arc::new(InMemoryFactory::new().cluster("demo", &cluster)))
///     .configure(&config)?
///     .start()?;
/// assert_eq!(service.wait_for_members(1, std::time::Duration::from_secs(5))?.members.len(), 1);
/// # Ok::<(), cluster_provisioning::ProvisioningError>(())
/// ```
///
/// [`docs/config.example.toml`]: https://docs.rs/crate/cluster-provisioning/latest/source/docs/config.example.toml
/// [`docs/config.schema.json`]: https://docs.rs/crate/cluster-provisioning/latest/source/docs/config.schema.json
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// The providers. Where the store holds definitions already, those win. Default: none.
    pub providers: Vec<ProviderDescriptor>,
    /// Member mode: the node that is registered. Default: none, the process only watches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberConfig>,
    /// The file in which accepted definitions are kept. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<PathBuf>,
    /// When health changes and when another provider is followed.
    pub failover: FailoverPolicy,
    /// When repeated validation failures suppress enabling.
    pub suppression: SuppressionSettings,
    /// How long the next snapshot waits after a delivery; zero delivers each by itself, 60 s at most. Default 100 ms.
    #[serde(with = "text::DurationText")]
    pub coalescing: Duration,
    /// After how long without the node Remoting's entry in the block list ends. Default 24 h.
    #[serde(with = "text::DurationText")]
    pub block_absence: Duration,
    /// A bridge whose callbacks take longer than this in one tick is reported. Default 100 ms.
    #[serde(with = "text::DurationText")]
    pub slow_bridge_limit: Duration,
    /// How long all backends together have for answering at a start and at each submission. Default 5 s.
    #[serde(with = "text::DurationText")]
    pub connectivity_timeout: Duration,
    /// How long a start waits in member mode for the first registration. Default 30 s.
    #[serde(with = "text::DurationText")]
    pub join_timeout: Duration,
    /// How long deregistration may take when draining. Default 2 s.
    #[serde(with = "text::DurationText")]
    pub leave_budget: Duration,
    /// Whether a start fails unless every given provider is accepted, rather than any one. Default false.
    pub require_all_providers: bool,
    /// The epoch of the start exceeds this one, which the host has kept of earlier starts. Default 0.
    pub epoch_above: u64,
    /// Where it was read.
    #[serde(skip)]
    pub(crate) origin: Origin,
}

/// The local node in member mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MemberConfig {
    /// The node's name, unique in the cluster.
    pub id: String,
    /// The host name or IP address at which the others reach it.
    pub address: String,
    /// The port at which the others reach it; not 0.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub port: u16,
    /// Which life of the node this is; 0 is none. Default: the time at which the configuration is applied, in milliseconds, so
    /// that each start has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<u64>,
    /// The kinds of actors that it hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// What else is to be known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// The builder's own defaults.
impl Default for ServiceConfig {
    fn default() -> Self {
        ServiceBuilder::new().settings()
    }
}

impl ServiceConfig {
    /// Reads a text in TOML, of at most 1 MiB.
    ///
    /// # Errors
    /// Each names line and column, and the field. [`ErrorCode::InvalidConfig`] if it is no TOML, too large or nested too
    /// deep; [`ErrorCode::UnknownField`], with the name that was probably meant; [`ErrorCode::MissingField`];
    /// [`ErrorCode::InvalidValue`] for a value of another type. Ranges and parameters are checked when it is applied.
    pub fn from_toml(text: &str) -> Result<ServiceConfig, ProvisioningError> {
        Self::parse(text, Format::Toml, None)
    }

    /// Reads a text in JSON, of at most 1 MiB.
    ///
    /// # Errors
    /// Those of [`from_toml`](Self::from_toml).
    pub fn from_json(text: &str) -> Result<ServiceConfig, ProvisioningError> {
        Self::parse(text, Format::Json, None)
    }

    /// Reads a file of at most 1 MiB, whose name ends in `.toml` or `.json`. Blocks.
    ///
    /// # Errors
    /// Those of [`from_toml`](Self::from_toml), which name the file too; [`ErrorCode::InvalidConfig`] if it cannot be read, is
    /// no regular file, is not UTF-8, or has another ending.
    pub fn read(path: impl AsRef<Path>) -> Result<ServiceConfig, ProvisioningError> {
        let path = path.as_ref();
        let refuse = |reason: String, advice: &'static str| {
            ProvisioningError::new(ErrorCode::InvalidConfig, READING, reason).with_advice(advice)
        };
        let Some(format) = Format::of(path) else {
            let reason = format!("file {path:?} is neither .toml nor .json");
            return Err(refuse(reason, "give the file the ending of its format"));
        };
        let readable = "check the path, that it is a regular file, its permissions and its size";
        let bytes = crate::file::read(path, MAX_BYTES as u64).map_err(|reason| refuse(reason, readable))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let line = bytes.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count() + 1;
            refuse(format!("file {path:?}, line {line}: it is not UTF-8"), "save the file in UTF-8")
        })?;
        Self::parse(text, format, Some(path))
    }

    fn parse(text: &str, format: Format, file: Option<&Path>) -> Result<Self, ProvisioningError> {
        let origin = Origin::new(text, format, file);
        if text.len() > MAX_BYTES {
            let reason = format!("{} bytes are more than the {MAX_BYTES} allowed", text.len());
            return Err(ProvisioningError::new(ErrorCode::InvalidConfig, READING, reason));
        }
        let config = format.tree(text).and_then(|tree| Self::deserialize(&tree));
        let mut config = config.map_err(|refusal| origin.refuse(refusal))?;
        config.origin = origin.of(&config);
        Ok(config)
    }

    /// The error with the place of the setting of that path, as far as the settings are those of a text.
    pub(crate) fn locate(&self, error: ProvisioningError, path: &FieldPath) -> ProvisioningError {
        self.origin.locate(self, error, path)
    }
}

impl MemberConfig {
    /// A node without kinds and metadata, whose incarnation is the time at which the configuration is applied.
    pub fn new(id: impl Into<String>, address: impl Into<String>, port: u16) -> MemberConfig {
        let (id, address) = (id.into(), address.into());
        Self { id, address, port, incarnation: None, kinds: Vec::new(), metadata: BTreeMap::new() }
    }

    /// The node, in the life that began at `start` unless another one is configured.
    pub(crate) fn node(&self, start: u64) -> ClusterNodeBuilder {
        let node = ClusterNode::builder(&self.id, &self.address, self.port)
            .incarnation(self.incarnation.unwrap_or(start))
            .kinds(self.kinds.iter().cloned());
        self.metadata.iter().fold(node, |node, (key, value)| node.metadata(key, value))
    }
}
