//! What a Kubernetes API server says, as texts, and a server that says it as a test wants.
//!
//! Each test file uses its share of it.
#![allow(dead_code)]

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use cluster_provisioning::{Credential, KubernetesFactory, ProviderDescriptor, Secret, Secrets};
use serde_json::{Map, Value};

use crate::fake::{Fake, Request, hold, send};
use crate::pods::{Watching, provider};

pub const SOON: Duration = Duration::from_secs(10);
/// 100 ms are promised; a busy machine may need more, and what is not broken off takes far longer than this.
pub const PROMPT: Duration = Duration::from_secs(1);
pub const TOKEN: &str = "b1gs3cr3t-0000-1111";
/// Why a version is refused.
pub const GONE: &str = r#"{"kind":"Status","status":"Failure","reason":"Expired","message":"too old","code":410}"#;

pub fn secrets() -> Secrets {
    Secrets::new([("kubernetes".to_owned(), Secret::new(TOKEN))])
}

pub fn descriptor(url: &str) -> ProviderDescriptor {
    let descriptor = KubernetesFactory::descriptor("k8s", "orders").unwrap().endpoint(url);
    descriptor
        .credential(Credential::Secret("kubernetes".into()))
        .parameter("namespace", "shop")
        .parameter("probe-interval", "1s")
}

pub fn watch(descriptor: &ProviderDescriptor) -> Watching {
    Watching::start(&provider(descriptor, secrets()))
}

/// A merge patch, as RFC 7396 has it.
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else { return *target = patch.clone() };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(key)),
            value => merge(&mut target[key], value),
        }
    }
}

/// A pod that is a member.
pub fn pod(name: &str, version: u64) -> String {
    format!(
        r#"{{"kind":"Pod","metadata":{{"name":"{name}","uid":"u-{name}","resourceVersion":"{version}",
            "creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"cluster.proto.actor/port":"7001"}}}},
            "spec":{{"containers":[]}},"status":{{"phase":"Running","podIP":"10.0.0.1",
            "conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    )
    .replace('\n', "")
}

/// A page of such pods.
pub fn list_of(version: &str, next: &str, pods: &[&str]) -> String {
    let items: Vec<_> = pods.iter().map(|name| pod(name, 1)).collect();
    list_with(version, next, &items)
}

/// A page of these objects.
pub fn list_with(version: &str, next: &str, items: &[String]) -> String {
    let meta = format!(r#"{{"resourceVersion":"{version}","continue":"{next}"}}"#);
    format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{meta},"items":[{}]}}"#, items.join(","))
}

/// A line of a watch.
pub fn event(kind: &str, object: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

pub fn bookmark(version: &str) -> String {
    event("BOOKMARK", &format!(r#"{{"kind":"Pod","metadata":{{"resourceVersion":"{version}"}}}}"#))
}

pub fn is_watch(request: &Request) -> bool {
    request.target.contains("watch=1")
}

pub fn is_list(request: &Request) -> bool {
    request.target.contains("labelSelector=") && !is_watch(request)
}

pub fn is_probe(request: &Request) -> bool {
    request.target == "/livez"
}

/// From which version a list or watch asks.
pub fn version_of(request: &Request) -> Option<&str> {
    request.target.split(['?', '&']).find_map(|part| part.strip_prefix("resourceVersion="))
}

/// From which versions the watches were, one after the other.
pub fn watched(fake: &Fake) -> Vec<String> {
    fake.requests().iter().filter(|request| is_watch(request)).filter_map(version_of).map(String::from).collect()
}

/// How many pages of lists were asked for.
pub fn lists(fake: &Fake) -> usize {
    fake.requests().iter().filter(|request| is_list(request)).count()
}

/// How long after each request of a list or watch the next one came.
pub fn pauses(fake: &Fake) -> Vec<Duration> {
    let requests = fake.requests();
    let sent: Vec<_> = requests.iter().filter(|request| is_list(request) || is_watch(request)).collect();
    sent.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at)).collect()
}

pub fn json(stream: &mut TcpStream, status: &str, body: &str) -> bool {
    send(stream, status, "Content-Type: application/json\r\n", body.as_bytes())
}

/// The head of a stream, and its first piece.
pub fn begin(stream: &mut TcpStream, piece: &str) -> bool {
    begin_as(stream, "", piece.as_bytes())
}

/// The same with more headers.
pub fn begin_as(stream: &mut TcpStream, headers: &str, piece: &[u8]) -> bool {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).is_ok() && (piece.is_empty() || chunk_of(stream, piece))
}

pub fn chunk(stream: &mut TcpStream, piece: &str) -> bool {
    chunk_of(stream, piece.as_bytes())
}

pub fn chunk_of(stream: &mut TcpStream, piece: &[u8]) -> bool {
    let begun = stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).is_ok();
    begun && stream.write_all(piece).is_ok() && stream.write_all(b"\r\n").is_ok()
}

pub fn end(stream: &mut TcpStream) -> bool {
    stream.write_all(b"0\r\n\r\n").is_ok()
}

/// A watch that says this and stays open.
pub fn follow(stream: &mut TcpStream, piece: &str) -> bool {
    begin(stream, piece) && hold(stream)
}

/// Sends a text byte by byte, one a second, for as long as somebody reads it.
pub fn drip(stream: &mut TcpStream, text: &str) -> bool {
    text.bytes().all(|byte| {
        std::thread::sleep(Duration::from_secs(1));
        stream.write_all(&[byte]).is_ok()
    })
}

/// A server that lists, and leaves the watch to the test.
pub fn server(
    list: impl Fn(&Request) -> String + Send + Sync + 'static,
    watch: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> Fake {
    Fake::start(move |request, stream| match request {
        request if is_watch(request) => watch(request, stream),
        request if is_list(request) => json(stream, "200 OK", &list(request)),
        _ => send(stream, "200 OK", "", b"ok"),
    })
}

/// A server that hands each list and watch, with how many of its sort there were before, to the test.
pub fn scripted(
    list: impl Fn(usize, &mut TcpStream) -> bool + Send + Sync + 'static,
    watch: impl Fn(usize, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> Fake {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (lists, watches) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Fake::start(move |request, stream| match request {
        request if is_watch(request) => watch(watches.fetch_add(1, Ordering::SeqCst), stream),
        request if is_list(request) => list(lists.fetch_add(1, Ordering::SeqCst), stream),
        _ => send(stream, "200 OK", "", b"ok"),
    })
}
