//! The registration of the local node: carries out what [`Heartbeat`] and [`Repair`] decide, on the thread and the
//! connection that the registration has for itself, and in the end deregisters whatever may stand at the agent, or what
//! [`succession`] leaves of it.

mod definition;
mod heartbeat;
mod holding;
mod repair;
mod succession;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

pub(super) use self::definition::Definition;
use self::heartbeat::Heartbeat;
use self::holding::{Finding, Holding, catalog_path, checks_path, is_shown, left_over};
use self::repair::{Look, Loss, Repair, Step};
use self::succession::Seal;
use super::agent::{Agent, Call, refusal};
use super::config::Config;
use crate::clock::{Clock, Timestamp};
use crate::credential::CredentialReader;
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Answer, Method};
use crate::id::ProviderId;
use crate::provider::{CancelToken, Registration, RetryPolicy};
use crate::providers::budget::Budget;
use crate::providers::presence::{Presence, Sighting, Standing};
use crate::secret::Secret;
use crate::text::line::log_line;
use crate::topology::ClusterNode;

const REGISTERING: &str = "registering the local node";
const RENEWING: &str = "renewing the registration of the local node";
const LEAVING: &str = "deregistering the local node";
const LOOKING: &str = "looking for the local node's registration";
const RETIRING: &str = "making way for the local node's new registration";
/// The shortest pause between two rounds.
const SHORTEST: Duration = Duration::from_millis(10);
/// How soon after a deregistration the agent is asked whether that was all, where a registration was never answered: a
/// moment, in which it gets to what it had received before.
const SETTLING: Duration = Duration::from_millis(100);
/// The first pause between two looks for the successor; doubles to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_millis(400);

/// What a registration needs.
pub(super) struct Parts {
    pub(super) id: ProviderId,
    pub(super) config: Arc<Config>,
    pub(super) credential: CredentialReader,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) definition: Definition,
    pub(super) presence: Arc<Presence>,
    pub(super) retry: RetryPolicy,
    pub(super) succeeded: Arc<AtomicBool>,
    pub(super) succeeds: Option<Arc<AtomicBool>>,
}

/// The local node's registration with one agent.
pub(super) struct ConsulRegistration {
    id: ProviderId,
    config: Arc<Config>,
    agent: Agent,
    clock: Arc<dyn Clock>,
    definition: Definition,
    /// The seal that is on what is registered, and how many times it was sent.
    seal: Seal,
    writes: u64,
    presence: Arc<Presence>,
    heartbeat: Heartbeat,
    repair: Repair,
    /// Whether another process is registered under the node's id.
    taken: bool,
    /// The token under which the node is registered, with which the agent writes the catalog.
    token: Option<Secret>,
    /// Whether the agent may hold something of this registration's.
    may_stand: bool,
    /// Whether the last registration was never answered, so that the agent may get to it later.
    unanswered: bool,
    /// Whether that of an edited definition holds the node: it is the one to repair it from then on.
    succeeded: Arc<AtomicBool>,
    /// The same of the one that this one succeeds.
    succeeds: Option<Arc<AtomicBool>>,
}

