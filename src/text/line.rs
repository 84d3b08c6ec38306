//! Texts of others in a line: an event is one line of a log, and nobody's text can look like another's.
//!
//! Names (of nodes, say) that hold what [`misleads`] are refused where they come in. Everything else that others say, an
//! error's detail or a panic's message, is kept as it was said and escaped here where it is shown: by an error's `Display`,
//! in a decision's text, and in every line that is logged ([`log_line!`]).

use std::fmt::{self, Write};

/// Whether the character could end a line, turn its direction, or is not seen at all: control characters, line and
/// paragraph separators, marks of direction, and what has no width.
pub(crate) fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Whether any character of the text [`misleads`]. One pass over its bytes where it is ASCII.
pub(crate) fn any_misleads(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_ascii() { bytes.iter().any(u8::is_ascii_control) } else { text.chars().any(misleads) }
}

/// Shows a value in one line: what [`misleads`] appears as `\n`, `\r`, `\t` or `\u{202e}`. Backslashes stay as they are,
/// so that paths can be copied.
pub(crate) struct OneLine<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !any_misleads(text) {
            return self.0.write_str(text);
        }
        for c in text.chars() {
            match c {
                '\n' | '\r' | '\t' => write!(self.0, "{}", c.escape_default())?,
                c if misleads(c) => write!(self.0, "{}", c.escape_unicode())?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Writes a line to the log, as `log::log!` does. The logger is the host's code: a panic of its is caught, and there is
/// nowhere to report it.
macro_rules! log_line {
    ($level:ident, $($text:tt)+) => { crate::text::line::log_line!(of log::Level::$level, $($text)+) };
    (of $level:expr, $($text:tt)+) => {
        _ = crate::panics::caught(|| {
            log::log!($level, "{}", crate::text::line::OneLine(format_args!($($text)+)));
        })
    };
}

pub(crate) use log_line;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn p5_5_what_could_forge_a_line_or_hide_in_it_is_escaped_and_the_rest_stays() {
        let shown = |text: &str| OneLine(text).to_string();
        assert_eq!(shown("C:\\new \"ä\" 東京 🦀"), "C:\\new \"ä\" 東京 🦀");
        assert_eq!(shown("a\nb\r\tc\0\u{1b}[2K"), "a\\nb\\r\\tc\\u{0}\\u{1b}[2K");
        assert_eq!(shown("\u{85}\u{7f}"), "\\u{85}\\u{7f}");
        for hidden in
            "\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{feff}"
                .chars()
        {
            assert_eq!(shown(&format!("a{hidden}")), format!("a\\u{{{:x}}}", hidden as u32));
        }
    }

    proptest! {
        #[test]
        fn p5_5_any_text_is_shown_in_one_line_in_which_nothing_misleads(text in "(?s).{0,40}") {
            let shown = OneLine(&text).to_string();
            prop_assert!(!any_misleads(&shown), "{shown:?}");
            prop_assert_eq!(OneLine(&shown).to_string(), shown.clone(), "what was escaped stays as it is");
            if !any_misleads(&text) {
                prop_assert_eq!(shown, text);
            }
        }
    }
}
