//! Directories that a generation's settings name, as they were when it began.
//!
//! A deploy switches a symbolic link, and the generation that serves goes on with
//! what the link said before: who starts in it later has the same release as his
//! siblings. So a directory is resolved once and held open, which keeps its inode
//! from being given to another; where it lies by now is asked of the kernel.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access};
use serde_json::Value;
use tracing::warn;

use crate::config::{self, Program};
use crate::kernel::sys;
use crate::recovery::state::{SavedFile, SavedPlace, SavedPlaces};

/// The setting of the bundled web server that names a directory.
const ROOT: &str = "root";

/// Why a directory that a pool names can't be held.
#[derive(Debug, thiserror::Error)]
#[error("pool {pool}: cannot open its {key} {path}: {source}", path = path.display())]
pub struct PlaceError {
    /// The pool's name.
    pool: String,
    /// `root` or `working_directory`.
    key: &'static str,
    /// The directory, as it is named.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

/// A directory of the generation is not there any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "{given} led to {path} when its generation began, and that directory has been removed; \
     a reload takes what {given} is now",
    given = given.display(),
    path = path.display()
)]
pub(crate) struct Gone {
    given: PathBuf,
    path: PathBuf,
}

impl Gone {
    /// What has become of it, for whom a reload is no way out.
    fn what(&self) -> String {
        let (given, path) = (self.given.display(), self.path.display());
        format!("{given} led to {path}, and that directory has been removed")
    }
}

/// A directory that is held.
#[derive(Debug)]
pub(crate) struct Place {
    /// As it is named.
    given: PathBuf,
    /// Where it was when it was resolved.
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// None where a supervisor that came later did not find it.
    directory: Option<OwnedFd>,
}

impl Place {
    /// Holds what the path leads to now.
    pub(crate) fn pin(given: &Path) -> io::Result<Self> {
        let directory = open(given)?;
        let path = path_of(&directory).or_else(|_| given.canonicalize())?;
        Ok(Self {
            given: given.to_owned(),
            identity: identity(&path)?,
            path,
            directory: Some(directory),
        })
    }

    /// Holds what another supervisor held, where it is still there.
    fn restore(saved: SavedPlace) -> Self {
        let identity_then = (saved.device, saved.inode);
        let found = open(&saved.path).ok();
        let same = |_: &OwnedFd| identity(&saved.path).is_ok_and(|now| now == identity_then);
        Self {
            directory: found.filter(same),
            given: saved.given,
            path: saved.path,
            identity: identity_then,
        }
    }

    /// What another supervisor has to know of it.
    fn save(&self) -> Option<SavedPlace> {
        let path = self.now().unwrap_or_else(|_| self.path.clone());
        // JSON has no other names, and a state without them is better than none.
        (path.to_str().is_some() && self.given.to_str().is_some()).then(|| SavedPlace {
            given: self.given.clone(),
            path,
            device: self.identity.0,
            inode: self.identity.1,
        })
    }

    /// Where it lies now. Nothing is looked up on a disk for that, which a
    /// network's could keep us waiting for.
    pub(crate) fn now(&self) -> Result<PathBuf, Gone> {
        let gone = |path: &Path| Gone {
            given: self.given.clone(),
            path: path.to_owned(),
        };
        let directory = self.directory.as_ref().ok_or_else(|| gone(&self.path))?;
        let path = path_of(directory).unwrap_or_else(|_| self.path.clone());
        // What the kernel calls one that was removed, unless it is called so itself.
        match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
            Some(last) if !identity(&path).is_ok_and(|now| now == self.identity) => {
                Err(gone(Path::new(OsStr::from_bytes(last))))
            }
            _ => Ok(path),
        }
    }

    /// The directory, for who starts in it.
    fn descriptor(&self) -> Result<BorrowedFd<'_>, Gone> {
        self.now()?;
        let directory = self.directory.as_ref().ok_or_else(|| Gone {
            given: self.given.clone(),
            path: self.path.clone(),
        })?;
        Ok(directory.as_fd())
    }

    /// Whether its name leads to something else by now.
    fn is_outdated(&self) -> bool {
        !identity(&self.given).is_ok_and(|now| now == self.identity)
    }

    /// Whether it is where this process is.
    fn is_here(&self) -> bool {
        identity(Path::new(".")).is_ok_and(|here| here == self.identity)
    }
}

