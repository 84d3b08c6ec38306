//! Gossip clusters of a hundred and two hundred members on real sockets, beside the figures of the simulation.
//!
//! Needs root, iproute2 and nftables, as `gossip_networks_live` does. Each takes minutes and most of a processor, so that
//! none runs unless it is asked for:
//!
//!     LIVE_SERVERS=required cargo test --test gossip_crowd_live -- --ignored --nocapture --test-threads=1 a_hundred
#![cfg(all(feature = "gossip", target_os = "linux"))]

#[path = "support/gossip_cluster.rs"]
mod gossip_cluster;
#[path = "support/gossip_crowd.rs"]
mod gossip_crowd;
#[path = "support/gossip_member.rs"]
mod gossip_member;
#[path = "support/member.rs"]
mod member;
#[path = "support/members.rs"]
mod members;
#[path = "support/network.rs"]
mod network;
#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use gossip_cluster::{SOON, is_gossip, lasting, start};
use gossip_crowd::{CROWD, Crowd, name};
use member::{Line, Setup, now};
use members::{MemberProcess, after};
use network::{Network, Shape};
use process::{cpu_time, resident};

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "a member of the other tests, in a process of its own"]
fn member_process() {
    gossip_member::run();
}

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "many members of the other tests, in a process of their own"]
fn crowd_process() {
    gossip_crowd::run();
}

#[test]
#[ignore = "takes minutes, and most of a processor"]
fn m1_4_m3_1_a_hundred_members_on_one_host_have_one_view_and_find_whoever_is_killed_dead() {
    let Some(network) = Network::start(Shape { hosts: 1, ..Shape::default() }) else { return };
    // Ten are processes of their own, since they are killed.
    let mut all = Members::start(network, &[0..23, 23..46, 46..68, 68..90], &[(1, 90..100)]);
    let one_view = all.wait_one_view(100);
    let took = after(all.last_start(), one_view);
    println!("one view {took:?} after the start of the last (simulation, all at once: 0.42 s, 0.62 s p95)");
    assert!(took < Duration::from_secs(10));
    let quiet = Duration::from_secs(60);
    // What a change has set off is over.
    lasting(Duration::from_secs(10));
    let before = all.counts();
    lasting(quiet);
    let counts = all.counts();
    let per_second = |what: usize| (counts[what] - before[what]) as f64 / quiet.as_secs_f64() / 90.0;
    let (bytes, datagrams) = (per_second(0), per_second(1));
    println!("{bytes:.1} bytes in {datagrams:.2} datagrams a member and second (simulation: 95 in 2.0)");
    assert!(bytes < 150.0);
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for number in (90..100).rev() {
        all.mark();
        let killed = all.kill(&name(number));
        let dead = all.wait_dead(&name(number), usize::from(number));
        let (at_first, at_last) = (dead.iter().min().unwrap(), dead.iter().max().unwrap());
        println!("{} is dead after {:?} to {:?}", name(number), after(killed, *at_first), after(killed, *at_last));
        first.push(after(killed, *at_first));
        last.push(after(killed, *at_last));
        all.wait_one_view(usize::from(number));
    }
    for times in [&mut first, &mut last] {
        times.sort();
    }
    let [first, last] = [first, last].map(|times| (times[times.len() / 2], times[times.len() - 1]));
    println!(
        "dead at the first: {:?} in the middle, {:?} at the most (simulation: 5.15 s, 7.98 s p95)",
        first.0, first.1
    );
    println!("dead at all: {:?} in the middle, {:?} at the most (simulation: 5.34 s, 8.20 s p95)", last.0, last.1);
    assert!(last.0 < Duration::from_millis(8_200));
    all.print_used();
    let killed: BTreeSet<String> = (90..100).map(name).collect();
    assert_eq!(who_left(all.lines()), killed, "nobody else ever left anybody's topology");
    all.finish();
}

