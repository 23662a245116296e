//! Starting the supervisor: its directory, configuration and environment.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::log::Log;
use super::pool::Pool;
use super::processes::MARKER;
use super::{Prefork, cli};

/// The runtime directory of a test in `dir`.
pub(super) fn runtime_dir(dir: &Path) -> PathBuf {
    dir.join("run")
}

/// A directory for one test. Others may enter it, for the tests that come as
/// another user.
pub(crate) fn directory() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("prefork-test-")
        .tempdir()
        .expect("the temporary directory is writable");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("the directory is ours");
    dir
}

/// A value for [`MARKER`] that no other test has.
pub(super) fn new_marker() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}", std::process::id())
}

impl Prefork {
    /// A supervisor of these pools that is only just starting.
    pub(crate) fn launch(pools: &[Pool]) -> Self {
        Self::launch_with("", pools)
    }

    /// A supervisor that a service manager has started: told where to notify,
    /// and given a listening socket named `http`.
    pub(crate) fn launch_as_service(notify: &Path, socket: OwnedFd, pools: &[Pool]) -> Self {
        Self::launch_with_sockets(
            notify,
            [
                socket,
                fs::File::open("/dev/null").expect("it is there").into(),
            ],
            "1",
            "http",
            pools,
        )
    }

    /// The same with two sockets of these names.
    pub(crate) fn launch_with_two_sockets(
        notify: &Path,
        sockets: [OwnedFd; 2],
        names: &str,
        pools: &[Pool],
    ) -> Self {
        Self::launch_with_sockets(notify, sockets, "2", names, pools)
    }

