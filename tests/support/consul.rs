//! A real Consul agent of a test's own, on free ports, ended by its process id also when the test fails.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The agent's binary: `CONSUL_BIN`, or `consul` on the PATH. Without one the test is skipped with a printed line, or
/// fails where `LIVE_SERVERS=required` is set.
pub fn binary() -> Option<String> {
    let named = std::env::var("CONSUL_BIN").ok().filter(|path| !path.is_empty());
    let binary = named.unwrap_or_else(|| "consul".to_owned());
    let runs = Command::new(&binary).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if runs.is_ok_and(|status| status.success()) {
        return Some(binary);
    }
    assert!(std::env::var("LIVE_SERVERS").as_deref() != Ok("required"), "no Consul: set CONSUL_BIN");
    println!("skipped: no Consul (set CONSUL_BIN)");
    None
}

/// How many ports an agent has: HTTP, server, two of gossip, and one that its configuration may name as `{port}`.
pub const PORTS: usize = 5;
/// Which of them is that of gossip among servers.
pub const GOSSIP: usize = 2;

/// How an agent is set up. Every agent is a server.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Keeps its state over a restart. Default: it is in memory and lost.
    pub kept: bool,
    /// How many servers elect a leader; 0 and 1: it leads by itself.
    pub servers: usize,
    /// More configuration, in HCL. `{folder}` is replaced by the agent's own.
    pub configuration: String,
    /// The token of the test's own requests.
    pub token: String,
    /// The [`PORTS`] ports. Default: any that are free.
    pub ports: Vec<u16>,
}

/// An agent that runs.
pub struct Consul {
    binary: String,
    setup: Setup,
    ports: Vec<u16>,
    child: Child,
    folder: tempfile::TempDir,
}

impl Consul {
    /// Starts one in development mode, a server of its own with its state in memory, and waits until it leads; `None`
    /// if there is no binary.
    pub fn start() -> Option<Self> {
        Self::start_with(&Setup::default())
    }

    /// Starts one and waits until it leads; `None` if there is no binary.
    pub fn start_with(setup: &Setup) -> Option<Self> {
        let consul = Self::begin(setup)?;
        consul.wait_for_leader();
        Some(consul)
    }

    /// Starts one and does not wait; `None` if there is no binary.
    pub fn begin(setup: &Setup) -> Option<Self> {
        let binary = binary()?;
        let folder = tempfile::tempdir().unwrap();
        let ports = if setup.ports.is_empty() { free_ports(PORTS) } else { setup.ports.clone() };
        let child = spawn(&binary, setup, &ports, &folder);
        Some(Self { binary, setup: setup.clone(), ports, child, folder })
    }

    /// Where its HTTP API is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The port that is its own for whatever else its configuration opens; `{port}` there.
    pub fn other_port(&self) -> u16 {
        self.ports[4]
    }

    /// Its own folder.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Its address among servers, as the status endpoints name it.
    pub fn server_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// The name of its node.
    pub fn node_name(&self) -> String {
        format!("node-{}", self.ports[0])
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Sends a request and returns status and body.
    pub fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let (status, body) = self.exchange(method, path, body.as_bytes())?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Sends a request and returns status and body, as bytes.
    pub fn exchange(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (length, token) = (body.len(), &self.setup.token);
        let token = if token.is_empty() { String::new() } else { format!("X-Consul-Token: {token}\r\n") };
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: consul\r\n{token}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&answer[..end]);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok((status, answer.split_off(end)))
    }

    /// A request that has to succeed; returns the answer's body.
    pub fn put(&self, path: &str, body: &str) -> String {
        let (status, answer) = self.request("PUT", path, body).unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// A request that has to succeed; returns the answer.
    pub fn get(&self, path: &str) -> serde_json::Value {
        let (status, answer) = self.request("GET", path, "").unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// The ids of the instances of a service that pass, as a request of the test's own shows them.
    pub fn passing(&self, service: &str) -> Vec<String> {
        let list = self.get(&format!("/v1/health/service/{service}?passing=1"));
        let entries = list.as_array().unwrap().iter();
        let mut ids: Vec<_> =
            entries.map(|entry| entry["Service"]["ID"].as_str().unwrap_or_default().to_owned()).collect();
        ids.sort();
        ids
    }

    /// Registers an instance whose TTL check passes for long. Its notes differ each time: for an equal registration an
    /// agent newer than 1.9 writes nothing.
    pub fn register(&self, service: &str, id: &str, port: u16) {
        static TIMES: AtomicU16 = AtomicU16::new(0);
        let notes = TIMES.fetch_add(1, Ordering::SeqCst);
        let body = format!(
            r#"{{"ID":"{id}","Name":"{service}","Address":"127.0.0.1","Port":{port},"Tags":["user"],"Meta":{{"id":"{id}"}},
                "Check":{{"TTL":"10m","Status":"passing","Notes":"registration {notes}"}}}}"#
        );
        self.put("/v1/agent/service/register", &body);
    }

