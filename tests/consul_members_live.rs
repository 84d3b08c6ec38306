//! Members in processes of their own on one real Consul agent, which is killed, paused, restored and tampered with.
#![cfg(feature = "consul")]

#[path = "support/cast.rs"]
mod cast;
#[path = "support/consul.rs"]
mod consul;
#[path = "support/member.rs"]
mod member;
#[path = "support/members.rs"]
mod members;

use std::time::Duration;

use cluster_provisioning::{ConsulFactory, ProviderDescriptor};
use consul::Consul;
use members::MemberProcess;

const SERVICE: &str = "orders";
/// What takes no longer unless the test fails.
const SOON: Duration = Duration::from_secs(20);

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "a member of the other tests, in a process of its own"]
fn member_process() {
    member::run();
}

fn provider(url: &str) -> ProviderDescriptor {
    ConsulFactory::descriptor("consul", url, SERVICE).unwrap()
}

#[test]
fn consul_protoactor_a_registration_as_protoactor_go_makes_it_is_seen() {
    let Some(consul) = Consul::start() else { return };
    let watchers: Vec<_> = ["w1", "w2", "w3"].map(|name| MemberProcess::watcher(name, &[provider(&consul.url())])).into();
    for watcher in &watchers {
        watcher.wait_started(SOON);
    }
    let body = serde_json::json!({
        "ID": "go-1", "Name": SERVICE, "Tags": ["user", "order"], "Address": "10.1.2.3", "Port": 8090,
        "Meta": {"id": "go-1"}, "Check": {"TTL": "3s", "DeregisterCriticalServiceAfter": "1m0s"},
    });
    consul.put("/v1/agent/service/register", &body.to_string());
    for watcher in &watchers {
        assert!(watcher.members().is_empty(), "critical until its first heartbeat");
    }
    consul.put("/v1/agent/check/update/service:go-1", r#"{"Status":"passing","Output":""}"#);
    for watcher in &watchers {
        watcher.wait_members(&["go-1"], SOON);
    }
}
