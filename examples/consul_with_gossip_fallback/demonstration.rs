//! A Consul and three members of its own, and what becomes of them when the Consul is killed.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::children::{Children, Line};
use crate::support::Console;

const MEMBERS: [&str; 3] = ["node-1", "node-2", "node-3"];
/// It takes less than half of this on a machine with nothing else to do.
const WITHIN: Duration = Duration::from_secs(150);

/// A Consul, and three members by name.
struct Demonstration {
    console: Console,
    children: Children,
    binary: String,
    ports: [u16; 4],
    began: Instant,
}

pub fn run() -> Result<(), String> {
    let binary = binary()?;
    let ports = free_ports()?;
    let (console, children) = (Console::open(Some(WITHIN))?, Children::new(WITHIN));
    Demonstration { console, children, binary, ports, began: Instant::now() }.play()
}

/// Runs a server that does not look at its input, and kills it (-9) when the input ends: by order, or with the
/// demonstration.
pub fn keep(command: &[String]) -> Result<(), String> {
    let [program, arguments @ ..] = command else { return Err(crate::USAGE.to_owned()) };
    let console = Console::open(None)?;
    let mut server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    while !console.is_over() {
        if let Ok(Some(status)) = server.try_wait() {
            return Err(format!("{program} has ended by itself: {status}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    _ = server.kill();
    _ = server.wait();
    Ok(())
}

impl Demonstration {
    fn play(mut self) -> Result<(), String> {
        self.console.say("Three members, a Consul that they follow, and their own gossip to fall back on.");

        self.scene("A Consul and three members are started");
        self.start_consul()?;
        self.start_member(MEMBERS[0], "7001", None)?;
        let what = "node-1 is a member by gossip";
        let port = self.wait(what, |lines| of(lines, 0, MEMBERS[0]).find_map(|line| rest(line, "gossip at port ")))?;
        let seed = format!("127.0.0.1:{port}");
        self.start_member(MEMBERS[1], "7002", Some(&seed))?;
        self.start_member(MEMBERS[2], "7003", Some(&seed))?;
        let what = "all three follow the Consul, and it shows them the same three members as their gossip does";
        let hash = self.wait(what, |lines| all_show_the_same(lines, 0, "consul", true))?;
        if of(&self.children.lines, 0, MEMBERS[0]).any(|line| line.contains("gossip is followed (initial)")) {
            self.say("node-1 was there before the Consul knew anybody: for ten seconds it has followed its gossip.");
        }
        self.say(&format!("After {:.0} s {what}:", self.began.elapsed().as_secs_f64()));
        self.say(&format!("the hashes of ids, incarnations, addresses, kinds and metadata are equal ({hash})."));

        self.scene("The Consul is killed (kill -9)");
        let (mark, killed) = (self.children.lines.len(), Instant::now());
        self.children.end_input("consul")?;
        let what = "all three follow their gossip";
        self.wait(what, |lines| all_switched(lines, mark, "gossip is followed instead of consul"))?;
        let why = self.wait("why", |lines| of(lines, mark, MEMBERS[0]).find_map(|line| rest(line, "why: ")))?;
        self.say(&format!("{:.0} s later {what}. node-1 says why:", killed.elapsed().as_secs_f64()));
        self.say(&format!("\"{why}\""));
        let what = "the members are the same, with the same hash";
        let hash_now = self.wait(what, |lines| all_show(lines, mark, "gossip", true))?;
        self.expect_quiet(mark, 1)?;
        if hash_now != hash {
            return Err(format!("the members are others: {hash_now} instead of {hash}"));
        }
        self.say(&format!("Each saw one switch of the provider, no leave and no join: {what}."));

        self.scene("The Consul is started again, without anything that it knew");
        let (back, started) = (self.children.lines.len(), Instant::now());
        self.start_consul()?;
        let what = "all three follow the Consul again";
        self.wait(what, |lines| all_switched(lines, back, "consul is followed instead of gossip"))?;
        let what_same = "both show the same three to each";
        let hash_now = self.wait(what_same, |lines| all_show_the_same(lines, back, "consul", true))?;
        self.expect_quiet(back, 1)?;
        self.expect_quiet(mark, 2)?;
        if hash_now != hash {
            return Err(format!("the members are others: {hash_now} instead of {hash}"));
        }
        self.say(
            "The members registered with it again while they followed their gossip. It had to prove itself first:",
        );
        self.say(&format!(
            "{:.0} s after its start {what}. Again: one switch, no leave, no join.",
            started.elapsed().as_secs_f64()
        ));

        self.scene("All leave");
        for member in MEMBERS.iter().rev() {
            let status = self.children.terminate(member)?;
            if !status.success() {
                return Err(format!("{member} did not leave in good order: {status}"));
            }
        }
        self.say("Each has left both, in good order.");
        self.console
            .say(format_args!("\nAll of it was as it must be, in {:.0} s.", self.began.elapsed().as_secs_f64()));
        Ok(())
    }

    fn scene(&self, title: &str) {
        self.console.say(format_args!("\n{:>3.0} s  {title}", self.began.elapsed().as_secs_f64()));
    }

    fn say(&self, text: &str) {
        self.console.say(format_args!("       {text}"));
    }

    fn wait<T>(&mut self, what: &str, found: impl Fn(&[Line]) -> Option<T>) -> Result<T, String> {
        self.children.wait(&self.console, what, found)
    }

    /// This program once more.
    fn own(&self) -> Result<Command, String> {
        let own = std::env::current_exe().map_err(|error| format!("this program does not know its file: {error}"))?;
        Ok(Command::new(own))
    }

    fn start_consul(&mut self) -> Result<(), String> {
        let mut command = self.own()?;
        command.args(["--keep", &self.binary, "agent", "-dev", "-bind", "127.0.0.1", "-node", "demonstration"]);
        for (option, port) in ["-http-port", "-server-port", "-serf-lan-port", "-serf-wan-port"].iter().zip(self.ports)
        {
            command.arg(option).arg(port.to_string());
        }
        command.args(["-dns-port", "-1", "-grpc-port", "-1"]);
        if opens_grpc_tls(&self.binary) {
            command.args(["-grpc-tls-port", "-1"]);
        }
        let mark = self.children.lines.len();
        self.children.start("consul", command)?;
        self.wait("the Consul is there", |lines| {
            of(lines, mark, "consul").find(|line| line.contains("Synced node info")).map(drop)
        })
    }

    fn start_member(&mut self, name: &str, port: &str, seed: Option<&str>) -> Result<(), String> {
        let mut command = self.own()?;
        command.arg(format!("{name}@127.0.0.1:{port}"));
        command.args(["--consul", &format!("http://127.0.0.1:{}", self.ports[0]), "--gossip", "127.0.0.1:0"]);
        if let Some(seed) = seed {
            command.args(["--seed", seed]);
        }
        self.children.start(name, command)
    }

    /// Since that line nobody has left, come or changed, and each member saw so many switches of the provider.
    fn expect_quiet(&self, mark: usize, switches: usize) -> Result<(), String> {
        for member in MEMBERS {
            let is_change = |line: &&str| {
                let line = line.trim_start();
                ["- ", "+ ", "~ "].iter().any(|change| line.starts_with(change))
            };
            if let Some(change) = of(&self.children.lines, mark, member).find(is_change) {
                return Err(format!("{member} saw a change of the members: {}", change.trim()));
            }
            let seen = of(&self.children.lines, mark, member).filter(|line| line.contains(" is followed ")).count();
            if seen != switches {
                return Err(format!("{member} saw {seen} switches of the provider instead of {switches}"));
            }
        }
        Ok(())
    }
}

/// What that child has printed, from that line on.
fn of<'a>(lines: &'a [Line], from: usize, child: &str) -> impl DoubleEndedIterator<Item = &'a str> {
    let child = child.to_owned();
    lines.iter().skip(from).filter(move |line| line.child == child).map(|line| line.text.as_str())
}

/// What a line says after these words.
fn rest(line: &str, words: &str) -> Option<String> {
    line.trim().strip_prefix(words).map(str::to_owned)
}

fn all_switched(lines: &[Line], from: usize, switch: &str) -> Option<()> {
    MEMBERS.iter().all(|member| of(lines, from, member).any(|line| line.contains(switch))).then_some(())
}

/// The hash of the three members that this provider shows to each, as each told last.
fn all_show(lines: &[Line], from: usize, provider: &str, is_followed: bool) -> Option<String> {
    let mut common: Option<String> = None;
    for member in MEMBERS {
        let line =
            of(lines, from, member).rev().map(str::trim).find(|line| line.starts_with(&format!("{provider} is ")))?;
        let (standing, hash) = line.split_once(": 3 members, hash ")?;
        let is_healthy = standing.starts_with(&format!("{provider} is healthy"));
        let is_as_said = is_healthy && standing.ends_with(", followed") == is_followed;
        if !is_as_said || common.as_ref().is_some_and(|common| common != hash) {
            return None;
        }
        common = Some(hash.to_owned());
    }
    common
}

/// The same, where the other one of the two shows them as well.
fn all_show_the_same(lines: &[Line], from: usize, followed: &str, is_followed: bool) -> Option<String> {
    let other = if followed == "consul" { "gossip" } else { "consul" };
    let hash = all_show(lines, from, followed, is_followed)?;
    (all_show(lines, from, other, !is_followed)? == hash).then_some(hash)
}

/// `CONSUL_BIN`, or `consul` on the PATH.
fn binary() -> Result<String, String> {
    let named = std::env::var("CONSUL_BIN").ok().filter(|path| !path.is_empty());
    let binary = named.unwrap_or_else(|| "consul".to_owned());
    let runs = Command::new(&binary).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match runs.is_ok_and(|status| status.success()) {
        true => Ok(binary),
        false => Err(format!(
            "{binary} is no Consul that runs. This demonstration starts one of its own: set CONSUL_BIN to a binary, or put \
             consul on the PATH.\nWith a Consul that you run yourself:\n\n{}",
            crate::USAGE
        )),
    }
}

/// Ports that nobody listens at: below those that the system gives to outgoing connections, so that they are still free
/// when the Consul is started again.
fn free_ports() -> Result<[u16; 4], String> {
    let first = 10_000 + (std::process::id().wrapping_mul(89) % 20_000) as u16;
    let mut free = (first..first + 1_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let mut ports = [0; 4];
    for port in &mut ports {
        *port = free.next().ok_or("no port is free")?;
    }
    Ok(ports)
}

/// Whether this version opens a port for gRPC over TLS unless it is told not to, by an option that earlier ones refuse.
fn opens_grpc_tls(binary: &str) -> bool {
    let help = Command::new(binary).args(["agent", "-help"]).stdin(Stdio::null()).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("-grpc-tls-port"))
}
