//! Finds where a JSON list, map or text ends, however its bytes are cut into pieces.
//!
//! Looks at 64 bytes at once: which of them are quotes, and which open or close something, as one bit each, so that the
//! work hardly hangs on what the text is like. Whether what opens and closes belongs together is not looked at, nor where
//! a backslash is: the byte behind it opens and closes nothing, in a text or not.

/// How many bytes are looked at in one go; a mask has a bit for each.
const BLOCK: usize = 64;
/// 1 in each byte of a word.
const EACH: u64 = 0x0101_0101_0101_0101;
/// A bit of its own for each byte of a word.
const EIGHTFOLD: [u8; BLOCK] = {
    let mut bits = [1; BLOCK];
    let mut place = 0;
    while place < BLOCK {
        bits[place] = 1 << (place % 8);
        place += 1;
    }
    bits
};

/// It nests deeper than it may, from that byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooDeep(pub(crate) usize);

/// Where within a value the next byte is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nesting {
    /// How many lists and maps are open.
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Nesting {
    /// Reads on in a value that is a list, a map or a text, begun by the first byte ever given; how many bytes belong to
    /// it, if it ends here.
    ///
    /// # Errors
    /// If more than `deepest` lists and maps are open at once.
    pub(crate) fn end(&mut self, bytes: &[u8], deepest: usize) -> Result<Option<usize>, TooDeep> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let mut seen = 0;
        for block in blocks {
            let end = if self.depth > 0 { self.in_block(block, deepest) } else { self.by_bytes(block, deepest) };
            match end {
                Ok(None) => seen += BLOCK,
                Ok(Some(end)) => return Ok(Some(seen + end)),
                Err(TooDeep(at)) => return Err(TooDeep(seen + at)),
            }
        }
        match self.by_bytes(rest, deepest) {
            Ok(end) => Ok(end.map(|end| seen + end)),
            Err(TooDeep(at)) => Err(TooDeep(seen + at)),
        }
    }

    /// The same for a block at once, in a list or map.
    fn in_block(&mut self, block: &[u8; BLOCK], deepest: usize) -> Result<Option<usize>, TooDeep> {
        let found = Found::in_block(block);
        let escaped = self.escaped_by(found.backslashes);
        // Whether each byte is within a text, its opening quote included.
        let texts = parity(found.quotes & !escaped) ^ if self.in_text { u64::MAX } else { 0 };
        self.in_text = texts >> (BLOCK - 1) == 1;
        let plain = !(texts | escaped);
        let (opening, closing) = (found.opening & plain, found.closing & plain);
        let (opened, closed) = (opening.count_ones() as usize, closing.count_ones() as usize);
        if closed < self.depth && self.depth + opened <= deepest {
            self.depth = self.depth + opened - closed;
            return Ok(None);
        }
        let mut left = opening | closing;
        while left != 0 {
            let place = left.trailing_zeros() as usize;
            left &= left - 1;
            if opening >> place & 1 == 1 {
                self.depth += 1;
                if self.depth > deepest {
                    return Err(TooDeep(place));
                }
            } else {
                self.depth -= 1;
                if self.depth == 0 {
                    return Ok(Some(place + 1));
                }
            }
        }
        Ok(None)
    }

    /// Which bytes of a block with these backslashes are behind one that counts.
    fn escaped_by(&mut self, backslashes: u64) -> u64 {
        if backslashes == 0 && !self.escaped {
            return 0;
        }
        let mut escaped = u64::from(self.escaped);
        let mut left = backslashes & !escaped;
        self.escaped = false;
        while left != 0 {
            let first = left & left.wrapping_neg();
            self.escaped = first == 1 << (BLOCK - 1);
            escaped |= first << 1;
            left &= !(first | first << 1);
        }
        escaped
    }

    fn by_bytes(&mut self, bytes: &[u8], deepest: usize) -> Result<Option<usize>, TooDeep> {
        for (place, byte) in bytes.iter().enumerate() {
            if self.escaped {
                self.escaped = false;
                continue;
            }
            match (self.in_text, byte) {
                (_, b'\\') => {
                    self.escaped = true;
                    continue;
                }
                (true, b'"') => self.in_text = false,
                (true, _) => continue,
                (false, b'"') => {
                    self.in_text = true;
                    continue;
                }
                (false, b'[' | b'{') => {
                    self.depth += 1;
                    if self.depth > deepest {
                        return Err(TooDeep(place));
                    }
                }
                (false, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
                (false, _) => {}
            }
            if self.depth == 0 && !self.in_text {
                return Ok(Some(place + 1));
            }
        }
        Ok(None)
    }
}

