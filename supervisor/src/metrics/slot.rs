//! What is counted for one slot, over all the processes it has had.
//!
//! Two of them may live at a time, a successor and a predecessor that drains:
//! what a process reports is kept by its incarnation and folded into the slot's
//! base when it is gone.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prefork_api::{ChannelStatus, ExitReason, SlotState};
use prefork_proto::channel::Counters;
use prefork_proto::message::{Health, HttpCounts};
use prefork_proto::metrics::Metrics;
use prefork_proto::passage::Kept;
use prefork_proto::scoreboard::Snapshot;

use super::application::Application;
use super::distribution::Distribution;
use super::saved::{SavedProcess, SavedSlot, by_name, in_order};
use super::{Labels, http};
use crate::kernel::procfs::Usage;

/// Upper bounds for round trips over a channel, in seconds.
const ROUND_TRIP_BOUNDS: [f64; 12] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0,
];

/// One slot's metrics. Status and exposition are both made from them.
#[derive(Debug)]
pub struct SlotMetrics {
    pub(super) pool: String,
    pub(super) slot: u32,
    pub(super) labels: Rc<Labels>,
    application: Rc<Application>,
    numbers: RefCell<Numbers>,
}

/// The numbers themselves; `families` says how each is exported.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) state: SlotState,
    /// The incarnation that status shows.
    current: Option<u64>,
    live: BTreeMap<u64, Process>,
    pub(super) channel: Counters,
    pub(super) decode_errors: Vec<u64>,
    pub(super) send_errors: Vec<u64>,
    pub(super) round_trips: Distribution,
    last_round_trip: Option<f64>,
    pub(super) heartbeats_missed: u64,
    pub(super) starved: Duration,
    pub(super) counters_held: u64,
    pub(super) access_log_dropped: u64,
    /// Connections that its workers have handed on as they drained.
    pub(super) passed_on: u64,
    /// Those that could not be, by index in [`Kept::ALL`].
    pub(super) not_passed_on: [u64; Kept::ALL.len()],
    pub(super) output_dropped: u64,
    pub(super) starts: u64,
    /// By index in `ExitReason::ALL`.
    pub(super) exits: Vec<u64>,
    pub(super) backoff: f64,
    /// Whether its workers count no HTTP, so that there are no totals: 0 would say that
    /// nothing was served.
    pub(super) uncounted: bool,
    /// Of processes that are gone.
    http_base: HttpCounts,
    cpu_base: Duration,
}

/// One live process of the slot.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) generation: u64,
    /// In seconds since the Unix epoch, as every timestamp here.
    pub(super) started_at: f64,
    pub(super) channel_up: bool,
    channel: Counters,
    pub(super) send_queue_bytes: u64,
    pub(super) last_heartbeat: f64,
    pub(super) in_flight: u64,
    pub(super) connections: u64,
    pub(super) loop_lag: f64,
    http: http::Totals,
    access_log_dropped: u64,
    passed_on: u64,
    not_passed_on: [u64; Kept::ALL.len()],
    pub(super) usage: Usage,
}

impl SlotMetrics {
    pub(super) fn new(
        pool: &str,
        slot: u32,
        labels: &Rc<Labels>,
        application: &Rc<Application>,
    ) -> Self {
        let numbers = Numbers {
            state: SlotState::Empty,
            current: None,
            live: BTreeMap::new(),
            channel: Counters {
                sent: vec![0; labels.sent_kinds.len()],
                received: vec![0; labels.received_kinds.len()],
                ..Counters::default()
            },
            decode_errors: vec![0; labels.decode_reasons.len()],
            send_errors: vec![0; labels.send_reasons.len()],
            round_trips: Distribution::new(&ROUND_TRIP_BOUNDS),
            last_round_trip: None,
            heartbeats_missed: 0,
            starved: Duration::ZERO,
            counters_held: 0,
            access_log_dropped: 0,
            passed_on: 0,
            not_passed_on: [0; Kept::ALL.len()],
            output_dropped: 0,
            starts: 0,
            exits: vec![0; ExitReason::ALL.len()],
            backoff: 0.0,
            uncounted: false,
            http_base: HttpCounts::default(),
            cpu_base: Duration::ZERO,
        };
        Self {
            pool: pool.to_owned(),
            slot,
            labels: Rc::clone(labels),
            application: Rc::clone(application),
            numbers: RefCell::new(numbers),
        }
    }
}

