//! Where the Kubernetes provider's token goes, and where it does not, whatever a server answers.
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
#[path = "support/secure.rs"]
mod secure;

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};

use api::{
    SOON, TOKEN, begin, descriptor, end, event, follow, is_list, is_probe, is_watch, json, list_of, secrets, watch,
};
use child::{in_child, is_child};
use cluster_provisioning::{CancelToken, ClusterNode, ErrorCode, ProviderDescriptor, ProviderEvent, ProvisioningError};
use fake::{Fake, Request, send};
use pods::{join, provider, provider_of};
use secure::{Handshake, Secure, certificate};

/// A part of the protocol whose first request is answered by the test, while all else is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    List,
    Watch,
    Probe,
    Review,
    Patch,
}

const PARTS: [Part; 5] = [Part::List, Part::Watch, Part::Probe, Part::Review, Part::Patch];

fn part_of(request: &Request) -> Part {
    match request {
        request if request.method == "PATCH" => Part::Patch,
        request if request.method == "POST" => Part::Review,
        request if is_watch(request) => Part::Watch,
        request if is_probe(request) => Part::Probe,
        request => {
            assert!(is_list(request), "{request:?}");
            Part::List
        }
    }
}

fn in_order(part: Part, stream: &mut TcpStream) -> bool {
    match part {
        Part::List => json(stream, "200 OK", &list_of("10", "", &["a"])),
        Part::Watch => follow(stream, ""),
        Part::Probe => send(stream, "200 OK", "", b"ok"),
        Part::Review => json(stream, "201 Created", r#"{"status":{"allowed":true}}"#),
        Part::Patch => json(stream, "200 OK", r#"{"kind":"Pod","metadata":{"uid":"u1"}}"#),
    }
}

/// A server that is odd in one part.
fn odd_in(odd: Part, answer: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static) -> Fake {
    Fake::start(move |request, stream| match part_of(request) {
        part if part == odd => answer(stream),
        part => in_order(part, stream),
    })
}

fn with_pod(descriptor: &ProviderDescriptor) -> ProviderDescriptor {
    descriptor.clone().parameter("pod", "orders-0").parameter("probe-interval", "100ms")
}

/// The first error that the part leads to.
fn error_of(part: Part, descriptor: &ProviderDescriptor) -> Option<ProvisioningError> {
    let descriptor = with_pod(descriptor);
    match part {
        Part::List | Part::Watch | Part::Probe => {
            let watching = watch(&descriptor);
            Some(watching.expect("error", SOON, |event| match event {
                ProviderEvent::Degraded { error } => Some(error.clone()),
                _ => None,
            }))
        }
        Part::Review => provider(&descriptor, secrets()).check_connectivity(&CancelToken::new()).err(),
        Part::Patch => {
            let node = ClusterNode::builder("n1", "10.0.0.1", 7001).build().unwrap();
            let provider = provider_of(&descriptor, secrets(), Some(node.clone()));
            join(&*provider, &node).err()
        }
    }
}

#[test]
fn kubernetes_point_17_a_redirect_is_never_followed_with_the_token_or_without() {
    let elsewhere = Fake::start(|request, stream| in_order(part_of(request), stream));
    for part in PARTS {
        for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"]
        {
            let place = format!("Location: {}/api/v1/pods?token={TOKEN}\r\n", elsewhere.url());
            let fake = odd_in(part, move |stream| send(stream, status, &place, b"moved"));
            let error = error_of(part, &descriptor(&fake.url())).unwrap();
            assert_eq!(error.code(), ErrorCode::RedirectRefused, "{part:?} {status}: {error}");
            let told = error.to_string();
            assert!(told.contains(&elsewhere.url()) && !told.contains(TOKEN), "{told}");
            let bearer = format!("Bearer {TOKEN}");
            assert!(fake.requests().iter().all(|request| request.header("authorization") == Some(&bearer)));
        }
    }
    assert_eq!((elsewhere.connections(), elsewhere.requests().len()), (0, 0));
}

/// Everything that is logged, at every level, by whatever crate.
static LOGS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = (record.target().to_owned(), record.args().to_string());
        LOGS.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn flush(&self) {}
}

type Answer = Box<dyn Fn(&mut TcpStream) -> bool + Send + Sync>;

/// Odd answers that say this in whatever place they have.
fn odd_answers(said: &'static str) -> Vec<Answer> {
    let status = |code: &'static str| -> Answer {
        Box::new(move |stream| {
            let number = &code[..3];
            let body = format!(
                r#"{{"kind":"Status","status":"Failure","message":"Bearer {said} is not good","reason":"{said}","code":{number}}}"#
            );
            let headers = format!("WWW-Authenticate: Bearer {said}\r\nAuthorization: Bearer {said}\r\n");
            send(stream, code, &headers, body.as_bytes())
        })
    };
    let whole = |code: &'static str, headers: String, body: String| -> Answer {
        Box::new(move |stream| send(stream, code, &headers, body.as_bytes()))
    };
    let part = |text: String| -> Answer {
        Box::new(move |stream| {
            let _ = stream.write_all(text.as_bytes());
            false
        })
    };
    vec![
        status("401 Unauthorized"),
        status("403 Forbidden"),
        status("404 Not Found"),
        status("422 Unprocessable Entity"),
        status("500 Internal Server Error"),
        whole("503 No", "Retry-After: 2\r\n".into(), format!("<html>Bearer {said}\n</html>")),
        whole("302 Found", "Location: http://h/login\r\n".into(), said.into()),
        whole("200 OK", String::new(), format!("Bearer {said}\nBearer {said}")),
        Box::new(move |stream| {
            let status = format!(r#"{{"kind":"Status","message":"Bearer {said} has expired","code":500}}"#);
            begin(stream, &event("ERROR", &status)) && end(stream)
        }),
        part(format!("HTTP/9.9 {said}\r\n{said}: {said}\r\n\r\n")),
        part(format!("HTTP/1.1 200 OK\r\nX-Echo: {said}\r\nContent-Length: 1000\r\n\r\n{{\"{said}\":")),
    ]
}

