//! A loss of members that is too large to be believed at once.

use super::turn::Turn;
use crate::clock::Timestamp;
use crate::error::{ErrorCode, ProvisioningError};
use crate::failover::FailoverPolicy;
use crate::id::ProviderId;
use crate::topology::{Members, TopologyDiff};

/// Whether `set` lacks more than this share of `present`.
pub(super) fn lacks(set: &Members, present: &Members, share: f64) -> bool {
    let diff = TopologyDiff::between(present, set);
    let lacking = diff.left().iter().filter(|node| !set.contains(node.id())).count();
    lacking as f64 > share * present.len() as f64
}

/// The warning that `what` is held back, and why.
pub(super) fn held(provider: &ProviderId, doing: &'static str, detail: String) -> ProvisioningError {
    ProvisioningError::new(ErrorCode::MassLossHeld, doing, detail).with_provider(provider)
}

/// The guard against a sudden loss within the provider followed; off unless the policy sets a share.
#[derive(Debug, Default)]
pub(super) struct MassLoss {
    /// A loss is held back, and was reported.
    holding: bool,
    /// How many losses were held back.
    holds: u64,
}

impl MassLoss {
    /// Whether what the provider shows is held back: it lacks too much of what was accepted, and has not held for long
    /// enough since it last lost a member. Reports a loss once.
    pub(super) fn holds_back(
        &mut self,
        (provider, shown, shrunk_at): (&ProviderId, &Members, Timestamp),
        accepted: &Members,
        policy: &FailoverPolicy,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(share) = policy.mass_loss_share else { return false };
        if turn.now() >= shrunk_at + policy.guard_hold || !lacks(shown, accepted, share) {
            self.holding = false;
            return false;
        }
        if !std::mem::replace(&mut self.holding, true) {
            self.holds += 1;
            let detail = format!("it shows {} members instead of {}", shown.len(), accepted.len());
            let error = held(provider, "following the provider", detail);
            turn.decide(format!("what {provider} shows is held back: {}", error.brief()));
            turn.warn(error);
        }
        true
    }

    /// Nothing is held back any more.
    pub(super) fn release(&mut self) {
        self.holding = false;
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding
    }

    /// How many losses were held back.
    pub(super) fn count(&self) -> u64 {
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;
    use crate::testkit::members;
    use std::time::Duration;

    #[test]
    fn p2_4_a_sudden_loss_is_held_until_it_has_lasted_and_reported_once() {
        let policy = FailoverPolicy { mass_loss_share: Some(0.5), ..FailoverPolicy::default() };
        let provider = ProviderId::new("a").unwrap();
        let accepted = members(&["n1", "n2", "n3", "n4"]);
        let (start, mut loss, mut record) = (Timestamp::from_millis(1_000_000), MassLoss::default(), Record::new(1));
        let mut judge = |loss: &mut MassLoss, shown: &[&str], seconds: u64, policy: &FailoverPolicy| {
            let mut turn = Turn::begin(&mut record, start + Duration::from_secs(seconds));
            let holds = loss.holds_back((&provider, &members(shown), start), &accepted, policy, &mut turn);
            (holds, turn.into_events().0.len())
        };
        assert_eq!(judge(&mut loss, &["n1", "n2"], 0, &policy), (false, 0), "half is not more than half");
        assert_eq!(judge(&mut loss, &["n1"], 0, &FailoverPolicy::default()), (false, 0), "off");
        assert_eq!(judge(&mut loss, &["n1"], 0, &policy), (true, 1));
        assert!(loss.is_holding());
        assert_eq!(judge(&mut loss, &[], 9, &policy), (true, 0));
        assert_eq!(judge(&mut loss, &[], 10, &policy), (false, 0));
        assert!(!loss.is_holding());
        assert_eq!(judge(&mut loss, &["n5"], 9, &policy), (true, 1), "another loss, another report");
        loss.release();
        assert_eq!((loss.is_holding(), loss.count()), (false, 2));
    }
}
