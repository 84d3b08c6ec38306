//! Waiting for the hub to get somewhere.

use std::time::Duration;

use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};

/// Wakes those who wait for the hub to get somewhere, after each tick. Costs the hub next to nothing while nobody waits.
#[derive(Debug)]
pub(super) struct Progress {
    waiting: AtomicUsize,
    /// Guards nothing: whoever looks whether it is time to go on holds it.
    lock: Mutex<()>,
    moved: Condvar,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { waiting: AtomicUsize::new(0), lock: Mutex::new(()), moved: Condvar::new() }
    }

    /// Something has happened, and can be seen.
    pub(super) fn tick(&self) {
        // Either this sees who waits, or they see what has happened.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            drop(lock(&self.lock));
            self.moved.notify_all();
        }
    }

    /// Waits until `reached`, looking anew after every tick. Whether it was reached in time.
    pub(super) fn wait(&self, timeout: Duration, mut reached: impl FnMut() -> bool) -> bool {
        let deadline = deadline(timeout);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut guard = lock(&self.lock);
        let reached = loop {
            if reached() {
                break true;
            }
            let in_time;
            (guard, in_time) = wait_until(&self.moved, guard, deadline);
            if !in_time {
                break false;
            }
        };
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        reached
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_its_time_is_over_and_leaves_nobody_waiting() {
        let progress = Progress::new();
        assert!(!progress.wait(Duration::from_millis(1), || false));
        assert!(progress.wait(Duration::ZERO, || true));
        assert_eq!(progress.waiting.load(Ordering::Relaxed), 0);
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[test]
    fn p3_2_in_no_order_of_events_is_a_tick_missed_by_those_who_wait_for_it() {
        loom::model(|| {
            let (progress, state) = (Arc::new(Progress::new()), Arc::new(AtomicUsize::new(0)));
            let hub = {
                let (progress, state) = (Arc::clone(&progress), Arc::clone(&state));
                thread::spawn(move || {
                    for tick in 1..=2 {
                        state.store(tick, Ordering::Release);
                        progress.tick();
                    }
                })
            };
            // In the model a wait never times out: a tick that is missed would hang here.
            assert!(progress.wait(Duration::from_secs(3600), || state.load(Ordering::Acquire) == 2));
            hub.join().unwrap();
        });
    }
}
