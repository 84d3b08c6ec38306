//! What a descriptor of the kind `kubernetes` says, read and checked once.

use std::ffi::OsString;
use std::path::PathBuf;
#[cfg(feature = "kubeconfig")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "kubeconfig")]
use super::kubeconfig;
use super::label;
use super::parameters;
use super::query::{Query, Select};
use super::wire::{Family, PodRules, Port, Rules, SliceRules};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::Target;
use crate::provider::{Credential, ProviderDescriptor};
use crate::providers::source::{Lookup, Source};
use crate::providers::{connection, tls};

/// Where the kubelet puts the service account of a pod.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The variables that tell a pod where the API server is.
const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";
/// Where a pod may be told its own name: the downward API's usual variable, and the host name that the kubelet sets.
const POD_NAMES: [&str; 2] = ["POD_NAME", "HOSTNAME"];
/// Where it may be told its namespace.
const POD_NAMESPACE: &str = "POD_NAMESPACE";
/// The ports of URLs without one.
const PORTS: (u16, u16) = (80, 443);
/// The longest name of an object, in bytes.
const MAX_NAME: usize = 253;
/// The longest value of a label, in bytes.
const MAX_LABEL: usize = 63;
/// The longest name of a port, in bytes.
const MAX_PORT_NAME: usize = 63;
/// The largest file with a namespace that is read.
const MAX_NAMESPACE_FILE: u64 = 1024;

/// A checked definition.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) target: Target,
    /// Where the token comes from.
    pub(super) credential: Credential,
    /// In place of that.
    #[cfg(feature = "kubeconfig")]
    pub(super) kubeconfig: Option<Arc<kubeconfig::Kubeconfig>>,
    namespace: Namespace,
    /// What is watched.
    pub(super) select: Select,
    /// The cluster's name, which the labels of its members carry.
    pub(super) cluster: Option<String>,
    /// How objects become members.
    pub(super) rules: Rules,
    /// How many objects a page of a list may have.
    pub(super) page_size: u32,
    /// The largest page, in bytes.
    pub(super) max_body: usize,
    pub(super) probe_interval: Duration,
    pub(super) probe_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) answer_timeout: Duration,
    /// How often there is a list although nothing asks for one.
    pub(super) list_interval: Option<Duration>,
    /// The pod that this process runs in, if that is known.
    pub(super) pod: Option<String>,
}

/// Whose credentials are used.
enum Means {
    /// Those of the service account in this folder.
    InCluster(PathBuf),
    /// Those that the definition names.
    Explicit,
    #[cfg(feature = "kubeconfig")]
    Kubeconfig(kubeconfig::Opened),
}

/// Where the namespace is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Namespace {
    Named(String),
    /// In this file of the service account.
    Of(PathBuf),
}

