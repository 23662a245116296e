//! The results of a run, with what a reader needs to repeat it.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::bench::Bench;
use crate::peer;
use crate::report::{Report, targets};

/// What one suite found, and how long it took.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    suite: &'static str,
    seconds: f64,
    #[serde(flatten)]
    report: Report,
}

impl Finding {
    pub(crate) fn new(suite: &'static str, took: Duration, report: Report) -> Self {
        Self {
            suite,
            seconds: took.as_secs_f64(),
            report,
        }
    }

    /// Whether a target was measured and not reached.
    pub(crate) fn misses_a_target(&self) -> bool {
        let mut targets = self.report.targets.iter();
        targets.any(|target| target.is_met() == Some(false))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {} ({:.0} s)\n", self.suite, self.seconds)?;
        self.report.fmt(f)
    }
}

/// Everything as JSON.
pub(crate) fn json(findings: &[Finding]) -> Result<String> {
    Ok(serde_json::to_string_pretty(findings)?)
}

/// Writes everything as Markdown.
pub(crate) fn write(path: &Path, bench: &Bench, findings: &[Finding]) -> Result<()> {
    let mut text = String::from(
        "# Results\n\nWritten by `prefork-bench`; README.md says what is measured and how.\n\
         Medians, with the lowest and the highest measurement in parentheses.\n\n",
    );
    for (what, value) in circumstances(bench) {
        writeln!(text, "- {what}: {value}")?;
    }
    let all: Vec<_> = findings.iter().flat_map(|it| &it.report.targets).collect();
    writeln!(text, "\n{}", targets(all))?;
    for finding in findings {
        writeln!(text, "{finding}")?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// When, where and with what it was measured.
fn circumstances(bench: &Bench) -> Vec<(&'static str, String)> {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let mut all = vec![
        ("date", said_by("date", &["--utc", "--iso-8601=seconds"])),
        ("command", format!("prefork-bench {}", command.join(" "))),
        ("kernel", said_by("uname", &["-srm"])),
        ("processors", processors()),
        ("memory", line_of("/proc/meminfo", "MemTotal:")),
        ("compiler", said_by("rustc", &["--version"])),
        (
            "prefork",
            said_by(&bench.prefork.display().to_string(), &["--version"]),
        ),
    ];
    for peer in peer::ALL {
        let version = peer.installed();
        let version = version.unwrap_or_else(|| "not installed".to_owned());
        all.push((peer.blueprint.name, version));
    }
    all
}

fn processors() -> String {
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let model = line_of("/proc/cpuinfo", "model name");
    format!("{count} × {}", model.trim_start_matches([' ', '\t', ':']))
}

fn line_of(path: &str, field: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or("unknown").trim().to_owned()
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}
