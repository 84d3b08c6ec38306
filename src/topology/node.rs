//! A node as its owner registered it, and the hash by which nodes are compared.

use std::borrow::{Borrow, Cow};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

use super::address;
use crate::error::{ErrorCode, ProvisioningError};
use crate::text::line::any_misleads;

/// The longest id, kind or metadata key, in bytes.
const MAX_NAME: usize = 1024;
/// The most kinds, and the most metadata entries, of one node.
const MAX_ENTRIES: usize = 1024;
/// The longest metadata value, in bytes.
const MAX_VALUE: usize = 64 * 1024;

/// The name of a node, unique in the cluster. Cheap to clone; ordered bytewise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A node id. Any non-empty text of at most 1,024 bytes without characters that end a line, turn its direction or
    /// are not seen: control characters, line separators, bidirectional marks, and those of no width.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidNode`] for any other text.
    pub fn new(id: impl AsRef<str>) -> Result<Self, ProvisioningError> {
        let id = id.as_ref();
        check_name("id", id)?;
        Ok(Self(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// One member of the cluster: what its owner registered, and nothing that a provider adds (indices, check output,
/// zone labels), so that the same node is equal whichever provider shows it.
///
/// Immutable; its [hash](ClusterNode::hash) is computed once, when it is built.
#[derive(Clone)]
pub struct ClusterNode {
    hash: u64,
    id: NodeId,
    incarnation: u64,
    port: u16,
    /// How many kinds and entries of metadata there are.
    kinds: u16,
    entries: u16,
    /// The address, the kinds, and each key of the metadata with its value, each after a character that says how long it
    /// is: in one piece, since comparing, hashing and dropping a node cost about one cache miss for each allocation.
    text: Box<str>,
}

impl ClusterNode {
    /// Starts a node from what it cannot do without. The address may be spelled in any way: see [`address`](Self::address).
    pub fn builder(id: impl Into<String>, address: impl Into<String>, port: u16) -> ClusterNodeBuilder {
        ClusterNodeBuilder {
            id: id.into(),
            address: address.into(),
            port,
            incarnation: 0,
            kinds: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// This node in the life of that incarnation, with the kinds and metadata of the other. It is there always, since both are
    /// nodes.
    pub(crate) fn described_as(&self, incarnation: u64, by: &ClusterNode) -> Option<ClusterNode> {
        let builder = Self::builder(self.id().as_str(), self.address(), self.port()).incarnation(incarnation);
        let builder = builder.kinds(by.kinds());
        by.metadata().fold(builder, |builder, (key, value)| builder.metadata(key, value)).build().ok()
    }

    /// The node's id.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Which life of the node this is: a restart under the same id has another incarnation. 0 where the source of the
    /// node knows none.
    ///
    /// 0 says nothing, and is no change against any other: where a provider with incarnations and one without follow each
    /// other, nobody leaves or joins. A snapshot shows what the provider followed shows, so the incarnation there turns
    /// from 7 to 0, or back, the node is in [`TopologyDiff::updated`](crate::TopologyDiff::updated), and its hash is
    /// another one. A restart at the same place goes unnoticed while the provider followed knows no incarnations, and is
    /// not made up for when one follows that does.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The host name or IP address at which the node is reached, always written in one way, however it was spelled, so
    /// that equal addresses are equal texts and have one hash in every process: a host name in lower case, IPv6 as in
    /// RFC 5952 and without brackets (`FD00:0:0::2` is `fd00::2`), and as IPv4 where it is mapped (`::ffff:10.1.0.9` is
    /// `10.1.0.9`).
    pub fn address(&self) -> &str {
        Pieces(&self.text).next().unwrap_or_default()
    }

    /// The pieces of the text without the address.
    fn described(&self) -> Pieces<'_> {
        let mut pieces = Pieces(&self.text);
        pieces.next();
        pieces
    }

    /// The port at which the node is reached; never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The kinds of actors that the node hosts, sorted, without duplicates.
    pub fn kinds(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut pieces = self.described();
        (0..self.kinds).map(move |_| pieces.next().unwrap_or_default())
    }

    /// Whether the node hosts actors of that kind.
    pub fn hosts(&self, kind: &str) -> bool {
        self.kinds().any(|hosted| hosted == kind)
    }

    /// What else the owner registered, sorted by key.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let mut pieces = self.described();
        pieces.by_ref().take(self.kinds.into()).for_each(drop);
        (0..self.entries).map(move |_| (pieces.next().unwrap_or_default(), pieces.next().unwrap_or_default()))
    }

    /// The node's hash: XXH3-64 (seed 0) over its fields in the order id, incarnation, address, port, kinds, metadata.
    /// A text is its length in bytes (u32, little endian) and its bytes in UTF-8; the incarnation a u64 and the port a
    /// u16, little endian; a list is its length (u32, little endian) and its entries, kinds sorted and metadata sorted
    /// by key, each entry its key and value.
    ///
    /// ```
    /// use cluster_provisioning::ClusterNode;
    /// let node = ClusterNode::builder("a", "10.0.0.1", 8080).incarnation(7).kind("user").build()?;
    /// assert_eq!(node.hash(), 0xf859_2eca_1884_93b5);
    /// # Ok::<(), cluster_provisioning::ProvisioningError>(())
    /// ```
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Computes the [hash](Self::hash) from the fields again; what one pass over a set of nodes costs.
    pub fn compute_hash(&self) -> u64 {
        thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(512)));
        BUFFER.with_borrow_mut(|bytes| {
            bytes.clear();
            push_text(bytes, self.id.as_str().as_bytes());
            bytes.extend_from_slice(&self.incarnation.to_le_bytes());
            let mut pieces = Pieces(&self.text).map(str::as_bytes);
            push_text(bytes, pieces.next().unwrap_or_default());
            bytes.extend_from_slice(&self.port.to_le_bytes());
            push_length(bytes, self.kinds.into());
            for kind in pieces.by_ref().take(self.kinds.into()) {
                push_text(bytes, kind);
            }
            push_length(bytes, self.entries.into());
            for key_or_value in pieces {
                push_text(bytes, key_or_value);
            }
            xxh3_64(bytes)
        })
    }

    /// Whether `other` is the same life of the node at the same place: equal id, address and port, and no other
    /// [incarnation](Self::incarnation), of which 0 is none. Where it is not, the change from one to the other is a leave
    /// and a join. Addresses are equal however they were spelled.
    pub fn is_same_life(&self, other: &ClusterNode) -> bool {
        let is_other_life = self.incarnation != other.incarnation && self.incarnation != 0 && other.incarnation != 0;
        !is_other_life && self.id == other.id && self.port == other.port && self.address() == other.address()
    }
}

/// The pieces of a node's text, in order.
struct Pieces<'a>(&'a str);

