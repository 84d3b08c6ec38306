//! The Consul provider against servers that answer oddly, or not at all.
#![cfg(feature = "consul")]

#[path = "support/fake.rs"]
mod fake;
#[path = "support/watching.rs"]
mod watching;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cluster_provisioning::{
    CancelToken, ConsulFactory, Credential, ErrorCode, ProviderDescriptor, ProviderEvent, ProvisioningError,
};
use fake::{Fake, entry, hold, list, send, wait_or_hold};
use watching::{TOKEN, Watching, provider};

const SOON: Duration = Duration::from_secs(5);
/// 100 ms are promised; a busy machine may need more, and what is not broken off takes far longer than this.
const PROMPT: Duration = Duration::from_secs(1);

fn descriptor(url: &str) -> ProviderDescriptor {
    // More often than by default, so that no test has to wait for a probe.
    ConsulFactory::descriptor("consul-fake", url, "orders").unwrap().parameter("probe-interval", "1s")
}

fn with_token(url: &str) -> ProviderDescriptor {
    descriptor(url).credential(Credential::Secret("consul".into()))
}

fn watch(descriptor: &ProviderDescriptor) -> Watching {
    Watching::start(&provider(descriptor))
}

fn check(descriptor: &ProviderDescriptor) -> Result<(), ProvisioningError> {
    provider(descriptor).check_connectivity(&CancelToken::new())
}

/// What the connectivity check says of a server that always answers so.
fn check_of(answer: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static) -> ErrorCode {
    let fake = Fake::start(move |_, stream| answer(stream));
    check(&descriptor(&fake.url())).unwrap_err().code()
}

/// Answers the unindexed query, and holds the indexed one.
fn peaceful(index: u64, body: String) -> Fake {
    Fake::start(move |request, stream| match (request.is_probe(), request.index()) {
        (true, _) => list(stream, index, "[]"),
        (false, None) => list(stream, index, &body),
        (false, Some(_)) => wait_or_hold(request, stream, index, &body),
    })
}

/// Everything that is logged, at every level.
static LOGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGS.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn is_child() -> bool {
    std::env::var_os("CONSUL_FAKE_CHILD").is_some()
}

/// Runs one test of this file in a process of its own.
fn in_child(name: &str, environment: &[(&str, String)]) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env("CONSUL_FAKE_CHILD", "1");
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    child.envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
fn consul_point_1_and_21_one_connection_per_watch_which_sends_the_returned_index() {
    let fake = peaceful(14, format!("[{},{}]", entry("a"), entry("b")));
    let watching = watch(&descriptor(&fake.url()).parameter("wait", "5m"));
    watching.expect_members(&["a", "b"], SOON);
    watching.expect_current(SOON);
    let watches = fake.watches();
    assert_eq!(watches.len(), 2);
    assert_eq!((watches[0].index(), watches[1].index()), (None, Some("14")));
    let wait = watches[1].target.split("wait=").nth(1).and_then(|rest| rest.split("ms").next()).unwrap();
    assert!((300_000..=375_000).contains(&wait.parse::<u64>().unwrap()), "{wait}");
    assert_eq!(fake.connections(), 2);
}

#[test]
fn consul_point_5_instant_replies_do_not_make_a_hot_loop() {
    let fake = Fake::start(|request, stream| list(stream, 10 + request.number as u64, &format!("[{}]", entry("a"))));
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a"], SOON);
    let end = Instant::now() + Duration::from_secs(2);
    while watching.events.recv_deadline(end).is_ok() {}
    let watches = fake.watches();
    assert!(watches.len() <= 10, "{} requests in 2 s", watches.len());
    assert!(watches[1].at.duration_since(watches[0].at) < Duration::from_millis(90));
}

