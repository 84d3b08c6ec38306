//! The examples end as a program should: told to, without readers, without input. They are run as `cargo test` has built
//! them; where only this test was built, those of an earlier build are, or none.
#![cfg(all(unix, feature = "consul"))]

#[path = "support/consul.rs"]
mod consul;
#[cfg(feature = "kubernetes")]
#[path = "support/kubernetes.rs"]
mod kubernetes;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use consul::Consul;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An example that runs, without input; its errors are kept. It is ended with the test.
struct Example {
    child: Child,
    /// The lines to come; `None` if nobody reads them any more.
    output: Option<Receiver<String>>,
    read: Vec<String>,
}

impl Example {
    /// Starts it, with that Consul in its environment; `None` if it has not been built.
    fn start(name: &str, arguments: &[&str], consul: &str) -> Option<Self> {
        let own = std::env::current_exe().unwrap();
        let path: PathBuf = own.parent().and_then(|folder| folder.parent()).unwrap().join("examples").join(name);
        if !path.is_file() {
            assert!(std::env::var("LIVE_SERVERS").as_deref() != Ok("required"), "{} is missing", path.display());
            println!("skipped: {} is not built (cargo build --examples)", path.display());
            return None;
        }
        let mut command = Command::new(path);
        command.args(arguments).env("CONSUL_HTTP_ADDR", consul).env_remove("CONSUL_HTTP_TOKEN");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, output) = channel();
        let printed = BufReader::new(child.stdout.take().unwrap());
        // It ends with the output, or with the first line that nobody takes; the pipe is closed then.
        std::thread::spawn(move || printed.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Some(Self { child, output: Some(output), read: Vec::new() })
    }

