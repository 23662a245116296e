//! What a pool's workers execute, pinned: a crash between two deploys restarts
//! the code that was serving, not whatever lies on the disk by then.

use std::ffi::{CString, NulError, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::CpuSet;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use crate::config::{self, Affinity, Pool, Program};
use crate::sys::{self, Birth, Image, Terms};
use crate::upgrade::{FileIdentity, HANDOVER_FD_ENV, HandedProgram};

/// The argument that makes the `prefork` binary the bundled web server.
pub const BUNDLED_ARGUMENT: &str = "worker";

/// Why a program could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be opened.
    #[error("pool {pool}: cannot open the program {path}: {source}", path = path.display())]
    Open {
        /// The pool's name.
        pool: String,
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A word of its command line or environment has a NUL byte inside.
    #[error("pool {pool}: {source} in an argument or environment value")]
    Nul {
        /// The pool's name.
        pool: String,
        /// Where.
        source: NulError,
    },
}

/// A program with its arguments and environment, ready to be executed.
#[derive(Debug)]
pub(crate) struct PinnedProgram {
    /// `None` for a script: the kernel hands its interpreter a path, and a
    /// close-on-exec descriptor would be gone by then.
    executable: Option<OwnedFd>,
    path: CString,
    argv: Vec<CString>,
    envp: Vec<CString>,
    terms: Terms,
    affinity: Option<Affinity>,
    /// Whether what its workers start is to be found.
    mark: bool,
    /// What the file was when it was pinned.
    file: Option<FileIdentity>,
    /// The soft RLIMIT_NOFILE that the supervisor itself was started with.
    nofile: u64,
}

impl PinnedProgram {
    /// Pins a pool's program as it is now.
    pub(crate) fn pin(pool: &Pool, nofile: u64) -> Result<Self, ProgramError> {
        let name = &pool.policy.name;
        let (path, argv) = command(pool);
        let executable = pin_if_elf(&path).map_err(|source| ProgramError::Open {
            pool: name.clone(),
            path: path.clone(),
            source,
        })?;
        let file = identify(&path).ok();
        Self::of(pool, nofile, &path, argv, executable, file).map_err(|source| ProgramError::Nul {
            pool: name.clone(),
            source,
        })
    }

    fn of(
        pool: &Pool,
        nofile: u64,
        path: &Path,
        argv: Vec<String>,
        executable: Option<OwnedFd>,
        file: Option<FileIdentity>,
    ) -> Result<Self, NulError> {
        Ok(Self {
            executable,
            path: CString::new(path.as_os_str().as_bytes())?,
            argv: argv
                .into_iter()
                .map(CString::new)
                .collect::<Result<_, _>>()?,
            envp: environment(pool)?,
            terms: terms(pool)?,
            affinity: pool.execution.cpu_affinity.clone(),
            mark: pool.execution.kill_tree,
            file,
            nofile,
        })
    }

    /// Pins what a worker runs that another supervisor has started, whatever
    /// lies on the disk by now; a script is started anew from its path.
    pub(crate) fn pin_running(
        pool: &Pool,
        nofile: u64,
        worker: Option<i32>,
    ) -> Result<Self, ProgramError> {
        let mut program = Self::pin(pool, nofile)?;
        // What it has become by an exec of its own takes other arguments.
        let running = worker.filter(|pid| program.is_run_by(*pid));
        let running = running.map(|pid| PathBuf::from(format!("/proc/{pid}/exe")));
        if let Some(path) = running
            && let Ok(Some(executable)) = pin_if_elf(&path)
        {
            program.executable = Some(executable);
            program.file = identify(&path).ok();
        }
        Ok(program)
    }

    /// Whether a worker still is what it was started as: a wrapper script, or an
    /// interpreter of one, may have executed something else.
    fn is_run_by(&self, pid: i32) -> bool {
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = argv.split(|byte| *byte == 0);
        let same_words = self
            .argv
            .iter()
            .all(|word| Some(word.as_bytes()) == words.next());
        // It may show other words, with setproctitle(3).
        let path = Path::new(OsStr::from_bytes(self.path.as_bytes()));
        let ours = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let same_name = fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
            let exe = exe.as_os_str().as_bytes();
            let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
            let name = Path::new(OsStr::from_bytes(exe)).file_name();
            name == ours.file_name() || name == path.file_name()
        });
        same_words || same_name
    }

    /// Goes on with what the program before this one had pinned.
    pub(crate) fn go_on(
        pool: &Pool,
        nofile: u64,
        handed: Option<HandedProgram>,
    ) -> Result<Self, ProgramError> {
        let (executable, file) = handed.map_or((None, None), |handed| {
            (handed.executable.map(sys::claim), handed.file)
        });
        let (path, argv) = command(pool);
        let name = &pool.policy.name;
        Self::of(pool, nofile, &path, argv, executable, file).map_err(|source| ProgramError::Nul {
            pool: name.clone(),
            source,
        })
    }

    /// What the next program has to know of it, but for whose it is.
    pub(crate) fn hand_over(&self, pool: &str, generation: u64) -> HandedProgram {
        HandedProgram {
            pool: pool.to_owned(),
            generation,
            executable: self.executable.as_ref().map(AsRawFd::as_raw_fd),
            file: self.file,
        }
    }

    /// Whether what runs is pinned, or is a script.
    pub(crate) fn is_pinned(&self) -> bool {
        self.executable.is_some()
    }

    /// Forks a worker for a slot, with these ends of its pipes and its channel.
    pub(crate) fn spawn(
        &self,
        slot: u32,
        stdin: BorrowedFd<'_>,
        stdout: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
        channel: BorrowedFd<'_>,
    ) -> nix::Result<nix::unistd::Pid> {
        let birth = Birth {
            stdin,
            stdout,
            stderr,
            channel,
            nofile: self.nofile,
            terms: &self.terms,
            cpus: self.cpus_of(slot)?,
            mark: self.mark,
        };
        let image = Image {
            pinned: self.executable.as_ref().map(AsFd::as_fd),
            path: &self.path,
            argv: &self.argv,
            envp: &self.envp,
        };
        sys::spawn(&birth, &image)
    }

    /// Where the slot's workers may run. The machine's processors come and go, so
    /// it is asked each time.
    fn cpus_of(&self, slot: u32) -> nix::Result<Option<CpuSet>> {
        let Some(affinity) = &self.affinity else {
            return Ok(None);
        };
        let mut set = CpuSet::new();
        for cpu in affinity.of_slot(slot, &config::own_cpus()) {
            set.set(cpu as usize)?;
        }
        Ok((set != CpuSet::new()).then_some(set))
    }

    /// Whether both were pinned from the same unchanged file.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.file.is_some() && self.file == other.file
    }

    /// How the file on disk differs from what was pinned; `None` if it doesn't.
    pub(crate) fn difference_on_disk(&self) -> Option<&'static str> {
        let path = Path::new(OsStr::from_bytes(self.path.as_bytes()));
        match (&self.file, identify(path)) {
            (Some(pinned), Ok(now)) if *pinned == now => None,
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Some("removed"),
            _ => Some("changed"),
        }
    }

    /// The argument vector, for people.
    pub(crate) fn command_line(&self) -> Vec<String> {
        self.argv
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }
}

