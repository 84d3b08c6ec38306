//! What wakes the hub's thread.

use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};

/// Under the model checker there is no time, and one look is as good as many.
const MODELLED: bool = cfg!(all(test, loom));
/// How often a waiting thread looks before it sleeps: what follows a callback usually comes within a few microseconds.
const BUSY_LOOKS: u32 = 64;
/// How often it looks after that, giving the processor away in between.
const LATER_LOOKS: u32 = 4;
/// A ring within this time after the thread began to wait follows closely: then the thread goes on looking for as long
/// the next time. It is longer than waking a thread takes, so that two threads that answer each other do not both sleep
/// each time.
const CLOSE: Duration = if MODELLED { Duration::ZERO } else { Duration::from_micros(100) };

/// Nobody has rung, and nobody sleeps.
const QUIET: u8 = 0;
const RUNG: u8 = 1;
/// The thread that waits sleeps, or is about to.
const ASLEEP: u8 = 2;

/// A bell that one thread waits for and any may ring. Ringing it several times before it is heard counts once.
///
/// It has cache lines of its own: a thread that looks at it would slow down whoever writes beside it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Bell {
    state: AtomicU8,
    /// Guards nothing: the thread that waits sleeps with it.
    lock: Mutex<()>,
    wake: Condvar,
    /// Whether the last ring that was waited for followed closely.
    is_brisk: AtomicBool,
}

impl Bell {
    pub(super) fn new() -> Self {
        Self {
            state: AtomicU8::new(QUIET),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            is_brisk: AtomicBool::new(false),
        }
    }

    /// Whoever waits looks for what there is. What was done before is seen by then.
    pub(super) fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            // From when it says that it sleeps until it does, the thread that waits holds the lock.
            drop(lock(&self.lock));
            self.wake.notify_one();
        }
    }

    /// Waits until the bell is rung, or until the time is over.
    pub(super) fn wait(&self, timeout: Duration) {
        if self.look() || timeout.is_zero() {
            return;
        }
        let began = Instant::now();
        let was_brisk = self.is_brisk.load(Ordering::Relaxed);
        if was_brisk && self.look_on(began, CLOSE.min(timeout)) {
            return;
        }
        self.sleep(timeout);
        let is_brisk = began.elapsed() < CLOSE;
        if is_brisk != was_brisk {
            self.is_brisk.store(is_brisk, Ordering::Relaxed);
        }
    }

    /// Looks several times whether the bell is rung; takes it if it is.
    fn look(&self) -> bool {
        for look in 0..if MODELLED { 1 } else { BUSY_LOOKS + LATER_LOOKS } {
            if self.take() {
                return true;
            }
            if look < BUSY_LOOKS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        false
    }

    /// Goes on looking for that long, and gives the processor away in between.
    fn look_on(&self, began: Instant, patience: Duration) -> bool {
        loop {
            std::thread::yield_now();
            if self.take() {
                return true;
            }
            if began.elapsed() >= patience {
                return false;
            }
        }
    }

    fn sleep(&self, timeout: Duration) {
        let deadline = deadline(timeout);
        let mut guard = lock(&self.lock);
        if self.state.compare_exchange(QUIET, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            while self.state.load(Ordering::Acquire) == ASLEEP {
                let in_time;
                (guard, in_time) = wait_until(&self.wake, guard, deadline);
                if !in_time || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break;
                }
            }
        }
        self.state.swap(QUIET, Ordering::AcqRel);
        drop(guard);
    }

    /// Whether the bell was rung; from here on it is not. Reads before it writes, so that looking often does not take the
    /// cache line from whoever rings.
    fn take(&self) -> bool {
        self.state.load(Ordering::Relaxed) == RUNG && self.state.swap(QUIET, Ordering::AcqRel) == RUNG
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
