//! The members themselves as a provider: they find each other by gossip, and need nobody else.
//!
//! `seat` holds the running member; `feed` makes reports of what it tells; the rules of the protocol are
//! [`membership`](crate::membership)'s.

mod config;
mod event;
mod feed;
mod keys;
mod membership;
pub(in crate::providers) mod parameters;
mod registration;
mod seat;
mod stream;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::config::Config;
pub use self::event::{GossipEvent, GossipState, GossipUpdate};
use self::feed::{Feed, Standing, Teller, WATCHING};
use self::keys::Keys;
pub use self::membership::{GossipMembership, QuarantinedNode, RefusedTransition};
use self::registration::GossipRegistration;
use self::seat::Seat;
use self::stream::GossipStream;
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::{ProviderId, ProviderKind};
pub use crate::membership::GossipMetrics;
use crate::membership::Life;
use crate::membership::transport::Node;
use crate::provider::{
    CancelToken, Capabilities, ClusterProvider, Exclusions, LocalNode, ProviderDescriptor, ProviderEnvironment,
    ProviderFactory, ProviderStream, Registration, RegistrationSite, SIGN_OF_LIFE,
};
use crate::sync::{Mutex, lock};
use crate::topology::{ClusterNode, NodeId};

/// How long a cancellation goes unnoticed while members are asked whether they are there.
const NOTICED: Duration = Duration::from_millis(20);
/// How long they are asked.
const ANSWERED: Duration = Duration::from_secs(3);

/// Makes providers of the kind `gossip`: the members of a cluster find each other, and need neither Consul nor Kubernetes.
/// On Unix.
///
/// In member mode the local node is a member: it listens on a port, for datagrams and for connections, and asks the
/// *seeds*, the definition's endpoints, to be let in. Any members are good seeds, by address or name; a name may have many
/// addresses, and is looked up each time. A node that is a seed itself, or has none, is the first member of a cluster if no
/// other answers. In client mode a member is asked for its view, and the process is seen by nobody.
///
/// The node's address must be one at which the others reach it, at the port of `bind`.
///
/// With a [credential](ProviderDescriptor::credential) all messages are encrypted and authenticated, and replays refused. It
/// holds one key a line, 32 bytes in base64 or as 64 hexadecimal digits: the first encrypts, each of up to eight decrypts.
/// All processes of a cluster have the same keys. A file is read again every two seconds, so that keys are changed while members
/// run, in three steps that each reach everybody before the next: the new key is added behind the old one, moved to the
/// front, and the old one removed.
///
#[doc = include_str!("gossip/parameters.md")]
#[derive(Clone, Default)]
pub struct GossipFactory {
    seats: Seats,
}

/// Whom a handle speaks to, by the names of the providers.
type Seats = Arc<Mutex<BTreeMap<ProviderId, Arc<Seat>>>>;

impl GossipFactory {
    /// A factory without providers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The definition of a provider of the cluster of that label, to be refined with [`ProviderDescriptor`]'s own methods:
    /// each [`endpoint`](ProviderDescriptor::endpoint) is a seed, `host:port` or `host` for port 7946.
    ///
    /// ```
    /// use cluster_provisioning::GossipFactory;
    /// let descriptor = GossipFactory::descriptor("gossip", "orders-production")?
    ///     .endpoint("node-1.example:7946")
    ///     .endpoint("10.0.0.2")
    ///     .parameter("profile", "wan");
    /// # Ok::<(), cluster_provisioning::ProvisioningError>(())
    /// ```
    ///
    /// # Errors
    /// A code of the validation category if the id or label is unusable.
    pub fn descriptor(id: &str, label: &str) -> Result<ProviderDescriptor, ProvisioningError> {
        let descriptor = ProviderDescriptor::new(id, ProviderKind::gossip())?.parameter("label", label);
        Config::read(&descriptor)?;
        Ok(descriptor)
    }

