//! Fronts: workers that forward requests to other pools of the same supervisor.
//!
//! A worker says that it is one by [`Worker::forwards`](crate::Worker::forwards), and the
//! supervisor keeps its [`Forwards`] up to date: which processes a pool behind it has,
//! where each listens, how many requests it takes at a time, and who is on the way out.
//! Where several fronts forward to the same pool, each counts what it has there in a
//! [`Row`] that the others see, so that no process gets more than its share from all of
//! them together. What was answered there it counts by a [`Counter`], so that the
//! generations of such a pool can be compared. What is sent there, and how, is the front's own affair.

use std::os::fd::OwnedFd;

pub use prefork_proto::adapter::UpstreamAddress;
pub use prefork_proto::message::{PlacesOffer, Upstream, UpstreamCountsOffer, Upstreams, Vacate};
pub use prefork_proto::places::{CELLS, PlacesError, Row};
pub use prefork_proto::upstream_counts::{Counter, UpstreamCountsError};

use crate::app::handlers::{Answer, LocalFuture};

/// The answer to [`Forwards::vacate`], when it is known.
pub type Vacated = LocalFuture<Answer>;

/// What a front does with what the supervisor tells it of the pools behind.
pub trait Forwards {
    /// Counts what it has at a pool in this memory from now on; [`Row::map`] makes the
    /// row of it.
    ///
    /// # Errors
    /// It can't be used; what was there before stays in use.
    fn count_in(&self, offer: &PlacesOffer, memory: OwnedFd) -> Result<(), PlacesError>;

    /// Counts what each worker of a pool has answered in this memory from now on;
    /// [`Counter::map`] makes the counter of it.
    ///
    /// # Errors
    /// It can't be used; what was there before stays in use.
    fn count_answers_in(
        &self,
        offer: &UpstreamCountsOffer,
        memory: OwnedFd,
    ) -> Result<(), UpstreamCountsError>;

    /// Sends nothing more to processes that are not in this table, or that leave. A
    /// table that is too long for one line comes in several, [`Upstreams::more`].
    fn learn(&self, table: Upstreams);

    /// Is done when nothing is in flight any more at a process that leaves.
    fn vacate(&self, whom: &Vacate) -> Vacated;
}