/// What is recorded. Reports on a process that is not known as alive are
/// dropped: record the last ones before [`SlotMetrics::exited`].
impl SlotMetrics {
    /// A process was started in this slot.
    pub fn started(&self, incarnation: u64, pid: i32, generation: u64, at: SystemTime) {
        let mut numbers = self.numbers.borrow_mut();
        numbers.starts += 1;
        let process = Process {
            pid,
            generation,
            started_at: unix_seconds(at),
            ..Process::default()
        };
        numbers.live.insert(incarnation, process);
    }

    /// A process has gone. What it counted stays counted.
    pub fn exited(&self, incarnation: u64, reason: ExitReason) {
        let mut numbers = self.numbers.borrow_mut();
        let Some(process) = numbers.live.remove(&incarnation) else {
            return;
        };
        self.application
            .exited(&self.pool, (self.slot, incarnation));
        numbers.fold(&process);
        if let Some(index) = ExitReason::ALL.iter().position(|known| *known == reason) {
            numbers.exits[index] += 1;
        }
    }

    /// What the slot is doing, and the incarnation that status shows for it.
    pub fn state(&self, state: SlotState, current: Option<u64>) {
        let mut numbers = self.numbers.borrow_mut();
        numbers.state = state;
        numbers.current = current;
        if state != SlotState::Backoff {
            numbers.backoff = 0.0;
        }
    }

    /// The slot waits this long before its next start; until its state changes.
    pub fn backoff(&self, delay: Duration) {
        self.numbers.borrow_mut().backoff = delay.as_secs_f64();
    }

    /// A process has taken the settings of this generation in place.
    pub fn generation(&self, incarnation: u64, generation: u64) {
        self.on(incarnation, |_, process| process.generation = generation);
    }

    /// Whether the channel is open and past its handshake.
    pub fn channel_up(&self, incarnation: u64, up: bool) {
        self.on(incarnation, |_, process| process.channel_up = up);
    }

    /// What has gone over an incarnation's channel since it was made.
    pub fn channel_counters(&self, incarnation: u64, counters: &Counters) {
        self.on(incarnation, |numbers, process| {
            add_growth(&mut numbers.channel, &process.channel, counters);
            process.channel.clone_from(counters);
        });
    }

    /// Bytes that wait to be sent to an incarnation.
    pub fn send_queue(&self, incarnation: u64, bytes: u64) {
        self.on(incarnation, |_, process| process.send_queue_bytes = bytes);
    }

    /// What a worker sent could not be understood, or broke a rule.
    pub fn decode_error(&self, reason: &str) {
        let index = index_or_last(&self.labels.decode_reasons, reason);
        self.numbers.borrow_mut().decode_errors[index] += 1;
    }

    /// A message could not be sent.
    pub fn send_error(&self, reason: &str) {
        let index = index_or_last(&self.labels.send_reasons, reason);
        self.numbers.borrow_mut().send_errors[index] += 1;
    }

    /// A `ping` was answered after this time.
    pub fn round_trip(&self, took: Duration) {
        let mut numbers = self.numbers.borrow_mut();
        numbers.round_trips.observe(took.as_secs_f64());
        numbers.last_round_trip = Some(took.as_secs_f64());
    }

    /// A `health` report came.
    pub fn health(&self, incarnation: u64, health: &Health, at: SystemTime) {
        self.on(incarnation, |numbers, process| {
            process.last_heartbeat = unix_seconds(at);
            process.in_flight = health.in_flight;
            process.connections = health.connections;
            process.loop_lag = Duration::from_micros(health.loop_lag_us).as_secs_f64();
            let mut held = 0;
            let mut advance = |total: &mut u64, seen: &mut u64, reported: u64| {
                let more = reported.checked_sub(*seen);
                match more.filter(|_| reported <= http::BELIEVED) {
                    Some(more) => {
                        *total = total.saturating_add(more);
                        *seen = reported;
                    }
                    None => held += 1,
                }
            };
            advance(
                &mut numbers.access_log_dropped,
                &mut process.access_log_dropped,
                health.access_log_dropped,
            );
            if let Some(handoffs) = &health.handoffs {
                let (total, seen) = (&mut numbers.passed_on, &mut process.passed_on);
                advance(total, seen, handoffs.passed_on);
                for (index, reported) in handoffs.not_passed_on.into_iter().enumerate() {
                    let total = &mut numbers.not_passed_on[index];
                    advance(total, &mut process.not_passed_on[index], reported);
                }
            }
            numbers.counters_held += held;
            if let Some(counts) = &health.http {
                numbers.counters_held += process.http.advance(counts);
            }
        });
    }

