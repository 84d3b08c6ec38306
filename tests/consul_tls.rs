//! The Consul provider over TLS: who is trusted, who is let in, and what is renewed without a restart.
#![cfg(feature = "consul")]

#[path = "support/child.rs"]
mod child;
#[allow(dead_code, reason = "each test file uses its share")]
#[path = "support/fake.rs"]
mod fake;
#[path = "support/secure.rs"]
mod secure;
#[path = "support/watching.rs"]
mod watching;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use child::{in_child, is_child};
use cluster_provisioning::{CancelToken, ConsulFactory, Credential, ErrorCode, ProviderDescriptor, ProvisioningError};
use fake::{Fake, entry, list, wait_or_hold};
use secure::{Handshake, Secure, certificate, der, pem};
use watching::{TOKEN, Watching, provider};

const SOON: Duration = Duration::from_secs(10);

fn descriptor(url: &str) -> ProviderDescriptor {
    let descriptor = ConsulFactory::descriptor("consul-tls", url, "orders").unwrap();
    descriptor.parameter("probe-interval", "100ms")
}

fn file(descriptor: ProviderDescriptor, parameter: &str, path: impl AsRef<Path>) -> ProviderDescriptor {
    descriptor.parameter(parameter, path.as_ref().to_str().unwrap())
}

/// Shows `n1`, and holds what waits for news.
fn backend() -> Fake {
    let body = format!("[{}]", entry("n1"));
    Fake::start(move |request, stream| match (request.is_probe(), request.index()) {
        (true, _) => list(stream, 7, "[]"),
        (false, None) => list(stream, 7, &body),
        (false, Some(_)) => wait_or_hold(request, stream, 7, &body),
    })
}

fn secure(handshake: &Handshake) -> Secure {
    Secure::start(handshake, backend().address)
}

/// An agent with an ordinary certificate of the private authority.
fn ordinary() -> Secure {
    secure(&Handshake::with("server.pem"))
}

fn check(descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
    provider(descriptor).check_connectivity(&CancelToken::new())
}

fn trusting(server: &Secure, authorities: impl AsRef<Path>) -> ProviderDescriptor {
    file(descriptor(&server.url()), "ca-file", authorities)
}

/// The refusal of a check, which has to be of that code and say that.
fn refusal(descriptor: &ProviderDescriptor, code: ErrorCode, said: &[&str]) -> ProvisioningError {
    let error = check(descriptor).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    for words in said {
        assert!(error.detail().contains(words), "{words}: {error}");
    }
    error
}

/// Everything that is logged, at every level.
static LOGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        LOGS.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn flush(&self) {}
}

fn record_logs() {
    static RECORDER: Recorder = Recorder;
    // Another test of this process may have been first.
    let _ = log::set_logger(&RECORDER);
    log::set_max_level(log::LevelFilter::Trace);
}

