//! A server under test: started, asked, ordered about, killed on drop.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::load::{Clients, Page};
use crate::process::{self, Process};
use crate::scratch;

/// How long a server may take to serve.
const BOOT: Duration = Duration::from_secs(60);

/// How long a new master may take to find that it can't bind the address that
/// the workers of a killed one still hold. Some try for several seconds.
const TAKEOVER: Duration = Duration::from_secs(5);

/// How a kind of server is started and ordered about.
pub(crate) struct Blueprint {
    /// Its name in tables.
    pub(crate) name: &'static str,
    /// Whether its workers are threads of one process.
    pub(crate) threads: bool,
    /// What it answers.
    pub(crate) page: Page,
    /// Writes what it needs into the site's directory and says how it starts.
    pub(crate) command: fn(&Site) -> Result<Command>,
    /// What it can be ordered to do.
    pub(crate) orders: fn(&Site) -> Orders,
    /// Whether a master that was started in the place of a killed one has its
    /// workers: usually those that it has started.
    pub(crate) has_workers: fn(&Server) -> bool,
}

/// Where a server is to stand.
#[derive(Debug)]
pub(crate) struct Site {
    /// Its own directory.
    pub(crate) dir: PathBuf,
    /// Where it is to listen.
    pub(crate) address: SocketAddr,
    /// How many workers it is to have.
    pub(crate) workers: usize,
    /// prefork's program.
    pub(crate) prefork: PathBuf,
    /// More lines of prefork's configuration; what comes first is for the pool.
    pub(crate) pool: String,
}

/// What a server can be ordered to do; none where it can't.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// Replace the workers by new ones.
    pub(crate) reload: Option<Order>,
    /// Replace the master's program.
    pub(crate) upgrade: Option<Order>,
    /// One more worker.
    pub(crate) grow: Option<Order>,
    /// One worker fewer.
    pub(crate) shrink: Option<Order>,
}

/// How an order is given.
#[derive(Debug)]
pub(crate) enum Order {
    /// A signal to the master.
    Signal(Signal),
    /// A command, which returns when it is done.
    Command(Command),
}

/// A running server.
pub(crate) struct Server {
    blueprint: &'static Blueprint,
    site: Site,
    process: Process,
    // Last: the processes that use it must be gone first.
    _dir: TempDir,
}

impl Server {
    /// Starts it and waits until it serves.
    pub(crate) fn start(
        blueprint: &'static Blueprint,
        prefork: &Path,
        workers: usize,
        pool: &str,
    ) -> Result<Self> {
        let dir = scratch::dir()?;
        let site = Site {
            dir: dir.path().to_owned(),
            address: free_address()?,
            workers,
            prefork: prefork.to_owned(),
            pool: pool.to_owned(),
        };
        let process = Process::start(starting(blueprint, &site)?)?;
        let mut server = Self {
            blueprint,
            site,
            process,
            _dir: dir,
        };
        server.serves()?;
        Ok(server)
    }

    /// Starts the same again after its master has been killed; whether it lives
    /// and serves after a while. What the killed one has left behind lives on
    /// beside it.
    pub(crate) fn start_again(&mut self) -> Result<bool> {
        ensure!(!self.process.is_alive(), "the master lives");
        self.process
            .replace(starting(self.blueprint, &self.site)?)?;
        std::thread::sleep(TAKEOVER);
        Ok(self.process.is_alive() && (self.blueprint.has_workers)(self) && self.answers())
    }

    /// Its name in tables.
    pub(crate) fn name(&self) -> &'static str {
        self.blueprint.name
    }

    /// Where it stands.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// The master.
    pub(crate) fn master(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it can be ordered to do.
    pub(crate) fn orders(&self) -> Orders {
        (self.blueprint.orders)(&self.site)
    }

    /// The master's children: its workers.
    pub(crate) fn workers(&self) -> Vec<i32> {
        let mut workers = process::children_of(self.process.pid());
        workers.retain(|pid| process::is_alive(*pid));
        workers
    }

    /// Whether any lives.
    pub(crate) fn has_children(&self) -> bool {
        !self.workers().is_empty()
    }

    /// Processor time of all its processes.
    pub(crate) fn cpu(&self) -> Duration {
        let mut all = process::descendants(self.process.pid());
        all.push(self.process.pid());
        all.into_iter().map(process::cpu).sum()
    }

    /// Gives an order; returns when it has been given, or done where its
    /// command tells.
    pub(crate) fn obey(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Signal(signal) => self.process.signal(signal),
            Order::Command(mut command) => {
                let output = command.output()?;
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                ensure!(output.status.success(), "{command:?} failed: {said}");
                Ok(())
            }
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.site.dir.join("log")).unwrap_or_default()
    }

    /// How many worker processes there have to be at least.
    fn processes(&self) -> usize {
        if self.blueprint.threads {
            1
        } else {
            self.site.workers
        }
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }

    fn answers(&self) -> bool {
        let clients = Clients {
            page: self.blueprint.page,
            ..Clients::calm(self.site.address, 1)
        };
        let asked = clients.ask_for(Duration::from_millis(20));
        asked.is_ok_and(|outcome| outcome.served > 0 && outcome.broken_count() == 0)
    }

    fn serves(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !self.answers() || self.workers().len() < self.processes() {
            if !self.process.is_alive() {
                bail!("it ended instead of serving: {}", self.last_words());
            }
            if begun.elapsed() > BOOT {
                let said = self.last_words();
                bail!("it does not serve the expected answer: {said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn starting(blueprint: &Blueprint, site: &Site) -> Result<Command> {
    let mut command = (blueprint.command)(site)?;
    let log = File::options()
        .append(true)
        .create(true)
        .open(site.dir.join("log"))?;
    command.stdout(log.try_clone()?).stderr(log);
    command.current_dir(&site.dir);
    Ok(command)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