/// Goes through each part of the protocol with each odd answer, with TLS, whose library logs too, and without; the
/// errors are looked through.
fn go_through_all(said: &'static str) {
    let mut all = Vec::new();
    for part in PARTS {
        for (number, answer) in odd_answers(said).into_iter().enumerate() {
            let fake = odd_in(part, answer);
            let secure = Secure::start(&Handshake::with("server.pem"), fake.address);
            for descriptor in [
                descriptor(&fake.url()),
                descriptor(&secure.url()).parameter("ca-file", certificate("ca.pem").display().to_string()),
            ] {
                // A probe that is refused proves that a server lives, and a review that nothing is missing.
                let is_error = match part {
                    Part::Probe => matches!(number, 4..=6 | 9 | 10),
                    Part::Review => matches!(number, 6 | 9 | 10),
                    _ => true,
                };
                let thread = std::thread::spawn(move || {
                    if is_error {
                        return error_of(part, &descriptor);
                    }
                    let watching = watch(&with_pod(&descriptor));
                    watching.expect_current(SOON);
                    None
                });
                all.push((part, number, is_error, thread));
            }
        }
    }
    for (part, number, is_error, thread) in all {
        let error = thread.join().unwrap();
        assert_eq!(error.is_some(), is_error, "{part:?} {number}");
        let told = error.map_or_else(String::new, |error| format!("{error} {error:?}"));
        assert!(!told.contains(&TOKEN[..4]), "{part:?} {number}: {told}");
    }
}

/// What was logged since the last call.
fn logged() -> Vec<(String, String)> {
    std::mem::take(&mut LOGS.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn kubernetes_point_17_the_token_is_in_no_log_at_any_level_and_in_no_error_whatever_is_answered() {
    const NAME: &str = "kubernetes_point_17_the_token_is_in_no_log_at_any_level_and_in_no_error_whatever_is_answered";
    // In a process of its own, since a logger is for all tests at once.
    if !is_child() {
        return in_child(NAME, &[]);
    }
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let as_numbers = TOKEN.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    let as_digits = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let secrets = [&TOKEN[..8], &as_numbers, &as_digits];
    let leak = |logs: &[(String, String)]| {
        let mut lines = logs.iter().map(|(_, line)| line.to_lowercase());
        lines.find(|line| secrets.iter().any(|secret| line.contains(secret)))
    };
    go_through_all("something");
    let logs = logged();
    for library in ["ureq", "rustls"] {
        assert!(logs.iter().any(|(target, _)| target.starts_with(library)), "{library} logs nothing: no proof");
    }
    // Bytes are printed as rows of hexadecimal digits with their text at the end: the texts are put together again.
    let text: String = logs.iter().map(|(_, line)| line.rsplit("  ").next().unwrap_or_default()).collect();
    assert!(text.contains("authorization"), "request heads are no longer logged, and this test proves nothing");
    assert!(!text.contains(&TOKEN[..4]));
    assert_eq!(leak(&logs), None);
    // What a server repeats is printed in such rows as it arrives, and nowhere else.
    go_through_all(TOKEN);
    let mut logs = logged();
    logs.retain(|(target, _)| target != "ureq_proto::util");
    assert!(logs.len() > 1000);
    assert_eq!(leak(&logs), None);
}
