//! When the Kubernetes provider asks again, from where, and how promptly it stops, against a server that is scripted.
#![cfg(feature = "kubernetes")]

#[path = "support/api.rs"]
mod api;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::{
    GONE, PROMPT, SOON, begin, bookmark, chunk, descriptor, drip, end, event, follow, is_list, is_probe, is_watch,
    json, list_of, lists, pauses, pod, scripted, secrets, server, version_of, watch, watched,
};
use cluster_provisioning::{CancelToken, ErrorCode, ProviderEvent};
use fake::{Fake, hold, send};
use pods::{Watching, provider};

/// How much later than it wants to a request may come on a busy machine.
const LATE: Duration = Duration::from_secs(4);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits, looking at what is reported meanwhile, until the server has seen something.
fn until(watching: &Watching, what: &str, mut is_so: impl FnMut() -> bool) {
    watching.expect(what, SOON * 2, |_| is_so().then_some(()));
}

/// Waits for what is no matter of events.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(millis(5));
    }
}

fn refused(code: &str, headers: &str, stream: &mut TcpStream) -> bool {
    let body = r#"{"kind":"Status","status":"Failure","message":"too many requests, please try again later"}"#;
    send(stream, code, headers, body.as_bytes())
}

#[test]
fn kubernetes_point_6_and_p2_5_the_hosts_policy_paces_the_attempts_after_failures() {
    use cluster_provisioning::{ClusterProvisioningService, FailoverPolicy, Secret};
    // The connectivity check and the first list are answered, and no watch is.
    let fake = server(|_| list_of("1", "", &["a"]), |_, stream| refused("503 Unavailable", "", stream));
    let mut policy = FailoverPolicy::default();
    (policy.backoff_initial, policy.backoff_max) = (millis(20), millis(100));
    let builder = ClusterProvisioningService::builder().secret("kubernetes", Secret::new(api::TOKEN));
    let service = builder.provider(descriptor(&fake.url())).failover(policy).start().unwrap();
    service.wait_ready(SOON).unwrap();
    // By the defaults the sixth comes after 24 s at the least.
    eventually("six watches", || fake.requests().iter().filter(|request| is_watch(request)).count() >= 6);
    service.shutdown();
}

#[test]
fn kubernetes_point_11_nothing_is_asked_before_the_time_that_the_server_wants() {
    let good = |stream: &mut TcpStream| json(stream, "200 OK", &list_of("1", "", &["a"]));
    // The first pause without it is 1.6 s at the longest.
    let list = scripted(
        move |count, stream| match count {
            0 => refused("429 Too Many Requests", "Retry-After: 2\r\n", stream),
            _ => good(stream),
        },
        |_, stream| follow(stream, ""),
    );
    let watch_head = scripted(
        move |_, stream| good(stream),
        |count, stream| match count {
            0 => refused("503 Service Unavailable", "retry-after:  2 \r\n", stream),
            _ => follow(stream, ""),
        },
    );
    let line = scripted(
        move |_, stream| good(stream),
        |count, stream| match count {
            0 => {
                let status =
                    r#"{"kind":"Status","reason":"TooManyRequests","details":{"retryAfterSeconds":2},"code":429}"#;
                begin(stream, &event("ERROR", status)) && end(stream)
            }
            _ => follow(stream, &bookmark("1")),
        },
    );
    let fakes = [(list, 0), (watch_head, 1), (line, 1)];
    let watching = fakes.each_ref().map(|(fake, _)| watch(&descriptor(&fake.url())));
    for ((fake, refused), watching) in fakes.iter().zip(&watching) {
        watching.expect_error(ErrorCode::BackendUnavailable, SOON);
        watching.expect_current(SOON);
        watching.expect_members(&["a"], SOON);
        let paused = pauses(fake)[*refused];
        assert!(paused >= millis(1990) && paused < millis(2500) + LATE, "{paused:?}");
    }
}

