//! Members in processes of their own on real Consul agents that demand something: tokens under a default policy of deny,
//! certificates over HTTPS; and on a unix socket.
#![cfg(feature = "consul")]

#[path = "support/cast.rs"]
mod cast;
#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/consul.rs"]
mod consul;
#[path = "support/consul_acl.rs"]
mod consul_acl;
#[path = "support/member.rs"]
mod member;
#[path = "support/members.rs"]
mod members;
#[path = "support/scene.rs"]
mod scene;

use std::time::{Duration, Instant};

use cast::Cast;
use certificates::Certificates;
use cluster_provisioning::{Credential, ProviderDescriptor};
use consul::{Consul, Setup};
use consul_acl::Token;
use member::now;
use members::{MemberProcess, after};
use scene::{IDS, SERVICE, SOON, TTL, a_fourth_joins, lasting, provider, wait_passing};

/// What a member's token needs, as it is documented.
const MEMBER: &str = "service \"orders\" { policy = \"write\" } node_prefix \"\" { policy = \"read\" }";
/// What a client's token needs.
const CLIENT: &str = "service \"orders\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }";

/// The process that the tests start; does nothing by itself.
#[test]
#[ignore = "a member of the other tests, in a process of its own"]
fn member_process() {
    member::run();
}

/// An agent that denies by default, with each token in a file of its own.
struct Denying {
    consul: Consul,
    folder: tempfile::TempDir,
}

impl Denying {
    fn start() -> Option<Self> {
        let consul = Consul::start_with(&consul_acl::setup())?;
        consul_acl::wait_ready(&consul);
        Some(Self { consul, folder: tempfile::tempdir().unwrap() })
    }

    fn token(&self, name: &str, rules: &str) -> Token {
        let token = Token::with_rules(&self.consul, name, rules);
        std::fs::write(self.folder.path().join(name), &token.secret).unwrap();
        token
    }

    /// The provider with the token of that name.
    fn provider(&self, name: &str) -> ProviderDescriptor {
        let file = self.folder.path().join(name).display().to_string();
        provider(&self.consul.url()).credential(Credential::TokenFile(file))
    }

    /// The usual cast, each with a token of its own; the watcher's only reads.
    fn cast(&self) -> (Cast, Vec<Token>) {
        let mut tokens: Vec<_> = IDS.iter().map(|id| self.token(id, MEMBER)).collect();
        tokens.push(self.token("w", CLIENT));
        (Cast::start_each(&IDS, |name| vec![self.provider(name)]), tokens)
    }
}

