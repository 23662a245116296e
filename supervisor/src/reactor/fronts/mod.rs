//! Fronts and the pools behind them: which worker of a pool behind may be sent to, what
//! every front knows of that, and in which order a worker behind leaves.
//!
//! What a front is to know follows from the fleet: after everything that happens the
//! `table` of each pool behind is made anew and told where it has changed. A worker
//! behind that is to drain is a `departure`: it is told only when every front that lives
//! has answered that nothing of its own is in flight there.

mod answers;
mod departure;
mod table;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use answers::Counted;
use departure::Departures;
use prefork_api::SlotState;
use prefork_fleet::Worker;
use prefork_proto::message::PlacesOffer;
use prefork_proto::places::{self, Ledger, PlacesError};
use prefork_proto::upstream_counts::Answers;
use tracing::warn;

use super::Reactor;
use crate::reactor::worker_process::handle::{Grip, Order};

pub(crate) use table::Table;

/// Fronts, and what they know.
#[derive(Debug)]
pub(super) struct Fronts {
    /// By the pool's name.
    behind: BTreeMap<Rc<str>, Behind>,
    departures: Departures,
    /// Whether something has happened since the tables were made.
    touched: bool,
}

/// A pool behind.
#[derive(Debug, Default)]
struct Behind {
    /// Where its fronts count; none where the kernel gives no memory for it: then each
    /// counts by itself.
    ledger: Option<Ledger>,
    /// The processes that forward to it, each with its row if it has one.
    fronts: BTreeMap<Worker, Option<u32>>,
    /// What they have counted.
    counted: Counted,
    /// What they were told last.
    told: Option<Rc<Table>>,
}

impl Default for Fronts {
    fn default() -> Self {
        Self {
            behind: BTreeMap::new(),
            departures: Departures::default(),
            // Those that are there from before are to be told.
            touched: true,
        }
    }
}

impl Fronts {
    /// When there is something to do though nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.departures.due()
    }

    /// Something has happened that fronts may have to know.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// A process has been reaped: what it had at pools behind it has nobody now.
    pub(super) fn ended(&mut self, worker: Worker) {
        self.departures.ended(worker);
        for (pool, behind) in &mut self.behind {
            behind.counted.ended(worker);
            let row = behind.fronts.remove(&worker).flatten();
            if let (Some(row), Some(ledger)) = (row, &mut behind.ledger)
                && let Err(error) = ledger.clear(row)
            {
                warn!(%pool, "what a front had there counts on: {error}");
            }
        }
        self.touch();
    }
}

impl Behind {
    /// Takes a process in that forwards to this pool; where it is to count what.
    fn admit(&mut self, pool: &Rc<str>, front: Worker) -> impl Iterator<Item = Order> + use<> {
        let places = self.places(pool, front);
        let counts = self.counted.admit(pool, front);
        places.into_iter().chain(counts)
    }

    fn places(&mut self, pool: &Rc<str>, front: Worker) -> Option<Order> {
        let offered = self.seat(pool);
        let row = match &offered {
            Ok(offered) => offered.as_ref().map(|(offer, _)| offer.row),
            Err(error) => {
                warn!(%pool, "a front counts by itself: {error}");
                None
            }
        };
        self.fronts.insert(front, row);
        let (offer, memory) = offered.ok().flatten()?;
        Some(Order::Places(offer, memory))
    }

    /// A row for another front, if there is one left.
    fn seat(&mut self, pool: &str) -> Result<Option<(PlacesOffer, OwnedFd)>, PlacesError> {
        if self.ledger.is_none() {
            self.ledger = Some(Ledger::create()?);
        }
        let Some(ledger) = &mut self.ledger else {
            return Ok(None);
        };
        let memory = ledger.duplicate()?;
        let Some(row) = ledger.take()? else {
            return Ok(None);
        };
        Ok(Some((places::offer(pool, row), memory)))
    }
}

impl Reactor {
    /// Has every front know what it is to know by now, and goes on with the departures
    /// that this makes possible.
    pub(super) fn see_to_fronts(&mut self) {
        if !std::mem::take(&mut self.fronts.touched) {
            return;
        }
        let pools: Vec<Rc<str>> = self.pools_behind();
        for pool in &pools {
            self.admit_fronts(pool);
            self.go_on_with_departures(pool);
            self.tell_fronts(pool);
            self.ask_fronts(pool);
        }
        let fronts = &mut self.fronts;
        fronts.behind.retain(|pool, _| pools.contains(pool));
    }

