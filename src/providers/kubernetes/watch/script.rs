//! The machine driven by any bytes, as a server, a network and a clock that do whatever they like: for the crate's own
//! tests and its fuzz target. What has to hold is checked after each step.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Input, Machine, Output, Phase, Settings};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::provider::{MemberChange, ProviderEvent, RetryPolicy, SIGN_OF_LIFE};
use crate::providers::kubernetes::object::{Content, Failure, FailureKind, Line, Object, Page};
use crate::providers::presence::{Sighting, Standing};
use crate::topology::{ClusterNode, NodeId};

/// The longest script, in steps.
const STEPS: usize = 2000;
/// How long may pass at once.
const TIMES: [u64; 8] = [1, 50, 400, 1000, 5000, 31_000, 151_000, 601_000];
const KINDS: [FailureKind; 8] = [
    FailureKind::Gone,
    FailureKind::AheadOfServer,
    FailureKind::BadRequest,
    FailureKind::Unauthorized,
    FailureKind::Forbidden,
    FailureKind::Other,
    FailureKind::Internal,
    FailureKind::Unanswered,
];

/// How often a script has reached what is worth reaching.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    /// Whole sets that were told.
    pub(crate) snapshots: usize,
    /// Events with changes.
    pub(crate) changes: usize,
    /// Watches that were opened.
    pub(crate) watches: usize,
    /// Requests that were broken off.
    pub(crate) aborts: usize,
}

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn id(&mut self) -> String {
        format!("n{}", self.next() % 6)
    }

    fn version(&mut self) -> String {
        match self.next() {
            0 => String::new(),
            1 => String::from("opaque"),
            version => version.to_string(),
        }
    }

    fn failure(&mut self) -> Failure {
        let (kind, after) = (usize::from(self.next()) % KINDS.len(), self.next());
        let kind = KINDS.get(kind).copied().unwrap_or(FailureKind::Other);
        let retry_after = after.is_multiple_of(4).then(|| Duration::from_secs(u64::from(after) * 20));
        Failure { kind, error: broken(), retry_after }
    }

    fn result(&mut self) -> Result<(), Failure> {
        if self.next().is_multiple_of(2) { Ok(()) } else { Err(self.failure()) }
    }

    fn object(&mut self) -> Object {
        let (name, life) = (self.id(), self.next() % 3);
        let node = ClusterNode::builder(self.id(), "h", 1).incarnation(u64::from(life)).build().ok();
        let content = Content::Pod(node.filter(|_| life > 0 || self.next().is_multiple_of(2)).map(Into::into));
        Object { name: name.into(), uid: life.to_string().into(), content }
    }

    fn page(&mut self) -> Page {
        let (count, more) = (self.next() % 5, self.next().is_multiple_of(3));
        Page {
            objects: (0..count).map(|_| self.object()).collect(),
            skipped: usize::from(self.next().is_multiple_of(16)),
            resource_version: self.version(),
            next: more.then(|| String::from("more")),
        }
    }

    fn line(&mut self) -> Line {
        match self.next() % 8 {
            0..=2 => Line::Upsert(self.object(), self.version()),
            3 => {
                let (name, life) = (self.id(), self.next() % 4);
                let uid = (life < 3).then(|| life.to_string().into());
                Line::Delete { name: name.into(), uid, resource_version: self.version() }
            }
            4 => Line::Bookmark(self.version()),
            5 => Line::Unusable(None),
            6 => Line::Lost(Some(self.version())),
            _ => Line::Error(self.failure()),
        }
    }
}

fn broken() -> ProvisioningError {
    ProvisioningError::new(ErrorCode::BackendUnavailable, "following a script", "broken")
}

struct Run {
    machine: Machine,
    now: Timestamp,
    begun: Timestamp,
    standing: Standing,
    /// The number of the request under way.
    asked: Option<u64>,
    probing: bool,
    told: Option<BTreeSet<String>>,
    last_event: Timestamp,
    /// How many requests there were but for further pages.
    requests: u64,
    reached: Reached,
}

/// Follows the script.
///
/// # Errors
/// What does not hold, in words.
pub(crate) fn follow(script: &[u8]) -> Result<Reached, String> {
    let mut bytes = Bytes(script.iter());
    let now = Timestamp::from_millis(1_000_000);
    let local = (bytes.next() % 2 == 1).then(|| ClusterNode::builder("n0", "h", 1).incarnation(1).build().ok());
    let standing = if local.is_some() { Standing::Registered } else { Standing::Client };
    let settings = Settings {
        probe_interval: Duration::from_secs(6),
        answer_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(2),
        list_interval: Some(Duration::from_secs(1800)),
        retry: RetryPolicy::default(),
    };
    let mut run = Run {
        machine: Machine::new(settings, local.flatten().map(Into::into), u64::from(bytes.next()), now),
        now,
        begun: now,
        standing,
        asked: None,
        probing: false,
        told: None,
        last_event: now,
        requests: 0,
        reached: Reached::default(),
    };
    run.drain()?;
    for _ in 0..STEPS {
        let Some(step) = bytes.0.next() else { break };
        run.step(step % 10, &mut bytes)?;
    }
    Ok(run.reached)
}