#[test]
fn consul_point_6_a_wait_and_its_sixteenth_are_no_timeout_and_silence_beyond_the_margin_is() {
    let fake = Fake::start(|request, stream| match (request.is_probe(), request.index()) {
        (true, _) => list(stream, 11, "[]"),
        (false, None) => list(stream, 10, &format!("[{}]", entry("a"))),
        (false, Some("10")) => {
            // The longest that a genuine server holds a wait of 1 s.
            std::thread::sleep(Duration::from_millis(1062));
            list(stream, 11, &format!("[{}]", entry("b")))
        }
        (false, Some(_)) => wait_or_hold(request, stream, 11, &format!("[{}]", entry("b"))),
    });
    let short = descriptor(&fake.url()).parameter("wait", "1s").parameter("answer-timeout", "300ms");
    let watching = watch(&short);
    watching.expect("snapshot of b", SOON, |event| match event {
        ProviderEvent::Snapshot { members, .. } => members.iter().any(|node| node.id().as_str() == "b").then_some(()),
        ProviderEvent::Degraded { error } => panic!("{error}"),
        _ => None,
    });
    let silent = Instant::now();
    watching.expect_error(ErrorCode::Timeout, SOON);
    let waited = silent.elapsed();
    assert!(waited > Duration::from_millis(1200) && waited < SOON, "{waited:?}");
    watching.expect_current(SOON);
}

#[test]
fn consul_point_7_server_errors_keep_the_set_and_recover() {
    let fake = Fake::start(|request, stream| match (request.is_probe(), request.number) {
        (true, _) => list(stream, 10, "[]"),
        (false, 0) => list(stream, 10, &format!("[{}]", entry("a"))),
        (false, 1) => send(stream, "500 Internal Server Error", "", b"No cluster leader"),
        (false, _) if request.index().is_none() => list(stream, 10, &format!("[{}]", entry("a"))),
        (false, _) => wait_or_hold(request, stream, 10, &format!("[{}]", entry("a"))),
    });
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a"], SOON);
    let error = watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    assert!(error.to_string().contains("No cluster leader"), "{error}");
    assert_eq!(error.provider().map(|id| id.as_str()), Some("consul-fake"));
    let failed = Instant::now();
    watching.expect("refresh", SOON, |event| match event {
        ProviderEvent::Heartbeat { current } => current.then_some(()),
        other => panic!("{other:?}"),
    });
    let is_short = |request: &fake::Request| request.wait().is_some_and(|wait| wait < Duration::from_secs(1));
    assert!(fake.watches().iter().any(is_short), "the members were compared first");
    assert!(failed.elapsed() > Duration::from_millis(900) && failed.elapsed() < SOON);
}

#[test]
fn consul_point_7_and_p2_5_the_hosts_policy_paces_the_attempts_after_errors() {
    use cluster_provisioning::{ClusterProvisioningService, FailoverPolicy};
    let answered = AtomicUsize::new(0);
    let fake = Fake::start(move |request, stream| {
        // The connectivity check and the first watch are answered, and nothing after them.
        let first = request.index().is_none() && !request.is_probe() && answered.fetch_add(1, Ordering::SeqCst) < 4;
        first && list(stream, 10, &format!("[{}]", entry("a")))
    });
    let mut policy = FailoverPolicy::default();
    (policy.backoff_initial, policy.backoff_max) = (Duration::from_millis(20), Duration::from_millis(100));
    let builder = ClusterProvisioningService::builder().provider(descriptor(&fake.url())).failover(policy);
    let service = builder.start().unwrap();
    service.wait_ready(SOON).unwrap();
    let begun = Instant::now();
    // By the defaults the sixth comes after 15 s at the least.
    while fake.requests().iter().filter(|request| request.is_probe()).count() < 6 {
        assert!(begun.elapsed() < SOON, "{:?}", fake.requests().len());
        std::thread::sleep(Duration::from_millis(5));
    }
    service.shutdown();
}

