//! An answer whose body is still to come, and reading it within bounds.
//!
//! Decided here: a body larger than the cap is refused, at once where its length is announced; and each way in which
//! reading can fail has its code. The cap counts what is read, thus after decompression.

use std::io::Read;

use ureq::Body;
use ureq::http::HeaderMap;

use super::{Answer, Route, failure, without_login};
use crate::error::{ErrorCode, ProvisioningError};
use crate::secret::Secret;

/// By how much the buffer of a body of unknown length grows at least.
const CHUNK: usize = 64 * 1024;

/// An answer of which only the head has been read. Its connection serves another request only once the body has been
/// read to its end.
pub(crate) struct Incoming {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BodyReader,
    /// What the backend may repeat in a refusal.
    pub(super) login: Option<Secret>,
}

impl Incoming {
    /// Reads the whole body into memory; that of a refusal without the login.
    ///
    /// # Errors
    /// As [`BodyReader::read`].
    pub(crate) fn collect(self) -> Result<Answer, ProvisioningError> {
        let mut body = self.body.collect()?;
        if let Some(login) = &self.login
            && self.status >= 400
        {
            body = without_login(&body, login);
        }
        Ok(Answer { status: self.status, body })
    }
}

/// The body of an answer, as it arrives.
pub(crate) struct BodyReader {
    reader: ureq::BodyReader<'static>,
    announced: Option<u64>,
    read: usize,
    max: usize,
    route: Route,
    doing: String,
}

impl BodyReader {
    /// The body of an answer, of at most `max` bytes.
    ///
    /// # Errors
    /// [`ErrorCode::AnswerTooLarge`] if a greater length is announced.
    pub(super) fn new(body: Body, max: usize, route: Route, doing: &str) -> Result<Self, ProvisioningError> {
        let announced = body.content_length();
        let body = Self { reader: body.into_reader(), announced, read: 0, max, route, doing: doing.to_owned() };
        match announced.is_some_and(|length| length > max as u64) {
            true => Err(body.too_large()),
            false => Ok(body),
        }
    }

    /// Reads what has arrived, at least one byte unless the buffer is empty, and waits for it if need be. 0 is the end.
    ///
    /// # Errors
    /// [`ErrorCode::AnswerTooLarge`] beyond the cap, [`ErrorCode::Timeout`], [`ErrorCode::MalformedAnswer`] for what is
    /// not of the announced encoding, [`ErrorCode::BackendUnavailable`] where the body is cut off, and for all else.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ProvisioningError> {
        // One byte beyond the cap shows that it does not end there.
        let room = self.max.saturating_add(1).saturating_sub(self.read).min(buffer.len());
        let buffer = buffer.get_mut(..room).unwrap_or_default();
        let read = loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let read = read.map_err(|error| self.broken(&error))?;
        self.read += read;
        if self.read > self.max {
            return Err(self.too_large());
        }
        Ok(read)
    }

    fn collect(mut self) -> Result<Vec<u8>, ProvisioningError> {
        // An announced length is trusted up to a point only: it may be a lie.
        let expected = self.announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(CHUNK).min(16 * CHUNK);
        let mut bytes = vec![0; expected.min(self.max) + 1];
        let mut filled = 0;
        loop {
            if filled == bytes.len() {
                // Doubling, but never past the cap: the memory held is bounded by it.
                let size = (filled + filled.max(CHUNK)).min(self.max + 1);
                bytes.reserve_exact(size - filled);
                bytes.resize(size, 0);
            }
            match self.read(bytes.get_mut(filled..).unwrap_or_default())? {
                0 => {
                    bytes.truncate(filled);
                    return Ok(bytes);
                }
                read => filled += read,
            }
        }
    }

    fn too_large(&self) -> ProvisioningError {
        let detail = format!("the answer is larger than the cap of {} bytes", self.max);
        ProvisioningError::new(ErrorCode::AnswerTooLarge, self.doing.clone(), detail)
    }

    fn broken(&self, error: &std::io::Error) -> ProvisioningError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(inner) => failure(&self.doing, &self.route, inner, None),
            None => {
                let cut =
                    format!("{}: the answer was cut off after {} bytes ({})", self.route, self.read, error.kind());
                ProvisioningError::new(ErrorCode::BackendUnavailable, self.doing.clone(), cut)
            }
        }
    }
}