    /// The local node's membership through the provider of that name, as soon as a service has made that: also while
    /// [`start`](crate::ServiceBuilder::start) waits for the node to be let in.
    pub fn membership(&self, provider: &str) -> Option<GossipMembership> {
        let seats = lock(&self.seats);
        let seat = seats.iter().find(|(id, _)| id.as_str() == provider).map(|(_, seat)| seat);
        seat.map(|seat| GossipMembership::new(Arc::clone(seat)))
    }

    fn make(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
        former: Option<&GossipProvider>,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let config = Arc::new(Config::read(descriptor)?);
        let (mut seat, mut succeeds) = (None, None);
        if let Some(former) = former.filter(|former| former.is_member()) {
            if former.config.is_same_member(&config) {
                (seat, succeeds) = (Some(Arc::clone(&former.seat)), Some(Arc::clone(&former.is_succeeded)));
            } else if former.seat.is_running() {
                let reason = "a running member can change its seeds, priority and role alone; remove the provider first, \
                              or define another one with a label and a port of its own";
                return Err(descriptor.refuse(ErrorCode::InvalidValue, "parameters", reason));
            }
        }
        let seat = seat.unwrap_or_else(|| {
            let (local, exclusions) = (environment.local_node.clone(), environment.exclusions.clone());
            let feed = Feed::new(descriptor.id.clone(), local, exclusions);
            Seat::new(descriptor.id.clone(), Arc::clone(&environment.clock), feed)
        });
        {
            // The definition may be looked at alone, and never come into force.
            let mut seats = lock(&self.seats);
            if !seats.get(&descriptor.id).is_some_and(|known| known.is_used()) {
                seats.insert(descriptor.id.clone(), Arc::clone(&seat));
            }
        }
        Ok(Arc::new(GossipProvider {
            descriptor: descriptor.clone(),
            keys: Arc::new(Keys::new(descriptor.id.clone(), &config, environment.secrets.clone())),
            config,
            seat,
            environment: environment.clone(),
            local: environment.local_node.clone(),
            is_succeeded: Arc::default(),
            succeeds,
            seats: Arc::clone(&self.seats),
        }))
    }
}

impl fmt::Debug for GossipFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(lock(&self.seats).keys()).finish()
    }
}

impl ProviderFactory for GossipFactory {
    fn kind(&self) -> ProviderKind {
        ProviderKind::gossip()
    }

    fn validate(&self, descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
        Config::read(descriptor).map(drop)
    }

    fn create(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        self.make(descriptor, environment, None)
    }

    /// A member goes on where the seeds alone are others; it cannot change anything else while it runs.
    fn replace(
        &self,
        descriptor: &ProviderDescriptor,
        environment: &ProviderEnvironment,
        predecessor: &dyn ClusterProvider,
    ) -> Result<Arc<dyn ClusterProvider>, ProvisioningError> {
        let predecessor: &dyn Any = predecessor;
        self.make(descriptor, environment, predecessor.downcast_ref())
    }
}

/// Shows the members of a gossip cluster, and in member mode runs one.
struct GossipProvider {
    descriptor: ProviderDescriptor,
    config: Arc<Config>,
    seat: Arc<Seat>,
    keys: Arc<Keys>,
    environment: ProviderEnvironment,
    /// In member mode.
    local: LocalNode,
    /// The provider of an edited definition runs the same member.
    is_succeeded: Arc<AtomicBool>,
    /// The same of the one that this one succeeds.
    succeeds: Option<Arc<AtomicBool>>,
    seats: Seats,
}

impl GossipProvider {
    fn is_member(&self) -> bool {
        self.local.get().is_some()
    }

    /// The definition is in force.
    fn comes_into_force(&self) {
        if let Some(succeeds) = &self.succeeds {
            succeeds.store(true, Ordering::Release);
            self.seat.set_seeds(&self.config);
        }
        lock(&self.seats).insert(self.descriptor.id.clone(), Arc::clone(&self.seat));
    }

    /// Whether the member of the definition that is in force under this name listens on that port.
    fn is_ours(&self, port: u16) -> bool {
        let known = lock(&self.seats).get(&self.descriptor.id).cloned();
        known.is_some_and(|seat| seat.is_running() && seat.ask(Node::port).flatten() == Some(port))
    }