/// No character has one of these numbers, so that longer pieces have later ones.
const SURROGATES: std::ops::Range<u32> = 0xd800..0xe000;

/// The character that says how long the piece is.
fn mark(piece: &str) -> char {
    // No piece is longer than 64 KiB.
    let length = piece.len() as u32;
    let skipped = if length < SURROGATES.start { 0 } else { SURROGATES.end - SURROGATES.start };
    char::from_u32(length + skipped).unwrap_or(char::MAX)
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut characters = self.0.chars();
        let mark = u32::from(characters.next()?);
        let skipped = if mark < SURROGATES.start { 0 } else { SURROGATES.end - SURROGATES.start };
        let (piece, rest) = characters.as_str().split_at_checked((mark - skipped) as usize)?;
        self.0 = rest;
        Some(piece)
    }
}

impl PartialEq for ClusterNode {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.incarnation == other.incarnation
            && self.port == other.port
            && self.kinds == other.kinds
            && self.id == other.id
            && self.text == other.text
    }
}

impl Eq for ClusterNode {}

/// `orders-1#7 at 10.0.0.1:8080`: the id, the incarnation unless it is unknown, and where it is reached, IPv6 in brackets.
impl fmt::Display for ClusterNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        if self.incarnation != 0 {
            write!(f, "#{}", self.incarnation)?;
        }
        match self.address().contains(':') {
            true => write!(f, " at [{}]:{}", self.address(), self.port),
            false => write!(f, " at {}:{}", self.address(), self.port),
        }
    }
}

