//! What the workers of one generation of a pool run and accept from. A rollback
//! goes back to the edition that served before, whatever has become of the files.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use prefork_proto::tls::TlsError;
use tracing::{info, warn};

use crate::config;
use crate::listener::ListenError;
use crate::reactor::generation::access_log::AccessLog;
use crate::reactor::generation::code;
use crate::reactor::generation::directories::{PlaceError, Places};
use crate::reactor::generation::history::Pinned;
use crate::reactor::generation::program::{PinnedProgram, ProgramError};
use crate::reactor::listeners::sockets::Sockets;
use crate::tls::Material;

/// Why a pool could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Its program can't be pinned.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A directory that its settings name can't be held.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A listener can't be bound.
    #[error("pool {pool}: {source}")]
    Listen {
        /// The pool's name.
        pool: String,
        /// Which listener, and why.
        source: ListenError,
    },
    /// The listener is bound already, in the other mode.
    #[error(
        "pool {pool}: the mode of listener {listener} cannot change while it is bound; \
         use another address, or stop and start"
    )]
    Mode {
        /// The pool's name.
        pool: String,
        /// The listener's name.
        listener: String,
    },
    /// Its certificates can't be handed to workers.
    #[error("pool {pool}: {source}")]
    Tls {
        /// The pool's name.
        pool: String,
        /// What the kernel lacks.
        source: TlsError,
    },
    /// Its access log can't be opened.
    #[error("pool {pool}: cannot open its access log: {source}")]
    AccessLog {
        /// The pool's name.
        pool: String,
        /// Which file, and why.
        source: std::io::Error,
    },
    /// `/dev/null` can't be opened.
    #[error("cannot open /dev/null for the workers' stdin: {0}")]
    Null(std::io::Error),
}

/// Who writes to a pool's access log, where that is a user of its own.
fn writer_of(config: &config::Pool) -> Option<u32> {
    config.run_as.as_ref().map(|run_as| run_as.uid)
}

/// One generation of one pool: its configuration, pinned program, directories and
/// listeners.
#[derive(Debug)]
pub struct Edition {
    pub(crate) name: Rc<str>,
    pub(crate) config: config::Pool,
    pub(crate) program: Rc<PinnedProgram>,
    /// The directories that its settings name.
    pub(crate) places: Rc<Places>,
    pub(crate) sockets: Vec<Rc<Sockets>>,
    /// The certificates of the listeners that speak TLS.
    pub(crate) tls: Option<Material>,
    /// Where the workers write a line for each request, if they do.
    pub(crate) access_log: Option<Rc<AccessLog>>,
    /// The workers' stdin.
    pub(crate) null: OwnedFd,
}

impl Edition {
    /// Pins the program, holds the directories and binds the listeners, except
    /// those that are in `bound` already. `nofile` is the workers' soft limit of
    /// descriptors, `here` is where the supervisor was started.
    pub(crate) fn set_up(
        config: config::Pool,
        here: &Path,
        nofile: u64,
        bound: &[Rc<Sockets>],
    ) -> Result<Self, PoolError> {
        let places = Places::pin(&config, here)?;
        let program = PinnedProgram::pin(&config, &places, nofile)?;
        Self::set_up_again(config, (Rc::new(program), Rc::new(places)), bound)
    }

    /// The same with what was pinned before.
    pub(crate) fn set_up_again(
        config: config::Pool,
        pinned: Pinned,
        bound: &[Rc<Sockets>],
    ) -> Result<Self, PoolError> {
        let mut sockets = Vec::new();
        for listen in &config.listen {
            if bound.iter().any(|sockets| sockets.conflict_with(listen)) {
                return Err(PoolError::Mode {
                    pool: config.policy.name.clone(),
                    listener: listen.name.clone(),
                });
            }
            // What nobody can connect to any more is bound anew.
            let is_of_use = |it: &&Rc<Sockets>| it.are_for(listen) && it.problem().is_none();
            if let Some(known) = bound.iter().find(is_of_use) {
                sockets.push(Rc::clone(known));
                continue;
            }
            let new = Sockets::bind(listen, bound).map_err(|source| PoolError::Listen {
                pool: config.policy.name.clone(),
                source,
            })?;
            for useless in bound.iter().filter(|it| it.are_for(listen)) {
                useless.give_way();
            }
            sockets.push(Rc::new(new));
        }
        let access_log = config.access_log.clone();
        let access_log = access_log.map(|settings| AccessLog::open(settings, writer_of(&config)));
        let access_log = access_log
            .transpose()
            .map_err(|source| PoolError::AccessLog {
                pool: config.policy.name.clone(),
                source,
            })?;
        Self::with(config, pinned, sockets, access_log)
    }

