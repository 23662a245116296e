//! The shape of what one program hands to the next.

use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use prefork_api::Event;
use prefork_fleet::Worker;
use prefork_proto::channel::parts::{Octets, Parts};
use prefork_proto::message::{Health, Hello, ListenerOffer, Welcome};
use serde::{Deserialize, Serialize};

use super::HandoverError;
use super::descriptors::{self, Kind};
use crate::config::{Config, Options};
use crate::recovery::state::{self, Document, SavedEdition};
use crate::tls::{SavedTickets, Secret};

/// The version that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// Everything that the next program goes on with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handover<F> {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// What it would need had this one been killed.
    pub(crate) state: Document<F>,
    /// Where the configuration comes from.
    pub(crate) options: Options,
    /// The soft limit of descriptors that the workers get.
    pub(crate) nofile: u64,
    /// Where the program lies that is to run.
    pub(crate) program: PathBuf,
    /// When the service began, on the monotonic clock.
    pub(crate) began: Duration,
    /// When the process began, in seconds since the Unix epoch.
    pub(crate) started_at: f64,
    /// What is logged.
    pub(crate) log_level: String,
    /// The events that are kept.
    pub(crate) events: Vec<Event>,
    /// What belongs to the supervisor itself.
    pub(crate) fixtures: Fixtures,
    /// Every bound socket for workers.
    pub(crate) listeners: Vec<HandedListener>,
    /// Every socket that the service manager passed, also those that no pool uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) passed: Vec<HandedSocket>,
    /// Every pinned program.
    pub(crate) programs: Vec<HandedProgram>,
    /// The generations before the one in force, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) kept: Vec<HandedGeneration>,
    /// Every process.
    pub(crate) processes: Vec<HandedProcess>,
    /// The certificates in force with their keys, which `state` only names.
    #[serde(default)]
    pub(crate) secrets: Vec<Secret>,
    /// The keys of session tickets.
    #[serde(default)]
    pub(crate) tickets: Option<SavedTickets>,
}

/// The supervisor's own descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fixtures {
    /// The runtime directory's lock; who has it open holds it.
    pub(crate) lock: RawFd,
    /// The lock of the directory itself, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own: Option<RawFd>,
    /// The control socket, if there is one.
    pub(crate) control: Option<RawFd>,
    /// Where workers come back.
    pub(crate) rejoin: RawFd,
    /// The admin address, if there is one.
    pub(crate) admin: Option<RawFd>,
}

/// A bound socket for workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedListener {
    /// Which one it is (`SO_COOKIE`).
    pub(crate) cookie: u64,
    /// The socket.
    pub(crate) fd: RawFd,
    /// What open connections of it and its siblings go through from worker to worker, at
    /// one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) passage: Option<RawFd>,
}

/// A socket that the service manager passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedSocket {
    /// What the service manager calls it.
    pub(crate) name: String,
    /// The socket.
    pub(crate) fd: RawFd,
}

/// The pinned program of one generation of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedProgram {
    /// The pool's name.
    pub(crate) pool: String,
    /// The generation.
    pub(crate) generation: u64,
    /// The executable; none for a script.
    pub(crate) executable: Option<RawFd>,
    /// What the file was when it was pinned.
    pub(crate) file: Option<FileIdentity>,
}

/// A generation that was in force before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedGeneration {
    /// Its number.
    pub(crate) generation: u64,
    /// Its configuration.
    pub(crate) config: Config,
    /// Its pools.
    pub(crate) editions: Vec<SavedEdition>,
    /// Their programs. Generations with the same name the same descriptor.
    pub(crate) programs: Vec<HandedProgram>,
}

/// What tells one content of a path from the next: a file that is renamed over
/// it has another inode, one that is written to another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified: (i64, i64),
}

