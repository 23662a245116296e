//! What a worker is told that forwards requests to a pool of the same supervisor.

use std::os::fd::OwnedFd;

use prefork_proto::message::{PlacesOffer, Upstreams, Vacate};
use prefork_proto::places::PlacesError;

use crate::application::{Answer, LocalFuture};

/// What such a worker does with it.
pub(crate) trait Forwards {
    /// Counts what it has at a pool in this memory from now on.
    ///
    /// # Errors
    /// It can't be used; what was there before stays in use.
    fn count_in(&self, offer: &PlacesOffer, memory: OwnedFd) -> Result<(), PlacesError>;

    /// Sends nothing more to workers that are not in this table, or that leave.
    fn learn(&self, table: Upstreams);

    /// Is done when nothing is in flight any more at a worker that leaves.
    fn vacate(&self, whom: &Vacate) -> LocalFuture<Answer>;
}
