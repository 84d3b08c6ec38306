//! The Kubernetes provider against a real API server, and its etcd, that fail: are killed, stand still, forget.
#![cfg(feature = "kubernetes")]

#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/pods.rs"]
mod pods;
#[path = "support/kubernetes_rights.rs"]
mod rights;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cluster_provisioning::{ErrorCode, KubernetesFactory, ProviderDescriptor, ProviderEvent};
use fake::{Fake, hold, send};
use kubernetes::{Kubernetes, Part};
use pods::{Watching, provider};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// How long it may take until the next of the growing pauses is over, and the servers are up again.
const RECOVERED: Duration = Duration::from_secs(60);
/// What stopping takes at the most, unless the machine is busy at that moment.
const PROMPT: Duration = Duration::from_millis(100);

/// A server with two members, which a client may watch.
fn scene() -> Option<Kubernetes> {
    let server = Kubernetes::start()?;
    server.allow("client", "", "pods", &["list", "watch"]);
    server.run_member("orders", "a", "10.1.0.1");
    server.run_member("orders", "b", "10.1.0.2");
    Some(server)
}

fn watch(descriptor: &ProviderDescriptor) -> Watching {
    let watching = Watching::start(&provider(descriptor, Kubernetes::secrets()));
    watching.expect_members(&["a", "b"], SOON);
    // The watch is open.
    watching.expect_current(SOON);
    watching
}

/// A pod that is a member without any doing of its own.
fn pod(name: &str) -> (String, String, Value) {
    let labels = json!({"cluster.proto.actor/cluster": "orders", "cluster.proto.actor/port": "7001"});
    (name.to_owned(), "10.1.0.3".to_owned(), labels)
}

/// Waits for an error, whichever; returns its code.
fn any_error(watching: &Watching, within: Duration) -> ErrorCode {
    watching.expect("error", within, |event| match event {
        ProviderEvent::Degraded { error } => Some(error.code()),
        _ => None,
    })
}

#[test]
fn kubernetes_point_4_and_12_what_happened_while_the_server_was_down_is_known_though_it_calls_the_version_gone() {
    let Some(mut server) = scene() else { return };
    let watching = watch(&server.descriptor("orders", "client"));
    assert_eq!(server.asked("list", "labelSelector", 1).len(), 1);
    // Away while somebody goes, somebody comes, and the history of it is forgotten.
    let begun = Instant::now();
    server.kill_server();
    watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    println!("told of the server's end after {:?}", begun.elapsed());
    let version = watching.told().version;
    let from_it = format!("resourceVersion={version}&");
    let before = server.asked("watch", &from_it, 0).len();
    server.lose_pod("a");
    server.put_pods([pod("c")]);
    server.compact();
    watching.assert_kept(&["a", "b"], &[]);
    server.start_server();
    let begun = Instant::now();
    let (status, line) = server.watch_from(&version);
    println!("a watch from version {version} is answered {status} {line}");
    assert_eq!((status, &line["type"], &line["object"]["code"]), (200, &"ERROR".into(), &410.into()), "{line}");
    watching.expect_members(&["b", "c"], RECOVERED);
    println!("listed anew after {:?}", begun.elapsed());
    watching.expect_current(SOON);
    watching.assert_kept(&["b", "c"], &["a"]);
    let mut again = server.asked("watch", &from_it, before + 1).split_off(before);
    // Those that a server refused which was not ready yet do not count.
    again.retain(|(_, code)| *code == 200);
    assert_eq!(again.len(), 1, "tried once and never again: {again:?}");
    let lists = server.asked("list", "labelSelector", 2);
    assert_eq!(lists.len(), 2, "{lists:?}");
    // And from there on by changes again.
    server.delete_pod("b");
    watching.expect_members(&["c"], SOON);
    assert_eq!(watching.told().snapshots, 2);
}

