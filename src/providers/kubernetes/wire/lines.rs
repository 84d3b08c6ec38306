//! The lines of a watch: an event each.
//!
//! What is longer than the limit is passed over up to its end. A line that begins as an event and turns out to be none is
//! skipped, and the watch goes on; anything else, as a proxy's page would be, and an end in the middle of a line, breaks it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::status::{self, Status};
use super::{Event, Meta, Reading, Rules};
use crate::error::{ErrorCode, ProvisioningError};
use crate::http::{Found, LineSplitter};
use crate::json::{self, Loose, MAX_ELEMENT, Text, fields};
use crate::providers::kubernetes::object::Line;
use crate::secret::Secret;

/// Reads the lines of one watch.
pub(in crate::providers::kubernetes) struct Lines {
    rules: Arc<Rules>,
    lines: LineSplitter,
    /// What no error repeats.
    token: Option<Secret>,
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
        Self { rules, lines: LineSplitter::new(limit), token: None, pending: VecDeque::new() }
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
            match self.lines.next(&mut read)? {
                Found::Line => self.take_line(doing)?,
                Found::TooLong => self.pending.push_back(Line::Lost(None)),
                Found::Rest => return self.take_rest(doing),
                Found::RestTooLong => return Err(torn(doing)),
            }
        }
    }

    /// How large the buffer has become.
    #[cfg(test)]
    pub(super) fn buffer_size(&self) -> usize {
        self.lines.buffer_size()
    }

    fn take_line(&mut self, doing: &str) -> Result<(), ProvisioningError> {
        let line = self.lines.line().trim_ascii();
        match line.first() {
            None => {}
            Some(b'{') => match event(&self.rules, self.token.as_ref(), line, doing) {
                Ok(event) => self.pending.extend(event.into_iter().flatten()),
                Err(_) => self.pending.push_back(Line::Lost(None)),
            },
            Some(_) => return Err(malformed(doing, "the answer is no watch: a line is no event")),
        }
        Ok(())
    }

    /// The end of the watch. A last line may lack its line break, but nothing else.
    fn take_rest(&mut self, doing: &str) -> Result<Option<Line>, ProvisioningError> {
        let line = self.lines.line().trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let events = line.starts_with(b"{").then(|| event(&self.rules, self.token.as_ref(), line, doing).ok());
        self.pending.extend(events.flatten().ok_or_else(|| torn(doing))?.into_iter().flatten());
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

fn torn(doing: &str) -> ProvisioningError {
    malformed(doing, "the watch ended within a line")
}

fn malformed(doing: &str, what: &'static str) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::MalformedAnswer, doing.to_owned(), what)
}