/// With all its fields; kinds as a list, metadata as a map.
impl Serialize for ClusterNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut node = serializer.serialize_struct("ClusterNode", 6)?;
        node.serialize_field("id", &self.id)?;
        node.serialize_field("incarnation", &self.incarnation)?;
        node.serialize_field("address", self.address())?;
        node.serialize_field("port", &self.port)?;
        node.serialize_field("kinds", &self.kinds().collect::<Vec<_>>())?;
        node.serialize_field("metadata", &self.metadata().collect::<BTreeMap<_, _>>())?;
        node.end()
    }
}

impl fmt::Debug for ClusterNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}#{}@{}:{}{:?}",
            self.id,
            self.incarnation,
            self.address(),
            self.port,
            self.kinds().collect::<Vec<_>>()
        )?;
        if self.metadata().len() > 0 {
            f.debug_map().entries(self.metadata()).finish()?;
        }
        Ok(())
    }
}

/// Collects a node's fields; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
pub struct ClusterNodeBuilder {
    id: String,
    address: String,
    port: u16,
    incarnation: u64,
    kinds: Vec<String>,
    metadata: BTreeMap<String, String>,
}

impl ClusterNodeBuilder {
    /// Which life of the node this is. Default 0: unknown.
    #[must_use]
    pub fn incarnation(mut self, incarnation: u64) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// Adds a kind of actor that the node hosts.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kinds.push(kind.into());
        self
    }

    /// Adds several kinds.
    #[must_use]
    pub fn kinds<K: Into<String>>(mut self, kinds: impl IntoIterator<Item = K>) -> Self {
        self.kinds.extend(kinds.into_iter().map(Into::into));
        self
    }

    /// Adds or replaces an entry of the metadata.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The node.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidNode`], naming the field, where the id, a kind or a metadata key is no name as
    /// [`NodeId::new`] takes it; the address is no host name or IP address (letters, digits, `-`, `_` and `.`, at most 254
    /// bytes; IPv6 in brackets or not, with a zone or without); the port is 0; there are more than 1,024 kinds or metadata
    /// entries; or a value is longer than 64 KiB.
    pub fn build(self) -> Result<ClusterNode, ProvisioningError> {
        let id = NodeId::new(&self.id)?;
        let refused = |given: &str| invalid("address", address::refusal(given));
        let address = address::canonical(self.address.clone()).ok_or_else(|| refused(&self.address))?;
        if self.port == 0 {
            return Err(invalid("port", "is 0; it is the port at which the node is reached"));
        }
        let mut kinds = self.kinds;
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.len() > MAX_ENTRIES {
            return Err(invalid("kinds", "has more than 1,024 entries"));
        }
        for kind in &kinds {
            check_name("kinds", kind)?;
        }
        if self.metadata.len() > MAX_ENTRIES {
            return Err(invalid("metadata", "has more than 1,024 entries"));
        }
        for (key, value) in &self.metadata {
            check_name("metadata", key)?;
            if value.len() > MAX_VALUE {
                return Err(invalid("metadata", "has a value longer than 64 KiB"));
            }
        }
        let metadata = self.metadata.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        let pieces = || [address.as_str()].into_iter().chain(kinds.iter().map(String::as_str)).chain(metadata.clone());
        let mut text = String::with_capacity(pieces().map(|piece| mark(piece).len_utf8() + piece.len()).sum());
        for piece in pieces() {
            text.push(mark(piece));
            text.push_str(piece);
        }
        let mut node = ClusterNode {
            hash: 0,
            id,
            incarnation: self.incarnation,
            port: self.port,
            // There are at most 1,024 of each.
            kinds: kinds.len() as u16,
            entries: self.metadata.len() as u16,
            text: text.into(),
        };
        node.hash = node.compute_hash();
        Ok(node)
    }
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    // Lengths are bounded by the builder, far below u32::MAX.
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
}

