//! EndpointSlices over a socket: which members they amount to, and which version of them the server has.
#![cfg(feature = "kubernetes")]

#[path = "support/api.rs"]
mod api;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{GONE, SOON, begin, end, event, follow, is_list, is_watch, json, lists, pauses, secrets, watch, watched};
use cluster_provisioning::{CancelToken, ClusterNode, ErrorCode, MemberChange, ProviderDescriptor, ProviderEvent};
use fake::{Fake, Request, hold, send};
use pods::{Watching, provider};
use serde_json::{Value, json};

const V1: &str =
    "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dorders";

fn descriptor(fake: &Fake) -> ProviderDescriptor {
    let descriptor = api::descriptor(&fake.url()).parameter("source", "endpoint-slices");
    descriptor.parameter("service", "orders")
}

/// An endpoint of a pod, in these conditions.
fn endpoint(pod: &str, address: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod}})
}

fn ready(pod: &str, address: &str) -> Value {
    endpoint(pod, address, json!({"ready": true, "serving": true, "terminating": false}))
}

fn slice_of(name: &str, version: u64, family: &str, ports: Value, endpoints: Value) -> String {
    let meta = json!({"name": name, "uid": format!("u-{name}"), "resourceVersion": version.to_string()});
    json!({"metadata": meta, "addressType": family, "ports": ports, "endpoints": endpoints}).to_string()
}

fn slice(name: &str, version: u64, endpoints: Value) -> String {
    slice_of(name, version, "IPv4", json!([{"name": "", "port": 7001, "protocol": "TCP"}]), endpoints)
}

