//! In whose hands a path is. What root opens in a directory that others may write to
//! is what they put there: a link to another file, or the same file under two names.
//! So a path is walked step by step, each directory held open, and the last step is
//! taken from the directory that was looked at.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Permission to write for everybody, and the bit that keeps them from each other's.
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why a path is not opened.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// Everybody may rename what is in it.
    #[error(
        "everybody may write to the directory {path}; \
         take that from them (chmod o-w), or choose another place",
        path = path.display()
    )]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Everybody may write to it.
    #[error("everybody may write to it (chmod o-w)")]
    OpenFile,
    /// Somebody else may have put it there.
    #[error(
        "{path} belongs to user id {owner}, and not to root or to the user that prefork runs as",
        path = path.display()
    )]
    Owner {
        /// What.
        path: PathBuf,
        /// Whose.
        owner: u32,
    },
    /// The last step is a symbolic link.
    #[error("it is a symbolic link; name the file itself")]
    Link,
    /// It has other names.
    #[error("it has {count} names (hard links); a file that others may have linked is not used")]
    Names {
        /// How many.
        count: u64,
    },
    /// It is not on a disk but a process's.
    #[error("it lies in /proc, where what a path leads to changes")]
    Process,
    /// The system refused.
    #[error("{source}")]
    Io {
        /// What it said.
        #[from]
        source: io::Error,
    },
}

impl From<Errno> for Distrust {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<Distrust> for io::Error {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::Io { source } => source,
            other => Self::new(io::ErrorKind::PermissionDenied, other.to_string()),
        }
    }
}

/// Who may have put something there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trusted {
    us: u32,
    /// Who writes to it anyway.
    also: Option<u32>,
    /// What user ids are shown as that this user namespace has no name for. Nobody in
    /// it is one of them.
    unmapped: Option<u32>,
}

impl Trusted {
    /// Root and whoever this process is.
    pub(crate) fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let all: Vec<String> = read("/proc/self/uid_map")
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect();
        let is_partial = !all.is_empty() && all != ["0", "0", "4294967295"];
        let overflow = read("/proc/sys/kernel/overflowuid").trim().parse().ok();
        Self {
            us: nix::unistd::geteuid().as_raw(),
            also: None,
            unmapped: overflow.filter(|_| is_partial),
        }
    }

    /// The same and another user.
    pub(crate) fn and(self, also: Option<u32>) -> Self {
        Self { also, ..self }
    }

    fn is(self, owner: u32) -> bool {
        owner == 0 || owner == self.us || Some(owner) == self.also || Some(owner) == self.unmapped
    }

    /// Refuses what belongs to somebody else.
    pub(crate) fn owner(self, path: &Path, found: &Metadata) -> Result<(), Distrust> {
        if self.is(found.uid()) {
            return Ok(());
        }
        Err(Distrust::Owner {
            path: path.to_owned(),
            owner: found.uid(),
        })
    }
}

/// Whether directories on the way may belong to others. Who owns one may put anything
/// there: what is opened then has to be looked at itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directories {
    Anybodys,
    Trusted,
}

/// The end of a path: a directory that is held, and a name in it.
#[derive(Debug)]
pub(crate) struct Place {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    trusted: Trusted,
}

impl Place {
    /// Walks to the directory of `path`'s last step. Links on the way are followed where
    /// somebody trusted has made them, and no directory is one that everybody may write to,
    /// unless its sticky bit keeps them from what is others'.
    pub(crate) fn of(
        path: &Path,
        trusted: Trusted,
        directories: Directories,
    ) -> Result<Self, Distrust> {
        let path = std::path::absolute(path)?;
        let mut steps = steps(&path);
        let mut at = PathBuf::from("/");
        let mut directory = open_directory(nix::fcntl::AT_FDCWD, OsStr::new("/"))?;
        let mut links = 0;
        while let Some(step) = steps.pop_front() {
            if steps.is_empty() && step != ".." {
                return Ok(Self {
                    directory,
                    name: step,
                    path,
                    trusted,
                });
            }
            let next = at.join(&step);
            let entry = look_at(&directory, &step)?;
            let found = File::from(entry.try_clone()?).metadata()?;
            if found.is_symlink() {
                // Who made it may have meant anything by it.
                trusted.owner(&next, &found)?;
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP.into());
                }
                let target = PathBuf::from(readlinkat(&entry, "")?);
                if target.is_absolute() {
                    at = PathBuf::from("/");
                    directory = open_directory(nix::fcntl::AT_FDCWD, OsStr::new("/"))?;
                }
                for step in self::steps(&target).into_iter().rev() {
                    steps.push_front(step);
                }
                continue;
            }
            directory = open_directory(&directory, &step)?;
            at = next;
            let found = File::from(directory.try_clone()?).metadata()?;
            check_directory(&at, &found)?;
            // What a link there leads to is not what it says (proc_pid_root(5)).
            if fstatfs(&directory)?.filesystem_type() == PROC_SUPER_MAGIC {
                return Err(Distrust::Process);
            }
            if directories == Directories::Trusted {
                trusted.owner(&at, &found)?;
            }
        }
        Err(Errno::EISDIR.into())
    }

    /// Opens what is there, or makes it. It is no link, has one name, and belongs to
    /// somebody trusted.
    pub(crate) fn open(&self, flags: OFlag, mode: u32) -> Result<File, Distrust> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(mode);
        let opened = openat(&self.directory, self.name.as_os_str(), flags, mode);
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::ELOOP) => return Err(Distrust::Link),
            Err(errno) => return Err(errno.into()),
        };
        let found = file.metadata()?;
        self.trusted.owner(&self.path, &found)?;
        if found.is_file() && found.nlink() > 1 {
            return Err(Distrust::Names {
                count: found.nlink(),
            });
        }
        Ok(file)
    }
}