/// A worker process with everything that is held of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedProcess {
    /// Its name.
    pub(crate) worker: Worker,
    /// Its process id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// Whether it is ours to reap.
    pub(crate) is_child: bool,
    /// What tells its end.
    pub(crate) pidfd: RawFd,
    /// What it said first.
    pub(crate) hello: Option<Hello>,
    /// Its last report.
    pub(crate) health: Option<Health>,
    /// Where it counts.
    pub(crate) board: Option<RawFd>,
    /// Where it notes its requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<RawFd>,
    /// Its channel; none once it is closed.
    pub(crate) channel: Option<Parts<RawFd>>,
    /// How far the talk on it has come.
    pub(crate) talk: HandedTalk,
    /// Its output.
    pub(crate) stdout: Option<HandedOutput>,
    /// Its errors.
    pub(crate) stderr: Option<HandedOutput>,
    /// Whether nothing more comes on stderr.
    pub(crate) stderr_ended: bool,
    /// What it is told after its `hello`; none once that is done.
    pub(crate) boot: Option<HandedBoot>,
    /// The memory that it may still map, from `welcome` to `ready`.
    pub(crate) unsealed: Option<RawFd>,
    /// Whether it is being asked what a new worker has to answer; none where it is neither
    /// asked nor to be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<bool>,
    /// Whether its channel has ended and it has to follow.
    pub(crate) closing: bool,
    /// Whether it reports and answers nothing.
    pub(crate) deaf: bool,
}

/// What a process is told after its `hello`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandedBoot {
    /// Who it is.
    pub(crate) welcome: Welcome,
    /// Where it can count: ours and the worker's descriptor.
    pub(crate) scoreboard: Option<(RawFd, RawFd)>,
    /// Where it can note its requests, if it is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<HandedTable>,
    /// Its listeners.
    pub(crate) listeners: Vec<(ListenerOffer, RawFd)>,
}

/// The request table of a process that was not told of it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedTable {
    /// Our descriptor.
    pub(crate) ours: RawFd,
    /// The worker's.
    pub(crate) theirs: RawFd,
    /// Whether it is to note queries.
    pub(crate) query: bool,
}

/// The talk with a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HandedTalk {
    /// How far the handshake is.
    pub(crate) phase: HandedPhase,
    /// Whether `drained` may come.
    pub(crate) draining: bool,
    /// The id of the next request.
    pub(crate) next_id: u64,
    /// Pings that have no answer, and how long ago each was sent.
    pub(crate) pings: Vec<(u64, Duration)>,
    /// Messages that may come at once.
    pub(crate) tokens: f64,
    /// Whether the rate was exceeded.
    pub(crate) flooding: bool,
}

/// How far the handshake with a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HandedPhase {
    /// Nothing was heard.
    Hello,
    /// Welcomed.
    Booting,
    /// Ready.
    Up,
}

/// One of a worker's output pipes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedOutput {
    /// Our end.
    pub(crate) pipe: RawFd,
    /// The beginning of a line.
    pub(crate) line: Octets,
    /// The last that was written.
    pub(crate) tail: Octets,
    /// Whether what comes until the next newline is of a line that was too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut: bool,
}

impl<F> Handover<F> {
    /// Every descriptor, with what it is.
    pub(crate) fn descriptors(&self) -> Vec<(RawFd, Kind)> {
        let Fixtures {
            lock,
            own,
            control,
            rejoin,
            admin,
        } = self.fixtures;
        let mut all = vec![(lock, Kind::File), (rejoin, Kind::Socket)];
        all.extend(control.map(|fd| (fd, Kind::Socket)));
        all.extend(own.map(|fd| (fd, Kind::File)));
        all.extend(admin.map(|fd| (fd, Kind::Socket)));
        all.extend(self.passed.iter().map(|it| (it.fd, Kind::Any)));
        let listeners = self.listeners.iter();
        let sockets = listeners.flat_map(|it| [it.fd].into_iter().chain(it.passage));
        all.extend(sockets.map(|fd| (fd, Kind::Socket)));
        let kept = self.kept.iter().flat_map(|it| &it.programs);
        let programs = self.programs.iter().chain(kept);
        let programs: BTreeSet<RawFd> = programs.filter_map(|it| it.executable).collect();
        all.extend(programs.into_iter().map(|fd| (fd, Kind::File)));
        for process in &self.processes {
            process.name_descriptors(&mut all);
        }
        all
    }

