//! The Kubernetes provider against a real API server that takes tokens, rights and trust away, and gives them back.
#![cfg(feature = "kubernetes")]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/pods.rs"]
mod pods;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/kubernetes_rights.rs"]
mod rights;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certificates::Certificates;
use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvider, ClusterProvisioningService, Credential, ErrorCode, ProviderDescriptor,
    ProvisioningError, Secret, Secrets,
};
use kubernetes::{Kubernetes, Serving};
use pods::{Watching, provider, provider_of};
use proxy::Proxy;
use rights::{Account, Token};

const SOON: Duration = Duration::from_secs(20);
/// How long it may take until the next of the growing pauses is over, and the server is up again.
const RECOVERED: Duration = Duration::from_secs(60);

/// The server's definition, by way of the proxy, whose connections can be cut: a watch that is open stays so, whatever
/// becomes of its token.
fn by_way_of(proxy: &Proxy, mut descriptor: ProviderDescriptor) -> ProviderDescriptor {
    descriptor.endpoints = vec![proxy.url().replace("http://", "https://")];
    descriptor
}

fn two_members(server: &Kubernetes) {
    server.run_member("orders", "a", "10.1.0.1");
    server.run_member("orders", "b", "10.1.0.2");
}

/// Watches the two members; returns when the watch is open.
fn watch(provider: &Arc<dyn ClusterProvider>) -> Watching {
    let watching = Watching::start(provider);
    watching.expect_members(&["a", "b"], SOON);
    watching.expect_current(SOON);
    watching
}

fn denied(watching: &Watching, begun: Instant) -> ProvisioningError {
    let error = watching.expect_error(ErrorCode::AccessDenied, SOON);
    println!("told after {:?}: {error}", begun.elapsed());
    error
}

#[test]
fn kubernetes_point_17_a_token_replaced_in_its_file_is_used_and_one_revoked_keeps_the_members_until_there_is_another() {
    let Some(server) = Kubernetes::start() else { return };
    let account = Account::new(&server, "app");
    server.allow(&account.user(), "", "pods", &["list", "watch"]);
    two_members(&server);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let write = |token: &Token| std::fs::write(&file, format!("{}\n", token.value)).unwrap();
    let first = account.token("first");
    write(&first);
    let proxy = Proxy::start(&server.address());
    let descriptor = by_way_of(&proxy, server.descriptor("orders", "client"));
    let descriptor = descriptor.credential(Credential::TokenFile(file.display().to_string()));
    let provider = provider(&descriptor, Secrets::default());
    let watching = watch(&provider);
    // Another one, as the kubelet writes it; then the old one is worth nothing.
    let second = account.token("second");
    write(&second);
    account.revoke(&first);
    let begun = Instant::now();
    proxy.cut_open();
    server.run_member("orders", "c", "10.1.0.3");
    watching.expect_members(&["a", "b", "c"], SOON);
    println!("with the new token after {:?}", begun.elapsed());
    provider.check_connectivity(&CancelToken::new()).unwrap();
    let codes = watching.told().codes;
    assert!(!codes.contains(&ErrorCode::AccessDenied), "{codes:?}");
    // Nobody replaces the second.
    account.revoke(&second);
    let begun = Instant::now();
    proxy.cut_open();
    let error = denied(&watching, begun);
    assert!(error.to_string().contains("401") && !error.to_string().contains(&second.value), "{error}");
    let error = provider.check_connectivity(&CancelToken::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AccessDenied, "{error}");
    watching.assert_kept(&["a", "b", "c"], &[]);
    server.delete_pod("a");
    let begun = Instant::now();
    write(&account.token("third"));
    watching.expect_members(&["b", "c"], RECOVERED);
    println!("recovered {:?} after there was a good token", begun.elapsed());
    watching.expect_current(SOON);
    watching.assert_kept(&["b", "c"], &["a"]);
}

#[test]
fn kubernetes_point_18_rights_taken_away_keep_the_members_and_given_back_are_used() {
    let Some(server) = Kubernetes::start() else { return };
    server.allow("client", "", "pods", &["list", "watch"]);
    two_members(&server);
    let proxy = Proxy::start(&server.address());
    let descriptor = by_way_of(&proxy, server.descriptor("orders", "client"));
    let watching = watch(&provider(&descriptor, Kubernetes::secrets()));
    server.forbid("client", "", "pods", &["list", "watch"]);
    let begun = Instant::now();
    proxy.cut_open();
    let error = denied(&watching, begun).to_string();
    // The server names the right that is missing.
    for word in ["403", "\"client\"", "watch", "\"pods\"", "\"default\""] {
        assert!(error.contains(word), "no {word} in {error}");
    }
    // Whoever begins without rights is told, and is shown nobody.
    let late = Watching::start(&provider(&server.descriptor("orders", "client"), Kubernetes::secrets()));
    let error = denied(&late, Instant::now()).to_string();
    assert!(error.contains("list") && error.contains("\"pods\""), "{error}");
    assert_eq!(late.told().snapshots, 0);
    server.delete_pod("a");
    watching.assert_kept(&["a", "b"], &[]);
    let begun = Instant::now();
    server.allow("client", "", "pods", &["list", "watch"]);
    watching.expect_members(&["b"], RECOVERED);
    println!("recovered {:?} after the rights were back", begun.elapsed());
    watching.expect_current(SOON);
    watching.assert_kept(&["b"], &["a"]);
    late.expect_members(&["b"], RECOVERED);
}

