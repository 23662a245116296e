//! The directory that is served, and the only way to what is in it.
//!
//! The directory is opened once and everything is opened beneath that
//! descriptor, so the kernel itself sees to it that no path leaves it: neither
//! `..` nor a symbolic link, and none that is put there between a check and the
//! use, since there is no check apart from the use (openat2(2),
//! `RESOLVE_BENEATH`).
//!
//! What the kernel has in its caches is opened and read at once, on the serving
//! thread (`RESOLVE_CACHED`, `RWF_NOWAIT`). What a disk has to be waited for is
//! left to the runtime's blocking threads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use tokio::task::{JoinHandle, spawn_blocking};
use tower_http::services::fs::Backend;

use super::content::{Content, Opened, Source, Stat};

/// Where symbolic links may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Links {
    /// Wherever their target is beneath the root, written as a relative path.
    #[default]
    Inside,
    /// Wherever they point.
    Anywhere,
}

/// The directory that is served. A clone is for one request.
#[derive(Debug)]
pub(super) struct Root {
    directory: Arc<OwnedFd>,
    way: Way,
    /// What was found last, so that it is opened once and not once more.
    found: Mutex<Option<(PathBuf, Content)>>,
    /// The file that the file service has chosen.
    chosen: Arc<Mutex<Option<Arc<Source>>>>,
    /// What is to be served at its path, whatever is there by now.
    again: Option<Arc<Source>>,
}

/// How paths are resolved.
#[derive(Debug, Clone, Copy)]
struct Way {
    resolve: ResolveFlag,
    /// Whether the kernel can say that it would have to wait (Linux 5.12).
    cached: bool,
}

const CACHED: ResolveFlag = ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED);

impl Root {
    /// Opens the directory, as it is found now.
    ///
    /// # Errors
    /// It can't be opened or read, or the kernel is older than 5.6.
    pub(super) fn open(path: &Path, links: Links) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let directory = open(path, flags, Mode::empty())?;
        let mut way = Way {
            resolve: match links {
                Links::Inside => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS,
                Links::Anywhere => ResolveFlag::empty(),
            },
            cached: false,
        };
        way.open(&directory, Path::new("."), flags)
            .map_err(|errno| match errno {
                Errno::ENOSYS => {
                    io::Error::other("this kernel has no openat2(2); it takes Linux 5.6 or later")
                }
                other => other.into(),
            })?;
        way.cached = match way.open_cached(&directory, Path::new("."), flags) {
            Err(Errno::EINVAL) => false,
            Ok(_) | Err(_) => true,
        };
        Ok(Self {
            directory: Arc::new(directory),
            way,
            found: Mutex::default(),
            chosen: Arc::default(),
            again: None,
        })
    }

    /// The same directory, for another request, or for the same one `again`: then
    /// its file is the one that was opened before.
    pub(super) fn for_request(&self, again: Option<Arc<Source>>) -> Self {
        Self {
            chosen: Arc::default(),
            again,
            ..self.clone()
        }
    }

    /// The file that was opened last, to be sent.
    pub(super) fn take_chosen(&self) -> Option<Arc<Source>> {
        self.chosen().take()
    }

    fn chosen(&self) -> MutexGuard<'_, Option<Arc<Source>>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file again, however long that takes.
    ///
    /// # Errors
    /// As openat2(2) says.
    pub(super) fn reopen(&self, path: &Path) -> io::Result<Content> {
        let file = self.way.open(&self.directory, path, READ)?;
        Content::new(file.into())
    }

    /// Whether there is a file at a path.
    ///
    /// # Errors
    /// Why there is none, or none that can be read.
    pub(super) fn has_file(&self, path: &Path) -> io::Result<()> {
        let content = match self.way.open(&self.directory, path, READ) {
            Ok(fd) => Content::new(fd.into()),
            Err(errno) => self.refused(path, errno),
        };
        if content?.stat().is_dir() {
            return Err(Errno::EISDIR.into());
        }
        Ok(())
    }

    /// Finds what is at a path: at once if the kernel need not wait for it.
    fn find(&self, path: &Path) -> Finding {
        if self.way.cached {
            match self.way.open_cached(&self.directory, path, READ) {
                Ok(fd) => return Finding::now(Content::new(fd.into())),
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Finding::now(self.refused(path, errno)),
            }
        }
        let (this, path) = (self.clone(), path.to_owned());
        Finding::later(move || match this.way.open(&this.directory, &path, READ) {
            Ok(fd) => Content::new(fd.into()),
            Err(errno) => this.refused(&path, errno),
        })
    }

    /// What can't be opened; a directory that may be passed through but not
    /// read is there nevertheless.
    fn refused(&self, path: &Path, errno: Errno) -> io::Result<Content> {
        let error = match errno {
            Errno::EACCES => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                match self.way.open(&self.directory, path, flags) {
                    Ok(fd) => return Content::new(fd.into()),
                    Err(_) => errno,
                }
            }
            // The path leaves the root, turns in a circle, or is no name at all;
            // or it is a socket, or a pipe or device behind which nobody is.
            Errno::EXDEV | Errno::ELOOP | Errno::ENAMETOOLONG | Errno::ENXIO | Errno::ENODEV => {
                Errno::ENOENT
            }
            other => other,
        };
        Err(error.into())
    }

    fn remembered(&self, path: &Path) -> Option<Content> {
        let found = self.found().take_if(|(known, _)| known == path)?;
        Some(found.1)
    }

    fn remember(&self, path: PathBuf, content: Content) {
        *self.found() = Some((path, content));
    }

    fn found(&self) -> MutexGuard<'_, Option<(PathBuf, Content)>> {
        // The lock is there because a service is `Sync`; nobody else takes it.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not waiting for a pipe's other end, and not taking a terminal over.
