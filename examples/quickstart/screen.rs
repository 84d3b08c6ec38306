//! Text on the terminal, or in a file: colours and redrawing in place only where there is a terminal.

use std::io::{IsTerminal, Write, stdout};

/// The longest line where nothing says how wide the screen is, and on wide ones.
const WIDTH: usize = 79;
/// The narrowest screen that lines are fitted to.
const NARROWEST: usize = 30;

pub struct Screen {
    terminal: bool,
    colour: bool,
    /// How many lines the next drawing replaces.
    drawn: usize,
}

pub enum Ink {
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Screen {
    pub fn new() -> Self {
        let terminal = stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { terminal, colour: terminal && std::env::var_os("NO_COLOR").is_none(), drawn: 0 }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// How many columns a line may have: as `COLUMNS` says, or as the terminal has, now.
    pub fn width(&self) -> usize {
        let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let columns = told.or_else(|| self.terminal.then(columns).flatten());
        columns.map_or(WIDTH, |columns: usize| columns.clamp(NARROWEST, WIDTH))
    }

    /// Breaks the text into lines behind a beginning, each further one indented as far.
    pub fn wrap(&self, text: &str, beginning: &str) -> String {
        let (width, indent) = (self.width(), beginning.chars().count());
        let (mut lines, mut line) = (Vec::new(), beginning.to_owned());
        for word in text.split_whitespace() {
            let begun = line.chars().count() > indent;
            if begun && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            } else if begun {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
        lines.join("\n")
    }

    pub fn paint(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Green => 32,
            Ink::Yellow => 33,
            Ink::Red => 31,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Prints for good.
    pub fn say(&mut self, text: &str) {
        self.drawn = 0;
        self.write(&format!("{text}\n"));
    }

    /// Prints for good in the place of the last drawing.
    pub fn say_above(&mut self, text: &str) {
        self.redraw(text);
        self.drawn = 0;
    }

    /// Draws something that the next drawing replaces. Nothing where it could not be replaced.
    pub fn draw(&mut self, text: &str) {
        if self.terminal {
            self.redraw(text);
        }
    }

    fn redraw(&mut self, text: &str) {
        let up = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        // What is too wide is cut: a line that went on in the next one would not be counted.
        let (cut, uncut) = if self.terminal { ("\x1b[?7l", "\x1b[?7h") } else { ("", "") };
        self.write(&format!("{up}{cut}{text}{uncut}\n"));
        self.drawn = text.lines().count();
    }

    fn write(&self, text: &str) {
        // Whoever reads may have gone (`| head`): that is no failure of the demonstration.
        let mut out = stdout().lock();
        _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

#[cfg(unix)]
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

#[cfg(not(unix))]
fn columns() -> Option<usize> {
    None
}
