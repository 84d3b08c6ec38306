//! Ending blocking work from another thread.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::panics::caught;
use crate::text::line::log_line;

type Action = Box<dyn FnOnce() + Send>;

/// Tells blocking work to end. Clones share one state. Fires once, for ever.
///
/// Work that waits on channels selects on [`receiver`](Self::receiver); work that waits on something else registers an
/// action with [`on_cancel`](Self::on_cancel) that makes the wait end.
#[derive(Clone)]
pub struct CancelToken {
    state: Arc<Mutex<State>>,
    fired: Receiver<()>,
}

struct State {
    /// Dropped when the token fires, which disconnects `fired`.
    alive: Option<Sender<()>>,
    actions: Vec<(u64, Action)>,
    next: u64,
}

/// Withdraws an action when dropped.
pub struct CancelGuard {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl CancelToken {
    /// A token that has not fired.
    pub fn new() -> Self {
        let (alive, fired) = bounded(0);
        Self { state: Arc::new(Mutex::new(State { alive: Some(alive), actions: Vec::new(), next: 0 })), fired }
    }

    /// Fires: every wait on the token ends, and every registered action runs once, on this thread. An action that panics
    /// keeps neither the others from running nor this from returning.
    pub fn cancel(&self) {
        let actions = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.alive = None;
            std::mem::take(&mut state.actions)
        };
        for (_, action) in actions {
            run(action);
        }
    }

    /// Whether it has fired.
    pub fn is_cancelled(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).alive.is_none()
    }

    /// A channel that never carries anything and disconnects when the token fires; for `select!`.
    pub fn receiver(&self) -> &Receiver<()> {
        &self.fired
    }

    /// Waits until the token fires or the time is over; whether it fired.
    pub fn wait(&self, timeout: Duration) -> bool {
        !matches!(self.fired.recv_timeout(timeout), Err(RecvTimeoutError::Timeout))
    }

    /// Runs the action when the token fires: at once, on this thread, if it has. The action must not block. It is
    /// withdrawn when the guard is dropped.
    #[must_use = "dropping the guard withdraws the action"]
    pub fn on_cancel(&self, action: impl FnOnce() + Send + 'static) -> CancelGuard {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        if state.alive.is_some() {
            state.actions.push((number, Box::new(action)));
        } else {
            drop(state);
            run(action);
        }
        CancelGuard { state: Arc::clone(&self.state), number }
    }
}

/// An action is foreign code.
fn run(action: impl FnOnce()) {
    if let Err(panic) = caught(action) {
        log_line!(Warn, "an action of a cancel token panicked: {panic}");
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.actions.retain(|(number, _)| *number != self.number);
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("cancelled", &self.is_cancelled()).finish()
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelGuard").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn firing_ends_waits_and_runs_each_action_once() {
        let token = CancelToken::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let count = |runs: &Arc<AtomicUsize>| {
            let runs = Arc::clone(runs);
            move || {
                runs.fetch_add(1, Ordering::SeqCst);
            }
        };
        let kept = token.on_cancel(count(&runs));
        drop(token.on_cancel(count(&runs)));
        assert!(!token.wait(Duration::ZERO) && !token.is_cancelled());
        token.clone().cancel();
        token.cancel();
        assert!(token.wait(Duration::from_secs(60)) && token.is_cancelled());
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        drop(kept);
        let _late = token.on_cancel(count(&runs));
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn an_action_that_panics_keeps_neither_the_others_nor_the_caller_from_going_on() {
        struct Spiteful;
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("when it is dropped");
            }
        }
        let token = CancelToken::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let _first = token.on_cancel(|| panic!("a broken action"));
        let _second = token.on_cancel(|| std::panic::panic_any(Spiteful));
        let _third = token.on_cancel(move || _ = counted.fetch_add(1, Ordering::SeqCst));
        token.cancel();
        let _late = token.on_cancel(|| panic!("a broken action"));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }
}
