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
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Foca, Self::Chitchat, Self::Memberlist];

    /// As the command line names it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Foca => "foca",
            Self::Chitchat => "chitchat",
            Self::Memberlist => "memberlist",
        }
    }

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

/// The page in `docs`.
const PAGE: &str = "gossip-figures.md";
/// What stands where nothing was measured.
const NOTHING: &str = "—";

/// The report as it grows.
pub struct Report {
    rows: Vec<(String, [String; 4])>,
}

impl Report {
    /// An empty one.
    pub fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// What was written before into that directory, so that some columns can be measured anew.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(from: &Path) -> io::Result<Self> {
        let page = fs::read_to_string(from.join(PAGE))?;
        let rows = page.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::to_owned);
            let row = cells.next().filter(|row| row != "what")?;
            let cells: Vec<String> = cells.collect();
            Some((row, cells.try_into().ok()?))
        });
        Ok(Self { rows: rows.collect() })
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

    /// The plot of the rows that begin so: what stands first in each cell, over the nodes that the row names.
    fn plot(&self, mut plot: Plot, begin: &str, formula: Option<fn(usize) -> f64>) -> String {
        for (row, cells) in self.rows.iter().filter(|(row, _)| row.starts_with(begin) && !row.contains(" 10 % lost")) {
            let before = row.split(" nodes").next().and_then(|before| before.rsplit(' ').next());
            let Some(nodes) = before.and_then(|nodes| nodes.parse().ok()) else { continue };
            for (column, cell) in Column::ALL.into_iter().zip(cells) {
                let value = cell.split_whitespace().next().and_then(|value| value.parse().ok());
                plot.point(column.name(), nodes, value);
            }
            if let Some(formula) = formula {
                plot.point("log2 N × 200 ms", nodes, Some(formula(nodes)));
            }
        }
        plot.svg()
    }

    /// As markdown.
    pub fn table(&self) -> String {
        let columns = Column::ALL.map(Column::name);
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
        fs::write(to.join(PAGE), page)?;
        let plots = [
            ("detection", "Killed: dead at all", "seconds, median", "killed until dead at all", None),
            ("convergence", "All start at once: one view at all", "seconds, median", "one view after", None),
            ("bytes", "Nothing happens: sent by each node", "bytes a second", "bytes a second", None),
            (
                "dissemination",
                "One joins: from the first that hears to the last",
                "seconds, median",
                "one joins",
                Some((|nodes| (nodes as f64).log2() * 0.2) as fn(usize) -> f64),
            ),
        ];
        plots.into_iter().try_for_each(|(name, title, vertical, begin, formula)| {
            let svg = self.plot(Plot::new(title, vertical), begin, formula);
            fs::write(to.join(format!("gossip-{name}.svg")), svg)
        })
    }
}
