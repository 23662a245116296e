//! The checked configuration: every value present, in range and in its unit.
//! The rest of the program trusts it and never sees raw text.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use prefork_fleet::{Canary, Policy};
use prefork_proto::message::HttpLimits;
use prefork_proto::tls::TlsVersion;
use serde::{Deserialize, Serialize};

use super::LogFormat;
use super::access_log::AccessLog;
use super::adapter::Adapter;
use super::check::Check;
use super::command_line::{COMMAND_LINE, EMBEDDED};
use super::execution::Execution;
use super::forward::forwards_to;
use super::requests::Requests;
use super::steps::Steps;
use crate::tls::{Certificate, ClientAuthorities};

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `[supervisor]`.
    pub supervisor: Supervisor,
    /// `[metrics]`: how finely the workers' are told apart.
    pub metrics: Detail,
    /// `[metrics]`: how many samples of the application's own a pool may have.
    #[serde(default = "super::defaults::max_series")]
    pub max_series: u32,
    /// `[requests]`: what workers note of the requests that they are serving.
    #[serde(default, skip_serializing_if = "Requests::is_default")]
    pub requests: Requests,
    /// `[reload]`: what is run around a reload.
    #[serde(default, skip_serializing_if = "Steps::is_default")]
    pub steps: Steps,
    /// `[pool.*]`, in the order of the file.
    pub pools: Vec<Pool>,
    /// Where it came from, for people: a path, `command line` or `embedded default`.
    pub source: String,
}

impl Config {
    /// Whether it was read from a file.
    pub(crate) fn is_from_file(&self) -> bool {
        ![EMBEDDED, COMMAND_LINE].contains(&self.source.as_str())
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.policy.name == name)
    }

    /// Every certificate of every listener.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.pools.iter().flat_map(Pool::certificates)
    }

    /// The listener that is bound to this address, and whose it is.
    pub fn listener(&self, address: &Address) -> Option<(&Pool, &Listen)> {
        let bound = |listen: &&Listen| listen.address == *address;
        self.pools
            .iter()
            .find_map(|pool| Some((pool, pool.listen.iter().find(bound)?)))
    }
}

/// `[supervisor]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    /// Holds the control socket and the lock.
    pub runtime_dir: PathBuf,
    /// Permission bits of the control socket; none for no socket.
    pub control_mode: Option<u32>,
    /// Where `/metrics` and its neighbours are served.
    pub admin: Option<SocketAddr>,
    /// Names under which that may be asked, besides addresses, localhost and the machine's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admin_hosts: Vec<String>,
    /// Whether an `admin` of `[::]` is for IPv6 alone.
    #[serde(
        default = "super::defaults::ipv6_only",
        skip_serializing_if = "Clone::clone"
    )]
    pub admin_ipv6_only: bool,
    /// A file for the log instead of stderr.
    pub log: Option<PathBuf>,
    /// How it is written; where it is not said, as whoever reads it wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// What is logged; where it is not said, what `$RUST_LOG` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// How long workers without a supervisor go on serving.
    #[serde(default = "super::defaults::orphan_timeout")]
    pub orphan_timeout: Duration,
    /// How long `/readyz` says no and everything is served, between the order to stop
    /// and the drain.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub stop_delay: Duration,
    /// Whether one pool that does not come up at the start ends the supervisor.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strict_boot: bool,
}

/// How finely the exposition tells workers apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Detail {
    /// A series for each slot.
    #[default]
    Slot,
    /// A series for each pool, its slots taken together: the exposition does
    /// not grow with the number of workers.
    Pool,
}

impl Detail {
    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Pool => "pool",
        }
    }
}

/// `[pool.NAME]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// The numbers that the fleet decides by; holds the name.
    pub policy: Policy,
    /// What its workers run.
    pub program: Program,
    /// What they accept from.
    pub listen: Vec<Listen>,
    /// Added to the environment they inherit.
    pub env: BTreeMap<String, String>,
    /// Whom they run as.
    pub run_as: Option<RunAs>,
    /// On what terms they run.
    #[serde(default)]
    pub execution: Execution,
    /// Between two `health` reports.
    pub heartbeat_interval: Duration,
    /// How long an idle connection stays open once a drain has begun.
    pub idle_grace: Duration,
    /// `[pool.NAME.http]`: what its workers hold clients to.
    #[serde(default)]
    pub http: HttpLimits,
    /// What is written down of each request, if anything is.
    #[serde(default)]
    pub access_log: Option<AccessLog>,
    /// `[pool.NAME.check]`: what a new worker has to answer before it is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// `[pool.NAME.canary]`: how the first new workers of a reload are judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// `[pool.NAME.adapter]`: the program does not speak the channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<Adapter>,
    /// `[pool.NAME.app]`: handed to the workers as it is.
    pub app: serde_json::Value,
}

