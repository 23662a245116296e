//! Running another program in this one's place. It reads the real state in a
//! child first; meanwhile everything goes on. Then the servers rest, the workers'
//! tasks hold still, the state is written to memory, and exec does the rest.
//! Whatever fails before that leaves everything as it was.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use prefork_api::{ApiError, ErrorCode, JobLine, JobResult};
use prefork_fleet::{Command, Event, SnapshotRef};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use crate::handle::Request;
use crate::reactor::observe::events::About;
use crate::reactor::signals::Asked;
use crate::reactor::worker_process::handle::{HoldStill, Order};
use crate::reactor::{Reactor, Signals};
use crate::systemd::activation;
use crate::tls::{Secret, Tickets};
use crate::upgrade::{self, HandedListener, HandedProcess, Handover, NewProgram};

/// How long the answers that are on their way may take.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// How long all processes' tasks may take to hold still at one moment.
const STILLNESS: Duration = Duration::from_secs(2);

/// Turns of the loop in which a line reaches its client.
const TURNS: usize = 16;

/// How often a preflight is tried while workers come and go.
const MOST_TRIES: u32 = 5;

/// What the reactor knows of upgrades.
#[derive(Debug)]
pub(in crate::reactor) struct Upgrades {
    current: Option<Upgrade>,
    /// The preflight's process, which is nobody else's to reap.
    pub(in crate::reactor) child: Rc<Cell<Option<i32>>>,
    verdicts: mpsc::UnboundedSender<Verdict>,
    /// How the tells that are on their way are known: each has one of these.
    pub(in crate::reactor) tells: Rc<()>,
}

/// An upgrade in progress.
#[derive(Debug)]
struct Upgrade {
    program: Rc<NewProgram>,
    asker: Option<mpsc::UnboundedSender<JobLine>>,
    /// Whether its preflight has begun.
    begun: bool,
    /// How often it has.
    tries: u32,
    /// The processes that it was told of; none where some of what it was told
    /// was on its way elsewhere.
    told: Option<BTreeSet<i32>>,
}

/// The version of the program that passed its preflight, or why it did not.
pub(in crate::reactor) type Verdict = Result<String, String>;

/// What the reactor's loop listens to.
pub(in crate::reactor) struct Ears<'a> {
    pub(in crate::reactor) events: &'a mut mpsc::Receiver<Event>,
    pub(in crate::reactor) requests: &'a mut mpsc::Receiver<Request>,
    pub(in crate::reactor) signals: &'a mut Signals,
}

/// Lets the processes' tasks go on when it is dropped.
type Thaw = watch::Sender<()>;

impl Upgrades {
    pub(in crate::reactor) fn new(verdicts: mpsc::UnboundedSender<Verdict>) -> Self {
        Self {
            current: None,
            child: Rc::default(),
            verdicts,
            tells: Rc::new(()),
        }
    }

    /// Whether one waits for its preflight.
    pub(in crate::reactor) fn is_new(&self) -> bool {
        self.current.as_ref().is_some_and(|upgrade| !upgrade.begun)
    }
}

impl Reactor {
    /// Begins an upgrade, or says why not. Without `program` it is whatever lies
    /// now where this program was found.
    pub(in crate::reactor) fn upgrade(
        &mut self,
        program: Option<PathBuf>,
        asker: Option<mpsc::UnboundedSender<JobLine>>,
    ) {
        let upgrading = self.upgrades.current.is_some();
        let busy = upgrading.then(|| "an upgrade".to_owned());
        if let Some(what) = busy.or_else(|| self.in_progress()) {
            self.refuse_upgrade(asker.as_ref(), &format!("{what} is in progress"));
            return;
        }
        let known = self.keep.as_ref().map(|keep| keep.program.clone());
        let Some(path) = program.or(known) else {
            self.refuse_upgrade(asker.as_ref(), "there is no runtime directory");
            return;
        };
        match NewProgram::pin(&path) {
            Ok(program) => {
                self.upgrades.current = Some(Upgrade {
                    program: Rc::new(program),
                    asker,
                    begun: false,
                    tries: 0,
                    told: None,
                });
            }
            Err(error) => {
                let why = format!("cannot open {}: {error}", path.display());
                self.refuse_upgrade(asker.as_ref(), &why);
            }
        }
    }

