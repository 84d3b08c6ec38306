//! Whether it is rather this node that is slow: the local health multiplier of Lifeguard (section IV-A).
//!
//! Whoever misses answers that others get, or has to contradict suspicions, is likely to be ill itself: its processor is
//! busy, or its packets are lost. It gives others more time, and blames them later.

use std::time::Duration;

/// The greatest score, S of the paper: timeouts become nine times as long at most.
pub(super) const WORST: u32 = 8;

/// What tells something of the local health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// A probe was answered in time.
    Answered,
    /// A relay that was asked for help said nothing, not even that it got no answer.
    RelaySilent,
    /// This node had to contradict a suspicion of itself.
    Refuted,
    /// The process stood still.
    StoodStill,
}

/// The score: 0 is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LocalHealth(u32);

impl LocalHealth {
    pub(super) fn score(self) -> u32 {
        self.0
    }

    pub(super) fn note(&mut self, sign: Sign) {
        self.0 = match sign {
            Sign::Answered => self.0.saturating_sub(1),
            Sign::RelaySilent | Sign::Refuted | Sign::StoodStill => (self.0 + 1).min(WORST),
        };
    }

    /// The duration as it is for a node of this health.
    pub(super) fn scale(self, duration: Duration) -> Duration {
        duration.saturating_mul(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m3_1_each_bad_sign_gives_others_more_time_and_each_answer_takes_some_back() {
        let second = Duration::from_secs(1);
        let mut health = LocalHealth::default();
        health.note(Sign::Answered);
        assert_eq!(health.scale(second), second, "it gets no better than well");
        for (number, sign) in [Sign::RelaySilent, Sign::Refuted, Sign::StoodStill].iter().enumerate() {
            health.note(*sign);
            assert_eq!(health.score(), number as u32 + 1);
        }
        health.note(Sign::Answered);
        assert_eq!(health.scale(second), second * 3);
        (0..20).for_each(|_| health.note(Sign::RelaySilent));
        assert_eq!((health.score(), health.scale(second)), (WORST, second * 9));
    }
}
