//! What an answer's body says.
//!
//! Decided here: which entries are members (those with at least one check, all of
//! them passing; maintenance, critical and warning are not); how an entry becomes a node. An entry with a field of
//! the wrong type is skipped and counted, whatever else it holds; an answer that is no JSON array is an error as a
//! whole. Decoding borrows from the body and builds nothing of what is not needed.
//!
//! Conventions, shared with protoactor-go: `Meta.id` is the node's id, without it `<service>@<address>:<port>`; tags
//! are kinds; an empty `Service.Address` means `Node.Address`. `Meta.incarnation` is the incarnation, 0 if it is
//! absent or no number. All other `Meta` entries are the node's metadata, since its owner registered them.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::error::{ErrorCode, ProvisioningError};
use crate::topology::{ClusterNode, Members, MembersBuilder};

/// The members in the body, and how many entries were unusable.
///
/// # Errors
/// [`ErrorCode::MalformedAnswer`] if the body is no JSON array.
pub(super) fn members(body: &[u8], service: &str, doing: &str) -> Result<(Members, usize), ProvisioningError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let detail = format!("the answer is not UTF-8 from byte {} on", error.valid_up_to());
        ProvisioningError::new(ErrorCode::MalformedAnswer, doing.to_owned(), detail)
    })?;
    let mut gathered = Gathered { service, nodes: Vec::new(), skipped: 0 };
    let mut decoder = serde_json::Deserializer::from_str(text);
    let decoded = decoder.deserialize_seq(&mut gathered).and_then(|()| decoder.end());
    decoded.map_err(|error| {
        // The error's own text may quote the body; its kind and place say enough.
        let what = if error.is_eof() { "ends too early" } else { "is no list of health entries" };
        let detail = format!("the answer {what} (line {}, column {})", error.line(), error.column());
        ProvisioningError::new(ErrorCode::MalformedAnswer, doing.to_owned(), detail)
    })?;
    // Consul promises no order. Of several entries with one node id the latest life wins, whatever the order, so that
    // what is left over from an earlier registration does not alternate with the present one.
    gathered.nodes.sort_by(|a, b| {
        let key = |node: &ClusterNode| (Reverse(node.incarnation()), node.port());
        a.id().cmp(b.id()).then_with(|| key(a).cmp(&key(b))).then_with(|| a.address().cmp(b.address()))
    });
    let mut builder = MembersBuilder::new();
    for node in gathered.nodes {
        builder.push(Ok::<_, ProvisioningError>(node));
    }
    let (members, duplicates) = builder.build();
    Ok((members, gathered.skipped + duplicates))
}

/// Whether the body is an array, as a probe's has to be.
///
/// # Errors
/// [`ErrorCode::MalformedAnswer`] if it is not.
pub(super) fn check_list(body: &[u8], doing: &str) -> Result<(), ProvisioningError> {
    let is_list = serde_json::from_slice::<Vec<IgnoredAny>>(body).is_ok();
    is_list.then_some(()).ok_or_else(|| {
        let detail = "the answer is no list of health entries";
        ProvisioningError::new(ErrorCode::MalformedAnswer, doing.to_owned(), detail)
    })
}

struct Gathered<'a> {
    service: &'a str,
    nodes: Vec<ClusterNode>,
    skipped: usize,
}

impl Gathered<'_> {
    fn add(&mut self, entry: Loose<Entry<'_>>) {
        match entry.good().map(|entry| entry.into_node(self.service)) {
            Some(Ok(Some(node))) => self.nodes.push(node),
            Some(Ok(None)) => {}
            Some(Err(Unusable)) | None => self.skipped += 1,
        }
    }
}

impl<'de> Visitor<'de> for &mut Gathered<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of health entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Loose<Entry<'de>>>()? {
            self.add(entry);
        }
        Ok(())
    }
}

/// An entry that cannot be used.
struct Unusable;

#[derive(Default)]
struct Entry<'de> {
    node: Loose<NodePart<'de>>,
    service: Loose<ServicePart<'de>>,
    checks: Loose<Checks>,
}

#[derive(Default)]
struct NodePart<'de> {
    address: Loose<Text<'de>>,
}

#[derive(Default)]
struct ServicePart<'de> {
    address: Loose<Text<'de>>,
    port: Loose<u64>,
    tags: Loose<Vec<Loose<Text<'de>>>>,
    meta: Loose<Vec<(Text<'de>, Loose<Text<'de>>)>>,
}

