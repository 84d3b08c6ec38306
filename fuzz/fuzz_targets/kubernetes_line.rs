//! Any bytes as a watch, in any pieces, also where nothing is there for a while: nothing panics, the pieces do not
//! matter, and a line costs no other, so that a line of ours behind them is seen, unless they are no watch at all.
//!
//! An input is a byte that chooses the rules, one for the pieces, one for the limit of a line, and the body.

#![no_main]

use std::io::Read;

use cluster_provisioning::testkit::kubernetes_lines;
use libfuzzer_sys::fuzz_target;

/// Bytes that come in pieces of changing sizes, or not at all for once.
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
        if self.seed >> 8 & 7 == 0 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        let count = room.len().min(most).min(self.left.len());
        room[..count].copy_from_slice(&self.left[..count]);
        self.left = &self.left[count..];
        Ok(count)
    }
}

fuzz_target!(|data: &[u8]| {
    let [choice, pieces, limit, body @ ..] = data else { return };
    let limit = if limit % 4 == 0 { 70 + usize::from(*limit) } else { 1 << 20 };
    let body = [body, b"\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\"}}}\n"].concat();
    let whole = kubernetes_lines(*choice, limit, &body[..]);
    let pieced = kubernetes_lines(*choice, limit, Pieces { left: &body, seed: u32::from(*pieces) });
    assert_eq!(whole, pieced, "the pieces matter");
    let last = whole.last().map(String::as_str).unwrap_or_default();
    assert!(last == "Bookmark(\"7\")" || last.contains("is no watch"), "{last}");
    let lines = body.split(|byte| *byte == b'\n').count();
    assert!(whole.len() <= 2 * lines, "more than there is");
});