impl ConsulRegistration {
    /// Nothing is sent before it is joined.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { id, config, credential, clock, definition, presence, retry, succeeded, succeeds } = parts;
        let now = clock.now();
        // The keys of the hash are drawn anew each time.
        let seal = Seal::new(RandomState::new().hash_one((now, std::process::id())));
        Self {
            id,
            agent: Agent::new(&config, credential),
            heartbeat: Heartbeat::new(config.ttl, RandomState::new().hash_one(now), now),
            repair: Repair::new(retry, now),
            config,
            clock,
            seal,
            writes: 0,
            definition,
            presence,
            taken: false,
            token: None,
            may_stand: false,
            unanswered: false,
            succeeded,
            succeeds,
        }
    }

    /// Does what is due: registers, or repairs the registration, and lets the check pass.
    fn work(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        let token = self.agent.credential()?;
        for sighting in self.presence.take_sightings() {
            if sighting == Sighting::Absent {
                self.repair.lost(Loss::Unseen, self.clock.now());
            } else {
                self.repair.seen(self.clock.now());
                self.taken = sighting == Sighting::Taken;
            }
        }
        if self.token.as_ref().map(Secret::expose) != token.as_ref().map(Secret::expose) {
            self.repair.lost(Loss::Credential, self.clock.now());
        }
        let joined = self.register_if_due(token.as_ref(), cancel)?;
        if self.heartbeat.due() <= self.clock.now() && !self.repair.is_displaced() {
            match self.pass(token.as_ref(), cancel) {
                // The node is registered, and its check passes from the start: the next heartbeat is soon enough.
                Err(error) if joined && error.code().is_outage() => {}
                passed => passed?,
            }
            // A check that is unknown is not waited for: the node is registered again at once, unless it just was.
            self.register_if_due(token.as_ref(), cancel)?;
        }
        if self.due_step() == Some(Step::Look) {
            let looked = self.look(token.as_ref(), cancel);
            let now = self.clock.now();
            self.repair.looked(looked.as_ref().map_or(Look::Failed, Look::clone), now);
            if let Err(error) = looked {
                return Err(self.say_if_lapsed(error, now));
            }
            self.register_if_due(token.as_ref(), cancel)?;
        }
        if self.taken {
            let detail = "Consul shows another process under the local node's id";
            return Err(ProvisioningError::new(ErrorCode::NodeIdTaken, RENEWING, detail));
        }
        let alarm = self.repair.alarm(self.clock.now());
        alarm.map_or(Ok(()), |(code, detail)| Err(ProvisioningError::new(code, RENEWING, detail)))
    }

    /// What is due. Whoever is succeeded repairs nothing.
    fn due_step(&self) -> Option<Step> {
        self.repair.step(self.clock.now()).filter(|_| !self.succeeded.load(Ordering::SeqCst))
    }

    /// Whether the node joined just now.
    fn register_if_due(&mut self, token: Option<&Secret>, cancel: &CancelToken) -> Result<bool, ProvisioningError> {
        let Some(Step::Register { joins }) = self.due_step() else { return Ok(false) };
        let done = self.register(joins, token, cancel);
        let now = self.clock.now();
        match done {
            Ok(()) => {
                self.repair.registered(now);
                self.heartbeat.hurry(now);
                self.token = token.cloned();
                self.presence.set_standing(Standing::Registered);
                if let Some(former) = &self.succeeds {
                    former.store(true, Ordering::SeqCst);
                }
            }
            Err(_) => self.repair.failed(now, self.heartbeat.interval()),
        }
        done.map(|()| joins)
    }

    /// Registers the node over whatever the agent holds of it. Maintenance outlives that, also where the agent has lost
    /// it together with the node.
    fn register(&mut self, joins: bool, token: Option<&Secret>, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        let maintenance = self.repair.maintenance().map(str::to_owned);
        let (mut lost, mut left) = (false, Vec::new());
        if joins || maintenance.is_some() {
            match self.holding(token, cancel) {
                Ok(Some(holding)) if joins => {
                    self.check_rival(&holding)?;
                    left = self.left_over(token, cancel);
                }
                Ok(holding) => lost = holding.is_none(),
                // What cannot be looked at is registered over.
                Err(_) => {}
            }
        }
        let maintenance = maintenance.filter(|_| lost);
        self.write(maintenance.is_none(), token, cancel)?;
        if let Some(reason) = maintenance {
            self.put(&self.definition.maintenance_path(&reason), REGISTERING, token, cancel)?;
        }
        // Not before it: without them the instance of the earlier life would be shown for a moment, by its host's check.
        for check in &left {
            log_line!(Info, "{}: removing the check {check:?}, which an earlier registration left", self.id);
            self.put(&Definition::remove_path(check), REGISTERING, token, cancel)?;
        }
        if left.contains(&self.definition.subject().check()) { self.write(true, token, cancel) } else { Ok(()) }
    }

    /// Sends the registration. `passes`: its check begins as passing.
    fn write(&mut self, passes: bool, token: Option<&Secret>, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.writes += 1;
        let document = self.definition.document(&self.seal, self.writes, passes);
        let call = Call {
            method: Method::PUT,
            path: "/v1/agent/service/register",
            body: Some(&document),
            answer_timeout: self.config.answer_timeout,
            doing: REGISTERING,
        };
        let answer = self.agent.call(&call, token, cancel);
        self.unanswered = answer.is_err() && self.agent.was_sent();
        self.may_stand |= match &answer {
            // Refused before anything was done.
            Ok(answer) => !matches!(answer.status, 400 | 401 | 403),
            Err(_) => self.unanswered,
        };
        let answer = answer?;
        match answer.status {
            200 => Ok(()),
            _ => Err(refusal(&answer, token, ErrorCode::RegistrationFailed, REGISTERING)),
        }
    }

    /// # Errors
    /// [`ErrorCode::InvalidConfig`] where the agent holds the node for another provider, which would be overwritten.
    fn check_rival(&self, holding: &Holding) -> Result<(), ProvisioningError> {
        let (subject, service) = (self.definition.subject(), self.definition.service());
        let Some(rival) = holding.rival(subject, service).filter(|_| self.succeeds.is_none()) else { return Ok(()) };
        let detail = format!(
            "the agent holds the local node as an instance of the service {rival:?}, which another provider \
             registers; it has one instance of each id, so that each would overwrite the other"
        );
        let error = ProvisioningError::new(ErrorCode::InvalidConfig, REGISTERING, detail);
        Err(error.with_advice("give both definitions the same service, or another agent each"))
    }

    /// The checks that an earlier life left beside the registration, or under its check's id. Where nobody can tell, the
    /// registration is made over whatever is there.
    fn left_over(&mut self, token: Option<&Secret>, cancel: &CancelToken) -> Vec<String> {
        let path = checks_path(self.definition.subject());
        let left = self.get(&path, token, cancel).and_then(|answer| match answer.status {
            200 => left_over(&answer.body, self.definition.subject(), REGISTERING),
            _ => Err(unreadable(&answer, token)),
        });
        left.unwrap_or_default()
    }

    /// Looks why the node is not shown.
    ///
    /// # Errors
    /// The agent cannot be asked.
    fn look(&mut self, token: Option<&Secret>, cancel: &CancelToken) -> Result<Look, ProvisioningError> {
        let holding = match self.holding(token, cancel) {
            Ok(Some(holding)) => holding,
            Ok(None) => return Ok(Look::Lost),
            Err(error) if error.code().is_outage() => return Err(error),
            Err(_) => return Ok(Look::Mute),
        };
        let subject = self.definition.subject();
        let is_fresh = self.heartbeat.is_fresh(self.clock.now());
        let host = match holding.finding(subject, self.definition.service(), &self.seal, is_fresh) {
            Finding::Held(host) => host,
            Finding::Overwritten => {
                let own = subject.check();
                log_line!(Info, "{}: somebody else writes the check {own:?}: making it anew", self.id);
                // What is not removed now is found again by the next look.
                _ = self.put(&Definition::remove_path(&own), LOOKING, token, cancel);
                return Ok(Look::Found(Finding::Overwritten));
            }
            found => return Ok(Look::Found(found)),
        };
        let path = catalog_path(subject, &host);
        let shown = self.get(&path, token, cancel).and_then(|answer| match answer.status {
            200 => is_shown(&answer.body, self.definition.subject(), &self.seal, LOOKING),
            _ => Err(unreadable(&answer, token)),
        });
        Ok(match shown {
            Ok(true) => Look::Shown,
            Ok(false) => Look::Missing,
            // The agent answers, and the servers do not.
            Err(error) if error.code().is_outage() => Look::Failed,
            Err(_) => Look::Mute,
        })
    }

    /// What the agent holds under the node's id.
    fn holding(&mut self, token: Option<&Secret>, cancel: &CancelToken) -> Result<Option<Holding>, ProvisioningError> {
        let answer = self.get(&self.definition.subject().agent_path(), token, cancel)?;
        match answer.status {
            200 | 429 | 503 => Holding::read(&answer.body, LOOKING).map(Some),
            404 => Ok(None),
            _ => Err(unreadable(&answer, token)),
        }
    }

    /// Asks for something, for no longer than a heartbeat may wait.
    fn get(&mut self, path: &str, token: Option<&Secret>, cancel: &CancelToken) -> Result<Answer, ProvisioningError> {
        let answer_timeout = self.heartbeat.interval();
        let call = Call { method: Method::GET, path, body: None, answer_timeout, doing: LOOKING };
        self.agent.call(&call, token, cancel)
    }

    /// Has the agent do something.
    fn put(
        &mut self,
        path: &str,
        doing: &'static str,
        token: Option<&Secret>,
        cancel: &CancelToken,
    ) -> Result<(), ProvisioningError> {
        let answer_timeout = self.config.answer_timeout;
        let call = Call { method: Method::PUT, path, body: None, answer_timeout, doing };
        let answer = self.agent.call(&call, token, cancel)?;
        match answer.status {
            200 => Ok(()),
            _ => Err(refusal(&answer, token, ErrorCode::RegistrationFailed, doing)),
        }
    }

    fn pass(&mut self, token: Option<&Secret>, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        let sent = self.clock.now();
        let call = Call {
            method: Method::PUT,
            path: &self.definition.pass_path(),
            body: None,
            answer_timeout: self.heartbeat.interval(),
            doing: RENEWING,
        };
        let outcome = self.agent.call(&call, token, cancel).and_then(|answer| match answer.status {
            200 => Ok(true),
            // Consul says 404, and before 1.12 said 500, of a check that it does not know.
            404 | 500 => Ok(false),
            _ => Err(refusal(&answer, token, ErrorCode::BackendUnavailable, RENEWING)),
        });
        let now = self.clock.now();
        match outcome {
            Ok(true) => self.heartbeat.passed(sent, now),
            Ok(false) => {
                self.heartbeat.failed(sent, now);
                self.repair.lost(Loss::Agent, now);
            }
            Err(error) => {
                self.heartbeat.failed(sent, now);
                self.repair.postponed(self.heartbeat.due());
                return Err(self.say_if_lapsed(error, now));
            }
        }
        Ok(())
    }

    /// Adds how long the others have not seen the node by now.
    fn say_if_lapsed(&self, error: ProvisioningError, now: Timestamp) -> ProvisioningError {
        match self.heartbeat.lapsed(now) {
            None => error,
            Some(lapsed) => {
                let detail = format!("{}; the node's check has been critical for {lapsed:.0?}", error.detail());
                ProvisioningError::new(error.code(), RENEWING, detail)
            }
        }
    }

    fn deregister(&mut self, budget: Budget) -> Result<(), ProvisioningError> {
        // A token that cannot be read now was read before: the last one is used.
        let token = self.agent.credential()?;
        let call = Call {
            method: Method::PUT,
            path: &self.definition.deregister_path(),
            body: None,
            answer_timeout: budget.left(),
            doing: LEAVING,
        };
        let answer = self.agent.call(&call, token.as_ref(), &CancelToken::new())?;
        match answer.status {
            // Whoever is unknown is gone.
            200 | 404 => Ok(()),
            500 if answer.excerpt(token.as_ref()).starts_with("Unknown service") => Ok(()),
            _ => Err(refusal(&answer, token.as_ref(), ErrorCode::BackendUnavailable, LEAVING)),
        }
    }
}