impl Config {
    /// Checks the descriptor alone: a kubeconfig that it names is read when the provider is made.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub(super) fn check(descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        #[cfg(feature = "kubeconfig")]
        if descriptor.parameters.get("credentials").is_some_and(|named| named == "kubeconfig") {
            kubeconfig::check(&Source::of_definition(descriptor))?;
            // All else as if it named a server itself.
            let mut other = descriptor.clone().endpoint("https://kubernetes").parameter("credentials", "explicit");
            other.parameters.retain(|name, _| !matches!(name.as_str(), "context" | "kubeconfig"));
            other.parameters.entry("namespace".to_owned()).or_insert_with(|| "default".to_owned());
            return Self::read(&other).map(drop);
        }
        Self::read(descriptor).map(drop)
    }

    /// Reads the descriptor, and the variables that a pod has. Reads no file but a kubeconfig.
    ///
    /// # Errors
    /// A code of the validation category, with the field or variable and the reason.
    pub(super) fn read(descriptor: &ProviderDescriptor) -> Result<Self, ProvisioningError> {
        Self::read_with(descriptor, &|name| std::env::var_os(name))
    }

    fn read_with(descriptor: &ProviderDescriptor, lookup: Lookup<'_>) -> Result<Self, ProvisioningError> {
        parameters::ALL.check(descriptor)?;
        let definition = Definition { source: Source::of_definition(descriptor), lookup };
        let means = definition.means()?;
        let (target, credential) = definition.access(&means)?;
        let (select, cluster) = definition.select()?;
        let (family, port) = (definition.family()?, definition.port()?);
        let ready = parameters::REQUIRE_READY.is_on(descriptor)?.unwrap_or(true);
        let container = definition.container()?;
        let rules = match &select {
            Select::Pods { .. } => Rules::Pods(PodRules { family, port, ready, container }),
            Select::Slices { .. } => Rules::Slices(SliceRules { family, port, not_ready: !ready }),
        };
        Ok(Self {
            target,
            credential,
            namespace: definition.namespace(&means)?,
            #[cfg(feature = "kubeconfig")]
            kubeconfig: match means {
                Means::Kubeconfig(opened) => Some(opened.kubeconfig),
                _ => None,
            },
            cluster,
            rules,
            select,
            page_size: parameters::PAGE_SIZE.number(descriptor)?,
            max_body: parameters::MAX_BODY.size(descriptor)?,
            // With the timeout below, a frozen server shows within 8 s.
            probe_interval: parameters::PROBE_INTERVAL.duration(descriptor)?,
            probe_timeout: connection::PROBE_TIMEOUT.duration(descriptor)?,
            connect_timeout: connection::CONNECT_TIMEOUT.duration(descriptor)?,
            answer_timeout: parameters::ANSWER_TIMEOUT.duration(descriptor)?,
            list_interval: parameters::LIST_INTERVAL.duration_unless_off(descriptor)?,
            pod: definition.pod()?,
        })
    }

    /// The query of what is watched. Reads the namespace from its file, if it is told there.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfig`] if the file cannot be read or holds no name.
    pub(super) fn query(&self) -> Result<Query, ProvisioningError> {
        Ok(Query::new(&self.namespace()?, &self.select, self.page_size))
    }

    /// The namespace.
    ///
    /// # Errors
    /// Those of [`query`](Self::query).
    pub(super) fn namespace(&self) -> Result<String, ProvisioningError> {
        let path = match &self.namespace {
            Namespace::Named(name) => return Ok(name.clone()),
            Namespace::Of(path) => path,
        };
        let unknown = |why: String| {
            let detail = format!("the namespace is not known: {why}");
            ProvisioningError::new(ErrorCode::InvalidConfig, "reading the service account's namespace", detail)
                .with_field("namespace")
                .with_advice("name it with the parameter namespace")
        };
        let text = crate::file::read(path, MAX_NAMESPACE_FILE).map_err(unknown)?;
        let text = String::from_utf8_lossy(&text);
        match check_name(text.trim()) {
            Ok(()) => Ok(text.trim().to_owned()),
            Err(reason) => Err(unknown(format!("what file {path:?} holds is no namespace, for {reason}"))),
        }
    }
}

/// A definition and the variables around it.
struct Definition<'a> {
    source: Source<'a>,
    lookup: Lookup<'a>,
}

