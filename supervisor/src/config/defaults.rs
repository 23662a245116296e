//! What holds where the configuration says nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use prefork_fleet::{Policy, Quorum};
use prefork_proto::message::HttpLimits;

use super::checked::{Address, Detail, Listen, Mode, Pool, Program, Supervisor};
use super::execution::Execution;

/// Connections that may wait on a listener.
pub(super) const BACKLOG: u32 = 4096;

/// `[supervisor]`.
pub(super) fn supervisor(runtime_dir: PathBuf) -> Supervisor {
    Supervisor {
        runtime_dir,
        control_mode: Some(0o660),
        admin: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9919))),
        admin_hosts: Vec::new(),
        admin_ipv6_only: ipv6_only(),
        log: None,
        log_format: None,
        log_level: None,
        orphan_timeout: orphan_timeout(),
        stop_delay: Duration::ZERO,
        strict_boot: false,
    }
}

/// How long workers without a supervisor go on serving; the same for a state
/// that was written before it could be set.
pub(super) fn orphan_timeout() -> Duration {
    Duration::from_secs(30)
}

/// The most workers in all whose slots are told apart in the metrics by default.
const MOST_SLOTS_IN_DETAIL: u64 = 64;

/// Samples of the application's own that a pool may have.
pub(super) const MAX_SERIES: u32 = crate::metrics::MAX_SERIES;

/// The same, for a state that was written before there was a limit.
pub(super) fn max_series() -> u32 {
    MAX_SERIES
}

/// `[metrics]`, for these pools.
pub(super) fn metrics<'a>(pools: impl IntoIterator<Item = &'a Pool>) -> Detail {
    let workers = pools.into_iter().map(|pool| u64::from(pool.policy.workers));
    if workers.sum::<u64>() <= MOST_SLOTS_IN_DETAIL {
        Detail::Slot
    } else {
        Detail::Pool
    }
}

/// `[pool.NAME]`, without a listener.
pub(super) fn pool(name: &str, cpus: u32) -> Pool {
    Pool {
        policy: Policy {
            name: name.to_owned(),
            workers: cpus,
            boot_timeout: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            kill_timeout: Duration::from_secs(5),
            backoff_initial: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            backoff_reset: Duration::from_secs(10),
            max_requests: 0,
            max_requests_jitter: 0.1,
            max_rss: None,
            max_age: None,
            min_ready: Duration::from_millis(500),
            max_surge: 1,
            dump_on_hang: false,
            ready: Quorum::Any,
        },
        program: Program::Bundled,
        listen: Vec::new(),
        env: BTreeMap::new(),
        run_as: None,
        execution: Execution::default(),
        access_log: None,
        heartbeat_interval: Duration::from_secs(1),
        idle_grace: Duration::from_secs(3),
        http: HttpLimits::default(),
        check: None,
        canary: None,
        adapter: None,
        app: serde_json::Value::Object(serde_json::Map::new()),
    }
}

/// So that 0.0.0.0:80 and [::]:80 can be listened on side by side.
pub(super) fn ipv6_only() -> bool {
    true
}

/// The permission bits of a unix socket for which none are asked for, whatever the umask
/// is. Whoever reaches it may connect, as to a TCP port of this machine; its directory
/// says who that is.
pub(crate) const SOCKET_PERMISSIONS: u32 = 0o666;

/// The listener of a run without a file and without `--listen`.
pub(super) fn listen() -> Listen {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    Listen {
        name: address.to_string(),
        address: Address::Tcp(address),
        mode: Mode::Shared,
        backlog: BACKLOG,
        permissions: None,
        group: None,
        ipv6_only: ipv6_only(),
        proxy_protocol: false,
        tls: None,
    }
}
