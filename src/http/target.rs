//! Where a backend is and how one is let in: `http://host:port`, `https://host:port` or `unix://path`, what secures the
//! connection, and a login that every request carries. Which ports and schemes a kind has by default is the provider's
//! to say.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use ureq::http::Uri;

use super::tls::{Tls, TlsSettings};
use crate::secret::Secret;

/// The address of a backend, and what it takes to be let in. Clones share what has been read of certificates.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    address: Address,
    tls: Option<Arc<Tls>>,
    authorization: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// The path is that of a server behind one, without a slash at its end: often empty.
    Host {
        host: String,
        port: u16,
        path: String,
    },
    Socket(String),
}

impl Target {
    /// Reads `http://host[:port]` or `https://host[:port]`; IPv6 in brackets; without a port it is `http_port` or
    /// `https_port`. Or `unix://path`, where there are unix sockets. The reason of a refusal never repeats the text, which
    /// may hold a password.
    #[cfg(any(test, feature = "consul"))]
    pub(crate) fn parse(text: &str, http_port: u16, https_port: u16) -> Result<Self, &'static str> {
        match Self::parse_with_path(text, http_port, https_port)? {
            Self { address: Address::Host { path, .. }, .. } if !path.is_empty() => {
                Err("a path is not allowed; use http://host:port")
            }
            target => Ok(target),
        }
    }

    /// The same for a server that may be behind a path.
    pub(crate) fn parse_with_path(text: &str, http_port: u16, https_port: u16) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix://") {
            check_socket(path)?;
            return Ok(Self { address: Address::Socket(path.to_owned()), tls: None, authorization: None });
        }
        if text.starts_with("unix:") || text.starts_with('/') {
            return Err("a unix socket is written unix:///run/consul.sock");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("it has blanks or control characters");
        }
        if text.contains('#') {
            return Err("a fragment is not allowed; use http://host:port");
        }
        let uri: Uri = text.parse().map_err(|_| "it is no URL such as http://127.0.0.1:8500")?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err("only the schemes http and https are known"),
            None => return Err("the scheme is missing; use http://host:port"),
        };
        let authority = uri.authority().ok_or("the host is missing; use http://host:port")?.as_str();
        if authority.contains('@') {
            return Err("a user or password is not allowed; name a credential instead");
        }
        if uri.query().is_some() {
            return Err("a query is not allowed; use http://host:port");
        }
        let path = uri.path().trim_end_matches('/');
        if path.split('/').any(|part| matches!(part, "." | "..")) {
            return Err("the path has a part that is `.` or `..`");
        }
        let (host, port) = match authority.rfind(']') {
            Some(end) => authority.split_at(end + 1),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        check_host(host)?;
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => {
                if tls {
                    https_port
                } else {
                    http_port
                }
            }
            None => return Err("what follows the host is no port"),
            Some(digits) if digits.chars().all(|c| c.is_ascii_digit()) => {
                digits.parse().map_err(|_| "the port is not between 1 and 65535")?
            }
            Some(_) => return Err("the port is no number"),
        };
        if port == 0 {
            return Err("the port is not between 1 and 65535");
        }
        let host = host.to_ascii_lowercase();
        let tls = tls.then(|| Arc::new(Tls::new(TlsSettings::default(), &host)));
        Ok(Self { address: Address::Host { host, port, path: path.to_owned() }, tls, authorization: None })
    }

    /// The same target with these settings for TLS, if it is reached over TLS.
    #[must_use]
    pub(crate) fn with_tls(mut self, settings: TlsSettings) -> Self {
        if let (Some(tls), Address::Host { host, .. }) = (&mut self.tls, &self.address) {
            *tls = Arc::new(Tls::new(settings, host));
        }
        self
    }

    /// The same target with a login, the whole value of the header `Authorization`, that every request carries.
    #[cfg(feature = "consul")]
    #[must_use]
    pub(crate) fn with_authorization(mut self, authorization: Option<Secret>) -> Self {
        self.authorization = authorization;
        self
    }

    /// What the URL of every request begins with. What is reached over a unix socket has no host of its own.
    pub(crate) fn base(&self) -> String {
        match &self.address {
            Address::Host { host, port, path } => format!("{}://{host}:{port}{path}", self.scheme()),
            Address::Socket(_) => "http://localhost".to_owned(),
        }
    }

    /// Where it is: what tells one from the other, with the path of a unix socket.
    pub(crate) fn place(&self) -> String {
        match &self.address {
            Address::Host { .. } => self.base(),
            Address::Socket(path) => format!("unix://{path}"),
        }
    }

    /// What secures the connection; `None` without TLS.
    pub(super) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Host and port, and what secures the connection to them, for the client's connector.
    pub(super) fn secured(&self) -> Option<(String, Arc<Tls>)> {
        match (&self.address, &self.tls) {
            (Address::Host { host, port, .. }, Some(tls)) => Some((format!("{host}:{port}"), Arc::clone(tls))),
            _ => None,
        }
    }

    /// Whether the connection is secured by TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The value of the header `Authorization`, if any.
    pub(super) fn authorization(&self) -> Option<&Secret> {
        self.authorization.as_ref()
    }

    /// The unix socket, if it is one.
    pub(super) fn socket(&self) -> Option<&Path> {
        match &self.address {
            Address::Host { .. } => None,
            Address::Socket(path) => Some(Path::new(path)),
        }
    }

    /// Whether there is no name to look up.
    pub(super) fn is_literal(&self) -> bool {
        self.socket().is_some() || self.ip().is_some()
    }

    /// The host's name, where there is one to look up.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.address {
            Address::Host { host, .. } if self.ip().is_none() => Some(host),
            _ => None,
        }
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match (&self.address, self.ip()) {
            (Address::Socket(_), _) => true,
            (_, Some(ip)) => ip.to_canonical().is_loopback(),
            (Address::Host { host, .. }, None) => host == "localhost" || host.ends_with(".localhost"),
        }
    }

    fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    fn ip(&self) -> Option<IpAddr> {
        match &self.address {
            Address::Host { host, .. } => bare(host).parse().ok(),
            Address::Socket(_) => None,
        }
    }
}

