//! What pages, lines and objects come to, whatever they are like and however they arrive.

use super::page::page_within;
use super::*;
use crate::error::{ErrorCode, ProvisioningError};
use crate::providers::kubernetes::directory::Directory;
use crate::providers::kubernetes::object::{Conditions, Failure, FailureKind, Line, Page};
use crate::secret::Secret;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

/// The body in pieces of that size at most.
fn pieces(mut body: &[u8], piece: usize) -> impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError> {
    move |room| {
        assert!(!room.is_empty());
        let count = room.len().min(piece).min(body.len());
        room[..count].copy_from_slice(&body[..count]);
        body = &body[count..];
        Ok(count)
    }
}

fn pods() -> Rules {
    Rules::Pods(PodRules::default())
}

fn slices() -> Rules {
    Rules::Slices(SliceRules::default())
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "uid": format!("uid-{name}"), "resourceVersion": "5",
            "creationTimestamp": "1970-01-01T00:01:00Z",
            "labels": {"app": "x", "cluster.proto.actor/port": "8080", "cluster.proto.actor/cluster": "c"},
        },
        "spec": {"containers": [
            {"name": "app", "ports": [{"name": "http", "containerPort": 8080}, {"name": "grpc", "containerPort": 9000}]},
            {"name": "side"},
        ]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "FD00::0:1"}],
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "app", "restartCount": 2}, {"name": "side", "restartCount": 40}],
        },
    })
}

fn slice(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "6"},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": 9000}],
        "endpoints": [{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "a"}, "zone": "z1"}],
    })
}

fn list(rules: &Rules, items: &[Value]) -> Value {
    json!({"kind": rules.kind_of_list(), "metadata": {"resourceVersion": "12", "continue": ""}, "items": items})
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key.replace("~1", "/")] = value;
    object
}

fn read_page(rules: &Rules, body: &str) -> Result<Page, ProvisioningError> {
    page(rules, pieces(body.as_bytes(), usize::MAX), "testing")
}

/// The members of the objects, and how many parts of them were skipped.
fn members(rules: &Rules, items: &[Value]) -> (Vec<String>, usize) {
    let page = read_page(rules, &list(rules, items).to_string()).unwrap();
    let mut directory = Directory::new();
    directory.begin();
    page.objects.into_iter().for_each(|object| directory.add(object));
    (directory.finish().iter().map(|node| format!("{node:?}")).collect(), page.skipped)
}

fn member(rules: &PodRules, pod: Value) -> String {
    let (members, skipped) = members(&Rules::Pods(rules.clone()), &[pod]);
    assert_eq!(skipped, 0);
    members.join(" ")
}