impl Run {
    fn step(&mut self, step: u8, bytes: &mut Bytes<'_>) -> Result<(), String> {
        let number = match bytes.next() % 16 {
            // Of a request that is over.
            0 => 0,
            _ => self.asked.unwrap_or_default(),
        };
        let ends = self.asked == Some(number);
        let listing = matches!(self.machine.phase, Phase::Listing(_));
        match step {
            0 => {
                let time = TIMES.get(usize::from(bytes.next()) % TIMES.len()).copied().unwrap_or_default();
                self.pass(Duration::from_millis(time))
            }
            1 if listing => {
                let page = if bytes.next().is_multiple_of(4) { Err(bytes.failure()) } else { Ok(bytes.page()) };
                self.asked = self.asked.filter(|_| !ends);
                self.input(Input::Page(number, page))
            }
            2 if !listing => {
                let result = bytes.result();
                self.asked = self.asked.filter(|_| !ends || result.is_ok());
                self.input(Input::Opened(number, result))
            }
            3..=5 if !listing => self.input(Input::Line(number, bytes.line())),
            6 if !listing => {
                let result = bytes.result();
                self.asked = self.asked.filter(|_| !ends);
                self.input(Input::Closed(number, result))
            }
            7 if self.probing => {
                self.probing = false;
                let result = match bytes.next() % 4 {
                    0 => Err(broken()),
                    1 => Ok(None),
                    _ => Ok(Some(bytes.version())),
                };
                self.input(Input::Probe(result))
            }
            _ => {
                self.machine.flush(self.now);
                self.drain()
            }
        }
    }

    /// Time passes, in which nobody answers.
    fn pass(&mut self, duration: Duration) -> Result<(), String> {
        let end = self.now + duration;
        while self.machine.timeout() <= end {
            self.now = self.machine.timeout();
            self.input(Input::Timer)?;
        }
        self.now = end;
        Ok(())
    }

    fn input(&mut self, input: Input) -> Result<(), String> {
        self.machine.handle(self.now, self.standing, input);
        self.drain()?;
        if self.machine.timeout() <= self.now {
            return Err("a timer is due already: a hot loop".to_owned());
        }
        if self.now.since(self.last_event) > SIGN_OF_LIFE {
            return Err("no sign of life in time".to_owned());
        }
        // Each pause is longer than half a second, and leads to a list and its watch at the most.
        let seconds = self.now.since(self.begun).as_secs();
        if self.requests > 8 + 4 * seconds {
            return Err(format!("{} requests in {seconds} s", self.requests));
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        while let Some(output) = self.machine.output() {
            match output {
                Output::List { number, ref next, .. } => {
                    self.ask(number, next.is_none())?;
                }
                Output::Watch { number, resource_version, .. } => {
                    if resource_version.is_empty() {
                        return Err("a watch from nowhere".to_owned());
                    }
                    self.reached.watches += 1;
                    self.ask(number, true)?;
                }
                Output::Probe { .. } if std::mem::replace(&mut self.probing, true) => {
                    return Err("two probes at once".to_owned());
                }
                Output::Abort => {
                    self.reached.aborts += 1;
                    if self.asked.take().is_none() {
                        return Err("nothing to break off".to_owned());
                    }
                }
                Output::Sighted(Sighting::Absent | Sighting::Present | Sighting::Taken)
                | Output::Probe { .. }
                | Output::RereadToken => {}
                Output::Event(event) => self.take(&event)?,
            }
        }
        self.compare()
    }

    fn ask(&mut self, number: u64, counts: bool) -> Result<(), String> {
        self.requests += u64::from(counts);
        match self.asked.replace(number) {
            None => Ok(()),
            Some(_) => Err("two requests at once".to_owned()),
        }
    }

    fn take(&mut self, event: &ProviderEvent) -> Result<(), String> {
        self.last_event = self.now;
        match event {
            ProviderEvent::Snapshot { members, .. } => {
                self.reached.snapshots += 1;
                self.told = Some(members.iter().map(|node| node.id().to_string()).collect());
            }
            ProviderEvent::Changes { changes, .. } => {
                self.reached.changes += 1;
                let Some(told) = &mut self.told else { return Err("changes come before a snapshot".to_owned()) };
                for change in changes {
                    match change {
                        MemberChange::Upsert(node) => _ = told.insert(node.id().to_string()),
                        MemberChange::Remove(id) if told.remove(NodeId::as_str(id)) => {}
                        MemberChange::Remove(id) => return Err(format!("{id} goes, who was not there")),
                    }
                }
            }
            ProviderEvent::Heartbeat { current: true } if self.told.is_none() => {
                return Err("what is told to be current was never told".to_owned());
            }
            ProviderEvent::Terminated(_) => return Err("the machine never ends a stream".to_owned()),
            _ => {}
        }
        Ok(())
    }

    /// What has been told amounts to the machine's own members, but for what waits to be told.
    fn compare(&self) -> Result<(), String> {
        let Some(told) = self.told.as_ref().filter(|_| self.machine.untold.until().is_none()) else { return Ok(()) };
        let members = self.machine.directory.members();
        if told.iter().map(String::as_str).eq(members.iter().map(|node| node.id().as_str())) {
            return Ok(());
        }
        Err(format!("told are {told:?}, there are {members:?}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn kubernetes_point_12_whatever_server_and_network_do_what_is_told_amounts_to_the_members(
            script in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            prop_assert_eq!(follow(&script).map(drop), Ok(()));
        }
    }

    #[test]
    fn kubernetes_point_12_scripts_reach_lists_watches_and_changes() {
        // A list of one pod; its watch, opened; a pod that comes; the end.
        let script = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7, 2, 1, 0, 3, 1, 0, 2, 1, 3, 9, 8, 1, 6, 1, 0];
        let reached = follow(&script).unwrap();
        assert!(reached.snapshots == 1 && reached.watches >= 1 && reached.changes == 1, "{reached:?}");
    }
}