/// Where workers start.
#[derive(Debug)]
struct Start {
    place: Place,
    /// Whether the pool's settings name it; it is else where the supervisor was
    /// started, by the name that this was given.
    named: bool,
    /// Whether it is where this process is.
    here: bool,
}

impl Start {
    fn new(place: Place, named: bool) -> Self {
        let here = place.is_here();
        Self { place, named, here }
    }
}

/// The directories of one generation of a pool.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// What the bundled web server serves.
    root: Option<Place>,
    start: Option<Start>,
}

impl Places {
    /// Holds the pool's directories as they are now. `here` is where the
    /// supervisor was started.
    pub(crate) fn pin(pool: &config::Pool, here: &Path) -> Result<Self, PlaceError> {
        let failed = |key, path: &Path| {
            let (pool, path) = (pool.policy.name.clone(), path.to_owned());
            move |source| PlaceError {
                pool,
                key,
                path,
                source,
            }
        };
        let root = root_of(pool).map(|path| Place::pin(path).map_err(failed(ROOT, path)));
        let start = match &pool.execution.working_directory {
            Some(path) => {
                let place = Place::pin(path).map_err(failed("working_directory", path))?;
                Some(Start::new(place, true))
            }
            None => inherited(pool, here),
        };
        Ok(Self {
            root: root.transpose()?,
            start,
        })
    }

    /// Holds what another supervisor held. What an older one did not write down
    /// is what it is now.
    pub(crate) fn restore(saved: SavedPlaces, pool: &config::Pool) -> Self {
        let now = |path: &Path| Place::pin(path).ok();
        let root = match saved.root {
            Some(saved) => Some(Place::restore(saved)),
            None => root_of(pool).and_then(now),
        };
        let named = pool.execution.working_directory.as_deref();
        let place = match saved.start {
            Some(saved) => Some(Place::restore(saved)),
            None => named.and_then(now),
        };
        let named = named.is_some();
        Self {
            root,
            start: place.map(|place| Start::new(place, named)),
        }
    }

    /// What another supervisor has to know of them.
    pub(crate) fn save(&self) -> SavedPlaces {
        let start = self.start.as_ref();
        SavedPlaces {
            root: self.root.as_ref().and_then(Place::save),
            start: start.and_then(|start| start.place.save()),
        }
    }

    /// The application's settings, with the directory that is meant.
    pub(crate) fn app(&self, pool: &config::Pool) -> Result<Value, Gone> {
        let mut app = pool.app.clone();
        if let (Some(root), Value::Object(settings)) = (&self.root, &mut app) {
            let path = root.now()?;
            // The name that was checked is text; where what it leads to is none,
            // that name has to do.
            if let Some(path) = path.to_str() {
                settings.insert(ROOT.to_owned(), Value::from(path));
            }
        }
        Ok(app)
    }

