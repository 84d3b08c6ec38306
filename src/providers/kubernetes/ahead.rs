//! The next page of a list, asked for while the present one is read.
//!
//! A page says where the next one is before its objects come. So the server can gather the next page while this one is
//! decoded. One page is ahead at the most, over a connection of its own; it is taken when that page is asked for, and
//! thrown away when anything else is. Its failure is the page's own, as if it had been asked for only then.
//!
//! Where a page has run out of time the link may be too slow for two at once: from then on they are asked for one by one.

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::api_server::{bearer, credential};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Client, Incoming, Length, Method, Request};
use crate::secret::Secret;
use crate::thread::{Purpose, Thread};

/// How many clients take turns: while a page is read from one, the next is asked for over the other.
const LANES: usize = 2;

/// What a page is asked for with.
pub(super) struct Wanted {
    /// Where the page is, as the page before it says.
    pub(super) next: String,
    pub(super) url: String,
    pub(super) token: Option<Secret>,
    pub(super) answer_timeout: Duration,
    pub(super) max_body: usize,
    pub(super) doing: &'static str,
}

/// A page that has been asked for.
struct Asked {
    next: String,
    token: Option<Secret>,
    answer: Receiver<Result<Incoming, ProvisioningError>>,
}

/// What is asked for ahead.
#[derive(Default)]
pub(super) struct Ahead {
    /// None outside a list.
    lanes: Vec<Client>,
    asked: Option<Asked>,
    /// Whether a page has run out of time.
    one_by_one: bool,
}

impl Ahead {
    /// Asks for the page beside `client`, unless pages are asked for one by one, or the present page has named one already:
    /// a page that names many shall not start as many threads. Where the system refuses another thread nothing is asked.
    pub(super) fn ask(&mut self, client: &Client, wanted: Wanted) {
        if self.one_by_one || self.asked.is_some() {
            return;
        }
        if self.lanes.len() < LANES {
            self.lanes.insert(0, client.beside());
        }
        self.lanes.rotate_left(1);
        let Some(lane) = self.lanes.last().cloned() else { return };
        let Wanted { next, url, token, answer_timeout, max_body, doing } = wanted;
        let (answered, answer) = bounded(1);
        let shown = token.clone();
        let work = move || {
            let bearer = shown.as_ref().map(bearer);
            let request = Request {
                method: Method::GET,
                url: &url,
                body: None,
                credential: bearer.as_ref().map(credential),
                answer_timeout,
                max_body,
                length: Length::Document,
                doing,
            };
            _ = answered.send(lane.open(&request));
        };
        if Thread::Kubernetes(Purpose::Ahead).spawn(work).is_ok() {
            self.asked = Some(Asked { next, token, answer });
        }
    }

    /// The answer with the page there, and the token that was shown for it; waits for its head. Absent if another page was
    /// asked for, or none: that is thrown away.
    ///
    /// # Errors
    /// Those of [`Client::open`].
    pub(super) fn take(
        &mut self,
        client: &Client,
        next: Option<&str>,
    ) -> Option<Result<(Incoming, Option<Secret>), ProvisioningError>> {
        match self.asked.take() {
            Some(asked) if Some(asked.next.as_str()) == next => {
                // The client's own times bound this, and shutting it down ends it. Without an answer the thread has ended
                // by a panic, and the page is asked for again.
                let answer = asked.answer.recv().ok()?;
                Some(answer.map(|answer| (answer, asked.token)))
            }
            _ => {
                self.end(client);
                None
            }
        }
    }

    /// No page is wanted any more, and the connections are closed.
    pub(super) fn end(&mut self, client: &Client) {
        self.asked = None;
        if !self.lanes.is_empty() {
            self.lanes.clear();
            client.alone();
        }
    }

    /// The page failed.
    pub(super) fn failed(&mut self, client: &Client, error: &ProvisioningError) {
        self.one_by_one |= error.code() == ErrorCode::Timeout;
        self.end(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Target;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// A server that answers everything with 200, each connection on a thread of its own; tells what was asked.
    fn server() -> (Client, String, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, requests) = crossbeam_channel::unbounded();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, mut stream) = (seen.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    let reader = BufReader::new(stream.try_clone().unwrap());
                    for line in reader.lines().map_while(Result::ok) {
                        if let Some(path) = line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) {
                            seen.send(path.to_owned()).unwrap();
                        }
                        if line.is_empty() {
                            _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                        }
                    }
                });
            }
        });
        let target = Target::parse(&url, 80, 443).unwrap();
        (Client::new(&target, Duration::from_secs(10)), url, requests)
    }

    fn wanted(url: &str, next: &str) -> Wanted {
        Wanted {
            next: next.to_owned(),
            url: format!("{url}/{next}"),
            token: None,
            answer_timeout: Duration::from_secs(10),
            max_body: 1024,
            doing: "testing",
        }
    }

    #[test]
    fn kubernetes_point_1_only_the_page_that_was_asked_for_ahead_is_taken_and_only_once() {
        let (client, url, requests) = server();
        let mut ahead = Ahead::default();
        ahead.ask(&client, wanted(&url, "p2"));
        let (answer, _) = ahead.take(&client, Some("p2")).unwrap().unwrap();
        assert_eq!(answer.status, 200);
        assert!(ahead.take(&client, Some("p2")).is_none());
        ahead.ask(&client, wanted(&url, "p3"));
        ahead.ask(&client, wanted(&url, "p4"));
        assert!(ahead.take(&client, Some("p4")).is_none(), "one for each page");
        ahead.ask(&client, wanted(&url, "p3"));
        assert!(ahead.take(&client, None).is_none() && ahead.take(&client, Some("p3")).is_none());
        assert_eq!(requests.recv().as_deref(), Ok("/p2"));
    }

    #[test]
    fn kubernetes_point_1_after_a_page_that_ran_out_of_time_pages_are_asked_for_one_by_one() {
        let (client, url, requests) = server();
        let mut ahead = Ahead::default();
        let failure = |code| ProvisioningError::new(code, "testing", "");
        ahead.failed(&client, &failure(ErrorCode::MalformedAnswer));
        ahead.ask(&client, wanted(&url, "p2"));
        assert!(ahead.take(&client, Some("p2")).is_some());
        ahead.failed(&client, &failure(ErrorCode::Timeout));
        ahead.ask(&client, wanted(&url, "p3"));
        assert!(ahead.take(&client, Some("p3")).is_none());
        assert_eq!(requests.try_iter().collect::<Vec<_>>(), ["/p2"]);
    }

    #[test]
    fn p2_3_a_client_that_is_shut_down_takes_the_page_ahead_with_it_and_one_asked_for_later() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new(&Target::parse(&url, 80, 443).unwrap(), Duration::from_secs(10));
        let mut ahead = Ahead::default();
        ahead.ask(&client, wanted(&url, "p2"));
        let (_connection, _) = listener.accept().unwrap();
        client.clone().shutdown();
        // Nobody answers; had it not been broken off, the answer timeout would be the reason.
        let code = |taken: Option<Result<_, ProvisioningError>>| taken.unwrap().err().map(|error| error.code());
        assert_eq!(code(ahead.take(&client, Some("p2"))), Some(ErrorCode::BackendUnavailable));
        ahead.ask(&client, wanted(&url, "p3"));
        assert_eq!(code(ahead.take(&client, Some("p3"))), Some(ErrorCode::BackendUnavailable));
    }
}