    fn launch_with_sockets(
        notify: &Path,
        [first, second]: [OwnedFd; 2],
        number: &str,
        names: &str,
        pools: &[Pool],
    ) -> Self {
        let dir = directory();
        let config = configure(dir.path(), "", pools);
        let config = config.to_str().expect("the path is text").to_owned();
        // The descriptors' numbers and the process's id have to be the new program's.
        let script = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; \
                      LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script, "sh"])
            .arg(cli::binary())
            .env("NOTIFY_SOCKET", notify)
            .env("WATCHDOG_USEC", "3000000")
            .env("LISTEN_FDS", number)
            .env("LISTEN_FDNAMES", names)
            .stdin(Stdio::from(first))
            .stdout(Stdio::from(second));
        Self::spawn_by(command, dir, &["run", "--config", &config])
    }

    /// A supervisor of these pools that needs more files in its directory.
    pub(crate) fn launch_in(install: impl FnOnce(&Path), pools: &[Pool]) -> Self {
        let dir = directory();
        install(dir.path());
        let path = configure(dir.path(), "", pools);
        let path = path.to_str().expect("the path is text").to_owned();
        Self::spawn(dir, &["run", "--config", &path])
    }

    /// A supervisor of these pools that a shell starts: the script runs in its directory
    /// and ends with `exec "$@"`.
    pub(crate) fn launch_by_script(script: &str, supervisor: &str, pools: &[Pool]) -> Self {
        let dir = directory();
        let config = configure(dir.path(), supervisor, pools);
        let config = config.to_str().expect("the path is text").to_owned();
        Self::spawn_by(by_script(script), dir, &["run", "--config", &config])
    }

    /// Starts it again by such a script.
    pub(crate) fn start_again_by_script(&mut self, script: &str) {
        self.start_again_by(by_script(script));
    }

    /// A supervisor of these pools whose standard output is this.
    pub(crate) fn launch_printing(stdout: &OwnedFd, pools: &[Pool]) -> Self {
        let dir = directory();
        let path = configure(dir.path(), "", pools);
        let path = path.to_str().expect("the path is text").to_owned();
        Self::spawn_by(printing(stdout), dir, &["run", "--config", &path])
    }

    /// A supervisor that a shell runs by this script in a session of its own, with this
    /// as its terminal; what is read from `shown` is the log.
    pub(crate) fn launch_in_terminal(
        script: &str,
        terminal: &OwnedFd,
        shown: impl Read + Send + 'static,
        supervisor: &str,
        pools: &[Pool],
    ) -> Self {
        let dir = directory();
        let path = configure(dir.path(), supervisor, pools);
        let marker = new_marker();
        let stdio = || Stdio::from(terminal.try_clone().expect("a descriptor is left"));
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait", "/bin/sh", "-c", script, "sh"])
            .arg(cli::binary())
            .args(["run", "--config"])
            .arg(path)
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .current_dir(dir.path());
        let supervisor = environment(command, &marker).spawn();
        Self {
            supervisor: supervisor.expect("setsid(1) is there"),
            log: Log::collect(shown),
            dir,
            marker,
        }
    }

    /// A supervisor that a shell starts with this script in the test's directory,
    /// where `install` has put what it needs. `$0` is the program and `$1` the
    /// runtime directory.
    pub(crate) fn launch_by_shell(install: impl FnOnce(&Path), script: &str) -> Self {
        let dir = directory();
        install(dir.path());
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .arg(cli::binary())
            .arg(runtime_dir(dir.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self::spawn_by(command, dir, &[])
    }

    /// A supervisor with more keys in its `[supervisor]` section.
    pub(crate) fn launch_with(supervisor: &str, pools: &[Pool]) -> Self {
        let dir = directory();
        let path = configure(dir.path(), supervisor, pools);
        let path = path.to_str().expect("the path is text").to_owned();
        Self::spawn(dir, &["run", "--config", &path])
    }

    /// A supervisor started with these arguments after `run`, without a
    /// configuration file.
    pub(crate) fn launch_args(args: &[&str]) -> Self {
        let dir = directory();
        let runtime_dir = runtime_dir(dir.path());
        let runtime_dir = runtime_dir.to_str().expect("the path is text").to_owned();
        let mut all = vec!["--runtime-dir", &runtime_dir, "run"];
        all.extend(args);
        Self::spawn(dir, &all)
    }

    /// Makes its configuration file one of these pools, for the next reload.
    pub(crate) fn configure(&self, pools: &[Pool]) {
        configure(self.dir(), "", pools);
    }

    /// Puts `text` at the end of its configuration file.
    pub(crate) fn append_to_configuration(&self, text: &str) {
        let path = self.dir().join("prefork.toml");
        let config = fs::read_to_string(&path).expect("it was written");
        fs::write(path, config + text).expect("the directory is writable");
    }

    /// Starts a supervisor of the same configuration once the first one has ended.
    pub(crate) fn start_again(&mut self) {
        self.start_again_by(prefork());
    }

    /// The same, and returns when every desired worker is ready.
    #[track_caller]
    pub(crate) fn ready_again(&mut self) {
        self.start_again();
        self.wait_until_ready();
    }

    /// Starts it again with this as its standard output.
    pub(crate) fn start_again_printing(&mut self, stdout: &OwnedFd) {
        self.start_again_by(printing(stdout));
    }

    fn start_again_by(&mut self, command: Command) {
        let config = self.dir().join("prefork.toml");
        let config = config.to_str().expect("the path is text").to_owned();
        self.start_again_with(command, &["run", "--config", &config]);
    }

    /// Starts it again in its directory with these arguments.
    pub(crate) fn start_again_as(&mut self, args: &[&str]) {
        let runtime_dir = self.runtime_dir();
        let mut command = prefork();
        command.arg("--runtime-dir").arg(runtime_dir);
        self.start_again_with(command, args);
    }

    fn start_again_with(&mut self, command: Command, args: &[&str]) {
        let (supervisor, log) = start(command, self.dir(), &self.marker, args);
        self.supervisor = supervisor;
        self.log = log;
    }

    fn spawn(dir: TempDir, args: &[&str]) -> Self {
        Self::spawn_by(prefork(), dir, args)
    }

    fn spawn_by(command: Command, dir: TempDir, args: &[&str]) -> Self {
        let marker = new_marker();
        let (supervisor, log) = start(command, dir.path(), &marker, args);
        Self {
            dir,
            supervisor,
            marker,
            log,
        }
    }
}

/// Writes the configuration of these pools whole; gives its file.
fn configure(dir: &Path, supervisor: &str, pools: &[Pool]) -> PathBuf {
    let admin = match supervisor.contains("admin =") {
        true => "",
        false => "admin = \"127.0.0.1:0\"\n",
    };
    let mut config = format!(
        "[supervisor]\nruntime_dir = {:?}\n{admin}{supervisor}\n",
        runtime_dir(dir)
    );
    for (index, pool) in pools.iter().enumerate() {
        config.push_str(&pool.to_toml(dir, index));
    }
    let path = dir.join("prefork.toml");
    let draft = dir.join("prefork.toml.draft");
    fs::write(&draft, config).expect("the directory is writable");
    fs::rename(draft, &path).expect("the directory is writable");
    path
}

fn prefork() -> Command {
    let mut command = Command::new(cli::binary());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// A shell that runs a script which ends by running the supervisor.
fn by_script(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, "sh"])
        .arg(cli::binary())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

fn printing(stdout: &OwnedFd) -> Command {
    let mut command = prefork();
    command.stdout(stdout.try_clone().expect("a descriptor is left"));
    command
}

/// Starts `prefork ARGS` by this command in a process group of its own.
fn start(command: Command, dir: &Path, marker: &str, args: &[&str]) -> (Child, Log) {
    let mut supervisor = environment(command, marker)
        .args(args)
        .current_dir(dir)
        .process_group(0)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test starts");
    let stderr = supervisor.stderr.take().expect("stderr is piped");
    (supervisor, Log::collect(stderr))
}

/// Has what is started from here hear SIGHUP: under nohup(1) it is ignored, and so it
/// would be in every supervisor. What a program handles, and what it handles alone, is at
/// its default again in the program that it executes (execve(2)).
fn hear_hangups() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let status = fs::read_to_string("/proc/self/status").expect("it is there");
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = u64::from_str_radix(ignored.expect("it is there").trim(), 16);
        if ignored.expect("it is a number") & 1 == 0 {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        // The handler stays when whoever waits for the signal has gone.
        runtime.expect("a runtime").block_on(async {
            drop(signal(SignalKind::hangup()).expect("it may be handled"));
        });
    });
}

/// Gives `command` an environment that depends on nothing of this machine's.
pub(super) fn environment(mut command: Command, marker: &str) -> Command {
    hear_hangups();
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("PREFORK_") || name == "RUNTIME_DIRECTORY" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env(MARKER, marker).env("NO_COLOR", "1");
    command
}