#[test]
fn kubernetes_point_16_a_container_that_waits_or_has_ended_does_not_run_whatever_its_pod_says() {
    let app = PodRules { container: Some(String::from("app")), ..PodRules::default() };
    let state =
        |pod: Value, index: usize, state: Value| with(pod, &format!("/status/containerStatuses/{index}/state"), state);
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting"}});
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    for does_not_run in [&waiting, &ended] {
        assert_eq!(member(&app, state(pod("a"), 0, does_not_run.clone())), "", "the one that is named");
        assert_eq!(member(&PodRules::default(), state(pod("a"), 0, does_not_run.clone())), "", "the one with the port");
        assert_ne!(member(&app, state(pod("a"), 1, does_not_run.clone())), "", "a sidecar is none of our business");
        // Nobody knows which it is.
        let bare = with(state(pod("a"), 0, does_not_run.clone()), "/spec/containers", json!([{"name": "app"}]));
        assert_ne!(member(&PodRules::default(), bare), "");
    }
    for runs in [json!({"running": {"startedAt": "1970-01-01T00:01:00Z"}}), json!({}), json!(null)] {
        assert_ne!(member(&app, state(pod("a"), 0, runs)), "");
    }
    let said = json!({"cluster.proto.actor/incarnation": "7"});
    let said = with(state(pod("a"), 0, waiting), "/metadata/annotations", said);
    assert_eq!(member(&app, said), "", "also where the program says which life it is");
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// The lines of a watch, as text, and the error that it ends with.
fn lines_in(rules: &Rules, body: &[u8], piece: usize, limit: usize) -> Vec<String> {
    let mut lines = Lines::with_limit(Arc::new(rules.clone()), limit);
    let (mut read, mut told) = (pieces(body, piece), Vec::new());
    loop {
        match lines.next(&mut read, "testing") {
            Ok(Some(Line::Upsert(object, version))) => told.push(match object.content {
                Content::Pod(node) => format!("+{} {node:?} {version}", object.name),
                Content::Slice(endpoints) => format!("+{} {} {version}", object.name, endpoints.len()),
            }),
            Ok(Some(Line::Delete { name, uid, resource_version })) => {
                told.push(format!("-{name} {} {resource_version}", uid.as_deref().unwrap_or("?")))
            }
            Ok(Some(Line::Error(failure))) => told.push(format!("{:?}", failure.kind)),
            Ok(Some(line)) => told.push(format!("{line:?}")),
            Ok(None) => return told,
            Err(error) => {
                told.push(error.detail().to_owned());
                return told;
            }
        }
    }
}

fn lines(rules: &Rules, body: &str) -> Vec<String> {
    let whole = lines_in(rules, body.as_bytes(), usize::MAX, 1 << 20);
    for piece in [1, 7, 100] {
        assert_eq!(lines_in(rules, body.as_bytes(), piece, 1 << 20), whole, "{piece}");
    }
    whole
}

#[test]
fn kubernetes_point_1_a_page_says_its_version_and_where_the_next_is_whatever_the_order_of_keys() {
    let (meta, items) = (json!({"resourceVersion": "12", "continue": "more", "x": [1]}), json!([pod("a"), pod("b")]));
    let bodies = [
        format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{meta},"items":{items}}}"#),
        format!(r#" {{ "items" : {items:#} , "metadata" : {meta:#}, "kind" : "PodList" }} "#),
        format!(r#"{{"it\u0065ms":{items},"metadata":{meta}}}"#),
    ];
    for body in bodies {
        for piece in [1, 63, usize::MAX] {
            let page = page(&pods(), pieces(body.as_bytes(), piece), "testing").unwrap();
            assert_eq!((&*page.resource_version, page.next.as_deref(), page.skipped), ("12", Some("more"), 0));
            let names: Vec<_> = page.objects.iter().map(|object| &*object.name).collect();
            assert_eq!(names, ["a", "b"]);
        }
    }
    let last = read_page(&pods(), r#"{"items":null,"metadata":{"resourceVersion":"1","continue":""}}"#).unwrap();
    assert_eq!((last.objects.len(), last.next), (0, None));
}

#[test]
fn kubernetes_what_is_no_list_is_refused_as_a_whole_and_never_empty() {
    for bad in [
        "",
        "null",
        "[]",
        "{}",
        "<html>",
        r#"{"items":[]}"#,
        r#"{"items":[],"metadata":{}}"#,
        r#"{"items":[],"metadata":{"resourceVersion":""}}"#,
        r#"{"items":[],"metadata":{"resourceVersion":12}}"#,
        r#"{"items":[],"metadata":[]}"#,
        r#"{"metadata":{"resourceVersion":"1"}}"#,
        r#"{"items":{},"metadata":{"resourceVersion":"1"}}"#,
        r#"{"items":{},"kind":"PodList","metadata":{"resourceVersion":"1"}}"#,
        r#"{"items":[],"items":[],"metadata":{"resourceVersion":"1"}}"#,
        r#"{"kind":"Status","items":[],"metadata":{"resourceVersion":"1"}}"#,
        r#"{"kind":"EndpointSliceList","items":[],"metadata":{"resourceVersion":"1"}}"#,
        r#"{"kind":7,"items":[],"metadata":{"resourceVersion":"1"}}"#,
        r#"{"items":[{"a":tru}],"metadata":{"resourceVersion":"1"}}"#,
        r#"{"items":[],"metadata":{"resourceVersion":"1"}}x"#,
    ] {
        assert_eq!(read_page(&pods(), bad).unwrap_err().code(), ErrorCode::MalformedAnswer, "{bad}");
    }
    let good = list(&pods(), &[pod("a")]).to_string();
    assert!(read_page(&pods(), &good).is_ok());
    for cut in 0..good.len() {
        assert_eq!(read_page(&pods(), &good[..cut]).unwrap_err().code(), ErrorCode::MalformedAnswer, "{cut}");
    }
    let fails = |_: &mut [u8]| Err(ProvisioningError::new(ErrorCode::AnswerTooLarge, "testing", "too large"));
    assert_eq!(page(&pods(), fails, "testing").unwrap_err().code(), ErrorCode::AnswerTooLarge);
}

#[test]
fn kubernetes_point_14_unusable_objects_are_skipped_and_counted_and_cost_no_other() {
    let unusable = [
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!({}),
        json!({"metadata": 1}),
        with(pod("x"), "/metadata/name", json!(7)),
        with(pod("x"), "/metadata/name", json!("")),
        with(pod("x"), "/metadata/uid", json!(null)),
        with(pod("x"), "/metadata/labels", json!([])),
        with(pod("x"), "/metadata/labels/cluster.proto.actor~1port", json!("0")),
        with(pod("x"), "/metadata/labels/cluster.proto.actor~1port", json!("70000")),
        with(pod("x"), "/metadata/labels/cluster.proto.actor~1port", json!(8080)),
        with(pod("x"), "/metadata/labels/cluster.proto.actor~1port", json!("")),
        with(pod("x"), "/metadata/deletionTimestamp", json!(1)),
        with(pod("x"), "/metadata/creationTimestamp", json!("yesterday")),
        with(pod("x"), "/metadata/annotations", json!({"cluster.proto.actor/incarnation": "x"})),
        with(pod("x"), "/spec", json!(1)),
        with(pod("x"), "/spec/containers", json!([null])),
        with(pod("x"), "/status", json!("x")),
        with(pod("x"), "/status/phase", json!({})),
        with(pod("x"), "/status/podIP", json!("none")),
        with(pod("x"), "/status/podIPs", json!([1])),
        with(pod("x"), "/status/containerStatuses", json!([{"restartCount": "2"}])),
    ];
    for bad in unusable {
        let (found, skipped) = members(&pods(), &[pod("b"), bad.clone(), pod("c")]);
        assert_eq!((found.len(), skipped), (2, 1), "{bad}");
    }
    let rules = Rules::Pods(PodRules { ready: true, ..PodRules::default() });
    assert_eq!(members(&rules, &[with(pod("x"), "/status/conditions", json!([1]))]), (vec![], 1));
}

#[test]
fn kubernetes_point_16_only_a_running_pod_with_an_address_that_stays_is_a_member() {
    let rules = PodRules::default();
    assert_eq!(member(&rules, pod("a")), "a#60002@10.0.0.1:8080[]");
    for phase in ["Pending", "Succeeded", "Failed", "Unknown", ""] {
        assert_eq!(member(&rules, with(pod("a"), "/status/phase", json!(phase))), "", "{phase} keeps its address");
    }
    assert_eq!(member(&rules, with(pod("a"), "/status/phase", json!(null))), "");
    assert_eq!(member(&rules, with(pod("a"), "/status", json!(null))), "");
    assert_eq!(member(&rules, with(pod("a"), "/metadata/deletionTimestamp", json!("1970-01-01T00:02:00Z"))), "");
    let without = with(with(pod("a"), "/status/podIP", json!("")), "/status/podIPs", json!(null));
    assert_eq!(member(&rules, without), "");
}

#[test]
fn kubernetes_point_16_readiness_counts_only_where_it_is_asked_for() {
    let ready = with(pod("a"), "/status/conditions/1/status", json!("True"));
    let rules = PodRules { ready: true, ..PodRules::default() };
    assert_eq!(member(&rules, pod("a")), "");
    assert_eq!(member(&rules, with(pod("a"), "/status/conditions", json!(null))), "");
    assert!(!member(&rules, ready).is_empty());
}

#[test]
fn kubernetes_point_16_the_address_is_of_the_family_that_is_asked_for() {
    let of = |family: Family, pod: Value| member(&PodRules { family, ..PodRules::default() }, pod);
    assert_eq!(of(Family::Any, pod("a")), "a#60002@10.0.0.1:8080[]");
    assert_eq!(of(Family::Ipv4, pod("a")), "a#60002@10.0.0.1:8080[]");
    assert_eq!(of(Family::Ipv6, pod("a")), "a#60002@fd00::1:8080[]");
    let only_v6 = with(with(pod("a"), "/status/podIP", json!("fd00::2")), "/status/podIPs", json!([{"ip": "fd00::2"}]));
    assert_eq!(of(Family::Any, only_v6.clone()), "a#60002@fd00::2:8080[]");
    assert_eq!(of(Family::Ipv6, only_v6.clone()), "a#60002@fd00::2:8080[]");
    assert_eq!(of(Family::Ipv4, only_v6), "");
}

#[test]
fn kubernetes_labels_are_those_of_protoactor_go_and_the_rest_of_ours_is_metadata() {
    let labels = json!({
        "app": "x", "cluster.proto.actor/port": "8080", "cluster.proto.actor/cluster": "c",
        "cluster.proto.actor/member-id": "m-1", "cluster.proto.actor/kind-user": "true",
        "cluster.proto.actor/kind-order": "false", "cluster.proto.actor/zone": "z", "cluster.proto.actor/both": "label",
        "other.io/x": 5,
    });
    let annotations = json!({
        "cluster.proto.actor/incarnation": "7", "cluster.proto.actor/both": "annotation", "cluster.proto.actor/note": "a b",
        "large": "\\n".repeat(200_000), "kubectl/odd": {"not": "text"},
    });
    let rich = with(with(pod("a"), "/metadata/labels", labels), "/metadata/annotations", annotations);
    let expected = r#"m-1#7@10.0.0.1:8080["user"]{"both": "label", "note": "a b", "zone": "z"}"#;
    assert_eq!(member(&PodRules::default(), rich), expected);
    let empty_id = with(pod("a"), "/metadata/labels/cluster.proto.actor~1member-id", json!(""));
    assert_eq!(member(&PodRules::default(), empty_id), "a#60002@10.0.0.1:8080[]");
}

#[test]
fn kubernetes_point_16_a_pods_port_is_its_label_or_the_one_that_the_rules_choose() {
    let rules = |port: Option<Port>| Rules::Pods(PodRules { port, ..PodRules::default() });
    let bare = || with(pod("a"), "/metadata/labels", json!(null));
    let named = |name: &str| Some(Port::Named(name.to_owned()));
    assert_eq!(members(&rules(named("grpc")), &[pod("a")]).0, ["a#60002@10.0.0.1:8080[]"]);
    assert_eq!(members(&rules(named("grpc")), &[bare()]).0, ["a#60002@10.0.0.1:9000[]"]);
    assert_eq!(members(&rules(Some(Port::Number(77))), &[bare()]).0, ["a#60042@10.0.0.1:77[]"]);
    assert_eq!(members(&rules(named("other")), &[bare()]), (vec![], 1));
    assert_eq!(members(&rules(None), &[bare()]), (vec![], 1));
}

#[test]
fn kubernetes_the_incarnation_rises_with_each_life_of_an_id() {
    let life = |rules: &PodRules, pod: Value| {
        let told = member(rules, pod);
        told.split(['#', '@']).nth(1).unwrap().parse::<u64>().unwrap()
    };
    let rules = PodRules { port: Some(Port::Number(9000)), ..PodRules::default() };
    let bare = with(pod("a"), "/metadata/labels", json!(null));
    // Of the container that declares the port; of a sidecar not.
    assert_eq!(life(&rules, bare.clone()), 60_002);
    assert_eq!(life(&rules, with(bare.clone(), "/status/containerStatuses/0/restartCount", json!(3))), 60_003);
    assert_eq!(life(&rules, with(bare.clone(), "/status/containerStatuses/1/restartCount", json!(41))), 60_002);
    let named = PodRules { container: Some(String::from("side")), ..rules.clone() };
    assert_eq!(life(&named, bare.clone()), 60_040);
    // Of all, where none declares it; and never more than a later pod would have.
    let undeclared = PodRules { port: Some(Port::Number(1)), ..rules.clone() };
    assert_eq!(life(&undeclared, bare.clone()), 60_042);
    let restless = with(bare.clone(), "/status/containerStatuses/0/restartCount", json!(u64::MAX));
    assert_eq!(life(&undeclared, restless), 60_999);
    let later = with(bare, "/metadata/creationTimestamp", json!("1970-01-01T00:01:01Z"));
    assert_eq!(life(&rules, with(later, "/status/containerStatuses", json!(null))), 61_000);
}

#[test]
fn kubernetes_point_15_endpoints_are_the_nodes_of_their_pods_and_absent_conditions_hold() {
    let mut object = slice("s");
    object["endpoints"] = json!([
        {"addresses": ["10.0.0.1", "10.0.0.9"], "targetRef": {"kind": "Pod", "name": "a"}, "zone": "z1", "nodeName": "n"},
        {"addresses": ["10.0.0.2"], "conditions": {}},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": null, "serving": null, "terminating": null}},
        {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false}, "targetRef": {"kind": "Node", "name": "n"}},
        {"addresses": ["10.0.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}},
    ]);
    let page = read_page(&slices(), &list(&slices(), std::slice::from_ref(&object)).to_string()).unwrap();
    let Content::Slice(endpoints) = &page.objects[0].content else { panic!("no slice") };
    let found: Vec<_> =
        endpoints.iter().map(|endpoint| (format!("{:?}", endpoint.node), endpoint.conditions)).collect();
    let conditions = |ready, serving, terminating| Conditions { ready, serving, terminating };
    let expected = [
        ("a#0@10.0.0.1:9000[]", conditions(true, true, false)),
        ("10.0.0.2:9000#0@10.0.0.2:9000[]", conditions(true, true, false)),
        ("10.0.0.3:9000#0@10.0.0.3:9000[]", conditions(true, true, false)),
        ("10.0.0.4:9000#0@10.0.0.4:9000[]", conditions(false, false, false)),
        ("10.0.0.5:9000#0@10.0.0.5:9000[]", conditions(false, true, true)),
    ];
    assert_eq!(found, expected.map(|(node, conditions)| (String::from(node), conditions)));
    assert_eq!(members(&slices(), std::slice::from_ref(&object)).0.len(), 3);
    let rules = Rules::Slices(SliceRules { not_ready: true, ..SliceRules::default() });
    assert_eq!(members(&rules, &[object]).0.len(), 4, "what terminates is none, ready or not");
}

#[test]
fn kubernetes_point_15_ports_may_be_named_or_absent() {
    let of = |port: Option<Port>, ports: Value| {
        let rules = Rules::Slices(SliceRules { port, ..SliceRules::default() });
        members(&rules, &[with(slice("s"), "/ports", ports)])
    };
    let one = |port: u16| (vec![format!("a#0@10.0.0.1:{port}[]")], 0);
    let named = |name: &str| Some(Port::Named(name.to_owned()));
    let two = json!([{"name": "http", "port": 80}, {"name": "grpc", "port": 9000, "protocol": "TCP"}]);
    assert_eq!(of(None, json!([{"name": null, "port": 80}])), one(80));
    assert_eq!(of(named("grpc"), two.clone()), one(9000));
    assert_eq!(of(Some(Port::Number(7)), two.clone()), one(7));
    assert_eq!(of(Some(Port::Number(7)), json!(null)), one(7));
    assert_eq!(of(named(""), json!([{"port": 80}])), one(80));
    for (port, ports) in [
        (None, two.clone()),
        (None, json!(null)),
        (None, json!([{"name": "all", "port": null}])),
        (None, json!([{"port": 0}])),
        (None, json!([{"port": 65536}])),
        (None, json!([{"port": "80"}])),
        (named("other"), two),
    ] {
        assert_eq!(of(port, ports.clone()), (vec![], 1), "{ports}");
    }
}

#[test]
fn kubernetes_point_15_both_families_are_known_and_host_names_are_ignored() {
    let of = |family: Family, kind: &str, address: &str| {
        let object = with(with(slice("s"), "/addressType", json!(kind)), "/endpoints/0/addresses", json!([address]));
        let rules = Rules::Slices(SliceRules { family, ..SliceRules::default() });
        let (members, skipped) = members(&rules, &[object]);
        assert_eq!(skipped, 0);
        members.join(" ")
    };
    assert_eq!(of(Family::Any, "IPv6", "FD00::0:1"), "a#0@fd00::1:9000[]");
    assert_eq!(of(Family::Ipv6, "IPv6", "fd00::1"), "a#0@fd00::1:9000[]");
    assert_eq!(of(Family::Ipv4, "IPv6", "fd00::1"), "");
    assert_eq!(of(Family::Ipv6, "IPv4", "10.0.0.1"), "");
    assert_eq!(of(Family::Any, "FQDN", "a.example.org"), "");
    let bare =
        with(with(slice("s"), "/endpoints/0/addresses", json!(["fd00::1"])), "/endpoints/0/targetRef", json!(null));
    assert_eq!(members(&slices(), &[bare]).0, ["[fd00::1]:9000#0@fd00::1:9000[]"]);
}

#[test]
fn kubernetes_point_14_an_unusable_endpoint_costs_no_other_and_an_unusable_slice_holds_nothing() {
    for bad in [
        json!(null),
        json!(7),
        json!({}),
        json!({"addresses": []}),
        json!({"addresses": ["x"]}),
        json!({"addresses": [1]}),
        json!({"addresses": ["10.0.0.1"], "conditions": {"ready": "yes"}}),
        json!({"addresses": ["10.0.0.1"], "targetRef": 1}),
    ] {
        let mut object = slice("s");
        object["endpoints"].as_array_mut().unwrap().push(bad.clone());
        let (found, skipped) = members(&slices(), &[object]);
        assert_eq!((found.len(), skipped), (1, 1), "{bad}");
    }
    for (pointer, value) in
        [("/addressType", json!(null)), ("/addressType", json!(4)), ("/endpoints", json!({})), ("/ports", json!([1]))]
    {
        assert_eq!(members(&slices(), &[with(slice("s"), pointer, value.clone())]), (vec![], 1), "{pointer} {value}");
    }
    assert_eq!(members(&slices(), &[with(slice("s"), "/endpoints", json!(null))]), (vec![], 0));
}

#[test]
fn kubernetes_point_14_an_object_too_large_is_counted_and_costs_no_other() {
    let large = with(pod("l"), "/metadata/annotations", json!({"x": "y\"]}".repeat(1000)}));
    let body = list(&pods(), &[pod("a"), large, pod("b")]).to_string();
    let page = page_within(2000, &pods(), pieces(body.as_bytes(), 100), |_| (), "testing").unwrap();
    assert_eq!((page.objects.len(), page.skipped), (2, 1));
}

#[test]
fn kubernetes_point_13_events_are_found_however_they_are_cut_and_joined() {
    let body = [line("ADDED", &pod("a")), line("MODIFIED", &pod("b")), line("DELETED", &pod("a"))].concat();
    let expected = ["+a Some(a#60002@10.0.0.1:8080[]) 5", "+b Some(b#60002@10.0.0.1:8080[]) 5", "-a uid-a 5"];
    assert_eq!(lines(&pods(), &body), expected);
    assert_eq!(lines(&pods(), &body.replace('\n', " \r\n\n\r\n")), expected);
    assert_eq!(lines(&pods(), body.trim_end()), expected, "the last line may lack its end");
    let reversed = format!("{{\"object\":{},\"type\":\"ADDED\"}}\n", slice("s"));
    assert_eq!(lines(&slices(), &reversed), ["+s 1 6"]);
    assert_eq!(lines(&pods(), ""), Vec::<String>::new());
}

#[test]
fn kubernetes_point_13_an_oversized_line_is_passed_over_and_never_kept() {
    let large = with(pod("l"), "/metadata/annotations", json!({"x": "y\"]}".repeat(50_000)}));
    let body = [line("ADDED", &pod("a")), line("ADDED", &large), line("DELETED", &pod("a"))].concat();
    for piece in [1, 100, 5000, usize::MAX] {
        let found = lines_in(&pods(), body.as_bytes(), piece, 2000);
        assert_eq!(found[1..], ["Lost(None)", "-a uid-a 5"]);
        let mut lines = Lines::with_limit(Arc::new(pods()), 2000);
        let mut read = pieces(body.as_bytes(), piece);
        while lines.next(&mut read, "testing").unwrap().is_some() {
            assert!(lines.buffer_size() <= 2001);
        }
    }
    let exact = line("BOOKMARK", &json!({"metadata": {"resourceVersion": "9"}}));
    let length = exact.len() - 1;
    for piece in [1, 7, usize::MAX] {
        assert_eq!(lines_in(&pods(), exact.as_bytes(), piece, length), ["Bookmark(\"9\")"]);
        assert_eq!(lines_in(&pods(), exact.as_bytes(), piece, length - 1), ["Lost(None)"]);
    }
}

#[test]
fn kubernetes_point_13_a_truncated_tail_breaks_the_watch_behind_what_was_whole() {
    let (first, second) = (line("ADDED", &pod("a")), line("DELETED", &pod("a")));
    for cut in 1..second.len() - 1 {
        let found = lines_in(&pods(), [&first, &second[..cut]].concat().as_bytes(), 100, 1 << 20);
        assert_eq!(found[1..], ["the watch ended within a line"], "{cut}");
    }
    let beyond = lines_in(&pods(), &second.as_bytes()[..100], 7, 50);
    assert_eq!(beyond, ["the watch ended within a line"]);
    assert_eq!(
        lines(&pods(), &format!("{first}<html>\n{second}"))[1..],
        ["the answer is no watch: a line is no event"]
    );
}

#[test]
fn kubernetes_point_13_a_reader_that_fails_can_be_asked_again() {
    let body = [line("ADDED", &pod("a")), line("DELETED", &pod("a"))].concat();
    let mut lines = Lines::new(Arc::new(pods()));
    let (mut inner, mut turn, mut found) = (pieces(body.as_bytes(), 50), 0, 0);
    loop {
        let read = |room: &mut [u8]| {
            turn += 1;
            match turn % 3 {
                0 => Err(ProvisioningError::new(ErrorCode::Timeout, "testing", "nothing yet")),
                _ => inner(room),
            }
        };
        match lines.next(read, "testing") {
            Ok(Some(line)) => {
                assert!(matches!(line, Line::Upsert(..) | Line::Delete { .. }));
                found += 1;
            }
            Ok(None) => break,
            Err(error) => assert_eq!(error.code(), ErrorCode::Timeout),
        }
    }
    assert_eq!(found, 2);
}

#[test]
fn kubernetes_point_14_a_line_that_cannot_be_used_is_told_and_the_watch_goes_on() {
    let rest = line("DELETED", &pod("z"));
    for (bad, expected) in [
        (line("NEW", &pod("a")), "Unusable(Some(\"5\"))"),
        (line("ADDED", &with(pod("a"), "/metadata/name", json!(1))), "Lost(Some(\"5\"))"),
        (line("ADDED", &json!(null)), "Lost(None)"),
        (line("ADDED", &with(pod("a"), "/metadata/resourceVersion", json!(5))), "Lost(None)"),
        (line("DELETED", &with(pod("a"), "/metadata/uid", json!(null))), "-a ? 5"),
        (line("DELETED", &with(pod("a"), "/metadata/name", json!(null))), "Lost(Some(\"5\"))"),
        (line("BOOKMARK", &json!({})), "Unusable(None)"),
        (String::from("{}\n"), "Unusable(None)"),
        (String::from("{\"type\":1}\n"), "Unusable(None)"),
        (String::from("{\"type\":\"ADDED\",\"object\":{]}\n"), "Lost(None)"),
        (String::from("{\"type\"\n"), "Lost(None)"),
    ] {
        assert_eq!(lines(&pods(), &format!("{bad}{rest}")), [expected, "-z uid-z 5"], "{bad}");
    }
    let not_text = [&b"{\"type\":\"\xff\"}\n"[..], rest.as_bytes()].concat();
    assert_eq!(lines_in(&pods(), &not_text, 7, 1000), ["Lost(None)", "-z uid-z 5"]);
}

#[test]
fn kubernetes_point_14_a_change_that_makes_a_member_unusable_takes_it_out_as_a_list_would() {
    let bad = with(pod("a"), "/metadata/labels/cluster.proto.actor~1port", json!("x"));
    assert_eq!(lines(&pods(), &line("MODIFIED", &bad)), ["+a None 5", "Unusable(Some(\"5\"))"]);
    let mut bad = slice("s");
    bad["endpoints"].as_array_mut().unwrap().push(json!(1));
    assert_eq!(lines(&slices(), &line("MODIFIED", &bad)), ["+s 1 6", "Unusable(Some(\"6\"))"]);
}

#[test]
fn kubernetes_point_14_of_an_object_that_is_gone_only_the_metadata_has_to_be_readable() {
    // Half of a character, which no text can hold.
    let line = |kind: &str| line(kind, &pod("a")).replace("\"Running\"", "\"\\ud800\"");
    assert_eq!(lines(&pods(), &line("MODIFIED")), ["Lost(None)"]);
    assert_eq!(lines(&pods(), &line("DELETED")), ["-a uid-a 5"]);
}

#[test]
fn kubernetes_point_8_a_bookmark_is_its_version() {
    let object = json!({"kind": "Pod", "metadata": {"resourceVersion": "77", "creationTimestamp": null}, "spec": {}});
    assert_eq!(lines(&pods(), &line("BOOKMARK", &object)), ["Bookmark(\"77\")"]);
}

fn error_event(status: Value) -> Failure {
    let body = line("ERROR", &status);
    let mut lines = Lines::new(Arc::new(pods()));
    match lines.next(pieces(body.as_bytes(), usize::MAX), "testing").unwrap() {
        Some(Line::Error(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kubernetes_point_17_an_error_never_repeats_the_token_that_opened_the_watch() {
    // Where the message is cut, no beginning of it may be left.
    let message = format!("{}s3cret is bad", "-".repeat(298));
    let body = line("ERROR", &json!({"message": message, "reason": "s3cret", "code": 500}));
    let mut lines = Lines::new(Arc::new(pods())).opened_by(Some(Secret::new("s3cret")));
    let told = format!("{:?}", lines.next(pieces(body.as_bytes(), 7), "testing").unwrap());
    assert!(told.contains("---**") && !told.contains("s3"), "{told}");
}

#[test]
fn kubernetes_points_4_6_9_11_an_error_is_judged_as_the_official_client_does() {
    let too_large = "Too large resource version: 9, current: 5";
    for (status, kind, code) in [
        (json!({"code": 410, "reason": "Expired"}), FailureKind::Gone, ErrorCode::BackendUnavailable),
        (json!({"code": 410, "reason": "Gone"}), FailureKind::Gone, ErrorCode::BackendUnavailable),
        (json!({"reason": "Expired"}), FailureKind::Gone, ErrorCode::BackendUnavailable),
        (json!({"code": 504, "reason": "Timeout"}), FailureKind::AheadOfServer, ErrorCode::Timeout),
        (
            json!({"code": 504, "reason": "Timeout", "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}),
            FailureKind::AheadOfServer,
            ErrorCode::BackendUnavailable,
        ),
        (
            json!({"details": {"causes": [1, {"message": "Too large resource version"}]}}),
            FailureKind::AheadOfServer,
            ErrorCode::BackendUnavailable,
        ),
        (json!({"code": 500, "message": too_large}), FailureKind::AheadOfServer, ErrorCode::BackendUnavailable),
        (json!({"code": 401, "reason": "Unauthorized"}), FailureKind::Unauthorized, ErrorCode::AccessDenied),
        (json!({"code": 403, "reason": "Forbidden"}), FailureKind::Forbidden, ErrorCode::AccessDenied),
        (json!({"code": 429}), FailureKind::Other, ErrorCode::BackendUnavailable),
        (json!({"code": 400, "reason": "BadRequest"}), FailureKind::BadRequest, ErrorCode::InvalidConfig),
        (json!({"code": 500, "reason": "InternalError"}), FailureKind::Internal, ErrorCode::BackendUnavailable),
        (json!({"code": "x", "details": 7}), FailureKind::Other, ErrorCode::BackendUnavailable),
        (json!(null), FailureKind::Other, ErrorCode::BackendUnavailable),
    ] {
        let failure = error_event(status.clone());
        assert_eq!((failure.kind, failure.error.code()), (kind, code), "{status}");
        assert_eq!(failure.retry_after, None);
    }
    let busy = error_event(json!({"code": 429, "details": {"retryAfterSeconds": 7}}));
    assert_eq!(busy.retry_after, Some(Duration::from_secs(7)));
    let forever = error_event(json!({"code": 429, "details": {"retryAfterSeconds": u64::MAX}}));
    assert_eq!(forever.retry_after, Some(Duration::from_secs(3600)));
}

#[test]
fn kubernetes_points_11_18_a_refused_request_says_what_the_server_said() {
    let body = json!({"code": 403, "reason": "Forbidden", "message": "pods is forbidden: \nUser \"x\""}).to_string();
    let denied = failure(403, body.as_bytes(), None, "listing");
    assert_eq!((denied.kind, denied.error.code()), (FailureKind::Forbidden, ErrorCode::AccessDenied));
    assert_eq!(denied.error.detail(), "the server answered with status 403: pods is forbidden:  User \"x\"");
    let page = failure(502, b"<html>", Some(Duration::from_secs(9)), "listing");
    assert_eq!((page.kind, page.retry_after), (FailureKind::Other, Some(Duration::from_secs(9))));
    assert_eq!(page.error.detail(), "the server answered with status 502");
    let cut = failure(410, &body.as_bytes()[..20], None, "listing");
    assert_eq!(cut.kind, FailureKind::Gone);
    let long = json!({"message": "x".repeat(10_000)}).to_string();
    assert!(failure(500, long.as_bytes(), None, "listing").error.detail().len() < 400);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("name|ip|ready|[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A pod or a slice of which perhaps something is anything.
fn any_object() -> impl Strategy<Value = Value> {
    let places = [
        "/metadata",
        "/metadata/name",
        "/metadata/labels",
        "/metadata/annotations",
        "/metadata/uid",
        "/spec",
        "/spec/containers",
        "/status",
        "/status/podIP",
        "/status/podIPs",
        "/status/conditions",
        "/status/containerStatuses",
        "/addressType",
        "/ports",
        "/endpoints",
        "/endpoints/0",
        "/endpoints/0/addresses",
        "/endpoints/0/conditions",
        "/endpoints/0/targetRef",
        "/none",
    ];
    (any::<bool>(), prop::sample::select(places.to_vec()), any_json()).prop_map(|(is_pod, place, value)| {
        let mut object = if is_pod { pod("a") } else { slice("a") };
        if let Some(found) = object.pointer_mut(place) {
            *found = value;
        }
        object
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kubernetes_point_14_any_objects_are_members_or_none_or_counted_whatever_the_pieces(
        items in prop::collection::vec(prop_oneof![any_object(), any_json()], 0..5),
        piece in 1..300usize,
        is_pod in any::<bool>(),
    ) {
        let rules = if is_pod { pods() } else { slices() };
        let body = list(&rules, &items).to_string();
        let whole = read_page(&rules, &body).unwrap();
        let pieced = page(&rules, pieces(body.as_bytes(), piece), "testing").unwrap();
        prop_assert_eq!((&whole.objects, whole.skipped), (&pieced.objects, pieced.skipped));
        prop_assert!(whole.objects.len() <= items.len());
    }

    #[test]
    fn kubernetes_point_13_any_watch_says_the_same_whatever_the_pieces(
        events in prop::collection::vec(("ADDED|MODIFIED|DELETED|BOOKMARK|ERROR|X", any_object()), 0..6),
        mangled in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        piece in 1..300usize,
        limit in prop_oneof![50..1500usize, Just(1 << 20)],
    ) {
        let mut body = events.iter().map(|(kind, object)| line(kind, object)).collect::<String>().into_bytes();
        if let Some((place, byte)) = mangled && !body.is_empty() {
            let place = place.index(body.len());
            body[place] = byte;
        }
        let whole = lines_in(&pods(), &body, usize::MAX, limit);
        prop_assert_eq!(whole, lines_in(&pods(), &body, piece, limit));
    }
}