fn logged(words: &[&str]) -> usize {
    let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    logs.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[test]
fn consul_point_17_a_private_authority_is_trusted_wherever_it_stands_in_the_bundle() {
    let server = ordinary();
    check(&trusting(&server, certificate("ca.pem"))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.pem");
    std::fs::write(&bundle, format!("# two\n{}\n{}", pem("other-ca.pem"), pem("ca.pem"))).unwrap();
    check(&trusting(&server, bundle)).unwrap();
}

#[test]
fn consul_point_17_a_folder_of_authorities_is_read_with_all_its_files_and_what_else_it_holds_is_passed_over() {
    let server = ordinary();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
    write("README", "not a certificate");
    write("server.key", &pem("server.key"));
    write("0a1b2c3d.0", &pem("other-ca.pem"));
    std::fs::create_dir(folder.path().join("more")).unwrap();
    let in_folder = file(descriptor(&server.url()), "ca-path", folder.path());
    refusal(&in_folder, ErrorCode::CertificateRejected, &["ca-path"]);
    write("9f8e7d6c.0", &pem("ca.pem"));
    check(&in_folder).unwrap();
    let none = tempfile::tempdir().unwrap();
    let without = file(descriptor(&server.url()), "ca-path", none.path());
    let error = refusal(&without, ErrorCode::CertificateUnreadable, &["no file with a certificate"]);
    assert_eq!(error.field(), Some("ca-path"));
    // Both are trusted.
    check(&file(trusting(&server, certificate("ca.pem")), "ca-path", folder.path())).unwrap();
}

#[test]
fn consul_point_17_a_server_of_another_authority_is_refused() {
    let server = secure(&Handshake::with("server-of-other-ca.pem"));
    let own = trusting(&server, certificate("ca.pem"));
    refusal(&own, ErrorCode::CertificateRejected, &["issued by none of the authorities in ca-file"]);
    refusal(&descriptor(&server.url()), ErrorCode::CertificateRejected, &["public authorities", "ca-file"]);
}

#[test]
fn consul_point_17_a_server_that_signed_itself_is_accepted_if_its_certificate_is_trusted_and_its_name_fits() {
    let server = secure(&Handshake::with("server-of-itself.pem"));
    let descriptor = trusting(&server, certificate("server-of-itself.pem"));
    check(&descriptor).unwrap();
    let other = descriptor.parameter("tls-server-name", "server.dc1.consul");
    refusal(&other, ErrorCode::CertificateRejected, &["is not for server.dc1.consul: it holds localhost, 127.0.0.1"]);
    refusal(&trusting(&server, certificate("ca.pem")), ErrorCode::CertificateRejected, &[]);
    // Trusted or not, what has expired is refused.
    let expired = secure(&Handshake::with("server-expired.pem"));
    let itself = trusting(&expired, certificate("server-expired.pem"));
    refusal(&itself, ErrorCode::CertificateRejected, &["expired on 2021-01-01"]);
}

#[test]
fn consul_point_17_an_expired_certificate_is_refused_and_says_since_when() {
    let server = secure(&Handshake::with("server-expired.pem"));
    let said = ["expired on 2021-01-01T00:00:00"];
    refusal(&trusting(&server, certificate("ca.pem")), ErrorCode::CertificateRejected, &said);
}

#[test]
fn consul_point_17_a_wrong_name_is_refused_and_another_can_be_expected() {
    let server = secure(&Handshake::with("server-named.pem"));
    let descriptor = trusting(&server, certificate("ca.pem"));
    let said = ["is not for 127.0.0.1: it holds server.dc1.consul", "tls-server-name"];
    refusal(&descriptor, ErrorCode::CertificateRejected, &said);
    check(&descriptor.clone().parameter("tls-server-name", "server.dc1.consul")).unwrap();
    let other = descriptor.parameter("tls-server-name", "server.dc2.consul");
    refusal(&other, ErrorCode::CertificateRejected, &["is not for server.dc2.consul"]);
}

#[test]
fn consul_point_17_a_client_certificate_lets_in_with_every_form_of_key_and_through_an_intermediate() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = secure(&Handshake::with("server.pem").clients_of("ca.pem").version(version));
        let trusting = trusting(&server, certificate("ca.pem"));
        let pairs = [
            ("client.pem", "client.key"),
            ("client-renewed.pem", "client-renewed.key"),
            ("client-rsa.pem", "client-rsa.key"),
            ("client-chain.pem", "client.key"),
        ];
        for (shown, key) in pairs {
            let with = file(trusting.clone(), "client-cert", certificate(shown));
            check(&file(with, "client-key", certificate(key))).unwrap();
            assert!(server.take_clients().contains(&Some(der(shown))), "{shown}");
        }
    }
}

