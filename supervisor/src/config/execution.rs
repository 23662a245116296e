//! On what terms a pool's workers run: what the kernel lets them do and have.
//!
//! Each of these is set between fork and exec, and holds for the worker and
//! for all that it starts.

mod affinity;
mod capabilities;
mod limits;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

pub use affinity::Affinity;
pub(crate) use affinity::own_cpus;
pub use capabilities::Capabilities;
pub(super) use capabilities::{SYS_NICE, permitted};
pub use limits::Limit;

use super::error::Fault;
use super::host::Host;
use super::section::{Section, boolean, expected, permissions, string};
use super::units;

/// The terms of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Execution {
    /// Nothing that a worker executes gives it more rights (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
    /// What it keeps of the supervisor's capabilities. Where nothing is said,
    /// root keeps them all and everybody else none.
    pub capabilities: Option<Capabilities>,
    /// Resource limits (setrlimit(2)), by name.
    pub rlimits: Vec<Limit>,
    /// Its priority (setpriority(2)), from -20 to 19; the supervisor's without one.
    pub nice: Option<i32>,
    /// Where it may run; wherever the supervisor may without one.
    pub cpu_affinity: Option<Affinity>,
    /// The permission bits that its new files don't get; the supervisor's without one.
    pub umask: Option<u32>,
    /// Where it starts; where the supervisor did without one.
    pub working_directory: Option<PathBuf>,
    /// Whether what it has started is ended when it dies.
    #[serde(skip_serializing_if = "is_true")]
    pub kill_tree: bool,
}

/// The default is left out of what is written down.
fn is_true(value: &bool) -> bool {
    *value
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            no_new_privs: true,
            capabilities: None,
            rlimits: Vec::new(),
            nice: None,
            cpu_affinity: None,
            umask: None,
            working_directory: None,
            kill_tree: true,
        }
    }
}

impl Execution {
    /// The keys and values, as they would be written.
    pub(in crate::config) fn settings(&self) -> [(&'static str, String); 8] {
        // Taken apart in full, so that a new key does not go unnoticed.
        let Self {
            no_new_privs,
            capabilities,
            rlimits,
            nice,
            cpu_affinity,
            umask,
            working_directory,
            kill_tree,
        } = self;
        let inherited = || "inherited".to_owned();
        let kept = capabilities.as_ref();
        let limits: Vec<String> = rlimits.iter().map(Limit::show).collect();
        let directory = working_directory.as_ref();
        [
            ("no_new_privs", no_new_privs.to_string()),
            (
                "capabilities",
                kept.map_or_else(|| "none unless root".to_owned(), Capabilities::show),
            ),
            (
                "rlimits",
                match limits.as_slice() {
                    [] => inherited(),
                    limits => limits.join(", "),
                },
            ),
            ("nice", nice.map_or_else(inherited, |nice| nice.to_string())),
            (
                "cpu_affinity",
                cpu_affinity.as_ref().map_or_else(inherited, Affinity::show),
            ),
            (
                "umask",
                umask.map_or_else(inherited, units::show_permissions),
            ),
            (
                "working_directory",
                directory.map_or_else(inherited, |path| path.display().to_string()),
            ),
            ("kill_tree", kill_tree.to_string()),
        ]
    }
}

/// Reads the keys of a pool that are about this.
pub(super) fn read(section: &mut Section<'_>, host: &Host) -> Execution {
    let defaults = Execution::default();
    Execution {
        no_new_privs: section
            .take_or("no_new_privs", defaults.no_new_privs, boolean)
            .value,
        capabilities: capabilities::read(section, host),
        rlimits: limits::read(section, host),
        nice: section.take("nice", |value| nice(value, host)).value,
        cpu_affinity: affinity::read(section, host),
        umask: section.take("umask", permissions).value,
        working_directory: section
            .take("working_directory", |value| {
                let path = string(value, "a directory such as \"/srv/shop\"")?;
                directory(Path::new(path), host)
            })
            .value,
        kill_tree: section
            .take_or("kill_tree", defaults.kill_tree, boolean)
            .value,
    }
}

fn nice(value: &DeValue<'_>, host: &Host) -> Result<i32, Fault> {
    let number = value
        .as_integer()
        .ok_or_else(|| expected("an integer", value))?;
    let nice = i32::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|nice| (-20..=19).contains(nice))
        .ok_or_else(|| {
            Fault::new(format!("{number} is out of range"))
                .help("from -20, which goes first, to 19, which gives way")
        })?;
    if nice < host.least_nice {
        let least = host.least_nice;
        return Err(Fault::new(format!(
            "{nice} goes before what this process may give, {least}, and it has not \
             CAP_SYS_NICE"
        ))
        .help("start prefork as root, or raise RLIMIT_NICE"));
    }
    Ok(nice)
}

fn directory(path: &Path, host: &Host) -> Result<PathBuf, Fault> {
    let path = host.resolve(path);
    match path.metadata() {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => Err(Fault::new(format!("{}: not a directory", path.display()))),
        Err(error) => Err(Fault::new(format!("{}: {error}", path.display()))),
    }
}