impl Registration for ConsulRegistration {
    fn join(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.repair.demanded(self.clock.now());
        self.work(cancel).map_err(|error| error.with_provider(&self.id))
    }

    fn describe(&mut self, node: &ClusterNode) -> Result<(), ProvisioningError> {
        let (service, config) = (self.definition.service().to_owned(), &self.config);
        let definition = Definition::new(node, &service, config.ttl, config.deregister_after);
        self.definition = definition.map_err(|error| error.with_provider(&self.id))?;
        Ok(())
    }

    fn renew_interval(&self) -> Duration {
        // Whoever is succeeded repairs nothing, and keeps the heart beating until it is told to retire.
        let repair = self.repair.due().filter(|_| !self.succeeded.load(Ordering::SeqCst));
        let due = repair.map_or(self.heartbeat.due(), |due| due.min(self.heartbeat.due()));
        due.since(self.clock.now()).max(SHORTEST)
    }

    fn early_renewal(&self) -> Receiver<()> {
        self.presence.absences().clone()
    }

    fn renew(&mut self, cancel: &CancelToken) -> Result<(), ProvisioningError> {
        self.work(cancel)
    }

    fn leave(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        self.presence.set_standing(Standing::Left);
        let budget = Budget::of(budget);
        // What has overwritten the registration is not its to remove.
        if self.may_stand && !self.repair.is_displaced() { self.remove(budget) } else { Ok(()) }
    }

