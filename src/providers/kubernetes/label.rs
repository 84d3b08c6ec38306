//! What may be a label and what a selector of labels, as the API server has it, so that a definition, or a node that is
//! to be registered, is refused at once instead of by the server.
//!
//! A refusal says what is wrong; where it was found is for the caller to add. An empty selector, which would select
//! every pod of the namespace, is refused, too.

use super::wire::PREFIX;
use crate::topology::ClusterNode;

/// The longest name or value of a label, in bytes.
const MAX_NAME: usize = 63;
/// The longest prefix of a label's key, in bytes.
const MAX_PREFIX: usize = 253;

const BAD_NAME: &str = "is not 1 to 63 letters, digits, '-', '_' and '.' that begin and end with a letter or digit";
const BAD_VALUE: &str = "is not at most 63 letters, digits, '-', '_' and '.' that begin and end with a letter or digit";
const BAD_PREFIX: &str = "has a prefix that is no DNS name of at most 253 lower case letters, digits, '-' and '.'";

/// Whether it may be a label's key: a name, perhaps with a DNS name and a slash before it.
pub(super) fn check_key(key: &str) -> Result<(), &'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| !is_dns_name(prefix)) {
        return Err(BAD_PREFIX);
    }
    if is_name(name) { Ok(()) } else { Err(BAD_NAME) }
}

/// Whether it may be a label's value, which may be empty.
pub(super) fn check_value(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(BAD_VALUE) }
}

/// Whether it is a selector of labels: requirements with commas between them, each `key`, `!key`, `key=value`,
/// `key==value`, `key!=value`, `key in (a,b)`, `key notin (a,b)`, `key>1` or `key<1`.
pub(super) fn check_selector(selector: &str) -> Result<(), &'static str> {
    let mut rest = selector.trim();
    if rest.is_empty() {
        return Err("is empty, which would select everything");
    }
    loop {
        let end = requirement(rest)?.trim_start();
        if end.is_empty() {
            return Ok(());
        }
        rest = end.strip_prefix(',').ok_or("has something other than a comma between two requirements")?.trim_start();
    }
}

/// Whether the node can be described by a pod's labels and annotations: its id is a label's value, each kind part of a
/// label's key, and so is each key of its metadata, which must not be one of those with a meaning.
pub(super) fn check_node(node: &ClusterNode) -> Result<(), (&'static str, &'static str)> {
    check_value(node.id().as_str()).map_err(|reason| ("id", reason))?;
    for kind in node.kinds() {
        check_key(&kind_key(kind)).map_err(|_| ("kinds", "has a kind that is no label's name behind \"kind-\""))?;
    }
    for (key, _) in node.metadata() {
        if matches!(key, "port" | "cluster" | "member-id" | "incarnation") || key.starts_with("kind-") {
            return Err(("metadata", "has a key that a pod's labels have for something else"));
        }
        if !is_name(key) {
            return Err(("metadata", "has a key that is no label's name"));
        }
    }
    Ok(())
}

/// The key of the label of a kind.
pub(super) fn kind_key(kind: &str) -> String {
    format!("{PREFIX}kind-{kind}")
}

/// Reads past a requirement; what follows it.
fn requirement(text: &str) -> Result<&str, &'static str> {
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (key, rest) = word(text);
    check_key(key)?;
    let rest = rest.trim_start();
    if negated || rest.is_empty() || rest.starts_with(',') {
        return Ok(rest);
    }
    for operator in ["==", "=", "!="] {
        if let Some(rest) = rest.strip_prefix(operator) {
            let (value, rest) = word(rest.trim_start());
            return check_value(value).map(|()| rest);
        }
    }
    for operator in [">", "<"] {
        if let Some(rest) = rest.strip_prefix(operator) {
            let (value, rest) = word(rest.trim_start());
            check_value(value)?;
            return value.parse::<i64>().map(|_| rest).map_err(|_| "compares with what is no number");
        }
    }
    let (operator, rest) = word(rest);
    match operator {
        "in" | "notin" => values(rest.trim_start()),
        _ => Err("has an operator that is none of =, ==, !=, in, notin, > and <"),
    }
}

