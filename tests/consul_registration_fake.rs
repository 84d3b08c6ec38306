//! The Consul registration against agents that refuse, forget, hang and come back.
#![cfg(feature = "consul")]

#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/watching.rs"]
mod watching;

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_provisioning::{
    CancelToken, ClusterNode, ClusterProvider, ClusterProvisioningService, ConsulFactory, Credential, ErrorCode,
    ProviderDescriptor, ProvisioningError, Registration,
};
use fake::{Fake, Request, entry, hold, list, send};
use watching::provider_of;

/// What a prompt end may take on a busy machine; what is not broken off takes far longer.
const PROMPT: Duration = Duration::from_secs(1);
const BUDGET: Duration = Duration::from_secs(2);

fn node() -> ClusterNode {
    ClusterNode::builder("n1", "10.0.0.1", 8090).incarnation(7).kind("user").build().unwrap()
}

fn descriptor(fake: &Fake) -> ProviderDescriptor {
    ConsulFactory::descriptor("consul-fake", &fake.url(), "orders").unwrap()
}

fn member(fake: &Fake) -> Arc<dyn ClusterProvider> {
    provider_of(&descriptor(fake), Some(node()))
}

fn join(provider: &Arc<dyn ClusterProvider>) -> Box<dyn Registration> {
    watching::join(&**provider, &node()).unwrap()
}

fn is_register(request: &Request) -> bool {
    request.method == "PUT" && request.target == "/v1/agent/service/register"
}

fn is_pass(request: &Request) -> bool {
    request.method == "PUT" && request.target == "/v1/agent/check/pass/service%3An1"
}

fn is_deregister(request: &Request) -> bool {
    request.method == "PUT" && request.target == "/v1/agent/service/deregister/n1"
}

fn ok(stream: &mut TcpStream) -> bool {
    send(stream, "200 OK", "", b"")
}

/// What the agent was told to do. What is only looked at changes nothing.
fn orders(fake: &Fake) -> Vec<Request> {
    fake.requests().into_iter().filter(|request| request.method == "PUT").collect()
}

/// The same, in short.
fn asked(fake: &Fake) -> Vec<&'static str> {
    let name = |request: &Request| match request {
        request if is_register(request) => "register",
        request if is_pass(request) => "pass",
        request if is_deregister(request) => "deregister",
        _ => "other",
    };
    orders(fake).iter().map(name).collect()
}

/// An agent that keeps the registration in memory, as a real one does.
#[derive(Default)]
struct Agent {
    known: AtomicBool,
}

impl Agent {
    fn answer(&self, request: &Request, stream: &mut TcpStream, unknown: &str) -> bool {
        if is_register(request) {
            self.known.store(true, Ordering::SeqCst);
        } else if is_deregister(request) {
            self.known.store(false, Ordering::SeqCst);
        } else if !self.known.load(Ordering::SeqCst) {
            return send(stream, unknown, "", b"CheckID \"service:n1\" does not have associated TTL");
        }
        ok(stream)
    }
}

#[test]
fn consul_point_18_the_node_is_registered_and_its_check_passes_at_once() {
    let fake = Fake::start(|_, stream| ok(stream));
    let registration = join(&member(&fake));
    assert_eq!(asked(&fake), ["register", "pass"]);
    let body: serde_json::Value = serde_json::from_str(&orders(&fake)[0].body).unwrap();
    assert_eq!((&body["ID"], &body["Name"]), (&"n1".into(), &"orders".into()));
    assert_eq!(body["Meta"], serde_json::json!({"id": "n1", "incarnation": "7"}));
    assert_eq!(body["Check"]["TTL"], "3000ms");
    let interval = registration.renew_interval();
    assert!(interval <= Duration::from_secs(1), "three heartbeats in a TTL of 3 s: {interval:?}");
    assert_eq!(fake.connections(), 1, "one connection for all of it");
}

#[test]
fn consul_point_18_the_check_has_the_times_of_the_definition_to_the_millisecond() {
    let fake = Fake::start(|_, stream| ok(stream));
    let descriptor = descriptor(&fake).parameter("ttl", "4500ms").parameter("deregister-after", "90500ms");
    let _registration = join(&provider_of(&descriptor, Some(node())));
    let body: serde_json::Value = serde_json::from_str(&orders(&fake)[0].body).unwrap();
    assert_eq!(body["Check"]["TTL"], "4500ms");
    assert_eq!(body["Check"]["DeregisterCriticalServiceAfter"], "90500ms");
}