#[test]
fn consul_point_17_a_missing_or_foreign_client_certificate_is_named_as_the_cause() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = secure(&Handshake::with("server.pem").clients_of("ca.pem").version(version));
        let trusting = trusting(&server, certificate("ca.pem"));
        refusal(&trusting, ErrorCode::CertificateRejected, &["requires a client certificate", "client-cert"]);
        let foreign = file(trusting, "client-cert", certificate("client-of-other-ca.pem"));
        let foreign = file(foreign, "client-key", certificate("client.key"));
        refusal(&foreign, ErrorCode::CertificateRejected, &["rejected our client certificate"]);
    }
}

#[test]
fn consul_point_17_renewed_authorities_are_trusted_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("ca.pem");
    std::fs::write(&authorities, pem("ca.pem")).unwrap();
    let server = ordinary();
    let watching = Watching::start(&provider(&trusting(&server, &authorities)));
    watching.expect_members(&["n1"], SOON);
    server.restart(&Handshake::with("server-of-other-ca.pem"));
    watching.expect_error(ErrorCode::CertificateRejected, SOON);
    std::fs::write(&authorities, pem("other-ca.pem")).unwrap();
    watching.expect_current(SOON);
}

#[test]
fn consul_point_17_a_renewed_client_certificate_is_shown_by_a_new_connection_although_the_old_one_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let (shown, key) = (folder.path().join("client.pem"), folder.path().join("client.key"));
    let renew = |certificate: &str, private: &str| {
        // Not at once, as it goes: in between the two do not fit together.
        std::fs::write(&shown, pem(certificate)).unwrap();
        std::fs::write(&key, pem(private)).unwrap();
    };
    renew("client.pem", "client.key");
    let server = secure(&Handshake::with("server.pem").clients_of("ca.pem"));
    let descriptor = file(trusting(&server, certificate("ca.pem")), "client-cert", &shown);
    let watching = Watching::start(&provider(&file(descriptor, "client-key", &key)));
    watching.expect_members(&["n1"], SOON);
    for _ in 0..5 {
        watching.expect_current(SOON);
    }
    let before = server.take_clients();
    assert_eq!(before.len(), 2, "the watch and the probe keep a connection each");
    assert!(before.iter().all(|client| *client == Some(der("client.pem"))));
    renew("client-renewed.pem", "client-renewed.key");
    let deadline = Instant::now() + SOON;
    let mut after = Vec::new();
    while after.is_empty() {
        assert!(Instant::now() < deadline, "the renewed certificate was not shown");
        watching.expect_current(SOON);
        after = server.take_clients();
    }
    assert!(after.iter().all(|client| *client == Some(der("client-renewed.pem"))));
}

#[test]
fn consul_point_17_files_that_become_unusable_leave_the_last_good_ones_in_use_with_a_warning() {
    record_logs();
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("kept-ca.pem");
    std::fs::write(&authorities, pem("ca.pem")).unwrap();
    let server = ordinary();
    let watching = Watching::start(&provider(&trusting(&server, &authorities)));
    watching.expect_members(&["n1"], SOON);
    let half = folder.path().join("half.pem");
    std::fs::write(&half, "-----BEGIN CERTIFICATE-----\nhalf of it").unwrap();
    std::fs::rename(&half, &authorities).unwrap();
    for _ in 0..3 {
        watching.expect_current(SOON);
    }
    // Also by new connections.
    server.restart(&Handshake::with("server.pem"));
    watching.expect_current(SOON);
    let warnings = logged(&["WARN", "kept-ca.pem", "the last good certificates stay in use"]);
    assert_eq!(warnings, 1, "one warning, not one for each request");
    std::fs::remove_file(&authorities).unwrap();
    for _ in 0..3 {
        watching.expect_current(SOON);
    }
}

#[test]
fn consul_point_17_certificates_go_unchecked_only_on_request_and_with_a_warning() {
    record_logs();
    let server = secure(&Handshake::with("server-expired.pem"));
    check(&descriptor(&server.url()).parameter("tls-verify", "off")).unwrap();
    assert_eq!(logged(&["WARN", "127.0.0.1", "not checked"]), 1);
    refusal(&descriptor(&server.url()), ErrorCode::CertificateRejected, &[]);
}

