//! Whose a process is: what it descends from is lost as soon as a process
//! between them ends, so each worker's descendants carry a mark in their
//! environment, and `/proc` tells who has which children.

use std::ffi::CStr;
use std::fs;
use std::io;

/// The variable that holds the marks of all the workers that a process descends from.
pub(crate) const MARK_ENV: &str = "PREFORK_TREE";

/// What is read of an environment: more than exec(2) lets a process begin with
/// by default is none.
const MOST_BYTES: usize = 4 << 20;

/// What marks the descendants of the process that started then, and of no other.
pub(crate) fn mark(pid: i32, start_ticks: u64) -> String {
    format!("{pid}-{start_ticks}")
}

/// The variable for the environment of a process and its descendants, besides
/// the marks that are in its own already.
pub(crate) fn marked(before: Option<&CStr>, mark: &str) -> String {
    let inherited = before.and_then(|variable| variable.to_str().ok());
    match inherited.filter(|variable| variable.len() < 1024) {
        // A worker that is a supervisor itself: its workers are of both trees.
        Some(variable) => format!("{variable},{mark}"),
        None => format!("{MARK_ENV}={mark}"),
    }
}

/// The marks that a process began with; none where this user may not know.
pub(crate) fn marks(pid: i32) -> Vec<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let environment = &environment[..environment.len().min(MOST_BYTES)];
    let variable = environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(MARK_ENV.as_bytes())?;
        value.strip_prefix(b"=")
    });
    let marks = String::from_utf8_lossy(variable.unwrap_or_default());
    marks.split(',').map(str::to_owned).collect()
}

/// A process's children, whichever of its threads started them.
///
/// # Errors
///
/// `NotFound` once it has ended, and from kernels without `CONFIG_PROC_CHILDREN`.
pub(crate) fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(text.split_ascii_whitespace().flat_map(str::parse::<i32>));
    }
    Ok(children)
}

/// Every process that is to be seen.
///
/// # Errors
///
/// EMFILE and its like, since reading takes a descriptor.
pub(crate) fn everyone() -> io::Result<Vec<i32>> {
    let names = fs::read_dir("/proc")?.flatten();
    Ok(names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// What a process prints to: stdout and stderr, as `/proc` names them.
pub(crate) fn prints_to(pid: i32) -> [Option<String>; 2] {
    [1, 2].map(|number| {
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
        target.to_str().map(str::to_owned)
    })
}

/// A process's name, for people.
pub(crate) fn name(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_process_has_the_marks_of_all_that_it_descends_from() {
        let first = marked(None, &mark(7, 9001));
        assert_eq!(first, "PREFORK_TREE=7-9001");
        let inherited = std::ffi::CString::new(first).unwrap();
        let both = marked(Some(&inherited), &mark(8, 9002));
        let (name, value) = both.split_once('=').unwrap();
        let child = Command::new("sleep").arg("60").env(name, value).spawn();
        let mut child = child.unwrap();
        // Before it executes the program it has no environment of its own.
        let deadline = Instant::now() + Duration::from_secs(30);
        while marks(child.id() as i32) != ["7-9001", "8-9002"] {
            assert!(Instant::now() < deadline, "{:?}", marks(child.id() as i32));
            std::thread::yield_now();
        }
        let ours = children(std::process::id() as i32);
        assert!(ours.is_err() || ours.unwrap().contains(&(child.id() as i32)));
        assert!(everyone().unwrap().contains(&(child.id() as i32)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
