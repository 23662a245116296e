//! What operators and Prometheus ask to see, made when they ask: the fleet's
//! view joined with what the processes said and what was counted.

use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use prefork_api::{
    ApiError, Channels, Describe, DrainingStatus, ErrorCode, Exit, PoolStatus, SCHEMA, Status,
    WorkerStatus,
};
use prefork_fleet::{PoolView, SlotView, Worker};

use crate::handle::Wanted;
use crate::kernel::procfs;
use crate::metrics::{PoolMetrics, SlotMetrics};
use crate::reactor::worker_process::handle::{Grip, SlotName};
use crate::reactor::worker_process::output::Readers;
use crate::reactor::{Edition, Reactor, since_boot};

/// How old a look at the processes' memory, time and descriptors may be: each
/// costs three files of /proc, and askers may come in hundreds.
const FRESH: Duration = Duration::from_millis(500);

/// A certificate for the status document. Anybody may ask for that at the admin address,
/// and who a service's clients are is not for anybody.
fn without_requests(exit: &Exit) -> Exit {
    Exit {
        in_flight: Vec::new(),
        // Nor are functions' and files' names for everybody.
        thread_dump: None,
        ..exit.clone()
    }
}

impl Reactor {
    /// Every label set is exported from its birth.
    pub(in crate::reactor) fn export_pools(&mut self) {
        let slots: Vec<_> = self
            .fleet
            .pools()
            .flat_map(|pool| {
                let name = pool.name().to_owned();
                pool.slots().map(move |slot| (name.clone(), slot.index()))
            })
            .collect();
        for (pool, slot) in slots {
            self.metrics.pool(&pool);
            self.metrics.slot(&pool, slot);
        }
    }

