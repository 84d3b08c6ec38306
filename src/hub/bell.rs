//! What wakes the hub's thread.

use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};

/// How often a waiting thread looks before it sleeps, twice as long each time: what follows a callback usually comes
/// within a few microseconds. The later looks give the processor away in between.
const LOOKS: u32 = 10;
/// How many of those looks are made without giving the processor away.
const BUSY_LOOKS: u32 = 6;

/// A bell that one thread waits for and any may ring. Ringing it several times before it is heard counts once.
#[derive(Debug)]
pub(super) struct Bell {
    rung: AtomicBool,
    /// Whether the thread sleeps.
    asleep: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self { rung: AtomicBool::new(false), asleep: Mutex::new(false), wake: Condvar::new() }
    }

    /// Whoever waits looks for what there is. What was done before is seen by then.
    pub(super) fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let asleep = *lock(&self.asleep);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Waits until the bell is rung, or until the time is over.
    pub(super) fn wait(&self, timeout: Duration) {
        if self.look() || timeout.is_zero() {
            return;
        }
        let deadline = deadline(timeout);
        let mut asleep = lock(&self.asleep);
        *asleep = true;
        while !self.rung.swap(false, Ordering::AcqRel) {
            let in_time;
            (asleep, in_time) = wait_until(&self.wake, asleep, deadline);
            if !in_time || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
        }
        *asleep = false;
    }

    /// Looks several times whether the bell is rung; takes it if it is.
    fn look(&self) -> bool {
        for look in 0..if cfg!(all(test, loom)) { 1 } else { LOOKS } {
            if self.rung.swap(false, Ordering::AcqRel) {
                return true;
            }
            if look < BUSY_LOOKS {
                (0..1 << look).for_each(|_| std::hint::spin_loop());
            } else {
                std::thread::yield_now();
            }
        }
        false
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    #[test]
    fn p2_1_in_no_order_of_events_a_ring_is_lost() {
        loom::model(|| {
            let (bell, done) = (Arc::new(Bell::new()), Arc::new(AtomicUsize::new(0)));
            let ringers: Vec<_> = (0..2)
                .map(|_| {
                    let (bell, done) = (Arc::clone(&bell), Arc::clone(&done));
                    thread::spawn(move || {
                        done.fetch_add(1, Ordering::Relaxed);
                        bell.ring();
                    })
                })
                .collect();
            // In the model a wait never times out: a ring that is lost would hang here.
            while done.load(Ordering::Relaxed) < 2 {
                bell.wait(Duration::from_secs(3600));
            }
            for ringer in ringers {
                ringer.join().unwrap();
            }
        });
    }
}
