//! Consul: the members are the healthy instances of a service.
//!
//! The provider watches the health endpoint of one service through one agent. What the agent answers is not taken at
//! face value: `watch` decides what is believed. `query` is what is asked, `mark` what an answer's head says, and `wire`
//! turns its body into nodes, by the conventions of protoactor-go, so that mixed clusters see each other. `presence` is
//! what the watch and the registration of the local node tell each other. `stream` and `connection` do the work; `config`
//! reads the definition.

mod config;
mod connection;
// The decoder's part comes with it.
#[allow(dead_code)]
mod lineage;
mod mark;
// Its other half is the registration's.
#[allow(dead_code)]
mod presence;
mod query;
mod stream;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{after, select};

use self::config::Config;
use self::connection::{Ask, Connection, Reply};
use self::presence::Presence;
use self::query::Consistency;
use self::stream::{ConsulStream, Parts, SharedMemory};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::CredentialReader;
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, ProviderDescriptor, ProviderEnvironment, ProviderFactory, ProviderKind,
    ProviderStream,
};

/// Makes providers of the kind `consul`, each of which watches one service through one agent.
///
/// The descriptor's one endpoint is the agent's URL, `http://host:port` or `https://host:port`: IPv6 in brackets, the
/// port 8500 (8501 for https) if absent, nothing after it. Certificates are checked against the Mozilla roots that are
/// compiled in. The proxy that the environment names is used, except for a loopback address. The credential is an ACL
/// token that may read the service and its nodes; it is read anew for each request, so that it can be rotated.
///
/// A member is an instance that has at least one check and only passing ones, those of its node included. Its node id
/// is `Meta.id`, or `<service>@<address>:<port>`; its incarnation `Meta.incarnation`, or 0; its kinds are the tags; its
/// metadata is what else `Meta` holds. Unusable instances are left out and counted.
///
/// | parameter | default | range | meaning |
/// |---|---|---|---|
/// | `service` | required | 1 to 255 bytes | the service's name, which is the cluster's |
/// | `wait` | `60s` | 1 s to 10 min | how long the server may hold a query that has no news; each asks for up to a quarter more |
/// | `datacenter` | the agent's | 1 to 255 bytes | where the service is |
/// | `consistency` | `default` | `default`, `stale`, `consistent` | who may answer; `stale` spares the leader |
/// | `max-stale` | `10s` | 100 ms to 10 min | an answer of a server that has been without its leader for longer is asked of the leader |
/// | `repair-grace` | `9s` | 100 ms to 10 min | how long members that are gone after an index rollback must stay gone before that is believed: three times the TTL of their checks |
/// | `probe-interval` | `6s` | 100 ms to 30 s | how often the index is asked for beside the watch; every second while something is wrong |
/// | `probe-timeout` | `2s` | 100 ms to 5 s | how long that may take |
/// | `connect-timeout` | `2s` | 100 ms to 30 s | how long a name look-up, and a connect, may take |
/// | `answer-timeout` | `10s` | 100 ms to 1 min | how much later than due an answer may begin |
/// | `max-body` | `64MiB` | `1KiB` to `1024MiB` | the largest answer accepted, decompressed; an instance has about 2.6 kB |
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
        let local = environment.local_node.as_ref().map(|node| node.id().clone());
        Ok(Arc::new(ConsulProvider {
            config: Arc::new(Config::read(descriptor)?),
            descriptor: descriptor.clone(),
            environment: environment.clone(),
            memory: SharedMemory::default(),
            presence: Arc::new(Presence::new(local)),
        }))
    }
}

/// Watches one service through one agent.
struct ConsulProvider {
    descriptor: ProviderDescriptor,
    config: Arc<Config>,
    environment: ProviderEnvironment,
    memory: SharedMemory,
    /// The local node, as the watch and the registration see it.
    presence: Arc<Presence>,
}

impl ConsulProvider {
    fn credential(&self) -> CredentialReader {
        CredentialReader::new(self.descriptor.credential.clone(), self.environment.secrets.clone())
    }

    fn check(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        const DOING: &str = "checking the connection to Consul";
        let error = |code, detail: &'static str| Err(ProvisioningError::new(code, DOING, detail));
        let connection = Connection::open(&self.config, self.credential(), cancel, "check")?;
        let path = self.config.query.watch(None, Duration::ZERO, Consistency::Default);
        let answer_timeout = self.config.answer_timeout;
        connection.send(Ask::Watch { number: 0, path, answer_timeout });
        // Look-up, connect and sending have a connect timeout each.
        let limit = after(self.config.connect_timeout * 3 + answer_timeout);
        select! {
            recv(connection.replies()) -> reply => match reply {
                Ok(Reply::Watch(_, result)) => result.map(drop),
                Ok(Reply::Probe(result)) => result.map(drop),
                Err(_) => error(ErrorCode::StreamFailed, "the connection's thread has ended"),
            },
            recv(cancel.receiver()) -> _ => error(ErrorCode::Stopped, "the check was cancelled"),
            recv(limit) -> _ => error(ErrorCode::Timeout, "no whole answer in time"),
        }
    }
}

impl ClusterProvider for ConsulProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::WATCH
    }

    /// Each probe that finds the index unchanged confirms the data. One may be late or lost without the data being
    /// overdue.
    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.config.probe_interval * 2 + self.config.probe_timeout)
    }

    /// Reads the service once, which also shows whether the token is known and the answer decodes. A token whose rights
    /// do not suffice may be answered with an empty list, which cannot be told from an empty service here.
    fn check_connectivity(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.check(cancel).map_err(|error| error.with_provider(&self.descriptor.id))
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        let parts = Parts {
            id: self.descriptor.id.clone(),
            config: Arc::clone(&self.config),
            credential: self.credential(),
            clock: Arc::clone(&self.environment.clock),
            memory: Arc::clone(&self.memory),
            presence: Arc::clone(&self.presence),
        };
        Ok(Box::new(ConsulStream::open(parts, cancel)?))
    }
}
