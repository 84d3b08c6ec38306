//! Finds the elements of a JSON list in bytes as they arrive, in one buffer, without building anything of them.
//!
//! The list may also be one of a map's values. The keys and the other values are then found in the same way, and
//! whoever drives the scanner says which key's value is the list.
//!
//! Checked here: the punctuation of the list and of the map around it, that nothing but blanks surrounds them, how deep
//! they nest, and where each element ends. What an element's bytes are worth is for its decoder to say. Nobody says it
//! of one that is too large to be kept: its bytes are looked at only to find its end.

use super::nesting::{Nesting, TooDeep};

/// How deep lists and maps may nest, the outermost list included: as deep as readers of JSON commonly go.
pub(crate) const MAX_DEPTH: usize = 128;
/// How large the buffer is at first.
const FIRST: usize = 32 * 1024;

/// What is no JSON list, or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The offset of the byte at which that shows.
    pub(crate) at: usize,
    /// Whether it is the end, which comes too early.
    pub(crate) cut: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// An element of the list begins.
    Element,
    /// A key of the map begins, an element too.
    Key,
    /// The value of the map's last key begins, an element too.
    Value,
    /// More bytes are needed to tell.
    More,
    /// All has ended, and so have the bytes.
    End,
}

/// An element.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Element<'a> {
    /// Its bytes.
    Whole(&'a [u8]),
    /// It has more bytes than are kept.
    TooLarge,
    /// More bytes are needed to tell.
    More,
}

/// Where the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeMap,
    BeforeFirstKey,
    BeforeKey,
    AfterKey,
    BeforeValue,
    AfterValue,
    BeforeList,
    BeforeFirst,
    BeforeElement,
    /// In an element that is no number and no word, or before its first byte.
    Nested,
    /// In a number or a word, or before its first byte.
    Bare,
    AfterElement,
    AfterAll,
}

/// The scanner: bytes go in by [`room`](Self::room), elements come out.
pub(crate) struct Scanner {
    buffer: Vec<u8>,
    /// How much of the buffer is in use.
    filled: usize,
    /// Where in it the present element begins.
    start: usize,
    /// Up to where it has been looked at.
    at: usize,
    /// How many bytes there were before the buffer's first one.
    before: usize,
    /// Whether there are no more bytes than are in the buffer.
    ended: bool,
    place: Place,
    /// What the present element is.
    role: Next,
    in_map: bool,
    /// Whether the value of the map's last key is the list.
    is_list: bool,
    nesting: Nesting,
    /// Whether the present element is not kept.
    too_large: bool,
    /// The largest element that is kept.
    limit: usize,
}