#[test]
fn consul_point_10_the_documented_rules_are_enough_and_each_that_is_missing_is_named() {
    let Some(denying) = Denying::start() else { return };
    let (cast, _tokens) = denying.cast();
    let cases = [
        ("no-service", "node_prefix \"\" { policy = \"read\" }", "service \"orders\""),
        ("read-only", CLIENT, "service \"orders\" { policy = \"write\" }"),
        ("no-node", "service \"orders\" { policy = \"write\" }", "node_prefix \"\" { policy = \"read\" }"),
        ("other-service", &MEMBER.replace("orders", "others"), "service \"orders\""),
    ];
    for (name, rules, missing) in cases {
        denying.token(name, rules);
        let refused = MemberProcess::member(name, &[denying.provider(name)]).wait_refused(SOON);
        println!("{name}: {}", refused.text);
        assert_eq!(refused.code, "access-denied", "{name}: {}", refused.text);
        assert!(refused.text.contains(missing), "{name}: {}", refused.text);
    }
    // A token that is unknown altogether, and none.
    std::fs::write(denying.folder.path().join("unknown"), "11111111-2222-3333-4444-555555555555").unwrap();
    for provider in [denying.provider("unknown"), provider(&denying.consul.url())] {
        let refused = MemberProcess::member("unknown", &[provider]).wait_refused(SOON);
        println!("unknown: {}", refused.text);
        assert_eq!(refused.code, "access-denied", "{}", refused.text);
        assert!(!refused.text.contains("11111111"), "{}", refused.text);
    }
    // Reading is enough for a client.
    let client = MemberProcess::watcher("client", &[denying.provider("read-only")]);
    client.wait_members(&IDS, SOON);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn consul_point_10_a_token_that_is_revoked_is_an_alarm_and_empties_nothing_until_it_is_back() {
    let Some(denying) = Denying::start() else { return };
    let (mut cast, mut tokens) = denying.cast();
    let at = now();
    tokens[2].revoke(&denying.consul);
    let alarm = cast.get("n3").wait_unhealthy_since(cast.mark_of("n3"), "consul", Duration::from_secs(100));
    println!("n3 was told after {:?}: {}", after(at, alarm.at), alarm.text);
    let alarm = cast.get("n3").wait_line("access-denied", SOON, |line| line.code == "access-denied");
    println!("n3 was told after {:?}: {}", after(at, alarm.at), alarm.text);
    cast.get("n3").wait_health("consul", "unreachable", Duration::from_secs(60));
    assert_eq!(cast.get("n3").members(), IDS);
    println!("meanwhile n1 saw leave {:?}", cast.get("n1").who_left(cast.mark_of("n1")));
    let back = now();
    tokens[2].restore(&denying.consul);
    let line = cast.get("n3").wait_health("consul", "healthy", Duration::from_secs(60));
    println!("n3 was healthy {:?} after its token was back", after(back, line.at));
    wait_passing(&denying.consul, &IDS, SOON);
    denying.token("n4", MEMBER);
    a_fourth_joins(&mut cast, &[denying.provider("n4")]);
    cast.wait_healthy(SOON);
    assert_eq!(cast.get("n3").who_left(cast.mark_of("n3")), Vec::<String>::new());
    for name in ["n1", "n2", "w"] {
        let left = cast.get(name).who_left(cast.mark_of(name));
        assert!(left.is_empty() || left == ["n3"], "{name}: {left:?}");
    }
    cast.finish();
}

#[test]
fn consul_point_10_a_token_that_may_no_longer_write_is_an_alarm_and_empties_nothing() {
    rights_taken_and_given_back(CLIENT);
}

#[test]
fn consul_point_10_a_token_that_may_do_nothing_any_more_is_an_alarm_and_empties_nothing() {
    rights_taken_and_given_back("key \"x\" { policy = \"read\" }");
}

fn rights_taken_and_given_back(rules: &str) {
    let Some(denying) = Denying::start() else { return };
    let (mut cast, tokens) = denying.cast();
    let at = now();
    tokens[2].set_rules(&denying.consul, rules);
    let alarm = cast.get("n3").wait_line("an alarm", SOON, |line| line.code == "access-denied");
    println!("n3 was told after {:?}: {}", after(at, alarm.at), alarm.text);
    // The check is over and the watch has been woken by the others.
    a_fourth_joins_without(&mut cast, &denying);
    lasting(2 * TTL);
    assert!(cast.get("n3").members().starts_with(&IDS.map(String::from)), "{:?}", cast.get("n3").members());
    println!("meanwhile n1 saw leave {:?}", cast.get("n1").who_left(cast.mark_of("n1")));
    let back = now();
    tokens[2].set_rules(&denying.consul, MEMBER);
    wait_passing(&denying.consul, &["n1", "n2", "n3", "n4"], Duration::from_secs(60));
    cast.wait_members(&["n1", "n2", "n3", "n4"], Duration::from_secs(60));
    cast.wait_healthy(Duration::from_secs(60));
    println!("all was well {:?} after the rights were back", after(back, now()));
    assert_eq!(cast.get("n3").who_left(cast.mark_of("n3")), Vec::<String>::new());
    cast.finish();
}

/// Another member joins, which the one without rights need not see.
fn a_fourth_joins_without(cast: &mut Cast, denying: &Denying) {
    denying.token("n4", MEMBER);
    cast.add(MemberProcess::member("n4", &[denying.provider("n4")]));
    for name in ["n1", "n2", "w"] {
        cast.get(name)
            .wait_line_since(cast.mark_of(name), "n4 joined", SOON, |line| line.joined.contains(&"n4".to_owned()));
    }
}

#[test]
fn consul_point_15_a_token_that_is_replaced_in_its_file_is_used_and_the_old_one_can_be_revoked() {
    let Some(denying) = Denying::start() else { return };
    let (mut cast, tokens) = denying.cast();
    // Each registration leaves other notes, which are in the catalog once the agent has written them.
    let written = |id: &str| {
        let checks = denying.consul.get(&format!("/v1/health/checks/{SERVICE}"));
        let check = checks.as_array().unwrap().iter().find(|check| check["ServiceID"] == id).cloned();
        check.map(|check| check["Notes"].to_string())
    };
    for (id, token) in IDS.iter().zip(&tokens) {
        let before = written(id);
        // Written beside the old one and renamed, as an operator would.
        let next = Token::with_rules(&denying.consul, &format!("{id}-next"), MEMBER);
        let file = denying.folder.path().join(format!("{id}.next"));
        std::fs::write(&file, &next.secret).unwrap();
        std::fs::rename(&file, denying.folder.path().join(id)).unwrap();
        // Registered anew, so that the agent writes with the new one.
        let deadline = Instant::now() + SOON;
        while written(id) == before {
            assert!(Instant::now() < deadline, "{id} is not registered anew: {}", denying.consul.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        token.revoke(&denying.consul);
    }
    denying.token("n4", MEMBER);
    a_fourth_joins(&mut cast, &[denying.provider("n4")]);
    cast.assert_nobody_left();
    // What the agent tells the servers of it, it tells with the token of the registration.
    let mut drained = cast.remove("n1");
    assert_eq!(drained.drain(SOON).text, "");
    cast.wait_members(&["n2", "n3", "n4"], SOON);
    cast.assert_left(&["n1"]);
    cast.finish();
}

/// Over HTTPS, with the private authority and the client's certificate.
fn https(consul: &Consul, certificates: &Certificates) -> ProviderDescriptor {
    provider(&format!("https://127.0.0.1:{}", consul.other_port()))
        .parameter("ca-file", certificates.pem("ca"))
        .parameter("client-cert", certificates.pem("client"))
        .parameter("client-key", certificates.key("client"))
}

fn start_https(server: &str, certificates: &Certificates) -> Option<Consul> {
    Consul::start_with(&Setup { kept: true, configuration: certificates.agent(server), ..Setup::default() })
}

#[test]
fn consul_point_17_https_with_a_private_authority_and_client_certificates_serves_members() {
    let Some(certificates) = Certificates::make() else { return };
    let Some(mut consul) = start_https("server", &certificates) else { return };
    let secured = https(&consul, &certificates);
    let mut cast = Cast::start(&IDS, std::slice::from_ref(&secured));
    // The agent comes back with a certificate that has expired, and then with a good one.
    certificates.expired_server("expired");
    certificates.replace("server", "expired");
    consul.restart();
    for process in &cast.all {
        let line = process.wait_line_since(cast.mark_of(process.name()), "rejected", SOON, |line| {
            line.what == "health" && line.code == "certificate-rejected"
        });
        println!("{}: {}", process.name(), line.text);
        assert_eq!(process.members(), IDS);
    }
    certificates.server("renewed");
    certificates.replace("server", "renewed");
    consul.restart();
    cast.wait_healthy(Duration::from_secs(60));
    wait_passing(&consul, &IDS, SOON);
    a_fourth_joins(&mut cast, &[secured]);
    cast.assert_nobody_left();
    cast.finish();
}

#[test]
fn consul_point_17_whatever_is_wrong_with_certificates_is_refused_with_a_code_that_says_so() {
    let Some(certificates) = Certificates::make() else { return };
    certificates.expired_server("expired");
    certificates.server_elsewhere("elsewhere");
    certificates.authority("other-ca");
    certificates.server_of("stranger", "other-ca");
    for server in ["expired", "elsewhere", "stranger"] {
        let Some(consul) = start_https(server, &certificates) else { return };
        let refused = MemberProcess::member("n1", &[https(&consul, &certificates)]).wait_refused(SOON);
        println!("{server}: {}", refused.text);
        assert_eq!(refused.code, "certificate-rejected", "{server}: {}", refused.text);
    }
    let Some(consul) = start_https("server", &certificates) else { return };
    let mut without = https(&consul, &certificates);
    without.parameters.remove("client-cert");
    without.parameters.remove("client-key");
    let refused = MemberProcess::member("n1", &[without]).wait_refused(SOON);
    println!("without a client's certificate: {}", refused.text);
    assert_eq!(refused.code, "certificate-rejected", "{}", refused.text);
    certificates.client_of("foreign", "other-ca");
    let foreign = https(&consul, &certificates)
        .parameter("client-cert", certificates.pem("foreign"))
        .parameter("client-key", certificates.key("foreign"));
    let refused = MemberProcess::member("n1", &[foreign]).wait_refused(SOON);
    println!("with a foreign client's certificate: {}", refused.text);
    assert_eq!(refused.code, "certificate-rejected", "{}", refused.text);
    let unreadable = https(&consul, &certificates).parameter("ca-file", "/nowhere/ca.pem");
    let refused = MemberProcess::member("n1", &[unreadable]).wait_refused(SOON);
    println!("without its file: {}", refused.text);
    assert_eq!(refused.code, "certificate-unreadable", "{}", refused.text);
}

#[test]
fn consul_point_17_members_on_a_unix_socket_follow_an_agent_that_comes_back() {
    let configuration = "addresses { http = \"127.0.0.1 unix://{folder}/http.sock\" }".to_owned();
    let Some(mut consul) = Consul::start_with(&Setup { configuration, ..Setup::default() }) else { return };
    let socket = provider(&format!("unix://{}/http.sock", consul.folder().display()));
    let mut cast = Cast::start(&IDS, std::slice::from_ref(&socket));
    consul.kill();
    cast.wait_not_healthy(SOON);
    consul.restart();
    wait_passing(&consul, &IDS, SOON);
    cast.wait_healthy(SOON);
    a_fourth_joins(&mut cast, &[socket]);
    cast.assert_nobody_left();
    cast.finish();
}
