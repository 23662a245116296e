//! What the supervisor counts of itself.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use prometheus::core::Collector;
use prometheus::{Counter, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::histograms::Histograms;
use super::saved::SavedSupervisor;
use crate::kernel::procfs;

/// The commands that change something, as on the command line.
const COMMANDS: [&str; 15] = [
    "abort",
    "drain",
    "kill",
    "log-level",
    "pause",
    "promote",
    "reload",
    "reopen-logs",
    "restart",
    "resume",
    "rollback",
    "scale",
    "stop",
    "tell",
    "upgrade",
];

/// Why a worker that came back was not taken.
const REFUSALS: [&str; 5] = ["secret", "peer", "taken", "protocol", "stranger"];

/// From a loop that is never late to one that is stuck, in seconds.
const LAG_BOUNDS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The supervisor's own metrics.
#[derive(Debug)]
pub struct SupervisorMetrics {
    loop_lag: Histograms,
    commands: IntCounterVec,
    command_failures: IntCounterVec,
    rejoins_refused: IntCounterVec,
    reloads: IntCounter,
    reload_failures: IntCounter,
    upgrades: IntCounter,
    upgrade_failures: IntCounter,
    output_readers: IntGauge,
    output_reader_starts: IntCounter,
    outputs_held: IntCounter,
    state_write_failures: IntCounter,
    last_reload_ok: IntGauge,
    last_reload_at: Gauge,
    process: ProcessMetrics,
}

/// Prometheus's standard metrics of a process.
#[derive(Debug)]
struct ProcessMetrics {
    started: Gauge,
    cpu: Counter,
    /// What supervisors before this one have used.
    cpu_before: Cell<f64>,
    resident: IntGauge,
    address_space: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
}

/// A metric that has been made and is exported from now on.
pub(super) fn registered<C>(registry: &Registry, metric: prometheus::Result<C>) -> C
where
    C: Collector + Clone + 'static,
{
    let metric = metric.expect("names and labels are literals and valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("every name is used once");
    metric
}

/// Seconds since the Unix epoch.
fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

impl SupervisorMetrics {
    pub(super) fn new(registry: &Registry, version: &str, started_at: SystemTime) -> Self {
        let build = Opts::new("prefork_build_info", "The supervisor's version; always 1.");
        let build = registered(registry, GaugeVec::new(build, &["version"]));
        build.with_label_values(&[version]).set(1.0);
        let lag = Histograms::new(
            "prefork_supervisor_loop_lag_seconds",
            "How late the supervisor's event loop came to what was due.",
            None,
            &LAG_BOUNDS,
        );
        let counter = |name, help| registered(registry, IntCounter::new(name, help));
        let counters = |name, help, label: &str, values: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label]);
            let counters = registered(registry, counters);
            for value in values {
                counters.with_label_values(&[*value]);
            }
            counters
        };
        let commands = |name, help| counters(name, help, "command", &COMMANDS);
        let metrics = Self {
            loop_lag: registered(registry, lag),
            commands: commands(
                "prefork_control_commands_total",
                "Commands that operators gave.",
            ),
            command_failures: commands(
                "prefork_control_command_failures_total",
                "Commands that were refused or that failed.",
            ),
            rejoins_refused: counters(
                "prefork_rejoins_refused_total",
                "Workers that came back after their supervisor's end and were not taken.",
                "reason",
                &REFUSALS,
            ),
            reloads: counter(
                "prefork_config_reloads_total",
                "Reloads that were asked for.",
            ),
            reload_failures: counter(
                "prefork_config_reload_failures_total",
                "Reloads that were rolled back or whose configuration was invalid.",
            ),
            upgrades: counter(
                "prefork_upgrades_total",
                "Times that another program took the supervisor's place.",
            ),
            upgrade_failures: counter(
                "prefork_upgrade_failures_total",
                "Upgrades that were refused or that failed; nothing changed.",
            ),
            output_readers: registered(
                registry,
                IntGauge::new(
                    "prefork_supervisor_output_readers",
                    "Processes that read what workers print: one, and one for each pipe that is held.",
                ),
            ),
            output_reader_starts: counter(
                "prefork_supervisor_output_reader_starts_total",
                "Processes that were started to read what workers print.",
            ),
            outputs_held: counter(
                "prefork_supervisor_output_held_total",
                "Times that a worker's write held its pipe for more than a second.",
            ),
            state_write_failures: counter(
                "prefork_supervisor_state_write_failures_total",
                "Times that state.json, which the next supervisor goes on from, could not be written.",
            ),
            last_reload_ok: registered(
                registry,
                IntGauge::new(
                    "prefork_config_last_reload_successful",
                    "Whether the configuration that was last loaded is in force.",
                ),
            ),
            last_reload_at: registered(
                registry,
                Gauge::new(
                    "prefork_config_last_reload_success_timestamp_seconds",
                    "When the configuration in force was loaded, in seconds since the epoch.",
                ),
            ),
            process: ProcessMetrics::new(registry, started_at),
        };
        // The first configuration counts as loaded: an alert on a failed reload
        // must not fire before there has been one.
        metrics.loop_lag.add("");
        metrics.last_reload_ok.set(1);
        metrics.last_reload_at.set(unix_seconds(started_at));
        metrics
    }

    /// The event loop came this late to what was due.
    pub fn loop_lag(&self, lag: Duration) {
        self.loop_lag.observe("", lag.as_secs_f64());
    }

    /// An operator gave a command; its name is as on the command line.
    pub fn command(&self, command: &'static str) {
        self.commands.with_label_values(&[command]).inc();
    }

    /// A command was refused or failed.
    pub fn command_failed(&self, command: &'static str) {
        self.command_failures.with_label_values(&[command]).inc();
    }

    /// A worker that came back was not taken.
    pub fn rejoin_refused(&self, reason: &'static str) {
        self.rejoins_refused.with_label_values(&[reason]).inc();
    }

    /// This program has taken the place of another.
    pub fn upgraded(&self) {
        self.upgrades.inc();
    }

    /// How often that has happened.
    pub fn upgrades(&self) -> u64 {
        self.upgrades.get()
    }

    /// When the process began, in seconds since the Unix epoch.
    pub fn started_at(&self) -> f64 {
        self.process.started.get()
    }

    /// No other program has taken this one's place.
    pub fn upgrade_failed(&self) {
        self.upgrade_failures.inc();
    }

    /// The counters that were gone on from are of this same process: what it
    /// has used is in them. It began then, in seconds since the Unix epoch.
    pub fn same_process(&self, started_at: f64) {
        self.process.started.set(started_at);
        if let Ok(usage) = procfs::usage(Pid::this()) {
            let before = self.process.cpu.get() - usage.cpu.as_secs_f64();
            self.process.cpu_before.set(before.max(0.0));
        }
    }

    /// So many processes read what workers print; since the last call so many were started,
    /// and so often a pipe was held.
    pub fn output_readers(&self, readers: usize, started: u64, held: u64) {
        let readers = i64::try_from(readers).unwrap_or(i64::MAX);
        self.output_readers.set(readers);
        self.output_reader_starts.inc_by(started);
        self.outputs_held.inc_by(held);
    }

    /// `state.json` could not be written.
    pub fn state_not_written(&self) {
        self.state_write_failures.inc();
    }

    /// A reload ended then.
    pub fn reloaded(&self, ok: bool, at: SystemTime) {
        self.reloads.inc();
        self.last_reload_ok.set(ok.into());
        if ok {
            self.last_reload_at.set(unix_seconds(at));
        } else {
            self.reload_failures.inc();
        }
    }

    pub(super) fn save(&self) -> SavedSupervisor {
        let lag = self.loop_lag.of("");
        SavedSupervisor {
            loop_lag: lag.as_ref().map(Into::into).unwrap_or_default(),
            commands: saved(&self.commands, &COMMANDS),
            command_failures: saved(&self.command_failures, &COMMANDS),
            rejoins_refused: saved(&self.rejoins_refused, &REFUSALS),
            reloads: self.reloads.get(),
            reload_failures: self.reload_failures.get(),
            upgrades: self.upgrades.get(),
            upgrade_failures: self.upgrade_failures.get(),
            output_reader_starts: self.output_reader_starts.get(),
            outputs_held: self.outputs_held.get(),
            state_write_failures: self.state_write_failures.get(),
            last_reload_ok: self.last_reload_ok.get() == 1,
            last_reload_at: self.last_reload_at.get(),
            cpu_seconds: self.process.cpu.get(),
        }
    }

    pub(super) fn restore(&self, saved: &SavedSupervisor) {
        let lag = &saved.loop_lag;
        self.loop_lag.go_on_from("", &lag.counts, lag.sum);
        restore(&self.commands, &COMMANDS, &saved.commands);
        restore(&self.command_failures, &COMMANDS, &saved.command_failures);
        restore(&self.rejoins_refused, &REFUSALS, &saved.rejoins_refused);
        self.reloads.inc_by(saved.reloads);
        self.reload_failures.inc_by(saved.reload_failures);
        self.upgrades.inc_by(saved.upgrades);
        self.upgrade_failures.inc_by(saved.upgrade_failures);
        self.output_reader_starts.inc_by(saved.output_reader_starts);
        self.outputs_held.inc_by(saved.outputs_held);
        self.state_write_failures.inc_by(saved.state_write_failures);
        self.last_reload_ok.set(saved.last_reload_ok.into());
        self.last_reload_at.set(saved.last_reload_at);
        self.process.go_on_from(saved.cpu_seconds);
    }

    /// Looks up what this process uses.
    pub(super) fn refresh_process(&self) {
        self.process.refresh();
    }
}

