//! Every edition that a process may still have to be started from: the
//! generation in force, and beside it the one that a reload brings.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::config;
use crate::reactor::generation::access_log::AccessLog;
use crate::reactor::generation::revision::Edition;
use crate::reactor::listeners::sockets::Sockets;
use crate::recovery::state::SavedEdition;
use crate::upgrade::HandedProgram;

/// Editions by pool and generation.
#[derive(Debug, Default)]
pub(crate) struct Editions {
    pools: BTreeMap<Rc<str>, BTreeMap<u64, Rc<Edition>>>,
    /// Pools of a generation that could not be set up, for want of their address
    /// or their files: it is tried again when a worker is to be started.
    deferred: BTreeMap<Rc<str>, (u64, config::Pool)>,
}

impl Editions {
    /// What a generation's workers of a pool run.
    pub(crate) fn of(&self, pool: &str, generation: u64) -> Option<&Rc<Edition>> {
        self.pools.get(pool)?.get(&generation)
    }

    /// A pool's editions of other generations than this one.
    pub(crate) fn but(&self, pool: &str, generation: u64) -> impl Iterator<Item = &Rc<Edition>> {
        let generations = self.pools.get(pool).into_iter().flatten();
        generations.filter_map(move |(of, edition)| (*of != generation).then_some(edition))
    }

    /// Every edition of a generation.
    pub(crate) fn of_generation(&self, generation: u64) -> impl Iterator<Item = &Rc<Edition>> {
        let pools = self.pools.values();
        pools.filter_map(move |generations| generations.get(&generation))
    }

    /// Every edition.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Rc<Edition>> {
        self.pools.values().flat_map(BTreeMap::values)
    }

    /// The newest edition of each pool.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Rc<Edition>> {
        self.pools
            .values()
            .filter_map(|generations| generations.values().next_back())
    }

    /// Every edition's access log.
    pub(crate) fn access_logs(&self) -> impl Iterator<Item = &Rc<AccessLog>> {
        let editions = self.pools.values().flat_map(BTreeMap::values);
        editions.filter_map(|edition| edition.access_log.as_ref())
    }

    /// What the next supervisor has to know of them.
    pub(crate) fn save(&self) -> Vec<SavedEdition> {
        let generations = self.pools.values().flatten();
        let saved = generations.map(|(generation, edition)| SavedEdition {
            generation: *generation,
            pinned: edition.program.is_pinned(),
            config: edition.config.clone(),
            places: edition.places.save(),
            files: edition.program.files().to_vec(),
        });
        saved.collect()
    }

    /// Every pinned program, for the program that takes this one's place.
    pub(crate) fn hand_over(&self) -> Vec<HandedProgram> {
        let mut programs = Vec::new();
        for (pool, generations) in &self.pools {
            for (generation, edition) in generations {
                programs.push(edition.program.hand_over(pool, *generation));
            }
        }
        programs
    }

    /// Leaves a pool to be set up later.
    pub(crate) fn defer(&mut self, generation: u64, config: config::Pool) {
        let name = config.policy.name.as_str().into();
        self.deferred.insert(name, (generation, config));
    }

    /// What is still to be set up for workers of a generation of a pool.
    pub(crate) fn deferred(&self, pool: &str, generation: u64) -> Option<&config::Pool> {
        let (of, config) = self.deferred.get(pool)?;
        (*of == generation).then_some(config)
    }

    /// Adds a generation.
    pub(crate) fn add(&mut self, generation: u64, editions: Vec<Rc<Edition>>) {
        for edition in editions {
            let generations = self.pools.entry(Rc::clone(&edition.name)).or_default();
            if self
                .deferred
                .get(&edition.name)
                .is_some_and(|it| it.0 == generation)
            {
                self.deferred.remove(&edition.name);
            }
            generations.insert(generation, edition);
        }
    }

    /// The editions that have a listener, with their generations.
    pub(crate) fn that_have<'a>(
        &'a self,
        sockets: &'a Rc<Sockets>,
    ) -> impl Iterator<Item = (u64, &'a Rc<Edition>)> {
        let editions = self.pools.values().flatten();
        editions
            .filter(|(_, edition)| edition.has(sockets))
            .map(|(generation, edition)| (*generation, edition))
    }

    /// The generations of a pool that have a listener.
    pub(crate) fn generations_with(&self, pool: &str, sockets: &Rc<Sockets>) -> Vec<u64> {
        let generations = self.pools.get(pool).into_iter().flatten();
        generations
            .filter(|(_, edition)| edition.has(sockets))
            .map(|(generation, _)| *generation)
            .collect()
    }

    /// Every bound listener, with the pool that has it; once each.
    pub(crate) fn bound(&self) -> Vec<(Rc<str>, Rc<Sockets>)> {
        let mut bound: Vec<(Rc<str>, Rc<Sockets>)> = Vec::new();
        for edition in self.all() {
            for sockets in &edition.sockets {
                if !bound.iter().any(|(_, known)| Rc::ptr_eq(known, sockets)) {
                    bound.push((Rc::clone(&edition.name), Rc::clone(sockets)));
                }
            }
        }
        bound
    }

    /// Forgets every generation but this one. Returns the listeners that only
    /// the others had.
    pub(crate) fn keep_only(&mut self, generation: u64) -> Vec<(Rc<str>, Rc<Sockets>)> {
        self.deferred.retain(|_, (number, _)| *number == generation);
        let before = self.bound();
        for generations in self.pools.values_mut() {
            generations.retain(|number, _| *number == generation);
        }
        self.pools.retain(|_, generations| !generations.is_empty());
        let kept = self.bound();
        before
            .into_iter()
            .filter(|(_, sockets)| !kept.iter().any(|(_, known)| Rc::ptr_eq(known, sockets)))
            .collect()
    }
}
