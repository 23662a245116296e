//! The generations that were in force before, with what was pinned of them: what a
//! rollback by hand puts in force again.
//!
//! Their listeners are not among it: an address that a reload gave up is free for
//! others, and is bound again when its generation comes back.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use tracing::warn;

use crate::config::{self, Config};
use crate::kernel::sys::claim;
use crate::reactor::generation::directories::Places;
use crate::reactor::generation::program::PinnedProgram;
use crate::reactor::generation::revision::Edition;
use crate::recovery::state::SavedEdition;
use crate::tls::{Certificate, Secret, Vault};
use crate::upgrade::{HandedGeneration, HandedProgram};

/// How many generations before the one in force are kept. Each holds a descriptor of its
/// program and of two directories for each pool that was another.
const KEPT: usize = 3;

/// What of a pool is pinned when its generation begins.
pub(crate) type Pinned = (Rc<PinnedProgram>, Rc<Places>);

/// A generation that was in force.
#[derive(Debug)]
pub(crate) struct Past {
    generation: u64,
    config: Config,
    pinned: BTreeMap<String, Pinned>,
}

impl Past {
    /// What a generation is whose editions these are.
    pub(crate) fn of<'a>(
        generation: u64,
        config: &Config,
        editions: impl Iterator<Item = &'a Rc<Edition>>,
    ) -> Self {
        let editions: HashMap<&str, &Rc<Edition>> = editions.map(|it| (&*it.name, it)).collect();
        let mut config = config.clone();
        for pool in &mut config.pools {
            if let Some(edition) = editions.get(&*pool.policy.name) {
                // It has the private keys, which the configuration may have without.
                *pool = edition.config.clone();
            }
        }
        let pinned = editions.into_iter().map(|(name, edition)| {
            let pinned = (Rc::clone(&edition.program), Rc::clone(&edition.places));
            (name.to_owned(), pinned)
        });
        Self {
            generation,
            config,
            pinned: pinned.collect(),
        }
    }

    /// Its number.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Its configuration, with the certificates in force wherever it names the same files:
    /// one that was renewed since is not taken back.
    pub(crate) fn renewed<'a>(&self, in_force: impl Iterator<Item = &'a Certificate>) -> Config {
        let in_force: Vec<&Certificate> = in_force.collect();
        let mut config = self.config.clone();
        for certificate in config
            .pools
            .iter_mut()
            .flat_map(config::Pool::certificates_mut)
        {
            let newer = in_force.iter().find(|it| it.is_of_files_of(certificate));
            if let Some(newer) = newer {
                certificate.clone_from(newer);
            }
        }
        config
    }

    /// What is pinned of a pool; none of one that never came up.
    pub(crate) fn pinned(&self, pool: &str) -> Option<&Pinned> {
        self.pinned.get(pool)
    }

    /// Why it can't be as it was, where what could not be pinned has become another or
    /// is gone.
    pub(crate) fn loss(&self) -> Option<String> {
        self.pinned.iter().find_map(|(pool, (program, places))| {
            let why = match program.lost_file() {
                Some(path) => format!(
                    "{} was changed or removed since, and what an interpreter reads can't be pinned",
                    path.display()
                ),
                None => places.loss()?,
            };
            Some(format!("pool {pool}: {why}"))
        })
    }

    /// Whether to go from one to the other would change nothing.
    fn is_alike(&self, other: &Self) -> bool {
        self.renewed(other.config.certificates()) == other.config
            && self.pinned.len() == other.pinned.len()
            && self.pinned.iter().all(|(pool, pinned)| {
                let other = other.pinned.get(pool);
                other.is_some_and(|other| are_alike(pinned, other))
            })
    }

    /// Holds nothing twice of which the next generation has the very same.
    fn share_with(&mut self, next: &Self) {
        for (pool, pinned) in &mut self.pinned {
            if let Some(theirs) = next.pinned.get(pool)
                && are_alike(pinned, theirs)
                && self.config.pool(pool) == next.config.pool(pool)
            {
                pinned.clone_from(theirs);
            }
        }
    }

    fn hand_over(&self) -> HandedGeneration {
        let editions = self.pinned.iter().filter_map(|(pool, (program, places))| {
            Some(SavedEdition {
                generation: self.generation,
                pinned: program.is_pinned(),
                config: self.config.pool(pool)?.clone(),
                places: places.save(),
                files: program.files().to_vec(),
            })
        });
        let programs = self.pinned.iter();
        let programs =
            programs.map(|(pool, (program, _))| program.hand_over(pool, self.generation));
        HandedGeneration {
            generation: self.generation,
            config: self.config.clone(),
            editions: editions.collect(),
            programs: programs.collect(),
        }
    }

    fn go_on(
        handed: HandedGeneration,
        nofile: u64,
        executables: &mut Executables,
        keys: Option<(&Vault, &[Secret])>,
    ) -> Self {
        let mut programs: HashMap<String, HandedProgram> = HashMap::new();
        for program in handed.programs {
            programs.insert(program.pool.clone(), program);
        }
        let mut config = handed.config;
        let mut pinned = BTreeMap::new();
        for saved in handed.editions {
            let pool = saved.config.policy.name.clone();
            let program = programs.remove(&pool);
            match go_on_with(saved, program, nofile, executables) {
                Ok(it) => drop(pinned.insert(pool, it)),
                Err(why) => warn!(
                    pool,
                    "generation {} is not kept whole: {why}", handed.generation
                ),
            }
        }
        if let Some((vault, secrets)) = keys {
            for pool in &mut config.pools {
                vault.fill(pool, secrets);
            }
        }
        Self {
            generation: handed.generation,
            config,
            pinned,
        }
    }
}

