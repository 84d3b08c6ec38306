//! How a connection is opened: the host's name is looked up when one is needed, and only then.
//!
//! A request over a connection that is open already looks nothing up, so that neither a name server that is out of reach
//! nor a system that refuses another thread takes it away. A look-up blocks for as long as the system likes; so that it is
//! bounded in time it runs on a thread of its own, which may be left behind.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Instant;
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};

use super::route::Route;
use super::target::bare;
use crate::thread::Thread;

/// How many addresses of one name are tried.
const MAX_ADDRESSES: usize = 16;

/// What starts a thread, which the system may refuse.
pub(super) type Spawn = fn(Box<dyn FnOnce() + Send>) -> io::Result<()>;

/// Starts the thread of a look-up.
pub(super) fn spawn(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    Thread::Lookup.spawn(work).map(drop)
}

/// The system has refused the thread of a look-up.
#[derive(Debug)]
pub(super) struct ThreadRefused(io::ErrorKind);

impl fmt::Display for ThreadRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no thread to look up the host's name: {}", self.0)
    }
}

impl std::error::Error for ThreadRefused {}

/// Looks nothing up: that is done when a connection is opened, and a unix socket has no host at all.
#[derive(Debug)]
pub(super) struct NoLookup;

impl Resolver for NoLookup {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// Looks the host up and opens a TCP connection to it.
#[derive(Debug)]
pub(super) struct Dial {
    spawn: Spawn,
    /// How long a look-up may take.
    limit: Duration,
    /// What is told of a name that was looked up.
    route: Route,
}

impl Dial {
    pub(super) fn new(spawn: Spawn, limit: Duration, route: Route) -> Self {
        Self { spawn, limit, route }
    }

    fn look_up(&self, uri: &Uri, timeout: NextTimeout) -> Result<Vec<SocketAddr>, ureq::Error> {
        let https = uri.scheme_str() == Some("https");
        let (host, port) = (uri.host().map(bare), uri.port_u16().unwrap_or(if https { 443 } else { 80 }));
        let host = host.ok_or(ureq::Error::HostNotFound)?.to_owned();
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let (sender, found) = bounded(1);
        let work = move || drop(sender.send((host.as_str(), port).to_socket_addrs().map(Vec::from_iter)));
        (self.spawn)(Box::new(work)).map_err(|error| io::Error::other(ThreadRefused(error.kind())))?;
        let limit = timeout.not_zero().map_or(self.limit, |left| self.limit.min(*left));
        let addresses: Vec<SocketAddr> = match found.recv_timeout(limit) {
            Ok(addresses) => addresses?,
            Err(RecvTimeoutError::Timeout) => return Err(ureq::Error::Timeout(ureq::Timeout::Resolve)),
            Err(RecvTimeoutError::Disconnected) => return Err(ureq::Error::HostNotFound),
        };
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

impl<In: Transport> Connector<In> for Dial {
    type Out = <TcpConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if chained.is_some() {
            return TcpConnector::default().connect(details, chained);
        }
        let mut addrs = details.resolver.empty();
        let found = self.look_up(details.uri, left(details)?)?;
        self.route.found(details.uri.host(), &found);
        found.into_iter().take(MAX_ADDRESSES).for_each(|address| addrs.push(address));
        let details = ConnectionDetails {
            uri: details.uri,
            addrs,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        TcpConnector::default().connect(&details, None::<In>)
    }
}

/// The time left for connecting: what came before has used some of it.
pub(super) fn left(details: &ConnectionDetails) -> Result<NextTimeout, ureq::Error> {
    let mut timeout = details.timeout;
    if !timeout.after.is_not_happening()
        && let (Instant::Exact(begun), Instant::Exact(now)) = (details.now, (details.current_time)())
    {
        let left = timeout.after.saturating_sub(now.saturating_duration_since(begun));
        if left == Duration::ZERO {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        timeout.after = left.into();
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::error::ErrorCode;
    use crate::http::{Client, JSON, Length, Method, Request, Target};

    /// How many look-ups there were, and whether the next ones are refused their thread.
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    static REFUSING: AtomicBool = AtomicBool::new(false);

    fn counted(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if REFUSING.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        LOOKUPS.fetch_add(1, Ordering::SeqCst);
        spawn(work)
    }

    #[test]
    fn a_refused_thread_is_told_and_takes_no_connection_that_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                        if std::mem::take(&mut line) == "\r\n" {
                            let answer =
                                format!("HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nContent-Length: 2\r\n\r\n[]");
                            stream.write_all(answer.as_bytes()).unwrap();
                        }
                    }
                });
            }
        });
        let url = format!("http://localhost:{port}");
        let target = Target::parse(&url, 1, 1).unwrap();
        let ask = |client: &Client| {
            let limit = Duration::from_secs(20);
            let request = Request {
                method: Method::GET,
                url: &url,
                body: None,
                credential: None,
                answer_timeout: limit,
                max_body: 1024,
                length: Length::Document,
                doing: "testing",
            };
            client.exchange(&request).map(|answer| answer.status)
        };
        let client = Client::with(&target, Duration::from_secs(20), counted, |_| None);
        assert_eq!((ask(&client).unwrap(), LOOKUPS.load(Ordering::SeqCst)), (200, 1));
        REFUSING.store(true, Ordering::SeqCst);
        assert_eq!((ask(&client).unwrap(), LOOKUPS.load(Ordering::SeqCst)), (200, 1), "nothing is looked up");
        let other = Client::with(&target, Duration::from_secs(20), counted, |_| None);
        let refused = ask(&other).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ThreadRefused, "{refused}");
        assert_eq!(ask(&client).unwrap(), 200);
        REFUSING.store(false, Ordering::SeqCst);
        assert_eq!(ask(&other).unwrap(), 200, "it is tried again");
    }
}
