//! How leaves of members that flap are held.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text;

/// When a member flaps, and for how long its leave is held.
///
/// A member flaps that has left the provider followed [`leaves`](Self::leaves) times in the time of
/// [`within`](Self::within). Its next leave is held: it stays among the members delivered until it is back, which is no
/// change at all, or has been away for [`hold`](Self::hold), when it leaves as any other does. While leaves are held
/// [`ErrorCode::MembersFlap`](crate::ErrorCode::MembersFlap) warns of it, once each time that it begins.
///
/// A restart in another incarnation is told at once. Nobody is held where more than one member is decided about: while
/// draining, when another provider is followed, when the stream ends, and when nobody else is left. What is out of range
/// is refused by [`FailoverPolicy::validate`](crate::FailoverPolicy::validate), when the service starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(all(test, feature = "config"), derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct FlapDamping {
    /// How many leaves are told at once. 1 at least; default 3.
    pub leaves: u32,
    /// For how long a leave is counted; a day at most. Default 60 s.
    #[serde(with = "text::DurationText")]
    pub within: Duration,
    /// How long a member that flaps may be away without being told as gone; more than zero, and at most
    /// [`within`](Self::within). Default 10 s.
    #[serde(with = "text::DurationText")]
    pub hold: Duration,
}

impl Default for FlapDamping {
    fn default() -> Self {
        Self { leaves: 3, within: Duration::from_secs(60), hold: Duration::from_secs(10) }
    }
}

impl FlapDamping {
    /// Sets [`leaves`](#structfield.leaves).
    #[must_use]
    pub fn leaves(mut self, leaves: u32) -> Self {
        self.leaves = leaves;
        self
    }

    /// Sets [`within`](#structfield.within).
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Sets [`hold`](#structfield.hold).
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }
}
