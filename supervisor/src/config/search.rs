//! Where the configuration comes from.

use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::checked::Config;
use super::error::{ConfigError, Fault, Problems};
use super::host::{Host, runtime_dir};
use super::in_force::{self, InForce};
use super::{Options, command_line, file};
use crate::kernel::regular_file;

/// Where a file is looked for when none is named, in this order: from where
/// relative paths start, and for the whole machine.
const PLACES: [&str; 2] = ["prefork.toml", "/etc/prefork/prefork.toml"];

/// No configuration is longer. It is read and checked by the thread that
/// supervises, so a wrong file must not cost it seconds.
const MOST_BYTES: u64 = 4 << 20;

/// Finds and checks the configuration: the flags that describe a pool, or
/// `--config`, `$PREFORK_CONFIG`, `./prefork.toml`, `/etc/prefork/prefork.toml`,
/// or the embedded default.
///
/// # Errors
///
/// `Usage` for a command line that contradicts itself, `Unreadable` for a file
/// that is there and cannot be read, `Invalid` for one that is wrong.
pub fn load(options: &Options) -> Result<Config, ConfigError> {
    load_text(options).map(|(config, _)| config)
}

/// The same, and every setting with where its value comes from.
///
/// # Errors
///
/// Those of [`load`].
pub fn load_with_origins(options: &Options) -> Result<(Config, Vec<InForce>), ConfigError> {
    let (config, text) = load_text(options)?;
    let settings = in_force::settings(&config, &text, options, |name| std::env::var_os(name));
    Ok((config, settings))
}

/// The configuration and the text that it was read from, which is empty where there is
/// no file.
fn load_text(options: &Options) -> Result<(Config, String), ConfigError> {
    let host = Host::current(options)?;
    let without_a_file = || Ok((command_line::config(options, &host)?, String::new()));
    match (named(options), options.pool_flags().as_slice()) {
        (Some(path), []) => read(path, &host),
        (Some(path), flags) => Err(ConfigError::Usage(format!(
            "{} cannot go with the configuration file {}: change the file, or leave out --config \
             and unset PREFORK_CONFIG",
            flags.join(", "),
            path.display()
        ))),
        (None, []) => match usual(options) {
            Some(path) => read(&path, &host),
            None => without_a_file(),
        },
        (None, _) => without_a_file(),
    }
}

/// The runtime directory as far as it can be told, also where the rest of the
/// configuration is wrong: the command line's, else the file's, else the usual one.
pub fn likely_runtime_dir(options: &Options) -> PathBuf {
    let told = options.runtime_dir.as_deref();
    match (told, chosen(options)) {
        (None, Some(file)) => in_file(&file).unwrap_or_else(|| runtime_dir(None)),
        _ => runtime_dir(told),
    }
}

/// What a file, however broken, names as its runtime directory.
fn in_file(path: &Path) -> Option<PathBuf> {
    let bytes = regular_file::read(path, MOST_BYTES).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (root, _) = DeTable::parse_recoverable(&text);
    let section = root.get_ref().get("supervisor")?.get_ref().as_table()?;
    let dir = section.get("runtime_dir")?.get_ref().as_str()?;
    let beside = path.parent().unwrap_or(Path::new(""));
    (!dir.is_empty()).then(|| runtime_dir(Some(&beside.join(dir))))
}

/// The file that the command line or the environment names.
fn named(options: &Options) -> Option<&Path> {
    let named = options.config.as_deref();
    named.filter(|path| !path.as_os_str().is_empty())
}

/// The file that is read, if it is one: the one that is named, else the first of
/// the usual places where there is any.
pub(super) fn chosen(options: &Options) -> Option<PathBuf> {
    match named(options) {
        Some(path) => Some(path.to_owned()),
        None => options.pool_flags().is_empty().then(|| usual(options))?,
    }
}

/// The first of the usual places where there is a file.
fn usual(options: &Options) -> Option<PathBuf> {
    let start = options.directory.as_deref().unwrap_or(Path::new(""));
    let mut places = PLACES.iter().map(|place| start.join(place));
    places.find(|path| is_there(path))
}

/// Whether there is anything at the path. What can't be looked at counts as
/// there, and so does a link that leads nowhere: passing over them would run
/// something else.
fn is_there(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if absent(&error))
}

fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path, host: &Host) -> Result<(Config, String), ConfigError> {
    let bytes = regular_file::read(path, MOST_BYTES).map_err(|source| ConfigError::Unreadable {
        path: PathBuf::from(path),
        source: explained(path, source),
    })?;
    let name = path.strip_prefix(".").unwrap_or(path).display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => Ok((file::parse(&text, &name, &host.beside(path))?, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let problems = Problems::new(&name, &text);
            problems.at(at..at + 1, Fault::new("this is not UTF-8"));
            Err(problems.into_error())
        }
    }
}

/// An error about a link that leads nowhere says where it leads.
fn explained(path: &Path, error: io::Error) -> io::Error {
    match path.read_link() {
        Ok(target) if absent(&error) => io::Error::new(
            error.kind(),
            format!("it is a link to {}: {error}", target.display()),
        ),
        _ => error,
    }
}
