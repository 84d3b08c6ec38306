//! The lines of a watch: an event each, in bytes that arrive in whatever pieces.
//!
//! A line may be of any length, but no more than the limit of it is held: what is longer is passed over up to its end.
//! A line that begins as an event and turns out to be none is skipped, and the watch goes on; anything else, as a
//! proxy's page would be, and an end in the middle of a line, breaks it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::status::{self, Status};
use super::{Event, Meta, Reading, Rules};
use crate::error::{ErrorCode, ProvisioningError};
use crate::json::{self, Loose, MAX_ELEMENT, Text, fields};
use crate::providers::kubernetes::object::Line;
use crate::secret::Secret;

/// How large the buffer is at first.
const FIRST: usize = 16 * 1024;

/// Reads the lines of one watch.
pub(in crate::providers::kubernetes) struct Lines {
    rules: Arc<Rules>,
    limit: usize,
    /// What no error repeats.
    token: Option<Secret>,
    buffer: Vec<u8>,
    /// How much of the buffer is in use.
    filled: usize,
    /// Where in it the present line begins.
    start: usize,
    /// Up to where it has been looked at.
    at: usize,
    /// Whether the present line is not kept.
    too_large: bool,
    ended: bool,
    /// What else the last line said.
    pending: VecDeque<Line>,
}

/// An event whose object is a status.
#[derive(Default)]
struct ErrorEvent<'de> {
    object: Loose<Status<'de>>,
}

/// An event of whose object only the metadata counts.
#[derive(Default)]
struct MetaEvent<'de> {
    kind: Loose<Text<'de>>,
    object: Loose<MetaOnly<'de>>,
}

#[derive(Default)]
struct MetaOnly<'de> {
    meta: Loose<Meta<'de>>,
}