#[test]
fn p1_4_consul_a_node_that_is_described_anew_is_registered_over_what_is_there_and_what_cannot_be_is_refused() {
    let fake = Fake::start(|_, stream| ok(stream));
    let mut registration = join(&member(&fake));
    let described =
        |key: &str| ClusterNode::builder("n1", "10.0.0.1", 8090).incarnation(8).metadata(key, "b").build().unwrap();
    registration.describe(&described("zone")).unwrap();
    assert_eq!(asked(&fake), ["register", "pass"], "it is registered with the next join");
    registration.join(&CancelToken::new()).unwrap();
    assert_eq!(asked(&fake), ["register", "pass", "register", "pass"]);
    let meta =
        || serde_json::from_str::<serde_json::Value>(&orders(&fake).iter().rfind(|at| is_register(at)).unwrap().body);
    let expected = serde_json::json!({"id": "n1", "incarnation": "8", "zone": "b"});
    assert_eq!(meta().unwrap()["Meta"], expected);
    let refused = registration.describe(&described("no key of Consul's")).unwrap_err();
    assert_eq!((refused.code(), refused.field()), (ErrorCode::InvalidNode, Some("metadata")), "{refused}");
    registration.join(&CancelToken::new()).unwrap();
    assert_eq!(meta().unwrap()["Meta"], expected, "as it was");
}

#[test]
fn consul_point_18_a_pass_answered_404_or_500_registers_the_node_again_in_the_same_round() {
    for unknown in ["404 Not Found", "500 Internal Server Error"] {
        let agent = Arc::new(Agent::default());
        let answering = Arc::clone(&agent);
        let fake = Fake::start(move |request, stream| answering.answer(request, stream, unknown));
        let mut registration = join(&member(&fake));
        agent.known.store(false, Ordering::SeqCst);
        let cancel = CancelToken::new();
        cancel.wait(registration.renew_interval());
        registration.renew(&cancel).unwrap();
        assert!(agent.known.load(Ordering::SeqCst), "{unknown}");
        assert_eq!(asked(&fake), ["register", "pass", "pass", "register"], "{unknown}");
        // The check passes at once, too.
        assert!(registration.renew_interval() < Duration::from_millis(100));
    }
}

#[test]
fn consul_point_18_an_agent_that_is_away_is_tried_often_and_the_loss_repaired_when_it_is_back() {
    let away = Arc::new(AtomicBool::new(false));
    let agent = Arc::new(Agent::default());
    let (is_away, answering) = (Arc::clone(&away), Arc::clone(&agent));
    let fake = Fake::start(move |request, stream| {
        !is_away.load(Ordering::SeqCst) && answering.answer(request, stream, "404 Not Found")
    });
    let mut registration = join(&member(&fake));
    away.store(true, Ordering::SeqCst);
    agent.known.store(false, Ordering::SeqCst);
    let cancel = CancelToken::new();
    for _ in 0..3 {
        cancel.wait(registration.renew_interval());
        let error = registration.renew(&cancel).unwrap_err();
        assert_eq!(error.code(), ErrorCode::BackendUnavailable, "{error}");
        let pause = registration.renew_interval();
        assert!((Duration::from_millis(100)..=Duration::from_millis(500)).contains(&pause), "{pause:?}");
    }
    away.store(false, Ordering::SeqCst);
    cancel.wait(registration.renew_interval());
    registration.renew(&cancel).unwrap();
    assert!(agent.known.load(Ordering::SeqCst));
}

#[test]
fn consul_point_18_how_long_the_check_has_been_critical_is_said() {
    let away = Arc::new(AtomicBool::new(false));
    let is_away = Arc::clone(&away);
    let fake = Fake::start(move |_, stream| !is_away.load(Ordering::SeqCst) && ok(stream));
    let provider = provider_of(&descriptor(&fake).parameter("ttl", "1s"), Some(node()));
    let mut registration = join(&provider);
    away.store(true, Ordering::SeqCst);
    let (cancel, deadline) = (CancelToken::new(), Instant::now() + Duration::from_secs(10));
    loop {
        cancel.wait(registration.renew_interval());
        let error = registration.renew(&cancel).unwrap_err();
        if error.detail().contains("critical for") {
            return;
        }
        assert!(Instant::now() < deadline, "never said: {error}");
    }
}

