//! A network of its own for one test: hosts that are network namespaces, and a switch between them that is another.
//!
//! All of it is in namespaces, so that nothing is changed on the host itself and every network may use the same addresses.
//! The namespaces, and all that is in them, are removed when the network is dropped. What a run that was killed left behind
//! is removed by the next one.
#![allow(dead_code)]

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Begins the name of each namespace; the process and the network follow.
const PREFIX: &str = "gossip";
/// The names of the tables with what is dropped, and of each host's interface.
const FAULTS: &str = "faults";
const LINK: &str = "eth0";

/// How a network is built.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub hosts: u8,
    pub is_v6: bool,
    pub mtu: u16,
    /// Each host hears whatever is sent to others.
    pub is_hub: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { hosts: 5, is_v6: false, mtu: 1500, is_hub: false }
    }
}

/// See the module. Hosts are numbered from 1.
pub struct Network {
    name: String,
    shape: Shape,
}

impl Network {
    /// A network of that shape. `None`: there can be none here, which is printed.
    ///
    /// # Panics
    /// Where root is asked for one by `LIVE_SERVERS=required`, and it cannot be made.
    pub fn start(shape: Shape) -> Option<Self> {
        if let Err(why) = is_possible() {
            let is_required = std::env::var("LIVE_SERVERS").as_deref() == Ok("required") && is_root();
            assert!(!is_required, "no networks: {why}");
            println!("skipped: no networks: {why}");
            return None;
        }
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("{PREFIX}-{}-{count}", std::process::id()), shape };
        network.build();
        Some(network)
    }

    fn build(&self) {
        let (switch, mtu) = (self.switch(), self.shape.mtu);
        let mut all = format!("netns add {switch}\n");
        let mut at_switch = format!("link add br0 mtu {mtu} type bridge\nlink set br0 up\n");
        for host in self.hosts() {
            let namespace = self.namespace(host);
            all += &format!(
                "netns add {namespace}\n\
                 link add {LINK} mtu {mtu} netns {namespace} type veth peer name p{host} mtu {mtu} netns {switch}\n"
            );
            at_switch += &format!("link set p{host} master br0 up\n");
        }
        if self.shape.is_hub {
            at_switch += "link set br0 type bridge ageing_time 0\n";
        }
        ip(&["-batch", "-"], &all);
        ip(&["-n", &switch, "-batch", "-"], &at_switch);
        for host in self.hosts() {
            // Nobody else can have the address: there is no need to look for duplicates first.
            let (length, options) = if self.shape.is_v6 { (64, "nodad") } else { (24, "") };
            let address = self.address(host);
            let at_host =
                format!("link set lo up\nlink set {LINK} up\naddr add {address}/{length} dev {LINK} {options}\n");
            ip(&["-n", &self.namespace(host), "-batch", "-"], &at_host);
        }
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.shape.hosts
    }

    pub fn address(&self, host: u8) -> IpAddr {
        let address = if self.shape.is_v6 { format!("fd00:77::{host}") } else { format!("10.77.0.{host}") };
        address.parse().unwrap()
    }

    /// What runs that program on that host.
    pub fn command(&self, host: u8, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host), program]);
        command
    }

    /// The host receives no packet of which the condition of nftables holds; earlier ones stay.
    pub fn drop_at(&self, host: u8, condition: &str) {
        let chain = format!("inet {FAULTS} received");
        let rules = format!(
            "add table inet {FAULTS}\n\
             add chain {chain} {{ type filter hook input priority 0; }}\n\
             add rule {chain} iifname \"{LINK}\" {condition} drop\n"
        );
        let mut command = self.command(host, "nft");
        run(command.args(["-f", "-"]), &rules);
    }

    /// The host receives nothing from those.
    pub fn cut(&self, host: u8, from: &[u8]) {
        for from in from {
            let family = if self.shape.is_v6 { "ip6" } else { "ip" };
            self.drop_at(host, &format!("{family} saddr {}", self.address(*from)));
        }
    }

    /// Everybody receives everything again.
    pub fn heal(&self) {
        for host in self.hosts() {
            let mut command = self.command(host, "nft");
            // Where nothing was cut there is no table: one is made first.
            run(command.args(["-f", "-"]), &format!("add table inet {FAULTS}\ndelete table inet {FAULTS}\n"));
        }
    }

    /// The host's cable is pulled out of the switch, or plugged in again.
    pub fn plug(&self, host: u8, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        ip(&["-n", &self.switch(), "link", "set", &format!("p{host}"), state], "");
    }

    /// The host's interface is switched off or on.
    pub fn set_link(&self, host: u8, is_on: bool) {
        let state = if is_on { "up" } else { "down" };
        ip(&["-n", &self.namespace(host), "link", "set", LINK, state], "");
    }

    /// What that host finds by names.
    pub fn set_names(&self, host: u8, names: &[(IpAddr, &str)]) {
        let folder = folder(&self.namespace(host));
        std::fs::create_dir_all(&folder).unwrap();
        let lines: String = names.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
        std::fs::write(folder.join("hosts"), lines).unwrap();
    }

    fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.name)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let namespaces: Vec<String> = self.hosts().map(|host| self.namespace(host)).collect();
        namespaces.iter().chain([&self.switch()]).for_each(|namespace| remove(namespace));
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether there can be networks here.
fn is_possible() -> Result<(), String> {
    // Whoever tests the library does not mean to set up networks by that, though root may.
    if std::env::var_os("LIVE_SERVERS").is_none() {
        return Err("LIVE_SERVERS is not set".to_owned());
    }
    if !is_root() {
        return Err("this is not root".to_owned());
    }
    for (program, argument) in [("ip", "-V"), ("nft", "--version")] {
        let ran = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !ran.is_ok_and(|status| status.success()) {
            return Err(format!("there is no {program}: install iproute2 and nftables"));
        }
    }
    let probe = format!("{PREFIX}-{}-probe-{:?}", std::process::id(), std::thread::current().id());
    let probe: String = probe.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let made = Command::new("ip").args(["netns", "add", &probe]).output().map_err(|error| error.to_string())?;
    remove(&probe);
    match made.status.success() {
        true => Ok(()),
        false => Err(format!("there can be no namespaces: {}", String::from_utf8_lossy(&made.stderr).trim())),
    }
}

fn folder(namespace: &str) -> PathBuf {
    PathBuf::from("/etc/netns").join(namespace)
}

/// Removes a namespace with all that is in it. There may be none.
fn remove(namespace: &str) {
    _ = Command::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
    _ = std::fs::remove_dir_all(folder(namespace));
}

/// Removes the networks of processes that are gone, and whatever runs in them still.
fn sweep() {
    let names = |folder: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    for namespace in names("/run/netns").into_iter().chain(names("/etc/netns")) {
        let mut parts = namespace.split('-');
        let (Some(PREFIX), Some(process)) = (parts.next(), parts.next()) else { continue };
        if process.parse::<u32>().is_err() || PathBuf::from("/proc").join(process).exists() {
            continue;
        }
        if let Ok(found) = Command::new("ip").args(["netns", "pids", &namespace]).output() {
            for process in String::from_utf8_lossy(&found.stdout).split_whitespace() {
                _ = Command::new("kill").args(["-KILL", process]).stderr(Stdio::null()).status();
            }
        }
        remove(&namespace);
    }
}

fn ip(arguments: &[&str], input: &str) {
    run(Command::new("ip").args(arguments), input);
}

fn run(command: &mut Command, input: &str) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} with\n{input}: {error}");
}
