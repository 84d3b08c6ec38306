//! What must hold throughout the demonstration.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts checks and keeps what broke. A bridge must not panic to say that something is wrong: the hub would catch the
/// panic and go on.
#[derive(Default)]
pub struct Checks {
    made: AtomicUsize,
    broken: Mutex<Vec<String>>,
}

impl Checks {
    /// One check; `what` says what is wrong where it fails.
    pub fn that(&self, holds: bool, what: impl FnOnce() -> String) {
        self.made.fetch_add(1, Ordering::Relaxed);
        if !holds {
            self.broken.lock().unwrap().push(what());
        }
    }

    /// How many checks were made, or what broke.
    pub fn result(&self) -> Result<usize, String> {
        let broken = self.broken.lock().unwrap();
        if broken.is_empty() { Ok(self.made.load(Ordering::Relaxed)) } else { Err(broken.join("\n")) }
    }
}
