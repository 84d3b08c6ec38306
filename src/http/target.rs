//! Where a backend is: `http://host:port`, and nothing else. Which ports and schemes a kind has by default is the
//! provider's to say.

use std::net::{IpAddr, Ipv6Addr};

use ureq::http::Uri;

/// The address of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    tls: bool,
    host: String,
    port: u16,
}

impl Target {
    /// Reads `http://host[:port]` or `https://host[:port]`; IPv6 in brackets; without a port it is `http_port` or
    /// `https_port`. The reason of a refusal never repeats the text, which may hold a password.
    pub(crate) fn parse(text: &str, http_port: u16, https_port: u16) -> Result<Self, &'static str> {
        if text.starts_with("unix:") || text.starts_with('/') {
            return Err("unix sockets are not supported; use http://host:port");
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
        if !matches!(uri.path(), "" | "/") {
            return Err("a path is not allowed; use http://host:port");
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
        Ok(Self { tls, host: host.to_ascii_lowercase(), port })
    }

    /// The URL without a path.
    pub(crate) fn base(&self) -> String {
        format!("{}://{}:{}", if self.tls { "https" } else { "http" }, self.host, self.port)
    }

    /// Whether the host is an address, which needs no look-up.
    pub(crate) fn is_literal(&self) -> bool {
        self.ip().is_some()
    }

    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.ip() {
            Some(ip) => ip.to_canonical().is_loopback(),
            None => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
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
            "http://h:1/v1",
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
            "unix:///run/consul.sock",
            "/run/consul.sock",
        ] {
            let reason = Target::parse(bad, 8500, 8501).expect_err(bad);
            assert!(!reason.contains("pw"), "{reason}");
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
        assert!(!loopback("http://10.0.0.1") && !loopback("http://localhost.example"));
    }
}
