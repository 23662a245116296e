//! A failure: the end of a process that nobody had asked to leave, and the certificate of any end.

use std::time::Duration;

use prefork_api::{Exit, ExitReason};

use crate::interface::{Death, Signal, Time, Worker};
use crate::state::process::Process;

/// The end of a process that nobody had asked to leave.
pub(crate) struct Failure {
    /// Whose.
    pub(crate) worker: Worker,
    /// The generation that it ran.
    pub(crate) generation: u64,
    /// How long it had been ready; none if it never was.
    pub(crate) ready_for: Option<Duration>,
    /// What went wrong, as a phrase: `pid 7 exited with code 3`.
    pub(crate) why: String,
    /// The certificate, where it has been reaped.
    pub(crate) exit: Option<Exit>,
    /// Whether the next start may come at once.
    pub(crate) mendable: bool,
}

impl Failure {
    /// The failure of a process that has left its seat.
    pub(crate) fn of(process: &Process, now: Time, phrase: &str, exit: Option<Exit>) -> Self {
        Self {
            worker: process.worker,
            generation: process.generation,
            ready_for: process.serving().map(|serving| now.since(serving.since)),
            why: format!("{} {phrase}", process.label()),
            exit,
            mendable: true,
        }
    }
}

/// What to do about a program that says no `hello`.
pub const SPEAK: &str = "a worker has to speak prefork's protocol on descriptor \
                         PREFORK_CHANNEL_FD: use the worker library, or see proto/README.md; \
                         for a program that does not, write [pool.NAME.adapter]";

/// Who caused the death of a process that nobody had asked to leave.
pub(crate) fn unasked_reason(death: &Death) -> ExitReason {
    if death.oom {
        ExitReason::Oom
    } else if death.signal.is_some() {
        ExitReason::Signal
    } else if death.code == Some(0) {
        ExitReason::Clean
    } else {
        ExitReason::Crash
    }
}

/// Writes a death certificate.
pub(crate) fn certificate(
    process: &Process,
    reason: ExitReason,
    note: Option<&str>,
    death: Death,
    now: Time,
) -> Exit {
    let sentences: Vec<&str> = note
        .into_iter()
        .chain(process.farewell.as_deref())
        .filter(|sentence| !sentence.is_empty())
        .collect();
    Exit {
        reason,
        code: death.code,
        signal: death.signal.map(|Signal(number)| number),
        // The spawn is answered before the exit; 0 names no process.
        pid: process.pid.unwrap_or(0),
        generation: process.generation,
        incarnation: process.worker.incarnation,
        at: Duration::from_millis(death.at_unix_ms).as_secs_f64(),
        uptime_seconds: now.since(process.started).as_secs_f64(),
        requests: death.requests.unwrap_or(0),
        uncounted: death.requests.is_none(),
        peak_memory_bytes: death.peak_memory_bytes,
        detail: sentences.join("; "),
        stderr: death.stderr,
        in_flight: death.in_flight,
        in_flight_unlisted: death.in_flight_unlisted,
        thread_dump: death.thread_dump,
    }
}

/// How a process ended, as a phrase: `exited with code 3`.
pub(crate) fn how_it_ended(exit: &Exit) -> String {
    match (exit.reason, exit.signal, exit.code) {
        (ExitReason::Oom, ..) => "was killed for want of memory".to_owned(),
        (_, Some(signal), _) => format!("was ended by signal {signal}"),
        (_, None, Some(code)) => format!("exited with code {code}"),
        (_, None, None) => "ended".to_owned(),
    }
}

/// The first failure of a pool in its first boot.
#[derive(Debug)]
pub(crate) struct Setback {
    pub(crate) slot: u32,
    pub(crate) incarnation: u64,
    pub(crate) why: String,
}
