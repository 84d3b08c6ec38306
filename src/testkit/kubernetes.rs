//! The decoding of the Kubernetes API's answers without a server, for this crate's own benches and fuzz targets. `choice`
//! is a set of rules: any byte is one.

use std::io::{ErrorKind, Read};

use crate::error::{ErrorCode, ProvisioningError};
use crate::providers::kubernetes::watch::script::follow;
use crate::providers::kubernetes::wire::told::{told_failure, told_lines, told_objects, told_page, told_upserts};

/// What a page of a list says, how many objects it has, and how many parts of it were skipped. An object has at most
/// `limit` bytes.
///
/// # Errors
/// [`ErrorCode::MalformedAnswer`] if it is none, [`ErrorCode::BackendUnavailable`] if it cannot be read.
pub fn kubernetes_page(
    choice: u8,
    limit: usize,
    mut body: impl Read,
) -> Result<(String, usize, usize), ProvisioningError> {
    told_page(choice, limit, |room| read(&mut body, room))
}

/// How many objects a page of pods has, of which nothing is kept.
///
/// # Errors
/// As [`kubernetes_page`].
pub fn kubernetes_objects(mut body: impl Read) -> Result<usize, ProvisioningError> {
    told_objects(|room| read(&mut body, room))
}

/// How many objects a watch of pods shows, of which nothing is kept.
///
/// # Errors
/// As [`kubernetes_page`].
pub fn kubernetes_upserts(mut body: impl Read) -> Result<usize, ProvisioningError> {
    told_upserts(|room| read(&mut body, room))
}

/// What a watch says, event by event up to its end. A line has at most `limit` bytes. Where the body has nothing yet
/// (`WouldBlock`), it is asked again.
pub fn kubernetes_lines(choice: u8, limit: usize, mut body: impl Read) -> Vec<String> {
    told_lines(choice, limit, |room| read(&mut body, room), |error| error.code() == ErrorCode::Timeout)
}

/// Drives the machine of list and watch by the bytes, as a server, a network and a clock that do whatever they like. How
/// many sets and changes it told, and how many watches it opened and requests it broke off.
///
/// # Errors
/// What does not hold, in words.
pub fn kubernetes_watch(script: &[u8]) -> Result<[usize; 4], String> {
    let reached = follow(script)?;
    Ok([reached.snapshots, reached.changes, reached.watches, reached.aborts])
}

/// What a refusal of a request says.
pub fn kubernetes_failure(code: u16, body: &[u8]) -> String {
    told_failure(code, body)
}

fn read(body: &mut impl Read, room: &mut [u8]) -> Result<usize, ProvisioningError> {
    body.read(room).map_err(|error| {
        let code = match error.kind() {
            ErrorKind::WouldBlock => ErrorCode::Timeout,
            _ => ErrorCode::BackendUnavailable,
        };
        ProvisioningError::new(code, "reading an answer", error.to_string())
    })
}