/// Reads past the values of a set; what follows them.
fn values(text: &str) -> Result<&str, &'static str> {
    let inner = text.strip_prefix('(').ok_or("has a set without its parentheses")?;
    let (values, rest) = inner.split_once(')').ok_or("has a set without its parentheses")?;
    if values.trim().is_empty() {
        return Err("has a set without values");
    }
    values.split(',').try_for_each(|value| check_value(value.trim())).map(|()| rest)
}

/// A word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace() || "=!<>,()".contains(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn is_name(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= MAX_NAME
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_dns_name(text: &str) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= MAX_PREFIX
        && text.split('.').map(str::as_bytes).all(|part| {
            part.first().is_some_and(is_plain)
                && part.last().is_some_and(is_plain)
                && part.iter().all(|byte| is_plain(byte) || *byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kubernetes_keys_and_values_of_labels_are_those_that_the_server_takes() {
        for key in ["a", "A.b_c-9", "app.kubernetes.io/name", "x-1.y/Z", &"n".repeat(63)] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in ["", "/", "a/", "/a", "-a", "a-", "a b", "ä", "A.io/x", "a..b/x", "-a/x", "a/b/c", &"n".repeat(64)]
        {
            assert!(check_key(key).is_err(), "{key}");
        }
        assert!(check_key(&format!("{}/x", "a".repeat(253))).is_ok());
        assert!(check_key(&format!("{}/x", "a".repeat(254))).is_err());
        for value in ["", "a", "8080", "v1.2-x_Y", &"n".repeat(63)] {
            assert_eq!(check_value(value), Ok(()), "{value}");
        }
        for value in [" ", "a b", "a/b", "10.0.0.1:80", ".a", "a.", &"n".repeat(64)] {
            assert!(check_value(value).is_err(), "{value}");
        }
    }

    #[test]
    fn kubernetes_selectors_are_those_that_the_server_takes() {
        for selector in [
            "a",
            "!a",
            " ! a ",
            "a=b",
            "a==b",
            "a!=b",
            "a = b , c",
            "a=",
            "a=,b=c",
            "x.io/a in (b)",
            "a in (b, c,d)",
            "a in (b,)",
            "a notin(b),c=d",
            "a>1",
            "a < 5,b",
            "in in (in)",
            "cluster.proto.actor/cluster=orders",
        ] {
            assert_eq!(check_selector(selector), Ok(()), "{selector}");
        }
        for selector in [
            "",
            " ",
            ",",
            "a,",
            ",a",
            "a,,b",
            "a b",
            "a===b",
            "=a",
            "!a=b",
            "a in",
            "a in b",
            "a in (",
            "a in ()",
            "a in (b",
            "a in (b))",
            "a in (b c)",
            "a of (b)",
            "a>b",
            "a>",
            "a=b c",
            "a=b=c",
            "a/b/c=d",
            "(a)",
            "a=(b)",
            "ä=b",
        ] {
            assert!(check_selector(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn kubernetes_a_node_that_fits_into_no_labels_is_refused_with_the_field() {
        let node = |id: &str, kind: &str, key: &str| {
            let node =
                ClusterNode::builder(id, "10.0.0.1", 80).kind(kind).metadata(key, "any value: {}").build().unwrap();
            check_node(&node).map_err(|(field, _)| field)
        };
        assert_eq!(node("orders-0", "user", "zone"), Ok(()));
        assert_eq!(node(&"n".repeat(63), &"k".repeat(58), "zone"), Ok(()));
        assert_eq!(node(&"n".repeat(64), "user", "zone"), Err("id"));
        assert_eq!(node("10.0.0.1:80", "user", "zone"), Err("id"));
        assert_eq!(node("a", &"k".repeat(59), "zone"), Err("kinds"));
        assert_eq!(node("a", "user type", "zone"), Err("kinds"));
        for key in ["port", "cluster", "member-id", "incarnation", "kind-x", "a/b", "a b"] {
            assert_eq!(node("a", "user", key), Err("metadata"), "{key}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn kubernetes_any_selector_is_judged_without_panic(text in "[a-c!=<>,() /.äin-]{0,30}") {
            let _ = (check_selector(&text), check_key(&text), check_value(&text));
        }
    }
}
