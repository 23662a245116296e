//! Going on where the program before this one left off, in the same process:
//! nothing is started, nothing is asked again.

use std::collections::HashMap;
use std::time::Duration;

use prefork_fleet::{Snapshot, Time, Worker};
use tracing::{error, info};

use crate::kernel::sys::claim;
use crate::reactor::generation::directories::Places;
use crate::reactor::generation::history::{Executables, PastGenerations};
use crate::reactor::generation::program::PinnedProgram;
use crate::reactor::generation::revision::{Edition, PoolError};
use crate::reactor::handover::listener_stock::Stock;
use crate::reactor::observe::events::About;
use crate::reactor::worker_process::task::{self, Check, Secrets};
use crate::reactor::{Inbox, Reactor, Setup};
use crate::recovery::state::SavedEdition;
use crate::upgrade::{HandedProcess, HandedProgram, Handover};

impl Reactor {
    /// Goes on from what the program before this one handed over.
    pub(crate) fn take_over(
        setup: Setup,
        handover: Handover<Snapshot>,
    ) -> Result<(Self, Inbox), PoolError> {
        let mut state = handover.state;
        let held = handover.listeners.iter();
        let held = held.map(|it| (it.cookie, claim(it.fd))).collect();
        let passages = handover.listeners.iter();
        let passages = passages.filter_map(|it| Some((it.cookie, claim(it.passage?))));
        let mut stock = Stock::new(std::mem::take(&mut state.listeners), held);
        stock.keep_passages(passages.collect());
        let programs = handover.programs;
        let mut editions = std::mem::take(&mut state.editions);
        if let Some(keep) = &setup.keep {
            for edition in &mut editions {
                keep.vault.fill(&mut edition.config, &handover.secrets);
            }
        }
        let mut executables = Executables::default();
        let editions = go_on_with(
            editions,
            programs,
            &mut stock,
            setup.nofile,
            &mut executables,
        )?;
        let keys = setup
            .keep
            .as_ref()
            .map(|keep| (&keep.vault, &*handover.secrets));
        let history = PastGenerations::go_on(handover.kept, setup.nofile, &mut executables, keys);
        let (mut reactor, inbox) = Self::go_on_from(setup, state, editions);
        reactor.reloads.history = history;
        reactor.began = Time(handover.began);
        reactor.journal.restore(handover.events);
        let metrics = reactor.metrics.supervisor();
        metrics.same_process(handover.started_at);
        metrics.upgraded();
        let processes = handover.processes.len();
        let told = handover.processes.iter().filter(|it| it.talk.draining);
        let told: Vec<Worker> = told.map(|it| it.worker).collect();
        for handed in handover.processes {
            reactor.go_on_with_process(handed);
        }
        let living: Vec<Worker> = reactor.processes.keys().copied().collect();
        for worker in living {
            reactor.offer_passages(worker);
        }
        reactor.go_on_asking_fronts(&told);
        let message = format!(
            "version {} took over {processes} processes",
            env!("CARGO_PKG_VERSION")
        );
        info!("upgrade: {message}");
        reactor.journal.note("upgraded", About::default(), message);
        reactor.reap_strangers();
        Ok((reactor, inbox))
    }

    fn go_on_with_process(&mut self, handed: HandedProcess) {
        let worker = handed.worker;
        let slot = self.slot_name(worker);
        let generation = self.fleet.process(worker).map(|it| it.generation());
        let edition = generation.and_then(|it| self.editions.of(&slot.pool, it));
        let heartbeat_timeout = edition.map_or(Duration::MAX, |edition| {
            edition.config.policy.heartbeat_timeout
        });
        let address = self.upstreams.known(handed.pid).cloned();
        let check = edition.and_then(|edition| Check::of(&edition.config, address));
        let secrets = Secrets {
            check,
            ..self.secrets_of(edition.map(|edition| &**edition))
        };
        let access_log = edition.and_then(|edition| edition.access_log.clone());
        let metrics = self.slot_metrics(worker);
        match task::resume(
            handed,
            slot,
            access_log,
            metrics,
            heartbeat_timeout,
            secrets,
            self.ties.clone(),
        ) {
            Ok(grip) => {
                self.hold(worker, grip);
            }
            // It loses its channel with this, and comes back as an orphan would.
            Err(error) => {
                error!(slot = %self.slot_name(worker), "cannot go on with a worker: {error}");
            }
        }
    }
}

/// The editions with the very programs and sockets that they had.
fn go_on_with(
    saved: Vec<SavedEdition>,
    programs: Vec<HandedProgram>,
    stock: &mut Stock,
    nofile: u64,
    executables: &mut Executables,
) -> Result<Vec<(u64, Edition)>, PoolError> {
    let of = |it: HandedProgram| ((it.pool.clone(), it.generation), it);
    let mut programs: HashMap<_, _> = programs.into_iter().map(of).collect();
    let mut editions = Vec::new();
    for SavedEdition {
        generation,
        config,
        places,
        files,
        ..
    } in saved
    {
        let name = config.policy.name.clone();
        let handed = programs.remove(&(name.clone(), generation));
        let places = Places::restore(places, &config);
        let program = PinnedProgram::go_on(&config, &places, nofile, handed, files, executables)?;
        let mut sockets = Vec::new();
        for listen in &config.listen {
            sockets.push(stock.sockets(&name, listen));
        }
        editions.push((generation, Edition::of(config, (program, places), sockets)?));
    }
    Ok(editions)
}
