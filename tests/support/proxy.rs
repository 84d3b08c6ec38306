//! A TCP proxy in front of a real server, which can cut every connection in the middle of an answer, let answers trickle,
//! and refuse.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Forwards connections to a server until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    /// Every answer is cut after this many bytes; 0: none is.
    cut_after: AtomicUsize,
    cuts: AtomicUsize,
    /// Connections are closed as soon as they are made.
    refusing: AtomicBool,
    /// Answers come one byte a second.
    trickling: AtomicBool,
    trickled: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy in front of `target`, `host:port`.
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (target, accepting) = (target.to_owned(), Arc::clone(&shared));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                if accepting.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                if let Ok(server) = TcpStream::connect(&target) {
                    forward(client, server, &accepting);
                }
            }
        });
        Self { address, shared }
    }

    /// Where the proxy is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From here on cuts every answer after so many bytes, or no longer (0), and all connections that are open now.
    pub fn cut_after(&self, bytes: usize) {
        self.shared.cut_after.store(bytes, Ordering::SeqCst);
        self.cut_open();
    }

    /// Cuts all connections that are open now.
    pub fn cut_open(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From here on closes every connection at once, and all that are open now; or no longer.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
        self.cut_open();
    }

    /// From here on lets every answer come one byte a second, or no longer.
    pub fn trickle(&self, trickling: bool) {
        self.shared.trickling.store(trickling, Ordering::SeqCst);
    }

    /// How many bytes have come that slowly.
    pub fn trickled(&self) -> usize {
        self.shared.trickled.load(Ordering::SeqCst)
    }

    /// How many answers have been cut.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.cut_after(0);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn forward(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    let copies = (client.try_clone().unwrap(), server.try_clone().unwrap());
    shared.open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
    let (mut from, mut to) = (client, server);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut to, mut from) = copies;
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let (mut buffer, mut sent) = ([0; 4096], 0);
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let limit = shared.cut_after.load(Ordering::SeqCst);
            let cut = limit > 0 && sent + read > limit;
            let part = if cut { limit.saturating_sub(sent).min(read) } else { read };
            if !pass_on(&mut to, &buffer[..part], &shared) {
                break;
            }
            sent += part;
            if cut {
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

/// Writes to the client, byte by byte while answers trickle; whether the client is still there.
fn pass_on(to: &mut TcpStream, bytes: &[u8], shared: &Shared) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let trickling = shared.trickling.load(Ordering::SeqCst);
        let (now, later) = rest.split_at(if trickling { 1 } else { rest.len() });
        if to.write_all(now).is_err() || shared.stopped.load(Ordering::SeqCst) {
            return false;
        }
        if trickling {
            shared.trickled.fetch_add(1, Ordering::SeqCst);
            // The pace itself; it ends early when trickling does, since each byte looks anew.
            thread::sleep(Duration::from_secs(1));
        }
        rest = later;
    }
    true
}