impl Definition<'_> {
    fn variable(&self, name: &'static str) -> Result<Option<String>, ProvisioningError> {
        match (self.lookup)(name).filter(|value| !value.is_empty()).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(self.source.invalid(name, "the environment variable is not UTF-8")),
        }
    }

    fn parameter(&self, name: &'static str) -> Result<Option<String>, ProvisioningError> {
        Ok(self.source.parameter(name)?.map(|given| given.text.into_owned()))
    }

    /// A parameter that is the name of an object.
    fn name(&self, field: &'static str) -> Result<Option<String>, ProvisioningError> {
        match self.parameter(field)? {
            None => Ok(None),
            Some(name) => match check_name(&name) {
                Ok(()) => Ok(Some(name)),
                Err(reason) => Err(self.source.invalid(field, reason)),
            },
        }
    }

    /// Whose credentials are used.
    fn means(&self) -> Result<Means, ProvisioningError> {
        let without_effect = |field: &'static str, credentials: &str| match self.source.parameter(field)? {
            None => Ok(()),
            Some(_) => {
                let reason = format!("it is without effect unless credentials is {credentials}");
                Err(self.source.invalid(field, reason))
            }
        };
        let named = parameters::CREDENTIALS.choice(self.source.descriptor)?;
        if named == Some("kubeconfig") {
            return self.kubeconfig();
        }
        without_effect("kubeconfig", "kubeconfig")?;
        without_effect("context", "kubeconfig")?;
        let in_cluster = match named {
            None => self.source.descriptor.endpoints.is_empty(),
            Some(named) => named == "in-cluster",
        };
        if !in_cluster {
            without_effect("service-account", "in-cluster")?;
            return Ok(Means::Explicit);
        }
        let folder = tls::path(&self.source, self.source.parameter("service-account")?)?;
        Ok(Means::InCluster(folder.unwrap_or_else(|| PathBuf::from(SERVICE_ACCOUNT))))
    }

    #[cfg(feature = "kubeconfig")]
    fn kubeconfig(&self) -> Result<Means, ProvisioningError> {
        kubeconfig::open(&self.source, self.lookup, PORTS).map(Means::Kubeconfig)
    }

    #[cfg(not(feature = "kubeconfig"))]
    fn kubeconfig(&self) -> Result<Means, ProvisioningError> {
        let reason = "kubeconfig takes the cargo feature `kubeconfig`, which this program was built without";
        let error = self.source.invalid("credentials", reason);
        Err(error.with_advice("build it with that feature, or use other credentials"))
    }

    /// Where the server is and how one is let in.
    fn access(&self, means: &Means) -> Result<(Target, Credential), ProvisioningError> {
        let descriptor = self.source.descriptor;
        let account = match means {
            Means::InCluster(folder) => Some(folder),
            Means::Explicit => None,
            #[cfg(feature = "kubeconfig")]
            Means::Kubeconfig(opened) => return Ok((opened.target.clone(), Credential::None)),
        };
        let (field, url) = match (descriptor.endpoints.as_slice(), account) {
            ([], Some(_)) => (HOST, self.in_cluster_url()?),
            ([], None) => {
                return Err(descriptor.refuse(ErrorCode::MissingField, "endpoints", "the server's URL is required"));
            }
            ([url], _) if url.is_empty() => {
                return Err(descriptor.refuse(ErrorCode::MissingField, "endpoints", "the URL is empty"));
            }
            ([url], _) => ("endpoints", url.clone()),
            _ => {
                let reason = "exactly one URL is allowed; define one provider for each cluster";
                return Err(descriptor.refuse(ErrorCode::InvalidValue, "endpoints", reason));
            }
        };
        let target = Target::parse_with_path(&url, PORTS.0, PORTS.1);
        let target = target.map_err(|reason| self.source.invalid(field, reason))?;
        let target = if target.is_tls() {
            let mut settings = tls::read(&self.source, None)?;
            if let Some(folder) = account
                && settings.ca_file.is_none()
                && settings.ca_path.is_none()
                && !settings.unchecked
            {
                settings.ca_file = Some(folder.join("ca.crt"));
            }
            target.with_tls(settings)
        } else {
            tls::refuse_without_tls(&self.source)?;
            if account.is_some() && !target.is_loopback() {
                let reason = "the service account's token is sent over https only";
                return Err(self.source.invalid("endpoints", reason));
            }
            target
        };
        let credential = match (&descriptor.credential, account) {
            (Credential::None, Some(folder)) => match folder.join("token").to_str() {
                Some(path) => Credential::TokenFile(path.to_owned()),
                None => return Err(self.source.invalid("service-account", "the path is not UTF-8")),
            },
            (own, _) => own.clone(),
        };
        Ok((target, credential))
    }

    /// The API server as every pod is told of it.
    fn in_cluster_url(&self) -> Result<String, ProvisioningError> {
        let missing = |name: &'static str| {
            let reason = "the environment variable is not set, and no endpoint is named: this is no pod";
            let error = self.source.descriptor.refuse(ErrorCode::MissingField, name, reason);
            error.with_advice("run it in a pod, or name the API server's URL as the endpoint, or use a kubeconfig")
        };
        let host = self.variable(HOST)?.ok_or_else(|| missing(HOST))?;
        let port = self.variable(PORT)?.ok_or_else(|| missing(PORT))?;
        if port.parse::<u16>().is_err() {
            return Err(self.source.invalid(PORT, "the environment variable is no port"));
        }
        Ok(if host.contains(':') && !host.starts_with('[') {
            format!("https://[{host}]:{port}")
        } else {
            format!("https://{host}:{port}")
        })
    }

    fn namespace(&self, means: &Means) -> Result<Namespace, ProvisioningError> {
        if let Some(name) = self.name("namespace")? {
            return Ok(Namespace::Named(name));
        }
        #[cfg(feature = "kubeconfig")]
        if let Means::Kubeconfig(opened) = means {
            let name = opened.namespace.clone().unwrap_or_else(|| "default".to_owned());
            return match check_name(&name) {
                Ok(()) => Ok(Namespace::Named(name)),
                Err(reason) => {
                    let reason = format!("the namespace of the context is none: {reason}");
                    Err(self.source.descriptor.refuse(ErrorCode::InvalidConfig, "kubeconfig", reason))
                }
            };
        }
        if let Some(name) = self.variable(POD_NAMESPACE)? {
            return match check_name(&name) {
                Ok(()) => Ok(Namespace::Named(name)),
                Err(reason) => Err(self.source.invalid(POD_NAMESPACE, reason)),
            };
        }
        match means {
            Means::InCluster(folder) => Ok(Namespace::Of(folder.join("namespace"))),
            _ => {
                let reason = "it is required with explicit credentials";
                Err(self.source.descriptor.refuse(ErrorCode::MissingField, "namespace", reason))
            }
        }
    }

    /// What is watched, and the name of the cluster.
    fn select(&self) -> Result<(Select, Option<String>), ProvisioningError> {
        let cluster = self.parameter("cluster")?;
        if let Some(cluster) = &cluster {
            label::check_value(cluster).map_err(|reason| self.source.invalid("cluster", format!("it {reason}")))?;
        }
        let without_effect = |field: &'static str, source: &str| match self.parameter(field)? {
            None => Ok(()),
            Some(_) => Err(self.source.invalid(field, format!("it is without effect unless source is {source}"))),
        };
        match parameters::SOURCE.choice(self.source.descriptor)? {
            None | Some("pods") => {
                without_effect("service", "endpoint-slices")?;
                let selector = match (parameters::SELECTOR.text(self.source.descriptor)?, &cluster) {
                    (Some(selector), _) => {
                        label::check_selector(selector)
                            .map_err(|reason| self.source.invalid("selector", format!("it {reason}")))?;
                        selector.to_owned()
                    }
                    (None, Some(cluster)) => format!("cluster.proto.actor/cluster={cluster}"),
                    (None, None) => {
                        let reason = "it is required, or a selector of pods is";
                        return Err(self.source.descriptor.refuse(ErrorCode::MissingField, "cluster", reason));
                    }
                };
                Ok((Select::Pods { selector }, cluster))
            }
            Some(_) => {
                without_effect("selector", "pods")?;
                without_effect("container", "pods")?;
                match self.name("service")? {
                    Some(service) if service.len() <= MAX_LABEL => Ok((Select::Slices { service }, cluster)),
                    Some(_) => Err(self.source.invalid("service", "it is longer than 63 bytes")),
                    None => Err(self.source.descriptor.refuse(ErrorCode::MissingField, "service", "it is required")),
                }
            }
        }
    }

    fn port(&self) -> Result<Option<Port>, ProvisioningError> {
        let Some(text) = self.parameter("port")? else { return Ok(None) };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse::<u16>() {
                Ok(port) if port > 0 => Ok(Some(Port::Number(port))),
                _ => Err(self.source.invalid("port", "it is not between 1 and 65535")),
            };
        }
        let is_name = text.len() <= MAX_PORT_NAME
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        match is_name {
            true => Ok(Some(Port::Named(text))),
            false => Err(self.source.invalid("port", "it is neither a number nor the name of a port")),
        }
    }

    fn family(&self) -> Result<Family, ProvisioningError> {
        Ok(match parameters::IP_FAMILY.choice(self.source.descriptor)? {
            Some("ipv4") => Family::Ipv4,
            Some("ipv6") => Family::Ipv6,
            _ => Family::Any,
        })
    }

    fn container(&self) -> Result<Option<String>, ProvisioningError> {
        match self.name("container")? {
            Some(name) if name.len() > MAX_LABEL => Err(self.source.invalid("container", "it is longer than 63 bytes")),
            name => Ok(name),
        }
    }

    fn pod(&self) -> Result<Option<String>, ProvisioningError> {
        if let Some(name) = self.name("pod")? {
            return Ok(Some(name));
        }
        for variable in POD_NAMES {
            // A host name that no pod can have says that this is none.
            if let Some(name) = self.variable(variable)?.filter(|name| check_name(name).is_ok()) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// Whether an object can have that name, which also makes it fit for a path.
fn check_name(name: &str) -> Result<(), &'static str> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.len() > MAX_NAME {
        return Err("it is longer than 253 bytes");
    }
    if !name.bytes().all(|byte| is_inner(byte) || matches!(byte, b'-' | b'.')) {
        return Err("it has characters other than small letters, digits, `-` and `.`");
    }
    let ends = [name.bytes().next(), name.bytes().next_back()];
    match ends.into_iter().flatten().all(is_inner) {
        true => Ok(()),
        false => Err("it does not begin and end with a letter or digit"),
    }
}

#[cfg(test)]
mod tests;
