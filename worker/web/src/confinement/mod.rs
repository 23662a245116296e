//! What the server can reach once it has started: its root, to read, and
//! nothing else. landlock(7) sees to it where the kernel has it; what a flaw in
//! the server could be made to open is then denied by the kernel. What Landlock does
//! not know, such as running another program, a system call filter denies (`seccomp`).

mod seccomp;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::settings::{Confinement, Settings};

/// Everything about files that can be denied, and from this version on connecting to
/// any unix socket but those beside the next supervisor's.
const FILES: ABI = ABI::V9;
/// No TCP connection is made, nor is a port bound: the listeners came from the
/// supervisor.
const TCP: ABI = ABI::V4;
/// No signal and no abstract unix socket reaches another process.
const SCOPES: ABI = ABI::V6;

/// How far the process is confined. There is no way back, and none to another root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// Nothing is begun yet, or it is not wanted; says why.
    Off(&'static str),
    /// The kernel does not do it; says why.
    Unavailable(String),
    /// It can read this directory, if any, and nothing else.
    Confined {
        /// Which directory.
        root: Option<Identity>,
        /// What it can connect to.
        reach: Reach,
        /// What the kernel knows of Landlock.
        abi: i32,
        /// Why it has no system call filter, where it has none.
        unfiltered: Option<String>,
    },
}

/// What the server may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The next supervisor's socket alone.
    Supervisor,
    /// The sockets of the pools that it forwards to as well: those that lie beside the
    /// next supervisor's, and those on ports.
    Pools,
}

impl Reach {
    pub(crate) fn of(settings: &Settings) -> Self {
        match settings.forward {
            Some(_) => Self::Pools,
            None => Self::Supervisor,
        }
    }
}

/// What a path leads to, whatever it is called: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self(found.dev(), found.ino()))
    }
}

impl Bounds {
    /// What stands in the way of being confined by all that there is for it.
    pub(crate) fn lacks(&self) -> Option<String> {
        match self {
            Self::Off(_) => None,
            Self::Unavailable(why) => Some(why.clone()),
            Self::Confined { unfiltered, .. } => unfiltered.clone(),
        }
    }

    /// Whether the process can go on with another root, and with being
    /// confined or not; what stands in the way.
    pub(crate) fn admit(
        &self,
        root: Option<&Path>,
        wanted: Confinement,
        reach: Reach,
    ) -> Result<(), &'static str> {
        let confined = wanted != Confinement::Off;
        if wanted == Confinement::Required && self.lacks().is_some() {
            return Err("it is to be confined in any case, which is seen to at its start");
        }
        match self {
            Self::Unavailable(_) => Ok(()),
            Self::Off(_) if confined => Err("it is to confine itself, which it does at its start"),
            Self::Off(_) => Ok(()),
            Self::Confined { .. } if !confined => Err("it has confined itself for good"),
            Self::Confined { reach: ours, .. } if *ours != reach => {
                Err("it has confined itself to what it forwards to, if anything")
            }
            Self::Confined { root: ours, .. } => match root.map(Identity::of) {
                Some(Ok(root)) if *ours != Some(root) => {
                    Err("it has confined itself to its root, and this is another one")
                }
                // What is wrong with it is said where it is opened.
                _ => Ok(()),
            },
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::Off("it has not started")
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(why) => write!(f, "not confined: {why}"),
            Self::Unavailable(why) => write!(f, "not confined: {why}"),
            Self::Confined {
                abi, unfiltered, ..
            } => match unfiltered {
                None => write!(f, "confined by Landlock {abi} and seccomp"),
                Some(why) => write!(f, "confined by Landlock {abi}, not by seccomp: {why}"),
            },
        }
    }
}

/// Confines this process for good to reading `root`, as far as the kernel can.
pub(crate) fn confine(root: Option<&Path>, rejoin: Option<&Path>, reach: Reach) -> Bounds {
    // Landlock binds the thread that asks and those that it starts later.
    match fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(1) => {}
        Ok(threads) => return Bounds::Unavailable(format!("it has {threads} threads already")),
        Err(error) => {
            return Bounds::Unavailable(format!("its threads cannot be counted: {error}"));
        }
    }
    restrict_thread(root, rejoin, reach).unwrap_or_else(Bounds::Unavailable)
}

