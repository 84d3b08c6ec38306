//! The Kubernetes provider with a kubeconfig, against servers that let in whom the test says.
#![cfg(all(feature = "kubeconfig", unix))]

#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;
#[path = "support/secure.rs"]
mod secure;

use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cluster_provisioning::{
    CancelToken, Credential, ErrorCode, KubernetesFactory, ProviderDescriptor, ProviderEnvironment, ProviderFactory,
    ProvisioningError, Secret, Secrets, SystemClock,
};
use fake::{Fake, Request, hold, send};
use pods::{Watching, provider};
use secure::{Handshake, Secure, certificate, der, pem};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// What is not broken off takes far longer.
const PROMPT: Duration = Duration::from_secs(5);

/// A server with one pod, which lets in who shows what `accepted` says.
struct Server {
    fake: Fake,
    accepted: Arc<Mutex<Option<String>>>,
}

impl Server {
    /// For whom the token says; anybody if there is none.
    fn accepting(token: Option<&str>) -> Self {
        let accepted = Arc::new(Mutex::new(token.map(|token| format!("Bearer {token}"))));
        let check = Arc::clone(&accepted);
        let fake = Fake::start(move |request, stream| {
            let accepted = check.lock().unwrap().clone();
            if accepted.is_some() && request.header("authorization") != accepted.as_deref() {
                let refusal = json!({"kind": "Status", "status": "Failure", "code": 401, "message": "Unauthorized"});
                return answer(stream, "401 Unauthorized", &refusal);
            }
            serve(request, stream)
        });
        Self { fake, accepted }
    }

    /// From here on lets in who shows that token.
    fn accept(&self, token: &str) {
        *self.accepted.lock().unwrap() = Some(format!("Bearer {token}"));
    }

    /// The tokens that have been shown so far.
    fn shown(&self) -> Vec<String> {
        let mut tokens: Vec<_> = self.fake.requests().iter().map(bearer).collect();
        tokens.dedup();
        tokens
    }
}

fn bearer(request: &Request) -> String {
    request.header("authorization").unwrap_or("nothing").trim_start_matches("Bearer ").to_owned()
}

fn serve(request: &Request, stream: &mut TcpStream) -> bool {
    let pod = json!({
        "kind": "Pod", "metadata": {
            "name": "a", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"cluster.proto.actor/port": "7001"},
        },
        "spec": {"containers": []},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    match request {
        request if request.target.contains("watch=1") => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).is_ok() && hold(stream)
        }
        request if request.target.contains("/pods?") => {
            let list = json!({"kind": "PodList", "metadata": {"resourceVersion": "40"}, "items": [pod]});
            answer(stream, "200 OK", &list)
        }
        request if request.method == "POST" => answer(stream, "201 Created", &json!({"status": {"allowed": true}})),
        _ => send(stream, "200 OK", "", b"ok"),
    }
}

fn answer(stream: &mut TcpStream, status: &str, body: &Value) -> bool {
    send(stream, status, "Content-Type: application/json\r\n", body.to_string().as_bytes())
}

/// A folder with a kubeconfig and plugins.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Puts a kubeconfig there, with that cluster and user.
    fn configure(&self, cluster: &Value, user: &Value) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "here", "cluster": cluster}],
            "contexts": [{"name": "test", "context": {"cluster": "here", "user": "alice", "namespace": "shop"}}],
            "users": [{"name": "alice", "user": user}],
        });
        self.write("config", config.to_string());
    }

    /// A user whose plugin is that shell script, which finds its number of the run in `$run`, and where it stands in
    /// `$here`.
    fn plugin(&self, script: &str) -> Value {
        let head = "here=$(dirname \"$0\"); echo run >> \"$here/runs\"; run=$(($(wc -l < \"$here/runs\")))\n";
        self.write("plugin", format!("{head}{script}"));
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": [self.path("plugin")],
            "env": [{"name": "GIVEN", "value": "given-s3cr3t"}], "interactiveMode": "Never", "provideClusterInfo": true,
        }})
    }

    /// How often it was run.
    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    fn descriptor(&self) -> ProviderDescriptor {
        KubernetesFactory::from_kubeconfig("k8s", "orders")
            .unwrap()
            .parameter("kubeconfig", self.path("config").display().to_string())
            .parameter("probe-interval", "200ms")
    }

    fn watch(&self) -> Watching {
        Watching::start(&provider(&self.descriptor(), Secrets::default()))
    }

    /// What a check of the connection says.
    fn check(&self) -> Result<(), ProvisioningError> {
        provider(&self.descriptor(), Secrets::default()).check_connectivity(&CancelToken::new())
    }
}

