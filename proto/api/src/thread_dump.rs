//! Where the threads of a process were at one moment.

use serde::{Deserialize, Serialize};

use crate::is_zero;

/// The threads of a process, and of what it has started, at one moment.
///
/// What a process calls its threads, functions and files is its own choice: it is made
/// harmless and cut, and not to be believed further than the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadDump {
    /// The first thread of the process first, 32 threads at most.
    pub threads: Vec<ThreadStack>,
    /// Further threads, which were not looked at.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub further_threads: u64,
    /// What could not be found out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
}

/// One thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStack {
    /// Its process.
    pub pid: i32,
    /// Its number; the same as `pid` for a process's first thread.
    pub tid: i32,
    /// Its name, as the process has given it.
    pub name: String,
    /// Its state by proc_pid_stat(5): `R` runs, `S` sleeps, `D` waits for a device, `T` is
    /// stopped.
    pub state: String,
    /// In which function of the kernel it sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wchan: Option<String>,
    /// In which system call it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<String>,
    /// Where it was, the innermost function first, 64 at most. Only the first thread of a
    /// process has frames.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<StackFrame>,
}

/// One function that a thread was in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackFrame {
    /// The address in the process, as `0x7f3a00001234`.
    pub address: String,
    /// The function's name, where its file has symbols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Source file and line, where its file has debug information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The file that the code is from, without its directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}
