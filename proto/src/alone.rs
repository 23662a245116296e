//! Whether a process has one thread, which is what lets it fork: a child gets one, and
//! every lock as the others held it at that moment.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

/// A directory for each thread (proc_pid_task(5)).
const TASKS: &str = "/proc/self/task";

/// What Linux says of [`TASKS`] where there is one: a link for each, and two as ever.
const LINKS_OF_ONE: u64 = 3;

/// Whether this process has no other thread than the one that asks.
///
/// # Errors
/// `/proc` is not there.
pub fn is_alone() -> io::Result<bool> {
    // One call where it is so, as it always should be; and where a kernel counts links in
    // another way, its threads are counted.
    Ok(fs::metadata(TASKS)?.nlink() == LINKS_OF_ONE || fs::read_dir(TASKS)?.count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_thread_is_not_alone() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(!is_alone().unwrap());
        drop(end);
        other.join().unwrap().unwrap_err();
    }
}