/// A shell command that prints an answer with that token.
fn print_token(token: &str) -> String {
    print_status(&format!("\\\"token\\\":\\\"{token}\\\""))
}

fn print_status(status: &str) -> String {
    let head = "{\\\"apiVersion\\\":\\\"client.authentication.k8s.io/v1\\\",\\\"kind\\\":\\\"ExecCredential\\\",";
    format!("echo \"{head}\\\"status\\\":{{{status}}}}}\"\n")
}

fn encoded(name: &str) -> String {
    BASE64_STANDARD.encode(pem(name))
}

fn wait_until(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn kubernetes_point_21_server_path_token_and_namespace_are_those_of_the_context() {
    let server = Server::accepting(Some("t0ken"));
    let folder = Folder::new();
    folder
        .configure(&json!({"server": format!("{}/k8s/clusters/c-1/", server.fake.url())}), &json!({"token": "t0ken"}));
    folder.check().unwrap();
    let mut watching = folder.watch();
    watching.expect_members(&["a"], SOON);
    watching.expect_current(SOON);
    let requests = server.fake.requests();
    assert!(requests.iter().all(|request| request.target.starts_with("/k8s/clusters/c-1/")), "{requests:?}");
    let pods = requests.iter().filter(|request| request.target.contains("/pods"));
    assert!(pods.clone().count() > 1 && pods.clone().all(|request| request.target.contains("/namespaces/shop/")));
    assert!(watching.stop() < PROMPT);
    // The definition's own namespace goes first.
    let own = folder.descriptor().parameter("namespace", "other");
    Watching::start(&provider(&own, Secrets::default())).expect_members(&["a"], SOON);
    assert!(server.fake.requests().iter().any(|request| request.target.contains("/namespaces/other/pods")));
}

#[test]
fn kubernetes_point_21_an_endpoint_may_have_a_path_without_a_kubeconfig_too() {
    let server = Server::accepting(Some("t0ken"));
    let descriptor = KubernetesFactory::descriptor("k8s", "orders")
        .unwrap()
        .endpoint(format!("{}/k8s/clusters/c-1", server.fake.url()))
        .credential(Credential::Secret("k8s".into()))
        .parameter("namespace", "shop");
    let secrets = Secrets::new([("k8s".to_owned(), Secret::new("t0ken"))]);
    Watching::start(&provider(&descriptor, secrets)).expect_members(&["a"], SOON);
    assert!(server.fake.requests().iter().all(|request| request.target.starts_with("/k8s/clusters/c-1/")));
}

#[test]
fn kubernetes_point_21_a_rotated_token_file_is_used_with_the_next_request() {
    let server = Server::accepting(Some("first"));
    let folder = Folder::new();
    folder.write("token", "first\n");
    folder.configure(&json!({"server": server.fake.url()}), &json!({"tokenFile": "token", "token": "unused"}));
    let watching = folder.watch();
    watching.expect_members(&["a"], SOON);
    folder.write("token", "second\n");
    wait_until("the second token is not shown", || server.shown().contains(&"second".to_owned()));
    server.accept("second");
    watching.expect_current(SOON);
    assert!(!server.shown().contains(&"unused".to_owned()));
}

#[test]
fn kubernetes_point_21_a_rewritten_kubeconfig_is_followed_but_not_to_another_server() {
    let (server, other) = (Server::accepting(Some("first")), Server::accepting(None));
    let folder = Folder::new();
    let here = json!({"server": server.fake.url()});
    folder.configure(&here, &json!({"token": "first"}));
    let watching = folder.watch();
    watching.expect_members(&["a"], SOON);
    folder.configure(&here, &json!({"token": "second"}));
    wait_until("the second token is not shown", || server.shown().contains(&"second".to_owned()));
    server.accept("second");
    watching.expect_current(SOON);
    folder.configure(&json!({"server": other.fake.url()}), &json!({"token": "for-another"}));
    folder.check().unwrap();
    let before = server.fake.requests().len();
    wait_until("no more requests", || server.fake.requests().len() > before + 5);
    folder.write("config", "users: [");
    let before = server.fake.requests().len();
    wait_until("no more requests", || server.fake.requests().len() > before + 5);
    assert!(!server.shown().contains(&"for-another".to_owned()));
    // That was the check's own provider, made with the file as it was then.
    assert!(other.fake.requests().iter().all(|request| !request.target.contains("watch=1")));
}

#[test]
fn kubernetes_point_21_authority_and_client_certificate_come_from_data_and_are_renewed_with_it() {
    let server = Server::accepting(None);
    let secure = Secure::start(&Handshake::with("server.pem").clients_of("ca.pem"), server.fake.address);
    let folder = Folder::new();
    let here = json!({"server": secure.url(), "certificate-authority-data": encoded("ca.pem")});
    let user = |name: &str| {
        let (certificate, key) = (encoded(&format!("{name}.pem")), encoded(&format!("{name}.key")));
        json!({"client-certificate-data": certificate, "client-key-data": key})
    };
    folder.configure(&here, &user("client"));
    let watching = folder.watch();
    watching.expect_members(&["a"], SOON);
    assert!(secure.take_clients().iter().all(|shown| *shown == Some(der("client.pem"))));
    folder.configure(&here, &user("client-renewed"));
    wait_until("the renewed certificate is not shown", || {
        secure.take_clients().contains(&Some(der("client-renewed.pem")))
    });
    watching.expect_current(SOON);
    // A key that does not fit leaves the last good pair in use.
    let (certificate, key) = (encoded("client.pem"), encoded("client-renewed.key"));
    folder.configure(&here, &json!({"client-certificate-data": certificate, "client-key-data": key}));
    let error = folder.check().unwrap_err();
    assert_eq!((error.code(), error.field()), (ErrorCode::CertificateUnreadable, Some("kubeconfig")), "{error}");
    watching.expect_current(SOON);
}

#[test]
fn kubernetes_point_21_files_beside_the_kubeconfig_secure_the_connection_too() {
    let server = Server::accepting(Some("t0ken"));
    let secure = Secure::start(&Handshake::with("server.pem").clients_of("ca.pem"), server.fake.address);
    let folder = Folder::new();
    for name in ["ca.pem", "client.pem", "client.key"] {
        std::fs::copy(certificate(name), folder.path(name)).unwrap();
    }
    let here = json!({"server": secure.url(), "certificate-authority": "ca.pem"});
    folder.configure(&here, &json!({"client-certificate": "client.pem", "client-key": "client.key", "token": "t0ken"}));
    folder.check().unwrap();
    let data = |data: &str| json!({"server": secure.url(), "certificate-authority-data": BASE64_STANDARD.encode(data)});
    folder.configure(&data("no certificate"), &json!({"token": "t0ken"}));
    let error = folder.check().unwrap_err();
    assert_eq!((error.code(), error.field()), (ErrorCode::CertificateUnreadable, Some("kubeconfig")));
    let place = "clusters[here].cluster.certificate-authority-data has no certificate in PEM form";
    assert_eq!(error.detail(), place);
    folder.configure(&data(&pem("other-ca.pem")), &json!({"token": "t0ken"}));
    let error = folder.check().unwrap_err();
    assert_eq!(error.code(), ErrorCode::CertificateRejected);
    assert!(error.detail().contains("none of the authorities in kubeconfig"), "{error}");
    assert!(server.shown().iter().all(|token| token == "t0ken"));
}

#[test]
fn kubernetes_point_21_the_server_is_left_unchecked_only_if_file_and_definition_say_so() {
    let server = Server::accepting(Some("t0ken"));
    let secure = Secure::start(&Handshake::with("server-of-other-ca.pem"), server.fake.address);
    let folder = Folder::new();
    folder.configure(&json!({"server": secure.url(), "insecure-skip-tls-verify": true}), &json!({"token": "t0ken"}));
    let environment = ProviderEnvironment::new(SystemClock::shared());
    KubernetesFactory.validate(&folder.descriptor()).unwrap();
    let error = KubernetesFactory.create(&folder.descriptor(), &environment).map(drop).unwrap_err();
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidConfig, Some("kubeconfig")));
    assert!(error.detail().contains("clusters[here].cluster.insecure-skip-tls-verify"), "{error}");
    let opted_in = folder.descriptor().parameter("tls-verify", "off");
    provider(&opted_in, Secrets::default()).check_connectivity(&CancelToken::new()).unwrap();
    folder.configure(&json!({"server": secure.url()}), &json!({"token": "t0ken"}));
    assert_eq!(folder.check().unwrap_err().code(), ErrorCode::CertificateRejected);
    // The name that the certificate has to hold is the kubeconfig's, unless the definition has one.
    let named = Secure::start(&Handshake::with("server.pem"), server.fake.address);
    let ca = encoded("ca.pem");
    let here = json!({"server": named.url(), "certificate-authority-data": ca, "tls-server-name": "elsewhere.example"});
    folder.configure(&here, &json!({"token": "t0ken"}));
    assert_eq!(folder.check().unwrap_err().code(), ErrorCode::CertificateRejected);
    let own = folder.descriptor().parameter("tls-server-name", "localhost");
    provider(&own, Secrets::default()).check_connectivity(&CancelToken::new()).unwrap();
}

