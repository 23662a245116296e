//! Shared memory in which all processes that forward to a pool count the requests that
//! they have at each of its workers, so that a worker gets no more than it can take
//! from all of them together.
//!
//! The memory has a *row* for each process that forwards and, in each row, a *cell* for
//! each process behind. A row is written by its own process alone and read by all: what
//! a worker has is the sum of its cells. So a process that is killed leaves behind
//! exactly one row, which the supervisor [clears](Ledger::clear).
//!
//! The supervisor makes a [`Ledger`] for each pool behind and hands it over with
//! `places`; a process that forwards maps it as its [`Row`]. What a hostile one writes
//! there has requests sent elsewhere, or to nobody, and nothing else: neither side takes
//! an address, an index or a length from the memory.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use nix::sys::uio::pwrite;

use crate::error::{Call, SystemError};
use crate::message::PlacesOffer;
use crate::sealed::{self, Flaw, Sealed};
use crate::sys::SharedCells;
use crate::system_error::refused;

/// The layout's version, the `abi` of `places`.
pub const ABI: u32 = 1;

/// Rows that there are.
pub const ROWS: u32 = 256;

/// Cells of a row.
pub const CELLS: u32 = 1024;

/// Cells before the first row. The first of them says how many rows were ever given out.
const HEADER: u32 = 16;

/// A cell's size.
const CELL: u32 = size_of::<u32>() as u32;

/// The layout's size in bytes.
pub const BYTES: u64 = ((HEADER + ROWS * CELLS) * CELL) as u64;

/// Why there is no such memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacesError {
    /// The kernel refused a step.
    #[error("no shared count of requests: {0}")]
    System(#[from] SystemError),

    /// It may become smaller under whoever reads it.
    #[error("no shared count of requests: its seals are {found:#x}; no supervisor made it")]
    Seals {
        /// The seals it has, as `F_GET_SEALS` gives them.
        found: i32,
    },

    /// It is not of its size, or of another version.
    #[error(
        "no shared count of requests: it has {bytes} bytes by layout {abi}, \
         and {BYTES} by layout {ABI} are known here"
    )]
    Layout {
        /// The version that `places` says.
        abi: u32,
        /// The memory's size in bytes.
        bytes: i64,
    },

    /// The row is none of those that there are.
    #[error("no shared count of requests: there is no row {row}, only {ROWS}")]
    Row {
        /// The row that `places` says.
        row: u32,
    },
}

impl From<Flaw> for PlacesError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::System(error) => error.into(),
            Flaw::Seals(found) => Self::Seals { found },
        }
    }
}

/// What a process that forwards to this pool and has this row is told with the memory.
pub fn offer(pool: &str, row: u32) -> PlacesOffer {
    PlacesOffer {
        pool: pool.to_owned(),
        row,
        abi: ABI,
        bytes: BYTES,
        fds: 1,
    }
}

/// The supervisor's side: gives out rows and clears them.
#[derive(Debug)]
pub struct Ledger {
    memory: OwnedFd,
    /// Which rows belong to somebody.
    taken: Vec<bool>,
}

impl Ledger {
    /// Makes the memory, close-on-exec and of a fixed size, with every count at 0.
    ///
    /// # Errors
    /// [`PlacesError::System`] with what the kernel lacks.
    pub fn create() -> Result<Self, PlacesError> {
        let memory = sealed::create(c"prefork-places", BYTES)?;
        Ok(Self {
            memory,
            taken: Vec::new(),
        })
    }

    /// A descriptor of the memory to hand over.
    ///
    /// # Errors
    /// There is none left.
    pub fn duplicate(&self) -> Result<OwnedFd, PlacesError> {
        Ok(sealed::duplicate(&self.memory)?)
    }

    /// Gives out a row; `None` where every row is somebody's.
    ///
    /// # Errors
    /// The kernel does not write it.
    pub fn take(&mut self) -> Result<Option<u32>, PlacesError> {
        let free = self.taken.iter().position(|taken| !taken);
        let index = free.unwrap_or(self.taken.len());
        let row = u32::try_from(index).unwrap_or(ROWS);
        if row >= ROWS {
            return Ok(None);
        }
        if free.is_none() {
            // Before its owner writes to it, so that nobody overlooks what that writes.
            self.write(0, &(row + 1).to_ne_bytes())?;
            self.taken.push(false);
        }
        self.taken[index] = true;
        Ok(Some(row))
    }

    /// Takes back the row of a process that has ended: it has nothing anywhere.
    ///
    /// # Errors
    /// The kernel does not write it; the row is not given out again then.
    pub fn clear(&mut self, row: u32) -> Result<(), PlacesError> {
        let at = (HEADER + row * CELLS) * CELL;
        self.write(at, &[0; (CELLS * CELL) as usize])?;
        if let Some(taken) = self.taken.get_mut(row as usize) {
            *taken = false;
        }
        Ok(())
    }

