mod ends;
mod gap;
mod member;
mod model;
mod pages;
mod signs;
mod trust;

use super::*;
use crate::provider::MemberChange;
use crate::providers::kubernetes::object::{Content, Object};
use crate::topology::Members;

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(5);

/// A request under way.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    List { number: u64, next: Option<String>, paged: bool },
    Watch { number: u64, version: String, timeout: Duration },
}

/// A machine whose requests are answered by hand.
struct Sim {
    machine: Machine,
    now: Timestamp,
    standing: Standing,
    asked: Option<Asked>,
    probing: bool,
    /// Whether the probe under way asks for the server's version, and what that is, if it is told.
    asks_version: bool,
    present: Option<&'static str>,
    events: Vec<ProviderEvent>,
    sightings: Vec<Sighting>,
    sent: Vec<Timestamp>,
    probes: usize,
    aborts: usize,
    rereads: usize,
}

fn settings() -> Settings {
    Settings {
        probe_interval: INTERVAL,
        answer_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(2),
        list_interval: None,
        retry: RetryPolicy::default(),
    }
}

fn node(id: &str) -> Arc<ClusterNode> {
    Arc::new(ClusterNode::builder(id, "h", 1).build().unwrap())
}

fn set(ids: &[&str]) -> Members {
    ids.iter().map(|id| ClusterNode::builder(*id, "h", 1).build().unwrap()).collect()
}

/// A pod that is a member.
fn pod(id: &str) -> Object {
    Object { name: id.into(), uid: "1".into(), content: Content::Pod(Some(node(id))) }
}

fn page(version: &str, ids: &[&str], next: Option<&str>) -> Page {
    let objects = ids.iter().map(|id| pod(id)).collect();
    Page { objects, skipped: 0, resource_version: version.into(), next: next.map(String::from) }
}

fn added(id: &str, version: &str) -> Line {
    Line::Upsert(pod(id), version.into())
}

fn deleted(id: &str, version: &str) -> Line {
    Line::Delete { name: id.into(), uid: Some("1".into()), resource_version: version.into() }
}

fn bookmark(version: &str) -> Line {
    Line::Bookmark(version.into())
}

fn broken(code: ErrorCode) -> ProvisioningError {
    ProvisioningError::new(code, "testing", "broken")
}

fn failure(kind: FailureKind) -> Failure {
    let code = match kind {
        FailureKind::Unauthorized | FailureKind::Forbidden => ErrorCode::AccessDenied,
        _ => ErrorCode::BackendUnavailable,
    };
    Failure { kind, error: broken(code), retry_after: None }
}

/// An event in short.
fn tell(event: &ProviderEvent) -> String {
    let change = |change: &MemberChange| match change {
        MemberChange::Upsert(node) => format!("+{}", node.id()),
        MemberChange::Remove(id) => format!("-{id}"),
    };
    match event {
        ProviderEvent::Snapshot { members, revision, skipped } => {
            let ids: Vec<_> = members.iter().map(|node| node.id().as_str()).collect();
            let skipped = if *skipped > 0 { format!(" skipped {skipped}") } else { String::new() };
            format!("[{}]@{revision:?}{skipped}", ids.join(" "))
        }
        ProviderEvent::Changes { changes, revision } => {
            format!("{}@{revision:?}", changes.iter().map(change).collect::<Vec<_>>().join(" "))
        }
        ProviderEvent::Heartbeat { current } => if *current { "current" } else { "alive" }.into(),
        ProviderEvent::Degraded { error } => error.code().as_str().into(),
        other => format!("{other:?}"),
    }
}

impl Sim {
    fn new() -> Self {
        Self::with(settings(), None, Standing::Client, 1)
    }

