//! What the kernel says about processes.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::deadline::{PATIENCE, eventually};

/// The environment variable that every process of a test inherits.
pub(super) const MARKER: &str = "PREFORK_TEST";

/// Every living process whose environment carries this marker.
pub(super) fn marked(marker: &str) -> Vec<i32> {
    let wanted = format!("{MARKER}={marker}");
    let processes = fs::read_dir("/proc").expect("/proc is mounted");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            // A process that has just gone is none of ours any more; a zombie's
            // environment is empty.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
        })
        .collect()
}

/// Kills them until none is left: one may fork while others die.
pub(super) fn kill_marked(marker: &str, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let alive = marked(marker);
        if alive.is_empty() {
            return;
        }
        for pid in &alive {
            // It may have died meanwhile.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if Instant::now() > deadline {
            eprintln!("processes {alive:?} survive SIGKILL");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process of the test's.
#[track_caller]
pub(crate) fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal)
        .unwrap_or_else(|error| panic!("{error}: {signal} to process {pid}"));
}

/// Whether the process is there and no zombie.
pub(crate) fn alive(pid: i32) -> bool {
    field(pid, "State:").is_some_and(|state| !state.starts_with('Z') && !state.starts_with('X'))
}

/// Waits until the process is gone: its successor may be ready before.
#[track_caller]
pub(crate) fn gone(pid: i32) {
    eventually("it is gone", PATIENCE, || !alive(pid));
}

/// Whether the process was stopped by a signal.
pub(crate) fn is_stopped(pid: i32) -> bool {
    field(pid, "State:").is_some_and(|state| state.starts_with('T'))
}

/// Whether the process waits for something.
pub(crate) fn sleeps(pid: i32) -> bool {
    field(pid, "State:").is_some_and(|state| state.starts_with('S'))
}

/// A descriptor of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Descriptor {
    /// Its number.
    pub(crate) number: u32,
    /// What `/proc/PID/fd/NUMBER` points to.
    pub(crate) target: String,
}

/// The descriptors that a process has open.
pub(crate) fn descriptors(pid: i32) -> Vec<Descriptor> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let mut all: Vec<Descriptor> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some(Descriptor {
                number: entry.file_name().to_str()?.parse().ok()?,
                target: fs::read_link(entry.path()).ok()?.to_str()?.to_owned(),
            })
        })
        .collect();
    all.sort();
    all
}

/// A variable of a process's environment.
#[track_caller]
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("the process lives");
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| {
        let variable = String::from_utf8_lossy(variable);
        let (key, value) = variable.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

/// The directory in which a process is.
#[track_caller]
pub(crate) fn directory_of(pid: i32) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/cwd")).expect("the process lives")
}

/// Resident memory in bytes.
#[track_caller]
pub(crate) fn resident_bytes(pid: i32) -> u64 {
    let line = field(pid, "VmRSS:").expect("the process lives");
    let kib = line.trim_end_matches("kB").trim().parse::<u64>();
    kib.expect("VmRSS is a number of kB") * 1024
}

/// A line of `/proc/PID/status`.
fn field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}