fn go_on_with(
    saved: SavedEdition,
    program: Option<HandedProgram>,
    nofile: u64,
    executables: &mut Executables,
) -> Result<Pinned, String> {
    let config: config::Pool = saved.config;
    let places = Places::restore(saved.places, &config);
    let program = PinnedProgram::go_on(&config, &places, nofile, program, saved.files, executables)
        .map_err(|error| error.to_string())?;
    Ok((Rc::new(program), Rc::new(places)))
}

fn are_alike((program, places): &Pinned, (other, others): &Pinned) -> bool {
    program.is_same_file(other) && places.are_alike(others)
}

/// The generations before the one in force.
#[derive(Debug, Default)]
pub(crate) struct PastGenerations {
    /// The oldest first.
    kept: Vec<Past>,
}

impl PastGenerations {
    /// Keeps a generation that another has followed, and forgets the one that has come
    /// back by that. One that was no other than its successor is nothing to go back to.
    pub(crate) fn follow(&mut self, mut before: Past, now: &Past, back_to: Option<u64>) {
        self.kept.retain(|past| Some(past.generation) != back_to);
        if before.is_alike(now) {
            return;
        }
        before.share_with(now);
        self.kept.push(before);
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    /// The last one, or the one of this number.
    pub(crate) fn find(&self, generation: Option<u64>) -> Option<&Past> {
        match generation {
            Some(number) => self.kept.iter().find(|past| past.generation == number),
            None => self.kept.last(),
        }
    }

    /// Their numbers, the last first.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().rev().map(Past::generation)
    }

    /// Every certificate of theirs.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.kept.iter().flat_map(|past| past.config.certificates())
    }

    /// All of them, for the program that takes this one's place.
    pub(crate) fn hand_over(&self) -> Vec<HandedGeneration> {
        self.kept.iter().map(Past::hand_over).collect()
    }

    /// Goes on with those that the program before this one had kept.
    pub(crate) fn go_on(
        handed: Vec<HandedGeneration>,
        nofile: u64,
        executables: &mut Executables,
        keys: Option<(&Vault, &[Secret])>,
    ) -> Self {
        let kept = handed.into_iter();
        let kept = kept.map(|it| Past::go_on(it, nofile, executables, keys));
        Self {
            kept: kept.collect(),
        }
    }
}

/// The descriptors of programs that were handed over, each claimed once: several
/// generations may have the same.
#[derive(Debug, Default)]
pub(crate) struct Executables {
    claimed: HashMap<RawFd, Rc<OwnedFd>>,
}

impl Executables {
    /// The descriptor of this number.
    pub(crate) fn claim(&mut self, number: RawFd) -> Rc<OwnedFd> {
        let claimed = self.claimed.entry(number);
        Rc::clone(claimed.or_insert_with(|| Rc::new(claim(number))))
    }
}
