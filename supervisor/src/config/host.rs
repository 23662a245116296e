//! The machine and the process that a configuration is checked against.

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::Options;
use super::error::{ConfigError, Fault};
use super::supervisor;

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
        let directory = absolute(Path::new("."));
        let admin_flag = match &options.admin {
            Some(text) => Some(supervisor::admin(text).map_err(|fault| fault.of_flag("--admin"))?),
            None => None,
        };
        let runtime_dir_flag = options.runtime_dir.as_deref().map(absolute);
        let fault = |fault: Fault| fault.of_flag("--runtime-dir");
        if let Some(path) = &runtime_dir_flag {
            supervisor::fits_socket(path).map_err(fault)?;
        }
        Ok(Self {
            directory,
            search_path: env::var_os("PATH").unwrap_or_default(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
            root: Uid::effective().is_root(),
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
    if let Some(path) = explicit {
        return absolute(path);
    }
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let uid = Uid::effective();
    if let Some(paths) = variable("RUNTIME_DIRECTORY") {
        // systemd separates several by colons.
        if let Some(first) = env::split_paths(&paths).next() {
            return absolute(&first);
        }
    }
    if uid.is_root() {
        return PathBuf::from("/run/prefork");
    }
    match variable("XDG_RUNTIME_DIR") {
        Some(path) => absolute(&Path::new(&path).join("prefork")),
        None => PathBuf::from(format!("/tmp/prefork-{uid}")),
    }
}

/// Made absolute without following links: a link in it may be what a deploy changes.
fn absolute(path: &Path) -> PathBuf {
    let absolute: io::Result<PathBuf> = std::path::absolute(path);
    absolute.unwrap_or_else(|_| path.to_owned())
}