/// A family's counters by their label's value.
fn saved(counters: &IntCounterVec, values: &[&str]) -> BTreeMap<String, u64> {
    let numbers = values
        .iter()
        .map(|value| counters.with_label_values(&[*value]).get());
    super::saved::by_name(values, &numbers.collect::<Vec<_>>())
}

fn restore(counters: &IntCounterVec, values: &[&str], saved: &BTreeMap<String, u64>) {
    for value in values {
        let number = saved.get(*value).copied().unwrap_or(0);
        counters.with_label_values(&[*value]).inc_by(number);
    }
}

impl ProcessMetrics {
    fn new(registry: &Registry, started_at: SystemTime) -> Self {
        let gauge = |name, help| registered(registry, IntGauge::new(name, help));
        let started = Gauge::new(
            "process_start_time_seconds",
            "When the supervisor started, in seconds since the epoch.",
        );
        let started = registered(registry, started);
        started.set(unix_seconds(started_at));
        let cpu = Counter::new(
            "process_cpu_seconds_total",
            "Processor time of the supervisor, in user and kernel mode.",
        );
        Self {
            started,
            cpu: registered(registry, cpu),
            cpu_before: Cell::new(0.0),
            resident: gauge(
                "process_resident_memory_bytes",
                "Resident memory of the supervisor.",
            ),
            address_space: gauge(
                "process_virtual_memory_bytes",
                "Address space of the supervisor.",
            ),
            open_fds: gauge(
                "process_open_fds",
                "Descriptors that the supervisor has open.",
            ),
            max_fds: gauge(
                "process_max_fds",
                "Descriptors that the supervisor may have open.",
            ),
        }
    }

    /// Adds what a supervisor before this one has used, since it is one service
    /// to whoever looks at the rate.
    fn go_on_from(&self, seconds: f64) {
        self.cpu_before.set(seconds);
        self.cpu.inc_by(seconds.max(0.0));
    }

    /// At the limit of descriptors `/proc` cannot be read: the last values stay.
    fn refresh(&self) {
        let gauge =
            |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            gauge(&self.max_fds, soft);
        }
        if let Ok(usage) = procfs::usage(Pid::this()) {
            let cpu = usage.cpu.as_secs_f64() + self.cpu_before.get() - self.cpu.get();
            self.cpu.inc_by(cpu.max(0.0));
            gauge(&self.resident, usage.resident_bytes);
            gauge(&self.address_space, usage.virtual_bytes);
            gauge(&self.open_fds, usage.open_fds);
        }
    }
}
