//! The code that a program's file alone doesn't tell: scripts, which the kernel
//! hands to their interpreter by a path and which can't be pinned, what an
//! interpreter is told to run, and what a wrapper has become.
//!
//! A path through a symbolic link is resolved when the generation begins. What is
//! written into a file at that path can only be noticed.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;

use crate::config::{Pool, Program};
use crate::recovery::state::SavedFile;
use crate::upgrade::FileIdentity;

/// Programs whose file says nothing of the code that they run, without the
/// numbers of their versions.
const INTERPRETERS: [&str; 29] = [
    "ash", "bash", "beam.smp", "bun", "busybox", "csh", "dash", "deno", "dotnet", "env", "fish",
    "guile", "java", "julia", "ksh", "lua", "luajit", "mono", "node", "nodejs", "perl", "php",
    "php-fpm", "pypy", "python", "ruby", "sh", "tclsh", "zsh",
];

/// What a file is by now.
pub(in crate::reactor) fn identify(path: &Path) -> io::Result<FileIdentity> {
    let found = fs::metadata(path)?;
    Ok(FileIdentity {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
    })
}

/// A file of a program as it is now.
pub(in crate::reactor) fn read_from(given: &Path) -> Option<SavedFile> {
    let path = given.canonicalize().ok()?;
    let file = identify(&path).ok()?;
    // The state is text.
    (path.to_str().is_some() && given.to_str().is_some()).then(|| SavedFile {
        given: given.to_owned(),
        path,
        file,
    })
}

/// What an interpreter is told to run: the first of its arguments that is a file.
/// Relative ones start at `start`.
pub(in crate::reactor) fn interpreted(
    program: &Path,
    args: &[String],
    start: &Path,
) -> Option<SavedFile> {
    if !is_interpreter(program) {
        return None;
    }
    let mut files = args.iter().map(|arg| start.join(arg));
    read_from(&files.find(|path| path.is_file())?)
}

/// A file that a pool's program may have read when it started, as its settings name it:
/// an argument or what follows a `=` in one, a value of `env`, a text in `app`.
pub(in crate::reactor) fn named_file(pool: &Pool, start: &Path) -> Option<PathBuf> {
    let mut texts = Vec::new();
    if let Program::Command { args, .. } = &pool.program {
        texts.extend(args.iter().map(String::as_str));
        texts.extend(args.iter().filter_map(|arg| Some(arg.split_once('=')?.1)));
    }
    texts.extend(pool.env.values().map(String::as_str));
    // What the bundled web server is told to serve it reads each time.
    if pool.program != Program::Bundled {
        add_texts(&pool.app, &mut texts);
    }
    let texts = texts.into_iter().filter(|text| !text.is_empty());
    texts
        .map(|text| start.join(text))
        .find(|path| path.is_file())
}

fn add_texts<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|it| add_texts(it, texts)),
        Value::Object(values) => values.values().for_each(|it| add_texts(it, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a process surely runs what lies on the disk: it has become no other
/// program since it was started from the pinned one, or one that is still there,
/// and no interpreter, of which nobody knows what it has read.
pub(in crate::reactor) fn is_of_its_file(
    pid: i32,
    pinned: Option<&OwnedFd>,
    program: &Path,
) -> bool {
    let running = PathBuf::from(format!("/proc/{pid}/exe"));
    let Ok(path) = running.read_link() else {
        // Another user's, and not ours to look at.
        return pinned.is_some() && !is_interpreter(program);
    };
    if is_interpreter(&path) {
        return false;
    }
    let inode = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    let ours = pinned.and_then(|it| inode(Path::new(&format!("/proc/self/fd/{}", it.as_raw_fd()))));
    let running = inode(&running);
    running.is_some() && (running == ours || running == inode(&path))
}

fn is_interpreter(program: &Path) -> bool {
    // It may be called by a link, as `python` in an environment of its own.
    let resolved = program.canonicalize();
    let names = [Some(program), resolved.as_deref().ok()];
    names.into_iter().flatten().any(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        INTERPRETERS.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_with_and_without_a_version() {
        for name in [
            "python3.11",
            "/usr/bin/python",
            "node",
            "ruby2.7",
            "php-fpm8.2",
            "beam.smp",
        ] {
            assert!(is_interpreter(Path::new(name)), "{name}");
        }
        for name in ["shop", "/srv/shop-2.0", "nodemon", "pythonic", ""] {
            assert!(!is_interpreter(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn the_first_file_is_what_an_interpreter_runs() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("app.py");
        fs::write(&file, "").unwrap();
        let args = ["-u", "app.py", "--port"].map(str::to_owned);
        let python = Path::new("/usr/bin/python3");
        let found = interpreted(python, &args, directory.path()).unwrap();
        assert_eq!(found.given, file);
        assert_eq!(
            interpreted(Path::new("shop"), &args, directory.path()),
            None
        );
        assert_eq!(interpreted(python, &args[..1], directory.path()), None);
    }

    #[test]
    fn this_process_is_of_its_file() {
        let us = std::process::id().cast_signed();
        assert!(is_of_its_file(us, None, Path::new("test")));
    }
}
