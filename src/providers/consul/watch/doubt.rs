//! Why an answer is not believed at once, and what follows from that: how long it is held, and how it is told.

use std::borrow::Cow;

use super::{Asked, Machine, Output, RECHECK, Watch, WatchAnswer, doubtful, is_faint};
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::providers::presence::Standing;

/// Why an answer is not believed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody, while the local node is a member or about to be one: what a token without rights is shown, too.
    Nobody,
    /// Nobody, with index 1, where members are known: what a server says that knows nothing yet.
    Forgetful,
    /// Nobody, with index 1, where nobody is known either.
    Blank,
    /// So many members are gone since the timeline broke.
    Lost(usize),
    /// So many members are missing right after an outage that kept all heartbeats from the server; they may be back by
    /// then.
    Unsteady { missing: usize, until: Timestamp },
    /// The local node is registered, and not among the members.
    Absent,
}

impl Why {
    /// Whether it is never believed, for as long as it stays so.
    pub(super) fn is_endless(self) -> bool {
        matches!(self, Why::Nobody | Why::Forgetful)
    }

    /// Until when an answer is held that would be held until then.
    pub(super) fn limit(self, until: Timestamp) -> Timestamp {
        match self {
            Why::Unsteady { until: back, .. } => until.min(back),
            _ => until,
        }
    }

    pub(super) fn reason(self) -> ProvisioningError {
        let detail: Cow<'static, str> = match self {
            Why::Nobody => "no members, not even the local node: the token's rights may not cover the service".into(),
            Why::Forgetful => "no members, with index 1: what a server says that knows nothing yet".into(),
            Why::Blank => "no members, with index 1: held until it has lasted".into(),
            Why::Lost(lost) => {
                format!("{lost} members are gone since the index went back or began anew: held until it has lasted")
                    .into()
            }
            Why::Unsteady { missing, .. } => {
                format!("{missing} members are missing right after an outage: held until they had time to come back")
                    .into()
            }
            Why::Absent => "the local node is registered, but not among the members: held until it has lasted".into(),
        };
        doubtful(ErrorCode::DoubtfulAnswer, detail)
    }
}

/// Whether the server may have lost members unseen since they were believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    Seen,
    /// There was an outage: entries that were kept prove that nothing was lost.
    Outage,
    /// A wait was broken off without news, as it is when the server's state is replaced by a backup. It is one of the same
    /// history, so that nothing proves what it lacks to have left; the index goes on from where it was.
    Replaced,
}

/// Whether there is a doubt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doubt {
    None,
    /// The unindexed answer of the leader is awaited; nothing is judged before it.
    Confirming,
    /// The answer is held until then; `None`: it has to be seen again first. `absent`: it lacks the local node, which is
    /// given a grace of its own to be repaired.
    Holding {
        until: Option<Timestamp>,
        absent: bool,
    },
    /// The answer is not believed for as long as it stays so.
    Waiting,
}

impl Machine {
    /// Why the answer is not believed at once.
    pub(super) fn why(&self, now: Timestamp, answer: &WatchAnswer) -> Option<Why> {
        let members = &answer.members;
        if members.is_empty() && matches!(self.standing, Standing::Joining | Standing::Registered) {
            return Some(Why::Nobody);
        }
        if is_faint(answer) {
            let known = self.believed.as_ref().is_some_and(|members| !members.is_empty());
            return Some(if known { Why::Forgetful } else { Why::Blank });
        }
        match self.lost(members) {
            0 if self.lacks_local(members) && !self.absence_believed => Some(Why::Absent),
            0 => {
                let until = self.outage.unsteady(now)?;
                Some(self.missing(members))
                    .filter(|missing| *missing > 0)
                    .map(|missing| Why::Unsteady { missing, until })
            }
            lost => Some(Why::Lost(lost)),
        }
    }

    /// Holds a doubtful answer, or believes it if it has held for long enough and was asked for after that; whether it
    /// was believed.
    pub(super) fn hold(&mut self, now: Timestamp, asked: Asked, answer: WatchAnswer, why: Why) -> bool {
        let absent = self.lacks_local(&answer.members) && !self.absence_believed;
        let until = match self.doubt {
            _ if why.is_endless() => None,
            Doubt::Holding { until: Some(until), absent: before } if before || !absent => {
                if asked.since >= until {
                    return self.believe(now, answer);
                }
                Some(why.limit(until))
            }
            _ => Some(why.limit(now + self.settings.repair_grace)),
        };
        // Who is shown nobody at once, again and again, is not asked all the time.
        let is_endless = matches!(self.doubt, Doubt::Waiting) && asked.index.is_some() && now < asked.until;
        self.doubt = if why.is_endless() { Doubt::Waiting } else { Doubt::Holding { until, absent } };
        // Whatever hides the local node may have lost others, too.
        if absent || why == Why::Nobody {
            self.doubt_continuity();
        }
        if is_faint(&answer) {
            let recheck = now + RECHECK;
            self.ask_anew(now);
            self.watch = Watch::Due(self.bucket.next(now).max(until.map_or(recheck, |until| recheck.min(until))));
        } else if is_endless {
            self.watch = Watch::Due(self.bucket.next(now).max(now + RECHECK * 3));
        }
        self.doubt_it(now, why.reason());
        false
    }

    /// What was held has held: it is asked for once more, and believed if it is still so.
    pub(super) fn hold_is_over(&mut self, now: Timestamp) {
        let Doubt::Holding { until: Some(until), .. } = self.doubt else { return };
        if now < until {
            return;
        }
        match self.watch {
            Watch::Pending { asked: Asked { index: Some(_), .. }, .. } => {
                self.outputs.push_back(Output::AbortWatch);
                self.ask_anew(now);
            }
            Watch::Due(_) => self.ask = None,
            Watch::Pending { .. } | Watch::BackingOff(_) | Watch::Recovering => {}
        }
    }
}