/// Looks at a program that is to run with all of this process's rights, and is pinned
/// unless it is a script.
pub(crate) fn check_program(path: &Path, pinned: Option<&OwnedFd>) -> Result<(), Distrust> {
    let trusted = Trusted::here();
    // A script is found by its path once more, when it runs.
    let directories = if pinned.is_some() {
        Directories::Anybodys
    } else {
        Directories::Trusted
    };
    let mut path = std::path::absolute(path)?;
    for _ in 0..MOST_LINKS {
        let place = Place::of(&path, trusted, directories)?;
        let entry = look_at(&place.directory, &place.name)?;
        let found = File::from(entry.try_clone()?).metadata()?;
        trusted.owner(&path, &found)?;
        if !found.is_symlink() {
            let pinned = pinned.map(|fd| File::from(fd.try_clone()?).metadata());
            let is_another =
                |pinned: &Metadata| (pinned.dev(), pinned.ino()) != (found.dev(), found.ino());
            if pinned.transpose()?.as_ref().is_some_and(is_another) {
                return Err(Errno::ESTALE.into());
            }
            return if found.mode() & OTHERS_WRITE == 0 {
                Ok(())
            } else {
                Err(Distrust::OpenFile)
            };
        }
        let target = PathBuf::from(readlinkat(&entry, "")?);
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Err(Errno::ELOOP.into())
}

/// Refuses a directory in which everybody may put things in another's place.
fn check_directory(path: &Path, found: &Metadata) -> Result<(), Distrust> {
    if found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0 {
        return Err(Distrust::OpenDirectory {
            path: path.to_owned(),
        });
    }
    Ok(())
}

fn steps(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir))
        .map(|step| step.as_os_str().to_owned())
        .collect()
}

fn open_directory(at: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn look_at(directory: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn append(path: &Path) -> Result<File, Distrust> {
        let place = Place::of(path, Trusted::here(), Directories::Anybodys)?;
        place.open(OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT, 0o666)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_of_ours_is_opened_also_through_directories_that_are_links() {
        let temporary = tempfile::tempdir().unwrap();
        let real = temporary.path().join("real");
        fs::create_dir(&real).unwrap();
        symlink("real", temporary.path().join("link")).unwrap();
        append(&temporary.path().join("link/../link/log")).unwrap();
        append(&temporary.path().join("link/log")).unwrap();
        assert!(real.join("log").exists());
    }

    #[test]
    fn neither_a_link_at_the_end_nor_a_second_name_is_written_to() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs::write(at("shadow"), "secret").unwrap();
        symlink("shadow", at("log")).unwrap();
        assert!(matches!(append(&at("log")), Err(Distrust::Link)));
        fs::hard_link(at("shadow"), at("second")).unwrap();
        let error = append(&at("second")).unwrap_err();
        assert!(error.to_string().contains("2 names"), "{error}");
    }

    #[test]
    fn nothing_is_opened_in_a_directory_of_everybody_unless_it_is_sticky() {
        let temporary = tempfile::tempdir().unwrap();
        let open = temporary.path().join("open");
        fs::create_dir(&open).unwrap();
        set_mode(&open, 0o777);
        let error = append(&open.join("log")).unwrap_err();
        assert!(matches!(error, Distrust::OpenDirectory { .. }), "{error}");
        set_mode(&open, 0o1777);
        append(&open.join("log")).unwrap();
    }

    #[test]
    fn a_program_is_not_everybodys_and_not_a_processs() {
        let temporary = tempfile::tempdir().unwrap();
        let program = temporary.path().join("program");
        fs::write(&program, "#!/bin/sh").unwrap();
        set_mode(&program, 0o777);
        let error = check_program(&program, None).unwrap_err();
        assert!(matches!(error, Distrust::OpenFile), "{error}");
        set_mode(&program, 0o755);
        check_program(&program, None).unwrap();
        symlink("program", temporary.path().join("current")).unwrap();
        check_program(&temporary.path().join("current"), None).unwrap();
        for path in [
            "/proc/self/exe",
            "/dev/fd/0",
            "/proc/self/root/bin/sh",
            "/proc/1/cwd/x",
        ] {
            let error = check_program(Path::new(path), None).unwrap_err();
            assert!(matches!(error, Distrust::Process), "{path}: {error}");
        }
    }
}
