//! The Kubernetes provider against a real API server.
#![cfg(feature = "kubernetes")]

#[path = "support/child.rs"]
mod child;
#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/pods.rs"]
mod pods;
#[path = "support/kubernetes_rights.rs"]
mod rights;

use std::time::{Duration, Instant};

use child::{in_child, is_child};
use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvisioningService, KubernetesFactory, ProviderEvent, ProviderFactory,
    ProviderSnapshot, ProvisioningEvent, Secret, Secrets,
};
use kubernetes::Kubernetes;
use pods::{Watching, environment, join, provider, provider_of};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// 100 ms are promised; a busy machine may need more, and what is not broken off takes far longer than this.
const PROMPT: Duration = Duration::from_secs(1);

#[test]
fn kubernetes_point_16_only_pods_that_run_and_are_ready_and_are_to_stay_are_members() {
    let Some(server) = Kubernetes::start() else { return };
    for n in 0..7 {
        server.run_member("orders", &format!("m{n}"), &format!("10.1.0.{n}"));
    }
    server.run_member("other", "x", "10.2.0.1");
    let not_ready = json!({"conditions": [{"type": "Ready", "status": "False"}]});
    // One of each kind before the list, and one after it.
    server.set_status("m0", &json!({"phase": "Pending", "podIP": null, "podIPs": null}));
    server.set_status("m1", &not_ready);
    server.end_pod("m2");
    let descriptor = server.descriptor("orders", "admin").parameter("page-size", "3");
    let provider = provider(&descriptor, Kubernetes::secrets());
    provider.check_connectivity(&CancelToken::new()).unwrap();
    let mut watching = Watching::start(&provider);
    watching.expect_members(&["m3", "m4", "m5", "m6"], SOON);
    server.run_member("orders", "m7", "10.1.0.7");
    watching.expect_members(&["m3", "m4", "m5", "m6", "m7"], SOON);
    // Failed: the address is still in its status.
    server.set_status("m3", &json!({"phase": "Failed"}));
    server.set_status("m4", &not_ready);
    server.end_pod("m5");
    watching.expect_members(&["m6", "m7"], SOON);
    server.set_status("m4", &json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    watching.expect_members(&["m4", "m6", "m7"], SOON);
    for gone in ["m0", "m1", "m2"] {
        assert!(!watching.ever_showed(gone), "{gone}");
    }
    // Readiness does not count where it is said not to.
    let regardless =
        Watching::start(&pods::provider(&descriptor.parameter("require-ready", "off"), Kubernetes::secrets()));
    regardless.expect_members(&["m1", "m4", "m6", "m7"], SOON);
    watching.expect_current(SOON);
    // In the middle of a watch.
    assert!(watching.stop() < PROMPT);
}

#[test]
fn kubernetes_point_1_one_pod_and_five_thousand_in_pages_are_one_snapshot_each() {
    let Some(server) = Kubernetes::start() else { return };
    server.allow("client", "", "pods", &["list", "watch"]);
    server.run_member("one", "m0", "10.1.0.1");
    let one = Watching::start(&provider(&server.descriptor("one", "client"), Kubernetes::secrets()));
    one.expect_members(&["m0"], SOON);
    server.put_pods((0..5000).map(|n| crowd(n, "crowd")));
    let begun = Instant::now();
    let many = Watching::start(&provider(&server.descriptor("crowd", "client"), Kubernetes::secrets()));
    let first = many.expect("snapshot", 3 * SOON, |event| match event {
        ProviderEvent::Snapshot { members, skipped, .. } => Some((members.len(), *skipped)),
        _ => None,
    });
    println!("5,000 members after {:?}", begun.elapsed());
    assert_eq!(first, (5000, 0));
    let pages = server.asked("list", "crowd", 10);
    assert_eq!(pages.len(), 10, "{pages:?}");
    assert_eq!(pages.iter().filter(|(uri, code)| uri.contains("continue=") && *code == 200).count(), 9, "{pages:?}");
    // Changes follow, and only those.
    let begun = Instant::now();
    server.delete_pod("m4711");
    server.run_member("crowd", "more", "10.2.0.1");
    many.expect("both changes", 3 * SOON, |_| (many.has("more") && !many.has("m4711")).then_some(()));
    println!("one more and one fewer of them after {:?}", begun.elapsed());
    server.delete_pod("m0");
    one.expect_members(&[], SOON);
    many.expect_current(SOON);
    for (watching, name) in [(&one, "one"), (&many, "many")] {
        let told = watching.told();
        assert_eq!((told.snapshots, told.codes), (1, Vec::new()), "{name}");
    }
    assert!(!one.ever_showed("more"), "those of another cluster");
}

/// The pod of that number, in a cluster of many.
fn crowd(n: u32, cluster: &str) -> (String, String, Value) {
    let labels = json!({"cluster.proto.actor/cluster": cluster, "cluster.proto.actor/port": "7001"});
    (format!("m{n}"), format!("10.1.{}.{}", n / 250, n % 250 + 1), labels)
}

#[test]
fn p2_3_a_rolling_update_of_200_pods_is_few_deliveries_and_a_lone_change_is_not_held_up() {
    const PODS: usize = 200;
    let Some(server) = Kubernetes::start() else { return };
    server.allow("client", "", "pods", &["list", "watch"]);
    server.put_pods((0..PODS as u32).map(|n| crowd(n, "orders")));
    let descriptor = server.descriptor("orders", "client");
    let watching = Watching::start(&provider(&descriptor, Kubernetes::secrets()));
    let builder = ClusterProvisioningService::builder().secret("client", Secret::new("client-t0ken"));
    let builder = builder.provider(descriptor);
    let mut events = builder.subscribe(10_000);
    let service = builder.start().unwrap();
    let mut deliveries = |what: &str, complete: &dyn Fn(&ProviderSnapshot) -> bool| {
        let deadline = Instant::now() + 3 * SOON;
        for count in 1.. {
            let snapshot = loop {
                match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(event) => {
                        if let ProvisioningEvent::Snapshot(delivery) = &*event {
                            break delivery.snapshot.clone();
                        }
                    }
                    Err(error) => panic!("not {what}: {error:?}"),
                }
            };
            if complete(&snapshot) {
                return count;
            }
        }
        unreachable!()
    };
    deliveries("all of them", &|snapshot| snapshot.members.len() == PODS);
    watching.expect("all of them", SOON, |_| watching.has("m0").then_some(()));
    let version = |n: u32| json!({"metadata": {"labels": {"cluster.proto.actor/kind-v2": (n == 2).to_string()}}});
    let begun = Instant::now();
    for n in 0..PODS {
        server.patch_pod(&format!("m{n}"), &version(2));
    }
    let (patched, is_new) = (begun.elapsed(), |node: &ClusterNode| node.kinds().any(|kind| kind == "v2"));
    let count = deliveries("all updated", &|snapshot| snapshot.members.iter().all(|node| is_new(node)));
    let told = watching.told();
    println!("{PODS} pods changed in {patched:?}, all shown after {:?}", begun.elapsed());
    println!("{count} deliveries by the service, {} events of the provider", told.changes);
    // No more than ten a second, and one at the beginning.
    let windows = begun.elapsed().as_millis() as usize / 100;
    assert!(count <= windows + 2, "{count} deliveries in {:?}", begun.elapsed());
    assert!((1..=PODS).contains(&told.changes) && told.snapshots == 1, "{told:?}");
    // A lone one, after the last window is over.
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    server.patch_pod("m7", &version(1));
    let old = |snapshot: &ProviderSnapshot| snapshot.members.iter().filter(|node| !is_new(node)).count() == 1;
    assert_eq!(deliveries("the lone change", &old), 1);
    println!("a lone change is delivered after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    service.shutdown();
}

/// Names the service account's folder to the test's other process.
const ACCOUNT: &str = "KUBERNETES_LIVE_ACCOUNT";

#[test]
fn kubernetes_point_17_in_a_pod_nothing_but_the_cluster_has_to_be_named() {
    if !is_child() {
        let Some(server) = Kubernetes::start() else { return };
        server.allow("client", "", "pods", &["list", "watch"]);
        server.run_member("orders", "a", "10.1.0.1");
        let account = server.service_account("client");
        let address = server.address();
        let (host, port) = address.split_once(':').unwrap();
        let environment = [
            ("KUBERNETES_SERVICE_HOST", host.to_owned()),
            ("KUBERNETES_SERVICE_PORT", port.to_owned()),
            (ACCOUNT, account.display().to_string()),
        ];
        return in_child("kubernetes_point_17_in_a_pod_nothing_but_the_cluster_has_to_be_named", &environment);
    }
    // But for the folder, which here is not where the kubelet puts it.
    let descriptor = KubernetesFactory::descriptor("k8s", "orders").unwrap();
    let descriptor = descriptor.parameter("service-account", std::env::var(ACCOUNT).unwrap());
    let provider = provider(&descriptor, Secrets::default());
    let watching = Watching::start(&provider);
    watching.expect_members(&["a"], SOON);
    provider.check_connectivity(&CancelToken::new()).unwrap();
}

#[test]
fn kubernetes_protoactor_a_member_replaces_what_an_earlier_life_left_and_leaves_other_labels_alone() {
    let Some(server) = Kubernetes::start() else { return };
    server.allow("client", "", "pods", &["list", "watch"]);
    server.allow("member", "", "pods", &["list", "watch", "patch"]);
    // One pod has no labels, the other those of an earlier life.
    server.run_pod("pod-a", "10.1.0.1", &json!({}));
    let stale = json!({"labels": {
        "app": "orders", "cluster.proto.actor/cluster": "orders", "cluster.proto.actor/port": "1",
        "cluster.proto.actor/member-id": "b", "cluster.proto.actor/kind-old": "true",
    }});
    server.run_pod("pod-b", "10.1.0.2", &stale);
    let client = Watching::start(&provider(&server.descriptor("orders", "client"), Kubernetes::secrets()));
    client.expect_members(&["b"], SOON);
    let member = |id: &str, address: &str| {
        let node = ClusterNode::builder(id, address, 7001).incarnation(7).kind("user").metadata("zone", "z 1");
        let node = node.build().unwrap();
        let descriptor = server.descriptor("orders", "member").parameter("pod", format!("pod-{id}"));
        let provider = provider_of(&descriptor, Kubernetes::secrets(), Some(node.clone()));
        provider.check_connectivity(&CancelToken::new()).unwrap();
        let registration = join(&*provider, &node).unwrap();
        (Watching::start(&provider), registration, node)
    };
    let (watching_a, mut a, node_a) = member("a", "10.1.0.1");
    client.expect_members(&["a", "b"], SOON);
    // The same address as the pod's, spelled otherwise.
    let (_watching_b, mut b, node_b) = member("b", "::ffff:10.1.0.2");
    watching_a.expect_node(&node_a, SOON);
    watching_a.expect_node(&node_b, SOON);
    let labels = server.pod("pod-b")["metadata"]["labels"].clone();
    let expected = json!({
        "app": "orders", "cluster.proto.actor/cluster": "orders", "cluster.proto.actor/port": "7001",
        "cluster.proto.actor/member-id": "b", "cluster.proto.actor/kind-user": "true",
    });
    assert_eq!(labels, expected, "new values win, and what an earlier life left is gone");
    // Somebody takes the label away: the watch finds it, and the next renewal repairs it.
    server.patch_pod("pod-a", &json!({"metadata": {"labels": {"cluster.proto.actor/cluster": null}}}));
    client.expect_members(&["b"], SOON);
    a.early_renewal().recv_timeout(SOON).unwrap();
    let deadline = Instant::now() + SOON;
    while server.pod("pod-a")["metadata"]["labels"]["cluster.proto.actor/cluster"].is_null() {
        assert!(Instant::now() < deadline, "not repaired");
        a.renew(&CancelToken::new()).unwrap();
        std::thread::sleep(a.renew_interval().min(Duration::from_millis(100)));
    }
    client.expect_members(&["a", "b"], SOON);
    let begun = Instant::now();
    a.leave(Duration::from_secs(2)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
    client.expect_members(&["b"], SOON);
    b.leave(Duration::from_secs(2)).unwrap();
    client.expect_members(&[], SOON);
    assert_eq!(server.pod("pod-b")["metadata"]["labels"], json!({"app": "orders"}));
}

#[test]
fn kubernetes_point_15_endpoint_slices_of_an_old_server_are_watched() {
    let Some(server) = Kubernetes::start() else { return };
    let slices = "/apis/discovery.k8s.io/v1beta1/namespaces/default/endpointslices";
    let slice = |name: &str, addresses: &[&str]| {
        let endpoint = |address: &&str| json!({"addresses": [address], "conditions": {"ready": true}});
        json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "orders"}}, "addressType": "IPv4",
            "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "actor", "port": 7001, "protocol": "TCP"}],
        })
    };
    server.call("POST", slices, &slice("one", &["10.1.0.1", "10.1.0.2"]));
    server.call("POST", slices, &slice("two", &["10.1.0.2"]));
    server.allow("client", "discovery.k8s.io", "endpointslices", &["list", "watch"]);
    let descriptor = server.descriptor("orders", "client").parameter("source", "endpoint-slices");
    let provider = provider(&descriptor.parameter("service", "orders"), Kubernetes::secrets());
    let watching = Watching::start(&provider);
    watching.expect_members(&["10.1.0.1:7001", "10.1.0.2:7001"], Duration::from_secs(20));
    provider.check_connectivity(&CancelToken::new()).unwrap();
    server.call("DELETE", &format!("{slices}/one"), &Value::Null);
    watching.expect_members(&["10.1.0.2:7001"], SOON);
}