impl Pool {
    /// Whether its workers are the bundled web server and forward requests.
    pub(crate) fn is_front(&self) -> bool {
        self.program == Program::Bundled && self.app.get("forward").is_some()
    }

    /// Every certificate of its listeners.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        let tls = self.listen.iter().filter_map(|listen| listen.tls.as_ref());
        tls.flat_map(|tls| &tls.certificates)
    }

    /// The same, to be replaced.
    pub(crate) fn certificates_mut(&mut self) -> impl Iterator<Item = &mut Certificate> {
        let tls = self
            .listen
            .iter_mut()
            .filter_map(|listen| listen.tls.as_mut());
        tls.flat_map(|tls| &mut tls.certificates)
    }

    /// Whether its workers forward requests to that pool.
    pub(crate) fn is_before(&self, pool: &str) -> bool {
        self.program == Program::Bundled && forwards_to(&self.app, pool)
    }

    /// Whether somebody counts what its workers answer: they themselves, or the fronts
    /// before them.
    pub(crate) fn is_counted(&self) -> bool {
        self.adapter.is_none() || self.is_behind()
    }

    /// Whether its workers take requests from others that forward to them.
    pub(crate) fn is_behind(&self) -> bool {
        self.adapter.is_some() && self.listen.is_empty()
    }
}

/// What a pool's workers run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// The web server inside this binary.
    Bundled,
    /// A program of the operator's.
    Command {
        /// An absolute path.
        path: PathBuf,
        /// What follows it.
        args: Vec<String>,
    },
}

/// A user and group, looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// The user's name, for initgroups and for people.
    pub user: String,
    /// Its id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// Every supplementary group's id.
    pub groups: Vec<u32>,
    /// Its home directory, where the machine knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<PathBuf>,
    /// Its shell, where the machine knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<PathBuf>,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// As it is written in the configuration; its name everywhere.
    pub name: String,
    /// What to bind.
    pub address: Address,
    /// Whether its workers share one socket.
    pub mode: Mode,
    /// How many connections may wait.
    pub backlog: u32,
    /// Permission bits of a unix socket.
    pub permissions: Option<u32>,
    /// The group of a unix socket's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<SocketGroup>,
    /// Whether `[::]` is for IPv6 alone; where not, IPv4 comes to it as well.
    #[serde(
        default = "super::defaults::ipv6_only",
        skip_serializing_if = "Clone::clone"
    )]
    pub ipv6_only: bool,
    /// Whether its connections begin with a header of the PROXY protocol.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy_protocol: bool,
    /// What its connections speak TLS with, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Who may connect to a unix socket beside its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketGroup {
    /// As it is written in the configuration.
    pub name: String,
    /// Its number on this machine.
    pub gid: u32,
}

/// `tls` of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// At least one. The first is for clients that name no server, or one that
    /// none is for.
    pub certificates: Vec<Certificate>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whose certificates clients prove with who they are, where they are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Box<ClientAuthorities>>,
}

impl Tls {
    /// Whether clients are asked for certificates.
    pub(crate) fn asks_clients(&self) -> bool {
        self.clients.is_some()
    }
}

/// How a listener's connections come to the workers of its pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// One socket: every worker accepts from it.
    #[default]
    Shared,
    /// A socket with `SO_REUSEPORT` for each slot, between which the kernel
    /// chooses; only for TCP.
    PerSlot,
}

impl Listen {
    /// Whether a client of the other family comes to it, too.
    pub(crate) fn is_of_both_families(&self) -> bool {
        let any = |at: &SocketAddr| at.is_ipv6() && at.ip().is_unspecified();
        !self.ipv6_only && matches!(&self.address, Address::Tcp(at) if any(at))
    }
}

impl Mode {
    /// As it is written in the configuration, and shown in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerSlot => "per-slot",
        }
    }
}

/// What a listener is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix stream socket at this path.
    Unix(PathBuf),
    /// The socket that the service manager passes under this name.
    Systemd(String),
}
