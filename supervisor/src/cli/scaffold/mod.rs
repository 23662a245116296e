//! `prefork new worker NAME`: a crate that is a worker, with its test, its configuration
//! and what it is deployed by.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::Error;
use super::terminal::Terminal;

/// The longest name, in bytes: that of a pool.
const LONGEST_NAME: usize = 64;

/// What the SDK's package is called.
const SDK: &str = "prefork-worker";

/// Each file's path and text. `@NAME@`, `@VERSION@` and `@SDK@` stand for what differs.
const FILES: [(&str, &str); 8] = [
    ("Cargo.toml", include_str!("worker/Cargo.toml.in")),
    (".gitignore", include_str!("worker/gitignore.in")),
    ("src/main.rs", include_str!("worker/main.rs.in")),
    ("tests/answers.rs", include_str!("worker/answers.rs.in")),
    ("prefork.toml", include_str!("worker/prefork.toml.in")),
    (
        "deploy/prefork.toml",
        include_str!("worker/deployed.toml.in"),
    ),
    (
        "deploy/Containerfile",
        include_str!("worker/Containerfile.in"),
    ),
    ("deploy/@NAME@.service", include_str!("worker/service.in")),
];

/// The name of a crate, of its program and of its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CrateName(String);

impl FromStr for CrateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
        if begins && text.len() <= LONGEST_NAME && text.bytes().all(fits) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "a name begins with a letter and has up to {LONGEST_NAME} of the characters a-z, \
             0-9, _ and -"
        ))
    }
}

/// `prefork new worker`: makes the folder NAME in the working directory.
pub(super) fn worker(
    name: &CrateName,
    sdk: Option<PathBuf>,
    terminal: Terminal,
) -> Result<(), Error> {
    let name = &name.0;
    let sdk = match sdk {
        Some(given) if is_sdk(&given) => given,
        Some(given) => return Err(Error::NotTheSdk { path: given }),
        None => beside_own_program().ok_or(Error::NoSdk)?,
    };
    let sdk = fs::canonicalize(&sdk).map_err(|error| Error::File { path: sdk, error })?;
    let Some(sdk) = sdk.to_str() else {
        return Err(Error::NotTheSdk { path: sdk });
    };
    let folder = Path::new(name);
    fs::create_dir(folder).map_err(|error| Error::File {
        path: folder.to_owned(),
        error,
    })?;
    let mut made = String::new();
    for (path, text) in FILES {
        let path = folder.join(path.replace("@NAME@", name));
        write(&path, &filled_in(text, name, sdk)).map_err(|error| Error::File {
            path: path.clone(),
            error,
        })?;
        made.push_str(&format!("{}\n", path.display()));
    }
    terminal.data(made)?;
    terminal.note(&format!(
        "next: cd {name} && cargo test && cargo build && prefork run"
    ));
    Ok(())
}

fn filled_in(text: &str, name: &str, sdk: &str) -> String {
    text.replace("@NAME@", name)
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@SDK@", &toml::Value::from(sdk).to_string())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(directory)?;
    fs::write(path, text)
}

/// Where the SDK is in the sources that this program was built in, if it still lies there.
fn beside_own_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let mut above = program.ancestors().map(|folder| folder.join("worker"));
    above.find(|folder| is_sdk(folder))
}

/// Whether a folder has the manifest of the SDK.
fn is_sdk(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let manifest: toml::Table = manifest.parse().unwrap_or_default();
    let name = manifest.get("package").and_then(|it| it.get("name"));
    name.and_then(toml::Value::as_str) == Some(SDK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_valid_and_has_no_gaps() {
        for (path, text) in FILES {
            let text = filled_in(text, "shop-2", "/srv/\"prefork\"/worker");
            assert!(!text.contains("@"), "{path}: {text}");
            if path.ends_with(".toml") {
                text.parse::<toml::Table>()
                    .unwrap_or_else(|error| panic!("{path}: {error}"));
            }
        }
    }

    #[test]
    fn a_name_is_one_of_a_crate_and_of_a_pool() {
        for name in ["shop", "shop-2", "my_shop"] {
            assert!(name.parse::<CrateName>().is_ok(), "{name}");
        }
        for name in ["", "Shop", "2shop", "../shop", "a b", &"a".repeat(65)] {
            assert!(name.parse::<CrateName>().is_err(), "{name}");
        }
    }

    #[test]
    fn the_sdk_is_known_by_its_manifest() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(is_sdk(&sources.join("../worker")));
        assert!(!is_sdk(sources));
        assert!(!is_sdk(Path::new("/nowhere")));
    }
}
