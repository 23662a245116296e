//! The new program reads the real state in a child before anything is changed.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::kernel::sys;
use crate::upgrade::{NewProgram, PREFLIGHT_ARGUMENT};

/// How long the new program may take to read the state.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of what it says is heard.
const MOST_SAID: u64 = 4096;

/// Why the new program is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RehearsalError {
    /// It is no program, or may not be run.
    #[error("it cannot be run: {0}")]
    NotRun(io::Error),
    /// It did not end in time.
    #[error("its preflight did not end within {} s", PATIENCE.as_secs())]
    Hung,
    /// It failed.
    #[error("its preflight {how}{}", quoted(said))]
    Failed {
        /// How it ended.
        how: String,
        /// What it wrote to stderr.
        said: String,
    },
    /// It ended well and did not say what a prefork says.
    #[error("it is no prefork: asked for a preflight it answered {said:?}")]
    Stranger {
        /// What it wrote to stdout.
        said: String,
    },
}

fn quoted(said: &str) -> String {
    match said.trim() {
        "" => String::new(),
        said => format!(" and said: {said}"),
    }
}

/// Runs the program's preflight on the document in `memory`; its version if it
/// can go on from there. `child` holds the process id while it is to be left
/// alone by whoever reaps strangers.
pub(crate) async fn rehearse(
    program: &NewProgram,
    memory: OwnedFd,
    child: &Cell<Option<i32>>,
) -> Result<String, RehearsalError> {
    let mut document = File::from(memory);
    document.rewind().map_err(RehearsalError::NotRun)?;
    let _shown = Shown::new();
    let mut started = program
        .command()
        .arg(PREFLIGHT_ARGUMENT)
        .stdin(Stdio::from(document))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Whatever it starts is ended with it.
        .process_group(0)
        .spawn()
        .map_err(RehearsalError::NotRun)?;
    let pid = i32::try_from(started.id()).unwrap_or(i32::MAX);
    child.set(Some(pid));
    let (stdout, stderr) = (started.stdout.take(), started.stderr.take());
    let heard = async {
        let stdout = listen(stdout.map(OwnedFd::from));
        let stderr = listen(stderr.map(OwnedFd::from));
        let pidfd = sys::pidfd_open(Pid::from_raw(pid))?;
        let pidfd = sys::watch_fd(pidfd)?;
        let (said, complained) = tokio::join!(stdout, stderr);
        let _ = pidfd.readable().await?;
        let reaped = sys::reap(pidfd.get_ref())?;
        io::Result::Ok((reaped, said, complained))
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await;
    if !matches!(heard, Ok(Ok(_))) {
        // It is not reaped yet, so that the group is still its own.
        let _ = nix::sys::signal::killpg(Pid::from_raw(pid), Signal::SIGKILL);
        let _ = started.wait();
    }
    child.set(None);
    match heard {
        Err(_) => Err(RehearsalError::Hung),
        Ok(Err(error)) => Err(RehearsalError::NotRun(error)),
        Ok(Ok((reaped, said, complained))) => {
            let code = reaped.and_then(|reaped| reaped.code);
            let signal = reaped.and_then(|reaped| reaped.signal);
            judge(code, signal, &said, complained)
        }
    }
}

/// Lets processes of the same user look at this one, as the new program has to; until
/// it is dropped.
struct Shown;

impl Shown {
    fn new() -> Self {
        let _ = nix::sys::prctl::set_dumpable(true);
        Self
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = nix::sys::prctl::set_dumpable(false);
    }
}

fn judge(
    code: Option<i32>,
    signal: Option<i32>,
    said: &str,
    complained: String,
) -> Result<String, RehearsalError> {
    let how = match (code, signal) {
        (Some(0), _) => {
            let version = said.strip_prefix("ok ").map(str::trim);
            return match version {
                Some(version) if !version.is_empty() => Ok(version.to_owned()),
                _ => Err(RehearsalError::Stranger {
                    said: said.to_owned(),
                }),
            };
        }
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    Err(RehearsalError::Failed {
        how,
        said: complained,
    })
}

/// All that is said, as far as it is heard.
async fn listen(pipe: Option<OwnedFd>) -> String {
    let mut said = Vec::new();
    if let Some(pipe) = pipe.and_then(|fd| pipe::Receiver::from_owned_fd(fd).ok()) {
        // What broke off is judged as it is.
        let _ = pipe.take(MOST_SAID).read_to_end(&mut said).await;
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(code: Option<i32>, signal: Option<i32>, said: &str) -> String {
        let complained = "no such state".to_owned();
        judge(code, signal, said, complained)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn only_a_prefork_that_says_so_passes() {
        assert_eq!(
            judge(Some(0), None, "ok 1.2.3\n", String::new()).unwrap(),
            "1.2.3"
        );
        assert!(why(Some(0), None, "").contains("no prefork"));
        assert!(why(Some(0), None, "ok \n").contains("no prefork"));
        assert!(why(Some(0), None, "usage: foo").contains("usage: foo"));
        let refused = why(Some(1), None, "ok 1.2.3\n");
        assert!(refused.contains("exit code 1") && refused.contains("no such state"));
        assert!(why(None, Some(11), "ok 1.2.3\n").contains("signal 11"));
    }
}
