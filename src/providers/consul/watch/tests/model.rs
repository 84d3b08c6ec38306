//! The machine against a model of a server and of a cluster whose members repair their registrations, through seeded
//! faults: restarts that lose the state, some of which grow to the very index of before, backups, changes of leader,
//! connections that are cut or die without a sign, freezes, revoked rights, suspensions.
//!
//! What has to hold: a member that stays is never reported gone, however its registration comes and goes, if it is back
//! within the grace; one that left is reported gone in bounded time; what is reported as fresh is what the server has; in
//! member mode nobody is never believed; every answer without the local node is told; and the server is not asked more
//! often than agreed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const STEP: Duration = Duration::from_millis(50);
const FAULTS: Duration = Duration::from_secs(300);
/// A grace, a wait that is over, a backoff, and then some.
const PEACE: Duration = Duration::from_secs(150);
const ME: &str = "n0";

/// What happens later.
#[derive(Clone, Debug)]
enum Later {
    Register(String),
    Up,
    Thaw,
    Grant,
}

struct World {
    machine: Machine,
    member: bool,
    seed: u64,
    dice: Jitter,
    now: Timestamp,
    later: Vec<(Timestamp, Later)>,
    /// Who is a member, registered or not.
    alive: Vec<String>,
    born: usize,
    /// The server's entries with the index at which each was created.
    entries: BTreeMap<String, u64>,
    /// Its index, and that of the last change of the service.
    index: u64,
    changed: u64,
    /// Which entries there have ever been.
    history: BTreeSet<(String, u64)>,
    backup: (BTreeMap<String, u64>, u64),
    down: bool,
    frozen: bool,
    denied: bool,
    watch: Option<(u64, Option<u64>, Timestamp)>,
    /// Whether the watch under way will never be answered: its connection is dead, and nobody was told.
    mute: bool,
    /// Whether it was under way while the process was suspended.
    overtaken: bool,
    probe: Option<Timestamp>,
    reported: Option<Members>,
    refreshed: bool,
    last_event: Timestamp,
    requests: Vec<Timestamp>,
    absences: usize,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64, member: bool) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut world = Self {
            machine: Self::machine(member, Memory::default(), seed, now),
            member,
            seed,
            dice: Jitter::new(seed ^ 0xabcd),
            now,
            later: Vec::new(),
            alive: Vec::new(),
            born: 0,
            entries: BTreeMap::new(),
            index: 10,
            changed: 10,
            history: BTreeSet::new(),
            backup: (BTreeMap::new(), 10),
            down: false,
            frozen: false,
            denied: false,
            watch: None,
            mute: false,
            overtaken: false,
            probe: None,
            reported: None,
            refreshed: false,
            last_event: now,
            requests: Vec::new(),
            absences: 0,
            story: Vec::new(),
        };
        for _ in 0..4 {
            world.join();
        }
        world.backup = (world.entries.clone(), world.changed);
        world.drain();
        world
    }

    fn machine(member: bool, memory: Memory, seed: u64, now: Timestamp) -> Machine {
        Machine::new(
            settings(),
            member.then(|| Arc::new(ClusterNode::builder(ME, "h", 1).build().unwrap())),
            memory,
            seed,
            now,
        )
    }

    fn standing(&self) -> Standing {
        if self.member { Standing::Registered } else { Standing::Client }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice.next() % below
    }

    fn after(&mut self, from: u64, to: u64, what: Later) {
        let millis = from + self.roll(to - from);
        self.later.push((self.now + Duration::from_millis(millis), what));
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(format!("{:?} {}", self.now, what.into()));
    }

    /// What happened last.
    fn ending(&self) -> String {
        self.story[self.story.len().saturating_sub(60)..].join("\n")
    }

    fn serves(&self) -> bool {
        !self.down && !self.frozen
    }

    /// Whether a watch is held.
    fn is_watched(&self) -> bool {
        !self.mute && self.watch.is_some_and(|(_, index, _)| index == Some(self.changed))
    }

    fn change(&mut self) {
        self.index += 1 + self.dice.next() % 3;
        self.changed = self.index;
    }

    fn join(&mut self) {
        let id = format!("n{}", self.born);
        self.born += 1;
        self.alive.push(id.clone());
        self.register(id);
    }

    fn register(&mut self, id: String) {
        if !self.entries.contains_key(&id) {
            self.change();
            // A new entry that happens to have the index of a former one is the one thing that cannot be told apart.
            while !self.history.insert((id.clone(), self.index)) {
                self.change();
            }
            self.entries.insert(id, self.index);
        }
    }

    /// Every member finds within its heartbeat that it is registered no more.
    fn repair(&mut self, from: u64) {
        for id in self.alive.clone() {
            if !self.entries.contains_key(&id) {
                self.after(from + 100, from + 3000, Later::Register(id));
            }
        }
    }

    /// Connections break, and nobody is served for a while.
    fn outage(&mut self) -> u64 {
        self.down = true;
        // What neither the watch nor a probe has noticed cannot be told from peace.
        let lasts = if self.mute { 6500 } else { 1200 + self.roll(8000) };
        self.later.push((self.now + Duration::from_millis(lasts), Later::Up));
        if !self.mute {
            self.cut_watch();
        }
        if self.probe.take().is_some() {
            self.input(Input::Probe(Err(error(ErrorCode::BackendUnavailable).into())));
        }
        lasts
    }

    fn fault(&mut self) {
        let kind = self.roll(13);
        match kind {
            0 | 1 if self.alive.len() < 6 => {
                self.tell("joins");
                self.join();
            }
            // The local node stays, and so does another: a cluster that is replaced as a whole is another story.
            2 if self.alive.len() > 2 && self.serves() => {
                let which = 1 + self.roll(self.alive.len() as u64 - 1) as usize;
                let id = self.alive.remove(which);
                self.tell(format!("{id} leaves"));
                self.change();
                self.entries.remove(&id);
            }
            3 if self.serves() => {
                self.index = match self.roll(4) {
                    0 => 1,
                    1 => 5 + self.roll(20),
                    2 => self.index.saturating_sub(self.roll(9)).max(1),
                    _ => self.index + self.roll(60),
                };
                self.changed = self.index;
                self.entries.clear();
                self.backup = (BTreeMap::new(), self.index);
                self.tell(format!("restarts without its state, at {}", self.index));
                // The watch may not notice, as behind some proxies.
                self.mute = self.roll(4) == 0;
                let lasts = self.outage();
                self.repair(lasts);
            }
            4 if self.serves() => {
                self.tell("changes its leader");
                self.outage();
            }
            5 if self.serves() => {
                self.tell("freezes");
                self.frozen = true;
                self.after(500, 20_000, Later::Thaw);
            }
            6 if self.serves() => {
                self.tell(format!("makes a backup at {}", self.changed));
                self.backup = (self.entries.clone(), self.changed);
            }
            // One that is restored while nobody watches, and outgrown at once, cannot be told from a genuine loss.
            7 if self.serves() && self.is_watched() && self.backup.1 < self.changed => {
                self.tell(format!("is restored to {}", self.backup.1));
                // A wait is answered with what it had before.
                self.answer_watch();
                (self.entries, self.changed) = self.backup.clone();
                self.entries.retain(|id, _| self.alive.contains(id));
                if self.roll(2) == 0 {
                    self.index = self.changed;
                }
                self.repair(0);
            }
            8 if self.member && !self.denied => {
                self.tell("denies");
                self.denied = true;
                self.after(1000, 30_000, Later::Grant);
            }
            // Nobody sees that it came back from an earlier one while the watch is dead.
            9 if self.member && self.entries.contains_key(ME) && self.serves() && !self.mute => {
                self.tell("reaps the local node");
                self.change();
                self.entries.remove(ME);
                self.repair(0);
            }
            10 if self.serves() && self.is_watched() => {
                self.tell("a connection dies without a sign");
                self.mute = true;
            }
            12 if self.serves() && self.is_watched() => {
                self.tell("a proxy cuts the watch");
                self.cut_watch();
            }
            11 => {
                self.tell("the stream is opened anew");
                self.machine =
                    Self::machine(self.member, self.machine.memory(), self.seed ^ self.now.as_nanos(), self.now);
                (self.watch, self.probe, self.last_event) = (None, None, self.now);
                self.drain();
            }
            _ => {}
        }
    }

    fn happens(&mut self, what: Later) {
        match what {
            Later::Register(id) if !self.alive.contains(&id) => {}
            Later::Register(id) if self.serves() => self.register(id),
            Later::Register(id) => self.after(100, 1000, Later::Register(id)),
            Later::Up => self.down = false,
            Later::Thaw => self.frozen = false,
            Later::Grant => self.denied = false,
        }
    }

    fn mark(&self) -> Mark {
        mark(self.changed)
    }

    /// The connection closes without an answer.
    fn cut_watch(&mut self) {
        if let Some((number, ..)) = self.watch.take() {
            let failure = Failure { error: error(ErrorCode::BackendUnavailable), kind: FailureKind::Cut };
            self.input(Input::Watch(number, Err(failure)));
        }
    }

    fn end_watch(&mut self, result: Result<WatchAnswer, ProvisioningError>) {
        if let Some((number, ..)) = self.watch.take() {
            self.input(Input::Watch(number, result.map_err(Failure::from)));
        }
    }

    fn answer_watch(&mut self) {
        if self.watch.is_none() {
            return;
        }
        let shown = if self.denied { BTreeMap::new() } else { self.entries.clone() };
        let ids: Vec<_> = shown.keys().map(String::as_str).collect();
        let mut lineage = Lineage::default();
        for (id, created) in &shown {
            lineage.add(&NodeId::new(id).unwrap(), *created);
        }
        // One from before a suspension is of any age, and may be asked for again instead.
        let overtaken = std::mem::take(&mut self.overtaken);
        let (told, absent) = (self.absences, self.member && !shown.contains_key(ME));
        self.end_watch(Ok(WatchAnswer { mark: self.mark(), members: set(&ids), lineage, skipped: 0 }));
        let told = self.absences - told == usize::from(absent);
        assert!(told || overtaken, "seed {}: {}", self.seed, self.ending());
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(self.now, self.standing(), input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.output() {
            match output {
                Output::Watch { number, index, wait, .. } => {
                    assert!(self.watch.is_none(), "two watches at once");
                    self.requests.push(self.now);
                    self.watch = Some((number, index, self.now + wait));
                    (self.mute, self.overtaken) = (false, false);
                }
                Output::Probe { .. } => {
                    assert!(self.probe.is_none(), "two probes at once");
                    self.requests.push(self.now);
                    self.probe = Some(self.now);
                }
                Output::AbortWatch => self.watch = None,
                Output::Sighted(Sighting::Absent) => self.absences += 1,
                Output::Sighted(_) => {}
                Output::Event(event) => self.take(event),
            }
        }
    }

    fn take(&mut self, event: ProviderEvent) {
        self.last_event = self.now;
        self.refreshed = matches!(event, ProviderEvent::Snapshot { .. } | ProviderEvent::Heartbeat { current: true });
        self.tell(tell(&event));
        if matches!(event, ProviderEvent::Heartbeat { current: true }) {
            let reported = self.reported.iter().flat_map(Members::iter).map(|node| node.id().as_str());
            let same = reported.eq(self.entries.keys().map(String::as_str));
            assert!(same, "seed {}: {:?} is not what is shown as fresh: {}", self.seed, self.entries, self.ending());
        }
        let ProviderEvent::Snapshot { members, .. } = event else { return };
        assert!(!self.member || !members.is_empty(), "seed {}: {}", self.seed, self.ending());
        if let Some(before) = self.reported.replace(members.clone()) {
            for node in before.iter().filter(|node| !members.contains(node.id())) {
                let stays = self.alive.iter().any(|id| id == node.id().as_str());
                assert!(!stays, "seed {}: {} is no longer reported: {}", self.seed, node.id(), self.ending());
            }
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
        if let Some((_, index, until)) = self.watch {
            if self.mute {
                // As long as the client waits for an answer.
                if self.now >= until + Duration::from_secs(14) {
                    self.end_watch(Err(error(ErrorCode::Timeout)));
                }
            } else if self.down {
                self.end_watch(Err(error(ErrorCode::BackendUnavailable)));
            } else if !self.frozen && (index.is_none_or(|index| self.changed > index) || self.now >= until) {
                self.answer_watch();
            }
        }
        if let Some(sent) = self.probe {
            let result = match (self.down, self.frozen) {
                (true, _) => Some(Err(error(ErrorCode::BackendUnavailable))),
                (false, false) => Some(Ok(self.mark())),
                (false, true) => {
                    (self.now.since(sent) >= Duration::from_secs(2)).then(|| Err(error(ErrorCode::Timeout)))
                }
            };
            if let Some(result) = result {
                self.probe = None;
                self.input(Input::Probe(result.map_err(Failure::from)));
            }
        }
        assert!(self.now.since(self.last_event) <= crate::provider::SIGN_OF_LIFE, "seed {}", self.seed);
    }

    fn run(mut self) {
        for _ in 0..FAULTS.as_millis() / STEP.as_millis() {
            if self.roll(80) == 0 {
                self.fault();
            }
            if self.roll(2000) == 0 {
                self.tell("the process is suspended");
                self.now = self.now + Duration::from_secs(3600);
                self.last_event = self.now;
                self.overtaken = true;
            }
            self.step();
        }
        let faults = self.requests.len();
        let peace = self.now;
        while self.now.since(peace) < PEACE {
            self.step();
        }
        let reported: Vec<_> = self.reported.iter().flat_map(Members::iter).map(|node| node.id().to_string()).collect();
        self.alive.sort();
        assert_eq!(reported, self.alive, "seed {}: {}", self.seed, self.ending());
        assert!(faults < 1200, "seed {}: {faults} requests among the faults", self.seed);
        let calm = self.requests.iter().filter(|at| at.since(peace) >= PEACE - Duration::from_secs(30)).count();
        assert!(calm <= 8, "seed {}: {calm} requests in 30 s of peace: {}", self.seed, self.ending());
    }
}

fn run(member: bool) {
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    let first = std::env::var("SIMULATION_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        World::new(seed, member).run();
    }
}

#[test]
fn consul_point_8_in_a_world_of_faults_nobody_who_stays_is_reported_gone_and_whoever_leaves_is() {
    run(false);
}

#[test]
fn consul_point_10_in_a_world_of_faults_a_member_never_believes_that_nobody_is_there() {
    run(true);
}
