//! What makes a text the address of a node: a host name or an IP address, and nothing around it; and the one way in which
//! it is written, so that comparing and hashing the text compares the address, in whichever process and from whichever
//! source.
//!
//! Looked at for every node of every answer, so it is one pass over the bytes for all but IPv6.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest host name, in bytes, with the dot of the root.
const MAX_HOST: usize = 254;
/// The longest part of a host name between dots, in bytes.
const MAX_LABEL: usize = 63;
/// How much of a refused text is shown, in characters.
const SHOWN: usize = 80;

/// The address as it is always written: IPv6 as in RFC 5952, without brackets, and as IPv4 where it is a mapped one; a host
/// name in lower case. `None` for a text that is none: no IP address (IPv6 in brackets or not, with a zone or without) and no
/// host name of letters, digits, `-`, `_` and `.`.
pub(super) fn canonical(mut text: String) -> Option<String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some() || text.contains(':') {
        return canonical_ipv6(bare.unwrap_or(&text));
    }
    if !is_plain(&text) {
        return None;
    }
    text.make_ascii_lowercase();
    Some(text)
}

/// Whether the text is an IPv4 address or a host name.
fn is_plain(text: &str) -> bool {
    let (mut label, mut dots, mut numeric) = (0, 0, true);
    for byte in text.bytes() {
        match byte {
            b'.' if label > 0 => (label, dots) = (0, dots + 1),
            b'0'..=b'9' => label += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => (label, numeric) = (label + 1, false),
            b'-' if label > 0 => (label, numeric) = (label + 1, false),
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

fn canonical_ipv6(text: &str) -> Option<String> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let address: Ipv6Addr = address.parse().ok()?;
    let in_zone = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    match zone {
        // The names of interfaces tell upper and lower case apart.
        Some(zone) => {
            let is_zone = (1..=MAX_LABEL).contains(&zone.len()) && zone.bytes().all(in_zone);
            is_zone.then(|| format!("{address}%{zone}"))
        }
        None => Some(address.to_canonical().to_string()),
    }
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
         scheme, port or path"
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
            &longest,
        ];
        for text in right {
            assert_eq!(canonical(text.to_owned()).as_deref(), Some(text));
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
            "[::1]:80",
            "[::1",
            "::1]",
            "[[::1]]",
            "[]",
            "[10.0.0.1]",
            "[localhost]",
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
            assert_eq!(canonical(text.to_owned()), None, "{text}");
            assert!(refusal(text).contains("such as orders-1.example.org, 10.0.0.1 or fd00::1"));
        }
        assert!(refusal(&"/".repeat(10_000)).len() < 300);
    }

    #[test]
    fn p2_3_an_address_is_written_in_one_way_however_it_was_spelled() {
        let spelled = [
            ("FD00:0:0::2", "fd00::2"),
            ("[fd00:0::4]", "fd00::4"),
            ("fd00:0000:0000:0000:0000:0000:0000:0004", "fd00::4"),
            ("::ffff:10.1.0.9", "10.1.0.9"),
            ("[::FFFF:0a01:0009]", "10.1.0.9"),
            ("::10.1.0.9", "::a01:9"),
            ("FE80::1%Eth0", "fe80::1%Eth0"),
            ("[fe80:0::1%eth0]", "fe80::1%eth0"),
            ("Orders-1.Example.ORG", "orders-1.example.org"),
        ];
        for (text, expected) in spelled {
            assert_eq!(canonical(text.to_owned()).as_deref(), Some(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn p1_1_every_ip_address_is_one_and_no_text_breaks_the_check(ip in any::<std::net::IpAddr>(), text in "(?s).{0,40}") {
            prop_assert_eq!(canonical(ip.to_string()), Some(ip.to_canonical().to_string()));
            for text in [text.clone(), format!("[{text}]"), ip.to_string().to_uppercase()] {
                if let Some(address) = canonical(text) {
                    prop_assert!(address.bytes().all(|byte| byte.is_ascii_graphic()));
                    prop_assert_eq!(canonical(address.clone()), Some(address));
                }
            }
        }
    }
}