#[test]
fn kubernetes_point_21_a_plugin_runs_once_for_all_connections_and_is_told_of_the_cluster() {
    let server = Server::accepting(Some("from-plugin"));
    let folder = Folder::new();
    let extension = json!({"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}});
    let here = json!({
        "server": server.fake.url(), "certificate-authority-data": encoded("ca.pem"), "extensions": [extension],
    });
    let script = format!("printf %s \"$KUBERNETES_EXEC_INFO\" > $here/told\n{}", print_token("from-plugin"));
    folder.configure(&here, &folder.plugin(&script));
    let provider = provider(&folder.descriptor(), Secrets::default());
    provider.check_connectivity(&CancelToken::new()).unwrap();
    let watching = Watching::start(&provider);
    watching.expect_members(&["a"], SOON);
    watching.expect_current(SOON);
    assert_eq!((folder.runs(), server.shown()), (1, vec!["from-plugin".to_owned()]));
    let told: Value = serde_json::from_str(&std::fs::read_to_string(folder.path("told")).unwrap()).unwrap();
    let cluster = json!({
        "server": server.fake.url(), "certificate-authority-data": encoded("ca.pem"), "config": {"audience": "x"},
    });
    assert_eq!(told["spec"], json!({"interactive": false, "cluster": cluster}));
}

#[test]
fn kubernetes_point_21_an_expiring_credential_is_renewed_while_it_is_used() {
    let server = Server::accepting(None);
    let folder = Folder::new();
    let status = "\\\"token\\\":\\\"token-$run\\\",\\\"expirationTimestamp\\\":\\\"$(date -u -d '+8 seconds' +%Y-%m-%dT%H:%M:%SZ)\\\"";
    folder.configure(&json!({"server": server.fake.url()}), &folder.plugin(&print_status(status)));
    let watching = folder.watch();
    watching.expect_members(&["a"], SOON);
    wait_until("the third token is not shown", || server.shown().contains(&"token-3".to_owned()));
    let tokens = server.shown();
    assert!(tokens.iter().all(|token| token.starts_with("token-")), "nothing else was shown: {tokens:?}");
    assert!(folder.runs() <= 4, "{}", folder.runs());
}

#[test]
fn kubernetes_point_21_a_refused_credential_makes_the_plugin_run_again_but_not_for_each_refusal() {
    let server = Server::accepting(Some("token-2"));
    let folder = Folder::new();
    folder.configure(&json!({"server": server.fake.url()}), &folder.plugin(&print_token("token-$run")));
    let watching = folder.watch();
    watching.expect_error(ErrorCode::AccessDenied, SOON);
    watching.expect_members(&["a"], SOON);
    let refused = server.fake.requests().iter().filter(|request| bearer(request) == "token-1").count();
    assert!(refused > 2 && folder.runs() == 2, "{refused} refusals, {} runs", folder.runs());
}

#[test]
fn kubernetes_point_21_a_plugins_certificate_is_shown() {
    let server = Server::accepting(None);
    let secure = Secure::start(&Handshake::with("server.pem").clients_of("ca.pem"), server.fake.address);
    let folder = Folder::new();
    let status = json!({"clientCertificateData": pem("client.pem"), "clientKeyData": pem("client.key")});
    let answer = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status});
    folder.write("answer", answer.to_string());
    let here = json!({"server": secure.url(), "certificate-authority-data": encoded("ca.pem")});
    folder.configure(&here, &folder.plugin("cat $here/answer"));
    folder.watch().expect_members(&["a"], SOON);
    assert!(secure.take_clients().iter().all(|shown| *shown == Some(der("client.pem"))));
    assert_eq!((folder.runs(), server.shown()), (1, vec!["nothing".to_owned()]));
}

