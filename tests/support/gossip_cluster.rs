//! A gossip cluster on a network of its own: each member is a process on a host of its own.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_provisioning::{GossipFactory, ProviderDescriptor};

use crate::member::{Line, Node, Setup, now};
use crate::members::{MemberProcess, after};
use crate::network::{Network, Shape};

pub const LABEL: &str = "networks";
pub const IDS: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// What takes no longer unless the test fails, also on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(60);

/// The provider `gossip` of members of that network: the first three hosts are seeds.
pub fn definition(network: &Network) -> ProviderDescriptor {
    let seeds = (1..=3).map(|host| network.address(host).to_string());
    seeds.fold(GossipFactory::descriptor("gossip", LABEL).unwrap(), ProviderDescriptor::endpoint)
}

/// A member of that id on that host.
pub fn setup(network: &Network, host: u8, id: &str) -> Setup {
    let address = network.address(host).to_string();
    let node = Node { id: id.to_owned(), address, port: 7001, incarnation: now() / 1_000_000, ..Node::default() };
    Setup { node: Some(node), providers: vec![definition(network)] }
}

/// Starts it.
pub fn start(network: &Network, host: u8, setup: &Setup) -> MemberProcess {
    let name = setup.node.as_ref().map_or("w", |node| &node.id);
    let program = std::env::current_exe().unwrap();
    MemberProcess::run(name, network.command(host, program.to_str().unwrap()), setup)
}

/// How long a member that has died is kept out at first.
pub const QUARANTINE: Duration = Duration::from_secs(10);

/// How long a fault lasts. Nothing is waited for: the time itself is the fault.
pub fn lasting(duration: Duration) {
    std::thread::sleep(duration);
}

/// The member was let in.
pub fn wait_joined(process: &MemberProcess) -> Line {
    process.wait_line("joined", SOON, |line| is_gossip(line, "joined"))
}

pub fn is_gossip(line: &Line, value: &str) -> bool {
    line.what == "gossip" && line.value == value
}

/// See the module. The members are in the order in which they were started.
pub struct Cluster {
    pub all: Vec<MemberProcess>,
    pub network: Network,
    marks: Vec<(String, usize)>,
}

impl Cluster {
    /// The five members, each on the host of its number, on a network of that shape; returns when all have one view. `None`:
    /// there can be no networks here.
    pub fn start(shape: Shape) -> Option<Self> {
        let network = Network::start(shape)?;
        Some(Self::on(network, |_, setup| setup))
    }

    /// The same on that network, each as it is changed.
    pub fn on(network: Network, changed: impl Fn(&Network, Setup) -> Setup) -> Self {
        let all = IDS.iter().zip(1..).map(|(id, host)| {
            let setup = changed(&network, setup(&network, host, id));
            start(&network, host, &setup)
        });
        let mut cluster = Self { all: all.collect(), network, marks: Vec::new() };
        cluster.wait_members(&IDS);
        cluster.wait_one_view(&IDS);
        cluster.mark();
        cluster
    }

    /// The member of that id.
    pub fn get(&self, id: &str) -> &MemberProcess {
        self.all.iter().find(|process| process.name() == id).unwrap()
    }

    /// All others.
    pub fn but(&self, id: &str) -> impl Iterator<Item = &MemberProcess> {
        self.all.iter().filter(move |process| process.name() != id)
    }

    /// Kills that member. When.
    pub fn kill(&mut self, id: &str) -> u64 {
        let at = self.all.iter().position(|process| process.name() == id).unwrap();
        let mut process = self.all.remove(at);
        let at = now();
        process.kill();
        at
    }

    /// From here on it counts what they see.
    pub fn mark(&mut self) {
        self.marks = self.all.iter().map(|process| (process.name().to_owned(), process.mark())).collect();
    }

    /// Where that begins in what this member told.
    pub fn mark_of(&self, id: &str) -> usize {
        self.marks.iter().find(|(name, _)| name == id).map_or(0, |(_, mark)| *mark)
    }

    /// Waits until the topology of each is these.
    pub fn wait_members(&self, ids: &[&str]) {
        self.all.iter().for_each(|process| _ = process.wait_members(ids, SOON));
    }