#[test]
fn consul_point_8_a_server_that_lost_its_state_and_grew_past_our_index_loses_nobody_who_registers_again() {
    let created =
        |id: &str, index: u64| entry(id).replacen("\"Port\":1", &format!("\"Port\":1,\"CreateIndex\":{index}"), 1);
    let before = format!("[{},{}]", created("a", 5), created("b", 6));
    let without_a = format!("[{}]", created("b", 30));
    let after = format!("[{},{}]", created("a", 31), created("b", 30));
    let (restart, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (state, asked) = (Arc::clone(&restart), Arc::clone(&lost));
    let fake = Fake::start(move |request, stream| match (state.load(Ordering::SeqCst), request.is_probe()) {
        (0, true) => list(stream, 10, "[]"),
        (0, false) if request.index().is_none() => list(stream, 10, &before),
        // The connection breaks, and what comes back has only some of the members, at a higher index.
        (0, false) => state.fetch_add(1, Ordering::SeqCst) > 0,
        (_, true) => list(stream, 30, "[]"),
        (_, false) if request.index() == Some("31") => hold(stream),
        (_, false) if asked.fetch_add(1, Ordering::SeqCst) < 3 => list(stream, 30, &without_a),
        (_, false) => list(stream, 31, &after),
    });
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a", "b"], SOON);
    watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    let mut doubts = 0;
    watching.expect("refresh", SOON, |event| match event {
        ProviderEvent::Snapshot { .. } => panic!("believed: {event:?}"),
        ProviderEvent::Doubtful { reason } => {
            assert!(matches!(reason.code(), ErrorCode::IndexRollback | ErrorCode::DoubtfulAnswer), "{reason}");
            doubts += 1;
            None
        }
        ProviderEvent::Heartbeat { current } => (*current && lost.load(Ordering::SeqCst) > 3).then_some(()),
        _ => None,
    });
    assert!(doubts >= 2, "{doubts}");
}

#[test]
fn consul_point_7_and_10_each_refusal_has_its_code() {
    assert_eq!(check_of(|stream| send(stream, "429 Too Many Requests", "", b"")), ErrorCode::BackendUnavailable);
    assert_eq!(check_of(|stream| send(stream, "503 Unavailable", "", b"")), ErrorCode::BackendUnavailable);
    assert_eq!(check_of(|stream| send(stream, "403 Forbidden", "", b"ACL not found")), ErrorCode::AccessDenied);
    let odd = b"Invalid query parameter: \"ns\"";
    assert_eq!(check_of(|stream| send(stream, "400 Bad Request", "", odd)), ErrorCode::InvalidConfig);
    let filtered = "X-Consul-Index: 9\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n";
    assert_eq!(check_of(move |stream| send(stream, "200 OK", filtered, b"[]")), ErrorCode::AccessDenied);
    assert_eq!(check_of(|_| false), ErrorCode::BackendUnavailable);
    assert_eq!(check_of(|stream| stream.write_all(b"SSH-2.0-x\r\n\r\n").is_ok()), ErrorCode::MalformedAnswer);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(check(&descriptor(&format!("http://{closed}"))).unwrap_err().code(), ErrorCode::BackendUnavailable);
    let unknown = descriptor("http://no-such-host.invalid:8500").parameter("connect-timeout", "500ms");
    let code = check(&unknown).unwrap_err().code();
    assert!(matches!(code, ErrorCode::BackendUnavailable | ErrorCode::Timeout), "{code}");
}

#[test]
fn consul_an_https_url_reaches_no_plain_server() {
    let fake = Fake::start(|_, stream| send(stream, "400 Bad Request", "", b"plain HTTP here"));
    let url = fake.url().replace("http://", "https://");
    let error = check(&with_token(&url).parameter("connect-timeout", "500ms")).unwrap_err();
    assert!(matches!(error.code(), ErrorCode::BackendUnavailable | ErrorCode::Timeout), "{error}");
    assert!(fake.requests().is_empty());
}

#[test]
fn consul_answers_that_are_no_list_are_errors() {
    let of = |body: &'static [u8]| check_of(move |stream| send(stream, "200 OK", "X-Consul-Index: 9\r\n", body));
    assert_eq!(of(b"<html><body>Sign in</body></html>"), ErrorCode::MalformedAnswer);
    assert_eq!(of(b"{\"error\": true}"), ErrorCode::MalformedAnswer);
    assert_eq!(of(b"[{\"Service\":"), ErrorCode::MalformedAnswer);
    assert_eq!(of(b"[\"\xff\xfe\"]"), ErrorCode::MalformedAnswer);
    assert_eq!(of(b""), ErrorCode::MalformedAnswer);
    let gzip = "X-Consul-Index: 9\r\nContent-Encoding: gzip\r\n";
    assert_eq!(check_of(move |stream| send(stream, "200 OK", gzip, b"not gzip")), ErrorCode::MalformedAnswer);
}

#[test]
fn consul_a_body_that_is_cut_is_an_error_and_the_set_stays() {
    let cut = |stream: &mut TcpStream, head: &str, body: &str| {
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nX-Consul-Index: 11\r\n{head}\r\n\r\n{body}").as_bytes());
        false
    };
    for (head, body) in [("Content-Length: 4000", "[]"), ("Transfer-Encoding: chunked", "2\r\n[]\r\n")] {
        let fake = Fake::start(move |request, stream| match (request.is_probe(), request.index()) {
            (true, _) => list(stream, 10, "[]"),
            (false, None) => list(stream, 10, &format!("[{}]", entry("a"))),
            (false, Some(_)) => cut(stream, head, body),
        });
        let watching = watch(&descriptor(&fake.url()));
        watching.expect_members(&["a"], SOON);
        let error = watching.expect_error(ErrorCode::BackendUnavailable, SOON);
        assert!(error.detail().contains("cut off"), "{error}");
    }
}

#[test]
fn consul_point_13_unusable_entries_are_counted_and_the_rest_delivered() {
    let mut zero = entry("z");
    zero = zero.replace("\"Port\":1", "\"Port\":0");
    let body = format!("[{},{},{},7,{}]", entry("a"), zero, entry("a"), entry("b"));
    let fake = peaceful(10, body);
    let watching = watch(&descriptor(&fake.url()));
    let skipped = watching.expect("snapshot", SOON, |event| match event {
        ProviderEvent::Snapshot { members, skipped, .. } => Some((members.len(), *skipped)),
        _ => None,
    });
    assert_eq!(skipped, (2, 3));
}

#[test]
fn consul_point_21_a_body_over_10_mb_is_accepted() {
    let padded = |id: &str| {
        let padding = "x".repeat(1000 * 1024);
        entry(id).replacen("{\"CheckID\"", &format!("{{\"Output\":\"{padding}\",\"CheckID\""), 1)
    };
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let fake = peaceful(10, format!("[{}]", ids.map(padded).join(",")));
    let watching = watch(&descriptor(&fake.url()));
    // Without optimisation, on a busy machine.
    watching.expect_members(&ids, 6 * SOON);
}

#[test]
fn consul_point_21_an_entry_beyond_all_measure_is_counted_and_the_rest_delivered() {
    let padding = "[\\\"".repeat(3 * 1024 * 1024);
    let huge = entry("z").replacen("{\"CheckID\"", &format!("{{\"Output\":\"{padding}\",\"CheckID\""), 1);
    let fake = peaceful(10, format!("[{},{huge},{}]", entry("a"), entry("b")));
    let watching = watch(&descriptor(&fake.url()));
    let found = watching.expect("snapshot", 6 * SOON, |event| match event {
        ProviderEvent::Snapshot { members, skipped, .. } => Some((members.len(), *skipped)),
        _ => None,
    });
    assert_eq!(found, (2, 1));
}

#[test]
fn consul_point_21_an_endless_body_is_cut_at_the_cap() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let fake = Fake::start(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\n\r\n[\"");
        let block = [b'x'; 64 * 1024];
        while count.load(Ordering::SeqCst) < 200 * 1024 * 1024 && stream.write_all(&block).is_ok() {
            count.fetch_add(block.len(), Ordering::SeqCst);
        }
        false
    });
    let error = check(&descriptor(&fake.url()).parameter("max-body", "2MiB")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AnswerTooLarge);
    // What the cap lets through and what socket buffers hold; loopback's have some MB.
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < 24 * 1024 * 1024, "{sent} bytes sent");
    let announced = "X-Consul-Index: 9\r\nContent-Length: 209715200\r\n\r\n";
    let huge = move |stream: &mut TcpStream| write!(stream, "HTTP/1.1 200 OK\r\n{announced}").is_ok() && hold(stream);
    assert_eq!(check_of(huge), ErrorCode::AnswerTooLarge);
}

