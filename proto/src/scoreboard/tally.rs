//! The worker's side: counts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::fcntl::SealFlag;
use nix::sys::stat::fstat;

use super::{ABI, BYTES, Cells, ScoreboardError};
use crate::error::Call;
use crate::message::{HttpCounts, ScoreboardOffer, duration_bucket};
use crate::sealed::seals;
use crate::sys;
use crate::system_error::refused;
use crate::tls::HandshakeFailure;

/// What a worker counts, in its scoreboard or, where it was given none, in
/// memory of its own. One per process: its cells stay for as long as that.
///
/// All but the byte counts have one writer, the thread that serves, and are
/// written with a plain load and store, which needs no locked instruction.
/// Two threads that call one of those at the same time lose a count and
/// nothing else. Byte counts may come from any thread: an application may take
/// an upgraded connection elsewhere.
///
/// A count is in the memory when the call returns: a write to a socket that
/// follows can't overtake it, so what a client has received is counted, however
/// the process ends.
#[derive(Debug)]
pub struct Tally {
    cells: &'static Cells<AtomicU64>,
    memory: Option<OwnedFd>,
}

impl Tally {
    /// In memory of the process's own.
    pub fn private() -> Self {
        Self {
            cells: Box::leak(Box::default()),
            memory: None,
        }
    }

    /// In the scoreboard that came with `offer`. To be done before `ready`:
    /// after it the supervisor has closed the memory to new writers.
    ///
    /// # Errors
    /// [`Abi`](ScoreboardError::Abi), [`Size`](ScoreboardError::Size) or
    /// [`Seals`](ScoreboardError::Seals) where it does not fit this worker, and
    /// [`System`](ScoreboardError::System) where the kernel refuses it.
    pub fn map(offer: &ScoreboardOffer, memory: OwnedFd) -> Result<Self, ScoreboardError> {
        if offer.abi != ABI {
            return Err(ScoreboardError::Abi { found: offer.abi });
        }
        let found = seals(&memory)?;
        // Memory that shrinks under a mapping is a fault waiting to happen.
        if !found.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(ScoreboardError::Seals {
                found: found.bits(),
                missing: SealFlag::F_SEAL_SHRINK.bits(),
            });
        }
        let size = fstat(&memory).map_err(refused(Call::Fstat))?.st_size;
        // A later layout of this version has more cells behind these.
        if size < BYTES as i64 {
            return Err(ScoreboardError::Size { found: size });
        }
        // SAFETY: its seals keep it from shrinking, and it is long enough.
        #[expect(unsafe_code, reason = "what it takes has just been checked")]
        let cells = unsafe { sys::map_for_good(memory.as_fd()) }.map_err(refused(Call::Mmap))?;
        Ok(Self {
            cells,
            memory: Some(memory),
        })
    }

    /// The scoreboard's memory, to be handed to the next supervisor; `None`
    /// for memory of the process's own, which nobody else reads.
    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref().map(AsFd::as_fd)
    }

    /// One response: its status and the time from request head to response
    /// head. To be counted before the response's first byte is written.
    pub fn answered(&self, status: u16, took: Duration) {
        self.answered_in(status, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// A request was answered with this status, in so many microseconds.
    #[inline]
    pub fn answered_in(&self, status: u16, micros: u64) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        add(&self.cells.requests[class], 1);
        add(&self.cells.duration_buckets[duration_bucket(micros)], 1);
        add(&self.cells.duration_sum_us, micros);
    }

    /// A request's handler panicked.
    pub fn panicked(&self) {
        add(&self.cells.panics, 1);
    }

    /// A client's TLS handshake came to nothing.
    pub fn handshake_failed(&self, why: HandshakeFailure) {
        add(&self.cells.tls_failures[why as usize], 1);
    }

    /// One connection was accepted.
    pub fn accepted(&self) {
        add(&self.cells.accepted, 1);
    }

    /// So many bytes came from a client.
    pub fn received(&self, bytes: u64) {
        self.cells.received_bytes.fetch_add(bytes, Relaxed);
    }

    /// So many bytes went to a client.
    pub fn sent(&self, bytes: u64) {
        self.cells.sent_bytes.fetch_add(bytes, Relaxed);
    }

    /// A request has come.
    pub fn request_began(&self) {
        add(&self.cells.in_flight, 1);
    }

    /// The response to a request is finished.
    pub fn request_ended(&self) {
        let in_flight = &self.cells.in_flight;
        in_flight.store(in_flight.load(Relaxed).saturating_sub(1), Relaxed);
    }

    /// So many connections are open now. The callers must agree among
    /// themselves on who says so last.
    pub fn connections(&self, open: u64) {
        self.cells.connections.store(open, Relaxed);
    }

    /// Requests whose response is not finished.
    pub fn in_flight(&self) -> u64 {
        self.cells.in_flight.load(Relaxed)
    }

    /// The totals as `health` carries them.
    pub fn totals(&self) -> HttpCounts {
        let get = |cell: &AtomicU64| cell.load(Relaxed);
        HttpCounts {
            requests: self.cells.requests.each_ref().map(get),
            accepted: get(&self.cells.accepted),
            received_bytes: get(&self.cells.received_bytes),
            sent_bytes: get(&self.cells.sent_bytes),
            duration_buckets: self.cells.duration_buckets.each_ref().map(get),
            duration_sum_us: get(&self.cells.duration_sum_us),
            panics: get(&self.cells.panics),
            tls_failures: self.cells.tls_failures.each_ref().map(get),
        }
    }
}

/// Adds where there is one writer.
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::DURATION_BOUNDS;

    #[test]
    fn a_request_lands_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let tally = Tally::private();
        tally.answered(200, Duration::from_micros(500));
        tally.answered(204, Duration::from_micros(501));
        tally.answered(503, Duration::from_secs(11));
        let totals = tally.totals();
        assert_eq!(totals.duration_buckets[0], 1);
        assert_eq!(totals.duration_buckets[1], 1);
        assert_eq!(totals.duration_buckets[DURATION_BOUNDS.len()], 1);
        assert_eq!(totals.duration_sum_us, 500 + 501 + 11_000_000);
        assert_eq!(totals.requests, [0, 2, 0, 0, 1]);
    }

    #[test]
    fn a_status_out_of_range_is_counted_with_its_nearest_class() {
        let tally = Tally::private();
        tally.answered(999, Duration::ZERO);
        tally.answered(0, Duration::ZERO);
        assert_eq!(tally.totals().requests, [1, 0, 0, 0, 1]);
    }

    #[test]
    fn a_failure_is_counted_at_the_place_of_its_name() {
        let tally = Tally::private();
        for (place, why) in HandshakeFailure::ALL.into_iter().enumerate() {
            tally.handshake_failed(why);
            assert_eq!(tally.totals().tls_failures[place], 1, "{why:?}");
        }
        assert_eq!(tally.totals().tls_failures, [1; 5]);
    }

    #[test]
    fn requests_in_flight_never_go_below_none() {
        let tally = Tally::private();
        tally.request_began();
        tally.request_ended();
        tally.request_ended();
        assert_eq!(tally.in_flight(), 0);
    }
}
