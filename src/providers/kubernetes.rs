//! Kubernetes: the members are the pods of a label selector, or the endpoints of a service.
//!
//! The provider lists and watches them through the API server. `watch` decides what is asked and believed; `object` is what
//! a watched object says, `wire` reads it from the server's answers, by the conventions of protoactor-go, so that mixed
//! clusters see each other, and `directory` joins objects to members. In member mode `registration` keeps the local node's
//! labels on its pod. `access` proves the rights. `stream`, `connection` and `api_server` do the work, and `ahead` asks for the
//! next page of a list meanwhile; `query` is what is asked, and `config` reads the definition.

mod access;
mod ahead;
mod api_server;
mod config;
mod connection;
mod directory;
#[cfg(feature = "kubeconfig")]
pub(crate) mod kubeconfig;
mod label;
mod login;
mod object;
pub(in crate::providers) mod parameters;
mod query;
mod registration;
mod stream;
#[cfg(not(any(test, feature = "testkit")))]
mod watch;
#[cfg(any(test, feature = "testkit"))]
pub(crate) mod watch;
pub(crate) mod wire;

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use self::access::Rights;
use self::api_server::ApiServer;
use self::config::Config;
use self::login::Login;
use self::query::Select;
use self::registration::KubernetesRegistration;
use self::registration::marks::Marks;
use self::stream::Parts;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderKind;
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, LocalNode, ProviderDescriptor, ProviderEnvironment, ProviderFactory,
    ProviderStream, Registration, RegistrationSite,
};
use crate::providers::presence::Presence;
use crate::topology::ClusterNode;

/// Makes providers of the kind `kubernetes`, each of which watches the pods or the endpoints of one cluster through one
/// API server.
///
/// Without an endpoint the API server is the one of the pod that the process runs in (`KUBERNETES_SERVICE_HOST` and
/// `KUBERNETES_SERVICE_PORT`), with the token, the authority and the namespace of its service account:
/// `credentials = in-cluster`. Else the descriptor's one endpoint is the server's URL, `https://host:port` or
/// `http://host:port`: IPv6 in brackets, the port 443 (80 for http) if absent, and a path if the server is behind one;
/// the credential is a bearer token, or there is a client certificate. The token is read anew for each request, and files
/// of certificates when they have changed, so that both can be rotated. The proxy that the environment names is used,
/// by the rules of `docs/proxies.md`, except for a loopback address.
///
/// With the feature `kubeconfig` and `credentials = kubeconfig`, server and credentials are those of a context of a
/// kubeconfig: authority, client certificate and key (as data or files), `token`, `tokenFile`, or an exec plugin of
/// client.authentication.k8s.io/v1 or v1beta1. A plugin is run without a terminal, for 30 s at the most, and no longer than
/// the check before a definition is accepted takes; it is run again shortly before its credential expires and when the
/// server refuses it, at most every 5 s. Which cluster and user are meant is decided when the provider is made; their
/// credentials are followed when the file changes. `insecure-skip-tls-verify` is taken only with `tls-verify` = `off`.
/// Passwords, auth providers, impersonation and `proxy-url` are refused.
///
/// A pod is a member while it is running, has an address, is not being deleted and, unless `require-ready` is `off`, is
/// ready. Its node id is the label `cluster.proto.actor/member-id`, or its name; its port the label
/// `cluster.proto.actor/port`, or `port`; its kinds the labels `cluster.proto.actor/kind-<Kind>` that are `true`; its
/// incarnation the annotation `cluster.proto.actor/incarnation`, or the time of its creation and its restarts. An
/// endpoint of a slice is the node of its pod, without kinds. Unusable objects, and any of more than 1 MiB, are left out and
/// counted.
///
/// In member mode the local node's labels and annotations are set on the pod that the process runs in, and removed on
/// draining. That takes `source = pods` and a `cluster`.
///
#[doc = include_str!("kubernetes/parameters.md")]
#[derive(Clone, Copy, Debug, Default)]
pub struct KubernetesFactory;

