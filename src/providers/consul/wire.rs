//! What an answer's body says.
//!
//! The body is decoded as it arrives and never held as a whole: `crate::json` finds its entries, `entry` says what one of
//! them means, and `known` remembers the entries of the last answer, most of which are in the next one, too. Decided here: an answer that is no JSON list is an error as a whole, while an entry that cannot
//! be used, and one of more than 1 MiB, is skipped and counted; of several entries of one node the latest life counts;
//! and a set shares with the one before what is equal in both.

mod entry;
mod known;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::de::IgnoredAny;

use self::entry::Entry;
use self::known::{Comparison, Difference, Hashing, Known, Outcome, Unknown};
use super::lineage::Lineage;
use crate::error::ProvisioningError;
use crate::json::{self, Body, MAX_ELEMENT, Next, Scanner};
use crate::topology::{ClusterNode, Members};

/// What an answer is, for errors.
const EXPECTED: &str = "list of health entries";

/// Decodes the answers for one service, one after the other.
pub(crate) struct Decoder {
    service: String,
    max_entry: usize,
    hashing: Hashing,
    last: Last,
}

/// What the last good answer was.
#[derive(Default)]
struct Last {
    entries: Vec<Known>,
    members: Members,
    /// How many of the entries are unusable or have another's node id.
    skipped: usize,
    /// Whether none has another's node id.
    distinct: bool,
    lineage: Lineage,
}

impl Decoder {
    /// A decoder that knows no answer yet.
    pub(crate) fn new(service: &str) -> Self {
        Self::with_limit(service, MAX_ELEMENT)
    }

    /// The same with another limit for entries.
    pub(crate) fn with_limit(service: &str, max_entry: usize) -> Self {
        Self { service: service.to_owned(), max_entry, hashing: Hashing::new(), last: Last::default() }
    }

    /// The members in a body that `read` gives piece by piece, and how many entries were skipped. What is equal to the
    /// last answer, or to the members that are `believed`, is shared with them. After an error the last answer stays the
    /// one before.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedAnswer`] if the body is no JSON list, and those of `read`.
    pub(crate) fn decode(
        &mut self,
        read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
        believed: Option<&Members>,
        doing: &str,
    ) -> Result<(Members, usize), ProvisioningError> {
        let mut body = Body::new(Scanner::new(self.max_entry), read, doing, EXPECTED);
        let mut comparison = Comparison::new(&self.hashing, &self.last.entries);
        let mut too_large = 0;
        while body.next()? == Next::Element {
            if let Some(length) = comparison.meet(body.peek(comparison.needed())?) {
                body.pass(length);
                continue;
            }
            let found = body.element(|bytes| {
                let Some(unknown) = comparison.find(bytes) else { return Ok(()) };
                let entry = entry::read(bytes, &self.service)?;
                comparison.add(self.last.known(unknown, entry, believed));
                Ok(())
            })?;
            too_large += usize::from(found.is_none());
        }
        match comparison.finish() {
            Outcome::Same => self.last.lineage.set_renewed(false),
            Outcome::Differs(difference) => self.last.become_of(difference, believed),
        }
        Ok((self.last.members.clone(), self.last.skipped + too_large))
    }

    /// Where the members of the last good answer come from.
    pub(super) fn lineage(&self) -> &Lineage {
        &self.last.lineage
    }
}

/// Whether the body that `read` gives piece by piece is a JSON list, as a probe's has to be.
///
/// # Errors
/// [`ErrorCode::MalformedAnswer`] if it is not, and those of `read`.
pub(crate) fn check_list(
    read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
    doing: &str,
) -> Result<(), ProvisioningError> {
    let mut body = Body::new(Scanner::new(MAX_ELEMENT), read, doing, EXPECTED);
    while body.next()? == Next::Element {
        body.element(|bytes| json::read::<IgnoredAny>(bytes))?;
    }
    Ok(())
}

