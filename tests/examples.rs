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
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use consul::Consul;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An example that runs, without input; its errors are kept. It is ended with the test.
struct Example {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
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
        let output = child.stdout.take().map(BufReader::new);
        Some(Self { child, output })
    }

    /// Reads until a line with that text; the line.
    fn read_to(&mut self, text: &str) -> String {
        let mut read = String::new();
        for line in self.output.as_mut().unwrap().lines() {
            let line = line.unwrap();
            if line.contains(text) {
                return line;
            }
            read += &format!("{line}\n");
        }
        panic!("{text} never came: {read}{}", self.errors());
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

    /// What it has printed since, what it said of errors, and how it ended.
    fn finish(mut self) -> (String, String, ExitStatus) {
        let mut rest = String::new();
        if let Some(mut output) = self.output.take() {
            output.read_to_string(&mut rest).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        (rest, self.errors(), status)
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
            agent.register(service, "another", 7002);
            let (_, errors, status) = member.finish();
            assert!(status.success() && errors.is_empty(), "{name}: {status}, {errors}");
            agent.deregister("another");
            assert_eq!(agent.passing(service), Vec::<String>::new(), "{name}");
        }
    }
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
    let (rest, errors, status) = client.finish();
    assert!(status.success() && errors.is_empty() && rest.ends_with("Left\n"), "{status}, {errors}, {rest}");
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