    /// Somebody who looks on from outside.
    fn observer(&self, feed: &Arc<Feed>) -> Result<Node, ProvisioningError> {
        let failed = |detail: String| {
            ProvisioningError::new(ErrorCode::ThreadRefused, WATCHING, detail).with_provider(&self.descriptor.id)
        };
        // It names itself in what it asks, and appears nowhere. No two have one name, since each seals for itself.
        let own = RandomState::new().hash_one(&self.descriptor.id);
        let id =
            NodeId::new(format!("observer-{own:016x}")).map_err(|error| error.with_provider(&self.descriptor.id))?;
        let own = Life { id, incarnation: 0 };
        let teller = Box::new(Teller(Arc::clone(feed)));
        let (label, seeds) = (&self.config.settings.label, self.config.seeds.clone());
        let observer = Node::observer((label, self.keys.read()?), own, seeds, &self.environment.clock, teller);
        observer.map_err(|error| failed(error.to_string()))
    }
}

impl ClusterProvider for GossipProvider {
    fn descriptor(&self) -> &ProviderDescriptor {
        &self.descriptor
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::WATCH_AND_REGISTER
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(SIGN_OF_LIFE)
    }

    /// In member mode: whether this node can listen. Whether a seed answers does not matter, since all may begin at once.
    /// In client mode: whether a member answers.
    fn check_connectivity(&self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        if let Some(local) = self.local.get() {
            self.keys.read()?;
            if self.seat.is_running() {
                return Ok(());
            }
            let bind = self.config.bind(local.address());
            return match Node::can_listen(bind) {
                Err(error) if !self.is_ours(bind.port()) => Err(self.seat.not_listening(bind, &error)),
                _ => Ok(()),
            };
        }
        if self.config.seeds.is_empty() {
            return Err(self.descriptor.refuse(
                ErrorCode::MissingField,
                "endpoints",
                "in client mode a member has to be named that is asked",
            ));
        }
        let feed = Feed::new(self.descriptor.id.clone(), LocalNode::default(), Exclusions::default());
        let _observer = self.observer(&feed)?;
        let ends = Instant::now() + ANSWERED;
        loop {
            match feed.wait_inside(NOTICED) {
                (Standing::Inside, _) => return Ok(()),
                (_, Some(why)) if why.code() == ErrorCode::AccessDenied => return Err(why),
                (_, why) if cancel.is_cancelled() || Instant::now() >= ends => {
                    let nobody = || {
                        let detail = "no member of the cluster answers";
                        ProvisioningError::new(ErrorCode::BackendUnavailable, WATCHING, detail)
                    };
                    return Err(why.unwrap_or_else(nobody).with_provider(&self.descriptor.id));
                }
                _ => {}
            }
        }
    }

    fn watch(&self, cancel: &CancelToken) -> Result<Box<dyn ProviderStream>, ProvisioningError> {
        self.comes_into_force();
        if self.is_member() {
            return Ok(Box::new(GossipStream::open(&self.seat.feed, cancel, None)));
        }
        // The stream before has ended, and its observer with it.
        self.seat.feed.begins();
        let observer = self.observer(&self.seat.feed)?;
        Ok(Box::new(GossipStream::open(&self.seat.feed, cancel, Some((observer, Arc::clone(&self.keys))))))
    }

    fn registration(&self, node: &ClusterNode) -> Result<Box<dyn Registration>, ProvisioningError> {
        self.comes_into_force();
        Ok(Box::new(GossipRegistration {
            seat: Arc::clone(&self.seat),
            config: Arc::clone(&self.config),
            keys: Arc::clone(&self.keys),
            local: Arc::new(node.clone()),
            is_succeeded: Arc::clone(&self.is_succeeded),
        }))
    }

    fn registration_site(&self) -> Option<RegistrationSite> {
        let local = self.local.get()?;
        let bind = self.config.bind(local.address());
        (bind.port() != 0).then(|| RegistrationSite::new(format!("gossip {bind}"), &self.config.settings.label))
    }
}
