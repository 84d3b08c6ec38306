//! How many lines the hub writes to the log.
//!
//! A provider that flaps, or a bridge that panics each time, would fill a disk. So lines are counted: a burst goes through,
//! then so many a second, and when there is room again a line says how many were left out. What a warning says is
//! delivered as an event too, and decisions can be read with `explain`, whether they are written or not.

use std::time::Duration;

use log::Level;

use super::LogLine;
use crate::clock::Timestamp;
use crate::text::line::log_line;

/// How many lines may come at once.
const BURST: u32 = 200;
/// How long it takes until another one may.
const EACH: Duration = Duration::from_millis(50);

/// The lines that may be written of one level, and those that were not.
#[derive(Debug)]
struct Budget {
    /// When the budget would be whole again.
    whole_at: Timestamp,
    left_out: u64,
}

impl Budget {
    /// Whether a line may be written now.
    fn take(&mut self, now: Timestamp) -> bool {
        let begins = self.whole_at.max(now);
        let spent = begins.since(now);
        if spent + EACH > EACH * BURST {
            self.left_out += 1;
            return false;
        }
        self.whole_at = begins + EACH;
        true
    }
}

/// Decides which lines are written. Warnings and the rest do not share a budget.
#[derive(Debug)]
pub(super) struct LogLines {
    warnings: Budget,
    others: Budget,
}

impl LogLines {
    pub(super) fn new() -> Self {
        let budget = || Budget { whole_at: Timestamp::default(), left_out: 0 };
        Self { warnings: budget(), others: budget() }
    }

    /// Which of these lines are to be written, each with how many of its level were left out before it.
    fn admit(&mut self, lines: Vec<LogLine>, now: Timestamp) -> Vec<(u64, LogLine)> {
        let mut admitted = Vec::with_capacity(lines.len());
        for line in lines {
            let budget = if line.level == Level::Warn { &mut self.warnings } else { &mut self.others };
            if budget.take(now) {
                admitted.push((std::mem::take(&mut budget.left_out), line));
            }
        }
        admitted
    }

    /// Writes the lines that may be.
    pub(super) fn write(&mut self, lines: Vec<LogLine>, now: Timestamp) {
        if lines.is_empty() {
            return;
        }
        for (left_out, LogLine { level, text }) in self.admit(lines, now) {
            if left_out > 0 {
                log_line!(of level, "{left_out} lines like the next one were left out: there were too many");
            }
            log_line!(of level, "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_1_a_flood_of_lines_is_cut_and_what_is_left_out_is_counted() {
        let start = Timestamp::from_millis(1_000_000);
        let mut lines = LogLines::new();
        let mut write = |level, count: usize, millis| {
            let line = LogLine { level, text: "x".into() };
            let admitted = lines.admit(vec![line; count], start + Duration::from_millis(millis));
            (admitted.len(), admitted.iter().map(|(left_out, _)| left_out).sum::<u64>())
        };
        assert_eq!(write(Level::Info, 100_000, 0), (200, 0));
        assert_eq!(write(Level::Warn, 1, 0), (1, 0), "warnings are not crowded out");
        assert_eq!(write(Level::Info, 10, 49), (0, 0));
        assert_eq!(write(Level::Info, 10, 1000), (10, 99_810));
        assert_eq!(write(Level::Info, 300, 1000), (10, 0));
        assert_eq!(write(Level::Info, 300, 600_000), (200, 290), "the budget is whole again, and not more");
    }
}
