//! Replacing `state.json` on a disk that others may have filled.
//!
//! Two files take turns. The next state is written over the last but one, whose
//! blocks are still there, and the two change their names at once
//! (`RENAME_EXCHANGE`). Blocks beyond the end are reserved, so that a state may grow.
//! A writer locks the file that it writes over (`flock`): a reader that opened it
//! while it was the state finds that out, and opens the state that there is by now.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use serde::Serialize;

/// Written at once.
const PIECE: usize = 64 * 1024;

/// Room is reserved in multiples of this.
const ROOM_STEP: u64 = 64 * 1024;

/// A file that is so many times larger than what is to be in it is cut.
const MOST_PADDING: u64 = 4;

/// How often a reader looks for a file that nobody writes over. Each time that it finds one
/// locked there has been a whole write since, unless somebody locks them who is no supervisor.
const LOOKS: usize = 16;

/// The file that the next state is written to.
pub(super) fn spare(state: &Path) -> PathBuf {
    state.with_extension("json.new")
}

/// Writes `document` to a file that takes the place of `state`.
pub(super) fn replace(state: &Path, document: &impl Serialize) -> io::Result<()> {
    let spare = spare(state);
    let mut file = claim(&spare)?;
    // What a shorter state does not cover is covered by blanks, which JSON may end
    // with: giving blocks back would give them to whoever fills the disk.
    let covered = file.metadata()?.len();
    let length = write_document(&mut file, document)?;
    if covered > length.saturating_mul(MOST_PADDING) {
        file.set_len(length)?;
    } else {
        pad(&mut file, covered.saturating_sub(length))?;
    }
    reserve(&file, length);
    exchange(&spare, state)?;
    // It is the state now, and whoever opened it may read it.
    drop(file);
    // The first state had nothing to change places with.
    if let Ok(spare) = claim(&spare) {
        reserve(&spare, length);
    }
    Ok(())
}

/// Opens what is to be read; another one if a writer has begun to write over it since.
pub(super) fn settled(open: impl Fn() -> io::Result<File>) -> io::Result<File> {
    let mut file = open()?;
    for _ in 1..LOOKS {
        if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            break;
        }
        file = open()?;
    }
    Ok(file)
}

/// The spare file, locked. It will hold the secret, and the whole configuration.
fn claim(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    // Where a file system has no locks nothing is waited for.
    if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Ok(file);
    }
    // Somebody still reads it. It is theirs, and another takes its place.
    fs::remove_file(path)?;
    open(path)
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() != 1 {
        // Writing to it would write to another's file.
        let why = "what lies in its place is no file, or has other names";
        return Err(io::Error::other(why));
    }
    Ok(file)
}

/// Writes it piece by piece, for it can be megabytes; says how long it is.
fn write_document(file: &mut File, document: &impl Serialize) -> io::Result<u64> {
    let mut pieces = BufWriter::with_capacity(PIECE, &mut *file);
    serde_json::to_writer(&mut pieces, document)?;
    pieces.flush()?;
    drop(pieces);
    file.stream_position()
}

/// Writes so many blanks.
fn pad(file: &mut File, length: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(b' '), length), file).map(drop)
}

/// Sees that a state of this length, and one that is half as long again, finds its blocks
/// there. A disk or a file system that has none to give is not the fault of this
/// write: the next one says whether it matters.
fn reserve(file: &File, length: u64) {
    let held = file.metadata().map_or(0, |found| found.blocks() * 512);
    if held < length + length / 4 {
        let room = (length + length / 2).next_multiple_of(ROOM_STEP);
        let room = i64::try_from(room).unwrap_or(i64::MAX);
        let _ = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, room);
    }
}

/// Has the two files change their names; only renames where there is no state yet, or where the
/// file system can't (NFS, some FUSE).
fn exchange(spare: &Path, state: &Path) -> io::Result<()> {
    let flags = RenameFlags::RENAME_EXCHANGE;
    match renameat2(AT_FDCWD, spare, AT_FDCWD, state, flags) {
        Ok(()) => Ok(()),
        Err(_) => fs::rename(spare, state),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tempfile::TempDir;

    use super::*;

    fn directory() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state.json");
        (dir, state)
    }

    fn read(mut file: &File) -> String {
        let text = serde_json::from_reader(&mut file);
        text.unwrap()
    }

    #[test]
    fn a_shorter_state_gives_no_blocks_back_and_a_far_shorter_one_does() {
        let (_dir, state) = directory();
        for length in [100_000, 100_000, 60_000, 60_000] {
            replace(&state, &"x".repeat(length)).unwrap();
            assert_eq!(read(&File::open(&state).unwrap()).len(), length);
            assert!(fs::metadata(&state).unwrap().len() > 100_000);
        }
        for _ in 0..2 {
            replace(&state, &"short").unwrap();
        }
        assert_eq!(fs::read_to_string(&state).unwrap(), "\"short\"");
    }

    #[test]
    fn nobody_reads_a_state_that_is_written_over() {
        let (_dir, state) = directory();
        replace(&state, &"first").unwrap();
        let mut early = settled(|| File::open(&state)).unwrap();
        replace(&state, &"second").unwrap();
        replace(&state, &"third").unwrap();
        let mut text = String::new();
        early.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\"first\"", "its reader held it");
        // Who opens the last but one, and locks it too late, finds the last.
        let writing = claim(&spare(&state)).unwrap();
        let opened = std::cell::Cell::new(0);
        let late = settled(|| {
            opened.set(opened.get() + 1);
            match opened.get() {
                1 => File::open(spare(&state)),
                _ => File::open(&state),
            }
        });
        assert_eq!(read(&late.unwrap()), "third");
        drop(writing);
    }
}
