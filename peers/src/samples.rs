//! Durations that were measured, and how they are shown.

use std::time::Duration;

/// What was measured in several runs, sorted; `None` where it has not come about within the longest wait.
pub struct Samples(Vec<Option<Duration>>);

impl Samples {
    /// Of these runs.
    pub fn of(samples: impl IntoIterator<Item = Option<Duration>>) -> Self {
        let mut samples: Vec<_> = samples.into_iter().collect();
        // What has not come about is longest.
        samples.sort_unstable_by_key(|sample| sample.unwrap_or(Duration::MAX));
        Self(samples)
    }

    /// The one that this share of all does not exceed, in seconds; `None` if that has not come about.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let last = self.0.len().checked_sub(1)?;
        let place = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last);
        self.0[place].map(|sample| sample.as_secs_f64())
    }

    fn text(&self, share: f64) -> String {
        self.quantile(share).map_or_else(|| "not in time".to_owned(), |seconds| format!("{seconds:.2} s"))
    }

    /// For a cell of the table: the median, the 95th percentile, and of how many.
    pub fn shown(&self, unit: &str) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let missing = self.0.iter().filter(|sample| sample.is_none()).count();
        let missing = if missing == 0 { String::new() } else { format!("; {missing} not in time") };
        format!("{} / {} ({unit}: {}{missing})", self.text(0.5), self.text(0.95), self.0.len())
    }
}
