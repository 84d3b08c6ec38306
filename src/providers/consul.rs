//! Consul: the members are the healthy instances of a service.
//!
//! The provider watches the health endpoint of one service through one agent. What the agent answers is not taken at
//! face value: `watch` decides what is believed. `query` is what is asked, `mark` what an answer's head says, and `wire`
//! turns its body into nodes, by the conventions of protoactor-go, so that mixed clusters see each other. In member
//! mode `registration` keeps the local node registered. `access`
//! proves the token's rights. `stream`, `connection` and `agent` do the work; `config` reads the
//! definition, and `environment` what that takes from the official client's variables.

mod access;
mod agent;
mod config;
mod connection;
mod environment;
mod failure;
mod lineage;
pub(crate) mod mark;
pub(in crate::providers) mod parameters;
mod query;
mod registration;
mod stream;
mod watch;
pub(crate) mod wire;

use std::any::Any;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::{after, select};

use self::access::Rights;
use self::agent::Agent;
use self::config::Config;
use self::connection::{Ask, Reply};
use self::query::Consistency;
use self::registration::{ConsulRegistration, Definition};
use self::stream::{Parts, SharedMemory};
use crate::credential::CredentialReader;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderKind;
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, ProviderDescriptor, ProviderEnvironment, ProviderFactory,
    ProviderStream, Registration, RegistrationSite,
};
use crate::providers::presence::Presence;
use crate::thread::Purpose;
use crate::topology::ClusterNode;

/// Makes providers of the kind `consul`, each of which watches one service through one agent.
///
/// The descriptor's one endpoint is the agent's URL, `http://host:port` or `https://host:port`: IPv6 in brackets, the
/// port 8500 (8501 for https) if absent, nothing after it; or, where there are unix sockets, `unix:///run/consul.sock`.
/// The proxy that the environment names is used, by the rules of `docs/proxies.md`, except for a loopback address and a unix
/// socket. The credential is an ACL token that may read the service and its nodes; it is read anew for each request, so that it can be rotated.
///
/// Over https the agent's certificate is checked against the authorities in `ca-file` and `ca-path`, or the Mozilla
/// roots that are compiled in if there is neither. The files of certificates and keys are read again when they have
/// changed, and the next request then uses a new connection; what cannot be read leaves the last good ones in force.
/// Without https these parameters are refused; so is `tls-verify = off` beside authorities to check against.
///
/// With `environment = on`, which [`from_environment`](Self::from_environment) sets, what the definition leaves open is
/// taken from the variables of the official client, with its meaning of them: `CONSUL_HTTP_ADDR` (`127.0.0.1:8500` if
/// unset; port 80, for https 443, if it names none), `CONSUL_HTTP_SSL`, `CONSUL_HTTP_TOKEN_FILE`, else
/// `CONSUL_HTTP_TOKEN`, `CONSUL_HTTP_AUTH`, `CONSUL_CACERT`, else `CONSUL_CAPATH`, `CONSUL_CLIENT_CERT`,
/// `CONSUL_CLIENT_KEY`, `CONSUL_TLS_SERVER_NAME`, `CONSUL_HTTP_SSL_VERIFY` (not looked at beside authorities of the
/// definition), `CONSUL_NAMESPACE`, `CONSUL_PARTITION`. Unlike there a malformed value is refused, and an address with a
/// path too. Without it no variable is read, so that no token goes to an agent that it is not meant for.
///
/// A member is an instance that has at least one check and only passing ones, those of its node included. Its node id
/// is `Meta.id`, or `<service>@<address>:<port>`; its incarnation `Meta.incarnation`, or 0; its kinds are the tags; its
/// metadata is what else `Meta` holds. Unusable instances, and any of more than 1 MiB, are left out and counted.
///
#[doc = include_str!("consul/parameters.md")]
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsulFactory;

