//! What a pool's workers execute, pinned: a crash between two deploys restarts
//! the code that was serving, not whatever lies on the disk by then.

use std::ffi::{CStr, CString, NulError, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sched::CpuSet;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use prefork_proto::adapter::{Brief, Piece, pieces};

use crate::config::{self, Adapter, Affinity, Pool, Program};
use crate::kernel::procfs::kin;
use crate::kernel::sys::{self, Birth, Image, Start, Terms};
use crate::reactor::generation::code;
use crate::reactor::generation::directories::Places;
use crate::reactor::generation::history::Executables;
use crate::reactor::worker_process::private_address::Allotment;
use crate::recovery::state::SavedFile;
use crate::run::environment::NOBODY_ELSES;
use crate::upgrade::{FileIdentity, HandedProgram};

/// The argument that makes the `prefork` binary the bundled web server.
pub const BUNDLED_ARGUMENT: &str = "worker";

/// The argument that makes the `prefork` binary the adapter of a program that does
/// not speak the channel.
pub const ADAPTER_ARGUMENT: &str = "adapter";

/// This very program, whatever lies where it was by now.
const OWN_PROGRAM: &CStr = c"/proc/self/exe";

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
    executable: Option<Rc<OwnedFd>>,
    /// What is executed where nothing is pinned, and what messages name.
    path: CString,
    /// Where the program lies, as it is named.
    given: PathBuf,
    argv: Vec<CString>,
    envp: Vec<CString>,
    terms: Terms,
    affinity: Option<Affinity>,
    /// Whether what its workers start is to be found.
    mark: bool,
    /// What the file was when it was pinned.
    file: Option<FileIdentity>,
    /// Files of it that can't be pinned: a script, or what an interpreter runs.
    files: Vec<SavedFile>,
    /// The soft RLIMIT_NOFILE that the supervisor itself was started with.
    nofile: u64,
    /// What starts it, where it does not speak the channel.
    adapter: Option<AdapterImage>,
}

/// The adapter as it is executed. It is always of this supervisor's own program, so
/// that both mean the same by what they tell each other.
#[derive(Debug)]
struct AdapterImage {
    executable: Option<OwnedFd>,
    argv: [CString; 3],
}

impl AdapterImage {
    /// The adapter that starts this program, which is named for whoever looks at a
    /// list of processes.
    fn of(program: &Path) -> Result<Self, NulError> {
        let name = program.file_name().unwrap_or(program.as_os_str());
        let own = Path::new(OsStr::from_bytes(OWN_PROGRAM.to_bytes()));
        Ok(Self {
            // Where there are no descriptors left its path has to do.
            executable: pin_if_elf(own).ok().flatten(),
            argv: [
                c"prefork".to_owned(),
                CString::new(ADAPTER_ARGUMENT)?,
                CString::new(name.as_bytes())?,
            ],
        })
    }
}

/// What of a program is pinned, and what its files were.
#[derive(Debug, Default)]
struct Pinned {
    executable: Option<Rc<OwnedFd>>,
    file: Option<FileIdentity>,
    files: Vec<SavedFile>,
}

impl PinnedProgram {
    /// Pins a pool's program as it is now.
    pub(crate) fn pin(pool: &Pool, places: &Places, nofile: u64) -> Result<Self, ProgramError> {
        let (path, argv) = command(pool);
        let executable = pin_if_elf(&path).map_err(|source| ProgramError::Open {
            pool: pool.policy.name.clone(),
            path: path.clone(),
            source,
        })?;
        let start = places.start_name().unwrap_or(Path::new("."));
        let unpinned = match &executable {
            Some(_) => code::interpreted(&path, &argv[1..], start),
            None => code::read_from(&path),
        };
        let pinned = Pinned {
            executable: executable.map(Rc::new),
            file: code::identify(&path).ok(),
            files: unpinned.into_iter().collect(),
        };
        Self::of(pool, places, nofile, pinned)
    }

    fn of(pool: &Pool, places: &Places, nofile: u64, pinned: Pinned) -> Result<Self, ProgramError> {
        Self::assemble(pool, places, nofile, pinned).map_err(|source| ProgramError::Nul {
            pool: pool.policy.name.clone(),
            source,
        })
    }

