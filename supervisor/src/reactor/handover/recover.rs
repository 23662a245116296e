//! Going on where a supervisor was killed: the same fleet, the same processes,
//! the same listeners, the same counters.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use prefork_fleet::{Death, Event, Fleet, Policy, PoolId, Snapshot, Survivor, Worker};
use prefork_proto::message::{Hello, RejoinState};
use prefork_proto::request_table::Table;
use prefork_proto::scoreboard::Board;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::handle::Member;
use crate::kernel::procfs;
use crate::metrics::Known;
use crate::reactor::generation::certificates;
use crate::reactor::generation::directories::Places;
use crate::reactor::generation::program::PinnedProgram;
use crate::reactor::generation::revision::{Edition, PoolError};
use crate::reactor::handover::listener_stock::Stock;
use crate::reactor::observe::events::About;
use crate::reactor::worker_process::handle::Adopted;
use crate::reactor::worker_process::{spawn, task};
use crate::reactor::{Inbox, Reactor, Setup, unix_ms};
use crate::recovery::state::{Document, SavedEdition};
use crate::recovery::survivors::{Living, Remains};

/// What the certificate of a process says that is not our child.
const UNKNOWN_EXIT: &str = "adopted; exit status unknown";

/// Why a process is killed that was not ready when its supervisor died.
const STARTING: &str = "it was still starting when the supervisor was killed";

/// Why a process is killed that came back and kept a listener.
const WITHHELD: &str = "it came back without a listener that it holds";

/// Why a process is killed whose listener nobody has any more.
const LOST: &str = "a listener of its pool is lost, and its address is taken";

/// Why a process is killed that can come back and did not.
const ABSENT: &str = "it did not come back to the new supervisor in time";

impl Reactor {
    /// Goes on from what a supervisor left that was killed.
    pub(crate) fn recover(
        setup: Setup,
        mut remains: Remains,
        begun: Instant,
    ) -> Result<(Self, Inbox), PoolError> {
        let held = remains.listeners();
        let departed = remains.departed();
        let Remains {
            document,
            living,
            gone,
        } = remains;
        let mut document = *document;
        let generation = document.fleet.generation();
        let sockets = Stock::new(std::mem::take(&mut document.listeners), held);
        let mut saved = std::mem::take(&mut document.editions);
        let vault = setup.keep.as_ref().map(|keep| &keep.vault);
        certificates::fill(vault, saved.iter_mut().map(|it| &mut it.config));
        let editions = set_up(saved, generation, &living, sockets, setup.nofile)?;
        let (mut reactor, inbox) = Self::go_on_from(setup, document, editions);
        if reactor.undoing {
            let why = "the supervisor was killed before it was in force";
            reactor.note_reload(false, generation, why);
        }
        reactor.agree_on_processes(&living, &gone);
        reactor.end_trees_of(departed);
        reactor.adopt_all(living, gone, begun);
        Ok((reactor, inbox))
    }

    /// A reactor that knows what the document says, and of no process yet.
    pub(in crate::reactor) fn go_on_from(
        mut setup: Setup,
        document: Document<Snapshot>,
        editions: Vec<(u64, Edition)>,
    ) -> (Self, Inbox) {
        let snapshot = document.fleet;
        let generation = snapshot.generation();
        // Those that are gone, too: what they have started lives on in their sessions.
        let adopted = document.processes.iter().map(|process| Member {
            pid: process.pid,
            start_ticks: process.start_ticks,
        });
        let adopted = adopted.collect();
        let in_force = editions.iter().filter(|(of, _)| *of == generation);
        let mut policies: BTreeMap<String, Policy> = in_force
            .map(|(_, edition)| (edition.name.to_string(), edition.config.policy.clone()))
            .collect();
        // A pool that could not be set up is one all the same.
        let mut deferred = document.config.pools.clone();
        deferred.retain(|pool| !policies.contains_key(&pool.policy.name));
        let vault = setup.keep.as_ref().map(|keep| &keep.vault);
        certificates::fill(vault, &mut deferred);
        for pool in &deferred {
            policies.insert(pool.policy.name.clone(), pool.policy.clone());
        }

        // What concerns this process is as it was told; what concerns the
        // workers stays until a reload.
        setup.config = Config {
            supervisor: setup.config.supervisor,
            ..document.config
        };
        let names: HashMap<PoolId, Rc<str>> = snapshot
            .pools()
            .map(|(id, name)| (id, name.into()))
            .collect();
        let undoing =
            document.tried > generation && editions.iter().any(|(number, _)| *number > generation);
        let (mut reactor, inbox) = Self::assemble(setup, |now| {
            Fleet::restore(now, fastrand::u64(..), snapshot, &policies)
        });
        for (number, edition) in editions {
            reactor.editions.add(number, vec![Rc::new(edition)]);
        }
        for pool in deferred {
            reactor.editions.defer(generation, pool);
        }
        reactor.upstreams.know(&document.processes);
        reactor.names = names;
        reactor.adopted = adopted;
        reactor.next_job = document.next_job;
        reactor.journal.go_on_from(document.next_seq);
        let undone = document.last_reload.as_ref().is_some_and(|last| !last.ok);
        reactor.reloads.undone = undone;
        reactor.reloads.last = document.last_reload;
        reactor.reloads.tried = document.tried;
        reactor.metrics.restore(&document.metrics);
        reactor.undoing = undoing;
        (reactor, inbox)
    }

