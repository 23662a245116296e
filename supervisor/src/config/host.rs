//! The machine and the process that a configuration is checked against.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::unistd::Uid;

use super::error::{ConfigError, Fault};
use super::given::absolute;
use super::{Options, execution, supervisor};
use crate::kernel::sys;

/// What the meaning of a configuration depends on besides its text.
#[derive(Debug, Clone)]
pub struct Host {
    /// Relative paths start here: the file's directory, or the working directory.
    pub directory: PathBuf,
    /// Where programs without a slash are looked for: `$PATH`.
    pub search_path: OsString,
    /// How many workers `auto` is.
    pub cpus: u32,
    /// Whether workers can be given another user.
    pub root: bool,
    /// What it has of capabilities(7), a bit for each.
    pub capabilities: u64,
    /// The processors that it may use.
    pub cpu_list: Vec<u32>,
    /// The lowest priority number that it can give.
    pub least_nice: i32,
    /// The highest RLIMIT_NOFILE: sysctl `fs.nr_open`.
    pub most_descriptors: u64,
    /// The runtime directory, unless the file names one.
    pub runtime_dir: PathBuf,
    /// `--runtime-dir`: goes before the file's.
    pub runtime_dir_flag: Option<PathBuf>,
    /// `--admin`: goes before the file's.
    pub admin_flag: Option<Option<SocketAddr>>,
}

impl Host {
    /// This process's, with what the command line says.
    ///
    /// # Errors
    ///
    /// `Usage` when one of the options' own values is wrong.
    pub fn current(options: &Options) -> Result<Self, ConfigError> {
        let directory = options.directory();
        let admin_flag = match &options.admin {
            Some(text) => Some(supervisor::admin(text).map_err(|fault| fault.of_flag("--admin"))?),
            None => None,
        };
        let runtime_dir_flag = options.runtime_dir.as_deref().map(absolute);
        let fault = |fault: Fault| fault.of_flag("--runtime-dir");
        if let Some(path) = &runtime_dir_flag {
            supervisor::fits_socket(path).map_err(fault)?;
        }
        let capabilities = execution::permitted();
        Ok(Self {
            directory,
            search_path: env::var_os("PATH").unwrap_or_default(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
            root: Uid::effective().is_root(),
            capabilities,
            cpu_list: execution::own_cpus(),
            least_nice: sys::least_nice(capabilities & execution::SYS_NICE != 0),
            most_descriptors: most_descriptors(),
            runtime_dir: runtime_dir(None),
            runtime_dir_flag,
            admin_flag,
        })
    }

    /// The same host for a file: relative paths start at its directory.
    pub(super) fn beside(&self, file: &Path) -> Self {
        Self {
            directory: self.directory.join(file.parent().unwrap_or(Path::new(""))),
            ..self.clone()
        }
    }

    /// A path of the configuration, absolute.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        absolute(&self.directory.join(path))
    }
}

/// Where the control socket is, for the supervisor and for those who look for
/// it: `explicit`, else `$RUNTIME_DIRECTORY`, else `/run/prefork` as root, else
/// `$XDG_RUNTIME_DIR/prefork`, else `/tmp/prefork-UID`. Always absolute.
pub fn runtime_dir(explicit: Option<&Path>) -> PathBuf {
    match explicit {
        Some(path) => absolute(path),
        None => usual_runtime_dir(Uid::effective(), |name| env::var_os(name)),
    }
}

fn usual_runtime_dir(uid: Uid, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let name = variable_of_runtime_dir_for(uid, &variable);
    let given = name.and_then(|name| Some((name, variable(name)?)));
    match given {
        Some((XDG_RUNTIME_DIR, path)) => absolute(&Path::new(&path).join("prefork")),
        // systemd separates several directories by colons.
        Some((_, paths)) => {
            let first = env::split_paths(&paths).next();
            absolute(&first.unwrap_or_default())
        }
        None if uid.is_root() => PathBuf::from("/run/prefork"),
        None => PathBuf::from(format!("/tmp/prefork-{uid}")),
    }
}

const RUNTIME_DIRECTORY: &str = "RUNTIME_DIRECTORY";
const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

/// The variable of the environment that says where the usual runtime directory is.
pub(super) fn variable_of_runtime_dir(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<&'static str> {
    variable_of_runtime_dir_for(Uid::effective(), variable)
}

fn variable_of_runtime_dir_for(
    uid: Uid,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<&'static str> {
    let is_given = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    let mut names = [RUNTIME_DIRECTORY, XDG_RUNTIME_DIR].into_iter();
    let name = names.find(is_given)?;
    (name == RUNTIME_DIRECTORY || !uid.is_root()).then_some(name)
}

fn most_descriptors() -> u64 {
    let text = fs::read_to_string("/proc/sys/fs/nr_open");
    let number = text.ok().and_then(|text| text.trim().parse().ok());
    number.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_directory_is_the_first_that_the_environment_offers() {
        let system = Some("/run/shop:/run/other");
        let session = Some("/run/user/1000");
        for (uid, runtime, xdg, expected) in [
            (1000, system, session, "/run/shop"),
            (0, system, session, "/run/shop"),
            (0, None, session, "/run/prefork"),
            (0, Some(""), None, "/run/prefork"),
            (1000, None, session, "/run/user/1000/prefork"),
            (1000, Some(""), Some(""), "/tmp/prefork-1000"),
            (1000, None, None, "/tmp/prefork-1000"),
        ] {
            let directory = usual_runtime_dir(Uid::from_raw(uid), |name| {
                let value = match name {
                    "RUNTIME_DIRECTORY" => runtime,
                    _ => xdg,
                };
                value.map(OsString::from)
            });
            assert_eq!(directory, Path::new(expected), "{uid} {runtime:?} {xdg:?}");
        }
        assert_eq!(
            runtime_dir(Some(Path::new("/srv/run"))),
            Path::new("/srv/run")
        );
        assert!(runtime_dir(Some(Path::new("run"))).is_absolute());
    }
}
