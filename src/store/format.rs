//! The bytes of the provider file: how a set becomes JSON Lines, and when such lines are believed.
//!
//! The first line is a header, each further line one definition:
//!
//! ```text
//! {"format":"cluster-provisioning/providers","version":1,"epoch":1700000000000,"count":1,"checksum":"…"}
//! {"id":"consul-a","kind":"consul","priority":100,"endpoints":["http://127.0.0.1:8500"]}
//! ```
//!
//! The count tells a file that was torn between two lines; the checksum (XXH3-64 over epoch, count, the names of those
//! that are pending, and all bytes after the header, in hexadecimal) tells one that is well-formed but was altered. Pure: bytes in, a set or a refusal out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{MAX_PROVIDERS, SAVING, StoredSet};
use crate::error::{ErrorCode, ProvisioningError};
use crate::id::ProviderId;
use crate::provider::ProviderDescriptor;

/// The greatest size of a file, in bytes.
pub(super) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// The longest reason that is passed on from a parser, in characters: it may quote what it read.
const MAX_REASON: usize = 200;

const FORMAT: &str = "cluster-provisioning/providers";
const VERSION: u64 = 1;
/// How every file of this format begins, whatever its version.
const BEGINNING: &[u8] = b"{\"format\":\"cluster-provisioning/providers\"";

/// Why bytes are not believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    /// Counted from 1.
    pub(super) line: Option<usize>,
    pub(super) reason: String,
}

/// What headers of every version have in common.
#[derive(Deserialize)]
struct Mark {
    format: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u64,
    epoch: u64,
    count: usize,
    /// Absent where there are none, as in files from before there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending: Vec<ProviderId>,
    checksum: String,
}

/// The file that holds this set.
///
/// # Errors
/// Refuses what [`decode`] would not give back.
pub(super) fn encode(set: &StoredSet) -> Result<Vec<u8>, ProvisioningError> {
    let refuse = |code, reason: String| ProvisioningError::new(code, SAVING, reason);
    let most = set.descriptors.len().max(set.pending.len());
    if most > MAX_PROVIDERS {
        let reason = format!("{most} definitions are more than the {MAX_PROVIDERS} allowed");
        return Err(refuse(ErrorCode::InvalidConfig, reason));
    }
    let unserializable = |error: serde_json::Error| refuse(ErrorCode::StoreIo, bounded(&error.to_string()));
    let mut ids = BTreeSet::new();
    let mut body = Vec::new();
    for descriptor in &set.descriptors {
        if !ids.insert(&descriptor.id) {
            let error = refuse(ErrorCode::DuplicateName, "the set holds it twice".to_owned())
                .with_advice("give each definition of the set a name of its own");
            return Err(error.with_provider(&descriptor.id));
        }
        serde_json::to_writer(&mut body, descriptor).map_err(unserializable)?;
        body.push(b'\n');
    }
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        epoch: set.epoch,
        count: set.descriptors.len(),
        pending: set.pending.clone(),
        checksum: checksum(set.epoch, set.descriptors.len(), &set.pending, &body),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(unserializable)?;
    bytes.push(b'\n');
    bytes.append(&mut body);
    if bytes.len() > MAX_BYTES {
        let reason = format!("the definitions take {} bytes, more than the {MAX_BYTES} allowed", bytes.len());
        return Err(refuse(ErrorCode::InvalidConfig, reason));
    }
    Ok(bytes)
}

/// The set that these bytes hold; all of it, as it was encoded, or a refusal.
pub(super) fn decode(bytes: &[u8]) -> Result<StoredSet, Refusal> {
    if bytes.is_empty() {
        return Err(corrupt(None, "the file is empty"));
    }
    let header_end = bytes.iter().position(|byte| *byte == b'\n');
    let header_line = &bytes[..header_end.unwrap_or(bytes.len())];
    check_mark(header_line)?;
    if bytes.len() > MAX_BYTES {
        return Err(corrupt(None, format!("the file is larger than {MAX_BYTES} bytes")));
    }
    let Some(header_end) = header_end else {
        return Err(corrupt(Some(1), "the line is torn: its end is missing"));
    };
    let header: Header = parse(1, header_line)?;
    let body = &bytes[header_end + 1..];
    if header.pending.len() > MAX_PROVIDERS {
        let reason = format!("{} pending definitions are more than the {MAX_PROVIDERS} allowed", header.pending.len());
        return Err(corrupt(Some(1), reason));
    }
    let descriptors = decode_body(header.count, body)?;
    if header.checksum != checksum(header.epoch, header.count, &header.pending, body) {
        let reason = "the checksum does not match: this line or one after it was altered since it was written";
        return Err(corrupt(Some(1), reason));
    }
    Ok(StoredSet { epoch: header.epoch, descriptors, pending: header.pending })
}

