//! The Kubernetes provider against servers that answer oddly, or not at all.
#![cfg(feature = "kubernetes")]

#[path = "support/api.rs"]
mod api;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{
    GONE, PROMPT, SOON, TOKEN, begin, chunk, descriptor, end, event, is_list, is_watch, json, list_of, pod, secrets,
    server, version_of, watch,
};
use cluster_provisioning::{
    CancelToken, ClusterNode, Credential, ErrorCode, KubernetesFactory, ProviderEnvironment, ProviderFactory,
    SystemClock,
};
use fake::{Fake, hold, send};
use pods::{join, provider, provider_of};

#[test]
fn kubernetes_point_1_pages_are_one_set_and_the_watch_goes_on_from_the_lists_version() {
    let pages = |request: &fake::Request| match request.target.split("continue=").nth(1) {
        None => list_of("40", "p2", &["a"]),
        Some("p2") => list_of("40", "p3", &["b"]),
        Some(_) => list_of("40", "", &["c"]),
    };
    let fake = server(pages, |_, stream| begin(stream, "") && hold(stream));
    let mut watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a", "b", "c"], SOON);
    watching.expect_current(SOON);
    let requests = fake.requests();
    let watch = requests.iter().find(|request| is_watch(request)).unwrap();
    assert_eq!(version_of(watch), Some("40"));
    assert!(watch.target.contains("allowWatchBookmarks=true") && watch.target.contains("timeoutSeconds="));
    assert_eq!(watch.header("accept-encoding"), Some("identity"));
    let pages: Vec<_> = requests.iter().filter(|request| is_list(request)).collect();
    assert!(pages.len() == 3 && pages.iter().all(|page| page.target.contains("limit=500")));
    assert!(pages.iter().all(|page| version_of(page).is_none()), "a version beside a token is an error");
    assert!(requests.iter().all(|request| request.header("authorization") == Some(&format!("Bearer {TOKEN}"))));
    assert!(watching.stop() < PROMPT, "in the middle of a watch");
}

#[test]
fn kubernetes_point_2_to_4_410_in_each_form_leads_to_a_list_and_nothing_partial_is_seen() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let fake = Fake::start(move |request, stream| {
        if !is_list(request) && !is_watch(request) {
            return send(stream, "200 OK", "", b"ok");
        }
        match seen.fetch_add(1, Ordering::SeqCst) {
            0 => json(stream, "200 OK", &list_of("1", "p2", &["partial"])),
            1 => json(stream, "410 Gone", GONE),
            2 => json(stream, "200 OK", &list_of("2", "", &["a"])),
            3 => json(stream, "410 Gone", GONE),
            4 => json(stream, "200 OK", &list_of("3", "", &["a", "b"])),
            5 => begin(stream, &event("ERROR", GONE)) && end(stream),
            6 => json(stream, "200 OK", &list_of("4", "", &["c"])),
            _ => begin(stream, "") && hold(stream),
        }
    });
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a"], SOON * 2);
    watching.expect_members(&["a", "b"], SOON * 2);
    watching.expect_members(&["c"], SOON * 2);
    assert!(!watching.ever_showed("partial"));
    let requests = fake.requests();
    let watches: Vec<_> = requests.iter().filter(|request| is_watch(request)).filter_map(version_of).collect();
    assert_eq!(&watches[..2], ["2", "3"], "no version is watched again");
}

