//! Members in processes of their own that find each other through a real API server: whole services on pods of their own.
#![cfg(feature = "kubernetes")]

#[path = "support/cast.rs"]
mod cast;
#[path = "support/kubernetes.rs"]
mod kubernetes;
#[path = "support/member.rs"]
mod member;
#[path = "support/members.rs"]
mod members;
#[path = "support/kubernetes_rights.rs"]
mod rights;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cast::Cast;
use cluster_provisioning::{Credential, ProviderDescriptor};
use kubernetes::{Kubernetes, Part};
use member::now;
use members::{MemberProcess, after};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
/// How long it may take until the next of the growing pauses is over, and the server is up again.
const RECOVERED: Duration = Duration::from_secs(60);
/// Beyond what a change takes to everyone, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);
const IDS: [&str; 2] = ["n1", "n2"];

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "a member of the other tests, in a process of its own"]
fn member_process() {
    member::run();
}

/// A server with the documented rights, and a pod for each member.
struct Scene {
    server: Kubernetes,
    /// The service accounts of members and of those who only watch.
    accounts: [PathBuf; 2],
}

impl Scene {
    fn start() -> Option<Self> {
        let server = Kubernetes::start()?;
        server.allow("member", "", "pods", &["list", "watch"]);
        server.allow("member", "", "pods", &["patch"]);
        server.allow("client", "", "pods", &["list", "watch"]);
        let accounts = ["member", "client"].map(|user| server.service_account(user));
        let scene = Self { server, accounts };
        IDS.iter().for_each(|id| scene.pod(id));
        Some(scene)
    }

    /// The pod in which the member of that id runs.
    fn pod(&self, id: &str) {
        self.server.run_pod(&format!("pod-{id}"), "127.0.0.1", &json!({"labels": {"app": "orders"}}));
    }

    /// The definition of `w`, which only watches, or of a member.
    fn provider(&self, id: &str) -> ProviderDescriptor {
        let [member, client] = &self.accounts;
        let account = if id == "w" { client } else { member };
        let token = account.join("token").display().to_string();
        let descriptor = self.server.descriptor("orders", "").credential(Credential::TokenFile(token));
        descriptor.parameter("pod", format!("pod-{id}"))
    }

    /// The usual members and `w`.
    fn cast(&self) -> Cast {
        Cast::start_each(&IDS, |id| vec![self.provider(id)])
    }

    /// Another member joins, on a pod of its own, and everyone sees it: all watches follow.
    fn joins(&self, cast: &mut Cast, id: &str, all: &[&str]) {
        self.pod(id);
        let at = now();
        cast.add(MemberProcess::member(id, &[self.provider(id)]));
        let registered = cast.get(id).wait_members(all, SOON).at;
        for process in &cast.all {
            let seen = process.wait_members(all, SOON).at;
            println!("{id} seen by {} {:?} after its process was started", process.name(), after(at, seen));
            assert!(after(registered, seen) < AT_ONCE);
        }
    }
}

/// Everyone but those who went sees these members, soon after `at`.
fn left(cast: &Cast, what: &str, at: u64, rest: &[&str]) {
    for process in &cast.all {
        let latency = after(at, process.wait_members(rest, SOON).at);
        println!("{what}: left at {} after {latency:?}", process.name());
        assert!(latency < AT_ONCE, "{latency:?}");
    }
}

#[test]
fn p4_1_members_and_a_client_in_processes_of_their_own_see_each_other_join_drain_and_vanish() {
    let Some(scene) = Scene::start() else { return };
    let mut cast = scene.cast();
    scene.joins(&mut cast, "n3", &["n1", "n2", "n3"]);
    cast.assert_nobody_left();
    // One says farewell.
    let mut drained = cast.remove("n3");
    let at = now();
    drained.command("drain");
    left(&cast, "drained", at, &IDS);
    let done = drained.wait_line("drained", SOON, |line| line.what == "drained");
    assert_eq!(done.text, "", "deregistered without an error");
    assert_eq!(drained.members(), ["n1", "n2", "n3"], "what it saw last stays");
    drained.check();
    assert_eq!(scene.server.pod("pod-n3")["metadata"]["labels"], json!({"app": "orders"}));
    cast.assert_left(&["n3"]);
    // One does not; its pod is what the others go by, and here it is the test that takes it away.
    let mut killed = cast.remove("n2");
    killed.kill();
    cast.wait_members(&IDS, SOON);
    let at = now();
    scene.server.delete_pod("pod-n2");
    left(&cast, "killed", at, &["n1"]);
    cast.assert_left(&["n2", "n3"]);
    // Another life of it, on another pod of the name.
    scene.joins(&mut cast, "n2", &IDS);
    for (name, gone) in [("n1", &["n2", "n3"][..]), ("w", &["n2", "n3"]), ("n2", &[])] {
        assert_eq!(cast.get(name).who_left(cast.mark_of(name)), gone, "as {name} saw it");
    }
    cast.wait_healthy(SOON);
    cast.finish();
}