fn list_of(version: &str, slices: &[String]) -> String {
    let meta = format!(r#"{{"resourceVersion":"{version}"}}"#);
    format!(r#"{{"kind":"EndpointSliceList","metadata":{meta},"items":[{}]}}"#, slices.join(","))
}

/// A server that has these slices, and says those lines after them.
fn server(slices: Vec<String>, lines: String) -> Fake {
    Fake::start(move |request, stream| match request {
        request if is_watch(request) && lists_and_watches_v1(request) => follow(stream, &lines),
        request if is_list(request) && lists_and_watches_v1(request) => json(stream, "200 OK", &list_of("10", &slices)),
        request if request.target == "/livez" => send(stream, "200 OK", "", b"ok"),
        _ => not_found(stream),
    })
}

fn lists_and_watches_v1(request: &Request) -> bool {
    request.target.starts_with(V1)
}

fn not_found(stream: &mut TcpStream) -> bool {
    send(stream, "404 Not Found", "Content-Type: text/plain\r\n", b"404 page not found\n")
}

fn node(id: &str, address: &str, port: u16) -> ClusterNode {
    ClusterNode::builder(id, address, port).build().unwrap()
}

/// Waits for the members, among whom these have to be all the time.
fn expect_members_without_losing(watching: &Watching, ids: &[&str], steady: &[&str]) {
    watching.expect(&format!("members {ids:?}"), SOON, |event| {
        let removed = |id: &str| match event {
            ProviderEvent::Changes { changes, .. } => {
                changes.iter().any(|change| matches!(change, MemberChange::Remove(gone) if gone.as_str() == id))
            }
            ProviderEvent::Snapshot { members, .. } => members.iter().all(|node| node.id().as_str() != id),
            _ => false,
        };
        assert!(!steady.iter().any(|id| removed(id)), "{event:?}");
        watching.shows(ids).then_some(())
    });
}

#[test]
fn kubernetes_point_15_slices_are_joined_and_an_endpoint_goes_with_the_last_that_holds_it() {
    let first = vec![
        // Nothing is said of a: it is ready.
        slice("s1", 1, json!([endpoint("a", "10.0.0.1", Value::Null), ready("b", "10.0.0.2"), ready("m", "10.0.0.9")])),
        slice("s2", 2, json!([ready("b", "10.0.0.2"), endpoint("c", "10.0.0.3", json!({"ready": null}))])),
        slice(
            "s3",
            3,
            json!([
                endpoint("no", "10.0.0.4", json!({"ready": false})),
                endpoint("going", "10.0.0.5", json!({"ready": true, "terminating": true})),
                endpoint("c", "10.0.0.3", json!({"ready": false, "serving": true, "terminating": true})),
            ]),
        ),
        slice_of("s4", 4, "FQDN", json!([{"port": 7001}]), json!([{"addresses": ["host.example"]}])),
        slice("s5", 5, json!([{"addresses": ["10.0.0.6"]}])),
    ];
    let steps = [
        // b is in s2 still; m moves to a slice that is new, and of which its old one learns later.
        event("MODIFIED", &slice("s1", 11, json!([endpoint("a", "10.0.0.1", json!({})), ready("m", "10.0.0.9")]))),
        event("ADDED", &slice("s6", 12, json!([ready("m", "10.0.0.9"), ready("d", "10.0.0.7")]))),
        event("MODIFIED", &slice("s1", 13, json!([endpoint("a", "10.0.0.1", json!({}))]))),
        // With s2 go b and c, and not what other slices hold.
        event("DELETED", &slice("s2", 14, json!([]))),
        event("MODIFIED", &slice("s5", 15, Value::Null)),
    ];
    let (now, later) = (steps[..3].concat(), steps[3..].concat());
    let fake = Fake::start(move |request, stream| match request {
        request if is_watch(request) && request.target.contains("resourceVersion=10&") => {
            begin(stream, &now) && end(stream)
        }
        request if is_watch(request) => follow(stream, &later),
        request if is_list(request) => json(stream, "200 OK", &list_of("10", &first)),
        _ => send(stream, "200 OK", "", b"ok"),
    });
    let watching = watch(&descriptor(&fake));
    watching.expect_members(&["10.0.0.6:7001", "a", "b", "c", "m"], SOON);
    assert_eq!(watching.skipped(), 0);
    expect_members_without_losing(&watching, &["10.0.0.6:7001", "a", "b", "c", "d", "m"], &["a", "b", "c", "m"]);
    expect_members_without_losing(&watching, &["a", "d", "m"], &["a", "d", "m"]);
    watching.expect_node(&node("a", "10.0.0.1", 7001), SOON);
    watching.expect_current(SOON);
    assert_eq!((watched(&fake), lists(&fake)), (["10", "13"].map(String::from).to_vec(), 1));
}

#[test]
fn kubernetes_point_15_of_dual_stack_slices_the_family_counts_that_is_asked_for() {
    let ports = || json!([{"port": 7001}]);
    let slices = vec![
        slice_of("v6", 1, "IPv6", ports(), json!([ready("a", "fd00::1"), ready("six", "fd00::6")])),
        slice_of("v4", 2, "IPv4", ports(), json!([ready("a", "10.0.0.1"), ready("four", "10.0.0.4")])),
    ];
    // The IPv4 slice loses a, which then has its other address.
    let line = event("MODIFIED", &slice_of("v4", 3, "IPv4", ports(), json!([ready("four", "10.0.0.4")])));
    let quiet = server(slices.clone(), String::new());
    for (family, members, address) in [
        ("any", &["a", "four", "six"][..], "10.0.0.1"),
        ("ipv4", &["a", "four"], "10.0.0.1"),
        ("ipv6", &["a", "six"], "fd00::1"),
    ] {
        let watching = watch(&descriptor(&quiet).parameter("ip-family", family));
        watching.expect_members(members, SOON);
        watching.expect_node(&node("a", address, 7001), SOON);
    }
    let changing = server(slices, line);
    let watching = watch(&descriptor(&changing));
    watching.expect_node(&node("a", "fd00::1", 7001), SOON);
    watching.expect_members(&["a", "four", "six"], SOON);
}

#[test]
fn kubernetes_point_15_ports_are_a_slices_only_one_or_the_one_that_is_named() {
    let endpoints = |pod: &str| json!([ready(pod, "10.0.0.1")]);
    let slices = vec![
        slice_of("one", 1, "IPv4", json!([{"name": null, "port": 7001}]), endpoints("one")),
        slice_of(
            "named",
            2,
            "IPv4",
            json!([{"name": "http", "port": 80}, {"name": "cluster", "port": 9}]),
            endpoints("named"),
        ),
        slice_of("all", 3, "IPv4", json!([{"name": "cluster", "port": null}]), endpoints("all")),
        slice_of("none", 4, "IPv4", Value::Null, endpoints("none")),
    ];
    let fake = server(slices, String::new());
    let only = watch(&descriptor(&fake));
    only.expect_members(&["one"], SOON);
    assert_eq!(only.skipped(), 3, "no port, all of them, or several");
    let named = watch(&descriptor(&fake).parameter("port", "cluster"));
    named.expect_node(&node("named", "10.0.0.1", 9), SOON);
    named.expect_members(&["named"], SOON);
    let number = watch(&descriptor(&fake).parameter("port", "4711"));
    number.expect_members(&["all", "named", "none", "one"], SOON);
    number.expect_node(&node("all", "10.0.0.1", 4711), SOON);
}

#[test]
fn kubernetes_point_15_a_server_that_has_only_the_older_version_is_asked_for_that_one() {
    let old = V1.replace("/v1/", "/v1beta1/");
    let mut item: Value = serde_json::from_str(&slice("s", 1, json!([ready("a", "10.0.0.1")]))).unwrap();
    // As the older version has it.
    item["endpoints"][0]["topology"] = json!({"kubernetes.io/hostname": "node-1"});
    let list = list_of("10", &[item.to_string()]);
    let line = event("ADDED", &slice("t", 2, json!([ready("b", "10.0.0.2")])));
    let fake = Fake::start(move |request, stream| match request {
        request if !request.target.starts_with(&old) => not_found(stream),
        request if is_watch(request) => follow(stream, &line),
        _ => json(stream, "200 OK", &list),
    });
    provider(&descriptor(&fake), secrets()).check_connectivity(&CancelToken::new()).unwrap();
    let watching = watch(&descriptor(&fake));
    watching.expect_members(&["a", "b"], SOON);
    watching.expect_current(SOON);
}

#[test]
fn kubernetes_point_15_a_server_that_has_neither_version_is_an_error_and_not_empty() {
    let has_it = Arc::new(AtomicUsize::new(1));
    let flag = Arc::clone(&has_it);
    let fake = Fake::start(move |request, stream| match (is_watch(request), flag.load(Ordering::SeqCst)) {
        (_, 0) => not_found(stream),
        (true, 1) => {
            flag.store(0, Ordering::SeqCst);
            json(stream, "410 Gone", GONE)
        }
        (true, _) => hold(stream),
        _ => json(stream, "200 OK", &list_of("10", &[slice("s", 1, json!([ready("a", "10.0.0.1")]))])),
    });
    let watching = watch(&descriptor(&fake));
    watching.expect_members(&["a"], SOON);
    let error = watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    assert!(error.to_string().contains("404"), "{error}");
    watching.expect_members(&["a"], SOON);
    let error = provider(&descriptor(&fake), secrets()).check_connectivity(&CancelToken::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable, "{error}");
    has_it.store(2, Ordering::SeqCst);
    watching.expect_current(SOON);
    watching.expect_members(&["a"], SOON);
    // Of the two versions neither is asked for in a loop.
    assert!(pauses(&fake).len() < 12, "{:?}", pauses(&fake));
}

#[test]
fn kubernetes_point_15_a_watch_goes_on_in_the_other_version_when_the_server_no_longer_has_its_own() {
    let old = V1.replace("/v1/", "/v1beta1/");
    // The server begins with the older version alone, and after an upgrade has the newer one alone.
    let upgraded = Arc::new(AtomicUsize::new(0));
    let line = event("ADDED", &slice("t", 11, json!([ready("b", "10.0.0.2")])));
    let fake = Fake::start(move |request, stream| {
        let has_it = match upgraded.load(Ordering::SeqCst) {
            0 => request.target.starts_with(&old),
            _ => lists_and_watches_v1(request),
        };
        match request {
            _ if !has_it => not_found(stream),
            request if is_list(request) => {
                json(stream, "200 OK", &list_of("10", &[slice("s", 1, json!([ready("a", "10.0.0.1")]))]))
            }
            _ if upgraded.fetch_add(1, Ordering::SeqCst) == 0 => begin(stream, "") && end(stream),
            _ => follow(stream, &line),
        }
    });
    let watching = watch(&descriptor(&fake));
    watching.expect_members(&["a", "b"], SOON);
    watching.expect_current(SOON);
    assert_eq!(lists(&fake), 2, "one in each version, and none after that");
}