#[test]
fn consul_point_21_a_gzip_bomb_is_cut_at_the_cap() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    let zeros = vec![b' '; 1024 * 1024];
    for _ in 0..24 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1024 * 1024);
    let fake =
        Fake::start(move |_, stream| send(stream, "200 OK", "X-Consul-Index: 9\r\nContent-Encoding: gzip\r\n", &bomb));
    let error = check(&descriptor(&fake.url()).parameter("max-body", "2MiB")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::AnswerTooLarge);
}

#[test]
fn consul_point_14_a_redirect_is_refused_and_the_token_goes_nowhere() {
    let thief = Fake::start(|_, stream| list(stream, 9, "[]"));
    let to = format!("{}/v1?token=leak", thief.url());
    let fake = Fake::start(move |_, stream| send(stream, "302 Found", &format!("Location: {to}\r\n"), b""));
    let error = check(&with_token(&fake.url())).unwrap_err();
    assert_eq!(error.code(), ErrorCode::RedirectRefused);
    assert!(error.detail().contains(&thief.url()) && !error.detail().contains("leak"), "{error}");
    assert_eq!(thief.connections(), 0);
    assert_eq!(fake.requests()[0].header("x-consul-token"), Some(TOKEN));
}

#[test]
fn consul_point_14_ten_thousand_redirects_are_one_request() {
    let fake = Fake::start(|request, stream| {
        assert!(request.number < 10_000);
        send(stream, "301 Moved", &format!("Location: /v1/{}\r\n", request.number), b"moved")
    });
    assert_eq!(check(&descriptor(&fake.url())).unwrap_err().code(), ErrorCode::RedirectRefused);
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn consul_point_14_a_server_that_repeats_the_token_does_not_bring_it_into_errors() {
    let fake = Fake::start(|request, stream| {
        let token = request.header("x-consul-token").unwrap().to_owned();
        match request.number {
            0 => send(stream, "500 Oops", "", format!("your token {token} is odd").as_bytes()),
            _ => send(stream, "403 Forbidden", "", token.repeat(6).as_bytes()),
        }
    });
    let descriptor = with_token(&fake.url());
    let watching = watch(&descriptor);
    let first = watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    assert!(first.to_string().contains("your token *** is odd"), "{first}");
    let second = watching.expect_error(ErrorCode::AccessDenied, SOON);
    let printed = format!("{first} {first:?} {second} {second:?} {descriptor:?}");
    assert!(!printed.contains(&TOKEN[..4]), "{printed}");
}

#[test]
fn consul_point_14_the_token_is_in_no_log_at_any_level() {
    const NAME: &str = "consul_point_14_the_token_is_in_no_log_at_any_level";
    // In a process of its own, since a logger is for all tests at once.
    if !is_child() {
        return in_child(NAME, &[]);
    }
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let fake = peaceful(10, format!("[{}]", entry("a")));
    let mut watching = watch(&with_token(&fake.url()));
    watching.expect_members(&["a"], SOON);
    watching.expect_current(SOON);
    watching.stop();
    assert!(fake.requests().iter().all(|request| request.header("x-consul-token") == Some(TOKEN)));
    let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Bytes are printed as rows of hexadecimal digits with their text at the end: the texts are put together again.
    let text: String = logs.iter().map(|line| line.rsplit("  ").next().unwrap_or_default()).collect();
    assert!(text.contains("x-consul-token"), "request heads are no longer logged, and this test proves nothing");
    assert!(!text.contains(&TOKEN[..4]) && !logs.concat().contains(&TOKEN[..4]), "{text}");
}

#[test]
fn consul_point_15_a_rotated_token_file_is_used_by_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "first\n").unwrap();
    let fake = peaceful(10, format!("[{}]", entry("a")));
    let descriptor = descriptor(&fake.url())
        .credential(Credential::TokenFile(path.display().to_string()))
        .parameter("probe-interval", "200ms");
    let watching = watch(&descriptor);
    watching.expect_members(&["a"], SOON);
    watching.expect_current(SOON);
    std::fs::write(&path, "second\n").unwrap();
    watching.expect("a request with the new token", SOON, |_| {
        let requests = fake.requests();
        let tokens: Vec<_> = requests.iter().map(|request| request.header("x-consul-token").unwrap()).collect();
        assert_eq!(tokens[0], "first");
        (tokens.last() == Some(&"second")).then_some(())
    });
}

