//! Which proxy the environment names for a target, if any. Reading only; `docs/proxies.md` has the rules as a table.
//!
//! They are those of curl and Go. Where these differ it is as in Go, but for `ALL_PROXY`, which only curl knows.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

use super::Target;
use super::target::bare;

/// A proxy on the way to a target.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) proxy: Proxy,
    /// Where it is and which variable names it, without the user and the password.
    pub(super) told: String,
}

/// The proxy for the target. `variable` reads the environment; an empty variable is none.
///
/// # Errors
/// Why the proxy that is named cannot be used.
pub(super) fn way(target: &Target, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Way>, String> {
    let read = |name: &'static str| {
        let value = variable(name).map(|value| value.trim().to_owned());
        value.filter(|value| !value.is_empty()).map(|value| (name, value))
    };
    let named = match target.is_tls() {
        true => read("HTTPS_PROXY").or_else(|| read("https_proxy")),
        // A web server sets it to what a client has sent.
        false if read("REQUEST_METHOD").is_some() => read("http_proxy"),
        false => read("HTTP_PROXY").or_else(|| read("http_proxy")),
    };
    let Some((name, value)) = named.or_else(|| read("ALL_PROXY")).or_else(|| read("all_proxy")) else {
        return Ok(None);
    };
    let exceptions = read("NO_PROXY").or_else(|| read("no_proxy")).map(|(_, list)| list).unwrap_or_default();
    if target.is_loopback() || is_excepted(target, &exceptions) {
        return Ok(None);
    }
    // What the value is stays out of the reason: it may hold a password.
    let proxy = Proxy::new(&value).map_err(|_| format!("{name} names no proxy as http://host:port"))?;
    let (scheme, port) = match proxy.protocol() {
        ProxyProtocol::Http => ("http", 80),
        ProxyProtocol::Https => ("https", 443),
        _ => return Err(format!("{name} names a SOCKS proxy, which is not supported")),
    };
    let port = proxy.uri().port_u16().unwrap_or(port);
    let told = format!("through the proxy {scheme}://{}:{port}, which {name} names", proxy.host());
    Ok(Some(Way { proxy, told }))
}

/// Whether the list of exceptions has the target in it.
fn is_excepted(target: &Target, list: &str) -> bool {
    let Ok(uri) = target.base().parse::<Uri>() else { return true };
    let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else { return true };
    let host = bare(host).trim_end_matches('.').to_ascii_lowercase();
    let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
    entries.map(str::to_ascii_lowercase).any(|entry| excepts(&entry, &host, port))
}

/// Whether the entry means that host at that port.
fn excepts(entry: &str, host: &str, port: u16) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    if entry == "*" {
        return true;
    }
    if let Some((network, length)) = entry.split_once('/') {
        let network = bare(network).parse::<IpAddr>().ok().zip(length.parse::<u32>().ok());
        return network.zip(address(host)).is_some_and(|((network, length), ip)| holds(network, length, ip));
    }
    // An IPv6 address has colons of its own, unless it is in brackets.
    let (meant, only) = match entry.rsplit_once(':') {
        Some((meant, only)) if meant.ends_with(']') || !meant.contains(':') => (bare(meant), Some(only)),
        _ => (bare(entry), None),
    };
    if only.is_some_and(|only| only.parse() != Ok(port)) {
        return false;
    }
    if let Some(ip) = address(meant) {
        return address(host) == Some(ip);
    }
    let meant = meant.trim_end_matches('.');
    let domain = meant.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(meant);
    match domain.strip_prefix('.') {
        Some(parent) => is_below(host, parent),
        None => !domain.is_empty() && (host == domain || is_below(host, domain)),
    }
}

/// Whether the host is one of the domain's, and not the domain itself.
fn is_below(host: &str, domain: &str) -> bool {
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether the address is in the network.
fn holds(network: IpAddr, length: u32, ip: IpAddr) -> bool {
    let same = |network: u128, ip: u128, bits: u32| {
        let kept = bits.checked_sub(length);
        kept.is_some_and(|kept| network.checked_shr(kept).unwrap_or(0) == ip.checked_shr(kept).unwrap_or(0))
    };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => same(network.to_bits().into(), ip.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(ip)) => same(network.to_bits(), ip.to_bits(), 128),
        // An IPv4 address, mapped into the network.
        (IpAddr::V6(network), IpAddr::V4(ip)) => {
            same(network.to_bits(), ip.to_ipv6_mapped().to_bits(), 128) && length >= 96
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the rules, each with what the environment is, the target, and the proxy, or the word for none.
    fn table() -> Vec<[String; 3]> {
        let page = include_str!("../../docs/proxies.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let cells = rows.map(|row| row.split(" | ").map(|cell| cell.trim_matches('`').to_owned()).collect::<Vec<_>>());
        cells.filter_map(|cells| cells.try_into().ok()).collect()
    }

    #[test]
    fn each_row_of_the_page_on_proxies_holds() {
        let table = table();
        assert!(table.len() > 25, "{}", table.len());
        for [environment, target, expected] in table {
            let set: Vec<(&str, &str)> = environment
                .split("; ")
                .map(|pair| pair.split_once('=').map(|(name, value)| (name, value.trim_matches('"'))).unwrap())
                .collect();
            let variable = |name: &str| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
            let target = Target::parse(&target, 80, 443).unwrap();
            let way = way(&target, variable);
            let got = match &way {
                Ok(None) => "none".to_owned(),
                Ok(Some(way)) => format!("{}:{}", way.proxy.host(), way.proxy.port()),
                Err(_) => "an error".to_owned(),
            };
            assert_eq!(got, expected, "{environment} for {}", target.base());
        }
    }

    #[test]
    fn of_a_proxy_neither_user_nor_password_is_told() {
        let target = Target::parse("https://api.example.com", 80, 443).unwrap();
        let of = |value: &str| {
            let value = value.to_owned();
            way(&target, move |name| (name == "HTTPS_PROXY").then(|| value.clone()))
        };
        let used = of("http://someone:hunter2@proxy.example.com:3128").unwrap_or_default().unwrap();
        assert_eq!(used.told, "through the proxy http://proxy.example.com:3128, which HTTPS_PROXY names");
        for unusable in ["socks5://someone:hunter2@proxy", "ftp://someone:hunter2@proxy", "http://someone:hunter2@"] {
            let why = of(unusable).err().unwrap();
            assert!(why.starts_with("HTTPS_PROXY names ") && !why.contains("hunter2"), "{why}");
        }
    }
}