impl ConsulFactory {
    /// The definition of a provider that watches `service` through the agent at `url`, to be refined with
    /// [`ProviderDescriptor`]'s own methods.
    ///
    /// ```
    /// use cluster_provisioning::{ConsulFactory, Credential};
    /// let descriptor = ConsulFactory::descriptor("consul-a", "http://127.0.0.1:8500", "orders")?
    ///     .priority(100)
    ///     .credential(Credential::TokenFile("/run/secrets/consul".into()))
    ///     .parameter("wait", "5m");
    /// # Ok::<(), cluster_provisioning::ProvisioningError>(())
    /// ```
    ///
    /// # Errors
    /// A code of the validation category if the id, URL or service is unusable.
    pub fn descriptor(id: &str, url: &str, service: &str) -> Result<ProviderDescriptor, ProvisioningError> {
        let descriptor =
            ProviderDescriptor::new(id, ProviderKind::consul())?.endpoint(url).parameter("service", service);
        Config::read(&descriptor)?;
        Ok(descriptor)
    }

    /// The definition of a provider that watches `service` through the agent that the official client's environment
    /// variables name, with the token and the certificates that they name: `environment = on`. What the definition is
    /// given besides goes before them.
    ///
    /// # Errors
    /// A code of the validation category if the id or service is unusable, or a variable is, which is then the field.
    pub fn from_environment(id: &str, service: &str) -> Result<ProviderDescriptor, ProvisioningError> {
        let descriptor = ProviderDescriptor::new(id, ProviderKind::consul())?
            .parameter("service", service)
            .parameter("environment", "on");
        Config::read(&descriptor)?;
        Ok(descriptor)
    }
}

impl ProviderFactory for ConsulFactory {
    fn kind(&self) -> ProviderKind {
        ProviderKind::consul()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Config::read(descriptor).map(drop)
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        Ok(Arc::new(ConsulProvider::new(descriptor, environment)?))
    }

    /// What the watch of the former definition knows is known to the new one, if it watches the same members: an agent
    /// that lost its state just then is not believed more than before.
    fn replace(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
        predecessor: &dyn ClusterProvider,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let mut provider = ConsulProvider::new(descriptor, environment)?;
        let predecessor: &dyn Any = predecessor;
        if let Some(former) = predecessor.downcast_ref::<ConsulProvider>() {
            provider.follow(former);
        }
        Ok(Arc::new(provider))
    }
}

/// Watches one service through one agent, and in member mode registers the local node in it.
struct ConsulProvider {
    descriptor: ProviderDescriptor,
    config: Arc<Config>,
    environment: ProviderEnvironment,
    memory: SharedMemory,
    /// Whose memory is taken over by the first stream.
    heritage: Option<Heritage>,
    presence: Arc<Presence>,
    /// In member mode, as what the local node is registered.
    definition: Option<Definition>,
    /// Whether the registration of an edited definition holds the node; and the same of the one that this one replaces.
    succeeded: Arc<AtomicBool>,
    succeeds: Option<Arc<AtomicBool>>,
}

/// What the watch of the former definition knows.
struct Heritage {
    memory: SharedMemory,
    /// Whether it is known from the same agent.
    same_agent: bool,
}

impl ConsulProvider {
    fn new(descriptor: &ProviderDescriptor, environment: &ProviderEnvironment) -> Result<Self, ProvisioningError> {
        let config = Arc::new(Config::read(descriptor)?);
        let local = environment.local_node.get();
        let define = |node| Definition::new(node, config.query.service(), config.ttl, config.deregister_after);
        let definition =
            local.as_deref().map(define).transpose().map_err(|error| error.with_provider(&descriptor.id))?;
        Ok(Self {
            presence: Arc::new(Presence::new(environment.local_node.clone())),
            definition,
            config,
            descriptor: descriptor.clone(),
            environment: environment.clone(),
            memory: SharedMemory::default(),
            heritage: None,
            succeeded: Arc::default(),
            succeeds: None,
        })
    }

    /// Becomes the successor of a provider that is still in force.
    fn follow(&mut self, former: &ConsulProvider) {
        self.succeeds = Some(Arc::clone(&former.succeeded));
        if former.config.query == self.config.query {
            former.inherit();
            let same_agent = former.config.target.place() == self.config.target.place();
            self.heritage = Some(Heritage { memory: Arc::clone(&former.memory), same_agent });
        }
    }

    /// Takes over what the former definition's watch knows, as long as nothing is known here.
    fn inherit(&self) {
        let Some(Heritage { memory, same_agent }) = &self.heritage else { return };
        let known = memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.members.is_none() {
            *memory = if *same_agent { known } else { known.of_another_agent() };
        }
    }

    fn credential(&self) -> CredentialReader {
        CredentialReader::new(self.config.credential.clone(), self.environment.secrets.clone())
    }