    /// Has those be counted who are written down: the counters may have been older.
    fn agree_on_processes(&mut self, living: &[Living], gone: &[Survivor]) {
        let living = living.iter().map(|it| {
            let at = procfs::started_at(it.start_ticks);
            (it.survivor, Some(it.pid), at)
        });
        let gone = gone.iter().map(|it| (*it, it.pid, SystemTime::now()));
        let mut known: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (survivor, pid, at) in living.chain(gone) {
            let Some(pid) = pid else { continue };
            let worker = survivor.worker;
            let slot = (self.pool_name(worker).to_string(), worker.slot);
            known.entry(slot).or_default().push(Known {
                incarnation: worker.incarnation,
                pid,
                generation: survivor.generation,
                at,
            });
        }
        self.metrics.agree_on(&known);
    }

    /// Tells the fleet what has become of its processes.
    fn adopt_all(&mut self, living: Vec<Living>, gone: Vec<Survivor>, begun: Instant) {
        self.mourn(gone);
        let mut adopted = Vec::new();
        for living in living {
            let survivor = living.survivor;
            let fate = match Fate::of(&living) {
                Fate::Back(_) if self.lacks_a_listener(&survivor) => Fate::Hangs(LOST),
                fate => fate,
            };
            match self.adopt(living) {
                Ok(()) => adopted.push((survivor.worker, fate)),
                Err(error) => {
                    let slot = self.slot_name(survivor.worker);
                    error!(%slot, "cannot adopt a worker: {error}");
                }
            }
        }
        let orders = self.fleet.repeat_orders(self.now());
        self.carry_out(orders);
        let back = adopted
            .iter()
            .filter(|(_, fate)| matches!(fate, Fate::Back(_)));
        let back = back.count();
        for (worker, fate) in adopted {
            match fate {
                Fate::Back(state) => self.rejoined(worker, state),
                // It drains by itself; the slot needs another.
                Fate::Drains => self.rejoined(worker, prefork_fleet::RejoinState::Draining),
                Fate::Hangs(rule) => self.feed(misbehaved(worker, rule)),
            }
        }
        let message = format!(
            "adopted {back} workers in {} ms",
            begun.elapsed().as_millis()
        );
        info!("{message}");
        self.journal.note("adopted", About::default(), message);
    }

    /// Whether nobody has, and nobody could bind, a listener of this process's.
    fn lacks_a_listener(&self, survivor: &Survivor) -> bool {
        let pool = self.pool_name(survivor.worker);
        let edition = self.editions.of(&pool, survivor.generation);
        edition.is_some_and(|it| it.sockets.iter().any(|sockets| sockets.all().is_empty()))
    }

    fn mourn(&mut self, gone: Vec<Survivor>) {
        for survivor in gone {
            let worker = survivor.worker;
            if survivor.pid.is_some() {
                for event in self.obituary(worker) {
                    self.feed(event);
                }
            } else {
                let error = "the supervisor was killed before it was started".to_owned();
                self.feed(Event::SpawnFailed { worker, error });
            }
        }
    }

    fn rejoined(&mut self, worker: Worker, state: prefork_fleet::RejoinState) {
        let actions = self.fleet.rejoined(self.now(), worker, state);
        self.offer_passages(worker);
        self.carry_out(actions);
    }

    /// What is to be said of a process that has gone unseen.
    fn obituary(&self, worker: Worker) -> [Event; 2] {
        let metrics = self
            .metrics
            .known_slot(&self.pool_name(worker), worker.slot);
        let requests = metrics.and_then(|metrics| metrics.requests_of(worker.incarnation));
        let exit = Death {
            requests,
            at_unix_ms: unix_ms(),
            ..Death::default()
        };
        let reason = UNKNOWN_EXIT.to_owned();
        [
            Event::Bye { worker, reason },
            Event::Exited { worker, exit },
        ]
    }

