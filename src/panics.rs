//! Code of others that runs inside ours: providers, factories, stores, bridges, cancel actions, the logger, the clock. A
//! panic of theirs becomes a text, and nothing of it stays behind.

use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest panic message that is passed on, in characters.
const MAX_MESSAGE: usize = 200;

/// Runs the work; `Err` holds the message of its panic. (A program built with `panic = "abort"` ends instead.)
///
/// Whatever the work shares with the outside must be of use after a panic too: the caller vouches for that.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let message = message(payload.as_ref());
        discard(payload);
        message
    })
}

/// Drops a value of others, whose `Drop` may panic.
pub(crate) fn discard<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // The payload of this panic may panic in turn, and so might the next one: it is leaked.
        std::mem::forget(payload);
    }
}

/// A value of others that is kept, and let go of without harm: a panic of its `Drop` is caught wherever that happens, be
/// it on a thread of ours, where it would end the thread, or among others of its kind, where it would end the process.
#[derive(Clone)]
pub(crate) struct Foreign<T>(Option<T>);

const TAKEN: &str = "it is taken only when it is dropped";

impl<T> Foreign<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Foreign<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("{TAKEN}"),
        }
    }
}

impl<T> DerefMut for Foreign<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            None => unreachable!("{TAKEN}"),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Foreign<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Drop for Foreign<T> {
    fn drop(&mut self) {
        discard(self.0.take());
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    text.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_5_a_panic_becomes_its_message() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        assert_eq!(caught(|| panic!("number {}", 7)), Err::<(), _>("number 7".to_owned()));
        assert_eq!(caught(|| std::panic::panic_any(7)), Err::<(), _>("a panic without a message".to_owned()));
        assert_eq!(caught(|| panic!("{}", "é".repeat(999))), Err::<(), _>("é".repeat(200)));
    }

    /// Panics when it is dropped, with another of its kind as the payload for as long as there are any left.
    struct Spiteful(usize);

    impl Drop for Spiteful {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                std::panic::panic_any(Spiteful(left));
            }
        }
    }

    #[test]
    fn p5_5_a_panic_whose_payload_panics_when_it_is_dropped_is_caught_all_the_same() {
        for depth in [1, 2, 5] {
            let outcome = caught(|| std::panic::panic_any(Spiteful(depth)));
            assert_eq!(outcome, Err::<(), _>("a panic without a message".to_owned()));
            discard(Spiteful(depth));
        }
    }

    #[test]
    fn p5_5_many_values_that_panic_when_they_are_dropped_are_let_go_of_together() {
        drop([1, 2, 5].map(|depth| Foreign::new(Spiteful(depth))));
    }
}