    fn assemble(
        pool: &Pool,
        places: &Places,
        nofile: u64,
        pinned: Pinned,
    ) -> Result<Self, NulError> {
        let Pinned {
            executable,
            file,
            files,
        } = pinned;
        let (given, mut argv) = command(pool);
        let mut path = given.clone();
        for file in &files {
            if file.given == given {
                path.clone_from(&file.path);
            } else {
                places.resolve(&mut argv[1..], file);
            }
        }
        Ok(Self {
            executable,
            path: CString::new(path.as_os_str().as_bytes())?,
            given,
            argv: argv
                .into_iter()
                .map(CString::new)
                .collect::<Result<_, _>>()?,
            envp: environment(pool)?,
            terms: terms(pool),
            affinity: pool.execution.cpu_affinity.clone(),
            mark: pool.execution.kill_tree,
            file,
            files,
            nofile,
            adapter: match &pool.adapter {
                Some(_) => Some(AdapterImage::of(&path)?),
                None => None,
            },
        })
    }

    /// Pins what a worker runs that another supervisor has started, whatever
    /// lies on the disk by now; a script is started anew from where it lay. Where
    /// nobody runs it and it has gone, it is for its next start to fail.
    pub(crate) fn pin_running(
        pool: &Pool,
        places: &Places,
        nofile: u64,
        worker: Option<i32>,
        files: Vec<SavedFile>,
    ) -> Result<Self, ProgramError> {
        let nothing = Pinned {
            files: files.clone(),
            ..Pinned::default()
        };
        let unpinned = Self::of(pool, places, nofile, nothing)?;
        // What it has become by an exec of its own takes other arguments.
        let running = match &pool.adapter {
            Some(_) => worker.and_then(|adapter| unpinned.run_below(adapter)),
            None => worker.filter(|pid| unpinned.is_run_by(*pid)),
        };
        let running = running.map(|pid| PathBuf::from(format!("/proc/{pid}/exe")));
        if let Some(path) = running
            && let Ok(Some(executable)) = pin_if_elf(&path)
        {
            let pinned = Pinned {
                executable: Some(Rc::new(executable)),
                file: code::identify(&path).ok(),
                files,
            };
            return Self::of(pool, places, nofile, pinned);
        }
        let (path, _) = command(pool);
        if let Some(script) = files.iter().find(|file| file.given == path) {
            let pinned = Pinned {
                executable: None,
                file: Some(script.file),
                files,
            };
            return Self::of(pool, places, nofile, pinned);
        }
        Self::pin(pool, places, nofile).or(Ok(unpinned))
    }