impl KubernetesFactory {
    /// The definition of a provider that watches the pods of `cluster` in the namespace of the pod that the process runs
    /// in, to be refined with [`ProviderDescriptor`]'s own methods. Whether it is complete is checked when it is
    /// registered: outside of a pod it needs an endpoint and a `namespace`.
    ///
    /// ```
    /// use cluster_provisioning::{Credential, KubernetesFactory};
    /// let in_a_pod = KubernetesFactory::descriptor("k8s", "orders")?;
    /// let outside = KubernetesFactory::descriptor("k8s", "orders")?
    ///     .endpoint("https://10.1.0.10:6443")
    ///     .credential(Credential::TokenFile("/run/secrets/kubernetes".into()))
    ///     .parameter("ca-file", "/etc/kubernetes/ca.pem")
    ///     .parameter("namespace", "shop");
    /// # Ok::<(), cluster_provisioning::ProvisioningError>(())
    /// ```
    ///
    /// # Errors
    /// A code of the validation category if the id is unusable.
    pub fn descriptor(id: &str, cluster: &str) -> Result<ProviderDescriptor, ProvisioningError> {
        Ok(ProviderDescriptor::new(id, ProviderKind::kubernetes())?.parameter("cluster", cluster))
    }

    /// The definition of a provider that takes server, credentials and namespace from the kubeconfig that kubectl would
    /// use, and there from the current context, as it is when the provider is made.
    ///
    /// ```
    /// use cluster_provisioning::KubernetesFactory;
    /// let as_kubectl = KubernetesFactory::from_kubeconfig("k8s", "orders")?;
    /// let named = KubernetesFactory::from_kubeconfig("k8s", "orders")?
    ///     .parameter("kubeconfig", "/etc/orders/kubeconfig")
    ///     .parameter("context", "production");
    /// # Ok::<(), cluster_provisioning::ProvisioningError>(())
    /// ```
    ///
    /// # Errors
    /// A code of the validation category if the id is unusable.
    #[cfg(feature = "kubeconfig")]
    #[cfg_attr(docsrs, doc(cfg(feature = "kubeconfig")))]
    pub fn from_kubeconfig(id: &str, cluster: &str) -> Result<ProviderDescriptor, ProvisioningError> {
        Ok(Self::descriptor(id, cluster)?.parameter("credentials", "kubeconfig"))
    }
}

impl ProviderFactory for KubernetesFactory {
    fn kind(&self) -> ProviderKind {
        ProviderKind::kubernetes()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Config::check(descriptor)
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        Ok(Arc::new(KubernetesProvider::new(descriptor, environment)?))
    }

    /// The former definition's registration is told which pod the new one has marked: there it removes nothing.
    fn replace(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
        predecessor: &dyn ClusterProvider,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let mut provider = KubernetesProvider::new(descriptor, environment)?;
        let predecessor: &dyn Any = predecessor;
        let former = predecessor.downcast_ref::<KubernetesProvider>().and_then(|former| former.member.as_ref());
        if let (Some(member), Some(former)) = (&mut provider.member, former) {
            member.succeeds = Some(Arc::clone(&former.succeeded));
        }
        Ok(Arc::new(provider))
    }
}

/// What a provider needs to register the local node.
struct Member {
    pod: String,
    uid: Arc<OnceLock<String>>,
    /// Which pod the registration of an edited definition has marked; and the same of the one that this one replaces.
    succeeded: Arc<OnceLock<String>>,
    succeeds: Option<Arc<OnceLock<String>>>,
}

impl Member {
    /// `None` where the definition's members are not registered by labels.
    fn new(
        node: &ClusterNode,
        config: &Config,
        descriptor: &ProviderDescriptor,
    ) -> Result<Option<Self>, ProvisioningError> {
        let (Select::Pods { .. }, Some(cluster)) = (&config.select, &config.cluster) else { return Ok(None) };
        Marks::of(node, cluster).map_err(|error| error.with_provider(&descriptor.id))?;
        let Some(pod) = config.pod.clone() else {
            let reason = "which pod the process runs in is not known: neither POD_NAME nor HOSTNAME is a pod's name";
            let error = descriptor.refuse(ErrorCode::MissingField, "pod", reason);
            return Err(error.with_advice(
                "hand metadata.name to the container as POD_NAME, or name the pod with the parameter pod",
            ));
        };
        Ok(Some(Self { pod, uid: Arc::default(), succeeded: Arc::default(), succeeds: None }))
    }
}

