//! What is found at a path: as long as it was when it was opened, whatever
//! becomes of its name meanwhile.

use std::fs::{File, Metadata};
use std::io::{self, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs;

use super::root::Root;
use crate::sys;

/// A file or directory that is open.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    stat: Stat,
}

/// What is known of it since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) is_dir: bool,
    pub(super) length: u64,
    /// The device and the number of the file on it.
    pub(super) inode: (u64, u64),
    /// When it was modified, as whoever wrote it may say: seconds since the epoch
    /// and nanoseconds.
    pub(super) modified: (i64, i64),
    /// When anything of it changed, as the kernel says.
    pub(super) changed: (i64, i64),
}

impl Stat {
    fn of(found: &Metadata) -> Self {
        Self {
            is_dir: found.is_dir(),
            length: found.len(),
            inode: (found.dev(), found.ino()),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Content {
    /// Takes an open file in.
    ///
    /// # Errors
    /// ENOENT for what is neither a file nor a directory: reading a pipe or a
    /// device may have no end, or consequences.
    pub(super) fn new(file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        if !found.is_file() && !found.is_dir() {
            return Err(Errno::ENOENT.into());
        }
        let stat = Stat::of(&found);
        Ok(Self { file, stat })
    }

    pub(super) fn stat(&self) -> Stat {
        self.stat
    }
}

/// A file that is sent. Its descriptor can be given up meanwhile: it is opened
/// again when there is more to be read.
#[derive(Debug)]
pub(super) struct Source {
    file: Mutex<Option<Arc<File>>>,
    stat: Stat,
    root: Root,
    path: PathBuf,
    /// Where to begin.
    begin: AtomicU64,
}

impl Source {
    /// What was found at this path beneath the root.
    pub(super) fn new(content: Content, root: Root, path: PathBuf) -> Self {
        Self {
            file: Mutex::new(Some(Arc::new(content.file))),
            stat: content.stat,
            root,
            path,
            begin: AtomicU64::new(0),
        }
    }

    /// The same file once more, from its beginning.
    pub(super) fn again(&self) -> Self {
        Self {
            file: Mutex::new(self.file().clone()),
            stat: self.stat,
            root: self.root.clone(),
            path: self.path.clone(),
            begin: AtomicU64::new(0),
        }
    }

    /// What is known of it since it was opened.
    pub(super) fn stat(&self) -> Stat {
        self.stat
    }

    /// Where it is beneath the root.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where to begin to read.
    pub(super) fn begin(&self) -> u64 {
        self.begin.load(Relaxed)
    }

    fn file(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        // It is only ever replaced as a whole.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has its descriptor.
    pub(super) fn is_open(&self) -> bool {
        self.file().is_some()
    }

    /// Gives its descriptor up.
    pub(super) fn close(&self) {
        *self.file() = None;
    }

    /// Reads at most so many bytes if they are in memory; `None` if a disk would
    /// have to be waited for.
    pub(super) fn read_cached(&self, at: u64, want: usize) -> Option<Vec<u8>> {
        let file = self.file();
        // No file system can tell it of all, and what an error is shows when it is waited for.
        sys::read_cached(file.as_ref()?, at, want).ok()
    }

    /// Reads at most so many bytes, however long that takes.
    ///
    /// # Errors
    /// It can't be read, or what is there now is not what was begun with.
    pub(super) fn read(&self, at: u64, want: usize) -> io::Result<Vec<u8>> {
        let open = self.file().clone();
        let file = match open {
            Some(file) => file,
            None => {
                let file = self.reopen()?;
                *self.file() = Some(Arc::clone(&file));
                file
            }
        };
        read(&file, at, want)
    }

    /// The file, to be read at once: if its descriptor was given up, it stays so.
    ///
    /// # Errors
    /// It can't be opened, or what is there now is not what was begun with.
    pub(super) fn for_a_moment(&self) -> io::Result<Arc<File>> {
        let open = self.file().clone();
        open.map_or_else(|| self.reopen(), Ok)
    }

    fn reopen(&self) -> io::Result<Arc<File>> {
        let content = self.root.reopen(&self.path)?;
        if content.stat != self.stat {
            return Err(io::Error::other(
                "the file was replaced while its reader stood still",
            ));
        }
        Ok(Arc::new(content.file))
    }
}

/// Reads at most so many bytes of a file, however long that takes.
///
/// # Errors
/// As pread(2) says.
pub(super) fn read(file: &File, at: u64, want: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; want];
    let read = loop {
        match file.read_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    bytes.truncate(read);
    Ok(bytes)
}

/// A file as the file service sees it: it looks for a place in it, and what
/// is there is read by [`Sending`](super::body::Sending).
#[derive(Debug)]
pub(super) struct Opened(pub(super) Arc<Source>);

impl AsyncRead for Opened {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl AsyncSeek for Opened {
    fn start_seek(self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let SeekFrom::Start(at) = position else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.0.begin.store(at, Relaxed);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.0.begin()))
    }
}

impl fs::File for Opened {
    type Metadata = Stat;
    type MetadataFuture<'a> = std::future::Ready<io::Result<Stat>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.0.stat))
    }
}

impl Stat {
    pub(super) fn is_dir(&self) -> bool {
        self.is_dir
    }
}

impl fs::Metadata for Stat {
    fn is_dir(&self) -> bool {
        self.is_dir
    }

    /// None: what is said of a file's version is said in `version`, as the file
    /// service says it of times that no header can hold, and of other versions.
    fn modified(&self) -> io::Result<SystemTime> {
        Err(Errno::ENODATA.into())
    }

    fn len(&self) -> u64 {
        self.length
    }
}