    /// An edition of what is pinned and bound already. Its workers serve, so that
    /// a log that can't be opened is no reason to give up.
    pub(crate) fn of(
        config: config::Pool,
        pinned: (PinnedProgram, Places),
        sockets: Vec<Rc<Sockets>>,
    ) -> Result<Self, PoolError> {
        let access_log = config.access_log.clone().and_then(|settings| {
            let lost = |error| warn!(pool = config.policy.name, "no access log: {error}");
            AccessLog::open(settings, writer_of(&config))
                .map_err(lost)
                .ok()
        });
        let (program, places) = pinned;
        let pinned = (Rc::new(program), Rc::new(places));
        Self::with(config, pinned, sockets, access_log)
    }

    fn with(
        config: config::Pool,
        (program, places): Pinned,
        sockets: Vec<Rc<Sockets>>,
        access_log: Option<AccessLog>,
    ) -> Result<Self, PoolError> {
        let tls = Material::of(&config.listen).map_err(|source| PoolError::Tls {
            pool: config.policy.name.clone(),
            source,
        })?;
        Ok(Self {
            access_log: access_log.map(Rc::new),
            name: config.policy.name.as_str().into(),
            tls,
            program,
            places,
            sockets,
            null: File::open("/dev/null").map_err(PoolError::Null)?.into(),
            config,
        })
    }

    /// What a reload would take from the disk, and a restart doesn't.
    pub(crate) fn on_disk(&self) -> Option<String> {
        let directory = || {
            let name = self.places.outdated()?.display();
            Some(format!(
                "{name} is another directory since its generation began; \
                 a restart still takes the one before, `prefork reload` takes the new one"
            ))
        };
        self.program_on_disk().or_else(directory)
    }

    /// The same of its program alone, which is asked for all the time: a directory
    /// may be on a disk that has to be waited for.
    pub(crate) fn program_on_disk(&self) -> Option<String> {
        let kept = match self.program.is_kept() {
            true => "a restart still runs the one before",
            false => "who is started now runs it already",
        };
        Some(match self.program.difference_on_disk()? {
            "removed" => "the program on disk was removed since its generation began; \
                 `prefork reload` needs one"
                .to_owned(),
            _ => format!(
                "the program on disk was changed and is newer than its generation; {kept}, \
                 `prefork reload` takes the new one"
            ),
        })
    }

    /// Why workers that were started from the disk now might not be the same as those
    /// that run, which are `pids`; none where they surely would.
    pub(crate) fn why_replaced(
        &self,
        pids: impl Iterator<Item = i32>,
    ) -> Option<Cow<'static, str>> {
        if let Some(what) = self.program.difference_on_disk() {
            return Some(format!("its program was {what}").into());
        }
        if let Some(name) = self.places.moved() {
            return Some(format!("{} is another directory", name.display()).into());
        }
        let lost = self.sockets.iter().find_map(|it| Some((it, it.problem()?)));
        if let Some((sockets, problem)) = lost {
            return Some(format!("listener {}: {problem}", sockets.status().name).into());
        }
        self.why_unsure(pids)
    }

    /// Why workers might not be the same as those that run, although everything that was
    /// pinned is.
    pub(crate) fn why_unsure(&self, pids: impl Iterator<Item = i32>) -> Option<Cow<'static, str>> {
        if self.config.adapter.is_some() || !self.program.is_all_of(pids) {
            return Some("its code may be in more files than prefork knows".into());
        }
        let start = self.places.start_name().unwrap_or(Path::new("."));
        let file = code::named_file(&self.config, start)?;
        Some(
            format!(
                "it may have read {}, which its settings name",
                file.display()
            )
            .into(),
        )
    }

    /// Whether workers of both start in one directory, serve one and accept from the same
    /// listeners.
    pub(crate) fn is_alike(&self, other: &Self) -> bool {
        self.places.are_alike(&other.places) && self.accepts_alike(other)
    }

    /// Whether workers of both accept from the same listeners.
    pub(crate) fn accepts_alike(&self, other: &Self) -> bool {
        let mut both = self.sockets.iter().zip(&other.sockets);
        both.all(|(ours, theirs)| Rc::ptr_eq(ours, theirs))
    }

    /// Whether its workers accept from this listener.
    pub(crate) fn has(&self, sockets: &Rc<Sockets>) -> bool {
        self.sockets.iter().any(|it| Rc::ptr_eq(it, sockets))
    }

    /// Says in the log what is there.
    pub(crate) fn announce(&self) {
        let policy = &self.config.policy;
        // Not its arguments: some are passwords, and a log is read by many.
        let command_line = self.program.command_line();
        let program = match command_line.as_slice() {
            [program, rest @ ..] if !rest.is_empty() => {
                format!("{program} with {} arguments", rest.len())
            }
            words => words.join(" "),
        };
        info!(
            pool = policy.name,
            "{} workers of {program}", policy.workers
        );
        for sockets in &self.sockets {
            info!(
                pool = policy.name,
                "listening on {}",
                sockets.status().address
            );
        }
    }
}
