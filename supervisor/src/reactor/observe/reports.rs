//! What happened, for those who watch: the log, the events, the metrics.

use std::time::SystemTime;

use prefork_api::{Exit, ExitReason, SlotState};
use prefork_fleet::{Report, Worker};
use tracing::{error, info, warn};

use crate::reactor::Reactor;
use crate::reactor::observe::events::About;
use crate::reactor::observe::whereabouts::whereabouts;

impl Reactor {
    pub(in crate::reactor) fn report(&mut self, report: Report) {
        match report {
            Report::Started { worker, pid } => {
                let generation = self.fleet.process(worker).map_or(0, |it| it.generation());
                let metrics = self.slot_metrics(worker);
                metrics.started(worker.incarnation, pid, generation, SystemTime::now());
                if worker.incarnation == 1 {
                    metrics.awaits_first_hello();
                }
                self.tell("starting", worker, Some(pid), "started".to_owned());
            }
            Report::Ready { worker, boot } => {
                self.pool_metrics(worker).booted(boot);
                let message = format!("ready after {}", seconds(boot.as_secs_f64()));
                self.tell("ready", worker, None, message);
            }
            Report::Draining { worker, cause } => {
                self.tell(
                    "draining",
                    worker,
                    None,
                    format!("draining: {}", self.words(cause)),
                );
            }
            Report::Stopping { worker, cause } => {
                self.tell(
                    "stopping",
                    worker,
                    None,
                    format!("stopping: {}", self.words(cause)),
                );
            }
            Report::Exited {
                worker,
                exit,
                drain,
            } => {
                self.slot_metrics(worker)
                    .exited(worker.incarnation, exit.reason);
                if let Some(drain) = drain {
                    self.pool_metrics(worker).drained(drain);
                }
                self.tell_exit(worker, exit);
            }
            Report::BackingOff { worker, delay, why } => {
                let metrics = self.slot_metrics(worker);
                metrics.state(SlotState::Backoff, None);
                metrics.backoff(delay);
                let delay = seconds(delay.as_secs_f64());
                self.warn("backoff", worker, format!("next start in {delay}: {why}"));
            }
            Report::Paused { worker, paused } => {
                let (kind, message) = if paused {
                    ("paused", "accepts no more connections")
                } else {
                    ("resumed", "accepts connections again")
                };
                self.tell(kind, worker, None, message.to_owned());
            }
            Report::HeartbeatMissed { worker, silent } => {
                self.slot_metrics(worker).heartbeat_missed();
                self.tend_queues();
                let silent = seconds(silent.as_secs_f64());
                self.warn(
                    "heartbeat_missed",
                    worker,
                    format!("no report for {silent}"),
                );
            }
            Report::TooLarge {
                worker,
                holds,
                limit,
                most,
            } => {
                let [holds, limit, most] = [holds, limit, most].map(mebibytes);
                self.warn(
                    "too_large",
                    worker,
                    format!(
                        "it holds {holds} from the beginning and max_rss is {limit}: \
                         that is less than the program needs; \
                         it is recycled only when it holds {most}"
                    ),
                );
            }
            Report::Starved {
                worker,
                silent,
                starved,
                most,
            } => {
                let [silent, starved, most] =
                    [silent, starved, most].map(|time| seconds(time.as_secs_f64()));
                self.warn(
                    "starved",
                    worker,
                    format!(
                        "no word for {silent}, {starved} of which it waited for a processor: \
                         this machine has too few of them for what runs on it; \
                         it is waited for up to {most}"
                    ),
                );
            }
            Report::Scaled { pool, from, to } => {
                let name = self.fleet.pool(pool).map(|pool| pool.name().to_owned());
                let message = format!("from {from} to {to} workers");
                info!(pool = name, "scaled {message}");
                let about = About {
                    pool: name,
                    ..About::default()
                };
                self.journal.note("scaled", about, message);
            }
            Report::CanaryBegun { pool, workers } => self.canary_begun(pool, workers),
            Report::CanaryEnded {
                pool,
                verdict,
                message,
            } => self.canary_ended(pool, verdict, message),
            Report::Booted => {
                info!("every pool is ready");
                let message = "every pool is ready".to_owned();
                self.journal.note("booted", About::default(), message);
            }
            Report::BootedInPart { without } => {
                for failure in &without {
                    error!(
                        slot = %format!("{}/{}", failure.pool, failure.slot),
                        "did not come up and goes on trying: {}",
                        failure.why
                    );
                }
                let names: Vec<&str> = without.iter().map(|it| &*it.pool).collect();
                let message = format!("every pool is ready but {}", names.join(", "));
                info!("{message}");
                self.journal.note("booted", About::default(), message);
            }
        }
    }