#[test]
fn p4_1_whole_services_join_repair_what_somebody_removes_and_leave_on_draining() {
    let Some(server) = Kubernetes::start() else { return };
    server.allow("client", "", "pods", &["list", "watch"]);
    server.allow("member", "", "pods", &["list", "watch", "patch"]);
    let start = |id: Option<&str>, user: &str| {
        let mut descriptor = server.descriptor("orders", user);
        let mut builder = ClusterProvisioningService::builder().secret(user, Secret::new(format!("{user}-t0ken")));
        if let Some(id) = id {
            let address = if id == "a" { "10.1.0.1" } else { "10.1.0.2" };
            server.run_pod(&format!("pod-{id}"), address, &json!({}));
            descriptor = descriptor.parameter("pod", format!("pod-{id}"));
            builder = builder.member(ClusterNode::builder(id, address, 7001).incarnation(1).build().unwrap());
        }
        builder.provider(descriptor).start().unwrap()
    };
    let shows = |service: &ClusterProvisioningService, ids: &[&str]| {
        let deadline = Instant::now() + SOON;
        loop {
            let shown: Vec<_> = service
                .hub()
                .snapshot()
                .map_or_else(Vec::new, |snapshot| snapshot.members.iter().map(|node| node.id().to_string()).collect());
            if shown == ids {
                return;
            }
            assert!(Instant::now() < deadline, "{shown:?} instead of {ids:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let client = start(None, "client");
    shows(&client, &[]);
    let (a, b) = (start(Some("a"), "member"), start(Some("b"), "member"));
    for service in [&client, &a, &b] {
        shows(service, &["a", "b"]);
    }
    let label = "cluster.proto.actor/cluster";
    let watching = Watching::start(&provider(&server.descriptor("orders", "client"), Kubernetes::secrets()));
    watching.expect_members(&["a", "b"], SOON);
    let repairs = ["a", "b", "a"].map(|id| {
        let pod = &format!("pod-{id}");
        server.patch_pod(pod, &json!({"metadata": {"labels": {label: null}}}));
        let begun = Instant::now();
        while server.pod(pod)["metadata"]["labels"][label].is_null() {
            assert!(begun.elapsed() < SOON, "not repaired");
        }
        let repaired = begun.elapsed();
        watching.expect_return(id, SOON);
        for service in [&client, &a, &b] {
            shows(service, &["a", "b"]);
        }
        println!("{pod} repaired after {repaired:?}, seen again by all after {:?}", begun.elapsed());
        begun.elapsed()
    });
    // The machine may be busy at one moment, and not at three.
    assert!(*repairs.iter().min().unwrap() < Duration::from_secs(3), "{repairs:?}");
    let begun = Instant::now();
    a.drain().unwrap();
    println!("drained after {:?}", begun.elapsed());
    shows(&client, &["b"]);
    shows(&b, &["b"]);
    let begun = Instant::now();
    b.shutdown();
    println!("shut down after {:?}", begun.elapsed());
    shows(&client, &[]);
    assert_eq!(server.pod("pod-a")["metadata"]["labels"], Value::Null);
}

#[test]
fn kubernetes_edits_of_a_members_definition_are_seen_by_nobody_and_leave_nothing_behind() {
    let Some(server) = Kubernetes::start() else { return };
    server.allow("client", "", "pods", &["list", "watch"]);
    server.allow("member", "", "pods", &["list", "watch", "patch"]);
    for name in ["pod-1", "pod-2"] {
        server.run_pod(name, "10.1.0.1", &json!({"labels": {"app": "orders"}}));
    }
    server.run_member("orders", "n2", "10.1.0.2");
    let node = ClusterNode::builder("n1", "10.1.0.1", 7001).incarnation(7).kind("user").build().unwrap();
    let environment = environment(Kubernetes::secrets(), Some(node.clone()));
    let definition = |pod: &str| server.descriptor("orders", "member").parameter("pod", pod);
    let mut by_name = definition("pod-1");
    by_name.endpoints = vec![server.url().replace("127.0.0.1", "localhost")];
    let by_name = by_name.parameter("tls-server-name", "127.0.0.1");
    let mut provider = KubernetesFactory.create(&definition("pod-1"), &environment).unwrap();
    let mut registration = join(&*provider, &node).unwrap();
    let witness = Watching::start(&pods::provider(&server.descriptor("orders", "client"), Kubernetes::secrets()));
    witness.expect_members(&["n1", "n2"], SOON);
    let cluster_of = |pod: &str| server.pod(pod)["metadata"]["labels"]["cluster.proto.actor/cluster"].clone();
    for (pod, edited) in [
        ("pod-1", definition("pod-1").parameter("page-size", "100")),
        ("pod-1", by_name),
        ("pod-2", definition("pod-2")),
        ("pod-1", definition("pod-1")),
    ] {
        let new = KubernetesFactory.replace(&edited, &environment, &*provider).unwrap();
        new.check_connectivity(&CancelToken::new()).unwrap();
        let successor = join(&*new, &node).unwrap();
        let begun = Instant::now();
        registration.retire(Duration::from_secs(2)).unwrap();
        println!("{:?} on {pod}: retired in {:?}", edited.endpoints, begun.elapsed());
        for other in ["pod-1", "pod-2"] {
            assert_eq!(cluster_of(other) == json!("orders"), other == pod, "{other}");
        }
        // A change that everybody sees, after all that there is to see of the edit.
        let mark = format!("m-{}", witness.told().changes);
        server.run_member("orders", &mark, "10.1.0.3");
        witness.expect_members(&[&mark, "n1", "n2"], SOON);
        witness.assert_kept(&[&mark, "n1", "n2"], &[]);
        server.delete_pod(&mark);
        witness.expect_departure(&mark, SOON);
        (provider, registration) = (new, successor);
    }
    registration.leave(Duration::from_secs(2)).unwrap();
    witness.expect_members(&["n2"], SOON);
    for pod in ["pod-1", "pod-2"] {
        assert_eq!(server.pod(pod)["metadata"]["labels"], json!({"app": "orders"}));
    }
}
