//! The Consul provider over a unix socket.
#![cfg(all(unix, feature = "consul"))]

#[allow(dead_code, reason = "each test file uses its share")]
#[path = "support/fake.rs"]
mod fake;
#[path = "support/secure.rs"]
mod secure;
#[path = "support/watching.rs"]
mod watching;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use cluster_provisioning::{CancelToken, ConsulFactory, Credential, ErrorCode, ProviderDescriptor};
use fake::{Fake, entry, hold, list};
use watching::{TOKEN, Watching, provider};

const SOON: Duration = Duration::from_secs(10);

fn descriptor(path: &Path) -> ProviderDescriptor {
    let url = format!("unix://{}", path.display());
    ConsulFactory::descriptor("consul-unix", &url, "orders").unwrap().parameter("probe-interval", "100ms")
}

fn check_error(descriptor: &ProviderDescriptor) -> cluster_provisioning::ProvisioningError {
    provider(descriptor).check_connectivity(&CancelToken::new()).unwrap_err()
}

#[test]
fn consul_point_17_the_members_are_watched_over_a_unix_socket_and_stopping_is_prompt() {
    let body = format!("[{}]", entry("n1"));
    let fake = Fake::start(move |request, stream| match (request.is_probe(), request.index()) {
        (true, _) => list(stream, 7, "[]"),
        (false, None) => list(stream, 7, &body),
        (false, Some(_)) => hold(stream),
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("consul.sock");
    secure::socket(&path, fake.address);
    let mut watching = Watching::start(&provider(&descriptor(&path).credential(Credential::Secret("consul".into()))));
    watching.expect_members(&["n1"], SOON);
    for _ in 0..5 {
        watching.expect_current(SOON);
    }
    // The watch waits for news and the probe between two questions, over a connection each.
    assert_eq!(fake.connections(), 2);
    let request = fake.watches().remove(0);
    assert_eq!(request.header("host"), Some("localhost"));
    assert_eq!(request.header("x-consul-token"), Some(TOKEN));
    assert_eq!(request.header("accept-encoding"), None, "neighbours do not compress");
    assert!(watching.stop() < Duration::from_secs(1));
}

#[test]
fn consul_point_17_a_socket_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("consul.sock");
    let error = check_error(&descriptor(&path));
    assert_eq!(error.code(), ErrorCode::BackendUnavailable, "{error}");
    assert!(error.detail().contains("consul.sock"), "{error}");
    // Nobody listens any more.
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(check_error(&descriptor(&path)).code(), ErrorCode::BackendUnavailable);
}

#[cfg(target_os = "linux")]
#[test]
fn consul_point_20_a_socket_whose_queue_is_full_or_that_never_answers_costs_a_timeout_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("consul.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Room for one connection that has not been accepted.
    rustix::net::listen(&listener, 0).unwrap();
    let short = |limit: &str| {
        let descriptor = descriptor(&path).parameter("connect-timeout", "300ms");
        descriptor.parameter("answer-timeout", limit)
    };
    let begun = Instant::now();
    let mute = check_error(&short("300ms"));
    assert!(mute.code() == ErrorCode::Timeout && mute.detail().contains("response"), "{mute}");
    let full = check_error(&short("60s"));
    assert!(full.code() == ErrorCode::Timeout && full.detail().contains("connect"), "{full}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