    /// Whether this program can go on from here, with the descriptors of the
    /// process `pid`.
    pub(crate) fn check(&self, pid: i32) -> Result<(), HandoverError> {
        for parts in self.processes.iter().filter_map(|it| it.channel.as_ref()) {
            prefork_proto::channel::parts::check::<prefork_proto::message::ToWorker, _>(parts)?;
        }
        descriptors::check(pid, &self.descriptors())
    }

    /// The numbers of all descriptors that it names.
    pub(super) fn numbers(&self) -> impl Iterator<Item = RawFd> {
        self.descriptors().into_iter().map(|(number, _)| number)
    }
}

impl HandedProcess {
    fn name_descriptors(&self, all: &mut Vec<(RawFd, Kind)>) {
        all.push((self.pidfd, Kind::Pidfd));
        let memory = self.board.iter().chain(&self.unsealed);
        let memory = memory.chain(&self.requests);
        all.extend(memory.map(|fd| (*fd, Kind::Memory)));
        if let Some(channel) = &self.channel {
            all.push((channel.socket, Kind::Socket));
            // A worker may have sent any.
            let carried = channel.fds().skip(1);
            all.extend(carried.map(|fd| (*fd, Kind::Any)));
        }
        let pipes = self.stdout.iter().chain(&self.stderr);
        all.extend(pipes.map(|output| (output.pipe, Kind::Pipe)));
        if let Some(boot) = &self.boot {
            let (ours, theirs) = boot.scoreboard.unzip();
            let memory = ours.into_iter().chain(theirs);
            let table = boot.requests.iter();
            let memory = memory.chain(table.flat_map(|it| [it.ours, it.theirs]));
            all.extend(memory.map(|fd| (fd, Kind::Memory)));
            let listeners = boot.listeners.iter();
            all.extend(listeners.map(|(_, fd)| (*fd, Kind::Socket)));
        }
    }
}

/// Reads a document; its versions first, so that one of another version is
/// called that.
pub(super) fn parse(text: &[u8]) -> Result<Handover<prefork_fleet::Snapshot>, HandoverError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    #[derive(Deserialize)]
    struct Stated {
        state: Versioned,
    }
    let Versioned { version: found } = serde_json::from_slice(text)?;
    if found != VERSION {
        return Err(HandoverError::Version { found });
    }
    let Stated { state } = serde_json::from_slice(text)?;
    if state.version > state::VERSION {
        return Err(HandoverError::StateVersion {
            found: state.version,
            known: state::VERSION,
        });
    }
    Ok(serde_json::from_slice(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("golden/handover-1.json");

    #[test]
    fn a_document_of_version_1_is_understood() {
        let handover = parse(GOLDEN.as_bytes()).unwrap();
        let numbers = handover.descriptors().into_iter().map(|(number, _)| number);
        let mut numbers: Vec<RawFd> = numbers.collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (10..=21).collect::<Vec<_>>());
        let process = &handover.processes[0];
        let channel = process.channel.as_ref().unwrap();
        assert_eq!(channel.inbox.bytes.0, b"{\"type\":\"h\xc3");
        assert_eq!(process.stderr.as_ref().unwrap().tail.0, b"ouch\n");
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let other = GOLDEN.replacen("\"version\": 1", "\"version\": 2", 1);
        let error = parse(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("of version 2"), "{error}");
        // The fleet's part has a version of its own.
        let at = GOLDEN.find("\"state\"").unwrap();
        let other = GOLDEN[at..].replacen("\"version\": 1", "\"version\": 7", 1);
        let other = format!("{}{other}", &GOLDEN[..at]);
        let error = parse(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("fleet is of version 7"), "{error}");
    }

    #[test]
    fn a_document_without_a_field_is_damaged() {
        let other = GOLDEN.replacen("\"nofile\"", "\"nothing\"", 1);
        let error = parse(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("nofile"), "{error}");
    }
}
