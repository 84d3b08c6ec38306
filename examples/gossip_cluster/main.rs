//! Five processes that find each other by gossip, and what becomes of one that is killed. Needs nothing, and takes half a
//! minute:
//!
//! ```sh
//! cargo run --example gossip_cluster
//! ```
//!
//! It starts itself five times on this machine and tells what the five see: a cluster forms, one process is killed and
//! found dead, its restart is refused until its quarantine is over, and another one leaves. The exit code is 0 if all of
//! that was as it must be. `examples/gossip` is one such node by itself, to play with.

#[path = "../support/children.rs"]
mod children;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use cluster_provisioning::*;

use children::{Children, Line};
use support::Console;

const USAGE: &str = "usage: gossip_cluster";
const NODES: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];
/// All of it takes half as long on a machine that has something else to do, too.
const WITHIN: Duration = Duration::from_secs(55);
/// Longer than a process takes to start, so that the one that is started again is there before it is over.
const QUARANTINE: &str = "8s";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    support::end(match arguments.as_slice() {
        [] => tour(),
        ["member", name, seeds @ ..] => member(name, seeds),
        _ => Err(USAGE.to_owned()),
    })
}

/// One of the five. Each line that it prints begins with the time in milliseconds.
fn member(name: &str, seeds: &[&str]) -> Result<(), String> {
    let text = |error: ProvisioningError| error.to_string();
    let console = Console::open(None)?;
    let clock = SystemClock::new();
    let say = |at: Timestamp, what: &str| console.say(format_args!("{} {what}", at.as_millis()));

    let mut definition = GossipFactory::descriptor("gossip", "tour")
        .map_err(text)?
        .parameter("bind", "127.0.0.1:0")
        .parameter("profile", "local")
        .parameter("quarantine", QUARANTINE);
    for seed in seeds {
        definition = definition.endpoint(*seed);
    }
    let factory = GossipFactory::new();
    let builder = ClusterProvisioningService::builder()
        .factory(Arc::new(factory.clone()))
        .provider(definition)
        .member(support::node(name, "127.0.0.1", 7001)?)
        .join_timeout(Duration::from_secs(3600));
    // It comes back when the node is a member; what keeps it out is told meanwhile.
    let starting = std::thread::spawn(move || builder.start());
    let gossip = loop {
        match factory.membership("gossip") {
            Some(gossip) => break gossip,
            None if starting.is_finished() => return Err("the provider was not made".to_owned()),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut events = gossip.subscribe(1_000);
    let mut starting = Some(starting);
    let mut service: Option<ClusterProvisioningService> = None;

    let (mut port, mut members, mut trouble) = (None, None, None);
    let (mut is_member, mut is_converged) = (false, false);
    while !console.is_over() {
        match events.recv_timeout(Duration::from_millis(20)) {
            Ok(GossipEvent::State { at, node, to: GossipState::Suspect, .. }) => {
                say(at, &format!("suspects {}", node.id()));
            }
            Ok(GossipEvent::State { at, node, to: GossipState::Dead, .. }) => say(at, &format!("dead {}", node.id())),
            Ok(GossipEvent::State { at, node, to: GossipState::Left, .. }) => say(at, &format!("left {}", node.id())),
            Ok(GossipEvent::Quarantined { at, node, until }) => {
                let entries = gossip.quarantined();
                let accusers = entries.iter().find(|entry| entry.id == node).map(|entry| &entry.accusers[..]);
                let accusers: Vec<_> = accusers.unwrap_or_default().iter().map(NodeId::as_str).collect();
                say(at, &format!("quarantines {node} {} {}", until.as_millis(), accusers.join(",")));
            }
            Ok(GossipEvent::Expelled { at, .. }) => say(at, "expelled"),
            Err(NoEvent::Closed) => return Err("the service has stopped".into()),
            _ => {}
        }
        let now = clock.now();
        if port.is_none() && gossip.port().is_some() {
            port = gossip.port();
            say(now, &format!("listens {}", port.unwrap_or(0)));
        }
        if gossip.is_member() != is_member {
            is_member = !is_member;
            say(now, if is_member { "member" } else { "outside" });
        }
        let amiss = gossip.trouble().map(|error| format!("{} {}", error.code(), error.detail()));
        if amiss != trouble {
            trouble = amiss;
            trouble.iter().for_each(|trouble| say(now, &format!("trouble {trouble}")));
        }
        if let Some(started) = starting.take_if(|starting| starting.is_finished()) {
            service = Some(started.join().map_err(|_| "the start has panicked")?.map_err(text)?);
        }
        let shown = service.as_ref().and_then(|service| service.hub().snapshot()).map(|snapshot| {
            let names: Vec<_> = snapshot.members.iter().map(|node| node.id().to_string()).collect();
            format!("members {} {:016x}", names.join(","), snapshot.members.hash())
        });
        if shown != members {
            members = shown;
            members.iter().for_each(|members| say(now, members));
        }
        if gossip.converged().is_some() != is_converged {
            is_converged = !is_converged;
            say(now, if is_converged { "converged" } else { "diverged" });
        }
    }
    service.map_or(Ok(()), |service| service.drain().map(drop).map_err(text))
}

/// What one of the five has told.
struct Told<'a> {
    who: &'a str,
    at: u64,
    what: &'a str,
    words: Vec<&'a str>,
}

/// What was told, from that line on.
fn told(lines: &[Line], from: usize) -> impl DoubleEndedIterator<Item = Told<'_>> {
    lines.iter().skip(from).filter_map(|line| {
        let (at, rest) = line.text.split_once(' ')?;
        let (what, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Told { who: &line.child, at: at.parse().ok()?, what, words: rest.split(' ').collect() })
    })
}