/// Watches one selection of objects through one API server, and in member mode keeps the local node's labels.
struct KubernetesProvider {
    descriptor: ProviderDescriptor,
    config: Arc<Config>,
    environment: ProviderEnvironment,
    presence: Arc<Presence>,
    /// In member mode.
    member: Option<Member>,
}

impl KubernetesProvider {
    fn new(descriptor: &ProviderDescriptor, environment: &ProviderEnvironment) -> Result<Self, ProvisioningError> {
        let config = Arc::new(Config::read(descriptor)?);
        let member = match environment.local_node.get() {
            Some(node) => Member::new(&node, &config, descriptor)?,
            None => None,
        };
        // A provider that does not register the local node does not wait for it either.
        let local = if member.is_some() { environment.local_node.clone() } else { LocalNode::default() };
        Ok(Self {
            presence: Arc::new(Presence::new(local)),
            member,
            config,
            descriptor: descriptor.clone(),
            environment: environment.clone(),
        })
    }

    fn login(&self) -> Login {
        Login::new(&self.config, &self.environment)
    }

    fn check(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        let query = self.config.query()?;
        let rights = Rights {
            query: &query,
            watched: self.config.select.resource(),
            pod: self.member.as_ref().map(|member| &*member.pod),
            answer_timeout: self.config.answer_timeout,
        };
        let mut server = ApiServer::new(&self.config, self.login());
        match access::prove(&mut server, &rights, cancel) {
            Err(_) if cancel.is_cancelled() => Err(ProvisioningError::new(
                ErrorCode::Stopped,
                "checking the connection to Kubernetes",
                "the check was cancelled",
            )),
            outcome => outcome,
        }
    }
}

impl ClusterProvider for KubernetesProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        match (&self.config.select, &self.config.cluster) {
            (Select::Pods { .. }, Some(_)) => Capabilities::WATCH_AND_REGISTER,
            _ => Capabilities::WATCH,
        }
    }

    /// Each probe that is answered while the watch is open confirms the data. Two may be late or lost, or the watch be
    /// opened anew, without the data being overdue.
    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.config.probe_interval * 3 + self.config.probe_timeout)
    }

    /// Lists one object, and asks whether the rights suffice, in member mode to patch the pod too.
    fn check_connectivity(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.check(cancel).map_err(|error| error.with_provider(&self.descriptor.id))
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        let parts = Parts {
            id: self.descriptor.id.clone(),
            config: Arc::clone(&self.config),
            login: self.login(),
            clock: Arc::clone(&self.environment.clock),
            presence: Arc::clone(&self.presence),
            retry: self.environment.retry,
        };
        Ok(Box::new(stream::open(parts, cancel)?))
    }

    fn registration(&self, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        let is_local = self.presence.local().is_some_and(|local| local.id() == node.id());
        let (Some(member), Some(cluster)) = (self.member.as_ref().filter(|_| is_local), &self.config.cluster) else {
            let detail = "the provider was not made for this node, or its definition names no cluster of pods";
            let error = ProvisioningError::new(ErrorCode::Unsupported, "registering the local node", detail);
            return Err(error.with_provider(&self.descriptor.id));
        };
        Ok(Box::new(KubernetesRegistration::new(registration::Parts {
            id: self.descriptor.id.clone(),
            config: Arc::clone(&self.config),
            login: self.login(),
            clock: Arc::clone(&self.environment.clock),
            pod: member.pod.clone(),
            marks: Marks::of(node, cluster).map_err(|error| error.with_provider(&self.descriptor.id))?,
            presence: Arc::clone(&self.presence),
            retry: self.environment.retry,
            uid: Arc::clone(&member.uid),
            succeeded: Arc::clone(&member.succeeded),
            succeeds: member.succeeds.clone(),
        })))
    }

    /// A pod carries one member. Where the namespace is not known yet there is no saying.
    fn registration_site(&self) -> Option<RegistrationSite> {
        let (member, cluster) = (self.member.as_ref()?, self.config.cluster.as_ref()?);
        let namespace = self.config.namespace().ok()?;
        let place = format!("kubernetes {} {namespace}/{}", self.config.target.base(), member.pod);
        Some(RegistrationSite::new(place, cluster))
    }
}
