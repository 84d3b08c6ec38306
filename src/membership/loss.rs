//! How much is lost on the way, measured by the direct probes of late.

/// How many probes are remembered.
const KEPT: u32 = 128;
/// Fewer say nothing yet.
const LEAST: u32 = 16;

/// What became of the last probes: a bit for each that was not answered directly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    lost: u128,
    known: u32,
}

impl Loss {
    /// A direct probe was answered in time, or not.
    pub(super) fn note(&mut self, answered: bool) {
        self.lost = self.lost << 1 | u128::from(!answered);
        self.known = (self.known + 1).min(KEPT);
    }

    /// The share of direct probes that are lost.
    pub(super) fn share(self) -> f64 {
        if self.known < LEAST { 0.0 } else { f64::from(self.lost.count_ones()) / f64::from(self.known) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m3_1_the_loss_is_the_share_of_the_last_128_probes_and_few_of_them_say_nothing() {
        let mut loss = Loss::default();
        (0..15).for_each(|_| loss.note(false));
        assert_eq!(loss.share(), 0.0);
        loss.note(false);
        assert_eq!(loss.share(), 1.0);
        (0..112).for_each(|_| loss.note(true));
        assert_eq!(loss.share(), 0.125);
        (0..16).for_each(|_| loss.note(true));
        assert_eq!(loss.share(), 0.0);
    }
}
