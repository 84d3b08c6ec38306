//! What makes a text the address of a node: a host name or an IP address, and nothing around it.
//!
//! Looked at for every node of every answer, so it is one pass over the bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest host name, in bytes, with the dot of the root.
const MAX_HOST: usize = 254;
/// The longest part of a host name between dots, in bytes.
const MAX_LABEL: usize = 63;
/// How much of a refused text is shown, in characters.
const SHOWN: usize = 80;

/// Whether the text is an IP address (IPv6 without brackets, with a zone or without) or a host name: letters, digits, `-`,
/// `_` and `.`.
pub(super) fn is_address(text: &str) -> bool {
    let (mut label, mut dots, mut numeric) = (0, 0, true);
    for byte in text.bytes() {
        match byte {
            b'.' if label > 0 => (label, dots) = (0, dots + 1),
            b'0'..=b'9' => label += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => (label, numeric) = (label + 1, false),
            b'-' if label > 0 => (label, numeric) = (label + 1, false),
            b':' => return is_ipv6(text),
            _ => return false,
        }
        if label > MAX_LABEL {
            return false;
        }
    }
    match numeric && dots > 0 {
        // No host name is written so: it is an IPv4 address or a slip.
        true => text.parse::<Ipv4Addr>().is_ok(),
        false => !text.is_empty() && text.len() <= MAX_HOST,
    }
}

fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let in_zone = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    address.parse::<Ipv6Addr>().is_ok()
        && zone.is_none_or(|zone| (1..=MAX_LABEL).contains(&zone.len()) && zone.bytes().all(in_zone))
}

/// What is wrong with a text that is no address, and what a right one looks like.
pub(super) fn refusal(text: &str) -> String {
    if text.is_empty() {
        return "is empty; it is a host name or an IP address, such as orders-1.example.org, 10.0.0.1 or fd00::1"
            .to_owned();
    }
    let shown: String = text.chars().take(SHOWN).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!(
        "{shown:?}{cut} is no host name or IP address, such as orders-1.example.org, 10.0.0.1 or fd00::1: without a \
         scheme, port, path or brackets"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn p1_1_an_address_is_a_host_name_or_an_ip_address_and_nothing_around_it() {
        let label = "x".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}.", "x".repeat(61));
        assert_eq!(longest.len(), 254);
        let right = [
            "h",
            "localhost",
            "orders-1.example.org",
            "orders-1.example.org.",
            "a_b",
            "_x._tcp.local",
            "xn--bcher-kva.de",
            "123456789012",
            "1a.2b",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "::1",
            "fd00::1",
            "fe80::1%eth0",
            "fe80::1%br-lan_0.7",
            "::ffff:10.0.0.1",
            &longest,
        ];
        for text in right {
            assert!(is_address(text), "{text}");
        }
        let (long_label, long) = ("x".repeat(64), format!("x{longest}"));
        let wrong = [
            "",
            " ",
            "a b",
            "http://x/",
            "x/",
            "x:80",
            "10.0.0.1:80",
            "[::1]",
            "[::1]:80",
            "a\nb",
            "a\0",
            "bücher.de",
            ".",
            ".a",
            "a..b",
            "-a",
            "a.-b",
            "10.0.0",
            "10.0.0.256",
            "010.0.0.1",
            "10.0.0.1.",
            "10.0.0.1%eth0",
            "::g",
            "fe80::1%",
            "fe80::1%a b",
            "fe80::1%a%b",
            "a@b",
            "a,b",
            "*",
            &long_label,
            &long,
        ];
        for text in wrong {
            assert!(!is_address(text), "{text}");
            assert!(refusal(text).contains("such as orders-1.example.org, 10.0.0.1 or fd00::1"));
        }
        assert!(refusal(&"/".repeat(10_000)).len() < 300);
    }

    proptest! {
        #[test]
        fn p1_1_every_ip_address_is_one_and_no_text_breaks_the_check(ip in any::<std::net::IpAddr>(), text in "(?s).{0,40}") {
            prop_assert!(is_address(&ip.to_string()));
            if is_address(&text) {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