    pub(in crate::reactor) fn status(&mut self) -> Status {
        self.look_at_processes();
        let pools: Vec<_> = self.fleet.pools().collect();
        Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id().cast_signed(),
            uptime_seconds: since_boot().since(self.began).as_secs_f64(),
            generation: self.fleet.generation(),
            ready: self.fleet.is_ready(),
            readiness: Some(self.fleet.readiness()),
            stopping: self.is_told_to_stop(),
            drains_in_seconds: self.stop.due().map(|due| {
                let left = due.saturating_duration_since(Instant::now());
                left.as_secs_f64()
            }),
            upgrades: self.metrics.supervisor().upgrades(),
            last_reload: self.reloads.last.clone(),
            pools: pools.iter().map(|pool| self.pool_status(pool)).collect(),
        }
    }

    fn pool_status(&self, pool: &PoolView<'_>) -> PoolStatus {
        let edition = self.edition_of(pool);
        let strength = pool.strength();
        PoolStatus {
            name: pool.name().to_owned(),
            desired: pool.desired(),
            configured: Some(pool.configured()),
            ready: strength.ready,
            paused: strength.paused,
            needed: Some(strength.needed),
            readiness: Some(strength.readiness()),
            listeners: edition
                .iter()
                .flat_map(|edition| &edition.sockets)
                .map(|sockets| sockets.status())
                .collect(),
            program_on_disk: edition
                .and_then(|edition| edition.program.difference_on_disk())
                .map(str::to_owned),
            on_disk: edition.and_then(|edition| edition.program_on_disk()),
            canary: self.canary_status(pool),
            workers: pool
                .shown()
                .map(|slot| self.worker_status(pool.name(), &slot))
                .collect(),
        }
    }

    fn worker_status(&self, pool: &str, slot: &SlotView<'_>) -> WorkerStatus {
        let now = self.now();
        let metrics = self.metrics.known_slot(pool, slot.index());
        let current = slot.current();
        let usage = current.as_ref().and_then(|current| {
            let usage = metrics.as_ref()?.usage_of(current.worker().incarnation);
            Some(usage?.resident_bytes)
        });
        let grip = current
            .as_ref()
            .and_then(|current| self.processes.get(&current.worker()));
        let vitals = grip.map(|grip| grip.vitals.borrow());
        let health = vitals.as_ref().and_then(|vitals| vitals.health.as_ref());
        let counted = vitals.as_ref().and_then(|vitals| vitals.counted());
        let (in_flight, connections) = match (counted, health) {
            (Some(counted), _) => (counted.in_flight, counted.connections),
            (None, Some(health)) => (health.in_flight, health.connections),
            (None, None) => (0, 0),
        };
        WorkerStatus {
            slot: slot.index(),
            state: slot.state(),
            pid: current.as_ref().and_then(|current| current.pid()),
            generation: current.as_ref().map(|current| current.generation()),
            incarnation: slot.incarnations(),
            uptime_seconds: current
                .as_ref()
                .map(|current| now.since(current.started()).as_secs_f64()),
            restarts: slot.incarnations().saturating_sub(1),
            crashes: metrics.map_or(0, |metrics| metrics.crashes()),
            in_flight,
            connections,
            requests: metrics.and_then(|metrics| metrics.requests()),
            resident_bytes: usage,
            status: health.map_or_else(String::new, |health| health.status.clone()),
            upstream: grip.and_then(|grip| Some(grip.upstream.as_ref()?.to_string())),
            backoff_seconds: slot
                .backoff()
                .map(|(until, _)| until.since(now).as_secs_f64()),
            draining: slot
                .leaving()
                .filter_map(|leaving| {
                    Some(DrainingStatus {
                        pid: leaving.pid()?,
                        generation: leaving.generation(),
                        in_flight: leaving.in_flight(),
                    })
                })
                .collect(),
            last_exit: slot.exits().next().map(without_requests),
        }
    }

    pub(in crate::reactor) fn describe(
        &mut self,
        pool: &str,
        slot: u32,
    ) -> Result<Describe, ApiError> {
        self.look_at_processes();
        self.slots_named(pool, Some(slot))?;
        let no_such_slot = || {
            ApiError::new(
                ErrorCode::NotFound,
                format!("there is no slot {pool}/{slot}"),
            )
        };
        let view = self
            .fleet
            .pools()
            .find(|view| view.name() == pool)
            .ok_or_else(no_such_slot)?;
        let slot_view = view.slot(slot).ok_or_else(no_such_slot)?;
        let metrics = self
            .metrics
            .known_slot(pool, slot)
            .ok_or_else(no_such_slot)?;
        let edition = self.edition_of(&view);
        let hello = self
            .current(pool, slot)
            .and_then(|grip| grip.vitals.borrow().hello.clone());
        let running = self.running_requests(&Wanted {
            pool: Some(pool.to_owned()),
            slot: Some(slot),
            older_than_ms: 0,
        })?;
        let notes_requests = hello.is_some() && running.silent_workers == 0;
        Ok(Describe {
            pool: pool.to_owned(),
            worker: self.worker_status(pool, &slot_view),
            program: edition.map_or_else(Vec::new, |edition| edition.program.command_line()),
            program_on_disk: edition
                .and_then(|edition| edition.program.difference_on_disk())
                .map(str::to_owned),
            on_disk: edition.and_then(|edition| edition.on_disk()),
            capabilities: hello
                .as_ref()
                .map(|hello| hello.capabilities.clone())
                .unwrap_or_default(),
            hello: hello.map(|hello| format!("{} {}", hello.program, hello.version)),
            channel: metrics.channel_status(),
            exits: slot_view.exits().cloned().collect(),
            requests: notes_requests.then_some(running.requests),
            requests_unlisted: running.unlisted,
        })
    }

    pub(in crate::reactor) fn channels(&mut self) -> Channels {
        self.look_at_processes();
        let channels = self.fleet.pools().flat_map(|pool| {
            let name = pool.name().to_owned();
            pool.shown()
                .filter_map(|slot| self.metrics.known_slot(&name, slot.index()))
                .map(|metrics| metrics.channel_status())
                .collect::<Vec<_>>()
        });
        Channels {
            schema: SCHEMA,
            channels: channels.collect(),
        }
    }

    /// What is scraped is written down before anybody sees it: the next
    /// supervisor's counters are never below it.
    pub(in crate::reactor) fn exposition(&mut self) -> String {
        self.look_at_processes();
        if let Ok(drops) = procfs::listen_drops() {
            self.metrics.listen_drops(drops);
        }
        let text = self.metrics.encode();
        self.write_state();
        text
    }

    /// Looks up what the processes use and have counted, and what the slots are doing.
    pub(in crate::reactor) fn look_at_processes(&mut self) {
        let all = self.looked_up.is_none_or(|last| last.elapsed() >= FRESH);
        if all {
            self.looked_up = Some(Instant::now());
        }
        self.look_up_usage(all);
        self.count_readers();
        self.read_scoreboards();
        self.read_backlogs();
        for pool in self.fleet.pools() {
            let metrics = self.metrics.pool(pool.name());
            metrics.desired(pool.desired());
            metrics.needed(pool.strength().needed);
            metrics.canary(pool.canary().map_or(0, |canary| canary.workers()));
            for slot in pool.slots() {
                if let Some(metrics) = self.metrics.known_slot(pool.name(), slot.index()) {
                    let current = slot.current();
                    if let Some(current) = &current {
                        metrics.generation(current.worker().incarnation, current.generation());
                    }
                    let current = current.map(|current| current.worker().incarnation);
                    metrics.state(slot.state(), current);
                }
            }
        }
    }

    /// What the processes that read for this one have come to.
    pub(in crate::reactor) fn count_readers(&self) {
        let now = Readers::shared().take_numbers();
        let metrics = self.metrics.supervisor();
        metrics.output_readers(now.readers, now.started, now.held);
    }

    /// What waits in the listeners' queues.
    fn read_backlogs(&mut self) {
        for (pool, sockets) in self.editions.bound() {
            let status = sockets.status();
            let metrics = self
                .metrics
                .listener(&status.name, &pool, &status.address, &status.mode);
            metrics.backlog(status.backlog, status.backlog_limit.unwrap_or(0));
            metrics.certificates(sockets.expiries());
        }
    }

    /// What live processes have counted, up to this moment.
    pub(in crate::reactor) fn read_scoreboards(&self) {
        for (worker, grip) in &self.processes {
            let Some(counted) = grip.vitals.borrow().counted() else {
                continue;
            };
            let pool = self.pool_name(*worker);
            if let Some(metrics) = self.metrics.known_slot(&pool, worker.slot) {
                metrics.counted(worker.incarnation, &counted);
            }
        }
    }

    /// Looks at all processes, or only at those never looked at before.
    fn look_up_usage(&self, all: bool) {
        for (worker, grip) in &self.processes {
            if grip.looked_up.replace(true) && !all {
                continue;
            }
            let metrics = self
                .metrics
                .known_slot(&self.pool_name(*worker), worker.slot);
            // A process that has just ended is looked up by its own task.
            let pid = Pid::from_raw(grip.pid);
            let usage = match self.has_adapter(*worker) {
                true => procfs::tree::usage_of_all(pid),
                false => procfs::usage(pid),
            };
            if let (Some(metrics), Ok(usage)) = (metrics, usage) {
                metrics.process(worker.incarnation, usage);
            }
        }
    }

    /// The slots that an address like `web` or `web/0` names.
    pub(in crate::reactor) fn slots_named(
        &self,
        pool: &str,
        slot: Option<u32>,
    ) -> Result<Vec<u32>, ApiError> {
        let view = self.fleet.pools().find(|view| view.name() == pool);
        let Some(view) = view else {
            let known: Vec<_> = self
                .fleet
                .pools()
                .map(|pool| pool.name().to_owned())
                .collect();
            let message = format!("there is no pool {pool}; there is {}", known.join(", "));
            return Err(ApiError::new(ErrorCode::NotFound, message));
        };
        let slots: Vec<u32> = view.shown().map(|slot| slot.index()).collect();
        match slot {
            None => Ok(slots),
            Some(slot) if slots.contains(&slot) => Ok(vec![slot]),
            Some(slot) => Err(ApiError::new(
                ErrorCode::NotFound,
                format!(
                    "there is no slot {pool}/{slot}; {pool} has {} slots, from 0",
                    slots.len()
                ),
            )),
        }
    }

    /// The process that serves in a slot.
    pub(in crate::reactor) fn current(&self, pool: &str, slot: u32) -> Option<&Grip> {
        let view = self.fleet.pools().find(|view| view.name() == pool)?;
        let worker = view.slot(slot)?.current()?.worker();
        self.processes.get(&worker)
    }

    /// The edition in force of a pool.
    fn edition_of(&self, pool: &PoolView<'_>) -> Option<&Rc<Edition>> {
        self.editions.of(pool.name(), self.fleet.generation())
    }

    /// Remembers the name of a worker's pool.
    pub(in crate::reactor) fn name(&mut self, worker: Worker) {
        if let Some(pool) = self.fleet.pool(worker.pool) {
            let name = self.names.entry(worker.pool);
            name.or_insert_with(|| pool.name().into());
        }
    }

    pub(in crate::reactor) fn pool_name(&self, worker: Worker) -> Rc<str> {
        let name = self.names.get(&worker.pool);
        name.map_or_else(|| "?".into(), Rc::clone)
    }

    pub(in crate::reactor) fn slot_name(&self, worker: Worker) -> SlotName {
        SlotName {
            pool: self.pool_name(worker),
            slot: worker.slot,
        }
    }

    pub(in crate::reactor) fn slot_metrics(&mut self, worker: Worker) -> Rc<SlotMetrics> {
        let pool = self.pool_name(worker);
        self.metrics.slot(&pool, worker.slot)
    }

    pub(in crate::reactor) fn pool_metrics(&mut self, worker: Worker) -> Rc<PoolMetrics> {
        let pool = self.pool_name(worker);
        self.metrics.pool(&pool)
    }
}
