//! A YAML document as a tree, read within fixed limits. What it holds may be secret: it is wiped when dropped, never
//! printed, and an error says where something is wrong and of which kind, in words of ours.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location};
use zeroize::Zeroizing;

/// The largest file, in bytes. With the data of a hundred clusters it has half of that.
pub(super) const MAX_FILE: u64 = 1024 * 1024;
/// The most values, aliases counted as often as they are used.
const MAX_NODES: usize = 50_000;
/// The most text, likewise, in bytes.
const MAX_TEXT: usize = 2 * MAX_FILE as usize;
/// How deep values may be nested.
const MAX_DEPTH: usize = 32;
/// The most anchors, aliases and merged maps.
const MAX_ALIASES: usize = 200;

/// A value.
pub(super) enum Node {
    Null,
    Flag(bool),
    Number(serde_json::Number),
    Text(Zeroizing<String>),
    List(Vec<Node>),
    /// Each key is there once.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Reads a document; an empty one is null.
    ///
    /// # Errors
    /// What is wrong and where, without any of the content.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        if content.len() as u64 > MAX_FILE {
            return Err(format!("it is larger than {MAX_FILE} bytes"));
        }
        let text = std::str::from_utf8(content).map_err(|error| {
            let line = content.get(..error.valid_up_to()).unwrap_or_default().split(|byte| *byte == b'\n').count();
            format!("line {line}: it is not UTF-8")
        })?;
        if text.trim().is_empty() {
            return Ok(Self::Null);
        }
        let limits = serde_saphyr::budget! {
            max_reader_input_bytes: Some(MAX_FILE as usize),
            flow_nesting_limit: MAX_DEPTH,
            max_events: 3 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: 2 * MAX_NODES,
            max_recorded_anchor_bytes: MAX_TEXT,
            max_depth: MAX_DEPTH,
            max_inclusion_depth: 0,
            max_documents: 1,
            max_nodes: MAX_NODES,
            max_total_scalar_bytes: MAX_TEXT,
            max_merge_keys: MAX_ALIASES,
        };
        let options = serde_saphyr::options! {
            budget: limits,
            with_snippet: false,
            strict_booleans: true,
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: 2 * MAX_NODES,
                max_replay_stack_depth: MAX_DEPTH,
            },
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| refusal(&error))
    }

    /// The value as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Null => Value::Null,
            Self::Flag(flag) => Value::Bool(*flag),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.to_string()),
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(pairs) => Value::Object(pairs.iter().map(|(key, node)| (key.clone(), node.to_json())).collect()),
        }
    }

    /// The kind of value, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.kind())
    }
}

/// What is wrong and where: the error's own text may repeat what the file holds.
fn refusal(error: &Error) -> String {
    let place = error.location().filter(|place| *place != Location::UNKNOWN);
    let place = place.map(|place| format!("line {}, column {}: ", place.line(), place.column())).unwrap_or_default();
    format!("{place}{}", what(error))
}