#[test]
fn kubernetes_point_8_and_13_and_14_lines_come_in_any_pieces_and_unusable_ones_are_skipped() {
    let fake = server(
        |_| list_of("1", "", &["a"]),
        |request, stream| {
            if version_of(request) != Some("1") {
                return begin(stream, "") && hold(stream);
            }
            let added = event("ADDED", &pod("b", 2));
            let (first, second) = added.split_at(added.len() / 2);
            let endless = format!("{{\"type\":\"ADDED\",\"object\":\"{}\"}}\n", "x".repeat(3 << 20));
            let bookmark = event("BOOKMARK", r#"{"kind":"Pod","metadata":{"resourceVersion":"9"}}"#);
            let several = format!("{}{}{bookmark}", event("ADDED", &pod("c", 3)), event("DELETED", &pod("a", 4)));
            let begun = begin(stream, first) && chunk(stream, second) && chunk(stream, &endless);
            begun && chunk(stream, "{\"type\":\"ADDED\",\"object\":7}\n") && chunk(stream, &several) && end(stream)
        },
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["b", "c"], SOON);
    watching.expect_current(SOON);
    let requests = fake.requests();
    let versions: Vec<_> = requests.iter().filter(|request| is_watch(request)).filter_map(version_of).collect();
    assert_eq!(versions, ["1", "9"], "a clean end goes on from the bookmark");
    assert_eq!(requests.iter().filter(|request| is_list(request)).count(), 1);
}

#[test]
fn kubernetes_point_17_a_rotated_token_is_used_and_after_a_401_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let rotated = path.clone();
    let fake = Fake::start(move |request, stream| {
        let fresh = request.header("authorization") == Some("Bearer second");
        match is_list(request) {
            true if !fresh => {
                std::fs::write(&rotated, " second\n").unwrap();
                json(stream, "401 Unauthorized", r#"{"kind":"Status","reason":"Unauthorized","code":401}"#)
            }
            true => json(stream, "200 OK", &list_of("1", "", &["a"])),
            false if is_watch(request) => begin(stream, "") && hold(stream),
            false => send(stream, "200 OK", "", b"ok"),
        }
    });
    let descriptor = descriptor(&fake.url()).credential(Credential::TokenFile(path.display().to_string()));
    let watching = watch(&descriptor);
    watching.expect_members(&["a"], PROMPT);
}

#[test]
fn kubernetes_point_18_a_refused_list_is_never_an_empty_one_and_errors_never_show_the_token() {
    let refuse = Arc::new(AtomicUsize::new(0));
    let flag = Arc::clone(&refuse);
    let fake = Fake::start(move |request, stream| {
        if is_watch(request) && flag.load(Ordering::SeqCst) == 0 {
            flag.store(1, Ordering::SeqCst);
            return begin(stream, &event("ADDED", &pod("b", 2))) && end(stream);
        }
        if flag.load(Ordering::SeqCst) == 1 && (is_watch(request) || is_list(request)) {
            let message = format!("pods is forbidden for Bearer {TOKEN}");
            let body = format!(r#"{{"kind":"Status","reason":"Forbidden","message":"{message}","code":403}}"#);
            return json(stream, "403 Forbidden", &body);
        }
        json(stream, "200 OK", &list_of("1", "", &["a"]))
    });
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a", "b"], SOON);
    let error = watching.expect_error(ErrorCode::AccessDenied, SOON);
    assert!(error.to_string().contains("pods is forbidden") && !error.to_string().contains(TOKEN), "{error}");
    let rule = r#"in namespace "shop" needs the rule {apiGroups: [""], resources: ["pods"], verbs: ["watch"]}"#;
    assert!(error.to_string().contains(rule), "{error}");
    watching.expect_members(&["a", "b"], SOON);
}

#[test]
fn kubernetes_answers_that_are_none_are_refused() {
    let check = |answer: fn(&mut TcpStream) -> bool| {
        let fake = Fake::start(move |_, stream| answer(stream));
        let provider = provider(&descriptor(&fake.url()), secrets());
        provider.check_connectivity(&CancelToken::new()).unwrap_err().code()
    };
    let html = |stream: &mut TcpStream| send(stream, "200 OK", "Content-Type: text/html\r\n", b"<html>login</html>");
    assert_eq!(check(html), ErrorCode::MalformedAnswer);
    assert_eq!(check(|stream| send(stream, "503 No", "", b"<html>")), ErrorCode::BackendUnavailable);
    let https = |stream: &mut TcpStream| {
        send(stream, "400 Bad Request", "", b"Client sent an HTTP request to an HTTPS server.\n")
    };
    assert_eq!(check(https), ErrorCode::InvalidConfig);
    let redirect = |stream: &mut TcpStream| send(stream, "302 Found", "Location: http://127.0.0.1:1/\r\n", b"");
    assert_eq!(check(redirect), ErrorCode::RedirectRefused);
    let fake = server(
        |_| list_of("1", "", &["a"]),
        |_, stream| send(stream, "200 OK", "Content-Type: text/html\r\n", b"<html>\nlogin\n</html>\n"),
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a"], SOON);
    watching.expect_error(ErrorCode::MalformedAnswer, SOON);
}

#[test]
fn kubernetes_point_19_a_page_is_read_up_to_its_cap_compressed_or_not() {
    use flate2::{Compression, write::GzEncoder};
    let fake = Fake::start(|request, stream| {
        if !is_list(request) {
            return begin(stream, "") && hold(stream);
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let names: Vec<String> = (0..300).map(|n| format!("p{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        encoder.write_all(list_of("1", "", &names).as_bytes()).unwrap();
        send(stream, "200 OK", "Content-Encoding: gzip\r\n", &encoder.finish().unwrap())
    });
    watch(&descriptor(&fake.url())).expect("300 members", SOON, |event| match event {
        cluster_provisioning::ProviderEvent::Snapshot { members, .. } => (members.len() == 300).then_some(()),
        _ => None,
    });
    let small = watch(&descriptor(&fake.url()).parameter("max-body", "16KiB"));
    small.expect_error(ErrorCode::AnswerTooLarge, SOON);
}

#[test]
fn kubernetes_in_member_mode_only_own_keys_are_patched_and_what_no_label_carries_is_refused() {
    let fake = Fake::start(|_, stream| {
        let pod = r#"{"kind":"Pod","metadata":{"uid":"u1","labels":{"app":"x","cluster.proto.actor/kind-old":"true"}},
            "status":{"podIP":"10.0.0.1"}}"#;
        json(stream, "200 OK", pod)
    });
    let node = ClusterNode::builder("n1", "10.0.0.1", 7001).kind("user").build().unwrap();
    let descriptor = descriptor(&fake.url()).parameter("pod", "orders-0");
    let provider = provider_of(&descriptor, secrets(), Some(node.clone()));
    let mut registration = join(&*provider, &node).unwrap();
    registration.leave(PROMPT).unwrap();
    let requests = fake.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(
            (request.method.as_str(), request.header("content-type")),
            ("PATCH", Some("application/merge-patch+json"))
        );
        assert_eq!(request.target, "/api/v1/namespaces/shop/pods/orders-0");
        assert!(!request.body.contains("app"));
    }
    assert_eq!(requests[0].body, "{}");
    assert!(requests[1].body.contains("\"cluster.proto.actor/kind-old\":null"), "{}", requests[1].body);
    assert!(requests[2].body.contains("\"cluster.proto.actor/member-id\":null"), "{}", requests[2].body);
    let spelled = ClusterNode::builder("n1", "[::FFFF:10.0.0.1]", 7001).kind("user").build().unwrap();
    let same = provider_of(&descriptor, secrets(), Some(spelled.clone()));
    join(&*same, &spelled).unwrap().leave(PROMPT).unwrap();
    let elsewhere = ClusterNode::builder("n1", "10.9.9.9", 7001).build().unwrap();
    let other = provider_of(&descriptor, secrets(), Some(elsewhere.clone()));
    let error = join(&*other, &elsewhere).err().unwrap();
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidNode, Some("address")), "{error}");
    let unfit = ClusterNode::builder("10.0.0.1:7001", "10.0.0.1", 7001).build().unwrap();
    let environment =
        ProviderEnvironment::new(SystemClock::shared()).secrets(secrets()).local_node(Some(Arc::new(unfit)));
    let error = KubernetesFactory.create(&descriptor, &environment).err().unwrap();
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidNode, Some("id")), "{error}");
}