    fn retire(&mut self, budget: Duration) -> Result<(), ProvisioningError> {
        self.presence.set_standing(Standing::Left);
        let budget = Budget::of(budget);
        if !self.may_stand {
            return Ok(());
        }
        let Some(host) = self.host(budget, RETIRING)? else { return Ok(()) };
        let mut pause = FIRST_LOOK;
        loop {
            let looked = self.is_elsewhere(&host, budget);
            if matches!(looked, Ok(true)) {
                return self.remove(budget);
            }
            if budget.left() <= pause {
                let why = looked.err().map(|error| format!(" ({error})")).unwrap_or_default();
                log_line!(
                    Info,
                    "{}: Consul does not show the local node on another host than {host}{why}: its former registration \
                     there is left to expire",
                    self.id
                );
                return Ok(());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }
}

impl ConsulRegistration {
    /// Deregisters, and makes sure of it where a registration may be carried out late.
    fn remove(&mut self, budget: Budget) -> Result<(), ProvisioningError> {
        self.deregister(budget)?;
        if self.unanswered {
            thread::sleep(SETTLING.min(budget.left()));
            if self.host(budget, LEAVING)?.is_some() {
                self.deregister(budget)?;
            }
        }
        (self.may_stand, self.unanswered) = (false, false);
        Ok(())
    }

    /// The host on which the agent holds what is under our seal; `None` if it holds something else, or nothing.
    fn host(&mut self, budget: Budget, doing: &'static str) -> Result<Option<String>, ProvisioningError> {
        let path = self.definition.subject().agent_path();
        let (answer, token) = self.ask(&path, budget, doing)?;
        match answer.status {
            200 | 429 | 503 => self.definition.subject().host(&answer.body, &self.seal, doing),
            404 => Ok(None),
            _ => Err(refusal(&answer, token.as_ref(), ErrorCode::BackendUnavailable, doing)),
        }
    }

    /// Whether the catalog shows the successor on another host.
    fn is_elsewhere(&mut self, host: &str, budget: Budget) -> Result<bool, ProvisioningError> {
        let path = self.definition.subject().catalog_path(self.definition.service());
        let (answer, token) = self.ask(&path, budget, RETIRING)?;
        match answer.status {
            200 => self.definition.subject().is_elsewhere(&answer.body, &self.seal, host, RETIRING),
            _ => Err(refusal(&answer, token.as_ref(), ErrorCode::BackendUnavailable, RETIRING)),
        }
    }

    fn ask(
        &mut self,
        path: &str,
        budget: Budget,
        doing: &'static str,
    ) -> Result<(Answer, Option<Secret>), ProvisioningError> {
        let token = self.agent.credential()?;
        let call = Call { method: Method::GET, path, body: None, answer_timeout: budget.left(), doing };
        Ok((self.agent.call(&call, token.as_ref(), &CancelToken::new())?, token))
    }
}

/// An answer that does not tell.
fn unreadable(answer: &Answer, token: Option<&Secret>) -> ProvisioningError {
    let code = if answer.status >= 500 { ErrorCode::BackendUnavailable } else { ErrorCode::MalformedAnswer };
    refusal(answer, token, code, LOOKING)
}
