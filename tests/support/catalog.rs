//! A Consul server whose members a test scripts, and that answers as servers of its kind do.
//!
//! What is scripted here was seen on real servers. Since 1.10 an agent answers queries with an index from what it was
//! streamed, and then knows no leader; the index of that lags behind the plain one while nobody is registered.
#![allow(dead_code)]

use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fake::{Fake, Request, entry, send};

/// How servers of a kind answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As before 1.10.
    Old,
    /// As since then, with `use_streaming_backend = false`.
    New,
    /// As since then by default.
    Streaming,
}

pub const KINDS: [Kind; 3] = [Kind::Old, Kind::New, Kind::Streaming];

struct State {
    members: Vec<&'static str>,
    /// The index of the service, and what of it has been streamed.
    plain: u64,
    streamed: u64,
    /// How many lists have been sent to watches.
    lists: usize,
}

/// The server, whose members change.
#[derive(Clone)]
pub struct Catalog {
    kind: Kind,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Catalog {
    /// A server that has these members, at that index.
    pub fn new(kind: Kind, index: u64, members: &[&'static str]) -> Self {
        let state = State { members: members.to_vec(), plain: index, streamed: index, lists: 0 };
        Self { kind, state: Arc::new((Mutex::new(state), Condvar::new())) }
    }

    /// Serves it.
    pub fn serve(&self) -> Fake {
        let catalog = self.clone();
        Fake::start(move |request, stream| catalog.answer(request, stream))
    }

    /// The service has these members from now on.
    pub fn set(&self, members: &[&'static str]) {
        let mut state = self.state();
        state.plain += 1;
        state.streamed = state.plain;
        state.members = members.to_vec();
        self.state.1.notify_all();
    }

    /// Instances of another service are deregistered: that raises the index of one that has none.
    pub fn deregister_others(&self) {
        let mut state = self.state();
        assert!(state.members.is_empty());
        state.plain += 5;
        self.state.1.notify_all();
    }

    /// What is streamed of it begins anew, at that index.
    pub fn stream_from(&self, index: u64) {
        self.state().streamed = index;
    }

    /// How many lists have been sent to watches.
    pub fn lists(&self) -> usize {
        self.state().lists
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a query of the service's health.
    pub fn answer(&self, request: &Request, stream: &mut TcpStream) -> bool {
        let asked = request.index().map(|index| index.parse::<u64>().unwrap());
        let streams = self.kind == Kind::Streaming && asked.is_some();
        let until = Instant::now() + request.wait().unwrap_or_default();
        let mut state = self.state();
        let index = |state: &State| if streams { state.streamed } else { state.plain };
        while asked.is_some_and(|asked| index(&state) <= asked) && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(500));
            state = self.state.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let body = match request.is_probe() {
            true => String::from("[]"),
            false => format!("[{}]", state.members.iter().map(|id| entry(id)).collect::<Vec<_>>().join(",")),
        };
        state.lists += usize::from(!request.is_probe());
        let index = index(&state);
        drop(state);
        let backend = match (self.kind, streams) {
            (Kind::Old, _) => "",
            (_, false) => "X-Consul-Query-Backend: blocking-query\r\nX-Consul-Effective-Consistency: leader\r\n",
            (_, true) => "X-Consul-Query-Backend: streaming\r\n",
        };
        let head =
            format!("X-Consul-Index: {index}\r\nX-Consul-Knownleader: {}\r\nX-Consul-Lastcontact: 0\r\n", !streams);
        send(stream, "200 OK", &(head + backend), body.as_bytes())
    }
}
