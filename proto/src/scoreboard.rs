//! Shared memory in which one incarnation of a worker counts, so that what it
//! counted is there also after SIGKILL.
//!
//! The supervisor [creates](create) one for each process and hands it over with
//! `scoreboard`; the worker maps it as its [`Tally`] before it says `ready`.
//! When the supervisor hears `ready` it [seals](Unsealed::seal) the memory and
//! has a [`Board`] to read. From then on no process can make the memory another
//! size, punch holes in it or map it for writing again; what is left to a
//! hostile worker is to write nonsense into the cells, which are only displayed.
//!
//! The layout is versioned by [`ABI`] and described in this crate's `README.md`.

mod board;
mod layout;
mod tally;

pub use board::{Board, Unsealed, create};
pub(crate) use layout::{Cells, Seen};
pub use tally::Tally;

use crate::error::SystemError;
use crate::message::HttpCounts;

/// The layout's version, the `abi` of `scoreboard`.
pub const ABI: u32 = 1;

/// The layout's size in bytes.
pub const BYTES: u64 = size_of::<Cells<Seen>>() as u64;

/// What a scoreboard held at one moment. The cells are read one after the
/// other while the worker counts: each is right, and a request that is being
/// counted may show in one and not yet in the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Totals since the incarnation began.
    pub http: HttpCounts,
    /// Requests whose response is not finished.
    pub in_flight: u64,
    /// Open connections.
    pub connections: u64,
}

/// Why there is no scoreboard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScoreboardError {
    /// The kernel refused a step.
    #[error("no scoreboard: {0}")]
    System(#[from] SystemError),

    /// Somebody has sealed it in a way that leaves it open to change.
    #[error(
        "no scoreboard: its seals are {found:#x}, which lack {missing:#x}; it was not sealed by a supervisor"
    )]
    Seals {
        /// The seals it has, as `F_GET_SEALS` gives them.
        found: i32,
        /// Those it must have and has not.
        missing: i32,
    },

    /// It is too small for the layout, or not of its size.
    #[error("no scoreboard: it has {found} bytes, the layout has {BYTES}")]
    Size {
        /// The memory's size in bytes.
        found: i64,
    },

    /// It is of another version.
    #[error("no scoreboard: its layout is version {found}, this worker knows {ABI}")]
    Abi {
        /// The version that `scoreboard` says.
        found: u32,
    },
}