    /// Whether the slot's worker counts HTTP, by what it said first. A process that
    /// does not serve yet decides only where nothing has been counted.
    pub fn counts_http(&self, counts: bool, serves: bool) {
        let mut numbers = self.numbers.borrow_mut();
        if counts || serves || numbers.http() == HttpCounts::default() {
            numbers.uncounted = !counts;
        }
    }

    /// The slot's first process has been started: nobody knows yet whether it counts.
    pub fn awaits_first_hello(&self) {
        self.counts_http(false, false);
    }

    /// What is on a process's scoreboard.
    pub fn counted(&self, incarnation: u64, counted: &Snapshot) {
        self.on(incarnation, |numbers, process| {
            process.in_flight = counted.in_flight;
            process.connections = counted.connections;
            numbers.counters_held += process.http.advance(&counted.http);
        });
    }

    /// A report on the application's own metrics came.
    pub fn application(&self, incarnation: u64, report: &Metrics) {
        self.on(incarnation, |numbers, _| {
            let who = (self.slot, incarnation);
            numbers.counters_held += self.application.report(&self.pool, who, report);
        });
    }

    /// Bytes that it printed were not logged.
    pub fn output_dropped(&self, bytes: u64) {
        let mut numbers = self.numbers.borrow_mut();
        numbers.output_dropped = numbers.output_dropped.saturating_add(bytes);
    }

    /// A `health` report did not come in time.
    pub fn heartbeat_missed(&self) {
        self.numbers.borrow_mut().heartbeats_missed += 1;
    }

    /// A silent process waited this long for a processor.
    pub fn starved(&self, waited: Duration) {
        let mut numbers = self.numbers.borrow_mut();
        numbers.starved = numbers.starved.saturating_add(waited);
    }

    /// What a process uses. The kernel still tells a zombie's processor time:
    /// looking it up before the process is reaped loses nothing of it.
    pub fn process(&self, incarnation: u64, usage: Usage) {
        self.on(incarnation, |_, process| {
            let cpu = usage.cpu.max(process.usage.cpu);
            process.usage = Usage { cpu, ..usage };
        });
    }

    fn on(&self, incarnation: u64, record: impl FnOnce(&mut Numbers, &mut Process)) {
        let mut numbers = self.numbers.borrow_mut();
        // Taken out, so that `record` can change the slot's numbers beside one of them.
        let mut live = std::mem::take(&mut numbers.live);
        if let Some(process) = live.get_mut(&incarnation) {
            record(&mut numbers, process);
        }
        numbers.live = live;
    }
}

/// What outlives the supervisor.
impl SlotMetrics {
    /// The counters as they are now.
    pub(super) fn save(&self) -> SavedSlot {
        let numbers = self.numbers();
        let labels = &self.labels;
        let channel = &numbers.channel;
        let live = numbers.live.iter();
        SavedSlot {
            pool: self.pool.clone(),
            slot: self.slot,
            sent: by_name(&labels.sent_kinds, &channel.sent),
            received: by_name(&labels.received_kinds, &channel.received),
            sent_bytes: channel.sent_bytes,
            received_bytes: channel.received_bytes,
            fds_sent: channel.fds_sent,
            fds_received: channel.fds_received,
            fds_rejected: channel.fds_rejected,
            decode_errors: by_name(&labels.decode_reasons, &numbers.decode_errors),
            send_errors: by_name(&labels.send_reasons, &numbers.send_errors),
            round_trips: (&numbers.round_trips).into(),
            heartbeats_missed: numbers.heartbeats_missed,
            starved: numbers.starved,
            counters_held: numbers.counters_held,
            access_log_dropped: numbers.access_log_dropped,
            passed_on: numbers.passed_on,
            not_passed_on: by_name(&Kept::ALL.map(Kept::as_str), &numbers.not_passed_on),
            output_dropped: numbers.output_dropped,
            starts: numbers.starts,
            exits: by_name(&ExitReason::ALL.map(ExitReason::as_str), &numbers.exits),
            uncounted: numbers.uncounted,
            http: numbers.http_base.clone(),
            cpu: numbers.cpu_base,
            live: live
                .map(|(incarnation, process)| (*incarnation, process.save()))
                .collect(),
        }
    }