#[test]
fn kubernetes_point_18_a_missing_right_is_named_and_the_documented_ones_are_enough() {
    let Some(server) = Kubernetes::start() else { return };
    server.run_pod("pod-a", "10.1.0.1", &serde_json::json!({}));
    let node = || ClusterNode::builder("a", "10.1.0.1", 7001).build().unwrap();
    let descriptor = |user: &str| server.descriptor("orders", user).parameter("pod", "pod-a");
    let check = |user: &str, member: bool| {
        let provider = provider_of(&descriptor(user), Kubernetes::secrets(), member.then(node));
        provider.check_connectivity(&CancelToken::new())
    };
    // The check of the provider, and the start of a whole service.
    let start = |user: &str, member: bool| {
        let builder = ClusterProvisioningService::builder().secret(user, Secret::new(format!("{user}-t0ken")));
        let builder = builder.provider(descriptor(user));
        if member { builder.member(node()) } else { builder }.start()
    };
    let refused = |user: &str, member: bool, verb: &str| {
        let rule = format!(
            r#"namespace "default" needs the rule {{apiGroups: [""], resources: ["pods"], verbs: ["{verb}"]}}"#
        );
        for error in [check(user, member).unwrap_err(), start(user, member).map(drop).unwrap_err()] {
            println!("{user}, {verb}: {error}");
            assert_eq!(error.code(), ErrorCode::AccessDenied, "{error}");
            assert!(error.to_string().contains(&rule), "{error}");
        }
    };
    refused("nobody", false, "list");
    // One rule less for each of the documented ones.
    let (all, user) = (["list", "watch", "patch"], "member");
    for missing in all {
        let rest: Vec<_> = all.into_iter().filter(|verb| *verb != missing).collect();
        server.allow(user, "", "pods", &rest);
        server.await_forbidden(user, "", "pods", &[missing]);
        refused(user, true, missing);
        if missing == "patch" {
            // Which only members need.
            check(user, false).unwrap();
            start(user, false).unwrap().shutdown();
        }
        server.forbid(user, "", "pods", &rest);
    }
    server.allow(user, "", "pods", &all);
    check(user, true).unwrap();
    start(user, true).unwrap().shutdown();
    let unknown = descriptor("client").credential(Credential::TokenEnv("CARGO_PKG_NAME".into()));
    let error = provider(&unknown, Kubernetes::secrets()).check_connectivity(&CancelToken::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AccessDenied, "{error}");
}

#[test]
fn kubernetes_point_17_another_certificate_of_the_server_is_trusted_by_its_authority_alone() {
    let Some(made) = Certificates::make() else { return };
    made.server("renewed");
    made.authority("new-ca");
    made.server_of("moved", "new-ca");
    let trusted = made.file("trusted", "pem");
    std::fs::copy(made.file("ca", "pem"), &trusted).unwrap();
    let serving = Serving {
        certificate: Some((made.file("server", "pem"), made.file("server", "key"))),
        authority: Some(trusted.clone()),
        clients: None,
    };
    let Some(mut server) = Kubernetes::start_serving(serving) else { return };
    server.allow("client", "", "pods", &["list", "watch"]);
    two_members(&server);
    let provider = provider(&server.descriptor("orders", "client"), Kubernetes::secrets());
    let watching = watch(&provider);
    // (a) Another certificate of the same authority.
    let begun = restart_with(&mut server, &made, "renewed");
    server.delete_pod("a");
    watching.expect_members(&["b"], RECOVERED);
    println!("recovered {:?} after the server was up with a renewed certificate", begun.elapsed());
    watching.assert_kept(&["b"], &["a"]);
    let codes = watching.told().codes;
    assert!(!codes.contains(&ErrorCode::CertificateRejected), "{codes:?}");
    drop(watching);
    // (b) One of another authority, which nobody has told us to trust.
    let watching = Watching::start(&provider);
    watching.expect_members(&["b"], SOON);
    watching.expect_current(SOON);
    let begun = restart_with(&mut server, &made, "moved");
    let error = watching.expect_error(ErrorCode::CertificateRejected, RECOVERED);
    println!("told after {:?}: {error}", begun.elapsed());
    let error = provider.check_connectivity(&CancelToken::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::CertificateRejected, "{error}");
    server.run_member("orders", "c", "10.1.0.3");
    watching.assert_kept(&["b"], &[]);
    // Until the file has both authorities; nothing is started anew.
    let begun = Instant::now();
    replace_with_both(&trusted, &made);
    watching.expect_members(&["b", "c"], RECOVERED);
    println!("recovered {:?} after the authority was trusted", begun.elapsed());
    watching.expect_current(SOON);
    watching.assert_kept(&["b", "c"], &[]);
    provider.check_connectivity(&CancelToken::new()).unwrap();
}

/// Returns when the server was up again with that certificate.
fn restart_with(server: &mut Kubernetes, made: &Certificates, certificate: &str) -> Instant {
    server.kill_server();
    made.replace("server", certificate);
    server.start_server();
    Instant::now()
}

/// As it is done in good order: a new file that takes the old one's place.
fn replace_with_both(trusted: &Path, made: &Certificates) {
    let both = ["ca", "new-ca"].map(|name| std::fs::read_to_string(made.file(name, "pem")).unwrap()).concat();
    let new = trusted.with_extension("new");
    std::fs::write(&new, both).unwrap();
    std::fs::rename(new, trusted).unwrap();
}