/// Whether there is at least one check, and what they amount to.
#[derive(Default)]
struct Checks {
    any: bool,
    all_passing: bool,
    malformed: bool,
}

impl<'de> Entry<'de> {
    /// The node, or `None` if it is none of the members.
    fn into_node(self, service: &str) -> Result<Option<ClusterNode>, Unusable> {
        let checks = self.checks.optional()?.unwrap_or_default();
        if checks.malformed {
            return Err(Unusable);
        }
        if !checks.any || !checks.all_passing {
            return Ok(None);
        }
        let part = self.service.optional()?.ok_or(Unusable)?;
        let address = match part.address.optional()? {
            Some(Text(address)) if !address.is_empty() => address,
            _ => {
                let node = self.node.optional()?.ok_or(Unusable)?;
                node.address.optional()?.ok_or(Unusable)?.0
            }
        };
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&address);
        let port = u16::try_from(part.port.optional()?.ok_or(Unusable)?).map_err(|_| Unusable)?;
        let (mut id, mut incarnation, mut metadata) = (None, 0, Vec::new());
        for (key, value) in part.meta.optional()?.unwrap_or_default() {
            let Text(value) = value.optional()?.ok_or(Unusable)?;
            match &*key.0 {
                "id" if !value.is_empty() => id = Some(value.into_owned()),
                "id" => {}
                "incarnation" => incarnation = value.parse().unwrap_or(0),
                _ => metadata.push((key.0.into_owned(), value.into_owned())),
            }
        }
        let id = id.unwrap_or_else(|| format!("{service}@{address}:{port}"));
        let mut builder = ClusterNode::builder(id, address, port).incarnation(incarnation);
        for tag in part.tags.optional()?.unwrap_or_default() {
            let Text(tag) = tag.optional()?.ok_or(Unusable)?;
            if !tag.is_empty() {
                builder = builder.kind(tag);
            }
        }
        for (key, value) in metadata {
            builder = builder.metadata(key, value);
        }
        builder.build().map(Some).map_err(|_| Unusable)
    }
}

/// A value of the expected shape, none at all (`null` or absent), or one of another shape, which was skipped.
#[derive(Default)]
enum Loose<T> {
    #[default]
    Absent,
    Bad,
    Good(T),
}

impl<T> Loose<T> {
    fn good(self) -> Option<T> {
        match self {
            Loose::Good(value) => Some(value),
            Loose::Absent | Loose::Bad => None,
        }
    }

    fn optional(self) -> Result<Option<T>, Unusable> {
        match self {
            Loose::Good(value) => Ok(Some(value)),
            Loose::Absent => Ok(None),
            Loose::Bad => Err(Unusable),
        }
    }
}

/// What shapes a value may have. Each returns `None`, having read past the value, if it may not have that one.
trait Shape<'de>: Sized {
    fn from_text(_: Cow<'de, str>) -> Option<Self> {
        None
    }

    fn from_number(_: u64) -> Option<Self> {
        None
    }

    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData))
    }
}

struct LooseVisitor<T>(PhantomData<T>);

fn loose<T>(value: Option<T>) -> Loose<T> {
    value.map_or(Loose::Bad, Loose::Good)
}