/// The first time that each of those told that about that node; once all have.
fn each(lines: &[Line], from: usize, who: &[&str], what: &str, word: &str) -> Option<BTreeMap<String, u64>> {
    let mut times = BTreeMap::new();
    for told in told(lines, from).filter(|told| told.what == what && told.words[0] == word && who.contains(&told.who)) {
        times.entry(told.who.to_owned()).or_insert(told.at);
    }
    (times.len() == who.len()).then_some(times)
}

/// When the last of those came to see just these members, and their hash, once all see the same.
fn one_view(lines: &[Line], from: usize, who: &[&str], members: &[&str]) -> Option<(u64, String)> {
    let members = members.join(",");
    let mut last: Option<(u64, String)> = None;
    for name in who {
        let shown = told(lines, from).rev().find(|told| told.who == *name && told.what == "members")?;
        let (at, hash) = (shown.at, shown.words[1].to_owned());
        if shown.words[0] != members || last.as_ref().is_some_and(|(_, others)| *others != hash) {
            return None;
        }
        last = Some((last.map_or(at, |(before, _)| before.max(at)), hash));
    }
    last
}

struct Tour {
    console: Console,
    children: Children,
}

impl Tour {
    fn start(&mut self, name: &str, seeds: &[String]) -> Result<(), String> {
        let own = std::env::current_exe().map_err(|error| format!("this program does not know its file: {error}"))?;
        let mut command = Command::new(own);
        command.arg("member").arg(name).args(seeds);
        self.children.start(name, command)
    }

    fn scene(&self, number: usize, title: &str) {
        self.console.say(format_args!("\n{number}. {title}"));
    }

    fn say(&self, text: impl std::fmt::Display) {
        self.console.say(format_args!("   {text}"));
    }

    fn seconds(from: u64, to: u64) -> String {
        match to.saturating_sub(from) {
            short @ 0..1_000 => format!("{short} ms"),
            long => format!("{:.1} s", Duration::from_millis(long).as_secs_f64()),
        }
    }

    /// Where a process listens that was started as that name last.
    fn port(&mut self, name: &str, from: usize) -> Result<String, String> {
        self.children.wait(&self.console, &format!("{name} listens"), |lines| {
            let line = told(lines, from).find(|told| told.who == name && told.what == "listens")?;
            Some(format!("127.0.0.1:{}", line.words[0]))
        })
    }
}

fn now() -> u64 {
    SystemClock::new().now().as_millis()
}