    fn about(&self, worker: Worker, pid: Option<i32>) -> About {
        let known = || self.processes.get(&worker).map(|grip| grip.pid);
        About {
            pool: Some(self.pool_name(worker).to_string()),
            slot: Some(worker.slot),
            pid: pid.or_else(known),
            exit: None,
        }
    }

    fn tell(&mut self, kind: &str, worker: Worker, pid: Option<i32>, message: String) {
        let about = self.about(worker, pid);
        info!(slot = %self.slot_name(worker), pid = about.pid, "{message}");
        self.journal.note(kind, about, message);
    }

    fn warn(&mut self, kind: &str, worker: Worker, message: String) {
        let about = self.about(worker, None);
        warn!(slot = %self.slot_name(worker), pid = about.pid, "{message}");
        self.journal.note(kind, about, message);
    }

    fn tell_exit(&mut self, worker: Worker, exit: Exit) {
        let message = describe_exit(&exit, self.words(exit.reason));
        let slot = self.slot_name(worker);
        if is_expected(exit.reason) {
            info!(%slot, pid = exit.pid, "{message}");
        } else {
            warn!(%slot, pid = exit.pid, "{message}");
        }
        let about = About {
            exit: Some(exit),
            ..self.about(worker, None)
        };
        let about = About {
            pid: about.exit.as_ref().map(|exit| exit.pid),
            ..about
        };
        self.journal.note("exit", about, message);
    }

    /// Why a process leaves or has left, in words. An operator asks for one worker or for
    /// all of them, and where nobody did it is the supervisor's own end.
    fn words(&self, reason: ExitReason) -> &'static str {
        match reason {
            ExitReason::Operator if self.fleet.has_failed() => {
                "the supervisor ends, since not everything came up"
            }
            ExitReason::Operator if self.fleet.stopping() => "the supervisor is stopping",
            reason => words(reason),
        }
    }
}

/// A death certificate in one sentence.
fn describe_exit(exit: &Exit, why: &str) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("ended by signal {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    };
    let served = exit
        .served()
        .map_or_else(String::new, |served| format!(", {served} requests"));
    let in_flight = match exit
        .in_flight_unlisted
        .saturating_add(exit.in_flight.len() as u64)
    {
        0 => String::new(),
        number => format!(", {number} in flight"),
    };
    let mut message = format!(
        "{how} after {}{served}{in_flight}: {why}",
        seconds(exit.uptime_seconds)
    );
    if !exit.detail.is_empty() {
        message.push_str(&format!(" ({})", exit.detail));
    }
    if let Some(dump) = &exit.thread_dump {
        message.push_str(&format!("; {}", whereabouts(dump)));
    }
    message
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(
        |_| number.to_string(),
        |signal| format!("{number} ({signal})"),
    )
}

/// Whether an exit is part of what the supervisor itself was doing.
fn is_expected(reason: ExitReason) -> bool {
    matches!(
        reason,
        ExitReason::Reload
            | ExitReason::ScaleDown
            | ExitReason::MaxRequests
            | ExitReason::MaxRss
            | ExitReason::MaxAge
            | ExitReason::Operator
            | ExitReason::Clean
    )
}

fn words(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::Reload => "replaced by a reload",
        ExitReason::ScaleDown => "the pool was made smaller",
        ExitReason::MaxRequests => "it had served max_requests",
        ExitReason::MaxRss => "it had grown over max_rss",
        ExitReason::MaxAge => "it had reached max_age",
        ExitReason::Operator => "an operator asked for it",
        ExitReason::Clean => "it left by itself",
        ExitReason::Crash => "it crashed",
        ExitReason::Signal => "a signal that the supervisor did not send",
        ExitReason::Oom => "the kernel was out of memory",
        ExitReason::BootTimeout => "it was not ready within boot_timeout",
        ExitReason::CheckFailed => "it did not pass its check",
        ExitReason::HeartbeatTimeout => "it did not report within heartbeat_timeout",
        ExitReason::DrainTimeout => "it did not finish within drain_timeout",
        ExitReason::ProtocolError => "it broke the channel protocol",
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}
