//! The order in which a worker behind leaves: it gets no more requests, then it ends
//! those that it has, then it is told.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use prefork_fleet::{Action, Event, Worker};
use prefork_proto::message::Vacate;
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};

use crate::reactor::Reactor;
use crate::reactor::worker_process::handle::{Call, Order};

/// How much of a drain's time fronts may take; the rest is the program's own.
const FRONTS_SHARE: f64 = 0.8;

/// How soon fronts have noticed surely that a worker gets no more requests, whatever
/// those take that it has.
const NOTICED: Duration = Duration::from_secs(1);

/// The workers behind that are to leave, until they have.
#[derive(Debug, Default)]
pub(super) struct Departures(BTreeMap<Worker, Departure>);

#[derive(Debug, Clone, Copy)]
struct Departure {
    stage: Stage,
    /// When it is told, whatever fronts say.
    fronts_until: Instant,
    /// When its time is over.
    until: Instant,
    sweep: bool,
}

/// How far a departure has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is nobody yet who would take its requests: it still gets some.
    Held,
    /// It gets no more requests from the next table on, and fronts are to be asked.
    Closing,
    /// Fronts are asked, or it is told already.
    Asked,
}

impl Departures {
    /// When the fronts' share of a departure is over that nobody was asked about yet.
    pub(super) fn due(&self) -> Option<Instant> {
        let held = self.0.values().filter(|it| it.stage == Stage::Held);
        held.map(|it| it.fronts_until).min()
    }

    /// Whether a worker is to leave.
    pub(super) fn has(&self, worker: Worker) -> bool {
        self.0.contains_key(&worker)
    }

    /// A process has been reaped.
    pub(super) fn ended(&mut self, worker: Worker) {
        self.0.remove(&worker);
    }

    /// Those of some workers, and whether each gets no more requests.
    pub(super) fn of(
        &self,
        is_one: impl Fn(Worker) -> bool,
    ) -> impl Iterator<Item = (Worker, bool)> {
        let workers = self.0.iter().filter(move |(worker, _)| is_one(**worker));
        workers.map(|(worker, it)| (*worker, it.stage != Stage::Held))
    }

    fn begin(&mut self, worker: Worker, within: Duration, sweep: bool) {
        let now = Instant::now();
        let departure = Departure {
            stage: Stage::Held,
            fronts_until: now + within.mul_f64(FRONTS_SHARE),
            until: now + within,
            sweep,
        };
        self.0.insert(worker, departure);
    }
}

impl Departure {
    fn drain(self) -> Order {
        Order::Drain {
            within: self.until.saturating_duration_since(Instant::now()),
            sweep: self.sweep,
            // It has none: clients are connected to the fronts.
            pass_on: Vec::new(),
        }
    }
}

impl Reactor {
    /// Has a worker drain; one that takes requests from fronts, once they have nothing
    /// there any more.
    pub(in crate::reactor) fn drain(&mut self, worker: Worker, within: Duration) {
        let sweep = self.is_last_to_accept(worker);
        let Some(grip) = self.processes.get(&worker) else {
            return;
        };
        if grip.upstream.is_none() {
            let pass_on = self.listeners_to_pass_on(worker);
            return grip.order(Order::Drain {
                within,
                sweep,
                pass_on,
            });
        }
        self.fronts.departures.begin(worker, within, sweep);
        self.fronts.touch();
    }

    /// Goes on with the departures that the program before this one had begun: all but
    /// those of workers that were told already.
    pub(in crate::reactor) fn go_on_asking_fronts(&mut self, told: &[Worker]) {
        for action in self.fleet.repeat_orders(self.now()) {
            if let Action::Drain { worker, within } = action
                && !told.contains(&worker)
                && self
                    .processes
                    .get(&worker)
                    .is_some_and(|it| it.upstream.is_some())
            {
                self.drain(worker, within);
            }
        }
    }

    /// Closes the workers that are to leave, as far as others take their requests.
    /// When everything stops, those are the fronts' last, and no others come.
    pub(super) fn go_on_with_departures(&mut self, pool: &Rc<str>) {
        let has_others = !self.fleet.stopping() && !self.open(pool).is_empty();
        let has_fronts = !self.fronts_of(pool).is_empty();
        let now = Instant::now();
        for worker in self.departing(pool, Stage::Held) {
            let departures = &mut self.fronts.departures.0;
            let Some(departure) = departures.get_mut(&worker) else {
                continue;
            };
            if has_others || !has_fronts || now >= departure.fronts_until {
                departure.stage = Stage::Closing;
            }
        }
    }

    /// Asks the fronts, which know by now that they are to leave it alone, until when they
    /// have something at a worker that is to leave; then tells it.
    pub(super) fn ask_fronts(&mut self, pool: &Rc<str>) {
        for worker in self.departing(pool, Stage::Closing) {
            let answers = self.ask_to_vacate(pool, worker);
            let departures = &mut self.fronts.departures.0;
            let (Some(departure), Some(grip)) =
                (departures.get_mut(&worker), self.processes.get(&worker))
            else {
                continue;
            };
            departure.stage = Stage::Asked;
            let (departure, orders) = (*departure, grip.orders.clone());
            let events = self.ties.events.clone();
            tokio::task::spawn_local(async move {
                let vacated = async {
                    for answer in answers {
                        // A front that has ended has nothing anywhere.
                        let _ = answer.await;
                    }
                };
                let mut vacated = pin!(vacated);
                let soon = timeout(NOTICED, &mut vacated).await;
                // The reactor drops its end only when it ends itself.
                let _ = events.send(Event::Shut { worker }).await;
                if soon.is_err() {
                    let _ = timeout_at(departure.fronts_until.into(), vacated).await;
                }
                // One that has ended by itself hears nothing.
                let _ = orders.send(departure.drain());
            });
        }
    }

    fn ask_to_vacate(
        &self,
        pool: &Rc<str>,
        worker: Worker,
    ) -> Vec<oneshot::Receiver<crate::reactor::worker_process::protocol::Answer>> {
        let ask = |grip: &crate::reactor::Grip| {
            let (answer, answered) = oneshot::channel();
            let whom = Vacate {
                id: 0,
                pool: pool.to_string(),
                slot: worker.slot,
                incarnation: worker.incarnation,
            };
            grip.order(Order::Call(Call::Vacate(whom), answer));
            answered
        };
        self.fronts_of(pool).into_iter().map(ask).collect()
    }

    /// The workers of a pool whose departure has come so far.
    fn departing(&self, pool: &Rc<str>, stage: Stage) -> Vec<Worker> {
        let departures = self.fronts.departures.0.iter();
        let there = departures.filter(|(_, it)| it.stage == stage);
        let workers = there.map(|(worker, _)| *worker);
        workers.filter(|it| self.pool_name(*it) == *pool).collect()
    }
}
