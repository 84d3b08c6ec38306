//! What is left of the time that a deregistration may take: in real time, whatever the service's clock shows.

use std::time::{Duration, Instant};

/// A span of time that has begun.
#[derive(Clone, Copy, Debug)]
pub(in crate::providers) struct Budget {
    begun: Instant,
    length: Duration,
}

impl Budget {
    /// Begins now.
    pub(in crate::providers) fn of(length: Duration) -> Self {
        Self { begun: Instant::now(), length }
    }

    /// What is left of it; zero once it is over.
    pub(in crate::providers) fn left(self) -> Duration {
        self.length.saturating_sub(self.begun.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consul_point_19_a_budget_ends_and_the_longest_does_not() {
        assert_eq!(Budget::of(Duration::ZERO).left(), Duration::ZERO);
        assert!(Budget::of(Duration::MAX).left() > Duration::from_secs(3600));
        let spent = Budget { begun: Instant::now(), length: Duration::from_nanos(1) };
        while spent.begun.elapsed() <= spent.length {}
        assert_eq!(spent.left(), Duration::ZERO);
    }
}
