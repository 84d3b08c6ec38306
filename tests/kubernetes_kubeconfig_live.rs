//! The Kubernetes provider with a kubeconfig, against a real API server.
#![cfg(all(feature = "kubeconfig", unix))]

#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/pods.rs"]
mod pods;
#[path = "support/kubernetes_rights.rs"]
mod rights;
#[path = "support/secure.rs"]
mod secure;

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cluster_provisioning::{CancelToken, ErrorCode, KubernetesFactory, ProviderDescriptor, Secrets};
use kubernetes::{Kubernetes, NAMESPACE, Serving};
use pods::{Watching, provider};
use secure::{certificate, pem};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// Whom `client.pem` names.
const CLIENT: &str = "client";

/// A server that lets in clients with a certificate of the tests' authority, too, with a member that runs.
fn start() -> Option<Kubernetes> {
    let server = Kubernetes::start_serving(Serving { clients: Some(certificate("ca.pem")), ..Serving::default() })?;
    server.run_member("orders", "a", "10.1.0.1");
    Some(server)
}

/// Puts a kubeconfig with these users there, each of which has a context of its name.
fn configure(folder: &Path, server: &Kubernetes, users: &[(&str, Value)]) {
    let authority = BASE64_STANDARD.encode(std::fs::read(server.authority()).unwrap());
    let cluster = json!({"server": server.url(), "certificate-authority-data": authority});
    let named = |key: &str, content: &dyn Fn(&str, &Value) -> Value| {
        let entries = users.iter().map(|(name, user)| json!({"name": name, key: content(name, user)}));
        Value::Array(entries.collect())
    };
    let config = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "here", "cluster": cluster}],
        "contexts": named("context", &|name, _| json!({"cluster": "here", "user": name, "namespace": NAMESPACE})),
        "users": named("user", &|_, user| user.clone()),
    });
    std::fs::write(folder.join("new"), config.to_string()).unwrap();
    std::fs::rename(folder.join("new"), folder.join("config")).unwrap();
}

fn descriptor(folder: &Path, context: &str) -> ProviderDescriptor {
    KubernetesFactory::from_kubeconfig("k8s", "orders")
        .unwrap()
        .parameter("kubeconfig", folder.join("config").display().to_string())
        .parameter("context", context)
        .parameter("probe-interval", "1s")
}

/// A user whose plugin prints what that file holds.
fn plugin(file: &Path) -> Value {
    let version = "client.authentication.k8s.io/v1";
    json!({"exec": {"apiVersion": version, "command": "cat", "args": [file], "interactiveMode": "IfAvailable"}})
}

fn credential(status: &Value) -> String {
    let version = "client.authentication.k8s.io/v1";
    json!({"apiVersion": version, "kind": "ExecCredential", "status": status}).to_string()
}

#[test]
fn kubernetes_point_21_tokens_certificates_and_plugins_are_let_in() {
    let Some(server) = start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    server.allow(CLIENT, "", "pods", &["list", "watch"]);
    std::fs::write(folder.join("token"), "admin-t0ken\n").unwrap();
    std::fs::write(folder.join("says-token"), credential(&json!({"token": "admin-t0ken"}))).unwrap();
    let pair = json!({"clientCertificateData": pem("client.pem"), "clientKeyData": pem("client.key")});
    std::fs::write(folder.join("says-certificate"), credential(&pair)).unwrap();
    let data = |name: &str| BASE64_STANDARD.encode(pem(name));
    let users = [
        ("token", json!({"token": "admin-t0ken"})),
        ("file", json!({"tokenFile": "token"})),
        ("certificate", json!({"client-certificate-data": data("client.pem"), "client-key-data": data("client.key")})),
        ("plugin", plugin(&folder.join("says-token"))),
        ("plugin-certificate", plugin(&folder.join("says-certificate"))),
        ("stranger", json!({"token": "no-such-t0ken"})),
    ];
    configure(folder, &server, &users);
    for (user, _) in &users[..5] {
        let provider = provider(&descriptor(folder, user), Secrets::default());
        provider.check_connectivity(&CancelToken::new()).unwrap_or_else(|error| panic!("{user}: {error}"));
        let watching = Watching::start(&provider);
        watching.expect_members(&["a"], SOON);
        watching.expect_current(SOON);
    }
    let stranger = provider(&descriptor(folder, "stranger"), Secrets::default());
    let refusal = stranger.check_connectivity(&CancelToken::new()).unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::AccessDenied);
    assert!(!refusal.to_string().contains("no-such-t0ken"), "{refusal}");
}

#[test]
fn kubernetes_point_21_a_plugin_is_asked_again_when_its_token_is_revoked() {
    let Some(server) = start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let says = folder.join("says");
    std::fs::write(&says, credential(&json!({"token": "revoked-t0ken"}))).unwrap();
    configure(folder, &server, &[("plugin", plugin(&says))]);
    let watching = Watching::start(&provider(&descriptor(folder, "plugin"), Secrets::default()));
    watching.expect_error(ErrorCode::AccessDenied, SOON);
    std::fs::write(&says, credential(&json!({"token": "admin-t0ken"}))).unwrap();
    watching.expect_members(&["a"], SOON);
    server.run_member("orders", "b", "10.1.0.2");
    watching.expect_members(&["a", "b"], SOON);
}

#[test]
fn kubernetes_point_21_a_rewritten_kubeconfig_is_followed_by_a_running_provider() {
    let Some(server) = start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let admin = json!({"token": "admin-t0ken"});
    configure(folder, &server, &[("user", admin.clone())]);
    let watching = Watching::start(&provider(&descriptor(folder, "user"), Secrets::default()));
    watching.expect_members(&["a"], SOON);
    std::fs::write(folder.join("config"), "users: [").unwrap();
    watching.expect_current(SOON);
    configure(folder, &server, &[("user", json!({"token": "no-such-t0ken"}))]);
    let unknown = provider(&descriptor(folder, "user"), Secrets::default());
    assert_eq!(unknown.check_connectivity(&CancelToken::new()).unwrap_err().code(), ErrorCode::AccessDenied);
    configure(folder, &server, &[("user", admin)]);
    unknown.check_connectivity(&CancelToken::new()).unwrap();
    server.run_member("orders", "b", "10.1.0.2");
    watching.expect_members(&["a", "b"], SOON);
}
