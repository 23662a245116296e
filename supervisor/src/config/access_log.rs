//! `[pool.NAME.access_log]`: a line for every request of a pool.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, access};
use prefork_proto::message::AccessLogFormat;
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::error::Fault;
use super::host::Host;
use super::section::{Section, expected, string};
use crate::kernel::trusted_path::{Directories, Place, Trusted};

/// Those of a file that is made here.
const PERMISSIONS: u32 = 0o640;

const FORMATS: &str = "\"combined\" or \"json\"";
const PATH: &str = "a path such as \"/var/log/prefork/web.log\", or \"stdout\"";

/// What is written down of each request, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// How a line looks.
    pub format: AccessLogFormat,
    /// A file; the supervisor's standard output without one.
    pub path: Option<PathBuf>,
}

impl AccessLog {
    /// As the summary and a reload's changes show it.
    pub(super) fn show(&self) -> String {
        let format = match self.format {
            AccessLogFormat::Combined => "combined",
            AccessLogFormat::Json => "json",
        };
        match &self.path {
            Some(path) => format!("{format} to {}", path.display()),
            None => format!("{format} to stdout"),
        }
    }
}

/// Reads the table, if there is one.
pub(super) fn read(pool: &mut Section<'_>, host: &Host) -> Option<AccessLog> {
    let name = format!("`access_log` of {}", pool.name);
    let mut section = pool.section("access_log", name)?;
    let format = section.take_or("format", AccessLogFormat::default(), format);
    let path = section.take("path", |value| path(value, host));
    if path.sound && path.value.is_none() {
        let fault = Fault::new(format!("{} has no `path`", section.name));
        let help = "path = \"/var/log/prefork/web.log\", or \"stdout\"";
        section.fault(section.span.clone(), fault.help(help));
    }
    section.finish();
    path.value.map(|path| AccessLog {
        format: format.value,
        path,
    })
}

fn format(value: &DeValue<'_>) -> Result<AccessLogFormat, Fault> {
    match value.as_str() {
        Some("combined") => Ok(AccessLogFormat::Combined),
        Some("json") => Ok(AccessLogFormat::Json),
        _ => Err(expected(FORMATS, value)),
    }
}

fn path(value: &DeValue<'_>, host: &Host) -> Result<Option<PathBuf>, Fault> {
    let text = string(value, PATH)?;
    if text == "stdout" {
        return Ok(None);
    }
    if text.is_empty() || text.contains('\0') {
        return Err(expected(PATH, value));
    }
    let path = host.resolve(Path::new(text));
    can_be_opened(&path)
        .map_err(|error| Fault::new(format!("cannot write {}: {error}", path.display())))?;
    Ok(Some(path))
}

/// Whether the file could be opened for writing, without touching anything: one
/// that is not there yet is not made, and a pipe's reader notices nothing.
fn can_be_opened(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(nix::Error::EISDIR.into()),
        Ok(_) => Ok(access(path, AccessFlags::W_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            if !directory.metadata()?.is_dir() {
                return Err(nix::Error::ENOTDIR.into());
            }
            Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        Err(error) => Err(error),
    }
}

/// Opens an access log to append to it. A pipe is not waited for: without a
/// reader it is an error (ENXIO), and writing to it never blocks.
/// Whoever writes to it may be the owner, and anybody the directory's; but what is
/// opened is what was meant.
pub(crate) fn open(path: &Path, writer: Option<u32>) -> io::Result<File> {
    let trusted = Trusted::here().and(writer);
    let place = Place::of(path, trusted, Directories::Anybodys)?;
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let open = |more| {
        place
            .open(flags | more, PERMISSIONS)
            .map_err(io::Error::from)
    };
    match open(OFlag::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match open(OFlag::O_CREAT | OFlag::O_EXCL) {
        Ok(made) => {
            // Whatever the umask is: those who read logs are of its group.
            made.set_permissions(Permissions::from_mode(PERMISSIONS))?;
            Ok(made)
        }
        // Another was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(OFlag::empty()),
        Err(error) => Err(error),
    }
}