/// On what terms a pool's workers run.
fn terms(pool: &Pool) -> Result<Terms, NulError> {
    let execution = &pool.execution;
    let limit = |limit: &config::Limit| Some((limit.resource()?, limit.soft, limit.hard));
    let directory = execution.working_directory.as_ref();
    let run_as = pool.run_as.as_ref();
    let uid = run_as.map_or_else(Uid::effective, |who| Uid::from_raw(who.uid));
    Ok(Terms {
        limits: execution.rlimits.iter().filter_map(limit).collect(),
        nice: execution.nice,
        umask: execution.umask.map(Mode::from_bits_truncate),
        directory: directory
            .map(|path| CString::new(path.as_os_str().as_bytes()))
            .transpose()?,
        credentials: run_as.map(|who| {
            let groups = who.groups.iter().map(|gid| Gid::from_raw(*gid));
            (Gid::from_raw(who.gid), groups.collect(), uid)
        }),
        capabilities: match &execution.capabilities {
            Some(kept) => Some(kept.mask()),
            None if uid.is_root() => None,
            None => Some(0),
        },
        no_new_privs: execution.no_new_privs,
    })
}

/// Where a pool's program lies, and its argument vector.
fn command(pool: &Pool) -> (PathBuf, Vec<String>) {
    match &pool.program {
        Program::Bundled => (
            PathBuf::from("/proc/self/exe"),
            vec!["prefork".to_owned(), BUNDLED_ARGUMENT.to_owned()],
        ),
        Program::Command { path, args } => {
            let program = path.to_string_lossy().into_owned();
            (
                path.clone(),
                std::iter::once(program).chain(args.clone()).collect(),
            )
        }
    }
}