    fn with(settings: Settings, local: Option<&str>, standing: Standing, seed: u64) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut sim = Self {
            machine: Machine::new(settings, local.map(node), seed, now),
            now,
            standing,
            asked: None,
            probing: false,
            asks_version: false,
            present: None,
            events: Vec::new(),
            sightings: Vec::new(),
            sent: Vec::new(),
            probes: 0,
            aborts: 0,
            rereads: 0,
        };
        sim.drain();
        sim
    }

    /// A machine whose watches have proved themselves, that has listed these members and watches from that version on.
    fn settled(ids: &[&str], version: &str) -> Self {
        let mut sim = Self::new();
        sim.machine.trust.proved();
        sim.page(page(version, ids, None));
        sim.open();
        assert_eq!(sim.told(), [format!("[{}]@{version}", ids.join(" "))]);
        sim
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.output() {
            match output {
                Output::List { number, next, paged } => {
                    assert!(self.asked.is_none(), "two requests at once");
                    self.asked = Some(Asked::List { number, next, paged });
                    self.sent.push(self.now);
                }
                Output::Watch { number, resource_version, timeout } => {
                    assert!(self.asked.is_none(), "two requests at once");
                    self.asked = Some(Asked::Watch { number, version: resource_version.to_string(), timeout });
                    self.sent.push(self.now);
                }
                Output::Probe { version } => {
                    assert!(!self.probing, "two probes at once");
                    (self.probing, self.asks_version) = (true, version);
                    self.probes += 1;
                }
                Output::Abort => {
                    assert!(self.asked.take().is_some(), "nothing to abort");
                    self.aborts += 1;
                }
                Output::RereadToken => self.rereads += 1,
                Output::Sighted(sighting) => self.sightings.push(sighting),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(self.now, self.standing, input);
        self.drain();
        assert!(self.machine.timeout() > self.now, "a timer that is due already: a hot loop");
    }

    fn number(&self) -> u64 {
        match self.asked.as_ref().expect("a request is under way") {
            Asked::List { number, .. } | Asked::Watch { number, .. } => *number,
        }
    }

    fn page(&mut self, page: Page) {
        let number = self.number();
        self.asked = None;
        self.input(Input::Page(number, Ok(page)));
    }

    fn open(&mut self) {
        let number = self.number();
        self.input(Input::Opened(number, Ok(())));
    }

    /// A line, after which no more are at hand.
    fn line(&mut self, line: Line) {
        self.part(line);
        self.flush();
    }

    /// A line among others.
    fn part(&mut self, line: Line) {
        let number = self.number();
        self.input(Input::Line(number, line));
    }

    fn flush(&mut self) {
        self.machine.flush(self.now);
        self.drain();
    }

    /// The request under way fails: the list, or the watch before it was opened.
    fn fail(&mut self, failure: Failure) {
        let input = match self.asked.take().expect("a request is under way") {
            Asked::List { number, .. } => Input::Page(number, Err(failure)),
            Asked::Watch { number, .. } => Input::Opened(number, Err(failure)),
        };
        self.input(input);
    }

    /// The open watch ends.
    fn close(&mut self, result: Result<(), Failure>) {
        let number = self.number();
        self.asked = None;
        self.input(Input::Closed(number, result));
    }

    fn probed(&mut self, result: Result<(), ProvisioningError>) {
        assert!(std::mem::take(&mut self.probing), "a probe is under way");
        let version = self.present.filter(|_| self.asks_version).map(str::to_owned);
        self.input(Input::Probe(result.map(|()| version)));
    }

    /// Time passes; probes are answered as told, or never.
    fn pass(&mut self, duration: Duration, probe: Option<bool>) {
        let end = self.now + duration;
        loop {
            if self.probing
                && let Some(good) = probe
            {
                self.probed(if good { Ok(()) } else { Err(broken(ErrorCode::Timeout)) });
            }
            let next = self.machine.timeout();
            if next > end {
                break;
            }
            self.now = next;
            self.input(Input::Timer);
        }
        self.now = end;
    }

    /// Until the next request is sent; how long that took.
    fn paused(&mut self) -> Duration {
        assert_eq!(self.asked, None);
        let since = self.now;
        while self.asked.is_none() {
            self.now = self.machine.timeout();
            self.input(Input::Timer);
            assert!(self.now.since(since) < Duration::from_secs(400), "nothing is asked");
        }
        self.now.since(since)
    }

    /// As [`paused`](Self::paused), unless a request is under way.
    fn paused_if_idle(&mut self) {
        if self.asked.is_none() {
            self.paused();
        }
    }

    /// What was reported since the last call.
    fn told(&mut self) -> Vec<String> {
        self.events.drain(..).map(|event| tell(&event)).collect()
    }

    /// The same without signs of life that say nothing.
    fn news(&mut self) -> Vec<String> {
        self.told().into_iter().filter(|event| event != "alive").collect()
    }

    /// From which version the watch under way goes on; `None`: it is the first page of a list.
    fn watches(&self) -> Option<&str> {
        match self.asked.as_ref().expect("a request is under way") {
            Asked::List { next, .. } => {
                assert_eq!(next, &None);
                None
            }
            Asked::Watch { version, .. } => Some(version),
        }
    }
}