impl Scanner {
    /// A scanner of a list that keeps elements of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self::at(Place::BeforeList, limit)
    }

    /// The same of a map that has the list as a value.
    pub(crate) fn of_map(limit: usize) -> Self {
        Self { in_map: true, ..Self::at(Place::BeforeMap, limit) }
    }

    fn at(place: Place, limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            filled: 0,
            start: 0,
            at: 0,
            before: 0,
            ended: false,
            place,
            role: Next::Element,
            in_map: false,
            is_list: false,
            nesting: Nesting::default(),
            too_large: false,
            limit,
        }
    }

    /// Where the next bytes go; never empty while more are asked for.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 && self.buffer.len() - self.filled < self.buffer.len() / 2 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.before += self.start;
            self.at -= self.start;
            self.filled -= self.start;
            self.start = 0;
        }
        if self.filled == self.buffer.len() {
            // By one byte more than may be kept it shows that an element has more.
            let size = (2 * self.buffer.len()).max(FIRST).min(self.limit + 1);
            self.buffer.resize(size, 0);
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    /// So many bytes more are there now; 0 means that no more will come.
    pub(crate) fn filled(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.buffer.len());
        self.ended |= count == 0;
    }

    /// Whether no more bytes will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The offset of the present element's first byte that is kept.
    pub(crate) fn offset(&self) -> usize {
        self.before + self.start
    }

    /// Says whether the value of the key found last is the list, if it is a list at all.
    pub(crate) fn expect_list(&mut self, is_list: bool) {
        self.is_list = is_list;
    }

    /// Reads on to the next element.
    ///
    /// # Errors
    /// If the punctuation is not that of a list, or map.
    pub(crate) fn next(&mut self) -> Result<Next, Malformed> {
        while let Some(byte) = self.buffer.get(..self.filled).and_then(|bytes| bytes.get(self.at)) {
            self.place = match (self.place, byte) {
                (Place::Nested | Place::Bare, _) => return Ok(self.role),
                (place, b' ' | b'\n' | b'\r' | b'\t') => place,
                (Place::BeforeList, b'[') => Place::BeforeFirst,
                (Place::BeforeFirst | Place::AfterElement, b']') if self.in_map => Place::AfterValue,
                (Place::BeforeFirst | Place::AfterElement, b']') => Place::AfterAll,
                (Place::AfterElement, b',') => Place::BeforeElement,
                (Place::BeforeFirst | Place::BeforeElement, byte) if !matches!(byte, b',' | b']') => {
                    return Ok(self.begin(Next::Element, *byte));
                }
                (Place::BeforeMap, b'{') => Place::BeforeFirstKey,
                (Place::BeforeFirstKey | Place::AfterValue, b'}') => Place::AfterAll,
                (Place::BeforeFirstKey | Place::BeforeKey, byte @ b'"') => return Ok(self.begin(Next::Key, *byte)),
                (Place::AfterKey, b':') => Place::BeforeValue,
                (Place::BeforeValue, b'[') if self.is_list => Place::BeforeFirst,
                (Place::BeforeValue, byte) if !matches!(byte, b',' | b'}') => {
                    return Ok(self.begin(Next::Value, *byte));
                }
                (Place::AfterValue, b',') => Place::BeforeKey,
                _ => return Err(self.malformed(false)),
            };
            self.at += 1;
        }
        self.start = self.at;
        match (self.ended, self.place) {
            (false, _) => Ok(Next::More),
            (true, Place::AfterAll) => Ok(Next::End),
            (true, _) => Err(self.malformed(true)),
        }
    }

    /// An element begins here, with that byte.
    fn begin(&mut self, role: Next, byte: u8) -> Next {
        (self.start, self.too_large, self.nesting) = (self.at, false, Nesting::default());
        self.place = if matches!(byte, b'{' | b'[' | b'"') { Place::Nested } else { Place::Bare };
        self.role = role;
        role
    }

    /// Where the next byte is after the present element.
    fn after(&self) -> Place {
        match self.role {
            Next::Key => Place::AfterKey,
            Next::Value => Place::AfterValue,
            _ => Place::AfterElement,
        }
    }

    /// The bytes of the element that begins here, and of what follows it, as far as they are in the buffer.
    pub(crate) fn peek(&self) -> &[u8] {
        self.buffer.get(self.start..self.filled).unwrap_or_default()
    }

    /// Passes over the element that begins here and is known to have so many bytes.
    pub(crate) fn pass(&mut self, count: usize) {
        self.at = (self.start + count).min(self.filled);
        self.place = self.after();
    }

    /// Finds the end of the element that begins here.
    ///
    /// # Errors
    /// If it nests too deep, or the bytes end within it.
    pub(crate) fn element(&mut self) -> Result<Element<'_>, Malformed> {
        let bytes = self.buffer.get(self.at..self.filled).unwrap_or_default();
        let end = match self.place {
            Place::Nested => self.nesting.end(bytes, MAX_DEPTH - 1),
            _ => Ok(bytes.iter().position(|byte| match byte {
                b',' | b']' | b' ' | b'\n' | b'\r' | b'\t' => true,
                b'}' => self.in_map,
                _ => false,
            })),
        };
        let (ended, looked_at) = match end {
            Ok(Some(end)) => (true, end),
            Ok(None) => (false, bytes.len()),
            Err(TooDeep(place)) => {
                self.at += place;
                return Err(self.malformed(false));
            }
        };
        self.at += looked_at;
        self.too_large |= self.at - self.start > self.limit;
        if ended {
            self.place = self.after();
            let whole = self.buffer.get(self.start..self.at).filter(|_| !self.too_large);
            return Ok(whole.map_or(Element::TooLarge, Element::Whole));
        }
        if self.ended {
            return Err(self.malformed(true));
        }
        if self.too_large {
            self.start = self.at;
        }
        Ok(Element::More)
    }

    fn malformed(&self, cut: bool) -> Malformed {
        Malformed { at: self.before + self.at, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements, `None` for each that is too large, of bytes that come in pieces of that size at most.
    fn scan(mut bytes: &[u8], piece: usize, limit: usize) -> Result<Vec<Option<String>>, Malformed> {
        let (mut scanner, mut found) = (Scanner::new(limit), Vec::new());
        loop {
            let more = match scanner.next()? {
                Next::End => return Ok(found),
                Next::More => true,
                Next::Element | Next::Key | Next::Value => match scanner.element()? {
                    Element::More => true,
                    Element::TooLarge => {
                        found.push(None);
                        false
                    }
                    Element::Whole(bytes) => {
                        found.push(Some(String::from_utf8_lossy(bytes).into_owned()));
                        false
                    }
                },
            };
            if more {
                let room = scanner.room();
                let count = room.len().min(piece).min(bytes.len());
                assert!(count > 0 || bytes.is_empty());
                room[..count].copy_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                scanner.filled(count);
                assert!(scanner.buffer.len() <= limit + 1);
            }
        }
    }

    fn elements(text: &str) -> Result<Vec<String>, Malformed> {
        let expected = scan(text.as_bytes(), 1 << 20, 1 << 20);
        for piece in 1..text.len() {
            assert_eq!(scan(text.as_bytes(), piece, 1 << 20), expected, "{piece}");
        }
        Ok(expected?.into_iter().map(Option::unwrap).collect())
    }

    #[test]
    fn elements_are_found_whatever_they_are_and_whatever_is_between_them() {
        assert_eq!(elements("[]"), Ok(vec![]));
        assert_eq!(elements(" \r\n[\t] \n"), Ok(vec![]));
        let all = [r#"{"a":[1,{"b":"]}"}]}"#, "-1.5e3", "null", r#""x,]\"y\\""#, "[[],[ ]]", r#"{"\\":"\"}"}"#, "{}"];
        assert_eq!(elements(&format!("[{}]", all.join(","))), Ok(all.map(String::from).to_vec()));
        assert_eq!(elements(&format!("\n[ {} ]\n", all.join(" ,\n\t"))), Ok(all.map(String::from).to_vec()));
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told_with_its_place() {
        let wrong = |at| Err(Malformed { at, cut: false });
        let cut = |at| Err(Malformed { at, cut: true });
        assert_eq!(elements(""), cut(0));
        assert_eq!(elements(" {}"), wrong(1));
        assert_eq!(elements("[,]"), wrong(1));
        assert_eq!(elements("[{},]"), wrong(4));
        assert_eq!(elements("[{},,{}]"), wrong(4));
        assert_eq!(elements("[{} {}]"), wrong(4));
        assert_eq!(elements("[{}]]"), wrong(4));
        assert_eq!(elements("[{}] x"), wrong(5));
        assert_eq!(elements("[{\"a\": \"x"), cut(9));
        assert_eq!(elements("[1"), cut(2));
        assert_eq!(elements("[1,"), cut(3));
    }

    /// The keys, values and elements of a map whose list is `items`.
    fn scan_map(mut bytes: &[u8], piece: usize, limit: usize) -> Result<Vec<String>, Malformed> {
        let (mut scanner, mut found) = (Scanner::of_map(limit), Vec::new());
        loop {
            let next = scanner.next()?;
            let element = match next {
                Next::End => return Ok(found),
                Next::More => Element::More,
                Next::Key | Next::Value | Next::Element => scanner.element()?,
            };
            let text = match element {
                Element::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Element::TooLarge => String::from("too large"),
                Element::More => {
                    let room = scanner.room();
                    let count = room.len().min(piece).min(bytes.len());
                    room[..count].copy_from_slice(&bytes[..count]);
                    bytes = &bytes[count..];
                    scanner.filled(count);
                    continue;
                }
            };
            if next == Next::Key {
                scanner.expect_list(text == "\"items\"");
            }
            found.push(text);
        }
    }

    #[test]
    fn a_list_in_a_map_is_found_wherever_it_is_and_so_is_what_is_beside_it() {
        let map = |text: &str| {
            let expected = scan_map(text.as_bytes(), 1000, 1000);
            for piece in 1..text.len() {
                assert_eq!(scan_map(text.as_bytes(), piece, 1000), expected, "{piece}");
            }
            expected.map(|found| found.join(" "))
        };
        let found = |text: &str| Ok(String::from(text));
        assert_eq!(map("{}"), found(""));
        assert_eq!(map(r#"{"items":[]}"#), found(r#""items""#));
        assert_eq!(map(r#"{"items":[1,{"a":2}],"n":3}"#), found(r#""items" 1 {"a":2} "n" 3"#));
        assert_eq!(
            map(" { \"n\" : 3 , \"l\":[1],\"items\" : [ 1 , \"x\" ] } "),
            found(r#""n" 3 "l" [1] "items" 1 "x""#)
        );
        assert_eq!(map(r#"{"items":null}"#), found(r#""items" null"#));
        let wrong = |at| Err(Malformed { at, cut: false });
        let cut = |at| Err(Malformed { at, cut: true });
        assert_eq!(map("[]"), wrong(0));
        assert_eq!(map("{1:2}"), wrong(1));
        assert_eq!(map(r#"{"a" 1}"#), wrong(5));
        assert_eq!(map(r#"{"a":,}"#), wrong(5));
        assert_eq!(map(r#"{"a":}"#), wrong(5));
        assert_eq!(map(r#"{"a":1,}"#), wrong(7));
        assert_eq!(map(r#"{"a":1]"#), wrong(6));
        assert_eq!(map(r#"{"items":[1}"#), wrong(11));
        assert_eq!(map(r#"{"items":[1],]"#), wrong(13));
        assert_eq!(map(r#"{"items":[]}x"#), wrong(12));
        assert_eq!(map(r#"{"items":[]"#), cut(11));
        assert_eq!(map(r#"{"items":[1"#), cut(11));
        assert_eq!(map(r#"{"a":1"#), cut(6));
        assert_eq!(map(r#"{"a"#), cut(3));
        let large = format!(r#"{{"{0}":1,"a":"{0}","items":["{0}",2]}}"#, "x".repeat(500));
        let expected = [r#"too large"#, "1", r#""a""#, "too large", r#""items""#, "too large", "2"];
        assert_eq!(scan_map(large.as_bytes(), 7, 100), Ok(expected.map(String::from).to_vec()));
    }

    #[test]
    fn nesting_is_bounded_wherever_it_is() {
        let nested = |depth: usize| format!("[{}{}]", "[".repeat(depth), "]".repeat(depth));
        assert!(scan(nested(MAX_DEPTH - 1).as_bytes(), 1000, 1000).is_ok());
        for piece in [1, 63, 64, 65, 1000] {
            let found = scan(nested(MAX_DEPTH).as_bytes(), piece, 1000);
            assert_eq!(found, Err(Malformed { at: MAX_DEPTH, cut: false }));
            let found = scan(nested(100_000).as_bytes(), piece, 1000);
            assert_eq!(found, Err(Malformed { at: MAX_DEPTH, cut: false }));
        }
    }

    #[test]
    fn an_element_beyond_the_limit_is_passed_over_and_never_kept() {
        let fits = format!(r#"{{"{}":1}}"#, "x".repeat(194));
        assert_eq!(fits.len(), 200);
        let beyond = format!(r#"{{"{}":1}}"#, "x".repeat(195));
        let far = format!(r#"{{"{}\"]":[{{}}]}}"#, "x".repeat(500_000));
        let number = "1".repeat(300);
        let text = format!("[{fits},{beyond},{far},{fits} , {number},{}]", &number[..200]);
        for piece in [1, 7, 100, 201] {
            let expected = vec![Some(fits.clone()), None, None, Some(fits.clone()), None, Some(number[..200].into())];
            assert_eq!(scan(text.as_bytes(), piece, 200), Ok(expected), "{piece}");
        }
    }
}