#[test]
fn kubernetes_point_18_a_member_that_may_no_longer_patch_is_told_so_and_is_back_as_soon_as_it_may() {
    let Some(scene) = Scene::start() else { return };
    let cast = scene.cast();
    scene.server.forbid("member", "", "pods", &["patch"]);
    // What it registered stays, until somebody takes it away.
    let at = now();
    let labels = json!({"cluster.proto.actor/cluster": null, "cluster.proto.actor/port": null});
    scene.server.patch_pod("pod-n2", &json!({"metadata": {"labels": labels}}));
    for name in ["n1", "w"] {
        cast.get(name).wait_members(&["n1"], SOON);
    }
    let alarm = cast.get("n2").wait_line("access-denied", SOON, |line| line.code == "access-denied");
    println!("n2 was told after {:?}: {}", after(at, alarm.at), alarm.text);
    assert!(alarm.text.contains(r#"resources: ["pods"], verbs: ["patch"]"#), "{}", alarm.text);
    let at = now();
    scene.server.allow("member", "", "pods", &["patch"]);
    for process in &cast.all {
        let back = process.wait_members(&IDS, SOON);
        println!("n2 is back at {} after {:?}", process.name(), after(at, back.at));
    }
    cast.assert_left(&["n2"]);
    cast.wait_healthy(SOON);
    cast.finish();
}

#[test]
fn p2_2_a_restart_of_the_api_server_while_all_run_loses_nobody() {
    let Some(mut scene) = Scene::start() else { return };
    let mut cast = scene.cast();
    scene.server.kill_server();
    cast.wait_not_healthy(SOON);
    cast.assert_nobody_left();
    let up = Instant::now();
    scene.server.start_server();
    cast.wait_healthy(RECOVERED);
    println!("all healthy {:?} after the server was started", up.elapsed());
    cast.wait_members(&IDS, SOON);
    scene.joins(&mut cast, "n3", &["n1", "n2", "n3"]);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn p4_3_an_api_server_that_stands_still_loses_nobody_and_does_not_hold_up_a_drain() {
    let Some(scene) = Scene::start() else { return };
    let mut cast = scene.cast();
    let at = now();
    scene.server.signal(Part::Server, "STOP");
    for process in &cast.all {
        let line = process.wait_unhealthy_since(cast.mark_of(process.name()), "k8s", SOON);
        println!("{} was told after {:?}: {}", process.name(), after(at, line.at), line.text);
        let line = process.wait_health("k8s", "unreachable", SOON);
        println!("{}: unreachable after {:?}", process.name(), after(at, line.at));
        assert_eq!(process.members(), IDS);
    }
    let begun = Instant::now();
    let mut drained = cast.remove("n2");
    let line = drained.drain(SOON);
    println!("drained after {:?}: {}", begun.elapsed(), line.text);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    cast.assert_nobody_left();
    scene.server.signal(Part::Server, "CONT");
    let up = Instant::now();
    cast.wait_healthy(RECOVERED);
    println!("all healthy {:?} after the server went on", up.elapsed());
    // Whether the farewell reached the server, which was asked before it went on, is its affair; the pod's end does.
    drained.kill();
    scene.server.delete_pod("pod-n2");
    cast.wait_members(&["n1"], SOON);
    cast.assert_left(&["n2"]);
    scene.joins(&mut cast, "n3", &["n1", "n3"]);
    cast.finish();
}