#[test]
fn consul_point_17_files_that_cannot_be_used_are_named_with_their_field_and_their_content_is_not_shown() {
    record_logs();
    let server = ordinary();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let key = pem("client.key");
    let secret = key.lines().nth(1).unwrap();
    let unreadable = |descriptor: &ProviderDescriptor, field: &str, said: &str| {
        let error = refusal(descriptor, ErrorCode::CertificateUnreadable, &[said]);
        assert_eq!(error.field(), Some(field), "{error}");
        assert!(!error.to_string().contains(secret), "{error}");
    };
    unreadable(&trusting(&server, "/no/such/ca.pem"), "ca-file", "/no/such/ca.pem");
    unreadable(&trusting(&server, folder.path()), "ca-file", "not a regular file");
    unreadable(&trusting(&server, write("a.pem", "garbage")), "ca-file", "no certificate");
    unreadable(&trusting(&server, write("b.pem", &key)), "ca-file", "no certificate");
    let damaged = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    unreadable(&trusting(&server, write("c.pem", damaged)), "ca-file", "not valid PEM");
    let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    unreadable(&trusting(&server, write("d.pem", no_der)), "ca-file", "no usable certificate");
    unreadable(&trusting(&server, write("e.pem", &"x".repeat(1024 * 1024 + 1))), "ca-file", "larger than");
    let with = |shown: &Path, key: &Path| {
        let descriptor = file(trusting(&server, certificate("ca.pem")), "client-cert", shown);
        file(descriptor, "client-key", key)
    };
    let (shown, good) = (certificate("client.pem"), certificate("client.key"));
    check(&with(&shown, &good)).unwrap();
    unreadable(&with(&shown, &certificate("client-renewed.key")), "client-key", "not that of the certificate");
    unreadable(&with(&shown, &shown), "client-key", "no private key");
    unreadable(&with(&good, &good), "client-cert", "no certificate");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    unreadable(&with(&shown, &write("locked.key", locked)), "client-key", "is encrypted");
    assert!(!format!("{:?}", with(&shown, &good)).contains(secret));
    assert_eq!(logged(&[secret]), 0);
}

#[test]
fn consul_point_17_a_server_that_speaks_no_tls_is_said_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    refusal(&descriptor(&url), ErrorCode::MalformedAnswer, &["not TLS", "http://"]);
}

#[test]
fn consul_point_20_a_handshake_that_is_never_answered_ends_within_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let begun = Instant::now();
    let error = check(&descriptor(&url).parameter("connect-timeout", "300ms")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(listener.accept().unwrap());
    let mut watching = Watching::start(&provider(&descriptor(&url).parameter("connect-timeout", "30s")));
    let (mut client, _) = listener.accept().unwrap();
    // It shakes hands.
    client.read_exact(&mut [0]).unwrap();
    assert!(watching.stop() < Duration::from_secs(1));
}

