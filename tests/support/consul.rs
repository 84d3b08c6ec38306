//! A real Consul agent of a test's own, on free ports, ended by its process id also when the test fails.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
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

/// An agent in development mode: a server of its own with its state in memory.
pub struct Consul {
    binary: String,
    ports: Vec<u16>,
    child: Child,
    folder: tempfile::TempDir,
}

impl Consul {
    /// Starts one and waits until it leads; `None` if there is no binary.
    pub fn start() -> Option<Self> {
        let binary = binary()?;
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports(4);
        let child = spawn(&binary, &ports, &folder);
        let consul = Self { binary, ports, child, folder };
        consul.wait_for_leader();
        Some(consul)
    }

    /// Where its HTTP API is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Sends a request and returns status and body.
    pub fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: consul\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
    }

    /// A request that has to succeed.
    pub fn put(&self, path: &str, body: &str) {
        let (status, answer) = self.request("PUT", path, body).unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
    }

    /// Registers an instance whose TTL check passes for long.
    pub fn register(&self, service: &str, id: &str, port: u16) {
        let body = format!(
            r#"{{"ID":"{id}","Name":"{service}","Address":"127.0.0.1","Port":{port},"Tags":["user"],
                "Meta":{{"id":"{id}"}},"Check":{{"TTL":"10m","Status":"passing"}}}}"#
        );
        self.put("/v1/agent/service/register", &body);
    }

    /// Deregisters an instance.
    pub fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), "");
    }

    /// Sends the process a signal such as `STOP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// Kills it: its state is lost.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same ports, with an empty state.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.binary, &self.ports, &self.folder);
        self.wait_for_leader();
    }

    fn wait_for_leader(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            // The node's own registration comes last, and has to be there before indices mean anything.
            if let Ok((200, nodes)) = self.request("GET", "/v1/health/service/consul", "")
                && nodes.contains("serfHealth")
            {
                return;
            }
            assert!(Instant::now() < deadline, "Consul did not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(binary: &str, ports: &[u16], folder: &tempfile::TempDir) -> Child {
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let port = |n: usize| ports[n].to_string();
    Command::new(binary)
        .args(["agent", "-dev", "-bind", "127.0.0.1", "-grpc-port", "-1", "-dns-port", "-1"])
        .args(["-http-port", &port(0), "-server-port", &port(1)])
        .args(["-serf-lan-port", &port(2), "-serf-wan-port", &port(3)])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