fields!(ErrorEvent<'de>, "object" => object);
fields!(MetaEvent<'de>, "type" => kind, "object" => object);
fields!(MetaOnly<'de>, "metadata" => meta);

impl Lines {
    /// At the beginning of a watch.
    pub(in crate::providers::kubernetes) fn new(rules: Arc<Rules>) -> Self {
        Self::with_limit(rules, MAX_ELEMENT)
    }

    /// The same with another limit for a line.
    pub(in crate::providers::kubernetes) fn with_limit(rules: Arc<Rules>, limit: usize) -> Self {
        Self {
            rules,
            limit,
            token: None,
            buffer: Vec::new(),
            filled: 0,
            start: 0,
            at: 0,
            too_large: false,
            ended: false,
            pending: VecDeque::new(),
        }
    }

    /// The same for a watch that this token has opened.
    pub(in crate::providers::kubernetes) fn opened_by(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }

    /// The next line, from bytes that `read` gives piece by piece; `None` at the end of the watch. After an error of
    /// `read` it can be asked again, and goes on where it was.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedAnswer`] if it is no watch, or ends within a line, and those of `read`.
    pub(in crate::providers::kubernetes) fn next(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, ProvisioningError>,
        doing: &str,
    ) -> Result<Option<Line>, ProvisioningError> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Ok(Some(line));
            }
            let rest = self.buffer.get(self.at..self.filled).unwrap_or_default();
            match rest.iter().position(|byte| *byte == b'\n') {
                Some(length) => {
                    self.at += length;
                    self.end_of_line(doing)?;
                    self.at += 1;
                    (self.start, self.too_large) = (self.at, false);
                }
                None if self.ended => return self.last(doing),
                None => {
                    self.at = self.filled;
                    self.too_large |= self.at - self.start > self.limit;
                    if self.too_large {
                        self.start = self.at;
                    }
                    let count = read(self.room())?;
                    self.filled = (self.filled + count).min(self.buffer.len());
                    self.ended = count == 0;
                }
            }
        }
    }

    /// How large the buffer has become.
    #[cfg(test)]
    pub(super) fn buffer_size(&self) -> usize {
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

    /// Takes the line that ends here.
    fn end_of_line(&mut self, doing: &str) -> Result<(), ProvisioningError> {
        if self.too_large || self.at - self.start > self.limit {
            self.pending.push_back(Line::Lost(None));
            return Ok(());
        }
        let line = self.buffer.get(self.start..self.at).unwrap_or_default().trim_ascii();
        match line.first() {
            None => Ok(()),
            Some(b'{') => {
                match event(&self.rules, self.token.as_ref(), line, doing) {
                    Ok(event) => self.pending.extend(event.into_iter().flatten()),
                    Err(_) => self.pending.push_back(Line::Lost(None)),
                }
                Ok(())
            }
            Some(_) => Err(malformed(doing, "the answer is no watch: a line is no event")),
        }
    }

    /// The end of the watch. A last line may lack its line break, but nothing else.
    fn last(&mut self, doing: &str) -> Result<Option<Line>, ProvisioningError> {
        let line = self.buffer.get(self.start..self.filled).unwrap_or_default().trim_ascii();
        let events = match (line.is_empty(), self.too_large) {
            (true, false) => return Ok(None),
            (false, false) if line.starts_with(b"{") => event(&self.rules, self.token.as_ref(), line, doing).ok(),
            _ => None,
        };
        self.pending
            .extend(events.ok_or_else(|| malformed(doing, "the watch ended within a line"))?.into_iter().flatten());
        (self.start, self.at) = (self.filled, self.filled);
        Ok(self.pending.pop_front())
    }
}

/// What an event says: one thing, or of an object with unusable parts two.
///
/// # Errors
/// The offset at which the bytes turn out to be no JSON value in UTF-8.
fn event(rules: &Rules, token: Option<&Secret>, bytes: &[u8], doing: &str) -> Result<[Option<Line>; 2], usize> {
    // What the rest of an object is like does not matter where only its metadata counts.
    let (kind, meta) = match rules.event(bytes).or_else(|at| bare(bytes).ok_or(at))? {
        Event::Upsert(reading) => return Ok(upsert(reading)),
        Event::Other(kind, meta) => (kind, meta),
    };
    let line = match kind.as_deref() {
        Some("DELETED") => match (meta.name.text(), meta.version.text()) {
            (Some(name), Some(resource_version)) => {
                Line::Delete { name: name.into(), uid: meta.uid.text().map(Into::into), resource_version }
            }
            (_, version) => Line::Lost(version),
        },
        Some("BOOKMARK") => match meta.version.text() {
            Some(version) => Line::Bookmark(version),
            None => Line::Unusable(None),
        },
        Some("ERROR") => {
            let event = json::read::<Loose<ErrorEvent<'_>>>(bytes)?.good().unwrap_or_default();
            Line::Error(status::of_event(event.object.good().unwrap_or_default(), token, doing))
        }
        _ => Line::Unusable(meta.version.text()),
    };
    Ok([Some(line), None])
}

/// An event of whose object only the metadata could be read, if that is enough.
fn bare(bytes: &[u8]) -> Option<Event<'_>> {
    let MetaEvent { kind, object } = json::read::<Loose<_>>(bytes).ok()?.good()?;
    let meta = object.good().and_then(|object: MetaOnly<'_>| object.meta.good()).unwrap_or_default();
    match kind.as_str() {
        Some("ADDED" | "MODIFIED") => None,
        _ => Some(Event::Other(kind.text(), meta)),
    }
}

fn upsert(Reading { object, version, skipped }: Reading) -> [Option<Line>; 2] {
    match (object, version) {
        (Some(object), Some(version)) if skipped == 0 => [Some(Line::Upsert(object, version)), None],
        (Some(object), Some(version)) => {
            [Some(Line::Upsert(object, version.clone())), Some(Line::Unusable(Some(version)))]
        }
        (_, version) => [Some(Line::Lost(version)), None],
    }
}

fn malformed(doing: &str, what: &'static str) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::MalformedAnswer, doing.to_owned(), what)
}