    /// Where a worker starts, unless it is where the supervisor is.
    pub(crate) fn start(&self) -> Result<Option<sys::Start<'_>>, Gone> {
        let elsewhere = |start: &&Start| start.named || !start.here;
        let start = self.start.as_ref().filter(elsewhere).map(|start| {
            let directory = start.place.descriptor()?;
            Ok(sys::Start {
                directory,
                by_right: start.named,
            })
        });
        start.transpose()
    }

    /// Where relative names of a worker's start: as it is named.
    pub(crate) fn start_name(&self) -> Option<&Path> {
        self.start.as_ref().map(|start| &*start.place.given)
    }

    /// Puts the path that a file had in the place of a link that an argument
    /// leads to it by.
    pub(crate) fn resolve(&self, args: &mut [String], file: &SavedFile) {
        let Some(Start { place, .. }) = &self.start else {
            return;
        };
        let named = |arg: &&mut String| place.given.join(&**arg) == file.given;
        if let (Some(arg), Some(path)) = (args.iter_mut().find(named), file.path.to_str())
            && place.path.join(&*arg) != file.path
        {
            path.clone_into(arg);
        }
    }

    /// Why one of them can't be had any more.
    pub(crate) fn loss(&self) -> Option<String> {
        let start = self.start.as_ref().filter(|start| start.named);
        let places = self.root.iter().chain(start.map(|start| &start.place));
        let mut lost = places.filter_map(|place| place.now().err());
        lost.next().map(|gone| gone.what())
    }

    /// Whether both are the same directories.
    pub(crate) fn are_alike(&self, other: &Self) -> bool {
        self.start_alike(other) && self.serve_alike(other)
    }

    /// Whether workers of both start in one directory.
    pub(crate) fn start_alike(&self, other: &Self) -> bool {
        let identity = |places: &Self| places.start.as_ref().map(|it| it.place.identity);
        identity(self) == identity(other)
    }

    /// Whether workers of both serve one directory.
    pub(crate) fn serve_alike(&self, other: &Self) -> bool {
        let identity = |places: &Self| places.root.as_ref().map(|it| it.identity);
        identity(self) == identity(other)
    }

    /// The name that leads to another directory by now, also of the one in which the
    /// supervisor was started.
    pub(crate) fn moved(&self) -> Option<&Path> {
        let start = self.start.as_ref().map(|start| &start.place);
        let mut moved = self.root.iter().chain(start).filter(|it| it.is_outdated());
        moved.next().map(|place| &*place.given)
    }

    /// The name that leads to another directory by now, if one does.
    pub(crate) fn outdated(&self) -> Option<&Path> {
        let start = self.start.as_ref().filter(|start| start.named);
        let places = self.root.iter().chain(start.map(|start| &start.place));
        let mut outdated = places.filter(|place| place.is_outdated());
        outdated.next().map(|place| &*place.given)
    }
}

/// What the bundled web server serves, as it is named.
fn root_of(pool: &config::Pool) -> Option<&Path> {
    match pool.program {
        Program::Bundled => pool.app.get(ROOT)?.as_str().map(Path::new),
        Program::Command { .. } => None,
    }
}

/// Where the supervisor was started. Nobody named it, so that nothing fails for
/// want of it.
fn inherited(pool: &config::Pool, here: &Path) -> Option<Start> {
    let place = Place::pin(here).and_then(|place| {
        if !place.is_here() {
            access(&place.path, AccessFlags::X_OK)?;
        }
        Ok(place)
    });
    match place {
        Ok(place) => Some(Start::new(place, false)),
        Err(error) => {
            warn!(
                pool = pool.policy.name,
                "{}, where prefork was started, cannot be entered: {error}; \
                 workers start where it is now",
                here.display()
            );
            None
        }
    }
}

fn open(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
}

fn path_of(directory: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lies_in(name: &str, place: &Place) -> bool {
        place.now().is_ok_and(|path| path.ends_with(name))
    }

    #[test]
    fn a_place_is_what_its_name_led_to_wherever_that_is_by_now() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, link, moved] =
            ["one", "two", "link", "moved"].map(|name| directory.path().join(name));
        for release in [&one, &two] {
            fs::create_dir(release).unwrap();
        }
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let place = Place::pin(&link).unwrap();
        assert!(lies_in("one", &place) && !place.is_outdated());

        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert!(lies_in("one", &place) && place.is_outdated());

        // Not who has its name by now, but itself under another.
        fs::rename(&one, &moved).unwrap();
        fs::rename(&two, &one).unwrap();
        assert!(lies_in("moved", &place));
        let saved = place.save().unwrap();
        assert!(lies_in("moved", &Place::restore(saved.clone())));

        fs::remove_dir(&moved).unwrap();
        let said = place.now().unwrap_err().to_string();
        assert!(
            said.contains("has been removed") && said.contains("a reload"),
            "{said}"
        );
        fs::create_dir(&moved).unwrap();
        assert!(place.now().is_err(), "it is another directory");
        assert!(Place::restore(saved).now().is_err());
    }
}
