//! HTTP over a unix socket: how such a socket is connected, read, written and shut down. What is asked over it is the
//! same as over TCP.

use std::fmt;
#[cfg(not(target_os = "linux"))]
use std::io::Write;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};

/// Connects to one unix socket, whatever the URL says.
#[derive(Debug)]
pub(super) struct UnixConnector(PathBuf);

impl UnixConnector {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Connector<()> for UnixConnector {
    type Out = UnixTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<UnixTransport>, ureq::Error> {
        let timeout = details.timeout;
        let stream = connect(&self.0, limit(timeout)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
            kind => ureq::Error::Io(kind.into()),
        })?;
        let socket = Arc::new(Socket(stream));
        (details.register_shutdown)(Arc::downgrade(&socket) as Weak<dyn ShutdownHandle>)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { socket, buffers }))
    }
}

/// The standard library's connect waits for as long as the listener's queue is full, which is for ever if its process
/// is stopped; Linux bounds it by the socket's send timeout.
#[cfg(target_os = "linux")]
fn connect(path: &Path, limit: Option<Duration>) -> io::Result<UnixStream> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, limit)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Elsewhere a full queue refuses the connection at once.
#[cfg(not(target_os = "linux"))]
fn connect(path: &Path, _: Option<Duration>) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

/// What is left of a timeout; `None`: it never comes.
fn limit(timeout: NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|left| *left)
}

/// A connected socket, shared with whoever may shut it down.
struct Socket(UnixStream);

impl ShutdownHandle for Socket {
    fn shutdown(&self) {
        // It fails only if the socket is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection over a unix socket.
pub(super) struct UnixTransport {
    socket: Arc<Socket>,
    buffers: LazyBuffers,
}

impl UnixTransport {
    fn stream(&self) -> &UnixStream {
        &self.socket.0
    }

    /// Nothing may wait to be read: what the server says unasked belongs to no request.
    fn is_quiet(&self) -> io::Result<bool> {
        self.stream().set_nonblocking(true)?;
        let quiet = matches!(self.stream().read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.stream().set_nonblocking(false)?;
        Ok(quiet)
    }
}

/// Sends all of it. A peer that is gone is an error and no `SIGPIPE`, which would end a host that has left that signal as
/// the system has it: the standard library sees to that for TCP only.
#[cfg(target_os = "linux")]
fn send_all(socket: &UnixStream, mut rest: &[u8]) -> io::Result<()> {
    use rustix::io::Errno;
    use rustix::net::{SendFlags, send};
    while !rest.is_empty() {
        match send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Elsewhere the standard library has said so of the socket itself, or nobody can.
#[cfg(not(target_os = "linux"))]
fn send_all(mut socket: &UnixStream, output: &[u8]) -> io::Result<()> {
    socket.write_all(output)
}

/// A socket's own timeout in the client's terms.
fn timed_out(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        self.socket.0.set_write_timeout(limit(timeout))?;
        let Some(output) = self.buffers.output().get(..amount) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        };
        send_all(&self.socket.0, output).map_err(|error| timed_out(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        let begun = Instant::now();
        loop {
            // A signal must not make the wait begin anew.
            let left = limit(timeout).map(|limit| limit.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ureq::Error::Timeout(timeout.reason));
            }
            self.socket.0.set_read_timeout(left)?;
            match (&self.socket.0).read(self.buffers.input_append_buf()) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error, timeout)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        self.is_quiet().unwrap_or(false)
    }
}

impl fmt::Debug for UnixTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnixTransport")
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn consul_point_16_a_peer_that_is_gone_is_an_error_and_no_signal() {
        let signalled = Arc::new(AtomicBool::new(false));
        let id = signal_hook::flag::register(signal_hook::consts::SIGPIPE, Arc::clone(&signalled)).unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        send_all(&socket, b"heard").unwrap();
        drop(peer);
        assert_eq!(send_all(&socket, b"unheard").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(!signalled.load(Ordering::SeqCst));
        signal_hook::low_level::unregister(id);
    }
}
