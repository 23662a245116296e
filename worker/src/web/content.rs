//! An opened file: as long as it was when it was opened, whatever becomes of
//! its name meanwhile.

use std::fs::File;
use std::io::{self, SeekFrom};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::{Buf, Bytes};
use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};
use tower_http::services::fs;

use crate::sys;

/// A file or directory that is open.
#[derive(Debug)]
pub(super) struct Content {
    file: Arc<File>,
    stat: Stat,
    /// Where reading goes on.
    at: u64,
    /// What a blocking thread reads, from `at`.
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// What it has read and nobody has taken yet, from `at`.
    read: Bytes,
}

/// What is known of it since it was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    is_dir: bool,
    length: u64,
    modified: SystemTime,
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
        let stat = Stat {
            is_dir: found.is_dir(),
            length: found.len(),
            modified: found.modified()?,
        };
        Ok(Self {
            file: Arc::new(file),
            stat,
            at: 0,
            reading: None,
            read: Bytes::new(),
        })
    }

    pub(super) fn stat(&self) -> Stat {
        self.stat
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..length]);
        self.read.advance(length);
        self.at += length as u64;
    }
}

impl AsyncRead for Content {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(reading) = &mut this.reading {
            let read = ready!(Pin::new(reading).poll(cx));
            this.reading = None;
            this.read = read.map_err(io::Error::other)??.into();
        }
        if !this.read.is_empty() {
            this.give(buf);
            return Poll::Ready(Ok(()));
        }
        let left = this.stat.length.saturating_sub(this.at);
        let want = usize::try_from(left).map_or(buf.remaining(), |left| left.min(buf.remaining()));
        if want == 0 {
            return Poll::Ready(Ok(()));
        }
        match sys::read_cached(&this.file, this.at, buf, want) {
            Ok(0) => Poll::Ready(Err(shortened())),
            Ok(read) => {
                this.at += read as u64;
                Poll::Ready(Ok(()))
            }
            // It is not in memory, or this file system can't tell.
            Err(_) => {
                let (file, at) = (Arc::clone(&this.file), this.at);
                this.reading = Some(spawn_blocking(move || read_from_disk(&file, at, want)));
                Pin::new(this).poll_read(cx, buf)
            }
        }
    }
}

fn read_from_disk(file: &File, at: u64, want: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; want];
    let read = loop {
        match file.read_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if read == 0 {
        return Err(shortened());
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// The length was promised in the response's head, so the connection has to
/// break: the client learns that it has not everything.
fn shortened() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file became shorter while it was sent",
    )
}

impl AsyncSeek for Content {
    fn start_seek(self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let this = self.get_mut();
        let from = |base: u64, offset: i64| {
            base.checked_add_signed(offset)
                .ok_or_else(|| io::Error::from(Errno::EINVAL))
        };
        this.at = match position {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(offset) => from(this.at, offset)?,
            SeekFrom::End(offset) => from(this.stat.length, offset)?,
        };
        this.reading = None;
        this.read = Bytes::new();
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at))
    }
}

impl fs::File for Content {
    type Metadata = Stat;
    type MetadataFuture<'a> = std::future::Ready<io::Result<Stat>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        std::future::ready(Ok(self.stat))
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

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(self.modified)
    }

    fn len(&self) -> u64 {
        self.length
    }
}
