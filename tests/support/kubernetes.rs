//! A real Kubernetes API server with its etcd, of a test's own, on free ports, ended by their process ids also when the
//! test fails. There is no kubelet: a test sets the status of its pods itself.
#![allow(dead_code)]

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use cluster_provisioning::{Credential, KubernetesFactory, ProviderDescriptor, Secret, Secrets};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::TlsConfig;

/// The token of the test's own requests, which may do everything.
const ADMIN: &str = "admin-t0ken";
/// Users without rights but those that a test gives them; their tokens are `<name>-t0ken`.
const USERS: [&str; 3] = ["client", "member", "nobody"];
/// The key of the tokens of service accounts.
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/client-rsa.key");
/// How many pods are put at once: etcd takes 1.5 MiB.
const TXN_MAX: usize = 1000;
/// The namespace of everything here.
pub const NAMESPACE: &str = "default";

/// The servers' binaries: `TEST_ASSET_KUBE_APISERVER` and `TEST_ASSET_ETCD`, as envtest names them. Without them the test
/// is skipped with a printed line, or fails where `LIVE_SERVERS=required` is set.
fn binaries() -> Option<(PathBuf, PathBuf)> {
    let binary = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
    let both = binary("TEST_ASSET_KUBE_APISERVER").zip(binary("TEST_ASSET_ETCD"));
    if both.is_none() {
        let required = std::env::var("LIVE_SERVERS").as_deref() == Ok("required");
        assert!(!required, "no API server: set TEST_ASSET_KUBE_APISERVER and TEST_ASSET_ETCD");
        println!("skipped: no API server (set TEST_ASSET_KUBE_APISERVER and TEST_ASSET_ETCD)");
    }
    both
}

/// Logs who other than the test itself asked for pods.
const AUDIT: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
    {"level": "None", "userGroups": ["system:masters"]},
    {"level": "Metadata", "resources": [{"group": "", "resources": ["pods"]}]}]}"#;

/// What a server shows to those who connect.
#[derive(Clone, Debug, Default)]
pub struct Serving {
    /// Its certificate and its key, in place of one that it makes and signs itself.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The authority that a definition trusts, in place of that certificate.
    pub authority: Option<PathBuf>,
    /// The authority by whose certificates it knows its clients.
    pub clients: Option<PathBuf>,
}

/// One of the two processes.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    Server,
    Etcd,
}

/// An API server that runs.
pub struct Kubernetes {
    binaries: (PathBuf, PathBuf),
    ports: [u16; 3],
    etcd: Child,
    server: Child,
    agent: Agent,
    folder: tempfile::TempDir,
    serving: Serving,
}

impl Kubernetes {
    /// Starts one and waits until it is ready; `None` if there are no binaries.
    pub fn start() -> Option<Self> {
        Self::start_serving(Serving::default())
    }