#[test]
fn consul_point_18_a_hung_agent_costs_a_heartbeat_no_longer_than_the_interval_and_stopping_is_prompt() {
    let hang = Arc::new(AtomicBool::new(false));
    let hangs = Arc::clone(&hang);
    let fake = Fake::start(move |_, stream| if hangs.load(Ordering::SeqCst) { hold(stream) } else { ok(stream) });
    let mut registration = join(&member(&fake));
    hang.store(true, Ordering::SeqCst);
    let cancel = CancelToken::new();
    cancel.wait(registration.renew_interval());
    let started = Instant::now();
    let error = registration.renew(&cancel).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let stop = cancel.clone();
    let before = fake.requests().len();
    let cancelled = std::thread::spawn(move || {
        let deadline = Instant::now() + Duration::from_secs(5);
        while fake.requests().len() == before && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let at = Instant::now();
        stop.cancel();
        at
    });
    let renewed = registration.renew(&cancel);
    assert!(cancelled.join().unwrap().elapsed() < PROMPT);
    assert!(renewed.is_err());
}

#[test]
fn consul_point_15_a_rotated_token_registers_the_node_anew_so_that_the_agent_writes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first-token").unwrap();
    let fake = Fake::start(|_, stream| ok(stream));
    let credential = Credential::TokenFile(path.to_str().unwrap().to_owned());
    let provider = provider_of(&descriptor(&fake).credential(credential), Some(node()));
    let mut registration = join(&provider);
    let cancel = CancelToken::new();
    registration.renew(&cancel).unwrap();
    assert_eq!(asked(&fake), ["register", "pass"], "an unchanged token registers nothing anew");
    std::fs::write(&path, "second-token").unwrap();
    registration.renew(&cancel).unwrap();
    assert_eq!(asked(&fake)[2..], ["register", "pass"]);
    let tokens: Vec<_> =
        orders(&fake).iter().map(|request| request.header("x-consul-token").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["first-token", "first-token", "second-token", "second-token"]);
}

#[test]
fn consul_point_19_leaving_deregisters_and_an_unknown_node_is_gone_already() {
    for status in ["200 OK", "404 Not Found", "500 Internal Server Error"] {
        let fake = Fake::start(move |request, stream| match is_deregister(request) {
            true => send(stream, status, "", b"Unknown service \"n1\""),
            false => ok(stream),
        });
        join(&member(&fake)).leave(BUDGET).unwrap();
        assert_eq!(asked(&fake), ["register", "pass", "deregister"]);
    }
}

#[test]
fn consul_point_19_leaving_is_not_taken_for_done_when_the_agent_fails() {
    let fake = Fake::start(|request, stream| match is_deregister(request) {
        true => send(stream, "500 Internal Server Error", "", b"No cluster leader"),
        false => ok(stream),
    });
    let error = join(&member(&fake)).leave(BUDGET).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BackendUnavailable);
    assert!(error.detail().contains("No cluster leader"), "{error}");
}

#[test]
fn consul_point_19_a_service_that_drains_deregisters_also_where_the_agent_fails_at_first() {
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |request, stream| {
        if request.target.starts_with("/v1/health/service/") {
            let members = format!("[{}]", entry("n1"));
            return if request.index().is_some() { hold(stream) } else { list(stream, 10, &members) };
        }
        match is_deregister(request).then(|| asked.fetch_add(1, Ordering::SeqCst)) {
            // The connection dies, and then the agent is not ready yet.
            Some(0) => false,
            Some(1 | 2) => send(stream, "500 Internal Server Error", "", b"not yet"),
            _ => ok(stream),
        }
    });
    let service = ClusterProvisioningService::builder().member(node()).provider(descriptor(&fake)).start().unwrap();
    service.drain().unwrap();
    assert_eq!(orders(&fake).iter().filter(|request| is_deregister(request)).count(), 4);
}

