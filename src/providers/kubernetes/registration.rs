//! The registration of the local node: the labels and annotations on the pod that it runs in. [`marks`] says what these
//! are and how they are patched, [`upkeep`] when they are looked at again; this carries it out.
//!
//! The pod is looked at by a patch without content, which changes nothing and is answered with the pod: so no right is
//! needed but the one to patch.
//!
//! In the end everything goes that may be there of the node: what was patched, also where the answer was lost; and where
//! nothing was, but the server may have been asked, what the pod is found to carry of the node, as an earlier life left it.
//! The registration of a definition that was edited sets the same labels on the same pod, under whatever URL of the
//! server. So the former one removes nothing when it makes way, unless its successor has told it the uid of another pod.

pub(super) mod marks;
mod upkeep;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

use self::marks::{Marks, Pod};
use self::upkeep::Upkeep;
use super::access;
use super::api_server::{ApiServer, Call, Outcome};
use super::config::Config;
use super::login::Login;
use super::query::PODS;
use crate::clock::Clock;
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::Method;
use crate::id::ProviderId;
use crate::provider::{CancelToken, Registration, RetryPolicy};
use crate::providers::budget::Budget;
use crate::providers::presence::{Presence, Sighting, Standing};
use crate::topology::ClusterNode;

const REGISTERING: &str = "registering the local node";
const LEAVING: &str = "deregistering the local node";
/// The type of a patch that sets what it names, removes what it names with null, and leaves all else alone.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// A patch that changes nothing.
const LOOK: &str = "{}";
/// The shortest pause between two rounds.
const SHORTEST: Duration = Duration::from_millis(10);
/// How soon after the labels were removed the pod is looked at again, where a patch was never answered: a moment, in which
/// the server gets to what it had received before.
const SETTLING: Duration = Duration::from_millis(100);

/// What a registration needs.
pub(super) struct Parts {
    pub(super) id: ProviderId,
    pub(super) config: Arc<Config>,
    pub(super) login: Login,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pod: String,
    pub(super) marks: Marks,
    pub(super) presence: Arc<Presence>,
    pub(super) retry: RetryPolicy,
    pub(super) uid: Arc<OnceLock<String>>,
    pub(super) succeeded: Arc<OnceLock<String>>,
    pub(super) succeeds: Option<Arc<OnceLock<String>>>,
}

/// Where the pod is.
#[derive(Clone)]
struct Place {
    namespace: String,
    path: String,
}

/// The local node's registration on its pod.
pub(super) struct KubernetesRegistration {
    id: ProviderId,
    config: Arc<Config>,
    pod: String,
    /// Where the pod is, once that is known: its namespace may have to be read from a file.
    place: Option<Place>,
    server: ApiServer,
    clock: Arc<dyn Clock>,
    marks: Marks,
    presence: Arc<Presence>,
    upkeep: Upkeep,
    /// That of the pod that was registered first: another one of its name is not ours, also for the next registration.
    uid: Arc<OnceLock<String>>,
    /// Whether another process is registered under the node's id.
    taken: bool,
    /// Whether the server may have taken notice of a look or a patch.
    asked: bool,
    /// Whether the pod may carry what was patched.
    patched: bool,
    /// Whether the last patch was never answered, so that the server may get to it later.
    unanswered: bool,
    /// The pod that the registration of an edited definition has marked: it is the one to repair that from then on.
    succeeded: Arc<OnceLock<String>>,
    /// The same of the one that this one succeeds.
    succeeds: Option<Arc<OnceLock<String>>>,
}

