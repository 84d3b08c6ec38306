//! What the Kubernetes provider makes of answers that are odd, wrong or too large, over a socket.
#![cfg(feature = "kubernetes")]

#[path = "support/api.rs"]
mod api;
#[path = "support/child.rs"]
mod child;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use api::{
    GONE, SOON, begin, begin_as, bookmark, chunk, chunk_of, descriptor, end, event, follow, json, list_of, list_with,
    lists, pod, scripted, server, watch, watched,
};
use child::{in_child, is_child};
use cluster_provisioning::{ClusterNode, ErrorCode, KubernetesFactory, MemberChange, ProviderEvent};
use fake::{Fake, hold, send};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

fn pod_value(name: &str, version: u64) -> Value {
    serde_json::from_str(&pod(name, version)).unwrap()
}

/// The same pod, other in one place.
fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value;
    pod
}

fn without(mut pod: Value, parent: &str, key: &str) -> Value {
    pod.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
    pod
}

/// A list of these pods, and a watch that says those lines and stays open.
fn quiet(pods: Vec<String>, lines: String) -> Fake {
    scripted(
        move |_, stream| json(stream, "200 OK", &list_with("10", "", &pods)),
        move |_, stream| follow(stream, &lines),
    )
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn kubernetes_point_14_objects_of_any_shape_are_skipped_and_counted_and_the_stream_goes_on() {
    let bad = |name: &str| pod_value(name, 20);
    let lines = [
        with(bad("x1"), "/metadata/name", json!(7)),
        without(bad("x2"), "/metadata", "name"),
        with(bad("x3"), "/metadata", json!([])),
        with(bad("x4"), "/metadata/labels", json!("none")),
        with(bad("x5"), "/metadata/labels/cluster.proto.actor~1port", json!(7001)),
        with(bad("x6"), "/metadata/labels/cluster.proto.actor~1port", json!("70001")),
        with(bad("x7"), "/metadata/creationTimestamp", json!("yesterday")),
        with(bad("x8"), "/status", json!("Running")),
        with(bad("x9"), "/status/podIP", json!("10.0.0.256")),
        with(bad("x10"), "/status/conditions", json!({"Ready": true})),
        with(bad("x11"), "/status/conditions", json!([null])),
        json!([]),
        json!("pod"),
        json!(null),
    ];
    let count = lines.len();
    let lines: String = lines.iter().map(|object| event("ADDED", &object.to_string())).collect();
    // What is missing altogether is a pod that is no member yet.
    let bare = event("ADDED", r#"{"metadata":{"name":"bare","uid":"u","resourceVersion":"21"}}"#);
    let broken = "{\"type\":\"ADDED\",\"object\":{\"metadata\":]}\n{\"type\":\n{}\n\n \r\n";
    // A member that becomes unusable is none, as the next list would say.
    let spoilt = event("MODIFIED", &with(bad("a"), "/status/podIP", json!(1)).to_string());
    let good = event("ADDED", &pod("b", 30));
    let fake = quiet(vec![pod("a", 1)], format!("{lines}{bare}{broken}{spoilt}{good}"));
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["b"], SOON);
    watching.expect_current(SOON);
    assert_eq!(watching.skipped(), count + 3 + 1);
    assert_eq!((watched(&fake).len(), lists(&fake)), (1, 1), "in one watch");
}

#[test]
fn kubernetes_point_13_an_object_of_almost_a_mebibyte_is_read_and_a_larger_one_passed_over() {
    let with_note = |name: &str, size: usize| {
        let annotations = json!({"note": "x".repeat(size), "cluster.proto.actor/incarnation": "7"});
        with(pod_value(name, 20), "/metadata/annotations", annotations).to_string()
    };
    let (large, larger) = (with_note("large", 900 << 10), with_note("larger", 1100 << 10));
    let lines = format!("{}{}{}", event("ADDED", &larger), event("ADDED", &large), event("ADDED", &pod("b", 30)));
    let listed = vec![with_note("in-list", 900 << 10), with_note("not-in-list", 1100 << 10), pod("a", 1)];
    let watching = watch(&descriptor(&quiet(listed, lines).url()));
    watching.expect_members(&["a", "b", "in-list", "large"], SOON);
    watching.expect_current(SOON);
    assert_eq!(watching.skipped(), 2);
    let large = ClusterNode::builder("large", "10.0.0.1", 7001).incarnation(7).build().unwrap();
    watching.expect_node(&large, SOON);
}

/// The most memory that this process has ever had, in KiB.
#[cfg(target_os = "linux")]
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn kubernetes_point_13_a_line_of_100_mb_costs_no_memory_and_the_next_one_is_seen() {
    const NAME: &str = "kubernetes_point_13_a_line_of_100_mb_costs_no_memory_and_the_next_one_is_seen";
    // In a process of its own, whose memory is its own.
    if !is_child() {
        return in_child(NAME, &[]);
    }
    let fake = scripted(
        |_, stream| json(stream, "200 OK", &list_of("10", "", &["a"])),
        |_, stream| {
            let (piece, mut begun) = ([b'x'; 64 << 10], begin(stream, "{\"type\":\"ADDED\",\"object\":\""));
            for _ in 0..1600 {
                begun = begun && chunk_of(stream, &piece);
            }
            begun && chunk(stream, "\"}\n") && chunk(stream, &event("ADDED", &pod("b", 30))) && hold(stream)
        },
    );
    let watching = watch(&descriptor(&fake.url()).parameter("answer-timeout", "1m"));
    watching.expect_members(&["a"], SOON);
    let before = most_memory();
    watching.expect_members(&["a", "b"], Duration::from_secs(60));
    let grown = most_memory() - before;
    println!("a line of 100 MB cost {grown} KiB");
    assert!(grown < 16 << 10, "{grown} KiB");
    assert_eq!((watching.skipped(), watched(&fake).len()), (1, 1));
}

#[cfg(target_os = "linux")]
#[test]
fn kubernetes_point_13_a_line_that_never_ends_is_broken_off_and_costs_no_memory() {
    const NAME: &str = "kubernetes_point_13_a_line_that_never_ends_is_broken_off_and_costs_no_memory";
    if !is_child() {
        return in_child(NAME, &[]);
    }
    let fast = scripted(
        |_, stream| json(stream, "200 OK", &list_of("10", "", &["a"])),
        |count, stream| match count {
            0 => {
                let mut begun = begin(stream, "{\"type\":\"ADDED\",\"object\":\"");
                while begun {
                    begun = chunk_of(stream, &[b'x'; 64 << 10]);
                }
                false
            }
            _ => follow(stream, &event("ADDED", &pod("b", 30))),
        },
    );
    // Little by little, behind a line that is whole.
    let slow = scripted(
        |_, stream| json(stream, "200 OK", &list_of("10", "", &["a"])),
        |count, stream| match count {
            0 => {
                let mut begun = begin(stream, &format!("{}{{", bookmark("20")));
                while begun {
                    std::thread::sleep(Duration::from_millis(100));
                    begun = chunk(stream, " ");
                }
                false
            }
            _ => follow(stream, &event("ADDED", &pod("b", 30))),
        },
    );
    let watching = [&fast, &slow].map(|fake| watch(&descriptor(&fake.url()).parameter("answer-timeout", "1s")));
    for watching in &watching {
        watching.expect_members(&["a"], SOON);
    }
    let before = most_memory();
    for watching in &watching {
        let error = watching.expect_error(ErrorCode::Timeout, SOON);
        assert!(error.to_string().contains("line"), "{error}");
        watching.expect_members(&["a", "b"], SOON);
    }
    let grown = most_memory() - before;
    println!("a line without an end cost {grown} KiB");
    assert!(grown < 16 << 10, "{grown} KiB");
    assert_eq!((watched(&fast), watched(&slow)), (vec!["10".into(), "10".into()], vec!["10".into(), "20".into()]));
}

#[test]
fn kubernetes_what_is_no_list_is_an_error_and_leaves_the_members_as_they_are() {
    type Answer = Box<dyn Fn(&mut TcpStream) -> bool + Send + Sync>;
    fn text(body: String) -> Answer {
        Box::new(move |stream| json(stream, "200 OK", &body))
    }
    let good = list_of("11", "", &["c"]);
    let half = good[..good.len() / 2].to_owned();
    let cut = half.clone();
    let meta = r#""metadata":{"resourceVersion":"11"}"#;
    let bad: Vec<(&str, ErrorCode, Answer)> = vec![
        (
            "a proxy's page",
            ErrorCode::MalformedAnswer,
            Box::new(|stream| send(stream, "200 OK", "Content-Type: text/html\r\n", b"<html>\nlogin\n</html>\n")),
        ),
        ("a status", ErrorCode::MalformedAnswer, text(GONE.into())),
        ("half a list", ErrorCode::MalformedAnswer, text(half)),
        (
            "a list that is cut off",
            ErrorCode::BackendUnavailable,
            Box::new(move |stream| {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{cut}", 2 * cut.len());
                let _ = stream.write_all(head.as_bytes());
                stream.shutdown(std::net::Shutdown::Both).is_err()
            }),
        ),
        ("another kind", ErrorCode::MalformedAnswer, text(format!(r#"{{"kind":"ServiceList",{meta},"items":[]}}"#))),
        ("no list", ErrorCode::MalformedAnswer, text(format!(r#"{{"kind":"Pod",{meta},"items":[]}}"#))),
        (
            "objects twice",
            ErrorCode::MalformedAnswer,
            text(format!(r#"{{"kind":"PodList",{meta},"items":[],"items":[{}]}}"#, pod("c", 1))),
        ),
        (
            "two kinds",
            ErrorCode::MalformedAnswer,
            text(format!(r#"{{"kind":"PodList",{meta},"items":[],"kind":"Status"}}"#)),
        ),
        (
            "a version taken back",
            ErrorCode::MalformedAnswer,
            text(format!(r#"{{"kind":"PodList",{meta},"items":[],"metadata":{{}}}}"#)),
        ),
        (
            "no gzip",
            ErrorCode::MalformedAnswer,
            Box::new(|stream| send(stream, "200 OK", "Content-Encoding: gzip\r\n", b"{\"kind\":\"PodList\"}")),
        ),
    ];
    let all: Vec<_> = bad
        .into_iter()
        .map(|(what, code, answer)| {
            let good = good.clone();
            let fake = scripted(
                move |count, stream| match count {
                    0 => json(stream, "200 OK", &list_of("10", "", &["a", "b"])),
                    1 => answer(stream),
                    _ => json(stream, "200 OK", &good),
                },
                |count, stream| if count == 0 { json(stream, "410 Gone", GONE) } else { follow(stream, "") },
            );
            (what, code, watch(&descriptor(&fake.url())))
        })
        .collect();
    for (what, code, watching) in &all {
        watching.expect_members(&["a", "b"], SOON);
        let seen = watching.expect(&format!("{code} for {what}"), SOON, |event| match event {
            ProviderEvent::Degraded { error } => Some(error.code()),
            ProviderEvent::Snapshot { .. } => panic!("{what} was believed: {event:?}"),
            _ => None,
        });
        assert_eq!(seen, *code, "{what}");
        assert!(watching.shows(&["a", "b"]), "{what}");
    }
    for (_, _, watching) in &all {
        watching.expect_members(&["c"], SOON);
    }
}

#[test]
fn kubernetes_what_is_no_watch_is_an_error_and_is_not_asked_for_again_at_once() {
    let html = |stream: &mut TcpStream| send(stream, "200 OK", "Content-Type: text/html\r\n", b"<html>\nno\n</html>\n");
    let fake = scripted(
        |_, stream| json(stream, "200 OK", &list_of("10", "", &["a"])),
        move |count, stream| if count < 2 { html(stream) } else { follow(stream, &event("ADDED", &pod("b", 11))) },
    );
    // A status in place of a watch that says nothing else, again and again.
    let status = scripted(
        |count, stream| json(stream, "200 OK", &list_of(["10", "20"][count.min(1)], "", &["a"])),
        |count, stream| match count {
            0..3 => json(stream, "200 OK", &format!("{GONE}\n")),
            _ => follow(stream, &event("ADDED", &pod("b", 21))),
        },
    );
    let (html, odd) = (watch(&descriptor(&fake.url())), watch(&descriptor(&status.url())));
    html.expect_error(ErrorCode::MalformedAnswer, SOON);
    html.expect_members(&["a", "b"], SOON);
    assert_eq!(watched(&fake), ["10", "10", "10"]);
    assert!(api::pauses(&fake)[1..].iter().zip([790, 1590]).all(|(pause, least)| pause.as_millis() >= least));
    odd.expect_error(ErrorCode::StreamEnded, SOON);
    odd.expect_members(&["a", "b"], SOON * 2);
    assert_eq!(watched(&status), ["10", "10", "10", "20"], "three in a row lead to a list");
}

#[test]
fn kubernetes_a_watch_that_is_compressed_unasked_is_read_as_it_arrives() {
    let fake = scripted(
        |_, stream| json(stream, "200 OK", &list_of("10", "", &["a"])),
        |count, stream| {
            let begun = begin_as(stream, "Content-Encoding: gzip\r\n", b"");
            match count {
                // Each piece is complete, and the answer goes on.
                0 => {
                    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                    encoder.write_all(event("ADDED", &pod("b", 11)).as_bytes()).unwrap();
                    encoder.flush().unwrap();
                    let piece = std::mem::take(encoder.get_mut());
                    begun && chunk_of(stream, &piece) && hold(stream)
                }
                _ => begun && hold(stream),
            }
        },
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a", "b"], SOON);
    // What is announced as compressed and is not breaks the watch.
    let lie = scripted(
        |_, stream| json(stream, "200 OK", &list_of("10", "", &["a"])),
        |count, stream| match count {
            0 => {
                begin_as(stream, "Content-Encoding: gzip\r\n", event("ADDED", &pod("b", 11)).as_bytes()) && end(stream)
            }
            1 => {
                begin_as(stream, "Content-Encoding: gzip\r\n", &gzip(event("ADDED", &pod("c", 11)).as_bytes()))
                    && end(stream)
            }
            _ => follow(stream, ""),
        },
    );
    let watching = watch(&descriptor(&lie.url()));
    watching.expect_error(ErrorCode::MalformedAnswer, SOON);
    watching.expect_members(&["a", "c"], SOON);
    assert!(!watching.ever_showed("b"));
}

#[test]
fn kubernetes_deletions_say_little_and_events_may_be_of_what_is_not_there() {
    let node = |id: &str, life: u64| with(pod_value(id, 1), "/metadata/uid", json!(format!("u-{life}"))).to_string();
    let last_state = {
        let pod = with(pod_value("failed", 21), "/status", json!({"phase": "Failed"}));
        with(without(pod, "/metadata", "labels"), "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"))
    };
    let lines = [
        event("DELETED", r#"{"metadata":{"name":"a","uid":"u-a","resourceVersion":"20"}}"#),
        event("DELETED", &last_state.to_string()),
        // In a watch the events of a name are in order: what is deleted is what is there.
        event("DELETED", r#"{"metadata":{"name":"no-uid","resourceVersion":"22"}}"#),
        event("DELETED", &node("replaced", 1)),
        event("DELETED", &pod("never-there", 23)),
        event("ADDED", &pod("there", 24)),
        event("MODIFIED", &pod("not-there", 25)),
        event("SYNCED", &pod("there", 26)),
        event("added", &pod("other", 27)),
        event("DELETED", r#"{"metadata":{"resourceVersion":"28"}}"#),
    ];
    let listed = vec![
        pod("a", 1),
        pod("failed", 1),
        pod("no-uid", 1),
        node("replaced", 2),
        pod("there", 1),
        // The same once more, as pages of a list that shifted may show it.
        pod("there", 1),
    ];
    let fake = scripted(
        move |_, stream| json(stream, "200 OK", &list_with("10", "", &listed)),
        move |count, stream| match count {
            0 => begin(stream, &lines.concat()) && end(stream),
            _ => follow(stream, ""),
        },
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a", "failed", "no-uid", "replaced", "there"], SOON);
    watching.expect("the rest", SOON, |event| {
        if let ProviderEvent::Changes { changes, .. } = event {
            let again =
                |change: &MemberChange| matches!(change, MemberChange::Upsert(node) if node.id().as_str() == "there");
            assert!(!changes.iter().any(again), "what is there already is no change: {changes:?}");
        }
        watching.shows(&["not-there", "replaced", "there"]).then_some(())
    });
    watching.expect_current(SOON);
    assert_eq!(watching.skipped(), 3, "two unknown types, and a deletion of nobody");
    assert_eq!((watched(&fake), lists(&fake)), (["10", "28"].map(String::from).to_vec(), 1));
}

#[test]
fn kubernetes_point_16_of_two_pods_with_one_id_the_later_life_counts() {
    let life = |name: &str, address: &str, created: &str| {
        let pod = with(pod_value(name, 1), "/metadata/labels/cluster.proto.actor~1member-id", json!("n1"));
        let pod = with(pod, "/metadata/creationTimestamp", json!(created));
        with(pod, "/status/podIP", json!(address)).to_string()
    };
    let old = life("old", "10.0.0.1", "2026-01-01T00:00:00Z");
    let new = life("new", "10.0.0.2", "2026-01-01T00:00:01Z");
    let later = life("later", "10.0.0.3", "2026-01-01T00:00:02Z");
    let node = |address: &str, second: u64| {
        ClusterNode::builder("n1", address, 7001).incarnation((1_767_225_600 + second) * 1000).build().unwrap()
    };
    let goes = |name: &str, version: u64| {
        event(
            "DELETED",
            &format!(r#"{{"metadata":{{"name":"{name}","uid":"u-{name}","resourceVersion":"{version}"}}}}"#),
        )
    };
    let (first, second) = (event("ADDED", &later), [goes("old", 12), goes("later", 13)].concat());
    let fake = scripted(
        move |_, stream| json(stream, "200 OK", &list_with("10", "", &[new.clone(), old.clone()])),
        move |count, stream| match count {
            0 => begin(stream, &first) && end(stream),
            1 => begin(stream, &second) && end(stream),
            _ => follow(stream, ""),
        },
    );
    let watching = watch(&descriptor(&fake.url()));
    for (address, second) in [("10.0.0.2", 1), ("10.0.0.3", 2), ("10.0.0.2", 1)] {
        watching.expect_node(&node(address, second), SOON);
        watching.expect_members(&["n1"], SOON);
    }
}

#[test]
fn kubernetes_point_16_pods_of_any_network_are_members_by_the_family_that_is_asked_for() {
    let at = |name: &str, addresses: &[&str]| {
        let all: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let pod = with(pod_value(name, 1), "/status/podIP", json!(addresses[0]));
        with(pod, "/status/podIPs", json!(all))
    };
    let on_host = |name: &str, port: &str| {
        let pod = with(at(name, &["192.168.0.1"]), "/spec/hostNetwork", json!(true));
        with(pod, "/metadata/labels/cluster.proto.actor~1port", json!(port))
    };
    let pods = [
        at("six", &["fd00::6"]),
        at("both", &["10.0.0.1", "fd00::1"]),
        on_host("host-1", "7001"),
        on_host("host-2", "7002"),
        // It has ended, and keeps the address that another has by now.
        with(at("failed", &["10.0.0.9"]), "/status/phase", json!("Failed")),
        at("heir", &["10.0.0.9"]),
        // By a clock that is ahead of everyone's.
        with(at("future", &["10.0.0.8"]), "/metadata/creationTimestamp", json!("2999-12-31T23:59:59Z")),
    ];
    let fake = quiet(pods.iter().map(Value::to_string).collect(), String::new());
    let node = |id: &str, address: &str, port: u16| {
        ClusterNode::builder(id, address, port).incarnation(1_767_225_600_000).build().unwrap()
    };
    let of = |family: &str| watch(&descriptor(&fake.url()).parameter("ip-family", family));
    let (any, four, six) = (of("any"), of("ipv4"), of("ipv6"));
    any.expect_members(&["both", "future", "heir", "host-1", "host-2", "six"], SOON);
    four.expect_members(&["both", "future", "heir", "host-1", "host-2"], SOON);
    six.expect_members(&["both", "six"], SOON);
    for (watching, node) in [
        (&any, node("six", "fd00::6", 7001)),
        (&any, node("both", "10.0.0.1", 7001)),
        (&any, node("host-1", "192.168.0.1", 7001)),
        (&any, node("host-2", "192.168.0.1", 7002)),
        (&any, node("heir", "10.0.0.9", 7001)),
        (&four, node("both", "10.0.0.1", 7001)),
        (&six, node("both", "fd00::1", 7001)),
    ] {
        watching.expect_node(&node, SOON);
    }
    let future = ClusterNode::builder("future", "10.0.0.8", 7001).incarnation(32_503_679_999_000).build().unwrap();
    any.expect_node(&future, SOON);
    assert_eq!(any.skipped() + four.skipped() + six.skipped(), 0, "none of them is unusable");
}

#[test]
fn p1_1_selector_page_size_and_the_service_account_are_what_the_server_is_asked_with() {
    let account = tempfile::tempdir().unwrap();
    for (file, text) in [("token", "from-the-account"), ("namespace", "of-the-account\n")] {
        std::fs::write(account.path().join(file), text).unwrap();
    }
    let fake = server(|_| list_of("1", "", &["a"]), |_, stream| begin(stream, "") && hold(stream));
    let descriptor = KubernetesFactory::descriptor("k8s", "orders").unwrap().endpoint(fake.url());
    let descriptor = descriptor
        .parameter("credentials", "in-cluster")
        .parameter("service-account", account.path().display().to_string())
        .parameter("selector", "app=orders,tier!=test")
        .parameter("page-size", "7");
    watch(&descriptor).expect_members(&["a"], SOON);
    let requests = fake.requests();
    let asked = requests.iter().find(|request| api::is_list(request)).unwrap();
    assert!(asked.target.starts_with("/api/v1/namespaces/of-the-account/pods?"), "{}", asked.target);
    assert!(asked.target.contains("labelSelector=app%3Dorders%2Ctier%21%3Dtest&"), "{}", asked.target);
    assert!(asked.target.contains("limit=7&") || asked.target.ends_with("limit=7"), "{}", asked.target);
    assert_eq!(asked.header("authorization"), Some("Bearer from-the-account"));
}

#[test]
fn p1_1_the_container_that_is_named_decides_whether_a_pod_is_a_member() {
    let waiting = |container: &str| {
        let mut pod = pod_value(&format!("{container}-waits"), 1);
        let status = |name: &str| match name == container {
            true => json!({"name": name, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
            false => json!({"name": name, "restartCount": 0, "state": {"running": {}}}),
        };
        pod["status"]["containerStatuses"] = json!([status("app"), status("sidecar")]);
        pod.to_string()
    };
    for (named, members) in [("app", "sidecar-waits"), ("sidecar", "app-waits")] {
        let list = list_with("1", "", &[waiting("app"), waiting("sidecar")]);
        let fake = server(move |_| list.clone(), |_, stream| begin(stream, "") && hold(stream));
        let descriptor = descriptor(&fake.url()).parameter("container", named).parameter("require-ready", "off");
        watch(&descriptor).expect_members(&[members], SOON);
    }
}
