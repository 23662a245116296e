//! `prefork-bench` measures prefork side by side with a bare hyper loop and
//! with the servers of the field that are installed.
//!
//! It starts everything itself, on loopback, bounded in time, and leaves no
//! process behind. Every figure that counts is a ratio of two things that were
//! measured in turn in one run.
//!
//! - `suite` has what can be measured, one file each; `report` what they find.
//! - `server` starts servers and gives them orders: `prefork` has prefork and
//!   the bare hyper loop, `peer` the others.
//! - `load` has the clients, `files` what they download, `process` what /proc says.
//! - `scratch` is where everything is written; `interrupt` ends a run that is
//!   interrupted without leaving anything of it.
//! - `role` is what this program is when it starts itself as a server.

mod bench;
mod figures;
mod files;
mod interrupt;
mod load;
mod peer;
mod prefork;
mod process;
mod report;
mod results;
mod role;
mod scratch;
mod server;
mod suite;
mod sys;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Parser;

use bench::Bench;
use results::Finding;
use suite::Suite;

/// Measures prefork side by side with a bare hyper loop and the installed peers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// What to measure: names of suites, or `all`.
    #[arg(required_unless_present = "list")]
    suites: Vec<String>,
    /// Name the suites and leave.
    #[arg(long)]
    list: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Take seconds instead of minutes: shows that all works, the figures mean nothing.
    #[arg(long)]
    smoke: bool,
    /// Have a missed target make the exit code 1, as a failed suite does.
    #[arg(long)]
    strict: bool,
    /// The program under test, instead of the one built beside this one.
    #[arg(long, value_name = "PATH")]
    prefork: Option<PathBuf>,
    /// Write the results to this file as Markdown.
    #[arg(long, value_name = "PATH")]
    results: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(code) = role::from_arguments() {
        return code;
    }
    match measure(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("prefork-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        for suite in &suite::ALL {
            println!("{:<14}{}", suite.name, suite.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let suites = chosen(&arguments.suites)?;
    interrupt::clean_up_when_it_comes()?;
    process::adopt_orphans()?;
    let _scratch = scratch::begin()?;
    let bench = Bench::new(arguments.smoke, arguments.prefork.clone(), suites.len())?;
    let mut findings = Vec::new();
    let mut failed = false;
    for suite in suites {
        let begun = Instant::now();
        bench.begins(suite.name);
        match (suite.run)(&bench) {
            Ok(report) => {
                let finding = Finding::new(suite.name, begun.elapsed(), report);
                failed |= arguments.strict && finding.misses_a_target();
                if !arguments.json {
                    bench.say(|| println!("{finding}"));
                }
                findings.push(finding);
            }
            Err(error) => {
                bench.say(|| eprintln!("prefork-bench: {}: {error:#}", suite.name));
                failed = true;
            }
        }
        bench.ended();
    }
    bench.finished();
    if arguments.json {
        println!("{}", results::json(&findings)?);
    }
    if let Some(path) = &arguments.results {
        results::write(path, &bench, &findings)?;
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Suite>> {
    static ALL: [Suite; suite::ALL.len()] = suite::ALL;
    if names == ["all"] {
        return Ok(ALL.iter().collect());
    }
    let mut chosen = Vec::new();
    for name in names {
        match ALL.iter().find(|suite| suite.name == name) {
            Some(suite) => chosen.push(suite),
            None => bail!("no suite {name}; --list names them"),
        }
    }
    Ok(chosen)
}