impl<'de, T: Shape<'de>> Visitor<'de> for LooseVisitor<T> {
    type Value = Loose<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Loose<T>, E> {
        Ok(Loose::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose<T>, E> {
        Ok(Loose::Bad)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose<T>, E> {
        Ok(Loose::Bad)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose<T>, E> {
        Ok(Loose::Bad)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose<T>, E> {
        Ok(loose(T::from_number(number)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Loose<T>, E> {
        Ok(loose(T::from_text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose<T>, E> {
        Ok(loose(T::from_text(Cow::Owned(text.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loose<T>, A::Error> {
        T::from_map(map).map(loose)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Loose<T>, A::Error> {
        T::from_list(list).map(loose)
    }
}

struct Text<'de>(Cow<'de, str>);

impl<'de> Shape<'de> for Text<'de> {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        Some(Text(text))
    }
}

/// The key of a map, which is always a text.
struct Key<'de>(Text<'de>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = deserializer.deserialize_str(LooseVisitor::<Text<'de>>(PhantomData))?;
        Ok(Key(key.good().unwrap_or(Text(Cow::Borrowed("")))))
    }
}

impl Shape<'_> for u64 {
    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for Vec<Loose<T>> {
    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Some(values))
    }
}

impl<'de> Shape<'de> for Vec<(Text<'de>, Loose<Text<'de>>)> {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
        let mut pairs = Vec::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            pairs.push((key, value));
        }
        Ok(Some(pairs))
    }
}

/// Reads the named fields of a map and skips the others.
macro_rules! fields {
    ($type:ident, $($name:literal => $field:ident),+) => {
        impl<'de> Shape<'de> for $type<'de> {
            fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Option<Self>, A::Error> {
                let mut value = Self::default();
                while let Some(Key(key)) = map.next_key()? {
                    match &*key.0 {
                        $($name => value.$field = map.next_value()?,)+
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Some(value))
            }
        }
    };
}

fields!(Entry, "Node" => node, "Service" => service, "Checks" => checks);
fields!(NodePart, "Address" => address);
fields!(ServicePart, "Address" => address, "Port" => port, "Tags" => tags, "Meta" => meta);
fields!(Check, "CheckID" => id, "Status" => status);

#[derive(Default)]
struct Check<'de> {
    id: Loose<Text<'de>>,
    status: Loose<Text<'de>>,
}

impl<'de> Shape<'de> for Checks {
    fn from_list<A: SeqAccess<'de>>(mut list: A) -> Result<Option<Self>, A::Error> {
        let mut checks = Checks { any: false, all_passing: true, malformed: false };
        while let Some(check) = list.next_element::<Loose<Check<'de>>>()? {
            checks.any = true;
            match check.good().map(|check| (check.id.optional(), check.status.optional())) {
                Some((Ok(id), Ok(status))) => {
                    let id = id.unwrap_or(Text(Cow::Borrowed(""))).0;
                    let maintenance = id == "_node_maintenance" || id.starts_with("_service_maintenance:");
                    // Whatever is neither critical nor warning nor known is not passing either.
                    let passing = !maintenance && status.is_some_and(|status| status.0 == "passing");
                    checks.all_passing &= passing;
                }
                _ => checks.malformed = true,
            }
        }
        Ok(Some(checks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn entry(id: &str, address: &str, port: u16) -> Value {
        json!({
            "Node": {"Node": "vm", "Address": "10.0.0.9", "Meta": {"x": "y"}},
            "Service": {"ID": id, "Service": "orders", "Tags": ["user"], "Address": address, "Port": port,
                "Meta": {"id": id}, "Weights": {"Passing": 1}},
            "Checks": [
                {"CheckID": "serfHealth", "Status": "passing", "Output": "\u{fffd} \n"},
                {"CheckID": format!("service:{id}"), "Status": "passing"},
            ],
        })
    }

    fn decode(value: &Value) -> (Members, usize) {
        members(value.to_string().as_bytes(), "orders", "testing").unwrap()
    }

    fn with(path: &str, value: Value) -> Value {
        let mut entry = entry("a", "h", 1);
        *entry.pointer_mut(path).unwrap() = value;
        entry
    }

    #[test]
    fn consul_point_12_addresses_ids_and_metadata() {
        let mut rich = entry("a", "", 1);
        rich["Service"]["Meta"] = json!({"id": "node-a", "incarnation": "7", "zone": "1"});
        let mut plain = entry("b", "[fe80::1]", 2);
        plain["Service"]["Meta"] = Value::Null;
        plain["Service"]["Tags"] = json!(["", "x", "user"]);
        let mut garbage = entry("c", "h", 3);
        garbage["Service"]["Meta"]["incarnation"] = json!("-1");
        let (set, skipped) = decode(&json!([rich, plain, garbage]));
        let nodes: Vec<_> = set.iter().map(|node| format!("{node:?}")).collect();
        assert_eq!(skipped, 0);
        assert_eq!(
            nodes,
            [
                r##"c#0@h:3["user"]"##,
                r##"node-a#7@10.0.0.9:1["user"]{"zone": "1"}"##,
                r##"orders@fe80::1:2#0@fe80::1:2["user", "x"]"##,
            ]
        );
    }

    #[test]
    fn consul_point_12_the_same_id_on_two_agents_is_one_member_whatever_the_order() {
        let old = entry("a", "h-old", 1);
        let mut new = entry("a", "h-new", 1);
        new["Service"]["Meta"]["incarnation"] = json!("2");
        let one = decode(&json!([old, new]));
        assert_eq!(one, decode(&json!([new, old])));
        assert_eq!((one.0.len(), one.1), (1, 1));
        assert_eq!(one.0.iter().next().unwrap().address(), "h-new");
        // Without incarnations too the choice does not hang on the order.
        let other = entry("a", "h-x", 1);
        assert_eq!(decode(&json!([old, other])), decode(&json!([other, old])));
    }

    #[test]
    fn consul_point_13_only_an_aggregate_of_passing_counts() {
        let count = |checks: Value| {
            let (set, skipped) = decode(&json!([with("/Checks", checks)]));
            assert_eq!(skipped, 0);
            set.len()
        };
        let check = |id: &str, status: &str| json!({"CheckID": id, "Status": status});
        assert_eq!(count(json!([check("x", "passing")])), 1);
        assert_eq!(count(json!([check("x", "passing"), check("y", "passing")])), 1);
        assert_eq!(count(json!([])), 0);
        assert_eq!(count(Value::Null), 0);
        for status in ["warning", "critical", "maintenance", "", "Passing", "new"] {
            assert_eq!(count(json!([check("x", "passing"), check("y", status)])), 0, "{status}");
        }
        assert_eq!(count(json!([check("_node_maintenance", "passing")])), 0);
        assert_eq!(count(json!([check("_service_maintenance:a", "passing")])), 0);
        assert_eq!(count(json!([{"CheckID": "x"}])), 0);
    }

    #[test]
    fn consul_point_13_unusable_entries_are_skipped_and_counted_and_the_rest_delivered() {
        let unusable = [
            json!(null),
            json!(1),
            json!("x"),
            json!([]),
            with("/Service", json!([])),
            with("/Service", json!(null)),
            with("/Service/Port", json!(0)),
            with("/Service/Port", json!(65536)),
            with("/Service/Port", json!(-1)),
            with("/Service/Port", json!(1.5)),
            with("/Service/Port", json!("1")),
            with("/Service/Tags", json!("user")),
            with("/Service/Tags", json!([1])),
            with("/Service/Meta", json!({"id": 1})),
            with("/Service/Meta", json!([])),
            with("/Service/Address", json!({"x": [1, {"y": 2}]})),
            with("/Checks", json!({"x": 1})),
            with("/Checks", json!([{"CheckID": "x", "Status": 1}])),
            with("/Checks", json!([7])),
            json!({"Node": {"Address": ""}, "Service": {"Port": 1}, "Checks": [{"Status": "passing"}]}),
            json!({"Node": 5, "Service": {"Port": 1, "Address": ""}, "Checks": [{"Status": "passing"}]}),
        ];
        for bad in unusable {
            let (set, skipped) = decode(&json!([entry("b", "h", 2), bad, entry("c", "h", 3)]));
            assert_eq!((set.len(), skipped), (2, 1), "{bad}");
        }
    }

    #[test]
    fn consul_what_is_no_list_is_refused_as_a_whole() {
        let good = json!([entry("a", "h", 1)]).to_string().into_bytes();
        let mut not_utf8 = good.clone();
        let quoted = not_utf8.windows(2).position(|pair| pair == b"vm").unwrap();
        not_utf8[quoted] = 0xff;
        let trailing = [&good[..], b"[]"].concat();
        for bad in [&b""[..], b"<html>502</html>", b"null", b"{}", b"\"x\"", b"[", b"[]]", &not_utf8, &trailing] {
            let error = members(bad, "orders", "testing").unwrap_err();
            assert_eq!(error.code(), ErrorCode::MalformedAnswer, "{}", String::from_utf8_lossy(bad));
        }
        for cut in 0..good.len() {
            assert!(members(&good[..cut], "orders", "testing").is_err());
        }
        assert!(members(b" [] ", "orders", "testing").unwrap().0.is_empty());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            "Node|Service|Checks|Address|Port|Tags|Meta|Status|CheckID|id|incarnation".prop_map(String::from),
            any::<String>(),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(Value::from("passing")),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn consul_any_bytes_decode_without_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = members(&body, "orders", "testing");
            let _ = check_list(&body, "testing");
        }

        #[test]
        fn consul_any_list_decodes_and_every_entry_is_a_member_or_excluded_or_counted(list in prop::collection::vec(any_json(), 0..6)) {
            let length = list.len();
            let (set, skipped) = decode(&Value::from(list));
            prop_assert!(set.len() + skipped <= length);
        }

        #[test]
        fn consul_one_mangled_field_costs_one_entry_at_most(
            pointer in prop::sample::select(vec!["/Node", "/Service", "/Checks", "/Service/Port", "/Service/Meta", "/Service/Tags"]),
            value in any_json(),
        ) {
            let (set, _) = decode(&json!([entry("b", "h", 2), with(pointer, value), entry("c", "h", 3)]));
            prop_assert!(set.len() >= 2);
        }
    }
}