    fn write(&self, at: u32, bytes: &[u8]) -> Result<(), SystemError> {
        pwrite(&self.memory, bytes, i64::from(at)).map_err(refused(Call::Pwrite))?;
        Ok(())
    }
}

/// The side of a process that forwards: its own row, and a look at all.
#[derive(Debug)]
pub struct Row {
    cells: SharedCells<AtomicU32>,
    row: usize,
}

impl Row {
    /// Maps what `places` brought.
    ///
    /// # Errors
    /// It is not what [`Ledger::create`] made, or the kernel refuses something.
    pub fn map(offer: &PlacesOffer, memory: OwnedFd) -> Result<Self, PlacesError> {
        let sealed = Sealed::look(&memory)?;
        let bytes = sealed.bytes;
        if offer.abi != ABI || u64::try_from(bytes) != Ok(BYTES) {
            let abi = offer.abi;
            return Err(PlacesError::Layout { abi, bytes });
        }
        if offer.row >= ROWS {
            return Err(PlacesError::Row { row: offer.row });
        }
        Ok(Self {
            cells: sealed.map()?,
            row: offer.row as usize,
        })
    }

    /// Says how many requests this process has at the worker of that cell. It is seen
    /// by others before anything that this process sees afterwards of them.
    pub fn set(&self, place: u32, requests: u32) {
        if let Some(cell) = self.cells.get(index(self.row, place)) {
            cell.store(requests, SeqCst);
        }
    }

    /// How many requests all processes have at the worker of that cell.
    pub fn load(&self, place: u32) -> u32 {
        let rows = self.cells[0].load(SeqCst).min(ROWS) as usize;
        let of_row = |row| self.cells.get(index(row, place));
        let counts = (0..rows).filter_map(of_row).map(|cell| cell.load(SeqCst));
        counts.fold(0, u32::saturating_add)
    }
}

/// Where the cell of a row is. A place that is none leads out of the memory.
fn index(row: usize, place: u32) -> usize {
    match place < CELLS {
        true => HEADER as usize + row * CELLS as usize + place as usize,
        false => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::unistd::ftruncate;

    use super::*;

    fn row_of(ledger: &mut Ledger) -> (u32, Row) {
        let row = ledger.take().unwrap().unwrap();
        let mapped = Row::map(&offer("shop", row), ledger.duplicate().unwrap()).unwrap();
        (row, mapped)
    }

    #[test]
    fn a_worker_has_the_sum_of_what_all_rows_say() {
        let mut ledger = Ledger::create().unwrap();
        let [(_, one), (_, other)] = [row_of(&mut ledger), row_of(&mut ledger)];
        one.set(7, 2);
        other.set(7, 3);
        other.set(8, 1);
        for row in [&one, &other] {
            assert_eq!([row.load(6), row.load(7), row.load(8)], [0, 5, 1]);
        }
        one.set(CELLS, 9);
        assert_eq!(one.load(CELLS), 0, "there is no such place");
    }

    #[test]
    fn what_a_process_had_goes_with_its_row() {
        let mut ledger = Ledger::create().unwrap();
        let [(_, one), (killed, other)] = [row_of(&mut ledger), row_of(&mut ledger)];
        one.set(0, 1);
        other.set(0, 4);
        other.set(CELLS - 1, 4);
        ledger.clear(killed).unwrap();
        assert_eq!([one.load(0), one.load(CELLS - 1)], [1, 0]);
        let (again, _) = row_of(&mut ledger);
        assert_eq!(again, killed, "a row is given out again");
    }

    #[test]
    fn rows_are_given_out_until_there_are_none() {
        let mut ledger = Ledger::create().unwrap();
        for row in 0..ROWS {
            assert_eq!(ledger.take().unwrap(), Some(row));
        }
        assert_eq!(ledger.take().unwrap(), None);
    }

    #[test]
    fn memory_that_no_supervisor_made_is_refused() {
        let ledger = Ledger::create().unwrap();
        let map = |offer, memory| Row::map(&offer, memory).unwrap_err();
        let old = PlacesOffer {
            abi: ABI + 1,
            ..offer("shop", 0)
        };
        let refused = map(old, ledger.duplicate().unwrap());
        assert!(matches!(refused, PlacesError::Layout { abi: 2, .. }));
        let refused = map(offer("shop", ROWS), ledger.duplicate().unwrap());
        assert_eq!(refused, PlacesError::Row { row: ROWS });
        let loose = memfd_create(c"loose", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&loose, BYTES as i64).unwrap();
        assert!(matches!(
            map(offer("shop", 0), loose),
            PlacesError::Seals { .. }
        ));
    }

    #[test]
    fn it_can_be_made_neither_smaller_nor_larger() {
        let memory = Ledger::create().unwrap().duplicate().unwrap();
        for length in [0, BYTES as i64 + 1] {
            assert_eq!(ftruncate(&memory, length), Err(Errno::EPERM));
        }
    }
}
