//! Appending to a file that several processes append to, so that a disk that is
//! full for a while leaves no half line behind.
//!
//! write(2) takes what still fits and fails with the next call. What it took of a
//! line is then cut off again, which is safe as long as nobody has appended to it:
//! so the workers take turns by a lock of the process (fcntl(2)), since they
//! share the open file and with it every other kind of lock.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// How long to wait for one's turn: who has it may be stopped, and lines would be
/// lost for it. Without a turn, lines are appended all the same.
const TURN: Duration = Duration::from_millis(500);

/// The first wait between two tries; the next ones are longer.
const TRY_AGAIN: Duration = Duration::from_micros(100);
const TRY_AGAIN_MOST: Duration = Duration::from_millis(10);

/// What a file's last line is known to be.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// A half line could not be cut off: the next line has to begin a new one.
    is_torn: AtomicBool,
}

impl Whole {
    /// Appends whole lines; how many bytes at their end are not in the file.
    pub(super) fn append(&self, file: &File, lines: &[u8]) -> usize {
        let turn = Turn::take(file);
        if self.is_torn.load(Ordering::Relaxed) {
            if write_all(file, b"\n") > 0 {
                return lines.len();
            }
            self.is_torn.store(false, Ordering::Relaxed);
        }
        let taken = lines.len() - write_all(file, lines);
        let end = lines[..taken].iter().rposition(|byte| *byte == b'\n');
        let whole = end.map_or(0, |end| end + 1);
        if whole < taken && cut_off(file, (taken - whole) as u64).is_err() {
            self.is_torn.store(true, Ordering::Relaxed);
        }
        drop(turn);
        lines.len() - whole
    }
}

/// How many bytes at the end could not be written.
fn write_all(mut file: &File, bytes: &[u8]) -> usize {
    let mut left = bytes;
    while !left.is_empty() {
        match file.write(left) {
            Ok(0) => break,
            Ok(written) => left = &left[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    left.len()
}

/// Takes away the last bytes that were written here, unless somebody has written
/// after them.
fn cut_off(mut file: &File, half: u64) -> io::Result<()> {
    let end = file.stream_position()?;
    if file.metadata()?.len() != end || end < half {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    file.set_len(end - half)?;
    // A file that is not appended to would get a hole.
    file.seek(SeekFrom::Start(end - half)).map(drop)
}

/// The time in which no other worker appends.
struct Turn<'a>(Option<&'a File>);

impl<'a> Turn<'a> {
    fn take(file: &'a File) -> Self {
        let begun = Instant::now();
        let mut pause = TRY_AGAIN;
        loop {
            match lock(file, libc::F_WRLCK) {
                Ok(()) => return Self(Some(file)),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) if begun.elapsed() < TURN => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(TRY_AGAIN_MOST);
                }
                // Or a file system has no locks.
                Err(_) => return Self(None),
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.0 {
            // It ends with the process, too.
            let _ = lock(file, libc::F_UNLCK);
        }
    }
}

fn lock(file: &File, kind: libc::c_int) -> nix::Result<()> {
    let whole_file = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_SETLK(&whole_file)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_half_line_is_cut_off_unless_somebody_wrote_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let open = || File::options().create(true).append(true).open(&path);
        let file = open().unwrap();
        assert_eq!(Whole::default().append(&file, b"one\ntwo\n"), 0);
        assert_eq!(write_all(&file, b"thr"), 0);
        cut_off(&file, 3).unwrap();
        assert_eq!(write_all(&file, b"thr"), 0);
        assert_eq!(write_all(&open().unwrap(), b"four\n"), 0);
        cut_off(&file, 3).unwrap_err();
        let torn = Whole::default();
        torn.is_torn.store(true, Ordering::Relaxed);
        assert_eq!(torn.append(&file, b"five\n"), 0);
        assert_eq!(torn.append(&file, b"six\n"), 0);
        let mut text = String::new();
        File::open(&path)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "one\ntwo\nthrfour\n\nfive\nsix\n");
    }
}