#[test]
fn kubernetes_point_11_a_retry_after_that_is_no_number_of_seconds_is_passed_over() {
    let odd = ["Fri, 31 Dec 2100 23:59:59 GMT", "soon", "-5", "1e9", "184467440737095516160", "", "0"];
    let fakes = odd.map(|odd| {
        scripted(
            move |count, stream| match count {
                0 => refused("429 Too Many Requests", &format!("Retry-After: {odd}\r\n"), stream),
                _ => json(stream, "200 OK", &list_of("1", "", &["a"])),
            },
            |_, stream| follow(stream, ""),
        )
    });
    let watching = fakes.each_ref().map(|fake| watch(&descriptor(&fake.url())));
    for ((odd, fake), watching) in odd.iter().zip(&fakes).zip(&watching) {
        watching.expect_members(&["a"], SOON);
        let paused = pauses(fake)[0];
        assert!(paused >= millis(790) && paused < millis(1600) + LATE, "{odd:?}: {paused:?}");
    }
}

#[test]
fn kubernetes_point_5_watches_closed_at_once_are_opened_after_growing_pauses_and_then_there_is_a_list() {
    let fake = scripted(
        |count, stream| json(stream, "200 OK", &list_of(["7", "9"][count], "", &["a"])),
        |count, stream| if count < 3 { begin(stream, "") && end(stream) } else { follow(stream, &bookmark("9")) },
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a"], SOON);
    watching.expect_error(ErrorCode::StreamEnded, SOON);
    until(&watching, "list", || watched(&fake).len() == 4);
    assert_eq!((watched(&fake), lists(&fake)), (["7", "7", "7", "9"].map(String::from).to_vec(), 2));
    let pauses = pauses(&fake);
    for (pause, least) in pauses[1..].iter().zip([millis(790), millis(1590), millis(3190)]) {
        assert!(*pause >= least && *pause < least * 2 + LATE, "{pauses:?}");
    }
    watching.expect_members(&["a"], SOON);
    watching.expect_current(SOON);
}

#[test]
fn kubernetes_point_7_a_watch_that_ends_in_order_goes_on_from_the_last_version_without_a_list() {
    let fake = scripted(
        |_, stream| json(stream, "200 OK", &list_of("1", "", &["a"])),
        |count, stream| match count {
            0 => {
                let begun = begin(stream, "");
                std::thread::sleep(millis(1200));
                begun && end(stream)
            }
            1 => begin(stream, &event("ADDED", &pod("b", 5))) && end(stream),
            _ => follow(stream, ""),
        },
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a", "b"], SOON);
    watching.expect("a third watch", SOON, |event| {
        assert!(!matches!(event, ProviderEvent::Degraded { .. }), "an end in order is no error: {event:?}");
        (watched(&fake).len() == 3).then_some(())
    });
    assert_eq!((watched(&fake), lists(&fake)), (["1", "1", "5"].map(String::from).to_vec(), 1));
    let pauses = pauses(&fake);
    assert!(pauses[1] < millis(1200) + LATE, "at once: {pauses:?}");
    assert!(pauses[2] >= millis(990), "no more than once a second: {pauses:?}");
}

#[test]
fn kubernetes_point_9_a_version_that_the_server_has_not_seen_leads_to_a_list_without_one() {
    // As servers answer since 1.19, and as they did before.
    let status = |code: u16, reason: &str| {
        format!(
            r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","code":{code},"reason":"{reason}",
            "message":"{reason}: Too large resource version: 100, current: 7","details":{{"causes":
            [{{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}}],"retryAfterSeconds":1}}}}"#
        )
        .replace('\n', "")
    };
    let (new, old) = (status(504, "Timeout"), status(500, "InternalError"));
    let line = event("ERROR", &new);
    let first = |count: usize, stream: &mut TcpStream| {
        let (version, members): (_, &[&str]) = if count == 0 { ("100", &["a", "gone"]) } else { ("7", &["a"]) };
        json(stream, "200 OK", &list_of(version, "", members))
    };
    let fakes = [
        scripted(first, move |count, stream| match count {
            0 => json(stream, "504 Gateway Timeout", &new),
            _ => follow(stream, ""),
        }),
        scripted(first, move |count, stream| match count {
            0 => json(stream, "500 Internal Server Error", &old),
            _ => follow(stream, ""),
        }),
        scripted(first, move |count, stream| match count {
            0 => begin(stream, &line) && end(stream),
            _ => follow(stream, ""),
        }),
    ];
    let watching = fakes.each_ref().map(|fake| watch(&descriptor(&fake.url())));
    for (fake, watching) in fakes.iter().zip(&watching) {
        watching.expect_members(&["a", "gone"], SOON);
        let error = watching.expect_error(ErrorCode::BackendUnavailable, SOON);
        assert!(error.to_string().contains("Too large resource version"), "{error}");
        watching.expect_members(&["a", "gone"], SOON);
        watching.expect_members(&["a"], SOON);
        watching.expect_current(SOON);
        assert_eq!(watched(fake), ["100", "7"]);
        let requests = fake.requests();
        let mut asked = requests.iter().filter(|request| is_list(request));
        assert!(asked.all(|list| version_of(list).is_none()), "{requests:?}");
    }
}

