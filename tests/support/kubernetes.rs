//! A real Kubernetes API server with its etcd, of a test's own, on free ports, ended by their process ids also when the
//! test fails. There is no kubelet: a test sets the status of its pods itself.
#![allow(dead_code)]

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
/// A key for the tokens of service accounts, of which there are none here.
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/client-rsa.key");
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

/// An API server that runs.
pub struct Kubernetes {
    binaries: (PathBuf, PathBuf),
    ports: [u16; 3],
    etcd: Child,
    server: Child,
    agent: Agent,
    folder: tempfile::TempDir,
    /// Arguments of the server beside those of every test.
    extra: Vec<String>,
}

impl Kubernetes {
    /// Starts one and waits until it is ready; `None` if there are no binaries.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with these arguments, too.
    pub fn start_with(extra: &[String]) -> Option<Self> {
        let binaries = binaries()?;
        let folder = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let mut tokens = format!("{ADMIN},admin,admin-uid,\"system:masters\"\n");
        for user in USERS {
            tokens.push_str(&format!("{user}-t0ken,{user},{user}-uid\n"));
        }
        std::fs::write(folder.path().join("tokens.csv"), tokens).unwrap();
        let etcd = spawn_etcd(&binaries.1, &ports, folder.path());
        let server = spawn_server(&binaries.0, &ports, folder.path(), extra);
        let tls = TlsConfig::builder().disable_verification(true).build();
        let agent = Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None);
        let agent = agent.timeout_global(Some(Duration::from_secs(20))).build().new_agent();
        let kubernetes = Self { binaries, ports, etcd, server, agent, folder, extra: extra.to_vec() };
        kubernetes.wait_until_ready();
        Some(kubernetes)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The server's own certificate, which it is trusted by.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certs/apiserver.crt")
    }

    /// A folder as the kubelet puts it into a pod, with the token of that user.
    pub fn service_account(&self, user: &str) -> PathBuf {
        let folder = self.folder.path().join(format!("account-{user}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(self.folder.path().join("certs/apiserver.crt"), folder.join("ca.crt")).unwrap();
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
            .parameter("ca-file", self.folder.path().join("certs/apiserver.crt").display().to_string())
            .parameter("probe-interval", "1s")
    }

    /// The tokens of all users, by their names.
    pub fn secrets() -> Secrets {
        let users = USERS.into_iter().chain(["admin"]);
        Secrets::new(users.map(|user| (user.to_owned(), Secret::new(format!("{user}-t0ken")))))
    }

    /// Sends a request and returns status and body.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.url()))
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

    /// Gives a user these rights, as an operator would: `verbs` of `resource` in the namespace.
    pub fn allow(&self, user: &str, group: &str, resource: &str, verbs: &[&str]) {
        let name = format!("{user}-{resource}-{}", verbs.join("-"));
        let base = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}");
        let rules = json!([{"apiGroups": [group], "resources": [resource], "verbs": verbs}]);
        self.call("POST", &format!("{base}/roles"), &json!({"metadata": {"name": name}, "rules": rules}));
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
        let subjects = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]);
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        self.call("POST", &format!("{base}/rolebindings"), &binding);
        // The server learns of its own roles by a watch, too.
        let deadline = Instant::now() + Duration::from_secs(20);
        for verb in verbs {
            let attributes = json!({"namespace": NAMESPACE, "group": group, "resource": resource, "verb": verb});
            let review = json!({"spec": {"user": user, "resourceAttributes": attributes}});
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            while self.call("POST", path, &review)["status"]["allowed"] != json!(true) {
                assert!(Instant::now() < deadline, "{user} may still not {verb} {resource}");
            }
        }
    }

    /// Kills the API server; etcd stays.
    pub fn kill_server(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts the API server again on its port, and waits until it is ready.
    pub fn start_server(&mut self) {
        self.server = spawn_server(&self.binaries.0, &self.ports, self.folder.path(), &self.extra);
        self.wait_until_ready();
    }

    /// Forgets all history before the present, which takes a restart of the server to show.
    pub fn compact(&self) {
        let version = self.call("GET", &format!("/api/v1/namespaces/{NAMESPACE}/pods?limit=1"), &Value::Null);
        let version = version["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let etcdctl = self.binaries.1.with_file_name("etcdctl");
        let endpoint = format!("http://127.0.0.1:{}", self.ports[0]);
        let mut command = Command::new(etcdctl);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint, "compact", &version]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn wait_until_ready(&self) {
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
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(folder, "etcd.log")).spawn().unwrap()
}

fn spawn_server(binary: &Path, [etcd, _, port]: &[u16; 3], folder: &Path, extra: &[String]) -> Child {
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
    ]);
    command.args(extra);
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