impl Last {
    /// What an entry is that the last answer did not have. A node that it had, or that is believed, is that very node.
    fn known(&self, unknown: Unknown, entry: Entry, believed: Option<&Members>) -> Known {
        let (node, created) = match entry {
            Entry::Member(node, created) => (node, created),
            Entry::NoMember => return unknown.no_member(true),
            Entry::Unusable => return unknown.no_member(false),
        };
        let same = [Some(&self.members), believed].into_iter().flatten().find_map(|members| {
            let same = members.get(node.id()).filter(|same| ***same == node);
            same.cloned()
        });
        unknown.member(same.unwrap_or_else(|| Arc::new(node)), created)
    }

    /// Becomes the answer that differs from it so.
    fn become_of(&mut self, difference: Difference, believed: Option<&Members>) {
        let members = self.changed_by(&difference);
        let renewed = difference.renews(&self.entries);
        self.entries = difference.into_entries(std::mem::take(&mut self.entries));
        let unusable = self.entries.iter().filter(|entry| !entry.is_usable()).count();
        let (members, duplicates) = match members {
            Some(members) => (members, 0),
            None if self.members.is_empty() => of(&self.entries),
            // Of entries that say the same in other words another one may have been chosen.
            None => {
                let (members, duplicates) = of(&self.entries);
                (members.shared_with(&self.members), duplicates)
            }
        };
        let known = [Some(&self.members), believed].into_iter().flatten().find(|known| **known == members);
        self.members = known.cloned().unwrap_or(members);
        (self.skipped, self.distinct) = (unusable + duplicates, duplicates == 0);
        self.lineage = Lineage::default();
        self.lineage.set_renewed(renewed);
        for (node, created) in self.entries.iter().filter_map(|entry| Some((entry.node()?, entry.created()))) {
            self.lineage.add(node.id(), created);
        }
    }

    /// The members after a change of a few, if none of them has another's node id.
    fn changed_by(&self, difference: &Difference) -> Option<Members> {
        let few = self.members.len() / 4;
        let changes = difference.gone(&self.entries).chain(difference.come()).take(few + 1).count();
        if !self.distinct || changes > few {
            return None;
        }
        let gone: BTreeSet<_> = difference.gone(&self.entries).map(|node| node.id()).collect();
        let mut come = BTreeSet::new();
        for node in difference.come() {
            let is_known = self.members.contains(node.id()) && !gone.contains(node.id());
            if is_known || !come.insert(node.id()) {
                return None;
            }
        }
        let mut members = self.members.clone();
        for id in gone.difference(&come) {
            members.remove(id);
        }
        for node in difference.come() {
            members.insert(Arc::clone(node));
        }
        Some(members)
    }
}

