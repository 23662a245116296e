//! Where the configuration comes from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::checked::Config;
use super::error::{ConfigError, Fault, Problems};
use super::host::Host;
use super::{Options, command_line, file};

/// Where a file is looked for when none is named, in this order.
const PLACES: [&str; 2] = ["./prefork.toml", "/etc/prefork/prefork.toml"];

/// Finds and checks the configuration: the flags that describe a pool, or
/// `--config`, `$PREFORK_CONFIG`, `./prefork.toml`, `/etc/prefork/prefork.toml`,
/// or the embedded default.
///
/// # Errors
///
/// `Usage` for a command line that contradicts itself, `Unreadable` for a file
/// that is there and cannot be read, `Invalid` for one that is wrong.
pub fn load(options: &Options) -> Result<Config, ConfigError> {
    let host = Host::current(options)?;
    let named = options.config.as_deref();
    let named = named.filter(|path| !path.as_os_str().is_empty());
    match (named, options.pool_flags().as_slice()) {
        (Some(path), []) => read(path, &host),
        (Some(path), flags) => Err(ConfigError::Usage(format!(
            "{} cannot go with the configuration file {}: change the file, or leave out --config \
             and unset PREFORK_CONFIG",
            flags.join(", "),
            path.display()
        ))),
        (None, []) => match PLACES.iter().map(Path::new).find(|path| is_there(path)) {
            Some(path) => read(path, &host),
            None => command_line::config(options, &host),
        },
        (None, _) => command_line::config(options, &host),
    }
}

/// Whether there is anything at the path. What can't be looked at counts as
/// there: passing over a file for want of permission would run something else.
fn is_there(path: &Path) -> bool {
    !matches!(path.metadata(), Err(error) if absent(&error))
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path, host: &Host) -> Result<Config, ConfigError> {
    let bytes = fs::read(path).map_err(|source| ConfigError::Unreadable {
        path: PathBuf::from(path),
        source,
    })?;
    let name = path.strip_prefix(".").unwrap_or(path).display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => file::parse(&text, &name, &host.beside(path)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let problems = Problems::new(&name, &text);
            problems.at(at..at + 1, Fault::new("this is not UTF-8"));
            Err(problems.into_error())
        }
    }
}
