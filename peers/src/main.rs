//! Compares the gossip membership of the library with that of others: prints one table, and writes it with plots into
//! `docs`. `--quick` takes few seeds; `--only <row>` measures one group of rows, and writes nothing.

mod chitchat;
mod cost;
mod foca;
mod memberlist;
mod plot;
mod report;
mod rows;
mod samples;
mod scenarios;

use std::path::Path;
use std::process::ExitCode;

use report::Report;
use rows::{Extent, ROWS};

fn main() -> ExitCode {
    let (mut is_quick, mut only) = (false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--only" => only = arguments.next().or(Some(String::new())),
            _ => return usage(),
        }
    }
    if only.as_ref().is_some_and(|only| ROWS.iter().all(|(name, _)| name != only)) {
        return usage();
    }
    let mut report = Report::new();
    for (_, measure) in ROWS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
        measure(&mut report, Extent { is_quick });
    }
    print!("{}", report.table());
    if only.is_some() {
        return ExitCode::SUCCESS;
    }
    let docs = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
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
    eprintln!("usage: peers [--quick] [--only <row>], of the rows {}", rows.join(", "));
    ExitCode::from(2)
}