/// Tells our files from others and newer versions from this one, by the first line.
fn check_mark(line: &[u8]) -> Result<(), Refusal> {
    // A cut within the beginning, or the zeros that some file systems leave after a power cut, are damage to a file of
    // ours rather than somebody else's file.
    let damaged = !line.is_empty() && (BEGINNING.starts_with(line) || line.iter().all(|byte| *byte == 0));
    let mark = serde_json::from_slice::<Mark>(line);
    let ours = damaged || line.starts_with(BEGINNING) || mark.as_ref().is_ok_and(|mark| mark.format == FORMAT);
    if !ours {
        let reason = format!("it is no header of the format {FORMAT}");
        return Err(Refusal { code: ErrorCode::StoreForeign, line: Some(1), reason });
    }
    match mark {
        Ok(mark) if mark.version > VERSION => {
            let reason = format!("the file has version {}; this program knows version {VERSION}", mark.version);
            Err(Refusal { code: ErrorCode::StoreVersion, line: Some(1), reason })
        }
        Ok(mark) if mark.version < VERSION => Err(corrupt(Some(1), format!("there is no version {}", mark.version))),
        Ok(_) => Ok(()),
        Err(error) => Err(corrupt(Some(1), of_line(&error))),
    }
}

fn decode_body(count: usize, body: &[u8]) -> Result<Vec<ProviderDescriptor>, Refusal> {
    if count > MAX_PROVIDERS {
        let reason = format!("{count} definitions are more than the {MAX_PROVIDERS} allowed");
        return Err(corrupt(Some(1), reason));
    }
    let mut descriptors: Vec<ProviderDescriptor> = Vec::new();
    let mut ids = BTreeSet::new();
    for (index, line) in body.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = index + 2;
        if index >= count {
            return Err(corrupt(Some(number), format!("the header counts {count} definitions, but more follow")));
        }
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err(corrupt(Some(number), "the line is torn: its end is missing"));
        };
        let descriptor: ProviderDescriptor = parse(number, line)?;
        if !ids.insert(descriptor.id.clone()) {
            return Err(corrupt(Some(number), format!("the provider {} is defined twice", descriptor.id)));
        }
        descriptors.push(descriptor);
    }
    if descriptors.len() < count {
        let reason = format!("the header counts {count} definitions, but the file ends after {}", descriptors.len());
        return Err(corrupt(Some(descriptors.len() + 1), reason));
    }
    Ok(descriptors)
}

fn parse<'de, T: Deserialize<'de>>(number: usize, line: &'de [u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(line).map_err(|_| corrupt(Some(number), "it is not UTF-8"))?;
    serde_json::from_str(text).map_err(|error| corrupt(Some(number), of_line(&error)))
}

fn checksum(epoch: u64, count: usize, pending: &[ProviderId], body: &[u8]) -> String {
    let mut hasher = Xxh3::new();
    hasher.update(&epoch.to_le_bytes());
    hasher.update(&(count as u64).to_le_bytes());
    for id in pending {
        hasher.update(id.as_str().as_bytes());
        hasher.update(b"\n");
    }
    hasher.update(body);
    format!("{:016x}", hasher.digest())
}

fn corrupt(line: Option<usize>, reason: impl Into<String>) -> Refusal {
    Refusal { code: ErrorCode::StoreCorrupt, line, reason: reason.into() }
}

