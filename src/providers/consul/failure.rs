//! How a request of the watch or the probe failed, as far as it matters what follows.

use crate::error::ProvisioningError;

/// A request that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: ProvisioningError,
    pub(super) kind: FailureKind,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// It was sent, and its connection closed without an answer; or somebody on the way would wait no longer for one.
    Cut,
    /// It was refused for its token, and by now there is another.
    Outdated,
    Other,
}

impl From<ProvisioningError> for Failure {
    fn from(error: ProvisioningError) -> Self {
        Self { error, kind: FailureKind::Other }
    }
}
