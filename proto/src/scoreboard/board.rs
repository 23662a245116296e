//! The supervisor's side: makes, seals and reads a scoreboard.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::{BYTES, ScoreboardError, Snapshot};
use crate::error::{Call, SystemError};
use crate::message::HttpCounts;
use crate::sealed::{self, seals};
use crate::sys::ReadOnly;
use crate::system_error::refused;

/// The size as the system calls want it.
const LENGTH: i64 = BYTES as i64;

/// From birth: the memory keeps its size.
const AT_BIRTH: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// Once the worker has mapped it: no new writable mapping, no `write`, no hole
/// (which SHRINK and GROW alone allow), and no further seal.
const ONCE_MAPPED: SealFlag = SealFlag::F_SEAL_FUTURE_WRITE.union(SealFlag::F_SEAL_SEAL);

/// Makes the memory, and a second descriptor for the worker. Both are
/// close-on-exec; the size is fixed and its page is there.
///
/// # Errors
/// [`ScoreboardError::System`] with what the kernel lacks.
pub fn create() -> Result<(Unsealed, OwnedFd), ScoreboardError> {
    let memory = sealed::unsealed(c"prefork-scoreboard")?;
    ftruncate(&memory, LENGTH).map_err(refused(Call::Ftruncate))?;
    reserve(&memory)?;
    add_seals(&memory, AT_BIRTH)?;
    let theirs = sealed::duplicate(&memory)?;
    Ok((Unsealed(memory), theirs))
}

/// Puts memory under the whole size, so that reading it can't fail for want of
/// any: a read that does is SIGBUS.
fn reserve(memory: &OwnedFd) -> Result<(), SystemError> {
    fallocate(memory, FallocateFlags::empty(), 0, LENGTH).map_err(refused(Call::Fallocate))
}

fn add_seals(memory: &OwnedFd, seals: SealFlag) -> Result<(), SystemError> {
    match fcntl(memory, FcntlArg::F_ADD_SEALS(seals)) {
        Ok(_) => Ok(()),
        Err(errno) => Err(SystemError::new(Call::AddSeals, errno)),
    }
}

/// A scoreboard that its worker may still map. It is not read before it is
/// sealed.
#[derive(Debug)]
pub struct Unsealed(OwnedFd);

impl Unsealed {
    /// Goes on with memory of which [`create`] made an unsealed scoreboard.
    /// Whether it is one shows when it is sealed.
    pub fn resume(memory: OwnedFd) -> Self {
        Self(memory)
    }

    /// Ends the time in which the worker can map it for writing; to be called
    /// at its `ready`.
    ///
    /// # Errors
    /// As [`Board::adopt`].
    pub fn seal(self) -> Result<Board, ScoreboardError> {
        Board::adopt(self.0)
    }
}

/// The memory, to be handed to the program that takes this one's place.
impl AsFd for Unsealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A sealed scoreboard, mapped read-only.
#[derive(Debug)]
pub struct Board {
    cells: ReadOnly,
    memory: OwnedFd,
}

impl Board {
    /// Maps a scoreboard that came from elsewhere: from the supervisor that was
    /// here before, or back from its worker. Trusts nothing: it is sealed if it
    /// is not, and refused if it can't be.
    ///
    /// # Errors
    /// [`Seals`](ScoreboardError::Seals) or [`Size`](ScoreboardError::Size)
    /// where it is not what [`create`] made, [`System`](ScoreboardError::System)
    /// where the kernel refuses something, for instance because the descriptor
    /// is of something else.
    pub fn adopt(memory: OwnedFd) -> Result<Self, ScoreboardError> {
        if !seals(&memory)?.contains(SealFlag::F_SEAL_SEAL) {
            add_seals(&memory, ONCE_MAPPED)?;
        }
        let found = seals(&memory)?;
        let missing = AT_BIRTH.union(ONCE_MAPPED).difference(found);
        if !missing.is_empty() {
            return Err(ScoreboardError::Seals {
                found: found.bits(),
                missing: missing.bits(),
            });
        }
        // From here on the size stays what it is.
        let size = fstat(&memory).map_err(refused(Call::Fstat))?.st_size;
        if size != LENGTH {
            return Err(ScoreboardError::Size { found: size });
        }
        // Before the seal a hostile worker could punch holes; this fills them.
        reserve(&memory)?;
        // SAFETY: its seals keep it from shrinking, and it is of the right length and filled.
        #[expect(unsafe_code, reason = "what it takes has just been checked")]
        let cells = unsafe { ReadOnly::map(memory.as_fd()) }.map_err(refused(Call::Mmap))?;
        Ok(Self { cells, memory })
    }

    /// What the worker has counted so far; never blocks, never faults.
    pub fn read(&self) -> Snapshot {
        let cells = &*self.cells;
        Snapshot {
            http: HttpCounts {
                requests: cells.requests.each_ref().map(|cell| cell.get()),
                accepted: cells.accepted.get(),
                received_bytes: cells.received_bytes.get(),
                sent_bytes: cells.sent_bytes.get(),
                duration_buckets: cells.duration_buckets.each_ref().map(|cell| cell.get()),
                duration_sum_us: cells.duration_sum_us.get(),
                panics: cells.panics.get(),
                tls_failures: cells.tls_failures.each_ref().map(|cell| cell.get()),
            },
            in_flight: cells.in_flight.get(),
            connections: cells.connections.get(),
        }
    }
}

/// The memory, to be handed to a supervisor that comes after this one.
impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}