    /// Goes on from counters that were written down.
    pub(super) fn restore(&self, saved: &SavedSlot) {
        let labels = &self.labels;
        let mut numbers = self.numbers.borrow_mut();
        numbers.channel = Counters {
            sent_bytes: saved.sent_bytes,
            received_bytes: saved.received_bytes,
            fds_sent: saved.fds_sent,
            fds_received: saved.fds_received,
            fds_rejected: saved.fds_rejected,
            sent: in_order(&labels.sent_kinds, &saved.sent),
            received: in_order(&labels.received_kinds, &saved.received),
        };
        numbers.decode_errors = in_order(&labels.decode_reasons, &saved.decode_errors);
        numbers.send_errors = in_order(&labels.send_reasons, &saved.send_errors);
        let round_trips = &saved.round_trips;
        numbers
            .round_trips
            .go_on_from(&round_trips.counts, round_trips.sum);
        numbers.heartbeats_missed = saved.heartbeats_missed;
        numbers.starved = saved.starved;
        numbers.counters_held = saved.counters_held;
        numbers.access_log_dropped = saved.access_log_dropped;
        numbers.passed_on = saved.passed_on;
        let kept = in_order(&Kept::ALL.map(Kept::as_str), &saved.not_passed_on);
        numbers.not_passed_on = std::array::from_fn(|index| kept[index]);
        numbers.output_dropped = saved.output_dropped;
        numbers.starts = saved.starts;
        numbers.exits = in_order(&ExitReason::ALL.map(ExitReason::as_str), &saved.exits);
        numbers.uncounted = saved.uncounted;
        numbers.http_base = saved.http.clone();
        numbers.cpu_base = saved.cpu;
        let live = saved.live.iter();
        numbers.live = live
            .map(|(incarnation, process)| (*incarnation, Process::restore(process)))
            .collect();
    }

    /// A process that is known by name only is gone, for a reason that was
    /// never seen. What it counted stays counted.
    pub(super) fn forget(&self, incarnation: u64) {
        let mut numbers = self.numbers.borrow_mut();
        if let Some(process) = numbers.live.remove(&incarnation) {
            let who = (self.slot, incarnation);
            self.application.exited(&self.pool, who);
            numbers.fold(&process);
        }
    }
}

impl Process {
    fn save(&self) -> SavedProcess {
        SavedProcess {
            pid: self.pid,
            generation: self.generation,
            started_at: self.started_at,
            last_heartbeat: self.last_heartbeat,
            access_log_dropped: self.access_log_dropped,
            passed_on: self.passed_on,
            not_passed_on: self.not_passed_on,
            http: self.http.counts().clone(),
            cpu: self.usage.cpu,
        }
    }

    fn restore(saved: &SavedProcess) -> Self {
        Self {
            pid: saved.pid,
            generation: saved.generation,
            started_at: saved.started_at,
            last_heartbeat: saved.last_heartbeat,
            access_log_dropped: saved.access_log_dropped,
            passed_on: saved.passed_on,
            not_passed_on: saved.not_passed_on,
            http: http::Totals::from(&saved.http),
            usage: Usage {
                cpu: saved.cpu,
                ..Usage::default()
            },
            ..Self::default()
        }
    }
}

/// What status shows.
impl SlotMetrics {
    /// Requests served by all of the slot's processes; none where they are not counted.
    pub fn requests(&self) -> Option<u64> {
        let numbers = self.numbers();
        (!numbers.uncounted).then(|| numbers.http().total())
    }

    /// What all of the slot's processes have served; none where they do not count it.
    pub fn http(&self) -> Option<HttpCounts> {
        let numbers = self.numbers();
        (!numbers.uncounted).then(|| numbers.http())
    }

