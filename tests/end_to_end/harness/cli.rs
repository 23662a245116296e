//! The command line as an operator runs it, always with a deadline.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::deadline::eventually_some;
use super::start::environment;

/// How long a command may run. It has its own, shorter `--timeout`.
const LONGEST: Duration = Duration::from_secs(90);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit code; -1 where a signal ended it.
    pub(crate) code: i32,
    /// What it wrote to stdout.
    pub(crate) stdout: String,
    /// What it wrote to stderr.
    pub(crate) stderr: String,
}

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_prefork"))
}

/// An example program of the workspace, built beside the binary under test.
pub(crate) fn example(name: &str) -> PathBuf {
    let binary = binary();
    let target = binary.parent().expect("the binary lies in a directory");
    prefork_testkit::fresh::example(target, name)
}

/// Runs `prefork --runtime-dir RUNTIME_DIR ARGS`.
#[track_caller]
pub(super) fn run(dir: &Path, marker: &str, runtime_dir: &Path, args: &[&str]) -> Output {
    let mut command = environment(Command::new(binary()), marker);
    command.arg("--runtime-dir").arg(runtime_dir).args(args);
    finish(command.current_dir(dir), LONGEST)
}

/// Has a script run `prefork --runtime-dir RUNTIME_DIR ARGS`, which is its `"$@"`, on a
/// terminal, in a session of its own.
pub(super) fn in_terminal(
    dir: &Path,
    marker: &str,
    terminal: &OwnedFd,
    script: &str,
    args: &[&str],
) -> Child {
    let stdio = || Stdio::from(terminal.try_clone().expect("a descriptor is left"));
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait", "/bin/sh", "-c", script, "sh"])
        .arg(binary())
        .args(args)
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .current_dir(dir);
    let child = environment(command, marker).spawn();
    child.expect("setsid(1) is there")
}

/// Runs `prefork ARGS` in `dir`, with no supervisor of this test's around.
#[track_caller]
pub(crate) fn run_alone(dir: &Path, args: &[&str]) -> Output {
    let mut command = environment(Command::new(binary()), "alone");
    finish(command.current_dir(dir).args(args), LONGEST)
}

/// Copies a program, so that it can be executed. Another process does it: the
/// descriptor that it writes through could otherwise be in a child that another
/// test has forked, and what is open for writing can't be executed (ETXTBSY).
#[track_caller]
pub(crate) fn install(program: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.args([program, to]);
    let copied = finish(&mut copy, LONGEST);
    assert_eq!(copied.code, 0, "{copied:?}");
}

/// Runs a command to its end; kills it and panics when that doesn't come.
#[track_caller]
pub(crate) fn finish(command: &mut Command, within: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{error}: {command:?}"));
    let stdout = read_all(child.stdout.take().expect("stdout is piped"));
    let stderr = read_all(child.stderr.take().expect("stderr is piped"));
    let what = format!("{command:?} ends");
    let killer = KillOnUnwind(child);
    let status = {
        let mut killer = killer;
        eventually_some(&what, within, || {
            killer.0.try_wait().expect("the command is our child")
        })
    };
    Output {
        code: status.code().unwrap_or(-1),
        stdout: stdout.join().expect("the reader doesn't panic"),
        stderr: stderr.join().expect("the reader doesn't panic"),
    }
}

/// Ends a command whose deadline has passed.
struct KillOnUnwind(std::process::Child);

impl Drop for KillOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe ends the reading like EOF; what came before it counts.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
