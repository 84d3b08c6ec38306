//! The table and the plots, and how they are written.

use std::fs;
use std::io;
use std::path::Path;

use crate::plot::Plot;

/// Whose column it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The library's own members.
    Ours,
    /// foca's.
    Foca,
    /// chitchat's.
    Chitchat,
    /// memberlist's.
    Memberlist,
}

impl Column {
    /// As the table and the legends name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "this library",
            Self::Foca => "foca 2.0",
            Self::Chitchat => "chitchat 0.13",
            Self::Memberlist => "memberlist 0.8",
        }
    }
}

/// What stands where nothing was measured.
const NOTHING: &str = "—";

/// The report as it grows.
pub struct Report {
    rows: Vec<(String, [String; 4])>,
    /// From a kill until everybody has found it dead.
    pub detection: Plot,
    /// From the start of all to one view.
    pub convergence: Plot,
    /// What a node sends when nothing happens.
    pub bytes: Plot,
    /// From the first one that has heard of a join to the last one.
    pub dissemination: Plot,
}

impl Report {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            rows: Vec::new(),
            detection: Plot::new("Killed: dead at all", "seconds, median"),
            convergence: Plot::new("All start at once: one view at all", "seconds, median"),
            bytes: Plot::new("Nothing happens: sent by each node", "bytes a second"),
            dissemination: Plot::new("One joins: from the first that hears to the last", "seconds, median"),
        }
    }

    /// In that row and column. Goes to the standard error output at once, to show how far it is.
    pub fn cell(&mut self, row: &str, column: Column, cell: String) {
        eprintln!("{row}: {}: {cell}", column.name());
        let place = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), std::array::from_fn(|_| NOTHING.to_owned())));
            self.rows.len() - 1
        });
        self.rows[place].1[column as usize] = cell;
    }

    /// As markdown.
    pub fn table(&self) -> String {
        let columns = [Column::Ours, Column::Foca, Column::Chitchat, Column::Memberlist].map(Column::name);
        let mut table = format!("| what | {} |\n|---|---|---|---|---|\n", columns.join(" | "));
        for (row, cells) in &self.rows {
            table += &format!("| {row} | {} |\n", cells.join(" | "));
        }
        table
    }

    /// Writes the page and the plots into that directory.
    pub fn write(&self, to: &Path, command: &str) -> io::Result<()> {
        let page = format!(
            "# Gossip membership: figures\n\nWritten by `{command}`; not to be edited.\n\n{}\n{}",
            self.table(),
            include_str!("notes.md")
        );
        fs::write(to.join("gossip-figures.md"), page)?;
        let plots = [
            ("detection", &self.detection),
            ("convergence", &self.convergence),
            ("bytes", &self.bytes),
            ("dissemination", &self.dissemination),
        ];
        plots.into_iter().try_for_each(|(name, plot)| fs::write(to.join(format!("gossip-{name}.svg")), plot.svg()))
    }
}
