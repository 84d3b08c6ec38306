//! How a provider paces what it tries again by itself.

use std::time::Duration;

use crate::backoff;

/// How a provider paces its own retries: pauses that double from the first to the longest, each drawn at random from its
/// upper half. The service takes it from [`FailoverPolicy`](crate::FailoverPolicy), `backoff_initial` and `backoff_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The first pause. Default 2 s.
    pub first: Duration,
    /// The longest pause; at least the first. Default 30 s.
    pub longest: Duration,
}

impl RetryPolicy {
    /// A policy of these pauses.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }
}

impl RetryPolicy {
    /// The shortest pause: none at all would be a hot loop.
    const SHORTEST: Duration = Duration::from_millis(1);

    /// The same without what makes no sense: a pause of zero, which would be a hot loop, or one longer than the longest.
    pub(crate) fn sound(self) -> Self {
        let first = self.first.max(Self::SHORTEST);
        Self { first, longest: self.longest.max(first) }
    }

    /// Counts failures and gives the pauses.
    pub(crate) fn backoff(self) -> backoff::Backoff {
        let Self { first, longest } = self.sound();
        backoff::Backoff::new(first, longest)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first: backoff::FIRST, longest: backoff::LONGEST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Jitter;

    #[test]
    fn p2_5_a_policy_gives_its_pauses_and_none_is_no_hot_loop() {
        let policy = RetryPolicy::default();
        assert_eq!((policy.first, policy.longest), (Duration::from_secs(2), Duration::from_secs(30)));
        let mut jitter = Jitter::new(7);
        let mut pauses = |first: u64, longest: u64| {
            let mut backoff = RetryPolicy::new(Duration::from_millis(first), Duration::from_millis(longest)).backoff();
            [(); 4].map(|()| backoff.pause(&mut jitter).as_micros())
        };
        for (pause, full) in pauses(100, 300).into_iter().zip([100_000, 200_000, 300_000, 300_000]) {
            assert!((full / 2..=full).contains(&pause), "{pause} of {full}");
        }
        assert!(pauses(0, 0).into_iter().all(|pause| pause >= 500));
        assert!(pauses(200, 100).into_iter().all(|pause| (100_000..=200_000).contains(&pause)));
    }
}