#[test]
#[ignore = "takes minutes, and most of a processor"]
fn m2_4_of_two_hundred_members_two_that_lose_most_of_what_they_receive_take_nobody_with_them() {
    let Some(network) = Network::start(Shape { hosts: 3, ..Shape::default() }) else { return };
    let ill = [name(198), name(199)];
    let mut all = Members::start(network, &[0..50, 50..100, 100..150, 150..198], &[(2, 198..199), (3, 199..200)]);
    let one_view = all.wait_one_view(200);
    println!("one view {:?} after the start of the last", after(all.last_start(), one_view));
    all.mark();
    for host in [2, 3] {
        // Datagrams and connections alike.
        all.network.drop_at(host, "numgen random mod 10 < 8");
    }
    let began = now();
    lasting(Duration::from_secs(180));
    let took = after(began, now());
    let told = all.since();
    let times = |what: &str, is_ill: bool| {
        let is_meant = |line: &&Line| line.what == what && ill.contains(&line.ids[0]) == is_ill;
        told.iter().filter(is_meant).count()
    };
    println!(
        "in {took:?} all together suspected one of the ill {} times, and one of the healthy {} times",
        times("suspect", true),
        times("suspect", false)
    );
    println!(
        "and declared one of the ill dead {} times, and one of the healthy {} times",
        times("dead", true),
        times("dead", false)
    );
    for ill in &ill {
        let own = all.get(ill).lines();
        let told = |what: &str| own.iter().filter(|line| is_gossip(line, what)).count();
        println!("{ill} was isolated {} times, and expelled {} times", told("isolated"), told("expelled"));
    }
    all.print_used();
    let mut left = who_left(all.since());
    left.retain(|left| !ill.contains(left));
    assert_eq!(left, BTreeSet::new(), "healthy ones left somebody's topology");
    all.network.heal();
    all.wait_one_view(200);
    let mut left = who_left(all.since());
    left.retain(|left| !ill.contains(left));
    assert_eq!(left, BTreeSet::new(), "healthy ones left somebody's topology");
    all.finish();
}

/// Members in processes of many, and some in processes of their own.
struct Members {
    crowds: Vec<MemberProcess>,
    alone: Vec<MemberProcess>,
    network: Network,
    /// When the last process was started.
    started: u64,
    marks: BTreeMap<String, usize>,
}

impl Members {
    /// The crowds are on the first host, and the seeds are among them. The others are on the hosts that are named.
    fn start(network: Network, crowds: &[Range<u16>], alone: &[(u8, Range<u16>)]) -> Self {
        let seeds = network.address(1).to_string();
        let program = std::env::current_exe().unwrap();
        let crowds = crowds.iter().map(|numbers| {
            let crowd = Crowd { numbers: numbers.clone(), address: seeds.clone(), seeds: seeds.clone() };
            let mut command = network.command(1, program.to_str().unwrap());
            command.env(CROWD, serde_json::to_string(&crowd).unwrap());
            MemberProcess::of(&format!("{numbers:?}"), &mut command, gossip_crowd::PROCESS)
        });
        let crowds = crowds.collect();
        let hosts = alone.iter().flat_map(|(host, numbers)| numbers.clone().map(|number| (*host, number)));
        let alone = hosts.map(|(host, number)| {
            let (node, definition) = gossip_crowd::member(number, &network.address(host).to_string(), &seeds);
            start(&network, host, &Setup { node: Some(node), providers: vec![definition] })
        });
        Self { alone: alone.collect(), started: now(), crowds, network, marks: BTreeMap::new() }
    }

    fn processes(&self) -> impl Iterator<Item = &MemberProcess> {
        self.crowds.iter().chain(&self.alone)
    }

    /// The member of that id, which has a process of its own.
    fn get(&self, id: &str) -> &MemberProcess {
        self.alone.iter().find(|process| process.name() == id).unwrap()
    }

    /// When the last member began.
    fn last_start(&self) -> u64 {
        let starts = self.lines().into_iter().filter(|line| line.what == "starts");
        starts.map(|line| line.at).max().unwrap().max(self.started)
    }

    /// From here on it counts what they tell.
    fn mark(&mut self) {
        self.marks = self.processes().map(|process| (process.name().to_owned(), process.mark())).collect();
    }

    /// All that members told, in the words of a crowd; of those that were killed nothing is left.
    fn lines(&self) -> Vec<Line> {
        self.processes().flat_map(|process| in_words_of_a_crowd(process, process.lines())).collect()
    }