    /// Takes a living process over, with its channel if it came back.
    fn adopt(&mut self, mut living: Living) -> std::io::Result<()> {
        let outputs = living.take_outputs();
        let Living {
            survivor,
            pid,
            start_ticks,
            pidfd,
            hello,
            returned,
            withheld: _,
        } = living;
        let worker = survivor.worker;
        let edition = self
            .editions
            .of(&self.pool_name(worker), survivor.generation);
        let rejoin = self.keep.as_ref().map(|keep| keep.door.offer());
        // What it serves it has opened already: its settings are only for the record.
        let welcome = edition.map(|edition| {
            let app = edition.places.app(&edition.config);
            let app = app.unwrap_or_else(|_| edition.config.app.clone());
            spawn::welcome(edition, app, worker, survivor.generation, false, rejoin)
        });
        let heartbeat_timeout = edition.map_or(std::time::Duration::MAX, |edition| {
            edition.config.policy.heartbeat_timeout
        });
        let access_log = edition.and_then(|edition| edition.access_log.clone());
        let mut adopted = Adopted {
            worker,
            slot: self.slot_name(worker),
            pid,
            start_ticks,
            pidfd,
            hello,
            channel: None,
            board: None,
            requests: None,
            outputs,
            draining: false,
            tickets: edition.map_or_else(Vec::new, |edition| self.tickets_of(edition)),
            access_log,
            metrics: self.slot_metrics(worker),
            heartbeat_timeout,
        };
        if let Some((returned, welcome)) = returned.zip(welcome) {
            let board = returned.scoreboard.map(Board::adopt).transpose();
            match board {
                Ok(board) => adopted.board = board,
                Err(error) => {
                    warn!(slot = %adopted.slot, pid, "its scoreboard is not used: {error}");
                }
            }
            match returned.requests.map(Table::adopt).transpose() {
                Ok(requests) => adopted.requests = requests,
                Err(error) => {
                    warn!(slot = %adopted.slot, pid, "its requests are not shown: {error}");
                }
            }
            let said = returned.rejoin;
            adopted.draining = said.state == RejoinState::Draining;
            adopted.hello = Some(Hello {
                protocol: said.protocol,
                pid: said.pid,
                program: said.program,
                version: said.version,
                capabilities: said.capabilities,
            });
            adopted.channel = Some((returned.channel, welcome));
        }
        let grip = task::adopt(adopted, self.ties.clone())?;
        self.hold(worker, grip);
        Ok(())
    }

    /// Ends the undoing of a reload once every worker is of the generation in
    /// force again: what only the other one had is closed.
    pub(in crate::reactor) fn finish_undoing(&mut self) {
        if !self.undoing || !self.fleet.is_uniform() {
            return;
        }
        self.undoing = false;
        let orphans = self.editions.keep_only(self.fleet.generation());
        self.retire_all(orphans);
    }
}

/// What a worker says of itself, in the fleet's words.
fn state_of(said: RejoinState) -> prefork_fleet::RejoinState {
    match said {
        RejoinState::Ready => prefork_fleet::RejoinState::Ready,
        RejoinState::Paused => prefork_fleet::RejoinState::Paused,
        RejoinState::Draining => prefork_fleet::RejoinState::Draining,
    }
}

/// What has become of a process that lives.
enum Fate {
    /// It came back, and says what it does.
    Back(prefork_fleet::RejoinState),
    /// It can't come back.
    Drains,
    /// It could have come back, or should never have been seen.
    Hangs(&'static str),
}

impl Fate {
    fn of(living: &Living) -> Self {
        match &living.returned {
            Some(_) if living.withheld => Self::Hangs(WITHHELD),
            Some(returned) => Self::Back(state_of(returned.rejoin.state)),
            None if living.survivor.starting => Self::Hangs(STARTING),
            None if living.can_return() => Self::Hangs(ABSENT),
            None => Self::Drains,
        }
    }
}

fn misbehaved(worker: Worker, rule: &str) -> Event {
    let rule = rule.to_owned();
    Event::Misbehaved { worker, rule }
}

/// The editions that are in force or have processes, the older first.
fn set_up(
    saved: Vec<SavedEdition>,
    in_force: u64,
    living: &[Living],
    mut stock: Stock,
    nofile: u64,
) -> Result<Vec<(u64, Edition)>, PoolError> {
    let mut editions = Vec::new();
    for saved in saved {
        let SavedEdition {
            generation,
            pinned,
            config,
            ..
        } = &saved;
        let (generation, pinned) = (*generation, *pinned);
        let worker = living
            .iter()
            .filter(|it| it.survivor.generation == generation && !it.survivor.starting)
            .find(|it| {
                let returned = it.returned.as_ref();
                returned.is_some_and(|it| it.rejoin.pool == config.policy.name)
            });
        if generation != in_force && worker.is_none() {
            continue;
        }
        let running = worker.filter(|_| pinned).map(|it| it.pid);
        editions.push((generation, restored(saved, nofile, running, &mut stock)?));
    }
    Ok(editions)
}

fn restored(
    saved: SavedEdition,
    nofile: u64,
    running: Option<i32>,
    stock: &mut Stock,
) -> Result<Edition, PoolError> {
    let SavedEdition {
        config,
        places,
        files,
        ..
    } = saved;
    let places = Places::restore(places, &config);
    let program = PinnedProgram::pin_running(&config, &places, nofile, running, files)?;
    let name = config.policy.name.clone();
    let mut sockets = Vec::new();
    for listen in &config.listen {
        sockets.push(stock.sockets(&name, listen));
    }
    Edition::of(config, (program, places), sockets)
}