const READ: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY);

impl Way {
    fn open(&self, directory: &OwnedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.attempt(directory, path, flags, self.resolve)
    }

    fn open_cached(&self, directory: &OwnedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        self.attempt(directory, path, flags, self.resolve | CACHED)
    }

    fn attempt(
        &self,
        directory: &OwnedFd,
        path: &Path,
        flags: OFlag,
        resolve: ResolveFlag,
    ) -> nix::Result<OwnedFd> {
        let how = OpenHow::new().flags(flags).resolve(resolve);
        let mut tries = 0;
        loop {
            match openat2(directory.as_fd(), path, how) {
                // Something was renamed meanwhile (openat2(2)); a lookup that
                // may not wait is left to one that may.
                Err(Errno::EAGAIN) if !resolve.contains(CACHED) && tries < 100 => tries += 1,
                Err(Errno::EINTR) => {}
                opened => return opened,
            }
        }
    }
}

impl Clone for Root {
    fn clone(&self) -> Self {
        Self {
            directory: Arc::clone(&self.directory),
            way: self.way,
            found: Mutex::default(),
            chosen: Arc::clone(&self.chosen),
            again: self.again.clone(),
        }
    }
}

impl Backend for Root {
    type File = Opened;
    type Metadata = Stat;
    type OpenFuture = Opening;
    type MetadataFuture = Looking;

    fn open(&self, path: PathBuf) -> Opening {
        let finding = match self.remembered(&path) {
            Some(content) => Finding::now(Ok(content)),
            None => self.find(&path),
        };
        Opening {
            finding,
            file: Some((self.clone(), path)),
        }
    }

    fn metadata(&self, path: PathBuf) -> Looking {
        let finding = match self.remembered(&path) {
            Some(content) => Finding::now(Ok(content)),
            None => self.find(&path),
        };
        match finding {
            Finding::Now(found) => Looking::Seen(found.map(|found| {
                let content = found?;
                let stat = content.stat();
                self.remember(path, content);
                Ok(stat)
            })),
            waiting => Looking::Waiting(waiting),
        }
    }
}

/// What is at a path: known already, or looked for on another thread.
#[derive(Debug)]
pub(super) enum Finding {
    Now(Option<io::Result<Content>>),
    Later(JoinHandle<io::Result<Content>>),
}

impl Finding {
    fn now(found: io::Result<Content>) -> Self {
        Self::Now(Some(found))
    }

    fn later(find: impl FnOnce() -> io::Result<Content> + Send + 'static) -> Self {
        Self::Later(spawn_blocking(find))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Content>> {
        match self {
            Self::Now(found) => Poll::Ready(found.take().expect(ONCE)),
            Self::Later(finding) => {
                let found = ready!(Pin::new(finding).poll(cx));
                Poll::Ready(found.unwrap_or_else(|error| Err(io::Error::other(error))))
            }
        }
    }
}

const ONCE: &str = "a future is not polled after it is done";

/// A file that is being opened to be served.
#[derive(Debug)]
pub(super) struct Opening {
    finding: Finding,
    /// Where it is.
    file: Option<(Root, PathBuf)>,
}

/// What may not be read is not there: only for what is not there does the file
/// service look for another form of the same file.
fn absent(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => Errno::ENOENT.into(),
        _ => error,
    }
}

impl Future for Opening {
    type Output = io::Result<Opened>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (root, path) = self.file.as_ref().expect(ONCE);
        let before = root.again.as_ref().filter(|it| it.path() == path);
        let source = match before {
            Some(before) => before.again(),
            None => {
                let content = ready!(self.finding.poll(cx)).map_err(absent)?;
                // There is nothing to read in a directory that is called index.html.
                if content.stat().is_dir() {
                    return Poll::Ready(Err(Errno::ENOENT.into()));
                }
                let (root, path) = self.file.take().expect(ONCE);
                let chosen = Arc::clone(&root.chosen);
                return Poll::Ready(Ok(choose(
                    &chosen,
                    Source::new(content, root.for_request(None), path),
                )));
            }
        };
        Poll::Ready(Ok(choose(&root.chosen, source)))
    }
}

/// Notes the file that the file service has chosen.
fn choose(chosen: &Mutex<Option<Arc<Source>>>, source: Source) -> Opened {
    let source = Arc::new(source);
    *chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&source));
    Opened(source)
}

/// A file or directory that is being looked at.
#[derive(Debug)]
pub(super) enum Looking {
    Seen(Option<io::Result<Stat>>),
    Waiting(Finding),
}

impl Future for Looking {
    type Output = io::Result<Stat>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Seen(seen) => Poll::Ready(seen.take().expect(ONCE)),
            Self::Waiting(finding) => finding.poll(cx).map_ok(|content| content.stat()),
        }
    }
}
