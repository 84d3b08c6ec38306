//! A thousand watchers of a thousand members, when an outage ends for all of them at one moment.
//!
//! Each has to compare all members before it calls them fresh, since an index that is ours again settles nothing. So each
//! fetches the whole body once, 2.6 MB of it: what has to hold is that they do not all do so in the same second.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const WATCHERS: usize = 1000;
const MEMBERS: usize = 1000;
/// What Consul says of an instance, not compressed.
const ENTRY: usize = 2_600;
/// An empty list with its head.
const PROBE: usize = 300;
/// By when everybody waits for news, at moments of their own.
const PEACE: Duration = Duration::from_secs(180);

/// What happens to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Timer,
    /// The watch of that number is answered.
    Answer(u64),
    Probe,
}

struct Watcher {
    machine: Machine,
    /// The watch under way.
    watch: Option<u64>,
    probing: bool,
    fresh_at: Option<Timestamp>,
}

/// The server and everyone who watches.
struct Crowd {
    watchers: Vec<Watcher>,
    due: BinaryHeap<Reverse<(Timestamp, usize, Due)>>,
    now: Timestamp,
    up: bool,
    index: u64,
    members: Members,
    /// What is sent in each second since the outage ended.
    sent: Vec<usize>,
    bodies: usize,
    counts_from: Option<Timestamp>,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let ids: Vec<String> = (0..MEMBERS).map(|n| format!("n{n:04}")).collect();
        let members = set(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let watcher = |n: usize| Watcher {
            machine: Machine::new(settings(), None, Memory::default(), seed * 1_000_003 + n as u64, now),
            watch: None,
            probing: false,
            fresh_at: None,
        };
        let mut crowd = Self {
            watchers: (0..WATCHERS).map(watcher).collect(),
            due: BinaryHeap::new(),
            now,
            up: true,
            index: 5000,
            members,
            sent: Vec::new(),
            bodies: 0,
            counts_from: None,
        };
        (0..WATCHERS).for_each(|n| crowd.drain(n));
        crowd
    }

    /// Takes what the machine orders, and what it says.
    fn drain(&mut self, n: usize) {
        let now = self.now;
        while let Some(output) = self.watchers[n].machine.output() {
            match output {
                Output::Watch { number, index, wait, .. } => {
                    self.watchers[n].watch = Some(number);
                    let is_held = self.up && index.is_some_and(|index| index >= self.index);
                    let at = if is_held { now + wait } else { now + Duration::from_millis(1) };
                    self.due.push(Reverse((at, n, Due::Answer(number))));
                }
                Output::Probe { .. } => {
                    self.watchers[n].probing = true;
                    self.due.push(Reverse((now + Duration::from_millis(1), n, Due::Probe)));
                }
                Output::AbortWatch => self.watchers[n].watch = None,
                Output::Event(ProviderEvent::Heartbeat { current: true } | ProviderEvent::Snapshot { .. }) => {
                    _ = self.watchers[n].fresh_at.get_or_insert(now);
                }
                _ => {}
            }
        }
        let timeout = self.watchers[n].machine.timeout();
        self.due.push(Reverse((timeout, n, Due::Timer)));
    }

    fn input(&mut self, n: usize, input: Input) {
        self.watchers[n].machine.handle(self.now, Standing::Client, input);
        self.drain(n);
    }

    /// Lets time pass up to then, or until all are fresh.
    fn run(&mut self, until: Timestamp) {
        while let Some(Reverse((at, n, due))) = self.due.pop() {
            if at > until {
                self.due.push(Reverse((at, n, due)));
                break;
            }
            self.now = at;
            match due {
                // Others were set since.
                Due::Timer if at < self.watchers[n].machine.timeout() => {}
                Due::Timer => self.input(n, Input::Timer),
                Due::Answer(number) => {
                    if self.watchers[n].watch.take_if(|pending| *pending == number).is_some() {
                        self.answer(n, number);
                    }
                }
                Due::Probe if std::mem::take(&mut self.watchers[n].probing) => {
                    let result = if self.up { Ok(mark(self.index)) } else { Err(refused()) };
                    self.count(PROBE);
                    self.input(n, Input::Probe(result));
                }
                Due::Probe => {}
            }
        }
        self.now = self.now.max(until);
    }