/// Where in a block something is found: a bit for each byte, the lowest for the first.
struct Found {
    quotes: u64,
    opening: u64,
    closing: u64,
    backslashes: u64,
}

impl Found {
    fn in_block(block: &[u8; BLOCK]) -> Self {
        // Most blocks have none, which is cheaper to see than where they are.
        let any = block.iter().fold(false, |any, byte| any | (*byte == b'\\'));
        // Brackets and braces differ in one bit only.
        let folded = block.map(|byte| byte | 0x20);
        Self {
            quotes: places(block, b'"'),
            opening: places(&folded, b'{'),
            closing: places(&folded, b'}'),
            backslashes: if any { places(block, b'\\') } else { 0 },
        }
    }
}

/// Where in the block that byte is.
fn places(block: &[u8; BLOCK], wanted: u8) -> u64 {
    let mut marks = [0; BLOCK];
    for ((mark, byte), bit) in marks.iter_mut().zip(block).zip(EIGHTFOLD) {
        *mark = if *byte == wanted { bit } else { 0 };
    }
    // The sum of eight different bits is all of them in one byte.
    let bytes = marks.as_chunks::<8>().0.iter().map(|eight| u64::from_le_bytes(*eight).wrapping_mul(EACH) >> 56);
    bytes.rev().fold(0, |mask, byte| mask << 8 | byte)
}

/// For each bit, whether the number of bits set up to it, itself included, is odd.
fn parity(mut mask: u64) -> u64 {
    for distance in [1, 2, 4, 8, 16, 32] {
        mask ^= mask << distance;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks_have_a_bit_for_each_byte_of_its_kind() {
        for wanted in 0..=255u8 {
            let mut block = [b' '; BLOCK];
            for place in [0, 7, 8, 31, 63] {
                block[place] = wanted;
            }
            let mask = 1 | 1 << 7 | 1 << 8 | 1 << 31 | 1 << 63;
            let found = Found::in_block(&block);
            let expected = |kinds: &[u8]| if kinds.contains(&wanted) { mask } else { 0 };
            assert_eq!((found.quotes, found.backslashes), (expected(b"\""), expected(b"\\")), "{wanted}");
            assert_eq!((found.opening, found.closing), (expected(b"[{"), expected(b"]}")), "{wanted}");
        }
        assert_eq!(parity(0b1001_0010), !0 << 7 | 0b1110);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn blocks_find_the_same_end_as_single_bytes_do(
            body in proptest::collection::vec(proptest::sample::select(b"\"\"\\{}[]xxxxxxxx   ".to_vec()), 0..400),
            deepest in 1usize..8,
        ) {
            let bytes = [&b"{"[..], &body].concat();
            let mut single = Nesting::default();
            let mut expected = Ok(None);
            for (place, byte) in bytes.iter().enumerate() {
                match single.end(&[*byte], deepest) {
                    Ok(None) => {}
                    Ok(Some(_)) => { expected = Ok(Some(place + 1)); break }
                    Err(_) => { expected = Err(TooDeep(place)); break }
                }
            }
            prop_assert_eq!(Nesting::default().end(&bytes, deepest), expected);
        }
    }
}
