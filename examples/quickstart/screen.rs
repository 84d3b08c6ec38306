//! Text on the terminal, or in a file: colours and redrawing in place only where there is a terminal.

use std::io::{IsTerminal, Write, stdout};

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
        self.write(&format!("{up}{text}\n"));
        self.drawn = text.lines().count();
    }

    fn write(&self, text: &str) {
        // Whoever reads may have gone (`| head`): that is no failure of the demonstration.
        let mut out = stdout().lock();
        _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
