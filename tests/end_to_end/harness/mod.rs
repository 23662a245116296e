//! Runs the real `prefork` for a test and leaves nothing behind.

pub(crate) mod cli;
pub(crate) mod deadline;
pub(crate) mod exposition;
pub(crate) mod http;
pub(crate) mod load;
mod log;
pub(crate) mod pool;
pub(crate) mod processes;
pub(crate) mod shell;
mod start;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prefork_api::{Describe, Exit, PoolStatus, SlotState, Status, WorkerStatus};
use tempfile::TempDir;

use cli::Output;
use deadline::{PATIENCE, eventually, eventually_some};
use exposition::Exposition;
use log::Log;
pub(crate) use pool::{Mode, Pool};
pub(crate) use start::directory;

/// A running supervisor. Dropping it kills every process that came of it.
pub(crate) struct Prefork {
    dir: TempDir,
    supervisor: Child,
    marker: String,
    log: Log,
}

impl Prefork {
    /// A supervisor of these pools whose workers are all ready.
    #[track_caller]
    pub(crate) fn start(pools: &[Pool]) -> Self {
        let prefork = Self::launch(pools);
        prefork.wait_until_ready();
        prefork
    }

    /// Returns when every desired worker is ready.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        eventually("the control socket is there", PATIENCE, || {
            assert!(processes::alive(self.pid()), "the supervisor has ended");
            self.control_socket().exists()
        });
        self.done(&["--timeout", "60s", "wait", "--for", "ready"]);
    }

    /// The directory of this test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The supervisor's runtime directory.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        start::runtime_dir(self.dir())
    }

    /// The control socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.runtime_dir().join("control.sock")
    }

    /// The supervisor's process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.supervisor.id()).expect("process ids are small")
    }

    /// Everything the supervisor has logged.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Returns when a line of the log holds all of `words`; gives the line.
    #[track_caller]
    pub(crate) fn logged(&self, words: &[&str]) -> String {
        eventually_some(&format!("the log says {words:?}"), PATIENCE, || {
            self.log.line_with(words)
        })
    }

    /// Sends a signal to the supervisor.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the supervisor lives");
    }

    /// Returns the supervisor's exit status when it has ended.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually_some("the supervisor ends", PATIENCE, || {
            self.supervisor
                .try_wait()
                .expect("the supervisor is our child")
        })
    }

    /// Whether the supervisor has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        let ended = self.supervisor.try_wait();
        ended.expect("the supervisor is our child").is_some()
    }

    /// Kills the supervisor, which leaves its workers behind.
    #[track_caller]
    pub(crate) fn killed(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended();
    }

    /// The supervisor's exit code when it has ended.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> i32 {
        let status = self.ended();
        // Its last words may still be in the pipe, which other processes may hold open.
        let patience = Instant::now() + Duration::from_secs(5);
        while !self.log.is_complete() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        status
            .code()
            .unwrap_or_else(|| panic!("the supervisor died of signal {:?}", status.signal()))
    }

    /// Runs the command line against this supervisor.
    #[track_caller]
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        cli::run(self.dir(), &self.marker, &self.runtime_dir(), args)
    }

    /// Has a script run the command line, which is its `"$@"`, on a terminal.
    pub(crate) fn cli_in_terminal(&self, terminal: &OwnedFd, script: &str, args: &[&str]) -> Child {
        let runtime_dir = self.runtime_dir();
        let runtime_dir = runtime_dir.to_str().expect("the path is text");
        let args = [&["--runtime-dir", runtime_dir], args].concat();
        cli::in_terminal(self.dir(), &self.marker, terminal, script, &args)
    }

    /// Runs the command line and wants exit code 0; gives stdout.
    #[track_caller]
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert_eq!(output.code, 0, "prefork {args:?}: {output:#?}");
        output.stdout
    }

    /// Where the supervisor serves its metrics.
    #[track_caller]
    pub(crate) fn admin(&self) -> SocketAddr {
        eventually_some("the admin address is logged", PATIENCE, || {
            self.log.address_after("admin listening on ")
        })
    }

    /// The status document.
    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        let answer = http::get_unix(&self.control_socket(), "/v1/status")
            .expect("the control socket answers");
        serde_json::from_str(&answer.body)
            .unwrap_or_else(|error| panic!("{error} in the status: {}", answer.body))
    }

    /// One pool of the status document.
    #[track_caller]
    pub(crate) fn pool(&self, name: &str) -> PoolStatus {
        let status = self.status();
        status
            .pools
            .into_iter()
            .find(|pool| pool.name == name)
            .unwrap_or_else(|| panic!("no pool {name} in the status"))
    }

    /// One slot of the status document.
    #[track_caller]
    pub(crate) fn worker(&self, pool: &str, slot: u32) -> WorkerStatus {
        self.pool(pool)
            .workers
            .into_iter()
            .find(|worker| worker.slot == slot)
            .unwrap_or_else(|| panic!("no slot {pool}/{slot} in the status"))
    }

    /// The process id in a slot that is ready.
    #[track_caller]
    pub(crate) fn ready_pid(&self, pool: &str, slot: u32) -> i32 {
        let what = format!("{pool}/{slot} is ready");
        eventually_some(&what, PATIENCE, || {
            let worker = self.worker(pool, slot);
            worker.pid.filter(|_| worker.state == SlotState::Ready)
        })
    }

    /// Waits until a ready worker of one listener has what it hands connections on by,
    /// which comes a moment later.
    pub(crate) fn has_its_passage(&self, worker: i32) {
        let supervisors = processes::descriptors(self.pid());
        eventually("it has its passage", PATIENCE, || {
            let held = processes::descriptors(worker).into_iter();
            let sockets = held.filter(|fd| fd.target.starts_with("socket:"));
            let shared = sockets.filter(|fd| supervisors.iter().any(|its| its.target == fd.target));
            shared.count() == 2
        });
    }

    /// The process ids of a pool whose workers are all ready, by slot.
    #[track_caller]
    pub(crate) fn ready_pids(&self, pool: &str) -> Vec<i32> {
        let slots = 0..self.pool(pool).desired;
        slots.map(|slot| self.ready_pid(pool, slot)).collect()
    }

    /// Returns when the slot is ready with another process than `old`, whose end is
    /// counted and certified by then; gives the new one.
    #[track_caller]
    pub(crate) fn replaced(&self, pool: &str, slot: u32, old: i32) -> i32 {
        let new = self.succeeded(pool, slot, old);
        self.certificate(pool, slot, old);
        new
    }

    /// Returns when the slot is ready with another process than `old`, which may live
    /// yet: a successor is started before its predecessor is reaped. Gives the new one.
    #[track_caller]
    pub(crate) fn succeeded(&self, pool: &str, slot: u32, old: i32) -> i32 {
        let what = format!("{pool}/{slot} is ready with another process than {old}");
        eventually_some(&what, PATIENCE, || {
            let worker = self.worker(pool, slot);
            worker
                .pid
                .filter(|pid| worker.state == SlotState::Ready && *pid != old)
        })
    }

    /// The certificate of a process that the slot had, when it has been written.
    #[track_caller]
    pub(crate) fn certificate(&self, pool: &str, slot: u32, pid: i32) -> Exit {
        let what = format!("the certificate of {pid} is there");
        eventually_some(&what, PATIENCE, || {
            let exits = self.describe(pool, slot).exits;
            exits.into_iter().find(|exit| exit.pid == pid)
        })
    }

    /// What `prefork describe` says of one slot.
    #[track_caller]
    pub(crate) fn describe(&self, pool: &str, slot: u32) -> Describe {
        let text = self.done(&["--output", "json", "describe", &format!("{pool}/{slot}")]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Where a pool's first listener is bound.
    #[track_caller]
    pub(crate) fn address(&self, pool: &str) -> SocketAddr {
        let listener = self.pool(pool).listeners.into_iter().next();
        let address = listener.expect("the pool listens").address;
        address
            .parse()
            .unwrap_or_else(|error| panic!("{error}: {address}"))
    }

    /// A scrape.
    #[track_caller]
    pub(crate) fn scrape(&self) -> Exposition {
        let answer = http::get(self.admin(), "/metrics").expect("the admin address answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Exposition::parse(&answer.body)
    }

    /// The sum of a metric's samples that carry these labels, as soon as there are any.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        eventually_some(&format!("{name} with {labels:?}"), PATIENCE, || {
            let scrape = self.scrape();
            let found = !scrape.matching(name, labels).is_empty();
            found.then(|| scrape.sum(name, labels))
        })
    }

    /// Gives the test worker in a slot an order, which is carried out once.
    /// Returns when it has been taken.
    #[track_caller]
    pub(crate) fn order(&self, pool: &str, slot: u32, order: impl AsRef<[u8]>) {
        let file = pool::give_order(self.dir(), pool, &slot.to_string(), order.as_ref());
        eventually("the order is taken", PATIENCE, || !file.exists());
    }

    /// Makes every test worker of the pool boot like this from now on.
    pub(crate) fn order_boot(&self, pool: &str, order: impl AsRef<[u8]>) {
        pool::give_order(self.dir(), pool, "boot", order.as_ref());
    }

    /// Lets the test workers of the pool boot well again.
    pub(crate) fn clear_boot(&self, pool: &str) {
        pool::take_back_order(self.dir(), pool, "boot");
    }

    /// Every living process that came of this test's supervisor.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes::marked(&self.marker)
    }
}

impl Drop for Prefork {
    fn drop(&mut self) {
        processes::kill_marked(&self.marker, Duration::from_secs(20));
        // Without the wait it would stay a zombie until the test program ends.
        let _ = self.supervisor.wait();
        if std::thread::panicking() {
            eprintln!("---- the supervisor's log ----\n{}----", self.log.text());
        }
    }
}
