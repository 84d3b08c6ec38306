mod crowd;
mod member;
mod model;
mod pace;
mod recovery;
mod timeline;

use super::probe::BEHIND_GRACE;
use super::*;
use crate::providers::consul::failure::FailureKind;
use crate::topology::{ClusterNode, NodeId};

const GRACE: Duration = Duration::from_secs(9);
/// A test that needs more inputs waits for something that never comes.
const MAX_INPUTS: usize = 20_000;

/// A machine whose requests are answered by hand.
struct Sim {
    machine: Machine,
    now: Timestamp,
    /// The watch under way: number, index, consistency.
    watch: Option<(u64, Option<u64>, Consistency)>,
    probe: Option<Consistency>,
    standing: Standing,
    events: Vec<ProviderEvent>,
    sent: Vec<Timestamp>,
    waits: Vec<Duration>,
    probes: usize,
    aborts: usize,
    /// How often an absence was told to the registration.
    absences: usize,
    presences: usize,
    taken: usize,
    inputs: usize,
}

fn settings() -> Settings {
    Settings {
        consistency: Consistency::Default,
        wait: Duration::from_secs(60),
        max_stale: Duration::from_secs(10),
        repair_grace: GRACE,
        probe_interval: Duration::from_secs(6),
        ttl: Duration::from_secs(3),
        retry: RetryPolicy::default(),
    }
}

fn set(ids: &[&str]) -> Members {
    ids.iter().map(|id| ClusterNode::builder(*id, "h", 1).build().unwrap()).collect()
}

fn mark(index: u64) -> Mark {
    Mark { index: Some(index), last_contact: Some(Duration::ZERO), known_leader: Some(true), may_lag: false }
}

fn error(code: ErrorCode) -> ProvisioningError {
    ProvisioningError::new(code, "testing", "broken")
}

impl Sim {
    fn new() -> Self {
        Self::with(settings(), Memory::default())
    }

    fn with(settings: Settings, memory: Memory) -> Self {
        Self::local(settings, None, Standing::Client, memory, 1)
    }

    fn local(settings: Settings, local: Option<&str>, standing: Standing, memory: Memory, seed: u64) -> Self {
        let local = local.map(|id| Arc::new(ClusterNode::builder(id, "h", 1).build().unwrap()));
        let now = Timestamp::from_millis(1_000_000);
        let mut sim = Self {
            machine: Machine::new(settings, local, memory, seed, now),
            now,
            watch: None,
            probe: None,
            standing,
            events: Vec::new(),
            sent: Vec::new(),
            waits: Vec::new(),
            probes: 0,
            aborts: 0,
            absences: 0,
            presences: 0,
            taken: 0,
            inputs: 0,
        };
        sim.drain();
        sim
    }

