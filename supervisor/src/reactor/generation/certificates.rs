//! Certificates and ticket keys on their way to the workers, and into the vault.

use std::time::SystemTime;

use prefork_fleet::Worker;
use prefork_proto::tls::TicketKey;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::config::{Listen, Pool};
use crate::reactor::Reactor;
use crate::reactor::generation::revision::Edition;
use crate::reactor::worker_process::handle::{Call, Order};
use crate::reactor::worker_process::task::Secrets;
use crate::tls::{Material, Vault};

impl Reactor {
    /// Warns of certificates that are used all the same.
    pub(in crate::reactor) fn warn_of_certificates(&self) {
        for warning in crate::config::warnings(&self.config, SystemTime::now()) {
            warn!("{warning}");
        }
    }

    /// The ticket keys of an edition's workers.
    pub(in crate::reactor) fn tickets_of(&self, edition: &Edition) -> Vec<TicketKey> {
        match (&self.tickets, &edition.tls) {
            (Some(tickets), Some(_)) => tickets.of_pool(&edition.name),
            _ => Vec::new(),
        }
    }

    /// What a process is to have that no document says.
    pub(in crate::reactor) fn secrets_of(&self, edition: Option<&Edition>) -> Secrets {
        let Some(edition) = edition else {
            return Secrets::default();
        };
        let certificates = edition.tls.as_ref().map(Material::copy).transpose();
        let certificates = certificates.unwrap_or_else(|error| {
            warn!(pool = %edition.name, "cannot hand over the certificates: {error}");
            None
        });
        Secrets {
            certificates,
            tickets: self.tickets_of(edition),
            check: None,
        }
    }

    /// Replaces the key that makes tickets when its time is over, and tells
    /// every worker.
    pub(in crate::reactor) fn replace_tickets(&mut self) {
        let Some(tickets) = &mut self.tickets else {
            return;
        };
        match tickets.replace(SystemTime::now()) {
            Ok(false) => return,
            Ok(true) => info!("the keys of session tickets have been replaced"),
            // The old ones are used until it can be done.
            Err(_) => return,
        }
        self.touch_state();
        for (worker, grip) in &self.processes {
            if let Some(edition) = self.started_from(*worker) {
                let keys = self.tickets_of(edition);
                if !keys.is_empty() {
                    grip.order(Order::Tickets(keys));
                }
            }
        }
    }

    /// What a process was started from.
    pub(in crate::reactor) fn started_from(&self, worker: Worker) -> Option<&Edition> {
        let generation = self.fleet.process(worker)?.generation();
        let edition = self.editions.of(&self.pool_name(worker), generation)?;
        Some(edition)
    }

    /// What has a process take the settings of another generation: the
    /// application's first, since only those may be refused.
    pub(in crate::reactor) fn calls_for(
        &self,
        worker: Worker,
        generation: u64,
    ) -> std::io::Result<Vec<Call>> {
        let pool = self.pool_name(worker);
        let Some(edition) = self.editions.of(&pool, generation) else {
            return Ok(vec![Call::Reload {
                app: serde_json::Value::default(),
            }]);
        };
        let differs = |differ: fn(&Pool, &Pool) -> bool| {
            let mut others = self.editions.but(&pool, generation);
            others.any(|other| differ(&other.config, &edition.config))
        };
        let mut calls = Vec::new();
        if differs(|one, other| one.app != other.app) {
            calls.push(Call::Reload {
                app: edition
                    .places
                    .app(&edition.config)
                    .map_err(std::io::Error::other)?,
            });
        }
        if let Some(material) = &edition.tls
            && differs(|one, other| one.listen != other.listen)
        {
            calls.push(Call::Certificates(material.copy()?));
        }
        Ok(calls)
    }

    /// Hands a worker the certificates of a listener that it does not have itself
    /// and of which it is to serve the queue.
    pub(in crate::reactor) fn certify_for(&self, worker: Worker, listen: &Listen) {
        let known = |edition: &Edition| {
            let mut listeners = edition.config.listen.iter();
            listeners.any(|it| it.name == listen.name && it.tls.is_some())
        };
        if listen.tls.is_none() || self.started_from(worker).is_some_and(known) {
            return;
        }
        let material = Material::of(std::slice::from_ref(listen));
        let Ok(Some(material)) = material else { return };
        let (Ok(copy), Some(grip)) = (material.copy(), self.processes.get(&worker)) else {
            return;
        };
        // Where it is refused, so is the queue, which is told of.
        let (answer, _) = oneshot::channel();
        grip.order(Order::Call(Call::Certificates(copy), answer));
    }

    /// Writes down what a supervisor after this one could not find in the files.
    pub(in crate::reactor) fn keep_secrets(&mut self) {
        let (Some(keep), Some(tickets)) = (&mut self.keep, &mut self.tickets) else {
            return;
        };
        let editions = self.editions.all();
        keep.vault
            .keep(editions.flat_map(|it| it.config.certificates()), tickets);
    }
}

/// Gives pools that were read from a state their private keys back.
pub(in crate::reactor) fn fill<'a>(
    vault: Option<&Vault>,
    pools: impl IntoIterator<Item = &'a mut Pool>,
) {
    if let Some(vault) = vault {
        for pool in pools {
            vault.fill(pool, &[]);
        }
    }
}
