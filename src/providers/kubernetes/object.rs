//! What a watched object says, reduced to what the rules need of it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ProvisioningError;
use crate::topology::ClusterNode;

/// A watched object. Its name is unique: a watch covers one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) name: Arc<str>,
    /// Which life of the object this is: a name can be used again.
    pub(super) uid: Arc<str>,
    pub(super) content: Content,
}

/// What it contributes to the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A pod: a member, or none (not running, no address, going, not ready).
    Pod(Option<Arc<ClusterNode>>),
    /// An EndpointSlice.
    Slice(Vec<Endpoint>),
}

/// An endpoint of a slice, as a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) node: Arc<ClusterNode>,
    pub(super) conditions: Conditions,
}

/// An endpoint's conditions, where absent ones already have their documented meaning: `ready` and `serving` hold,
/// `terminating` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) objects: Vec<Object>,
    /// How many objects were unusable.
    pub(super) skipped: usize,
    /// The list's version, which its watch begins from.
    pub(super) resource_version: String,
    /// Where the next page is, if there is one.
    pub(super) next: Option<String>,
}

/// One line of a watch.
#[derive(Clone, Debug)]
pub(super) enum Line {
    /// ADDED or MODIFIED, with the object's version.
    Upsert(Object, String),
    /// DELETED: its name, its last life if that is said, and the version of the deletion.
    Delete { name: Arc<str>, uid: Option<Arc<str>>, resource_version: String },
    /// BOOKMARK: everything up to that version has been seen.
    Bookmark(String),
    /// ERROR: the watch cannot go on.
    Error(Failure),
    /// An object of which a part cannot be used, or an unknown type; with its version if that could be read.
    Unusable(Option<String>),
    /// An event that does not say which object it is about; with its version if that could be read.
    Lost(Option<String>),
}

/// Why a request or a watch failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) error: ProvisioningError,
    /// How long the server wants to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// What a failure means for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// 410, as a status or as an event: the version, or the page, is no longer known.
    Gone,
    /// "Too large resource version", or 504: the server has not seen that version yet.
    AheadOfServer,
    /// It does not understand the request, which the version may be a part of.
    BadRequest,
    /// 401: the token is read anew at once.
    Unauthorized,
    /// 403: a right is missing.
    Forbidden,
    /// 500: the server failed at this request.
    Internal,
    /// The request was sent, and the head of its answer did not come in time.
    Unanswered,
    /// Anything else.
    Other,
}