fn push_text(bytes: &mut Vec<u8>, text: &[u8]) {
    push_length(bytes, text.len());
    bytes.extend_from_slice(text);
}

fn check_name(field: &'static str, text: &str) -> Result<(), ProvisioningError> {
    if text.is_empty() {
        return Err(invalid(field, "is empty"));
    }
    if text.len() > MAX_NAME {
        return Err(invalid(field, "is longer than 1,024 bytes"));
    }
    if any_misleads(text) {
        return Err(invalid(
            field,
            "has control characters, line separators, bidirectional marks or characters of no width",
        ));
    }
    Ok(())
}

fn invalid(field: &'static str, reason: impl Into<Cow<'static, str>>) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::InvalidNode, "building a node", reason).with_field(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> ClusterNodeBuilder {
        ClusterNode::builder(id, "10.0.0.1", 8080)
    }

    #[test]
    fn p2_3_hash_test_vectors_hold() {
        // Computed independently with the reference XXH3 implementation over the documented encoding.
        let plain = node("a").build().unwrap();
        let full = node("a").incarnation(7).kind("user").kind("order").metadata("zone", "1").build().unwrap();
        assert_eq!((plain.hash(), full.hash()), (0xaaac_2438_ed0f_9c3c, 0x8e00_5868_ffc8_3be4));
        assert_eq!(full.compute_hash(), full.hash());
    }

    #[test]
    fn a_node_gives_back_what_it_was_built_from() {
        let full = node("a").incarnation(7).kinds(["üser", "order"]).metadata("zone", "").metadata("k", "värde");
        let full = full.build().unwrap();
        assert_eq!((full.id().as_str(), full.incarnation()), ("a", 7));
        assert_eq!((full.address(), full.port()), ("10.0.0.1", 8080));
        assert_eq!(full.kinds().collect::<Vec<_>>(), ["order", "üser"]);
        assert_eq!(full.metadata().collect::<Vec<_>>(), [("k", "värde"), ("zone", "")]);
        assert_eq!(format!("{full:?}"), "a#7@10.0.0.1:8080[\"order\", \"üser\"]{\"k\": \"värde\", \"zone\": \"\"}");
        let plain = node("a").build().unwrap();
        assert_eq!((plain.address(), plain.kinds().len(), plain.metadata().len()), ("10.0.0.1", 0, 0));
    }

    #[test]
    fn p1_1_a_piece_of_any_length_is_given_back() {
        for length in [0, 1, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xd800, 0xdfff, 0xe000, MAX_VALUE] {
            let (long, key) = ("v".repeat(length), "k".repeat(length.clamp(1, MAX_NAME)));
            let full = node("a").kind(&key).metadata(&key, &long).metadata("z", "last").build().unwrap();
            assert_eq!(full.kinds().collect::<Vec<_>>(), [key.as_str()]);
            assert_eq!(full.metadata().collect::<Vec<_>>(), [(key.as_str(), long.as_str()), ("z", "last")]);
        }
    }

    #[test]
    fn p2_3_fields_do_not_run_into_each_other() {
        let hash = |kinds: &[&str]| node("a").kinds(kinds.iter().copied()).build().unwrap().hash();
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["ab"]), hash(&["a", "b"]));
        let pair = |key, value| node("a").metadata(key, value).build().unwrap().hash();
        assert_ne!(pair("ab", "c"), pair("a", "bc"));
        assert_ne!(node("a").kind("x").build().unwrap().hash(), pair("x", "x"));
    }

    #[test]
    fn p2_3_the_order_and_repetition_of_kinds_does_not_count() {
        let one = node("a").kinds(["x", "y", "x"]).build().unwrap();
        let other = node("a").kinds(["y", "x"]).build().unwrap();
        assert_eq!(one, other);
        assert_eq!(one.hash(), other.hash());
    }

    #[test]
    fn p2_3_an_address_spelled_otherwise_is_the_same_node_in_every_process() {
        let spelled = |address: &str| ClusterNode::builder("a", address, 8080).incarnation(7).build().unwrap();
        for (one, other) in [
            ("FD00:0:0::2", "fd00::2"),
            ("[fd00:0::4]", "fd00::4"),
            ("::ffff:10.1.0.9", "10.1.0.9"),
            ("Orders-1.example.org", "orders-1.Example.org"),
        ] {
            let (one, other) = (spelled(one), spelled(other));
            assert!(one.is_same_life(&other));
            assert_eq!((one.hash(), one.address()), (other.hash(), other.address()));
            assert_eq!(one, other);
        }
        assert!(!spelled("fd00::2").is_same_life(&spelled("fd00::3")));
    }

    #[test]
    fn p4_1_an_incarnation_of_0_says_nothing() {
        let life = |incarnation| node("a").incarnation(incarnation).build().unwrap();
        assert!(life(7).is_same_life(&life(0)) && life(0).is_same_life(&life(7)) && life(0).is_same_life(&life(0)));
        assert!(!life(7).is_same_life(&life(8)));
        assert_ne!(life(7), life(0), "what a source says of a node is still another");
        let elsewhere = ClusterNode::builder("a", "10.0.0.2", 8080).build().unwrap();
        assert!(!life(7).is_same_life(&elsewhere));
    }

    #[test]
    fn p2_3_every_field_counts_in_hash_and_equality() {
        let base = node("a").incarnation(1).kind("x").metadata("k", "v");
        let original = base.clone().build().unwrap();
        let other_address = ClusterNode::builder("a", "10.0.0.2", 8080).incarnation(1).kind("x").metadata("k", "v");
        let other_port = ClusterNode::builder("a", "10.0.0.1", 8081).incarnation(1).kind("x").metadata("k", "v");
        let variants = [
            base.clone().incarnation(2),
            base.clone().kind("y"),
            base.clone().metadata("k", "w"),
            base.metadata("l", "v"),
            other_address,
            other_port,
        ];
        for variant in variants {
            let variant = variant.build().unwrap();
            assert_ne!(variant, original);
            assert_ne!(variant.hash(), original.hash());
        }
    }

    #[test]
    fn p1_1_unusable_nodes_are_refused_with_the_field() {
        let refused = |builder: ClusterNodeBuilder, field: &str| {
            let error = builder.build().unwrap_err();
            assert_eq!((error.code(), error.field()), (ErrorCode::InvalidNode, Some(field)), "{error}");
        };
        refused(node(""), "id");
        for misleading in ["a\nb", "a\u{202e}b", "a\u{2028}", "\u{200b}a", "a\u{61c}", "\u{feff}a"] {
            refused(node(misleading), "id");
            refused(node("a").kind(misleading), "kinds");
            refused(node("a").metadata(misleading, "v"), "metadata");
            assert!(node("a").metadata("k", misleading).build().is_ok(), "a value is never shown as it is");
        }
        refused(node(&"x".repeat(1025)), "id");
        refused(ClusterNode::builder("a", "", 1), "address");
        refused(ClusterNode::builder("a", "http://x/", 1), "address");
        refused(ClusterNode::builder("a", "h", 0), "port");
        refused(node("a").kind(""), "kinds");
        refused(node("a").kinds((0..1025).map(|n| n.to_string())), "kinds");
        refused(node("a").metadata("", "v"), "metadata");
        refused(node("a").metadata("k", "v".repeat(64 * 1024 + 1)), "metadata");
        let many = (0..1025).fold(node("a"), |builder, n| builder.metadata(n.to_string(), ""));
        refused(many, "metadata");
        let largest =
            node(&"x".repeat(1024)).kinds((0..1024).map(|n| n.to_string())).metadata("k", "v".repeat(64 * 1024));
        assert!((0..1023).fold(largest, |builder, n| builder.metadata(n.to_string(), "")).build().is_ok());
    }
}
