//! Example programs that tests run. Cargo builds them for `cargo test`, but not
//! for one test target alone: `cargo test --test end_to_end` would run what
//! happens to lie there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// What builds all of them.
const BUILD: [&str; 4] = ["build", "--quiet", "--workspace", "--examples"];

/// An example of the workspace in this target directory (`target/debug`). Where
/// it is missing, or older than what it is made of, it is built first.
pub fn example(target: &Path, name: &str) -> PathBuf {
    static KNOWN: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // The other tests wait for the one that looks, and perhaps builds.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = known.get(name) {
        return path.clone();
    }
    let path = target.join("examples").join(name);
    if let Err(why) = is_fresh(&path) {
        eprintln!("{why}: building the examples");
        build(target);
    }
    assert!(path.is_file(), "there is no example {}", path.display());
    known.insert(name.to_owned(), path.clone());
    path
}

/// Compares a program with the files that Cargo has noted beside it; why it has
/// to be built, if it has to.
fn is_fresh(program: &Path) -> Result<(), String> {
    let missing = |_| format!("{} is not built", program.display());
    let built = fs::metadata(program).and_then(|it| it.modified());
    let built = built.map_err(missing)?;
    let noted = fs::read_to_string(program.with_extension("d")).map_err(missing)?;
    let sources = noted.split_once(": ").map_or("", |(_, sources)| sources);
    // A space in a path is written with a backslash.
    let sources = sources.trim_end().replace("\\ ", "\0");
    for source in sources.split(' ').map(|source| source.replace('\0', " ")) {
        let changed = fs::metadata(&source).and_then(|it| it.modified());
        if changed.map_or(true, |changed| changed > built) {
            return Err(format!("{} is older than {source}", program.display()));
        }
    }
    Ok(())
}

fn build(target: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(BUILD).current_dir(env!("CARGO_MANIFEST_DIR"));
    let parent = target
        .parent()
        .expect("a profile's directory is in another");
    // Without what `cargo test` has set for this process's own package.
    cargo.env("CARGO_TARGET_DIR", parent);
    match target.file_name().and_then(|name| name.to_str()) {
        Some("debug") => {}
        Some(profile) => drop(cargo.args(["--profile", profile])),
        None => panic!("{} names no profile", target.display()),
    }
    let built = cargo.status().expect("cargo runs");
    assert!(
        built.success(),
        "the examples are not built: run `cargo {}`",
        BUILD.join(" ")
    );
}
