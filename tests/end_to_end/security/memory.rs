//! Processes of the supervisor's own user can't read what it has in memory, in its
//! environment and behind its descriptors.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{cli, directory};

/// The user of nobody.
const NOBODY: u32 = 65534;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn can(program: &str, path: &str) -> bool {
    let mut command = as_nobody(program);
    command.arg(path).status().expect("it is there").success()
}

fn supervisor(dir: &Path, program: &Path) -> Killed {
    let run = dir.join("run");
    let mut command = as_nobody(program);
    command
        .arg("--runtime-dir")
        .arg(&run)
        .args(["run", "--admin", ""]);
    command.args(["--listen", "127.0.0.1:0", "--workers", "1"]);
    let child = Killed(command.spawn().expect("it starts"));
    let status = || {
        let mut command = as_nobody(program);
        command.arg("--runtime-dir").arg(&run);
        command
            .args(["wait", "--for", "ready"])
            .status()
            .expect("it is there")
    };
    eventually("it is ready", PATIENCE, || status().success());
    child
}

#[test]
fn a_process_of_the_same_user_reads_neither_memory_nor_descriptors() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can start it as another user");
        return;
    }
    let dir = directory();
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let program = dir.path().join("prefork");
    cli::install(&cli::binary(), &program);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    chown(&program, Some(NOBODY), Some(NOBODY)).expect("root may");
    let supervisor = supervisor(dir.path(), &program);
    let pid = supervisor.0.id();
    let closed = || {
        assert!(!can("cat", &format!("/proc/{pid}/environ")));
        assert!(!can("ls", &format!("/proc/{pid}/fd")));
        assert!(!can("head", &format!("/proc/{pid}/maps")));
    };
    closed();
    // It is this that keeps them out, and not the user.
    let other = Killed(as_nobody("sleep").arg("600").spawn().expect("it is there"));
    let environ = format!("/proc/{}/environ", other.0.id());
    eventually("another process can be read", PATIENCE, || {
        can("cat", &environ)
    });

    // The next program is as closed, and reads what it is given all the same.
    let mut upgrade = as_nobody(&program);
    upgrade
        .arg("--runtime-dir")
        .arg(dir.path().join("run"))
        .arg("upgrade");
    let output = cli::finish(upgrade.stdout(Stdio::piped()), PATIENCE);
    assert_eq!(output.code, 0, "{output:?}");
    closed();
}
