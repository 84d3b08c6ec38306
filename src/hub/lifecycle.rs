//! Whether the hub runs, drains or has stopped, and whether it is inside a callback.
//!
//! Draining and stopping are facts, not messages: whoever orders them finds them done at once, however full the hub's
//! inbox is and however long a callback takes. The hub looks at them before each message and before each callback.

use std::time::Duration;

use crate::error::ErrorCode;
use crate::event::{PauseReason, PlacementGate};
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Condvar, Mutex, deadline, lock, wait_until};

/// How far the hub's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// Nothing new is accepted.
    Draining,
    /// No callback begins any more.
    Stopped,
    /// The hub's thread has ended although nobody stopped it.
    Failed,
}

const DRAINING: u8 = 1;
const STOPPED: u8 = 2;
const FAILED: u8 = 4;
/// A callback is running.
const CALLING: u8 = 8;

/// The life of a hub, shared between its thread and everyone else.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    state: AtomicU8,
    /// Guards nothing: whoever waits for the end of a callback waits with it.
    lock: Mutex<()>,
    returned: Condvar,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self { state: AtomicU8::new(0), lock: Mutex::new(()), returned: Condvar::new() }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.state.load(Ordering::Acquire) {
            state if state & FAILED != 0 => Phase::Failed,
            state if state & STOPPED != 0 => Phase::Stopped,
            state if state & DRAINING != 0 => Phase::Draining,
            _ => Phase::Running,
        }
    }

    /// Nothing new is accepted from here on. Whether that is news.
    pub(crate) fn drain(&self) -> bool {
        self.state.fetch_or(DRAINING, Ordering::AcqRel) & DRAINING == 0
    }

    /// No callback begins from here on; one that is running is waited for, at most so long. Whether none is.
    pub(crate) fn stop(&self, patience: Duration) -> bool {
        self.state.fetch_or(DRAINING | STOPPED, Ordering::AcqRel);
        let deadline = deadline(patience);
        let mut guard = lock(&self.lock);
        while self.state.load(Ordering::Acquire) & CALLING != 0 {
            let in_time;
            (guard, in_time) = wait_until(&self.returned, guard, deadline);
            if !in_time {
                return false;
            }
        }
        true
    }

    /// The hub's thread ends. Where nobody stopped it that is a failure.
    pub(crate) fn end(&self) {
        let before = self.state.fetch_or(STOPPED, Ordering::AcqRel);
        if before & STOPPED == 0 {
            self.state.fetch_or(FAILED, Ordering::AcqRel);
        }
        self.end_callback();
    }

    /// A callback is about to begin. Whether it may.
    pub(crate) fn begin_callback(&self) -> bool {
        let before = self.state.fetch_or(CALLING, Ordering::AcqRel);
        if before & STOPPED != 0 {
            self.end_callback();
        }
        before & STOPPED == 0
    }

    /// The callback has returned.
    pub(crate) fn end_callback(&self) {
        let before = self.state.fetch_and(!CALLING, Ordering::AcqRel);
        if before & STOPPED != 0 {
            // Only whoever stops waits.
            drop(lock(&self.lock));
            self.returned.notify_all();
        }
    }

    /// The gate, given the one that the last completed tick left behind: closed from the moment at which draining or
    /// stopping was ordered.
    pub(crate) fn gate(&self, published: PlacementGate) -> PlacementGate {
        match self.phase() {
            Phase::Running => published,
            Phase::Draining | Phase::Stopped => PlacementGate::Paused(PauseReason::Draining),
            Phase::Failed => PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::Stopped)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn p3_5_the_gate_is_closed_from_the_order_on_whatever_was_published_before() {
        let life = Lifecycle::new();
        assert_eq!((life.phase(), life.gate(PlacementGate::Open)), (Phase::Running, PlacementGate::Open));
        assert!(life.drain() && !life.drain());
        let draining = PlacementGate::Paused(PauseReason::Draining);
        assert_eq!((life.phase(), life.gate(PlacementGate::Open)), (Phase::Draining, draining));
        assert!(life.begin_callback(), "while draining callbacks go on");
        life.end_callback();
        assert!(life.stop(Duration::ZERO));
        assert_eq!((life.phase(), life.gate(PlacementGate::Open)), (Phase::Stopped, draining));
        life.end();
        assert_eq!(life.phase(), Phase::Stopped, "that it ends then is no failure");
    }

    #[test]
    fn p3_5_after_a_stop_no_callback_begins_and_one_that_runs_is_waited_for_in_vain_if_it_takes_long() {
        let life = Lifecycle::new();
        assert!(life.begin_callback());
        assert!(!life.stop(Duration::from_millis(1)));
        life.end_callback();
        assert!(!life.begin_callback());
        assert!(life.stop(Duration::ZERO));
    }

    #[test]
    fn p5_3_a_thread_that_ends_by_itself_closes_the_gate() {
        let life = Lifecycle::new();
        assert!(life.begin_callback());
        life.end();
        let stopped = PlacementGate::Paused(PauseReason::Unavailable(ErrorCode::Stopped));
        assert_eq!((life.phase(), life.gate(PlacementGate::Open)), (Phase::Failed, stopped));
        assert!(life.stop(Duration::ZERO), "nothing is left to wait for");
        assert_eq!(life.phase(), Phase::Failed);
    }
}

#[cfg(all(test, loom))]
mod interleavings {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    #[test]
    fn p3_5_in_no_order_of_events_a_callback_runs_when_a_stop_has_returned() {
        loom::model(|| {
            let (life, inside) = (Arc::new(Lifecycle::new()), Arc::new(AtomicBool::new(false)));
            let hub = {
                let (life, inside) = (Arc::clone(&life), Arc::clone(&inside));
                thread::spawn(move || {
                    for _ in 0..2 {
                        if life.begin_callback() {
                            inside.store(true, Ordering::Relaxed);
                            inside.store(false, Ordering::Relaxed);
                            life.end_callback();
                        }
                    }
                    life.end();
                })
            };
            // In the model a wait never times out: a notification that is lost would hang here.
            assert!(life.stop(Duration::from_secs(3600)));
            assert!(!inside.load(Ordering::Relaxed) && !life.begin_callback());
            hub.join().unwrap();
            assert!(!life.gate(PlacementGate::Open).is_open());
        });
    }
}
