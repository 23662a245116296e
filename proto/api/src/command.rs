//! Commands: the bodies of POST requests.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Body of `POST /v1/pools/{pool}/scale`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleBody {
    /// How many workers the pool is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// How many more it is to have than it has, or fewer; in the place of `workers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<i32>,
    /// Whether it is to have as many as configured; in the place of both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub file: bool,
}

/// Body of `POST /v1/pools/{pool}/tell` and `POST /v1/workers/{pool}/{slot}/tell`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TellBody {
    /// The application command.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
    /// How long a worker may take to answer, in milliseconds.
    #[serde(default = "default_tell_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_tell_timeout_ms() -> u64 {
    10_000
}

/// Body of `POST /v1/reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadBody {
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The pools that are taken from the configuration; all of it where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// Whether workers are replaced also where nothing has changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Whether the first new workers are judged before the others follow also in a pool
    /// that has no `canary` setting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
}

/// Body of `POST /v1/rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// Whether to say what would change and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The generation that is put in force again; by default the one before that in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// Body of `POST /v1/upgrade`. The job ends with a result only where the upgrade
/// is refused or fails. Where it is done the connection ends without one, and
/// the status document counts one more of `upgrades`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeBody {
    /// The program's absolute path; by default where the one that runs was found.
    #[serde(default)]
    pub program: Option<std::path::PathBuf>,
}

/// Body of `POST /v1/stop`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopBody {
    /// Whether to kill what is in flight instead of draining it.
    #[serde(default)]
    pub now: bool,
}

/// Body of `POST /v1/log-level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLevelBody {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}