impl KubernetesRegistration {
    /// Nothing is read or sent before it is joined.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { id, config, login, clock, pod, marks, presence, retry, uid, succeeded, succeeds } = parts;
        let now = clock.now();
        Self {
            id,
            server: ApiServer::new(&config, login),
            upkeep: Upkeep::new(retry, RandomState::new().hash_one(now), now),
            config,
            pod,
            place: None,
            clock,
            marks,
            presence,
            uid,
            taken: false,
            asked: false,
            patched: false,
            unanswered: false,
            succeeded,
            succeeds,
        }
    }

    /// Does what is due: looks at the pod, and repairs what it carries.
    fn work(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        for sighting in self.presence.take_sightings() {
            if sighting == Sighting::Absent {
                self.upkeep.unseen(self.clock.now());
            } else {
                self.taken = sighting == Sighting::Taken;
                self.upkeep.seen();
            }
        }
        if self.succeeded.get().is_some() {
            // What it would take for damage may be its successor's doing.
            self.upkeep.looked(self.clock.now(), false);
        } else if self.upkeep.due() <= self.clock.now() {
            let done = self.assert(cancel);
            let now = self.clock.now();
            match done {
                Ok(repaired) => {
                    self.upkeep.looked(now, repaired);
                    self.presence.set_standing(Standing::Registered);
                    if let (Some(former), Some(uid)) = (&self.succeeds, self.uid.get()) {
                        // One successor is enough.
                        _ = former.set(uid.clone());
                    }
                }
                Err(error) => {
                    self.upkeep.failed(now);
                    return Err(error);
                }
            }
        }
        if self.taken {
            let detail = "Kubernetes shows another process under the local node's id";
            return Err(ProvisioningError::new(ErrorCode::NodeIdTaken, REGISTERING, detail));
        }
        Ok(())
    }

    /// Sees to it that the pod carries what it shall; whether it did not.
    fn assert(&mut self, cancel: &CancelToken) -> Result<bool, ProvisioningError> {
        let refuse = |detail: &'static str, advice: &'static str| {
            Err(ProvisioningError::new(ErrorCode::RegistrationFailed, REGISTERING, detail).with_advice(advice))
        };
        let pod = self.patched(LOOK, self.config.answer_timeout, REGISTERING, cancel)?;
        if *self.uid.get_or_init(|| pod.uid.clone()) != pod.uid {
            return refuse("the pod has been replaced by another of its name", "end this process: its pod is gone");
        }
        self.check_address(&pod)?;
        let Some(patch) = pod.patch(&self.marks) else { return Ok(false) };
        if pod.going {
            return refuse("the pod is being deleted", "none needed: the process is about to be ended with it");
        }
        self.patched(&patch, self.config.answer_timeout, REGISTERING, cancel).map(|_| true)
    }

    /// The others see the address of the pod, whatever the local node says.
    fn check_address(&self, pod: &Pod) -> Result<(), ProvisioningError> {
        let Some(local) = self.presence.local() else { return Ok(()) };
        let canonical = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        let own = canonical(local.address());
        if pod.addresses.is_empty() || pod.addresses.iter().any(|address| canonical(address) == own && own.is_some()) {
            return Ok(());
        }
        let detail = format!(
            "the others see the pod's address, {}, and not {:?}; give the local node the pod's (status.podIP)",
            pod.addresses.join(" or "),
            local.address()
        );
        Err(ProvisioningError::new(ErrorCode::InvalidNode, REGISTERING, detail).with_field("address"))
    }

    /// Sends a patch; returns the pod as it is then.
    fn patched(
        &mut self,
        patch: &str,
        answer_timeout: Duration,
        doing: &'static str,
        cancel: &CancelToken,
    ) -> Result<Pod, ProvisioningError> {
        let answer = self.send(patch, answer_timeout, doing, cancel);
        let may_have_worked = match &answer {
            // Refused before anything was done.
            Ok(answer) => !matches!(answer.status, 400 | 401 | 403 | 404 | 409 | 422),
            Err(_) => self.server.was_sent(),
        };
        self.asked |= may_have_worked;
        if patch != LOOK {
            self.patched |= may_have_worked;
            self.unanswered = answer.is_err() && may_have_worked;
        }
        let answer = answer?;
        match answer.status {
            200 => Pod::read(&answer.body, doing),
            403 => {
                let rule = access::rule(&self.place()?.namespace, PODS, "patch");
                let detail = format!("403: {}; {rule}", answer.excerpt);
                Err(ProvisioningError::new(ErrorCode::AccessDenied, doing, detail))
            }
            404 => {
                let error = ProvisioningError::new(ErrorCode::RegistrationFailed, doing, answer.excerpt);
                Err(error.with_advice("name the pod in which the process runs with the parameter pod"))
            }
            // The uid is another one.
            409 | 422 => Err(answer.refusal(ErrorCode::RegistrationFailed, doing)),
            _ => Err(answer.refusal(ErrorCode::BackendUnavailable, doing)),
        }
    }

    fn send(
        &mut self,
        patch: &str,
        answer_timeout: Duration,
        doing: &'static str,
        cancel: &CancelToken,
    ) -> Result<Outcome, ProvisioningError> {
        let path = self.place()?.path;
        let call = Call {
            method: Method::PATCH,
            path: &path,
            body: Some((MERGE_PATCH, patch.as_bytes())),
            answer_timeout,
            doing,
        };
        self.server.call(&call, cancel)
    }

    /// Where the pod is.
    fn place(&mut self) -> Result<Place, ProvisioningError> {
        if let Some(place) = &self.place {
            return Ok(place.clone());
        }
        let query = self.config.query()?;
        let place = Place { namespace: query.namespace().to_owned(), path: query.pod(&self.pod) };
        self.place = Some(place.clone());
        Ok(place)
    }

    /// Takes away whatever the pod may carry of ours.
    fn remove(&mut self, budget: Budget) -> Result<(), ProvisioningError> {
        let settles = self.unanswered;
        let known = self.uid.get().filter(|_| self.patched).cloned();
        match known {
            // What was set is known, so that one request is enough.
            Some(uid) => {
                let pod = Pod { uid, going: false, addresses: Vec::new(), marks: self.marks.clone() };
                self.withdraw(&pod, budget)?;
            }
            None => self.withdraw_found(budget)?,
        }
        if settles {
            thread::sleep(SETTLING.min(budget.left()));
            self.withdraw_found(budget)?;
        }
        (self.asked, self.patched, self.unanswered) = (false, false, false);
        Ok(())
    }

    /// Looks at the pod, and takes away what it carries of the node.
    fn withdraw_found(&mut self, budget: Budget) -> Result<(), ProvisioningError> {
        let answer = self.send(LOOK, budget.left(), LEAVING, &CancelToken::new())?;
        let pod = match answer.status {
            200 => Pod::read(&answer.body, LEAVING)?,
            404 => return Ok(()),
            _ => return Err(answer.refusal(ErrorCode::BackendUnavailable, LEAVING)),
        };
        let is_another = |uid: &OnceLock<String>| uid.get().is_some_and(|uid| *uid != pod.uid);
        let is_ours = !is_another(&self.uid) && pod.carries(&self.marks) && self.check_address(&pod).is_ok();
        if is_ours && self.succeeded.get() != Some(&pod.uid) { self.withdraw(&pod, budget) } else { Ok(()) }
    }

    /// Takes away what that pod carries under our prefix.
    fn withdraw(&mut self, pod: &Pod, budget: Budget) -> Result<(), ProvisioningError> {
        let Some(patch) = pod.patch(&Marks::default()) else { return Ok(()) };
        let answer = self.send(&patch, budget.left(), LEAVING, &CancelToken::new())?;
        match answer.status {
            // A pod that is gone, or another by now, carries nothing of ours.
            200 | 404 | 409 | 422 => Ok(()),
            _ => Err(answer.refusal(ErrorCode::BackendUnavailable, LEAVING)),
        }
    }
}