    /// What is going on that an upgrade would cut off.
    fn in_progress(&self) -> Option<String> {
        // The next program would know of no delay before the drain.
        if self.is_told_to_stop() {
            return Some("a stop".to_owned());
        }
        if !self.fleet.booted() {
            return Some("the first start".to_owned());
        }
        let reloading = self.reloads.is_busy();
        if self.undoing || reloading {
            return Some("a reload".to_owned());
        }
        if let Some(job) = self.jobs.values().next() {
            return Some(job.name.to_owned());
        }
        (Rc::strong_count(&self.upgrades.tells) > 1).then(|| "tell".to_owned())
    }

    /// Has the new program read the state as it is now, in a child.
    pub(in crate::reactor) async fn rehearse_upgrade(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
    ) {
        let Some(upgrade) = &mut self.upgrades.current else {
            return;
        };
        upgrade.begun = true;
        upgrade.tries += 1;
        let program = Rc::clone(&upgrade.program);
        info!("upgrade: preflight of {}", program.path().display());
        let document = match self.hold_processes(events).await {
            Some((processes, thaw)) => {
                let told = told(&processes);
                let written = self.written(processes, &program);
                drop(thaw);
                if let Some(upgrade) = &mut self.upgrades.current {
                    upgrade.told = told;
                }
                written.and_then(|(text, _)| upgrade::memory(&text).map_err(|e| e.to_string()))
            }
            None => Err(RESTLESS.to_owned()),
        };
        let (verdicts, child) = (
            self.upgrades.verdicts.clone(),
            Rc::clone(&self.upgrades.child),
        );
        tokio::task::spawn_local(async move {
            let verdict = match document {
                Ok(memory) => upgrade::rehearse(&program, memory, &child)
                    .await
                    .map_err(|error| error.to_string()),
                Err(why) => Err(why),
            };
            // The reactor drops its end only when it ends itself.
            let _ = verdicts.send(verdict);
        });
    }

    /// Runs the new program if it passed its preflight. Returns only where that
    /// could not be done.
    pub(in crate::reactor) async fn conclude_upgrade(
        &mut self,
        verdict: Verdict,
        ears: &mut Ears<'_>,
    ) {
        let why = match verdict {
            Ok(version) => self.replace_program(&version, ears).await,
            Err(_) if self.is_outdated() => return,
            Err(why) => why,
        };
        let path = self.upgrades.current.take().map(|upgrade| {
            let path = upgrade.program.path().display().to_string();
            (path, upgrade.asker)
        });
        if let Some((path, asker)) = path {
            self.refuse_upgrade(asker.as_ref(), &format!("{path}: {why}"));
        }
    }

    /// Whether the preflight may have failed for what has changed since it was
    /// told; it then begins again.
    fn is_outdated(&mut self) -> bool {
        let pids = self.processes.values().map(|grip| grip.pid).collect();
        let Some(upgrade) = &mut self.upgrades.current else {
            return false;
        };
        let outdated = upgrade.tries < MOST_TRIES && upgrade.told.as_ref() != Some(&pids);
        upgrade.begun &= !outdated;
        outdated
    }