    /// Waits until all show these, and the same of them; their lives, and the hash that all have.
    pub fn wait_one_view(&self, ids: &[&str]) -> (Vec<String>, String) {
        let ends = Instant::now() + SOON;
        loop {
            let views: Vec<_> = self.all.iter().map(view).collect();
            let is_theirs = |lives: &[String]| {
                lives.len() == ids.len() && lives.iter().zip(ids).all(|(life, id)| life.split('@').next() == Some(id))
            };
            if views.iter().all(|view| *view == views[0] && is_theirs(&view.0)) {
                return views[0].clone();
            }
            assert!(Instant::now() < ends, "{ids:?} are no one view: {views:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until that member is dead for each of the others, and prints how long after that time it was.
    pub fn wait_dead(&self, id: &str, since: u64) {
        for process in self.but(id) {
            let line = process.wait_line_since(self.mark_of(process.name()), "dead", SOON, |line| is_dead(line, id));
            println!("{id} is dead at {} after {:?}", process.name(), after(since, line.at));
        }
    }

    /// Since the mark that member was declared dead, and nobody announced it again before its quarantine was over, which
    /// began with the first of its deaths as the others saw it. With two of these it was longer.
    pub fn assert_waited_for_its_quarantine(&self, id: &str) {
        let of = |process: &MemberProcess| process.since(self.mark_of(process.name()));
        let quarantined = self.but(id).flat_map(of).filter(|line| is_gossip(line, "quarantined") && line.ids == [id]);
        let died = quarantined.map(|line| line.at).min().unwrap();
        for process in self.but(id) {
            let has = |ids: &[String]| ids.iter().any(|other| other == id);
            let mut updates = of(process).into_iter().filter(|line| is_gossip(line, "update"));
            // Where it contradicted in time it never went.
            let Some(_) = updates.find(|line| has(&line.left)) else { continue };
            let back = updates.find(|line| has(&line.joined)).unwrap();
            let waited = after(died, back.at);
            println!("{id} is back at {} {waited:?} after it was declared dead", process.name());
            assert!(waited > QUARANTINE - Duration::from_secs(1), "it did not wait: {waited:?}");
        }
    }

    /// Who was declared dead since the mark, and at whom.
    pub fn deaths(&self) -> BTreeSet<(String, String)> {
        let of = |process: &MemberProcess| {
            let lines = process.since(self.mark_of(process.name()));
            let dead = lines.into_iter().filter(|line| is_gossip(line, "state") && line.code == "dead");
            dead.map(|line| (process.name().to_owned(), line.ids[0].clone())).collect::<Vec<_>>()
        };
        self.all.iter().flat_map(of).collect()
    }

    /// Since the mark nobody has left the topology of any of these but those.
    pub fn assert_nobody_left_but(&self, seen_by: &[&str], ids: &[&str]) {
        for id in seen_by {
            let mut left = self.get(id).who_left(self.mark_of(id));
            left.retain(|left| !ids.contains(&left.as_str()));
            assert_eq!(left, [""; 0], "as {id} saw it");
        }
    }

    /// What each has done, in words.
    pub fn print_counted(&mut self) {
        let counted = self.counted();
        self.all.iter().zip(counted).for_each(|(process, counted)| println!("{}: {counted}", process.name()));
    }

    /// How often that was counted by each.
    pub fn count(&mut self, what: &str) -> Vec<u64> {
        let of = |counted: &String| {
            let (_, rest) = counted.split_once(&format!(" {what}: ")).unwrap();
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
            digits.parse().unwrap()
        };
        self.counted().iter().map(of).collect()
    }

    fn counted(&mut self) -> Vec<String> {
        let counted = self.all.iter_mut().map(|process| {
            let mark = process.mark();
            process.command("metrics");
            process.wait_line_since(mark, "metrics", SOON, |line| line.what == "metrics").text
        });
        counted.collect()
    }

    /// What holds for everyone, whatever happened.
    pub fn finish(self) {
        self.all.iter().for_each(MemberProcess::check);
    }
}

fn is_dead(line: &Line, id: &str) -> bool {
    is_gossip(line, "state") && line.code == "dead" && line.ids == [id]
}

/// What the member announced last: the lives of all members, and their hash.
fn view(process: &MemberProcess) -> (Vec<String>, String) {
    let lines = process.lines();
    let last = lines.into_iter().rfind(|line| is_gossip(line, "update"));
    last.map_or_else(Default::default, |line| (line.ids, line.code))
}