    /// Every pool that takes requests from fronts, by its editions or its processes.
    fn pools_behind(&self) -> Vec<Rc<str>> {
        let editions = self.editions.all().filter(|it| it.config.is_behind());
        let mut pools: Vec<_> = editions.map(|edition| Rc::clone(&edition.name)).collect();
        let processes = self.processes.iter();
        let upstream = processes.filter(|(_, grip)| grip.upstream.is_some());
        pools.extend(upstream.map(|(worker, _)| self.pool_name(*worker)));
        pools.sort_unstable();
        pools.dedup();
        pools
    }

    /// Takes in the processes that forward to a pool and were not told of it yet.
    fn admit_fronts(&mut self, pool: &Rc<str>) {
        let known = self.fronts.behind.get(pool).map(|behind| &behind.fronts);
        let is_unknown = |it: &Worker| known.is_none_or(|known| !known.contains_key(it));
        let is_front = |it: &Worker| {
            self.started_from(*it)
                .is_some_and(|edition| edition.config.is_before(pool))
        };
        let living = self.processes.keys().copied();
        let fronts: Vec<Worker> = living.filter(is_unknown).filter(is_front).collect();
        for front in fronts {
            let behind = self.fronts.behind.entry(Rc::clone(pool)).or_default();
            let orders = behind.admit(pool, front);
            let told = behind.told.clone();
            if let Some(grip) = self.processes.get(&front) {
                orders.for_each(|order| grip.order(order));
                told.into_iter()
                    .for_each(|table| grip.order(Order::Upstreams(table)));
            }
        }
    }

    /// Tells a pool's fronts its table, if it has changed.
    fn tell_fronts(&mut self, pool: &Rc<str>) {
        let open = self.open(pool);
        let table = self.table(pool, &open);
        let Some(behind) = self.fronts.behind.get_mut(pool) else {
            return;
        };
        if behind.told.as_deref() == Some(&table) {
            return;
        }
        for worker in open {
            behind.counted.begin(worker);
        }
        let table = Rc::new(table);
        behind.told = Some(Rc::clone(&table));
        for front in behind.fronts.keys() {
            if let Some(grip) = self.processes.get(front) {
                grip.order(Order::Upstreams(Rc::clone(&table)));
            }
        }
    }

    fn table(&self, pool: &Rc<str>, open: &[Worker]) -> Table {
        let departures = &self.fronts.departures;
        let open = open.iter().map(|worker| (*worker, false));
        let departing = departures.of(|worker| self.pool_name(worker) == *pool);
        let workers = open.chain(departing).filter_map(|(worker, leaving)| {
            let address = self.processes.get(&worker)?.upstream.as_ref()?.to_string();
            Some(table::entry(worker, address, leaving))
        });
        let mut workers: Vec<_> = workers.collect();
        workers.sort_unstable_by_key(|entry| (entry.slot, entry.incarnation));
        Table {
            pool: Rc::clone(pool),
            concurrency: self.concurrency(pool),
            workers,
        }
    }

    /// The workers of a pool that take requests and are not to leave.
    fn open(&self, pool: &str) -> Vec<Worker> {
        let slots = self.fleet.pools().filter(|it| it.name() == pool);
        let processes = slots
            .flat_map(|it| it.slots())
            .flat_map(|it| it.processes());
        let ready = processes.filter(|process| process.state() == SlotState::Ready);
        let workers = ready.map(|process| process.worker());
        workers
            .filter(|it| !self.fronts.departures.has(*it))
            .collect()
    }

    /// Requests that a worker of a pool gets at a time.
    fn concurrency(&self, pool: &str) -> u32 {
        let edition = self.editions.of(pool, self.fleet.generation());
        let newest = || self.editions.newest().find(|it| &*it.name == pool);
        let adapter = edition
            .or_else(newest)
            .and_then(|it| it.config.adapter.as_ref());
        adapter.map_or(0, |adapter| adapter.concurrency)
    }

    /// What a worker of a pool behind has answered; `None` where it is none, or nobody
    /// counts that.
    pub(super) fn answered(&self, worker: Worker) -> Option<Answers> {
        let behind = self.fronts.behind.get(&*self.pool_name(worker))?;
        behind.counted.of(worker)
    }

    /// The grips of a pool's fronts.
    fn fronts_of(&self, pool: &str) -> Vec<&Grip> {
        let behind = self.fronts.behind.get(pool);
        let fronts = behind.into_iter().flat_map(|behind| behind.fronts.keys());
        fronts
            .filter_map(|front| self.processes.get(front))
            .collect()
    }
}
