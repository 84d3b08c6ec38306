//! How the Kubernetes provider asks for the pages of a list: the next one while the present one arrives.
#![cfg(feature = "kubernetes")]

#[path = "support/api.rs"]
mod api;
#[path = "support/fake.rs"]
#[allow(dead_code)]
mod fake;
#[path = "support/pods.rs"]
mod pods;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use api::{PROMPT, SOON, begin, chunk, descriptor, end, follow, is_list, is_watch, json, list_of, lists, watch};
use crossbeam_channel::unbounded;
use fake::{Fake, Request, hold, send};

/// The page that a request asks for, from 1.
fn page(request: &Request) -> usize {
    request.target.split("continue=p").nth(1).map_or(1, |number| number.parse().unwrap())
}

/// The greatest page that has been asked for.
#[derive(Default)]
struct Asked(Mutex<usize>, Condvar);

impl Asked {
    fn note(&self, page: usize) {
        let mut asked = self.0.lock().unwrap();
        *asked = page.max(*asked);
        self.1.notify_all();
    }

    fn wait_for(&self, page: usize) -> bool {
        let asked = self.0.lock().unwrap();
        let (_asked, waited) = self.1.wait_timeout_while(asked, SOON, |asked| *asked < page).unwrap();
        !waited.timed_out()
    }
}

/// A page up to where its objects begin, and the rest.
fn halves(page: &str) -> (&str, &str) {
    page.split_at(page.find("\"items\"").unwrap())
}

#[test]
fn kubernetes_point_1_the_next_page_is_asked_for_while_this_one_still_arrives() {
    const PAGES: usize = 6;
    let asked = Asked::default();
    let fake = Fake::start(move |request, stream| {
        if is_watch(request) {
            return follow(stream, "");
        }
        if !is_list(request) {
            return send(stream, "200 OK", "", b"ok");
        }
        let number = page(request);
        asked.note(number);
        let next = if number < PAGES { format!("p{}", number + 1) } else { String::new() };
        let body = list_of("40", &next, &[&format!("pod-{number}")]);
        let (head, objects) = halves(&body);
        // The objects are held back until the next page is asked for.
        begin(stream, head) && (number == PAGES || asked.wait_for(number + 1)) && chunk(stream, objects) && end(stream)
    });
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["pod-1", "pod-2", "pod-3", "pod-4", "pod-5", "pod-6"], SOON);
    assert_eq!(lists(&fake), PAGES, "each page once");
    assert!(fake.connections() <= 4, "{}: the watch's, the probe's, and two for pages", fake.connections());
}

#[test]
fn kubernetes_point_2_a_page_that_breaks_off_takes_the_one_asked_for_ahead_with_it() {
    let (asked, firsts, (hung_up, given_up)) = (Asked::default(), AtomicUsize::new(0), unbounded());
    let fake = Fake::start(move |request, stream| {
        if is_watch(request) {
            return follow(stream, "");
        }
        if !is_list(request) {
            return send(stream, "200 OK", "", b"ok");
        }
        if page(request) == 2 {
            asked.note(2);
            hold(stream);
            hung_up.send(()).unwrap();
            return false;
        }
        if firsts.fetch_add(1, Ordering::SeqCst) > 0 {
            return json(stream, "200 OK", &list_of("41", "", &["whole"]));
        }
        let body = list_of("40", "p2", &["partial"]);
        begin(stream, halves(&body).0) && !asked.wait_for(2)
    });
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["whole"], SOON);
    assert!(!watching.ever_showed("partial"));
    given_up.recv_timeout(SOON).expect("nobody waits for the page ahead any more");
}

#[test]
fn kubernetes_point_2_a_page_asked_for_ahead_that_is_refused_begins_the_list_anew() {
    let firsts = AtomicUsize::new(0);
    let fake = Fake::start(move |request, stream| match request {
        request if is_watch(request) => follow(stream, ""),
        request if !is_list(request) => send(stream, "200 OK", "", b"ok"),
        request if page(request) == 2 => json(stream, "410 Gone", api::GONE),
        _ if firsts.fetch_add(1, Ordering::SeqCst) > 0 => json(stream, "200 OK", &list_of("41", "", &["whole"])),
        _ => json(stream, "200 OK", &list_of("40", "p2", &["partial"])),
    });
    let watching = watch(&descriptor(&fake.url()));
    watching.expect_members(&["whole"], SOON);
    assert!(!watching.ever_showed("partial"));
}

#[test]
fn p2_3_a_provider_that_waits_for_a_page_asked_for_ahead_is_stopped_at_once() {
    let (asked, (sent, first)) = (Arc::new(Asked::default()), unbounded());
    let noted = Arc::clone(&asked);
    let fake = Fake::start(move |request, stream| {
        if !is_list(request) {
            return send(stream, "200 OK", "", b"ok");
        }
        noted.note(page(request));
        if page(request) > 1 {
            return hold(stream);
        }
        json(stream, "200 OK", &list_of("40", "p2", &["a"])) && sent.send(()).is_ok()
    });
    let mut watching = watch(&descriptor(&fake.url()));
    first.recv_timeout(SOON).expect("the first page");
    assert!(asked.wait_for(2));
    assert!(watching.stop() < PROMPT);
}