/// A host without the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(unix)]
fn check_socket(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the path is missing; use unix:///run/consul.sock");
    }
    if path.chars().any(char::is_control) {
        return Err("the path of the unix socket has control characters");
    }
    match std::os::unix::net::SocketAddr::from_pathname(path) {
        Ok(_) => Ok(()),
        Err(_) => Err("the path of the unix socket is too long"),
    }
}

#[cfg(not(unix))]
fn check_socket(_: &str) -> Result<(), &'static str> {
    Err("there are no unix sockets on this platform; use http://host:port")
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("the host is missing; use http://host:port");
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("the bracket of the IPv6 address is not closed")?;
        return inner.parse::<Ipv6Addr>().map(drop).map_err(|_| "what the brackets hold is no IPv6 address");
    }
    if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
        return Err("the host name has characters other than letters, digits, `-`, `_` and `.`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_1_addresses_are_read_with_their_default_ports() {
        let base = |text| Target::parse(text, 8500, 8501).unwrap().base();
        assert_eq!(base("http://127.0.0.1:18500"), "http://127.0.0.1:18500");
        assert_eq!(base("http://Consul.example/"), "http://consul.example:8500");
        assert_eq!(base("https://consul_1"), "https://consul_1:8501");
        assert_eq!(base("http://[::1]"), "http://[::1]:8500");
        assert_eq!(base("http://[fe80::1]:99"), "http://[fe80::1]:99");
        let with_path = |text| Target::parse_with_path(text, 80, 443).unwrap().base();
        assert_eq!(with_path("https://rancher/k8s/clusters/c-1/"), "https://rancher:443/k8s/clusters/c-1");
        assert_eq!(with_path("https://rancher//"), "https://rancher:443");
    }

    #[test]
    fn p1_1_bad_addresses_are_refused_without_repeating_them() {
        for bad in [
            "",
            "127.0.0.1:8500",
            "localhost",
            "ftp://h",
            "http://",
            "http://:8500",
            "http://h:",
            "http://h:0",
            "http://h:65536",
            "http://h:-1",
            "http://h:8x",
            "http://u:pw@h:1",
            "http://h:1?x=1",
            "http://h:1#x",
            "http://h:1/#",
            "http://::1:8500",
            "http://[::1",
            "http://[::1]x",
            "http://[zz]:1",
            "http://h h",
            "http://h\n",
            "http://h\u{e4}",
            "http://h:1/v1",
            "unix:/run/consul.sock",
            "unix://",
            "unix:///run/con\nsul.sock",
            "/run/consul.sock",
        ] {
            let reason = Target::parse(bad, 8500, 8501).expect_err(bad);
            assert!(!reason.contains("pw"), "{reason}");
        }
        for bad in [
            "http://h:1/a/../b",
            "http://h:1/..",
            "http://h:1/./a",
            "http://h:1/a?b",
            "http://h:1/a#b",
            "http://h:1/a b",
        ] {
            Target::parse_with_path(bad, 80, 443).expect_err(bad);
        }
    }

    #[test]
    fn consul_point_16_loopback_is_known_in_all_its_forms() {
        let loopback = |text| Target::parse(text, 1, 1).unwrap().is_loopback();
        for text in
            ["http://127.0.0.1", "http://127.9.9.9", "http://[::1]", "http://LOCALHOST", "http://[::ffff:127.0.0.1]"]
        {
            assert!(loopback(text), "{text}");
        }
        #[cfg(unix)]
        assert!(loopback("unix:///run/consul.sock"));
        assert!(!loopback("http://10.0.0.1") && !loopback("http://localhost.example"));
    }

    #[cfg(unix)]
    #[test]
    fn consul_point_17_a_unix_socket_is_read_as_the_official_client_reads_it() {
        let target = Target::parse("unix:///run/consul sock#1", 1, 1).unwrap();
        assert_eq!((target.socket(), target.is_tls()), (Some(Path::new("/run/consul sock#1")), false));
        assert_eq!((target.base().as_str(), target.is_literal()), ("http://localhost", true));
        assert_eq!(Target::parse("unix://consul.sock", 1, 1).unwrap().socket(), Some(Path::new("consul.sock")));
        let reason = Target::parse(&format!("unix:///{}", "x".repeat(200)), 1, 1).unwrap_err();
        assert!(reason.contains("too long"), "{reason}");
    }
}
