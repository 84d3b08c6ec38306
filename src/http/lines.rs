//! Lines in bytes that arrive in whatever pieces.
//!
//! A line may be of any length, but no more than the limit of it is held: of a longer one it is said that it was there.

/// How large the buffer is at first.
const FIRST: usize = 16 * 1024;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A line.
    Line,
    /// A line that is longer than the limit, which is not held.
    TooLong,
    /// The end, with whatever comes after the last line break.
    Rest,
    /// The end, in a line that is longer than the limit.
    RestTooLong,
}

/// Finds the lines. What was found is in [`line`](Self::line) until the next is looked for.
pub(crate) struct LineSplitter {
    limit: usize,
    buffer: Vec<u8>,
    /// How much of the buffer is in use.
    filled: usize,
    /// Where in it the present line begins.
    start: usize,
    /// Up to where it has been looked at.
    at: usize,
    /// Whether the present line is not kept.
    too_long: bool,
    /// Whether the present line was found, and the next is to be looked for.
    found: bool,
    ended: bool,
}

impl LineSplitter {
    /// `limit`: the most bytes of a line, its line break not counted.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, buffer: Vec::new(), filled: 0, start: 0, at: 0, too_long: false, found: false, ended: false }
    }

    /// Looks for the next line, in bytes that `read` gives piece by piece; none of them is the end. After an error of `read`
    /// it can be asked again, and goes on where it was.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn next<E>(&mut self, mut read: impl FnMut(&mut [u8]) -> Result<usize, E>) -> Result<Found, E> {
        if std::mem::take(&mut self.found) {
            self.at = (self.at + 1).min(self.filled);
            (self.start, self.too_long) = (self.at, false);
        }
        loop {
            let rest = self.buffer.get(self.at..self.filled).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == b'\n');
            self.at += end.unwrap_or(rest.len());
            self.too_long |= self.at - self.start > self.limit;
            if end.is_some() || self.ended {
                self.found = true;
                return Ok(match (end.is_some(), self.too_long) {
                    (true, false) => Found::Line,
                    (true, true) => Found::TooLong,
                    (false, false) => Found::Rest,
                    (false, true) => Found::RestTooLong,
                });
            }
            if self.too_long {
                self.start = self.at;
            }
            let count = read(self.room())?;
            self.filled = (self.filled + count).min(self.buffer.len());
            self.ended = count == 0;
        }
    }

    /// The bytes of the line that was found, without the line break; nothing of one that is too long.
    pub(crate) fn line(&self) -> &[u8] {
        let line = self.buffer.get(self.start..self.at).filter(|_| self.found && !self.too_long);
        line.unwrap_or_default()
    }

    /// How large the buffer has become.
    #[cfg(test)]
    pub(crate) fn buffer_size(&self) -> usize {
        self.buffer.len()
    }

    /// Where the next bytes go; never empty.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.at -= self.start;
            self.filled -= self.start;
            self.start = 0;
        }
        if self.filled == self.buffer.len() {
            // By one byte more than may be kept it shows that a line has more.
            let size = (2 * self.buffer.len()).max(FIRST).min(self.limit + 1);
            self.buffer.resize(size, 0);
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Found::{Line, Rest, RestTooLong, TooLong};
    use super::*;
    use proptest::prelude::*;

    /// All that is found, with bytes that come in pieces of at most `piece`, up to and with the end.
    fn found(text: &[u8], limit: usize, piece: usize) -> Vec<(Found, Vec<u8>)> {
        let (mut splitter, mut left, mut all) = (LineSplitter::new(limit), text, Vec::new());
        loop {
            let found = splitter
                .next(|room| -> Result<usize, ()> {
                    let count = left.len().min(room.len()).min(piece);
                    let (given, rest) = left.split_at(count);
                    room[..count].copy_from_slice(given);
                    left = rest;
                    Ok(count)
                })
                .unwrap();
            all.push((found, splitter.line().to_vec()));
            assert!(splitter.buffer_size() <= limit + 1);
            if matches!(found, Rest | RestTooLong) {
                return all;
            }
        }
    }

    fn line(found: Found, text: &str) -> (Found, Vec<u8>) {
        (found, text.as_bytes().to_vec())
    }

    #[test]
    fn kubernetes_point_6_lines_are_found_in_whatever_pieces_they_come_and_the_rest_is_told_apart() {
        for piece in [1, 2, 3, 100] {
            assert_eq!(found(b"ab\n\ncd", 9, piece), [line(Line, "ab"), line(Line, ""), line(Rest, "cd")]);
            assert_eq!(found(b"ab\n", 9, piece), [line(Line, "ab"), line(Rest, "")]);
            assert_eq!(found(b"", 9, piece), [line(Rest, "")]);
        }
    }

    #[test]
    fn kubernetes_point_6_of_a_line_beyond_the_limit_no_more_than_that_is_held_and_the_next_is_found() {
        for piece in [1, 2, 100] {
            assert_eq!(
                found(b"1234\n12345\nab\n", 4, piece),
                [line(Line, "1234"), line(TooLong, ""), line(Line, "ab"), line(Rest, ""),]
            );
            assert_eq!(found(b"a\n123456789", 4, piece), [line(Line, "a"), line(RestTooLong, "")]);
        }
    }

    #[test]
    fn kubernetes_point_6_after_an_error_it_goes_on_where_it_was_and_after_the_end_there_is_nothing() {
        let mut splitter = LineSplitter::new(9);
        let mut pieces = vec![Err("later"), Ok(&b"b\nc"[..]), Err("timeout"), Ok(b"a")];
        let mut next = |splitter: &mut LineSplitter| {
            splitter.next(|room| match pieces.pop() {
                Some(Ok(piece)) => {
                    room[..piece.len()].copy_from_slice(piece);
                    Ok(piece.len())
                }
                Some(Err(error)) => Err(error),
                None => Ok(0),
            })
        };
        assert_eq!((next(&mut splitter), splitter.line()), (Err("timeout"), &b""[..]));
        assert_eq!(next(&mut splitter), Ok(Line));
        assert_eq!(splitter.line(), b"ab");
        assert_eq!(next(&mut splitter), Err("later"));
        assert_eq!(next(&mut splitter), Ok(Rest));
        assert_eq!(splitter.line(), b"c");
        assert_eq!(next(&mut splitter), Ok(Rest));
        assert_eq!(splitter.line(), b"");
    }

    proptest! {
        #[test]
        fn kubernetes_point_6_what_is_found_is_what_a_split_of_the_whole_would_be(
            text in "[ab\n]{0,60}", limit in 1usize..20, piece in 1usize..30,
        ) {
            let mut expected: Vec<_> = text.split('\n').map(|part| match part.len() <= limit {
                true => line(Line, part),
                false => line(TooLong, ""),
            }).collect();
            let last = expected.last_mut().unwrap();
            last.0 = if last.0 == Line { Rest } else { RestTooLong };
            prop_assert_eq!(found(text.as_bytes(), limit, piece), expected);
        }
    }
}
