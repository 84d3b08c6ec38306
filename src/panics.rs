//! Code of others that runs inside ours: providers, factories, stores, bridges. A panic of theirs becomes a text.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest panic message that is passed on, in characters.
const MAX_MESSAGE: usize = 200;

/// Runs the work; `Err` holds the message of its panic. (A program built with `panic = "abort"` ends instead.)
///
/// Whatever the work shares with the outside must be of use after a panic too: the caller vouches for that.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| message(payload.as_ref()))
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
}
