//! The decoding of Consul's answers without a server, for this crate's own benches and fuzz targets.

use std::io::Read;

use crate::error::{ErrorCode, ProvisioningError};
use crate::http::HeaderMap;
use crate::providers::consul::mark::mark;
use crate::providers::consul::wire::{Decoder, check_list};
use crate::topology::Members;

/// What is being done, for errors.
const DOING: &str = "decoding an answer";

/// Decodes one answer after the other, as a connection does.
pub struct ConsulDecoder(Decoder);

impl ConsulDecoder {
    /// A decoder that knows no answer yet.
    pub fn new(service: &str) -> Self {
        Self(Decoder::new(service))
    }

    /// The same with another limit for the bytes of one entry.
    pub fn with_limit(service: &str, max_entry: usize) -> Self {
        Self(Decoder::with_limit(service, max_entry))
    }

    /// The members in the body, and how many entries were skipped.
    ///
    /// # Errors
    /// [`ErrorCode::MalformedAnswer`] if the body is no JSON list, [`ErrorCode::BackendUnavailable`] if it cannot be read.
    pub fn decode(&mut self, mut body: impl Read) -> Result<(Members, usize), ProvisioningError> {
        self.0.decode(|room| read(&mut body, room), None, DOING)
    }
}

/// Whether the body is a JSON list, as the probe has it.
///
/// # Errors
/// As [`ConsulDecoder::decode`].
pub fn consul_check(mut body: impl Read) -> Result<(), ProvisioningError> {
    check_list(|room| read(&mut body, room), DOING)
}

/// What an answer's headers say, as text; those that are none are left out.
///
/// # Errors
/// [`ErrorCode::AccessDenied`] if they say that results were filtered.
pub fn consul_head(headers: &[(&str, &[u8])]) -> Result<String, ProvisioningError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = ureq::http::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, ureq::http::HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    mark(&map, DOING).map(|mark| format!("{mark:?}"))
}

fn read(body: &mut impl Read, room: &mut [u8]) -> Result<usize, ProvisioningError> {
    body.read(room).map_err(|error| ProvisioningError::new(ErrorCode::BackendUnavailable, DOING, error.to_string()))
}
