//! The machine against a model of an API server, through seeded faults: restarts, freezes, compactions, dead connections,
//! refusals, watches that end or break, events that are lost, backups that are restored, servers without bookmarks, and
//! proxies that let nothing of a watch through but its head, or not even that.
//!
//! What has to hold: what is told in snapshots and changes always amounts to the machine's own members; no snapshot is
//! part of a list; nothing is told to be current for long that is not; after the faults the members are the server's; and
//! the server is not asked more often than agreed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::topology::NodeId;

const STEP: Duration = Duration::from_millis(50);
const FAULTS: Duration = Duration::from_secs(300);
/// A refused restart may be waited out for a minute; a dead connection shows after two and a half, and what is lost then
/// is listed within another.
const PEACE: Duration = Duration::from_secs(300);
const PAGE: usize = 2;

/// What happens later.
#[derive(Clone, Copy, Debug)]
enum Later {
    Up,
    Thaw,
    Grant,
    Expire,
}

/// What does not come through of any watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldBack {
    /// Everything but its head.
    Lines,
    /// Its head, too.
    All,
}

/// A list as the server holds it for its tokens.
struct OpenList {
    ids: Vec<String>,
    version: u64,
}

struct World {
    machine: Machine,
    seed: u64,
    dice: Jitter,
    now: Timestamp,
    later: Vec<(Timestamp, Later)>,
    born: usize,
    /// The pods, and the version at which each was made: its life.
    pods: BTreeMap<String, u64>,
    version: u64,
    /// What is still known of the past: from which version on, and what happened then.
    oldest: u64,
    history: Vec<(u64, String, bool, u64)>,
    /// Every state that there ever was.
    states: BTreeSet<Vec<String>>,
    lists: BTreeMap<String, OpenList>,
    /// A backup, and whether one was restored since the last list.
    backup: Option<BTreeMap<String, u64>>,
    restored: bool,
    down: bool,
    frozen: bool,
    refused: Option<FailureKind>,
    bookmarks: bool,
    /// How much of a watch a proxy holds back.
    held_back: Option<HeldBack>,
    asked: Option<Asked>,
    opened: bool,
    /// The connection of the open watch is cut off without a sign.
    dead: bool,
    /// Up to which version the open watch has been served, when it ends, and when its next bookmark is due.
    served: u64,
    ends: Timestamp,
    mark: Timestamp,
    /// When the probe under way was sent, and whether it asks for the version.
    probe: Option<(Timestamp, bool)>,
    told: Option<BTreeSet<String>>,
    current_at: Option<Timestamp>,
    /// Since when what is told is not what there is.
    stale: Option<Timestamp>,
    requests: Vec<Timestamp>,
    last_event: Timestamp,
    story: Vec<String>,
    fired: BTreeMap<&'static str, usize>,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut world = Self {
            machine: Machine::new(settings(), None, seed, now),
            seed,
            dice: Jitter::new(seed ^ 0xabcd),
            now,
            later: Vec::new(),
            born: 0,
            pods: BTreeMap::new(),
            version: 1_000_000,
            oldest: 1_000_000,
            history: Vec::new(),
            states: BTreeSet::from([Vec::new()]),
            lists: BTreeMap::new(),
            backup: None,
            restored: false,
            down: false,
            frozen: false,
            refused: None,
            bookmarks: !seed.is_multiple_of(3),
            held_back: match seed % 7 {
                1 => Some(HeldBack::Lines),
                2 => Some(HeldBack::All),
                _ => None,
            },
            asked: None,
            opened: false,
            dead: false,
            served: 0,
            ends: now,
            mark: now,
            probe: None,
            told: None,
            current_at: None,
            stale: None,
            requests: Vec::new(),
            last_event: now,
            story: Vec::new(),
            fired: BTreeMap::new(),
        };
        for _ in 0..5 {
            world.join();
        }
        world.drain();
        world
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice.next() % below
    }

    fn fire(&mut self, what: &'static str) {
        *self.fired.entry(what).or_default() += 1;
        self.story.push(format!("{:?} {what}", self.now));
    }

    fn after(&mut self, from: u64, to: u64, what: Later) {
        let millis = from + self.roll(to - from);
        self.later.push((self.now + Duration::from_millis(millis), what));
    }

    /// What happened last.
    fn ending(&self) -> String {
        format!("seed {}: {}", self.seed, self.story[self.story.len().saturating_sub(60)..].join("\n"))
    }

    fn change(&mut self, id: String, there: bool) {
        self.version += 1 + self.dice.next() % 3;
        let life = if there { self.version } else { self.pods.remove(&id).unwrap() };
        if there {
            self.pods.insert(id.clone(), life);
        }
        self.history.push((self.version, id, there, life));
        self.states.insert(self.pods.keys().cloned().collect());
    }

    fn join(&mut self) {
        // Names are used again.
        let id = format!("n{}", self.born % 12);
        self.born += 1;
        if !self.pods.contains_key(&id) {
            self.change(id, true);
        }
    }

    fn leave(&mut self) {
        if !self.pods.is_empty() {
            let which = self.roll(self.pods.len() as u64) as usize;
            let id = self.pods.keys().nth(which).unwrap().clone();
            self.change(id, false);
        }
    }

    fn object(id: &str, life: u64) -> Object {
        Object { uid: life.to_string().into(), ..pod(id) }
    }

    fn compact(&mut self) {
        self.oldest = self.version;
        // What an open watch has not been sent yet is on its way to it.
        let kept = if self.opened { self.served } else { self.version };
        self.history.retain(|(at, ..)| *at > kept);
        self.lists.clear();
    }

    /// The request under way comes to its end.
    fn end(&mut self, result: Result<(), Failure>) {
        self.dead = false;
        let opened = std::mem::take(&mut self.opened);
        match (self.asked.take(), result) {
            (Some(Asked::List { number, .. }), Err(failure)) => self.input(Input::Page(number, Err(failure))),
            (Some(Asked::Watch { number, .. }), Err(failure)) if !opened => {
                self.input(Input::Opened(number, Err(failure)));
            }
            (Some(Asked::Watch { number, .. }), result) => self.input(Input::Closed(number, result)),
            (asked, Ok(())) => self.asked = asked,
            (None, _) => {}
        }
    }

    fn fault(&mut self) {
        let serves = !self.down && !self.frozen;
        match self.roll(17) {
            0..=2 => {
                self.fire("joins");
                self.join();
            }
            3 | 4 => {
                self.fire("leaves");
                self.leave();
            }
            5 => {
                self.fire("rolls over");
                for _ in 0..6 {
                    self.leave();
                    self.join();
                }
            }
            6 => {
                self.fire("compacts");
                self.compact();
            }
            7 if serves => {
                self.fire("restarts");
                self.down = true;
                self.after(500, 20_000, Later::Up);
                if self.roll(2) == 0 {
                    self.compact();
                }
                self.end(Err(failure(FailureKind::Other)));
            }
            8 if serves => {
                self.fire("freezes");
                self.frozen = true;
                self.after(500, 20_000, Later::Thaw);
            }
            9 if self.opened => {
                self.fire("ends the watch");
                self.end(Ok(()));
            }
            10 if self.opened => {
                self.fire("breaks the watch");
                self.end(Err(failure(FailureKind::Other)));
            }
            11 if self.opened => {
                self.fire("cuts the watch off");
                self.dead = true;
            }
            12 if self.opened && !self.dead && serves => {
                let kinds = [FailureKind::Gone, FailureKind::AheadOfServer, FailureKind::Other, FailureKind::Forbidden];
                let kind = kinds[self.roll(4) as usize];
                self.fire("sends an error");
                let number = self.number();
                self.input(Input::Line(number, Line::Error(failure(kind))));
            }
            13 => {
                let kinds = [FailureKind::Unauthorized, FailureKind::Forbidden, FailureKind::AheadOfServer];
                self.fire("refuses");
                self.refused = Some(kinds[self.roll(3) as usize]);
                self.after(1000, 15_000, Later::Grant);
            }
            14 if self.opened && !self.dead && serves => {
                self.fire("sends what cannot be used");
                let number = self.number();
                self.input(Input::Line(number, Line::Unusable(None)));
            }
            15 => self.backup = Some(self.pods.clone()),
            // Nothing shows it once the versions have been reached again.
            16 if serves => {
                if let Some(pods) = self.backup.take() {
                    self.fire("restores a backup");
                    let version = self.version - 10_000;
                    (self.pods, self.version, self.oldest, self.restored) = (pods, version, version, true);
                    self.history.clear();
                    self.lists.clear();
                    self.down = true;
                    self.after(500, 20_000, Later::Up);
                    self.end(Err(failure(FailureKind::Other)));
                }
            }
            _ => {}
        }
    }

    fn happens(&mut self, what: Later) {
        match what {
            Later::Up => self.down = false,
            Later::Thaw => self.frozen = false,
            Later::Grant => self.refused = None,
            Later::Expire => self.compact(),
        }
    }

    fn number(&self) -> u64 {
        match self.asked.as_ref().unwrap() {
            Asked::List { number, .. } | Asked::Watch { number, .. } => *number,
        }
    }

    fn serve_list(&mut self, number: u64, next: Option<String>, paged: bool) {
        self.asked = None;
        let (token, from) = match next {
            None => {
                let ids = self.pods.keys().cloned().collect();
                let token = format!("{number}");
                self.lists.insert(token.clone(), OpenList { ids, version: self.version });
                (token, 0)
            }
            Some(next) => {
                let (token, from) = next.split_once('+').unwrap();
                (token.to_owned(), from.parse().unwrap())
            }
        };
        let Some(held) = self.lists.get(&token) else {
            self.fire("a page has expired");
            return self.input(Input::Page(number, Err(failure(FailureKind::Gone))));
        };
        let size = if paged { PAGE } else { usize::MAX };
        let ids: Vec<_> = held.ids.iter().skip(from).take(size).cloned().collect();
        let rest = held.ids.len() - from - ids.len();
        let next = (rest > 0).then(|| format!("{token}+{}", from + PAGE));
        let version = held.version;
        self.restored &= rest > 0;
        // The life of a pod that is gone meanwhile is of no matter: its deletion follows by the watch, or a list does.
        let objects = ids.iter().map(|id| {
            let gone = self.history.iter().find(|(at, of, there, _)| *at > version && of == id && !there);
            let life = gone.map(|(.., life)| *life).or_else(|| self.pods.get(id).copied());
            Self::object(id, life.unwrap_or_default())
        });
        let objects = objects.collect();
        self.input(Input::Page(number, Ok(Page { objects, skipped: 0, resource_version: version.to_string(), next })));
    }

    /// Whether lists have to stand in for watches for lack of any line.
    fn lives_on_lists(&self) -> bool {
        self.held_back.is_some() || !self.bookmarks
    }

    fn serve_watch(&mut self, number: u64, version: &str, timeout: Duration) {
        match self.held_back {
            Some(HeldBack::Lines) if !std::mem::replace(&mut self.opened, true) => {
                return self.input(Input::Opened(number, Ok(())));
            }
            Some(_) => return,
            None => {}
        }
        if !self.opened {
            self.served = version.parse().unwrap();
            if self.served < self.oldest {
                return match self.roll(3) {
                    0 => {
                        self.fire("410 as a status");
                        self.end(Err(failure(FailureKind::Gone)));
                    }
                    1 => {
                        self.fire("410 as a line");
                        self.opened = true;
                        self.input(Input::Opened(number, Ok(())));
                        self.input(Input::Line(number, Line::Error(failure(FailureKind::Gone))));
                    }
                    _ => {
                        self.fire("410 as an empty end");
                        self.opened = true;
                        self.input(Input::Opened(number, Ok(())));
                        self.end(Ok(()));
                    }
                };
            }
            (self.opened, self.ends) = (true, self.now + timeout);
            // The last one comes shortly before the end.
            self.mark = self.now + Duration::from_secs(60).min(timeout - 2 * SECOND);
            self.input(Input::Opened(number, Ok(())));
        }
        let news: Vec<_> = self.history.iter().filter(|(at, ..)| *at > self.served).cloned().collect();
        for (at, id, there, life) in news {
            self.served = at;
            let line = if self.roll(25) == 0 {
                self.fire("loses an event");
                Line::Lost(None)
            } else if there {
                Line::Upsert(Self::object(&id, life), at.to_string())
            } else {
                Line::Delete { name: id.into(), uid: Some(life.to_string().into()), resource_version: at.to_string() }
            };
            self.input(Input::Line(number, line));
        }
        // A version of the future is waited for in silence.
        if self.bookmarks && self.now >= self.mark && self.version >= self.served {
            self.fire("bookmarks");
            self.mark = self.now + Duration::from_secs(60);
            self.served = self.version;
            self.input(Input::Line(number, bookmark(&self.version.to_string())));
        }
        self.machine.flush(self.now);
        self.drain();
        if self.now >= self.ends {
            self.fire("the watch's time is over");
            self.end(Ok(()));
        }
    }

    fn serve(&mut self) {
        if self.down {
            self.end(Err(failure(FailureKind::Other)));
        }
        if self.frozen || self.dead {
            return;
        }
        if let (Some(kind), Some(_), false) = (self.refused, &self.asked, self.opened) {
            return self.end(Err(failure(kind)));
        }
        match self.asked.clone() {
            // A page takes a while, so that things happen between two.
            Some(Asked::List { number, next, paged, .. }) if self.roll(3) == 0 => {
                self.serve_list(number, next, paged);
            }
            Some(Asked::Watch { number, version, timeout }) => self.serve_watch(number, &version, timeout),
            _ => {}
        }
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(self.now, Standing::Client, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.output() {
            match output {
                Output::List { number, next, paged } => {
                    assert!(self.asked.is_none(), "two requests at once: {}", self.ending());
                    self.fire(if next.is_some() { "asks for a page" } else { "asks for a list" });
                    if !paged {
                        self.fire("asks for a list in one piece");
                    }
                    self.requests.push(self.now);
                    self.asked = Some(Asked::List { number, next, paged });
                }
                Output::Watch { number, resource_version, timeout } => {
                    assert!(self.asked.is_none(), "two requests at once: {}", self.ending());
                    self.fire("opens a watch");
                    self.requests.push(self.now);
                    self.asked = Some(Asked::Watch { number, version: resource_version.to_string(), timeout });
                }
                Output::Probe { version } => {
                    assert!(self.probe.is_none(), "two probes at once");
                    self.requests.push(self.now);
                    self.probe = Some((self.now, version));
                }
                Output::Abort => {
                    self.fire(if self.dead { "gives a dead watch up" } else { "breaks off" });
                    (self.asked, self.opened, self.dead) = (None, false, false);
                }
                Output::RereadToken => self.fire("reads the token anew"),
                Output::Sighted(_) => panic!("there is no local node"),
                Output::Event(event) => self.take(event),
            }
        }
    }

    fn take(&mut self, event: ProviderEvent) {
        self.last_event = self.now;
        self.story.push(format!("{:?} {}", self.now, tell(&event)));
        match &event {
            ProviderEvent::Snapshot { members, skipped, .. } => {
                self.fire("tells a snapshot");
                let ids: BTreeSet<_> = members.iter().map(|node| node.id().to_string()).collect();
                let whole = self.states.contains(&ids.iter().cloned().collect::<Vec<_>>());
                assert!(whole || *skipped > 0, "part of a list: {}", self.ending());
                self.told = Some(ids);
            }
            ProviderEvent::Changes { changes, .. } => {
                self.fire("tells changes");
                assert!(!changes.is_empty(), "{}", self.ending());
                for change in changes {
                    self.apply(change);
                }
            }
            ProviderEvent::Heartbeat { current: true } => {
                self.fire("confirms");
                self.current_at = Some(self.now);
                assert!(self.told.is_some(), "{}", self.ending());
                let stale = self.stale.map_or(Duration::ZERO, |since| self.now.since(since));
                // What was lost by a dead connection may be lost again by the next watch.
                let limit = match self.held_back {
                    None => MUTE + super::super::gap::LATEST + SECOND,
                    // After an outage the first watch is given the benefit of the doubt.
                    Some(_) => Duration::from_secs(120),
                };
                assert!(self.restored || stale <= limit, "stale for {stale:?}: {}", self.ending());
            }
            ProviderEvent::Heartbeat { .. } => {}
            ProviderEvent::Degraded { .. } => self.fire("tells an error"),
            other => panic!("{other:?}: {}", self.ending()),
        }
    }

    /// Every change is one: whoever comes was not there, or has changed, and whoever goes was there.
    fn apply(&mut self, change: &MemberChange) {
        let ending = self.ending();
        let told = self.told.as_mut().expect("a snapshot comes first");
        match change {
            MemberChange::Upsert(node) => assert!(told.insert(node.id().to_string()), "told twice: {ending}"),
            MemberChange::Remove(id) => assert!(told.remove(NodeId::as_str(id)), "told twice: {ending}"),
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        let (due, later): (Vec<_>, Vec<_>) = self.later.drain(..).partition(|(at, _)| *at <= self.now);
        self.later = later;
        for (_, what) in due {
            self.happens(what);
        }
        if self.machine.timeout() <= self.now {
            self.input(Input::Timer);
        }
        self.serve();
        if let Some((sent, version)) = self.probe {
            let late = self.now.since(sent) >= Duration::from_secs(2);
            let result = match (self.down, self.frozen) {
                (true, _) => Some(Err(broken(ErrorCode::BackendUnavailable))),
                (_, true) => late.then(|| Err(broken(ErrorCode::Timeout))),
                _ => Some(Ok(version.then(|| self.version.to_string()))),
            };
            if let Some(result) = result {
                self.probe = None;
                self.input(Input::Probe(result));
            }
        }
        if let Some(told) = &self.told {
            let members: BTreeSet<_> =
                self.machine.directory.members().iter().map(|node| node.id().to_string()).collect();
            assert_eq!(*told, members, "{}", self.ending());
            let is_true = told.iter().eq(self.pods.keys());
            self.stale = if is_true { None } else { self.stale.or(Some(self.now)) };
        }
        assert!(self.now.since(self.last_event) <= crate::provider::SIGN_OF_LIFE, "{}", self.ending());
    }

    fn run(mut self) -> BTreeMap<&'static str, usize> {
        for _ in 0..FAULTS.as_millis() / STEP.as_millis() {
            if self.roll(60) == 0 {
                self.fault();
            }
            // A list that is under way expires now and then, and in some worlds nearly always.
            let haste = if self.seed.is_multiple_of(5) { 3 } else { 40 };
            if matches!(&self.asked, Some(Asked::List { next: Some(_), .. })) && self.roll(haste) == 0 {
                self.after(0, 100, Later::Expire);
            }
            if self.roll(3000) == 0 {
                self.fire("the process is suspended");
                self.now = self.now + Duration::from_secs(600);
                (self.last_event, self.stale) = (self.now, None);
            }
            self.step();
        }
        let (faults, peace) = (self.requests.len(), self.now);
        while self.now.since(peace) < PEACE {
            self.step();
        }
        let truth: BTreeSet<_> = self.pods.keys().cloned().collect();
        assert_eq!(self.told.as_ref(), Some(&truth), "{}", self.ending());
        // Pages are listed as seldom as there are many.
        let (longest, most) = if self.lives_on_lists() { (90, 40) } else { (10, 9) };
        let confirmed = self.current_at.is_some_and(|at| self.now.since(at) < Duration::from_secs(longest));
        assert!(confirmed, "{}", self.ending());
        assert!(faults < 700, "{faults} requests among the faults: {}", self.ending());
        let calm = self.requests.iter().filter(|at| at.since(peace) >= PEACE - Duration::from_secs(30)).count();
        assert!(calm <= most, "{calm} requests in 30 s of peace: {}", self.ending());
        self.fired
    }
}

#[test]
fn kubernetes_point_12_in_a_world_of_faults_what_is_told_is_whole_and_ends_as_the_servers_truth() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let (first, seeds) = (number("SIMULATION_FIRST").unwrap_or(0), number("SIMULATION_SEEDS").unwrap_or(60));
    let mut fired: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in first..first + seeds {
        for (what, count) in World::new(seed).run() {
            *fired.entry(what).or_default() += count;
        }
    }
    for (what, count) in &fired {
        println!("{count:>8} {what}");
    }
    for what in [
        "asks for a list in one piece",
        "gives a dead watch up",
        "410 as an empty end",
        "reads the token anew",
        "loses an event",
        "restores a backup",
    ] {
        assert!(fired.contains_key(what) || seeds < 60, "{what}: never");
    }
}
