//! The shape of `state.json`.

use std::path::PathBuf;

use prefork_api::LastReload;
use prefork_proto::adapter::UpstreamAddress;
use prefork_proto::listening::SocketFile;
use prefork_proto::message::Hello;
use serde::{Deserialize, Serialize};

use crate::config::{self, Config, Listen};
use crate::metrics::SavedMetrics;
use crate::upgrade::FileIdentity;

/// The version that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

/// The whole state; the fleet is borrowed to be written and owned when read, and the
/// counters may be what was written of them before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Document<F, M = SavedMetrics> {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The kernel's `boot_id`: process ids and clocks mean nothing after another boot.
    pub(crate) boot_id: String,
    /// The supervisor's process id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// What workers show when they come back.
    pub(crate) secret: String,
    /// The configuration in force.
    pub(crate) config: Config,
    /// The pools of every generation that has processes.
    pub(crate) editions: Vec<SavedEdition>,
    /// The highest generation number ever tried.
    pub(crate) tried: u64,
    /// The number of the next job.
    pub(crate) next_job: u64,
    /// The number of the next event.
    pub(crate) next_seq: u64,
    /// How the last reload went.
    pub(crate) last_reload: Option<LastReload>,
    /// Every bound socket.
    pub(crate) listeners: Vec<SavedListener>,
    /// Every process that has not been reaped.
    pub(crate) processes: Vec<SavedProcess>,
    /// The fleet.
    pub(crate) fleet: F,
    /// Every counter. They may be a moment older than all the rest.
    pub(crate) metrics: M,
}

/// One generation of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedEdition {
    /// The generation.
    pub(crate) generation: u64,
    /// Whether the program was pinned, which a script can't be.
    pub(crate) pinned: bool,
    /// What its workers run and accept from.
    pub(crate) config: config::Pool,
    /// The directories that it names, as they were when it began.
    #[serde(default)]
    pub(crate) places: SavedPlaces,
    /// Files of its program that can't be pinned.
    #[serde(default)]
    pub(crate) files: Vec<SavedFile>,
}

/// The directories of one generation of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPlaces {
    /// What the bundled web server serves.
    pub(crate) root: Option<SavedPlace>,
    /// Where its workers start.
    pub(crate) start: Option<SavedPlace>,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPlace {
    /// As it is named.
    pub(crate) given: PathBuf,
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// The device of its inode.
    pub(crate) device: u64,
    /// Its inode.
    pub(crate) inode: u64,
}

/// A file that a worker's program is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedFile {
    /// As it is named.
    pub(crate) given: PathBuf,
    /// Where it lay when the generation began.
    pub(crate) path: PathBuf,
    /// What it was then.
    pub(crate) file: FileIdentity,
}

/// A bound socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedListener {
    /// What was asked for.
    pub(crate) listen: Listen,
    /// What it is bound to; the real port where 0 was asked for.
    pub(crate) address: String,
    /// Whose it is, with `per-slot`; 0 where it is shared.
    pub(crate) slot: u32,
    /// What tells it from every other socket of this boot (`SO_COOKIE`).
    pub(crate) cookie: u64,
    /// The file of a unix socket, told from others that may be at its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<SocketFile>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedProcess {
    /// Its process id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// What it said first.
    pub(crate) hello: Option<Hello>,
    /// Where it takes what a front forwards, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<UpstreamAddress>,
}