    async fn replace_program(&mut self, version: &str, ears: &mut Ears<'_>) -> String {
        let Some((program, asker)) = self
            .upgrades
            .current
            .as_ref()
            .map(|upgrade| (Rc::clone(&upgrade.program), upgrade.asker.clone()))
        else {
            return String::new();
        };
        let message = format!("version {version} passed its preflight, replacing the program");
        info!("upgrade: {message}");
        self.journal
            .note("upgrade", About::default(), message.clone());
        if let Some(asker) = &asker {
            let _ = asker.send(JobLine::step("", message));
        }
        if program.runs_already() {
            let message = format!(
                "{} is the very file that ran before: the program has not changed",
                program.path().display()
            );
            info!("upgrade: {message}");
            if let Some(asker) = &asker {
                let what = "program".to_owned();
                let _ = asker.send(JobLine::Change { what, message });
            }
        }
        self.rest_servers(ears.requests, asker.is_some()).await;
        let why = self.exec(&program, ears).await;
        if let Some(keep) = &self.keep {
            keep.gate.open();
        }
        why
    }

    /// Has the servers finish what they are at, and take nothing new.
    async fn rest_servers(&mut self, requests: &mut mpsc::Receiver<Request>, asked: bool) {
        let Some(gate) = self.keep.as_ref().map(|keep| keep.gate.clone()) else {
            return;
        };
        // The asker's own connection stays until exec closes it.
        let closing = gate.close(usize::from(asked), LAST_ANSWERS);
        tokio::pin!(closing);
        loop {
            tokio::select! {
                () = &mut closing => break,
                Some(request) = requests.recv() => self.answer(request),
            }
        }
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }

    async fn exec(&mut self, program: &NewProgram, ears: &mut Ears<'_>) -> String {
        if let Some(what) = self.in_progress() {
            return format!("{what} is in progress");
        }
        // Those that come from here on wait for the new program.
        let blocked = Signals::all();
        if let Err(errno) = blocked.thread_block() {
            return format!("cannot block signals: {errno}");
        }
        let why = self.exec_silenced(program, ears).await;
        let _ = SigSet::thread_unblock(&blocked);
        why
    }

    async fn exec_silenced(&mut self, program: &NewProgram, ears: &mut Ears<'_>) -> String {
        let Some((processes, thaw)) = self.hold_processes(ears.events).await else {
            return RESTLESS.to_owned();
        };
        // What was signalled before the block is heard now or never.
        tokio::task::yield_now().await;
        while let Some(heard) = ears.signals.heard() {
            if heard.asked != Asked::Child {
                drop(thaw);
                self.heed(heard);
                return "a signal asked for something else".to_owned();
            }
        }
        let why = match self.written(processes, program) {
            Ok((text, kept)) => match upgrade::memory(&text) {
                Ok(memory) => {
                    self.log.catch_up();
                    program.execute(&memory, &kept).to_string()
                }
                Err(error) => error.to_string(),
            },
            Err(why) => why,
        };
        drop(thaw);
        format!("it cannot be run: {why}")
    }