#[test]
fn kubernetes_point_12_an_etcd_that_stands_still_or_is_killed_and_comes_back_loses_nobody() {
    let Some(mut server) = scene() else { return };
    let watching = watch(&server.descriptor("orders", "client"));
    let told = |watching: &Watching, what: &str, begun: Instant| {
        let code = any_error(watching, SOON);
        println!("told of an etcd that {what} after {:?}: {code}", begun.elapsed());
        assert!(matches!(code, ErrorCode::BackendUnavailable | ErrorCode::Timeout), "{code}");
    };
    let begun = Instant::now();
    server.signal(Part::Etcd, "STOP");
    told(&watching, "stands still", begun);
    // The fault itself.
    std::thread::sleep(Duration::from_secs(5));
    watching.assert_kept(&["a", "b"], &[]);
    let begun = Instant::now();
    server.signal(Part::Etcd, "CONT");
    server.await_ready();
    server.run_member("orders", "c", "10.1.0.3");
    watching.expect_members(&["a", "b", "c"], RECOVERED);
    println!("a change shown {:?} after it went on", begun.elapsed());
    watching.expect_current(SOON);
    watching.assert_kept(&["a", "b", "c"], &[]);
    // Another stream, whose pauses begin anew.
    drop(watching);
    server.delete_pod("c");
    let watching = watch(&server.descriptor("orders", "client"));
    let begun = Instant::now();
    server.kill_etcd();
    told(&watching, "was killed", begun);
    let begun = Instant::now();
    server.start_etcd();
    watching.assert_kept(&["a", "b"], &[]);
    server.run_member("orders", "d", "10.1.0.4");
    watching.expect_members(&["a", "b", "d"], RECOVERED);
    println!("a change shown {:?} after it was started", begun.elapsed());
    server.delete_pod("b");
    watching.expect_members(&["a", "d"], SOON);
    watching.expect_current(SOON);
    watching.assert_kept(&["a", "d"], &["b"]);
}

#[test]
fn kubernetes_point_12_a_backup_of_etcd_that_is_restored_brings_back_who_was_there_and_nobody_else() {
    let Some(mut server) = scene() else { return };
    server.back_up();
    server.put_pods([pod("late")]);
    server.lose_pod("a");
    let watching = Watching::start(&provider(&server.descriptor("orders", "client"), Kubernetes::secrets()));
    watching.expect_members(&["b", "late"], SOON);
    // Much more happens, so that the versions are not reached again for long.
    for number in 0..50 {
        server.patch_pod("b", &json!({"metadata": {"annotations": {"number": number.to_string()}}}));
    }
    watching.expect_current(SOON);
    server.restore();
    let begun = Instant::now();
    watching.expect_members(&["a", "b"], RECOVERED);
    println!("seen {:?} after the server was ready", begun.elapsed());
    watching.expect_current(SOON);
}

