//! Compares the gossip membership of the library with that of others: prints one table, and writes it with plots into
//! `docs`. `--quick` takes few seeds; `--only <row>` measures one group of rows, and writes nothing; `--again <column>`,
//! which may be said more than once, measures that column anew, of all rows or of that group, and keeps the rest of the
//! page as it was written before.

mod chitchat;
mod cost;
mod foca;
mod memberlist;
mod plot;
mod real;
mod report;
mod rows;
mod samples;
mod scenarios;

use std::path::Path;
use std::process::ExitCode;

use report::{Column, Report};
use rows::{Extent, ROWS};

fn main() -> ExitCode {
    let (mut is_quick, mut only, mut columns) = (false, None, [false; 4]);
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Processes of a cluster, which this program starts itself.
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cluster", kind, ref rest @ ..] => {
            real::cluster(kind, rest.contains(&"idle"));
            return ExitCode::SUCCESS;
        }
        ["member", kind, name, ..] => {
            real::member(kind, name, &words[3..]);
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let mut arguments = words.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--only" => only = arguments.next().or(Some(String::new())),
            "--again" => {
                let name = arguments.next().unwrap_or_default();
                match Column::ALL.into_iter().find(|column| column.key() == name) {
                    Some(column) => columns[column as usize] = true,
                    None => return usage(),
                }
            }
            _ => return usage(),
        }
    }
    if only.as_ref().is_some_and(|only| ROWS.iter().all(|(name, _)| name != only)) {
        return usage();
    }
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let is_again = columns.contains(&true);
    let mut report = match is_again {
        false => Report::new(),
        true => match Report::read(docs) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("cannot read what was written to {} before: {error}", docs.display());
                return ExitCode::FAILURE;
            }
        },
    };
    let extent = Extent { is_quick, columns: if is_again { columns } else { [true; 4] } };
    for (_, measure) in ROWS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        measure(&mut report, extent);
    }
    print!("{}", report.table());
    if only.is_some() && !is_again {
        return ExitCode::SUCCESS;
    }
    let options = if is_quick { " -- --quick" } else { "" };
    let command = format!("cargo run --release --manifest-path peers/Cargo.toml{options}");
    match report.write(docs, &command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write to {}: {error}", docs.display());
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    let rows: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    let columns = Column::ALL.map(Column::key);
    let (rows, columns) = (rows.join(", "), columns.join(", "));
    eprintln!(
        "usage: peers [--quick] [--only <row>] [--again <column>]..., of the rows {rows} and the columns {columns}"
    );
    ExitCode::from(2)
}
