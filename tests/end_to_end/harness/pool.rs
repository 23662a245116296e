//! A pool as a test wants it, and the orders for its test workers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::cli;

/// What a pool runs.
enum Program {
    /// The web server inside the binary.
    Bundled,
    /// `tests/workers/test_worker.rs`, which takes orders.
    TestWorker,
    /// Some other program.
    Command(Vec<String>),
}

/// How a pool's connections come to its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every worker accepts from one socket.
    Shared,
    /// The kernel chooses between sockets, one for each slot.
    PerSlot,
}

impl Mode {
    /// Both modes.
    pub(crate) const ALL: [Self; 2] = [Self::Shared, Self::PerSlot];

    /// As it is written in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerSlot => "per-slot",
        }
    }
}

/// A pool of a test's configuration. Its deadlines are short; where a test
/// depends on one it sets its own. Idle connections may wait longer than the
/// rest: a client that the machine has kept waiting must not find its connection
/// closed.
pub(crate) struct Pool {
    name: &'static str,
    program: Program,
    keys: BTreeMap<&'static str, String>,
}

impl Pool {
    /// A pool of the bundled web server.
    pub(crate) fn bundled(name: &'static str, workers: u32) -> Self {
        Self::new(name, Program::Bundled, workers)
    }

    /// A pool of test workers, see [`super::Prefork::order`].
    pub(crate) fn test_worker(name: &'static str, workers: u32) -> Self {
        Self::new(name, Program::TestWorker, workers)
    }

    /// A pool of `tests/workers/service.rs` for tests under load.
    pub(crate) fn service(name: &'static str, workers: u32) -> Self {
        Self::service_with(name, &[], workers)
    }

    /// The same with arguments, see there.
    pub(crate) fn service_with(name: &'static str, args: &[&str], workers: u32) -> Self {
        let service = cli::example("service");
        let service = service.to_str().expect("the path is text");
        Self::command(name, &[&[service], args].concat(), workers)
            .text("idle_grace", "5s")
            .text("min_ready", "50ms")
    }

    /// A pool of `tests/workers/behind.rs`, whose programs are behind a front, with
    /// arguments, see there.
    pub(crate) fn behind(name: &'static str, args: &[&str], workers: u32) -> Self {
        let behind = cli::example("behind");
        let behind = behind.to_str().expect("the path is text");
        Self::command(name, &[&[behind, "{socket}"], args].concat(), workers)
            .without_listeners()
            .set("adapter", "{}")
    }

    /// A pool of any program.
    pub(crate) fn command(name: &'static str, program: &[&str], workers: u32) -> Self {
        let program = program.iter().map(|word| (*word).to_owned()).collect();
        Self::new(name, Program::Command(program), workers)
    }

    fn new(name: &'static str, program: Program, workers: u32) -> Self {
        let pool = Self {
            name,
            program,
            keys: BTreeMap::new(),
        };
        pool.set("workers", workers)
            .text("boot_timeout", "30s")
            .text("heartbeat_interval", "100ms")
            .text("heartbeat_timeout", "10s")
            .text("drain_timeout", "10s")
            .text("idle_grace", "2s")
            .text("kill_timeout", "2s")
            .text("backoff_initial", "20ms")
            .text("backoff_max", "200ms")
            .text("backoff_reset", "5s")
    }

    /// Sets a key to a TOML value.
    pub(crate) fn set(mut self, key: &'static str, value: impl ToString) -> Self {
        self.keys.insert(key, value.to_string());
        self
    }

    /// Makes its listener one of this mode, on a port that the kernel chooses.
    pub(crate) fn mode(self, mode: Mode) -> Self {
        let mode = mode.as_str();
        let listen = format!("[{{ address = \"127.0.0.1:0\", mode = {mode:?} }}]");
        self.set("listen", listen)
    }

    /// Leaves `listen` out, as a pool behind a front does.
    pub(crate) fn without_listeners(self) -> Self {
        self.set("listen", "")
    }

    /// Sets a key to a TOML string.
    pub(crate) fn text(self, key: &'static str, value: &str) -> Self {
        self.set(key, format!("{value:?}"))
    }

    /// The pool's section of the file, and the orders' directory in `dir`. The
    /// `index`th pool listens on a loopback address of its own, since two
    /// listeners of one name could not be told apart.
    pub(super) fn to_toml(&self, dir: &Path, index: usize) -> String {
        let program = match &self.program {
            Program::Bundled => None,
            Program::Command(program) => Some(program.clone()),
            Program::TestWorker => {
                let orders = orders_dir(dir, self.name);
                fs::create_dir_all(&orders).expect("the test's directory is writable");
                let worker = cli::example("test_worker");
                Some(vec![
                    worker.to_str().expect("the path is text").to_owned(),
                    orders.to_str().expect("the path is text").to_owned(),
                ])
            }
        };
        let mut section = format!("\n[pool.{}]\n", self.name);
        if let Some(program) = program {
            writeln!(section, "program = {program:?}").expect("strings take all that is written");
        }
        if !self.keys.contains_key("listen") {
            writeln!(section, "listen = [\"127.0.0.{}:0\"]", index + 1)
                .expect("strings take all that is written");
        }
        let given = self.keys.iter().filter(|(_, value)| !value.is_empty());
        for (key, value) in given {
            writeln!(section, "{key} = {value}").expect("strings take all that is written");
        }
        section
    }
}

fn orders_dir(dir: &Path, pool: &str) -> PathBuf {
    dir.join("orders").join(pool)
}

/// Puts an order in place whole, so that no worker reads half of it; gives its file.
pub(super) fn give_order(dir: &Path, pool: &str, whom: &str, order: &[u8]) -> PathBuf {
    let orders = orders_dir(dir, pool);
    fs::create_dir_all(&orders).expect("the test's directory is writable");
    let draft = orders.join(format!(".{whom}"));
    fs::write(&draft, order).expect("the orders' directory is writable");
    let file = orders.join(whom);
    fs::rename(draft, &file).expect("the orders' directory is writable");
    file
}

/// Takes an order back.
pub(super) fn take_back_order(dir: &Path, pool: &str, whom: &str) {
    fs::remove_file(orders_dir(dir, pool).join(whom)).expect("the order is still there");
}