    /// Has every process's task say what it holds, all at one moment at which
    /// nothing is on its way between them and the reactor.
    async fn hold_processes(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
    ) -> Option<(Vec<HandedProcess>, Thaw)> {
        let begun = Instant::now();
        while begun.elapsed() < STILLNESS {
            while let Ok(event) = events.try_recv() {
                self.feed(event);
            }
            while !self.spawns.is_empty() {
                self.spawn_next();
            }
            let (thaw, until) = watch::channel(());
            let mut asked = Vec::new();
            for grip in self.processes.values() {
                let (held, answer) = oneshot::channel();
                let until = until.clone();
                grip.order(Order::HoldStill(HoldStill { held, until }));
                asked.push(answer);
            }
            let mut held = Vec::new();
            let mut missed = Vec::new();
            for mut answer in asked {
                loop {
                    tokio::select! {
                        biased;
                        // A task may wait for room for its event.
                        Some(event) = events.recv() => missed.push(event),
                        got = &mut answer => {
                            held.extend(got);
                            break;
                        }
                    }
                }
            }
            let all = held.len() == self.processes.len();
            if all && missed.is_empty() && events.is_empty() {
                return Some((held, thaw));
            }
            drop(thaw);
            for event in missed {
                self.feed(event);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    /// The document, and every descriptor that it names.
    fn written(
        &self,
        processes: Vec<HandedProcess>,
        program: &NewProgram,
    ) -> Result<(Vec<u8>, Vec<RawFd>), String> {
        self.count_readers();
        self.read_scoreboards();
        let handover = self
            .handover(processes, program)
            .ok_or_else(|| "it is thrown away".to_owned())?;
        let kept = handover.descriptors().into_iter().map(|(fd, _)| fd);
        let text = serde_json::to_vec(&handover).map_err(|error| error.to_string())?;
        Ok((text, kept.collect()))
    }

    fn handover(
        &self,
        processes: Vec<HandedProcess>,
        program: &NewProgram,
    ) -> Option<Handover<SnapshotRef<'_>>> {
        let keep = self.keep.as_ref()?;
        let mut listeners = Vec::new();
        for (_, sockets) in self.editions.bound() {
            let mut passage = sockets.passage_number();
            for listener in sockets.all() {
                listeners.push(HandedListener {
                    cookie: listener.cookie().ok()?,
                    fd: listener.number(),
                    passage: passage.take(),
                });
            }
        }
        Some(Handover {
            version: upgrade::VERSION,
            state: self.document()?,
            options: self.options.clone(),
            nofile: self.nofile,
            program: program.path().to_owned(),
            began: self.began.0,
            started_at: self.metrics.supervisor().started_at(),
            log_level: self.log.level(),
            events: self.journal.kept(),
            fixtures: keep.fixtures,
            listeners,
            passed: activation::hand_over(),
            programs: self.editions.hand_over(),
            kept: self.reloads.history.hand_over(),
            processes,
            secrets: self.secrets(),
            tickets: self.tickets.as_ref().map(Tickets::save),
        })
    }

    /// The certificates of every generation, also of those before, which the state only names.
    fn secrets(&self) -> Vec<Secret> {
        let editions = self.editions.all();
        let pems = editions.flat_map(|it| it.config.certificates());
        let pems = pems.chain(self.reloads.history.certificates());
        pems.filter_map(|it| it.pem.as_deref().map(Secret::of))
            .collect()
    }

    /// Says that there is no upgrade, and why.
    fn refuse_upgrade(&mut self, asker: Option<&mpsc::UnboundedSender<JobLine>>, why: &str) {
        error!("upgrade refused: {why}");
        self.metrics.supervisor().upgrade_failed();
        let message = format!("upgrade refused: {why}");
        self.journal
            .note("upgrade", About::default(), message.clone());
        if let Some(asker) = asker {
            let _ = asker.send(JobLine::Result(JobResult {
                ok: false,
                message: String::new(),
                generation: None,
                error: Some(ApiError::new(ErrorCode::Failed, message)),
            }));
        }
    }
}

/// The processes, unless there are descriptors on their way to one of them.
fn told(processes: &[HandedProcess]) -> Option<BTreeSet<i32>> {
    let settled = |it: &HandedProcess| {
        let carried = it.channel.as_ref().map_or(0, |it| it.fds().count() - 1);
        carried == 0 && it.boot.is_none() && it.unsealed.is_none()
    };
    let all = processes.iter().map(|process| process.pid);
    processes.iter().all(settled).then(|| all.collect())
}

/// Why the state could not be had.
const RESTLESS: &str =
    "the workers' channels and pipes gave no quiet moment to write the state down";

/// What a command is called, as on the command line.
pub(in crate::reactor) fn name_of(command: &Command) -> &'static str {
    match command {
        Command::Scale { .. } | Command::ScaleAsConfigured { .. } | Command::ScaleBy { .. } => {
            "scale"
        }
        Command::Restart { .. } => "restart",
        Command::Pause { .. } => "pause",
        Command::Resume { .. } => "resume",
        Command::Drain { .. } => "drain",
        Command::Kill { .. } => "kill",
        Command::Reload(_) => "a reload",
        Command::Promote => "promote",
        Command::Abort => "abort",
        Command::Stop { .. } => "a stop",
    }
}
