//! Shared memory in which a worker notes the requests that it is serving, so that what
//! it was doing can be seen also after SIGKILL.
//!
//! The supervisor [makes](Table::create) one for each process and hands it over with
//! `requests`; the worker maps it as its [`Writer`]. Each request has an *entry* from its
//! head to the end of its response. Where all entries are taken, requests are counted and
//! not noted.
//!
//! An entry is written under a sequence number (a seqlock): odd while it is written, and
//! another one whenever it is of another request. The supervisor maps nothing. It reads
//! copies and keeps those entries whose number was the same before and after. So a
//! hostile worker can have it show nonsense, and nothing else: no address, index or length
//! is taken from the memory.
//!
//! The layout is versioned by [`ABI`] and described in this crate's `README.md`.

mod layout;
mod reader;
mod writer;

use std::os::fd::OwnedFd;

pub(crate) use layout::{Header, Record};
/// What is being done about a request, by the word that the control API has for it.
pub use prefork_api::RequestStage;

pub use layout::{ID, METHOD, TARGET};
pub use reader::{Entry, Snapshot, Table};
pub use writer::{Arrived, Client, Method, Place, Writer};

use crate::error::SystemError;
use crate::sealed::{Flaw, Sealed};

/// The layout's version, the `abi` of `requests`.
pub const ABI: u32 = 1;

/// The most entries that a table has.
pub const MOST_ENTRIES: u32 = 1024;

/// Why there is no request table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestTableError {
    /// The kernel refused a step.
    #[error("no request table: {0}")]
    System(#[from] SystemError),

    /// It may become smaller under whoever reads it.
    #[error("no request table: its seals are {found:#x}; no supervisor made it")]
    Seals {
        /// The seals it has, as `F_GET_SEALS` gives them.
        found: i32,
    },

    /// It is of no size that a table has.
    #[error("no request table: {bytes} bytes are none of its sizes")]
    Size {
        /// The memory's size in bytes.
        bytes: i64,
    },

    /// It is of another version.
    #[error("no request table: its layout is version {found}, this worker knows {ABI}")]
    Abi {
        /// The version that `requests` says.
        found: u32,
    },
}

/// The size in bytes of a table of so many entries.
pub fn bytes(entries: u32) -> u64 {
    (size_of::<Header>() + entries as usize * size_of::<Record>()) as u64
}

impl From<Flaw> for RequestTableError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::System(error) => error.into(),
            Flaw::Seals(found) => Self::Seals { found },
        }
    }
}

/// How many entries memory has that came from elsewhere.
fn entries(memory: &OwnedFd) -> Result<u32, RequestTableError> {
    let size = Sealed::look(memory)?.bytes;
    let of_entries = size.checked_sub(size_of::<Header>() as i64);
    let found = of_entries.map_or(0, |it| it / size_of::<Record>() as i64);
    match u32::try_from(found) {
        Ok(found @ 1..=MOST_ENTRIES) if u64::try_from(size) == Ok(bytes(found)) => Ok(found),
        _ => Err(RequestTableError::Size { bytes: size }),
    }
}

#[cfg(test)]
mod tests;