    /// Deregisters an instance.
    pub fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), "");
    }

    /// Takes an instance out of the catalog, behind the agent's back.
    pub fn deregister_in_catalog(&self, id: &str) {
        let body = format!(r#"{{"Node":"{}","ServiceID":"{id}"}}"#, self.node_name());
        self.put("/v1/catalog/deregister", &body);
    }

    /// The whole state, as an operator saves it. An agent in development mode has none.
    pub fn save_snapshot(&self) -> Vec<u8> {
        let (status, body) = self.exchange("GET", "/v1/snapshot", b"").unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        body
    }

    /// Goes back to a saved state, while it runs.
    pub fn restore_snapshot(&self, snapshot: &[u8]) {
        let (status, body) = self.exchange("PUT", "/v1/snapshot", snapshot).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }

    /// Sends the process a signal such as `STOP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Kills it: what it does not keep is lost.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again on the same ports, with the state that it keeps, or with none.
    pub fn restart(&mut self) {
        self.begin_again();
        self.wait_for_leader();
    }

    /// The same, without waiting for it to lead.
    pub fn begin_again(&mut self) {
        self.kill();
        self.child = spawn(&self.binary, &self.setup, &self.ports, &self.folder);
    }

    /// Waits until there is a leader and this agent's own node is registered.
    pub fn wait_for_leader(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // The node's own registration comes last, and has to be there before indices mean anything.
            if let Ok((200, nodes)) = self.request("GET", "/v1/health/service/consul", "")
                && nodes.contains("serfHealth")
                && nodes.contains(&format!("\"{}\"", self.node_name()))
            {
                return;
            }
            assert!(Instant::now() < deadline, "Consul did not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(binary: &str, setup: &Setup, ports: &[u16], folder: &tempfile::TempDir) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.path().join("log")).unwrap();
    let port = |n: usize| ports[n].to_string();
    let own_folder = folder.path().display().to_string();
    let mut command = Command::new(binary);
    command.args(["agent", "-bind", "127.0.0.1", "-grpc-port", "-1", "-dns-port", "-1"]);
    if opens_grpc_tls(binary) {
        command.args(["-grpc-tls-port", "-1"]);
    }
    command.args(["-node", &format!("node-{}", ports[0])]);
    command.args(["-http-port", &port(0), "-server-port", &port(1)]);
    command.args(["-serf-lan-port", &port(2), "-serf-wan-port", &port(3)]);
    if setup.kept || setup.servers > 1 {
        command.args(["-server", "-bootstrap-expect", &setup.servers.max(1).to_string()]);
        command.args(["-data-dir", &folder.path().join("data").display().to_string()]);
        // As quick in elections as development mode is.
        command.args(["-hcl", "performance { raft_multiplier = 1 }"]);
    } else {
        command.arg("-dev");
    }
    if !setup.configuration.is_empty() {
        let configuration = setup.configuration.replace("{folder}", &own_folder).replace("{port}", &port(4));
        command.args(["-hcl", &configuration]);
    }
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn().unwrap()
}

/// Whether that version opens a port for gRPC over TLS unless it is told not to, by an option that earlier ones refuse.
fn opens_grpc_tls(binary: &str) -> bool {
    static OPENS: OnceLock<bool> = OnceLock::new();
    *OPENS.get_or_init(|| {
        let help = Command::new(binary).args(["agent", "-help"]).stdin(Stdio::null()).output();
        help.is_ok_and(|help| [help.stdout, help.stderr].iter().any(|text| has(text, b"-grpc-tls-port")))
    })
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Ports that nobody listens on: below those from which the system takes the ports of outgoing connections, so that a
/// server that is down for a while finds its own free again.
pub fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time begin at different places.
    let first = (std::process::id().wrapping_mul(97) % 20_000) as u16;
    let mut ports = Vec::new();
    while ports.len() < count {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::SeqCst) % 20_000) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    ports
}
