//! What every suite is given.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

/// What every suite is given.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Whether to take seconds instead of minutes: to see that all works.
    pub(crate) smoke: bool,
    /// The program under test.
    pub(crate) prefork: PathBuf,
    bar: ProgressBar,
}

impl Bench {
    /// With the program at `prefork`, or else the one beside this program,
    /// which is built first where cargo has started this program.
    pub(crate) fn new(smoke: bool, prefork: Option<PathBuf>, suites: usize) -> Result<Self> {
        let prefork = match prefork {
            Some(path) => path,
            None => beside_this_program()?,
        };
        let path = prefork.display();
        ensure!(
            prefork.is_file(),
            "{path} is not there: cargo build --release -p prefork-supervisor"
        );
        let prefork = prefork.canonicalize()?;
        // Says nothing where stderr is no terminal.
        let style = "{elapsed_precise} [{bar:24}] {pos}/{len} {prefix}: {wide_msg}";
        let bar = ProgressBar::new(suites as u64)
            .with_style(ProgressStyle::with_template(style)?.progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        Ok(Self {
            smoke,
            prefork,
            bar,
        })
    }

    /// Says on a terminal what is being measured.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// Says on a terminal which suite runs.
    pub(crate) fn begins(&self, suite: &'static str) {
        self.bar.set_prefix(suite);
        self.bar.set_message("");
    }

    /// Notes that a suite has ended.
    pub(crate) fn ended(&self) {
        self.bar.inc(1);
    }

    /// Prints something without drawing the progress over it.
    pub(crate) fn say(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Takes the progress off the terminal.
    pub(crate) fn finished(&self) {
        self.bar.finish_and_clear();
    }

    /// One value for a real measurement, another to see that it works.
    pub(crate) fn pick<T>(&self, real: T, smoke: T) -> T {
        if self.smoke { smoke } else { real }
    }

    /// Whether this version of the program has a command.
    pub(crate) fn has_command(&self, name: &str) -> Result<bool> {
        let mut command = Command::new(&self.prefork);
        let help = command.arg("--help").output().context("prefork --help")?;
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        let mut words = help
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        Ok(words.any(|word| word == name))
    }
}

fn beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("this program has no path")?;
    let directory = this.parent().context("this program is in no directory")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut build = Command::new(cargo);
        build.current_dir(workspace);
        build.args(["build", "-p", "prefork-supervisor", "--bin", "prefork"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        ensure!(build.status()?.success(), "prefork could not be built");
    }
    Ok(directory.join("prefork"))
}