    /// The same since the mark.
    fn since(&self) -> Vec<Line> {
        let since = |process: &MemberProcess| process.since(self.marks.get(process.name()).copied().unwrap_or(0));
        self.processes().flat_map(|process| in_words_of_a_crowd(process, since(process))).collect()
    }

    /// Kills that member. When.
    fn kill(&mut self, id: &str) -> u64 {
        let at = self.alone.iter().position(|process| process.name() == id).unwrap();
        let mut process = self.alone.remove(at);
        let at = now();
        process.kill();
        at
    }

    /// Waits until so many show the same, which has as many members; when the last of them came to that.
    fn wait_one_view(&self, count: usize) -> u64 {
        wait(|| {
            let mut views = BTreeMap::new();
            for line in self.lines().into_iter().filter(|line| line.what == "update") {
                views.insert(line.provider, ((line.text, line.code), line.at));
            }
            let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
            views.values().for_each(|(view, _)| *kinds.entry(view).or_default() += 1);
            let is_one = kinds.len() == 1 && kinds.keys().all(|(members, _)| *members == count.to_string());
            match is_one && views.len() == count {
                true => Ok(views.values().map(|(_, at)| *at).max().unwrap()),
                false => Err(format!("{} members have {kinds:?}", views.len())),
            }
        })
    }

    /// Waits until so many have declared that one dead since the mark; when each did.
    fn wait_dead(&self, id: &str, count: usize) -> Vec<u64> {
        wait(|| {
            let dead = self.since().into_iter().filter(|line| is_dead(line, id));
            let dead: BTreeMap<String, u64> = dead.map(|line| (line.provider, line.at)).collect();
            match dead.len() == count {
                true => Ok(dead.into_values().collect()),
                false => Err(format!("{id} is dead at {}", dead.len())),
            }
        })
    }

    /// What all in crowds have sent together: bytes, and the datagrams that they were in.
    fn counts(&mut self) -> [u64; 2] {
        let mut sums = [0; 2];
        for crowd in &mut self.crowds {
            let mark = crowd.mark();
            crowd.command("counts");
            let line = crowd.wait_line_since(mark, "counts", SOON, |line| line.what == "counts");
            let counts = line.text.split(' ').map(|count| count.parse::<u64>().unwrap());
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }

    /// What holds for everyone, whatever happened.
    fn finish(self) {
        self.processes().for_each(MemberProcess::check);
    }

    /// What each crowd has used until now.
    fn print_used(&self) {
        for crowd in &self.crowds {
            println!("members {}: {} KiB, {:?} of CPU", crowd.name(), resident(crowd.id()), cpu_time(crowd.id()));
        }
    }
}

/// What a member alone tells, as a crowd tells it; what a crowd tells stays.
fn in_words_of_a_crowd(process: &MemberProcess, lines: Vec<Line>) -> Vec<Line> {
    let said = |line: Line| match line.what.as_str() {
        "gossip" if line.value == "update" => Line {
            what: "update".to_owned(),
            text: line.ids.len().to_string(),
            provider: process.name().to_owned(),
            ..line
        },
        "gossip" if line.value == "state" => {
            Line { what: line.code.clone(), provider: process.name().to_owned(), ..line }
        }
        "snapshot" => Line { what: "topology".to_owned(), provider: process.name().to_owned(), ..line },
        _ => line,
    };
    lines.into_iter().map(said).collect()
}

fn is_dead(line: &Line, id: &str) -> bool {
    line.what == "dead" && line.ids == [id]
}

/// Whoever left anybody's topology.
fn who_left(lines: Vec<Line>) -> BTreeSet<String> {
    lines
        .into_iter()
        .filter(|line| matches!(line.what.as_str(), "update" | "topology"))
        .flat_map(|line| line.left)
        .collect()
}

/// Waits until there is that, or panics with what is there instead.
fn wait<T>(mut wanted: impl FnMut() -> Result<T, String>) -> T {
    let ends = Instant::now() + 2 * SOON;
    loop {
        match wanted() {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < ends, "{instead}"),
        }
        // Not often, since it is a burden on the members.
        std::thread::sleep(Duration::from_millis(250));
    }
}