#[test]
fn kubernetes_point_21_a_plugin_that_gives_nothing_usable_is_an_error_without_its_secrets() {
    let server = Server::accepting(None);
    let folder = Folder::new();
    let here = json!({"server": server.fake.url()});
    for (script, says) in [
        ("echo s3cr3t; echo \"for $GIVEN: no login\" >&2; exit 7", "it failed (exit status: 7): for ***: no login"),
        ("yes s3cr3t", "its answer is larger than 1048576 bytes"),
        ("head -c 500000 /dev/urandom; echo s3cr3t", "its answer is no ExecCredential in JSON"),
        ("echo '{\"kind\":\"Secret\",\"data\":\"s3cr3t\"}'", "its answer is of another kind"),
        (&print_status("\\\"clientKeyData\\\":\\\"s3cr3t\\\""), "only one"),
        ("", "its answer is no ExecCredential"),
    ] {
        folder.configure(&here, &folder.plugin(script));
        let error = folder.check().unwrap_err();
        assert_eq!(
            (error.code(), error.field()),
            (ErrorCode::TokenUnreadable, Some("kubeconfig")),
            "{script}: {error}"
        );
        let detail = error.detail();
        assert!(detail.starts_with("users[alice].user.exec.command: ") && detail.contains(says), "{script}: {error}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
    let mut user = folder.plugin("");
    user["exec"]["command"] = json!("no-such-plugin-anywhere");
    user["exec"]["installHint"] = json!("get it from\nexample.com");
    folder.configure(&here, &user);
    let error = folder.check().unwrap_err();
    let expected = "users[alice].user.exec.command: the command is not there; get it from example.com";
    assert_eq!(error.detail(), expected);
    assert!(server.fake.requests().is_empty(), "nothing was asked without a credential");
}

#[test]
fn kubernetes_point_21_a_plugin_that_hangs_ends_with_whoever_waits_for_it() {
    let server = Server::accepting(None);
    let folder = Folder::new();
    let script = "echo $$ > $here/id.new; mv $here/id.new $here/id; sleep 600 & wait";
    folder.configure(&json!({"server": server.fake.url()}), &folder.plugin(script));
    let provider = provider(&folder.descriptor(), Secrets::default());
    let cancel = CancelToken::new();
    let (token, checked) = (cancel.clone(), Arc::clone(&provider));
    let checking = std::thread::spawn(move || checked.check_connectivity(&token));
    wait_until("the plugin does not run", || folder.path("id").exists());
    let id = std::fs::read_to_string(folder.path("id")).unwrap().trim().to_owned();
    let begun = Instant::now();
    cancel.cancel();
    assert_eq!(checking.join().unwrap().unwrap_err().code(), ErrorCode::Stopped);
    let is_gone = || !PathBuf::from(format!("/proc/{id}")).exists();
    wait_until("the plugin still runs", is_gone);
    assert!(begun.elapsed() < PROMPT);
    // The same for a stream.
    std::fs::remove_file(folder.path("id")).unwrap();
    let mut watching = Watching::start(&provider);
    wait_until("the plugin does not run", || folder.path("id").exists());
    assert!(watching.stop() < PROMPT);
    assert_eq!(folder.runs(), 2);
}