#[test]
fn kubernetes_point_10_a_server_that_stands_still_shows_within_10_s_and_recovers() {
    let Some(server) = scene() else { return };
    // As it is by default, and twice as patient as it may be.
    let by_default = server.descriptor("orders", "client").parameter("probe-interval", "6s");
    let watching = watch(&by_default);
    let begun = Instant::now();
    server.signal(Part::Server, "STOP");
    let error = watching.expect_error(ErrorCode::Timeout, SOON);
    let shown = begun.elapsed();
    println!("told of a server that stands still after {shown:?}: {error}");
    assert!(shown < Duration::from_secs(10), "{shown:?}");
    // One error is not all: while it lasts it is told again, so that the provider counts as unreachable.
    for _ in 0..2 {
        any_error(&watching, SOON);
    }
    println!("told three times after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    watching.assert_kept(&["a", "b"], &[]);
    let begun = Instant::now();
    server.signal(Part::Server, "CONT");
    server.await_ready();
    server.delete_pod("a");
    server.run_member("orders", "c", "10.1.0.3");
    watching.expect_members(&["b", "c"], RECOVERED);
    println!("changes shown {:?} after it went on", begun.elapsed());
    watching.expect_current(SOON);
    watching.assert_kept(&["b", "c"], &["a"]);
}

#[test]
fn kubernetes_point_20_stop_is_prompt_in_a_watch_and_while_the_server_stands_still_or_is_down() {
    let Some(mut server) = scene() else { return };
    let descriptor = server.descriptor("orders", "client");
    let start = || -> Vec<_> { (0..5).map(|_| watch(&descriptor)).collect() };
    let stop = |what: &str, all: Vec<Watching>| {
        let mut times: Vec<_> = all.into_iter().map(|mut watching| watching.stop()).collect();
        times.sort();
        println!("stopped {what}: {times:?}");
        // The machine may be busy at one moment, and not at five.
        assert!(times[0] < PROMPT, "{what}: {times:?}");
        assert!(times[4] < Duration::from_secs(2), "{what}: {times:?}");
    };
    stop("in a watch", start());
    let all = start();
    server.signal(Part::Server, "STOP");
    for watching in &all {
        any_error(watching, SOON);
    }
    stop("while the server stands still", all);
    let before_anything = || provider(&descriptor, Kubernetes::secrets());
    stop("in its first handshake", (0..5).map(|_| Watching::start(&before_anything())).collect());
    server.signal(Part::Server, "CONT");
    let all = start();
    server.kill_server();
    for watching in &all {
        any_error(watching, SOON);
    }
    stop("while the server is down", all);
}

#[test]
fn kubernetes_watches_of_a_quiet_server_are_short_at_first_and_their_silence_is_no_alarm() {
    let Some(server) = scene() else { return };
    let watching = watch(&server.descriptor("orders", "client").parameter("answer-timeout", "1s"));
    let asked = |verb| server.asked(verb, "labelSelector", 0);
    // Where nothing happened this server sends no bookmark. It writes a watch down when it ends.
    watching.expect("two watches", SOON * 2, |event| {
        assert!(!matches!(event, ProviderEvent::Degraded { .. }), "{event:?}");
        (asked("watch").len() >= 2).then_some(())
    });
    let timeouts: Vec<u64> = asked("watch")
        .iter()
        .map(|(uri, _)| uri.split_once("timeoutSeconds=").and_then(|(_, rest)| rest.parse().ok()).unwrap())
        .collect();
    assert!(timeouts[0] <= 6 && timeouts[1] <= 12, "{timeouts:?}");
    watching.expect_current(SOON);
}

/// What a proxy lets through of a watch.
#[derive(Clone, Copy, Debug)]
enum Lets {
    /// Nothing but its head.
    Head,
    /// Nothing at all.
    Nothing,
    /// Everything, once it has ended.
    AllAtTheEnd,
}

/// A proxy before that server, whose watches it holds back.
fn holding_back(server: &Kubernetes, lets: Lets) -> Fake {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The proxy's threads last as long as the process, and the server only as long as the test.
    let server = server.visitor();
    Fake::start(move |request, stream: &mut TcpStream| {
        let is_watch = request.target.contains("watch=1");
        match lets {
            Lets::Head if is_watch => return stream.write_all(HEAD).is_ok() && hold(stream),
            Lets::Nothing if is_watch => return hold(stream),
            _ => {}
        }
        let Ok((status, body)) = server.request("GET", &request.target, &Value::Null) else { return false };
        let body = match body {
            Value::String(text) => text,
            one => format!("{one}\n"),
        };
        send(stream, &format!("{status} As Said"), "Content-Type: application/json\r\n", body.as_bytes())
    })
}

#[test]
fn kubernetes_behind_a_proxy_that_holds_watches_back_whoever_is_deleted_leaves_and_who_comes_joins() {
    let Some(server) = scene() else { return };
    let proxies = [Lets::Head, Lets::Nothing, Lets::AllAtTheEnd].map(|lets| (lets, holding_back(&server, lets)));
    let watching = proxies.each_ref().map(|(_, proxy)| {
        let outside = KubernetesFactory::descriptor("k8s", "orders").unwrap().endpoint(proxy.url());
        let outside = outside.parameter("namespace", kubernetes::NAMESPACE).parameter("answer-timeout", "1s");
        Watching::start(&provider(&outside, Kubernetes::secrets()))
    });
    for ((lets, _), watching) in proxies.iter().zip(&watching) {
        println!("{lets:?}");
        watching.expect_members(&["a", "b"], SOON);
    }
    server.delete_pod("b");
    for watching in &watching {
        watching.expect_members(&["a"], SOON);
    }
    server.run_member("orders", "c", "10.1.0.3");
    for watching in &watching {
        watching.expect_members(&["a", "c"], SOON);
    }
}
