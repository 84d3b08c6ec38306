//! Where a member is reached: a socket for datagrams and a listener, on one port.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// How much the system keeps of what has not been read yet, if it lets us ask for so much: what a large cluster sends while
/// this process waits for a processor.
const RECEIVED: usize = 1024 * 1024;
/// How often another port is tried where any will do.
const TRIES: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) datagrams: UdpSocket,
    pub(super) listener: TcpListener,
    is_v6: bool,
}

impl Sockets {
    /// Both, on that address and port; with port 0 on any that is free for both.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn bind(at: SocketAddr) -> io::Result<Self> {
        for _ in 1..TRIES {
            match Self::bind_once(at) {
                Err(error) if at.port() == 0 && error.kind() == ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Self::bind_once(at)
    }

    fn bind_once(at: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(at)?;
        let datagrams = UdpSocket::bind(SocketAddr::new(at.ip(), listener.local_addr()?.port()))?;
        listener.set_nonblocking(true)?;
        datagrams.set_nonblocking(true)?;
        // A smaller one does as well.
        _ = rustix::net::sockopt::set_socket_recv_buffer_size(&datagrams, RECEIVED);
        Ok(Self { datagrams, listener, is_v6: at.is_ipv6() })
    }

    /// The port of both.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn port(&self) -> io::Result<u16> {
        self.listener.local_addr().map(|at| at.port())
    }

    /// Sends a datagram; whether the system has taken it. It may be lost all the same.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) -> bool {
        let to = match to.ip() {
            IpAddr::V4(address) if self.is_v6 => SocketAddr::new(address.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        self.datagrams.send_to(bytes, to).is_ok()
    }

    /// The next datagram that has arrived, its length and where it comes from; what is longer than the room for it is cut
    /// off there.
    pub(super) fn receive(&self, into: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            match self.datagrams.recv_from(into) {
                Ok((length, from)) => return Some((length, SocketAddr::new(from.ip().to_canonical(), from.port()))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                // What somebody's host says about an earlier one.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Every address of this host, of the family of the one that is advertised.
pub(crate) fn everywhere(advertised: &str) -> IpAddr {
    match advertised.parse() {
        Ok(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn receive(sockets: &Sockets) -> (Vec<u8>, SocketAddr) {
        let ends = Instant::now() + Duration::from_secs(10);
        let mut into = [0; 8];
        loop {
            if let Some((length, from)) = sockets.receive(&mut into) {
                return (into[..length].to_vec(), from);
            }
            assert!(Instant::now() < ends, "nothing arrives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn m1_4_datagrams_go_from_the_port_at_which_connections_arrive_and_what_is_too_long_is_cut() {
        let bind = || Sockets::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap();
        let (one, other) = (bind(), bind());
        let at = |sockets: &Sockets| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), sockets.port().unwrap());
        assert!(one.send(at(&other), b"hello") && one.send(at(&other), b"longer than it may be"));
        assert_eq!(receive(&other), (b"hello".to_vec(), at(&one)));
        assert_eq!(receive(&other).0, b"longer t");
    }

    #[test]
    fn m1_4_a_socket_for_both_families_speaks_to_either_and_shows_addresses_as_they_are_written() {
        let v4 = Sockets::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap();
        let Ok(both) = Sockets::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)) else {
            return println!("skipped: this host has no IPv6");
        };
        let v4_at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), v4.port().unwrap());
        assert!(both.send(v4_at, b"from v6"));
        let (bytes, from) = receive(&v4);
        assert_eq!((&bytes[..], from.ip()), (&b"from v6"[..], Ipv4Addr::LOCALHOST.into()));
        assert!(v4.send(from, b"back"));
        assert_eq!(receive(&both), (b"back".to_vec(), v4_at));
    }

    #[test]
    fn m1_4_a_port_that_is_taken_is_an_error_and_any_port_is_one_that_is_free_for_both() {
        let taken = Sockets::bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap();
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), taken.port().unwrap());
        assert_eq!(Sockets::bind(at).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(
            (everywhere("10.0.0.1"), everywhere("node.example")),
            (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into())
        );
        assert_eq!(everywhere("fd00::1"), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    }
}
