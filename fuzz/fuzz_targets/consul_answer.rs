//! Any bytes as the bodies of a few answers, one after the other, in any pieces: nothing panics, the pieces do not
//! matter, a decoder that knows the answers before says the same as one that knows none, and what is taken for a list
//! is what a reader of JSON takes for one.
//!
//! An input is a byte that says how the bodies are made, one for the pieces, one for the limit of an entry, and text in
//! parts with a NUL between them, which no JSON has. The parts are bodies, or entries of which the first part's bytes
//! say which are in which body.

#![no_main]

use std::io::Read;

use cluster_provisioning::testkit::{ConsulDecoder, consul_check};
use cluster_provisioning::{Members, ProvisioningError};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Bytes that come in pieces of changing sizes.
struct Pieces<'a> {
    left: &'a [u8],
    seed: u32,
}

impl Read for Pieces<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        assert!(!room.is_empty(), "asked for nothing");
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = match self.seed >> 30 {
            0 => 1,
            1 => 1 + (self.seed >> 16 & 15) as usize,
            2 => 60 + (self.seed >> 16 & 15) as usize,
            _ => 1 + (self.seed >> 16 & 1023) as usize,
        };
        let count = room.len().min(most).min(self.left.len());
        room[..count].copy_from_slice(&self.left[..count]);
        self.left = &self.left[count..];
        Ok(count)
    }
}

type Decoded = Result<(Members, usize), ProvisioningError>;

fn told(decoded: &Decoded) -> Result<(&Members, usize), String> {
    decoded.as_ref().map(|(members, skipped)| (members, *skipped)).map_err(ToString::to_string)
}

fn bodies(how: u8, text: &[u8]) -> Vec<Vec<u8>> {
    let parts: Vec<&[u8]> = text.split(|byte| *byte == 0).collect();
    let [choices, entries @ ..] = &parts[..] else { return Vec::new() };
    if how & 1 == 0 || entries.is_empty() {
        return parts.iter().take(5).map(|part| part.to_vec()).collect();
    }
    let between: &[u8] = if how & 2 == 0 { b"," } else { b"\n  ,  " };
    let answers = choices.split(|byte| *byte == b'|').take(5);
    let answer = |chosen: &[u8]| {
        let entries: Vec<&[u8]> = chosen.iter().take(64).map(|byte| entries[*byte as usize % entries.len()]).collect();
        [b"[", &entries.join(between)[..], b"]"].concat()
    };
    answers.map(answer).collect()
}

fuzz_target!(|data: &[u8]| {
    let [how, pieces, limit, text @ ..] = data else { return };
    let limit = if limit % 4 == 0 { 8 + usize::from(*limit) } else { 1 << 20 };
    let mut warm = ConsulDecoder::with_limit("orders", limit);
    let mut last: Option<Members> = None;
    for body in bodies(*how, text) {
        let fresh = ConsulDecoder::with_limit("orders", limit).decode(&body[..]);
        let in_pieces = || Pieces { left: &body, seed: u32::from(*pieces) };
        let pieced = ConsulDecoder::with_limit("orders", limit).decode(in_pieces());
        assert_eq!(told(&fresh), told(&pieced), "the pieces matter");
        let next = warm.decode(in_pieces());
        assert_eq!(told(&fresh), told(&next), "what was before matters");
        if let Ok((members, _)) = &next {
            if let Some(last) = &last {
                for node in members.iter() {
                    let same = last.get(node.id()).filter(|same| *same == node);
                    assert!(same.is_none_or(|same| std::sync::Arc::ptr_eq(same, node)), "an equal node is not shared");
                }
            }
            last = Some(members.clone());
        }

        let check = consul_check(in_pieces());
        let value = serde_json::from_slice::<Value>(&body);
        if let Ok(Value::Array(list)) = &value {
            assert!(fresh.is_ok() && check.is_ok(), "a list is refused: {fresh:?} {check:?}");
            let (members, skipped) = fresh.as_ref().expect("asserted");
            assert!(members.len() + skipped <= list.len(), "more than there is");
        }
        let is_list = || serde_json::from_slice::<Vec<IgnoredAny>>(&body).is_ok();
        if check.is_ok() {
            assert!(is_list(), "the probe takes what is no list");
        }
        // What is beyond the limit is looked at only to find its end.
        if fresh.is_ok() && body.len() <= limit {
            assert!(is_list() && std::str::from_utf8(&body).is_ok(), "what is no list is taken");
        }
    }
});