    /// The same, with a certificate of the test's own.
    pub fn start_serving(serving: Serving) -> Option<Self> {
        let binaries = binaries()?;
        let folder = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let mut tokens = format!("{ADMIN},admin,admin-uid,\"system:masters\"\n");
        for user in USERS {
            tokens.push_str(&format!("{user}-t0ken,{user},{user}-uid\n"));
        }
        std::fs::write(folder.path().join("tokens.csv"), tokens).unwrap();
        std::fs::write(folder.path().join("audit.json"), AUDIT).unwrap();
        let etcd = spawn_etcd(&binaries.1, &ports, folder.path());
        let server = spawn_server(&binaries.0, &ports, folder.path(), &serving);
        let tls = TlsConfig::builder().disable_verification(true).build();
        let agent = Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None);
        let agent = agent.timeout_global(Some(Duration::from_secs(20))).build().new_agent();
        let kubernetes = Self { binaries, ports, etcd, server, agent, folder, serving };
        kubernetes.await_ready();
        Some(kubernetes)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The file with the authority of the server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.serving.authority.clone().unwrap_or_else(|| self.folder.path().join("certs/apiserver.crt"))
    }

    /// A folder as the kubelet puts it into a pod, with the token of that user.
    pub fn service_account(&self, user: &str) -> PathBuf {
        let folder = self.folder.path().join(format!("account-{user}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(self.authority(), folder.join("ca.crt")).unwrap();
        std::fs::write(folder.join("token"), format!("{user}-t0ken\n")).unwrap();
        std::fs::write(folder.join("namespace"), NAMESPACE).unwrap();
        folder
    }

    /// The definition of a provider of the pods of `cluster`, for one of the users.
    pub fn descriptor(&self, cluster: &str, user: &str) -> ProviderDescriptor {
        KubernetesFactory::descriptor("k8s", cluster)
            .unwrap()
            .endpoint(self.url())
            .credential(Credential::Secret(user.to_owned()))
            .parameter("namespace", NAMESPACE)
            .parameter("ca-file", self.authority().display().to_string())
            .parameter("probe-interval", "1s")
    }

    /// The tokens of all users, by their names.
    pub fn secrets() -> Secrets {
        let users = USERS.into_iter().chain(["admin"]);
        Secrets::new(users.map(|user| (user.to_owned(), Secret::new(format!("{user}-t0ken")))))
    }

    /// Sends a request and returns status and body.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
        self.visitor().request(method, path, body)
    }

    /// Who asks the server as an admin, for as long as it runs.
    pub fn visitor(&self) -> Visitor {
        Visitor { url: self.url(), agent: self.agent.clone() }
    }

    /// A request that has to succeed.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, body).unwrap();
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Creates a pod that runs at that address and is ready.
    pub fn run_pod(&self, name: &str, address: &str, metadata: &Value) {
        let mut metadata = metadata.clone();
        metadata["name"] = json!(name);
        let spec = json!({"containers": [{"name": "main", "image": "none"}]});
        let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        self.call("POST", &pods, &json!({"metadata": metadata, "spec": spec}));
        self.set_status(
            name,
            &json!({
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }),
        );
    }

    /// Creates a pod that is a member of `cluster` without any doing of its own.
    pub fn run_member(&self, cluster: &str, name: &str, address: &str) {
        let labels = json!({"cluster.proto.actor/cluster": cluster, "cluster.proto.actor/port": "7001"});
        self.run_pod(name, address, &json!({"labels": labels}));
    }

    pub fn set_status(&self, name: &str, status: &Value) {
        let path = format!("{}/status", pod_path(name));
        self.call("PATCH", &path, &json!({"status": status}));
    }

    pub fn patch_pod(&self, name: &str, patch: &Value) {
        self.call("PATCH", &pod_path(name), patch);
    }

    pub fn pod(&self, name: &str) -> Value {
        self.call("GET", &pod_path(name), &Value::Null)
    }

    pub fn delete_pod(&self, name: &str) {
        self.call("DELETE", &format!("{}?gracePeriodSeconds=0", pod_path(name)), &Value::Null);
    }

    /// Tells a pod to end, which it does not as long as nobody lets it go: there is no kubelet.
    pub fn end_pod(&self, name: &str) {
        self.patch_pod(name, &json!({"metadata": {"finalizers": ["example.com/held"]}}));
        self.call("DELETE", &pod_path(name), &Value::Null);
    }

    /// Kills the API server; etcd stays.
    pub fn kill_server(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts the API server again on its port, and waits until it is ready.
    pub fn start_server(&mut self) {
        self.server = spawn_server(&self.binaries.0, &self.ports, self.folder.path(), &self.serving);
        self.await_ready();
    }

    /// Kills etcd; the API server stays.
    pub fn kill_etcd(&mut self) {
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }

    /// Starts etcd again with what it had, and waits until the API server is ready.
    pub fn start_etcd(&mut self) {
        self.etcd = spawn_etcd(&self.binaries.1, &self.ports, self.folder.path());
        self.await_ready();
    }

    /// Sends a process a signal such as `STOP`.
    pub fn signal(&self, part: Part, signal: &str) {
        let process = match part {
            Part::Server => &self.server,
            Part::Etcd => &self.etcd,
        };
        let status = Command::new("kill").arg(format!("-{signal}")).arg(process.id().to_string()).status();
        assert!(status.unwrap().success());
    }

    /// What a watch of pods from that version on is answered within a second, as it came: status and body.
    pub fn watch_from(&self, version: &str) -> (u16, Value) {
        let watch = format!("watch=1&resourceVersion={version}&timeoutSeconds=1");
        self.request("GET", &format!("/api/v1/namespaces/{NAMESPACE}/pods?{watch}"), &Value::Null).unwrap()
    }

    /// What others than the test itself asked of pods with that verb and a URI that contains `part`, each as its URI and
    /// the status of the answer, of a watch the status of its head. Waits until there are so many: an answer is written
    /// down after it was given.
    pub fn asked(&self, verb: &str, part: &str, count: usize) -> Vec<(String, u64)> {
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let log = std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap_or_default();
            // The last line may still be being written.
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let of_kind = events.filter(|event| event["verb"] == *verb && event["stage"] == stage);
            let asked = of_kind.map(|event| {
                let uri = event["requestURI"].as_str().unwrap_or_default().to_owned();
                (uri, event["responseStatus"]["code"].as_u64().unwrap_or_default())
            });
            let asked: Vec<_> = asked.filter(|(uri, _)| uri.contains(part)).collect();
            if asked.len() >= count || Instant::now() > deadline {
                return asked;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes a pod out of etcd, also while the server is down.
    pub fn lose_pod(&self, name: &str) {
        assert_eq!(self.etcdctl(&["del", &key(name)], "").trim(), "1");
    }

    /// Puts pods that run into etcd, past the server, which tells them as any other: thousands in a second. Each is its
    /// name, its address and its labels.
    pub fn put_pods(&self, pods: impl IntoIterator<Item = (String, String, Value)>) {
        let pods: Vec<_> = pods.into_iter().collect();
        for part in pods.chunks(TXN_MAX) {
            let mut txn = String::from("\n");
            for (name, address, labels) in part {
                let pod = json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {
                        "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "labels": labels,
                        "creationTimestamp": "2026-01-01T00:00:00Z",
                    },
                    "spec": {"containers": [{"name": "main", "image": "none"}]},
                    "status": {
                        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
                        "conditions": [{"type": "Ready", "status": "True"}],
                    },
                });
                txn.push_str(&format!("put {} {}\n", key(name), json!(pod.to_string())));
            }
            txn.push_str("\n\n");
            self.etcdctl(&["txn"], &txn);
        }
    }

    /// Forgets all history before the present, which takes a restart of the server to show.
    pub fn compact(&self) {
        let answer = self.etcdctl(&["get", "none", "-w", "json"], "");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        self.etcdctl(&["compact", &answer["header"]["revision"].to_string()], "");
    }

    /// Keeps what there is now.
    pub fn back_up(&self) {
        self.etcdctl(&["snapshot", "save", &self.backup()], "");
    }

    /// Kills both processes and starts them again with what was kept, and waits until the server is ready.
    pub fn restore(&mut self) {
        self.kill_server();
        self.kill_etcd();
        let folder = self.folder.path().join("etcd");
        std::fs::remove_dir_all(&folder).unwrap();
        let peer = format!("http://127.0.0.1:{}", self.ports[1]);
        self.etcdctl(
            &[
                "snapshot",
                "restore",
                &self.backup(),
                "--data-dir",
                folder.to_str().unwrap(),
                "--initial-cluster",
                &format!("default={peer}"),
                "--initial-advertise-peer-urls",
                &peer,
            ],
            "",
        );
        self.etcd = spawn_etcd(&self.binaries.1, &self.ports, self.folder.path());
        self.start_server();
    }

    fn backup(&self) -> String {
        self.folder.path().join("backup").display().to_string()
    }

    fn etcdctl(&self, arguments: &[&str], input: &str) -> String {
        let mut command = Command::new(self.binaries.1.with_file_name("etcdctl"));
        command.env("ETCDCTL_API", "3").args(["--endpoints", &format!("http://127.0.0.1:{}", self.ports[0])]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the API server answers, and has its etcd.
    pub fn await_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok((200, _)) = self.request("GET", "/readyz", &Value::Null)
                && let Ok((200, _)) = self.request("GET", &format!("/api/v1/namespaces/{NAMESPACE}"), &Value::Null)
            {
                return;
            }
            assert!(Instant::now() < deadline, "the API server did not come up: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        text.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }
}

/// Asks the server as an admin. It may outlive the server, which ends with its owner.
#[derive(Clone)]
pub struct Visitor {
    url: String,
    agent: Agent,
}

impl Visitor {
    /// Sends a request and returns status and body.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {ADMIN}"))
            .header("content-type", content_type);
        let mut response = match body {
            Value::Null => self.agent.run(request.body(()).unwrap())?,
            body => self.agent.run(request.body(body.to_string()).unwrap())?,
        };
        let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((response.status().as_u16(), body))
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.kill_server();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}")
}

/// Where the server keeps a pod.
fn key(name: &str) -> String {
    format!("/registry/pods/{NAMESPACE}/{name}")
}

fn log_file(folder: &Path, name: &str) -> std::fs::File {
    std::fs::OpenOptions::new().create(true).append(true).open(folder.join(name)).unwrap()
}

fn spawn_etcd(binary: &Path, [client, peer, _]: &[u16; 3], folder: &Path) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(binary);
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
    command.arg(format!("--max-txn-ops={TXN_MAX}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(folder, "etcd.log")).spawn().unwrap()
}

fn spawn_server(binary: &Path, [etcd, _, port]: &[u16; 3], folder: &Path, serving: &Serving) -> Child {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new(binary);
    command.args([
        &format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        &format!("--cert-dir={}", file("certs")),
        &format!("--secure-port={port}"),
        "--bind-address=127.0.0.1",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        &format!("--service-account-signing-key-file={KEY}"),
        &format!("--service-account-key-file={KEY}"),
        "--authorization-mode=RBAC",
        &format!("--token-auth-file={}", file("tokens.csv")),
        "--disable-admission-plugins=ServiceAccount",
        // What nobody asks for here takes half the time of a start.
        "--runtime-config=api/beta=false,api/alpha=false,discovery.k8s.io/v1beta1=true",
        "--enable-priority-and-fairness=false",
        &format!("--audit-policy-file={}", file("audit.json")),
        &format!("--audit-log-path={}", file("audit.log")),
    ]);
    if let Some((certificate, key)) = &serving.certificate {
        command.arg("--tls-cert-file").arg(certificate).arg("--tls-private-key-file").arg(key);
    }
    if let Some(authority) = &serving.clients {
        command.arg("--client-ca-file").arg(authority);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(folder, "server.log")).spawn().unwrap()
}

/// A port that nobody listens on: below those from which the system takes the ports of outgoing connections, so that a
/// server that is down for a while finds its own free again.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time begin at different places.
    let first = (std::process::id().wrapping_mul(97) % 20_000) as u16;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::SeqCst) % 20_000) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