fn tour() -> Result<(), String> {
    let mut tour = Tour { console: Console::open(Some(WITHIN))?, children: Children::new(WITHIN) };
    let began = now();
    tour.console.say("A cluster by gossip: five processes on this machine, and no server beside them.");

    tour.scene(1, "Five processes find each other");
    tour.start(NODES[0], &[])?;
    let seeds = [tour.port(NODES[0], 0)?];
    tour.say(format_args!("node-1 has nobody to ask and is the first. It listens at {}.", seeds[0]));
    tour.say("node-2 to node-5 know that address, their seed, and nothing else.");
    for name in &NODES[1..] {
        tour.start(name, &seeds)?;
    }
    let what = "all five see the same five members";
    let (at, hash) = tour.children.wait(&tour.console, what, |lines| one_view(lines, 0, &NODES, &NODES))?;
    tour.say(format_args!("{} after the start of the first: {what} (hash {hash}).", Tour::seconds(began, at)));
    let what = "each knows that all others see the same";
    let converged = |lines: &[Line]| {
        let last = |name| told(lines, 0).rfind(|told| told.who == name && told.what.ends_with("verged"));
        NODES.iter().try_fold(at, |at, name| last(*name).filter(|told| told.what == "converged").map(|t| at.max(t.at)))
    };
    let at = tour.children.wait(&tour.console, what, converged)?;
    tour.say(format_args!("{} after it: {what}.", Tour::seconds(began, at)));

    let (victim, survivors) = (NODES[4], &NODES[..4]);
    tour.scene(2, "node-5 is killed (kill -9): it can tell nobody");
    let mark = tour.children.lines.len();
    let killed = now();
    tour.children.kill(victim);
    let what = "all four others have declared node-5 dead";
    let dead = tour.children.wait(&tour.console, what, |lines| each(lines, mark, survivors, "dead", victim))?;
    let suspicions = told(&tour.children.lines, mark).filter(|told| told.what == "suspects" && told.words[0] == victim);
    let first = suspicions.min_by_key(|told| told.at).ok_or("node-5 is dead, and nobody has suspected it")?;
    tour.say(format_args!(
        "{} after the kill {} gets no answer and suspects it.",
        Tour::seconds(killed, first.at),
        first.who
    ));
    let all_dead = dead.values().copied().max().unwrap_or(killed);
    tour.say("The others hear of that and ask node-5, too: had it been there, it would have contradicted.");
    tour.say(format_args!("{} after the kill {what}.", Tour::seconds(killed, all_dead)));
    let what = "the quarantine at each";
    let quarantined =
        tour.children.wait(&tour.console, what, |lines| each(lines, mark, survivors, "quarantines", victim))?;
    let entries: Vec<(u64, String)> = told(&tour.children.lines, mark)
        .filter(|told| told.what == "quarantines" && told.words[0] == victim && quarantined.contains_key(told.who))
        .filter_map(|told| Some((told.words.get(1)?.parse().ok()?, told.words.get(2)?.replace(',', ", "))))
        .collect();
    let (until, accusers) = entries.iter().min().ok_or("node-5 is not quarantined")?.clone();
    tour.say(format_args!(
        "It is quarantined until {} ({} after that), because it did not answer {accusers}.",
        &Timestamp::from_millis(until).to_string()[11..19],
        Tour::seconds(all_dead, until)
    ));
    let what = "the four see the same four members";
    tour.children.wait(&tour.console, what, |lines| one_view(lines, mark, survivors, survivors))?;

    tour.scene(3, "node-5 is started again, too early");
    let mark = tour.children.lines.len();
    tour.start(victim, &seeds)?;
    tour.port(victim, mark)?;
    let what = "node-5 is not let in while it is quarantined";
    let (at, reason) = tour.children.wait(&tour.console, what, |lines| {
        let mut own = told(lines, mark).filter(|told| told.who == victim);
        let first = own.find(|told| told.what == "member" || told.words[0] == "admission-refused")?;
        Some((first.at, (first.what != "member").then(|| first.words[1..].join(" "))))
    })?;
    let reason = reason.ok_or(format!("node-5 was let in {} before the end", Tour::seconds(at, until)))?;
    tour.say("It is a new process with a new incarnation, and still has to wait:");
    tour.say(format_args!("\"{reason}\""));
    let what = "node-5 is a member again";
    let back = tour.children.wait(&tour.console, what, |lines| {
        told(lines, mark).find(|told| told.who == victim && told.what == "member").map(|told| told.at)
    })?;
    // The entry is a time of day in another process, which is some milliseconds off.
    if back + 100 < until {
        return Err(format!("node-5 was let in {} before its quarantine was over", Tour::seconds(back, until)));
    }
    tour.say(format_args!("It asks again by itself, and is let in {} after the end.", Tour::seconds(until, back)));
    let what = "all five see the same five members again";
    let (at, _) = tour.children.wait(&tour.console, what, |lines| one_view(lines, mark, &NODES, &NODES))?;
    tour.say(format_args!("{} after that {what}.", Tour::seconds(back, at)));

    let (leaver, others) = (NODES[3], ["node-1", "node-2", "node-3", "node-5"]);
    tour.scene(4, "node-4 leaves (SIGTERM)");
    let mark = tour.children.lines.len();
    let ordered = now();
    let status = tour.children.terminate(leaver)?;
    if !status.success() {
        return Err(format!("node-4 did not leave in good order: {status}"));
    }
    let what = "all others know that it has left";
    let left = tour.children.wait(&tour.console, what, |lines| each(lines, mark, &others, "left", leaver))?;
    let at = left.values().copied().max().unwrap_or(ordered);
    tour.say(format_args!(
        "It tells the others before it goes: {} after the order {what}.",
        Tour::seconds(ordered, at)
    ));
    let what = "the four others see the same four members";
    tour.children.wait(&tour.console, what, |lines| one_view(lines, mark, &others, &others))?;

    let amiss = told(&tour.children.lines, 0).find(|told| {
        let is_false_death = told.what == "dead" && told.words[0] != victim;
        is_false_death || told.what == "expelled" || (told.what == "quarantines" && told.words[0] == leaver)
    });
    if let Some(told) = amiss {
        return Err(format!("{} told what is not true: {} {}", told.who, told.what, told.words.join(" ")));
    }
    tour.say("Nobody suspects it, nobody waits for it, and it is not quarantined: it may come back at once.");
    tour.console.say(format_args!("\nAll of it was as it must be, in {}.", Tour::seconds(began, now())));
    Ok(())
}