#[test]
fn consul_point_17_the_official_clients_variables_lead_to_the_agent_and_their_secrets_show_nowhere() {
    const NAME: &str =
        "consul_point_17_the_official_clients_variables_lead_to_the_agent_and_their_secrets_show_nowhere";
    if is_child() {
        record_logs();
        let descriptor = ConsulFactory::from_environment("consul-env", "orders").unwrap();
        let descriptor = descriptor.parameter("probe-interval", "100ms");
        let provider = provider(&descriptor);
        let watching = Watching::start(&provider);
        watching.expect_members(&["n1"], SOON);
        let token = std::env::var("CONSUL_HTTP_TOKEN_FILE").unwrap();
        std::fs::write(token, "t0ken-renewed\n").unwrap();
        for _ in 0..3 {
            watching.expect_current(SOON);
        }
        let printed = format!("{descriptor:?} {}", serde_json::to_string(&descriptor).unwrap());
        for secret in ["t0ken", "passw0rd", "dTpwYXNzdzByZA=="] {
            assert!(!printed.contains(secret) && logged(&[secret]) == 0, "{secret}");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let fake = backend();
    let server = Secure::start(&Handshake::with("server-named.pem").clients_of("ca.pem"), fake.address);
    let path = |name: &str| certificate(name).display().to_string();
    in_child(
        NAME,
        &[
            ("CONSUL_HTTP_ADDR", server.address.to_string()),
            ("CONSUL_HTTP_SSL", "true".into()),
            ("CONSUL_HTTP_TOKEN_FILE", token.display().to_string()),
            ("CONSUL_HTTP_TOKEN", "the file goes first".into()),
            ("CONSUL_HTTP_AUTH", "u:passw0rd".into()),
            ("CONSUL_CACERT", path("ca.pem")),
            ("CONSUL_CLIENT_CERT", path("client.pem")),
            ("CONSUL_CLIENT_KEY", path("client.key")),
            ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul".into()),
            ("CONSUL_NAMESPACE", "team".into()),
        ],
    );
    let requests = fake.requests();
    let tokens: Vec<_> = requests.iter().map(|request| request.header("x-consul-token").unwrap()).collect();
    assert_eq!((tokens[0], *tokens.last().unwrap()), ("t0ken", "t0ken-renewed"));
    assert!(requests.iter().all(|request| request.header("authorization") == Some("Basic dTpwYXNzdzByZA==")));
    assert!(requests.iter().all(|request| request.target.contains("ns=team")));
    assert!(server.take_clients().iter().all(|client| *client == Some(der("client.pem"))));
}

#[test]
fn consul_point_17_the_official_clients_token_is_not_sent_where_it_was_not_asked_for() {
    const NAME: &str = "consul_point_17_the_official_clients_token_is_not_sent_where_it_was_not_asked_for";
    if is_child() {
        let address = std::env::var("OTHER_CONSUL").unwrap();
        return check(&descriptor(&address)).unwrap();
    }
    let fake = backend();
    let mut environment = vec![("OTHER_CONSUL", fake.url())];
    environment.extend(["CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH"].map(|name| (name, "u:hunter2".to_owned())));
    in_child(NAME, &environment);
    let requests = fake.requests();
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!((request.header("x-consul-token"), request.header("authorization")), (None, None));
    }
}

#[test]
fn consul_point_17_through_a_proxy_the_agent_alone_sees_our_certificate_and_the_token() {
    const NAME: &str = "consul_point_17_through_a_proxy_the_agent_alone_sees_our_certificate_and_the_token";
    if is_child() {
        // No such host: only the proxy can lead there.
        let descriptor = descriptor("https://consul.invalid:8501").parameter("tls-server-name", "localhost");
        let descriptor = file(descriptor, "ca-file", certificate("ca.pem"));
        let descriptor = file(descriptor, "client-cert", certificate("client.pem"));
        let descriptor = file(descriptor, "client-key", certificate("client.key"));
        return check(&descriptor.credential(Credential::Secret("consul".into()))).unwrap();
    }
    let fake = backend();
    let server = Secure::start(&Handshake::with("server.pem").clients_of("ca.pem"), fake.address);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(String::new()));
    let (heard, agent) = (Arc::clone(&asked), server.address);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            heard.lock().unwrap().push_str(&String::from_utf8(head).unwrap());
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            secure::join(client, TcpStream::connect(agent).unwrap());
        }
    });
    in_child(NAME, &[("HTTPS_PROXY", proxy)]);
    let asked = asked.lock().unwrap();
    assert!(asked.starts_with("CONNECT consul.invalid:8501 ") && !asked.contains(TOKEN), "{asked}");
    assert!(fake.requests().iter().all(|request| request.header("x-consul-token") == Some(TOKEN)));
    assert_eq!(server.take_clients().first(), Some(&Some(der("client.pem"))));
}