    /// Waits until there is a line with that text, also one from before; the line.
    fn read_to(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.read.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.as_ref().unwrap().recv_timeout(left) {
                Ok(line) => self.read.push(line),
                Err(_) => {
                    let errors = self.errors();
                    panic!("{text} never came: {:#?} {errors}", self.read)
                }
            }
        }
    }

    fn tell_to_end(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Nobody reads what it prints any more.
    fn close_output(&mut self) {
        self.output = None;
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The last line that was read, what it said of errors, and how it ended.
    fn finish(mut self) -> (String, String, ExitStatus) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:#?}", self.read);
            std::thread::sleep(Duration::from_millis(5));
        };
        if let Some(output) = self.output.take() {
            self.read.extend(output);
        }
        (self.read.last().cloned().unwrap_or_default(), self.errors(), status)
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        _ = self.child.kill();
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The ids of the processes that it has started and that still run.
#[cfg(feature = "gossip")]
fn children_of(process: u32) -> Vec<u32> {
    let listed = Command::new("ps").args(["-A", "-o", "ppid=,pid="]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let pairs = listed.lines().filter_map(|line| {
        let mut words = line.split_whitespace().map(|word| word.parse().ok());
        Some((words.next()??, words.next()??))
    });
    pairs.filter(|(parent, _): &(u32, u32)| *parent == process).map(|(_, child)| child).collect()
}

/// A URL at which nobody answers.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn a_tour_whose_output_is_closed_ends_quietly() {
    for name in ["custom_provider", "quickstart"] {
        let Some(mut example) = Example::start(name, &[], NOBODY) else { return };
        example.read_to("");
        example.close_output();
        let (_, errors, status) = example.finish();
        assert!(status.success() && errors.is_empty(), "{name}: {status}, {errors}");
    }
}

#[test]
fn p2_5_the_smallest_host_starts_without_a_consul_says_so_and_leaves_when_told_to() {
    let Some(mut host) = Example::start("minimal_host", &[NOBODY], NOBODY) else { return };
    host.read_to("seeds is followed (initial)");
    host.read_to("placement is open");
    let warning = host.read_to("provider-pending");
    assert!(warning.contains("(provider consul)"), "{warning}");
    assert!(host.is_running(), "without input there is nothing that could end it");
    host.tell_to_end();
    let (_, errors, status) = host.finish();
    assert!(status.success() && errors.is_empty(), "{status}, {errors}");
}

#[test]
fn the_smallest_host_follows_a_consul_that_comes_up_later_and_its_members() {
    let Some(mut agent) = Consul::start() else { return };
    agent.kill();
    let Some(mut host) = Example::start("minimal_host", &[&agent.url()], NOBODY) else { return };
    host.read_to("provider-pending");
    agent.restart();
    agent.register("orders", "orders-1", 7001);
    host.read_to("consul is followed instead of seeds (priority-restored)");
    host.read_to("snapshot of consul: 1 members, 1 joined, 2 left");
    host.tell_to_end();
    assert!(host.finish().2.success());
}

#[test]
fn p1_4_a_member_without_input_stays_and_deregisters_when_told_to_end_or_when_nobody_reads() {
    let Some(agent) = Consul::start() else { return };
    let (service, url) = ("cluster-provisioning-demo", agent.url());
    let node = "node-1@127.0.0.1:7001";
    let ends: [fn(&mut Example); 2] = [|example| example.tell_to_end(), Example::close_output];
    for (name, arguments) in [("consul", vec!["--member", node]), ("two_consuls", vec![node, &url, NOBODY])] {
        for end in ends {
            let Some(mut member) = Example::start(name, &arguments, &url) else { return };
            member.read_to("placement is open");
            assert_eq!(agent.passing(service).len(), 1, "{name}");
            assert!(member.is_running(), "{name}");
            end(&mut member);
            // What it prints of this shows it that nobody reads.
            let deadline = Instant::now() + PATIENCE;
            for port in 7_002.. {
                if !member.is_running() || Instant::now() > deadline {
                    break;
                }
                agent.register(service, "another", port);
                std::thread::sleep(Duration::from_millis(100));
            }
            let (_, errors, status) = member.finish();
            assert!(status.success() && errors.is_empty(), "{name}: {status}, {errors}");
            assert!(agent.passing(service).iter().all(|id| id == "another"), "{name}: {:?}", agent.passing(service));
            if !agent.passing(service).is_empty() {
                agent.deregister("another");
            }
        }
    }
}

#[cfg(feature = "gossip")]
#[test]
fn m3_3_five_processes_find_each_other_and_one_that_was_killed_waits_until_it_is_let_in_again() {
    let Some(mut tour) = Example::start("gossip_cluster", &[], NOBODY) else { return };
    tour.read_to("node-5 is started again");
    let reason = tour.read_to("it may come back in");
    assert!(reason.contains("it was declared dead, because it did not answer node-"), "{reason}");
    tour.read_to("node-4 leaves");
    let (last, errors, status) = tour.finish();
    assert!(status.success() && errors.is_empty(), "{status}, {last}, {errors}");
    assert!(last.starts_with("All of it was as it must be"), "{last}");
}

/// Whether that process runs.
#[cfg(feature = "gossip")]
fn runs(process: &u32) -> bool {
    let told = Command::new("ps").args(["-o", "stat=", "-p", &process.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

#[cfg(feature = "gossip")]
#[test]
fn processes_that_an_example_has_started_end_with_it_also_where_it_is_killed() {
    let kill: fn(&mut Example) = |tour| tour.child.kill().unwrap();
    let mut tours = vec![("gossip_cluster", 5, kill)];
    tours.push(("gossip_cluster", 5, |tour| tour.tell_to_end()));
    tours.push(("gossip_cluster", 5, Example::close_output));
    if consul::binary().is_some() {
        tours.push(("consul_with_gossip_fallback", 4, kill));
    }
    for (name, count, end) in tours {
        let Some(mut tour) = Example::start(name, &[], NOBODY) else { return };
        let deadline = Instant::now() + PATIENCE;
        let children = loop {
            let children = children_of(tour.child.id());
            if children.len() == count {
                break children;
            }
            assert!(Instant::now() < deadline, "{name} has started {children:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        // The Consul is a child of a child.
        let all: Vec<u32> = children.iter().flat_map(|child| children_of(*child)).chain(children.clone()).collect();
        end(&mut tour);
        let (last, _, status) = tour.finish();
        assert!(!status.success(), "it has not shown everything: {last}");
        while all.iter().any(runs) {
            assert!(Instant::now() < deadline, "{name} has left a process that runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[cfg(feature = "gossip")]
#[test]
fn p2_5_a_consul_that_is_killed_and_started_again_makes_nobody_leave_where_gossip_stands_by() {
    if consul::binary().is_none() {
        return;
    }
    let Some(mut tour) = Example::start("consul_with_gossip_fallback", &[], NOBODY) else { return };
    tour.read_to("All leave");
    let (last, errors, status) = tour.finish();
    assert!(status.success() && errors.is_empty(), "{status}, {last}, {errors}");
    assert!(last.starts_with("All of it was as it must be"), "{last}");
}

#[cfg(feature = "kubernetes")]
#[test]
fn p1_4_a_client_of_kubernetes_without_input_stays_and_leaves_when_told_to_end() {
    let Some(server) = kubernetes::Kubernetes::start() else { return };
    let labels = serde_json::json!({"cluster.proto.actor/cluster": "demo", "cluster.proto.actor/port": "7001"});
    server.run_pod("other", "10.1.0.2", &serde_json::json!({"labels": labels}));
    let (url, account) = (server.url(), server.service_account("admin"));
    let file = |name: &str| account.join(name).display().to_string();
    let (token, authority) = (file("token"), file("ca.crt"));
    let place = ["--server", &url, "--namespace", kubernetes::NAMESPACE];
    let proof = ["--token-file", &token, "--ca", &authority];
    let Some(mut client) = Example::start("kubernetes", &[&place[..], &proof[..]].concat(), NOBODY) else { return };
    client.read_to("+ other at 10.1.0.2:7001");
    client.read_to("placement is open");
    assert!(client.is_running());
    client.tell_to_end();
    let (last, errors, status) = client.finish();
    assert!(status.success() && errors.is_empty() && last == "Left", "{status}, {errors}, {last}");
}

#[test]
fn a_second_order_to_end_ends_at_once_also_during_the_start() {
    // Takes connections and never answers: the start waits for 5 s.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let Some(mut client) = Example::start("consul", &[], &url) else { return };
    _ = mute.accept().unwrap();
    client.tell_to_end();
    let told = Instant::now();
    while client.is_running() {
        assert!(told.elapsed() < PATIENCE, "it does not end");
        client.tell_to_end();
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = client.finish().2;
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "{status}");
}