/// The parser's reason. It saw one line only, and its "line 1" would contradict the file's line that is named beside it.
fn of_line(error: &serde_json::Error) -> String {
    bounded(&error.to_string().replace(" at line 1 column ", " at column "))
}

fn bounded(reason: &str) -> String {
    reason.chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKind;
    use crate::provider::Credential;
    use proptest::prelude::*;

    fn example() -> StoredSet {
        let descriptor = |id, priority| {
            ProviderDescriptor::new(id, ProviderKind::consul())
                .unwrap()
                .priority(priority)
                .endpoint("http://127.0.0.1:8500")
                .credential(Credential::TokenFile("/run/secrets/töken\n".to_owned()))
                .parameter("service", "orders")
        };
        let descriptors = vec![descriptor("a", 100), descriptor("b", 10)];
        StoredSet { epoch: 1_700_000_000_000, descriptors, pending: Vec::new() }
    }

    fn edited(edit: impl FnOnce(&mut Vec<String>)) -> Refusal {
        let text = String::from_utf8(encode(&example()).unwrap()).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        edit(&mut lines);
        decode((lines.join("\n") + "\n").as_bytes()).unwrap_err()
    }

    #[test]
    fn p1_5_the_format_is_the_documented_one() {
        let text = String::from_utf8(encode(&example()).unwrap()).unwrap();
        let (header, body) = text.split_once('\n').unwrap();
        assert_eq!(
            header,
            "{\"format\":\"cluster-provisioning/providers\",\"version\":1,\"epoch\":1700000000000,\"count\":2,\
             \"checksum\":\"ed0cbb2215c5264f\"}"
        );
        assert_eq!(
            body.lines().next().unwrap(),
            "{\"id\":\"a\",\"kind\":\"consul\",\"priority\":100,\"endpoints\":[\"http://127.0.0.1:8500\"],\
             \"credential\":{\"token-file\":\"/run/secrets/töken\\n\"},\"parameters\":{\"service\":\"orders\"}}"
        );
    }

    #[test]
    fn p1_5_every_kind_of_damage_is_named_with_its_line() {
        let at = |refusal: Refusal, line, reason: &str| {
            assert_eq!((refusal.code, refusal.line), (ErrorCode::StoreCorrupt, Some(line)), "{refusal:?}");
            assert!(refusal.reason.contains(reason), "{refusal:?}");
        };
        at(edited(|lines| lines.truncate(2)), 2, "counts 2 definitions, but the file ends after 1");
        at(edited(|lines| lines.truncate(1)), 1, "the file ends after 0");
        at(edited(|lines| lines.push(lines[1].replace("\"a\"", "\"c\""))), 4, "but more follow");
        at(edited(|lines| lines[2] = lines[1].clone()), 3, "the provider a is defined twice");
        at(edited(|lines| lines[2] = lines[2].replace("\"b\"", "\"-b\"")), 3, "does not begin with");
        at(edited(|lines| lines[1] = lines[1].replace("\"kind\"", "\"sort\"")), 2, "unknown field");
        at(edited(|lines| lines[1].truncate(20)), 2, "EOF");
        at(edited(|lines| lines[1] = lines[1].replace("100", "900")), 1, "checksum");
        at(edited(|lines| lines[0] = lines[0].replace("1700000000000", "1700000000001")), 1, "checksum");
        at(edited(|lines| lines[0] = lines[0].replace("\"count\":2", "\"count\":999999")), 1, "more than the 256");
        at(edited(|lines| lines[0] = lines[0].replace("\"version\":1", "\"version\":0")), 1, "no version 0");
        at(edited(|lines| lines[0] = lines[0].replace("\"epoch\"", "\"time\"")), 1, "unknown field");

        let bytes = encode(&example()).unwrap();
        at(decode(&bytes[..bytes.len() - 1]).unwrap_err(), 3, "torn");
        at(decode(&[0; 4096]).unwrap_err(), 1, "");
        let mut foreign_text = bytes.clone();
        let umlaut = foreign_text.iter().position(|byte| *byte == 0xC3).unwrap();
        foreign_text[umlaut] = 0xFF;
        at(decode(&foreign_text).unwrap_err(), 2, "UTF-8");
        assert_eq!(decode(b"").unwrap_err().line, None);
    }

    #[test]
    fn p1_5_somebody_elses_file_is_told_from_a_damaged_one() {
        for foreign in [&b"hello\n"[..], b"{}\n", b"\n", b"\xFF\xFE\n", b"{\"format\":\"other\",\"version\":1}\n"] {
            let code = decode(foreign).map_err(|refusal| refusal.code);
            assert_eq!(code, Err(ErrorCode::StoreForeign), "{}", String::from_utf8_lossy(foreign));
        }
        let spaced = b"{ \"version\": 7, \"format\": \"cluster-provisioning/providers\" }\n";
        assert_eq!(decode(spaced).unwrap_err().code, ErrorCode::StoreVersion);
    }

    #[test]
    fn p1_5_a_set_too_large_to_be_loaded_is_not_written() {
        let mut set = example();
        set.descriptors[0].endpoints = vec!["x".repeat(MAX_BYTES)];
        assert_eq!(encode(&set).unwrap_err().code(), ErrorCode::InvalidConfig);
    }

    #[test]
    fn p1_5_every_truncation_and_every_flipped_bit_of_a_file_is_noticed() {
        let bytes = encode(&example()).unwrap();
        for end in 0..bytes.len() {
            let code = decode(&bytes[..end]).map_err(|refusal| refusal.code);
            assert_eq!(code, Err(ErrorCode::StoreCorrupt), "cut at {end}");
        }
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut altered = bytes.clone();
                altered[position] ^= 1 << bit;
                assert!(decode(&altered).is_err(), "bit {bit} of byte {position}");
            }
        }
    }

    fn any_descriptor() -> impl Strategy<Value = ProviderDescriptor> {
        let credential = prop_oneof![
            Just(Credential::None),
            any::<String>().prop_map(Credential::TokenFile),
            any::<String>().prop_map(Credential::TokenEnv),
            any::<String>().prop_map(Credential::Secret),
        ];
        let parameters = proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4);
        let endpoints = proptest::collection::vec(any::<String>(), 0..4);
        ("[a-z0-9]{1,12}", "[a-z]{1,8}", any::<i64>(), endpoints, credential, parameters).prop_map(
            |(id, kind, priority, endpoints, credential, parameters)| ProviderDescriptor {
                priority,
                endpoints,
                credential,
                parameters,
                ..ProviderDescriptor::new(id, ProviderKind::new(kind).unwrap()).unwrap()
            },
        )
    }

    fn any_set() -> impl Strategy<Value = StoredSet> {
        let descriptors = proptest::collection::vec(any_descriptor(), 0..5);
        let pending = proptest::collection::vec("[a-z0-9]{1,12}", 0..4);
        (any::<u64>(), descriptors, pending).prop_map(|(epoch, mut descriptors, pending)| {
            let mut ids = BTreeSet::new();
            descriptors.retain(|descriptor| ids.insert(descriptor.id.clone()));
            let pending = pending.into_iter().map(|id| ProviderId::new(id).unwrap()).collect();
            StoredSet { epoch, descriptors, pending }
        })
    }

    proptest! {
        #[test]
        fn p1_5_any_set_comes_back_as_it_was(set in any_set()) {
            prop_assert_eq!(decode(&encode(&set).unwrap()), Ok(set));
        }

        #[test]
        fn p1_5_any_damage_is_noticed_or_harmless(
            set in any_set(),
            cut in any::<prop::sample::Index>(),
            position in any::<prop::sample::Index>(),
            value in any::<u8>(),
        ) {
            let bytes = encode(&set).unwrap();
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
            let mut altered = bytes.clone();
            altered[position.index(bytes.len())] = value;
            if let Ok(loaded) = decode(&altered) {
                prop_assert_eq!(loaded, set);
            }
        }

        #[test]
        fn p1_5_no_bytes_at_all_make_the_decoder_panic(tail in any::<Vec<u8>>()) {
            let mut bytes = BEGINNING.to_vec();
            bytes.extend(&tail);
            let _ = (decode(&bytes), decode(&tail));
        }
    }
}