fn identify(path: &Path) -> io::Result<FileIdentity> {
    let found = fs::metadata(path)?;
    Ok(FileIdentity {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
    })
}

/// An `O_PATH` descriptor for an ELF file, nothing for a script.
pub(crate) fn pin_if_elf(path: &Path) -> io::Result<Option<OwnedFd>> {
    let mut magic = [0; 4];
    match File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if &magic == b"\x7fELF" => {}
        Ok(()) => return Ok(None),
        // Too short for ELF; exec will say what it is.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        // Execute permission without read permission is enough to run it, and
        // only compiled programs can be run that way.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => return Err(error),
    }
    let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(Some(fd))
}

/// What login(1) says of a user; without a value where the machine doesn't know.
fn of_user(who: &config::RunAs) -> Vec<(&'static str, Option<&OsStr>)> {
    let name = Some(OsStr::new(&who.user)).filter(|_| who.home.is_some());
    vec![
        ("HOME", who.home.as_ref().map(|path| path.as_os_str())),
        ("USER", name),
        ("LOGNAME", name),
        ("SHELL", who.shell.as_ref().map(|path| path.as_os_str())),
    ]
}

/// What the supervisor inherited, less what is meant for it alone, plus the
/// pool's `env` and the channel's number.
fn environment(pool: &Pool) -> Result<Vec<CString>, NulError> {
    const OURS: [&str; 10] = [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        // What they write goes to a pipe of ours.
        "JOURNAL_STREAM",
        "PREFORK_CONFIG",
        HANDOVER_FD_ENV,
        prefork_proto::message::CHANNEL_FD_ENV,
    ];
    let inherited = std::env::vars_os().filter(|(name, _)| {
        !OURS.iter().any(|ours| name == OsStr::new(ours))
            && !name
                .to_str()
                .is_some_and(|name| pool.env.contains_key(name))
    });
    // What is said of another user there would be wrong.
    let of_user = pool.run_as.as_ref().map_or_else(Vec::new, of_user);
    let mut environment = Vec::new();
    for (name, value) in &of_user {
        if let Some(value) = value
            && !pool.env.contains_key(*name)
        {
            let variable = [name.as_bytes(), b"=", value.as_bytes()].concat();
            environment.push(CString::new(variable)?);
        }
    }
    let inherited =
        inherited.filter(|(name, _)| of_user.iter().all(|(of_user, _)| name != of_user));
    for (name, value) in inherited {
        environment.push(CString::new(
            [name.as_bytes(), b"=", value.as_bytes()].concat(),
        )?);
    }
    // What they write is for a log (<https://no-color.org>).
    if std::env::var_os("NO_COLOR").is_none() && !pool.env.contains_key("NO_COLOR") {
        environment.push(c"NO_COLOR=1".to_owned());
    }
    for (name, value) in &pool.env {
        environment.push(CString::new(format!("{name}={value}"))?);
    }
    environment.push(CString::new(format!(
        "{}={}",
        prefork_proto::message::CHANNEL_FD_ENV,
        sys::CHANNEL_FD
    ))?);
    Ok(environment)
}
