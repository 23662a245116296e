//! `[supervisor]`.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prefork_proto::adapter::SOCKET_PATH_LIMIT;
use toml::de::DeValue;

use super::checked::Supervisor;
use super::defaults;
use super::error::{Fault, Problems};
use super::host::Host;
use super::listen::socket_address;
use super::section::{Section, boolean, permissions, string};
use crate::log::{Format, LEVELS};

/// The longest that workers may go on without a supervisor: one week.
const LONGEST_ORPHAN: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest between the order to stop and the drain: one hour.
const LONGEST_STOP_DELAY: Duration = Duration::from_secs(3600);

/// Reads the section; without one everything is as by default. The command
/// line's flags go before the file.
pub(super) fn read(
    section: Option<Section<'_>>,
    host: &Host,
    problems: &Problems<'_>,
) -> Supervisor {
    let mut supervisor = defaults::supervisor(host.runtime_dir.clone());
    let mut runtime_dir = None;
    if let Some(mut section) = section {
        runtime_dir = section
            .take("runtime_dir", |value| control_dir(value, host))
            .value;
        supervisor.control_mode = section
            .take_or("control_mode", supervisor.control_mode, control_mode)
            .value;
        supervisor.admin = section
            .take_or("admin", supervisor.admin, |value| {
                admin(string(value, "an address such as \"127.0.0.1:9919\"")?)
            })
            .value;
        let what = "an array of names such as [\"metrics.example.com\"]";
        let names = section.list("admin_hosts", what, |name| host_name(name.get_ref()));
        let names = names.map(|names| names.value.into_iter().map(|name| name.value));
        supervisor.admin_hosts = names.into_iter().flatten().collect();
        supervisor.admin_ipv6_only = section
            .take_or("admin_ipv6_only", supervisor.admin_ipv6_only, boolean)
            .value;
        supervisor.log = section
            .take("log", |value| {
                path(
                    string(value, "a path such as \"/var/log/prefork.log\"")?,
                    host,
                )
            })
            .value;
        supervisor.log_format = section.take("log_format", log_format).value;
        supervisor.log_level = section
            .take("log_level", |value| {
                let level = string(value, "a level such as \"info\"")?;
                if LEVELS.contains(&level) {
                    return Ok(level.to_owned());
                }
                let known = LEVELS.join(", ");
                Err(Fault::new(format!("`{level}` is no level; one of {known}")))
            })
            .value;
        supervisor.orphan_timeout = section
            .duration(
                "orphan_timeout",
                supervisor.orphan_timeout,
                Duration::ZERO..=LONGEST_ORPHAN,
            )
            .value;
        supervisor.stop_delay = section
            .duration(
                "stop_delay",
                supervisor.stop_delay,
                Duration::ZERO..=LONGEST_STOP_DELAY,
            )
            .value;
        supervisor.strict_boot = section
            .take_or("strict_boot", supervisor.strict_boot, boolean)
            .value;
        section.finish();
    }
    if let Some(path) = host.runtime_dir_flag.clone().or(runtime_dir) {
        supervisor.runtime_dir = path;
    } else if let Err(fault) = fits_socket(&supervisor.runtime_dir) {
        // The environment's: no line of the file is to blame.
        problems.whole(fault.help("set `runtime_dir` in [supervisor], or --runtime-dir"));
    }
    if let Some(admin) = host.admin_flag {
        supervisor.admin = admin;
    }
    supervisor
}

/// Permission bits, or `"off"` for no control socket.
fn control_mode(value: &DeValue<'_>) -> Result<Option<u32>, Fault> {
    if value.as_str() == Some("off") {
        return Ok(None);
    }
    permissions(value).map(Some)
}

fn log_format(value: &DeValue<'_>) -> Result<Format, Fault> {
    let name = string(value, "\"text\", \"json\" or \"journal\"")?;
    let known = Format::ALL.into_iter().find(|it| it.as_str() == name);
    known.ok_or_else(|| {
        Fault::new(format!(
            "`{name}` is no format of the log; one of text, json, journal"
        ))
    })
}

fn control_dir(value: &DeValue<'_>, host: &Host) -> Result<PathBuf, Fault> {
    let path = path(string(value, "a path such as \"/run/prefork\"")?, host)?;
    fits_socket(&path)?;
    Ok(path)
}

/// The admin address: one that can be bound, or `""` for none.
pub(super) fn admin(text: &str) -> Result<Option<SocketAddr>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    socket_address(text).map(Some)
}

/// A name as it stands in `Host`, without a port.
fn host_name(value: &DeValue<'_>) -> Result<String, Fault> {
    let name = string(value, "a name such as \"metrics.example.com\"")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Fault::new(format!(
            "`{name}` is no host's name: letters, digits, `-`, `_` and dots, without a port"
        )));
    }
    Ok(name.to_owned())
}

/// Whether the control socket's path fits what the kernel takes.
pub(super) fn fits_socket(runtime_dir: &Path) -> Result<(), Fault> {
    let socket = runtime_dir.join("control.sock");
    let bytes = socket.as_os_str().as_bytes().len();
    if bytes <= SOCKET_PATH_LIMIT {
        return Ok(());
    }
    Err(Fault::new(format!(
        "the control socket's path {} has {bytes} bytes; the kernel takes {SOCKET_PATH_LIMIT}",
        socket.display()
    )))
}

fn path(text: &str, host: &Host) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') {
        return Err(Fault::new("the path is empty or contains a NUL"));
    }
    Ok(host.resolve(Path::new(text)))
}