/// The members among the entries, and how many have a node id that another has, too.
fn of(entries: &[Known]) -> (Members, usize) {
    let mut nodes: Vec<_> = Vec::with_capacity(entries.iter().filter_map(Known::node).count());
    nodes.extend(entries.iter().filter_map(Known::node).map(Arc::clone));
    // Consul promises no order. Of several entries with one node id the latest life wins, whatever the order, so that
    // what is left over from an earlier registration does not alternate with the present one.
    nodes.sort_unstable_by(|a, b| {
        let key = |node: &ClusterNode| (Reverse(node.incarnation()), node.port());
        let same_place = || a.address().cmp(b.address()).then_with(|| a.hash().cmp(&b.hash()));
        a.id().cmp(b.id()).then_with(|| key(a).cmp(&key(b))).then_with(same_place)
    });
    Members::from_nodes(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;
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

    type Decoded = Result<(Members, usize), ProvisioningError>;

    /// The body in pieces of that size at most.
    fn pieces(mut body: &[u8], piece: usize) -> impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError> {
        move |room| {
            let count = room.len().min(piece).min(body.len());
            room[..count].copy_from_slice(&body[..count]);
            body = &body[count..];
            Ok(count)
        }
    }

    fn decode_in(decoder: &mut Decoder, body: &[u8], piece: usize) -> Decoded {
        decoder.decode(pieces(body, piece), None, "testing")
    }

    /// What was decoded, errors with their place.
    fn told(decoded: &Decoded) -> Result<(&Members, usize), String> {
        decoded.as_ref().map(|(members, skipped)| (members, *skipped)).map_err(ToString::to_string)
    }

    fn members(body: &[u8], service: &str) -> Result<(Members, usize), ProvisioningError> {
        decode_in(&mut Decoder::new(service), body, usize::MAX)
    }

    fn decode(value: &Value) -> (Members, usize) {
        members(value.to_string().as_bytes(), "orders").unwrap()
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
    fn consul_point_12_an_empty_id_is_none_and_no_metadata_either() {
        let (set, skipped) = decode(&json!([with("/Service/Meta/id", json!(""))]));
        let nodes: Vec<_> = set.iter().map(|node| format!("{node:?}")).collect();
        assert_eq!((nodes, skipped), (vec![String::from(r#"orders@h:1#0@h:1["user"]"#)], 0));
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
    fn consul_point_8_a_member_that_registered_again_in_the_same_life_shows() {
        let created = |id: &str, index: u64, incarnation: &str| {
            let mut entry = entry(id, "h", 1);
            entry["Service"]["CreateIndex"] = json!(index);
            entry["Service"]["Meta"]["incarnation"] = json!(incarnation);
            entry
        };
        let renewed = |second: Value| {
            let mut decoder = Decoder::new("orders");
            let first = json!([created("a", 10, "1"), created("b", 11, "1")]).to_string();
            decode_in(&mut decoder, first.as_bytes(), usize::MAX).unwrap();
            assert!(!decoder.lineage().is_renewed());
            decode_in(&mut decoder, second.to_string().as_bytes(), usize::MAX).unwrap();
            let renewed = decoder.lineage().is_renewed();
            // It is told of that answer alone.
            decode_in(&mut decoder, second.to_string().as_bytes(), usize::MAX).unwrap();
            assert!(!decoder.lineage().is_renewed());
            renewed
        };
        assert!(renewed(json!([created("b", 20, "1")])));
        assert!(renewed(json!([created("a", 10, "1"), created("b", 20, "1")])));
        assert!(!renewed(json!([created("b", 11, "1")])), "it kept its entry");
        assert!(!renewed(json!([created("b", 20, "2")])), "it is another life");
        assert!(!renewed(json!([created("c", 20, "1")])), "it is new");
        let mut changed = created("b", 11, "1");
        changed["Checks"][0]["Output"] = json!("another");
        assert!(!renewed(json!([changed])), "something else of it changed");
        let mut silent = created("b", 0, "1");
        silent["Service"]["Meta"]["zone"] = json!("z");
        assert!(!renewed(json!([silent])), "the server names no indexes");
    }

    #[test]
    fn consul_point_8_the_lineage_is_that_of_the_last_good_answer_also_where_entries_are_known() {
        let created = |id: &str, index: Value| {
            let mut entry = entry(id, "h", 1);
            entry["Service"]["CreateIndex"] = index;
            entry
        };
        let expected = |entries: &[(&str, u64)]| {
            let mut lineage = Lineage::default();
            entries.iter().for_each(|(id, index)| lineage.add(&crate::topology::NodeId::new(*id).unwrap(), *index));
            lineage
        };
        let mut decoder = Decoder::new("orders");
        let mut critical = created("z", json!(3));
        critical["Checks"][0]["Status"] = json!("critical");
        let odd = [created("x", json!("7")), created("y", Value::Null), critical];
        let first = json!([created("a", json!(10)), created("b", json!(11)), odd[0], odd[1], odd[2]]).to_string();
        let (members, skipped) = decode_in(&mut decoder, first.as_bytes(), usize::MAX).unwrap();
        assert_eq!((members.len(), skipped), (4, 0), "an odd index costs no member");
        assert_eq!(*decoder.lineage(), expected(&[("a", 10), ("b", 11)]));
        assert!(decode_in(&mut decoder, b"[", usize::MAX).is_err());
        decode_in(&mut decoder, first.as_bytes(), usize::MAX).unwrap();
        assert_eq!(*decoder.lineage(), expected(&[("a", 10), ("b", 11)]));
        let again = json!([created("a", json!(20)), created("b", json!(11))]).to_string();
        decode_in(&mut decoder, again.as_bytes(), usize::MAX).unwrap();
        let mut renewed = expected(&[("a", 20), ("b", 11)]);
        renewed.set_renewed(true);
        assert_eq!(*decoder.lineage(), renewed);
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
            with("/Service/Address", json!("http://h/")),
            with("/Service/Meta", json!({"id": "a\u{202e}b"})),
            with("/Service/Meta", json!({"id": "a", "k\u{200b}": "v"})),
            with("/Service/Tags", json!(["a\u{2028}b"])),
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
            let error = members(bad, "orders").unwrap_err();
            assert_eq!(error.code(), ErrorCode::MalformedAnswer, "{}", String::from_utf8_lossy(bad));
        }
        for cut in 0..good.len() {
            for piece in [1, 64, usize::MAX] {
                let error = decode_in(&mut Decoder::new("orders"), &good[..cut], piece).unwrap_err();
                assert_eq!(error.code(), ErrorCode::MalformedAnswer);
                assert!(error.detail().ends_with(&format!("too early (byte {cut})")), "{error}");
                assert!(check_list(pieces(&good[..cut], piece), "testing").is_err());
            }
        }
        assert!(members(b" [] ", "orders").unwrap().0.is_empty());
        assert!(check_list(pieces(&good, 3), "testing").is_ok());
    }

    #[test]
    fn consul_what_is_malformed_within_an_entry_is_told_with_its_place() {
        for (body, at) in [
            (&b"[{\"a\": tru}]"[..], 10),
            (b"[{}, {\n\"a\": [1 2]}]", 15),
            (b"[{}, {\"a\": 1]]", 12),
            (b"[nul]", 3),
            (b"[{\"a\": \"\xff\"}]", 8),
            (b"[{\"Port\": 01}]", 11),
        ] {
            let error = members(body, "orders").unwrap_err();
            assert_eq!(error.code(), ErrorCode::MalformedAnswer);
            assert!(error.detail().ends_with(&format!("(byte {at})")), "{at}: {error}");
        }
    }

    #[test]
    fn consul_of_a_key_that_comes_twice_the_last_counts_and_escapes_are_resolved() {
        let body = r#"[{"Service": {"Port": 1, "P\u006frt": 2, "Address": "\u0068o",
            "Meta": {"id": "b", "\u0069d": "a\"\\/", "k\"": "\ud83d\ude00"}},
            "Checks": [{"Status": "critical"}], "Checks": [{"Status": "pass\u0069ng", "Output": "\ud83d \u0000"}]}]"#;
        let (set, skipped) = members(body.as_bytes(), "orders").unwrap();
        let nodes: Vec<_> = set.iter().map(|node| format!("{node:?}")).collect();
        assert_eq!((nodes, skipped), (vec![String::from("a\"\\/#0@ho:2[]{\"k\\\"\": \"😀\"}")], 0));
    }

    #[test]
    fn consul_blanks_do_not_matter() {
        let list = json!([entry("a", "h", 1), 7, entry("b", "h", 2)]);
        let pretty = serde_json::to_string_pretty(&list).unwrap();
        let windows = format!("\r\n {}\t ", pretty.replace('\n', "\r\n\t"));
        for body in [list.to_string(), pretty, windows] {
            assert_eq!(members(body.as_bytes(), "orders").unwrap(), decode(&list));
        }
    }

    #[test]
    fn consul_an_entry_too_large_is_counted_and_costs_no_other() {
        let mut large = entry("l", "h", 3);
        large["Checks"][0]["Output"] = json!("x\"]}".repeat(500));
        let body = json!([entry("a", "h", 1), large, entry("b", "h", 2)]).to_string();
        let mut decoder = Decoder::with_limit("orders", 1000);
        let first = decode_in(&mut decoder, body.as_bytes(), 100).unwrap();
        assert_eq!((first.0.len(), first.1), (2, 1));
        let again = decode_in(&mut decoder, body.as_bytes(), 100).unwrap();
        assert!(again.0.is_same(&first.0));
        assert_eq!(again.1, 1);
        let without = json!([entry("a", "h", 1), entry("b", "h", 2)]).to_string();
        let less = decode_in(&mut decoder, without.as_bytes(), 100).unwrap();
        assert!(less.0.is_same(&first.0));
        assert_eq!(less.1, 0);
    }

    #[test]
    fn consul_an_unchanged_answer_is_the_very_set_of_the_one_before() {
        let mut decoder = Decoder::new("orders");
        let mut list: Vec<_> = (0..40).map(|number| entry(&format!("n{number:02}"), "h", 1 + number)).collect();
        let mut decode = |list: &[Value]| decode_in(&mut decoder, json!(list).to_string().as_bytes(), 999).unwrap().0;
        let first = decode(&list);
        assert!(decode(&list).is_same(&first));
        // Nor is it another one if only what is none of the node's has changed, or the order.
        list[7]["Checks"][0]["Output"] = json!("other");
        assert!(decode(&list).is_same(&first));
        list.reverse();
        assert!(decode(&list).is_same(&first));
        list[3]["Service"]["Port"] = json!(777);
        let changed = decode(&list);
        let same = first.iter().zip(changed.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!((changed.len(), same), (40, 39));
    }

    #[test]
    fn consul_an_answer_that_lost_most_of_its_entries_has_those_that_are_left() {
        let list: Vec<_> = (0..40).map(|number| entry(&format!("n{number:02}"), "h", 1 + number)).collect();
        for left in [&list[..2], &list[20..21], &list[38..]] {
            let mut decoder = Decoder::new("orders");
            decode_in(&mut decoder, json!(list).to_string().as_bytes(), 999).unwrap();
            let less = decode_in(&mut decoder, json!(left).to_string().as_bytes(), 999).unwrap();
            assert_eq!(less, decode(&json!(left)));
        }
    }

    #[test]
    fn consul_an_answer_that_fails_leaves_the_one_before_and_its_error_is_the_readers() {
        let mut decoder = Decoder::new("orders");
        let good = json!([entry("a", "h", 1), entry("b", "h", 2), entry("c", "h", 3), entry("d", "h", 4)]).to_string();
        let first = decode_in(&mut decoder, good.as_bytes(), 50).unwrap();
        let other = json!([entry("x", "h", 1), entry("a", "h", 1), entry("b", "h", 9)]).to_string();
        for cut in [1, 100, other.len() - 1] {
            let mut rest = pieces(&other.as_bytes()[..cut], 60);
            let breaks = |room: &mut [u8]| match rest(room) {
                Ok(0) => Err(ProvisioningError::new(ErrorCode::AnswerTooLarge, "testing", "reading")),
                read => read,
            };
            let error = decoder.decode(breaks, None, "testing").unwrap_err();
            assert_eq!(error.code(), ErrorCode::AnswerTooLarge);
            assert!(decode_in(&mut decoder, &other.as_bytes()[..cut], 60).is_err());
        }
        assert!(decode_in(&mut decoder, good.as_bytes(), 50).unwrap().0.is_same(&first.0));
    }

    #[test]
    fn consul_a_node_stays_the_very_same_when_another_entry_says_it_in_other_words() {
        let mut decoder = Decoder::new("orders");
        let mut decode = |list: Value| decode_in(&mut decoder, list.to_string().as_bytes(), 999).unwrap().0;
        let words = |output: &str| with("/Checks/0/Output", json!(output));
        let first = decode(json!([words("one"), words("other")]));
        for list in [json!([words("other")]), json!([words("one")]), json!([words("other"), words("one"), words("x")])]
        {
            assert!(decode(list).is_same(&first));
        }
        decode(json!([words("other"), entry("b", "h", 2)]));
        let last = decode(json!([entry("c", "h", 3), words("other"), entry("d", "h", 2), entry("e", "h", 2)]));
        assert!(Arc::ptr_eq(last.iter().next().unwrap(), first.iter().next().unwrap()));
    }

    #[test]
    fn consul_a_decoder_that_knows_nothing_shares_with_what_is_believed() {
        let body = json!([entry("a", "h", 1), entry("b", "h", 2)]).to_string();
        let believed = members(body.as_bytes(), "orders").unwrap().0;
        let mut decoder = Decoder::new("orders");
        let read = pieces(body.as_bytes(), 10);
        assert!(decoder.decode(read, Some(&believed), "testing").unwrap().0.is_same(&believed));
        let body = json!([entry("a", "h", 1), entry("b", "h", 3)]).to_string();
        let read = pieces(body.as_bytes(), 10);
        let (members, _) = Decoder::new("orders").decode(read, Some(&believed), "testing").unwrap();
        let id = &crate::topology::NodeId::new("a").unwrap();
        assert!(Arc::ptr_eq(members.get(id).unwrap(), believed.get(id).unwrap()));
    }

    /// One of a few entries, so that they come again, move, change and come twice.
    fn any_entry() -> impl Strategy<Value = Value> {
        let kind = prop_oneof![20 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
        (0..12u16, 0..3u64, kind, 0..2u8).prop_map(|(id, life, kind, output)| {
            let mut entry = entry(&format!("n{id}"), "h", 1 + id);
            entry["Service"]["Meta"]["incarnation"] = json!(life.to_string());
            entry["Checks"][0]["Output"] = json!("x".repeat(output.into()));
            match kind {
                1 => entry["Service"]["Port"] = json!(0),
                2 => entry["Checks"][0]["Status"] = json!("critical"),
                3 => return json!(id),
                _ => {}
            }
            entry
        })
    }

    /// Answers that come one after the other: each by a few changes to the one before.
    fn any_answers() -> impl Strategy<Value = Vec<Vec<Value>>> {
        let change = (any::<prop::sample::Index>(), 0..5u8, any_entry());
        let changes = prop::collection::vec(prop::collection::vec(change, 0..4), 1..8);
        (prop::collection::vec(any_entry(), 0..40), changes).prop_map(|(mut list, changes)| {
            let mut answers = vec![list.clone()];
            for changes in changes {
                for (place, what, entry) in changes {
                    let place = place.index(list.len() + 1);
                    match what {
                        0 => list.insert(place, entry),
                        1 if place < list.len() => list[place] = entry,
                        2 if place < list.len() => drop(list.remove(place)),
                        3 => list.rotate_left(place),
                        4 if place < list.len() => list.push(list[place].clone()),
                        _ => {}
                    }
                }
                answers.push(list.clone());
            }
            answers
        })
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
            let _ = members(&body, "orders");
            let _ = check_list(pieces(&body, 7), "testing");
        }

        #[test]
        fn consul_the_pieces_in_which_a_body_comes_do_not_matter(
            list in prop::collection::vec(prop_oneof![any_entry(), any_json()], 0..6),
            pretty in any::<bool>(),
            mangled in prop::option::weighted(0.5, (any::<prop::sample::Index>(), any::<u8>())),
            piece in prop_oneof![1..5usize, 60..70usize, 1..2000usize],
        ) {
            let list = Value::from(list);
            let mut body = if pretty { serde_json::to_vec_pretty(&list).unwrap() } else { list.to_string().into_bytes() };
            if let Some((place, byte)) = mangled {
                let place = place.index(body.len());
                body[place] = byte;
            }
            let whole = decode_in(&mut Decoder::new("orders"), &body, usize::MAX);
            let pieced = decode_in(&mut Decoder::new("orders"), &body, piece);
            prop_assert_eq!(told(&whole), told(&pieced));
            prop_assert!(whole.is_err() || check_list(pieces(&body, piece), "testing").is_ok());
            if serde_json::from_slice::<Value>(&body).is_ok_and(|value| value.is_array()) {
                prop_assert!(whole.is_ok());
            }
            if serde_json::from_slice::<Vec<IgnoredAny>>(&body).is_err() {
                prop_assert!(whole.is_err());
            }
        }

        #[test]
        fn consul_what_is_known_of_earlier_answers_never_shows_in_a_later_one(
            answers in any_answers(),
            piece in 50..5000usize,
            failing in any::<prop::sample::Index>(),
        ) {
            let mut warm = Decoder::new("orders");
            let failing = failing.index(answers.len());
            let mut last: Option<Members> = None;
            for (number, answer) in answers.into_iter().enumerate() {
                let body = Value::from(answer).to_string();
                if number == failing {
                    prop_assert!(decode_in(&mut warm, &body.as_bytes()[..body.len() - 1], piece).is_err());
                }
                let fresh = members(body.as_bytes(), "orders");
                let known = decode_in(&mut warm, body.as_bytes(), piece);
                prop_assert_eq!(told(&fresh), told(&known));
                let known = known.unwrap().0;
                for node in last.iter().flat_map(Members::iter) {
                    let present = known.get(node.id()).filter(|present| *present == node);
                    prop_assert!(present.is_none_or(|present| Arc::ptr_eq(present, node)));
                }
                last = Some(known);
            }
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