    fn answer(&mut self, n: usize, number: u64) {
        if !self.up {
            return self.input(n, Input::Watch(number, Err(refused())));
        }
        self.count(MEMBERS * ENTRY);
        self.bodies += usize::from(self.counts_from.is_some());
        let (mark, members) = (mark(self.index), self.members.clone());
        self.input(n, Input::Watch(number, Ok(WatchAnswer { mark, members, lineage: Lineage::default(), skipped: 0 })));
    }

    fn count(&mut self, bytes: usize) {
        let Some(from) = self.counts_from else { return };
        let second = self.now.since(from).as_secs() as usize;
        if self.sent.len() <= second {
            self.sent.resize(second + 1, 0);
        }
        self.sent[second] += bytes;
    }

    /// Every connection breaks, and none is accepted for so long.
    fn outage(&mut self, lasting: Duration) {
        self.up = false;
        for n in 0..WATCHERS {
            if let Some(number) = self.watchers[n].watch.take() {
                self.input(n, Input::Watch(number, Err(refused())));
            }
        }
        let end = self.now + lasting;
        self.run(end);
        self.up = true;
        self.counts_from = Some(self.now);
        self.watchers.iter_mut().for_each(|watcher| watcher.fresh_at = None);
    }
}

fn refused() -> Failure {
    Failure::from(error(ErrorCode::BackendUnavailable))
}

/// What is sent in each second after an outage, and when half and all of the watchers were fresh again.
fn after_an_outage(seed: u64, lasting: Duration, index: u64) -> (Vec<usize>, Duration, Duration) {
    let mut crowd = Crowd::new(seed);
    crowd.run(crowd.now + PEACE);
    crowd.outage(lasting);
    crowd.index = index;
    let back = crowd.now;
    let mut seconds = 0;
    while crowd.watchers.iter().any(|watcher| watcher.fresh_at.is_none()) {
        seconds += 1;
        assert!(seconds < 120, "somebody is never fresh again");
        crowd.run(back + Duration::from_secs(seconds));
    }
    assert_eq!(crowd.bodies, WATCHERS, "each fetches the whole body once");
    let mut fresh: Vec<_> = crowd.watchers.iter().filter_map(|watcher| watcher.fresh_at).collect();
    fresh.sort_unstable();
    (crowd.sent, fresh[WATCHERS / 2].since(back), fresh[WATCHERS - 1].since(back))
}

/// The most that is sent in a second, and all of it.
fn peak_and_total(sent: &[usize]) -> (usize, usize) {
    (sent.iter().copied().max().unwrap_or(0), sent.iter().sum())
}

#[test]
fn consul_point_7_a_thousand_watchers_do_not_fetch_everything_in_the_same_second_when_an_outage_ends() {
    let (kept, news, lost) = ((5000, "the state is kept"), (9000, "there is news"), (40, "the index is lost"));
    // The shorter the outage, the less have the pauses after errors spread the watchers: what is left is their turns, of 5 s.
    for (lasting, most, cases) in [
        (1, 30, [kept, news, lost]),
        (10, 20, [kept, news, lost]),
        (30, 10, [kept, news, lost]),
        (300, 10, [kept, news, lost]),
    ] {
        for ((index, what), seed) in cases.into_iter().zip(1..) {
            let (sent, half, last) = after_an_outage(seed, Duration::from_secs(lasting), index);
            let (peak, total) = peak_and_total(&sent);
            // From the first body to the last.
            let flows = |bytes: &usize| *bytes >= MEMBERS * ENTRY;
            let flow = sent.iter().rposition(flows).unwrap_or(0) + 1 - sent.iter().position(flows).unwrap_or(0);
            let text = format!(
                "{lasting} s, {what}: {} MB in {flow} s, {} MB in the busiest second, {:.2} x the mean; fresh after {:.0} s \
                 (half), {:.0} s (all)",
                total / 1_000_000,
                peak / 1_000_000,
                (peak * flow) as f64 / total as f64,
                half.as_secs_f64(),
                last.as_secs_f64(),
            );
            println!("{text}");
            assert!(peak * 100 <= total * most, "more than {most} % in one second: {text}");
        }
    }
}