    /// Processor time of all of the slot's processes, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        self.numbers().cpu_seconds()
    }

    /// Requests in flight, in all of the slot's processes.
    pub fn in_flight(&self) -> u64 {
        self.numbers().sum(|process| process.in_flight)
    }

    /// How many of the slot's processes have failed.
    pub fn crashes(&self) -> u64 {
        let numbers = self.numbers();
        let exits = ExitReason::ALL.iter().zip(&numbers.exits);
        let failures = exits.filter(|(reason, _)| reason.is_failure());
        failures.map(|(_, count)| count).sum()
    }

    /// Requests that one live process has served, by its last report; none where they
    /// are not counted.
    pub fn requests_of(&self, incarnation: u64) -> Option<u64> {
        let numbers = self.numbers();
        let process = numbers.live.get(&incarnation);
        let served = process.map_or(0, |process| process.http.counts().total());
        (served > 0 || !numbers.uncounted).then_some(served)
    }

    /// What one live process uses, as it was last looked up.
    pub fn usage_of(&self, incarnation: u64) -> Option<Usage> {
        let numbers = self.numbers();
        numbers.live.get(&incarnation).map(|process| process.usage)
    }

    /// The slot's channel, as `channels` and `describe` show it.
    pub fn channel_status(&self) -> ChannelStatus {
        let numbers = self.numbers();
        let channel = &numbers.channel;
        let heartbeat = numbers.newest(|process| process.last_heartbeat);
        ChannelStatus {
            pool: self.pool.clone(),
            slot: self.slot,
            up: numbers.current().is_some_and(|process| process.channel_up),
            messages_sent: channel.sent.iter().sum(),
            messages_received: channel.received.iter().sum(),
            sent_bytes: channel.sent_bytes,
            received_bytes: channel.received_bytes,
            fds_sent: channel.fds_sent,
            fds_received: channel.fds_received,
            fds_rejected: channel.fds_rejected,
            decode_errors: numbers.decode_errors.iter().sum(),
            send_errors: numbers.send_errors.iter().sum(),
            send_queue_bytes: numbers.sum(|process| process.send_queue_bytes),
            round_trip_seconds: numbers.last_round_trip,
            last_heartbeat_at: (heartbeat > 0.0).then_some(heartbeat),
            heartbeats_missed: numbers.heartbeats_missed,
        }
    }

    pub(super) fn numbers(&self) -> Ref<'_, Numbers> {
        self.numbers.borrow()
    }
}

impl Numbers {
    /// Keeps what a process counted that has gone.
    fn fold(&mut self, process: &Process) {
        http::add(&mut self.http_base, process.http.counts());
        self.cpu_base = self.cpu_base.saturating_add(process.usage.cpu);
    }

    /// The incarnations that live.
    pub(super) fn live_incarnations(&self) -> Vec<u64> {
        self.live.keys().copied().collect()
    }

    /// The process that status shows.
    pub(super) fn current(&self) -> Option<&Process> {
        self.live.get(&self.current?)
    }

    /// HTTP totals of all processes, gone and alive.
    pub(super) fn http(&self) -> HttpCounts {
        let mut total = self.http_base.clone();
        for process in self.live.values() {
            http::add(&mut total, process.http.counts());
        }
        total
    }

    /// Processor time of all processes, gone and alive, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let alive = self.live.values().map(|process| process.usage.cpu);
        alive
            .fold(self.cpu_base, Duration::saturating_add)
            .as_secs_f64()
    }

    /// A number summed over the live processes.
    pub(super) fn sum(&self, of: impl Fn(&Process) -> u64) -> u64 {
        let add = |sum: u64, process| sum.saturating_add(of(process));
        self.live.values().fold(0, add)
    }

    /// The largest of the live processes' numbers; 0 without a process.
    pub(super) fn newest(&self, of: impl Fn(&Process) -> f64) -> f64 {
        self.live.values().map(of).fold(0.0, f64::max)
    }

    /// Whether any process lives.
    pub(super) fn is_up(&self) -> bool {
        !self.live.is_empty()
    }
}

/// Adds what has been counted between two looks at one channel.
fn add_growth(sum: &mut Counters, before: &Counters, now: &Counters) {
    let add = |total: &mut u64, before: u64, now: u64| *total += now.saturating_sub(before);
    add(&mut sum.sent_bytes, before.sent_bytes, now.sent_bytes);
    add(
        &mut sum.received_bytes,
        before.received_bytes,
        now.received_bytes,
    );
    add(&mut sum.fds_sent, before.fds_sent, now.fds_sent);
    add(&mut sum.fds_received, before.fds_received, now.fds_received);
    add(&mut sum.fds_rejected, before.fds_rejected, now.fds_rejected);
    let per_kind = |totals: &mut [u64], before: &[u64], now: &[u64]| {
        for (kind, total) in totals.iter_mut().enumerate() {
            let at = |counts: &[u64]| counts.get(kind).copied().unwrap_or(0);
            add(total, at(before), at(now));
        }
    };
    per_kind(&mut sum.sent, &before.sent, &now.sent);
    per_kind(&mut sum.received, &before.received, &now.received);
}

/// A reason that has no label of its own counts as the last, `other`.
fn index_or_last(reasons: &[&str], reason: &str) -> usize {
    let index = reasons.iter().position(|known| *known == reason);
    index.unwrap_or(reasons.len() - 1)
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