#[test]
fn consul_a_token_that_cannot_be_read_or_sent_is_an_error_of_its_own() {
    let fake = peaceful(10, "[]".into());
    for credential in [Credential::TokenFile("/nonexistent/token".into()), Credential::Secret("unknown".into())] {
        let error = check(&descriptor(&fake.url()).credential(credential)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TokenUnreadable, "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "two\nlines").unwrap();
    let file = Credential::TokenFile(path.display().to_string());
    assert_eq!(check(&descriptor(&fake.url()).credential(file)).unwrap_err().code(), ErrorCode::TokenUnreadable);
    assert!(fake.requests().is_empty());
}

#[test]
fn consul_point_16_a_proxy_in_the_environment_is_not_used_for_loopback() {
    const NAME: &str = "consul_point_16_a_proxy_in_the_environment_is_not_used_for_loopback";
    if is_child() {
        let fake = peaceful(10, "[]".into());
        check(&descriptor(&fake.url())).unwrap();
        check(&descriptor(&fake.url().replace("127.0.0.1", "localhost"))).unwrap();
        return;
    }
    let proxy = Fake::start(|_, stream| send(stream, "200 OK", "", b"[]"));
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    in_child(NAME, &names.map(|name| (name, proxy.url())));
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn consul_point_20_stop_in_the_middle_of_a_poll_is_prompt_and_hangs_up() {
    let (hung_up, hang_ups) = crossbeam_channel::unbounded();
    let fake = Fake::start(move |request, stream| match (request.is_probe(), request.index()) {
        (true, _) => list(stream, 10, "[]"),
        (false, None) => list(stream, 10, &format!("[{}]", entry("a"))),
        (false, Some(_)) => {
            hold(stream);
            let _ = hung_up.send(Instant::now());
            false
        }
    });
    let mut watching = watch(&descriptor(&fake.url()).parameter("wait", "10m"));
    watching.expect_members(&["a"], SOON);
    watching.expect_current(SOON);
    let start = Instant::now();
    let took = watching.stop();
    assert!(took < PROMPT, "{took:?}");
    // No thread is left behind in the blocked read either.
    let hung_up = hang_ups.recv_timeout(SOON).unwrap().duration_since(start);
    assert!(hung_up < PROMPT, "{hung_up:?}");
}

#[test]
fn consul_point_20_stop_is_prompt_where_nothing_ever_answers() {
    let fake = Fake::start(|_, stream| hold(stream));
    let quick = descriptor(&fake.url()).parameter("probe-timeout", "300ms").parameter("probe-interval", "100ms");
    let mut watching = watch(&quick);
    let error = watching.expect_error(ErrorCode::Timeout, SOON);
    assert!(error.doing().contains("probing"), "{error}");
    let took = watching.stop();
    assert!(took < PROMPT, "{took:?}");
}

#[test]
fn consul_point_20_stop_is_prompt_while_connecting_or_looking_up() {
    // An address of a documentation network, which nothing answers, and a name that no server knows.
    for url in ["http://192.0.2.1:8500", "http://no-such-host.invalid:8500"] {
        let mut watching = watch(&descriptor(url).parameter("connect-timeout", "3s"));
        let _ = watching.events.recv_timeout(PROMPT);
        let took = watching.stop();
        assert!(took < PROMPT, "{url}: {took:?}");
    }
}

#[test]
fn consul_point_20_the_connectivity_check_honours_its_cancellation_and_its_limit() {
    let fake = Fake::start(|_, stream| hold(stream));
    let provider = provider(&descriptor(&fake.url()).parameter("answer-timeout", "500ms"));
    let start = Instant::now();
    assert_eq!(provider.check_connectivity(&CancelToken::new()).unwrap_err().code(), ErrorCode::Timeout);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let cancel = CancelToken::new();
    let (fired, started) = (cancel.clone(), Instant::now());
    let taken = std::thread::scope(|scope| {
        let check = scope.spawn(|| provider.check_connectivity(&cancel).map_err(|error| error.code()));
        while fake.connections() < 2 {
            std::thread::yield_now();
        }
        let start = Instant::now();
        fired.cancel();
        assert!(check.join().unwrap().is_err());
        start.elapsed()
    });
    assert!(taken < PROMPT && started.elapsed() < SOON, "{taken:?}");
}

/// Not a test of a rule: prints how long it takes from the server's sending an answer to the event, beside a client
/// that only reads the bytes. One entry has 2.6 kB, as a real agent's has.
#[test]
fn consul_latency_from_the_answer_to_the_event() {
    const ROUNDS: u64 = 9;
    for entries in [1, 100, 1000] {
        let padding = "x".repeat(2300);
        let (go, turn) = crossbeam_channel::unbounded::<u64>();
        let (told, sent) = crossbeam_channel::unbounded();
        let body = move |index: u64| {
            let padded = |n: u64| {
                let id = if n == 0 { format!("n{index}") } else { format!("m{n}") };
                entry(&id).replacen("{\"CheckID\"", &format!("{{\"Output\":\"{padding}\",\"CheckID\""), 1)
            };
            format!("[{}]", (0..entries).map(padded).collect::<Vec<_>>().join(","))
        };
        let fake = Fake::start(move |request, stream| {
            if request.is_probe() {
                return hold(stream);
            }
            let Some(index) = request.index() else { return list(stream, 10, "[]") };
            let next = index.parse::<u64>().unwrap() + 1;
            let body = body(next);
            let Ok(_) = turn.recv() else { return false };
            told.send(Instant::now()).is_ok() && list(stream, next, &body)
        });
        let mut bare = Vec::new();
        let mut stream = TcpStream::connect(fake.address).unwrap();
        for round in 0..ROUNDS {
            write!(stream, "GET /?index={} HTTP/1.1\r\n\r\n", 10 + round).unwrap();
            go.send(round).unwrap();
            read_answer(&mut stream);
            bare.push(sent.recv().unwrap().elapsed());
        }
        let watching = watch(&descriptor(&fake.url()).parameter("probe-timeout", "5s"));
        watching.expect_members(&[], SOON);
        let mut ours = Vec::new();
        for round in 0..ROUNDS {
            // Slower than requests are paced.
            std::thread::sleep(Duration::from_millis(120));
            go.send(round).unwrap();
            let at = sent.recv().unwrap();
            let arrived = loop {
                let (arrived, event) = watching.events.recv_timeout(SOON).unwrap();
                if matches!(event, ProviderEvent::Snapshot { .. }) {
                    break arrived;
                }
            };
            ours.push(arrived.duration_since(at));
        }
        ours.sort();
        bare.sort();
        let middle = ROUNDS as usize / 2;
        println!(
            "{entries} entries, median of {ROUNDS}: answer to event {:?}, bytes alone {:?}",
            ours[middle], bare[middle]
        );
    }
}

fn read_answer(stream: &mut TcpStream) {
    use std::io::Read;
    let mut bytes = Vec::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut block).unwrap();
        bytes.extend_from_slice(&block[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if bytes.len() >= end + 4 + length.parse::<usize>().unwrap() {
            return;
        }
    }
}