    /// The child of an adapter that is what it has started.
    fn run_below(&self, adapter: i32) -> Option<i32> {
        let mut children = kin::children(adapter).ok()?.into_iter();
        children.find(|pid| self.is_run_by(*pid))
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
        places: &Places,
        nofile: u64,
        handed: Option<HandedProgram>,
        files: Vec<SavedFile>,
        executables: &mut Executables,
    ) -> Result<Self, ProgramError> {
        let (executable, file) = handed.map_or((None, None), |handed| {
            let executable = handed.executable.map(|it| executables.claim(it));
            (executable, handed.file)
        });
        let pinned = Pinned {
            executable,
            file,
            files,
        };
        Self::of(pool, places, nofile, pinned)
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

    /// Files of it that can't be pinned.
    pub(crate) fn files(&self) -> &[SavedFile] {
        &self.files
    }

    /// Whether what runs is pinned, or is a script.
    pub(crate) fn is_pinned(&self) -> bool {
        self.executable.is_some()
    }

    /// Forks a worker for a slot, with these ends of its pipes and its channel, and
    /// what it is to inherit besides.
    pub(crate) fn spawn(
        &self,
        slot: u32,
        start: Option<Start<'_>>,
        [stdin, stdout, stderr, channel]: [BorrowedFd<'_>; 4],
        inherited: &[BorrowedFd<'_>],
    ) -> nix::Result<nix::unistd::Pid> {
        let birth = Birth {
            stdin,
            stdout,
            stderr,
            channel,
            inherited,
            nofile: self.nofile,
            terms: &self.terms,
            start,
            cpus: self.cpus_of(slot)?,
            mark: self.mark,
            program: self
                .adapter
                .as_ref()
                .and(self.executable.as_ref())
                .map(AsFd::as_fd),
        };
        if let Some(adapter) = &self.adapter {
            let image = Image {
                pinned: adapter.executable.as_ref().map(AsFd::as_fd),
                path: OWN_PROGRAM,
                argv: &adapter.argv,
                envp: &self.envp,
            };
            return sys::spawn(&birth, &image);
        }
        let image = Image {
            pinned: self.executable.as_ref().map(AsFd::as_fd),
            path: &self.path,
            argv: &self.argv,
            envp: &self.envp,
        };
        sys::spawn(&birth, &image)
    }

    /// What the adapter that starts it is told.
    pub(crate) fn brief(&self, pool: &Pool, adapter: &Adapter, allotment: Allotment) -> Brief {
        let has_placeholder = |word: &str| {
            let pieces = pieces(word);
            pieces != [Piece::Text(word)]
        };
        let env = pool.env.iter().filter(|(_, value)| has_placeholder(value));
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Brief {
            program: PathBuf::from(OsStr::from_bytes(self.path.as_bytes())),
            pinned: self.executable.is_some(),
            argv: self.command_line(),
            env: env
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            socket: allotment.socket,
            notify: allotment.notify,
            ready: adapter.ready.clone(),
            health: adapter.health.clone(),
            stop_signal: adapter.signal(),
            boot_timeout_ms: millis(pool.policy.boot_timeout),
            heartbeat_timeout_ms: millis(pool.policy.heartbeat_timeout),
        }
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

    /// Whether processes of this program, these, surely run the code that those of
    /// `other` would: its file is the same and unchanged, and so is what can't be
    /// pinned, and they have become no program of which that is not known.
    pub(crate) fn is_same_code(&self, other: &Self, pids: impl Iterator<Item = i32>) -> bool {
        self.is_same_file(other) && self.is_all_of(pids)
    }

    /// Whether both were pinned of the same files, which nobody had changed in between.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.file == other.file && self.files == other.files
    }

    /// Whether its file is known, and is all that these processes of it run.
    pub(crate) fn is_all_of(&self, mut pids: impl Iterator<Item = i32>) -> bool {
        let executable = self.executable.as_deref();
        self.file.is_some() && pids.all(|pid| code::is_of_its_file(pid, executable, &self.given))
    }

    /// How the files on disk differ from what was pinned; `None` if they don't.
    pub(crate) fn difference_on_disk(&self) -> Option<&'static str> {
        let program = (self.file.as_ref(), &self.given);
        let files = self.files.iter().map(|it| (Some(&it.file), &it.given));
        [program].into_iter().chain(files).find_map(|(then, path)| {
            match (then, code::identify(path)) {
                (Some(then), Ok(now)) if *then == now => None,
                (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Some("removed"),
                _ => Some("changed"),
            }
        })
    }

    /// Whether who is started now runs what the generation began with.
    pub(crate) fn is_kept(&self) -> bool {
        self.lost_file().is_none()
    }

    /// The first of its files that can't be pinned and is not what it was.
    pub(crate) fn lost_file(&self) -> Option<&Path> {
        let unchanged = |it: &SavedFile| code::identify(&it.path).is_ok_and(|now| now == it.file);
        let lost = self.files.iter().find(|it| !unchanged(it))?;
        Some(&lost.path)
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
fn terms(pool: &Pool) -> Terms {
    let execution = &pool.execution;
    let limit = |limit: &config::Limit| Some((limit.resource()?, limit.soft, limit.hard));
    let run_as = pool.run_as.as_ref();
    let uid = run_as.map_or_else(Uid::effective, |who| Uid::from_raw(who.uid));
    Terms {
        limits: execution.rlimits.iter().filter_map(limit).collect(),
        nice: execution.nice,
        umask: execution.umask.map(Mode::from_bits_truncate),
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
    }
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
pub(in crate::reactor) fn of_user(who: &config::RunAs) -> Vec<(&'static str, Option<&OsStr>)> {
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
    let inherited = std::env::vars_os().filter(|(name, _)| {
        !NOBODY_ELSES.iter().any(|ours| name == OsStr::new(ours))
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