impl Registration for KubernetesRegistration {
    fn join(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.upkeep.demanded(self.clock.now());
        self.work(cancel).map_err(|error| error.with_provider(&self.id))
    }

    fn describe(&mut self, node: &ClusterNode) -> Result<(), ProvisioningError> {
        let cluster = self.config.cluster.as_deref().unwrap_or_default();
        self.marks = Marks::of(node, cluster).map_err(|error| error.with_provider(&self.id))?;
        // What the pod carries is no longer what was patched: whoever takes it away looks first.
        self.patched = false;
        Ok(())
    }

    fn renew_interval(&self) -> Duration {
        self.upkeep.due().since(self.clock.now()).max(SHORTEST)
    }

    fn early_renewal(&self) -> Receiver<()> {
        self.presence.absences().clone()
    }

    fn renew(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.work(cancel)
    }

    fn leave(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        self.presence.set_standing(Standing::Left);
        if self.asked { self.remove(Budget::of(budget)) } else { Ok(()) }
    }

    fn retire(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        self.presence.set_standing(Standing::Left);
        let is_elsewhere = self.succeeded.get().is_some_and(|uid| self.uid.get() != Some(uid));
        if self.asked && is_elsewhere { self.remove(Budget::of(budget)) } else { Ok(()) }
    }
}
