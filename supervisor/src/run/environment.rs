//! The environment that others inherit from the supervisor.

use prefork_proto::message::{CHANNEL_FD_ENV, INHERITED_ENV};

use crate::upgrade::HANDOVER_FD_ENV;

/// Variables that are meant for the supervisor, or a worker, alone.
pub(crate) const NOBODY_ELSES: [&str; 11] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    // What others write goes to a pipe of ours.
    "JOURNAL_STREAM",
    "PREFORK_CONFIG",
    HANDOVER_FD_ENV,
    CHANNEL_FD_ENV,
    INHERITED_ENV,
];