    /// A machine that has believed these members at that index and waits for the next.
    fn settled(ids: &[&str], index: u64) -> Self {
        let mut sim = Self::new();
        sim.answer(index, ids);
        assert_eq!(sim.told(), [snapshot(ids)]);
        sim.settle();
        assert_eq!(sim.asked(), Some(index));
        sim
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.output() {
            match output {
                Output::Watch { number, index, wait, consistency } => {
                    assert!(self.watch.is_none(), "two watches at once");
                    self.watch = Some((number, index, consistency));
                    self.sent.push(self.now);
                    self.waits.push(wait);
                }
                Output::Probe { consistency } => {
                    assert!(self.probe.is_none(), "two probes at once");
                    self.probe = Some(consistency);
                    self.probes += 1;
                }
                Output::AbortWatch => {
                    assert!(self.watch.take().is_some(), "nothing to abort");
                    self.aborts += 1;
                }
                Output::Sighted(Sighting::Absent) => self.absences += 1,
                Output::Sighted(Sighting::Present) => self.presences += 1,
                Output::Sighted(Sighting::Taken) => self.taken += 1,
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.inputs += 1;
        assert!(self.inputs < MAX_INPUTS, "what is waited for never comes");
        self.machine.handle(self.now, self.standing, input);
        self.drain();
        assert!(self.machine.timeout() > self.now, "a timer that is due already: a hot loop");
    }

    fn end_watch(&mut self, result: Result<WatchAnswer, ProvisioningError>) {
        let (number, ..) = self.watch.take().expect("a watch is under way");
        self.input(Input::Watch(number, result.map_err(Failure::from)));
    }

    /// The watch under way ends with a failure of that kind.
    fn break_watch(&mut self, kind: FailureKind) {
        let (number, ..) = self.watch.take().expect("a watch is under way");
        let failure = Failure { error: error(ErrorCode::BackendUnavailable), kind };
        self.input(Input::Watch(number, Err(failure)));
    }

    fn answer_with(&mut self, mark: Mark, ids: &[&str]) {
        self.end_watch(Ok(WatchAnswer { mark, members: set(ids), lineage: Lineage::default(), skipped: 0 }));
    }

    /// An answer that names the indexes at which the entries were created.
    fn answer_of(&mut self, index: u64, entries: &[(&str, u64)]) {
        self.answer_renewing(index, entries, false);
    }

    /// The same, some of whose members may have registered again since the answer before.
    fn answer_renewing(&mut self, index: u64, entries: &[(&str, u64)], renewed: bool) {
        let ids: Vec<_> = entries.iter().map(|(id, _)| *id).collect();
        let mut lineage = Lineage::default();
        for (id, created) in entries {
            lineage.add(&NodeId::new(*id).unwrap(), *created);
        }
        lineage.set_renewed(renewed);
        self.end_watch(Ok(WatchAnswer { mark: mark(index), members: set(&ids), lineage, skipped: 0 }));
    }

    fn answer(&mut self, index: u64, ids: &[&str]) {
        self.answer_with(mark(index), ids);
    }

    fn fail(&mut self) {
        self.end_watch(Err(error(ErrorCode::BackendUnavailable)));
    }

    fn end_probe(&mut self, result: Result<Mark, ProvisioningError>) {
        self.probe.take().expect("a probe is under way");
        self.input(Input::Probe(result.map_err(Failure::from)));
    }

    /// Goes to the next timer.
    fn tick(&mut self) {
        self.now = self.machine.timeout();
        self.input(Input::Timer);
    }

    /// Goes on until a watch is under way.
    fn settle(&mut self) {
        while self.watch.is_none() {
            assert!(!matches!(self.machine.watch, Watch::Recovering), "the probe goes first");
            self.tick();
        }
    }

    /// Goes on until the probe after an error is under way, and ends it; where the watch goes on by it, until its turn has
    /// come.
    fn recover(&mut self, result: Result<Mark, ProvisioningError>) {
        while !matches!(self.machine.watch, Watch::Recovering) {
            assert!(self.watch.is_none(), "a watch without a probe before it");
            self.tick();
        }
        self.end_probe(result);
        while matches!(self.machine.watch, Watch::Due(_)) {
            self.tick();
        }
    }

    /// Goes on until a probe is due, and ends it.
    fn probe(&mut self, result: Result<Mark, ProvisioningError>) {
        while self.probe.is_none() {
            self.tick();
        }
        self.events.clear();
        self.end_probe(result);
    }

    /// Lets time pass with probes that see that index.
    fn pass(&mut self, time: Duration, index: u64) {
        let end = self.now + time;
        while self.machine.timeout() <= end {
            self.tick();
            if self.probe.is_some() {
                self.end_probe(Ok(mark(index)));
            }
        }
        self.now = end;
    }

    /// The wait of the watch under way is over without news, while probes see that index; it is answered with the set.
    fn wait_over(&mut self, index: u64, ids: &[&str]) {
        self.pass(*self.waits.last().unwrap(), index);
        self.answer(index, ids);
    }

    /// The index asked for by the watch under way.
    fn asked(&self) -> Option<u64> {
        self.watch.expect("a watch is under way").1
    }

    /// What was reported since the last call.
    fn told(&mut self) -> Vec<String> {
        self.events.drain(..).map(|event| tell(&event)).collect()
    }
}

fn tell(event: &ProviderEvent) -> String {
    match event {
        ProviderEvent::Snapshot { members, .. } => {
            let ids: Vec<_> = members.iter().map(|node| node.id().as_str()).collect();
            snapshot(&ids)
        }
        ProviderEvent::Heartbeat { current } => format!("heartbeat {current}"),
        ProviderEvent::Doubtful { reason } => format!("doubtful {}", reason.code()),
        ProviderEvent::Degraded { error } => format!("degraded {}", error.code()),
        other => format!("{other:?}"),
    }
}

fn snapshot(ids: &[&str]) -> String {
    format!("snapshot {}", ids.join(" "))
}

#[test]
fn consul_point_1_the_first_request_is_unindexed_and_the_next_sends_the_returned_index() {
    let mut sim = Sim::new();
    assert_eq!(sim.asked(), None);
    sim.answer(14, &["a"]);
    assert_eq!(sim.asked(), Some(14));
    sim.answer(15, &["a", "b"]);
    assert_eq!(sim.told(), [snapshot(&["a"]), snapshot(&["a", "b"])]);
}

#[test]
fn consul_point_2_a_lower_index_resets_to_zero() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.answer(50, &["a"]);
    sim.settle();
    assert_eq!(sim.asked(), None);
    assert_eq!(sim.watch.unwrap().2, Consistency::Consistent);
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
    sim.answer(50, &["a"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
    sim.settle();
    assert_eq!((sim.asked(), sim.watch.unwrap().2), (Some(50), Consistency::Default));
}

#[test]
fn consul_point_2_a_probe_shows_a_rollback_that_the_blocked_watch_cannot_see() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.probe(Ok(mark(12)));
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
    assert_eq!(sim.aborts, 1);
    sim.settle();
    assert_eq!(sim.asked(), None);
    sim.answer(12, &["a", "b"]);
    assert_eq!(sim.told(), [snapshot(&["a", "b"])]);
}

#[test]
fn consul_point_2_a_probe_shows_a_rollback_also_while_the_next_watch_is_paced() {
    let mut sim = Sim::settled(&["a"], 100);
    while sim.probe.is_none() {
        sim.tick();
    }
    while sim.watch.is_some() {
        sim.answer(100, &["a"]);
    }
    sim.told();
    sim.end_probe(Ok(mark(95)));
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
    sim.settle();
    assert_eq!((sim.asked(), sim.aborts), (None, 0));
}

#[test]
fn consul_point_2_a_probe_that_was_overtaken_by_the_watch_is_no_rollback() {
    let mut sim = Sim::settled(&["a"], 100);
    while sim.probe.is_none() {
        sim.tick();
    }
    sim.answer(101, &["a", "b"]);
    sim.settle();
    sim.told();
    sim.end_probe(Ok(mark(100)));
    assert_eq!((sim.told(), sim.aborts), (vec!["heartbeat false".to_owned()], 0));
}

#[test]
fn consul_point_3_without_a_usable_index_the_next_one_is_1_and_there_is_no_hot_loop() {
    let mut sim = Sim::new();
    let start = sim.now;
    for _ in 0..100 {
        sim.settle();
        sim.answer_with(Mark { index: None, ..mark(1) }, &["a"]);
        if let Some((_, index, _)) = sim.watch {
            assert_eq!(index, Some(1));
        }
        if sim.probe.is_some() {
            sim.end_probe(Ok(Mark { index: None, ..mark(1) }));
        }
    }
    assert!(sim.now.since(start) > Duration::from_secs(80), "{:?}", sim.now.since(start));
    let told = sim.told();
    assert_eq!(told.iter().filter(|event| event.starts_with("snapshot")).count(), 1);
    assert!(!told.iter().any(|event| event.starts_with("doubt")));
}

#[test]
fn consul_point_4_the_same_index_or_content_is_no_event() {
    let mut sim = Sim::settled(&["a", "b"], 100);
    sim.answer(100, &["a", "b"]);
    sim.settle();
    sim.answer(105, &["b", "a"]);
    sim.settle();
    assert_eq!(sim.told(), ["heartbeat true", "heartbeat true"]);
    assert_eq!(sim.asked(), Some(105));
}

#[test]
fn consul_point_5_a_thousand_instant_replies_are_throttled_but_for_the_first_two() {
    for news in [false, true] {
        let mut sim = Sim::new();
        for n in 0..1000u64 {
            sim.settle();
            let index = if news { 10 + n } else { 10 };
            let odd: &[&str] = if news && n % 2 == 1 { &["a", "b"] } else { &["a"] };
            sim.answer(index, odd);
            if sim.probe.is_some() {
                sim.end_probe(Ok(mark(index)));
            }
        }
        assert_eq!(sim.sent[0], sim.sent[1]);
        let rate = (sim.sent.len() - 2) as f64 / sim.sent[999].since(sim.sent[1]).as_secs_f64();
        let limit = if news { 10.1 } else { 1.1 };
        assert!(rate < limit, "{rate} requests/s");
    }
}

#[test]
fn consul_point_5_a_lone_change_after_peace_is_asked_for_at_once() {
    let mut sim = Sim::settled(&["a"], 10);
    sim.pass(Duration::from_secs(30), 10);
    sim.answer(11, &["a", "b"]);
    assert_eq!(*sim.sent.last().unwrap(), sim.now);
    assert_eq!(sim.asked(), Some(11));
}

#[test]
fn consul_point_6_a_watch_that_stays_mute_although_there_is_news_is_given_up() {
    let mut sim = Sim::settled(&["a"], 100);
    let start = sim.now;
    while sim.aborts == 0 {
        sim.probe(Ok(mark(101)));
    }
    assert_eq!(sim.told(), ["heartbeat false"]);
    assert!(sim.now.since(start) >= BEHIND_GRACE && sim.now.since(start) <= Duration::from_secs(12));
    sim.settle();
    assert_eq!(sim.asked(), None);
    sim.answer(101, &["a", "b"]);
    assert_eq!(sim.told(), ["degraded timeout", &snapshot(&["a", "b"])]);
}

#[test]
fn consul_point_6_an_index_that_rises_without_a_change_of_the_members_is_peace() {
    // A new agent streams: of an empty service its index stays, while the plain one rises with others' deregistrations.
    let mut sim = Sim::settled(&[], 14);
    for index in 15..25 {
        let aborts = sim.aborts;
        while sim.aborts == aborts {
            sim.probe(Ok(mark(index)));
        }
        sim.settle();
        assert_eq!(sim.asked(), None);
        sim.answer(index, &[]);
        sim.settle();
        let mut told = sim.told();
        assert_eq!(told.pop().unwrap(), "heartbeat true");
        assert!(told.iter().all(|event| event == "heartbeat false"), "{told:?}");
    }
}

/// What an agent says that answers from its stream.
fn streamed(index: u64) -> Mark {
    Mark { may_lag: true, known_leader: None, ..mark(index) }
}

#[test]
fn consul_point_2_a_streamed_index_that_lags_is_no_rollback_while_the_members_agree() {
    for ids in [&[][..], &["a", "b"]] {
        let mut sim = Sim::settled(ids, 27);
        sim.pass(*sim.waits.last().unwrap(), 27);
        sim.told();
        sim.answer_with(streamed(23), ids);
        sim.settle();
        assert_eq!((sim.told(), sim.asked()), (vec!["heartbeat true".to_owned()], Some(23)));
        assert!(*sim.waits.last().unwrap() >= settings().wait);
        // The plain index is the one before, and still confirms.
        sim.probe(Ok(mark(27)));
        assert_eq!((sim.told(), sim.aborts), (vec!["heartbeat true".to_owned()], 0));
        // A plain one that is lower is a rollback, whatever was streamed.
        sim.probe(Ok(mark(23)));
        assert_eq!((sim.told(), sim.aborts), (vec!["doubtful index-rollback".to_owned()], 1));
    }
    // Other members at a lower index are asked of the leader, who may be of that opinion, too.
    let mut sim = Sim::settled(&["a", "b"], 27);
    sim.answer_with(streamed(23), &["b"]);
    sim.settle();
    assert_eq!((sim.told().len(), sim.asked(), sim.watch.unwrap().2), (0, None, Consistency::Consistent));
    sim.answer(23, &["b"]);
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
}

#[test]
fn consul_point_2_members_that_agree_in_new_entries_are_none_of_the_same_timeline() {
    let mut sim = Sim::new();
    sim.answer_of(100, &[("a", 20), ("b", 21)]);
    sim.settle();
    sim.told();
    let lineage = |entries: &[(&str, u64)]| {
        let mut lineage = Lineage::default();
        entries.iter().for_each(|(id, created)| lineage.add(&NodeId::new(*id).unwrap(), *created));
        lineage
    };
    let answer = |lineage| WatchAnswer { mark: streamed(50), members: set(&["a", "b"]), lineage, skipped: 0 };
    sim.end_watch(Ok(answer(lineage(&[("a", 20), ("b", 21)]))));
    sim.settle();
    assert_eq!(sim.told(), ["heartbeat true"]);
    sim.end_watch(Ok(answer(lineage(&[("a", 40), ("b", 41)]))));
    sim.settle();
    assert_eq!((sim.told().len(), sim.asked(), sim.watch.unwrap().2), (0, None, Consistency::Consistent));
}

#[test]
fn consul_point_6_a_watch_that_was_given_up_is_given_twice_as_long_the_next_time() {
    let mut sim = Sim::settled(&["a"], 100);
    for (aborts, least) in [(1, BEHIND_GRACE), (2, BEHIND_GRACE * 2), (3, BEHIND_GRACE * 4)] {
        let start = sim.now;
        while sim.aborts < aborts {
            sim.probe(Ok(mark(101)));
        }
        assert!(sim.now.since(start) >= least && sim.now.since(start) <= least + Duration::from_secs(7));
        // The body is still on its way when the connection breaks.
        sim.settle();
        sim.fail();
        sim.recover(Ok(mark(101)));
        assert_eq!(sim.asked(), Some(100));
    }
}

#[test]
fn consul_point_8_an_empty_first_answer_with_index_1_is_asked_again_before_it_is_believed() {
    let mut sim = Sim::new();
    sim.answer(1, &[]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    assert_eq!(sim.asked(), None);
    sim.answer(10, &[]);
    assert_eq!(sim.told(), [snapshot(&[])]);
    assert_eq!(sim.machine.memory().members.unwrap().len(), 0);
}

#[test]
fn consul_point_8_a_cluster_that_is_new_and_empty_is_published_in_the_end() {
    for mark in [mark(1), Mark { index: None, ..mark(1) }] {
        let mut sim = Sim::new();
        let start = sim.now;
        let mut snapshots = 0;
        while snapshots == 0 {
            sim.settle();
            assert_eq!(sim.asked(), None);
            sim.answer_with(mark, &[]);
            if sim.probe.is_some() {
                sim.end_probe(Ok(mark));
            }
            snapshots = sim.told().iter().filter(|event| event.starts_with("snapshot")).count();
        }
        let taken = sim.now.since(start);
        assert!(taken >= GRACE && taken < GRACE + Duration::from_secs(1), "{taken:?}");
        assert!(sim.sent.len() < 20, "{} requests", sim.sent.len());
    }
}

#[test]
fn consul_point_8_an_empty_answer_with_index_1_never_ends_a_set_that_has_members() {
    let mut sim = Sim::settled(&["a", "b"], 100);
    sim.probe(Ok(mark(1)));
    let end = sim.now + GRACE * 10;
    while sim.now < end {
        sim.settle();
        assert_eq!(sim.asked(), None);
        sim.answer(1, &[]);
        if sim.probe.is_some() {
            sim.end_probe(Ok(mark(1)));
        }
    }
    let told = sim.told();
    assert!(told.iter().all(|event| event.starts_with("doubtful")), "{told:?}");
    assert!(sim.sent.len() < 120, "{} requests", sim.sent.len());
    sim.settle();
    sim.answer(12, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

/// The rollback as a real agent shows it: the connection breaks, and the agent comes back empty.
fn restarted(ids: &[&str]) -> Sim {
    let mut sim = Sim::settled(ids, 100);
    sim.fail();
    sim.told();
    sim.recover(Ok(mark(10)));
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
    sim.settle();
    assert_eq!(sim.asked(), None);
    sim.answer(10, &[]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.settle();
    assert_eq!(sim.asked(), Some(10));
    sim
}

#[test]
fn consul_point_8_members_that_come_back_within_the_repair_grace_never_left() {
    let mut sim = restarted(&["a", "b"]);
    sim.pass(Duration::from_secs(3), 10);
    sim.answer(12, &["b"]);
    sim.settle();
    sim.pass(Duration::from_secs(3), 12);
    assert!(sim.told().iter().all(|event| event == "doubtful doubtful-answer"));
    sim.answer(13, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
    sim.settle();
    // The doubt is over: a loss from here on is an ordinary one.
    sim.answer(14, &["b"]);
    assert_eq!(sim.told(), [snapshot(&["b"])]);
}

#[test]
fn consul_point_8_members_that_stay_away_for_the_repair_grace_are_gone() {
    let mut sim = restarted(&["a", "b"]);
    let start = sim.now;
    sim.answer(12, &["b"]);
    sim.settle();
    sim.told();
    while sim.aborts == 0 {
        sim.tick();
        if sim.probe.is_some() {
            sim.end_probe(Ok(mark(12)));
        }
    }
    assert!(sim.told().iter().all(|event| event == "doubtful doubtful-answer"));
    assert!(sim.now.since(start) <= GRACE && sim.now.since(start) >= GRACE - Duration::from_secs(1));
    sim.settle();
    assert_eq!((sim.asked(), sim.watch.unwrap().2), (None, Consistency::Consistent));
    sim.answer(12, &["b"]);
    assert_eq!(sim.told(), [snapshot(&["b"])]);
}

#[test]
fn consul_point_8_doubt_is_repeated_as_a_sign_of_life_and_no_probe_is_a_refresh() {
    let mut sim = restarted(&["a"]);
    let (mut last, end) = (sim.now, sim.now + GRACE);
    while sim.machine.timeout() < end {
        sim.tick();
        if sim.probe.is_some() {
            sim.end_probe(Ok(mark(10)));
        }
        if !sim.events.is_empty() {
            assert!(sim.now.since(last) <= crate::provider::SIGN_OF_LIFE);
            last = sim.now;
        }
    }
    let told = sim.told();
    assert!(told.len() >= 4 && told.iter().all(|event| event == "doubtful doubtful-answer"), "{told:?}");
}

#[test]
fn consul_point_8_an_error_within_the_grace_starts_it_anew() {
    let mut sim = restarted(&["a"]);
    sim.pass(Duration::from_secs(8), 10);
    sim.fail();
    sim.settle();
    sim.told();
    sim.now = sim.now + GRACE;
    sim.answer(10, &[]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    // The same if it is the probe that fails while the watch stays blocked.
    sim.settle();
    sim.probe(Err(error(ErrorCode::Timeout)));
    sim.now = sim.now + GRACE;
    sim.tick();
    assert_eq!(sim.aborts, 0);
    sim.probe(Ok(mark(10)));
    let start = sim.now;
    while sim.aborts == 0 {
        sim.tick();
        if sim.probe.is_some() {
            sim.end_probe(Ok(mark(10)));
        }
    }
    assert_eq!(sim.now.since(start), GRACE);
}

#[test]
fn consul_point_8_a_second_rollback_within_the_grace_starts_it_anew() {
    let mut sim = restarted(&["a"]);
    sim.pass(Duration::from_secs(8), 10);
    sim.told();
    sim.answer(9, &[]);
    sim.settle();
    sim.answer(9, &[]);
    sim.settle();
    let start = sim.now;
    assert_eq!(sim.told(), ["doubtful index-rollback", "doubtful doubtful-answer"]);
    sim.pass(Duration::from_secs(8), 9);
    assert_eq!(sim.aborts, 0);
    while sim.aborts == 0 {
        sim.tick();
        if sim.probe.is_some() {
            sim.end_probe(Ok(mark(9)));
        }
    }
    assert_eq!(sim.now.since(start), GRACE);
    assert!(sim.machine.memory().unsettled);
}

#[test]
fn consul_point_8_members_gone_at_the_same_index_are_a_rollback_that_has_caught_up() {
    let mut sim = Sim::settled(&["a", "b"], 14);
    sim.answer(14, &["b"]);
    sim.settle();
    sim.answer(14, &["b"]);
    assert_eq!(sim.told(), ["doubtful index-rollback", "doubtful doubtful-answer"]);
    let start = sim.now;
    sim.settle();
    while sim.aborts == 0 {
        sim.tick();
        if sim.probe.is_some() {
            sim.end_probe(Ok(mark(14)));
        }
    }
    assert_eq!(sim.now.since(start), GRACE);
    sim.settle();
    sim.told();
    sim.answer(14, &["b"]);
    assert_eq!(sim.told(), [snapshot(&["b"])]);
}

#[test]
fn consul_point_8_an_index_that_is_ours_again_does_not_settle_a_rollback() {
    let mut sim = Sim::settled(&["a", "b"], 100);
    sim.answer(90, &["a"]);
    sim.settle();
    sim.told();
    // The members register again, and the index rises by it.
    sim.answer(101, &["a"]);
    sim.settle();
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.answer(130, &["a"]);
    sim.settle();
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.answer(131, &["a", "b"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_point_8_a_new_stream_remembers_the_one_before_it() {
    let sim = restarted(&["a"]);
    let memory = sim.machine.memory();
    let mut sim = Sim::with(settings(), memory);
    assert_eq!((sim.asked(), sim.watch.unwrap().2), (None, Consistency::Consistent));
    // Also if the index has grown past the one before meanwhile.
    sim.answer(111, &[]);
    assert_eq!(sim.told(), ["doubtful doubtful-answer"]);
    sim.settle();
    sim.answer(112, &["a"]);
    // The first refresh of a stream is a whole snapshot, also of what was known.
    assert_eq!(sim.told(), [snapshot(&["a"])]);
}

#[test]
fn consul_point_9_a_genuine_empty_answer_is_published() {
    let mut sim = Sim::settled(&["a", "b"], 100);
    sim.answer(101, &[]);
    sim.settle();
    assert_eq!((sim.told().len(), sim.asked(), sim.watch.unwrap().2), (0, None, Consistency::Consistent));
    sim.answer(101, &[]);
    assert_eq!(sim.told(), [snapshot(&[])]);
    let mut fresh = Sim::new();
    fresh.answer(10, &[]);
    assert_eq!(fresh.told(), [snapshot(&[])]);
}

/// A server whose answers to queries with an index are wrong: a member of a list, and what it says instead.
fn contradicting(indexed: (u64, &[&str]), probe: u64) {
    let mut sim = Sim::settled(&["a", "b", "c"], 10);
    let start = sim.now;
    let (mut steady, mut requests) = (None, 0);
    while sim.now.since(start) < Duration::from_secs(600) {
        match (sim.watch, sim.probe) {
            (Some((_, None, _)), _) => sim.answer(10, &["a", "b", "c"]),
            // Held if there is nothing newer for it, as a server does.
            (Some((_, Some(asked), _)), _) if asked < indexed.0 || !indexed.1.contains(&"a") => {
                sim.answer(indexed.0, indexed.1);
            }
            (_, Some(_)) => sim.end_probe(Ok(mark(probe))),
            _ => sim.tick(),
        }
        for event in sim.told() {
            assert!(!event.starts_with("snapshot"), "{event}");
            if steady.is_some() {
                assert!(!event.contains("true"), "{indexed:?} {probe}: {event}");
            } else if sim.machine.unrest.reason().is_some() {
                steady = Some(sim.now);
                requests = sim.sent.len() + sim.probes;
            }
        }
    }
    let steady = steady.unwrap_or_else(|| panic!("{indexed:?} {probe}: never told"));
    assert!(steady.since(start) < Duration::from_secs(20), "{indexed:?} {probe}: {:?}", steady.since(start));
    let rate = (sim.sent.len() + sim.probes - requests) as f64 / sim.now.since(steady).as_secs_f64();
    assert!(rate < 1.0, "{indexed:?} {probe}: {rate} requests/s");
    assert_eq!(sim.machine.memory().members.unwrap().len(), 3);
    // It is over once an answer agrees.
    sim.settle();
    while sim.asked().is_none() {
        sim.answer(10, &["a", "b", "c"]);
        sim.settle();
    }
    sim.told();
    sim.answer(10, &["a", "b", "c"]);
    if probe >= 10 {
        assert_eq!(sim.told(), ["heartbeat true"]);
    }
}

#[test]
fn consul_point_5_answers_that_contradict_each_other_keep_the_view_and_are_told_for_as_long_as_they_do() {
    for indexed in [10, 11, 9, 1] {
        for probe in [10, indexed.max(10), 25] {
            contradicting((indexed, &[]), probe);
        }
    }
    contradicting((10, &["b"]), 10);
    // The probe is the one that is wrong.
    contradicting((10, &["a", "b", "c"]), 5);
}

#[test]
fn consul_point_5_one_contradiction_is_chance() {
    let mut sim = Sim::settled(&["a", "b"], 100);
    for index in (110..200).step_by(10) {
        sim.answer(index, &[]);
        sim.settle();
        sim.answer(index, &["a", "b"]);
        sim.settle();
        assert_eq!(sim.told(), ["heartbeat true"]);
        sim.pass(Duration::from_secs(30), index);
        sim.told();
        sim.answer(index + 1, &["b", "a"]);
        sim.settle();
        assert_eq!(sim.told(), ["heartbeat true"]);
    }
}

#[test]
fn consul_point_10_denied_access_keeps_the_set_and_names_its_code() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.end_watch(Err(error(ErrorCode::AccessDenied)));
    assert_eq!(sim.told(), ["degraded access-denied"]);
    assert_eq!(sim.machine.memory().members.unwrap(), set(&["a"]));
}

#[test]
fn consul_point_11_absent_headers_are_accepted() {
    let mut sim = Sim::new();
    sim.answer_with(Mark { index: Some(5), last_contact: None, known_leader: None, may_lag: false }, &["a"]);
    assert_eq!(sim.told(), [snapshot(&["a"])]);
}

#[test]
fn consul_point_11_an_old_or_leaderless_answer_is_asked_of_the_leader() {
    let old = Mark { last_contact: Some(Duration::from_secs(11)), ..mark(100) };
    let leaderless = Mark { known_leader: Some(false), ..mark(100) };
    for uncertain in [old, leaderless] {
        let mut sim = Sim::with(Settings { consistency: Consistency::Stale, ..settings() }, Memory::default());
        assert_eq!(sim.watch.unwrap().2, Consistency::Stale);
        sim.answer_with(uncertain, &["a"]);
        sim.settle();
        assert_eq!((sim.asked(), sim.watch.unwrap().2, sim.told().len()), (None, Consistency::Consistent, 0));
        sim.answer(101, &["a", "b"]);
        assert_eq!(sim.told(), [snapshot(&["a", "b"])]);
        sim.settle();
        assert_eq!(sim.watch.unwrap().2, Consistency::Stale);
    }
}

#[test]
fn consul_point_11_a_leader_that_answers_without_contact_is_an_error() {
    let old = Mark { last_contact: Some(Duration::from_secs(11)), ..mark(100) };
    let mut sim = Sim::settled(&["a"], 100);
    sim.answer_with(old, &["b"]);
    sim.settle();
    sim.answer_with(old, &["b"]);
    assert_eq!(sim.told(), ["degraded backend-unavailable"]);
}

#[test]
fn consul_point_11_a_lagging_server_in_stale_mode_is_neither_rollback_nor_refresh() {
    let mut sim = Sim::with(Settings { consistency: Consistency::Stale, ..settings() }, Memory::default());
    sim.answer(100, &["a"]);
    sim.settle();
    sim.told();
    sim.probe(Ok(mark(90)));
    assert_eq!((sim.told(), sim.aborts), (vec!["heartbeat false".to_owned()], 0));
    assert_eq!(sim.probe, Some(Consistency::Consistent));
    sim.end_probe(Ok(mark(100)));
    assert_eq!(sim.told(), ["heartbeat true"]);
    sim.answer(90, &[]);
    sim.settle();
    assert_eq!((sim.asked(), sim.watch.unwrap().2), (None, Consistency::Consistent));
    assert!(sim.told().is_empty());
    sim.answer(100, &["a"]);
    assert_eq!(sim.told(), ["heartbeat true"]);
}

#[test]
fn consul_point_11_servers_that_are_behind_each_other_raise_no_alarm_while_their_members_agree() {
    let mut sim = Sim::with(Settings { consistency: Consistency::Stale, ..settings() }, Memory::default());
    sim.answer(100, &["a", "b"]);
    sim.settle();
    assert_eq!(sim.told(), [snapshot(&["a", "b"])]);
    // Each request comes to the next of three servers, also one for the leader.
    let mut indexes = [97, 95, 100].into_iter().cycle();
    let start = sim.now;
    let mut refreshed = sim.now;
    while sim.now.since(start) < Duration::from_secs(600) {
        match (sim.watch, sim.probe) {
            (Some((_, None, _)), _) => sim.answer(indexes.next().unwrap(), &["a", "b"]),
            (_, Some(_)) => sim.end_probe(Ok(mark(indexes.next().unwrap()))),
            _ => sim.tick(),
        }
        for event in sim.told() {
            assert!(event.starts_with("heartbeat"), "{event}");
            if event == "heartbeat true" {
                refreshed = sim.now;
            }
        }
        assert!(sim.now.since(refreshed) < Duration::from_secs(20));
    }
    // Each of the two lower indexes was looked into once, and each wait that was given up for it begins anew.
    assert!(sim.sent.len() <= 8, "{} requests", sim.sent.len());
    // Whoever is missing at a lower index is asked of the leader, and held.
    sim.answer(95, &["b"]);
    sim.settle();
    assert_eq!((sim.told().len(), sim.asked(), sim.watch.unwrap().2), (0, None, Consistency::Consistent));
    sim.answer(95, &["b"]);
    assert_eq!(sim.told(), ["doubtful index-rollback"]);
}

#[test]
fn consul_a_probe_of_our_index_is_a_refresh_and_one_of_another_is_not() {
    let mut sim = Sim::settled(&["a"], 100);
    sim.probe(Ok(mark(100)));
    assert_eq!(sim.told(), ["heartbeat true"]);
    sim.probe(Ok(mark(101)));
    assert_eq!(sim.told(), ["heartbeat false"]);
    sim.probe(Ok(Mark { index: None, ..mark(1) }));
    assert_eq!(sim.told(), ["heartbeat false"]);
    sim.probe(Ok(Mark { known_leader: Some(false), ..mark(100) }));
    assert_eq!(sim.told(), ["heartbeat false"]);
}

#[test]
fn consul_before_the_first_answer_no_probe_is_a_refresh() {
    let mut sim = Sim::with(settings(), Memory { index: 100, members: Some(set(&["a"])), ..Memory::default() });
    sim.probe(Ok(mark(100)));
    assert_eq!(sim.told(), ["heartbeat false"]);
}

#[test]
fn consul_a_late_answer_of_an_aborted_watch_is_ignored() {
    let mut sim = Sim::settled(&["a"], 100);
    let (number, ..) = sim.watch.unwrap();
    sim.probe(Ok(mark(12)));
    sim.settle();
    sim.told();
    let stale = WatchAnswer { mark: mark(100), members: set(&[]), lineage: Lineage::default(), skipped: 0 };
    sim.input(Input::Watch(number, Ok(stale)));
    assert!(sim.told().is_empty() && sim.watch.is_some());
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever the server does: no panic, one watch and one probe at a time, a sign of life every 5 s, and never a set
    /// that the server did not show.
    #[test]
    fn consul_whatever_the_server_answers_the_stream_stays_alive(steps in proptest::collection::vec(
        (0u8..8, 0u64..6, 0usize..4, 0u64..4000), 1..80,
    )) {
        let sets: [&[&str]; 4] = [&[], &["a"], &["a", "b"], &["b", "c"]];
        let mut sim = Sim::new();
        let mut last = sim.now;
        for (what, index, members, pause) in steps {
            let until = sim.now + Duration::from_millis(pause);
            while sim.machine.timeout() <= until {
                sim.tick();
                if !sim.events.is_empty() {
                    assert!(sim.now.since(last) <= crate::provider::SIGN_OF_LIFE);
                    last = sim.now;
                    sim.events.clear();
                }
            }
            sim.now = until;
            let mark = Mark {
                index: Some(index).filter(|index| *index > 0),
                last_contact: Some(Duration::from_secs(if what == 7 { 60 } else { 0 })),
                known_leader: Some(what != 6),
                may_lag: what == 5,
            };
            match (what, sim.watch.is_some(), sim.probe.is_some()) {
                (0, true, _) => sim.fail(),
                (1, _, true) => sim.end_probe(Err(error(ErrorCode::Timeout))),
                (2, _, true) => sim.end_probe(Ok(mark)),
                (_, true, _) => sim.answer_with(mark, sets[members]),
                _ => {}
            }
            for event in sim.events.drain(..) {
                last = sim.now;
                if let ProviderEvent::Snapshot { members: reported, .. } = event {
                    assert_eq!(reported, set(sets[members]));
                }
            }
        }
    }
}