#[test]
fn kubernetes_point_8_bookmarks_come_at_any_time_and_those_that_say_nothing_leave_the_version() {
    let fake = scripted(
        |_, stream| json(stream, "200 OK", &list_of("10", "", &["a"])),
        |count, stream| match count {
            // The very first line, and several in a row.
            0 => begin(stream, &format!("{}{}", bookmark("20"), bookmark("21"))) && end(stream),
            // A version is opaque: one that looks older is the latest nevertheless.
            1 => begin(stream, &format!("{}{}", event("ADDED", &pod("b", 30)), bookmark("5"))) && end(stream),
            2 => {
                let without = [
                    event("BOOKMARK", r#"{"kind":"Pod"}"#),
                    event("BOOKMARK", r#"{"kind":"Pod","metadata":null}"#),
                    event("BOOKMARK", r#"{"kind":"Pod","metadata":{}}"#),
                    event("BOOKMARK", r#"{"kind":"Pod","metadata":{"resourceVersion":99}}"#),
                    bookmark(""),
                ];
                begin(stream, &format!("{}{}{}", bookmark("40"), without.concat(), bookmark("41"))) && end(stream)
            }
            3 => begin(stream, &format!("{}{}", event("DELETED", &pod("a", 50)), bookmark(""))) && end(stream),
            _ => follow(stream, &bookmark("60")),
        },
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["b"], SOON);
    until(&watching, "fifth watch", || watched(&fake).len() == 5);
    assert_eq!((watched(&fake), lists(&fake)), (["10", "21", "5", "41", "50"].map(String::from).to_vec(), 1));
    watching.expect_members(&["b"], SOON);
    watching.expect_current(SOON);
    assert_eq!(watching.skipped(), 6, "what is no bookmark is counted");
}

/// Stops what `begun` has begun and brought to some point, three times; each has to be prompt, the best as promised.
fn stops_promptly(phase: &str, mut begun: impl FnMut() -> Watching) {
    let stops: Vec<_> = (0..3).map(|_| begun().stop()).collect();
    assert!(stops.iter().all(|stop| *stop < PROMPT), "{phase}: {stops:?}");
    assert!(stops.iter().any(|stop| *stop < millis(100)), "{phase}: {stops:?}");
}

/// A server whose first list shows somebody who is gone in those after it, with watches that never say so.
fn forgetful(watch: impl Fn(&mut TcpStream) -> bool + Send + Sync + 'static) -> Fake {
    let lists = |count: usize, stream: &mut TcpStream| {
        let members: &[&str] = if count == 0 { &["a", "gone"] } else { &["a"] };
        json(stream, "200 OK", &list_of("7", "", members))
    };
    scripted(lists, move |_, stream| watch(stream))
}

#[test]
fn kubernetes_where_watches_say_nothing_lists_tell_who_is_gone() {
    let error = event("ERROR", r#"{"kind":"Status","message":"cannot decode","code":500}"#);
    let fakes = [
        ("a proxy lets the head through", forgetful(|stream| follow(stream, ""))),
        ("the head waits for an event", forgetful(hold)),
        ("an error comes each time", forgetful(move |stream| begin(stream, &error) && end(stream))),
        ("no watch is opened", forgetful(|stream| json(stream, "500 Internal Server Error", "{}"))),
    ];
    let watching = fakes.each_ref().map(|(_, fake)| watch(&descriptor(&fake.url()).parameter("answer-timeout", "1s")));
    for ((what, fake), watching) in fakes.iter().zip(&watching) {
        watching.expect_members(&["a", "gone"], SOON);
        watching.expect("an error", SOON, |event| match event {
            ProviderEvent::Degraded { .. } => Some(()),
            _ => None,
        });
        watching.expect_members(&["a"], SOON);
        assert!(lists(fake) >= 2 && watched(fake).iter().all(|version| version == "7"), "{what}");
    }
}

#[test]
fn kubernetes_a_list_once_in_a_while_tells_what_the_watch_has_lost() {
    let fake = forgetful(|stream| follow(stream, &bookmark("7")));
    let watching = watch(&descriptor(&fake.url()).parameter("list-interval", "1s"));
    watching.expect_members(&["a", "gone"], SOON);
    watching.expect_members(&["a"], SOON);
    let without = forgetful(|stream| follow(stream, &bookmark("7")));
    let watching = watch(&descriptor(&without.url()).parameter("list-interval", "off"));
    watching.expect_members(&["a", "gone"], SOON);
    watching.expect_current(SOON);
    assert_eq!(lists(&without), 1);
}

#[test]
fn kubernetes_point_20_stop_is_prompt_in_each_phase() {
    /// How many requests are held.
    static HELD: AtomicUsize = AtomicUsize::new(0);
    fn held(stream: &mut TcpStream) -> bool {
        HELD.fetch_add(1, Ordering::SeqCst);
        hold(stream);
        HELD.fetch_sub(1, Ordering::SeqCst);
        false
    }
    let good = |stream: &mut TcpStream| json(stream, "200 OK", &list_of("1", "", &["a"]));
    let whole = list_of("1", "", &["a"]);
    let mid_page = scripted(
        move |_, stream| begin(stream, whole.split_at(whole.len() / 2).0) && held(stream),
        |_, stream| held(stream),
    );
    let phases = [
        ("the list's head", scripted(|_, stream| held(stream), |_, stream| held(stream))),
        ("in mid-page", mid_page),
        ("the watch's head", scripted(move |_, stream| good(stream), |_, stream| held(stream))),
        ("in mid-watch", scripted(move |_, stream| good(stream), |_, stream| begin(stream, "") && held(stream))),
        (
            "in mid-line",
            scripted(move |_, stream| good(stream), |_, stream| begin(stream, "{\"type\":\"AD") && held(stream)),
        ),
        (
            "in a pause",
            scripted(|_, stream| refused("503 No", "Retry-After: 60\r\n", stream), |_, stream| held(stream)),
        ),
    ];
    for (phase, fake) in phases {
        let awaited = if phase.contains("watch") || phase.contains("line") { 2 } else { 1 };
        stops_promptly(phase, || {
            let before = fake.requests().iter().filter(|request| !is_probe(request)).count();
            let watching = watch(&descriptor(&fake.url()));
            eventually(phase, || {
                fake.requests().iter().filter(|request| !is_probe(request)).count() == before + awaited
            });
            watching
        });
        eventually(&format!("{phase}: the connection ends"), || HELD.load(Ordering::SeqCst) == 0);
    }
}

/// An address that does not answer: nobody accepts what its queue of connections is full of.
struct Full {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Full {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, millis(300)) {
            queue.push(stream);
        }
        Self { address, _listener: listener, _queue: queue }
    }
}

#[test]
fn kubernetes_point_20_stop_is_prompt_while_connecting_to_what_does_not_answer() {
    let full = Full::start();
    let descriptor = descriptor(&format!("http://{}", full.address)).parameter("connect-timeout", "1500ms");
    stops_promptly("connecting", || {
        let watching = watch(&descriptor);
        std::thread::sleep(millis(50));
        watching
    });
    let watching = watch(&descriptor);
    watching.expect_error(ErrorCode::Timeout, SOON);
    // A check waits for its connect, and no longer.
    let (provider, cancel) = (provider(&descriptor, secrets()), CancelToken::new());
    let (other, begun) = (cancel.clone(), Instant::now());
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(millis(100));
        other.cancel();
    });
    assert_eq!(provider.check_connectivity(&cancel).unwrap_err().code(), ErrorCode::Stopped);
    canceller.join().unwrap();
    assert!(begun.elapsed() < millis(1500) + PROMPT);
}

#[test]
fn kubernetes_point_10_an_answer_that_comes_byte_by_byte_ends_in_time_and_holds_nothing_up() {
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let good = |stream: &mut TcpStream| json(stream, "200 OK", &list_of("1", "", &["a"]));
    let probe = Fake::start(move |request, stream| match request {
        request if is_probe(request) => drip(stream, OK),
        request if is_watch(request) => follow(stream, ""),
        _ => good(stream),
    });
    let body = Fake::start(move |request, stream| match request {
        request if is_probe(request) => {
            let (head, rest) = OK.split_at(OK.len() - 2);
            stream.write_all(head.as_bytes()).is_ok() && drip(stream, rest)
        }
        request if is_watch(request) => follow(stream, ""),
        _ => good(stream),
    });
    let head = scripted(move |_, stream| good(stream), |_, stream| drip(stream, OK));
    let list = scripted(|_, stream| drip(stream, OK), |_, stream| hold(stream));
    let parameters =
        |fake: &Fake| descriptor(&fake.url()).parameter("probe-timeout", "500ms").parameter("answer-timeout", "1s");
    let mut all = [&probe, &body, &head, &list].map(|fake| watch(&parameters(fake)));
    for watching in &all[..3] {
        watching.expect_members(&["a"], SOON);
        watching.expect_error(ErrorCode::Timeout, millis(2500) + LATE);
        watching.expect_members(&["a"], SOON);
    }
    // The server gathers a list first, so that its head may take a minute longer.
    all[3].expect("sign of life", millis(5500), |event| {
        assert!(matches!(event, ProviderEvent::Heartbeat { current: false }), "{event:?}");
        Some(())
    });
    eventually("a list that stands in for the watch", || lists(&head) > 1);
    assert!(watched(&head).iter().all(|version| version == "1"));
    for watching in &mut all {
        assert!(watching.stop() < PROMPT);
    }
}

#[test]
fn kubernetes_point_12_whoever_was_deleted_while_nothing_could_be_asked_is_gone_after_the_list() {
    let fake = scripted(
        |count, stream| match count {
            0 => json(stream, "200 OK", &list_of("1", "", &["a", "b"])),
            1 => json(stream, "500 Internal Server Error", "{}"),
            _ => json(stream, "200 OK", &list_of("2", "", &["b", "c"])),
        },
        |count, stream| if count == 0 { json(stream, "410 Gone", GONE) } else { follow(stream, "") },
    );
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["a", "b"], SOON);
    watching.expect_error(ErrorCode::BackendUnavailable, SOON);
    watching.expect_members(&["a", "b"], SOON);
    watching.expect_members(&["b", "c"], SOON);
}

#[test]
fn kubernetes_point_6_a_refusal_among_the_lines_is_followed_by_a_pause_and_the_same_version() {
    let status = |code: u16| event("ERROR", &format!(r#"{{"kind":"Status","message":"no","code":{code}}}"#));
    let fakes = [403, 429, 500].map(|code| {
        let line = status(code);
        server(
            |_| list_of("1", "", &["a"]),
            move |request, stream| match version_of(request) {
                Some("1") => begin(stream, &format!("{}{line}", event("ADDED", &pod("b", 2)))) && chunk(stream, "x"),
                _ => follow(stream, ""),
            },
        )
    });
    let watching = fakes.each_ref().map(|fake| watch(&descriptor(&fake.url())));
    for ((fake, watching), code) in fakes.iter().zip(&watching).zip([403, 429, 500]) {
        let expected = if code == 403 { ErrorCode::AccessDenied } else { ErrorCode::BackendUnavailable };
        watching.expect_error(expected, SOON);
        until(watching, "second watch", || watched(fake).len() == 2);
        watching.expect_members(&["a", "b"], SOON);
        watching.expect_current(SOON);
        assert_eq!((watched(fake), lists(fake)), (["1", "2"].map(String::from).to_vec(), 1), "{code}");
        assert!(pauses(fake)[1] >= millis(790));
    }
}