    fn check(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        const DOING: &str = "checking the connection to Consul";
        let error = |code, detail: &'static str| Err(ProvisioningError::new(code, DOING, detail));
        let connection = connection::open(&self.config, self.credential(), cancel, Purpose::Check)?;
        let path = self.config.query.watch(None, Duration::ZERO, Consistency::Default);
        let answer_timeout = self.config.answer_timeout;
        connection.send(Ask::Watch { number: 0, path, answer_timeout, believed: None });
        // Look-up, connect and sending have a connect timeout each.
        let limit = after(self.config.connect_timeout * 3 + answer_timeout);
        select! {
            recv(connection.replies()) -> reply => match reply {
                Ok(Reply::Watch(_, Ok(answer))) => self.check_rights(!answer.members.is_empty(), cancel),
                // The answer does not say which right is missing.
                Ok(Reply::Watch(_, Err(failure))) if failure.error.code() == ErrorCode::AccessDenied => {
                    let proof = self.check_rights(false, cancel).err();
                    Err(proof.filter(|proof| proof.code() == ErrorCode::AccessDenied).unwrap_or(failure.error))
                }
                Ok(Reply::Watch(_, Err(failure))) => Err(failure.error),
                Ok(Reply::Probe(result)) => result.map(drop).map_err(|failure| failure.error),
                Err(_) => error(ErrorCode::StreamFailed, "the connection's thread has ended"),
            },
            recv(cancel.receiver()) -> _ => error(ErrorCode::Stopped, "the check was cancelled"),
            recv(limit) -> _ => error(ErrorCode::Timeout, "no whole answer in time"),
        }
    }
}

impl ConsulProvider {
    fn check_rights(&self, sees_instances: bool, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        let rights =
            Rights { service: self.config.query.service(), registers: self.definition.is_some(), sees_instances };
        let mut agent = Agent::new(&self.config, self.credential());
        access::prove(&mut agent, &rights, self.config.answer_timeout, cancel)
    }
}

impl ClusterProvider for ConsulProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::WATCH_AND_REGISTER
    }

    /// Each probe that finds the index unchanged confirms the data. One may be late or lost without the data being
    /// overdue.
    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.config.probe_interval(self.definition.is_some()) * 2 + self.config.probe_timeout)
    }

    /// Reads the service once, which also shows whether the token is known and the answer decodes; and asks whether the
    /// token's rights suffice, in member mode to register too.
    fn check_connectivity(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.check(cancel).map_err(|error| error.with_provider(&self.descriptor.id))
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        self.inherit();
        let parts = Parts {
            id: self.descriptor.id.clone(),
            config: Arc::clone(&self.config),
            credential: self.credential(),
            clock: Arc::clone(&self.environment.clock),
            memory: Arc::clone(&self.memory),
            presence: Arc::clone(&self.presence),
            retry: self.environment.retry,
        };
        Ok(Box::new(stream::open(parts, cancel)?))
    }

    fn registration(&self, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        let is_local = self.presence.local().is_some_and(|local| local.id() == node.id());
        if self.definition.is_none() || !is_local {
            let detail = "the provider was not made for this node";
            let error = ProvisioningError::new(ErrorCode::Unsupported, "registering the local node", detail);
            return Err(error.with_provider(&self.descriptor.id));
        }
        let definition =
            Definition::new(node, self.config.query.service(), self.config.ttl, self.config.deregister_after);
        let definition = definition.map_err(|error| error.with_provider(&self.descriptor.id))?;
        Ok(Box::new(ConsulRegistration::new(registration::Parts {
            id: self.descriptor.id.clone(),
            config: Arc::clone(&self.config),
            credential: self.credential(),
            clock: Arc::clone(&self.environment.clock),
            definition,
            presence: Arc::clone(&self.presence),
            retry: self.environment.retry,
            succeeded: Arc::clone(&self.succeeded),
            succeeds: self.succeeds.clone(),
        })))
    }

    /// An agent has one entry of each id, whatever its service.
    fn registration_site(&self) -> Option<RegistrationSite> {
        self.definition.as_ref()?;
        let scope = self.config.query.agent_scope();
        let place = format!("consul {} {scope}", self.config.target.place());
        Some(RegistrationSite::new(place.trim_end(), self.config.query.service()))
    }
}