#[test]
fn consul_point_19_leaving_a_hung_agent_ends_within_the_budget() {
    let fake = Fake::start(|request, stream| if is_deregister(request) { hold(stream) } else { ok(stream) });
    let mut registration = join(&member(&fake));
    let started = Instant::now();
    let error = registration.leave(Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert!(started.elapsed() < PROMPT, "{:?}", started.elapsed());
}

#[test]
fn consul_point_18_a_refused_registration_says_why_without_the_token() {
    for (status, code) in [
        ("403 Forbidden", ErrorCode::AccessDenied),
        ("400 Bad Request", ErrorCode::RegistrationFailed),
        ("500 Internal Server Error", ErrorCode::RegistrationFailed),
    ] {
        let fake = Fake::start(move |_, stream| {
            send(stream, status, "", format!("Permission denied for {}", watching::TOKEN).as_bytes())
        });
        let provider = provider_of(&descriptor(&fake).credential(Credential::Secret("consul".into())), Some(node()));
        let error = watching::join(&*provider, &node()).err().unwrap();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.detail().contains("Permission denied for ***"), "{error}");
        assert_eq!(error.provider().map(ToString::to_string).as_deref(), Some("consul-fake"));
    }
}

#[test]
fn consul_a_node_that_consul_cannot_carry_is_refused_before_anything_is_sent() {
    use cluster_provisioning::ProviderFactory;
    let fake = Fake::start(|_, stream| ok(stream));
    let bad = ClusterNode::builder("n1", "0.0.0.0", 8090).build().unwrap();
    let environment = cluster_provisioning::ProviderEnvironment::new(cluster_provisioning::SystemClock::shared())
        .local_node(Some(Arc::new(bad)));
    let error = ConsulFactory.create(&descriptor(&fake), &environment).err().unwrap();
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidNode, Some("address")), "{error}");
    let bad = ClusterNode::builder("a//b", "10.0.0.1", 8090).build().unwrap();
    let builder = cluster_provisioning::ClusterProvisioningService::builder().provider(descriptor(&fake)).member(bad);
    let error = builder.start().err().unwrap();
    assert_eq!((error.code(), error.field()), (ErrorCode::InvalidNode, Some("id")), "refused at the start: {error}");
    assert!(fake.requests().is_empty());
}

/// What the connectivity check says of an agent whose authorization answers so; `nodes` is the catalog's list.
fn check(local: Option<ClusterNode>, status: &'static str, verdicts: &'static str, nodes: &'static str) -> Checked {
    let fake = Fake::start(move |request, stream| match request.target.split('?').next().unwrap() {
        "/v1/internal/acl/authorize" => send(stream, status, "", verdicts.as_bytes()),
        "/v1/catalog/nodes" => list(stream, 9, nodes),
        _ => list(stream, 9, "[]"),
    });
    let result = provider_of(&descriptor(&fake), local).check_connectivity(&CancelToken::new());
    let targets = fake.requests().iter().map(|request| request.target.clone()).collect();
    Checked { result, targets }
}

struct Checked {
    result: Result<(), ProvisioningError>,
    targets: BTreeSet<String>,
}

