//! Any bytes as a page of a list, in any pieces: nothing panics, the pieces do not matter, and what is taken for a list
//! is one, with as many objects at least as were found. The same bytes are a refusal's body, too.
//!
//! An input is a byte that chooses the rules, one for the pieces, one for the limit of an object, and the body.

#![no_main]

use std::collections::BTreeMap;
use std::io::Read;

use cluster_provisioning::testkit::{kubernetes_failure, kubernetes_page};
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

fuzz_target!(|data: &[u8]| {
    let [choice, pieces, limit, body @ ..] = data else { return };
    let limit = if limit % 4 == 0 { 8 + usize::from(*limit) } else { 1 << 20 };
    let whole = kubernetes_page(*choice, limit, body).map_err(|error| error.to_string());
    let pieced = kubernetes_page(*choice, limit, Pieces { left: body, seed: u32::from(*pieces) });
    assert_eq!(whole, pieced.map_err(|error| error.to_string()), "the pieces matter");
    kubernetes_failure(u16::from(*pieces) * 3, body);

    let Ok((_, objects, _)) = whole else { return };
    // What is beyond the limit is looked at only to find its end.
    if body.len() > limit {
        return;
    }
    assert!(std::str::from_utf8(body).is_ok(), "what is no text is taken");
    assert!(serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(body).is_ok(), "what is no map is taken");
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        assert!(value["metadata"]["resourceVersion"].is_string(), "what has no version is taken");
        assert!(value["items"].is_null() || value["items"].as_array().is_some_and(|items| objects <= items.len()));
    }
});