fn what(error: &Error) -> &'static str {
    const ALIASES: &str = "it has more aliases than are read";
    match error.without_snippet() {
        Error::DuplicateMappingKey { .. } => "a key stands twice in a map",
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "a second YAML document begins"
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => "it is nested too deeply",
        Error::Budget {
            breach:
                BudgetBreach::Aliases { .. }
                | BudgetBreach::Anchors { .. }
                | BudgetBreach::AliasAnchorRatio { .. }
                | BudgetBreach::MergeKeys { .. }
                | BudgetBreach::RecordedAnchorEvents { .. }
                | BudgetBreach::RecordedAnchorBytes { .. },
            ..
        }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => ALIASES,
        Error::Budget { .. } => "it has more values or text than is read",
        Error::UnknownAnchor { .. } | Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias of what is not there"
        }
        Error::Eof { .. } => "it ends too early",
        Error::AliasError { error, .. } => what(error),
        _ => "it is no valid YAML",
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Node, E> {
        serde_json::Number::from_f64(number).map(Node::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = pairs.next_key::<String>()? {
            map.push((key, pairs.next_value()?));
        }
        if map.len() > MAX_NODES {
            return Err(A::Error::custom("too many"));
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: impl AsRef<[u8]>) -> String {
        Node::parse(text.as_ref()).unwrap_err()
    }

    #[test]
    fn kubernetes_point_21_yaml_and_json_are_read_alike() {
        let yaml = "a: [1, 'x', true, null]\nb: {c: |\n  two\n  lines\n}\n";
        let block = "a:\n- 1\n- x\n- true\n- ~\nb:\n  c: \"two\\nlines\\n\"\n";
        let json = r#"{"a": [1, "x", true, null], "b": {"c": "two\nlines\n"}}"#;
        let value = |text: &str| Node::parse(text.as_bytes()).map(|node| node.to_json());
        assert_eq!(value(block).unwrap(), value(json).unwrap());
        assert!(value(yaml).is_err(), "a block inside of a flow");
        for empty in ["", " \n", "# nothing\n", "---\n", "null"] {
            assert!(matches!(Node::parse(empty.as_bytes()).unwrap(), Node::Null), "{empty:?}");
        }
    }

    #[test]
    fn kubernetes_point_21_what_is_no_yaml_is_refused_with_its_place_and_without_its_content() {
        for (text, place, kind) in [
            ("a: b\n  c: s3cr3t\n", "line 2", "no valid YAML"),
            ("a: [s3cr3t\n", "", "YAML"),
            ("a: 's3cr3t\n", "", "YAML"),
            ("a: 1\ns3cr3t: 2\ns3cr3t: 3\n", "line 3", "twice"),
            ("a: *s3cr3t\n", "line 1", "alias"),
            ("a: 1\n---\ns3cr3t: 1\n", "line", "second"),
            ("\u{7f}: s3cr3t\u{0}", "", ""),
            ("a: &a [*a, s3cr3t]\n", "", ""),
            ("? {s3cr3t: 1}\n: 2\n", "line 1", "YAML"),
            ("a: !!binary s3cr3t\nb: !!int s3cr3t\n", "", ""),
        ] {
            let refusal = match Node::parse(text.as_bytes()) {
                Ok(_) => continue,
                Err(refusal) => refusal,
            };
            assert!(refusal.contains(place) && refusal.contains(kind), "{text:?}: {refusal}");
            assert!(!refusal.contains("s3cr3t"), "{refusal}");
        }
        assert_eq!(refused(b"a: 1\nb: \xff\xfe"), "line 2: it is not UTF-8");
    }

    #[test]
    fn kubernetes_point_21_what_is_huge_deep_or_grows_by_aliases_is_refused() {
        assert!(refused(vec![b'x'; 1024 * 1024 + 1]).contains("larger than"));
        let deep = "[".repeat(100_000);
        assert!(Node::parse(deep.as_bytes()).is_err());
        let nested = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
        refused(&nested);
        let steps = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
        assert!(refused(steps).contains("nested too deeply"));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        let refusal = refused(&bomb);
        assert!(refusal.contains("aliases") || refusal.contains("more values"), "{refusal}");
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 100].join(", "));
        assert!(refused(&long).contains("than"), "text that grows");
        let many = format!("[{}1]", "1, ".repeat(60_000));
        assert!(refused(&many).contains("more values"), "{}", refused(&many));
    }

    proptest::proptest! {
        #[test]
        fn kubernetes_point_21_any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Node::parse(&bytes);
        }

        #[test]
        fn kubernetes_point_21_any_text_of_yaml_signs_is_read_or_refused(text in "[-a1 :\\n\\[\\]{}&*?|>!'\"#%@,]{0,60}") {
            if let Ok(node) = Node::parse(text.as_bytes()) {
                let _ = node.to_json();
            }
        }
    }
}