#[test]
fn consul_point_10_the_check_proves_the_right_to_read_and_in_member_mode_to_register() {
    const ALL: &str = r#"[{"Allow":true},{"Allow":true},{"Allow":true}]"#;
    const NO_WRITE: &str = r#"[{"Allow":true},{"Allow":false},{"Allow":true}]"#;
    const NO_READ: &str = r#"[{"Allow":false},{"Allow":false},{"Allow":true}]"#;
    const NO_NODES: &str = r#"[{"Allow":true},{"Allow":true},{"Allow":false}]"#;
    let ok = "200 OK";
    check(Some(node()), ok, ALL, "[]").result.unwrap();
    check(None, ok, NO_WRITE, "[]").result.unwrap();
    for (local, verdicts, rule) in [
        (Some(node()), NO_WRITE, "policy = \"write\""),
        (None, NO_READ, "policy = \"read\""),
        (None, NO_NODES, "node_prefix"),
    ] {
        let error = check(local, ok, verdicts, "[]").result.unwrap_err();
        assert_eq!(error.code(), ErrorCode::AccessDenied, "{error}");
        assert!(error.detail().contains(rule), "{error}");
    }
    // A rule for some nodes only does not cover the empty prefix, and suffices all the same.
    let narrow = check(None, ok, NO_NODES, r#"[{"Node":"web-1"}]"#);
    narrow.result.unwrap();
    assert!(narrow.targets.contains("/v1/catalog/nodes"));
}

#[test]
fn consul_point_10_the_rights_are_asked_for_by_the_name_of_the_service() {
    let fake = Fake::start(|request, stream| match request.target.split('?').next().unwrap() {
        "/v1/internal/acl/authorize" => send(stream, "404 Not Found", "", b""),
        _ => list(stream, 9, "[]"),
    });
    provider_of(&descriptor(&fake), None).check_connectivity(&CancelToken::new()).unwrap();
    let requests = fake.requests();
    let question = requests.iter().find(|request| request.method == "POST").unwrap();
    let asked: serde_json::Value = serde_json::from_str(&question.body).unwrap();
    let expected = serde_json::json!([
        {"Resource": "service", "Access": "read", "Segment": "orders"},
        {"Resource": "service", "Access": "write", "Segment": "orders"},
        {"Resource": "node", "Access": "read", "Segment": ""},
    ]);
    assert_eq!(asked, expected);
}

#[test]
fn consul_point_10_an_agent_without_acls_or_without_the_question_refuses_nothing_and_an_unknown_token_is_denied() {
    for status in ["401 Unauthorized", "404 Not Found", "405 Method Not Allowed", "500 Internal Server Error"] {
        check(Some(node()), status, "ACL support disabled", "[]").result.unwrap();
    }
    for odd in ["", "{}", "[]", r#"[{"Allow":true}]"#, "<html>"] {
        check(Some(node()), "200 OK", odd, "[]").result.unwrap();
    }
    let error = check(Some(node()), "403 Forbidden", "ACL not found", "[]").result.unwrap_err();
    assert_eq!(error.code(), ErrorCode::AccessDenied);
}

#[test]
fn consul_point_18_heartbeats_go_on_while_the_watch_blocks() {
    use cluster_provisioning::ClusterProvisioningService;
    let passes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&passes);
    let fake = Fake::start(move |request, stream| {
        if is_pass(request) {
            seen.lock().unwrap().push(Instant::now());
        }
        match request.target.starts_with("/v1/health/") {
            true if request.is_probe() => list(stream, 9, "[]"),
            true if request.index().is_some() => hold(stream),
            true => list(stream, 9, &format!("[{}]", fake::entry("n1"))),
            false => ok(stream),
        }
    });
    let service = ClusterProvisioningService::builder()
        .provider(descriptor(&fake).parameter("ttl", "1s"))
        .member(node())
        .start()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while passes.lock().unwrap().len() < 6 {
        assert!(Instant::now() < deadline, "{} passes", passes.lock().unwrap().len());
        std::thread::yield_now();
    }
    service.shutdown();
    assert!(fake.requests().iter().any(is_deregister), "deregistered on stop");
    let passes = passes.lock().unwrap();
    let longest = passes.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < Duration::from_secs(1), "a TTL without a heartbeat: {longest:?}");
}

#[test]
fn consul_another_process_under_the_local_nodes_id_is_a_warning_with_a_code() {
    use cluster_provisioning::{ClusterProvisioningService, ProvisioningEvent};
    let other = fake::entry("n1").replace(r#""Meta":{"#, r#""Meta":{"incarnation":"8","#);
    // The first heartbeat says that the registration is known to have succeeded; only the answer after it counts.
    let passed = Arc::new(AtomicBool::new(false));
    let fake = Fake::start(move |request, stream| {
        if is_pass(request) {
            passed.store(true, Ordering::SeqCst);
        }
        match (request.target.starts_with("/v1/health/"), request.index()) {
            (false, _) => ok(stream),
            (true, _) if request.is_probe() => list(stream, 7, "[]"),
            (true, None) => list(stream, 7, &format!("[{other}]")),
            (true, Some("7")) => {
                let deadline = Instant::now() + Duration::from_secs(10);
                while !passed.load(Ordering::SeqCst) && Instant::now() < deadline {
                    std::thread::yield_now();
                }
                list(stream, 8, &format!("[{other}]"))
            }
            (true, Some(_)) => hold(stream),
        }
    });
    let builder = ClusterProvisioningService::builder().provider(descriptor(&fake)).member(node());
    let mut events = builder.subscribe(1000);
    let service = builder.start().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < deadline, "never told");
        match events.recv_timeout(Duration::from_secs(1)).as_deref() {
            Ok(ProvisioningEvent::Warning(warning)) if warning.error.code() == ErrorCode::NodeIdTaken => break,
            _ => {}
        }
    }
    service.shutdown();
}