fn restrict_thread(
    root: Option<&Path>,
    rejoin: Option<&Path>,
    reach: Reach,
) -> Result<Bounds, String> {
    let identity = root.map(Identity::of).transpose();
    let identity = identity.map_err(|error| error.to_string())?;
    let status = restrict(root, rejoin, reach).map_err(|error| error.to_string())?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
        LandlockStatus::NotEnabled => return Err("Landlock is not enabled".to_owned()),
        _ => return Err("the kernel has no Landlock".to_owned()),
    };
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel's Landlock enforces none of it".to_owned()),
        _ => Ok(Bounds::Confined {
            root: identity,
            reach,
            abi,
            // After Landlock: it has given up gaining rights, which a filter asks for.
            unfiltered: seccomp::install(reach).err(),
        }),
    }
}

fn restrict(
    root: Option<&Path>,
    rejoin: Option<&Path>,
    reach: Reach,
) -> Result<landlock::RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(FILES))?
        .handle_access(match reach {
            Reach::Supervisor => AccessNet::from_all(TCP),
            // Landlock knows ports and no addresses, and which ports a program is given
            // is not known before it is started.
            Reach::Pools => AccessNet::BindTcp.into(),
        })?
        .scope(Scope::from_all(SCOPES))?
        .create()?;
    if let Some(Ok(root)) = root.map(PathFd::new) {
        let rule = PathBeneath::new(root, AccessFs::ReadFile | AccessFs::ReadDir);
        rules = rules.add_rule(rule)?;
    }
    if let Some(Ok(rejoin)) = rejoin.map(PathFd::new) {
        // Of the directory, since the next supervisor binds its socket anew; the
        // sockets of pools that are forwarded to are below it.
        rules = rules.add_rule(PathBeneath::new(rejoin, AccessFs::ResolveUnix))?;
    }
    rules.restrict_self()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::PermissionDenied;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    /// Whether this kernel has all that is asked of it.
    fn is_there() -> bool {
        let bounds = thread::spawn(|| restrict_thread(None, None, Reach::Supervisor))
            .join()
            .unwrap();
        let there = matches!(bounds, Ok(Bounds::Confined { abi: 6.., .. }));
        if !there {
            eprintln!("SKIPPED: this kernel has no Landlock of version 6: {bounds:?}");
        }
        there
    }

    #[test]
    fn only_the_root_can_be_read_and_nothing_written_connected_or_bound() {
        if !is_there() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let [root, outside] = ["root", "outside"].map(|name| directory.path().join(name));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/page"), "page").unwrap();
        fs::write(&outside, "secret").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        fs::hard_link(&outside, root.join("hard")).unwrap();
        let door = directory.path().join("door");
        let _door = UnixListener::bind(&door).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let opened = fs::File::open(&outside).unwrap();

        let confined = thread::spawn(move || {
            let bounds = restrict_thread(Some(&root), door.parent(), Reach::Supervisor).unwrap();
            let expected = Some(Identity::of(&root).unwrap());
            assert!(matches!(bounds, Bounds::Confined { root, .. } if root == expected));

            assert_eq!(fs::read_to_string(root.join("sub/page")).unwrap(), "page");
            assert_eq!(fs::read_dir(&root).unwrap().count(), 3);
            // It is the way to a file that counts.
            assert_eq!(fs::read_to_string(root.join("hard")).unwrap(), "secret");
            let denied = |result: io::Result<()>, what: &str| {
                let kind = result.expect_err(what).kind();
                assert_eq!(kind, PermissionDenied, "{what}");
            };
            denied(fs::read(&outside).map(drop), "a file outside");
            denied(fs::read(root.join("link")).map(drop), "a link to it");
            denied(fs::read("/proc/self/status").map(drop), "/proc");
            denied(fs::read_dir("/").map(drop), "a directory outside");
            denied(fs::write(root.join("sub/page"), ""), "a file to write");
            denied(fs::write(root.join("new"), ""), "a new file");
            denied(fs::remove_file(root.join("sub/page")), "removing one");
            denied(TcpStream::connect(address).map(drop), "a connection");
            denied(TcpListener::bind("127.0.0.1:0").map(drop), "a port");
            denied(fs::write("/dev/null", ""), "a device");
            UnixStream::connect(&door).unwrap();
            io::read_to_string(opened).unwrap()
        });
        // What was open before stays so.
        assert_eq!(confined.join().unwrap(), "secret");
        // The other threads are not bound.
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_process_with_other_threads_is_not_said_to_be_confined() {
        let bounds = thread::spawn(|| confine(None, None, Reach::Supervisor))
            .join()
            .unwrap();
        assert!(
            matches!(&bounds, Bounds::Unavailable(why) if why.contains("threads")),
            "{bounds}"
        );
    }
}
